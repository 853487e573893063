package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"github.com/e2kit/e2kit/internal/testfs"
)

// startUring mounts img so that requests come by io_uring.
func startUring(t *testing.T, img *testfs.Image) *probed {
	t.Helper()
	bin := server(t)
	opts := "debug,uring"
	if more := os.Getenv("E2KIT_MOUNT_OPTS"); more != "" {
		opts += "," + more
	}
	restore := testfs.Uring(t, true)
	defer restore()
	s := startCommand(t, exec.Command(bin), img.Path, testfs.Scratch(t), opts)
	if _, err := os.Stat(s.dir); err != nil { // it is served by now
		t.Fatal(err)
	}
	return s
}

// TestUring puts a parallel load on a mount over io_uring: what it shows is what
// was written, and what the kernel sees after the unmount.
func TestUring(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "uring", Size: 512 << 20})
	s := startUring(t, img)
	check := parallelLoad(t, s.dir)
	check("our mount", s.dir)
	if err := s.stop(); err != nil {
		t.Fatalf("%v\n%s", err, s.out)
	}
	if log := s.out.String(); !strings.Contains(log, " requests=io_uring ") {
		t.Errorf("the log does not say so:\n%s", log)
	}
	check("the kernel", testfs.KernelMount(t, img, "ro").Dir)
}

// TestUringPosix runs some of go-fuse's conformance tests over io_uring.
func TestUringPosix(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "posix", Size: 128 << 20})
	s := startUring(t, img)
	for _, name := range []string{"AppendWrite", "FdLeak", "LinkUnlinkRename", "LseekHoleSeeksToEOF", "MkdirRmdir", "NlinkZero",
		"ParallelFileOpen", "ReadDirConsistency", "RenameOverwriteDestExist", "SymlinkReadlink", "TruncateFile"} {
		test := posixtest.All[name]
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(s.dir, name)
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			test(t, dir)
		})
	}
}

// TestUringKilled kills the server while requests are under way: their callers
// are told, the mount goes, and the next one recovers what was synced.
func TestUringKilled(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "uring", Size: 128 << 20})
	s := startUring(t, img)
	name := filepath.Join(s.dir, "synced")
	f, err := os.Create(name)
	if err == nil {
		_, err = f.WriteString("synced")
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	servers := family(s.cmd.Process.Pid)[1:]
	if len(servers) == 0 {
		t.Skip("the kernel does not tell children (CONFIG_PROC_CHILDREN)")
	}
	// The last is of a request that was on its way, and the first means that it is
	// unmounted already.
	gone := []error{syscall.ENOENT, syscall.ENOTCONN, syscall.ECONNABORTED, syscall.ECANCELED}
	var under atomic.Int32
	var wg sync.WaitGroup
	for i := range int32(4) {
		wg.Go(func() {
			name := filepath.Join(s.dir, fmt.Sprint("f", i))
			for j := 0; ; j++ {
				if j == 20 && under.Add(1) == 4 {
					if err := syscall.Kill(servers[0], syscall.SIGKILL); err != nil {
						t.Error(err)
						return
					}
				}
				err := os.WriteFile(name, nil, 0o644)
				if err == nil {
					err = os.Remove(name)
				}
				switch {
				case err == nil:
					continue
				case j < 20: // and so the server lives
					t.Error(err)
				case !slices.ContainsFunc(gone, func(e error) bool { return errors.Is(err, e) }):
					t.Error(err)
				}
				return
			}
		})
	}
	wg.Wait()
	var exit *exec.ExitError
	if err := <-s.done; !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("%v\n%s", err, s.out)
	}
	s.ended = true
	s = startUring(t, img)
	if b, err := os.ReadFile(filepath.Join(s.dir, "synced")); string(b) != "synced" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestUringRefused: a mount that is to be over io_uring and cannot fails, and says
// why; one that need not be is served by /dev/fuse.
func TestUringRefused(t *testing.T) {
	bin := server(t)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "uring"})
	defer testfs.Uring(t, false)()
	out, err := exec.Command(bin, img.Path, mkdir(t), "-o", "uring").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "option uring: fuse.enable_uring is off") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, c := range []struct{ opts, why string }{
		{"debug", "io_uring: fuse.enable_uring is off"},
		{"debug,nouring", "io_uring: nouring was asked for"},
	} {
		s := startCommand(t, exec.Command(bin), img.Path, testfs.Scratch(t), c.opts)
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		if log := s.out.String(); !strings.Contains(log, c.why) || !strings.Contains(log, " requests=/dev/fuse ") {
			t.Errorf("-o %s: %s", c.opts, log)
		}
	}
}

// TestUringService has a mount service serve over io_uring.
func TestUringService(t *testing.T) {
	s := startService(t, "-o", "kernel,uring,debug")
	img := testfs.Mke2fs(t, testfs.Spec{Name: "uring"})
	restore := testfs.Uring(t, true)
	defer restore()
	m := s.mount(img)
	restore()
	want, err := testfs.Workload(m.dir, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	testfs.Same(t, "the mount", want, testfs.MustSnapshot(t, m.dir), testfs.Content&^testfs.Mtime)
	m.unmount()
	if err := img.Check(t); err != nil {
		t.Errorf("right after umount: %v", err)
	}
	if log := s.out.String(); !strings.Contains(log, " requests=io_uring ") {
		t.Errorf("the log does not say so:\n%s", log)
	}
}
