package fsck

import "math/bits"

// bitmap is a set of numbers from 0 up, sparse: a chunk of it takes memory only
// where some of its bits are set and some are not.
type bitmap struct {
	n     uint64 // numbers are below
	chunk []*[chunkWords]uint64
}

const (
	chunkBits  = 1 << 15
	chunkWords = chunkBits / 64
)

// fullChunk stands for a chunk with all bits set; it is never written.
var fullChunk = func() *[chunkWords]uint64 {
	f := new([chunkWords]uint64)
	for i := range f {
		f[i] = ^uint64(0)
	}
	return f
}()

func newBitmap(n uint64) *bitmap {
	return &bitmap{n: n, chunk: make([]*[chunkWords]uint64, (n+chunkBits-1)/chunkBits)}
}

func (m *bitmap) test(i uint64) bool {
	if m == nil || i >= m.n {
		return false
	}
	c := m.chunk[i/chunkBits]
	return c != nil && c[i%chunkBits/64]>>(i%64)&1 != 0
}

func (m *bitmap) own(k uint64) *[chunkWords]uint64 {
	c := m.chunk[k]
	switch c {
	case nil:
		c = new([chunkWords]uint64)
		m.chunk[k] = c
	case fullChunk:
		d := *fullChunk
		c = &d
		m.chunk[k] = c
	}
	return c
}

func (m *bitmap) set(i uint64) {
	if i < m.n {
		m.own(i / chunkBits)[i%chunkBits/64] |= 1 << (i % 64)
	}
}

func (m *bitmap) clear(i uint64) {
	if i < m.n && m.chunk[i/chunkBits] != nil {
		m.own(i / chunkBits)[i%chunkBits/64] &^= 1 << (i % 64)
	}
}

// setRange sets n numbers from i on.
func (m *bitmap) setRange(i, n uint64) {
	if i >= m.n {
		return
	}
	n = min(n, m.n-i)
	for n > 0 {
		if i%chunkBits == 0 && n >= chunkBits {
			m.chunk[i/chunkBits] = fullChunk
			i, n = i+chunkBits, n-chunkBits
			continue
		}
		if m.chunk[i/chunkBits] == fullChunk {
			k := min(n, chunkBits-i%chunkBits)
			i, n = i+k, n-k
			continue
		}
		k := min(n, 64-i%64)
		m.own(i / chunkBits)[i%chunkBits/64] |= (^uint64(0) >> (64 - k)) << (i % 64)
		i, n = i+k, n-k
	}
}

// anyRange tells whether one of n numbers from i on is set.
func (m *bitmap) anyRange(i, n uint64) bool {
	if i >= m.n {
		return false
	}
	n = min(n, m.n-i)
	for n > 0 {
		c := m.chunk[i/chunkBits]
		if c == nil {
			k := min(n, chunkBits-i%chunkBits)
			i, n = i+k, n-k
			continue
		}
		k := min(n, 64-i%64)
		if c[i%chunkBits/64]&((^uint64(0)>>(64-k))<<(i%64)) != 0 {
			return true
		}
		i, n = i+k, n-k
	}
	return false
}

// countRange returns how many of n numbers from i on are set.
func (m *bitmap) countRange(i, n uint64) uint64 {
	if i >= m.n {
		return 0
	}
	n = min(n, m.n-i)
	sum := 0
	for n > 0 {
		c := m.chunk[i/chunkBits]
		k := min(n, 64-i%64)
		switch {
		case c == nil:
			k = min(n, chunkBits-i%chunkBits)
		case c == fullChunk:
			k = min(n, chunkBits-i%chunkBits)
			sum += int(k)
		default:
			sum += bits.OnesCount64(c[i%chunkBits/64] & ((^uint64(0) >> (64 - k)) << (i % 64)))
		}
		i, n = i+k, n-k
	}
	return uint64(sum)
}

// next returns the first set number from i on, below end; end if there is none.
func (m *bitmap) next(i, end uint64) uint64 {
	end = min(end, m.n)
	for i < end {
		c := m.chunk[i/chunkBits]
		if c == nil {
			i = (i/chunkBits + 1) * chunkBits
			continue
		}
		if w := c[i%chunkBits/64] >> (i % 64); w != 0 {
			return min(i+uint64(bits.TrailingZeros64(w)), end)
		}
		i = (i/64 + 1) * 64
	}
	return end
}

// nextClear returns the first number from i on that is not set, below end; end
// if there is none.
func (m *bitmap) nextClear(i, end uint64) uint64 {
	end = min(end, m.n)
	for i < end {
		c := m.chunk[i/chunkBits]
		if c == nil {
			return i
		}
		if c == fullChunk {
			i = (i/chunkBits + 1) * chunkBits
			continue
		}
		if w := ^c[i%chunkBits/64] >> (i % 64); w != 0 {
			return min(i+uint64(bits.TrailingZeros64(w)), end)
		}
		i = (i/64 + 1) * 64
	}
	return end
}

// merge sets those of n numbers from i on that are set in o.
func (m *bitmap) merge(o *bitmap, i, n uint64) {
	if i >= m.n {
		return
	}
	n = min(n, m.n-i)
	for n > 0 {
		c := o.chunk[i/chunkBits]
		k := min(n, 64-i%64)
		if c == nil {
			k = min(n, chunkBits-i%chunkBits)
		} else if w := c[i%chunkBits/64] & ((^uint64(0) >> (64 - k)) << (i % 64)); w != 0 {
			m.own(i / chunkBits)[i%chunkBits/64] |= w
		}
		i, n = i+k, n-k
	}
}

// forget clears n numbers from i on, and perhaps others near them.
func (m *bitmap) forget(i, n uint64) {
	for k := i / chunkBits; k <= (i+n)/chunkBits && k < uint64(len(m.chunk)); k++ {
		m.chunk[k] = nil
	}
}

// fill puts n bits from i on into dst, as bitmap blocks hold them.
func (m *bitmap) fill(dst []byte, i, n uint64) {
	clear(dst[:(n+7)/8])
	if i%64 == 0 && (i >= m.n || m.chunk[i/chunkBits] == nil && i%chunkBits+n <= chunkBits) {
		return
	}
	for j := m.next(i, i+n); j < i+n && j < m.n; {
		e := m.nextClear(j, i+n)
		for k := j - i; k < e-i; {
			if k%8 == 0 && e-i-k >= 8 {
				dst[k/8] = 0xff
				k += 8
			} else {
				dst[k/8] |= 1 << (k % 8)
				k++
			}
		}
		j = m.next(e, i+n)
	}
}
