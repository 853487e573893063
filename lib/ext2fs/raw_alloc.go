package ext2fs

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// FreeBlocksFrom calls fn with the free blocks in order of their number, from
// goal on and then from the start up to it, until it returns false. With
// clusters these are all blocks of free clusters.
func (r *Raw) FreeBlocksFrom(goal ondisk.Fsblk, fn func(b ondisk.Fsblk) bool) error {
	if goal < r.geo.firstData || goal >= r.geo.blocks {
		goal = r.geo.firstData
	}
	more, err := r.freeIn(goal, r.geo.blocks, fn)
	if more && err == nil {
		_, err = r.freeIn(r.geo.firstData, goal, fn)
	}
	return err
}

func (r *Raw) freeIn(b, end ondisk.Fsblk, fn func(b ondisk.Fsblk) bool) (bool, error) {
	for b < end {
		g := r.geo.groupOfBlock(b)
		first := r.geo.groupFirst(g)
		last := min(first+ondisk.Fsblk(r.geo.groupBlocks(g)), end)
		m, err := r.BlockBitmap(g)
		if err != nil {
			return false, err
		}
		for b < last {
			c := uint32(b-first) >> r.geo.clusterBits
			next := nextClearBit(m, c, r.geo.groupClusters(g))
			if next > c {
				b = first + ondisk.Fsblk(next)<<r.geo.clusterBits
				continue
			}
			if !fn(b) {
				return false, nil
			}
			b++
		}
		b = last
	}
	return true, nil
}

// FindFreeBlock returns the first free cluster's first block from goal on, 0
// if there is none.
func (r *Raw) FindFreeBlock(goal ondisk.Fsblk) (ondisk.Fsblk, error) {
	var found ondisk.Fsblk
	ratio := ondisk.Fsblk(r.geo.clusterRatio)
	err := r.FreeBlocksFrom(goal, func(b ondisk.Fsblk) bool {
		if (b-r.geo.firstData)%ratio != 0 { // in the middle of goal's cluster
			return true
		}
		found = b
		return false
	})
	return found, err
}

// FindFreeInode returns a free inode for a file of that mode in directory dir:
// the first one from dir's group on, where a new directory looks for a group of
// its own. It returns 0 if none is free.
func (r *Raw) FindFreeInode(dir ondisk.Ino, mode uint16) (ondisk.Ino, error) {
	start := ondisk.Group(0)
	if dir != 0 {
		if err := r.checkIno(dir); err != nil {
			return 0, err
		}
		start = r.GroupOfInode(dir)
	}
	for i := range r.geo.groups {
		g := (start + i) % r.geo.groups
		m, err := r.InodeBitmap(g)
		if err != nil {
			return 0, err
		}
		from := uint32(0)
		if first := uint32(r.geo.firstIno) - 1; uint64(g)*uint64(r.geo.inodesPerGroup) < uint64(first) {
			from = min(first-uint32(g)*r.geo.inodesPerGroup, r.geo.inodesPerGroup)
		}
		if bit := nextClearBit(m, from, r.geo.inodesPerGroup); bit < r.geo.inodesPerGroup {
			return ondisk.Ino(uint32(g)*r.geo.inodesPerGroup + bit + 1), nil
		}
	}
	return 0, nil
}

// MarkBlocks marks the n blocks from b on, or their clusters, in the bitmaps as
// used or free. Neither descriptors nor the superblock count them: that is
// for CountBlocks. Bitmaps that were not initialised are, and their checksums
// are kept.
func (r *Raw) MarkBlocks(b ondisk.Fsblk, n uint64, used bool) error {
	if b < r.geo.firstData {
		return fmt.Errorf("block %d: the first one is %d: %w", b, r.geo.firstData, syscall.EINVAL)
	}
	if err := r.inRange(b, n); err != nil {
		return err
	}
	for end := b + ondisk.Fsblk(n); b < end; {
		g := r.geo.groupOfBlock(b)
		first := r.geo.groupFirst(g)
		last := min(first+ondisk.Fsblk(r.geo.groupBlocks(g)), end)
		lo, hi := uint32(b-first)>>r.geo.clusterBits, uint32(last-1-first)>>r.geo.clusterBits
		if err := r.editBlockBitmap(g, func(m []byte) { mark(m, lo, hi-lo+1, used) }); err != nil {
			return err
		}
		b = last
	}
	return nil
}

func mark(m []byte, i, n uint32, used bool) {
	if used {
		setRange(m, i, n)
	} else {
		clearRange(m, i, n)
	}
}

func (r *Raw) editBlockBitmap(g ondisk.Group, edit func(m []byte)) error {
	m, err := r.BlockBitmap(g)
	if err != nil {
		return err
	}
	m = slices.Clone(m)
	edit(m)
	d, err := r.Desc(g)
	if err != nil {
		return err
	}
	if err := r.WriteBlock(d.BlockBitmap(), m); err != nil {
		return err
	}
	delete(r.bitmaps, ^ondisk.Fsblk(g))
	if !r.hasUninit() {
		return nil
	}
	d.SetFlags(0, ondisk.BGBlockUninit)
	if r.geo.hasCsum {
		d.SetBlockBitmapCsum(ondisk.Crc32c(r.geo.csumSeed, m[:r.geo.clustersPerGroup/8]))
	}
	return r.WriteDesc(g, d, true)
}

