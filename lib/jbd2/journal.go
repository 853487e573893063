package jbd2

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
)

// Journal is the journal of one file system.
type Journal struct {
	cfg    Config          // immutable
	dev    blockdev.Device // immutable
	fsdev  blockdev.Device // immutable
	bsize  int             // immutable
	none   bool            // immutable: there is no log
	loaded bool            // immutable after Load
	maps   mapping

	// Set by Open and Load, constant while handles can be open.
	total       uint32 // blocks of the log, fast commit area included
	first, last uint32 // the log proper is [first, last)
	v1          bool
	format      format
	maxTx       int // blocks of a transaction
	recovered   bool

	cpMu   sync.Mutex // held during a checkpoint
	cpList []homeBuf  // guarded by cpMu: memory for it
	homeMu sync.Mutex // held while copies of committed blocks are written home

	sbMu sync.Mutex
	sb   []byte // guarded by sbMu: the superblock's block

	mu            sync.Mutex
	cond          sync.Cond       // on mu: the state below changed
	running       *Tx             // guarded by mu: takes handles, or is locked
	committing    *Tx             // guarded by mu: is being written
	busy          bool            // guarded by mu: someone commits, or keeps commits out
	barrier       int             // guarded by mu: no handle starts while it is not 0
	closed        bool            // guarded by mu
	nextTid       Tid             // guarded by mu: of the next new transaction
	lastCommitted Tid             // guarded by mu
	head          uint32          // guarded by mu: block of the log that is written next
	free          uint32          // guarded by mu: blocks of the log
	flushed       bool            // guarded by mu: s_start on disk is 0
	cp            []*cpTx         // guarded by mu: committed and not all at home, oldest first
	handles       *Handle         // guarded by mu: free handles
	txs           []*Tx           // guarded by mu: free transactions
	timer         *time.Timer     // immutable once started
	lists         [][]*buffer.Buf // guarded by mu: free lists of buffers

	askedTid Tid         // guarded by mu: the committer is asked to commit it
	pressure atomic.Bool // memory is short: commit, and write home
	wantHome atomic.Bool // the checkpointer is asked to write home

	abort atomic.Pointer[aborted]

	chunks chunkPool

	kickCommit chan struct{}
	kickHome   chan struct{}
	stop       chan struct{}
	workers    sync.WaitGroup
}

