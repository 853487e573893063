package tests

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/fuse/service"
)

// A scripted helper is the test in the place of mount.fuse2fs.
type scriptedHelper struct {
	t    testing.TB
	fd   int
	said []service.Magic // by the server
	deny string          // paths that begin so do not open
	blk  bool            // it asked for a mount of a block device
	src  string          // and of this source
}

func dial(t testing.TB, path string) *scriptedHelper {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	tv := unix.Timeval{Sec: 30}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	return &scriptedHelper{t: t, fd: fd}
}

func (h *scriptedHelper) send(m service.Message, fds ...int) {
	h.t.Helper()
	b, err := m.Encode()
	if err != nil {
		h.t.Fatal(err)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(h.fd, b, oob, nil, unix.MSG_EOR|unix.MSG_NOSIGNAL); err != nil {
		h.t.Fatal(err)
	}
}

// recv returns the server's next message, or io.EOF.
func (h *scriptedHelper) recv() (*service.Message, error) {
	b := make([]byte, service.MaxMessage)
	n, err := unix.Read(h.fd, b)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(h.fd, b)
	}
	if n == 0 && err == nil || errors.Is(err, unix.ECONNRESET) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, err
	}
	m, err := service.Decode(b[:n])
	if err == nil {
		h.said = append(h.said, m.Magic)
	}
	return m, err
}

// play greets, passes args and a /dev/fuse, opens what the server asks for, and
// says yes to everything, until it has had stages messages of the server; then
// it hangs up. It returns early when the server does.
func (h *scriptedHelper) play(stages int, flags uint32, args ...string) *service.Message {
	h.t.Helper()
	defer unix.Close(h.fd)
	h.send(service.Message{Magic: service.HelloCmd, Min: 1, Max: 1, Flags: flags})
	greeted := false
	for range stages {
		m, err := h.recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			h.t.Fatal(err)
		}
		switch m.Magic {
		case service.HelloReply:
			if greeted {
				h.t.Fatal("greeted twice")
			}
			greeted = true
			b, err := service.EncodeArgs(args)
			if err != nil {
				h.t.Fatal(err)
			}
			argv, err := unix.MemfdCreate("argv", unix.MFD_CLOEXEC)
			if err != nil {
				h.t.Fatal(err)
			}
			unix.Write(argv, b)
			h.send(service.Message{Magic: service.OpenReply, Text: "argv"}, argv)
			unix.Close(argv)
			dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				h.t.Fatal(err)
			}
			h.send(service.Message{Magic: service.OpenReply, Text: "fusedev"}, dev)
			unix.Close(dev)
		case service.OpenCmd, service.OpenBdevCmd:
			fd, err := unix.Open(m.Text, int(m.Flags)|unix.O_CLOEXEC, 0)
			if err == nil && h.deny != "" && strings.HasPrefix(m.Text, h.deny) {
				unix.Close(fd)
				err = unix.EACCES
			}
			if err != nil {
				var errno unix.Errno
				errors.As(err, &errno)
				h.send(service.Message{Magic: service.OpenReply, Text: m.Text, Errno: errno})
				continue
			}
			h.send(service.Message{Magic: service.OpenReply, Text: m.Text}, fd)
			unix.Close(fd)
		case service.ByeCmd:
			return m
		default:
			h.blk = h.blk || m.Magic == service.FsopenCmd && m.Flags&service.FsopenFuseblk != 0
			if m.Magic == service.SourceCmd {
				h.src = m.Text
			}
			h.send(service.Message{Magic: service.SimpleReply})
		}
	}
	return nil
}

