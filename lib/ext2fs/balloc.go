package ext2fs

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// The life of a cluster: free, reserved (in memory only), used, freed but not
// committed, free. FS.free counts the clear bits of the bitmaps as the next
// commit will write them, so what can be reserved is
//
//	free - reserved - pending - what is kept for others

// goalFor returns where blocks of ip are looked for if nothing better is known:
// in the inode's group, or, with flex groups, after the groups whose start is
// left to directories.
func (fs *FS) goalFor(ip *Inode, _ ondisk.Lblk) ondisk.Fsblk {
	g := ondisk.Group(uint32(ip.ino-1) / fs.inodesPerGroup)
	if fs.flexBits >= 2 { // the kernel's EXT4_FLEX_SIZE_DIR_ALLOC_SCHEME
		g &^= 1<<fs.flexBits - 1
		if ip.isReg() && g+1 < fs.groups {
			g++
		}
	}
	return fs.groupFirst(g)
}

// floor returns how many clusters a reservation has to leave.
func (fs *FS) floor(rsvOK bool) int64 {
	if rsvOK {
		return fs.pool
	}
	return fs.pool + fs.rblocks.Load()
}

// claim takes up to want clusters out of the count of those that can be
// reserved, at least least, and leaves floor.
func (fs *FS) claim(want, least uint32, floor int64) (uint32, bool) {
	for {
		r := fs.reserved.Load()
		can := fs.free.Load() - fs.pending.Load() - r - floor
		if can < int64(least) {
			return 0, false
		}
		n := min(int64(want), can)
		if fs.reserved.CompareAndSwap(r, r+n) {
			return uint32(n), true
		}
	}
}

// reserve finds free blocks for data of ip, as many of want as lie one after
// the other, but at least least, preferably from goal on, and keeps others from
// getting them. Whole clusters are reserved: start is at the start of one, and n
// a multiple of their size. Nothing on disk changes; commitReserved makes the
// blocks used, and unreserve gives them back. rsvOK lets it take the blocks
// reserved for the super-user. It fails with ENOSPC; since it may then wait for
// a commit, that frees blocks, the caller has no handle and no mapMu.
func (fs *FS) reserve(ip *Inode, goal ondisk.Fsblk, want, least uint32, rsvOK bool) (start ondisk.Fsblk, n uint32, err error) {
	for try := 0; ; try++ {
		start, n, err = fs.reserveNow(goal, want, least, fs.floor(rsvOK))
		if err != syscall.ENOSPC || try == 2 || fs.pending.Load() == 0 || fs.jnl == nil {
			return start, n, err
		}
		if err := fs.jnl.Commit(fs.jnl.Running()); err != nil {
			return 0, 0, err
		}
	}
}

// reserveNow is reserve without a second try: it does not wait, so a handle may
// be open.
func (fs *FS) reserveNow(goal ondisk.Fsblk, want, least uint32, floor int64) (ondisk.Fsblk, uint32, error) {
	w := min((want+fs.clusterRatio-1)>>fs.clusterBits, fs.clustersPerGroup)
	l := max(min((least+fs.clusterRatio-1)>>fs.clusterBits, w), 1)
	w = max(w, l)
	for {
		n, ok := fs.claim(w, l, floor)
		start, got, err := ondisk.Fsblk(0), uint32(0), error(syscall.ENOSPC)
		if ok {
			start, got, err = fs.find(goal, n, l)
			if got < n {
				fs.reserved.Add(-int64(n - got))
			}
		}
		if err == syscall.ENOSPC && fs.rsvReclaim() {
			continue // with what streams had taken ahead
		}
		return start, got << fs.clusterBits, err
	}
}

// find takes a run of up to want clusters out of the bits of some group. In the
// first round it is content with nothing less, in the second with half, in the
// last with anything down to least.
func (fs *FS) find(goal ondisk.Fsblk, want, least uint32) (ondisk.Fsblk, uint32, error) {
	if goal < fs.firstData || goal >= fs.blocks {
		goal = fs.firstData
	}
	home := fs.groupOfBlock(goal)
	at := uint32(goal-fs.groupFirst(home)) >> fs.clusterBits
	var bad error
	for _, need := range [...]uint32{want, max(want/4, least), least} {
		for i := range uint64(fs.groups) {
			no := ondisk.Group((uint64(home) + i) % uint64(fs.groups))
			g, err := fs.groupOf(no)
			if err != nil {
				bad = fs.corrupt(0, err)
				if g == nil && !errors.Is(err, ondisk.EUCLEAN) && !errors.Is(err, ondisk.EBADMSG) {
					return 0, 0, err
				}
				continue
			}
			from := uint32(0)
			if i == 0 {
				from = at
			}
			s, n, err := g.take(fs, from, want, need, least, i == 0)
			if err != nil {
				bad = err
				continue
			}
			if n > 0 {
				return fs.groupFirst(no) + ondisk.Fsblk(s)<<fs.clusterBits, n, nil
			}
		}
		if need == least {
			break
		}
	}
	if bad != nil {
		return 0, 0, bad
	}
	return 0, 0, syscall.ENOSPC
}

