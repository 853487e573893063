package ext2fs

import (
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// SurveyGroup says where a block group lies and what it begins with. A block of 0
// is one that the group does not have.
type SurveyGroup struct {
	First, Last ondisk.Fsblk // its blocks
	HasSuper    bool
	Super       ondisk.Fsblk // copy of the superblock; 0 is a place if HasSuper
	Descs       ondisk.Fsblk // first of DescBlocks blocks with all descriptors, and of those kept for more
	DescBlocks  uint64
	MetaBGDesc  ondisk.Fsblk // with meta_bg: the block with descriptors of the groups around
}

// groupFirst returns the first block of group g.
func (v *Survey) groupFirst(g uint64) uint64 {
	return v.first + g*uint64(v.super.BlocksPerGroup.Get())
}

// hasSuper tells whether group g begins with a copy of the superblock.
func (v *Survey) hasSuper(g uint64) bool {
	s := v.super
	switch {
	case g == 0:
		return true
	case s.FeatureCompat.Get()&ondisk.CompatSparseSuper2 != 0:
		return g == uint64(s.BackupBGs[0].Get()) || g == uint64(s.BackupBGs[1].Get())
	case g == 1 || !v.hasRO(ondisk.ROCompatSparseSuper):
		return true
	case g&1 == 0:
		return false
	}
	n := ondisk.Group(g)
	return powerOf(n, 3) || powerOf(n, 5) || powerOf(n, 7)
}

// Group returns the place of group g.
func (v *Survey) Group(g ondisk.Group) SurveyGroup {
	n := uint64(g)
	start := v.groupFirst(n)
	p := SurveyGroup{First: ondisk.Fsblk(start), Last: ondisk.Fsblk(v.blocks - 1), DescBlocks: v.descBlocks}
	if n+1 < v.groups {
		p.Last = ondisk.Fsblk(v.groupFirst(n+1) - 1)
	}
	if start == 0 && v.blockSize == 1024 {
		start = 1 // the boot block comes before
	}
	has := v.hasSuper(n)
	if has {
		p.Super = ondisk.Fsblk(start)
	}
	p.HasSuper = n == 0 || p.Super != 0
	if v.has(ondisk.IncompatMetaBG) {
		p.DescBlocks = uint64(v.super.FirstMetaBG.Get())
	}
	per := uint64(v.descPer)
	if !v.has(ondisk.IncompatMetaBG) || n/per < uint64(v.super.FirstMetaBG.Get()) {
		if has {
			p.Descs = ondisk.Fsblk(start + 1)
		}
		return p
	}
	switch n % per {
	case 0, 1, per - 1:
		p.MetaBGDesc = ondisk.Fsblk(start)
		if has {
			p.MetaBGDesc++
		}
	}
	return p
}

// descBlock returns the block of the i-th block of descriptors that is read.
func (v *Survey) descBlock(i uint64) uint64 {
	adjust := uint64(0)
	if i == 0 && v.blockSize == 1024 && v.clusterBits > 0 {
		adjust = 1
	}
	if v.image != nil {
		return v.groupBlock + i + 1
	}
	if !v.has(ondisk.IncompatMetaBG) || i < uint64(v.super.FirstMetaBG.Get()) {
		if v.groupBlock == 0 && v.blockSize == 1024 {
			adjust = 1
		} else {
			adjust = 0
		}
		return v.groupBlock + adjust + 1 + i
	}
	g := uint64(v.descPer) * i
	has := v.hasSuper(g)
	blk := v.groupFirst(g)
	one := func(b bool) uint64 {
		if b {
			return 1
		}
		return 0
	}
	// By a backup superblock, descriptors are those of the next group.
	bpg := uint64(v.super.BlocksPerGroup.Get())
	if v.groupBlock != v.first && blk+one(has)+bpg < v.blocks {
		blk += bpg
		has = v.hasSuper(g + 1)
	}
	return blk + one(has) + adjust
}

// checkDescriptors checks that the device has room for the descriptors.
func (v *Survey) checkDescriptors() error {
	end := uint64(v.dev.Size()) / uint64(v.blockSize)
	for i := uint64(0); i < v.descBlocks; i++ {
		if b := v.descBlock(i); b >= end {
			return surveyErr(ReasonShort, "descriptors at block %d: the device has %d blocks", b, end)
		}
	}
	return nil
}

// Desc returns a copy of the descriptor of group g. Where a backup superblock
// is used, its flags of what was not initialised do not count, as in e2fsprogs:
// those may be old.
func (v *Survey) Desc(g ondisk.Group) (ondisk.Desc, error) {
	if uint64(g) >= v.groups {
		return nil, surveyErr(ReasonSuper, "group %d of %d", g, v.groups)
	}
	b, err := v.block("group descriptors", v.descBlock(uint64(g)/uint64(v.descPer)))
	if err != nil {
		return nil, err
	}
	off := int(uint32(g)%v.descPer) * v.descSize
	d := ondisk.Desc(append([]byte(nil), b[off:off+v.descSize]...))
	if v.opts.SbBlock > 1 && v.hasDescCsum() {
		d.SetFlags(0, ondisk.BGBlockUninit|ondisk.BGInodeUninit)
		d.SetItableUnused(0)
		d.Lo().Checksum.Set(v.DescCsum(g, d))
	}
	return d, nil
}

// DescCsum returns the checksum that descriptor d of group g should have; 0 if
// they have none.
func (v *Survey) DescCsum(g ondisk.Group, d ondisk.Desc) uint16 {
	return ondisk.DescCsum(v.csumSB, v.seed, g, d)
}

// BitmapKind says which bitmap of a group is meant.
type BitmapKind int

// The bitmaps.
const (
	BlockBitmap BitmapKind = iota
	InodeBitmap
)

// bits returns how many bits the bitmap of a group has.
func (v *Survey) bits(which BitmapKind) uint32 {
	if which == InodeBitmap {
		return v.super.InodesPerGroup.Get()
	}
	return v.super.ClustersPerGroup.Get()
}

// Bitmap returns a copy of a bitmap of group g: of blocks, a bit for a cluster.
// One that the descriptor says is not initialised is empty; UninitRuns has what
// is in use all the same. Unless checksums are ignored, they are verified.
func (v *Survey) Bitmap(g ondisk.Group, which BitmapKind) ([]byte, error) {
	n := v.bits(which) / 8
	if n > uint32(v.blockSize) {
		return nil, surveyErr(ReasonSuper, "superblock: bitmaps of %d bytes in blocks of %d", n, v.blockSize)
	}
	if v.image != nil {
		return v.imageBitmap(g, which, n)
	}
	d, err := v.Desc(g)
	if err != nil {
		return nil, err
	}
	blk, flag, stored := d.BlockBitmap(), uint16(ondisk.BGBlockUninit), d.BlockBitmapCsum()
	what, cannot, mismatch := "block bitmap", ReasonBlockBitmap, ReasonBlockBitmapCsum
	if which == InodeBitmap {
		blk, flag, stored = d.InodeBitmap(), ondisk.BGInodeUninit, d.InodeBitmapCsum()
		what, cannot, mismatch = "inode bitmap", ReasonInodeBitmap, ReasonInodeBitmapCsum
	}
	uninit := v.hasDescCsum() && d.HasFlag(flag) && d.Lo().Checksum.Get() == v.DescCsum(g, d)
	if uninit || blk == 0 || uint64(blk) >= v.blocks {
		return make([]byte, n), nil
	}
	data := make([]byte, v.blockSize)
	if err := v.read(what, data, int64(blk)*int64(v.blockSize)); err != nil {
		return nil, surveyErr(cannot, "%s of group %d: %v", what, g, err)
	}
	if v.hasRO(ondisk.ROCompatMetadataCsum) && !v.ignoreCsum.Load() {
		if c := ondisk.Crc32c(v.seed, data[:n]) & d.CsumMask(); c != stored {
			return nil, surveyErr(mismatch, "%s of group %d: its checksum is %#08x, should be %#08x", what, g, stored, c)
		}
	}
	return data[:n:n], nil
}
