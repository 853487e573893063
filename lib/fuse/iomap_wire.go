package fuse

import "unsafe"

// Operations of fuse-iomap, which is not in mainline Linux: the kernel does the
// I/O of files and asks the server where their data lies.
const (
	OpFreezeFs    Op = 4089
	OpUnfreezeFs  Op = 4090
	OpShutdownFs  Op = 4091
	OpIomapConfig Op = 4092
	OpIomapIoend  Op = 4093
	OpIomapBegin  Op = 4094
	OpIomapEnd    Op = 4095
)

// Notifications of fuse-iomap.
const (
	NotifyIomapBackingInval NotifyCode = 99
	NotifyIomapUpsert       NotifyCode = 100
	NotifyIomapInval        NotifyCode = 101
)

// IomapMinor is the minor of the protocol that kernels with fuse-iomap speak.
// They ignore what an answer to INIT with a smaller one says of iomap.
const IomapMinor = 99

// Iomap is the INIT flag that turns fuse-iomap on. Kernels without it give the
// same bit another meaning (io_uring buffer pools), so it is only that where the
// device has told by [IomapSupport] that it is, and the minor is IomapMinor.
const Iomap InitFlags = 1 << 43

// Bits of Attr.Flags that come with fuse-iomap.
const (
	AttrExclusive = 1 << 2 // only this mount changes the inode
	AttrIomap     = 1 << 3 // its data is mapped; with AttrExclusive
	AttrAtomic    = 1 << 4 // takes atomic writes of a block
	AttrSync      = 1 << 5 // the next three are enforced if AttrExclusive is set
	AttrImmutable = 1 << 6
	AttrAppend    = 1 << 7
)

// IomapIO is one mapping, struct fuse_iomap_io. Bytes, in units of blocks.
type IomapIO struct {
	Offset uint64
	Length uint64
	Addr   uint64 // on the device, all ones if there is none
	Type   uint16 // see IomapABI
	Flags  uint16 // iomap.Flags
	Dev    uint32 // number got from BackingOpen, 0 for none
}

// IomapBeginIn asks for a mapping, struct fuse_iomap_begin_in.
type IomapBeginIn struct {
	Opflags  uint32 // see IomapABI
	Reserved uint32
	AttrIno  uint64
	Pos      uint64 // not aligned
	Count    uint64
}

// IomapBeginOut answers with where data is read from and where it is written to.
type IomapBeginOut struct{ Read, Write IomapIO }

// IomapEndIn says that a mapping is no longer used, struct fuse_iomap_end_in.
type IomapEndIn struct {
	Opflags  uint32
	Reserved uint32
	AttrIno  uint64
	Pos      uint64
	Count    uint64
	Written  int64 // bytes, or a negative errno
	Map      IomapIO
}

// IomapIoendIn says that data is on the device, struct fuse_iomap_ioend_in.
type IomapIoendIn struct {
	Flags   uint32 // iomap.EndFlags
	Error   int32  // a negative errno
	AttrIno uint64
	Pos     uint64
	NewAddr uint64 // in sectors of 512 bytes; all ones if not told
	Written uint64 // bytes, cut to the size
	Dev     uint32
	_       uint32
}

// IomapIoendOut answers with the size that the server has stored.
type IomapIoendOut struct{ Newsize uint64 }

// IomapConfigIn offers what may be set, struct fuse_iomap_config_in.
type IomapConfigIn struct {
	Flags         uint64 // Config*
	Maxbytes      int64  // largest size that the kernel can do
	CacheMaxbytes uint32
	_             uint32
	_             [5]uint64
}

// IomapConfigOut sets it, struct fuse_iomap_config_out.
type IomapConfigOut struct {
	Flags         uint64 // which of the fields below count
	ID            [32]byte
	UUID          [16]byte
	UUIDLen       uint8
	_             [3]uint8
	Blocksize     uint32
	MaxLinks      uint32
	TimeGran      uint32 // ns
	TimeMin       int64  // seconds
	TimeMax       int64
	Maxbytes      int64
	CacheMaxbytes uint32 // of each fork of each inode's mapping cache
	_             uint32
}

// Bits of IomapConfigIn.Flags and IomapConfigOut.Flags.
const (
	ConfigSID = 1 << iota
	ConfigUUID
	ConfigBlocksize
	ConfigMaxLinks
	ConfigTime
	ConfigMaxbytes
	ConfigCacheMaxbytes
)

// FreezefsIn is the body of FREEZE_FS.
type FreezefsIn struct{ Unlinked uint64 } // inodes that are open without a name

// ShutdownfsIn is the body of SHUTDOWN_FS.
type ShutdownfsIn struct{ Flags uint64 }

// IomapRange is a range of bytes, struct fuse_range. Length 0 is none; in
// IomapInvalOut all ones is to the end.
type IomapRange struct{ Offset, Length uint64 }

// IomapBackingInvalOut drops what the kernel has cached of a device.
type IomapBackingInvalOut struct {
	Dev      uint32
	Reserved uint32
	Range    IomapRange
}

// IomapInvalOut drops cached mappings of a file.
type IomapInvalOut struct {
	NodeID      uint64
	AttrIno     uint64
	Read, Write IomapRange
}

// IomapUpsertOut sets cached mappings of a file.
type IomapUpsertOut struct {
	NodeID      uint64
	AttrIno     uint64
	Read, Write IomapIO
}

// BackingMap is the argument of BackingOpen, struct fuse_backing_map.
type BackingMap struct {
	Fd      int32
	Flags   uint32
	Padding uint64
}

// IomapSupported is what the device answers to IomapSupport, struct
// fuse_iomap_support.
type IomapSupported struct {
	Flags   uint64
	Padding uint64
}

// IomapBackingInfo is the argument of SetBlocksize, struct
// fuse_iomap_backing_info.
type IomapBackingInfo struct {
	BackingID uint32
	Blocksize uint32
}

var ( // sizes on the wire
	_ [32]byte = [unsafe.Sizeof(IomapIO{})]byte{}
	_ [32]byte = [unsafe.Sizeof(IomapBeginIn{})]byte{}
	_ [64]byte = [unsafe.Sizeof(IomapBeginOut{})]byte{}
	_ [72]byte = [unsafe.Sizeof(IomapEndIn{})]byte{}
	_ [48]byte = [unsafe.Sizeof(IomapIoendIn{})]byte{}
	_ [64]byte = [unsafe.Sizeof(IomapConfigIn{})]byte{}
	_ [24]byte = [unsafe.Sizeof(IomapBackingInvalOut{})]byte{}
	_ [48]byte = [unsafe.Sizeof(IomapInvalOut{})]byte{}
	_ [80]byte = [unsafe.Sizeof(IomapUpsertOut{})]byte{}
	_ [16]byte = [unsafe.Sizeof(BackingMap{})]byte{}
	_ [16]byte = [unsafe.Sizeof(IomapSupported{})]byte{}
	_ [8]byte  = [unsafe.Sizeof(IomapBackingInfo{})]byte{}
)
