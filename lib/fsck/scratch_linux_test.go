package fsck_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/fsck"
)

// TestScratch has what is known of directories go to a file, which leaves nothing
// behind and changes nothing in what is found.
func TestScratch(t *testing.T) {
	dir := testfs.Scratch(t)
	path, src, scratch := filepath.Join(dir, "image"), filepath.Join(dir, "src"), filepath.Join(dir, "scratch")
	for i := range 1500 {
		if err := os.MkdirAll(filepath.Join(src, fmt.Sprint(i%30), fmt.Sprint(i)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(scratch, 0o700); err != nil {
		t.Fatal(err)
	}
	testfs.Run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-N", "4000", "-d", src, path, "16M")
	for _, c := range []string{"sif 3 links_count 9", "sif 3/3 links_count 7", "clri 7/7", "sif 8/8 block[2] 77", "unlink 9/9"} {
		testfs.Run(t, "debugfs", "-w", "-R", c, path)
	}
	run := func(o fsck.Options) (*fsck.Result, []fsck.Problem, error) {
		file, err := blockdev.Open(path, blockdev.Options{ReadOnly: true, Direct: blockdev.DirectOff})
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		rec := &recorder{}
		o.Mode, o.Force, o.Asker = fsck.ModeYes, true, rec
		res, err := fsck.Check(context.Background(), blockdev.NewOverlay(file, 0), o)
		return res, rec.log, err
	}
	_, want, err := run(fsck.Options{})
	if err != nil || len(want) < 5 {
		t.Fatalf("%d problems: %v", len(want), err)
	}
	for _, c := range []struct {
		memory  int64
		from    uint64
		spilled bool
	}{{-1, 0, true}, {4096, 0, true}, {1 << 30, 0, false}, {-1, 1 << 20, false}, {-1, 1000, true}} {
		res, got, err := run(fsck.Options{Memory: c.memory, Scratch: scratch, ScratchFrom: c.from})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%d bytes of memory: other problems: %v\n%v\n%v", c.memory, err, want, got)
		}
		if res.Spilled > 0 != c.spilled {
			t.Errorf("%d bytes of memory, from %d directories: %d bytes went to a file", c.memory, c.from, res.Spilled)
		}
		if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v: %v", left, err)
		}
	}
	if _, _, err := run(fsck.Options{Memory: -1, Scratch: filepath.Join(dir, "nonexistent")}); err == nil {
		t.Error("no error without a folder")
	}
}
