package buffer

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// Options are the parameters of a [Cache].
type Options struct {
	BlockSize int   // bytes, a power of two from 512 to 65536
	Limit     int64 // bytes of memory for blocks; 0 is DefaultLimit
}

// DefaultLimit is the memory a cache may use if it is not told, in bytes.
const DefaultLimit = 32 << 20

// minBlocks is the fewest blocks that a cache may hold, whatever its limit: an
// operation pins several at once.
const minBlocks = 64

// Cache is a device's metadata blocks.
type Cache struct {
	dev    blockdev.Device
	bsize  int
	bshift uint // log2 of bsize

	shards []shard
	sshift uint // 64 minus log2 of len(shards)

	max   atomic.Int64 // blocks
	count atomic.Int64 // blocks in the shards, and detached ones

	pressure atomic.Pointer[func()]
	free     freelist
}

// New returns an empty cache of dev. It panics if o.BlockSize is none.
func New(dev blockdev.Device, o Options) *Cache {
	if o.BlockSize < 512 || o.BlockSize > 65536 || o.BlockSize&(o.BlockSize-1) != 0 {
		panic(fmt.Sprintf("buffer: block size %d", o.BlockSize))
	}
	c := &Cache{dev: dev, bsize: o.BlockSize, bshift: uint(bits.TrailingZeros(uint(o.BlockSize)))}
	c.shards = make([]shard, 32)
	c.sshift = 64 - uint(bits.TrailingZeros(uint(len(c.shards))))
	for i := range c.shards {
		c.shards[i].init(64)
	}
	c.SetLimit(o.Limit)
	return c
}

// BlockSize returns the size of a block, in bytes.
func (c *Cache) BlockSize() int { return c.bsize }

// Device returns the device below.
func (c *Cache) Device() blockdev.Device { return c.dev }

// OnPressure sets the function that is called, from any goroutine and with
// pins held, when the cache has to exceed its limit because what it holds is
// pinned. It must not block, nor call the cache.
func (c *Cache) OnPressure(f func()) {
	if f == nil {
		c.pressure.Store(nil)
		return
	}
	c.pressure.Store(&f)
}

// Read returns blk, pinned and verified as ops. A block that is cached as
// another kind, or for another owner, is verified again; if it has changes that
// are not at home yet, that is an error, for no block has two meanings.
func (c *Cache) Read(blk Block, ops Ops, ctx Ctx) (*Buf, error) {
	s := c.shard(blk)
	s.mu.Lock()
	if b := s.find(blk); b != nil {
		b.pins.Add(1)
		if b.ref < maxRef {
			b.ref++
		}
		if b.state.Load()&uptodate != 0 && b.is(ops, &ctx) {
			s.hits++
			s.mu.Unlock()
			return b, nil
		}
		s.mu.Unlock()
		return c.load(b, ops, ctx)
	}
	b, err := c.insert(s, blk)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return c.load(b, ops, ctx)
}

// Raw returns blk, pinned and read, but not verified as anything.
func (c *Cache) Raw(blk Block) (*Buf, error) {
	b, err := c.get(blk)
	if err != nil {
		return nil, err
	}
	if b.state.Load()&uptodate != 0 {
		return b, nil
	}
	return c.load(b, nil, Ctx{})
}

// New returns blk, pinned, as a block of kind ops whose bytes are zero. The
// device is not read, and what was cached is replaced. If the journal still
// holds the block, the bytes become zero when it next joins a transaction.
func (c *Cache) New(blk Block, ops Ops, ctx Ctx) (*Buf, error) {
	b, err := c.get(blk)
	if err != nil {
		return nil, err
	}
	b.fill.Lock()
	defer b.fill.Unlock()
	set := uint32(uptodate | changed)
	if b.Held() {
		set |= fresh
	} else {
		clear(b.data)
	}
	b.SetKind(ops, ctx)
	b.state.Or(set)
	return b, nil
}

// Peek returns blk, pinned, if it is cached with contents, else nil.
func (c *Cache) Peek(blk Block) *Buf {
	s := c.shard(blk)
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.find(blk)
	if b == nil || b.state.Load()&uptodate == 0 {
		return nil
	}
	b.pins.Add(1)
	return b
}

