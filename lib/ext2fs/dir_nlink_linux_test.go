package ext2fs

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestDirNlink makes more subdirectories than a link count can tell: with
// dir_nlink the count is 1 from then on, without it there is an end.
func TestDirNlink(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 65,000 directories")
	}
	for _, c := range []struct {
		features string
		most     int // subdirectories
	}{
		{"inline_data", 66000},
		{"inline_data,^dir_nlink", ondisk.LinkMax - 2},
	} {
		t.Run(c.features, func(t *testing.T) {
			img := dirImage(t, testfs.Spec{Features: c.features, Inodes: 70000})
			fs := openImage(t, img, Options{})
			dp, files := openDir(t, fs)
			files[0].Put()
			files[1].Put()
			var err error
			n := 0
			for ; n < 66000; n++ {
				var ip *Inode
				if ip, err = fs.Mkdir(dp, fmt.Sprint(n), 0o755, Cred{}); err != nil {
					break
				}
				ip.Put()
			}
			if n != c.most || err != nil && !errors.Is(err, syscall.EMLINK) {
				t.Fatalf("%d directories, then %v", n, err)
			}
			want := uint32(n + 2)
			if want > ondisk.LinkMax {
				want = 1
			}
			for i := range 2000 {
				if err := fs.Rmdir(dp, fmt.Sprint(i)); err != nil {
					t.Fatal(err)
				}
				if want != 1 {
					want--
				}
			}
			if got := dp.nlink(); got != want {
				t.Errorf("%d links, want %d", got, want)
			}
			dp.Put()
		})
	}
}

// TestExchangeLinks exchanges a directory and a file where the file's parent has no
// room for a link.
func TestExchangeLinks(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "links", Size: 16 << 20, Features: "^dir_nlink"})
	fs := openImage(t, img, Options{})
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Put()
	made := func(ip *Inode, err error) *Inode {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(ip.Put)
		return ip
	}
	a := made(fs.Mkdir(root, "a", 0o755, Cred{}))
	full := made(fs.Mkdir(root, "full", 0o755, Cred{}))
	made(fs.Mkdir(a, "dir", 0o755, Cred{}))
	made(fs.Create(full, "file", 0o644, 0, Cred{}))
	links := func(n uint16) uint16 {
		full.mapMu.Lock()
		defer full.mapMu.Unlock()
		was := full.raw.Base().LinksCount.Get()
		full.raw.Base().LinksCount.Set(n)
		return was
	}
	was := links(ondisk.LinkMax)
	for _, err := range []error{
		fs.Rename(a, "dir", full, "file", RenameExchange, Cred{}),
		fs.Rename(full, "file", a, "dir", RenameExchange, Cred{}),
	} {
		if !errors.Is(err, syscall.EMLINK) {
			t.Errorf("%v, want EMLINK", err)
		}
	}
	if n := links(was); n != ondisk.LinkMax {
		t.Errorf("%d links", n)
	}
	if err := fs.Rename(a, "dir", full, "file", RenameExchange, Cred{}); err != nil {
		t.Error(err)
	}
}
