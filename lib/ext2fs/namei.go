package ext2fs

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// Cred says on whose behalf a file is made. Permission is checked by the
// caller (for a mount, by the kernel); this decides ownership and mode.
type Cred struct {
	UID, GID uint32
	Umask    uint16 // applied where the directory has no default ACL
	Verbatim bool   // the mode is final: the caller sees to umask and ACLs
	Near     bool   // directories too go to the group of their directory, or one that follows it
}

// mayUseReserved tells whether cred may take the blocks that are reserved for
// the super-user.
func (fs *FS) mayUseReserved(cred Cred) bool {
	uid := uint32(fs.sb.DefResuidHi.Get())<<16 | uint32(fs.sb.DefResuid.Get())
	gid := uint32(fs.sb.DefResgidHi.Get())<<16 | uint32(fs.sb.DefResgid.Get())
	if fs.opts.Resuid != nil {
		uid = *fs.opts.Resuid
	}
	if fs.opts.Resgid != nil {
		gid = *fs.opts.Resgid
	}
	return cred.UID == 0 || cred.UID == uid || gid != 0 && cred.GID == gid
}

// checkName refuses names that no directory entry can hold.
func checkName(name string) error {
	switch {
	case name == "":
		return syscall.ENOENT
	case len(name) > ondisk.NameLen:
		return syscall.ENAMETOOLONG
	case name == "." || name == "..":
		return syscall.EINVAL
	}
	for i := 0; i < len(name); i++ {
		if name[i] == '/' || name[i] == 0 {
			return syscall.EINVAL
		}
	}
	return nil
}

// opErr says which operation on which name failed.
func opErr(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %q: %w", op, name, err)
}

// retry runs op, again after a commit as long as it fails for want of space
// while blocks freed by transactions that have not committed are waiting:
// those can be had only then.
func (fs *FS) retry(op func() error) error {
	for try := 0; ; try++ {
		err := op()
		if try == 3 || !errors.Is(err, syscall.ENOSPC) || fs.pending.Load() == 0 {
			return err
		}
		if cerr := fs.jnl.CommitRunning(); cerr != nil {
			return err
		}
	}
}

// Lookup returns the inode that name has in directory dp, pinned. "." and
// ".." are entries like others. It fails with ENOENT or ENOTDIR.
func (fs *FS) Lookup(dp *Inode, name string) (*Inode, error) {
	if len(name) > ondisk.NameLen {
		return nil, syscall.ENAMETOOLONG
	}
	if !dp.isDir() {
		return nil, syscall.ENOTDIR
	}
	dp.mu.RLock()
	ino, _, err := fs.dirLookup(dp, []byte(name))
	if err != nil {
		dp.mu.RUnlock()
		return nil, err
	}
	// The pin is taken under the directory's lock: afterwards an unlink
	// could free the inode before it is pinned.
	ip, err := fs.igetEntry(dp, ino)
	dp.mu.RUnlock()
	return ip, err
}

// igetEntry pins the inode that an entry of dp names. An entry that names a
// free inode is corruption of dp, not a stale handle.
func (fs *FS) igetEntry(dp *Inode, ino ondisk.Ino) (*Inode, error) {
	ip, err := fs.Iget(ino)
	if errors.Is(err, syscall.ESTALE) {
		e := ondisk.Corrupt("directory entry", 0, "names the free inode %d", ino)
		e.Ino = dp.ino
		return nil, fs.corrupt(dp.ino, e)
	}
	return ip, err
}

// writableDir says whether entries may be added to dp, and with remove, taken
// from it. dp.mu held.
func writableDir(dp *Inode, remove bool) error {
	if !dp.isDir() {
		return syscall.ENOTDIR
	}
	dp.mapMu.RLock()
	links, flags := dp.raw.Base().LinksCount.Get(), dp.raw.Base().Flags.Get()
	dp.mapMu.RUnlock()
	switch {
	case links == 0:
		return syscall.ENOENT
	case flags&ondisk.FlagImmutable != 0, remove && flags&ondisk.FlagAppend != 0:
		return syscall.EPERM
	}
	return nil
}

