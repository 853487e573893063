package ext2fs

import (
	"fmt"
	"math"
	"math/bits"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Reasons for which a layout is not possible; Format wraps them.
var (
	// ErrTooSmall: the device has no room for the metadata.
	ErrTooSmall = fmt.Errorf("the file system would be too small for its metadata: make it larger: %w", syscall.EINVAL)
	// ErrTooManyInodes: an inode table would not fit its group.
	ErrTooManyInodes = fmt.Errorf("too many inodes for the block groups: ask for fewer: %w", syscall.EINVAL)
	// ErrReservedGDT: more reserved descriptor blocks than the resize inode can map.
	ErrReservedGDT = fmt.Errorf("too many reserved group descriptor blocks: %w", syscall.EINVAL)
)

// geometry is where the fixed parts of a file system lie, before anything is
// allocated: a superblock, whose fields it looks at, and what follows from it.
type geometry struct {
	sb         *ondisk.Super
	blockSize  int
	blocks     uint64 // size of the file system
	first      uint64 // s_first_data_block
	ratio      uint64 // blocks in a cluster
	groups     uint32
	bpg        uint64 // blocks per group
	ipg        uint32 // inodes per group
	inodeSize  int
	itable     uint32 // blocks of an inode table
	descSize   int
	descBlocks uint64 // of all descriptors
	reserved   uint64 // blocks of reserved descriptors
	flex       uint32 // groups per flex group; 0 without flex_bg
	csum       bool   // metadata_csum
	gdtCsum    bool   // descriptors have checksums and uninit flags

	asked struct{ blocks, reserved uint64 } // before a group was given up
}

// newGeometry does the arithmetic of mke2fs: it fits groups and inodes to o,
// gives up a last group that is too small to be of use, and falls back to
// meta_bg where descriptors would fill their groups.
func newGeometry(o *FormatOptions, blocks uint64) (*geometry, error) {
	g := &geometry{sb: new(ondisk.Super), blockSize: o.BlockSize}
	s := g.sb
	log := uint32(bits.TrailingZeros32(uint32(o.BlockSize))) - 10
	s.Magic.Set(ondisk.SuperMagic)
	s.State.Set(ondisk.StateValid)
	s.LogBlockSize.Set(log)
	s.FeatureCompat.Set(o.Compat)
	s.FeatureIncompat.Set(o.Incompat)
	s.FeatureROCompat.Set(o.ROCompat)
	s.RevLevel.Set(ondisk.DynamicRev)
	if o.Revision0 {
		s.RevLevel.Set(ondisk.GoodOldRev)
	}
	g.csum = s.HasROCompat(ondisk.ROCompatMetadataCsum)
	g.gdtCsum = s.HasROCompat(ondisk.ROCompatMetadataCsum | ondisk.ROCompatGDTCsum)
	bigalloc := s.HasROCompat(ondisk.ROCompatBigalloc)
	s.LogClusterSize.Set(log)
	if bigalloc {
		cluster := o.ClusterSize
		if cluster == 0 {
			cluster = 16 * o.BlockSize
		}
		s.LogClusterSize.Set(uint32(bits.TrailingZeros32(uint32(cluster))) - 10)
	}
	g.ratio = 1 << (s.LogClusterSize.Get() - log)
	if s.LogClusterSize.Get() == 0 {
		s.FirstDataBlock.Set(1)
		g.first = 1
	}
	g.inodeSize = ondisk.GoodOldInodeSz
	if !o.Revision0 {
		g.inodeSize = o.InodeSize
		s.FirstIno.Set(uint32(ondisk.GoodOldFirst))
		s.InodeSize.Set(uint16(o.InodeSize))
		if o.InodeSize > ondisk.GoodOldInodeSz {
			s.MinExtraIsize.Set(ondisk.InodeExtraSize)
			s.WantExtraIsize.Set(ondisk.InodeExtraSize)
		}
	} else {
		// The good old revision implies them.
		s.FirstIno.Set(uint32(ondisk.GoodOldFirst))
		s.InodeSize.Set(ondisk.GoodOldInodeSz)
	}
	g.setBlocks(blocks &^ (g.ratio - 1))
	reserved := uint64(o.ReservedRatio * float64(g.blocks) / 100)
	if o.ReservedRatio > 0 && reserved >= g.blocks {
		return nil, fmt.Errorf("%g%% reserved leaves no blocks: %w", o.ReservedRatio, syscall.EINVAL)
	}
	g.setReserved(reserved)
	g.asked.blocks, g.asked.reserved = g.blocks, reserved
	if s.HasIncompat(ondisk.IncompatJournalDev) {
		g.setReserved(0)
		return g, nil
	}

	const maxPerGroup = 1<<16 - 8
	perGroup := uint64(o.BlocksPerGroup)
	if perGroup == 0 {
		perGroup = uint64(o.BlockSize) * 8
		if bigalloc && s.LogClusterSize.Get()+15 >= 32 {
			perGroup = uint64(o.BlockSize-1) * 8
		}
	}
	g.bpg = min(perGroup, maxPerGroup) * g.ratio
	if g.bpg > math.MaxUint32 {
		return nil, fmt.Errorf("%d blocks in a group are more than 32 bits count; make clusters smaller: %w", g.bpg, syscall.EINVAL)
	}
	if s.HasIncompat(ondisk.IncompatFlexBG) {
		g.flex = max(o.GroupsPerFlex, 1)
		s.LogGroupsPerFlex[0] = uint8(bits.TrailingZeros32(g.flex))
		if g.flex == 1 {
			g.flex = 0 // as without the feature
		}
	}
	for {
		again, err := g.fit(o, bigalloc)
		if err != nil {
			return nil, err
		}
		if !again {
			return g, nil
		}
	}
}

func (g *geometry) setBlocks(n uint64) {
	g.blocks = n
	g.sb.BlocksCountLo.Set(uint32(n))
	g.sb.BlocksCountHi.Set(uint32(n >> 32))
}

func (g *geometry) setReserved(n uint64) {
	g.sb.RBlocksCountLo.Set(uint32(n))
	g.sb.RBlocksCountHi.Set(uint32(n >> 32))
}

// fit computes groups and inodes for the current size. again is set when it has
// changed the size of the file system or of its groups instead.
func (g *geometry) fit(o *FormatOptions, bigalloc bool) (again bool, err error) {
	s := g.sb
	s.BlocksPerGroup.Set(uint32(g.bpg))
	s.ClustersPerGroup.Set(uint32(g.bpg / g.ratio))
	if g.blocks <= g.first {
		return false, ErrTooSmall
	}
	groups := ceilDiv(g.blocks-g.first, g.bpg)
	if groups > math.MaxUint32 {
		return false, fmt.Errorf("%d block groups are more than 32 bits count: %w", groups, syscall.EINVAL)
	}
	g.groups = uint32(groups)
	g.descSize = ondisk.GroupDescMin
	if s.HasIncompat(ondisk.Incompat64Bit) {
		g.descSize = max(o.DescSize, ondisk.GroupDescMin64)
		s.DescSize.Set(uint16(g.descSize))
	}
	perBlock := uint64(g.blockSize / g.descSize)
	g.descBlocks = ceilDiv(uint64(g.groups), perBlock)

	// As many inodes as asked for, else one for each 4 KiB; but enough for
	// those that every file system has.
	inodes := uint64(o.Inodes)
	if inodes == 0 {
		inodes = g.blocks
		if g.blockSize < 4096 {
			inodes /= uint64(4096 / g.blockSize)
		}
	}
	inodes = min(max(inodes, uint64(ondisk.GoodOldFirst)+1), math.MaxUint32)
	ipg := ceilDiv(inodes, uint64(g.groups))
	if ipg > uint64(g.blockSize)*8 {
		if bigalloc || g.bpg < 256 {
			return false, ErrTooManyInodes
		}
		g.bpg -= 8
		g.setBlocks(g.asked.blocks)
		return true, nil
	}
	ipg = min(ipg, 1<<16-uint64(g.blockSize/g.inodeSize))
	for {
		g.itable = uint32(ceilDiv(ipg*uint64(g.inodeSize), uint64(g.blockSize)))
		n := uint64(g.itable) * uint64(g.blockSize) / uint64(g.inodeSize)
		// A multiple of 8, so that bitmaps are whole bytes.
		n = max(n, 8) &^ 7
		g.itable = uint32(ceilDiv(n*uint64(g.inodeSize), uint64(g.blockSize)))
		if n*uint64(g.groups) <= math.MaxUint32 {
			g.ipg = uint32(n)
			break
		}
		if ipg--; ipg == 0 {
			return false, ErrTooManyInodes
		}
	}
	if g.ipg*g.groups < uint32(ondisk.GoodOldFirst) {
		return false, fmt.Errorf("%d inodes are fewer than every file system has: %w", g.ipg*g.groups, ErrTooSmall)
	}
	s.InodesPerGroup.Set(g.ipg)
	s.InodesCount.Set(g.ipg * g.groups)

	if err := g.reserveGDT(o); err != nil {
		return false, err
	}
	if o.SparseBackups >= 0 && s.HasCompat(ondisk.CompatSparseSuper2) {
		g.setBackups(o.SparseBackups)
	}

	overhead := 2 + uint64(g.itable)
	if overhead > g.bpg {
		return false, ErrTooManyInodes
	}
	// Descriptors are counted in a last group with a backup even where meta_bg
	// has moved them; so does mke2fs, and the size must come out the same.
	if g.hasSuper(g.groups - 1) {
		overhead += 1 + g.descBlocks + g.reserved
	}
	rem := (g.blocks - g.first) % g.bpg
	if g.groups == 1 && rem != 0 && rem < overhead {
		return false, ErrTooSmall
	}
	if rem != 0 && rem < overhead+50 {
		// The last group would be of no use.
		g.setBlocks(g.blocks - rem)
		g.setReserved(uint64(float64(g.asked.reserved) / float64(g.asked.blocks) * float64(g.blocks)))
		return true, nil
	}
	return false, nil
}

// reserveGDT decides how many blocks the resize inode keeps for descriptors to
// come: for 1024 times the size, or what o says.
func (g *geometry) reserveGDT(o *FormatOptions) error {
	s := g.sb
	g.reserved = 0
	if s.HasCompat(ondisk.CompatResizeInode) {
		limit := uint64(math.MaxUint32)
		if g.blocks < limit/1024 {
			limit = g.blocks * 1024
		}
		if o.ResizeLimit != 0 {
			limit = o.ResizeLimit + g.first
		}
		perBlock := uint64(g.blockSize / g.descSize)
		// Where the file system is beyond the limit, the number wraps, and then
		// as many are kept as there can be.
		n := uint32(ceilDiv(ceilDiv(limit-g.first, g.bpg), perBlock)) - uint32(g.descBlocks)
		g.reserved = min(uint64(n), uint64(g.blockSize/4))
	}
	s.ReservedGDTBlocks.Set(uint16(g.reserved))
	if g.reserved > uint64(g.blockSize/4) {
		return ErrReservedGDT
	}
	if g.reserved+g.descBlocks > g.bpg*3/4 {
		s.FeatureIncompat.Set(s.FeatureIncompat.Get() | ondisk.IncompatMetaBG)
		s.FeatureCompat.Set(s.FeatureCompat.Get() &^ ondisk.CompatResizeInode)
		g.reserved = 0
		s.ReservedGDTBlocks.Set(0)
	}
	s.FirstMetaBG.Set(0)
	if s.HasIncompat(ondisk.IncompatMetaBG) {
		s.FirstMetaBG.Set(o.FirstMetaBG)
	}
	return nil
}

// setBackups names the groups with the backups of sparse_super2: the second
// and the last. A single one stands in the second place.
func (g *geometry) setBackups(n int) {
	var bgs [2]uint32
	switch {
	case n == 0 || g.groups < 2:
	case n == 1 || g.groups == 2:
		bgs[1] = 1
	default:
		bgs = [2]uint32{1, g.groups - 1}
	}
	g.sb.BackupBGs[0].Set(bgs[0])
	g.sb.BackupBGs[1].Set(bgs[1])
}

// hasSuper says whether the group has a copy of the superblock.
func (g *geometry) hasSuper(n uint32) bool {
	s := g.sb
	switch {
	case n == 0:
		return true
	case s.HasCompat(ondisk.CompatSparseSuper2):
		return n == s.BackupBGs[0].Get() || n == s.BackupBGs[1].Get()
	case n == 1 || !s.HasROCompat(ondisk.ROCompatSparseSuper):
		return true
	}
	return n&1 == 1 && (powerOf(ondisk.Group(n), 3) || powerOf(ondisk.Group(n), 5) || powerOf(ondisk.Group(n), 7))
}

// groupFirst returns the first block of the group, groupEnd the one after its last.
func (g *geometry) groupFirst(n uint32) uint64 { return g.first + uint64(n)*g.bpg }
func (g *geometry) groupEnd(n uint32) uint64   { return min(g.groupFirst(n)+g.bpg, g.blocks) }
func (g *geometry) groupOf(b uint64) uint32    { return uint32((b - g.first) / g.bpg) }

// baseMeta returns what the group holds by its number alone.
type baseMeta struct {
	super    uint64 // block of the copy of the superblock; valid if hasSuper
	hasSuper bool
	desc     uint64 // first block of descriptors
	nDesc    uint64 // of them
	descAt   uint64 // which block of descriptors desc is
	reserved uint64 // blocks after them, kept for the resize inode
}

func (g *geometry) base(n uint32) (m baseMeta) {
	at := g.groupFirst(n)
	if at == 0 && g.blockSize == 1024 {
		at = 1 // the superblock does not move for bigalloc
	}
	m.hasSuper = g.hasSuper(n)
	m.super = at
	if m.hasSuper {
		at++
	}
	perBlock := uint32(g.blockSize / g.descSize)
	meta, in := n/perBlock, n%perBlock
	if !g.sb.HasIncompat(ondisk.IncompatMetaBG) || meta < g.sb.FirstMetaBG.Get() {
		if m.hasSuper {
			m.desc, m.nDesc = at, g.descBlocks
			if g.sb.HasIncompat(ondisk.IncompatMetaBG) {
				m.nDesc = min(uint64(g.sb.FirstMetaBG.Get()), g.descBlocks)
			}
			m.reserved = g.reserved
		}
		return m
	}
	if in == 0 || in == 1 || in == perBlock-1 {
		m.desc, m.nDesc, m.descAt = at, 1, uint64(meta)
	}
	return m
}

// check refuses what no layout has, before any arithmetic on it.
func (o *FormatOptions) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf(format+": %w", append(args, syscall.EINVAL)...)
	}
	pow2 := func(n int) bool { return n > 0 && n&(n-1) == 0 }
	switch {
	case !pow2(o.BlockSize) || o.BlockSize < ondisk.MinBlockSize || o.BlockSize > ondisk.MaxBlockSize:
		return bad("block size %d is not a power of two from %d to %d", o.BlockSize, ondisk.MinBlockSize, ondisk.MaxBlockSize)
	case o.ClusterSize != 0 && o.ROCompat&ondisk.ROCompatBigalloc == 0:
		return bad("a cluster size needs the bigalloc feature")
	case o.ClusterSize != 0 && (!pow2(o.ClusterSize) || o.ClusterSize < o.BlockSize || o.ClusterSize > 256<<20):
		return bad("cluster size %d is not a power of two from the block size to 256 MiB", o.ClusterSize)
	case !o.Revision0 && (!pow2(o.InodeSize) || o.InodeSize < ondisk.GoodOldInodeSz || o.InodeSize > o.BlockSize):
		return bad("inode size %d is not a power of two from %d to the block size", o.InodeSize, ondisk.GoodOldInodeSz)
	case o.Revision0 && (o.Compat != 0 || o.Incompat != 0 || o.ROCompat != 0):
		return bad("revision 0 has no features")
	case o.Revision0 && o.InodeSize != 0 && o.InodeSize != ondisk.GoodOldInodeSz:
		return bad("revision 0 has inodes of %d bytes", ondisk.GoodOldInodeSz)
	case o.BlocksPerGroup != 0 && (o.BlocksPerGroup < 256 || o.BlocksPerGroup&7 != 0 || int(o.BlocksPerGroup) > 8*o.BlockSize):
		return bad("%d blocks per group: not a multiple of 8 from 256 to %d", o.BlocksPerGroup, 8*o.BlockSize)
	case o.GroupsPerFlex != 0 && !pow2(int(o.GroupsPerFlex)):
		return bad("%d groups per flex group: not a power of two", o.GroupsPerFlex)
	case o.DescSize != 0 && (!pow2(o.DescSize) || o.DescSize < ondisk.GroupDescMin || o.DescSize > 1024):
		return bad("descriptor size %d is not a power of two from %d to 1024", o.DescSize, ondisk.GroupDescMin)
	case !(o.ReservedRatio >= 0 && o.ReservedRatio <= 50):
		return bad("%g%% reserved: not from 0 to 50", o.ReservedRatio)
	case len(o.Label) > len(ondisk.Super{}.VolumeName):
		return bad("label %q is longer than %d bytes", o.Label, len(ondisk.Super{}.VolumeName))
	case o.JournalUUID != nil && o.Compat&ondisk.CompatHasJournal == 0:
		return bad("an external journal needs the has_journal feature")
	}
	return o.checkFeatures()
}

