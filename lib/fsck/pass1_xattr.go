package fsck

import (
	"encoding/binary"
	"slices"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// xattrState is what pass 1 finds out about attributes.
type xattrState struct {
	refs   map[ondisk.Fsblk]*xattrRef // attribute blocks
	inodes map[ondisk.Ino]uint64      // uses of inodes that hold values
}

// xattrRef counts the inodes that use an attribute block.
type xattrRef struct {
	stored, seen uint32
	values       []ondisk.Ino // inodes that hold its values
	clusters     uint64       // that these count for
}

// region notes which bytes of a structure are taken.
type region struct{ used []bool }

// take takes n bytes at off; false if some of them are taken, or do not exist.
func (r *region) take(off, n int) bool {
	if off < 0 || n < 0 || off+n > len(r.used) {
		return false
	}
	for i := off; i < off+n; i++ {
		if r.used[i] {
			return false
		}
		r.used[i] = true
	}
	return true
}

// extraSpace checks what follows the first 128 bytes of an inode.
func (c *checker) extraSpace(x *inodeState) {
	if c.inodeSize <= ondisk.GoodOldInodeSz {
		return
	}
	r := x.r
	most := c.inodeSize - ondisk.GoodOldInodeSz
	f := endian.View[endian.LE16](r[ondisk.GoodOldInodeSz:])
	if n := int(f.Get()); n != 0 && (n < 4 || n > most || n%4 != 0) {
		p := at(x.ino)
		p.Num = uint64(n)
		if !c.fix(P1ExtraIsize, p) {
			return
		}
		if n < 4 || n > most {
			n = int(c.sb.WantExtraIsize.Get())
		} else {
			n = (n + 3) &^ 3
		}
		f.Set(uint16(n))
		x.write(c)
	}
	n := int(f.Get())
	if n < most-4 && binary.LittleEndian.Uint32(r[ondisk.GoodOldInodeSz+n:]) == ondisk.XattrMagic {
		c.xattrInode(x, r[ondisk.GoodOldInodeSz+n:])
	}
	if c.now < 1<<31 {
		c.negativeEpoch(x)
	}
}

// negativeEpoch looks for times before 1970 with an epoch that old kernels
// wrote wrongly, which puts them after 2310.
func (c *checker) negativeEpoch(x *inodeState) {
	if x.r.ExtraIsize() < 16 {
		return
	}
	b := x.r.Base()
	e := endian.View[ondisk.InodeExtra](x.r[ondisk.GoodOldInodeSz:])
	ps := [...]struct{ lo, hi *endian.LE32 }{{&b.Ctime, &e.CtimeExtra}, {&b.Mtime, &e.MtimeExtra}, {&b.Atime, &e.AtimeExtra}, {&e.Crtime, &e.CrtimeExt}}
	times := ps[:]
	if x.r.ExtraIsize() < 24 {
		times = ps[:3]
	}
	bad := false
	for _, p := range times {
		bad = bad || int32(p.lo.Get()) < 0 && p.hi.Get()&3 == 3
	}
	if !bad || !c.fix(P1EATimeOutOfRange, at(x.ino)) {
		return
	}
	for _, p := range times {
		if int32(p.lo.Get()) < 0 && p.hi.Get()&3 == 3 {
			p.hi.Set(p.hi.Get() &^ 3)
		}
	}
	x.write(c)
}

// xattrInode checks the attributes in an inode; area starts with their magic.
func (c *checker) xattrInode(x *inodeState, area []byte) {
	b := area[4:]
	reg := region{make([]bool, len(b))}
	code, p := Code(0), at(x.ino)
	off := 0
	remain := len(b)
	var values []ondisk.Ino
	clusters := uint64(0)
	for code == 0 && off+4 <= len(b) && binary.LittleEndian.Uint32(b[off:]) != 0 && remain >= ondisk.XattrEntrySize {
		if off+ondisk.XattrEntrySize > len(b) {
			code = P1InodeEACollision
			break
		}
		e := endian.View[ondisk.XattrEntry](b[off:])
		n, size := int(e.NameLen[0]), int(e.ValueSize.Get())
		remain -= ondisk.XattrEntrySize
		switch {
		case !reg.take(off, min(ondisk.XattrEntrySize, len(b)-off)):
			code = P1InodeEACollision
		case !reg.take(off+ondisk.XattrEntrySize, ondisk.XattrLen(n)-ondisk.XattrEntrySize):
			code = P1InodeEACollision
		case n > remain:
			code, p.Num = P1AttrNameLen, uint64(n)
		case e.ValueInum.Get() == 0:
			remain -= ondisk.XattrPad(n)
			at := int(e.ValueOffs.Get())
			switch {
			case size > remain || size < 0:
				code, p.Num = P1AttrValueSize, uint64(e.ValueSize.Get())
			case size > 0 && !reg.take(at, ondisk.XattrPad(size)):
				code = P1InodeEACollision
			case size == 0 && at > len(b):
				q := p
				q.Num = uint64(at)
				if c.fix(P1AttrValueOffset, q) { // there is nothing there to lose
					e.ValueOffs.Set(0)
					x.write(c)
				}
			default:
				if h := e.Hash.Get(); h != 0 {
					v := make([]byte, ondisk.XattrPad(size))
					copy(v, b[at:min(at+ondisk.XattrPad(size), len(b))])
					name := b[off+ondisk.XattrEntrySize : off+ondisk.XattrEntrySize+n]
					if h != ondisk.XattrHash(name, v) && h != ondisk.XattrHashSigned(name, v) {
						code, p.Num = P1AttrHash, uint64(h)
					}
				}
				remain -= ondisk.XattrPad(size)
			}
		default:
			if size == 0 {
				code, p.Num = P1AttrValueSize, 0
				break
			}
			var v ondisk.Ino
			var k uint64
			if code, v, k = c.valueInode(x, e, b[off+ondisk.XattrEntrySize:off+ondisk.XattrEntrySize+n]); code == 0 {
				values = append(values, v)
				clusters += k
			}
		}
		off += ondisk.XattrLen(n)
	}
	if code == 0 && !reg.take(off, 4) && off+4 <= len(b) {
		code = P1InodeEACollision
	}
	if code == 0 {
		for _, v := range values {
			c.xattrs.inodes[v]++
		}
		x.clusters += clusters
		return
	}
	if c.fix(code, p) {
		clear(area)
		x.write(c)
		x.hasInline = false
	}
}

// valueInode checks the inode that holds an attribute's value. It returns how
// many clusters the owner of the attribute is charged for it.
func (c *checker) valueInode(x *inodeState, e *ondisk.XattrEntry, name []byte) (Code, ondisk.Ino, uint64) {
	c.leave()
	ino := ondisk.Ino(e.ValueInum.Get())
	if ino < c.firstIno || uint32(ino) > c.inodes {
		return P1AttrInvalidEAInode, 0, 0
	}
	if !c.hasEAInode {
		if c.fix(P1EAInodeFeature, at(x.ino)) {
			c.sb.FeatureIncompat.Set(c.sb.FeatureIncompat.Get() | ondisk.IncompatEAInode)
			c.setSuper()
			c.features()
			c.seed = c.sb.CsumSeed()
		}
	}
	r, err := c.inode(ino)
	if err != nil || r.Base().Mode.Get()&ondisk.ModeFmt != ondisk.ModeReg || uint64(r.Size(false)) != uint64(e.ValueSize.Get()) {
		return P1AttrInvalidEAInode, 0, 0
	}
	if r.Base().Flags.Get()&ondisk.FlagEAInode == 0 {
		p := at(x.ino)
		p.Num = uint64(ino)
		if c.fix(P1AttrSetEAInodeFl, p) {
			r.Base().Flags.Set(r.Base().Flags.Get() | ondisk.FlagEAInode)
			c.writeInode(ino, r)
		} else {
			return P1AttrNoEAInodeFl, 0, 0
		}
	}
	// One of the older kind, which its owner alone uses, is not charged.
	clusters := uint64(0)
	if h := r.Base().Atime.Get(); e.Hash.Get() == ondisk.XattrInumHash(name, h) || e.Hash.Get() == ondisk.XattrInumHashSigned(name, h) {
		unit := uint64(c.blockSize) << c.clusterBits
		clusters = (uint64(e.ValueSize.Get()) + unit - 1) / unit
	} else if ondisk.Ino(r.Base().Mtime.Get()) != x.ino || r.Base().Generation != x.r.Base().Generation {
		return P1AttrHash, 0, 0
	}
	return 0, ino, clusters
}

// xattrBlock checks the attribute block of an inode, and returns whether it has one.
func (c *checker) xattrBlock(x *inodeState) bool {
	b := x.r.Base()
	blk := ondisk.Fsblk(b.FileACLLo.Get())
	if c.has64 {
		blk = x.r.FileACL()
	}
	if blk == 0 {
		return false
	}
	if !c.sb.HasCompat(ondisk.CompatExtAttr) || !c.valid(blk, 1) {
		c.inodeBad.set(uint64(x.ino))
		return false
	}
	if ref := c.xattrs.refs[blk]; ref != nil {
		c.useXattrs(xattrUse{blk, ref})
		x.clusters += ref.clusters
		return true
	}
	p := at(x.ino)
	p.Blk = blk
	drop := func() bool {
		x.r.SetFileACL(0)
		x.write(c)
		return false
	}
	data, err := c.block(blk)
	if err != nil {
		if c.fix(P1ReadEABlock, p) {
			return drop()
		}
		return true
	}
	h := endian.View[ondisk.XattrHeader](data)
	if h.Magic.Get() != ondisk.XattrMagic {
		if c.fix(P1BadEABlock, p) {
			return drop()
		}
		c.claim(blk)
		return true
	}
	if h.Blocks.Get() != 1 && c.fix(P1EAMultiBlock, p) {
		return drop()
	}
	code, values, clusters := c.xattrEntries(x, data)
	if code != 0 {
		if c.fix(code, p) {
			return drop()
		}
	} else if c.hasCsum && isCsum(ondisk.VerifyXattrBlock(data, blk, c.seed, true, ondisk.Ino(c.inodes))) {
		if c.fix(P1EABlockOnlyCsum, p) {
			ondisk.SealXattrBlock(data, blk, c.seed)
			c.write(blk, data)
		}
	}
	for _, v := range values {
		c.xattrs.inodes[v]++
	}
	c.useXattrs(xattrUse{blk, &xattrRef{stored: h.Refcount.Get(), values: values, clusters: clusters}})
	x.clusters += clusters
	return true
}

// useXattrs counts a use of an attribute block, which the first one claims.
func (c *checker) useXattrs(u xattrUse) {
	ref := c.xattrs.refs[u.blk]
	if ref == nil {
		ref = &xattrRef{stored: u.ref.stored, values: u.ref.values, clusters: u.ref.clusters}
		c.xattrs.refs[u.blk] = ref
		if c.report == nil {
			c.claim(u.blk)
		}
	}
	if c.report != nil {
		c.report.xattrs = append(c.report.xattrs, u)
		return
	}
	ref.seen++
}

// xattrEntries checks the entries of an attribute block.
func (c *checker) xattrEntries(x *inodeState, b []byte) (code Code, values []ondisk.Ino, clusters uint64) {
	reg := region{make([]bool, len(b))}
	reg.take(0, ondisk.XattrHeaderSize)
	off := ondisk.XattrHeaderSize
	for off+4 <= len(b) && binary.LittleEndian.Uint32(b[off:]) != 0 {
		if off+ondisk.XattrEntrySize > len(b) {
			return P1EAAllocCollision, values, clusters
		}
		e := endian.View[ondisk.XattrEntry](b[off:])
		n := int(e.NameLen[0])
		if !reg.take(off, ondisk.XattrLen(n)) {
			return P1EAAllocCollision, values, clusters
		}
		if e.NameIndex[0] == 0 {
			return P1EABadName, values, clusters
		}
		if e.ValueInum.Get() == 0 {
			at, size := int(e.ValueOffs.Get()), int(e.ValueSize.Get())
			if size < 0 || at+size > len(b) {
				return P1EABadValue, values, clusters
			}
			if size > 0 && !reg.take(at, min(ondisk.XattrPad(size), len(b)-at)) {
				return P1EAAllocCollision, values, clusters
			}
			name := b[off+ondisk.XattrEntrySize : off+ondisk.XattrEntrySize+n]
			v := make([]byte, ondisk.XattrPad(size))
			copy(v, b[at:min(at+ondisk.XattrPad(size), len(b))])
			if size == 0 {
				v = nil
			}
			if h := e.Hash.Get(); h != ondisk.XattrHash(name, v) && h != ondisk.XattrHashSigned(name, v) {
				return P1AttrHash, values, clusters
			}
		} else {
			if e.ValueSize.Get() == 0 {
				return P1AttrValueSize, values, clusters
			}
			vc, v, k := c.valueInode(x, e, b[off+ondisk.XattrEntrySize:off+ondisk.XattrEntrySize+n])
			if vc != 0 {
				return vc, values, clusters
			}
			values = append(values, v)
			clusters += k
		}
		off += ondisk.XattrLen(n)
	}
	if !reg.take(off, 4) {
		return P1EAAllocCollision, values, clusters
	}
	return 0, values, clusters
}

// fixRefcounts corrects the reference counts of attribute blocks.
func (c *checker) fixRefcounts() {
	var blks []ondisk.Fsblk
	for blk := range c.xattrs.refs {
		blks = append(blks, blk)
	}
	slices.Sort(blks)
	for _, blk := range blks {
		ref := c.xattrs.refs[blk]
		if ref.stored == ref.seen {
			continue
		}
		p := at(0)
		p.Blk = blk
		p.Num, p.Want, p.Vals = uint64(ref.stored), uint64(ref.seen), true
		if !c.fix(P1ExtattrRefcount, p) {
			continue
		}
		data, err := c.block(blk)
		if err != nil {
			c.failf("attribute block %d: %v", blk, err)
		}
		endian.View[ondisk.XattrHeader](data).Refcount.Set(ref.seen)
		if c.hasCsum {
			ondisk.SealXattrBlock(data, blk, c.seed)
		}
		c.write(blk, data)
		ref.stored = ref.seen
	}
}

// dropXattrBlock takes one use from an attribute block, and frees it after the last.
func (c *checker) dropXattrBlock(blk ondisk.Fsblk) {
	ref := c.xattrs.refs[blk]
	if ref == nil {
		return
	}
	data, err := c.block(blk)
	if err != nil {
		return
	}
	if ref.seen--; ref.seen == 0 {
		delete(c.xattrs.refs, blk)
		for _, v := range ref.values {
			c.xattrs.inodes[v]--
		}
		c.releaseCounted(blk)
		return
	}
	ref.stored = ref.seen
	endian.View[ondisk.XattrHeader](data).Refcount.Set(ref.seen)
	if c.hasCsum {
		ondisk.SealXattrBlock(data, blk, c.seed)
	}
	c.write(blk, data)
}

// xattrValue looks for an attribute of an inode that lies in it or its block.
func (c *checker) xattrValue(r ondisk.RawInode, index uint8, name string) (v []byte, ok bool) {
	if a, used, has := ondisk.InodeXattrs(r); has && used && a.Check(ondisk.Ino(c.inodes)) == nil {
		if off, found := a.Find(index, name, false); found {
			return a.Value(off), true
		}
	}
	if blk := r.FileACL(); blk != 0 && c.valid(blk, 1) {
		if data, err := c.block(blk); err == nil && endian.View[ondisk.XattrHeader](data).Magic.Get() == ondisk.XattrMagic {
			if a := ondisk.XattrBlock(data); a.Check(ondisk.Ino(c.inodes)) == nil {
				if off, found := a.Find(index, name, false); found {
					return a.Value(off), true
				}
			}
		}
	}
	return nil, false
}

// encState is what is known of encrypted inodes.
type encState struct {
	ids    map[string]int     // policies, numbered from 1
	policy map[ondisk.Ino]int // of encrypted inodes; 0 if it cannot be told
}

// encryptPass1 checks the encryption policy of an inode that is marked encrypted.
func (c *checker) encryptPass1(x *inodeState) {
	b := x.r.Base()
	if b.Flags.Get()&ondisk.FlagEncrypt == 0 {
		return
	}
	c.leave()
	v, ok := c.xattrValue(x.r, ondisk.XattrEncryptionIndex, "c")
	if !ok {
		if c.fix(P1MissingEncryptXattr, at(x.ino)) {
			b.Flags.Set(b.Flags.Get() &^ ondisk.FlagEncrypt)
			x.write(c)
			return
		}
		c.enc.policy[x.ino] = 0
		return
	}
	// A context is a version, modes, flags, the key's name and a nonce of 16 bytes.
	good := len(v) > 0 && (v[0] == 1 && len(v) == 28 || v[0] == 2 && len(v) == 40)
	if !good {
		if len(v) > 0 && v[0] > 2 {
			c.enc.policy[x.ino] = -1 // of a version to come
			return
		}
		if c.fix(P1CorruptEncryptXattr, at(x.ino)) {
			c.clearInode(x.ino, x.r, false)
			return
		}
		c.enc.policy[x.ino] = 0
		return
	}
	key := string(v[:len(v)-16])
	id := c.enc.ids[key]
	if id == 0 {
		id = len(c.enc.ids) + 1
		c.enc.ids[key] = id
	}
	c.enc.policy[x.ino] = id
}
