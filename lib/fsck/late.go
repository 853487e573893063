package fsck

import (
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// checkResizeInode checks that the resize inode maps the blocks that are kept
// for descriptors to come, and nothing else.
func (c *checker) checkResizeInode() {
	s := c.sb
	has := s.HasCompat(ondisk.CompatResizeInode)
	p := at(ondisk.ResizeIno)
	if !has && s.ReservedGDTBlocks.Get() != 0 && !c.hasMetaBG {
		q := p
		q.Num = uint64(s.ReservedGDTBlocks.Get())
		if c.fix(P0NonzeroReservedGDT, q) {
			s.ReservedGDTBlocks.Set(0)
			c.setSuper()
		}
	}
	r, err := c.inode(ondisk.ResizeIno)
	if err != nil {
		return
	}
	b := r.Base()
	ptr := endian.Views[endian.LE32](b.Block[:], 15)
	if !has {
		if nonzero(b.Block[:]) || b.LinksCount.Get() != 0 || b.BlocksLo.Get() != 0 {
			if c.fix(P0ClearResizeInode, p) {
				clear(r)
				c.writeInode(ondisk.ResizeIno, r)
			}
		}
		return
	}
	if c.resizeOK(ptr, b) {
		return
	}
	if !c.fix(P0ResizeInodeInvalid, p) {
		return
	}
	c.makeResizeInode()
}

// resizeWant returns what the resize inode has to map: for each block that is
// kept behind the primary descriptors, those kept behind the backups.
func (c *checker) resizeWant() (first ondisk.Fsblk, n int, backups []ondisk.Group) {
	_, desc, _ := c.groupSuper(0)
	first = desc + ondisk.Fsblk(c.descBlocks)
	for g := ondisk.Group(1); g < c.groups; g++ {
		if c.hasSuper(g) {
			backups = append(backups, g)
		}
	}
	return first, int(c.sb.ReservedGDTBlocks.Get()), backups
}

func (c *checker) resizeOK(ptr []endian.LE32, b *ondisk.Inode) bool {
	first, n, backups := c.resizeWant()
	if b.Mode.Get()&ondisk.ModeFmt != ondisk.ModeReg || b.LinksCount.Get() != 1 || b.Flags.Get()&ondisk.FlagExtents != 0 {
		return false
	}
	for i := range ptr {
		if i != 13 && ptr[i].Get() != 0 {
			return false
		}
	}
	dind := ondisk.Fsblk(ptr[13].Get())
	if n == 0 {
		return dind == 0 || c.valid(dind, 1)
	}
	if !c.valid(dind, 1) {
		return false
	}
	data, err := c.block(dind)
	if err != nil {
		return false
	}
	per := c.blockSize / 4
	top := endian.Views[endian.LE32](data, per)
	used := 0
	for k := range top {
		if top[k].Get() != 0 {
			used++
		}
	}
	if used != n {
		return false
	}
	for i := range n {
		blk := first + ondisk.Fsblk(i)
		at := int(c.descBlocks+uint64(i)) % per
		if ondisk.Fsblk(top[at].Get()) != blk {
			return false
		}
		sub, err := c.block(blk)
		if err != nil {
			return false
		}
		if !zeroPointers(sub, len(backups), per) {
			return false
		}
		for k, g := range backups {
			if k >= per {
				break
			}
			want := blk + ondisk.Fsblk(uint64(g)*c.blocksPerGroup)
			if ondisk.Fsblk(endian.View[endian.LE32](sub[4*k:]).Get()) != want {
				return false
			}
		}
	}
	return true
}

// zeroPointers tells whether the pointers of a block from n on are zero.
func zeroPointers(b []byte, n, per int) bool { return n >= per || !nonzero(b[4*n:]) }

// makeResizeInode makes the resize inode anew. Its double indirect block is
// taken from what pass 1 finds free, so that the passes have to be gone
// through before: it is taken behind the last group's metadata.
func (c *checker) makeResizeInode() {
	first, n, backups := c.resizeWant()
	r, err := c.inode(ondisk.ResizeIno)
	if err != nil {
		return
	}
	b := r.Base()
	ptr := endian.Views[endian.LE32](b.Block[:], 15)
	dind := ondisk.Fsblk(ptr[13].Get())
	if !c.freeForResize(dind, first, n) {
		if dind = c.findFree(); dind == 0 {
			c.unrepaired(P1ResizeInodeCreate, at(ondisk.ResizeIno))
			return
		}
	}
	per := c.blockSize / 4
	data := make([]byte, c.blockSize)
	top := endian.Views[endian.LE32](data, per)
	for i := range n {
		blk := first + ondisk.Fsblk(i)
		top[int(c.descBlocks+uint64(i))%per].Set(uint32(blk))
		sub := make([]byte, c.blockSize)
		for k, g := range backups {
			if k < per {
				endian.View[endian.LE32](sub[4*k:]).Set(uint32(blk + ondisk.Fsblk(uint64(g)*c.blocksPerGroup)))
			}
		}
		c.write(blk, sub)
	}
	c.write(dind, data)
	c.sync()
	gen := b.Generation
	clear(r)
	b.Generation = gen
	b.Mode.Set(ondisk.ModeReg | 0o600)
	b.LinksCount.Set(1)
	ptr[13].Set(uint32(dind))
	per64 := uint64(per)
	r.SetSize(int64((12 + per64 + per64*per64) << c.blockBits))
	total := uint64(1) + uint64(n)*uint64(1+len(backups))
	r.SetBlocks(c.blocksUnit(r, total))
	now := ondisk.Time{Sec: int64(c.now)}
	r.SetAtime(now)
	r.SetMtime(now)
	r.SetCtime(now)
	if c.inodeSize > ondisk.GoodOldInodeSz {
		endian.View[endian.LE16](r[ondisk.GoodOldInodeSz:]).Set(c.sb.WantExtraIsize.Get())
	}
	c.writeInode(ondisk.ResizeIno, r)
}

// freeForResize tells whether a block that was the double indirect block can
// stay it.
func (c *checker) freeForResize(b, first ondisk.Fsblk, n int) bool {
	if !c.valid(b, 1) || b >= first && b < first+ondisk.Fsblk(n) {
		return false
	}
	for g := range c.groups {
		super, desc, k := c.groupSuper(g)
		d := c.desc(g)
		if super && b == c.groupFirst(g) || b >= desc && uint64(b-desc) < k || b == d.BlockBitmap() || b == d.InodeBitmap() ||
			b >= d.InodeTable() && b < d.InodeTable()+ondisk.Fsblk(c.itableBlocks) {
			return false
		}
	}
	return true
}

// findFree returns a block that the bitmaps on the device call free; 0 if there
// is none.
func (c *checker) findFree() ondisk.Fsblk {
	buf := make([]byte, c.blockSize)
	for g := range c.groups {
		d := c.desc(g)
		if d.HasFlag(ondisk.BGBlockUninit) || !c.valid(d.BlockBitmap(), 1) || c.read(d.BlockBitmap(), buf) != nil {
			continue
		}
		for k := range c.groupClusters(g) {
			if buf[k/8]>>(k%8)&1 == 0 {
				if b := c.groupFirst(g) + ondisk.Fsblk(k<<c.clusterBits); c.freeForResize(b, 0, 0) {
					return b
				}
			}
		}
	}
	return 0
}

// recreateJournal makes a journal in place of one that was given up.
func (c *checker) recreateJournal() {
	if !c.journalGone || c.opts.NoJournal || c.sb.HasCompat(ondisk.CompatHasJournal) {
		return
	}
	if !c.fix(P6RecreateJournal, at(0)) {
		c.journalGone = false
		return
	}
	c.journalGone = false
	n := journalSize(uint64(c.blocks), c.blockSize)
	if n == 0 || !c.makeJournal(n) {
		p := at(0)
		p.Text = "there is no room for a journal"
		c.noteText(P6RecreateJournal, p)
		return
	}
}

// noteText reports how something that was agreed to went.
func (c *checker) noteText(code Code, p Problem) {
	p.Code = code
	p.Asked, p.Answer = false, false
	c.opts.Asker.Tell(&p)
}

// journalSize returns the default size of a journal in blocks, 0 if the file
// system is too small for one.
func journalSize(blocks uint64, blockSize int) uint64 {
	switch {
	case blocks < 2048:
		return 0
	case blocks < 32768:
		return 1024
	case blocks < 256*1024:
		return 4096
	case blocks < 512*1024:
		return 8192
	case blocks < 4096*1024:
		return 16384
	case blocks < 8192*1024:
		return 32768
	case blocks < 16384*1024:
		return 65536
	case blocks < 32768*1024:
		return 131072
	}
	return 262144
}

// makeJournal writes a journal of n blocks into the reserved inode. Bitmaps on
// the device follow, since pass 5 is over.
func (c *checker) makeJournal(n uint64) bool {
	need := (n + c.clusterRatio - 1) >> c.clusterBits
	var runs []extent
	var taken []ondisk.Fsblk
	lblk := uint64(0)
	first, ok := c.allocRun(need)
	if ok {
		runs = []extent{{0, first, n, false, false}}
		for k := range need {
			taken = append(taken, first+ondisk.Fsblk(k<<c.clusterBits))
		}
	} else {
		for lblk < n {
			b, ok := c.alloc(0, false)
			if !ok {
				for _, t := range taken {
					c.release(t)
				}
				return false
			}
			taken = append(taken, b)
			k := min(c.clusterRatio, n-lblk)
			if z := len(runs) - 1; z >= 0 && runs[z].blk+ondisk.Fsblk(runs[z].n) == b {
				runs[z].n += k
			} else {
				runs = append(runs, extent{lblk, b, k, false, false})
			}
			lblk += k
		}
	}
	r, err := c.inode(ondisk.JournalIno)
	if err != nil {
		return false
	}
	b := r.Base()
	clear(r)
	b.Mode.Set(ondisk.ModeReg | 0o600)
	b.LinksCount.Set(1)
	if c.hasExtents {
		b.Flags.Set(ondisk.FlagExtents)
	}
	if c.inodeSize > ondisk.GoodOldInodeSz {
		endian.View[endian.LE16](r[ondisk.GoodOldInodeSz:]).Set(c.sb.WantExtraIsize.Get())
	}
	now := ondisk.Time{Sec: int64(c.now)}
	r.SetAtime(now)
	r.SetMtime(now)
	r.SetCtime(now)
	meta, ok := c.storeMap(ondisk.JournalIno, r, runs)
	if !ok {
		for _, t := range taken {
			c.release(t)
		}
		return false
	}
	r.SetSize(int64(n) << c.blockBits)
	r.SetBlocks(c.countBlocks(r, runs, len(meta)))
	for i, e := range runs {
		// The old content must not look like a log.
		if err := c.dev.ZeroOut(int64(e.blk)<<c.blockBits, int64(e.n)<<c.blockBits); err != nil {
			c.abort(err)
		}
		_ = i
	}
	c.write(runs[0].blk, jbd2.NewSuperblock(c.blockSize, uint32(n), 0, jbd2.CreateOptions{UUID: c.sb.UUID}))
	c.sync()
	c.writeInode(ondisk.JournalIno, r)
	c.syncBitmaps(append(taken, meta...))
	s := c.sb
	s.JournalInum.Set(uint32(ondisk.JournalIno))
	s.FeatureCompat.Set(s.FeatureCompat.Get() | ondisk.CompatHasJournal)
	for i := range 15 {
		copy(s.JnlBlocks[i][:], b.Block[4*i:])
	}
	s.JnlBlocks[15], s.JnlBlocks[16] = b.SizeHi, b.SizeLo
	s.JnlBackupType[0] = 1
	c.setSuper()
	return true
}

// syncBitmaps makes the bitmaps and counts on the device follow what is known
// of the groups of the given blocks, once pass 5 is over.
func (c *checker) syncBitmaps(blocks []ondisk.Fsblk) {
	groups := map[ondisk.Group]bool{}
	for _, b := range blocks {
		groups[c.groupOf(b)] = true
	}
	have, want := make([]byte, c.blockSize), make([]byte, c.blockSize)
	per := c.blocksPerGroup >> c.clusterBits
	for g := range groups {
		d := c.desc(g)
		c.writeBlockBitmap(g, have, want)
		n := c.groupClusters(g)
		free := n - c.found.countRange(uint64(g)*per, n)
		total := int64(c.sb.FreeBlocksCount()) + (int64(free)-int64(d.FreeBlocks()))<<c.clusterBits
		d.SetFreeBlocks(uint32(free))
		c.sealDesc(g)
		c.sb.SetFreeBlocksCount(uint64(max(0, total)))
	}
	c.setSuper()
}

// syncInodeBitmap makes the inode bitmap on the device follow what is known of
// the group of an inode, once pass 5 is over.
func (c *checker) syncInodeBitmap(ino ondisk.Ino) {
	g := ondisk.Group(uint32(ino-1) / c.inodesPerGroup)
	c.writeInodeBitmap(g, make([]byte, c.blockSize), make([]byte, c.blockSize))
	c.sealDesc(g)
	c.setSuper()
}
