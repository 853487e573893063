package ext2fs

import (
	"errors"
	"fmt"
	"math"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/iomap"
	"github.com/e2kit/e2kit/lib/jbd2"
)

var (
	_ iomap.File       = (*Inode)(nil)
	_ iomap.InlineFile = (*Inode)(nil)
)

// exec returns what moves the bytes of files in process.
func (fs *FS) exec() iomap.Exec { return iomap.Exec{Dev: fs.dev, BlockSize: fs.blockSize} }

// MaxBytes returns the largest size that the inode can have.
func (ip *Inode) MaxBytes() int64 {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	return ip.maxBytes()
}

// maxBytes is MaxBytes; mapMu is held.
func (ip *Inode) maxBytes() int64 { return ip.fs.maxBytes(ip.isExtents()) }

// maxBytes returns the largest size of a file, mapped by extents or not. Without
// huge_file, i_blocks counts no more than 2^32 sectors, those of indirect blocks
// among them.
func (fs *FS) maxBytes(extents bool) int64 {
	blocks := uint64(ondisk.MaxLblk) + 1
	meta := uint64(0)
	if !extents {
		blocks = fs.indMax()
		n := uint64(1) << fs.indBits()
		meta = 3 + 2*n + n*n
	}
	if !fs.hasHugeFile {
		if most := uint64(math.MaxUint32) >> (fs.blockBits - 9); blocks+meta > most {
			blocks = most - min(meta, most/2)
		}
	}
	return int64(min(blocks<<fs.blockBits, math.MaxInt64&^uint64(fs.blockSize-1)))
}

// Begin implements iomap.File. For writes, blocks of a hole come from a
// reservation in memory: the answer is Unwritten and New, though on the device
// nothing is allocated before IOEnd. Until then the inode stays pinned. Holes
// and unwritten blocks of a file whose data is journaled or inline are answered
// as Inline.
//
// Begin, End and IOEnd lock the mapping, not the inode: the caller holds it, by
// ReadAt and WriteAt or in the kernel, against truncation.
func (ip *Inode) Begin(op iomap.Op, pos, count int64) (iomap.Pair, error) {
	fs := ip.fs
	if pos < 0 || count <= 0 || pos > math.MaxInt64-count {
		return iomap.Pair{}, syscall.EINVAL
	}
	first, last := uint64(pos)>>fs.blockBits, uint64(pos+count-1)>>fs.blockBits
	if first > uint64(ondisk.MaxLblk) {
		if op&iomap.Allocates != 0 {
			return iomap.Pair{}, syscall.EFBIG
		}
		// A size beyond what can be mapped is a hole there, walked in long steps.
		n := uint32(math.MaxUint32)
		return ip.pair(run{lblk: math.MaxUint32, n: n}, first), nil
	}
	lblk, n := ondisk.Lblk(first), uint32(min(last-first+1, rsvMost))
	ip.mapMu.RLock()
	if ip.noBlocks() || op&iomap.Report == 0 && ip.journalsData() {
		inline := ip.flag(ondisk.FlagInlineData) || !ip.noBlocks()
		if fs.kernelIO.On && ip.flag(ondisk.FlagInlineData) {
			p := ip.inlinePair(first)
			ip.mapMu.RUnlock()
			return p, nil
		}
		ip.mapMu.RUnlock()
		if !inline {
			return iomap.Pair{}, syscall.EINVAL // no file with data
		}
		var p iomap.Pair
		p.Read = iomap.Mapping{Offset: int64(first << fs.blockBits), Length: int64(last-first+1) << fs.blockBits,
			Addr: iomap.NullAddr, Type: iomap.Inline}
		p.Overwrite()
		return p, nil
	}
	var r run
	var err error
	if op&iomap.Allocates == 0 {
		r, err = ip.view(lblk)
	} else {
		r, err = ip.mapRun(lblk, 0)
	}
	ip.mapMu.RUnlock()
	if err != nil {
		return iomap.Pair{}, err
	}
	if op&iomap.Allocates == 0 || r.state == runWritten {
		return ip.pair(r, first), nil
	}
	if err := fs.writable(); err != nil {
		return iomap.Pair{}, err
	}
	for try := 0; ; {
		if r.state == runUnwritten {
			r, err = ip.beginUnwritten(op, count, lblk, n)
		} else {
			r, err = ip.beginHole(op, lblk, n)
			if err == errImplied {
				r.state = runUnwritten
				if err = ip.mapImplied(lblk); err == nil {
					continue
				}
			}
		}
		switch {
		case err == errRaced: // the state of the block has changed
			continue
		case errors.Is(err, syscall.ENOSPC) && fs.awaitFrees(try):
			try++
			continue
		case err != nil:
			return iomap.Pair{}, err
		}
		p := ip.pair(r, first)
		p.Read.Flags = r.flags
		return p, nil
	}
}

