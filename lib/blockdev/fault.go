package blockdev

import (
	"sync"
	"syscall"
)

// Ops is a set of kinds of operation.
type Ops uint

const (
	OpRead  Ops = 1 << iota
	OpWrite     // ZeroOut too
	OpSync
	OpDiscard

	AllOps = OpRead | OpWrite | OpSync | OpDiscard
)

// Failure says which operation of a Fault fails, and how.
type Failure struct {
	Ops Ops // that are counted and may fail; 0 is AllOps

	// Nth is which one of them fails, from 1 on; 0 is none, to count only.
	Nth int64

	// Sticky has all of them fail from the Nth on, as those of a disk that died.
	Sticky bool

	// Torn has a write that fails reach the device in its first half of sectors.
	Torn bool

	// Match, if set, leaves out the operations for which it returns false; off
	// and n are bytes. It is called under a lock of the Fault.
	Match func(op Ops, off, n int64) bool

	Err error // nil is EIO
}

// Fault is a Device that passes everything on to another until it is armed to
// fail. A sweep arms it with Nth = 1, 2, … until Fired stays false.
type Fault struct {
	dev   Device // immutable
	mu    sync.Mutex
	plan  Failure // guarded by mu, as the rest
	count int64
	fired bool
}

// NewFault returns a Fault over dev that does not fail. To close it closes dev.
func NewFault(dev Device) *Fault { return &Fault{dev: dev} }

// Arm makes plan the plan, and starts to count.
func (f *Fault) Arm(plan Failure) {
	if plan.Ops == 0 {
		plan.Ops = AllOps
	}
	if plan.Err == nil {
		plan.Err = syscall.EIO
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan, f.count, f.fired = plan, 0, false
}

// Disarm makes everything work again; Count and Fired stay.
func (f *Fault) Disarm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan = Failure{}
}

// Count returns how many operations of the plan there were since Arm.
func (f *Fault) Count() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// Fired reports whether an operation was made to fail since Arm.
func (f *Fault) Fired() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// next counts an operation and returns the error that it is to fail with, if
// any, and whether it is to be torn.
func (f *Fault) next(op Ops, name string, off, n int64) (torn bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.plan.Ops&op == 0 || f.plan.Match != nil && !f.plan.Match(op, off, n) {
		return false, nil
	}
	f.count++
	if f.plan.Nth == 0 || f.count < f.plan.Nth || f.count > f.plan.Nth && !f.plan.Sticky {
		return false, nil
	}
	f.fired = true
	// A dead disk does not take half of each write.
	return f.plan.Torn && f.count == f.plan.Nth, &Error{Op: name, Off: off, Len: n, Err: f.plan.Err}
}

// ReadAt implements Device.
func (f *Fault) ReadAt(p []byte, off int64) (int, error) {
	if _, err := f.next(OpRead, "read", off, int64(len(p))); err != nil {
		return 0, err
	}
	return f.dev.ReadAt(p, off)
}

// ReadvAt implements Vectored. It counts as one read.
func (f *Fault) ReadvAt(bufs [][]byte, off int64) (int, error) {
	if _, err := f.next(OpRead, "read", off, total(bufs)); err != nil {
		return 0, err
	}
	return ReadvAt(f.dev, bufs, off)
}

// WriteAt implements Device.
func (f *Fault) WriteAt(p []byte, off int64) (int, error) {
	torn, err := f.next(OpWrite, "write", off, int64(len(p)))
	if torn {
		n, _ := f.dev.WriteAt(p[:len(p)/2&^(sector-1)], off)
		return n, err
	}
	if err != nil {
		return 0, err
	}
	return f.dev.WriteAt(p, off)
}

// WritevAt implements Vectored. It counts as one write.
func (f *Fault) WritevAt(bufs [][]byte, off int64) (int, error) {
	torn, err := f.next(OpWrite, "write", off, total(bufs))
	if torn {
		p := join(bufs)
		n, _ := f.dev.WriteAt(p[:len(p)/2&^(sector-1)], off)
		return n, err
	}
	if err != nil {
		return 0, err
	}
	return WritevAt(f.dev, bufs, off)
}

func join(bufs [][]byte) []byte {
	p := make([]byte, 0, total(bufs))
	for _, b := range bufs {
		p = append(p, b...)
	}
	return p
}

// Size returns the length in bytes.
func (f *Fault) Size() int64 { return f.dev.Size() }

// Sync implements Device.
func (f *Fault) Sync() error {
	if _, err := f.next(OpSync, "sync", 0, 0); err != nil {
		return err
	}
	return f.dev.Sync()
}

// Discard implements Device.
func (f *Fault) Discard(off, n int64) error {
	if _, err := f.next(OpDiscard, "discard", off, n); err != nil {
		return err
	}
	return f.dev.Discard(off, n)
}

// ZeroOut implements Device.
func (f *Fault) ZeroOut(off, n int64) error {
	torn, err := f.next(OpWrite, "zero out", off, n)
	if torn {
		f.dev.ZeroOut(off, n/2&^(sector-1))
	}
	if err != nil {
		return err
	}
	return f.dev.ZeroOut(off, n)
}

// Close implements Device. It never fails by plan.
func (f *Fault) Close() error { return f.dev.Close() }

// Align implements Aligner.
func (f *Fault) Align() int { return Align(f.dev) }

// Info implements Informer.
func (f *Fault) Info() Info { return InfoOf(f.dev) }
