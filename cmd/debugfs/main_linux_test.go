package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// debugfs runs ours.
func debugfs(args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = run(append([]string{"debugfs"}, args...), strings.NewReader(""), &out, &errs)
	return status, out.String(), errs.String()
}

// cDebugfs runs C debugfs and returns what it prints to standard output.
func cDebugfs(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(testfs.Tool(t, "debugfs"), args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBUGFS_PAGER=__none__")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("debugfs %q: %v", args, err)
	}
	return string(out)
}

// fill makes files of every kind, mapped in every way, some of which are
// deleted after a second mount.
const fill = `cd "$1"
mkdir -p a/b/c big
for i in $(seq 1 700); do echo $i >big/file-with-a-long-name-$i; done
for i in $(seq 1 300); do printf fragment | dd of=frag bs=1 seek=$((i*8192)) conv=notrunc status=none; done
fallocate -l 500000 falloc 2>/dev/null || :
echo x >a/x; echo z >a/z; echo gone >gone
ln -s ../x a/b/up; ln -s "$(printf '%0100d' 5)" longlink; ln -s /a/b abs
setfattr -n user.small -v abc a/x; setfattr -n user.big -v "$(printf '%0700d' 5)" a/x; setfattr -n trusted.bin -v 0x00ff01 a/z
chown 70000:80000 a/z
mknod b b 8 300; mknod c c 5 1; mkfifo p
touch "a/sp ace"; touch -d @1000000000 a/old
head -c 3000000 /dev/urandom >data; ln data a/hard
for i in 1 3 5; do printf fragment | dd of=far bs=1 seek=$((i*1000000)) conv=notrunc status=none; done
sync -f .
rm gone big/file-with-a-long-name-5?`

// sample makes an image with all of that, by the kernel.
func sample(t *testing.T, s testfs.Spec) *testfs.Image {
	t.Helper()
	img := testfs.Mke2fs(t, s)
	m := testfs.KernelMount(t, img, "")
	testfs.Run(t, "sh", "-c", fill, "sh", m.Dir)
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	return img
}

var samples = []testfs.Spec{
	{Name: "ext4-1k", BlockSize: 1024, Features: "ea_inode"},
	{Name: "ext4-4k"},
	{Name: "ext3", Type: "ext3", BlockSize: 1024, InodeSize: 256},
	{Name: "ext2", Type: "ext2", BlockSize: 1024},
	{Name: "inline", InodeSize: 512, Features: "inline_data"},
	{Name: "bigalloc", Features: "bigalloc", Cluster: 16384, Size: 256 << 20, Inodes: 4096},
	{Name: "meta_bg", Features: "meta_bg,^resize_inode", BlockSize: 1024},
}

// requests that read, each of which prints what C debugfs prints.
var readRequests = []string{
	"params", "pwd", "feature", "supported_features", "supported_features orphan_file",
	"ls", "ls /", "ls -l /", "ls -p /", "ls -d /a", "ls -d /big", "ls -dl /", "ls -c /big", "ls -l /a", "ls -l /big", "ls -p /a/b", "ls -r /", "ls <2>",
	"stat a/x", "stat a/z", "stat a/b/up", "stat abs", "stat b", "stat c", "stat p", "stat longlink", "stat falloc", "stat a/old", "stat <1>", "stat <7>",
	"stat <8>", "stat <11>", "stat data", "stat frag", "stat far", "stat big", "stat /", "stat abs/up", "stat \"a/sp ace\"", "show_inode_info /",
	"ex frag", "ex -n frag", "ex -l frag", "ex data", "ex falloc", "ex big", "dump_extents far",
	"blocks data", "blocks far", "blocks big", "blocks <8>", "blocks abs",
	"bmap data 0", "bmap data 100", "bmap far 2929", "bmap falloc 3", "bmap data 1000000",
	"testi <12>", "testi a/x", "testi <3000>", "testb 100 3", "testb 8000 2", "ffb", "ffb 5", "ffb 3 3000", "ffi", "ffi 2",
	"lsdel", "cat data", "cat far", "imap data", "imap <100>", "ncheck 12 13 14", "ncheck -c 12", "icheck 100 3000 5000 9000",
	"filefrag data", "filefrag -v far", "filefrag -v big", "filefrag -r /a", "filefrag -v frag", "filefrag -d /big", "filefrag -v /", "freefrag",
	"ea_list a/x", "ea_list a/z", "ea_list /", "ea_get a/x user.small", "ea_get a/x user.big", "ea_get -x a/x user.small", "ea_get -V a/x user.small",
	"ea_get -C a/z trusted.bin", "ea_get a/z trusted.bin",
	"htree /big", "hash foo", "dx_hash -h tea foo", "dx_hash -h half_md4 foo", "dx_hash -h legacy foo",
	"dx_hash -h tea -s 6b2f1c0e-5d7a-4c39-9b1e-0a4455667788 foo", "dirsearch /big file-with-a-long-name-200", "dirsearch / a", "dirsearch / nothing",
	"bd 0", "bd 100", "bd -f data 3", "bd -f frag 8", "idump a/x", "idump -b data", "idump -e a/x", "idump -x a/x", "idump -x a/z", "dump_unused",
}

