package ext2fs

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// NextFree returns the first free block from start on, and how many free ones
// follow it in its group; n is 0 if there is none up to the end of the file
// system. Nothing keeps others from taking them.
func (fs *FS) NextFree(start ondisk.Fsblk) (b ondisk.Fsblk, n uint64, err error) {
	return fs.nextRun(start, 1<<32, false)
}

// nextRun is NextFree for at most most blocks, rounded up to whole clusters.
// With reserve they are reserved.
func (fs *FS) nextRun(start ondisk.Fsblk, most uint64, reserve bool) (ondisk.Fsblk, uint64, error) {
	start = max(start, fs.firstData)
	for start < fs.blocks {
		no := fs.groupOfBlock(start)
		g, err := fs.groupOf(no)
		if err != nil {
			return 0, 0, fs.corrupt(0, err)
		}
		first := fs.groupFirst(no)
		// A cluster that start is not the first block of is not taken in part.
		at := uint32((uint64(start-first) + uint64(fs.clusterRatio) - 1) >> fs.clusterBits)
		want := min((most+uint64(fs.clusterRatio)-1)>>fs.clusterBits, uint64(fs.clustersPerGroup))
		s, n, err := g.nextRun(fs, at, uint32(want), reserve)
		if err != nil {
			return 0, 0, err
		}
		if n > 0 {
			b := first + ondisk.Fsblk(s)<<fs.clusterBits
			if reserve {
				fs.reserved.Add(int64(n))
			}
			return b, min(uint64(n)<<fs.clusterBits, uint64(fs.blocks-b)), nil
		}
		start = first + ondisk.Fsblk(fs.blocksPerGroup)
	}
	return 0, 0, nil
}

// nextRun returns the first free clusters of g from at on, up to want of them.
func (g *group) nextRun(fs *FS, at, want uint32, reserve bool) (s, n uint32, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bbBad {
		return 0, 0, fs.corrupt(0, ondisk.Corrupt(fmt.Sprintf("block bitmap of group %d", g.no), 0, "it cannot be used"))
	}
	if g.freeClusters == 0 {
		return 0, 0, nil
	}
	if err := g.loadBits(fs); err != nil {
		return 0, 0, err
	}
	end := fs.groupClusters(g.no)
	if s = nextClear(g.bits.taken, at, end); s >= end {
		return 0, 0, nil
	}
	n = nextSet(g.bits.taken, s, min(end, s+want)) - s
	if reserve {
		g.took(s, n)
	}
	return s, n, nil
}

// PlaceOptions say where PlaceBlocks places what.
type PlaceOptions struct {
	At     ondisk.Fsblk // where to begin
	Blocks uint64       // how many; 0: all that are free up to the end of the file system
	Zero   bool         // zeros are written to them

	// Stop, if not nil, is called from time to time; its error ends it all.
	Stop func() error
}

// PlaceBlocks gives an empty regular file, mapped by extents, the first free
// blocks from o.At on, in their order, written, and the size that they have. The
// nodes of its extent tree go to the beginning of the file system, not between
// them, and blocks reserved for the super-user are taken like others. Without
// o.Zero the file has what these blocks hold. It returns the block after the last.
// It fails with ENOSPC, and EFBIG; the file then has what was done so far. It is
// for a file system that was opened with Options.Populating and is used by nobody
// else.
func (ip *Inode) PlaceBlocks(o PlaceOptions) (ondisk.Fsblk, error) {
	fs := ip.fs
	if !ip.isReg() || !fs.opts.Populating {
		return o.At, syscall.EINVAL
	}
	ip.mu.Lock()
	defer ip.mu.Unlock()
	if ip.flagged(ondisk.FlagInlineData) {
		if err := ip.inlineConvert(); err != nil {
			return o.At, err
		}
	}
	if !ip.flagged(ondisk.FlagExtents) {
		return o.At, syscall.EOPNOTSUPP
	}
	if ip.Size() != 0 {
		return o.At, syscall.EINVAL
	}
	most := uint64(fs.maxBytes(true)) >> fs.blockBits
	if o.Blocks > most {
		return o.At, syscall.EFBIG
	}
	ip.mapMu.Lock()
	ip.fm.nodesAt = fs.firstData + 1
	ip.mapMu.Unlock()
	at, err := ip.placeBlocks(o, most)
	ip.mapMu.Lock()
	ip.fm.nodesAt = 0
	ip.mapMu.Unlock()
	return at, err
}

// placeBlocks is PlaceBlocks once it is known to make sense; most is the blocks
// that a file can have. mu is held.
func (ip *Inode) placeBlocks(o PlaceOptions, most uint64) (ondisk.Fsblk, error) {
	fs := ip.fs
	lblk, at := uint64(0), o.At
	// A run continues the extent before, and then begins one.
	const credits = 2 * creditsData
	var failed error // which update is not to try again
	err := ip.update(credits, func(h *jbd2.Handle) (bool, error) {
		for o.Blocks == 0 || lblk < o.Blocks {
			if !fs.have(h, credits) {
				return false, nil
			}
			if o.Stop != nil {
				if failed = o.Stop(); failed != nil {
					return true, nil
				}
			}
			left := uint64(1 << 32)
			if o.Blocks != 0 {
				left = o.Blocks - lblk
			}
			b, n, err := fs.nextRun(at, left, true)
			if err == nil && n == 0 {
				if o.Blocks != 0 || lblk == 0 {
					failed = syscall.ENOSPC
				}
				return true, nil
			}
			used := min(n, left)
			if err == nil && lblk+used > most {
				fs.unreserve(b, uint32(n))
				err = syscall.EFBIG
			}
			if err == nil {
				err = ip.placeRun(h, lblk, b, uint32(n), uint32(used), o.Zero)
			}
			if err == nil {
				lblk += used
				at = b + ondisk.Fsblk(n)
				err = ip.grow(h, int64(lblk<<fs.blockBits))
			}
			if failed = err; err != nil {
				return true, nil
			}
		}
		return true, nil
	})
	return at, errors.Join(failed, err)
}

// placeRun maps the first used of n blocks, reserved from b on, at lblk. mapMu is
// held.
func (ip *Inode) placeRun(h *jbd2.Handle, lblk uint64, b ondisk.Fsblk, n, used uint32, zero bool) error {
	fs := ip.fs
	if zero {
		if err := fs.dev.ZeroOut(int64(b)<<fs.blockBits, int64(n)<<fs.blockBits); err != nil {
			fs.unreserve(b, n)
			return fmt.Errorf("zeroing blocks from %d on: %w", b, err)
		}
	}
	if err := fs.commitReserved(h, b, n); err != nil {
		return err
	}
	done, err := ip.extInsert(h, ondisk.Lblk(lblk), b, used, false)
	keep := (n + fs.clusterRatio - 1) &^ (fs.clusterRatio - 1)
	if err != nil {
		// What is not mapped is not lost.
		keep = (done + fs.clusterRatio - 1) &^ (fs.clusterRatio - 1)
		if keep < n {
			err = errors.Join(err, fs.freeBlocks(h, b+ondisk.Fsblk(keep), n-keep, false))
		}
	}
	ip.addBlocks(int64(keep))
	return err
}
