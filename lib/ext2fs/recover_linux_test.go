package ext2fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestRecover recovers what the kernel left dirty, and compares with the tree
// that the kernel's own recovery shows. Opened read-only before, the image must
// not change by one bit.
func TestRecover(t *testing.T) {
	for _, d := range testfs.DirtyImages() {
		t.Run(d.Name, func(t *testing.T) {
			img := d.Make(t)
			want := testfs.Recovered(t, img)
			before, err := os.ReadFile(img.Path)
			if err != nil {
				t.Fatal(err)
			}
			fs := openImage(t, img, Options{ReadOnly: true})
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			after, err := os.ReadFile(img.Path)
			if err != nil || !bytes.Equal(before, after) {
				t.Fatalf("opened read-only, the image changed (%v)", err)
			}
			fs = openImage(t, img, Options{})
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			if fs.hasJournal {
				img.ExpectClean()
			}
			m := testfs.KernelMount(t, img, "ro,noload")
			skip := testfs.Atime // ours and the kernel's reading
			if d.FastCommits || strings.HasPrefix(d.Name, "orphan") {
				skip |= testfs.Mtime | testfs.Ctime // of the recovery
			}
			testfs.Same(t, "our recovery, against the kernel's", want, testfs.MustSnapshot(t, m.Dir), skip)
			if err := m.Unmount(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestRecoverTwice crashes, goes on in the same log, and crashes again, where what
// the second mount wrote ends before a transaction of the first one: that is
// history, though it follows in the log.
func TestRecoverTwice(t *testing.T) {
	mem := memImage(t, testfs.Mke2fs(t, testfs.Spec{Size: 16 << 20, Journal: "size=4"}))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	mount := func() (*FS, *Inode) {
		t.Helper()
		fs, err := Open(mem, Options{CommitInterval: -1})
		must(err)
		root, err := fs.Iget(ondisk.RootIno)
		must(err)
		return fs, root
	}
	name := func(i int) string { return fmt.Sprint("file", i) }
	chmod := func(fs *FS, root *Inode, mode uint16, files ...int) {
		t.Helper()
		for _, i := range files {
			ip, err := fs.Lookup(root, name(i))
			must(err)
			must(ip.Setattr(&SetAttr{Valid: SetMode, Mode: mode}))
			ip.Put()
		}
		must(fs.Sync())
	}
	crash := func(fs *FS, root *Inode) {
		mem = mem.Clone()
		root.Put()
		_ = fs.Shutdown(ShutdownNoLogFlush)
		_ = fs.Close()
	}

	fs, root := mount()
	for i := range 64 {
		ip, err := fs.Create(root, name(i), 0o600, 0, Cred{})
		must(err)
		ip.Put()
	}
	root.Put()
	must(fs.Close())

	fs, root = mount()
	for mode := uint16(0o601); mode <= 0o603; mode++ { // each takes three blocks of the log
		chmod(fs, root, mode, 0)
	}
	crash(fs, root)

	fs, root = mount()
	chmod(fs, root, 0o700, 0, 16, 32, 48) // in four blocks: as long as the first two were
	crash(fs, root)

	fs, root = mount()
	ip, err := fs.Lookup(root, name(0))
	must(err)
	var a Attr
	ip.Attr(&a)
	ip.Put()
	if a.Mode&0o777 != 0o700 {
		t.Errorf("mode %#o after the second crash, which was %#o when it was synced", a.Mode&0o777, 0o700)
	}
	root.Put()
	must(fs.Close())
}

// TestRecoverShutdown mounts what Shutdown has stopped: that somebody asked for it
// is no error of the file system.
func TestRecoverShutdown(t *testing.T) {
	base := memImage(t, testfs.Mke2fs(t, testfs.Spec{Size: 16 << 20, Journal: "size=4"}))
	for mode := ShutdownDefault; mode <= ShutdownNoLogFlush; mode++ {
		mem := base.Clone()
		for range 2 {
			fs, err := Open(mem, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if s := fs.sb.State.Get(); s&ondisk.StateError != 0 {
				t.Errorf("after mode %d: state %#x", mode, s)
			}
			newFile(t, fs, fmt.Sprint("file", fs.sb.MntCount.Get())).Put()
			if err := fs.Shutdown(mode); err != nil {
				t.Fatal(err)
			}
			_ = fs.Close()
		}
	}
}

// TestFdatasyncNew has a new, empty file outlive a crash after fdatasync: its
// inode and name are what is needed to find its content.
func TestFdatasyncNew(t *testing.T) {
	mem := memImage(t, testfs.Mke2fs(t, testfs.Spec{Size: 16 << 20, Journal: "size=4"}))
	fs, err := Open(mem, Options{CommitInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	newFile(t, fs, "first").Put()
	if err := fs.Sync(); err != nil { // transaction numbers are not 0
		t.Fatal(err)
	}
	ip := newFile(t, fs, "file")
	if err := ip.Fsync(true); err != nil {
		t.Fatal(err)
	}
	after := mem.Clone()
	ip.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
	if fs, err = Open(after, Options{}); err != nil {
		t.Fatal(err)
	}
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	if ip, err := fs.Lookup(root, "file"); err != nil {
		t.Errorf("after the crash: %v", err)
	} else {
		ip.Put()
	}
	root.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestJournalAsync refuses, as the kernel does, commit blocks that do not wait for
// the data that their transaction shows, where data comes first.
func TestJournalAsync(t *testing.T) {
	mem := memImage(t, testfs.Mke2fs(t, testfs.Spec{Size: 16 << 20, Journal: "size=4"}))
	for mode := DataOrdered; mode <= DataWriteback; mode++ {
		fs, err := Open(mem, Options{DataMode: mode, JournalAsync: true})
		if refused := errors.Is(err, syscall.EINVAL); refused != (mode == DataOrdered) {
			t.Errorf("mode %d: %v", mode, err)
		}
		if err == nil {
			err = fs.Close()
		}
		if err != nil && mode != DataOrdered {
			t.Error(err)
		}
	}
}
