package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// notMade are the recorded m_ tests that no mke2fs has a part in.
var notMade = map[string]string{
	"m_mmp_bad_csum": "it is dumpe2fs and e2fsck on a damaged image that comes with it",
}

// TestGolden makes the file systems of the recorded m_ tests of e2fsprogs. What
// debugfs, e2fsck and dumpe2fs say of them has to be what was recorded, line by
// line, and so does what mke2fs says that scripts read.
func TestGolden(t *testing.T) {
	golden := testfs.Golden(t)
	table, err := os.ReadFile(filepath.Join(golden, "mke2fs.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string][]string{}
	for line := range strings.Lines(string(table)) {
		if w := strings.Split(strings.TrimSpace(line), "\t"); len(w) >= 3 && strings.HasPrefix(w[0], "m_") {
			cases[w[0]] = w
		}
	}
	dirs, err := filepath.Glob(filepath.Join(golden, "m_*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no m_ tests in %s: %v", golden, err)
	}
	for _, d := range dirs {
		name := filepath.Base(d)
		t.Run(name, func(t *testing.T) {
			w := cases[name]
			if why, ok := notMade[name]; ok && w == nil {
				t.Skip("does not apply:", why)
			}
			if w == nil {
				t.Fatal("nothing says how it is made")
			}
			sameAsRecorded(t, d, w[1], w[2])
		})
	}
}

func sameAsRecorded(t *testing.T, golden, args, env string) {
	record, err := os.ReadFile(filepath.Join(golden, "expect.1"))
	if err != nil {
		t.Fatal(err)
	}
	dir := environment(t)
	if err := os.WriteFile(os.Getenv("MKE2FS_CONFIG"), []byte(goldenConf), 0o600); err != nil {
		t.Fatal(err)
	}
	if k, v, ok := strings.Cut(env, "="); ok {
		t.Setenv(k, v)
	}
	img := sparse(t, filepath.Join(dir, "test_filesys"), 0)
	status, said, errs := mke2fs(strings.Fields(strings.ReplaceAll(args, "IMAGE", img))...)
	if status != 0 {
		t.Fatalf("status %d: %s%s", status, said, errs)
	}
	var now strings.Builder
	tool := func(name string, args ...string) {
		out, err := exec.Command(testfs.Tool(t, name), args...).Output()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		now.Write(out)
	}
	tool("debugfs", "-R", "features", img)
	tool("e2fsck", "-yf", "-N", "test_filesys", img)
	fmt.Fprintln(&now, "Exit status is 0")
	tool("dumpe2fs", img)

	made, rest, _ := strings.Cut(string(record), "Filesystem features:")
	want, got := steady("Filesystem features:"+rest), steady(now.String())
	for i := range max(len(want), len(got)) {
		a, b := "(nothing)", "(nothing)"
		if i < len(want) {
			a = want[i]
		}
		if i < len(got) {
			b = got[i]
		}
		if a != b {
			t.Errorf("line %d differs:\nrecorded %s\nours     %s", i+1, a, b)
			break
		}
	}
	t.Logf("%d lines", len(want))

	// The size and the places of backups are what scripts take from mke2fs.
	have := map[string]bool{}
	for _, l := range steady(said) {
		have[l] = true
	}
	for _, l := range steady(made) {
		if l = strings.TrimSuffix(l, ","); strings.HasPrefix(l, "Creating filesystem with ") || backups.MatchString(l) {
			if !have[l] && !have[l+","] {
				t.Errorf("mke2fs does not say %q, but\n%s", l, said)
			}
		}
	}
}

var (
	blanks  = regexp.MustCompile(`\s+`)
	backups = regexp.MustCompile(`^[0-9]+(, [0-9]+)*$`)
	// What differs from run to run was taken out of the record.
	unsteady = regexp.MustCompile(`^(Filesystem (UUID|flags)|Lifetime|.*(csum|[Cc]hecksum|Directory Hash Seed|[Tt]ime:|[Cc]reated|Last (checked|write|mount time)|Next check|Maximum mount|MMP|mmp_))`)
)

// steady returns the lines that are the same in each run, with single blanks.
func steady(s string) (out []string) {
	// One version of dumpe2fs has both bitmaps on a line, another has two.
	for l := range strings.Lines(strings.ReplaceAll(s, ", Inode bitmap", "\nInode bitmap")) {
		l = strings.TrimSpace(blanks.ReplaceAllString(l, " "))
		// Users and groups are named or not, and checks noted, by version.
		l = strings.TrimSuffix(strings.TrimSuffix(l, " (user root)"), " (group root)")
		if l != "" && !unsteady.MatchString(l) {
			out = append(out, l)
		}
	}
	return out
}

// goldenConf is the configuration of the recorded tests.
const goldenConf = `[defaults]
	base_features = sparse_super,filetype,resize_inode,dir_index,ext_attr
	blocksize = 4096
	inode_size = 256
	inode_ratio = 16384
	reserved_ratio = 5.0
	enable_periodic_fsck = true
	lazy_itable_init = false
	discard = false
	default_mntopts = ^acl
[fs_types]
	ext3 = {
		features = has_journal
	}
	ext4 = {
		features = has_journal,extent,huge_file,flex_bg,uninit_bg,dir_nlink,extra_isize
	}
	small = {
		blocksize = 1024
		inode_ratio = 4096
	}
	floppy = {
		blocksize = 1024
		inode_ratio = 8192
	}
	largefile = {
		inode_ratio = 1048576
		blocksize = -1
	}
`
