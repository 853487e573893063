package ondisk

// Ino is an inode number; 0 is none.
type Ino uint32

// Fsblk is a block number on the device, in file system blocks.
type Fsblk uint64

// Lblk is a block number within a file.
type Lblk uint32

// Group is a block group number.
type Group uint32

// MaxLblk is the largest logical block number of a file mapped by extents.
const MaxLblk Lblk = 0xffffffff - 1

// Reserved inode numbers. Kernel: filesystems/ext4/special_inodes.rst.
const (
	BadIno         Ino = 1  // list of defective blocks
	RootIno        Ino = 2  // root directory
	UsrQuotaIno    Ino = 3  // user quota
	GrpQuotaIno    Ino = 4  // group quota
	BootLoaderIno  Ino = 5  // boot loader
	UndelDirIno    Ino = 6  // undelete directory
	ResizeIno      Ino = 7  // reserved group descriptors
	JournalIno     Ino = 8  // journal
	ExcludeIno     Ino = 9  // snapshots, never merged
	ReplicaIno     Ino = 10 // replicas, never merged
	GoodOldFirst   Ino = 11 // first inode that is not reserved, revision 0
	LinkMax            = 65000
	MinBlockSize       = 1024
	MaxBlockSize       = 65536
	SuperOffset        = 1024 // bytes from the start of the device
	SuperSize          = 1024
	SuperMagic         = 0xef53
	GoodOldRev         = 0
	DynamicRev         = 1
	GoodOldInodeSz     = 128
	NameLen            = 255 // longest name of a directory entry, bytes
	MaxSymlinkFast     = 60  // i_block bytes; a fast symlink is shorter
)
