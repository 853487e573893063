package iomappeer

import (
	"encoding/binary"
	"syscall"
	"time"
)

// expire makes the cached attributes be asked for again.
func (in *Inode) expire() {
	in.mu.Lock()
	in.attrTill = time.Time{}
	in.mu.Unlock()
}

// setattr sends SETATTR. What was set must be what the reply says.
func (in *Inode) setattr(t *task, body setattrIn) (Attr, syscall.Errno) {
	k := in.k
	const fattrTimes = fattrAtime | fattrMtime | fattrCtime
	var out attrOut
	stamp := in.stamped.enter()
	defer in.stamped.leave()
	if errno := k.callInto(t, opSetattr, in.nodeid, &out, body); errno != 0 {
		return Attr{}, errno
	}
	k.expect("A16", out.Dummy == 0, in, "the reserved word of an attribute reply is %#x", out.Dummy)
	a := &out.Attr
	attr := func(what string, ok bool, got, want any) {
		k.expect("ATTR", ok, in, "SETATTR: %s is %v, want %v", what, got, want)
	}
	if body.Valid&fattrMode != 0 {
		attr("mode", a.Mode&0o7777 == body.Mode&0o7777, a.Mode&0o7777, body.Mode&0o7777)
	}
	if body.Valid&fattrUID != 0 {
		attr("uid", a.UID == body.UID, a.UID, body.UID)
	}
	if body.Valid&fattrGID != 0 {
		attr("gid", a.GID == body.GID, a.GID, body.GID)
	}
	if body.Valid&fattrSize != 0 {
		k.expect("A6", a.Size == body.Size, in, "SETATTR: size is %d, want %d", a.Size, body.Size)
	}
	// Others may set times too: the server by itself, and the flusher at any time.
	times := body.Valid
	if !in.stamped.alone(stamp) {
		times = 0
	}
	if times&fattrMtime != 0 {
		attr("mtime", in.sameTime(a.Mtime, a.MtimeNsec, body.Mtime, body.MtimeNsec), a.Mtime, body.Mtime)
	}
	if times&fattrCtime != 0 {
		attr("ctime", in.sameTime(a.Ctime, a.CtimeNsec, body.Ctime, body.CtimeNsec), a.Ctime, body.Ctime)
	}
	if times&fattrAtime != 0 {
		attr("atime", in.sameTime(a.Atime, a.AtimeNsec, body.Atime, body.AtimeNsec), a.Atime, body.Atime)
	}
	if times == body.Valid || body.Valid&^fattrTimes != 0 {
		in.update(a, out.AttrValid, out.AttrValidNsec)
	} // else what the reply says of links may be older than what is known
	return *a, 0
}

// sameTime compares times as far as the file system keeps them.
func (in *Inode) sameTime(sec uint64, nsec uint32, wantSec uint64, wantNsec uint32) bool {
	g := in.k.timeGran
	return sec == wantSec && nsec == wantNsec-wantNsec%g
}

// writeTimes sends the timestamps that the kernel has and the server has not.
func (in *Inode) writeTimes(t *task) syscall.Errno {
	in.mu.Lock()
	if !in.timesDue || !in.iomap {
		in.mu.Unlock()
		return 0
	}
	in.timesDue = false
	b := in.timesLocked(fattrAtime | fattrMtime | fattrCtime)
	in.mu.Unlock()
	_, errno := in.setattr(t, b)
	if errno != 0 {
		in.mu.Lock()
		in.timesDue = true
		in.mu.Unlock()
	}
	return errno
}

func (in *Inode) timesLocked(valid uint32) setattrIn {
	return setattrIn{Valid: valid, Atime: uint64(in.atime / 1e9), AtimeNsec: uint32(in.atime % 1e9),
		Mtime: uint64(in.mtime / 1e9), MtimeNsec: uint32(in.mtime % 1e9),
		Ctime: uint64(in.ctime / 1e9), CtimeNsec: uint32(in.ctime % 1e9)}
}

