package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
)

// What a server built with the tag sandboxprobe answers to, see cmd/fuse2fs.
const (
	probeLine  = "sandboxprobe: "
	probeXattr = "user.e2kit.sandboxprobe"
	probeIA32  = "user.e2kit.sandboxprobe.ia32"
)

// probeEnv tells a run of this test program as another user what to do.
const probeEnv = "E2KIT_SANDBOX_AS_USER"

const nobody = 65534

// sandboxModes are the ways in which a server comes to be confined.
var sandboxModes = []struct {
	name string
	opts string
	ext  string   // as mke2fs -E
	wrap string   // command in front of the one who mounts
	user bool     // not root
	need []string // tools
	off  bool     // there is no sandbox: attempts must succeed

	uring bool // requests come by io_uring
}{
	{name: "root"},
	{name: "io_uring", opts: "uring", uring: true},
	{name: "read-only", opts: "ro"},
	{name: "fusermount3", user: true, ext: fmt.Sprintf("root_owner=%d:%d", nobody, nobody), need: []string{"fusermount3", "setpriv"}},
	{name: "user namespace", user: true, wrap: "unshare --user --map-root-user --mount", need: []string{"unshare", "setpriv"}},
	{name: "off", opts: "sandbox=off", off: true},
}

// probeServer builds the server that tries to escape.
func probeServer(t *testing.T) string {
	t.Helper()
	testfs.NeedRoot(t)
	if _, err := os.Stat("/dev/fuse"); err != nil {
		testfs.Missing(t, "no /dev/fuse")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		testfs.Missing(t, "no go to build the probe with")
	}
	dir, err := os.MkdirTemp("", "e2kit-sandbox") // for others to run, too
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin := filepath.Join(dir, "fuse2fs")
	build := exec.Command(goTool, "build", "-tags", "sandboxprobe", "-o", bin, "../cmd/fuse2fs")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return bin
}

// escapes is what came of the attempts at one moment.
type escapes struct {
	Stage string
	Got   map[string]string
}

// wayOut are attempts that must succeed without a sandbox, by root: else the
// test could not fail.
var wayOut = []string{"openat", "open /proc/self/mem", "open the parent's maps", "socket INET", "socket UNIX", "dup",
	"memfd_create", "execve", "fork", "ptrace", "process_vm_readv", "kill the parent", "tgkill the parent", "mount",
	"umount2", "pivot_root", "unshare NEWUTS", "setns", "bpf", "perf_event_open", "keyctl", "io_uring_setup", "userfaultfd",
	"kexec_load", "init_module", "setuid", "prctl dumpable", "mmap executable", "mprotect executable", "ioctl TIOCSTI",
	"ioctl FUSE unknown", "personality", "recvmsg"}

// check wants all attempts denied, or some of them not.
func (e *escapes) check(t *testing.T, off bool) {
	t.Helper()
	through := 0
	for name, got := range e.Got {
		denied := got == "EPERM" || got == "EACCES" || name == "clone3" && got == "ENOSYS"
		if !denied {
			through++
		}
		// It is still to be sent /dev/fuse, and to tighten the sandbox.
		soon := e.Stage == "confined" && (name == "sendmsg" || name == "recvmsg" || name == "seccomp on all threads" ||
			name == "io_uring_register files")
		if !off && !denied && !soon {
			t.Errorf("%s: %s: %s", e.Stage, name, got)
		}
	}
	t.Logf("%s: %d attempts, %d not denied", e.Stage, len(e.Got), through)
	if len(e.Got) < 100 {
		t.Errorf("%s: only %d attempts", e.Stage, len(e.Got))
	}
	if !off {
		return
	}
	for _, name := range wayOut {
		if got := e.Got[name]; got == "" || got == "EPERM" || got == "EACCES" {
			t.Errorf("%s: %s without a sandbox: %q", e.Stage, name, got)
		}
	}
}

// TestSandboxProbe has the server try to escape, right after it has confined
// itself, when it serves, and while it answers a request, in each mode.
func TestSandboxProbe(t *testing.T) {
	bin := probeServer(t)
	for _, m := range sandboxModes {
		t.Run(m.name, func(t *testing.T) {
			for _, tool := range m.need {
				if _, err := exec.LookPath(tool); err != nil {
					testfs.Missing(t, "no %s", tool)
				}
			}
			img := testfs.Mke2fs(t, testfs.Spec{Name: "sandbox", Extended: m.ext})
			if m.uring {
				defer testfs.Uring(t, true)()
			}
			if !m.user {
				tryEscapes(t, bin, img.Path, testfs.Scratch(t), m.opts, m.off)
				return
			}
			asNobody(t, bin, img.Path, m.wrap)
		})
	}
}

