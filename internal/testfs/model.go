//go:build linux

package testfs

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// A file is what the model knows of an inode.
type file struct {
	mode     uint32 // with the type
	uid, gid uint32
	rdev     uint64
	data     []byte
	target   string
	xattrs   map[string]string
	acl      *acl // the access list, if it says more than mode
	defACL   *acl // of folders
	names    map[string]*file
	nlink    uint32
	mtime    Stamp
}

func (f *file) isDir() bool { return f.mode&unix.S_IFMT == unix.S_IFDIR }
func (f *file) isReg() bool { return f.mode&unix.S_IFMT == unix.S_IFREG }

// A model is the tree that a workload expects.
type model struct {
	root  *file
	umask uint32
}

// create makes a file as a caller with all privilege would in dir, and puts it
// under name. It follows the rules of inode_init_owner and posix_acl_create.
func (m *model) create(dir *file, name string, mode uint32) *file {
	f := &file{mode: mode, mtime: Unknown, nlink: 1}
	if dir.mode&unix.S_ISGID != 0 {
		f.gid = dir.gid
		if f.isDir() {
			f.mode |= unix.S_ISGID
		}
	}
	if f.isDir() {
		f.names = map[string]*file{}
		f.nlink = 2
		dir.nlink++
	}
	switch {
	case f.mode&unix.S_IFMT == unix.S_IFLNK:
	case dir.defACL == nil:
		f.mode &^= m.umask
	default:
		a := dir.defACL.clone()
		f.mode = a.restrict(f.mode)
		f.acl = a
		if f.isDir() {
			f.defACL = dir.defACL.clone()
		}
	}
	dir.names[name] = f
	return f
}

// chmod sets the permission bits, and those of the access list with them.
func (f *file) chmod(perm uint32) {
	f.mode = f.mode&unix.S_IFMT | perm&0o7777
	if f.acl != nil {
		f.acl.chmod(perm)
	}
}

// unlink takes name out of dir.
func (m *model) unlink(dir *file, name string) {
	f := dir.names[name]
	delete(dir.names, name)
	if f.isDir() {
		dir.nlink--
	}
	f.nlink--
}

func (f *file) pwrite(p []byte, off int64) {
	if end := off + int64(len(p)); end > int64(len(f.data)) {
		f.truncate(end)
	}
	copy(f.data[off:], p)
}

func (f *file) truncate(size int64) {
	if n := int64(len(f.data)); size > n {
		f.data = append(f.data, make([]byte, size-n)...)
	} else {
		f.data = slices.Clip(f.data[:size])
	}
}

func (f *file) zero(off, n int64) {
	if off < int64(len(f.data)) {
		clear(f.data[off:min(off+n, int64(len(f.data)))])
	}
}

// tree returns what Snapshot is expected to see.
func (m *model) tree() Tree {
	t := Tree{}
	seen := map[*file]*Node{}
	var walk func(p string, f *file)
	walk = func(p string, f *file) {
		n := seen[f]
		if n == nil {
			n = &Node{
				Mode: f.mode, Nlink: f.nlink, UID: f.uid, GID: f.gid, Rdev: f.rdev, Target: f.target,
				Atime: Unknown, Mtime: f.mtime, Ctime: Unknown, Btime: Unknown, Link: p,
			}
			switch f.mode & unix.S_IFMT {
			case unix.S_IFREG:
				n.Size = int64(len(f.data))
				n.Sum = sha256.Sum256(f.data)
			case unix.S_IFLNK:
				n.Size = int64(len(f.target))
			}
			n.Xattrs = maps.Clone(f.xattrs)
			set := func(name string, a *acl) {
				if a != nil {
					if n.Xattrs == nil {
						n.Xattrs = map[string]string{}
					}
					n.Xattrs[name] = a.encode()
				}
			}
			set(aclAccess, f.acl)
			set(aclDefault, f.defACL)
			seen[f] = n
		} else if p < n.Link {
			n.Link = p
		}
		t[p] = n
		for name, c := range f.names {
			walk(path.Join(p, name), c)
		}
	}
	walk(".", m.root)
	return t
}

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// Tags of entries of an access control list, in the order that they come in.
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

type aclEntry struct {
	tag, perm uint16
	id        uint32 // or aclNoID
}

const aclNoID = 1<<32 - 1

// An acl is a POSIX access control list in the order that the kernel keeps.
type acl struct{ entries []aclEntry }

// newACL returns a list with named users and groups, which is never equivalent
// to mode bits alone.
func newACL(userObj, groupObj, other, mask uint16, users, groups []aclEntry) *acl {
	a := &acl{[]aclEntry{{aclUserObj, userObj, aclNoID}}}
	a.entries = append(a.entries, users...)
	a.entries = append(a.entries, aclEntry{aclGroupObj, groupObj, aclNoID})
	a.entries = append(a.entries, groups...)
	a.entries = append(a.entries, aclEntry{aclMask, mask, aclNoID}, aclEntry{aclOther, other, aclNoID})
	return a
}

func (a *acl) clone() *acl { return &acl{slices.Clone(a.entries)} }

func (a *acl) find(tag uint16) *aclEntry {
	for i := range a.entries {
		if a.entries[i].tag == tag {
			return &a.entries[i]
		}
	}
	return nil
}

// perm returns the mode bits that the list stands for.
func (a *acl) perm() uint32 {
	return uint32(a.find(aclUserObj).perm)<<6 | uint32(a.find(aclMask).perm)<<3 | uint32(a.find(aclOther).perm)
}

func (a *acl) chmod(perm uint32) {
	a.find(aclUserObj).perm = uint16(perm >> 6 & 7)
	a.find(aclMask).perm = uint16(perm >> 3 & 7)
	a.find(aclOther).perm = uint16(perm & 7)
}

// restrict takes away what a creating call's mode does not grant and returns
// the mode of the new file.
func (a *acl) restrict(mode uint32) uint32 {
	a.chmod(a.perm() & mode)
	return mode&^0o777 | a.perm()
}

// encode returns the value of the attribute that sets the list.
func (a *acl) encode() string {
	b := binary.LittleEndian.AppendUint32(nil, 2) // POSIX_ACL_XATTR_VERSION
	for _, e := range a.entries {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return string(b)
}
