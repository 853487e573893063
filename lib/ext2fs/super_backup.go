package ext2fs

import (
	"errors"
	"fmt"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// SuperError is the error of Open for a primary superblock that is damaged while
// a backup of it looks good, as after a crash in the middle of its 1024 bytes.
// To restore it is for e2fsck, which checks the rest too. It unwraps to what is
// wrong with the primary.
type SuperError struct {
	Err       error
	Backup    ondisk.Fsblk // block that the backup lies in
	BlockSize int          // bytes
}

func (e *SuperError) Error() string {
	return fmt.Sprintf("%v; the backup in block %d looks good: repair with e2fsck -b %d -B %d",
		e.Err, e.Backup, e.Backup, e.BlockSize)
}

func (e *SuperError) Unwrap() error { return e.Err }

// backupGroups are groups that have a backup of the superblock, in each form of
// sparse_super.
var backupGroups = [...]uint64{1, 3, 5, 7, 9, 25, 27, 49}

// withBackup adds to err, which says that the primary superblock is damaged,
// where a good backup is. What never was an ext superblock is left alone: on a
// disk that was given another file system there may be backups still.
func withBackup(dev blockdev.Device, err error) error {
	if !errors.Is(err, ondisk.EUCLEAN) && !errors.Is(err, ondisk.EBADMSG) {
		return err
	}
	// Nothing of the primary is believed: groups are as large as their bitmap
	// allows, of clusters if they are of any.
	for bits := uint(10); bits <= 16; bits++ {
		for cluster := uint(0); cluster <= 6; cluster++ {
			first := uint64(0)
			if bits == 10 && cluster == 0 {
				first = 1
			}
			for _, g := range backupGroups {
				blk := ondisk.Fsblk(g*8<<(bits+cluster) + first)
				if goodBackup(dev, blk, bits, g) {
					return &SuperError{Err: err, Backup: blk, BlockSize: 1 << bits}
				}
			}
		}
	}
	return err
}

// goodBackup tells whether block blk is a superblock that Open would take, of
// the file system's group g.
func goodBackup(dev blockdev.Device, blk ondisk.Fsblk, bits uint, g uint64) bool {
	off := int64(blk) << bits
	if off > dev.Size()-ondisk.SuperSize {
		return false
	}
	s, err := readSuper(dev, uint64(off)>>10)
	if err != nil || s.LogBlockSize.Get()+10 != uint32(bits) || uint64(s.BlockGroupNr.Get()) != g {
		return false
	}
	if _, err := checkFeatures(s, false); err != nil {
		return false
	}
	return (&FS{dev: dev}).geometry(s) == nil
}
