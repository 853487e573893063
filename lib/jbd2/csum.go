package jbd2

import (
	"hash/crc32"

	"github.com/e2kit/e2kit/lib/endian"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c continues crc over b, without the inversions at either end, as the
// kernel does.
func crc32c(crc uint32, b []byte) uint32 { return ^crc32.Update(^crc, castagnoli, b) }

// be32Tables are for crc32BE, eight bytes at a time.
var be32Tables = func() (t [8][256]uint32) {
	for i := range t[0] {
		c := uint32(i) << 24
		for range 8 {
			if c&(1<<31) != 0 {
				c = c<<1 ^ 0x04c11db7
			} else {
				c <<= 1
			}
		}
		t[0][i] = c
	}
	for k := 1; k < 8; k++ {
		for i := range t[k] {
			c := t[k-1][i]
			t[k][i] = c<<8 ^ t[0][c>>24]
		}
	}
	return t
}()

// crc32BE continues crc over b, most significant bit first and without
// inversions: the checksum of COMPAT_CHECKSUM. Package hash/crc32 has only the
// reflected kind.
func crc32BE(crc uint32, b []byte) uint32 {
	t := &be32Tables
	for ; len(b) >= 8; b = b[8:] {
		crc ^= uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		crc = t[7][crc>>24] ^ t[6][crc>>16&0xff] ^ t[5][crc>>8&0xff] ^ t[4][crc&0xff] ^
			t[3][b[4]] ^ t[2][b[5]] ^ t[1][b[6]] ^ t[0][b[7]]
	}
	for _, x := range b {
		crc = crc<<8 ^ t[0][byte(crc>>24)^x]
	}
	return crc
}

var zero4 [4]byte

// sumWithout returns the crc32c from seed of b, with the four bytes at off
// taken as zeros.
func sumWithout(seed uint32, b []byte, off int) uint32 {
	c := crc32c(seed, b[:off])
	c = crc32c(c, zero4[:])
	return crc32c(c, b[off+4:])
}

// The places of the checksums of checksum v2 and v3.
const (
	superCsumOff  = 0xfc
	commitCsumOff = 16
)

// sealTail sets the checksum that ends a descriptor or revoke block.
func sealTail(seed uint32, b []byte) {
	off := len(b) - tailBytes
	endian.View[endian.BE32](b[off:]).Set(sumWithout(seed, b, off))
}

func tailOK(seed uint32, b []byte) bool {
	off := len(b) - tailBytes
	return endian.View[endian.BE32](b[off:]).Get() == sumWithout(seed, b, off)
}

// tagSeed returns what the checksums of the blocks logged by transaction tid
// start from; they are crc32c of the block as it lies in the log.
func tagSeed(seed uint32, tid Tid) uint32 {
	var seq endian.BE32
	seq.Set(uint32(tid))
	return crc32c(seed, seq[:])
}
