package ext2fs

import (
	"bytes"
	"sync"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// truncateTo is resize with nothing else to change.
func (ip *Inode) truncateTo(size int64) error { return ip.resize(size, nil) }

// resize sets the size to size and frees the blocks beyond, those that were
// allocated beyond the size too; mtime and ctime become now. The transaction
// that sets the size makes all that set asks for, unless that is nil. If freeing
// takes more than one transaction the inode is on the orphan list meanwhile, so
// that the next mount goes on after a crash. Bytes after the size read as zeros
// if the file grows again. It fails with EFBIG. mu is held exclusively, no
// handle is open.
func (ip *Inode) resize(size int64, set *SetAttr) error {
	fs := ip.fs
	if size < 0 {
		return syscall.EINVAL
	}
	if err := fs.writable(); err != nil {
		return err
	}
	if fs.hasInlineData {
		if done, err := ip.inlineTruncate(size, set); done || err != nil {
			return err
		}
	}
	ip.mapMu.RLock()
	most, old, none := ip.maxBytes(), ip.size(), ip.noBlocks()
	ip.mapMu.RUnlock()
	switch {
	case none && size == old:
		if set == nil {
			return nil
		}
		h, err := ip.startResize(creditsInode, set)
		if err != nil {
			return err
		}
		return h.Stop()
	case none:
		return syscall.EINVAL
	case size > most:
		return syscall.EFBIG
	case size > old:
		return ip.extend(old, size, set)
	}
	tail, err := ip.copyTail(size, old)
	if err != nil {
		return err
	}
	h, err := ip.startResize(creditsRemove+2*creditsOrphan+creditsData, set)
	if err != nil {
		tail.drop(ip)
		return err
	}
	ip.mapMu.Lock()
	ip.raw.SetSize(size)
	ip.resized(set)
	lo := fs.blocksOf(size)
	ip.rsvDrop(lo, 1<<32)
	err = tail.put(ip, h)
	next := uint64(1 << 32)
	if err == nil {
		next, err = ip.removeRuns(h, lo, next)
	}
	if e := ip.storeData(h); err == nil {
		err = e
	}
	ip.mapMu.Unlock()
	if err != nil || next == lo {
		return stop(h, err)
	}
	if err = fs.orphanAdd(h, ip); err == nil {
		err = ip.removeMore(h, lo, next)
	}
	if err == nil && ip.named() {
		err = fs.orphanDel(h, ip)
	}
	return stop(h, err)
}

// startResize starts the handle that sets the size, and makes the other changes
// of set in it: they may fail for want of space, so they come first.
func (ip *Inode) startResize(credits int, set *SetAttr) (*jbd2.Handle, error) {
	if set == nil {
		return ip.fs.start(credits)
	}
	h, err := ip.fs.start(credits + creditsInode + ip.xattrCredits(0))
	if err != nil {
		return nil, err
	}
	if err := ip.setattr(h, set); err != nil {
		return nil, stop(h, err)
	}
	return h, nil
}

// resized sets the times of a change of size. mapMu is held exclusively.
func (ip *Inode) resized(set *SetAttr) {
	now := ip.fs.now()
	mtime, ctime := now, now
	if set != nil && set.Valid&SetMtime != 0 {
		mtime = set.Mtime
	}
	if set != nil && set.Valid&SetCtime != 0 {
		ctime = set.Ctime
	}
	ip.raw.SetMtime(mtime)
	ip.raw.SetCtime(ctime)
}

// named says whether the inode has a name; if not, it is an orphan anyway.
func (ip *Inode) named() bool {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	return ip.nlink() != 0
}

// removeMore goes on with a removal that did not fit one transaction. When it
// returns nil, h has credits for orphanDel and the inode.
func (ip *Inode) removeMore(h *jbd2.Handle, lo, next uint64) error {
	for next > lo {
		if err := h.Restart(creditsRemove + 2*creditsOrphan + creditsInode); err != nil {
			return err
		}
		ip.mapMu.Lock()
		var err error
		next, err = ip.removeRuns(h, lo, next)
		if e := ip.storeData(h); err == nil {
			err = e
		}
		ip.mapMu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// extend raises the size from old to size, as resize does.
func (ip *Inode) extend(old, size int64, set *SetAttr) error {
	fs := ip.fs
	// What lies behind the size in its block may be anything.
	if err := ip.zeroPart(old, min(size, int64(fs.blocksOf(old)<<fs.blockBits))-old); err != nil {
		return err
	}
	h, err := ip.startResize(creditsInode+creditsSuper, set)
	if err != nil {
		return err
	}
	ip.mapMu.Lock()
	ip.resized(set)
	err = ip.grow(h, size)
	if e := ip.storeData(h); err == nil {
		err = e
	}
	ip.mapMu.Unlock()
	return stop(h, err)
}

// freeAllBlocks frees all blocks of a file that is evicted, in handles of its
// own. The inode is on the orphan list and stays there; nobody uses it.
func (ip *Inode) freeAllBlocks() error {
	fs := ip.fs
	ip.dropMap()
	ip.mapMu.Lock()
	none := ip.noBlocks() || ip.unmapped()
	ip.mapMu.Unlock()
	if none {
		return nil
	}
	h, err := fs.start(creditsRemove + 2*creditsOrphan + creditsInode)
	if err != nil {
		return err
	}
	ip.mapMu.Lock()
	next, err := ip.removeRuns(h, 0, 1<<32)
	if e := ip.storeData(h); err == nil {
		err = e
	}
	ip.mapMu.Unlock()
	if err == nil {
		err = ip.removeMore(h, 0, next)
	}
	return stop(h, err)
}

// newTail is a copy of the last block of a file that is made shorter, with zeros
// after the size. A crash shows the old block under the old size or this one
// under the new size, and never zeros in what was synced.
type newTail struct {
	lblk ondisk.Lblk
	pblk ondisk.Fsblk // reserved; 0 if there is no copy
	zero int          // journaled data: to be zeroed from here on, in the same transaction
}

var tailBufs = sync.Pool{New: func() any { return new([ondisk.MaxBlockSize]byte) }}

// copyTail writes the copy, if the block holds data behind size. Where a block
// cannot be moved, or none is free, the bytes are zeroed in place.
func (ip *Inode) copyTail(size, old int64) (t newTail, err error) {
	fs := ip.fs
	in := int(size & int64(fs.blockSize-1))
	if in == 0 || size == old || ip.KernelMapped() { // the kernel has zeroed it
		return t, nil
	}
	t.lblk = ondisk.Lblk(size >> fs.blockBits)
	ip.mapMu.RLock()
	r, err := ip.mapRun(t.lblk, 1)
	jdata := ip.journalsData()
	ip.mapMu.RUnlock()
	switch {
	case err != nil || r.state != runWritten:
		return t, err
	case jdata:
		t.zero = in
		return t, nil
	}
	buf := tailBufs.Get().(*[ondisk.MaxBlockSize]byte)
	defer tailBufs.Put(buf)
	b := buf[:fs.blockSize]
	if _, err := fs.dev.ReadAt(b, int64(r.pblk)<<fs.blockBits); err != nil {
		return t, err
	}
	if len(bytes.Trim(b[in:], "\x00")) == 0 {
		return t, nil
	}
	clear(b[in:])
	at := r.pblk
	if fs.clusterRatio == 1 {
		if start, _, err := fs.reserveNow(r.pblk, 1, 1, fs.floor(true)); err == nil {
			at, t.pblk = start, start
		}
	}
	fs.dataMu.RLock()
	_, err = fs.dev.WriteAt(b, int64(at)<<fs.blockBits)
	fs.dataMu.RUnlock()
	if err != nil {
		t.drop(ip)
		return t, err
	}
	return t, nil
}

// drop gives the copy up.
func (t *newTail) drop(ip *Inode) {
	if t.pblk != 0 {
		ip.fs.unreserve(t.pblk, 1)
		t.pblk = 0
	}
}

// put maps the copy instead of the block. mapMu is held exclusively.
func (t *newTail) put(ip *Inode, h *jbd2.Handle) error {
	switch {
	case t.zero > 0:
		return ip.journalBlock(h, t.lblk, t.zero, make([]byte, ip.fs.blockSize-t.zero), true)
	case t.pblk == 0:
		return nil
	}
	lo := uint64(t.lblk)
	if next, err := ip.removeRuns(h, lo, lo+1); err != nil || next != lo {
		t.drop(ip)
		if err == nil {
			err = syscall.EIO // a fresh handle has the credits for one block
		}
		return err
	}
	if err := ip.fs.commitReserved(h, t.pblk, 1); err != nil {
		return err
	}
	ip.addBlocks(1)
	return ip.insertRun(h, t.lblk, t.pblk, 1, false)
}
