package ondisk

import (
	"encoding/binary"
	"syscall"
)

// Tags of an ACL entry.
const (
	ACLUserObj  = 0x01
	ACLUser     = 0x02
	ACLGroupObj = 0x04
	ACLGroup    = 0x08
	ACLMask     = 0x10
	ACLOther    = 0x20
)

// ACLUndefined is the id of an entry that names nobody.
const ACLUndefined = 0xffffffff

const (
	aclVersion      = 1 // on disk
	aclXattrVersion = 2 // in system calls
	aclMaxEntries   = XattrSizeMax / 8
)

// ACLEntry is one entry of a POSIX ACL in memory.
type ACLEntry struct {
	Tag  uint16 // ACL… tag
	Perm uint16 // rwx bits
	ID   uint32 // user or group, of ACLUser and ACLGroup; else ACLUndefined
}

// ACL is a POSIX ACL in the order of its tags. On disk it is a 4-byte version
// and entries of 4 bytes, 8 where they name somebody; in system calls all
// entries have 8. Kernel: filesystems/ext4/attributes.rst, "POSIX ACLs".
type ACL []ACLEntry

func aclNamed(tag uint16) bool { return tag == ACLUser || tag == ACLGroup }

// ParseACL reads an ACL from disk. The error is a *CorruptError.
func ParseACL(b []byte) (ACL, error) {
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != aclVersion {
		return nil, Corrupt("acl", 0, "version")
	}
	acl := make(ACL, 0, len(b)/4)
	for off := 4; off < len(b); {
		if len(b)-off < 4 {
			return nil, Corrupt("acl", off, "%d bytes", len(b))
		}
		e := ACLEntry{binary.LittleEndian.Uint16(b[off:]), binary.LittleEndian.Uint16(b[off+2:]), ACLUndefined}
		switch e.Tag {
		case ACLUserObj, ACLGroupObj, ACLMask, ACLOther:
			off += 4
		case ACLUser, ACLGroup:
			if len(b)-off < 8 {
				return nil, Corrupt("acl", off, "%d bytes", len(b))
			}
			e.ID = binary.LittleEndian.Uint32(b[off+4:])
			off += 8
		default:
			return nil, Corrupt("acl", off, "tag %#x", e.Tag)
		}
		acl = append(acl, e)
	}
	return acl, nil
}

// AppendDisk appends the ACL as it is on disk to b.
func (a ACL) AppendDisk(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, aclVersion)
	for _, e := range a {
		b = binary.LittleEndian.AppendUint16(b, e.Tag)
		b = binary.LittleEndian.AppendUint16(b, e.Perm)
		if aclNamed(e.Tag) {
			b = binary.LittleEndian.AppendUint32(b, e.ID)
		}
	}
	return b
}

// ParseXattrACL reads an ACL as system calls pass it. No entries, or no bytes,
// are a nil ACL: it is to be removed. Another version is EOPNOTSUPP, anything
// else wrong EINVAL. It does not check order; Valid does.
func ParseXattrACL(b []byte) (ACL, error) {
	switch {
	case len(b) == 0:
		return nil, nil
	case len(b) < 4:
		return nil, syscall.EINVAL
	case binary.LittleEndian.Uint32(b) != aclXattrVersion:
		return nil, syscall.EOPNOTSUPP
	case (len(b)-4)%8 != 0 || len(b)/8 > aclMaxEntries:
		return nil, syscall.EINVAL
	case len(b) == 4:
		return nil, nil
	}
	acl := make(ACL, 0, len(b)/8)
	for b = b[4:]; len(b) > 0; b = b[8:] {
		e := ACLEntry{binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), ACLUndefined}
		switch e.Tag {
		case ACLUserObj, ACLGroupObj, ACLMask, ACLOther:
		case ACLUser, ACLGroup:
			e.ID = binary.LittleEndian.Uint32(b[4:])
		default:
			return nil, syscall.EINVAL
		}
		acl = append(acl, e)
	}
	return acl, nil
}

