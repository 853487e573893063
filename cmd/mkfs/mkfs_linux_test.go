package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func sparse(t *testing.T, path string, size int64) string {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOutput is for the lines that scripts read.
func TestOutput(t *testing.T) {
	dir := environment(t)
	img := filepath.Join(dir, "image")
	status, out, errs := mke2fs("-t", "ext4", "-U", testUUID, img, "300M")
	if status != 0 || errs != "" {
		t.Fatalf("%d: %s%s", status, out, errs)
	}
	want := `Creating regular file ` + img + `
Creating filesystem with 307200 1k blocks and 76912 inodes
Filesystem UUID: 6b2f1c0e-5d7a-4c39-9b1e-0a4455667788
Superblock backups stored on blocks: 
	8193, 24577, 40961, 57345, 73729, 204801, 221185

Allocating group tables: done                            
Writing inode tables: done                            
Creating journal (8192 blocks): done
Writing superblocks and filesystem accounting information: done                            

`
	if trim(out) != trim(want) {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
	status, out, _ = mke2fs("-n", "-v", "-t", "ext4", "-O", "bigalloc", "-m", "2", "-E", "root_owner=3:4", img)
	for _, l := range []string{"Filesystem label=", "OS type: Linux", "Block size=1024 (log=0)", "Cluster size=16384 (log=4)",
		"Stride=0 blocks, Stripe width=0 blocks", "6144 blocks (2.00%) reserved for the super user", "First data block=0",
		"Root directory owner=3:4", "3 block groups", "131072 blocks per group, 8192 clusters per group", "6400 inodes per group"} {
		if !strings.Contains(out, l+"\n") {
			t.Errorf("-v lacks %q", l)
		}
	}
	if status != 0 {
		t.Errorf("-n: status %d: %s", status, out)
	}
	if err := testfs.E2fsck(t, img, ""); err != nil {
		t.Errorf("after -n: %v", err)
	}
	if status, _, errs := mke2fs("-V"); status != 0 || !strings.HasPrefix(errs, "mke2fs 1.47") {
		t.Errorf("-V: %d, %q", status, errs)
	}
	for topic := range topics {
		if status, out, _ := mke2fs("--help=" + topic); status != 0 || out != topics[topic] {
			t.Errorf("--help=%s: %d", topic, status)
		}
	}
}

// trim takes blanks at the ends of lines away.
func trim(s string) string { return regexp.MustCompile(`(?m)[ \t]+$`).ReplaceAllString(s, "") }

// TestRefused is for what must fail, and say why, and leave the device alone.
func TestRefused(t *testing.T) {
	dir := environment(t)
	img := sparse(t, filepath.Join(dir, "image"), 8<<20)
	for _, x := range []struct{ args, why string }{
		{"", "device is needed"},
		{"-O bigalloc @", "needs the extent feature"},
		{"-t ext4 -O ^extent @", "64bit needs the extent"},
		{"-t ext4 -O meta_bg @", "exclude each other"},
		{"-t ext4 -O ^sparse_super @", "resize_inode needs"},
		{"-O metadata_csum_seed @", "needs the metadata_csum"},
		{"-O orphan_file @", "needs a journal"},
		{"-t ext4 -I 128 -O inline_data @", "too small for inline_data"},
		{"-t ext4 -I 128 -O project @", "project ids"},
		{"-o hurd -O filetype @", "Hurd does not support"},
		{"-G 8 @", "flex_bg"}, {"-t ext4 -G 3 @", "power of two"}, {"-C 8192 @", "bigalloc"},
		{"-O needs_recovery @", "cannot be changed"}, {"-O nonsense @", "nonsense"},
		{"-i 512 @", "bytes per inode"}, {"-b 512 @", "block size"}, {"-b 3000 @", "power of two"},
		{"-I 64 @", "inode size"}, {"-I 2048 -b 1024 @", "inode size"}, {"-m 60 @", "50 percent"}, {"-m NaN @", "50 percent"},
		{"-J size=100 @", "half"}, {"-J size=1,foo @", "journal option"}, {"-b 4096 -J size=1 @", "1024 to"},
		{"-e foo @", "continue"}, {"-U foo @", "UUID"}, {"-E foo @", "extended option"}, {"-g 100 @", "256"}, {"-g 257 @", "multiple of 8"},
		{"-E resize=100 @", "resize=100"}, {"-E encoding=foo @", "encoding"}, {"-E desc_size=128 @", "64bit"},
		{"-d /nonexistent @", "nonexistent"}, {"-N 4000000 @", "too many"}, {"-r 2 @", "revision"}, {"-t ext4 -O quota -E quotatype=prjquota -I 128 @", "project ids"}, {"-t ext4 -t ext3 @", "once"}, {"-T small -T news @", "once"}, {"-i 1x @", "number"}, {"-b 3k @", "power of two"}, {"-t ext4 -E encoding_flags=strict @", "encoding="}, {"-l /nonexistent @", "bad blocks"},
		{"-J device=/nonexistent @", "nonexistent"}, {"-O journal_dev -b 4096 @ 100", "1024 or more"}, {"@ 10x", "size"}, {"@ 1 2", "too many"},
		{"-E quotatype=foo @", "quota type"}, {"-E root_owner=1 @", "UID:GID"}, {"-E hash_seed=1 @", "UUID"},
		{"-t ext4 @ 20", "too small"}, {"@#3", "no partition table"}, {"/nonexistent", "give a size"}, {"-E lazy_itable_init=7x @", "neither"},
		{"/dev/null", "neither a regular file"}, {"-L 12345678901234567 -C 3 @", "cluster size"},
	} {
		args := strings.Fields(strings.ReplaceAll(x.args, "@", img))
		status, out, errs := mke2fs(args...)
		if status != 1 || !strings.Contains(out+errs, x.why) {
			t.Errorf("%s: status %d, want %q:\n%s%s", x.args, status, x.why, out, errs)
		}
	}
	b, err := os.ReadFile(img)
	if err != nil || len(b) != 8<<20 || !bytes.Equal(b, make([]byte, len(b))) {
		t.Error("the image has changed")
	}
}

// TestMounted refuses a device that is mounted, and an image that is.
func TestMounted(t *testing.T) {
	testfs.NeedRoot(t)
	environment(t)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "mounted", Size: 16 << 20})
	testfs.KernelMount(t, img, "ro")
	status, out, errs := mke2fs("-F", img.Path)
	if status != 1 || !strings.Contains(errs, "mounted") {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
}

// TestUndo overwrites something and has C e2undo bring it back.
func TestUndo(t *testing.T) {
	dir := environment(t)
	undo := testfs.Tool(t, "e2undo")
	for _, args := range []string{"-t ext4", "-t ext3 -b 1024", "-t ext2 -b 65536", "-t ext4 -E offset=1048576"} {
		img := filepath.Join(dir, "image")
		before := bytes.Repeat([]byte("the content that was there before; "), 1<<20)
		if err := os.WriteFile(img, before, 0o600); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "undo")
		os.Remove(file)
		all := append([]string{"-q", "-F", "-z", file}, strings.Fields(args)...)
		if status, out, errs := mke2fs(append(all, img)...); status != 0 {
			t.Fatalf("%s: %s%s", args, out, errs)
		}
		if now, _ := os.ReadFile(img); bytes.Equal(now, before) {
			t.Errorf("%s: nothing was made", args)
		}
		if out, err := exec.Command(undo, file, img).CombinedOutput(); err != nil {
			t.Errorf("%s: e2undo: %v\n%s", args, err, out)
			continue
		}
		now, _ := os.ReadFile(img)
		if !bytes.Equal(now, before) {
			t.Errorf("%s: e2undo did not bring everything back", args)
		}
	}
}

