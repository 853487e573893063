//go:build linux

package testfs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// CFuseMount mounts the image by C fuse2fs: the peer to compare with, and an
// oracle for images whose blocks are too large for the kernel. It is unmounted
// when the test ends, before the image is checked, or by Unmount, which waits
// until the server has gone.
func CFuseMount(t testing.TB, img *Image, opts string) *Mount {
	t.Helper()
	NeedRoot(t)
	tool := Tool(t, "fuse2fs")
	dir := filepath.Join(Scratch(t), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := StartFuse(dir, exec.Command(tool, "-f", "-o", strings.Trim("allow_other,"+opts, ","), img.Path, dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// mountLimit is when a server counts as hung: far longer than a mount takes on a
// machine that does much else.
const mountLimit = 2 * time.Minute

// dumpStacks has a hung process and its children say where they are, if they
// are Go programs, and waits a little for it.
func dumpStacks(pid int) {
	kids, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, k := range append(strings.Fields(string(kids)), strconv.Itoa(pid)) {
		if n, err := strconv.Atoi(k); err == nil {
			_ = unix.Kill(n, unix.SIGQUIT)
		}
	}
	time.Sleep(time.Second)
}

// StartFuse runs a FUSE server in the foreground and waits until it has mounted
// dir. The caller unmounts. The error of a server that refuses holds what it
// printed and its *exec.ExitError.
func StartFuse(dir string, cmd *exec.Cmd) (*Mount, error) {
	var before unix.Stat_t
	if err := unix.Stat(dir, &before); err != nil {
		return nil, err
	}
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	// A test that is killed leaves no server behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	// The server may hang before it answers, and whoever looks at the folder
	// with it: that is done aside.
	ready := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		for {
			var now unix.Stat_t
			if err := unix.Stat(dir, &now); err == nil && now.Dev != before.Dev {
				close(ready)
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	defer close(stop)
	select {
	case <-ready:
	case err := <-done:
		unix.Unmount(dir, unix.MNT_DETACH) // it may have come as far as that
		return nil, fmt.Errorf("%s: %w\n%s", cmd.Path, err, out)
	case <-time.After(mountLimit):
		dumpStacks(cmd.Process.Pid)
		cmd.Process.Kill()
		<-done
		unix.Unmount(dir, unix.MNT_DETACH)
		return nil, fmt.Errorf("%s: not mounted after %v\n%s", cmd.Path, mountLimit, out)
	}
	return &Mount{Dir: dir, Server: cmd.Process, mounted: true, out: out, ended: func() error {
		select {
		case err := <-done:
			if err != nil {
				err = fmt.Errorf("%s: %w\n%s", cmd.Path, err, out)
			}
			return err
		case <-time.After(60 * time.Second):
			cmd.Process.Kill()
			<-done
			return fmt.Errorf("%s: still runs 60 s after unmount", cmd.Path)
		}
	}}, nil
}

// output collects what a server prints while it runs.
type output struct {
	mu sync.Mutex
	b  []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.b) < 1<<20 {
		o.b = append(o.b, p...)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b)
}

// FuseMount mounts an image by running a server in the foreground: argv with
// the mount point appended. It is unmounted when the test ends.
func FuseMount(t testing.TB, argv ...string) *Mount {
	t.Helper()
	dir := filepath.Join(Scratch(t), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := StartFuse(dir, exec.Command(argv[0], append(argv[1:len(argv):len(argv)], dir)...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return m
}
