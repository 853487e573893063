//go:build linux

package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// minSendBuffer is what an OPEN of the longest path takes.
const minSendBuffer = 20 + unix.PathMax + 1

// socket is one end of the connection. Every call has a deadline.
type socket struct {
	fd      int
	timeout time.Duration // of each call
	plain   bool          // read(2) and write(2) only, which carry no descriptors
}

// checkBuffer fails with ENOBUFS if a long path could not be sent.
func (s *socket) checkBuffer() error {
	n, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err == nil && n < minSendBuffer {
		return fmt.Errorf("send buffer of %d bytes, %d are needed (net.core.wmem_default): %w", n, minSendBuffer, unix.ENOBUFS)
	}
	return nil
}

// refuseDescriptors has the kernel refuse descriptors to this end, where it can
// (Linux 6.16).
func (s *socket) refuseDescriptors() error {
	err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return os.NewSyscallError("SO_PASSRIGHTS", err)
	}
	return nil
}

// wait waits until the socket can be read, or written, but not past deadline.
func (s *socket) wait(events int16, deadline time.Time) error {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("fuse service: no answer in %v: %w", s.timeout, unix.ETIMEDOUT)
		}
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: events}}
		n, err := unix.Poll(fds, int(left/time.Millisecond)+1)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n > 0:
			return nil
		}
	}
}

// send sends a message, with a descriptor unless that is negative.
func (s *socket) send(m *Message, fd int) error {
	b, err := m.Encode()
	if err != nil {
		return err
	}
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	deadline := time.Now().Add(s.timeout)
	for {
		if s.plain {
			// It may wait for room that is always there: what the other end has
			// not read yet is one short message.
			_, err = unix.Write(s.fd, b)
		} else {
			err = unix.Sendmsg(s.fd, b, oob, nil, unix.MSG_EOR|unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		}
		switch err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EAGAIN:
			if err := s.wait(unix.POLLOUT, deadline); err != nil {
				return err
			}
		default:
			return os.NewSyscallError("send", err)
		}
	}
}

// recv waits for a message. One that is not whole, or not known, fails with a
// *ProtoError; io.EOF means that the other end has gone. A descriptor that came
// with it is returned, else -1, if that is asked for; others are never made.
func (s *socket) recv(descriptor bool) (*Message, int, error) {
	buf := make([]byte, MaxMessage+1)
	var oob []byte
	if descriptor {
		// Without the padding, in which a second one would find room.
		oob = make([]byte, unix.CmsgLen(4))
	}
	deadline := time.Now().Add(s.timeout)
	for {
		if err := s.wait(unix.POLLIN, deadline); err != nil {
			return nil, -1, err
		}
		var n, oobn, flags int
		var err error
		if s.plain {
			n, err = unix.Read(s.fd, buf)
		} else {
			n, oobn, flags, _, err = unix.Recvmsg(s.fd, buf, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		}
		switch {
		case err == unix.EINTR, err == unix.EAGAIN:
			continue
		case err != nil:
			return nil, -1, os.NewSyscallError("recv", err)
		}
		fd := received(oob[:oobn])
		if n == 0 && fd < 0 {
			return nil, -1, io.EOF
		}
		m, err := Decode(buf[:n])
		if err == nil && descriptor && flags&unix.MSG_CTRUNC != 0 {
			err = bad(m.Magic, "more than one descriptor, or a security module that forbids to pass any")
		}
		if err != nil {
			if fd >= 0 {
				unix.Close(fd)
			}
			return nil, -1, err
		}
		return m, fd, nil
	}
}

// received returns the descriptor of a control message, or -1, and closes what
// comes besides it.
func received(oob []byte) int {
	fd := -1
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		oob = rest
		m := unix.SocketControlMessage{Header: h, Data: data}
		fds, _ := unix.ParseUnixRights(&m)
		for _, f := range fds {
			if fd >= 0 {
				unix.Close(f)
				continue
			}
			fd = f
		}
	}
	return fd
}

func (s *socket) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// errnoOf returns the errno of err to tell the other end: never 0.
func errnoOf(err error) syscall.Errno {
	var e syscall.Errno
	if errors.As(err, &e) && e != 0 {
		return e
	}
	return unix.EIO
}