// TestBadBlocks makes a file system around bad blocks from a list.
func TestBadBlocks(t *testing.T) {
	dir := environment(t)
	list := filepath.Join(dir, "bad")
	for _, x := range []struct {
		blocks string
		fails  bool
	}{{"1000\n1001\n9000\n", false}, {"2\n", true}, {"99999999\n", true}, {"x\n", true}, {many(), false}} {
		if err := os.WriteFile(list, []byte(x.blocks), 0o600); err != nil {
			t.Fatal(err)
		}
		images := map[string]string{}
		for _, who := range []string{"c", "ours"} {
			images[who] = sparse(t, filepath.Join(dir, who), 32<<20)
		}
		args := append(arguments([]string{"-t", "ext4", "-l", list}), images["ours"])
		status, out, errs := mke2fs(args...)
		if (status != 0) != x.fails {
			t.Errorf("%.20q: status %d: %s%s", x.blocks, status, out, errs)
		}
		if x.fails {
			continue
		}
		args[len(args)-1] = images["c"]
		testfs.Run(t, "mke2fs", args...)
		if a, b := dump(t, images["c"]), dump(t, images["ours"]); a != b {
			t.Errorf("dumpe2fs differs:\n%s", firstDiff(a, b))
		}
		sameBytes(t, images["c"], images["ours"], written(t, images["ours"], 0))
		if err := testfs.E2fsck(t, images["ours"], ""); err != nil {
			t.Error(err)
		}
	}
}

