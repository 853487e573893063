package ondisk

import (
	"unsafe"

	"github.com/e2kit/e2kit/lib/endian"
)

// Inode is the first 128 bytes of an inode.
// Kernel: filesystems/ext4/inodes.rst.
type Inode struct {
	Mode       endian.LE16 `ext4:"i_mode"`
	UIDLo      endian.LE16 `ext4:"i_uid"`
	SizeLo     endian.LE32 `ext4:"i_size_lo"`
	Atime      endian.LE32 `ext4:"i_atime"`
	Ctime      endian.LE32 `ext4:"i_ctime"`
	Mtime      endian.LE32 `ext4:"i_mtime"`
	Dtime      endian.LE32 `ext4:"i_dtime"` // deletion time, or the next inode of the orphan list
	GIDLo      endian.LE16 `ext4:"i_gid"`
	LinksCount endian.LE16 `ext4:"i_links_count"`
	BlocksLo   endian.LE32 `ext4:"i_blocks_lo"` // 512-byte units; file system blocks with FlagHugeFile
	Flags      endian.LE32 `ext4:"i_flags"`
	VersionLo  endian.LE32 `ext4:"i_version"` // osd1
	Block      [60]byte    `ext4:"i_block"`
	Generation endian.LE32 `ext4:"i_generation"`
	FileACLLo  endian.LE32 `ext4:"i_file_acl_lo"` // block of extended attributes
	SizeHi     endian.LE32 `ext4:"i_size_high"`
	ObsoFaddr  endian.LE32 `ext4:"i_obso_faddr"`
	BlocksHi   endian.LE16 `ext4:"i_blocks_high"`
	FileACLHi  endian.LE16 `ext4:"i_file_acl_high"`
	UIDHi      endian.LE16 `ext4:"i_uid_high"`
	GIDHi      endian.LE16 `ext4:"i_gid_high"`
	ChecksumLo endian.LE16 `ext4:"i_checksum_lo"`
	Reserved   endian.LE16 `ext4:"i_reserved"`
}

// InodeExtra is what follows the first 128 bytes of a larger inode. A field is
// there only as far as ExtraIsize reaches, counted from byte 128.
type InodeExtra struct {
	ExtraIsize endian.LE16 `ext4:"i_extra_isize"`
	ChecksumHi endian.LE16 `ext4:"i_checksum_hi"`
	CtimeExtra endian.LE32 `ext4:"i_ctime_extra"` // nanoseconds << 2 | epoch
	MtimeExtra endian.LE32 `ext4:"i_mtime_extra"`
	AtimeExtra endian.LE32 `ext4:"i_atime_extra"`
	Crtime     endian.LE32 `ext4:"i_crtime"`
	CrtimeExt  endian.LE32 `ext4:"i_crtime_extra"`
	VersionHi  endian.LE32 `ext4:"i_version_hi"`
	Projid     endian.LE32 `ext4:"i_projid"`
}

var ( // sizes on disk
	_ [GoodOldInodeSz]byte = [unsafe.Sizeof(Inode{})]byte{}
	_ [InodeExtraSize]byte = [unsafe.Sizeof(InodeExtra{})]byte{}
)

// InodeExtraSize is the size of InodeExtra, all of which today's kernels use.
const InodeExtraSize = 32

// Values of Inode.Flags.
const (
	FlagSecrm        = 0x00000001
	FlagUnrm         = 0x00000002
	FlagCompr        = 0x00000004
	FlagSync         = 0x00000008
	FlagImmutable    = 0x00000010
	FlagAppend       = 0x00000020
	FlagNodump       = 0x00000040
	FlagNoatime      = 0x00000080
	FlagDirty        = 0x00000100
	FlagComprblk     = 0x00000200
	FlagNocompr      = 0x00000400
	FlagEncrypt      = 0x00000800
	FlagIndex        = 0x00001000 // directory has an htree
	FlagImagic       = 0x00002000
	FlagJournalData  = 0x00004000
	FlagNotail       = 0x00008000
	FlagDirsync      = 0x00010000
	FlagTopdir       = 0x00020000
	FlagHugeFile     = 0x00040000 // i_blocks counts file system blocks
	FlagExtents      = 0x00080000
	FlagVerity       = 0x00100000
	FlagEAInode      = 0x00200000 // the inode holds the value of an attribute
	FlagDAX          = 0x02000000
	FlagInlineData   = 0x10000000
	FlagProjinherit  = 0x20000000
	FlagCasefold     = 0x40000000
	FlagReserved     = 0x80000000
	FlUserVisible    = 0x725bdfff
	FlUserModifiable = 0x624bc0ff
)

