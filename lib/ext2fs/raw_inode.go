package ext2fs

import (
	"fmt"
	"slices"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// checkIno fails unless ino is an inode number of the file system.
func (r *Raw) checkIno(ino ondisk.Ino) error {
	if ino == 0 || uint32(ino) > r.geo.inodes {
		return fmt.Errorf("inode %d of %d: %w", ino, r.geo.inodes, syscall.EINVAL)
	}
	return nil
}

// InodeAt returns the block of the inode table that holds ino, and the byte in
// it at which the inode starts.
func (r *Raw) InodeAt(ino ondisk.Ino) (b ondisk.Fsblk, off int, err error) {
	if err := r.checkIno(ino); err != nil {
		return 0, 0, err
	}
	blk, at, err := r.descIn(r.GroupOfInode(ino))
	if err != nil {
		return 0, 0, err
	}
	i := uint32(ino-1) % r.geo.inodesPerGroup
	table := ondisk.Desc(blk[at : at+r.geo.descSize]).InodeTable()
	return table + ondisk.Fsblk(i/r.geo.inodesPerBlock), int(i%r.geo.inodesPerBlock) * r.geo.inodeSize, nil
}

// Inode returns a copy of inode ino, not verified, in use or not.
func (r *Raw) Inode(ino ondisk.Ino) (ondisk.RawInode, error) {
	b, off, err := r.InodeAt(ino)
	if err != nil {
		return nil, err
	}
	data, err := r.Block(b)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", ino, err)
	}
	return slices.Clone(ondisk.RawInode(data[off : off+r.geo.inodeSize])), nil
}

// VerifyInode checks the checksum of inode ino. One that is all zero was never
// written, and has none.
func (r *Raw) VerifyInode(ino ondisk.Ino, raw ondisk.RawInode) error {
	if r.o.IgnoreCsum || !r.geo.hasCsum || allZero(raw) {
		return nil
	}
	return raw.VerifyCsum(r.geo.csumSeed, ino)
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// WriteInode writes raw as inode ino. Its checksum is set before if seal says
// so.
func (r *Raw) WriteInode(ino ondisk.Ino, raw ondisk.RawInode, seal bool) error {
	b, off, err := r.InodeAt(ino)
	if err != nil {
		return err
	}
	data, err := r.Block(b)
	if err != nil {
		return fmt.Errorf("inode %d: %w", ino, err)
	}
	if seal && r.geo.hasCsum {
		raw.Seal(r.geo.csumSeed, ino)
	}
	data = slices.Clone(data)
	copy(data[off:off+r.geo.inodeSize], raw)
	return r.WriteBlock(b, data)
}

// Size returns the size of the file in bytes.
func (r *Raw) Size(raw ondisk.RawInode) int64 { return raw.Size(r.geo.hasLargeDir) }

// Sectors returns i_blocks in units of 512 bytes.
func (r *Raw) Sectors(raw ondisk.RawInode) uint64 {
	n := raw.Blocks(r.geo.hasHugeFile)
	if r.geo.hasHugeFile && raw.Base().Flags.Get()&ondisk.FlagHugeFile != 0 {
		n <<= r.geo.blockBits - 9
	}
	return n
}

// InodeSeed returns the value that checksums of what ino owns start from.
func (r *Raw) InodeSeed(ino ondisk.Ino, raw ondisk.RawInode) uint32 {
	return ondisk.InodeSeed(r.geo.csumSeed, ino, raw.Base().Generation.Get())
}

// IsFastLink says whether the target of a symbolic link lies in i_block.
func (r *Raw) IsFastLink(raw ondisk.RawInode) bool {
	b := raw.Base()
	if b.Mode.Get()&ondisk.ModeFmt != ondisk.ModeLnk || b.Flags.Get()&(ondisk.FlagInlineData|ondisk.FlagExtents) != 0 {
		return false
	}
	n := r.Size(raw)
	if n < 0 || n >= ondisk.MaxSymlinkFast {
		return false
	}
	if r.geo.hasEAInode {
		return true
	}
	var ea uint64
	if raw.FileACL() != 0 {
		ea = uint64(r.geo.clusterRatio) << (r.geo.blockBits - 9)
	}
	return r.Sectors(raw) == ea
}

// HasBlocks says whether i_block maps blocks: it does not in devices, fast
// symbolic links and inline files.
func (r *Raw) HasBlocks(raw ondisk.RawInode) bool {
	if raw.Base().Flags.Get()&ondisk.FlagInlineData != 0 {
		return false
	}
	switch raw.Base().Mode.Get() & ondisk.ModeFmt {
	case ondisk.ModeReg, ondisk.ModeDir:
		return true
	case ondisk.ModeLnk:
		return !r.IsFastLink(raw)
	case 0: // reserved inodes, such as the journal's in the making, have no mode
		return true
	}
	return false
}
