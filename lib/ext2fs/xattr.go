package ext2fs

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// Flags of Setxattr, the numbers of setxattr(2).
const (
	XattrCreate  = 1 // fail with EEXIST if the attribute exists
	XattrReplace = 2 // fail with ENODATA if it does not
)

// inodeXattr is what an in-core inode keeps for its attributes.
type inodeXattr struct {
	isEA     atomic.Bool // it holds a value; set when it is made or read
	noExpand bool        // guarded by mapMu: i_extra_isize cannot grow as things are
}

// xattrPrefixes are the prefixes of attribute names that system calls see, by
// ondisk.Xattr…Index. Those that end in a dot go before a name.
var xattrPrefixes = [...]string{
	ondisk.XattrUserIndex:       "user.",
	ondisk.XattrACLAccessIndex:  "system.posix_acl_access",
	ondisk.XattrACLDefaultIndex: "system.posix_acl_default",
	ondisk.XattrTrustedIndex:    "trusted.",
	ondisk.XattrSecurityIndex:   "security.",
}

func isACLIndex(index uint8) bool {
	return index == ondisk.XattrACLAccessIndex || index == ondisk.XattrACLDefaultIndex
}

// splitXattr finds the index of a full name and what of the name follows its
// prefix. It fails as xattr system calls do: EOPNOTSUPP, EINVAL, ERANGE.
func (fs *FS) splitXattr(full string) (index uint8, name string, err error) {
	if full == "" || len(full) > 255 || strings.IndexByte(full, 0) >= 0 {
		return 0, "", syscall.ERANGE
	}
	for i, p := range xattrPrefixes {
		if p == "" || !strings.HasPrefix(full, p) {
			continue
		}
		index, name = uint8(i), full[len(p):]
		switch acl := isACLIndex(index); {
		case acl && name != "":
			return 0, "", syscall.EOPNOTSUPP
		case !acl && name == "":
			return 0, "", syscall.EINVAL
		case acl && fs.opts.NoACL, index == ondisk.XattrUserIndex && fs.opts.NoUserXattr:
			return 0, "", syscall.EOPNOTSUPP
		}
		return index, name, nil
	}
	return 0, "", syscall.EOPNOTSUPP
}

// Getxattr returns the value of the attribute with the full name. ACLs have the
// format of system calls. It fails with ENODATA if there is none.
func (ip *Inode) Getxattr(full string) ([]byte, error) {
	index, name, err := ip.fs.splitXattr(full)
	if err != nil {
		return nil, err
	}
	if isACLIndex(index) {
		acl, err := ip.acl(index)
		if err == nil && acl == nil {
			err = ondisk.ENODATA
		}
		if err != nil {
			return nil, err
		}
		return acl.AppendXattr(nil), nil
	}
	return ip.xattrGet(index, name, nil)
}

// Listxattr returns the full names of all attributes. Whoever may not see
// trusted attributes is for the caller to know.
func (ip *Inode) Listxattr() (full []string, err error) {
	fs := ip.fs
	err = ip.xattrList(func(index uint8, name []byte) bool {
		if int(index) >= len(xattrPrefixes) || xattrPrefixes[index] == "" {
			return true
		}
		switch acl := isACLIndex(index); {
		case acl && fs.opts.NoACL, index == ondisk.XattrUserIndex && fs.opts.NoUserXattr:
		case acl:
			full = append(full, xattrPrefixes[index])
		default:
			full = append(full, xattrPrefixes[index]+string(name))
		}
		return true
	})
	return full, err
}

// Setxattr sets the attribute with the full name, in a transaction of its own.
// flags are XattrCreate or XattrReplace. Setting an access ACL sets the mode's
// permissions too; killSGID says that the caller is not in the file's group
// and has no privilege, so that the set-group-id bit goes.
//
// It fails with EEXIST, ENODATA, ENOSPC if inode and block are full, E2BIG and
// ERANGE for values and names that are too long, EPERM for user attributes on
// what is neither file nor directory and for immutable or append-only inodes.
func (ip *Inode) Setxattr(full string, value []byte, flags int, killSGID bool) error {
	return wrap("setxattr", full, ip.setxattr(full, value, flags, killSGID))
}

