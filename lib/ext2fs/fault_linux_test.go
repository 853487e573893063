package ext2fs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
)

// TestFaults fails the n-th read, write or sync of a load, with everything that
// follows or alone. Nothing may panic or hang, and what is on the device
// afterwards recovers and is clean.
func TestFaults(t *testing.T) {
	fsck := testfs.Tool(t, "e2fsck")
	points := 80
	if testing.Short() {
		points = 15
	}
	for _, spec := range stressSpecs() {
		t.Run(spec.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, spec)
			f, err := blockdev.Open(img.Path, blockdev.Options{ReadOnly: true, Direct: blockdev.DirectOff})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			base, err := blockdev.MemOf(f)
			if err != nil {
				t.Fatal(err)
			}
			run := func(dev blockdev.Device) error {
				fs, err := Open(dev, Options{CommitInterval: 5 * time.Millisecond, CacheSize: 1 << 20, Errors: ErrorsRO})
				if err != nil {
					return err
				}
				err = load(fs, 9, 500, true)
				if e := fs.Close(); err == nil {
					err = e
				}
				return err
			}
			for _, ops := range []blockdev.Ops{blockdev.OpRead, blockdev.OpWrite, blockdev.OpSync} {
				count := blockdev.NewFault(base.Clone())
				count.Arm(blockdev.Failure{Ops: ops, Nth: 1 << 40})
				if err := run(count); err != nil {
					t.Fatal(err)
				}
				total := count.Count()
				step := max(total/int64(points), 1)
				for n := int64(1); n <= total; n += step {
					hung := time.AfterFunc(30*time.Second, func() { panic(fmt.Sprint("hung: operations ", ops, ", number ", n)) })
					mem := base.Clone()
					dev := blockdev.NewFault(mem)
					dev.Arm(blockdev.Failure{Ops: ops, Nth: n, Sticky: n%2 == 0})
					_ = run(dev)
					hung.Stop()
					if err := recoverAndCheck(t, fsck, mem); err != nil {
						t.Errorf("operations %v, number %d of %d: %v", ops, n, total, err)
					}
				}
			}
		})
	}
}

func recoverAndCheck(t *testing.T, fsck string, mem blockdev.Device) error {
	fs, err := Open(mem, Options{})
	if err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	if err := fs.Close(); err != nil {
		return fmt.Errorf("after recovery: %w", err)
	}
	path := filepath.Join(testfs.Scratch(t), "image")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer f.Close()
	if err := f.Truncate(mem.Size()); err != nil {
		return err
	}
	if err := blockdev.Copy(f, mem); err != nil {
		return err
	}
	if out, err := exec.Command(fsck, "-fn", path).CombinedOutput(); err != nil {
		return fmt.Errorf("e2fsck -fn: %w\n%s", err, out)
	}
	return nil
}
