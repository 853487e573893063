package service

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"syscall"
)

// The version of the protocol, and the largest message.
const (
	Version    = 1
	MaxMessage = 65536 // bytes
)

// Magic is the first word of a message, and says which it is.
type Magic uint32

const (
	HelloCmd    Magic = 0x53414654 // SAFT, from the helper
	HelloReply  Magic = 0x4c415354 // LAST
	OpenReply   Magic = 0x46494c45 // FILE, from the helper
	SimpleReply Magic = 0x5245504c // REPL, from the helper
	OpenCmd     Magic = 0x4f50454e // OPEN
	OpenBdevCmd Magic = 0x42444556 // BDEV
	FsopenCmd   Magic = 0x54595045 // TYPE
	SourceCmd   Magic = 0x4e414d45 // NAME
	MntptCmd    Magic = 0x4d4e5450 // MNTP
	MntoptsCmd  Magic = 0x4f505453 // OPTS
	MtaboptsCmd Magic = 0x4d544142 // MTAB
	MountCmd    Magic = 0x444f4954 // DOIT
	ByeCmd      Magic = 0x42594545 // BYEE
	IomapCmd    Magic = 0x494f4d41 // IOMA, unknown to libfuse
)

var magicNames = map[Magic]string{
	HelloCmd: "HELLO", HelloReply: "HELLO reply", OpenReply: "OPEN reply", SimpleReply: "reply",
	OpenCmd: "OPEN", OpenBdevCmd: "OPEN_BDEV", FsopenCmd: "FSOPEN", SourceCmd: "SOURCE",
	MntptCmd: "MNTPT", MntoptsCmd: "MNTOPTS", MtaboptsCmd: "MTABOPTS", MountCmd: "MOUNT",
	ByeCmd: "BYE", IomapCmd: "IOMAP",
}

func (m Magic) String() string {
	if s, ok := magicNames[m]; ok {
		return s
	}
	return fmt.Sprintf("message %#x", uint32(m))
}

// Flags of HelloCmd: what the helper lets its caller have.
const (
	HelloAllowOther = 1 << 0 // allow_other: by root, or by user_allow_other
	HelloFuseblk    = 1 << 1 // mounts of block devices
	helloFlags      = HelloAllowOther | HelloFuseblk
)

// OpenQuiet, a request flag of OpenCmd, has the helper print no error.
const (
	OpenQuiet    = 1 << 0
	requestFlags = OpenQuiet
)

// FsopenFuseblk, a flag of FsopenCmd, makes it a mount of a block device.
const (
	FsopenFuseblk = 1 << 0
	fsopenFlags   = FsopenFuseblk
)

// Modes of IomapCmd: whether the session ends if the helper cannot.
const (
	IomapOptional  = 0x503f
	IomapMandatory = 0x5021
)

// Names under which the helper passes what the server did not ask for.
const (
	nameArgv    = "argv"
	nameFusedev = "fusedev"
)

// Message is any message: Magic says which, and what of it is used.
type Message struct {
	Magic     Magic
	Min, Max  uint16        // HelloCmd: versions; Min: HelloReply
	Flags     uint32        // HelloCmd; OpenCmd: open(2)'s; FsopenCmd; MountCmd: MS_*
	Mode      uint32        // OpenCmd: of a file it makes; MntptCmd: S_IFDIR, S_IFREG, 0; IomapCmd
	Request   uint32        // OpenCmd: Open*
	BlockSize uint32        // OpenBdevCmd: to set, 0: leave
	Errno     syscall.Errno // OpenReply, SimpleReply; ByeCmd: exit code
	Text      string        // path, source, options
}

// ProtoError says what is wrong with a message. It unwraps to EBADMSG.
type ProtoError struct {
	Magic Magic // 0 if there is not even that
	Why   string
}

func (e *ProtoError) Error() string {
	if e.Magic == 0 {
		return "fuse service: " + e.Why
	}
	return fmt.Sprintf("fuse service: %v: %s", e.Magic, e.Why)
}

// Unwrap returns EBADMSG.
func (e *ProtoError) Unwrap() error { return syscall.EBADMSG }

func bad(m Magic, format string, args ...any) error {
	return &ProtoError{m, fmt.Sprintf(format, args...)}
}

var be = binary.BigEndian

