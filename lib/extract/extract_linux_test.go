package extract_test

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/extract"
)

const fill = `cd "$1" && mkdir -p a/b/c big && for i in $(seq 1 300); do echo $i >big/file-$i; done
echo x >a/x; ln a/x a/hard; ln -s ../x a/b/up; ln -s "$(printf '%0200d' 5)" a/long
printf start >sparse; truncate -s 30000000 sparse; printf end | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none
truncate -s 5000000 hole; head -c 700000 /dev/urandom >data; : >empty
chown 70000:4000000000 a/x; chmod 4711 data; chmod 1777 a/b; touch -d '1960-02-03 04:05:06.789' a/old; touch -d '2100-01-01 00:00:00.5' a/new
setfattr -n user.bin -v 0x00ff0a a/x; setfattr -n trusted.t -v t big; setfacl -m u:4000000000:rw data; setfacl -d -m g:77:r a/b
mknod null c 1 3; mknod disk b 300 70000; mkfifo fifo; mkdir -p "$(printf 'deep/%.0s' $(seq 1 60))"; echo n >"$(printf 'name%0200d' 1)"
`

func image(t *testing.T, s testfs.Spec) *testfs.Image {
	t.Helper()
	testfs.NeedRoot(t)
	img := testfs.Mke2fs(t, s)
	m := testfs.KernelMount(t, img, "")
	testfs.Run(t, "sh", "-c", fill, "sh", m.Dir)
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	return img
}

