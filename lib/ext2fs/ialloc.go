package ext2fs

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// Flags that a new inode takes from its directory, and which of them make
// sense in what is not a directory.
const (
	flagsInherited = ondisk.FlagSecrm | ondisk.FlagUnrm | ondisk.FlagCompr | ondisk.FlagSync |
		ondisk.FlagNodump | ondisk.FlagNoatime | ondisk.FlagNocompr | ondisk.FlagJournalData |
		ondisk.FlagNotail | ondisk.FlagDirsync | ondisk.FlagProjinherit | ondisk.FlagCasefold | ondisk.FlagDAX
	flagsNotReg = ondisk.FlagDirsync | ondisk.FlagTopdir | ondisk.FlagCasefold | ondisk.FlagProjinherit
	flagsOther  = ondisk.FlagNodump | ondisk.FlagNoatime
)

// inheritFlags returns the flags of a new inode of mode in a directory.
func inheritFlags(dir uint32, mode uint16) uint32 {
	f := dir & flagsInherited
	switch mode & ondisk.ModeFmt {
	case ondisk.ModeDir:
		return f
	case ondisk.ModeReg:
		return f &^ flagsNotReg
	}
	return f & flagsOther
}

// ialloc allocates an inode of mode in h's transaction, near dir: directories
// spread by Orlov's rule, other inodes stay with their directory. dir's mu is
// held. The inode is pinned and not stored: its bytes say mode, times, flags
// inherited from dir and generation, no links, and an empty mapping. A goal asks
// for a group. It fails with ENOSPC. At most creditsIalloc blocks change.
func (fs *FS) ialloc(h *jbd2.Handle, dir *Inode, mode uint16, goal ...ondisk.Group) (*Inode, error) {
	home := fs.inodeGroup(dir, mode)
	if len(goal) > 0 {
		home = goal[0] % fs.groups
	}
	var bad error
	for i := range uint64(fs.groups) {
		no := ondisk.Group((uint64(home) + i) % uint64(fs.groups))
		g, err := fs.groupOf(no)
		if err != nil {
			bad = fs.corrupt(0, err)
			continue
		}
		ino, err := g.takeInode(fs, h, mode&ondisk.ModeFmt == ondisk.ModeDir)
		if err != nil {
			if h.Journal().Err() != nil {
				return nil, err
			}
			bad = err
			continue
		}
		if ino != 0 {
			ip, err := fs.newInode(h, ino, dir, mode)
			if err != nil { // its block of the inode table cannot be read
				return nil, errors.Join(err, fs.freeIbit(h, ino, mode&ondisk.ModeFmt == ondisk.ModeDir))
			}
			if mode&ondisk.ModeFmt == ondisk.ModeDir {
				dir.lastGroup.Store(uint32(no) + 1)
			}
			return ip, nil
		}
	}
	if bad != nil {
		return nil, bad
	}
	return nil, syscall.ENOSPC
}

// newInode makes the in-core inode of ino, which was just allocated.
func (fs *FS) newInode(h *jbd2.Handle, ino ondisk.Ino, dir *Inode, mode uint16) (*Inode, error) {
	b, slot, err := fs.readItable(ino)
	if err != nil {
		return nil, err
	}
	defer b.Put()
	if err := h.GetWrite(b); err != nil {
		return nil, err
	}
	mu := fs.slotLock(ino)
	mu.Lock()
	clear(slot)
	mu.Unlock()
	h.Dirty(b)

	ip := &Inode{fs: fs, ino: ino, raw: make(ondisk.RawInode, fs.inodeSize)}
	ip.dataSyncTid.Store(uint32(h.Tid())) // without the inode there is no content
	base := ip.raw.Base()
	base.Mode.Set(mode)
	base.Generation.Set(fs.random())
	if fs.wantExtraIsize > 0 {
		endian.View[ondisk.InodeExtra](ip.raw[ondisk.GoodOldInodeSz:]).ExtraIsize.Set(uint16(fs.wantExtraIsize))
	}
	now := at(h)
	ip.raw.SetAtime(now)
	ip.raw.SetMtime(now)
	ip.raw.SetCtime(now)
	ip.raw.SetCrtime(now)
	if dir != nil {
		dir.mapMu.RLock()
		base.Flags.Set(inheritFlags(dir.raw.Base().Flags.Get(), mode))
		dir.mapMu.RUnlock()
		ip.inheritProject(dir)
	}
	ip.identify()
	ip.initMap()
	fs.ic.insert(ip)
	return ip, nil
}

