package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestImage has the same shown of an image of e2image, with the device for the
// rest, as of the device; and what the image has by itself as C debugfs shows it.
func TestImage(t *testing.T) {
	testfs.NeedRoot(t)
	e2image := testfs.Tool(t, "e2image")
	for _, s := range samples {
		t.Run(s.Name, func(t *testing.T) {
			img := sample(t, s)
			meta := filepath.Join(testfs.Scratch(t), "meta")
			testfs.Run(t, e2image, img.Path, meta)
			for _, req := range readRequests {
				_, want, errs1 := debugfs("-R", req, img.Path)
				_, got, errs := debugfs("-i", "-d", img.Path, "-R", req, meta)
				if want = strings.ReplaceAll(want, img.Path, meta); got != want || errs != errs1 {
					t.Errorf("%s: %s%s", req, firstDifference(got, want), errs)
				}
			}
			for _, req := range []string{"params", "feature", "stat <2>", "testi <12>", "testi <3000>", "testb 100 3", "ffb 3 3000", "imap <100>", "ffi"} {
				want := cDebugfs(t, "-i", "-R", req, meta)
				if status, got, errs := debugfs("-i", "-R", req, meta); (got != want || status != 0) && differs(s, req) == "" {
					t.Errorf("%s: %s%s", req, firstDifference(got, want), errs)
				}
			}
			if s.Name != "inline" { // there the root needs no block
				if status, _, errs := debugfs("-i", "-R", "ls /", meta); status != 1 || !strings.Contains(errs, "give the device that does") {
					t.Errorf("a directory without -d: status %d, %s", status, errs)
				}
			}
		})
	}
	plain := testfs.Mke2fs(t, testfs.Spec{Name: "plain", Size: 8 << 20})
	for _, c := range []struct {
		args   []string
		status int
		errs   string
	}{
		{[]string{"-i", "-R", "params", plain.Path}, 1, "not an image of e2image"},
		{[]string{"-i", "-w", "-R", "params", plain.Path}, 2, "leave -w away"},
		{[]string{"-d", plain.Path, "-R", "params", plain.Path}, 2, "give -i too"},
		{[]string{"-R", "open -d x " + plain.Path}, 1, "give -i too"},
		{[]string{"-i", "-d", "/nowhere", "-R", "params", plain.Path}, 1, "data source"},
	} {
		if status, _, errs := debugfs(c.args...); status != c.status || !strings.Contains(errs, c.errs) {
			t.Errorf("%q: status %d, %q; want %d, %q", c.args, status, errs, c.status, c.errs)
		}
	}
}