// File types in Inode.Mode.
const (
	ModeFmt  = 0xf000
	ModeFIFO = 0x1000
	ModeChr  = 0x2000
	ModeDir  = 0x4000
	ModeBlk  = 0x6000
	ModeReg  = 0x8000
	ModeLnk  = 0xa000
	ModeSock = 0xc000
	ModeSUID = 0x0800
	ModeSGID = 0x0400
	ModeSVTX = 0x0200
)

// RawInode is an inode in place, with all its bytes (Super.InodeSz).
type RawInode []byte

// Base returns the first 128 bytes.
func (r RawInode) Base() *Inode { return endian.View[Inode](r) }

// ExtraIsize returns how many bytes after the first 128 hold fields: 0 for an
// inode of 128 bytes. It is cut to the inode, so that it can be trusted as a
// bound; an odd or too large value on disk is told by Check.
func (r RawInode) ExtraIsize() int {
	if len(r) <= GoodOldInodeSz {
		return 0
	}
	n := int(endian.View[endian.LE16](r[GoodOldInodeSz:]).Get())
	return min(n, len(r)-GoodOldInodeSz)
}

// extra returns the field of n bytes at byte off of InodeExtra, nil if this
// inode does not have it.
func (r RawInode) extra(off, n uintptr) []byte {
	if uintptr(r.ExtraIsize()) < off+n {
		return nil
	}
	return r[GoodOldInodeSz+off : GoodOldInodeSz+off+n]
}

func (r RawInode) extra32(off uintptr) *endian.LE32 {
	if b := r.extra(off, 4); b != nil {
		return endian.View[endian.LE32](b)
	}
	return nil
}

// Size returns the size in bytes. For directories the upper half counts only
// with large_dir, which largeDir tells; without it those bits are i_dir_acl.
func (r RawInode) Size(largeDir bool) int64 {
	b := r.Base()
	n := uint64(b.SizeLo.Get())
	if b.Mode.Get()&ModeFmt == ModeReg || largeDir && b.Mode.Get()&ModeFmt == ModeDir {
		n |= uint64(b.SizeHi.Get()) << 32
	}
	return int64(n)
}

// SetSize stores the size in bytes.
func (r RawInode) SetSize(n int64) {
	r.Base().SizeLo.Set(uint32(n))
	r.Base().SizeHi.Set(uint32(n >> 32))
}

// UID returns the owner.
func (r RawInode) UID() uint32 {
	return uint32(r.Base().UIDHi.Get())<<16 | uint32(r.Base().UIDLo.Get())
}

// SetUID stores the owner.
func (r RawInode) SetUID(u uint32) {
	r.Base().UIDLo.Set(uint16(u))
	r.Base().UIDHi.Set(uint16(u >> 16))
}

// GID returns the group.
func (r RawInode) GID() uint32 {
	return uint32(r.Base().GIDHi.Get())<<16 | uint32(r.Base().GIDLo.Get())
}

// SetGID stores the group.
func (r RawInode) SetGID(g uint32) {
	r.Base().GIDLo.Set(uint16(g))
	r.Base().GIDHi.Set(uint16(g >> 16))
}

// FileACL returns the block of extended attributes, 0 if there is none.
func (r RawInode) FileACL() Fsblk {
	return Fsblk(r.Base().FileACLHi.Get())<<32 | Fsblk(r.Base().FileACLLo.Get())
}

