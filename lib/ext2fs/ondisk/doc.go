// Package ondisk has every structure, constant, feature bit, checksum and hash
// of the ext2, ext3 and ext4 on-disk format.
//
// A structure is a Go struct of byte-order types (lib/endian), laid over the
// block where it lies; the bytes are the only copy. Each kind of block has
// functions that verify it when it is first read and seal it (set its
// checksum) when it leaves memory. The package is pure: no I/O, no state, no
// locks; every function is safe for concurrent use as far as the bytes are.
//
//	sb := endian.View[ondisk.Super](block)
//	if err := sb.Check(); err != nil { … }
//	fmt.Println(sb.BlocksCount())
//
// The format is described in the kernel's documentation, filesystems/ext4;
// field comments give the kernel's name of the field and its unit.
package ondisk
