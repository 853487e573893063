package populate

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// logDevice notes what is done to it.
type logDevice struct {
	*blockdev.Mem
	ops []string
}

func (d *logDevice) WriteAt(p []byte, off int64) (int, error) {
	d.ops = append(d.ops, "write")
	return d.Mem.WriteAt(p, off)
}

func (d *logDevice) Sync() error {
	d.ops = append(d.ops, "sync")
	return d.Mem.Sync()
}

// The superblock is off the device, for good, before anything else changes, and
// comes back after all else is there for good.
func TestHoldOrder(t *testing.T) {
	d := &logDevice{Mem: blockdev.NewMem(1 << 20)}
	if _, err := d.Mem.WriteAt([]byte("superblock"), heldFrom); err != nil {
		t.Fatal(err)
	}
	h, err := hold(d)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(d.ops, []string{"write", "sync"}) {
		t.Errorf("taking it off: %v", d.ops)
	}
	b := make([]byte, 10)
	if _, err := d.Mem.ReadAt(b, heldFrom); err != nil || !isZero(b) {
		t.Errorf("on the device: %q, %v", b, err)
	}
	if _, err := h.ReadAt(b, heldFrom); err != nil || string(b) != "superblock" {
		t.Errorf("held: %q, %v", b, err)
	}
	d.ops = nil
	if _, err := h.WriteAt([]byte("data"), 8192); err != nil {
		t.Fatal(err)
	}
	if err := Commit(h); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(d.ops, []string{"write", "sync", "write", "sync"}) {
		t.Errorf("putting it back: %v", d.ops)
	}
	if err := Commit(d); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a device that is not held: %v", err)
	}
	if _, err := d.Mem.ReadAt(b, heldFrom); err != nil || string(b) != "superblock" {
		t.Errorf("in the end: %q, %v", b, err)
	}
}

// A device that is held from before it is formatted has a superblock at the end
// of Write and at no time before.
func TestHold(t *testing.T) {
	mem := blockdev.NewMem(16 << 20)
	if _, err := ext2fs.Format(mem, ext2fs.DefaultFormat()); err != nil {
		t.Fatal(err)
	}
	super := func() bool {
		b := make([]byte, 1024)
		if _, err := mem.ReadAt(b, heldFrom); err != nil {
			t.Fatal(err)
		}
		return !isZero(b)
	}
	dev, err := Hold(mem)
	if err != nil {
		t.Fatal(err)
	}
	o := ext2fs.DefaultFormat()
	o.Progress = func(s ext2fs.Stage, done, total uint64) {
		if super() {
			t.Errorf("a superblock in stage %d", s)
		}
	}
	if _, err := ext2fs.Format(dev, o); err != nil {
		t.Fatal(err)
	}
	if super() {
		t.Error("a superblock after formatting")
	}
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "f"), make([]byte, 3<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := Load(t.Context(), Dir(src), Options{Progress: func(n Totals) {
		if n.Entries < n.All && super() {
			t.Error("a superblock while it is filled")
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if _, err := tree.Write(t.Context(), dev); err != nil {
		t.Fatal(err)
	}
	fs, err := ext2fs.Open(mem, ext2fs.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	img := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := blockdev.Copy(f, mem); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(mem.Size()); err != nil {
		t.Fatal(err)
	}
	if err := testfs.E2fsck(t, img, ""); err != nil {
		t.Error(err)
	}
}

// What Prepare makes is there beside the source; if it fails there is no file
// system.
func TestPrepare(t *testing.T) {
	path := filepath.Join(testfs.Scratch(t), "image")
	if err := os.WriteFile(path, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	testfs.Adopt(t, path)
	dev, err := blockdev.Open(path, blockdev.Options{Direct: blockdev.DirectOff})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	for _, fail := range []error{syscall.EIO, nil} {
		o := ext2fs.DefaultFormat()
		o.Compat &^= ondisk.CompatHasJournal
		if _, err := ext2fs.Format(dev, o); err != nil {
			t.Fatal(err)
		}
		tree, err := Load(t.Context(), Dir(t.TempDir()), Options{Prepare: func(fs *ext2fs.FS) error {
			root, err := fs.Iget(ondisk.RootIno)
			if err != nil {
				return err
			}
			defer root.Put()
			ip, err := fs.Create(root, "prepared", 0o600, 0, ext2fs.Cred{})
			if err != nil {
				return err
			}
			ip.Put()
			return fail
		}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = tree.Write(t.Context(), dev)
		if !errors.Is(err, fail) {
			t.Errorf("Write: %v, Prepare fails with %v", err, fail)
		}
		tree.Close()
		sb := make([]byte, ondisk.SuperSize)
		if _, err := dev.ReadAt(sb, ondisk.SuperOffset); err != nil || bytes.Equal(sb, make([]byte, len(sb))) != (fail != nil) {
			t.Errorf("Prepare fails with %v: superblock, %v", fail, err)
		}
	}
	fs, err := ext2fs.Open(dev, ext2fs.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Put()
	ip, err := fs.Lookup(root, "prepared")
	if err != nil {
		t.Fatal(err)
	}
	ip.Put()
}
