//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/fuse"
	"github.com/e2kit/e2kit/lib/fuse/service"
)

// busyFor is how long a device may be in use before that is an error.
const busyFor = 15 * time.Second

// openDevices gets the device and the external journal from the helper.
func (s *mountService) openDevices() (err error) {
	if s.dev, err = s.device(s.o.Source, true); err != nil {
		return err
	}
	s.source = s.o.Source
	if s.o.JournalPath != "" {
		if s.jnl, err = s.device(s.o.JournalPath, false); err != nil {
			return err
		}
	}
	if !s.block && s.srv.Fuseblk() {
		// An image has a loop device stand for it, through which no data goes:
		// then umount(2) waits until it is clean.
		if err := s.attachLoop(); err != nil {
			fmt.Fprintf(os.Stderr, "fuse2fs: %s: no loop device, so umount will not wait for the image to be clean: %v\n", s.o.Source, err)
		}
	}
	return nil
}

// device opens one device, exclusively, or an image, which it locks. main is the
// one that is to be mounted.
func (s *mountService) device(path string, main bool) (*blockdev.File, error) {
	fd, err := s.openAs(path, 0)
	if err != nil {
		return nil, err
	}
	o := s.o.deviceOptions()
	if main {
		o.Offset, o.Length = s.o.Offset, s.o.Size
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	if block := st.Mode&unix.S_IFMT == unix.S_IFBLK; block {
		s.block = s.block || main
		err = service.RetryBusy(busyFor, func() error {
			claim, err := s.openAs(path, unix.O_EXCL)
			if err != nil {
				return err
			}
			if main {
				s.claim = claim
				return nil
			}
			unix.Close(fd)
			fd = claim
			return nil
		})
	} else {
		o.Lock = true
	}
	if err != nil {
		unix.Close(fd)
		return nil, busyHint(err)
	}
	var dev *blockdev.File
	err = service.RetryBusy(busyFor, func() (err error) {
		dev, err = blockdev.OpenFd(uintptr(fd), path, o)
		return err
	})
	if err != nil {
		unix.Close(fd)
		return nil, busyHint(err)
	}
	return dev, nil
}

func busyHint(err error) error {
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w; is it mounted, or being checked?", err)
	}
	return err
}

// openAs has the helper open path for what the mount is to do.
func (s *mountService) openAs(path string, flags int) (int, error) {
	flags |= unix.O_NONBLOCK | unix.O_LARGEFILE // not to wait for a FIFO
	if !s.o.ReadOnly {
		fd, err := s.srv.Open(path, flags|unix.O_RDWR, 0, 0)
		if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
			err = fmt.Errorf("%w; -o ro mounts it read-only", err)
		}
		return fd, err
	}
	// Looking at an image should leave no trace, which is for its owner to ask.
	fd, err := s.srv.Open(path, flags|unix.O_RDONLY|unix.O_NOATIME, 0, service.OpenQuiet)
	if errors.Is(err, unix.EPERM) {
		fd, err = s.srv.Open(path, flags|unix.O_RDONLY, 0, 0)
	}
	return fd, err
}

// attachLoop makes a loop device of the image.
func (s *mountService) attachLoop() error {
	ctl, err := s.srv.Open("/dev/loop-control", unix.O_RDWR, 0, service.OpenQuiet)
	if err != nil {
		return err
	}
	defer unix.Close(ctl)
	// Not the descriptor that is served: the loop device holds on to it, and to
	// its lock, for longer than the mount lasts.
	image, err := s.openAs(s.o.Source, 0)
	if err != nil {
		return err
	}
	defer unix.Close(image)
	loop, err := fuse.AttachLoopFd(ctl, image, s.o.Source, s.o.ReadOnly, func(path string, flags int) (int, error) {
		return s.srv.Open(path, flags, 0, service.OpenQuiet)
	})
	if err != nil {
		return err
	}
	s.source, s.loop = loop.Path, loop.Take()
	return nil
}

// openFuse gets what makes serving faster: a descriptor of /dev/fuse for each
// further CPU, and how large requests may be, which a service may not see. To go
// without either is no error.
func (s *mountService) openFuse() error {
	var pe *os.PathError
	for len(s.clones) < min(runtime.NumCPU(), maxFds)-1 {
		fd, err := s.srv.Open("/dev/fuse", unix.O_RDWR, 0, service.OpenQuiet)
		if errors.As(err, &pe) {
			break
		}
		if err != nil {
			return err
		}
		s.clones = append(s.clones, fd)
	}
	s.pages = fuse.MaxPagesLimit()
	if _, err := os.Stat(fuse.MaxPagesPath); err == nil {
		return nil
	}
	fd, err := s.srv.Open(fuse.MaxPagesPath, unix.O_RDONLY, 0, service.OpenQuiet)
	if errors.As(err, &pe) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b := make([]byte, 32)
	if n, err := unix.Read(fd, b); err == nil && n > 0 {
		s.pages = fuse.ParseMaxPages(b[:n])
	}
	return nil
}
