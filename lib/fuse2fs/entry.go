package fuse2fs

import (
	"errors"
	"syscall"
	"unsafe"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fuse"
)

func (s *Server) lookup(r *fuse.Request) {
	dp := s.node(r)
	if dp == nil {
		return
	}
	defer dp.Put()
	nm, ok := name(r)
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	ip, err := s.fs.Lookup(dp, nm)
	if errors.Is(err, syscall.ENOENT) {
		if s.probe(r, nm) {
			return
		}
		out := fuse.Out[fuse.EntryOut](r) // an absent name is worth remembering
		out.EntryValid = cacheForever
		r.Reply(0)
		return
	}
	s.entry(r, ip, err)
}

func (s *Server) forget(r *fuse.Request) {
	if in, ok := fuse.In[fuse.ForgetIn](r); ok {
		s.release(r.NodeID(), in.Nlookup)
	}
	r.ReplyNone()
}

const forgetOneSize = int(unsafe.Sizeof(fuse.ForgetOne{}))

func (s *Server) batchForget(r *fuse.Request) {
	if in, ok := fuse.In[fuse.BatchForgetIn](r); ok {
		p := r.Payload()
		for n := in.Count; n > 0 && len(p) >= forgetOneSize; n-- {
			f := (*fuse.ForgetOne)(unsafe.Pointer(&p[0]))
			s.release(f.NodeID, f.Nlookup)
			p = p[forgetOneSize:]
		}
	}
	r.ReplyNone()
}

func (s *Server) release(node, n uint64) {
	if node == probeNode || s.frozen.keep(node, n) {
		return
	}
	ino := s.toIno(node)
	if s.iomap.some.Load() && s.fs.Holds(ino) <= n {
		_ = s.writebackError(ino) // the number may soon be another file's
	}
	s.fs.Release(ino, n)
}

func (s *Server) create(r *fuse.Request) {
	in, ok := fuse.In[fuse.CreateIn](r)
	nm, ok2 := name(r)
	if !ok || !ok2 {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	dp := s.node(r)
	if dp == nil {
		return
	}
	defer dp.Put()
	ip, err := s.make(r, func() (*ext2fs.Inode, error) {
		return s.fs.Create(dp, nm, uint16(in.Mode), 0, s.cred(r, in.Umask))
	})
	if errors.Is(err, syscall.EEXIST) && in.Flags&syscall.O_EXCL == 0 {
		// A race with another creator, or a name cached as absent.
		ip, err = s.fs.Lookup(dp, nm)
	}
	if err != nil {
		s.fail(r, err)
		return
	}
	out := fuse.Out[fuse.CreateOut](r)
	s.fillEntry(&out.Entry, ip)
	out.Open.OpenFlags = fuse.FopenKeepCache
	s.replyEntry(r, ip)
}

func (s *Server) tmpfile(r *fuse.Request) {
	in, ok := fuse.In[fuse.CreateIn](r)
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	dp := s.node(r)
	if dp == nil {
		return
	}
	defer dp.Put()
	ip, err := s.make(r, func() (*ext2fs.Inode, error) {
		return s.fs.Tmpfile(dp, uint16(in.Mode)&^ondisk.ModeFmt, s.cred(r, in.Umask))
	})
	if err != nil {
		s.fail(r, err)
		return
	}
	out := fuse.Out[fuse.CreateOut](r)
	s.fillEntry(&out.Entry, ip)
	out.Open.OpenFlags = fuse.FopenKeepCache
	s.replyEntry(r, ip)
}

func (s *Server) mknod(r *fuse.Request) {
	in, ok := fuse.In[fuse.MknodIn](r)
	nm, ok2 := name(r)
	if !ok || !ok2 {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	dp := s.node(r)
	if dp == nil {
		return
	}
	defer dp.Put()
	ip, err := s.make(r, func() (*ext2fs.Inode, error) {
		return s.fs.Create(dp, nm, uint16(in.Mode), in.Rdev, s.cred(r, in.Umask))
	})
	s.entry(r, ip, err)
}

func (s *Server) mkdir(r *fuse.Request) {
	in, ok := fuse.In[fuse.MkdirIn](r)
	nm, ok2 := name(r)
	if !ok || !ok2 {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	dp := s.node(r)
	if dp == nil {
		return
	}
	defer dp.Put()
	ip, err := s.make(r, func() (*ext2fs.Inode, error) {
		return s.fs.Mkdir(dp, nm, uint16(in.Mode), s.cred(r, in.Umask))
	})
	s.entry(r, ip, err)
}

func (s *Server) symlink(r *fuse.Request) {
	nm, ok := name(r)
	target, ok2 := r.Text()
	if !ok || !ok2 {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	dp := s.node(r)
	if dp == nil {
		return
	}
	defer dp.Put()
	ip, err := s.make(r, func() (*ext2fs.Inode, error) {
		return s.fs.Symlink(dp, nm, string(target), s.cred(r, 0))
	})
	s.entry(r, ip, err)
}

func (s *Server) link(r *fuse.Request) {
	in, ok := fuse.In[fuse.LinkIn](r)
	nm, ok2 := name(r)
	if !ok || !ok2 {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	ip := s.inode(r, in.Oldnodeid)
	if ip == nil {
		return
	}
	dp := s.node(r)
	if dp == nil {
		ip.Put()
		return
	}
	defer dp.Put()
	if err := s.fs.Link(ip, dp, nm); err != nil {
		ip.Put()
		s.fail(r, err)
		return
	}
	s.entry(r, ip, nil)
}

func (s *Server) unlink(r *fuse.Request) { s.remove(r, false) }
func (s *Server) rmdir(r *fuse.Request)  { s.remove(r, true) }

func (s *Server) remove(r *fuse.Request, dir bool) {
	nm, ok := name(r)
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	dp := s.node(r)
	if dp == nil {
		return
	}
	defer dp.Put()
	remove := s.fs.Unlink
	if dir {
		remove = s.fs.Rmdir
	}
	err := remove(dp, nm)
	s.removed()
	s.done(r, err)
}

func (s *Server) rename(r *fuse.Request) {
	in, ok := fuse.In[fuse.RenameIn](r)
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	s.move(r, in.Newdir, 0)
}

func (s *Server) rename2(r *fuse.Request) {
	in, ok := fuse.In[fuse.Rename2In](r)
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	s.move(r, in.Newdir, in.Flags)
}

func (s *Server) move(r *fuse.Request, newdir uint64, flags uint32) {
	oname, nname, ok := names(r)
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	odp := s.node(r)
	if odp == nil {
		return
	}
	defer odp.Put()
	ndp := s.inode(r, newdir)
	if ndp == nil {
		return
	}
	defer ndp.Put()
	err := s.fs.Rename(odp, oname, ndp, nname, flags, s.cred(r, 0))
	s.removed() // what had the new name
	s.done(r, err)
}

func (s *Server) readlink(r *fuse.Request) {
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	target, err := ip.Readlink()
	if err != nil {
		s.fail(r, err)
		return
	}
	s.accessed(ip, s.cfg.Atime, 0)
	r.Reply(copy(r.OutBuf(len(target)), target))
}

// name returns the next entry name of r.
func name(r *fuse.Request) (string, bool) {
	b, ok := r.Name()
	return string(b), ok
}

// names returns the next two entry names of r.
func names(r *fuse.Request) (a, b string, ok bool) {
	x, y, ok := r.Names()
	return string(x), string(y), ok
}