func open(t *testing.T, path string) *ext2fs.Raw {
	t.Helper()
	dev, err := blockdev.Open(path, blockdev.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	r, err := ext2fs.OpenRaw(dev, ext2fs.RawOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var root = []extract.Root{{Ino: ondisk.RootIno}}

// listing says all of a tree that tests compare: GNU tar and find read it.
const listing = `cd "$1" && find . -mindepth 1 ! -path ./lost+found -printf '%p %y %m %U %G %T@ %l %n\n' | sed 's/ *$//' | sort &&
find . -mindepth 1 -type f -printf '%p %s\n' | sort && find . -mindepth 1 -type f -exec md5sum {} + | sort && getfattr -Rhd -m - -e hex . 2>/dev/null | sort &&
find . -type b -o -type c | sort | xargs stat -c '%n %t %T'`

// TestDir compares what is taken out with what the kernel shows.
func TestDir(t *testing.T) {
	for _, s := range []testfs.Spec{{Name: "ext4"}, {Name: "inline", Features: "inline_data", InodeSize: 512}, {Name: "ext3-256", Type: "ext3", InodeSize: 256, BlockSize: 1024}} {
		t.Run(s.Name, func(t *testing.T) {
			img := image(t, s)
			m := testfs.KernelMount(t, img, "ro")
			want := testfs.Run(t, "sh", "-c", listing, "sh", m.Dir)
			if err := m.Unmount(); err != nil {
				t.Fatal(err)
			}
			dir := testfs.Scratch(t)
			if err := extract.Dir(open(t, img.Path), root, dir, extract.Options{}); err != nil {
				t.Fatal(err)
			}
			if got := testfs.Run(t, "sh", "-c", listing, "sh", dir); got != want {
				diff(t, got, want)
			}
			if st, err := os.Stat(filepath.Join(dir, "sparse")); err != nil || st.Size() != 30000000 {
				t.Error(st, err)
			}
			blocks := testfs.Run(t, "stat", "-c", "%b", filepath.Join(dir, "sparse"))
			if len(strings.TrimSpace(blocks)) > 3 {
				t.Errorf("holes are not kept: %s blocks", blocks)
			}
		})
	}
}

// TestDirInto has trees come out the same where the directory makes files what
// they were not asked to be.
func TestDirInto(t *testing.T) {
	img := image(t, testfs.Spec{Name: "ext4"})
	const modes = `cd "$1" && find . -mindepth 1 ! -path ./lost+found -printf '%p %m %U %G\n' | sort`
	plain := testfs.Scratch(t)
	if err := extract.Dir(open(t, img.Path), root, plain, extract.Options{}); err != nil {
		t.Fatal(err)
	}
	want := testfs.Run(t, "sh", "-c", modes, "sh", plain)
	for _, prepare := range []string{`chown :70000 "$1" && chmod 2777 "$1"`, `setfacl -d -m u::rwx,g::-,o::- "$1"`} {
		dir := testfs.Scratch(t)
		testfs.Run(t, "sh", "-c", prepare, "sh", dir)
		if err := extract.Dir(open(t, img.Path), root, dir, extract.Options{}); err != nil {
			t.Fatal(err)
		}
		if got := testfs.Run(t, "sh", "-c", modes, "sh", dir); got != want {
			t.Logf("in a directory after %s", prepare)
			diff(t, got, want)
		}
	}
}

// TestTar has GNU tar read the archive.
func TestTar(t *testing.T) {
	tar := testfs.Tool(t, "tar")
	img := image(t, testfs.Spec{Name: "ext4"})
	m := testfs.KernelMount(t, img, "ro")
	want := testfs.Run(t, "sh", "-c", listing, "sh", m.Dir)
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := extract.Tar(open(t, img.Path), root, &b, extract.Options{}); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 4<<20 {
		t.Errorf("%d bytes: holes are not kept", b.Len())
	}
	dir := testfs.Scratch(t)
	file := filepath.Join(dir, "a.tar")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	testfs.Run(t, "mkdir", out)
	testfs.Run(t, tar, "-xpf", file, "-C", out, "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--warning=no-timestamp")
	if got := testfs.Run(t, "sh", "-c", listing, "sh", out); got != want {
		diff(t, got, want)
	}
}

// TestRoundTrip takes a tree out, makes an image of it, and takes it out again.
func TestRoundTrip(t *testing.T) {
	img := image(t, testfs.Spec{Name: "ext4"})
	var first, second bytes.Buffer
	if err := extract.Tar(open(t, img.Path), root, &first, extract.Options{}); err != nil {
		t.Fatal(err)
	}
	dir := testfs.Scratch(t)
	tar, again := filepath.Join(dir, "a.tar"), filepath.Join(dir, "again")
	if err := os.WriteFile(tar, first.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	mke2fs := filepath.Join("..", "..", "bin", "mke2fs")
	if _, err := os.Stat(mke2fs); err != nil {
		mke2fs = filepath.Join(dir, "mke2fs")
		testfs.Run(t, "go", "build", "-o", mke2fs, "../../cmd/mkfs")
	}
	testfs.Run(t, mke2fs, "-q", "-F", "-t", "ext4", "-b", "1024", "-d", tar, again, "64M")
	if err := extract.Tar(open(t, again), root, &second, extract.Options{}); err != nil {
		t.Fatal(err)
	}
	if a, b := sha256.Sum256(first.Bytes()), sha256.Sum256(second.Bytes()); a != b {
		os.WriteFile(filepath.Join(dir, "b.tar"), second.Bytes(), 0o600)
		diff(t, testfs.Run(t, "tar", "tvf", filepath.Join(dir, "b.tar"), "--full-time", "--numeric-owner"), testfs.Run(t, "tar", "tvf", tar, "--full-time", "--numeric-owner"))
		t.Errorf("the archives differ: %d and %d bytes", first.Len(), second.Len())
	}
}

// TestNames has no name lead out of the directory.
func TestNames(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "names", Size: 8 << 20, Features: "^metadata_csum"})
	img.ExpectDirty("it has hostile names")
	src := testfs.Scratch(t)
	testfs.Run(t, "sh", "-c", `cd "$1" && echo evil >evil && printf 'write evil XXYevil\nmkdir dir\nsymlink link /\n' >cmds && debugfs -w -f cmds "$2" 2>/dev/null`, "sh", src, img.Path)
	b, err := os.ReadFile(img.Path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte("XXYevil")); n != 1 {
		t.Fatalf("the name is there %d times", n)
	}
	b = bytes.Replace(b, []byte("XXYevil"), []byte("../evil"), 1)
	if err := os.WriteFile(img.Path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := testfs.Scratch(t)
	warned := 0
	err = extract.Dir(open(t, img.Path), root, dir, extract.Options{Warn: func(string, error) { warned++ }})
	if _, e := os.Lstat(filepath.Join(filepath.Dir(dir), "evil")); e == nil || err != nil || warned != 1 {
		t.Errorf("%v, %v, %d warnings", e, err, warned)
	}
}

func diff(t *testing.T, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		switch {
		case i >= len(g):
			t.Errorf("missing %q", w[i])
		case i >= len(w):
			t.Errorf("too much: %q", g[i])
		case g[i] != w[i]:
			t.Errorf("got  %.300q\nwant %.300q", g[i], w[i])
		default:
			continue
		}
		return
	}
}
