//go:build linux

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tiny runs a benchmark that is small enough for any test run.
func tiny(t *testing.T, args ...string) (code int, out, errs string, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for loop devices")
	}
	dir = t.TempDir()
	was := small
	t.Cleanup(func() { small = was })
	small = scale{rounds: 1, image: 256 << 20, stream: 8 << 20, random: 4 << 20, ops: 128, fsyncs: 4,
		limit: small.limit, files: 50, bigDir: 500, tarball: 100, mounts: 1,
		makes: 2, populateFiles: 600, populateBytes: 64 << 20, inspectFiles: 700,
		checkFiles: 1500, checkExtents: 4096}
	var o, e bytes.Buffer
	code = run(append([]string{"-quick", "-places", "test=" + dir, "-pin", "none"}, args...), &o, &e)
	return code, o.String(), e.String(), dir
}

func leftovers(t *testing.T, dir string) {
	t.Helper()
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	if strings.Contains(string(mounts), dir) {
		t.Error("a mount is left")
	}
}

func TestKernel(t *testing.T) {
	if err := unix.Access("/dev/loop-control", unix.W_OK); err != nil {
		t.Skip("needs loop devices")
	}
	code, out, errs, dir := tiny(t, "-servers", "kernel")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, st := range stages {
		for _, m := range st.metrics {
			if !st.long && st.image != nil && !strings.Contains(out, st.name+": "+m.Name) {
				t.Errorf("no figure for %s: %s", st.name, m.Name)
			}
		}
	}
	leftovers(t, dir)
}

// A server that does not serve is a failure, and leaves nothing.
func TestBadServer(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("#!/bin/sh\necho no such feature >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	code, _, errs, dir := tiny(t, "-servers", "ours", "-ours", bad, "-only", "mount")
	if code != 1 || !strings.Contains(errs, "no such feature") {
		t.Errorf("exit %d: %s", code, errs)
	}
	leftovers(t, dir)
}

// A server that neither serves nor ends is killed.
func TestHungServer(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "hung")
	if err := os.WriteFile(bad, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	code, _, errs, dir := tiny(t, "-servers", "ours", "-ours", bad, "-only", "mount", "-timeout", "300ms")
	if code != 1 || !strings.Contains(errs, "killed") {
		t.Errorf("exit %d: %s", code, errs)
	}
	leftovers(t, dir)
}

func TestMisuse(t *testing.T) {
	for _, args := range [][]string{{"-servers", "nobody"}, {"-only", "("}, {"-pin", "all"}, {"-places", "x"}, {"more"}} {
		if code := run(args, io.Discard, io.Discard); code != 2 {
			t.Errorf("%q: exit %d", args, code)
		}
	}
}

// The stages of tools, with C in both places.
func TestMake(t *testing.T) {
	c, err := exec.LookPath("mke2fs")
	if err != nil {
		t.Skip(err)
	}
	here, err := os.Executable() // stands for the server of ours, which is not asked
	if err != nil {
		t.Fatal(err)
	}
	code, out, errs, dir := tiny(t, "-servers", "c,ours", "-c", here, "-ours", here, "-mke2fs", c, "-c-mke2fs", c,
		"-only", "format/(start|1 GiB)|populate/")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, want := range []string{"format: 1 GiB ", "format: 1 GiB less start", "format: 1 GiB written", "populate: small files", "populate: large files"} {
		if !strings.Contains(out, want) {
			t.Errorf("no figure for %s in\n%s", want, out)
		}
	}
	leftovers(t, dir)

	if c, err := exec.LookPath("debugfs"); err == nil {
		code, out, errs, dir = tiny(t, "-servers", "c,ours", "-c", here, "-ours", here, "-debugfs", c, "-c-debugfs", c, "-only", "inspect/")
		for _, want := range []string{"inspect: rdump", "inspect: ncheck", "inspect: icheck"} {
			if code != 0 || !strings.Contains(out, want) {
				t.Errorf("no figure for %s, exit %d: %s%s", want, code, errs, out)
			}
		}
		leftovers(t, dir)
	}

	if c, err := exec.LookPath("e2fsck"); err == nil {
		code, out, errs, dir = tiny(t, "-servers", "c,ours", "-c", here, "-ours", here, "-e2fsck", c, "-c-e2fsck", c, "-only", "check/(fresh|frag)")
		for _, want := range []string{"check: fresh 100 GiB", "check: fragmented cold", "check: fragmented memory"} {
			if code != 0 || !strings.Contains(out, want) {
				t.Errorf("no figure for %s, exit %d: %s%s", want, code, errs, out)
			}
		}
		leftovers(t, dir)
	}

	code, _, errs, dir = tiny(t, "-servers", "ours", "-ours", here, "-mke2fs", "/bin/false", "-only", "populate/")
	if code != 1 || !strings.Contains(errs, "populate") {
		t.Errorf("a tool that fails: exit %d: %s", code, errs)
	}
	leftovers(t, dir)
}
