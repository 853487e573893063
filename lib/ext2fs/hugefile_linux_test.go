package ext2fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// placed is a run of blocks of a file.
type placed struct {
	at ondisk.Fsblk
	n  uint64
}

// runsOf returns where the data of ip lies, runs that go on joined.
func runsOf(t *testing.T, ip *Inode) (runs []placed) {
	t.Helper()
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	for lblk, end := uint64(0), ip.fs.blocksOf(ip.size()); lblk < end; {
		r, err := ip.mapRun(ondisk.Lblk(lblk), uint32(end-lblk))
		if err != nil || r.state != runWritten {
			t.Fatalf("block %d: state %v, %v", lblk, r.state, err)
		}
		if k := len(runs) - 1; k >= 0 && runs[k].at+ondisk.Fsblk(runs[k].n) == r.pblk {
			runs[k].n += uint64(r.n)
		} else {
			runs = append(runs, placed{r.pblk, uint64(r.n)})
		}
		lblk += uint64(r.n)
	}
	return runs
}

// Files get the first free blocks from a place on, in their order, also where
// free space is in pieces, so many that their extent tree takes blocks.
func TestPlaceBlocks(t *testing.T) {
	for _, cluster := range []int{0, 16 << 10} {
		path := filepath.Join(testfs.Scratch(t), "image")
		if err := os.WriteFile(path, bytes.Repeat([]byte{0xee}, 64<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		testfs.Adopt(t, path)
		dev, err := blockdev.Open(path, blockdev.Options{Direct: blockdev.DirectOff})
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		o := DefaultFormat()
		o.BlockSize, o.ClusterSize, o.Inodes, o.Discard = 1024, cluster, 2048, false
		o.Compat &^= ondisk.CompatResizeInode
		ratio := uint64(1)
		if cluster != 0 {
			o.ROCompat |= ondisk.ROCompatBigalloc
			ratio = uint64(cluster) / 1024
		}
		if _, err := Format(dev, o); err != nil {
			t.Fatal(err)
		}
		fs, err := Open(dev, Options{NoLoad: true, Populating: true})
		if err != nil {
			t.Fatal(err)
		}
		root, err := fs.Iget(ondisk.RootIno)
		if err != nil {
			t.Fatal(err)
		}
		create := func(name string) *Inode {
			ip, err := fs.Create(root, name, ondisk.ModeReg|0o600, 0, Cred{Verbatim: true, Near: true})
			if err != nil {
				t.Fatal(err)
			}
			return ip
		}
		place := func(name string, o PlaceOptions) ([]placed, ondisk.Fsblk, error) {
			ip := create(name)
			defer ip.Put()
			next, err := ip.PlaceBlocks(o)
			return runsOf(t, ip), next, err
		}
		// Every other one of many short files goes away again.
		const pieces = 600
		first, free, err := fs.NextFree(20000)
		if err != nil || first < 20000 || free < 2*pieces {
			t.Fatalf("free: %d blocks at %d, %v", free, first, err)
		}
		at := first
		var holes []placed
		for i := range pieces {
			runs, next, err := place(fmt.Sprint("f", i), PlaceOptions{At: at, Blocks: ratio})
			if err != nil || len(runs) != 1 || next != runs[0].at+ondisk.Fsblk(ratio) {
				t.Fatalf("piece %d: %v, next %d, %v", i, runs, next, err)
			}
			if i%2 == 1 {
				holes = append(holes, runs[0])
			}
			at = next
		}
		for i := 1; i < pieces; i += 2 {
			if err := fs.Unlink(root, fmt.Sprint("f", i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := fs.Sync(); err != nil {
			t.Fatal(err)
		}
		blocks := (pieces/2)*ratio + 5*ratio
		runs, next, err := place("big", PlaceOptions{At: first, Blocks: blocks, Zero: true})
		if err != nil {
			t.Fatal(err)
		}
		// The last hole is followed by what comes after the last piece.
		n := uint64(0)
		for i, r := range runs {
			if i < len(holes)-1 && r != holes[i] || i == len(holes)-1 && r.at != holes[i].at {
				t.Fatalf("run %d is %v, not %v", i, r, holes[i])
			}
			n += r.n
		}
		if n != blocks || next != at+ondisk.Fsblk(5*ratio) {
			t.Errorf("%d blocks in %d runs, next %d, want %d", n, len(runs), next, at+ondisk.Fsblk(5*ratio))
		}
		ip, err := fs.Lookup(root, "big")
		if err != nil {
			t.Fatal(err)
		}
		if d := ip.raw.Base().Block[6]; d == 0 { // eh_depth
			t.Error("an extent tree without nodes")
		}
		data := make([]byte, ip.Size())
		if k, err := ip.ReadAt(data, 0); k != len(data) || len(bytes.Trim(data, "\x00")) != 0 {
			t.Errorf("%d bytes of %d read, which are not zeros; %v", k, len(data), err)
		}
		if _, err := ip.PlaceBlocks(PlaceOptions{At: 1, Blocks: 1}); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("a file that has data: %v", err)
		}
		ip.Put()
		stopped := errors.New("stopped")
		if _, _, err := place("stopped", PlaceOptions{At: next, Stop: func() error { return stopped }}); !errors.Is(err, stopped) {
			t.Errorf("Stop: %v", err)
		}
		// All that is left of the end, then nothing; what failed keeps what it got.
		last := fs.FreeSpace().Free
		runs, next, err = place("rest", PlaceOptions{At: next})
		if err != nil || next != fs.blocks || len(runs) == 0 {
			t.Errorf("the rest: %v, next %d of %d, %v", runs, next, fs.blocks, err)
		}
		if _, _, err := place("none", PlaceOptions{At: next}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("after the end: %v", err)
		}
		if now := fs.FreeSpace().Free; now >= last {
			t.Errorf("%d blocks are free, were %d", now, last)
		}
		runs, _, err = place("all", PlaceOptions{Blocks: fs.FreeSpace().Free + ratio})
		if !errors.Is(err, syscall.ENOSPC) || len(runs) == 0 {
			t.Errorf("more than there is: %d runs, %v", len(runs), err)
		}
		root.Put()
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	}
}
