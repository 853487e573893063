package ext2fs

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// RawRun is a run of blocks that a walk over the mapping of an inode comes to.
type RawRun struct {
	Lblk      ondisk.Lblk  // of the first; of metadata: the first that is mapped through it
	Pblk      ondisk.Fsblk // first block
	Len       uint32       // blocks
	Unwritten bool
	Level     int // 0: data; else the levels of a tree, or of indirection, from this block down to data
}

// WalkBlocks calls fn with what the mapping of an inode names, in its order,
// blocks of the mapping itself before what is mapped through them, until it
// returns false. Nothing is verified but that a walk is possible: what is not a
// node is reported, after the rest, by the error, a *CorruptError. Data and
// metadata outside of the file system is passed to fn, and not followed.
func (r *Raw) WalkBlocks(ino ondisk.Ino, raw ondisk.RawInode, fn func(run RawRun) bool) error {
	return r.WalkBlocksWithin(r.NewBudget(), ino, raw, fn)
}

// A Budget bounds how many blocks of mappings are read by walks that share it:
// hostile trees can lead to the same block again and again. It may be shared by
// goroutines.
type Budget struct{ left atomic.Int64 }

// NewBudget returns a Budget that the mappings of all inodes of a good file
// system do not exceed.
func (r *Raw) NewBudget() *Budget {
	b := &Budget{}
	b.left.Store(int64(r.geo.blocks) + 16)
	return b
}

// WalkBlocksWithin is WalkBlocks that reads no more than b has left.
func (r *Raw) WalkBlocksWithin(b *Budget, ino ondisk.Ino, raw ondisk.RawInode, fn func(run RawRun) bool) error {
	if !r.HasBlocks(raw) {
		return nil
	}
	w := &rawWalk{r: r, ino: ino, fn: fn, budget: b}
	var err error
	if raw.Base().Flags.Get()&ondisk.FlagExtents != 0 {
		err = w.extents(raw.Base().Block[:])
	} else {
		err = w.indirect(endian.Views[endian.LE32](raw.Base().Block[:], indSlots))
	}
	if err != nil && !errors.Is(err, errStop) {
		return err
	}
	return w.bad
}

type rawWalk struct {
	r      *Raw
	ino    ondisk.Ino
	fn     func(RawRun) bool
	budget *Budget
	bad    error // the first thing found wrong
}

func (w *rawWalk) note(err error) {
	if w.bad == nil {
		w.bad = ondisk.At(err, w.ino, 0)
	}
}

// emit passes a run on.
func (w *rawWalk) emit(run RawRun) error {
	if !w.fn(run) {
		return errStop
	}
	return nil
}

// node reads a block of the mapping, nil if that is not possible.
func (w *rawWalk) node(b ondisk.Fsblk) ([]byte, error) {
	if w.budget.left.Add(-1) < 0 {
		w.note(ondisk.Corrupt("block mapping", 0, "it has more blocks than the file system"))
		return nil, errStop
	}
	d, err := w.r.Block(b)
	if err != nil {
		w.note(err)
		return nil, nil
	}
	return d, nil
}

// extents walks the tree, and passes on where data and nodes are.
func (w *rawWalk) extents(root []byte) error {
	return w.tree(root, 0, 0, -1, 0, func(e *RawExtent) error {
		run := e.RawRun
		run.Level = e.Depth - e.Level
		if run.Level > 0 {
			run.Len = 1
		}
		return w.emit(run)
	})
}

// indirect walks i_block as block numbers.
func (w *rawWalk) indirect(root []endian.LE32) error {
	if err := w.pointers(root[:indDirect], 0, 0); err != nil {
		return err
	}
	lblk := uint64(indDirect)
	for level := 1; level <= 3; level++ {
		if b := root[indDirect+level-1].Get(); b != 0 {
			if err := w.indirectBlock(ondisk.Fsblk(b), lblk, level); err != nil {
				return err
			}
		}
		lblk += 1 << (w.r.geo.indBits() * uint(level))
	}
	return nil
}

func (w *rawWalk) indirectBlock(b ondisk.Fsblk, lblk uint64, level int) error {
	if lblk > uint64(ondisk.MaxLblk) {
		return nil
	}
	if err := w.emit(RawRun{Lblk: ondisk.Lblk(lblk), Pblk: b, Len: 1, Level: level}); err != nil {
		return err
	}
	d, err := w.node(b)
	if d == nil || err != nil {
		return err
	}
	return w.pointers(endian.Views[endian.LE32](d, len(d)/4), lblk, level-1)
}

// pointers walks block numbers, each of which maps 1 << indBits*level blocks.
// Runs of data are joined.
func (w *rawWalk) pointers(p []endian.LE32, lblk uint64, level int) error {
	step := uint64(1) << (w.r.geo.indBits() * uint(level))
	for i := 0; i < len(p); i++ {
		b := p[i].Get()
		at := lblk + uint64(i)*step
		if b == 0 || at > uint64(ondisk.MaxLblk) {
			continue
		}
		if level > 0 {
			if err := w.indirectBlock(ondisk.Fsblk(b), at, level); err != nil {
				return err
			}
			continue
		}
		n := uint32(1)
		for i+1 < len(p) && p[i+1].Get() == b+n && b+n != 0 {
			n++
			i++
		}
		if err := w.emit(RawRun{Lblk: ondisk.Lblk(at), Pblk: ondisk.Fsblk(b), Len: n}); err != nil {
			return err
		}
	}
	return nil
}