// touchDir sets the times of a directory whose entries changed, changes its
// link count by links, and stores it. dp.mu held.
func (fs *FS) touchDir(h *jbd2.Handle, dp *Inode, links int) error {
	now := at(h)
	dp.mapMu.Lock()
	defer dp.mapMu.Unlock()
	dp.raw.SetMtime(now)
	dp.raw.SetCtime(now)
	switch {
	case links > 0:
		fs.incDirLinks(dp)
	case links < 0:
		fs.decDirLinks(dp)
	}
	return dp.store(h)
}

// incDirLinks counts one more subdirectory. With dir_nlink a directory of more
// than LinkMax links has the count 1, for good. dp.mapMu held.
func (fs *FS) incDirLinks(dp *Inode) {
	b := dp.raw.Base()
	n := uint32(b.LinksCount.Get())
	if n == 1 {
		return
	}
	if n++; n > ondisk.LinkMax {
		n = 1
	}
	b.LinksCount.Set(uint16(n))
}

// decDirLinks counts one subdirectory less. dp.mapMu held.
func (fs *FS) decDirLinks(dp *Inode) {
	b := dp.raw.Base()
	if n := b.LinksCount.Get(); n > 2 {
		b.LinksCount.Set(n - 1)
	}
}

// dirLinksFull says whether dp can have no further subdirectory. As in the
// kernel, dir_nlink is for directories with an index. dp.mu held.
func (fs *FS) dirLinksFull(dp *Inode) bool {
	dp.mapMu.RLock()
	defer dp.mapMu.RUnlock()
	b := dp.raw.Base()
	return b.LinksCount.Get() >= ondisk.LinkMax && !(fs.hasDirNlink && fs.isDx(b.Flags.Get()))
}

// Create makes a regular file, device, fifo or socket: mode has the type and
// the permissions, rdev the device number in Linux' 32-bit encoding. The inode
// is returned pinned. It fails with EEXIST, ENOSPC, ENOENT (dp was removed).
func (fs *FS) Create(dp *Inode, name string, mode uint16, rdev uint32, cred Cred) (*Inode, error) {
	switch mode & ondisk.ModeFmt {
	case 0:
		mode |= ondisk.ModeReg
	case ondisk.ModeReg, ondisk.ModeFIFO, ondisk.ModeSock, ondisk.ModeChr, ondisk.ModeBlk:
	default:
		return nil, opErr("create", name, syscall.EINVAL)
	}
	ip, err := fs.newEntry(dp, name, mode, cred, func(h *jbd2.Handle, ip *Inode) error {
		if f := mode & ondisk.ModeFmt; f == ondisk.ModeChr || f == ondisk.ModeBlk {
			ip.setRdev(rdev)
		}
		return nil
	}, 0)
	return ip, opErr("create", name, err)
}

// Mkdir makes a directory; the inode is returned pinned.
func (fs *FS) Mkdir(dp *Inode, name string, perm uint16, cred Cred) (*Inode, error) {
	mode := ondisk.ModeDir | perm&^ondisk.ModeFmt
	ip, err := fs.newEntry(dp, name, mode, cred, func(h *jbd2.Handle, ip *Inode) error {
		return fs.dirInit(h, ip, dp.ino)
	}, creditsMkdir)
	return ip, opErr("mkdir", name, err)
}

