package fsck_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/fsck"
)

// TestReplay replays a journal that the kernel left, once.
func TestReplay(t *testing.T) {
	testfs.NeedRoot(t)
	img := testfs.DirtyImages()[0].Make(t)
	img.ExpectClean()
	replay := func(ctx context.Context) (*fsck.Result, error) {
		dev, err := blockdev.Open(img.Path, blockdev.Options{Direct: blockdev.DirectOff})
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		return fsck.Replay(ctx, dev, nil)
	}
	state := func() string { return testfs.Run(t, "dumpe2fs", "-h", img.Path) }
	before, err := os.ReadFile(img.Path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(state(), "needs_recovery") {
		t.Fatal("the image has nothing to replay")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := replay(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if after, err := os.ReadFile(img.Path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("cancelled, and yet something was written: %v", err)
	}
	res, err := replay(context.Background())
	if err != nil || !res.Replayed || strings.Contains(state(), "needs_recovery") {
		t.Errorf("replayed %v: %v: %s", res.Replayed, err, state())
	}
	if res, err := replay(context.Background()); err != nil || res.Replayed {
		t.Errorf("the second time: replayed %v: %v", res.Replayed, err)
	}
}

// stopper cancels a check in the middle of a pass.
type stopper struct {
	recorder
	pass   int
	cancel func()
}

func (s *stopper) Progress(pass int, _, _ uint64) {
	if pass == s.pass {
		s.cancel()
	}
}

// TestCancel: a check ends in whichever pass it is when its context does, and the
// next one completes it.
func TestCancel(t *testing.T) {
	path := testfs.Scratch(t) + "/image"
	testfs.Run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-g", "512", "-N", "4096", "-d", "../fuse2fs", path, "24M")
	testfs.Run(t, "debugfs", "-w", "-R", "set_inode_field lost+found links_count 7", path)
	testfs.Run(t, "debugfs", "-w", "-R", "set_super_value free_blocks_count 1", path)
	for pass := 1; pass <= 5; pass++ {
		dev, err := blockdev.Open(path, blockdev.Options{Direct: blockdev.DirectOff})
		if err != nil {
			t.Fatal(err)
		}
		over := blockdev.NewOverlay(dev, 0)
		ctx, cancel := context.WithCancel(context.Background())
		s := &stopper{pass: pass, cancel: cancel}
		res, err := fsck.Check(ctx, over, fsck.Options{Mode: fsck.ModeYes, Force: true, Asker: s})
		if ended := errors.Is(err, context.Canceled); !ended && pass != 3 && pass != 4 || ended != res.Aborted {
			t.Errorf("cancelled in pass %d: %v", pass, err)
		}
		res, err = fsck.Check(context.Background(), over, fsck.Options{Mode: fsck.ModeYes, Force: true})
		if err != nil || res.Left {
			t.Errorf("after pass %d: %v", pass, err)
		}
		res, err = fsck.Check(context.Background(), over, fsck.Options{Mode: fsck.ModeNo, Force: true})
		if err != nil || res.Left || len(res.Found) > 0 {
			t.Errorf("after that: %v: %v", res.Found, err)
		}
		cancel()
		dev.Close()
	}
}
