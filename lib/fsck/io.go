package fsck

import (
	"errors"
	"fmt"
	"io"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// readAt reads from the device; what lies past its end is zeros.
func (c *checker) readAt(p []byte, off int64) error {
	n, err := c.dev.ReadAt(p, off)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		clear(p[n:])
		err = nil
	}
	c.res.BlocksRead += uint64(len(p) / 1024)
	return err
}

// prefetch has n bytes read that will be needed soon.
func (c *checker) prefetch(off, n int64) {
	if !c.opts.NoReadahead {
		blockdev.Prefetch(c.dev, off, n)
	}
}

// read reads block b.
func (c *checker) read(b ondisk.Fsblk, p []byte) error {
	return c.readAt(p[:c.blockSize], int64(b)<<c.blockBits)
}

// block returns a copy of block b.
func (c *checker) block(b ondisk.Fsblk) ([]byte, error) {
	p := make([]byte, c.blockSize)
	return p, c.read(b, p)
}

// writeAt writes to the device. Before the first write the superblock says that
// the file system is not clean, so that a run that dies is made good for by the
// next one.
func (c *checker) writeAt(p []byte, off int64) {
	if !c.canWrite() {
		panic("fsck: a write where nothing may be written")
	}
	c.markDirty()
	c.gen++
	if _, err := c.dev.WriteAt(p, off); err != nil {
		c.abort(fmt.Errorf("write: %w", err))
	}
	c.res.BlocksWritten += uint64(len(p) / 1024)
}

// write writes block b.
func (c *checker) write(b ondisk.Fsblk, p []byte) {
	if b >= c.blocks || int64(b)<<c.blockBits < c.sbOff+ondisk.SuperSize && int64(b+1)<<c.blockBits > ondisk.SuperOffset && !c.haveBlock0 {
		c.abort(fmt.Errorf("%w: block %d is not to be written", ErrAborted, b))
	}
	c.writeAt(p[:c.blockSize], int64(b)<<c.blockBits)
}

// readFound reads block b as it was before the superblock was marked: a file may
// claim it. What cannot be read is zeros.
func (c *checker) readFound(b ondisk.Fsblk, p []byte) {
	if c.read(b, p) != nil {
		clear(p)
	}
	off := int64(b) << c.blockBits
	if at := ondisk.SuperOffset - off; c.foundSuper != nil && at >= 0 && at < int64(len(p)) {
		copy(p[at:], c.foundSuper)
	}
}

func (c *checker) sync() {
	if !c.canWrite() {
		return
	}
	if err := c.dev.Sync(); err != nil {
		c.abort(fmt.Errorf("sync: %w", err))
	}
}

// markDirty takes the clean mark off the primary superblock on the device.
func (c *checker) markDirty() {
	if c.dirtied {
		return
	}
	c.dirtied = true
	var b [ondisk.SuperSize]byte
	if err := c.readAt(b[:], ondisk.SuperOffset); err != nil {
		return
	}
	s := endian.View[ondisk.Super](b[:])
	if s.Magic.Get() != ondisk.SuperMagic || s.State.Get()&ondisk.StateValid == 0 {
		return
	}
	c.foundSuper = append([]byte(nil), b[:]...)
	s.State.Set(s.State.Get() &^ ondisk.StateValid)
	if s.HasROCompat(ondisk.ROCompatMetadataCsum) {
		s.Checksum.Set(ondisk.SuperCsum(s))
	}
	if _, err := c.dev.WriteAt(b[:], ondisk.SuperOffset); err != nil {
		c.abort(fmt.Errorf("write superblock: %w", err))
	}
	c.sync()
}

// inodeAt returns where inode ino lies on the device; false if that is nowhere.
func (c *checker) inodeAt(ino ondisk.Ino) (off int64, ok bool) {
	if ino == 0 || uint32(ino) > c.inodes {
		return 0, false
	}
	g := uint32(ino-1) / c.inodesPerGroup
	i := int64(uint32(ino-1) % c.inodesPerGroup)
	t := c.desc(ondisk.Group(g)).InodeTable()
	if t < c.firstData || t == 0 || t >= c.blocks {
		return 0, false
	}
	return int64(t)<<c.blockBits + i*int64(c.inodeSize), true
}

// inode returns a copy of inode ino.
func (c *checker) inode(ino ondisk.Ino) (ondisk.RawInode, error) {
	off, ok := c.inodeAt(ino)
	if !ok {
		return nil, ondisk.Corrupt("inode", 0, "number %d", ino)
	}
	p := make([]byte, c.inodeSize)
	return p, c.readAt(p, off)
}

// writeInode writes inode ino with its checksum.
func (c *checker) writeInode(ino ondisk.Ino, r ondisk.RawInode) {
	off, ok := c.inodeAt(ino)
	if !ok {
		c.abort(fmt.Errorf("%w: inode %d has no place in a table", ErrAborted, ino))
	}
	if c.hasCsum {
		r.Seal(c.seed, ino)
	}
	c.changed = true
	c.writeAt(r, off)
	if s := &c.scan; off >= s.off && off < s.off+int64(len(s.buf)) {
		copy(s.buf[off-s.off:], r)
	}
}

// editInode reads inode ino, lets f change it, and writes it.
func (c *checker) editInode(ino ondisk.Ino, f func(r ondisk.RawInode)) bool {
	r, err := c.inode(ino)
	if err != nil {
		return false
	}
	f(r)
	c.writeInode(ino, r)
	return true
}