// newEntry makes an inode and its entry in one transaction; init fills the
// inode before it is stored.
func (fs *FS) newEntry(dp *Inode, name string, mode uint16, cred Cred, init func(*jbd2.Handle, *Inode) error, credits int) (*Inode, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	dp.mu.Lock()
	defer dp.mu.Unlock()
	dp.rsvOK = fs.mayUseReserved(cred)
	if err := writableDir(dp, false); err != nil {
		return nil, err
	}
	bname := []byte(name)
	if _, _, err := fs.dirLookup(dp, bname); err == nil {
		return nil, syscall.EEXIST
	} else if !errors.Is(err, syscall.ENOENT) {
		return nil, err
	}
	isDir := mode&ondisk.ModeFmt == ondisk.ModeDir
	if isDir && fs.dirLinksFull(dp) {
		return nil, syscall.EMLINK
	}
	var ip *Inode
	err := fs.retry(func() error {
		h, err := fs.start(credits + creditsCreate + fs.dirAddCredits(dp))
		if err != nil {
			return err
		}
		if ip, err = fs.makeInode(h, dp, mode, cred, init); err != nil {
			return err
		}
		if err = fs.dirAdd(h, dp, bname, ip.ino, ondisk.FileType(mode)); err == nil {
			links := 0
			if isDir {
				links = 1
			}
			err = fs.touchDir(h, dp, links)
		}
		if err != nil {
			fs.abandonInode(h, ip)
			ip = nil
			return err
		}
		return fs.stopSync(h, dp, ip)
	})
	if err != nil && ip != nil {
		ip.Put()
		ip = nil
	}
	return ip, err
}

// makeInode allocates an inode for an entry of dp, gives it owner, mode and
// inherited ACL, lets init fill it, and stores it. If that fails it ends the
// handle, and nothing of the inode remains.
func (fs *FS) makeInode(h *jbd2.Handle, dp *Inode, mode uint16, cred Cred, init func(*jbd2.Handle, *Inode) error) (*Inode, error) {
	var goal []ondisk.Group
	if cred.Near {
		goal = []ondisk.Group{ondisk.Group(uint32(dp.ino-1) / fs.inodesPerGroup)}
	}
	ip, err := fs.ialloc(h, dp, mode, goal...)
	if err != nil {
		h.Stop()
		return nil, err
	}
	ip.own(dp, cred)
	m := mode
	if !cred.Verbatim {
		err = fs.aclInit(h, dp, ip, &m, cred.Umask)
	}
	if err == nil {
		ip.mapMu.Lock()
		b := ip.raw.Base()
		b.Mode.Set(b.Mode.Get()&^0o777 | m&0o777)
		b.LinksCount.Set(1) // init knows better of directories and nameless files
		ip.mapMu.Unlock()
		err = init(h, ip)
	}
	if err == nil {
		ip.mapMu.Lock()
		err = ip.store(h)
		ip.mapMu.Unlock()
	}
	if err != nil {
		fs.abandonInode(h, ip)
		return nil, err
	}
	return ip, nil
}

// own gives a new inode of dp a link, its owner and group: with the set-group-id bit of
// dp, or the bsdgroups option, those of dp's group, and directories inherit the
// bit.
func (ip *Inode) own(dp *Inode, cred Cred) {
	dp.mapMu.RLock()
	gid, sgid := dp.raw.GID(), dp.mode()&ondisk.ModeSGID != 0
	dp.mapMu.RUnlock()
	ip.mapMu.Lock()
	defer ip.mapMu.Unlock()
	ip.raw.Base().LinksCount.Set(1)
	ip.raw.SetUID(cred.UID)
	if !sgid && !ip.fs.opts.BSDGroups {
		gid = cred.GID
	}
	ip.raw.SetGID(gid)
	if sgid && ip.isDir() {
		m := &ip.raw.Base().Mode
		m.Set(m.Get() | ondisk.ModeSGID)
	}
}

// setRdev stores a device number, in Linux' 32-bit encoding: as the old 16 bits
// where they hold it. mapMu is held, or ip is not shared.
func (ip *Inode) setRdev(dev uint32) {
	b := &ip.raw.Base().Block
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	clear(b[:])
	if major < 256 && minor < 256 {
		endian.View[endian.LE32](b[:]).Set(major<<8 | minor)
	} else {
		endian.View[endian.LE32](b[4:]).Set(dev)
	}
}

