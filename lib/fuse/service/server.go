//go:build linux

package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listenFd is where systemd puts the first descriptor that it passes.
const listenFd = 3

// DefaultTimeout is how long an end waits for a message from the other.
const DefaultTimeout = 60 * time.Second

// Activated reports whether the process was started for a connection to its
// socket, as systemd does with Accept=yes, and returns the connection. Children
// do not see it. It fails if what it was given is not one connection.
func Activated() (fd int, ok bool, err error) {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	pid, perr := strconv.Atoi(os.Getenv("LISTEN_PID"))
	if err != nil || perr != nil || n < 1 || pid != os.Getpid() {
		return -1, false, nil
	}
	for _, name := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	for i := range min(n, 64) {
		unix.CloseOnExec(listenFd + i)
	}
	if n != 1 {
		return -1, true, fmt.Errorf("fuse service: %d sockets passed, one is wanted: the socket unit needs Accept=yes", n)
	}
	return listenFd, true, nil
}

// Server is a server's end of a connection. It is not safe for concurrent use.
type Server struct {
	s       socket
	args    []string
	fusedev int
	flags   uint32 // of HELLO
}

// Accept takes over the connection fd, greets the helper, and receives its
// arguments and /dev/fuse. timeout is that of each message, here and later; 0
// is DefaultTimeout.
func Accept(fd int, timeout time.Duration) (_ *Server, err error) {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	s := &Server{s: socket{fd: fd, timeout: timeout}, fusedev: -1}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := isSeqpacket(fd); err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	if err := s.s.checkBuffer(); err != nil {
		return nil, fmt.Errorf("fuse service: %w", err)
	}
	// Of write(2) once it is sealed, which takes no flags.
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return nil, os.NewSyscallError("SO_SNDTIMEO", err)
	}
	if err := s.hello(); err != nil {
		return nil, err
	}
	argv, err := s.file(nameArgv)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(argv), nameArgv)
	defer f.Close()
	// Which only a file in memory has: others may make who reads them wait.
	if _, err := unix.FcntlInt(uintptr(argv), unix.F_GET_SEALS, 0); err != nil {
		return nil, bad(OpenReply, "the arguments are not in a memfd")
	}
	if s.args, err = DecodeArgs(f); err != nil {
		return nil, err
	}
	if len(s.args) == 0 {
		return nil, bad(OpenReply, "there are no arguments")
	}
	if s.fusedev, err = s.file(nameFusedev); err != nil {
		return nil, err
	}
	return s, nil
}

// isSeqpacket fails unless fd is a connected socket of the right kind.
func isSeqpacket(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("fuse service: descriptor %d: %w", fd, err)
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || domain != unix.AF_UNIX || typ != unix.SOCK_SEQPACKET {
		return fmt.Errorf("fuse service: descriptor %d is no AF_UNIX SOCK_SEQPACKET socket: %w", fd, unix.EPROTOTYPE)
	}
	return nil
}

func (s *Server) hello() error {
	m, _, err := s.s.recv(false)
	switch {
	case err != nil:
		return lost(err, HelloCmd)
	case m.Magic != HelloCmd:
		return bad(m.Magic, "before HELLO")
	case m.Min > m.Max, m.Max < Version, m.Min > Version:
		return bad(m.Magic, "versions %d to %d, not %d", m.Min, m.Max, Version)
	case m.Flags&^helloFlags != 0:
		return bad(m.Magic, "flags %#x", m.Flags)
	}
	s.flags = m.Flags
	return s.s.send(&Message{Magic: HelloReply, Min: Version}, -1)
}

// lost says of an error of recv what was waited for.
func lost(err error, m Magic) error {
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("fuse service: the other end has gone before %v: %w", m, unix.ECONNRESET)
	}
	return err
}

// file receives what the helper passes under a name.
func (s *Server) file(name string) (int, error) {
	m, fd, err := s.s.recv(true)
	if err != nil {
		return -1, lost(err, OpenReply)
	}
	ok := false
	defer func() {
		if !ok && fd >= 0 {
			unix.Close(fd)
		}
	}()
	switch {
	case m.Magic != OpenReply:
		return -1, bad(m.Magic, "where %q was to come", name)
	case m.Text != name && !(m.Text == "?" && m.Errno != 0):
		return -1, bad(m.Magic, "for %q, not %q", m.Text, name)
	case m.Errno > 4095:
		return -1, bad(m.Magic, "error %d", uint32(m.Errno))
	case m.Errno != 0:
		return -1, &os.PathError{Op: "open", Path: name, Err: m.Errno}
	case fd < 0:
		return -1, bad(m.Magic, "without a descriptor for %q", name)
	}
	ok = true
	return fd, nil
}

// Args returns what the helper passed: the type, then its arguments, the source
// and the mount point among them.
func (s *Server) Args() []string { return s.args }

// FuseDev returns the descriptor of /dev/fuse, which is the caller's from then
// on. It is part of no mount before [Server.Mount].
func (s *Server) FuseDev() int {
	fd := s.fusedev
	s.fusedev = -1
	return fd
}

