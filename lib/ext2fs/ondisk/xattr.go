package ondisk

import (
	"bytes"
	"encoding/binary"
	"unsafe"

	"github.com/e2kit/e2kit/lib/endian"
)

// XattrHeader starts a block of extended attributes. Entries follow it, sorted
// by index, name length and name; values lie at the end of the block.
// Kernel: filesystems/ext4/attributes.rst.
type XattrHeader struct {
	Magic    endian.LE32    // h_magic: XattrMagic
	Refcount endian.LE32    // h_refcount: inodes that use the block
	Blocks   endian.LE32    // h_blocks: 1
	Hash     endian.LE32    // h_hash: of all entries, 0 if one has no hash
	Checksum endian.LE32    // h_checksum
	Reserved [3]endian.LE32 // h_reserved
}

// XattrEntry describes one attribute; its name follows, padded to 4 bytes. A
// list of entries ends in four zero bytes.
type XattrEntry struct {
	NameLen   [1]byte     // e_name_len
	NameIndex [1]byte     // e_name_index: Xattr…Index, stands for a prefix of the name
	ValueOffs endian.LE16 // e_value_offs: from the block, or from the inode's first entry
	ValueInum endian.LE32 // e_value_inum: inode that holds the value, 0 if it is here
	ValueSize endian.LE32 // e_value_size: bytes
	Hash      endian.LE32 // e_hash: of name and value; 0 in the inode
}

var ( // sizes on disk
	_ [XattrHeaderSize]byte = [unsafe.Sizeof(XattrHeader{})]byte{}
	_ [XattrEntrySize]byte  = [unsafe.Sizeof(XattrEntry{})]byte{}
)

// Numbers of the attribute format.
const (
	XattrMagic       = 0xea020000
	XattrHeaderSize  = 32      // of a block
	XattrIHeaderSize = 4       // of the space in an inode: XattrMagic alone
	XattrEntrySize   = 16      // without the name
	XattrRefcountMax = 1024    // inodes that share a block at most
	XattrSizeMax     = 1 << 16 // largest value that a system call takes, bytes
	xattrValueMax    = 1<<24 - 1
)

// Values of XattrEntry.NameIndex.
const (
	XattrUserIndex       = 1
	XattrACLAccessIndex  = 2
	XattrACLDefaultIndex = 3
	XattrTrustedIndex    = 4
	XattrLustreIndex     = 5
	XattrSecurityIndex   = 6
	XattrSystemIndex     = 7
	XattrRichACLIndex    = 8
	XattrEncryptionIndex = 9
	XattrHurdIndex       = 10
)

// XattrSystemData is the name, under XattrSystemIndex, of the attribute that
// holds inline data past i_block.
const XattrSystemData = "data"

// XattrPad rounds the size of a value up to the space that it takes.
func XattrPad(n int) int { return (n + 3) &^ 3 }

// XattrLen returns the space of an entry whose name has n bytes.
func XattrLen(n int) int { return (XattrEntrySize + n + 3) &^ 3 }

// XattrMinLarge returns the largest padded value that is never put into an
// inode of its own straight away, for a block size.
func XattrMinLarge(blockSize int) int { return blockSize - XattrLen(3) - XattrHeaderSize - 4 }

// XattrBlockReserve returns the bytes of an attribute block that values leave
// free for names when values may go to inodes of their own.
func XattrBlockReserve(blockSize int) int { return min(blockSize/8, 1024) }

// XattrArea is a list of attribute entries and their values, in place.
type XattrArea struct {
	b     []byte // from where value offsets count, to the end of the values
	first int    // offset in b of the first entry
}

// XattrBlock returns the entries of an attribute block.
func XattrBlock(block []byte) XattrArea { return XattrArea{block, XattrHeaderSize} }

// InodeXattrs returns the attribute space of an inode. ok tells whether there
// is any; used, whether its header says that it holds entries. A space not in
// use must be given to InitInodeXattrs before entries are put into it.
func InodeXattrs(r RawInode) (a XattrArea, used, ok bool) {
	n := r.ExtraIsize()
	if n == 0 || len(r) < GoodOldInodeSz+n+XattrIHeaderSize+4 {
		return XattrArea{}, false, false
	}
	h := r[GoodOldInodeSz+n:]
	used = endian.View[endian.LE32](h).Get() == XattrMagic
	return XattrArea{h[XattrIHeaderSize:], 0}, used, true
}

