package jbd2

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// logReader reads the log in large pieces.
type logReader struct {
	j     *Journal
	mem   []byte
	start uint32
	n     uint32 // blocks in mem
}

func (l *logReader) init(j *Journal) {
	l.j = j
	l.mem = blockdev.AlignedBuf(max(256<<10, j.bsize), max(j.bsize, 4096))
}

// block returns log block n, valid until the next call.
func (l *logReader) block(n uint32) ([]byte, error) {
	bs := l.j.bsize
	if n-l.start >= l.n || n < l.start {
		_, count, err := l.j.devRun(n, uint32(len(l.mem)/bs))
		if err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		l.n = 0
		if err := l.j.readLog(n, l.mem[:int(count)*bs]); err != nil {
			// Perhaps only what follows it is bad.
			if err := l.j.readLog(n, l.mem[:bs]); err != nil {
				return nil, err
			}
			count = 1
		}
		l.start, l.n = n, count
	}
	off := int(n-l.start) * bs
	return l.mem[off : off+bs : off+bs], nil
}

// outBuffer collects replayed blocks, so that a block that was logged often is
// written once and neighbours are written together.
type outBuffer struct {
	r     Replayer
	bsize int
	mem   []byte
	slots map[uint64]int
	order []uint64
	piece []byte
}

const outBytes = 8 << 20

func (o *outBuffer) init(j *Journal, r Replayer) {
	o.r, o.bsize = r, j.bsize
	o.slots = map[uint64]int{}
}

func (o *outBuffer) add(blk uint64, data []byte, escaped bool) error {
	slot, ok := o.slots[blk]
	if !ok {
		if len(o.slots) == outBytes/o.bsize {
			if err := o.flush(); err != nil {
				return err
			}
		}
		slot = len(o.slots)
		if need := (slot + 1) * o.bsize; need > len(o.mem) {
			grown := blockdev.AlignedBuf(min(max(2*len(o.mem), 16*o.bsize), outBytes), max(o.bsize, 4096))
			copy(grown, o.mem)
			o.mem = grown
		}
		o.slots[blk] = slot
		o.order = append(o.order, blk)
	}
	p := o.mem[slot*o.bsize : (slot+1)*o.bsize]
	copy(p, data)
	if escaped {
		binary.BigEndian.PutUint32(p, Magic)
	}
	return nil
}

func (o *outBuffer) flush() error {
	slices.Sort(o.order)
	if o.piece == nil {
		o.piece = blockdev.AlignedBuf(max(256<<10, o.bsize), max(o.bsize, 4096))
	}
	for i := 0; i < len(o.order); {
		start, n := o.order[i], 0
		for i < len(o.order) && o.order[i] == start+uint64(n) && (n+1)*o.bsize <= len(o.piece) {
			slot := o.slots[o.order[i]]
			copy(o.piece[n*o.bsize:], o.mem[slot*o.bsize:(slot+1)*o.bsize])
			n++
			i++
		}
		if err := o.r.Write(start, o.piece[:n*o.bsize]); err != nil {
			return fmt.Errorf("replay block %d: %w", start, err)
		}
	}
	clear(o.slots)
	o.order = o.order[:0]
	return nil
}
