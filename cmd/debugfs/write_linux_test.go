package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// fsck runs C e2fsck -fn and returns what it finds, without headings.
func fsck(t *testing.T, img *testfs.Image) string {
	t.Helper()
	out, _ := exec.Command(testfs.Tool(t, "e2fsck"), "-fn", img.Path).CombinedOutput() // the status is in what it prints
	var found []string
	for _, l := range strings.Split(string(out), "\n") {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "Pass ") || strings.HasPrefix(l, "e2fsck ") || strings.HasPrefix(l, "Fix? no") ||
			strings.HasPrefix(l, "Clear? no") || strings.HasPrefix(l, "Connect to") || strings.HasSuffix(l, "could be narrower.  Optimize? no") || strings.Contains(l, " non-contiguous)") ||
			strings.Contains(l, "WARNING: Filesystem still has errors") {
			continue
		}
		found = append(found, l)
	}
	return strings.Join(found, "\n")
}

// A writeCase is a run of requests, and what C e2fsck finds then: nothing, or
// lines that all match one of the patterns, each of which is found.
type writeCase struct {
	requests string // separated by ;
	damage   string // patterns, separated by newlines
}

var counts = `(Free blocks count wrong|Free inodes count wrong|Directories count wrong)`

var writeCases = []writeCase{
	{"mkdir nd; mkdir nd/sub; mkdir /nd/sub/more; rmdir nd/sub/more; mkdir a/b/c/deep", ""},
	{"symlink s1 target; symlink s2 /very/long/target/" + strings.Repeat("x", 100), ""},
	{"mknod f1 p; mknod c1 c 1 3; mknod b1 b 300 70000", ""},
	{"write %S/text in; write %S/sparse nd; write %S/text a/b/t; rm data; rm frag; rm in", ""},
	{"rm a/hard; rm data; rm big/file-with-a-long-name-1", ""},
	{"cd a; mkdir here; cd /; rmdir a/here", ""},
	{"fallocate a/x 5 6; fallocate falloc 200", ""}, // behind their ends
	{"fallocate far 0 20; fallocate far 300 400; fallocate far 1000; punch frag 100 2000; punch data 10; truncate far 3", ""},
	{"ea_set a/x user.n v; ea_set -f %S/value a/x user.file; ea_set / user.root r; ea_rm a/x user.n user.small; ea_rm / user.root", ""},
	{"expand a; expand big; expand big; expand a/b; mkdir a/b/after; expand a/b/c; expand /", ""},
	{"ssv mnt_count 7; ssv volume_name label; ssv mtime now; ssv checksum 5; ssv checksum calc; ssv encrypt_pw_salt random", ""},
	{"sif a/x mtime @5000000000; sif a/x uid 70000; sif a/x generation 7; sif a/x mode 0100600", ""},
	{"dirty; dirty -clean; feature stable_inodes; feature -stable_inodes", ""},
	{"seti <3000>; freei <3000>; setb %F 100; freeb %F 100", ""},
	{"kill_file data; undel %I data2; unlink data2; sif %I links_count 2", ""},
	{"link a/x hl; sif a/x links_count 2", ""},
	{"link a/x hl", `Inode \d+ ref count is 1, should be 2`},
	{"unlink a/x", `Unattached inode \d+`},
	{"kill_file data", `Entry '(data|hard)' in .* has deleted/unused inode \d+`},
	{"clri a/old", "Entry 'old' in /a \\(\\d+\\) has (deleted/unused inode \\d+|an incorrect filetype)\nInode bitmap differences:  -\\d+"},
	{"freei a/x", "Inode bitmap differences:  \\+\\d+\n" + counts},
	{"seti <3000>", "Inode bitmap differences:  -3000\n" + counts},
	{"setb %F 3", "Block bitmap differences:  -(\\d+|\\(\\d+--\\d+\\))\n" + counts},
	{"set_bg 0 free_inodes_count 5; set_bg 0 checksum calc", `(Free inodes count wrong for group #0 \(5, counted=\d+\)|Group descriptor 0 has invalid unused inodes count)`},
	{"ssv free_inodes_count 5", `Free inodes count wrong \(5, counted=\d+\)`},
	{"sif a/x links_count 5", `Inode \d+ ref count is 5, should be 1`},
}

