//go:build linux

package fuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Loop is a loop device that stands for an image, so that it can be mounted as
// a block device (see [MountOptions].BlockDevice). No data goes through it: the
// server reads and writes the image itself.
type Loop struct {
	Path string // /dev/loopN
	fd   int
}

// AttachLoop makes a loop device of the image. The device goes away when nobody
// uses it any more: after Close, at unmount. It needs root.
func AttachLoop(image string, readOnly bool) (*Loop, error) {
	flags := os.O_RDWR
	if readOnly {
		flags = os.O_RDONLY
	}
	img, err := os.OpenFile(image, flags, 0)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	return AttachLoopFd(int(ctl.Fd()), int(img.Fd()), image, readOnly, func(path string, flags int) (int, error) {
		return unix.Open(path, flags|unix.O_CLOEXEC, 0)
	})
}

// AttachLoopFd is AttachLoop for a process that cannot open anything itself:
// ctl is an open /dev/loop-control, img the open image, and open opens the loop
// device. image is its path, which losetup(8) shows.
func AttachLoopFd(ctl, img int, image string, readOnly bool, open func(path string, flags int) (int, error)) (*Loop, error) {
	flags := unix.O_RDWR
	if readOnly {
		flags = unix.O_RDONLY
	}
	for range 16 {
		n, err := unix.IoctlRetInt(ctl, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("loop device: %w", err)
		}
		l := &Loop{Path: fmt.Sprintf("/dev/loop%d", n)}
		if l.fd, err = open(l.Path, flags); err != nil {
			return nil, err
		}
		c := unix.LoopConfig{Fd: uint32(img)}
		c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		if readOnly {
			c.Info.Flags |= unix.LO_FLAGS_READ_ONLY
		}
		if abs, err := filepath.Abs(image); err == nil {
			copy(c.Info.File_name[:len(c.Info.File_name)-1], abs)
		}
		err = unix.IoctlLoopConfigure(l.fd, &c)
		if err == nil {
			return l, nil
		}
		unix.Close(l.fd)
		if !errors.Is(err, unix.EBUSY) { // else another process was faster
			return nil, fmt.Errorf("%s: %w", l.Path, err)
		}
	}
	return nil, fmt.Errorf("loop device: %w", unix.EBUSY)
}

// Close lets go of the device, which lives on while it is mounted.
func (l *Loop) Close() error { return unix.Close(l.fd) }

// Take returns the descriptor of the device, to be closed in place of Close.
func (l *Loop) Take() int { return l.fd }
