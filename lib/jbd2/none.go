package jbd2

import (
	"fmt"
	"slices"

	"github.com/e2kit/e2kit/lib/buffer"
)

// stageHome copies the transaction's blocks in the order of their places on the
// device. The transaction is locked.
func (tx *Tx) stageHome(st *staging) {
	tx.sort()
	slices.SortFunc(tx.bufs, func(a, b *buffer.Buf) int {
		switch {
		case a.Block() < b.Block():
			return -1
		case a.Block() > b.Block():
			return 1
		}
		return 0
	})
	for i, b := range tx.bufs {
		b.SealTo(st.block(i))
	}
	tx.handOver()
}

// writeHome writes the staged copies home, durably. What the caller wrote to the
// device before is durable first, so that no block is mapped before its data.
func (tx *Tx) writeHome(st *staging) error {
	j := tx.j
	if err := j.syncFS(); err != nil {
		return err
	}
	for i := 0; i < len(tx.bufs); {
		start := tx.bufs[i].Block()
		n := 1
		for i+n < len(tx.bufs) && tx.bufs[i+n].Block() == start+buffer.Block(n) {
			n++
		}
		p := st.piece(i, n)
		if _, err := j.fsdev.WriteAt(p, int64(start)*int64(j.bsize)); err != nil {
			return fmt.Errorf("write block %d: %w", start, err)
		}
		i += len(p) / j.bsize
	}
	return j.syncFS()
}
