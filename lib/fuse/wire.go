package fuse

import "unsafe"

// The protocol version spoken here. A kernel that offers a later minor is
// answered with ours, and then speaks ours.
const (
	Major = 7
	Minor = 45

	// MinMinor is the oldest minor that is accepted (Linux 5.4).
	MinMinor = 31

	// RootID is the node id of the root directory.
	RootID = 1
)

// InHeader starts each request, struct fuse_in_header.
type InHeader struct {
	Len         uint32 // of the whole message, bytes
	Opcode      Op
	Unique      uint64
	NodeID      uint64
	UID         uint32 // file system ids of the caller
	GID         uint32
	PID         uint32 // thread id of the caller, 0 if outside our pid namespace
	TotalExtlen uint16 // extensions at the end, in 8-byte units
	Padding     uint16
}

// OutHeader starts each answer and notification, struct fuse_out_header.
type OutHeader struct {
	Len    uint32
	Error  int32 // 0 or a negative errno; in a notification its code
	Unique uint64
}

// Attr is what GETATTR answers about a node, struct fuse_attr.
type Attr struct {
	Ino       uint64
	Size      uint64
	Blocks    uint64 // of 512 bytes
	Atime     uint64 // seconds; negative ones in two's complement
	Mtime     uint64
	Ctime     uint64
	Atimensec uint32
	Mtimensec uint32
	Ctimensec uint32
	Mode      uint32
	Nlink     uint32
	UID       uint32
	GID       uint32
	Rdev      uint32 // new_encode_dev
	Blksize   uint32
	Flags     uint32 // Attr*
}

// SxTime is a time stamp of Statx.
type SxTime struct {
	Sec      int64
	Nsec     uint32
	Reserved int32
}

// Statx is struct fuse_statx, laid out as the kernel's struct statx.
type Statx struct {
	Mask           uint32
	Blksize        uint32
	Attributes     uint64
	Nlink          uint32
	UID            uint32
	GID            uint32
	Mode           uint16
	_              uint16
	Ino            uint64
	Size           uint64
	Blocks         uint64
	AttributesMask uint64
	Atime          SxTime
	Btime          SxTime
	Ctime          SxTime
	Mtime          SxTime
	RdevMajor      uint32
	RdevMinor      uint32
	DevMajor       uint32
	DevMinor       uint32

	// What follows is zero unless fuse-iomap was agreed on.
	MntID                uint64
	DioMemAlign          uint32 // of buffers in direct I/O, bytes
	DioOffsetAlign       uint32 // of offsets and lengths
	Subvol               uint64
	AtomicUnitMin        uint32 // of atomic writes, bytes
	AtomicUnitMax        uint32
	AtomicSegmentsMax    uint32
	DioReadOffsetAlign   uint32
	AtomicUnitMaxOptimal uint32
	_                    uint32
	_                    [8]uint64
}

// Kstatfs is struct fuse_kstatfs. Blocks count in units of Frsize.
type Kstatfs struct {
	Blocks  uint64
	Bfree   uint64
	Bavail  uint64
	Files   uint64
	Ffree   uint64
	Bsize   uint32
	Namelen uint32
	Frsize  uint32
	_       uint32
	_       [6]uint32
}

// FileLock is struct fuse_file_lock.
type FileLock struct {
	Start uint64
	End   uint64
	Type  uint32
	PID   uint32 // thread group
}

// EntryOut answers whatever gives the kernel a new reference to a node.
type EntryOut struct {
	NodeID         uint64 // 0: no such name, remembered for EntryValid
	Generation     uint64 // NodeID and Generation are never reused together
	EntryValid     uint64 // seconds for which the name may be cached
	AttrValid      uint64 // seconds for which Attr may be cached
	EntryValidNsec uint32
	AttrValidNsec  uint32
	Attr           Attr
}

// ForgetIn drops Nlookup references to a node.
type ForgetIn struct{ Nlookup uint64 }

// ForgetOne is one of the Count records behind a BatchForgetIn.
type ForgetOne struct {
	NodeID  uint64
	Nlookup uint64
}

// BatchForgetIn starts BATCH_FORGET.
type BatchForgetIn struct {
	Count uint32
	Dummy uint32
}

// GetattrIn is the body of GETATTR.
type GetattrIn struct {
	GetattrFlags uint32
	Dummy        uint32
	Fh           uint64
}

// AttrOut answers GETATTR and SETATTR.
type AttrOut struct {
	AttrValid     uint64 // seconds
	AttrValidNsec uint32
	Dummy         uint32
	Attr          Attr
}

// StatxIn is the body of STATX.
type StatxIn struct {
	GetattrFlags uint32
	Reserved     uint32
	Fh           uint64
	SxFlags      uint32
	SxMask       uint32
}

// StatxOut answers STATX.
type StatxOut struct {
	AttrValid     uint64
	AttrValidNsec uint32
	Flags         uint32
	_             [2]uint64
	Stat          Statx
}

// MknodIn is the body of MKNOD; a name follows.
type MknodIn struct {
	Mode    uint32
	Rdev    uint32
	Umask   uint32
	Padding uint32
}

