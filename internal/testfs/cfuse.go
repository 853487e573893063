//go:build linux

package testfs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// CFuseMount mounts the image by C fuse2fs: the peer to compare with, and an
// oracle for images whose blocks are too large for the kernel. It is unmounted
// when the test ends, before the image is checked, or by Unmount, which waits
// until the server has gone.
func CFuseMount(t testing.TB, img *Image, opts string) *Mount {
	t.Helper()
	NeedRoot(t)
	tool := Tool(t, "fuse2fs")
	dir := filepath.Join(Scratch(t), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := startFuse(dir, exec.Command(tool, "-f", "-o", strings.Trim("allow_other,"+opts, ","), img.Path, dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// startFuse runs a FUSE server in the foreground and waits until it has
// mounted dir.
func startFuse(dir string, cmd *exec.Cmd) (*Mount, error) {
	var before unix.Stat_t
	if err := unix.Stat(dir, &before); err != nil {
		return nil, err
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	deadline := time.Now().Add(30 * time.Second)
	for {
		var now unix.Stat_t
		if err := unix.Stat(dir, &now); err == nil && now.Dev != before.Dev {
			break
		}
		select {
		case err := <-done:
			return nil, fmt.Errorf("%s: %v\n%s", cmd.Path, err, out.String())
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			<-done
			unix.Unmount(dir, unix.MNT_DETACH)
			return nil, fmt.Errorf("%s: not mounted after 30 s\n%s", cmd.Path, out.String())
		}
	}
	return &Mount{Dir: dir, mounted: true, ended: func() error {
		select {
		case err := <-done:
			if err != nil {
				err = fmt.Errorf("%s: %w\n%s", cmd.Path, err, out.String())
			}
			return err
		case <-time.After(60 * time.Second):
			cmd.Process.Kill()
			<-done
			return fmt.Errorf("%s: still runs 60 s after unmount", cmd.Path)
		}
	}}, nil
}

// FuseMount mounts an image by running a server in the foreground: argv with
// the mount point appended. It is unmounted when the test ends.
func FuseMount(t testing.TB, argv ...string) *Mount {
	t.Helper()
	dir := filepath.Join(Scratch(t), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := startFuse(dir, exec.Command(argv[0], append(argv[1:len(argv):len(argv)], dir)...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return m
}
