package jbd2

import (
	"fmt"
	"slices"

	"github.com/e2kit/e2kit/lib/buffer"
)

// cpTx is what is left of a committed transaction: the stretch of the log that
// it keeps, and the buffers it logged. Of those, the ones whose JournalHead
// still names it are not at home.
type cpTx struct {
	tid        Tid
	start, len uint32
	bufs       []*buffer.Buf
}

// homeBuf is a buffer to write home as transaction tid left it.
type homeBuf struct {
	b   *buffer.Buf
	tid Tid
}

// checkpoint writes home what committed transactions logged, except blocks that
// have joined a newer transaction, and, if tail is set, frees the part of the
// log that is not needed any more. Handles may be open. A failure aborts the
// journal.
func (j *Journal) checkpoint(tail bool) error {
	j.cpMu.Lock()
	defer j.cpMu.Unlock()
	if err := j.check(); err != nil {
		return err
	}
	j.mu.Lock()
	txs := slices.Clone(j.cp)
	j.mu.Unlock()
	list := j.cpList[:0]
	for _, tx := range txs {
		for _, b := range tx.bufs {
			if owned(b, tx.tid) {
				list = append(list, homeBuf{b, tx.tid})
			}
		}
	}
	slices.SortFunc(list, func(a, b homeBuf) int {
		switch {
		case a.b.Block() < b.b.Block():
			return -1
		case a.b.Block() > b.b.Block():
			return 1
		}
		return 0
	})
	j.cpList = list
	defer clear(j.cpList)
	chunk := j.chunks.get()
	defer j.chunks.put(chunk)
	for len(list) > 0 {
		n, err := j.writeBatch(chunk, list)
		if err != nil {
			err = fmt.Errorf("checkpoint: %w", err)
			j.Abort(err)
			return err
		}
		list = list[n:]
	}
	if !tail {
		return nil
	}
	if err := j.moveTail(); err != nil {
		err = fmt.Errorf("checkpoint: %w", err)
		j.Abort(err)
		return err
	}
	return nil
}

// owned tells whether b is not at home since transaction tid.
func owned(b *buffer.Buf, tid Tid) bool {
	jh := b.Journal()
	jh.Lock()
	defer jh.Unlock()
	return jh.Flags.Load()&bufCheckpoint != 0 && Tid(jh.Tid) == tid
}

// writeBatch writes home the first adjacent blocks of list that fit chunk, and
// returns how many entries it is done with. Those that a newer transaction has
// joined stay.
func (j *Journal) writeBatch(chunk []byte, list []homeBuf) (int, error) {
	j.homeMu.Lock()
	defer j.homeMu.Unlock()
	if err := j.check(); err != nil {
		return 0, err
	}
	bs := j.bsize
	var start buffer.Block
	n, k := 0, 0 // blocks in chunk, entries seen
	for ; k < len(list) && (n+1)*bs <= len(chunk); k++ {
		b := list[k].b
		if n > 0 && b.Block() != start+buffer.Block(n) {
			break
		}
		jh := b.Journal()
		jh.Lock()
		fl := jh.Flags.Load()
		ok := fl&bufCheckpoint != 0 && Tid(jh.Tid) == list[k].tid && fl&(bufRunning|bufCommitting) == 0
		if ok {
			// Under the lock no handle can join it, so its bytes are the
			// committed ones.
			b.SealTo(chunk[n*bs : (n+1)*bs])
		}
		jh.Unlock()
		if !ok {
			list[k].b = nil
			if n > 0 {
				k++
				break
			}
			continue
		}
		if n == 0 {
			start = b.Block()
		}
		n++
	}
	if n == 0 {
		return k, nil
	}
	if _, err := j.fsdev.WriteAt(chunk[:n*bs], int64(start)*int64(bs)); err != nil {
		return 0, fmt.Errorf("write block %d home: %w", start, err)
	}
	for _, e := range list[:k] {
		if e.b == nil {
			continue
		}
		jh := e.b.Journal()
		jh.Lock()
		ours := jh.Flags.Load()&bufCheckpoint != 0 && Tid(jh.Tid) == e.tid
		if ours {
			jh.Flags.And(^uint32(bufCheckpoint))
		}
		jh.Unlock()
		if ours {
			e.b.Put()
		}
	}
	return k, nil
}

// moveTail frees the log of the oldest transactions that are all at home. cpMu
// is held.
func (j *Journal) moveTail() error {
	j.mu.Lock()
	txs := slices.Clone(j.cp)
	j.mu.Unlock()
	done := 0
	var freed uint32
scan:
	for _, tx := range txs {
		for _, b := range tx.bufs {
			if owned(b, tx.tid) {
				break scan
			}
		}
		done++
		freed += tx.len
	}
	if done == 0 {
		return nil
	}
	// The tail is on disk before its blocks are used again, and home writes are
	// durable before the tail is.
	if err := j.syncFS(); err != nil {
		return err
	}
	j.sbMu.Lock()
	j.mu.Lock()
	start, tid := j.head, j.nextTid
	switch {
	case len(j.cp) > done:
		start, tid = j.cp[done].start, j.cp[done].tid
	case j.committing != nil:
		start, tid = j.committing.logStart, j.committing.tid
	case j.running != nil:
		tid = j.running.tid
	}
	j.mu.Unlock()
	err := j.writeSuper(true, func(sb *Superblock) {
		sb.Start.Set(start)
		sb.Sequence.Set(uint32(tid))
	})
	j.sbMu.Unlock()
	if err != nil {
		return err
	}
	j.mu.Lock()
	for _, tx := range j.cp[:done] {
		if clear(tx.bufs); len(j.lists) < keepLists {
			j.lists = append(j.lists, tx.bufs[:0])
		}
	}
	j.cp = slices.Delete(j.cp, 0, done)
	j.free += freed
	j.cond.Broadcast()
	j.mu.Unlock()
	return nil
}

// keepLists is how many unused lists of buffers are kept for transactions.
const keepLists = 4

// askHome asks the checkpointer for a checkpoint.
func (j *Journal) askHome() {
	j.wantHome.Store(true)
	kick(j.kickHome)
}

// makeSpace frees log for a handle that waits for it: with a checkpoint, and if
// that was not enough before, by committing what keeps blocks from going home.
func (j *Journal) makeSpace(attempt int) error {
	if attempt > 1 {
		if err := j.waitCommit(); err != nil {
			return err
		}
	}
	return j.checkpoint(true)
}

// waitCommit has the committer commit the running transaction. One in which
// nothing has changed may still keep blocks that it joined from going home.
func (j *Journal) waitCommit() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	tx := j.running
	if tx == nil {
		for j.busy && j.check() == nil {
			j.cond.Wait()
		}
		return j.check()
	}
	tid := tx.tid
	if tx.idle {
		return nil
	}
	j.askCommitLocked()
	for tid.After(j.lastCommitted) && !(j.running == tx && tx.idle) && j.check() == nil && !j.closed && j.barrier == 0 {
		j.cond.Wait()
	}
	return j.check()
}
