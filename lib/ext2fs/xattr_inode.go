package ext2fs

import (
	"bytes"
	"errors"
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// opsEAValue is a block of an inode that holds a value. The value's hash is
// checked as a whole.
var opsEAValue buffer.Ops = plainOps{"attribute value"}

// eaRef is the reference of an entry to the inode that holds its value.
type eaRef struct {
	ino  ondisk.Ino // 0 if the value is not in an inode
	hash uint32     // e_hash of the entry
	size uint32     // e_value_size
}

// eaOf returns the reference of the entry at off.
func (ip *Inode) eaOf(a ondisk.XattrArea, off int) eaRef {
	e := a.Entry(off)
	if e.ValueInum.Get() == 0 {
		return eaRef{}
	}
	return eaRef{ondisk.Ino(e.ValueInum.Get()), e.Hash.Get(), e.ValueSize.Get()}
}

// eaBlocks returns the blocks that i_blocks of the user counts for a value of n
// bytes in an inode: as if it had the value itself, for quota.
func (fs *FS) eaBlocks(n int64) int64 {
	size := int64(fs.blockSize) * int64(fs.clusterRatio)
	return (n + size - 1) / size * int64(fs.clusterRatio)
}

// eaCharge counts a value that has been set. mapMu held.
func (ip *Inode) eaCharge(v ondisk.XattrValue) {
	if v.Inum != 0 {
		ip.addBlocks(ip.fs.eaBlocks(int64(v.Size)))
	}
}

// eaUncharge takes a value that is gone out of the count. mapMu held.
func (ip *Inode) eaUncharge(r eaRef) {
	if r.ino != 0 {
		ip.addBlocks(-ip.fs.eaBlocks(int64(r.size)))
	}
}

// eaCharged returns the blocks of all values that have been counted so. mapMu
// held.
func (ip *Inode) eaCharged() (n uint64, err error) {
	add := func(a ondisk.XattrArea) {
		for off := a.First(); !a.Last(off); off = a.Next(off) {
			if r := ip.eaOf(a, off); r.ino != 0 {
				n += uint64(ip.fs.eaBlocks(int64(r.size)))
			}
		}
	}
	a, used, err := ip.ibody()
	if err != nil {
		return 0, err
	}
	if used {
		add(a)
	}
	b, a, err := ip.xattrBlock()
	if err != nil || b == nil {
		return n, err
	}
	add(a)
	b.Put()
	return n, nil
}

// The inode of a value is counted in fields that it has no other use for:
// i_atime is the value's hash, i_ctime and i_version are the upper and lower
// half of the reference count. The accessors want mapMu of the value's inode.

func (ip *Inode) eaHash() uint32 { return ip.raw.Base().Atime.Get() }

func (ip *Inode) eaCount() uint64 {
	return uint64(ip.raw.Base().Ctime.Get())<<32 | uint64(ip.raw.Base().VersionLo.Get())
}

func (ip *Inode) eaSetCount(n uint64) {
	ip.raw.SetCtime(ondisk.Time{Sec: int64(n >> 32)})
	ip.raw.Base().VersionLo.Set(uint32(n))
}

// eaOld says whether the inode of a value is of the kind that Lustre made: with
// one user, that i_mtime and i_generation name, and no hash. r is the user's
// entry.
func (ip *Inode) eaOld(user *Inode, r eaRef) bool {
	return r.hash != ip.eaHash() && ip.raw.Base().Mtime.Get() == uint32(user.ino) &&
		ip.gen == user.gen
}

// eaGet returns the inode ino, pinned, checked to be one that holds a value.
// It is given back with eaPut.
func (fs *FS) eaGet(ino ondisk.Ino) (*Inode, error) {
	ip, err := fs.iget(ino, igetEA)
	if err != nil {
		if errors.Is(err, syscall.ESTALE) {
			err = ondisk.Corrupt("extended attributes", 4, "value in the free inode %d", ino)
		}
		return nil, err
	}
	ip.mapMu.RLock()
	ok := ip.isReg() && ip.nlink() > 0
	ip.mapMu.RUnlock()
	if !ok {
		fs.eaPut(ip)
		return nil, ondisk.Corrupt("extended attributes", 4, "value in inode %d, which is not for values", ino)
	}
	return ip, nil
}

// eaPut gives back what eaGet returned. It may be called with locks held and a
// handle open: should the inode have to be freed, that is done later.
func (fs *FS) eaPut(ip *Inode) {
	if ip.isEA.Load() {
		ip.mapMu.RLock()
		n := ip.nlink()
		ip.mapMu.RUnlock()
		if n > 0 {
			ip.Put()
			return
		}
	}
	fs.xattr.mu.Lock()
	fs.xattr.dead = append(fs.xattr.dead, ip)
	fs.xattr.ndead.Store(int32(len(fs.xattr.dead)))
	fs.xattr.mu.Unlock()
}

// putDead frees inodes of values that nobody uses any more. No handle is open
// and no lock held. A crash before is no loss: they are orphans.
func (fs *FS) putDead() {
	for fs.xattr.ndead.Load() > 0 {
		fs.xattr.mu.Lock()
		dead := fs.xattr.dead
		fs.xattr.dead = nil
		fs.xattr.ndead.Store(0)
		fs.xattr.mu.Unlock()
		for _, ip := range dead {
			ip.Put()
		}
	}
}

// eaRead appends the value of the entry at off, which an inode holds, to buf.
// It fails with E2BIG for one that no system call can return. mapMu held.
func (ip *Inode) eaRead(a ondisk.XattrArea, off int, buf []byte) ([]byte, error) {
	fs := ip.fs
	r := ip.eaOf(a, off)
	if r.size > ondisk.XattrSizeMax {
		return buf, syscall.E2BIG
	}
	eip, err := fs.eaGet(r.ino)
	if err != nil {
		return buf, fs.corrupt(ip.ino, err)
	}
	defer fs.eaPut(eip)
	n := len(buf)
	buf, err = eip.eaContent(int64(r.size), buf)
	if err == nil {
		err = eip.eaVerify(ip, r, a.Name(off), buf[n:])
	}
	if err != nil {
		return buf[:n], fs.corrupt(r.ino, err)
	}
	return buf, nil
}

// eaContent appends the content of the inode of a value, of size bytes, to buf.
// It never changes once the inode has been made.
func (ip *Inode) eaContent(size int64, buf []byte) ([]byte, error) {
	if n := ip.Size(); n != size {
		return buf, ondisk.Corrupt("inode of an attribute value", 4, "size %d, should be %d", n, size)
	}
	for lblk := ondisk.Lblk(0); size > 0; lblk++ {
		b, err := ip.dirBlock(lblk, opsEAValue)
		if err != nil {
			return buf, err
		}
		if b == nil {
			return buf, ondisk.Corrupt("inode of an attribute value", 40, "hole at block %d", lblk)
		}
		n := min(size, int64(len(b.Data())))
		buf = append(buf, b.Data()[:n]...)
		b.Put()
		size -= n
	}
	return buf, nil
}

// eaVerify checks that value has the hashes that its inode, and user's entry of
// that name, say.
func (ip *Inode) eaVerify(user *Inode, r eaRef, name, value []byte) error {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	if ip.eaOld(user, r) {
		return nil
	}
	h := ondisk.XattrValueHash(ip.fs.csumSeed, value)
	if s := ip.eaHash(); h != s {
		return ondisk.Corrupt("inode of an attribute value", 8, "hash %#x, should be %#x", s, h)
	}
	if w := ondisk.XattrInumHash(name, h); r.hash != w && r.hash != ondisk.XattrInumHashSigned(name, h) {
		return ondisk.Corrupt("extended attributes", 12, "hash %#x, should be %#x", r.hash, w)
	}
	return nil
}

// eaInode returns an inode that holds value, with one reference for the caller:
// one that exists already, or a new one. No mapMu is held.
func (fs *FS) eaInode(h *jbd2.Handle, user *Inode, value []byte) (ondisk.XattrValue, error) {
	v := ondisk.XattrValue{Size: len(value), Hash: ondisk.XattrValueHash(fs.csumSeed, value)}
	for _, at := range fs.xattr.values.find(v.Hash) {
		if at != 0 && fs.eaShare(h, ondisk.Ino(at), v.Hash, value) {
			v.Inum = ondisk.Ino(at)
			return v, nil
		}
	}
	// xattrCredits has this in it; ACLs that are inherited need not.
	if n := creditsIalloc + int(fs.blocksOf(int64(len(value))))*(1+creditsGroup) + 2*creditsExtent; h.Credits() < n {
		if err := h.Extend(n - h.Credits()); err != nil {
			return v, err
		}
	}
	ip, err := fs.eaCreate(h, user, v.Hash, value)
	if err != nil {
		return v, err
	}
	v.Inum = ip.ino
	fs.eaPut(ip)
	fs.xattr.values.add(v.Hash, uint64(v.Inum))
	return v, nil
}

// eaShare counts one more user of the value that inode ino holds, if that is
// value.
func (fs *FS) eaShare(h *jbd2.Handle, ino ondisk.Ino, hash uint32, value []byte) bool {
	ip, err := fs.eaGet(ino)
	if err != nil {
		fs.xattr.values.drop(hash, uint64(ino))
		return false
	}
	defer fs.eaPut(ip)
	have, err := ip.eaContent(int64(len(value)), make([]byte, 0, len(value)))
	if err != nil || !bytes.Equal(have, value) {
		return false
	}
	ip.mapMu.Lock()
	defer ip.mapMu.Unlock()
	n := ip.eaCount()
	if n == 0 || n+1 == 0 || ip.eaHash() != hash || ip.nlink() == 0 {
		return false
	}
	ip.eaSetCount(n + 1)
	if ip.store(h) != nil {
		ip.eaSetCount(n)
		return false
	}
	return true
}

// eaCreate makes an inode that holds value, with a reference count of one.
func (fs *FS) eaCreate(h *jbd2.Handle, user *Inode, hash uint32, value []byte) (*Inode, error) {
	user.mapMu.RLock()
	uid, gid := user.raw.UID(), user.raw.GID()
	user.mapMu.RUnlock()
	ip, err := fs.ialloc(h, nil, ondisk.ModeReg|0o600, ondisk.Group(uint32(user.ino-1)/fs.inodesPerGroup))
	if err != nil {
		return nil, err
	}
	ip.mapMu.Lock()
	ip.isEA.Store(true)
	b := ip.raw.Base()
	b.LinksCount.Set(1)
	ip.raw.SetUID(uid)
	ip.raw.SetGID(gid)
	ip.setFlags(ondisk.FlagEAInode, 0)
	ip.raw.SetAtime(ondisk.Time{Sec: int64(hash)})
	b.Atime.Set(hash) // whatever times an inode of 128 bytes can hold
	ip.eaSetCount(1)
	err = ip.eaWrite(h, value)
	if err == nil {
		err = ip.store(h)
	}
	if err == nil {
		ip.mapMu.Unlock()
		return ip, nil
	}
	b.LinksCount.Set(0)
	serr := ip.store(h)
	ip.mapMu.Unlock()
	if serr == nil {
		serr = fs.orphanAdd(h, ip)
	}
	_ = fs.corrupt(ip.ino, serr)
	fs.eaPut(ip)
	return nil, err
}

// eaWrite gives a new inode its content, through the journal as metadata. mapMu
// held.
func (ip *Inode) eaWrite(h *jbd2.Handle, value []byte) error {
	ip.raw.SetSize(int64(len(value)))
	for lblk := ondisk.Lblk(0); len(value) > 0; lblk++ {
		b, err := ip.appendMetaBlock(h, lblk, opsEAValue)
		if err != nil {
			return err
		}
		n := copy(b.Data(), value)
		h.Dirty(b)
		b.Put()
		value = value[n:]
	}
	return nil
}

// eaAddRef counts one more user of the value in inode ino: an entry of user has
// been copied. Where that cannot be, a check will count anew.
func (fs *FS) eaAddRef(h *jbd2.Handle, user *Inode, ino ondisk.Ino) {
	ip, err := fs.eaGet(ino)
	if err == nil {
		ip.mapMu.Lock()
		n := ip.eaCount()
		ip.eaSetCount(n + 1)
		err = ip.store(h)
		ip.mapMu.Unlock()
		fs.eaPut(ip)
	}
	_ = fs.corrupt(user.ino, err)
}

// eaDropRef counts one user less of the value of r, if that is in an inode, and
// gives the inode up with the last. It is freed by FS.putDead.
func (fs *FS) eaDropRef(h *jbd2.Handle, user *Inode, r eaRef) {
	if r.ino == 0 {
		return
	}
	ip, err := fs.eaGet(r.ino)
	if err != nil {
		_ = fs.corrupt(user.ino, err)
		return
	}
	defer fs.eaPut(ip)
	ip.mapMu.Lock()
	n := ip.eaCount()
	if r.hash != 0 && ip.eaOld(user, r) {
		n = 1
	}
	if n == 0 {
		err = ondisk.Corrupt("inode of an attribute value", 36, "no reference to give up")
	} else {
		n--
		ip.eaSetCount(n)
		if n == 0 {
			fs.xattr.values.drop(ip.eaHash(), uint64(r.ino))
			ip.raw.Base().LinksCount.Set(0)
		}
		err = ip.store(h)
	}
	ip.mapMu.Unlock()
	if err == nil && n == 0 {
		err = fs.orphanAdd(h, ip)
	}
	_ = fs.corrupt(r.ino, err)
}
