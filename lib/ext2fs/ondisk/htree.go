package ondisk

import (
	"encoding/binary"
	"unsafe"

	"github.com/e2kit/e2kit/lib/endian"
)

// An index node of a directory looks like an empty block of entries to readers
// who do not know the index. The root, block 0 of the directory, keeps "." and
// "..", of which the latter covers the rest:
//
//	root: .(12) ..(12) DxRootInfo(8) [limit,count|block] DxEntry… [DxTail]
//	node: unused entry(8)            [limit,count|block] DxEntry… [DxTail]
//
// The first DxEntry has no hash, since it starts where its parent's entry says;
// the bytes are used for DxCountLimit.
const (
	DxRootInfoOff  = 24 // bytes before DxRootInfo in the root
	DxRootOff      = 32 // bytes before the first DxEntry of the root
	DxNodeOff      = 8  // bytes before the first DxEntry of another node
	DxEntrySize    = 8
	DxTailSize     = 8
	DxRootInfoSize = 8
	DxMaxLevels    = 3 // most levels of index nodes, with large_dir; else 2
)

// DxRootInfo describes the index of a directory, in its root.
// Kernel: filesystems/ext4/directory.rst, "Hash Tree Directories".
type DxRootInfo struct {
	Zero           endian.LE32 // reserved_zero
	HashVersion    [1]byte     // hash_version: Hash…
	InfoLength     [1]byte     // info_length: DxRootInfoSize
	IndirectLevels [1]byte     // indirect_levels: levels of nodes below the root
	UnusedFlags    [1]byte     // unused_flags: bit 0 must be clear
}

// DxEntry leads to the block for names from a hash on. The lowest bit of Hash
// is set if names of that very hash are in the block before, too.
type DxEntry struct {
	Hash  endian.LE32
	Block endian.LE32 // block within the directory; the upper 4 bits are reserved
}

// DxCountLimit lies in the place of the first entry's hash.
type DxCountLimit struct {
	Limit endian.LE16 // most entries, the first one included
	Count endian.LE16 // entries in use, the first one included
}

// DxTail follows the Limit entries of a node of a file system with metadata_csum.
type DxTail struct {
	Reserved endian.LE32 // dt_reserved
	Checksum endian.LE32 // dt_checksum: of the node up to its last entry in use, and of the tail
}

var ( // sizes on disk
	_ [DxRootInfoSize]byte = [unsafe.Sizeof(DxRootInfo{})]byte{}
	_ [DxEntrySize]byte    = [unsafe.Sizeof(DxEntry{})]byte{}
	_ [4]byte              = [unsafe.Sizeof(DxCountLimit{})]byte{}
	_ [DxTailSize]byte     = [unsafe.Sizeof(DxTail{})]byte{}
)

// Lblk returns the block that the entry leads to.
func (e *DxEntry) Lblk() Lblk { return Lblk(e.Block.Get() & 0x0fffffff) }

// DxLimit returns the entries, the first one included, that fit into a node
// whose entries start at byte off: DxRootOff or DxNodeOff.
func DxLimit(blockSize, off int, csum bool) int {
	n := blockSize - off
	if csum {
		n -= DxTailSize
	}
	return n / DxEntrySize
}

// DxRoot checks that the block b is the root of an index and returns its
// description, in place. It fails with a *CorruptError if it is not, or if it
// has a form that no kernel writes.
func DxRoot(b []byte, largeDir bool) (*DxRootInfo, error) {
	if err := checkDots(b); err != nil {
		return nil, err
	}
	info := endian.View[DxRootInfo](b[DxRootInfoOff:])
	levels := DxMaxLevels - 1
	if largeDir {
		levels++
	}
	switch {
	case info.Zero.Get() != 0:
		return nil, Corrupt("directory index", DxRootInfoOff, "reserved field %#x", info.Zero.Get())
	case info.InfoLength[0] != DxRootInfoSize:
		return nil, Corrupt("directory index", DxRootInfoOff+5, "info length %d", info.InfoLength[0])
	case int(info.IndirectLevels[0]) >= levels:
		return nil, Corrupt("directory index", DxRootInfoOff+6, "%d indirect levels", info.IndirectLevels[0])
	case info.UnusedFlags[0]&1 != 0:
		return nil, Corrupt("directory index", DxRootInfoOff+7, "flags %#x", info.UnusedFlags[0])
	}
	switch info.HashVersion[0] {
	case HashLegacy, HashHalfMD4, HashTEA, HashSipHash:
		return info, nil
	}
	return nil, Corrupt("directory index", DxRootInfoOff+4, "hash version %d", info.HashVersion[0])
}

