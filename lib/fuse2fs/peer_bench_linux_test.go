package fuse2fs_test

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/iomappeer"
	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/fuse"
)

// A feeder hands a server one request after the other, to measure what serving
// them takes. Until it is started it is the peer's device.
type feeder struct {
	fuse.Device

	// make puts the i-th request of a thread into p and returns its length.
	make func(thread int, i int64, p []byte) int

	on      atomic.Bool
	threads int32
	seats   [64]atomic.Uintptr // of workers that are fed: where they read to
	taken   atomic.Int32
	each    int64
	count   [64]struct {
		n int64
		_ [56]byte
	}
	failed atomic.Int64
	wg     sync.WaitGroup
	over   chan struct{}
}

// seat returns the number of the worker that reads to p, -1 if enough are fed.
func (f *feeder) seat(p []byte) int {
	at := uintptr(unsafe.Pointer(&p[0]))
	for i := range f.taken.Load() {
		if f.seats[i].Load() == at {
			return int(i)
		}
	}
	for {
		n := f.taken.Load()
		if n == f.threads {
			return -1
		}
		if f.taken.CompareAndSwap(n, n+1) {
			f.seats[n].Store(at)
			return int(n)
		}
	}
}

func (f *feeder) Recv(p []byte) (int, error) {
	if !f.on.Load() {
		n, err := f.Device.Recv(p)
		return n, err
	}
	s := f.seat(p)
	if s < 0 {
		<-f.over
		return f.Device.Recv(p)
	}
	c := &f.count[s]
	if c.n == f.each {
		f.wg.Done()
		<-f.over
		return f.Device.Recv(p)
	}
	n := f.make(s, c.n, p)
	c.n++
	return n, nil
}

func (f *feeder) Send(parts ...[]byte) syscall.Errno {
	if !f.on.Load() {
		return f.Device.Send(parts...)
	}
	switch h := parts[0]; binary.NativeEndian.Uint64(h[8:]) {
	case 0: // a notification
	case 1:
		if binary.NativeEndian.Uint32(h[outError:]) != 0 {
			f.failed.Add(1)
		}
	default:
		return f.Device.Send(parts...)
	}
	return 0
}

// run feeds n requests to each of threads.
func (f *feeder) run(p *peered, threads int, n int64) (wall, cpu time.Duration) {
	p.t.Helper()
	f.threads, f.each, f.over = int32(threads), n, make(chan struct{})
	f.taken.Store(0)
	for i := range f.count {
		f.count[i].n = 0
	}
	f.wg.Add(threads)
	var before, after unix.Rusage
	f.on.Store(true)
	start := time.Now()
	unix.Getrusage(unix.RUSAGE_SELF, &before)
	for range threads { // those that wait at the peer come here with the next request
		go p.Statfs()
	}
	f.wg.Wait()
	unix.Getrusage(unix.RUSAGE_SELF, &after)
	wall = time.Since(start)
	f.on.Store(false)
	close(f.over)
	if n := f.failed.Load(); n > 0 {
		p.t.Errorf("%d requests failed", n)
	}
	of := func(r *unix.Rusage) time.Duration { return time.Duration(r.Utime.Nano() + r.Stime.Nano()) }
	return wall, of(&after) - of(&before)
}

// header makes a request's, with the number 1.
func header(p []byte, op uint32, node uint64, body int) []byte {
	clear(p[:inBody+body])
	binary.NativeEndian.PutUint32(p, uint32(inBody+body))
	binary.NativeEndian.PutUint32(p[inOpcode:], op)
	binary.NativeEndian.PutUint64(p[inUnique:], 1)
	binary.NativeEndian.PutUint64(p[16:], node)
	return p[inBody:]
}

// begin makes a BEGIN.
func begin(p []byte, node uint64, op iomappeer.Op, pos, n int64) int {
	const opBegin = 4094
	b := header(p, opBegin, node, 32)
	binary.NativeEndian.PutUint32(b, uint32(op))
	binary.NativeEndian.PutUint64(b[8:], node)
	binary.NativeEndian.PutUint64(b[16:], uint64(pos))
	binary.NativeEndian.PutUint64(b[24:], uint64(n))
	return inBody + 32
}

