package ondisk

import (
	"unsafe"

	"github.com/e2kit/e2kit/lib/endian"
)

// Sizes of a group descriptor on disk, bytes.
const (
	GroupDescMin   = 32
	GroupDescMin64 = 64
)

// GroupDesc is the first half of a group descriptor: all of it without the
// 64bit feature. Kernel: filesystems/ext4/group_descr.rst.
type GroupDesc struct {
	BlockBitmapLo   endian.LE32 `ext4:"bg_block_bitmap_lo"`
	InodeBitmapLo   endian.LE32 `ext4:"bg_inode_bitmap_lo"`
	InodeTableLo    endian.LE32 `ext4:"bg_inode_table_lo"`
	FreeBlocksLo    endian.LE16 `ext4:"bg_free_blocks_count_lo"` // clusters
	FreeInodesLo    endian.LE16 `ext4:"bg_free_inodes_count_lo"`
	UsedDirsLo      endian.LE16 `ext4:"bg_used_dirs_count_lo"`
	Flags           endian.LE16 `ext4:"bg_flags"` // BG… bits
	ExcludeBitmapLo endian.LE32 `ext4:"bg_exclude_bitmap_lo"`
	BlockCsumLo     endian.LE16 `ext4:"bg_block_bitmap_csum_lo"`
	InodeCsumLo     endian.LE16 `ext4:"bg_inode_bitmap_csum_lo"`
	ItableUnusedLo  endian.LE16 `ext4:"bg_itable_unused_lo"`
	Checksum        endian.LE16 `ext4:"bg_checksum"`
}

// GroupDescHi is the second half, at byte 32, of a 64bit group descriptor.
type GroupDescHi struct {
	BlockBitmapHi   endian.LE32 `ext4:"bg_block_bitmap_hi"`
	InodeBitmapHi   endian.LE32 `ext4:"bg_inode_bitmap_hi"`
	InodeTableHi    endian.LE32 `ext4:"bg_inode_table_hi"`
	FreeBlocksHi    endian.LE16 `ext4:"bg_free_blocks_count_hi"`
	FreeInodesHi    endian.LE16 `ext4:"bg_free_inodes_count_hi"`
	UsedDirsHi      endian.LE16 `ext4:"bg_used_dirs_count_hi"`
	ItableUnusedHi  endian.LE16 `ext4:"bg_itable_unused_hi"`
	ExcludeBitmapHi endian.LE32 `ext4:"bg_exclude_bitmap_hi"`
	BlockCsumHi     endian.LE16 `ext4:"bg_block_bitmap_csum_hi"`
	InodeCsumHi     endian.LE16 `ext4:"bg_inode_bitmap_csum_hi"`
	Reserved        endian.LE32 `ext4:"bg_reserved"`
}

var ( // sizes on disk
	_ [GroupDescMin]byte = [unsafe.Sizeof(GroupDesc{})]byte{}
	_ [32]byte           = [unsafe.Sizeof(GroupDescHi{})]byte{}
)

// Values of GroupDesc.Flags.
const (
	BGInodeUninit = 0x1 // the inode bitmap and table are not initialised
	BGBlockUninit = 0x2 // the block bitmap is not initialised
	BGInodeZeroed = 0x4 // the inode table is zeroed
)

// Desc is one group descriptor in place, of any size.
type Desc []byte

func (d Desc) lo() *GroupDesc { return endian.View[GroupDesc](d) }

func (d Desc) hi() *GroupDescHi {
	if len(d) < GroupDescMin64 {
		return nil
	}
	return endian.View[GroupDescHi](d[32:])
}

// Lo returns the first half. Hi returns the second, nil if there is none.
func (d Desc) Lo() *GroupDesc { return d.lo() }

// Hi returns the second half, nil if the descriptor has 32 bytes.
func (d Desc) Hi() *GroupDescHi { return d.hi() }

// BlockBitmap returns the block of the block bitmap.
func (d Desc) BlockBitmap() Fsblk {
	b := Fsblk(d.lo().BlockBitmapLo.Get())
	if h := d.hi(); h != nil {
		b |= Fsblk(h.BlockBitmapHi.Get()) << 32
	}
	return b
}

// InodeBitmap returns the block of the inode bitmap.
func (d Desc) InodeBitmap() Fsblk {
	b := Fsblk(d.lo().InodeBitmapLo.Get())
	if h := d.hi(); h != nil {
		b |= Fsblk(h.InodeBitmapHi.Get()) << 32
	}
	return b
}

// InodeTable returns the first block of the inode table.
func (d Desc) InodeTable() Fsblk {
	b := Fsblk(d.lo().InodeTableLo.Get())
	if h := d.hi(); h != nil {
		b |= Fsblk(h.InodeTableHi.Get()) << 32
	}
	return b
}

// SetBlockBitmap stores the block of the block bitmap.
func (d Desc) SetBlockBitmap(b Fsblk) {
	d.lo().BlockBitmapLo.Set(uint32(b))
	if h := d.hi(); h != nil {
		h.BlockBitmapHi.Set(uint32(b >> 32))
	}
}

// SetInodeBitmap stores the block of the inode bitmap.
func (d Desc) SetInodeBitmap(b Fsblk) {
	d.lo().InodeBitmapLo.Set(uint32(b))
	if h := d.hi(); h != nil {
		h.InodeBitmapHi.Set(uint32(b >> 32))
	}
}