// differs says why the outputs of a request are not equal, "" if they should be.
func differs(s testfs.Spec, request string) string {
	bigalloc := strings.Contains(s.Features, "bigalloc")
	switch {
	case request == "blocks abs":
		return "C debugfs takes the target of a fast symbolic link for block numbers"
	case bigalloc && strings.HasPrefix(request, "ffb "):
		return "C debugfs stops after the first block of a cluster"
	case bigalloc && request == "freefrag":
		return "C debugfs counts each block as a cluster"
	}
	return ""
}

// TestGolden compares with C debugfs, request by request.
func TestGolden(t *testing.T) {
	testfs.NeedRoot(t)
	for _, s := range samples {
		t.Run(s.Name, func(t *testing.T) {
			img := sample(t, s)
			for _, req := range readRequests {
				want := cDebugfs(t, "-R", req, img.Path)
				_, got, errs := debugfs("-R", req, img.Path)
				if got == want {
					continue
				}
				if why := differs(s, req); why != "" {
					t.Logf("%s differs: %s", req, why)
					continue
				}
				t.Errorf("%s: %s%s", req, firstDifference(got, want), errs)
			}
		})
	}
}

// firstDifference shows the first line that differs.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		a, b := "(end)", "(end)"
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return "line " + strings.TrimSpace(strings.Join([]string{"\n got " + short(a), "\n want " + short(b), "\n"}, ""))
		}
	}
	return "equal"
}

func short(s string) string { return s[:min(len(s), 300)] }

// TestSpecial compares what takes features that the kernel of this machine may
// not have, on images that C mke2fs fills.
func TestSpecial(t *testing.T) {
	src := testfs.Scratch(t)
	testfs.Run(t, "sh", "-c", `mkdir -p "$1/d" && head -c 5000 /dev/zero >"$1/d/f" && chown 70000:80000 "$1/d/f"`, "sh", src)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "quota", BlockSize: 1024, Size: 16 << 20, Features: "quota,project,mmp", Dir: src})
	img.ExpectDirty("C mke2fs does not count what it copies in the quota")
	for _, req := range []string{"lq user", "lq group", "lq project", "gq user 0", "gq user 70000", "get_quota group 80000", "gq group 5", "dump_mmp", "stat d/f", "stat <3>"} {
		want := cDebugfs(t, "-R", req, img.Path)
		if status, got, errs := debugfs("-R", req, img.Path); got != want || status != 0 {
			t.Errorf("%s: %s%s", req, firstDifference(got, want), errs)
		}
	}
}

// TestRecorded is the recorded case d_inline_dump: inodes with inline data.
func TestRecorded(t *testing.T) {
	dir := filepath.Join(testfs.Golden(t), "d_inline_dump")
	img := filepath.Join(testfs.Scratch(t), "image")
	testfs.Unpack(t, filepath.Join(dir, "image.gz"), img)
	expect, err := os.ReadFile(filepath.Join(dir, "expect"))
	if err != nil {
		t.Fatal(err)
	}
	sections := regexp.MustCompile(`(?m)^\*\*\* .*\n`).Split(string(expect), -1)
	n := 0
	for _, want := range sections {
		m := regexp.MustCompile(`^Inode: (\d+) `).FindStringSubmatch(want)
		if m == nil {
			continue
		}
		n++
		status, got, errs := debugfs("-R", "stat <"+m[1]+">", img)
		if strings.TrimSpace(got) != strings.TrimSpace(want) || status != 0 {
			t.Errorf("inode %s: %s%s", m[1], firstDifference(got, want), errs)
		}
	}
	if n != 6 {
		t.Errorf("%d inodes are recorded, not 6", n)
	}
}