// TestWrites has C e2fsck look at what each writing command leaves.
func TestWrites(t *testing.T) {
	testfs.NeedRoot(t)
	src := testfs.Scratch(t)
	testfs.Run(t, "sh", "-c", `cd "$1" && seq 1 20000 >text && truncate -s 3000000 sparse && echo end >>sparse && head -c 60 text >value && setfattr -n user.of -v host text 2>/dev/null; :`, "sh", src)
	for _, s := range samples {
		t.Run(s.Name, func(t *testing.T) {
			img := sample(t, s)
			_, out, _ := debugfs("--json", "-R", "stat data", img.Path)
			var data struct{ Ino int }
			if err := json.Unmarshal([]byte(out), &data); err != nil {
				t.Fatal(err)
			}
			for _, c := range writeCases {
				if s.Type != "" && strings.HasPrefix(c.requests, "fallocate a/x") {
					continue // of extents only
				}
				t.Run(strings.ReplaceAll(c.requests, "/", ""), func(t *testing.T) {
					runWrites(t, img.Copy(t), c, src, data.Ino)
				})
			}
		})
	}
}

func runWrites(t *testing.T, img *testfs.Image, c writeCase, src string, data int) {
	img.ExpectDirty("e2fsck is asked at once")
	text := strings.NewReplacer("%S", src, "%I", fmt.Sprintf("<%d>", data), "%F", freeBlocks(t, img), "; ", "\n").Replace(c.requests)
	file := filepath.Join(testfs.Scratch(t), "requests")
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out, errs := debugfs("-w", "-f", file, img.Path); status != 0 {
		t.Fatalf("status %d: %s%s", status, out, errs)
	}
	found := fsck(t, img)
	if c.damage == "" {
		if found != "" {
			t.Errorf("e2fsck finds\n%s", found)
		}
		return
	}
	patterns := strings.Split(c.damage, "\n")
	matched := make([]bool, len(patterns))
	for _, l := range strings.Split(found, "\n") {
		ok := false
		for i, p := range patterns {
			if regexp.MustCompile("^" + p).MatchString(l) {
				ok, matched[i] = true, true
			}
		}
		if !ok {
			t.Errorf("e2fsck finds %q", l)
		}
	}
	for i, ok := range matched {
		if !ok {
			t.Errorf("e2fsck does not find %q", patterns[i])
		}
	}
}

// freeBlocks returns the first of 100 free blocks.
func freeBlocks(t *testing.T, img *testfs.Image) string {
	t.Helper()
	_, out, _ := debugfs("--json", "-R", "ffb 100 15800", img.Path)
	var b []int
	if err := json.Unmarshal([]byte(out), &b); err != nil || len(b) != 100 || b[99] != b[0]+99 {
		t.Fatalf("no run of free blocks: %v, %v", b, err)
	}
	return fmt.Sprint(b[0])
}

