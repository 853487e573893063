package ext2fs_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// newImage makes an empty file of size bytes and opens it.
func newImage(t *testing.T, size int64) (string, *blockdev.File) {
	t.Helper()
	path := filepath.Join(testfs.Scratch(t), "image")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	dev, err := blockdev.Open(path, blockdev.Options{Direct: blockdev.DirectOff})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return path, dev
}

// TestFormatOpens makes a file system by the defaults, and writes to it.
func TestFormatOpens(t *testing.T) {
	path, dev := newImage(t, 64<<20)
	testfs.Adopt(t, path)
	r, err := ext2fs.Format(dev, ext2fs.DefaultFormat())
	if err != nil {
		t.Fatal(err)
	}
	if r.JournalBlocks != 1024 {
		t.Errorf("a journal of %d blocks", r.JournalBlocks)
	}
	fs, err := ext2fs.Open(dev, ext2fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create(root, "hello", 0o644, 0, ext2fs.Cred{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("hello\n"), 0); err != nil {
		t.Error(err)
	}
	f.Put()
	root.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFormatFault fails each write and sync in turn: what is left is no file
// system, though there was one before.
func TestFormatFault(t *testing.T) {
	o := ext2fs.DefaultFormat()
	o.UUID, o.HashSeed, o.Time = [16]byte{1}, [16]byte{2}, 1700000000
	o.Blocks, o.Inodes, o.Compat = 2048, 256, o.Compat&^ondisk.CompatHasJournal
	opened := []int64{} // faults that left a file system
	for n := int64(1); ; n++ {
		mem := blockdev.NewMem(8 << 20)
		if _, err := ext2fs.Format(mem, o); err != nil {
			t.Fatal(err)
		}
		dev := blockdev.NewFault(mem)
		dev.Arm(blockdev.Failure{Ops: blockdev.OpWrite | blockdev.OpSync | blockdev.OpDiscard, Nth: n, Err: errFault})
		_, err := ext2fs.Format(dev, o)
		if err == nil {
			// The first write is the one that wipes; when the last sync fails
			// all has been written.
			if n < 6 || len(opened) != 2 || opened[0] != 1 || opened[1] != n-1 {
				t.Errorf("of %d faults those left a file system: %v", n-1, opened)
			}
			return
		}
		if !errors.Is(err, errFault) {
			t.Fatalf("fault %d: %v", n, err)
		}
		if _, err := ext2fs.Open(mem, ext2fs.Options{ReadOnly: true}); err == nil {
			opened = append(opened, n)
		}
	}
}

var errFault = errors.New("injected")