func (ip *Inode) setxattr(full string, value []byte, flags int, killSGID bool) error {
	fs := ip.fs
	index, name, err := fs.splitXattr(full)
	switch {
	case err != nil:
		return err
	case flags&^(XattrCreate|XattrReplace) != 0:
		return syscall.EINVAL
	case len(value) > ondisk.XattrSizeMax:
		return syscall.E2BIG
	}
	if value == nil {
		value = []byte{} // nil is to remove
	}
	ip.mu.Lock()
	defer fs.putDead() // second: with no lock held
	defer ip.mu.Unlock()
	if err := ip.xattrMayWrite(index); err != nil {
		return err
	}
	return fs.retry(func() error {
		h, err := fs.start(ip.xattrCredits(len(value)))
		if err != nil {
			return err
		}
		if isACLIndex(index) {
			err = ip.aclSetXattr(h, index, value, killSGID)
		} else {
			err = ip.xattrSet(h, index, name, value, flags)
		}
		return stop(h, err)
	})
}

// Removexattr removes the attribute with the full name, in a transaction of
// its own. It fails with ENODATA if there is none, else as Setxattr does.
func (ip *Inode) Removexattr(full string) error {
	return wrap("removexattr", full, ip.removexattr(full))
}

func (ip *Inode) removexattr(full string) error {
	fs := ip.fs
	index, name, err := fs.splitXattr(full)
	if err != nil {
		return err
	}
	ip.mu.Lock()
	defer fs.putDead()
	defer ip.mu.Unlock()
	if err := ip.xattrMayWrite(index); err != nil {
		return err
	}
	return fs.retry(func() error {
		h, err := fs.start(ip.xattrCredits(0))
		if err != nil {
			return err
		}
		flags := XattrReplace
		if isACLIndex(index) {
			flags = 0 // to remove no ACL is no error
		}
		return stop(h, ip.xattrSet(h, index, name, nil, flags))
	})
}

// xattrMayWrite says what keeps attributes of a kind from being changed,
// whoever asks. mu held.
func (ip *Inode) xattrMayWrite(index uint8) error {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	switch {
	case ip.isEA.Load() || ip.flag(ondisk.FlagImmutable|ondisk.FlagAppend):
		return syscall.EPERM
	case isACLIndex(index) && ip.isLnk():
		return syscall.EOPNOTSUPP
	case index == ondisk.XattrUserIndex && !ip.isReg() && !ip.isDir():
		return syscall.EPERM
	}
	return nil
}

// xattrGet appends the value of an attribute to buf. It fails with ENODATA.
func (ip *Inode) xattrGet(index uint8, name string, buf []byte) ([]byte, error) {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	if a, used, err := ip.ibody(); err != nil {
		return buf, err
	} else if used {
		if off, found := a.Find(index, name, false); found {
			return ip.xattrValue(a, off, buf)
		}
	}
	b, a, err := ip.xattrBlock()
	if err != nil || b == nil {
		if err == nil {
			err = ondisk.ENODATA
		}
		return buf, err
	}
	defer b.Put()
	mu := ip.fs.xattrLock(ondisk.Fsblk(b.Block()))
	mu.RLock()
	defer mu.RUnlock()
	off, found := a.Find(index, name, true)
	if !found {
		return buf, ondisk.ENODATA
	}
	return ip.xattrValue(a, off, buf)
}

// xattrValue appends the value of the entry at off. mapMu held.
func (ip *Inode) xattrValue(a ondisk.XattrArea, off int, buf []byte) ([]byte, error) {
	if a.Entry(off).ValueInum.Get() != 0 {
		return ip.eaRead(a, off, buf)
	}
	return append(buf, a.Value(off)...), nil
}

// xattrList calls f with each attribute until it returns false; name is valid
// during the call alone.
func (ip *Inode) xattrList(f func(index uint8, name []byte) bool) error {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	a, used, err := ip.ibody()
	if err != nil {
		return err
	}
	if used {
		for off := a.First(); !a.Last(off); off = a.Next(off) {
			if !f(a.Entry(off).NameIndex[0], a.Name(off)) {
				return nil
			}
		}
	}
	b, a, err := ip.xattrBlock()
	if err != nil || b == nil {
		return err
	}
	defer b.Put()
	mu := ip.fs.xattrLock(ondisk.Fsblk(b.Block()))
	mu.RLock()
	defer mu.RUnlock()
	for off := a.First(); !a.Last(off); off = a.Next(off) {
		if !f(a.Entry(off).NameIndex[0], a.Name(off)) {
			return nil
		}
	}
	return nil
}

