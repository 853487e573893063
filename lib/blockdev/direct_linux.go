package blockdev

import (
	"io"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Direct I/O wants offsets, lengths and addresses to be multiples. What is not
// goes through a bounce buffer; of a sector that is written in part the rest is
// read first, and meanwhile nobody else may write it.

// bounceSize is the length of a bounce buffer in bytes: a multiple of any
// alignment, and large enough that system calls do not show.
const bounceSize = 256 << 10

var bounces = sync.Pool{New: func() any {
	b := AlignedBuf(bounceSize, 4096)
	return &b
}}

// setDirect turns O_DIRECT on where o.Direct wants it, or off. flags are those
// of the descriptor.
func (f *File) setDirect(flags int) error {
	f.memAlign, f.offAlign = 1, 1
	want := f.mode != DirectOff
	if want {
		f.memAlign, f.offAlign = f.directAlign()
		if why := f.noDirect(); why != "" {
			if f.mode == DirectOn {
				return &reason{"direct I/O: " + why, unix.EINVAL, nil}
			}
			want = false
		}
	}
	set := flags &^ unix.O_DIRECT &^ unix.O_NONBLOCK
	if want {
		set |= unix.O_DIRECT
	}
	if set != flags {
		_, err := unix.FcntlInt(uintptr(f.fd), unix.F_SETFL, set)
		if err == unix.EINVAL && want && f.mode == DirectAuto {
			want = false // the file system has no direct I/O
			_, err = unix.FcntlInt(uintptr(f.fd), unix.F_SETFL, set&^unix.O_DIRECT)
		}
		if err != nil {
			return err
		}
	}
	f.direct.Store(want)
	if want && f.size > 0 {
		return f.probe()
	}
	return nil
}

// directAlign returns the alignment of buffers, and that of offsets and
// lengths, which direct I/O needs; 0, 0 if it is known not to work.
func (f *File) directAlign() (mem, off int) {
	var x unix.Statx_t
	err := unix.Statx(f.fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &x)
	if err == nil && x.Mask&unix.STATX_DIOALIGN != 0 {
		return int(x.Dio_mem_align), int(x.Dio_offset_align)
	}
	if f.block {
		return f.info.LogicalBlock, f.info.LogicalBlock
	}
	return sector, sector // a guess, which probe tests
}

// noDirect says why direct I/O is not to be tried, or "".
func (f *File) noDirect() string {
	var fs unix.Statfs_t
	switch {
	case f.offAlign == 0 || f.offAlign > bounceSize || f.memAlign > 4096:
		return "not supported here"
	case f.base%int64(f.offAlign) != 0 || f.size%int64(f.offAlign) != 0:
		// Every access would be unaligned, or the last sector reach past the end.
		return "offset or size not a multiple of the sector size"
	case f.mode == DirectAuto && !f.block && unix.Fstatfs(f.fd, &fs) == nil &&
		(uint32(fs.Type) == unix.TMPFS_MAGIC || uint32(fs.Type) == unix.RAMFS_MAGIC):
		return "the file is in memory"
	}
	return ""
}

// probe reads a sector, since some file systems accept O_DIRECT and refuse the
// I/O, and some want more than they or we said.
func (f *File) probe() error {
	b := bounces.Get().(*[]byte)
	defer bounces.Put(b)
	for {
		err := f.probeRead((*b)[:f.offAlign])
		switch {
		case err == nil || err != unix.EINVAL:
			return nil // an I/O error is for the reader of that sector to see
		case f.offAlign < 4096 && f.base%4096 == 0 && f.size%4096 == 0:
			f.memAlign, f.offAlign = 4096, 4096
		case f.mode == DirectOn:
			return &reason{"direct I/O: refused", unix.EINVAL, nil}
		default:
			return f.leaveDirect()
		}
	}
}

func (f *File) probeRead(p []byte) error {
	for {
		if _, err := unix.Pread(f.fd, p, f.base); err != unix.EINTR {
			return err
		}
	}
}

// leaveDirect turns O_DIRECT off.
func (f *File) leaveDirect() error {
	flags, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(f.fd), unix.F_SETFL, flags&^unix.O_DIRECT)
	}
	if err == nil {
		f.direct.Store(false)
	}
	return err
}

