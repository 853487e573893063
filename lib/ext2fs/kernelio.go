package ext2fs

import (
	"errors"
	"math"
	"syscall"
	"time"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/iomap"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// KernelIO says that the data of regular files is moved by the kernel, or by
// somebody in its place, who asks [Inode.KernelBegin] where it lies and tells of
// what was written by [Inode.IOEnd]. Then no operation writes data to the blocks
// of such a file, nor relies on what is in them: what lies behind the size, or at
// the edges of a hole, the kernel zeroes in its page cache. Files whose data is
// journaled are not among them ([Inode.KernelMapped]).
//
// What was handed out for writing stays reserved while the inode is held
// ([FS.Hold]), since nobody tells when the kernel has given a mapping up.
type KernelIO struct {
	On bool

	// Squeeze, if set, asks the kernel to let go of inodes that it does not use,
	// for the sake of what is reserved for them. It is called without locks
	// when there is no space left, or there are so many that memory gets short;
	// Release may be called for the inodes before or after it returns.
	Squeeze func(inodes []ondisk.Ino)
}

// SetKernelIO says who moves the data of files. It is called before the first
// operation, if at all: Open itself writes no data of files.
func (fs *FS) SetKernelIO(k KernelIO) { fs.kernelIO = k }

// JournalsAllData says whether the data of all files goes through the journal.
func (fs *FS) JournalsAllData() bool { return fs.dataMode == DataJournal }

// MaxFileBytes returns the largest size that a file can have.
func (fs *FS) MaxFileBytes() int64 { return fs.maxBytes(fs.hasExtents) }

// KernelMapped says whether the kernel moves the inode's data.
func (ip *Inode) KernelMapped() bool {
	if !ip.fs.kernelIO.On || !ip.isReg() || ip.isEA.Load() {
		return false
	}
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	return !ip.journalsData()
}

// zeroPart zeroes n bytes at off, of a block that stays, unless the kernel does.
// mu is held exclusively.
func (ip *Inode) zeroPart(off, n int64) error {
	if n <= 0 || ip.KernelMapped() {
		return nil
	}
	return ip.zeroRange(off, n)
}

// squeezeTries is how often, and squeezeWait after how long each, KernelBegin
// looks whether the kernel has let go of inodes.
const (
	squeezeTries = 40
	squeezeWait  = 5 * time.Millisecond
)

// KernelBegin is Begin for the kernel. Inline files get blocks where op needs
// them; what a swap file consists of is committed first. Mappings that can only
// be reached by what is not durable are marked Dirty.
func (ip *Inode) KernelBegin(op iomap.Op, pos, count int64) (iomap.Pair, error) {
	fs := ip.fs
	if fs.hasInlineData && op&(iomap.Allocates|iomap.Swapfile) != 0 {
		inline, err := ip.inlineForKernel(op, pos, count)
		if err != nil {
			return iomap.Pair{}, err
		}
		if inline {
			return ip.inlinePair(uint64(pos) >> fs.blockBits), nil
		}
	}
	if op&iomap.Allocates != 0 {
		fs.ic.bound(fs.kernelIO.Squeeze)
	}
	for try := 0; ; try++ {
		p, err := ip.Begin(op, pos, count)
		if errors.Is(err, syscall.ENOSPC) && op&iomap.Nowait == 0 && fs.squeeze(try) {
			continue
		}
		if err != nil {
			return p, err
		}
		if p.Read.Type == iomap.Mapped && ip.uncommitted() {
			if op&iomap.Swapfile == 0 {
				p.Read.Flags |= iomap.Dirty
			} else if err := ip.Fsync(true); err != nil {
				return p, err
			}
		}
		if op&iomap.Swapfile != 0 {
			p.Read.Flags = 0
		}
		return p, nil
	}
}

// squeeze asks, the first time, for inodes with reservations to be let go, and
// waits a while. It says whether to try again.
func (fs *FS) squeeze(try int) bool {
	if fs.kernelIO.Squeeze == nil || try >= squeezeTries {
		return false
	}
	if try == 0 {
		inodes := fs.ic.keptInodes()
		if len(inodes) == 0 {
			return false
		}
		fs.kernelIO.Squeeze(inodes)
	}
	before := fs.reserved.Load()
	for range squeezeTries {
		if fs.reserved.Load() < before {
			return true
		}
		time.Sleep(squeezeWait)
	}
	return false
}

// uncommitted says whether a crash now might lose a part of the mapping. It does
// not lock for an inode that has not changed since it said no.
func (ip *Inode) uncommitted() bool {
	fs := ip.fs
	if fs.jnl == nil {
		return false
	}
	tid := ip.dataSyncTid.Load()
	known := uint64(tid) | 1<<32
	if ip.fm.durable.Load() == known {
		return false
	}
	if fs.jnl.Pending(jbd2.Tid(tid)) {
		return true
	}
	ip.fm.durable.Store(known)
	return false
}

// inlinePair is the answer for block first of an inline file: one block, and a
// hole after it.
func (ip *Inode) inlinePair(first uint64) iomap.Pair {
	if first > 0 {
		return ip.pair(run{lblk: ondisk.Lblk(first), n: uint32(uint64(ondisk.MaxLblk) + 1 - first)}, first)
	}
	p := iomap.Pair{Read: iomap.Mapping{Length: int64(ip.fs.blockSize), Addr: iomap.NullAddr, Type: iomap.Inline}}
	p.Overwrite()
	return p
}

// inlineForKernel says whether op is to go to the inode itself. If it cannot, the
// file gets blocks.
func (ip *Inode) inlineForKernel(op iomap.Op, pos, count int64) (bool, error) {
	ip.mapMu.RLock()
	inline, can := ip.inlineReady(pos + count)
	ip.mapMu.RUnlock()
	if !inline && !can {
		return false, nil
	}
	// Pages that are dirty need blocks to be written back to, and direct I/O an
	// address.
	const other = iomap.Fault | iomap.Writeback | iomap.Direct | iomap.Atomic | iomap.Swapfile | iomap.Unshare
	if can && op&iomap.Write != 0 && op&other == 0 {
		return true, nil
	}
	if !inline {
		return false, nil
	}
	if err := ip.fs.writable(); err != nil {
		return false, err
	}
	ip.mu.Lock()
	defer ip.mu.Unlock()
	if !ip.flagged(ondisk.FlagInlineData) {
		return false, nil
	}
	return false, ip.inlineConvert()
}

// view is mapRun as the kernel is to see it: what was handed out and has not been
// written is unwritten, and a hole is as long as it can be. mapMu is held.
func (ip *Inode) view(lblk ondisk.Lblk) (run, error) {
	r, err := ip.mapRun(lblk, 0)
	if err != nil || r.state != runHole || !ip.fs.kernelIO.On {
		return r, err
	}
	if out, ok := ip.handedOut(uint64(lblk)); ok {
		return out, nil
	}
	end, err := ip.holeEnd(r)
	if err != nil {
		return r, err
	}
	end = min(end, ip.nextHandedOut(uint64(lblk)))
	r.n = uint32(min(end-uint64(lblk), 1<<32-1))
	return r, nil
}

// holeSteps bounds how many pieces of a hole are put together.
const holeSteps = 1 << 12

// holeEnd returns where the hole that r is the beginning of ends.
func (ip *Inode) holeEnd(r run) (uint64, error) {
	const most = uint64(ondisk.MaxLblk) + 1
	end := uint64(r.lblk) + uint64(r.n)
	for steps := 0; end < most && steps < holeSteps; steps++ {
		next, err := ip.mapRun(ondisk.Lblk(end), 0)
		if err != nil {
			return 0, err
		}
		if next.state != runHole {
			break
		}
		end += uint64(next.n)
	}
	return min(end, most), nil
}

// handedOut returns what was handed out for the hole at lblk, and not written.
// Blocks that may be given back, since they are one direct write's, are not put
// together with others. mapMu is held.
func (ip *Inode) handedOut(lblk uint64) (run, bool) {
	rsv := ip.fm.rsv
	i := ip.rsvSearch(lblk)
	if i < len(rsv) && rsv[i].out && uint64(rsv[i].lblk) <= lblk {
		r := rsv[i]
		end := r.end()
		for i++; !r.direct && i < len(rsv) && rsv[i].out && !rsv[i].direct && uint64(rsv[i].lblk) == end &&
			rsv[i].pblk == r.pblk+ondisk.Fsblk(end-uint64(r.lblk)); i++ {
			end = rsv[i].end()
		}
		in := lblk - uint64(r.lblk)
		return run{lblk: ondisk.Lblk(lblk), pblk: r.pblk + ondisk.Fsblk(in), n: uint32(end - lblk), state: runUnwritten}, true
	}
	return run{}, false
}

// nextHandedOut returns the first block after lblk that handedOut may know.
func (ip *Inode) nextHandedOut(lblk uint64) uint64 {
	rsv := ip.fm.rsv
	for i := ip.rsvSearch(lblk); i < len(rsv); i++ {
		if rsv[i].out {
			return uint64(rsv[i].lblk)
		}
	}
	return 1 << 32
}

// rsvUnused gives back what of [lo, hi) was handed out for direct I/O alone. What
// other I/O may be on its way to stays. mapMu is held exclusively.
func (ip *Inode) rsvUnused(lo, hi uint64) {
	m := &ip.fm
	mask := uint64(ip.fs.clusterRatio - 1)
	for i := ip.rsvSearch(lo); i < len(m.rsv) && uint64(m.rsv[i].lblk) < hi; {
		r := m.rsv[i]
		a, b := (max(uint64(r.lblk), lo)+mask)&^mask, min(r.end(), hi)&^mask
		if !r.direct || a >= b {
			i++
			continue
		}
		ip.rsvCut(a, b, true)
		i = ip.rsvSearch(b)
	}
}

// HoldMapping keeps the mapping of the inode as it is until ReleaseMapping: what
// is told to the kernel meanwhile is true, and what is told later of a change
// comes later. One caller at a time holds it. Nothing of the inode may be called
// between them but MappingAround.
func (ip *Inode) HoldMapping() {
	ip.fm.tellMu.Lock()
	ip.mapMu.RLock()
}

// ReleaseMapping ends what HoldMapping began.
func (ip *Inode) ReleaseMapping() {
	ip.mapMu.RUnlock()
	ip.fm.tellMu.Unlock()
}

// MappingAround returns the longest mapping around pos that the kernel may
// remember. Blocks that are unwritten on the device are none, other than those
// that were handed out for writing: a write to them has to ask, for the blocks
// around to be zeroed with them.
func (ip *Inode) MappingAround(op iomap.Op, pos int64) (iomap.Mapping, bool) {
	fs := ip.fs
	first := uint64(pos) >> fs.blockBits
	if first > uint64(ondisk.MaxLblk) || ip.noBlocks() {
		return iomap.Mapping{}, false
	}
	r, err := ip.view(ondisk.Lblk(first))
	if err != nil {
		return iomap.Mapping{}, false
	}
	lo, hi := first, first+uint64(r.n)
	switch {
	case r.state == runUnwritten && op&iomap.Allocates == 0:
		return iomap.Mapping{}, false
	case r.state == runUnwritten:
		lo, hi = ip.handedOutAround(lo, hi)
		if lo >= hi {
			return iomap.Mapping{}, false
		}
	case ip.isExtents():
		before, err := ip.extBefore(ondisk.Lblk(first) + 1)
		if err != nil {
			return iomap.Mapping{}, false
		}
		if r.state == runWritten {
			lo = uint64(before.lblk)
		} else if before.state != runHole {
			lo = min(lo, max(uint64(before.lblk)+uint64(before.n), ip.lastHandedOut(first)))
		}
	}
	r.pblk -= ondisk.Fsblk(first - lo)
	r.lblk, r.n = ondisk.Lblk(lo), uint32(min(hi-lo, 1<<32-1))
	m := ip.pair(r, lo).Read
	if r.state == runWritten && ip.uncommitted() {
		m.Flags |= iomap.Dirty
		ip.tellAnew(lo, hi)
	}
	return m, true
}

// TakeDirty returns the part of the file, in bytes, of which MappingAround has
// said since the last call that it is not committed, or Forgets that the kernel has
// dropped it; n is 0 if there is none.
func (ip *Inode) TakeDirty() (off, n int64) {
	f := &ip.fm
	f.tellMu.Lock()
	defer f.tellMu.Unlock()
	off, n = int64(f.dirtyLo<<ip.fs.blockBits), int64((f.dirtyHi-f.dirtyLo)<<ip.fs.blockBits)
	f.dirtyLo, f.dirtyHi, f.forgets = 0, 0, span{}
	return off, n
}

// Forgets notes that the kernel will have dropped what it has cached of n bytes at
// off when it is answered, and returns the range that was noted before, n being 0
// if none was since TakeDirty.
func (ip *Inode) Forgets(off, n int64) (int64, int64) {
	fs, f := ip.fs, &ip.fm
	lo, hi := uint64(off)>>fs.blockBits, fs.blocksOf(off+n)
	f.tellMu.Lock()
	defer f.tellMu.Unlock()
	old := f.forgets
	f.forgets = span{lo, hi}
	ip.tellAnew(lo, hi)
	return int64(old.lo << fs.blockBits), int64((old.hi - old.lo) << fs.blockBits)
}

// tellAnew adds blocks to what TakeDirty returns. fm.tellMu is held.
func (ip *Inode) tellAnew(lo, hi uint64) {
	f := &ip.fm
	if f.dirtyLo == f.dirtyHi {
		f.dirtyLo, f.dirtyHi = lo, hi
	}
	f.dirtyLo, f.dirtyHi = min(f.dirtyLo, lo), max(f.dirtyHi, hi)
}

// Clusters returns the whole clusters that n bytes at off lie in, where blocks are
// allocated by clusters: what frees blocks of the range may take from what was
// handed out around it. With a cluster of one block it returns n = 0.
func (ip *Inode) Clusters(off, n int64) (int64, int64) {
	fs := ip.fs
	if fs.clusterRatio == 1 {
		return off, 0
	}
	mask := int64(fs.clusterRatio)<<fs.blockBits - 1
	lo := off &^ mask
	if n > math.MaxInt64-mask-off {
		return lo, math.MaxInt64&^mask - lo
	}
	return lo, (off+n+mask)&^mask - lo
}

// handedOutAround returns what of the unwritten blocks [lo, hi) was handed out to
// stay, and what lies before lo in the same piece. mapMu is held.
func (ip *Inode) handedOutAround(lo, hi uint64) (uint64, uint64) {
	rsv := ip.fm.rsv
	if i := ip.rsvSearch(lo); i < len(rsv) && rsv[i].out && uint64(rsv[i].lblk) <= lo {
		if rsv[i].direct {
			return lo, lo
		}
		return uint64(rsv[i].lblk), hi
	}
	for _, s := range ip.fm.busy {
		if s.lo <= lo && lo < s.hi {
			return lo, min(hi, s.hi)
		}
	}
	return lo, lo
}

// lastHandedOut returns the block after the last one before lblk that was handed
// out, 0 if there is none. mapMu is held.
func (ip *Inode) lastHandedOut(lblk uint64) (end uint64) {
	for _, r := range ip.fm.rsv {
		if r.out && r.end() <= lblk {
			end = r.end()
		}
	}
	for _, s := range ip.fm.busy {
		if s.hi <= lblk {
			end = max(end, s.hi)
		}
	}
	return end
}