func newJournal(cfg Config) (*Journal, error) {
	if cfg.FSDev == nil {
		cfg.FSDev = cfg.Dev
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.PrecommitCredits == 0 {
		cfg.PrecommitCredits = DefaultPrecommitCredits
	}
	bs := cfg.BlockSize
	if bs < 1024 || bs > 65536 || bs&(bs-1) != 0 {
		return nil, fmt.Errorf("journal block size %d: %w", bs, syscall.EINVAL)
	}
	if cfg.Cache != nil && cfg.Cache.BlockSize() != bs {
		return nil, fmt.Errorf("journal block size %d, cache block size %d: %w", bs, cfg.Cache.BlockSize(), syscall.EINVAL)
	}
	j := &Journal{
		cfg: cfg, dev: cfg.Dev, fsdev: cfg.FSDev, bsize: bs,
		kickCommit: make(chan struct{}, 1),
		kickHome:   make(chan struct{}, 1),
		stop:       make(chan struct{}),
	}
	j.cond.L = &j.mu
	j.chunks.init(bs)
	return j, nil
}

// Open reads the journal superblock and checks it. Nothing is written. It fails
// with a CorruptError, an UnsupportedError or the device's error.
func Open(cfg Config) (*Journal, error) {
	j, err := newJournal(cfg)
	if err != nil {
		return nil, err
	}
	if err := j.readSuper(); err != nil {
		return nil, err
	}
	// A log without transactions still tells which numbers have been used.
	j.nextTid = Tid(j.super().Sequence.Get()) + 1
	return j, nil
}

// OpenNone returns a journal without a log, for a file system that has none:
// the same handles and transactions, whose commits write home. Of cfg, Dev,
// Cache and BlockSize must be set. It is ready for Start.
func OpenNone(cache *buffer.Cache, cfg Config) (*Journal, error) {
	cfg.Cache = cache
	cfg.BlockSize = cache.BlockSize()
	if cfg.Dev == nil {
		cfg.Dev = cache.Device()
	}
	if cfg.FSDev == nil {
		cfg.FSDev = cfg.Dev
	}
	j, err := newJournal(cfg)
	if err != nil {
		return nil, err
	}
	j.none = true
	j.nextTid = 1
	j.setMaxTx(maxTxBytes / j.bsize)
	j.startWorkers()
	return j, nil
}

func (j *Journal) setMaxTx(n int) {
	if m := j.cfg.MaxTxBlocks; m > 0 {
		n = min(n, max(m, 2*j.cfg.PrecommitCredits))
	}
	j.maxTx = min(n, maxTxBytes/j.bsize)
}

// Load makes an opened journal ready for Start: it sets the features that the
// configuration asks for, and starts the goroutines that commit and checkpoint.
// A log that is not empty must have been recovered, else Load fails with
// ErrNeedsRecovery. Like the kernel it marks the log as in use only with the
// first commit.
func (j *Journal) Load() error {
	if j.loaded || j.none {
		return fmt.Errorf("journal is loaded already: %w", syscall.EINVAL)
	}
	j.sbMu.Lock()
	defer j.sbMu.Unlock()
	sb := j.super()
	if sb.Start.Get() != 0 && !j.recovered {
		return ErrNeedsRecovery
	}
	if j.last < MinBlocks+j.first-1 {
		return corrupt("journal superblock", j.cfg.SuperBlock, "log of %d blocks is too short", j.total)
	}
	j.setFeatures(sb)
	if err := j.setFormat(); err != nil {
		return err
	}
	if sb.Start.Get() != 0 {
		err := j.writeSuper(true, func(sb *Superblock) {
			sb.Start.Set(0)
			sb.Sequence.Set(uint32(j.nextTid))
		})
		if err != nil {
			return err
		}
	}
	j.lastCommitted = j.nextTid - 1
	j.head = j.first
	j.free = j.last - j.first - 1 // a full log must not look like an empty one
	j.flushed = true
	j.setMaxTx(int(j.last-j.first) / 4)
	j.loaded = true
	j.startWorkers()
	return nil
}

// setFeatures turns the configured features on and off, in memory.
func (j *Journal) setFeatures(sb *Superblock) {
	if j.v1 {
		return
	}
	compat, incompat := sb.FeatureCompat.Get(), sb.FeatureIncomp.Get()
	compat = compat&^j.cfg.Clear.Compat | j.cfg.Set.Compat
	incompat = incompat&^j.cfg.Clear.Incompat | j.cfg.Set.Incompat
	if incompat&IncompatCsumV3 != 0 {
		incompat &^= IncompatCsumV2
	}
	if incompat&(IncompatCsumV2|IncompatCsumV3) != 0 {
		compat &^= CompatChecksum
	} else if j.cfg.Async {
		compat |= CompatChecksum
	}
	incompat &^= IncompatAsyncCommit
	if j.cfg.Async {
		incompat |= IncompatAsyncCommit
	}
	sb.FeatureCompat.Set(compat)
	sb.FeatureIncomp.Set(incompat)
}

func (j *Journal) startWorkers() {
	if j.cfg.Cache != nil {
		j.cfg.Cache.OnPressure(j.pressed)
	}
	j.timer = time.NewTimer(time.Hour)
	j.timer.Stop()
	j.workers.Add(2)
	go j.committer()
	go j.checkpointer()
}

// committer commits when the interval is over, and when it is asked to.
func (j *Journal) committer() {
	defer j.workers.Done()
	for {
		late := false
		select {
		case <-j.stop:
			return
		case <-j.kickCommit:
		case <-j.timer.C:
			late = true
		}
		j.mu.Lock()
		tx := j.running
		want := tx != nil && j.barrier == 0 && (late || tx.tid == j.askedTid || j.pressure.Load() && tx.large())
		var tid Tid
		if want {
			tid = tx.tid
		}
		j.mu.Unlock()
		if want {
			_ = j.Commit(tid) // a failure has aborted the journal
		}
		if j.pressure.Swap(false) {
			j.askHome()
		}
	}
}

// checkpointer writes home when the log fills, or the cache's memory does.
func (j *Journal) checkpointer() {
	defer j.workers.Done()
	for {
		select {
		case <-j.stop:
			return
		case <-j.kickHome:
		}
		if j.wantHome.Swap(false) && !j.none {
			j.mu.Lock()
			full := j.free < (j.last-j.first)/2
			j.mu.Unlock()
			_ = j.checkpoint(full) // a failure has aborted the journal
		}
	}
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pressed is called by the cache, with its locks held, when memory is short.
func (j *Journal) pressed() {
	j.pressure.Store(true)
	kick(j.kickCommit)
}

// large tells whether tx holds much of the cache's memory.
func (tx *Tx) large() bool {
	return int64(tx.ndirty.Load()) >= tx.j.cfg.Cache.Stats().MaxBlocks/8
}

// askCommitLocked asks the committer to commit the running transaction.
func (j *Journal) askCommitLocked() {
	j.askedTid = j.running.tid
	kick(j.kickCommit)
}

// Running returns the number of the transaction that a handle would join, or
// that one would start.
func (j *Journal) Running() Tid {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.running != nil {
		return j.running.tid
	}
	return j.nextTid
}

// Committed tells whether transaction tid is durable.
func (j *Journal) Committed(tid Tid) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return !tid.After(j.lastCommitted)
}

// Pending tells whether there is a transaction tid that is not durable.
func (j *Journal) Pending(tid Tid) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return tid.After(j.lastCommitted) && j.nextTid.After(tid)
}

