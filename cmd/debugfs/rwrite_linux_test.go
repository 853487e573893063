package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRwriteSwapped has the owner of what is copied in put links in the place of
// files that were looked at: nothing outside is read.
func TestRwriteSwapped(t *testing.T) {
	src, outside := t.TempDir(), t.TempDir()
	for _, d := range []string{src, outside} {
		if err := os.Mkdir(filepath.Join(d, "dir"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "file"), []byte(d), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(src)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, dir := range []*os.Root{root, nil} {
		name := func(n string) string {
			if dir == nil {
				return filepath.Join(src, n)
			}
			return n
		}
		st, err := place{dir: dir, name: name("file")}.lstat()
		if err != nil {
			t.Fatal(err)
		}
		f, err := place{dir: dir, name: name("file")}.open(st)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		for _, n := range []string{"file", "dir"} {
			if err := os.Rename(filepath.Join(src, n), filepath.Join(src, "old")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(outside, n), filepath.Join(src, n)); err != nil {
				t.Fatal(err)
			}
			if f, err := (place{dir: dir, name: name(n)}).open(st); err == nil {
				t.Errorf("%s was opened, a link by now", f.Name())
				f.Close()
			}
			if r, err := (place{dir: root, name: n}).openRoot(); err == nil {
				t.Errorf("%s was opened, a link by now", n)
				r.Close()
			}
			if err := os.Remove(filepath.Join(src, n)); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(src, "old"), filepath.Join(src, n)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
