package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// sharing makes an image in which two files share blocks, as the feature
// shared_blocks allows, and returns what the files hold.
func sharing(t *testing.T, size string) (path string, data []byte) {
	t.Helper()
	dir := testfs.Scratch(t)
	path, src := filepath.Join(dir, "image"), filepath.Join(dir, "src")
	for i := range 12 * 1024 {
		data = append(data, byte(i*i>>3))
	}
	if err := os.WriteFile(src, data, 0o600); err != nil {
		t.Fatal(err)
	}
	testfs.Run(t, "mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024", "-O", "^resize_inode", path, size)
	for _, c := range []string{"write " + src + " a", "write " + src + " b"} {
		testfs.Run(t, "debugfs", "-w", "-R", c, path)
	}
	lines := strings.Split(strings.TrimSpace(testfs.Run(t, "debugfs", "-R", "blocks a", path)), "\n")
	for i, b := range strings.Fields(lines[len(lines)-1]) {
		testfs.Run(t, "debugfs", "-w", "-R", fmt.Sprintf("sif b block[%d] %s", i, b), path)
	}
	testfs.Run(t, "debugfs", "-w", "-R", "feature shared_blocks", path)
	if status, out := cStatus(t, "-fy", path); status > 1 {
		t.Fatalf("C e2fsck: status %d: %s", status, out)
	}
	return path, data
}

// TestSharedBlocks: files may share blocks where the feature says so, and get
// their own if that is asked for. Without space, no file is given up.
func TestSharedBlocks(t *testing.T) {
	path, data := sharing(t, "2M")
	for _, args := range [][]string{{"-fn"}, {"-fy"}, {"-fn", "-E", "unshare_blocks"}, {"-y", "-E", "unshare_blocks"}, {"-fn"}} {
		theirs := filepath.Join(testfs.Scratch(t), "image")
		if err := os.WriteFile(theirs, read(t, path), 0o600); err != nil {
			t.Fatal(err)
		}
		want, cOut := cStatus(t, append(args, theirs)...)
		if got, out := e2fsck("", append(args, path)...); got != want {
			t.Errorf("%v: status %d, of the C tool %d\n%s\nC: %s", args, got, want, out, cOut)
		}
		testfs.Run(t, "e2fsck", "-fn", path)
	}
	if s := testfs.Run(t, "dumpe2fs", "-h", path); strings.Contains(s, "shared_blocks") {
		t.Errorf("the feature is still there: %s", s)
	}
	blocks := map[string]bool{}
	for _, name := range []string{"a", "b"} {
		lines := strings.Split(strings.TrimSpace(testfs.Run(t, "debugfs", "-R", "blocks "+name, path)), "\n")
		for _, b := range strings.Fields(lines[len(lines)-1]) {
			if blocks[b] {
				t.Errorf("block %s is shared", b)
			}
			blocks[b] = true
		}
		testfs.Run(t, "debugfs", "-R", "dump "+name+" "+path+".got", path)
		if !bytes.Equal(read(t, path+".got"), data) {
			t.Errorf("%s has other content", name)
		}
	}

	path, _ = sharing(t, "2M")
	filler := path + ".filler"
	if err := os.WriteFile(filler, bytes.Repeat([]byte("f"), 1935<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	testfs.Run(t, "debugfs", "-w", "-R", "write "+filler+" filler", path) // some blocks are left
	before := read(t, path)
	for _, mode := range []string{"-fn", "-fy"} {
		if status, out := e2fsck("", mode, "-E", "unshare_blocks", path); status&8 == 0 || !strings.Contains(out, "no space") {
			t.Errorf("%s without space: status %d: %s", mode, status, out)
		}
		if mode == "-fn" && !bytes.Equal(before, read(t, path)) {
			t.Error("-fn has written")
		}
	}
	testfs.Run(t, "e2fsck", "-fn", path)
}

// TestFragcheck prints the lines of the C tool.
func TestFragcheck(t *testing.T) {
	for _, kind := range []string{"ext2", "ext4"} {
		dir := testfs.Scratch(t)
		path, src := filepath.Join(dir, "image"), filepath.Join(dir, "src")
		testfs.Run(t, "mke2fs", "-q", "-F", "-t", kind, "-b", "1024", "-O", "^resize_inode", path, "8M")
		for i, n := range []int{3, 5, 40, 90} {
			if err := os.WriteFile(src, bytes.Repeat([]byte("x"), n*1024), 0o600); err != nil {
				t.Fatal(err)
			}
			testfs.Run(t, "debugfs", "-w", "-R", fmt.Sprintf("write %s f%d", src, i), path)
			if i > 0 {
				testfs.Run(t, "debugfs", "-w", "-R", fmt.Sprintf("rm f%d", i-1), path)
			}
		}
		pick := func(out string) (lines []string) {
			for _, l := range strings.Split(out, "\n") {
				if strings.Contains(l, "expecting") {
					lines = append(lines, l)
				}
			}
			return lines
		}
		_, cOut := cStatus(t, "-fn", "-E", "fragcheck", path)
		status, out := e2fsck("", "-fn", "-E", "fragcheck", path)
		if a, b := fmt.Sprint(pick(cOut)), fmt.Sprint(pick(out)); status != 0 || a != b || a == "[]" {
			t.Errorf("%s: status %d: the C tool prints %s\nours %s", kind, status, a, b)
		}
	}
}

// TestFlush: -F checks what the device holds, whatever was cached.
func TestFlush(t *testing.T) {
	path := image(t)
	if status, out := e2fsck("", "-fnF", path); status != 0 {
		t.Errorf("status %d: %s", status, out)
	}
}
