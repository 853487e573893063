package tests

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
)

// A mountService is fuse2fs --listen.
type mountService struct {
	t   testing.TB
	bin string
	dir string // of the sockets
	cmd *exec.Cmd
	out *lockedBuffer
}

// lockedBuffer is what several writers print to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startService starts a service, which is stopped when the test ends: it must
// end well, and leave no server and no socket.
func startService(t testing.TB, args ...string) *mountService {
	t.Helper()
	return startServiceOf(t, server(t), args...)
}

func startServiceOf(t testing.TB, bin string, args ...string) *mountService {
	t.Helper()
	s := &mountService{t: t, bin: bin, dir: testfs.Scratch(t), out: &lockedBuffer{}}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command(s.bin, append([]string{"--listen", s.dir}, args...)...)
	s.cmd.Stderr = s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stop() })
	wait(t, "the service listens", func() bool { return strings.Contains(s.out.String(), "serving") })
	return s
}

// stop ends the service, which waits for its servers.
func (s *mountService) stop() {
	s.t.Helper()
	if s.cmd == nil {
		return
	}
	cmd := s.cmd
	s.cmd = nil
	_ = cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			s.t.Errorf("the service ends with %v\n%s", err, s.out)
		}
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-done
		s.t.Errorf("a server still runs, though nothing is mounted\n%s", s.out)
	}
	for _, typ := range []string{"ext2", "ext3", "ext4"} {
		if _, err := os.Lstat(filepath.Join(s.dir, typ)); err == nil {
			s.t.Errorf("socket %s is left", typ)
		}
	}
}

// wait waits for what will come.
func wait(t testing.TB, what string, f func() bool) {
	t.Helper()
	for range 3000 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain until %s", what)
}

// helper returns the command mount.fuse2fs for the service.
func (s *mountService) helper(args ...string) *exec.Cmd {
	cmd := exec.Command(s.bin, append([]string{"--socket-dir", s.dir, "-v"}, args...)...)
	cmd.Args[0] = "mount.fuse2fs"
	return cmd
}

// mount mounts through the service, until the test ends.
func (s *mountService) mount(img *testfs.Image, args ...string) *serviceMount {
	s.t.Helper()
	dir := filepath.Join(testfs.Scratch(s.t), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	return s.mountOn(dir, img.Path, img, args...)
}

func (s *mountService) mountOn(dir, source string, img *testfs.Image, args ...string) *serviceMount {
	s.t.Helper()
	if img.Journal != "" {
		args = append(args, "-o", "journal_path="+img.Journal)
	}
	before := s.servers()
	out, err := s.helper(append(args, source, dir)...).CombinedOutput()
	m := &serviceMount{t: s.t, dir: dir, mounted: true}
	s.t.Cleanup(m.unmount)
	if err != nil {
		m.mounted = mounted(dir)
		s.t.Fatalf("mount.fuse2fs: %v\n%s%s", err, out, s.out)
	}
	if !strings.Contains(string(out), "served by the mount service") {
		s.t.Fatalf("not mounted by the service: %s", out)
	}
	for _, pid := range s.servers() {
		if !slices.Contains(before, pid) {
			m.pid = pid
		}
	}
	return m
}

// servers returns the processes of the servers.
func (s *mountService) servers() (pids []int) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.cmd.Process.Pid))
	for _, f := range threads {
		b, _ := os.ReadFile(f)
		for _, p := range strings.Fields(string(b)) {
			pid, _ := strconv.Atoi(p)
			pids = append(pids, pid)
		}
	}
	return pids
}

type serviceMount struct {
	t       testing.TB
	dir     string
	pid     int // of the server
	mounted bool
}

func (m *serviceMount) unmount() {
	m.t.Helper()
	if !m.mounted {
		return
	}
	m.mounted = false
	if out, err := exec.Command("umount", m.dir).CombinedOutput(); err != nil {
		_ = unix.Unmount(m.dir, unix.MNT_DETACH)
		m.t.Errorf("umount: %v\n%s", err, out)
	}
}

// mountinfo returns the line of the mount on dir, or "".
func mountinfo(dir string) (last string) {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, " "+dir+" ") {
			last = line
		}
	}
	return last
}

func mounted(dir string) bool { return mountinfo(dir) != "" }

