package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// ours runs this program by a name.
func ours(name string, args ...string) (stdout, stderr string, status int) {
	var out, err bytes.Buffer
	status = run(append([]string{name}, args...), strings.NewReader(""), &out, &err)
	return out.String(), err.String(), status
}

// clusterOf returns the blocks of a cluster of an image; 1 if it has none.
func clusterOf(t *testing.T, path string) uint64 {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1024)
	if _, err := f.ReadAt(b, 1024); err != nil {
		return 1
	}
	s := endian.View[ondisk.Super](b)
	if s.FeatureROCompat.Get()&ondisk.ROCompatBigalloc == 0 {
		return 1
	}
	return 1 << (s.LogClusterSize.Get() - s.LogBlockSize.Get())
}

// sameDump compares what dumpe2fs says of an image with C's, byte for byte, and
// its exit status.
func sameDump(t *testing.T, path string, args ...string) {
	t.Helper()
	sameDumpOf(t, path, clusterOf(t, path), args...)
}

func sameDumpOf(t *testing.T, path string, cluster uint64, args ...string) {
	t.Helper()
	args = append(args, path)
	want, wantStatus := testfs.Listing(t, "dumpe2fs", args...)
	want = testfs.SameListing(t, want, cluster)
	got, msg, status := ours("dumpe2fs", args...)
	if wantStatus < 0 {
		t.Logf("C dumpe2fs %s dies by a signal; ours: status %d", strings.Join(args, " "), status)
		return
	}
	if d := testfs.FirstDiff(want, got); d != "" || status != wantStatus {
		t.Errorf("dumpe2fs %s: status %d, C has %d: %s\n%s", strings.Join(args, " "), status, wantStatus, msg, d)
	}
}

// sameAll compares all listings of an image.
func sameAll(t *testing.T, path string) {
	for _, o := range [][]string{{}, {"-h"}, {"-g"}, {"-x"}, {"-g", "-x"}, {"-b"}, {"-f"}, {"-m"}, {"-i", "-m", "-x"}, {"-xh"}} {
		sameDump(t, path, o...)
	}
	for _, same := range alsoSame {
		same(t, path)
	}
}

// alsoSame compares other listings of the same images.
var alsoSame []func(t *testing.T, path string)

func superOf(t *testing.T, path string) *ondisk.Super {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1024)
	if _, err := f.ReadAt(b, 1024); err != nil {
		t.Fatal(err)
	}
	return endian.View[ondisk.Super](b)
}

// TestDumpMatrix compares all listings of images of every kind.
func TestDumpMatrix(t *testing.T) {
	specs := testfs.Matrix()
	if testing.Short() {
		specs = specs[:12]
	}
	for _, s := range specs {
		t.Run(s.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, s)
			sameAll(t, img.Path)
			if img.Journal != "" {
				sameAll(t, img.Journal)
			}
		})
	}
}

