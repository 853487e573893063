package ext2fs

import (
	"bytes"
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// opsLink is a block with the target of a symbolic link: it has no checksum.
var opsLink buffer.Ops = plainOps{"symbolic link"}

// Symlink makes a symbolic link to target, which is 1 to block size - 1 bytes;
// the inode is returned pinned. A target shorter than MaxSymlinkFast lies in
// the inode.
func (fs *FS) Symlink(dp *Inode, name, target string, cred Cred) (*Inode, error) {
	switch {
	case target == "":
		return nil, opErr("symlink", name, syscall.ENOENT)
	case len(target) >= fs.blockSize || len(target) > 4095:
		return nil, opErr("symlink", name, syscall.ENAMETOOLONG)
	}
	ip, err := fs.newEntry(dp, name, ondisk.ModeLnk|0o777, cred, func(h *jbd2.Handle, ip *Inode) error {
		if len(target) >= ondisk.MaxSymlinkFast {
			return ip.writeLinkBlock(h, target)
		}
		ip.mapMu.Lock()
		defer ip.mapMu.Unlock()
		b := ip.raw.Base()
		b.Flags.Set(b.Flags.Get() &^ (ondisk.FlagExtents | ondisk.FlagInlineData))
		clear(b.Block[:])
		copy(b.Block[:], target)
		ip.raw.SetSize(int64(len(target)))
		return nil
	}, creditsSymlink)
	return ip, opErr("symlink", name, err)
}

// writeLinkBlock puts a long target into a block of its own, as metadata.
func (ip *Inode) writeLinkBlock(h *jbd2.Handle, target string) error {
	ip.mapMu.Lock()
	defer ip.mapMu.Unlock()
	b, err := ip.appendMetaBlock(h, 0, opsLink)
	if err != nil {
		return err
	}
	defer b.Put()
	copy(b.Data(), target)
	h.Dirty(b)
	ip.raw.SetSize(int64(len(target)))
	return nil
}

// Readlink returns the target of a symbolic link, EINVAL if it is none.
func (ip *Inode) Readlink() (string, error) {
	if !ip.isLnk() {
		return "", syscall.EINVAL
	}
	if target, done, err := ip.linkInInode(); done {
		return target, err
	}
	size := ip.Size() // a link's never changes
	if size >= int64(ip.fs.blockSize) {
		return ip.linkTarget(nil, size, nil)
	}
	b, err := ip.dirBlock(0, opsLink)
	if err != nil {
		return "", err
	}
	if b == nil {
		return ip.linkTarget(nil, size, nil)
	}
	defer b.Put()
	return ip.linkTarget(b.Data()[:size], size, nil)
}

// linkInInode returns the target of a link that lies in the inode itself; done
// is false if it has a block.
func (ip *Inode) linkInInode() (target string, done bool, err error) {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	size := ip.raw.Size(false)
	switch {
	case ip.flag(ondisk.FlagEncrypt):
		return "", true, &ondisk.UnsupportedError{Feature: "encrypt"}
	case ip.flag(ondisk.FlagInlineData):
		p, err := ip.inlineGet()
		target, err = ip.linkTarget(p, size, err)
		return target, true, err
	case !ip.isFastLink():
		return "", false, nil
	}
	var p []byte
	if size < ondisk.MaxSymlinkFast {
		p = ip.raw.Base().Block[:size]
	}
	target, err = ip.linkTarget(p, size, nil)
	return target, true, err
}

// linkTarget checks that a target is size bytes without a NUL.
func (ip *Inode) linkTarget(p []byte, size int64, err error) (string, error) {
	if err != nil {
		return "", err
	}
	if size == 0 || int64(len(p)) != size || bytes.IndexByte(p, 0) >= 0 {
		e := ondisk.Corrupt("symbolic link", 4, "size %d, which its target does not have", size)
		e.Ino = ip.ino
		return "", ip.fs.corrupt(ip.ino, e)
	}
	return string(p), nil
}
