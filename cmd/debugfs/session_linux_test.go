package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
)

// script runs commands, a line each, and returns what they print, without the
// lines themselves.
func script(t *testing.T, stdin, text string, args ...string) (status int, out, errs string) {
	t.Helper()
	file := filepath.Join(testfs.Scratch(t), "script")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var o, e bytes.Buffer
	status = run(append([]string{"debugfs", "-f", file}, args...), strings.NewReader(stdin), &o, &e)
	for _, l := range strings.SplitAfter(o.String(), "\n") {
		if !strings.HasPrefix(l, "debugfs: ") {
			out += l
		}
	}
	return status, out, e.String()
}

// TestSession opens, moves around, and closes.
func TestSession(t *testing.T) {
	t.Chdir(".") // lcd goes elsewhere
	src := testfs.Scratch(t)
	testfs.Run(t, "sh", "-c", `mkdir -p "$1/a/b" && echo one >"$1/a/b/f" && echo two >"$1/f" && ln -s /f "$1/a/abs" && ln -s ../f "$1/a/rel" && ln -s loop "$1/loop"`, "sh", src)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "tree", Size: 8 << 20, Dir: src})
	status, out, errs := script(t, "", "# a comment\nopen "+img.Path+"\ncd a/b\npwd\ncat f\ncat ../../f\nchroot /a\ncat /b/f\ncat /b/../b/f\ncd /\npwd\nclose\nparams\n")
	if status != 0 || !strings.Contains(out, "one\ntwo\none\none\n") || !strings.Contains(out, "PATH: /a/b\n[root]  INODE:      2  PATH: /\n") ||
		!strings.Contains(out, "PATH: /a\n") || !strings.HasSuffix(out, "--none--\n") {
		t.Errorf("%d: %s%s", status, out, errs)
	}
	for _, c := range []struct{ req, want string }{
		{"stat loop/x", "too many levels of symbolic links"}, {"cd f", "not a directory"}, {"cat a/none/x", "no such file"},
		{"stat a/rel/x", "not a directory"}, {"open x", "is open: close it first"}, {"lcd /nowhere", "no such file"},
	} {
		if status, _, errs := debugfs("-R", c.req, img.Path); status != 1 || !strings.Contains(errs, c.want) {
			t.Errorf("%s: %d: %s", c.req, status, errs)
		}
	}
	// A directory symbolic link leads on; the last component stays.
	if _, out, _ := debugfs("-R", "stat a/abs", img.Path); !strings.Contains(out, `Fast link dest: "/f"`) {
		t.Error(out)
	}
	dir := testfs.Scratch(t)
	status, _, errs = script(t, "", "lcd "+dir+"\ndump f out\nlcd /\n", img.Path)
	if b, err := os.ReadFile(filepath.Join(dir, "out")); status != 0 || err != nil || string(b) != "two\n" {
		t.Errorf("%d: %s: %q, %v", status, errs, b, err)
	}
	// Without a script commands come from standard input, with a prompt.
	var o bytes.Buffer
	if status := run([]string{"debugfs", img.Path}, strings.NewReader("cat f\nquit\ncat f\n"), &o, &o); status != 0 || o.String() != "debugfs:  two\ndebugfs:  " {
		t.Errorf("%d: %q", status, o.String())
	}
}

