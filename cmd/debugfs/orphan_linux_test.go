package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestOrphans lists inodes that are open and have no name while the kernel is
// writing, in the list and in the orphan file.
func TestOrphans(t *testing.T) {
	testfs.NeedRoot(t)
	for features, want := range map[string]string{
		"^orphan_file": `^Orphan inode list:\nino \d+ +links_count 0 +size 100 +\nino \d+ +links_count 0 +size 99 +\n$`,
		"orphan_file":  `^Orphan inode list empty\nDumping orphan file inode \d+:\nino \d+ +links_count 0 +size (99|100) +\nino \d+ +links_count 0 +size (99|100) +\n$`,
	} {
		t.Run(features, func(t *testing.T) {
			img := testfs.Mke2fs(t, testfs.Spec{Name: "orphans", Size: 32 << 20, Features: features})
			m := testfs.KernelMount(t, img, "")
			var open []*os.File
			for _, size := range []int{99, 100} {
				f, err := os.Create(filepath.Join(m.Dir, "file"))
				if err != nil {
					t.Fatal(err)
				}
				open = append(open, f)
				if _, err := f.Write(make([]byte, size)); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(f.Name()); err != nil {
					t.Fatal(err)
				}
			}
			if err := open[0].Sync(); err != nil {
				t.Fatal(err)
			}
			testfs.Run(t, "sync", "-f", m.Dir)
			used := img.Copy(t)
			used.ExpectDirty("it is a copy of one in use")
			for _, f := range open {
				f.Close()
			}
			if err := m.Unmount(); err != nil {
				t.Fatal(err)
			}
			_, out, errs := debugfs("-n", "-R", "orphan_inodes", used.Path)
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("%s%s", out, errs)
			}
			if _, out, _ := debugfs("-R", "orphan", img.Path); !strings.HasPrefix(out, "Orphan inode list empty\n") || strings.Contains(out, "links_count") {
				t.Errorf("after unmounting: %s", out)
			}
		})
	}
}
