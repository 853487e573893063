package fsck

import (
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// badBlocksInode checks the list of bad blocks, which is the map of inode 1,
// and what lies on them.
func (c *checker) badBlocksInode() {
	c.badList = map[ondisk.Fsblk]bool{}
	c.findBad()
	r, err := c.inode(ondisk.BadIno)
	if err != nil {
		return
	}
	b := r.Base()
	p := at(ondisk.BadIno)
	x := &inodeState{ino: ondisk.BadIno, r: r, lastBlock: -1, lastInit: -1, lastDB: -1}
	x.badCsum = c.hasCsum && nonzero(r) && r.VerifyCsum(c.seed, ondisk.BadIno) != nil
	if b.Flags.Get()&ondisk.FlagEAInode != 0 && b.Mode.Get()&ondisk.ModeFmt != ondisk.ModeReg && c.fix(P1EAInodeNonreg, p) {
		b.Flags.Set(b.Flags.Get() &^ ondisk.FlagEAInode)
		x.write(c)
	}
	if b.Flags.Get()&ondisk.FlagExtents != 0 && !c.hasExtents && c.fix(P1ExtentsSet, p) {
		clear(r)
		x.write(c)
	}
	if m := b.Mode.Get(); (m != 0 && m&ondisk.ModeFmt != ondisk.ModeReg || b.Flags.Get()&(ondisk.FlagExtents|ondisk.FlagInlineData|ondisk.FlagIndex) != 0 || b.FileACLLo.Get() != 0) && nonzero(b.Block[:]) {
		if c.fix(P1BadBlocksBad, p) {
			clear(r)
			x.write(c)
		}
		return
	}
	ptr := endian.Views[endian.LE32](b.Block[:], 15)
	for i := range ptr {
		if c.badPointer(x, &ptr[i], max(i-11, 0)) {
			x.dirty = true
		}
	}
	c.endLatch(latchBBlock)
	if x.dirty {
		x.write(c)
	}
	if c.badMap && !c.fix(P1BBBadMetaAdvice, p) {
		c.abort(ErrAborted)
	}
	if table := c.desc(0).InodeTable(); c.badList[table] && !c.badIT[0] {
		if c.fix(P1BBInBB, p) {
			clear(r)
			x.write(c)
			c.abort(errRestart)
		}
		delete(c.badList, table) // or nothing could be read
	}
	c.onlyCsum(x)
	c.mergeBad()
	for blk := range c.badList {
		c.res.BadBlocks++
		c.claim(blk)
	}
	c.inodesOnBad()
}

// badPointer checks a pointer of the bad blocks inode; the same way as pointer does.
func (c *checker) badPointer(x *inodeState, v *endian.LE32, level int) bool {
	blk := ondisk.Fsblk(v.Get())
	if blk == 0 {
		return false
	}
	p := at(0)
	p.Blk = blk
	if x.visited++; x.visited > uint64(c.blocks) {
		return false
	}
	if !c.valid(blk, 1) {
		if c.fix(P1BBIllegalBlockNum, p) {
			v.Set(0)
			return true
		}
		return false
	}
	if level > 0 {
		code := Code(0)
		switch {
		case c.meta.test(uint64(blk)):
			code = P1BBFSMeta
		case c.badList[blk]:
			code = P1BBBadMetablock
		}
		if code != 0 {
			c.badMap = true
			if c.fix(code, p) {
				v.Set(0)
				return true
			}
			return false
		}
		data, err := c.block(blk)
		if err != nil {
			return false
		}
		sub := endian.Views[endian.LE32](data, len(data)/4)
		changed := false
		for i := range sub {
			changed = c.badPointer(x, &sub[i], level-1) || changed
		}
		if changed {
			c.write(blk, data)
		}
		c.claim(blk)
		c.badMeta = append(c.badMeta, blk)
		x.clusters++
		return false
	}
	return c.badBlock(blk, p, v)
}

// badBlock deals with what lies on a bad block.
func (c *checker) badBlock(blk ondisk.Fsblk, p Problem, v *endian.LE32) bool {
	if !c.meta.test(uint64(blk)) {
		c.badList[blk] = true
		return false
	}
	off := func(code Code) bool {
		c.tell(code, p)
		c.tell(P1BBFSBlock, at(0))
		if c.fix(P1BBBadMetaPrompt, p) {
			v.Set(0)
			return true
		}
		return false
	}
	g := c.groupOf(blk)
	super, desc, n := c.groupSuper(g)
	if super && blk == c.groupFirst(g) {
		if g == 0 {
			return off(P1BadPrimarySuper)
		}
		c.tell(P1BadSuper, p)
		return false
	}
	if blk >= desc && uint64(blk-desc) < n {
		if g == 0 {
			return off(P1BadPrimaryGDT)
		}
		c.tell(P1BadGDT, p)
		return false
	}
	for g := range c.groups {
		d := c.desc(g)
		q := p
		q.Group = int64(g)
		switch {
		case d.BlockBitmap() == blk:
			if c.fix(P1BBBadBlock, q) {
				c.badBB[g] = true
			}
		case d.InodeBitmap() == blk:
			if c.fix(P1IBBadBlock, q) {
				c.badIB[g] = true
			}
		default:
			continue
		}
		return false
	}
	c.badList[blk] = true
	return false
}

// inodesOnBad marks the inodes whose place in a table is bad.
func (c *checker) inodesOnBad() {
	per := uint32(c.blockSize / c.inodeSize)
	for g := range c.groups {
		if len(c.badList) == 0 {
			return
		}
		t := c.desc(g).InodeTable()
		for i := range c.itableBlocks {
			if !c.badList[t+ondisk.Fsblk(i)] || c.badIT[g] {
				continue
			}
			first := uint64(g)*uint64(c.inodesPerGroup) + uint64(i*per) + 1
			c.inodeBB.setRange(first, uint64(per))
			c.inodeUsed.setRange(first, uint64(per))
			delete(c.badList, t+ondisk.Fsblk(i))
			c.res.BadBlocks++
		}
	}
}
