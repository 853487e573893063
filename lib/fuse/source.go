//go:build linux

package fuse

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// withSource runs f where the path source names the block device dev: the
// kernel shows as a mount's source the path by which it found the device, and
// for an image behind a loop device people expect that of the image.
//
// f runs on a thread with a mount namespace of its own, in which dev is bound
// over source. Mounts that f makes and does not attach can be attached outside.
func withSource(source, dev string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with its namespace
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("private mounts: %w", err)
			}
			if err := unix.Mount(dev, source, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("bind %s over %s: %w", dev, source, err)
			}
			return f()
		}()
	}()
	return <-done
}
