package fsck

import (
	"crypto/rand"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// checkSuper is the rest of pass 0: fields of the superblock, and descriptors.
func (c *checker) checkSuper() {
	s := c.sb
	c.badBB, c.badIB, c.badIT = map[ondisk.Group]bool{}, map[ondisk.Group]bool{}, map[ondisk.Group]bool{}
	if have := uint64(c.dev.Size()) >> c.blockBits; uint64(c.blocks) > have {
		p := at(0)
		p.Num, p.Want, p.Vals = uint64(c.blocks), have, true
		c.fix(P0FSSizeWrong, p)
		c.invalid = true
	}
	if want := uint32(0); c.blockSize == 1024 && c.clusterBits == 0 {
		want = 1
		if s.FirstDataBlock.Get() != want {
			c.tell(P0FirstDataBlock, at(0))
			c.tell(P0SBCorrupt, at(0))
			c.abort(ErrAborted)
		}
	}
	if want := uint64(c.groups) * uint64(c.inodesPerGroup); uint64(s.InodesCount.Get()) != want {
		p := at(0)
		p.Num, p.Want, p.Vals = uint64(s.InodesCount.Get()), want, true
		if c.fix(P0InodeCountWrong, p) {
			s.InodesCount.Set(uint32(want))
			c.inodes = uint32(want)
			c.setSuper()
		} else {
			c.inodes = min(c.inodes, uint32(want))
		}
	}
	c.checkFeatures()
	c.checkExtraIsize()
	c.checkQuotaInodes()
	c.checkDescs()
	if s.UUID == [16]byte{} {
		if c.canWrite() {
			c.random(s.UUID[:])
			s.UUID[6] = s.UUID[6]&0x0f | 0x40
			s.UUID[8] = s.UUID[8]&0x3f | 0x80
			if !c.hasCsum { // checksums that start from it stay as they are
				c.setSuperQuietly()
			} else {
				s.UUID = [16]byte{}
			}
		}
		c.tell(P0AddUUID, at(0))
	}
	c.checkMMP()
	c.checkTimes()
}

// setSuper notes that the superblock is to be written.
func (c *checker) setSuper() { c.sbDirty, c.changed = true, true }

// setSuperQuietly is setSuper for what does not count as a change.
func (c *checker) setSuperQuietly() { c.sbDirty = true }

// checkFeatures looks at features that contradict each other.
func (c *checker) checkFeatures() {
	s := c.sb
	clearRO := func(code Code, bit uint32) {
		if c.fix(code, at(0)) {
			s.FeatureROCompat.Set(s.FeatureROCompat.Get() &^ bit)
			c.setSuper()
			c.features()
		}
	}
	if s.RevLevel.Get() < ondisk.DynamicRev && s.FeatureCompat.Get()|s.FeatureIncompat.Get()|s.FeatureROCompat.Get() != 0 {
		// The kernel, too, goes by the flags whatever the revision is.
		if !c.canWrite() || c.fix(P0FSRevLevel, at(0)) {
			c.dynamicRev()
			if c.canWrite() {
				c.setSuper()
			}
			c.features()
		}
	}
	if c.hasCsum && s.HasROCompat(ondisk.ROCompatGDTCsum) {
		clearRO(P0MetaAndGDTCsum, ondisk.ROCompatGDTCsum)
	}
	if c.has64 && !c.hasExtents {
		if c.fix(P064BitWithoutExtents, at(0)) {
			s.FeatureIncompat.Set(s.FeatureIncompat.Get() | ondisk.IncompatExtents)
			c.setSuper()
			c.features()
		}
	}
	if s.HasIncompat(ondisk.IncompatCsumSeed) && !c.hasCsum {
		if c.fix(P0CsumSeedWithoutMeta, at(0)) {
			s.FeatureIncompat.Set(s.FeatureIncompat.Get() &^ ondisk.IncompatCsumSeed)
			s.ChecksumSeed.Set(0)
			c.setSuper()
		}
	}
	if s.CreatorOS.Get() == ondisk.OSHurd && c.hasFiletype {
		if c.fix(P0HurdClearFiletype, at(0)) {
			s.FeatureIncompat.Set(s.FeatureIncompat.Get() &^ ondisk.IncompatFiletype)
			c.setSuper()
			c.features()
		}
	}
	if c.hasMetaBG && uint64(s.FirstMetaBG.Get()) > c.descBlocks {
		p := at(0)
		p.Num = uint64(s.FirstMetaBG.Get())
		if c.fix(P0FirstMetaBGTooBig, p) {
			s.FeatureIncompat.Set(s.FeatureIncompat.Get() &^ ondisk.IncompatMetaBG)
			s.FirstMetaBG.Set(0)
			c.setSuper()
			c.features()
		}
	}
	if s.HasCompat(ondisk.CompatResizeInode) && c.hasMetaBG {
		if c.fix(P0DisableResizeInode, at(0)) {
			s.FeatureCompat.Set(s.FeatureCompat.Get() &^ ondisk.CompatResizeInode)
			s.ReservedGDTBlocks.Set(0)
			c.setSuper()
		}
	}
	if s.Flags.Get()&ondisk.SuperFlagTestFS != 0 && c.canWrite() && c.fix(P0ClearTestFS, at(0)) {
		s.Flags.Set(s.Flags.Get() &^ ondisk.SuperFlagTestFS)
		c.setSuper()
	}
	if s.Flags.Get()&(ondisk.SuperFlagSignedHash|ondisk.SuperFlagUnsignedHash) == 0 && s.HasCompat(ondisk.CompatDirIndex) {
		if c.canWrite() {
			s.Flags.Set(s.Flags.Get() | ondisk.SuperFlagSignedHash)
			c.setSuper()
		}
		c.tell(P0DirhashHint, at(0))
	}
}

// dynamicRev makes the superblock one of the revision that has features.
func (c *checker) dynamicRev() {
	c.sb.RevLevel.Set(ondisk.DynamicRev)
	c.sb.FirstIno.Set(uint32(ondisk.GoodOldFirst))
	c.sb.InodeSize.Set(ondisk.GoodOldInodeSz)
}

// checkExtraIsize checks the sizes that new inodes are to have.
func (c *checker) checkExtraIsize() {
	s := c.sb
	if c.inodeSize <= ondisk.GoodOldInodeSz {
		return
	}
	bad := func(n uint16) bool {
		return n != 0 && (n < 4 || n%4 != 0 || int(n) > c.inodeSize-ondisk.GoodOldInodeSz)
	}
	if n := s.MinExtraIsize.Get(); bad(n) {
		p := at(0)
		p.Num = uint64(n)
		if c.fix(P0MinExtraIsize, p) {
			s.MinExtraIsize.Set(ondisk.InodeExtraSize)
			c.setSuper()
		}
	}
	if n := s.WantExtraIsize.Get(); bad(n) {
		p := at(0)
		p.Num = uint64(n)
		if c.fix(P0WantExtraIsize, p) {
			s.WantExtraIsize.Set(ondisk.InodeExtraSize)
			c.setSuper()
		}
	}
}

// checkQuotaInodes checks the numbers of hidden quota inodes.
func (c *checker) checkQuotaInodes() {
	s := c.sb
	if s.OrphanFileInum.Get() != 0 && !s.HasCompat(ondisk.CompatOrphanFile) && c.canWrite() {
		s.OrphanFileInum.Set(0) // it names whatever inode that is
		c.setSuper()
	}
	for _, q := range []struct {
		inum interface {
			Get() uint32
			Set(uint32)
		}
		want ondisk.Ino
	}{{&s.UsrQuotaInum, ondisk.UsrQuotaIno}, {&s.GrpQuotaInum, ondisk.GrpQuotaIno}, {&s.PrjQuotaInum, 0}} {
		n := ondisk.Ino(q.inum.Get())
		if n == 0 || n == q.want || n >= c.firstIno && uint32(n) <= c.inodes {
			continue
		}
		p := at(n)
		if c.fix(P0InvalidQuotaInode, p) {
			q.inum.Set(0)
			c.setSuper()
		}
	}
}

// checkDescs checks the group descriptors. A part that lies where it cannot is
// placed anew in pass 1.
func (c *checker) checkDescs() {
	for g := range c.groups {
		if g%4096 == 0 {
			c.poll()
		}
		d := c.desc(g)
		bb, ib, it := c.badDesc(g)
		p := at(0)
		p.Group = int64(g)
		if bb && d.BlockBitmap() == 0 && c.firstData == 0 && !c.hasFlexBG {
			c.badBB[g] = true // there is none: not a block outside
		} else if bb {
			q := p
			q.Blk = d.BlockBitmap()
			if c.fix(P0BBNotGroup, q) {
				d.SetBlockBitmap(0)
			}
			c.badBB[g] = true
		}
		if ib {
			q := p
			q.Blk = d.InodeBitmap()
			if c.fix(P0IBNotGroup, q) {
				d.SetInodeBitmap(0)
			}
			c.badIB[g] = true
		}
		if it {
			q := p
			q.Blk = d.InodeTable()
			if c.fix(P0ItableNotGroup, q) {
				d.SetInodeTable(0)
			}
			c.badIT[g] = true
		}
		c.checkDesc(g, d)
	}
	c.endLatch(latchGDTCsum)
	c.latch[latchReloc] = latchState{}
}

// checkDesc checks the checksum and the flags of a descriptor.
func (c *checker) checkDesc(g ondisk.Group, d ondisk.Desc) {
	p := at(0)
	p.Group = int64(g)
	touched := false
	if c.hasGDTCsum {
		if want := ondisk.DescCsum(c.sb, c.seed, g, d); want != d.Lo().Checksum.Get() {
			q := p
			q.Num, q.Want, q.Vals = uint64(d.Lo().Checksum.Get()), uint64(want), true
			if c.fix(P0GDTCsum, q) {
				c.thaw(g)
				touched = true
			}
			c.opts.Force = true
		}
	} else if d.HasFlag(ondisk.BGBlockUninit|ondisk.BGInodeUninit) || d.ItableUnused() != 0 {
		if c.fix(P0GDTUninit, p) {
			c.thaw(g)
			touched = true
		}
		c.opts.Force = true
	}
	if g == c.groups-1 && d.HasFlag(ondisk.BGBlockUninit) {
		if c.fix(P0BBUninitLast, p) {
			d.SetFlags(0, ondisk.BGBlockUninit)
			touched = true
		}
		c.opts.Force = true
	}
	if g == 0 && c.hasGDTCsum && (d.HasFlag(ondisk.BGInodeUninit) || d.ItableUnused()+c.reserved(g) > c.inodesPerGroup) {
		// The root is here, whatever the descriptor says.
		q := p
		q.Num = uint64(d.ItableUnused())
		if c.fix(P0GDTItableUnused, q) {
			d.SetFlags(0, ondisk.BGInodeUninit)
			d.SetItableUnused(0)
			touched = true
		}
		c.opts.Force = true
	} else if c.hasGDTCsum && (d.ItableUnused() > d.FreeInodes() || d.ItableUnused() > c.inodesPerGroup) {
		q := p
		q.Num = uint64(d.ItableUnused())
		if c.fix(P0GDTItableUnused, q) {
			d.SetItableUnused(0)
			touched = true
		}
		c.opts.Force = true
	}
	if touched {
		c.sealDesc(g)
	}
}

// sealDesc sets the checksum of a descriptor and notes that it is to be written.
func (c *checker) sealDesc(g ondisk.Group) {
	d := c.desc(g)
	if c.hasGDTCsum {
		d.Lo().Checksum.Set(ondisk.DescCsum(c.sb, c.seed, g, d))
	}
	c.gdtDirty = true
}

// checkTimes looks for times ahead of the clock.
func (c *checker) checkTimes() {
	s := c.sb
	if c.opts.BrokenClock {
		return
	}
	const day = 86400
	for _, t := range []struct {
		get          uint32
		set          func(uint32)
		wrong, fudge Code
	}{
		{s.Mtime.Get(), s.Mtime.Set, P0FutureLastMount, P0FutureMountFudged},
		{s.Wtime.Get(), s.Wtime.Set, P0FutureLastWrite, P0FutureWriteFudged},
	} {
		if t.get <= c.now {
			continue
		}
		p := at(0)
		p.Num, p.Want, p.Vals = uint64(t.get), uint64(c.now), true
		if c.opts.AcceptTimeFudge && t.get <= c.now+day {
			c.tell(t.fudge, p)
			t.set(c.now)
			c.setSuperQuietly()
		} else if c.fix(t.wrong, p) {
			t.set(c.now)
			c.setSuper()
		}
	}
}

// random fills b with random bytes.
func (c *checker) random(b []byte) {
	if c.opts.Rand != nil {
		c.opts.Rand(b)
		return
	}
	_, _ = rand.Read(b)
}
