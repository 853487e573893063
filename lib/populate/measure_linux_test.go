package populate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
)

// mkfs formats by C mke2fs, in a file.
type mkfs struct {
	t    testing.TB
	tool string
	dir  string
	args []string
	path string
}

func (m *mkfs) make(size int64, inodes uint64) (blockdev.Device, error) {
	m.path = filepath.Join(m.dir, "scratch.img")
	os.Remove(m.path)
	args := append([]string{"-q", "-F", "-U", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
		"-E", "hash_seed=6e3c1f52-5a5c-4b7e-9d0a-0123456789ab", "-N", strconv.FormatUint(inodes+16, 10)}, m.args...)
	c := exec.Command(m.tool, append(args, m.path, strconv.FormatInt(size/1024, 10)+"k")...)
	c.Env = append(os.Environ(), "MKE2FS_CONFIG=/dev/null")
	if out, err := c.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "too") || strings.Contains(string(out), "space") {
			return nil, fmt.Errorf("%s: %w", out, syscall.ENOSPC)
		}
		return nil, fmt.Errorf("mke2fs %q: %s: %w", args, out, err)
	}
	if err := os.Truncate(m.path, size); err != nil { // it may end after the last block that was written
		return nil, err
	}
	return blockdev.Open(m.path, blockdev.Options{})
}

