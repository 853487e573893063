package ext2fs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// logBlocks calls f with every block of an image's journal, to be changed.
func logBlocks(t *testing.T, path string, f func(b []byte) bool) {
	t.Helper()
	d, err := blockdev.Open(path, blockdev.Options{Direct: blockdev.DirectOff})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s, err := readSuper(d, 0)
	if err != nil {
		t.Fatal(err)
	}
	fs := &FS{dev: d}
	if err := fs.geometry(s); err != nil {
		t.Fatal(err)
	}
	runs, _, err := fs.journalInode(s, ondisk.JournalIno)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, fs.blockSize)
	for _, r := range runs {
		for i := range r.n {
			off := int64(r.blk+ondisk.Fsblk(i)) << fs.blockBits
			if _, err := d.ReadAt(buf, off); err != nil {
				t.Fatal(err)
			}
			if !f(buf) {
				continue
			}
			if _, err := d.WriteAt(buf, off); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestHostileJournal has tags point where no metadata can be: nothing must be
// written, not even by transactions that are in order.
func TestHostileJournal(t *testing.T) {
	spec := testfs.Spec{Name: "hostile", Type: "ext3", BlockSize: 1024, Size: 32 << 20}
	var dirty testfs.Dirty
	for _, d := range testfs.DirtyImages() {
		if d.Name == "csum-none-32bit" {
			dirty = d
		}
	}
	dirty.Spec = spec
	img := dirty.Make(t)
	for name, target := range map[string]uint32{
		"past the end":          1 << 30,
		"just past the end":     32 << 10,
		"the boot block":        0,
		"the superblock's copy": 1, // what is logged is no superblock
	} {
		t.Run(name, func(t *testing.T) {
			img := img.Copy(t)
			img.ExpectDirty("its journal is hostile")
			done := false
			logBlocks(t, img.Path, func(b []byte) bool {
				if binary.BigEndian.Uint32(b) != 0xc03b3998 || binary.BigEndian.Uint32(b[4:]) != 1 || done {
					return false
				}
				done = true
				tag := b[12:]
				if binary.BigEndian.Uint32(tag) == 1 {
					tag = b[12+8+16:] // the second, after the UUID
				}
				binary.BigEndian.PutUint32(tag, target)
				return true
			})
			if !done {
				t.Fatal("no descriptor block in the log")
			}
			before, err := os.ReadFile(img.Path)
			if err != nil {
				t.Fatal(err)
			}
			for _, ro := range []bool{false, true} {
				_, err := tryImage(t, img, Options{ReadOnly: ro})
				if !errors.Is(err, ondisk.EUCLEAN) && !errors.Is(err, ondisk.EBADMSG) {
					t.Fatalf("read-only %v: %v", ro, err)
				}
				t.Log(err)
				if after, err := os.ReadFile(img.Path); err != nil || !bytes.Equal(before, after) {
					t.Fatalf("the image changed (%v)", err)
				}
			}
		})
	}
}

// TestHuge opens a sparse file system of 8 TiB.
func TestHuge(t *testing.T) {
	path := testfs.Scratch(t) + "/huge"
	if out, err := exec.Command("truncate", "-s", "8T", path).CombinedOutput(); err != nil {
		t.Skip("no sparse file of 8 TiB here:", string(out))
	}
	testfs.Run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-N", "1048576", "-E", "lazy_itable_init=1,lazy_journal_init=1,packed_meta_blocks=1", path)
	img := testfs.Adopt(t, path)
	img.ExpectDirty("e2fsck of 8 TiB takes long")
	var base, now runtime.MemStats
	debug.FreeOSMemory()
	runtime.ReadMemStats(&base)
	for _, o := range []Options{{ReadOnly: true}, {}} {
		start := time.Now()
		fs := openImage(t, img, o)
		took := time.Since(start)
		runtime.ReadMemStats(&now)
		t.Logf("read-only %v: %v, %d KiB", o.ReadOnly, took, (now.TotalAlloc-base.TotalAlloc)>>10)
		if took > 100*time.Millisecond {
			t.Errorf("opening took %v", took)
		}
		if now.TotalAlloc-base.TotalAlloc > 64<<20 {
			t.Errorf("opening took %d MiB of memory", (now.TotalAlloc-base.TotalAlloc)>>20)
		}
		if !o.ReadOnly {
			root, err := fs.Iget(ondisk.RootIno)
			if err != nil {
				t.Fatal(err)
			}
			b, n, err := fs.reserve(root, 1<<30, 1<<15, 1, true)
			if err != nil {
				t.Fatal(err)
			}
			t.Log("a reservation at", b, n)
			fs.unreserve(b, n)
			root.Put()
		}
		if err := fs.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestErrorPolicy finds a corrupt group descriptor, and sees what the
// superblock says afterwards.
func TestErrorPolicy(t *testing.T) {
	for _, policy := range []ErrorPolicy{ErrorsContinue, ErrorsRO, ErrorsPanic} {
		img := testfs.Mke2fs(t, testfs.Spec{Name: "errors"})
		img.ExpectDirty("an error is recorded")
		panicked := make(chan error, 1)
		fs := openImage(t, img, Options{Errors: policy, Panic: func(err error) { panicked <- err }})
		err := fs.corrupt(12, ondisk.At(ondisk.Corrupt("extent header", 0, "magic 0x0"), 0, 77))
		if !errors.Is(err, ondisk.EUCLEAN) {
			t.Fatal(err)
		}
		h, err := fs.start(1)
		if policy == ErrorsContinue {
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			if !errors.Is(err, syscall.EROFS) {
				t.Fatalf("a change after the error: %v", err)
			}
			if err := fs.Close(); err == nil {
				t.Fatal("Close after an error said all is well")
			}
		}
		if policy == ErrorsPanic && <-panicked == nil {
			t.Fatal("no panic")
		}
		d, err := os.ReadFile(img.Path)
		if err != nil {
			t.Fatal(err)
		}
		s := superIn(d[:4096])
		if s.State.Get()&ondisk.StateError == 0 || s.ErrorCount.Get() != 1 || s.LastErrorIno.Get() != 12 ||
			s.LastErrorBlock.Get() != 77 || s.LastErrorErrcode[0] != 16 {
			t.Fatalf("the superblock says: state %#x, %d errors, inode %d, block %d, code %d", s.State.Get(),
				s.ErrorCount.Get(), s.LastErrorIno.Get(), s.LastErrorBlock.Get(), s.LastErrorErrcode[0])
		}
		t.Logf("%s:%d", bytes.TrimRight(s.LastErrorFunc[:], "\x00"), s.LastErrorLine.Get())
	}
}

// TestFreezeShutdown freezes, copies, thaws and shuts down.
func TestFreezeShutdown(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "freeze"})
	fs := openImage(t, img, Options{})
	if err := fs.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := fs.Freeze(); !errors.Is(err, syscall.EBUSY) {
		t.Fatalf("a second freeze: %v", err)
	}
	img.Copy(t) // is checked
	started := make(chan error)
	go func() {
		h, err := fs.start(1)
		if err == nil {
			err = h.Stop()
		}
		started <- err
	}()
	select {
	case err := <-started:
		t.Fatalf("a change while frozen: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := fs.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if err := fs.Thaw(); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("a second thaw: %v", err)
	}
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
	for mode := ShutdownDefault; mode <= ShutdownNoLogFlush; mode++ {
		fs := openImage(t, img, Options{})
		if err := fs.Shutdown(mode); err != nil {
			t.Fatal(mode, err)
		}
		if _, err := fs.start(1); !errors.Is(err, syscall.EIO) {
			t.Fatalf("a change after shutdown: %v", err)
		}
		fs.Close()
	}
	fs = openImage(t, img, Options{}) // recovers
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestBackupSuper opens by a backup of the superblock.
func TestBackupSuper(t *testing.T) {
	for _, bs := range []int{1024, 4096} {
		img := testfs.Mke2fs(t, testfs.Spec{Name: "backup", BlockSize: bs, Size: 300 << 20})
		sb := uint64(32768 * 4)
		if bs == 1024 {
			sb = 8193
		}
		fs := openImage(t, img, Options{SbBlock: sb})
		if ro, why := fs.ReadOnly(); !ro {
			t.Fatal("not read-only", why)
		}
		if _, err := fs.groupOf(fs.groups - 1); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInodeTwice creates a file where an inode in use is free in the bitmap: it does
// not become a second one of that number.
func TestInodeTwice(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "twice", Size: 16 << 20})
	for _, command := range []string{
		"mknod a p", "freei <12>",
		"set_bg 0 free_inodes_count 2037", "set_bg 0 checksum calc", "set_super_value free_inodes_count 2037",
	} {
		testfs.Run(t, "debugfs", "-w", "-R", command, img.Path)
	}
	img.ExpectDirty("its inode bitmap is wrong")
	for _, held := range []bool{false, true} {
		fs := openImage(t, img.Copy(t), Options{Errors: ErrorsContinue})
		root, err := fs.Iget(ondisk.RootIno)
		if err != nil {
			t.Fatal(err)
		}
		a, err := fs.Lookup(root, "a")
		if err != nil {
			t.Fatal(err)
		}
		fs.Hold(a.Ino())
		if held {
			a.Put()
			fs.ic.forget(12)
		}
		b, err := fs.Create(root, "b", 0o644, 0, Cred{})
		if !errors.Is(err, ondisk.EUCLEAN) {
			t.Errorf("held %v: %v, want EUCLEAN", held, err)
		}
		if err == nil {
			b.Put()
		}
		if !held {
			a.Put()
		}
		fs.Release(12, 1)
		root.Put()
	}
}

// TestReservedNames looks up entries that name inodes of the file system itself, of
// which some are in use.
func TestReservedNames(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "reserved", Size: 16 << 20, Features: "orphan_file,project,quota"})
	inodes := []int{1, 3, 4, 7, 8, 10, 12, 13} // the last two: project quota, orphan file
	for _, ino := range inodes {
		testfs.Run(t, "debugfs", "-w", "-R", fmt.Sprintf("link <%d> %d", ino, ino), img.Path)
	}
	testfs.Run(t, "debugfs", "-w", "-R", "feature -quota", img.Path) // with it nothing is written
	img.ExpectDirty("entries of reserved inodes")
	fs := openImage(t, img, Options{Errors: ErrorsContinue})
	if n := fs.sb.OrphanFileInum.Get() + fs.sb.PrjQuotaInum.Get(); n != 12+13 {
		t.Fatalf("orphan file and project quota are elsewhere: %d", n)
	}
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	for _, ino := range inodes {
		ip, err := fs.Lookup(root, fmt.Sprint(ino))
		if err == nil {
			ip.Put()
		}
		if !errors.Is(err, ondisk.EUCLEAN) {
			t.Errorf("inode %d: %v", ino, err)
		}
	}
	root.Put()
}
