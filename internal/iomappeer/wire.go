package iomappeer

import (
	"encoding/binary"
	"fmt"
)

// native is the byte order of the device.
var native = binary.NativeEndian

// enc appends structures in the device's byte order.
func enc(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case []byte:
			b = append(b, p...)
		case string:
			b = append(append(b, p...), 0)
		default:
			var err error
			if b, err = binary.Append(b, native, p); err != nil {
				panic(err) // a structure without a fixed size: our own mistake
			}
		}
	}
	return b
}

// dec fills the structure v from the head of b and returns the rest; ok is false
// if b is too short.
func dec(b []byte, v any) (rest []byte, ok bool) {
	n, err := binary.Decode(b, native, v)
	if err != nil {
		return b, false
	}
	return b[n:], true
}

// size returns the bytes that a structure takes on the wire.
func size(v any) int { return binary.Size(v) }

type inHeader struct {
	Len     uint32
	Opcode  uint32
	Unique  uint64
	NodeID  uint64
	UID     uint32
	GID     uint32
	PID     uint32
	ExtLen  uint16
	Padding uint16
}

type outHeader struct {
	Len    uint32
	Error  int32
	Unique uint64
}

const (
	inHeaderSize  = 40
	outHeaderSize = 16
)

// A Mapping is a range of a file and where it lies, as BEGIN, END and UPSERT
// carry it.
type Mapping struct {
	Offset uint64 // bytes
	Length uint64 // bytes
	Addr   uint64 // byte address on the device, or all ones
	Type   uint16
	Flags  uint16
	Dev    uint32
}

// End returns the first byte behind the mapping.
func (m *Mapping) End() uint64 { return m.Offset + m.Length }

// hasDev reports whether the mapping's type names an address.
func (m *Mapping) hasDev() bool { return m.Type == TypeMapped || m.Type == TypeUnwritten }

func (m *Mapping) contains(pos int64) bool {
	return m.Length != 0 && m.Offset <= uint64(pos) && uint64(pos) < m.End()
}

// at returns the device address of byte pos of the file.
func (m *Mapping) at(pos int64) int64 { return int64(m.Addr + uint64(pos) - m.Offset) }

func (m Mapping) String() string {
	s := fmt.Sprintf("%s[%d,+%d)", typeNames[m.Type], m.Offset, m.Length)
	if m.Addr != nullAddr {
		s += fmt.Sprintf("@%d", m.Addr)
	}
	if m.Dev != 0 {
		s += fmt.Sprintf(" dev %d", m.Dev)
	}
	if m.Flags != 0 {
		s += fmt.Sprintf(" flags %#x", m.Flags)
	}
	return s
}

func (p Profile) decMapping(m *Mapping) { m.Type = p.fromWire(m.Type) }

func (p Profile) encMapping(m Mapping) Mapping {
	m.Type = p.toWire(m.Type)
	return m
}

type beginIn struct {
	Opflags  uint32
	Reserved uint32
	AttrIno  uint64
	Pos      uint64
	Count    uint64
}

type beginOut struct {
	Read  Mapping
	Write Mapping
}

type endIn struct {
	Opflags  uint32
	Reserved uint32
	AttrIno  uint64
	Pos      uint64
	Count    uint64
	Written  int64
	Map      Mapping
}

type ioendIn struct {
	Flags   uint32
	Error   int32
	AttrIno uint64
	Pos     uint64
	NewAddr uint64
	Written uint64
	Dev     uint32
	Pad     uint32
}

type ioendOut struct{ NewSize uint64 }

type configIn struct {
	Flags         uint64
	MaxBytes      int64
	CacheMaxbytes uint32
	Zero          uint32
	Padding       [5]uint64
}

type configOut struct {
	Flags         uint64
	ID            [32]byte
	UUID          [16]byte
	UUIDLen       uint8
	Pad           [3]uint8
	Blocksize     uint32
	MaxLinks      uint32
	TimeGran      uint32
	TimeMin       int64
	TimeMax       int64
	MaxBytes      int64
	CacheMaxbytes uint32
	TailPad       uint32
}

type byteRange struct{ Offset, Length uint64 }

type backingInvalOut struct {
	Dev      uint32
	Reserved uint32
	Range    byteRange
}

type invalOut struct {
	NodeID  uint64
	AttrIno uint64
	Read    byteRange
	Write   byteRange
}

type upsertOut struct {
	NodeID  uint64
	AttrIno uint64
	Read    Mapping
	Write   Mapping
}

type backingMap struct {
	FD      int32
	Flags   uint32
	Padding uint64
}

type iomapSupport struct {
	Flags   uint64
	Padding uint64
}

type backingInfo struct {
	ID        uint32
	Blocksize uint32
}

