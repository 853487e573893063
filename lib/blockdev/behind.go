package blockdev

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	behindMax   = 64 << 10    // what is longer is written at once, in bytes
	behindPages = 64          // so many pages are written together
	behindDelay = time.Second // and fewer after so long
)

// Behind is a Device in front of another one that can hold small writes back
// for a while, to write neighbours together: many small files cost a disk a few
// large writes, and who writes them waits for none. Whatever else is done to a
// range of the device sees what was written to it before, so the order is kept,
// and Sync covers what is held. Only content that nobody relies on before a Sync
// may be held: WriteAt does not.
type Behind struct {
	dev   Device
	pages atomic.Int64 // held or on their way: most operations need not look

	mu     sync.Mutex
	held   map[int64][]byte // guarded by mu: pages, by offset
	out    []*batch         // guarded by mu: on their way
	free   [][]byte         // guarded by mu: pages for use
	failed error            // guarded by mu: of the first batch that could not be written
	closed bool             // guarded by mu
	timer  *time.Timer      // guarded by mu: runs while something is held
}

// batch is pages that are written together.
type batch struct {
	held map[int64][]byte // immutable
	done chan struct{}    // closed when they are written, or have failed
}

// NewBehind returns a Behind in front of dev. To close it writes what is held
// and closes dev.
func NewBehind(dev Device) *Behind {
	b := &Behind{dev: dev, held: map[int64][]byte{}}
	b.timer = time.AfterFunc(behindDelay, b.late)
	b.timer.Stop()
	return b
}

// WriteBehind is WriteAt for content that a Sync will follow before anybody
// relies on it. It may be in memory only when it returns; if the device refuses
// it later, each Sync fails from then on: which of them whose content it was
// waits for is not known here, and none may take it for written.
func (b *Behind) WriteBehind(p []byte, off int64) (int, error) {
	n := int64(len(p))
	if n == 0 || n > behindMax || (off|n)&(pageSize-1) != 0 || writable(n, off, b.dev.Size(), InfoOf(b.dev).ReadOnly) != nil {
		return b.WriteAt(p, off)
	}
	b.mu.Lock()
	for b.waitLocked(off, n) {
	}
	if b.closed {
		b.mu.Unlock()
		return b.dev.WriteAt(p, off) // which says so
	}
	if len(b.held) == 0 {
		b.timer.Reset(behindDelay)
	}
	for at := off; at < off+n; at += pageSize {
		q, ok := b.held[at]
		if !ok {
			q = b.pageLocked()
			b.held[at] = q
			b.pages.Add(1)
		}
		copy(q, p[at-off:])
	}
	var full *batch
	if len(b.held) >= behindPages {
		full = b.takeLocked()
	}
	b.mu.Unlock()
	if full != nil {
		b.write(full)
	}
	return len(p), nil
}

// pageLocked returns a page to fill.
func (b *Behind) pageLocked() []byte {
	if len(b.free) == 0 {
		for slab := AlignedBuf(behindPages*pageSize, pageSize); len(slab) > 0; slab = slab[pageSize:] {
			b.free = append(b.free, slab[:pageSize:pageSize])
		}
	}
	last := len(b.free) - 1
	q := b.free[last]
	b.free = b.free[:last]
	return q
}

// takeLocked makes a batch of what is held, for the caller to write.
func (b *Behind) takeLocked() *batch {
	t := &batch{held: b.held, done: make(chan struct{})}
	b.held = make(map[int64][]byte, behindPages)
	b.out = append(b.out, t)
	b.timer.Stop()
	return t
}

// waitLocked waits, without mu, for a batch that overlaps n bytes at off. It
// reports whether there was one.
func (b *Behind) waitLocked(off, n int64) bool {
	for _, t := range b.out {
		if overlaps(t.held, off, n) {
			b.mu.Unlock()
			<-t.done
			b.mu.Lock()
			return true
		}
	}
	return false
}

// overlaps says whether one of the pages lies in n bytes at off.
func overlaps(pages map[int64][]byte, off, n int64) bool {
	if len(pages) == 0 || n <= 0 {
		return false
	}
	lo := off &^ (pageSize - 1)
	if (off+n-lo)>>pageBits > int64(len(pages)) {
		for at := range pages {
			if at+pageSize > off && at < off+n {
				return true
			}
		}
		return false
	}
	for at := lo; at < off+n; at += pageSize {
		if _, ok := pages[at]; ok {
			return true
		}
	}
	return false
}