// asNobody runs TestSandboxUser as another user, who has a /dev/fuse for all
// and an image that root has made and checks.
func asNobody(t *testing.T, bin, image, wrap string) {
	dir := filepath.Join(filepath.Dir(bin), "user")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	tmp, node, copied := filepath.Join(dir, "tmp"), filepath.Join(dir, "fuse"), filepath.Join(dir, "tmp", "image")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Mkdir(dir, 0o755),
		os.Mkdir(tmp, 0o700),
		os.WriteFile(filepath.Join(dir, "test"), self, 0o755),
		syscall.Mknod(node, syscall.S_IFCHR|0o666, 10<<8|229),
		os.Chmod(node, 0o666),
		exec.Command("cp", "--sparse=always", image, copied).Run(),
		os.Chown(copied, nobody, nobody),
		os.Chown(tmp, nobody, nobody),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf("mount --bind %s /dev/fuse && cd %s && exec setpriv --reuid %d --regid %d --clear-groups %s %s/test -test.run '^TestSandboxUser$' -test.v",
		node, tmp, nobody, nobody, wrap, dir)
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script)
	cmd.Env = append(os.Environ(), probeEnv+"="+bin, "TMPDIR="+tmp, "HOME="+tmp)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	if err := testfs.E2fsck(t, copied, ""); err != nil {
		t.Error(err)
	}
}

// TestSandboxUser is the part of TestSandboxProbe that another user runs.
func TestSandboxUser(t *testing.T) {
	bin := os.Getenv(probeEnv)
	if bin == "" {
		t.Skip("run by TestSandboxProbe")
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	tryEscapes(t, bin, filepath.Join(dir, "image"), dir, "", false)
}

func tryEscapes(t *testing.T, bin, image, dir, opts string, off bool) {
	s := startProbe(t, bin, image, dir, opts, nil)
	var demand escapes
	ask(t, s.dir, probeXattr, &demand)
	demand.check(t, off)
	if strings.Contains(opts, "uring") && demand.Got["io_uring openat"] == "" {
		t.Error("nothing was tried by the ring that the request came by")
	}
	// It serves as before.
	if !strings.Contains(opts, "ro") {
		for i := range 50 {
			name := filepath.Join(s.dir, fmt.Sprint("file", i))
			if err := os.WriteFile(name, make([]byte, 100000), 0o644); err != nil {
				t.Error(err)
			}
		}
	}
	if names, err := os.ReadDir(s.dir); err != nil || len(names) == 0 {
		t.Errorf("%d names, %v", len(names), err)
	}
	if err := s.stop(); err != nil {
		t.Errorf("%v\n%s", err, s.out.String())
	}
	var stages []string
	for line := range strings.Lines(s.out.String()) {
		text, ok := strings.CutPrefix(line, probeLine)
		if !ok {
			continue
		}
		var e escapes
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		e.check(t, off)
		stages = append(stages, e.Stage)
	}
	if fmt.Sprint(stages) != "[confined serving]" {
		t.Errorf("attempts when %v\n%s", stages, s.out.String())
	}
}

// TestSandboxForeign has the server make a system call of another architecture,
// of which it dies; the mount does not stay.
func TestSandboxForeign(t *testing.T) {
	bin := probeServer(t)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "sandbox"})
	s := startProbe(t, bin, img.Path, testfs.Scratch(t), "", nil)
	buf := make([]byte, 100)
	if n, err := unix.Getxattr(s.dir, probeIA32, buf); err == nil {
		if string(buf[:n]) == "0" {
			t.Skip("no other architecture on this one")
		}
		t.Errorf("the server lives: %s", buf[:n])
	}
	err := <-s.done
	s.ended = true
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(s.out.String(), "bad system call") {
		t.Errorf("%v\n%s", err, s.out.String())
	}
	var st unix.Stat_t
	if err := unix.Stat(s.dir, &st); err != nil || st.Dev == s.dev {
		t.Errorf("still mounted: %v", err)
	}
	// What it has left is recovered as after a crash.
	if err := startProbe(t, bin, img.Path, testfs.Scratch(t), "", nil).stop(); err != nil {
		t.Error(err)
	}
}

// TestSandboxLoad runs a load under a filter that kills at the first system
// call that it denies, while threads start and end and garbage is collected all
// the time.
func TestSandboxLoad(t *testing.T) {
	bin := probeServer(t)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "sandbox", Size: 256 << 20})
	s := startProbe(t, bin, img.Path, testfs.Scratch(t), "discard", []string{"GOGC=1", "FUSE2FS_PROBE_KILL=1"})
	var wg sync.WaitGroup
	for i := range 3 {
		dir := filepath.Join(s.dir, fmt.Sprint("load", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			want, err := testfs.Workload(dir, uint64(i), 1)
			if err != nil {
				t.Error(err)
				return
			}
			testfs.Same(t, "the mount", want, testfs.MustSnapshot(t, dir), testfs.Content&^testfs.Mtime)
		})
	}
	wg.Wait()
	if err := s.stop(); err != nil {
		t.Errorf("%v\n%s", err, s.out.String())
	}
}

