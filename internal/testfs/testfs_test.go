//go:build linux

package testfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMatrix makes every image of the matrix, and has the kernel mount those
// that it can: at least 40, or the matrix shows too little.
func TestMatrix(t *testing.T) {
	NeedRoot(t)
	names := map[string]bool{}
	mounted := 0
	for _, s := range Matrix() {
		if names[s.Name] {
			t.Errorf("two recipes are named %s", s.Name)
		}
		names[s.Name] = true
		t.Run(s.Name, func(t *testing.T) {
			if err := Supported(t, s); err != nil {
				if strings.Contains(err.Error(), "mke2fs") {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			mounted++
		})
	}
	if mounted < 40 {
		t.Errorf("the kernel mounts %d of %d images, want 40", mounted, len(names))
	}
}

// TestMke2fsRepeats makes an image twice and wants the same bytes.
func TestMke2fsRepeats(t *testing.T) {
	a, b := Mke2fs(t, Spec{Size: 8 << 20}), Mke2fs(t, Spec{Size: 8 << 20})
	x, err := os.ReadFile(a.Path)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b.Path)
	if err != nil {
		t.Fatal(err)
	}
	if string(x) != string(y) {
		t.Error("the same recipe gave other bytes")
	}
}

// TestDiff changes one thing at a time and wants to hear of that alone.
func TestDiff(t *testing.T) {
	dir := Scratch(t)
	for _, d := range []string{"a", "a/b"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "a/b/file")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(file, []byte("first"), 0o644))
	must(os.Symlink("file", filepath.Join(dir, "a/b/link")))
	before := MustSnapshot(t, dir)
	if d := Diff(before, MustSnapshot(t, dir), Atime); len(d) != 0 {
		t.Errorf("nothing changed: %q", d)
	}
	for _, c := range []struct {
		change, back func() error
		want         string
	}{
		{func() error { return os.Chmod(file, 0o600) }, func() error { return os.Chmod(file, 0o644) }, "a/b/file: mode is 0100600, expected 0100644"},
		{func() error { return os.WriteFile(file, []byte("other"), 0) }, func() error { return os.WriteFile(file, []byte("first"), 0) }, "a/b/file: content hash"},
		{func() error { return os.Link(file, dir+"/z") }, func() error { return os.Remove(dir + "/z") }, "a/b/file: link count is 2, expected 1"},
		{func() error { return os.Remove(dir + "/a/b/link") }, func() error { return os.Symlink("file", dir+"/a/b/link") }, "a/b/link: missing: symbolic link"},
	} {
		must(c.change())
		d := Diff(before, MustSnapshot(t, dir), Content)
		if len(d) == 0 || !strings.Contains(d[0], c.want) || len(d) > 2 {
			t.Errorf("got %q, want %q", d, c.want)
		}
		must(c.back())
	}
	if d := Diff(before, MustSnapshot(t, dir), Content); len(d) != 0 {
		t.Errorf("all was changed back: %q", d)
	}
}

// TestCFuseMount reads the image of a populated folder by the kernel and by C
// fuse2fs, and wants the same tree.
func TestCFuseMount(t *testing.T) {
	NeedRoot(t)
	dir := Scratch(t)
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("contents"), 0o640); err != nil {
		t.Fatal(err)
	}
	img := Mke2fs(t, Spec{Dir: dir})
	k := KernelMount(t, img, "ro")
	want := MustSnapshot(t, k.Dir)
	if err := k.Unmount(); err != nil {
		t.Fatal(err)
	}
	if want["file"] == nil || want["file"].Size != 8 {
		t.Fatalf("the kernel does not see the file")
	}
	c := CFuseMount(t, img, "ro")
	Same(t, "C fuse2fs", want, MustSnapshot(t, c.Dir), Ino|Blocks|Times|Holes)
}