// ibody returns the attributes that lie in the inode, checked; used is false
// if there are none. mapMu held.
func (ip *Inode) ibody() (a ondisk.XattrArea, used bool, err error) {
	a, used, _ = ondisk.InodeXattrs(ip.raw)
	if used {
		if err = a.Check(ip.fs.maxEAInode()); err != nil {
			return a, false, ip.fs.corrupt(ip.ino, err)
		}
	}
	return a, used, nil
}

// maxEAInode returns the highest inode number that can hold a value, 0 without
// the ea_inode feature.
func (fs *FS) maxEAInode() ondisk.Ino {
	if !fs.hasEAInode {
		return 0
	}
	return ondisk.Ino(fs.inodes)
}

// xattrPlace says where an attribute is.
type xattrPlace int

const (
	xattrNowhere xattrPlace = iota
	xattrInInode
	xattrInBlock
)

// xattrCredits returns how many blocks it takes at most to set an attribute to
// a value of size bytes, or to remove one. mu held.
func (ip *Inode) xattrCredits(size int) int {
	fs := ip.fs
	// The inode; a block changed, one freed and one allocated; the feature bit.
	n := creditsInode + 2 + creditsAlloc + creditsFree + creditsSuper
	if !fs.hasEAInode {
		return n
	}
	n += creditsIalloc + creditsOrphan + creditsInode // a new inode, and one given up
	n += int(fs.blocksOf(int64(size)))*(1+creditsGroup) + 2*creditsExtent
	ip.mapMu.RLock()
	refs := 0
	if a, used, err := ip.ibody(); err == nil && used {
		refs += countEA(a)
	}
	if b, a, err := ip.xattrBlock(); err == nil && b != nil {
		mu := fs.xattrLock(ondisk.Fsblk(b.Block()))
		mu.RLock()
		refs += countEA(a)
		mu.RUnlock()
		b.Put()
	}
	ip.mapMu.RUnlock()
	return n + refs*(creditsInode+creditsOrphan)
}

// countEA counts the values that lie in inodes of their own.
func countEA(a ondisk.XattrArea) (n int) {
	for off := a.First(); !a.Last(off); off = a.Next(off) {
		if a.Entry(off).ValueInum.Get() != 0 {
			n++
		}
	}
	return n
}

// errToInode is xattrPut's answer that the value has to go into an inode of
// its own.
var errToInode = errors.New("ext2fs: value wants an inode")

// xattrSet sets an attribute, or removes it if value is nil, in h's
// transaction, and stores the inode. mu is held, or nobody else knows the
// inode; mapMu is not. flags are XattrCreate and XattrReplace. After h has been
// stopped, and with no lock held, the caller calls FS.putDead.
//
// The attribute goes where the kernel puts it: into the inode if it fits, else
// into the block, else its value into an inode.
func (ip *Inode) xattrSet(h *jbd2.Handle, index uint8, name string, value []byte, flags int) error {
	fs := ip.fs
	if len(name) > 255 {
		return syscall.ERANGE
	}
	ip.mapMu.Lock()
	place, same, err := ip.xattrFind(index, name, value)
	switch {
	case err != nil:
	case place == xattrNowhere && flags&XattrReplace != 0:
		err = ondisk.ENODATA
	case place != xattrNowhere && flags&XattrCreate != 0:
		err = syscall.EEXIST
	case same:
		ip.mapMu.Unlock()
		return nil
	case value == nil:
		if err = ip.xattrDrop(h, place, index, name); err == nil {
			ip.noExpand = false
			err = ip.xattrStore(h)
		}
	default:
		ip.expandExtra()
		if fs.hasEAInode && ondisk.XattrPad(len(value)) > ondisk.XattrMinLarge(fs.blockSize) {
			err = errToInode
		} else {
			err = ip.xattrPut(h, place, index, name, ondisk.XattrValue{Data: value})
			if errors.Is(err, syscall.ENOSPC) && fs.hasEAInode && len(value) > 0 {
				err = errToInode
			}
		}
	}
	if !errors.Is(err, errToInode) {
		ip.mapMu.Unlock()
		return err
	}
	// A new inode locks the directory it is counted to, so not under mapMu. mu
	// keeps the attribute where it is meanwhile.
	ip.mapMu.Unlock()
	v, err := fs.eaInode(h, ip, value)
	if err != nil {
		return err
	}
	ip.mapMu.Lock()
	defer ip.mapMu.Unlock()
	if err = ip.xattrPut(h, place, index, name, v); errors.Is(err, syscall.ENOSPC) {
		fs.eaDropRef(h, ip, eaRef{ino: v.Inum}) // nothing points to it
	}
	return err
}

