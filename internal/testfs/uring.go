//go:build linux

package testfs

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Uring has the kernel offer FUSE over io_uring, or not, until restore is called
// or the test ends. What is mounted meanwhile keeps it. Tests of it wait for each
// other, so it should not take longer than a mount. Where the kernel does not have
// it, the test is skipped.
func Uring(t testing.TB, on bool) (restore func()) {
	t.Helper()
	const path = "/sys/module/fuse/parameters/enable_uring"
	old, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("this kernel has no FUSE over io_uring (Linux 6.14, CONFIG_FUSE_IO_URING)")
	}
	if b, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled"); err == nil && strings.TrimSpace(string(b)) == "2" {
		t.Skip("io_uring is disabled: kernel.io_uring_disabled is 2")
	}
	// Open for writing, which takes root; the lock is for other tests.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Skipf("fuse.enable_uring is %s, and cannot be changed: %v", strings.TrimSpace(string(old)), err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if old, err = os.ReadFile(path); err == nil {
		_, err = f.WriteString(map[bool]string{true: "1", false: "0"}[on])
	}
	if err != nil {
		t.Fatalf("set fuse.enable_uring: %v", err)
	}
	var once sync.Once
	restore = func() {
		once.Do(func() {
			if _, err := f.WriteAt(old, 0); err != nil {
				t.Errorf("restore fuse.enable_uring: %v", err)
			}
			f.Close()
		})
	}
	t.Cleanup(restore)
	return restore
}
