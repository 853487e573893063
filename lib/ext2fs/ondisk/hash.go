package ondisk

import (
	"encoding/binary"
	"math/bits"
)

// Versions of the directory hash, as DxRootInfo.HashVersion and
// Super.DefHashVersion have them. On disk only the first three and
// HashSipHash occur; which of the signed and unsigned variants an index uses
// is told by Super.Flags.
// Kernel: filesystems/ext4/directory.rst, "Hash Tree Directories".
const (
	HashLegacy          = 0
	HashHalfMD4         = 1
	HashTEA             = 2
	HashLegacyUnsigned  = 3
	HashHalfMD4Unsigned = 4
	HashTEAUnsigned     = 5
	HashSipHash         = 6 // keyed: of encrypted and casefolded directories, stored with each entry
)

// hashEOF is the major hash that readers of directories take for the end; no
// name has it.
const hashEOF = 0xfffffffe

// HashSeed is the seed of the directory hash as the hash functions want it.
type HashSeed [4]uint32

// DirHashSeed returns the seed for DirHash: Super.HashSeed, or the default one
// where that is all zero.
func (s *Super) DirHashSeed() HashSeed {
	var h HashSeed
	for i := range s.HashSeed {
		h[i] = s.HashSeed[i].Get()
	}
	if h == (HashSeed{}) {
		return HashSeed{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	}
	return h
}

// HashVersion returns the variant, signed or unsigned, that this file system
// means by the version v of an index.
func (s *Super) HashVersion(v uint8) uint8 {
	if v <= HashTEA && s.Flags.Get()&SuperFlagUnsignedHash != 0 {
		return v + HashLegacyUnsigned
	}
	return v
}

// DirHash returns the hash of name: the major hash, of which the lowest bit is
// clear, orders the index; the minor one orders names of equal major hash for
// readers. ok is false for a version that cannot be computed from the name.
func DirHash(version uint8, seed *HashSeed, name []byte) (major, minor uint32, ok bool) {
	switch version {
	case HashLegacy:
		major = legacyHash(name, true)
	case HashLegacyUnsigned:
		major = legacyHash(name, false)
	case HashHalfMD4, HashHalfMD4Unsigned:
		h := *seed
		for len(name) > 0 {
			var in [8]uint32
			hashWords(in[:], name, version == HashHalfMD4)
			halfMD4(&h, &in)
			name = name[min(32, len(name)):]
		}
		major, minor = h[1], h[2]
	case HashTEA, HashTEAUnsigned:
		h := *seed
		for len(name) > 0 {
			var in [4]uint32
			hashWords(in[:], name, version == HashTEA)
			tea(&h, &in)
			name = name[min(16, len(name)):]
		}
		major, minor = h[0], h[1]
	default:
		return 0, 0, false
	}
	major &^= 1
	if major == hashEOF {
		major -= 2
	}
	return major, minor, true
}

// hashWords packs the start of name into w, big end first, padded with the
// length of what is left of the name. In the signed variants a byte above 127
// borrows from the bytes before it.
func hashWords(w []uint32, name []byte, signed bool) {
	pad := uint32(len(name)) | uint32(len(name))<<8
	pad |= pad << 16
	name = name[:min(len(name), 4*len(w))]
	i := 0
	for ; len(name) >= 4; name, i = name[4:], i+1 {
		v := binary.BigEndian.Uint32(name)
		if signed && v&0x80808080 != 0 {
			v = pad
			for _, c := range name[:4] {
				v = v<<8 + uint32(int8(c))
			}
		}
		w[i] = v
	}
	if i == len(w) {
		return
	}
	v := pad
	for _, c := range name {
		if signed {
			v = v<<8 + uint32(int8(c))
		} else {
			v = v<<8 + uint32(c)
		}
	}
	w[i] = v
	for i++; i < len(w); i++ {
		w[i] = pad
	}
}

func legacyHash(name []byte, signed bool) uint32 {
	h0, h1 := uint32(0x12a3fe2d), uint32(0x37abe8f9)
	for _, c := range name {
		x := uint32(c)
		if signed {
			x = uint32(int8(c))
		}
		h := h1 + (h0 ^ x*7152373)
		if h&0x80000000 != 0 {
			h -= 0x7fffffff
		}
		h1, h0 = h0, h
	}
	return h0 << 1
}

func tea(h *HashSeed, in *[4]uint32) {
	b0, b1 := h[0], h[1]
	var sum uint32
	for range 16 {
		sum += 0x9e3779b9
		b0 += (b1<<4 + in[0]) ^ (b1 + sum) ^ (b1>>5 + in[1])
		b1 += (b0<<4 + in[2]) ^ (b0 + sum) ^ (b0>>5 + in[3])
	}
	h[0] += b0
	h[1] += b1
}

// halfMD4 is MD4's compression function with half its steps.
func halfMD4(h *HashSeed, in *[8]uint32) {
	a, b, c, d := h[0], h[1], h[2], h[3]
	f := func(a, b, c, d, x uint32, s int) uint32 {
		return bits.RotateLeft32(a+(d^(b&(c^d)))+x, s)
	}
	g := func(a, b, c, d, x uint32, s int) uint32 {
		return bits.RotateLeft32(a+((b&c)+((b^c)&d))+x+0x5a827999, s)
	}
	k := func(a, b, c, d, x uint32, s int) uint32 {
		return bits.RotateLeft32(a+(b^c^d)+x+0x6ed9eba1, s)
	}
	a = f(a, b, c, d, in[0], 3)
	d = f(d, a, b, c, in[1], 7)
	c = f(c, d, a, b, in[2], 11)
	b = f(b, c, d, a, in[3], 19)
	a = f(a, b, c, d, in[4], 3)
	d = f(d, a, b, c, in[5], 7)
	c = f(c, d, a, b, in[6], 11)
	b = f(b, c, d, a, in[7], 19)

	a = g(a, b, c, d, in[1], 3)
	d = g(d, a, b, c, in[3], 5)
	c = g(c, d, a, b, in[5], 9)
	b = g(b, c, d, a, in[7], 13)
	a = g(a, b, c, d, in[0], 3)
	d = g(d, a, b, c, in[2], 5)
	c = g(c, d, a, b, in[4], 9)
	b = g(b, c, d, a, in[6], 13)

	a = k(a, b, c, d, in[3], 3)
	d = k(d, a, b, c, in[7], 9)
	c = k(c, d, a, b, in[2], 11)
	b = k(b, c, d, a, in[6], 15)
	a = k(a, b, c, d, in[1], 3)
	d = k(d, a, b, c, in[5], 9)
	c = k(c, d, a, b, in[0], 11)
	b = k(b, c, d, a, in[4], 15)

	h[0] += a
	h[1] += b
	h[2] += c
	h[3] += d
}
