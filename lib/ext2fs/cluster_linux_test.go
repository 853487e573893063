package ext2fs

import (
	"errors"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/iomap"
)

// A block of a cluster is on its way to the device while all that is mapped of the
// cluster is punched: the cluster stays the file's, whatever had mapped it.
func TestClusterInFlight(t *testing.T) {
	const bs, cluster = 4096, 16384
	mapped := func(t *testing.T, ip *Inode, pos int64) {
		begun(t, ip, pos, bs)
		if _, err := ip.IOEnd(iomap.IOEnd{Flags: iomap.EndUnwritten, Pos: pos, Written: bs, Addr: iomap.NullAddr}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		ready func(t *testing.T, ip *Inode) // maps a block of the cluster, of which block 1 is in flight after it
		after bool                          // or while it is
	}{
		{"written before", func(t *testing.T, ip *Inode) { ip.fs.kernelIO.On = false; mapped(t, ip, 0); ip.fs.kernelIO.On = true }, false},
		{"written by the kernel", func(t *testing.T, ip *Inode) { mapped(t, ip, 0) }, false},
		{"written meanwhile", func(t *testing.T, ip *Inode) { mapped(t, ip, 0) }, true},
		{"preallocated meanwhile", func(t *testing.T, ip *Inode) {
			if err := ip.Fallocate(0, 0, bs); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := testfs.Mke2fs(t, testfs.Spec{Name: "cluster", Features: "bigalloc", Cluster: cluster, Size: 16 << 20, Inodes: 64})
			dev, err := blockdev.Open(img.Path, blockdev.Options{Direct: blockdev.DirectOff})
			if err != nil {
				t.Fatal(err)
			}
			fs, err := Open(dev, Options{})
			if err != nil {
				t.Fatal(err)
			}
			fs.SetKernelIO(KernelIO{On: true})
			root, err := fs.Iget(ondisk.RootIno)
			if err != nil {
				t.Fatal(err)
			}
			ip, err := fs.Create(root, "a", 0o644, 0, Cred{})
			if err != nil {
				t.Fatal(err)
			}
			fs.Hold(ip.Ino())
			var addr uint64
			if c.after {
				addr = begun(t, ip, bs, bs)
				c.ready(t, ip)
			} else {
				c.ready(t, ip)
				addr = begun(t, ip, bs, bs)
			}
			if err := ip.Fallocate(FallocPunchHole|FallocKeepSize, 0, bs); err != nil {
				t.Fatal(err)
			}
			if err := fs.Sync(); err != nil { // what was freed may be had by others
				t.Fatal(err)
			}
			other, err := fs.Create(root, "b", 0o644, 0, Cred{})
			if err != nil {
				t.Fatal(err)
			}
			fs.Hold(other.Ino())
			if at := begun(t, other, 0, bs); at/cluster == addr/cluster {
				t.Errorf("the cluster at %d, to which data is on its way, is given to another file", at)
			}
			if _, err := ip.IOEnd(iomap.IOEnd{Flags: iomap.EndUnwritten, Pos: bs, Written: bs, Addr: addr}); err != nil {
				t.Errorf("what was written is not taken: %v", err)
			}
			p, err := ip.KernelBegin(iomap.Report, bs, bs)
			if err != nil || p.Read.Type != iomap.Mapped || p.Read.Addr != addr {
				t.Errorf("the block is %v, %v, want it mapped at %d", p.Read, err, addr)
			}
			for _, x := range []*Inode{ip, other} {
				fs.Release(x.Ino(), 1)
				x.Put()
			}
			root.Put()
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// begun begins a write of the kernel's, and returns where it goes.
func begun(t *testing.T, ip *Inode, pos, n int64) uint64 {
	t.Helper()
	p, err := ip.KernelBegin(iomap.Write|iomap.Direct, pos, n)
	if err != nil || p.Read.Addr == iomap.NullAddr {
		t.Fatalf("BEGIN at %d: %v, %v", pos, p.Read, err)
	}
	return p.Read.Addr - uint64(p.Read.Offset-pos)
}

// A write to preallocated blocks fails: what the kernel knows of them, which is that
// they are unwritten, stays true when blocks beside it are written.
func TestFailedWriteStaysBusy(t *testing.T) {
	const bs = 4096
	fs := openImage(t, testfs.Mke2fs(t, testfs.Spec{Name: "failed", Size: 16 << 20}), Options{})
	fs.SetKernelIO(KernelIO{On: true})
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Put()
	ip, err := fs.Create(root, "a", 0o644, 0, Cred{})
	if err != nil {
		t.Fatal(err)
	}
	defer ip.Put()
	if err := ip.Fallocate(0, 0, 16*bs); err != nil {
		t.Fatal(err)
	}
	if _, err := ip.KernelBegin(iomap.Write, 0, 16*bs); err != nil { // all of it, as a whole window is not zeroed
		t.Fatal(err)
	}
	if _, err := ip.IOEnd(iomap.IOEnd{Flags: iomap.EndUnwritten, Written: 16 * bs, Err: syscall.EIO, Addr: iomap.NullAddr}); !errors.Is(err, syscall.EIO) {
		t.Fatalf("%v, want EIO", err)
	}
	p, err := ip.KernelBegin(iomap.Write|iomap.Direct|iomap.Atomic, bs, bs)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ip.KernelBegin(iomap.Report, 0, bs)
	if err != nil {
		t.Fatal(err)
	}
	if p.Read.Type != iomap.Unwritten || r.Read.Type != iomap.Unwritten {
		t.Errorf("block 1 is %v, and block 0 then %v, though the kernel knows them as unwritten", p.Read, r.Read)
	}
}
