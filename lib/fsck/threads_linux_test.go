package fsck_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/fsck"
)

// sameFindings checks the image that base makes, with and without goroutines
// that go ahead: they find the same, in the same order, and write the same.
func sameFindings(t *testing.T, name string, base func() blockdev.Device) {
	t.Helper()
	for _, mode := range []fsck.Mode{fsck.ModeNo, fsck.ModeYes} {
		run := func(threads int) (log string, dev blockdev.Device) {
			dev = base()
			rec := &recorder{}
			res, err := fsck.Check(context.Background(), dev, fsck.Options{
				Mode: mode, Force: true, Asker: rec, Threads: threads,
				Now: func() time.Time { return time.Unix(1700000000, 0) }, Rand: func(b []byte) { clear(b) },
			})
			for _, p := range rec.log {
				log += fmt.Sprintf("%#06x %s %v\n", uint32(p.Code), p.String(), p.Answer)
			}
			return log + fmt.Sprintln(err, res.Fixed, res.Changed, res.Left, res.Restarts, res.Counts, res.InodesUsed, res.BlocksUsed), dev
		}
		want, a := run(-1)
		for _, threads := range []int{1, 3} {
			got, b := run(threads)
			if got != want {
				t.Fatalf("%s: mode %d, %d threads: %s", name, mode, threads, testfs.FirstDiff(want, got))
			}
			if off, err := firstDifference(a, b); off >= 0 || err != nil {
				t.Fatalf("%s: mode %d, %d threads: what was written differs at byte %d: %v", name, mode, threads, off, err)
			}
		}
	}
}

// firstDifference returns where two devices of a size differ, -1 if nowhere.
func firstDifference(a, b blockdev.Device) (int64, error) {
	var x, y [64 << 10]byte
	for off := int64(0); off < a.Size(); off += int64(len(x)) {
		n := min(int64(len(x)), a.Size()-off)
		if _, err := a.ReadAt(x[:n], off); err != nil {
			return off, err
		}
		if _, err := b.ReadAt(y[:n], off); err != nil {
			return off, err
		}
		if x == y {
			continue
		}
		for i := range x {
			if x[i] != y[i] {
				return off + int64(i), nil
			}
		}
	}
	return -1, nil
}

// TestThreads compares checks in one goroutine with those in several.
func TestThreads(t *testing.T) {
	testfs.NeedRoot(t)
	n := 0
	for _, img := range testfs.MutationBases(t) {
		m, err := testfs.NewMutator(img.Path)
		if err != nil {
			t.Fatal(err)
		}
		for seed := range uint64(12) {
			_, what := m.Mutate(seed)
			sameFindings(t, img.Spec.Name+": "+what, func() blockdev.Device {
				dev, _ := m.Mutate(seed)
				return dev
			})
			n++
		}
	}
	// Many groups, so that there are many pieces; and more than one mutation.
	path := filepath.Join(testfs.Scratch(t), "groups")
	testfs.Run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-g", "512", "-G", "4", "-N", "4096", "-d", filepath.Join("..", "fuse2fs"), path, "24M")
	m, err := testfs.NewMutator(path)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(24) {
		sameFindings(t, fmt.Sprint("groups: seeds from ", seed), func() blockdev.Device {
			first, _ := m.Mutate(seed * 8)
			out := blockdev.NewOverlay(first, 0)
			for k := uint64(1); k < 8; k++ {
				dev, _ := m.Mutate(seed*8 + k)
				o, ok := dev.(*blockdev.Overlay)
				if !ok { // one that was cut short
					continue
				}
				for off, page := range o.Changed() {
					if _, err := out.WriteAt(page, off); err != nil {
						t.Fatal(err)
					}
				}
			}
			return out
		})
		n++
	}
	t.Logf("%d images", n)
}

// TestThreadsGolden is TestThreads for the recorded images.
func TestThreadsGolden(t *testing.T) {
	dir := testfs.Golden(t)
	n := 0
	for _, c := range readCases(t, dir) {
		if c["options_1"] == "-" || c["image"] == "" {
			continue
		}
		path := filepath.Join(testfs.Scratch(t), "image")
		testfs.Unpack(t, filepath.Join(dir, c["test"], c["image"]), path)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		mem := blockdev.NewMem(int64(len(data)))
		if _, err := mem.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
		sameFindings(t, c["test"], func() blockdev.Device { return blockdev.NewOverlay(mem, 0) })
		n++
	}
	t.Logf("%d images", n)
}
