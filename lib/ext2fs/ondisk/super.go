package ondisk

import (
	"unsafe"

	"github.com/e2kit/e2kit/lib/endian"
)

// Super is the superblock, 1024 bytes at byte 1024 of the device and, as a
// backup, at the start of some groups.
// Kernel: filesystems/ext4/super.rst.
type Super struct {
	InodesCount       endian.LE32     `ext4:"s_inodes_count"`
	BlocksCountLo     endian.LE32     `ext4:"s_blocks_count_lo"`
	RBlocksCountLo    endian.LE32     `ext4:"s_r_blocks_count_lo"` // reserved for the super-user
	FreeBlocksLo      endian.LE32     `ext4:"s_free_blocks_count_lo"`
	FreeInodes        endian.LE32     `ext4:"s_free_inodes_count"`
	FirstDataBlock    endian.LE32     `ext4:"s_first_data_block"` // 1 for 1 KiB blocks, else 0
	LogBlockSize      endian.LE32     `ext4:"s_log_block_size"`   // block size is 1024 << this
	LogClusterSize    endian.LE32     `ext4:"s_log_cluster_size"` // cluster size is 1024 << this
	BlocksPerGroup    endian.LE32     `ext4:"s_blocks_per_group"`
	ClustersPerGroup  endian.LE32     `ext4:"s_clusters_per_group"`
	InodesPerGroup    endian.LE32     `ext4:"s_inodes_per_group"`
	Mtime             endian.LE32     `ext4:"s_mtime"` // last mount, seconds
	Wtime             endian.LE32     `ext4:"s_wtime"` // last write, seconds
	MntCount          endian.LE16     `ext4:"s_mnt_count"`
	MaxMntCount       endian.LE16     `ext4:"s_max_mnt_count"`
	Magic             endian.LE16     `ext4:"s_magic"`
	State             endian.LE16     `ext4:"s_state"`  // State… bits
	Errors            endian.LE16     `ext4:"s_errors"` // Errors… policy
	MinorRevLevel     endian.LE16     `ext4:"s_minor_rev_level"`
	Lastcheck         endian.LE32     `ext4:"s_lastcheck"`
	Checkinterval     endian.LE32     `ext4:"s_checkinterval"` // seconds
	CreatorOS         endian.LE32     `ext4:"s_creator_os"`
	RevLevel          endian.LE32     `ext4:"s_rev_level"`
	DefResuid         endian.LE16     `ext4:"s_def_resuid"`
	DefResgid         endian.LE16     `ext4:"s_def_resgid"`
	FirstIno          endian.LE32     `ext4:"s_first_ino"` // DynamicRev from here on
	InodeSize         endian.LE16     `ext4:"s_inode_size"`
	BlockGroupNr      endian.LE16     `ext4:"s_block_group_nr"` // group of this copy
	FeatureCompat     endian.LE32     `ext4:"s_feature_compat"`
	FeatureIncompat   endian.LE32     `ext4:"s_feature_incompat"`
	FeatureROCompat   endian.LE32     `ext4:"s_feature_ro_compat"`
	UUID              [16]byte        `ext4:"s_uuid"`
	VolumeName        [16]byte        `ext4:"s_volume_name"`
	LastMounted       [64]byte        `ext4:"s_last_mounted"`
	AlgorithmBitmap   endian.LE32     `ext4:"s_algorithm_usage_bitmap"`
	PreallocBlocks    [1]byte         `ext4:"s_prealloc_blocks"`
	PreallocDirBlocks [1]byte         `ext4:"s_prealloc_dir_blocks"`
	ReservedGDTBlocks endian.LE16     `ext4:"s_reserved_gdt_blocks"`
	JournalUUID       [16]byte        `ext4:"s_journal_uuid"`
	JournalInum       endian.LE32     `ext4:"s_journal_inum"`
	JournalDev        endian.LE32     `ext4:"s_journal_dev"`
	LastOrphan        endian.LE32     `ext4:"s_last_orphan"` // head of the orphan list
	HashSeed          [4]endian.LE32  `ext4:"s_hash_seed"`
	DefHashVersion    [1]byte         `ext4:"s_def_hash_version"`
	JnlBackupType     [1]byte         `ext4:"s_jnl_backup_type"`
	DescSize          endian.LE16     `ext4:"s_desc_size"`
	DefaultMountOpts  endian.LE32     `ext4:"s_default_mount_opts"`
	FirstMetaBG       endian.LE32     `ext4:"s_first_meta_bg"`
	MkfsTime          endian.LE32     `ext4:"s_mkfs_time"`
	JnlBlocks         [17]endian.LE32 `ext4:"s_jnl_blocks"` // copy of the journal inode's i_block and size
	BlocksCountHi     endian.LE32     `ext4:"s_blocks_count_hi"`
	RBlocksCountHi    endian.LE32     `ext4:"s_r_blocks_count_hi"`
	FreeBlocksHi      endian.LE32     `ext4:"s_free_blocks_count_hi"`
	MinExtraIsize     endian.LE16     `ext4:"s_min_extra_isize"`
	WantExtraIsize    endian.LE16     `ext4:"s_want_extra_isize"`
	Flags             endian.LE32     `ext4:"s_flags"` // SuperFlag… bits
	RAIDStride        endian.LE16     `ext4:"s_raid_stride"`
	MMPInterval       endian.LE16     `ext4:"s_mmp_interval"` // seconds
	MMPBlock          endian.LE64     `ext4:"s_mmp_block"`
	RAIDStripeWidth   endian.LE32     `ext4:"s_raid_stripe_width"`
	LogGroupsPerFlex  [1]byte         `ext4:"s_log_groups_per_flex"`
	ChecksumType      [1]byte         `ext4:"s_checksum_type"` // 1: crc32c
	EncryptionLevel   [1]byte         `ext4:"s_encryption_level"`
	ReservedPad       [1]byte         `ext4:"s_reserved_pad"`
	KbytesWritten     endian.LE64     `ext4:"s_kbytes_written"`
	SnapshotInum      endian.LE32     `ext4:"s_snapshot_inum"`
	SnapshotID        endian.LE32     `ext4:"s_snapshot_id"`
	SnapshotRBlocks   endian.LE64     `ext4:"s_snapshot_r_blocks_count"`
	SnapshotList      endian.LE32     `ext4:"s_snapshot_list"`
	ErrorCount        endian.LE32     `ext4:"s_error_count"`
	FirstErrorTime    endian.LE32     `ext4:"s_first_error_time"`
	FirstErrorIno     endian.LE32     `ext4:"s_first_error_ino"`
	FirstErrorBlock   endian.LE64     `ext4:"s_first_error_block"`
	FirstErrorFunc    [32]byte        `ext4:"s_first_error_func"`
	FirstErrorLine    endian.LE32     `ext4:"s_first_error_line"`
	LastErrorTime     endian.LE32     `ext4:"s_last_error_time"`
	LastErrorIno      endian.LE32     `ext4:"s_last_error_ino"`
	LastErrorLine     endian.LE32     `ext4:"s_last_error_line"`
	LastErrorBlock    endian.LE64     `ext4:"s_last_error_block"`
	LastErrorFunc     [32]byte        `ext4:"s_last_error_func"`
	MountOpts         [64]byte        `ext4:"s_mount_opts"`
	UsrQuotaInum      endian.LE32     `ext4:"s_usr_quota_inum"`
	GrpQuotaInum      endian.LE32     `ext4:"s_grp_quota_inum"`
	OverheadClusters  endian.LE32     `ext4:"s_overhead_clusters"`
	BackupBGs         [2]endian.LE32  `ext4:"s_backup_bgs"` // sparse_super2
	EncryptAlgos      [4]byte         `ext4:"s_encrypt_algos"`
	EncryptPwSalt     [16]byte        `ext4:"s_encrypt_pw_salt"`
	LpfIno            endian.LE32     `ext4:"s_lpf_ino"` // lost+found
	PrjQuotaInum      endian.LE32     `ext4:"s_prj_quota_inum"`
	ChecksumSeed      endian.LE32     `ext4:"s_checksum_seed"`
	WtimeHi           [1]byte         `ext4:"s_wtime_hi"`
	MtimeHi           [1]byte         `ext4:"s_mtime_hi"`
	MkfsTimeHi        [1]byte         `ext4:"s_mkfs_time_hi"`
	LastcheckHi       [1]byte         `ext4:"s_lastcheck_hi"`
	FirstErrorTimeHi  [1]byte         `ext4:"s_first_error_time_hi"`
	LastErrorTimeHi   [1]byte         `ext4:"s_last_error_time_hi"`
	FirstErrorErrcode [1]byte         `ext4:"s_first_error_errcode"`
	LastErrorErrcode  [1]byte         `ext4:"s_last_error_errcode"`
	Encoding          endian.LE16     `ext4:"s_encoding"`
	EncodingFlags     endian.LE16     `ext4:"s_encoding_flags"`
	OrphanFileInum    endian.LE32     `ext4:"s_orphan_file_inum"`
	DefResuidHi       endian.LE16     `ext4:"s_def_resuid_hi"`
	DefResgidHi       endian.LE16     `ext4:"s_def_resgid_hi"`
	Reserved          [93]endian.LE32 `ext4:"s_reserved"`
	Checksum          endian.LE32     `ext4:"s_checksum"`
}

