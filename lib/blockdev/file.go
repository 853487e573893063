package blockdev

import (
	"math"
	"sync"
	"sync/atomic"
)

// DirectMode says whether a File goes past the page cache of the kernel.
type DirectMode int

const (
	DirectAuto DirectMode = iota // where it works and helps
	DirectOn                     // or fail to open
	DirectOff                    // never
)

// Options are the ways to open a File. The zero value opens all of it for
// reading and writing.
type Options struct {
	ReadOnly bool
	Direct   DirectMode

	// Exclusive refuses, with ErrInUse, a block device that is mounted or held
	// by the kernel, or an image of which a loop device is, and implies Lock for
	// an image.
	Exclusive bool

	// Lock takes an advisory lock until Close, or fails with ErrInUse: shared if
	// ReadOnly, else exclusive. In an image it covers the bytes that are opened,
	// so that two partitions of one image can be in use; on a block device it is
	// the flock that udev honours.
	Lock bool

	// Offset is the byte at which the device starts in the file, Length how many
	// bytes it has; 0 is all the rest.
	Offset, Length int64
}

// File is a Device in a regular file or a block device.
//
// On Linux, I/O is plain system calls without a buffer between, past the page
// cache where O_DIRECT works. What is not aligned then goes through a buffer of
// ours, and sectors that are written in part are read first, safe against
// other writers of the same File. After Open these calls are all it needs:
// pread64, pwrite64, preadv, pwritev, fdatasync, fallocate, ioctl (BLKDISCARD,
// BLKZEROOUT), fcntl (F_GETFL, F_SETFL: if direct I/O comes to be refused) and
// close.
type File struct {
	name  string // immutable, as all but users, direct and writes
	base  int64  // byte of the file where the device starts
	size  int64
	ro    bool
	info  Info
	users users
	osFile
}

// Open opens the regular file or block device at path. It follows symbolic
// links, and fails with an *Error: as open(2) does, with ErrInUse (EBUSY), with
// ENOTBLK for anything but a file or block device, with EROFS if the device is
// read-only and o is not, with EINVAL if the range of o lies outside.
func Open(path string, o Options) (*File, error) { return openFile(path, o) }

// OpenFd makes a File of an open descriptor, which is the File's from then on
// unless OpenFd fails; name is for messages. The descriptor must be open for
// what o wants. O_EXCL is a matter of opening: who passed fd has seen to it.
func OpenFd(fd uintptr, name string, o Options) (*File, error) { return openFd(fd, name, o) }

// Name returns the path or name that the File was opened with.
func (f *File) Name() string { return f.name }

// Size returns the length of the device in bytes, as it was at Open.
func (f *File) Size() int64 { return f.size }

// Info describes the device.
func (f *File) Info() Info { return f.info }

// ReadAt implements Device. It does not allocate.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	n, end := readable(len(p), off, f.size)
	if !f.users.enter() {
		return 0, f.fail("read", off, int64(len(p)), errClosed)
	}
	defer f.users.leave()
	if n == 0 {
		return 0, end
	}
	if n, err := f.read(p[:n], f.base+off); err != nil {
		return n, f.fail("read", off, int64(len(p)), err)
	}
	return n, end
}

// WriteAt implements Device. It does not allocate.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if !f.users.enter() {
		return 0, f.fail("write", off, int64(len(p)), errClosed)
	}
	defer f.users.leave()
	if err := writable(int64(len(p)), off, f.size, f.ro); err != nil {
		return 0, f.named(err)
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.write(p, f.base+off)
	if err != nil {
		return n, f.fail("write", off, int64(len(p)), err)
	}
	return n, nil
}

// Sync implements Device. On a read-only File there is nothing to do.
func (f *File) Sync() error {
	if !f.users.enter() {
		return f.fail("sync", 0, 0, errClosed)
	}
	defer f.users.leave()
	if f.ro {
		return nil
	}
	if err := f.sync(); err != nil {
		return f.fail("sync", 0, 0, err)
	}
	return nil
}