// Bmap returns the run of blocks that lblk lies in, from lblk on; of a hole the
// run has no Pblk and the length that is known of it, at least 1.
func (r *Raw) Bmap(ino ondisk.Ino, raw ondisk.RawInode, lblk ondisk.Lblk) (RawRun, error) {
	if !r.HasBlocks(raw) {
		return RawRun{Lblk: lblk, Len: 1}, nil
	}
	if raw.Base().Flags.Get()&ondisk.FlagExtents != 0 {
		return r.extentBmap(ino, raw.Base().Block[:], lblk)
	}
	return r.indBmap(ino, raw, lblk)
}

func (r *Raw) extentBmap(ino ondisk.Ino, node []byte, lblk ondisk.Lblk) (RawRun, error) {
	end := uint64(ondisk.MaxLblk) + 1 // of what this node maps
	hole := func() (RawRun, error) {
		return RawRun{Lblk: lblk, Len: uint32(min(end-uint64(lblk), 1<<32-1))}, nil
	}
	blk := ondisk.Fsblk(0)
	for want := -1; ; want-- {
		h, err := ondisk.ExtentNodeHeader(node)
		if err == nil && want >= 0 && int(h.Depth.Get()) != want {
			err = ondisk.Corrupt("extent header", 6, "depth %d, should be %d", h.Depth.Get(), want)
		}
		if err != nil {
			return RawRun{}, ondisk.At(err, ino, blk)
		}
		n := int(h.Entries.Get())
		if h.Depth.Get() == 0 {
			entries := endian.Views[ondisk.Extent](node[ondisk.ExtentEntry:], n)
			for i := range entries {
				e := &entries[i]
				first := ondisk.Lblk(e.Block.Get())
				switch {
				case lblk < first:
					end = min(end, uint64(first))
				case uint64(lblk) < uint64(first)+uint64(e.Len()):
					k := uint32(lblk - first)
					return RawRun{Lblk: lblk, Pblk: e.Start() + ondisk.Fsblk(k), Len: e.Len() - k, Unwritten: e.Unwritten()}, nil
				}
			}
			return hole()
		}
		want = int(h.Depth.Get())
		entries := endian.Views[ondisk.ExtentIdx](node[ondisk.ExtentEntry:], n)
		var at *ondisk.ExtentIdx
		for i := range entries {
			if e := &entries[i]; ondisk.Lblk(e.Block.Get()) <= lblk {
				at = e
			} else {
				end = min(end, uint64(e.Block.Get()))
				break
			}
		}
		if at == nil {
			return hole()
		}
		blk = at.Leaf()
		if node, err = r.Block(blk); err != nil {
			return RawRun{}, fmt.Errorf("extent tree of inode %d: %w", ino, err)
		}
	}
}

func (r *Raw) indBmap(ino ondisk.Ino, raw ondisk.RawInode, lblk ondisk.Lblk) (RawRun, error) {
	slot, levels, in, ok := r.geo.indSlot(uint64(lblk))
	if !ok {
		return RawRun{Lblk: lblk, Len: uint32(1<<32 - 1 - uint64(lblk))}, nil
	}
	p := endian.Views[endian.LE32](raw.Base().Block[:], indSlots)
	i, last := slot, indDirect
	for {
		b := ondisk.Fsblk(p[i].Get())
		if levels == 0 {
			n := uint32(1)
			for i+int(n) < last && (b == 0) == (p[i+int(n)].Get() == 0) && (b == 0 || ondisk.Fsblk(p[i+int(n)].Get()) == b+ondisk.Fsblk(n)) {
				n++
			}
			return RawRun{Lblk: lblk, Pblk: b, Len: n}, nil
		}
		shift := r.geo.indBits() * uint(levels-1)
		if b == 0 {
			span := uint64(1) << (shift + r.geo.indBits())
			return RawRun{Lblk: lblk, Len: uint32(min(span-in, 1<<32-1-uint64(lblk)))}, nil
		}
		d, err := r.Block(b)
		if err != nil {
			return RawRun{}, fmt.Errorf("indirect block of inode %d: %w", ino, err)
		}
		p = endian.Views[endian.LE32](d, len(d)/4)
		i, last = int(in>>shift), len(p)
		in &= 1<<shift - 1
		levels--
	}
}

// RawFile is the content of an inode, for reading.
type RawFile struct {
	r      *Raw
	ino    ondisk.Ino
	raw    ondisk.RawInode
	size   int64
	inline []byte // all content, if it lies in the inode
	run    RawRun // of the last mapping that was looked up
}

