package ondisk

import (
	"unsafe"

	"github.com/e2kit/e2kit/lib/endian"
)

// ExtentHeader starts each node of an extent tree: the root, in Inode.Block,
// and every other node, a block that ends in a checksum.
// Kernel: filesystems/ext4/ifork.rst, "Extent Tree".
type ExtentHeader struct {
	Magic      endian.LE16 `ext4:"eh_magic"`      // ExtentMagic
	Entries    endian.LE16 `ext4:"eh_entries"`    // in use
	Max        endian.LE16 `ext4:"eh_max"`        // that fit
	Depth      endian.LE16 `ext4:"eh_depth"`      // levels below this node, 0 in a leaf
	Generation endian.LE32 `ext4:"eh_generation"` // unused by Linux
}

// Extent is an entry of a leaf: a run of mapped blocks.
type Extent struct {
	Block   endian.LE32 `ext4:"ee_block"`    // first logical block
	RawLen  endian.LE16 `ext4:"ee_len"`      // blocks, plus MaxExtentLen if unwritten
	StartHi endian.LE16 `ext4:"ee_start_hi"` // first physical block
	StartLo endian.LE32 `ext4:"ee_start_lo"`
}

// ExtentIdx is an entry of an index node: the node that covers the file from
// Block on, to the next entry's Block.
type ExtentIdx struct {
	Block  endian.LE32 `ext4:"ei_block"`
	LeafLo endian.LE32 `ext4:"ei_leaf_lo"`
	LeafHi endian.LE16 `ext4:"ei_leaf_hi"`
	Unused endian.LE16 `ext4:"ei_unused"`
}

const (
	ExtentMagic     = 0xf30a
	MaxExtentLen    = 1 << 15          // blocks, in a written extent
	MaxUnwrittenLen = MaxExtentLen - 1 // blocks, in an unwritten extent
	MaxExtentDepth  = 5                // of a tree
	ExtentEntry     = 12               // bytes of a header and of an entry
	RootExtents     = 4                // entries in the root
)

var ( // sizes on disk
	_ [ExtentEntry]byte = [unsafe.Sizeof(ExtentHeader{})]byte{}
	_ [ExtentEntry]byte = [unsafe.Sizeof(Extent{})]byte{}
	_ [ExtentEntry]byte = [unsafe.Sizeof(ExtentIdx{})]byte{}
)

// Start returns the first physical block.
func (e *Extent) Start() Fsblk { return Fsblk(e.StartHi.Get())<<32 | Fsblk(e.StartLo.Get()) }

// Len returns how many blocks are mapped, 0 (which is not valid) to MaxExtentLen.
func (e *Extent) Len() uint32 {
	if n := uint32(e.RawLen.Get()); n > MaxExtentLen {
		return n - MaxExtentLen
	} else {
		return n
	}
}

// Unwritten says whether the blocks read as zeros.
func (e *Extent) Unwritten() bool { return e.RawLen.Get() > MaxExtentLen }

// Set makes e the mapping of n blocks from lblk to pblk. n is 1 to
// MaxExtentLen, to MaxUnwrittenLen if unwritten.
func (e *Extent) Set(lblk Lblk, pblk Fsblk, n uint32, unwritten bool) {
	e.Block.Set(uint32(lblk))
	e.StartHi.Set(uint16(pblk >> 32))
	e.StartLo.Set(uint32(pblk))
	if unwritten {
		n += MaxExtentLen
	}
	e.RawLen.Set(uint16(n))
}

// Leaf returns the block of the node below.
func (e *ExtentIdx) Leaf() Fsblk { return Fsblk(e.LeafHi.Get())<<32 | Fsblk(e.LeafLo.Get()) }

// Set makes e the entry of node leaf, from lblk on.
func (e *ExtentIdx) Set(lblk Lblk, leaf Fsblk) {
	e.Block.Set(uint32(lblk))
	e.LeafHi.Set(uint16(leaf >> 32))
	e.LeafLo.Set(uint32(leaf))
	e.Unused.Set(0)
}

// ExtentMax returns how many entries fit in a node of size bytes.
func ExtentMax(size int) int { return size/ExtentEntry - 1 }

// InitExtentNode makes node, a block or the root in Inode.Block, an empty node
// of the given depth. Bytes beyond the header are left.
func InitExtentNode(node []byte, depth int) {
	h := endian.View[ExtentHeader](node)
	h.Magic.Set(ExtentMagic)
	h.Entries.Set(0)
	h.Max.Set(uint16(ExtentMax(len(node))))
	h.Depth.Set(uint16(depth))
	h.Generation.Set(0)
}

