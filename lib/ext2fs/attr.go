package ext2fs

import (
	"errors"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// Attr is what stat(2) and statx(2) tell of an inode.
type Attr struct {
	Ino        ondisk.Ino
	Generation uint32
	Mode       uint16 // type and permissions
	Nlink      uint32 // 1 for a directory with more subdirectories than can be counted
	UID, GID   uint32
	Rdev       uint32 // of a device: in Linux' 32-bit encoding
	Size       int64
	Blocks     uint64 // in units of 512 bytes; those of an inline file are its size
	Flags      uint32 // ondisk.Flag… bits
	Projid     uint32
	Version    uint64
	Atime      ondisk.Time
	Mtime      ondisk.Time
	Ctime      ondisk.Time
	Crtime     ondisk.Time // of birth, if HasCrtime
	HasCrtime  bool
}

// Attr fills a.
func (ip *Inode) Attr(a *Attr) {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	r := ip.raw
	b := r.Base()
	*a = Attr{
		Ino: ip.ino, Generation: ip.gen, Mode: b.Mode.Get(), Nlink: ip.nlink(),
		UID: r.UID(), GID: r.GID(), Size: ip.size(), Blocks: ip.sectors(),
		Flags: b.Flags.Get(), Projid: r.Projid(), Version: r.Version(),
		Atime: r.Atime(), Mtime: r.Mtime(), Ctime: r.Ctime(),
	}
	a.Crtime, a.HasCrtime = r.Crtime()
	switch a.Mode & ondisk.ModeFmt {
	case ondisk.ModeChr, ondisk.ModeBlk:
		a.Rdev = ip.rdev()
	}
	if a.Flags&ondisk.FlagInlineData != 0 && ip.isReg() {
		a.Blocks += (uint64(a.Size) + 511) >> 9
	}
}

// The device number of a device lies in i_block: in the first word, as 8 bits
// of major and of minor, if that can hold it, else in the second, in the 32-bit
// encoding of Linux: mmmM MMmm, from the top, in hexadecimal digits of minor and
// Major.

// rdev returns the device number. mapMu held.
func (ip *Inode) rdev() uint32 {
	b := &ip.raw.Base().Block
	if old := uint32(b[0]) | uint32(b[1])<<8; old != 0 {
		return old // of major and minor below 256: both encodings are alike
	}
	return uint32(b[4]) | uint32(b[5])<<8 | uint32(b[6])<<16 | uint32(b[7])<<24
}

// Values of SetAttr.Valid.
const (
	SetMode = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
	SetCtime    // else ctime becomes now
	SetKillPriv // take set-user-id and its like away, as a write by others does
	SetTouch    // atime and mtime become what they do since that is now
	SetFlush    // mtime and ctime are of changes made before: flags do not matter
)

// SetAttr says what Setattr changes: the fields that Valid names.
type SetAttr struct {
	Valid               int
	Mode                uint16 // permissions; the type is not looked at
	UID, GID            uint32
	Size                int64
	Atime, Mtime, Ctime ondisk.Time
}

// Setattr changes attributes. Who may do so is for the caller to know, but
// nobody may change an immutable inode, nor one that is append-only other than
// its times to now (EPERM). A change of mode changes the access ACL; a change of
// owner takes the set-id bits and file capabilities away from what is not a
// directory, unless the mode is given too. It fails with EISDIR, EINVAL and
// EFBIG for sizes, EOPNOTSUPP for the mode of a symbolic link.
//
// All changes are one transaction, but that what lies behind a new size is freed
// in as many as it takes.
func (ip *Inode) Setattr(set *SetAttr) error {
	ip.mu.Lock()
	defer ip.fs.putDead()
	defer ip.mu.Unlock()
	if err := ip.mayChange(set.Valid); err != nil {
		return err
	}
	if set.Valid&SetSize != 0 {
		switch {
		case ip.isDir():
			return syscall.EISDIR
		case !ip.isReg():
			return syscall.EINVAL
		}
		if err := ip.mayWrite(); err != nil {
			return err
		}
		also := set
		if set.Valid == SetSize {
			also = nil
		}
		return ip.fs.retry(func() error { return ip.resize(set.Size, also) })
	}
	if set.Valid&^(SetAtime|SetMtime|SetCtime|SetTouch|SetFlush) == 0 && !ip.named() {
		// Nobody will see them on the device: for the next mount the inode is one
		// to be freed.
		ip.mapMu.Lock()
		defer ip.mapMu.Unlock()
		ip.setTimes(set)
		return nil
	}
	return ip.fs.retry(func() error {
		h, err := ip.fs.start(creditsInode + ip.xattrCredits(0))
		if err != nil {
			return err
		}
		return stop(h, ip.setattr(h, set))
	})
}

// mayChange says what flags of the inode keep Setattr from doing. mu held.
func (ip *Inode) mayChange(valid int) error {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	times := valid & (SetAtime | SetMtime)
	switch {
	case valid&SetFlush != 0:
	case ip.flag(ondisk.FlagImmutable):
		return syscall.EPERM
	case ip.flag(ondisk.FlagAppend) && (valid&(SetMode|SetUID|SetGID|SetSize) != 0 || times != 0 && valid&SetTouch == 0):
		return syscall.EPERM
	case ip.isLnk() && valid&SetMode != 0:
		return syscall.EOPNOTSUPP
	}
	return ip.fs.writable()
}

// setattr makes all changes but that of the size. mu held.
func (ip *Inode) setattr(h *jbd2.Handle, set *SetAttr) error {
	ip.mapMu.RLock()
	old := ip.mode()
	ip.mapMu.RUnlock()
	mode := old
	kill := set.Valid&SetKillPriv != 0 || set.Valid&(SetUID|SetGID) != 0 && !ip.isDir()
	if kill {
		mode = killPriv(mode)
		if err := ip.xattrSet(h, ondisk.XattrSecurityIndex, "capability", nil, 0); err != nil {
			return err
		}
	}
	if set.Valid&SetMode != 0 {
		mode = old&ondisk.ModeFmt | set.Mode&^ondisk.ModeFmt
		if err := ip.aclChmod(h, mode); err != nil {
			return err
		}
	}
	ip.mapMu.Lock()
	defer ip.mapMu.Unlock()
	r := ip.raw
	r.Base().Mode.Set(mode)
	ip.expandExtra()
	if set.Valid&SetUID != 0 {
		r.SetUID(set.UID)
	}
	if set.Valid&SetGID != 0 {
		r.SetGID(set.GID)
	}
	ip.setTimes(set)
	return ip.store(h)
}

// setTimes sets the times that set names, and ctime. mapMu is held exclusively.
func (ip *Inode) setTimes(set *SetAttr) {
	if set.Valid&SetAtime != 0 {
		ip.raw.SetAtime(set.Atime)
	}
	if set.Valid&SetMtime != 0 {
		ip.raw.SetMtime(set.Mtime)
	}
	if set.Valid&SetCtime != 0 {
		ip.raw.SetCtime(set.Ctime)
	} else {
		ip.raw.SetCtime(ip.fs.now())
	}
}

// killPriv returns mode without the bits that give a program the rights of its
// owner: set-group-id is one only if the group may execute.
func killPriv(mode uint16) uint16 {
	if mode&ondisk.ModeFmt == ondisk.ModeDir {
		return mode
	}
	mode &^= ondisk.ModeSUID
	if mode&0o010 != 0 {
		mode &^= ondisk.ModeSGID
	}
	return mode
}

// KillPriv takes the set-id bits and file capabilities away, as a write by
// somebody without privilege does. If there are none it changes nothing.
func (ip *Inode) KillPriv() error {
	ip.mapMu.RLock()
	mode := ip.mode()
	ip.mapMu.RUnlock()
	if ip.isDir() || killPriv(mode) == mode {
		var stack [64]byte
		if _, err := ip.xattrGet(ondisk.XattrSecurityIndex, "capability", stack[:0]); err != nil {
			if errors.Is(err, ondisk.ENODATA) {
				err = nil
			}
			return err
		}
	}
	return ip.Setattr(&SetAttr{Valid: SetKillPriv})
}