// MarkInode marks inode ino in its bitmap as used or free. Nothing counts it:
// that is for CountInode. A bitmap that was not initialised is, and the part of
// the table that is said to be unused shrinks to what lies behind ino; those
// parts of the table become zero.
func (r *Raw) MarkInode(ino ondisk.Ino, used bool) error {
	if err := r.checkIno(ino); err != nil {
		return err
	}
	g := r.GroupOfInode(ino)
	m, err := r.InodeBitmap(g)
	if err != nil {
		return err
	}
	i := uint32(ino-1) % r.geo.inodesPerGroup
	m = slices.Clone(m)
	mark(m, i, 1, used)
	d, err := r.Desc(g)
	if err != nil {
		return err
	}
	if r.hasUninit() && used {
		if err := r.useTable(g, d, i); err != nil {
			return err
		}
	}
	if err := r.WriteBlock(d.InodeBitmap(), m); err != nil {
		return err
	}
	if !r.hasUninit() {
		return nil
	}
	d.SetFlags(0, ondisk.BGInodeUninit)
	if r.geo.hasCsum {
		d.SetInodeBitmapCsum(ondisk.Crc32c(r.geo.csumSeed, m[:r.geo.inodesPerGroup/8]))
	}
	return r.WriteDesc(g, d, true)
}

// useTable makes the inode table of g reach to inode i, in d.
func (r *Raw) useTable(g ondisk.Group, d ondisk.Desc, i uint32) error {
	first := uint32(0) // inode of the group from which on the table is unused
	if !d.HasFlag(ondisk.BGInodeUninit) {
		first = r.geo.inodesPerGroup - min(d.ItableUnused(), r.geo.inodesPerGroup)
	}
	if i < first {
		return nil
	}
	if !d.HasFlag(ondisk.BGInodeZeroed) {
		zero := make([]byte, r.geo.blockSize)
		from := (first + r.geo.inodesPerBlock - 1) / r.geo.inodesPerBlock
		for b := from; b <= i/r.geo.inodesPerBlock; b++ {
			if err := r.WriteBlock(d.InodeTable()+ondisk.Fsblk(b), zero); err != nil {
				return err
			}
		}
	}
	d.SetItableUnused(r.geo.inodesPerGroup - i - 1)
	return nil
}

// CountBlocks adds n to the free blocks of the superblock, and the clusters of
// them to the free ones of group g.
func (r *Raw) CountBlocks(g ondisk.Group, n int64) error {
	d, err := r.Desc(g)
	if err != nil {
		return err
	}
	d.SetFreeBlocks(uint32(max(0, int64(d.FreeBlocks())+n>>r.geo.clusterBits)))
	r.sb.SetFreeBlocksCount(uint64(max(0, int64(r.sb.FreeBlocksCount())+n)))
	return r.WriteDesc(g, d, true)
}

// CountInode adds n to the free inodes, and dirs to the directories, of the
// group of ino, and to the free inodes of the superblock.
func (r *Raw) CountInode(ino ondisk.Ino, n, dirs int) error {
	g := r.GroupOfInode(ino)
	d, err := r.Desc(g)
	if err != nil {
		return err
	}
	d.SetFreeInodes(uint32(max(0, int(d.FreeInodes())+n)))
	d.SetUsedDirs(uint32(max(0, int(d.UsedDirs())+dirs)))
	r.sb.FreeInodes.Set(uint32(max(0, int64(r.sb.FreeInodes.Get())+int64(n))))
	return r.WriteDesc(g, d, true)
}

// AllocBlock takes the cluster of the first free block from goal on, counts it,
// and returns its first block. It fails with ENOSPC.
func (r *Raw) AllocBlock(goal ondisk.Fsblk) (ondisk.Fsblk, error) {
	b, err := r.FindFreeBlock(goal)
	if err == nil && b == 0 {
		err = syscall.ENOSPC
	}
	if err != nil {
		return 0, err
	}
	n := min(uint64(r.geo.clusterRatio), uint64(r.geo.blocks-b))
	return b, errors.Join(r.MarkBlocks(b, n, true), r.CountBlocks(r.geo.groupOfBlock(b), -int64(n)))
}

// FreeBlock gives the cluster of block b back, if it is in use, and counts it.
func (r *Raw) FreeBlock(b ondisk.Fsblk) error {
	used, err := r.BlockUsed(b)
	if err != nil || !used {
		return err
	}
	b -= (b - r.geo.firstData) % ondisk.Fsblk(r.geo.clusterRatio)
	n := min(uint64(r.geo.clusterRatio), uint64(r.geo.blocks-b))
	return errors.Join(r.MarkBlocks(b, n, false), r.CountBlocks(r.geo.groupOfBlock(b), int64(n)))
}
