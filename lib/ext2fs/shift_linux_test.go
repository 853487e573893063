package ext2fs

import (
	"errors"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestShiftNoSpace moves extents of a file by a block while there is none for
// another node of its tree: all that the file had it still has.
func TestShiftNoSpace(t *testing.T) {
	const extents = 500
	for _, mode := range []uint32{FallocCollapse, FallocInsert} {
		img := testfs.Mke2fs(t, testfs.Spec{Size: 16 << 20, BlockSize: 1024, Journal: "size=1"})
		fs := openImage(t, img, Options{})
		ip := newFile(t, fs, "file")
		for i := int64(1); i <= extents; i++ {
			if _, err := ip.WriteAt([]byte{1}, 2*i*1024); err != nil {
				t.Fatal(err)
			}
		}
		if err := fs.Sync(); err != nil {
			t.Fatal(err)
		}
		ip.dropMap()
		type piece struct {
			at ondisk.Fsblk
			n  uint32
		}
		var taken []piece
		for {
			at, n, err := fs.reserveNow(0, 1024, 1, 0)
			if errors.Is(err, syscall.ENOSPC) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			taken = append(taken, piece{at, n})
		}
		if err := ip.Fallocate(mode, 1024, 1024); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("mode %#x: %v, want ENOSPC", mode, err)
		}
		have := 0
		if err := ip.eachRun(0, 1<<32, func(r run) error {
			if r.state != runHole {
				have += int(r.n)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if have != extents {
			t.Errorf("mode %#x: %d blocks of %d are left", mode, have, extents)
		}
		for _, p := range taken {
			fs.unreserve(p.at, p.n)
		}
		ip.Put()
		if err := fs.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
