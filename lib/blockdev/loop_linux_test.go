package blockdev_test

import (
	"errors"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
)

// TestLoopInUse opens an image that the kernel has mounted by a loop device.
func TestLoopInUse(t *testing.T) {
	testfs.NeedRoot(t)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "loop", Size: 4 << 20})
	open := func(o blockdev.Options) error {
		o.Direct = blockdev.DirectOff
		f, err := blockdev.Open(img.Path, o)
		if err == nil {
			err = f.Close()
		}
		return err
	}
	m := testfs.KernelMount(t, img, "")
	if err := open(blockdev.Options{Exclusive: true}); !errors.Is(err, blockdev.ErrInUse) {
		t.Errorf("mounted: %v", err)
	}
	if err := open(blockdev.Options{Exclusive: true, Offset: 2 << 20}); !errors.Is(err, blockdev.ErrInUse) {
		t.Errorf("a part of what is mounted: %v", err)
	}
	if err := open(blockdev.Options{ReadOnly: true}); err != nil {
		t.Errorf("to look at: %v", err)
	}
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	if err := open(blockdev.Options{Exclusive: true}); err != nil {
		t.Errorf("not mounted any more: %v", err)
	}
}
