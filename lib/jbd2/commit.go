package jbd2

import (
	"fmt"
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
)

// Commit makes transaction tid, the running one or an older one, durable and
// returns then. Callers at the same time share the work. The caller has no
// handle open. If nothing has changed in the running transaction, it goes on
// running, and Commit returns at once.
func (j *Journal) Commit(tid Tid) error {
	_, err := j.commit(tid)
	return err
}

// CommitSync is Commit for fsync: when it returns, what the caller had written
// to the file system's device before the call is durable as well. It syncs the
// device only if no commit after the call did.
func (j *Journal) CommitSync(tid Tid) error {
	synced, err := j.commit(tid)
	if err != nil || synced {
		return err
	}
	return j.syncFS()
}

// CommitRunning commits whatever has changed so far.
func (j *Journal) CommitRunning() error { return j.Commit(j.Running()) }

// commit is Commit; synced tells whether the file system's device was synced by
// a commit that began after the call.
func (j *Journal) commit(tid Tid) (synced bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		if !tid.After(j.lastCommitted) {
			// One that was under way when we came does not count.
			return synced, nil
		}
		if err := j.check(); err != nil {
			return false, err
		}
		if j.busy {
			if tx := j.running; tx != nil && tx.tid == tid && !tx.locked {
				synced = true // by whoever commits it
			}
			j.cond.Wait()
			continue
		}
		if j.running == nil || tid.After(j.running.tid) {
			return false, nil // not begun: nothing has changed
		}
		j.busy = true
		wrote, err := j.commitRunningLocked()
		j.busy = false
		j.cond.Broadcast()
		if err != nil || !wrote {
			return false, err
		}
		return j.cfg.Barrier, nil
	}
}

// commitRunningLocked commits the running transaction. busy is set; mu is held,
// but let go meanwhile. wrote is false if nothing had changed.
func (j *Journal) commitRunningLocked() (wrote bool, err error) {
	tx := j.running
	tx.locked = true
	for tx.handles > 0 {
		j.cond.Wait()
		if err := j.check(); err != nil {
			tx.locked = false
			return false, err
		}
	}
	j.mu.Unlock()
	if j.cfg.Precommit != nil {
		if err = j.cfg.Precommit(tx); err != nil {
			err = fmt.Errorf("before commit: %w", err)
		}
	}
	if err == nil && tx.ndirty.Load() == 0 && len(tx.revoked) == 0 {
		tx.leaveAll()
		done := tx.done
		tx.done = nil
		j.mu.Lock()
		tx.locked, tx.idle = false, true
		tx.reserved = j.cfg.PrecommitCredits
		j.cond.Broadcast()
		j.mu.Unlock()
		for _, fn := range done {
			fn()
		}
		j.mu.Lock()
		return false, nil
	}

	var st staging
	st.pool = &j.chunks
	defer st.release()
	fresh := 0
	if err == nil {
		if j.none {
			fresh = tx.stageHome(&st)
		} else {
			err = tx.stageLog(&st)
		}
	}
	if err != nil {
		j.Abort(err)
	}
	j.mu.Lock()
	j.running, j.committing = nil, tx
	if err == nil && !j.none {
		tx.logStart = j.head
		j.head = j.wrap(j.head + tx.logLen)
		j.free -= tx.logLen
	}
	// Without revoke records, the log is emptied before freed blocks are used
	// again; that works only while no one changes what is to go home.
	hold := j.v1 && len(tx.revoked) > 0
	if hold {
		j.barrier++
	}
	j.cond.Broadcast() // handles may start, in the next transaction
	j.mu.Unlock()

	if err == nil {
		if j.none {
			err = tx.writeHome(&st, fresh)
		} else {
			err = tx.writeLog(&st)
		}
		if err != nil {
			err = fmt.Errorf("commit of transaction %d: %w", tx.tid, err)
			j.Abort(err)
		}
	}
	if err == nil {
		tx.finish()
	}
	j.mu.Lock()
	j.committing = nil
	if err == nil && !j.none {
		j.cp = append(j.cp, &cpTx{tid: tx.tid, start: tx.logStart, len: tx.logLen, bufs: tx.bufs})
		tx.bufs = nil
		if j.free < (j.last-j.first)/2 {
			j.askHome()
		}
	}
	if hold {
		j.mu.Unlock()
		if err == nil {
			err = j.checkpoint(true)
		}
		j.mu.Lock()
		j.barrier--
		j.cond.Broadcast()
	}
	if err != nil {
		// What it holds stays pinned: it is neither in the log nor at home.
		return false, j.check()
	}
	tid, done := tx.tid, tx.done
	j.mu.Unlock()
	if j.cfg.Committed != nil {
		j.cfg.Committed(tid)
	}
	for _, fn := range done {
		fn()
	}
	j.mu.Lock()
	j.lastCommitted = tid
	tx.recycle()
	j.txs = append(j.txs, tx)
	return true, nil
}

// recycle empties tx, keeping its memory.
func (tx *Tx) recycle() {
	clear(tx.bufs)
	clear(tx.forgot)
	clear(tx.done)
	tx.bufs, tx.forgot, tx.done = tx.bufs[:0], tx.forgot[:0], tx.done[:0]
	clear(tx.revoked)
	tx.ndirty.Store(0)
	tx.logStart, tx.logLen = 0, 0
}

// leaveAll takes all buffers out of a transaction in which none changed.
func (tx *Tx) leaveAll() {
	for _, b := range tx.bufs {
		jh := b.Journal()
		jh.Lock()
		jh.Flags.And(^uint32(bufRunning | bufForgot | bufFresh))
		jh.Unlock()
		b.Put()
	}
	clear(tx.bufs)
	tx.bufs = tx.bufs[:0]
}

