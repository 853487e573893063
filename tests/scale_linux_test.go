package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// TestMillion walks an image of 100 GiB with a million files, by stat as find
// and du do: with less than 256 MiB by default, and with less if cache_size
// says so.
func TestMillion(t *testing.T) {
	server(t)
	img := testfs.Mke2fs(t, testfs.Spec{
		Name: "million", Size: 100 << 30, Inodes: 1_100_000, Extended: "lazy_itable_init=1,nodiscard", Features: "^resize_inode",
	})
	img.ExpectDirty("only the kernel writes it: e2fsck would take long for nothing")
	k := testfs.KernelMount(t, img, "")
	const folders, files = 1000, 1000
	for i := range folders {
		dir := filepath.Join(k.Dir, fmt.Sprintf("folder%d", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for j := range files {
			if err := unix.Mknodat(fd, fmt.Sprintf("file-%d-%d", i, j), unix.S_IFREG|0o644, 0); err != nil {
				t.Fatal(err)
			}
		}
		unix.Close(fd)
	}
	if err := k.Unmount(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		opts string
		most int64 // KiB
	}{{"ro", 256 << 10}, {"ro,cache_size=8m", 128 << 10}} {
		m := mount(t, img, c.opts)
		start, n := time.Now(), 0
		err := filepath.WalkDir(m.Dir, func(_ string, d os.DirEntry, err error) error {
			if err == nil {
				_, err = d.Info()
			}
			n++
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		rss := highWater(m.Server.Pid)
		t.Logf("-o %s: %d names in %v, %d KiB", c.opts, n, time.Since(start), rss)
		if n < folders*files || rss > c.most {
			t.Errorf("-o %s: %d names, %d KiB", c.opts, n, rss)
		}
		if err := m.Unmount(); err != nil {
			t.Fatal(err)
		}
	}
}