// TestEdits is for what changes single fields and bytes.
func TestEdits(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "edit", Size: 16 << 20, BlockSize: 1024})
	img.ExpectDirty("it is edited")
	read := func(req string) string {
		t.Helper()
		status, out, errs := debugfs("-R", req, img.Path)
		if status != 0 {
			t.Fatalf("%s: %s", req, errs)
		}
		return out
	}
	edit := func(req string) {
		t.Helper()
		if status, _, errs := debugfs("-w", "-R", req, img.Path); status != 0 {
			t.Fatalf("%s: %s", req, errs)
		}
	}
	edit("zap -p 0xab 5000")
	edit("zap -p 0x11 -o 16 -l 16 5000")
	edit("zap -b 3 5000")
	if out := read("bd 5000"); !strings.HasPrefix(out, "0000  a3ab abab") || !strings.Contains(out, "\n0020  1111 1111 1111 1111 1111 1111 1111 1111  ") || !strings.Contains(out, "\n0040  abab") {
		t.Errorf("zap: %s", out)
	}
	status, _, errs := script(t, "", "set_current_time 20200102030405\nsif <11> mtime now\nclri <14>\n", "-w", img.Path)
	day := time.Date(2020, 1, 2, 3, 4, 5, 0, time.Local)
	if out := read("stat <11>"); status != 0 || !strings.Contains(out, fmt.Sprintf("mtime: 0x%08x:00000000 -- %s", day.Unix(), day.Format(time.ANSIC))) {
		t.Errorf("%s%s", errs, out)
	}
	answers := "0100600\n5\n" + strings.Repeat("\n", 24) + "\n\n\n"
	if status, _, errs := script(t, answers, "modify_inode <14>\n", "-w", img.Path); status != 0 {
		t.Fatal(errs)
	}
	if out := read("stat <14>"); !strings.Contains(out, "Type: regular    Mode:  0600") || !strings.Contains(out, "User:     5 ") {
		t.Error(out)
	}
	for _, c := range [][2]string{{"inode <11> checksum", "sif <11> checksum 5"}} {
		edit(c[1])
		status, out, errs := debugfs("-R", "stat <11>", img.Path)
		if status != 1 || !strings.Contains(errs, "checksum") || !strings.Contains(out, "directory") {
			t.Errorf("%s: %d: %s%s", c[0], status, out, errs)
		}
		if status, _, _ := debugfs("-n", "-R", "stat <11>", img.Path); status != 0 {
			t.Errorf("-n: %d", status)
		}
	}
	edit("sif <11> checksum calc")
	read("stat <11>")
	// Counts that do not fit the bitmaps keep nothing from being written.
	edit("setb 5000 2")
	edit("seti <300>")
	edit("mkdir afterwards")
	edit("ssv checksum 5")
	if status, _, errs := debugfs("-R", "params", img.Path); status != 1 || !strings.Contains(errs, "checksum 0x5") {
		t.Errorf("a wrong checksum of the superblock: %d: %s", status, errs)
	}
	if status, _, errs := debugfs("-w", "-n", "-R", "ssv checksum calc", img.Path); status != 0 {
		t.Error(errs)
	}
	read("params")
}

// TestBackups has close -a bring backups up to date.
func TestBackups(t *testing.T) {
	for _, s := range []testfs.Spec{{Name: "plain", BlockSize: 1024, Size: 40 << 20}, {Name: "meta_bg", BlockSize: 1024, Size: 40 << 20, Features: "meta_bg,^resize_inode"}} {
		img := testfs.Mke2fs(t, s)
		if status, _, errs := script(t, "", "ssv volume_name fresh\nmkdir d\nclose -a\n", "-w", img.Path); status != 0 {
			t.Fatal(errs)
		}
		out := testfs.Run(t, "dumpe2fs", "-h", "-o", "superblock=8193", "-o", "blocksize=1024", img.Path)
		if !strings.Contains(out, "Filesystem volume name:   fresh\n") {
			t.Errorf("%s: C dumpe2fs sees in the backup\n%s", s.Name, out)
		}
		if status, out, errs := debugfs("-b", "1024", "-s", "8193", "-R", "ls d", img.Path); status != 0 || !strings.Contains(out, "..") {
			t.Errorf("%s: %d: %s%s", s.Name, status, out, errs)
		}
	}
}

// TestUndo has C e2undo take everything back.
func TestUndo(t *testing.T) {
	e2undo := testfs.Tool(t, "e2undo")
	img := testfs.Mke2fs(t, testfs.Spec{Name: "undo", Size: 16 << 20})
	before, err := os.ReadFile(img.Path)
	if err != nil {
		t.Fatal(err)
	}
	undo := filepath.Join(testfs.Scratch(t), "undo")
	if status, _, errs := script(t, "", "mkdir d\nsif d mode 040700\nsetb 2000\nfreeb 2000\nwrite /proc/version v\n", "-w", "-z", undo, img.Path); status != 0 {
		t.Fatal(errs)
	}
	if out, err := exec.Command(e2undo, undo, img.Path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	after, err := os.ReadFile(img.Path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the image is not what it was: %v", err)
	}
	if status, _, errs := debugfs("-w", "-z", undo, "-R", "params", img.Path); status != 1 || !strings.Contains(errs, "undo file") {
		t.Errorf("over a file that is there: %d: %s", status, errs)
	}
}

// TestInitFilesys makes a file system, and has it used.
func TestInitFilesys(t *testing.T) {
	path := filepath.Join(testfs.Scratch(t), "image")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 8<<20); err != nil {
		t.Fatal(err)
	}
	testfs.Adopt(t, path)
	if status, out, errs := script(t, "", "init_filesys "+path+" 8000\nmkdir d\nls d\n"); status != 0 || !strings.Contains(out, "..") {
		t.Errorf("%d: %s%s", status, out, errs)
	}
}
