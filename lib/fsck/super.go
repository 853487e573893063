package fsck

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// super is what pass 0 finds out: geometry and features. It does not change
// once pass 0 is through, but for the superblock and the descriptors themselves.
type super struct {
	sbRaw [ondisk.SuperSize]byte
	sb    *ondisk.Super // in sbRaw
	sbBlk ondisk.Fsblk  // block of the superblock that is used; that of the primary mostly
	sbOff int64         // byte offset of the primary
	gdt   []byte        // all descriptors

	blockSize      int
	blockBits      uint
	clusterBits    uint
	clusterRatio   uint64
	inodeSize      int
	inodesPerGroup uint32
	itableBlocks   uint32
	blocksPerGroup uint64
	groups         ondisk.Group
	descSize       int
	descBlocks     uint64
	firstData      ondisk.Fsblk
	blocks         ondisk.Fsblk
	clusters       uint64
	inodes         uint32
	firstIno       ondisk.Ino
	seed           uint32
	haveBlock0     bool // block 0 may be written through write

	hasCsum, hasGDTCsum, hasExtents, has64, hasFiletype, hasHugeFile, hasMetaBG bool
	hasFlexBG, hasInline, hasEAInode, hasBigalloc, hasLargeDir, hasQuota        bool
	hasCasefold, hasEncrypt, hasShared                                          bool

	sbDirty, gdtDirty bool
	usedBackup        bool
	triedBackup       bool                  // whether it was better or not
	onlyReplay        bool                  // the superblock is good for nothing but finding the journal
	badBB, badIB      map[ondisk.Group]bool // metadata to be placed anew
	badIT             map[ondisk.Group]bool
	thawed            map[ondisk.Group]bool // that were said never to have been used, or lay elsewhere: their bitmaps are written anew
	replayed          bool
	journalGone       bool            // the journal was deleted, and may be made anew
	orphansFreed      bool            // by this run
	noReplay          bool            // the journal is to be left alone
	jnlBackup         ondisk.RawInode // made of the superblock's copy, where the journal inode is damaged
}

// knownCompat, knownIncompat and knownROCompat are the features that are understood.
// What is compatible for mounting may all the same be something to check.
const (
	knownCompat = ondisk.CompatDirPrealloc | ondisk.CompatImagicInodes | ondisk.CompatHasJournal | ondisk.CompatExtAttr |
		ondisk.CompatResizeInode | ondisk.CompatDirIndex | ondisk.CompatSparseSuper2 | ondisk.CompatFastCommit |
		ondisk.CompatStableInodes | ondisk.CompatOrphanFile
	knownIncompat = ondisk.IncompatFiletype | ondisk.IncompatRecover | ondisk.IncompatMetaBG | ondisk.IncompatExtents |
		ondisk.Incompat64Bit | ondisk.IncompatMMP | ondisk.IncompatFlexBG | ondisk.IncompatEAInode | ondisk.IncompatCsumSeed |
		ondisk.IncompatLargeDir | ondisk.IncompatInlineData | ondisk.IncompatEncrypt | ondisk.IncompatCasefold
	knownROCompat = ondisk.ROCompatSparseSuper | ondisk.ROCompatLargeFile | ondisk.ROCompatHugeFile | ondisk.ROCompatGDTCsum |
		ondisk.ROCompatDirNlink | ondisk.ROCompatExtraIsize | ondisk.ROCompatQuota | ondisk.ROCompatBigalloc |
		ondisk.ROCompatMetadataCsum | ondisk.ROCompatReadonly | ondisk.ROCompatProject | ondisk.ROCompatSharedBlocks |
		ondisk.ROCompatVerity | ondisk.ROCompatOrphanPresent
)

// encodingUTF8 is the encoding of names that is understood.
const encodingUTF8 = 1