// TestContent has what was written in read by C debugfs.
func TestContent(t *testing.T) {
	src := testfs.Scratch(t)
	testfs.Run(t, "sh", "-c", `cd "$1" && seq 1 200000 >text && chmod 4751 text && printf start >sparse && truncate -s 3000000 sparse && echo end >>sparse`, "sh", src)
	for _, s := range []testfs.Spec{{Name: "ext4"}, {Name: "ext2", Type: "ext2", BlockSize: 1024}, {Name: "bigalloc", Features: "bigalloc", Cluster: 16384}} {
		img := testfs.Mke2fs(t, s)
		for _, f := range []string{"text", "sparse"} {
			if status, _, errs := debugfs("-w", "-R", "write "+filepath.Join(src, f)+" "+f, img.Path); status != 0 {
				t.Fatal(errs)
			}
			want, err := os.ReadFile(filepath.Join(src, f))
			if err != nil {
				t.Fatal(err)
			}
			if got := cDebugfs(t, "-R", "cat "+f, img.Path); got != string(want) {
				t.Errorf("%s: %s: %d bytes, want %d", s.Name, f, len(got), len(want))
			}
			out := filepath.Join(testfs.Scratch(t), "out")
			if status, _, errs := debugfs("-R", "dump -p "+f+" "+out, img.Path); status != 0 {
				t.Fatal(errs)
			}
			if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: dump %s: %d bytes, %v", s.Name, f, len(got), err)
			}
		}
		if out := cDebugfs(t, "-R", "stat text", img.Path); !strings.Contains(out, "Mode:  04751") {
			t.Errorf("the mode is not kept:\n%s", out)
		}
		if out := cDebugfs(t, "-R", "blocks sparse", img.Path); len(strings.Fields(out)) > 8 {
			t.Errorf("holes are not kept: %s", out)
		}
	}
}

// TestExtentEditing walks and edits a tree beside C debugfs.
func TestExtentEditing(t *testing.T) {
	testfs.NeedRoot(t)
	img := sample(t, testfs.Spec{Name: "ext4", BlockSize: 1024})
	for _, script := range []string{
		"eo frag\nroot\ninfo\nall\nroot\nn\nn\nn\np\nnl\npl\nup\ndown\nns\nps\nfirst_sib\nlast_sib\ngoto 1000\ninfo\nec\n",
		"eo data\nroot\ninfo\nn\nall --leaf-only\nall --reverse-leaf\nec\n",
		"eo falloc\nroot\ncurrent\ninfo\nec\n",
		"eo data\nroot\nreplace --uninit 0 5 9000\ninsert --after 10 3 9100\ninsert 7 1 9200\nall\ninfo\ndelete\nall\nec\n",
	} {
		file := filepath.Join(testfs.Scratch(t), "script")
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		a, b := img.Copy(t), img.Copy(t)
		a.ExpectDirty("the tree is edited")
		b.ExpectDirty("the tree is edited")
		want := cDebugfs(t, "-w", "-f", file, a.Path)
		status, got, errs := debugfs("-w", "-f", file, b.Path)
		if got != want {
			t.Errorf("%q: status %d: %s%s", script, status, firstDifference(got, want), errs)
		}
		if want, got := cDebugfs(t, "-R", "ex data", a.Path), cDebugfs(t, "-R", "ex data", b.Path); got != want {
			t.Errorf("%q leaves\n%s\nwant\n%s", script, got, want)
		}
	}
}

// TestSetBmap maps blocks one by one, and has C e2fsck look.
func TestSetBmap(t *testing.T) {
	for _, s := range []testfs.Spec{{Name: "ext4", BlockSize: 1024, Size: 16 << 20}, {Name: "ext2", Type: "ext2", BlockSize: 1024, Size: 16 << 20},
		{Name: "bigalloc", BlockSize: 1024, Size: 64 << 20, Features: "bigalloc", Cluster: 8192, Inodes: 1024}} {
		img := testfs.Mke2fs(t, s)
		var script strings.Builder
		script.WriteString("write /dev/null f\nsif f size 4096000\n")
		for i := range 300 {
			fmt.Fprintf(&script, "bmap -a f %d\n", i*13)
		}
		file := filepath.Join(testfs.Scratch(t), "script")
		if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if status, out, errs := debugfs("-w", "-f", file, img.Path); status != 0 {
			t.Fatalf("%s%s", out, errs)
		}
		got := cDebugfs(t, "-R", "bmap f 2600", img.Path)
		if _, ours, _ := debugfs("-R", "bmap f 2600", img.Path); ours != got || got == "0\n" {
			t.Errorf("%s: block 2600 is %q, C says %q", s.Name, ours, got)
		}
	}
}
