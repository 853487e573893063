package iomappeer

import (
	"slices"
	"sync"
)

// mappingBytes is what a mapping counts against the limit of its fork.
const mappingBytes = 32

// mapCache is an inode's mapping cache: two forks and a sequence number.
type mapCache struct {
	mu    sync.Mutex
	made  bool // an UPSERT has succeeded
	seq   uint64
	read  fork
	write fork
	// hasWrite is false as long as no real write mapping has come: then each
	// write is a pure overwrite of what the read fork says.
	hasWrite bool
	upserts  int64 // that have succeeded
}

// fork is mappings in order that do not overlap.
type fork struct{ maps []Mapping }

func (f *fork) lookup(pos int64) (Mapping, bool) {
	for _, m := range f.maps {
		if m.contains(pos) {
			return m, true
		}
	}
	return Mapping{}, false
}

// remove cuts [from, to) out of the fork.
func (f *fork) remove(from, to uint64) bool {
	var out []Mapping
	changed := false
	for _, m := range f.maps {
		if m.End() <= from || m.Offset >= to {
			out = append(out, m)
			continue
		}
		changed = true
		if m.Offset < from {
			l := m
			l.Length = from - m.Offset
			out = append(out, l)
		}
		if m.End() > to {
			r := m
			r.Offset, r.Length = to, m.End()-to
			if r.Addr != nullAddr {
				r.Addr += to - m.Offset
			}
			out = append(out, r)
		}
	}
	f.maps = out
	return changed
}

// insert puts a mapping in, merged with its neighbours where they continue each
// other. A fork that would grow beyond limit bytes is thrown away first.
func (f *fork) insert(m Mapping, limit int) {
	f.remove(m.Offset, m.End())
	if (len(f.maps)+1)*mappingBytes > limit {
		f.maps = nil
	}
	i, _ := slices.BinarySearchFunc(f.maps, m, func(a, b Mapping) int {
		if a.Offset < b.Offset {
			return -1
		}
		return 1
	})
	f.maps = slices.Insert(f.maps, i, m)
	if i+1 < len(f.maps) && continues(f.maps[i], f.maps[i+1]) {
		f.maps[i].Length += f.maps[i+1].Length
		f.maps = slices.Delete(f.maps, i+1, i+2)
	}
	if i > 0 && continues(f.maps[i-1], f.maps[i]) {
		f.maps[i-1].Length += f.maps[i].Length
		f.maps = slices.Delete(f.maps, i, i+1)
	}
}

// continues reports whether b carries a on, in the file and on the device.
func continues(a, b Mapping) bool {
	if a.End() != b.Offset || a.Type != b.Type || a.Flags != b.Flags || a.Dev != b.Dev {
		return false
	}
	if a.Addr == nullAddr || b.Addr == nullAddr {
		return a.Addr == b.Addr
	}
	return a.Addr+a.Length == b.Addr
}

// lookup finds what an operation would use, as the kernel looks: dst, and for an
// out-of-place write the source.
func (c *mapCache) lookup(prof Profile, op Op, pos int64) (dst, src Mapping, hasSrc, ok bool, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.made {
		return
	}
	seq = c.seq
	if !prof.isWrite(op) {
		dst, ok = c.read.lookup(pos)
		return
	}
	if c.hasWrite {
		w, hit := c.write.lookup(pos)
		if !hit {
			return
		}
		if w.Type != TypePureOverwrite {
			if src, hasSrc = c.read.lookup(pos); !hasSrc {
				return
			}
			dst, ok = w, true
		}
	}
	if !ok {
		if dst, ok = c.read.lookup(pos); !ok {
			return
		}
	}
	if dst.Type == TypeHole && op&(OpZero|OpUnshare) == 0 || dst.Type == TypeDelalloc && op&(OpDirect|OpWriteback) != 0 {
		ok = false
	}
	return
}

// valid reports whether a mapping with the cookie may still be used. Mappings
// from a direct answer have none and cannot be revoked.
func (c *mapCache) valid(cookie uint64) bool {
	if cookie == 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seq == cookie
}

func (c *mapCache) exists() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made
}

// upserted returns how many UPSERTs have succeeded.
func (c *mapCache) upserted() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.upserts
}

// drop removes [from, to) from both forks, as the kernel does by itself.
func (c *mapCache) drop(from, to int64, bs int64) {
	if to <= from {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.made {
		return
	}
	end := uint64(roundUp(to, bs))
	if to > maxLFS-bs {
		end = nullAddr
	}
	c.read.remove(uint64(roundDown(from, bs)), end)
	c.write.remove(uint64(roundDown(from, bs)), end)
	c.seq++
}

func (c *mapCache) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read.maps, c.write.maps, c.made, c.hasWrite = nil, nil, false, false
	c.seq++
}

// snapshot returns the read fork and the sequence number.
func (c *mapCache) snapshot() ([]Mapping, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.read.maps), c.seq
}
