package ondisk

// Compat features: an old kernel may mount the file system and write to it.
// Kernel: filesystems/ext4/super.rst, "Superblock compatible features".
const (
	CompatDirPrealloc   = 0x0001
	CompatImagicInodes  = 0x0002
	CompatHasJournal    = 0x0004
	CompatExtAttr       = 0x0008
	CompatResizeInode   = 0x0010
	CompatDirIndex      = 0x0020
	CompatLazyBG        = 0x0040
	CompatExcludeInode  = 0x0080
	CompatExcludeBitmap = 0x0100
	CompatSparseSuper2  = 0x0200
	CompatFastCommit    = 0x0400
	CompatStableInodes  = 0x0800
	CompatOrphanFile    = 0x1000
)

// Incompat features: an old kernel must not mount the file system at all.
const (
	IncompatCompression = 0x00001
	IncompatFiletype    = 0x00002
	IncompatRecover     = 0x00004
	IncompatJournalDev  = 0x00008
	IncompatMetaBG      = 0x00010
	IncompatExtents     = 0x00040
	Incompat64Bit       = 0x00080
	IncompatMMP         = 0x00100
	IncompatFlexBG      = 0x00200
	IncompatEAInode     = 0x00400
	IncompatDirData     = 0x01000
	IncompatCsumSeed    = 0x02000
	IncompatLargeDir    = 0x04000
	IncompatInlineData  = 0x08000
	IncompatEncrypt     = 0x10000
	IncompatCasefold    = 0x20000
)

// Ro-compat features: an old kernel may mount the file system read-only.
const (
	ROCompatSparseSuper   = 0x00001
	ROCompatLargeFile     = 0x00002
	ROCompatBtreeDir      = 0x00004
	ROCompatHugeFile      = 0x00008
	ROCompatGDTCsum       = 0x00010 // uninit_bg
	ROCompatDirNlink      = 0x00020
	ROCompatExtraIsize    = 0x00040
	ROCompatHasSnapshot   = 0x00080
	ROCompatQuota         = 0x00100
	ROCompatBigalloc      = 0x00200
	ROCompatMetadataCsum  = 0x00400
	ROCompatReplica       = 0x00800
	ROCompatReadonly      = 0x01000
	ROCompatProject       = 0x02000
	ROCompatSharedBlocks  = 0x04000
	ROCompatVerity        = 0x08000
	ROCompatOrphanPresent = 0x10000
)
