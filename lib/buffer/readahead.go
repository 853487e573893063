package buffer

import (
	"sync"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// maxReadahead is the most that one device read of Readahead brings, in bytes.
const maxReadahead = 1 << 20

var readaheadPool = sync.Pool{New: func() any {
	p := blockdev.AlignedBuf(maxReadahead, 4096)
	return &p
}}

// Readahead brings those of the n blocks from blk on that are not cached into
// memory, with few large reads, and returns when they are there. It is a hint:
// errors are left to the Read that follows, as is verification. It brings no
// more than a quarter of the cache's limit.
func (c *Cache) Readahead(blk Block, n int) {
	if end := uint64(c.dev.Size()) >> c.bshift; uint64(blk) >= end {
		return
	} else if uint64(n) > end-uint64(blk) {
		n = int(end - uint64(blk))
	}
	n = min(n, int(c.max.Load()/4))
	bufs := make([]*Buf, 0, min(n, maxReadahead>>c.bshift))
	for ; n > 0; n-- {
		if b := c.claim(blk); b != nil {
			bufs = append(bufs, b)
		} else {
			c.readRun(bufs)
			bufs = bufs[:0]
		}
		if len(bufs) == cap(bufs) {
			c.readRun(bufs)
			bufs = bufs[:0]
		}
		blk++
	}
	c.readRun(bufs)
}

// claim inserts blk, pinned and with fill held, or returns nil if it is cached.
func (c *Cache) claim(blk Block) *Buf {
	s := c.shard(blk)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.find(blk) != nil {
		return nil
	}
	b, err := c.insert(s, blk)
	if err != nil {
		return nil
	}
	b.fill.Lock() // free: no one else has seen b
	return b
}

// readRun fills bufs, adjacent blocks, and lets go of them.
func (c *Cache) readRun(bufs []*Buf) {
	if len(bufs) == 0 {
		return
	}
	p := readaheadPool.Get().(*[]byte)
	mem := (*p)[:len(bufs)<<c.bshift]
	_, err := c.dev.ReadAt(mem, int64(bufs[0].blk)<<c.bshift)
	for i, b := range bufs {
		if err == nil {
			copy(b.data, mem[i<<c.bshift:])
			b.state.Or(uptodate)
		}
		b.fill.Unlock()
		b.Put()
	}
	readaheadPool.Put(p)
}
