package jbd2

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/e2kit/e2kit/lib/buffer"
)

// Without a log a crash may keep any part of a commit, and whoever repairs it
// follows what is on the device. So no block is pointed to before it is there:
// what the caller wrote before the commit, and blocks that the transaction
// creates, are durable before the rest is written.

// stageHome copies the transaction's blocks, those that it creates first, in the
// order of their places on the device, and returns how many it creates. The
// transaction is locked.
func (tx *Tx) stageHome(st *staging) (fresh int) {
	tx.sort()
	isFresh := func(b *buffer.Buf) bool { return b.Journal().Flags.Load()&bufFresh != 0 }
	slices.SortFunc(tx.bufs, func(a, b *buffer.Buf) int {
		if f, g := isFresh(a), isFresh(b); f != g {
			if f {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Block(), b.Block())
	})
	for i, b := range tx.bufs {
		if isFresh(b) {
			fresh++
		}
		b.SealTo(st.block(i))
	}
	tx.handOver()
	return fresh
}

// writeHome writes the staged copies home, durably.
func (tx *Tx) writeHome(st *staging, fresh int) error {
	for _, part := range [][2]int{{0, fresh}, {fresh, len(tx.bufs)}} {
		if err := tx.writeStaged(st, part[0], part[1]); err != nil {
			return err
		}
		if err := tx.j.syncFS(); err != nil {
			return err
		}
	}
	return nil
}

// writeStaged writes the copies of tx.bufs[lo:hi].
func (tx *Tx) writeStaged(st *staging, lo, hi int) error {
	j := tx.j
	for i := lo; i < hi; {
		start := tx.bufs[i].Block()
		n := 1
		for i+n < hi && tx.bufs[i+n].Block() == start+buffer.Block(n) {
			n++
		}
		p := st.piece(i, n)
		if _, err := j.fsdev.WriteAt(p, int64(start)*int64(j.bsize)); err != nil {
			return fmt.Errorf("write block %d: %w", start, err)
		}
		i += len(p) / j.bsize
	}
	return nil
}
