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

// unreached says of codes why no recipe reaches them. Where it says that the C tool
// does not either, the code is in its table and nowhere else.
var unreached = map[fsck.Code]string{
	0x000007: "nor does the C tool reach it",
	0x00000c: "a device tells its size when it is opened",
	0x000014: "nor does the C tool reach it",
	0x000029: "a write that fails ends the check",
	0x000033: "the journal is named, and not looked for by its number",
	0x00003a: "by the recorded case j_corrupt_commit_csum",
	0x00004c: "there is no such library",
	0x01000f: "nor does the C tool reach it",
	0x01001d: "blocks are claimed for a reason",
	0x01001f: "memory that is not to be had ends the program",
	0x010023: "a write that fails ends the check",
	0x010024: "memory that is not to be had ends the program",
	0x010025: "memory that is not to be had ends the program",
	0x010026: "memory that is not to be had ends the program",
	0x010027: "memory that is not to be had ends the program",
	0x01002a: "counts of links are in memory",
	0x01002b: "memory that is not to be had ends the program",
	0x01002c: "nor does the C tool reach it",
	0x010038: "memory that is not to be had ends the program",
	0x01003b: "a block that cannot be read again ends the check with the error of the device",
	0x01003d: "a write that fails ends the check",
	0x01003f: "memory that is not to be had ends the program",
	0x010045: "it takes a file of more than 2 TiB of blocks",
	0x010050: "a name that is too long reaches over something else first, which is told, as by the C tool",
	0x010052: "nor does the C tool reach it",
	0x010057: "what would end a walk over extents is told of one by one",
	0x010061: "bitmaps are of clusters from the beginning",
	0x010064: "nor does the C tool reach it",
	0x01007c: "nor does the C tool reach it",
	0x01007e: "memory that is not to be had ends the program",
	0x010087: "the C tool reaches it if it was built for its developers",
	0x010090: "without the feature the number of the orphan file means nothing, and the inode is left alone",
	0x011004: "inode tables are read once",
	0x011005: "memory that is not to be had ends the program",
	0x011006: "the map was walked before",
	0x011007: "a write that fails ends the check",
	0x014001: "it takes a full file system whose files lie on the nodes of a tree that is too deep",
	0x014002: "nor does the C tool reach it",
	0x014003: "nor does the C tool reach it",
	0x014004: "nor does the C tool reach it",
	0x014005: "trees are built as deep as they have to be",
	0x020014: "nor does the C tool reach it",
	0x02001c: "directories are noted in memory",
	0x02001d: "what is salvaged ends where the block does",
	0x02001e: "memory that is not to be had ends the program",
	0x02001f: "the blocks are a list in memory",
	0x020021: "a write that fails ends the check",
	0x020023: "a write that fails ends the check",
	0x02003b: "a write that fails ends the check",
	0x020045: "an index is as large as its directory's map",
	0x02004a: "by the recorded case f_preen_htree_csum",
	0x02004f: "a size can always be made smaller",
	0x030006: "lost+found, or the root in its stead, can always be had if it is asked for",
	0x030008: "there is room in a block that was just added",
	0x030009: "it is looked for in blocks that were read before",
	0x03000a: "told of as 0x030019, after which the root is used",
	0x03000b: "told of as 0x030019, after which the root is used",
	0x03000c: "told of as 0x030019, after which the root is used",
	0x03000d: "a write that fails ends the check",
	0x03000f: "a write that fails ends the check",
	0x030010: "pass 2 has given each directory a \"..\"",
	0x030011: "memory that is not to be had ends the program",
	0x030012: "the block that the root had is free",
	0x030013: "it takes a no to the root in its stead",
	0x030016: "directories are noted in memory",
	0x031001: "the list is in memory",
	0x031003: "nor does the C tool reach it",
	0x031004: "nor does the C tool reach it",
	0x031005: "nor does the C tool reach it",
	0x040004: "both counts are made by one function",
	0x040006: "by the recorded case f_many_subdirs: it takes 65,000 directories",
	0x050010: "bitmaps have no bounds of their own",
	0x050011: "bitmaps have no bounds of their own",
	0x050012: "a bitmap that cannot be read is written anew",
	0x050013: "a bitmap that cannot be read is written anew",
	0x060003: "checksums are computed in memory",
	0x060004: "a write that fails ends the check",
	0x060005: "a write that fails ends the check",
	0x060008: "the old blocks are freed in memory",
	0x06000a: "it takes a no to the bitmaps and a yes to the file",
}
