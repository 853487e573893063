package ext2fs

import (
	"fmt"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestLazyInit zeroes inode tables in the background, on a device that holds
// garbage, while inodes are allocated; and without the background.
func TestLazyInit(t *testing.T) {
	for _, features := range []string{"", "^metadata_csum,uninit_bg"} {
		for _, lazy := range []bool{true, false} {
			t.Run(fmt.Sprint(features, lazy), func(t *testing.T) {
				spec := testfs.Spec{Name: "lazy", BlockSize: 1024, Size: 64 << 20, Inodes: 16384,
					Features: features, Extended: "lazy_itable_init=1"}
				img := testfs.Mke2fs(t, spec)
				fillTables(t, img.Path)
				fs := openImage(t, img, Options{InitItable: lazy})
				root, err := fs.Iget(ondisk.RootIno)
				if err != nil {
					t.Fatal(err)
				}
				for i := range 3000 {
					ip, err := fs.Create(root, fmt.Sprint("file", i), ondisk.ModeReg|0o600, 0, Cred{})
					if i%10 == 0 && err == nil {
						ip.Put()
						ip, err = fs.Mkdir(root, fmt.Sprint("dir", i), 0o700, Cred{})
					}
					if err != nil {
						t.Fatal(err)
					}
					ip.Put()
				}
				root.Put()
				zeroed := func() (n int) {
					for no := range fs.groups {
						g, err := fs.groupOf(no)
						if err != nil {
							t.Fatal(err)
						}
						g.mu.Lock()
						if g.flags&ondisk.BGInodeZeroed != 0 {
							n++
						}
						g.mu.Unlock()
					}
					return n
				}
				for end := time.Now().Add(10 * time.Second); lazy && zeroed() < int(fs.groups) && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				if n := zeroed(); lazy && n != int(fs.groups) {
					t.Errorf("%d of %d tables are zeroed", n, fs.groups)
				}
				if err := fs.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// fillTables puts garbage where inode tables were never initialised.
func fillTables(t *testing.T, path string) {
	t.Helper()
	d, err := blockdev.Open(path, blockdev.Options{Direct: blockdev.DirectOff})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fs, err := Open(d, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	junk := make([]byte, fs.blockSize)
	for i := range junk {
		junk[i] = byte(i*31 + 7)
	}
	for no := range fs.groups {
		g, err := fs.groupOf(no)
		if err != nil {
			t.Fatal(err)
		}
		if g.flags&ondisk.BGInodeZeroed != 0 {
			continue
		}
		used := fs.inodesPerGroup - g.itableUnused
		if g.flags&ondisk.BGInodeUninit != 0 {
			used = 0
		}
		for b := (used + fs.inodesPerBlock - 1) / fs.inodesPerBlock; b < fs.itableBlocks; b++ {
			if _, err := d.WriteAt(junk, int64(g.inodeTable+ondisk.Fsblk(b))<<fs.blockBits); err != nil {
				t.Fatal(err)
			}
		}
	}
}