// AppendXattr appends the ACL as system calls pass it to b.
func (a ACL) AppendXattr(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, aclXattrVersion)
	for _, e := range a {
		b = binary.LittleEndian.AppendUint16(b, e.Tag)
		b = binary.LittleEndian.AppendUint16(b, e.Perm)
		b = binary.LittleEndian.AppendUint32(b, e.ID)
	}
	return b
}

// Valid says whether the ACL is one that POSIX allows: owner, named users,
// owning group, named groups, a mask if anybody is named, others.
func (a ACL) Valid() bool {
	next, mask := uint16(ACLUserObj), false
	for _, e := range a {
		if e.Perm&^7 != 0 {
			return false
		}
		switch {
		case e.Tag == ACLUserObj && next == ACLUserObj:
			next = ACLUser
		case e.Tag == ACLUser && next == ACLUser && e.ID != ACLUndefined:
			mask = true
		case e.Tag == ACLGroupObj && next == ACLUser:
			next = ACLGroup
		case e.Tag == ACLGroup && next == ACLGroup && e.ID != ACLUndefined:
			mask = true
		case e.Tag == ACLMask && next == ACLGroup:
			next = ACLOther
		case e.Tag == ACLOther && (next == ACLOther || next == ACLGroup && !mask):
			next = 0
		default:
			return false
		}
	}
	return next == 0
}

// EquivMode returns mode with the permissions that the ACL stands for, and
// whether mode bits alone say all of the ACL.
func (a ACL) EquivMode(mode uint16) (uint16, bool) {
	equiv, group := true, uint16(0)
	mode &^= 0o777
	for _, e := range a {
		switch e.Tag {
		case ACLUserObj:
			mode |= e.Perm & 7 << 6
		case ACLGroupObj:
			group = e.Perm
		case ACLOther:
			mode |= e.Perm & 7
		default:
			equiv = false
		}
	}
	for _, e := range a {
		if e.Tag == ACLMask {
			group = e.Perm
		}
	}
	return mode | group&7<<3, equiv
}

// groupClass returns the entry that the group bits of a mode stand for: the
// mask, else the owning group; nil if there is neither.
func (a ACL) groupClass() (g *ACLEntry) {
	for i := range a {
		switch a[i].Tag {
		case ACLMask:
			return &a[i]
		case ACLGroupObj:
			g = &a[i]
		}
	}
	return g
}

// Chmod changes the ACL in place as a chmod to mode does. It returns false if
// the ACL lacks the entry for the group bits.
func (a ACL) Chmod(mode uint16) bool {
	for i := range a {
		switch a[i].Tag {
		case ACLUserObj:
			a[i].Perm = mode >> 6 & 7
		case ACLOther:
			a[i].Perm = mode & 7
		}
	}
	g := a.groupClass()
	if g == nil {
		return false
	}
	g.Perm = mode >> 3 & 7
	return true
}

// Create changes a copy of a directory's default ACL in place into the access
// ACL of a file created in it with mode, and returns the file's mode. equiv
// says that the mode alone says it all and no ACL is needed; ok is false if
// the ACL lacks the entry for the group bits.
func (a ACL) Create(mode uint16) (_ uint16, equiv, ok bool) {
	equiv = true
	m := mode & 0o777
	for i := range a {
		e := &a[i]
		switch e.Tag {
		case ACLUserObj:
			e.Perm &= mode >> 6 & 7
			m = m&^0o700 | e.Perm<<6
		case ACLOther:
			e.Perm &= mode & 7
			m = m&^7 | e.Perm
		case ACLUser, ACLGroup, ACLMask:
			equiv = false
		}
	}
	g := a.groupClass()
	if g == nil {
		return mode, false, false
	}
	g.Perm &= mode >> 3 & 7
	return mode&^0o777 | m&^0o070 | g.Perm<<3, equiv, true
}
