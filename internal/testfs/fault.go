//go:build linux

package testfs

import (
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// A FaultSweep fails the nth operation of a device for n = 1, 2, … until the
// code under test meets no fault any more.
type FaultSweep struct {
	Plan blockdev.Failure // but for Nth
	// Step is how far n goes up each time; 0 is 1. Max bounds n; 0 is 100,000.
	Step, Max int64
	// Run does the work on a device in a fresh state. Its error is looked at by
	// Check only: it may fail, but not hang, panic, or corrupt.
	Run func(dev *blockdev.Fault) error
	// Check looks at what is left after the fault, once the device works again.
	Check func(n int64, dev blockdev.Device, err error) error
}

// Sweep runs the sweep over copies of base, and returns how many faults fired.
func (s FaultSweep) Sweep(t testing.TB, base *blockdev.Mem) int {
	t.Helper()
	if s.Step == 0 {
		s.Step = 1
	}
	if s.Max == 0 {
		s.Max = 100000
	}
	fired := 0
	for n := int64(1); n <= s.Max; n += s.Step {
		dev := base.Clone()
		f := blockdev.NewFault(dev)
		plan := s.Plan
		plan.Nth = n
		f.Arm(plan)
		err := s.Run(f)
		if !f.Fired() {
			if err != nil {
				t.Errorf("without a fault: %v", err)
			}
			return fired
		}
		fired++
		f.Disarm()
		if err := s.Check(n, dev, err); err != nil {
			t.Errorf("fault %d: %v", n, err)
			return fired
		}
	}
	t.Errorf("still faults after %d", s.Max)
	return fired
}
