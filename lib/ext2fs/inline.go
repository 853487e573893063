package ext2fs

import (
	"syscall"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// The content of an inline inode lies in i_block, and what follows in the
// attribute system.data of the inode, which is always there, if empty. Bytes
// past the size are zero. Directories have entries in both: see dir_inline.go.
// Kernel: filesystems/ext4/inlinedata.rst.

const inlineBlockLen = len(ondisk.Inode{}.Block)

// inlineEA returns the value of system.data, in place. mapMu held.
func (ip *Inode) inlineEA() ([]byte, error) {
	a, used, err := ip.ibody()
	if err != nil {
		return nil, err
	}
	if used {
		off, found := a.Find(ondisk.XattrSystemIndex, ondisk.XattrSystemData, false)
		if found && a.Entry(off).ValueInum.Get() == 0 {
			return a.Value(off), nil
		}
	}
	return nil, ip.fs.corrupt(ip.ino, ondisk.Corrupt("inode", 32, "inline data without system.data"))
}

// inlineMax returns how many bytes system.data can have as things are, a
// multiple of 4; negative if there is not even room for it without a value.
// mapMu held.
func (ip *Inode) inlineMax() int {
	a, used, ok := ondisk.InodeXattrs(ip.raw)
	if !ok {
		return -1
	}
	if !used {
		return (len(ip.raw) - ondisk.GoodOldInodeSz - ip.raw.ExtraIsize() - ondisk.XattrIHeaderSize - 4 -
			ondisk.XattrLen(len(ondisk.XattrSystemData))) &^ 3
	}
	if a, used, err := ip.ibody(); err != nil || !used {
		return -1
	} else if off, found := a.Find(ondisk.XattrSystemIndex, ondisk.XattrSystemData, false); found {
		return (a.Free() + ondisk.XattrPad(len(a.Value(off)))) &^ 3
	}
	return (a.Free() - ondisk.XattrLen(len(ondisk.XattrSystemData))) &^ 3
}

// inlineInit makes the inode inline, with 60 zero bytes; false, nothing changed,
// if there is no room. mapMu held; the caller stores the inode.
func (ip *Inode) inlineInit() (bool, error) {
	if ip.inlineMax() < 0 {
		return false, nil
	}
	if a, used, _ := ip.ibody(); used {
		if _, found := a.Find(ondisk.XattrSystemIndex, ondisk.XattrSystemData, false); found {
			return false, nil // not ours
		}
	}
	if err := ip.inlineSet(ondisk.XattrValue{Data: []byte{}}); err != nil {
		return false, err
	}
	clear(ip.raw.Base().Block[:])
	ip.setFlags(ondisk.FlagInlineData, ondisk.FlagExtents)
	ip.mappingChanged()
	return true, nil
}

// inlineSet sets system.data. It fails with ENOSPC, nothing changed. mapMu held.
func (ip *Inode) inlineSet(v ondisk.XattrValue) error {
	return ip.ibodySet(nil, ondisk.XattrSystemIndex, ondisk.XattrSystemData, v)
}

// inlineResize makes system.data n bytes long, with zeros added, and returns
// its value in place. It fails with ENOSPC, nothing changed. mapMu held; the
// caller stores the inode.
func (ip *Inode) inlineResize(n int) ([]byte, error) {
	old, err := ip.inlineEA()
	if err != nil || len(old) == n {
		return old, err
	}
	keep := append([]byte(nil), old[:min(n, len(old))]...) // the value moves
	if err := ip.inlineSet(ondisk.XattrValue{Zero: n}); err != nil {
		return nil, err
	}
	ea, err := ip.inlineEA()
	copy(ea, keep)
	return ea, err
}

// inlineDrop makes an inline inode one that has no blocks, and no data. mapMu
// held; the caller stores the inode.
func (ip *Inode) inlineDrop() error {
	if err := ip.xattrDrop(nil, xattrInInode, ondisk.XattrSystemIndex, ondisk.XattrSystemData); err != nil {
		return err
	}
	ip.setFlags(0, ondisk.FlagInlineData)
	ip.initMap()
	ip.mappingChanged()
	ip.noExpand = false
	return nil
}

// inlineRead reads at off from an inline file or symbolic link into p, up to
// the size. mapMu held.
func (ip *Inode) inlineRead(p []byte, off int64) (int, error) {
	ea, err := ip.inlineEA()
	if err != nil {
		return 0, err
	}
	size := ip.size()
	if off < 0 || off >= size {
		return 0, nil
	}
	p = p[:min(int64(len(p)), size-off)]
	n := 0
	if off < int64(inlineBlockLen) {
		n = copy(p, ip.raw.Base().Block[off:])
	}
	if at := off + int64(n) - int64(inlineBlockLen); n < len(p) && at >= 0 && at < int64(len(ea)) {
		n += copy(p[n:], ea[at:])
	}
	clear(p[n:]) // a size beyond what is stored: truncate makes that
	return len(p), nil
}

// inlineGet returns a copy of the content of an inline file or symbolic link.
// mapMu held.
func (ip *Inode) inlineGet() ([]byte, error) {
	ea, err := ip.inlineEA()
	if err != nil {
		return nil, err
	}
	p := make([]byte, max(0, min(ip.size(), int64(inlineBlockLen+len(ea)))))
	n, err := ip.inlineRead(p, 0)
	return p[:n], err
}

// inlineCap returns how many bytes of content the inode has room for. mapMu
// held.
func (ip *Inode) inlineCap() int64 {
	n := ip.inlineMax()
	if n < 0 {
		return 0
	}
	return int64(inlineBlockLen + n)
}

// inlineReady says whether the file is inline or, being empty, can become so for
// content up to end. mapMu held.
func (ip *Inode) inlineReady(end int64) (inline, can bool) {
	if ip.flag(ondisk.FlagInlineData) {
		return true, end <= ip.inlineCap()
	}
	if !ip.isReg() || ip.isEA.Load() || ip.size() != 0 || ip.flag(ondisk.FlagDAX|ondisk.FlagJournalData) ||
		ip.noBlocks() || len(ip.fm.rsv) > 0 || end > ip.inlineCap() || !ip.unmapped() {
		return false, false
	}
	return false, true
}

// inlineStorage makes room for n bytes of content. mapMu held.
func (ip *Inode) inlineStorage(n int64) error {
	if !ip.flag(ondisk.FlagInlineData) {
		if ok, err := ip.inlineInit(); err != nil || !ok {
			return syscall.ENOSPC
		}
	}
	ea, err := ip.inlineEA()
	if err == nil && n > int64(inlineBlockLen+len(ea)) {
		_, err = ip.inlineResize(int(n) - inlineBlockLen)
	}
	return err
}

// inlineWriteAt writes p at off if the file is, or can become, inline. done is
// false, and nothing is written, if p has to go to blocks: then the file is not
// inline, any more. mu is held exclusively, no handle is open.
func (ip *Inode) inlineWriteAt(p []byte, off int64) (done bool, err error) {
	end := off + int64(len(p))
	ip.mapMu.RLock()
	inline, can := ip.inlineReady(end)
	ip.mapMu.RUnlock()
	switch {
	case inline && !can:
		return false, ip.inlineConvert()
	case !can:
		return false, nil
	}
	h, err := ip.fs.start(creditsInode + creditsSuper)
	if err != nil {
		return false, err
	}
	ip.mapMu.Lock()
	err = ip.inlinePut(h, p, off)
	ip.mapMu.Unlock()
	return true, stop(h, err)
}

func (ip *Inode) inlinePut(h *jbd2.Handle, p []byte, off int64) error {
	end := off + int64(len(p))
	if err := ip.inlineStorage(end); err != nil {
		return err
	}
	ea, err := ip.inlineEA()
	if err != nil {
		return err
	}
	n := 0
	if off < int64(inlineBlockLen) {
		n = copy(ip.raw.Base().Block[off:], p)
	}
	if n < len(p) {
		copy(ea[off+int64(n)-int64(inlineBlockLen):], p[n:])
	}
	if end > ip.size() {
		ip.raw.SetSize(end)
	}
	now := ip.fs.now()
	ip.raw.SetMtime(now)
	ip.raw.SetCtime(now)
	return ip.storeData(h)
}

// inlineTruncate sets the size of an inline file. done is false, and the size
// unchanged, if the file had to be given blocks for it. mu is held exclusively,
// no handle is open.
func (ip *Inode) inlineTruncate(size int64, set *SetAttr) (done bool, err error) {
	ip.mapMu.RLock()
	inline, can := ip.inlineReady(size)
	ip.mapMu.RUnlock()
	switch {
	case !inline:
		return false, nil
	case !can:
		return false, ip.inlineConvert()
	}
	h, err := ip.startResize(creditsInode+creditsSuper, set)
	if err != nil {
		return false, err
	}
	ip.mapMu.Lock()
	err = ip.inlineCut(size)
	if err == nil {
		ip.raw.SetSize(size)
		ip.resized(set)
		err = ip.storeData(h)
	}
	ip.mapMu.Unlock()
	return true, stop(h, err)
}

// inlineCut makes what is stored fit size. mapMu held.
func (ip *Inode) inlineCut(size int64) error {
	ea, err := ip.inlineEA()
	if err != nil {
		return err
	}
	if n := max(int(size)-inlineBlockLen, 0); n != len(ea) {
		if _, err := ip.inlineResize(n); err != nil {
			return err
		}
	}
	if size < int64(inlineBlockLen) {
		clear(ip.raw.Base().Block[size:])
	}
	return nil
}

// inlineConvert moves the content of an inline file to a block: it is written
// there first, then one transaction maps it. mu is held exclusively, no handle
// is open. It fails with ENOSPC, nothing changed.
func (ip *Inode) inlineConvert() error {
	fs := ip.fs
	ip.mapMu.RLock()
	data, err := ip.inlineGet()
	goal := fs.goalFor(ip, 0)
	ip.mapMu.RUnlock()
	if err != nil {
		return err
	}
	var at ondisk.Fsblk
	var got uint32
	if len(data) > 0 {
		buf := blockdev.AlignedBuf(fs.blockSize, fs.blockSize) // no inode is larger
		copy(buf, data)
		at, got, err = fs.reserve(ip, goal, 1, 1, ip.rsvOK)
		if err != nil {
			return err
		}
		if _, err = fs.dev.WriteAt(buf, int64(at)<<fs.blockBits); err != nil {
			fs.unreserve(at, got)
			return err
		}
	}
	h, err := fs.start(creditsData + creditsInode)
	if err != nil {
		if got > 0 {
			fs.unreserve(at, got)
		}
		return err
	}
	ip.mapMu.Lock()
	saved := append([]byte(nil), ip.raw...)
	err = ip.inlineDrop()
	if err == nil && got > 0 {
		if err = fs.commitReserved(h, at, got); err == nil {
			ip.addBlocks(int64(got))
			got = 0
			err = ip.insertRun(h, 0, at, 1, false)
		}
	}
	if err == nil {
		err = ip.storeData(h)
	} else {
		copy(ip.raw, saved)
		ip.mappingChanged()
	}
	ip.mapMu.Unlock()
	if got > 0 {
		fs.unreserve(at, got)
	}
	return stop(h, err)
}
