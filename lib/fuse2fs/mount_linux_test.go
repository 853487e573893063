package fuse2fs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

var build struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if build.dir != "" {
		os.RemoveAll(build.dir)
	}
	os.Exit(code)
}

// command returns the path of the command fuse2fs, built from the tree as it
// stands.
func command(t testing.TB) string {
	t.Helper()
	build.once.Do(func() {
		if build.dir, build.err = os.MkdirTemp("", "e2kit-bin-"); build.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", build.dir, "github.com/e2kit/e2kit/cmd/fuse2fs")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			build.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return filepath.Join(build.dir, "fuse2fs")
}

// mount mounts the image by the command, in a process of its own: only so may a
// test touch mapped memory of the mount.
func mount(t testing.TB, img *testfs.Image, opts string) *testfs.Mount {
	t.Helper()
	testfs.NeedRoot(t)
	opts = strings.Trim("allow_other,suid,dev,"+opts, ",")
	if img.Journal != "" {
		opts += ",journal_path=" + img.Journal
	}
	return testfs.FuseMount(t, command(t), "-f", "-o", opts, img.Path)
}