// Discard implements Device: a hole in a file, a discard request to a block
// device, of the whole blocks in the range.
func (f *File) Discard(off, n int64) error {
	if !f.users.enter() {
		return f.fail("discard", off, n, errClosed)
	}
	defer f.users.leave()
	if err := inRange("discard", off, n, f.size, f.ro); err != nil || n == 0 {
		return f.named(err)
	}
	if err := f.discard(f.base+off, n); err != nil {
		return f.fail("discard", off, n, err)
	}
	return nil
}

// ZeroOut implements Device. A large range of a file becomes a hole, so that
// sparse images stay sparse; a small one is written.
func (f *File) ZeroOut(off, n int64) error {
	if !f.users.enter() {
		return f.fail("zero out", off, n, errClosed)
	}
	defer f.users.leave()
	if err := inRange("zero out", off, n, f.size, f.ro); err != nil || n == 0 {
		return f.named(err)
	}
	if err := f.zeroOut(f.base+off, n); err != nil {
		return f.fail("zero out", off, n, err)
	}
	return nil
}

// Close waits for the operations under way, drops the lock and closes the
// descriptor. It does not sync.
func (f *File) Close() error {
	if !f.users.close() {
		return f.fail("close", 0, 0, errClosed)
	}
	if err := f.close(); err != nil {
		return f.fail("close", 0, 0, err)
	}
	return nil
}

func (f *File) fail(op string, off, n int64, err error) error {
	return &Error{Op: op, Name: f.name, Off: off, Len: n, Err: err}
}

// named puts the name into an error of writable or inRange.
func (f *File) named(err error) error {
	if e, ok := err.(*Error); ok {
		e.Name = f.name
	}
	return err
}

// setRange sets base and size from the options and the length of the file.
func (f *File) setRange(o Options, length int64) bool {
	if o.Offset < 0 || o.Length < 0 || o.Offset > length || o.Length > length-o.Offset {
		return false
	}
	f.base, f.size = o.Offset, o.Length
	if f.size == 0 {
		f.size = length - o.Offset
	}
	return true
}

// zeroPiece is how many zeros writeZeros writes at a time, in bytes, and up to
// which size ZeroOut does not ask the device to do it: a write is then as quick,
// and leaves a file without a hole to fill again.
const zeroPiece = 64 << 10

// zeros is only read.
var zeros = sync.OnceValue(func() []byte { return AlignedBuf(zeroPiece, 4096) })

// writeZeros is ZeroOut for devices that have no request for it. off counts
// from the start of the file.
func (f *File) writeZeros(off, n int64) error {
	for n > 0 {
		m, err := f.write(zeros()[:min(n, zeroPiece)], off)
		if err != nil {
			return err
		}
		off, n = off+int64(m), n-int64(m)
	}
	return nil
}

// users counts who is using a descriptor, so that Close does not take it away,
// and its number go to another file, under an operation.
type users struct {
	n    atomic.Int64 // users, plus math.MinInt64 once closed
	once sync.Once
	idle chan struct{} // closed when closed and unused
}

func (u *users) init() { u.idle = make(chan struct{}) }

// enter reports whether the descriptor may be used until leave.
func (u *users) enter() bool {
	if u.n.Add(1) > 0 {
		return true
	}
	u.leave()
	return false
}

func (u *users) leave() {
	if u.n.Add(-1) == math.MinInt64 {
		u.once.Do(func() { close(u.idle) })
	}
}

// close waits until nobody uses the descriptor, and nobody can again. It
// reports whether it is the first to close.
func (u *users) close() bool {
	for {
		n := u.n.Load()
		if n < 0 {
			return false
		}
		if u.n.CompareAndSwap(n, n+math.MinInt64) {
			if n == 0 {
				u.once.Do(func() { close(u.idle) })
			}
			break
		}
	}
	<-u.idle
	return true
}

var _ interface {
	Device
	Informer
	Aligner
	Fder
	Vectored
} = (*File)(nil)
