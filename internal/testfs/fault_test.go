//go:build linux

package testfs

import (
	"errors"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// TestFaultSweep fails each of three operations once.
func TestFaultSweep(t *testing.T) {
	fired := FaultSweep{
		Run: func(dev *blockdev.Fault) error {
			_, err := dev.WriteAt([]byte("one"), 0)
			if err == nil {
				err = dev.Sync()
			}
			if err == nil {
				_, err = dev.ReadAt(make([]byte, 3), 0)
			}
			return err
		},
		Check: func(_ int64, _ blockdev.Device, err error) error {
			if !errors.Is(err, syscall.EIO) {
				return errors.New("the fault was not reported")
			}
			return nil
		},
	}.Sweep(t, blockdev.NewMem(4096))
	if fired != 3 {
		t.Errorf("%d faults, want 3", fired)
	}
}
