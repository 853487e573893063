package ext2fs

import (
	"slices"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// maxBadBlocks bounds the list, and with it the work of reading it: a disk of
// which so much is defective is none.
const maxBadBlocks = 4 << 20

// BadBlocks returns the defective blocks that the file system avoids, sorted.
func (v *Survey) BadBlocks() ([]uint32, error) {
	raw, err := v.Inode(ondisk.BadIno)
	if err != nil {
		return nil, err
	}
	if raw.Base().Flags.Get()&ondisk.FlagInlineData != 0 {
		return nil, surveyErr(ReasonMap, "inode 1: a list of defective blocks with inline data")
	}
	w := badBlockWalk{v: v}
	if raw.Base().Flags.Get()&ondisk.FlagExtents != 0 {
		err = w.extents(raw.Base().Block[:], -1)
	} else {
		block := endian.Views[endian.LE32](raw.Base().Block[:], 15)
		for i := range block {
			if err = w.pointer(block[i].Get(), max(i-11, 0)); err != nil {
				break
			}
		}
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(w.list)
	return slices.Compact(w.list), nil
}

type badBlockWalk struct {
	v    *Survey
	list []uint32
	work uint64 // blocks that were looked at and noted
}

// spend fails once more was done than a sound list takes.
func (w *badBlockWalk) spend(n uint64) error {
	if w.work += n; w.work > maxBadBlocks {
		return surveyErr(ReasonMap, "inode 1: over %d defective blocks", maxBadBlocks)
	}
	return nil
}

// add notes n blocks from blk on; those outside of the file system are none.
func (w *badBlockWalk) add(blk, n uint64) error {
	if err := w.spend(n); err != nil {
		return err
	}
	for b := max(blk, w.v.first); b < min(blk+n, w.v.blocks, 1<<32); b++ {
		w.list = append(w.list, uint32(b))
	}
	return nil
}

func (w *badBlockWalk) pointer(blk uint32, level int) error {
	if blk == 0 {
		return nil
	}
	if level == 0 {
		return w.add(uint64(blk), 1)
	}
	// Blocks without pointers take time too.
	if err := w.spend(uint64(w.v.blockSize) / 32); err != nil {
		return err
	}
	if uint64(blk) >= w.v.blocks || uint64(blk) < w.v.first {
		return surveyErr(ReasonMap, "inode 1: indirect block at %d of %d", blk, w.v.blocks)
	}
	data, err := w.v.block("indirect block of inode 1", uint64(blk))
	if err != nil {
		return err
	}
	ptr := endian.Views[endian.LE32](data, len(data)/4)
	for i := range ptr {
		if err := w.pointer(ptr[i].Get(), level-1); err != nil {
			return err
		}
	}
	return nil
}

// extents is for file systems whose list is mapped by extents, which e2fsprogs
// reads though it writes none.
func (w *badBlockWalk) extents(node []byte, depth int) error {
	h, err := ondisk.ExtentNodeHeader(node)
	if err != nil {
		return surveyErr(ReasonMap, "inode 1: %v", err)
	}
	d, n := int(h.Depth.Get()), int(h.Entries.Get())
	if depth >= 0 && d != depth-1 {
		return surveyErr(ReasonMap, "inode 1: an extent node of depth %d below one of %d", d, depth)
	}
	if d == 0 {
		for _, e := range endian.Views[ondisk.Extent](node[ondisk.ExtentEntry:], n) {
			if err := w.add(uint64(e.Start()), uint64(e.Len())); err != nil {
				return err
			}
		}
		return nil
	}
	for _, e := range endian.Views[ondisk.ExtentIdx](node[ondisk.ExtentEntry:], n) {
		if err := w.spend(uint64(w.v.blockSize) / 32); err != nil {
			return err
		}
		child, err := w.v.block("extents of inode 1", uint64(e.Leaf()))
		if err != nil {
			return err
		}
		if err := w.extents(child, d); err != nil {
			return err
		}
	}
	return nil
}
