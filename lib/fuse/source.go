//go:build linux

package fuse

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// withSource runs f where the path source names the block device dev: the
// kernel shows as a mount's source the path by which it found the device, and
// for an image behind a loop device people expect that of the image.
//
// f runs on a thread whose root and working directory are a tmpfs that is
// mounted nowhere, with nothing in it but a device node at that path.
func withSource(source, dev string, f func() error) error {
	root, err := deviceTree(path.Clean("/"+source), dev)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Fchdir(root); err != nil {
			return fmt.Errorf("fchdir: %w", err)
		}
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("chroot: %w", err)
		}
		return f()
	})
}

// onThread runs f on a thread that ends afterwards. It is not the process's
// first, which cannot end, and whose root the process would seem to have.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: that ends the thread
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- onThread(f) // elsewhere, since this goroutine keeps the first
			return
		}
		done <- f()
	}()
	return <-done
}

// deviceTree returns a detached tmpfs that has the device node dev at abs.
func deviceTree(abs, dev string) (root int, err error) {
	var st unix.Stat_t
	if err := unix.Stat(dev, &st); err != nil {
		return -1, fmt.Errorf("%s: %w", dev, err)
	}
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("tmpfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("tmpfs: %w", err)
	}
	root, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("tmpfs: %w", err)
	}
	names := strings.Split(abs[1:], "/")
	for i := range names[:len(names)-1] {
		err = unix.Mkdirat(root, strings.Join(names[:i+1], "/"), 0o700)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	if err == nil || errors.Is(err, unix.EEXIST) {
		err = unix.Mknodat(root, abs[1:], unix.S_IFBLK|0o600, int(st.Rdev))
	}
	if err != nil {
		unix.Close(root)
		return -1, fmt.Errorf("device node for %s: %w", abs, err)
	}
	return root, nil
}
