package iomappeer

import (
	"sync"
	"syscall"
)

// A Device is the server's view of the character device: packets. Its methods
// may be called by many goroutines at once.
type Device interface {
	// Recv waits for a request, which it puts into p. It fails with ENODEV once
	// the file system is unmounted, and with EINVAL if p is too short.
	Recv(p []byte) (int, error)

	// Send gives the kernel one reply or notification, which is the parts one
	// after the other, and returns what the kernel made of it. It keeps no
	// reference to the parts.
	Send(parts ...[]byte) syscall.Errno

	// Ioctl returns what the ioctl returns, and fills arg where the request
	// reads.
	Ioctl(req uint32, arg []byte) (int, syscall.Errno)

	// Close gives the device back. Closing it before the file system is
	// unmounted aborts the connection.
	Close() error
}

// A BlockDev is a device that a server registers for file data.
type BlockDev interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Sync() error
	Size() int64
}

// minRead is the shortest buffer that the kernel takes for a request.
const minRead = 8192

// pipe is the device within one process.
type pipe struct {
	k    *Kernel
	once sync.Once
}

func (d *pipe) Recv(p []byte) (int, error) {
	if len(p) < minRead {
		return 0, syscall.EINVAL
	}
	for {
		r, errno := d.k.next()
		if errno != 0 {
			return 0, errno
		}
		if len(r.msg) > len(p) {
			// The kernel fails what does not fit and looks at the next one.
			d.k.finish(r, syscall.EIO, nil)
			continue
		}
		return copy(p, r.msg), nil
	}
}

func (d *pipe) Send(parts ...[]byte) syscall.Errno {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := make([]byte, 0, n)
	for _, p := range parts {
		b = append(b, p...)
	}
	return d.k.send(b)
}

func (d *pipe) Ioctl(req uint32, arg []byte) (int, syscall.Errno) { return d.k.ioctl(req, arg) }

func (d *pipe) Close() error {
	d.once.Do(d.k.deviceClosed)
	return nil
}
