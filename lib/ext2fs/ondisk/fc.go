package ondisk

import (
	"unsafe"

	"github.com/e2kit/e2kit/lib/endian"
)

// Values of fast commit tags. Kernel: filesystems/ext4/journal.rst, "Fast
// commits".

// FCAddRange maps blocks of a file.
type FCAddRange struct {
	Ino    endian.LE32 // fc_ino
	Extent Extent      // fc_ex
}

// FCDelRange unmaps blocks of a file.
type FCDelRange struct {
	Ino  endian.LE32 // fc_ino
	Lblk endian.LE32 // fc_lblk
	Len  endian.LE32 // fc_len: blocks
}

// FCDentry starts the value of a tag that makes or removes a directory entry;
// the name follows.
type FCDentry struct {
	Parent endian.LE32 // fc_parent_ino
	Ino    endian.LE32 // fc_ino
}

var ( // sizes on disk
	_ [16]byte = [unsafe.Sizeof(FCAddRange{})]byte{}
	_ [12]byte = [unsafe.Sizeof(FCDelRange{})]byte{}
	_ [8]byte  = [unsafe.Sizeof(FCDentry{})]byte{}
)

// ParseFCAddRange views value, that of an ADD_RANGE tag.
func ParseFCAddRange(value []byte) (*FCAddRange, error) {
	if len(value) != int(unsafe.Sizeof(FCAddRange{})) {
		return nil, Corrupt("fast commit of a range", 0, "%d bytes", len(value))
	}
	return endian.View[FCAddRange](value), nil
}

// ParseFCDelRange views value, that of a DEL_RANGE tag.
func ParseFCDelRange(value []byte) (*FCDelRange, error) {
	if len(value) != int(unsafe.Sizeof(FCDelRange{})) {
		return nil, Corrupt("fast commit of a hole", 0, "%d bytes", len(value))
	}
	return endian.View[FCDelRange](value), nil
}

// ParseFCDentry views value, that of a CREAT, LINK or UNLINK tag.
func ParseFCDentry(value []byte) (*FCDentry, []byte, error) {
	n := int(unsafe.Sizeof(FCDentry{}))
	if len(value) <= n || len(value) > n+NameLen {
		return nil, nil, Corrupt("fast commit of a name", 0, "%d bytes", len(value))
	}
	return endian.View[FCDentry](value), value[n:], nil
}

// ParseFCInode returns the parts of value, that of an INODE tag: the number of
// the inode and its first bytes, which are at least GoodOldInodeSz and at most
// inodeSize.
func ParseFCInode(value []byte, inodeSize int) (Ino, RawInode, error) {
	if len(value) < 4+GoodOldInodeSz || len(value) > 4+inodeSize {
		return 0, nil, Corrupt("fast commit of an inode", 0, "%d bytes", len(value))
	}
	return Ino(endian.View[endian.LE32](value).Get()), RawInode(value[4:]), nil
}