// writeInode writes back data and timestamps.
func (in *Inode) writeInode(t *task) syscall.Errno {
	if in.dir || in.usable() != 0 {
		return 0
	}
	errno := in.writeback(t, 0, maxLFS)
	if e := in.writeTimes(t); errno == 0 {
		errno = e
	}
	return errno
}

// Stat returns the attributes as stat(2) would: from the kernel's copy, of which
// the times and the size of iomap files are the kernel's own.
func (k *Kernel) Stat(in *Inode) (Attr, syscall.Errno) {
	if errno := in.usable(); errno != 0 {
		return Attr{}, errno
	}
	if errno := in.getattr(k.task("stat"), false); errno != 0 {
		return Attr{}, errno
	}
	return in.attr(), 0
}

func (in *Inode) attr() Attr {
	in.mu.Lock()
	defer in.mu.Unlock()
	a := in.timesLocked(0)
	return Attr{Ino: in.attrIno, Size: uint64(in.isize), Mode: in.mode, Nlink: in.nlink, UID: in.uid, GID: in.gid,
		Rdev: in.rdev, Flags: in.flags, Atime: a.Atime, AtimeNsec: a.AtimeNsec, Mtime: a.Mtime, MtimeNsec: a.MtimeNsec,
		Ctime: a.Ctime, CtimeNsec: a.CtimeNsec, Blksize: uint32(in.k.bs)}
}

// ServerAttr asks the server for the attributes that it has, which for iomap files
// are those on disk.
func (k *Kernel) ServerAttr(in *Inode) (Attr, syscall.Errno) { return in.fetchAttr(k.checkTask()) }

// Statx asks for everything that statx(2) can name.
func (k *Kernel) Statx(in *Inode) (Statx, syscall.Errno) {
	const mask = 0x7ff | 0x800 | 0x2000 | 0x8000 | 0x10000 | 0x20000 // basic, btime and the series' own
	var out statxOut
	errno := k.callInto(k.task("statx"), opStatx, in.nodeid, &out, statxIn{SxMask: mask})
	if errno == 0 {
		k.expect("A16", out.Spare == [2]uint64{} && out.Flags == 0, in, "STATX reply has reserved words set")
		k.expect("A16", out.Stat.Spare0 == 0 && out.Stat.Spare3 == [8]uint64{}, in, "statx has spare words set")
	}
	return out.Stat, errno
}

// Chmod is chmod(2). Timestamps that wait go first.
func (k *Kernel) Chmod(in *Inode, mode uint32) syscall.Errno {
	t := k.task("chmod")
	in.rwsem.Lock()
	defer in.rwsem.Unlock()
	if errno := in.writeTimes(t); errno != 0 {
		return errno
	}
	in.touch(false, true, false)
	return in.setOwned(t, setattrIn{Valid: fattrMode, Mode: in.Mode()&^0o7777 | mode&0o7777})
}

// Chown is chown(2).
func (k *Kernel) Chown(in *Inode, uid, gid uint32) syscall.Errno {
	t := k.task("chown")
	in.rwsem.Lock()
	defer in.rwsem.Unlock()
	if errno := in.writeTimes(t); errno != 0 {
		return errno
	}
	in.touch(false, true, false)
	return in.setOwned(t, setattrIn{Valid: fattrUID | fattrGID, UID: uid, GID: gid})
}

// Utimes is utimensat(2), with explicit times.
func (k *Kernel) Utimes(in *Inode, atime, mtime int64) syscall.Errno {
	t := k.task("utimes")
	in.rwsem.Lock()
	defer in.rwsem.Unlock()
	g := int64(k.timeGran)
	in.touch(false, true, false)
	in.mu.Lock()
	in.atime, in.mtime = atime-atime%g, mtime-mtime%g
	b := in.timesLocked(fattrAtime | fattrMtime | fattrCtime)
	in.timesDue = false
	in.mu.Unlock()
	_, errno := in.setattr(t, b)
	return errno
}

