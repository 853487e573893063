package ext2fs

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
)

// TestFreezeTwice has two freeze at once, while data is under way: one of them is
// told that the other does.
func TestFreezeTwice(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "twice", Size: 16 << 20})
	fs := openImage(t, img, Options{})
	fs.dataMu.RLock()
	results := make(chan error)
	for range 2 {
		go func() { results <- fs.Freeze() }()
	}
	var got []error
	select {
	case err := <-results:
		got = append(got, err)
	case <-time.After(50 * time.Millisecond): // both wait, which is the error
	}
	fs.dataMu.RUnlock()
	for thawed := false; len(got) < 2; {
		select {
		case err := <-results:
			got = append(got, err)
		case <-time.After(5 * time.Second): // the second waits for the first to thaw
			if !thawed {
				thawed = true
				_ = fs.Thaw()
			}
		}
	}
	if n := errors.Is(got[0], syscall.EBUSY) != errors.Is(got[1], syscall.EBUSY); !n {
		t.Errorf("%v and %v, one of them should be EBUSY", got[0], got[1])
	}
	if err := fs.Thaw(); err != nil {
		t.Error(err)
	}
	if err := fs.Freeze(); err != nil {
		t.Error(err)
	}
	if err := fs.Thaw(); err != nil {
		t.Error(err)
	}
}

// syncHook is a device that does something at each Sync.
type syncHook struct {
	blockdev.Device
	f atomic.Pointer[func()]
}

func (d *syncHook) Sync() error {
	if f := d.f.Load(); f != nil {
		(*f)()
	}
	return d.Device.Sync()
}

// TestThawWhileFreezing thaws what is being frozen: that must wait its turn, for the
// superblock would say that the log does not count while changes go on.
func TestThawWhileFreezing(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "thaw", Size: 16 << 20})
	dev := &syncHook{Device: memImage(t, img)}
	fs, err := Open(dev, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	newFile(t, fs, "a").Put()
	thaw := func() {
		dev.f.Store(nil)
		if err := fs.Thaw(); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("a thaw under a freeze: %v", err)
		}
	}
	dev.f.Store(&thaw)
	if err := fs.Freeze(); err != nil {
		t.Fatal(err)
	}
	if dev.f.Load() != nil {
		t.Fatal("a freeze without a sync")
	}
	if err := fs.Thaw(); err != nil {
		t.Error(err)
	}
}