var (
	errRaced   = errors.New("raced")
	errImplied = errors.New("another block of the cluster is mapped") // see mapImplied
)

// Privileged is a bit of iomap.Op, of this package's own: the write may take the
// blocks that are kept for the super-user.
const Privileged iomap.Op = 1 << 30

// pair returns r, which begins with block first, as an answer.
func (ip *Inode) pair(r run, first uint64) (p iomap.Pair) {
	bits := ip.fs.blockBits
	p.Read = iomap.Mapping{Offset: int64(first << bits), Length: int64(r.n) << bits, Addr: iomap.NullAddr}
	if r.state != runHole {
		p.Read.Type, p.Read.Dev, p.Read.Addr = iomap.Mapped, iomap.MainDev, uint64(r.pblk)<<bits
		if r.state == runUnwritten {
			p.Read.Type = iomap.Unwritten
		}
	}
	p.Overwrite()
	return p
}

// beginHole is Begin for a write to a hole. With errRaced it returns what is
// there instead.
func (ip *Inode) beginHole(op iomap.Op, lblk ondisk.Lblk, n uint32) (run, error) {
	ip.mapMu.Lock()
	defer ip.mapMu.Unlock()
	r, err := ip.mapRun(lblk, 0)
	switch {
	case err != nil || r.state == runWritten:
		return r, err
	case r.state == runUnwritten:
		return r, errRaced
	case op&iomap.OverwriteOnly != 0:
		return r, syscall.EAGAIN
	case !ip.isExtents() && uint64(lblk) >= ip.fs.indMax():
		return r, syscall.EFBIG
	}
	// What is reserved ahead goes to the kernel with it, so that the next write of
	// a stream need not ask. Single direct writes get what they write.
	ahead := ip.fs.kernelIO.On && op&(iomap.Write|iomap.Fault) == iomap.Write && (op&iomap.Direct == 0 || ip.streams(lblk))
	r, err = ip.claim(op, lblk, n, r.n, ahead)
	r.flags = iomap.New
	return r, err
}

// claim returns reserved blocks for up to n blocks from lblk on, where a hole of
// hole blocks is; with ahead, all that are reserved there. op is what for. mapMu
// is held exclusively.
func (ip *Inode) claim(op iomap.Op, lblk ondisk.Lblk, n, hole uint32, ahead bool) (run, error) {
	n = min(n, hole)
	for try := 0; ; try++ {
		most := n
		if ahead {
			most = hole
		}
		if pblk, k := ip.rsvTake(lblk, most, op&iomap.Direct != 0 && !ahead); k > 0 {
			return run{lblk: lblk, pblk: pblk, n: k, state: runUnwritten}, nil
		}
		if try > 0 {
			return run{}, fmt.Errorf("reservation for block %d of inode %d is missing: %w", lblk, ip.ino, syscall.EIO)
		}
		if r, err := ip.implied(lblk); err != nil || r.n > 0 {
			if err == nil && ip.fs.kernelIO.On {
				err = errImplied
			}
			r.n = min(r.n, n)
			return r, err
		}
		if i := ip.rsvSearch(uint64(lblk)); i < len(ip.fm.rsv) {
			hole = uint32(min(uint64(hole), uint64(ip.fm.rsv[i].lblk)-uint64(lblk)))
		}
		if err := ip.rsvNew(lblk, uint64(min(n, hole)), uint64(hole), op&Privileged != 0); err != nil {
			return run{}, err
		}
	}
}

// implied returns the blocks that lblk, which is in a hole, and those after it
// have already, since another block of the cluster is mapped; n is 0 if none is.
// mapMu is held.
func (ip *Inode) implied(lblk ondisk.Lblk) (run, error) {
	ratio := uint64(ip.fs.clusterRatio)
	if ratio == 1 {
		return run{}, nil
	}
	start := uint64(lblk) &^ (ratio - 1)
	c, err := ip.clusterRun(start)
	if err != nil || c.n == 0 {
		return run{}, err
	}
	r := run{lblk: lblk, pblk: ondisk.Fsblk(uint64(c.pblk) - uint64(c.lblk) + uint64(lblk)),
		n: uint32(start + ratio - uint64(lblk)), state: runUnwritten}
	return r, nil
}

// zeroBlocks is how many blocks are zeroed and recorded as written when a small
// write goes to unwritten ones, so that dense small writes do not convert, and
// split, one extent each.
func (fs *FS) zeroBlocks() uint64 { return (64 << 10) >> fs.blockBits }

// streams says whether a write at lblk goes on where the last one that asked for
// blocks ended. mapMu is held.
func (ip *Inode) streams(lblk ondisk.Lblk) bool { return lblk > 0 && uint64(lblk) == ip.fm.next }

