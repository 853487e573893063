package blockdev

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"unsafe"
)

// Device is bytes at offsets. Implementations are safe for concurrent use.
// After Close every method but Size, Close among them, fails with an error that
// is os.ErrClosed.
type Device interface {
	// ReadAt fills p from byte off on, or fails. It returns io.EOF if off is at
	// or past the end, and io.ErrUnexpectedEOF, with the bytes that there are,
	// if only a part of p is. It keeps no reference to p.
	ReadAt(p []byte, off int64) (int, error)

	// WriteAt writes all of p at byte off, or fails. It fails with EROFS on a
	// read-only device, and with EIO, having written nothing, if a byte would
	// lie past the end. It keeps no reference to p.
	WriteAt(p []byte, off int64) (int, error)

	// Size returns the length of the device in bytes. It does not change.
	Size() int64

	// Sync returns when the writes that completed before the call have reached
	// stable storage. After an error it is not known which of them did, and a
	// later success says nothing about them.
	Sync() error

	// Discard tells the device that n bytes at off are not needed. It is a hint;
	// afterwards their content is undefined. It fails with an error that is
	// errors.ErrUnsupported where the device takes no such hint, with EROFS, and
	// with EINVAL if the range reaches past the end.
	Discard(off, n int64) error

	// ZeroOut makes n bytes at off read as zeros, by the cheapest way that the
	// device has. It never grows the device. It fails with EROFS, and with
	// EINVAL if the range reaches past the end.
	ZeroOut(off, n int64) error

	// Close releases the device. It does not sync.
	Close() error
}

// Vectored is a Device that moves several buffers with one request.
type Vectored interface {
	// ReadvAt fills the buffers, one after the other, from byte off on. Its
	// errors are those of ReadAt.
	ReadvAt(bufs [][]byte, off int64) (int, error)

	// WritevAt writes the buffers, one after the other, at byte off. Its errors
	// are those of WriteAt.
	WritevAt(bufs [][]byte, off int64) (int, error)
}

// Fder is a Device that is a range of a file descriptor, for callers who submit
// I/O themselves.
type Fder interface {
	// Fd returns the descriptor and the byte in it at which the device starts.
	// They stay valid until Close. ok is false if the bytes of the device are
	// not simply those of a descriptor.
	Fd() (fd uintptr, base int64, ok bool)
}

// Aligner is a Device that says how to spare it a copy.
type Aligner interface {
	// Align returns the multiple, in bytes and a power of two, that offsets,
	// lengths and buffer addresses should be of; 1 if it makes no difference.
	Align() int
}

// Info describes a device.
type Info struct {
	ReadOnly           bool
	Rotational         bool  // seeks cost time
	DiscardGranularity int64 // bytes; 0 if Discard is not supported
	ZeroAfterDiscard   bool  // what was discarded reads as zeros
	LogicalBlock       int   // bytes: what the device writes atomically, at best
	PhysicalBlock      int   // bytes: what it writes without reading first
}

// Informer is a Device that describes itself.
type Informer interface {
	Info() Info
}

// InfoOf returns what dev says about itself, or plain defaults.
func InfoOf(dev Device) Info {
	if d, ok := dev.(Informer); ok {
		return d.Info()
	}
	return Info{LogicalBlock: sector, PhysicalBlock: sector}
}

// Align returns the alignment that dev asks for, in bytes; 1 if none.
func Align(dev Device) int {
	if d, ok := dev.(Aligner); ok {
		return d.Align()
	}
	return 1
}

// Prefetch tells the system that n bytes at off will be read soon. It is a hint,
// of use where dev is a file or a disk that is read through the page cache.
func Prefetch(dev Device, off, n int64) {
	if d, ok := dev.(interface{ prefetch(off, n int64) }); ok {
		d.prefetch(off, n)
	}
}

// DropCache writes out what the system's cache has of dev, and has it forget it, so
// that reading it takes the device. It fails with an error that is
// errors.ErrUnsupported where there is no such thing.
func DropCache(dev Device) error {
	if d, ok := dev.(interface{ dropCache() error }); ok {
		return d.dropCache()
	}
	return errors.ErrUnsupported
}

// FdOf returns the descriptor and offset that dev stands for, if it stands for
// one: see Fder.
func FdOf(dev Device) (fd uintptr, base int64, ok bool) {
	if d, is := dev.(Fder); is {
		return d.Fd()
	}
	return 0, 0, false
}

