package fsck_test

import (
	"encoding/binary"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fsck"
)

// recipesTree damage how directories hang together, and link counts.
var recipesTree = []recipe{
	{name: "no root", base: "ext4", codes: []fsck.Code{fsck.P3NoRoot}, edit: func(e *edit) { e.file("/", func(r ondisk.RawInode) { clear(r) }) }},
	{name: "directory not connected", base: "ext4", codes: []fsck.Code{fsck.P3UnconnectedDir}, edit: func(e *edit) { noName(e, "/dir/sub") }},
	{name: "no lost+found", base: "ext4", codes: []fsck.Code{fsck.P3NoLF}, edit: func(e *edit) { e.name("/lost+found", func(d []byte) { d[8] = 'L' }) }},
	{name: "wrong parent", base: "ext4", codes: []fsck.Code{fsck.P3BadDotDot}, edit: func(e *edit) {
		e.name("/dir/sub/..", func(d []byte) { setIno(d, ondisk.RootIno) })
	}},
	{name: "lost+found a file", base: "ext4", codes: []fsck.Code{fsck.P3LFNotDir}, edit: func(e *edit) {
		e.name("/lost+found", func(d []byte) { setIno(d, e.ino("/file")); d[7] = ondisk.FTReg })
	}},
	{name: "lost+found inline", base: "inline", codes: []fsck.Code{fsck.P3LFInline}, edit: func(e *edit) {
		e.name("/lost+found", func(d []byte) { setIno(d, e.ino("/dir")) })
	}},
	{name: "lost+found encrypted", base: "encrypt", codes: []fsck.Code{fsck.P3LFEncrypted}, edit: func(e *edit) { e.encrypt("/lost+found", 1) }},
	{name: "loop of directories", base: "ext4", differs: "the version before 1.47.1 does not know loops", codes: []fsck.Code{fsck.P3LoopedParent}, edit: func(e *edit) {
		noName(e, "/dir")
		e.dir("/dir/sub", 0, func(b []byte) { setIno(e.entry(b, "subsub"), e.ino("/dir")) })
	}},
	{name: "unattached empty inode", base: "ext4", codes: []fsck.Code{fsck.P4ZeroLenInode}, edit: func(e *edit) { noName(e, "/empty") }},
	{name: "unattached inode", base: "ext4", codes: []fsck.Code{fsck.P4UnattachedInode}, edit: func(e *edit) { noName(e, "/file") }},
	{name: "link count", base: "ext4", codes: []fsck.Code{fsck.P4BadRefCount}, edit: func(e *edit) {
		e.file("/file", func(r ondisk.RawInode) { r.Base().LinksCount.Set(5) })
	}},
	{name: "link count that overflowed once", base: "ext4", differs: "the version before 1.47.1 takes it for a wrong count", codes: []fsck.Code{fsck.P4DirOverflowRef}, edit: func(e *edit) {
		e.file("/dir", func(r ondisk.RawInode) { r.Base().LinksCount.Set(1) })
	}},
	{name: "inode bitmap padding", base: "ext4", codes: []fsck.Code{fsck.P5InodePadding}, edit: func(e *edit) { e.nodes(1, func(b []byte) { b[1000] = 0 }) }},
	{name: "block bitmap padding", base: "ext4", codes: []fsck.Code{fsck.P5BlockPadding}, edit: func(e *edit) { e.bits(1, func(b []byte) { b[1000] = 0 }) }},
	{name: "block bitmap", base: "ext4", codes: []fsck.Code{fsck.P5BlockUnused, fsck.P5BlockUsed}, edit: func(e *edit) {
		b := e.bmap(e.ino("/file"), 1) - 1
		e.bits(0, func(x []byte) { x[b/8] ^= 1 << (b % 8); x[250] ^= 1 })
	}},
	{name: "block bitmap, ranges", base: "ext4", codes: []fsck.Code{fsck.P5BlockRangeUnused, fsck.P5BlockRangeUsed}, edit: func(e *edit) {
		e.bits(0, func(x []byte) { x[2] ^= 0xff; x[250] ^= 0x1e })
	}},
	{name: "inode bitmap", base: "ext4", codes: []fsck.Code{fsck.P5InodeUnused, fsck.P5InodeUsed}, edit: func(e *edit) {
		e.nodes(0, func(x []byte) { x[1] ^= 0x10 })
		e.nodes(1, func(x []byte) { x[10] ^= 2 })
	}},
	{name: "inode bitmap, ranges", base: "ext4", codes: []fsck.Code{fsck.P5InodeRangeUnused, fsck.P5InodeRangeUsed}, edit: func(e *edit) {
		e.nodes(0, func(x []byte) { x[1] ^= 0x30 })
		e.nodes(1, func(x []byte) { x[10] ^= 6 })
	}},
	{name: "counts of groups", base: "ext4", codes: []fsck.Code{fsck.P5FreeInodeGroup, fsck.P5FreeDirGroup, fsck.P5FreeBlockGroup}, edit: func(e *edit) {
		e.group(1, func(d ondisk.Desc) { d.SetFreeBlocks(3); d.SetFreeInodes(120); d.SetUsedDirs(9) })
	}},
	{name: "totals", base: "ext4", codes: []fsck.Code{fsck.P5FreeInode, fsck.P5FreeBlock}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FreeInodes.Set(3); s.SetFreeBlocksCount(3) })
	}},
	{name: "block uninit", base: "ext4", codes: []fsck.Code{fsck.P5BlockUninit}, edit: func(e *edit) {
		e.group(0, func(d ondisk.Desc) { d.SetFlags(ondisk.BGBlockUninit, 0) })
	}},
	{name: "inode uninit", base: "ext4", differs: "it finds the inodes only by their names", codes: []fsck.Code{fsck.P5InodeUninit}, edit: func(e *edit) {
		e.group(0, func(d ondisk.Desc) { d.SetFlags(ondisk.BGInodeUninit, 0) })
	}},
	{name: "bitmap checksums", base: "ext4", codes: []fsck.Code{fsck.P5InodeBitmapCsum, fsck.P5BlockBitmapCsum}, edit: func(e *edit) {
		e.group(1, func(d ondisk.Desc) { d.SetInodeBitmapCsum(1); d.SetBlockBitmapCsum(1) })
	}},
	{name: "index block removed", base: "ext4", codes: []fsck.Code{fsck.P2DirCorrupted}, edit: func(e *edit) {
		e.dir("/big", 2, func(b []byte) { binary.LittleEndian.PutUint16(b[4:], 5) })
	}},
}

// unreached says of codes why no recipe reaches them.
var unreached = map[fsck.Code]string{}
