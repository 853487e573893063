package main

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// interruptError is why the context of a run ended.
type interruptError struct{ name string }

func (e *interruptError) Error() string { return "interrupted by " + e.name }
func (e *interruptError) Unwrap() error { return syscall.EINTR }

// catchSignals returns a context that ends with the first signal that asks to
// stop; the second one kills. What was ignored when the program began, as nohup
// has it, stays so. done gives the signals back.
func catchSignals() (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
	stop := make(chan struct{})
	go func() {
		select {
		case s := <-c:
			signal.Stop(c)
			name := map[os.Signal]string{syscall.SIGINT: "SIGINT", syscall.SIGTERM: "SIGTERM", syscall.SIGHUP: "SIGHUP"}[s]
			cancel(&interruptError{name})
		case <-stop:
		}
	}()
	return ctx, func() {
		signal.Stop(c)
		close(stop)
		cancel(nil)
	}
}

// stopped returns the error of a run that was asked to stop, nil if it was not.
func (m *maker) stopped() error {
	if m.ctx.Err() == nil {
		return nil
	}
	return fail("%s: no file system made: %w", m.device, context.Cause(m.ctx))
}

// stopDevice is a device that fails once its context has ended, up to when the
// superblock is written: from then on there is a file system, and it is finished.
type stopDevice struct {
	blockdev.Device
	ctx   context.Context
	final bool
}

func (d *stopDevice) check() error {
	if d.ctx.Err() != nil && !d.final {
		return context.Cause(d.ctx)
	}
	return nil
}

func (d *stopDevice) WriteAt(p []byte, off int64) (int, error) {
	if err := d.check(); err != nil {
		return 0, err
	}
	const magicAt = ondisk.SuperOffset + 56
	if off <= magicAt && magicAt+2 <= off+int64(len(p)) && binary.LittleEndian.Uint16(p[magicAt-off:]) == ondisk.SuperMagic {
		d.final = true
	}
	return d.Device.WriteAt(p, off)
}

// WritevAt implements blockdev.Vectored.
func (d *stopDevice) WritevAt(bufs [][]byte, off int64) (int, error) {
	if err := d.check(); err != nil {
		return 0, err
	}
	return blockdev.WritevAt(d.Device, bufs, off)
}

// ReadvAt implements blockdev.Vectored.
func (d *stopDevice) ReadvAt(bufs [][]byte, off int64) (int, error) {
	return blockdev.ReadvAt(d.Device, bufs, off)
}

func (d *stopDevice) ZeroOut(off, n int64) error {
	if err := d.check(); err != nil {
		return err
	}
	return d.Device.ZeroOut(off, n)
}

func (d *stopDevice) Discard(off, n int64) error {
	if err := d.check(); err != nil {
		return err
	}
	return d.Device.Discard(off, n)
}

// Align implements blockdev.Aligner.
func (d *stopDevice) Align() int { return blockdev.Align(d.Device) }

// Info implements blockdev.Informer.
func (d *stopDevice) Info() blockdev.Info { return blockdev.InfoOf(d.Device) }

// stoppable returns r, whose reads end with the run's context. What is a
// regular file never waits and stays as it is.
func (m *maker) stoppable(r io.Reader) io.Reader {
	if f, ok := r.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			return r
		}
	}
	return &stopReader{ctx: m.ctx, r: r}
}

// stopReader is a reader whose reads are not waited for once its context ends.
type stopReader struct {
	ctx  context.Context
	r    io.Reader
	rest []byte // was read and not asked for yet
	err  error  // after rest
}

func (s *stopReader) Read(p []byte) (int, error) {
	if len(s.rest) == 0 && s.err == nil {
		type result struct {
			b   []byte
			err error
		}
		got := make(chan result, 1)
		go func() {
			b := make([]byte, 256<<10)
			n, err := s.r.Read(b)
			got <- result{b[:n], err}
		}()
		select {
		case r := <-got:
			s.rest, s.err = r.b, r.err
		case <-s.ctx.Done():
			s.err = context.Cause(s.ctx)
		}
	}
	if len(s.rest) == 0 {
		return 0, s.err
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}
