package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

const hugeFeatures = "features = has_journal,extent,huge_file,flex_bg,metadata_csum,dir_nlink,extra_isize,sparse_super,filetype,dir_index,ext_attr,resize_inode"

// hugeConf makes a configuration with a usage type, h, that makes huge files.
func hugeConf(t *testing.T, dir string, relations ...string) {
	t.Helper()
	s := "[fs_types]\n h = {\n  inode_size = 256\n  make_hugefiles = true\n"
	for _, r := range relations {
		s += "  " + r + "\n"
	}
	path := filepath.Join(dir, "huge.conf")
	if err := os.WriteFile(path, []byte(s+" }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MKE2FS_CONFIG", path)
}

var hugeLine = regexp.MustCompile(`(?m)^Creating \d+ huge file\(s\) .*$`)

// hugeLayout returns what C tools tell of the files of an image: the counts of
// what is free, the directories, and where the data of each file lies.
func hugeLayout(t *testing.T, img string, dirs ...string) (free, list, blocks string) {
	t.Helper()
	debugfs := func(request string) string {
		out, err := exec.Command(testfs.Tool(t, "debugfs"), "-R", request, img).Output()
		if err != nil {
			t.Fatalf("debugfs -R %q: %v", request, err)
		}
		return string(out)
	}
	for l := range strings.Lines(testfs.Run(t, testfs.Tool(t, "dumpe2fs"), "-h", img)) {
		if strings.HasPrefix(l, "Free ") || strings.HasPrefix(l, "Filesystem features:") {
			free += l
		}
	}
	for _, d := range dirs {
		list += debugfs("ls -l " + d)
		for l := range strings.Lines(debugfs("ls -p " + d)) {
			f := strings.Split(l, "/")
			if len(f) < 6 || !strings.HasPrefix(f[2], "10") {
				continue
			}
			name := strings.TrimSuffix(d, "/") + "/" + f[5]
			blocks += name + "\n"
			for e := range strings.Lines(strings.ReplaceAll(debugfs(`ex "`+name+`"`), "/", " ")) {
				w := strings.Fields(e)
				if len(w) > 4 && w[0] == w[1] { // a leaf
					blocks += strings.Join(w[4:], " ") + "\n"
				}
			}
		}
	}
	return free, list, blocks
}

// The same number of files, of the same sizes and names, in the same places as
// those that C mke2fs makes.
func TestHugeFilesLikeC(t *testing.T) {
	dir := environment(t)
	c := testfs.Tool(t, "mke2fs")
	f := hugeFeatures
	for _, test := range []struct {
		size, args, in string
		relations      []string
	}{
		{"64M", "-b 4096", "/", []string{f + ",64bit"}},
		{"64M", "-b 4096", "/store", []string{f, "hugefiles_size = 4M", "hugefiles_dir = /store"}},
		{"128M", "-b 1024", "/a /a/b", []string{f + ",64bit", "num_hugefiles = 7", "hugefiles_dir = a/b/", "hugefiles_uid = 70001",
			"hugefiles_gid = 80", "hugefiles_umask = 022", "hugefiles_name = \"the file \""}},
		{"128M", "-b 1024", "/store", []string{f, "num_hugefiles = 3", "hugefiles_size = 3000K", "hugefiles_align = 1M",
			"hugefiles_dir = store", "hugefiles_name = x", "hugefiles_digits = 0", "hugefiles_slack = 5M"}},
		{"700M", "-b 4096", "/", []string{f + ",64bit", "hugefiles_align = 8M", "hugefiles_slack = 0"}},
		{"700M", "-b 4096", "/", []string{f + ",64bit,bigalloc", "hugefiles_size = 50M", "hugefiles_align = 2M"}},
		{"700M", "-b 4096", "/", []string{f + ",^flex_bg,^resize_inode", "hugefiles_size = 130M", "hugefiles_digits = 2"}},
		{"20G", "-b 4096", "/store", []string{f + ",64bit", "packed_meta_blocks = 1", "hugefiles_dir = /store", "zero_hugefiles = no"}},
		{"20G", "-b 4096", "/", []string{f + ",64bit,orphan_file", "num_hugefiles = 1", "hugefiles_size = 17G", "hugefiles_slack = 512M"}},
		{"64M", "-b 1024", "/store", []string{f + ",inline_data,casefold,quota", "num_hugefiles = 20", "hugefiles_dir = store"}},
	} {
		hugeConf(t, dir, test.relations...)
		name := fmt.Sprintf("%s %s %q", test.size, test.args, test.relations)
		theirs, ours := filepath.Join(dir, "theirs"), filepath.Join(dir, "ours")
		args := append([]string{"-F", "-U", testUUID, "-T", "h"}, strings.Fields(test.args)...)
		os.Remove(theirs)
		os.Remove(ours)
		cout := testfs.Run(t, c, append(args, theirs, test.size)...)
		status, out, errs := mke2fs(append(args, ours, test.size)...)
		if status != 0 {
			t.Errorf("%s: status %d\n%s%s", name, status, out, errs)
			continue
		}
		if err := testfs.E2fsck(t, ours, ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, want := hugeLine.FindString(out), hugeLine.FindString(cout); got != want || got == "" {
			t.Errorf("%s: printed %q, C %q", name, got, want)
		}
		in := strings.Fields(test.in)
		free, list, blocks := hugeLayout(t, ours, in...)
		cfree, clist, cblocks := hugeLayout(t, theirs, in...)
		if free != cfree {
			t.Errorf("%s: free\n%sC\n%s", name, free, cfree)
		}
		if list != clist {
			t.Errorf("%s: names\n%sC\n%s", name, list, clist)
		}
		if blocks != cblocks || !strings.Contains(blocks, " - ") {
			t.Errorf("%s: blocks\n%sC\n%s", name, blocks, cblocks)
		}
	}
}

// Each file is one piece, aligned, and the next follows it: what their extent trees
// take is before the first.
func TestHugeFilesInOnePiece(t *testing.T) {
	dir := environment(t)
	img := filepath.Join(dir, "image")
	for _, features := range []string{"^resize_inode,sparse_super2", "^resize_inode,sparse_super2,bigalloc"} {
		hugeConf(t, dir, hugeFeatures+","+features, "num_backup_sb = 0", "packed_meta_blocks = true", "flex_bg_size = 65536",
			"num_hugefiles = 3", "hugefiles_align = 4M", "hugefiles_size = 330M", "blocksize = 1024", "hugefiles_slack = 3M")
		os.Remove(img)
		if status, out, errs := mke2fs("-T", "h", img, "1100M"); status != 0 {
			t.Fatalf("%s: status %d\n%s%s", features, status, out, errs)
		}
		if err := testfs.E2fsck(t, img, ""); err != nil {
			t.Error(err)
		}
		_, _, blocks := hugeLayout(t, img, "/")
		next, files, runs := 0, 0, 0
		for l := range strings.Lines(blocks) {
			if strings.HasPrefix(l, "/") {
				files++
				continue
			}
			var lblk, lend, from, to, n int
			if _, err := fmt.Sscanf(l, "%d - %d %d - %d %d", &lblk, &lend, &from, &to, &n); err != nil {
				t.Fatalf("%q: %v", l, err)
			}
			if from%4096 != 0 || next != 0 && from != next {
				t.Errorf("%s: file %d has block %d at %d, after %d", features, files, lblk, from, next)
			}
			next = to + 1
			runs++
		}
		if files != 3 || runs != 3*11 {
			t.Errorf("%s: %d files of %d extents\n%s", features, files, runs, blocks)
		}
	}
}

// On a device full of something else the kernel reads zeros from the files, and
// what was filled in besides.
func TestHugeFilesMounted(t *testing.T) {
	dir := environment(t)
	src := filepath.Join(dir, "src")
	if err := os.MkdirAll(filepath.Join(src, "d1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "d1", "f1"), make([]byte, 70000), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, fill := range [][]string{nil, {"-d", src}} {
		img := filepath.Join(dir, fmt.Sprint("image", len(fill)))
		if err := os.WriteFile(img, bytes.Repeat([]byte("stale..."), 4<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		hugeConf(t, dir, hugeFeatures, "num_hugefiles = 5", "hugefiles_size = 3M", "hugefiles_dir = store/deep",
			"hugefiles_uid = 1000", "hugefiles_gid = 1001", "hugefiles_umask = 027", "blocksize = 1024")
		args := append([]string{"-v", "-F", "-T", "h", "-E", "nodiscard"}, fill...)
		status, out, errs := mke2fs(append(args, img)...)
		if status != 0 || !strings.Contains(out, "Creating 5 huge file(s) with 3072 blocks each: done\n") {
			t.Fatalf("status %d\n%s%s", status, out, errs)
		}
		image := testfs.Adopt(t, img)
		mnt := testfs.KernelMount(t, image, "ro")
		found := 0
		err := filepath.WalkDir(filepath.Join(mnt.Dir, "store"), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st, err := d.Info()
			if err != nil {
				return err
			}
			want := fs.ModeDir | 0o750
			if !d.IsDir() {
				found++
				want = 0o640
				data, err := os.ReadFile(path)
				if err != nil || len(data) != 3<<20 || len(bytes.Trim(data, "\x00")) != 0 {
					t.Errorf("%s: %d bytes that are not all zero, %v", path, len(data), err)
				}
			}
			if o := st.Sys().(*syscall.Stat_t); o.Uid != 1000 || o.Gid != 1001 || st.Mode() != want {
				t.Errorf("%s: owner %d:%d, mode %v", path, o.Uid, o.Gid, st.Mode())
			}
			return nil
		})
		if err != nil || found != 5 {
			t.Errorf("%d files, %v", found, err)
		}
		if _, err := os.Stat(filepath.Join(mnt.Dir, "d1", "f1")); (err == nil) != (fill != nil) {
			t.Errorf("of %q: %v", fill, err)
		}
		if err := mnt.Unmount(); err != nil {
			t.Fatal(err)
		}
	}
	// Quotas count both, which e2fsck looks at.
	hugeConf(t, dir, hugeFeatures+",quota,project", "num_hugefiles = 5", "hugefiles_size = 3M", "hugefiles_uid = 1000")
	for _, fill := range [][]string{nil, {"-d", src}} {
		img := filepath.Join(dir, "quota")
		os.Remove(img)
		if status, out, errs := mke2fs(append(append([]string{"-T", "h"}, fill...), img, "64M")...); status != 0 {
			t.Fatalf("quota: status %d\n%s%s", status, out, errs)
		}
		if err := testfs.E2fsck(t, img, ""); err != nil {
			t.Error(err)
		}
	}
}

// Alignment is to the disk where the place on it is known.
func TestHugeFilesAlignDisk(t *testing.T) {
	dir := environment(t)
	img := filepath.Join(dir, "disk")
	for _, c := range []struct {
		on   string
		want int
	}{{"false", 0}, {"true", 100}} {
		hugeConf(t, dir, hugeFeatures, "hugefiles_size = 2M", "num_hugefiles = 1", "hugefiles_align = 1M", "blocksize = 1024", "hugefiles_align_disk = "+c.on)
		sparse(t, img, 64<<20+100<<10)
		if status, out, errs := mke2fs("-F", "-T", "h", "-E", "offset=102400", img, "64M"); status != 0 {
			t.Fatalf("status %d\n%s%s", status, out, errs)
		}
		part := filepath.Join(dir, "part")
		testfs.Run(t, testfs.Tool(t, "dd"), "if="+img, "of="+part, "bs=1k", "skip=100", "status=none")
		if err := testfs.E2fsck(t, part, ""); err != nil {
			t.Error(err)
		}
		_, _, blocks := hugeLayout(t, part, "/")
		var name string
		var lblk, lend, from int
		if _, err := fmt.Sscanf(blocks, "%s\n%d - %d %d", &name, &lblk, &lend, &from); err != nil || (from+c.want)%1024 != 0 {
			t.Errorf("hugefiles_align_disk=%s: at %d, %v\n%s", c.on, from, err, blocks)
		}
	}
}

// What cannot be made is refused, and leaves no file system if it was begun.
func TestHugeFilesRefused(t *testing.T) {
	dir := environment(t)
	img := filepath.Join(dir, "image")
	for _, c := range []struct {
		relations string
		args      []string
		want      string
		begun     bool
	}{
		{hugeFeatures + ",^extent", nil, "needs the extent feature", false},
		{"hugefiles_size = big", nil, "hugefiles_size", false},
		{"hugefiles_slack = -1", nil, "hugefiles_slack", false},
		{"num_hugefiles = many", nil, "num_hugefiles", false},
		{"hugefiles_umask = 01000", nil, "hugefiles_umask", false},
		{"hugefiles_dir = /a/../b", nil, "hugefiles_dir", false},
		{"hugefiles_name = a/b", nil, "hugefiles_name", false},
		{"blocksize = 4096", []string{"-d", dir, "--size=auto"}, "size is to be found", false},
		{"hugefiles_dir = lost+found", nil, "file exists", true},
		{"hugefiles_size = 1G", nil, "262144 blocks does not fit", true},
		{"hugefiles_slack = 1G", nil, "hugefiles_slack", true},
		{"num_hugefiles = 100000", nil, "too few", true},
		{"hugefiles_size = 16M\nnum_hugefiles = 40", nil, "no space left", true},
	} {
		features := hugeFeatures
		if strings.HasPrefix(c.relations, "features") {
			features = ""
		}
		hugeConf(t, dir, features, c.relations)
		sparse(t, img, 64<<20)
		testfs.Run(t, testfs.Tool(t, "mke2fs"), "-q", "-F", "-t", "ext2", img)
		args := append([]string{"-F", "-b", "4096", "-T", "h"}, c.args...)
		args = append(args, img)
		status, out, errs := mke2fs(args...)
		if status != 1 || !strings.Contains(errs, c.want) {
			t.Errorf("%q: status %d\n%s%s", c.relations, status, out, errs)
		}
		if err := exec.Command(testfs.Tool(t, "dumpe2fs"), "-h", img).Run(); (err != nil) != c.begun {
			t.Errorf("%q: dumpe2fs: %v", c.relations, err)
		}
	}
	// -S repairs, and makes no files.
	hugeConf(t, dir, hugeFeatures)
	if status, out, errs := mke2fs("-F", "-S", "-T", "h", img, "64M"); status != 0 || strings.Contains(out, "huge") {
		t.Errorf("-S: status %d\n%s%s", status, out, errs)
	}
}

// Number and size where there are so many blocks: those of C mke2fs, but for whole
// clusters.
func TestHugeFilesFit(t *testing.T) {
	for _, c := range []struct {
		h           hugeFiles
		free        uint64
		block       int
		ratio       uint64
		count, size uint64
		before      uint64
	}{
		{hugeFiles{slack: 256}, 15087, 4096, 1, 1, 0, 256 + 1},
		{hugeFiles{slack: 256, size: 1024}, 15087, 4096, 1, 14, 1024, 256 + 1},
		{hugeFiles{slack: 1024, count: 7}, 121283, 1024, 1, 7, 17179, 1024 + 1},
		{hugeFiles{slack: 2560, count: 5}, 174304, 4096, 16, 5, 34336, 2560 + 1},
		{hugeFiles{slack: 256, count: 4}, 5034122, 4096, 1, 4, 1258462, 256 + 4*4 + 1},
	} {
		h := c.h
		before, err := h.fit(c.free, c.block, c.ratio)
		if err != nil || h.count != c.count || h.size != c.size || before != c.before {
			t.Errorf("%+v in %d: %d of %d blocks after %d, %v", c.h, c.free, h.count, h.size, before, err)
		}
	}
	for _, c := range []struct{ n, want uint64 }{{0, 0}, {4 * ondisk.MaxExtentLen, 0}, {4*ondisk.MaxExtentLen + 1, 4}, {170 * ondisk.MaxExtentLen, 5}} {
		if got := nodeBlocks(c.n, 4096, 1); got != c.want {
			t.Errorf("for the map of %d blocks: %d, want %d", c.n, got, c.want)
		}
	}
	for _, c := range [][4]uint64{{5, 0, 3, 5}, {5, 4, 0, 8}, {8, 4, 0, 8}, {8, 4, 1, 11}, {7, 4, 5, 7}} {
		if got := roundUp(c[0], c[1], c[2]); got != c[3] {
			t.Errorf("roundUp(%d, %d, %d) = %d, want %d", c[0], c[1], c[2], got, c[3])
		}
	}
}
