package fuse2fs

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fuse"
)

// ioctl numbers, as linux/fs.h and ext4 have them. The kernel copies the
// argument to and from the caller by the direction and size in the number.
const (
	iocGetflags     = 0x80086601 // FS_IOC_GETFLAGS
	iocSetflags     = 0x40086602 // FS_IOC_SETFLAGS
	iocGetflags32   = 0x80046601
	iocSetflags32   = 0x40046602
	iocGetversion   = 0x80087601 // FS_IOC_GETVERSION: the generation
	iocGetversion32 = 0x80047601
	iocFsgetxattr   = 0x801c581f // FS_IOC_FSGETXATTR
	iocFssetxattr   = 0x401c5820 // FS_IOC_FSSETXATTR
	iocGetlabel     = 0x81009431 // FS_IOC_GETFSLABEL
	iocSetlabel     = 0x41009432 // FS_IOC_SETFSLABEL
	iocTrim         = 0xc0185879 // FITRIM
	iocShutdown     = 0x8004587d // EXT4_IOC_SHUTDOWN
	iocGetuuid      = 0x80111500 // FS_IOC_GETFSUUID
	iocMigrate      = 0x00006609 // EXT4_IOC_MIGRATE
)

// Bits of fsxattr.xflags.
const (
	xflagImmutable = 0x8
	xflagAppend    = 0x10
)

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	xflags uint32
	_      [2]uint32 // extent size hint, number of extents
	projid uint32
	_      [3]uint32 // extent size hint for copy on write, room
}

// trimRange is struct fstrim_range.
type trimRange struct{ start, len, minlen uint64 }

