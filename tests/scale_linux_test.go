package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestSparse8T mounts a sparse image of 8 TiB: in less than 100 ms, and with
// less than 64 MiB of memory.
func TestSparse8T(t *testing.T) {
	bin := server(t)
	img := testfs.Mke2fs(t, testfs.Spec{
		Name: "8T", Size: 8 << 40, Inodes: 1 << 20, Extended: "lazy_itable_init=1,nodiscard,packed_meta_blocks=1",
		Features: "^resize_inode,sparse_super2", Args: []string{"-G", "4096"},
	})
	img.ExpectDirty("e2fsck takes long; the mounts below are read-only")
	best := time.Hour
	for range 3 {
		dir := filepath.Join(testfs.Scratch(t), "mnt")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		m, err := testfs.StartFuse(dir, exec.Command(bin, "-f", "-o", "ro", img.Path, dir))
		if err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(start))
		tree := testfs.MustSnapshot(t, dir)
		if len(tree) < 2 {
			t.Errorf("%d names", len(tree))
		}
		rss := highWater(m.Server.Pid)
		if err := m.Unmount(); err != nil {
			t.Fatal(err)
		}
		if rss > 64<<10 {
			t.Errorf("took %d KiB", rss)
		}
		t.Logf("mounted in %v, at most %d KiB", time.Since(start), rss)
	}
	if best > 100*time.Millisecond {
		t.Errorf("mounting took %v", best)
	}
}
