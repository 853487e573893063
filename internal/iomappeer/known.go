package iomappeer

import (
	"bytes"
	"sync"
)

// What is known of a block of a file.
const (
	blkUnseen    = iota
	blkHole      // answered as a hole: reads as zeros
	blkUnwritten // answered as UNWRITTEN, or DELALLOC: reads as zeros
	blkMapped    // answered as MAPPED
)

type blk struct {
	state     uint8
	addr      int64 // where it lies, if it has a place
	dev       uint32
	submitted bool // the peer has written data there
	failed    bool // all that was written there failed, and was said to have failed
	converted bool // an IOEND has made it written
}

// known is what answers have said of an inode's blocks. It is what A5, A7 and A12
// compare the next answer with.
type known struct {
	mu     sync.Mutex
	blocks map[int64]*blk
}

func (n *known) init() { n.blocks = make(map[int64]*blk) }

func (n *known) at(b int64) *blk {
	v := n.blocks[b]
	if v == nil {
		v = &blk{}
		n.blocks[b] = v
	}
	return v
}

// forget is for blocks whose place the server may have changed by itself.
func (n *known) forget(from, to int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for b := range n.blocks {
		if b >= from && b < to {
			delete(n.blocks, b)
		}
	}
}

// knownAhead is how many blocks of an answer beyond the question are noted.
const knownAhead = 256

// learn compares an answer for a step with what is known, and takes it in, if it
// still holds when nothing more can become known.
func (k *Kernel) learn(in *Inode, op Op, m *Mapping, pos, count int64, holds func() bool) {
	if k.cfg.CountOnly {
		return
	}
	if m.Type == TypeInline {
		// The server moves what is in there to a block by itself.
		if holds() {
			in.submitted(0, 1)
		}
		return
	}
	bs := k.bs
	first := max(pos/bs, int64(m.Offset)/bs)
	last := min(roundUp(pos+count, bs)/bs+knownAhead, int64(min(m.End(), maxLFS))/bs)
	last = min(last, first+4*knownAhead)
	n := &in.known
	n.mu.Lock()
	defer n.mu.Unlock()
	if !holds() {
		return
	}
	for b := first; b < last; b++ {
		v := n.at(b)
		off := b * bs
		switch m.Type {
		case TypeMapped:
			addr := m.at(off)
			if v.state == blkHole || v.state == blkUnwritten || v.state == blkUnseen && in.fresh {
				k.eval("A5")
				switch {
				case v.failed && !v.converted && v.submitted:
					k.eval("A7")
					if !k.isZero(m.Dev, addr) {
						k.violate("A7", in, "BEGIN(%v): block %d is %v, but all that was written to it failed", op, b, *m)
					}
				case !v.submitted && !k.isZero(m.Dev, addr):
					k.violate("A5", in, "BEGIN(%v): block %d is %v, but nobody has written it: it shows what was there before", op,
						b, *m)
				}
			}
			v.state, v.addr, v.dev = blkMapped, addr, m.Dev
		case TypeUnwritten, TypeHole, TypeDelalloc:
			if v.failed && v.submitted {
				k.eval("A7")
			}
			if v.converted {
				k.eval("A5")
				k.violate("A5", in, "BEGIN(%v): block %d is %v after an IOEND converted it", op, b, *m)
			} else if v.state == blkMapped && v.submitted && !v.failed {
				k.eval("A5")
				k.violate("A5", in, "BEGIN(%v): block %d is %v, but was MAPPED and holds data", op, b, *m)
			}
			v.state = blkHole
			v.submitted = v.submitted && m.hasDev() // in flight
			if m.Type != TypeHole {
				v.state = blkUnwritten
			}
			if m.hasDev() {
				v.addr, v.dev = m.at(off), m.Dev
			}
		}
	}
}

// isZero reports whether a block of a device is zeros.
func (k *Kernel) isZero(dev uint32, addr int64) bool {
	b := k.backing(dev)
	if b == nil {
		return true
	}
	buf := make([]byte, k.bs)
	if _, err := b.dev.ReadAt(buf, addr); err != nil {
		return true // the read that follows will say so
	}
	return len(bytes.TrimLeft(buf, "\x00")) == 0
}

// submitted notes that data is being written into the blocks of [pos, end).
func (in *Inode) submitted(pos, end int64) {
	if in.k.cfg.CountOnly {
		return
	}
	bs := in.k.bs
	in.known.mu.Lock()
	defer in.known.mu.Unlock()
	for b := pos / bs; b < roundUp(end, bs)/bs; b++ {
		v := in.known.at(b)
		v.submitted, v.failed = true, false
	}
}

// completed notes the end of I/O: an IOEND that was answered, or none.
func (in *Inode) completed(pos, end int64, converts bool) {
	if in.k.cfg.CountOnly {
		return
	}
	bs := in.k.bs
	in.known.mu.Lock()
	defer in.known.mu.Unlock()
	for b := pos / bs; b < roundUp(end, bs)/bs; b++ {
		v := in.known.at(b)
		// An older answer, which the mapping cache still holds, may have been read
		// while the data was under way: that it is there counts.
		v.submitted, v.failed = true, false
		if converts {
			v.converted = true
		}
	}
}

// ioFailed notes that the I/O on [pos, end), which was not written before, failed
// and that the server knows.
func (in *Inode) ioFailed(pos, end int64) {
	bs := in.k.bs
	if pos >= end {
		return
	}
	in.known.mu.Lock()
	defer in.known.mu.Unlock()
	for b := pos / bs; b < roundUp(end, bs)/bs; b++ {
		v := in.known.at(b)
		if !v.converted && v.state != blkMapped {
			v.failed = true
		}
	}
}