var ( // sizes and places on disk
	_ [SuperSize]byte = [unsafe.Sizeof(Super{})]byte{}
	_ [0xfc]byte      = [unsafe.Offsetof(Super{}.DefHashVersion)]byte{}
	_ [0x150]byte     = [unsafe.Offsetof(Super{}.BlocksCountHi)]byte{}
	_ [0x1c0]byte     = [unsafe.Offsetof(Super{}.LastErrorTime) - 12]byte{}
	_ [0x240]byte     = [unsafe.Offsetof(Super{}.UsrQuotaInum)]byte{}
	_ [0x270]byte     = [unsafe.Offsetof(Super{}.ChecksumSeed)]byte{}
	_ [0x280]byte     = [unsafe.Offsetof(Super{}.OrphanFileInum)]byte{}
	_ [0x3fc]byte     = [unsafe.Offsetof(Super{}.Checksum)]byte{}
)

// Values of Super.State.
const (
	StateValid   = 0x0001 // cleanly unmounted
	StateError   = 0x0002 // errors were seen
	StateOrphans = 0x0004 // orphans are being recovered
	StateFC      = 0x0020 // a fast commit replay is under way
)

// Values of Super.Errors: what to do about an inconsistency.
const (
	ErrorsContinue = 1
	ErrorsRO       = 2
	ErrorsPanic    = 3
)