// openSuper reads the superblock and the descriptors, from a backup where the
// primary is of no use.
func (c *checker) openSuper() {
	c.thawed = map[ondisk.Group]bool{}
	c.sb = endian.View[ondisk.Super](c.sbRaw[:])
	c.sbOff = ondisk.SuperOffset
	off := c.sbOff
	if c.opts.SbBlock != 0 {
		size := c.opts.SbSize
		if size == 0 {
			size = c.guessSize(c.opts.SbBlock)
		}
		off = int64(c.opts.SbBlock) * int64(size)
	}
	err := c.loadSuper(off)
	if err == nil && c.opts.SbSize != 0 && c.opts.SbSize != c.blockSize {
		err = ondisk.Corrupt("superblock", 24, "blocks of %d bytes, not %d", c.blockSize, c.opts.SbSize)
	}
	if err != nil && c.opts.SbBlock == 0 && retry(err) {
		p := at(0)
		p.Text = err.Error()
		b := int64(0)
		if newer(err) { // unless a backup says something else
			b = c.findBackup()
		}
		if b != 0 || !newer(err) {
			c.tell(P0OpenFailed, p)
		}
		if b == 0 && !newer(err) {
			b = c.findBackup()
		}
		if b != 0 && c.loadSuper(b) == nil {
			err = nil
			c.useBackup()
			c.res.BackupUsed = uint64(c.sbBlk)
		}
	}
	if errors.Is(err, errOdd) && c.sb.HasIncompat(ondisk.IncompatRecover) && c.canWrite() {
		c.onlyReplay = true // the journal may hold a better superblock
		return
	}
	if err != nil {
		c.res.SuperError = err
		p := at(0)
		p.Text = err.Error()
		var u *ondisk.UnsupportedError
		if errors.Is(err, errInodeCount) {
			c.tell(P0InodeCountBig, p)
		}
		if !errors.As(err, &u) {
			c.tell(P0SBCorrupt, p)
		}
		c.abort(fmt.Errorf("%w: %w", ErrUnusable, err))
	}
	if c.opts.SbBlock != 0 {
		c.useBackup()
	}
	if !c.usedBackup && c.opts.Mode != ModePreen && !c.descsSane() {
		p := at(0)
		c.tell(P0CheckDescFailed, p)
		c.tryBackupDescs()
	}
	if c.usedBackup {
		c.sbDirty, c.gdtDirty = true, true
		c.changed = c.changed || c.canWrite()
		if c.opts.SbBlock == 0 && c.canWrite() {
			c.fixed = true
		}
	}
}

// useBackup notes that superblock and descriptors come from a backup. What that
// says of groups that were never used may be of long ago.
func (c *checker) useBackup() {
	c.usedBackup, c.triedBackup = true, true
	if !c.hasGDTCsum {
		return
	}
	for g := range c.groups {
		c.thaw(g)
		c.sealDesc(g)
	}
}

// thaw takes from a group what says that it was never used.
func (c *checker) thaw(g ondisk.Group) {
	d := c.desc(g)
	c.thawed[g] = d.HasFlag(ondisk.BGBlockUninit | ondisk.BGInodeUninit)
	d.SetFlags(0, ondisk.BGBlockUninit|ondisk.BGInodeUninit)
	d.SetItableUnused(0)
}

// retry tells whether a backup may be better than what failed with err.
func retry(err error) bool {
	var u *ondisk.UnsupportedError
	return !errors.As(err, &u) && !errors.Is(err, errInodeCount) || newer(err)
}

// newer tells whether err may be that the file system is of a version to come.
func newer(err error) bool { return errors.Is(err, errNewer) || errors.Is(err, errDescSize) }

var (
	errDescSize   = errors.New("size of a group descriptor is wrong")
	errNewer      = errors.New("the file system is of a version to come, or the superblock is damaged")
	errInodeCount = errors.New("more inodes than can be")
	errOdd        = errors.New("a field is wrong") // that finding the journal does not take
)

// guessSize returns the block size with which there is a superblock in block b.
func (c *checker) guessSize(b uint64) int {
	for size := ondisk.MinBlockSize; size <= ondisk.MaxBlockSize; size *= 2 {
		if c.isSuper(int64(b)*int64(size)) == size {
			return size
		}
	}
	return ondisk.MinBlockSize
}

// isSuper returns the block size of the superblock at off, 0 if there is none.
func (c *checker) isSuper(off int64) int {
	var b [ondisk.SuperSize]byte
	if off < 0 || off > c.dev.Size()-ondisk.SuperSize || c.readAt(b[:], off) != nil {
		return 0
	}
	s := endian.View[ondisk.Super](b[:])
	if s.Magic.Get() != ondisk.SuperMagic || s.LogBlockSize.Get() > 6 {
		return 0
	}
	return 1024 << s.LogBlockSize.Get()
}