// TestServiceMount mounts images of several kinds through the service: what is
// written is there for the kernel, and the image is clean when umount returns.
func TestServiceMount(t *testing.T) {
	s := startService(t, "-o", "kernel")
	for i, spec := range []testfs.Spec{
		{Name: "ext4"},
		{Name: "ext2-1k", Type: "ext2", BlockSize: 1024},
		{Name: "ext3", Type: "ext3"},
		{Name: "external", External: true},
	} {
		t.Run(spec.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, spec)
			x := *s
			x.t = t
			m := x.mount(img)
			if info := mountinfo(m.dir); !strings.Contains(info, " fuseblk.ext4 /dev/loop") || !strings.Contains(info, "allow_other") ||
				strings.Contains(info, "nosuid") {
				t.Errorf("mounted as %s", info)
			}
			want, err := testfs.Workload(m.dir, uint64(i), 1)
			if err != nil {
				t.Fatal(err)
			}
			m.unmount()
			if err := img.Check(t); err != nil {
				t.Errorf("right after umount: %v", err)
			}
			theirs, skip := peer(t, img)
			testfs.Same(t, "the kernel", want, theirs, (testfs.Content&^testfs.Mtime)|skip)
			before := sum(t, img)
			ro := x.mount(img, "-o", "ro")
			if !strings.Contains(mountinfo(ro.dir), " ro,") {
				t.Errorf("read-only: %s", mountinfo(ro.dir))
			}
			testfs.Same(t, "our read-only mount", want, testfs.MustSnapshot(t, ro.dir), testfs.Content&^testfs.Mtime)
			ro.unmount()
			if sum(t, img) != before {
				t.Error("a read-only mount changed the image")
			}
		})
	}
}

// TestServiceBlockDevice mounts a block device, relative paths and part of an
// image.
func TestServiceBlockDevice(t *testing.T) {
	s := startService(t)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "blockdev"})
	loop := strings.TrimSpace(testfs.Run(t, "losetup", "-f", "--show", img.Path))
	detach := sync.OnceFunc(func() { testfs.Run(t, "losetup", "-d", loop) })
	t.Cleanup(detach)
	m := s.mountOn(mkdir(t), loop, img)
	if info := mountinfo(m.dir); !strings.Contains(info, "fuseblk.ext4 "+loop+" ") || strings.Contains(info, "allow_other") {
		t.Errorf("mounted as %s", info)
	}
	if _, err := unix.Open(loop, unix.O_RDWR|unix.O_EXCL, 0); err != unix.EBUSY {
		t.Errorf("the device is free: %v", err)
	}
	if err := os.WriteFile(filepath.Join(m.dir, "f"), []byte("x"), 0o644); err != nil {
		t.Error(err)
	}
	m.unmount()
	detach()
	if err := img.Check(t); err != nil {
		t.Error(err)
	}
	// From the caller's directory.
	dir := mkdir(t)
	cmd := s.helper(filepath.Base(img.Path), dir, "-o", "nosuid,noexec")
	cmd.Dir = filepath.Dir(img.Path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s%s", err, out, s.out)
	}
	m = &serviceMount{t: t, dir: dir, mounted: true}
	if info := mountinfo(dir); !strings.Contains(info, "nosuid,") || !strings.Contains(info, "noexec,") {
		t.Errorf("mounted as %s", info)
	}
	m.unmount()
}

