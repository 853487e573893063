//go:build linux

package testfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Listing runs a C tool that lists and returns what it printed, without its
// errors, and its exit status, negative if a signal ended it. Time zone and
// users are this machine's, as for a tool of ours in the test's process.
func Listing(t testing.TB, name string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(Tool(t, name), args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "E2FSPROGS_LIBMAGIC_SUPPRESS=1", "DEBUGFS_PAGER=__none__")
	var out bytes.Buffer
	cmd.Stdout = &out
	err := cmd.Run()
	var e *exec.ExitError
	if err != nil && !errors.As(err, &e) {
		t.Fatalf("%s: %v", name, err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// OldListing says that the C tools here are 1.47.0, whose listings differ from
// those since 1.47.1: superblock times have 32 bits, two labels have a tab in
// them, runs of free clusters end with the first block of the last one, and
// logdump -O does not stop where it began.
func OldListing(t testing.TB) bool {
	t.Helper()
	out, _ := exec.Command(Tool(t, "dumpe2fs"), "-V").CombinedOutput() // it exits with 0 or fails to say its version
	return strings.Contains(string(out), "dumpe2fs 1.47.0 ")
}

var oldLabel = regexp.MustCompile(`(?m)^(Inode size|Journal device):\t *`)

// SameListing makes of a listing by a C tool what those since 1.47.1 print. With
// cluster, the blocks of a cluster, runs of free blocks are adapted.
func SameListing(t testing.TB, out string, cluster uint64) string {
	t.Helper()
	if !OldListing(t) {
		return out
	}
	out = oldLabel.ReplaceAllStringFunc(out, func(s string) string {
		label, _, _ := strings.Cut(s, "\t")
		return fmt.Sprintf("%-26s", label)
	})
	if cluster <= 1 {
		return out
	}
	var b strings.Builder
	for l := range strings.Lines(out) {
		runs, ok := strings.CutPrefix(l, "  Free blocks: ")
		if !ok || runs == "\n" {
			b.WriteString(l)
			continue
		}
		b.WriteString("  Free blocks: ")
		for i, r := range strings.Split(strings.TrimSuffix(runs, "\n"), ", ") {
			first, last, ok := strings.Cut(r, "-")
			if !ok {
				last = first
			}
			n, err := strconv.ParseUint(last, 0, 64)
			if err != nil {
				t.Fatalf("run of free blocks %q", r)
			}
			if i > 0 {
				b.WriteString(", ")
			}
			if hex, ok := strings.CutPrefix(last, "0x"); ok {
				last = fmt.Sprintf("0x%0*x", len(hex), n+cluster-1)
			} else {
				last = fmt.Sprint(n + cluster - 1)
			}
			b.WriteString(first + "-" + last)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// FirstDiff returns where two listings begin to differ, with some lines from
// there on; "" if they do not.
func FirstDiff(want, got string) string {
	if want == got {
		return ""
	}
	a, b := strings.SplitAfter(want, "\n"), strings.SplitAfter(got, "\n")
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	show := func(l []string) string {
		return fmt.Sprintf("%q", strings.Join(l[min(i, len(l)):min(i+3, len(l))], ""))
	}
	return fmt.Sprintf("line %d:\nC:    %s\nours: %s", i+1, show(a), show(b))
}
