package iomappeer

import "fmt"

// A Profile is one of the two variants of the protocol, which the wire cannot
// tell apart: the version stayed the same while numbers moved.
type Profile int

const (
	May26 Profile = iota // the trees of May 2026, the reference
	V7                   // the seventh mailed series
)

func (p Profile) String() string {
	if p == V7 {
		return "v7"
	}
	return "may26"
}

// Opcodes.
const (
	opLookup        = 1
	opForget        = 2
	opGetattr       = 3
	opSetattr       = 4
	opReadlink      = 5
	opSymlink       = 6
	opMknod         = 8
	opMkdir         = 9
	opUnlink        = 10
	opRmdir         = 11
	opLink          = 13
	opOpen          = 14
	opRead          = 15
	opWrite         = 16
	opStatfs        = 17
	opRelease       = 18
	opFsync         = 20
	opSetxattr      = 21
	opGetxattr      = 22
	opListxattr     = 23
	opRemovexattr   = 24
	opFlush         = 25
	opInit          = 26
	opOpendir       = 27
	opReaddir       = 28
	opReleasedir    = 29
	opFsyncdir      = 30
	opCreate        = 35
	opInterrupt     = 36
	opDestroy       = 38
	opIoctl         = 39
	opBatchForget   = 42
	opFallocate     = 43
	opReaddirplus   = 44
	opRename2       = 45
	opCopyFileRange = 47
	opSyncfs        = 50
	opTmpfile       = 51
	opStatx         = 52
	opCopyRange64   = 53
	opFreezeFS      = 4089
	opUnfreezeFS    = 4090
	opShutdownFS    = 4091
	opIomapConfig   = 4092
	opIomapIOEnd    = 4093
	opIomapBegin    = 4094
	opIomapEnd      = 4095
)

var opNames = map[uint32]string{
	opLookup: "LOOKUP", opForget: "FORGET", opGetattr: "GETATTR", opSetattr: "SETATTR", opReadlink: "READLINK",
	opSymlink: "SYMLINK", opMknod: "MKNOD", opMkdir: "MKDIR", opUnlink: "UNLINK", opRmdir: "RMDIR", opLink: "LINK",
	opOpen: "OPEN", opRead: "READ", opWrite: "WRITE", opStatfs: "STATFS", opRelease: "RELEASE", opFsync: "FSYNC",
	opSetxattr: "SETXATTR", opGetxattr: "GETXATTR", opListxattr: "LISTXATTR", opRemovexattr: "REMOVEXATTR",
	opFlush: "FLUSH", opInit: "INIT", opOpendir: "OPENDIR", opReaddir: "READDIR", opReleasedir: "RELEASEDIR",
	opFsyncdir: "FSYNCDIR", opCreate: "CREATE", opInterrupt: "INTERRUPT", opDestroy: "DESTROY", opIoctl: "IOCTL",
	opBatchForget: "BATCH_FORGET", opFallocate: "FALLOCATE", opReaddirplus: "READDIRPLUS", opRename2: "RENAME2",
	opCopyFileRange: "COPY_FILE_RANGE", opSyncfs: "SYNCFS", opTmpfile: "TMPFILE", opStatx: "STATX",
	opCopyRange64: "COPY_FILE_RANGE_64", opFreezeFS: "FREEZE_FS", opUnfreezeFS: "UNFREEZE_FS",
	opShutdownFS: "SHUTDOWN_FS", opIomapConfig: "IOMAP_CONFIG", opIomapIOEnd: "IOMAP_IOEND",
	opIomapBegin: "IOMAP_BEGIN", opIomapEnd: "IOMAP_END",
}

// OpName returns the protocol's name of an opcode.
func OpName(op uint32) string {
	if s := opNames[op]; s != "" {
		return s
	}
	return fmt.Sprintf("opcode %d", op)
}

// Notifications that are the iomap part's own.
const (
	notifyBackingInval = 99
	notifyUpsert       = 100
	notifyInval        = 101
)

