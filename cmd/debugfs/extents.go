package main

import (
	"fmt"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupBlocks,
		request{names: []string{"dump_extents", "extents", "ex"}, args: "[-n] [-l] file",
			help: "show the extent tree: -n its nodes only, -l its leaves only", needs: needFS, min: 1, max: 1, opts: options("nl"), run: extents},
		request{names: []string{"blocks"}, args: "file", help: "list the blocks of an inode", needs: needFS, min: 1, max: 1, run: blocks},
		request{names: []string{"bmap"}, args: "[-a] file block [new]", help: "show which block a block of a file is; -a: allocate it; make it the new one",
			needs: needFS, min: 2, max: 3, opts: options("a"), run: bmap},
	)
}

// digits returns how many digits n has, at least 5.
func digits(n uint64) int { return max(len(fmt.Sprint(n)), 5) }

func extents(s *session, a *args) error {
	r, ino, raw, err := s.load(a.word(0))
	if err != nil {
		return err
	}
	if raw.Base().Flags.Get()&ondisk.FlagExtents == 0 {
		return fmt.Errorf("%s: its blocks are not mapped by extents", a.word(0))
	}
	if s.json {
		runs, err := runsOf(r, ino, raw)
		return firstError(s.emit(map[string]any{"ino": ino, "mapping": runs}), err)
	}
	n := (uint64(max(r.Size(raw), 0)) + uint64(r.BlockSize()) - 1) / uint64(r.BlockSize())
	t := &extentTable{s: s, nodes: !a.has("l") || a.has("n"), leaves: !a.has("n") || a.has("l"), end: n,
		lw: digits(n), pw: digits(uint64(r.Blocks()))}
	fmt.Fprintf(s.out, "Level Entries %*s %*s Length Flags\n", t.lw*2+3, "Logical", t.pw*2+3, "Physical")
	return r.WalkExtents(ino, raw, t.node)
}

// extentTable prints the entries of a tree, a line each.
type extentTable struct {
	s             *session
	nodes, leaves bool
	end           uint64 // block after the last one of the file
	lw, pw        int    // columns of numbers
}

func (t *extentTable) node(e *ext2fs.RawExtent) bool {
	w := t.s.out
	head := func() {
		fmt.Fprintf(w, "%2d/%2d %3d/%3d ", e.Level, e.Depth, e.Entry+1, e.Entries)
	}
	if e.Level < e.Depth {
		if t.nodes {
			head()
			end := e.End
			if end == 0 {
				end = t.end
			}
			n := uint32(end - uint64(e.Lblk))
			fmt.Fprintf(w, "%*d - %*d %*d%*s %6d\n", t.lw, e.Lblk, t.lw, uint32(e.Lblk)+n-1, t.pw, e.Pblk, t.pw+3, "", n)
		}
	} else if t.leaves {
		head()
		u := ""
		if e.Unwritten {
			u = "Uninit"
		}
		fmt.Fprintf(w, "%*d - %*d %*d - %*d %6d %s\n", t.lw, e.Lblk, t.lw, uint64(e.Lblk)+uint64(e.Len)-1,
			t.pw, e.Pblk, t.pw, uint64(e.Pblk)+uint64(e.Len)-1, e.Len, u)
	}
	return !t.s.interrupted()
}

func blocks(s *session, a *args) error {
	r, ino, raw, err := s.load(a.word(0))
	if err != nil {
		return err
	}
	if s.json {
		runs, err := runsOf(r, ino, raw) // none, if it has no blocks
		return firstError(s.emit(map[string]any{"ino": ino, "mapping": runs}), err)
	}
	if !r.HasBlocks(raw) {
		return nil
	}
	err = r.WalkBlocks(ino, raw, func(run ext2fs.RawRun) bool {
		for i := range run.Len {
			fmt.Fprintf(s.out, "%d ", run.Pblk+ondisk.Fsblk(i))
		}
		return !s.interrupted()
	})
	s.out.WriteByte('\n')
	return err
}

func bmap(s *session, a *args) error {
	r, ino, raw, err := s.load(a.word(0))
	if err != nil {
		return err
	}
	lblk, err := parseNumber(a.word(1), 32)
	if err != nil {
		return err
	}
	if !r.HasBlocks(raw) {
		return fmt.Errorf("%s: it has no blocks", a.word(0))
	}
	if (a.has("a") || len(a.words) == 3) && !s.opts.write {
		return errReadOnly
	}
	if len(a.words) == 3 {
		pblk, err := s.parseBlock(a.word(2))
		if err == nil {
			err = r.SetBmap(ino, ondisk.Lblk(lblk), pblk)
		}
		if err == nil {
			raw, err = r.Inode(ino)
		}
		if err != nil {
			return err
		}
	}
	var run ext2fs.RawRun
	if a.has("a") {
		run, err = r.AllocBmap(ino, ondisk.Lblk(lblk))
	} else {
		run, err = r.Bmap(ino, raw, ondisk.Lblk(lblk))
	}
	if err != nil {
		return err
	}
	return s.showBmap(ino, run)
}

func (s *session) showBmap(ino ondisk.Ino, run ext2fs.RawRun) error {
	if s.json {
		return s.emit(map[string]any{"ino": ino, "lblk": run.Lblk, "pblk": run.Pblk, "unwritten": run.Unwritten})
	}
	u := ""
	if run.Unwritten {
		u = " (uninit)"
	}
	fmt.Fprintf(s.out, "%d%s\n", run.Pblk, u)
	return nil
}
