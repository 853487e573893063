package blockdev

import (
	"fmt"
	"iter"
	"math/rand/v2"
)

// Log is what a Record recorded up to a moment.
type Log struct {
	base *Overlay
	ops  []logOp
}

// StateOptions say which crash states to make. The zero value is a fair sample.
type StateOptions struct {
	Seed    uint64 // of the sampling; the same seed gives the same states
	PerSync int    // states after each sync, at most; 0 is 32
	Limit   int    // states in all, at most, spread over the syncs; 0 is no limit

	// Torn loses sectors of 512 bytes one by one. Without it what is lost is
	// blocks of 4 KiB, at multiples of that.
	Torn bool
}

// State is what a crash could leave on the device: all that was written before
// a sync, and a part of what was written between it and the next.
type State struct {
	// Dev has the content. It is the state's own: recover in it as you like, and
	// keep it as long as you like. Its Apply makes a copy of Log.Base the same.
	Dev *Overlay

	Seq  int // which one of its Log.States it is, from 0 on
	Sync int // how many syncs completed before the crash
	Kept int // pieces (StateOptions.Torn) written after that sync that are there
	Of   int // out of how many

	// Marks are those that were put into the log before the crash, in order: of
	// what they promised none may be missing. Not to be changed.
	Marks []any
}

// String names the state, for messages.
func (s *State) String() string {
	return fmt.Sprintf("crash state %d (after sync %d, with %d of %d pieces)", s.Seq, s.Sync, s.Kept, s.Of)
}

// Base returns the content from before the recording. What is written to it
// stays with the caller.
func (l *Log) Base() *Overlay {
	// Not a clone, which would not see what l.base has yet to preserve.
	return &Overlay{dev: l.base, lent: true}
}

// Syncs returns how many syncs were recorded.
func (l *Log) Syncs() int {
	n := 0
	for i := range l.ops {
		if l.ops[i].kind == logSync {
			n++
		}
	}
	return n
}

// Written returns how many bytes were written to the n bytes at off, each as
// often as it was.
func (l *Log) Written(off, n int64) int64 {
	sum := int64(0)
	for i := range l.ops {
		if op := &l.ops[i]; op.kind == logWrite {
			sum += max(0, min(op.off+op.n, off+n)-max(op.off, off))
		}
	}
	return sum
}

// States yields crash states. Between two syncs these are all subsets of what
// was written, if they are few, else none of it, and a sample: prefixes, single
// losses, single survivors, and random choices of writes and of pieces. Writes
// that overlap keep their order.
//
// A state costs what it changes, not the size of the device. States may be used
// at the same time and after the iteration.
func (l *Log) States(o StateOptions) iter.Seq[*State] {
	if o.PerSync <= 0 {
		o.PerSync = 32
	}
	return func(yield func(*State) bool) {
		epochs := l.epochs()
		cur := l.Base()
		seq := 0
		for i, e := range epochs {
			budget := o.PerSync
			if o.Limit > 0 {
				// What is left, over the epochs left: some of them go without,
				// if there are more epochs than states.
				left := len(epochs) - i
				budget = min(budget, (o.Limit-seq+left-1)/left)
				if o.Limit < len(epochs) && i*o.Limit/len(epochs) == (i+1)*o.Limit/len(epochs) {
					budget = 0
				}
			}
			pieces := e.pieces(o.Torn)
			rnd := rand.New(rand.NewPCG(o.Seed, uint64(e.syncs)))
			for keep := range choices(pieces, budget, e.last, rnd) {
				s := &State{Dev: cur.Clone(), Seq: seq, Sync: e.syncs, Of: len(pieces), Marks: e.marks}
				for j, p := range pieces {
					if keep[j] {
						s.Kept++
						p.apply(s.Dev)
					}
				}
				if !yield(s) {
					return
				}
				seq++
			}
			for _, p := range pieces {
				if p.within(e.off, e.n) {
					p.apply(cur)
				}
			}
		}
	}
}

// epoch is what a log has not synced when a sync comes.
type epoch struct {
	ops    []logOp // without syncs and marks
	syncs  int     // before it
	marks  []any   // before its end
	off, n int64   // what the sync at its end is of
	last   bool
}

