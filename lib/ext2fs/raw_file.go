package ext2fs

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// ReleaseFile frees inode ino and its blocks, whoever names it: links become 0
// and it is marked as deleted now. What it maps stays written in it, so that
// UndeleteFile can bring it back while its blocks are free. An attribute block
// that other inodes use loses a user only.
func (r *Raw) ReleaseFile(ino ondisk.Ino) error {
	raw, err := r.Inode(ino)
	if err != nil {
		return err
	}
	var runs []RawRun
	if err := r.WalkBlocks(ino, raw, func(run RawRun) bool {
		runs = append(runs, run)
		return true
	}); err != nil {
		return err // a mapping that cannot be read could lead to blocks of others
	}
	b := raw.Base()
	dirs := 0
	if b.Mode.Get()&ondisk.ModeFmt == ondisk.ModeDir {
		dirs = -1
	}
	acl := raw.FileACL()
	if acl != 0 {
		if err := r.dropXattrBlock(acl); err != nil {
			return err
		}
		raw.SetFileACL(0)
	}
	b.LinksCount.Set(0)
	b.Dtime.Set(uint32(r.Now().Unix()))
	if err := r.WriteInode(ino, raw, true); err != nil {
		return err
	}
	if err := r.freeRuns(runs); err != nil {
		return err
	}
	used, err := r.InodeUsed(ino)
	if err != nil || !used {
		return err
	}
	return errors.Join(r.MarkInode(ino, false), r.CountInode(ino, 1, dirs), r.WriteSuper())
}

// freeRuns frees what is in use of runs, and counts it.
func (r *Raw) freeRuns(runs []RawRun) error {
	for _, run := range runs {
		if err := r.inRange(run.Pblk, uint64(run.Len)); err != nil {
			return err
		}
		for b := run.Pblk; b < run.Pblk+ondisk.Fsblk(run.Len); b++ {
			if err := r.FreeBlock(b); err != nil {
				return err
			}
		}
	}
	return r.WriteSuper()
}

// dropXattrBlock takes a user from attribute block b, and frees it with the
// last.
func (r *Raw) dropXattrBlock(b ondisk.Fsblk) error {
	data, err := r.Block(b)
	if err != nil {
		return err
	}
	h := endian.View[ondisk.XattrHeader](data)
	if h.Magic.Get() != ondisk.XattrMagic {
		return ondisk.At(ondisk.Corrupt("extended attributes", 0, "magic %#x", h.Magic.Get()), 0, b)
	}
	if n := h.Refcount.Get(); n > 1 {
		data = append([]byte(nil), data...)
		endian.View[ondisk.XattrHeader](data).Refcount.Set(n - 1)
		if r.geo.hasCsum {
			ondisk.SealXattrBlock(data, b, r.geo.csumSeed)
		}
		return r.WriteBlock(b, data)
	}
	return errors.Join(r.FreeBlock(b), r.WriteSuper())
}

// ErrNotDeleted is the error of UndeleteFile for an inode that is in use.
var ErrNotDeleted = fmt.Errorf("the inode is in use: %w", syscall.EEXIST)

// UndeleteFile makes the deleted inode ino, which still maps its blocks, a file
// with one link, which no entry names. It fails with EBUSY if a block is in use
// again.
func (r *Raw) UndeleteFile(ino ondisk.Ino) error {
	raw, err := r.Inode(ino)
	if err != nil {
		return err
	}
	if used, err := r.InodeUsed(ino); err != nil || used {
		return firstErr(err, ErrNotDeleted)
	}
	if raw.Base().Mode.Get() == 0 {
		return fmt.Errorf("the inode was never used, or cleared: %w", syscall.ENOENT)
	}
	seen := map[ondisk.Fsblk]bool{}
	var list []ondisk.Fsblk // a block of each cluster
	ratio := ondisk.Fsblk(r.geo.clusterRatio)
	var bad error
	err = r.WalkBlocks(ino, raw, func(run RawRun) bool {
		for b := run.Pblk; b < run.Pblk+ondisk.Fsblk(run.Len) && bad == nil; b++ {
			used, err := r.BlockUsed(b)
			if err == nil && used {
				err = fmt.Errorf("block %d is in use again: %w", b, syscall.EBUSY)
			}
			bad = err
			if c := b / ratio; !seen[c] {
				seen[c] = true
				list = append(list, b)
			}
		}
		return bad == nil
	})
	if err = firstErr(bad, err); err != nil {
		return err
	}
	for _, b := range list {
		b -= b % ratio
		n := min(uint64(ratio), uint64(r.geo.blocks-b))
		if ratio == 1 {
			n = 1
		}
		if err := errors.Join(r.MarkBlocks(b, n, true), r.CountBlocks(r.geo.groupOfBlock(b), -int64(n))); err != nil {
			return err
		}
	}
	dirs := 0
	if raw.Base().Mode.Get()&ondisk.ModeFmt == ondisk.ModeDir {
		dirs = 1
	}
	raw.Base().LinksCount.Set(1)
	raw.Base().Dtime.Set(0)
	return errors.Join(r.MarkInode(ino, true), r.CountInode(ino, -1, dirs), r.WriteInode(ino, raw, true), r.WriteSuper())
}

func firstErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
