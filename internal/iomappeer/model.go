package iomappeer

import (
	"bytes"
	"slices"
	"sync"
)

// span is a run of bytes of a file.
type span struct{ from, to int64 }

// spans are runs in order that do not touch.
type spans []span

func (s spans) add(from, to int64) spans {
	if from >= to {
		return s
	}
	var out spans
	for _, x := range s {
		if x.to < from || x.from > to {
			out = append(out, x)
			continue
		}
		from, to = min(from, x.from), max(to, x.to)
	}
	out = append(out, span{from, to})
	slices.SortFunc(out, func(a, b span) int { return int(min(max(a.from-b.from, -1), 1)) })
	return out
}

func (s spans) cut(from, to int64) spans {
	var out spans
	for _, x := range s {
		if x.to <= from || x.from >= to {
			out = append(out, x)
			continue
		}
		if x.from < from {
			out = append(out, span{x.from, from})
		}
		if x.to > to {
			out = append(out, span{to, x.to})
		}
	}
	return out
}

func (s spans) has(off int64) bool {
	for _, x := range s {
		if x.from <= off && off < x.to {
			return true
		}
	}
	return false
}

// image is sparse bytes.
type image map[int64]*[pageSize]byte

func (m image) write(p []byte, pos int64) {
	for done := 0; done < len(p); {
		at := pos + int64(done)
		page := m[at/pageSize]
		if page == nil {
			page = new([pageSize]byte)
			m[at/pageSize] = page
		}
		done += copy(page[at%pageSize:], p[done:])
	}
}

func (m image) zero(from, to int64) {
	for i, page := range m {
		lo, hi := max(from, i*pageSize), min(to, (i+1)*pageSize)
		if lo >= hi {
			continue
		}
		if hi-lo == pageSize {
			delete(m, i)
		} else {
			clear(page[lo-i*pageSize : hi-i*pageSize])
		}
	}
}

func (m image) at(off int64) byte {
	if page := m[off/pageSize]; page != nil {
		return page[off%pageSize]
	}
	return 0
}

// change is one thing that happened to a file since its last fsync.
type change struct {
	from, to int64
	data     []byte // nil is zeros
	unknown  bool   // it failed: it may have happened in part
	size     int64  // of the file afterwards
}

// model is what an application must read back from a file, and what may be left
// of it after a crash.
type model struct {
	off     bool // nothing is kept
	mu      sync.Mutex
	img     image
	size    int64
	unknown spans // bytes that may be anything: there before us, or failed

	first    int // number of changes[0], counted from the start
	changes  []change
	durable  image
	durSize  int64
	durUnk   spans
	durSaved bool // the file was synced at least once
}

func (m *model) init() { m.img, m.durable = make(image), make(image) }

// start sets what the file is when the peer first sees it: empty if it was just
// created, else bytes that are not known, and durable as they are.
func (m *model) start(size int64, created bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.size, m.durSize = size, size
	m.durSaved = !created
	if size > 0 {
		m.unknown = spans{{0, size}}
		m.durUnk = spans{{0, size}}
	}
}

func (m *model) length() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.size
}

func (m *model) record(c change) {
	m.changes = append(m.changes, c)
}

// write is that p was written at pos.
func (m *model) write(p []byte, pos int64) {
	if m.off {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.img.write(p, pos)
	end := pos + int64(len(p))
	m.unknown = m.unknown.cut(pos, end)
	m.size = max(m.size, end)
	m.record(change{from: pos, to: end, data: slices.Clone(p), size: m.size})
}

// zero is that [from, to) reads as zeros, the size unchanged.
func (m *model) zero(from, to int64) {
	if m.off {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.img.zero(from, to)
	m.unknown = m.unknown.cut(from, to)
	m.record(change{from: from, to: to, size: m.size})
}

// fail is that an operation on [from, to) failed half-way.
func (m *model) fail(from, to int64) {
	if m.off {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unknown = m.unknown.add(from, to)
	m.record(change{from: from, to: to, unknown: true, size: m.size})
}

// truncate is that the size was set.
func (m *model) truncate(size int64) {
	if m.off {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if size < m.size {
		m.img.zero(size, maxLFS)
		m.unknown = m.unknown.cut(size, maxLFS)
		m.record(change{from: size, to: maxLFS, size: size})
	} else {
		m.record(change{size: size})
	}
	m.size = size
}

// diff returns the first byte of p, read at pos, that is not what must be read,
// and what it should be; -1 if there is none.
func (m *model) diff(p []byte, pos int64) (off int64, want byte) {
	if m.off {
		return -1, 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var zeros [pageSize]byte
	for done := 0; done < len(p); {
		at := pos + int64(done)
		page := m.img[at/pageSize]
		if page == nil {
			page = &zeros
		}
		want := page[at%pageSize:]
		got := p[done:min(len(p), done+len(want))]
		if !bytes.Equal(got, want[:len(got)]) {
			for i, b := range got {
				if w := want[i]; w != b && !m.unknown.has(at+int64(i)) {
					return at + int64(i), w
				}
			}
		}
		done += len(got)
	}
	return -1, 0
}

// mark returns a point in time, for durableTo.
func (m *model) mark() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.first + len(m.changes)
}

// durableTo is that all changes before the mark are safe from a crash.
func (m *model) durableTo(mark int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.durSaved = true
	n := min(mark-m.first, len(m.changes))
	for i := range max(n, 0) {
		c := &m.changes[i]
		switch {
		case c.unknown:
			m.durUnk = m.durUnk.add(c.from, c.to)
		case c.data != nil:
			m.durable.write(c.data, c.from)
			m.durUnk = m.durUnk.cut(c.from, c.to)
		default:
			m.durable.zero(c.from, c.to)
			m.durUnk = m.durUnk.cut(c.from, c.to)
		}
		m.durSize = c.size
	}
	if n > 0 {
		m.changes = slices.Clone(m.changes[n:])
		m.first += n
	}
}

// undoSize sets the size back to what the file's is, after an operation that was
// to make it larger failed.
func (m *model) undoSize(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.size > size {
		m.img.zero(size, maxLFS)
		m.size = size
		m.record(change{size: size})
	}
}

// anyUnknown reports whether a byte of [from, to) may be anything.
func (m *model) anyUnknown(from, to int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.unknown {
		if x.from < to && x.to > from {
			return true
		}
	}
	return false
}
