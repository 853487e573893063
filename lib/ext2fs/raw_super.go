package ext2fs

import (
	"fmt"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// WriteSuper brings the superblock to its primary place. Its checksum is set,
// unless that was what was changed: then it is kept until it is changed again.
func (r *Raw) WriteSuper() error {
	if err := r.writable(); err != nil {
		return err
	}
	if r.sb.Checksum != r.disk.Checksum {
		r.keepCsum = r.sb.Checksum.Get() != ondisk.SuperCsum(r.sb)
	}
	if !r.keepCsum {
		sealSuper(r.sb)
	}
	if _, err := r.dev.WriteAt(endian.Bytes(r.sb), ondisk.SuperOffset); err != nil {
		return fmt.Errorf("superblock: %w", err)
	}
	r.disk = *r.sb
	delete(r.cache, r.geo.sbBlk)
	return nil
}

// HasSuper says whether group g begins with a copy of the superblock.
func (r *Raw) HasSuper(g ondisk.Group) bool { return r.geo.groupHasSuper(g) }

// WriteBackups copies the superblock and the descriptors to all places of
// their backups. A backup claims neither to be clean nor to need recovery.
func (r *Raw) WriteBackups() error {
	if err := r.writable(); err != nil {
		return err
	}
	geo := r.geo
	descs := make([][]byte, geo.descBlocks)
	for i := range descs {
		b, err := r.Block(geo.descBlock(uint32(i)))
		if err != nil {
			return err
		}
		descs[i] = b
	}
	old := geo.descBlocks // blocks of descriptors that follow each superblock
	if geo.hasMetaBG {
		old = geo.firstMetaBG
	}
	for g := ondisk.Group(1); g < geo.groups; g++ {
		at := geo.groupFirst(g)
		if geo.groupHasSuper(g) {
			if err := r.writeBackup(g, at); err != nil {
				return err
			}
			at++
			for i := range old {
				if err := r.WriteBlock(at+ondisk.Fsblk(i), descs[i]); err != nil {
					return err
				}
			}
		}
		meta := uint32(g) / geo.descPerBlock
		if !geo.hasMetaBG || meta < geo.firstMetaBG {
			continue
		}
		switch uint32(g) % geo.descPerBlock {
		case 1, geo.descPerBlock - 1:
			if err := r.WriteBlock(at, descs[meta]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Raw) writeBackup(g ondisk.Group, b ondisk.Fsblk) error {
	s := *r.sb
	s.BlockGroupNr.Set(uint16(g))
	s.State.Set(s.State.Get() &^ ondisk.StateValid)
	s.FeatureIncompat.Set(s.FeatureIncompat.Get() &^ ondisk.IncompatRecover)
	sealSuper(&s)
	if err := r.inRange(b, 1); err != nil {
		return err
	}
	if _, err := r.dev.WriteAt(endian.Bytes(&s), int64(b)<<r.geo.blockBits); err != nil {
		return fmt.Errorf("superblock of group %d: %w", g, err)
	}
	delete(r.cache, b)
	return nil
}
