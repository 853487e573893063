package ext2fs

import (
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// extentOps is a node of an extent tree. Ctx.Aux is the *FS.
type extentOps struct{}

var opsExtent buffer.Ops = extentOps{}

// Name implements buffer.Ops.
func (extentOps) Name() string { return "extent node" }

// Verify implements buffer.Ops: checksum, order of the entries, and that their
// blocks may hold data. What depends on the node above is checked by extFind.
func (extentOps) Verify(data []byte, blk buffer.Block, ctx buffer.Ctx) error {
	fs, _ := ctx.Aux.(*FS)
	_, err := ondisk.ExtentNodeHeader(data)
	if err == nil && fs != nil && fs.hasCsum {
		err = ondisk.VerifyExtentNode(data, ctx.Seed)
	}
	if err == nil {
		var valid func(ondisk.Fsblk, uint32) bool
		if fs != nil {
			valid = fs.validBlock
		}
		err = ondisk.CheckExtentNode(data, valid)
	}
	return ondisk.At(err, ondisk.Ino(ctx.Ino), ondisk.Fsblk(blk))
}

// Seal implements buffer.Ops.
func (extentOps) Seal(data []byte, _ buffer.Block, ctx buffer.Ctx) {
	if fs, _ := ctx.Aux.(*FS); fs != nil && fs.hasCsum {
		ondisk.SealExtentNode(data, ctx.Seed)
	}
}

// ctx returns what the checks of ip's blocks need.
func (ip *Inode) ctx() buffer.Ctx {
	return buffer.Ctx{Seed: ip.seed, Ino: uint32(ip.ino), Aux: ip.fs}
}

// extNode is one node on the way down an extent tree.
type extNode struct {
	buf    *buffer.Buf // pinned; nil for the root
	node   []byte
	pos    int    // index node: the entry taken; leaf: the last that starts at or before the block, -1 if none
	lo, hi uint64 // logical blocks that the node covers
}

func (n *extNode) header() *ondisk.ExtentHeader { return endian.View[ondisk.ExtentHeader](n.node) }
func (n *extNode) entries() int                 { return int(n.header().Entries.Get()) }
func (n *extNode) max() int                     { return int(n.header().Max.Get()) }

// leaf returns the extents of a node that has been checked.
func (n *extNode) leaf() []ondisk.Extent {
	return endian.Views[ondisk.Extent](n.node[ondisk.ExtentEntry:], n.entries())
}

// index returns the entries of an index node that has been checked.
func (n *extNode) index() []ondisk.ExtentIdx {
	return endian.Views[ondisk.ExtentIdx](n.node[ondisk.ExtentEntry:], n.entries())
}

// extPath is the way from the root of ip's extent tree, n[0], to a leaf,
// n[depth]. The nodes below the root are pinned until put.
type extPath struct {
	ip    *Inode
	depth int
	n     [ondisk.MaxExtentDepth + 2]extNode
}

func (p *extPath) leaf() *extNode { return &p.n[p.depth] }

// put unpins the nodes.
func (p *extPath) put() {
	for i := 1; i <= p.depth; i++ {
		p.n[i].buf.Put()
		p.n[i].buf = nil
	}
	p.depth = 0
}

// searchExtent returns the last of e that starts at or before lblk, -1 if all
// start after it.
func searchExtent(e []ondisk.Extent, lblk uint32) int {
	i, j := 0, len(e)
	for i < j {
		m := int(uint(i+j) >> 1)
		if e[m].Block.Get() <= lblk {
			i = m + 1
		} else {
			j = m
		}
	}
	return i - 1
}

// searchIndex is searchExtent for an index node.
func searchIndex(e []ondisk.ExtentIdx, lblk uint32) int {
	i, j := 0, len(e)
	for i < j {
		m := int(uint(i+j) >> 1)
		if e[m].Block.Get() <= lblk {
			i = m + 1
		} else {
			j = m
		}
	}
	return i - 1
}

// extCheckRoot checks the root of the extent tree, once: later changes are ours.
func (ip *Inode) extCheckRoot() error {
	if ip.fm.rootOK.Load() {
		return nil
	}
	if err := ondisk.CheckExtentNode(ip.raw.Base().Block[:], ip.fs.validBlock); err != nil {
		return ondisk.At(err, ip.ino, 0)
	}
	ip.fm.rootOK.Store(true)
	return nil
}

// extFind goes down to the leaf that covers lblk. p is empty; it must be put if
// there is no error. Nodes are verified by the cache; here, that each lies
// where the one above says: a level deeper, and in its range. So the walk ends,
// and visits no block range twice. mapMu is held.
func (ip *Inode) extFind(p *extPath, lblk ondisk.Lblk) error {
	err := ip.extWalk(p, lblk)
	if err != nil {
		p.put()
		err = ip.fs.corrupt(ip.ino, err)
	}
	return err
}

func (ip *Inode) extWalk(p *extPath, lblk ondisk.Lblk) error {
	p.ip, p.depth = ip, 0
	if err := ip.extCheckRoot(); err != nil {
		return err
	}
	n := &p.n[0]
	*n = extNode{node: ip.raw.Base().Block[:], hi: uint64(ondisk.MaxLblk) + 1}
	for left := int(n.header().Depth.Get()); left > 0; left-- {
		idx := n.index()
		n.pos = max(searchIndex(idx, uint32(lblk)), 0)
		e := &idx[n.pos]
		lo, hi := n.lo, n.hi
		if n.pos > 0 {
			lo = uint64(e.Block.Get())
		}
		if n.pos+1 < len(idx) {
			hi = uint64(idx[n.pos+1].Block.Get())
		}
		blk := e.Leaf()
		buf, err := ip.fs.cache.Read(buffer.Block(blk), opsExtent, ip.ctx())
		if err != nil {
			return err
		}
		p.depth++
		n = &p.n[p.depth]
		*n = extNode{buf: buf, node: buf.Data(), lo: lo, hi: hi}
		if err := n.checkPlace(left-1, uint64(e.Block.Get())); err != nil {
			return ondisk.At(err, ip.ino, blk)
		}
	}
	n.pos = searchExtent(n.leaf(), uint32(lblk))
	return nil
}

// checkPlace checks that n may hang where it does: at depth, under an entry for
// first, and with entries of its range only.
func (n *extNode) checkPlace(depth int, first uint64) error {
	h := n.header()
	if d := int(h.Depth.Get()); d != depth {
		return ondisk.Corrupt("extent header", 6, "depth %d, where it should be %d", d, depth)
	}
	k := n.entries()
	if k == 0 {
		return nil
	}
	var start, end uint64
	if depth == 0 {
		e := n.leaf()
		start, end = uint64(e[0].Block.Get()), uint64(e[k-1].Block.Get())+uint64(e[k-1].Len())
	} else {
		e := n.index()
		start, end = uint64(e[0].Block.Get()), uint64(e[k-1].Block.Get())+1
	}
	if start < first || end > n.hi {
		return ondisk.Corrupt("extent node", 0, "logical blocks %d to %d, where there should be %d to %d", start, end, first, n.hi)
	}
	return nil
}

// extRun returns the run at lblk: what is mapped there, or the hole up to the
// next extent. Holes that reach over a leaf's range end there.
func (ip *Inode) extRun(lblk ondisk.Lblk) (run, error) {
	var p extPath
	if err := ip.extFind(&p, lblk); err != nil {
		return run{}, err
	}
	n := p.leaf()
	e := n.leaf()
	r := run{lblk: lblk}
	end := n.hi
	if n.pos+1 < len(e) {
		end = uint64(e[n.pos+1].Block.Get())
	}
	if n.pos >= 0 {
		x := &e[n.pos]
		if in := uint64(lblk) - uint64(x.Block.Get()); in < uint64(x.Len()) {
			r.pblk = x.Start() + ondisk.Fsblk(in)
			end = uint64(lblk) - in + uint64(x.Len())
			r.state = runWritten
			if x.Unwritten() {
				r.state = runUnwritten
			}
		}
	}
	r.n = uint32(min(end-uint64(lblk), 1<<32-1))
	p.put()
	return r, nil
}

// initMap gives the inode an empty mapping: the root of an extent tree, or no
// blocks. mapMu is held exclusively, or ip is not shared.
func (ip *Inode) initMap() {
	b := ip.raw.Base()
	clear(b.Block[:])
	ip.setFlags(0, ondisk.FlagExtents)
	if ip.fs.hasExtents && (ip.isReg() || ip.isDir() || ip.isLnk()) {
		ondisk.InitExtentNode(b.Block[:], 0)
		ip.setFlags(ondisk.FlagExtents, 0)
	}
	ip.mappingChanged()
}

// mappingChanged is called when others have written i_block. mapMu is held
// exclusively, or ip is not shared.
func (ip *Inode) mappingChanged() { ip.fm.forget() }

// unmapped says whether the inode maps no blocks and has none for its mapping.
// mapMu is held.
func (ip *Inode) unmapped() bool {
	if !ip.isExtents() {
		for _, p := range ip.indRoot() {
			if p.Get() != 0 {
				return false
			}
		}
		return true
	}
	n := extNode{node: ip.raw.Base().Block[:]}
	return n.entries() == 0
}

// getWrite makes the node at level part of h's transaction. The root is in
// ip.raw: Inode.store puts it there.
func (p *extPath) getWrite(h *jbd2.Handle, level int) error {
	if level == 0 {
		return nil
	}
	return h.GetWrite(p.n[level].buf)
}

func (p *extPath) dirty(h *jbd2.Handle, level int) {
	if level > 0 {
		h.Dirty(p.n[level].buf)
	}
}
