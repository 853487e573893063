package fuse

import "strconv"

// Op is an operation code, enum fuse_opcode.
type Op uint32

// The operations of protocol 7.45. Reserved numbers are not listed; a server
// may handle any number below MaxOp.
const (
	OpLookup          Op = 1
	OpForget          Op = 2 // no reply
	OpGetattr         Op = 3
	OpSetattr         Op = 4
	OpReadlink        Op = 5
	OpSymlink         Op = 6
	OpMknod           Op = 8
	OpMkdir           Op = 9
	OpUnlink          Op = 10
	OpRmdir           Op = 11
	OpRename          Op = 12
	OpLink            Op = 13
	OpOpen            Op = 14
	OpRead            Op = 15
	OpWrite           Op = 16
	OpStatfs          Op = 17
	OpRelease         Op = 18
	OpFsync           Op = 20
	OpSetxattr        Op = 21
	OpGetxattr        Op = 22
	OpListxattr       Op = 23
	OpRemovexattr     Op = 24
	OpFlush           Op = 25
	OpInit            Op = 26 // served by Conn
	OpOpendir         Op = 27
	OpReaddir         Op = 28
	OpReleasedir      Op = 29
	OpFsyncdir        Op = 30
	OpGetlk           Op = 31
	OpSetlk           Op = 32
	OpSetlkw          Op = 33
	OpAccess          Op = 34
	OpCreate          Op = 35
	OpInterrupt       Op = 36 // no reply, except ENOSYS
	OpBmap            Op = 37
	OpDestroy         Op = 38 // served by Conn
	OpIoctl           Op = 39
	OpPoll            Op = 40
	OpNotifyReply     Op = 41 // no reply
	OpBatchForget     Op = 42 // no reply
	OpFallocate       Op = 43
	OpReaddirplus     Op = 44
	OpRename2         Op = 45
	OpLseek           Op = 46
	OpCopyFileRange   Op = 47
	OpSetupmapping    Op = 48
	OpRemovemapping   Op = 49
	OpSyncfs          Op = 50
	OpTmpfile         Op = 51
	OpStatx           Op = 52
	OpCopyFileRange64 Op = 53

	// MaxOp bounds the operations that can be dispatched.
	MaxOp Op = 4096
)

var opNames = [...]string{
	OpLookup: "LOOKUP", OpForget: "FORGET", OpGetattr: "GETATTR", OpSetattr: "SETATTR",
	OpReadlink: "READLINK", OpSymlink: "SYMLINK", OpMknod: "MKNOD", OpMkdir: "MKDIR",
	OpUnlink: "UNLINK", OpRmdir: "RMDIR", OpRename: "RENAME", OpLink: "LINK",
	OpOpen: "OPEN", OpRead: "READ", OpWrite: "WRITE", OpStatfs: "STATFS",
	OpRelease: "RELEASE", OpFsync: "FSYNC", OpSetxattr: "SETXATTR", OpGetxattr: "GETXATTR",
	OpListxattr: "LISTXATTR", OpRemovexattr: "REMOVEXATTR", OpFlush: "FLUSH", OpInit: "INIT",
	OpOpendir: "OPENDIR", OpReaddir: "READDIR", OpReleasedir: "RELEASEDIR", OpFsyncdir: "FSYNCDIR",
	OpGetlk: "GETLK", OpSetlk: "SETLK", OpSetlkw: "SETLKW", OpAccess: "ACCESS",
	OpCreate: "CREATE", OpInterrupt: "INTERRUPT", OpBmap: "BMAP", OpDestroy: "DESTROY",
	OpIoctl: "IOCTL", OpPoll: "POLL", OpNotifyReply: "NOTIFY_REPLY", OpBatchForget: "BATCH_FORGET",
	OpFallocate: "FALLOCATE", OpReaddirplus: "READDIRPLUS", OpRename2: "RENAME2", OpLseek: "LSEEK",
	OpCopyFileRange: "COPY_FILE_RANGE", OpSetupmapping: "SETUPMAPPING",
	OpRemovemapping: "REMOVEMAPPING", OpSyncfs: "SYNCFS", OpTmpfile: "TMPFILE",
	OpStatx: "STATX", OpCopyFileRange64: "COPY_FILE_RANGE_64",
}

var iomapOpNames = [...]string{"FREEZE_FS", "UNFREEZE_FS", "SHUTDOWN_FS",
	"IOMAP_CONFIG", "IOMAP_IOEND", "IOMAP_BEGIN", "IOMAP_END"}

// String returns the kernel's name without its FUSE_, or the number.
func (op Op) String() string {
	if int(op) < len(opNames) && opNames[op] != "" {
		return opNames[op]
	}
	if i := int(op) - int(OpFreezeFs); i >= 0 && i < len(iomapOpNames) {
		return iomapOpNames[i]
	}
	return "op " + strconv.FormatUint(uint64(op), 10)
}

// noReply tells whether the kernel accepts no answer to op.
func (op Op) noReply() bool {
	switch op {
	case OpForget, OpBatchForget, OpNotifyReply:
		return true
	}
	return false
}