// INIT flags.
const (
	flagAsyncRead     = 1 << 0
	flagAtomicOTrunc  = 1 << 3
	flagExport        = 1 << 4
	flagBigWrites     = 1 << 5
	flagDontMask      = 1 << 6
	flagAutoInval     = 1 << 12
	flagReaddirplus   = 1 << 13
	flagReaddirAuto   = 1 << 14
	flagAsyncDIO      = 1 << 15
	flagWriteback     = 1 << 16
	flagNoOpen        = 1 << 17
	flagParallelDir   = 1 << 18
	flagHandleKill    = 1 << 19
	flagPosixACL      = 1 << 20
	flagAbortError    = 1 << 21
	flagMaxPages      = 1 << 22
	flagCacheSymlinks = 1 << 23
	flagNoOpendir     = 1 << 24
	flagExplicitInval = 1 << 25
	flagSubmounts     = 1 << 27
	flagHandleKillV2  = 1 << 28
	flagSetxattrExt   = 1 << 29
	flagInitExt       = 1 << 30
	flagPassthrough   = 1 << 37
	flagIomap         = 1 << 43 // on a stock kernel: HAS_IO_URING_BUFPOOL
	flagIOUring       = 1 << 41

	defaultOffer = flagAsyncRead | flagAtomicOTrunc | flagExport | flagBigWrites | flagDontMask | flagAutoInval |
		flagReaddirplus | flagReaddirAuto | flagAsyncDIO | flagWriteback | flagNoOpen | flagParallelDir | flagHandleKill |
		flagPosixACL | flagAbortError | flagMaxPages | flagCacheSymlinks | flagNoOpendir | flagExplicitInval |
		flagSubmounts | flagHandleKillV2 | flagSetxattrExt | flagInitExt | flagPassthrough
)

// Attribute flags.
const (
	attrDAX       = 1 << 1
	attrExclusive = 1 << 2
	attrIomap     = 1 << 3
	attrAtomic    = 1 << 4
	attrSync      = 1 << 5
	attrImmutable = 1 << 6
	attrAppend    = 1 << 7
)

// Mapping types, as the peer holds them: the numbers of May26. Profile.toWire and
// fromWire translate the special ones.
const (
	TypeHole            = 0
	TypeDelalloc        = 1
	TypeMapped          = 2
	TypeUnwritten       = 3
	TypeInline          = 4
	TypePureOverwrite   = 65535
	TypeRetryCache      = 65534
	TypeNoCache         = 65533
	TypeMappedStripe    = 65532
	TypeUnwrittenStripe = 65531

	typeUnknown = 60000 // a number that the profile does not have
)

// toWire returns the number that stands for a type in the profile.
func (p Profile) toWire(typ uint16) uint16 {
	if p == V7 {
		switch typ {
		case TypePureOverwrite:
			return 255
		case TypeRetryCache:
			return 254
		case TypeNoCache:
			return 253
		}
	}
	return typ
}

func (p Profile) fromWire(n uint16) uint16 {
	if n <= TypeInline {
		return n
	}
	if p == V7 {
		switch n {
		case 255:
			return TypePureOverwrite
		case 254:
			return TypeRetryCache
		case 253:
			return TypeNoCache
		}
		return typeUnknown
	}
	if n >= TypeUnwrittenStripe {
		return n
	}
	return typeUnknown
}

var typeNames = map[uint16]string{
	TypeHole: "HOLE", TypeDelalloc: "DELALLOC", TypeMapped: "MAPPED", TypeUnwritten: "UNWRITTEN", TypeInline: "INLINE",
	TypePureOverwrite: "PURE_OVERWRITE", TypeRetryCache: "RETRY_CACHE", TypeNoCache: "NOCACHE",
	TypeMappedStripe: "MAPPED_STRIPE", TypeUnwrittenStripe: "UNWRITTEN_STRIPE", typeUnknown: "unknown type",
}

// Mapping flags.
const (
	FlagNew          = 1 << 0
	FlagDirty        = 1 << 1
	FlagShared       = 1 << 2
	FlagMerged       = 1 << 3
	FlagBoundary     = 1 << 4
	FlagAnonWrite    = 1 << 5
	FlagAtomicBio    = 1 << 6
	FlagWantIomapEnd = 1 << 7
	FlagSizeChanged  = 1 << 8
	FlagStale        = 1 << 9

	flagsFromServer = 0x00ff
)

// An Op is the set of operation flags of a BEGIN or END, with the numbers of
// May26.
type Op uint32