// beginUnwritten is Begin for a write of count bytes to blocks that are
// unwritten on disk. A stream by the kernel gets more of them, to be reported in
// large pieces; of small writes here and there only the first to a window is.
// With errRaced it returns what is there instead.
func (ip *Inode) beginUnwritten(op iomap.Op, count int64, lblk ondisk.Lblk, n uint32) (run, error) {
	fs := ip.fs
	ip.fm.zeroMu.Lock()
	defer ip.fm.zeroMu.Unlock()
	ip.mapMu.Lock()
	r, err := ip.mapRun(lblk, 0)
	if err != nil || r.state != runUnwritten {
		ip.mapMu.Unlock()
		if err == nil && r.state == runHole {
			err = errRaced
		}
		return r, err
	}
	w := fs.zeroBlocks()
	small := w > 1 && count < int64(w)<<fs.blockBits
	if fs.kernelIO.On && op&(iomap.Write|iomap.Fault) == iomap.Write && ip.streams(lblk) && !(small && op&iomap.Direct != 0) {
		n, small = max(n, uint32(rsvWindow>>fs.blockBits)), false
	}
	r.n = min(r.n, n)
	lo, hi := uint64(lblk), uint64(lblk)+uint64(r.n)
	ip.fm.next = hi
	if small {
		a, b, err := ip.zeroWindow(lo&^(w-1), (lo&^(w-1))+w, lblk)
		if err != nil {
			ip.mapMu.Unlock()
			return r, err
		}
		if a <= lo && b >= hi && b-a > hi-lo && !ip.isBusy(a, b) {
			base := uint64(r.pblk) - uint64(lblk)
			ip.fm.next = b
			ip.mapMu.Unlock()
			err := ip.zeroAndConvert(a, b, base)
			r.state = runWritten
			return r, err
		}
	}
	ip.busyAdd(lo, hi)
	ip.mapMu.Unlock()
	return r, nil
}

// zeroWindow cuts [a, b) to the unwritten extent that lblk is in, and to the
// size: beyond it there are no written blocks. mapMu is held.
func (ip *Inode) zeroWindow(a, b uint64, lblk ondisk.Lblk) (uint64, uint64, error) {
	e, err := ip.extBefore(lblk + 1) // the extent that starts at or before it
	if err != nil {
		return 0, 0, err
	}
	return max(a, uint64(e.lblk)), min(b, uint64(e.lblk)+uint64(e.n), ip.fs.blocksOf(ip.size())), nil
}

// zeroAndConvert zeroes the unwritten blocks [lo, hi), which nobody writes to,
// and records them as written. base is what maps them. fm.zeroMu is held.
func (ip *Inode) zeroAndConvert(lo, hi, base uint64) error {
	fs := ip.fs
	x := fs.exec()
	if err := x.ZeroDevice(int64((lo+base)<<fs.blockBits), int64(hi-lo)<<fs.blockBits); err != nil {
		return err
	}
	h, err := fs.start(creditsData)
	if err != nil {
		return err
	}
	ip.mapMu.Lock()
	for err == nil && lo < hi {
		lo, err = ip.extConvert(h, lo, hi, false)
	}
	if e := ip.storeData(h); err == nil {
		err = e
	}
	ip.mapMu.Unlock()
	return stop(h, err)
}

// stop ends h and returns err, or what goes wrong.
func stop(h *jbd2.Handle, err error) error {
	if e := h.Stop(); err == nil {
		err = e
	}
	return err
}

// storeData is store for a change that fdatasync waits for.
func (ip *Inode) storeData(h *jbd2.Handle) error {
	err := ip.store(h)
	ip.dataSyncTid.Store(uint32(h.Tid()))
	return err
}

// End implements iomap.File. What was reserved for direct I/O and not used is
// given back. Other reservations stay until the inode is released or cut: pages
// that are dirty, or being written back, may be on their way to them, though this
// write did not use them.
func (ip *Inode) End(op iomap.Op, pos, count, written int64, _ iomap.Mapping) error {
	if op&(iomap.Write|iomap.Direct) != iomap.Write|iomap.Direct || pos < 0 || count <= 0 || written >= count || pos > math.MaxInt64-count {
		return nil
	}
	ip.mapMu.Lock()
	ip.rsvUnused(ip.fs.blocksOf(pos+max(written, 0)), ip.fs.blocksOf(pos+count))
	ip.mapMu.Unlock()
	return nil
}

// IOEnd implements iomap.File: in one transaction the blocks become the file's,
// written, and the size reaches the end of the write. Large ranges in many
// pieces may take several, each of which leaves a file that is right up to
// there. Times are not changed.
func (ip *Inode) IOEnd(e iomap.IOEnd) (int64, error) { return ip.ioEnd(e, false) }