// TestSandboxMessages: the log says what is in force, in one line, and the
// server holds no descriptor that the user's shell had open.
func TestSandboxMessages(t *testing.T) {
	bin := server(t)
	for _, c := range []struct{ opts, want string }{
		{"debug,nouring", "sandbox=\"strict"},
		{"debug,nouring,sandbox=off", "sandbox=\"off"},
	} {
		img := testfs.Mke2fs(t, testfs.Spec{Name: "sandbox"})
		secret, err := os.Open("/etc/passwd")
		if err != nil {
			t.Fatal(err)
		}
		defer secret.Close()
		cmd := exec.Command(bin)
		cmd.ExtraFiles = []*os.File{nil, nil, secret}
		s := startCommand(t, cmd, img.Path, testfs.Scratch(t), c.opts)
		var kept []string
		for _, p := range family(s.cmd.Process.Pid)[1:] {
			links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p))
			for _, l := range links {
				if to, _ := os.Readlink(l); to == "/etc/passwd" {
					kept = append(kept, l)
				}
			}
			if len(links) == 0 {
				t.Errorf("no descriptors of %d to be seen", p)
			}
		}
		if len(kept) > 0 {
			t.Errorf("the server has %v", kept)
		}
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		var lines []string
		for line := range strings.Lines(s.out.String()) {
			if strings.Contains(line, "msg=serving") {
				lines = append(lines, line)
			}
		}
		if len(lines) != 1 || !strings.Contains(lines[0], "data=/dev/fuse") || !strings.Contains(lines[0], c.want) || !strings.Contains(lines[0], "iomap: ") {
			t.Errorf("-o %s: %q", c.opts, lines)
		}
	}
}

// TestInherited mounts in the background with a descriptor open that the program
// knows nothing of: no process keeps it.
func TestInherited(t *testing.T) {
	bin := server(t)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "sandbox"})
	dir := testfs.Scratch(t)
	mnt, secret := filepath.Join(dir, "mnt"), filepath.Join(dir, "secret")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(secret)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(bin, img.Path, mnt)
	cmd.ExtraFiles = []*os.File{nil, f}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, l := range links {
		if to, _ := os.Readlink(l); to == secret && !strings.HasPrefix(l, fmt.Sprintf("/proc/%d/", os.Getpid())) {
			t.Errorf("kept as %s", l)
		}
	}
	if out, err := exec.Command(testfs.Tool(t, "umount"), mnt).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// probed is a server in the foreground, in whatever mode.
type probed struct {
	dir   string
	dev   uint64 // of what is mounted
	cmd   *exec.Cmd
	out   *lockedBuffer
	done  chan error
	ended bool
}

func startProbe(t *testing.T, bin, image, scratch, opts string, env []string) *probed {
	t.Helper()
	cmd := exec.Command(bin)
	cmd.Env = append(os.Environ(), env...)
	return startCommand(t, cmd, image, scratch, opts)
}

func startCommand(t *testing.T, cmd *exec.Cmd, image, scratch, opts string) *probed {
	t.Helper()
	s := &probed{dir: filepath.Join(scratch, "mnt"), cmd: cmd, out: &lockedBuffer{}, done: make(chan error, 1)}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd.Args = append(cmd.Args, "-f", image, s.dir)
	if opts != "" {
		cmd.Args = append(cmd.Args, "-o", opts)
	}
	cmd.Stdout, cmd.Stderr = s.out, s.out
	var before, now unix.Stat_t
	if err := unix.Stat(s.dir, &before); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.done <- cmd.Wait() }()
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("%v\n%s", err, s.out.String())
		}
	})
	for range 2000 {
		select {
		case err := <-s.done:
			s.ended = true
			t.Fatalf("%v\n%s", err, s.out.String())
		case <-time.After(10 * time.Millisecond):
		}
		if unix.Stat(s.dir, &now) == nil && now.Dev != before.Dev {
			s.dev = now.Dev
			return s
		}
	}
	t.Fatalf("not mounted\n%s", s.out.String())
	return nil
}

// stop has the launcher unmount, as it can in each mode.
func (s *probed) stop() error {
	if s.ended {
		return nil
	}
	s.ended = true
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-s.done:
		return err
	case <-time.After(60 * time.Second):
		s.cmd.Process.Kill()
		return errors.New("does not end")
	}
}

// ask reads an attribute of the mount, which is JSON.
func ask(t *testing.T, dir, name string, v any) {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Getxattr(dir, name, buf)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := json.Unmarshal(buf[:n], v); err != nil {
		t.Fatal(err)
	}
}