// randomTree makes a folder of random files.
func randomTree(t testing.TB, dir string, rnd *rand.Rand) {
	t.Helper()
	dirs := []string{dir}
	files := []string{}
	n := 20 + rnd.IntN(150)
	if rnd.IntN(8) == 0 {
		n = 2000
	}
	small := rnd.IntN(3) == 0
	for i := range n {
		at := filepath.Join(dirs[rnd.IntN(len(dirs))], fmt.Sprintf("%s%d", strings.Repeat("n", 1+rnd.IntN(60)), i))
		var err error
		switch k := rnd.IntN(20); {
		case k == 0 && len(dirs) < 30:
			err = os.Mkdir(at, 0o755)
			dirs = append(dirs, at)
		case k == 1:
			err = os.Symlink(strings.Repeat("t", 1+rnd.IntN(120)), at)
		case k == 2 && len(files) > 0:
			err = os.Link(files[rnd.IntN(len(files))], at)
		case k == 3:
			var f *os.File
			if f, err = os.Create(at); err == nil {
				for range rnd.IntN(30) {
					_, err = f.WriteAt([]byte("data"), rnd.Int64N(1<<22))
				}
				f.Truncate(1 << 22)
				f.Close()
			}
		default:
			size := rnd.IntN(3000)
			if !small && rnd.IntN(6) == 0 {
				size = rnd.IntN(1 << 20)
			}
			if err = os.WriteFile(at, make([]byte, size), 0o644); err == nil {
				files = append(files, at)
			}
			if rnd.IntN(6) == 0 {
				err = unix.Setxattr(at, "user.x", make([]byte, rnd.IntN(600)), 0)
				if errors.Is(err, unix.EOPNOTSUPP) {
					err = nil
				}
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Sizes always fit, and are close to the smallest that do. E2KIT_SIZE_TREES
// says over how many trees.
func TestFit(t *testing.T) {
	trees := 100
	if testing.Short() {
		trees = 10
	}
	if s := os.Getenv("E2KIT_SIZE_TREES"); s != "" {
		var err error
		if trees, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	formats := []struct {
		name  string
		block int
		args  []string
	}{
		{"ext4", 4096, []string{"-t", "ext4", "-b", "4096", "-O", "extents,flex_bg,64bit,metadata_csum,huge_file,dir_nlink,dir_index,has_journal"}},
		{"ext4-1k", 1024, []string{"-t", "ext4", "-b", "1024", "-O", "extents,flex_bg,64bit,metadata_csum,dir_index"}},
		{"ext2", 1024, []string{"-t", "ext2", "-b", "1024", "-I", "128"}},
		{"inline", 4096, []string{"-t", "ext4", "-b", "4096", "-O", "extents,flex_bg,metadata_csum,inline_data,dir_index"}},
		{"bigalloc", 4096, []string{"-t", "ext4", "-b", "4096", "-O", "extents,flex_bg,bigalloc,metadata_csum", "-C", "16384"}},
	}
	scratch := testfs.Scratch(t)
	worst := 0.0
	for i := range trees {
		f := formats[i%len(formats)]
		rnd := rand.New(rand.NewPCG(uint64(i), 4))
		src := filepath.Join(scratch, "src")
		if err := os.Mkdir(src, 0o755); err != nil {
			t.Fatal(err)
		}
		randomTree(t, src, rnd)
		m := &mkfs{t: t, tool: testfs.Tool(t, "mke2fs"), dir: scratch, args: f.args}
		tree, err := Load(context.Background(), Dir(src), Options{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := tree.Fit(context.Background(), m.make, SizeOptions{BlockSize: f.block})
		if err != nil {
			t.Fatalf("tree %d, %s: %v", i, f.name, err)
		}
		write := func(size int64) error {
			dev, err := m.make(size, s.Inodes)
			if err != nil {
				return err
			}
			defer dev.Close()
			_, err = tree.Write(context.Background(), dev)
			return err
		}
		if err := write(s.Bytes); err != nil {
			t.Fatalf("tree %d, %s: it does not fit the size of %d bytes found for it: %v", i, f.name, s.Bytes, err)
		}
		if err := testfs.E2fsck(t, m.path, ""); err != nil {
			t.Fatalf("tree %d, %s: %v", i, f.name, err)
		}
		// The smallest size that fits, from below.
		lo, hi := int64(s.Blocks)*int64(f.block), s.Bytes
		for hi-lo > 64<<10 {
			mid := (lo + hi) / 2 / int64(f.block) * int64(f.block)
			if _, err := tree.try(context.Background(), m.make, mid, s.Inodes); err == nil {
				hi = mid
			} else {
				lo = mid
			}
		}
		over := s.Bytes - hi
		worst = max(worst, float64(over)/float64(hi))
		if over > max(hi/50, 1<<20) {
			t.Errorf("tree %d, %s: %d bytes are %d more than the smallest size", i, f.name, s.Bytes, over)
		}
		tree.Close()
		if err := os.RemoveAll(src); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d trees; at worst %.2f %% more than the smallest size", trees, 100*worst)
}

func TestFitMax(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), make([]byte, 3<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := Load(context.Background(), Dir(dir), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	m := &mkfs{t: t, tool: testfs.Tool(t, "mke2fs"), dir: testfs.Scratch(t), args: []string{"-t", "ext4", "-b", "4096"}}
	if _, err := tree.Fit(t.Context(), m.make, SizeOptions{BlockSize: 4096, Max: 1 << 20}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("3 MiB in at most 1: %v", err)
	}
	s, err := tree.Fit(t.Context(), m.make, SizeOptions{BlockSize: 4096, Free: 8 << 20})
	if err != nil || s.Bytes < 11<<20 || s.Bytes > 20<<20 {
		t.Fatalf("3 MiB and 8 free: %+v, %v", s, err)
	}
	dev, err := m.make(s.Bytes, s.Inodes)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if _, err := tree.Write(t.Context(), dev); err != nil {
		t.Fatal(err)
	}
	fs, err := ext2fs.Open(dev, ext2fs.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	if left := int64(fs.Statfs().Bavail) * 4096; left < 8<<20 || left > 9<<20 {
		t.Errorf("%d bytes are left for users, 8 MiB were wanted", left)
	}

	// The smallest: with a block less it does not fit.
	s, err = tree.Fit(t.Context(), m.make, SizeOptions{BlockSize: 4096, Smallest: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.try(t.Context(), m.make, s.Bytes, s.Inodes); err != nil {
		t.Errorf("the smallest size, %d: %v", s.Bytes, err)
	}
	if _, err := tree.try(t.Context(), m.make, s.Bytes-4096, s.Inodes); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a block less than the smallest size, %d: %v", s.Bytes, err)
	}
	if s, err := tree.Fit(t.Context(), m.make, SizeOptions{BlockSize: 4096, Min: 30<<20 + 1}); err != nil || s.Bytes != 30<<20+4096 {
		t.Errorf("at least 30 MiB and a byte: %+v, %v", s, err)
	}
	// A limit that the steps would go past is tried too.
	at, err := tree.Fit(t.Context(), m.make, SizeOptions{BlockSize: 4096, Max: s.Bytes})
	if err != nil || at.Bytes != s.Bytes {
		t.Errorf("at most the smallest size, %d: %+v, %v", s.Bytes, at, err)
	}
}

// The digest is of what files are, not of how they were read.
func TestDigest(t *testing.T) {
	dir := t.TempDir()
	load := func(o Options) [32]byte {
		tree, err := Load(t.Context(), Dir(dir), o)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		return tree.Digest()
	}
	for _, n := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, n), make([]byte, 100<<10), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	one := load(Options{})
	if load(Options{Workers: 1}) != one {
		t.Error("it depends on who reads")
	}
	if _, err := os.ReadFile(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if load(Options{}) != one {
		t.Error("it depends on times of access")
	}
	for what, o := range map[string]Options{"owners": {Owner: &Owner{7, 8}}, "names": {Exclude: []string{"b"}}} {
		if load(o) == one {
			t.Errorf("it does not depend on %s", what)
		}
	}
	if err := os.Remove(filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if load(Options{}) == one {
		t.Error("it does not depend on links")
	}
}
