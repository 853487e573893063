package fsck_test

import (
	"encoding/binary"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fsck"
)

func firstAttr(b []byte) *ondisk.XattrEntry { return endian.View[ondisk.XattrEntry](b) }

// blockAttr returns the first entry of an attribute block.
func blockAttr(b []byte) *ondisk.XattrEntry { return firstAttr(b[ondisk.XattrHeaderSize:]) }

// valueOf returns the inode that holds the value of /value's attribute.
func (e *edit) valueOf() ondisk.Ino {
	r := e.raw(e.ino("/value"))
	return ondisk.Ino(firstAttr(r[ondisk.GoodOldInodeSz+r.ExtraIsize()+4:]).ValueInum.Get())
}

// recipesXattr damage attributes.
var recipesXattr = []recipe{
	{name: "no attribute block", base: "ext4", codes: []fsck.Code{fsck.P1BadEABlock}, edit: func(e *edit) { e.block(e.raw(e.ino("/attr")).FileACL())[3] = 1 }},
	{name: "attribute references", base: "ext4", codes: []fsck.Code{fsck.P1ExtattrRefcount}, edit: func(e *edit) {
		e.attrs("/attr", func(b []byte) { endian.View[ondisk.XattrHeader](b).Refcount.Set(7) })
	}},
	{name: "attribute blocks", base: "ext4", codes: []fsck.Code{fsck.P1EAMultiBlock}, edit: func(e *edit) {
		e.attrs("/attr", func(b []byte) { endian.View[ondisk.XattrHeader](b).Blocks.Set(2) })
	}},
	{name: "attributes overlap", base: "ext4", codes: []fsck.Code{fsck.P1EAAllocCollision}, edit: func(e *edit) {
		e.attrs("/attr", func(b []byte) { blockAttr(b).ValueOffs.Set(40) })
	}},
	{name: "attribute name", base: "ext4", codes: []fsck.Code{fsck.P1EABadName}, edit: func(e *edit) {
		e.attrs("/attr", func(b []byte) { blockAttr(b).NameIndex[0] = 0 })
	}},
	{name: "attribute value", base: "ext4", codes: []fsck.Code{fsck.P1EABadValue}, edit: func(e *edit) {
		e.attrs("/attr", func(b []byte) { blockAttr(b).ValueOffs.Set(1000) })
	}},
	{name: "attribute block hash", base: "ext4", codes: []fsck.Code{fsck.P1AttrHash}, edit: func(e *edit) {
		e.attrs("/attr", func(b []byte) { blockAttr(b).Hash.Set(1) })
	}},
	{name: "attribute block checksum", base: "ext4", codes: []fsck.Code{fsck.P1EABlockOnlyCsum}, edit: func(e *edit) {
		endian.View[ondisk.XattrHeader](e.block(e.raw(e.ino("/attr")).FileACL())).Checksum.Set(1)
	}},
	{name: "attribute block out of range", base: "ext4", codes: []fsck.Code{fsck.P2FileACLBad}, edit: func(e *edit) {
		e.file("/file", func(r ondisk.RawInode) { r.SetFileACL(1 << 30) })
	}},
	{name: "attribute block without the feature", base: "ext2", codes: []fsck.Code{fsck.P2FileACLZero}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureCompat.Set(s.FeatureCompat.Get() &^ ondisk.CompatExtAttr) })
	}},
	{name: "attribute value size", base: "ext4", codes: []fsck.Code{fsck.P1AttrValueSize}, edit: func(e *edit) {
		e.inattrs("/inattr", func(b []byte) { firstAttr(b).ValueSize.Set(5000) })
	}},
	{name: "attribute value offset", base: "ext4", codes: []fsck.Code{fsck.P1InodeEACollision}, edit: func(e *edit) {
		e.inattrs("/inattr", func(b []byte) { firstAttr(b).ValueOffs.Set(4) })
	}},
	{name: "attribute value past the inode", base: "ext4", edit: func(e *edit) {
		e.inattrs("/inattr", func(b []byte) { firstAttr(b).ValueOffs.Set(uint16(len(b) - 2)) })
	}},
	{name: "attribute without a value, out of place", base: "ext4", differs: "it cannot read the attributes then, and does not say so", codes: []fsck.Code{fsck.P1AttrValueOffset}, edit: func(e *edit) {
		e.inattrs("/inattr", func(b []byte) {
			x := firstAttr(b)
			x.ValueSize.Set(0)
			x.Hash.Set(0)
			x.ValueOffs.Set(0xfffe)
		})
	}},
	{name: "attribute hash", base: "ext4", codes: []fsck.Code{fsck.P1AttrHash}, edit: func(e *edit) {
		e.inattrs("/inattr", func(b []byte) { firstAttr(b).Hash.Set(1) })
	}},
	{name: "value inode number", base: "eainode", codes: []fsck.Code{fsck.P1AttrInvalidEAInode}, edit: func(e *edit) {
		e.inattrs("/value", func(b []byte) { firstAttr(b).ValueInum.Set(5) })
	}},
	{name: "value inode flag", base: "eainode", codes: []fsck.Code{fsck.P1AttrSetEAInodeFl}, edit: func(e *edit) {
		e.inode(e.valueOf(), func(r ondisk.RawInode) { r.Base().Flags.Set(r.Base().Flags.Get() &^ ondisk.FlagEAInode) })
	}},
	{name: "value inode is a file", base: "eainode", codes: []fsck.Code{fsck.P1AttrInvalidEAInode}, edit: func(e *edit) {
		e.inattrs("/value", func(b []byte) { firstAttr(b).ValueInum.Set(uint32(e.ino("/file"))) })
	}},
	{name: "value inodes, feature lost", base: "eainode", codes: []fsck.Code{fsck.P1EAInodeFeature}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureIncompat.Set(s.FeatureIncompat.Get() &^ ondisk.IncompatEAInode) })
	}},
	{name: "entry for a value inode", base: "eainode", codes: []fsck.Code{fsck.P2EAInodeRef}, edit: func(e *edit) {
		e.name("/empty", func(d []byte) { binary.LittleEndian.PutUint32(d, uint32(e.valueOf())) })
	}},
	{name: "value inode references", base: "eainode", codes: []fsck.Code{fsck.P4EAInodeRefCount}, edit: func(e *edit) {
		e.inode(e.valueOf(), func(r ondisk.RawInode) { r.Base().VersionLo.Set(5) })
	}},
	{name: "value inode of nobody", base: "eainode", codes: []fsck.Code{fsck.P4EAInodeSpurious}, edit: func(e *edit) {
		e.flags("/empty", ondisk.FlagEAInode, 0)
		e.name("/empty", func(d []byte) { binary.LittleEndian.PutUint32(d, 0) })
	}},
}
