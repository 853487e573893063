package jbd2

import (
	"sync"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// chunkBytes is the size of the buffers that blocks are copied to, and of the
// largest single write.
const chunkBytes = 1 << 20

// keepChunks is how many unused ones are kept.
const keepChunks = 8

// chunkPool has buffers for staging.
type chunkPool struct {
	mu     sync.Mutex
	bsize  int
	blocks int // in a chunk
	free   [][]byte
}

func (p *chunkPool) init(bsize int) { p.bsize, p.blocks = bsize, chunkBytes/bsize }

func (p *chunkPool) get() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		c := p.free[n-1]
		p.free = p.free[:n-1]
		return c
	}
	return blockdev.AlignedBuf(chunkBytes, max(p.bsize, 4096))
}

func (p *chunkPool) put(cs ...[]byte) {
	p.mu.Lock()
	for _, c := range cs {
		if len(p.free) < keepChunks {
			p.free = append(p.free, c)
		}
	}
	p.mu.Unlock()
}

// staging is a row of blocks, in memory that is contiguous chunk by chunk.
type staging struct {
	pool   *chunkPool
	chunks [][]byte
}

// block returns block i, with whatever was there.
func (s *staging) block(i int) []byte {
	k := i / s.pool.blocks
	for k >= len(s.chunks) {
		s.chunks = append(s.chunks, s.pool.get())
	}
	off := i % s.pool.blocks * s.pool.bsize
	return s.chunks[k][off : off+s.pool.bsize : off+s.pool.bsize]
}

// piece returns the longest contiguous memory of blocks i and on, at most n
// blocks.
func (s *staging) piece(i, n int) []byte {
	off := i % s.pool.blocks
	n = min(n, s.pool.blocks-off)
	return s.chunks[i/s.pool.blocks][off*s.pool.bsize : (off+n)*s.pool.bsize]
}

func (s *staging) release() {
	s.pool.put(s.chunks...)
	s.chunks = s.chunks[:0]
}
