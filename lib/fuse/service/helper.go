//go:build linux

package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultDir is where services have their sockets, each named for a type.
const DefaultDir = "/run/filesystems"

// ErrNoService means that nobody serves the type, or not this user: who mounts
// can do without.
var ErrNoService = errors.New("no file system service")

// ExitError is what a server said at its end: the mount did not come about. It
// unwraps to the errno.
type ExitError struct{ Code syscall.Errno }

func (e *ExitError) Error() string {
	return fmt.Sprintf("the file system service could not mount it: %v (its log says more)", e.Code)
}

// Unwrap returns the errno.
func (e *ExitError) Unwrap() error { return e.Code }

// Helper is a mount helper: it has the privilege, and does nothing but what a
// server asks for on behalf of the user who runs it. It may be installed
// set-uid root: then files are opened, and the mount point is looked up, with
// the rights of the user, to whom the rules of /etc/fuse.conf apply.
type Helper struct {
	Type string // as mount(8) has it; [Subtype] of it names the socket
	// Args are the helper's arguments, without the program's name: the source,
	// the mount point, options. -t TYPE is not passed on.
	Args []string

	Dir     string // of sockets; default DefaultDir
	FuseDev string // default /dev/fuse
	Conf    string // default /etc/fuse.conf

	// Timeout is how long the server may take for the greeting; default
	// DefaultTimeout. Patience is how long it may take for anything else, such
	// as to replay a journal; default 10 minutes.
	Timeout, Patience time.Duration

	Log func(format string, args ...any) // for the user to read; may be nil

	// Mounted, if set, is called once the server says that it serves, with a
	// descriptor of the mount, or -1 on kernels that have none.
	Mounted func(mnt int, block bool)
}

func (h *Helper) log(format string, args ...any) {
	if h.Log != nil {
		h.Log(format, args...)
	}
}

// path returns the path of the type's socket.
func (h *Helper) path() (string, error) {
	sub, err := Subtype(h.Type)
	if err != nil {
		return "", err
	}
	dir := h.Dir
	if dir == "" {
		dir = DefaultDir
	}
	p := filepath.Join(dir, sub)
	if len(p) >= len(unix.RawSockaddrUnix{}.Path) {
		return "", fmt.Errorf("%s: the path of the socket is too long: %w", p, ErrNoService)
	}
	return p, nil
}

// Check fails with ErrNoService unless there is a socket for the type that the
// user may connect to. Whether somebody listens shows when it is used.
func (h *Helper) Check() error {
	p, err := h.path()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		return fmt.Errorf("%s: %w (%w)", p, err, ErrNoService)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s: not a socket: %w", p, ErrNoService)
	}
	// By the real user id, as the connection is made.
	if err := unix.Faccessat(unix.AT_FDCWD, p, unix.W_OK, 0); err != nil {
		return fmt.Errorf("%s: %w (%w)", p, err, ErrNoService)
	}
	return nil
}

// Run connects to the service and mounts. It fails with ErrNoService before
// anything has happened, with an *ExitError if the server reports failure, and
// leaves no mount behind if it fails.
func (h *Helper) Run() error {
	if err := h.Check(); err != nil {
		return err
	}
	p, err := h.path()
	if err != nil {
		return err
	}
	u := callerNow()
	fd, err := connect(p, u)
	if err != nil {
		return err
	}
	conf := h.Conf
	if conf == "" {
		conf = "/etc/fuse.conf"
	}
	c, warn := readConf(conf)
	for _, w := range warn {
		h.log("%s", w)
	}
	s := newSession(h, fd, u, c, &kernelHost{user: u, conf: c})
	defer s.close()
	return s.run()
}

// connect connects to the socket as the user.
func connect(path string, u caller) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	s := socket{fd: fd}
	if err := s.checkBuffer(); err != nil {
		s.close()
		return -1, fmt.Errorf("%w (%w)", err, ErrNoService)
	}
	err = u.do(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) })
	if err == nil {
		err = s.refuseDescriptors()
	}
	if err == nil {
		return fd, nil
	}
	s.close()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EACCES) {
		return -1, fmt.Errorf("%s: %w (%w)", path, err, ErrNoService)
	}
	return -1, fmt.Errorf("%s: %w", path, err)
}

// session is a helper's end of a connection.
type session struct {
	h     *Helper
	host  host
	s     socket
	user  caller
	conf  conf
	fuse  int  // /dev/fuse
	done  bool // BYE
	phase phase

	block   bool // of a block device
	source  string
	options []string
	hasOpts bool
	hasMtab bool
	target  *target
	mnt     int // the mount, or -1
}

// phase is how far a session has come.
type phase int

const (
	opening  phase = iota // descriptors are passed
	asking                // FSOPEN: what to mount
	attached              // MOUNT
)

func newSession(h *Helper, fd int, u caller, c conf, ho host) *session {
	return &session{h: h, host: ho, s: socket{fd: fd}, user: u, conf: c, fuse: -1, mnt: -1}
}

func (s *session) close() {
	s.s.close()
	for _, fd := range []*int{&s.fuse, &s.mnt} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
	if s.target != nil {
		s.target.close()
	}
}