// epochs returns those that wrote something, and the last.
func (l *Log) epochs() []epoch {
	var all []epoch
	var marks []any
	cur := epoch{}
	for _, op := range l.ops {
		switch op.kind {
		case logMark:
			marks = append(marks, op.mark)
		case logSync:
			// What a sync of nothing leaves behind is what the next epoch
			// leaves with none of its writes.
			var rest []logOp
			for i := range cur.ops {
				if o := &cur.ops[i]; !o.within(op.off, op.n) {
					rest = append(rest, *o)
				}
			}
			if len(rest) < len(cur.ops) {
				cur.marks = marks[:len(marks):len(marks)]
				cur.off, cur.n = op.off, op.n
				all = append(all, cur)
			}
			cur = epoch{syncs: cur.syncs + 1, ops: rest}
		default:
			cur.ops = append(cur.ops, op)
		}
	}
	cur.last, cur.marks = true, marks[:len(marks):len(marks)]
	return append(all, cur)
}

// within tells whether a sync of the n bytes at off covers the operation. None
// lies across the border of a part.
func (op *logOp) within(off, n int64) bool { return op.off >= off && op.off < off+n }

// piece is a part of an operation that is on the disk, or is not.
type piece struct {
	op     int // which one it is a part of
	off, n int64
	data   []byte // nil is zeros
}

func (p *piece) within(off, n int64) bool { return p.off >= off && p.off < off+n }

func (p *piece) apply(dev *Overlay) {
	var err error
	if p.data != nil {
		_, err = dev.WriteAt(p.data, p.off)
	} else {
		err = dev.ZeroOut(p.off, p.n)
	}
	if err != nil {
		panic(fmt.Sprintf("blockdev: the base of a log cannot be read: %v", err))
	}
}

// maxPieces is how many pieces an operation has at most.
const maxPieces = 256

// pieces splits the operations at multiples of the unit.
func (e *epoch) pieces(torn bool) []piece {
	unit := int64(pageSize)
	if torn {
		unit = sector
	}
	var all []piece
	for i, op := range e.ops {
		step := unit
		for op.n/step >= maxPieces {
			step *= 2
		}
		for off, end := op.off, op.off+op.n; off < end; {
			n := min(end, (off/step+1)*step) - off
			p := piece{op: i, off: off, n: n}
			if op.kind == logWrite {
				p.data = op.data[off-op.off:][:n]
			}
			all = append(all, p)
			off += n
		}
	}
	return all
}

// choices yields which pieces to keep, at most budget times, never twice the
// same. To keep all is left out unless last: it is to keep none after the next
// sync, where more has been promised.
func choices(pieces []piece, budget int, last bool, r *rand.Rand) iter.Seq[[]bool] {
	return func(yield func([]bool) bool) {
		n := len(pieces)
		keep := make([]bool, n)
		if n < 31 && 1<<n <= budget {
			for mask := range 1 << n {
				if mask == 1<<n-1 && !last {
					return
				}
				for i := range keep {
					keep[i] = mask>>i&1 != 0
				}
				if !yield(keep) {
					return
				}
			}
			return
		}
		seen := map[string]bool{}
		key := make([]byte, (n+7)/8)
		// Few are left to find if n is small: do not try forever.
		for try := 0; len(seen) < budget && try < 4*budget; try++ {
			switch {
			case try == 0:
				clear(keep)
			case try == 1 && last:
				fill(keep, true)
			default:
				choose(keep, pieces, r)
			}
			clear(key)
			all := true
			for i, k := range keep {
				if k {
					key[i/8] |= 1 << (i % 8)
				}
				all = all && k
			}
			if seen[string(key)] || all && !last {
				continue
			}
			seen[string(key)] = true
			if !yield(keep) {
				return
			}
		}
	}
}

// choose draws one choice.
func choose(keep []bool, pieces []piece, r *rand.Rand) {
	p := []float64{0.1, 0.5, 0.9}[r.IntN(3)]
	switch r.IntN(6) {
	case 0: // the first ones
		clear(keep)
		fill(keep[:r.IntN(len(keep)+1)], true)
	case 1: // all but one
		fill(keep, true)
		keep[r.IntN(len(keep))] = false
	case 2: // one alone
		clear(keep)
		keep[r.IntN(len(keep))] = true
	case 3, 4: // whole operations
		op, whole := -1, false
		for i := range keep {
			if pieces[i].op != op {
				op, whole = pieces[i].op, r.Float64() < p
			}
			keep[i] = whole
		}
	default:
		for i := range keep {
			keep[i] = r.Float64() < p
		}
	}
}

func fill(b []bool, v bool) {
	for i := range b {
		b[i] = v
	}
}
