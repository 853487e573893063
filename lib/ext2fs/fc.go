package ext2fs

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// fcReplay applies fast commits: the results of operations that were fsynced
// after the last full commit. Each tag says how something is to be, not what to
// do, so that to apply it twice does no harm; and as bitmaps are not in fast
// commits, they are made to agree at the end with what the inodes then say.
//
// Nothing of it is journaled. A crash before the journal is emptied has the
// whole replay done again.
type fcReplay struct {
	fs    *FS
	inode map[ondisk.Ino]bool // touched
	dirs  map[ondisk.Ino]bool // directories that lost a name
	kept  map[ondisk.Ino]bool // whose blocks are withheld
}

// replayFastCommits applies tags. When it returns, everything is on the device.
func (fs *FS) replayFastCommits(tags []fcTag) error {
	was := fs.readOnly.Swap(false)
	defer fs.readOnly.Store(was)
	cfg := fs.journalOptions(jbd2.Config{Dev: fs.dev, BlockSize: fs.blockSize})
	j, err := jbd2.OpenNone(fs.cache, cfg)
	if err != nil {
		return err
	}
	fs.jnl, fs.replaying = j, true
	r := &fcReplay{fs: fs, inode: make(map[ondisk.Ino]bool), dirs: make(map[ondisk.Ino]bool), kept: make(map[ondisk.Ino]bool)}
	err = r.run(tags)
	if err != nil {
		j.Abort(err)
	}
	if e := j.Close(); err == nil {
		err = e
	}
	fs.replaying = false
	fs.ic.drop(fs)
	fs.jnl = nil
	fs.dropBits()
	return err
}

func (r *fcReplay) run(tags []fcTag) error {
	// Blocks that the fast commits use are free in the bitmaps, and must not be
	// given to mapping trees and directories meanwhile.
	for _, t := range tags {
		if err := r.withhold(t); err != nil {
			return err
		}
	}
	for _, t := range tags {
		if err := r.apply(t); err != nil {
			return err
		}
	}
	for ino := range r.inode {
		if err := r.settle(ino); err != nil {
			return err
		}
	}
	for ino := range r.dirs {
		if err := r.buryDir(ino); err != nil {
			return err
		}
	}
	return nil
}

// withhold keeps the allocator from what t adds to a file, and from what the inodes
// that it names have: after a crash in the middle of a replay the bitmaps may lack
// blocks that were allocated then.
func (r *fcReplay) withhold(t fcTag) error {
	switch t.tag {
	case jbd2.FCAddRange:
		a, err := ondisk.ParseFCAddRange(t.value)
		if err != nil {
			return err
		}
		if err := r.fs.withhold(a.Extent.Start(), a.Extent.Len()); err != nil {
			return err
		}
		return r.withholdInode(ondisk.Ino(a.Ino.Get()))
	case jbd2.FCCreat, jbd2.FCLink, jbd2.FCUnlink:
		d, _, err := ondisk.ParseFCDentry(t.value)
		if err != nil {
			return err
		}
		if err := r.withholdInode(ondisk.Ino(d.Parent.Get())); err != nil {
			return err
		}
		return r.withholdInode(ondisk.Ino(d.Ino.Get()))
	}
	return nil
}

// withholdInode is withhold for the blocks of an inode, if it is one yet. It is not
// taken into memory, since to let go of it there could free it.
func (r *fcReplay) withholdInode(ino ondisk.Ino) error {
	fs := r.fs
	if r.kept[ino] || ino == 0 || uint32(ino) > fs.inodes {
		return nil
	}
	r.kept[ino] = true
	b, slot, err := fs.readItable(ino)
	if err != nil {
		return err
	}
	defer b.Put()
	if slot.Base().LinksCount.Get() == 0 || fs.checkInode(slot, ino) != nil {
		return nil
	}
	ip := &Inode{fs: fs, ino: ino, raw: slices.Clone(slot)}
	ip.identify()
	if ip.noBlocks() {
		return nil
	}
	return ip.eachBlock(func(start ondisk.Fsblk, n uint32, _ bool) error { return fs.withhold(start, n) })
}

