package fsck

import (
	"fmt"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

const lpfName = "lost+found"

// lookForLpf sees to it that there is a lost+found.
func (c *checker) lookForLpf() {
	if c.canWrite() && c.lpf == 0 && !c.badLpf {
		c.getLpf()
	}
}

// lookup looks for a name in a directory.
func (c *checker) lookup(dir ondisk.Ino, name string) (ondisk.Ino, bool) {
	if r, err := c.inode(dir); err == nil && r.Base().Flags.Get()&ondisk.FlagInlineData != 0 {
		if e, _, found, err := ondisk.FindDirent(r.Base().Block[4:], []byte(name), 1024); err == nil && found {
			return e.Ino, true
		}
		if v, ok := c.xattrValue(r, ondisk.XattrSystemIndex, ondisk.XattrSystemData); ok && len(v) >= ondisk.DirentMin {
			if e, _, found, err := ondisk.FindDirent(v, []byte(name), 1024); err == nil && found {
				return e.Ino, true
			}
		}
		return 0, false
	}
	for _, b := range c.dblist {
		if b.ino != dir || b.blk == 0 {
			continue
		}
		if data, err := c.block(b.blk); err == nil {
			if e, _, found, err := ondisk.FindDirent(data, []byte(name), c.blockSize); err == nil && found {
				return e.Ino, true
			}
		}
	}
	return 0, false
}

// getLpf finds lost+found, or makes it; false if it cannot be had.
func (c *checker) getLpf() bool {
	if c.lpf != 0 {
		return true
	}
	if ino, ok := c.lookup(ondisk.RootIno, lpfName); ok {
		p := at(ino)
		unlink := false
		r, err := c.inode(ino)
		switch {
		case err != nil || !c.inodeDir.test(uint64(ino)):
			unlink = c.fix(P3LFNotDir, p)
			if !unlink {
				c.badLpf = true
				return false
			}
		case r.Base().Flags.Get()&ondisk.FlagEncrypt != 0:
			unlink = c.fix(P3LFEncrypted, p)
		case r.Base().Flags.Get()&ondisk.FlagInlineData != 0:
			unlink = c.fix(P3LFInline, p)
		}
		if !unlink {
			c.lpf = ino
			return true
		}
		if err == nil {
			c.unlinkFrom(ondisk.RootIno, ino)
			c.seen.add(uint64(ino), 1) // by adjust
			c.adjust(ino, -1)
			if c.inodeDir.test(uint64(ino)) {
				if d := c.dir(ino); d != nil {
					d.parent = 0
				}
				c.restart = true
			}
		}
	}
	if !c.fix(P3NoLF, at(0)) {
		c.badLpf = true
		return false
	}
	ino, ok := c.allocInode(true)
	if ok {
		ok = c.makeDir(ino, ondisk.RootIno, 0o700)
		if !ok {
			c.freeInode(ino, true)
		}
	}
	if ok && !c.link(ondisk.RootIno, lpfName, ino, ondisk.FTDir) {
		c.deallocate(ino)
		ok = false
	}
	if !ok {
		if c.fix(P3LFNoSpace, at(0)) {
			c.lpf = ondisk.RootIno
			c.lpfRoot = true
			c.tell(P3NoSpaceToRecover, at(0))
			return true
		}
		c.tell(P3CreateLFErr, at(0))
		c.invalid = true
		c.badLpf = true
		return false
	}
	c.links.set(uint64(ino), 2)
	c.seen.set(uint64(ino), 2)
	c.adjust(ondisk.RootIno, 1)
	c.lpf = ino
	return true
}

// reconnect gives an inode a name in lost+found.
func (c *checker) reconnect(ino ondisk.Ino) bool {
	p := at(ino)
	if c.lpf == 0 && (c.badLpf || !c.getLpf()) {
		c.tell(P3CantReconnect, p)
		return false
	}
	if ino == c.lpf {
		return false
	}
	r, err := c.inode(ino)
	if err != nil {
		return false
	}
	name := fmt.Sprintf("#%d", ino)
	ft := ondisk.FileType(r.Base().Mode.Get())
	if !c.linkInto(c.lpf, name, ino, ft) {
		if !c.fix(P3ExpandLF, p) {
			return false
		}
		if !c.expandDir(c.lpf) {
			c.tell(P3CantExpandLF, p)
			return false
		}
		if !c.linkInto(c.lpf, name, ino, ft) {
			c.tell(P3ReconnectFailed, p)
			return false
		}
	}
	c.adjust(ino, 1)
	return true
}

// link is linkInto for a directory that is made larger if it has to be.
func (c *checker) link(dir ondisk.Ino, name string, ino ondisk.Ino, ft uint8) bool {
	return c.linkInto(dir, name, ino, ft) || c.expandDir(dir) && c.linkInto(dir, name, ino, ft)
}

// linkInto puts an entry into a directory where there is room; false if there is none.
func (c *checker) linkInto(dir ondisk.Ino, name string, ino ondisk.Ino, ft uint8) bool {
	if !c.hasFiletype {
		ft = 0
	}
	r, err := c.inode(dir)
	if err != nil || r.Base().Flags.Get()&ondisk.FlagInlineData != 0 {
		return false
	}
	indexed := r.Base().Flags.Get()&ondisk.FlagIndex != 0
	for i := len(c.dblist) - 1; i >= 0; i-- {
		b := c.dblist[i]
		if b.ino != dir || b.blk == 0 {
			continue
		}
		data, err := c.block(b.blk)
		if err != nil {
			continue
		}
		if d := c.dx[dir]; indexed && d != nil && b.lblk < uint64(len(d.blocks)) && d.blocks[b.lblk].kind != dxLeaf {
			continue
		}
		area := data
		if c.hasCsum {
			if !hasTail(data) {
				continue
			}
			area = data[:len(data)-ondisk.DirTailSize]
		}
		off, room, dup, err := ondisk.FindRoom(area, []byte(name), c.blockSize)
		if err != nil || dup || !room {
			continue
		}
		ondisk.InsertDirent(area, off, c.blockSize, []byte(name), ino, ft)
		if c.hasCsum {
			ondisk.SealDirBlock(data, c.dirSeed(dir))
		}
		if indexed { // the name is in whatever leaf had room
			c.clearIndex(dir)
		}
		c.write(b.blk, data)
		return true
	}
	return false
}

// expandDir adds an empty block to a directory.
func (c *checker) expandDir(dir ondisk.Ino) bool {
	r, err := c.inode(dir)
	if err != nil || r.Base().Flags.Get()&ondisk.FlagInlineData != 0 {
		return false
	}
	runs, meta, mapErr := c.runs(r)
	if mapErr != nil {
		return false
	}
	next := uint64(0)
	blk, ok := ondisk.Fsblk(0), false
	if n := len(runs); n > 0 {
		next = runs[n-1].lblk + runs[n-1].n
		if next&(c.clusterRatio-1) != 0 {
			blk, ok = runs[n-1].blk+ondisk.Fsblk(runs[n-1].n), true
		}
	}
	if !ok {
		if blk, ok = c.alloc(c.goalOf(dir), true); !ok {
			return false
		}
	}
	data := make([]byte, c.blockSize)
	ondisk.InitDirBlock(data, c.hasCsum)
	if c.hasCsum {
		ondisk.SealDirBlock(data, c.dirSeed(dir))
	}
	c.write(blk, data)
	if !c.addMapping(dir, r, runs, meta, next, blk) {
		return false
	}
	c.addDirBlock(dir, blk, next)
	return true
}
