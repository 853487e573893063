package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
)

// configure has e2fsck.conf say text, to us and to the C tool.
func configure(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(testfs.Scratch(t), "e2fsck.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("E2FSCK_CONFIG", path)
}

// cStatus runs the C tool.
func cStatus(t *testing.T, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(testfs.Tool(t, "e2fsck"), args...)
	out, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(out)
}

// TestConfigProblems has the exit status of the C tool, which is told the same
// about single problems, for each mode.
func TestConfigProblems(t *testing.T) {
	good := read(t, image(t, damage[1]))
	try := filepath.Join(testfs.Scratch(t), "image")
	for _, set := range []string{
		"", "preen_ok = false", "preen_ok = true", "force_no = true", "no_ok = true", "not_a_fix = true", "no_default = true",
		"preen_nomessage = true", "no_nomsg = yes", "max_count = 1", `description = "some words"`, "force_no = 1\nno_ok = 1",
	} {
		configure(t, "[problems]\n 0x040003 = {\n  "+set+"\n }\n")
		for _, mode := range []string{"-fn", "-fp", "-fy"} {
			status := func(run func() (int, string)) (int, string) {
				if err := os.WriteFile(try, good, 0o600); err != nil {
					t.Fatal(err)
				}
				return run()
			}
			want, cOut := status(func() (int, string) { return cStatus(t, mode, try) })
			got, out := status(func() (int, string) { return e2fsck("", mode, try) })
			if got != want {
				t.Errorf("%s with %q: status %d, of the C tool %d\n%s\nC: %s", mode, set, got, want, out, cOut)
			}
			if strings.Contains(set, "some words") && mode == "-fn" && !strings.Contains(out, "some words") {
				t.Errorf("%s: not in the words of the configuration: %s", set, out)
			}
			if strings.Contains(set, "no_nomsg") && mode == "-fn" && strings.Contains(out, "Fix? no") {
				t.Errorf("%s: told of all the same: %s", set, out)
			}
		}
	}
}

// TestConfigErrors: what is wrong in the configuration is told, not guessed.
func TestConfigErrors(t *testing.T) {
	path := image(t)
	for _, text := range []string{"[options", "[options]\n broken_system_clock = perhaps\n", "[options]\n max_count_problems = many\n"} {
		configure(t, text)
		if status, out := e2fsck("", "-fn", path); status != 8 {
			t.Errorf("%q: status %d: %s", text, status, out)
		}
	}
}

// TestLog has a copy of what is printed, with what is not, in a folder that is there.
func TestLog(t *testing.T) {
	path := image(t, "mkdir a", "mkdir b", "mkdir c", "sif a links_count 9", "sif b links_count 9", "sif c links_count 9")
	dir := filepath.Join(testfs.Scratch(t), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("E2FSCK_TIME", "86400")
	configure(t, "[options]\n max_count_problems = 1\n log_dir = /nonexistent/logs\n log_dir_fallback = "+dir+
		"\n log_filename = log-%N.%U%Y%m%d-%T%%\n problem_log_filename = "+filepath.Join(dir, "codes.xml")+"\n")
	status, out := e2fsck("", "-fn", path)
	log := string(read(t, filepath.Join(dir, "log-image.19700102-000000%")))
	n, all := strings.Count(out, "should be 2)"), strings.Count(log, "should be 2)")
	if status != 4 || n != 1 || all != 3 || !strings.Contains(log, "Exit status: 4") {
		t.Errorf("status %d, %d of 3 told, %d in the log\n%s\n%s", status, n, all, out, log)
	}
	if s := string(read(t, filepath.Join(dir, "codes.xml"))); strings.Count(s, `code="0x040003"`) != 3 {
		t.Errorf("the problem log: %s", s)
	}
	// Without a place, and with one that comes while the check runs, or not.
	configure(t, "[options]\n log_dir = /nonexistent/logs\n log_filename = log\n")
	if status, out := e2fsck("", "-fn", path); status != 8 {
		t.Errorf("no place for the log: status %d: %s", status, out)
	}
	configure(t, "[options]\n log_dir = /nonexistent/logs\n log_filename = log\n log_dir_wait = true\n")
	if status, out := e2fsck("", "-fn", path); status != 4 || !strings.Contains(out, "Pass 5") {
		t.Errorf("no place for the log at the end: status %d: %s", status, out)
	}
	own := filepath.Join(dir, "own")
	if status, out := e2fsck("", "-fn", "-E", "log_filename="+own, path); status != 4 || !strings.Contains(string(read(t, own)), "Pass 5") {
		t.Errorf("-E log_filename: status %d: %s", status, out)
	}
}

// TestExpand: the expressions in a log's name.
func TestExpand(t *testing.T) {
	host, _ := os.Hostname()
	now := time.Date(2012, 3, 14, 11, 21, 42, 0, time.UTC)
	for in, want := range map[string]string{
		"e2fsck-%N.%h.INFO.%D-%T": "e2fsck-sda3." + host + ".INFO.20120314-112142",
		"%U%d %H %m %M %S %y %Y":  "14 11 03 21 42 12 2012",
		"%s %p %% %":              fmt.Sprintf("%d %d %% %%", now.Unix(), os.Getpid()),
	} {
		if got := expand(in, "/dev/sda3", now); got != want {
			t.Errorf("%q is %q, not %q", in, got, want)
		}
	}
}

// TestProgress reads the lines of -C.
func TestProgress(t *testing.T) {
	path := image(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := syscall.Dup(int(w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if status, out := e2fsck("", "-fn", "-C", fmt.Sprint(fd), path); status != 0 || strings.Contains(out, "5 ") && regexp.MustCompile(`(?m)^5 \d`).MatchString(out) {
		t.Fatalf("status %d: %s", status, out)
	}
	syscall.Close(fd)
	buf := make([]byte, 1<<16)
	n, _ := r.Read(buf)
	lines := strings.Split(strings.TrimSpace(string(buf[:n])), "\n")
	form := regexp.MustCompile(`^[1-5] \d+ \d+ ` + regexp.QuoteMeta(path) + `$`)
	last := ""
	for _, l := range lines {
		if !form.MatchString(l) || l[:1] < last {
			t.Errorf("line %q after pass %s", l, last)
		}
		last = l[:1]
	}
	if w := strings.Fields(lines[len(lines)-1]); len(w) != 4 || w[0] != "5" || w[1] != w[2] {
		t.Errorf("the last line is %q", lines[len(lines)-1])
	}
	if status, out := e2fsck("", "-fn", "-C", "0", path); status != 0 || !strings.Contains(out, "|====") {
		t.Errorf("-C 0: status %d: %q", status, out)
	}
	if status, out := e2fsck("", "-fn", "-C", "-1", path); status != 0 || strings.Contains(out, "|====") {
		t.Errorf("-C -1: status %d: %q", status, out)
	}
}

// TestProgressSignals switches the progress on and off.
func TestProgressSignals(t *testing.T) {
	p := &progress{r: &request{}}
	defer p.listen()()
	for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGUSR1} {
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
		for p.on.Load() != (s == syscall.SIGUSR1) {
			time.Sleep(time.Millisecond)
		}
	}
}

// TestTiming: a line for each pass, and for the whole.
func TestTiming(t *testing.T) {
	path := image(t)
	one, each := regexp.MustCompile(`(?m)^Memory used: \d+k, time: +\d+\.\d\d/ *\d+\.\d\d/ *\d+\.\d\d$`), regexp.MustCompile(`(?m)^Pass [1-5]: Memory used: `)
	if _, out := e2fsck("", "-fn", "-t", path); len(one.FindAllString(out, -1)) != 1 || each.MatchString(out) {
		t.Errorf("-t: %s", out)
	}
	if _, out := e2fsck("", "-fn", "-tt", path); len(one.FindAllString(out, -1)) != 1 || len(each.FindAllString(out, -1)) != 5 {
		t.Errorf("-tt: %s", out)
	}
}

// TestUndoDir saves what is overwritten to the folder of the configuration.
func TestUndoDir(t *testing.T) {
	path := image(t, damage...)
	dir := testfs.Scratch(t)
	configure(t, "[defaults]\n undo_dir = "+dir+"\n")
	before := read(t, path)
	if status, out := e2fsck("", "-fy", path); status != 1 {
		t.Fatalf("status %d: %s", status, out)
	}
	if out, err := exec.Command(testfs.Tool(t, "e2undo"), filepath.Join(dir, "e2fsck-image.e2undo"), path).CombinedOutput(); err != nil {
		t.Fatalf("e2undo: %v: %s", err, out)
	}
	if string(before) != string(read(t, path)) {
		t.Error("e2undo does not bring back the same bytes")
	}
}

// TestMemory: what is known of directories goes to a file, by option or
// configuration.
func TestMemory(t *testing.T) {
	path, dir := image(t), testfs.Scratch(t)
	for _, c := range []struct {
		conf    string
		args    []string
		spilled bool
	}{
		{"", nil, false},
		{"", []string{"--memory", "64M"}, false},
		{"", []string{"--memory", "1k"}, true},
		{"[scratch_files]\n directory = " + dir + "\n", nil, true},
		{"[scratch_files]\n directory = " + dir + "\n numdirs_threshold = 1000\n", nil, false},
		{"[scratch_files]\n directory = " + dir + "\n dirinfo = false\n", nil, false},
		{"[scratch_files]\n directory = /nonexistent\n", nil, false},
	} {
		configure(t, c.conf)
		status, out := e2fsck("", append(append([]string{"-fn", "--json"}, c.args...), path)...)
		if status != 0 || strings.Contains(out, `"Spilled":0`) == c.spilled {
			t.Errorf("%q %v: status %d: %s", c.conf, c.args, status, out)
		}
	}
	if status, _ := e2fsck("", "-fn", "--memory", "much", path); status != 16 {
		t.Errorf("--memory much: status %d", status)
	}
}
