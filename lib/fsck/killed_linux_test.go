package fsck_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/fsck"
)

var errKilled = errors.New("killed")

// cut is a device that takes so many more writes, and then fails: to what lies
// below it is as if the program had been killed.
type cut struct {
	blockdev.Device
	left int
}

func (c *cut) take() error {
	if c.left--; c.left < 0 {
		return errKilled
	}
	return nil
}

func (c *cut) WriteAt(p []byte, off int64) (int, error) {
	if err := c.take(); err != nil {
		return 0, err
	}
	return c.Device.WriteAt(p, off)
}

func (c *cut) ZeroOut(off, n int64) error {
	if err := c.take(); err != nil {
		return err
	}
	return c.Device.ZeroOut(off, n)
}

// TestKilled ends repairs at any of their writes: the next run completes them,
// with all the files that a run that is not disturbed keeps.
func TestKilled(t *testing.T) {
	testfs.NeedRoot(t)
	dir := testfs.Scratch(t)
	tree := func(dev blockdev.Device) map[string]string {
		path := filepath.Join(dir, "image")
		dump(t, dev, path)
		files, err := readTree(path)
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	run := func(dev blockdev.Device) (*fsck.Result, error) {
		return fsck.Check(context.Background(), dev, fsck.Options{Mode: fsck.ModeYes, Force: true})
	}
	kills := 0
	for _, img := range testfs.MutationBases(t)[:6] {
		m, err := testfs.NewMutator(img.Path)
		if err != nil {
			t.Fatal(err)
		}
		for seed := uint64(1); seed <= 8; seed++ {
			dev, what := m.Mutate(seed)
			whole := &cut{dev, 1 << 30}
			if _, err := run(whole); err != nil {
				continue
			}
			want := tree(dev)
			writes := 1<<30 - whole.left
			for n := 1; n < writes; n += 1 + writes/12 {
				dev, _ := m.Mutate(seed)
				if _, err := run(&cut{dev, n}); !errors.Is(err, errKilled) {
					t.Fatalf("%s: %s: killed at write %d of %d: %v", img.Spec.Name, what, n, writes, err)
				}
				kills++
				if res, err := run(dev); err != nil || res.Left {
					t.Errorf("%s: %s: killed at write %d: the next run: %v", img.Spec.Name, what, n, err)
					continue
				}
				if res, err := run(dev); err != nil || res.Fixed || res.Left {
					t.Errorf("%s: %s: killed at write %d: the run after the next finds something: %v", img.Spec.Name, what, n, err)
				}
				got := tree(dev)
				for path, f := range want {
					if got[path] != f {
						t.Errorf("%s: %s: killed at write %d: %s is %q, not %q", img.Spec.Name, what, n, path, got[path], f)
						break
					}
				}
			}
		}
	}
	t.Logf("%d kills", kills)
	if kills < 100 {
		t.Errorf("only %d kills", kills)
	}
}