// inodeGroup returns the group where an inode of mode in dir is looked for
// first. Where the kernel looks at every group, this looks at some: groups are
// not all in memory.
func (fs *FS) inodeGroup(dir *Inode, mode uint16) ondisk.Group {
	if dir == nil {
		return 0
	}
	parent := ondisk.Group(uint32(dir.ino-1) / fs.inodesPerGroup)
	if mode&ondisk.ModeFmt != ondisk.ModeDir {
		return fs.groupNear(parent)
	}
	flexes := (uint64(fs.groups)-1)>>fs.flexBits + 1
	avgIno := uint64(max(fs.freeIno.Load(), 0)) / flexes
	avgFree := uint64(max(fs.free.Load()-fs.reserved.Load(), 0)) / flexes
	perFlex := uint64(fs.inodesPerGroup) << fs.flexBits

	dir.mapMu.RLock()
	top := dir.ino == ondisk.RootIno || dir.flag(ondisk.FlagTopdir)
	dir.mapMu.RUnlock()
	if top {
		first := uint64(fs.random()) % flexes
		best, found := perFlex, flexes
		for i := range min(flexes, 64) {
			f := (first + i) % flexes
			st, ok := fs.flexStats(f)
			if !ok || st.inodes == 0 || st.dirs >= best || st.inodes < avgIno || st.clusters < avgFree {
				continue
			}
			best, found = st.dirs, f
		}
		if found < flexes {
			return fs.inFlex(found)
		}
	} else {
		dirs := uint64(max(fs.dirs.Load(), 0))
		maxDirs := dirs/flexes + perFlex/16
		minIno := max(int64(avgIno)-int64(perFlex/4), 1)
		minFree := int64(avgFree) - int64(uint64(fs.clustersPerGroup)<<fs.flexBits/4)
		first := uint64(parent) >> fs.flexBits
		if g := dir.lastGroup.Load(); g != 0 {
			first = uint64(g-1) >> fs.flexBits
		}
		for i := range min(flexes, 1024) {
			f := (first + i) % flexes
			st, ok := fs.flexStats(f)
			if !ok || st.dirs >= maxDirs || int64(st.inodes) < minIno || int64(st.clusters) < minFree {
				continue
			}
			return fs.inFlex(f)
		}
	}
	// No good one: any with free inodes, from the parent's on.
	for i := range min(uint64(fs.groups), 1024) {
		no := ondisk.Group((uint64(parent) + i) % uint64(fs.groups))
		if g, err := fs.groupOf(no); err == nil {
			g.mu.Lock()
			n := g.freeInodes
			g.mu.Unlock()
			if n > 0 && uint64(n) >= avgIno>>fs.flexBits {
				return no
			}
		}
	}
	return parent
}