// InitInodeXattrs makes the attribute space of an inode an empty list. It does
// nothing to an inode that has no such space.
func InitInodeXattrs(r RawInode) {
	if _, _, ok := InodeXattrs(r); ok {
		h := r[GoodOldInodeSz+r.ExtraIsize():]
		clear(h)
		endian.View[endian.LE32](h).Set(XattrMagic)
	}
}

// SealInodeXattrs takes the header's magic away when the list is empty, as the
// kernel leaves it.
func SealInodeXattrs(r RawInode) {
	if a, used, ok := InodeXattrs(r); ok && used && a.Empty() {
		clear(r[GoodOldInodeSz+r.ExtraIsize():])
	}
}

// First returns the place of the first entry. Places are offsets; they are
// good until the list changes.
func (a XattrArea) First() int { return a.first }

// Empty says whether there is no entry.
func (a XattrArea) Empty() bool { return a.Last(a.first) }

// Last says whether no entry is at off: the list ends there.
func (a XattrArea) Last(off int) bool {
	return off+4 > len(a.b) || binary.LittleEndian.Uint32(a.b[off:]) == 0
}

// Next returns the place after the entry at off.
func (a XattrArea) Next(off int) int { return off + XattrLen(int(a.b[off])) }

// Entry returns the entry at off.
func (a XattrArea) Entry(off int) *XattrEntry { return endian.View[XattrEntry](a.b[off:]) }

// Name returns the name of the entry at off, in place.
func (a XattrArea) Name(off int) []byte {
	return a.b[off+XattrEntrySize : off+XattrEntrySize+int(a.b[off])]
}

// Value returns the value of the entry at off, in place; nil if an inode holds it.
func (a XattrArea) Value(off int) []byte {
	e := a.Entry(off)
	n, at := int(e.ValueSize.Get()), int(e.ValueOffs.Get())
	if n == 0 || e.ValueInum.Get() != 0 {
		return nil
	}
	return a.b[at : at+n : at+n]
}

// Check checks that all entries and values lie where they may; every other
// method relies on it. maxIno is the highest inode number if values may be in
// inodes of their own, else 0. The error is a *CorruptError.
func (a XattrArea) Check(maxIno Ino) error {
	off := a.first
	for !a.Last(off) {
		if off+XattrEntrySize > len(a.b) || a.Next(off)+4 > len(a.b) {
			return Corrupt("extended attributes", off, "entry runs out of its space")
		}
		if bytes.IndexByte(a.Name(off), 0) >= 0 {
			return Corrupt("extended attributes", off, "name with a zero byte")
		}
		off = a.Next(off)
	}
	if off+4 > len(a.b) {
		return Corrupt("extended attributes", off, "list without end")
	}
	names := off + 4
	for off = a.first; !a.Last(off); off = a.Next(off) {
		e := a.Entry(off)
		size, at, ino := e.ValueSize.Get(), int(e.ValueOffs.Get()), Ino(e.ValueInum.Get())
		switch {
		case ino != 0 && maxIno == 0:
			return Corrupt("extended attributes", off, "value in inode %d without ea_inode", ino)
		case ino != 0 && ino < GoodOldFirst || ino > maxIno:
			return Corrupt("extended attributes", off, "value in inode %d", ino)
		case size > xattrValueMax:
			return Corrupt("extended attributes", off, "value of %d bytes", size)
		case ino == 0 && size != 0 && (at < names || at+XattrPad(int(size)) > len(a.b)):
			return Corrupt("extended attributes", off, "value of %d bytes at %d", size, at)
		}
	}
	return nil
}

// checkOverlap says whether two values share bytes. Such a list can be read,
// but to move one value would spoil the other.
func (a XattrArea) checkOverlap() error {
	var used [65536 / 4 / 64]uint64
	for off := a.first; !a.Last(off); off = a.Next(off) {
		e := a.Entry(off)
		if e.ValueInum.Get() != 0 || e.ValueSize.Get() == 0 {
			continue
		}
		at := int(e.ValueOffs.Get())
		if at&3 != 0 {
			return Corrupt("extended attributes", off, "value at %d", at)
		}
		for i, n := at/4, (at+XattrPad(int(e.ValueSize.Get())))/4; i < n; i++ {
			if used[i/64]>>(i%64)&1 != 0 {
				return Corrupt("extended attributes", off, "values overlap")
			}
			used[i/64] |= 1 << (i % 64)
		}
	}
	return nil
}