// made are what mke2fs can be asked for besides: size, then arguments.
var made = []string{
	"64M -t ext4 -O quota", "64M -t ext4 -O quota,project", "64M -t ext4 -O mmp", "64M -t ext2 -O mmp -b 1024", "64M -t ext4 -O casefold",
	"64M -t ext4 -O encrypt,verity", "64M -t ext4 -O stable_inodes,large_dir,ea_inode", "64M -o hurd -t ext2", "64M -o FreeBSD -t ext3",
	"64M -t ext4 -L label -M /mnt -e panic", "64M -t ext4 -e remount-ro", "64M -t ext4 -U clear", "64M -t ext4 -E test_fs",
	"1G -t ext4 -O sparse_super2", "1G -t ext4 -O sparse_super2 -E num_backup_sb=1", "1G -t ext4 -O sparse_super2 -E num_backup_sb=0",
	"1G -t ext4 -O sparse_super2,^sparse_super,^resize_inode", "3G -t ext4 -O meta_bg,^resize_inode -b 1024",
	"3G -t ext4 -O meta_bg,^resize_inode,^flex_bg -b 1024", "3G -t ext4 -O meta_bg,^resize_inode,^64bit,^sparse_super -b 1024",
	"2G -t ext4 -O bigalloc", "2G -t ext4 -O bigalloc -C 65536 -b 1024", "300M -t ext4 -O bigalloc,^flex_bg -C 16384",
	"1G -b 65536 -t ext4 -O bigalloc", "1G -t ext4 -G 1", "1G -t ext4 -G 64", "1G -t ext4 -G 4096 -b 1024", "1G -b 1024 -E stride=333",
	"64M -t ext2 -g 264", "64M -t ext4 -g 1024", "64M -t ext4 -E desc_size=128", "64M -t ext4 -E resize=200000", "64M -t ext4 -N 5",
	"64M -t ext4 -J size=8,location=20M", "64M -t ext4 -O fast_commit -J size=8,fast_commit_size=512", "64M -O journal_dev -b 4096",
	"64M -O journal_dev -b 1024 -L journal", "64M -t ext4 -O uninit_bg,^metadata_csum", "64M -t ext4 -O orphan_file,^metadata_csum",
	"60k -t ext2 -N 16", "129M -t ext4 -b 1024", "17G -t ext4 -E lazy_itable_init=1", "300G -t ext4 -E lazy_itable_init=1",
	"64M -t ext4 -i 1024", "64M -t ext4 -m 37.5 -O metadata_csum_seed", "1G -t ext4 -E packed_meta_blocks=1", "200M -t ext4 -O ^resize_inode,^sparse_super",
}

// TestDumpMade does the same for what the matrix does not have.
func TestDumpMade(t *testing.T) {
	for i, m := range made {
		if testing.Short() && i%4 != 0 {
			continue
		}
		t.Run(m, func(t *testing.T) {
			args := strings.Fields(m)
			path := filepath.Join(testfs.Scratch(t), "image")
			testfs.Run(t, "truncate", "-s", args[0], path)
			testfs.Run(t, "mke2fs", append(append([]string{"-q", "-F"}, args[1:]...), path)...)
			sameAll(t, path)
			for _, o := range []string{"sb=8193", "superblock=32768,bs=4096", "sb=32768", "bs=4096", "bs=1024", "sb=8193,bs=1024"} {
				sameDump(t, path, "-o", o)
				sameDump(t, path, "-h", "-o", o)
			}
		})
	}
}

// TestDumpBadBlocks lists defective blocks, in all the levels of their inode.
func TestDumpBadBlocks(t *testing.T) {
	for _, n := range []int{1, 11, 12, 13, 300} {
		var list strings.Builder
		for i := range n {
			fmt.Fprintln(&list, 20000+i*(1+i%3))
		}
		file := filepath.Join(testfs.Scratch(t), "list")
		if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		img := testfs.Mke2fs(t, testfs.Spec{Name: fmt.Sprintf("bad%d", n), BlockSize: 1024, Args: []string{"-l", file}})
		for _, o := range []string{"-b", "-h", "-x"} {
			sameDump(t, img.Path, o)
		}
	}
}

