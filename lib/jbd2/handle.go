package jbd2

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/e2kit/e2kit/lib/buffer"
)

// Flags of a buffer's JournalHead.
const (
	bufRunning    = 1 << iota // joined the running transaction
	bufDirty                  // and changed there
	bufForgot                 // and stops being metadata with it
	bufFresh                  // and nothing durable points to it
	bufCommitting             // its copy is being committed
	bufCheckpoint             // committed by transaction Tid, and not at home
)

// Tx is a transaction.
type Tx struct {
	j   *Journal
	tid Tid

	locked   bool // guarded by j.mu: takes no handles
	idle     bool // guarded by j.mu: was found empty by a commit, has no deadline
	handles  int  // guarded by j.mu: open
	reserved int  // guarded by j.mu: blocks used or promised

	ndirty atomic.Int32 // buffers that changed

	mu      sync.Mutex
	bufs    []*buffer.Buf       // guarded by mu: joined; one pin each
	revoked map[uint64]struct{} // guarded by mu
	done    []func()            // guarded by mu: to run once durable

	own Handle // Precommit's

	logStart uint32 // set by the commit: first block in the log
	logLen   uint32
	forgot   []*buffer.Buf // set by the commit: those of bufs that are forgotten
}

// Tid returns the transaction's number.
func (tx *Tx) Tid() Tid { return tx.tid }

// Handle returns the handle by which Precommit changes blocks. It is valid
// until Precommit returns, and is not stopped.
func (tx *Tx) Handle() *Handle { return &tx.own }

// Handle is one operation's part in a transaction. It belongs to one goroutine
// and is not used after Stop.
type Handle struct {
	// Sync asks Stop to commit and to wait until that is durable.
	Sync bool

	j       *Journal
	tx      *Tx // nil after a Restart that failed
	credits int
	now     time.Time // zero until Now
	next    *Handle   // guarded by j.mu: free list
}

// Start opens a handle that will change at most credits blocks, in the running
// transaction or a new one. It waits while a commit locks the transaction, and
// while the log is full; the caller has no other handle open. It fails with
// EROFS after an abort, and with ErrTooLarge.
func (j *Journal) Start(credits int) (*Handle, error) {
	j.mu.Lock()
	tx, err := j.joinLocked(credits)
	if err != nil {
		j.mu.Unlock()
		return nil, err
	}
	h := j.handles
	if h != nil {
		j.handles = h.next
	} else {
		h = &Handle{j: j}
	}
	j.mu.Unlock()
	h.tx, h.credits, h.Sync, h.now = tx, credits, false, time.Time{}
	return h, nil
}

// Now returns the time at which the operation happens: that of the first call.
func (h *Handle) Now() time.Time {
	if h.now.IsZero() {
		h.now = h.j.cfg.Now()
	}
	return h.now
}

// joinLocked adds a handle to the running transaction. j.mu is held, but let go
// while it waits.
func (j *Journal) joinLocked(credits int) (*Tx, error) {
	if credits+j.cfg.PrecommitCredits > j.maxTx {
		if j.maxTx == 0 {
			return nil, errNotLoaded
		}
		return nil, ErrTooLarge
	}
	stuck := 0
	for {
		if err := j.check(); err != nil {
			return nil, err
		}
		if j.closed {
			return nil, errClosed
		}
		if j.barrier > 0 || j.running != nil && j.running.locked {
			j.cond.Wait()
			continue
		}
		tx := j.running
		reserved := j.cfg.PrecommitCredits
		if tx != nil {
			reserved = tx.reserved
		}
		if tx != nil && reserved+credits > j.maxTx {
			// One that is over-committed by its own handles is done by the
			// committer, since our caller may hold locks that Committed wants.
			j.askCommitLocked()
			j.cond.Wait()
			continue
		}
		if !j.none && j.logNeed(reserved+credits) > j.free {
			if stuck++; stuck > 1000 {
				return nil, ErrTooLarge
			}
			j.mu.Unlock()
			err := j.makeSpace(stuck)
			j.mu.Lock()
			if err != nil {
				return nil, err
			}
			continue
		}
		if tx == nil {
			tx = j.newTxLocked()
		}
		if tx.idle {
			tx.idle = false
			j.arm()
		}
		tx.handles++
		tx.reserved += credits
		return tx, nil
	}
}

