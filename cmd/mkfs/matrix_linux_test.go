package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

const (
	testUUID = "6b2f1c0e-5d7a-4c39-9b1e-0a4455667788"
	testSeed = "9a8b7c6d-5e4f-4a3b-8c2d-1e0f12345678"
	testTime = "1700000000"
)

// conf is the configuration of all tests, so that no machine's decides.
const conf = `[defaults]
	base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
	default_mntopts = acl,user_xattr
	enable_periodic_fsck = 0
	blocksize = 4096
	inode_size = 256
	inode_ratio = 16384
[fs_types]
	ext3 = {
		features = has_journal
	}
	ext4 = {
		features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
	}
	small = {
		blocksize = 1024
		inode_ratio = 4096
	}
	floppy = {
		blocksize = 1024
		inode_ratio = 8192
	}
	news = {
		inode_ratio = 4096
	}
	largefile = {
		inode_ratio = 1048576
		blocksize = -1
	}
	hurd = {
		blocksize = 4096
		inode_size = 128
		warn_y2038_dates = 0
	}
	odd = {
		features = ^dir_index,uninit_bg
		hash_alg = tea
		errors = remount-ro
		reserved_ratio = 1.5
		flex_bg_size = 4
		enable_periodic_fsck = 1
		options = stride=8
		default_mntopts = journal_data,^acl,nobarrier
	}
`