// fixed is the length of each message up to its text.
var fixed = map[Magic]int{
	HelloCmd: 12, HelloReply: 8, OpenReply: 8, SimpleReply: 8, OpenCmd: 20, OpenBdevCmd: 20,
	FsopenCmd: 8, SourceCmd: 4, MntptCmd: 8, MntoptsCmd: 4, MtaboptsCmd: 4, MountCmd: 8, ByeCmd: 8, IomapCmd: 8,
}

// texts are the messages that end in a string.
var texts = map[Magic]bool{
	OpenReply: true, OpenCmd: true, OpenBdevCmd: true, SourceCmd: true, MntptCmd: true,
	MntoptsCmd: true, MtaboptsCmd: true,
}

// Encode returns the message as it is sent. It fails if a string is too long,
// has a NUL in it, or is empty.
func (m *Message) Encode() ([]byte, error) {
	b := be.AppendUint32(make([]byte, 0, 64+len(m.Text)), uint32(m.Magic))
	switch m.Magic {
	case HelloCmd:
		b = be.AppendUint16(b, m.Min)
		b = be.AppendUint16(b, m.Max)
		b = be.AppendUint32(b, m.Flags)
	case HelloReply:
		b = be.AppendUint16(b, m.Min)
		b = be.AppendUint16(b, 0)
	case OpenReply, SimpleReply, ByeCmd:
		b = be.AppendUint32(b, uint32(m.Errno))
	case OpenCmd, OpenBdevCmd:
		for _, v := range []uint32{m.Flags, m.Mode, m.Request, m.BlockSize} {
			b = be.AppendUint32(b, v)
		}
	case FsopenCmd, MountCmd:
		b = be.AppendUint32(b, m.Flags)
	case MntptCmd, IomapCmd:
		b = be.AppendUint16(b, uint16(m.Mode))
		b = be.AppendUint16(b, 0)
	}
	if texts[m.Magic] {
		if m.Text == "" || bytes.IndexByte([]byte(m.Text), 0) >= 0 {
			return nil, bad(m.Magic, "%q is no string to send", m.Text)
		}
		b = append(append(b, m.Text...), 0)
	}
	if len(b) > MaxMessage {
		return nil, bad(m.Magic, "a string of %d bytes", len(m.Text))
	}
	return b, nil
}

// Decode reads a message. It fails with a *ProtoError, which has the Magic if
// that could be read.
func Decode(b []byte) (*Message, error) {
	if len(b) < 4 {
		return nil, bad(0, "a packet of %d bytes", len(b))
	}
	m := &Message{Magic: Magic(be.Uint32(b))}
	n, ok := fixed[m.Magic]
	switch {
	case !ok:
		return nil, bad(m.Magic, "is not known")
	case len(b) > MaxMessage:
		return nil, bad(m.Magic, "%d bytes", len(b))
	case !texts[m.Magic] && len(b) != n, len(b) < n:
		return nil, bad(m.Magic, "%d bytes", len(b))
	}
	if texts[m.Magic] {
		s := b[n:]
		if i := bytes.IndexByte(s, 0); i < 1 || i != len(s)-1 {
			return nil, bad(m.Magic, "not one string that ends with NUL")
		}
		m.Text = string(s[:len(s)-1])
	}
	switch m.Magic {
	case HelloCmd:
		m.Min, m.Max, m.Flags = be.Uint16(b[4:]), be.Uint16(b[6:]), be.Uint32(b[8:])
	case HelloReply:
		m.Min = be.Uint16(b[4:])
		if be.Uint16(b[6:]) != 0 {
			return nil, bad(m.Magic, "padding is not zero")
		}
	case OpenReply, SimpleReply, ByeCmd:
		m.Errno = syscall.Errno(be.Uint32(b[4:]))
	case OpenCmd, OpenBdevCmd:
		m.Flags, m.Mode, m.Request, m.BlockSize = be.Uint32(b[4:]), be.Uint32(b[8:]), be.Uint32(b[12:]), be.Uint32(b[16:])
	case FsopenCmd, MountCmd:
		m.Flags = be.Uint32(b[4:])
	case MntptCmd, IomapCmd:
		m.Mode = uint32(be.Uint16(b[4:]))
		if be.Uint16(b[6:]) != 0 {
			return nil, bad(m.Magic, "padding is not zero")
		}
	}
	return m, nil
}
