package fsck_test

import (
	"encoding/binary"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fsck"
)

func mode(e *edit, path string, m uint16) {
	e.file(path, func(r ondisk.RawInode) { r.Base().Mode.Set(m) })
}

// recipesInode damage inodes, but for what they map.
var recipesInode = []recipe{
	{name: "root no directory", base: "ext4", codes: []fsck.Code{fsck.P1RootNoDir, fsck.P3NoRoot}, edit: func(e *edit) { mode(e, "/", ondisk.ModeReg|0o644) }},
	{name: "root deleted", base: "ext4", codes: []fsck.Code{fsck.P1RootDtime}, edit: func(e *edit) {
		e.file("/", func(r ondisk.RawInode) { r.Base().Dtime.Set(1_500_000_000) })
	}},
	{name: "reserved inode", base: "ext4", codes: []fsck.Code{fsck.P1ReservedBadMode}, edit: func(e *edit) {
		e.inode(6, func(r ondisk.RawInode) { r.Base().Mode.Set(ondisk.ModeChr) })
	}},
	{name: "no deletion time", base: "ext4", codes: []fsck.Code{fsck.P1ZeroDtime}, edit: func(e *edit) {
		e.file("/empty", func(r ondisk.RawInode) { r.Base().LinksCount.Set(0) })
	}},
	{name: "deletion time", base: "ext4", codes: []fsck.Code{fsck.P1SetDtime}, edit: func(e *edit) {
		e.file("/file", func(r ondisk.RawInode) { r.Base().Dtime.Set(1_500_000_000) })
	}},
	{name: "empty directory", base: "ext4", codes: []fsck.Code{fsck.P1ZeroLengthDir}, edit: func(e *edit) {
		e.extents("/dir/sub/subsub", func(h *ondisk.ExtentHeader, _ []ondisk.Extent) { h.Entries.Set(0) })
		e.file("/dir/sub/subsub", func(r ondisk.RawInode) { r.SetSize(0); r.SetBlocks(0) })
	}},
	{name: "imagic", base: "ext4", codes: []fsck.Code{fsck.P1SetImagic}, edit: func(e *edit) { e.flags("/file", ondisk.FlagImagic, 0) }},
	{name: "immutable device", base: "ext4", codes: []fsck.Code{fsck.P1SetImmutable}, edit: func(e *edit) { e.flags("/chr", ondisk.FlagImmutable, 0) }},
	{name: "device with a size", base: "ext4", codes: []fsck.Code{fsck.P1SetNonzsize}, edit: func(e *edit) {
		e.file("/blk", func(r ondisk.RawInode) { r.SetSize(100) })
	}},
	{name: "journal inode unused", base: "nocsum", codes: []fsck.Code{fsck.P1JournalNotClear}, edit: func(e *edit) {
		e.inode(ondisk.JournalIno, func(r ondisk.RawInode) { r.Base().LinksCount.Set(1); r.Base().Mode.Set(ondisk.ModeReg) })
	}},
	{name: "journal inode mode", base: "ext4", differs: "it does not see that the copy of the inode in the superblock has extents", codes: []fsck.Code{fsck.P1JournalBadMode}, edit: func(e *edit) {
		e.inode(ondisk.JournalIno, func(r ondisk.RawInode) { r.Base().Mode.Set(ondisk.ModeChr) })
	}},
	{name: "index without the feature", base: "ext3", codes: []fsck.Code{fsck.P1HtreeSet}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureCompat.Set(s.FeatureCompat.Get() &^ ondisk.CompatDirIndex) })
	}},
	{name: "index of a file", base: "ext4", codes: []fsck.Code{fsck.P1HtreeNodir}, edit: func(e *edit) { e.flags("/file", ondisk.FlagIndex, 0) }},
	{name: "index root", base: "ext4", differs: "the former root of an index has no place for the checksum of a leaf", codes: []fsck.Code{fsck.P1HtreeBadroot}, edit: func(e *edit) {
		e.dir("/big", 0, func(b []byte) { endian.View[ondisk.DxRootInfo](b[ondisk.DxRootInfoOff:]).InfoLength[0] = 2 })
	}},
	{name: "index hash version", base: "ext4", differs: "the former root of an index has no place for the checksum of a leaf, which it takes for damage", codes: []fsck.Code{fsck.P1HtreeHashv}, edit: func(e *edit) {
		e.dir("/big", 0, func(b []byte) { endian.View[ondisk.DxRootInfo](b[ondisk.DxRootInfoOff:]).HashVersion[0] = 77 })
	}},
	{name: "index flag", base: "ext4", differs: "the former root of an index has no place for the checksum of a leaf, which it takes for damage", codes: []fsck.Code{fsck.P1HtreeIncompat}, edit: func(e *edit) {
		e.dir("/big", 0, func(b []byte) { endian.View[ondisk.DxRootInfo](b[ondisk.DxRootInfoOff:]).UnusedFlags[0] = 1 })
	}},
	{name: "index depth", base: "ext4", differs: "the former root of an index has no place for the checksum of a leaf, which it takes for damage", codes: []fsck.Code{fsck.P1HtreeDepth}, edit: func(e *edit) {
		e.dir("/big", 0, func(b []byte) { endian.View[ondisk.DxRootInfo](b[ondisk.DxRootInfoOff:]).IndirectLevels[0] = 9 })
	}},
	{name: "index siphash", base: "ext4", differs: "the former root of an index has no place for the checksum of a leaf, which it takes for damage", codes: []fsck.Code{fsck.P1HtreeCannotSiphash}, edit: func(e *edit) {
		e.dir("/big", 0, func(b []byte) {
			endian.View[ondisk.DxRootInfo](b[ondisk.DxRootInfoOff:]).HashVersion[0] = ondisk.HashSipHash
		})
	}},
	{name: "index without siphash", base: "casefold", differs: "the former root of an index has no place for the checksum of a leaf, which it takes for damage", codes: []fsck.Code{fsck.P1HtreeNeedsSiphash}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureIncompat.Set(s.FeatureIncompat.Get() | ondisk.IncompatEncrypt) })
		e.encrypt("/big", 1)
		e.flags("/big", ondisk.FlagCasefold, 0)
	}},
	{name: "extra size", base: "ext4", codes: []fsck.Code{fsck.P1ExtraIsize}, edit: func(e *edit) {
		e.file("/file", func(r ondisk.RawInode) { binary.LittleEndian.PutUint16(r[128:], 33) })
	}},
	{name: "file that is a directory", base: "ext4", codes: []fsck.Code{fsck.P1TreatAsDirectory}, edit: func(e *edit) { mode(e, "/dir/sub", ondisk.ModeChr|0o755) }},
	{name: "extents without the feature", base: "ext3", codes: []fsck.Code{fsck.P1ExtentsSet}, edit: func(e *edit) { e.flags("/file", ondisk.FlagExtents, 0) }},
	{name: "extents, feature lost", base: "nocsum", codes: []fsck.Code{fsck.P1ExtentFeature}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureIncompat.Set(s.FeatureIncompat.Get() &^ ondisk.IncompatExtents) })
	}},
	{name: "extents flag lost", base: "ext4", codes: []fsck.Code{fsck.P1UnsetExtentFl}, edit: func(e *edit) { e.flags("/file", 0, ondisk.FlagExtents) }},
	{name: "fast symlink with extents", base: "ext4", codes: []fsck.Code{fsck.P1FastSymlinkExtent}, edit: func(e *edit) { e.flags("/short", ondisk.FlagExtents, 0) }},
	{name: "garbage", base: "ext4", differs: "it tells of a checksum that it has made wrong itself", codes: []fsck.Code{fsck.P1InodeIsGarbage}, edit: func(e *edit) {
		first := (e.ino("/big/a name of some length 000")+3)&^3 + 1 // four to a block
		for i := range ondisk.Ino(4) {
			r := e.raw(first + i)
			for k := range r {
				r[k] = byte(k*13) + byte(i)
			}
		}
	}},
	{name: "inode checksum", base: "ext4", codes: []fsck.Code{fsck.P1InodeOnlyCsum}, edit: func(e *edit) { e.raw(e.ino("/file")).Base().ChecksumLo.Set(1) }},
	{name: "inline data, feature lost", base: "inline", codes: []fsck.Code{fsck.P1InlineDataFeature}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureIncompat.Set(s.FeatureIncompat.Get() &^ ondisk.IncompatInlineData) })
	}},
	{name: "inline data without the feature", base: "ext4", codes: []fsck.Code{fsck.P1InlineDataSet}, edit: func(e *edit) { e.flags("/file", ondisk.FlagInlineData, 0) }},
	{name: "inline data without an attribute", base: "inline", codes: []fsck.Code{fsck.P1InlineDataNoAttr}, edit: func(e *edit) {
		e.inattrs("/dir/file", func(b []byte) { clear(b[:ondisk.XattrEntrySize]) })
	}},
	{name: "device with flags", base: "ext4", codes: []fsck.Code{fsck.P1SpecialExtentsIdata}, edit: func(e *edit) { e.flags("/sock", ondisk.FlagExtents|ondisk.FlagInlineData, 0) }},
	{name: "inline flag on extents", base: "inline", differs: "it empties the file, of which the extents are sound", codes: []fsck.Code{fsck.P1ClearInlineForExt}, edit: func(e *edit) { e.flags("/file", ondisk.FlagInlineData, ondisk.FlagExtents) }},
	{name: "both flags, extents", base: "inline", codes: []fsck.Code{fsck.P1ClearInlineForExt}, edit: func(e *edit) { e.flags("/file", ondisk.FlagInlineData, 0) }},
	{name: "both flags, inline", base: "inline", codes: []fsck.Code{fsck.P1ClearExtForInline}, edit: func(e *edit) { e.flags("/dir/file", ondisk.FlagExtents, 0) }},
	{name: "both flags, pointers", base: "inline", codes: []fsck.Code{fsck.P1ClearExtAndInline}, edit: func(e *edit) {
		blk := e.bmap(e.ino("/file"), 0)
		e.flags("/file", ondisk.FlagInlineData, 0)
		e.pointers("/file", func(p []endian.LE32) {
			for i := range p {
				p[i].Set(0)
				if i < 5 {
					p[i].Set(uint32(blk) + uint32(i))
				}
			}
		})
	}},
	{name: "both flags, junk", base: "inline", codes: []fsck.Code{fsck.P1ClearJunk}, edit: func(e *edit) {
		e.flags("/file", ondisk.FlagInlineData, 0)
		e.pointers("/file", func(p []endian.LE32) {
			for i := range p {
				p[i].Set(0xdeadbeef)
			}
		})
	}},
	{name: "extent header", base: "ext4", differs: "it counts blocks of the inode that it has cleared", codes: []fsck.Code{fsck.P1MissingExtentHeader}, edit: func(e *edit) {
		e.extents("/file", func(h *ondisk.ExtentHeader, _ []ondisk.Extent) { *h = ondisk.ExtentHeader{} })
	}},
	{name: "times past 2310", base: "ext4", codes: []fsck.Code{fsck.P1EATimeOutOfRange}, edit: func(e *edit) {
		e.file("/file", func(r ondisk.RawInode) {
			r.Base().Mtime.Set(0xf0000000)
			x := endian.View[ondisk.InodeExtra](r[128:])
			x.MtimeExtra.Set(3)
		})
	}},
	{name: "casefold of a file", base: "casefold", codes: []fsck.Code{fsck.P1CasefoldNondir}, edit: func(e *edit) { e.flags("/file", ondisk.FlagCasefold, 0) }},
	{name: "casefold without the feature", base: "ext4", codes: []fsck.Code{fsck.P1CasefoldFeature}, edit: func(e *edit) { e.flags("/dir", ondisk.FlagCasefold, 0) }},
	{name: "no encryption policy", base: "encrypt", codes: []fsck.Code{fsck.P1MissingEncryptXattr}, edit: func(e *edit) { e.flags("/file", ondisk.FlagEncrypt, 0) }},
	{name: "encryption policy", base: "encrypt", codes: []fsck.Code{fsck.P1CorruptEncryptXattr}, edit: func(e *edit) { e.encrypt("/empty", 0) }},
	{name: "value flag of a device", base: "eainode", codes: []fsck.Code{fsck.P1EAInodeNonreg}, edit: func(e *edit) { e.flags("/dir", ondisk.FlagEAInode, 0) }},
	{name: "small deletion time", base: "ext4", codes: []fsck.Code{fsck.P1LowDtime}, edit: func(e *edit) {
		e.file("/file", func(r ondisk.RawInode) { r.Base().Dtime.Set(20) })
	}},
}

// encrypt gives an inode without attributes an encryption policy: of key n, or
// with 0 one that is none.
func (e *edit) encrypt(path string, n byte) {
	e.flags(path, ondisk.FlagEncrypt, 0)
	e.file(path, func(r ondisk.RawInode) {
		v := make([]byte, 40)
		v[0], v[1], v[2] = 2, 1, 4
		v[8] = n
		if n == 0 {
			v = v[:20]
		}
		ondisk.InitInodeXattrs(r)
		b := r[ondisk.GoodOldInodeSz+r.ExtraIsize()+4:]
		x := endian.View[ondisk.XattrEntry](b)
		x.NameLen[0], x.NameIndex[0] = 1, ondisk.XattrEncryptionIndex
		b[ondisk.XattrEntrySize] = 'c'
		at := len(b) - ondisk.XattrPad(len(v))
		x.ValueOffs.Set(uint16(at))
		x.ValueSize.Set(uint32(len(v)))
		copy(b[at:], v)
	})
}