// environment sets what C and we look at.
func environment(t testing.TB) (dir string) {
	dir = testfs.Scratch(t)
	c := filepath.Join(dir, "mke2fs.conf")
	if err := os.WriteFile(c, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{
		"MKE2FS_CONFIG": c, "E2FSPROGS_FAKE_TIME": testTime, "LC_ALL": "C", "TZ": "UTC", "MKE2FS_FIRST_META_BG": "",
		"MKE2FS_DEVICE_SECTSIZE": "", "MKE2FS_DEVICE_PHYS_SECTSIZE": "", "SOURCE_DATE_EPOCH": "", "E2FSPROGS_LIBMAGIC_SUPPRESS": "1",
	} {
		t.Setenv(k, v)
	}
	return dir
}

// mke2fs runs our command in this process.
func mke2fs(args ...string) (status int, stdout, stderr string) {
	var out, err bytes.Buffer
	status = run(append([]string{"mke2fs"}, args...), strings.NewReader(""), &out, &err)
	return status, out.String(), err.String()
}

// arguments adds what makes an image the same each time.
func arguments(args []string) []string {
	out := []string{"-q", "-F", "-U", testUUID}
	seed := "hash_seed=" + testSeed
	for i := 0; i < len(args); i++ {
		out = append(out, args[i])
		if args[i] == "-E" && i+1 < len(args) {
			i++
			out = append(out, args[i]+","+seed)
			seed = ""
		}
	}
	if seed != "" {
		out = append(out, "-E", seed)
	}
	return out
}

// cases are one each of what a command line can ask for, and sizes.
var cases = []string{
	"64M -t ext4", "300M -t ext4", "64M -t ext3", "64M -t ext2", "64M", "2G -t ext4", "1G -t ext3", "1G -t ext2",
	"64M -O none", "64M -r 0", "512k -t ext2 -r 0", "1M -t ext4", "400k -t ext4", "60k -t ext2 -N 16", "100k -t ext3 -N 16",
	"4M -t ext4", "129M -t ext4", "513M -t ext4", "136M -t ext4 -b 1024", "144M -t ext4 -b 1024",
	"17G -t ext4", "300G -t ext4", "20T -t ext4",
	"64M -t ext4 -O bigalloc", "2G -t ext4 -O bigalloc", "2G -t ext4 -O bigalloc -C 65536 -b 1024",
	"300M -t ext4 -O bigalloc,^flex_bg -C 16384", "1G -b 65536 -t ext4 -O bigalloc",
	"64M -t ext4 -O quota,bigalloc -E root_owner=1234:100",
	"64M -t ext4 -O project", "64M -t ext4 -O quota,project", "64M -t ext4 -O quota -E quotatype=usrquota", "64M -t ext4 -O quota,^project -E quotatype=usrquota:prjquota",
	"64M -t ext4 -O quota -E root_owner=1234:100", "64M -t ext2 -O quota", "64M -t ext4 -O quota -b 2048",
	"64M -t ext4 -O meta_bg,^resize_inode", "3G -t ext4 -O meta_bg,^resize_inode -b 1024",
	"3G -t ext4 -O meta_bg,^resize_inode,^flex_bg -b 1024",
	"3G -t ext4 -O meta_bg,^resize_inode,^64bit,^sparse_super -b 1024",
	"64M -t ext4 -O metadata_csum_seed", "64M -t ext4 -O orphan_file", "64M -t ext3 -O orphan_file -b 1024",
	"64M -t ext4 -O orphan_file -E orphan_file_size=300k",
	"64M -t ext4 -I 128", "64M -t ext4 -I 512 -O inline_data", "64M -t ext4 -O inline_data", "64M -t ext4 -I 1024 -b 1024",
	"64M -t ext4 -O casefold", "64M -t ext4 -E encoding=utf8-12.1,encoding_flags=strict", "64M -t ext4 -O encrypt,verity",
	"64M -t ext4 -O stable_inodes,large_dir,ea_inode", "1G -t ext4 -O sparse_super2",
	"1G -t ext4 -O sparse_super2 -E num_backup_sb=1", "1G -t ext4 -O sparse_super2 -E num_backup_sb=0",
	"100M -t ext4 -O sparse_super2 -b 4096", "1G -t ext4 -O sparse_super2,^sparse_super,^resize_inode",
	"200M -t ext4 -O sparse_super2 -b 4096", "200M -t ext4 -O sparse_super2 -b 4096 -E num_backup_sb=1",
	"1G -t ext4 -G 1", "1G -t ext4 -G 2", "1G -t ext4 -G 64", "1G -t ext4 -G 4096 -b 1024", "1G -t ext4 -O ^flex_bg",
	"1G -t ext4 -O ^flex_bg -E stride=16,stripe_width=64", "1G -E stride=16,stripe_width=64", "1G -b 1024 -E stride=333",
	"64M -g 264", "64M -g 1024 -t ext4", "64M -g 8192 -b 4096 -t ext4", "64M -t ext4 -O ^flex_bg -g 2048",
	"64M -b 65536 -t ext4", "1G -b 16384 -t ext4", "64M -b 2048 -t ext3", "256M -b 32768 -t ext2",
	"64M -t ext4 -N 5", "64M -t ext4 -N 60000 -b 1024", "64M -t ext4 -i 1024", "64M -t ext4 -i 1024 -b 4096",
	"64M -t ext4 -m 0", "64M -t ext4 -m 37.5", "64M -t ext4 -L label -M /mnt -e panic", "64M -o hurd", "64M -o FreeBSD -t ext3",
	"64M -t ext4 -E packed_meta_blocks=1", "1G -t ext4 -E packed_meta_blocks=1", "64M -E packed_meta_blocks=1",
	"64M -t ext4 -E lazy_itable_init=0", "64M -t ext4 -E nodiscard",
	"64M -t ext4 -E nodiscard,lazy_itable_init=0,lazy_journal_init=1", "64M -t ext3 -E nodiscard",
	"64M -t ext4 -E assume_storage_prezeroed=1", "64M -t ext4 -E nodiscard,assume_storage_prezeroed",
	"64M -E resize=10000000", "64M -t ext4 -E resize=200000", "64M -t ext4 -E desc_size=128", "64M -t ext4 -E test_fs",
	"64M -t ext4 -J size=20", "64M -t ext4 -J size=8,location=20M", "64M -t ext3 -J size=8,location=20M",
	"64M -t ext4 -O fast_commit", "64M -t ext4 -O fast_commit -J size=8,fast_commit_size=512", "64M -j -O ^has_journal",
	"64M -O journal_dev -b 4096", "64M -O journal_dev -b 1024 -L journal", "200G -t ext4 -J size=2000", "64M -O fast_commit",
	"64M -t ext4 -O uninit_bg,^metadata_csum", "64M -t ext4 -O ^64bit", "64M -t ext4 -O ^extent,^64bit",
	"64M -t ext4 -O ^resize_inode", "64M -t ext4 -O ^has_journal", "64M -t ext4 -O ^filetype", "64M -t ext4 -O ^extra_isize",
	"64M -T news", "64M -T largefile -t ext4", "64M -t ext4 -T odd", "600M -t ext4 -T odd,small", "64M -U clear -t ext4",
	"dirty 64M -t ext4 -E nodiscard", "dirty 64M -t ext3 -E nodiscard", "dirty 64M -t ext2 -E nodiscard",
	"dirty 64M -t ext4 -E nodiscard,lazy_itable_init=0", "dirty 200M -t ext4 -b 4096 -E nodiscard",
	"dirty 64M -t ext4 -O quota,orphan_file -E nodiscard", "dirty 64M -t ext4 -O bigalloc -E nodiscard",
	"dirty 64M -t ext4 -b 4096 -E nodiscard,lazy_journal_init=1", "dirty 64M -O journal_dev -b 4096 -E nodiscard",
	"dirty 64M -t ext4 -O meta_bg,^resize_inode,^flex_bg -E nodiscard", "dirty 64M -t ext4",
	"64M -O none,extent", "64M -t ext2 -O extent", "64M -t ext4 -N 0", "64M -t ext4 -J size=0", "64M -t ext4 -b 4k -i 16K -I 0 -g 0", "64M -t ext4 -b -2k -O bigalloc -C 32k",
	"64M -t ext4 -M /a/name/that/is/longer/than/the/place/that/a/superblock/has/for/it/is",
	"64M -s 1", "64M -O ^sparse_super,^resize_inode -b 1024", "64M -t ext4 -E offset=1048576 40M", "64M -t ext4 30M", "64M -t ext4 81920s",
}

// TestMatrix holds our images against those of C mke2fs: dumpe2fs says the
// same of both, and so do their bytes.
func TestMatrix(t *testing.T) {
	all := append([]string{}, cases...)
	all = append(all, pairwise(60)...)
	if len(all) < 150 {
		t.Errorf("%d cases", len(all))
	}
	if testing.Short() {
		all = all[:30]
	}
	for _, c := range all {
		t.Run(strings.ReplaceAll(c, "/", "_"), func(t *testing.T) { compare(t, strings.Fields(c)) })
	}
}

// factors are the choices that pairwise combines.
var factors = [][]string{
	{"", "-b 1024", "-b 2048", "-b 4096"},
	{"", "-I 128", "-I 512", "-I 1024"},
	{"-t ext4", "-t ext3", "-t ext2", "-t ext4 -O ^flex_bg", "-t ext4 -O ^metadata_csum,uninit_bg", "-t ext4 -O ^64bit"},
	{"", "-O orphan_file,has_journal", "-O quota", "-O fast_commit,has_journal", "-O large_dir,ea_inode", "-O sparse_super2"},
	{"", "-E lazy_itable_init=0", "-E nodiscard", "-E packed_meta_blocks=1", "-E root_owner=7:8", "-E stride=4"},
	{"", "-G 8", "-g 4096", "-N 3000", "-i 8192", "-m 10"},
	{"24M", "65M", "300M", "700M"},
}

// pairwise returns combinations of the factors, at most n, that have most of the
// pairs between them. They are the same each time.
func pairwise(n int) (out []string) {
	type pair struct{ f, v, g, w int }
	left := map[pair]bool{}
	for f := range factors {
		for g := f + 1; g < len(factors); g++ {
			for v := range factors[f] {
				for w := range factors[g] {
					left[pair{f, v, g, w}] = true
				}
			}
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for len(left) > 0 && len(out) < n {
		var best []int
		most := -1
		for range 60 {
			pick := make([]int, len(factors))
			for f := range pick {
				pick[f] = rnd.IntN(len(factors[f]))
			}
			gain := 0
			for f := range pick {
				for g := f + 1; g < len(pick); g++ {
					if left[pair{f, pick[f], g, pick[g]}] {
						gain++
					}
				}
			}
			if gain > most && valid(pick) {
				best, most = pick, gain
			}
		}
		var words []string
		feats := []string{}
		for f := range best {
			for g := f + 1; g < len(best); g++ {
				delete(left, pair{f, best[f], g, best[g]})
			}
			w := strings.Fields(factors[f][best[f]])
			for i := 0; i < len(w); i++ {
				if w[i] == "-O" {
					i++
					feats = append(feats, w[i])
				} else {
					words = append(words, w[i])
				}
			}
		}
		size := words[len(words)-1]
		words = words[:len(words)-1]
		if len(feats) > 0 {
			words = append(words, "-O", strings.Join(feats, ","))
		}
		out = append(out, size+" "+strings.Join(words, " "))
	}
	return out
}

// valid leaves out what is refused.
func valid(pick []int) bool {
	text := ""
	for f := range pick {
		text += " " + factors[f][pick[f]]
	}
	if strings.Contains(text, "-G 8") && (strings.Contains(text, "^flex_bg") || !strings.Contains(text, "ext4")) {
		return false
	}
	return true
}

// formatCase is one of the cases, taken apart.
type formatCase struct {
	dirty   bool   // the device holds what must not shine through
	size    string // of the device
	args    []string
	operand string // the size of the file system, "" without
	offset  int64  // of the file system on the device
}

func parseCase(words []string) (c formatCase) {
	if c.dirty = words[0] == "dirty"; c.dirty {
		words = words[1:]
	}
	c.size = words[0]
	c.args = arguments(words[1:])
	for i := len(c.args) - 1; i > 0; i-- {
		a := c.args[i]
		if a[0] >= '0' && a[0] <= '9' && (strings.HasSuffix(a, "M") || strings.HasSuffix(a, "s")) && !strings.HasPrefix(c.args[i-1], "-") {
			c.operand, c.args = a, append(c.args[:i:i], c.args[i+1:]...)
			break
		}
	}
	for _, a := range c.args {
		if _, v, ok := strings.Cut(a, "offset="); ok {
			fmt.Sscan(v, &c.offset)
		}
	}
	return c
}

// device makes the file that the case is about.
func (c *formatCase) device(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	testfs.Run(t, "truncate", "-s", c.size, path)
	if !c.dirty {
		return
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte{0x5a}, int(st.Size())), 0o600); err != nil {
		t.Fatal(err)
	}
}

// line returns the arguments of mke2fs on the device.
func (c *formatCase) line(path string) []string {
	out := append(append([]string{}, c.args...), path)
	if c.operand != "" {
		out = append(out, c.operand)
	}
	return out
}

func compare(t *testing.T, words []string) {
	dir := environment(t)
	c := parseCase(words)
	size, args, offset := c.size, c.args, c.offset
	images := map[string]string{}
	for _, who := range []string{"c", "ours"} {
		if err := os.Mkdir(filepath.Join(dir, who), 0o700); err != nil {
			t.Fatal(err)
		}
		images[who] = filepath.Join(dir, who, "image")
		c.device(t, images[who])
	}
	forC := parseCase(strings.Fields(strings.ReplaceAll(strings.Join(words, " "), "-r 0", strings.Join(testfs.Revision0(), " "))))
	testfs.Run(t, "mke2fs", forC.line(images["c"])...)
	if status, out, err := mke2fs(c.line(images["ours"])...); status != 0 {
		t.Fatalf("status %d: %s%s", status, out, err)
	}
	if strings.Contains(strings.Join(args, " "), "journal_dev") {
		sameBytes(t, images["c"], images["ours"], nil)
		return
	}
	at := images["ours"]
	if offset != 0 {
		at += fmt.Sprintf("?offset=%d", offset)
	} else if a, b := dump(t, images["c"]), dump(t, images["ours"]); a != b {
		t.Errorf("dumpe2fs differs:\n%s", firstDiff(a, b))
	}
	sameBytes(t, images["c"], images["ours"], written(t, images["ours"], offset))
	if large(size) {
		return
	}
	if out, err := exec.Command(testfs.Tool(t, "e2fsck"), "-fn", at).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	if offset == 0 {
		opens(t, images["ours"])
		mounts(t, images["ours"], strings.Join(args, " "))
	}
}

func large(size string) bool {
	return strings.HasSuffix(size, "G") && size[1] != 'G' || strings.HasSuffix(size, "T")
}

// opens opens the image by our library, and mkdir by it where that can write.
func opens(t *testing.T, path string) {
	dev, err := blockdev.Open(path, blockdev.Options{ReadOnly: true, Direct: blockdev.DirectOff})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	fs, err := ext2fs.Open(dev, ext2fs.Options{ReadOnly: true})
	if err != nil {
		t.Errorf("our Open: %v", err)
		return
	}
	root, err := fs.Iget(ondisk.RootIno)
	if err == nil {
		_, err = fs.Lookup(root, "lost+found")
		root.Put()
	}
	if err != nil {
		t.Errorf("lost+found: %v", err)
	}
	fs.Close()
}

// mounts mounts the image by the kernel, where it supports what it has.
func mounts(t *testing.T, path, args string) {
	if os.Geteuid() != 0 {
		return
	}
	for _, no := range []string{"-b 8192", "-b 16384", "-b 32768", "-b 65536", "hurd", "encrypt", "verity", "casefold", "encoding", "FreeBSD", "journal_data"} {
		if strings.Contains(args, no) {
			return
		}
	}
	img := testfs.Adopt(t, path)
	img.ExpectDirty("the kernel may leave timestamps")
	m, err := testfs.TryKernelMount(t, img, "ro")
	if err != nil {
		t.Errorf("the kernel does not mount it: %v", err)
		return
	}
	if err := m.Unmount(); err != nil {
		t.Error(err)
	}
}

// dump is what dumpe2fs says, without what differs by design: what was written
// and, with it, the checksum of the superblock; and the time in the block of
// multiple mount protection, which in C is not the time that was set.
func dump(t *testing.T, path string) string {
	args := []string{path}
	if st, err := os.Stat(path); err == nil && st.Size() > 1<<40 {
		args = append(args, "-h") // a list of all groups takes minutes
	}
	out, err := exec.Command(testfs.Tool(t, "dumpe2fs"), args...).Output()
	if err != nil {
		t.Fatalf("dumpe2fs: %v", err)
	}
	var b strings.Builder
	for l := range strings.Lines(string(out)) {
		if title, _, ok := strings.Cut(l, ":"); ok && title == "Lifetime writes" {
			l = title + "\n" // that it is counted, not how many
		}
		if strings.HasPrefix(l, "Checksum: ") || strings.Contains(l, "mmp_update_") {
			continue
		}
		b.WriteString(l)
	}
	return b.String()
}

func firstDiff(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	var out []string
	for i := 0; i < min(len(x), len(y)) && len(out) < 12; i++ {
		if x[i] != y[i] {
			out = append(out, "C    "+x[i], "ours "+y[i])
		}
	}
	return strings.Join(out, "\n")
}

// span is a range of bytes in which images may differ.
type span struct{ off, n int64 }

// written are the places that tell how much was written, and their checksums:
// in each copy of the superblock.
func written(t *testing.T, path string, offset int64) (out []span) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1024)
	if _, err := f.ReadAt(b, offset+1024); err != nil {
		t.Fatal(err)
	}
	at := []int64{offset + 1024}
	le := binary.LittleEndian
	bs, bpg, first := int64(1024)<<le.Uint32(b[24:]), int64(le.Uint32(b[32:])), int64(le.Uint32(b[20:]))
	blocks := int64(le.Uint32(b[4:])) | int64(le.Uint32(b[0x150:]))<<32
	for g := int64(1); first+g*bpg < blocks; g++ {
		at = append(at, offset+(first+g*bpg)*bs)
	}
	for _, a := range at {
		// Only what is a superblock may differ.
		if _, err := f.ReadAt(b, a); err == nil && le.Uint16(b[0x38:]) == 0xef53 {
			out = append(out, span{a + 0x178, 8}, span{a + 0x3fc, 4})
		}
	}
	return out
}

