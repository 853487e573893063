package ondisk

import (
	"hash/crc32"

	"github.com/e2kit/e2kit/lib/endian"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Crc32c continues the crc32c seed over b, without the inversions that the
// usual crc32c makes at both ends, as every ext4 checksum wants it.
func Crc32c(seed uint32, b []byte) uint32 { return ^crc32.Update(^seed, castagnoli, b) }

// Crc32cLE32 continues seed over v as four little-endian bytes.
func Crc32cLE32(seed, v uint32) uint32 {
	// By the table: a slice for Crc32c would be allocated.
	for range 4 {
		seed = castagnoli[byte(seed)^byte(v)] ^ seed>>8
		v >>= 8
	}
	return seed
}

var crc16Table = func() (t [256]uint16) {
	for i := range t {
		c := uint16(i)
		for range 8 {
			if c&1 != 0 {
				c = c>>1 ^ 0xa001
			} else {
				c >>= 1
			}
		}
		t[i] = c
	}
	return t
}()

// Crc16 continues the crc16 (polynomial 0x8005, reflected) crc over b.
func Crc16(crc uint16, b []byte) uint16 {
	for _, x := range b {
		crc = crc>>8 ^ crc16Table[byte(crc)^x]
	}
	return crc
}

// InodeSeed returns the seed for the checksums of what inode ino, of
// generation gen, owns: itself, its extent and directory blocks. fsSeed is
// Super.CsumSeed.
func InodeSeed(fsSeed uint32, ino Ino, gen uint32) uint32 {
	return Crc32cLE32(Crc32cLE32(fsSeed, uint32(ino)), gen)
}

// SuperCsum returns the checksum of the superblock.
func SuperCsum(s *Super) uint32 {
	b := endian.Bytes(s)
	return Crc32c(^uint32(0), b[:SuperSize-4])
}
