//go:build linux

package testfs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// inCI reports whether a missing oracle is a failure.
func inCI() bool { return os.Getenv("CI") == "true" }

// Missing ends the test since the machine lacks what it needs: as skipped, or
// as failed where CI=true.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if inCI() {
		t.Fatalf("CI lacks an oracle: "+format, args...)
	}
	t.Skipf(format, args...)
}

// NeedRoot ends the test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "needs root")
	}
}

// Tool returns the path of a system tool, looked for in the sbin folders too;
// without it the test ends as by Missing.
func Tool(t testing.TB, name string) string {
	t.Helper()
	p, err := lookTool(name)
	if err != nil {
		Missing(t, "no %s on this machine", name)
	}
	return p
}

func lookTool(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("no %s", name)
}

// fakeTime is when images are made, in seconds, so that equal recipes give
// equal bytes.
const fakeTime = "1700000000"

// Run runs a system tool with a fixed locale and clock, and returns its output
// and errors together. The test ends if the tool fails.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := tryRun(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func tryRun(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(Tool(t, name), args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC", "E2FSPROGS_FAKE_TIME="+fakeTime,
		"E2FSPROGS_LIBMAGIC_SUPPRESS=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// Scratch returns a new folder for images, in memory where the machine has a
// /dev/shm, that is removed when the test ends. E2KIT_SCRATCH names another
// place for it.
func Scratch(t testing.TB) string {
	t.Helper()
	base := os.Getenv("E2KIT_SCRATCH")
	if base == "" {
		base = os.TempDir()
		if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
			base = "/dev/shm"
		}
	}
	dir, err := os.MkdirTemp(base, "e2kit-test-")
	if err != nil && base == "/dev/shm" {
		dir, err = os.MkdirTemp("", "e2kit-test-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Not RemoveAll, were something still mounted below.
		if out, err := exec.Command("rm", "-rf", "--one-file-system", dir).CombinedOutput(); err != nil {
			t.Errorf("removing scratch files: %v: %s", err, out)
		}
	})
	return dir
}

// fsckOutput runs e2fsck -fn and returns what it printed.
func fsckOutput(tool, image, journal string) (string, error) {
	args := []string{"-fn"}
	if journal != "" {
		args = append(args, "-j", journal)
	}
	return outputOf(tool, append(args, image)...)
}

func runQuietly(tool string, args ...string) error {
	out, err := exec.Command(tool, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(tool), err, out)
	}
	return nil
}

// outputOf runs a tool and returns what it printed, whatever its exit status. A
// time that a test has images made at is not its.
func outputOf(tool string, args ...string) (string, error) {
	cmd := exec.Command(tool, args...)
	cmd.Env = slices.DeleteFunc(append(os.Environ(), "LC_ALL=C"), func(v string) bool {
		return strings.HasPrefix(v, "E2FSPROGS_FAKE_TIME=") || strings.HasPrefix(v, "SOURCE_DATE_EPOCH=")
	})
	out, err := cmd.CombinedOutput()
	return string(out), err
}
