package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestMatrixMount mounts what we make of each case by our fuse2fs and by the
// kernel. Ours mounts all of them, and writes to all but those with features
// that it only reads; the kernel mounts what it mounts of C's. What they wrote
// is there when it is mounted again, and e2fsck finds nothing.
func TestMatrixMount(t *testing.T) {
	testfs.NeedRoot(t)
	bin := func(name string) string {
		p, err := filepath.Abs("../../bin/" + name)
		if err == nil {
			_, err = os.Stat(p)
		}
		if err != nil {
			t.Skipf("no bin/%s: run make all", name)
		}
		return p
	}
	// Ours is a process of its own: the lock that this one had on an image would
	// stay for as long as another case is about to start a program.
	fuse, ours := bin("fuse2fs"), bin("mke2fs")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		testfs.Missing(t, "no /dev/fuse")
	}
	all := append(append([]string{}, cases...), pairwise(60)...)
	if testing.Short() {
		all = all[:30]
	}
	environment(t)
	var mu sync.Mutex
	count := map[string]int{}
	t.Cleanup(func() { t.Logf("of %d cases: %v", len(all), count) })
	for _, words := range all {
		if strings.Contains(words, "journal_dev") {
			continue // there is nothing to mount in a journal
		}
		t.Run(strings.ReplaceAll(words, "/", "_"), func(t *testing.T) {
			t.Parallel() // most of it is waiting for mounts to end
			c := parseCase(strings.Fields(words))
			how := mountCase(t, &c, ours, func(img *testfs.Image, opts string) (*testfs.Mount, error) {
				return testfs.FuseMount(t, fuse, "-f", "-o", strings.Trim("allow_other,"+opts, ","), img.Path), nil
			})
			if ro := only(t, &c, ours); ro != (how == "read-only") {
				t.Errorf("our fuse2fs mounted it %s; are there features that make it read-only: %v", how, ro)
			}
			first := "fuse2fs " + how
			how = mountCase(t, &c, ours, func(img *testfs.Image, opts string) (*testfs.Mount, error) {
				return testfs.TryKernelMount(t, img, opts)
			})
			if strings.HasPrefix(how, "not") {
				theirs := mountCase(t, &c, testfs.Tool(t, "mke2fs"), func(img *testfs.Image, opts string) (*testfs.Mount, error) {
					return testfs.TryKernelMount(t, img, opts)
				})
				if theirs != how {
					t.Errorf("the kernel mounts C's %s, ours %s", theirs, how)
				}
				t.Logf("the kernel: %s", how)
				how = "not, nor C's"
			}
			mu.Lock()
			count[first]++
			count["kernel "+how]++
			mu.Unlock()
		})
	}
}

// made makes the case by a tool, in an image that begins with it.
func made(t *testing.T, c *formatCase, tool string) *testfs.Image {
	t.Helper()
	path := filepath.Join(testfs.Scratch(t), "image")
	c.device(t, path)
	testfs.Run(t, tool, c.line(path)...)
	if c.offset != 0 {
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, b[c.offset:], 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	img := testfs.Adopt(t, path)
	if large(c.size) {
		img.ExpectDirty("it is so large that e2fsck takes minutes")
	}
	return img
}

// mountCase makes the case and mounts it twice. It returns how that went:
// "writable", "read-only", or "not" and why.
func mountCase(t *testing.T, c *formatCase, tool string, mount func(*testfs.Image, string) (*testfs.Mount, error)) string {
	t.Helper()
	img := made(t, c, tool)
	m, err := mount(img, "")
	if err != nil {
		var no unix.Errno
		if errors.As(err, &no) {
			return "not: " + no.Error()
		}
		return "not: " + err.Error()
	}
	var st unix.Statfs_t
	if err := unix.Statfs(m.Dir, &st); err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	writable := st.Flags&unix.ST_RDONLY == 0
	wrote := false
	if writable {
		err := os.WriteFile(filepath.Join(m.Dir, "file"), data, 0o640)
		if wrote = err == nil; err == nil {
			err = os.MkdirAll(filepath.Join(m.Dir, "a", "b", "c"), 0o755)
		}
		// Some have hardly a block or an inode to give.
		if err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("writing: %v", err)
		}
	}
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	if m, err = mount(img, "ro"); err != nil {
		t.Fatalf("mounted again: %v", err)
	}
	names, err := os.ReadDir(m.Dir)
	if err != nil || len(names) == 0 {
		t.Errorf("mounted again it has %v: %v", names, err)
	}
	if wrote {
		if got, err := os.ReadFile(filepath.Join(m.Dir, "file")); err != nil || !bytes.Equal(got, data) {
			t.Errorf("what was written is not there: %d bytes, %v", len(got), err)
		}
	}
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	if writable {
		return "writable"
	}
	return "read-only"
}

// only says whether the case has features that our fuse2fs does not write with.
func only(t *testing.T, c *formatCase, tool string) bool {
	t.Helper()
	out, err := exec.Command(testfs.Tool(t, "dumpe2fs"), "-h", made(t, c, tool).Path).Output()
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(out), "Filesystem features:")
	line, _, _ = strings.Cut(line, "\n")
	for _, f := range strings.Fields(line) {
		switch f {
		case "quota", "casefold", "encrypt", "verity", "mmp":
			return true
		}
	}
	return false
}