// setOwned sends a change together with the new ctime, if the kernel owns that.
func (in *Inode) setOwned(t *task, b setattrIn) syscall.Errno {
	if in.iomap {
		in.mu.Lock()
		c := in.timesLocked(0)
		in.mu.Unlock()
		b.Valid |= fattrCtime
		b.Ctime, b.CtimeNsec = c.Ctime, c.CtimeNsec
	}
	_, errno := in.setattr(t, b)
	return errno
}

// Setxattr is setxattr(2).
func (k *Kernel) Setxattr(in *Inode, name string, value []byte, flags uint32) syscall.Errno {
	return in.setxattr(k.task("setxattr"), name, value, flags)
}

func (in *Inode) setxattr(t *task, name string, value []byte, flags uint32) syscall.Errno {
	var head any = setxattrIn{Size: uint32(len(value)), Flags: flags}
	if in.k.initFlags&flagSetxattrExt != 0 {
		head = setxattrExtIn{Size: uint32(len(value)), Flags: flags}
	}
	in.stamped.enter()
	defer in.stamped.leave()
	_, errno := in.k.call(t, opSetxattr, in.nodeid, 0, 0, head, name, value)
	in.expire()
	return errno
}

// Getxattr is getxattr(2).
func (k *Kernel) Getxattr(in *Inode, name string) ([]byte, syscall.Errno) {
	return in.getxattr(k.task("getxattr"), name)
}

func (in *Inode) getxattr(t *task, name string) ([]byte, syscall.Errno) {
	const n = 64 << 10
	return in.k.call(t, opGetxattr, in.nodeid, 0, n, getxattrIn{Size: n}, name)
}

// Removexattr is removexattr(2).
func (k *Kernel) Removexattr(in *Inode, name string) syscall.Errno {
	in.stamped.enter()
	defer in.stamped.leave()
	_, errno := k.call(k.task("removexattr"), opRemovexattr, in.nodeid, 0, 0, name)
	in.expire()
	return errno
}

// Listxattr is listxattr(2): the names, each ended by a zero byte.
func (k *Kernel) Listxattr(in *Inode) ([]byte, syscall.Errno) {
	const n = 64 << 10
	return k.call(k.task("listxattr"), opListxattr, in.nodeid, 0, n, getxattrIn{Size: n})
}

// Tags and permissions of a POSIX ACL, as the attribute holds them.
const (
	aclVersion  = 2
	aclUserObj  = 0x01
	aclGroupObj = 0x04
	aclMask     = 0x10
	aclOther    = 0x20
)

// SetACL is what setfacl does: the attribute, and the mode that follows from it.
func (k *Kernel) SetACL(in *Inode, name string, acl []byte) syscall.Errno {
	t := k.task("setfacl")
	if errno := in.setxattr(t, name, acl, 0); errno != 0 {
		return errno
	}
	if name != "system.posix_acl_access" {
		return 0
	}
	in.touch(false, true, false)
	return in.setOwned(t, setattrIn{Valid: fattrMode, Mode: aclMode(acl, in.Mode())})
}

// aclEntries calls f with each entry of an ACL.
func aclEntries(acl []byte, f func(tag uint16, perm []byte)) {
	for i := 4; i+8 <= len(acl); i += 8 {
		f(binary.LittleEndian.Uint16(acl[i:]), acl[i+2:i+4])
	}
}

// aclMode returns the mode that an access ACL stands for.
func aclMode(acl []byte, mode uint32) uint32 {
	group, mask := uint32(0), uint32(8)
	aclEntries(acl, func(tag uint16, perm []byte) {
		p := uint32(binary.LittleEndian.Uint16(perm)) & 7
		switch tag {
		case aclUserObj:
			mode = mode&^0o700 | p<<6
		case aclGroupObj:
			group = p
		case aclMask:
			mask = p
		case aclOther:
			mode = mode&^0o7 | p
		}
	})
	if mask <= 7 {
		group = mask
	}
	return mode&^0o070 | group<<3
}

