package fsck

import (
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// level counts one level of an extent tree, the root first.
type level struct {
	nodes, entries, max int
}

// checkExtents checks an extent tree.
func (c *checker) checkExtents(x *inodeState) {
	b := x.r.Base()
	root := b.Block[:]
	p := at(x.ino)
	h := endian.View[ondisk.ExtentHeader](root)
	if h.Magic.Get() != ondisk.ExtentMagic || h.Max.Get() > ondisk.RootExtents || h.Entries.Get() > h.Max.Get() {
		if c.fix(P1ReadExtent, p) {
			c.clearInode(x.ino, x.r, false)
		}
		return
	}
	depth := int(h.Depth.Get())
	if depth < len(c.res.ExtentDepth) {
		c.res.ExtentDepth[depth]++
	}
	if most := c.maxDepth(); depth > most {
		q := p
		q.Num, q.Want, q.Vals = uint64(depth), uint64(most), true
		if depth <= 64 && c.fix(P1ExtentBadMaxDepth, q) {
			x.forceRebuild = true
		}
	}
	eof := uint64(0)
	if n := uint64(x.r.Size(true)); n > 0 {
		eof = (n - 1) >> c.blockBits
	}
	x.smallMax = int(h.Max.Get()) < ondisk.RootExtents-2
	w := extentWalk{c: c, x: x, eof: eof}
	if depth > 0 {
		w.seed = ondisk.InodeSeed(c.seed, x.ino, b.Generation.Get())
	}
	x.levels = append(x.levels[:0], make([]level, depth+1)...)
	if w.node(root, 0, depth, 0, uint64(ondisk.MaxLblk)+1, true) {
		x.dirty = true
	}
	if !c.inodeUsed.test(uint64(x.ino)) || x.clear {
		return
	}
	if x.dirty && h.Entries.Get() == 0 {
		ondisk.InitExtentNode(root, 0)
	}
	c.shouldRebuild(x)
}

// maxDepth returns the most levels below the root that a tree can make use of.
func (c *checker) maxDepth() int {
	per := uint64(ondisk.ExtentMax(c.blockSize))
	n, d := uint64(ondisk.RootExtents), 0
	for n < 1<<32 {
		n *= per
		d++
	}
	return d
}

// extentWalk goes through an extent tree.
type extentWalk struct {
	c    *checker
	x    *inodeState
	eof  uint64 // last block below the size
	seed uint32
	next uint64 // first block of the file that the next extent may map
	seen map[ondisk.Fsblk]bool
}

// node checks a node of the given depth, which maps blocks of the file from start to
// before end. It changes the node in place and returns whether it did. repair is
// false for a node in a block that belongs to the file system itself.
func (w *extentWalk) node(node []byte, lvl, depth int, start, end uint64, repair bool) (dirty bool) {
	c, x := w.c, w.x
	h := endian.View[ondisk.ExtentHeader](node)
	n := int(h.Entries.Get())
	l := &x.levels[lvl]
	l.nodes++
	l.max += int(h.Max.Get())
	if depth > 0 {
		c.prefetchNodes(node, n)
	}
	for i := 0; i < n; {
		if x.visited++; x.visited > 4*uint64(c.blocks)+4096 || x.clear {
			x.clear = true
			return dirty
		}
		code, p := w.entry(node, i, depth, start, end)
		if depth == 0 && code == 0 && x.isDir && repair {
			e := &endian.Views[ondisk.Extent](node[ondisk.ExtentEntry:], n)[i]
			if e.Unwritten() {
				q := p
				q.Blk, q.Num = 0, 0
				if c.fix(P1UninitDblock, q) {
					e.Set(ondisk.Lblk(e.Block.Get()), e.Start(), e.Len(), false)
					dirty = true
				}
			}
		}
		if code == 0 && depth > 0 {
			var sub bool
			code, sub = w.child(node, i, lvl, depth, end, repair)
			dirty = dirty || sub
			p.Lblk, p.Num, p.Vals = int64(endian.View[ondisk.ExtentIdx](node[ondisk.ExtentEntry*(i+1):]).Block.Get()), 0, false
		}
		if code != 0 && repair {
			if c.fix(code, p) {
				copy(node[ondisk.ExtentEntry*(i+1):], node[ondisk.ExtentEntry*(i+2):ondisk.ExtentEntry*(n+1)])
				clear(node[ondisk.ExtentEntry*n : ondisk.ExtentEntry*(n+1)])
				n--
				h.Entries.Set(uint16(n))
				dirty = true
				continue
			}
		}
		if code == 0 && depth == 0 {
			if w.leafEntry(node, i, n, repair) {
				dirty = true
			}
			start = w.next
		} else if depth > 0 {
			start = max(w.next, start)
		}
		l.entries++
		i++
	}
	return dirty
}

// prefetchNodes has the nodes read that the n entries of an index node lead to.
func (c *checker) prefetchNodes(node []byte, n int) {
	var first ondisk.Fsblk
	run := uint64(0)
	for _, e := range endian.Views[ondisk.ExtentIdx](node[ondisk.ExtentEntry:], n) {
		switch {
		case !c.valid(e.Leaf(), 1):
			continue
		case run > 0 && e.Leaf() == first+ondisk.Fsblk(run):
			run++
			continue
		case run > 0:
			c.prefetch(int64(first)<<c.blockBits, int64(run)<<c.blockBits)
		}
		first, run = e.Leaf(), 1
	}
	if run > 0 && n > 1 {
		c.prefetch(int64(first)<<c.blockBits, int64(run)<<c.blockBits)
	}
}

// entry checks entry i of a node by itself.
func (w *extentWalk) entry(node []byte, i, depth int, start, end uint64) (Code, Problem) {
	c, x := w.c, w.x
	p := at(x.ino)
	at := node[ondisk.ExtentEntry*(i+1):]
	if depth > 0 {
		e := endian.View[ondisk.ExtentIdx](at)
		lblk := uint64(e.Block.Get())
		p.Blk, p.Lblk = e.Leaf(), int64(lblk)
		switch {
		case !c.valid(e.Leaf(), 1):
			return P1ExtentBadStart, p
		case lblk < start:
			return P1OutOfOrderExtents, p
		case lblk >= end:
			return P1ExtentEndOutOfBound, p
		}
		return 0, p
	}
	e := endian.View[ondisk.Extent](at)
	lblk, n := uint64(e.Block.Get()), uint64(e.Len())
	p.Blk, p.Lblk, p.Num = e.Start(), int64(lblk), n
	switch {
	case !c.valid(e.Start(), 1):
		return P1ExtentBadStart, p
	case lblk+1 == start && start == w.next && i > 0:
		return P1ExtentCollision, p
	case lblk < start:
		return P1OutOfOrderExtents, p
	case n > 0 && lblk+n > end && !(e.Unwritten() && lblk+n-1 > w.eof):
		return P1ExtentEndOutOfBound, p
	case n == 0:
		return P1ExtentLengthZero, p
	case !c.valid(e.Start(), n):
		return P1ExtentEndsBeyond, p
	case x.isDir && lblk+n > 1<<(21-(c.blockBits-10)) && !c.hasLargeDir:
		return P1TooBigDir, p
	}
	return 0, p
}

// leafEntry claims what extent i of a leaf maps. It returns whether it changed
// the extent.
func (w *extentWalk) leafEntry(node []byte, i, total int, repair bool) (dirty bool) {
	c, x := w.c, w.x
	e := &endian.Views[ondisk.Extent](node[ondisk.ExtentEntry:], total)[i]
	lblk, n, blk := uint64(e.Block.Get()), uint64(e.Len()), e.Start()
	if x.isDir && repair && x.lastBlock+1 < int64(lblk) {
		to := uint64(x.lastBlock + 1)
		if c.clusterBits > 0 {
			m := c.clusterRatio - 1
			to = (to+m)&^m | uint64(blk)&m
		}
		if to < lblk {
			p := at(x.ino)
			p.Lblk = int64(lblk)
			p.Num, p.Want, p.Vals = lblk, to, true
			if c.fix(P1CollapseDblock, p) {
				e.Block.Set(uint32(to))
				lblk = to
				dirty = true
			}
		}
	}
	if x.prev != 0 && x.prev+1 != blk {
		x.fragmented = true
		c.fragment(x, blk, lblk, n, true)
	}
	if c.clusterBits == 0 {
		c.claimRange(blk, n)
		x.clusters += n
	} else {
		w.claimExtent(lblk, blk, n)
	}
	if x.isDir {
		c.dirBlocks(x, blk, lblk, n)
	}
	x.lastBlock = int64(lblk + n - 1)
	if !e.Unwritten() {
		x.lastInit = x.lastBlock
	}
	x.prev, x.prevLblk = blk+ondisk.Fsblk(n-1), x.lastBlock
	w.next = lblk + n
	return dirty
}

// claimExtent claims the clusters of an extent, the first of which may have
// been claimed with the extent before.
func (w *extentWalk) claimExtent(lblk uint64, blk ondisk.Fsblk, n uint64) {
	c, x := w.c, w.x
	m := c.clusterRatio - 1
	k, e := c.cluster(blk), c.cluster(blk+ondisk.Fsblk(n-1))+1
	aligned := uint64(blk-c.firstData)&m == lblk&m
	if x.prev != 0 && c.cluster(x.prev) == k && aligned {
		k++
	} else if !aligned {
		p := at(x.ino)
		p.Lblk, p.Blk = int64(lblk), blk
		c.tell(P1MisalignedCluster, p)
		c.dup.set(k) // pass 1B copies it into line
		if !c.canWrite() {
			c.invalid = true
		}
	}
	if k < e {
		c.claimRange(c.clusterBlock(k), (e-k)<<c.clusterBits)
		x.clusters += e - k
	}
}

// child checks the node that index entry i leads to.
func (w *extentWalk) child(node []byte, i, lvl, depth int, end uint64, repair bool) (code Code, dirty bool) {
	c, x := w.c, w.x
	n := int(endian.View[ondisk.ExtentHeader](node).Entries.Get())
	idx := endian.Views[ondisk.ExtentIdx](node[ondisk.ExtentEntry:], n)
	e := &idx[i]
	blk, lblk := e.Leaf(), uint64(e.Block.Get())
	if i+1 < n && uint64(idx[i+1].Block.Get()) > lblk {
		end = min(end, uint64(idx[i+1].Block.Get()))
	}
	sub := repair
	p := at(x.ino)
	p.Blk = blk
	if c.meta.test(uint64(blk)) {
		c.tell(P1CriticalMetadata, p)
		sub = false
	}
	if w.seen[blk] {
		return P1ExtentHeaderInvalid, false
	}
	if w.seen == nil {
		w.seen = map[ondisk.Fsblk]bool{}
	}
	w.seen[blk] = true
	for len(c.nodes) <= lvl {
		c.nodes = append(c.nodes, make([]byte, c.blockSize))
	}
	data := c.nodes[lvl]
	if c.read(blk, data) != nil {
		return P1ExtentHeaderInvalid, false
	}
	h, err := ondisk.ExtentNodeHeader(data)
	if err != nil && endian.View[ondisk.ExtentHeader](data).Depth.Get() > ondisk.MaxExtentDepth {
		h, err = c.deepHeader(data), nil
	}
	if err != nil || h == nil || int(h.Depth.Get()) != depth-1 {
		return P1ExtentHeaderInvalid, false
	}
	x.smallMax = x.smallMax || int(h.Max.Get()) < ondisk.ExtentMax(c.blockSize)-2
	badCsum := c.hasCsum && ondisk.VerifyExtentNode(data, w.seed) != nil
	if first := uint64(endian.View[endian.LE32](data[ondisk.ExtentEntry:]).Get()); first != lblk && h.Entries.Get() > 0 {
		q := p
		q.Lblk = int64(lblk)
		q.Num, q.Want, q.Vals = lblk, first, true
		if repair && first < end && c.fix(P1ExtentIndexStart, q) {
			e.Block.Set(uint32(first))
			dirty = true
			lblk = first
		}
	}
	changed := w.node(data, lvl+1, depth-1, lblk, end, sub)
	if changed && sub {
		if c.hasCsum {
			ondisk.SealExtentNode(data, w.seed)
		}
		c.write(blk, data)
		if first := endian.View[endian.LE32](data[ondisk.ExtentEntry:]).Get(); h.Entries.Get() > 0 && first != e.Block.Get() {
			e.Block.Set(first)
			dirty = true
		}
	} else if badCsum && sub {
		q := p
		q.Lblk = int64(lblk)
		if c.fix(P1ExtentOnlyCsum, q) {
			ondisk.SealExtentNode(data, w.seed)
			c.write(blk, data)
		}
	}
	c.claim(blk)
	x.clusters++
	return 0, dirty
}

// deepHeader returns the header of a node of a tree that is deeper than any
// should be, if it is in order otherwise.
func (c *checker) deepHeader(data []byte) *ondisk.ExtentHeader {
	h := endian.View[ondisk.ExtentHeader](data)
	if h.Magic.Get() != ondisk.ExtentMagic || h.Max.Get() == 0 || int(h.Max.Get()) > ondisk.ExtentMax(len(data)) || h.Entries.Get() > h.Max.Get() {
		return nil
	}
	return h
}

// shouldRebuild offers to make a tree anew that is larger than it has to be.
func (c *checker) shouldRebuild(x *inodeState) {
	if x.forceRebuild {
		c.rebuild = append(c.rebuild, x.ino)
		return
	}
	if x.smallMax { // it does no harm, but is not as it should be
		if c.fix(P1ENarrower, at(x.ino)) {
			c.rebuild = append(c.rebuild, x.ino)
		}
		return
	}
	if c.opts.NoOptimize || c.opts.FixesOnly || x.ino < c.firstIno {
		return
	}
	per := ondisk.ExtentMax(c.blockSize)
	for i := 1; i < len(x.levels); i++ {
		l, up := x.levels[i], x.levels[i-1]
		p := at(x.ino)
		p.Num = uint64(i)
		var code Code
		switch {
		case l.entries <= up.max && i == 1 || l.entries == 0:
			code = P1EShorter
		case l.nodes > (l.entries+per-1)/per && l.max > 0 && l.entries <= l.max-per:
			code = P1ENarrower
		default:
			continue
		}
		if c.fix(code, p) {
			c.rebuild = append(c.rebuild, x.ino)
		}
		return
	}
}

// pass1e makes extent trees anew.
func (c *checker) pass1e() {
	if len(c.rebuild) == 0 || c.restart {
		return
	}
	c.begin(P1EPass)
	c.counted = true
	defer func() { c.counted = false }()
	for _, ino := range c.rebuild {
		r, err := c.inode(ino)
		if err != nil || !c.inodeUsed.test(uint64(ino)) {
			continue
		}
		runs, meta, err := c.runsDeep(r)
		if err == nil {
			r.Base().Flags.Set(r.Base().Flags.Get() | ondisk.FlagExtents)
			var added []ondisk.Fsblk
			var ok bool
			c.noFix = true
			if added, ok = c.storeMap(ino, r, runs); ok {
				r.SetBlocks(c.countBlocks(r, runs, len(added)))
				c.sync()
				c.writeInode(ino, r)
				for _, b := range meta {
					c.release(b)
				}
				c.noFix = false
				continue
			}
			c.noFix = false
		}
		c.tell(P1ERebuildErr, at(ino))
		c.invalid = true
	}
}

// runsDeep is runs for a tree that may be deeper than any should be.
func (c *checker) runsDeep(r ondisk.RawInode) (data []extent, meta []ondisk.Fsblk, err error) {
	b := r.Base()
	h := endian.View[ondisk.ExtentHeader](b.Block[:])
	if b.Flags.Get()&ondisk.FlagExtents == 0 || h.Depth.Get() <= ondisk.MaxExtentDepth {
		return c.runs(r)
	}
	var walk func(node []byte, depth int)
	walk = func(node []byte, depth int) {
		h := endian.View[ondisk.ExtentHeader](node)
		if depth > 64 || h.Magic.Get() != ondisk.ExtentMagic || int(h.Entries.Get())+1 > len(node)/ondisk.ExtentEntry {
			err = errMap
			return
		}
		n := int(h.Entries.Get())
		if h.Depth.Get() == 0 {
			for _, e := range endian.Views[ondisk.Extent](node[ondisk.ExtentEntry:], n) {
				data = append(data, extent{uint64(e.Block.Get()), e.Start(), uint64(e.Len()), e.Unwritten(), false})
			}
			return
		}
		for _, e := range endian.Views[ondisk.ExtentIdx](node[ondisk.ExtentEntry:], n) {
			if child, rerr := c.block(e.Leaf()); rerr == nil && c.valid(e.Leaf(), 1) {
				meta = append(meta, e.Leaf())
				walk(child, depth+1)
			} else {
				err = errMap
			}
		}
	}
	walk(b.Block[:], 0)
	return data, meta, err
}
