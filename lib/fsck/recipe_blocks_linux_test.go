package fsck_test

import (
	"encoding/binary"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fsck"
)

// badBlocks makes blocks bad.
func (e *edit) badBlocks(bad ...ondisk.Fsblk) {
	e.inode(ondisk.BadIno, func(r ondisk.RawInode) {
		p := endian.Views[endian.LE32](r.Base().Block[:], 15)
		for i, b := range bad {
			p[i].Set(uint32(b))
		}
		r.SetBlocks(uint64(len(bad) * e.bs / 512))
		r.SetSize(int64(len(bad) * e.bs))
	})
}

// illegal makes n pointers of a file's indirect block illegal.
func (e *edit) illegal(path string, n int) {
	var ind ondisk.Fsblk
	e.pointers(path, func(p []endian.LE32) { ind = ondisk.Fsblk(p[12].Get()) })
	for i := range n {
		binary.LittleEndian.PutUint32(e.block(ind)[4*i:], uint32(1<<30+i))
	}
}

func setPtr(v *endian.LE32, b ondisk.Fsblk) { v.Set(uint32(b)) }

// recipesBlocks damage what inodes map, and what lies where.
var recipesBlocks = []recipe{
	{name: "block bitmap on another", base: "ext4", differs: "it finds padding wrong of a bitmap that it has just placed anew", noBackups: true, codes: []fsck.Code{fsck.P1BBConflict, fsck.P1RelocFromTo}, edit: func(e *edit) {
		e.group(3, func(d ondisk.Desc) { d.SetBlockBitmap(e.desc(2).BlockBitmap()) })
	}},
	{name: "inode bitmap on another", base: "ext4", differs: "it finds padding wrong of a bitmap that it has just placed anew", noBackups: true, codes: []fsck.Code{fsck.P1IBConflict}, edit: func(e *edit) {
		e.group(3, func(d ondisk.Desc) { d.SetInodeBitmap(e.desc(2).BlockBitmap()) })
	}},
	{name: "inode table on another", base: "ext4", differs: "it finds padding and checksums wrong of what it has just placed anew", noBackups: true, codes: []fsck.Code{fsck.P1ItableConflict}, edit: func(e *edit) {
		e.group(3, func(d ondisk.Desc) { d.SetInodeTable(e.desc(2).InodeTable() + 3) })
	}},
	{name: "bad bitmaps", base: "ext4", differs: "it does not read a bitmap that it has placed anew", codes: []fsck.Code{fsck.P1BBBadBlock, fsck.P1IBBadBlock}, edit: func(e *edit) {
		e.badBlocks(e.desc(2).BlockBitmap(), e.desc(3).InodeBitmap())
	}},
	{name: "size", base: "ext4", codes: []fsck.Code{fsck.P1BadISize}, edit: func(e *edit) {
		e.file("/file", func(r ondisk.RawInode) { r.SetSize(10) })
	}},
	{name: "size of a directory", base: "ext3", codes: []fsck.Code{fsck.P1BadISize}, edit: func(e *edit) {
		e.file("/dir", func(r ondisk.RawInode) { r.SetSize(3000) })
	}},
	{name: "blocks", base: "ext4", codes: []fsck.Code{fsck.P1BadIBlocks}, edit: func(e *edit) {
		e.file("/file", func(r ondisk.RawInode) { r.SetBlocks(100) })
	}},
	{name: "illegal block", base: "ext3", codes: []fsck.Code{fsck.P1IllegalBlockNum}, edit: func(e *edit) {
		e.pointers("/file", func(p []endian.LE32) { p[1].Set(1 << 30) })
	}},
	{name: "too many illegal blocks", base: "ext3", codes: []fsck.Code{fsck.P1TooManyBadBlocks}, edit: func(e *edit) { e.illegal("/deep", 20) }},
	{name: "bad illegal block", base: "ext4", codes: []fsck.Code{fsck.P1BBIllegalBlockNum}, edit: func(e *edit) { e.badBlocks(1<<30, 7000) }},
	{name: "bad superblock", base: "ext4", codes: []fsck.Code{fsck.P1BadPrimarySuper, fsck.P1BBBadMetaPrompt, fsck.P1BBFSBlock}, edit: func(e *edit) { e.badBlocks(1) }},
	{name: "bad descriptors", base: "ext4", codes: []fsck.Code{fsck.P1BadPrimaryGDT}, edit: func(e *edit) { e.badBlocks(2) }},
	{name: "bad backups", base: "ext4", stays: []fsck.Code{fsck.P1BadSuper, fsck.P1BadGDT}, codes: []fsck.Code{fsck.P1BadSuper, fsck.P1BadGDT}, edit: func(e *edit) { e.badBlocks(2049, 2050) }},
	{name: "bad inode table", base: "ext4", codes: []fsck.Code{fsck.P2BBInode}, edit: func(e *edit) { e.badBlocks(e.desc(0).InodeTable() + 5) }},
	{name: "bad blocks in their own list", base: "ext4", codes: []fsck.Code{fsck.P1BBInBB}, edit: func(e *edit) { e.badBlocks(e.desc(0).InodeTable()) }},
	{name: "bad block of a file", base: "ext4", differs: "it takes the list of bad blocks for a file", codes: []fsck.Code{fsck.P1BDupBlock}, edit: func(e *edit) { e.badBlocks(e.bmap(e.ino("/file"), 1)) }},
	{name: "bad blocks, indirect on metadata", base: "ext4", codes: []fsck.Code{fsck.P1BBFSMeta}, edit: func(e *edit) {
		e.inode(ondisk.BadIno, func(r ondisk.RawInode) {
			setPtr(&endian.Views[endian.LE32](r.Base().Block[:], 15)[12], e.desc(1).InodeTable()+1)
		})
	}},
	{name: "bad blocks, indirect is bad", base: "ext4", codes: []fsck.Code{0x010015}, edit: func(e *edit) {
		e.badBlocks(7000)
		e.inode(ondisk.BadIno, func(r ondisk.RawInode) {
			setPtr(&endian.Views[endian.LE32](r.Base().Block[:], 15)[12], 7000)
		})
	}},
	{name: "bad blocks inode", base: "ext4", codes: []fsck.Code{fsck.P1BadBlocksBad}, edit: func(e *edit) {
		e.inode(ondisk.BadIno, func(r ondisk.RawInode) {
			r.Base().Mode.Set(ondisk.ModeChr)
			setPtr(&endian.Views[endian.LE32](r.Base().Block[:], 15)[0], 7000)
		})
	}},
	{name: "block beyond a directory", base: "ext3", codes: []fsck.Code{fsck.P1TooBigDir}, edit: func(e *edit) {
		free := ondisk.Fsblk(7000)
		e.pointers("/dir/sub", func(p []endian.LE32) { setPtr(&p[14], free) })
		binary.LittleEndian.PutUint32(e.block(free)[4*200:], uint32(free+1))
		binary.LittleEndian.PutUint32(e.block(free + 1)[4*7:], uint32(free+2))
		binary.LittleEndian.PutUint32(e.block(free + 2)[4*7:], uint32(free+3))
	}},
	{name: "block beyond a symlink", base: "ext3", codes: []fsck.Code{fsck.P1TooBigSymlink}, edit: func(e *edit) {
		e.pointers("/long", func(p []endian.LE32) { setPtr(&p[3], 7000) })
	}},
	{name: "extent start", base: "ext4", codes: []fsck.Code{fsck.P1ExtentBadStart}, edit: func(e *edit) {
		e.extents("/file", func(h *ondisk.ExtentHeader, x []ondisk.Extent) { x[0].Set(0, 1<<40, x[0].Len(), false) })
	}},
	{name: "extent end", base: "ext4", codes: []fsck.Code{fsck.P1ExtentEndsBeyond}, edit: func(e *edit) {
		e.extents("/file", func(h *ondisk.ExtentHeader, x []ondisk.Extent) { x[0].Set(0, 8190, x[0].Len(), false) })
	}},
	{name: "extents out of order", base: "ext4", codes: []fsck.Code{fsck.P1OutOfOrderExtents}, edit: func(e *edit) {
		e.node("/frag", func(_ []byte, x []ondisk.Extent) { x[3], x[4] = x[4], x[3] })
	}},
	{name: "extents that overlap", base: "ext4", codes: []fsck.Code{fsck.P1ExtentCollision}, edit: func(e *edit) {
		e.node("/frag", func(_ []byte, x []ondisk.Extent) { x[3].Set(ondisk.Lblk(x[2].Block.Get()), x[3].Start(), 1, false) })
	}},
	{name: "extent of nothing", base: "ext4", codes: []fsck.Code{fsck.P1ExtentLengthZero}, edit: func(e *edit) {
		e.node("/frag", func(_ []byte, x []ondisk.Extent) { x[3].RawLen.Set(0) })
	}},
	{name: "extent past its parent", base: "ext4", codes: []fsck.Code{fsck.P1ExtentEndOutOfBound}, edit: func(e *edit) {
		e.node("/deep", func(b []byte, x []ondisk.Extent) {
			n := endian.View[ondisk.ExtentHeader](b).Entries.Get()
			x[n-1].RawLen.Set(200)
		})
	}},
	{name: "extent node", base: "ext4", codes: []fsck.Code{fsck.P1ExtentHeaderInvalid}, edit: func(e *edit) {
		e.node("/frag", func(b []byte, _ []ondisk.Extent) { b[0] = 0 })
	}},
	{name: "extent root", base: "ext4", differs: "it counts blocks of the inode that it has cleared", codes: []fsck.Code{fsck.P1ReadExtent}, edit: func(e *edit) {
		e.extents("/file", func(h *ondisk.ExtentHeader, x []ondisk.Extent) { h.Entries.Set(9) })
	}},
	{name: "extent node checksum", base: "ext4", codes: []fsck.Code{fsck.P1ExtentOnlyCsum}, edit: func(e *edit) {
		e.node("/frag", func([]byte, []ondisk.Extent) {})
		idx, _ := ondisk.ExtentIndex(e.raw(e.ino("/frag")).Base().Block[:])
		e.block(idx[0].Leaf())[1020] ^= 1
	}},
	{name: "extent index start", base: "ext4", codes: []fsck.Code{fsck.P1ExtentIndexStart}, edit: func(e *edit) {
		e.extents("/deep", func(h *ondisk.ExtentHeader, x []ondisk.Extent) { x[1].Block.Set(x[1].Block.Get() - 1) })
	}},
	{name: "map on metadata", base: "ext4", codes: []fsck.Code{fsck.P1CriticalMetadata, fsck.P1DShareMeta}, edit: func(e *edit) {
		e.file("/frag", func(r ondisk.RawInode) {
			idx, _ := ondisk.ExtentIndex(r.Base().Block[:])
			copy(e.block(e.desc(1).BlockBitmap()), e.block(idx[0].Leaf()))
			idx[0].Set(ondisk.Lblk(idx[0].Block.Get()), e.desc(1).BlockBitmap())
		})
	}},
	{name: "pointers on metadata", base: "ext3", differs: "it deletes the file, of which most blocks are sound", codes: []fsck.Code{fsck.P1CriticalMetadata}, edit: func(e *edit) {
		e.pointers("/frag", func(p []endian.LE32) { setPtr(&p[12], e.desc(0).InodeTable()+1) })
	}},
	{name: "file on the superblock", base: "ext3", codes: []fsck.Code{fsck.P1DShareMeta}, edit: func(e *edit) {
		e.pointers("/file", func(p []endian.LE32) { setPtr(&p[1], 1) })
	}},
	{name: "hole before directory blocks", base: "ext4", codes: []fsck.Code{fsck.P1CollapseDblock}, edit: func(e *edit) {
		e.extents("/dir", func(_ *ondisk.ExtentHeader, x []ondisk.Extent) { x[0].Block.Set(3) })
	}},
	{name: "unwritten directory", base: "ext4", codes: []fsck.Code{fsck.P1UninitDblock}, edit: func(e *edit) {
		e.extents("/dir", func(_ *ondisk.ExtentHeader, x []ondisk.Extent) { x[0].Set(0, x[0].Start(), 1, true) })
	}},
	{name: "out of line with clusters", base: "bigalloc", differs: "it does not count the copies that it makes", codes: []fsck.Code{fsck.P1MisalignedCluster}, edit: func(e *edit) {
		e.extents("/last", func(_ *ondisk.ExtentHeader, x []ondisk.Extent) { x[0].Set(0, x[0].Start()+1, 3, false) })
	}},
	{name: "pointers with bigalloc", base: "bigalloc", codes: []fsck.Code{fsck.P1NoBigallocBlockmap}, edit: func(e *edit) {
		blk := e.bmap(e.ino("/last"), 0)
		e.flags("/last", 0, ondisk.FlagExtents)
		e.pointers("/last", func(p []endian.LE32) {
			for i := range p {
				p[i].Set(0)
				if i < 3 {
					setPtr(&p[i], blk+ondisk.Fsblk(i))
				}
			}
		})
	}},
	{name: "tree too deep", base: "ext4", codes: []fsck.Code{fsck.P1ExtentBadMaxDepth}, edit: func(e *edit) {
		// A chain of index nodes above the leaf.
		ino := e.ino("/frag")
		idx, _ := ondisk.ExtentIndex(e.raw(ino).Base().Block[:])
		leaf := idx[0].Leaf()
		for d := 1; d <= 6; d++ {
			b := e.block(7000 + ondisk.Fsblk(d))
			ondisk.InitExtentNode(b, d)
			endian.View[ondisk.ExtentHeader](b).Entries.Set(1)
			endian.View[ondisk.ExtentIdx](b[ondisk.ExtentEntry:]).Set(0, leaf)
			ondisk.SealExtentNode(b, e.own(ino))
			leaf = 7000 + ondisk.Fsblk(d)
		}
		e.inode(ino, func(r ondisk.RawInode) {
			b := r.Base().Block[:]
			endian.View[ondisk.ExtentHeader](b).Depth.Set(7)
			endian.View[ondisk.ExtentIdx](b[ondisk.ExtentEntry:]).Set(0, leaf)
		})
	}},
	{name: "tree that could be shorter", base: "ext4", codes: []fsck.Code{fsck.P1EShorter}, edit: func(e *edit) {
		e.node("/frag", func(b []byte, x []ondisk.Extent) { endian.View[ondisk.ExtentHeader](b).Entries.Set(3) })
		e.file("/frag", func(r ondisk.RawInode) { r.SetBlocks(8); r.SetSize(6 * 1024) })
	}},
	{name: "tree that could be narrower", base: "ext4", codes: []fsck.Code{fsck.P1ENarrower}, edit: func(e *edit) {
		ino := e.ino("/deep")
		idx, _ := ondisk.ExtentIndex(e.raw(ino).Base().Block[:])
		for _, x := range idx {
			b := e.block(x.Leaf())
			endian.View[ondisk.ExtentHeader](b).Entries.Set(10)
			ondisk.SealExtentNode(b, e.own(ino))
		}
	}},
	{name: "two files share blocks", base: "ext3", codes: []fsck.Code{fsck.P1BDupBlock, fsck.P1DDupFile, fsck.P1DDupFileList, fsck.P1DNumDup, fsck.P1DClone, fsck.P1DDealtWith}, edit: func(e *edit) {
		b := e.bmap(e.ino("/other"), 2)
		e.pointers("/file", func(p []endian.LE32) { setPtr(&p[2], b) })
	}},
	{name: "shared blocks, and nobody to ask", base: "ext3", preen: true, refused: true, codes: []fsck.Code{fsck.P1DupBlocksPreenStop}, edit: func(e *edit) {
		b := e.bmap(e.ino("/other"), 2)
		e.pointers("/file", func(p []endian.LE32) { setPtr(&p[2], b) })
	}},
	{name: "two files share a range", base: "ext4", codes: []fsck.Code{fsck.P1BDupRange}, edit: func(e *edit) {
		b := e.bmap(e.ino("/other"), 0)
		e.extents("/file", func(_ *ondisk.ExtentHeader, x []ondisk.Extent) { x[0].Set(0, b, x[0].Len(), false) })
	}},
	{name: "file on an inode table", base: "ext4", codes: []fsck.Code{fsck.P1DShareMeta}, edit: func(e *edit) {
		e.extents("/file", func(_ *ondisk.ExtentHeader, x []ondisk.Extent) {
			x[0].Set(0, e.desc(2).InodeTable(), x[0].Len(), false)
		})
	}},
	{name: "large file without the feature", base: "ext2", codes: []fsck.Code{fsck.P2FeatureLargeFiles}, edit: func(e *edit) {
		e.file("/file", func(r ondisk.RawInode) { r.SetSize(3 << 30) })
	}},
}