// run runs the session to its end.
func (s *session) run() error {
	s.s.timeout = s.h.Timeout
	if s.s.timeout <= 0 {
		s.s.timeout = DefaultTimeout
	}
	if err := s.greet(); err != nil {
		return err
	}
	if err := s.passFiles(); err != nil {
		return err
	}
	if s.s.timeout = s.h.Patience; s.s.timeout <= 0 {
		s.s.timeout = 10 * time.Minute
	}
	var err error
	for err == nil && !s.done {
		err = s.next()
	}
	if err != nil && s.phase == attached {
		// Nobody serves it, or will say so.
		if uerr := s.host.unmount(s.mnt); uerr != nil {
			s.h.log("taking the mount back: %v", uerr)
		}
	}
	if err == nil && s.h.Mounted != nil {
		s.h.Mounted(s.mnt, s.block)
	}
	return err
}

// greet agrees on the version.
func (s *session) greet() error {
	m := &Message{Magic: HelloCmd, Min: Version, Max: Version}
	if s.user.root() || s.conf.userAllowOther {
		m.Flags |= HelloAllowOther
	}
	if s.user.root() && s.host.canBlock() {
		m.Flags |= HelloFuseblk
	}
	if err := s.s.send(m, -1); err != nil {
		return err
	}
	r, _, err := s.s.recv(false)
	switch {
	case err != nil:
		return s.lost(err)
	case r.Magic != HelloReply:
		return bad(r.Magic, "as the answer to HELLO")
	case r.Min != Version:
		return bad(r.Magic, "version %d, not %d", r.Min, Version)
	}
	return nil
}

// passFiles passes the arguments and /dev/fuse.
func (s *session) passFiles() error {
	typ, err := Subtype(s.h.Type)
	if err != nil {
		return err
	}
	b, err := EncodeArgs(helperArgs(typ, s.h.Args))
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("fuse service argv", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd)
	if n, err := unix.Write(fd, b); err != nil || n != len(b) {
		return fmt.Errorf("writing %d bytes of arguments: %d written, %w", len(b), n, errnoOf(err))
	}
	dev := s.h.FuseDev
	if dev == "" {
		dev = "/dev/fuse"
	}
	if s.fuse, err = s.host.open(dev, unix.O_RDWR, 0); err != nil {
		s.fuse = -1
		return &os.PathError{Op: "open", Path: dev, Err: err}
	}
	if err := s.s.send(&Message{Magic: OpenReply, Text: nameArgv}, fd); err != nil {
		return err
	}
	return s.s.send(&Message{Magic: OpenReply, Text: nameFusedev}, s.fuse)
}

// lost names what it means that the server has gone.
func (s *session) lost(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("the file system service has gone without a word: %w", unix.ECONNRESET)
	}
	return err
}

// next serves one message. What the server may correct is answered with an
// error; what it may not ends the session.
func (s *session) next() error {
	m, _, err := s.s.recv(false)
	var p *ProtoError
	switch {
	case errors.As(err, &p) && (p.Magic == OpenCmd || p.Magic == OpenBdevCmd):
		s.h.log("%v", err)
		return s.s.send(&Message{Magic: OpenReply, Errno: unix.EINVAL, Text: "?"}, -1)
	case errors.As(err, &p) && s.asks(p.Magic):
		s.h.log("%v", err)
		return s.reply(unix.EINVAL)
	case err != nil:
		return s.lost(err)
	}
	switch m.Magic {
	case OpenCmd, OpenBdevCmd:
		return s.open(m)
	case ByeCmd:
		return s.bye(m)
	}
	if !s.asks(m.Magic) {
		return bad(m.Magic, "is nothing that a server says")
	}
	err = s.command(m)
	if err != nil {
		s.h.log("%v: %v", m.Magic, err)
		return s.reply(errnoOf(err))
	}
	return s.reply(0)
}

// asks reports whether m is answered with a SimpleReply.
func (s *session) asks(m Magic) bool {
	switch m {
	case FsopenCmd, SourceCmd, MntptCmd, MntoptsCmd, MtaboptsCmd, MountCmd, IomapCmd:
		return true
	}
	return false
}

func (s *session) reply(errno syscall.Errno) error {
	return s.s.send(&Message{Magic: SimpleReply, Errno: errno}, -1)
}

// bye ends the session.
func (s *session) bye(m *Message) error {
	s.done = true
	if m.Errno != 0 {
		return &ExitError{m.Errno}
	}
	return nil
}

// open opens what the server wants, and passes it.
func (s *session) open(m *Message) error {
	fd, err := s.tryOpen(m)
	r := &Message{Magic: OpenReply, Text: m.Text}
	if err != nil {
		r.Errno = errnoOf(err)
		// It may come back for what is busy.
		if m.Request&OpenQuiet == 0 && r.Errno != unix.EBUSY {
			s.h.log("%s: %v", m.Text, err)
		}
		return s.s.send(r, -1)
	}
	defer unix.Close(fd)
	return s.s.send(r, fd)
}

func (s *session) tryOpen(m *Message) (int, error) {
	switch {
	case m.Request&^requestFlags != 0:
		return -1, fmt.Errorf("request flags %#x: %w", m.Request, unix.EINVAL)
	case s.phase != opening:
		return -1, fmt.Errorf("asked for after the mount was: %w", unix.EPERM)
	}
	fd, err := s.host.open(m.Text, int(m.Flags), m.Mode)
	if err != nil || m.Magic == OpenCmd {
		return fd, err
	}
	if err := s.host.blockDevice(fd, m.BlockSize); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
