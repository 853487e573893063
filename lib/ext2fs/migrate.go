package ext2fs

import (
	"errors"
	"slices"
	"syscall"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// migrateMost bounds the runs and indirect blocks of a file that is migrated:
// a hostile one may map a block any number of times.
const migrateMost = 1 << 20

// Migrate makes the inode map its blocks by extents, as EXT4_IOC_MIGRATE and
// setting the extents flag do, or by block numbers, as clearing it does: then
// it must have no more than one extent, among its first 12 blocks. Its data
// stays where it is. It fails with EINVAL if there is nothing to migrate, with
// EOPNOTSUPP for what block numbers are too small for, with EFBIG for a mapping
// that is too large for one transaction.
func (ip *Inode) Migrate(extents bool) error {
	ip.mu.Lock()
	defer ip.mu.Unlock()
	return ip.migrate(extents)
}

// migrate is Migrate. mu is held exclusively.
func (ip *Inode) migrate(extents bool) error {
	fs := ip.fs
	if err := fs.writable(); err != nil {
		return err
	}
	ip.mapMu.RLock()
	is, none, inline := ip.isExtents(), ip.noBlocks(), ip.flag(ondisk.FlagInlineData)
	ip.mapMu.RUnlock()
	switch {
	case !fs.hasExtents || is == extents || inline:
		return syscall.EINVAL
	case none:
		return nil
	case extents:
		return fs.retry(ip.toExtents)
	case fs.hasBigalloc:
		return syscall.EOPNOTSUPP
	}
	return ip.toIndirect()
}

// toExtents builds the tree and frees the indirect blocks in one transaction.
func (ip *Inode) toExtents() error {
	fs := ip.fs
	for credits := 0; ; {
		ip.mapMu.RLock()
		need, err := ip.toExtentsCredits()
		ip.mapMu.RUnlock()
		if err != nil {
			return err
		}
		credits = max(credits, need)
		h, err := fs.start(credits)
		if errors.Is(err, jbd2.ErrTooLarge) {
			return syscall.EFBIG
		}
		if err != nil {
			return err
		}
		// What the kernel has written back may have come to the mapping meanwhile.
		ip.mapMu.Lock()
		need, err = ip.toExtentsCredits()
		if err == nil && need <= credits {
			err = ip.swapToExtents(h)
		}
		ip.mapMu.Unlock()
		if err = stop(h, err); err != nil || need <= credits {
			return err
		}
		credits = need
	}
}

// toExtentsCredits returns how many blocks swapToExtents changes at most. mapMu is
// held.
func (ip *Inode) toExtentsCredits() (int, error) {
	runs, err := ip.indRuns()
	if err != nil {
		return 0, err
	}
	metas, err := ip.indMetas()
	return ip.migrateCredits(len(runs), metas), err
}

// swapToExtents is toExtents in a transaction. mapMu is held exclusively.
func (ip *Inode) swapToExtents(h *jbd2.Handle) error {
	runs, err := ip.indRuns()
	if err != nil {
		return err
	}
	metas, err := ip.indMetas()
	if err != nil {
		return err
	}
	err = ip.swapMap(h, runs)
	for i := 0; err == nil && i < len(metas); i++ {
		err = ip.freeMeta(h, metas[i])
	}
	ip.raw.SetCtime(ip.fs.now())
	if e := ip.storeData(h); err == nil {
		err = e
	}
	return err
}

// indRuns returns what the file maps. mapMu is held.
func (ip *Inode) indRuns() ([]run, error) {
	var runs []run
	for lblk, end := uint64(0), min(ip.fs.indMax(), uint64(ondisk.MaxLblk)+1); lblk < end; {
		r, err := ip.mapRun(ondisk.Lblk(lblk), uint32(min(end-lblk, 1<<31)))
		if err != nil {
			return nil, err
		}
		if r.state != runHole {
			if len(runs) == migrateMost {
				return nil, syscall.EFBIG
			}
			runs = append(runs, r)
		}
		lblk += uint64(r.n)
	}
	return runs, nil
}

// migrateCredits returns how many blocks a migration to extents changes at most.
func (ip *Inode) migrateCredits(runs int, metas []ondisk.Fsblk) int {
	fs := ip.fs
	perNode := (fs.blockSize-ondisk.ExtentEntry)/ondisk.ExtentEntry - 1 // less than a node holds
	nodes := 0
	for n := runs; n > 4; { // entries of the root
		n = (n + perNode - 1) / perNode
		nodes += n + 1
	}
	groups := map[ondisk.Group]bool{}
	for _, b := range metas {
		groups[ondisk.Group((b-fs.firstData)/ondisk.Fsblk(fs.blocksPerGroup))] = true
	}
	return creditsExtent + nodes + creditsGroup*(min(nodes, int(fs.groups))+len(groups)) + creditsInode + creditsSuper
}

// swapMap maps the runs by an extent tree instead of what i_block has; if that
// fails, as it was. mapMu is held exclusively.
func (ip *Inode) swapMap(h *jbd2.Handle, runs []run) error {
	b := ip.raw.Base()
	old := b.Block
	ip.initMap()
	for _, r := range runs {
		if _, err := ip.extInsert(h, r.lblk, r.pblk, r.n, false); err != nil {
			err = errors.Join(err, ip.extFreeNodes(h))
			b.Block = old
			ip.setFlags(0, ondisk.FlagExtents)
			ip.mappingChanged()
			return err
		}
	}
	return nil
}

// extFreeNodes frees the nodes below the root of a tree that was built just
// now. mapMu is held exclusively.
func (ip *Inode) extFreeNodes(h *jbd2.Handle) error {
	var nodes []ondisk.Fsblk
	for lblk := uint64(0); lblk <= uint64(ondisk.MaxLblk); {
		var p extPath
		if err := ip.extFind(&p, ondisk.Lblk(lblk)); err != nil {
			return err
		}
		for l := 1; l <= p.depth; l++ {
			if p.n[l].lo == lblk { // met for the first time
				nodes = append(nodes, ondisk.Fsblk(p.n[l].buf.Block()))
			}
		}
		lblk = p.leaf().hi
		p.put()
	}
	for _, n := range nodes {
		if err := ip.freeMeta(h, n); err != nil {
			return err
		}
	}
	return nil
}

// indMetas returns the indirect blocks of the file. mapMu is held.
func (ip *Inode) indMetas() ([]ondisk.Fsblk, error) {
	var all []ondisk.Fsblk
	var walk func(ptrs []endian.LE32, levels int) error
	walk = func(ptrs []endian.LE32, levels int) error {
		for i := range ptrs {
			blk := ptrs[i].Get()
			if blk == 0 {
				continue
			}
			if len(all) == migrateMost {
				return syscall.EFBIG
			}
			all = append(all, ondisk.Fsblk(blk))
			if levels == 1 {
				continue
			}
			b, below, err := ip.indRead(blk)
			if err != nil {
				return err
			}
			err = walk(below, levels-1)
			b.Put()
			if err != nil {
				return err
			}
		}
		return nil
	}
	root := ip.indRoot()
	for levels := 1; levels <= 3; levels++ {
		if err := walk(root[indDirect+levels-1:][:1], levels); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// toIndirect puts the blocks of the only extent into i_block. What is reserved
// ahead is given back, since it may lie where block numbers do not reach. What was
// handed out stays, as the kernel may be writing to it, which nobody stops here.
func (ip *Inode) toIndirect() error {
	fs := ip.fs
	ip.mapMu.Lock()
	ip.rsvDropAhead()
	far := slices.ContainsFunc(ip.fm.rsv, func(r rsvRun) bool {
		return r.end() > fs.indMax() || uint64(r.pblk)+uint64(r.n) > 1<<32
	})
	ip.mapMu.Unlock()
	if far {
		return syscall.EOPNOTSUPP
	}
	h, err := fs.start(creditsInode)
	if err != nil {
		return err
	}
	ip.mapMu.Lock()
	err = ip.extToDirect()
	if err == nil {
		ip.raw.SetCtime(fs.now())
		err = ip.storeData(h)
	}
	ip.mapMu.Unlock()
	return stop(h, err)
}

// extToDirect is toIndirect in memory. mapMu is held exclusively.
func (ip *Inode) extToDirect() error {
	if err := ip.extCheckRoot(); err != nil {
		return err
	}
	b := ip.raw.Base()
	root := extNode{node: b.Block[:]}
	if root.header().Depth.Get() != 0 || root.entries() > 1 {
		return syscall.EOPNOTSUPP
	}
	var direct [indSlots]endian.LE32
	if root.entries() == 1 {
		e := root.leaf()[0]
		first, n := uint64(e.Block.Get()), uint64(e.Len())
		// Unwritten blocks would show what the disk held before.
		if first+n > indDirect || uint64(e.Start())+n > 1<<32 || e.Unwritten() {
			return syscall.EOPNOTSUPP
		}
		for i := range n {
			direct[first+i].Set(uint32(uint64(e.Start()) + i))
		}
	}
	if uint64(ip.size()) > ip.fs.indMax()<<ip.fs.blockBits {
		return syscall.EOPNOTSUPP
	}
	ip.setFlags(0, ondisk.FlagExtents)
	clear(b.Block[:])
	copy(ip.indRoot(), direct[:])
	ip.mappingChanged()
	return nil
}