// Find looks for an attribute. If it is not there, off is where it would be
// put: in its place if sorted (in a block), at the end if not (in an inode).
func (a XattrArea) Find(index uint8, name string, sorted bool) (off int, found bool) {
	for off = a.first; !a.Last(off); off = a.Next(off) {
		e := a.b[off:]
		c := int(index) - int(e[1])
		if c == 0 {
			c = len(name) - int(e[0])
		}
		if c == 0 {
			if n := a.Name(off); string(n) == name {
				return off, true
			} else if name < string(n) {
				c = -1
			}
		}
		if c < 0 && sorted {
			return off, false
		}
	}
	return off, false
}

// bounds returns the end of the list and the lowest offset of a value.
func (a XattrArea) bounds() (last, values int) {
	values = len(a.b)
	for last = a.first; !a.Last(last); last = a.Next(last) {
		e := a.Entry(last)
		if e.ValueInum.Get() == 0 && e.ValueSize.Get() != 0 {
			values = min(values, int(e.ValueOffs.Get()))
		}
	}
	return last, values
}

// Free returns the bytes between the list's end and the values, which another
// entry and its padded value can take.
func (a XattrArea) Free() int {
	last, values := a.bounds()
	return values - last - 4
}

// XattrValue is a value to be set: bytes, zeros, or the inode that holds it.
type XattrValue struct {
	Data []byte
	Zero int    // this many zeros, with Data nil
	Inum Ino    // the inode that holds the value, 0 if it goes into the list
	Size int    // with Inum: its size in bytes
	Hash uint32 // with Inum: its XattrValueHash
}

func (v *XattrValue) size() int {
	switch {
	case v.Inum != 0:
		return v.Size
	case v.Data == nil:
		return v.Zero
	}
	return len(v.Data)
}

// space returns the bytes that the value takes in the list.
func (v *XattrValue) space() int {
	if v.Inum != 0 {
		return 0
	}
	return XattrPad(v.size())
}

// Fits says whether v can be set under name, in place of the entry at off if
// found. reserve bytes of an area of values must stay free (XattrBlockReserve,
// or 0).
func (a XattrArea) Fits(off int, found bool, name string, v XattrValue, reserve int) bool {
	last, values := a.bounds()
	free, old := values-last-4, 0
	if found {
		if e := a.Entry(off); e.ValueInum.Get() == 0 {
			old = XattrPad(int(e.ValueSize.Get()))
		}
		free += XattrLen(len(name)) + old
	}
	if free < XattrLen(len(name))+v.space() {
		return false
	}
	return reserve == 0 || v.space() == 0 || values+old-v.space() >= reserve
}

// Set sets an attribute, replacing the entry at off if found, or adding it
// there. The caller has asked Fits. In a block (hashed) it keeps the entry's
// hash. It fails with a *CorruptError, nothing changed, if values overlap.
func (a XattrArea) Set(off int, found bool, index uint8, name string, v XattrValue, hashed bool) error {
	if err := a.checkOverlap(); err != nil {
		return err
	}
	if found {
		a.dropValue(off)
	} else {
		last, _ := a.bounds()
		n := XattrLen(len(name))
		copy(a.b[off+n:], a.b[off:last+4])
		clear(a.b[off : off+n])
		a.b[off], a.b[off+1] = byte(len(name)), index
		copy(a.b[off+XattrEntrySize:], name)
	}
	e := a.Entry(off)
	e.ValueInum.Set(uint32(v.Inum))
	e.ValueOffs.Set(0)
	e.ValueSize.Set(0) // so that bounds does not count it
	e.Hash.Set(0)
	if n := v.space(); n > 0 {
		_, values := a.bounds()
		e.ValueOffs.Set(uint16(values - n))
		clear(a.b[values-n : values])
		copy(a.b[values-n:values], v.Data)
	}
	e.ValueSize.Set(uint32(v.size()))
	switch {
	case v.Inum != 0:
		e.Hash.Set(XattrInumHash(a.Name(off), v.Hash))
	case hashed:
		e.Hash.Set(XattrHash(a.Name(off), a.padded(off)))
	}
	return nil
}

