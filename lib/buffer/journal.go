package buffer

import (
	"sync"
	"sync/atomic"
)

// JournalHead is what the journal keeps with a buffer; the kernel's
// journal_head. It belongs to package jbd2, which gives Flags and Tid their
// meaning. To the cache it matters only whether Flags is zero: if not, the
// journal holds the block, and its bytes are not those on the device.
type JournalHead struct {
	sync.Mutex               // below the journal's locks
	Flags      atomic.Uint32 // changed under the Mutex
	Tid        uint32        // guarded by the Mutex
}

// Journal returns the journal's part of b.
func (b *Buf) Journal() *JournalHead { return &b.jh }

// Held tells whether the journal holds b: its contents are not at home yet.
func (b *Buf) Held() bool { return b.jh.Flags.Load() != 0 }

// Changing is called by the journal when b's bytes become free to change. It
// zeroes them if [Cache.New] left that to it.
func (b *Buf) Changing() {
	st := b.state.Load()
	if st&changed == 0 {
		b.state.Or(changed)
	}
	if st&fresh != 0 && b.state.And(^uint32(fresh))&fresh != 0 {
		clear(b.data)
	}
}
