package blockdev

import (
	"io"
	"iter"
	"sync"
	"syscall"
)

// Overlay is a Device that reads as another one does until it is written, and
// keeps what is written in memory: the device below is never changed, not even
// synced. It is how a dirty journal is replayed for a read-only mount.
type Overlay struct {
	dev    Device // immutable, as limit and lent
	limit  int64  // bytes of memory for content; 0 is no limit
	lent   bool   // dev is not ours to close
	mu     sync.RWMutex
	pages  pages // guarded by mu
	closed bool  // guarded by mu
}

// NewOverlay returns an Overlay of dev, whatever it may be written to, that
// takes at most limit bytes of memory for content and then fails to write, with
// ENOMEM; 0 is no limit. To close it closes dev and forgets what was written.
func NewOverlay(dev Device, limit int64) *Overlay { return &Overlay{dev: dev, limit: limit} }

// Clone returns an Overlay with the same content, which is its own from then
// on. It takes no time, and memory only as the two come to differ. To close the
// clone leaves the device below open.
func (o *Overlay) Clone() *Overlay {
	o.mu.Lock()
	defer o.mu.Unlock()
	return &Overlay{dev: o.dev, limit: o.limit, lent: true, pages: o.pages.clone()}
}

// Bytes returns how much memory the written content takes.
func (o *Overlay) Bytes() int64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return int64(o.pages.count) * pageSize
}

// Changed yields what was written and its offset, page by page, in order; some
// of it may be as it was below. The bytes are valid, and must not be changed,
// until the next; writing waits meanwhile.
func (o *Overlay) Changed() iter.Seq2[int64, []byte] {
	return func(yield func(int64, []byte) bool) {
		o.mu.RLock()
		defer o.mu.RUnlock()
		o.pages.each(func(i int64, p *page) bool {
			off := i << pageBits
			return yield(off, p.data[:min(pageSize, o.dev.Size()-off)])
		})
	}
}

// Apply writes what was written to the overlay to w: afterwards a copy of the
// device below, such as a file, has the content of the overlay.
func (o *Overlay) Apply(w io.WriterAt) error {
	for off, p := range o.Changed() {
		if _, err := w.WriteAt(p, off); err != nil {
			return err
		}
	}
	return nil
}

// ReadAt implements Device.
func (o *Overlay) ReadAt(p []byte, off int64) (int, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.closed {
		return 0, &Error{Op: "read", Off: off, Len: int64(len(p)), Err: errClosed}
	}
	if o.pages.root == nil {
		return o.dev.ReadAt(p, off)
	}
	n, end := readable(len(p), off, o.dev.Size())
	for done := 0; done < n; {
		at := off + int64(done)
		i, in := at>>pageBits, int(at&(pageSize-1))
		if pg := o.pages.get(i); pg != nil {
			done += copy(p[done:n], pg.data[in:])
			continue
		}
		run := pageSize - in
		for i++; run < n-done && o.pages.get(i) == nil; i++ {
			run += pageSize
		}
		m, err := o.dev.ReadAt(p[done:min(n, done+run)], at)
		if err != nil {
			return done + m, err
		}
		done += m
	}
	return n, end
}

// WriteAt implements Device.
func (o *Overlay) WriteAt(p []byte, off int64) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fail := func(n int, err error) (int, error) {
		return n, &Error{Op: "write", Off: off, Len: int64(len(p)), Err: err}
	}
	if o.closed {
		return fail(0, errClosed)
	}
	if err := writable(int64(len(p)), off, o.dev.Size(), false); err != nil {
		return 0, err
	}
	for done := 0; done < len(p); {
		at := off + int64(done)
		in := int(at & (pageSize - 1))
		step := min(pageSize-in, len(p)-done)
		pg, err := o.editLocked(at>>pageBits, step < pageSize)
		if err != nil {
			return fail(done, err)
		}
		done += copy(pg.data[in:], p[done:][:step])
	}
	return len(p), nil
}

// editLocked returns page i for changing; what the caller will not set it reads
// from below, if fill is set.
func (o *Overlay) editLocked(i int64, fill bool) (*page, error) {
	old := o.pages.get(i)
	if o.limit > 0 && int64(o.pages.count+1)*pageSize > o.limit && (old == nil || old.owner != o.pages.owner) {
		return nil, &reason{"the overlay is full", syscall.ENOMEM, nil}
	}
	var below [pageSize]byte
	if fill = fill && old == nil; fill {
		off := i << pageBits
		if _, err := o.dev.ReadAt(below[:min(pageSize, o.dev.Size()-off)], off); err != nil {
			return nil, err
		}
	}
	pg := o.pages.edit(i)
	if fill {
		pg.data = below
	}
	return pg, nil
}

// preserve keeps what n bytes at off read as, so that a write below does not
// show.
func (o *Overlay) preserve(off, n int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := off >> pageBits; i<<pageBits < off+n; i++ {
		if o.pages.get(i) == nil {
			if _, err := o.editLocked(i, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// Size returns the length in bytes.
func (o *Overlay) Size() int64 { return o.dev.Size() }

// Sync implements Device. There is nothing that could become stable.
func (o *Overlay) Sync() error {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.closed {
		return &Error{Op: "sync", Err: errClosed}
	}
	return nil
}

// Discard implements Device. It changes nothing.
func (o *Overlay) Discard(off, n int64) error {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.closed {
		return &Error{Op: "discard", Off: off, Len: n, Err: errClosed}
	}
	return inRange("discard", off, n, o.dev.Size(), false)
}

// ZeroOut implements Device. It takes no memory for whole pages.
func (o *Overlay) ZeroOut(off, n int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return &Error{Op: "zero out", Off: off, Len: n, Err: errClosed}
	}
	if err := inRange("zero out", off, n, o.dev.Size(), false); err != nil {
		return err
	}
	head, lo, hi, tail := split(off, n)
	for _, r := range [...]part{head, tail} {
		if r.n == 0 {
			continue
		}
		pg, err := o.editLocked(r.page, true)
		if err != nil {
			return &Error{Op: "zero out", Off: off, Len: n, Err: err}
		}
		clear(pg.data[r.in:][:r.n])
	}
	o.pages.fill(lo, hi, true)
	return nil
}

// Close implements Device.
func (o *Overlay) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return &Error{Op: "close", Err: errClosed}
	}
	o.closed = true
	if o.lent {
		return nil
	}
	return o.dev.Close()
}

// Align implements Aligner.
func (o *Overlay) Align() int { return Align(o.dev) }

// Info implements Informer.
func (o *Overlay) Info() Info {
	i := InfoOf(o.dev)
	i.ReadOnly, i.DiscardGranularity, i.ZeroAfterDiscard = false, 0, false
	return i
}
