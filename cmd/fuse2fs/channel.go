//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// message is what the launcher and the server process tell each other, one to
// a packet, descriptors attached.
type message struct {
	Options    *options `json:",omitempty"` // launcher: what to serve; device, then external journal attached
	Namespaces []string `json:",omitempty"` // with Options: those that are the server's own
	Opened     bool     `json:",omitempty"` // server: the file system is open, mount it
	Serving    bool     `json:",omitempty"` // server: the kernel has been answered
	Mount      bool     `json:",omitempty"` // launcher: it is mounted; /dev/fuse and its clones attached
	Pages      int      `json:",omitempty"` // with Mount: largest request, in pages
	Warn       []string `json:",omitempty"` // server: for the user to know
	RO         bool     `json:",omitempty"` // server: read-only, whatever was asked for
	Err        string   `json:",omitempty"` // server: it failed, and why
	// server, with Err: what it lacked
	Journal *wantedJournal `json:",omitempty"`
}

const (
	maxMessage = 64 << 10
	maxFds     = 64 // descriptors of a message
)

// channel is one end of a socket pair.
type channel struct{ fd int }

// send sends m with descriptors attached.
func (c channel) send(m message, fds ...int) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(c.fd, b, oob, nil, unix.MSG_NOSIGNAL)
}

// write sends m from a server that may no longer send descriptors.
func (c channel) write(m message) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	_, err = unix.Write(c.fd, b)
	return err
}

func (m message) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err == nil && len(b) > maxMessage {
		err = fmt.Errorf("a message of %d bytes", len(b))
	}
	return b, err
}

// recv waits for a message; io.EOF means that the other end is gone.
func (c channel) recv() (message, []int, error) {
	var m message
	buf := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(4*maxFds))
	var n, oobn int
	var err error
	for {
		n, oobn, _, _, err = unix.Recvmsg(c.fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return m, nil, os.NewSyscallError("recvmsg", err)
	}
	if n == 0 {
		return m, nil, io.EOF
	}
	var fds []int
	if oobn > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return m, nil, err
		}
		for i := range msgs {
			f, err := unix.ParseUnixRights(&msgs[i])
			if err != nil {
				return m, nil, err
			}
			fds = append(fds, f...)
		}
	}
	return m, fds, json.Unmarshal(buf[:n], &m)
}
