package fsck

import (
	"slices"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// maps is what pass 1 finds out about blocks and inodes.
type maps struct {
	found  *bitmap // clusters in use
	dup    *bitmap // clusters that are claimed more than once
	shared *bitmap // clusters that are claimed more than once, and may be
	meta   *bitmap // blocks of the file system itself

	inodeUsed *bitmap
	inodeDir  *bitmap
	inodeReg  *bitmap
	inodeBad  *bitmap // with fields that pass 2 or 4 looks at
	inodeBB   *bitmap // lie on bad blocks
	links     *icount // i_links_count
	seen      *icount // entries that point to it

	// What the bitmaps on the device are taken to say, beside what they say:
	// changes of blocks and inodes that were made on purpose.
	blockSet, blockClear *bitmap
	inodeSet, inodeClear *bitmap

	scan       scanner
	xattrs     xattrState
	enc        encState
	tables     []tableRun
	lowDtime   bool         // small deletion times are links of the orphan list
	rebuild    []ondisk.Ino // extent trees to be made anew
	largeFiles bool
	largeDirs  bool
	badList    map[ondisk.Fsblk]bool
	badMap     bool           // the list of bad blocks lies on bad blocks itself
	badMeta    []ondisk.Fsblk // blocks of the list's own map
	badHad     []ondisk.Fsblk // what it held
	badWant    []ondisk.Fsblk // what is to be listed, sorted

	holes     uint64 // of directories
	allocHint uint64
	counted   bool // counts follow whatever is taken or freed
}

func (c *checker) newMaps() {
	c.res.Counts = Counts{}
	c.xattrs = xattrState{refs: map[ondisk.Fsblk]*xattrRef{}, inodes: map[ondisk.Ino]uint64{}}
	c.enc = encState{ids: map[string]int{}, policy: map[ondisk.Ino]int{}}
	c.found, c.dup, c.shared = newBitmap(c.clusters), newBitmap(c.clusters), newBitmap(c.clusters)
	c.meta = newBitmap(uint64(c.blocks))
	n := uint64(c.inodes) + 1
	c.inodeUsed, c.inodeDir, c.inodeReg = newBitmap(n), newBitmap(n), newBitmap(n)
	c.inodeBad, c.inodeBB = newBitmap(n), newBitmap(n)
	c.links, c.seen = newIcount(n), newIcount(n)
	c.blockSet, c.blockClear = newBitmap(c.clusters), newBitmap(c.clusters)
	c.inodeSet, c.inodeClear = newBitmap(n), newBitmap(n)
}

// cluster returns the cluster that block b lies in.
func (c *checker) cluster(b ondisk.Fsblk) uint64 { return uint64(b-c.firstData) >> c.clusterBits }

// clusterBlock returns the first block of a cluster.
func (c *checker) clusterBlock(k uint64) ondisk.Fsblk {
	return c.firstData + ondisk.Fsblk(k<<c.clusterBits)
}

// reserved returns how many inodes at the start of group 0 are always in use: the
// reserved ones, of which small groups have no room for all.
func (c *checker) reserved(g ondisk.Group) uint32 {
	if g != 0 {
		return 0
	}
	return min(uint32(c.firstIno)-1, c.inodesPerGroup)
}

// claim notes that something uses block b.
func (c *checker) claim(b ondisk.Fsblk) { c.claimRange(b, 1) }

// claimRange notes that something uses n blocks from b on.
func (c *checker) claimRange(b ondisk.Fsblk, n uint64) {
	if n == 0 {
		return
	}
	k := c.cluster(b)
	c.claimClusters(k, c.cluster(b+ondisk.Fsblk(n-1))+1-k)
}

// claimClusters notes that something uses n clusters from k on.
func (c *checker) claimClusters(k, n uint64) {
	if r := c.report; r != nil {
		if i := len(r.claims) - 1; i >= r.base && r.claims[i].k+r.claims[i].n == k {
			r.claims[i].n += n
			return
		}
		if len(r.claims) == reportMost {
			c.leave()
		}
		if len(r.claims) == cap(r.claims) {
			r.claims = slices.Grow(r.claims, len(r.claims)+1024)
		}
		r.claims = append(r.claims, clusterRun{k, n})
		return
	}
	e := k + n
	if c.found.anyRange(k, e-k) {
		for i := k; i < e; i++ {
			switch {
			case !c.found.test(i):
				c.found.set(i)
			case c.hasShared && !c.opts.Unshare:
				c.shared.set(i) // on purpose
			default:
				c.dup.set(i)
			}
		}
		return
	}
	c.found.setRange(k, e-k)
}

func (c *checker) goalOf(ino ondisk.Ino) ondisk.Fsblk {
	if ino == 0 {
		return 0
	}
	return c.groupFirst(ondisk.Group(uint32(ino-1) / c.inodesPerGroup))
}

// alloc takes a free block, the first of its cluster, at goal or after. With
// count the descriptor's and the superblock's counts follow, as they would if the file
// system itself took the block.
func (c *checker) alloc(goal ondisk.Fsblk, count bool) (ondisk.Fsblk, bool) {
	start := c.allocHint
	if goal >= c.firstData && goal < c.blocks {
		start = c.cluster(goal)
	}
	k := c.found.nextClear(start, c.clusters)
	if k == c.clusters {
		if k = c.found.nextClear(0, start); k >= start {
			return 0, false
		}
	}
	if goal == 0 {
		c.allocHint = k
	}
	c.take(k, count)
	return c.clusterBlock(k), true
}

// take marks cluster k used, on the device too.
func (c *checker) take(k uint64, count bool) {
	count = count || c.counted
	c.found.set(k)
	c.blockSet.set(k)
	c.blockClear.clear(k)
	c.changed = true
	if count {
		c.countFree(c.groupOf(c.clusterBlock(k)), -1)
	}
}

// allocRun takes n free clusters in a row.
func (c *checker) allocRun(n uint64) (ondisk.Fsblk, bool) {
	return c.allocRunIn(0, c.clusters, n)
}

func (c *checker) allocRunIn(from, end, n uint64) (ondisk.Fsblk, bool) {
	for k := from; k+n <= end; {
		k = c.found.nextClear(k, end)
		if k+n > end {
			break
		}
		if e := c.found.next(k, k+n); e < k+n {
			k = e
			continue
		}
		for i := k; i < k+n; i++ {
			c.take(i, false)
		}
		return c.clusterBlock(k), true
	}
	return 0, false
}

// countFree changes the free blocks of a group by d clusters.
func (c *checker) countFree(g ondisk.Group, d int) {
	dsc := c.desc(g)
	dsc.SetFreeBlocks(uint32(max(0, int(dsc.FreeBlocks())+d)))
	dsc.SetFlags(0, ondisk.BGBlockUninit)
	c.sealDesc(g)
	c.sb.SetFreeBlocksCount(uint64(max(0, int64(c.sb.FreeBlocksCount())+int64(d)<<c.clusterBits)))
	c.setSuper()
}

// release frees the cluster of block b, which nothing else claims.
func (c *checker) release(b ondisk.Fsblk) {
	k := c.cluster(b)
	if c.dup.test(k) || c.shared.test(k) || !c.found.test(k) || c.meta.test(uint64(b)) {
		return
	}
	if c.counted {
		c.countFree(c.groupOf(b), 1)
	}
	c.found.clear(k)
	c.blockClear.set(k)
	c.blockSet.clear(k)
	c.allocHint = min(c.allocHint, k)
	c.changed = true
}

// releaseCounted is release as the file system itself would do it.
func (c *checker) releaseCounted(b ondisk.Fsblk) {
	k := c.cluster(b)
	if c.found.test(k) && !c.dup.test(k) && !c.shared.test(k) && !c.meta.test(uint64(b)) {
		was := c.counted
		c.counted = true
		c.release(b)
		c.counted = was
	}
}

// allocInode takes a free inode, which is not a reserved one.
func (c *checker) allocInode(dir bool) (ondisk.Ino, bool) {
	i := c.inodeUsed.nextClear(uint64(c.firstIno), uint64(c.inodes)+1)
	for i <= uint64(c.inodes) {
		if _, ok := c.inodeAt(ondisk.Ino(i)); ok {
			break
		}
		i = c.inodeUsed.nextClear(i+1, uint64(c.inodes)+1)
	}
	if i > uint64(c.inodes) {
		return 0, false
	}
	c.takeInode(ondisk.Ino(i), dir)
	return ondisk.Ino(i), true
}

// takeInode marks an inode used, with the counts of its group.
func (c *checker) takeInode(ino ondisk.Ino, dir bool) {
	c.inodeUsed.set(uint64(ino))
	c.inodeSet.set(uint64(ino))
	c.inodeClear.clear(uint64(ino))
	g := ondisk.Group(uint32(ino-1) / c.inodesPerGroup)
	d := c.desc(g)
	if n := d.FreeInodes(); n > 0 {
		d.SetFreeInodes(n - 1)
		c.sb.FreeInodes.Set(c.sb.FreeInodes.Get() - 1)
	}
	if dir {
		d.SetUsedDirs(d.UsedDirs() + 1)
	}
	if rest := c.inodesPerGroup - 1 - uint32(ino-1)%c.inodesPerGroup; c.hasGDTCsum && d.ItableUnused() > rest {
		d.SetItableUnused(rest)
	}
	d.SetFlags(0, ondisk.BGInodeUninit)
	c.sealDesc(g)
	c.setSuper()
}

// freeInode marks an inode free, with the counts of its group.
func (c *checker) freeInode(ino ondisk.Ino, dir bool) {
	if !c.inodeUsed.test(uint64(ino)) {
		return
	}
	c.inodeUsed.clear(uint64(ino))
	c.inodeClear.set(uint64(ino))
	c.inodeSet.clear(uint64(ino))
	g := ondisk.Group(uint32(ino-1) / c.inodesPerGroup)
	d := c.desc(g)
	d.SetFreeInodes(d.FreeInodes() + 1)
	c.sb.FreeInodes.Set(c.sb.FreeInodes.Get() + 1)
	if dir && d.UsedDirs() > 0 {
		d.SetUsedDirs(d.UsedDirs() - 1)
	}
	c.sealDesc(g)
	c.setSuper()
}
