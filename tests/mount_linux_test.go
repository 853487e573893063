// Package tests runs the tools as people do: bin/fuse2fs on images, its mounts
// compared with those of the kernel. E2KIT_FUSE2FS names another server to run,
// such as C fuse2fs, to see what the tests ask of it, and E2KIT_MOUNT_OPTS more
// options for its mounts.
package tests

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
)

// server returns the program under test.
func server(t testing.TB) string {
	t.Helper()
	p := os.Getenv("E2KIT_FUSE2FS")
	if p == "" {
		p = "../bin/fuse2fs"
	}
	p, err := filepath.Abs(p)
	if err == nil {
		_, err = os.Stat(p)
	}
	if err != nil {
		t.Skip("no bin/fuse2fs: run make all")
	}
	testfs.NeedRoot(t)
	if _, err := os.Stat("/dev/fuse"); err != nil {
		testfs.Missing(t, "no /dev/fuse")
	}
	return p
}

// command returns the command line that mounts img, but for the mount point.
func command(t testing.TB, img *testfs.Image, opts string) []string {
	if img.Journal != "" {
		opts += ",journal_path=" + img.Journal
	}
	opts += "," + os.Getenv("E2KIT_MOUNT_OPTS")
	argv := []string{server(t), "-f"}
	if opts = strings.Trim(strings.ReplaceAll(opts, ",,", ","), ","); opts != "" {
		argv = append(argv, "-o", opts)
	}
	return append(argv, img.Path)
}

// mount mounts img by the server under test.
func mount(t testing.TB, img *testfs.Image, opts string) *testfs.Mount {
	t.Helper()
	return testfs.FuseMount(t, command(t, img, opts)...)
}

// snapshot mounts img, reads the tree and unmounts.
func snapshot(t testing.TB, m *testfs.Mount) testfs.Tree {
	t.Helper()
	tree := testfs.MustSnapshot(t, m.Dir)
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	return tree
}

// peer mounts img read-only by the kernel, or by C fuse2fs where the kernel
// cannot, and returns the tree and what C fuse2fs is known to tell otherwise.
func peer(t testing.TB, img *testfs.Image) (testfs.Tree, testfs.Aspect) {
	t.Helper()
	if testfs.Supported(t, img.Spec) == nil {
		return snapshot(t, testfs.KernelMount(t, img, "ro")), testfs.Layout
	}
	return snapshot(t, testfs.CFuseMount(t, img, "ro")),
		testfs.Layout | testfs.Ino | testfs.Blocks | testfs.Times | testfs.Nlink
}

func sum(t testing.TB, img *testfs.Image) string {
	t.Helper()
	h := sha256.New()
	for _, p := range []string{img.Path, img.Journal} {
		if p == "" {
			continue
		}
		f, err := os.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		// An image that grew is another one: its size is part of the sum, and
		// no more is read than there was.
		st, err := f.Stat()
		if err == nil {
			fmt.Fprintln(h, st.Size())
			_, err = io.Copy(h, io.LimitReader(f, 2<<30))
		}
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestMatrixWrite has our mount write each image of the matrix: what it shows,
// what it shows when mounted again, and what the kernel shows, is what the load
// expects, and C e2fsck finds nothing.
func TestMatrixWrite(t *testing.T) {
	server(t)
	for i, s := range testfs.Matrix() {
		t.Run(s.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, s)
			opts := ""
			if strings.Contains(s.Mount, "data=") {
				opts = s.Mount
			}
			m := mount(t, img, opts)
			want, err := testfs.Workload(m.Dir, uint64(i), 1)
			if err != nil {
				t.Fatal(err)
			}
			testfs.Same(t, "our mount", want, testfs.MustSnapshot(t, m.Dir), testfs.Content&^testfs.Mtime)
			if err := m.Unmount(); err != nil {
				t.Fatal(err)
			}
			ours := snapshot(t, mount(t, img, "ro"))
			testfs.Same(t, "our second mount", want, ours, testfs.Content&^testfs.Mtime)
			theirs, skip := peer(t, img)
			testfs.Same(t, "the kernel and our mount", theirs, ours, skip)
		})
	}
}

// TestMatrixRead has the kernel write each image: our read-only mount shows the
// same, inode numbers, times and blocks included, and leaves the image alone.
func TestMatrixRead(t *testing.T) {
	server(t)
	for i, s := range testfs.Matrix() {
		t.Run(s.Name, func(t *testing.T) {
			if testfs.Supported(t, s) != nil {
				// Its blocks are too large for the kernel: mke2fs writes it.
				dir := testfs.Scratch(t)
				want := populate(t, dir)
				s.Dir = dir
				readOnly(t, testfs.Mke2fs(t, s), want, testfs.Content&^testfs.Mtime)
				return
			}
			img := testfs.Mke2fs(t, s)
			img.ExpectDirty(s.KernelBug)
			m := testfs.KernelMount(t, img, "")
			if _, err := testfs.Workload(m.Dir, uint64(i), 1); err != nil && s.KernelLoses == "" {
				t.Fatal(err)
			}
			if err := m.Unmount(); err != nil {
				t.Fatal(err)
			}
			theirs, skip := peer(t, img)
			readOnly(t, img, theirs, skip)
			rw := snapshot(t, mount(t, img, ""))
			testfs.Same(t, "the kernel and our writable mount", theirs, rw, skip|testfs.Atime) // that of symlinks changes
		})
	}
}

