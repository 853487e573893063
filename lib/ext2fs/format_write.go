package ext2fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

var (
	errSize = fmt.Errorf("%w", syscall.EINVAL)
	errFull = fmt.Errorf("no free blocks: %w", syscall.ENOSPC)
)

// bsdDiskMagic starts a BSD disk label, which is left in place.
const bsdDiskMagic = 0x82564557

// prepare takes the old file system away, so that nobody takes what is under
// way for one, and discards the device.
func (f *formatter) prepare() error {
	if f.opts.SuperOnly {
		return nil
	}
	// As far as other signatures of a superblock's kind lie.
	const head = 4096
	if _, err := f.dev.WriteAt(make([]byte, head-ondisk.SuperOffset), ondisk.SuperOffset); err != nil {
		return err
	}
	if err := f.dev.Sync(); err != nil {
		return err
	}
	f.zeroed = f.opts.AssumeZeroed
	size := int64(f.blocks) * int64(f.blockSize)
	if f.opts.Discard && !f.sb.HasIncompat(ondisk.IncompatJournalDev) {
		f.step(StageDiscard, 0, f.blocks)
		head := int64(0)
		if f.keepBoot() {
			head = 4096
		}
		if err := f.dev.Discard(head, size-head); err == nil {
			f.zeroed = f.zeroed || blockdev.InfoOf(f.dev).ZeroAfterDiscard
		} else if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EOPNOTSUPP) {
			return err
		}
		f.step(StageDiscard, f.blocks, f.blocks)
	}
	f.result.Zeroed = f.zeroed
	if !f.keepBoot() {
		if err := f.zero(0, ondisk.SuperOffset); err != nil {
			return err
		}
	}
	return nil
}

// keepBoot says whether what lies before the superblock stays.
func (f *formatter) keepBoot() bool {
	if f.opts.KeepBootBlock {
		return true
	}
	var b [512]byte
	for _, off := range []int64{0, 512} {
		if _, err := f.dev.ReadAt(b[:], off); err == nil && binary.LittleEndian.Uint32(b[:]) == bsdDiskMagic {
			return true
		}
	}
	return false
}

// zero makes a range of bytes read as zeros, without a write if it does.
func (f *formatter) zero(off, n int64) error {
	if f.zeroed {
		return nil
	}
	return f.dev.ZeroOut(off, n)
}

// flush zeros what has to be, and writes the blocks in memory, in order.
func (f *formatter) flush() error {
	bs := int64(f.blockSize)
	for _, z := range f.zeros {
		if err := f.zero(int64(z.b)*bs, int64(z.n)*bs); err != nil {
			return err
		}
	}
	blocks := make([]uint64, 0, len(f.pending))
	for b := range f.pending {
		blocks = append(blocks, b)
	}
	slices.Sort(blocks)
	const most = 256 // blocks in a request
	for len(blocks) > 0 {
		n := 1
		for n < len(blocks) && n < most && blocks[n] == blocks[0]+uint64(n) {
			n++
		}
		bufs := make([][]byte, 0, n)
		for _, b := range blocks[:n] {
			bufs = append(bufs, f.pending[b])
		}
		if err := f.put(bufs, int64(blocks[0])*bs); err != nil {
			return err
		}
		blocks = blocks[n:]
	}
	return nil
}

// put writes blocks, without those at either end that are zeros where the
// device is.
func (f *formatter) put(bufs [][]byte, off int64) error {
	if f.zeroed {
		for len(bufs) > 0 && isZero(bufs[0]) {
			off += int64(len(bufs[0]))
			bufs = bufs[1:]
		}
		for len(bufs) > 0 && isZero(bufs[len(bufs)-1]) {
			bufs = bufs[:len(bufs)-1]
		}
	}
	if len(bufs) == 0 {
		return nil
	}
	n, err := blockdev.WritevAt(f.dev, bufs, off)
	f.written += uint64(n)
	return err
}

