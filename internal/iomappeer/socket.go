package iomappeer

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// What a frame on the socket is.
const (
	frameRequest = 1 + iota // peer to server: a request
	frameGone               // peer to server: unmounted, no more requests
	frameSend               // server to peer: a reply or notification
	frameIoctl              // server to peer: an ioctl
	frameVerdict            // peer to server: what became of frameSend or frameIoctl
)

// frame begins each packet on the socket. A message that is longer than a packet
// goes in several, the last of which says so; messages do not mix.
type frame struct {
	Kind  uint8
	Last  uint8
	Pad   uint16
	ID    uint32 // pairs a verdict with what it is about
	Value int64  // the ioctl's request, or its result
	Errno int32
	Pad2  uint32
}

const (
	frameSize = 24
	frameMax  = 32 << 10 // bytes behind the frame in a packet
)

// seqpacket is one end of the socket.
type seqpacket struct {
	f  *os.File
	mu sync.Mutex // of writing one message
}

func newSeqpacket(fd int) (*seqpacket, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	// Room for a message of a mebibyte and more; less only means more waiting.
	for _, opt := range []int{unix.SO_SNDBUF, unix.SO_RCVBUF} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, 1<<20); err != nil {
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	return &seqpacket{f: os.NewFile(uintptr(fd), "iomappeer")}, nil
}

func (s *seqpacket) write(h frame, msg []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		n := min(len(msg), frameMax)
		if n == len(msg) {
			h.Last = 1
		}
		if _, err := s.f.Write(append(enc(h), msg[:n]...)); err != nil {
			return err
		}
		if msg = msg[n:]; h.Last != 0 {
			return nil
		}
	}
}

// read returns the next message. One goroutine may read.
func (s *seqpacket) read() (h frame, msg []byte, err error) {
	buf := make([]byte, frameSize+frameMax)
	for {
		n, err := s.f.Read(buf)
		if err != nil {
			return h, nil, err
		}
		rest, ok := dec(buf[:n], &h)
		if !ok {
			return h, nil, syscall.EPROTO
		}
		if msg = append(msg, rest...); h.Last != 0 {
			return h, msg, nil
		}
	}
}

// Listen makes the kernel serve its device over a socket, and returns the server's
// end: a descriptor for Dial, in this process or one that inherits it.
func (k *Kernel) Listen() (fd int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socketpair", err)
	}
	s, err := newSeqpacket(p[0])
	if err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return -1, err
	}
	go func() { // requests
		for {
			r, errno := k.next()
			if errno != 0 {
				s.write(frame{Kind: frameGone}, nil)
				return
			}
			if s.write(frame{Kind: frameRequest}, r.msg) != nil {
				return
			}
		}
	}()
	go func() { // what the server sends
		for {
			h, msg, err := s.read()
			if err != nil {
				k.deviceClosed()
				s.f.Close()
				return
			}
			// A notification may wait for locks: others go on meanwhile.
			go func() {
				v := frame{Kind: frameVerdict, ID: h.ID}
				switch h.Kind {
				case frameSend:
					v.Errno = int32(k.send(msg))
				case frameIoctl:
					n, errno := k.ioctl(uint32(h.Value), msg)
					v.Value, v.Errno = int64(n), int32(errno)
				default:
					v.Errno = int32(syscall.EPROTO)
				}
				s.write(v, msg[:min(len(msg), ioctlMax)])
			}()
		}
	}()
	return p[1], nil
}

// ioctlMax is how much of an argument comes back; replies are longer.
const ioctlMax = 256

// sockDevice is the server's end.
type sockDevice struct {
	s *seqpacket

	mu      sync.Mutex
	ready   *sync.Cond
	msgs    [][]byte
	gone    bool
	lastID  uint32
	waiting map[uint32]chan verdict
}

type verdict struct {
	frame
	msg []byte
}

// Dial returns the device at the server's end of the socket that Listen made. It
// takes the descriptor over.
func Dial(fd int) (Device, error) {
	s, err := newSeqpacket(fd)
	if err != nil {
		return nil, err
	}
	d := &sockDevice{s: s, waiting: make(map[uint32]chan verdict)}
	d.ready = sync.NewCond(&d.mu)
	go d.read()
	return d, nil
}

func (d *sockDevice) read() {
	for {
		h, msg, err := d.s.read()
		d.mu.Lock()
		switch {
		case err != nil:
			d.gone = true
			for id, c := range d.waiting {
				delete(d.waiting, id)
				c <- verdict{frame: frame{Errno: int32(syscall.ENODEV), Value: -1}}
			}
			d.ready.Broadcast()
			d.mu.Unlock()
			return
		case h.Kind == frameGone:
			d.gone = true
			d.ready.Broadcast()
		case h.Kind == frameRequest:
			d.msgs = append(d.msgs, msg)
			d.ready.Signal()
		case h.Kind == frameVerdict:
			if c := d.waiting[h.ID]; c != nil {
				delete(d.waiting, h.ID)
				c <- verdict{h, msg}
			}
		}
		d.mu.Unlock()
	}
}

// call sends a message and waits for what the kernel makes of it.
func (d *sockDevice) call(h frame, msg []byte) verdict {
	c := make(chan verdict, 1)
	d.mu.Lock()
	d.lastID++
	h.ID = d.lastID
	d.waiting[h.ID] = c
	d.mu.Unlock()
	if d.s.write(h, msg) != nil {
		d.mu.Lock()
		delete(d.waiting, h.ID)
		d.mu.Unlock()
		return verdict{frame: frame{Errno: int32(syscall.ENODEV), Value: -1}}
	}
	return <-c
}

func (d *sockDevice) Recv(p []byte) (int, error) {
	if len(p) < minRead {
		return 0, syscall.EINVAL
	}
	for {
		d.mu.Lock()
		for len(d.msgs) == 0 && !d.gone {
			d.ready.Wait()
		}
		if len(d.msgs) == 0 {
			d.mu.Unlock()
			return 0, syscall.ENODEV
		}
		msg := d.msgs[0]
		d.msgs = d.msgs[1:]
		d.mu.Unlock()
		if len(msg) <= len(p) {
			return copy(p, msg), nil
		}
		var h inHeader
		dec(msg, &h)
		d.Send(enc(outHeader{Len: outHeaderSize, Error: -int32(syscall.EIO), Unique: h.Unique}))
	}
}

func (d *sockDevice) Send(parts ...[]byte) syscall.Errno {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return syscall.Errno(d.call(frame{Kind: frameSend}, b).Errno)
}

func (d *sockDevice) Ioctl(req uint32, arg []byte) (int, syscall.Errno) {
	v := d.call(frame{Kind: frameIoctl, Value: int64(req)}, arg)
	copy(arg, v.msg)
	return int(v.Value), syscall.Errno(v.Errno)
}

func (d *sockDevice) Close() error { return d.s.f.Close() }
