package tests

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"github.com/e2kit/e2kit/internal/testfs"
)

// notExt4 are tests of go-fuse's set that the kernel's ext4 fails as well.
var notExt4 = map[string]string{
	"FcntlFlockLocksFile": "asks for locks of one process that conflict",
}

// TestPosix runs go-fuse's conformance tests on our mount.
func TestPosix(t *testing.T) {
	server(t)
	for name, test := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if why := notExt4[name]; why != "" {
				t.Skip(why)
			}
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
