package ext2fs

import (
	"fmt"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func benchFS(b *testing.B) *FS {
	b.Helper()
	img := testfs.Mke2fs(b, testfs.Spec{Name: "bench", Size: 2 << 30, Inodes: 400000, Journal: "size=64"})
	d, err := blockdev.Open(img.Path, blockdev.Options{Direct: blockdev.DirectOff})
	if err != nil {
		b.Fatal(err)
	}
	fs, err := Open(d, Options{CacheSize: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := fs.Close(); err != nil {
			b.Error(err)
		}
		d.Close()
	})
	return fs
}

// BenchmarkNames creates files in directories of 10,000, looks them up after
// the inode cache has forgotten them, and removes them; the numbers are per
// file.
func BenchmarkNames(b *testing.B) {
	fs := benchFS(b)
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		b.Fatal(err)
	}
	defer root.Put()
	const per = 10000
	names := make([]string, per)
	for i := range names {
		names[i] = fmt.Sprintf("file-%06d", i)
	}
	var dirs []*Inode
	n := 0
	each := func(f func(dp *Inode, name string) error) func(b *testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; i < n; i++ {
				if err := f(dirs[i/per], names[i%per]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/file")
		}
	}
	n = 100000
	for i := range n / per {
		dp, err := fs.Mkdir(root, fmt.Sprint("dir", i), 0o755, Cred{})
		if err != nil {
			b.Fatal(err)
		}
		defer dp.Put()
		dirs = append(dirs, dp)
	}
	b.Run("create", each(func(dp *Inode, name string) error {
		ip, err := fs.Create(dp, name, ondisk.ModeReg|0o644, 0, Cred{})
		if err == nil {
			ip.Put()
		}
		return err
	}))
	b.Run("lookup", each(func(dp *Inode, name string) error {
		ip, err := fs.Lookup(dp, name)
		if err == nil {
			var a Attr
			ip.Attr(&a)
			ip.Put()
		}
		return err
	}))
	b.Run("unlink", each(fs.Unlink))
}
