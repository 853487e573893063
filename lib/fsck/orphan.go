package fsck

import (
	"bytes"
	"encoding/binary"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// freeOrphans frees, or cuts to their size, the inodes of the orphan list and the
// orphan file. It works on the bitmaps on the device, before pass 1.
func (c *checker) freeOrphans() {
	s := c.sb
	head := ondisk.Ino(s.LastOrphan.Get())
	file := s.HasCompat(ondisk.CompatOrphanFile) && s.HasROCompat(ondisk.ROCompatOrphanPresent)
	if head == 0 && !file || !c.canWrite() {
		if (head != 0 || file) && !c.canWrite() {
			c.invalid = c.invalid || false
		}
		return
	}
	if s.State.Get()&ondisk.StateError != 0 && head != 0 {
		// The list is of what the kernel had in mind before it found an error.
		s.LastOrphan.Set(0)
		c.setSuper()
		head = 0
	}
	for g := range c.groups { // pieces of metadata that lie nowhere: leave it to the passes
		if bb, ib, it := c.badDesc(g); bb || ib || it {
			s.LastOrphan.Set(0)
			c.setSuper()
			return
		}
	}
	seen := map[ondisk.Ino]bool{}
	for ino := head; ino != 0; {
		if ino < c.firstIno && ino != ondisk.RootIno || uint32(ino) > c.inodes || seen[ino] {
			code := P0OrphanIllegalInode
			if ino == head {
				code = P0OrphanIllegalHead
			}
			c.tell(code, at(ino))
			break
		}
		seen[ino] = true
		r, err := c.inode(ino)
		if err != nil {
			break
		}
		next := ondisk.Ino(r.Base().Dtime.Get())
		if !c.freeOrphan(ino, r) {
			break
		}
		ino = next
	}
	if head != 0 {
		s.LastOrphan.Set(0)
		c.setSuper()
	}
	if file {
		c.freeOrphanFile()
	}
}

// freeOrphan frees an orphan without links, and cuts one with links to its size.
func (c *checker) freeOrphan(ino ondisk.Ino, r ondisk.RawInode) bool {
	b := r.Base()
	p := at(ino)
	p.Num = uint64(b.LinksCount.Get())
	c.tell(P0OrphanClear, p)
	c.orphansFreed = true
	links := b.LinksCount.Get()
	if c.hasBlocks(r) {
		runs, meta, err := c.runs(r)
		if err != nil {
			c.tell(P0OrphanIllegalBlock, p)
			return false
		}
		keep := uint64(0)
		if links > 0 {
			keep = (uint64(r.Size(c.hasLargeDir)) + uint64(c.blockSize) - 1) >> c.blockBits
		}
		var out []extent
		var free []ondisk.Fsblk
		for _, e := range runs {
			if e.lblk < keep {
				k := min(e.n, keep-e.lblk)
				out = append(out, extent{e.lblk, e.blk, k, e.unwritten, false})
				e.lblk, e.blk, e.n = e.lblk+k, e.blk+ondisk.Fsblk(k), e.n-k
			}
			for i := range e.n {
				free = append(free, e.blk+ondisk.Fsblk(i))
			}
		}
		if len(out) > 0 && len(free) > 0 {
			if !c.cutMap(ino, r, keep) {
				return false
			}
		} else if len(out) == 0 {
			free = append(free, meta...)
			c.emptyMap(r)
			r.SetBlocks(c.blocksUnit(r, boolCount(r.FileACL() != 0)))
		}
		b.Dtime.Set(0)
		if links == 0 {
			b.Dtime.Set(c.now)
			r.SetSize(0)
		}
		c.writeInode(ino, r)
		c.diskFree(free)
	}
	if links == 0 {
		if acl := r.FileACL(); acl != 0 && c.valid(acl, 1) {
			c.diskDropXattr(acl)
			r.SetFileACL(0)
		}
		isDir := c.isDirMode(b.Mode.Get())
		b.Dtime.Set(c.now)
		c.writeInode(ino, r)
		c.diskFreeInode(ino, isDir)
	} else {
		b.Dtime.Set(0)
		c.writeInode(ino, r)
	}
	return true
}

func boolCount(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// emptyMap makes an inode map nothing.
func (c *checker) emptyMap(r ondisk.RawInode) {
	b := r.Base()
	clear(b.Block[:])
	if b.Flags.Get()&ondisk.FlagExtents != 0 {
		ondisk.InitExtentNode(b.Block[:], 0)
	}
}

// cutMap takes the blocks from keep on out of a map, in place. Nodes that become
// empty stay claimed until pass 5 sees that nothing leads to them.
func (c *checker) cutMap(ino ondisk.Ino, r ondisk.RawInode, keep uint64) bool {
	b := r.Base()
	seed := ondisk.InodeSeed(c.seed, ino, b.Generation.Get())
	left := uint64(0)
	var free []ondisk.Fsblk
	var cutNode func(node []byte) bool
	cutNode = func(node []byte) bool {
		h, err := ondisk.ExtentNodeHeader(node)
		if err != nil {
			return false
		}
		n := int(h.Entries.Get())
		keepN := 0
		if h.Depth.Get() == 0 {
			for i, e := range endian.Views[ondisk.Extent](node[ondisk.ExtentEntry:], n) {
				at := uint64(e.Block.Get())
				if at >= keep {
					break
				}
				if at+uint64(e.Len()) > keep {
					x := &endian.Views[ondisk.Extent](node[ondisk.ExtentEntry:], n)[i]
					x.Set(ondisk.Lblk(at), e.Start(), uint32(keep-at), e.Unwritten())
					left += keep - at
				} else {
					left += uint64(e.Len())
				}
				keepN = i + 1
			}
		} else {
			for i, e := range endian.Views[ondisk.ExtentIdx](node[ondisk.ExtentEntry:], n) {
				if uint64(e.Block.Get()) >= keep {
					free = append(free, e.Leaf())
					continue
				}
				child, err := c.block(e.Leaf())
				if err != nil || !cutNode(child) {
					return false
				}
				if c.hasCsum {
					ondisk.SealExtentNode(child, seed)
				}
				c.write(e.Leaf(), child)
				left++
				keepN = i + 1
			}
		}
		h.Entries.Set(uint16(keepN))
		clear(node[ondisk.ExtentEntry*(keepN+1) : ondisk.ExtentEntry*(n+1)])
		return true
	}
	var cutPtr func(v *endian.LE32, level int, first uint64)
	cutPtr = func(v *endian.LE32, level int, first uint64) {
		blk := ondisk.Fsblk(v.Get())
		if blk == 0 {
			return
		}
		if first >= keep {
			if level > 0 {
				free = append(free, blk)
			}
			v.Set(0)
			return
		}
		left++
		if level == 0 {
			return
		}
		data, err := c.block(blk)
		if err != nil {
			return
		}
		span := uint64(1)
		for range level - 1 {
			span *= uint64(c.blockSize / 4)
		}
		sub := endian.Views[endian.LE32](data, len(data)/4)
		for i := range sub {
			cutPtr(&sub[i], level-1, first+uint64(i)*span)
		}
		c.write(blk, data)
	}
	if b.Flags.Get()&ondisk.FlagExtents != 0 {
		if !cutNode(b.Block[:]) {
			return false
		}
	} else {
		ptr := endian.Views[endian.LE32](b.Block[:], 15)
		first := uint64(0)
		for i := range ptr {
			level := max(i-11, 0)
			cutPtr(&ptr[i], level, first)
			span := uint64(1)
			for range level {
				span *= uint64(c.blockSize / 4)
			}
			first += span
		}
	}
	runs, meta, _ := c.runs(r)
	r.SetBlocks(c.countBlocks(r, runs, len(meta)))
	c.diskFree(free)
	return true
}

// diskFree clears the bits of blocks in the bitmaps on the device.
func (c *checker) diskFree(blocks []ondisk.Fsblk) {
	per := c.blocksPerGroup >> c.clusterBits
	buf := make([]byte, c.blockSize)
	byGroup := map[ondisk.Group][]uint64{}
	for _, b := range blocks {
		k := c.cluster(b)
		g := ondisk.Group(k / per)
		byGroup[g] = append(byGroup[g], k%per)
	}
	for g, ks := range byGroup {
		d := c.desc(g)
		if d.HasFlag(ondisk.BGBlockUninit) || c.read(d.BlockBitmap(), buf) != nil {
			continue
		}
		n := 0
		for _, k := range ks {
			if buf[k/8]>>(k%8)&1 != 0 {
				buf[k/8] &^= 1 << (k % 8)
				n++
			} else if c.clusterBits == 0 {
				p := at(0)
				p.Blk = c.groupFirst(g) + ondisk.Fsblk(k)
				c.tell(P0OrphanClearedBlock, p)
			}
		}
		c.write(d.BlockBitmap(), buf)
		d.SetFreeBlocks(d.FreeBlocks() + uint32(n))
		if c.hasCsum {
			d.SetBlockBitmapCsum(ondisk.Crc32c(c.seed, buf[:per/8]))
		}
		c.sealDesc(g)
		c.sb.SetFreeBlocksCount(c.sb.FreeBlocksCount() + uint64(n)<<c.clusterBits)
		c.setSuper()
	}
}

// diskFreeInode clears the bit of an inode in the bitmap on the device.
func (c *checker) diskFreeInode(ino ondisk.Ino, dir bool) {
	g := ondisk.Group(uint32(ino-1) / c.inodesPerGroup)
	i := uint32(ino-1) % c.inodesPerGroup
	d := c.desc(g)
	buf := make([]byte, c.blockSize)
	if d.HasFlag(ondisk.BGInodeUninit) || c.read(d.InodeBitmap(), buf) != nil || buf[i/8]>>(i%8)&1 == 0 {
		return
	}
	buf[i/8] &^= 1 << (i % 8)
	c.write(d.InodeBitmap(), buf)
	d.SetFreeInodes(d.FreeInodes() + 1)
	if dir && d.UsedDirs() > 0 {
		d.SetUsedDirs(d.UsedDirs() - 1)
	}
	if c.hasCsum {
		d.SetInodeBitmapCsum(ondisk.Crc32c(c.seed, buf[:c.inodesPerGroup/8]))
	}
	c.sealDesc(g)
	c.sb.FreeInodes.Set(c.sb.FreeInodes.Get() + 1)
	c.setSuper()
}

// diskDropXattr takes one use from an attribute block on the device.
func (c *checker) diskDropXattr(blk ondisk.Fsblk) {
	data, err := c.block(blk)
	if err != nil {
		return
	}
	h := endian.View[ondisk.XattrHeader](data)
	if h.Magic.Get() != ondisk.XattrMagic {
		return
	}
	if n := h.Refcount.Get(); n > 1 {
		h.Refcount.Set(n - 1)
		if c.hasCsum {
			ondisk.SealXattrBlock(data, blk, c.seed)
		}
		c.write(blk, data)
		return
	}
	c.diskFree([]ondisk.Fsblk{blk})
}

// freeOrphanFile frees the inodes that the orphan file names, and empties it.
func (c *checker) freeOrphanFile() {
	s := c.sb
	ino := ondisk.Ino(s.OrphanFileInum.Get())
	r, err := c.inode(ino)
	if err != nil || r.Base().Mode.Get()&ondisk.ModeFmt != ondisk.ModeReg {
		return
	}
	if r.Size(false)%int64(c.blockSize) != 0 {
		c.tell(0x000055, at(ino))
		return
	}
	runs, _, err := c.runs(r)
	if err != nil {
		return
	}
	seed := ondisk.InodeSeed(c.seed, ino, r.Base().Generation.Get())
	seen := map[ondisk.Ino]bool{}
	for l := range uint64(r.Size(false)) >> c.blockBits {
		blk := lookup(runs, l)
		p := at(ino)
		p.Lblk = int64(l)
		if blk == 0 {
			c.tell(0x000052, p)
			return
		}
		data, err := c.block(blk)
		if err != nil {
			return
		}
		if err := ondisk.VerifyOrphanBlock(data, seed, blk, c.hasCsum); err != nil {
			code := Code(0x000053)
			if isCsum(err) {
				code = 0x000054
			}
			c.tell(code, p)
			return
		}
		dirty := false
		for off := 0; off+4 <= len(data)-ondisk.OrphanTailSize; off += 4 {
			o := ondisk.Ino(binary.LittleEndian.Uint32(data[off:]))
			if o == 0 {
				continue
			}
			if o < c.firstIno || uint32(o) > c.inodes || seen[o] {
				c.tell(P0OrphanIllegalInode, at(o))
			} else if or, err := c.inode(o); err == nil {
				seen[o] = true
				if !c.freeOrphan(o, or) {
					return
				}
			}
			binary.LittleEndian.PutUint32(data[off:], 0)
			dirty = true
		}
		if dirty {
			if c.hasCsum {
				ondisk.SealOrphanBlock(data, seed, blk)
			}
			c.write(blk, data)
		}
	}
	s.FeatureROCompat.Set(s.FeatureROCompat.Get() &^ ondisk.ROCompatOrphanPresent)
	c.setSuper()
}

// checkOrphanFile checks that the orphan file is empty once all is done.
func (c *checker) checkOrphanFile() {
	s := c.sb
	present := s.HasROCompat(ondisk.ROCompatOrphanPresent)
	clearPresent := func(code Code) {
		if present && c.fix(code, at(0)) {
			s.FeatureROCompat.Set(s.FeatureROCompat.Get() &^ ondisk.ROCompatOrphanPresent)
			c.setSuper()
		}
	}
	if !s.HasCompat(ondisk.CompatOrphanFile) {
		clearPresent(P6OrphanPresentOnly)
		return
	}
	ino := ondisk.Ino(s.OrphanFileInum.Get())
	if !s.HasCompat(ondisk.CompatHasJournal) {
		if c.fix(P6OrphanNoJournal, at(ino)) {
			s.FeatureCompat.Set(s.FeatureCompat.Get() &^ ondisk.CompatOrphanFile)
			s.OrphanFileInum.Set(0)
			c.setSuper()
			c.deallocateLate(ino)
		}
		return
	}
	switch c.cleanOrphanFile(ino) {
	case orphanClean:
		clearPresent(P6OrphanPresent)
	case orphanCleaned:
		if present {
			s.FeatureROCompat.Set(s.FeatureROCompat.Get() &^ ondisk.ROCompatOrphanPresent)
			c.setSuper()
		}
	case orphanCorrupt:
		if c.fix(P6OrphanCorrupt, at(ino)) {
			c.orphanAnew(ino)
		}
	}
}

// orphanState is how the orphan file was found.
type orphanState int

const (
	orphanClean orphanState = iota
	orphanCleaned
	orphanCorrupt
)

// emptyOrphanBlock returns what block blk of the orphan file holds if it names
// no orphans.
func (c *checker) emptyOrphanBlock(seed uint32, blk ondisk.Fsblk) []byte {
	b := make([]byte, c.blockSize)
	binary.LittleEndian.PutUint32(b[len(b)-ondisk.OrphanTailSize:], ondisk.OrphanMagic)
	if c.hasCsum {
		ondisk.SealOrphanBlock(b, seed, blk)
	}
	return b
}

// cleanOrphanFile empties the blocks of the orphan file that are not empty.
func (c *checker) cleanOrphanFile(ino ondisk.Ino) orphanState {
	r, err := c.inode(ino)
	if err != nil || r.Base().Mode.Get()&ondisk.ModeFmt != ondisk.ModeReg || r.Base().LinksCount.Get() == 0 || r.Size(false) == 0 {
		return orphanCorrupt
	}
	p := at(ino)
	if r.Size(false)%int64(c.blockSize) != 0 {
		c.tell(P6OrphanSize, p)
		return orphanCorrupt
	}
	runs, _, err := c.runs(r)
	if err != nil {
		return orphanCorrupt
	}
	seed := ondisk.InodeSeed(c.seed, ino, r.Base().Generation.Get())
	state := orphanClean
	for l := range uint64(r.Size(false)) >> c.blockBits {
		p.Lblk = int64(l)
		blk := lookup(runs, l)
		if blk == 0 {
			c.tell(P6OrphanHole, p)
			return orphanCorrupt
		}
		want := c.emptyOrphanBlock(seed, blk)
		if data, err := c.block(blk); err == nil && bytes.Equal(data, want) {
			continue
		}
		if state != orphanCleaned && !c.fix(P6OrphanNotClean, p) {
			return orphanCorrupt
		}
		state = orphanCleaned
		c.write(blk, want)
	}
	return state
}

// orphanBlocks is how large an orphan file is made.
const orphanBlocks = 32

// orphanAnew makes the orphan file anew, in new blocks. Pass 5 is over: bitmaps on
// the device follow.
func (c *checker) orphanAnew(ino ondisk.Ino) {
	s := c.sb
	if c.invalid {
		c.tell(P6OrphanBadBitmaps, at(ino))
		return
	}
	if !c.inodeUsed.test(uint64(ino)) || ino < c.firstIno {
		// Its number says nothing: another takes its place.
		var ok bool
		if ino, ok = c.allocInode(false); !ok {
			c.tell(P6OrphanCreate, at(ino))
			c.invalid = true
			return
		}
		r := make(ondisk.RawInode, c.inodeSize)
		if c.inodeSize > ondisk.GoodOldInodeSz {
			binary.LittleEndian.PutUint16(r[ondisk.GoodOldInodeSz:], s.WantExtraIsize.Get())
		}
		b := r.Base()
		b.Mode.Set(ondisk.ModeReg | 0o600)
		b.LinksCount.Set(1)
		if c.hasExtents {
			b.Flags.Set(ondisk.FlagExtents)
			ondisk.InitExtentNode(b.Block[:], 0)
		}
		c.writeInode(ino, r)
		c.syncInodeBitmap(ino)
	}
	if !c.contentAnew(ino, make([]byte, orphanBlocks<<c.blockBits)) {
		c.tell(P6OrphanCreate, at(ino))
		c.invalid = true
		return
	}
	r, err := c.inode(ino)
	if err != nil {
		c.failf("orphan file: %v", err)
	}
	runs, _, _ := c.runs(r)
	seed := ondisk.InodeSeed(c.seed, ino, r.Base().Generation.Get())
	for l := range uint64(orphanBlocks) {
		blk := lookup(runs, l)
		c.write(blk, c.emptyOrphanBlock(seed, blk))
	}
	c.sync()
	s.OrphanFileInum.Set(uint32(ino))
	s.FeatureROCompat.Set(s.FeatureROCompat.Get() &^ ondisk.ROCompatOrphanPresent)
	c.setSuper()
}

// deallocateLate frees an inode after pass 5, so that the bitmaps on the device
// have to follow.
func (c *checker) deallocateLate(ino ondisk.Ino) {
	if ino == 0 || !c.inodeUsed.test(uint64(ino)) {
		return
	}
	c.restart = true // simplest: the passes see that nothing leads there
	c.editInode(ino, func(r ondisk.RawInode) {
		r.Base().LinksCount.Set(0)
		r.Base().Dtime.Set(c.now)
	})
}