// Abort stops the journal: nothing is written any more, except that cause is
// recorded in the superblock, unless it is ESHUTDOWN, which is no error. Start
// fails with EROFS. The first call counts. Handles may be open.
func (j *Journal) Abort(cause error) {
	a := &aborted{cause, fmt.Errorf("journal has aborted (%v): %w", cause, syscall.EROFS)}
	if !j.abort.CompareAndSwap(nil, a) {
		return
	}
	j.mu.Lock()
	j.cond.Broadcast()
	j.mu.Unlock()
	if no := errnoOf(cause); j.loaded && no != syscall.ESHUTDOWN {
		j.sbMu.Lock()
		// The change is lost if the device fails here too, as it may well do.
		_ = j.writeSuper(true, func(sb *Superblock) {
			sb.Errno.Set(uint32(-int32(no)))
		})
		j.sbMu.Unlock()
	}
	if j.cfg.Aborted != nil {
		j.cfg.Aborted(cause)
	}
}

// Err returns why the journal has aborted, nil if it has not.
func (j *Journal) Err() error {
	if a := j.abort.Load(); a != nil {
		return a.cause
	}
	return nil
}

// check returns the error that callers get from an aborted journal.
func (j *Journal) check() error {
	if a := j.abort.Load(); a != nil {
		return a.err
	}
	return nil
}

// Lock keeps new handles from starting, and returns when none is open: the file
// system does not change until Unlock. Calls nest. The caller has no handle.
func (j *Journal) Lock() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.barrier++
	for j.running != nil && j.running.handles > 0 {
		j.cond.Wait()
	}
}

// Unlock undoes one Lock.
func (j *Journal) Unlock() {
	j.mu.Lock()
	j.barrier--
	j.cond.Broadcast()
	j.mu.Unlock()
}

// Flush commits everything, writes it home and empties the log, so that what is
// on the device needs no recovery. Handles wait meanwhile; the caller has none.
func (j *Journal) Flush() error {
	if !j.none && !j.loaded {
		return nil
	}
	j.Lock()
	defer j.Unlock()
	if err := j.CommitRunning(); err != nil {
		return err
	}
	if j.none {
		return j.syncFS()
	}
	if err := j.checkpoint(true); err != nil {
		return err
	}
	return j.markEmpty()
}

// markEmpty writes s_start = 0. No handle is open and the log is empty.
func (j *Journal) markEmpty() error {
	j.mu.Lock()
	for j.busy {
		j.cond.Wait()
	}
	if len(j.cp) != 0 {
		j.mu.Unlock()
		return errors.New("journal: the log is not empty after a checkpoint")
	}
	if j.flushed {
		j.mu.Unlock()
		return nil
	}
	j.busy = true // no commit until the superblock says so
	next := j.nextTid
	if j.running != nil {
		next = j.running.tid
	}
	j.mu.Unlock()

	j.sbMu.Lock()
	err := j.writeSuper(true, func(sb *Superblock) {
		sb.Start.Set(0)
		sb.Sequence.Set(uint32(next))
	})
	j.sbMu.Unlock()

	j.mu.Lock()
	j.flushed = err == nil
	j.busy = false
	j.cond.Broadcast()
	j.mu.Unlock()
	if err != nil {
		j.Abort(err)
	}
	return err
}

// Close flushes the journal and stops its goroutines. No handle is open. After
// an abort the log is left for recovery, and Close returns the cause.
func (j *Journal) Close() error { return j.close(j.Flush) }

// Leave is Close without writing home: what is committed is left in the log,
// for a recovery to find.
func (j *Journal) Leave() error { return j.close(j.CommitRunning) }

func (j *Journal) close(last func() error) error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.mu.Unlock()
	if !j.none && !j.loaded {
		return nil
	}
	err := j.Err()
	if err == nil {
		err = last()
	}
	j.mu.Lock()
	j.closed = true
	j.cond.Broadcast()
	j.mu.Unlock()
	close(j.stop)
	j.workers.Wait()
	j.timer.Stop()
	if j.cfg.Cache != nil {
		j.cfg.Cache.OnPressure(nil)
	}
	return err
}
