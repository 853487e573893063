package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupInodes,
		request{names: []string{"show_inode_info", "stat"}, args: "file", help: "show an inode", needs: needFS, min: 1, max: 1, run: stat},
		request{names: []string{"imap"}, args: "file", help: "show where an inode lies", needs: needFS, min: 1, max: 1, run: imap},
	)
}

// stat shows an inode that does not match its checksum too, and fails then.
func stat(s *session, a *args) error {
	r, ino, raw, err := s.load(a.word(0))
	if err != nil {
		return err
	}
	if s.json {
		err = s.statJSON(r, ino, raw)
	} else {
		err = s.showInode(r, ino, raw)
	}
	if e := r.VerifyInode(ino, raw); e != nil {
		err = e
	}
	return err
}

func (s *session) showInode(r *ext2fs.Raw, ino ondisk.Ino, raw ondisk.RawInode) error {
	var bad error
	err := e2p.ListInode(s.out, "", ino, raw, r.HasCsum(), systemNames().Location, func(w io.Writer) {
		if len(raw) > ondisk.GoodOldInodeSz {
			n := int(endian.View[ondisk.InodeExtra](raw[ondisk.GoodOldInodeSz:]).ExtraIsize.Get())
			if n > len(raw)-ondisk.GoodOldInodeSz {
				fmt.Fprintf(w, "invalid inode->i_extra_isize (%d)\n", n)
			}
		}
		var list []ext2fs.RawXattr
		list, bad = r.Xattrs(ino, raw)
		showXattrs(w, list)
	})
	return firstError(err, bad, s.showContent(r, ino, raw))
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// inodeCsum returns the checksum as stored.
func inodeCsum(raw ondisk.RawInode) uint32 {
	c := uint32(raw.Base().ChecksumLo.Get())
	if raw.ExtraIsize() >= 4 {
		c |= uint32(endian.View[ondisk.InodeExtra](raw[ondisk.GoodOldInodeSz:]).ChecksumHi.Get()) << 16
	}
	return c
}

// showContent shows what i_block says, but for what fits a line.
func (s *session) showContent(r *ext2fs.Raw, ino ondisk.Ino, raw ondisk.RawInode) error {
	w, b := s.out, raw.Base()
	inline := b.Flags.Get()&ondisk.FlagInlineData != 0
	switch t := b.Mode.Get() & ondisk.ModeFmt; {
	case t == ondisk.ModeLnk && inline:
		target, err := r.Readlink(ino)
		fmt.Fprintf(w, "Fast link dest: \"%s\"\n", cli.Clean(strings.TrimRight(target, "\x00")))
		return err
	case t == ondisk.ModeLnk && r.IsFastLink(raw), t == ondisk.ModeBlk, t == ondisk.ModeChr: // that was shown
	case b.Flags.Get()&ondisk.FlagExtents != 0:
		fmt.Fprintf(w, "EXTENTS:\n")
		return s.showExtentRuns(r, ino, raw)
	case inline:
		data, err := r.Inline(ino, raw)
		fmt.Fprintf(w, "Size of inline data: %d\n", len(data))
		return err
	default:
		fmt.Fprintf(w, "BLOCKS:\n")
		return s.showBlockRuns(r, ino, raw)
	}
	return nil
}

// showExtentRuns lists the extent tree on one line.
func (s *session) showExtentRuns(r *ext2fs.Raw, ino ondisk.Ino, raw ondisk.RawInode) error {
	sep := ""
	top := -1
	err := r.WalkBlocks(ino, raw, func(run ext2fs.RawRun) bool {
		if run.Level > 0 {
			top = max(top, run.Level)
			fmt.Fprintf(s.out, "%s(ETB%d):%d", sep, top-run.Level, run.Pblk)
		} else {
			s.showRun(sep, run)
		}
		sep = ", "
		return !s.interrupted()
	})
	if sep != "" {
		s.out.WriteByte('\n')
	}
	return err
}

func (s *session) showRun(sep string, run ext2fs.RawRun) {
	u := ""
	if run.Unwritten {
		u = "[u]"
	}
	if run.Len == 1 {
		fmt.Fprintf(s.out, "%s(%d%s):%d", sep, run.Lblk, u, run.Pblk)
		return
	}
	fmt.Fprintf(s.out, "%s(%d-%d%s):%d-%d", sep, run.Lblk, uint64(run.Lblk)+uint64(run.Len)-1, u, run.Pblk, uint64(run.Pblk)+uint64(run.Len)-1)
}

// showBlockRuns lists what is mapped by block numbers on one line.
func (s *session) showBlockRuns(r *ext2fs.Raw, ino ondisk.Ino, raw ondisk.RawInode) error {
	sep, total := "", uint64(0)
	var last ext2fs.RawRun
	flush := func() {
		if last.Len > 0 {
			s.showRun(sep, last)
			sep = ", "
		}
		last.Len = 0
	}
	err := r.WalkBlocks(ino, raw, func(run ext2fs.RawRun) bool {
		total += uint64(run.Len)
		switch {
		case run.Level > 0:
			flush()
			fmt.Fprintf(s.out, "%s(%s):%d", sep, []string{"", "IND", "DIND", "TIND"}[run.Level], run.Pblk)
			sep = ", "
		case last.Len > 0 && last.Lblk+ondisk.Lblk(last.Len) == run.Lblk && last.Pblk+ondisk.Fsblk(last.Len) == run.Pblk:
			last.Len += run.Len
		default:
			flush()
			last = run
		}
		return !s.interrupted()
	})
	flush()
	if total > 0 {
		fmt.Fprintf(s.out, "\nTOTAL: %d\n", total)
	}
	s.out.WriteByte('\n')
	return err
}

// inodeJSON is an inode as JSON.
type inodeJSON struct {
	Ino  ondisk.Ino `json:"ino"`
	Type string     `json:"type"`
	*inodeAttr
	Flags      string      `json:"flags"`
	Generation uint32      `json:"generation"`
	Version    uint64      `json:"version"`
	Projid     uint32      `json:"projid"`
	FileACL    uint64      `json:"file_acl"`
	Sectors    uint64      `json:"sectors"`
	Atime      time.Time   `json:"atime"`
	Ctime      time.Time   `json:"ctime"`
	Crtime     *time.Time  `json:"crtime,omitempty"`
	Dtime      *time.Time  `json:"dtime,omitempty"`
	ExtraIsize int         `json:"extra_isize"`
	Checksum   string      `json:"checksum,omitempty"`
	CsumValid  *bool       `json:"checksum_valid,omitempty"`
	Target     *string     `json:"target,omitempty"`
	Device     *[2]uint32  `json:"device,omitempty"`
	Xattrs     []xattrJSON `json:"xattrs,omitempty"`
	Mapping    []runJSON   `json:"mapping,omitempty"`
}

type runJSON struct {
	Level     int    `json:"level"`
	Lblk      uint32 `json:"lblk"`
	Pblk      uint64 `json:"pblk"`
	Len       uint32 `json:"len"`
	Unwritten bool   `json:"unwritten,omitempty"`
}

// maxRuns bounds what is shown of a mapping as one value.
const maxRuns = 1 << 20

func runsOf(r *ext2fs.Raw, ino ondisk.Ino, raw ondisk.RawInode) (out []runJSON, err error) {
	out = []runJSON{}
	err = r.WalkBlocks(ino, raw, func(run ext2fs.RawRun) bool {
		out = append(out, runJSON{run.Level, uint32(run.Lblk), uint64(run.Pblk), run.Len, run.Unwritten})
		return len(out) < maxRuns
	})
	return out, err
}

func (s *session) statJSON(r *ext2fs.Raw, ino ondisk.Ino, raw ondisk.RawInode) error {
	b := raw.Base()
	when := func(t ondisk.Time) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }
	j := inodeJSON{Ino: ino, Type: e2p.TypeName(b.Mode.Get()), inodeAttr: attrOf(r, raw), Flags: fmt.Sprintf("%#x", b.Flags.Get()),
		Generation: b.Generation.Get(), Version: raw.Version(), Projid: raw.Projid(), FileACL: uint64(raw.FileACL()), Sectors: r.Sectors(raw),
		Atime: when(raw.Atime()), Ctime: when(raw.Ctime()), ExtraIsize: raw.ExtraIsize()}
	if t, ok := raw.Crtime(); ok {
		c := when(t)
		j.Crtime = &c
	}
	if t := b.Dtime.Get(); t != 0 {
		c := time.Unix(int64(t), 0)
		j.Dtime = &c
	}
	if r.HasCsum() {
		ok := r.VerifyInode(ino, raw) == nil
		j.Checksum, j.CsumValid = fmt.Sprintf("0x%08x", inodeCsum(raw)), &ok
	}
	var err1, err2 error
	switch b.Mode.Get() & ondisk.ModeFmt {
	case ondisk.ModeLnk:
		target, err := r.Readlink(ino)
		j.Target, err1 = &target, err
	case ondisk.ModeBlk, ondisk.ModeChr:
		major, minor := deviceNumber(raw)
		j.Device = &[2]uint32{major, minor}
	}
	list, err := r.Xattrs(ino, raw)
	for i := range list {
		j.Xattrs = append(j.Xattrs, jsonXattr(&list[i]))
	}
	j.Mapping, err2 = runsOf(r, ino, raw)
	return firstError(s.emit(j), err, err1, err2)
}

// deviceNumber returns the numbers of a device, in either of their encodings.
func deviceNumber(raw ondisk.RawInode) (major, minor uint32) {
	p := endian.Views[endian.LE32](raw.Base().Block[:], 2)
	if d := p[0].Get(); d != 0 {
		return d >> 8 & 0xff, d & 0xff
	}
	d := p[1].Get()
	return (d & 0xfff00) >> 8, d&0xff | d>>12&0xfff00
}

func imap(s *session, a *args) error {
	r, ino, err := s.rawInode(a.word(0))
	if err != nil {
		return err
	}
	b, off, err := r.InodeAt(ino)
	if err != nil {
		return err
	}
	if s.json {
		return s.emit(map[string]any{"ino": ino, "group": r.GroupOfInode(ino), "block": b, "offset": off})
	}
	fmt.Fprintf(s.out, "Inode %d is part of block group %d\n\tlocated at block %d, offset 0x%04x\n", ino, r.GroupOfInode(ino), b, off)
	return nil
}
