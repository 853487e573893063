package jbd2

import (
	"encoding/binary"
	"fmt"
	"slices"
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/endian"
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
	if err == nil {
		if j.none {
			tx.stageHome(&st)
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
			err = tx.writeHome(&st)
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
		jh.Flags.And(^uint32(bufRunning | bufForgot))
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
			jh.Flags.And(^uint32(bufRunning))
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
			jh.Flags.And(^uint32(bufRunning | bufDirty | bufForgot))
			jh.Unlock()
		}
	}
}

// layout says which block of a transaction in the log is which: revoke blocks,
// then descriptor blocks, each followed by what it describes, then the commit
// block.
type layout struct{ revokes, descs, tags, blocks int }

// data returns the place of logged block i.
func (l *layout) data(i int) int { return l.revokes + i/l.tags*(l.tags+1) + 1 + i%l.tags }

// desc returns the place of descriptor i.
func (l *layout) desc(i int) int { return l.revokes + i*(l.tags+1) }

func (l *layout) commit() int { return l.revokes + l.descs + l.blocks }

func (tx *Tx) layout() layout {
	f := &tx.j.format
	l := layout{tags: f.tagsPerBlock(), blocks: len(tx.bufs)}
	l.descs = (l.blocks + l.tags - 1) / l.tags
	if !tx.j.v1 {
		n := f.revokesPerBlock()
		l.revokes = (len(tx.revoked) + n - 1) / n
	}
	return l
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

// encode writes the revoke and descriptor blocks, escapes blocks that look like
// ours, and returns the crc32 of COMPAT_CHECKSUM.
func (tx *Tx) encode(st *staging, l *layout) uint32 {
	f := &tx.j.format
	if l.revokes > 0 {
		tx.encodeRevokes(st, l.revokes)
	}
	seed := tagSeed(f.seed, tx.tid)
	crc := ^uint32(0)
	for d := range l.descs {
		desc := st.block(l.desc(d))
		clear(desc)
		putHeader(desc, DescriptorBlock, tx.tid)
		off := 12
		first, end := d*l.tags, min((d+1)*l.tags, l.blocks)
		for i := first; i < end; i++ {
			data := st.block(l.data(i))
			t := Tag{Block: uint64(tx.bufs[i].Block())}
			if binary.BigEndian.Uint32(data) == Magic {
				t.Flags |= TagEscape
				clear(data[:4])
			}
			if i > first {
				t.Flags |= TagSameUUID
			}
			if i == end-1 {
				t.Flags |= TagLast
			}
			if f.csum() {
				t.Csum = crc32c(seed, data)
			}
			off += f.putTag(desc[off:], t, &tx.j.cfg.UUID)
		}
		if f.csum() {
			sealTail(f.seed, desc)
		}
		if f.csumV1 {
			crc = crc32BE(crc, desc)
			for i := first; i < end; i++ {
				crc = crc32BE(crc, st.block(l.data(i)))
			}
		}
	}
	return crc
}

func (tx *Tx) encodeRevokes(st *staging, blocks int) {
	f := &tx.j.format
	list := make([]uint64, 0, len(tx.revoked))
	for blk := range tx.revoked {
		list = append(list, blk)
	}
	slices.Sort(list) // the same changes make the same log
	for k := range blocks {
		b := st.block(k)
		clear(b)
		putHeader(b, RevokeBlock, tx.tid)
		off := 16
		n := min(len(list), f.revokesPerBlock())
		for _, blk := range list[:n] {
			if f.b64 {
				endian.View[endian.BE64](b[off:]).Set(blk)
			} else {
				endian.View[endian.BE32](b[off:]).Set(uint32(blk))
			}
			off += f.revokeBytes()
		}
		list = list[n:]
		endian.View[RevokeHeader](b).Count.Set(uint32(off))
		if f.csum() {
			sealTail(f.seed, b)
		}
	}
}

func (tx *Tx) encodeCommit(b []byte, crc uint32) {
	f := &tx.j.format
	clear(b)
	putHeader(b, CommitBlock, tx.tid)
	c := endian.View[CommitHeader](b)
	now := tx.j.cfg.Now()
	c.Sec.Set(uint64(now.Unix()))
	c.Nsec.Set(uint32(now.Nanosecond()))
	switch {
	case f.csum():
		c.Checksum[0].Set(sumWithout(f.seed, b, commitCsumOff))
	case f.csumV1:
		c.ChecksumType, c.ChecksumSize = ChecksumCRC32, 4
		c.Checksum[0].Set(crc)
	}
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
		j.homeMu.Unlock() //nolint:staticcheck // waits for the write under way
	}
}

// cpTx is what is left of a committed transaction: the stretch of the log that
// it keeps, and the buffers it logged. Of those, the ones whose JournalHead
// still names it are not at home.
type cpTx struct {
	tid        Tid
	start, len uint32
	bufs       []*buffer.Buf
}
