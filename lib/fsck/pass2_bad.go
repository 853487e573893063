package fsck

import "github.com/e2kit/e2kit/lib/ext2fs/ondisk"

// fragOff is where GNU/Hurd has number and size of a fragment, in an inode.
const fragOff = 116

// badInode deals with an inode that pass 1 found odd, when it is known that dir
// has an entry for it (or none has, with 0). It returns whether the inode was freed.
func (c *checker) badInode(dir, ino ondisk.Ino, name string) bool {
	r, err := c.inode(ino)
	if err != nil {
		return false
	}
	b := r.Base()
	p := at(ino)
	p.Path = name
	left, dirty := false, false
	acl := r.FileACL()
	if acl != 0 && !c.sb.HasCompat(ondisk.CompatExtAttr) {
		p.Blk = acl
		if c.fix(P2FileACLZero, p) {
			r.SetFileACL(0)
			acl = 0
			dirty = true
		} else {
			left = true
		}
		p.Blk = 0
	}
	var code Code
	switch b.Mode.Get() & ondisk.ModeFmt {
	case ondisk.ModeReg, ondisk.ModeDir:
	case ondisk.ModeLnk:
		if !c.symlinkOK(r) {
			code = P2InvalidSymlink
		}
	case ondisk.ModeChr:
		code = P2BadCharDev
	case ondisk.ModeBlk:
		code = P2BadBlockDev
	case ondisk.ModeFIFO:
		code = P2BadFIFO
	case ondisk.ModeSock:
		code = P2BadSocket
	default:
		code = P2BadMode
	}
	switch b.Mode.Get() & ondisk.ModeFmt {
	case ondisk.ModeChr, ondisk.ModeBlk, ondisk.ModeFIFO, ondisk.ModeSock:
		if c.deviceOK(r) {
			code = 0
		}
	}
	if code != 0 {
		q := p
		q.Num = uint64(b.Mode.Get())
		if c.fix(code, q) {
			if dirty {
				c.writeInode(ino, r)
			}
			c.deallocate(ino)
			return true
		}
		left = true
	}
	zero := func(code Code, v uint64, set func()) {
		if v == 0 {
			return
		}
		q := p
		q.Num = v
		if c.fix(code, q) {
			set()
			dirty = true
		} else {
			left = true
		}
	}
	zero(P2FaddrZero, uint64(b.ObsoFaddr.Get()), func() { b.ObsoFaddr.Set(0) })
	if c.sb.CreatorOS.Get() == ondisk.OSHurd {
		frag := r[fragOff : fragOff+2]
		zero(P2FragZero, uint64(frag[0]), func() { frag[0] = 0 })
		zero(P2FsizeZero, uint64(frag[1]), func() { frag[1] = 0 })
	} else if !c.hasHugeFile {
		zero(P2BlocksHiZero, uint64(b.BlocksHi.Get()), func() { b.BlocksHi.Set(0) })
	}
	if !c.has64 {
		zero(P2FileACLHiZero, uint64(b.FileACLHi.Get()), func() { b.FileACLHi.Set(0) })
		acl = ondisk.Fsblk(b.FileACLLo.Get())
	}
	if acl != 0 && !c.valid(acl, 1) {
		zero(P2FileACLBad, uint64(acl), func() { r.SetFileACL(0) })
	}
	if c.isDirMode(b.Mode.Get()) && !c.hasLargeDir {
		zero(P2DirSizeHighZero, uint64(b.SizeHi.Get()), func() { b.SizeHi.Set(0) })
	}
	if dirty {
		c.writeInode(ino, r)
	}
	if !left {
		c.inodeBad.clear(uint64(ino))
	}
	return false
}

// deallocate frees an inode and its blocks.
func (c *checker) deallocate(ino ondisk.Ino) {
	r, err := c.inode(ino)
	if err != nil {
		return
	}
	isDir := c.inodeDir.test(uint64(ino))
	acl := r.FileACL()
	var free []ondisk.Fsblk
	last := ^uint64(0)
	if c.hasBlocks(r) {
		_ = c.eachExtent(r, func(e extent) bool {
			for i := range e.n {
				if k := c.cluster(e.blk + ondisk.Fsblk(i)); k != last || e.meta {
					last = k
					free = append(free, e.blk+ondisk.Fsblk(i))
				}
			}
			return true
		})
	}
	used := c.inodeUsed.test(uint64(ino))
	c.clearInode(ino, r, false)
	if used {
		c.inodeUsed.set(uint64(ino))
		c.freeInode(ino, isDir)
	}
	for _, b := range free {
		c.releaseCounted(b)
	}
	if acl != 0 && c.valid(acl, 1) && c.sb.HasCompat(ondisk.CompatExtAttr) {
		c.dropXattrBlock(acl)
	}
}
