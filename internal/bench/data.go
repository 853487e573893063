//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pageSize = 4096
	chunk    = 1 << 20 // of a stream
	depth    = 16
)

// stamp writes at the start of each page what verify expects at that offset of
// the file: a server that is fast with the wrong bytes has failed.
func stamp(p []byte, off int64) {
	for i := 0; i+8 <= len(p); i += pageSize {
		binary.LittleEndian.PutUint64(p[i:], stampAt(off+int64(i)))
	}
}

func stampAt(off int64) uint64 { return uint64(off)*0x9e3779b97f4a7c15 + 1 }

func verify(p []byte, off int64) error {
	for i := 0; i+8 <= len(p); i += pageSize {
		if binary.LittleEndian.Uint64(p[i:]) != stampAt(off+int64(i)) {
			return fmt.Errorf("wrong bytes at offset %d", off+int64(i))
		}
	}
	return nil
}

// pages returns page-aligned memory, as direct I/O wants it, with all pages
// present. The caller frees it by unix.Munmap.
func pages(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
}

// streamWrite writes size bytes in chunks, and syncs.
func streamWrite(b *bed, path string, flags int, size int64) error {
	buf, err := pages(chunk)
	if err != nil {
		return err
	}
	defer unix.Munmap(buf)
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0o644)
	if err != nil {
		return err
	}
	for off := int64(0); off < size && err == nil; off += chunk {
		stamp(buf, off)
		if err = b.ctx.Err(); err == nil {
			_, err = f.WriteAt(buf, off)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// streamRead reads the whole file in chunks.
func streamRead(b *bed, path string, flags int, size int64) error {
	buf, err := pages(chunk)
	if err != nil {
		return err
	}
	defer unix.Munmap(buf)
	f, err := os.OpenFile(path, os.O_RDONLY|flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for off := int64(0); off < size; off += chunk {
		if _, err := f.ReadAt(buf, off); err != nil {
			return err
		}
		if err := verify(buf, off); err != nil {
			return err
		}
		if err := b.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func runStream(b *bed) error {
	size := b.sc.stream
	file, other := b.path("buffered"), b.path("direct")
	all := func(f func(*bed, string, int, int64) error, path string, flags int) func() (work, error) {
		return func() (work, error) { return work{float64(size >> 20), size}, f(b, path, flags, size) }
	}
	return steps(
		b.cold,
		b.doing("write+fsync", all(streamWrite, file, os.O_CREATE|os.O_EXCL)),
		b.cold,
		b.doing("read cold", all(streamRead, file, 0)),
		b.doing("read warm", all(streamRead, file, 0)),
		b.doing("direct write", all(streamWrite, other, os.O_CREATE|os.O_EXCL|unix.O_DIRECT)),
		b.settle,
		b.doing("direct rewrite", all(streamWrite, other, unix.O_DIRECT)),
		b.settle,
		b.doing("direct read", all(streamRead, other, unix.O_DIRECT)),
	)
}

// steps runs functions until one fails.
func steps(list ...func() error) error {
	for _, f := range list {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// doing is measure as a step.
func (b *bed) doing(name string, f func() (work, error)) func() error {
	return func() error { return b.measure(name, f) }
}

// offsets returns distinct page offsets within size bytes, the same for all
// servers: no access finds what another left in a cache.
func (b *bed) offsets(salt uint64, size int64, n int) []int64 {
	rng := rand.New(rand.NewPCG(uint64(b.round), salt))
	perm := rng.Perm(int(size / pageSize))
	out := make([]int64, min(n, len(perm)))
	for i := range out {
		out[i] = int64(perm[i]) * pageSize
	}
	return out
}

// access reads or writes one page at each offset, until time is up, and
// returns how many it did.
func access(b *bed, f *os.File, offs []int64, write bool) (int, error) {
	buf, err := pages(pageSize)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(buf)
	end := time.Now().Add(b.sc.limit)
	for i, off := range offs {
		if i%16 == 0 && (time.Now().After(end) || b.ctx.Err() != nil) {
			return i, b.ctx.Err()
		}
		if write {
			stamp(buf, off)
			_, err = f.WriteAt(buf, off)
		} else if _, err = f.ReadAt(buf, off); err == nil {
			err = verify(buf, off)
		}
		if err != nil {
			return i, err
		}
	}
	return len(offs), nil
}

// accessThreads is access by as many threads as the queue is deep, as buffered
// I/O has no other queue.
func accessThreads(b *bed, f *os.File, offs []int64, write bool) (int, error) {
	counts := make([]int, depth)
	per := len(offs) / depth
	err := b.parallel(depth, func(i int) (err error) {
		counts[i], err = access(b, f, offs[i*per:(i+1)*per], write)
		return err
	})
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return sum, err
}

func runRandom(b *bed) error {
	file, size := b.path("random"), b.sc.random
	salt := uint64(0)
	// io opens the file, accesses it, syncs what was written and counts.
	io := func(flags int, how func(*bed, *os.File, []int64, bool) (int, error), write bool) func() (work, error) {
		salt++
		offs := b.offsets(salt, size, b.sc.ops)
		return func() (work, error) {
			f, err := os.OpenFile(file, os.O_RDWR|flags, 0)
			if err != nil {
				return work{}, err
			}
			defer f.Close()
			n, err := how(b, f, offs, write)
			if err == nil && write {
				err = f.Sync()
			}
			return work{float64(n), int64(n) * pageSize}, err
		}
	}
	return steps(
		b.cold,
		func() error { return streamWrite(b, file, os.O_CREATE|os.O_EXCL, size) },
		b.cold,
		b.doing("direct read q1", io(unix.O_DIRECT, access, false)),
		b.doing("direct read q16", io(unix.O_DIRECT, accessQueue, false)),
		b.doing("direct write q1", io(unix.O_DIRECT, access, true)),
		b.settle,
		b.doing("direct write q16", io(unix.O_DIRECT, accessQueue, true)),
		b.cold,
		b.doing("read cold q1", io(0, access, false)),
		b.cold,
		b.doing("read cold q16", io(0, accessThreads, false)),
		func() error { return streamRead(b, file, 0, size) },
		b.doing("read warm q1", io(0, access, false)),
		b.doing("write+fsync q1", io(0, access, true)),
		b.settle,
		b.doing("write+fsync q16", io(0, accessThreads, true)),
		b.cold,
		func() error { return streamRead(b, file, 0, size) },
	)
}

// syncedWrites writes a page and syncs, n times or until time is up, and
// returns each latency.
func syncedWrites(b *bed, f *os.File, n int) ([]time.Duration, error) {
	var buf [pageSize]byte
	out := make([]time.Duration, 0, n)
	end := time.Now().Add(b.sc.limit)
	for i := range n {
		off := int64(i) * pageSize
		stamp(buf[:], off)
		begun := time.Now()
		if _, err := f.WriteAt(buf[:], off); err != nil {
			return out, err
		}
		if err := f.Sync(); err != nil {
			return out, err
		}
		now := time.Now()
		out = append(out, now.Sub(begun))
		if err := b.ctx.Err(); err != nil {
			return out, err
		}
		if now.After(end) {
			break
		}
	}
	return out, nil
}

func runFsync(b *bed) error {
	const flags = os.O_CREATE | os.O_RDWR
	run := func(path string, lat *[]time.Duration) func() (work, error) {
		return func() (work, error) {
			f, err := os.OpenFile(b.path(path), flags, 0o644)
			if err != nil {
				return work{}, err
			}
			defer f.Close()
			*lat, err = syncedWrites(b, f, b.sc.fsyncs)
			n := len(*lat)
			return work{float64(n), int64(n) * pageSize}, err
		}
	}
	var over, app []time.Duration
	err := steps(
		b.cold,
		func() error {
			return streamWrite(b, b.path("over"), os.O_CREATE, max(chunk, int64(b.sc.fsyncs)*pageSize))
		},
		b.settle,
		b.doing("overwrite+fsync", run("over", &over)),
		b.settle,
		b.doing("append+fsync", run("append", &app)),
		b.settle,
		b.doing("4 threads", func() (work, error) {
			var lats [4][]time.Duration
			err := b.parallel(len(lats), func(i int) error {
				_, err := run(fmt.Sprintf("thread-%d", i), &lats[i])()
				return err
			})
			n := 0
			for _, l := range lats {
				n += len(l)
			}
			return work{float64(n), int64(n) * pageSize}, err
		}),
	)
	if err != nil {
		return err
	}
	slices.Sort(app)
	b.value("append p50", float64(app[len(app)/2].Nanoseconds())/1000)
	b.value("append p99", float64(app[len(app)*99/100].Nanoseconds())/1000)
	return checkAppended(b, "append", len(app))
}

// checkAppended reads back what was synced, after a new mount.
func checkAppended(b *bed, name string, n int) error {
	if err := b.cold(); err != nil {
		return err
	}
	data, err := os.ReadFile(b.path(name))
	if err != nil {
		return err
	}
	if len(data) != n*pageSize {
		return fmt.Errorf("%s has %d bytes, not %d: %w", name, len(data), n*pageSize, io.ErrUnexpectedEOF)
	}
	return verify(data, 0)
}
