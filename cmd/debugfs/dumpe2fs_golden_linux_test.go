package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// goldenConf is the configuration of the recorded cases.
const goldenConf = `[defaults]
	base_features = sparse_super,filetype,resize_inode,dir_index,ext_attr
	blocksize = 4096
	inode_size = 256
	inode_ratio = 16384
	reserved_ratio = 5.0
	enable_periodic_fsck = true
	lazy_itable_init = false
	no_discard = true
	default_mntopts = ^acl
[fs_types]
	ext3 = {
		features = has_journal
	}
	ext4 = {
		features = has_journal,extent,huge_file,flex_bg,uninit_bg,dir_nlink,extra_isize
		inode_size = 256
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
		blocksize = -1
		inode_ratio = 1048576
	}
`

// goldenMake makes the file system of a row of the table of recorded cases, by
// C mke2fs.
func goldenMake(t *testing.T, path, conf, row string) {
	col := strings.Split(row, "\t")
	if testfs.OldListing(t) && strings.Contains(col[1], "root_selinux") {
		t.Skip("mke2fs is too old for root_selinux")
	}
	t.Setenv("MKE2FS_CONFIG", conf)
	for _, v := range strings.Fields(col[2]) {
		if key, value, ok := strings.Cut(v, "="); ok {
			t.Setenv(key, value)
		}
	}
	testfs.Run(t, "truncate", "-s", "0", path)
	var args []string
	for _, a := range strings.Fields(col[1]) {
		if a == "IMAGE" {
			a = path
		}
		args = append(args, a)
	}
	testfs.Run(t, "mke2fs", append([]string{"-q"}, args...)...)
}

var (
	// goldenDropped are lines that differ from run to run.
	goldenDropped = regexp.MustCompile(`^(Filesystem (UUID|flags|created)|Last (mount time|write time|checked)|Maximum mount count|Next check after|Lifetime writes|Directory Hash Seed|Checksum|Journal checksum|Suggested)`)
	goldenOwner   = regexp.MustCompile(`(?m)^(Reserved blocks [ug]id:.*) \((user|group) .*\)$`)
	goldenCsum    = regexp.MustCompile(`,? csum 0x[0-9a-f]+`)
)

// goldenFilter drops from a listing what the recorded ones lack.
func goldenFilter(out string) string {
	lines := slices.DeleteFunc(strings.SplitAfter(out, "\n"), goldenDropped.MatchString)
	out = goldenOwner.ReplaceAllString(strings.Join(lines, ""), "$1")
	// Some were recorded with the bitmaps in one row.
	return strings.ReplaceAll(goldenCsum.ReplaceAllString(out, ""), "\n  Inode bitmap at", ", Inode bitmap at")
}

// goldenMMP runs the recorded case of a bad MMP block: dumpe2fs -m, a repair,
// and dumpe2fs -m and -m -i.
func goldenMMP(t *testing.T, dir string) {
	path := filepath.Join(testfs.Scratch(t), "image")
	testfs.Unpack(t, filepath.Join(dir, "image.gz"), path)
	want, err := os.ReadFile(filepath.Join(dir, "expect"))
	if err != nil {
		t.Fatal(err)
	}
	sections := regexp.MustCompile(`(?m)^Exit status is (\d+)\n`).Split(string(want), -1)
	if len(sections) < 4 {
		t.Fatalf("%d sections", len(sections))
	}
	by := regexp.MustCompile(`by '[^']*' on .*`)
	date := regexp.MustCompile(`(mmp_update_date: |mmp_update_time: |mmp_node_name: |mmp_device_name: ).*`)
	check := func(section string, wantStatus int, args ...string) {
		t.Helper()
		out, msg, status := ours("dumpe2fs", append(args, path)...)
		got := by.ReplaceAllString(strings.ReplaceAll(msg+out, path, "test.img"), "by 'test_node' on test date")
		got, section = date.ReplaceAllString(got, "$1"), date.ReplaceAllString(section, "$1")
		if d := testfs.FirstDiff(section, got); d != "" || status != wantStatus {
			t.Errorf("%v: status %d: %s", args, status, d)
		}
	}
	check(sections[0], 1, "-m")
	if _, status := testfs.Listing(t, "e2fsck", "-fy", path); status > 1 {
		t.Fatalf("e2fsck: status %d", status)
	}
	check(sections[2], 0, "-m")
	check(sections[3], 0, "-m", "-i")
}
