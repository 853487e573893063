package ext2fs

import (
	"bytes"
	"os"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
)

// openImage opens img, and its external journal, and closes both when the test
// ends unless it has.
func openImage(t *testing.T, img *testfs.Image, o Options) *FS {
	t.Helper()
	fs, err := tryImage(t, img, o)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

func tryImage(t *testing.T, img *testfs.Image, o Options) (*FS, error) {
	t.Helper()
	open := func(path string) blockdev.Device {
		d, err := blockdev.Open(path, blockdev.Options{ReadOnly: o.ReadOnly, Direct: blockdev.DirectOff})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	if img.Journal != "" {
		o.Journal = open(img.Journal)
	}
	fs, err := Open(open(img.Path), o)
	if err == nil {
		t.Cleanup(func() { fs.Close() })
	}
	return fs, err
}

// TestOpenClose opens every kind of image both ways, and has e2fsck look at it.
func TestOpenClose(t *testing.T) {
	for _, spec := range testfs.Matrix() {
		t.Run(spec.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, spec)
			before, err := os.ReadFile(img.Path)
			if err != nil {
				t.Fatal(err)
			}
			fs := openImage(t, img, Options{ReadOnly: true})
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			after, err := os.ReadFile(img.Path)
			if err != nil || !bytes.Equal(before, after) {
				t.Fatalf("opened read-only, the image changed (%v)", err)
			}
			fs = openImage(t, img, Options{})
			if ro, why := fs.ReadOnly(); ro {
				t.Skip("read-only:", why)
			}
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
