//go:build linux

package fuse

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests to /dev/fuse, beside that of Clone.
const (
	devIocBackingOpen  = 0x4010e501 // FUSE_DEV_IOC_BACKING_OPEN
	devIocBackingClose = 0x4004e502 // FUSE_DEV_IOC_BACKING_CLOSE
	devIocSyncInit     = 0x0000e503 // FUSE_DEV_IOC_SYNC_INIT
	devIocIomapSupport = 0x8010e563 // FUSE_DEV_IOC_IOMAP_SUPPORT
	devIocSetNofs      = 0x4004e564 // FUSE_DEV_IOC_SET_NOFS
	devIocAddIomap     = 0x0000e565 // FUSE_DEV_IOC_ADD_IOMAP
	devIocSetBlocksize = 0x4008e566 // FUSE_DEV_IOC_IOMAP_BACKING_SET_BLOCKSIZE
	devIocStripe       = 0x4010e567 // FUSE_DEV_IOC_IOMAP_BACKING_STRIPE_CONFIG
)

// Bits of IomapSupported.Flags.
const (
	IomapFileIO   = 1 << 0
	IomapAtomicIO = 1 << 1
)

const backingIomap = 1 // BackingMap.Flags: what the file is for

// devIoctl issues an ioctl on a descriptor of /dev/fuse.
func devIoctl(fd uintptr, req uint32, arg []byte) (int, syscall.Errno) {
	var p unsafe.Pointer
	if len(arg) > 0 {
		p = unsafe.Pointer(&arg[0])
	}
	n, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, uintptr(req), uintptr(p))
	return int(n), errno
}

// IomapSupport returns what fd, a descriptor of /dev/fuse that need not be
// mounted, offers to this process of fuse-iomap. It fails with ENOTTY if the
// kernel does not have it, which nothing else tells reliably.
func IomapSupport(fd int) (IomapSupported, error) {
	var s IomapSupported
	if _, errno := devIoctl(uintptr(fd), devIocIomapSupport, bytesOf(&s)); errno != 0 {
		return IomapSupported{}, errno
	}
	return s, nil
}

// AddIomap lets whoever mounts with fd use fuse-iomap. fd must not be mounted;
// the caller needs CAP_SYS_RAWIO.
func AddIomap(fd int) error {
	if _, errno := devIoctl(uintptr(fd), devIocAddIomap, nil); errno != 0 {
		return fmt.Errorf("allow iomap on /dev/fuse: %w", errno)
	}
	return nil
}

// SyncInit has the kernel exchange INIT, and IOMAP_CONFIG, inside of mount(2), so
// that what fails there fails the mount. fd must not be mounted, and must be served
// already when it is: a read of it waits until then. Kernels without it fail with
// ENOTTY.
func SyncInit(fd int) error {
	if _, errno := devIoctl(uintptr(fd), devIocSyncInit, nil); errno != 0 {
		return errno
	}
	return nil
}

func (c *Conn) ioctl(req uint32, arg []byte) (int, error) {
	n, errno := c.tr.ioctl(req, arg)
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}

// BackingOpen registers the block device fd for the I/O of mapped files, and
// returns its number. It works from the handler of IOMAP_CONFIG on. The kernel
// keeps the device open; writing needs it open for reading and writing.
func (c *Conn) BackingOpen(fd int) (uint32, error) {
	n, err := c.ioctl(devIocBackingOpen, bytesOf(&BackingMap{Fd: int32(fd), Flags: backingIomap}))
	if err != nil {
		return 0, fmt.Errorf("register the device: %w", err)
	}
	return uint32(n), nil
}

// BackingClose takes a registration back. It fails with EBUSY while there are
// mapped inodes in the kernel.
func (c *Conn) BackingClose(id uint32) error {
	_, err := c.ioctl(devIocBackingClose, bytesOf(&id))
	return err
}

// SetBlocksize sets the block size of a registered device's page cache, as a
// confined server cannot by BLKBSZSET.
func (c *Conn) SetBlocksize(id, size uint32) error {
	_, err := c.ioctl(devIocSetBlocksize, bytesOf(&IomapBackingInfo{BackingID: id, Blocksize: size}))
	return err
}

// upsert is a message of IomapUpsert, in one piece.
type upsert struct {
	h OutHeader
	o IomapUpsertOut
}

// IomapUpsert puts a pair of mappings into the kernel's cache of a file. It may
// be called from the handler of any request of the file. Errors are the
// kernel's: ESTALE if it does not have the node, EINVAL if it is not mapped or
// ENOMEM. It does not allocate.
func (c *Conn) IomapUpsert(node, ino uint64, p *IomapBeginOut) syscall.Errno {
	m, _ := c.upserts.Get().(*upsert)
	if m == nil {
		m = new(upsert)
	}
	m.h = OutHeader{Len: uint32(unsafe.Sizeof(*m)), Error: int32(NotifyIomapUpsert)}
	m.o = IomapUpsertOut{NodeID: node, AttrIno: ino, Read: p.Read, Write: p.Write}
	errno := c.tr.notifyRaw(bytesOf(m))
	c.upserts.Put(m)
	return errno
}

// IomapInval drops the kernel's cached mappings of n bytes of a file at off, n
// negative being all that follow. What the kernel has begun by them goes on.
// There is no write fork to drop from: every write mapping is PureOverwrite.
func (c *Conn) IomapInval(node, ino uint64, off, n int64) error {
	r := IomapRange{Offset: uint64(off), Length: uint64(n)}
	if n < 0 {
		r.Length = ^uint64(0)
	}
	return c.Notify(NotifyIomapInval, bytesOf(&IomapInvalOut{NodeID: node, AttrIno: ino, Read: r}))
}

// IomapBackingInval drops what the kernel has cached of n bytes at off of a
// registered device.
func (c *Conn) IomapBackingInval(dev uint32, off, n int64) error {
	out := IomapBackingInvalOut{Dev: dev, Range: IomapRange{Offset: uint64(off), Length: uint64(n)}}
	return c.Notify(NotifyIomapBackingInval, bytesOf(&out))
}

// SetNofs keeps all threads of this process, and those they start, from waiting
// for file systems when the kernel is short of memory: what it waits for might be
// this server. It works from the handler of IOMAP_CONFIG on.
func (c *Conn) SetNofs() error {
	on := uint32(1)
	t, ok := c.tr.(*devFuse)
	if !ok {
		_, err := c.ioctl(devIocSetNofs, bytesOf(&on))
		return err
	}
	_, _, errno := syscall.AllThreadsSyscall(syscall.SYS_IOCTL, t.fds[0].fd, devIocSetNofs, uintptr(unsafe.Pointer(&on)))
	if errno == 0 {
		return nil
	}
	if _, _, e := syscall.AllThreadsSyscall(syscall.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0); e == 0 {
		return nil
	}
	return fmt.Errorf("keep threads out of memory reclaim: %w", errno)
}
