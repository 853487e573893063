// Testsum runs "go test -json" with its arguments, prints what failed and why
// tests were skipped, and ends with the line "N passed, N failed, N skipped".
// Tests and subtests count alike; a package that does not build, or dies
// outside of a test, counts as one failure. The exit status is 1 if anything
// failed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// event is a line of go test -json; see "go doc test2json".
type event struct {
	Action      string
	Package     string
	ImportPath  string // of a build event
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// A summary counts test events and keeps the output of tests that run.
type summary struct {
	w                     io.Writer
	passed, failed, skips int
	output                map[string][]string // by package, NUL, test
	failedIn              map[string]int      // failed tests by package
	reasons               map[string]int      // why tests were skipped
}

func newSummary(w io.Writer) *summary {
	return &summary{w: w, output: map[string][]string{}, failedIn: map[string]int{}, reasons: map[string]int{}}
}

func (s *summary) read(r io.Reader) error {
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				s.w.Write(line) // not ours: pass it on
			} else {
				s.add(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) add(e event) {
	key := e.Package + "\x00" + e.Test
	switch e.Action {
	case "output":
		if l := s.output[key]; len(l) < 2000 {
			s.output[key] = append(l, e.Output)
		}
	case "build-output":
		io.WriteString(s.w, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e, s.output[key])
		} else {
			s.endTest(e, s.output[key])
		}
		delete(s.output, key)
	}
}

func (s *summary) endTest(e event, out []string) {
	switch e.Action {
	case "pass":
		s.passed++
	case "skip":
		s.skips++
		s.reasons[skipReason(out)]++
	case "fail":
		s.failed++
		s.failedIn[e.Package]++
		fmt.Fprintf(s.w, "--- FAIL: %s %s (%.2fs)\n", e.Package, e.Test, e.Elapsed)
		for _, l := range out {
			if !strings.HasPrefix(l, "=== ") {
				io.WriteString(s.w, l)
			}
		}
	}
}

func (s *summary) endPackage(e event, out []string) {
	switch {
	case e.Action == "fail" && (e.FailedBuild != "" || s.failedIn[e.Package] == 0):
		// Nothing that ran failed, so what failed is the build, an init, a
		// TestMain, or a test that took the process with it.
		s.failed++
		fmt.Fprintf(s.w, "--- FAIL: %s\n%s", e.Package, strings.Join(out, ""))
	case e.Action == "pass":
		fmt.Fprintf(s.w, "ok   %s %.1fs\n", e.Package, e.Elapsed)
	case e.Action == "fail":
		fmt.Fprintf(s.w, "FAIL %s %.1fs\n", e.Package, e.Elapsed)
	}
}

// skipReason finds the message of t.Skip in a test's output.
func skipReason(out []string) string {
	for _, l := range slices.Backward(out) {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "===") || strings.HasPrefix(l, "---") {
			continue
		}
		if file, msg, ok := strings.Cut(l, ": "); ok && strings.Contains(file, ".go:") {
			return msg
		}
		return l
	}
	return "no reason given"
}

func (s *summary) finish() {
	for _, r := range slices.Sorted(func(yield func(string) bool) {
		for r := range s.reasons {
			if !yield(r) {
				return
			}
		}
	}) {
		fmt.Fprintf(s.w, "skipped %d: %s\n", s.reasons[r], r)
	}
	fmt.Fprintf(s.w, "%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skips)
}

func run(args []string, stdout, stderr io.Writer) int {
	s := newSummary(stdout)
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = stderr
	cmd.WaitDelay = 10 * time.Second // a process left by a test may hold the pipe
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		err = s.read(out)
		if werr := cmd.Wait(); err == nil {
			err = werr
		}
	}
	if err != nil && s.failed == 0 {
		fmt.Fprintf(stdout, "go test: %v\n", err)
		s.failed++
	}
	s.finish()
	if s.failed > 0 {
		return 1
	}
	return 0
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }
