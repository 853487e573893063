package fsck

import (
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// tooMany is how many illegal blocks an inode may have before it is asked
// whether to clear it.
const tooMany = 12

// checkBlocks checks the map of an inode, its attribute block, and its size.
func (c *checker) checkBlocks(x *inodeState) {
	b := x.r.Base()
	mode := b.Mode.Get() & ondisk.ModeFmt
	x.isDir, x.isReg = mode == ondisk.ModeDir, mode == ondisk.ModeReg
	if c.xattrBlock(x) {
		x.clusters++
	}
	inline := b.Flags.Get()&ondisk.FlagInlineData != 0
	switch {
	case inline && x.isDir:
		c.addDirBlock(x.ino, 0, 0)
	case !c.hasBlocks(x.r):
	case c.hasExtents && b.Flags.Get()&ondisk.FlagExtents != 0:
		c.checkExtents(x)
	default:
		c.checkPointers(x)
	}
	c.latch[latchBlock], c.latch[latchTooBig] = latchState{}, latchState{}
	if x.clear {
		if x.dirty {
			x.write(c)
		}
		c.clearInode(x.ino, x.r, true)
		return
	}
	if !c.inodeUsed.test(uint64(x.ino)) {
		return
	}
	if b.Flags.Get()&ondisk.FlagIndex != 0 && c.htreePass1(x) {
		b.Flags.Set(b.Flags.Get() &^ ondisk.FlagIndex)
		x.dirty = true
	}
	p := at(x.ino)
	if x.isDir && x.clusters == 0 && !inline || x.isDir && b.FileACLLo.Get() != 0 && x.clusters == 1 && x.lastDB < 0 && !inline {
		if c.fix(P1ZeroLengthDir, p) {
			c.clearInode(x.ino, x.r, false)
			c.res.Dirs--
			return
		}
	}
	if x.isDir && !inline && x.lastDB < 0 {
		c.addDirBlock(x.ino, 0, 0)
	}
	if x.fragmented && x.clusters<<c.clusterBits < c.blocksPerGroup {
		c.res.Fragmented++
		if x.isDir {
			c.res.FragmentedDirs++
		}
	}
	c.checkSize(x)
	if x.r.Size(true) > 1<<31-1 && x.isReg {
		c.largeFiles = true
		c.res.LargeFiles++
	}
	if x.isDir && x.r.Size(true) > 1<<31-1 {
		c.largeDirs = true
	}
	c.checkCount(x)
	if c.hasBigalloc && x.isReg && !inline && b.Flags.Get()&ondisk.FlagExtents == 0 && c.hasBlocks(x.r) && x.lastBlock >= 0 && x.ino >= c.firstIno {
		if c.fix(P1NoBigallocBlockmap, p) {
			c.rebuild = append(c.rebuild, x.ino)
		}
	} else if c.opts.BmapToExtents && c.hasExtents && (x.isReg || x.isDir) && !inline && b.Flags.Get()&ondisk.FlagExtents == 0 && x.ino >= c.firstIno {
		c.rebuild = append(c.rebuild, x.ino)
	}
	if x.isDir && !inline && !c.opts.FixesOnly && c.sb.HasCompat(ondisk.CompatDirIndex) &&
		b.Flags.Get()&(ondisk.FlagIndex|ondisk.FlagCasefold) == 0 && x.r.Size(true)>>c.blockBits >= 3 {
		c.leave()
		c.toIndex = append(c.toIndex, x.ino)
	}
	if x.dirty {
		x.write(c)
	}
}

// checkSize checks i_size against the map.
func (c *checker) checkSize(x *inodeState) {
	b := x.r.Base()
	size := uint64(x.r.Size(true))
	bs := uint64(c.blockSize)
	var want uint64
	bad := false
	inline := b.Flags.Get()&ondisk.FlagInlineData != 0
	switch {
	case x.isDir && inline:
		if x.hasInline && size != uint64(x.inlineSize) {
			bad, want = true, uint64(x.inlineSize)
		}
	case x.isDir:
		have := uint64(x.lastBlock + 1)
		n := size / bs
		switch {
		case size%bs != 0, n > have:
			bad = true
		case n < have:
			bad = have-n > uint64(c.sb.PreallocDirBlocks[0])
		}
		want = have * bs
	case inline:
		if x.hasInline && size > uint64(x.inlineSize) || x.hasInline && !x.isReg && size != uint64(x.inlineSize) && b.Mode.Get()&ondisk.ModeFmt != ondisk.ModeLnk {
			bad, want = true, uint64(x.inlineSize)
		}
	default:
		if x.isReg && b.Flags.Get()&ondisk.FlagExtents == 0 {
			size = uint64(x.r.Size(false))
		}
		want = uint64(x.lastInit+1) * bs
		switch {
		case x.lastInit >= 0 && size < uint64(x.lastInit)*bs:
			bad = b.Flags.Get()&ondisk.FlagVerity == 0
		case b.Flags.Get()&ondisk.FlagExtents == 0 && size > c.maxIndirect():
			bad = true
		case b.Flags.Get()&ondisk.FlagExtents != 0 && size > bs<<32-1:
			bad = true
		}
	}
	if !bad || !x.isDir && !x.isReg {
		return
	}
	p := at(x.ino)
	p.Num, p.Want, p.Vals = size, want, true
	if c.fix(P1BadISize, p) {
		x.r.SetSize(int64(want))
		if s := c.sb; x.isReg && want > 1<<31-1 && !s.HasROCompat(ondisk.ROCompatLargeFile) {
			// With the size comes the feature.
			s.FeatureROCompat.Set(s.FeatureROCompat.Get() | ondisk.ROCompatLargeFile)
			if s.RevLevel.Get() < ondisk.DynamicRev {
				c.dynamicRev()
			}
			c.setSuper()
			c.features()
		}
		if x.isDir && !c.hasLargeDir {
			b.SizeHi.Set(0)
		}
		x.dirty = true
	}
}

// maxIndirect returns the largest size of a file that is mapped by pointers.
func (c *checker) maxIndirect() uint64 {
	per := uint64(c.blockSize / 4)
	n := min(12+per+per*per+per*per*per, 1<<32)
	return n << c.blockBits
}

// checkCount checks i_blocks.
func (c *checker) checkCount(x *inodeState) {
	b := x.r.Base()
	want := c.blocksUnit(x.r, x.clusters)
	if c.sb.CreatorOS.Get() == ondisk.OSHurd {
		return
	}
	have := x.r.Blocks(c.hasHugeFile)
	if have == want {
		return
	}
	p := at(x.ino)
	p.Num, p.Want, p.Vals = have, want, true
	if c.fix(P1BadIBlocks, p) {
		b.BlocksLo.Set(uint32(want))
		b.BlocksHi.Set(uint16(want >> 32))
		x.dirty = true
	}
}

// checkPointers checks a map of pointers.
func (c *checker) checkPointers(x *inodeState) {
	b := x.r.Base()
	ptr := endian.Views[endian.LE32](b.Block[:], 15)
	if x.ino >= c.firstIno {
		for i, n := range []*uint64{&c.res.Ind, &c.res.Dind, &c.res.Tind} {
			if ptr[12+i].Get() != 0 {
				*n++
			}
		}
	}
	next := uint64(0)
	for i := range ptr {
		if x.clear {
			return
		}
		if c.pointer(x, &ptr[i], max(i-11, 0), &next, false) {
			x.dirty = true
		}
	}
}

// pointer checks a pointer, and what it leads to if level is not 0; next is the
// first block of the file that it maps. It returns whether it changed the pointer.
// quiet: the block that holds it is part of the file system itself, so
// that it is not to be repaired.
func (c *checker) pointer(x *inodeState, v *endian.LE32, level int, next *uint64, quiet bool) bool {
	span := uint64(1)
	for range level {
		span *= uint64(c.blockSize / 4)
	}
	first := *next
	*next += span
	blk := ondisk.Fsblk(v.Get())
	if blk == 0 {
		return false
	}
	if x.visited++; x.visited > 2*uint64(c.blocks)+4096 {
		x.clear = x.clear || c.fix(P1TooManyBadBlocks, at(x.ino))
		if !x.clear {
			x.visited = 0
			*next = 1 << 62
		}
		return false
	}
	p := at(x.ino)
	p.Blk = blk
	if level == 0 {
		p.Lblk = int64(first)
	}
	var code Code
	switch dirMost := uint64(1) << (21 - (c.blockBits - 10)); {
	case !c.valid(blk, 1):
		code = P1IllegalBlockNum
	case level == 0 && x.isDir && first > dirMost && !c.hasLargeDir:
		code = P1TooBigDir
	case level == 0 && x.isReg && first > c.maxIndirect()>>c.blockBits:
		code = P1TooBigReg
	case level == 0 && !x.isDir && !x.isReg && x.ino >= c.firstIno && first > 0:
		code = P1TooBigSymlink
	}
	if code != 0 {
		if quiet {
			return false
		}
		return c.illegal(x, code, p, v)
	}
	switch {
	case x.ino == ondisk.ResizeIno:
		// Its blocks are those of descriptors to come, but for this one.
		if level == 2 {
			c.claim(blk)
			x.clusters++
			c.resizeBlocks(x, blk)
		}
		return false
	case c.clusterBits > 0 && level == 0 && x.prev != 0 && c.cluster(blk) == c.cluster(x.prev):
	default:
		c.claim(blk)
		x.clusters++
	}
	if x.prev != 0 && x.prev+1 != blk {
		x.fragmented = true
		c.fragment(x, blk, first, 1, false)
	}
	x.prev = blk
	if level == 0 {
		x.lastBlock = int64(first)
		x.lastInit = int64(first)
		if x.isDir {
			c.dirBlocks(x, blk, first, 1)
		}
		return false
	}
	if c.meta.test(uint64(blk)) {
		q := p
		q.Blk = blk
		c.tell(P1CriticalMetadata, q)
		quiet = true
	}
	data, err := c.block(blk)
	if err != nil {
		q := p
		q.Text = err.Error()
		c.tell(P1BlockIterate, q)
		c.invalid = true
		return false
	}
	changed := false
	sub := endian.Views[endian.LE32](data, len(data)/4)
	lblk := first
	for i := range sub {
		if x.clear {
			break
		}
		if c.pointer(x, &sub[i], level-1, &lblk, quiet) {
			changed = true
		}
	}
	if changed && !quiet {
		c.write(blk, data)
	}
	return false
}

// fragment tells of a place where a file does not go on behind what comes before.
func (c *checker) fragment(x *inodeState, blk ondisk.Fsblk, lblk, n uint64, extent bool) {
	if c.opts.Fragment != nil {
		c.leave()
		c.opts.Fragment(Fragment{x.ino, x.isDir, x.isReg, x.prev + 1, blk, lblk, n, extent})
	}
}

// illegal deals with a pointer to where no block of the inode can be.
func (c *checker) illegal(x *inodeState, code Code, p Problem, v *endian.LE32) bool {
	x.illegal++
	if !x.suppress && x.illegal%tooMany == 0 {
		if c.fix(P1TooManyBadBlocks, at(x.ino)) {
			x.clear = true
			return false
		}
		if c.fix(P1SuppressMessages, at(x.ino)) {
			x.suppress = true
			c.latch[latchBlock].suppress = true
		}
	}
	if !c.fix(code, p) {
		return false
	}
	v.Set(0)
	return true
}

// resizeBlocks counts the blocks below the double indirect block of the resize
// inode, which hold descriptors to come and are claimed with them.
func (c *checker) resizeBlocks(x *inodeState, dind ondisk.Fsblk) {
	data, err := c.block(dind)
	if err != nil {
		return
	}
	sub := make([]byte, c.blockSize)
	per := int64(c.blockSize / 4)
	last := int64(-1)
	for k, v := range endian.Views[endian.LE32](data, len(data)/4) {
		b := ondisk.Fsblk(v.Get())
		if b == 0 || !c.valid(b, 1) {
			continue
		}
		x.clusters++
		if c.read(b, sub) != nil {
			continue
		}
		for j, w := range endian.Views[endian.LE32](sub, len(sub)/4) {
			if w.Get() != 0 {
				x.clusters++
				last = 12 + per + int64(k)*per + int64(j)
			}
		}
	}
	x.lastBlock, x.lastInit = last, last
}

// mostHoles returns how many holes directories may have in all.
func (c *checker) mostHoles() uint64 { return 2*uint64(c.blocks) + 1<<16 }

// dirBlocks notes n blocks of a directory, and those that are missing before.
func (c *checker) dirBlocks(x *inodeState, blk ondisk.Fsblk, lblk, n uint64) {
	for x.lastDB++; x.lastDB < int64(lblk); x.lastDB++ {
		// Directories of nothing but holes must not take memory without end.
		if c.holes++; c.holes > c.mostHoles() {
			c.invalid = true
			break
		}
		c.addDirBlock(x.ino, 0, uint64(x.lastDB))
	}
	for i := range n {
		c.addDirBlock(x.ino, blk+ondisk.Fsblk(i), lblk+i)
	}
	x.lastDB = int64(lblk + n - 1)
}
