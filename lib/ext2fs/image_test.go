package ext2fs_test

import (
	"bytes"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// FuzzImage opens any image of e2image, and looks at what it says there is.
func FuzzImage(f *testing.F) {
	head := make([]byte, 1024)
	le := endian.Views[endian.LE32](head, 256)
	le[0].Set(ext2fs.E2ImageMagic)
	for at, v := range map[int]uint32{204: 1024, 284: 1024, 288: 4096, 292: 16384, 296: 20480} {
		endian.View[endian.LE32](head[at:]).Set(v)
	}
	super, desc := make([]byte, 1024), make([]byte, 4096)
	s := endian.View[ondisk.Super](super)
	s.Magic.Set(ondisk.SuperMagic)
	s.RevLevel.Set(1)
	s.FirstIno.Set(11)
	s.BlocksCountLo.Set(64)
	s.FirstDataBlock.Set(1)
	s.BlocksPerGroup.Set(32)
	s.ClustersPerGroup.Set(32)
	s.InodesPerGroup.Set(8)
	s.InodesCount.Set(16)
	s.InodeSize.Set(128)
	for g, at := range []int{0, 32} {
		for i, b := range []uint32{3, 4, 5} {
			endian.View[endian.LE32](desc[at+4*i:]).Set(b + uint32(32*g))
		}
	}
	good, start := bytes.Clone(super), bytes.Clone(head)
	f.Add(head, super, desc)
	f.Fuzz(func(t *testing.T, head, super, desc []byte) {
		img := blockdev.NewMem(64 << 10)
		for at, b := range map[int64][]byte{0: head[:min(len(head), 1024)], 1024: super[:min(len(super), 1024)], 2048: desc[:min(len(desc), 4096)]} {
			if _, err := img.WriteAt(b, at); err != nil {
				t.Fatal(err)
			}
		}
		dev, err := ext2fs.OpenImage(img, nil)
		if err != nil {
			if bytes.Equal(super, good) && bytes.Equal(head, start) {
				t.Error(err)
			}
			return
		}
		defer dev.Close()
		buf := make([]byte, 3000)
		for off := int64(0); off < min(dev.Size(), 1<<20); off += 1000 {
			if n, err := dev.ReadAt(buf, off); n < len(buf) && err == nil || n > len(buf) {
				t.Fatalf("%d bytes at %d of %d, %v", n, off, dev.Size(), err)
			}
		}
		r, err := ext2fs.OpenRaw(dev, ext2fs.RawOptions{Force: true, IgnoreCsum: true})
		if err != nil || r.Inodes() > 1<<16 { // more take long, each part of a table being missing
			return
		}
		n := 0
		_ = ext2fs.ScanInodes(r, ext2fs.ScanAll, func(_ *ext2fs.Raw, each ext2fs.EachInode) (n int) {
			each(func(ondisk.Ino, ondisk.RawInode) bool { n++; return n < 1000 })
			return n
		}, func(k int) bool { n += k; return n < 10000 })
	})
}