// sort divides the joined buffers: tx.bufs keeps those to write, tx.forgot gets
// the forgotten, and those that did not change after all leave.
func (tx *Tx) sort() {
	keep := tx.bufs[:0]
	for _, b := range tx.bufs {
		switch fl := b.Journal().Flags.Load(); {
		case fl&bufForgot != 0:
			tx.forgot = append(tx.forgot, b)
		case fl&bufDirty != 0:
			keep = append(keep, b)
		default:
			jh := b.Journal()
			jh.Lock()
			jh.Flags.And(^uint32(bufRunning | bufFresh))
			jh.Unlock()
			b.Put()
		}
	}
	clear(tx.bufs[len(keep):])
	tx.bufs = keep
}

// handOver moves the buffers from the running to the committing state: new
// handles may change them again.
func (tx *Tx) handOver() {
	for _, list := range [...][]*buffer.Buf{tx.bufs, tx.forgot} {
		for _, b := range list {
			jh := b.Journal()
			jh.Lock()
			jh.Flags.Or(bufCommitting)
			jh.Flags.And(^uint32(bufRunning | bufDirty | bufForgot | bufFresh))
			jh.Unlock()
		}
	}
}

// stageLog copies the transaction's blocks to where they belong in st. The
// transaction is locked.
func (tx *Tx) stageLog(st *staging) error {
	j := tx.j
	tx.sort()
	l := tx.layout()
	n := uint32(l.commit() + 1)
	if !j.spaceFor(n) {
		// Precommit, or handles that changed more than they said, went beyond
		// all that was set aside.
		if err := j.checkpoint(true); err != nil {
			return err
		}
		if !j.spaceFor(n) {
			return fmt.Errorf("transaction %d of %d blocks does not fit the log: %w", tx.tid, n, syscall.ENOSPC)
		}
	}
	for i, b := range tx.bufs {
		if !j.format.b64 && uint64(b.Block()) > 1<<32-1 {
			return fmt.Errorf("block %d in a journal without 64-bit block numbers: %w", b.Block(), syscall.EFBIG)
		}
		b.SealTo(st.block(l.data(i)))
	}
	tx.logLen = n
	tx.handOver()
	return nil
}

func (j *Journal) spaceFor(n uint32) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return n <= j.free
}

// writeLog writes the staged transaction to the log, so that it is durable when
// it returns. Other handles run meanwhile.
func (tx *Tx) writeLog(st *staging) error {
	j, l := tx.j, tx.layout()
	if err := j.startLog(tx, l.revokes > 0); err != nil {
		return err
	}
	crc := tx.encode(st, &l)
	commit := st.block(l.commit())
	tx.encodeCommit(commit, crc)

	f := &j.format
	async := f.async && (f.csum() || f.csumV1)
	n := l.commit()
	if async {
		n++
	}
	for i := 0; i < n; {
		at := j.wrap(tx.logStart + uint32(i))
		p := st.piece(i, min(n-i, int(j.last-at)))
		if err := j.writeLog(at, p); err != nil {
			return err
		}
		i += len(p) / j.bsize
	}
	if j.dev != j.fsdev {
		// Data that the transaction's metadata points to.
		if err := j.syncFS(); err != nil {
			return err
		}
	}
	if err := j.syncLog(); err != nil || async {
		return err
	}
	if err := j.check(); err != nil {
		return err
	}
	if err := j.writeLog(j.wrap(tx.logStart+uint32(n)), commit); err != nil {
		return err
	}
	return j.syncLog()
}

// startLog writes the superblock, before a transaction's blocks, if it has to
// say that the log is in use or has revoke records.
func (j *Journal) startLog(tx *Tx, revokes bool) error {
	j.sbMu.Lock()
	defer j.sbMu.Unlock()
	j.mu.Lock()
	flushed := j.flushed
	j.mu.Unlock()
	if !flushed && (!revokes || j.has(IncompatRevoke)) {
		return nil
	}
	err := j.writeSuper(false, func(sb *Superblock) {
		if revokes {
			sb.FeatureIncomp.Set(sb.FeatureIncomp.Get() | IncompatRevoke)
		}
		if flushed {
			sb.Start.Set(tx.logStart)
			sb.Sequence.Set(uint32(tx.tid))
		}
	})
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.flushed = false
	j.mu.Unlock()
	return nil
}

// finish records that tx is durable in its buffers: they are to be checkpointed,
// or, if forgotten, leave the cache. No copy of a forgotten one is on its way
// home when it returns, so that its block may be used for data.
func (tx *Tx) finish() {
	j := tx.j
	for _, b := range tx.bufs {
		jh := b.Journal()
		jh.Lock()
		fl := jh.Flags.And(^uint32(bufCommitting))
		unpin := j.none || fl&bufCheckpoint != 0
		if !j.none {
			jh.Flags.Or(bufCheckpoint) // takes over the pin
			jh.Tid = uint32(tx.tid)
		}
		jh.Unlock()
		if unpin {
			b.Put()
		}
	}
	for _, b := range tx.forgot {
		jh := b.Journal()
		jh.Lock()
		fl := jh.Flags.And(^uint32(bufCommitting | bufCheckpoint))
		jh.Unlock()
		if fl&bufRunning == 0 {
			j.cfg.Cache.Drop(b)
		}
		if fl&bufCheckpoint != 0 {
			b.Put()
		}
		b.Put()
	}
	if len(tx.forgot) > 0 {
		j.homeMu.Lock()
		//lint:ignore SA2001 this waits for the write under way
		j.homeMu.Unlock()
	}
}
