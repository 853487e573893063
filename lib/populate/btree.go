package populate

import (
	"bytes"
	"encoding/binary"
)

// btree is a B+tree in pages: keys of up to maxKey bytes, in the order of their
// bytes, and a number for each. What is taken out leaves room in its page, and
// pages stay: a tree is made once, and read in order from then on.
//
// A page begins with a header and slots, the places of its entries in the order
// of their keys; the entries grow towards them from its end. In a page above the
// leaves the number is that of a page with the keys from this one on; the
// header's link is the page with those before the first key. In a leaf the link is
// the next leaf, or 0: page 0 is never one that another one links to.
type btree struct {
	pg     *pager
	root   uint32
	levels int // 0: it is empty, and has no page
}

const (
	maxKey = 4 + 255

	treeHeader = 12 // level, entries, link, where entries begin, bytes of entries that are gone
	entryOver  = 10 // of an entry beside its key: its length and the number
	maxLevels  = 16
)

// treePage is a page of a btree.
type treePage []byte

func (p treePage) leaf() bool     { return p.u16(0) == 0 }
func (p treePage) len() int       { return p.u16(2) }
func (p treePage) link() uint32   { return binary.LittleEndian.Uint32(p[4:]) }
func (p treePage) u16(at int) int { return int(binary.LittleEndian.Uint16(p[at:])) }

func (p treePage) setU16(at, v int) { binary.LittleEndian.PutUint16(p[at:], uint16(v)) }

func (p treePage) init(level int, link uint32) {
	clear(p[:treeHeader])
	p.setU16(0, level)
	binary.LittleEndian.PutUint32(p[4:], link)
	p.setU16(8, pageSize)
}

func (p treePage) at(i int) int { return p.u16(treeHeader + 2*i) }

func (p treePage) key(i int) []byte {
	at := p.at(i)
	return p[at+entryOver : at+entryOver+p.u16(at)]
}

func (p treePage) value(i int) uint64 { return binary.LittleEndian.Uint64(p[p.at(i)+2:]) }

func (p treePage) setValue(i int, v uint64) { binary.LittleEndian.PutUint64(p[p.at(i)+2:], v) }

// child returns the page that has the keys after entry i; -1 for those before
// the first one.
func (p treePage) child(i int) uint32 {
	if i < 0 {
		return p.link()
	}
	return uint32(p.value(i))
}

