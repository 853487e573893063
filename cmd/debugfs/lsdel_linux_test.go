package main

import (
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestDeleted lists what C debugfs has deleted, whose blocks are still mapped:
// some are free, some are used again. Inodes come back by undel.
func TestDeleted(t *testing.T) {
	testfs.NeedRoot(t)
	for _, s := range samples {
		t.Run(s.Name, func(t *testing.T) {
			img := sample(t, s)
			for _, req := range []string{"kill_file data", "kill_file frag", "kill_file far", "rm a/x", "rm a/old", "setb 9000 50", "kill_file big"} {
				cDebugfs(t, "-w", "-R", req, img.Path)
			}
			img.ExpectDirty("files are deleted under their names")
			for _, req := range []string{"lsdel", "lsdel 600", "list_deleted_inodes 1000000000"} {
				want := cDebugfs(t, "-R", req, img.Path)
				status, got, errs := debugfs("-R", req, img.Path)
				if got != want || status != 0 {
					t.Errorf("%s: %d: %s%s", req, status, firstDifference(got, want), errs)
				}
				if strings.Count(want, "\n") < 4 {
					t.Errorf("%s: C debugfs finds only\n%s", req, want)
				}
			}
		})
	}
}
