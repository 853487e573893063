package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// extentSession is what extent_open opens: an inode whose tree is walked and
// edited.
type extentSession struct {
	ino ondisk.Ino
	raw *ext2fs.Raw // that the cursor works on
	c   *ext2fs.ExtentCursor
}

func init() {
	move := func(help string, m ext2fs.Move, names ...string) request {
		return request{names: names, help: help, needs: needFS | needExtent, run: func(s *session, a *args) error { return s.moveExtent(m) }}
	}
	const edit = needFS | needExtent | needWrite
	register(groupExtents,
		request{names: []string{"extent_open", "eo"}, args: "file", help: "open the extent tree of an inode for these commands", needs: needFS, max: 1, run: extentOpen},
		request{names: []string{"extent_close", "ec"}, help: "close it", needs: needExtent, run: func(s *session, _ *args) error { s.extent = nil; return nil }},
		move("show the current entry", ext2fs.MoveCurrent, "current_node", "current"),
		move("go to the root", ext2fs.MoveRoot, "root_node", "root"),
		move("go to the last leaf", ext2fs.MoveLastLeaf, "last_leaf"),
		move("go to the first entry of the node", ext2fs.MoveFirstSib, "first_sibling", "first_sib"),
		move("go to the last entry of the node", ext2fs.MoveLastSib, "last_sibling", "last_sib"),
		move("go to the next entry of the node", ext2fs.MoveNextSib, "next_sibling", "next_sib", "ns"),
		move("go to the previous entry of the node", ext2fs.MovePrevSib, "prev_sibling", "prev_sib", "ps"),
		move("go to the next leaf", ext2fs.MoveNextLeaf, "next_leaf", "nl"),
		move("go to the previous leaf", ext2fs.MovePrevLeaf, "prev_leaf", "pl"),
		move("go to the next entry", ext2fs.MoveNext, "next", "n"),
		move("go to the previous entry", ext2fs.MovePrev, "previous", "prev", "p"),
		move("go up", ext2fs.MoveUp, "up_node", "up", "u"),
		move("go down", ext2fs.MoveDown, "down_node", "down", "d"),
		request{names: []string{"goto_block", "goto"}, args: "block [level]", help: "go to the entry of a block, at a level from the leaves up",
			needs: needFS | needExtent, min: 1, max: 2, run: extentGoto},
		request{names: []string{"print_all", "all"}, args: "[--leaf-only|--reverse|--reverse-leaf]", help: "show all entries",
			needs: needFS | needExtent, opts: options("", "leaf-only", "reverse", "reverse-leaf"), run: extentAll},
		request{names: []string{"info"}, help: "show where we are", needs: needFS | needExtent, run: extentInfo},
		request{names: []string{"delete_node", "delete"}, help: "delete the current entry", needs: edit, run: extentDelete},
		request{names: []string{"insert_node", "insert"}, args: "[--after] [--uninit] block length new", help: "insert an entry before, or after, the current one",
			needs: edit, min: 3, max: 3, opts: options("", "after", "uninit"), run: extentInsert},
		request{names: []string{"replace_node", "replace"}, args: "[--uninit] block length new", help: "replace the current entry",
			needs: edit, min: 3, max: 3, opts: options("", "uninit"), run: extentReplace},
		request{names: []string{"split_node", "split"}, help: "split the current node", needs: edit, run: extentSplit},
		request{names: []string{"fix_parents", "fixp"}, help: "correct the entries above the current node", needs: edit,
			run: func(s *session, _ *args) error { return s.extent.c.FixParents() }},
		request{names: []string{"set_bmap"}, args: "[--uninit] block new", help: "map a block", needs: edit, min: 2, max: 2,
			opts: options("", "uninit"), run: extentSetBmap},
	)
}

func extentOpen(s *session, a *args) error {
	if len(a.words) == 0 {
		if s.extent == nil {
			s.out.WriteString("No current inode\n")
		} else {
			fmt.Fprintf(s.out, "Current inode: %d\n", s.extent.ino)
		}
		return nil
	}
	if s.extent != nil {
		return fmt.Errorf("inode %d is open: close it by extent_close first", s.extent.ino)
	}
	r, ino, err := s.rawInode(a.word(0))
	if err != nil {
		return err
	}
	c, err := r.OpenExtents(ino)
	if err != nil {
		return err
	}
	s.extent = &extentSession{ino, r, c}
	return nil
}

// reopenExtents makes the cursor anew after the tree was changed by others.
func (s *session) reopenExtents() error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	c, err := r.OpenExtents(s.extent.ino)
	if err == nil {
		s.extent.raw, s.extent.c = r, c
	}
	return err
}

// useExtents returns the cursor. If operations of the file system came between,
// it starts again at the root.
func (s *session) useExtents() (*ext2fs.ExtentCursor, error) {
	if s.raw == nil || s.extent.raw != s.raw {
		if err := s.reopenExtents(); err != nil {
			return nil, err
		}
	}
	return s.extent.c, nil
}

func (s *session) showExtent(x ext2fs.CursorExtent) {
	if s.json {
		_ = s.emit(map[string]any{"lblk": x.Lblk, "pblk": x.Pblk, "len": x.Len, "unwritten": x.Unwritten, "leaf": x.Leaf, // numbers
			"second_visit": x.SecondVisit})
		return
	}
	var flags strings.Builder
	for _, f := range []struct {
		on   bool
		name string
	}{{x.Leaf, "LEAF "}, {x.Unwritten, "UNINIT "}, {x.SecondVisit, "2ND_VISIT "}} {
		if f.on {
			flags.WriteString(f.name)
		}
	}
	if flags.Len() == 0 {
		flags.WriteString("(none)")
	}
	fmt.Fprintf(s.out, "extent: lblk %d--%d, len %d, pblk %d, flags: %s\n", x.Lblk, uint64(x.Lblk)+uint64(x.Len)-1, x.Len, x.Pblk, flags.String())
}

