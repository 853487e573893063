package ext2fs

import (
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// aclSet stores an ACL, nil to remove it, in h's transaction. mu is held, or
// nobody else knows the inode.
func (ip *Inode) aclSet(h *jbd2.Handle, index uint8, acl ondisk.ACL) error {
	var value []byte
	if acl != nil {
		value = acl.AppendDisk(make([]byte, 0, 4+8*len(acl)))
	}
	return ip.xattrSet(h, index, "", value, 0)
}

// aclSetXattr sets an ACL from what a system call passes: an access ACL sets
// the permissions of the mode as well, and is not kept if they say all of it. mu
// held. It fails with EINVAL or EOPNOTSUPP for what is no ACL, EACCES for a
// default ACL of what is no directory.
func (ip *Inode) aclSetXattr(h *jbd2.Handle, index uint8, value []byte, killSGID bool) error {
	acl, err := ondisk.ParseXattrACL(value)
	def := index == ondisk.XattrACLDefaultIndex
	switch {
	case err != nil:
		return err
	case def && !ip.isDir() && acl == nil:
		return nil
	case def && !ip.isDir():
		return syscall.EACCES
	case acl != nil && !acl.Valid():
		return syscall.EINVAL
	case def || acl == nil:
		return ip.aclSet(h, index, acl)
	}
	ip.mapMu.RLock()
	old := ip.mode()
	ip.mapMu.RUnlock()
	mode, equiv := acl.EquivMode(old)
	if killSGID {
		mode &^= ondisk.ModeSGID
	}
	if equiv {
		acl = nil
	}
	if err := ip.aclSet(h, index, acl); err != nil || mode == old {
		return err
	}
	ip.mapMu.Lock()
	defer ip.mapMu.Unlock()
	ip.raw.Base().Mode.Set(mode)
	ip.raw.SetCtime(at(h))
	return ip.store(h)
}

// aclChmod changes the inode's access ACL, if it has one, as a chmod to mode
// does. The caller sets the mode. mu held.
func (ip *Inode) aclChmod(h *jbd2.Handle, mode uint16) error {
	if ip.fs.opts.NoACL || ip.isLnk() {
		return nil
	}
	acl, err := ip.acl(ondisk.XattrACLAccessIndex)
	if err != nil || acl == nil {
		return err
	}
	if !acl.Chmod(mode) {
		return syscall.EIO
	}
	return ip.aclSet(h, ondisk.XattrACLAccessIndex, acl)
}

// aclInit gives the new inode ip what it inherits from the default ACL of the
// directory dir, and changes *mode accordingly; without a default ACL, umask
// applies. The caller sets the mode. dir.mu is held, and nobody else knows ip.
func (fs *FS) aclInit(h *jbd2.Handle, dir, ip *Inode, mode *uint16, umask uint16) error {
	if *mode&ondisk.ModeFmt == ondisk.ModeLnk {
		return nil
	}
	var def ondisk.ACL
	if !fs.opts.NoACL {
		var err error
		if def, err = dir.acl(ondisk.XattrACLDefaultIndex); err != nil {
			return err
		}
	}
	if len(def) == 0 {
		*mode &^= umask & 0o777
		return nil
	}
	if *mode&ondisk.ModeFmt == ondisk.ModeDir {
		if err := ip.aclSet(h, ondisk.XattrACLDefaultIndex, def); err != nil {
			return err
		}
	}
	m, equiv, ok := def.Create(*mode) // def is the access ACL from here on
	if !ok {
		return syscall.EIO
	}
	*mode = m
	if equiv {
		return nil
	}
	return ip.aclSet(h, ondisk.XattrACLAccessIndex, def)
}