// putRun is put for blocks that lie side by side in memory too.
func (f *formatter) putRun(p []byte, b uint64) error {
	if f.zeroed {
		for len(p) > 0 && isZero(p[:f.blockSize]) {
			p, b = p[f.blockSize:], b+1
		}
		for len(p) > 0 && isZero(p[len(p)-f.blockSize:]) {
			p = p[:len(p)-f.blockSize]
		}
	}
	if len(p) == 0 {
		return nil
	}
	n, err := f.dev.WriteAt(p, int64(b)*int64(f.blockSize))
	f.written += uint64(n)
	return err
}

// batch returns memory for as many blocks as are written at a time. Twice as
// much costs more, in pages that are touched first, than it saves in calls.
func (f *formatter) batch() []byte {
	return blockdev.AlignedBuf(max(f.blockSize, 64<<10), 4096)
}

func isZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	return true
}

// write puts all on the device: first what the superblock leads to, group by
// group, then backups, and the superblock once that has arrived.
func (f *formatter) write() error {
	if !f.opts.SuperOnly {
		f.sealInodes()
		if err := f.flush(); err != nil {
			return err
		}
		if err := f.writeReserved(); err != nil {
			return err
		}
	}
	if err := f.writeGroups(); err != nil {
		return err
	}
	f.countWritten()
	for n := range f.backupGroups {
		if err := f.writeBackup(n); err != nil {
			return err
		}
	}
	return f.writePrimary()
}

// countWritten stores how much has been written, in file systems of the kind
// that counts it.
func (f *formatter) countWritten() {
	if f.sb.HasIncompat(ondisk.IncompatFlexBG) ||
		f.sb.HasROCompat(ondisk.ROCompatHugeFile|ondisk.ROCompatGDTCsum|ondisk.ROCompatDirNlink|ondisk.ROCompatExtraIsize) {
		f.sb.KbytesWritten.Set(1 + f.written>>10)
	}
}

func (f *formatter) sealInodes() {
	if !f.csum {
		return
	}
	for ino := range f.inodes {
		f.inode(ino).Seal(f.seed, ino)
	}
}

// lazy says whether inode tables are left as they are but for inodes in use.
func (f *formatter) lazy() bool { return f.opts.LazyItable && f.gdtCsum }

// zeroTables zeros the inode tables, whole or, if the kernel is to do that, as
// far as they are in use.
func (f *formatter) zeroTables() error {
	if f.zeroed {
		f.step(StageInodes, uint64(f.groups), uint64(f.groups))
		return nil
	}
	bs := int64(f.blockSize)
	// Tables that follow each other go in one request.
	var at, n int64
	flush := func() error {
		if n == 0 {
			return nil
		}
		err := f.dev.ZeroOut(at, n)
		n = 0
		return err
	}
	for g := range f.groups {
		count := int64(f.itable)
		if f.lazy() {
			// Those after the reserved inodes are written as whole blocks.
			before := uint64(g) * uint64(f.ipg)
			if before >= uint64(ondisk.GoodOldFirst) {
				break
			}
			used := min(uint64(ondisk.GoodOldFirst)-before, uint64(f.ipg))
			count = int64(ceilDiv(used*uint64(f.inodeSize), uint64(bs)))
		}
		b := int64(f.inodeTable.get(g)) * bs
		if n == 0 || at+n != b || n > 1<<30 {
			if err := flush(); err != nil {
				return err
			}
			at = b
		}
		n += count * bs
		if k := f.opts.SyncEvery; k > 0 && int(g)%k == k-1 {
			if err := flush(); err != nil {
				return err
			}
			if err := f.dev.Sync(); err != nil {
				return err
			}
		}
		f.step(StageInodes, uint64(g), uint64(f.groups))
	}
	f.step(StageInodes, uint64(f.groups), uint64(f.groups))
	return flush()
}

// unused returns how many inodes at the end of a group's table were never used.
func (f *formatter) unused(g uint32) uint32 {
	if !f.gdtCsum || f.opts.SuperOnly {
		return 0
	}
	last := uint32(0)
	for ino := range f.inodes {
		if uint32(ino-1)/f.ipg == g {
			last = max(last, uint32(ino-1)%f.ipg+1)
		}
	}
	return f.ipg - last
}

