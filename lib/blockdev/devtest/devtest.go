// Package devtest is the suite of tests that every blockdev.Device passes.
package devtest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// minSize is what the suite needs, in bytes.
const minSize = 256 << 10

// Run tests the device that open returns, which is a fresh one at each call, of
// 256 KiB or more, of any content; the suite closes it. Of a read-only device
// it tests the reading, and that nothing can be written.
func Run(t *testing.T, open func(t *testing.T) blockdev.Device) {
	probe := open(t)
	readOnly := blockdev.InfoOf(probe).ReadOnly
	if probe.Size() < minSize {
		t.Fatalf("a device of %d bytes is too small for the suite", probe.Size())
	}
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		writes bool
		f      func(*testing.T, blockdev.Device)
	}{
		{"Bounds", false, testBounds},
		{"ReadOnly", false, testReadOnly},
		{"Describe", false, testDescribe},
		{"Closed", false, testClosed},
		{"CloseUnderLoad", false, testCloseUnderLoad},
		{"WriteBounds", true, testWriteBounds},
		{"Unaligned", true, testUnaligned},
		{"Zero", true, testZero},
		{"Discard", true, testDiscard},
		{"Vectored", true, testVectored},
		{"Neighbours", true, testNeighbours},
		{"Model", true, testModel},
	}
	for _, tt := range tests {
		if tt.writes && readOnly {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			dev := open(t)
			defer dev.Close()
			tt.f(t, dev)
		})
	}
}

// pattern returns n bytes that differ by seed and from place to place.
func pattern(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32() | 1) // never zero
	}
	return b
}

func write(t *testing.T, dev blockdev.Device, p []byte, off int64) {
	t.Helper()
	if n, err := dev.WriteAt(p, off); n != len(p) || err != nil {
		t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
	}
}

func check(t *testing.T, dev blockdev.Device, want []byte, off int64) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := dev.ReadAt(got, off); n != len(got) || err != nil {
		t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", len(got), off, n, err)
	}
	if !bytes.Equal(got, want) {
		i := 0
		for got[i] == want[i] {
			i++
		}
		t.Fatalf("byte %d is %#x, want %#x (of %d at %d)", off+int64(i), got[i], want[i], len(want), off)
	}
}

func testBounds(t *testing.T, dev blockdev.Device) {
	size := dev.Size()
	buf := make([]byte, 100)
	for _, tt := range []struct {
		off  int64
		n    int
		want error
	}{
		{0, 100, nil},
		{size - 100, 100, nil},
		{size - 40, 40, io.ErrUnexpectedEOF},
		{size - 1, 1, io.ErrUnexpectedEOF},
		{size, 0, io.EOF},
		{size + 1, 0, io.EOF},
		{1 << 62, 0, io.EOF},
		{1<<63 - 1, 0, io.EOF},
		{-1, 0, syscall.EINVAL},
		{-1 << 63, 0, syscall.EINVAL},
	} {
		n, err := dev.ReadAt(buf, tt.off)
		if n != tt.n || !errors.Is(err, tt.want) {
			t.Errorf("ReadAt(100 bytes, %d) = %d, %v; want %d, %v", tt.off, n, err, tt.n, tt.want)
		}
	}
	if n, err := dev.ReadAt(nil, 0); n != 0 || err != nil {
		t.Errorf("empty read: %d, %v", n, err)
	}
	if n, err := blockdev.ReadvAt(dev, [][]byte{buf[:50], buf[50:]}, size-60); n != 60 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadvAt over the end: %d, %v", n, err)
	}
	if dev.Size() != size {
		t.Errorf("size went from %d to %d", size, dev.Size())
	}
}

func testReadOnly(t *testing.T, dev blockdev.Device) {
	if !blockdev.InfoOf(dev).ReadOnly {
		return
	}
	before := make([]byte, 8192)
	if _, err := dev.ReadAt(before, 0); err != nil {
		t.Fatal(err)
	}
	_, err := dev.WriteAt(pattern(4096, 1), 0)
	_, errv := blockdev.WritevAt(dev, [][]byte{pattern(4096, 1)}, 0)
	for op, err := range map[string]error{
		"WriteAt":  err,
		"WritevAt": errv,
		"Discard":  dev.Discard(0, 4096),
		"ZeroOut":  dev.ZeroOut(0, 4096),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v, want EROFS", op, err)
		}
	}
	if err := dev.Sync(); err != nil {
		t.Errorf("Sync: %v", err)
	}
	check(t, dev, before, 0)
}

func testDescribe(t *testing.T, dev blockdev.Device) {
	if a := blockdev.Align(dev); a < 1 || a&(a-1) != 0 {
		t.Errorf("Align is %d", a)
	}
	i := blockdev.InfoOf(dev)
	if i.LogicalBlock < 512 || i.PhysicalBlock < i.LogicalBlock || i.DiscardGranularity < 0 {
		t.Errorf("info: %+v", i)
	}
}