// MkdirIn is the body of MKDIR; a name follows.
type MkdirIn struct {
	Mode  uint32
	Umask uint32
}

// RenameIn is the body of RENAME; the old and the new name follow.
type RenameIn struct{ Newdir uint64 }

// Rename2In is the body of RENAME2; the old and the new name follow.
type Rename2In struct {
	Newdir  uint64
	Flags   uint32 // RENAME_*
	Padding uint32
}

// LinkIn is the body of LINK; a name follows.
type LinkIn struct{ Oldnodeid uint64 }

// SetattrIn is the body of SETATTR.
type SetattrIn struct {
	Valid     uint32 // Fattr*
	Padding   uint32
	Fh        uint64
	Size      uint64
	LockOwner uint64
	Atime     uint64
	Mtime     uint64
	Ctime     uint64
	Atimensec uint32
	Mtimensec uint32
	Ctimensec uint32
	Mode      uint32
	Unused4   uint32
	UID       uint32
	GID       uint32
	Unused5   uint32
}

// OpenIn is the body of OPEN and OPENDIR.
type OpenIn struct {
	Flags     uint32 // O_*
	OpenFlags uint32 // OpenKillSuidgid
}

// CreateIn is the body of CREATE and TMPFILE; a name follows.
type CreateIn struct {
	Flags     uint32
	Mode      uint32
	Umask     uint32
	OpenFlags uint32
}

// OpenOut answers OPEN and OPENDIR.
type OpenOut struct {
	Fh        uint64
	OpenFlags uint32 // Fopen*
	BackingID int32
}

// CreateOut answers CREATE and TMPFILE.
type CreateOut struct {
	Entry EntryOut
	Open  OpenOut
}

// ReleaseIn is the body of RELEASE and RELEASEDIR.
type ReleaseIn struct {
	Fh           uint64
	Flags        uint32
	ReleaseFlags uint32
	LockOwner    uint64
}

// FlushIn is the body of FLUSH.
type FlushIn struct {
	Fh        uint64
	Unused    uint32
	Padding   uint32
	LockOwner uint64
}

// ReadIn is the body of READ, READDIR and READDIRPLUS.
type ReadIn struct {
	Fh        uint64
	Offset    uint64
	Size      uint32
	ReadFlags uint32
	LockOwner uint64
	Flags     uint32 // O_*
	Padding   uint32
}

// WriteIn is the body of WRITE; Size bytes follow.
type WriteIn struct {
	Fh         uint64
	Offset     uint64
	Size       uint32
	WriteFlags uint32
	LockOwner  uint64
	Flags      uint32
	Padding    uint32
}

// WriteOut answers WRITE and COPY_FILE_RANGE.
type WriteOut struct {
	Size    uint32
	Padding uint32
}

// StatfsOut answers STATFS.
type StatfsOut struct{ St Kstatfs }

// FsyncIn is the body of FSYNC and FSYNCDIR.
type FsyncIn struct {
	Fh         uint64
	FsyncFlags uint32
	Padding    uint32
}

// SetxattrIn is the body of SETXATTR; a name and Size bytes follow. Use
// [Request.Setxattr], which also knows the short form.
type SetxattrIn struct {
	Size          uint32
	Flags         uint32 // XATTR_CREATE, XATTR_REPLACE
	SetxattrFlags uint32
	Padding       uint32
}

// GetxattrIn is the body of GETXATTR, where a name follows, and LISTXATTR.
// With Size 0 the answer is a GetxattrOut, else the value.
type GetxattrIn struct {
	Size    uint32
	Padding uint32
}

// GetxattrOut tells the size that the value has.
type GetxattrOut struct {
	Size    uint32
	Padding uint32
}

// LkIn is the body of GETLK, SETLK and SETLKW.
type LkIn struct {
	Fh      uint64
	Owner   uint64
	Lk      FileLock
	LkFlags uint32
	Padding uint32
}

// LkOut answers GETLK.
type LkOut struct{ Lk FileLock }

// AccessIn is the body of ACCESS.
type AccessIn struct {
	Mask    uint32
	Padding uint32
}

// InitIn is the body of INIT.
type InitIn struct {
	Major        uint32
	Minor        uint32
	MaxReadahead uint32
	Flags        uint32
	Flags2       uint32
	Unused       [11]uint32
}

// AllFlags joins both halves.
func (in *InitIn) AllFlags() InitFlags {
	f := InitFlags(in.Flags)
	if f&InitExt != 0 {
		f |= InitFlags(in.Flags2) << 32
	}
	return f
}

// InitOut answers INIT.
type InitOut struct {
	Major               uint32
	Minor               uint32
	MaxReadahead        uint32 // bytes
	Flags               uint32
	MaxBackground       uint16 // asynchronous requests at a time
	CongestionThreshold uint16
	MaxWrite            uint32 // bytes in a WRITE
	TimeGran            uint32 // ns
	MaxPages            uint16 // in any request
	MapAlignment        uint16
	Flags2              uint32
	MaxStackDepth       uint32
	RequestTimeout      uint16 // seconds
	Unused              [11]uint16
}

// InterruptIn is the body of INTERRUPT.
type InterruptIn struct{ Unique uint64 }

