package ext2fs

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestRecover recovers what the kernel left dirty, and compares with the tree
// that the kernel's own recovery shows. Opened read-only before, the image must
// not change by one bit.
func TestRecover(t *testing.T) {
	for _, d := range testfs.DirtyImages() {
		t.Run(d.Name, func(t *testing.T) {
			img := d.Make(t)
			want := testfs.Recovered(t, img)
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
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			if fs.hasJournal {
				img.ExpectClean()
			}
			m := testfs.KernelMount(t, img, "ro,noload")
			skip := testfs.Atime // ours and the kernel's reading
			if d.FastCommits || strings.HasPrefix(d.Name, "orphan") {
				skip |= testfs.Mtime | testfs.Ctime // of the recovery
			}
			testfs.Same(t, "our recovery, against the kernel's", want, testfs.MustSnapshot(t, m.Dir), skip)
			if err := m.Unmount(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
