package fsck

import "slices"

// icount is a counter for each inode, up to 65535, sparse: those that are 0 or 1, as
// most are, take a bit.
type icount struct {
	page []*countPage
}

const icountPage = 1024

// countPage has the counters of some inodes in a row.
type countPage struct {
	one  [icountPage / 64]uint64 // those that are 1
	more []countMore             // larger ones, sorted; until there are too many
	all  *[icountPage]uint16     // then, all that are larger than 1
}

type countMore struct{ i, n uint16 }

// mostMore is how many larger counters a page has before it gets room for all.
const mostMore = icountPage / 4

func newIcount(inodes uint64) *icount {
	return &icount{page: make([]*countPage, inodes/icountPage+1)}
}

func (t *icount) get(ino uint64) uint16 {
	k := ino / icountPage
	if k >= uint64(len(t.page)) || t.page[k] == nil {
		return 0
	}
	p, i := t.page[k], ino%icountPage
	switch {
	case p.one[i/64]>>(i%64)&1 != 0:
		return 1
	case p.all != nil:
		return p.all[i]
	}
	if j, ok := p.find(uint16(i)); ok {
		return p.more[j].n
	}
	return 0
}

func (p *countPage) find(i uint16) (int, bool) {
	return slices.BinarySearchFunc(p.more, i, func(m countMore, i uint16) int { return int(m.i) - int(i) })
}

func (t *icount) set(ino uint64, n uint16) {
	k := ino / icountPage
	if k >= uint64(len(t.page)) {
		return
	}
	if t.page[k] == nil {
		if n == 0 {
			return
		}
		t.page[k] = new(countPage)
	}
	p, i := t.page[k], ino%icountPage
	p.one[i/64] &^= 1 << (i % 64)
	if n == 1 {
		p.one[i/64] |= 1 << (i % 64)
		n = 0
	}
	if p.all != nil {
		p.all[i] = n
		return
	}
	j, have := 0, false
	if len(p.more) > 0 {
		j, have = p.find(uint16(i))
	}
	switch {
	case have && n == 0:
		p.more = slices.Delete(p.more, j, j+1)
	case have:
		p.more[j].n = n
	case n == 0:
	case len(p.more) < mostMore:
		p.more = slices.Insert(p.more, j, countMore{uint16(i), n})
	default:
		p.all = new([icountPage]uint16)
		for _, m := range p.more {
			p.all[m.i] = m.n
		}
		p.more = nil
		p.all[i] = n
	}
}

func (t *icount) add(ino uint64, d int) {
	n := int(t.get(ino)) + d
	t.set(ino, uint16(max(0, min(n, 65535))))
}

// forget sets n counters from ino on to 0, and perhaps others near them.
func (t *icount) forget(ino, n uint64) {
	for k := ino / icountPage; k <= (ino+n)/icountPage && k < uint64(len(t.page)); k++ {
		t.page[k] = nil
	}
}