// SetFileACL stores the block of extended attributes.
func (r RawInode) SetFileACL(b Fsblk) {
	r.Base().FileACLLo.Set(uint32(b))
	r.Base().FileACLHi.Set(uint16(b >> 32))
}

// Blocks returns i_blocks as stored, without its unit: 512 bytes, or a file
// system block with FlagHugeFile. Without the huge_file feature the upper half
// does not count.
func (r RawInode) Blocks(hugeFile bool) uint64 {
	n := uint64(r.Base().BlocksLo.Get())
	if hugeFile {
		n |= uint64(r.Base().BlocksHi.Get()) << 32
	}
	return n
}

// SetBlocks stores i_blocks.
func (r RawInode) SetBlocks(n uint64) {
	r.Base().BlocksLo.Set(uint32(n))
	r.Base().BlocksHi.Set(uint16(n >> 32))
}

// Time is a time of an inode: seconds since 1970 and nanoseconds.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Before says whether t is earlier than u.
func (t Time) Before(u Time) bool { return t.Sec < u.Sec || t.Sec == u.Sec && t.Nsec < u.Nsec }

// TimeRange returns the first and the last second that inodes of size bytes can
// hold.
func TimeRange(size int) (first, last int64) {
	if size <= GoodOldInodeSz {
		return -1 << 31, 1<<31 - 1
	}
	return -1 << 31, 1<<34 - 1<<31 - 1
}

func getTime(lo uint32, extra *endian.LE32) Time {
	t := Time{Sec: int64(int32(lo))}
	if extra != nil {
		x := extra.Get()
		t.Sec += int64(x&3) << 32
		t.Nsec = x >> 2
		if t.Nsec > 999999999 {
			t.Nsec = 0
		}
	}
	return t
}

func setTime(lo *endian.LE32, extra *endian.LE32, t Time) {
	const least, most = -1 << 31, int64(1)<<34 - 1 - int64(1)<<31 // year 2446
	if extra == nil {
		lo.Set(uint32(max(min(t.Sec, 1<<31-1), least)))
		return
	}
	s := max(min(t.Sec, most), least)
	if s == least || s == most {
		t.Nsec = 0 // as Linux cuts them
	}
	lo.Set(uint32(s))
	extra.Set(uint32((s-int64(int32(s)))>>32)&3 | t.Nsec<<2)
}

// Atime returns the time of the last access.
func (r RawInode) Atime() Time {
	return getTime(r.Base().Atime.Get(), r.extra32(unsafe.Offsetof(InodeExtra{}.AtimeExtra)))
}

// SetAtime stores the time of the last access, cut to what the inode can hold.
func (r RawInode) SetAtime(t Time) {
	setTime(&r.Base().Atime, r.extra32(unsafe.Offsetof(InodeExtra{}.AtimeExtra)), t)
}

// Mtime returns the time of the last change of content.
func (r RawInode) Mtime() Time {
	return getTime(r.Base().Mtime.Get(), r.extra32(unsafe.Offsetof(InodeExtra{}.MtimeExtra)))
}

// SetMtime stores the time of the last change of content.
func (r RawInode) SetMtime(t Time) {
	setTime(&r.Base().Mtime, r.extra32(unsafe.Offsetof(InodeExtra{}.MtimeExtra)), t)
}

// Ctime returns the time of the last change of the inode.
func (r RawInode) Ctime() Time {
	return getTime(r.Base().Ctime.Get(), r.extra32(unsafe.Offsetof(InodeExtra{}.CtimeExtra)))
}

// SetCtime stores the time of the last change of the inode.
func (r RawInode) SetCtime(t Time) {
	setTime(&r.Base().Ctime, r.extra32(unsafe.Offsetof(InodeExtra{}.CtimeExtra)), t)
}