// BmapIn is the body of BMAP.
type BmapIn struct {
	Block     uint64
	Blocksize uint32
	Padding   uint32
}

// BmapOut answers BMAP.
type BmapOut struct{ Block uint64 }

// IoctlIn is the body of IOCTL; InSize bytes follow.
type IoctlIn struct {
	Fh      uint64
	Flags   uint32 // Ioctl*
	Cmd     uint32
	Arg     uint64
	InSize  uint32
	OutSize uint32
}

// IoctlOut answers IOCTL; at most IoctlIn.OutSize bytes follow.
type IoctlOut struct {
	Result  int32
	Flags   uint32
	InIovs  uint32
	OutIovs uint32
}

// PollIn is the body of POLL.
type PollIn struct {
	Fh     uint64
	Kh     uint64
	Flags  uint32
	Events uint32
}

// PollOut answers POLL.
type PollOut struct {
	Revents uint32
	Padding uint32
}

// FallocateIn is the body of FALLOCATE.
type FallocateIn struct {
	Fh      uint64
	Offset  uint64
	Length  uint64
	Mode    uint32 // FALLOC_FL_*
	Padding uint32
}

// LseekIn is the body of LSEEK.
type LseekIn struct {
	Fh      uint64
	Offset  uint64
	Whence  uint32
	Padding uint32
}

// LseekOut answers LSEEK.
type LseekOut struct{ Offset uint64 }

// CopyFileRangeIn is the body of COPY_FILE_RANGE and COPY_FILE_RANGE_64.
type CopyFileRangeIn struct {
	FhIn      uint64
	OffIn     uint64
	NodeIDOut uint64
	FhOut     uint64
	OffOut    uint64
	Len       uint64
	Flags     uint64
}

// CopyFileRangeOut answers COPY_FILE_RANGE_64.
type CopyFileRangeOut struct{ BytesCopied uint64 }

// SetupmappingIn is the body of SETUPMAPPING.
type SetupmappingIn struct {
	Fh      uint64
	Foffset uint64
	Len     uint64
	Flags   uint64
	Moffset uint64
}

// RemovemappingIn is the body of REMOVEMAPPING; Count records follow.
type RemovemappingIn struct{ Count uint32 }

// RemovemappingOne is one of them.
type RemovemappingOne struct {
	Moffset uint64
	Len     uint64
}

// SyncfsIn is the body of SYNCFS.
type SyncfsIn struct{ Padding uint64 }

// Dirent precedes each name that READDIR answers; records start at multiples
// of 8. See [AppendDirent].
type Dirent struct {
	Ino     uint64
	Off     uint64 // cookie of the entry behind this one
	Namelen uint32
	Type    uint32 // DT_*
}

// Direntplus precedes each name that READDIRPLUS answers.
type Direntplus struct {
	Entry  EntryOut
	Dirent Dirent
}

// ExtHeader starts an extension; Size counts it and what follows it.
type ExtHeader struct {
	Size uint32
	Type uint32
}

// NotifyPollWakeupOut is the payload of NotifyPoll.
type NotifyPollWakeupOut struct{ Kh uint64 }

// NotifyInvalInodeOut is the payload of NotifyInvalInode.
type NotifyInvalInodeOut struct {
	Ino uint64
	Off int64 // negative: attributes only
	Len int64 // 0: to the end
}

// NotifyInvalEntryOut is the payload of NotifyInvalEntry; a name and a NUL follow.
type NotifyInvalEntryOut struct {
	Parent  uint64
	Namelen uint32
	Flags   uint32
}

// NotifyDeleteOut is the payload of NotifyDelete; a name and a NUL follow.
type NotifyDeleteOut struct {
	Parent  uint64
	Child   uint64
	Namelen uint32
	Padding uint32
}

// NotifyStoreOut is the payload of NotifyStore; Size bytes follow.
type NotifyStoreOut struct {
	NodeID  uint64
	Offset  uint64
	Size    uint32
	Padding uint32
}

// NotifyRetrieveOut is the payload of NotifyRetrieve.
type NotifyRetrieveOut struct {
	NotifyUnique uint64
	NodeID       uint64
	Offset       uint64
	Size         uint32
	Padding      uint32
}

// NotifyRetrieveIn is the body of NOTIFY_REPLY; Size bytes follow.
type NotifyRetrieveIn struct {
	Dummy1 uint64
	Offset uint64
	Size   uint32
	Dummy2 uint32
	Dummy3 uint64
	Dummy4 uint64
}

// NotifyPruneOut is the payload of NotifyPrune; Count node ids follow.
type NotifyPruneOut struct {
	Count   uint32
	Padding uint32
	Spare   uint64
}

const (
	inHeaderSize  = int(unsafe.Sizeof(InHeader{}))
	outHeaderSize = int(unsafe.Sizeof(OutHeader{}))
	writeInSize   = int(unsafe.Sizeof(WriteIn{}))
	readInSize    = int(unsafe.Sizeof(ReadIn{}))

	direntSize     = int(unsafe.Sizeof(Dirent{}))
	direntplusSize = int(unsafe.Sizeof(Direntplus{}))
)
