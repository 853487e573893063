package fuse

// InitFlags are the capabilities that kernel and server agree on with INIT:
// fuse_init_in.flags in the low half, flags2 in the high.
type InitFlags uint64

// INIT flags. The kernel offers, the server takes.
const (
	AsyncRead         InitFlags = 1 << 0 // several READs of one file at a time
	PosixLocks        InitFlags = 1 << 1 // fcntl locks are sent to the server
	FileOps           InitFlags = 1 << 2 // not implemented by Linux
	AtomicOTrunc      InitFlags = 1 << 3 // O_TRUNC arrives in OPEN
	ExportSupport     InitFlags = 1 << 4 // LOOKUP of "." and ".." works, for NFS
	BigWrites         InitFlags = 1 << 5 // WRITE larger than a page
	DontMask          InitFlags = 1 << 6 // the umask is left to the server
	SpliceWrite       InitFlags = 1 << 7
	SpliceMove        InitFlags = 1 << 8
	SpliceRead        InitFlags = 1 << 9
	FlockLocks        InitFlags = 1 << 10 // flock locks are sent to the server
	HasIoctlDir       InitFlags = 1 << 11 // ioctl on directories
	AutoInvalData     InitFlags = 1 << 12 // drop cached data when mtime or size change
	DoReaddirplus     InitFlags = 1 << 13 // READDIR and LOOKUP in one
	ReaddirplusAuto   InitFlags = 1 << 14 // ... only where lookups follow
	AsyncDIO          InitFlags = 1 << 15 // direct I/O in parallel requests
	WritebackCache    InitFlags = 1 << 16 // buffered writes stay in the page cache
	NoOpenSupport     InitFlags = 1 << 17 // ENOSYS to OPEN ends OPEN and RELEASE
	ParallelDirops    InitFlags = 1 << 18 // LOOKUP and READDIR of one directory in parallel
	HandleKillpriv    InitFlags = 1 << 19 // the server drops suid, sgid and capabilities
	PosixACL          InitFlags = 1 << 20 // the kernel checks ACLs; implies default_permissions
	AbortError        InitFlags = 1 << 21 // ECONNABORTED after an abort
	MaxPages          InitFlags = 1 << 22 // InitOut.MaxPages is valid
	CacheSymlinks     InitFlags = 1 << 23 // symlink targets stay in the page cache
	NoOpendirSupport  InitFlags = 1 << 24 // ENOSYS to OPENDIR ends OPENDIR and RELEASEDIR
	ExplicitInvalData InitFlags = 1 << 25 // cached data is dropped on request only
	MapAlignment      InitFlags = 1 << 26
	Submounts         InitFlags = 1 << 27
	HandleKillprivV2  InitFlags = 1 << 28 // ... when a KILL_SUIDGID flag says so
	SetxattrExt       InitFlags = 1 << 29 // the 16-byte SetxattrIn
	InitExt           InitFlags = 1 << 30 // flags2 are valid
	SecurityCtx       InitFlags = 1 << 32 // new files come with security labels
	HasInodeDAX       InitFlags = 1 << 33
	CreateSuppGroup   InitFlags = 1 << 34 // new files come with a matching supplementary group
	HasExpireOnly     InitFlags = 1 << 35 // ExpireOnly is understood
	DirectIOAllowMmap InitFlags = 1 << 36 // shared mmap of FopenDirectIO files
	Passthrough       InitFlags = 1 << 37 // I/O straight on a backing file
	NoExportSupport   InitFlags = 1 << 38 // no NFS handles, in no case
	HasResend         InitFlags = 1 << 39 // UniqueResend and NotifyResend
	AllowIDMap        InitFlags = 1 << 40 // the mount may be idmapped
	OverIOUring       InitFlags = 1 << 41 // requests may come through io_uring
	RequestTimeout    InitFlags = 1 << 42 // InitOut.RequestTimeout is valid
)

