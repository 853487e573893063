package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

func init() {
	register(groupJournal, request{names: []string{"recover"}, args: "[-f] [<inode> output]",
		help:  "list deleted files that the journal has old copies of; copy one out, with -f also if its blocks are in use again",
		needs: needFS | needMaps, max: 2, opts: options("f"), run: recoverCmd})
}

// oldCopy is the latest old copy of a deleted inode.
type oldCopy struct {
	raw   ondisk.RawInode
	tid   jbd2.Tid
	whole error // why its content may not be there, nil if it may
}

// maxCopies bounds what is remembered of a log.
const maxCopies = 1 << 20

// oldCopies returns the latest copies of regular files that are deleted now, of
// the inode only if that is not 0.
func oldCopies(r *ext2fs.Raw, only ondisk.Ino) (map[ondisk.Ino]*oldCopy, error) {
	j, err := r.Journal(nil)
	if err != nil {
		return nil, err
	}
	found := map[ondisk.Ino]*oldCopy{}
	err = r.OldInodes(j, func(o ext2fs.OldInode) bool {
		b := o.Raw.Base()
		if only != 0 && o.Ino != only || b.Mode.Get()&ondisk.ModeFmt != ondisk.ModeReg || b.LinksCount.Get() == 0 || r.Size(o.Raw) <= 0 {
			return true
		}
		c := found[o.Ino]
		if c == nil {
			now, err := r.Inode(o.Ino)
			if err != nil || now.Base().LinksCount.Get() != 0 { // it is not deleted
				return true
			}
			if len(found) >= maxCopies {
				return true
			}
			c = &oldCopy{}
			found[o.Ino] = c
		} else if !o.Tid.After(c.tid) {
			return true
		}
		c.raw, c.tid = slices.Clone(o.Raw), o.Tid
		return true
	})
	for ino, c := range found {
		c.whole = r.Recoverable(ino, c.raw)
		if errors.Is(c.whole, ondisk.ENODATA) {
			delete(found, ino)
		}
	}
	return found, err
}

func recoverCmd(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	switch len(a.words) {
	case 0:
		return s.listCopies(r)
	case 1:
		return usagef("say where the file goes")
	}
	ino, err := s.number(a.word(0))
	if err != nil {
		return err
	}
	found, err := oldCopies(r, ino)
	c := found[ino]
	switch {
	case c == nil && err != nil:
		return err
	case c == nil:
		return fmt.Errorf("the journal has no copy of inode %d as a deleted file", ino)
	case c.whole != nil && !a.has("f"):
		return fmt.Errorf("%w; -f takes it as it is", c.whole)
	}
	f, err := r.FileOf(ino, c.raw)
	if err != nil {
		return err
	}
	w, err := os.OpenFile(a.word(1), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return firstError(copySparse(w, f, s.interrupted), keepAttrs(w, c.raw), w.Close())
}

func (s *session) listCopies(r *ext2fs.Raw) error {
	found, err := oldCopies(r, 0)
	var order []ondisk.Ino
	for ino := range found {
		order = append(order, ino)
	}
	slices.Sort(order)
	list := s.list()
	if !s.json {
		s.out.WriteString(" Inode    Owner   Mode         Size  Transaction  Modified                  Blocks\n")
	}
	for _, ino := range order {
		c := found[ino]
		state := "free"
		if c.whole != nil {
			state = c.whole.Error()
		}
		if s.json {
			if err := list.add(struct {
				Ino ondisk.Ino `json:"ino"`
				*inodeAttr
				Tid    uint32 `json:"transaction"`
				Blocks string `json:"blocks"`
			}{ino, attrOf(r, c.raw), uint32(c.tid), state}); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(s.out, "%6d %8d %6o %12d %12d  %s  %s\n", ino, c.raw.UID(), c.raw.Base().Mode.Get(), r.Size(c.raw), c.tid,
			goTime(c.raw.Mtime()).Format(time.ANSIC), state)
	}
	if s.json {
		list.end()
	} else {
		fmt.Fprintf(s.out, "%d files found.\n", len(order))
	}
	return err
}
