package ext2fs

import (
	"fmt"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// RawXattr is an extended attribute as it is stored.
type RawXattr struct {
	Index uint8      // XattrEntry.NameIndex
	Base  string     // the name as stored
	Name  string     // the full name, with the prefix that Index stands for
	Value []byte     // nil if an inode holds it: see XattrValue. ACLs have their format on disk
	Size  int        // of the value, bytes
	Inum  ondisk.Ino // the inode that holds the value, 0 if none
	Block bool       // it lies in the inode's attribute block
}

// rawPrefixes are the prefixes of names by index.
var rawPrefixes = map[uint8]string{
	ondisk.XattrUserIndex:       "user.",
	ondisk.XattrACLAccessIndex:  "system.posix_acl_access",
	ondisk.XattrACLDefaultIndex: "system.posix_acl_default",
	ondisk.XattrTrustedIndex:    "trusted.",
	ondisk.XattrSecurityIndex:   "security.",
	ondisk.XattrSystemIndex:     "system.",
	ondisk.XattrRichACLIndex:    "system.richacl",
	ondisk.XattrHurdIndex:       "gnu.",
}

// Xattrs returns the attributes of an inode, those in the inode first. What
// could be read before a list turned out to be corrupt comes with the error.
func (r *Raw) Xattrs(ino ondisk.Ino, raw ondisk.RawInode) ([]RawXattr, error) {
	list, err := r.inodeXattrs(ino, raw)
	if err != nil {
		return list, err
	}
	blk := raw.FileACL()
	if blk == 0 {
		return list, nil
	}
	b, err := r.Block(blk)
	if err != nil {
		return list, fmt.Errorf("attributes of inode %d: %w", ino, err)
	}
	if err := ondisk.VerifyXattrBlock(b, blk, r.geo.csumSeed, r.geo.hasCsum && !r.o.IgnoreCsum, r.maxEAIno()); err != nil {
		return list, ondisk.At(err, ino, blk)
	}
	more := r.listXattrs(ondisk.XattrBlock(b))
	for i := range more {
		more[i].Block = true
	}
	return append(list, more...), nil
}

func (r *Raw) maxEAIno() ondisk.Ino {
	if r.geo.hasEAInode {
		return r.Inodes()
	}
	return 0
}

func (r *Raw) inodeXattrs(ino ondisk.Ino, raw ondisk.RawInode) ([]RawXattr, error) {
	a, used, ok := ondisk.InodeXattrs(raw)
	if !ok || !used {
		return nil, nil
	}
	if err := a.Check(r.maxEAIno()); err != nil {
		return nil, ondisk.At(err, ino, 0)
	}
	return r.listXattrs(a), nil
}

func (r *Raw) listXattrs(a ondisk.XattrArea) (list []RawXattr) {
	for off := a.First(); !a.Last(off); off = a.Next(off) {
		e := a.Entry(off)
		x := RawXattr{Index: e.NameIndex[0], Base: string(a.Name(off)), Size: int(e.ValueSize.Get()), Inum: ondisk.Ino(e.ValueInum.Get())}
		p, ok := rawPrefixes[x.Index]
		if !ok && x.Index != 0 {
			p = fmt.Sprintf("index%d.", x.Index)
		}
		x.Name = p + x.Base
		if x.Inum == 0 {
			x.Value = append([]byte{}, a.Value(off)...)
		}
		list = append(list, x)
	}
	return list
}

// XattrValue returns the value of an attribute, wherever it lies.
func (r *Raw) XattrValue(x *RawXattr) ([]byte, error) {
	if x.Inum == 0 {
		return x.Value, nil
	}
	f, err := r.OpenFile(x.Inum)
	if err != nil {
		return nil, err
	}
	if f.raw.Base().Flags.Get()&ondisk.FlagEAInode == 0 || f.size != int64(x.Size) {
		return nil, ondisk.At(ondisk.Corrupt("attribute inode", 0, "flags %#x, size %d", f.raw.Base().Flags.Get(), f.size), x.Inum, 0)
	}
	v := make([]byte, x.Size) // at most 16 MiB, as the list was checked for
	_, err = f.ReadAt(v, 0)
	return v, err
}

// XattrToUser returns a value that is stored under index as system calls have
// it, which differs for ACLs. It fails with EINVAL for what is no ACL.
func XattrToUser(index uint8, value []byte) ([]byte, error) {
	if index != ondisk.XattrACLAccessIndex && index != ondisk.XattrACLDefaultIndex {
		return value, nil
	}
	acl, err := ondisk.ParseACL(value)
	if err != nil {
		return nil, err
	}
	return acl.AppendXattr(nil), nil
}

// XattrFromDisk returns the value of the attribute of that full name as system
// calls have it, from how it is stored: the opposite of XattrToUser.
func XattrFromDisk(name string, value []byte) ([]byte, error) {
	switch name {
	case rawPrefixes[ondisk.XattrACLAccessIndex]:
		return XattrToUser(ondisk.XattrACLAccessIndex, value)
	case rawPrefixes[ondisk.XattrACLDefaultIndex]:
		return XattrToUser(ondisk.XattrACLDefaultIndex, value)
	}
	return value, nil
}
