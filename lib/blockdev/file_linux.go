package blockdev

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// osFile is the part of File that only Linux has.
type osFile struct {
	fd       int
	block    bool // a block device, else a regular file
	memAlign int  // of buffers in direct I/O, bytes; a power of two
	offAlign int  // of offsets and lengths in direct I/O, bytes; a power of two
	hostBlk  int64
	mode     DirectMode
	direct   atomic.Bool // O_DIRECT is set
	writes   rangeLock   // in direct mode: what is being written
}

func openFile(path string, o Options) (*File, error) {
	fail := func(err error) (*File, error) { return nil, &Error{Op: "open", Name: path, Err: err} }
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fail(err)
	}
	// Before open, since that alone blocks on a FIFO and acts on some devices.
	if err := usable(st.Mode); err != nil {
		return fail(err)
	}
	flags := unix.O_CLOEXEC | unix.O_LARGEFILE | unix.O_NONBLOCK
	if o.ReadOnly {
		flags |= unix.O_RDONLY
	} else {
		flags |= unix.O_RDWR
	}
	if o.Exclusive && st.Mode&unix.S_IFMT == unix.S_IFBLK {
		flags |= unix.O_EXCL
	}
	if o.ReadOnly {
		flags |= unix.O_NOATIME // looking at an image should leave no trace
	}
	fd, err := open(path, flags)
	if err == unix.EPERM && o.ReadOnly {
		fd, err = open(path, flags&^unix.O_NOATIME) // of another owner
	}
	if err == unix.EBUSY {
		return fail(errInUse)
	}
	if err != nil {
		return fail(err)
	}
	f, err := openFd(uintptr(fd), path, o)
	if err != nil {
		unix.Close(fd)
	}
	return f, err
}

func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// usable fails unless mode is that of a regular file or block device.
func usable(mode uint32) error {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFBLK:
		return nil
	case unix.S_IFDIR:
		return unix.EISDIR
	}
	return &reason{"neither a regular file nor a block device", unix.ENOTBLK, nil}
}

func openFd(fd uintptr, name string, o Options) (*File, error) {
	fail := func(err error) (*File, error) { return nil, &Error{Op: "open", Name: name, Err: err} }
	f := &File{name: name, ro: o.ReadOnly}
	f.fd, f.mode = int(fd), o.Direct
	f.users.init()
	f.writes.init()

	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return fail(err)
	}
	if err := usable(st.Mode); err != nil {
		return fail(err)
	}
	f.block = st.Mode&unix.S_IFMT == unix.S_IFBLK
	flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
	if err != nil {
		return fail(err)
	}
	if !o.ReadOnly && flags&unix.O_ACCMODE != unix.O_RDWR {
		return fail(unix.EROFS)
	}

	length := st.Size
	if f.block {
		if length, err = f.blockGeometry(st.Rdev); err != nil {
			return fail(err)
		}
	} else {
		f.hostBlk = max(int64(st.Blksize), sector)
		f.info = Info{
			ReadOnly:           o.ReadOnly,
			DiscardGranularity: f.hostBlk,
			ZeroAfterDiscard:   true,
			LogicalBlock:       sector,
			PhysicalBlock:      int(f.hostBlk),
		}
	}
	if !f.setRange(o, length) {
		return fail(&reason{fmt.Sprintf("%d bytes at %d are not within its %d bytes", o.Length, o.Offset, length), unix.EINVAL, nil})
	}
	if o.Exclusive && !f.block && loopInUse(&st, f.base, f.size) {
		return fail(errInUse)
	}
	if o.Lock || o.Exclusive && !f.block {
		if err := f.lock(); err != nil {
			return nil, &Error{Op: "lock", Name: name, Err: err}
		}
	}
	if err := f.setDirect(flags); err != nil {
		return fail(err)
	}
	return f, nil
}

// blockGeometry fills in what a block device says about itself and returns its
// length in bytes.
func (f *File) blockGeometry(rdev uint64) (int64, error) {
	if ro, err := unix.IoctlGetUint32(f.fd, unix.BLKROGET); err == nil && ro != 0 && !f.ro {
		return 0, &reason{"the device is read-only", unix.EROFS, nil}
	}
	var length uint64
	if err := ioctl(f.fd, unix.BLKGETSIZE64, unsafe.Pointer(&length)); err != nil {
		return 0, err
	}
	logical, err := unix.IoctlGetUint32(f.fd, unix.BLKSSZGET)
	if err != nil || logical < sector || logical&(logical-1) != 0 {
		logical = sector
	}
	physical, err := unix.IoctlGetUint32(f.fd, unix.BLKPBSZGET)
	if err != nil || physical < logical {
		physical = logical
	}
	f.hostBlk = int64(logical)
	f.info = Info{
		ReadOnly:           f.ro,
		Rotational:         queueAttr(rdev, "rotational") == 1,
		DiscardGranularity: queueAttr(rdev, "discard_granularity"),
		LogicalBlock:       int(logical),
		PhysicalBlock:      int(physical),
	}
	if queueAttr(rdev, "discard_max_bytes") == 0 {
		f.info.DiscardGranularity = 0
	}
	return int64(length), nil
}

// queueAttr returns a number from sysfs about the queue of a block device, 0 if
// there is none. A partition has no queue: its disk's is meant.
func queueAttr(rdev uint64, attr string) int64 {
	dir := fmt.Sprintf("/sys/dev/block/%d:%d/", unix.Major(rdev), unix.Minor(rdev))
	for _, queue := range []string{"queue/", "../queue/"} {
		if b, err := os.ReadFile(dir + queue + attr); err == nil {
			n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			return n
		}
	}
	return 0
}