func (r *fcReplay) apply(t fcTag) error {
	switch t.tag {
	case jbd2.FCAddRange:
		return r.addRange(t.value)
	case jbd2.FCDelRange:
		return r.delRange(t.value)
	case jbd2.FCCreat, jbd2.FCLink, jbd2.FCUnlink:
		return r.name(t)
	case jbd2.FCInode:
		return r.putInode(t.value)
	case jbd2.FCHead, jbd2.FCTail, jbd2.FCPad:
		return nil
	}
	return ondisk.Corrupt("fast commit", 0, "tag %d", t.tag)
}

// get returns inode ino to be changed.
func (r *fcReplay) get(ino ondisk.Ino) (*Inode, error) {
	if ino < r.fs.firstIno && ino != ondisk.RootIno {
		return nil, ondisk.Corrupt("fast commit", 0, "inode number %d", ino)
	}
	ip, err := r.fs.iget(ino, igetSpecial)
	if err == nil && ip.ftype() == 0 {
		ip.Put()
		err = syscall.ESTALE
	}
	return ip, err
}

// change runs f in a transaction with ip's bytes locked, and stores them.
func (r *fcReplay) change(ip *Inode, credits int, f func(h *jbd2.Handle) error) error {
	h, err := r.fs.start(credits + creditsInode)
	if err != nil {
		return err
	}
	ip.mapMu.Lock()
	if err = f(h); err == nil {
		err = ip.store(h)
	}
	ip.mapMu.Unlock()
	if e := h.Stop(); err == nil {
		err = e
	}
	return err
}

// addRange maps the blocks of a file to where a fast commit says.
func (r *fcReplay) addRange(value []byte) error {
	a, err := ondisk.ParseFCAddRange(value)
	if err != nil {
		return err
	}
	ip, err := r.get(ondisk.Ino(a.Ino.Get()))
	if err != nil {
		return err
	}
	defer ip.Put()
	if !ip.flag(ondisk.FlagExtents) {
		return ondisk.At(ondisk.Corrupt("fast commit of a range", 0, "the inode has no extents"), ip.ino, 0)
	}
	r.inode[ip.ino] = true
	e := &a.Extent
	lblk, pblk, left, unwritten := e.Block.Get(), e.Start(), e.Len(), e.Unwritten()
	if left == 0 || uint64(lblk)+uint64(left) > 1<<32-1 {
		return ondisk.At(ondisk.Corrupt("fast commit of a range", 4, "%d blocks from %d on", left, lblk), ip.ino, 0)
	}
	for left > 0 {
		var n uint32
		err := r.change(ip, 4*creditsData, func(h *jbd2.Handle) error {
			have, err := ip.mapRun(ondisk.Lblk(lblk), left)
			if err != nil {
				return err
			}
			n = min(have.n, left)
			switch {
			case have.state == runHole:
				return ip.insertRun(h, ondisk.Lblk(lblk), pblk, n, unwritten)
			case have.pblk != pblk:
				if _, err := ip.removeRuns(h, uint64(lblk), uint64(lblk)+uint64(n)); err != nil {
					return err
				}
				n = 0 // a hole in the next round
				return nil
			case (have.state == runUnwritten) != unwritten:
				end, err := ip.extConvert(h, uint64(lblk), uint64(lblk)+uint64(n), unwritten)
				n = uint32(end - uint64(lblk))
				return err
			}
			return nil
		})
		if err != nil {
			return ondisk.At(err, ip.ino, 0)
		}
		lblk, pblk, left = lblk+n, pblk+ondisk.Fsblk(n), left-n
	}
	return nil
}

// delRange unmaps blocks of a file.
func (r *fcReplay) delRange(value []byte) error {
	d, err := ondisk.ParseFCDelRange(value)
	if err != nil {
		return err
	}
	ip, err := r.get(ondisk.Ino(d.Ino.Get()))
	if errors.Is(err, syscall.ESTALE) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ip.Put()
	r.inode[ip.ino] = true
	lo, hi := uint64(d.Lblk.Get()), uint64(d.Lblk.Get())+uint64(d.Len.Get())
	for lo < hi {
		next := lo
		err := r.change(ip, 4*creditsData, func(h *jbd2.Handle) error {
			var err error
			next, err = ip.removeRuns(h, lo, hi)
			return err
		})
		if err != nil {
			return ondisk.At(err, ip.ino, 0)
		}
		if next <= lo || next >= hi {
			break // removal goes from the end to the start
		}
		hi = next
	}
	return nil
}

