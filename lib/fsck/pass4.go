package fsck

import (
	"encoding/binary"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// pass4 corrects link counts, and gives inodes without a name one.
func (c *checker) pass4() {
	c.begin(P4Pass)
	for i := c.inodeUsed.next(1, uint64(c.inodes)+1); i <= uint64(c.inodes); i = c.inodeUsed.next(i+1, uint64(c.inodes)+1) {
		if i%65536 == 0 {
			c.poll()
			c.opts.Asker.Progress(4, i, uint64(c.inodes))
		}
		ino := ondisk.Ino(i)
		if ino == ondisk.BadIno || ino > ondisk.RootIno && ino < c.firstIno || c.inodeBB.test(i) || c.hiddenInode(ino) {
			continue
		}
		told, seen := c.links.get(i), c.seen.get(i)
		if seen == 0 {
			if c.valueInode4(ino) {
				continue
			}
			if c.inodeBad.test(i) && c.badInode(0, ino, "") {
				continue
			}
			if !c.unattached(ino) {
				continue
			}
			told, seen = c.links.get(i), c.seen.get(i)
		}
		isDir := c.inodeDir.test(i)
		want := seen
		if isDir && want > ondisk.LinkMax {
			if !c.sb.HasROCompat(ondisk.ROCompatDirNlink) && c.fix(P4DirExceeds, at(ino)) {
				c.sb.FeatureROCompat.Set(c.sb.FeatureROCompat.Get() | ondisk.ROCompatDirNlink)
				c.setSuper()
			}
			want = 1
		}
		if want == told {
			continue
		}
		p := at(ino)
		p.Num, p.Want, p.Vals = uint64(told), uint64(want), true
		code := P4BadRefCount
		if isDir && told == 1 && want > 1 && c.sb.HasROCompat(ondisk.ROCompatDirNlink) {
			if !c.canWrite() {
				continue // it had too many once, which is no error
			}
			code = P4DirOverflowRef
		}
		if c.fix(code, p) {
			c.editInode(ino, func(r ondisk.RawInode) { r.Base().LinksCount.Set(want) })
			c.links.set(i, want)
		}
	}
}

// hiddenInode tells whether an inode is there without a name.
func (c *checker) hiddenInode(ino ondisk.Ino) bool {
	s := c.sb
	n := uint32(ino)
	return n == s.JournalInum.Get() && s.HasCompat(ondisk.CompatHasJournal) && ino < c.firstIno ||
		c.hasQuota && (n == s.UsrQuotaInum.Get() || n == s.GrpQuotaInum.Get() || n == s.PrjQuotaInum.Get()) ||
		n == s.OrphanFileInum.Get() && s.HasCompat(ondisk.CompatOrphanFile)
}

// valueInode4 checks an inode without a name that is marked as one that holds an
// attribute's value; true if it is one.
func (c *checker) valueInode4(ino ondisk.Ino) bool {
	r, err := c.inode(ino)
	if err != nil || r.Base().Flags.Get()&ondisk.FlagEAInode == 0 {
		return false
	}
	b := r.Base()
	uses := c.xattrs.inodes[ino]
	if uses == 0 {
		if c.fix(P4EAInodeSpurious, at(ino)) {
			b.Flags.Set(b.Flags.Get() &^ ondisk.FlagEAInode)
			c.writeInode(ino, r)
			return false
		}
		return true
	}
	stored := uint64(b.Ctime.Get())<<32 | uint64(b.VersionLo.Get())
	if stored != uses && !lustreValue(r, c) {
		p := at(ino)
		p.Num, p.Want, p.Vals = stored, uses, true
		if c.fix(P4EAInodeRefCount, p) {
			b.Ctime.Set(uint32(uses >> 32))
			b.VersionLo.Set(uint32(uses))
			c.writeInode(ino, r)
		}
	}
	return true
}

// lustreValue tells whether a value inode is of the older kind, which names its
// owner and is not counted.
func lustreValue(r ondisk.RawInode, c *checker) bool {
	owner := ondisk.Ino(r.Base().Mtime.Get())
	if owner == 0 || uint32(owner) > c.inodes || !c.inodeUsed.test(uint64(owner)) {
		return false
	}
	o, err := c.inode(owner)
	return err == nil && o.Base().Generation.Get() == r.Base().Generation.Get() && r.Base().Generation.Get() != 0
}

// unattached deals with an inode without a name; true if it has one now.
func (c *checker) unattached(ino ondisk.Ino) bool {
	r, err := c.inode(ino)
	if err != nil {
		return false
	}
	b := r.Base()
	p := at(ino)
	mode := b.Mode.Get() & ondisk.ModeFmt
	n := r.ExtraIsize()
	attrs := len(r) >= ondisk.GoodOldInodeSz+n+4 && n > 0 && binary.LittleEndian.Uint32(r[ondisk.GoodOldInodeSz+n:]) == ondisk.XattrMagic
	if b.BlocksLo.Get() == 0 && !attrs && (mode == ondisk.ModeReg || mode == ondisk.ModeDir) {
		if c.fix(P4ZeroLenInode, p) {
			isDir := c.inodeDir.test(uint64(ino))
			c.clearInode(ino, r, false)
			c.inodeUsed.set(uint64(ino))
			c.freeInode(ino, isDir)
			return false
		}
	}
	if !c.fix(P4UnattachedInode, p) {
		c.invalid = true
		return false
	}
	if !c.reconnect(ino) {
		c.invalid = true
		return false
	}
	return true
}
