package fsck

import "github.com/e2kit/e2kit/lib/ext2fs/ondisk"

// relocate places bitmaps and inode tables anew that lie where they cannot.
func (c *checker) relocate() {
	if !c.canWrite() {
		return
	}
	for g := range c.groups {
		if len(c.badBB)+len(c.badIB)+len(c.badIT) == 0 {
			return
		}
		d := c.desc(g)
		if c.badBB[g] {
			if b, ok := c.placeAnew(g, d.BlockBitmap(), 1, "block bitmap"); ok {
				d.SetBlockBitmap(b)
				d.SetFlags(0, ondisk.BGBlockUninit)
				c.thawed[g] = true
				c.sealDesc(g)
				c.setSuper()
				delete(c.badBB, g)
			}
		}
		if c.badIB[g] {
			if b, ok := c.placeAnew(g, d.InodeBitmap(), 1, "inode bitmap"); ok {
				d.SetInodeBitmap(b)
				d.SetFlags(0, ondisk.BGInodeUninit)
				c.thawed[g] = true
				c.sealDesc(g)
				c.setSuper()
				delete(c.badIB, g)
			}
		}
		if c.badIT[g] {
			b, ok := c.placeAnew(g, d.InodeTable(), uint64(c.itableBlocks), "inode table")
			if !ok {
				c.failf("group %d has no room for its inode table", g)
			}
			d.SetInodeTable(b)
			d.SetFlags(0, ondisk.BGInodeUninit)
			c.thawed[g] = true
			c.sealDesc(g)
			c.setSuper()
			delete(c.badIT, g)
			c.restart = true
		}
	}
}

// placeAnew finds n free blocks for metadata of group g and copies there what is
// at from, if that is a place at all; otherwise they are zeroed.
func (c *checker) placeAnew(g ondisk.Group, from ondisk.Fsblk, n uint64, what string) (ondisk.Fsblk, bool) {
	lo, hi := c.cluster(c.groupFirst(g)), c.cluster(c.groupLast(g))+1
	need := (n + c.clusterRatio - 1) >> c.clusterBits
	var b ondisk.Fsblk
	ok := false
	if c.hasFlexBG {
		size := ondisk.Group(1) << c.sb.LogGroupsPerFlex[0]
		flex := g - g%size
		last := min(flex+size, c.groups) - 1
		if b, ok = c.allocRunIn(c.cluster(c.groupFirst(flex)), c.cluster(c.groupLast(last))+1, need); !ok {
			b, ok = c.allocRun(need)
		}
	} else {
		b, ok = c.allocRunIn(lo, hi, need)
	}
	p := at(0)
	p.Group, p.Text = int64(g), what
	if !ok {
		c.tell(P1RelocNoSpace, p)
		c.invalid = true
		return 0, false
	}
	p.Blk = b
	if c.valid(from, n) {
		p.Num, p.Want, p.Vals = uint64(from), uint64(b), true
		c.tell(P1RelocFromTo, p)
		buf := make([]byte, c.blockSize)
		for i := range n {
			if err := c.read(from+ondisk.Fsblk(i), buf); err != nil {
				c.tell(P1RelocReadErr, p)
				clear(buf)
			}
			c.write(b+ondisk.Fsblk(i), buf)
		}
	} else {
		c.tell(P1RelocTo, p)
		c.markDirty()
		if err := c.dev.ZeroOut(int64(b)<<c.blockBits, int64(n)<<c.blockBits); err != nil {
			c.abort(err)
		}
	}
	c.sync()
	c.meta.setRange(uint64(b), n)
	return b, true
}

// fullBitmaps tells whether blocks are claimed more than once.
func (c *checker) fullBitmaps() bool { return c.dup.next(0, c.clusters) < c.clusters }
