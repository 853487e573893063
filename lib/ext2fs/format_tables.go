package ext2fs

// tables are where the bitmaps and the inode table of each group lie.
type tables struct {
	blockBitmap, inodeBitmap, inodeTable progression
	touched                              *spaceMap // groups, as blocks, with bits of others' metadata in their bitmap
	lastTouched                          uint32    // plus 1; 0: none yet
}

// reserveBase marks the copies of the superblock and of descriptors used.
func (f *formatter) reserveBase() {
	g := f.geometry
	for n := range g.groups {
		m := g.base(n)
		if n == 0 && g.blockSize == 1024 && g.ratio > 1 {
			f.space.mark(0, 1)
		}
		if m.hasSuper {
			f.space.mark(m.super, 1)
		}
		if c := m.nDesc + m.reserved; c > 0 {
			f.space.mark(m.desc, c)
		}
	}
}

// placeTables finds room for the bitmaps and the inode table of each group: in
// the group, or in those of its flex group.
func (f *formatter) placeTables() error {
	if f.opts.PackedMeta && f.flex != 0 {
		return f.packTables()
	}
	g := f.geometry
	for n := range g.groups {
		var err error
		if g.flex != 0 {
			err = f.placeFlex(n)
		} else {
			err = f.placeGroup(n)
		}
		if err != nil {
			return f.errorf("block group %d: no room for its bitmaps and inode table (%d blocks): %w", n, 2+g.itable, err)
		}
		f.step(StageTables, uint64(n), uint64(g.groups))
	}
	return nil
}

// find is findRun with the fallback of all that group n has.
func (f *formatter) find(n uint32, start, last, count uint64) (uint64, error) {
	if b, ok := f.space.findRun(start, last, count); ok {
		return b, nil
	}
	if b, ok := f.space.findRun(f.groupFirst(n), last, count); ok {
		return b, nil
	}
	return 0, errFull
}

// placeGroup places the tables of group n within it. A stride spreads the
// bitmaps of the groups over the disks of an array.
func (f *formatter) placeGroup(n uint32) error {
	first, last := f.groupFirst(n), f.groupEnd(n)-1
	start := first
	if stride := uint64(f.opts.Stride); stride != 0 {
		b, ok := f.space.findRun(first, last, 1)
		if !ok {
			return errFull
		}
		start = b + uint64(f.itable)
		// The sum is one of 32 bits in mke2fs.
		start += uint64(uint32(stride)*n) % (last - start + 1)
		if start >= last {
			start = first
		}
	}
	b, err := f.find(n, start, last, 1)
	if err != nil {
		return err
	}
	f.space.mark(b, 1)
	f.blockBitmap.append(b)
	if b, err = f.find(n, start, last, 1); err != nil {
		return err
	}
	f.space.mark(b, 1)
	f.inodeBitmap.append(b)
	b, ok := f.space.findRun(first, last, uint64(f.itable))
	if !ok {
		return errFull
	}
	f.space.mark(b, uint64(f.itable))
	f.inodeTable.append(b)
	return nil
}

// placeFlex places the tables of group n in its flex group: all block bitmaps
// side by side, then all inode bitmaps, then the inode tables.
func (f *formatter) placeFlex(n uint32) error {
	in := n & (f.flex - 1)
	lastGroup := min(n|(f.flex-1), f.groups-1)
	left := uint64(lastGroup - n + 1)
	offset := uint64(f.flex)
	if in == 0 && lastGroup == f.groups-1 && left > 1 {
		offset = left
	}
	last := f.blocks - 1
	put := func(p *progression, prev, count uint64) error {
		b, err := f.find(n, f.flexStart(n, lastGroup, prev, left, count), last, count)
		if err != nil {
			return err
		}
		f.space.mark(b, count)
		f.touch(b, count)
		p.append(b)
		return nil
	}
	prev := func(p *progression, count uint64, first uint64) uint64 {
		if in != 0 {
			return p.get(n-1) + count
		}
		return first
	}
	if err := put(&f.blockBitmap, prev(&f.blockBitmap, 1, 0), 1); err != nil {
		return err
	}
	if err := put(&f.inodeBitmap, prev(&f.inodeBitmap, 1, f.blockBitmap.get(n)+offset), 1); err != nil {
		return err
	}
	itable := uint64(f.itable)
	return put(&f.inodeTable, prev(&f.inodeTable, itable, f.inodeBitmap.get(n)+offset), itable)
}

// flexStart returns where to look for count blocks: at prev if they are free,
// else at the start of the flex group where all that its groups have left to
// place fits, or at least count.
func (f *formatter) flexStart(n, lastGroup uint32, prev, left, count uint64) uint64 {
	if prev != 0 && prev+count <= f.blocks && f.space.free(prev, count) {
		return prev
	}
	start := f.groupFirst(n &^ (f.flex - 1))
	last := f.groupEnd(lastGroup) - 1
	size := min(left*count, f.bpg/4)
	for _, c := range []uint64{size, count} {
		if b, ok := f.space.findRun(start, last, c); ok {
			return b
		}
	}
	b, _ := f.space.findRun(0, last, count)
	return b
}

// packTables places all block bitmaps, then all inode bitmaps, then all inode
// tables from the start of the device on.
func (f *formatter) packTables() error {
	goal := uint64(0)
	for _, p := range []*progression{&f.blockBitmap, &f.inodeBitmap} {
		for range f.groups {
			b, err := f.newBlock(goal)
			if err != nil {
				return f.errorf("packed bitmaps: %w", err)
			}
			goal = b
			p.append(b)
		}
	}
	for n := range f.groups {
		b, ok := f.space.findRun(goal, f.blocks-1, uint64(f.itable))
		if !ok {
			return f.errorf("packed inode tables: %w", errFull)
		}
		goal = b
		f.space.mark(b, uint64(f.itable))
		f.touch(b, uint64(f.itable))
		f.inodeTable.append(b)
		f.step(StageTables, uint64(n), uint64(f.groups))
	}
	return nil
}

// touch notes that the block bitmaps over n blocks from b on have to be written.
func (f *formatter) touch(b, n uint64) {
	lo, hi := f.groupOf(b), f.groupOf(min(b+n, f.blocks)-1)
	if lo == hi && lo+1 == f.lastTouched {
		return
	}
	f.touched.mark(uint64(lo), uint64(hi-lo)+1)
	f.lastTouched = hi + 1
}

// newBlock takes the first free block from goal on, or from the start.
func (f *formatter) newBlock(goal uint64) (uint64, error) {
	if goal < f.first || goal >= f.blocks {
		goal = f.first
	}
	b, ok := f.space.nextFree(goal, f.blocks)
	if !ok {
		b, ok = f.space.nextFree(f.first, goal)
	}
	if !ok {
		return 0, errFull
	}
	f.space.mark(b, 1)
	f.touch(b, 1)
	return b &^ (f.space.ratio - 1), nil
}