// Forget drops what is cached of the n blocks from blk on: they are not
// metadata any more, or were changed below the cache. Who has one pinned keeps
// his copy. Blocks that the journal holds stay: the journal forgets them.
func (c *Cache) Forget(blk Block, n uint64) {
	if n > uint64(c.count.Load()) {
		for i := range c.shards {
			s := &c.shards[i]
			s.mu.Lock()
			for k := len(s.ring) - 1; k >= 0; k-- {
				if b := s.ring[k]; b.blk >= blk && uint64(b.blk-blk) < n {
					c.forgetLocked(s, b)
				}
			}
			s.mu.Unlock()
		}
		return
	}
	for ; n > 0; n-- {
		s := c.shard(blk)
		s.mu.Lock()
		if b := s.find(blk); b != nil {
			c.forgetLocked(s, b)
		}
		s.mu.Unlock()
		blk++
	}
}

// Drop takes b, which the caller has pinned, out of the cache: the next look-up
// of its block reads the device. b itself lives until its last pin goes.
func (c *Cache) Drop(b *Buf) {
	s := c.shard(b.blk)
	s.mu.Lock()
	if b.pins.Load() < detached {
		s.remove(b)
		b.pins.Add(detached)
	}
	s.mu.Unlock()
}

func (c *Cache) forgetLocked(s *shard, b *Buf) {
	if b.Held() {
		return
	}
	s.remove(b)
	if b.pins.Add(detached) == detached {
		c.release(b)
	}
}

// get returns blk pinned, whether or not it has contents.
func (c *Cache) get(blk Block) (*Buf, error) {
	s := c.shard(blk)
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.find(blk); b != nil {
		b.pins.Add(1)
		if b.ref < maxRef {
			b.ref++
		}
		s.hits++
		return b, nil
	}
	return c.insert(s, blk)
}

// load gives b its contents and, if ops is not nil, its kind. It consumes the
// pin if it fails.
func (c *Cache) load(b *Buf, ops Ops, ctx Ctx) (*Buf, error) {
	b.fill.Lock()
	err := c.loadLocked(b, ops, ctx)
	b.fill.Unlock()
	if err != nil {
		b.Put()
		return nil, err
	}
	return b, nil
}

func (c *Cache) loadLocked(b *Buf, ops Ops, ctx Ctx) error {
	if b.state.Load()&uptodate == 0 {
		if _, err := c.dev.ReadAt(b.data, int64(b.blk)<<c.bshift); err != nil {
			return fmt.Errorf("read block %d: %w", b.blk, err)
		}
		b.state.Or(uptodate)
	}
	if ops == nil {
		return nil
	}
	s := c.shard(b.blk)
	s.mu.Lock()
	was, wasCtx, same := b.ops, b.ctx, b.is(ops, &ctx)
	s.mu.Unlock()
	if same {
		return nil
	}
	data := b.data
	if was != nil {
		if b.Held() {
			return fmt.Errorf("block %d is %s of inode %d, and not at home yet; it cannot be %s of inode %d: %w",
				b.blk, was.Name(), wasCtx.Ino, ops.Name(), ctx.Ino, EUCLEAN)
		}
		if b.state.Load()&changed != 0 {
			data = make([]byte, c.bsize)
			copy(data, b.data)
			was.Seal(data, b.blk, wasCtx)
		}
	}
	if err := ops.Verify(data, b.blk, ctx); err != nil {
		return err
	}
	s.mu.Lock()
	b.ops, b.ctx = ops, ctx
	s.mu.Unlock()
	return nil
}

var errPastEnd = errors.New("block is past the end of the device")

// checkRange fails if blk does not lie on the device.
func (c *Cache) checkRange(blk Block) error {
	if blk >= Block(uint64(c.dev.Size())>>c.bshift) {
		return fmt.Errorf("block %d: %w (%w)", blk, errPastEnd, EUCLEAN)
	}
	return nil
}

// Stats are the counts of a [Cache] since it was made.
type Stats struct {
	Hits, Misses, Evictions uint64
	Blocks, MaxBlocks       int64 // in memory now, and allowed
}

// Stats returns the counts.
func (c *Cache) Stats() Stats {
	st := Stats{Blocks: c.count.Load(), MaxBlocks: c.max.Load()}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		st.Hits += s.hits
		st.Misses += s.misses
		st.Evictions += s.evictions
		s.mu.Unlock()
	}
	return st
}

// shard is a part of the cache with a lock of its own.
type shard struct {
	mu    sync.Mutex
	table []*Buf // heads of the hash chains; a power of two of them
	ring  []*Buf // every buffer of the shard, in the order the hand visits
	hand  int

	hits, misses, evictions uint64
	_                       [64]byte // two locks never share a cache line
}