// putInode gives an inode the bytes that a fast commit has of it. Its mapping
// is not among them: ranges are committed by themselves.
func (r *fcReplay) putInode(value []byte) error {
	fs := r.fs
	ino, raw, err := ondisk.ParseFCInode(value, fs.inodeSize)
	if err != nil {
		return err
	}
	if ino < fs.firstIno || uint32(ino) > fs.inodes {
		return ondisk.Corrupt("fast commit of an inode", 0, "number %d", ino)
	}
	h, err := fs.start(creditsIalloc)
	if err != nil {
		return err
	}
	defer h.Stop()
	if err := fs.useIno(h, ino, raw.Base().Mode.Get()&ondisk.ModeFmt == ondisk.ModeDir); err != nil {
		return err
	}
	b, slot, err := fs.readItable(ino)
	if err != nil {
		return err
	}
	defer b.Put()
	if err := h.GetWrite(b); err != nil {
		return err
	}
	const blockOff, blockEnd = 0x28, 0x64 // i_block
	was := slot.Base().Flags.Get()
	mapped := slot.Base().Block
	copy(slot[:blockOff], raw)
	copy(slot[blockEnd:], raw[blockEnd:])
	flags := slot.Base().Flags.Get()
	switch {
	case flags&ondisk.FlagExtents == 0:
		// Inline data, a short symbolic link or a device number.
		slot.Base().Block = raw.Base().Block
	case was&ondisk.FlagExtents == 0 || mapped[0] != ondisk.ExtentMagic&0xff || mapped[1] != ondisk.ExtentMagic>>8:
		ondisk.InitExtentNode(slot.Base().Block[:], 0)
	}
	if fs.hasCsum {
		slot.Seal(fs.csumSeed, ino)
	}
	h.Dirty(b)
	fs.ic.forget(ino)
	if err := fs.checkInode(slot, ino); err != nil {
		return err
	}
	r.inode[ino] = true
	return nil
}

// name makes or removes a directory entry.
func (r *fcReplay) name(t fcTag) error {
	fs := r.fs
	d, name, err := ondisk.ParseFCDentry(t.value)
	if err != nil {
		return err
	}
	parent, ino := ondisk.Ino(d.Parent.Get()), ondisk.Ino(d.Ino.Get())
	ip, err := r.get(ino)
	if errors.Is(err, syscall.ESTALE) && t.tag == jbd2.FCUnlink {
		return nil
	}
	if err != nil {
		return err
	}
	defer ip.Put()
	dp, err := r.get(parent)
	if err != nil {
		return err
	}
	defer dp.Put()
	if !dp.isDir() || ip == dp {
		return ondisk.At(ondisk.Corrupt("fast commit of a name", 0, "its parent is no directory"), parent, 0)
	}
	r.inode[parent] = true // it may have got a block, now or by a replay that was cut short
	dp.mu.Lock()
	defer dp.mu.Unlock()
	ip.mu.Lock()
	defer ip.mu.Unlock()

	if t.tag == jbd2.FCCreat {
		if err := r.create(ip, parent); err != nil {
			return err
		}
	}
	there, _, err := fs.dirLookup(dp, name)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	found := err == nil
	h, err := fs.start(fs.dirAddCredits(dp) + 4*creditsInode)
	if err != nil {
		return err
	}
	defer h.Stop()
	links := 0
	switch {
	case t.tag == jbd2.FCUnlink && !found, t.tag != jbd2.FCUnlink && found:
		return nil // it is so already
	case t.tag == jbd2.FCUnlink:
		// The name may lead to another inode by now; this one has one less.
		links = -1
		if there == ino {
			err = fs.dirRemove(h, dp, name)
		}
	default:
		links = 1
		err = fs.dirAdd(h, dp, name, ino, ondisk.FileType(ip.mode()))
	}
	if err == nil {
		err = r.count(h, dp, ip, links, t.tag == jbd2.FCCreat)
	}
	return err
}

// create prepares an inode that has just got its first name.
func (r *fcReplay) create(ip *Inode, parent ondisk.Ino) error {
	if !ip.isDir() {
		return nil
	}
	fs := r.fs
	// The content of directories is not in fast commits: it starts anew.
	h, err := fs.start(8*creditsData + creditsInode)
	if err != nil {
		return err
	}
	defer h.Stop()
	ip.mapMu.Lock()
	if !ip.flag(ondisk.FlagInlineData) {
		_, err = ip.removeRuns(h, 0, 1<<32)
	}
	if err == nil {
		ip.raw.SetSize(0)
		ip.setFlags(0, ondisk.FlagIndex)
		ip.raw.SetBlocks(0)
		err = ip.store(h)
	}
	ip.mapMu.Unlock()
	if err != nil {
		return err
	}
	if err := fs.dirInit(h, ip, parent); err != nil {
		return err
	}
	ip.mapMu.Lock()
	defer ip.mapMu.Unlock()
	return ip.store(h)
}