// AllowOther reports whether the helper allows the option allow_other.
func (s *Server) AllowOther() bool { return s.flags&HelloAllowOther != 0 }

// Fuseblk reports whether the helper can mount block devices, being root.
func (s *Server) Fuseblk() bool { return s.flags&HelloFuseblk != 0 }

// Open has the helper open path, with its caller's rights and relative to its
// directory, and returns the descriptor. The error of open(2) is returned as an
// *os.PathError; others end the session. request is OpenQuiet or 0.
func (s *Server) Open(path string, flags int, mode uint32, request uint32) (int, error) {
	return s.open(&Message{Magic: OpenCmd, Text: path, Flags: uint32(flags), Mode: mode, Request: request})
}

// OpenBdev is Open for what must be a block device, else it fails with ENOTBLK.
// blockSize, unless 0, is set on the device.
func (s *Server) OpenBdev(path string, flags int, request, blockSize uint32) (int, error) {
	return s.open(&Message{Magic: OpenBdevCmd, Text: path, Flags: uint32(flags), Request: request, BlockSize: blockSize})
}

func (s *Server) open(m *Message) (int, error) {
	if s.s.plain {
		return -1, fmt.Errorf("fuse service: %v of %s after the descriptors were sealed: %w", m.Magic, m.Text, unix.EPERM)
	}
	if err := s.s.send(m, -1); err != nil {
		return -1, err
	}
	return s.file(m.Text)
}

// RetryBusy calls open until it does not fail with EBUSY any more, but not
// longer than for a while: a device is busy for a moment when udev looks at it,
// or its last mount is on its way out.
func RetryBusy(d time.Duration, open func() error) error {
	deadline := time.Now().Add(d)
	for {
		err := open()
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Iomap asks the helper to let the mount use fuse-iomap: to be called before
// Open, and only where the helper is known to understand it, since libfuse's
// ends the session. mandatory has it fail if the kernel does not allow it.
func (s *Server) Iomap(mandatory bool) error {
	m := &Message{Magic: IomapCmd, Mode: IomapOptional}
	if mandatory {
		m.Mode = IomapMandatory
	}
	return s.ask(m)
}

// Seal ends the part in which the helper can pass descriptors: the kernel
// refuses them where it can, and the calls that follow use the system calls
// poll, read and write only, by which none can come.
func (s *Server) Seal() error {
	s.s.plain = true
	return s.s.refuseDescriptors()
}

// ask sends m and waits for the answer.
func (s *Server) ask(m *Message) error {
	if err := s.s.send(m, -1); err != nil {
		return err
	}
	r, _, err := s.s.recv(false)
	switch {
	case err != nil:
		return lost(err, SimpleReply)
	case r.Magic != SimpleReply:
		return bad(r.Magic, "as the answer to %v", m.Magic)
	case r.Errno > 4095:
		return bad(r.Magic, "error %d to %v", uint32(r.Errno), m.Magic)
	case r.Errno != 0:
		return fmt.Errorf("the mount helper refuses %v %s: %w", m.Magic, m.Text, r.Errno)
	}
	return nil
}

// Fsopen begins the mount, of a block device with FsopenFuseblk.
func (s *Server) Fsopen(flags uint32) error { return s.ask(&Message{Magic: FsopenCmd, Flags: flags}) }

// Source says what the mount table shows as the source, and for a mount of a
// block device which it is.
func (s *Server) Source(source string) error {
	return s.ask(&Message{Magic: SourceCmd, Text: source})
}

// Mountpoint says where to mount: one of Args. format is S_IFDIR or S_IFREG if it
// must be that, or 0.
func (s *Server) Mountpoint(path string, format uint32) error {
	return s.ask(&Message{Magic: MntptCmd, Text: path, Mode: format})
}

// Mntopts sets the options of the mount, separated by commas; "" sets none.
func (s *Server) Mntopts(options string) error {
	if options == "" {
		return nil
	}
	return s.ask(&Message{Magic: MntoptsCmd, Text: options})
}

// Mtabopts sets the options that /etc/mtab shows, where that is a file.
func (s *Server) Mtabopts(options string) error {
	if options == "" {
		return nil
	}
	return s.ask(&Message{Magic: MtaboptsCmd, Text: options})
}

// Mount mounts, with flags MS_*. From its return on the kernel sends requests to
// FuseDev.
func (s *Server) Mount(flags uint32) error { return s.ask(&Message{Magic: MountCmd, Flags: flags}) }

// Bye tells the helper how it went, 0 or an errno, and closes the connection.
func (s *Server) Bye(code syscall.Errno) error {
	if s.s.fd < 0 {
		return nil
	}
	err := s.s.send(&Message{Magic: ByeCmd, Errno: code}, -1)
	s.Close()
	return err
}

// Close closes the connection, and /dev/fuse if nobody has taken it.
func (s *Server) Close() {
	s.s.close()
	if s.fusedev >= 0 {
		unix.Close(s.fusedev)
		s.fusedev = -1
	}
}