type initIn struct {
	Major, Minor, MaxReadahead, Flags, Flags2 uint32
	Unused                                    [11]uint32
}

type initOut struct {
	Major, Minor, MaxReadahead, Flags uint32
	MaxBackground, Congestion         uint16
	MaxWrite, TimeGran                uint32
	MaxPages, MapAlignment            uint16
	Flags2, MaxStackDepth             uint32
	RequestTimeout                    uint16
	Unused                            [11]uint16
}

// An Attr is the attributes of an inode as replies carry them.
type Attr struct {
	Ino, Size, Blocks               uint64
	Atime, Mtime, Ctime             uint64
	AtimeNsec, MtimeNsec, CtimeNsec uint32
	Mode, Nlink, UID, GID           uint32
	Rdev, Blksize, Flags            uint32
}

type entryOut struct {
	NodeID, Generation            uint64
	EntryValid, AttrValid         uint64
	EntryValidNsec, AttrValidNsec uint32
	Attr                          Attr
}

type attrOut struct {
	AttrValid     uint64
	AttrValidNsec uint32
	Dummy         uint32
	Attr          Attr
}

type openIn struct{ Flags, OpenFlags uint32 }

type openOut struct {
	FH        uint64
	OpenFlags uint32
	BackingID int32
}

type createIn struct{ Flags, Mode, Umask, OpenFlags uint32 }

type mkdirIn struct{ Mode, Umask uint32 }

type mknodIn struct{ Mode, Rdev, Umask, Padding uint32 }

type rename2In struct {
	NewDir  uint64
	Flags   uint32
	Padding uint32
}

type getattrIn struct {
	Flags, Dummy uint32
	FH           uint64
}

type setattrIn struct {
	Valid, Padding                           uint32
	FH, Size, LockOwner, Atime, Mtime, Ctime uint64
	AtimeNsec, MtimeNsec, CtimeNsec, Mode    uint32
	Unused4, UID, GID, Unused5               uint32
}

type readIn struct {
	FH, Offset      uint64
	Size, ReadFlags uint32
	LockOwner       uint64
	Flags, Padding  uint32
}

type writeIn struct {
	FH, Offset       uint64
	Size, WriteFlags uint32
	LockOwner        uint64
	Flags, Padding   uint32
}

type writeOut struct{ Size, Padding uint32 }

type releaseIn struct {
	FH                  uint64
	Flags, ReleaseFlags uint32
	LockOwner           uint64
}

type flushIn struct {
	FH              uint64
	Unused, Padding uint32
	LockOwner       uint64
}

type fsyncIn struct {
	FH             uint64
	Flags, Padding uint32
}

type setxattrIn struct{ Size, Flags uint32 }

type setxattrExtIn struct{ Size, Flags, SetxattrFlags, Padding uint32 }

type getxattrIn struct{ Size, Padding uint32 }

type fallocateIn struct {
	FH, Offset, Length uint64
	Mode, Padding      uint32
}

type copyRangeIn struct{ FHIn, OffIn, NodeOut, FHOut, OffOut, Len, Flags uint64 }

type ioctlIn struct {
	FH              uint64
	Flags, Cmd      uint32
	Arg             uint64
	InSize, OutSize uint32
}

type ioctlOut struct {
	Result                 int32
	Flags, InIovs, OutIovs uint32
}

// A Statfs is what STATFS answers.
type Statfs struct {
	Blocks, Bfree, Bavail, Files, Ffree uint64
	Bsize, Namelen, Frsize, Padding     uint32
	Spare                               [6]uint32
}

type dirent struct {
	Ino, Off      uint64
	Namelen, Type uint32
}

type statxIn struct {
	GetattrFlags, Reserved uint32
	FH                     uint64
	SxFlags, SxMask        uint32
}

type sxTime struct {
	Sec      int64
	Nsec     uint32
	Reserved int32
}

// A Statx is what STATX answers; the words behind DevMinor have the names that
// the series gives them.
type Statx struct {
	Mask, Blksize                                   uint32
	Attributes                                      uint64
	Nlink, UID, GID                                 uint32
	Mode, Spare0                                    uint16
	Ino, Size, Blocks, AttributesMask               uint64
	Atime, Btime, Ctime, Mtime                      sxTime
	RdevMajor, RdevMinor, DevMajor, DevMinor        uint32
	MntID                                           uint64
	DIOMemAlign, DIOOffsetAlign                     uint32
	Subvol                                          uint64
	AtomicUnitMin, AtomicUnitMax, AtomicSegmentsMax uint32
	DIOReadOffsetAlign, AtomicUnitMaxOpt, Spare2    uint32
	Spare3                                          [8]uint64
}

type statxOut struct {
	AttrValid            uint64
	AttrValidNsec, Flags uint32
	Spare                [2]uint64
	Stat                 Statx
}