// count brings link counts up to date with a name that was made or removed.
func (r *fcReplay) count(h *jbd2.Handle, dp, ip *Inode, links int, fresh bool) error {
	fs := r.fs
	ip.mapMu.Lock()
	n := int(ip.nlink()) + links
	switch {
	case fresh && ip.isDir():
		n = 2
	case fresh:
		n = 1
	}
	n = max(n, 0)
	if n > ondisk.LinkMax && !ip.isDir() {
		ip.mapMu.Unlock()
		return syscall.EMLINK
	}
	ip.raw.Base().LinksCount.Set(uint16(n))
	err := ip.store(h)
	dir := ip.isDir()
	ip.mapMu.Unlock()
	if err != nil {
		return err
	}
	if n == 0 {
		if err := fs.orphanAdd(h, ip); err != nil {
			return err
		}
	}
	if !dir {
		return nil
	}
	if links < 0 {
		r.dirs[ip.ino] = true
	}
	// Counts of the parent are not in fast commits either. One that has too
	// many stays at 1.
	dp.mapMu.Lock()
	defer dp.mapMu.Unlock()
	if p := int(dp.nlink()); p > 1 {
		dp.raw.Base().LinksCount.Set(uint16(max(p+links, 2)))
	}
	return dp.store(h)
}

// settle makes bitmaps and i_blocks agree with the mapping of a touched inode.
func (r *fcReplay) settle(ino ondisk.Ino) error {
	fs := r.fs
	used, err := fs.inodeUsed(ino)
	if err != nil || !used {
		return err
	}
	ip, err := r.get(ino)
	if err != nil {
		return err
	}
	defer ip.Put()
	if ip.nlink() == 0 || !ip.isReg() && !ip.isDir() && !ip.isLnk() {
		return nil
	}
	var n uint64
	err = ip.eachBlock(func(start ondisk.Fsblk, count uint32, meta bool) error {
		h, err := fs.start(int(count/fs.blocksPerGroup+2)*creditsGroup + creditsSuper)
		if err != nil {
			return err
		}
		defer h.Stop()
		n += uint64(count)
		return fs.markUsed(h, start, count)
	})
	if err != nil || fs.hasBigalloc || !ip.flag(ondisk.FlagExtents) {
		return err // with bigalloc the count of the inode itself is as good
	}
	ea, err := ip.eaCharged()
	if err != nil {
		return err
	}
	if n += ea; ip.raw.FileACL() != 0 {
		n++
	}
	return r.change(ip, creditsInode, func(*jbd2.Handle) error {
		ip.addBlocks(int64(n) - int64(ip.blocksUsed()))
		return nil
	})
}

// buryDir removes a directory that has lost its last name: fast commits have
// only that a name went.
func (r *fcReplay) buryDir(ino ondisk.Ino) error {
	ip, err := r.get(ino)
	if errors.Is(err, syscall.ESTALE) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ip.Put()
	if ip.nlink() != 1 {
		return nil
	}
	if empty, err := r.fs.dirEmpty(ip); err != nil || !empty {
		return err
	}
	h, err := r.fs.start(creditsInode + creditsOrphan)
	if err != nil {
		return err
	}
	defer h.Stop()
	ip.mapMu.Lock()
	ip.raw.Base().LinksCount.Set(0)
	err = ip.store(h)
	ip.mapMu.Unlock()
	if err != nil {
		return err
	}
	return r.fs.orphanAdd(h, ip)
}

