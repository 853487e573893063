package ext2fs

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// An inode that has lost its last name but not its last user, or that is being
// truncated, is an orphan: the next mount after a crash finishes the work. Which
// inodes are orphans stands in a list (the superblock has the first, and each
// inode's i_dtime the next), or, with the feature orphan_file, in the blocks of a
// file, where they do not all go through the superblock.
//
// i_dtime belongs to this list while an inode is in it, so the copy in the
// inode table is what counts: an inode's neighbour in the list changes it
// without touching the inode otherwise.

// orphanEntry says where an orphan stands.
type orphanEntry struct {
	prev, next ondisk.Ino // in the list; 0 at its ends
	slot       int64      // in the orphan file, -1 if in the list
}

// orphans are the orphan list and orphan file in memory.
type orphans struct {
	by    map[ondisk.Ino]*orphanEntry
	file  *Inode // the orphan file, nil without the feature
	free  []int  // free slots of each block of the file
	start int    // block to look for a free slot first
}

func (o *orphans) empty() bool { return len(o.by) == 0 }

// slotsPerBlock returns how many inode numbers a block of the orphan file has.
func (fs *FS) slotsPerBlock() int { return (fs.blockSize - ondisk.OrphanTailSize) / 4 }

// opsOrphan is a block of the orphan file. Ctx.Seed is the file's seed.
type orphanOps struct{ csum bool }

func (o orphanOps) Name() string { return "orphan file block" }

// Verify implements buffer.Ops.
func (o orphanOps) Verify(data []byte, blk buffer.Block, ctx buffer.Ctx) error {
	err := ondisk.VerifyOrphanBlock(data, ctx.Seed, ondisk.Fsblk(blk), o.csum)
	return ondisk.At(err, ondisk.Ino(ctx.Ino), ondisk.Fsblk(blk))
}

// Seal implements buffer.Ops.
func (o orphanOps) Seal(data []byte, blk buffer.Block, ctx buffer.Ctx) {
	if o.csum {
		ondisk.SealOrphanBlock(data, ctx.Seed, ondisk.Fsblk(blk))
	}
}

func (fs *FS) opsOrphan() buffer.Ops { return orphanOps{fs.hasCsum} }

// isOrphan tells whether ino is in the list or the file.
func (fs *FS) isOrphan(ino ondisk.Ino) bool {
	fs.orphanMu.Lock()
	defer fs.orphanMu.Unlock()
	return fs.orphan.by[ino] != nil
}

// Orphans returns how many inodes have no name and are not freed, or are being
// truncated.
func (fs *FS) Orphans() int {
	fs.orphanMu.Lock()
	defer fs.orphanMu.Unlock()
	return len(fs.orphan.by)
}

// orphanAdd makes ip an orphan in h's transaction, unless it is one. At most
// creditsOrphan blocks change.
func (fs *FS) orphanAdd(h *jbd2.Handle, ip *Inode) error {
	fs.orphanMu.Lock()
	defer fs.orphanMu.Unlock()
	o := &fs.orphan
	if o.by == nil {
		o.by = make(map[ondisk.Ino]*orphanEntry)
	}
	if o.by[ip.ino] != nil {
		return nil
	}
	if o.file != nil {
		slot, err := fs.takeOrphanSlot(h, ip.ino)
		if err != nil {
			return err
		}
		if slot >= 0 {
			o.by[ip.ino] = &orphanEntry{slot: slot}
			return nil
		}
	}
	next := ondisk.Ino(fs.sb.LastOrphan.Get())
	if err := fs.setDtime(h, ip.ino, uint32(next)); err != nil {
		return err
	}
	if err := fs.setLastOrphan(h, ip.ino); err != nil {
		return err
	}
	o.by[ip.ino] = &orphanEntry{next: next, slot: -1}
	if e := o.by[next]; e != nil {
		e.prev = ip.ino
	}
	return nil
}

// setLastOrphan stores the head of the list.
func (fs *FS) setLastOrphan(h *jbd2.Handle, ino ondisk.Ino) error {
	if err := fs.touchSuper(h); err != nil {
		return err
	}
	fs.sbMu.Lock()
	fs.sb.LastOrphan.Set(uint32(ino))
	fs.sbMu.Unlock()
	return nil
}

// orphanDel makes ip an orphan no more, in h's transaction. At most
// creditsOrphan blocks change.
func (fs *FS) orphanDel(h *jbd2.Handle, ip *Inode) error {
	fs.orphanMu.Lock()
	defer fs.orphanMu.Unlock()
	o := &fs.orphan
	e := o.by[ip.ino]
	if e == nil {
		return nil
	}
	if e.slot >= 0 {
		if err := fs.putOrphanSlot(h, e.slot); err != nil {
			return err
		}
		delete(o.by, ip.ino)
		return nil
	}
	var err error
	if e.prev == 0 {
		err = fs.setLastOrphan(h, e.next)
	} else {
		err = fs.setDtime(h, e.prev, uint32(e.next))
	}
	if err == nil {
		err = fs.setDtime(h, ip.ino, 0)
	}
	if err != nil {
		return err
	}
	if p := o.by[e.prev]; p != nil {
		p.next = e.next
	}
	if n := o.by[e.next]; n != nil {
		n.prev = e.prev
	}
	delete(o.by, ip.ino)
	return nil
}