// xattrFind says where an attribute is and whether it has the value already.
// mapMu held.
func (ip *Inode) xattrFind(index uint8, name string, value []byte) (p xattrPlace, same bool, err error) {
	a, used, err := ip.ibody()
	if err != nil {
		return 0, false, err
	}
	if used {
		if off, found := a.Find(index, name, false); found {
			return xattrInInode, xattrSame(a, off, value), nil
		}
	}
	b, a, err := ip.xattrBlock()
	if err != nil || b == nil {
		return xattrNowhere, value == nil, err
	}
	defer b.Put()
	mu := ip.fs.xattrLock(ondisk.Fsblk(b.Block()))
	mu.RLock()
	defer mu.RUnlock()
	if off, found := a.Find(index, name, true); found {
		return xattrInBlock, xattrSame(a, off, value), nil
	}
	return xattrNowhere, value == nil, nil
}

func xattrSame(a ondisk.XattrArea, off int, value []byte) bool {
	return value != nil && a.Entry(off).ValueInum.Get() == 0 && string(a.Value(off)) == string(value)
}

// xattrPut sets an attribute that is at place, and stores the inode. mapMu
// held. If it fails with ENOSPC nothing has changed.
func (ip *Inode) xattrPut(h *jbd2.Handle, place xattrPlace, index uint8, name string, v ondisk.XattrValue) error {
	err := ip.ibodySet(h, index, name, v)
	switch {
	case err == nil && place == xattrInBlock:
		err = ip.blockSet(h, index, name, nil)
	case errors.Is(err, syscall.ENOSPC):
		if err = ip.blockSet(h, index, name, &v); err == nil && place == xattrInInode {
			err = ip.xattrDrop(h, xattrInInode, index, name)
		}
	}
	if err != nil {
		return err
	}
	return ip.xattrStore(h)
}

// xattrDrop removes an attribute from where it is. mapMu held.
func (ip *Inode) xattrDrop(h *jbd2.Handle, place xattrPlace, index uint8, name string) error {
	if place == xattrInBlock {
		return ip.blockSet(h, index, name, nil)
	}
	a, used, err := ip.ibody()
	if err != nil || !used {
		return err
	}
	off, found := a.Find(index, name, false)
	if !found {
		return nil
	}
	old := ip.eaOf(a, off)
	if err := a.Remove(off); err != nil {
		return ip.fs.corrupt(ip.ino, err)
	}
	ondisk.SealInodeXattrs(ip.raw)
	ip.eaUncharge(old)
	ip.fs.eaDropRef(h, ip, old)
	return nil
}

// ibodySet sets an attribute in the inode's own space. It fails with ENOSPC,
// nothing changed, if there is too little. mapMu held.
func (ip *Inode) ibodySet(h *jbd2.Handle, index uint8, name string, v ondisk.XattrValue) error {
	a, used, err := ip.ibody()
	if err != nil {
		return err
	}
	if _, _, ok := ondisk.InodeXattrs(ip.raw); !ok {
		return syscall.ENOSPC
	}
	if !used {
		ondisk.InitInodeXattrs(ip.raw)
	}
	off, found := a.Find(index, name, false)
	if !a.Fits(off, found, name, v, 0) {
		ondisk.SealInodeXattrs(ip.raw)
		return syscall.ENOSPC
	}
	var old eaRef
	if found {
		old = ip.eaOf(a, off)
	}
	if err := a.Set(off, found, index, name, v, false); err != nil {
		return ip.fs.corrupt(ip.ino, err)
	}
	ip.eaCharge(v)
	ip.eaUncharge(old)
	ip.fs.eaDropRef(h, ip, old)
	return nil
}

