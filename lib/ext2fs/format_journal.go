package ext2fs

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// Limits of a journal, in blocks.
const (
	MinJournalBlocks = jbd2.MinBlocks
	MaxJournalBlocks = 10240000
)

// DefaultJournalBlocks returns the journal size, in blocks, that a file system
// of so many blocks gets; 0 if it is too small for a journal.
func DefaultJournalBlocks(blocks uint64) uint32 {
	for _, c := range []struct {
		below uint64
		size  uint32
	}{
		{2048, 0}, {32768, 1024}, {256 << 10, 4096}, {512 << 10, 8192}, {4096 << 10, 16384},
		{8192 << 10, 32768}, {16384 << 10, 65536}, {32768 << 10, 131072},
	} {
		if blocks < c.below {
			return c.size
		}
	}
	return 262144
}

// sizeJournal decides the length of the journal and of its fast commit area.
func (f *formatter) sizeJournal() error {
	o := f.opts
	if o.JournalBlocks == 0 {
		if o.JournalBlocks = DefaultJournalBlocks(f.blocks); o.JournalBlocks == 0 {
			f.result.NoJournal = true
			return nil
		}
	}
	switch {
	case !f.sb.HasCompat(ondisk.CompatFastCommit):
		o.FCBlocks = 0
	case o.FCBlocks == 0:
		o.FCBlocks = o.JournalBlocks / 64
	}
	n := uint64(o.JournalBlocks) + uint64(o.FCBlocks)
	switch {
	case o.JournalBlocks < MinJournalBlocks || n > MaxJournalBlocks:
		return fmt.Errorf("a journal of %d blocks: it must have %d to %d: %w",
			n, MinJournalBlocks, MaxJournalBlocks, syscall.EINVAL)
	case n > f.blocks/2:
		return fmt.Errorf("a journal of %d blocks is more than half of the file system: %w", n, ErrTooSmall)
	}
	f.result.JournalBlocks = uint32(n)
	return nil
}

// journalSuper returns a block with the superblock of a journal of n blocks, of
// which fc are for fast commits.
func (f *formatter) journalSuper(n, fc uint32) []byte {
	b := make([]byte, f.blockSize)
	j := endian.View[jbd2.Superblock](b)
	j.Header.Magic.Set(jbd2.Magic)
	j.Header.BlockType.Set(jbd2.SuperblockV2)
	if f.opts.JournalV1 {
		j.Header.BlockType.Set(jbd2.SuperblockV1)
	}
	j.BlockSize.Set(uint32(f.blockSize))
	j.MaxLen.Set(n)
	j.NrUsers.Set(1)
	j.First.Set(1)
	j.Sequence.Set(1)
	j.UUID = f.opts.UUID
	j.NumFCBlocks.Set(fc)
	if f.sb.HasIncompat(ondisk.IncompatJournalDev) {
		// Behind the two superblocks.
		j.NrUsers.Set(0)
		j.First.Set(uint32(f.journalBlock()) + 1)
	}
	return b
}

// journalBlock is the block of the journal's superblock on a journal device.
func (f *formatter) journalBlock() uint64 {
	return f.first + 1
}

// makeJournal makes the journal inode, or points to an external journal.
func (f *formatter) makeJournal() error {
	s := f.sb
	switch {
	case !s.HasCompat(ondisk.CompatHasJournal):
		return nil
	case f.opts.JournalUUID != nil:
		s.JournalInum.Set(0)
		s.JournalUUID = *f.opts.JournalUUID
		s.JournalDev.Set(f.opts.JournalDev)
		return nil
	case f.result.NoJournal:
		s.FeatureCompat.Set(s.FeatureCompat.Get() &^ (ondisk.CompatHasJournal | ondisk.CompatOrphanFile))
		return nil
	}
	n := uint64(f.result.JournalBlocks)
	f.step(StageJournal, 0, n)
	s.OverheadClusters.Set(s.OverheadClusters.Get() + uint32(ceilDiv(n, f.ratio)))
	r := f.newInode(ondisk.JournalIno, ondisk.ModeReg|0o600, 1)
	f.setSize(r, int64(n)*int64(f.blockSize))
	first, err := f.fillFile(ondisk.JournalIno, r, f.journalGoal(), n, !f.opts.LazyJournal)
	if err != nil {
		return f.errorf("journal of %d blocks: %w", n, err)
	}
	f.pending[first] = f.journalSuper(uint32(n), f.opts.FCBlocks)
	s.JournalInum.Set(uint32(ondisk.JournalIno))
	s.JnlBackupType[0] = 1
	for i := range 15 {
		s.JnlBlocks[i].Set(binary.LittleEndian.Uint32(r.Base().Block[4*i:]))
	}
	s.JnlBlocks[15].Set(r.Base().SizeHi.Get())
	s.JnlBlocks[16].Set(r.Base().SizeLo.Get())
	f.step(StageJournalDone, n, n)
	return nil
}