// findBackup looks where backups of the superblock lie by default and returns
// the offset of a good one, 0 if there is none.
func (c *checker) findBackup() int64 {
	for bits := uint(10); bits <= 16; bits++ {
		if c.opts.SbSize != 0 && c.opts.SbSize != 1<<bits {
			continue
		}
		first := int64(0)
		if bits == 10 {
			first = 1
		}
		for _, g := range []int64{1, 3, 5, 7, 9, 25, 27, 49} {
			off := (g*8<<bits + first) << bits
			if c.isSuper(off) != 1<<bits {
				continue
			}
			t := checker{dev: c.dev, res: &Result{}, super: super{sbOff: c.sbOff}}
			t.sb = endian.View[ondisk.Super](t.sbRaw[:])
			if t.loadSuper(off) == nil {
				return off
			}
		}
	}
	return 0
}

// loadSuper reads the superblock at off and what follows from it. An error says
// that it cannot be worked with.
func (c *checker) loadSuper(off int64) error {
	if c.dev.Size() < ondisk.SuperOffset+ondisk.SuperSize {
		return ondisk.Corrupt("superblock", 0, "the device is too small to have one")
	}
	if err := c.readAt(c.sbRaw[:], off); err != nil {
		return err
	}
	s := c.sb
	var odd error // what does not keep the journal from being found
	bad := func(at int, format string, args ...any) error {
		return ondisk.Corrupt("superblock", at, format, args...)
	}
	if s.Magic.Get() != ondisk.SuperMagic {
		return bad(56, "magic %#x", s.Magic.Get())
	}
	if s.RevLevel.Get() > ondisk.DynamicRev {
		return fmt.Errorf("%w: %w", errNewer, &ondisk.UnsupportedError{Feature: fmt.Sprintf("revision %d", s.RevLevel.Get())})
	}
	if s.HasROCompat(ondisk.ROCompatMetadataCsum) {
		if s.ChecksumType[0] != 1 {
			return fmt.Errorf("%w: %w", errNewer, &ondisk.UnsupportedError{Feature: fmt.Sprintf("checksum type %d", s.ChecksumType[0])})
		}
		if w := ondisk.SuperCsum(s); w != s.Checksum.Get() {
			return ondisk.BadCsum("superblock", ondisk.SuperSize-4, s.Checksum.Get(), w)
		}
	}
	if s.RevLevel.Get() >= ondisk.DynamicRev {
		in := s.FeatureIncompat.Get()
		if in&ondisk.IncompatJournalDev != 0 {
			return &ondisk.UnsupportedError{Feature: "this is an external journal, not a file system"}
		}
		if x := s.FeatureCompat.Get() &^ knownCompat; x != 0 {
			return &ondisk.UnsupportedError{Feature: fmt.Sprintf("compat %#x", x)}
		}
		if x := in &^ knownIncompat; x != 0 {
			return &ondisk.UnsupportedError{Feature: fmt.Sprintf("incompat %#x", x)}
		}
		if in&ondisk.IncompatCasefold != 0 && s.Encoding.Get() != encodingUTF8 {
			return &ondisk.UnsupportedError{Feature: fmt.Sprintf("encoding %d of names", s.Encoding.Get())}
		}
		if x := s.FeatureROCompat.Get() &^ knownROCompat; x != 0 {
			return &ondisk.UnsupportedError{Feature: fmt.Sprintf("ro_compat %#x", x)}
		}
	}
	if s.LogBlockSize.Get() > 6 || s.LogClusterSize.Get() > 30 {
		return bad(24, "block size 2^%d, cluster size 2^%d", s.LogBlockSize.Get()+10, s.LogClusterSize.Get()+10)
	}
	c.blockBits = uint(s.LogBlockSize.Get()) + 10
	c.blockSize = 1 << c.blockBits
	c.clusterBits = 0
	if s.HasROCompat(ondisk.ROCompatBigalloc) {
		if s.LogClusterSize.Get() < s.LogBlockSize.Get() {
			return bad(28, "clusters smaller than blocks")
		}
		c.clusterBits = uint(s.LogClusterSize.Get() - s.LogBlockSize.Get())
		if c.clusterBits > 16 {
			return bad(28, "clusters of 2^%d blocks", c.clusterBits)
		}
	} else if s.LogClusterSize.Get() != s.LogBlockSize.Get() {
		c.tell(P0NoFragments, at(0))
	}
	c.clusterRatio = 1 << c.clusterBits
	c.inodeSize = s.InodeSz()
	if c.inodeSize < ondisk.GoodOldInodeSz || c.inodeSize > c.blockSize || bits.OnesCount(uint(c.inodeSize)) != 1 {
		return bad(88, "inodes of %d bytes", c.inodeSize)
	}
	c.descSize = s.DescSz()
	if c.descSize < ondisk.GroupDescMin || s.HasIncompat(ondisk.Incompat64Bit) && c.descSize < ondisk.GroupDescMin64 ||
		c.descSize > min(c.blockSize, 1024) || bits.OnesCount(uint(c.descSize)) != 1 {
		return fmt.Errorf("%w: %d bytes", errDescSize, c.descSize)
	}
	c.blocksPerGroup = uint64(s.BlocksPerGroup.Get())
	c.inodesPerGroup = s.InodesPerGroup.Get()
	most := uint64(8*c.blockSize) << c.clusterBits
	if c.blocksPerGroup < 8 || c.blocksPerGroup > most || c.blocksPerGroup%8 != 0 && c.clusterBits == 0 {
		return bad(32, "groups of %d blocks", c.blocksPerGroup)
	}
	if c.clusterBits > 0 && uint64(s.ClustersPerGroup.Get())<<c.clusterBits != c.blocksPerGroup {
		return bad(36, "groups of %d clusters", s.ClustersPerGroup.Get())
	}
	perBlock := uint32(c.blockSize / c.inodeSize)
	if c.inodesPerGroup == 0 || uint64(c.inodesPerGroup) > uint64(8*c.blockSize) {
		return bad(40, "groups of %d inodes", c.inodesPerGroup)
	}
	c.itableBlocks = (c.inodesPerGroup + perBlock - 1) / perBlock
	c.firstData = ondisk.Fsblk(s.FirstDataBlock.Get())
	c.blocks = ondisk.Fsblk(s.BlocksCount())
	if c.firstData >= c.blocks || uint64(c.itableBlocks)+3 > c.blocksPerGroup {
		return bad(4, "%d blocks, %d of them of each group's inode table", c.blocks, c.itableBlocks)
	}
	groups := (uint64(c.blocks-c.firstData) + c.blocksPerGroup - 1) / c.blocksPerGroup
	if groups > 1<<32-1 || groups*uint64(c.inodesPerGroup) > 1<<32-1 {
		return fmt.Errorf("%w: %d groups of %d", errInodeCount, groups, c.inodesPerGroup)
	}
	if uint64(c.blocks) > uint64(c.dev.Size())>>c.blockBits && groups > 1<<20 && uint64(c.blocks) > 64*uint64(c.dev.Size())>>c.blockBits {
		return bad(4, "%d blocks on a device of %d", c.blocks, c.dev.Size()>>c.blockBits)
	}
	if s.RBlocksCount() > uint64(c.blocks)/2 {
		odd = bad(8, "%d blocks of %d are reserved", s.RBlocksCount(), c.blocks)
	}
	c.groups = ondisk.Group(groups)
	c.clusters = (uint64(c.blocks-c.firstData) + c.clusterRatio - 1) >> c.clusterBits
	c.inodes = s.InodesCount.Get()
	c.firstIno = s.FirstInode()
	c.sbBlk = ondisk.Fsblk(off >> c.blockBits)
	c.haveBlock0 = false
	c.features()
	c.seed = s.CsumSeed()
	if !s.HasROCompat(ondisk.ROCompatMetadataCsum) && !s.HasIncompat(ondisk.IncompatEAInode) {
		c.seed = 0
	}
	if want := uint64(c.groups) * uint64(c.inodesPerGroup); uint64(c.inodes) > want {
		c.inodes = uint32(want)
	}
	perDesc := uint64(c.blockSize / c.descSize)
	c.descBlocks = (groups + perDesc - 1) / perDesc
	if n := int(s.ReservedGDTBlocks.Get()); n > c.blockSize/4 {
		return bad(206, "%d blocks are reserved for descriptors", n)
	}
	if err := c.loadDescs(); err != nil {
		return err
	}
	switch {
	case c.inodesPerGroup%8 != 0:
		odd = bad(40, "groups of %d inodes", c.inodesPerGroup)
	case c.firstIno < ondisk.GoodOldFirst || uint32(c.firstIno) > c.inodes:
		odd = bad(84, "first inode %d of %d", c.firstIno, c.inodes)
	}
	if odd != nil {
		return fmt.Errorf("%w: %w", errOdd, odd)
	}
	if c.reservedTooMany() {
		return bad(206, "%d blocks are reserved for descriptors, over other metadata", s.ReservedGDTBlocks.Get())
	}
	return nil
}