// inheritACL derives a child's mode and access ACL from its folder's default one,
// as the kernel does before it sends CREATE.
func inheritACL(def []byte, mode uint32) (acl []byte, out uint32, extended bool) {
	acl = append([]byte(nil), def...)
	out = mode
	hasMask := false
	aclEntries(acl, func(tag uint16, _ []byte) { hasMask = hasMask || tag == aclMask })
	and := func(perm []byte, shift uint) {
		p := binary.LittleEndian.Uint16(perm) & uint16(mode>>shift&7)
		binary.LittleEndian.PutUint16(perm, p)
		out = out&^(7<<shift) | uint32(p)<<shift
	}
	aclEntries(acl, func(tag uint16, perm []byte) {
		switch tag {
		case aclUserObj:
			and(perm, 6)
		case aclOther:
			and(perm, 0)
		case aclMask:
			and(perm, 3)
			extended = true
		case aclGroupObj:
			if !hasMask {
				and(perm, 3)
			}
		default:
			extended = true
		}
	})
	return acl, out, extended
}

// Inode flags, as FS_IOC_GETFLAGS has them.
const (
	iocGetflags = 0x80086601
	iocSetflags = 0x40086602

	FlagSyncFL      = 0x00000008
	FlagImmutableFL = 0x00000010
	FlagAppendFL    = 0x00000020
)

// Getflags is the ioctl FS_IOC_GETFLAGS.
func (k *Kernel) Getflags(in *Inode) (uint32, syscall.Errno) {
	b, errno := k.call(k.task("getflags"), opIoctl, in.nodeid, size(ioctlOut{}), size(ioctlOut{})+8,
		ioctlIn{Cmd: iocGetflags, OutSize: 4, Flags: ioctlDir(in)})
	if errno != 0 {
		return 0, errno
	}
	var out ioctlOut
	rest, _ := dec(b, &out)
	if out.Result < 0 {
		return 0, syscall.Errno(-out.Result)
	}
	var v uint32
	if _, ok := dec(rest, &v); !ok {
		k.violate("A1", in, "FS_IOC_GETFLAGS is answered by %d bytes", len(rest))
		return 0, syscall.EIO
	}
	return v, 0
}

// Setflags is the ioctl FS_IOC_SETFLAGS.
func (k *Kernel) Setflags(in *Inode, v uint32) syscall.Errno {
	t := k.task("setflags")
	in.rwsem.Lock()
	defer in.rwsem.Unlock()
	var out ioctlOut
	in.stamped.enter()
	b, errno := k.call(t, opIoctl, in.nodeid, size(out), size(out)+8,
		ioctlIn{Cmd: iocSetflags, InSize: 4, Flags: ioctlDir(in)}, v)
	in.stamped.leave()
	if errno != 0 {
		return errno
	}
	dec(b, &out)
	if out.Result < 0 {
		return syscall.Errno(-out.Result)
	}
	in.touch(false, true, false)
	if errno := in.getattr(t, true); errno != 0 {
		return errno
	}
	in.mu.Lock()
	flags := in.flags
	in.mu.Unlock()
	for _, f := range []struct {
		fl   uint32
		attr uint32
	}{{FlagSyncFL, attrSync}, {FlagImmutableFL, attrImmutable}, {FlagAppendFL, attrAppend}} {
		k.expect("ATTR", !in.exclusive || (v&f.fl != 0) == (flags&f.attr != 0), in,
			"after FS_IOC_SETFLAGS of %#x the attribute flags are %#x", v, flags)
	}
	return 0
}

func ioctlDir(in *Inode) uint32 {
	if in.dir {
		return 1 << 4
	}
	return 0
}
