package blockdev

import "syscall"

// Window returns the n bytes of dev from off on as a device of their own. It
// fails with EINVAL if they reach past the end. To close it closes dev.
func Window(dev Device, off, n int64) (Device, error) {
	if off < 0 || n < 0 || off > dev.Size() || n > dev.Size()-off {
		return nil, &Error{Op: "window", Off: off, Len: n, Err: syscall.EINVAL}
	}
	return &window{dev: dev, base: off, size: n}, nil
}

type window struct {
	dev        Device
	base, size int64
}

func (w *window) ReadAt(p []byte, off int64) (int, error) {
	n, end := readable(len(p), off, w.size)
	if n == 0 && end != nil {
		return 0, end
	}
	if n, err := w.dev.ReadAt(p[:n], w.base+off); err != nil {
		return n, err
	}
	return n, end
}

func (w *window) WriteAt(p []byte, off int64) (int, error) {
	if err := writable(int64(len(p)), off, w.size, w.Info().ReadOnly); err != nil {
		return 0, err
	}
	return w.dev.WriteAt(p, w.base+off)
}

func (w *window) ReadvAt(bufs [][]byte, off int64) (int, error) {
	if off < 0 || total(bufs) > w.size-off {
		return each(bufs, off, w.ReadAt)
	}
	return ReadvAt(w.dev, bufs, w.base+off)
}

func (w *window) WritevAt(bufs [][]byte, off int64) (int, error) {
	if err := writable(total(bufs), off, w.size, w.Info().ReadOnly); err != nil {
		return 0, err
	}
	return WritevAt(w.dev, bufs, w.base+off)
}

func (w *window) Size() int64 { return w.size }
func (w *window) Sync() error { return w.dev.Sync() }

func (w *window) Discard(off, n int64) error {
	if err := inRange("discard", off, n, w.size, w.Info().ReadOnly); err != nil {
		return err
	}
	return w.dev.Discard(w.base+off, n)
}

func (w *window) ZeroOut(off, n int64) error {
	if err := inRange("zero out", off, n, w.size, w.Info().ReadOnly); err != nil {
		return err
	}
	return w.dev.ZeroOut(w.base+off, n)
}

func (w *window) Close() error { return w.dev.Close() }
func (w *window) Info() Info   { return InfoOf(w.dev) }

func (w *window) Align() int {
	if a := Align(w.dev); w.base%int64(a) == 0 {
		return a
	}
	return 1 // nothing that the caller could do would align
}

func (w *window) Fd() (fd uintptr, base int64, ok bool) {
	fd, base, ok = FdOf(w.dev)
	return fd, base + w.base, ok
}