// takeOrphanSlot puts ino into the orphan file; -1 if it is full.
func (fs *FS) takeOrphanSlot(h *jbd2.Handle, ino ondisk.Ino) (int64, error) {
	o := &fs.orphan
	per := fs.slotsPerBlock()
	for i := range o.free {
		k := (o.start + i) % len(o.free)
		if o.free[k] == 0 {
			continue
		}
		b, err := o.file.dirBlock(ondisk.Lblk(k), fs.opsOrphan())
		if err != nil {
			return -1, err
		}
		if b == nil {
			continue
		}
		ptr := endian.Views[endian.LE32](b.Data(), per)
		for s := range ptr {
			if ptr[s].Get() != 0 {
				continue
			}
			if err = h.GetWrite(b); err == nil {
				ptr[s].Set(uint32(ino))
				h.Dirty(b)
				o.free[k]--
				o.start = k
			}
			b.Put()
			return int64(k)*int64(per) + int64(s), err
		}
		o.free[k] = 0
		b.Put()
	}
	return -1, nil
}

// putOrphanSlot empties a slot of the orphan file.
func (fs *FS) putOrphanSlot(h *jbd2.Handle, slot int64) error {
	per := int64(fs.slotsPerBlock())
	b, err := fs.orphan.file.dirBlock(ondisk.Lblk(slot/per), fs.opsOrphan())
	if err != nil {
		return err
	}
	if b == nil {
		return ondisk.At(ondisk.Corrupt("orphan file", 0, "no block %d", slot/per), fs.orphan.file.ino, 0)
	}
	defer b.Put()
	if err := h.GetWrite(b); err != nil {
		return err
	}
	endian.Views[endian.LE32](b.Data(), int(per))[slot%per].Set(0)
	h.Dirty(b)
	fs.orphan.free[slot/per]++
	return nil
}

// openOrphanFile reads the orphan file, and returns what inodes it names.
func (fs *FS) openOrphanFile() ([]ondisk.Ino, error) {
	ino := ondisk.Ino(fs.sb.OrphanFileInum.Get())
	bad := func(format string, args ...any) error {
		return fs.corrupt(ino, ondisk.Corrupt("orphan file", 0, format, args...))
	}
	if ino < fs.firstIno {
		return nil, bad("inode %d", ino)
	}
	ip, err := fs.iget(ino, igetSpecial)
	if err != nil {
		return nil, fmt.Errorf("orphan file: %w", err)
	}
	n := fs.blocksOf(ip.size())
	// The kernel's limit; more would only be read at each mount.
	if !ip.isReg() || ip.size() > 8<<20 || n == 0 {
		ip.Put()
		return nil, bad("mode %#o, size %d", ip.mode(), ip.size())
	}
	o := &fs.orphan
	o.file = ip
	o.by = make(map[ondisk.Ino]*orphanEntry)
	o.free = make([]int, n)
	per := fs.slotsPerBlock()
	var list []ondisk.Ino
	for k := range o.free {
		b, err := ip.dirBlock(ondisk.Lblk(k), fs.opsOrphan())
		if err != nil {
			return nil, fs.corrupt(ino, err)
		}
		if b == nil {
			return nil, bad("no block %d", k)
		}
		ptr := endian.Views[endian.LE32](b.Data(), per)
		for s := range ptr {
			x := ondisk.Ino(ptr[s].Get())
			if x == 0 {
				o.free[k]++
				continue
			}
			if o.by[x] == nil {
				o.by[x] = &orphanEntry{slot: int64(k)*int64(per) + int64(s)}
				list = append(list, x)
			}
		}
		b.Put()
	}
	return list, nil
}

// recoverOrphans finishes what a crash has interrupted: it frees inodes without
// names and truncates others to their size.
func (fs *FS) recoverOrphans() error {
	var list []ondisk.Ino
	if fs.hasOrphanFile {
		var err error
		if list, err = fs.openOrphanFile(); err != nil {
			return err
		}
	}
	o := &fs.orphan
	if o.by == nil {
		o.by = make(map[ondisk.Ino]*orphanEntry)
	}
	if fs.sb.State.Get()&ondisk.StateError != 0 && fs.sb.LastOrphan.Get() != 0 {
		// As the kernel does: with errors the list cannot be trusted.
		fs.log.Warn("the file system has errors: the orphan list is dropped")
		if err := fs.cutOrphanList(0); err != nil {
			return err
		}
	}
	var prev ondisk.Ino
	for ino := ondisk.Ino(fs.sb.LastOrphan.Get()); ino != 0; {
		next, err := fs.orphanNext(ino)
		if err == nil && o.by[ino] != nil {
			err = ondisk.Corrupt("orphan list", 0, "inode %d is in it twice", ino)
		}
		if err != nil {
			// What follows cannot be found; it is left to a check.
			fs.log.Error("orphan list", "err", fs.corrupt(ino, err))
			if e := fs.cutOrphanList(prev); e != nil {
				return e
			}
			break
		}
		o.by[ino] = &orphanEntry{prev: prev, next: next, slot: -1}
		if e := o.by[prev]; e != nil {
			e.next = ino
		}
		list = append(list, ino)
		prev, ino = ino, next
	}
	for _, ino := range list {
		if err := fs.recoverOrphan(ino); err != nil {
			if fs.writable() != nil {
				return err
			}
			fs.log.Error("orphan inode", "inode", ino, "err", err)
		}
	}
	if len(list) > 0 {
		fs.log.Info("orphan inodes recovered", "count", len(list))
	}
	return nil
}