// xattrStore stores the inode after its attributes changed. mapMu held.
func (ip *Inode) xattrStore(h *jbd2.Handle) error {
	if err := ip.fs.setExtAttr(h); err != nil {
		return err
	}
	ip.raw.SetCtime(at(h))
	return ip.store(h)
}

// setExtAttr records in the superblock that there are attributes, once.
func (fs *FS) setExtAttr(h *jbd2.Handle) error {
	if fs.hasExtAttr || fs.xattr.marked.Load() {
		return nil
	}
	fs.xattr.mu.Lock()
	defer fs.xattr.mu.Unlock()
	if fs.xattr.marked.Load() {
		return nil
	}
	if err := h.GetWrite(fs.sbuf); err != nil {
		return err
	}
	fs.sb.FeatureCompat.Set(fs.sb.FeatureCompat.Get() | ondisk.CompatExtAttr)
	h.Dirty(fs.sbuf)
	fs.xattr.marked.Store(true)
	return nil
}

// expandExtra grows i_extra_isize to what the superblock wants, moving the
// attributes behind it up, as the kernel does when it changes an inode. Where
// they leave no room it is put off. mapMu held; the caller stores the inode.
func (ip *Inode) expandExtra() {
	want := ip.fs.wantExtraIsize
	if ip.noExpand || len(ip.raw) <= ondisk.GoodOldInodeSz || ip.raw.ExtraIsize() >= want {
		return
	}
	ip.noExpand = !ondisk.ExpandInodeExtra(ip.raw, want, ip.fs.maxEAInode())
}

// xattrFreeAll gives up all attributes of an inode that is being freed. No lock
// is held, and h has xattrFreeCredits: it is extended or restarted as needed.
// Afterwards, with h stopped, the caller calls FS.putDead.
func (ip *Inode) xattrFreeAll(h *jbd2.Handle) error {
	const need = creditsXattrFree
	// A value's inode has no values in inodes of its own, whatever it says: so
	// this does not go deeper than one.
	refs := ip.fs.hasEAInode && !ip.isEA.Load()
	for refs {
		ip.mapMu.Lock()
		a, used, err := ip.ibody()
		off := -1
		if err == nil && used {
			for o := a.First(); !a.Last(o) && off < 0; o = a.Next(o) {
				if a.Entry(o).ValueInum.Get() != 0 {
					off = o
				}
			}
		}
		if off < 0 {
			ip.mapMu.Unlock()
			break
		}
		old := ip.eaOf(a, off)
		if err = a.Remove(off); err == nil {
			ondisk.SealInodeXattrs(ip.raw)
			ip.eaUncharge(old)
			ip.fs.eaDropRef(h, ip, old)
			err = ip.store(h)
		}
		ip.mapMu.Unlock()
		if err == nil {
			err = ensure(h, need)
		}
		if err != nil {
			return err
		}
	}
	if err := ensure(h, need); err != nil {
		return err
	}
	return ip.blockFree(h, refs)
}

// creditsXattrFree is for one step of xattrFreeAll: one value's inode given up,
// or the block, and the caller's own end of it all.
const creditsXattrFree = 2*creditsInode + creditsOrphan + creditsFree + creditsOrphan + creditsIfree + creditsInode

func (ip *Inode) xattrFreeCredits() int { return creditsXattrFree }

// ensure sees to it that h has n credits, in another transaction if it must.
func ensure(h *jbd2.Handle, n int) error {
	if h.Credits() >= n || h.Extend(n-h.Credits()) == nil {
		return nil
	}
	return h.Restart(n)
}

// acl returns an ACL of the inode, nil if it has none.
func (ip *Inode) acl(index uint8) (ondisk.ACL, error) {
	var stack [256]byte
	b, err := ip.xattrGet(index, "", stack[:0])
	if errors.Is(err, ondisk.ENODATA) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	acl, err := ondisk.ParseACL(b)
	if err != nil {
		return nil, ip.fs.corrupt(ip.ino, fmt.Errorf("inode %d: %w", ip.ino, err))
	}
	return acl, nil
}
