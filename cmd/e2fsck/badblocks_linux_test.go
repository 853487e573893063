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

// TestBadList adds and sets lists of bad blocks, some in use by a file, by a
// bitmap and by a table, as the C tool does: the exit status, the list and the
// content of files are the same.
func TestBadList(t *testing.T) {
	dir := testfs.Scratch(t)
	data := bytes.Repeat([]byte("kept through bad blocks "), 4000)
	src := filepath.Join(dir, "src")
	if err := os.WriteFile(src, data, 0o600); err != nil {
		t.Fatal(err)
	}
	ours := image(t, "write "+src+" file")
	lines := strings.Split(strings.TrimSpace(testfs.Run(t, "debugfs", "-R", "blocks file", ours)), "\n")
	blocks := strings.Fields(lines[len(lines)-1]) // the first line is the version
	theirs := ours + ".c"
	if err := os.WriteFile(theirs, read(t, ours), 0o600); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "list")
	var many []string
	for i := range 600 { // more than fit without an indirect block, and two
		many = append(many, fmt.Sprint(11000+2*i))
	}
	for i, c := range []struct {
		opt  string
		list []string
	}{
		{"-l", []string{"9000", blocks[1], blocks[40], "# a comment", "9001"}},
		{"-l", []string{"9002"}},
		{"-L", many},
		{"-L", []string{"9100", "999999"}},
		{"-L", nil},
	} {
		if err := os.WriteFile(list, []byte(strings.Join(c.list, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(strings.Join(c.list, "\n"), "# a comment\n", "") // which the C tool takes for a number
		if err := os.WriteFile(list+".c", []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		want, cOut := cStatus(t, "-fy", c.opt, list+".c", theirs)
		got, out := e2fsck("", "-fy", c.opt, list, ours)
		if got != want {
			t.Errorf("%d: status %d, of the C tool %d\n%s\nC: %s", i, got, want, out, cOut)
		}
		if a, b := testfs.Run(t, "dumpe2fs", "-b", theirs), testfs.Run(t, "dumpe2fs", "-b", ours); a != b {
			t.Errorf("%d: the C tool lists %q, ours %q", i, a, b)
		}
		testfs.Run(t, "e2fsck", "-fn", ours)
		if status, out := e2fsck("", "-fn", ours); status != 0 {
			t.Errorf("%d: afterwards: status %d: %s", i, status, out)
		}
		testfs.Run(t, "debugfs", "-R", "dump file "+src+".got", ours)
		if !bytes.Equal(read(t, src+".got"), data) {
			t.Errorf("%d: the file has other content", i)
		}
	}
}

// TestScan finds no bad blocks in an image, and changes nothing that is in it.
func TestScan(t *testing.T) {
	path := image(t)
	testfs.Run(t, "e2fsck", "-fy", "-l", listOf(t, "9000"), path)
	for _, c := range []struct{ opts, bad string }{{"-fyck", "9000"}, {"-fycck", "9000"}, {"-fycc", ""}} {
		if status, out := e2fsck("", c.opts, path); status > 1 || !strings.Contains(out, "0 bad blocks found") {
			t.Errorf("%s: status %d: %s", c.opts, status, out)
		}
		if s := strings.Join(strings.Split(testfs.Run(t, "dumpe2fs", "-b", path), "\n")[1:], ""); s != c.bad {
			t.Errorf("%s: listed is %q, not %q", c.opts, s, c.bad)
		}
		testfs.Run(t, "e2fsck", "-fn", path)
	}
	for _, args := range [][]string{{"-nc", path}, {"-n", "-l", listOf(t, "9000"), path}, {"-fy", "-l", listOf(t, "nonsense"), path}, {"-fy", "-l", "/nonexistent", path}} {
		if status, out := e2fsck("", args...); status != 8 {
			t.Errorf("%v: status %d: %s", args, status, out)
		}
	}
	if status, _ := e2fsck("", "-cy", "-l", listOf(t, "9000"), path); status != 16 {
		t.Errorf("-c and -l: status %d", status)
	}
}

func listOf(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(testfs.Scratch(t), "list")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
