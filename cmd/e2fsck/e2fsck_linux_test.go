package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// image makes an image and damages it by commands of debugfs.
func image(t *testing.T, commands ...string) string {
	t.Helper()
	path := filepath.Join(testfs.Scratch(t), "image")
	testfs.Run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-O", "none,has_journal,extent,metadata_csum,64bit,flex_bg,filetype,sparse_super,dir_index",
		"-b", "1024", path, "12M")
	for _, c := range commands {
		testfs.Run(t, "debugfs", "-w", "-R", c, path)
	}
	return path
}

func e2fsck(in string, args ...string) (status int, out string) {
	var o, e bytes.Buffer
	status = run(append([]string{"e2fsck"}, args...), strings.NewReader(in), &o, &e)
	return status, o.String()
}

func read(t *testing.T, path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// damage has two problems that preen repairs, and one that it does not.
var damage = []string{"set_super_value free_blocks_count 1", "set_inode_field lost+found links_count 7"}

func TestExitCodes(t *testing.T) {
	clean, bad := image(t), image(t, damage...)
	worse := image(t, "set_inode_field lost+found mode 0100644")
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{clean, 0, ": clean, 11/"},
		{"-fn " + clean, 0, "% non-contiguous), "},
		{"-f -y " + clean, 0, "% non-contiguous), "},
		{"-fn " + bad, 4, "WARNING: Filesystem still has errors"},
		{"-fp " + bad, 1, ""},
		{"-fp " + bad, 0, ""},
		{"-fp " + worse, 4, "UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY."},
		{"-fy " + worse, 1, "FILE SYSTEM WAS MODIFIED"},
		{"-fn " + worse, 0, ""},
		{"-n -y " + clean, 16, ""},
		{"-E nothing " + clean, 16, ""},
		{"", 16, ""},
		{"-V", 0, ""},
		{"-n /dev/null/none", 8, ""},
		{"-fn -b 8193 " + clean, 0, ""},
		{"-fn -m 1 " + clean, 0, ""},
		{"-m few " + clean, 16, ""},
	} {
		if status, out := e2fsck("", strings.Fields(c.args)...); status != c.status || !strings.Contains(out, c.want) {
			t.Errorf("e2fsck %s: status %d, want %d: %s", c.args, status, c.status, out)
		}
	}
}

// TestQuestions answers questions one by one, and all of a kind at once.
func TestQuestions(t *testing.T) {
	path := image(t, damage...)
	if status, out := e2fsck("n\nn\n", "-f", path); status != 4 || strings.Count(out, "? ") < 2 {
		t.Errorf("no to all: status %d: %s", status, out)
	}
	if status, _ := e2fsck("", "-fn", path); status != 4 {
		t.Errorf("after no to all: status %d", status)
	}
	if status, out := e2fsck("y\na\n", "-f", path); status != 1 {
		t.Errorf("yes to all: status %d: %s", status, out)
	}
	if status, out := e2fsck("", "-fn", path); status != 0 {
		t.Errorf("after yes to all: status %d: %s", status, out)
	}
}

// TestSummary compares what scripts parse with the C tool.
func TestSummary(t *testing.T) {
	path := image(t, "mkdir d", "symlink l target", "mknod p p", "write /etc/passwd f")
	for _, opt := range []string{"-fn", "-fnv"} {
		out, err := exec.Command(testfs.Tool(t, "e2fsck"), opt, path).Output()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, ours := e2fsck("", opt, path)
		if string(out) != ours {
			t.Errorf("%s: the C tool:\n%s\nours:\n%s", opt, out, ours)
		}
	}
}

// TestJSON reads the findings as data.
func TestJSON(t *testing.T) {
	path := image(t, damage...)
	status, out := e2fsck("", "-fn", "--json", path)
	codes := map[string]bool{}
	var end struct {
		ExitStatus *int `json:"exit_status"`
	}
	for s := bufio.NewScanner(strings.NewReader(out)); s.Scan(); {
		var f finding
		if err := json.Unmarshal(s.Bytes(), &f); err != nil {
			t.Fatalf("%v: %s", err, s.Text())
		}
		codes[f.Code] = true
		if err := json.Unmarshal(s.Bytes(), &end); err != nil {
			t.Fatal(err)
		}
	}
	if !codes["0x040003"] || !codes["0x05000f"] || end.ExitStatus == nil || *end.ExitStatus != status || status != 4 {
		t.Errorf("status %d: %s", status, out)
	}
}