// sameBytes compares two files, without a look at their common holes.
func sameBytes(t *testing.T, a, b string, but []span) {
	t.Helper()
	fa, err := os.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	defer fb.Close()
	sa, _ := fa.Stat()
	sb, _ := fb.Stat()
	if sa.Size() != sb.Size() {
		t.Errorf("%d bytes, C has %d", sb.Size(), sa.Size())
	}
	bad := 0
	pa, pb := make([]byte, 1<<16), make([]byte, 1<<16)
	for off := int64(0); off < sa.Size(); {
		next := sa.Size()
		for _, f := range []*os.File{fa, fb} {
			if d, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA); err == nil {
				next = min(next, d)
			}
		}
		if next == sa.Size() {
			return
		}
		off = next &^ (1<<16 - 1)
		na, err := fa.ReadAt(pa, off)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		nb, _ := fb.ReadAt(pb, off)
		for len(but) > 0 && but[0].off+but[0].n <= off {
			but = but[1:]
		}
		for _, s := range but {
			if s.off >= off+int64(na) {
				break
			}
			for i := max(s.off, off); i < min(s.off+s.n, off+int64(na)); i++ {
				pa[i-off], pb[i-off] = 0, 0
			}
		}
		if !bytes.Equal(pa[:na], pb[:nb]) {
			for i := range na {
				if i < nb && pa[i] != pb[i] {
					if bad++; bad <= 6 {
						t.Errorf("byte %#x: %#02x, C has %#02x", off+int64(i), pb[i], pa[i])
					}
				}
			}
		}
		off += 1 << 16
	}
}
