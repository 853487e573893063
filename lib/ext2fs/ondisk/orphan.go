package ondisk

import (
	"unsafe"

	"github.com/e2kit/e2kit/lib/endian"
)

// OrphanTail ends each block of the orphan file; before it stand inode numbers
// of 32 bits, 0 where there is none. Kernel: filesystems/ext4/orphan.rst.
type OrphanTail struct {
	Magic    endian.LE32 // ob_magic: OrphanMagic
	Checksum endian.LE32 // ob_checksum
}

// Values of OrphanTail.
const (
	OrphanMagic    = 0x0b10ca04
	OrphanTailSize = 8 // bytes
)

var _ [OrphanTailSize]byte = [unsafe.Sizeof(OrphanTail{})]byte{}

func orphanTail(b []byte) *OrphanTail { return endian.View[OrphanTail](b[len(b)-OrphanTailSize:]) }

// orphanCsum returns the checksum of block b of the orphan file, which lies at
// blk. seed is the file's InodeSeed.
func orphanCsum(b []byte, seed uint32, blk Fsblk) uint32 {
	var n endian.LE64
	n.Set(uint64(blk))
	return Crc32c(Crc32c(seed, n[:]), b[:len(b)-OrphanTailSize])
}

// VerifyOrphanBlock checks block b of the orphan file, which lies at blk: its
// magic, and its checksum if the file system has them.
func VerifyOrphanBlock(b []byte, seed uint32, blk Fsblk, csum bool) error {
	t := orphanTail(b)
	if m := t.Magic.Get(); m != OrphanMagic {
		return Corrupt("orphan file block", len(b)-OrphanTailSize, "magic %#x", m)
	}
	if !csum {
		return nil
	}
	if c := orphanCsum(b, seed, blk); c != t.Checksum.Get() {
		return BadCsum("orphan file block", len(b)-4, t.Checksum.Get(), c)
	}
	return nil
}

// SealOrphanBlock sets the checksum of block b of the orphan file.
func SealOrphanBlock(b []byte, seed uint32, blk Fsblk) {
	orphanTail(b).Checksum.Set(orphanCsum(b, seed, blk))
}