// ReadvAt fills bufs from byte off of dev on, with as few requests as dev can.
func ReadvAt(dev Device, bufs [][]byte, off int64) (int, error) {
	if d, ok := dev.(Vectored); ok {
		return d.ReadvAt(bufs, off)
	}
	return each(bufs, off, dev.ReadAt)
}

// WritevAt writes bufs at byte off of dev, with as few requests as dev can.
func WritevAt(dev Device, bufs [][]byte, off int64) (int, error) {
	if d, ok := dev.(Vectored); ok {
		return d.WritevAt(bufs, off)
	}
	// No part may be written of what reaches past the end.
	if n := total(bufs); dev.Size() < 0 || off < 0 || n > dev.Size()-off {
		return 0, &Error{Op: "write", Off: off, Len: n, Err: errPastEnd}
	}
	return each(bufs, off, dev.WriteAt)
}

func each(bufs [][]byte, off int64, do func([]byte, int64) (int, error)) (int, error) {
	done := 0
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		n, err := do(b, off+int64(done))
		done += n
		if err != nil {
			if err == io.EOF && done > 0 {
				err = io.ErrUnexpectedEOF
			}
			return done, err
		}
	}
	return done, nil
}

func total(bufs [][]byte) int64 {
	var n int64
	for _, b := range bufs {
		n += int64(len(b))
	}
	return n
}

// AlignedBuf returns n zero bytes whose address is a multiple of align, a power
// of two.
func AlignedBuf(n, align int) []byte {
	if align <= 1 {
		return make([]byte, n)
	}
	b := make([]byte, n+align-1)
	if len(b) == 0 {
		return b
	}
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (align - 1)
	return b[skip : skip+n : skip+n]
}

// sector is the unit in which Linux counts devices, and the smallest that any
// disk writes.
const sector = 512

// Error is a failed operation on a device. It unwraps to a syscall.Errno, or to
// io.ErrUnexpectedEOF where a file has become shorter than it was.
type Error struct {
	Op       string // "read", "write", "sync", "discard", "zero out", "open", "lock"
	Name     string // of the device, may be empty
	Off, Len int64  // bytes; Len 0 if the operation has no range
	Err      error
}

// Error says what failed, where, and why.
func (e *Error) Error() string {
	s := e.Op
	if e.Name != "" {
		s += fmt.Sprintf(" %q", e.Name)
	}
	if e.Len != 0 {
		s += fmt.Sprintf(": %d bytes at %d", e.Len, e.Off)
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// reason is an errno with a better text, and perhaps a sentinel it matches.
type reason struct {
	text string
	no   syscall.Errno
	is   error
}

func (r *reason) Error() string        { return r.text }
func (r *reason) Unwrap() error        { return r.no }
func (r *reason) Is(target error) bool { return r.is != nil && target == r.is }

// ErrInUse is what Open fails with, beside EBUSY, when a program holds the
// device or a lock on the image.
var ErrInUse = errors.New("in use by another program")

var (
	errClosed  = &reason{"device is closed", syscall.EBADF, os.ErrClosed}
	errPastEnd = &reason{"past the end of the device", syscall.EIO, nil}
	errInUse   = &reason{ErrInUse.Error(), syscall.EBUSY, ErrInUse}
)

// readable returns how many of n bytes at off lie within size, and the error
// that ReadAt then ends with.
func readable(n int, off, size int64) (int, error) {
	switch {
	case off < 0:
		return 0, &Error{Op: "read", Off: off, Len: int64(n), Err: syscall.EINVAL}
	case n == 0:
		return 0, nil
	case off >= size:
		return 0, io.EOF
	case int64(n) > size-off:
		return int(size - off), io.ErrUnexpectedEOF
	}
	return n, nil
}

// writable returns the error of a write of n bytes at off that size or ro forbid.
func writable(n, off, size int64, ro bool) error {
	switch {
	case ro:
		return &Error{Op: "write", Off: off, Len: n, Err: syscall.EROFS}
	case off < 0:
		return &Error{Op: "write", Off: off, Len: n, Err: syscall.EINVAL}
	case n > 0 && (off > size || n > size-off):
		return &Error{Op: "write", Off: off, Len: n, Err: errPastEnd}
	}
	return nil
}

// inRange is writable for Discard and ZeroOut, named by op.
func inRange(op string, off, n, size int64, ro bool) error {
	switch {
	case ro:
		return &Error{Op: op, Off: off, Len: n, Err: syscall.EROFS}
	case off < 0 || n < 0 || off > size || n > size-off:
		return &Error{Op: op, Off: off, Len: n, Err: syscall.EINVAL}
	}
	return nil
}
