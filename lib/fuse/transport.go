//go:build linux

package fuse

import "syscall"

// A transport carries requests from the kernel and answers to it. There is one
// over /dev/fuse and one over any [Device]. Requests may come by io_uring beside
// that of /dev/fuse, which then has what the kernel sends no other way.
type transport interface {
	// open returns the channel of the i-th worker. It is called before Serve
	// only, so that a confined process need not open anything.
	open(i int) channel

	// notify sends an unsolicited message: its header, then the parts.
	notify(h *OutHeader, parts ...[]byte) syscall.Errno

	// notifyRaw sends an unsolicited message that is whole already. It does not
	// allocate.
	notifyRaw(msg []byte) syscall.Errno

	// ioctl issues a request to the connection, with a pointer to arg.
	ioctl(req uint32, arg []byte) (int, syscall.Errno)

	// pending tells whether requests wait for a worker.
	pending() bool

	// close releases the descriptors.
	close()
}

// A channel is where one worker gets its requests. Channels may be shared by
// workers.
type channel interface {
	replier

	// recv waits for a message, puts it at r.buf[r.start:], and returns its
	// length. ENODEV means that the file system has been unmounted.
	recv(r *Request) (int, syscall.Errno)
}

// A replier takes answers.
type replier interface {
	// send answers r with the first n bytes of r.out and payload. It may be
	// called from any thread, while another is in recv.
	send(r *Request, n int, payload []byte) syscall.Errno

	// late takes back r, which was answered after its handler had returned. It
	// may be called from any thread.
	late(r *Request)
}