// readOnly wants our read-only mount to show the tree and to leave the image
// alone.
func readOnly(t *testing.T, img *testfs.Image, want testfs.Tree, skip testfs.Aspect) {
	t.Helper()
	before := sum(t, img)
	testfs.Same(t, "our mount", want, snapshot(t, mount(t, img, "ro")), skip)
	if sum(t, img) != before {
		t.Error("the image changed")
	}
}

// populate fills dir with what mke2fs -d can copy, and returns the tree of the
// image.
func populate(t *testing.T, dir string) testfs.Tree {
	t.Helper()
	if _, err := testfs.BigDir(dir, 3000); err != nil {
		t.Fatal(err)
	}
	for i, size := range []int{0, 1, 60, 4096, 65536, 65537, 3 << 20} {
		p := filepath.Join(dir, fmt.Sprintf("file%d", i))
		if err := os.WriteFile(p, bytes.Repeat([]byte("contents"), size/8+1)[:size], 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(p, int64(size+i*100000)); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(p, p+"-hard"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(strings.Repeat("t", 1+i*40), p+"-soft"); err != nil {
			t.Fatal(err)
		}
		// Whole seconds, which inodes of 128 bytes keep.
		if err := os.Chtimes(p, time.Unix(1500000000, 0), time.Unix(1500000000+int64(i), 0)); err != nil {
			t.Fatal(err)
		}
	}
	tree := testfs.MustSnapshot(t, dir)
	tree["lost+found"] = &testfs.Node{Mode: 0o40700, Nlink: 2, Mtime: testfs.Unknown, Link: "lost+found"}
	tree["."].Mode, tree["."].Nlink, tree["."].Mtime = 0o40755, tree["."].Nlink+1, testfs.Unknown
	for _, n := range tree {
		if n.Mtime%1e9 != 0 {
			n.Mtime = testfs.Unknown
		}
	}
	return tree
}

// TestBigDir makes a folder of 100,000 names by us and by the kernel.
func TestBigDir(t *testing.T) {
	server(t)
	for _, s := range []testfs.Spec{
		{Name: "4k", Size: 256 << 20, Inodes: 120000},
		{Name: "1k", BlockSize: 1024, Size: 256 << 20, Inodes: 120000, Features: "large_dir"},
	} {
		t.Run(s.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, s)
			m := mount(t, img, "")
			want, err := testfs.BigDir(m.Dir, 100000)
			if err != nil {
				t.Fatal(err)
			}
			testfs.Same(t, "our mount", want, snapshot(t, m), testfs.Content)
			theirs, skip := peer(t, img)
			testfs.Same(t, "the kernel and the model", want, theirs, testfs.Content)
			testfs.Same(t, "the kernel and our second mount", theirs, snapshot(t, mount(t, img, "ro")), skip)
		})
	}
}

// parallelLoad runs loads in folders of root at the same time, and returns what
// compares a folder with what they left.
func parallelLoad(t *testing.T, root string) (check func(what, dir string)) {
	t.Helper()
	want := make([]testfs.Tree, 4)
	var wg sync.WaitGroup
	for i := range want {
		dir := filepath.Join(root, fmt.Sprintf("load%d", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			var err error
			if want[i], err = testfs.Workload(dir, uint64(i), 2); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return func(what, dir string) {
		t.Helper()
		for i := range want {
			got := testfs.MustSnapshot(t, filepath.Join(dir, fmt.Sprintf("load%d", i)))
			testfs.Same(t, what, want[i], got, testfs.Content&^testfs.Mtime)
		}
	}
}

// TestParallel runs loads in folders of one mount at the same time.
func TestParallel(t *testing.T) {
	server(t)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "parallel", Size: 512 << 20})
	m := mount(t, img, "")
	check := parallelLoad(t, m.Dir)
	check("our mount", m.Dir)
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	k := testfs.KernelMount(t, img, "ro")
	check("the kernel", k.Dir)
}

// TestDaemon mounts without -f: the command returns when the mount is there,
// and an unmount when the image is clean.
func TestDaemon(t *testing.T) {
	bin := server(t)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "daemon"})
	dir := filepath.Join(testfs.Scratch(t), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{img.Path, dir}
	if o := os.Getenv("E2KIT_MOUNT_OPTS"); o != "" {
		args = append(args, "-o", o)
	}
	for i := range 5 {
		if out, err := exec.Command(bin, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%d", i)), make([]byte, 100000), 0o644)
		if out, uerr := exec.Command(testfs.Tool(t, "umount"), dir).CombinedOutput(); uerr != nil {
			t.Fatalf("umount: %v\n%s", uerr, out)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := img.Check(t); err != nil {
			t.Fatalf("right after umount returned: %v", err)
		}
	}
}