// journalGoal is where the journal goes: in the middle, in that of two or three
// groups there which has most room.
func (f *formatter) journalGoal() uint64 {
	if f.opts.JournalAt != 0 {
		return f.opts.JournalAt
	}
	if f.opts.PackedMeta {
		return f.first
	}
	n := f.groupOf((f.blocks-f.first)/2 + 0)
	if (f.blocks-f.first)/2 < f.first {
		n = 0
	}
	free := func(n uint32) uint64 {
		lo, hi := f.groupFirst(n), f.groupEnd(n)
		return ceilDiv(hi-lo, f.ratio) - f.space.usedClusters(lo, hi, f.ratio)
	}
	start := n
	if flex := max(f.flex, 1); f.flex != 0 && n > flex {
		n &^= flex - 1
		for n < f.groups && free(n) == 0 {
			n++
		}
		if n == f.groups {
			n = 0
		}
		start = n
	} else if n > 0 {
		start = n - 1
	}
	end := min(n+1, f.groups-1)
	best := start
	for i := start + 1; i <= end; i++ {
		if free(i) > free(best) {
			best = i
		}
	}
	return f.groupFirst(best)
}

// fillFile gives a file n blocks, in as long runs as there are from goal on, and
// zeros them if zero is set. It returns the first.
func (f *formatter) fillFile(ino ondisk.Ino, r ondisk.RawInode, goal, n uint64, zero bool) (uint64, error) {
	if !f.sb.HasIncompat(ondisk.IncompatExtents) {
		return f.fillIndirect(ino, r, n, zero)
	}
	var ms []mapped
	for done := uint64(0); done < n; {
		b, have, err := f.newRange(goal, min(n-done, ondisk.MaxExtentLen))
		if err != nil {
			return 0, err
		}
		f.take(b, have)
		ms = append(ms, mapped{done, b, have})
		done += have
		goal = b + have
	}
	if zero {
		for _, m := range ms {
			f.zeroLater(m.pblk, m.n)
		}
	}
	return ms[0].pblk, f.setMap(ino, r, ms, 0)
}

// newRange returns the first free run from goal on, cut to n blocks.
func (f *formatter) newRange(goal, n uint64) (b, have uint64, err error) {
	if goal < f.first || goal >= f.blocks {
		goal = f.first
	}
	b, ok := f.space.nextFree(goal, f.blocks)
	if !ok {
		if b, ok = f.space.nextFree(f.first, goal); !ok {
			return 0, 0, errFull
		}
	}
	have = min(n, f.blocks-b)
	if lo, _, used := f.space.nextUsed(b, b+have); used {
		have = min(have, lo-b)
	}
	return b, have, nil
}

func (f *formatter) take(b, n uint64) {
	f.space.mark(b, n)
	f.touch(b, n)
}

// fillIndirect is fillFile for files that are mapped by block pointers. Blocks
// of pointers lie in front of what they map.
func (f *formatter) fillIndirect(ino ondisk.Ino, r ondisk.RawInode, n uint64, zero bool) (first uint64, err error) {
	per := uint64(f.blockSize / 4)
	goal := f.goal(ino)
	blocks := uint64(0)
	next := func() (uint32, error) {
		b, err := f.newBlock(goal)
		goal = b + 1
		blocks++
		return uint32(b), err
	}
	left := n
	var runs []zeroRange
	// fill maps up to span blocks below the pointer at p; depth 0 is data.
	var fill func(p []byte, depth int) error
	fill = func(p []byte, depth int) error {
		if left == 0 {
			return nil
		}
		b, err := next()
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(p, b)
		if depth == 0 {
			left--
			if first == 0 {
				first = uint64(b)
			}
			if k := len(runs) - 1; k >= 0 && runs[k].b+runs[k].n == uint64(b) {
				runs[k].n++
			} else {
				runs = append(runs, zeroRange{uint64(b), 1})
			}
			return nil
		}
		block := f.block(uint64(b))
		for i := range per {
			if err := fill(block[4*i:], depth-1); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range 15 {
		if err := fill(r.Base().Block[4*i:], max(i-11, 0)); err != nil {
			return 0, err
		}
	}
	if zero {
		f.zeros = append(f.zeros, runs...)
	}
	r.SetBlocks(blocks * uint64(f.blockSize/512))
	return first, nil
}

// makeJournalDevice makes dev an external journal.
func (f *formatter) makeJournalDevice() error {
	n := f.blocks
	if n < MinJournalBlocks {
		return fmt.Errorf("a journal device of %d blocks: it must have %d or more: %w", n, MinJournalBlocks, ErrTooSmall)
	}
	if n > 1<<32-1 {
		return fmt.Errorf("a journal device of %d blocks: %w", n, errSize)
	}
	s := f.sb
	s.FeatureCompat.Set(0)
	s.FeatureIncompat.Set(ondisk.IncompatJournalDev)
	s.FeatureROCompat.Set(s.FeatureROCompat.Get() & ondisk.ROCompatMetadataCsum)
	s.Flags.Set(s.Flags.Get() &^ (ondisk.SuperFlagSignedHash | ondisk.SuperFlagUnsignedHash))
	s.BlocksPerGroup.Set(uint32(min(f.blockSize*8, 1<<16-8)))
	s.ClustersPerGroup.Set(s.BlocksPerGroup.Get())
	f.zeroLater(f.journalBlock(), n-f.journalBlock())
	f.pending[f.journalBlock()] = f.journalSuper(uint32(n), 0)
	f.step(StageJournal, 0, n)
	if err := f.flush(); err != nil {
		return err
	}
	f.step(StageJournal, n, n)
	return f.writePrimary()
}