// Remove takes the entry at off, and its value, out of the list. It fails with
// a *CorruptError, nothing changed, if values overlap.
func (a XattrArea) Remove(off int) error {
	if err := a.checkOverlap(); err != nil {
		return err
	}
	a.dropValue(off)
	last, _ := a.bounds()
	n := XattrLen(int(a.b[off]))
	copy(a.b[off:], a.b[off+n:last+4])
	clear(a.b[last+4-n : last+4])
	return nil
}

// dropValue frees the space of the value of the entry at off, moving up the
// values below it.
func (a XattrArea) dropValue(off int) {
	e := a.Entry(off)
	if e.ValueInum.Get() != 0 || e.ValueSize.Get() == 0 {
		return
	}
	_, values := a.bounds()
	at, n := int(e.ValueOffs.Get()), XattrPad(int(e.ValueSize.Get()))
	copy(a.b[values+n:at+n], a.b[values:at])
	clear(a.b[values : values+n])
	e.ValueSize.Set(0)
	e.ValueOffs.Set(0)
	for o := a.first; !a.Last(o); o = a.Next(o) {
		x := a.Entry(o)
		if p := int(x.ValueOffs.Get()); x.ValueInum.Get() == 0 && x.ValueSize.Get() != 0 && p < at {
			x.ValueOffs.Set(uint16(p + n))
		}
	}
}

// padded returns the value of the entry at off with its padding.
func (a XattrArea) padded(off int) []byte {
	e := a.Entry(off)
	if e.ValueInum.Get() != 0 || e.ValueSize.Get() == 0 {
		return nil
	}
	at := int(e.ValueOffs.Get())
	return a.b[at : at+XattrPad(int(e.ValueSize.Get()))]
}

// shift moves the whole list of an inode up by n bytes, to where it lies once
// i_extra_isize has grown by n; the values stay where they are.
func (a XattrArea) shift(n int) {
	last, _ := a.bounds()
	for o := a.first; !a.Last(o); o = a.Next(o) {
		if e := a.Entry(o); e.ValueInum.Get() == 0 && e.ValueSize.Get() != 0 {
			e.ValueOffs.Set(e.ValueOffs.Get() - uint16(n))
		}
	}
	copy(a.b[n:], a.b[:last+4])
	clear(a.b[:n])
}

// ExpandInodeExtra grows i_extra_isize of an inode larger than 128 bytes to
// want, a multiple of 4 that fits it; the fields that appear are zero. It
// returns false, nothing changed, if the attributes behind it leave no room, or
// are corrupt. maxIno is as for XattrArea.Check.
func ExpandInodeExtra(r RawInode, want int, maxIno Ino) bool {
	n := r.ExtraIsize()
	if n >= want {
		return true
	}
	a, used, ok := InodeXattrs(r)
	base := GoodOldInodeSz
	switch {
	case !ok || !used:
		clear(r[base+n : min(base+want+XattrIHeaderSize, len(r))])
	case want > len(r)-base-XattrIHeaderSize-4 || a.Check(maxIno) != nil || a.Free() < want-n:
		return false
	default:
		a.shift(want - n)
		clear(r[base+n : base+want])
		endian.View[endian.LE32](r[base+want:]).Set(XattrMagic)
	}
	endian.View[endian.LE16](r[base:]).Set(uint16(want))
	return true
}

func hashName(name []byte) (h uint32) {
	for _, c := range name {
		h = h<<5 ^ h>>27 ^ uint32(c)
	}
	return h
}

// hashNameSigned is the hash that kernels made where char is signed, before
// they agreed on the unsigned one.
func hashNameSigned(name []byte) (h uint32) {
	for _, c := range name {
		h = h<<5 ^ h>>27 ^ uint32(int32(int8(c)))
	}
	return h
}

func hashValue(h uint32, padded []byte) uint32 {
	for ; len(padded) >= 4; padded = padded[4:] {
		h = h<<16 ^ h>>16 ^ binary.LittleEndian.Uint32(padded)
	}
	return h
}

// XattrHash returns the hash of an entry: of its name and its value, padded
// with zeros to 4 bytes.
func XattrHash(name, padded []byte) uint32 { return hashValue(hashName(name), padded) }

// XattrHashSigned returns the hash as kernels with a signed char made it; it
// differs for names with bytes above 127.
func XattrHashSigned(name, padded []byte) uint32 { return hashValue(hashNameSigned(name), padded) }

// XattrInumHash returns the hash of an entry whose value lies in an inode and
// has the XattrValueHash value.
func XattrInumHash(name []byte, value uint32) uint32 {
	h := hashName(name)
	return h<<16 ^ h>>16 ^ value
}

