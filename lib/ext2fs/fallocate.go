package ext2fs

import (
	"errors"
	"math"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// Modes of Fallocate, by their Linux numbers.
const (
	FallocKeepSize  = 0x01
	FallocPunchHole = 0x02
	FallocCollapse  = 0x08
	FallocZeroRange = 0x10
	FallocInsert    = 0x20

	// FallocPrivileged, which is not Linux's, may be added to any mode: blocks
	// that are kept for the super-user may be taken.
	FallocPrivileged = 1 << 31
)

// Fallocate changes the blocks of n bytes at off as fallocate(2) does by mode:
// it allocates them, unwritten; punches a hole; makes them read as zeros without
// I/O; takes them out of the file, or pushes a hole in. mtime and ctime become
// now. Errors are those of Linux: EINVAL, EFBIG, ENOSPC, EISDIR, ENODEV, and
// EOPNOTSUPP for modes, or combinations, that the mapping of the file cannot
// have. If it fails half way, what has been done stays.
func (ip *Inode) Fallocate(mode uint32, off, n int64) error {
	fs := ip.fs
	if off < 0 || n <= 0 {
		return syscall.EINVAL
	}
	priv := mode&FallocPrivileged != 0
	mode &^= FallocPrivileged
	const all = FallocKeepSize | FallocPunchHole | FallocCollapse | FallocZeroRange | FallocInsert
	switch {
	case mode&^all != 0,
		mode&FallocPunchHole != 0 && mode&FallocZeroRange != 0,
		mode&FallocPunchHole != 0 && mode&FallocKeepSize == 0:
		return syscall.EOPNOTSUPP
	case mode&FallocCollapse != 0 && mode != FallocCollapse,
		mode&FallocInsert != 0 && mode != FallocInsert:
		return syscall.EINVAL
	}
	switch ip.ftype() {
	case ondisk.ModeReg:
	case ondisk.ModeDir:
		return syscall.EISDIR
	case ondisk.ModeFIFO:
		return syscall.ESPIPE
	default:
		return syscall.ENODEV
	}
	if err := firstErr(fs.writable(), ip.mayWrite()); err != nil {
		return err
	}
	ip.mu.Lock()
	defer ip.mu.Unlock()
	switch {
	case ip.flagged(ondisk.FlagImmutable), mode&^FallocKeepSize != 0 && ip.flagged(ondisk.FlagAppend):
		return syscall.EPERM
	}
	if off > math.MaxInt64-n || off+n > fs.maxBytes(true) {
		return syscall.EFBIG
	}
	if ip.flagged(ondisk.FlagInlineData) {
		if err := ip.inlineConvert(); err != nil {
			return err
		}
	}
	extents := ip.flagged(ondisk.FlagExtents)
	if !extents && mode&FallocPunchHole == 0 {
		return syscall.EOPNOTSUPP
	}
	var err error
	switch {
	case mode&FallocPunchHole != 0:
		err = ip.punch(off, n)
	case mode == FallocCollapse:
		err = ip.collapse(off, n)
	case mode == FallocInsert:
		err = ip.insertRange(off, n)
	case mode&FallocZeroRange != 0:
		err = ip.zeroUnwritten(off, off+n, mode&FallocKeepSize != 0, priv)
	default:
		err = ip.preallocate(off, off+n, mode&FallocKeepSize != 0, priv)
	}
	if err == nil && (fs.opts.Sync || ip.syncs()) {
		err = ip.Fsync(false)
	}
	return err
}

// flagged is flag, without mapMu held.
func (ip *Inode) flagged(bits uint32) bool {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	return ip.flag(bits)
}

// update runs f, which changes the mapping by steps, in as many transactions as
// it takes: f is called again until it says that it is done. At each return the
// inode is as it may be after a crash. The times are set with the last. f has
// mapMu, and credits.
func (ip *Inode) update(credits int, f func(h *jbd2.Handle) (done bool, err error)) error {
	fs := ip.fs
	h, err := fs.start(credits)
	if err != nil {
		return err
	}
	for try := 0; ; {
		ip.mapMu.Lock()
		done, err := f(h)
		if done || err != nil {
			now := fs.now()
			ip.raw.SetMtime(now)
			ip.raw.SetCtime(now)
		}
		if e := ip.storeData(h); err == nil {
			err = e
		}
		ip.mapMu.Unlock()
		if errors.Is(err, syscall.ENOSPC) && fs.pending.Load() > 0 && try < 2 {
			// Blocks that were freed come free with a commit.
			if err := h.Stop(); err != nil {
				return err
			}
			again := fs.awaitFrees(try)
			try++
			if h, err = fs.start(credits); err != nil {
				return err
			}
			if again {
				continue
			}
			return stop(h, syscall.ENOSPC)
		}
		if done || err != nil {
			return stop(h, err)
		}
		if err := h.Restart(credits); err != nil {
			return stop(h, err)
		}
	}
}

// preallocate allocates the holes of [off, end), unwritten, and raises the size
// unless keep is set.
func (ip *Inode) preallocate(off, end int64, keep, rsvOK bool) error {
	fs := ip.fs
	if old := ip.Size(); !keep && end > old {
		if err := ip.zeroPart(old, min(end, int64(fs.blocksOf(old)<<fs.blockBits))-old); err != nil {
			return err
		}
	}
	lo, hi := uint64(off)>>fs.blockBits, fs.blocksOf(end)
	return ip.update(creditsData, func(h *jbd2.Handle) (bool, error) {
		for lo < hi {
			if !fs.have(h, creditsData) {
				return false, nil
			}
			var err error
			if lo, err = ip.allocHole(h, lo, hi, rsvOK); err != nil {
				return false, err
			}
			if !keep {
				if err := ip.grow(h, min(end, int64(lo<<fs.blockBits))); err != nil {
					return false, err
				}
			}
		}
		return true, nil
	})
}

// allocHole allocates what of [lo, hi) is in the first hole, or a part of it. It
// returns the block after what it looked at. mapMu is held exclusively.
func (ip *Inode) allocHole(h *jbd2.Handle, lo, hi uint64, rsvOK bool) (uint64, error) {
	r, err := ip.mapRun(ondisk.Lblk(lo), uint32(min(hi-lo, ondisk.MaxUnwrittenLen)))
	if err != nil {
		return lo, err
	}
	if r.state != runHole {
		return lo + uint64(r.n), nil
	}
	c, _ := ip.rsvPeek(r.lblk)
	reserved := c.n > 0
	if !reserved {
		if c, err = ip.implied(r.lblk); err != nil {
			return lo, err
		}
	}
	if c.n == 0 {
		hole, err := ip.mapRun(r.lblk, 0)
		if err != nil {
			return lo, err
		}
		room := uint64(hole.n)
		if i := ip.rsvSearch(lo); i < len(ip.fm.rsv) {
			room = min(room, uint64(ip.fm.rsv[i].lblk)-lo)
		}
		if err := ip.rsvNew(r.lblk, min(uint64(r.n), room), room, rsvOK); err != nil {
			return lo, err
		}
		c, err = ip.rsvPeek(r.lblk)
		if err != nil {
			return lo, err
		}
		reserved = true
	}
	n := min(r.n, c.n)
	switch {
	case reserved && ip.wholeClusters():
		if err := ip.insertClusters(h, r.lblk, c.pblk, n); err != nil {
			return lo, err
		}
	case reserved:
		n, err = ip.insertReserved(h, r.lblk, c.pblk, n, true)
	default:
		n, err = ip.insertSome(h, r.lblk, c.pblk, n, true)
	}
	return lo + uint64(n), err
}

// punch frees the whole blocks of n bytes at off, and zeroes the rest of them.
// What lies after the block of the size stays.
func (ip *Inode) punch(off, n int64) error {
	fs := ip.fs
	size := ip.Size()
	if off >= size && !fs.opts.Offline { // a mount leaves alone what is preallocated there
		return nil
	}
	page := int64(max(fs.blockSize, 4096))
	end := off + n
	if end > size && !ip.KernelMapped() && !fs.opts.Offline { // it keeps track of the whole blocks in the range only
		end = (size + page - 1) &^ (page - 1)
	}
	mask := int64(fs.blockSize - 1)
	lo, hi := fs.blocksOf(off), uint64(end)>>fs.blockBits
	if err := ip.zeroEdges(off, end, mask); err != nil {
		return err
	}
	if lo >= hi {
		return ip.update(creditsInode, func(*jbd2.Handle) (bool, error) { return true, nil })
	}
	return ip.removeSteps(lo, hi)
}

// zeroEdges zeroes what [off, end) covers of blocks in part.
func (ip *Inode) zeroEdges(off, end, mask int64) error {
	if off&^mask == end&^mask {
		if off&mask == 0 && end&mask == 0 {
			return nil
		}
		return ip.zeroPart(off, end-off)
	}
	if off&mask != 0 {
		if err := ip.zeroPart(off, mask+1-off&mask); err != nil {
			return err
		}
	}
	return ip.zeroPart(end&^mask, end&mask)
}

// removeSteps frees the blocks of [lo, hi).
func (ip *Inode) removeSteps(lo, hi uint64) error {
	ip.mapMu.Lock()
	ip.rsvDrop(lo, hi)
	ip.mapMu.Unlock()
	return ip.update(creditsRemove+creditsOrphan+creditsInode, func(h *jbd2.Handle) (bool, error) {
		var err error
		hi, err = ip.removeRuns(h, lo, hi)
		return hi == lo, err
	})
}

// zeroUnwritten makes [off, end) read as zeros and allocated: whole blocks
// become unwritten.
func (ip *Inode) zeroUnwritten(off, end int64, keep, rsvOK bool) error {
	fs := ip.fs
	mask := int64(fs.blockSize - 1)
	if err := ip.zeroEdges(off, end, mask); err != nil {
		return err
	}
	if err := ip.preallocate(off, end, keep, rsvOK); err != nil {
		return err
	}
	lo, hi := fs.blocksOf(off), uint64(end)>>fs.blockBits
	if lo >= hi {
		return nil
	}
	return ip.update(creditsData, func(h *jbd2.Handle) (bool, error) {
		for lo < hi {
			if !fs.have(h, creditsData) {
				return false, nil
			}
			var err error
			if lo, err = ip.extConvert(h, lo, hi, true); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}