var errNotLoaded error = &errnoError{"journal is not loaded", syscall.EROFS}

// newTxLocked begins the next transaction.
func (j *Journal) newTxLocked() *Tx {
	var tx *Tx
	if n := len(j.txs); n > 0 {
		tx = j.txs[n-1]
		j.txs = j.txs[:n-1]
	} else {
		tx = &Tx{j: j, revoked: make(map[uint64]struct{})}
		tx.own.j = j
	}
	if n := len(j.lists); tx.bufs == nil && n > 0 {
		tx.bufs = j.lists[n-1]
		j.lists = j.lists[:n-1]
	}
	tx.tid = j.nextTid
	j.nextTid++
	tx.locked = false
	tx.idle = true // joinLocked arms the timer
	tx.handles = 0
	tx.reserved = j.cfg.PrecommitCredits
	tx.own.tx = tx
	tx.own.credits = 0
	j.running = tx
	return tx
}

// arm starts the interval after which the running transaction is committed.
func (j *Journal) arm() {
	if j.cfg.Interval > 0 {
		j.timer.Reset(j.cfg.Interval)
	}
}

// logNeed returns how many blocks of the log a transaction of n blocks takes at
// most, with some room for revoke records beyond the credits.
func (j *Journal) logNeed(n int) uint32 {
	return uint32(n + n/j.format.tagsPerBlock() + 3 + min(64, int(j.last-j.first)/32))
}

// Tid returns the number of the handle's transaction.
func (h *Handle) Tid() Tid {
	if h.tx == nil {
		return h.j.Running()
	}
	return h.tx.tid
}

// Journal returns the journal.
func (h *Handle) Journal() *Journal { return h.j }

// Credits returns how many more blocks the handle may change.
func (h *Handle) Credits() int { return h.credits }

