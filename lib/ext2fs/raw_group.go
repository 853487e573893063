package ext2fs

import (
	"fmt"
	"slices"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Desc returns a copy of the descriptor of group g, not verified.
func (r *Raw) Desc(g ondisk.Group) (ondisk.Desc, error) {
	b, off, err := r.descIn(g)
	if err != nil {
		return nil, err
	}
	return slices.Clone(ondisk.Desc(b[off : off+r.geo.descSize])), nil
}

// descIn returns the block with the descriptor of g, and where it is in it.
func (r *Raw) descIn(g ondisk.Group) ([]byte, int, error) {
	if g >= r.geo.groups {
		return nil, 0, fmt.Errorf("group %d of %d: %w", g, r.geo.groups, ondisk.EUCLEAN)
	}
	b, err := r.Block(r.geo.descBlock(uint32(g) / r.geo.descPerBlock))
	if err != nil {
		return nil, 0, fmt.Errorf("descriptor of group %d: %w", g, err)
	}
	return b, int(uint32(g)%r.geo.descPerBlock) * r.geo.descSize, nil
}

// DescCsum returns the checksum that fits descriptor d of group g.
func (r *Raw) DescCsum(g ondisk.Group, d ondisk.Desc) uint16 {
	return ondisk.DescCsum(r.sb, r.geo.csumSeed, g, d)
}

// VerifyDesc checks the checksum of descriptor d of group g.
func (r *Raw) VerifyDesc(g ondisk.Group, d ondisk.Desc) error {
	if r.o.IgnoreCsum || !r.geo.hasCsum && !r.geo.hasGDTCsum {
		return nil
	}
	if c := r.DescCsum(g, d); c != d.Lo().Checksum.Get() {
		return ondisk.BadCsum(fmt.Sprintf("descriptor of group %d", g), 30, uint32(d.Lo().Checksum.Get()), uint32(c))
	}
	return nil
}

// WriteDesc writes d, whose checksum is set before if seal says so, as the
// descriptor of group g.
func (r *Raw) WriteDesc(g ondisk.Group, d ondisk.Desc, seal bool) error {
	b, off, err := r.descIn(g)
	if err != nil {
		return err
	}
	if seal && (r.geo.hasCsum || r.geo.hasGDTCsum) {
		d.Lo().Checksum.Set(r.DescCsum(g, d))
	}
	b = slices.Clone(b)
	copy(b[off:off+r.geo.descSize], d)
	return r.WriteBlock(r.geo.descBlock(uint32(g)/r.geo.descPerBlock), b)
}

// GroupFirst returns the first block of group g, GroupBlocks how many it has.
func (r *Raw) GroupFirst(g ondisk.Group) ondisk.Fsblk { return r.geo.groupFirst(g) }

// GroupBlocks returns how many blocks group g has.
func (r *Raw) GroupBlocks(g ondisk.Group) uint32 { return r.geo.groupBlocks(g) }

// GroupOfBlock returns the group of block b, which is one of the file system.
func (r *Raw) GroupOfBlock(b ondisk.Fsblk) ondisk.Group { return r.geo.groupOfBlock(b) }

// GroupOfInode returns the group of inode ino, which is not 0.
func (r *Raw) GroupOfInode(ino ondisk.Ino) ondisk.Group {
	return ondisk.Group(uint32(ino-1) / r.geo.inodesPerGroup)
}

// ItableBlocks returns how many blocks the inode table of a group has.
func (r *Raw) ItableBlocks() uint32 { return r.geo.itableBlocks }

// hasUninit says whether group flags mean anything.
func (r *Raw) hasUninit() bool { return r.geo.hasCsum || r.geo.hasGDTCsum }

// BlockBitmap returns the block bitmap of group g, a bit for each cluster, to
// be read only. A bitmap that was never initialised is made up as the kernel
// would.
func (r *Raw) BlockBitmap(g ondisk.Group) ([]byte, error) {
	d, err := r.Desc(g)
	if err != nil {
		return nil, err
	}
	if r.hasUninit() && d.HasFlag(ondisk.BGBlockUninit) {
		key := ^ondisk.Fsblk(g)
		if b := r.bitmaps[key]; b != nil {
			return b, nil
		}
		if len(r.bitmaps) >= r.cacheMax {
			clear(r.bitmaps)
		}
		b := make([]byte, r.geo.blockSize)
		r.geo.initBlockBitmap(&group{no: g, blockBitmap: d.BlockBitmap(), inodeBitmap: d.InodeBitmap(), inodeTable: d.InodeTable()}, b)
		r.markStrays(g, b)
		r.bitmaps[key] = b
		return b, nil
	}
	b, err := r.Block(d.BlockBitmap())
	if err != nil {
		return nil, fmt.Errorf("block bitmap of group %d: %w", g, err)
	}
	return b, nil
}

// markStrays marks, in the bitmap of g, what groups of the same flex group have
// put there.
func (r *Raw) markStrays(g ondisk.Group, b []byte) {
	if r.geo.flexBits == 0 {
		return
	}
	first := r.geo.groupFirst(g)
	last := first + ondisk.Fsblk(r.geo.groupBlocks(g))
	mark := func(start ondisk.Fsblk, n uint32) {
		for ; n > 0; start, n = start+1, n-1 {
			if start >= first && start < last {
				setBit(b, uint32(start-first)>>r.geo.clusterBits)
			}
		}
	}
	from := g >> r.geo.flexBits << r.geo.flexBits
	to := min(uint64(from)+1<<r.geo.flexBits, uint64(r.geo.groups), uint64(from)+1<<16)
	for o := from; uint64(o) < to; o++ {
		d, err := r.Desc(o)
		if err != nil {
			continue
		}
		mark(d.BlockBitmap(), 1)
		mark(d.InodeBitmap(), 1)
		mark(d.InodeTable(), r.geo.itableBlocks)
	}
}

// InodeBitmap returns the inode bitmap of group g, to be read only.
func (r *Raw) InodeBitmap(g ondisk.Group) ([]byte, error) {
	d, err := r.Desc(g)
	if err != nil {
		return nil, err
	}
	if r.hasUninit() && d.HasFlag(ondisk.BGInodeUninit) {
		b := make([]byte, r.geo.blockSize)
		n := r.geo.inodesPerGroup
		setRange(b, n, uint32(len(b))*8-n)
		return b, nil
	}
	b, err := r.Block(d.InodeBitmap())
	if err != nil {
		return nil, fmt.Errorf("inode bitmap of group %d: %w", g, err)
	}
	return b, nil
}

// VerifyBitmaps checks the checksums of the bitmaps of group g.
func (r *Raw) VerifyBitmaps(g ondisk.Group) error {
	if r.o.IgnoreCsum || !r.geo.hasCsum {
		return nil
	}
	d, err := r.Desc(g)
	if err != nil {
		return err
	}
	check := func(what string, b []byte, err error, n, stored uint32, uninit bool) error {
		if err != nil || uninit {
			return err
		}
		if c := ondisk.Crc32c(r.geo.csumSeed, b[:n/8]) & d.CsumMask(); c != stored&d.CsumMask() {
			return ondisk.BadCsum(fmt.Sprintf("%s bitmap of group %d", what, g), 0, stored, c)
		}
		return nil
	}
	b, err := r.BlockBitmap(g)
	if err := check("block", b, err, r.geo.clustersPerGroup, d.BlockBitmapCsum(), d.HasFlag(ondisk.BGBlockUninit)); err != nil {
		return err
	}
	b, err = r.InodeBitmap(g)
	return check("inode", b, err, r.geo.inodesPerGroup, d.InodeBitmapCsum(), d.HasFlag(ondisk.BGInodeUninit))
}

// BlockUsed says whether the bitmap has block b, or its cluster, in use.
func (r *Raw) BlockUsed(b ondisk.Fsblk) (bool, error) {
	if b < r.geo.firstData {
		return true, nil
	}
	if err := r.inRange(b, 1); err != nil {
		return false, err
	}
	g := r.geo.groupOfBlock(b)
	m, err := r.BlockBitmap(g)
	if err != nil {
		return false, err
	}
	return testBit(m, uint32(b-r.geo.groupFirst(g))>>r.geo.clusterBits), nil
}

// InodeUsed says whether the bitmap has inode ino in use.
func (r *Raw) InodeUsed(ino ondisk.Ino) (bool, error) {
	if err := r.checkIno(ino); err != nil {
		return false, err
	}
	m, err := r.InodeBitmap(r.GroupOfInode(ino))
	if err != nil {
		return false, err
	}
	return testBit(m, uint32(ino-1)%r.geo.inodesPerGroup), nil
}
