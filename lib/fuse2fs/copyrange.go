package fuse2fs

import (
	"syscall"

	"github.com/e2kit/e2kit/lib/fuse"
)

// copyRange copies between files, whose pages the kernel has written back.
func (s *Server) copyRange(r *fuse.Request) {
	in, ok := fuse.In[fuse.CopyFileRangeIn](r)
	if !ok || in.Flags != 0 {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	dst := s.inode(r, in.NodeIDOut)
	if dst == nil {
		return
	}
	defer dst.Put()
	if dst.Flags()&protected != 0 {
		r.ReplyErr(syscall.EPERM)
		return
	}
	n := int64(min(in.Len, copyMost))
	if s.onDisk && min(n, ip.Size()-int64(in.OffIn)) <= longIO {
		// The kernel then copies by its page cache, which costs a small file less
		// than waiting for the disk, twice.
		r.ReplyErr(syscall.EXDEV)
		return
	}
	if r.UID() != 0 {
		if err := dst.KillPriv(); err != nil {
			s.fail(r, err)
			return
		}
	}
	// Answers of the older operation have 32 bits.
	n, err := ip.CopyRange(int64(in.OffIn), dst, int64(in.OffOut), n, r.UID() == 0)
	if err != nil {
		s.fail(r, err)
		return
	}
	if r.Op() == fuse.OpCopyFileRange64 {
		fuse.Out[fuse.CopyFileRangeOut](r).BytesCopied = uint64(n)
	} else {
		fuse.Out[fuse.WriteOut](r).Size = uint32(n)
	}
	r.Reply(0)
}

// copyMost bounds what one request copies, and so for how long it can neither be
// interrupted nor show progress.
const copyMost = 64 << 20
