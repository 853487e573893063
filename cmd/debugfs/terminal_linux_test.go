package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
)

// screen is a terminal that a test types at.
type screen struct {
	t    *testing.T
	sock string
}

func newScreen(t *testing.T, env []string, command string) *screen {
	t.Helper()
	s := &screen{t, filepath.Join(testfs.Scratch(t), "tmux")}
	cmd := exec.Command(testfs.Tool(t, "tmux"), "-S", s.sock, "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "20", command)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tmux: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", s.sock, "kill-server").Run() })
	return s
}

func (s *screen) keys(keys ...string) {
	s.t.Helper()
	testfs.Run(s.t, "tmux", append([]string{"-S", s.sock, "send-keys", "-t", "0"}, keys...)...)
}

func (s *screen) text() string {
	out, _ := exec.Command("tmux", "-S", s.sock, "capture-pane", "-p", "-t", "0").Output() // gone with the program
	return string(out)
}

// wait waits until the screen shows want, for as long as a test may take.
func (s *screen) wait(want string) {
	s.t.Helper()
	for range 600 {
		if strings.Contains(s.text(), want) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatalf("the screen never shows %q:\n%s", want, s.text())
}

// TestInteractive types at a terminal: completion of commands, paths and
// fields, history, an interrupt, the pager.
func TestInteractive(t *testing.T) {
	testfs.Tool(t, "tmux")
	dir := testfs.Scratch(t)
	bin := filepath.Join(dir, "debugfs")
	testfs.Run(t, "go", "build", "-o", bin, ".")
	src := filepath.Join(dir, "src")
	testfs.Run(t, "sh", "-c", `mkdir -p "$1/directory/below" && cd "$1/directory" && for i in $(seq 100 160); do echo $i >file$i; done; echo inside >"with space"`, "sh", src)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "tree", Size: 16 << 20, Dir: src})
	history := filepath.Join(dir, "history")
	env := []string{"DEBUGFS_HISTORY=" + history, "DEBUGFS_PAGER=sed 's/^/PAGED /;10q'"}
	s := newScreen(t, env, fmt.Sprintf("%s -w %s; sleep 1000", bin, img.Path))

	s.wait("debugfs:")
	s.keys("show_in", "Tab", "dir", "Tab", "wi", "Tab", "Enter")
	s.wait(`debugfs:  show_inode_info "directory/with space"`)
	s.wait("Type: regular")

	s.keys("C-l")
	s.keys("cat directory/file15", "Tab", "Tab")
	s.wait("file150  file151") // candidates
	s.keys("7", "Enter")
	s.wait("\n157\n")

	s.keys("ssv volume_n", "Tab", "typed", "Enter")
	s.keys("stat nothing at all", "C-c") // the line goes, the program stays
	s.keys("params", "Enter")
	s.wait("Open mode: read-write")
	s.keys("Up", "Up", "Up", "Enter") // history: cat
	s.wait("cat directory/file157")

	// A copy of a tebibyte, which nobody waits for.
	s.keys("C-l")
	s.keys("write /dev/null huge", "Enter", "sif huge size 0x10000000000", "Enter", "dump huge /dev/null", "Enter")
	s.wait("dump huge /dev/null")
	for range 600 { // what comes before the command has begun is for the line editor
		if strings.Contains(s.text(), "dump: interrupted") {
			break
		}
		s.keys("C-c")
		time.Sleep(50 * time.Millisecond)
	}
	s.wait("dump: interrupted")
	s.keys("C-l")
	s.keys("pwd", "Enter") // the program stays
	s.wait("[root]  INODE:      2  PATH: /")
	s.keys("rm huge", "Enter")

	s.keys("C-l")
	s.keys("ls -l directory", "Enter")
	s.wait("PAGED ")
	s.keys("quit", "Enter")
	for range 200 {
		if b, _ := os.ReadFile(history); strings.Contains(string(b), "quit") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	b, err := os.ReadFile(history)
	if err != nil || !strings.Contains(string(b), "ssv volume_name typed\nparams\ncat directory/file157\n") {
		t.Errorf("%v: history is %q", err, b)
	}

	again := newScreen(t, env, fmt.Sprintf("%s %s; sleep 1000", bin, img.Path))
	again.wait("debugfs:")
	again.keys("Up", "Up", "Up", "Up", "Enter") // history of another session: pwd
	again.wait("[pwd]")
}