// TestFailures is for exit statuses and what is said.
func TestFailures(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "plain", Size: 8 << 20})
	for _, c := range []struct {
		args   []string
		status int
		errs   string
	}{
		{[]string{"-R", "stat nothing", img.Path}, 1, "stat: nothing: no such file or directory\n"},
		{[]string{"-R", "stat", img.Path}, 1, "stat: too few arguments\nusage: stat file\n"},
		{[]string{"-R", "nonsense", img.Path}, 1, "unknown command"},
		{[]string{"-R", "mkdir d", img.Path}, 1, "open read-only"},
		{[]string{"-R", "ls"}, 1, "no file system is open"},
		{[]string{"-R", `ls "x`, img.Path}, 1, "quote"},
		{[]string{"-R", "params", "/nowhere"}, 1, "no such file"},
		{[]string{"--keep-going", "-R", "stat nothing", img.Path}, 0, "no such file"},
		{[]string{"-R", "stat <99999999>", img.Path}, 1, "inodes are numbered"},
		{[]string{"-Q"}, 2, "unknown option -Q"},
		{[]string{"-w", "-c", img.Path}, 2, "-c opens read-only"},
		{[]string{"-s", "1", img.Path}, 2, "-b"},
		{[]string{"-V"}, 0, "debugfs 1.47"},
		{[]string{"-R", "testb 1", "-c", img.Path}, 1, "-c"},
		{[]string{"-R", "next", img.Path}, 1, "extent_open"},
	} {
		status, _, errs := debugfs(c.args...)
		if status != c.status || !strings.Contains(errs, c.errs) {
			t.Errorf("%q: status %d, %q; want %d, %q", c.args, status, errs, c.status, c.errs)
		}
	}
	if status, out, errs := debugfs("-b", "4096", "-s", "0", "-R", "stat <2>", img.Path); status != 0 || !strings.Contains(out, "directory") {
		t.Errorf("-b: %d: %s%s", status, out, errs)
	}
	status := run([]string{"rdebugfs", "-w", img.Path}, strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})
	if status != 2 {
		t.Errorf("rdebugfs -w: status %d", status)
	}
}

func TestSplitLine(t *testing.T) {
	for in, want := range map[string]string{
		`a b  c`: "a|b|c", `"a b" c`: "a b|c", `a"b c"d`: "ab cd", `"say ""x"""`: `say "x"`, `""`: "", "\ta\t": "a", `a\ b`: `a\|b`,
	} {
		got, err := splitLine(in)
		if err != nil || strings.Join(got, "|") != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
		for _, w := range got {
			if again, err := splitLine(quoteWord(w)); err != nil || len(again) != 1 || again[0] != w {
				t.Errorf("%q: %q, %v", w, again, err)
			}
		}
	}
	if _, err := splitLine(`a "b`); err == nil {
		t.Error("an open quote is accepted")
	}
}

// TestHelp has every command named once, and told about.
func TestHelp(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range groups {
		for _, r := range g.requests {
			if r.help == "" || r.run == nil {
				t.Errorf("%s has no help, or does nothing", r.names[0])
			}
			for _, n := range r.names {
				if seen[n] {
					t.Errorf("%s is named twice", n)
				}
				seen[n] = true
			}
		}
	}
	if status, out, _ := debugfs("-R", "help stat"); status != 0 || !strings.Contains(out, "usage: show_inode_info file") {
		t.Errorf("help stat: %s", out)
	}
}

// TestManual has every command, by all of its names, in the manual page.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../man/debugfs.8")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), `\-`, "-")
	for _, g := range groups {
		for _, r := range g.requests {
			entry := ".B " + r.names[0]
			if r.args != "" {
				entry += ` \fR` + r.args
			}
			if !strings.Contains(text, "\n"+entry+"\n") {
				t.Errorf("no entry %q", entry)
			}
			if len(r.names) > 1 && !strings.Contains(text, `\fB`+strings.Join(r.names[1:], ", ")) {
				t.Errorf("%s: other names are not told", r.names[0])
			}
		}
	}
}