// XattrInumHashSigned is XattrInumHash as kernels with a signed char made it.
func XattrInumHashSigned(name []byte, value uint32) uint32 {
	h := hashNameSigned(name)
	return h<<16 ^ h>>16 ^ value
}

// XattrValueHash returns the hash of a value that an inode holds, which stands
// in that inode's i_atime. fsSeed is Super.CsumSeed.
func XattrValueHash(fsSeed uint32, value []byte) uint32 { return Crc32c(fsSeed, value) }

// CheckHash checks the hash of the entry at off, either variant; entries of an
// inode mostly have none (0), which is right too.
func (a XattrArea) CheckHash(off int) error {
	e := a.Entry(off)
	h := e.Hash.Get()
	if h == 0 || e.ValueInum.Get() != 0 {
		return nil
	}
	if want := XattrHash(a.Name(off), a.padded(off)); h != want && h != XattrHashSigned(a.Name(off), a.padded(off)) {
		return Corrupt("extended attributes", off+12, "hash %#x, should be %#x", h, want)
	}
	return nil
}

// XattrEqual says whether two lists hold the same attributes in the same
// order, so that inodes can share one block. Offsets do not count.
func XattrEqual(a, b XattrArea) bool {
	i, j := a.first, b.first
	for ; !a.Last(i); i, j = a.Next(i), b.Next(j) {
		if b.Last(j) {
			return false
		}
		x, y := a.Entry(i), b.Entry(j)
		if x.Hash != y.Hash || x.NameIndex != y.NameIndex || x.NameLen != y.NameLen ||
			x.ValueInum != y.ValueInum || x.ValueSize != y.ValueSize ||
			!bytes.Equal(a.Name(i), b.Name(j)) || !bytes.Equal(a.Value(i), b.Value(j)) {
			return false
		}
	}
	return b.Last(j)
}

// InitXattrBlock makes block an empty attribute block of one user.
func InitXattrBlock(block []byte) {
	clear(block)
	h := endian.View[XattrHeader](block)
	h.Magic.Set(XattrMagic)
	h.Refcount.Set(1)
	h.Blocks.Set(1)
}

// RehashXattrBlock sets the header's hash from those of the entries.
func RehashXattrBlock(block []byte) {
	a := XattrBlock(block)
	var h uint32
	for off := a.first; !a.Last(off); off = a.Next(off) {
		e := a.Entry(off).Hash.Get()
		if e == 0 {
			h = 0
			break
		}
		h = h<<16 ^ h>>16 ^ e
	}
	endian.View[XattrHeader](block).Hash.Set(h)
}

func xattrCsum(block []byte, fsSeed uint32, blk Fsblk) uint32 {
	const at = unsafe.Offsetof(XattrHeader{}.Checksum)
	var n endian.LE64
	n.Set(uint64(blk))
	c := Crc32c(Crc32c(fsSeed, n[:]), block[:at])
	c = Crc32c(c, []byte{0, 0, 0, 0})
	return Crc32c(c, block[at+4:])
}

// VerifyXattrBlock checks the attribute block that lies in blk. maxIno is as
// for XattrArea.Check. fsSeed is Super.CsumSeed, csum whether there is
// metadata_csum. The error is a *CorruptError.
func VerifyXattrBlock(block []byte, blk Fsblk, fsSeed uint32, csum bool, maxIno Ino) error {
	h := endian.View[XattrHeader](block)
	switch {
	case h.Magic.Get() != XattrMagic:
		return At(Corrupt("extended attributes", 0, "magic %#x", h.Magic.Get()), 0, blk)
	case h.Blocks.Get() != 1:
		return At(Corrupt("extended attributes", 8, "%d blocks", h.Blocks.Get()), 0, blk)
	}
	if csum {
		if c := xattrCsum(block, fsSeed, blk); c != h.Checksum.Get() {
			return At(BadCsum("extended attributes", 16, h.Checksum.Get(), c), 0, blk)
		}
	}
	if err := XattrBlock(block).Check(maxIno); err != nil {
		return At(err, 0, blk)
	}
	return nil
}

// SealXattrBlock sets the checksum of the attribute block that goes to blk.
func SealXattrBlock(block []byte, blk Fsblk, fsSeed uint32) {
	endian.View[XattrHeader](block).Checksum.Set(xattrCsum(block, fsSeed, blk))
}