func mkdir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(testfs.Scratch(t), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestServiceConfined looks at what servers are while two serve at once.
func TestServiceConfined(t *testing.T) {
	s := startService(t, "--listen-user", "12345:12346")
	var mounts []*serviceMount
	for _, name := range []string{"one", "two"} {
		img := testfs.Mke2fs(t, testfs.Spec{Name: name})
		m := s.mount(img)
		mounts = append(mounts, m)
		if err := os.WriteFile(filepath.Join(m.dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"Uid:\t12345\t12345\t12345\t12345\n", "Gid:\t12346\t12346\t12346\t12346\n", "Groups:\t \n",
			"CapInh:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapAmb:\t0000000000000000\n",
			"NoNewPrivs:\t1\n", "Seccomp:\t2\n",
		} {
			if !strings.Contains(string(b), want) {
				t.Errorf("the server's status has not %q:\n%s", want, b)
			}
		}
		var fuse, image int
		// It closes its connection after the last word, with which the helper ends.
		wait(t, "the server has no socket", func() bool {
			fuse, image = 0, 0
			fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", m.pid))
			for _, fd := range fds {
				switch to, _ := os.Readlink(fd); {
				case to == "/dev/fuse":
					fuse++
				case to == img.Path:
					image++
				case strings.HasPrefix(to, "socket:"):
					return false
				}
			}
			return true
		})
		if fuse < 1 || image != 1 {
			t.Errorf("the server has %d descriptors of /dev/fuse and %d of the image", fuse, image)
		}
	}
	if mounts[0].pid == mounts[1].pid || mounts[0].pid == 0 {
		t.Errorf("servers %d and %d", mounts[0].pid, mounts[1].pid)
	}
	for i, name := range []string{"one", "two"} {
		if b, err := os.ReadFile(filepath.Join(mounts[i].dir, name)); string(b) != name {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// TestServiceRefuses has what cannot be mounted fail, with the exit status that
// the manual has, and leave nothing.
func TestServiceRefuses(t *testing.T) {
	s := startService(t)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "refused"})
	junk := filepath.Join(testfs.Scratch(t), "junk")
	if err := os.WriteFile(junk, bytes.Repeat([]byte("junk"), 1<<16), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := mkdir(t)
	for _, c := range []struct {
		name, want string
		status     int
		args       []string
	}{
		{"not a file system", "invalid argument", 2, []string{junk, dir}},
		{"missing", "no such file", 2, []string{img.Path + "x", dir}},
		{"a folder", "is a directory", 2, []string{filepath.Dir(img.Path), dir}},
		{"a device that is none", "block device required", 2, []string{"/dev/null", dir}},
		{"no mount point", "no such file", 2, []string{img.Path, dir + "x"}},
		{"mount point a file", "not a directory", 2, []string{img.Path, junk}},
		{"option", "invalid argument", 2, []string{img.Path, dir, "-o", "nonsense"}},
		{"iomap", "operation not permitted", 2, []string{img.Path, dir, "-o", "iomap_helper=optional"}},
		{"usage", "a source and a mount point are needed", 1, []string{img.Path}},
		{"type", "is no file system type", 1, []string{img.Path, dir, "-t", "a/b"}},
		{"namespace", "nsenter", 1, []string{img.Path, dir, "-N", "/proc/1/ns/mnt"}},
	} {
		out, err := s.helper(c.args...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != c.status || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: %v, want status %d and %q\n%s", c.name, err, c.status, c.want, out)
		}
		if mounted(dir) {
			t.Fatalf("%s: mounted", c.name)
		}
	}
	if out, err := s.helper("-s", "-o", "nonsense,ro", img.Path, dir).CombinedOutput(); err != nil {
		t.Errorf("sloppy: %v\n%s", err, out)
	} else {
		(&serviceMount{t: t, dir: dir, mounted: true}).unmount()
	}
	if out, err := s.helper("-f", img.Path, dir).CombinedOutput(); err != nil || mounted(dir) {
		t.Errorf("fake: %v\n%s", err, out)
	}
	for typ, want := range map[string]int{"ext4": 0, "fuse.ext2": 0, "fuseblk.ext3": 0, "fuse.fuse2fs": 0, "xfs": 1, "../ext4": 1} {
		cmd := s.helper("-t", typ, "--check")
		if _ = cmd.Run(); cmd.ProcessState.ExitCode() != want {
			t.Errorf("--check of %s: %v", typ, cmd.ProcessState)
		}
	}
}

// TestServiceInUse mounts what is mounted, which waits a while for it.
func TestServiceInUse(t *testing.T) {
	t.Parallel()
	s := startService(t)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "used"})
	m := s.mount(img)
	out, err := s.helper(img.Path, mkdir(t)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "busy") {
		t.Errorf("%v\n%s", err, out)
	}
	m.unmount()
}

// TestServiceFallback mounts without a service, and says so.
func TestServiceFallback(t *testing.T) {
	bin := server(t)
	for name, s := range map[string]*mountService{
		"no service":     {t: t, bin: bin, dir: testfs.Scratch(t)},
		"sandbox=off,ro": startService(t),
	} {
		img := testfs.Mke2fs(t, testfs.Spec{Name: "fallback"})
		dir := mkdir(t)
		args := []string{img.Path, dir, "-t", "fuse.ext4"}
		if s.cmd != nil {
			args = append(args, "-o", name)
		}
		out, err := s.helper(args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "mounting without") {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		if info := mountinfo(dir); !strings.Contains(info, " fuseblk.ext4 "+img.Path+" ") {
			t.Errorf("%s: mounted as %s", name, info)
		}
		(&serviceMount{t: t, dir: dir, mounted: true}).unmount()
	}
}

// TestServiceServerEnds ends the server while it is mounted: killed, what was
// synced is recovered; told to end, it leaves the image clean.
func TestServiceServerEnds(t *testing.T) {
	s := startService(t)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		img := testfs.Mke2fs(t, testfs.Spec{Name: sig.String()})
		m := s.mount(img)
		f, err := os.Create(filepath.Join(m.dir, "synced"))
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("synced")
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := syscall.Kill(m.pid, sig); err != nil {
			t.Fatal(err)
		}
		if sig == syscall.SIGTERM {
			// It waits for the unmount, unless it is told again.
			wait(t, "the server has heard", func() bool { return strings.Contains(s.out.String(), "ending when it is unmounted") })
			if err := os.WriteFile(filepath.Join(m.dir, "late"), []byte("late"), 0o644); err != nil {
				t.Errorf("a server that is told to end: %v", err)
			}
			if err := syscall.Kill(m.pid, sig); err != nil {
				t.Fatal(err)
			}
		}
		wait(t, "the server has ended", func() bool { return !slices.Contains(s.servers(), m.pid) })
		if _, err := os.ReadDir(m.dir); !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("%v: a mount without a server: %v", sig, err)
		}
		m.unmount()
		if sig == syscall.SIGTERM {
			if err := img.Check(t); err != nil {
				t.Errorf("%v: %v", sig, err)
			}
		}
		m = s.mount(img)
		if b, err := os.ReadFile(filepath.Join(m.dir, "synced")); string(b) != "synced" {
			t.Errorf("%v: %q, %v", sig, b, err)
		}
		m.unmount()
	}
}