// ExtentNodeHeader returns the header of node, checked: its magic, that its
// entries lie in the node, and its depth. It fails with a *CorruptError.
func ExtentNodeHeader(node []byte) (*ExtentHeader, error) {
	h := endian.View[ExtentHeader](node)
	magic, n, most, depth := h.Magic.Get(), int(h.Entries.Get()), int(h.Max.Get()), h.Depth.Get()
	switch {
	case magic != ExtentMagic:
		return nil, Corrupt("extent header", 0, "magic %#x", magic)
	case most == 0 || most > ExtentMax(len(node)):
		return nil, Corrupt("extent header", 4, "room for %d entries", most)
	case n > most:
		return nil, Corrupt("extent header", 2, "%d entries, room for %d", n, most)
	case depth > MaxExtentDepth:
		return nil, Corrupt("extent header", 6, "depth %d", depth)
	case n == 0 && depth > 0:
		return nil, Corrupt("extent header", 2, "index node without entries")
	}
	return h, nil
}

// ExtentLeaf returns the extents of a leaf node, in place. It fails with a
// *CorruptError.
func ExtentLeaf(node []byte) ([]Extent, error) {
	h, err := ExtentNodeHeader(node)
	if err != nil {
		return nil, err
	}
	if d := h.Depth.Get(); d != 0 {
		return nil, Corrupt("extent header", 6, "depth %d in a leaf", d)
	}
	return endian.Views[Extent](node[ExtentEntry:], int(h.Entries.Get())), nil
}

// ExtentIndex returns the entries of an index node, in place. It fails with a
// *CorruptError.
func ExtentIndex(node []byte) ([]ExtentIdx, error) {
	h, err := ExtentNodeHeader(node)
	if err != nil {
		return nil, err
	}
	if h.Depth.Get() == 0 {
		return nil, Corrupt("extent header", 6, "depth 0 in an index")
	}
	return endian.Views[ExtentIdx](node[ExtentEntry:], int(h.Entries.Get())), nil
}

// CheckExtentNode checks all of a node but its checksum: the header, that
// entries are in order, do not overlap or run past the largest logical block,
// and name blocks for which valid (which may be nil) returns true.
func CheckExtentNode(node []byte, valid func(start Fsblk, n uint32) bool) error {
	h, err := ExtentNodeHeader(node)
	if err != nil {
		return err
	}
	next := uint64(0) // first logical block that may come
	n := int(h.Entries.Get())
	if h.Depth.Get() > 0 {
		for i, e := range endian.Views[ExtentIdx](node[ExtentEntry:], n) {
			blk := uint64(e.Block.Get())
			switch {
			case blk < next:
				return Corrupt("extent index", ExtentEntry*(i+1), "logical block %d out of order", blk)
			case valid != nil && !valid(e.Leaf(), 1):
				return Corrupt("extent index", ExtentEntry*(i+1)+4, "node at block %d", e.Leaf())
			}
			next = blk + 1
		}
		return nil
	}
	for i, e := range endian.Views[Extent](node[ExtentEntry:], n) {
		blk, l := uint64(e.Block.Get()), e.Len()
		switch {
		case l == 0:
			return Corrupt("extent", ExtentEntry*(i+1)+4, "no blocks")
		case blk < next:
			return Corrupt("extent", ExtentEntry*(i+1), "logical block %d out of order", blk)
		case blk+uint64(l) > uint64(MaxLblk)+1:
			return Corrupt("extent", ExtentEntry*(i+1)+4, "%d blocks from logical block %d", l, blk)
		case valid != nil && !valid(e.Start(), l):
			return Corrupt("extent", ExtentEntry*(i+1)+6, "%d blocks at block %d", l, e.Start())
		}
		next = blk + uint64(l)
	}
	return nil
}

// extentTail returns the place of a node's checksum: right after the room for
// its entries. nil if the node has none, by a Max that leaves no room.
func extentTail(node []byte) *endian.LE32 {
	off := ExtentEntry * (1 + int(endian.View[ExtentHeader](node).Max.Get()))
	if off+4 > len(node) {
		return nil
	}
	return endian.View[endian.LE32](node[off:])
}

// VerifyExtentNode checks the checksum of a node that is a block. seed is the
// inode's (InodeSeed).
func VerifyExtentNode(node []byte, seed uint32) error {
	off := ExtentEntry * (1 + int(endian.View[ExtentHeader](node).Max.Get()))
	t := extentTail(node)
	if t == nil {
		return Corrupt("extent header", 4, "no room for a checksum")
	}
	if c := Crc32c(seed, node[:off]); c != t.Get() {
		return BadCsum("extent node", off, t.Get(), c)
	}
	return nil
}

// SealExtentNode sets the checksum of a node that is a block.
func SealExtentNode(node []byte, seed uint32) {
	if t := extentTail(node); t != nil {
		t.Set(Crc32c(seed, node[:ExtentEntry*(1+int(endian.View[ExtentHeader](node).Max.Get()))]))
	}
}