// TestServiceHelperEnds has the helper go at each stage: the server ends, and
// leaves the image as clean as it was.
func TestServiceHelperEnds(t *testing.T) {
	s := startService(t)
	for _, dirty := range []bool{false, true} {
		img := testfs.Mke2fs(t, testfs.Spec{Name: "hangup"})
		if dirty {
			testfs.Run(t, "debugfs", "-w", "-R", "feature needs_recovery", img.Path)
		}
		stages := 0
		for done := false; !done; stages++ {
			h := dial(t, filepath.Join(s.dir, "ext4"))
			bye := h.play(stages, 0, "ext4", img.Path, "/mnt")
			// Nothing is mounted, so that MOUNT is the last that it can ask.
			done = len(h.said) > 0 && h.said[len(h.said)-1] == service.MountCmd
			if bye != nil {
				t.Errorf("after %v it says BYE %v", h.said, bye.Errno)
			}
			if stages > 50 {
				t.Fatalf("no end: %v", h.said)
			}
		}
		wait(t, "the servers have ended", func() bool { return len(s.servers()) == 0 })
		if stages < 8 {
			t.Errorf("only %d stages", stages)
		}
	}
}

// TestServiceOrder looks at what a server asks for, and when: descriptors first,
// then what to mount, and before MOUNT it has opened the file system.
func TestServiceOrder(t *testing.T) {
	iomap := func(said []service.Magic) (n int) {
		for _, m := range said {
			if m == service.IomapCmd {
				n++
			}
		}
		return n
	}
	for _, mode := range []string{"", "optional", "mandatory"} {
		var opts []string
		if mode != "" {
			opts = []string{"-o", "iomap_helper=" + mode}
		}
		s := startService(t, opts...)
		junk := filepath.Join(testfs.Scratch(t), "junk")
		if err := os.WriteFile(junk, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		h := dial(t, filepath.Join(s.dir, "ext3"))
		bye := h.play(100, 0, "ext3", junk, "/mnt", "-o", "ro")
		if bye == nil || bye.Errno == 0 {
			t.Errorf("a file without a file system ends with %+v", bye)
		}
		if iomap(h.said) != min(len(mode), 1) || mode != "" && h.said[1] != service.IomapCmd {
			t.Errorf("iomap_helper=%s: %v", mode, h.said)
		}
		var rest []string
		for _, m := range h.said[1:] {
			if m != service.OpenCmd && m != service.IomapCmd {
				rest = append(rest, m.String())
			} else if len(rest) > 0 {
				t.Errorf("%v after %v", m, rest)
			}
		}
		if got := strings.Join(rest, " "); got != "FSOPEN SOURCE MNTPT MNTOPTS BYE" {
			t.Errorf("it asks for %s", got)
		}
	}
}

// TestServiceLoop mounts an image as a block device where the helper is root's
// and has loop devices, and else as it is.
func TestServiceLoop(t *testing.T) {
	s := startService(t)
	junk := filepath.Join(testfs.Scratch(t), "junk")
	if err := os.WriteFile(junk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flags uint32
		deny  string
		blk   bool
	}{
		{service.HelloFuseblk, "", true},
		{service.HelloFuseblk, "/dev/loop-control", false},
		{service.HelloFuseblk, "/dev/fuse", true}, // no clones either
		{0, "", false},
	} {
		h := dial(t, filepath.Join(s.dir, "ext4"))
		h.deny = c.deny
		h.play(100, c.flags, "ext4", junk, "/mnt")
		if h.blk != c.blk || strings.HasPrefix(h.src, "/dev/loop") != c.blk || !c.blk && h.src != junk {
			t.Errorf("flags %d, without %q: block device %v, source %s, %v", c.flags, c.deny, h.blk, h.src, h.said)
		}
	}
	if c := strings.Count(s.out.String(), "no loop device, so umount will not wait"); c != 1 {
		t.Errorf("told %d times\n%s", c, s.out)
	}
}

// TestServiceGarbage sends the service what is no helper's, and then mounts.
func TestServiceGarbage(t *testing.T) {
	s := startService(t)
	for _, p := range []string{"x", "SAFT", "SAFT\x00\x02\x00\x03\x00\x00\x00\x00", "SAFT\x00\x01\x00\x01\xff\xff\xff\xff",
		"FILE\x00\x00\x00\x00argv\x00", strings.Repeat("SAFT", 10000), "SAFT\x00\x01\x00\x01\x00\x00\x00\x00"} {
		h := dial(t, filepath.Join(s.dir, "ext4"))
		for range 3 {
			_ = unix.Sendmsg(h.fd, []byte(p), unix.UnixRights(0), nil, unix.MSG_NOSIGNAL)
		}
		unix.Close(h.fd)
	}
	wait(t, "the servers have ended", func() bool { return len(s.servers()) == 0 })
	s.mount(testfs.Mke2fs(t, testfs.Spec{Name: "after"})).unmount()
}

// scriptedService is the test in the place of a server: script is called for a
// connection, after the greeting.
func scriptedService(t testing.TB, script func(*service.Server)) *mountService {
	t.Helper()
	s := &mountService{t: t, bin: server(t), dir: testfs.Scratch(t), out: &lockedBuffer{}}
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(sock, &unix.SockaddrUnix{Name: filepath.Join(s.dir, "ext4")}), unix.Listen(sock, 1)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		unix.Shutdown(sock, unix.SHUT_RDWR)
		<-done
		unix.Close(sock)
	})
	go func() {
		defer close(done)
		for {
			fd, _, err := unix.Accept4(sock, unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			srv, err := service.Accept(fd, time.Minute)
			if err != nil {
				fmt.Fprintln(s.out, err)
				continue
			}
			script(srv)
			srv.Close()
		}
	}()
	return s
}