// take reserves a run of at least need and at most want clusters in g,
// preferably from cluster at on. If exact is set and at itself is free, the run
// begins there, and may be as short as least.
func (g *group) take(fs *FS, at, want, need, least uint32, exact bool) (start, n uint32, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bits == nil && g.freeClusters < need && !exact || g.bbBad {
		return 0, 0, nil
	}
	if g.freeClusters == 0 {
		return 0, 0, nil
	}
	if err := g.loadBits(fs); err != nil {
		return 0, 0, err
	}
	b, end := g.bits, fs.groupClusters(g.no)
	if b.avail == 0 || b.avail < need && !exact {
		return 0, 0, nil
	}
	if exact && at > 0 && at < end {
		if e := nextSet(b.taken, at, min(end, at+want)); e >= at+least {
			return g.took(at, e-at), e - at, nil
		}
	}
	if b.run < need {
		return 0, 0, nil
	}
	s, n, best := b.search(max(at, b.first), end, want)
	if n < want && max(at, b.first) > b.first {
		s2, n2, best2 := b.search(b.first, min(end, at+want), want)
		best = max(best, best2)
		if n2 > n {
			s, n = s2, n2
		}
	}
	if n < want && best < want {
		b.run = best // both searches together have seen everything
	}
	if n < need {
		return 0, 0, nil
	}
	if s == b.first {
		b.first = s + n
	}
	return g.took(s, n), n, nil
}

// took reserves n clusters from s on, which are free. mu is held.
func (g *group) took(s, n uint32) uint32 {
	b := g.bits
	setBits(b.taken, s, n)
	b.avail -= n
	b.busy += n
	if s == b.first {
		b.first = s + n
	}
	return s
}

// search returns the first run of want clear bits in [from, end), or the
// longest there is. best is the longest it saw.
func (b *groupBits) search(from, end, want uint32) (start, n, best uint32) {
	for i := from; ; {
		s := nextClear(b.taken, i, end)
		if s >= end {
			return start, n, n
		}
		e := nextSet(b.taken, s, min(end, s+want))
		if e-s > n {
			start, n = s, e-s
			if n >= want {
				return start, n, n
			}
		}
		i = e + 1
	}
}

// give returns n clusters from s on to the free ones. mu is held.
func (g *group) give(s, n uint32) {
	b := g.bits
	clearBits(b.taken, s, n)
	b.avail += n
	b.busy -= n
	b.first = min(b.first, s)
	b.run = b.avail
}

// split calls f with what of the run lies in each group, in clusters.
func (fs *FS) split(start ondisk.Fsblk, n uint32, f func(g *group, at, n uint32) error) error {
	end := start + ondisk.Fsblk(n)
	if start < fs.firstData || end > fs.blocks || end <= start {
		return ondisk.Corrupt("run of blocks", 0, "%d blocks from %d on", n, start)
	}
	for start < end {
		no := fs.groupOfBlock(start)
		g, err := fs.groupOf(no)
		if err != nil {
			return err
		}
		first := fs.groupFirst(no)
		stop := min(end, first+ondisk.Fsblk(fs.blocksPerGroup))
		a := uint32(start-first) >> fs.clusterBits
		z := (uint32(stop-first) + fs.clusterRatio - 1) >> fs.clusterBits
		if err := f(g, a, z-a); err != nil {
			return err
		}
		start = stop
	}
	return nil
}

// unreserve gives back n blocks from start on, or part of what was reserved.
func (fs *FS) unreserve(start ondisk.Fsblk, n uint32) {
	if n == 0 {
		return
	}
	_ = fs.split(start, n, func(g *group, at, n uint32) error {
		g.mu.Lock()
		g.give(at, n)
		g.mu.Unlock()
		fs.reserved.Add(-int64(n))
		return nil
	})
}

