package ext2fs

import (
	"fmt"
	"io"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Inode returns a copy of inode ino. Unless checksums are ignored, its own is
// verified.
func (v *Survey) Inode(ino ondisk.Ino) (ondisk.RawInode, error) {
	if ino == 0 || uint32(ino) > v.super.InodesCount.Get() || v.groups == 0 {
		return nil, surveyErr(ReasonInode, "inode %d: there are %d", ino, v.super.InodesCount.Get())
	}
	isz := v.InodeSize()
	blk, i, err := v.inodeBlock(ino)
	if err != nil {
		return nil, err
	}
	b, err := v.block(fmt.Sprintf("inode %d", ino), blk)
	if err != nil {
		return nil, err
	}
	raw := ondisk.RawInode(append([]byte(nil), b[i*isz:(i+1)*isz]...))
	if v.hasRO(ondisk.ROCompatMetadataCsum) && !v.ignoreCsum.Load() {
		if err := raw.VerifyCsum(v.seed, ino); err != nil && *raw.Base() != (ondisk.Inode{}) {
			return nil, surveyErr(ReasonInodeCsum, "%v", err)
		}
	}
	return raw, nil
}

// inodeBlock returns the block that inode ino lies in, and its place there.
func (v *Survey) inodeBlock(ino ondisk.Ino) (blk uint64, i int, err error) {
	per := uint64(v.blockSize / v.InodeSize())
	n := uint64(ino - 1)
	if v.image != nil {
		return uint64(v.image.OffsetInode.Get())/uint64(v.blockSize) + n/per, int(n % per), nil
	}
	ipg := uint64(v.super.InodesPerGroup.Get())
	d, err := v.Desc(ondisk.Group(n / ipg))
	if err != nil {
		return 0, 0, err
	}
	table := uint64(d.InodeTable())
	if table == 0 || table < v.first || table+uint64(v.itable)-1 >= v.blocks {
		return 0, 0, surveyErr(ReasonInode, "inode %d: its table is at block %d", ino, table)
	}
	return table + n%ipg/per, int(n % ipg % per), nil
}

// InodePlace returns the block that inode ino lies in and the byte there.
func (v *Survey) InodePlace(ino ondisk.Ino) (ondisk.Fsblk, int, error) {
	if ino == 0 || uint32(ino) > v.super.InodesCount.Get() || v.groups == 0 {
		return 0, 0, surveyErr(ReasonInode, "inode %d: there are %d", ino, v.super.InodesCount.Get())
	}
	blk, i, err := v.inodeBlock(ino)
	return ondisk.Fsblk(blk), i * v.InodeSize(), err
}

// SurveyFile is the content of a file as its inode maps it. It is an io.ReaderAt:
// holes and unwritten extents read as zeros.
type SurveyFile struct {
	v    *Survey
	ino  ondisk.Ino
	raw  ondisk.RawInode
	seed uint32
}

// File returns the content of a file by its inode, which it keeps; raw may be
// another than what Inode returns.
func (v *Survey) File(ino ondisk.Ino, raw ondisk.RawInode) *SurveyFile {
	return &SurveyFile{v, ino, raw, ondisk.InodeSeed(v.seed, ino, raw.Base().Generation.Get())}
}

// Size returns the size in bytes, both halves of it, whatever the inode is.
func (f *SurveyFile) Size() uint64 {
	b := f.raw.Base()
	return uint64(b.SizeHi.Get())<<32 | uint64(b.SizeLo.Get())
}

// ReadAt implements io.ReaderAt. Other errors than io.EOF are *SurveyError.
func (f *SurveyFile) ReadAt(p []byte, off int64) (n int, err error) {
	size := f.Size()
	if uint64(off) >= size {
		return 0, io.EOF
	}
	short := uint64(len(p)) > size-uint64(off)
	if short {
		p = p[:size-uint64(off)]
	}
	bs := int64(f.v.blockSize)
	for n < len(p) {
		lblk, at := (off+int64(n))/bs, int((off+int64(n))%bs)
		c := min(len(p)-n, int(bs)-at)
		if err := f.readPart(p[n:n+c], uint64(lblk), at); err != nil {
			return n, err
		}
		n += c
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

// readPart reads a part of one block of the file.
func (f *SurveyFile) readPart(p []byte, lblk uint64, at int) error {
	clear(p)
	b := f.raw.Base()
	if b.Flags.Get()&ondisk.FlagInlineData != 0 {
		if lblk == 0 && at < len(b.Block) {
			copy(p, b.Block[at:])
		}
		return nil
	}
	blk, err := f.Map(lblk)
	if err != nil || blk == 0 {
		return err
	}
	data, err := f.v.block(fmt.Sprintf("inode %d", f.ino), uint64(blk))
	copy(p, data[min(at, len(data)):])
	return err
}

// Map returns the block that holds logical block lblk; 0 for a hole and for
// what was allocated and not written.
func (f *SurveyFile) Map(lblk uint64) (ondisk.Fsblk, error) {
	if lblk > uint64(ondisk.MaxLblk) {
		return 0, nil
	}
	b := f.raw.Base()
	if b.Flags.Get()&ondisk.FlagExtents != 0 {
		return f.mapExtent(uint32(lblk))
	}
	return f.mapIndirect(endian.Views[endian.LE32](b.Block[:], 15), lblk)
}

func (f *SurveyFile) mapExtent(lblk uint32) (ondisk.Fsblk, error) {
	node, depth := f.raw.Base().Block[:], -1
	for {
		h, err := ondisk.ExtentNodeHeader(node)
		if err != nil {
			return 0, surveyErr(ReasonMap, "inode %d: %v", f.ino, err)
		}
		d, n := int(h.Depth.Get()), int(h.Entries.Get())
		if depth >= 0 && d != depth-1 {
			return 0, surveyErr(ReasonMap, "inode %d: an extent node of depth %d below one of %d", f.ino, d, depth)
		}
		if depth = d; d == 0 {
			for _, e := range endian.Views[ondisk.Extent](node[ondisk.ExtentEntry:], n) {
				if i := lblk - e.Block.Get(); lblk >= e.Block.Get() && i < e.Len() {
					if e.Unwritten() {
						return 0, nil
					}
					return e.Start() + ondisk.Fsblk(i), nil
				}
			}
			return 0, nil
		}
		index := endian.Views[ondisk.ExtentIdx](node[ondisk.ExtentEntry:], n)
		i := 0
		for i+1 < n && index[i+1].Block.Get() <= lblk {
			i++
		}
		if node, err = f.v.block(fmt.Sprintf("extents of inode %d", f.ino), uint64(index[i].Leaf())); err != nil {
			return 0, err
		}
		if f.v.hasRO(ondisk.ROCompatMetadataCsum) && !f.v.ignoreCsum.Load() {
			if err := ondisk.VerifyExtentNode(node, f.seed); err != nil {
				return 0, surveyErr(ReasonMap, "inode %d: %v", f.ino, err)
			}
		}
	}
}

func (f *SurveyFile) mapIndirect(block []endian.LE32, lblk uint64) (ondisk.Fsblk, error) {
	if lblk < 12 {
		return ondisk.Fsblk(block[lblk].Get()), nil
	}
	lblk -= 12
	per := uint64(f.v.blockSize / 4)
	span := per // blocks below the pointer of a level
	for level := 12; level < 15; level++ {
		if lblk >= span {
			lblk -= span
			span *= per
			continue
		}
		blk := ondisk.Fsblk(block[level].Get())
		for span > 1 && blk != 0 {
			span /= per
			data, err := f.v.block(fmt.Sprintf("indirect block of inode %d", f.ino), uint64(blk))
			if err != nil {
				return 0, err
			}
			blk = ondisk.Fsblk(endian.View[endian.LE32](data[4*(lblk/span):]).Get())
			lblk %= span
		}
		return blk, nil
	}
	return 0, nil
}
