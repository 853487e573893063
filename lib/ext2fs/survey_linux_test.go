package ext2fs_test

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// memDev returns the image of a file in memory.
func memDev(t *testing.T, path string) blockdev.Device {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dev := blockdev.NewMem(int64(len(b)))
	if _, err := dev.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return dev
}

// TestSurveyAgrees compares what a Survey finds with what a Raw, which finds its
// way by the code of FS, does.
func TestSurveyAgrees(t *testing.T) {
	for _, s := range []testfs.Spec{
		{Name: "ext4"}, {Name: "meta_bg", BlockSize: 1024, Features: "meta_bg,^resize_inode", Size: 300 << 20},
		{Name: "bigalloc-1k", BlockSize: 1024, Features: "bigalloc", Cluster: 4096, Size: 128 << 20, Inodes: 8192}, {Name: "ext2", Type: "ext2", BlockSize: 2048},
		{Name: "sparse_super2", BlockSize: 1024, Features: "sparse_super2,^resize_inode", Size: 100 << 20},
	} {
		t.Run(s.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, s)
			dev := memDev(t, img.Path)
			v, err := ext2fs.OpenSurvey(dev, ext2fs.SurveyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			r, err := ext2fs.OpenRaw(dev, ext2fs.RawOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if v.Groups() != uint64(r.Groups()) || v.BlockSize() != r.BlockSize() || v.InodeSize() != r.InodeSize() || v.ClusterRatio() != r.ClusterRatio() {
				t.Fatalf("%d groups, %d", v.Groups(), r.Groups())
			}
			uninit, err := v.UninitRuns()
			if err != nil {
				t.Fatal(err)
			}
			for g := range r.Groups() {
				a, err := v.Desc(g)
				if err != nil {
					t.Fatal(err)
				}
				if b, err := r.Desc(g); err != nil || string(a) != string(b) {
					t.Errorf("descriptor of group %d: %v", g, err)
				}
				bits, err := v.Bitmap(g, ext2fs.BlockBitmap)
				if err != nil {
					t.Fatal(err)
				}
				v.MarkRuns(bits, g, uninit)
				want, err := r.BlockBitmap(g)
				if err != nil || string(bits) != string(want[:len(bits)]) {
					t.Errorf("block bitmap of group %d: %v", g, err)
				}
			}
			for _, ino := range []ondisk.Ino{ondisk.RootIno, ondisk.JournalIno, ondisk.ResizeIno, 11} {
				a, err := v.Inode(ino)
				if err != nil {
					t.Fatal(err)
				}
				b, err := r.Inode(ino)
				if err != nil || string(a) != string(b) {
					t.Errorf("inode %d: %v", ino, err)
				}
				for _, lblk := range []uint64{0, 11, 12, 300, 1000, 70000} {
					blk, err := v.File(ino, a).Map(lblk)
					if err != nil {
						t.Fatal(err)
					}
					run, err := r.Bmap(ino, b, ondisk.Lblk(lblk))
					if err != nil || run.Pblk != blk {
						t.Errorf("inode %d, block %d: %d, %d, %v", ino, lblk, blk, run.Pblk, err)
					}
				}
			}
		})
	}
}

// TestSurveyHostile reads a list of defective blocks that leads to itself, and
// a journal that does.
func TestSurveyHostile(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "hostile", Type: "ext3", BlockSize: 1024, Size: 16 << 20})
	dev := memDev(t, img.Path)
	v, err := ext2fs.OpenSurvey(dev, ext2fs.SurveyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := v.Desc(0)
	if err != nil {
		t.Fatal(err)
	}
	const at = 9000 // a block whose pointers all lead to itself
	block := make([]byte, 1024)
	for i := range endian.Views[endian.LE32](block, 256) {
		endian.Views[endian.LE32](block, 256)[i].Set(at)
	}
	if _, err := dev.WriteAt(block, at*1024); err != nil {
		t.Fatal(err)
	}
	for _, ino := range []int64{0, 7} {
		if _, err := dev.WriteAt(block[:60], int64(d.InodeTable())*1024+ino*128+40); err != nil {
			t.Fatal(err)
		}
	}
	if v, err = ext2fs.OpenSurvey(dev, ext2fs.SurveyOptions{}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	var e *ext2fs.SurveyError
	if list, err := v.BadBlocks(); err == nil || !errors.As(err, &e) || e.Reason != ext2fs.ReasonMap {
		t.Errorf("%d bad blocks, %v", len(list), err)
	}
	raw, err := v.Inode(ondisk.JournalIno)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := v.File(ondisk.JournalIno, raw).ReadAt(make([]byte, 2048), 1<<19); n != 2048 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := v.File(ondisk.JournalIno, raw).ReadAt(block, 1<<40); err != io.EOF {
		t.Error(err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
}

// FuzzSurvey opens any superblock and goes through what it says there is.
func FuzzSurvey(f *testing.F) {
	seed := make([]byte, 64<<10)
	s := endian.View[ondisk.Super](seed[1024:])
	s.Magic.Set(ondisk.SuperMagic)
	s.RevLevel.Set(1)
	s.BlocksCountLo.Set(64)
	s.FirstDataBlock.Set(1)
	s.BlocksPerGroup.Set(32)
	s.ClustersPerGroup.Set(32)
	s.InodesPerGroup.Set(8)
	s.InodesCount.Set(16)
	s.InodeSize.Set(128)
	f.Add(seed[1024:2048], seed[2048:3072], false)
	f.Fuzz(func(t *testing.T, super, desc []byte, image bool) {
		dev := blockdev.NewMem(64 << 10)
		if _, err := dev.WriteAt(super[:min(len(super), 1024)], 1024); err != nil {
			t.Fatal(err)
		}
		if _, err := dev.WriteAt(desc[:min(len(desc), 4096)], 2048); err != nil {
			t.Fatal(err)
		}
		v, err := ext2fs.OpenSurvey(dev, ext2fs.SurveyOptions{E2Image: image, Force: true, IgnoreCsum: true})
		if err != nil {
			return
		}
		// What can be read may all fail: nothing of it may panic.
		for g := range min(v.Groups(), 100) {
			v.Group(ondisk.Group(g))
			if b, err := v.Bitmap(ondisk.Group(g), ext2fs.BlockBitmap); err == nil {
				v.MarkRuns(b, ondisk.Group(g), []ext2fs.ClusterRun{{Start: 0, End: 1 << 40}})
			}
			v.Bitmap(ondisk.Group(g), ext2fs.InodeBitmap)
		}
		if v.Groups() < 1<<16 {
			v.UninitRuns()
		}
		v.BadBlocks()
		v.MMP()
		if raw, err := v.Inode(ondisk.JournalIno); err == nil {
			v.File(ondisk.JournalIno, raw).ReadAt(make([]byte, 5000), 0)
		}
	})
}