// TestUndo takes a repair back to the same bytes, by the C e2undo.
func TestUndo(t *testing.T) {
	tool := testfs.Tool(t, "e2undo")
	path := image(t, damage...)
	before := read(t, path)
	undo := path + ".e2undo"
	if status, out := e2fsck("", "-fy", "-z", undo, path); status != 1 {
		t.Fatalf("status %d: %s", status, out)
	}
	if bytes.Equal(before, read(t, path)) {
		t.Fatal("nothing was written")
	}
	if out, err := exec.Command(tool, undo, path).CombinedOutput(); err != nil {
		t.Fatalf("e2undo: %v: %s", err, out)
	}
	if !bytes.Equal(before, read(t, path)) {
		t.Error("e2undo does not bring back the same bytes")
	}
}

// TestProblemLog compares the codes with those that the C tool logs.
func TestProblemLog(t *testing.T) {
	path := image(t, damage...)
	codes := func(file string) (out []string) {
		for _, l := range strings.Split(string(read(t, file)), "\n") {
			if _, s, ok := strings.Cut(l, `<problem code="`); ok {
				out = append(out, s[:8])
			}
		}
		return out
	}
	c, ours := path+".c", path+".ours"
	_ = exec.Command(testfs.Tool(t, "e2fsck"), "-fn", "-E", "problem_log="+c, path).Run()
	e2fsck("", "-fn", "-E", "problem_log="+ours, path)
	if a, b := fmt.Sprint(codes(c)), fmt.Sprint(codes(ours)); a != b || a == "[]" {
		t.Errorf("the C tool logs %s, ours %s", a, b)
	}
}

// TestDiscard has free blocks become holes, of what is consistent in the end,
// and nothing else.
func TestDiscard(t *testing.T) {
	src := filepath.Join(testfs.Scratch(t), "data")
	data := bytes.Repeat([]byte("some data that is kept "), 60000)
	if err := os.WriteFile(src, data, 0o600); err != nil {
		t.Fatal(err)
	}
	path := image(t, "write "+src+" kept", "write "+src+" removed", "rm removed")
	blocks := func() int64 {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Sys().(*syscall.Stat_t).Blocks * 512
	}
	before := blocks()
	if status, out := e2fsck("", "-fn", "-E", "discard", path); status != 0 || blocks() != before {
		t.Fatalf("-n: status %d, %d bytes of %d: %s", status, blocks(), before, out)
	}
	if status, out := e2fsck("", "-fy", "-E", "discard", path); status != 0 {
		t.Fatalf("status %d: %s", status, out)
	}
	if now := blocks(); now > before-int64(len(data))+64<<10 {
		t.Errorf("%d bytes of %d are left", now, before)
	}
	testfs.Run(t, "e2fsck", "-fn", path)
	got := src + ".got"
	testfs.Run(t, "debugfs", "-R", "dump kept "+got, path)
	if !bytes.Equal(read(t, got), data) {
		t.Error("the file has other content")
	}
}

// TestSmallGroups checks groups that the reserved inodes do not fit in.
func TestSmallGroups(t *testing.T) {
	path := filepath.Join(testfs.Scratch(t), "image")
	testfs.Run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-N", "5", path, "64M")
	if status, out := e2fsck("", "-fn", path); status != 0 {
		t.Fatalf("status %d: %s", status, out)
	}
	for _, set := range []string{"flags 5", "checksum calc"} { // no bitmap, no inode in use
		testfs.Run(t, "debugfs", "-w", "-R", "set_bg 0 "+set, path)
	}
	if status, out := e2fsck("", "-fy", path); status > 1 || !strings.Contains(out, "Group 0:") {
		t.Fatalf("status %d: %s", status, out)
	}
	testfs.Run(t, "e2fsck", "-fn", path)
}
