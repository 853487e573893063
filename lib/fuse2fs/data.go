package fuse2fs

import (
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/fuse"
)

func (s *Server) read(r *fuse.Request) {
	in, ok := fuse.In[fuse.ReadIn](r)
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	s.waits(r, int(in.Size))
	n, err := ip.ReadAt(r.OutBuf(int(in.Size)), int64(in.Offset))
	if err != nil && n == 0 {
		s.fail(r, err)
		return
	}
	s.accessed(ip, s.cfg.Atime)
	r.Reply(n)
}

// accessed records a read. That it could not is no reason to fail the read.
func (s *Server) accessed(ip *ext2fs.Inode, mode ext2fs.AtimeMode) {
	if err := ip.Accessed(mode); err != nil {
		s.log.Warn("time of access", "inode", ip.Ino(), "err", err)
	}
}

// privileged tells whether a write may take the blocks reserved for the
// super-user. Of what comes from the page cache the writer is not known: it is
// taken to be the owner.
func privileged(r *fuse.Request, in *fuse.WriteIn, ip *ext2fs.Inode) bool {
	if in.WriteFlags&fuse.WriteCache == 0 {
		return r.UID() == 0
	}
	var a ext2fs.Attr
	ip.Attr(&a)
	return a.UID == 0
}

// longIO is the size from which I/O on a disk takes longer than waking another
// worker, in bytes.
const longIO = 64 << 10

// waits lets another worker read requests while the handler waits for n bytes of
// the device, if they are not in memory, as an image on tmpfs is.
func (s *Server) waits(r *fuse.Request, n int) {
	if s.onDisk && n >= longIO {
		r.Blocking()
	}
}

func (s *Server) write(r *fuse.Request) {
	in, ok := fuse.In[fuse.WriteIn](r)
	data := r.Payload()
	if !ok || int(in.Size) != len(data) {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	if in.WriteFlags&fuse.WriteKillSuidgid != 0 {
		if err := ip.KillPriv(); err != nil {
			s.fail(r, err)
			return
		}
	}
	s.waits(r, len(data))
	var n int
	var err error
	if privileged(r, in, ip) {
		n, err = ip.WriteAtPrivileged(data, int64(in.Offset))
	} else {
		n, err = ip.WriteAt(data, int64(in.Offset))
	}
	if err == nil && in.WriteFlags&fuse.WriteCache == 0 && in.Flags&syscall.O_DSYNC != 0 {
		// The kernel sends no FSYNC after a synchronous write of its own.
		err = ip.Fsync(in.Flags&syscall.O_SYNC != syscall.O_SYNC)
	}
	if err != nil && n == 0 {
		s.fail(r, err)
		return
	}
	out := fuse.Out[fuse.WriteOut](r)
	out.Size = uint32(n)
	r.Reply(0)
}

func (s *Server) fsync(r *fuse.Request) {
	in, ok := fuse.In[fuse.FsyncIn](r)
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	s.waits(r, longIO)
	s.done(r, ip.Fsync(in.FsyncFlags&fuse.FsyncFdatasync != 0))
}

func (s *Server) syncfs(r *fuse.Request) { s.done(r, s.fs.Sync()) }

func (s *Server) fallocate(r *fuse.Request) {
	in, ok := fuse.In[fuse.FallocateIn](r)
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	mode := in.Mode &^ ext2fs.FallocPrivileged
	if r.UID() == 0 {
		mode |= ext2fs.FallocPrivileged
	}
	s.done(r, ip.Fallocate(mode, int64(in.Offset), int64(in.Length)))
}

func (s *Server) lseek(r *fuse.Request) {
	const seekData, seekHole = 3, 4
	in, ok := fuse.In[fuse.LseekIn](r)
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	var off int64
	var err error
	switch in.Whence {
	case seekData:
		off, err = ip.SeekData(int64(in.Offset))
	case seekHole:
		off, err = ip.SeekHole(int64(in.Offset))
	default:
		err = syscall.EINVAL
	}
	if err != nil {
		s.fail(r, err)
		return
	}
	fuse.Out[fuse.LseekOut](r).Offset = uint64(off)
	r.Reply(0)
}

func (s *Server) bmap(r *fuse.Request) {
	in, ok := fuse.In[fuse.BmapIn](r)
	if !ok || in.Blocksize != s.bsize {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	blk, err := ip.Bmap(in.Block)
	if err != nil {
		s.fail(r, err)
		return
	}
	fuse.Out[fuse.BmapOut](r).Block = uint64(blk)
	r.Reply(0)
}