// Extend adds n credits. It does not wait: if the transaction cannot grow, or a
// commit is waiting for it, it fails with ErrNoCredits, and the caller brings
// its changes to a consistent state and calls Restart.
func (h *Handle) Extend(n int) error {
	j := h.j
	if err := j.check(); err != nil {
		return err
	}
	if h.tx == nil {
		return errClosed
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	tx := h.tx
	if tx.locked || tx.reserved+n > j.maxTx || !j.none && j.logNeed(tx.reserved+n) > j.free {
		return ErrNoCredits
	}
	tx.reserved += n
	h.credits += n
	return nil
}

// Restart ends the handle's part in its transaction and starts again with n
// credits, perhaps in another one: the changes before and after may be
// separated by a crash. If it fails the handle can only be stopped.
func (h *Handle) Restart(n int) error {
	if h.tx == nil {
		return h.j.check()
	}
	j := h.j
	j.mu.Lock()
	defer j.mu.Unlock()
	j.leaveLocked(h)
	tx, err := j.joinLocked(n)
	if err != nil {
		return err
	}
	h.tx, h.credits = tx, n
	return nil
}

// leaveLocked takes h out of its transaction.
func (j *Journal) leaveLocked(h *Handle) {
	tx := h.tx
	tx.reserved -= h.credits // more, if it used more than it asked for
	tx.handles--
	if tx.handles == 0 && (tx.locked || j.barrier > 0) {
		j.cond.Broadcast()
	}
	if tx.reserved > j.maxTx*3/4 && !tx.locked {
		j.askCommitLocked() // before someone has to wait for room
	}
	h.tx, h.credits = nil, 0
}

// Stop closes the handle. With Sync set it commits and waits. It fails if the
// journal has aborted.
func (h *Handle) Stop() error {
	j, sync := h.j, h.Sync
	j.mu.Lock()
	var tid Tid
	if h.tx != nil {
		tid = h.tx.tid
		j.leaveLocked(h)
	} else {
		sync = false
	}
	h.next = j.handles
	j.handles = h
	j.mu.Unlock()
	if sync {
		return j.CommitSync(tid)
	}
	return j.check()
}

// GetWrite makes b, pinned by the caller, part of the transaction: until Stop
// its bytes may change.
func (h *Handle) GetWrite(b *buffer.Buf) error {
	if a := h.j.abort.Load(); a != nil {
		return a.err
	}
	// While our handle is open the transaction keeps its buffers, so the flag
	// cannot go away under us.
	if b.Journal().Flags.Load()&(bufRunning|bufForgot) == bufRunning {
		b.Changing()
		return nil
	}
	return h.join(b)
}

// GetCreate is GetWrite for a block that [buffer.Cache.New] returned: nothing
// of what it held before counts, and nothing that is on the device points to it.
func (h *Handle) GetCreate(b *buffer.Buf) error {
	err := h.GetWrite(b)
	if err == nil {
		b.Journal().Flags.Or(bufFresh)
	}
	return err
}

func (h *Handle) join(b *buffer.Buf) error {
	tx := h.tx
	if tx == nil {
		return errClosed
	}
	jh := b.Journal()
	jh.Lock()
	fl := jh.Flags.Load()
	if fl&bufRunning == 0 {
		b.Pin()
		jh.Flags.Or(bufRunning)
		tx.mu.Lock()
		tx.bufs = append(tx.bufs, b)
		if len(tx.revoked) > 0 {
			delete(tx.revoked, uint64(b.Block()))
		}
		tx.mu.Unlock()
	} else if fl&bufForgot != 0 {
		jh.Flags.And(^uint32(bufForgot))
		tx.mu.Lock()
		delete(tx.revoked, uint64(b.Block()))
		tx.mu.Unlock()
	}
	jh.Unlock()
	b.Changing()
	return nil
}

// Dirty says that b, given to GetWrite before, changes in this transaction and
// has to be logged.
func (h *Handle) Dirty(b *buffer.Buf) {
	jh := b.Journal()
	fl := jh.Flags.Load()
	if fl&bufDirty != 0 {
		return
	}
	if fl&bufRunning == 0 || h.tx == nil {
		if h.j.abort.Load() != nil {
			return
		}
		panic("jbd2: Dirty without GetWrite")
	}
	if jh.Flags.Or(bufDirty)&bufDirty == 0 {
		h.credits--
		h.tx.ndirty.Add(1)
	}
}

// Forget says that b, pinned by the caller, stops being metadata with this
// transaction: its changes are not logged, older copies in the log are revoked,
// and once the transaction has committed the block leaves the cache, and is
// never written home again.
func (h *Handle) Forget(b *buffer.Buf) {
	tx := h.tx
	if tx == nil {
		return
	}
	jh := b.Journal()
	jh.Lock()
	fl := jh.Flags.Or(bufRunning | bufForgot)
	tx.mu.Lock()
	if fl&bufRunning == 0 {
		b.Pin()
		tx.bufs = append(tx.bufs, b)
	}
	h.revokeLocked(uint64(b.Block()))
	tx.mu.Unlock()
	jh.Unlock()
}

// Revoke is Forget by number: it works whether or not the block is cached.
func (h *Handle) Revoke(blk uint64) {
	if h.tx == nil {
		return
	}
	if b := h.j.cfg.Cache.Peek(buffer.Block(blk)); b != nil {
		h.Forget(b)
		b.Put()
		return
	}
	h.tx.mu.Lock()
	h.revokeLocked(blk)
	h.tx.mu.Unlock()
}

// revokeLocked records a revoke, at a credit for each block of them. tx.mu is
// held.
func (h *Handle) revokeLocked(blk uint64) {
	tx := h.tx
	n := len(tx.revoked)
	tx.revoked[blk] = struct{}{}
	if !h.j.none && len(tx.revoked) > n && n%h.j.format.revokesPerBlock() == 0 {
		h.credits--
	}
}

// OnCommit has fn called when the transaction is durable, after Committed and
// under its rules. It is not called if the journal aborts before.
func (h *Handle) OnCommit(fn func()) {
	if h.tx == nil {
		return
	}
	h.tx.mu.Lock()
	h.tx.done = append(h.tx.done, fn)
	h.tx.mu.Unlock()
}