// find returns the first entry whose key is not before key, and whether it is
// that key.
func (p treePage) find(key []byte) (int, bool) {
	lo, hi := 0, p.len()
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		switch c := bytes.Compare(p.key(mid), key); {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

// put makes key entry i, if there is room.
func (p treePage) put(i int, key []byte, v uint64) bool {
	n, low, size := p.len(), p.u16(8), entryOver+len(key)
	slots := treeHeader + 2*n
	if low-slots < size+2 {
		if low+p.u16(10)-slots < size+2 {
			return false
		}
		p.compact()
		low = p.u16(8)
	}
	low -= size
	p.setU16(low, len(key))
	binary.LittleEndian.PutUint64(p[low+2:], v)
	copy(p[low+entryOver:], key)
	at := treeHeader + 2*i
	copy(p[at+2:slots+2], p[at:slots])
	p.setU16(at, low)
	p.setU16(8, low)
	p.setU16(2, n+1)
	return true
}

func (p treePage) remove(i int) {
	n := p.len()
	p.setU16(10, p.u16(10)+entryOver+len(p.key(i)))
	at := treeHeader + 2*i
	copy(p[at:], p[at+2:treeHeader+2*n])
	p.setU16(2, n-1)
}

// compact brings the entries together.
func (p treePage) compact() {
	var old [pageSize]byte
	copy(old[:], p)
	q := treePage(old[:])
	p.init(q.u16(0), q.link())
	for i := range q.len() {
		p.put(i, q.key(i), q.value(i))
	}
}

// way is how a key was come to: the pages, and the entries that were followed.
type way struct {
	page [maxLevels]uint32
	at   [maxLevels]int
}

// leaf returns the leaf that a key belongs in.
func (t *btree) leaf(key []byte, change bool, w *way) (treePage, error) {
	no := t.root
	for l := t.levels - 1; ; l-- {
		b, err := t.pg.get(no, change && l == 0)
		if err != nil {
			return nil, err
		}
		p := treePage(b)
		w.page[l] = no
		if l == 0 {
			return p, nil
		}
		i, same := p.find(key)
		if !same {
			i--
		}
		w.at[l] = i
		no = p.child(i)
	}
}

// get returns the number of a key.
func (t *btree) get(key []byte) (uint64, bool, error) {
	if t.levels == 0 {
		return 0, false, nil
	}
	var w way
	p, err := t.leaf(key, false, &w)
	if err != nil {
		return 0, false, err
	}
	i, ok := p.find(key)
	if !ok {
		return 0, false, nil
	}
	return p.value(i), true, nil
}

// set gives a key a number.
func (t *btree) set(key []byte, v uint64) error {
	if t.levels == 0 {
		no, b, err := t.pg.add()
		if err != nil {
			return err
		}
		treePage(b).init(0, 0)
		t.root, t.levels = no, 1
	}
	var w way
	p, err := t.leaf(key, true, &w)
	if err != nil {
		return err
	}
	i, ok := p.find(key)
	if ok {
		p.setValue(i, v)
		return nil
	}
	if p.put(i, key, v) {
		return nil
	}
	for l := 0; ; l++ {
		var right uint32
		if key, right, err = t.split(w.page[l], i, key, v); err != nil {
			return err
		}
		v = uint64(right)
		if l+1 == t.levels {
			return t.grow(key, v)
		}
		b, err := t.pg.get(w.page[l+1], true)
		if err != nil {
			return err
		}
		if i = w.at[l+1] + 1; treePage(b).put(i, key, v) {
			return nil
		}
	}
}

// grow puts a page above the root, whose right half key and v are.
func (t *btree) grow(key []byte, v uint64) error {
	no, b, err := t.pg.add()
	if err != nil {
		return err
	}
	p := treePage(b)
	p.init(t.levels, t.root)
	p.put(0, key, v)
	t.root = no
	t.levels++
	return nil
}

// split makes two of a page that has no room for key as its entry i. It returns
// the right one, and the key from which on it has the keys.
func (t *btree) split(no uint32, i int, key []byte, v uint64) ([]byte, uint32, error) {
	right, b, err := t.pg.add()
	if err != nil {
		return nil, 0, err
	}
	q := treePage(b)
	if b, err = t.pg.get(no, true); err != nil {
		return nil, 0, err
	}
	p := treePage(b)
	n, leaf := p.len(), p.leaf()
	q.init(p.u16(0), 0)
	cut := i
	if i < n { // else keys come in order: then the left page stays full
		cut = p.middle()
	}
	var first []byte
	switch {
	case cut == n && leaf:
		first = bytes.Clone(key)
		q.put(0, key, v)
	case cut == n:
		first = bytes.Clone(key)
		q.init(p.u16(0), uint32(v))
	default:
		first = bytes.Clone(p.key(cut))
		from := cut
		if !leaf {
			q.init(p.u16(0), p.child(cut))
			from++
		}
		for j := from; j < n; j++ {
			q.put(j-from, p.key(j), p.value(j))
		}
		for j := n - 1; j >= cut; j-- {
			p.remove(j)
		}
		if i <= cut {
			p.put(i, key, v)
		} else {
			q.put(i-from, key, v)
		}
	}
	if leaf {
		binary.LittleEndian.PutUint32(q[4:], p.link())
		binary.LittleEndian.PutUint32(p[4:], right)
	}
	return first, right, nil
}

// middle returns the entry that half of the bytes are before.
func (p treePage) middle() int {
	half, sum := (pageSize-p.u16(8)-p.u16(10))/2, 0
	for i := range p.len() {
		if sum += entryOver + len(p.key(i)); sum >= half {
			return max(i, 1)
		}
	}
	return p.len() - 1
}

// remove takes a key out.
func (t *btree) remove(key []byte) error {
	if t.levels == 0 {
		return nil
	}
	var w way
	p, err := t.leaf(key, true, &w)
	if err != nil {
		return err
	}
	if i, ok := p.find(key); ok {
		p.remove(i)
	}
	return nil
}

// scan calls f with each key from from on, in order, until it returns false. f
// must not change the tree, or keep the key.
func (t *btree) scan(from []byte, f func(key []byte, v uint64) bool) error {
	if t.levels == 0 {
		return nil
	}
	var w way
	p, err := t.leaf(from, false, &w)
	if err != nil {
		return err
	}
	i, _ := p.find(from)
	for {
		for ; i < p.len(); i++ {
			if !f(p.key(i), p.value(i)) {
				return nil
			}
		}
		next := p.link()
		if next == 0 {
			return nil
		}
		b, err := t.pg.get(next, false)
		if err != nil {
			return err
		}
		p, i = treePage(b), 0
	}
}
