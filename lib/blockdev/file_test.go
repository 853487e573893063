package blockdev_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/blockdev/devtest"
)

// tempImage makes a file of size bytes in a directory of its own within dir.
func tempImage(t testing.TB, dir string, size int64) string {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	} else {
		tmp, err := os.MkdirTemp(dir, "blockdev")
		if err != nil {
			t.Skipf("no %s: %v", dir, err)
		}
		t.Cleanup(func() { os.RemoveAll(tmp) })
		dir = tmp
	}
	path := filepath.Join(dir, "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustOpen(t testing.TB, path string, o blockdev.Options) *blockdev.File {
	t.Helper()
	f, err := blockdev.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFile(t *testing.T) {
	for _, dir := range []string{"", "/dev/shm"} {
		for name, tt := range map[string]struct {
			size int64
			o    blockdev.Options
		}{
			"Auto":     {1 << 20, blockdev.Options{}},
			"Buffered": {1 << 20, blockdev.Options{Direct: blockdev.DirectOff}},
			"Odd":      {1<<20 + 777, blockdev.Options{}},
			"Range":    {2 << 20, blockdev.Options{Offset: 512 << 10, Length: 1 << 20}},
			"OddRange": {2 << 20, blockdev.Options{Offset: 777, Length: 1<<20 + 1}},
			"ReadOnly": {1 << 20, blockdev.Options{ReadOnly: true}},
		} {
			t.Run(filepath.Base(dir)+name, func(t *testing.T) {
				devtest.Run(t, func(t *testing.T) blockdev.Device {
					return mustOpen(t, tempImage(t, dir, tt.size), tt.o)
				})
			})
		}
	}
}