// commitReserved makes n reserved blocks from start on used, in h's
// transaction; it changes creditsGroup blocks per group, and the superblock.
func (fs *FS) commitReserved(h *jbd2.Handle, start ondisk.Fsblk, n uint32) error {
	return fs.split(start, n, func(g *group, at, n uint32) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		b, err := g.writeBlockBitmap(fs, h)
		if err != nil {
			return err
		}
		defer b.Put()
		if were := setRange(b.Data(), at, n); were != 0 {
			return fs.corrupt(0, ondisk.Corrupt(fmt.Sprintf("block bitmap of group %d", g.no), int(at/8),
				"%d clusters of %d from %d on are used", were, n, at))
		}
		g.freeClusters -= n
		g.bits.busy -= n
		fs.free.Add(-int64(n))
		fs.reserved.Add(-int64(n))
		return nil
	})
}

// allocMeta allocates one block for metadata of ip, preferably at goal, and
// marks it used in h's transaction; with bigalloc it is the first of a cluster
// that is used whole. i_blocks is left to the caller: addBlocks(clusterRatio).
// Blocks of a directory are refused, with ENOSPC, while only reserved ones are
// left, unless ip.rsvOK; blocks that mappings and attributes need may take all.
func (fs *FS) allocMeta(h *jbd2.Handle, ip *Inode, goal ondisk.Fsblk) (ondisk.Fsblk, error) {
	floor := int64(0)
	if ip.isDir() {
		floor = fs.floor(ip.rsvOK)
	}
	if goal == 0 {
		goal = fs.goalFor(ip, 0)
	}
	b, n, err := fs.reserveNow(goal, 1, 1, floor)
	if err != nil {
		return 0, err
	}
	if err := fs.commitReserved(h, b, n); err != nil {
		return 0, err
	}
	return b, nil
}

// freeRun is a run of clusters of a group.
type freeRun struct {
	g     *group
	at, n uint32
}

// freeList is what a transaction has freed.
type freeList struct {
	tid  jbd2.Tid
	runs []freeRun
}

// freeBlocks frees n blocks from start on in h's transaction; with bigalloc,
// the clusters that they touch. Nobody gets them before it has committed. If
// they were metadata, they leave the cache and older copies in the log are
// revoked.
func (fs *FS) freeBlocks(h *jbd2.Handle, start ondisk.Fsblk, n uint32, metadata bool) error {
	if fs.replaying {
		if metadata {
			for i := range n {
				h.Revoke(uint64(start) + uint64(i))
			}
		}
		return fs.mark(h, start, n, false)
	}
	if !fs.validBlock(start, n) {
		return fs.corrupt(0, ondisk.Corrupt("freed run", 0, "%d blocks from %d on are not a file's", n, start))
	}
	if metadata {
		for i := range n {
			h.Revoke(uint64(start) + uint64(i))
		}
	}
	return fs.split(start, n, func(g *group, at, n uint32) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if err := g.loadBits(fs); err != nil {
			return err
		}
		// Nothing changes if any of it is free: what is wrong is not known.
		if were := countSet(g.bits.taken, at, n); were != n || g.flags&ondisk.BGBlockUninit != 0 {
			return fs.corrupt(0, ondisk.Corrupt(fmt.Sprintf("block bitmap of group %d", g.no), int(at/8),
				"%d clusters from %d on are freed, %d are used", n, at, were))
		}
		b, err := g.writeBlockBitmap(fs, h)
		if err != nil {
			return err
		}
		defer b.Put()
		if c := countClear(b.Data(), at, n); c != 0 {
			return fs.corrupt(0, ondisk.Corrupt(fmt.Sprintf("block bitmap of group %d", g.no), int(at/8),
				"%d of %d clusters from %d on are free already", c, n, at))
		}
		clearRange(b.Data(), at, n)
		g.freeClusters += n
		g.bits.busy += n
		fs.pending.Add(int64(n))
		fs.free.Add(int64(n))
		fs.pendLater(h.Tid(), freeRun{g, at, n})
		return nil
	})
}

// pendLater keeps r until transaction tid has committed.
func (fs *FS) pendLater(tid jbd2.Tid, r freeRun) {
	fs.pendMu.Lock()
	defer fs.pendMu.Unlock()
	var l *freeList
	if k := len(fs.pend); k > 0 && fs.pend[k-1].tid == tid {
		l = fs.pend[k-1]
	} else {
		l = &freeList{tid: tid}
		fs.pend = append(fs.pend, l)
	}
	if k := len(l.runs); k > 0 {
		if p := &l.runs[k-1]; p.g == r.g && p.at+p.n == r.at {
			p.n += r.n
			return
		}
	}
	l.runs = append(l.runs, r)
}

