package fsck

import (
	"encoding/binary"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// pass3 sees to it that every directory can be reached from the root.
func (c *checker) pass3() {
	c.begin(P3Pass)
	c.checkRoot()
	if d := c.dir(ondisk.RootIno); d != nil {
		d.parent = ondisk.RootIno
	}
	done := newBitmap(uint64(c.inodes) + 1)
	done.set(uint64(ondisk.RootIno))
	for i := 0; i < len(c.dirs); i++ {
		if i%4096 == 0 {
			c.poll()
			c.opts.Asker.Progress(3, uint64(i), uint64(len(c.dirs)))
		}
		c.connected(c.dirs[i].ino, done)
	}
	if c.restart {
		c.abort(errRestart)
	}
	c.lookForLpf()
	c.pass3a()
}

// checkRoot makes a root directory if there is none.
func (c *checker) checkRoot() {
	if c.inodeUsed.test(uint64(ondisk.RootIno)) {
		if !c.inodeDir.test(uint64(ondisk.RootIno)) {
			c.tell(P3RootNotDirAbort, at(ondisk.RootIno))
		}
		return
	}
	if !c.fix(P3NoRoot, at(ondisk.RootIno)) {
		c.tell(P3NoRootAbort, at(ondisk.RootIno))
		c.abort(ErrAborted)
	}
	if !c.makeDir(ondisk.RootIno, ondisk.RootIno, 0o755) {
		c.tell(P3CreateRootErr, at(ondisk.RootIno))
		c.abort(ErrAborted)
	}
	// Pass 2 may have made a ".." that leads to it.
	n := 2 + c.seen.get(uint64(ondisk.RootIno))
	c.editInode(ondisk.RootIno, func(r ondisk.RawInode) { r.Base().LinksCount.Set(n) })
	c.links.set(uint64(ondisk.RootIno), n)
	c.seen.set(uint64(ondisk.RootIno), n)
}

// makeDir writes a new directory with one block into inode ino, which is marked used.
func (c *checker) makeDir(ino, parent ondisk.Ino, mode uint16) bool {
	blk, ok := c.alloc(c.goalOf(ino), true)
	if !ok {
		return false
	}
	gen := uint32(0)
	data := make([]byte, c.blockSize)
	c.newDirBlock(data, ino, parent)
	if c.hasCsum {
		ondisk.SealDirBlock(data, ondisk.InodeSeed(c.seed, ino, gen))
	}
	c.write(blk, data)
	r := make(ondisk.RawInode, c.inodeSize)
	b := r.Base()
	b.Mode.Set(ondisk.ModeDir | mode)
	b.LinksCount.Set(2)
	r.SetSize(int64(c.blockSize))
	if c.inodeSize > ondisk.GoodOldInodeSz {
		n := c.sb.WantExtraIsize.Get()
		if n < 4 || int(n) > c.inodeSize-ondisk.GoodOldInodeSz {
			n = min(ondisk.InodeExtraSize, uint16(c.inodeSize-ondisk.GoodOldInodeSz))
		}
		binary.LittleEndian.PutUint16(r[ondisk.GoodOldInodeSz:], n)
	}
	now := ondisk.Time{Sec: int64(c.now)}
	r.SetAtime(now)
	r.SetMtime(now)
	r.SetCtime(now)
	r.SetCrtime(now)
	runs := []extent{{0, blk, 1, false, false}}
	if c.hasExtents {
		b.Flags.Set(ondisk.FlagExtents)
	}
	if _, ok := c.storeMap(ino, r, runs); !ok {
		return false
	}
	r.SetBlocks(c.countBlocks(r, runs, 0))
	c.sync()
	c.writeInode(ino, r)
	c.inodeUsed.set(uint64(ino))
	c.inodeDir.set(uint64(ino))
	c.addDir(ino)
	c.addDirBlock(ino, blk, 0)
	d := c.dir(ino)
	d.dotdot, d.parent = parent, parent
	c.res.Dirs++
	return true
}

// connected follows a directory up to one that is known to be reachable, and
// connects what cannot be reached.
func (c *checker) connected(ino ondisk.Ino, done *bitmap) {
	loop := map[ondisk.Ino]bool{}
	for at1 := ino; !done.test(uint64(at1)); {
		d := c.dir(at1)
		if d == nil || !c.inodeDir.test(uint64(at1)) {
			break
		}
		done.set(uint64(at1))
		loop[at1] = true
		p := at(at1)
		if d.parent == 0 || c.dir(d.parent) == nil {
			q := p
			q.Num = uint64(d.dotdot)
			if c.fix(P3UnconnectedDir, q) {
				if c.reconnect(at1) {
					d = c.dir(at1)
					d.parent = c.lpf
					c.fixDotDot(at1, c.lpf)
				} else {
					c.invalid = true
				}
			}
			break
		}
		up := d.parent
		if loop[up] && up != at1 {
			if c.fix(P3LoopedParent, p) {
				if c.reconnect(at1) {
					c.unlinkFrom(up, at1)
					d = c.dir(at1)
					d.parent = c.lpf
					c.fixDotDot(at1, c.lpf)
				} else {
					c.invalid = true
				}
			}
			break
		}
		at1 = up
	}
	d := c.dir(ino)
	if d == nil || !c.inodeDir.test(uint64(ino)) {
		return
	}
	if d.dotdot != d.parent && d.parent != 0 {
		q := at(ino)
		q.Num, q.Want, q.Vals = uint64(d.dotdot), uint64(d.parent), true
		if c.fix(P3BadDotDot, q) {
			c.fixDotDot(ino, d.parent)
		}
	}
}

// unlinkFrom removes the entry for ino from directory dir.
func (c *checker) unlinkFrom(dir, ino ondisk.Ino) {
	for _, b := range c.dblist {
		if b.ino != dir || b.blk == 0 {
			continue
		}
		data, err := c.block(b.blk)
		if err != nil {
			continue
		}
		off, found := 0, false
		if b.lblk == 0 {
			off = 24
			if e, err := ondisk.DirentAt(data, 0, c.blockSize); err == nil {
				off = e.RecLen
				if e, err = ondisk.DirentAt(data, off, c.blockSize); err == nil {
					off += e.RecLen
				}
			}
		}
		for off < len(data) {
			e, err := ondisk.DirentAt(data, off, c.blockSize)
			if err != nil {
				break
			}
			if e.Ino == ino {
				binary.LittleEndian.PutUint32(data[off:], 0)
				found = true
				c.seen.add(uint64(ino), -1)
				break
			}
			off += e.RecLen
		}
		if found {
			if c.hasCsum {
				ondisk.SealDirBlock(data, c.dirSeed(dir))
			}
			c.write(b.blk, data)
			return
		}
	}
}

// fixDotDot makes ".." of a directory lead to parent.
func (c *checker) fixDotDot(ino, parent ondisk.Ino) {
	d := c.dir(ino)
	old := d.dotdot
	if old == parent {
		return
	}
	count := func(was ondisk.Ino) {
		switch {
		case was == 0:
		case uint32(was) <= c.inodes:
			c.adjust(was, -1)
		default:
			c.tell(P3AdjustInode, at(was))
		}
		c.adjust(parent, 1)
		d.dotdot = parent
	}
	r, err := c.inode(ino)
	if err != nil {
		return
	}
	if r.Base().Flags.Get()&ondisk.FlagInlineData != 0 {
		binary.LittleEndian.PutUint32(r.Base().Block[:], uint32(parent))
		c.writeInode(ino, r)
		count(old)
		return
	}
	for _, b := range c.dblist {
		if b.ino != ino || b.lblk != 0 || b.blk == 0 {
			continue
		}
		data, err := c.block(b.blk)
		if err != nil {
			return
		}
		for off := 0; off < len(data); {
			e, err := ondisk.DirentAt(data, off, c.blockSize)
			if err != nil {
				break
			}
			if string(e.Name) == ".." {
				binary.LittleEndian.PutUint32(data[off:], uint32(parent))
				if c.hasFiletype {
					data[off+7] = ondisk.FTDir
				}
				if c.hasCsum {
					ondisk.SealDirBlock(data, c.dirSeed(ino))
				}
				c.write(b.blk, data)
				count(e.Ino)
				return
			}
			off += e.RecLen
		}
	}
}

// adjust changes how many links an inode has, as told and as seen.
func (c *checker) adjust(ino ondisk.Ino, d int) {
	c.seen.add(uint64(ino), d)
	n := c.links.get(uint64(ino))
	if d > 0 && n == 65535 || d < 0 && n == 0 {
		return
	}
	c.links.add(uint64(ino), d)
	c.editInode(ino, func(r ondisk.RawInode) {
		if v := int(r.Base().LinksCount.Get()) + d; v >= 0 && v <= 65535 {
			r.Base().LinksCount.Set(uint16(v))
		}
	})
}
