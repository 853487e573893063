package blockdev

import "sync"

// Mem is a Device in memory. It starts as zeros, and takes memory for the 4 KiB
// pages that were written only, so its size may be anything. Each operation is
// atomic.
type Mem struct {
	size   int64 // immutable
	mu     sync.RWMutex
	pages  pages // guarded by mu
	closed bool  // guarded by mu
}

// NewMem returns a Mem of size bytes, at most 1<<62.
func NewMem(size int64) *Mem {
	if size < 0 || size > 1<<62 {
		panic("blockdev: size of a Mem")
	}
	return &Mem{size: size}
}

// Clone returns a Mem with the same content, which is its own from then on, and
// open even if m is closed. It takes no time, and memory only as the two come
// to differ.
func (m *Mem) Clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Mem{size: m.size, pages: m.pages.clone()}
}

// ReadAt implements Device.
func (m *Mem) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return 0, &Error{Op: "read", Off: off, Len: int64(len(p)), Err: errClosed}
	}
	n, end := readable(len(p), off, m.size)
	for p = p[:n]; len(p) > 0; {
		in := int(off & (pageSize - 1))
		step := min(pageSize-in, len(p))
		if pg := m.pages.get(off >> pageBits); pg != nil {
			copy(p[:step], pg.data[in:])
		} else {
			clear(p[:step])
		}
		p, off = p[step:], off+int64(step)
	}
	return n, end
}

// WriteAt implements Device.
func (m *Mem) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, &Error{Op: "write", Off: off, Len: int64(len(p)), Err: errClosed}
	}
	if err := writable(int64(len(p)), off, m.size, false); err != nil {
		return 0, err
	}
	n := len(p)
	for len(p) > 0 {
		in := int(off & (pageSize - 1))
		pg := m.pages.edit(off >> pageBits)
		step := copy(pg.data[in:], p)
		p, off = p[step:], off+int64(step)
	}
	return n, nil
}

// Size returns the length in bytes.
func (m *Mem) Size() int64 { return m.size }

// Sync implements Device. There is nothing to do.
func (m *Mem) Sync() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return &Error{Op: "sync", Err: errClosed}
	}
	return nil
}

// Discard implements Device: what is discarded reads as zeros.
func (m *Mem) Discard(off, n int64) error { return m.zero("discard", off, n) }

// ZeroOut implements Device, and gives the memory back.
func (m *Mem) ZeroOut(off, n int64) error { return m.zero("zero out", off, n) }

func (m *Mem) zero(op string, off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return &Error{Op: op, Off: off, Len: n, Err: errClosed}
	}
	if err := inRange(op, off, n, m.size, false); err != nil {
		return err
	}
	head, lo, hi, tail := split(off, n)
	for _, r := range [...]part{head, tail} {
		if r.n > 0 && m.pages.get(r.page) != nil {
			pg := m.pages.edit(r.page)
			clear(pg.data[r.in:][:r.n])
		}
	}
	m.pages.fill(lo, hi, false)
	return nil
}

// part is n bytes of a page, from byte in on.
type part struct {
	page  int64
	in, n int
}

// split divides n bytes at off into a part of a page, whole pages lo to hi-1,
// and a part of a page; each may be empty.
func split(off, n int64) (head part, lo, hi int64, tail part) {
	end := off + n
	lo, hi = (off+pageSize-1)>>pageBits, end>>pageBits
	if in := off & (pageSize - 1); in != 0 {
		head = part{off >> pageBits, int(in), int(min(n, pageSize-in))}
	}
	if in := end & (pageSize - 1); in != 0 && hi >= lo {
		tail = part{hi, 0, int(in)}
	}
	return head, lo, hi, tail
}

// Close implements Device. The content is freed with the last reference to m.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return &Error{Op: "close", Err: errClosed}
	}
	m.closed = true
	return nil
}

// Info implements Informer.
func (m *Mem) Info() Info {
	return Info{DiscardGranularity: pageSize, ZeroAfterDiscard: true, LogicalBlock: sector, PhysicalBlock: sector}
}
