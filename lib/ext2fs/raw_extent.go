package ext2fs

import (
	"errors"
	"syscall"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// RawExtent is an entry of an extent tree: an extent where Level is Depth, else
// an index entry, of which Len is not used.
type RawExtent struct {
	RawRun
	Level   int          // of the node that the entry is in; the root's is 0. RawRun.Level is 0
	Depth   int          // of the tree, by its root
	Entry   int          // number of the entry in its node
	Entries int          // entries in use in the node, Max: that fit
	Max     int          //
	Node    ondisk.Fsblk // block of the node, 0 for the root
	End     uint64       // an index entry maps what is before this block; 0: to the end of the file
}

// WalkExtents calls fn with the entries of the extent tree of an inode, those
// of an index before what is below them, until it returns false. Nodes are read
// and errors are told as by WalkBlocks. It fails with EINVAL if there is no
// tree.
func (r *Raw) WalkExtents(ino ondisk.Ino, raw ondisk.RawInode, fn func(e *RawExtent) bool) error {
	if raw.Base().Flags.Get()&ondisk.FlagExtents == 0 {
		return syscall.EINVAL
	}
	w := &rawWalk{r: r, ino: ino, budget: r.NewBudget()}
	err := w.tree(raw.Base().Block[:], 0, 0, -1, 0, func(e *RawExtent) error {
		if !fn(e) {
			return errStop
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return err
	}
	return w.bad
}

// tree walks a node at level, of a tree of depth (-1: this is the root, which
// tells), that maps what is before block end, 0 if all.
func (w *rawWalk) tree(node []byte, blk ondisk.Fsblk, level, depth int, end uint64, fn func(e *RawExtent) error) error {
	h, err := ondisk.ExtentNodeHeader(node)
	if depth < 0 && err == nil {
		depth = int(h.Depth.Get())
	}
	if err == nil && int(h.Depth.Get()) != depth-level {
		err = ondisk.Corrupt("extent header", 6, "depth %d, should be %d", h.Depth.Get(), depth-level)
	}
	if err != nil {
		w.note(ondisk.At(err, w.ino, blk))
		return nil
	}
	e := RawExtent{Level: level, Depth: depth, Entries: int(h.Entries.Get()), Max: int(h.Max.Get()), Node: blk}
	if level == depth {
		list := endian.Views[ondisk.Extent](node[ondisk.ExtentEntry:], e.Entries)
		for i := range list {
			x := &list[i]
			if x.Len() == 0 {
				w.note(ondisk.At(ondisk.Corrupt("extent", ondisk.ExtentEntry*(i+1)+4, "no blocks"), w.ino, blk))
				continue
			}
			e.Entry = i
			e.RawRun = RawRun{Lblk: ondisk.Lblk(x.Block.Get()), Pblk: x.Start(), Len: x.Len(), Unwritten: x.Unwritten()}
			if err := fn(&e); err != nil {
				return err
			}
		}
		return nil
	}
	list := endian.Views[ondisk.ExtentIdx](node[ondisk.ExtentEntry:], e.Entries)
	for i := range list {
		x := &list[i]
		e.Entry, e.End = i, end
		e.RawRun = RawRun{Lblk: ondisk.Lblk(x.Block.Get()), Pblk: x.Leaf()}
		if i+1 < len(list) {
			e.End = uint64(list[i+1].Block.Get())
		}
		below := e.End
		if err := fn(&e); err != nil {
			return err
		}
		child, err := w.node(e.Pblk)
		if err != nil {
			return err
		}
		if child == nil {
			continue
		}
		if err := w.tree(child, e.Pblk, level+1, depth, below, fn); err != nil {
			return err
		}
	}
	return nil
}