func (c *checker) features() {
	s := c.sb
	c.gen++
	c.hasCsum = s.HasROCompat(ondisk.ROCompatMetadataCsum)
	c.hasGDTCsum = s.HasROCompat(ondisk.ROCompatMetadataCsum | ondisk.ROCompatGDTCsum)
	c.hasExtents = s.HasIncompat(ondisk.IncompatExtents)
	c.has64 = s.HasIncompat(ondisk.Incompat64Bit)
	c.hasFiletype = s.HasIncompat(ondisk.IncompatFiletype)
	c.hasHugeFile = s.HasROCompat(ondisk.ROCompatHugeFile)
	c.hasMetaBG = s.HasIncompat(ondisk.IncompatMetaBG)
	c.hasFlexBG = s.HasIncompat(ondisk.IncompatFlexBG)
	c.hasInline = s.HasIncompat(ondisk.IncompatInlineData)
	c.hasEAInode = s.HasIncompat(ondisk.IncompatEAInode)
	c.hasBigalloc = s.HasROCompat(ondisk.ROCompatBigalloc)
	c.hasLargeDir = s.HasIncompat(ondisk.IncompatLargeDir)
	c.hasQuota = s.HasROCompat(ondisk.ROCompatQuota)
	c.hasCasefold = s.HasIncompat(ondisk.IncompatCasefold)
	c.hasShared = s.HasROCompat(ondisk.ROCompatSharedBlocks)
	c.hasEncrypt = s.HasIncompat(ondisk.IncompatEncrypt)
}

