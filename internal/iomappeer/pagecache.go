package iomappeer

import (
	"cmp"
	"slices"
	"sync"
)

func sortBy[T any, K cmp.Ordered](s []T, key func(T) K) {
	slices.SortFunc(s, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
}

func roundDown(n, to int64) int64 { return n - n%to }

func roundUp(n, to int64) int64 {
	if n > maxLFS-to {
		return maxLFS - maxLFS%to
	}
	return roundDown(n+to-1, to)
}

// A folio is a page of the page cache, or a block where blocks are larger.
type folio struct {
	mu   sync.Mutex // the folio lock
	idx  int64
	gone bool // no longer in the cache; guarded by mu

	// Guarded by mu.
	data     []byte
	uptodate []bool // by block
	dirty    []bool // by block

	wb sync.RWMutex // held alone while under writeback
}

// waitWriteback returns when no writeback of the folio that began before is under
// way.
func (f *folio) waitWriteback() {
	f.wb.RLock()
	defer f.wb.RUnlock()
}

func (f *folio) isDirty() bool { return slices.Contains(f.dirty, true) }

// pageCache is the folios of a file.
type pageCache struct {
	mu     sync.Mutex
	folios map[int64]*folio
}

func (c *pageCache) init() { c.folios = make(map[int64]*folio) }

// folioSize returns the bytes of a folio.
func (k *Kernel) folioSize() int64 { return max(pageSize, k.bs) }

// lookup returns a folio without locking it, or nil.
func (c *pageCache) lookup(idx int64) *folio {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.folios[idx]
}

// lock returns the folio locked, a new one if there is none.
func (k *Kernel) lockFolio(in *Inode, idx int64) *folio {
	c := &in.pages
	for {
		c.mu.Lock()
		f := c.folios[idx]
		if f == nil {
			n := k.folioSize()
			f = &folio{idx: idx, data: make([]byte, n), uptodate: make([]bool, max(n/k.bs, 1)),
				dirty: make([]bool, max(n/k.bs, 1))}
			c.folios[idx] = f
		}
		c.mu.Unlock()
		f.mu.Lock()
		if !f.gone {
			return f
		}
		f.mu.Unlock()
	}
}

// within returns the folios that overlap [from, to), in order.
func (c *pageCache) within(from, to, size int64) []*folio {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*folio
	for idx, f := range c.folios {
		if idx*size < to && (idx+1)*size > from {
			out = append(out, f)
		}
	}
	sortBy(out, func(f *folio) int64 { return f.idx })
	return out
}

// dirtyWithin reports whether a byte of [from, to) waits for writeback.
func (c *pageCache) dirtyWithin(from, to, size int64) bool {
	for _, f := range c.within(from, to, size) {
		f.mu.Lock()
		d := f.isDirty() && !f.gone
		f.mu.Unlock()
		if d || !f.wb.TryRLock() {
			return true
		}
		f.wb.RUnlock()
	}
	return false
}

// drop removes the folios wholly within [from, to), dirty or not, waiting for
// their writeback. Of a folio at either edge the part within is zeroed; whether
// that part becomes dirty is not changed.
func (c *pageCache) drop(from, to, size int64) {
	for _, f := range c.within(from, to, size) {
		f.mu.Lock()
		f.wb.Lock()
		off := f.idx * size
		if off >= from && off+size <= to {
			f.gone = true
			c.mu.Lock()
			if c.folios[f.idx] == f {
				delete(c.folios, f.idx)
			}
			c.mu.Unlock()
		} else {
			a, b := max(from-off, 0), min(to-off, size)
			clear(f.data[a:b])
			bs := size / int64(len(f.dirty))
			for i := range f.dirty {
				if lo := int64(i) * bs; lo >= a && lo+bs <= b {
					f.dirty[i] = false
				}
			}
		}
		f.wb.Unlock()
		f.mu.Unlock()
	}
}

// forget removes the folios that overlap [from, to), whose dirty parts must have
// been written back; it reports whether all could go.
func (c *pageCache) forget(from, to, size int64) bool {
	all := true
	for _, f := range c.within(from, to, size) {
		f.mu.Lock()
		f.wb.Lock()
		if f.isDirty() {
			all = false
		} else {
			f.gone = true
			c.mu.Lock()
			if c.folios[f.idx] == f {
				delete(c.folios, f.idx)
			}
			c.mu.Unlock()
		}
		f.wb.Unlock()
		f.mu.Unlock()
	}
	return all
}

func (c *pageCache) dropClean() { c.forget(0, maxLFS, 1<<12) }