// TestDumpDamaged compares listings and exit statuses where something is wrong.
func TestDumpDamaged(t *testing.T) {
	scratch := testfs.Scratch(t)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "sound", BlockSize: 1024, Size: 32 << 20, Features: "mmp,uninit_bg"})
	good, err := os.ReadFile(img.Path)
	if err != nil {
		t.Fatal(err)
	}
	sb := endian.View[ondisk.Super](good[1024:])
	desc := func(b []byte, g int) ondisk.Desc { return ondisk.Desc(b[2048+64*g:][:64]) }
	reseal := func(b []byte) {
		s := endian.View[ondisk.Super](b[1024:])
		s.Checksum.Set(ondisk.SuperCsum(s))
	}
	resealDesc := func(b []byte, g int) {
		desc(b, g).Lo().Checksum.Set(ondisk.DescCsum(sb, sb.CsumSeed(), ondisk.Group(g), desc(b, g)))
	}
	table := int64(desc(good, 0).InodeTable()) * 1024
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
	}{
		{"superblock checksum", func(b []byte) []byte { b[1024+0x3fc]++; return b }},
		{"superblock magic", func(b []byte) []byte { b[1024+0x38]++; return b }},
		{"no superblock", func(b []byte) []byte { clear(b[:4096]); return b }},
		{"checksum type", func(b []byte) []byte { b[1024+0x175] = 7; reseal(b); return b }},
		{"revision", func(b []byte) []byte { b[1024+0x4c] = 2; reseal(b); return b }},
		{"feature", func(b []byte) []byte { b[1024+0x62] = 8; reseal(b); return b }},
		{"block size", func(b []byte) []byte { b[1024+0x18] = 9; reseal(b); return b }},
		{"inode size", func(b []byte) []byte { b[1024+0x58]++; reseal(b); return b }},
		{"descriptor size", func(b []byte) []byte { b[1024+0xfe] = 65; reseal(b); return b }},
		{"blocks per group", func(b []byte) []byte { b[1024+0x20] = 9; reseal(b); return b }},
		{"inodes per group", func(b []byte) []byte { clear(b[1024+0x28 : 1024+0x2c]); reseal(b); return b }},
		{"inode count", func(b []byte) []byte { b[1024]++; reseal(b); return b }},
		{"first block", func(b []byte) []byte { b[1024+0x17] = 9; reseal(b); return b }},
		{"descriptor checksum", func(b []byte) []byte { desc(b, 1).Lo().Checksum.Set(1); return b }},
		{"descriptor", func(b []byte) []byte { desc(b, 2).SetFreeBlocks(77); resealDesc(b, 2); return b }},
		{"no bitmap", func(b []byte) []byte { desc(b, 0).SetBlockBitmap(0); resealDesc(b, 0); return b }},
		{"bitmap nowhere", func(b []byte) []byte { desc(b, 0).SetBlockBitmap(1 << 30); resealDesc(b, 0); return b }},
		{"table nowhere", func(b []byte) []byte { desc(b, 0).SetInodeTable(1 << 30); resealDesc(b, 0); return b }},
		{"uninit with metadata elsewhere", func(b []byte) []byte {
			desc(b, 1).SetInodeTable(20000)
			desc(b, 1).SetBlockBitmap(25000)
			desc(b, 1).SetFlags(ondisk.BGBlockUninit, 0)
			resealDesc(b, 1)
			return b
		}},
		{"block bitmap checksum", func(b []byte) []byte { b[int64(desc(b, 0).BlockBitmap())*1024+900]++; return b }},
		{"inode bitmap checksum", func(b []byte) []byte { b[int64(desc(b, 0).InodeBitmap())*1024]++; return b }},
		{"bad blocks inode", func(b []byte) []byte { b[table+4] = 1; return b }},
		{"journal inode", func(b []byte) []byte { b[table+7*256+4]++; return b }},
		{"journal inode number", func(b []byte) []byte { b[1024+0xe0] = 11; reseal(b); return b }},
		{"mmp magic", func(b []byte) []byte { b[sb.MMPBlock.Get()*1024]++; return b }},
		{"mmp checksum", func(b []byte) []byte { b[sb.MMPBlock.Get()*1024+1023]++; return b }},
		{"mmp block", func(b []byte) []byte { b[1024+0x168+7] = 1; reseal(b); return b }},
		{"mmp fsck", func(b []byte) []byte { return mmpSeq(b, sb, ondisk.MMPSeqFsck) }},
		{"mmp unknown", func(b []byte) []byte { return mmpSeq(b, sb, ondisk.MMPSeqFsck+1) }},
		{"journal superblock", func(b []byte) []byte {
			i := bytes.Index(b, []byte{0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4})
			b[i]++
			return b
		}},
		{"cut at the journal", func(b []byte) []byte { return b[:table+8*256] }},
		{"cut in the descriptors", func(b []byte) []byte { return b[:2048] }},
		{"cut in the superblock", func(b []byte) []byte { return b[:1500] }},
		{"cut in half", func(b []byte) []byte { return b[:len(b)/2] }},
		{"empty", func([]byte) []byte { return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(scratch, "image")
			if err := os.WriteFile(path, c.change(bytes.Clone(good)), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, o := range [][]string{{}, {"-h"}, {"-g"}, {"-b"}, {"-f"}, {"-m"}, {"-m", "-i"}, {"-o", "sb=8193"}, {"-o", "sb=8193,bs=1024"}} {
				if strings.HasPrefix(c.name, "cut") && len(o) > 0 && o[0] == "-m" {
					continue // C reads the MMP block past the end of what it opened
				}
				sameDump(t, path, o...)
			}
		})
	}
	missing := filepath.Join(scratch, "missing")
	for _, p := range []string{missing, scratch} {
		want, wantStatus := testfs.Listing(t, "dumpe2fs", p)
		if got, _, status := ours("dumpe2fs", p); got != want || status != wantStatus {
			t.Errorf("%s: %q, status %d; C has %q, %d", p, got, status, want, wantStatus)
		}
	}
}

