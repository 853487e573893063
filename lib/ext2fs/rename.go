package ext2fs

import (
	"errors"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// Flags of Rename, the numbers of renameat2(2).
const (
	RenameNoreplace = 1
	RenameExchange  = 2
	RenameWhiteout  = 4
)

// rename is one Rename under way: its two entries and what they name.
type rename struct {
	fs           *FS
	odp, ndp     *Inode
	oname, nname []byte
	oip, nip     *Inode // nip is nil if there is no such entry
	flags        uint32
	cred         Cred
}

// Rename moves the entry oname of odp to nname of ndp, over what is there, in
// one transaction. flags: RenameNoreplace fails with EEXIST if nname exists;
// RenameExchange swaps both; RenameWhiteout leaves a whiteout (a character
// device 0,0 owned by cred) behind. It fails with EINVAL if a directory would
// come to lie below itself.
func (fs *FS) Rename(odp *Inode, oname string, ndp *Inode, nname string, flags uint32, cred Cred) error {
	err := checkName(oname)
	if err == nil {
		err = checkName(nname)
	}
	if err == nil && (flags&^(RenameNoreplace|RenameExchange|RenameWhiteout) != 0 ||
		flags&RenameExchange != 0 && flags != RenameExchange) {
		err = syscall.EINVAL
	}
	if err != nil {
		return opErr("rename", oname, err)
	}
	r := rename{fs: fs, odp: odp, ndp: ndp, oname: []byte(oname), nname: []byte(nname), flags: flags, cred: cred}
	return opErr("rename", oname, r.run())
}

func (r *rename) run() error {
	if r.odp != r.ndp {
		r.fs.renameMu.Lock()
		defer r.fs.renameMu.Unlock()
	}
	unlock, err := r.lockDirs()
	if err != nil {
		return err
	}
	defer func() {
		// Put may free an inode, which takes its lock: after all else.
		unlock()
		for _, ip := range []*Inode{r.oip, r.nip} {
			if ip != nil {
				ip.Put()
			}
		}
	}()
	for _, dp := range []*Inode{r.odp, r.ndp} {
		if err := writableDir(dp, dp == r.odp); err != nil {
			return err
		}
	}
	if r.oip, err = r.find(r.odp, r.oname); err != nil {
		return err
	}
	if r.oip == nil {
		return syscall.ENOENT
	}
	if r.nip, err = r.find(r.ndp, r.nname); err != nil {
		return err
	}
	if done, err := r.check(); done || err != nil {
		return err
	}
	locked := r.lockChildren()
	defer locked()
	if err := r.checkLocked(); err != nil {
		return err
	}
	return r.fs.retry(r.apply)
}

// lockDirs locks both directories: an ancestor before what is below it, else
// by number. fs.renameMu is held where they differ, so the tree stands still.
// It refuses, with what rename(2) reports, directories moved below themselves.
func (r *rename) lockDirs() (unlock func(), err error) {
	if r.odp == r.ndp {
		r.odp.mu.Lock()
		return r.odp.mu.Unlock, nil
	}
	oldAbove, err := r.fs.isAncestor(r.odp, r.ndp, r.oname, syscall.EINVAL)
	if err != nil {
		return nil, err
	}
	over := syscall.ENOTEMPTY
	if r.flags&RenameExchange != 0 {
		over = syscall.EINVAL
	}
	newAbove, err := r.fs.isAncestor(r.ndp, r.odp, r.nname, over)
	if err != nil {
		return nil, err
	}
	a, b := r.odp, r.ndp
	if newAbove || !oldAbove && b.ino < a.ino {
		a, b = b, a
	}
	a.mu.Lock()
	b.mu.Lock()
	return func() { b.mu.Unlock(); a.mu.Unlock() }, nil
}

// isAncestor says whether dp lies above (or is) the directory below. If the
// way up passes through the entry name of dp, it fails with through: that
// entry would move below itself, or be replaced by its own descendant.
func (fs *FS) isAncestor(dp, below *Inode, name []byte, through error) (bool, error) {
	dp.mu.RLock()
	entry, _, err := fs.dirLookup(dp, name)
	dp.mu.RUnlock()
	if err != nil {
		entry = 0 // the caller looks again, and reports it
	}
	ino := below.ino
	for hops := 0; hops < 1<<16; hops++ {
		switch ino {
		case entry:
			return false, through
		case dp.ino:
			return true, nil
		case ondisk.RootIno:
			return false, nil
		}
		ip, err := fs.Iget(ino)
		if err != nil {
			return false, err
		}
		ip.mu.RLock()
		ino, _, err = fs.dirLookup(ip, []byte(".."))
		ip.mu.RUnlock()
		ip.Put()
		if err != nil {
			return false, err
		}
	}
	e := ondisk.Corrupt("directory", 0, "its chain of parents does not end")
	e.Ino = below.ino
	return false, fs.corrupt(below.ino, e)
}

// find returns what name is in dp, pinned, nil if there is no such entry.
func (r *rename) find(dp *Inode, name []byte) (*Inode, error) {
	ino, _, err := r.fs.dirLookup(dp, name)
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if ino == r.odp.ino || ino == r.ndp.ino {
		return nil, r.fs.corrupt(dp.ino, ondisk.Corrupt("directory entry", 0, "names the directory that holds it, inode %d", ino))
	}
	return r.fs.igetEntry(dp, ino)
}

// check decides what needs no lock on the inodes; done means that there is
// nothing to do.
func (r *rename) check() (done bool, err error) {
	switch {
	case r.nip == nil && r.flags&RenameExchange != 0:
		return false, syscall.ENOENT
	case r.nip != nil && r.flags&RenameNoreplace != 0:
		return false, syscall.EEXIST
	case r.nip == r.oip:
		return true, nil // two names of one file: both stay
	case r.nip == nil:
		return false, nil
	case r.flags&RenameExchange != 0:
		return false, nil
	case r.oip.isDir() && !r.nip.isDir():
		return false, syscall.ENOTDIR
	case !r.oip.isDir() && r.nip.isDir():
		return false, syscall.EISDIR
	}
	return false, nil
}

func (r *rename) lockChildren() (unlock func()) {
	a, b := r.oip, r.nip
	if b == nil {
		a.mu.Lock()
		return a.mu.Unlock
	}
	if b.ino < a.ino {
		a, b = b, a
	}
	a.mu.Lock()
	b.mu.Lock()
	return func() { b.mu.Unlock(); a.mu.Unlock() }
}

func (r *rename) checkLocked() error {
	for _, ip := range []*Inode{r.oip, r.nip} {
		if ip == nil {
			continue
		}
		ip.mapMu.RLock()
		flags := ip.raw.Base().Flags.Get()
		ip.mapMu.RUnlock()
		if flags&(ondisk.FlagImmutable|ondisk.FlagAppend) != 0 {
			return syscall.EPERM
		}
	}
	if err := r.ndp.sameProject(r.oip); err != nil {
		return err
	}
	if r.flags&RenameExchange != 0 {
		if err := r.odp.sameProject(r.nip); err != nil {
			return err
		}
		gains := r.ndp // a subdirectory
		if r.nip.isDir() {
			gains = r.odp
		}
		if r.odp != r.ndp && r.oip.isDir() != r.nip.isDir() && r.fs.dirLinksFull(gains) {
			return syscall.EMLINK
		}
		return nil
	}
	if r.nip != nil {
		if err := r.fs.removable(r.nip, r.nip.isDir()); err != nil {
			return err
		}
	} else if r.oip.isDir() && r.odp != r.ndp && r.fs.dirLinksFull(r.ndp) {
		return syscall.EMLINK
	}
	return nil
}

// apply makes the change in one transaction.
func (r *rename) apply() error {
	fs := r.fs
	credits := creditsRename + 2*creditsOrphan + fs.dirAddCredits(r.ndp)
	if r.flags&RenameWhiteout != 0 {
		credits += creditsCreate
	}
	h, err := fs.start(credits)
	if err != nil {
		return err
	}
	var wip *Inode
	if r.flags&RenameWhiteout != 0 {
		wip, err = fs.makeInode(h, r.odp, ondisk.ModeChr, r.cred, func(_ *jbd2.Handle, ip *Inode) error {
			ip.setRdev(0)
			return nil
		})
		if err != nil {
			return err // makeInode has ended the handle
		}
		defer wip.Put()
	}
	if r.flags&RenameExchange != 0 {
		err = r.exchange(h)
	} else {
		err = r.move(h, wip)
	}
	if err != nil {
		if wip != nil {
			wip.mapMu.Lock()
			wip.raw.Base().LinksCount.Set(0)
			serr := wip.store(h)
			wip.mapMu.Unlock()
			if serr == nil {
				serr = fs.orphanAdd(h, wip)
			}
			if serr != nil {
				fs.corrupt(wip.ino, serr)
			}
		}
		h.Stop()
		return err
	}
	return fs.stopSync(h, r.odp, r.ndp)
}

// move puts oip under its new name and takes the old one away, or lets it name
// wip. The new entry is made first: that alone can fail for want of space.
func (r *rename) move(h *jbd2.Handle, wip *Inode) error {
	fs := r.fs
	oft := ondisk.FileType(r.oip.mode())
	var err error
	if r.nip != nil {
		err = fs.dirReplace(h, r.ndp, r.nname, r.oip.ino, oft)
	} else {
		err = fs.dirAdd(h, r.ndp, r.nname, r.oip.ino, oft)
	}
	if err != nil {
		return err
	}
	if wip != nil {
		err = fs.dirReplace(h, r.odp, r.oname, wip.ino, ondisk.FileType(wip.mode()))
	} else {
		err = fs.dirRemove(h, r.odp, r.oname)
	}
	if err != nil {
		return err
	}
	odelta, ndelta := 0, 0
	if r.oip.isDir() {
		odelta = -1
		if r.odp != r.ndp {
			if err := fs.dirSetDotDot(h, r.oip, r.ndp.ino); err != nil {
				return err
			}
		}
		if r.nip == nil {
			ndelta = 1
		}
		if r.odp == r.ndp {
			odelta, ndelta = odelta+ndelta, 0
		}
	}
	if err := r.touch(h, odelta, ndelta); err != nil {
		return err
	}
	if err := r.fs.touchCtime(h, r.oip); err != nil {
		return err
	}
	if r.nip != nil {
		return fs.dropLink(h, r.nip)
	}
	return nil
}

// exchange swaps what the two entries name.
func (r *rename) exchange(h *jbd2.Handle) error {
	fs := r.fs
	if err := fs.dirReplace(h, r.ndp, r.nname, r.oip.ino, ondisk.FileType(r.oip.mode())); err != nil {
		return err
	}
	if err := fs.dirReplace(h, r.odp, r.oname, r.nip.ino, ondisk.FileType(r.nip.mode())); err != nil {
		return err
	}
	odelta, ndelta := 0, 0
	if r.odp != r.ndp {
		if r.oip.isDir() {
			if err := fs.dirSetDotDot(h, r.oip, r.ndp.ino); err != nil {
				return err
			}
			odelta, ndelta = odelta-1, ndelta+1
		}
		if r.nip.isDir() {
			if err := fs.dirSetDotDot(h, r.nip, r.odp.ino); err != nil {
				return err
			}
			odelta, ndelta = odelta+1, ndelta-1
		}
	}
	if err := r.touch(h, odelta, ndelta); err != nil {
		return err
	}
	if err := fs.touchCtime(h, r.oip); err != nil {
		return err
	}
	return fs.touchCtime(h, r.nip)
}

// touch stores both directories with new times and link counts.
func (r *rename) touch(h *jbd2.Handle, odelta, ndelta int) error {
	if err := r.fs.touchDir(h, r.odp, odelta); err != nil || r.odp == r.ndp {
		return err
	}
	return r.fs.touchDir(h, r.ndp, ndelta)
}

// touchCtime sets the ctime of ip and stores it. ip.mu held.
func (fs *FS) touchCtime(h *jbd2.Handle, ip *Inode) error {
	ip.mapMu.Lock()
	defer ip.mapMu.Unlock()
	ip.raw.SetCtime(at(h))
	return ip.store(h)
}
