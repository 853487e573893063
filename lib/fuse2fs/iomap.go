package fuse2fs

import (
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fuse"
	"github.com/e2kit/e2kit/lib/iomap"
)

// uncached are operations whose answers the kernel does not look for in its
// cache of mappings.
const uncached = iomap.Report | iomap.Atomic | iomap.Swapfile | iomap.DAX

// iomapBegin answers where data lies. What the kernel may remember it is told
// first. A buffered write, and write-back, are sent to look there: a mapping that
// they find in the cache they check again under each page's lock, so that one
// that has changed meanwhile is not followed. A mapping in an answer holds to the
// end of the operation, which is well for reads, and for direct I/O, which goes
// on nothing that may change.
func (s *Server) iomapBegin(r *fuse.Request) {
	in, ok := fuse.In[fuse.IomapBeginIn](r)
	if !ok || !s.iomap.on {
		r.ReplyErr(syscall.ENOSYS)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	node := r.NodeID()
	abi := s.iomapABI(node, in.AttrIno)
	op := abi.Op(in.Opflags)
	ask := op
	if op&iomap.Writeback != 0 || op&iomap.Allocates != 0 && r.UID() == 0 {
		ask |= ext2fs.Privileged // pages were accepted when they were written
	}
	pos := int64(in.Pos)
	pair, err := ip.KernelBegin(ask, pos, int64(min(in.Count, 1<<62)))
	if err != nil {
		if op&iomap.Writeback != 0 {
			s.writebackFailed(ip.Ino(), errno(err))
		}
		s.fail(r, err)
		return
	}
	if op&iomap.Atomic != 0 {
		pair.Read.Flags |= iomap.AtomicBio
	}
	if pair.Read.Type == iomap.Inline && op&iomap.Allocates != 0 && ip.Flags()&ondisk.FlagInlineData == 0 {
		// An empty file becomes one with its data inside: it is no hole any more.
		if err := s.conn.IomapInval(node, in.AttrIno, 0, int64(s.bsize)); err != nil {
			s.log.Debug("forget mappings", "inode", ip.Ino(), "err", err)
		}
	}
	out := fuse.Out[fuse.IomapBeginOut](r)
	if op&uncached == 0 && pair.Read.Type != iomap.Inline {
		lookup := op&iomap.Allocates != 0 && op&iomap.Direct == 0
		ahead := op&iomap.Direct != 0 && pair.Read.Type == iomap.Unwritten && pair.Read.End()-int64(s.bsize) >= pos+int64(in.Count)
		if lookup || ahead || pair.Read.Type == iomap.Mapped || pair.Read.Type == iomap.Hole {
			errno := s.publish(out, ip, op, node, in.AttrIno, pos)
			if errno == 0 && lookup && !s.repeated(node, in) {
				pair.Read.Type, pair.Read.Addr, pair.Read.Dev, pair.Read.Flags = iomap.RetryCache, iomap.NullAddr, 0, 0
			}
		}
	}
	pair.Overwrite()
	abi.Put(&out.Read, &pair.Read, s.iomap.cfg.Base, s.iomap.dev)
	abi.Put(&out.Write, &pair.Write, s.iomap.cfg.Base, s.iomap.dev)
	r.Reply(0)
}

// iomapEnd takes back what was reserved for direct I/O and not used, until the
// first message comes that says no more than that a buffered write has extended a
// file. There would be one for each: the kernel is then told to send none at all.
// Reservations come back when it lets go of the inode, as those of buffered writes
// do.
func (s *Server) iomapEnd(r *fuse.Request) {
	in, ok := fuse.In[fuse.IomapEndIn](r)
	if !ok || !s.iomap.on {
		r.ReplyErr(syscall.ENOSYS)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	abi := s.iomap.abi.Load()
	op := abi.Op(in.Opflags)
	if op&iomap.Direct == 0 && in.Written == int64(in.Count) {
		r.ReplyErr(syscall.ENOSYS)
		return
	}
	s.done(r, ip.End(op, int64(in.Pos), int64(min(in.Count, 1<<62)), in.Written,
		abi.Get(&in.Map, s.iomap.cfg.Base)))
}

// iomapIoend makes written data part of the file. Transactions are shared by all
// that end between two commits, and the device is flushed before the commit block,
// so data is there before what points to it.
func (s *Server) iomapIoend(r *fuse.Request) {
	in, ok := fuse.In[fuse.IomapIoendIn](r)
	if !ok || !s.iomap.on {
		r.ReplyErr(syscall.ENOSYS)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	e := iomap.IOEnd{Flags: iomap.EndFlags(in.Flags), Pos: int64(in.Pos), Written: int64(min(in.Written, 1<<62)), Addr: iomap.NullAddr}
	var failed syscall.Errno
	if in.Error < 0 {
		failed = syscall.Errno(-in.Error)
		e.Err = failed
	}
	if e.Flags&iomap.EndShared != 0 && failed == 0 {
		failed = ondisk.EUCLEAN // no blocks are shared
		e.Err = failed
	}
	size, err := ip.IOEnd(e)
	if err != nil {
		failed = errno(err)
		if e.Flags&(iomap.EndDirect|iomap.EndSwapoff) == 0 {
			s.writebackFailed(ip.Ino(), failed)
		}
		if e.Err == nil {
			s.log.Error("written data is lost", "inode", ip.Ino(), "offset", e.Pos, "length", e.Written, "err", err)
		}
		r.ReplyErr(failed)
		return
	}
	if e.Written > 0 && e.Flags&(iomap.EndUnwritten|iomap.EndAppend) != 0 {
		// The kernel forgets what it has cached of the range when it has the
		// answer. After that it cannot be told, since it may be unmounting, and
		// wait for us with locks held that a notification takes. So it is told
		// of the range before this one.
		if off, n := ip.Forgets(e.Pos, e.Written); n > 0 {
			var buf fuse.IomapBeginOut
			s.publish(&buf, ip, 0, r.NodeID(), in.AttrIno, off)
		}
	}
	fuse.Out[fuse.IomapIoendOut](r).Newsize = uint64(size)
	r.Reply(0)
}

// writebackFailed remembers that data could not be written back. The kernel
// may not tell whoever calls fsync.
func (s *Server) writebackFailed(ino ondisk.Ino, e syscall.Errno) {
	s.iomap.mu.Lock()
	s.iomap.errs[ino] = e
	s.iomap.some.Store(true)
	s.iomap.mu.Unlock()
}

// writebackError returns what writebackFailed remembers of an inode, once.
func (s *Server) writebackError(ino ondisk.Ino) error {
	if !s.iomap.some.Load() {
		return nil
	}
	s.iomap.mu.Lock()
	defer s.iomap.mu.Unlock()
	e := s.iomap.errs[ino]
	delete(s.iomap.errs, ino)
	if len(s.iomap.errs) == 0 {
		s.iomap.some.Store(false)
	}
	if e == 0 {
		return nil
	}
	return e
}
