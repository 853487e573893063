package fsck

import (
	"bytes"
	"math/bits"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// bitmapDiff is a bitmap block seen as the numbers that it covers.
type bitmapDiff struct {
	first uint64 // number of bit 0
	have  []byte // as on the device, with the changes made on purpose
	want  []byte
	n     uint64
}

// pass5 compares bitmaps and counts with what was found.
func (c *checker) pass5() {
	c.begin(P5Pass)
	gs := make([]groupBits, c.groups)
	c.readBitmaps(gs)
	for g := range gs {
		gs[g].writeI, gs[g].writeB = gs[g].freshI && c.canWrite(), gs[g].freshB && c.canWrite()
	}
	c.bitmapCsums(gs)
	c.blockBitmaps(gs)
	c.inodeBitmaps(gs)
	c.paddings(gs)
	c.writeBitmaps(gs)
}

// groupBits is what pass 5 keeps of a group.
type groupBits struct {
	sameI, sameB bool // the bitmap is as it should be
	tailI, tailB bool // padding is not set
	csumI, csumB bool // the checksum is wrong
	writeI       bool // the bitmap is to be written
	writeB       bool
	freshI       bool // it was never written: its padding is not set
	freshB       bool
	diffI, diffB bool // it differs from what was found
}

func (c *checker) groupClusters(g ondisk.Group) uint64 {
	per := c.blocksPerGroup >> c.clusterBits
	return min(per, c.clusters-uint64(g)*per)
}

// blockDiff returns the block bitmap of a group as it is on the device, and as
// it should be.
func (c *checker) blockDiff(g ondisk.Group, have, want []byte) bitmapDiff {
	per := c.blocksPerGroup >> c.clusterBits
	d := bitmapDiff{first: uint64(g) * per, n: c.groupClusters(g)}
	dsc := c.desc(g)
	bytes := (d.n + 7) / 8
	d.have, d.want = have[:bytes], want[:bytes]
	c.found.fill(d.want, d.first, d.n)
	if c.hasGDTCsum && dsc.HasFlag(ondisk.BGBlockUninit) {
		clear(d.have)
		c.ownBlocks(g, func(k uint64) {
			if k >= d.first && k < d.first+d.n {
				d.have[(k-d.first)/8] |= 1 << ((k - d.first) % 8)
			}
		})
	} else if c.badBB[g] || !c.valid(dsc.BlockBitmap(), 1) || c.read(dsc.BlockBitmap(), have) != nil {
		clear(d.have)
	}
	patch(&d, c.blockSet, c.blockClear)
	return d
}

// patch applies to what a bitmap says the changes that were made on purpose.
func patch(d *bitmapDiff, set, clr *bitmap) {
	for i := set.next(d.first, d.first+d.n); i < d.first+d.n && i < set.n; i = set.next(i+1, d.first+d.n) {
		d.have[(i-d.first)/8] |= 1 << ((i - d.first) % 8)
	}
	for i := clr.next(d.first, d.first+d.n); i < d.first+d.n && i < clr.n; i = clr.next(i+1, d.first+d.n) {
		d.have[(i-d.first)/8] &^= 1 << ((i - d.first) % 8)
	}
	// Bits after the last one mean nothing here.
	if r := d.n % 8; r != 0 {
		d.have[len(d.have)-1] &= 1<<r - 1
	}
}

// ownBlocks calls f with the clusters in group g that the file system itself
// takes, which an uninitialised bitmap stands for.
func (c *checker) ownBlocks(g ondisk.Group, f func(k uint64)) {
	first, last := c.groupFirst(g), c.groupLast(g)
	for b := c.meta.next(uint64(first), uint64(last)+1); b <= uint64(last); b = c.meta.next(b+1, uint64(last)+1) {
		f(c.cluster(ondisk.Fsblk(b)))
	}
}

func (c *checker) inodeDiff(g ondisk.Group, have, want []byte) bitmapDiff {
	d := bitmapDiff{first: uint64(g)*uint64(c.inodesPerGroup) + 1, n: uint64(c.inodesPerGroup)}
	dsc := c.desc(g)
	bytes := (d.n + 7) / 8
	d.have, d.want = have[:bytes], want[:bytes]
	c.inodeUsed.fill(d.want, d.first, d.n)
	for i := d.first; i < min(uint64(c.firstIno), d.first+d.n); i++ { // reserved: small groups share them
		d.want[(i-d.first)/8] |= 1 << ((i - d.first) % 8)
	}
	if c.hasGDTCsum && dsc.HasFlag(ondisk.BGInodeUninit) || c.badIB[g] || !c.valid(dsc.InodeBitmap(), 1) || c.read(dsc.InodeBitmap(), have) != nil {
		clear(d.have)
	}
	patch(&d, c.inodeSet, c.inodeClear)
	return d
}

// groupRun is some groups in a row.
type groupRun struct{ from, to ondisk.Group }

// readBitmaps looks at all bitmaps, and notes what is wrong with which.
func (c *checker) readBitmaps(gs []groupBits) {
	const run = 64
	next := ondisk.Group(0)
	look := func(s *checker, j *groupRun) {
		s.found = c.found
		have, want := make([]byte, c.blockSize), make([]byte, c.blockSize)
		for g := j.from; g < j.to; g++ {
			s.readGroup(g, &gs[g], have, want)
		}
	}
	l := newLine(c, func(j *groupRun) bool {
		*j = groupRun{next, min(next+run, c.groups)}
		next = j.to
		for g := j.from; g < j.to; g++ {
			c.prefetchBitmaps(g)
		}
		return j.from < j.to
	}, look)
	defer l.close()
	for {
		t, fresh := l.take()
		if t == nil {
			return
		}
		if !fresh {
			look(c, &t.job)
		}
		c.poll()
		c.opts.Asker.Progress(5, uint64(t.job.from), uint64(c.groups))
		l.put(t)
	}
}

// prefetchBitmaps has the bitmaps of a group read that are beside no others of
// groups before it.
func (c *checker) prefetchBitmaps(g ondisk.Group) {
	if g > 0 && c.desc(g-1).BlockBitmap()+1 == c.desc(g).BlockBitmap() {
		return // the kernel reads ahead
	}
	for _, b := range []ondisk.Fsblk{c.desc(g).BlockBitmap(), c.desc(g).InodeBitmap()} {
		if c.valid(b, 1) {
			c.prefetch(int64(b)<<c.blockBits, int64(c.blockSize))
		}
	}
}

// readGroup looks at the bitmaps of a group.
func (c *checker) readGroup(g ondisk.Group, b *groupBits, have, want []byte) {
	d := c.desc(g)
	in := c.inodeDiff(g, have, want)
	b.sameI = bytes.Equal(in.have, in.want)
	if !(c.hasGDTCsum && d.HasFlag(ondisk.BGInodeUninit)) && !c.badIB[g] && c.valid(d.InodeBitmap(), 1) && c.read(d.InodeBitmap(), have) == nil {
		b.tailI = !ones(have, uint64(c.inodesPerGroup))
		if c.thawed[g] && b.tailI { // it was never written
			b.tailI, b.freshI = false, true
		}
		if c.hasCsum {
			b.csumI = d.InodeBitmapCsum() != ondisk.Crc32c(c.seed, have[:c.inodesPerGroup/8])&d.CsumMask()
		}
	}
	bl := c.blockDiff(g, have, want)
	b.sameB = bytes.Equal(bl.have, bl.want)
	if !(c.hasGDTCsum && d.HasFlag(ondisk.BGBlockUninit)) && !c.badBB[g] && c.valid(d.BlockBitmap(), 1) && c.read(d.BlockBitmap(), have) == nil {
		b.tailB = !ones(have, c.groupClusters(g))
		if c.thawed[g] && b.tailB { // it was never written
			b.tailB, b.freshB = false, true
		}
		if c.hasCsum {
			b.csumB = d.BlockBitmapCsum() != ondisk.Crc32c(c.seed, have[:c.blocksPerGroup>>c.clusterBits/8])&d.CsumMask()
		}
	}
}

// ones tells whether all bits of a bitmap from n on are set.
func ones(b []byte, n uint64) bool {
	if r := n % 8; r != 0 {
		if b[n/8]>>r != 0xff>>r {
			return false
		}
		n += 8 - r
	}
	for _, x := range b[n/8:] {
		if x != 0xff {
			return false
		}
	}
	return true
}

// bitmapCsums deals with bitmaps that are in order but for their checksums.
func (c *checker) bitmapCsums(gs []groupBits) {
	if !c.hasCsum {
		return
	}
	for g := range c.groups {
		if gs[g].csumI && c.thawed[g] {
			gs[g].writeI = c.canWrite()
		} else if gs[g].csumI && gs[g].sameI {
			p := at(0)
			p.Group = int64(g)
			gs[g].writeI = c.fix(P5InodeBitmapCsum, p)
		}
	}
	c.latch[latchIBitmap] = latchState{}
	for g := range c.groups {
		if gs[g].csumB && c.thawed[g] {
			gs[g].writeB = c.canWrite()
		} else if gs[g].csumB && gs[g].sameB {
			p := at(0)
			p.Group = int64(g)
			gs[g].writeB = c.fix(P5BlockBitmapCsum, p)
		}
	}
	c.latch[latchBBitmap] = latchState{}
}

// eachRun calls f with runs of bits that are set in a and not in b.
func eachRun(a, b []byte, n uint64, f func(i, k uint64)) {
	for i := uint64(0); i < n; {
		if a[i/8] == b[i/8] {
			i = (i/8 + 1) * 8
			continue
		}
		diff := func(i uint64) bool { return (a[i/8]&^b[i/8])>>(i%8)&1 != 0 }
		if !diff(i) {
			i++
			continue
		}
		k := i
		for k < n && diff(k) {
			k++
		}
		f(i, k-i)
		i = k
	}
}

// blockBitmaps compares block bitmaps and counts.
func (c *checker) blockBitmaps(gs []groupBits) {
	have, want := make([]byte, c.blockSize), make([]byte, c.blockSize)
	for g := range c.groups {
		if g%1024 == 0 {
			c.poll()
		}
		if gs[g].sameB {
			continue
		}
		dsc := c.desc(g)
		d := c.blockDiff(g, have, want)
		if bytes.Equal(d.have, d.want) {
			continue
		}
		if c.hasGDTCsum && dsc.HasFlag(ondisk.BGBlockUninit) {
			p := at(0)
			p.Group = int64(g)
			if c.fix(P5BlockUninit, p) {
				dsc.SetFlags(0, ondisk.BGBlockUninit)
				c.sealDesc(g)
				c.setSuper()
				gs[g].writeB = true
			}
		}
		report := func(one, run Code) func(i, k uint64) {
			return func(i, k uint64) {
				p := at(0)
				p.Blk = c.clusterBlock(d.first + i)
				if k == 1 {
					c.tell(one, p)
				} else {
					p.Num = k << c.clusterBits
					c.tell(run, p)
				}
			}
		}
		eachRun(d.want, d.have, d.n, report(P5BlockUsed, P5BlockRangeUsed))
		eachRun(d.have, d.want, d.n, report(P5BlockUnused, P5BlockRangeUnused))
		gs[g].diffB = true
	}
	open := c.latch[latchBBitmap].open
	fixed := c.endLatch(latchBBitmap)
	for g := range c.groups {
		if gs[g].diffB && fixed || c.blocksTouched(g) {
			gs[g].writeB = true
		}
	}
	if open && !fixed {
		c.invalid = true
	}
	// Counts, of what was found; of what the bitmap says where that stays.
	per := c.blocksPerGroup >> c.clusterBits
	total := uint64(0)
	for g := range c.groups {
		dsc := c.desc(g)
		n := c.groupClusters(g)
		free := n - c.found.countRange(uint64(g)*per, n)
		if gs[g].diffB && !fixed {
			d := c.blockDiff(g, have, want)
			free = d.n - bitsIn(d.have)
		}
		total += free
		if uint64(dsc.FreeBlocks()) == free {
			continue
		}
		p := at(0)
		p.Group = int64(g)
		p.Num, p.Want, p.Vals = uint64(dsc.FreeBlocks()), free, true
		if c.fix(P5FreeBlockGroup, p) {
			dsc.SetFreeBlocks(uint32(free))
			c.sealDesc(g)
			c.setSuper()
		}
	}
	c.res.FreeBlocks = total << c.clusterBits
	if have := c.sb.FreeBlocksCount(); have != total<<c.clusterBits {
		p := at(0)
		p.Num, p.Want, p.Vals = have, total<<c.clusterBits, true
		if c.fix(P5FreeBlock, p) {
			c.sb.SetFreeBlocksCount(total << c.clusterBits)
			c.setSuper()
		}
	}
}

// bitsIn returns how many bits of b are set.
func bitsIn(b []byte) (n uint64) {
	for _, x := range b {
		n += uint64(bits.OnesCount8(x))
	}
	return n
}

// blocksTouched tells whether something was changed on purpose in a group's bitmap.
func (c *checker) blocksTouched(g ondisk.Group) bool {
	per := c.blocksPerGroup >> c.clusterBits
	first, n := uint64(g)*per, c.groupClusters(g)
	return c.blockSet.anyRange(first, n) || c.blockClear.anyRange(first, n)
}

// inodeBitmaps compares inode bitmaps and counts.
func (c *checker) inodeBitmaps(gs []groupBits) {
	have, want := make([]byte, c.blockSize), make([]byte, c.blockSize)
	for g := range c.groups {
		if g%1024 == 0 {
			c.poll()
		}
		if gs[g].sameI {
			continue
		}
		dsc := c.desc(g)
		d := c.inodeDiff(g, have, want)
		if g == 0 && c.hasGDTCsum && dsc.HasFlag(ondisk.BGInodeUninit) {
			for i := range uint64(c.reserved(g)) {
				d.have[i/8] |= 1 << (i % 8)
			}
		}
		if bytes.Equal(d.have, d.want) {
			continue
		}
		if c.hasGDTCsum && dsc.HasFlag(ondisk.BGInodeUninit) {
			p := at(0)
			p.Group = int64(g)
			if c.fix(P5InodeUninit, p) {
				dsc.SetFlags(0, ondisk.BGInodeUninit)
				c.sealDesc(g)
				c.setSuper()
				gs[g].writeI = true
			}
		}
		report := func(one, run Code) func(i, k uint64) {
			return func(i, k uint64) {
				p := at(ondisk.Ino(d.first + i))
				if k == 1 {
					c.tell(one, p)
				} else {
					p.Num = k
					c.tell(run, p)
				}
			}
		}
		eachRun(d.want, d.have, d.n, report(P5InodeUsed, P5InodeRangeUsed))
		eachRun(d.have, d.want, d.n, report(P5InodeUnused, P5InodeRangeUnused))
		gs[g].diffI = true
	}
	fixed := c.endLatch(latchIBitmap)
	totalFree := uint64(0)
	for g := range c.groups {
		first := uint64(g)*uint64(c.inodesPerGroup) + 1
		n := uint64(c.inodesPerGroup)
		if gs[g].diffI && fixed || c.inodeSet.anyRange(first, n) || c.inodeClear.anyRange(first, n) {
			gs[g].writeI = true
		}
		dsc := c.desc(g)
		used := c.inodeUsed.countRange(first, n)
		for i := first; i < min(uint64(c.firstIno), first+n); i++ {
			if !c.inodeUsed.test(i) {
				used++
			}
		}
		dirs := c.inodeDir.countRange(first, n)
		free := n - used
		if gs[g].diffI && !fixed {
			d := c.inodeDiff(g, have, want)
			free = n - bitsIn(d.have)
			c.inodeDir.fill(want, first, n)
			for i := range d.have {
				want[i] &= d.have[i]
			}
			dirs = bitsIn(want[:len(d.have)])
		}
		totalFree += free
		p := at(0)
		p.Group = int64(g)
		if uint64(dsc.FreeInodes()) != free {
			q := p
			q.Num, q.Want, q.Vals = uint64(dsc.FreeInodes()), free, true
			if c.fix(P5FreeInodeGroup, q) {
				dsc.SetFreeInodes(uint32(free))
				c.sealDesc(g)
				c.setSuper()
			}
		}
		if uint64(dsc.UsedDirs()) != dirs {
			q := p
			q.Num, q.Want, q.Vals = uint64(dsc.UsedDirs()), dirs, true
			if c.fix(P5FreeDirGroup, q) {
				dsc.SetUsedDirs(uint32(dirs))
				c.sealDesc(g)
				c.setSuper()
			}
		}
	}
	if have := uint64(c.sb.FreeInodes.Get()); have != totalFree {
		p := at(0)
		p.Num, p.Want, p.Vals = have, totalFree, true
		if c.fix(P5FreeInode, p) {
			c.sb.FreeInodes.Set(uint32(totalFree))
			c.setSuper()
		}
	}
}

// paddings checks the bits after the last one of each bitmap, which are set.
func (c *checker) paddings(gs []groupBits) {
	tail := func(code Code, get func(g *groupBits) bool, set func(g *groupBits)) {
		any := false
		for g := range gs {
			any = any || get(&gs[g])
		}
		if !any || !c.fix(code, at(0)) {
			return
		}
		for g := range gs {
			if get(&gs[g]) {
				set(&gs[g])
			}
		}
	}
	tail(P5InodePadding, func(g *groupBits) bool { return g.tailI }, func(g *groupBits) { g.writeI = true })
	// A block bitmap that was replaced is padded already.
	tail(P5BlockPadding, func(g *groupBits) bool { return g.tailB && !(g.diffB && g.writeB) }, func(g *groupBits) { g.writeB = true })
}

// writeBitmaps writes bitmaps that have to be, and their checksums.
func (c *checker) writeBitmaps(gs []groupBits) {
	if !c.canWrite() {
		return
	}
	have, want := make([]byte, c.blockSize), make([]byte, c.blockSize)
	for g := range c.groups {
		d := c.desc(g)
		if gs[g].writeB && c.valid(d.BlockBitmap(), 1) {
			c.writeBlockBitmap(g, have, want)
			c.sealDesc(g)
			c.setSuper()
		}
		if gs[g].writeI && c.valid(d.InodeBitmap(), 1) {
			c.writeInodeBitmap(g, have, want)
			if d.HasFlag(ondisk.BGInodeUninit) && c.inodeUsed.anyRange(uint64(g)*uint64(c.inodesPerGroup)+1, uint64(c.inodesPerGroup)) {
				d.SetFlags(0, ondisk.BGInodeUninit)
			}
			c.sealDesc(g)
			c.setSuper()
		}
	}
}

// writeBlockBitmap writes the block bitmap of a group as it should be, through two
// buffers of a block. The caller seals the descriptor.
func (c *checker) writeBlockBitmap(g ondisk.Group, have, want []byte) {
	d := c.desc(g)
	c.blockDiff(g, have, want)
	setTail(want, c.groupClusters(g))
	c.write(d.BlockBitmap(), want)
	d.SetFlags(0, ondisk.BGBlockUninit)
	if c.hasCsum {
		d.SetBlockBitmapCsum(ondisk.Crc32c(c.seed, want[:c.blocksPerGroup>>c.clusterBits/8]))
	}
}

// writeInodeBitmap is writeBlockBitmap for the inode bitmap.
func (c *checker) writeInodeBitmap(g ondisk.Group, have, want []byte) {
	d := c.desc(g)
	c.inodeDiff(g, have, want)
	setTail(want, uint64(c.inodesPerGroup))
	c.write(d.InodeBitmap(), want)
	if c.hasCsum {
		d.SetInodeBitmapCsum(ondisk.Crc32c(c.seed, want[:c.inodesPerGroup/8]))
	}
}

// setTail sets all bits of a bitmap from n on.
func setTail(b []byte, n uint64) {
	if r := n % 8; r != 0 {
		b[n/8] |= 0xff << r
		n += 8 - r
	}
	for i := n / 8; i < uint64(len(b)); i++ {
		b[i] = 0xff
	}
}
