package fsck

import (
	"encoding/binary"
	"slices"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// The quota files of the vfsv1 format: a header, then a radix tree of four
// levels, a byte of the id each, over blocks that hold the entries.
// Kernel: fs/quota/quotaio_v2.h.
const (
	quotaBlock   = 1024 // bytes, whatever the file system has
	quotaEntry   = 72
	quotaHeader  = 16 // of a block of entries
	quotaPer     = (quotaBlock - quotaHeader) / quotaEntry
	quotaLevels  = 4
	quotaGrace   = 7 * 24 * 3600 // seconds
	quotaVersion = 1
	quotaMost    = 1 << 20 // entries that are looked at
)

var quotaMagic = [3]uint32{0xd9c01f11, 0xd9c01927, 0xd9c03f14}

// usage is what an id uses.
type usage struct{ inodes, space uint64 }

// checkQuota compares the usage that quota files record with what was found.
func (c *checker) checkQuota() {
	if !c.hasQuota || c.restart {
		return
	}
	s := c.sb
	inums := [3]ondisk.Ino{ondisk.Ino(s.UsrQuotaInum.Get()), ondisk.Ino(s.GrpQuotaInum.Get()), ondisk.Ino(s.PrjQuotaInum.Get())}
	var used [3]map[uint32]usage
	for t, ino := range inums {
		if ino == 0 || !c.inodeUsed.test(uint64(ino)) {
			continue
		}
		if used[0] == nil {
			used = c.usages()
		}
		entries, header := c.quotaRead(ino, quotaMagic[t])
		if header != nil && quotaAgrees(entries, used[t]) {
			continue
		}
		p := at(ino)
		// What was freed before the passes is known not to be recorded.
		if !c.orphansFreed && !c.fix(P6UpdateQuotas, p) {
			continue
		}
		if !c.contentAnew(ino, quotaFile(quotaMagic[t], header, entries, used[t])) {
			c.invalid = true
			c.tell(0x060006, p)
		}
	}
}

// usages adds up what inodes use, by owner, group and project.
func (c *checker) usages() (used [3]map[uint32]usage) {
	for t := range used {
		used[t] = map[uint32]usage{}
	}
	for i := c.inodeUsed.next(1, uint64(c.inodes)+1); i <= uint64(c.inodes); i = c.inodeUsed.next(i+1, uint64(c.inodes)+1) {
		ino := ondisk.Ino(i)
		if i%8192 == 0 {
			c.poll()
		}
		if ino != ondisk.RootIno && ino < c.firstIno || c.hiddenInode(ino) {
			continue
		}
		r, err := c.inode(ino)
		if err != nil || r.Base().LinksCount.Get() == 0 || r.Base().Flags.Get()&ondisk.FlagEAInode != 0 {
			continue
		}
		space := r.Blocks(c.hasHugeFile) * 512
		if c.hasHugeFile && r.Base().Flags.Get()&ondisk.FlagHugeFile != 0 {
			space = r.Blocks(true) << c.blockBits
		}
		inodes := 1 + c.valueInodes(r)
		for t, id := range [3]uint32{r.UID(), r.GID(), r.Projid()} {
			u := used[t][id]
			u.inodes += inodes
			u.space += space
			used[t][id] = u
		}
	}
	return used
}

// valueInodes counts the attributes of an inode whose values are in inodes of their
// own. Its owner pays for each, whoever else has it too.
func (c *checker) valueInodes(r ondisk.RawInode) (n uint64) {
	if !c.sb.HasIncompat(ondisk.IncompatEAInode) {
		return 0
	}
	count := func(a ondisk.XattrArea) {
		if a.Check(ondisk.Ino(c.inodes)) != nil {
			return
		}
		for off := a.First(); !a.Last(off); off = a.Next(off) {
			if a.Entry(off).ValueInum.Get() != 0 {
				n++
			}
		}
	}
	if a, used, ok := ondisk.InodeXattrs(r); ok && used {
		count(a)
	}
	if blk := r.FileACL(); blk != 0 && c.valid(blk, 1) {
		if b, err := c.block(blk); err == nil {
			count(ondisk.XattrBlock(b))
		}
	}
	return n
}

// quotaRead returns the entries of a quota file by id, as they lie there, and
// its header; nil if the file is not one.
func (c *checker) quotaRead(ino ondisk.Ino, magic uint32) (entries map[uint32][]byte, header []byte) {
	le := binary.LittleEndian
	entries = map[uint32][]byte{}
	r, err := c.inode(ino)
	if err != nil {
		return entries, nil
	}
	runs, _, err := c.runs(r)
	if err != nil {
		return entries, nil
	}
	blocks := uint64(r.Size(false)) / quotaBlock
	get := func(n uint32) []byte {
		if uint64(n) >= blocks {
			return nil
		}
		off := uint64(n) * quotaBlock
		b := lookup(runs, off>>c.blockBits)
		if b == 0 {
			return nil
		}
		p := make([]byte, quotaBlock)
		if c.readAt(p, int64(b)<<c.blockBits+int64(off)&int64(c.blockSize-1)) != nil {
			return nil
		}
		return p
	}
	h := get(0)
	if h == nil || le.Uint32(h) != magic || le.Uint32(h[4:]) != quotaVersion {
		return entries, nil
	}
	good := true
	left := quotaMost
	var walk func(n uint32, level int, id uint32)
	walk = func(n uint32, level int, id uint32) {
		b := get(n)
		if b == nil || n == 0 {
			good = false
			return
		}
		if level == quotaLevels {
			for k := range quotaPer {
				e := b[quotaHeader+k*quotaEntry:][:quotaEntry]
				if le.Uint32(e) == id && nonzero(e) {
					entries[id] = e
				}
			}
			return
		}
		for k := range 256 {
			next := le.Uint32(b[4*k:])
			if left--; next == 0 || left < 0 {
				continue
			}
			walk(next, level+1, id<<8|uint32(k))
		}
	}
	walk(1, 0, 0)
	if !good {
		return entries, nil
	}
	return entries, h
}

// quotaAgrees tells whether the entries record the usage.
func quotaAgrees(entries map[uint32][]byte, used map[uint32]usage) bool {
	le := binary.LittleEndian
	for id, e := range entries {
		if u := used[id]; le.Uint64(e[24:]) != u.inodes || le.Uint64(e[48:]) != u.space {
			return false
		}
	}
	for id := range used {
		if entries[id] == nil {
			return false
		}
	}
	return true
}

// quotaFile returns the content of a quota file with that usage, and the limits
// that the entries have.
func quotaFile(magic uint32, header []byte, entries map[uint32][]byte, used map[uint32]usage) []byte {
	le := binary.LittleEndian
	var ids []uint32
	for id := range used {
		ids = append(ids, id)
	}
	for id := range entries {
		if _, ok := used[id]; !ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	data := make([]byte, 2*quotaBlock)
	add := func() uint32 {
		data = append(data, make([]byte, quotaBlock)...)
		return uint32(len(data)/quotaBlock - 1)
	}
	leaf, n := uint32(0), 0
	for _, id := range ids {
		at := uint32(1)
		for l := range quotaLevels {
			slot := at*quotaBlock + id>>(24-8*l)&0xff*4
			next := le.Uint32(data[slot:])
			if next == 0 {
				if l < quotaLevels-1 {
					next = add()
				} else {
					if leaf == 0 || n == quotaPer {
						leaf, n = add(), 0
					}
					next = leaf
				}
				le.PutUint32(data[slot:], next)
			}
			at = next
		}
		e := data[leaf*quotaBlock+quotaHeader+uint32(n)*quotaEntry:][:quotaEntry]
		if old := entries[id]; old != nil {
			copy(e, old)
		}
		le.PutUint32(e, id)
		le.PutUint64(e[24:], used[id].inodes)
		le.PutUint64(e[48:], used[id].space)
		n++
		le.PutUint16(data[leaf*quotaBlock+8:], uint16(n))
	}
	grace, igrace, flags := uint32(quotaGrace), uint32(quotaGrace), uint32(0)
	if header != nil {
		grace, igrace, flags = le.Uint32(header[8:]), le.Uint32(header[12:]), le.Uint32(header[16:])
	}
	if n == quotaPer {
		leaf = 0 // no block of entries has room
	}
	for i, v := range []uint32{magic, quotaVersion, grace, igrace, flags, uint32(len(data) / quotaBlock), 0, leaf} {
		le.PutUint32(data[4*i:], v)
	}
	return data
}

// contentAnew gives a file of the file system itself another content, in new
// blocks, once pass 5 is over.
func (c *checker) contentAnew(ino ondisk.Ino, data []byte) bool {
	r, err := c.inode(ino)
	if err != nil {
		return false
	}
	runs, meta, _ := c.runs(r)
	old := meta
	for _, e := range runs {
		for i := range e.n {
			old = append(old, e.blk+ondisk.Fsblk(i))
		}
	}
	n := (uint64(len(data)) + uint64(c.blockSize) - 1) >> c.blockBits
	var out []extent
	var taken []ondisk.Fsblk
	undo := func() bool {
		for _, b := range taken {
			c.release(b)
		}
		return false
	}
	buf := make([]byte, c.blockSize)
	for l := uint64(0); l < n; {
		b, ok := c.alloc(c.goalOf(ino), false)
		if !ok {
			return undo()
		}
		taken = append(taken, b)
		for k := uint64(0); k < c.clusterRatio && l < n; k++ {
			clear(buf)
			copy(buf, data[l<<c.blockBits:])
			c.write(b+ondisk.Fsblk(k), buf)
			if z := len(out) - 1; z >= 0 && out[z].blk+ondisk.Fsblk(out[z].n) == b+ondisk.Fsblk(k) {
				out[z].n++
			} else {
				out = append(out, extent{l, b + ondisk.Fsblk(k), 1, false, false})
			}
			l++
		}
	}
	added, ok := c.storeMap(ino, r, out)
	if !ok {
		return undo()
	}
	r.SetSize(int64(len(data)))
	r.SetBlocks(c.countBlocks(r, out, len(added)))
	c.sync()
	c.syncBitmaps(append(taken, added...)) // used before they are freed
	c.writeInode(ino, r)
	for _, b := range old {
		c.release(b)
	}
	c.syncBitmaps(old)
	return true
}

// hideQuota moves quota files that are visible to the inodes that are reserved for them.
// Their names, which then lead nowhere, are for pass 2.
func (c *checker) hideQuota() {
	if !c.hasQuota || !c.canWrite() {
		return
	}
	for t, q := range []struct {
		inum *endian.LE32
		to   ondisk.Ino
	}{{&c.sb.UsrQuotaInum, ondisk.UsrQuotaIno}, {&c.sb.GrpQuotaInum, ondisk.GrpQuotaIno}} {
		from := ondisk.Ino(q.inum.Get())
		if from == 0 || from == q.to {
			continue
		}
		r, err := c.inode(from)
		if err != nil {
			continue
		}
		p := at(from)
		p.Num = uint64(t)
		if !c.fix(P0HideQuota, p) {
			continue
		}
		n := append(ondisk.RawInode(nil), r...)
		b := n.Base()
		b.LinksCount.Set(1)
		b.Mode.Set(ondisk.ModeReg | 0o600)
		b.Flags.Set(b.Flags.Get() &^ (ondisk.FlagImmutable | ondisk.FlagAppend))
		// Until the superblock names the new inode, both have the map; the old one counts.
		c.writeInode(q.to, n)
		c.sync()
		q.inum.Set(uint32(q.to))
		c.writeSuper()
		clear(r)
		c.writeInode(from, r)
	}
}