// ioend makes an IOEND of a direct write to a hole.
func ioend(p []byte, node uint64, pos, n int64) int {
	b := header(p, opIoend, node, 48)
	binary.NativeEndian.PutUint32(b, iomappeer.IOEndUnwritten|iomappeer.IOEndDirect)
	binary.NativeEndian.PutUint64(b[8:], node)
	binary.NativeEndian.PutUint64(b[16:], uint64(pos))
	binary.NativeEndian.PutUint64(b[24:], ^uint64(0))
	binary.NativeEndian.PutUint64(b[32:], uint64(n))
	return inBody + 48
}

// newFeeder mounts an image, with files of 8 MiB.
func newFeeder(t testing.TB, files int) (*feeder, *peered, []uint64) {
	img := newPeerImage(t, testfs.Spec{Name: "feed", Size: 1 << 30, Journal: "size=64"})
	f := &feeder{}
	dev := img.mem.Clone()
	p := startPeer(t, img, peerOptions{Config: iomappeer.Config{CountOnly: true, NoChecks: true}, dev: dev,
		data: nowhere(dev.Size()), workers: 2, between: func(d fuse.Device) fuse.Device { f.Device = d; return f }})
	var nodes []uint64
	for i := range files {
		h, errno := p.Create(p.Root(), fmt.Sprint(i), 0o644)
		if errno != 0 {
			t.Fatal(errno)
		}
		for range 8 {
			if _, errno := h.Write(make([]byte, mib), h.Inode().Size()); errno != 0 {
				t.Fatal(errno)
			}
		}
		if errno := h.Fsync(false); errno != 0 {
			t.Fatal(errno)
		}
		nodes = append(nodes, h.Inode().NodeID())
	}
	return f, p, nodes
}

// BenchmarkPeerBegin serves BEGINs of extents that are in memory. With two threads
// each has a file of its own, or both the same; cpu-ns/op is what a request takes of
// a processor, and says more than the time where the machine does other work too.
func BenchmarkPeerBegin(b *testing.B) {
	for _, c := range []struct {
		name    string
		op      iomappeer.Op
		threads int
		same    bool
	}{
		{"read", 0, 1, false},
		{"read/2 files", 0, 2, false},
		{"read/2 threads", 0, 2, true},
		{"write", iomappeer.OpWrite, 1, false},
		{"direct write", iomappeer.OpWrite | iomappeer.OpDirect, 1, false},
		{"direct write/2 files", iomappeer.OpWrite | iomappeer.OpDirect, 2, false},
		{"report", iomappeer.OpReport, 1, false},
		{"report/2 files", iomappeer.OpReport, 2, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			f, p, nodes := newFeeder(b, 2)
			f.make = func(thread int, i int64, msg []byte) int {
				node := nodes[thread]
				if c.same {
					node = nodes[0]
				}
				return begin(msg, node, c.op, i%2048*4096, 4096)
			}
			f.run(p, c.threads, 1000)
			b.ReportAllocs()
			b.ResetTimer()
			_, cpu := f.run(p, c.threads, int64(b.N/c.threads+1))
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkPeerIoend serves the BEGIN and the IOEND of direct writes into holes: a
// reservation, and its part in a transaction.
func BenchmarkPeerIoend(b *testing.B) {
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("%d files", threads), func(b *testing.B) {
			f, p, nodes := newFeeder(b, 2)
			const most = 1 << 15 // blocks that are written to at a time
			f.make = func(thread int, i int64, msg []byte) int {
				pos := 16*mib + i/2%most*8192
				if i%2 == 0 {
					return begin(msg, nodes[thread], iomappeer.OpWrite|iomappeer.OpDirect, pos, 4096)
				}
				return ioend(msg, nodes[thread], pos, 4096)
			}
			b.ReportAllocs()
			b.ResetTimer()
			_, cpu := f.run(p, threads, int64(2*b.N/threads+2))
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// To serve a BEGIN takes no memory.
func TestPeerBeginAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops what is pooled")
	}
	for _, op := range []iomappeer.Op{0, iomappeer.OpWrite, iomappeer.OpWrite | iomappeer.OpDirect, iomappeer.OpReport} {
		f, p, nodes := newFeeder(t, 1)
		f.make = func(_ int, i int64, msg []byte) int { return begin(msg, nodes[0], op, i%2048*4096, 4096) }
		f.run(p, 1, 1000)
		const n = 20000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f.run(p, 1, n)
		runtime.ReadMemStats(&after)
		if got := after.Mallocs - before.Mallocs; got > n/20 {
			t.Errorf("BEGIN(%v): %d allocations in %d requests", op, got, n)
		}
	}
}
