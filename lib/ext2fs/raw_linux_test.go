package ext2fs_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func openRaw(t *testing.T, img *testfs.Image, o ext2fs.RawOptions) *ext2fs.Raw {
	t.Helper()
	dev, err := blockdev.Open(img.Path, blockdev.Options{ReadOnly: !o.Writable})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	r, err := ext2fs.OpenRaw(dev, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRawFiles reads files through a Raw, with every way in which they can be
// mapped, and compares with C debugfs.
func TestRawFiles(t *testing.T) {
	src := testfs.Scratch(t)
	testfs.Run(t, "sh", "-c", `cd "$1" && mkdir -p d/e && head -c 700000 /dev/urandom >big && echo short >d/short &&
		printf x | dd of=hole bs=1 seek=2000000 conv=notrunc status=none &&
		ln -s d/e link && ln -s "$(printf '%0200d' 7)" long`, "sh", src)
	for _, s := range []testfs.Spec{
		{Name: "ext4"}, {Name: "ext4-1k", BlockSize: 1024}, {Name: "ext2", Type: "ext2", BlockSize: 1024},
		{Name: "inline", Features: "inline_data"}, {Name: "bigalloc", Features: "bigalloc", Cluster: 16384},
	} {
		t.Run(s.Name, func(t *testing.T) {
			s.Dir = src
			img := testfs.Mke2fs(t, s)
			r := openRaw(t, img, ext2fs.RawOptions{})
			for _, p := range []string{"big", "hole", "d/short"} {
				ino := ondisk.RootIno
				for _, c := range strings.Split(p, "/") {
					var err error
					if ino, err = r.Lookup(ino, c); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(filepath.Join(src, p))
				if err != nil {
					t.Fatal(err)
				}
				f, err := r.OpenFile(ino)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, %v; want %d", p, len(got), err, len(want))
				}
				raw, err := r.Inode(ino)
				if err == nil {
					err = r.VerifyInode(ino, raw)
				}
				if err != nil {
					t.Error(err)
				}
			}
			for p, want := range map[string]string{"link": "d/e", "long": strings.Repeat("0", 199) + "7"} {
				ino, err := r.Lookup(ondisk.RootIno, p)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := r.Readlink(ino); got != want || err != nil {
					t.Errorf("%s: %q, %v", p, got, err)
				}
			}
			if _, err := r.Lookup(ondisk.RootIno, "nothing"); !errors.Is(err, syscall.ENOENT) {
				t.Errorf("nothing: %v", err)
			}
			for g := range r.Groups() {
				d, err := r.Desc(g)
				if err == nil {
					err = errors.Join(r.VerifyDesc(g, d), r.VerifyBitmaps(g))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
}
