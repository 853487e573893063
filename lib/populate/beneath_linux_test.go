package populate

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
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