func testClosed(t *testing.T, dev blockdev.Device) {
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 512)
	_, errR := dev.ReadAt(buf, 0)
	_, errW := dev.WriteAt(buf, 0)
	_, errRv := blockdev.ReadvAt(dev, [][]byte{buf}, 0)
	_, errWv := blockdev.WritevAt(dev, [][]byte{buf}, 0)
	ro := blockdev.InfoOf(dev).ReadOnly
	for op, err := range map[string]error{
		"ReadAt":   errR,
		"WriteAt":  errW,
		"ReadvAt":  errRv,
		"WritevAt": errWv,
		"Sync":     dev.Sync(),
		"Discard":  dev.Discard(0, 512),
		"ZeroOut":  dev.ZeroOut(0, 512),
		"Close":    dev.Close(),
	} {
		if !errors.Is(err, os.ErrClosed) && !(ro && errors.Is(err, syscall.EROFS)) {
			t.Errorf("%s after Close: %v", op, err)
		}
	}
}

// testCloseUnderLoad closes while others read: each read works or finds the
// device closed.
func testCloseUnderLoad(t *testing.T, dev blockdev.Device) {
	var wg sync.WaitGroup
	started := make(chan bool, 4)
	for range 4 {
		wg.Go(func() {
			buf := make([]byte, 4096)
			for i := 0; ; i++ {
				_, err := dev.ReadAt(buf, int64(i%8)*4096)
				if i == 0 {
					started <- true
				}
				if err != nil {
					if !errors.Is(err, os.ErrClosed) {
						t.Errorf("read while closing: %v", err)
					}
					return
				}
			}
		})
	}
	for range 4 {
		<-started
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func testWriteBounds(t *testing.T, dev blockdev.Device) {
	size := dev.Size()
	tail := pattern(4096, 2)
	write(t, dev, tail, size-4096)
	p := pattern(8192, 3)
	for _, off := range []int64{size - 4096, size - 1, size, size + 512, 1 << 62, 1<<63 - 1} {
		if n, err := dev.WriteAt(p, off); n != 0 || !errors.Is(err, syscall.EIO) {
			t.Errorf("WriteAt(8192 bytes, %d) = %d, %v", off, n, err)
		}
		if n, err := blockdev.WritevAt(dev, [][]byte{p[:4096], p[4096:]}, off); n != 0 || !errors.Is(err, syscall.EIO) {
			t.Errorf("WritevAt(8192 bytes, %d) = %d, %v", off, n, err)
		}
		if err := dev.ZeroOut(off, 8192); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("ZeroOut(%d, 8192): %v", off, err)
		}
		if err := dev.Discard(off, 8192); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("Discard(%d, 8192): %v", off, err)
		}
	}
	if _, err := dev.WriteAt(p, -1); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("write at -1: %v", err)
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {1, 1<<63 - 1}} {
		if err := dev.ZeroOut(r[0], r[1]); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("ZeroOut(%d, %d): %v", r[0], r[1], err)
		}
	}
	if n, err := dev.WriteAt(nil, 0); n != 0 || err != nil {
		t.Errorf("empty write: %d, %v", n, err)
	}
	if err := dev.ZeroOut(0, 0); err != nil {
		t.Errorf("empty ZeroOut: %v", err)
	}
	check(t, dev, tail, size-4096)
	if dev.Size() != size {
		t.Errorf("size went from %d to %d", size, dev.Size())
	}
}

// testUnaligned writes and reads odd ranges from odd addresses.
func testUnaligned(t *testing.T, dev blockdev.Device) {
	const span = 64 << 10
	want := pattern(span, 4)
	write(t, dev, want, 0)
	for i, r := range [][2]int{
		{0, 1}, {1, 1}, {511, 2}, {512, 512}, {1024, 1024}, {4095, 2}, {4096, 4096},
		{100, 8000}, {3, 4093}, {8192, 4097}, {8191, 1}, {5000, 20000}, {span - 1, 1},
	} {
		p := pattern(r[1]+1, uint64(10+i))[1:]
		write(t, dev, p, int64(r[0]))
		copy(want[r[0]:], p)
		got := make([]byte, r[1]+1)[1:]
		if _, err := dev.ReadAt(got, int64(r[0])); err != nil || !bytes.Equal(got, p) {
			t.Fatalf("read back of %d bytes at %d: %v", r[1], r[0], err)
		}
		check(t, dev, want, 0)
	}
	check(t, dev, want[777:40000], 777)
	if err := dev.Sync(); err != nil {
		t.Fatal(err)
	}
	check(t, dev, want, 0)
}

