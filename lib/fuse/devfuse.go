//go:build linux

package fuse

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IocClone is FUSE_DEV_IOC_CLONE: the descriptor it is issued on joins the
// connection of the one that its argument names.
const IocClone = 0x8004e500

// devFuse is the transport over /dev/fuse: one message per read and per write.
// Each channel has a descriptor of its own, since the kernel keeps the requests
// that a descriptor has handed out under that descriptor's lock.
type devFuse struct {
	fds []devChannel // the first is the mounted one
}

type devChannel struct{ fd uintptr }

// Clone returns a further descriptor of the mounted connection of fd. It opens
// /dev/fuse, so a confined server is given its clones (Config.Clones).
func Clone(fd int) (int, error) {
	c, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("open /dev/fuse", err)
	}
	if err := CloneOnto(c, fd); err != nil {
		unix.Close(c)
		return -1, err
	}
	return c, nil
}

// CloneOnto makes c, an open /dev/fuse that is part of no connection, a further
// descriptor of the mounted connection of fd: one ioctl, [IocClone].
func CloneOnto(c, fd int) error {
	arg := uint32(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c), IocClone, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return os.NewSyscallError("clone /dev/fuse", errno)
	}
	return nil
}

// newDevFuse makes a channel of fd, which must be mounted, and of each of its
// clones; without any it makes up to n of them. It takes all of them over.
func newDevFuse(fd, n int, clones []int) *devFuse {
	t := &devFuse{fds: []devChannel{{uintptr(fd)}}}
	for _, c := range clones {
		t.fds = append(t.fds, devChannel{uintptr(c)})
	}
	for len(clones) == 0 && len(t.fds) < n {
		c, err := Clone(fd)
		if err != nil {
			break // the workers share what there is
		}
		t.fds = append(t.fds, devChannel{uintptr(c)})
	}
	return t
}

func (t *devFuse) open(i int) channel { return &t.fds[i%len(t.fds)] }

func (t *devFuse) close() {
	for _, c := range t.fds {
		unix.Close(int(c.fd))
	}
}

func (t *devFuse) pending() bool {
	fds := []unix.PollFd{{Fd: int32(t.fds[0].fd), Events: unix.POLLIN}}
	n, _ := unix.Poll(fds, 0)
	return n > 0 && fds[0].Revents&unix.POLLIN != 0
}

func (t *devFuse) notify(h *OutHeader, parts ...[]byte) syscall.Errno {
	iov := make([]syscall.Iovec, 1, 1+len(parts))
	iov[0].Base = (*byte)(unsafe.Pointer(h))
	iov[0].SetLen(outHeaderSize)
	h.Len = uint32(outHeaderSize)
	for _, p := range parts {
		if len(p) == 0 {
			continue
		}
		v := syscall.Iovec{Base: &p[0]}
		v.SetLen(len(p))
		iov = append(iov, v)
		h.Len += uint32(len(p))
	}
	// The kernel takes inode locks in a notification: it may block long.
	_, _, errno := syscall.Syscall(syscall.SYS_WRITEV, t.fds[0].fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	runtime.KeepAlive(parts)
	return errno
}

// notifyRaw may block as notify does.
func (t *devFuse) notifyRaw(msg []byte) syscall.Errno {
	_, _, errno := syscall.Syscall(syscall.SYS_WRITE, t.fds[0].fd, uintptr(unsafe.Pointer(&msg[0])), uintptr(len(msg)))
	return errno
}

func (t *devFuse) ioctl(req uint32, arg []byte) (int, syscall.Errno) {
	return devIoctl(t.fds[0].fd, req, arg)
}

func (c *devChannel) recv(r *Request) (int, syscall.Errno) {
	p := unsafe.Pointer(&r.buf[r.start])
	for {
		n, _, errno := syscall.Syscall(syscall.SYS_READ, c.fd, uintptr(p), uintptr(len(r.buf)-r.start))
		switch errno {
		case 0:
			if n == 0 { // never from the kernel; the end of a socket in its place
				return 0, syscall.ENODEV
			}
			return int(n), 0
		case syscall.EINTR, syscall.EAGAIN, syscall.ENOENT:
			// ENOENT: the request was aborted while it was being read.
		default:
			return 0, errno
		}
	}
}

func (c *devChannel) late(r *Request) { r.c.freeRequest(r) }

// send uses RawSyscall: the kernel copies the answer and wakes the caller, and
// does not wait for anything.
func (c *devChannel) send(r *Request, n int, payload []byte) syscall.Errno {
	var errno syscall.Errno
	p := unsafe.Pointer(&r.out)
	if len(payload) == 0 {
		_, _, errno = syscall.RawSyscall(syscall.SYS_WRITE, c.fd, uintptr(p), uintptr(n))
		return errno
	}
	r.iov[0].Base = (*byte)(p)
	r.iov[0].SetLen(n)
	r.iov[1].Base = &payload[0]
	r.iov[1].SetLen(len(payload))
	_, _, errno = syscall.RawSyscall(syscall.SYS_WRITEV, c.fd, uintptr(unsafe.Pointer(&r.iov)), 2)
	r.iov[1].Base = nil
	return errno
}
