package ext2fs

import (
	"fmt"
	"iter"
	"runtime"
	"sync"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// ScanWhat says which inodes a scan visits.
type ScanWhat int

const (
	ScanUsed ScanWhat = iota // those of the part of each table that was ever used
	ScanAll                  // all
)

// scanChunk is how many bytes of an inode table, or of a directory, are read at a
// time: what the caches of a CPU hold.
const scanChunk = 256 << 10

// scanPart is a part of an inode table.
type scanPart struct {
	group ondisk.Group
	at    ondisk.Fsblk // first block
	first ondisk.Ino
	n     uint32 // inodes
}

// parts yields what a scan reads, in order of inode number; in place of a table
// that is nowhere, an error.
func (r *Raw) parts(what ScanWhat) iter.Seq2[scanPart, error] {
	geo := r.geo
	per := uint32(max(scanChunk/geo.blockSize, 1)) * geo.inodesPerBlock
	return func(yield func(scanPart, error) bool) {
		for g := range geo.groups {
			n, table, err := r.tableOf(g, what)
			if err == nil && n > 0 {
				err = r.inRange(table, 1)
			}
			if err != nil && !yield(scanPart{group: g}, err) {
				return
			}
			for done := uint32(0); done < n && err == nil; done += per {
				p := scanPart{g, table + ondisk.Fsblk(done/geo.inodesPerBlock), ondisk.Ino(uint32(g)*geo.inodesPerGroup + done + 1), min(per, n-done)}
				if !yield(p, nil) {
					return
				}
			}
		}
	}
}

// scan calls fn with the inodes of a part, which it reads into buf.
func (r *Raw) scan(p scanPart, buf []byte, fn func(ino ondisk.Ino, raw ondisk.RawInode) bool) error {
	geo := r.geo
	blocks := (p.n + geo.inodesPerBlock - 1) / geo.inodesPerBlock
	if err := r.ReadBlocks(buf[:int(blocks)*geo.blockSize], p.at); err != nil {
		return tableErr(p.group, err)
	}
	for i := range p.n {
		off := int(i) * geo.inodeSize
		if !fn(p.first+ondisk.Ino(i), ondisk.RawInode(buf[off:off+geo.inodeSize:off+geo.inodeSize])) {
			return nil
		}
	}
	return nil
}

func tableErr(g ondisk.Group, err error) error {
	return fmt.Errorf("inode table of group %d: %w", g, err)
}

// EachInode calls fn with inodes in order of their number, whether or not they
// are in use, until it returns false. raw is valid, and may be changed, during
// the call.
type EachInode func(fn func(ino ondisk.Ino, raw ondisk.RawInode) bool)

// ScanInodes looks at all inodes, by several goroutines. Each part of an inode
// table is given to visit, by any of them, with a Raw of that goroutine's own.
// What visit returns is given to merge, by the caller's goroutine and in order
// of inode number, until that returns false. Parts that cannot be read are
// left out; the first such error is returned at the end. Nobody may write
// meanwhile.
func ScanInodes[T any](r *Raw, what ScanWhat, visit func(r *Raw, each EachInode) T, merge func(T) bool) error {
	type result struct {
		v   T
		err error
	}
	type job struct {
		part scanPart
		done chan result
	}
	workers := runtime.GOMAXPROCS(0)
	raws := make([]*Raw, 1+workers)
	for i := range raws {
		raws[i] = r.Clone()
	}
	jobs := make(chan job)
	order := make(chan job, 2*workers) // what is under way, or waits to be merged
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Add(1 + workers)
	go func() {
		defer running.Done()
		defer close(order)
		defer close(jobs)
		for p, err := range raws[workers].parts(what) {
			j := job{p, make(chan result, 1)}
			select {
			case order <- j:
			case <-stop:
				return
			}
			if err != nil {
				j.done <- result{err: tableErr(p.group, err)}
				continue
			}
			select {
			case jobs <- j:
			case <-stop:
				return
			}
		}
	}()
	for _, r := range raws[:workers] {
		go func() {
			defer running.Done()
			size := max(scanChunk, r.geo.blockSize)
			buf := make([]byte, size)
			r.ahead = &readAhead{buf: make([]byte, size)}
			for j := range jobs {
				var res result
				res.v = visit(r, func(fn func(ino ondisk.Ino, raw ondisk.RawInode) bool) { res.err = r.scan(j.part, buf, fn) })
				j.done <- res
			}
		}()
	}
	var bad error
	for j := range order {
		res := <-j.done
		bad = firstErr(bad, res.err)
		if !merge(res.v) {
			break
		}
	}
	close(stop)
	running.Wait()
	return bad
}

// tableOf returns how many inodes of group g there are to visit, and where the
// table starts.
func (r *Raw) tableOf(g ondisk.Group, what ScanWhat) (n uint32, table ondisk.Fsblk, err error) {
	b, off, err := r.descIn(g)
	if err != nil {
		return 0, 0, err
	}
	d := ondisk.Desc(b[off : off+r.geo.descSize])
	n = r.geo.inodesPerGroup
	if what == ScanUsed && r.hasUninit() {
		if d.HasFlag(ondisk.BGInodeUninit) {
			n = 0
		} else {
			n -= min(d.ItableUnused(), n)
		}
	}
	return n, d.InodeTable(), nil
}
