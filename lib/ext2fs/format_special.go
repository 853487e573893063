package ext2fs

import (
	"encoding/binary"
	"fmt"
	"slices"
	"syscall"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// markBadBlocks marks the blocks used that the device has lost. The first
// superblock and descriptors cannot lie elsewhere; backups can be missing.
func (f *formatter) markBadBlocks() error {
	bad := f.opts.BadBlocks
	slices.Sort(bad)
	bad = slices.Compact(bad)
	f.opts.BadBlocks = bad
	base := f.base(0)
	last := base.desc + f.descBlocks - 1
	for _, b := range bad {
		if b < f.first || b >= f.blocks {
			return fmt.Errorf("bad block %d lies outside of the file system: %w", b, syscall.EINVAL)
		}
		if b >= base.super && b <= last {
			return fmt.Errorf("block %d is bad, and blocks %d to %d must be good for a file system here: %w",
				b, base.super, last, syscall.EIO)
		}
	}
	for n := range f.backupGroups {
		m := f.base(n)
		for i := range f.descBlocks + 1 {
			if _, is := slices.BinarySearch(bad, m.super+i); is {
				f.result.BadBackups = append(f.result.BadBackups, m.super+i)
			}
		}
	}
	for _, b := range bad {
		f.space.mark(b, 1)
		f.touch(b, 1)
	}
	return nil
}

// makeBadInode gives inode 1 the bad blocks, by block pointers.
func (f *formatter) makeBadInode() error {
	r := f.inode(ondisk.BadIno)
	r.SetAtime(f.now)
	r.SetMtime(f.now)
	r.SetCtime(f.now)
	bad := f.opts.BadBlocks
	if len(bad) == 0 {
		return nil
	}
	per := f.blockSize / 4
	limit := 12 + per + per*per
	if len(bad) > limit {
		return f.errorf("%d bad blocks: the list holds %d: %w", len(bad), limit, errFull)
	}
	blocks := uint64(len(bad)) // those of pointers are not counted
	goal := uint64(0)
	indirect := func(p []byte) ([]byte, error) {
		b, err := f.newBlock(goal)
		if err != nil {
			return nil, f.errorf("bad block list: %w", err)
		}
		goal = b
		binary.LittleEndian.PutUint32(p, uint32(b))
		return f.block(b), nil
	}
	put := func(p []byte, n int) {
		n = min(n, len(bad))
		for i, b := range bad[:n] {
			binary.LittleEndian.PutUint32(p[4*i:], uint32(b))
		}
		bad = bad[n:]
	}
	root := r.Base().Block[:]
	put(root, 12)
	if len(bad) > 0 {
		ind, err := indirect(root[48:])
		if err != nil {
			return err
		}
		put(ind, per)
	}
	if len(bad) > 0 {
		dind, err := indirect(root[52:])
		if err != nil {
			return err
		}
		for i := 0; len(bad) > 0; i++ {
			ind, err := indirect(dind[4*i:])
			if err != nil {
				return err
			}
			put(ind, per)
		}
	}
	r.SetSize(int64(len(f.opts.BadBlocks)) * int64(f.blockSize))
	r.SetBlocks(blocks * uint64(f.blockSize/512))
	return nil
}

// defaultMMPInterval is in seconds.
const defaultMMPInterval = 5

// makeMMP makes the block of multiple mount protection.
func (f *formatter) makeMMP() error {
	if !f.sb.HasIncompat(ondisk.IncompatMMP) {
		return nil
	}
	b, err := f.newBlock(0)
	if err != nil {
		return f.errorf("mmp block: %w", err)
	}
	interval := f.opts.MMPInterval
	if interval == 0 {
		interval = defaultMMPInterval
	}
	f.sb.MMPBlock.Set(b)
	f.sb.MMPInterval.Set(interval)
	m := endian.View[ondisk.MMP](f.block(b))
	m.Magic.Set(ondisk.MMPMagic)
	m.Seq.Set(ondisk.MMPSeqClean)
	m.Time.Set(uint64(f.opts.Time))
	copy(m.NodeName[:], f.opts.NodeName)
	copy(m.BdevName[:len(m.BdevName)-1], f.opts.DeviceName)
	m.CheckInterval.Set(interval)
	if f.csum {
		m.Seal(f.seed)
	}
	return nil
}

// makeOrphanFile makes the file that lists orphans, empty.
func (f *formatter) makeOrphanFile() error {
	if !f.sb.HasCompat(ondisk.CompatOrphanFile) {
		return nil
	}
	n := uint64(f.opts.OrphanBlocks)
	if n == 0 {
		n = min(max(f.blocks/4096, 32), 512)
	}
	n = ceilDiv(n, f.ratio) * f.ratio
	ino := f.freeIno()
	r := f.newInode(ino, ondisk.ModeReg|0o600, 1)
	r.SetSize(int64(n) * int64(f.blockSize))
	var ms []mapped
	var err error
	if f.sb.HasIncompat(ondisk.IncompatExtents) {
		if ms, err = f.fileBlocks(f.goal(ino), n); err == nil {
			err = f.setMap(ino, r, ms, 0)
		}
	} else {
		before := len(f.zeros)
		_, err = f.fillIndirect(ino, r, n, true)
		for _, z := range f.zeros[before:] {
			ms = append(ms, mapped{0, z.b, z.n})
		}
		f.zeros = f.zeros[:before]
	}
	if err != nil {
		return f.errorf("orphan file of %d blocks: %w", n, err)
	}
	for _, m := range ms {
		for i := range m.n {
			b := f.block(m.pblk + i)
			binary.LittleEndian.PutUint32(b[len(b)-ondisk.OrphanTailSize:], ondisk.OrphanMagic)
			if f.csum {
				ondisk.SealOrphanBlock(b, ondisk.InodeSeed(f.seed, ino, 0), ondisk.Fsblk(m.pblk+i))
			}
		}
	}
	f.sb.OrphanFileInum.Set(uint32(ino))
	return nil
}
