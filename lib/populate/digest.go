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
func (t *Tree) Digest() (sum [sha256.Size]byte, err error) {
	d := digest{h: sha256.New()}
	round := t.newRound()
	nodes := uint32(0)
	err = t.walk(func(path trail, id nodeID, n *node, first bool) error {
		d.bytes(path)
		if !first {
			no, err := t.number(id, round)
			d.num(uint64(no))
			return err
		}
		nodes++
		d.num(0)
		if n.links > 1 && !n.isDir() {
			if err := t.setNumber(id, round, nodes); err != nil {
				return err
			}
		}
		return d.node(t, n)
	})
	d.h.Sum(sum[:0])
	return sum, err
}

// Newest returns the latest time of modification in the tree, in seconds.
func (t *Tree) Newest() int64 { return t.newest }

type digest struct {
	h   hash.Hash
	buf []byte
}

func (d *digest) num(v uint64) {
	d.buf = binary.AppendUvarint(d.buf[:0], v)
	d.h.Write(d.buf)
}

// bytes adds bytes, after their number: no two sequences of them are alike.
func (d *digest) bytes(b []byte) {
	d.num(uint64(len(b)))
	d.h.Write(b)
}

func (d *digest) text(s string) { d.bytes([]byte(s)) }

func (d *digest) node(t *Tree, n *node) error {
	for _, v := range []uint64{uint64(n.mode), uint64(n.uid), uint64(n.gid), uint64(n.rdev), uint64(n.size)} {
		d.num(v)
	}
	d.num(uint64(n.mtime.Sec))
	d.num(uint64(n.mtime.Nsec))
	var target []byte
	if n.isLnk() {
		var err error
		if target, err = t.bytes(n.aux); err != nil {
			return err
		}
	}
	d.bytes(target)
	list, err := t.attrsOf(n)
	d.num(uint64(len(list)))
	for _, x := range list {
		d.text(x.name)
		d.text(x.value)
	}
	return err
}
