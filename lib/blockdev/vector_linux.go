package blockdev

import (
	"io"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxIov is how many buffers one system call takes (IOV_MAX).
const maxIov = 1024

type iovecs [maxIov]unix.Iovec

var iovecPool = sync.Pool{New: func() any { return new(iovecs) }}

// ReadvAt implements Vectored with preadv.
func (f *File) ReadvAt(bufs [][]byte, off int64) (int, error) {
	want := total(bufs)
	if off < 0 || want > f.size-off || !f.alignedAll(bufs, off) {
		return each(bufs, off, f.ReadAt)
	}
	if !f.users.enter() {
		return 0, f.fail("read", off, want, errClosed)
	}
	defer f.users.leave()
	n, err := f.vector(unix.SYS_PREADV, bufs, f.base+off, io.ErrUnexpectedEOF)
	if f.refused(err) {
		n, err = f.vector(unix.SYS_PREADV, bufs, f.base+off, io.ErrUnexpectedEOF)
	}
	if err != nil {
		return n, f.fail("read", off, want, err)
	}
	return n, nil
}

// WritevAt implements Vectored with pwritev.
func (f *File) WritevAt(bufs [][]byte, off int64) (int, error) {
	want := total(bufs)
	if !f.users.enter() {
		return 0, f.fail("write", off, want, errClosed)
	}
	defer f.users.leave()
	if err := writable(want, off, f.size, f.ro); err != nil {
		return 0, f.named(err)
	}
	if want == 0 {
		return 0, nil
	}
	if !f.alignedAll(bufs, off) {
		return f.gather(bufs, off)
	}
	if f.direct.Load() {
		f.writes.lock(f.base+off, want, false)
		defer f.writes.unlock(f.base+off, want, false)
	}
	n, err := f.vector(unix.SYS_PWRITEV, bufs, f.base+off, unix.EIO)
	if f.refused(err) {
		n, err = f.vector(unix.SYS_PWRITEV, bufs, f.base+off, unix.EIO)
	}
	if err != nil {
		return n, f.fail("write", off, want, err)
	}
	return n, nil
}

// alignedAll reports whether the kernel takes bufs as they are.
func (f *File) alignedAll(bufs [][]byte, off int64) bool {
	if !f.direct.Load() {
		return true
	}
	for _, b := range bufs {
		if len(b) > 0 && !f.aligned(b, f.base+off) {
			return false
		}
	}
	return true
}

// gather copies unaligned buffers together, so that they cost one copy and not
// one system call each.
func (f *File) gather(bufs [][]byte, off int64) (int, error) {
	p := bounces.Get().(*[]byte)
	defer bounces.Put(p)
	done, fill := 0, 0
	flush := func() error {
		n, err := f.write((*p)[:fill], f.base+off+int64(done))
		done, fill = done+n, 0
		if err != nil {
			return f.fail("write", off, total(bufs), err)
		}
		return nil
	}
	for _, b := range bufs {
		for len(b) > 0 {
			n := copy((*p)[fill:], b)
			b, fill = b[n:], fill+n
			if fill == len(*p) {
				if err := flush(); err != nil {
					return done, err
				}
			}
		}
	}
	if fill > 0 {
		return done, flush()
	}
	return done, nil
}

// vector moves all of bufs at byte off of the file, with call, which is preadv
// or pwritev; none is the error when nothing moves.
func (f *File) vector(call uintptr, bufs [][]byte, off int64, none error) (int, error) {
	iov := iovecPool.Get().(*iovecs)
	used := 0
	defer func() {
		clear(iov[:used])
		iovecPool.Put(iov)
	}()
	done, skip := 0, 0 // skip: bytes of bufs[0] that are done
	for {
		for len(bufs) > 0 && skip == len(bufs[0]) {
			bufs, skip = bufs[1:], 0
		}
		if len(bufs) == 0 {
			return done, nil
		}
		n := fillIov(iov, bufs, skip)
		used = max(used, n)
		at := uint64(off) + uint64(done)
		got, _, e := unix.Syscall6(call, uintptr(f.fd), uintptr(unsafe.Pointer(iov)), uintptr(n), uintptr(at), uintptr(at>>32), 0)
		switch {
		case e == unix.EINTR:
			continue
		case e != 0:
			return done, e
		}
		moved := int(got)
		if f.direct.Load() {
			moved = f.cut(moved)
		}
		if moved == 0 {
			return done, none
		}
		done += moved
		for moved > 0 {
			part := min(moved, len(bufs[0])-skip)
			moved, skip = moved-part, skip+part
			if skip == len(bufs[0]) {
				bufs, skip = bufs[1:], 0
			}
		}
	}
}

// fillIov describes bufs, without the first skip bytes, and returns how many
// entries it used.
func fillIov(iov *iovecs, bufs [][]byte, skip int) int {
	n := 0
	for i, b := range bufs {
		if i == 0 {
			b = b[skip:]
		}
		if len(b) == 0 {
			continue
		}
		if n == maxIov {
			break
		}
		iov[n].Base = unsafe.SliceData(b)
		iov[n].SetLen(len(b))
		n++
	}
	return n
}