const (
	OpWrite         Op = 1 << 0
	OpZero          Op = 1 << 1
	OpReport        Op = 1 << 2
	OpFault         Op = 1 << 3
	OpDirect        Op = 1 << 4
	OpNowait        Op = 1 << 5
	OpOverwriteOnly Op = 1 << 6
	OpUnshare       Op = 1 << 7
	OpDAX           Op = 1 << 8
	OpAtomic        Op = 1 << 9
	OpDontCache     Op = 1 << 10
	OpWriteback     Op = 1 << 11
	OpSwapfile      Op = 1 << 31
)

var opflagNames = []string{"WRITE", "ZERO", "REPORT", "FAULT", "DIRECT", "NOWAIT", "OVERWRITE_ONLY", "UNSHARE", "DAX",
	"ATOMIC", "DONTCACHE", "WRITEBACK"}

func (op Op) String() string {
	s := ""
	for i, n := range opflagNames {
		if op&(1<<i) != 0 {
			s += "|" + n
		}
	}
	if op&OpSwapfile != 0 {
		s += "|SWAPFILE"
	}
	if s == "" {
		return "READ"
	}
	return s[1:]
}

func (p Profile) opToWire(op Op) uint32 {
	if p == V7 {
		w := op &^ (OpWriteback | OpSwapfile)
		if op&OpWriteback != 0 {
			w |= 1 << 31
		}
		if op&OpSwapfile != 0 {
			w |= 1 << 30
		}
		return uint32(w)
	}
	return uint32(op)
}

func (p Profile) opFromWire(w uint32) Op {
	if p == V7 {
		op := Op(w) &^ (1<<31 | 1<<30)
		if w&(1<<31) != 0 {
			op |= OpWriteback
		}
		if w&(1<<30) != 0 {
			op |= OpSwapfile
		}
		return op
	}
	return Op(w)
}

// isWrite reports whether the operation counts as a write.
func (p Profile) isWrite(op Op) bool {
	mask := OpWrite | OpZero | OpUnshare | OpWriteback
	if p == May26 {
		mask |= OpSwapfile
	}
	return op&mask != 0
}

// uncached reports whether the operation never looks in the mapping cache.
func (p Profile) uncached(op Op) bool {
	return p == May26 && op&(OpReport|OpAtomic|OpSwapfile) != 0
}

// IOEND flags.
const (
	IOEndShared    = 1 << 0
	IOEndUnwritten = 1 << 1
	IOEndBoundary  = 1 << 2
	IOEndDirect    = 1 << 3
	IOEndAppend    = 1 << 4
	IOEndWriteback = 1 << 5
	IOEndSwapoff   = 1 << 6
)

// CONFIG flags.
const (
	configSID           = 1 << 0
	configUUID          = 1 << 1
	configBlocksize     = 1 << 2
	configMaxLinks      = 1 << 3
	configTime          = 1 << 4
	configMaxbytes      = 1 << 5
	configCacheMaxbytes = 1 << 6
	configAll           = 0x7f
)

// SETATTR's valid bits.
const (
	fattrMode      = 1 << 0
	fattrUID       = 1 << 1
	fattrGID       = 1 << 2
	fattrSize      = 1 << 3
	fattrAtime     = 1 << 4
	fattrMtime     = 1 << 5
	fattrFH        = 1 << 6
	fattrLockOwner = 1 << 9
	fattrCtime     = 1 << 10
)

// What an OPEN reply may ask for.
const (
	fopenDirectIO    = 1 << 0
	fopenKeepCache   = 1 << 1
	fopenNonseekable = 1 << 2
	fopenStream      = 1 << 4
	fopenNoFlush     = 1 << 5
	fopenPassthrough = 1 << 7
)

// Device ioctls.
const (
	iocClone        = 0x8004E500
	iocBackingOpen  = 0x4010E501
	iocBackingClose = 0x4004E502
	iocSyncInit     = 0x0000E503
	iocIomapSupport = 0x8010E563
	iocSetNofs      = 0x4004E564
	iocAddIomap     = 0x0000E565
	iocSetBlocksize = 0x4008E566
	iocStripeConfig = 0x4010E567
)

const (
	pageSize   = 4096
	nullAddr   = ^uint64(0)
	maxLFS     = 1<<63 - 1
	minorIomap = 99
	minorStock = 46
)
