package fsck_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// killedRecipes are repairs of bitmaps, quota, attributes, maps and directories.
var killedRecipes = []string{
	"block bitmap, ranges", "inode bitmap, ranges", "quota", "attribute references", "value inode references", "two files share a range",
	"index order", "same name twice", "orphan file gone", "orphans", "no root", "block bitmap on another",
}

// TestCrashed loses some of what a repair has written since its last sync: the next
// run completes it, with all the files that a run that is not disturbed keeps. What
// the undo file of the disturbed run has takes back all of it.
func TestCrashed(t *testing.T) {
	e2undo := testfs.Tool(t, "e2undo")
	path := filepath.Join(testfs.Scratch(t), "image")
	contentsOfDev := func(dev blockdev.Device) contents {
		dump(t, dev, path)
		return contentsOf(path)
	}
	run := func(dev blockdev.Device) (*fsck.Result, error) {
		return fsck.Check(context.Background(), dev, fsck.Options{Mode: fsck.ModeYes, Force: true})
	}
	states := 0
	for _, r := range recipes() {
		if !slices.Contains(killedRecipes, r.name) {
			continue
		}
		e := makeBase(t, recipeBases[r.base]).edit(t)
		r.edit(e)
		rec := blockdev.NewRecord(memOf(t, e.b))
		if _, err := run(rec); err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		want := contentsOfDev(rec)
		for s := range rec.Log().States(blockdev.StateOptions{PerSync: 3, Limit: 8}) {
			states++
			if res, err := run(s.Dev); err != nil || res.Left {
				t.Errorf("%s: %v: the next run: %v", r.name, s, err)
				continue
			}
			if res, err := run(s.Dev); err != nil || res.Fixed || res.Left {
				t.Errorf("%s: %v: the run after the next finds something: %v, %v", r.name, s, err, res.Found)
			}
			if got := contentsOfDev(s.Dev); want.intact(got) < want.intact(want) {
				t.Errorf("%s: %v: %d files, not %d", r.name, s, want.intact(got), want.intact(want))
			}
		}
		for _, n := range []int{1, 3, 7, 1 << 30} { // and stopped, with an undo file
			mem := memOf(t, e.b)
			file, err := os.Create(path + ".undo")
			if err != nil {
				t.Fatal(err)
			}
			undo, err := blockdev.NewUndo(&cut{mem, n}, file, blockdev.UndoOptions{FSBlock: 1024})
			if err != nil {
				t.Fatal(err)
			}
			_, stopped := run(undo)
			err = undo.Finish()
			if e := file.Close(); err == nil {
				err = e
			}
			if err != nil {
				t.Fatal(err)
			}
			dump(t, mem, path)
			if out, err := exec.Command(e2undo, path+".undo", path).CombinedOutput(); err != nil {
				t.Errorf("%s: e2undo: %v: %s", r.name, err, out)
			}
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(after, e.b) {
				t.Errorf("%s: stopped at write %d (%v): the undo file does not take all of it back", r.name, n, stopped)
			}
		}
	}
	t.Logf("%d crash states", states)
	if states < 40 {
		t.Errorf("only %d crash states", states)
	}
}
