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
	f    *os.File
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
	for range 16 {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("loop device: %w", err)
		}
		l := &Loop{Path: fmt.Sprintf("/dev/loop%d", n)}
		if l.f, err = os.OpenFile(l.Path, flags, 0); err != nil {
			return nil, err
		}
		c := unix.LoopConfig{Fd: uint32(img.Fd())}
		c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		if readOnly {
			c.Info.Flags |= unix.LO_FLAGS_READ_ONLY
		}
		if abs, err := filepath.Abs(image); err == nil {
			copy(c.Info.File_name[:len(c.Info.File_name)-1], abs)
		}
		err = unix.IoctlLoopConfigure(int(l.f.Fd()), &c)
		if err == nil {
			return l, nil
		}
		l.f.Close()
		if !errors.Is(err, unix.EBUSY) { // else another process was faster
			return nil, fmt.Errorf("%s: %w", l.Path, err)
		}
	}
	return nil, fmt.Errorf("loop device: %w", unix.EBUSY)
}

// Close lets go of the device, which lives on while it is mounted.
func (l *Loop) Close() error { return l.f.Close() }