// refused reports whether err is the kernel's refusal of direct I/O, which was
// turned off then: the operation is to be done again.
func (f *File) refused(err error) bool {
	return err == unix.EINVAL && f.mode == DirectAuto && f.leaveDirect() == nil
}

// Align implements Aligner.
func (f *File) Align() int {
	if !f.direct.Load() {
		return 1
	}
	return max(f.memAlign, f.offAlign)
}

// Direct reports whether I/O goes past the page cache.
func (f *File) Direct() bool { return f.direct.Load() }

// aligned reports whether the kernel takes p and off as they are.
func (f *File) aligned(p []byte, off int64) bool {
	addr := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	return addr&uintptr(f.memAlign-1) == 0 && (off|int64(len(p)))&int64(f.offAlign-1) == 0
}

// cut returns the part of a short count after which one can go on: direct I/O
// cannot start amid a sector.
func (f *File) cut(n int) int { return n &^ (f.offAlign - 1) }

func (f *File) readDirect(p []byte, off int64) (int, error) {
	done := 0
	if f.aligned(p, off) {
		for done < len(p) {
			n, err := unix.Pread(f.fd, p[done:], off+int64(done))
			switch {
			case err == unix.EINTR:
			case f.refused(err):
				n, err := f.pread(p[done:], off+int64(done))
				return done + n, err
			case err != nil:
				return done, err
			case f.cut(n) == 0:
				return done, io.ErrUnexpectedEOF
			default:
				done += f.cut(n)
			}
		}
		return done, nil
	}
	b := bounces.Get().(*[]byte)
	defer bounces.Put(b)
	for done < len(p) {
		at := off + int64(done)
		lo := alignDown(at, int64(f.offAlign))
		span := min(alignUp(off+int64(len(p)), int64(f.offAlign))-lo, bounceSize)
		if n, err := f.readDirect((*b)[:span], lo); err != nil && int64(n) <= at-lo {
			return done, err
		} else {
			done += copy(p[done:], (*b)[at-lo:n])
		}
	}
	return done, nil
}

func (f *File) writeDirect(p []byte, off int64) (int, error) {
	if f.aligned(p, off) {
		f.writes.lock(off, int64(len(p)), false)
		defer f.writes.unlock(off, int64(len(p)), false)
		return f.writeAligned(p, off)
	}
	lo, hi := alignDown(off, int64(f.offAlign)), alignUp(off+int64(len(p)), int64(f.offAlign))
	partial := lo != off || hi != off+int64(len(p))
	f.writes.lock(lo, hi-lo, partial)
	defer f.writes.unlock(lo, hi-lo, partial)
	b := bounces.Get().(*[]byte)
	defer bounces.Put(b)
	done := 0
	for done < len(p) {
		at := off + int64(done)
		lo := alignDown(at, int64(f.offAlign))
		buf := (*b)[:min(hi-lo, bounceSize)]
		if err := f.fillEdges(buf, lo, at, off+int64(len(p))); err != nil {
			return done, err
		}
		n := copy(buf[at-lo:], p[done:])
		if _, err := f.writeAligned(buf, lo); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// fillEdges reads into buf, which stands for byte lo of the file on, the
// sectors that the bytes from at to end fill only in part.
func (f *File) fillEdges(buf []byte, lo, at, end int64) error {
	unit := int64(f.offAlign)
	last := int64(len(buf)) - unit
	if at > lo || end < lo+unit {
		if _, err := f.readDirect(buf[:unit], lo); err != nil {
			return err
		}
		if last == 0 {
			return nil
		}
	}
	if end < lo+int64(len(buf)) {
		if _, err := f.readDirect(buf[last:], lo+last); err != nil {
			return err
		}
	}
	return nil
}

// writeAligned writes what the kernel takes as it is. The range is locked.
func (f *File) writeAligned(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(f.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
		case f.refused(err):
			n, err := f.pwrite(p[done:], off+int64(done))
			return done + n, err
		case err != nil:
			return done, err
		case f.cut(n) == 0:
			return done, unix.EIO
		default:
			done += f.cut(n)
		}
	}
	return done, nil
}

// lockWrite keeps a range from those who read a sector to write it again.
func (f *File) lockWrite(off, n int64) { f.writes.lock(off, n, false) }

func (f *File) unlockWrite(off, n int64) { f.writes.unlock(off, n, false) }