// TestServiceLeavesNoMount has a server mount and then go, or say that it failed:
// the helper takes the mount back.
func TestServiceLeavesNoMount(t *testing.T) {
	testfs.NeedRoot(t)
	dir := mkdir(t)
	for _, bye := range []bool{false, true} {
		was := ""
		s := scriptedService(t, func(srv *service.Server) {
			for _, err := range []error{srv.Fsopen(0), srv.Source("x"), srv.Mountpoint(dir, unix.S_IFDIR), srv.Mntopts("allow_other"), srv.Mount(unix.MS_NODEV)} {
				if err != nil {
					t.Error(err)
				}
			}
			was = mountinfo(dir)
			if bye {
				if err := srv.Bye(unix.EIO); err != nil {
					t.Error(err)
				}
			}
		})
		out, err := s.helper("image", dir, "-o", "noexec").CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() == 0 {
			t.Errorf("%v\n%s", err, out)
		}
		if !strings.Contains(was, " fuse.ext4 x ") || !strings.Contains(was, "nodev,noexec") || !strings.Contains(was, "allow_other") {
			t.Errorf("it was mounted as %s", was)
		}
		if mounted(dir) {
			unix.Unmount(dir, unix.MNT_DETACH)
			t.Errorf("the mount is left\n%s", out)
		}
	}
}

// TestServiceHelperIsStrict asks the real helper for what no server needs once it
// parses a file system.
func TestServiceHelperIsStrict(t *testing.T) {
	testfs.NeedRoot(t)
	dir := mkdir(t)
	s := scriptedService(t, func(srv *service.Server) {
		fd, err := srv.Open("/etc/hostname", unix.O_RDONLY, 0, service.OpenQuiet)
		if err == nil {
			unix.Close(fd)
		}
		if err := srv.Fsopen(0); err != nil {
			t.Error(err)
		}
		if _, err := srv.Open("/etc/passwd", unix.O_RDWR|unix.O_TRUNC, 0, 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("opening after FSOPEN: %v", err)
		}
		if err := srv.Source("/etc"); err != nil {
			t.Error(err)
		}
		if err := srv.Mountpoint("/", 0); !errors.Is(err, unix.EINVAL) {
			t.Errorf("another mount point: %v", err)
		}
		if err := srv.Mountpoint(dir, 0); err != nil {
			t.Error(err)
		}
		if err := srv.Mount(unix.MS_BIND); !errors.Is(err, unix.EINVAL) {
			t.Errorf("a bind mount: %v", err)
		}
		srv.Bye(unix.EPERM)
	})
	if out, err := s.helper("image", dir).CombinedOutput(); err == nil || mounted(dir) {
		t.Errorf("%v\n%s", err, out)
	}
}