// OpenFile returns the content of inode ino: of files, of directories, and the
// target of symbolic links.
func (r *Raw) OpenFile(ino ondisk.Ino) (*RawFile, error) {
	raw, err := r.Inode(ino)
	if err != nil {
		return nil, err
	}
	return r.FileOf(ino, raw)
}

// FileOf is OpenFile for an inode that was read.
func (r *Raw) FileOf(ino ondisk.Ino, raw ondisk.RawInode) (*RawFile, error) {
	f := &RawFile{r: r, ino: ino, raw: raw, size: r.Size(raw)}
	if f.size < 0 {
		return nil, ondisk.At(ondisk.Corrupt("inode", 4, "size %d", uint64(f.size)), ino, 0)
	}
	switch {
	case raw.Base().Flags.Get()&ondisk.FlagInlineData != 0:
		b, err := r.Inline(ino, raw)
		if err != nil {
			return nil, err
		}
		f.inline = b[:min(int64(len(b)), f.size)]
	case r.IsFastLink(raw):
		f.inline = raw.Base().Block[:f.size]
	case !r.HasBlocks(raw):
		f.size = 0
	}
	return f, nil
}

// Inline returns what an inode with inline data holds: i_block, and after it
// the value of the attribute for the rest.
func (r *Raw) Inline(ino ondisk.Ino, raw ondisk.RawInode) ([]byte, error) {
	out := append([]byte(nil), raw.Base().Block[:]...)
	list, err := r.inodeXattrs(ino, raw)
	for _, x := range list {
		if x.Index == ondisk.XattrSystemIndex && x.Base == ondisk.XattrSystemData {
			return append(out, x.Value...), nil
		}
	}
	return out, err
}

// Size returns the size in bytes.
func (f *RawFile) Size() int64 { return f.size }

// Inode returns the inode as it was when the file was opened.
func (f *RawFile) Inode() ondisk.RawInode { return f.raw }

// Inline says whether the content lies in the inode.
func (f *RawFile) Inline() bool { return f.inline != nil }

// ReadAt implements io.ReaderAt. Holes and unwritten blocks are zeros.
func (f *RawFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, syscall.EINVAL
	}
	if off >= f.size {
		return 0, io.EOF
	}
	short := int64(len(p)) > f.size-off
	if short {
		p = p[:f.size-off]
	}
	n := 0
	for n < len(p) {
		k, err := f.readSome(p[n:], off+int64(n))
		n += k
		if err != nil {
			return n, err
		}
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

func (f *RawFile) readSome(p []byte, off int64) (int, error) {
	if f.inline != nil || f.size == 0 {
		if off >= int64(len(f.inline)) {
			clear(p)
			return len(p), nil
		}
		return copy(p, f.inline[off:]), nil
	}
	run, err := f.Map(off)
	if err != nil {
		return 0, err
	}
	geo := f.r.geo
	start := int64(run.Lblk) << geo.blockBits
	end := start + int64(run.Len)<<geo.blockBits
	p = p[:min(int64(len(p)), end-off)]
	if run.Pblk == 0 || run.Unwritten {
		clear(p)
		return len(p), nil
	}
	at := int64(run.Pblk)<<geo.blockBits + off - start
	if err := f.r.inRange(run.Pblk, uint64(run.Len)); err != nil {
		return 0, ondisk.At(ondisk.Corrupt("block mapping", 0, "%d blocks at block %d", run.Len, run.Pblk), f.ino, 0)
	}
	if _, err := f.r.dev.ReadAt(p, at); err != nil {
		return 0, fmt.Errorf("inode %d: %w", f.ino, ioErr(err))
	}
	return len(p), nil
}

// Map returns the run of blocks around byte off; its Pblk is 0 in a hole. It is
// for files that have blocks.
func (f *RawFile) Map(off int64) (RawRun, error) {
	lblk := uint64(off) >> f.r.geo.blockBits
	if c := f.run; c.Len > 0 && lblk >= uint64(c.Lblk) && lblk < uint64(c.Lblk)+uint64(c.Len) {
		return c, nil
	}
	if lblk > uint64(ondisk.MaxLblk) {
		return RawRun{}, ondisk.At(ondisk.Corrupt("inode", 4, "size %d", f.size), f.ino, 0)
	}
	run, err := f.r.Bmap(f.ino, f.raw, ondisk.Lblk(lblk))
	if err != nil {
		return RawRun{}, err
	}
	f.run = run
	return run, nil
}

// Segment says whether there is data at byte off, which is inside the file,
// and for how many bytes that is so. Unwritten blocks are none.
func (f *RawFile) Segment(off int64) (data bool, n int64, err error) {
	if f.inline != nil || f.size == 0 {
		return true, f.size - off, nil
	}
	run, err := f.Map(off)
	if err != nil {
		return false, 0, err
	}
	n = int64(run.Lblk)<<f.r.geo.blockBits + int64(run.Len)<<f.r.geo.blockBits - off
	return run.Pblk != 0 && !run.Unwritten, min(n, f.size-off), nil
}
