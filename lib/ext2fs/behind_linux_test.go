package ext2fs

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// newFile makes a file in the root directory, pinned.
func newFile(t *testing.T, fs *FS, name string) *Inode {
	t.Helper()
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Put()
	ip, err := fs.Create(root, name, 0o644, 0, Cred{})
	if err != nil {
		t.Fatal(err)
	}
	return ip
}

// TestBehindNoBarrier writes behind to a file system whose superblock says
// nobarrier: that flushes may be left out does not mean that fsync may leave what
// was written in the memory of the program.
func TestBehindNoBarrier(t *testing.T) {
	mem := memImage(t, testfs.Mke2fs(t, testfs.Spec{Size: 16 << 20, BlockSize: 4096, Journal: "size=4"}))
	super, err := readSuper(mem, 0)
	if err != nil {
		t.Fatal(err)
	}
	super.DefaultMountOpts.Set(super.DefaultMountOpts.Get() | ondisk.DefmNoBarrier)
	sealSuper(super)
	if _, err := mem.WriteAt(endian.Bytes(super), ondisk.SuperOffset); err != nil {
		t.Fatal(err)
	}
	fs, err := Open(blockdev.NewBehind(mem), Options{})
	if err != nil {
		t.Fatal(err)
	}
	ip := newFile(t, fs, "file")
	want := bytes.Repeat([]byte("data"), 1024)
	if _, err := ip.WriteBack(want, 0, false); err != nil {
		t.Fatal(err)
	}
	if err := ip.Fsync(false); err != nil {
		t.Fatal(err)
	}
	ip.mapMu.RLock()
	r, err := ip.mapRun(0, 1)
	ip.mapMu.RUnlock()
	if err != nil || r.state != runWritten {
		t.Fatalf("block 0 is %+v, %v", r, err)
	}
	got := make([]byte, len(want))
	if _, err := mem.ReadAt(got, int64(r.pblk)<<fs.blockBits); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("after fsync the device has %q...", got[:16])
	}
	ip.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestBehindLost has the device refuse what was written behind to one file, and
// another file synced first: that must not be the only one to learn of it.
func TestBehindLost(t *testing.T) {
	dev := blockdev.NewFault(memImage(t, testfs.Mke2fs(t, testfs.Spec{Size: 16 << 20, BlockSize: 4096, Journal: "size=4"})))
	behind := blockdev.NewBehind(dev)
	fs, err := Open(behind, Options{CommitInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	other, ip := newFile(t, fs, "other"), newFile(t, fs, "file")
	defer other.Put()
	defer ip.Put()
	if err := fs.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := ip.WriteBack(make([]byte, 4096), 0, false); err != nil {
		t.Fatal(err)
	}
	dev.Arm(blockdev.Failure{Ops: blockdev.OpWrite, Nth: 1})
	if err := other.Fsync(false); !errors.Is(err, syscall.EIO) { // what is held is tried now
		t.Fatalf("Fsync of the other file = %v", err)
	}
	if err := ip.Fsync(false); err == nil {
		t.Error("Fsync of a file whose content the device has refused succeeds")
	}
}
