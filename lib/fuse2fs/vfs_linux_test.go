package fuse2fs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
)

// A probe is one look at what a mounted file system does: what is seen is said
// in lines that do not depend on the mount point, or on when they are written.
type probe struct {
	t    testing.TB
	dir  string // an empty folder of its own
	path string // of the file system's root
	out  []string
}

// probes are run on a kernel mount and on one of ours. Their lines have to
// agree, but for those of unlike.
var probes = map[string]func(p *probe){}

const noLimit = "the kernel knows no largest size of FUSE files"

// unlike are the lines that may differ, by how they begin: what FUSE does not
// let a server do, or see.
var unlike = []struct{ probe, line, why string }{
	{"settimes", "  mtime out of range", "the kernel keeps mtime of a FUSE file as it was set, while it knows the file; what the server stores is cut"},
	{"times", "truncate by path to the same size", "the kernel keeps mtime and ctime of a FUSE file, and changes them when the size does"},
	{"times", "setxattr to the same", "the kernel keeps ctime of a FUSE file, and changes it"},
	{"seek", "  seek 9223372036854775807", noLimit},
	{"copy", "far out", noLimit},
	{"limits", "write at", noLimit},
	{"limits", "  fsync", noLimit + "; it is told by fsync"},
	{"fallocate", "mode 0x80", "the kernel knows fewer modes of FUSE files, and looks at them first"},
	{"fallocate", "mode 0x40", "as mode 0x80"},
	{"fallocate", "collapse", "as mode 0x80"},
	{"fallocate", "insert", "as mode 0x80"},
	{"times", "flags", "the kernel keeps ctime of a FUSE file"},
	{"flags", "  rmdir: ", "the kernel does not know the flags of a FUSE inode, and looks at its type first"},
	{"flags", "  unlink: ", "as rmdir"},
	{"flags", "  open", "as rmdir: but what is written is refused"},
	{"times", "copy_file_range", "reading what the kernel has cached of a FUSE file changes no atime"},
}

func (p *probe) logf(format string, args ...any) {
	p.out = append(p.out, fmt.Sprintf(format, args...))
}

// errName returns the name of an errno, "ok" for nil.
func errName(err error) string {
	var e syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &e):
		return unix.ErrnoName(e)
	}
	return err.Error()
}

// try says how an operation ended.
func (p *probe) try(err error, format string, args ...any) bool {
	p.logf("%s: %s", fmt.Sprintf(format, args...), errName(err))
	return err == nil
}

// must ends the probe if what it needs does not work.
func (p *probe) must(err error) {
	if err != nil {
		p.t.Helper()
		p.t.Fatal(err)
	}
}

// at returns the path of a name in the probe's folder.
func (p *probe) at(name string) string { return filepath.Join(p.dir, name) }

// file makes a file of n bytes that are not zero.
func (p *probe) file(name string, n int) string {
	p.t.Helper()
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i%251 + 1)
	}
	p.must(os.WriteFile(p.at(name), data, 0o644))
	return p.at(name)
}

// fd opens a file for reading and writing until the probe ends.
func (p *probe) fd(name string, flags int) int {
	p.t.Helper()
	fd, err := unix.Open(p.at(name), unix.O_RDWR|unix.O_CLOEXEC|flags, 0o644)
	p.must(err)
	p.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// mkdir makes a folder.
func (p *probe) mkdir(name string) string {
	p.t.Helper()
	p.must(os.Mkdir(p.at(name), 0o755))
	return p.at(name)
}

func (p *probe) lstat(name string) (st unix.Stat_t) {
	p.t.Helper()
	p.must(unix.Lstat(p.at(name), &st))
	return st
}

// show says what stat says of a name, but for times and numbers.
func (p *probe) show(name string) {
	var st unix.Stat_t
	if err := unix.Lstat(p.at(name), &st); err != nil {
		p.logf("  %s: %s", name, errName(err))
		return
	}
	size := st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size = 0
	}
	p.logf("  %s: mode %o links %d owner %d:%d size %d rdev %d", name, st.Mode, st.Nlink, st.Uid, st.Gid, size, st.Rdev)
}

// as runs f as a user without privilege, on a thread that ends with it.
func (p *probe) as(uid, gid int, groups []int, f func()) {
	p.t.Helper()
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() { done <- err }()
		runtime.LockOSThread() // for good: the thread is not used again
		gs := make([]uint32, len(groups)+1)
		for i, g := range groups {
			gs[i] = uint32(g)
		}
		set := func(nr, a, b, c uintptr) {
			if _, _, e := unix.RawSyscall(nr, a, b, c); e != 0 && err == nil {
				err = e
			}
		}
		set(unix.SYS_SETGROUPS, uintptr(len(groups)), ptr(&gs[0]), 0)
		set(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid))
		set(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
		if err == nil {
			f()
		}
	}()
	p.must(<-done)
}

// tick waits until a time stamp is sure to be another one.
func tick() { time.Sleep(12 * time.Millisecond) }

// TestVFS runs the probes on the kernel's ext4 and on our mount, on images of
// the same recipe.
func TestVFS(t *testing.T) {
	testfs.NeedRoot(t)
	old := unix.Umask(0o022)
	defer unix.Umask(old)
	spec := testfs.Spec{Name: "vfs", Size: 96 << 20}
	if err := testfs.Supported(t, spec); err != nil {
		testfs.Missing(t, "%v", err)
	}
	kernel := testfs.KernelMount(t, testfs.Mke2fs(t, spec), "")
	ours := mount(t, testfs.Mke2fs(t, spec), "")
	for _, m := range []*testfs.Mount{kernel, ours} { // users have to get there
		if err := os.Chmod(filepath.Dir(m.Dir), 0o711); err != nil {
			t.Fatal(err)
		}
	}
	for name, f := range probes {
		t.Run(name, func(t *testing.T) {
			run := func(root string) []string {
				p := &probe{t: t, dir: filepath.Join(root, name), path: root}
				p.mkdir("")
				f(p)
				return p.out
			}
			want := run(kernel.Dir)
			got := run(ours.Dir)
			compareLines(t, name, want, got)
		})
	}
}

func compareLines(t *testing.T, probe string, want, got []string) {
	t.Helper()
	bad := 0
next:
	for i := range max(len(want), len(got)) {
		w, g := "nothing", "nothing"
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w == g {
			continue
		}
		for _, u := range unlike {
			if u.probe == probe && strings.HasPrefix(w, u.line) && strings.HasPrefix(g, u.line) {
				continue next
			}
		}
		if bad++; bad <= 20 {
			context := ""
			for k := i - 1; k >= 0; k-- { // the line that heads the paragraph
				if want[min(k, len(want)-1)] != "" && !strings.HasPrefix(want[min(k, len(want)-1)], " ") {
					context = want[min(k, len(want)-1)]
					break
				}
			}
			t.Errorf("after %q\nthe kernel: %s\nour mount:  %s", context, w, g)
		}
	}
	if bad > 20 {
		t.Errorf("%d differences", bad)
	}
	if len(want) < 3 {
		t.Errorf("only %d lines", len(want))
	}
}

func statTime(sec int64) time.Time { return time.Unix(sec, 0) }
