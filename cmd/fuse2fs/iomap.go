//go:build linux

package main

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/fuse"
	"github.com/e2kit/e2kit/lib/fuse2fs"
)

// iomapDevice sees to a block device for the kernel to do I/O on, where it can
// do the I/O of files itself: an image gets a loop device, which the server then
// uses too. Without one the kernel is not asked.
func (l *launcher) iomapDevice() error {
	if l.o.Iomap == "0" || l.o.NoDirect || l.block || os.Geteuid() != 0 || !kernelOffersIomap() {
		return nil
	}
	loop, err := fuse.AttachLoop(l.o.Source, l.o.ReadOnly)
	if err != nil {
		return nil //nolint:nilerr // no loop devices here: the server says what follows from that
	}
	o := blockdev.Options{ReadOnly: l.o.ReadOnly, Direct: blockdev.DirectOn}
	dev, err := blockdev.Open(loop.Path, o)
	if err != nil {
		_ = loop.Close()
		return fails(exitOpen, "%s: loop device %s: %w", l.o.Source, loop.Path, err)
	}
	l.loop, l.lock, l.dev, l.o.LockFd = loop, l.dev, dev, true
	return nil
}

// kernelOffersIomap asks the kernel whether a mount by this process may use
// fuse-iomap.
func kernelOffersIomap() bool {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	s, err := fuse.IomapSupport(fd)
	return err == nil && s.Flags&fuse.IomapFileIO != 0
}

// iomapConfig returns how the kernel is to do the I/O of files, or why it cannot.
func (o *options) iomapConfig(fs *ext2fs.FS) (*fuse2fs.IomapConfig, string) {
	fd, base, ok := blockdev.FdOf(fs.Device())
	var st unix.Stat_t
	switch {
	case o.Iomap == "0":
		return nil, "iomap=0 was given"
	case !ok:
		return nil, "the journal was replayed in memory, where the kernel cannot read"
	case unix.Fstat(int(fd), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK:
		return nil, "the source is not a block device, and has no loop device"
	case blockdev.Align(fs.Device()) <= 1:
		return nil, "metadata would be cached twice without direct I/O"
	case base%int64(fs.BlockSize()) != 0:
		return nil, "the offset is not a multiple of the block size"
	case fs.JournalsAllData():
		return nil, "data is journaled"
	}
	var abi *fuse.IomapABI
	if o.IomapABI != "" {
		abi, _ = fuse.IomapABIByName(o.IomapABI)
	}
	return &fuse2fs.IomapConfig{ABI: abi, Fd: int(fd), Base: base}, ""
}
