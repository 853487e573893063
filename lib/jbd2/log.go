package jbd2

import (
	"fmt"
	"slices"
	"sync"
)

// run is a stretch of the log that lies in one piece on the device.
type run struct {
	log, n uint32
	dev    uint64
}

// mapping remembers where the log lies.
type mapping struct {
	mu   sync.Mutex
	runs []run // guarded by mu; sorted by log, disjoint
}

// mapChunk is how many blocks are asked for at once of a Map that answers for
// one block only.
const mapChunk = 1024

// devRun returns where log block n lies, and how many blocks from it on, at
// most limit, lie there in one piece.
func (j *Journal) devRun(n, limit uint32) (dev uint64, count uint32, err error) {
	if n >= j.cfg.Blocks {
		return 0, 0, corrupt("log", n, "block is past the end")
	}
	if j.cfg.Map == nil && j.cfg.MapRun == nil {
		return uint64(n), min(limit, j.cfg.Blocks-n), nil
	}
	j.maps.mu.Lock()
	defer j.maps.mu.Unlock()
	i, found := slices.BinarySearchFunc(j.maps.runs, n, func(r run, n uint32) int {
		switch {
		case n < r.log:
			return 1
		case n-r.log >= r.n:
			return -1
		}
		return 0
	})
	if !found {
		r, err := j.askMap(n)
		if err != nil {
			return 0, 0, err
		}
		if i < len(j.maps.runs) {
			r.n = min(r.n, j.maps.runs[i].log-n)
		}
		if i > 0 {
			if p := &j.maps.runs[i-1]; p.log+p.n == r.log && p.dev+uint64(p.n) == r.dev {
				p.n += r.n
				return r.dev, min(limit, r.n), nil
			}
		}
		j.maps.runs = slices.Insert(j.maps.runs, i, r)
	}
	r := j.maps.runs[i]
	return r.dev + uint64(n-r.log), min(limit, r.n-(n-r.log)), nil
}

// askMap asks the configuration for a run that starts at n.
func (j *Journal) askMap(n uint32) (run, error) {
	if j.cfg.MapRun != nil {
		dev, count, err := j.cfg.MapRun(n)
		if err == nil && count == 0 {
			err = corrupt("log", n, "block is not mapped")
		}
		return run{n, min(count, j.cfg.Blocks-n), dev}, err
	}
	dev, err := j.cfg.Map(n)
	if err != nil {
		return run{}, err
	}
	r := run{n, 1, dev}
	for r.n < min(mapChunk, j.cfg.Blocks-n) {
		d, err := j.cfg.Map(n + r.n)
		if err != nil || d != dev+uint64(r.n) {
			break // the next call reports the error, if anyone asks for that block
		}
		r.n++
	}
	return r, nil
}

// readLog fills p, a multiple of the block size, from log block n on.
func (j *Journal) readLog(n uint32, p []byte) error {
	return j.eachRun(n, p, func(q []byte, off int64) error {
		_, err := j.dev.ReadAt(q, off)
		return err
	}, "read")
}

// writeLog writes p, a multiple of the block size, at log block n. It does not
// wrap.
func (j *Journal) writeLog(n uint32, p []byte) error {
	return j.eachRun(n, p, func(q []byte, off int64) error {
		_, err := j.dev.WriteAt(q, off)
		return err
	}, "write")
}

func (j *Journal) eachRun(n uint32, p []byte, do func([]byte, int64) error, what string) error {
	for len(p) > 0 {
		dev, count, err := j.devRun(n, uint32(len(p)/j.bsize))
		if err != nil {
			return fmt.Errorf("%s journal: %w", what, err)
		}
		if dev >= uint64(j.dev.Size())/uint64(j.bsize) {
			return fmt.Errorf("%s journal: %w", what, corrupt("log", n, "mapped past the end of the device, to %d", dev))
		}
		size := int(count) * j.bsize
		if err := do(p[:size], int64(dev)*int64(j.bsize)); err != nil {
			return fmt.Errorf("%s journal: log block %d: %w", what, n, err)
		}
		p = p[size:]
		n += count
	}
	return nil
}

// ReadBlock reads block n of the log, as it is, into p, of a block's size.
func (j *Journal) ReadBlock(n uint32, p []byte) error { return j.readLog(n, p[:j.bsize]) }

// syncLog makes what was written to the log durable.
func (j *Journal) syncLog() error {
	if !j.cfg.Barrier {
		return nil
	}
	return j.dev.Sync()
}

// syncFS makes what was written home durable.
func (j *Journal) syncFS() error {
	if !j.cfg.Barrier {
		return nil
	}
	return j.fsdev.Sync()
}

// wrap brings n, a block number counted on past the end of the log, back into
// it.
func (j *Journal) wrap(n uint32) uint32 {
	if n >= j.last {
		n -= j.last - j.first
	}
	return n
}

// logBlocks returns where the log lies on the file system's device, sorted by
// device block; nothing if it lies elsewhere.
func (j *Journal) logBlocks() ([]run, error) {
	if j.cfg.Map == nil && j.cfg.MapRun == nil || j.dev != j.fsdev {
		return nil, nil
	}
	for n := uint32(0); n < j.total; {
		_, count, err := j.devRun(n, j.total-n)
		if err != nil {
			return nil, err
		}
		n += count
	}
	j.maps.mu.Lock()
	defer j.maps.mu.Unlock()
	runs := slices.Clone(j.maps.runs)
	slices.SortFunc(runs, func(a, b run) int {
		switch {
		case a.dev < b.dev:
			return -1
		case a.dev > b.dev:
			return 1
		}
		return 0
	})
	return runs, nil
}

// covers tells whether one of the runs, sorted by device block, has blk.
func covers(runs []run, blk uint64) bool {
	_, found := slices.BinarySearchFunc(runs, blk, func(r run, blk uint64) int {
		switch {
		case blk < r.dev:
			return 1
		case blk-r.dev >= uint64(r.n):
			return -1
		}
		return 0
	})
	return found
}
