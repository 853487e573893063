package fsck

import (
	"encoding/binary"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// dxDir is the index of a directory.
type dxDir struct {
	hash   uint8 // as DirHash wants it
	fold   bool  // of names that are folded first
	depth  int   // levels of index nodes
	blocks []dxBlock
	bad    bool // it is dropped
}

// dxBlock is a block of a directory that has an index.
type dxBlock struct {
	kind     dxKind
	refs     int
	names    bool   // it has names that were hashed
	min, max uint32 // of their hashes
	entries  []dxRef
}

// dxRef leads from an index node to a block for names from a hash on.
type dxRef struct {
	hash uint32
	lblk uint32
}

type dxKind uint8

const (
	dxLeaf dxKind = iota
	dxRoot
	dxNode
)

// hashInfo is how names are hashed.
type hashInfo struct{ seed ondisk.HashSeed }

// hashEnd is above every hash of a name.
const hashEnd = 0xfffffffe

// htreePass1 checks the root of an index, and notes the index; true if the index
// is to be dropped.
func (c *checker) htreePass1(x *inodeState) bool {
	p := at(x.ino)
	if !x.isDir && c.fix(P1HtreeNodir, p) {
		return true
	}
	if !c.sb.HasCompat(ondisk.CompatDirIndex) && c.fix(P1HtreeSet, p) {
		return true
	}
	if !x.isDir || x.r.Base().Flags.Get()&ondisk.FlagInlineData != 0 {
		return false
	}
	var first ondisk.Fsblk
	for i := len(c.dblist) - 1; i >= 0 && c.dblist[i].ino == x.ino; i-- {
		if c.dblist[i].lblk == 0 {
			first = c.dblist[i].blk
		}
	}
	if !c.valid(first, 1) {
		return c.fix(P1HtreeBadroot, p)
	}
	data, err := c.block(first)
	if err != nil {
		return c.fix(P1HtreeBadroot, p)
	}
	info := endian.View[ondisk.DxRootInfo](data[ondisk.DxRootInfoOff:])
	if (info.Zero.Get() != 0 || info.InfoLength[0] < ondisk.DxRootInfoSize) && c.fix(P1HtreeBadroot, p) {
		return true
	}
	v := info.HashVersion[0]
	q := p
	q.Num = uint64(v)
	switch v {
	case ondisk.HashLegacy, ondisk.HashHalfMD4, ondisk.HashTEA, ondisk.HashSipHash:
	default:
		if c.fix(P1HtreeHashv, q) {
			return true
		}
	}
	fl := x.r.Base().Flags.Get()
	sip := fl&ondisk.FlagCasefold != 0 && fl&ondisk.FlagEncrypt != 0
	if sip && v != ondisk.HashSipHash && c.fix(P1HtreeNeedsSiphash, q) || !sip && v == ondisk.HashSipHash && c.fix(P1HtreeCannotSiphash, q) {
		return true
	}
	if info.UnusedFlags[0]&1 != 0 && c.fix(P1HtreeIncompat, p) {
		return true
	}
	most := 1
	if c.hasLargeDir {
		most = 2
	}
	q.Num = uint64(info.IndirectLevels[0])
	if int(info.IndirectLevels[0]) > most && c.fix(P1HtreeDepth, q) {
		return true
	}
	hash := c.sb.HashVersion(v)
	if v == ondisk.HashSipHash {
		hash = ondisk.HashSipHash // it takes the key
	}
	c.dx[x.ino] = &dxDir{hash: hash, fold: fl&ondisk.FlagCasefold != 0, depth: int(info.IndirectLevels[0]) + 1, blocks: make([]dxBlock, x.lastDB+1)}
	return false
}

// dxBlock tells what kind of block of an indexed directory s is.
func (c *checker) dxBlock(s *dirScan, _ ondisk.Fsblk) dxKind {
	d := s.dx
	if d == nil || d.bad {
		s.dx = nil
		return dxLeaf
	}
	p := at(s.ino)
	p.Lblk = int64(s.lblk)
	if s.lblk >= uint64(len(d.blocks)) {
		if c.fix(P2HtreeUnexpected, p) {
			c.clearIndex(s.ino)
		}
		s.dx = nil
		return dxLeaf
	}
	b := s.b
	blk := &d.blocks[s.lblk]
	blk.kind, blk.names, blk.entries = dxLeaf, false, blk.entries[:0]
	blk.min, blk.max = ^uint32(0), 0
	switch {
	case s.lblk == 0:
		info := endian.View[ondisk.DxRootInfo](b[ondisk.DxRootInfoOff:])
		if info.Zero.Get() != 0 || info.InfoLength[0] < ondisk.DxRootInfoSize || info.IndirectLevels[0] > 2 {
			if c.fix(P2HtreeBadRoot, p) {
				c.clearIndex(s.ino)
				s.dx = nil
				return dxLeaf
			}
		}
		blk.kind = dxRoot
	case binary.LittleEndian.Uint32(b) == 0 && c.recLen(s, 0) == c.blockSize && b[6] == 0 &&
		int(endian.View[ondisk.DxCountLimit](b[ondisk.DxNodeOff:]).Limit.Get()) == ondisk.DxLimit(c.blockSize, ondisk.DxNodeOff, c.hasCsum):
		blk.kind = dxNode
	}
	return blk.kind
}

// parseNode notes where an index node leads to.
func (c *checker) parseNode(s *dirScan, kind dxKind) {
	d, b := s.dx, s.b
	p := at(s.ino)
	p.Lblk = int64(s.lblk)
	off := ondisk.DxNodeOff
	if kind == dxRoot {
		off = ondisk.DxRootInfoOff + int(endian.View[ondisk.DxRootInfo](b[ondisk.DxRootInfoOff:]).InfoLength[0])
	}
	drop := func(code Code, n int) bool {
		q := p
		q.Num = uint64(n)
		if c.fix(code, q) {
			c.clearIndex(s.ino)
			s.dx = nil
			return true
		}
		return false
	}
	cl := endian.View[ondisk.DxCountLimit](b[off:])
	limit, n := int(cl.Limit.Get()), int(cl.Count.Get())
	want := ondisk.DxLimit(c.blockSize, off, c.hasCsum)
	if limit != want && drop(P2HtreeBadLimit, limit) {
		return
	}
	if (n > want || n == 0) && drop(P2HtreeBadCount, n) {
		return
	}
	n = min(n, want)
	blk := &d.blocks[s.lblk]
	prev := uint32(0)
	for i, e := range endian.Views[ondisk.DxEntry](b[off:], n) {
		h := e.Hash.Get() &^ 1
		if i == 0 {
			h = 0
		}
		if uint64(e.Lblk()) >= uint64(len(d.blocks)) {
			if drop(P2HtreeBadblk, int(e.Lblk())) {
				return
			}
			continue
		}
		if h < prev && drop(P2HtreeHashOrder, 0) {
			return
		}
		prev = h
		blk.entries = append(blk.entries, dxRef{h, uint32(e.Lblk())})
		if c.report != nil {
			c.report.refs = append(c.report.refs, uint32(e.Lblk()))
		} else {
			d.blocks[e.Lblk()].refs++
		}
	}
}

// dxName takes the hash of a name into account.
func (c *checker) dxName(s *dirScan, name []byte, _ int) {
	d := s.dx
	if s.dot < 2 || d.hash == ondisk.HashSipHash || d.blocks[s.lblk].kind != dxLeaf {
		return
	}
	if d.fold {
		if !ascii(name) {
			return
		}
		name = asciiLower(name)
	}
	h, _, ok := ondisk.DirHash(d.hash, &c.hashing.seed, name)
	if !ok {
		return
	}
	b := &d.blocks[s.lblk]
	b.names = true
	b.min, b.max = min(b.min, h), max(b.max, h)
}

// checkIndexes checks each index against the blocks of its directory.
func (c *checker) checkIndexes() {
	for _, dir := range c.dirs {
		d := c.dx[dir.ino]
		if d == nil || d.bad || !c.inodeDir.test(uint64(dir.ino)) || len(d.blocks) == 0 {
			continue
		}
		bad := false
		complain := func(code Code, lblk int) {
			p := at(dir.ino)
			p.Lblk = int64(lblk)
			c.tell(code, p)
			bad = true
		}
		depth := make([]int8, len(d.blocks))
		var walk func(lblk int, lo, hi uint32, level int)
		walk = func(lblk int, lo, hi uint32, level int) {
			b := &d.blocks[lblk]
			if depth[lblk] != 0 {
				return
			}
			depth[lblk] = int8(min(level+1, 100))
			if b.kind == dxLeaf || level > 3 {
				if b.names && b.min < lo {
					complain(P2HtreeMinHash, lblk)
				}
				if b.names && b.max > hi {
					complain(P2HtreeMaxHash, lblk)
				}
				return
			}
			for i, e := range b.entries {
				end := hi
				if i+1 < len(b.entries) {
					end = min(hi, b.entries[i+1].hash)
				}
				start := e.hash
				if i == 0 {
					start = lo
				}
				walk(int(e.lblk), start, end, level+1)
			}
		}
		walk(0, 0, hashEnd, 0)
		for i := range d.blocks {
			b := &d.blocks[i]
			switch {
			case i == 0:
			case b.refs == 0:
				complain(P2HtreeNotref, i)
				continue
			case b.refs > 1:
				complain(P2HtreeDupref, i)
			}
			if b.kind == dxLeaf && depth[i] != 0 && int(depth[i])-1 != d.depth {
				complain(P2HtreeBadDepth, i)
			}
		}
		if bad && c.fix(P2HtreeClear, at(dir.ino)) {
			c.clearIndex(dir.ino)
		}
	}
}

// clearIndex drops the index of a directory, which is built anew in pass 3A.
func (c *checker) clearIndex(ino ondisk.Ino) {
	c.editInode(ino, func(r ondisk.RawInode) {
		r.Base().Flags.Set(r.Base().Flags.Get() &^ ondisk.FlagIndex)
	})
	if d := c.dx[ino]; d != nil {
		d.bad = true
	}
	c.rehash[ino] = true
}