// many are more blocks than the inode has room for.
func many() string {
	var b strings.Builder
	for i := range 400 {
		fmt.Fprintln(&b, 12000+7*i)
	}
	return b.String()
}

// TestSuperOnly writes superblocks over those of a file system, as C does.
func TestSuperOnly(t *testing.T) {
	dir := environment(t)
	// C discards all of the device if it may, which is not what -S is for.
	args := arguments([]string{"-t", "ext4", "-E", "nodiscard"})
	images := map[string]string{}
	for _, who := range []string{"c", "ours"} {
		img := sparse(t, filepath.Join(dir, who), 64<<20)
		images[who] = img
		testfs.Run(t, "mke2fs", append(args, img)...)
		f, err := os.OpenFile(img, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt(make([]byte, 8192), 0)
		f.Close()
	}
	testfs.Run(t, "mke2fs", append(append(args, "-S"), images["c"])...)
	if status, out, errs := mke2fs(append(append(args, "-S"), images["ours"])...); status != 0 {
		t.Fatal(out, errs)
	}
	// The checksums of descriptors in C are those of before it changed them.
	var but []span
	for _, s := range written(t, images["ours"], 0) {
		but = append(but, s)
		if s.n == 4 {
			for g := range int64(8) {
				but = append(but, span{s.off + 4 + 64*g + 0x1e, 2})
			}
		}
	}
	sameBytes(t, images["c"], images["ours"], but)
	out, err := exec.Command(testfs.Tool(t, "e2fsck"), "-fy", images["ours"]).CombinedOutput()
	if e, ok := err.(*exec.ExitError); err != nil && (!ok || e.ExitCode() != 1) {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}

// TestPartition makes a file system in a partition and touches nothing else.
func TestPartition(t *testing.T) {
	dir := environment(t)
	disk := sparse(t, filepath.Join(dir, "disk"), 64<<20)
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mbr := make([]byte, 512)
	mbr[510], mbr[511] = 0x55, 0xaa
	for i, p := range [][2]uint32{{2048, 32768}, {40960, 65536}} {
		e := mbr[446+16*i:]
		e[4] = 0x83
		binary.LittleEndian.PutUint32(e[8:], p[0])
		binary.LittleEndian.PutUint32(e[12:], p[1])
	}
	if _, err := f.WriteAt(mbr, 0); err != nil {
		t.Fatal(err)
	}
	if status, out, errs := mke2fs("-q", "-t", "ext4", disk+"#2"); status != 0 {
		t.Fatal(out, errs)
	}
	var sb [1024]byte
	if _, err := f.ReadAt(sb[:], 40960*512+1024); err != nil || binary.LittleEndian.Uint16(sb[0x38:]) != ondisk.SuperMagic {
		t.Error("no superblock in the partition")
	}
	if n := binary.LittleEndian.Uint32(sb[4:]); n != 32768 {
		t.Errorf("%d blocks of 1 KiB", n)
	}
	out, err := exec.Command(testfs.Tool(t, "e2fsck"), "-fn", disk+"?offset=20971520").CombinedOutput()
	if err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	head := make([]byte, 40960*512)
	f.ReadAt(head, 0)
	if !bytes.Equal(head[:512], mbr) || !bytes.Equal(head[512:], make([]byte, len(head)-512)) {
		t.Error("what is before the partition has changed")
	}
}

// TestExternalJournal makes a journal device and a file system that uses it.
func TestExternalJournal(t *testing.T) {
	testfs.NeedRoot(t)
	dir := environment(t)
	j := sparse(t, filepath.Join(dir, "journal"), 8<<20)
	if status, out, errs := mke2fs("-q", "-F", "-O", "journal_dev", "-b", "4096", "-U", testSeed, j); status != 0 {
		t.Fatal(out, errs)
	}
	loop := strings.TrimSpace(testfs.Run(t, "losetup", "-f", "--show", j))
	defer exec.Command("losetup", "-d", loop).Run()
	images := map[string]string{}
	for _, who := range []string{"ours", "c"} {
		images[who] = sparse(t, filepath.Join(dir, who), 64<<20)
	}
	args := arguments([]string{"-t", "ext4", "-b", "4096", "-J", "device=" + loop})
	if status, out, errs := mke2fs(append(args, images["ours"])...); status != 0 {
		t.Fatal(out, errs)
	}
	if out, err := exec.Command(testfs.Tool(t, "e2fsck"), "-fn", "-j", loop, images["ours"]).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	testfs.Run(t, "mke2fs", append(args, images["c"])...)
	sameBytes(t, images["c"], images["ours"], written(t, images["ours"], 0))
}

// TestTold is for what is said about a device that is not empty.
func TestTold(t *testing.T) {
	dir := environment(t)
	img := sparse(t, filepath.Join(dir, "image"), 16<<20)
	if status, out, errs := mke2fs("-q", "-t", "ext4", "-L", "old\nlabel", img); status != 0 {
		t.Fatal(out, errs)
	}
	status, out, _ := mke2fs("-t", "ext2", img)
	if status != 0 || !strings.Contains(out, img+" contains a ext4 file system labelled 'old\\x0alabel'\n\tcreated on Tue Nov 14 22:13:20 2023\n") {
		t.Errorf("%d: %s", status, out)
	}
	for _, m := range magics {
		f := sparse(t, filepath.Join(dir, "other"), 1<<20)
		w, err := os.OpenFile(f, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		w.WriteAt([]byte(m.magic), m.off)
		w.Close()
		if _, out, _ := mke2fs("-t", "ext2", f); !strings.Contains(out, "contains a "+m.kind) {
			t.Errorf("%s is not told: %s", m.kind, out)
		}
	}
}

// FuzzOptions gives the command any arguments, on a device that it may not
// change.
func FuzzOptions(f *testing.F) {
	for _, s := range []string{"-t ext4 -E stride=1,resize=5", "-J size=4 -O ^none -b -1024", "-N 99 -i 4096 -o 3", "-E encoding_flags=strict -T a,b",
		"--size=auto --layer x", "--owner 1:2 --map-uid 1:2:3 --exclude [a", "--free 5k --max 3M --shrink", "--platform a/b --ref c --reproducible"} {
		f.Add(s)
	}
	dir := f.TempDir()
	img := filepath.Join(dir, "image")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		f.Fatal(err)
	}
	if err := os.Truncate(img, 32<<20); err != nil {
		f.Fatal(err)
	}
	f.Setenv("MKE2FS_CONFIG", filepath.Join(dir, "none"))
	f.Fuzz(func(t *testing.T, line string) {
		args := []string{"-n", "-F", "-q"}
		for _, a := range strings.Fields(line) {
			short := strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "--")
			if strings.ContainsAny(a, "/#") && !strings.HasPrefix(a, "--p") || short && strings.ContainsAny(a, "zlcd") {
				return // other files
			}
			args = append(args, a)
		}
		if status, _, _ := mke2fs(append(args, img)...); status != 0 && status != 1 {
			t.Errorf("status %d", status)
		}
	})
}

// TestInUse has somebody use the image: it stays as it is, its length too.
func TestInUse(t *testing.T) {
	dir := environment(t)
	img := filepath.Join(dir, "image")
	want := bytes.Repeat([]byte("precious"), 1<<17)
	if err := os.WriteFile(img, want, 0o600); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	user, err := blockdev.Open(img, blockdev.Options{Exclusive: true, Direct: blockdev.DirectOff})
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	for _, args := range [][]string{
		{"-q", "--reproducible", img},
		{"-q", "-d", tree, "--shrink", img},
		{"-q", "-F", img, "4M"},
	} {
		if status, _, errs := mke2fs(args...); status == 0 || !strings.Contains(errs, "in use") {
			t.Errorf("%q: %d: %s", args, status, errs)
		}
		if got, err := os.ReadFile(img); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q: the image has %d bytes and is changed, %v", args, len(got), err)
		}
	}
}