// settle returns when nothing of n bytes at off is held or on its way.
func (b *Behind) settle(off, n int64) {
	if b.pages.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if overlaps(b.held, off, n) {
			t := b.takeLocked()
			b.mu.Unlock()
			b.write(t)
			b.mu.Lock()
		} else if !b.waitLocked(off, n) {
			return
		}
	}
}

// flush writes all that is held, and waits for what is on its way.
func (b *Behind) flush() {
	if b.pages.Load() == 0 {
		return
	}
	b.mu.Lock()
	var t *batch
	out := slices.Clone(b.out)
	if len(b.held) > 0 {
		t = b.takeLocked()
	}
	b.mu.Unlock()
	if t != nil {
		b.write(t)
	}
	for _, t := range out {
		<-t.done
	}
}

// late writes what was held long enough.
func (b *Behind) late() {
	b.mu.Lock()
	var t *batch
	if len(b.held) > 0 {
		t = b.takeLocked()
	}
	b.mu.Unlock()
	if t != nil {
		b.write(t)
	}
}

// write writes a batch, each run of neighbours at once.
func (b *Behind) write(t *batch) {
	at := make([]int64, 0, len(t.held))
	for off := range t.held {
		at = append(at, off)
	}
	slices.SortFunc(at, func(x, y int64) int { return cmp.Compare(x, y) })
	bufs := make([][]byte, 0, len(at))
	var failed error
	for i := 0; i < len(at); {
		bufs = bufs[:0]
		j := i
		for ; j < len(at) && at[j] == at[i]+int64(j-i)*pageSize; j++ {
			bufs = append(bufs, t.held[at[j]])
		}
		if _, err := WritevAt(b.dev, bufs, at[i]); err != nil && failed == nil {
			failed = err
		}
		i = j
	}
	b.mu.Lock()
	if b.failed == nil {
		b.failed = failed
	}
	b.out = slices.DeleteFunc(b.out, func(o *batch) bool { return o == t })
	for _, q := range t.held {
		if len(b.free) < 4*behindPages {
			b.free = append(b.free, q)
		}
	}
	b.pages.Add(-int64(len(t.held)))
	b.mu.Unlock()
	close(t.done)
}

// ReadAt implements Device.
func (b *Behind) ReadAt(p []byte, off int64) (int, error) {
	b.settle(off, int64(len(p)))
	return b.dev.ReadAt(p, off)
}

// WriteAt implements Device.
func (b *Behind) WriteAt(p []byte, off int64) (int, error) {
	b.settle(off, int64(len(p)))
	return b.dev.WriteAt(p, off)
}

// ReadvAt implements Vectored.
func (b *Behind) ReadvAt(bufs [][]byte, off int64) (int, error) {
	b.settle(off, total(bufs))
	return ReadvAt(b.dev, bufs, off)
}

// WritevAt implements Vectored.
func (b *Behind) WritevAt(bufs [][]byte, off int64) (int, error) {
	b.settle(off, total(bufs))
	return WritevAt(b.dev, bufs, off)
}

// Sync implements Device.
func (b *Behind) Sync() error {
	b.flush()
	err := b.dev.Sync()
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.failed, err)
}

// Discard implements Device.
func (b *Behind) Discard(off, n int64) error {
	b.settle(off, n)
	return b.dev.Discard(off, n)
}

// ZeroOut implements Device.
func (b *Behind) ZeroOut(off, n int64) error {
	b.settle(off, n)
	return b.dev.ZeroOut(off, n)
}

// Size implements Device.
func (b *Behind) Size() int64 { return b.dev.Size() }

// Close implements Device. It fails if what was held could not be written.
func (b *Behind) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.flush()
	b.mu.Lock()
	failed := b.failed
	b.mu.Unlock()
	return errors.Join(failed, b.dev.Close())
}

// Info implements Informer.
func (b *Behind) Info() Info { return InfoOf(b.dev) }

// Align implements Aligner.
func (b *Behind) Align() int { return Align(b.dev) }

// Fd implements Fder. What is held is not there before Sync.
func (b *Behind) Fd() (fd uintptr, base int64, ok bool) { return FdOf(b.dev) }
