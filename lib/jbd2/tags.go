package jbd2

import (
	"iter"

	"github.com/e2kit/e2kit/lib/endian"
)

// format is how the blocks of one journal are laid out.
type format struct {
	bsize          int
	b64            bool
	csumV1         bool
	csumV2, csumV3 bool
	async          bool
	seed           uint32 // of the checksums v2 and v3
}

func formatOf(bsize int, compat, incompat uint32, uuid []byte) format {
	return format{
		bsize:  bsize,
		b64:    incompat&Incompat64Bit != 0,
		csumV1: compat&CompatChecksum != 0,
		csumV2: incompat&IncompatCsumV2 != 0,
		csumV3: incompat&IncompatCsumV3 != 0,
		async:  incompat&IncompatAsyncCommit != 0,
		seed:   crc32c(^uint32(0), uuid),
	}
}

// csum tells whether each block of the journal has its own checksum.
func (f *format) csum() bool { return f.csumV2 || f.csumV3 }

// tail returns the bytes at the end of descriptor and revoke blocks that the
// checksum takes.
func (f *format) tail() int {
	if f.csum() {
		return tailBytes
	}
	return 0
}

// tagBytes returns the size of a tag, without UUID.
func (f *format) tagBytes() int {
	n := 12
	switch {
	case f.csumV3:
		return 16
	case f.csumV2:
		n += 2 // unused, since an early kernel counted so
	}
	if !f.b64 {
		n -= 4
	}
	return n
}

// tagsPerBlock returns how many blocks one descriptor block describes. Room for
// another UUID is left at its end, as the kernel does.
func (f *format) tagsPerBlock() int {
	size := f.tagBytes()
	left := f.bsize - 12 - 16
	n := 0
	for {
		left -= size
		n++
		if left < size+16+f.tail() {
			return n
		}
	}
}

// revokeBytes returns the size of a revoke record.
func (f *format) revokeBytes() int {
	if f.b64 {
		return 8
	}
	return 4
}

// revokesPerBlock returns how many records a revoke block holds.
func (f *format) revokesPerBlock() int { return (f.bsize - 16 - f.tail()) / f.revokeBytes() }

// Layout is how the blocks of a journal are laid out by what its superblock
// says, for those who look at a journal that nobody has checked.
type Layout struct{ f format }

// LayoutOf returns the layout of a journal with blocks of blockSize bytes.
func LayoutOf(sb *Superblock, blockSize int) Layout {
	if sb.Header.BlockType.Get() == SuperblockV1 {
		return Layout{format{bsize: blockSize}}
	}
	return Layout{formatOf(blockSize, sb.FeatureCompat.Get(), sb.FeatureIncomp.Get(), sb.UUID[:])}
}

// Tags returns the tags of desc, a descriptor block, up to the last one or the
// end of the block.
func (l Layout) Tags(desc []byte) iter.Seq[Tag] { return l.f.tags(desc) }

// Revokes returns the records of a revoke block, up to the count that it has or
// the end of the block, where room for a checksum does not count.
func (l Layout) Revokes(blk []byte) iter.Seq[uint64] {
	f := l.f
	return func(yield func(uint64) bool) {
		count := min(endian.View[RevokeHeader](blk).Count.Get(), uint32(len(blk)))
		for off := 16; off < int(count) && off+f.revokeBytes() <= len(blk); off += f.revokeBytes() {
			if !yield(f.revoke(blk[off:])) {
				return
			}
		}
	}
}

// Tag says what a block of the log is.
type Tag struct {
	Block uint64 // home, on the file system's device
	Flags uint32 // TagEscape and the others
	Csum  uint32 // of the logged block, 16 bits of it with checksum v2, 0 without
}

// Tags returns the tags of desc, a descriptor block of this journal, up to the
// last one or the end of the block.
func (j *Journal) Tags(desc []byte) iter.Seq[Tag] { return j.format.tags(desc) }

func (f *format) tags(desc []byte) iter.Seq[Tag] {
	return func(yield func(Tag) bool) {
		size := f.tagBytes()
		for off := 12; off+size <= f.bsize-f.tail(); {
			var t Tag
			if f.csumV3 {
				v := endian.View[blockTag3](desc[off:])
				t = Tag{uint64(v.BlockNr.Get()), v.Flags.Get(), v.Checksum.Get()}
				if f.b64 {
					t.Block |= uint64(v.BlockNrHigh.Get()) << 32
				}
			} else {
				var raw [12]byte
				copy(raw[:], desc[off:off+size])
				v := endian.View[blockTag](raw[:])
				t = Tag{uint64(v.BlockNr.Get()), uint32(v.Flags.Get()), 0}
				if f.csumV2 {
					t.Csum = uint32(v.Checksum.Get())
				}
				if f.b64 {
					t.Block |= uint64(v.BlockNrHigh.Get()) << 32
				}
			}
			off += size
			if t.Flags&TagSameUUID == 0 {
				off += 16
			}
			if !yield(t) || t.Flags&TagLast != 0 {
				return
			}
		}
	}
}

// tagOK tells whether the logged block data has the checksum of its tag. seed
// is tagSeed of the transaction.
func (f *format) tagOK(t Tag, seed uint32, data []byte) bool {
	switch {
	case f.csumV3:
		return crc32c(seed, data) == t.Csum
	case f.csumV2:
		return crc32c(seed, data)&0xffff == t.Csum
	}
	return true
}

// putTag writes a tag at the start of p, with a UUID unless flags say that it
// is the same, and returns its size.
func (f *format) putTag(p []byte, t Tag, uuid *[16]byte) int {
	n := f.tagBytes()
	if f.csumV3 {
		v := endian.View[blockTag3](p)
		v.BlockNr.Set(uint32(t.Block))
		v.Flags.Set(t.Flags)
		v.BlockNrHigh.Set(uint32(t.Block >> 32))
		v.Checksum.Set(t.Csum)
	} else {
		var raw [12]byte
		v := endian.View[blockTag](raw[:])
		v.BlockNr.Set(uint32(t.Block))
		v.Flags.Set(uint16(t.Flags))
		v.BlockNrHigh.Set(uint32(t.Block >> 32))
		v.Checksum.Set(uint16(t.Csum))
		clear(p[:n])
		copy(p[:n], raw[:])
	}
	if t.Flags&TagSameUUID == 0 {
		n += copy(p[n:], uuid[:])
	}
	return n
}

// Revokes returns the records of a revoke block of this journal.
func (j *Journal) Revokes(blk []byte) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		_ = j.format.revokes(blk, 0, yield)
	}
}

// revokes calls yield for the records of the revoke block b, at log block n,
// while it returns true.
func (f *format) revokes(b []byte, n uint32, yield func(uint64) bool) error {
	count := endian.View[RevokeHeader](b).Count.Get()
	if count > uint32(f.bsize-f.tail()) {
		return corrupt("revoke block", n, "%d bytes in use", count)
	}
	for off := 16; off+f.revokeBytes() <= int(count); off += f.revokeBytes() {
		if !yield(f.revoke(b[off:])) {
			break
		}
	}
	return nil
}

// revoke returns the record at the start of b.
func (f *format) revoke(b []byte) uint64 {
	if f.b64 {
		return endian.View[endian.BE64](b).Get()
	}
	return uint64(endian.View[endian.BE32](b).Get())
}

// putHeader starts the journal block b.
func putHeader(b []byte, blockType uint32, tid Tid) {
	h := endian.View[Header](b)
	h.Magic.Set(Magic)
	h.BlockType.Set(blockType)
	h.Sequence.Set(uint32(tid))
}
