package fsck

import (
	"errors"
	"sort"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// extent is a run of blocks of a file, or one block of its map (meta).
type extent struct {
	lblk      uint64
	blk       ondisk.Fsblk
	n         uint64
	unwritten bool
	meta      bool
}

var errMap = errors.New("the block map is damaged")

// valid tells whether n blocks from b on lie in the file system.
func (c *checker) valid(b ondisk.Fsblk, n uint64) bool {
	return b >= c.firstData && b != 0 && b < c.blocks && uint64(c.blocks-b) >= n
}

// eachExtent calls f with what inode r maps, and the blocks of the map itself
// before what they lead to, until f returns false. What is damaged is left out, and
// makes it return errMap at the end.
func (c *checker) eachExtent(r ondisk.RawInode, f func(e extent) bool) error {
	w := mapWalk{c: c, f: f, left: uint64(c.blocks) + 1<<16}
	return w.inode(r)
}

func (w *mapWalk) inode(r ondisk.RawInode) error {
	b, c := r.Base(), w.c
	switch {
	case b.Flags.Get()&ondisk.FlagInlineData != 0 || !c.hasBlocks(r):
		return nil
	case b.Flags.Get()&ondisk.FlagExtents != 0:
		w.extents(b.Block[:], -1)
	default:
		ptr := endian.Views[endian.LE32](b.Block[:], 15)
		next := uint64(0)
		for i := range ptr {
			w.pointer(ondisk.Fsblk(ptr[i].Get()), max(i-11, 0), &next)
		}
	}
	if w.bad {
		return errMap
	}
	return nil
}

type mapWalk struct {
	c    *checker
	f    func(e extent) bool
	stop bool
	bad  bool
	tell func(code Code, lblk uint64, b ondisk.Fsblk) // of what is left out, if it is not nil
	left uint64                                       // so many more blocks may be visited
}

func (w *mapWalk) call(e extent) bool {
	if w.left < e.n {
		w.bad, w.stop = true, true
		return false
	}
	w.left -= e.n
	if !w.f(e) {
		w.stop = true
	}
	return !w.stop
}

// leaveOut leaves out what cannot be mapped.
func (w *mapWalk) leaveOut(code Code, lblk uint64, b ondisk.Fsblk) {
	w.bad = true
	if w.tell != nil {
		w.tell(code, lblk, b)
	}
}

func (w *mapWalk) extents(node []byte, depth int) {
	if h := endian.View[ondisk.ExtentHeader](node); h.Magic.Get() == ondisk.ExtentMagic && h.Entries.Get() == 0 {
		return
	}
	h, err := ondisk.ExtentNodeHeader(node)
	if err != nil || depth >= 0 && int(h.Depth.Get()) != depth {
		w.bad = true
		return
	}
	n := int(h.Entries.Get())
	if h.Depth.Get() == 0 {
		for _, e := range endian.Views[ondisk.Extent](node[ondisk.ExtentEntry:], n) {
			if !w.c.valid(e.Start(), uint64(e.Len())) || e.Len() == 0 {
				w.leaveOut(P1ExtentBadStart, uint64(e.Block.Get()), e.Start())
				continue
			}
			if !w.call(extent{uint64(e.Block.Get()), e.Start(), uint64(e.Len()), e.Unwritten(), false}) {
				return
			}
		}
		return
	}
	child := make([]byte, w.c.blockSize)
	for _, e := range endian.Views[ondisk.ExtentIdx](node[ondisk.ExtentEntry:], n) {
		if !w.c.valid(e.Leaf(), 1) {
			w.leaveOut(P1ExtentBadStart, uint64(e.Block.Get()), e.Leaf())
			continue
		}
		if !w.call(extent{uint64(e.Block.Get()), e.Leaf(), 1, false, true}) {
			return
		}
		if w.c.read(e.Leaf(), child) != nil {
			w.bad = true
			continue
		}
		if w.extents(child, int(h.Depth.Get())-1); w.stop {
			return
		}
	}
}

func (w *mapWalk) pointer(b ondisk.Fsblk, level int, next *uint64) {
	span := uint64(1)
	for range level {
		span *= uint64(w.c.blockSize / 4)
	}
	switch {
	case w.stop:
		return
	case b == 0:
	case !w.c.valid(b, 1):
		w.leaveOut(P1IllegalBlockNum, *next, b)
	case level == 0:
		w.call(extent{*next, b, 1, false, false})
	default:
		data := make([]byte, w.c.blockSize)
		if !w.call(extent{*next, b, 1, false, true}) {
			return
		}
		if w.c.read(b, data) != nil {
			w.bad = true
			break
		}
		ptr := endian.Views[endian.LE32](data, len(data)/4)
		for i := range ptr {
			if w.stop {
				return
			}
			w.pointer(ondisk.Fsblk(ptr[i].Get()), level-1, next)
		}
		return
	}
	*next += span
}

// hasBlocks tells whether i_block of an inode is a map at all.
func (c *checker) hasBlocks(r ondisk.RawInode) bool {
	b := r.Base()
	switch b.Mode.Get() & ondisk.ModeFmt {
	case ondisk.ModeReg, ondisk.ModeDir:
		return b.Flags.Get()&ondisk.FlagInlineData == 0
	case ondisk.ModeLnk:
		return b.Flags.Get()&ondisk.FlagInlineData == 0 && !c.fastSymlink(r)
	}
	return false
}

// fastSymlink tells whether a symlink's target lies in the inode.
func (c *checker) fastSymlink(r ondisk.RawInode) bool {
	b := r.Base()
	if b.Flags.Get()&ondisk.FlagInlineData != 0 || b.Flags.Get()&ondisk.FlagExtents != 0 && b.Block[0] == 0x0a && b.Block[1] == 0xf3 {
		return false
	}
	if b.Flags.Get()&ondisk.FlagEAInode != 0 {
		return false
	}
	size := r.Size(true)
	return size > 0 && size < ondisk.MaxSymlinkFast || size == 0 && r.Blocks(true) == 0 && b.Flags.Get()&ondisk.FlagExtents == 0
}

// runs returns what an inode maps, sorted, and the blocks of its map.
func (c *checker) runs(r ondisk.RawInode) (data []extent, meta []ondisk.Fsblk, err error) {
	err = c.eachExtent(r, func(e extent) bool {
		if e.meta {
			meta = append(meta, e.blk)
			return true
		}
		if k := len(data) - 1; k >= 0 && data[k].lblk+data[k].n == e.lblk && data[k].blk+ondisk.Fsblk(data[k].n) == e.blk &&
			data[k].unwritten == e.unwritten {
			data[k].n += e.n
			return true
		}
		data = append(data, e)
		return true
	})
	sort.SliceStable(data, func(i, j int) bool { return data[i].lblk < data[j].lblk })
	return data, meta, err
}

// lookup returns the block that maps lblk, 0 if none does.
func lookup(runs []extent, lblk uint64) ondisk.Fsblk {
	i := sort.Search(len(runs), func(i int) bool { return runs[i].lblk+runs[i].n > lblk })
	if i < len(runs) && runs[i].lblk <= lblk {
		return runs[i].blk + ondisk.Fsblk(lblk-runs[i].lblk)
	}
	return 0
}

// storeMap gives inode r, which is not written, the map of the given runs: in
// new blocks, so that what is on the device is the old map until the inode is
// written. The caller then frees the blocks of the old one. false: no space.
func (c *checker) storeMap(ino ondisk.Ino, r ondisk.RawInode, runs []extent) (meta []ondisk.Fsblk, ok bool) {
	if r.Base().Flags.Get()&ondisk.FlagExtents != 0 {
		meta, ok = c.storeExtents(ino, r, runs)
	} else {
		meta, ok = c.storePointers(r, runs)
	}
	if !ok {
		for _, b := range meta {
			c.release(b)
		}
		meta = nil
	}
	return meta, ok
}

// storeExtents builds an extent tree from the leaves up.
func (c *checker) storeExtents(ino ondisk.Ino, r ondisk.RawInode, runs []extent) (meta []ondisk.Fsblk, ok bool) {
	var entries [][ondisk.ExtentEntry]byte
	for _, e := range runs {
		for e.n > 0 {
			k := min(e.n, ondisk.MaxExtentLen)
			if e.unwritten {
				k = min(e.n, ondisk.MaxUnwrittenLen)
			}
			var x [ondisk.ExtentEntry]byte
			endian.View[ondisk.Extent](x[:]).Set(ondisk.Lblk(e.lblk), e.blk, uint32(k), e.unwritten)
			entries = append(entries, x)
			e.lblk, e.blk, e.n = e.lblk+k, e.blk+ondisk.Fsblk(k), e.n-k
		}
	}
	seed := ondisk.InodeSeed(c.seed, ino, r.Base().Generation.Get())
	depth := 0
	for len(entries) > ondisk.RootExtents {
		fit := ondisk.ExtentMax(c.blockSize)
		var up [][ondisk.ExtentEntry]byte
		for len(entries) > 0 {
			b, ok := c.alloc(c.goalOf(ino), false)
			if !ok {
				return meta, false
			}
			meta = append(meta, b)
			k := min(fit, len(entries))
			node := make([]byte, c.blockSize)
			c.putNode(node, depth, entries[:k])
			if c.hasCsum {
				ondisk.SealExtentNode(node, seed)
			}
			c.write(b, node)
			var x [ondisk.ExtentEntry]byte
			endian.View[ondisk.ExtentIdx](x[:]).Set(ondisk.Lblk(endian.View[endian.LE32](entries[0][:]).Get()), b)
			up = append(up, x)
			entries = entries[k:]
		}
		entries = up
		depth++
	}
	root := r.Base().Block[:]
	clear(root)
	c.putNode(root, depth, entries)
	return meta, true
}

func (c *checker) putNode(node []byte, depth int, entries [][ondisk.ExtentEntry]byte) {
	ondisk.InitExtentNode(node, depth)
	endian.View[ondisk.ExtentHeader](node).Entries.Set(uint16(len(entries)))
	for i := range entries {
		copy(node[ondisk.ExtentEntry*(i+1):], entries[i][:])
	}
}

// storePointers builds a map of pointers.
func (c *checker) storePointers(r ondisk.RawInode, runs []extent) (meta []ondisk.Fsblk, ok bool) {
	ptr := endian.Views[endian.LE32](r.Base().Block[:], 15)
	for i := range ptr {
		ptr[i].Set(0)
	}
	per := uint64(c.blockSize / 4)
	ok = true
	var build func(level int, first uint64) uint32
	build = func(level int, first uint64) uint32 {
		span := uint64(1)
		for range level {
			span *= per
		}
		i := sort.Search(len(runs), func(i int) bool { return runs[i].lblk+runs[i].n > first })
		if !ok || i == len(runs) || runs[i].lblk >= first+span {
			return 0
		}
		if level == 0 {
			return uint32(lookup(runs, first))
		}
		b, got := c.alloc(0, false)
		if !got || b > 1<<32-1 {
			ok = false
			return 0
		}
		meta = append(meta, b)
		node := make([]byte, c.blockSize)
		p := endian.Views[endian.LE32](node, int(per))
		for k := range p {
			p[k].Set(build(level-1, first+uint64(k)*(span/per)))
		}
		if ok {
			c.write(b, node)
		}
		return uint32(b)
	}
	first := uint64(0)
	for i := range ptr {
		level := max(i-11, 0)
		ptr[i].Set(build(level, first))
		span := uint64(1)
		for range level {
			span *= per
		}
		first += span
	}
	return meta, ok
}

// countBlocks returns i_blocks, in its unit, for data in runs, blocks of a map,
// and an attribute block if there is one.
func (c *checker) countBlocks(r ondisk.RawInode, runs []extent, meta int) uint64 {
	n := uint64(meta)
	if c.clusterBits == 0 {
		for _, e := range runs {
			n += e.n
		}
	} else {
		last := ^uint64(0)
		for _, e := range runs {
			for k := uint64(0); k < e.n; k++ {
				if cl := c.cluster(e.blk + ondisk.Fsblk(k)); cl != last {
					n++
					last = cl
				}
			}
		}
	}
	if acl := r.FileACL(); acl != 0 && c.valid(acl, 1) && c.sb.HasCompat(ondisk.CompatExtAttr) {
		n++
	}
	return c.blocksUnit(r, n)
}

// blocksUnit turns a number of clusters into the unit of i_blocks.
func (c *checker) blocksUnit(r ondisk.RawInode, n uint64) uint64 {
	n <<= c.clusterBits
	if c.hasHugeFile && r.Base().Flags.Get()&ondisk.FlagHugeFile != 0 {
		return n
	}
	return n << (c.blockBits - 9)
}