// SetInodeTable stores the first block of the inode table.
func (d Desc) SetInodeTable(b Fsblk) {
	d.lo().InodeTableLo.Set(uint32(b))
	if h := d.hi(); h != nil {
		h.InodeTableHi.Set(uint32(b >> 32))
	}
}

// FreeBlocks returns the free clusters of the group.
func (d Desc) FreeBlocks() uint32 {
	n := uint32(d.lo().FreeBlocksLo.Get())
	if h := d.hi(); h != nil {
		n |= uint32(h.FreeBlocksHi.Get()) << 16
	}
	return n
}

// SetFreeBlocks stores the free clusters of the group.
func (d Desc) SetFreeBlocks(n uint32) {
	d.lo().FreeBlocksLo.Set(uint16(n))
	if h := d.hi(); h != nil {
		h.FreeBlocksHi.Set(uint16(n >> 16))
	}
}

// FreeInodes returns the free inodes of the group.
func (d Desc) FreeInodes() uint32 {
	n := uint32(d.lo().FreeInodesLo.Get())
	if h := d.hi(); h != nil {
		n |= uint32(h.FreeInodesHi.Get()) << 16
	}
	return n
}

// SetFreeInodes stores the free inodes of the group.
func (d Desc) SetFreeInodes(n uint32) {
	d.lo().FreeInodesLo.Set(uint16(n))
	if h := d.hi(); h != nil {
		h.FreeInodesHi.Set(uint16(n >> 16))
	}
}

// UsedDirs returns the directories of the group.
func (d Desc) UsedDirs() uint32 {
	n := uint32(d.lo().UsedDirsLo.Get())
	if h := d.hi(); h != nil {
		n |= uint32(h.UsedDirsHi.Get()) << 16
	}
	return n
}

// SetUsedDirs stores the number of directories of the group.
func (d Desc) SetUsedDirs(n uint32) {
	d.lo().UsedDirsLo.Set(uint16(n))
	if h := d.hi(); h != nil {
		h.UsedDirsHi.Set(uint16(n >> 16))
	}
}

// ItableUnused returns how many inodes at the end of the table were never used.
func (d Desc) ItableUnused() uint32 {
	n := uint32(d.lo().ItableUnusedLo.Get())
	if h := d.hi(); h != nil {
		n |= uint32(h.ItableUnusedHi.Get()) << 16
	}
	return n
}

// SetItableUnused stores how many inodes at the end of the table were never used.
func (d Desc) SetItableUnused(n uint32) {
	d.lo().ItableUnusedLo.Set(uint16(n))
	if h := d.hi(); h != nil {
		h.ItableUnusedHi.Set(uint16(n >> 16))
	}
}

// HasFlag says whether any of the BG… bits is set.
func (d Desc) HasFlag(bits uint16) bool { return d.lo().Flags.Get()&bits != 0 }

// SetFlags sets the BG… bits set and clears the bits clear.
func (d Desc) SetFlags(set, clear uint16) { d.lo().Flags.Set(d.lo().Flags.Get()&^clear | set) }

// BlockBitmapCsum returns the stored checksum of the block bitmap; only its
// lower 16 bits exist in a 32-byte descriptor.
func (d Desc) BlockBitmapCsum() uint32 {
	n := uint32(d.lo().BlockCsumLo.Get())
	if h := d.hi(); h != nil {
		n |= uint32(h.BlockCsumHi.Get()) << 16
	}
	return n
}

// SetBlockBitmapCsum stores the checksum of the block bitmap.
func (d Desc) SetBlockBitmapCsum(c uint32) {
	d.lo().BlockCsumLo.Set(uint16(c))
	if h := d.hi(); h != nil {
		h.BlockCsumHi.Set(uint16(c >> 16))
	}
}

// InodeBitmapCsum returns the stored checksum of the inode bitmap.
func (d Desc) InodeBitmapCsum() uint32 {
	n := uint32(d.lo().InodeCsumLo.Get())
	if h := d.hi(); h != nil {
		n |= uint32(h.InodeCsumHi.Get()) << 16
	}
	return n
}

// SetInodeBitmapCsum stores the checksum of the inode bitmap.
func (d Desc) SetInodeBitmapCsum(c uint32) {
	d.lo().InodeCsumLo.Set(uint16(c))
	if h := d.hi(); h != nil {
		h.InodeCsumHi.Set(uint16(c >> 16))
	}
}

// CsumMask returns the bits of a bitmap checksum that the descriptor has
// room for.
func (d Desc) CsumMask() uint32 {
	if d.hi() == nil {
		return 0xffff
	}
	return 0xffffffff
}

// DescCsum returns the checksum of descriptor d of group g: crc32c (cut to 16
// bits) with metadata_csum, crc16 with uninit_bg, 0 with neither.
func DescCsum(s *Super, fsSeed uint32, g Group, d Desc) uint16 {
	var n endian.LE32
	n.Set(uint32(g))
	const at = unsafe.Offsetof(GroupDesc{}.Checksum)
	switch {
	case s.HasROCompat(ROCompatMetadataCsum):
		c := Crc32c(Crc32c(fsSeed, n[:]), d[:at])
		c = Crc32c(c, []byte{0, 0})
		return uint16(Crc32c(c, d[at+2:]))
	case s.HasROCompat(ROCompatGDTCsum):
		c := Crc16(Crc16(Crc16(^uint16(0), s.UUID[:]), n[:]), d[:at])
		return Crc16(c, d[at+2:])
	}
	return 0
}
