//go:build linux

package fuse

import (
	"sync"
	"syscall"
	"unsafe"
)

// Device is what carries messages between a Conn and a kernel: /dev/fuse, or
// something that behaves like it, as a test's kernel does. Its methods are
// called from many threads at once.
type Device interface {
	// Recv waits for a request and puts it into p. It fails with ENODEV when the
	// file system has been unmounted.
	Recv(p []byte) (int, error)
	// Send hands over one answer or notification, made of parts, and returns
	// what the kernel made of it.
	Send(parts ...[]byte) syscall.Errno
	// Ioctl is ioctl(2) with a pointer to arg, which may be empty.
	Ioctl(req uint32, arg []byte) (int, syscall.Errno)
	Close() error
}

// NewConnOn is NewConn for a Device.
func NewConnOn(d Device, cfg Config) (*Conn, error) {
	c, err := newConn(cfg)
	if err != nil {
		return nil, err
	}
	c.tr = &devTransport{d: d}
	return c, nil
}

// devTransport is the transport over a Device, which is its only channel.
type devTransport struct {
	d     Device
	parts sync.Pool // of *[2][]byte
}

// sendParts is d.Send without an allocation.
func (t *devTransport) sendParts(a, b []byte) syscall.Errno {
	p, _ := t.parts.Get().(*[2][]byte)
	if p == nil {
		p = new([2][]byte)
	}
	p[0], p[1] = a, b
	n := 2
	if len(b) == 0 {
		n = 1
	}
	errno := t.d.Send(p[:n]...)
	*p = [2][]byte{}
	t.parts.Put(p)
	return errno
}

func (t *devTransport) open(int) channel { return t }
func (t *devTransport) close()           { t.d.Close() }
func (t *devTransport) pending() bool    { return true } // who cannot tell has workers in reserve

func (t *devTransport) notify(h *OutHeader, parts ...[]byte) syscall.Errno {
	h.Len = uint32(outHeaderSize)
	for _, p := range parts {
		h.Len += uint32(len(p))
	}
	return t.d.Send(append([][]byte{bytesOf(h)}, parts...)...)
}

func (t *devTransport) notifyRaw(msg []byte) syscall.Errno { return t.sendParts(msg, nil) }

func (t *devTransport) ioctl(req uint32, arg []byte) (int, syscall.Errno) { return t.d.Ioctl(req, arg) }

func (t *devTransport) recv(r *Request) (int, syscall.Errno) {
	n, err := t.d.Recv(r.buf[r.start:])
	if err != nil {
		if errno, ok := err.(syscall.Errno); ok { //nolint:errorlint // a Device returns it bare
			return 0, errno
		}
		return 0, syscall.EIO
	}
	return n, 0
}

func (t *devTransport) send(r *Request, n int, payload []byte) syscall.Errno {
	return t.sendParts(unsafe.Slice((*byte)(unsafe.Pointer(&r.out)), n), payload)
}

func (t *devTransport) late(r *Request) { r.c.freeRequest(r) }
