package blockdev

import (
	"errors"
	"slices"
	"sync"
)

// Record is a Device that passes everything on to another, and keeps a log of
// what was written, discarded, zeroed and synced, in order and with content, of
// which Log.States makes the devices that a crash could leave behind.
//
// Operations that change the device run one at a time. The content from before
// is kept too: for free if the device is a Mem, else page by page as it is
// overwritten.
type Record struct {
	dev  Device
	base *Overlay // what dev read as at NewRecord
	keep bool     // base has to be told before dev changes

	mu  sync.Mutex
	ops []logOp // guarded by mu
}

type opKind uint8

const (
	logWrite opKind = iota
	logZero
	logSync
	logMark
	logReadBack // in change only: a write of what can be read afterwards
)

// logOp is an entry of the log: n bytes at off. A sync is of those bytes.
type logOp struct {
	kind   opKind
	off, n int64
	data   []byte // of a write; immutable
	mark   any
}

// NewRecord returns a Record of dev, of which nobody else may change what it
// reads as. To close it closes dev; then the log's states can be had only if
// dev is a Mem.
func NewRecord(dev Device) *Record {
	if m, ok := dev.(*Mem); ok {
		return &Record{dev: dev, base: NewOverlay(m.Clone(), 0)}
	}
	return &Record{dev: dev, base: NewOverlay(dev, 0), keep: true}
}

// Log returns what was recorded up to now.
func (r *Record) Log() *Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Log{base: r.base, ops: slices.Clip(r.ops)}
}

// Mark puts v into the log: something that the program under test has promised,
// such as "this file is on disk". See State.Marks.
func (r *Record) Mark(v any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, logOp{kind: logMark, mark: v})
}

// change runs do, which changes n bytes at off, and logs it as op.
func (r *Record) change(op logOp, do func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	inside := op.n > 0 && op.off >= 0 && op.off < r.dev.Size() && op.n <= r.dev.Size()-op.off
	if inside && r.keep {
		if err := r.base.preserve(op.off, op.n); err != nil {
			return err
		}
	}
	err := do()
	if !inside || errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if err != nil || op.kind == logReadBack {
		// After an error it may have happened in part.
		op.kind, op.data = logWrite, make([]byte, op.n)
		if _, e := r.dev.ReadAt(op.data, op.off); e != nil {
			return err
		}
	}
	r.ops = append(r.ops, op)
	return err
}

// ReadAt implements Device.
func (r *Record) ReadAt(p []byte, off int64) (int, error) { return r.dev.ReadAt(p, off) }

// ReadvAt implements Vectored.
func (r *Record) ReadvAt(bufs [][]byte, off int64) (int, error) { return ReadvAt(r.dev, bufs, off) }

// WriteAt implements Device.
func (r *Record) WriteAt(p []byte, off int64) (n int, err error) {
	op := logOp{kind: logWrite, off: off, n: int64(len(p)), data: slices.Clone(p)}
	err = r.change(op, func() error {
		n, err = r.dev.WriteAt(p, off)
		return err
	})
	return n, err
}

// WritevAt implements Vectored.
func (r *Record) WritevAt(bufs [][]byte, off int64) (n int, err error) {
	op := logOp{kind: logWrite, off: off, n: total(bufs), data: join(bufs)}
	err = r.change(op, func() error {
		n, err = WritevAt(r.dev, bufs, off)
		return err
	})
	return n, err
}

// Size returns the length in bytes.
func (r *Record) Size() int64 { return r.dev.Size() }

// Sync implements Device.
func (r *Record) Sync() error { return r.syncPart(0, r.dev.Size()) }

// syncPart syncs, and logs that for the n bytes at off only.
func (r *Record) syncPart(off, n int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.dev.Sync()
	if err == nil {
		r.ops = append(r.ops, logOp{kind: logSync, off: off, n: n})
	}
	return err
}

// Part returns the n bytes from off on as a disk of their own, as of a file
// system and its external journal: its Sync keeps nothing that was written
// outside of them. To close it closes r. It fails as Window does.
func (r *Record) Part(off, n int64) (Device, error) {
	w, err := Window(r, off, n)
	if err != nil {
		return nil, err
	}
	return &recordPart{w.(*window), r}, nil
}

type recordPart struct {
	*window
	rec *Record
}

// Sync implements Device.
func (p *recordPart) Sync() error { return p.rec.syncPart(p.base, p.size) }

// Discard implements Device. In the log it is a write of what the device then
// reads as.
func (r *Record) Discard(off, n int64) error {
	if _, ok := r.dev.(*Mem); ok {
		return r.change(logOp{kind: logZero, off: off, n: n}, func() error { return r.dev.Discard(off, n) })
	}
	return r.change(logOp{kind: logReadBack, off: off, n: n}, func() error { return r.dev.Discard(off, n) })
}

// ZeroOut implements Device.
func (r *Record) ZeroOut(off, n int64) error {
	return r.change(logOp{kind: logZero, off: off, n: n}, func() error { return r.dev.ZeroOut(off, n) })
}

// Close implements Device.
func (r *Record) Close() error { return r.dev.Close() }

// Align implements Aligner.
func (r *Record) Align() int { return Align(r.dev) }

// Info implements Informer.
func (r *Record) Info() Info { return InfoOf(r.dev) }