// orphanNext returns the inode after ino in the list.
func (fs *FS) orphanNext(ino ondisk.Ino) (ondisk.Ino, error) {
	if ino < fs.firstIno || uint32(ino) > fs.inodes {
		return 0, ondisk.Corrupt("orphan list", 0, "inode number %d", ino)
	}
	if used, err := fs.inodeUsed(ino); err != nil || !used {
		if err == nil {
			err = ondisk.Corrupt("orphan list", 0, "inode %d is not in use", ino)
		}
		return 0, err
	}
	b, slot, err := fs.readItable(ino)
	if err != nil {
		return 0, err
	}
	defer b.Put()
	if err := fs.checkInode(slot, ino); err != nil {
		return 0, err
	}
	next := slot.Base().Dtime.Get()
	if next > fs.inodes {
		return 0, ondisk.Corrupt("orphan list", 0, "inode number %d after %d", next, ino)
	}
	return ondisk.Ino(next), nil
}

// cutOrphanList ends the list after prev, 0 for an empty one.
func (fs *FS) cutOrphanList(prev ondisk.Ino) error {
	h, err := fs.start(creditsOrphan)
	if err != nil {
		return err
	}
	defer h.Stop()
	if prev == 0 {
		return fs.setLastOrphan(h, 0)
	}
	fs.orphan.by[prev].next = 0
	return fs.setDtime(h, prev, 0)
}

// recoverOrphan does what is left to do for one orphan.
func (fs *FS) recoverOrphan(ino ondisk.Ino) error {
	ip, err := fs.iget(ino, igetSpecial)
	if err != nil {
		return fs.dropOrphan(ino, err)
	}
	if used, err := fs.inodeUsed(ino); err != nil || !used {
		ip.Put()
		return fs.dropOrphan(ino, err)
	}
	if ip.nlink() == 0 {
		ip.Put() // evicts it
		if fs.isOrphan(ino) {
			return fmt.Errorf("inode %d could not be freed: %w", ino, syscall.EIO)
		}
		return nil
	}
	defer ip.Put()
	ip.mu.Lock()
	defer ip.mu.Unlock()
	if ip.isReg() || ip.isDir() || ip.isLnk() {
		if err := ip.truncateTo(ip.size()); err != nil {
			return fs.corrupt(ino, err)
		}
	}
	h, err := fs.start(creditsOrphan + creditsInode)
	if err != nil {
		return err
	}
	err = fs.orphanDel(h, ip)
	if e := h.Stop(); err == nil {
		err = e
	}
	return err
}

// dropOrphan takes an inode that cannot be read, or that is not in use, off the
// orphan file. In the list it stays, for its neighbours cannot be trusted.
func (fs *FS) dropOrphan(ino ondisk.Ino, cause error) error {
	if cause == nil || errors.Is(cause, syscall.ESTALE) {
		cause = ondisk.Corrupt("orphan", 0, "inode %d is not in use", ino)
	}
	cause = fs.corrupt(ino, cause)
	fs.orphanMu.Lock()
	defer fs.orphanMu.Unlock()
	e := fs.orphan.by[ino]
	if e == nil || e.slot < 0 || fs.writable() != nil {
		return cause
	}
	h, err := fs.start(creditsOrphan)
	if err != nil {
		return err
	}
	defer h.Stop()
	if err := fs.putOrphanSlot(h, e.slot); err != nil {
		return err
	}
	delete(fs.orphan.by, ino)
	return cause
}

// evictOrphans frees, at the end of a mount, inodes without names that were
// held until now.
func (fs *FS) evictOrphans() {
	fs.orphanMu.Lock()
	var list []ondisk.Ino
	for ino := range fs.orphan.by {
		list = append(list, ino)
	}
	fs.orphanMu.Unlock()
	for _, ino := range list {
		ip, err := fs.iget(ino, igetSpecial)
		if err != nil {
			continue
		}
		ip.Put() // frees it if it has no links
	}
	if f := fs.orphan.file; f != nil {
		fs.orphan.file = nil
		f.Put()
	}
}