// eachBlock calls f with every run of blocks that the mapping of an inode with
// extents has, nodes of the tree (meta) and data. As in extFind each node lies
// where the one above says, so that none is come to twice.
func (ip *Inode) eachBlock(f func(start ondisk.Fsblk, n uint32, meta bool) error) error {
	if !ip.flag(ondisk.FlagExtents) {
		return nil
	}
	var walk func(n *extNode) error
	walk = func(n *extNode) error {
		d := int(n.header().Depth.Get())
		if d == 0 {
			leaf := n.leaf()
			for i := range leaf {
				if err := f(leaf[i].Start(), leaf[i].Len(), false); err != nil {
					return err
				}
			}
			return nil
		}
		index := n.index()
		for i := range index {
			blk := index[i].Leaf()
			if err := f(blk, 1, true); err != nil {
				return err
			}
			b, err := ip.fs.cache.Read(buffer.Block(blk), opsExtent, ip.ctx())
			if err != nil {
				return err
			}
			child := extNode{node: b.Data(), hi: n.hi}
			if i+1 < len(index) {
				child.hi = uint64(index[i+1].Block.Get())
			}
			if err = child.checkPlace(d-1, uint64(index[i].Block.Get())); err == nil {
				err = walk(&child)
			}
			b.Put()
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := ip.extCheckRoot(); err != nil {
		return err
	}
	return ondisk.At(walk(&extNode{node: ip.raw.Base().Block[:], hi: uint64(ondisk.MaxLblk) + 1}), ip.ino, 0)
}

// withhold keeps the allocator from giving out blocks, in memory. Those that
// are not free stay as they are.
func (fs *FS) withhold(start ondisk.Fsblk, n uint32) error {
	if !fs.validBlock(start, n) {
		return ondisk.Corrupt("fast commit of a range", 4, "%d blocks at %d are not a file's", n, start)
	}
	return fs.split(start, n, func(g *group, at, n uint32) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if err := g.loadBits(fs); err != nil {
			return err
		}
		g.bits.avail -= n - countSet(g.bits.taken, at, n)
		setBits(g.bits.taken, at, n)
		g.bits.busy++ // the bits stay in memory until dropBits
		return nil
	})
}

// markUsed sets the bits of blocks, whether or not they are set.
func (fs *FS) markUsed(h *jbd2.Handle, start ondisk.Fsblk, n uint32) error {
	return fs.mark(h, start, n, true)
}

// mark sets or clears the bits of blocks, whatever they are.
func (fs *FS) mark(h *jbd2.Handle, start ondisk.Fsblk, n uint32, used bool) error {
	if !fs.validBlock(start, n) {
		return ondisk.Corrupt("run of blocks", 0, "%d blocks at %d are not a file's", n, start)
	}
	return fs.split(start, n, func(g *group, at, n uint32) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if err := g.loadBits(fs); err != nil {
			return err
		}
		b, err := g.writeBlockBitmap(fs, h)
		if err != nil {
			return err
		}
		defer b.Put()
		var diff int64
		if used {
			diff = int64(setRange(b.Data(), at, n)) - int64(n)
		} else {
			diff = int64(n) - int64(clearRange(b.Data(), at, n))
		}
		// What is cleared stays taken in memory until dropBits.
		g.bits.avail -= n - countSet(g.bits.taken, at, n)
		setBits(g.bits.taken, at, n)
		g.bits.busy++
		g.freeClusters = uint32(int64(g.freeClusters) + diff)
		fs.free.Add(diff)
		return nil
	})
}

// dropBits drops all allocation bits from memory, and what is known of
// transactions. Nothing is reserved.
func (fs *FS) dropBits() {
	t := &fs.group
	t.mu.Lock()
	t.clock = nil
	t.mu.Unlock()
	for i := range t.chunks {
		c := t.chunks[i].Load()
		if c == nil {
			continue
		}
		for k := range *c {
			g := &(*c)[k]
			g.mu.Lock()
			g.bits, g.tid = nil, 0
			g.mu.Unlock()
		}
	}
}

// useIno marks inode ino used, whether or not it is.
func (fs *FS) useIno(h *jbd2.Handle, ino ondisk.Ino, dir bool) error {
	g, err := fs.groupOf(ondisk.Group(uint32(ino-1) / fs.inodesPerGroup))
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	b, err := g.writeInodeBitmap(fs, h)
	if err != nil {
		return err
	}
	defer b.Put()
	i := uint32(ino-1) % fs.inodesPerGroup
	if testBit(b.Data(), i) {
		return nil
	}
	if g.freeInodes == 0 {
		return ondisk.Corrupt(fmt.Sprintf("inode bitmap of group %d", g.no), 0, "no inode is free")
	}
	return g.useInode(fs, h, b, i, dir)
}
