package fsck

import (
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// flagsPass1 checks the flags of an inode that say what i_block holds; false if
// the inode was cleared.
func (c *checker) flagsPass1(x *inodeState) bool {
	b, ino := x.r.Base(), x.ino
	p := at(ino)
	has := func(f uint32) bool { return b.Flags.Get()&f != 0 }
	drop := func(f uint32) {
		b.Flags.Set(b.Flags.Get() &^ f)
		x.write(c)
	}
	mode := b.Mode.Get() & ondisk.ModeFmt
	if c.lowDtime && b.Dtime.Get() != 0 && b.Dtime.Get() < c.sb.InodesCount.Get() && ino != ondisk.RootIno {
		if c.fix(P1LowDtime, p) {
			if b.LinksCount.Get() != 0 {
				b.Dtime.Set(0)
			} else {
				b.Dtime.Set(c.now)
			}
			x.write(c)
		}
	}
	if has(ondisk.FlagCasefold) {
		if mode != ondisk.ModeDir {
			if c.fix(P1CasefoldNondir, p) {
				drop(ondisk.FlagCasefold)
			}
		} else if !c.hasCasefold {
			if c.fix(P1CasefoldFeature, p) {
				drop(ondisk.FlagCasefold)
			}
		}
	}
	if has(ondisk.FlagEAInode) && mode != ondisk.ModeReg {
		if c.fix(P1EAInodeNonreg, p) {
			drop(ondisk.FlagEAInode)
		}
	}
	if b.LinksCount.Get() != 0 {
		x.inlineSize, x.hasInline = c.inlineSize(x.r)
	}
	// Which of the two i_block really holds, if both flags say something.
	if has(ondisk.FlagInlineData) && b.LinksCount.Get() != 0 && (ino == ondisk.RootIno || ino >= c.firstIno) && (c.hasInline || has(ondisk.FlagExtents)) &&
		(mode == ondisk.ModeReg || mode == ondisk.ModeDir || mode == ondisk.ModeLnk) {
		if !c.resolveInline(x) {
			return false
		}
	}
	if has(ondisk.FlagInlineData) && (ino == ondisk.RootIno || ino >= c.firstIno) && mode != ondisk.ModeBlk && mode != ondisk.ModeChr && mode != ondisk.ModeFIFO && mode != ondisk.ModeSock {
		switch {
		case c.hasInline && x.hasInline:
		case c.hasInline && b.LinksCount.Get() != 0:
			c.inlineMissing(x)
		case !c.hasInline && x.hasInline && (mode == ondisk.ModeReg || mode == ondisk.ModeDir || mode == ondisk.ModeLnk):
			if c.fix(P1InlineDataFeature, p) {
				c.sb.FeatureIncompat.Set(c.sb.FeatureIncompat.Get() | ondisk.IncompatInlineData)
				c.setSuper()
				c.features()
			} else {
				return c.clearedInline(x)
			}
		case !c.hasInline:
			return c.clearedInline(x)
		}
	}
	if c.hasExtents && has(ondisk.FlagExtents) && !has(ondisk.FlagInlineData) && b.LinksCount.Get() != 0 && mode == ondisk.ModeLnk && x.r.Size(true) < 60 && x.r.Size(true) > 0 && b.BlocksLo.Get() == 0 && !c.extentRoot(b) {
		if c.fix(P1FastSymlinkExtent, p) {
			drop(ondisk.FlagExtents)
		}
	}
	if has(ondisk.FlagExtents) && !c.hasExtents {
		if c.extentRoot(b) && (ino >= c.firstIno || ino == ondisk.RootIno) && b.LinksCount.Get() != 0 {
			if c.fix(P1ExtentFeature, p) {
				c.sb.FeatureIncompat.Set(c.sb.FeatureIncompat.Get() | ondisk.IncompatExtents)
				c.setSuper()
				c.features()
				return true
			}
		}
		if c.fix(P1ExtentsSet, p) {
			c.clearInode(ino, x.r, false)
			return false
		}
		return true
	}
	if c.hasExtents && has(ondisk.FlagExtents) && !has(ondisk.FlagInlineData) && b.LinksCount.Get() != 0 &&
		(mode == ondisk.ModeReg || mode == ondisk.ModeDir) && (ino == ondisk.RootIno || ino >= c.firstIno) {
		if h := endian.View[ondisk.ExtentHeader](b.Block[:]); h.Magic.Get() != ondisk.ExtentMagic || h.Max.Get() == 0 || h.Max.Get() > ondisk.RootExtents || h.Entries.Get() > h.Max.Get() {
			if c.fix(P1MissingExtentHeader, p) {
				c.clearInode(ino, x.r, false)
				return false
			}
		}
	}
	if c.hasExtents && !has(ondisk.FlagExtents|ondisk.FlagInlineData) && b.LinksCount.Get() != 0 &&
		(mode == ondisk.ModeReg || mode == ondisk.ModeDir) && c.extentRoot(b) {
		if c.fix(P1UnsetExtentFl, p) {
			b.Flags.Set(b.Flags.Get() | ondisk.FlagExtents)
			x.write(c)
		}
	}
	return true
}

func (c *checker) clearedInline(x *inodeState) bool {
	if c.fix(P1InlineDataSet, at(x.ino)) {
		c.clearInode(x.ino, x.r, false)
		return false
	}
	return true
}

// extentRoot tells whether i_block looks like the root of an extent tree.
func (c *checker) extentRoot(b *ondisk.Inode) bool {
	h := endian.View[ondisk.ExtentHeader](b.Block[:])
	return h.Magic.Get() == ondisk.ExtentMagic && h.Max.Get() == ondisk.RootExtents && h.Entries.Get() <= h.Max.Get() &&
		h.Depth.Get() <= ondisk.MaxExtentDepth
}

// resolveInline deals with an inode that says it has inline data, but holds
// something else, or says it has extents too.
func (c *checker) resolveInline(x *inodeState) bool {
	b := x.r.Base()
	p := at(x.ino)
	both := b.Flags.Get()&ondisk.FlagExtents != 0
	set := func(drop, add uint32) {
		b.Flags.Set(b.Flags.Get()&^drop | add)
		x.write(c)
	}
	if c.extentRoot(b) && (!x.hasInline || both) {
		if c.fix(P1ClearInlineForExt, p) {
			set(ondisk.FlagInlineData, ondisk.FlagExtents)
		}
		return true
	}
	if !both {
		return true
	}
	if x.hasInline && x.r.Size(true) <= max(x.inlineSize, 60) {
		if c.fix(P1ClearExtForInline, p) {
			set(ondisk.FlagExtents, 0)
		}
		return true
	}
	ptr := endian.Views[endian.LE32](b.Block[:], 15)
	good, any := true, false
	for i := range ptr {
		if v := ondisk.Fsblk(ptr[i].Get()); v != 0 {
			any = true
			good = good && c.valid(v, 1)
		}
	}
	if good && any {
		if c.fix(P1ClearExtAndInline, p) {
			set(ondisk.FlagExtents|ondisk.FlagInlineData, 0)
		}
		return true
	}
	if c.fix(P1ClearJunk, p) {
		c.clearInode(x.ino, x.r, false)
		return false
	}
	return true
}

// inlineSize returns how many bytes of inline data an inode has room for; false
// if it has no attribute that holds them.
func (c *checker) inlineSize(r ondisk.RawInode) (int64, bool) {
	a, used, ok := ondisk.InodeXattrs(r)
	if !ok || !used || a.Check(ondisk.Ino(c.inodes)) != nil {
		return 0, false
	}
	off, found := a.Find(ondisk.XattrSystemIndex, ondisk.XattrSystemData, false)
	if !found {
		return 0, false
	}
	return int64(len(r.Base().Block)) + int64(a.Entry(off).ValueSize.Get()), true
}

// inlineMissing empties an inode that says it has inline data, and has no
// attribute that makes room for it.
func (c *checker) inlineMissing(x *inodeState) {
	b := x.r.Base()
	if !c.fix(P1InlineDataNoAttr, at(x.ino)) {
		return
	}
	b.Flags.Set(b.Flags.Get() &^ ondisk.FlagInlineData)
	x.r.SetSize(0)
	clear(b.Block[:])
	if mode := b.Mode.Get() & ondisk.ModeFmt; c.hasExtents && (mode == ondisk.ModeReg || mode == ondisk.ModeDir) {
		b.Flags.Set(b.Flags.Get() | ondisk.FlagExtents)
		ondisk.InitExtentNode(b.Block[:], 0)
	}
	x.write(c)
}
