package fsck

import (
	"fmt"
	"time"

	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// skip tells whether the file system says that it is clean, and no reason to
// check it is known.
func (c *checker) skip() bool {
	s := c.sb
	c.res.MaxCount, c.res.MntCount = int(int16(s.MaxMntCount.Get())), int(s.MntCount.Get())
	c.res.CheckEvery = time.Duration(s.Checkinterval.Get()) * time.Second
	c.res.SinceCheck = time.Duration(int64(c.now)-int64(s.Lastcheck.Get())) * time.Second
	o := &c.opts
	if o.Force || o.CompressDirs || c.invalid || c.fixed || c.usedBackup {
		return false
	}
	max, every := c.res.MaxCount, c.res.CheckEvery
	if o.OnBattery {
		max, every = 2*max, 2*every
	}
	why := ""
	switch {
	case (c.res.LastState|s.State.Get())&ondisk.StateError != 0:
		why = "contains a file system with errors"
	case c.res.LastState&ondisk.StateValid == 0:
		why = "was not cleanly unmounted"
	case s.HasIncompat(ondisk.IncompatRecover) && c.noReplay:
		why = "has a journal that was not replayed"
	case max > 0 && c.res.MntCount >= max:
		why = fmt.Sprintf("has been mounted %d times without being checked", c.res.MntCount)
	case every > 0 && c.now < s.Lastcheck.Get() && !o.BrokenClock:
		why = "was checked in the future, by its clock"
	case every > 0 && c.res.SinceCheck >= every:
		why = fmt.Sprintf("has gone %d days without being checked", int(c.res.SinceCheck.Hours())/24)
	}
	if why != "" {
		o.Asker.Note(why + ", check forced")
		return false
	}
	c.addCounts()
	c.freeOrphans() // as at each mount
	if c.sbDirty || c.gdtDirty {
		if err := c.saveState(); err != nil {
			c.abort(err)
		}
	}
	return true
}

// addCounts makes the totals the sums of the groups' counts: the kernel keeps
// only these up to date.
func (c *checker) addCounts() {
	s := c.sb
	blocks, inodes := uint64(0), uint64(0)
	for g := range c.groups {
		d := c.desc(g)
		blocks += uint64(d.FreeBlocks()) << c.clusterBits
		inodes += uint64(d.FreeInodes())
	}
	if blocks > uint64(c.blocks) || inodes > uint64(c.inodes) || !c.canWrite() {
		return
	}
	p := at(0)
	p.Vals = true
	if p.Num, p.Want = uint64(s.FreeInodes.Get()), inodes; p.Num != p.Want {
		c.tell(P0FreeInodeCount, p)
		s.FreeInodes.Set(uint32(inodes))
		c.setSuperQuietly()
	}
	if p.Num, p.Want = s.FreeBlocksCount(), blocks; p.Num != p.Want {
		c.tell(P0FreeBlockCount, p)
		s.SetFreeBlocksCount(blocks)
		c.setSuperQuietly()
	}
}

// beforePasses does what has to be done before pass 1: orphans are freed, and
// the resize inode is checked.
func (c *checker) beforePasses() {
	c.freeOrphans()
	c.hideQuota()
	c.checkResizeInode()
}

// afterPasses makes anew what was given up, and writes everything home.
func (c *checker) afterPasses() {
	c.recreateJournal()
	c.moveJournal()
	c.keepJournalMap()
	c.checkOrphanFile()
	c.checkQuota()
	c.summary()
	if err := c.saveState(); err != nil {
		c.abort(err)
	}
	c.discardFree()
}

// summary fills in what the last line tells.
func (c *checker) summary() {
	r, s := c.res, c.sb
	r.Features = e2p.FeatureNames(e2p.FeaturesOf(s))
	r.Inodes, r.Blocks = uint64(s.InodesCount.Get()), uint64(c.blocks)
	r.InodesUsed = r.Inodes - min(r.Inodes, uint64(s.FreeInodes.Get()))
	r.BlocksUsed = r.Blocks - min(r.Blocks, s.FreeBlocksCount())
}

// saveState writes descriptors, and the superblock last: it says that the file
// system is clean if nothing is left.
func (c *checker) saveState() error {
	if !c.canWrite() || c.sb == nil || c.res.SuperError != nil {
		return nil
	}
	s := c.sb
	checked := c.res.InodesUsed > 0 && !c.res.Clean && !c.opts.OnlyJournal && !c.restart
	was := s.State.Get()
	if checked && !c.invalid {
		s.State.Set(was&^(ondisk.StateError|ondisk.StateOrphans) | ondisk.StateValid)
		if was&ondisk.StateError != 0 {
			c.clearErrors()
		}
	} else if c.invalid {
		s.State.Set(was &^ ondisk.StateValid)
	}
	if s.State.Get() != was {
		c.sbDirty = true
		if was&ondisk.StateValid == 0 && checked && !c.changed && c.res.LastState&ondisk.StateValid != 0 {
			c.sbDirty = true
		}
	}
	if checked {
		s.MntCount.Set(0)
		s.Lastcheck.Set(c.now)
		s.LastcheckHi[0] = 0
		c.sbDirty = true
	}
	if !c.sbDirty && !c.gdtDirty && !c.dirtied {
		return nil
	}
	s.Wtime.Set(c.now)
	s.WtimeHi[0] = 0
	c.writeDescs()
	c.sync()
	c.writeBackups()
	c.writeSuper()
	return nil
}

// clearErrors forgets the errors that the kernel recorded.
func (c *checker) clearErrors() {
	s := c.sb
	s.ErrorCount.Set(0)
	s.FirstErrorTime.Set(0)
	s.FirstErrorIno.Set(0)
	s.FirstErrorBlock.Set(0)
	s.FirstErrorFunc = [32]byte{}
	s.FirstErrorLine.Set(0)
	s.LastErrorTime.Set(0)
	s.LastErrorIno.Set(0)
	s.LastErrorLine.Set(0)
	s.LastErrorBlock.Set(0)
	s.LastErrorFunc = [32]byte{}
	s.FirstErrorTimeHi, s.LastErrorTimeHi = [1]byte{}, [1]byte{}
	s.FirstErrorErrcode, s.LastErrorErrcode = [1]byte{}, [1]byte{}
}

// writeSuper writes the primary superblock.
func (c *checker) writeSuper() {
	s := c.sb
	s.BlockGroupNr.Set(0)
	if s.HasROCompat(ondisk.ROCompatMetadataCsum) { // it may have come with the journal
		s.Checksum.Set(ondisk.SuperCsum(s))
	}
	c.dirtied = true // it is what is written here that counts
	c.writeAt(c.sbRaw[:], ondisk.SuperOffset)
	c.sync()
	c.sbDirty = false
	if s.State.Get()&ondisk.StateValid != 0 {
		c.dirtied = false
	}
}

// writeDescs writes the descriptors beside the primary superblock.
func (c *checker) writeDescs() {
	if !c.gdtDirty {
		return
	}
	c.writeDescsTo(0, false)
	c.gdtDirty = false
}

// writeDescsTo writes the descriptors that belong behind the superblock of group
// g, or with backup those that lie by meta_bg in a second place.
func (c *checker) writeDescsTo(g ondisk.Group, backup bool) {
	if c.hasSuper(g) {
		_, b, _ := c.groupSuper(g)
		for i := range c.metaFirst() {
			c.write(b+ondisk.Fsblk(i), c.gdt[i<<c.blockBits:])
		}
	}
	if g != 0 {
		return
	}
	perDesc := uint64(c.blockSize / c.descSize)
	for i := c.metaFirst(); i < c.descBlocks; i++ {
		mg := ondisk.Group(i * perDesc)
		if backup {
			mg++
		}
		if uint64(mg) >= uint64(c.groups) {
			continue
		}
		_, b, _ := c.groupSuper(mg)
		c.write(b, c.gdt[i<<c.blockBits:])
	}
}

// writeBackups writes the backups of superblock and descriptors, if the first one
// no longer agrees in what does not change while mounted.
func (c *checker) writeBackups() {
	var g1 ondisk.Group
	for g := ondisk.Group(1); g < min(c.groups, 64); g++ {
		if c.hasSuper(g) {
			g1 = g
			break
		}
	}
	if g1 == 0 || !c.usedBackup && !c.backupStale(g1) || c.invalid {
		return
	}
	for g := ondisk.Group(1); g < c.groups; g++ {
		if !c.hasSuper(g) {
			continue
		}
		t := c.sbRaw
		s := endian.View[ondisk.Super](t[:])
		s.BlockGroupNr.Set(uint16(g))
		s.State.Set(s.State.Get() &^ ondisk.StateValid)
		if c.hasCsum {
			s.Checksum.Set(ondisk.SuperCsum(s))
		}
		c.writeAt(t[:], int64(c.groupFirst(g))<<c.blockBits)
		c.writeDescsTo(g, false)
	}
	c.writeDescsTo(0, true)
	c.sync()
}

// backupStale tells whether the backup of group g differs in what does not
// change while the file system is mounted.
func (c *checker) backupStale(g ondisk.Group) bool {
	var b [ondisk.SuperSize]byte
	if c.readAt(b[:], int64(c.groupFirst(g))<<c.blockBits) != nil {
		return false
	}
	t, s := endian.View[ondisk.Super](b[:]), c.sb
	const inMask, roMask = ^uint32(ondisk.IncompatRecover | ondisk.IncompatExtents), ^uint32(ondisk.ROCompatLargeFile | ondisk.ROCompatDirNlink | ondisk.ROCompatExtraIsize | ondisk.ROCompatOrphanPresent)
	return t.Magic != s.Magic || t.FeatureCompat != s.FeatureCompat || t.FeatureIncompat.Get()&inMask != s.FeatureIncompat.Get()&inMask ||
		t.FeatureROCompat.Get()&roMask != s.FeatureROCompat.Get()&roMask || t.BlocksCountLo != s.BlocksCountLo || t.InodesCount != s.InodesCount ||
		t.UUID != s.UUID || c.descsMoved(g)
}

// descsMoved tells whether the descriptors behind group g's superblock name other
// places than the ones in memory.
func (c *checker) descsMoved(g ondisk.Group) bool {
	_, b, _ := c.groupSuper(g)
	buf := make([]byte, c.blockSize)
	per := c.blockSize / c.descSize
	for i := range min(c.metaFirst(), 64) {
		if c.read(b+ondisk.Fsblk(i), buf) != nil {
			return true
		}
		for k := range per {
			g := ondisk.Group(int(i)*per + k)
			if g >= c.groups {
				return false
			}
			x, y := ondisk.Desc(buf[k*c.descSize:(k+1)*c.descSize]), c.desc(g)
			if x.BlockBitmap() != y.BlockBitmap() || x.InodeBitmap() != y.InodeBitmap() || x.InodeTable() != y.InodeTable() {
				return true
			}
		}
	}
	return false
}

// checkMMP checks the block by which hosts keep each other off.
func (c *checker) checkMMP() {
	s := c.sb
	if !s.HasIncompat(ondisk.IncompatMMP) {
		return
	}
	b := ondisk.Fsblk(s.MMPBlock.Get())
	p := at(0)
	p.Blk = b
	if !c.valid(b, 1) {
		if c.fix(P0MMPInvalidBlock, p) {
			s.MMPBlock.Set(0)
			s.FeatureIncompat.Set(s.FeatureIncompat.Get() &^ ondisk.IncompatMMP)
			c.setSuper()
		}
		return
	}
	data, err := c.block(b)
	if err != nil {
		return
	}
	m := endian.View[ondisk.MMP](data)
	write := func() {
		m.Magic.Set(ondisk.MMPMagic)
		m.Seq.Set(ondisk.MMPSeqClean)
		if c.hasCsum {
			m.Seal(c.seed)
		}
		c.write(b, data)
		c.changed = true
	}
	switch err := m.Verify(c.seed, c.hasCsum); {
	case err == nil:
		if q := m.Seq.Get(); q != ondisk.MMPSeqClean && q != ondisk.MMPSeqFsck && c.canWrite() {
			c.abort(fmt.Errorf("multiple mount protection says that the file system is in use: see -E clear_mmp of tune2fs"))
		}
	case m.Magic.Get() != ondisk.MMPMagic:
		if c.fix(P0MMPInvalidMagic, p) {
			write()
		}
	default:
		if c.fix(P0MMPCsumInvalid, p) {
			write()
		}
	}
}