// groupFirst and groupLast return the first and the last block of a group.
func (c *checker) groupFirst(g ondisk.Group) ondisk.Fsblk {
	return c.firstData + ondisk.Fsblk(uint64(g)*c.blocksPerGroup)
}

func (c *checker) groupLast(g ondisk.Group) ondisk.Fsblk {
	return min(c.groupFirst(g)+ondisk.Fsblk(c.blocksPerGroup), c.blocks) - 1
}

// groupOf returns the group of a block.
func (c *checker) groupOf(b ondisk.Fsblk) ondisk.Group {
	return ondisk.Group(uint64(b-c.firstData) / c.blocksPerGroup)
}

// hasSuper tells whether group g has a superblock.
func (c *checker) hasSuper(g ondisk.Group) bool {
	s := c.sb
	switch {
	case g == 0:
		return true
	case s.HasCompat(ondisk.CompatSparseSuper2):
		return uint32(g) == s.BackupBGs[0].Get() || uint32(g) == s.BackupBGs[1].Get()
	case g == 1 || !s.HasROCompat(ondisk.ROCompatSparseSuper):
		return true
	}
	for _, b := range []ondisk.Group{3, 5, 7} {
		n := g
		for n%b == 0 {
			n /= b
		}
		if n == 1 {
			return true
		}
	}
	return false
}

// metaFirst returns the first block of descriptors that lies by meta_bg.
func (c *checker) metaFirst() uint64 {
	if !c.hasMetaBG {
		return c.descBlocks
	}
	return min(uint64(c.sb.FirstMetaBG.Get()), c.descBlocks)
}

// groupSuper returns what group g holds of superblocks and descriptors: whether
// there is a superblock, and the run of blocks of descriptors behind it, those
// reserved for growth included.
func (c *checker) groupSuper(g ondisk.Group) (super bool, desc ondisk.Fsblk, n uint64) {
	super = c.hasSuper(g)
	first := c.groupFirst(g)
	if c.firstData == 0 && c.blockSize == 1024 && g == 0 && c.clusterBits > 0 {
		first++
	}
	if super {
		desc = first + 1
	} else {
		desc = first
	}
	perDesc := uint64(c.blockSize / c.descSize)
	if !c.hasMetaBG || uint64(g) < uint64(c.sb.FirstMetaBG.Get())*perDesc {
		if super {
			n = c.metaFirst()
			if !c.hasMetaBG {
				n = c.descBlocks + uint64(c.sb.ReservedGDTBlocks.Get())
			}
		}
		return super, desc, n
	}
	if i := uint64(g) % perDesc; i == 0 || i == 1 || i == perDesc-1 {
		n = 1
	}
	return super, desc, n
}