// lock takes the lock of Options.Lock. In a file it is one of the open file
// description on a range: it goes with the descriptor wherever that is passed,
// and other ranges stay free. Where that is not supported it is a flock.
func (f *File) lock() error {
	err := error(unix.EINVAL)
	if !f.block {
		l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: f.base, Len: f.size}
		if f.ro {
			l.Type = unix.F_RDLCK
		}
		err = unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &l)
	}
	if err == unix.EINVAL || err == unix.ENOLCK || err == unix.EOPNOTSUPP {
		how := unix.LOCK_EX
		if f.ro {
			how = unix.LOCK_SH
		}
		err = unix.Flock(f.fd, how|unix.LOCK_NB)
	}
	if err == unix.EAGAIN || err == unix.EACCES {
		return errInUse
	}
	return err
}

// Fd implements Fder.
func (f *File) Fd() (fd uintptr, base int64, ok bool) { return uintptr(f.fd), f.base, true }

// prefetch is Prefetch.
func (f *File) prefetch(off, n int64) {
	if !f.direct.Load() && f.users.enter() {
		_ = unix.Fadvise(f.fd, f.base+off, n, unix.FADV_WILLNEED)
		f.users.leave()
	}
}

// dropCache is DropCache.
func (f *File) dropCache() error {
	if !f.users.enter() {
		return f.fail("flush", 0, 0, errClosed)
	}
	defer f.users.leave()
	err := unix.Fsync(f.fd)
	if err == nil && f.block {
		err = unix.IoctlSetInt(f.fd, unix.BLKFLSBUF, 0)
	}
	if err == nil {
		err = unix.Fadvise(f.fd, f.base, f.size, unix.FADV_DONTNEED)
	}
	if err != nil {
		return f.fail("flush", 0, 0, err)
	}
	return nil
}

// read fills p from byte off of the file on.
func (f *File) read(p []byte, off int64) (int, error) {
	if f.direct.Load() {
		return f.readDirect(p, off)
	}
	return f.pread(p, off)
}

// write writes p at byte off of the file.
func (f *File) write(p []byte, off int64) (int, error) {
	if f.direct.Load() {
		return f.writeDirect(p, off)
	}
	return f.pwrite(p, off)
}

func (f *File) pread(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pread(f.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, err
		case n == 0:
			return done, io.ErrUnexpectedEOF // the file has become shorter
		default:
			done += n
		}
	}
	return done, nil
}

func (f *File) pwrite(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(f.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, err
		case n == 0:
			return done, unix.EIO
		default:
			done += n
		}
	}
	return done, nil
}

// sync leaves out what fdatasync does: times, which say nothing about content.
func (f *File) sync() error {
	for {
		if err := unix.Fdatasync(f.fd); err != unix.EINTR {
			return err
		}
	}
}

// discard wants whole blocks: of a part, a file system would write zeros.
func (f *File) discard(off, n int64) error {
	lo, hi := alignUp(off, f.hostBlk), alignDown(off+n, f.hostBlk)
	if lo >= hi {
		return nil
	}
	f.lockWrite(lo, hi-lo)
	defer f.unlockWrite(lo, hi-lo)
	if f.block {
		return f.ioctlRange(unix.BLKDISCARD, lo, hi-lo)
	}
	return f.fallocate(unix.FALLOC_FL_PUNCH_HOLE, lo, hi-lo)
}

func (f *File) zeroOut(off, n int64) error {
	lo, hi := alignUp(off, f.hostBlk), alignDown(off+n, f.hostBlk)
	if n <= zeroPiece || lo >= hi { // blocks of network file systems are large
		return f.writeZeros(off, n)
	}
	if err := f.writeZeros(off, lo-off); err != nil {
		return err
	}
	if err := f.zeroBlocks(lo, hi-lo); errors.Is(err, errors.ErrUnsupported) || err == unix.EINVAL || err == unix.ENOTTY {
		if err := f.writeZeros(lo, hi-lo); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return f.writeZeros(hi, off+n-hi)
}

// zeroBlocks asks the kernel to zero whole blocks.
func (f *File) zeroBlocks(off, n int64) error {
	f.lockWrite(off, n)
	defer f.unlockWrite(off, n)
	if f.block {
		return f.ioctlRange(unix.BLKZEROOUT, off, n)
	}
	if err := f.fallocate(unix.FALLOC_FL_PUNCH_HOLE, off, n); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return f.fallocate(unix.FALLOC_FL_ZERO_RANGE, off, n)
}

func (f *File) fallocate(mode uint32, off, n int64) error {
	for {
		if err := unix.Fallocate(f.fd, mode|unix.FALLOC_FL_KEEP_SIZE, off, n); err != unix.EINTR {
			return err
		}
	}
}

func (f *File) ioctlRange(req uint, off, n int64) error {
	r := [2]uint64{uint64(off), uint64(n)}
	for {
		if err := ioctl(f.fd, req, unsafe.Pointer(&r)); err != unix.EINTR {
			return err
		}
	}
}

func (f *File) close() error { return unix.Close(f.fd) }

func ioctl(fd int, req uint, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(arg)); e != 0 {
		return syscall.Errno(e)
	}
	return nil
}

func alignDown(n, align int64) int64 { return n &^ (align - 1) }
func alignUp(n, align int64) int64   { return (n + align - 1) &^ (align - 1) }
