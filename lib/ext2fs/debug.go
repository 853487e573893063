package ext2fs

import (
	"errors"
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
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

// ExpandDir adds a block to directory dp: one without entries, or if dp has an
// index, half of a leaf or of a node of it. An inline directory gets its first
// one.
func (fs *FS) ExpandDir(dp *Inode) error {
	if !dp.isDir() {
		return syscall.ENOTDIR
	}
	dp.mu.Lock()
	defer dp.mu.Unlock()
	h, err := fs.start(fs.dirAddCredits(dp) + creditsInode)
	if err != nil {
		return err
	}
	return stop(h, fs.dirErr(dp, fs.expandDir(h, dp)))
}

func (fs *FS) expandDir(h *jbd2.Handle, dp *Inode) error {
	flags, _ := dp.dirState()
	if flags&ondisk.FlagInlineData != 0 {
		return fs.inlineToBlock(h, dp)
	}
	if fs.isDx(flags) {
		return fs.dxExpand(h, dp)
	}
	b, _, err := dp.dirAppend(h)
	if err != nil {
		return err
	}
	ondisk.InitDirBlock(b.Data(), fs.hasCsum)
	h.Dirty(b)
	b.Put()
	return nil
}

// dxExpand splits the first leaf that has two entries, or a full node on the way
// to it.
func (fs *FS) dxExpand(h *jbd2.Handle, dp *Inode) error {
	var p dxPath
	defer p.release()
	err := fs.dxOpen(dp, &p)
	if err == nil {
		err = fs.dxDescend(dp, &p, 0)
	}
	for err == nil {
		if p.frames[p.n-1].full() {
			return fs.dxGrow(h, dp, &p)
		}
		var leaf *buffer.Buf
		if leaf, err = dp.dirRead(p.leaf()); err != nil {
			return err
		}
		if leaf == nil {
			return &badDxError{ondisk.Corrupt("directory index", 0, "leaf %d is a hole", p.leaf())}
		}
		if leaf, err = fs.dxSplit(h, dp, &p, leaf, 0); err == nil {
			leaf.Put()
			return nil
		}
		if _, more := p.dxPeek(); !isBadDx(err) || !more {
			return err
		}
		err = fs.dxNext(dp, &p)
	}
	return err
}

// FillHoles gives zeroed blocks to a file where it has none, up to its end. It is
// for files that have no extents, which could be unwritten.
func (ip *Inode) FillHoles(off, n int64) error {
	end := min(off+min(n, ip.MaxBytes()), ip.Size())
	bs := int64(ip.fs.blockSize)
	buf := make([]byte, 1<<20)
	for off -= off % bs; off < end; {
		hole, err := ip.SeekHole(off)
		if err != nil || hole >= end {
			return err
		}
		data, err := ip.SeekData(hole)
		if errors.Is(err, syscall.ENXIO) {
			data, err = end, nil
		}
		if err != nil {
			return err
		}
		for off = hole; off < min(data, end); {
			k, err := ip.WriteAtPrivileged(buf[:min(int64(len(buf)), data-off, end-off)], off)
			if err != nil {
				return err
			}
			off += int64(k)
		}
	}
	return nil
}
