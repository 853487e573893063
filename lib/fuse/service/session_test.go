//go:build linux

package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeHost is a machine on which everything works and nothing happens.
type fakeHost struct {
	log     []string
	block   bool
	busy    int // how often an open fails with EBUSY
	iomapOK bool
	mounted *mountSpec
	gone    bool // unmounted
}

func (f *fakeHost) say(format string, args ...any) {
	f.log = append(f.log, fmt.Sprintf(format, args...))
}
func (f *fakeHost) canBlock() bool    { return f.block }
func (f *fakeHost) unmount(int) error { f.gone = true; return nil }

func (f *fakeHost) open(path string, flags int, mode uint32) (int, error) {
	f.say("open %s %#x", path, flags)
	if f.busy > 0 && path != "/dev/fuse" {
		f.busy--
		return -1, unix.EBUSY
	}
	if strings.Contains(path, "missing") {
		return -1, unix.ENOENT
	}
	return unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

func (f *fakeHost) blockDevice(fd int, size uint32) error {
	if !f.block {
		return unix.ENOTBLK
	}
	f.say("block size %d", size)
	return nil
}

func (f *fakeHost) target(path string) (*target, error) {
	if strings.Contains(path, "missing") {
		return nil, unix.ENOENT
	}
	t := &target{fd: -1, path: path, format: unix.S_IFDIR}
	switch filepath.Base(path) {
	case "file":
		t.format = unix.S_IFREG
	case "fifo":
		t.format = unix.S_IFIFO
	}
	return t, nil
}

func (f *fakeHost) iomap(int) error {
	if !f.iomapOK {
		return unix.ENOTTY
	}
	return nil
}

func (f *fakeHost) mount(s *mountSpec) (int, error) { f.mounted = s; return -1, nil }

var (
	asRoot = caller{uid: 0}
	asUser = caller{uid: 1000, gid: 100, setuid: true}
)

// pair is a helper's session and a socket to it.
type pair struct {
	t    *testing.T
	host *fakeHost
	s    *session
	fd   int
	done chan error
}

func newPair(t *testing.T, u caller, c conf) *pair {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	h := &Helper{Type: "fuse.ext4", Args: []string{"/img", "/mnt", "-o", "nosuid,ro"}, Timeout: time.Minute, Patience: time.Minute}
	p := &pair{t: t, host: &fakeHost{block: true}, fd: fds[0], done: make(chan error, 1)}
	p.s = newSession(h, fds[1], u, c, p.host)
	return p
}

// start runs the helper, and accepts it.
func (p *pair) start() *Server {
	p.t.Helper()
	p.run()
	srv, err := Accept(p.fd, time.Minute)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(srv.Close)
	return srv
}

func (p *pair) run() {
	go func() {
		err := p.s.run()
		p.s.close()
		p.done <- err
	}()
}

// end waits for the helper.
func (p *pair) end() error {
	p.t.Helper()
	select {
	case err := <-p.done:
		return err
	case <-time.After(30 * time.Second):
		p.t.Fatal("the helper does not end")
		return nil
	}
}

func descriptors(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestSession(t *testing.T) {
	before := descriptors(t)
	p := newPair(t, asRoot, conf{})
	p.host.busy = 1
	srv := p.start()
	if want := []string{"ext4", "/img", "/mnt", "-o", "nosuid,ro"}; !slices.Equal(srv.Args(), want) {
		t.Errorf("arguments %q", srv.Args())
	}
	if !srv.AllowOther() || !srv.Fuseblk() {
		t.Error("root may not everything")
	}
	dev := srv.FuseDev()
	var fd int
	err := RetryBusy(time.Minute, func() (err error) {
		fd, err = srv.OpenBdev("/img", unix.O_RDWR|unix.O_EXCL, 0, 4096)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var pe *os.PathError
	if _, err := srv.Open("/missing", unix.O_RDWR, 0, OpenQuiet); !errors.As(err, &pe) || pe.Err != unix.ENOENT || pe.Path != "/missing" {
		t.Errorf("open of what is not there: %v", err)
	}
	if err := srv.Seal(); err != nil {
		t.Fatal(err)
	}
	if _, err := srv.Open("/j", 0, 0, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("open after sealing: %v", err)
	}
	for _, err := range []error{
		srv.Fsopen(FsopenFuseblk), srv.Source("/dev/loop9"), srv.Mountpoint("/mnt", unix.S_IFDIR),
		srv.Mntopts("allow_other,blksize=4096"), srv.Mntopts(""), srv.Mtabopts("-n"),
		srv.Mount(unix.MS_NOATIME), srv.Bye(0), p.end(),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	m := p.host.mounted
	if m == nil || m.typ != "fuseblk" || m.subtype != "ext4" || m.source != "/dev/loop9" || m.target.path != "/mnt" ||
		m.flags != unix.MS_NOATIME|unix.MS_NOSUID|unix.MS_RDONLY { // the caller's options hold
		t.Errorf("mounted %+v", m)
	}
	if !strings.HasPrefix(strings.Join(m.options, ","), "allow_other,blksize=4096,fd=") ||
		!strings.HasSuffix(strings.Join(m.options, ","), ",rootmode=40000,user_id=0,group_id=0") {
		t.Errorf("options %q", m.options)
	}
	if p.host.gone {
		t.Error("unmounted again")
	}
	unix.Close(dev)
	unix.Close(fd)
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

// What the helper refuses, by whom it works for.
func TestRefusals(t *testing.T) {
	userConf := conf{userAllowOther: true}
	raw := func(m *Message) func(*Server) error { return func(s *Server) error { return s.ask(m) } }
	mnt := func(path string, mode uint32) func(*Server) error {
		return func(s *Server) error { return s.Mountpoint(path, mode) }
	}
	opts := func(o string) func(*Server) error { return func(s *Server) error { return s.Mntopts(o) } }
	for _, c := range []struct {
		name string
		user caller
		conf conf
		args string
		ask  []func(*Server) error // the last one is refused
		want syscall.Errno
	}{
		{"fsopen twice", asRoot, conf{}, "", []func(*Server) error{raw(&Message{Magic: FsopenCmd}), raw(&Message{Magic: FsopenCmd})}, unix.EINVAL},
		{"fsopen flags", asRoot, conf{}, "", []func(*Server) error{raw(&Message{Magic: FsopenCmd, Flags: 2})}, unix.EINVAL},
		{"fuseblk for a user", asUser, conf{}, "", []func(*Server) error{raw(&Message{Magic: FsopenCmd, Flags: 1})}, unix.EPERM},
		{"source twice", asRoot, conf{}, "", []func(*Server) error{raw(&Message{Magic: SourceCmd, Text: "a"}), raw(&Message{Magic: SourceCmd, Text: "a"})}, unix.EINVAL},
		{"mount point twice", asRoot, conf{}, "", []func(*Server) error{mnt("/mnt", 0), mnt("/mnt", 0)}, unix.EINVAL},
		{"mount point not asked for", asRoot, conf{}, "", []func(*Server) error{mnt("/etc", 0)}, unix.EINVAL},
		{"mount point spelled otherwise", asRoot, conf{}, "", []func(*Server) error{mnt("/mnt/", 0)}, unix.EINVAL},
		{"mount point missing", asRoot, conf{}, "/missing", []func(*Server) error{mnt("/missing", 0)}, unix.ENOENT},
		{"mount point a FIFO", asRoot, conf{}, "/fifo", []func(*Server) error{mnt("/fifo", 0)}, unix.EACCES},
		{"file for a folder", asRoot, conf{}, "/file", []func(*Server) error{mnt("/file", unix.S_IFDIR)}, unix.ENOTDIR},
		{"folder for a file", asRoot, conf{}, "", []func(*Server) error{mnt("/mnt", unix.S_IFREG)}, unix.EISDIR},
		{"format", asRoot, conf{}, "", []func(*Server) error{mnt("/mnt", unix.S_IFIFO)}, unix.EINVAL},
		{"options twice", asRoot, conf{}, "", []func(*Server) error{opts("a"), opts("b")}, unix.EINVAL},
		{"mtab options twice", asRoot, conf{}, "", []func(*Server) error{raw(&Message{Magic: MtaboptsCmd, Text: "-n"}), raw(&Message{Magic: MtaboptsCmd, Text: "-n"})}, unix.EINVAL},
		{"another descriptor", asRoot, conf{}, "", []func(*Server) error{opts("max_read=4096,fd=7")}, unix.EINVAL},
		{"another user", asRoot, conf{}, "", []func(*Server) error{opts("user_id=0")}, unix.EINVAL},
		{"allow_other", asUser, conf{}, "", []func(*Server) error{opts("allow_other")}, unix.EPERM},
		{"allow_root", asUser, conf{}, "", []func(*Server) error{opts("x,allow_root")}, unix.EPERM},
		{"unknown option for a user", asUser, userConf, "", []func(*Server) error{opts("allow_other,context=x")}, unix.EPERM},
		{"mount without source", asRoot, conf{}, "", []func(*Server) error{mnt("/mnt", 0), raw(&Message{Magic: MountCmd})}, unix.EINVAL},
		{"mount without mount point", asRoot, conf{}, "", []func(*Server) error{raw(&Message{Magic: SourceCmd, Text: "a"}), raw(&Message{Magic: MountCmd})}, unix.EINVAL},
		{"bind mount", asRoot, conf{}, "", []func(*Server) error{raw(&Message{Magic: SourceCmd, Text: "/etc"}), mnt("/mnt", 0), raw(&Message{Magic: MountCmd, Flags: unix.MS_BIND})}, unix.EINVAL},
		{"mount twice", asRoot, conf{}, "", []func(*Server) error{raw(&Message{Magic: SourceCmd, Text: "a"}), mnt("/mnt", 0), raw(&Message{Magic: MountCmd}), raw(&Message{Magic: MountCmd})}, unix.EINVAL},
		{"open after fsopen", asRoot, conf{}, "", []func(*Server) error{raw(&Message{Magic: FsopenCmd}), func(s *Server) error { _, err := s.Open("/etc/shadow", 0, 0, 0); return err }}, unix.EPERM},
		{"request flags", asRoot, conf{}, "", []func(*Server) error{func(s *Server) error { _, err := s.Open("/img", 0, 0, 2); return err }}, unix.EINVAL},
		{"no block device", asUser, conf{}, "", []func(*Server) error{func(s *Server) error { _, err := s.OpenBdev("/img", 0, 0, 0); return err }}, unix.ENOTBLK},
		{"iomap mandatory", asRoot, conf{}, "", []func(*Server) error{func(s *Server) error { return s.Iomap(true) }}, unix.ENOTTY},
		{"iomap mode", asRoot, conf{}, "", []func(*Server) error{raw(&Message{Magic: IomapCmd, Mode: 7})}, unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, c.user, c.conf)
			p.host.block = c.user.root()
			if c.args != "" {
				p.s.h.Args = append(p.s.h.Args, c.args)
			}
			srv := p.start()
			for i, ask := range c.ask {
				err := ask(srv)
				if last := i == len(c.ask)-1; last && !errors.Is(err, c.want) || !last && err != nil {
					t.Errorf("request %d: %v, want %v at the last", i, err, c.want)
				}
			}
			// It is for the server to go on.
			if err := srv.Bye(unix.EIO); err != nil {
				t.Error(err)
			}
			var ended *ExitError
			if err := p.end(); !errors.As(err, &ended) || ended.Code != unix.EIO {
				t.Errorf("the helper ends with %v", err)
			}
			if mounted := p.host.mounted != nil; mounted != p.host.gone {
				t.Errorf("mounted %v, unmounted %v", mounted, p.host.gone)
			}
		})
	}
}

// What users may have.
func TestUser(t *testing.T) {
	p := newPair(t, asUser, conf{userAllowOther: true})
	p.s.h.Args = []string{"/img", "/mnt"}
	srv := p.start()
	if !srv.AllowOther() || srv.Fuseblk() {
		t.Error("user_allow_other allows that and nothing else")
	}
	for _, err := range []error{
		srv.Iomap(false), srv.Fsopen(0), srv.Source("/img"), srv.Mountpoint("/mnt", 0), srv.Mntopts("allow_other,max_read=4096"),
		srv.Mount(unix.MS_RDONLY), srv.Bye(0), p.end(),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	m := p.host.mounted
	if m == nil || m.typ != "fuse" || m.flags != unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV ||
		!strings.HasSuffix(strings.Join(m.options, ","), "user_id=1000,group_id=100") {
		t.Errorf("mounted %+v", m)
	}
}

// Malformed messages are answered if there is an answer, else end the session.
func TestMalformed(t *testing.T) {
	for _, c := range []struct {
		packet, answer string // "": the helper ends
	}{
		{"OPEN", "FILE\x00\x00\x00\x16?\x00"},
		{"OPEN" + strings.Repeat("\x00", 16) + "/x", "FILE\x00\x00\x00\x16?\x00"},
		{"BDEV" + strings.Repeat("\x00", 16) + "\x00", "FILE\x00\x00\x00\x16?\x00"},
		{"NAME", "REPL\x00\x00\x00\x16"},
		{"NAMEx", "REPL\x00\x00\x00\x16"},
		{"NAME\x00", "REPL\x00\x00\x00\x16"},
		{"MNTP\x00\x00\x00\x01/mnt\x00", "REPL\x00\x00\x00\x16"},
		{"TYPE\x00", "REPL\x00\x00\x00\x16"},
		{"DOIT\x00\x00\x00\x00\x00", "REPL\x00\x00\x00\x16"},
		{"XXXX", ""}, {"BYE", ""}, {"BYEE\x00", ""}, {"SAFT\x00\x01\x00\x01\x00\x00\x00\x03", ""},
		{"REPL\x00\x00\x00\x00", ""},
		{"NAME" + strings.Repeat("a", MaxMessage) + "\x00", "REPL\x00\x00\x00\x16"},
	} {
		p := newPair(t, asRoot, conf{})
		p.start()
		if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<18); err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendto(p.fd, []byte(c.packet), unix.MSG_EOR|unix.MSG_NOSIGNAL, nil); err != nil {
			t.Fatal(err)
		}
		if c.answer == "" {
			if err := p.end(); err == nil {
				t.Errorf("%.20q: the helper goes on", c.packet)
			}
			continue
		}
		b := make([]byte, 100)
		n, err := unix.Read(p.fd, b)
		if err != nil || string(b[:n]) != c.answer {
			t.Errorf("%.20q: answer %q, %v", c.packet, b[:n], err)
		}
		unix.Close(p.fd)
		if err := p.end(); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%.20q: a server that goes: %v", c.packet, err)
		}
	}
}

// An end that says nothing, and one that goes, at each stage.
func TestSilence(t *testing.T) {
	before := descriptors(t)
	for n := range 4 {
		p := newPair(t, asRoot, conf{})
		p.s.h.Timeout, p.s.h.Patience = time.Millisecond, time.Millisecond
		p.run()
		s := socket{fd: p.fd, timeout: time.Minute}
		if n > 0 {
			s.recv(false)
			s.send(&Message{Magic: HelloReply, Min: Version}, -1)
		}
		if err := p.end(); !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("a silent server after %d messages: %v", n, err)
		}
		s.close()
	}
	hello, _ := (&Message{Magic: HelloCmd, Min: 1, Max: 1}).Encode()
	argv, _ := (&Message{Magic: OpenReply, Text: "argv"}).Encode()
	for n := range 3 {
		for _, silent := range []bool{true, false} {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			if n > 0 {
				unix.Write(fds[0], hello)
			}
			if n > 1 {
				unix.Sendmsg(fds[0], argv, unix.UnixRights(memfd(t, "ARGS\x00\x00\x00\x01\x00\x00\x00\x10\x00\x00\x00\x02x\x00")), nil, 0)
			}
			timeout, want := time.Minute, error(unix.ECONNRESET)
			if silent {
				timeout, want = 20*time.Millisecond, unix.ETIMEDOUT
			} else {
				unix.Close(fds[0])
			}
			if _, err := Accept(fds[1], timeout); !errors.Is(err, want) && !errors.Is(err, unix.EPIPE) {
				t.Errorf("a helper that goes or says nothing (%v) after %d messages: %v", silent, n, err)
			}
			if silent {
				unix.Close(fds[0])
			}
		}
	}
	closeMemfds()
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

var memfds []int

func memfd(t testing.TB, content string) int {
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	unix.Write(fd, []byte(content))
	memfds = append(memfds, fd)
	return fd
}

func closeMemfds() {
	for _, fd := range memfds {
		unix.Close(fd)
	}
	memfds = nil
}

// Descriptors that nobody asked for do not stay.
func TestSurplus(t *testing.T) {
	before := descriptors(t)
	for name, send := range map[string]func(fd, null int) error{
		"two with the arguments": func(fd, null int) error {
			return unix.Sendmsg(fd, []byte("FILE\x00\x00\x00\x00argv\x00"), unix.UnixRights(null, null), nil, 0)
		},
		"one with an error": func(fd, null int) error {
			return unix.Sendmsg(fd, []byte("FILE\x00\x00\x00\x02argv\x00"), unix.UnixRights(null), nil, 0)
		},
		"one for another name": func(fd, null int) error {
			return unix.Sendmsg(fd, []byte("FILE\x00\x00\x00\x00/etc\x00"), unix.UnixRights(null), nil, 0)
		},
		"one with a message that is not whole": func(fd, null int) error {
			return unix.Sendmsg(fd, []byte("FILE\x00"), unix.UnixRights(null), nil, 0)
		},
		"none": func(fd, null int) error { return unix.Sendto(fd, []byte("FILE\x00\x00\x00\x00argv\x00"), 0, nil) },
		"a device as arguments": func(fd, null int) error {
			return unix.Sendmsg(fd, []byte("FILE\x00\x00\x00\x00argv\x00"), unix.UnixRights(null), nil, 0)
		},
	} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		hello, _ := (&Message{Magic: HelloCmd, Min: 1, Max: 1}).Encode()
		unix.Write(fds[0], hello)
		if err := send(fds[0], null); err != nil {
			t.Fatal(err)
		}
		if _, err := Accept(fds[1], time.Minute); err == nil {
			t.Errorf("%s: accepted", name)
		}
		unix.Close(fds[0])
		unix.Close(null)
	}
	// The helper never takes one.
	p := newPair(t, asRoot, conf{})
	srv := p.start()
	if err := unix.Sendmsg(p.fd, []byte("TYPE\x00\x00\x00\x00"), unix.UnixRights(0), nil, 0); err != nil && err != unix.EPERM {
		t.Fatal(err)
	}
	srv.Close()
	p.end()
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

func TestHello(t *testing.T) {
	for _, m := range []Message{
		{Magic: HelloCmd, Min: 2, Max: 3}, {Magic: HelloCmd, Min: 2, Max: 1}, {Magic: HelloCmd}, {Magic: HelloCmd, Min: 1, Max: 1, Flags: 4},
		{Magic: SimpleReply},
	} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := m.Encode()
		unix.Write(fds[0], b)
		if _, err := Accept(fds[1], time.Minute); !errors.Is(err, unix.EBADMSG) {
			t.Errorf("%+v: %v", m, err)
		}
		unix.Close(fds[0])
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	if _, err := Accept(fds[1], time.Minute); !errors.Is(err, unix.EPROTOTYPE) {
		t.Errorf("a stream: %v", err)
	}
}

func TestConf(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fuse.conf")
	for _, c := range []struct {
		text string
		want conf
		warn int
	}{
		{"", conf{mountMax: 1000}, 0},
		{"# user_allow_other\n\n mount_max = 7 # few\n", conf{mountMax: 7}, 0},
		{"user_allow_other\nmount_max=-1\n", conf{userAllowOther: true, mountMax: -1}, 0},
		{"user_allow_other=no\nmount_max=x\nuser_allow_others\n", conf{mountMax: 1000}, 3},
	} {
		if err := os.WriteFile(name, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, warn := readConf(name); got != c.want || len(warn) != c.warn {
			t.Errorf("%q: %+v, %q", c.text, got, warn)
		}
	}
	if got, warn := readConf(name + "x"); got != (conf{mountMax: 1000}) || warn != nil {
		t.Errorf("no file: %+v, %q", got, warn)
	}
	if err := (conf{mountMax: 0}).room(); !errors.Is(err, unix.EUSERS) {
		t.Errorf("no room: %v", err)
	}
	if err := (conf{mountMax: -1}).room(); err != nil {
		t.Error(err)
	}
}

// An environment that is not meant for this process is left alone.
func TestActivated(t *testing.T) {
	self := fmt.Sprint(os.Getpid())
	for _, c := range [][2]string{{"", ""}, {"1", "1"}, {"0", self}, {"x", self}, {"1", self + "x"}} {
		t.Setenv("LISTEN_FDS", c[0])
		t.Setenv("LISTEN_PID", c[1])
		if _, ok, err := Activated(); ok || err != nil {
			t.Errorf("%q: %v, %v", c, ok, err)
		}
		if os.Getenv("LISTEN_FDS") != c[0] {
			t.Errorf("%q: changed", c)
		}
	}
}

// Files are opened with the rights of the user, and mount points looked at.
func TestCallersRights(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to have more rights than another")
	}
	nobody := caller{uid: 65534, gid: 65534, setuid: true}
	k := &kernelHost{user: nobody}
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if fd, err := k.open(secret, unix.O_RDONLY, 0); err != unix.EACCES {
		t.Errorf("a user opens a file of root: %d, %v", fd, err)
	}
	fd, err := (&kernelHost{user: asRoot}).open(secret, unix.O_RDONLY, 0)
	if err != nil {
		t.Error(err)
	}
	unix.Close(fd)
	// What the process's effective user decides.
	if fd, err := k.open("/proc/sys/kernel/core_pattern", unix.O_WRONLY, 0); err == nil {
		unix.Close(fd)
		t.Error("a user opens a sysctl to write")
	}
	if _, err := k.target("/proc/self"); err == nil {
		t.Error("a user mounts on proc")
	}
	sticky := filepath.Join(dir, "sticky")
	if err := errors.Join(os.Mkdir(sticky, 0o777), os.Chmod(sticky, 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	if _, err := k.target(sticky); !errors.Is(err, unix.EPERM) {
		t.Errorf("a user mounts on another's sticky folder: %v", err)
	}
	x, err := (&kernelHost{user: asRoot}).target(sticky)
	if err != nil {
		t.Fatal(err)
	}
	x.close()
}
