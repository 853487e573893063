package populate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

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
		sum, err := tree.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return sum
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