// abandonInode turns a new inode that got no entry into an orphan, ends the handle
// and lets go of the inode, which frees it.
func (fs *FS) abandonInode(h *jbd2.Handle, ip *Inode) {
	ip.mapMu.Lock()
	ip.raw.Base().LinksCount.Set(0)
	err := ip.store(h)
	ip.mapMu.Unlock()
	if err == nil {
		err = fs.orphanAdd(h, ip)
	}
	if err != nil {
		fs.corrupt(ip.ino, err)
	}
	h.Stop()
	ip.Put()
}

// stopSync ends h, with a commit if dirsync, sync or the flags of one of the
// inodes ask for it.
func (fs *FS) stopSync(h *jbd2.Handle, ips ...*Inode) error {
	sync := fs.opts.Sync || fs.opts.DirSync
	for _, ip := range ips {
		if sync || ip == nil {
			continue
		}
		ip.mapMu.RLock()
		sync = ip.raw.Base().Flags.Get()&(ondisk.FlagSync|ondisk.FlagDirsync) != 0
		ip.mapMu.RUnlock()
	}
	tid := h.Tid()
	if err := h.Stop(); err != nil || !sync {
		return err
	}
	return fs.jnl.Commit(tid)
}

// Tmpfile makes a regular file without a name, in the group of dp: it is freed
// when the last reference goes unless Link gives it a name.
func (fs *FS) Tmpfile(dp *Inode, perm uint16, cred Cred) (*Inode, error) {
	dp.mu.RLock()
	defer dp.mu.RUnlock()
	if err := writableDir(dp, false); err != nil {
		if errors.Is(err, syscall.ENOENT) {
			err = syscall.EPERM // what Linux says of a removed directory
		}
		return nil, err
	}
	var ip *Inode
	err := fs.retry(func() error {
		h, err := fs.start(creditsCreate + creditsOrphan)
		if err != nil {
			return err
		}
		ip, err = fs.makeInode(h, dp, ondisk.ModeReg|perm&^ondisk.ModeFmt, cred, func(h *jbd2.Handle, ip *Inode) error {
			ip.mapMu.Lock()
			ip.raw.Base().LinksCount.Set(0)
			err := ip.store(h)
			ip.mapMu.Unlock()
			if err != nil {
				return err
			}
			return fs.orphanAdd(h, ip)
		})
		if err != nil {
			return err
		}
		return h.Stop()
	})
	return ip, err
}

// Link gives ip the further name in directory dp. It fails with EEXIST,
// EMLINK, or EPERM (a directory).
func (fs *FS) Link(ip, dp *Inode, name string) error {
	if err := checkName(name); err != nil {
		return opErr("link", name, err)
	}
	dp.mu.Lock()
	defer dp.mu.Unlock()
	ip.mu.Lock()
	defer ip.mu.Unlock()
	if err := writableDir(dp, false); err != nil {
		return opErr("link", name, err)
	}
	ip.mapMu.RLock()
	mode, flags := ip.raw.Base().Mode.Get(), ip.raw.Base().Flags.Get()
	links := ip.raw.Base().LinksCount.Get()
	ip.mapMu.RUnlock()
	switch {
	case mode&ondisk.ModeFmt == ondisk.ModeDir, flags&(ondisk.FlagImmutable|ondisk.FlagAppend) != 0:
		return opErr("link", name, syscall.EPERM)
	case links >= ondisk.LinkMax:
		return opErr("link", name, syscall.EMLINK)
	}
	bname := []byte(name)
	if _, _, err := fs.dirLookup(dp, bname); err == nil {
		return opErr("link", name, syscall.EEXIST)
	} else if !errors.Is(err, syscall.ENOENT) {
		return opErr("link", name, err)
	}
	if err := dp.sameProject(ip); err != nil {
		return opErr("link", name, err)
	}
	return opErr("link", name, fs.retry(func() error {
		h, err := fs.start(creditsLink + creditsOrphan + fs.dirAddCredits(dp))
		if err != nil {
			return err
		}
		if err = fs.dirAdd(h, dp, bname, ip.ino, ondisk.FileType(mode)); err == nil {
			err = fs.touchDir(h, dp, 0)
		}
		if err == nil && links == 0 {
			err = fs.orphanDel(h, ip)
		}
		if err == nil {
			ip.mapMu.Lock()
			ip.raw.Base().LinksCount.Set(links + 1)
			ip.raw.SetCtime(at(h))
			err = ip.store(h)
			ip.mapMu.Unlock()
		}
		if err != nil {
			h.Stop()
			return err
		}
		return fs.stopSync(h, dp, ip)
	}))
}

