package fsck_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/fsck"
)

// maxMutatedHeap is the most memory that a check of a damaged image of some MiB may hold.
const maxMutatedHeap = 256 << 20

// TestMutated repairs damaged images: the check ends, does not panic, and keeps
// its memory; with ModeNo nothing is written; a second run finds nothing, and
// neither does the C tool; no fewer files are intact than after a repair by the C
// tool. E2KIT_MUTATIONS says how many there are, or which: 5000-10000; E2KIT_MUTATION, with a number, has
// only that one checked, which is kept as E2KIT_KEEP.
func TestMutated(t *testing.T) {
	testfs.NeedRoot(t)
	from, n := 0, 102
	if s := os.Getenv("E2KIT_MUTATIONS"); s != "" {
		if a, b, ok := strings.Cut(s, "-"); ok {
			from, _ = strconv.Atoi(a)
			s = b
		}
		n, _ = strconv.Atoi(s)
	}
	bases := append(testfs.MutationBases(t), featureBases(t)...)
	dir := testfs.Scratch(t)
	good := make([]contents, len(bases))
	for i, img := range bases {
		good[i] = repairedContents(t, img.Path)
	}
	fixed, refused, unclean, disagree, more, fewer := 0, 0, 0, 0, 0, 0
	for i := from; i < n; i++ {
		if only := os.Getenv("E2KIT_MUTATION"); only != "" && only != fmt.Sprint(i) {
			continue
		}
		img := bases[i%len(bases)]
		m, err := testfs.NewMutator(img.Path)
		if err != nil {
			t.Fatal(err)
		}
		seed := uint64(i/len(bases)) + 1
		dev, what := m.Mutate(seed)
		name := fmt.Sprintf("%d: %s: %s", i, img.Spec.Name, what)
		path := filepath.Join(dir, "image")
		dump(t, dev, path)
		if keep := os.Getenv("E2KIT_KEEP"); keep != "" {
			dump(t, dev, keep)
		}
		cCode, _ := cFsck(t, "-fy", path)
		cGood := 0
		if cCode&^1 == 0 {
			cGood = good[i%len(bases)].intact(contentsOf(path))
		}
		// Nothing is written under ModeNo: the device refuses.
		run := func(mode fsck.Mode, d blockdev.Device) (*fsck.Result, *recorder, error) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			rec := &recorder{}
			res, err := fsck.Check(ctx, d, fsck.Options{Mode: mode, Force: true, Asker: rec})
			if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: does not end", name)
			}
			return res, rec, err
		}
		if _, _, err := run(fsck.ModeNo, blockdev.ReadOnly(dev)); err != nil && !expected(err) {
			t.Errorf("%s: read-only: %v", name, err)
		}
		res, first, err := run(fsck.ModeYes, dev)
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		if mem.HeapInuse > maxMutatedHeap {
			t.Errorf("%s: %d MiB of memory", name, mem.HeapInuse>>20)
		}
		if err != nil {
			if !expected(err) {
				t.Errorf("%s: %v", name, err)
			}
			refused++
			if cGood > 0 {
				fewer++
				t.Errorf("%s: refused (%v), and the C tool saves %d files", name, err, cGood)
			}
			continue
		}
		if res.Fixed {
			fixed++
		}
		res2, rec, err := run(fsck.ModeYes, dev)
		if err != nil || res2.Fixed || res2.Left {
			unclean++
			t.Logf("%s: the second run: %v", name, err)
			for _, p := range rec.log {
				t.Logf("  %06x %s", uint32(p.Code), p.String())
			}
			t.Logf("  the first run:")
			for k, p := range first.log {
				if k < 12 {
					t.Logf("  %06x %s", uint32(p.Code), p.String())
				}
			}
			continue
		}
		dump(t, dev, path)
		switch ours := good[i%len(bases)].intact(contentsOf(path)); {
		case ours < cGood && img.Spec.Name == "dirty-fast" && strings.Contains(what, "journal block"):
			// Of a log that is damaged the fast commits are not replayed, which the C
			// tool does: the kernel would not mount it at all.
			t.Logf("%s: %d files are intact, after the C tool %d, which replays fast commits of a damaged log", name, ours, cGood)
		case ours < cGood:
			fewer++
			t.Errorf("%s: %d files are intact, after the C tool %d", name, ours, cGood)
		case ours > cGood:
			more++
		}
		if code, out := cFsck(t, "-fn", path); code != 0 {
			disagree++
			t.Logf("%s: C e2fsck -fn ends with %d: %.1500s", name, code, out)
			for k, p := range first.log {
				if k < 12 {
					t.Logf("  %06x %s", uint32(p.Code), p.String())
				}
			}
		}
	}
	t.Logf("%d images: %d repaired, %d refused; the second run found something in %d, the C tool in %d; more files are intact than after its repair in %d, fewer in %d",
		n-from, fixed, refused, unclean, disagree, more, fewer)
	if unclean+disagree > 0 {
		t.Errorf("%d images are not clean after a repair", unclean+disagree)
	}
}

// expected tells whether a check may end with err on a damaged image.
func expected(err error) bool {
	return errors.Is(err, fsck.ErrAborted) || errors.Is(err, fsck.ErrManual) || errors.Is(err, fsck.ErrUnusable)
}

func dump(t *testing.T, dev blockdev.Device, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, io.NewSectionReader(dev, 0, dev.Size())); err != nil {
		t.Fatal(err)
	}
}
