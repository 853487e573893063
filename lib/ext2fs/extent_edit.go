package ext2fs

import (
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// extMost is the longest extent of a state, in blocks.
func extMost(unwritten bool) uint32 {
	if unwritten {
		return ondisk.MaxUnwrittenLen
	}
	return ondisk.MaxExtentLen
}

// extInsert maps n blocks from lblk on, which is a hole, to pblk. It joins what
// it inserts with the extents before and after where those go on. mapMu is held;
// the caller stores the inode. On ENOSPC the blocks before those that are still
// missing are mapped: it returns how many.
func (ip *Inode) extInsert(h *jbd2.Handle, lblk ondisk.Lblk, pblk ondisk.Fsblk, n uint32, unwritten bool) (uint32, error) {
	var p extPath
	most := extMost(unwritten)
	done := uint32(0)
	for done < n {
		at, to := lblk+ondisk.Lblk(done), pblk+ondisk.Fsblk(done)
		k := min(n-done, most)
		if err := ip.extFind(&p, at); err != nil {
			return done, err
		}
		leaf := p.leaf()
		e := leaf.leaf()
		k = uint32(min(uint64(k), leaf.hi-uint64(at)))
		first, start, length := at, to, k
		pos, del := leaf.pos+1, 0
		if leaf.pos >= 0 {
			x := &e[leaf.pos]
			end := x.Block.Get() + x.Len()
			if uint64(x.Block.Get())+uint64(x.Len()) > uint64(at) {
				p.put()
				return done, ip.errMapped(at)
			}
			if end == uint32(at) && x.Start()+ondisk.Fsblk(x.Len()) == to && x.Unwritten() == unwritten && x.Len() < most {
				k = min(k, most-x.Len())
				first, start, length = ondisk.Lblk(x.Block.Get()), x.Start(), x.Len()+k
				pos, del = leaf.pos, 1
			}
		}
		if next := leaf.pos + 1; next < len(e) {
			x := &e[next]
			if uint64(x.Block.Get()) < uint64(at)+uint64(k) {
				p.put()
				return done, ip.errMapped(ondisk.Lblk(x.Block.Get()))
			}
			if x.Block.Get() == uint32(at)+k && x.Start() == to+ondisk.Fsblk(k) && x.Unwritten() == unwritten && length+x.Len() <= most {
				length += x.Len()
				del++
			}
		}
		if err := p.edit(h, pos, del, leafRec(first, start, length, unwritten)); err != nil {
			return done, err
		}
		done += k
	}
	return done, nil
}

// errMapped says that lblk is mapped where it should not be. That is not what
// the disk holds but what we believe of it, and to go on would lose blocks.
func (ip *Inode) errMapped(lblk ondisk.Lblk) error {
	return ip.fs.corrupt(ip.ino, ondisk.At(ondisk.Corrupt("extent tree", 0, "logical block %d is mapped already", lblk), ip.ino, 0))
}

// extRemoveLast takes away the last run of mapped blocks that [lo, hi) has in
// one extent, at most most of them, without freeing them, and returns it; a run of
// length 0 if nothing is mapped there. mapMu is held; the caller stores the inode.
func (ip *Inode) extRemoveLast(h *jbd2.Handle, lo, hi uint64, most uint32) (run, error) {
	var p extPath
	for hi > lo {
		if err := ip.extFind(&p, ondisk.Lblk(hi-1)); err != nil {
			return run{}, err
		}
		leaf := p.leaf()
		if leaf.pos < 0 { // in front of the leaf's first extent
			hi = leaf.lo
			p.put()
			continue
		}
		x := leaf.leaf()[leaf.pos]
		s := uint64(x.Block.Get())
		end := s + uint64(x.Len())
		a, b := max(s, lo), min(end, hi)
		if a >= b {
			p.put()
			return run{}, nil
		}
		a = max(a, b-min(b, uint64(most)))
		r := run{lblk: ondisk.Lblk(a), pblk: x.Start() + ondisk.Fsblk(a-s), n: uint32(b - a), state: runWritten}
		u := x.Unwritten()
		if u {
			r.state = runUnwritten
		}
		var ins [2]extRec
		k := 0
		if s < a {
			ins[k] = leafRec(ondisk.Lblk(s), x.Start(), uint32(a-s), u)
			k++
		}
		if b < end {
			ins[k] = leafRec(ondisk.Lblk(b), x.Start()+ondisk.Fsblk(b-s), uint32(end-b), u)
			k++
		}
		return r, p.edit(h, leaf.pos, 1, ins[:k]...)
	}
	return run{}, nil
}

// extConvert makes the mapped blocks of [lo, hi) written or unwritten, as far as
// the first extent that holds some in the other state goes, and returns the
// block after what it looked at. mapMu is held; the caller stores the inode.
func (ip *Inode) extConvert(h *jbd2.Handle, lo, hi uint64, unwritten bool) (uint64, error) {
	var p extPath
	if err := ip.extFind(&p, ondisk.Lblk(lo)); err != nil {
		return lo, err
	}
	leaf := p.leaf()
	e := leaf.leaf()
	pos := leaf.pos
	if pos < 0 || uint64(e[pos].Block.Get())+uint64(e[pos].Len()) <= lo {
		pos++ // lo is in a hole
	}
	if pos >= len(e) {
		next := leaf.hi
		p.put()
		return min(next, hi), nil
	}
	x := e[pos]
	s := uint64(x.Block.Get())
	end := s + uint64(x.Len())
	a, b := max(s, lo), min(end, hi)
	if a >= b || x.Unwritten() == unwritten {
		p.put()
		return min(max(end, lo), hi), nil
	}
	most := uint64(extMost(unwritten))
	b = min(b, a+most)
	at := func(l uint64) ondisk.Fsblk { return x.Start() + ondisk.Fsblk(l-s) }
	// [s,a) and [b,end) stay as they are; [a,b) changes, and may join the
	// neighbour that it touches.
	first, del := pos, 1
	ms, mp, mn := a, at(a), b-a
	if a == s && pos > 0 {
		l := &e[pos-1]
		if uint64(l.Block.Get())+uint64(l.Len()) == a && l.Start()+ondisk.Fsblk(l.Len()) == mp &&
			l.Unwritten() == unwritten && uint64(l.Len())+mn <= most {
			ms, mp, mn = uint64(l.Block.Get()), l.Start(), mn+uint64(l.Len())
			first, del = pos-1, 2
		}
	}
	if b == end && pos+1 < len(e) {
		r := &e[pos+1]
		if uint64(r.Block.Get()) == b && r.Start() == at(b) && r.Unwritten() == unwritten && mn+uint64(r.Len()) <= most {
			mn += uint64(r.Len())
			del++
		}
	}
	var ins [3]extRec
	k := 0
	if s < a {
		ins[k] = leafRec(ondisk.Lblk(s), x.Start(), uint32(a-s), !unwritten)
		k++
	}
	ins[k] = leafRec(ondisk.Lblk(ms), mp, uint32(mn), unwritten)
	k++
	if b < end {
		ins[k] = leafRec(ondisk.Lblk(b), at(b), uint32(end-b), !unwritten)
		k++
	}
	return b, p.edit(h, first, del, ins[:k]...)
}