func (s *Server) ioctl(r *fuse.Request) {
	in, ok := fuse.In[fuse.IoctlIn](r)
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	arg := r.Payload()
	if len(arg) < int(in.InSize) {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	if in.Flags&fuse.IoctlUnrestricted != 0 {
		r.ReplyErr(syscall.ENOTTY)
		return
	}
	run := func() {
		ip := s.node(r)
		if ip == nil {
			return
		}
		defer ip.Put()
		out := make([]byte, in.OutSize)
		n, err := s.doIoctl(r, ip, in.Cmd, arg[:in.InSize], out)
		if err != nil {
			s.fail(r, err)
			return
		}
		fuse.Out[fuse.IoctlOut](r)
		r.ReplyBytes(out[:n])
	}
	if protects(in.Cmd, arg) {
		s.afterWriteback(r, 0, run) // later, what was written before would be refused
	} else {
		run()
	}
}

// protects says whether an ioctl makes an inode immutable or append-only.
func protects(cmd uint32, in []byte) bool {
	switch cmd {
	case iocSetflags, iocSetflags32:
		return len(in) >= 4 && binary.NativeEndian.Uint32(in)&protected != 0
	case iocFssetxattr:
		x, err := view[fsxattr](in)
		return err == nil && x.xflags&(xflagImmutable|xflagAppend) != 0
	}
	return false
}

// doIoctl runs one ioctl: in and out have the sizes that its number states, but
// a caller may build any number. It returns how much of out is used.
func (s *Server) doIoctl(r *fuse.Request, ip *ext2fs.Inode, cmd uint32, in, out []byte) (int, error) {
	switch cmd {
	case iocGetflags, iocGetflags32:
		return putWord(out, ip.Flags()), nil
	case iocSetflags, iocSetflags32:
		if len(in) < 4 {
			return 0, syscall.EINVAL
		}
		flags := binary.NativeEndian.Uint32(in)
		changed := flags ^ ip.Flags()
		if changed&ondisk.FlagJournalData != 0 && r.UID() != 0 {
			return 0, syscall.EPERM // CAP_SYS_RESOURCE in the kernel's ext4
		}
		if !s.vetted(cmd) && !s.mayChange(r, ip, changed&protected != 0) {
			return 0, syscall.EPERM
		}
		defer s.changed(r)
		return 0, ip.SetFlags(flags)
	case iocGetversion, iocGetversion32:
		return putWord(out, ip.Generation()), nil
	case iocFsgetxattr:
		x, err := view[fsxattr](out)
		if err != nil {
			return 0, err
		}
		xflags, projid := ip.Fsxattr()
		*x = fsxattr{xflags: xflags, projid: projid}
		return len(out), nil
	case iocFssetxattr:
		x, err := view[fsxattr](in)
		if err != nil {
			return 0, err
		}
		old, _ := ip.Fsxattr()
		if !s.vetted(cmd) && !s.mayChange(r, ip, (old^x.xflags)&(xflagImmutable|xflagAppend) != 0) {
			return 0, syscall.EPERM
		}
		defer s.changed(r)
		return 0, ip.SetFsxattr(x.xflags, x.projid)
	case iocMigrate:
		if !s.mayChange(r, ip, false) {
			return 0, syscall.EACCES
		}
		defer s.changed(r)
		return 0, ip.Migrate(true)
	case iocGetlabel:
		copy(out, s.fs.Label())
		return len(out), nil
	case iocGetuuid:
		if len(out) < 17 {
			return 0, syscall.EINVAL
		}
		u := s.fs.UUID()
		out[0] = byte(len(u))
		copy(out[1:], u[:])
		return len(out), nil
	}
	return s.adminIoctl(r, cmd, in, out)
}

// vetted says whether the kernel has seen to it that the caller of an ioctl may
// change the inode's flags. It knows the number of its own architecture, since
// Linux 5.13; any other one arrives as it was called, from whoever has the file
// open, if only to read.
func (s *Server) vetted(cmd uint32) bool {
	return s.conn.Negotiated().Minor >= fileattrMinor && cmd != iocSetflags32
}

// fileattrMinor is the protocol of the first release after Linux 5.13, whose own
// is that of 5.12.
const fileattrMinor = 34

// mayChange says whether the caller may change the flags of an inode: its owner
// may, but only root may if that protects the inode, or ends it.
func (s *Server) mayChange(r *fuse.Request, ip *ext2fs.Inode, protects bool) bool {
	if r.UID() == 0 {
		return true
	}
	var a fuse.Attr
	s.fillAttr(&a, ip)
	return r.UID() == a.UID && !protects
}

// adminIoctl runs those that change the file system as a whole. The kernel's
// ext4 asks for CAP_SYS_ADMIN; which capabilities the caller has cannot be
// seen from here, so it must be root.
func (s *Server) adminIoctl(r *fuse.Request, cmd uint32, in, out []byte) (int, error) {
	switch cmd {
	case iocSetlabel, iocTrim, iocShutdown:
		if r.UID() != 0 {
			return 0, syscall.EPERM
		}
	default:
		return 0, syscall.ENOTTY
	}
	switch cmd {
	case iocSetlabel:
		label := in
		for i, c := range in {
			if c == 0 {
				label = in[:i]
				break
			}
		}
		return 0, s.fs.SetLabel(string(label))
	case iocTrim:
		t, err := view[trimRange](in)
		if err != nil || len(out) < len(in) {
			return 0, syscall.EINVAL
		}
		n, err := s.fs.Trim(t.start, t.len, t.minlen)
		if err != nil {
			return 0, err
		}
		copy(out, in)
		o, _ := view[trimRange](out)
		o.len = n
		return len(out), nil
	default:
		// The number says that it reads, so its argument does not arrive here:
		// always the default, which brings everything to the device first.
		return 0, s.fs.Shutdown(ext2fs.ShutdownDefault)
	}
}

// changed has the kernel ask for the attributes of r's inode again.
func (s *Server) changed(r *fuse.Request) {
	if err := s.conn.InvalInode(r.NodeID(), -1, 0); err != nil {
		s.log.Debug("invalidate attributes", "node", r.NodeID(), "err", err)
	}
}

// putWord stores v as the first 32-bit word of out, the rest zero: the flags
// ioctls have a long in their number and an int in memory.
func putWord(out []byte, v uint32) int {
	if len(out) < 4 {
		return 0
	}
	binary.NativeEndian.PutUint32(out, v)
	return len(out)
}

func view[T any](b []byte) (*T, error) {
	if len(b) < int(unsafe.Sizeof(*new(T))) {
		return nil, syscall.EINVAL
	}
	return (*T)(unsafe.Pointer(&b[0])), nil
}