// featureRule says that features need one of others, or exclude them.
type featureRule struct {
	have, need [3]uint32
	excludes   bool
	why        string
}

var featureRules = []featureRule{
	{have: [3]uint32{1: ondisk.Incompat64Bit}, need: [3]uint32{1: ondisk.IncompatExtents}, why: "64bit needs the extent feature"},
	{have: [3]uint32{2: ondisk.ROCompatBigalloc}, need: [3]uint32{1: ondisk.IncompatExtents}, why: "bigalloc needs the extent feature"},
	{have: [3]uint32{1: ondisk.IncompatMetaBG}, need: [3]uint32{0: ondisk.CompatResizeInode}, excludes: true,
		why: "resize_inode and meta_bg exclude each other"},
	{have: [3]uint32{0: ondisk.CompatOrphanFile}, need: [3]uint32{0: ondisk.CompatHasJournal}, why: "orphan_file needs the has_journal feature"},
}

func (o *FormatOptions) checkFeatures() error {
	has := [3]uint32{o.Compat, o.Incompat, o.ROCompat}
	if has[1]&ondisk.IncompatJournalDev != 0 {
		return nil
	}
	any := func(bits [3]uint32) bool {
		for i := range bits {
			if has[i]&bits[i] != 0 {
				return true
			}
		}
		return false
	}
	for _, r := range featureRules {
		if any(r.have) && any(r.need) == r.excludes {
			return fmt.Errorf("%s: %w", r.why, syscall.EINVAL)
		}
	}
	const known = ondisk.IncompatFiletype | ondisk.IncompatMetaBG | ondisk.IncompatExtents | ondisk.Incompat64Bit |
		ondisk.IncompatMMP | ondisk.IncompatFlexBG | ondisk.IncompatEAInode | ondisk.IncompatCsumSeed |
		ondisk.IncompatLargeDir | ondisk.IncompatInlineData | ondisk.IncompatEncrypt | ondisk.IncompatCasefold
	if o.Incompat&^uint32(known) != 0 {
		return &ondisk.UnsupportedError{Feature: fmt.Sprintf("incompat %#x", o.Incompat&^uint32(known))}
	}
	return nil
}

func ceilDiv(a, b uint64) uint64 { return a/b + min(a%b, 1) }