func mmpSeq(b []byte, sb *ondisk.Super, seq uint32) []byte {
	m := endian.View[ondisk.MMP](b[sb.MMPBlock.Get()*1024:])
	m.Seq.Set(seq)
	m.Seal(sb.CsumSeed())
	return b
}

// TestDumpMMPWaits looks at a block whose host may be alive: it is read again
// after the time in which that would have changed it.
func TestDumpMMPWaits(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "mmp", BlockSize: 1024, Size: 8 << 20, Features: "mmp"})
	img.ExpectDirty("a host seems to have it mounted")
	b, err := os.ReadFile(img.Path)
	if err != nil {
		t.Fatal(err)
	}
	sb := endian.View[ondisk.Super](b[1024:])
	write := func(seq uint32) {
		if err := os.WriteFile(img.Path, mmpSeq(b, sb, seq), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { sleep = time.Sleep }()
	for _, c := range []struct {
		name   string
		after  uint32
		status int
	}{{"dumpe2fs", 100, 0}, {"dumpe2fs", 101, statusInUse}, {"e2mmpstatus", 101, statusInUse}} {
		write(100)
		var waited time.Duration
		sleep = func(d time.Duration) {
			waited = d
			write(c.after)
		}
		args := []string{img.Path}
		if c.name == "dumpe2fs" {
			args = append(args, "-m")
		}
		out, msg, status := ours(c.name, args...)
		if status != c.status || waited != 11*time.Second || strings.Contains(out, "safe to mount") != (status == 0) {
			t.Errorf("%s, then %d: status %d after %v: %s%s", c.name, c.after, status, waited, out, msg)
		}
	}
}

// TestDumpImages lists what e2image writes.
func TestDumpImages(t *testing.T) {
	for _, s := range []testfs.Spec{
		{Name: "ext4", BlockSize: 1024, Features: "mmp,quota"}, {Name: "ext3-4k", Type: "ext3"},
		{Name: "meta_bg", BlockSize: 1024, Features: "meta_bg,^resize_inode", Size: 300 << 20},
		{Name: "bigalloc", Features: "bigalloc", Cluster: 16384, Size: 256 << 20},
	} {
		t.Run(s.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, s)
			dir := testfs.Scratch(t)
			metadata, raw, qcow := filepath.Join(dir, "metadata"), filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
			testfs.Run(t, "e2image", img.Path, metadata)
			testfs.Run(t, "e2image", "-r", img.Path, raw)
			testfs.Run(t, "e2image", "-Q", img.Path, qcow)
			for _, o := range [][]string{{"-i"}, {"-ih"}, {"-ig"}, {"-ix"}, {"-ib"}} {
				sameDumpOf(t, metadata, clusterOf(t, img.Path), o...)
			}
			sameDump(t, raw)
			// C refuses these, though there is no doubt what they are.
			want, _, _ := ours("dumpe2fs", raw)
			if got, msg, status := ours("dumpe2fs", "-i", raw); got != want || status != 0 {
				t.Errorf("-i of a raw image: status %d, %s", status, msg)
			}
			if _, msg, status := ours("dumpe2fs", "-i", qcow); status != 16 || !strings.Contains(msg, "QCOW2") {
				t.Errorf("-i of a QCOW2 image: status %d, %s", status, msg)
			}
		})
	}
}

