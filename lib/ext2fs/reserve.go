package ext2fs

import (
	"errors"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// rsvRun is a part of a hole that blocks are reserved for. They are in memory
// only, until ioEnd maps them. With clusters, they are whole clusters.
type rsvRun struct {
	lblk ondisk.Lblk
	pblk ondisk.Fsblk
	n    uint32
	out  bool // Begin has handed them out: data may be on its way to them
	// direct says that they were handed out once, for direct I/O: nobody else can
	// be writing to them.
	direct bool
}

func (r *rsvRun) end() uint64 { return uint64(r.lblk) + uint64(r.n) }

// span is a range of logical blocks.
type span struct{ lo, hi uint64 }

// reservations are the blocks that an inode may write to and does not have
// mapped as written.
type reservations struct {
	rsv    []rsvRun // guarded by mapMu: in order, apart from each other
	next   uint64   // guarded by mapMu: block after the one handed out last
	window uint32   // guarded by mapMu: blocks reserved ahead last; grows with a stream
	listed bool     // guarded by rsvList.mu

	// busy is the unwritten blocks that were handed out, which must not be
	// zeroed. If there are too many, none may be.
	busy    []span // guarded by mapMu
	busyAll bool   // guarded by mapMu

	// zeroMu is held while blocks are handed out that are unwritten on disk, so
	// that none is while it is being zeroed. It comes before the handle in the
	// lock order.
	zeroMu sync.Mutex
}

const (
	rsvWindow = 32 << 20 // bytes reserved ahead of a stream, at most
	rsvMost   = 1 << 15  // blocks of one reservation
	busyMost  = 512      // spans remembered
)

// rsvInodes is how many inodes keep what they have reserved ahead: a stream goes
// on though nobody has its inode pinned between the writes.
const rsvInodes = 32

// rsvList is the inodes that have reserved more than they have handed out.
type rsvList struct {
	mu     sync.Mutex
	inodes []*Inode     // guarded by mu: the one added last is last
	ahead  atomic.Int64 // clusters that are reserved and were not handed out
}

// rsvSearch returns the index of the first run that ends after lblk.
func (ip *Inode) rsvSearch(lblk uint64) int {
	rsv := ip.fm.rsv
	for i := range rsv {
		if rsv[i].end() > lblk {
			return i
		}
	}
	return len(rsv)
}

// rsvTake hands out up to n reserved blocks from lblk on, for direct I/O or not:
// 0 if none are reserved there. mapMu is held exclusively.
func (ip *Inode) rsvTake(lblk ondisk.Lblk, n uint32, direct bool) (ondisk.Fsblk, uint32) {
	m := &ip.fm
	i := ip.rsvSearch(uint64(lblk))
	if i == len(m.rsv) || m.rsv[i].lblk > lblk {
		return 0, 0
	}
	r := m.rsv[i]
	in := uint32(lblk - r.lblk)
	n = min(n, r.n-in)
	m.next = uint64(lblk) + uint64(n)
	pblk := r.pblk + ondisk.Fsblk(in)
	if r.out {
		m.rsv[i].direct = false
		return pblk, n
	}
	// Runs are divided between clusters only.
	mask := uint64(ip.fs.clusterRatio - 1)
	lo := uint32(uint64(lblk)&^mask - uint64(r.lblk))
	hi := uint32((uint64(lblk)+uint64(n)+mask)&^mask - uint64(r.lblk))
	var parts [3]rsvRun
	k := 0
	for _, c := range [...]struct {
		a, b uint32
		out  bool
	}{{0, lo, false}, {lo, hi, true}, {hi, r.n, false}} {
		if c.a < c.b {
			parts[k] = rsvRun{lblk: r.lblk + ondisk.Lblk(c.a), pblk: r.pblk + ondisk.Fsblk(c.a), n: c.b - c.a, out: c.out, direct: c.out && direct}
			k++
		}
	}
	ip.fs.rsvs.ahead.Add(-int64((hi - lo) >> ip.fs.clusterBits))
	m.rsv[i] = parts[0]
	if k > 1 {
		m.rsv = slices.Insert(m.rsv, i+1, parts[1:k]...)
	}
	return pblk, n
}

// rsvNew reserves blocks for lblk, of which need are wanted and which is in a
// hole of hole blocks without reservations. A stream gets more. mapMu is held
// exclusively.
func (ip *Inode) rsvNew(lblk ondisk.Lblk, need, hole uint64, rsvOK bool) error {
	fs, m := ip.fs, &ip.fm
	mask := uint64(fs.clusterRatio - 1)
	lo := uint64(lblk) &^ mask
	room := (uint64(lblk)+hole)&^mask - lo
	want := min((uint64(lblk)+need-lo+mask)&^mask, room, rsvMost)
	need = want
	if uint64(lblk) == m.next && lblk > 0 {
		most := uint64(rsvWindow >> fs.blockBits)
		if free := fs.free.Load() - fs.reserved.Load(); free>>5 < int64(most>>fs.clusterBits) {
			most = uint64(max(free>>5, 0)) << fs.clusterBits
		}
		w := max(uint64(m.window)*2, 1<<bits.Len64(want))
		want = min(max(want, min(w, most)&^mask), room, rsvMost)
		m.window = uint32(want)
	} else {
		m.window = 0
	}
	goal, err := ip.goal(lblk)
	if err != nil {
		return err
	}
	in := ondisk.Fsblk(uint64(lblk) - lo)
	if goal >= in {
		goal -= in
	}
	floor := fs.floor(rsvOK)
	start, n, err := fs.reserveNow(goal, uint32(want), fs.clusterRatio, floor)
	if errors.Is(err, syscall.ENOSPC) && ip.rsvDropAhead() {
		start, n, err = fs.reserveNow(goal, uint32(need), fs.clusterRatio, floor)
	}
	if err != nil {
		return err
	}
	fs.rsvs.ahead.Add(int64(n >> fs.clusterBits))
	i := ip.rsvSearch(lo)
	m.rsv = slices.Insert(m.rsv, i, rsvRun{lblk: ondisk.Lblk(lo), pblk: start, n: n})
	if uint64(n) > need {
		fs.rsvs.add(ip)
	}
	return nil
}

// awaitFrees is called, with no handle and no lock but Inode.mu, when there was
// no space at the try-th time. It says whether there may be some after all,
// since a commit has let go of blocks that were freed.
func (fs *FS) awaitFrees(try int) bool {
	return try < 2 && fs.pending.Load() > 0 && fs.jnl != nil && fs.jnl.Commit(fs.jnl.Running()) == nil
}

// rsvCommit makes the blocks reserved for n blocks from lblk on, which a run
// has, the file's: in the bitmap and in i_blocks. With clusters, all of those
// that they lie in. mapMu is held exclusively.
func (ip *Inode) rsvCommit(h *jbd2.Handle, lblk ondisk.Lblk, pblk ondisk.Fsblk, n uint32) error {
	fs := ip.fs
	mask := uint64(fs.clusterRatio - 1)
	lo := uint64(lblk) &^ mask
	hi := (uint64(lblk) + uint64(n) + mask) &^ mask
	ip.rsvCut(lo, hi, false)
	ip.addBlocks(int64(hi - lo))
	return fs.commitReserved(h, pblk-ondisk.Fsblk(uint64(lblk)-lo), uint32(hi-lo))
}

// rsvCut takes [lo, hi) out of the reservations; the blocks are given back if
// free. mapMu is held exclusively.
func (ip *Inode) rsvCut(lo, hi uint64, free bool) {
	m := &ip.fm
	for i := ip.rsvSearch(lo); i < len(m.rsv) && uint64(m.rsv[i].lblk) < hi; {
		r := m.rsv[i]
		a, b := max(uint64(r.lblk), lo), min(r.end(), hi)
		if !r.out {
			ip.fs.rsvs.ahead.Add(-int64((b - a) >> ip.fs.clusterBits))
		}
		if free {
			ip.fs.unreserve(r.pblk+ondisk.Fsblk(a-uint64(r.lblk)), uint32(b-a))
		}
		left, right := r, r
		left.n = uint32(a - uint64(r.lblk))
		right.lblk, right.pblk, right.n = ondisk.Lblk(b), r.pblk+ondisk.Fsblk(b-uint64(r.lblk)), uint32(r.end()-b)
		switch {
		case left.n > 0 && right.n > 0:
			m.rsv[i] = left
			m.rsv = slices.Insert(m.rsv, i+1, right)
			return
		case left.n > 0:
			m.rsv[i] = left
			i++
		case right.n > 0:
			m.rsv[i] = right
			return
		default:
			m.rsv = slices.Delete(m.rsv, i, i+1)
		}
	}
}

// rsvDrop gives back what is reserved for [lo, hi), which no write may be on its
// way to. With clusters, those that lie wholly in it. mapMu is held exclusively.
func (ip *Inode) rsvDrop(lo, hi uint64) {
	mask := uint64(ip.fs.clusterRatio - 1)
	lo = (lo + mask) &^ mask
	if hi <= uint64(ondisk.MaxLblk) {
		hi &^= mask
	}
	if lo < hi {
		ip.rsvCut(lo, hi, true)
		ip.busyDone(lo, hi)
	}
}

// rsvDropAhead gives back what was not handed out, and says whether there was
// any. mapMu is held exclusively.
func (ip *Inode) rsvDropAhead() bool {
	m := &ip.fm
	any := false
	for i := 0; i < len(m.rsv); {
		if r := m.rsv[i]; !r.out {
			any = true
			ip.rsvCut(uint64(r.lblk), r.end(), true)
		} else {
			i++
		}
	}
	m.window = 0
	return any
}

// add notes that ip, whose mapMu is held, has reserved ahead. If there are too
// many, the one that was added first and is not in use gives up what it has. One
// that is in use stays: what it keeps would not be found again.
func (l *rsvList) add(ip *Inode) {
	l.mu.Lock()
	if ip.fm.listed {
		l.mu.Unlock()
		return
	}
	ip.fm.listed = true
	l.inodes = append(l.inodes, ip)
	var old *Inode
	for i := 0; len(l.inodes) > rsvInodes && i < len(l.inodes) && old == nil; i++ {
		if x := l.inodes[i]; x.mapMu.TryLock() {
			old = x
			old.fm.listed = false
			l.inodes = slices.Delete(l.inodes, i, i+1)
		}
	}
	l.mu.Unlock()
	if old != nil {
		old.rsvDropAhead()
		old.mapMu.Unlock()
	}
}

func (l *rsvList) remove(ip *Inode) {
	l.mu.Lock()
	if ip.fm.listed {
		ip.fm.listed = false
		i := slices.Index(l.inodes, ip)
		last := len(l.inodes) - 1
		l.inodes[i] = l.inodes[last]
		l.inodes[last] = nil
		l.inodes = l.inodes[:last]
	}
	l.mu.Unlock()
}

// rsvReclaim gives back what inodes have reserved ahead, as there is no space
// left. Those whose mapMu is held, by the caller too, are passed over. It says
// whether any was given back.
func (fs *FS) rsvReclaim() bool {
	l := &fs.rsvs
	if l.ahead.Load() == 0 {
		return false
	}
	l.mu.Lock()
	inodes := slices.Clone(l.inodes)
	l.mu.Unlock()
	any := false
	for _, x := range inodes {
		if x.mapMu.TryLock() {
			any = x.rsvDropAhead() || any
			x.mapMu.Unlock()
		}
	}
	return any
}

// releaseMap gives up what was handed out and not written, as nobody uses the
// inode any more. No lock is held.
func (ip *Inode) releaseMap() {
	ip.mapMu.Lock()
	m := &ip.fm
	for i := 0; i < len(m.rsv); {
		if r := m.rsv[i]; r.out {
			ip.rsvCut(uint64(r.lblk), r.end(), true)
		} else {
			i++
		}
	}
	m.busy, m.busyAll = nil, false
	ip.mapMu.Unlock()
}

// dropMap gives up all that the inode has reserved. No lock is held.
func (ip *Inode) dropMap() {
	ip.releaseMap()
	ip.mapMu.Lock()
	ip.rsvDropAhead()
	ip.mapMu.Unlock()
	ip.fs.rsvs.remove(ip)
}

// mapHolds tells whether releaseMap has something to do. The caller has the
// last pin, and perhaps a lock that comes after mapMu: it does not wait.
func (ip *Inode) mapHolds() bool {
	if !ip.mapMu.TryRLock() {
		return true // rsvReclaim is at it
	}
	defer ip.mapMu.RUnlock()
	m := &ip.fm
	if len(m.busy) > 0 || m.busyAll {
		return true
	}
	for i := range m.rsv {
		if m.rsv[i].out {
			return true
		}
	}
	return false
}

// busyAdd remembers that unwritten blocks were handed out for writing. mapMu is
// held exclusively.
func (ip *Inode) busyAdd(lo, hi uint64) {
	m := &ip.fm
	if n := len(m.busy); n > 0 && m.busy[n-1].hi == lo {
		m.busy[n-1].hi = hi
		return
	}
	if len(m.busy) == busyMost {
		m.busyAll = true
		return
	}
	m.busy = append(m.busy, span{lo, hi})
}

// busyDone forgets that the blocks of [lo, hi) were handed out. mapMu is held
// exclusively.
func (ip *Inode) busyDone(lo, hi uint64) {
	m := &ip.fm
	for i := 0; i < len(m.busy); {
		s := m.busy[i]
		switch {
		case s.hi <= lo || s.lo >= hi:
			i++
		case s.lo >= lo && s.hi <= hi:
			m.busy = slices.Delete(m.busy, i, i+1)
		case s.lo < lo && s.hi > hi:
			m.busy[i].hi = lo
			m.busy = append(m.busy, span{hi, s.hi})
			i++
		case s.lo < lo:
			m.busy[i].hi = lo
			i++
		default:
			m.busy[i].lo = hi
			i++
		}
	}
}

// isBusy says whether a block of [lo, hi) may have been handed out. mapMu is held.
func (ip *Inode) isBusy(lo, hi uint64) bool {
	for _, s := range ip.fm.busy {
		if s.lo < hi && s.hi > lo {
			return true
		}
	}
	return ip.fm.busyAll
}
