package buffer

import (
	"sync"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// maxRef bounds a buffer's use count, and so the rounds that the hand needs to
// find a victim. A block read once has 0, so that one pass over many blocks
// does not push out those in steady use.
const maxRef = 3

// hash spreads block numbers over shards (high bits) and chains (low bits).
func hash(blk Block) uint64 {
	h := uint64(blk) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}

func (c *Cache) shard(blk Block) *shard { return &c.shards[hash(blk)>>c.sshift] }

func (s *shard) init(n int) { s.table = make([]*Buf, n) }

func (s *shard) chain(blk Block) **Buf { return &s.table[hash(blk)&uint64(len(s.table)-1)] }

func (s *shard) find(blk Block) *Buf {
	b := *s.chain(blk)
	for b != nil && b.blk != blk {
		b = b.next
	}
	return b
}

func (s *shard) add(b *Buf) {
	if len(s.ring) >= len(s.table) {
		s.table = make([]*Buf, 2*len(s.table))
		for _, o := range s.ring {
			p := s.chain(o.blk)
			o.next, *p = *p, o
		}
	}
	p := s.chain(b.blk)
	b.next, *p = *p, b
	b.slot = int32(len(s.ring))
	s.ring = append(s.ring, b)
}

func (s *shard) remove(b *Buf) {
	p := s.chain(b.blk)
	for *p != b {
		p = &(*p).next
	}
	*p = b.next
	b.next = nil
	last := s.ring[len(s.ring)-1]
	s.ring[b.slot], last.slot = last, b.slot
	s.ring[len(s.ring)-1] = nil
	s.ring = s.ring[:len(s.ring)-1]
}

// evict takes an unused buffer out of the shard, which is locked, and returns
// it; nil if all are pinned.
func (s *shard) evict() *Buf {
	for n := len(s.ring) * (maxRef + 1); n > 0; n-- {
		if s.hand >= len(s.ring) {
			s.hand = 0
		}
		b := s.ring[s.hand]
		switch {
		case b.pins.Load() != 0:
		case b.ref > 0:
			b.ref--
		default:
			s.remove(b)
			s.evictions++
			return b
		}
		s.hand++
	}
	return nil
}

// insert adds blk to s, which is locked, pinned and without contents.
func (c *Cache) insert(s *shard, blk Block) (*Buf, error) {
	if err := c.checkRange(blk); err != nil {
		return nil, err
	}
	s.misses++
	b := c.take(s)
	b.blk = blk
	b.ref = 0
	b.ops, b.ctx = nil, Ctx{}
	b.state.Store(0)
	b.pins.Store(1)
	s.add(b)
	return b, nil
}

// take finds memory for one block: free, or evicted from s, which is locked,
// or from another shard. If all is pinned the limit is exceeded.
func (c *Cache) take(s *shard) *Buf {
	if c.count.Load() >= c.max.Load() {
		if b := s.evict(); b != nil {
			if c.count.Load() > c.max.Load() && s.evict() != nil {
				c.count.Add(-1) // left to the garbage collector: the limit was exceeded
			}
			return b
		}
		for i := range c.shards {
			o := &c.shards[i]
			if o == s || !o.mu.TryLock() {
				continue
			}
			b := o.evict()
			o.mu.Unlock()
			if b != nil {
				return b
			}
		}
		if f := c.pressure.Load(); f != nil {
			(*f)()
		}
	}
	c.count.Add(1)
	return c.free.get(c)
}

// release gives back the memory of b, which is in no shard and not pinned.
func (c *Cache) release(b *Buf) {
	c.count.Add(-1)
	c.free.put(b)
}

// SetLimit sets the memory for blocks, in bytes; 0 is DefaultLimit. Unused
// blocks beyond it are dropped at once.
func (c *Cache) SetLimit(limit int64) {
	if limit <= 0 {
		limit = DefaultLimit
	}
	c.max.Store(max(limit>>c.bshift, minBlocks))
	for i := range c.shards {
		s := &c.shards[i]
		for c.count.Load() > c.max.Load() {
			s.mu.Lock()
			b := s.evict()
			s.mu.Unlock()
			if b == nil {
				break
			}
			c.count.Add(-1) // and left to the garbage collector
		}
	}
}

// freelist holds buffers without a block. Their memory is cut from slabs, so
// that it is aligned and the collector sees few objects.
type freelist struct {
	mu   sync.Mutex
	bufs []*Buf
}

const slabBytes = 256 << 10

func (f *freelist) get(c *Cache) *Buf {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.bufs) == 0 {
		n := max(slabBytes/c.bsize, 4)
		mem := blockdev.AlignedBuf(n*c.bsize, max(c.bsize, 512))
		bufs := make([]Buf, n)
		for i := range bufs {
			bufs[i].cache = c
			bufs[i].data = mem[i*c.bsize : (i+1)*c.bsize : (i+1)*c.bsize]
			f.bufs = append(f.bufs, &bufs[i])
		}
	}
	b := f.bufs[len(f.bufs)-1]
	f.bufs = f.bufs[:len(f.bufs)-1]
	return b
}

func (f *freelist) put(b *Buf) {
	f.mu.Lock()
	f.bufs = append(f.bufs, b)
	f.mu.Unlock()
}
