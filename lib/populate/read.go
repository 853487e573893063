package populate

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// chunkSize is how much of a file is read at a time.
const chunkSize = 1 << 20

// readAhead is how many chunks are read before they are written, at most:
// with full ones, as many MiB.
const readAhead = 32

// chunk is a part of a file's data, being read.
type chunk struct {
	path string
	id   nodeID
	size int64 // of the file
	at   int64 // node.at of the file
	blob blob
	s    seg
	f    *openFile
	last bool // of the file
	buf  []byte
	pool *sync.Pool
	err  error
	done chan struct{}
}

// openFile is a file that several chunks are read from.
type openFile struct {
	once sync.Once
	r    reader
	err  error
	left int // guarded by mu: chunks that were not read
	mu   sync.Mutex
}

// prefetcher reads the data of files ahead of the writer, in the writer's order.
type prefetcher struct {
	order chan *chunk // as the writer wants them
	work  chan *chunk
	wg    sync.WaitGroup
	t     *Tree
	stop  context.CancelFunc
	ctx   context.Context
	err   error // of the tree; guarded by order's being closed
}

var bufPools = [...]struct {
	size int
	pool *sync.Pool
}{{16 << 10, newPool(16 << 10)}, {128 << 10, newPool(128 << 10)}, {chunkSize, newPool(chunkSize)}}

func newPool(n int) *sync.Pool {
	return &sync.Pool{New: func() any { b := blockdev.AlignedBuf(n, 4096); return &b }}
}

// prefetch begins to read the files of t. stop ends it.
func prefetch(ctx context.Context, t *Tree) *prefetcher {
	p := &prefetcher{t: t, order: make(chan *chunk, readAhead), work: make(chan *chunk, readAhead)}
	p.ctx, p.stop = context.WithCancel(ctx)
	p.wg.Go(func() {
		defer close(p.order)
		defer close(p.work)
		p.err = t.walk(func(path trail, id nodeID, n *node, first bool) error {
			if !first || !n.isReg() {
				return interrupted(p.ctx)
			}
			return p.file(path, id, n)
		})
	})
	for range workers(t.opt.Workers) {
		p.wg.Go(func() {
			for c := range p.work {
				c.read(p.ctx)
				close(c.done)
			}
		})
	}
	return p
}

func (p *prefetcher) close() {
	p.stop()
	go func() {
		for range p.order {
		}
	}()
	p.wg.Wait()
}

// file queues the chunks of one file.
func (p *prefetcher) file(path trail, id nodeID, n *node) error {
	total := 0
	err := p.t.data(n, func(s seg) error {
		total += int((s.off%chunkSize + s.n + chunkSize - 1) / chunkSize)
		return nil
	})
	if err != nil || total == 0 {
		return err
	}
	f := &openFile{left: total}
	name := path.String()
	return p.t.data(n, func(s seg) error {
		for s.n > 0 {
			k := min(s.n, chunkSize-s.off%chunkSize)
			total--
			c := &chunk{path: name, id: id, size: n.size, at: n.at, blob: p.t.blobs[n.blob-1], s: seg{s.off, k, s.at}, f: f, last: total == 0, done: make(chan struct{})}
			select {
			case p.order <- c:
			case <-p.ctx.Done():
				_ = f.done(total + 1) // what is read of it is not used
				return interrupted(p.ctx)
			}
			p.work <- c // has room when order has
			s = seg{s.off + k, s.n - k, s.at + k}
		}
		return nil
	})
}

// read fills the chunk.
func (c *chunk) read(ctx context.Context) {
	f := c.f
	f.once.Do(func() { f.r, f.err = c.blob.open(c.path, c.size, c.at) })
	err := f.err
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		for _, b := range bufPools {
			if c.s.n <= int64(b.size) {
				c.pool = b.pool
				c.buf = (*b.pool.Get().(*[]byte))[:c.s.n]
				break
			}
		}
		var k int
		if k, err = f.r.ReadAt(c.buf, c.s.at); err == io.EOF && k == len(c.buf) {
			err = nil
		}
	}
	if e := f.done(1); err == nil {
		err = e
	}
	if err != nil {
		c.err = fmt.Errorf("reading it: %w", err)
	}
}

// done says that n chunks will not be read any more; with the last one the file
// is closed.
func (f *openFile) done(n int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left -= n; f.left > 0 || f.r == nil {
		return nil
	}
	return f.r.Close()
}

// free gives the memory back.
func (c *chunk) free() {
	if c.pool != nil {
		b := c.buf[:cap(c.buf)]
		c.pool.Put(&b)
		c.buf, c.pool = nil, nil
	}
}

var zeros [4096]byte

// nonZero calls f with the ranges of p, which lies at off of a file, that are
// not blocks of zeros, with their place in p. A block that p has a part of only
// counts as that part.
func nonZero(p []byte, off int64, block int, f func(from, to int) error) error {
	start := -1
	for i := 0; i < len(p); {
		j := min(len(p), i+block-int((off+int64(i))%int64(block)))
		if isZero(p[i:j]) {
			if start >= 0 {
				if err := f(start, i); err != nil {
					return err
				}
				start = -1
			}
		} else if start < 0 {
			start = i
		}
		i = j
	}
	if start >= 0 {
		return f(start, len(p))
	}
	return nil
}

func isZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}
