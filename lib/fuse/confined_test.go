//go:build linux

package fuse

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/sandbox"
)

// serveConfined is a server process: it mounts a memFS on dir, confines itself,
// and serves until it is unmounted.
func serveConfined(dir string) error {
	m := newMemFS()
	m.valid = 0
	mnt, err := NewMount(dir, MountOptions{Source: "confined"})
	if err != nil {
		return err
	}
	cfg := Config{Handlers: m.handlers(), Flags: memFlags &^ WritebackCache}
	uring := os.Getenv("FUSE_TEST_URING") != ""
	if uring {
		if cfg.Rings, err = NewRings(0); err != nil {
			return err
		}
	}
	c, err := NewConn(mnt.Fd(), cfg)
	if err != nil {
		return err
	}
	if err := mnt.Attach(); err != nil {
		return err
	}
	if os.Getenv("FUSE_TEST_UNCONFINED") == "" {
		missing, err := sandbox.Confine(sandbox.Options{Kill: true, Uring: uring})
		if err != nil {
			mnt.Unmount()
			return err
		}
		for _, m := range missing {
			fmt.Fprintln(os.Stderr, "missing:", m)
		}
	}
	fmt.Println("ready")
	err = c.Serve()
	if uring && err == nil && !c.Negotiated().Uring {
		err = fmt.Errorf("not over io_uring: %w", c.Negotiated().NoUring)
	}
	return err
}

// startServer runs serveConfined in a process of its own until the test ends.
func startServer(t testing.TB, env ...string) (dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir = t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), "FUSE_TEST_SERVER="+dir), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 200)
	if n, err := out.Read(b); string(b[:n]) != "ready\n" {
		cmd.Wait()
		t.Skipf("no server, as with cgo: %s%v", b[:n], err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
			unix.Unmount(dir, unix.MNT_DETACH)
		}
		io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return dir
}

// All that serving needs is left to a server in the sandbox, which kills it
// otherwise: cloned descriptors, more workers, the end.
func TestConfinedServer(t *testing.T) {
	fill(t, startServer(t))
}

// fill writes and reads some files.
func fill(t *testing.T, dir string) {
	t.Helper()
	data := make([]byte, 3<<20)
	for i := range 20 {
		name := filepath.Join(dir, fmt.Sprint("f", i))
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(name); err != nil || len(b) != len(data) {
			t.Fatalf("read %d bytes: %v", len(b), err)
		}
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 20 {
		t.Errorf("%d names, %v", len(names), err)
	}
}

// What the system call filter costs a request.
func BenchmarkConfined(b *testing.B) {
	for _, c := range []struct{ name, env string }{{"yes", ""}, {"no", "FUSE_TEST_UNCONFINED=1"}} {
		b.Run(c.name, func(b *testing.B) {
			dir := startServer(b, c.env)
			name := filepath.Join(dir, "f")
			if err := os.WriteFile(name, make([]byte, 4096), 0o644); err != nil {
				b.Fatal(err)
			}
			start, wait := startClient(b, fmt.Sprintf("getattr %d %s -1", b.N, name))
			b.ResetTimer()
			start()
			wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
}
