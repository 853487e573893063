package fsck

import (
	"slices"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// dupState is what pass 1B finds out about blocks that are claimed twice.
type dupState struct {
	by     map[uint64]*dupCluster
	inodes []ondisk.Ino            // with such blocks, in order
	of     map[ondisk.Ino][]uint64 // their clusters
	acl    map[ondisk.Fsblk][]ondisk.Ino
}

// dupCluster is a cluster with several claims.
type dupCluster struct {
	claims int          // those of the file system itself not counted
	inodes []ondisk.Ino // that make them
	meta   bool         // it is the file system's own, or bad
}

// pass1b finds out who shares blocks (1B), what those are called (1C), and gives
// each its own copy, or deletes it (1D).
func (c *checker) pass1b() {
	c.begin(P1BPass)
	if c.unsharing() { // nothing is wrong, and counts follow
		c.noFix, c.counted = true, true
		defer func() { c.noFix, c.counted = false, false }()
	}
	d := &dupState{by: map[uint64]*dupCluster{}, of: map[ondisk.Ino][]uint64{}, acl: map[ondisk.Fsblk][]ondisk.Ino{}}
	for i := c.inodeUsed.next(1, uint64(c.inodes)+1); i <= uint64(c.inodes); i = c.inodeUsed.next(i+1, uint64(c.inodes)+1) {
		if i%4096 == 0 {
			c.poll()
		}
		c.claims(d, ondisk.Ino(i))
	}
	if len(d.inodes) == 0 {
		// Only the file system's own blocks are claimed by the bad blocks.
		c.dup = newBitmap(c.clusters)
		return
	}
	c.begin(P1CPass)
	names := c.namesOf(d.inodes)
	c.begin(P1DPass)
	p := at(0)
	p.Num = uint64(len(d.inodes))
	c.tell(P1DNumDup, p)
	if c.unsharing() {
		c.unshare(d)
		return
	}
	for _, ino := range d.inodes {
		if ino == ondisk.ResizeIno && len(d.inodes) > 1 {
			continue // the others give way
		}
		c.dedup(d, ino, names)
		if uint32(ino) == c.sb.JournalInum.Get() && c.sb.HasCompat(ondisk.CompatHasJournal) && c.canWrite() {
			c.copyJournalMap()
		}
	}
}

// claims notes which multiply claimed clusters an inode has.
func (c *checker) claims(d *dupState, ino ondisk.Ino) {
	if ino == ondisk.BadIno {
		return
	}
	r, err := c.inode(ino)
	if err != nil || r.Base().LinksCount.Get() == 0 && ino >= c.firstIno {
		return
	}
	last := ^uint64(0)
	add := func(k uint64) {
		if !c.dup.test(k) {
			return
		}
		x := d.by[k]
		if x == nil {
			b := c.clusterBlock(k)
			x = &dupCluster{meta: c.meta.anyRange(uint64(b), c.clusterRatio) || c.badList[b]}
			d.by[k] = x
		}
		x.claims++
		if !slices.Contains(x.inodes, ino) {
			x.inodes = append(x.inodes, ino)
		}
		if d.of[ino] == nil {
			d.inodes = append(d.inodes, ino)
		}
		d.of[ino] = append(d.of[ino], k)
	}
	_ = c.eachExtent(r, func(e extent) bool {
		if ino == ondisk.ResizeIno && c.meta.test(uint64(e.blk)) {
			return true // claimed with the descriptors
		}
		k, end := c.cluster(e.blk), c.cluster(e.blk+ondisk.Fsblk(e.n-1))+1
		if c.dup.next(k, end) == end {
			last = end - 1
			return true
		}
		for ; k < end; k++ {
			if k != last || e.meta || c.clusterBits == 0 {
				add(k)
				if !e.meta && c.misaligned(e) {
					add(k) // so that it is copied, even if nobody else has it
				}
			}
			last = k
		}
		return true
	})
	if b := r.FileACL(); b != 0 && c.valid(b, 1) && c.sb.HasCompat(ondisk.CompatExtAttr) {
		if d.acl[b] == nil {
			add(c.cluster(b))
		}
		d.acl[b] = append(d.acl[b], ino)
	}
	if ks := d.of[ino]; ks != nil {
		for i := 0; i < len(ks); {
			n := 1
			for i+n < len(ks) && ks[i+n] == ks[i]+uint64(n) {
				n++
			}
			p := at(ino)
			p.Blk = c.clusterBlock(ks[i])
			code := P1BDupBlock
			if n > 1 || c.clusterBits > 0 {
				code = P1BDupRange
				p.Num = uint64(n) << c.clusterBits
			}
			c.tell(code, p)
			i += n
		}
		c.endLatch(latchDup)
	}
}

// namesOf finds names of inodes by reading the directories.
func (c *checker) namesOf(inodes []ondisk.Ino) map[ondisk.Ino]string {
	out := map[ondisk.Ino]string{ondisk.RootIno: "/"}
	for _, b := range c.dblist {
		if b.blk == 0 || !c.valid(b.blk, 1) {
			continue
		}
		data, err := c.block(b.blk)
		if err != nil {
			continue
		}
		for off := 0; off < len(data); {
			e, err := ondisk.DirentAt(data, off, c.blockSize)
			if err != nil {
				break
			}
			if _, want := slices.BinarySearch(inodes, e.Ino); want && out[e.Ino] == "" && string(e.Name) != "." && string(e.Name) != ".." {
				out[e.Ino] = string(e.Name)
			}
			off += e.RecLen
		}
	}
	return out
}

// shared tells whether a claim of the cluster has to give way.
func (x *dupCluster) shared() bool { return x.claims > 1 || x.meta && x.claims > 0 }

// dedup gives an inode its own copy of the blocks that it shares.
func (c *checker) dedup(d *dupState, ino ondisk.Ino, names map[ondisk.Ino]string) {
	var with []ondisk.Ino
	meta, left, n := false, false, 0
	var seen []uint64
	for _, k := range d.of[ino] {
		x := d.by[k]
		n++
		if slices.Contains(seen, k) {
			continue
		}
		seen = append(seen, k)
		meta = meta || x.meta
		left = left || x.shared()
		for _, o := range x.inodes {
			if o != ino && !slices.Contains(with, o) {
				with = append(with, o)
			}
		}
	}
	p := at(ino)
	p.Path = names[ino]
	q := p
	q.Num = uint64(n)
	c.tell(P1DDupFile, q)
	if meta {
		c.tell(P1DShareMeta, p)
	}
	for _, o := range with {
		q := at(o)
		q.Path = names[o]
		c.tell(P1DDupFileList, q)
	}
	if !left {
		c.tell(P1DDealtWith, p)
		return
	}
	if c.fix(P1DClone, p) {
		if c.clone(d, ino) {
			return
		}
		c.tell(P1DCloneError, p)
	}
	if c.fix(P1DDelete, p) {
		c.deleteFile(d, ino)
	}
}

// drop takes one claim off a cluster.
func (c *checker) drop(d *dupState, k uint64) {
	x := d.by[k]
	if x == nil {
		return
	}
	x.claims--
	if x.claims <= 1 && !x.meta || x.claims == 0 {
		c.dup.clear(k)
	}
	if x.claims == 0 && !x.meta {
		c.release(c.clusterBlock(k))
	}
}

// clone copies the shared blocks of an inode, and makes its map anew to name the
// copies. false: there is no space, nothing has changed.
func (c *checker) clone(d *dupState, ino ondisk.Ino) bool {
	r, err := c.inode(ino)
	if err != nil {
		return false
	}
	runs, meta, mapErr := c.runs(r)
	var (
		out   []extent
		taken []ondisk.Fsblk
		from  []uint64 // clusters whose claim is given up
		moved bool
	)
	fail := func() bool {
		for _, b := range taken {
			c.release(b)
		}
		return false
	}
	give := func(k uint64) bool {
		x := d.by[k]
		if x == nil {
			return false
		}
		n := 0
		for _, f := range from {
			if f == k {
				n++
			}
		}
		return x.claims-n > 1 || x.meta
	}
	buf := make([]byte, c.blockSize)
	if c.clusterBits > 0 {
		var ok bool
		if out, taken, from, ok = c.cloneClusters(d, ino, runs, give); !ok {
			return fail()
		}
		moved = len(taken) > 0
		runs = nil
	}
	for _, e := range runs {
		for i := range e.n {
			blk := e.blk + ondisk.Fsblk(i)
			k := c.cluster(blk)
			to := blk
			if c.dup.test(k) && give(k) {
				b, ok := c.alloc(c.goalOf(ino), false)
				if !ok {
					return fail()
				}
				taken = append(taken, b)
				c.readFound(blk, buf)
				c.write(b, buf)
				from = append(from, k)
				to = b
				moved = true
			}
			if z := len(out) - 1; z >= 0 && out[z].lblk+out[z].n == e.lblk+i && out[z].blk+ondisk.Fsblk(out[z].n) == to && out[z].unwritten == e.unwritten {
				out[z].n++
			} else {
				out = append(out, extent{e.lblk + i, to, 1, e.unwritten, false})
			}
		}
	}
	if mapErr != nil {
		c.tellLeftOut(ino, r)
	}
	metaShared := false
	for _, b := range meta {
		metaShared = metaShared || c.dup.test(c.cluster(b))
	}
	acl := r.FileACL()
	var others []ondisk.Ino
	if acl != 0 && c.valid(acl, 1) && c.dup.test(c.cluster(acl)) && give(c.cluster(acl)) && len(d.acl[acl]) > 0 && d.acl[acl][0] == ino {
		b, ok := c.alloc(c.goalOf(ino), false)
		if !ok {
			return fail()
		}
		taken = append(taken, b)
		data, err := c.block(acl)
		if err != nil {
			return fail()
		}
		if c.hasCsum {
			ondisk.SealXattrBlock(data, b, c.seed)
		}
		c.write(b, data)
		r.SetFileACL(b)
		others = d.acl[acl][1:]
		from = append(from, c.cluster(acl))
		c.xattrs.refs[b] = c.xattrs.refs[acl]
		delete(c.xattrs.refs, acl)
	}
	if moved || metaShared {
		added, ok := c.storeMap(ino, r, out)
		if !ok {
			return fail()
		}
		n := c.countBlocks(r, out, len(added))
		if have := r.Blocks(c.hasHugeFile); mapErr != nil && have != n {
			p := at(ino)
			p.Code, p.Num, p.Want, p.Vals, p.Answer = P1BadIBlocks, have, n, true, true
			c.note(&p)
		}
		r.SetBlocks(n)
		c.sync()
		c.writeInode(ino, r)
		for _, b := range meta {
			if k := c.cluster(b); c.dup.test(k) {
				from = append(from, k)
			} else {
				c.release(b)
			}
		}
		if c.inodeDir.test(uint64(ino)) {
			c.moveDirBlocks(ino, out)
		}
		if mapErr != nil {
			c.restart = true
		}
	} else {
		c.sync()
		c.writeInode(ino, r)
	}
	for _, o := range others {
		c.editInode(o, func(x ondisk.RawInode) { x.SetFileACL(r.FileACL()) })
	}
	for _, k := range from {
		c.drop(d, k)
	}
	return true
}

// tellLeftOut tells what a map made anew does not map: it lay in a block that was
// not to be written while it was shared with the file system itself.
func (c *checker) tellLeftOut(ino ondisk.Ino, r ondisk.RawInode) {
	n := 0
	w := mapWalk{c: c, f: func(extent) bool { return true }, left: uint64(c.blocks) + 1<<16}
	w.tell = func(code Code, lblk uint64, b ondisk.Fsblk) {
		if n++; n > tooMany {
			return
		}
		p := at(ino)
		p.Code, p.Lblk, p.Blk, p.Answer = code, int64(lblk), b, true
		c.note(&p)
	}
	_ = w.inode(r)
}

// misaligned tells whether an extent lies otherwise in its clusters than in those
// of the file.
func (c *checker) misaligned(e extent) bool {
	m := c.clusterRatio - 1
	return uint64(e.blk-c.firstData)&m != e.lblk&m
}

// cloneClusters copies, for clone, the clusters of a file of which some blocks are shared or out of
// line. It returns what the file maps then, the clusters that were taken, and those
// whose claims are given up.
func (c *checker) cloneClusters(d *dupState, ino ondisk.Ino, runs []extent, give func(k uint64) bool) (out []extent, taken []ondisk.Fsblk, from []uint64, ok bool) {
	m := c.clusterRatio - 1
	need := map[uint64]bool{} // clusters of the file
	for _, e := range runs {
		for i := range e.n {
			if k := c.cluster(e.blk + ondisk.Fsblk(i)); c.misaligned(e) || c.dup.test(k) && give(k) {
				need[(e.lblk+i)>>c.clusterBits] = true
			}
		}
	}
	placed := map[uint64]ondisk.Fsblk{}
	left, kept := map[uint64]bool{}, map[uint64]bool{}
	buf := make([]byte, c.blockSize)
	for _, e := range runs {
		for i := range e.n {
			blk, l := e.blk+ondisk.Fsblk(i), e.lblk+i
			to, k := blk, c.cluster(blk)
			if lc := l >> c.clusterBits; need[lc] {
				if placed[lc] == 0 {
					b, ok := c.alloc(c.goalOf(ino), false)
					if !ok {
						return nil, taken, nil, false
					}
					taken = append(taken, b)
					placed[lc] = b
				}
				to = placed[lc] + ondisk.Fsblk(l&m)
				c.readFound(blk, buf)
				c.write(to, buf)
				left[k] = true
			} else {
				kept[k] = true
			}
			if z := len(out) - 1; z >= 0 && out[z].lblk+out[z].n == l && out[z].blk+ondisk.Fsblk(out[z].n) == to && out[z].unwritten == e.unwritten {
				out[z].n++
			} else {
				out = append(out, extent{l, to, 1, e.unwritten, false})
			}
		}
	}
	for k := range left {
		n := 0
		for _, x := range d.of[ino] {
			if x == k {
				n++
			}
		}
		if kept[k] {
			n-- // one claim stays
		}
		for range n {
			from = append(from, k)
		}
		if n == 0 && !kept[k] {
			c.release(c.clusterBlock(k))
		}
	}
	return out, taken, from, true
}

// deleteFile frees an inode and what it alone claims.
func (c *checker) deleteFile(d *dupState, ino ondisk.Ino) {
	r, err := c.inode(ino)
	if err != nil {
		return
	}
	last := ^uint64(0)
	var free []ondisk.Fsblk
	var claims []uint64
	_ = c.eachExtent(r, func(e extent) bool {
		for i := range e.n {
			b := e.blk + ondisk.Fsblk(i)
			k := c.cluster(b)
			if k == last && !e.meta {
				continue
			}
			last = k
			if c.dup.test(k) {
				claims = append(claims, k)
			} else {
				free = append(free, b)
			}
		}
		return true
	})
	acl := r.FileACL()
	isDir := c.inodeDir.test(uint64(ino))
	was := c.counted
	c.counted = true
	defer func() { c.counted = was }()
	c.clearInode(ino, r, false)
	c.inodeUsed.set(uint64(ino))
	c.freeInode(ino, isDir)
	for _, k := range claims {
		c.drop(d, k)
	}
	for _, b := range free {
		c.release(b)
	}
	if acl != 0 && c.valid(acl, 1) {
		if k := c.cluster(acl); c.dup.test(k) {
			c.drop(d, k)
		} else {
			c.dropXattrBlock(acl)
		}
	}
}