// ioEnd is IOEnd; with touch it sets the times too.
func (ip *Inode) ioEnd(e iomap.IOEnd, touch bool) (int64, error) {
	fs := ip.fs
	if e.Flags&iomap.EndSwapoff != 0 {
		return ip.Size(), nil
	}
	if e.Pos < 0 || e.Written < 0 || e.Pos > math.MaxInt64-e.Written ||
		uint64(e.Pos+e.Written) > (uint64(ondisk.MaxLblk)+1)<<fs.blockBits {
		return 0, syscall.EINVAL
	}
	lo, end := uint64(e.Pos)>>fs.blockBits, e.Pos+e.Written
	hi := fs.blocksOf(end)
	if e.Err != nil {
		// Unwritten blocks stay busy, as the kernel may still know them by a mapping.
		if e.Flags&iomap.EndDirect != 0 {
			ip.mapMu.Lock()
			ip.rsvUnused(lo, hi)
			ip.mapMu.Unlock()
		}
		return 0, e.Err
	}
	if e.Written == 0 {
		return ip.Size(), nil
	}
	h, err := fs.start(creditsData)
	if err != nil {
		return 0, err
	}
	ip.mapMu.Lock()
	all := lo
	for err == nil && lo < hi {
		if !fs.have(h, creditsData) {
			if err = ip.storeData(h); err != nil {
				break
			}
			ip.mapMu.Unlock()
			err = h.Restart(creditsData)
			ip.mapMu.Lock()
			if err != nil {
				break
			}
		}
		var to uint64
		if to, err = ip.land(h, lo, hi); to > lo {
			lo = to
			if e := ip.grow(h, min(end, int64(lo<<fs.blockBits))); err == nil {
				err = e
			}
		}
	}
	ip.busyDone(all, hi)
	size := ip.size()
	if touch {
		t := fs.now()
		ip.raw.SetMtime(t)
		ip.raw.SetCtime(t)
	}
	if e := ip.storeData(h); err == nil {
		err = e
	}
	ip.mapMu.Unlock()
	if err = stop(h, err); err != nil {
		return 0, err
	}
	return size, nil
}

// errNoBlocks says that a write ended for which nothing was reserved.
var errNoBlocks = errors.New("a write was reported that was not begun")

// land makes the blocks at lo, of which data has been written up to hi, part of
// the file. It returns the block after those it dealt with. mapMu is held
// exclusively.
func (ip *Inode) land(h *jbd2.Handle, lo, hi uint64) (uint64, error) {
	r, err := ip.mapRun(ondisk.Lblk(lo), uint32(min(hi-lo, rsvMost)))
	if err != nil {
		return lo, err
	}
	switch r.state {
	case runWritten:
		return lo + uint64(r.n), nil
	case runUnwritten:
		return ip.extConvert(h, lo, lo+uint64(r.n), false)
	}
	c, rerr := ip.rsvPeek(r.lblk)
	reserved := c.n > 0
	if !reserved {
		if c, err = ip.implied(r.lblk); err != nil {
			return lo, err
		}
		if c.n == 0 {
			return lo, fmt.Errorf("block %d of inode %d: %w (%w)", lo, ip.ino, errNoBlocks, rerr)
		}
	}
	n := min(r.n, c.n, ondisk.MaxUnwrittenLen)
	switch {
	case reserved && ip.wholeClusters():
		// They are written next.
		return lo, ip.insertClusters(h, r.lblk, c.pblk, n)
	case reserved:
		n, err = ip.insertReserved(h, r.lblk, c.pblk, n, false)
	default:
		n, err = ip.insertSome(h, r.lblk, c.pblk, n, false)
	}
	return lo + uint64(n), err
}

// rsvPeek returns what is reserved from lblk on; EIO, for a message, and n = 0 if
// nothing is. mapMu is held.
func (ip *Inode) rsvPeek(lblk ondisk.Lblk) (run, error) {
	i := ip.rsvSearch(uint64(lblk))
	if i == len(ip.fm.rsv) || ip.fm.rsv[i].lblk > lblk {
		return run{}, syscall.EIO
	}
	r := &ip.fm.rsv[i]
	in := uint32(lblk - r.lblk)
	return run{lblk: lblk, pblk: r.pblk + ondisk.Fsblk(in), n: r.n - in}, nil
}

// grow raises the size to size, if it is less. mapMu is held exclusively; the
// caller stores the inode.
func (ip *Inode) grow(h *jbd2.Handle, size int64) error {
	if size <= ip.size() {
		return nil
	}
	ip.raw.SetSize(size)
	return ip.fs.needLargeFile(h, size)
}
