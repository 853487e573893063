package fsck_test

import (
	"time"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fsck"
)

// later is a time that no clock shows yet.
func later(days int) uint32 { return uint32(time.Now().Unix() + int64(days)*86400) }

// recipesSuper damage the superblock and the descriptors.
var recipesSuper = []recipe{
	{name: "block bitmap outside", base: "noflex", differs: "it finds the padding of a bitmap wrong that it has just placed anew", noBackups: true, codes: []fsck.Code{fsck.P0BBNotGroup, fsck.P1RelocTo}, edit: func(e *edit) {
		e.group(2, func(d ondisk.Desc) { d.SetBlockBitmap(30) })
	}},
	{name: "inode bitmap outside", base: "noflex", differs: "it finds the padding of a bitmap wrong that it has just placed anew, and does not see that a bitmap lacks it", noBackups: true, codes: []fsck.Code{fsck.P0IBNotGroup}, edit: func(e *edit) {
		e.group(2, func(d ondisk.Desc) { d.SetInodeBitmap(30) })
	}},
	{name: "inode table outside", base: "noflex", differs: "it finds the padding of a bitmap wrong that it has just placed anew", noBackups: true, codes: []fsck.Code{fsck.P0ItableNotGroup}, edit: func(e *edit) {
		e.group(3, func(d ondisk.Desc) { d.SetInodeTable(30) })
	}},
	{name: "inode table nowhere", base: "ext4", differs: "it finds the padding of a bitmap wrong that was never written", noBackups: true, codes: []fsck.Code{fsck.P0ItableNotGroup}, edit: func(e *edit) {
		e.group(3, func(d ondisk.Desc) { d.SetInodeTable(1 << 30) })
	}},
	{name: "no superblock", base: "ext4", codes: []fsck.Code{fsck.P0SBCorrupt}, refused: true, edit: func(e *edit) { clear(e.b[1024:2048]) }},
	{name: "superblock gone", base: "wide", differs: "it does not tell that a bitmap that was never written has no checksum", codes: []fsck.Code{fsck.P0OpenFailed}, edit: func(e *edit) { clear(e.b[1024:2048]) }},
	{name: "smaller device", base: "ext2", codes: []fsck.Code{fsck.P0FSSizeWrong}, refused: true, edit: func(e *edit) { e.b = e.b[:baseSize-1<<20] }},
	{name: "first data block", base: "ext2", codes: []fsck.Code{fsck.P0FirstDataBlock}, refused: true, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FirstDataBlock.Set(2) })
	}},
	{name: "fragments", base: "ext2", refused: true, codes: []fsck.Code{fsck.P0NoFragments}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.LogClusterSize.Set(2) })
	}},
	{name: "no UUID", base: "nocsum", codes: []fsck.Code{fsck.P0AddUUID}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.UUID = [16]byte{} })
	}},
	{name: "impossible size of groups", base: "ext4", noBackups: true, codes: []fsck.Code{fsck.P0SBCorrupt}, refused: true, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.InodesPerGroup.Set(0) })
	}},
	{name: "inode count", base: "ext4", differs: "it looks for a backup first", codes: []fsck.Code{fsck.P0InodeCountWrong}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.InodesCount.Set(500) })
	}},
	{name: "hurd with types", base: "ext2", codes: []fsck.Code{fsck.P0HurdClearFiletype, fsck.P2ClearFiletype}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.CreatorOS.Set(ondisk.OSHurd) })
	}},
	{name: "revision 0 with features", base: "ext2", codes: []fsck.Code{fsck.P0FSRevLevel}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.RevLevel.Set(0) })
	}},
	{name: "reserved descriptors", base: "nocsum", codes: []fsck.Code{fsck.P0NonzeroReservedGDT, fsck.P0ClearResizeInode}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureCompat.Set(s.FeatureCompat.Get() &^ ondisk.CompatResizeInode) })
	}},
	{name: "resize inode", base: "ext4", differs: "it tells of the counts, not of the blocks", codes: []fsck.Code{fsck.P0ResizeInodeInvalid}, edit: func(e *edit) {
		e.inode(ondisk.ResizeIno, func(r ondisk.RawInode) { clear(r.Base().Block[:]) })
	}},
	{name: "mount time ahead", base: "ext4", codes: []fsck.Code{fsck.P0FutureLastMount}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.Mtime.Set(later(10)) })
	}},
	{name: "write time ahead", base: "ext4", codes: []fsck.Code{fsck.P0FutureLastWrite}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.Wtime.Set(later(10)) })
	}},
	{name: "times ahead by an hour", base: "ext4", codes: []fsck.Code{fsck.P0FutureMountFudged, fsck.P0FutureWriteFudged}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.Mtime.Set(later(0) + 4000); s.Wtime.Set(later(0) + 4000) })
	}, opts: func(o *fsck.Options) { o.AcceptTimeFudge = true }, conf: "accept_time_fudge = true"},
	{name: "hash hint", base: "ext4", codes: []fsck.Code{fsck.P0DirhashHint}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.Flags.Set(0) })
	}},
	{name: "descriptor checksum", base: "ext4", differs: "it finds the padding of a bitmap wrong that was never written", codes: []fsck.Code{fsck.P0GDTCsum}, edit: func(e *edit) {
		e.desc(1).Lo().Checksum.Set(e.desc(1).Lo().Checksum.Get() + 1)
		e.desc(3).Lo().Checksum.Set(e.desc(3).Lo().Checksum.Get() + 1)
	}},
	{name: "descriptor checksum of 16 bits", base: "uninit", codes: []fsck.Code{fsck.P0GDTCsum}, edit: func(e *edit) {
		e.desc(1).Lo().Checksum.Set(e.desc(1).Lo().Checksum.Get() + 1)
	}},
	{name: "uninit without the feature", base: "ext2", codes: []fsck.Code{fsck.P0GDTUninit}, edit: func(e *edit) {
		e.group(2, func(d ondisk.Desc) { d.SetFlags(ondisk.BGInodeUninit, 0) })
	}},
	{name: "unused inodes", base: "ext4", codes: []fsck.Code{fsck.P0GDTItableUnused}, edit: func(e *edit) {
		e.group(2, func(d ondisk.Desc) { d.SetItableUnused(1000) })
	}},
	{name: "last bitmap uninit", base: "ext4", codes: []fsck.Code{fsck.P0BBUninitLast}, edit: func(e *edit) {
		e.group(3, func(d ondisk.Desc) { d.SetFlags(ondisk.BGBlockUninit, 0) })
	}},
	{name: "test file system", base: "ext4", codes: []fsck.Code{fsck.P0ClearTestFS}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.Flags.Set(s.Flags.Get() | ondisk.SuperFlagTestFS) })
	}},
	{name: "two kinds of checksums", base: "ext4", codes: []fsck.Code{fsck.P0MetaAndGDTCsum}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureROCompat.Set(s.FeatureROCompat.Get() | ondisk.ROCompatGDTCsum) })
	}},
	{name: "64bit alone", base: "ext4", codes: []fsck.Code{fsck.P064BitWithoutExtents}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureIncompat.Set(s.FeatureIncompat.Get() &^ ondisk.IncompatExtents) })
	}},
	{name: "meta_bg beyond", base: "metabg", differs: "it takes the descriptors of a backup, which are old", codes: []fsck.Code{fsck.P0FirstMetaBGTooBig}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FirstMetaBG.Set(100) })
	}},
	{name: "seed alone", base: "nocsum", codes: []fsck.Code{fsck.P0CsumSeedWithoutMeta}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureIncompat.Set(s.FeatureIncompat.Get() | ondisk.IncompatCsumSeed) })
	}},
	{name: "extra sizes", base: "ext4", codes: []fsck.Code{fsck.P0MinExtraIsize, fsck.P0WantExtraIsize}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.MinExtraIsize.Set(3); s.WantExtraIsize.Set(5000) })
	}},
	{name: "quota inode number", base: "quota", codes: []fsck.Code{fsck.P0InvalidQuotaInode}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.UsrQuotaInum.Set(8) })
	}},
	{name: "resize_inode and meta_bg", base: "metabg", codes: []fsck.Code{fsck.P0DisableResizeInode}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureCompat.Set(s.FeatureCompat.Get() | ondisk.CompatResizeInode) })
	}},
	{name: "descriptors out of bounds", base: "ext4", differs: "it does not tell that a bitmap that was never written has no checksum", codes: []fsck.Code{fsck.P0CheckDescFailed}, edit: func(e *edit) {
		e.group(1, func(d ondisk.Desc) { d.SetInodeTable(0) })
	}},
	{name: "mmp block number", base: "mmp", gaveUp: true, codes: []fsck.Code{fsck.P0MMPInvalidBlock}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.MMPBlock.Set(1 << 40) })
	}},
	{name: "mmp magic", base: "mmp", codes: []fsck.Code{fsck.P0MMPInvalidMagic}, edit: func(e *edit) {
		m := endian.View[ondisk.MMP](e.block(ondisk.Fsblk(e.sb.MMPBlock.Get())))
		m.Magic.Set(1)
		m.Seal(e.seed)
	}},
	{name: "mmp checksum", base: "mmp", codes: []fsck.Code{fsck.P0MMPCsumInvalid}, edit: func(e *edit) {
		endian.View[ondisk.MMP](e.block(ondisk.Fsblk(e.sb.MMPBlock.Get()))).Checksum.Set(1)
	}},
	{name: "free counts", base: "ext4", noForce: true, codes: []fsck.Code{0x00003f, 0x000040}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FreeInodes.Set(50); s.SetFreeBlocksCount(100) })
	}},
	{name: "too many inodes", base: "ext2", codes: []fsck.Code{0x000050}, refused: true, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) {
			s.SetBlocksCount(1<<32 - 1)
			s.BlocksPerGroup.Set(256)
			s.ClustersPerGroup.Set(256)
			s.InodesPerGroup.Set(512)
		})
	}},
	{name: "large file in revision 0", base: "rev0", codes: []fsck.Code{fsck.P2FeatureLargeFiles, fsck.P1FSRevLevel}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureCompat.Set(0) })
		e.file("/file", func(r ondisk.RawInode) { r.SetSize(3 << 30) })
	}},
}