// committed lets blocks that transaction tid and those before it freed be used.
func (fs *FS) committed(tid jbd2.Tid) {
	for {
		fs.pendMu.Lock()
		if len(fs.pend) == 0 || fs.pend[0].tid.After(tid) {
			fs.pendMu.Unlock()
			return
		}
		l := fs.pend[0]
		fs.pend = fs.pend[1:]
		fs.pendMu.Unlock()
		for _, r := range l.runs {
			start := fs.groupFirst(r.g.no) + ondisk.Fsblk(r.at)<<fs.clusterBits
			n := uint64(r.n) << fs.clusterBits
			fs.cache.Forget(buffer.Block(start), n)
			if fs.opts.Discard && !fs.shut.Load() {
				// A hint: a device that cannot says so at each.
				_ = fs.dev.Discard(int64(start)<<fs.blockBits, int64(n)<<fs.blockBits)
			}
			r.g.mu.Lock()
			r.g.give(r.at, r.n)
			r.g.mu.Unlock()
			fs.pending.Add(-int64(r.n))
		}
	}
}

// trimBlocks discards free space of at least least blocks in the blocks [from, to),
// and returns how many blocks that were.
func (fs *FS) trimBlocks(from, to ondisk.Fsblk, least uint32) (uint64, error) {
	if err := fs.writable(); err != nil {
		return 0, err
	}
	from, to = max(from, fs.firstData), min(to, fs.blocks)
	least = max((least+fs.clusterRatio-1)>>fs.clusterBits, 1)
	var total uint64
	for from < to {
		no := fs.groupOfBlock(from)
		first := fs.groupFirst(no)
		stop := min(to, first+ondisk.Fsblk(fs.groupBlocks(no)))
		g, err := fs.groupOf(no)
		if err != nil {
			return total, fs.corrupt(0, err)
		}
		i, end := uint32(from-first)>>fs.clusterBits, uint32(stop-first)>>fs.clusterBits
		for i < end {
			s, n, err := g.takeNext(fs, i, end, least)
			if err != nil {
				return total, err
			}
			if n == 0 {
				break
			}
			fs.reserved.Add(int64(n))
			b := first + ondisk.Fsblk(s)<<fs.clusterBits
			blocks := int64(n) << fs.clusterBits
			err = fs.dev.Discard(int64(b)<<fs.blockBits, blocks<<fs.blockBits)
			fs.unreserve(b, uint32(blocks))
			if err != nil {
				return total, err
			}
			total += uint64(blocks)
			i = s + n
		}
		from = first + ondisk.Fsblk(fs.blocksPerGroup)
	}
	return total, nil
}

// takeNext reserves the next run of at least least free clusters in [i, end).
func (g *group) takeNext(fs *FS, i, end, least uint32) (s, n uint32, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bbBad || g.flags&ondisk.BGBlockUninit != 0 || g.freeClusters < least {
		return 0, 0, nil
	}
	if err := g.loadBits(fs); err != nil {
		return 0, 0, err
	}
	for {
		s := nextClear(g.bits.taken, i, end)
		if s >= end {
			return 0, 0, nil
		}
		e := nextSet(g.bits.taken, s, end)
		if e-s >= least {
			return g.took(s, e-s), e - s, nil
		}
		i = e
	}
}

// FreeSpace is what statfs tells of space, in blocks.
type FreeSpace struct {
	Blocks   uint64 // of the file system
	Free     uint64 // not in use
	Avail    uint64 // of those, what is not kept for the super-user
	Overhead uint64 // used by the file system itself, as recorded in the superblock
	Inodes   uint64
	FreeIno  uint64
}

// FreeSpace returns the counts of blocks and inodes.
func (fs *FS) FreeSpace() FreeSpace {
	// What is reserved ahead of streams is given back when it is missed.
	free := max(fs.free.Load()-fs.reserved.Load()+fs.rsvs.ahead.Load(), 0)
	avail := max(free-fs.rblocks.Load()-fs.pool, 0)
	return FreeSpace{
		Blocks:   uint64(fs.blocks),
		Free:     uint64(free) << fs.clusterBits,
		Avail:    uint64(avail) << fs.clusterBits,
		Overhead: fs.overhead(),
		Inodes:   uint64(fs.inodes),
		FreeIno:  uint64(max(fs.freeIno.Load(), 0)),
	}
}

// overhead returns the blocks of metadata outside files, and of the journal:
// what the superblock says, or else what can be said without reading each group.
func (fs *FS) overhead() uint64 {
	if n := fs.sb.OverheadClusters.Get(); n != 0 && uint64(n) <= uint64(fs.blocks)>>fs.clusterBits {
		return uint64(n) << fs.clusterBits
	}
	n := uint64(fs.firstData) + uint64(fs.groups)*uint64(2+fs.itableBlocks)
	for g := range fs.groups {
		n += uint64(fs.groupBase(g))
	}
	for _, r := range fs.jnlRuns {
		n += uint64(r.n)
	}
	return n
}