// groupNear returns a group for what is not a directory: the parent's, another
// one of its flex group, or one that hashing from there finds.
func (fs *FS) groupNear(parent ondisk.Group) ondisk.Group {
	ok := func(no ondisk.Group, space bool) bool {
		g, err := fs.groupOf(no)
		if err != nil {
			return false
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.freeInodes > 0 && !g.ibBad && (!space || g.freeClusters > 0)
	}
	if fs.flexBits > 0 {
		first := parent &^ (1<<fs.flexBits - 1)
		for no := first; uint64(no) < min(uint64(first)+1<<fs.flexBits, uint64(fs.groups)); no++ {
			if ok(no, false) {
				return no
			}
		}
		return parent
	}
	if ok(parent, true) {
		return parent
	}
	for step := ondisk.Group(1); step < fs.groups; step <<= 1 {
		if no := ondisk.Group((uint64(parent) + uint64(step)) % uint64(fs.groups)); ok(no, true) {
			return no
		}
	}
	return parent
}

type flexStat struct{ inodes, dirs, clusters uint64 }

// flexStats adds up the groups of flex group f.
func (fs *FS) flexStats(f uint64) (st flexStat, ok bool) {
	first := f << fs.flexBits
	for no := first; no < min(first+1<<fs.flexBits, uint64(fs.groups)); no++ {
		g, err := fs.groupOf(ondisk.Group(no))
		if err != nil {
			continue
		}
		g.mu.Lock()
		st.inodes += uint64(g.freeInodes)
		st.dirs += uint64(g.usedDirs)
		st.clusters += uint64(g.freeClusters)
		g.mu.Unlock()
		ok = true
	}
	return st, ok
}

// inFlex returns the first group of flex group f that has free inodes.
func (fs *FS) inFlex(f uint64) ondisk.Group {
	first := f << fs.flexBits
	for no := first; no < min(first+1<<fs.flexBits, uint64(fs.groups)); no++ {
		if g, err := fs.groupOf(ondisk.Group(no)); err == nil {
			g.mu.Lock()
			n := g.freeInodes
			g.mu.Unlock()
			if n > 0 {
				return ondisk.Group(no)
			}
		}
	}
	return ondisk.Group(first)
}

// readInodeBitmap returns g's inode bitmap, pinned and checked. mu is held, and
// INODE_UNINIT is not set.
func (g *group) readInodeBitmap(fs *FS) (*buffer.Buf, error) {
	if g.ibBad {
		return nil, fmt.Errorf("inode bitmap of group %d: %w", g.no, ondisk.EUCLEAN)
	}
	b, err := fs.cache.Read(buffer.Block(g.inodeBitmap), opsInodeBitmap, buffer.Ctx{})
	if err != nil || g.ibSeen {
		return b, err
	}
	what := fmt.Sprintf("inode bitmap of group %d", g.no)
	err = fs.verifyBitmap(what, b.Data(), g.inodeBitmap, fs.inodesPerGroup, g.ibCsum)
	if err == nil {
		if n := countClear(b.Data(), 0, fs.inodesPerGroup); n != g.freeInodes && fs.opts.Offline {
			fs.freeIno.Add(int64(n) - int64(g.freeInodes))
			g.freeInodes = n
		} else if n != g.freeInodes {
			err = ondisk.At(ondisk.Corrupt(what, 0, "%d free inodes, but %d in the descriptor", n, g.freeInodes), 0, g.inodeBitmap)
		}
	}
	if err != nil {
		b.Put()
		g.ibBad = true
		return nil, fs.corrupt(0, err)
	}
	g.ibSeen = true
	return b, nil
}

// writeInodeBitmap is readInodeBitmap, as part of h's transaction. A bitmap that
// was never written is made.
func (g *group) writeInodeBitmap(fs *FS, h *jbd2.Handle) (*buffer.Buf, error) {
	fresh := g.flags&ondisk.BGInodeUninit != 0
	var b *buffer.Buf
	var err error
	if fresh {
		b, err = fs.cache.New(buffer.Block(g.inodeBitmap), opsInodeBitmap, buffer.Ctx{})
	} else {
		b, err = g.readInodeBitmap(fs)
	}
	if err != nil {
		return nil, err
	}
	if err = h.GetWrite(b); err == nil {
		err = g.touch(fs, h)
	}
	if err != nil {
		b.Put()
		return nil, err
	}
	h.Dirty(b)
	g.ibStale = true
	if fresh {
		clear(b.Data())
		setRange(b.Data(), fs.inodesPerGroup, uint32(fs.blockSize)*8-fs.inodesPerGroup)
		g.flags &^= ondisk.BGInodeUninit
		g.itableUnused = fs.inodesPerGroup
		g.ibSeen = true
	}
	return b, nil
}

// takeInode allocates a free inode of g; 0 if there is none.
func (g *group) takeInode(fs *FS, h *jbd2.Handle, dir bool) (ondisk.Ino, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.freeInodes == 0 || g.ibBad {
		return 0, nil
	}
	b, err := g.writeInodeBitmap(fs, h)
	if err != nil {
		return 0, err
	}
	defer b.Put()
	from := g.inodeHint
	if first := uint32(fs.firstIno) - 1; g.no == 0 && from < first {
		from = first
	}
	i := nextClearBit(b.Data(), from, fs.inodesPerGroup)
	if i >= fs.inodesPerGroup {
		g.inodeHint = i
		return 0, nil
	}
	ino := ondisk.Ino(uint32(g.no)*fs.inodesPerGroup + i + 1)
	if fs.ic.inUse(ino) {
		// A second inode of the number would be taken for the first one.
		g.ibBad = true
		return 0, fs.corrupt(ino, ondisk.At(ondisk.Corrupt(fmt.Sprintf("inode bitmap of group %d", g.no), int(i/8),
			"inode %d is in use, and free here", ino), ino, g.inodeBitmap))
	}
	if err := g.useInode(fs, h, b, i, dir); err != nil {
		return 0, err
	}
	g.inodeHint = i + 1
	return ino, nil
}

// useInode marks inode i of g used in b, its bitmap. mu is held.
func (g *group) useInode(fs *FS, h *jbd2.Handle, b *buffer.Buf, i uint32, dir bool) error {
	if fs.hasCsum || fs.hasGDTCsum {
		if g.flags&ondisk.BGBlockUninit != 0 {
			bb, err := g.writeBlockBitmap(fs, h)
			if err != nil {
				return err
			}
			bb.Put()
		}
		if used := fs.inodesPerGroup - g.itableUnused; i >= used {
			if err := g.growItable(fs, h, used, i); err != nil {
				return err
			}
			g.itableUnused = fs.inodesPerGroup - i - 1
		}
	}
	setBit(b.Data(), i)
	g.freeInodes--
	fs.freeIno.Add(-1)
	if dir {
		g.usedDirs++
		fs.dirs.Add(1)
	}
	return nil
}

// growItable makes the inode table ready up to inode i, where inodes from used
// on were never used: blocks of it may hold anything. mu is held.
func (g *group) growItable(fs *FS, h *jbd2.Handle, used, i uint32) error {
	first := (used + fs.inodesPerBlock - 1) / fs.inodesPerBlock // block without used inodes
	last := i / fs.inodesPerBlock
	if g.flags&ondisk.BGInodeZeroed != 0 || last < first {
		return nil
	}
	// Blocks that are skipped hold no inode that was ever used, nor will they
	// matter before the transaction has committed: they are zeroed in place.
	if last > first {
		b := g.inodeTable + ondisk.Fsblk(first)
		fs.cache.Forget(buffer.Block(b), uint64(last-first))
		if err := fs.zeroOut(b, last-first); err != nil {
			return err
		}
	}
	b, err := fs.cache.New(buffer.Block(g.inodeTable)+buffer.Block(last), opsInodeTable, buffer.Ctx{})
	if err != nil {
		return err
	}
	defer b.Put()
	if err := h.GetCreate(b); err != nil {
		return err
	}
	h.Dirty(b)
	return nil
}

// zeroOut writes zeros over n blocks of the device, past the journal.
func (fs *FS) zeroOut(b ondisk.Fsblk, n uint32) error {
	off, size := int64(b)<<fs.blockBits, int64(n)<<fs.blockBits
	if err := fs.dev.ZeroOut(off, size); err == nil {
		return nil
	}
	buf := blockdev.AlignedBuf(int(min(size, 1<<20)), 4096)
	for size > 0 {
		k := min(size, int64(len(buf)))
		if _, err := fs.dev.WriteAt(buf[:k], off); err != nil {
			return err
		}
		off, size = off+k, size-k
	}
	return nil
}

// ifree frees inode ip in h's transaction: its bit, the counts, and its time of
// deletion. Its blocks and attributes are gone, and it is on no orphan list. At
// most creditsIfree blocks change.
func (fs *FS) ifree(h *jbd2.Handle, ip *Inode) error {
	ip.mapMu.Lock()
	dir := ip.isDir()
	ip.raw.SetSize(0)
	ip.raw.Base().LinksCount.Set(0)
	err := ip.store(h)
	if err == nil {
		now := uint32(at(h).Sec)
		ip.raw.Base().Dtime.Set(now)
		err = fs.setDtime(h, ip.ino, now)
	}
	ip.mapMu.Unlock()
	if err != nil {
		return err
	}
	// From when the bit is clear the number may be another inode's.
	s := fs.ic.shard(ip.ino)
	s.mu.Lock()
	ip.freed = true
	s.mu.Unlock()
	return fs.freeIbit(h, ip.ino, dir)
}

// freeIbit clears ino's bit of the inode bitmap.
func (fs *FS) freeIbit(h *jbd2.Handle, ino ondisk.Ino, dir bool) error {
	g, err := fs.groupOf(ondisk.Group(uint32(ino-1) / fs.inodesPerGroup))
	if err != nil {
		return err
	}
	i := uint32(ino-1) % fs.inodesPerGroup
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.flags&ondisk.BGInodeUninit != 0 {
		return fs.corrupt(ino, ondisk.Corrupt(fmt.Sprintf("inode bitmap of group %d", g.no), int(i/8), "freed inode %d was never used", ino))
	}
	b, err := g.writeInodeBitmap(fs, h)
	if err != nil {
		return err
	}
	defer b.Put()
	if !testBit(b.Data(), i) {
		return fs.corrupt(ino, ondisk.Corrupt(fmt.Sprintf("inode bitmap of group %d", g.no), int(i/8), "inode %d is free already", ino))
	}
	clearBit(b.Data(), i)
	g.freeInodes++
	fs.freeIno.Add(1)
	if dir && g.usedDirs > 0 {
		g.usedDirs--
		fs.dirs.Add(-1)
	}
	g.inodeHint = min(g.inodeHint, i)
	return nil
}

// inodeUsed tells whether ino's bit is set.
func (fs *FS) inodeUsed(ino ondisk.Ino) (bool, error) {
	if ino == 0 || uint32(ino) > fs.inodes {
		return false, nil
	}
	g, err := fs.groupOf(ondisk.Group(uint32(ino-1) / fs.inodesPerGroup))
	if err != nil {
		return false, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.flags&ondisk.BGInodeUninit != 0 {
		return false, nil
	}
	b, err := g.readInodeBitmap(fs)
	if err != nil {
		return false, err
	}
	defer b.Put()
	return testBit(b.Data(), uint32(ino-1)%fs.inodesPerGroup), nil
}
