//go:build !linux

package blockdev

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// osFile is a regular file through package os: no locks, no direct I/O.
type osFile struct{ file *os.File }

func openFile(path string, o Options) (*File, error) {
	flag := os.O_RDWR
	if o.ReadOnly {
		flag = os.O_RDONLY
	}
	file, err := os.OpenFile(path, flag, 0)
	if err != nil {
		var p *os.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return nil, &Error{Op: "open", Name: path, Err: err}
	}
	f, err := fromFile(file, path, o)
	if err != nil {
		file.Close()
	}
	return f, err
}

func openFd(fd uintptr, name string, o Options) (*File, error) {
	file := os.NewFile(fd, name)
	if file == nil {
		return nil, &Error{Op: "open", Name: name, Err: syscall.EBADF}
	}
	return fromFile(file, name, o)
}

func fromFile(file *os.File, name string, o Options) (*File, error) {
	fail := func(err error) (*File, error) { return nil, &Error{Op: "open", Name: name, Err: err} }
	st, err := file.Stat()
	switch {
	case err != nil:
		return fail(err)
	case !st.Mode().IsRegular():
		return fail(&reason{"not a regular file", syscall.ENOTBLK, nil})
	case o.Direct == DirectOn:
		return fail(&reason{"no direct I/O on this system", syscall.EINVAL, nil})
	}
	f := &File{name: name, ro: o.ReadOnly, osFile: osFile{file}}
	f.users.init()
	if !f.setRange(o, st.Size()) {
		return fail(&reason{"range outside of the file", syscall.EINVAL, nil})
	}
	f.info = Info{ReadOnly: o.ReadOnly, LogicalBlock: sector, PhysicalBlock: 4096}
	return f, nil
}

// Align implements Aligner.
func (f *File) Align() int { return 1 }

// Direct reports whether I/O goes past the page cache.
func (f *File) Direct() bool { return false }

// Fd implements Fder.
func (f *File) Fd() (fd uintptr, base int64, ok bool) { return f.file.Fd(), f.base, true }

// ReadvAt implements Vectored.
func (f *File) ReadvAt(bufs [][]byte, off int64) (int, error) {
	return each(bufs, off, f.ReadAt)
}

// WritevAt implements Vectored.
func (f *File) WritevAt(bufs [][]byte, off int64) (int, error) {
	if err := writable(total(bufs), off, f.size, f.ro); err != nil {
		return 0, f.named(err)
	}
	return each(bufs, off, f.WriteAt)
}

func (f *File) read(p []byte, off int64) (int, error) {
	n, err := f.file.ReadAt(p, off)
	if err == io.EOF && n < len(p) {
		err = io.ErrUnexpectedEOF // the file has become shorter
	} else if err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *File) write(p []byte, off int64) (int, error) { return f.file.WriteAt(p, off) }
func (f *File) sync() error                            { return f.file.Sync() }
func (f *File) discard(off, n int64) error             { return errors.ErrUnsupported }
func (f *File) zeroOut(off, n int64) error             { return f.writeZeros(off, n) }
func (f *File) close() error                           { return f.file.Close() }
