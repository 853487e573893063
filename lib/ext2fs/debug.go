package ext2fs

import (
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Changes that POSIX does not have, for those who edit: each is one
// transaction, and does what it says whether or not the file system is
// consistent afterwards.

// AddEntry adds the entry name for inode ino, of file type ftype, to directory
// dp. It counts no link. It fails with EEXIST.
func (fs *FS) AddEntry(dp *Inode, name string, ino ondisk.Ino, ftype uint8) error {
	if !dp.isDir() {
		return syscall.ENOTDIR
	}
	if ino == 0 || uint32(ino) > fs.inodes {
		return syscall.EINVAL
	}
	dp.mu.Lock()
	defer dp.mu.Unlock()
	if _, _, err := fs.dirLookup(dp, []byte(name)); err == nil {
		return syscall.EEXIST
	} else if err != syscall.ENOENT {
		return err
	}
	h, err := fs.start(fs.dirAddCredits(dp) + creditsInode)
	if err != nil {
		return err
	}
	err = fs.dirAdd(h, dp, []byte(name), ino, ftype)
	if e := h.Stop(); err == nil {
		err = e
	}
	return err
}

// RemoveEntry removes the entry name of directory dp, whatever it names. It
// takes no link away. It fails with ENOENT.
func (fs *FS) RemoveEntry(dp *Inode, name string) error {
	if !dp.isDir() {
		return syscall.ENOTDIR
	}
	dp.mu.Lock()
	defer dp.mu.Unlock()
	h, err := fs.start(creditsUnlink)
	if err != nil {
		return err
	}
	err = fs.dirRemove(h, dp, []byte(name))
	if e := h.Stop(); err == nil {
		err = e
	}
	return err
}

// ExpandDir adds a block without entries to directory dp. It fails with EINVAL
// for an inline one, and for one with an index, which could not lead to it.
func (fs *FS) ExpandDir(dp *Inode) error {
	if !dp.isDir() {
		return syscall.ENOTDIR
	}
	dp.mu.Lock()
	defer dp.mu.Unlock()
	flags, _ := dp.dirState()
	if flags&ondisk.FlagInlineData != 0 || fs.isDx(flags) {
		return syscall.EINVAL
	}
	h, err := fs.start(fs.dirAddCredits(dp))
	if err != nil {
		return err
	}
	b, _, err := dp.dirAppend(h)
	if err == nil {
		ondisk.InitDirBlock(b.Data(), fs.hasCsum)
		h.Dirty(b)
		b.Put()
	}
	if e := h.Stop(); err == nil {
		err = e
	}
	return err
}
