package blockdev_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// worn is a device with blocks that cannot be read, and others that keep nothing.
type worn struct {
	blockdev.Device
	unreadable, stuck map[int64]bool // in 1024 bytes
	writes            int
}

func (w *worn) ReadAt(p []byte, off int64) (int, error) {
	for b := off / 1024; b < (off+int64(len(p)))/1024; b++ {
		if w.unreadable[b] {
			return 0, syscall.EIO
		}
	}
	return w.Device.ReadAt(p, off)
}

func (w *worn) WriteAt(p []byte, off int64) (int, error) {
	w.writes++
	for i := 0; i < len(p); i += 1024 {
		if w.stuck[off/1024+int64(i/1024)] {
			continue
		}
		if _, err := w.Device.WriteAt(p[i:i+1024], off+int64(i)); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func TestFindBad(t *testing.T) {
	const blocks = 1000
	mem := blockdev.NewMem(blocks * 1024)
	before := make([]byte, blocks*1024)
	for i := range before {
		before[i] = byte(i * 7)
	}
	if _, err := mem.WriteAt(before, 0); err != nil {
		t.Fatal(err)
	}
	w := &worn{Device: mem, unreadable: map[int64]bool{0: true, 130: true, 999: true}, stuck: map[int64]bool{63: true, 64: true, 500: true}}
	bad, err := blockdev.FindBad(context.Background(), w, 1024, blocks, false, nil)
	if err != nil || fmt.Sprint(bad) != "[0 130 999]" || w.writes > 0 {
		t.Errorf("reading: %v, %d writes: %v", bad, w.writes, err)
	}
	last := uint64(0)
	bad, err = blockdev.FindBad(context.Background(), w, 1024, blocks, true, func(n uint64) { last = n })
	if err != nil || fmt.Sprint(bad) != "[0 63 64 130 500 999]" || last == 0 {
		t.Errorf("writing: %v, progress %d: %v", bad, last, err)
	}
	after := make([]byte, len(before))
	if _, err := mem.ReadAt(after, 0); err != nil || !bytes.Equal(before, after) {
		t.Errorf("what was there is no longer: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := blockdev.FindBad(ctx, w, 1024, blocks, true, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := blockdev.FindBad(context.Background(), blockdev.ReadOnly(mem), 1024, blocks, true, nil); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing where that is not possible: %v", err)
	}
}
