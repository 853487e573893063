package blockdev_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// behindAll writes all it can behind.
type behindAll struct{ *blockdev.Behind }

func (b behindAll) WriteAt(p []byte, off int64) (int, error) { return b.WriteBehind(p, off) }

const pageLen = 4096

func behind(t *testing.T, b *blockdev.Behind, p []byte, off int64) {
	t.Helper()
	if n, err := b.WriteBehind(p, off); n != len(p) || err != nil {
		t.Fatalf("WriteBehind(%d bytes, %d) = %d, %v", len(p), off, n, err)
	}
}

// count returns how many writes dev gets while do runs.
func count(dev *blockdev.Fault, do func()) int64 {
	dev.Arm(blockdev.Failure{Ops: blockdev.OpWrite})
	do()
	return dev.Count()
}

// Neighbours are one write, when Sync or somebody who looks there wants them.
func TestBehindTogether(t *testing.T) {
	mem := blockdev.NewMem(mib)
	dev := blockdev.NewFault(mem)
	b := blockdev.NewBehind(dev)
	defer b.Close()
	p := bytes.Repeat([]byte{7}, pageLen)
	if n := count(dev, func() {
		for _, at := range []int64{3, 1, 2, 9} {
			behind(t, b, p, at*pageLen)
		}
	}); n != 0 {
		t.Fatalf("%d writes before there is need", n)
	}
	if n := count(dev, func() { see(t, b, "\x00", 0) }); n != 0 {
		t.Fatalf("%d writes for a read elsewhere", n)
	}
	if n := count(dev, func() {
		if err := b.Sync(); err != nil {
			t.Fatal(err)
		}
	}); n != 2 {
		t.Fatalf("%d writes of two runs", n)
	}
	see(t, mem, "\x07", 3*pageLen+pageLen-1)
	if n := count(dev, func() {
		for at := int64(0); at < 128; at++ {
			behind(t, b, p, at*pageLen)
		}
	}); n != 2 {
		t.Fatalf("%d writes of 128 neighbours", n)
	}
}

// What comes later to the same place is what stays, whoever writes.
func TestBehindOrder(t *testing.T) {
	mem := blockdev.NewMem(mib)
	b := blockdev.NewBehind(mem)
	defer b.Close()
	behind(t, b, bytes.Repeat([]byte{1}, 2*pageLen), pageLen)
	put(t, b, "direct", pageLen+10)
	behind(t, b, bytes.Repeat([]byte{2}, pageLen), 2*pageLen)
	if err := b.ZeroOut(2*pageLen, 5); err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(); err != nil {
		t.Fatal(err)
	}
	see(t, mem, "\x01direct\x01", pageLen+9)
	see(t, mem, "\x00\x00\x00\x00\x00\x02", 2*pageLen)
}

// An error shows at each Sync that follows, and at Close.
func TestBehindError(t *testing.T) {
	dev := blockdev.NewFault(blockdev.NewMem(mib))
	b := blockdev.NewBehind(dev)
	p := make([]byte, pageLen)
	dev.Arm(blockdev.Failure{Ops: blockdev.OpWrite, Nth: 1})
	behind(t, b, p, 0)
	behind(t, b, p, 2*pageLen)
	see(t, b, "\x00", 0) // writes both, the second not in vain
	if err := b.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Sync = %v, want EIO", err)
	}
	if err := b.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("a second Sync = %v, want EIO", err)
	}
	if err := b.Close(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Close = %v, want EIO", err)
	}
	if _, err := b.WriteBehind(p, 0); err == nil {
		t.Fatal("WriteBehind after Close")
	}
}

// Writers of ranges of their own, of both kinds, readers and syncs at once:
// each finds what it wrote.
func TestBehindParallel(t *testing.T) {
	const workers, pages = 8, 200
	b := blockdev.NewBehind(blockdev.NewMem(workers * pages * pageLen))
	defer b.Close()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			var have [pages]byte
			for range 3000 {
				i := r.IntN(pages)
				off := int64(i*workers+w) * pageLen
				switch r.IntN(8) {
				case 0:
					if err := b.Sync(); err != nil {
						t.Error(err)
					}
				case 1, 2, 3:
					got := make([]byte, pageLen)
					if _, err := b.ReadAt(got, off); err != nil || !bytes.Equal(got, bytes.Repeat(have[i:i+1], pageLen)) {
						t.Errorf("page %d reads %d, want %d: %v", off/pageLen, got[0], have[i], err)
						return
					}
				default:
					have[i] = byte(r.Uint32())
					write := b.WriteBehind
					if r.IntN(4) == 0 {
						write = b.WriteAt
					}
					if _, err := write(bytes.Repeat(have[i:i+1], pageLen), off); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}
