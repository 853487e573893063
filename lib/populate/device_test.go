package populate

import (
	"slices"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
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
	if err := h.commit(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(d.ops, []string{"write", "sync", "write", "sync"}) {
		t.Errorf("putting it back: %v", d.ops)
	}
	if _, err := d.Mem.ReadAt(b, heldFrom); err != nil || string(b) != "superblock" {
		t.Errorf("in the end: %q, %v", b, err)
	}
}