func TestDumpCommandLine(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "offset", BlockSize: 1024, Size: 4 << 20, Features: "^has_journal"})
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"", 1, "one device"}, {"a b", 1, "one device"}, {"-q a", 1, "-q"}, {"-o x a", 1, "superblock=NUMBER"},
		{"-o sb=x a", 1, "sb"}, {"-o sb a", 1, "sb"}, {"-V", 0, "1.47"}, {"--help", 0, "superblock"}, {"img?offset=x", 22, "offset"},
		{"img?x=1", 22, "x=1"}, {"LABEL=surely-no-such-label", 2, "LABEL"}, {"UUID=00000000-0000-4000-8000-00000000feed", 2, "UUID"},
	} {
		out, msg, status := ours("dumpe2fs", strings.Fields(c.args)...)
		if status != c.status || !strings.Contains(out+msg, c.want) {
			t.Errorf("%s: status %d: %s%s", c.args, status, out, msg)
		}
	}
	b, err := os.ReadFile(img.Path)
	if err != nil {
		t.Fatal(err)
	}
	shifted := filepath.Join(testfs.Scratch(t), "shifted")
	if err := os.WriteFile(shifted, append(make([]byte, 12345), b...), 0o600); err != nil {
		t.Fatal(err)
	}
	want, _, _ := ours("dumpe2fs", img.Path)
	if got, msg, status := ours("dumpe2fs", shifted+"?offset=12345"); got != want || status != 0 {
		t.Errorf("offset: status %d, %s", status, msg)
	}
	t.Setenv("DUMPE2FS_IGNORE_80COL", "1")
	sameDump(t, img.Path)
}

// TestDumpGolden compares with recorded listings, where they are: those of file
// systems that mke2fs made, without what differs from run to run.
func TestDumpGolden(t *testing.T) {
	golden := testfs.Golden(t)
	table, err := os.ReadFile(filepath.Join(golden, "mke2fs.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "mke2fs.conf")
	if err := os.WriteFile(conf, []byte(goldenConf), 0o600); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for i, row := range strings.Split(strings.TrimSpace(string(table)), "\n") {
		col := strings.Split(row, "\t")
		if i == 0 || len(col) < 2 {
			continue
		}
		expect, err := os.ReadFile(filepath.Join(golden, col[0], "expect.1"))
		if err != nil {
			continue
		}
		_, want, ok := strings.Cut(string(expect), "\nExit status is 0\nFilesystem volume name:")
		if !ok {
			continue
		}
		ran++
		t.Run(col[0], func(t *testing.T) {
			path := filepath.Join(testfs.Scratch(t), "image")
			goldenMake(t, path, conf, row)
			testfs.Listing(t, "e2fsck", "-yf", "-N", "test_filesys", path)
			got, msg, status := ours("dumpe2fs", path)
			if d := testfs.FirstDiff(goldenFilter("Filesystem volume name:"+want), goldenFilter(got)); d != "" || status != 0 {
				t.Errorf("status %d: %s\n%s", status, msg, d)
			}
		})
	}
	if ran == 0 {
		t.Error("no case was run")
	}
	t.Run("m_mmp_bad_csum", func(t *testing.T) {
		if testing.Short() {
			t.Skip("C e2fsck waits for the other host")
		}
		goldenMMP(t, filepath.Join(golden, "m_mmp_bad_csum"))
	})
}