// Unlink removes the entry name, not a directory, from dp. The inode is freed
// with its last link once nobody holds it.
func (fs *FS) Unlink(dp *Inode, name string) error {
	return opErr("unlink", name, fs.removeEntry(dp, name, false))
}

// Rmdir removes the empty directory name from dp. It fails with ENOTEMPTY.
func (fs *FS) Rmdir(dp *Inode, name string) error {
	return opErr("rmdir", name, fs.removeEntry(dp, name, true))
}

func (fs *FS) removeEntry(dp *Inode, name string, dir bool) error {
	switch {
	case dir && name == ".":
		return syscall.EINVAL
	case dir && name == "..":
		return syscall.ENOTEMPTY
	}
	if err := checkName(name); err != nil {
		return err
	}
	dp.mu.Lock()
	ip, err := fs.removeEntryLocked(dp, name, dir)
	dp.mu.Unlock()
	if ip != nil {
		ip.Put() // frees it if that was the last link
	}
	return err
}

func (fs *FS) removeEntryLocked(dp *Inode, name string, dir bool) (*Inode, error) {
	if err := writableDir(dp, true); err != nil {
		return nil, err
	}
	bname := []byte(name)
	ino, _, err := fs.dirLookup(dp, bname)
	if err != nil {
		return nil, err
	}
	if ino == dp.ino {
		return nil, syscall.EINVAL
	}
	ip, err := fs.igetEntry(dp, ino)
	if err != nil {
		return nil, err
	}
	ip.mu.Lock()
	defer ip.mu.Unlock()
	if err := fs.removable(ip, dir); err != nil {
		return ip, err
	}
	h, err := fs.start(creditsUnlink + creditsOrphan)
	if err != nil {
		return ip, err
	}
	err = fs.dirRemove(h, dp, bname)
	if err == nil {
		links := 0
		if dir {
			links = -1
		}
		err = fs.touchDir(h, dp, links)
	}
	if err == nil {
		err = fs.dropLink(h, ip)
	}
	if err != nil {
		h.Stop()
		return ip, err
	}
	return ip, fs.stopSync(h, dp)
}

// removable says whether the entry of ip may go: dir tells whether a
// directory is to be removed. ip.mu held.
func (fs *FS) removable(ip *Inode, dir bool) error {
	ip.mapMu.RLock()
	flags := ip.raw.Base().Flags.Get()
	ip.mapMu.RUnlock()
	switch {
	case dir && !ip.isDir():
		return syscall.ENOTDIR
	case !dir && ip.isDir():
		return syscall.EISDIR
	case flags&(ondisk.FlagImmutable|ondisk.FlagAppend) != 0:
		return syscall.EPERM
	case !dir:
		return nil
	}
	empty, err := fs.dirEmpty(ip)
	if err == nil && !empty {
		err = syscall.ENOTEMPTY
	}
	return err
}

// dropLink takes one link from ip, all of them from a directory, and makes it
// an orphan with the last. ip.mu held.
func (fs *FS) dropLink(h *jbd2.Handle, ip *Inode) error {
	ip.mapMu.Lock()
	b := ip.raw.Base()
	n := b.LinksCount.Get()
	switch {
	case ip.isDir():
		n = 0
		ip.raw.SetSize(0)
	case n > 0:
		n--
	}
	b.LinksCount.Set(n)
	ip.raw.SetCtime(at(h))
	err := ip.store(h)
	ip.mapMu.Unlock()
	if err == nil && n == 0 {
		err = fs.orphanAdd(h, ip)
	}
	return err
}
