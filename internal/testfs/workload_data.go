//go:build linux

package testfs

import (
	"fmt"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

func (w *load) bytes(n int) []byte {
	b := make([]byte, n)
	x := w.rng.Uint64()
	for i := range b {
		if i%8 == 0 {
			x = x*6364136223846793005 + 1442695040888963407
		}
		b[i] = byte(x >> (8 * (i % 8)))
	}
	return b
}

// length returns a length in bytes, of the sizes where forms change: inline,
// within a block, some blocks, many.
func (w *load) length() int {
	switch w.rng.IntN(10) {
	case 0:
		return 0
	case 1, 2:
		return 1 + w.rng.IntN(60)
	case 3:
		return 1 + w.rng.IntN(400)
	case 4, 5, 6:
		return 1 + w.rng.IntN(5000)
	case 7, 8:
		return 1 + w.rng.IntN(70000)
	}
	return 1 + w.rng.IntN(400000)
}

func (w *load) opCreate() error {
	p := w.newPath()
	data := w.bytes(w.length())
	w.what = fmt.Sprintf("create %q of %d bytes", p, len(data))
	mode := []uint32{0o644, 0o600, 0o755, 0o666, 0o440}[w.rng.IntN(5)]
	fd, err := unix.Open(w.p(p), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, mode)
	if ok, err := w.check(err); !ok {
		return err
	}
	defer unix.Close(fd)
	dir, name := w.parent(p)
	f := w.model.create(dir, name, unix.S_IFREG|mode)
	w.files = append(w.files, p)
	// In pieces, so that a file grows from form to form.
	for off := 0; off < len(data); {
		n := min(len(data)-off, 1+w.rng.IntN(100000))
		if err := w.pwrite(fd, f, data[off:off+n], int64(off)); err != nil {
			return err
		}
		off += n
	}
	return nil
}

func (w *load) pwrite(fd int, f *file, p []byte, off int64) error {
	n, err := unix.Pwrite(fd, p, off)
	if err == nil && n != len(p) {
		err = fmt.Errorf("wrote %d of %d bytes", n, len(p))
	}
	if err != nil {
		return fmt.Errorf("%s: write at %d: %w", w.what, off, err)
	}
	f.pwrite(p, off)
	return nil
}

// open opens some regular file for writing; p is "" if there is none.
func (w *load) open(flags int) (p string, f *file, fd int, err error) {
	p = w.pick(w.files, (*file).isReg)
	if p == "" {
		return "", nil, -1, nil
	}
	f = w.lookup(p)
	w.what += fmt.Sprintf(" %q", p)
	fd, err = unix.Open(w.p(p), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		err = fmt.Errorf("%s: open: %w", w.what, err)
	}
	return p, f, fd, err
}

func (w *load) opWrite() error {
	p, f, fd, err := w.open(unix.O_RDWR)
	if err != nil || p == "" {
		return err
	}
	defer unix.Close(fd)
	off := int64(w.rng.IntN(len(f.data) + 1))
	if w.rng.IntN(3) == 0 {
		off = int64(len(f.data))
	}
	return w.pwrite(fd, f, w.bytes(w.length()), off)
}

const maxSparse = 12 << 20 // bytes: some files reach indirect blocks of the second kind

func (w *load) opSparse() error {
	p, f, fd, err := w.open(unix.O_RDWR)
	if err != nil || p == "" {
		return err
	}
	defer unix.Close(fd)
	off := int64(len(f.data)) + int64(w.rng.IntN(1<<20))
	if w.rng.IntN(12) == 0 {
		off = int64(w.rng.IntN(maxSparse))
	}
	return w.pwrite(fd, f, w.bytes(1+w.rng.IntN(3000)), off)
}

func (w *load) opTruncate() error {
	p, f, fd, err := w.open(unix.O_RDWR)
	if err != nil || p == "" {
		return err
	}
	defer unix.Close(fd)
	size := int64(w.rng.IntN(len(f.data) + 1))
	switch w.rng.IntN(4) {
	case 0:
		size = 0
	case 1:
		size = int64(len(f.data) + w.rng.IntN(200000))
	}
	w.what += fmt.Sprintf(" from %d to %d", len(f.data), size)
	if ok, err := w.check(unix.Ftruncate(fd, size)); !ok {
		return err
	}
	f.truncate(size)
	return nil
}

// opTmpfile writes a file that has no name and then gives it one.
func (w *load) opTmpfile() error {
	p := w.newPath()
	w.what += fmt.Sprintf(" %q", p)
	fd, err := unix.Open(w.p(path.Dir(p)), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if ok, err := w.check(err, append(notSupported, unix.EISDIR)...); !ok {
		return err
	}
	defer unix.Close(fd)
	data := w.bytes(w.length())
	if err := w.pwrite(fd, &file{}, data, 0); err != nil {
		return err
	}
	if w.rng.IntN(3) == 0 {
		return nil // and some never get one
	}
	err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, w.p(p), unix.AT_SYMLINK_FOLLOW)
	if ok, err := w.check(err); !ok {
		return err
	}
	dir, name := w.parent(p)
	f := w.model.create(dir, name, unix.S_IFREG|0o644)
	f.data = data
	w.files = append(w.files, p)
	return nil
}

// opOrphan goes on with a file after its name is gone.
func (w *load) opOrphan() error {
	once := func(f *file) bool { return f.isReg() && f.nlink == 1 }
	p := w.pick(w.files, once)
	if p == "" || len(w.files) < 20 {
		return nil
	}
	w.what += fmt.Sprintf(" %q", p)
	f := w.lookup(p)
	fd, err := unix.Open(w.p(p), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if ok, err := w.check(err); !ok {
		return err
	}
	defer unix.Close(fd)
	if ok, err := w.check(unix.Unlink(w.p(p))); !ok {
		return err
	}
	w.forget(p)
	if err := w.pwrite(fd, f, w.bytes(w.length()), int64(len(f.data))); err != nil {
		return err
	}
	if ok, err := w.check(unix.Ftruncate(fd, int64(len(f.data)/2))); !ok {
		return err
	}
	f.truncate(int64(len(f.data) / 2))
	return w.compare(fd, f)
}

func (w *load) opFsync() error {
	p, _, fd, err := w.open(unix.O_RDWR)
	if err != nil || p == "" {
		return err
	}
	defer unix.Close(fd)
	_, err = w.check(unix.Fsync(fd))
	return err
}

func (w *load) opRead() error {
	p, f, fd, err := w.open(unix.O_RDONLY)
	if err != nil || p == "" {
		return err
	}
	defer unix.Close(fd)
	return w.compare(fd, f)
}

// compare reads an open file and wants what the model has.
func (w *load) compare(fd int, f *file) error {
	got := make([]byte, len(f.data)+1)
	n := 0
	for n < len(got) {
		l, err := unix.Pread(fd, got[n:], int64(n))
		if err != nil {
			return fmt.Errorf("%s: read at %d: %w", w.what, n, err)
		}
		if l == 0 {
			break
		}
		n += l
	}
	if n != len(f.data) {
		return fmt.Errorf("%s: read %d bytes, expected %d", w.what, n, len(f.data))
	}
	for i, b := range f.data {
		if got[i] != b {
			return fmt.Errorf("%s: %w: byte %d of %d is %#x, expected %#x", w.what, ErrContents, i, n, got[i], b)
		}
	}
	return nil
}

func (w *load) opCopyRange() error {
	src, f, in, err := w.open(unix.O_RDONLY)
	if err != nil || src == "" || len(f.data) == 0 {
		if err == nil && in >= 0 {
			unix.Close(in)
		}
		return err
	}
	defer unix.Close(in)
	dst, g, out, err := w.open(unix.O_RDWR)
	if err != nil || dst == "" {
		return err
	}
	defer unix.Close(out)
	if f == g {
		return nil
	}
	from := int64(w.rng.IntN(len(f.data)))
	to := int64(w.rng.IntN(len(g.data) + 1))
	n := int64(len(f.data)) - from
	for n > 0 {
		roff, woff := from, to
		l, err := unix.CopyFileRange(in, &roff, out, &woff, int(n), 0)
		if err == nil && l == 0 {
			err = fmt.Errorf("copied nothing of %d bytes", n)
		}
		if ok, err := w.check(err, append(notSupported, unix.EXDEV)...); !ok {
			return err
		}
		g.pwrite(f.data[from:from+int64(l)], to)
		from, to, n = from+int64(l), to+int64(l), n-int64(l)
	}
	return nil
}

func (w *load) opFallocate() error {
	p, f, fd, err := w.open(unix.O_RDWR)
	if err != nil || p == "" {
		return err
	}
	defer unix.Close(fd)
	size := int64(len(f.data))
	off := int64(w.rng.IntN(int(size) + 20000))
	n := int64(1 + w.rng.IntN(150000))
	const keep = unix.FALLOC_FL_KEEP_SIZE
	var mode uint32
	switch k := w.rng.IntN(8); k {
	case 0:
	case 1:
		mode = keep
	case 2, 3:
		mode = unix.FALLOC_FL_PUNCH_HOLE | keep
	case 4:
		mode = unix.FALLOC_FL_ZERO_RANGE
	case 5:
		mode = unix.FALLOC_FL_ZERO_RANGE | keep
	default:
		mode = unix.FALLOC_FL_COLLAPSE_RANGE
		if k == 7 {
			mode = unix.FALLOC_FL_INSERT_RANGE
		}
		off = off / w.align * w.align
		n = (n/w.align + 1) * w.align
		if off+n >= size && k == 6 || off >= size {
			return nil
		}
	}
	w.what += fmt.Sprintf(" mode %#x at %d, %d bytes, size %d", mode, off, n, size)
	tolerated := slices.Clone(notSupported)
	if mode&(unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) != 0 {
		tolerated = append(tolerated, unix.EINVAL) // a cluster larger than our alignment
	}
	if ok, err := w.check(unix.Fallocate(fd, mode, off, n), tolerated...); !ok {
		return err
	}
	switch {
	case mode == unix.FALLOC_FL_COLLAPSE_RANGE:
		f.data = slices.Delete(f.data, int(off), int(off+n))
	case mode == unix.FALLOC_FL_INSERT_RANGE:
		f.data = slices.Insert(f.data, int(off), make([]byte, n)...)
	default:
		if mode&keep == 0 && off+n > size {
			f.truncate(off + n)
		}
		if mode&^keep != 0 {
			f.zero(off, n)
		}
	}
	return nil
}