// LocalFS are the flags of a server that alone changes a file system, and does
// everything that they promise: it drops privileges when a KILL_SUIDGID flag says
// so, applies the umask unless a default ACL does its work, and inherits ACLs;
// with WritebackCache it takes sizes and times from the kernel.
//
// NoOpenSupport says only that ENOSYS is understood. AtomicOTrunc must not be
// added where OPEN gets ENOSYS: the kernel then truncates its cache alone, and
// the server never hears of it.
const LocalFS = AsyncRead | BigWrites | DontMask | HasIoctlDir | DoReaddirplus |
	ReaddirplusAuto | AsyncDIO | WritebackCache | NoOpenSupport | ParallelDirops |
	PosixACL | AbortError | MaxPages | CacheSymlinks | NoOpendirSupport |
	ExplicitInvalData | HandleKillprivV2 | SetxattrExt | InitExt | CreateSuppGroup |
	HasExpireOnly | DirectIOAllowMmap

// Bits of SetattrIn.Valid: which fields are to change.
const (
	FattrMode        = 1 << 0
	FattrUID         = 1 << 1
	FattrGID         = 1 << 2
	FattrSize        = 1 << 3
	FattrAtime       = 1 << 4
	FattrMtime       = 1 << 5
	FattrFh          = 1 << 6 // Fh is valid
	FattrAtimeNow    = 1 << 7
	FattrMtimeNow    = 1 << 8
	FattrLockowner   = 1 << 9
	FattrCtime       = 1 << 10
	FattrKillSuidgid = 1 << 11 // drop suid, and sgid if group-executable
)

// Bits of OpenOut.OpenFlags.
const (
	FopenDirectIO             = 1 << 0 // no page cache
	FopenKeepCache            = 1 << 1 // cached data stays valid
	FopenNonseekable          = 1 << 2
	FopenCacheDir             = 1 << 3 // the kernel may cache directory entries
	FopenStream               = 1 << 4
	FopenNoflush              = 1 << 5 // no FLUSH on close, without WritebackCache
	FopenParallelDirectWrites = 1 << 6
	FopenPassthrough          = 1 << 7
)

// Bits of the flag words of single requests.
const (
	ReleaseFlush       = 1 << 0 // ReleaseIn.ReleaseFlags
	ReleaseFlockUnlock = 1 << 1

	GetattrFh = 1 << 0 // GetattrIn.GetattrFlags: Fh is valid

	LkFlock = 1 << 0 // LkIn.LkFlags

	WriteCache       = 1 << 0 // WriteIn.WriteFlags: from the page cache, Fh is a guess
	WriteLockowner   = 1 << 1 // LockOwner is valid
	WriteKillSuidgid = 1 << 2

	ReadLockowner = 1 << 1 // ReadIn.ReadFlags

	IoctlCompat       = 1 << 0 // IoctlIn.Flags: 32-bit caller
	IoctlUnrestricted = 1 << 1
	IoctlRetry        = 1 << 2
	Ioctl32Bit        = 1 << 3
	IoctlDir          = 1 << 4
	IoctlCompatX32    = 1 << 5
	IoctlMaxIov       = 256

	PollScheduleNotify = 1 << 0 // PollIn.Flags

	FsyncFdatasync = 1 << 0 // FsyncIn.FsyncFlags

	AttrSubmount = 1 << 0 // Attr.Flags
	AttrDAX      = 1 << 1

	OpenKillSuidgid = 1 << 0 // OpenIn.OpenFlags, CreateIn.OpenFlags

	SetxattrACLKillSgid = 1 << 0 // SetxattrIn.SetxattrFlags

	ExpireOnly = 1 << 0 // NotifyInvalEntryOut.Flags

	SetupmappingWrite = 1 << 0 // SetupmappingIn.Flags
	SetupmappingRead  = 1 << 1

	UniqueResend = 1 << 63 // InHeader.Unique: sent once before
)

// Extension types of ExtHeader. Lower ones are a count of security contexts.
const (
	MaxNrSecctx = 31
	ExtGroups   = 32 // SuppGroups
)

// InvalidUIDGID is the caller's id where AllowIDMap is on and no mapping is known.
const InvalidUIDGID = 1<<32 - 1

// NotifyCode is the kind of an unsolicited message, enum fuse_notify_code.
type NotifyCode int32

// Notifications of protocol 7.45.
const (
	NotifyPoll       NotifyCode = 1
	NotifyInvalInode NotifyCode = 2
	NotifyInvalEntry NotifyCode = 3
	NotifyStore      NotifyCode = 4
	NotifyRetrieve   NotifyCode = 5
	NotifyDelete     NotifyCode = 6
	NotifyResend     NotifyCode = 7
	NotifyIncEpoch   NotifyCode = 8
	NotifyPrune      NotifyCode = 9
)