// descAt returns where block i of the descriptors lies, beside the superblock
// that is used.
func (c *checker) descAt(i uint64) ondisk.Fsblk {
	if i < c.metaFirst() {
		return c.sbBlk + 1 + ondisk.Fsblk(i)
	}
	perDesc := uint64(c.blockSize / c.descSize)
	g := ondisk.Group(i * perDesc)
	if c.sbBlk != ondisk.Fsblk(c.sbOff>>c.blockBits) && uint64(g)+1 < uint64(c.groups) {
		g++
	}
	_, b, _ := c.groupSuper(g)
	return b
}

// reservedTooMany tells whether the blocks that are kept for descriptors to come
// reach over most of the first group's other metadata.
func (c *checker) reservedTooMany() bool {
	if c.hasMetaBG || c.sb.ReservedGDTBlocks.Get() == 0 {
		return false
	}
	_, desc, n := c.groupSuper(0)
	d, over := c.desc(0), 0
	for _, b := range []ondisk.Fsblk{d.BlockBitmap(), d.InodeBitmap(), d.InodeTable()} {
		if b >= desc && uint64(b-desc) < n {
			over++
		}
	}
	return over > 1
}

func (c *checker) loadDescs() error {
	c.gdt = make([]byte, c.descBlocks<<c.blockBits)
	m := c.metaFirst()
	if err := c.readAt(c.gdt[:m<<c.blockBits], int64(c.sbBlk+1)<<c.blockBits); err != nil {
		return fmt.Errorf("group descriptors: %w", err)
	}
	for i := m; i < c.descBlocks; i++ {
		if err := c.read(c.descAt(i), c.gdt[i<<c.blockBits:]); err != nil {
			return fmt.Errorf("group descriptors: %w", err)
		}
	}
	return nil
}

// desc returns the descriptor of group g, in place.
func (c *checker) desc(g ondisk.Group) ondisk.Desc {
	off := int(g) * c.descSize
	return ondisk.Desc(c.gdt[off : off+c.descSize])
}

// badDesc tells which parts of group g's metadata lie where they cannot.
func (c *checker) badDesc(g ondisk.Group) (bb, ib, it bool) {
	first, last := c.groupFirst(g), c.groupLast(g)
	if c.hasFlexBG {
		first, last = max(c.firstData, 1), c.blocks-1
	}
	d := c.desc(g)
	in := func(b ondisk.Fsblk, n uint32) bool {
		return b >= first && b != 0 && b <= last && last-b >= ondisk.Fsblk(n-1)
	}
	return !in(d.BlockBitmap(), 1), !in(d.InodeBitmap(), 1), !in(d.InodeTable(), c.itableBlocks)
}

// descsSane tells whether all descriptors point to where metadata can be, and no
// two to the same.
func (c *checker) descsSane() bool {
	for g := range c.groups {
		if bb, ib, it := c.badDesc(g); bb || ib || it {
			return false
		}
	}
	if s := c.sb; s.RevLevel.Get() < ondisk.DynamicRev && s.FeatureROCompat.Get() != 0 {
		return true // where backups lie is not known yet
	}
	m := newBitmap(uint64(c.blocks))
	take := func(b ondisk.Fsblk, n uint64) bool {
		free := !m.anyRange(uint64(b), n)
		m.setRange(uint64(b), n)
		return free
	}
	for g := range c.groups {
		super, desc, n := c.groupSuper(g)
		if super {
			take(c.groupFirst(g), 1)
		}
		take(desc, n)
	}
	for g := range c.groups {
		d := c.desc(g)
		if !take(d.BlockBitmap(), 1) || !take(d.InodeBitmap(), 1) || !take(d.InodeTable(), uint64(c.itableBlocks)) {
			return false
		}
	}
	return true
}

// tryBackupDescs takes the superblock and descriptors of the first backup if
// those are better.
func (c *checker) tryBackupDescs() {
	off := int64(c.groupFirst(1)) << c.blockBits
	if c.groups < 2 || c.isSuper(off) != c.blockSize {
		return
	}
	t := checker{dev: c.dev, res: &Result{}, opts: c.opts, super: super{sbOff: c.sbOff}}
	t.opts.Asker = nobody{}
	t.sb = endian.View[ondisk.Super](t.sbRaw[:])
	if t.loadSuper(off) != nil || t.groups != c.groups {
		return
	}
	if c.triedBackup = true; !t.descsSane() {
		return
	}
	if c.loadSuper(off) == nil {
		c.useBackup()
		c.res.BackupUsed = uint64(c.sbBlk)
	}
}