// Values of Super.Flags.
const (
	SuperFlagSignedHash   = 0x0001
	SuperFlagUnsignedHash = 0x0002
	SuperFlagTestFS       = 0x0004
)

// Values of Super.DefaultMountOpts.
const (
	DefmDebug         = 0x0001
	DefmBSDGroups     = 0x0002
	DefmXattrUser     = 0x0004
	DefmACL           = 0x0008
	DefmUID16         = 0x0010
	DefmJmode         = 0x0060 // mask
	DefmJmodeData     = 0x0020
	DefmJmodeOrdered  = 0x0040
	DefmJmodeWback    = 0x0060
	DefmNoBarrier     = 0x0100
	DefmBlockValidity = 0x0200
	DefmDiscard       = 0x0400
	DefmNoDelalloc    = 0x0800
)

// Values of Super.CreatorOS.
const (
	OSLinux   = 0
	OSHurd    = 1
	OSMasix   = 2
	OSFreeBSD = 3
	OSLites   = 4
)

// HasCompat says whether any of the compat feature bits is set.
func (s *Super) HasCompat(bits uint32) bool {
	return s.RevLevel.Get() >= DynamicRev && s.FeatureCompat.Get()&bits != 0
}

// HasIncompat says whether any of the incompat feature bits is set.
func (s *Super) HasIncompat(bits uint32) bool {
	return s.RevLevel.Get() >= DynamicRev && s.FeatureIncompat.Get()&bits != 0
}

// HasROCompat says whether any of the ro-compat feature bits is set.
func (s *Super) HasROCompat(bits uint32) bool {
	return s.RevLevel.Get() >= DynamicRev && s.FeatureROCompat.Get()&bits != 0
}

// BlocksCount returns the size of the file system in blocks.
func (s *Super) BlocksCount() uint64 { return s.wide(s.BlocksCountLo.Get(), s.BlocksCountHi.Get()) }

// SetBlocksCount stores the size of the file system in blocks.
func (s *Super) SetBlocksCount(n uint64) {
	s.BlocksCountLo.Set(uint32(n))
	if s.HasIncompat(Incompat64Bit) {
		s.BlocksCountHi.Set(uint32(n >> 32))
	}
}

// RBlocksCount returns the blocks reserved for the super-user.
func (s *Super) RBlocksCount() uint64 { return s.wide(s.RBlocksCountLo.Get(), s.RBlocksCountHi.Get()) }

// FreeBlocksCount returns the free blocks: with bigalloc too they are blocks,
// where descriptors count clusters.
func (s *Super) FreeBlocksCount() uint64 { return s.wide(s.FreeBlocksLo.Get(), s.FreeBlocksHi.Get()) }

// SetFreeBlocksCount stores the free blocks.
func (s *Super) SetFreeBlocksCount(n uint64) {
	s.FreeBlocksLo.Set(uint32(n))
	if s.HasIncompat(Incompat64Bit) {
		s.FreeBlocksHi.Set(uint32(n >> 32))
	}
}

func (s *Super) wide(lo, hi uint32) uint64 {
	if !s.HasIncompat(Incompat64Bit) {
		hi = 0
	}
	return uint64(hi)<<32 | uint64(lo)
}

// InodeSz returns the size of an inode on disk in bytes.
func (s *Super) InodeSz() int {
	if s.RevLevel.Get() < DynamicRev {
		return GoodOldInodeSz
	}
	return int(s.InodeSize.Get())
}

// FirstInode returns the first inode number that is not reserved.
func (s *Super) FirstInode() Ino {
	if s.RevLevel.Get() < DynamicRev {
		return GoodOldFirst
	}
	return Ino(s.FirstIno.Get())
}

// DescSz returns the size of a group descriptor on disk in bytes.
func (s *Super) DescSz() int {
	if !s.HasIncompat(Incompat64Bit) {
		return GroupDescMin
	}
	return int(s.DescSize.Get())
}

// CsumSeed returns the crc32c value that metadata checksums start from.
func (s *Super) CsumSeed() uint32 {
	if s.HasIncompat(IncompatCsumSeed) {
		return s.ChecksumSeed.Get()
	}
	return Crc32c(^uint32(0), s.UUID[:])
}