// writeGroups streams over the groups: their bitmaps are written as they come,
// their descriptors a block at a time, to each place that has a copy of it.
func (f *formatter) writeGroups() error {
	perBlock := uint32(f.blockSize / f.descSize)
	w := &bitmapWriter{f: f}
	const most = 256 // blocks of descriptors at a time
	n := min(most, int(f.descBlocks))
	table := blockdev.AlignedBuf(n*f.blockSize, 4096)[:0]
	start := uint64(0) // which block of descriptors table starts with
	freeBlocks, freeInodes := uint64(0), uint64(0)
	for g := range f.groups {
		if g%perBlock == 0 {
			table = table[:len(table)+f.blockSize]
			clear(table[len(table)-f.blockSize:])
		}
		off := len(table) - f.blockSize + int(g%perBlock)*f.descSize
		d := ondisk.Desc(table[off : off+f.descSize : off+f.descSize])
		if err := f.describe(g, d, w); err != nil {
			return err
		}
		freeBlocks += uint64(d.FreeBlocks())
		freeInodes += uint64(d.FreeInodes())
		if last := g == f.groups-1; last || g%perBlock == perBlock-1 && len(table) == cap(table) {
			if err := f.writeDescriptors(start, table); err != nil {
				return err
			}
			start += uint64(len(table) / f.blockSize)
			table = table[:0]
		}
		f.step(StageWrite, uint64(g), uint64(f.groups))
	}
	freeBlocks *= f.ratio
	f.sb.FreeBlocksLo.Set(uint32(freeBlocks))
	f.sb.FreeBlocksHi.Set(uint32(freeBlocks >> 32))
	f.sb.FreeInodes.Set(uint32(freeInodes))
	return w.flush()
}

// writeDescriptors writes blocks of descriptors, of which the first is number
// start, to all of their places.
func (f *formatter) writeDescriptors(start uint64, table []byte) error {
	bs := uint64(f.blockSize)
	end := start + uint64(len(table))/bs
	part := func(m baseMeta) error {
		lo, hi := max(m.descAt, start), min(m.descAt+m.nDesc, end)
		if lo >= hi {
			return nil
		}
		return f.putRun(table[(lo-start)*bs:(hi-start)*bs], m.desc+lo-m.descAt)
	}
	meta := f.sb.HasIncompat(ondisk.IncompatMetaBG)
	if oldEnd := uint64(f.sb.FirstMetaBG.Get()); !meta || start < oldEnd {
		if err := part(f.base(0)); err != nil {
			return err
		}
		for n := range f.backupGroups {
			if m := f.base(n); m.hasSuper && (!meta || m.nDesc > 0 && m.descAt == 0) {
				if err := part(m); err != nil {
					return err
				}
			}
		}
		if !meta {
			return nil
		}
	}
	perBlock := uint64(f.blockSize / f.descSize)
	for b := max(start, uint64(f.sb.FirstMetaBG.Get())); b < end; b++ {
		for _, in := range []uint64{0, 1, perBlock - 1} {
			n := b*perBlock + in
			if n >= uint64(f.groups) {
				break
			}
			if m := f.base(uint32(n)); m.descAt == b && m.nDesc > 0 {
				if err := part(m); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// writeBackup writes the copy of the superblock in group n: one that is not
// marked clean.
func (f *formatter) writeBackup(n uint32) error {
	s := *f.sb
	s.State.Set(s.State.Get() &^ ondisk.StateValid)
	s.BlockGroupNr.Set(uint16(min(n, 1<<16-1)))
	sealSuper(&s)
	_, err := f.dev.WriteAt(endian.Bytes(&s), int64(f.base(n).super)*int64(f.blockSize))
	return err
}

func (f *formatter) writePrimary() error {
	if err := f.dev.Sync(); err != nil {
		return err
	}
	sealSuper(f.sb)
	if _, err := f.dev.WriteAt(endian.Bytes(f.sb), ondisk.SuperOffset); err != nil {
		return err
	}
	return f.dev.Sync()
}
