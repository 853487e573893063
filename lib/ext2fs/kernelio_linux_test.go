package ext2fs

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/iomap"
)

// heapOf returns the bytes in use, without garbage.
func heapOf() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestHeldMemory has a kernel hold 100,000 inodes, and then reserve blocks of each
// for writes that do not come. What that takes of memory stays bounded, since the
// kernel is asked to let go of what it does not use.
func TestHeldMemory(t *testing.T) {
	const files = 100_000
	if testing.Short() {
		t.Skip("short")
	}
	img := testfs.Mke2fs(t, testfs.Spec{Name: "many", Size: 1 << 30, Inodes: files + 5000, Journal: "size=64"})
	dev, err := blockdev.Open(img.Path, blockdev.Options{Direct: blockdev.DirectOff})
	if err != nil {
		t.Fatal(err)
	}
	fs, err := Open(dev, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	pruned := 0
	fs.SetKernelIO(KernelIO{On: true, Squeeze: func(inodes []ondisk.Ino) {
		mu.Lock()
		pruned += len(inodes)
		mu.Unlock()
		for _, ino := range inodes {
			fs.Release(ino, 1)
		}
	}})
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	var inos []ondisk.Ino
	for i := range files {
		ip, err := fs.Create(root, fmt.Sprint(i), 0o644, 0, Cred{})
		if err != nil {
			t.Fatal(err)
		}
		fs.Hold(ip.Ino())
		inos = append(inos, ip.Ino())
		ip.Put()
	}
	if err := fs.Sync(); err != nil {
		t.Fatal(err)
	}
	held := heapOf()
	for _, ino := range inos {
		ip, err := fs.Iget(ino)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ip.KernelBegin(iomap.Write, 0, 4096); err != nil {
			t.Fatal(err)
		}
		ip.Put()
	}
	kept, n := heapOf(), len(fs.ic.keptInodes())
	t.Logf("%d inodes are held in %d KiB of heap; with reservations %d KiB, for %d that are kept of %d that the kernel let go", files,
		held>>10, kept>>10, n, pruned)
	const most = 96 << 20
	if held > most || kept > most {
		t.Errorf("%d and %d MiB are in use, want at most %d", held>>20, kept>>20, most>>20)
	}
	if n > keptMost+keptStep {
		t.Errorf("%d inodes are kept for their reservations", n)
	}
	for _, ino := range inos {
		fs.Release(ino, 1)
	}
	if n := fs.reserved.Load(); n != 0 {
		t.Errorf("%d clusters are reserved for nobody", n)
	}
	root.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMigrateHandedOut has the owner of a file change how it maps its blocks while
// the kernel writes to one: nobody else gets that block.
func TestMigrateHandedOut(t *testing.T) {
	fs := openImage(t, testfs.Mke2fs(t, testfs.Spec{Name: "migrate", Size: 16 << 20}), Options{})
	fs.SetKernelIO(KernelIO{On: true})
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Put()
	var at [2]uint64
	var ips [2]*Inode
	for i := range ips {
		ip, err := fs.Create(root, fmt.Sprint(i), 0o644, 0, Cred{})
		if err != nil {
			t.Fatal(err)
		}
		fs.Hold(ip.Ino())
		p, err := ip.KernelBegin(iomap.Write, 0, 4096)
		if err != nil {
			t.Fatal(err)
		}
		ips[i], at[i] = ip, p.Read.Addr
		if i == 0 {
			if err := ip.SetFlags(ip.Flags() &^ ondisk.FlagExtents); err != nil {
				t.Fatal(err)
			}
		}
	}
	if at[0] == at[1] {
		t.Errorf("both files write to %d", at[0])
	}
	for i, ip := range ips {
		if _, err := ip.IOEnd(iomap.IOEnd{Flags: iomap.EndUnwritten | iomap.EndAppend, Written: 4096, Addr: iomap.NullAddr}); err != nil {
			t.Errorf("file %d: %v", i, err)
		}
		ip.Put()
		fs.Release(ip.Ino(), 1)
	}
}

// TestShiftHandedOut takes blocks out of a file, and pushes some in, while the
// kernel has pages before them that it has not written back.
func TestShiftHandedOut(t *testing.T) {
	const bs = 4096
	for _, mode := range []uint32{FallocCollapse, FallocInsert} {
		fs := openImage(t, testfs.Mke2fs(t, testfs.Spec{Name: "shift", Size: 16 << 20}), Options{})
		fs.SetKernelIO(KernelIO{On: true})
		root, err := fs.Iget(ondisk.RootIno)
		if err != nil {
			t.Fatal(err)
		}
		ip, err := fs.Create(root, "f", 0o644, 0, Cred{})
		if err != nil {
			t.Fatal(err)
		}
		fs.Hold(ip.Ino())
		if err := ip.Fallocate(0, 2*bs, 4*bs); err != nil {
			t.Fatal(err)
		}
		if _, err := ip.KernelBegin(iomap.Write, 0, bs); err != nil {
			t.Fatal(err)
		}
		if err := ip.Fallocate(mode, 3*bs, bs); err != nil {
			t.Fatal(err)
		}
		if _, err := ip.IOEnd(iomap.IOEnd{Flags: iomap.EndUnwritten, Written: bs, Addr: iomap.NullAddr}); err != nil {
			t.Errorf("mode %#x: %v", mode, err)
		}
		ip.Put()
		fs.Release(ip.Ino(), 1)
		root.Put()
	}
}