func testZero(t *testing.T, dev blockdev.Device) {
	const span = 256 << 10
	for i, r := range [][2]int{
		{0, 4096}, {4096, 8192}, {512, 512}, {1, 1}, {4095, 2}, {100, 100000},
		{0, span}, {65536, 131072}, {1000, span - 2000},
	} {
		want := pattern(span, uint64(30+i))
		write(t, dev, want, 0)
		if err := dev.ZeroOut(int64(r[0]), int64(r[1])); err != nil {
			t.Fatalf("ZeroOut(%d, %d): %v", r[0], r[1], err)
		}
		clear(want[r[0]:][:r[1]])
		check(t, dev, want, 0)
	}
	p := pattern(5000, 40)
	write(t, dev, p, 3000) // into what is zero
	check(t, dev, p, 3000)
}

func testDiscard(t *testing.T, dev blockdev.Device) {
	const span = 256 << 10
	want := pattern(span, 50)
	write(t, dev, want, 0)
	lo, hi := 5000, span-5000
	err := dev.Discard(int64(lo), int64(hi-lo))
	if errors.Is(err, errors.ErrUnsupported) {
		check(t, dev, want, 0)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	check(t, dev, want[:lo], 0)
	check(t, dev, want[hi:], int64(hi))
	write(t, dev, want, 0)
	check(t, dev, want, 0)
}

func testVectored(t *testing.T, dev blockdev.Device) {
	const span = 128 << 10
	r := rand.New(rand.NewPCG(60, 1))
	for _, unit := range []int{4096, 512, 1} {
		for _, off := range []int64{0, 4096, 1024, 777} {
			want := pattern(span, uint64(61+unit))
			var out, in [][]byte
			src, dst := blockdev.AlignedBuf(span, 4096), blockdev.AlignedBuf(span, 4096)
			copy(src, want)
			for at := 0; at < span; {
				n := min(span-at, unit*r.IntN(8192/min(unit*4, 4096)))
				out, in = append(out, src[at:at+n]), append(in, dst[at:at+n])
				at += n
			}
			if n, err := blockdev.WritevAt(dev, out, off); n != span || err != nil {
				t.Fatalf("WritevAt(%d) of %d buffers: %d, %v", off, len(out), n, err)
			}
			check(t, dev, want, off)
			if n, err := blockdev.ReadvAt(dev, in, off); n != span || err != nil {
				t.Fatalf("ReadvAt(%d) of %d buffers: %d, %v", off, len(in), n, err)
			}
			if !bytes.Equal(dst, want) {
				t.Fatalf("ReadvAt(%d) read something else", off)
			}
		}
	}
	if n, err := blockdev.WritevAt(dev, nil, 0); n != 0 || err != nil {
		t.Errorf("WritevAt of nothing: %d, %v", n, err)
	}
}

// testNeighbours has writers on ranges that share sectors but no byte, and one
// that zeroes beside them: none may undo another.
func testNeighbours(t *testing.T, dev blockdev.Device) {
	const piece, writers, rounds = 700, 8, 40
	var wg sync.WaitGroup
	last := make([][]byte, writers)
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				p := pattern(piece, uint64(1000*w+i))
				off := int64(w * piece)
				if w == writers-1 && i%2 == 0 {
					clear(p)
					if err := dev.ZeroOut(off, piece); err != nil {
						t.Errorf("ZeroOut: %v", err)
					}
				} else if _, err := dev.WriteAt(p, off); err != nil {
					t.Errorf("WriteAt: %v", err)
				}
				got := make([]byte, piece)
				if _, err := dev.ReadAt(got, off); err != nil || !bytes.Equal(got, p) {
					t.Errorf("writer %d, round %d: bytes of others changed mine (%v)", w, i, err)
					return
				}
				last[w] = p
			}
		})
	}
	wg.Wait()
	if !t.Failed() {
		check(t, dev, bytes.Join(last, nil), 0)
	}
}

// testModel does random things to the device and to a slice.
func testModel(t *testing.T, dev blockdev.Device) {
	const span, steps = minSize, 600
	model := pattern(span, 70)
	write(t, dev, model, 0)
	r := rand.New(rand.NewPCG(71, 1))
	for i := range steps {
		unit := []int{1, 512, 4096}[r.IntN(3)]
		off := r.IntN(span/unit) * unit
		n := min(span-off, (1+r.IntN(max(1, 20000/unit)))*unit)
		switch r.IntN(8) {
		case 0, 1, 2:
			p := pattern(n, uint64(i))
			write(t, dev, p, int64(off))
			copy(model[off:], p)
		case 3:
			if err := dev.ZeroOut(int64(off), int64(n)); err != nil {
				t.Fatal(err)
			}
			clear(model[off:][:n])
		case 4:
			if err := dev.Sync(); err != nil {
				t.Fatal(err)
			}
		default:
			check(t, dev, model[off:][:n], int64(off))
		}
	}
	check(t, dev, model, 0)
}