func (s *session) moveExtent(m ext2fs.Move) error {
	c, err := s.useExtents()
	if err != nil {
		return err
	}
	x, err := c.Get(m)
	if err == nil {
		s.showExtent(x)
	}
	return err
}

func extentGoto(s *session, a *args) error {
	c, err := s.useExtents()
	if err != nil {
		return err
	}
	lblk, err1 := parseNumber(a.word(0), 32)
	level, err2 := a.number(1, 0, 8)
	if err := firstError(err1, err2); err != nil {
		return err
	}
	x, err := c.Goto(ondisk.Lblk(lblk), int(level))
	if err == nil {
		s.showExtent(x)
	}
	return err
}

func extentAll(s *session, a *args) error {
	c, err := s.useExtents()
	if err != nil {
		return err
	}
	first, next := ext2fs.MoveRoot, ext2fs.MoveNext
	switch {
	case a.has("reverse"):
		first, next = ext2fs.MoveLastLeaf, ext2fs.MovePrev
	case a.has("reverse-leaf"):
		first, next = ext2fs.MoveLastLeaf, ext2fs.MovePrevLeaf
	case a.has("leaf-only"):
		next = ext2fs.MoveNextLeaf
	}
	x, err := c.Get(ext2fs.MoveRoot)
	if err == nil && first != ext2fs.MoveRoot {
		x, err = c.Get(first)
	}
	for left := 4 * uint64(s.raw.Blocks()); err == nil && left > 0 && !s.interrupted(); left-- {
		if !a.has("leaf-only") || x.Leaf {
			s.showExtent(x)
		}
		x, err = c.Get(next)
	}
	if errors.Is(err, ext2fs.ErrNoExtent) {
		err = nil
	}
	return err
}

func extentInfo(s *session, _ *args) error {
	c, err := s.useExtents()
	if err != nil {
		return err
	}
	x, err := c.Get(ext2fs.MoveCurrent)
	if err == nil {
		s.showExtent(x)
	}
	entry, entries, most := c.Node()
	fmt.Fprintf(s.out, "Current handle location: %d/%d (max: %d, bytes %d), level %d/%d\n", entry, entries, most,
		(most-entries)*ondisk.ExtentEntry, c.Level(), c.Depth())
	fmt.Fprintf(s.out, "\tmax lblk: %d, max pblk: %d\n", uint32(1<<32-1), uint64(1<<48-1))
	fmt.Fprintf(s.out, "\tmax_len: %d, max_uninit_len: %d\n", ondisk.MaxExtentLen, ondisk.MaxUnwrittenLen)
	return nil
}

// extentArgs reads "block length new".
func (s *session) extentArgs(a *args) (x ext2fs.RawRun, err error) {
	lblk, err1 := parseNumber(a.word(0), 32)
	n, err2 := parseNumber(a.word(1), 32)
	pblk, err3 := s.parseBlock(a.word(2))
	return ext2fs.RawRun{Lblk: ondisk.Lblk(lblk), Len: uint32(n), Pblk: pblk, Unwritten: a.has("uninit")}, firstError(err1, err2, err3)
}

func extentDelete(s *session, _ *args) error {
	c, err := s.useExtents()
	if err == nil {
		err = c.Delete()
	}
	return s.showCurrent(c, err)
}

// showCurrent shows where an edit has left the cursor, if there is anything.
func (s *session) showCurrent(c *ext2fs.ExtentCursor, err error) error {
	if err != nil {
		return err
	}
	if x, err := c.Get(ext2fs.MoveCurrent); err == nil {
		s.showExtent(x)
	}
	return nil
}

func extentInsert(s *session, a *args) error {
	c, err := s.useExtents()
	if err != nil {
		return err
	}
	x, err := s.extentArgs(a)
	if err == nil {
		err = c.Insert(x, a.has("after"))
	}
	return s.showCurrent(c, err)
}

func extentReplace(s *session, a *args) error {
	c, err := s.useExtents()
	if err != nil {
		return err
	}
	x, err := s.extentArgs(a)
	if err == nil {
		err = c.Replace(x)
	}
	return s.showCurrent(c, err)
}

func extentSplit(s *session, _ *args) error {
	c, err := s.useExtents()
	if err == nil {
		err = c.Split()
	}
	return s.showCurrent(c, err)
}

func extentSetBmap(s *session, a *args) error {
	if _, err := s.useExtents(); err != nil {
		return err
	}
	lblk, err1 := parseNumber(a.word(0), 32)
	pblk, err := s.parseBlock(a.word(1))
	if err = firstError(err1, err); err != nil {
		return err
	}
	set := s.raw.SetBmap
	if a.has("uninit") {
		set = s.raw.SetBmapUnwritten
	}
	if err := set(s.extent.ino, ondisk.Lblk(lblk), pblk); err != nil {
		return err
	}
	if err := s.reopenExtents(); err != nil {
		return err
	}
	x, err := s.extent.c.Goto(ondisk.Lblk(lblk), 0)
	if err == nil {
		s.showExtent(x)
	} else if errors.Is(err, ext2fs.ErrNoExtent) && pblk == 0 {
		err = nil
	}
	return err
}
