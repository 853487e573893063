package fsck_test

import (
	"encoding/binary"
	"strings"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fsck"
)

func setIno(d []byte, i ondisk.Ino) { binary.LittleEndian.PutUint32(d, uint32(i)) }

// dxRoot changes the entries of /big's index root.
func (e *edit) dxRoot(f func(c *ondisk.DxCountLimit, x []ondisk.DxEntry)) {
	e.dir("/big", 0, func(b []byte) {
		f(endian.View[ondisk.DxCountLimit](b[ondisk.DxRootOff:]), endian.Views[ondisk.DxEntry](b[ondisk.DxRootOff:], 20))
	})
}

func noName(e *edit, path string) { e.name(path, func(d []byte) { setIno(d, 0) }) }

// recipesDir damage directories.
var recipesDir = []recipe{
	{name: "dot leads elsewhere", base: "ext4", codes: []fsck.Code{fsck.P2BadInodeDot}, edit: func(e *edit) {
		e.name("/dir/.", func(d []byte) { setIno(d, 13) })
	}},
	{name: "entry out of range", base: "ext4", codes: []fsck.Code{fsck.P2BadIno}, edit: func(e *edit) {
		e.name("/dir/file", func(d []byte) { setIno(d, 100000) })
	}},
	{name: "entry for a reserved inode", base: "ext4", codes: []fsck.Code{fsck.P2BadIno}, edit: func(e *edit) {
		e.name("/dir/file", func(d []byte) { setIno(d, 6) })
	}},
	{name: "entry for no inode", base: "ext4", codes: []fsck.Code{fsck.P2UnusedInode}, edit: func(e *edit) {
		e.file("/dir/file", func(r ondisk.RawInode) { clear(r) })
	}},
	{name: "entry for its directory", base: "ext4", codes: []fsck.Code{fsck.P2LinkDot}, edit: func(e *edit) {
		e.name("/dir/file", func(d []byte) { setIno(d, e.ino("/dir")) })
	}},
	{name: "second name of a directory", base: "ext4", codes: []fsck.Code{fsck.P2LinkDir}, edit: func(e *edit) {
		e.name("/dir/file", func(d []byte) { setIno(d, e.ino("/big")) })
	}},
	{name: "entry for the root", base: "ext4", codes: []fsck.Code{fsck.P2LinkRoot}, edit: func(e *edit) {
		e.name("/dir/file", func(d []byte) { setIno(d, ondisk.RootIno) })
	}},
	{name: "slash in a name", base: "ext4", codes: []fsck.Code{fsck.P2BadName}, edit: func(e *edit) { e.name("/dir/file", func(d []byte) { d[9] = '/' }) }},
	{name: "no dot", base: "ext4", codes: []fsck.Code{fsck.P2MissingDot}, edit: func(e *edit) { noName(e, "/dir/.") }},
	{name: "no dot dot", base: "ext4", codes: []fsck.Code{fsck.P2MissingDotDot}, edit: func(e *edit) { noName(e, "/dir/..") }},
	{name: "first not dot", base: "ext4", codes: []fsck.Code{fsck.P21stNotDot}, edit: func(e *edit) { e.name("/dir/.", func(d []byte) { d[8] = 'x' }) }},
	{name: "second not dot dot", base: "ext4", codes: []fsck.Code{fsck.P22ndNotDotDot}, edit: func(e *edit) { e.name("/dir/..", func(d []byte) { d[9] = 'x' }) }},
	{name: "fragment address", base: "ext4", codes: []fsck.Code{fsck.P2FaddrZero}, edit: func(e *edit) {
		e.file("/file", func(r ondisk.RawInode) { r.Base().ObsoFaddr.Set(5) })
	}},
	{name: "fragment", base: "ext2", codes: []fsck.Code{0x020010, 0x020011}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.CreatorOS.Set(ondisk.OSHurd); s.FeatureIncompat.Set(0) })
		e.file("/file", func(r ondisk.RawInode) { r[116], r[117] = 1, 1 })
	}},
	{name: "size of a directory, high", base: "ext3", codes: []fsck.Code{fsck.P2DirSizeHighZero}, edit: func(e *edit) {
		e.file("/dir", func(r ondisk.RawInode) { r.Base().SizeHi.Set(1) })
	}},
	{name: "mode", base: "ext4", codes: []fsck.Code{fsck.P2BadMode}, edit: func(e *edit) { mode(e, "/file", 0o644) }},
	{name: "directory block", base: "ext4", differs: "what it has salvaged reaches over the checksum, and is found wrong once more", codes: []fsck.Code{fsck.P2DirCorrupted}, edit: func(e *edit) {
		e.name("/dir/sub", func(d []byte) { binary.LittleEndian.PutUint16(d[4:], 7) })
	}},
	{name: "directory block of one kibibyte", base: "ext3", codes: []fsck.Code{fsck.P2DirCorrupted}, edit: func(e *edit) {
		e.name("/dir/file", func(d []byte) { binary.LittleEndian.PutUint16(d[4:], 2000) })
	}},
	{name: "record over the checksum", base: "ext4", codes: []fsck.Code{fsck.P2LeafMissingTail}, edit: func(e *edit) {
		e.name("/dir/file", func(d []byte) { binary.LittleEndian.PutUint16(d[4:], uint16(len(d)+12)) })
	}},
	{name: "hole in a directory", base: "ext3", codes: []fsck.Code{fsck.P2DirectoryHole}, edit: func(e *edit) {
		e.pointers("/big", func(p []endian.LE32) { p[2].Set(0) })
		e.file("/big", func(r ondisk.RawInode) { r.SetBlocks(r.Blocks(false) - 2) })
	}},
	{name: "dot not terminated", base: "ext4", codes: []fsck.Code{fsck.P2DotNullTerm}, edit: func(e *edit) { e.name("/dir/.", func(d []byte) { d[9] = 'x' }) }},
	{name: "dot dot not terminated", base: "ext4", codes: []fsck.Code{fsck.P2DotDotNullTerm}, edit: func(e *edit) { e.name("/dir/..", func(d []byte) { d[10] = 'x' }) }},
	{name: "devices", base: "ext4", codes: []fsck.Code{fsck.P2BadCharDev, fsck.P2BadBlockDev, fsck.P2BadFIFO, fsck.P2BadSocket}, edit: func(e *edit) {
		for _, n := range []string{"/chr", "/blk", "/fifo", "/sock"} {
			e.file(n, func(r ondisk.RawInode) { r.Base().Block[40] = 1; r.Base().Flags.Set(ondisk.FlagAppend) })
		}
	}},
	{name: "second dot", base: "ext4", codes: []fsck.Code{fsck.P2DupDot}, edit: func(e *edit) { e.name("/dir/file", func(d []byte) { d[6], d[8] = 1, '.' }) }},
	{name: "second dot dot", base: "ext4", codes: []fsck.Code{fsck.P2DupDotDot}, edit: func(e *edit) {
		e.name("/dir/file", func(d []byte) { d[6], d[8], d[9] = 2, '.', '.' })
	}},
	{name: "long dot", base: "ext4", codes: []fsck.Code{fsck.P2SplitDot}, edit: func(e *edit) {
		e.dir("/dir/sub/subsub", 0, func(b []byte) {
			copy(b[100:], b[12:24])
			binary.LittleEndian.PutUint16(b[4:], 100)
			binary.LittleEndian.PutUint16(b[104:], 1024-100-12)
		})
	}},
	{name: "type missing", base: "ext4", codes: []fsck.Code{fsck.P2SetFiletype}, edit: func(e *edit) { e.name("/dir/file", func(d []byte) { d[7] = 0 }) }},
	{name: "type wrong", base: "ext4", codes: []fsck.Code{fsck.P2BadFiletype}, edit: func(e *edit) { e.name("/dir/file", func(d []byte) { d[7] = 3 }) }},
	{name: "types without the feature", base: "ext2", codes: []fsck.Code{fsck.P2ClearFiletype}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureIncompat.Set(0) })
	}},
	{name: "empty name", base: "ext4", codes: []fsck.Code{fsck.P2NullName}, edit: func(e *edit) { e.name("/dir/file", func(d []byte) { d[6] = 0 }) }},
	{name: "symlink", base: "ext4", codes: []fsck.Code{fsck.P2InvalidSymlink}, edit: func(e *edit) { e.file("/short", func(r ondisk.RawInode) { r.SetSize(2) }) }},
	{name: "symlink in a block", base: "ext4", codes: []fsck.Code{fsck.P2InvalidSymlink}, edit: func(e *edit) { e.file("/long", func(r ondisk.RawInode) { r.SetSize(70) }) }},
	{name: "index block not referenced", base: "ext4", differs: "it checks hashes of a block that is referenced twice against both", codes: []fsck.Code{fsck.P2HtreeNotref, fsck.P2HtreeDupref, fsck.P2HtreeClear}, edit: func(e *edit) {
		e.dxRoot(func(_ *ondisk.DxCountLimit, x []ondisk.DxEntry) { x[2].Block = x[1].Block })
	}},
	{name: "index hashes", base: "ext4", codes: []fsck.Code{fsck.P2HtreeMinHash, fsck.P2HtreeMaxHash}, edit: func(e *edit) {
		e.dxRoot(func(_ *ondisk.DxCountLimit, x []ondisk.DxEntry) { x[1].Block, x[2].Block = x[2].Block, x[1].Block })
	}},
	{name: "index block out of range", base: "ext4", codes: []fsck.Code{fsck.P2HtreeBadblk}, edit: func(e *edit) {
		e.dxRoot(func(_ *ondisk.DxCountLimit, x []ondisk.DxEntry) { x[2].Block.Set(1000) })
	}},
	{name: "index limit", base: "ext4", codes: []fsck.Code{fsck.P2HtreeBadLimit}, edit: func(e *edit) {
		e.dxRoot(func(c *ondisk.DxCountLimit, _ []ondisk.DxEntry) { c.Limit.Set(5) })
	}},
	{name: "index count", base: "ext4", differs: "it takes a count of none for one", codes: []fsck.Code{fsck.P2HtreeBadCount}, edit: func(e *edit) {
		e.dxRoot(func(c *ondisk.DxCountLimit, _ []ondisk.DxEntry) { c.Count.Set(0) })
	}},
	{name: "index order", base: "ext4", codes: []fsck.Code{fsck.P2HtreeHashOrder}, edit: func(e *edit) {
		e.dxRoot(func(_ *ondisk.DxCountLimit, x []ondisk.DxEntry) { x[1].Hash, x[2].Hash = x[2].Hash, x[1].Hash })
	}},
	{name: "index depth of leaves", base: "ext4", codes: []fsck.Code{fsck.P2HtreeBadDepth}, edit: func(e *edit) {
		e.dir("/big", 0, func(b []byte) { endian.View[ondisk.DxRootInfo](b[ondisk.DxRootInfoOff:]).IndirectLevels[0] = 1 })
	}},
	{name: "index root in pass 2", base: "ext4", differs: "the former root of an index has no place for the checksum of a leaf", codes: []fsck.Code{fsck.P1HtreeBadroot}, edit: func(e *edit) {
		e.dir("/big", 0, func(b []byte) { endian.View[ondisk.DxRootInfo](b[ondisk.DxRootInfoOff:]).Zero.Set(1) })
	}},
	{name: "index checksum", base: "ext4", codes: []fsck.Code{fsck.P2HtreeRootCsum}, edit: func(e *edit) {
		e.block(e.bmap(e.ino("/big"), 0))[1020] ^= 1
	}},
	{name: "same entry twice", base: "ext4", codes: []fsck.Code{fsck.P2ReportDupDirent, fsck.P2DuplicateDirent}, edit: func(e *edit) {
		e.name("/hard2", func(d []byte) { d[6] = 4; copy(d[8:], "hard\x00") })
	}},
	{name: "same name twice", base: "ext4", codes: []fsck.Code{fsck.P2ReportDupDirent, fsck.P2NonUniqueFile}, edit: func(e *edit) {
		e.name("/fifo", func(d []byte) { copy(d[8:], "file") })
	}},
	{name: "high blocks", base: "ext3", codes: []fsck.Code{fsck.P2BlocksHiZero}, edit: func(e *edit) {
		e.file("/file", func(r ondisk.RawInode) { r.Base().BlocksHi.Set(1) })
	}},
	{name: "high attribute block", base: "ext3", codes: []fsck.Code{fsck.P2FileACLHiZero}, edit: func(e *edit) {
		e.file("/file", func(r ondisk.RawInode) { r.Base().FileACLHi.Set(1) })
	}},
	{name: "inode in an uninit group", base: "ext4", codes: []fsck.Code{fsck.P2InoInUninit}, edit: func(e *edit) {
		g := ondisk.Group((e.ino("/big") - 1) / ondisk.Ino(e.sb.InodesPerGroup.Get()))
		e.group(g, func(d ondisk.Desc) { d.SetFlags(ondisk.BGInodeUninit, 0) })
	}},
	{name: "inode in the unused area", base: "ext4", codes: []fsck.Code{fsck.P2InoInUnused}, edit: func(e *edit) {
		g := ondisk.Group((e.ino("/last") - 1) / ondisk.Ino(e.sb.InodesPerGroup.Get()))
		e.group(g, func(d ondisk.Desc) {
			d.SetFreeInodes(d.FreeInodes() + 5)
			d.SetItableUnused(e.sb.InodesPerGroup.Get() - uint32(e.ino("/last")-1)%e.sb.InodesPerGroup.Get() + 1)
		})
	}},
	{name: "directory without a place for its checksum", base: "ext4", codes: []fsck.Code{fsck.P2LeafMissingTail}, edit: func(e *edit) {
		b := e.block(e.bmap(e.ino("/dir"), 0))
		clear(b[1012:])
		d := e.entry(b, "file")
		binary.LittleEndian.PutUint16(d[4:], uint16(len(d)+12))
	}},
	{name: "directory checksum", base: "ext4", codes: []fsck.Code{fsck.P2LeafOnlyCsum}, edit: func(e *edit) { e.block(e.bmap(e.ino("/dir"), 0))[1020] ^= 1 }},
	{name: "encrypted name", base: "encrypt", codes: []fsck.Code{fsck.P2BadEncryptedName}, edit: func(e *edit) {
		e.encrypt("/dir", 1)
		e.encrypt("/dir/sub", 1)
		e.encrypt("/dir/sub/subsub", 1)
		e.encrypt("/dir/file", 1)
	}},
	{name: "unencrypted in encrypted", base: "encrypt", codes: []fsck.Code{fsck.P2Unencrypted}, edit: func(e *edit) { e.encrypt("/big", 1) }},
	{name: "other policy", base: "encrypt", codes: []fsck.Code{fsck.P2PolicyMismatch}, edit: func(e *edit) {
		e.encrypt("/big", 1)
		for p := range e.base.ino {
			if len(p) > 5 && p[:5] == "/big/" {
				e.encrypt(p, 2)
			}
		}
	}},
	{name: "same encrypted name twice", base: "encrypt", codes: []fsck.Code{fsck.P2ReportDupDirent, fsck.P2NonUniqueEncoded}, edit: func(e *edit) {
		e.encrypt("/big", 1)
		for p := range e.base.ino {
			if strings.HasPrefix(p, "/big/") {
				e.encrypt(p, 1)
			}
		}
		e.dir("/big", 1, func(b []byte) {
			first, _ := ondisk.DirentAt(b, 0, e.bs)
			second, _ := ondisk.DirentAt(b, first.RecLen, e.bs)
			copy(second.Name, first.Name)
		})
	}},
	{name: "name no UTF-8", base: "casefold", codes: []fsck.Code{fsck.P2BadCasefoldName}, edit: func(e *edit) {
		e.flags("/dir", ondisk.FlagCasefold, 0)
		e.name("/dir/file", func(d []byte) { d[9] = 0xff })
	}},
	{name: "same folded name twice", base: "casefold", codes: []fsck.Code{fsck.P2ReportDupDirent}, edit: func(e *edit) {
		e.flags("/dir", ondisk.FlagCasefold, 0)
		e.name("/dir/file", func(d []byte) { d[6] = 3; copy(d[8:], "SUB\x00") })
	}},
	{name: "inline directory size", base: "inline", codes: []fsck.Code{0x02004e}, edit: func(e *edit) {
		e.file("/dir", func(r ondisk.RawInode) { r.SetSize(65) })
		e.inattrs("/dir", func(b []byte) {
			firstAttr(b).ValueOffs.Set(uint16(len(b) - 8))
			firstAttr(b).ValueSize.Set(5)
		})
	}},
	{name: "inline directory entry", base: "inline", codes: []fsck.Code{fsck.P2DirCorrupted}, edit: func(e *edit) {
		e.file("/dir", func(r ondisk.RawInode) { binary.LittleEndian.PutUint16(r.Base().Block[8:], 3) })
	}},
	{name: "inline directory parent", base: "inline", codes: []fsck.Code{fsck.P2BadIno, fsck.P3BadDotDot}, edit: func(e *edit) {
		e.file("/dir", func(r ondisk.RawInode) { setIno(r.Base().Block[:], 99999) })
	}},
}
