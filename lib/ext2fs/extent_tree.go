package ext2fs

import (
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// Extent trees change by one operation, splice: some entries of a node are
// replaced by others. A node that overflows is split and the one above gets an
// entry, by splice again; a full root moves into a block, and the tree is a
// level deeper; a node that has become empty is freed, and the one above loses
// its entry. Blocks are allocated before anything changes, so that a tree is
// as it was if there is no space.

// extRec is an entry of a node, of a leaf or of an index.
type extRec = [ondisk.ExtentEntry]byte

func leafRec(lblk ondisk.Lblk, pblk ondisk.Fsblk, n uint32, unwritten bool) (r extRec) {
	endian.View[ondisk.Extent](r[:]).Set(lblk, pblk, n, unwritten)
	return r
}

// extFresh is the blocks allocated for nodes of a tree that is about to grow.
type extFresh struct {
	blk [ondisk.MaxExtentDepth + 2]ondisk.Fsblk
	n   int // not used yet: blk[:n]
}

// take returns the next block as a node of the given depth, pinned, in h.
func (f *extFresh) take(h *jbd2.Handle, ip *Inode, depth int) (*buffer.Buf, error) {
	blk := f.blk[f.n-1]
	buf, err := ip.fs.cache.New(buffer.Block(blk), opsExtent, ip.ctx())
	if err != nil {
		return nil, err
	}
	if err := h.GetCreate(buf); err != nil {
		buf.Put()
		return nil, err
	}
	f.n--
	clear(buf.Data())
	ondisk.InitExtentNode(buf.Data(), depth)
	h.Dirty(buf)
	return buf, nil
}

// prepare allocates what splice needs to add grow entries to the leaf of p.
func (p *extPath) prepare(h *jbd2.Handle, f *extFresh, grow int) error {
	ip := p.ip
	need := 0
	for l := p.depth; l >= 0 && grow > 0; l-- {
		if p.n[l].entries()+grow <= p.n[l].max() {
			break
		}
		need++
		grow = 1
		if l == 0 && p.n[0].header().Depth.Get() >= ondisk.MaxExtentDepth {
			return ip.fs.corrupt(ip.ino, ondisk.Corrupt("extent tree", 6, "full at depth %d", ondisk.MaxExtentDepth))
		}
	}
	if need == 0 {
		return nil
	}
	goal := ip.fs.goalFor(ip, 0)
	if ip.fm.nodesAt != 0 {
		goal = ip.fm.nodesAt
	} else if p.depth > 0 {
		goal = ondisk.Fsblk(p.leaf().buf.Block())
	} else if e := p.n[0].leaf(); len(e) > 0 {
		goal = e[0].Start()
	}
	for f.n < need {
		blk, err := ip.allocNode(h, goal)
		if err != nil {
			f.release(h, ip)
			return err
		}
		f.blk[f.n] = blk
		f.n++
		ip.addBlocks(int64(ip.fs.clusterRatio))
	}
	return nil
}

// allocNode allocates a block for a node: one of those that are set aside, or else
// one near goal.
func (ip *Inode) allocNode(h *jbd2.Handle, goal ondisk.Fsblk) (ondisk.Fsblk, error) {
	n := len(ip.fm.spare)
	if n == 0 {
		return ip.fs.allocMeta(h, ip, goal)
	}
	blk := ip.fm.spare[n-1]
	ip.fm.spare = ip.fm.spare[:n-1]
	return blk, ip.fs.commitReserved(h, blk, ip.fs.clusterRatio)
}

// release frees blocks that were not used.
func (f *extFresh) release(h *jbd2.Handle, ip *Inode) {
	for ; f.n > 0; f.n-- {
		ip.addBlocks(-int64(ip.fs.clusterRatio))
		if err := ip.fs.freeBlocks(h, f.blk[f.n-1], ip.fs.clusterRatio, false); err != nil {
			ip.fs.log.Error("block not freed", "block", f.blk[f.n-1], "err", err)
		}
	}
}

// edit replaces del entries of the leaf from pos on by ins. p is put: after a
// change it may lead nowhere. The caller stores the inode.
func (p *extPath) edit(h *jbd2.Handle, pos, del int, ins ...extRec) error {
	var f extFresh
	err := p.prepare(h, &f, len(ins)-del)
	if err == nil {
		err = p.splice(h, &f, p.depth, pos, del, ins)
		f.release(h, p.ip)
	}
	p.ip.fm.forgetRuns()
	p.put()
	return err
}

// splice replaces del entries of the node at level, from pos on, by ins. f has
// the blocks that it takes. The path may lead nowhere afterwards.
func (p *extPath) splice(h *jbd2.Handle, f *extFresh, level, pos, del int, ins []extRec) error {
	n := &p.n[level]
	was := n.entries()
	now := was - del + len(ins)
	if now == 0 && level > 0 {
		return p.dropNode(h, f, level)
	}
	if now > n.max() && level == 0 {
		if err := p.growRoot(h, f); err != nil {
			return err
		}
		level, n = 1, &p.n[1]
	}
	if now > n.max() {
		return p.split(h, f, level, pos, del, ins)
	}
	if err := p.getWrite(h, level); err != nil {
		return err
	}
	body := n.node[ondisk.ExtentEntry:]
	const sz = ondisk.ExtentEntry
	copy(body[(pos+len(ins))*sz:], body[(pos+del)*sz:was*sz])
	for i := range ins {
		copy(body[(pos+i)*sz:], ins[i][:])
	}
	if now < was {
		clear(body[now*sz : was*sz])
	}
	n.header().Entries.Set(uint16(now))
	p.dirty(h, level)
	if now == 0 {
		n.header().Depth.Set(0)
		return nil
	}
	if pos == 0 {
		return p.fixFirst(h, level)
	}
	return nil
}

// firstBlock returns the first logical block of a node that has entries; it is
// the first field of an entry of either kind.
func (n *extNode) firstBlock() uint32 {
	return endian.View[endian.LE32](n.node[ondisk.ExtentEntry:]).Get()
}

// fixFirst makes the entries above the node at level start where it does.
func (p *extPath) fixFirst(h *jbd2.Handle, level int) error {
	first := p.n[level].firstBlock()
	for l := level - 1; l >= 0; l-- {
		e := &p.n[l].index()[p.n[l].pos]
		if e.Block.Get() == first {
			return nil
		}
		if err := p.getWrite(h, l); err != nil {
			return err
		}
		e.Block.Set(first)
		p.dirty(h, l)
		if p.n[l].pos > 0 {
			return nil
		}
	}
	return nil
}

// growRoot moves the entries of the root into a block, which becomes its only
// child. p then leads through that block.
func (p *extPath) growRoot(h *jbd2.Handle, f *extFresh) error {
	root := &p.n[0]
	depth := int(root.header().Depth.Get())
	buf, err := f.take(h, p.ip, depth)
	if err != nil {
		return err
	}
	k := root.entries()
	const sz = ondisk.ExtentEntry
	copy(buf.Data()[sz:], root.node[sz:sz*(k+1)])
	child := extNode{buf: buf, node: buf.Data(), pos: root.pos, lo: root.lo, hi: root.hi}
	child.header().Entries.Set(uint16(k))
	copy(p.n[2:], p.n[1:p.depth+1])
	p.n[1] = child
	p.depth++
	first := child.firstBlock()
	clear(root.node[sz:])
	root.pos = 0
	root.header().Entries.Set(1)
	root.header().Depth.Set(uint16(depth + 1))
	endian.View[ondisk.ExtentIdx](root.node[sz:]).Set(ondisk.Lblk(first), ondisk.Fsblk(buf.Block()))
	return nil
}

// split is splice for a node, not the root, that cannot hold the result: its
// tail goes into a fresh node. What is added at the end of the tree leaves the
// nodes before it full, since files grow there.
func (p *extPath) split(h *jbd2.Handle, f *extFresh, level, pos, del int, ins []extRec) error {
	const sz = ondisk.ExtentEntry
	n := &p.n[level]
	was := n.entries()
	all := make([]byte, 0, (was+len(ins))*sz)
	all = append(all, n.node[sz:(1+pos)*sz]...)
	for i := range ins {
		all = append(all, ins[i][:]...)
	}
	all = append(all, n.node[(1+pos+del)*sz:(1+was)*sz]...)
	total := len(all) / sz
	left := total / 2
	if pos+del == was && n.hi > uint64(ondisk.MaxLblk) {
		left = min(n.max(), total-1)
	}
	if err := p.getWrite(h, level); err != nil {
		return err
	}
	buf, err := f.take(h, p.ip, int(n.header().Depth.Get()))
	if err != nil {
		return err
	}
	right := extNode{buf: buf, node: buf.Data()}
	copy(right.node[sz:], all[left*sz:])
	right.header().Entries.Set(uint16(total - left))
	clear(n.node[sz : sz*(1+n.max())])
	copy(n.node[sz:], all[:left*sz])
	n.header().Entries.Set(uint16(left))
	p.dirty(h, level)
	var rec extRec
	endian.View[ondisk.ExtentIdx](rec[:]).Set(ondisk.Lblk(right.firstBlock()), ondisk.Fsblk(buf.Block()))
	buf.Put()
	if pos == 0 {
		if err := p.fixFirst(h, level); err != nil {
			return err
		}
	}
	return p.splice(h, f, level-1, p.n[level-1].pos+1, 0, []extRec{rec})
}

// dropNode frees the node at level, which has become empty, and its entry.
func (p *extPath) dropNode(h *jbd2.Handle, f *extFresh, level int) error {
	if err := p.splice(h, f, level-1, p.n[level-1].pos, 1, nil); err != nil {
		return err
	}
	return p.ip.freeMeta(h, ondisk.Fsblk(p.n[level].buf.Block()))
}

// freeMeta frees a block of metadata of ip, allocated by allocMeta.
func (ip *Inode) freeMeta(h *jbd2.Handle, blk ondisk.Fsblk) error {
	fs := ip.fs
	ip.addBlocks(-int64(fs.clusterRatio))
	return fs.freeBlocks(h, blk&^ondisk.Fsblk(fs.clusterRatio-1), fs.clusterRatio, true)
}

// extShrink pulls the only child of the root up into it, as long as its entries
// fit: trees that lost entries become flat again.
func (ip *Inode) extShrink(h *jbd2.Handle) error {
	for {
		root := extNode{node: ip.raw.Base().Block[:]}
		if root.header().Depth.Get() == 0 || root.entries() != 1 {
			return nil
		}
		var p extPath
		if err := ip.extFind(&p, 0); err != nil {
			return err
		}
		child := &p.n[1]
		k := child.entries()
		if k > root.max() {
			p.put()
			return nil
		}
		const sz = ondisk.ExtentEntry
		depth := child.header().Depth.Get()
		clear(root.node[sz:])
		copy(root.node[sz:], child.node[sz:sz*(k+1)])
		root.header().Entries.Set(uint16(k))
		root.header().Depth.Set(depth)
		err := ip.freeMeta(h, ondisk.Fsblk(child.buf.Block()))
		p.put()
		ip.fm.forgetRuns()
		if err != nil {
			return err
		}
	}
}
