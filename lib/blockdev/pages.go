package blockdev

import "math"

// pageSize is the unit in which devices in memory hold content, in bytes.
const (
	pageBits = 12
	pageSize = 1 << pageBits
)

const (
	fanBits = 6
	fan     = 1 << fanBits
)

// pages is a sparse array of pages, by page number: a radix tree that copies on
// write. A clone costs nothing; what two trees share neither changes. It has no
// lock of its own.
type pages struct {
	owner  *ownerID // whose nodes and pages may be changed in place
	root   *node
	levels int // of root; it spans fan^levels pages
	count  int // pages allocated by this tree
}

// ownerID is something with an address of its own.
type ownerID struct{ _ byte }

type page struct {
	owner *ownerID
	data  [pageSize]byte
}

// node is an interior node, whose kids are set, or one of the lowest level,
// whose leaves are.
type node struct {
	owner  *ownerID
	kids   *[fan]*node
	leaves *[fan]*page
}

// zeroPage and zeroNodes are shared content that reads as zeros. They have no
// owner, so writing copies them.
var (
	zeroPage  = new(page)
	zeroNodes = makeZeroNodes()
)

const maxLevels = (63 - pageBits + fanBits - 1) / fanBits

func makeZeroNodes() (z [maxLevels + 1]*node) {
	z[1] = &node{leaves: new([fan]*page)}
	for i := range z[1].leaves {
		z[1].leaves[i] = zeroPage
	}
	for l := 2; l <= maxLevels; l++ {
		z[l] = &node{kids: new([fan]*node)}
		for i := range z[l].kids {
			z[l].kids[i] = z[l-1]
		}
	}
	return z
}

// clone returns a tree with the same content. Both may change from then on.
func (t *pages) clone() pages {
	c := *t
	t.owner, c.owner, c.count = new(ownerID), new(ownerID), 0
	return c
}

// get returns page i, or nil.
func (t *pages) get(i int64) *page {
	if t.root == nil || i>>(fanBits*t.levels) != 0 {
		return nil
	}
	n := t.root
	for l := t.levels - 1; n != nil; l-- {
		k := int(i>>(fanBits*l)) & (fan - 1)
		if l == 0 {
			return n.leaves[k]
		}
		n = n.kids[k]
	}
	return nil
}

// edit returns page i for changing. If there was none it is one of zeros.
func (t *pages) edit(i int64) *page {
	slot := t.slot(i)
	old := *slot
	if old != nil && old.owner == t.owner {
		return old
	}
	p := &page{owner: t.owner}
	if old != nil {
		p.data = old.data
	}
	*slot = p
	t.count++
	return p
}

// slot returns where page i hangs, in nodes that are the tree's own.
func (t *pages) slot(i int64) **page {
	if t.owner == nil {
		t.owner = new(ownerID)
	}
	t.grow(i)
	n := t.own(&t.root, t.levels)
	for l := t.levels - 1; l > 0; l-- {
		n = t.own(&n.kids[int(i>>(fanBits*l))&(fan-1)], l)
	}
	return &n.leaves[int(i)&(fan-1)]
}

// grow adds levels on top until the tree spans page i.
func (t *pages) grow(i int64) {
	if t.levels == 0 {
		t.levels = 1
	}
	for i>>(fanBits*t.levels) != 0 {
		if t.root != nil {
			n := &node{owner: t.owner, kids: new([fan]*node)}
			n.kids[0], t.root = t.root, n
		}
		t.levels++
	}
}

// own makes *at a node that may be changed.
func (t *pages) own(at **node, level int) *node {
	n := *at
	if n != nil && n.owner == t.owner {
		return n
	}
	c := &node{owner: t.owner}
	if level == 1 {
		c.leaves = new([fan]*page)
		if n != nil {
			*c.leaves = *n.leaves
		}
	} else {
		c.kids = new([fan]*node)
		if n != nil {
			*c.kids = *n.kids
		}
	}
	*at = c
	return c
}

// fill replaces pages lo to hi-1: by none, or by zeros. It takes time by the
// depth of the tree, not by the length.
func (t *pages) fill(lo, hi int64, zero bool) {
	if lo >= hi {
		return
	}
	if t.owner == nil {
		t.owner = new(ownerID)
	}
	if zero {
		t.grow(hi - 1)
	}
	if t.root == nil && !zero {
		return
	}
	t.fillNode(&t.root, t.levels, 0, lo, hi, zero)
}

// fillNode is fill for what hangs at at, which starts with page first.
func (t *pages) fillNode(at **node, level int, first, lo, hi int64, zero bool) {
	span := int64(math.MaxInt64)
	if fanBits*level < 63 {
		span = 1 << (fanBits * level)
	}
	switch {
	case hi <= first || lo-first >= span || *at == nil && !zero:
		return
	case lo <= first && hi-first >= span:
		*at = nil
		if zero {
			*at = zeroNodes[level]
		}
		return
	}
	n := t.own(at, level)
	step := int64(1) << (fanBits * (level - 1))
	from := max(0, (lo-first)/step)
	to := min(fan-1, (hi-1-first)/step)
	for k := from; k <= to; k++ {
		if level > 1 {
			t.fillNode(&n.kids[k], level-1, first+k*step, lo, hi, zero)
		} else if n.leaves[k] = nil; zero {
			n.leaves[k] = zeroPage
		}
	}
}

// each calls do with every page there is, in order, until it returns false.
func (t *pages) each(do func(i int64, p *page) bool) {
	if t.root != nil {
		t.root.each(0, t.levels, do)
	}
}

func (n *node) each(first int64, level int, do func(int64, *page) bool) bool {
	step := int64(1) << (fanBits * (level - 1))
	for k := range int64(fan) {
		if level > 1 {
			if kid := n.kids[k]; kid != nil && !kid.each(first+k*step, level-1, do) {
				return false
			}
		} else if p := n.leaves[k]; p != nil && !do(first+k, p) {
			return false
		}
	}
	return true
}
