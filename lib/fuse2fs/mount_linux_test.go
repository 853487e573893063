package fuse2fs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/fuse"
	"github.com/e2kit/e2kit/lib/fuse2fs"
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

// serve mounts the image by a server in this process, which a race detector
// sees. Unmounting returns what the server ended with.
func serve(t testing.TB, img *testfs.Image, opts ext2fs.Options) (dir string, unmount func() error) {
	t.Helper()
	testfs.NeedRoot(t)
	dir = filepath.Join(testfs.Scratch(t), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	dev, err := blockdev.Open(img.Path, blockdev.Options{Lock: true, ReadOnly: opts.ReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	fs, err := ext2fs.Open(dev, opts)
	if err != nil {
		t.Fatal(err)
	}
	mnt, err := fuse.NewMount(dir, fuse.MountOptions{Source: img.Path, Subtype: "ext4", AllowOther: true, DefaultPermissions: true})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := fuse2fs.New(mnt.Fd(), fuse2fs.Config{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve() }()
	<-srv.Ready()
	if err := mnt.Attach(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	var ended error
	unmount = func() error {
		once.Do(func() {
			for range 100 {
				if ended = syscall.Unmount(dir, 0); ended != syscall.EBUSY {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			if ended != nil {
				_ = fuse.Unmount(dir, true)
			}
			if err := <-done; ended == nil {
				ended = err
			}
			if err := dev.Close(); ended == nil {
				ended = err
			}
		})
		return ended
	}
	t.Cleanup(func() {
		if err := unmount(); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir, unmount
}
