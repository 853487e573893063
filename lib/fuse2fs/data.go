package fuse2fs

import (
	"bytes"
	"io"
	"math"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
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
	buf := r.OutBuf(int(in.Size))
	n, err := ip.ReadAt(buf, int64(in.Offset))
	if err != nil && err != io.EOF && n == 0 { //nolint:errorlint // as io.ReaderAt says
		s.fail(r, err)
		return
	}
	if s.iomap.on && ip.KernelMapped() {
		// The kernel fills a block that lies in the inode; it keeps the times.
		clear(buf[n:])
		r.Reply(len(buf))
		return
	}
	if in.Flags&syscall.O_ACCMODE != syscall.O_WRONLY { // else the kernel fills a page that is written in part
		s.accessed(ip, s.cfg.Atime, in.Flags)
	}
	r.Reply(n)
}

// accessed records a read of a file that was opened with flags. That it could
// not is no reason to fail the read. What is read from the kernel's own cache is
// not seen here.
func (s *Server) accessed(ip *ext2fs.Inode, mode ext2fs.AtimeMode, flags uint32) {
	const noatime = 0x40000 // O_NOATIME
	if flags&noatime != 0 {
		return
	}
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
	if ip.Flags()&protected != 0 && !appends(ip, data, int64(in.Offset)) {
		s.refuse(r, in)
		return
	}
	s.waits(r, len(data))
	var n int
	var err error
	for more := true; more; more = s.again(r, err) {
		if in.WriteFlags&fuse.WriteCache != 0 && !s.iomap.on {
			n, err = ip.WriteBack(data, int64(in.Offset), privileged(r, in, ip))
		} else if privileged(r, in, ip) {
			n, err = ip.WriteAtPrivileged(data, int64(in.Offset))
		} else {
			n, err = ip.WriteAt(data, int64(in.Offset))
		}
	}
	if err == nil && in.WriteFlags&fuse.WriteCache == 0 && in.Flags&syscall.O_DSYNC != 0 {
		// The kernel sends no FSYNC after a synchronous write of its own.
		err = ip.Fsync(in.Flags&syscall.O_SYNC != syscall.O_SYNC)
	}
	if err == nil && n < len(data) && in.WriteFlags&fuse.WriteCache != 0 {
		err = syscall.EFBIG
	}
	if err != nil && (n == 0 || in.WriteFlags&fuse.WriteCache != 0 || in.Flags&syscall.O_DIRECT != 0) {
		// Of what it writes back the kernel does not look at the size, and of
		// direct writes it makes EIO of a short one.
		s.fail(r, err)
		return
	}
	out := fuse.Out[fuse.WriteOut](r)
	out.Size = uint32(n)
	r.Reply(0)
}

// protected are the flags that keep content as it is. The kernel does not know
// them of a FUSE file, so it opens the file, and they are enforced here.
const protected = ondisk.FlagImmutable | ondisk.FlagAppend

// appends says whether a write of data at off leaves what ip holds alone, and ip
// may grow. The kernel writes whole pages back, so data may start with what is
// there.
func appends(ip *ext2fs.Inode, data []byte, off int64) bool {
	if ip.Flags()&ondisk.FlagImmutable != 0 {
		return false
	}
	n := min(int64(len(data)), ip.Size()-off)
	if n <= 0 {
		return true
	}
	have := make([]byte, n)
	_, err := ip.ReadAt(have, off)
	return (err == nil || err == io.EOF) && bytes.Equal(have, data[:n])
}

// refuse answers a write to a protected file. What the kernel has cached of such
// a file is not its content.
func (s *Server) refuse(r *fuse.Request, in *fuse.WriteIn) {
	node, off, n, cached := r.NodeID(), int64(in.Offset), int64(in.Size), in.WriteFlags&fuse.WriteCache != 0
	r.AtOnce() // the kernel waits for the end of the write below
	r.ReplyErr(syscall.EPERM)
	if cached {
		if err := s.conn.InvalInode(node, off, n); err != nil {
			s.log.Debug("drop what was refused", "node", node, "err", err)
		}
	}
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
	err := ip.Fsync(in.FsyncFlags&fuse.FsyncFdatasync != 0)
	if s.iomap.on {
		if e := s.synced(ip, r.NodeID()); err == nil {
			err = e
		}
	}
	s.done(r, err)
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
	} else if err := ip.KillPriv(); err != nil {
		// Whether the caller may keep the bits (CAP_FSETID) is not said,
		// unlike with WRITE.
		s.fail(r, err)
		return
	}
	off, n := int64(in.Offset), int64(in.Length)
	err := ip.Fallocate(mode, off, n)
	for s.again(r, err) {
		err = ip.Fallocate(mode, off, n)
	}
	s.remapped(ip, r.NodeID(), off, n)
	s.done(r, err)
}

// afterWriteback runs f, which answers r, once the kernel has written back what
// it holds of r's node from off on. It does not always do that by itself. The
// writes are requests, so f runs in a goroutine and the worker goes on; the
// connection waits for the answer before it ends.
func (s *Server) afterWriteback(r *fuse.Request, off int64, f func()) {
	if s.conn.Negotiated().Flags&fuse.WritebackCache == 0 {
		f()
		return
	}
	node := r.NodeID()
	go func() {
		// There is no way to have pages written back and keep them.
		if err := s.conn.InvalInode(node, off, 0); err != nil {
			s.log.Debug("write back", "node", node, "err", err)
		}
		f()
	}()
}

// lseek looks for data and holes. What is not written back would look like a
// hole, and be lost to those who copy the data only.
func (s *Server) lseek(r *fuse.Request) {
	in, ok := fuse.In[fuse.LseekIn](r)
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	s.afterWriteback(r, max(int64(in.Offset), 0), func() { s.seek(r, in) })
}

func (s *Server) seek(r *fuse.Request, in *fuse.LseekIn) {
	const seekData, seekHole = 3, 4
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
	if !ok || in.Blocksize != s.bsize || in.Block > math.MaxUint32 {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	s.afterWriteback(r, int64(in.Block)*int64(s.bsize), func() { s.findBlock(r, in) })
}

func (s *Server) findBlock(r *fuse.Request, in *fuse.BmapIn) {
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
