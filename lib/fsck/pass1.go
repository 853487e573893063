package fsck

import (
	"bytes"
	"fmt"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// pass1 checks every inode for itself, and finds out who claims which blocks.
func (c *checker) pass1() {
	c.begin(P1Pass)
	c.newMaps()
	c.initDirs()
	if n := uint64(0); c.scratch != nil && c.opts.ScratchFrom > 0 {
		for g := range c.groups {
			n += uint64(c.desc(g).UsedDirs())
		}
		if n < c.opts.ScratchFrom {
			c.scratch = nil
		}
	}
	c.claimTables()
	c.lowDtime = c.sb.MkfsTime.Get() >= c.sb.InodesCount.Get() || c.sb.MkfsTime.Get() == 0
	if w := c.sb.Wtime.Get(); w != 0 && w < c.sb.InodesCount.Get() {
		c.lowDtime = false
	}
	c.badBlocksInode()
	c.scanTables()
	c.storeBad()
	c.endLatch(latchLowDtime)
	c.journalAgain()
	c.fixRefcounts()
	c.relocate()
	if c.fullBitmaps() {
		if c.opts.Mode == ModePreen {
			c.tell(P1DupBlocksPreenStop, at(0))
			c.abort(ErrManual)
		}
		c.pass1b()
		c.journalAgain()
	}
	c.dropShared()
	c.pass1e()
	if c.restart {
		c.abort(errRestart)
	}
}

// tableRun is what there is to read of a group's inode table.
type tableRun struct {
	off int64
	n   uint32 // inodes
}

// claimTables claims what belongs to the file system itself.
func (c *checker) claimTables() {
	c.tables = make([]tableRun, c.groups)
	if c.firstData > 0 || c.blockSize > 1024 {
		c.haveBlock0 = false
	}
	claim := func(b ondisk.Fsblk, n uint64) {
		for k := c.cluster(b); k <= c.cluster(b+ondisk.Fsblk(n-1)); k++ {
			c.found.set(k)
		}
		c.meta.setRange(uint64(b), n)
	}
	for g := range c.groups {
		first := c.groupFirst(g)
		super, desc, n := c.groupSuper(g)
		if super && c.valid(max(first, 1), 1) {
			b := first
			if b == 0 && c.blockSize == 1024 {
				claim(0, 2)
			} else {
				k := c.cluster(b)
				c.found.set(k)
				c.meta.set(uint64(b))
			}
		}
		if n > 0 && c.valid(desc, n) {
			claim(desc, n)
		}
	}
	for g := range c.groups {
		d := c.desc(g)
		p := at(0)
		p.Group = int64(g)
		if !c.badIT[g] {
			t := d.InodeTable()
			switch {
			case c.meta.anyRange(uint64(t), uint64(c.itableBlocks)):
				q := p
				q.Blk = t
				if c.fix(P1ItableConflict, q) {
					c.badIT[g] = true
				}
			default:
				claim(t, uint64(c.itableBlocks))
			}
			n := c.inodesPerGroup
			if c.hasGDTCsum {
				if g == 0 && (d.HasFlag(ondisk.BGInodeUninit) || d.ItableUnused()+c.reserved(g) > n) {
					// The root is here, whatever the descriptor says.
				} else if d.HasFlag(ondisk.BGInodeUninit) {
					n = 0
				} else {
					n -= min(n, d.ItableUnused())
				}
			}
			if last := uint64(g)*uint64(c.inodesPerGroup) + uint64(n); last > uint64(c.inodes) {
				n -= uint32(min(uint64(n), last-uint64(c.inodes)))
			}
			c.tables[g] = tableRun{int64(t) << c.blockBits, n}
		}
		one := func(b ondisk.Fsblk, bad map[ondisk.Group]bool, code Code) {
			if bad[g] {
				return
			}
			if c.meta.test(uint64(b)) {
				q := p
				q.Blk = b
				if c.fix(code, q) {
					bad[g] = true
				}
				return
			}
			claim(b, 1)
		}
		one(d.BlockBitmap(), c.badBB, P1BBConflict)
		one(d.InodeBitmap(), c.badIB, P1IBConflict)
	}
	if b := c.sb.MMPBlock.Get(); c.sb.HasIncompat(ondisk.IncompatMMP) && c.valid(ondisk.Fsblk(b), 1) {
		claim(ondisk.Fsblk(b), 1)
	}
}

// sane tells whether an inode whose checksum is wrong may be one all the same.
func (c *checker) sane(r ondisk.RawInode) bool {
	b := r.Base()
	switch b.Mode.Get() & ondisk.ModeFmt {
	case ondisk.ModeReg, ondisk.ModeDir, ondisk.ModeLnk, ondisk.ModeChr, ondisk.ModeBlk, ondisk.ModeFIFO, ondisk.ModeSock:
	default:
		return false
	}
	if b.Flags.Get()&ondisk.FlagExtents != 0 && b.Flags.Get()&ondisk.FlagInlineData == 0 {
		h := endian.View[ondisk.ExtentHeader](b.Block[:])
		return h.Magic.Get() == ondisk.ExtentMagic && h.Max.Get() == ondisk.RootExtents && h.Entries.Get() <= h.Max.Get()
	}
	return true
}

// clearInode makes an inode a free one. With again, the check starts anew once
// the pass is through, since others may have been found to share its blocks.
func (c *checker) clearInode(ino ondisk.Ino, r ondisk.RawInode, again bool) {
	b := r.Base()
	b.Flags.Set(0)
	b.LinksCount.Set(0)
	b.Dtime.Set(c.now)
	c.links.set(uint64(ino), 0)
	c.inodeUsed.clear(uint64(ino))
	c.inodeDir.clear(uint64(ino))
	c.inodeReg.clear(uint64(ino))
	c.inodeBad.clear(uint64(ino))
	c.dropDir(ino)
	c.writeInode(ino, r)
	if again {
		c.restart = true
	}
}

// inodePass1 checks inode r. garbage says that its block holds no inodes, badSum
// that its checksum is wrong.
func (c *checker) inodePass1(ino ondisk.Ino, r ondisk.RawInode, garbage, badSum bool) {
	b := r.Base()
	if b.Mode.Get() == 0 && b.LinksCount.Get() == 0 && b.Dtime.Get() == 0 && ino >= c.firstIno && !nonzero(r) {
		return
	}
	if ino == ondisk.BadIno {
		c.inodeUsed.set(uint64(ino))
		return
	}
	if c.inodeBB.test(uint64(ino)) {
		return // it cannot be trusted; pass 2 deals with what leads here
	}
	p := at(ino)
	if garbage && ino >= c.firstIno {
		if c.fix(P1InodeIsGarbage, p) {
			c.clearInode(ino, r, false)
			clear(r)
			c.writeInode(ino, r)
			return
		}
	}
	x := &c.current
	*x = inodeState{ino: ino, r: r, lastBlock: -1, lastInit: -1, lastDB: -1, badCsum: badSum, levels: x.levels[:0]}
	if b.LinksCount.Get() != 0 {
		c.links.set(uint64(ino), b.LinksCount.Get())
	}
	if !c.flagsPass1(x) {
		return
	}
	if c.specialInode(x) {
		c.onlyCsum(x)
		return
	}
	if b.LinksCount.Get() == 0 {
		if b.Dtime.Get() == 0 && b.Mode.Get() != 0 {
			if c.fix(P1ZeroDtime, p) {
				b.Dtime.Set(c.now)
				x.write(c)
			}
		}
		c.onlyCsum(x)
		return
	}
	if b.Dtime.Get() != 0 {
		if c.fix(P1SetDtime, p) {
			b.Dtime.Set(0)
			x.write(c)
		}
	}
	c.inodeUsed.set(uint64(ino))
	c.checkFields(x)
	if b.Flags.Get()&ondisk.FlagImagic != 0 && !c.sb.HasCompat(ondisk.CompatImagicInodes) {
		if c.fix(P1SetImagic, p) {
			b.Flags.Set(b.Flags.Get() &^ ondisk.FlagImagic)
			x.write(c)
		}
	}
	had := x.hasInline
	c.extraSpace(x)
	if had && !x.hasInline && b.Flags.Get()&ondisk.FlagInlineData != 0 && c.hasInline {
		c.inlineMissing(x)
	}
	c.reallyDir(x)
	c.byType(x)
	if c.inodeUsed.test(uint64(ino)) {
		c.onlyCsum(x)
	}
}

// inodeState is what pass 1 keeps of the inode it looks at.
type inodeState struct {
	ino     ondisk.Ino
	r       ondisk.RawInode
	badCsum bool // and nothing was found that would explain it

	isDir, isReg bool
	clusters     uint64 // that it uses
	lastBlock    int64  // last block that is mapped
	lastInit     int64  // that is not unwritten
	lastDB       int64  // last block noted as one of the directory
	prev         ondisk.Fsblk
	prevLblk     int64
	illegal      int
	suppress     bool
	clear        bool
	fragmented   bool
	dirty        bool // r has changed and is to be written
	visited      uint64
	levels       []level
	forceRebuild bool
	smallMax     bool // a node says that it has less room than it has
	inlineSize   int64
	hasInline    bool
}

// write writes the inode; its checksum is right from then on.
func (x *inodeState) write(c *checker) {
	c.writeInode(x.ino, x.r)
	x.badCsum = false
	x.dirty = false
}

// onlyCsum deals with an inode of which only the checksum is wrong.
func (c *checker) onlyCsum(x *inodeState) {
	if !x.badCsum {
		return
	}
	if c.fix(P1InodeOnlyCsum, at(x.ino)) {
		x.write(c)
	}
}

// specialInode deals with the inodes that have a number of their own; false if
// x is none of them or to be checked as any other.
func (c *checker) specialInode(x *inodeState) bool {
	b, s, ino := x.r.Base(), c.sb, x.ino
	p := at(ino)
	fmtIs := b.Mode.Get() & ondisk.ModeFmt
	inUse := b.LinksCount.Get() != 0 || x.r.Blocks(true) != 0 || endian.View[endian.LE32](b.Block[:]).Get() != 0
	hidden := func(isUsed bool, badMode, notClear Code) {
		c.inodeUsed.set(uint64(ino))
		if isUsed {
			if fmtIs != ondisk.ModeReg && c.fix(badMode, p) {
				b.Mode.Set(ondisk.ModeReg)
				x.write(c)
			}
			c.checkBlocks(x)
			return
		}
		if inUse && c.fix(notClear, p) {
			clear(x.r)
			c.links.set(uint64(ino), 0)
			x.write(c)
		}
	}
	switch {
	case ino == ondisk.RootIno:
		if fmtIs != ondisk.ModeDir && b.LinksCount.Get() != 0 {
			if c.fix(P1RootNoDir, p) {
				c.clearInode(ino, x.r, true)
				return true
			}
		}
		if b.Dtime.Get() != 0 && c.fix(P1RootDtime, p) {
			b.Dtime.Set(0)
			x.write(c)
		}
		return false
	case ino == ondisk.JournalIno:
		hidden(ondisk.Ino(s.JournalInum.Get()) == ino, P1JournalBadMode, P1JournalNotClear)
		return true
	case (ino == ondisk.UsrQuotaIno || ino == ondisk.GrpQuotaIno || ino == ondisk.Ino(s.PrjQuotaInum.Get())) && (c.hasQuota || ino < c.firstIno):
		used := c.hasQuota && (ondisk.Ino(s.UsrQuotaInum.Get()) == ino || ondisk.Ino(s.GrpQuotaInum.Get()) == ino || ondisk.Ino(s.PrjQuotaInum.Get()) == ino)
		hidden(used, P1QuotaBadMode, P1QuotaNotClear)
		return true
	case ino == ondisk.Ino(s.OrphanFileInum.Get()) && s.HasCompat(ondisk.CompatOrphanFile) && b.LinksCount.Get() != 0:
		hidden(true, P1OrphanFileBadMode, P1OrphanFileNotClear)
		return true
	case ino < c.firstIno:
		c.inodeUsed.set(uint64(ino))
		bad := false
		switch ino {
		case ondisk.BootLoaderIno:
			bad = fmtIs == ondisk.ModeDir
		case ondisk.ResizeIno:
			bad = b.Mode.Get() != 0 && fmtIs != ondisk.ModeReg
		default:
			bad = b.Mode.Get() != 0
		}
		if bad && c.fix(P1ReservedBadMode, p) {
			b.Mode.Set(0)
			b.Flags.Set(b.Flags.Get() &^ (ondisk.FlagEAInode | ondisk.FlagCasefold))
			x.write(c)
		}
		c.checkBlocks(x)
		return true
	}
	return false
}

// checkFields notes inodes with fields that should be zero; pass 2 or 4 clears
// them, when it is known what the inode is called.
func (c *checker) checkFields(x *inodeState) {
	b := x.r.Base()
	bad := b.ObsoFaddr.Get() != 0
	hurd := c.sb.CreatorOS.Get() == ondisk.OSHurd
	if !c.has64 && b.FileACLHi.Get() != 0 || !c.hasHugeFile && !hurd && b.BlocksHi.Get() != 0 || hurd && nonzero(x.r[fragOff:fragOff+2]) {
		bad = true
	}
	if c.isDirMode(b.Mode.Get()) && b.SizeHi.Get() != 0 && !c.hasLargeDir {
		bad = true
	}
	if bad {
		c.inodeBad.set(uint64(x.ino))
	}
}

// byType checks what an inode of its type must and must not have.
func (c *checker) byType(x *inodeState) {
	b := x.r.Base()
	n := &c.res.Counts
	if c.encryptPass1(x); !c.inodeUsed.test(uint64(x.ino)) {
		return
	}
	switch b.Mode.Get() & ondisk.ModeFmt {
	case ondisk.ModeDir:
		x.isDir = true
		c.inodeDir.set(uint64(x.ino))
		c.addDir(x.ino)
		n.Dirs++
	case ondisk.ModeReg:
		x.isReg = true
		c.inodeReg.set(uint64(x.ino))
		n.Regular++
	case ondisk.ModeLnk:
		c.checkImmutable(x)
		n.Symlinks++
		if !c.symlinkOK(x.r) {
			c.inodeBad.set(uint64(x.ino))
		}
		if c.fastSymlink(x.r) && b.Flags.Get()&ondisk.FlagInlineData == 0 {
			n.FastSymlinks++
		}
	case ondisk.ModeChr, ondisk.ModeBlk, ondisk.ModeFIFO, ondisk.ModeSock:
		c.special1(x)
		if !c.deviceOK(x.r) {
			c.inodeBad.set(uint64(x.ino))
			break
		}
		switch b.Mode.Get() & ondisk.ModeFmt {
		case ondisk.ModeChr:
			n.Chardevs++
		case ondisk.ModeBlk:
			n.Blockdevs++
		case ondisk.ModeFIFO:
			n.Fifos++
		default:
			n.Sockets++
		}
	default:
		c.inodeBad.set(uint64(x.ino))
	}
	if !c.inodeUsed.test(uint64(x.ino)) {
		return
	}
	c.checkBlocks(x)
}

// special1 checks a device, FIFO or socket.
func (c *checker) special1(x *inodeState) {
	b := x.r.Base()
	if deviceJunk(b) {
		return // it is not to look like one
	}
	p := at(x.ino)
	if b.Flags.Get()&(ondisk.FlagExtents|ondisk.FlagInlineData) != 0 && c.fix(P1SpecialExtentsIdata, p) {
		b.Flags.Set(b.Flags.Get() &^ (ondisk.FlagExtents | ondisk.FlagInlineData))
		x.write(c)
	}
	c.checkImmutable(x)
	if (b.SizeLo.Get() != 0 || b.SizeHi.Get() != 0) && c.fix(P1SetNonzsize, p) {
		x.r.SetSize(0)
		x.write(c)
	}
}

func (c *checker) checkImmutable(x *inodeState) {
	b := x.r.Base()
	if b.Flags.Get()&(ondisk.FlagImmutable|ondisk.FlagAppend) == 0 {
		return
	}
	if c.fix(P1SetImmutable, at(x.ino)) {
		b.Flags.Set(b.Flags.Get() &^ (ondisk.FlagImmutable | ondisk.FlagAppend))
		x.write(c)
	}
}

// deviceOK tells whether i_block and flags of a special file are those of one.
func (c *checker) deviceOK(r ondisk.RawInode) bool {
	b := r.Base()
	return b.Flags.Get()&ondisk.FlagIndex == 0 && !deviceJunk(b)
}

// deviceJunk tells whether i_block of a special file is none of one. The kernel does
// not clear what it held before: that proves nothing unless the flags are wrong too.
func deviceJunk(b *ondisk.Inode) bool {
	return b.Flags.Get()&(ondisk.FlagImmutable|ondisk.FlagAppend) != 0 && nonzero(b.Block[16:])
}

// symlinkOK tells whether a symlink has a target of the length that it says.
func (c *checker) symlinkOK(r ondisk.RawInode) bool {
	b := r.Base()
	size := r.Size(true)
	if b.SizeHi.Get() != 0 || size == 0 || b.Flags.Get()&ondisk.FlagIndex != 0 {
		return false
	}
	var text []byte
	switch {
	case b.Flags.Get()&ondisk.FlagInlineData != 0:
		v, _ := c.xattrValue(r, ondisk.XattrSystemIndex, ondisk.XattrSystemData)
		if len(v) > 0 {
			return size == int64(len(b.Block)+len(v))
		}
		text = append(append(text, b.Block[:]...), 0)
	case c.fastSymlink(r):
		text = b.Block[:]
	default:
		if size > int64(c.blockSize) {
			return false
		}
		var blk ondisk.Fsblk
		if b.Flags.Get()&ondisk.FlagExtents != 0 {
			leaf, err := ondisk.ExtentLeaf(b.Block[:])
			if err != nil || len(leaf) != 1 || leaf[0].Block.Get() != 0 || leaf[0].Len() != 1 {
				return false
			}
			blk = leaf[0].Start()
		} else {
			if nonzero(b.Block[4:]) {
				return false
			}
			blk = ondisk.Fsblk(endian.View[endian.LE32](b.Block[:]).Get())
		}
		if !c.valid(blk, 1) {
			return false
		}
		var err error
		if text, err = c.block(blk); err != nil {
			return false
		}
	}
	if b.Flags.Get()&ondisk.FlagEncrypt != 0 {
		// The length of the ciphertext stands before it.
		return len(text) > 2 && int64(endian.View[endian.LE16](text).Get())+2 == size && size <= int64(len(text))
	}
	n := bytes.IndexByte(text, 0)
	return int64(n) == size
}

// reallyDir looks for a directory in an inode that has lost its mode.
func (c *checker) reallyDir(x *inodeState) {
	b := x.r.Base()
	switch b.Mode.Get() & ondisk.ModeFmt {
	case ondisk.ModeDir, ondisk.ModeReg:
		return
	case ondisk.ModeLnk:
		if c.fastSymlink(x.r) {
			return
		}
	}
	flags := b.Flags.Get()
	looks := false
	switch {
	case flags&ondisk.FlagInlineData != 0:
		if b.Mode.Get()&ondisk.ModeFmt != 0 || !x.hasInline {
			return
		}
		d := b.Block[4:]
		rec := int(endian.View[ondisk.Dirent](d).Len.Get())
		ino := endian.View[endian.LE32](b.Block[:]).Get()
		entry := endian.View[ondisk.Dirent](d)
		looks = ino != 0 && ino <= c.inodes && rec >= ondisk.DirentMin && rec <= len(d) &&
			entry.Inode.Get() != 0 && entry.Inode.Get() <= c.inodes && entry.NameLen[0] > 0 &&
			int(entry.NameLen[0]) <= rec-ondisk.DirentHeaderSize && entry.FileType[0] >= ondisk.FTReg && entry.FileType[0] <= ondisk.FTLnk
	default:
		var first ondisk.Fsblk
		if flags&ondisk.FlagExtents != 0 {
			leaf, err := ondisk.ExtentLeaf(b.Block[:])
			if err != nil || len(leaf) == 0 || leaf[0].Block.Get() != 0 {
				return
			}
			first = leaf[0].Start()
		} else {
			ptr := endian.Views[endian.LE32](b.Block[:], 15)
			for i := range ptr {
				if v := ondisk.Fsblk(ptr[i].Get()); v != 0 && !c.valid(v, 1) {
					return
				}
			}
			first = ondisk.Fsblk(ptr[0].Get())
		}
		if !c.valid(first, 1) || c.meta.test(uint64(first)) || c.report == nil && c.found.test(c.cluster(first)) {
			return
		}
		blk, err := c.block(first)
		if err != nil {
			return
		}
		e, err := ondisk.DirentAt(blk, 0, c.blockSize)
		if err != nil || string(e.Name) != "." || e.Ino != x.ino || e.RecLen >= c.blockSize-ondisk.DirentMin {
			return
		}
		f, err := ondisk.DirentAt(blk, e.RecLen, c.blockSize)
		looks = err == nil && string(f.Name) == ".."
		if looks {
			c.leave() // unless the block was found to be someone else's
		}
	}
	if looks && c.fix(P1TreatAsDirectory, at(x.ino)) {
		b.Mode.Set(b.Mode.Get()&0o7777 | ondisk.ModeDir)
		x.write(c)
	}
}

func (c *checker) failf(format string, args ...any) {
	c.abort(fmt.Errorf("%w: %s", ErrAborted, fmt.Sprintf(format, args...)))
}