// checkDots checks that a block starts with "." and ".." as the root of an
// index has them, both of which are at fixed places.
func checkDots(b []byte) error {
	if b[6] != 1 || b[8] != '.' || RecLen(binary.LittleEndian.Uint16(b[4:]), len(b)) != DirentMin {
		return Corrupt("directory index", 0, "no \".\" in the root")
	}
	if b[18] != 2 || b[20] != '.' || b[21] != '.' ||
		RecLen(binary.LittleEndian.Uint16(b[16:]), len(b)) != len(b)-DirentMin {
		return Corrupt("directory index", 12, "no \"..\" that covers the root")
	}
	return nil
}

// DxNode checks that the block b looks like an index node below the root.
func DxNode(b []byte) error {
	if binary.LittleEndian.Uint32(b) != 0 || RecLen(binary.LittleEndian.Uint16(b[4:]), len(b)) != len(b) {
		return Corrupt("directory index node", 0, "no unused entry that covers the block")
	}
	return nil
}

// DxEntries returns the entries in use of the index node b, in place, and how
// many fit. They start at byte off: DxRootOff or DxNodeOff. To add entries,
// reslice up to limit and call SetDxCount. It fails with a *CorruptError.
func DxEntries(b []byte, off int, csum bool) (entries []DxEntry, limit int, err error) {
	c := endian.View[DxCountLimit](b[off:])
	limit, n := int(c.Limit.Get()), int(c.Count.Get())
	if limit != DxLimit(len(b), off, csum) {
		return nil, 0, Corrupt("directory index", off, "limit of %d entries", limit)
	}
	if n == 0 || n > limit {
		return nil, 0, Corrupt("directory index", off+2, "%d entries of %d", n, limit)
	}
	return endian.Views[DxEntry](b[off:], limit)[:n], limit, nil
}

// SetDxCount stores the number of entries in use, the first one included.
func SetDxCount(b []byte, off, n int) { endian.View[DxCountLimit](b[off:]).Count.Set(uint16(n)) }

// InitDxNode makes b an index node without entries in use; its entries start at
// byte off. A root's entries before off are the caller's.
func InitDxNode(b []byte, off int, csum bool) {
	if off == DxNodeOff {
		clear(b)
		SetRecLen(b, 0, len(b), len(b))
	} else {
		clear(b[off:])
	}
	endian.View[DxCountLimit](b[off:]).Limit.Set(uint16(DxLimit(len(b), off, csum)))
}

// DxFind returns the index of the entry that leads to the block for hash: the
// last one that starts at or before it.
func DxFind(entries []DxEntry, hash uint32) int {
	lo, hi := 1, len(entries)
	for lo < hi {
		if m := (lo + hi) / 2; entries[m].Hash.Get() > hash {
			hi = m
		} else {
			lo = m + 1
		}
	}
	return lo - 1
}

// dxCountOffset returns where the entries of an index node start, 0 if the
// block is not one. It goes by the form alone, as the kernel does: in a file
// system with metadata_csum no block of entries has that form, because of its tail.
func dxCountOffset(b []byte) int {
	switch RecLen(binary.LittleEndian.Uint16(b[4:]), len(b)) {
	case len(b):
		return DxNodeOff
	case DirentMin:
		info := endian.View[DxRootInfo](b[DxRootInfoOff:])
		if RecLen(binary.LittleEndian.Uint16(b[16:]), len(b)) == len(b)-DirentMin &&
			info.Zero.Get() == 0 && info.InfoLength[0] == DxRootInfoSize {
			return DxRootOff
		}
	}
	return 0
}

// dxCsum computes the checksum of an index node and returns it with the tail;
// nil if the counts leave no room for it.
func dxCsum(b []byte, off int, seed uint32) (*DxTail, uint32) {
	c := endian.View[DxCountLimit](b[off:])
	limit, n := int(c.Limit.Get()), int(c.Count.Get())
	at := off + limit*DxEntrySize
	if n > limit || at > len(b)-DxTailSize {
		return nil, 0
	}
	t := endian.View[DxTail](b[at:])
	crc := Crc32c(seed, b[:off+n*DxEntrySize])
	crc = Crc32c(crc, t.Reserved[:])
	return t, Crc32cLE32(crc, 0)
}

func verifyDxCsum(b []byte, off int, seed uint32) error {
	t, crc := dxCsum(b, off, seed)
	if t == nil {
		return Corrupt("directory index", off, "no room for the checksum")
	}
	if crc != t.Checksum.Get() {
		return BadCsum("directory index", off, t.Checksum.Get(), crc)
	}
	return nil
}

func sealDx(b []byte, off int, seed uint32) {
	if t, crc := dxCsum(b, off, seed); t != nil {
		t.Checksum.Set(crc)
	}
}
