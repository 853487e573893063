//go:build linux

// Package recfs shows a blockdev.Device as a file, by FUSE, so that any program
// can be run on it: what C fuse2fs, a loop device of the kernel or a binary of
// ours writes and syncs then goes through a blockdev.Record or Fault.
//
// The file is opened for direct I/O: each write is one of the device, in the
// order and the sizes that the program made them.
package recfs

import (
	"context"
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// A Server is a mounted folder.
type Server struct {
	srv     *fuse.Server
	Path    string // of the image
	Journal string // of the journal; "" without one
}

// Serve mounts a folder at dir that holds the file "image", and, unless journal
// is nil, the file "journal".
func Serve(dir string, image, journal blockdev.Device) (*Server, error) {
	root := &rootNode{image: image, journal: journal}
	srv, err := fs.Mount(dir, root, &fs.Options{MountOptions: fuse.MountOptions{
		FsName: "recfs", Name: "recfs", DirectMount: true, MaxWrite: 1 << 20, DisableXAttrs: true,
	}})
	if err != nil {
		return nil, err
	}
	s := &Server{srv: srv, Path: dir + "/image"}
	if journal != nil {
		s.Journal = dir + "/journal"
	}
	return s, nil
}

// Close unmounts. It fails while the file is in use.
func (s *Server) Close() error { return s.srv.Unmount() }

type rootNode struct {
	fs.Inode
	image, journal blockdev.Device
}

func (r *rootNode) OnAdd(ctx context.Context) {
	add := func(name string, ino uint64, dev blockdev.Device) {
		r.AddChild(name, r.NewPersistentInode(ctx, &file{dev: dev}, fs.StableAttr{Mode: syscall.S_IFREG, Ino: ino}), true)
	}
	add("image", 2, r.image)
	if r.journal != nil {
		add("journal", 3, r.journal)
	}
}

type file struct {
	fs.Inode
	dev blockdev.Device
}

var (
	_ fs.NodeOpener    = (*file)(nil)
	_ fs.NodeReader    = (*file)(nil)
	_ fs.NodeWriter    = (*file)(nil)
	_ fs.NodeFsyncer   = (*file)(nil)
	_ fs.NodeGetattrer = (*file)(nil)
	_ fs.NodeSetattrer = (*file)(nil)
	_ fs.NodeAllocater = (*file)(nil)
)

func (f *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *file) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	size := f.dev.Size()
	if off >= size {
		return fuse.ReadResultData(nil), 0
	}
	p = p[:min(int64(len(p)), size-off)]
	if _, err := f.dev.ReadAt(p, off); err != nil {
		return nil, errno(err)
	}
	return fuse.ReadResultData(p), 0
}

func (f *file) Write(_ context.Context, _ fs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	if off+int64(len(p)) > f.dev.Size() {
		return 0, syscall.ENOSPC
	}
	n, err := f.dev.WriteAt(p, off)
	return uint32(n), errno(err)
}

func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return errno(f.dev.Sync())
}

func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blocks, out.Nlink, out.Blksize = 0o600, uint64(f.dev.Size()), uint64(f.dev.Size())/512, 1, 4096
	return 0
}

// Setattr allows what leaves the size as it is.
func (f *file) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok && size != uint64(f.dev.Size()) {
		return syscall.EPERM
	}
	return f.Getattr(ctx, h, out)
}

func (f *file) Allocate(_ context.Context, _ fs.FileHandle, off, n uint64, mode uint32) syscall.Errno {
	const keep, punch, zero = 1, 2, 16
	size := uint64(f.dev.Size())
	if off >= size {
		return 0
	}
	n = min(n, size-off)
	switch mode {
	case keep | punch, zero, zero | keep:
		return errno(f.dev.ZeroOut(int64(off), int64(n)))
	}
	return syscall.EOPNOTSUPP
}

func errno(err error) syscall.Errno {
	var e syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e
	}
	return syscall.EIO
}
