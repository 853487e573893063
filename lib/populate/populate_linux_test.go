package populate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
)

// image makes an image by the real mke2fs whose UUID, hash seed and time are
// the same each time.
func image(t testing.TB, size int64, args ...string) *testfs.Image {
	t.Helper()
	return testfs.Mke2fs(t, testfs.Spec{
		Size: size, Inodes: 4096,
		Extended: "hash_seed=6e3c1f52-5a5c-4b7e-9d0a-0123456789ab,lazy_itable_init=0",
		Args:     append([]string{"-U", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"}, args...),
	})
}

// fill writes what src has into the image.
func fill(t testing.TB, img *testfs.Image, src Source, o Options) Totals {
	t.Helper()
	n, err := tryFill(context.Background(), img.Path, src, o)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func tryFill(ctx context.Context, path string, src Source, o Options) (Totals, error) {
	tree, err := Load(ctx, src, o)
	if err != nil {
		return Totals{}, err
	}
	defer tree.Close()
	dev, err := blockdev.Open(path, blockdev.Options{Lock: true})
	if err != nil {
		return Totals{}, err
	}
	defer dev.Close()
	return tree.Write(ctx, dev)
}

// shown returns what the kernel shows of the image, without lost+found.
func shown(t testing.TB, img *testfs.Image) testfs.Tree {
	t.Helper()
	m := testfs.KernelMount(t, img, "ro")
	tree := testfs.MustSnapshot(t, m.Dir)
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	delete(tree, "lost+found")
	return tree
}

func sum(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// everything makes a tree with every kind of entry and attribute in dir. It
// takes root.
func everything(t testing.TB, dir string) {
	t.Helper()
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := func(name string) string { return filepath.Join(dir, name) }
	file := func(name string, n int) {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i>>8 ^ i*7 + n)
		}
		do(os.WriteFile(p(name), b, 0o644))
	}
	do(os.MkdirAll(p("dir/sub/deeper"), 0o755))
	do(os.Mkdir(p("sgid"), 0o755))
	do(os.Chown(p("sgid"), 12, 34))
	do(os.Chmod(p("sgid"), 0o775|os.ModeSetgid))
	do(os.Mkdir(p("sticky"), 0o755))
	do(os.Chmod(p("sticky"), 0o777|os.ModeSticky))
	do(os.Mkdir(p("empty"), 0o700))
	file("small", 13)
	file("block", 4096)
	file("odd", 123457)
	file("large", 3<<20+5)
	file("sgid/other-group", 5000)
	do(os.Chown(p("sgid/other-group"), 70000, 80000))
	file("suid", 10)
	do(os.Chown(p("suid"), 1000, 1000))
	do(os.Chmod(p("suid"), 0o755|os.ModeSetuid|os.ModeSetgid))
	file("none", 0)
	do(os.WriteFile(p("name with \xff bytes\n"), []byte("x"), 0o600))
	do(os.Link(p("small"), p("dir/sub/link")))
	do(os.Link(p("small"), p("zlink")))
	do(os.Symlink("small", p("fast")))
	do(os.Symlink(string(make59('a')), p("fast59")))
	do(os.Symlink(string(make59('b'))+"longer/than/an/inode/holds", p("slow")))
	do(unix.Lchown(p("slow"), 5, 6))
	do(unix.Mknod(p("chr"), unix.S_IFCHR|0o640, int(unix.Mkdev(1, 3))))
	do(unix.Mknod(p("blk"), unix.S_IFBLK|0o600, int(unix.Mkdev(259, 70000))))
	do(unix.Mknod(p("fifo"), unix.S_IFIFO|0o644, 0))
	do(unix.Mknod(p("sock"), unix.S_IFSOCK|0o755, 0))
	do(os.Link(p("fifo"), p("fifo2")))

	f, err := os.Create(p("sparse"))
	do(err)
	_, err = f.WriteAt([]byte("at one mebibyte"), 1<<20)
	do(err)
	_, err = f.WriteAt([]byte("at ninety mebibytes"), 90<<20)
	do(err)
	do(f.Truncate(100 << 20))
	do(f.Close())
	do(os.WriteFile(p("hole"), nil, 0o644))
	do(os.Truncate(p("hole"), 777777))

	do(unix.Lsetxattr(p("small"), "user.one", []byte("1"), 0))
	do(unix.Lsetxattr(p("small"), "user.empty", nil, 0))
	do(unix.Lsetxattr(p("small"), "trusted.t", []byte("secret"), 0))
	do(unix.Lsetxattr(p("dir"), "user.big", make([]byte, 2000), 0))
	do(unix.Lsetxattr(p("dir"), "security.selinux", []byte("u:object_r:t:s0\x00"), 0))
	do(unix.Lsetxattr(p("odd"), "user.big", make([]byte, 2000), 0))
	do(unix.Lsetxattr(p("odd"), "user.second", make([]byte, 200), 0))
	do(unix.Lsetxattr(p("odd"), "security.selinux", []byte("u:object_r:t:s0\x00"), 0))
	do(unix.Lsetxattr(p("slow"), "trusted.onlink", []byte("v"), 0))
	do(unix.Lsetxattr(p("chr"), "trusted.ondev", []byte("v"), 0))
	caps := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	do(unix.Lsetxattr(p("suid"), "security.capability", caps, 0))
	do(unix.Lsetxattr(p("sgid/other-group"), "security.capability", caps, 0))
	acl := []byte("\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x05\x00\xe8\x03\x00\x00" +
		"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x05\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff")
	do(unix.Lsetxattr(p("block"), xattrAccess, acl, 0))
	do(unix.Lsetxattr(p("sgid"), xattrDefault, acl, 0))
	do(unix.Lsetxattr(p("sgid"), xattrAccess, acl, 0))
	do(os.WriteFile(p("sgid/after-acl"), []byte("inherits"), 0o600))

	for i := range 700 { // an index of two levels of names
		do(os.WriteFile(p(fmt.Sprintf("sticky/a name that is rather long, number %d", i)), []byte{byte(i)}, 0o640))
	}
	set := func(name string, sec int64, nsec int64) {
		ts := []unix.Timespec{{Sec: sec + 1, Nsec: nsec}, {Sec: sec, Nsec: nsec}}
		do(unix.UtimesNanoAt(unix.AT_FDCWD, p(name), ts, unix.AT_SYMLINK_NOFOLLOW))
	}
	set("small", 1234567890, 123456789)
	set("none", -5, 999999999)
	set("suid", 1<<32+77, 1)
	set("fast", 1000000000, 5)
	set("dir/sub", 86400, 0)
	set("dir", 1<<31, 42)
	set("chr", 7, 7)
}

func make59(c byte) []byte {
	b := make([]byte, 59)
	for i := range b {
		b[i] = c
	}
	return b
}

// sameTree compares what is to be the same of an input that the kernel shows
// and an image.
func sameTree(t testing.TB, what string, want, got testfs.Tree, skip testfs.Aspect) {
	t.Helper()
	if _, ok := want["lost+found"]; !ok && got["."].Nlink == want["."].Nlink+1 {
		got["."].Nlink--
	}
	delete(want, "lost+found")
	for p, n := range want { // reading a link is an access
		if n.Target != "" && got[p] != nil {
			n.Atime = got[p].Atime
		}
	}
	testfs.Same(t, what, want, got, skip|testfs.Ino|testfs.DirSize|testfs.Blocks|testfs.Ctime|testfs.Btime)
}

// kernelDir is a folder on the kernel's ext4, which keeps every attribute.
func kernelDir(t testing.TB) string {
	t.Helper()
	img := testfs.Mke2fs(t, testfs.Spec{Name: "source", Size: 512 << 20})
	return testfs.KernelMount(t, img, "").Dir
}

func TestDirEverything(t *testing.T) {
	testfs.NeedRoot(t)
	src := kernelDir(t)
	everything(t, src)
	want := testfs.MustSnapshot(t, src)
	img := image(t, 64<<20)
	n := fill(t, img, Dir(src), Options{})
	if n.Entries != n.All || n.Bytes != n.AllBytes || n.Files == 0 || n.Links != 3 {
		t.Errorf("totals %+v", n)
	}
	sameTree(t, "a directory and the image of it", want, shown(t, img), 0)
}

// The repository's own tree, on file systems of each kind.
func TestDirRepository(t *testing.T) {
	testfs.NeedRoot(t)
	src := filepath.Join(testfs.Scratch(t), "tree")
	out, err := exec.Command("cp", "-a", "../..", src).CombinedOutput()
	if err != nil {
		t.Fatal(err, string(out))
	}
	if err := os.RemoveAll(filepath.Join(src, "bin")); err != nil {
		t.Fatal(err)
	}
	decorate(t, src)
	for _, s := range []testfs.Spec{
		{Name: "ext2", Type: "ext2"}, {Name: "ext3-1k", Type: "ext3", BlockSize: 1024},
		{Name: "ext4"}, {Name: "inline", Features: "inline_data"}, {Name: "bigalloc", Features: "bigalloc", Cluster: 16384},
		{Name: "meta_bg", Features: "meta_bg,^resize_inode"}, {Name: "no_csum", Features: "^metadata_csum,uninit_bg"},
	} {
		t.Run(s.Name, func(t *testing.T) {
			s.Size = 192 << 20
			if err := testfs.Supported(t, s); err != nil {
				t.Skip(err)
			}
			img := testfs.Mke2fs(t, s)
			fill(t, img, Dir(src), Options{})
			want := testfs.MustSnapshot(t, src)
			skip := testfs.Aspect(0)
			if s.Type != "" { // inodes of 128 bytes have seconds
				skip |= testfs.Atime | testfs.Mtime
			}
			sameTree(t, "the repository and the image of it", want, shown(t, img), skip)
		})
	}
}

// decorate gives files of a tree attributes, and adds files with holes of whole
// blocks of any size.
func decorate(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "lib/*/*.go"))
	if err != nil || len(files) < 20 {
		t.Fatal("files to decorate: ", len(files), err)
	}
	for i, p := range files {
		for k, v := range map[string]string{
			"user.number": fmt.Sprint(i), "user.empty": "", "trusted.same": "the same everywhere", "security.other": strings.Repeat("x", i%90),
		} {
			if err := unix.Setxattr(p, k, []byte(v), 0); err != nil {
				testfs.Missing(t, "attributes of %s: %v", p, err)
			}
		}
	}
	const piece = 64 << 10
	for name, data := range map[string][]int64{"hole": nil, "ends": {3, 5}, "begins": {0, 1, 9}, "every-other": {0, 2, 4, 6, 8, 10, 12, 14, 16}} {
		f, err := os.Create(filepath.Join(dir, "sparse-"+name))
		if err != nil {
			t.Fatal(err)
		}
		end := int64(0)
		for _, at := range data {
			end = (at + 1) * piece
			if _, err := f.WriteAt(bytes.Repeat([]byte{byte(at + 1)}, piece), at*piece); err != nil {
				t.Fatal(err)
			}
		}
		if name != "ends" {
			end += 7 * piece
		}
		if err := f.Truncate(end); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

func TestProgress(t *testing.T) {
	img := image(t, 16<<20)
	dir := t.TempDir()
	for i := range 10 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, 5000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var last Totals
	fill(t, img, Dir(dir), Options{Progress: func(n Totals) { last = n }})
	if last.Files != 10 || last.Bytes != 50000 || last.All != 10 || last.AllBytes != 50000 {
		t.Errorf("the last report was %+v", last)
	}
}
