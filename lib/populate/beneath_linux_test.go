package populate

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
)

// TestBeneath opens files of a directory in which another directory has become a
// symbolic link that leads out of it, on kernels with and without openat2.
func TestBeneath(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	for _, f := range []string{filepath.Join(dir, "a", "b", "file"), filepath.Join(outside, "b", "file")} {
		if err := os.MkdirAll(filepath.Dir(f), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	check := func() {
		t.Helper()
		for path, want := range map[string]error{
			"": nil, "a": nil, "a/b": nil, "a/b/file": nil, "a/none": unix.ENOENT,
			"link": unix.ELOOP, "link/b": unix.ELOOP, "link/b/file": unix.ELOOP,
		} {
			fd, err := openBeneath(root, path, unix.O_RDONLY|unix.O_NONBLOCK)
			if (err == nil) != (want == nil) {
				t.Errorf("%q: %v, want %v", path, err, want)
			}
			if err == nil {
				unix.Close(fd)
			}
		}
	}
	check()
	defer func() { openat2 = unix.Openat2 }()
	openat2 = func(int, string, *unix.OpenHow) (int, error) { return -1, unix.ENOSYS }
	check()
}

// TestDirSwapped puts another file in the place of one that was looked at: the
// owner and mode of the first do not get the contents of the second.
func TestDirSwapped(t *testing.T) {
	testfs.NeedRoot(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "su")
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	write(path, "good", 0o755|os.ModeSetuid)
	tree, err := Load(t.Context(), Dir(dir), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	write(path+"2", "evil", 0o644)
	if err := os.Rename(path+"2", path); err != nil {
		t.Fatal(err)
	}
	img := image(t, 16<<20)
	img.ExpectDirty("there is no file system")
	dev, err := blockdev.Open(img.Path, blockdev.Options{Direct: blockdev.DirectOff})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if _, err := tree.Write(t.Context(), dev); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("a file that was replaced: %v", err)
	}
}
