package buffer

import (
	"sync"
	"sync/atomic"
)

// Block is a block number on the device, in blocks of the cache's size.
type Block uint64

// Ops says what a block is, and so how it is checked. There is one value for
// each kind of block; values are compared to see whether two kinds are one, so
// they are comparable, and without state.
type Ops interface {
	// Name returns the kind's name, for messages.
	Name() string
	// Verify checks data, read from blk, before anyone sees it as this kind.
	Verify(data []byte, blk Block, ctx Ctx) error
	// Seal sets the checksum in data, a copy of blk that is about to leave memory.
	Seal(data []byte, blk Block, ctx Ctx)
}

// Ctx is what the checks of a block need to know of its owner. Two contexts
// are the same if Seed and Ino are.
type Ctx struct {
	Seed uint32 // the checksum's start
	Ino  uint32 // the owner, 0 if it is the file system
	Aux  any    // whatever else the kind needs; it must not change
}

const ( // Buf.state
	uptodate = 1 << iota // data has the block's contents
	changed              // data was changed here, so its checksum may be old
	fresh                // zero data when it next joins a transaction
)

// detached, in Buf.pins, says that the buffer is no longer in the cache. It is
// in that word so that exactly one of those who let go sees it alone there, and
// so that no one looks at a buffer after giving up his last pin.
const detached = 1 << 40

// Buf is a cached block.
type Buf struct {
	blk   Block  // constant while pinned
	data  []byte // the slice is immutable; who may change its bytes: see jbd2
	cache *Cache

	pins  atomic.Int64
	state atomic.Uint32

	ref  uint8 // guarded by the shard's mu: recent use, for eviction
	slot int32 // guarded by the shard's mu: place in its ring
	next *Buf  // guarded by the shard's mu: hash chain
	ops  Ops   // guarded by the shard's mu: the kind data was verified as, or nil
	ctx  Ctx   // guarded by the shard's mu

	fill sync.Mutex // held to read or verify data

	jh JournalHead
}

// Block returns the block's number.
func (b *Buf) Block() Block { return b.blk }

// Data returns the block's bytes, in place. They are valid while b is pinned,
// and change only inside a transaction.
func (b *Buf) Data() []byte { return b.data }

// Pin adds a pin; the caller already has one.
func (b *Buf) Pin() { b.pins.Add(1) }

// Put takes back one pin.
func (b *Buf) Put() {
	switch n := b.pins.Add(-1); {
	case n == detached:
		b.cache.release(b)
	case n < 0:
		panic("buffer: Put of a buffer that is not pinned")
	}
}

// Ops returns the kind the block was verified or created as, nil if none.
func (b *Buf) Ops() Ops {
	ops, _ := b.kind()
	return ops
}

// SetKind says that the block is of kind ops from here on, without a check.
// The caller has joined it to a transaction and gives it its contents.
func (b *Buf) SetKind(ops Ops, ctx Ctx) {
	s := b.cache.shard(b.blk)
	s.mu.Lock()
	b.ops, b.ctx = ops, ctx
	s.mu.Unlock()
}

func (b *Buf) kind() (Ops, Ctx) {
	s := b.cache.shard(b.blk)
	s.mu.Lock()
	defer s.mu.Unlock()
	return b.ops, b.ctx
}

// is tells whether b was verified as ops for ctx. The shard is locked.
func (b *Buf) is(ops Ops, ctx *Ctx) bool {
	return b.ops == ops && b.ctx.Seed == ctx.Seed && b.ctx.Ino == ctx.Ino
}

// SealTo copies the block to dst, of the block's size, and sets the copy's
// checksum. No one may be changing the block.
func (b *Buf) SealTo(dst []byte) {
	copy(dst, b.data)
	if ops, ctx := b.kind(); ops != nil {
		ops.Seal(dst[:len(b.data):len(b.data)], b.blk, ctx)
	}
}
