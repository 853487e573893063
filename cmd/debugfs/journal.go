package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

func init() {
	const write = needFS | needWrite
	register(groupJournal,
		request{names: []string{"journal_open", "jo"}, args: "[-c] [-v version] [-f device]",
			help: "open the journal for journal_write; -c: with checksums; -f: it is on that device", needs: write, opts: options("cv:f:"), run: journalOpen},
		request{names: []string{"journal_write", "jw"}, args: "[-b blocks] [-r revokes] [-c] [file]",
			help: "append a transaction: revoke records, blocks of a file; -c: without its commit block", needs: write, max: 1, opts: options("b:r:c"), run: journalWrite},
		request{names: []string{"journal_close", "jc"}, help: "close the journal", needs: write, run: journalClose},
		request{names: []string{"journal_run", "jr"}, help: "replay the journal", needs: write, run: journalRun},
	)
}

// journalSession is what journal_open opens.
type journalSession struct {
	s        *session
	a        *jbd2.Appender
	external *blockdev.File
}

func journalOpen(s *session, a *args) error {
	if s.journal != nil {
		return errors.New("the journal is open already")
	}
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	var set jbd2.Features
	if v, ok := a.value("v"); ok || a.has("c") {
		switch {
		case v == "" || v == "3":
			set.Incompat |= jbd2.IncompatCsumV3
		case v == "2":
			set.Incompat |= jbd2.IncompatCsumV2
		case v == "1":
			set.Compat |= jbd2.CompatChecksum
		default:
			return usagef("checksums have the versions 1, 2 and 3")
		}
		if !a.has("c") {
			set = jbd2.Features{}
		}
	}
	set.Incompat |= jbd2.IncompatRevoke
	if r.Super().HasIncompat(ondisk.Incompat64Bit) {
		set.Incompat |= jbd2.Incompat64Bit
	}
	js := &journalSession{s: s}
	var external blockdev.Device
	if name, ok := a.value("f"); ok {
		if js.external, err = blockdev.Open(name, blockdev.Options{}); err != nil {
			return err
		}
		external = js.external
	}
	j, err := r.Journal(external)
	if err == nil {
		js.a, err = j.Append(set)
	}
	if err != nil {
		if js.external != nil {
			err = errors.Join(err, js.external.Close())
		}
		return err
	}
	s.journal = js
	return nil
}

var errNoJournal = errors.New("the journal is not open: use journal_open")

// blockList reads numbers and ranges with commas between them.
func (s *session) blockList(w string) (list []uint64, err error) {
	for _, part := range strings.Split(w, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		first, err := s.parseBlock(lo)
		if err != nil {
			return nil, err
		}
		last := first
		if isRange {
			if last, err = s.parseBlock(hi); err != nil {
				return nil, err
			}
		}
		if last < first || last-first > 1<<20 {
			return nil, fmt.Errorf("blocks %s", part)
		}
		for b := first; b <= last; b++ {
			list = append(list, uint64(b))
		}
	}
	return list, nil
}

func journalWrite(s *session, a *args) error {
	if s.journal == nil {
		return errNoJournal
	}
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	var homes, revokes []uint64
	if v, ok := a.value("b"); ok {
		if homes, err = s.blockList(v); err != nil {
			return err
		}
	}
	if v, ok := a.value("r"); ok {
		if revokes, err = s.blockList(v); err != nil {
			return err
		}
	}
	if (len(homes) > 0) != (a.word(0) != "") {
		return usagef("-b says where the blocks of a file go: give both or none")
	}
	var blocks []jbd2.LoggedBlock
	if len(homes) > 0 {
		f, err := os.Open(a.word(0))
		if err != nil {
			return err
		}
		defer f.Close()
		for i, home := range homes {
			data := make([]byte, r.BlockSize()) // what the file does not have is zeros
			if _, err := f.ReadAt(data, int64(i)*int64(len(data))); err != nil && !isEOF(err) {
				return err
			}
			blocks = append(blocks, jbd2.LoggedBlock{Home: home, Data: data})
		}
	}
	return s.journal.a.Write(blocks, revokes, a.has("c"))
}

func journalClose(s *session, _ *args) error {
	if s.journal == nil {
		return errNoJournal
	}
	err := s.journal.close()
	s.journal = nil
	return err
}

// close ends what journal_open began: the file system needs recovery then.
func (j *journalSession) close() error {
	written, err := j.a.Close()
	if err == nil && written {
		var r *ext2fs.Raw
		if r, err = j.s.useRaw(); err == nil {
			r.Forget()
			f := &r.Super().FeatureIncompat
			f.Set(f.Get() | ondisk.IncompatRecover)
			err = r.WriteSuper()
		}
	}
	if j.external != nil {
		err = errors.Join(err, j.external.Sync(), j.external.Close())
	}
	return err
}

// journalRun has the file system opened, which replays the journal, and closed.
func journalRun(s *session, _ *args) error {
	if s.journal != nil {
		return errors.New("the journal is open: close it by journal_close first")
	}
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	if !r.Super().HasIncompat(ondisk.IncompatRecover) {
		return nil
	}
	if err := r.Close(false); err != nil {
		return err
	}
	s.raw = nil
	fs, err := s.openFS()
	if err == nil {
		err = fs.Close()
	}
	return firstError(err, s.openRaw())
}
