package populate

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// Digest returns a hash of what the tree says of its files: names, links, owners,
// modes, sizes, times of modification, attributes, but not the data. A UUID that
// is to be the same for the same files can be derived from it: order, holes and
// times of access, in which copies of them differ, do not count.
func (t *Tree) Digest() [sha256.Size]byte {
	d := digest{h: sha256.New(), nodes: map[*node]uint64{}}
	_ = t.walk(func(path string, n *node, first bool) error {
		d.text(path)
		if !first {
			d.num(d.nodes[n])
			return nil
		}
		d.nodes[n] = uint64(len(d.nodes)) + 1
		d.num(0)
		d.node(n)
		return nil
	})
	var sum [sha256.Size]byte
	d.h.Sum(sum[:0])
	return sum
}

// Newest returns the latest time of modification in the tree, in seconds.
func (t *Tree) Newest() int64 {
	newest := t.root.mtime.Sec
	_ = t.walk(func(_ string, n *node, _ bool) error {
		newest = max(newest, n.mtime.Sec)
		return nil
	})
	return newest
}

type digest struct {
	h     hash.Hash
	buf   []byte
	nodes map[*node]uint64 // that were met, by their order
}

func (d *digest) num(v uint64) {
	d.buf = binary.AppendUvarint(d.buf[:0], v)
	d.h.Write(d.buf)
}

// text adds a string, after its length: no two sequences of strings are alike.
func (d *digest) text(s string) {
	d.num(uint64(len(s)))
	d.buf = append(d.buf[:0], s...)
	d.h.Write(d.buf)
}

func (d *digest) node(n *node) {
	for _, v := range []uint64{uint64(n.mode), uint64(n.uid), uint64(n.gid), uint64(n.rdev), uint64(n.size)} {
		d.num(v)
	}
	d.num(uint64(n.mtime.Sec))
	d.num(uint64(n.mtime.Nsec))
	d.text(n.target)
	if n.attrs == nil {
		d.num(0)
		return
	}
	d.num(uint64(len(n.attrs.list)))
	for _, x := range n.attrs.list {
		d.text(x.name)
		d.text(x.value)
	}
}
