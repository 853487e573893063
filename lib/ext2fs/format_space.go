package ext2fs

import (
	"math/bits"
	"slices"
)

// spaceMap is which blocks are used while a file system is made: runs, so that
// it takes memory for what is used and not for the size. Runs lie in buckets of
// 1<<shift blocks each and do not cross their ends.
type spaceMap struct {
	first, end uint64 // blocks that there are
	ratio      uint64 // granularity of mark: 1, or the blocks in a cluster
	shift      uint
	buckets    [][]usedRun
}

// usedRun is a run of blocks within a bucket; hi is its last block.
type usedRun struct{ lo, hi uint32 }

func newSpaceMap(first, end uint64) *spaceMap {
	shift := min(max(20, uint(bits.Len64(end))-16), 32)
	return &spaceMap{first: first, end: end, ratio: 1, shift: shift, buckets: make([][]usedRun, end>>shift+1)}
}

// search returns the index of the first run of bucket i that ends at off or later.
func (m *spaceMap) search(i uint64, off uint32) int {
	n, _ := slices.BinarySearchFunc(m.buckets[i], off, func(r usedRun, off uint32) int {
		switch {
		case r.hi < off:
			return -1
		case r.hi > off:
			return 1
		}
		return 0
	})
	return n
}

// mark makes n blocks from b on used, in whole clusters once there are any.
func (m *spaceMap) mark(b, n uint64) {
	last := (b + n - 1) | (m.ratio - 1)
	b &^= m.ratio - 1
	for b <= last {
		i := b >> m.shift
		hi := min(last, (i+1)<<m.shift-1)
		m.markIn(i, uint32(b-i<<m.shift), uint32(hi-i<<m.shift))
		b = hi + 1
	}
}

func (m *spaceMap) markIn(i uint64, lo, hi uint32) {
	rs := m.buckets[i]
	// Those that touch are joined.
	from := 0
	if lo > 0 {
		from = m.search(i, lo-1)
	}
	to := from
	for to < len(rs) && (hi == 1<<32-1 || rs[to].lo <= hi+1) {
		lo, hi = min(lo, rs[to].lo), max(hi, rs[to].hi)
		to++
	}
	if to == from+1 {
		rs[from] = usedRun{lo, hi}
		return
	}
	m.buckets[i] = slices.Replace(rs, from, to, usedRun{lo, hi})
}

// nextUsed returns the first run of used blocks that ends at or after b and
// begins before end: its first block and its last; ok is false if there is none.
func (m *spaceMap) nextUsed(b, end uint64) (lo, hi uint64, ok bool) {
	off := uint32(b & (1<<m.shift - 1))
	for i := b >> m.shift; i < uint64(len(m.buckets)) && i<<m.shift < end; i++ {
		if n := m.search(i, off); n < len(m.buckets[i]) {
			r := m.buckets[i][n]
			lo, hi = i<<m.shift+uint64(r.lo), i<<m.shift+uint64(r.hi)
			return lo, hi, lo < end
		}
		off = 0
	}
	return 0, 0, false
}

// free says whether all of n blocks from b on are.
func (m *spaceMap) free(b, n uint64) bool {
	_, _, used := m.nextUsed(b, b+n)
	return !used
}

// nextFree returns the first free block from b on, before end.
func (m *spaceMap) nextFree(b, end uint64) (uint64, bool) {
	for b < end {
		_, hi, used := m.nextUsed(b, b+1)
		if !used {
			return b, true
		}
		b = hi + 1
	}
	return 0, false
}

// used returns how many of the blocks from lo on, before hi, are used.
func (m *spaceMap) used(lo, hi uint64) (n uint64) {
	for b := lo; b < hi; {
		l, h, ok := m.nextUsed(b, hi)
		if !ok {
			break
		}
		n += min(h+1, hi) - max(l, b)
		b = h + 1
	}
	return n
}

// each calls f with each run of used blocks from lo on, before hi, cut to that.
func (m *spaceMap) each(lo, hi uint64, f func(b, n uint64)) {
	for b := lo; b < hi; {
		l, h, ok := m.nextUsed(b, hi)
		if !ok {
			return
		}
		l = max(l, b)
		f(l, min(h+1, hi)-l)
		b = h + 1
	}
}

// toClusters makes used every cluster of which a block is.
func (m *spaceMap) toClusters(ratio uint64) {
	if ratio == 1 {
		return
	}
	old := m.buckets
	m.ratio, m.buckets = ratio, make([][]usedRun, len(old))
	for i, rs := range old {
		for _, r := range rs {
			m.mark(uint64(i)<<m.shift+uint64(r.lo), uint64(r.hi-r.lo)+1)
		}
		old[i] = nil
	}
}

// usedClusters returns how many clusters from block lo on, before hi, are used.
// Both are at the start of one, but for the end of the file system.
func (m *spaceMap) usedClusters(lo, hi, ratio uint64) uint64 {
	return ceilDiv(m.used(lo, hi), ratio)
}

// findRun returns the first of n free blocks, looking from start on up to, and
// not at, finish; and if that is not after start, round the end of the file
// system.
func (m *spaceMap) findRun(start, finish, n uint64) (uint64, bool) {
	if start == 0 {
		start = m.first
	}
	if finish == 0 {
		finish = start
	}
	wrapped := false
	for b := start; ; {
		if b+n > m.end {
			if finish > start || wrapped {
				return 0, false
			}
			b, wrapped = m.first, true
		}
		_, hi, used := m.nextUsed(b, b+n)
		if !used {
			return b, true
		}
		if b < finish && finish <= hi+1 {
			return 0, false
		}
		b = hi + 1
	}
}

// progression is a list of numbers in little memory, where they go up in equal
// steps over long stretches, as the places of bitmaps and inode tables do.
type progression struct {
	parts []part
	n     uint32
	last  int // index of the part that get found: the next is that or near
}

type part struct {
	at   uint32 // index of the first
	step int64
	base uint64
}

func (p *progression) append(v uint64) {
	if k := len(p.parts); k > 0 {
		l := &p.parts[k-1]
		switch n := p.n - l.at; {
		case n == 1:
			l.step = int64(v - l.base)
			p.n++
			return
		case v == l.base+uint64(l.step)*uint64(n):
			p.n++
			return
		}
	}
	p.parts = append(p.parts, part{at: p.n, base: v})
	p.n++
}

func (p *progression) get(i uint32) uint64 {
	q := &p.parts[p.last]
	if i < q.at || p.last+1 < len(p.parts) && i >= p.parts[p.last+1].at {
		p.last = p.search(i)
		q = &p.parts[p.last]
	}
	return q.base + uint64(q.step)*uint64(i-q.at)
}

// search returns the index of the part that has i.
func (p *progression) search(i uint32) int {
	k, found := slices.BinarySearchFunc(p.parts, i, func(q part, i uint32) int {
		switch {
		case q.at < i:
			return -1
		case q.at > i:
			return 1
		}
		return 0
	})
	if !found {
		k--
	}
	return k
}
