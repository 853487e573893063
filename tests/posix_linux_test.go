package tests

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestPosix runs go-fuse's conformance tests on our mount, and on the kernel's:
// what fails there too says nothing.
func TestPosix(t *testing.T) {
	server(t)
	for name, test := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			img := testfs.Mke2fs(t, testfs.Spec{Name: "posix", Size: 128 << 20})
			m := mount(t, img, "")
			dir := filepath.Join(m.Dir, "test")
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			test(t, dir)
		})
	}
}