// Crtime returns the time of birth; false if the inode has no room for it.
func (r RawInode) Crtime() (Time, bool) {
	lo := r.extra32(unsafe.Offsetof(InodeExtra{}.Crtime))
	if lo == nil {
		return Time{}, false
	}
	return getTime(lo.Get(), r.extra32(unsafe.Offsetof(InodeExtra{}.CrtimeExt))), true
}

// SetCrtime stores the time of birth if the inode has room for it.
func (r RawInode) SetCrtime(t Time) {
	if lo := r.extra32(unsafe.Offsetof(InodeExtra{}.Crtime)); lo != nil {
		setTime(lo, r.extra32(unsafe.Offsetof(InodeExtra{}.CrtimeExt)), t)
	}
}

// Version returns i_version, 64 bits where the inode has room.
func (r RawInode) Version() uint64 {
	v := uint64(r.Base().VersionLo.Get())
	if hi := r.extra32(unsafe.Offsetof(InodeExtra{}.VersionHi)); hi != nil {
		v |= uint64(hi.Get()) << 32
	}
	return v
}

// SetVersion stores i_version.
func (r RawInode) SetVersion(v uint64) {
	r.Base().VersionLo.Set(uint32(v))
	if hi := r.extra32(unsafe.Offsetof(InodeExtra{}.VersionHi)); hi != nil {
		hi.Set(uint32(v >> 32))
	}
}

// Projid returns the project id; 0 if the inode has no room for it.
func (r RawInode) Projid() uint32 {
	if p := r.extra32(unsafe.Offsetof(InodeExtra{}.Projid)); p != nil {
		return p.Get()
	}
	return 0
}

// SetProjid stores the project id; false if the inode has no room for it.
func (r RawInode) SetProjid(id uint32) bool {
	p := r.extra32(unsafe.Offsetof(InodeExtra{}.Projid))
	if p != nil {
		p.Set(id)
	}
	return p != nil
}

var zeroCsum [2]byte // never written

// csum computes the checksum with both checksum fields taken as zero.
func (r RawInode) csum(seed uint32) (uint32, bool) {
	const lo = unsafe.Offsetof(Inode{}.ChecksumLo)
	zero := zeroCsum[:]
	c := Crc32c(seed, r[:lo])
	c = Crc32c(c, zero)
	c = Crc32c(c, r[lo+2:GoodOldInodeSz])
	wide := false
	if len(r) > GoodOldInodeSz {
		const hi = GoodOldInodeSz + unsafe.Offsetof(InodeExtra{}.ChecksumHi)
		c = Crc32c(c, r[GoodOldInodeSz:hi])
		if wide = r.extra(unsafe.Offsetof(InodeExtra{}.ChecksumHi), 2) != nil; wide {
			c = Crc32c(c, zero)
			c = Crc32c(c, r[hi+2:])
		} else {
			c = Crc32c(c, r[hi:])
		}
	}
	return c, wide
}

// VerifyCsum checks the inode's checksum. fsSeed is Super.CsumSeed.
func (r RawInode) VerifyCsum(fsSeed uint32, ino Ino) error {
	c, wide := r.csum(InodeSeed(fsSeed, ino, r.Base().Generation.Get()))
	stored := uint32(r.Base().ChecksumLo.Get())
	if wide {
		stored |= uint32(endian.View[InodeExtra](r[GoodOldInodeSz:]).ChecksumHi.Get()) << 16
	} else {
		c &= 0xffff
	}
	if c != stored {
		e := BadCsum("inode", int(unsafe.Offsetof(Inode{}.ChecksumLo)), stored, c)
		e.Ino = ino
		return e
	}
	return nil
}

// Seal sets the inode's checksum.
func (r RawInode) Seal(fsSeed uint32, ino Ino) {
	c, wide := r.csum(InodeSeed(fsSeed, ino, r.Base().Generation.Get()))
	r.Base().ChecksumLo.Set(uint16(c))
	if wide {
		endian.View[InodeExtra](r[GoodOldInodeSz:]).ChecksumHi.Set(uint16(c >> 16))
	}
}
