package fuse2fs

import (
	"errors"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fuse"
)

// errno returns what the kernel is told of err.
func errno(err error) syscall.Errno {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	return syscall.EIO
}

// fail answers r with err, and logs what is not an ordinary outcome.
func (s *Server) fail(r *fuse.Request, err error) {
	e := errno(err)
	if e == syscall.EIO || e == ondisk.EUCLEAN || e == ondisk.EBADMSG {
		s.log.Error("request failed", "op", r.Op().String(), "node", r.NodeID(), "err", err)
	}
	r.ReplyErr(e)
}

// done answers r with no data, or with err.
func (s *Server) done(r *fuse.Request, err error) {
	if err != nil {
		s.fail(r, err)
		return
	}
	r.ReplyErr(0)
}

// toIno returns the inode number of a node id, toNode the reverse.
func (s *Server) toIno(node uint64) ondisk.Ino {
	if node == s.root {
		return ondisk.RootIno
	}
	return ondisk.Ino(node)
}

func (s *Server) toNode(ino ondisk.Ino) uint64 {
	if ino == ondisk.RootIno {
		return s.root
	}
	return uint64(ino)
}

// node pins the inode that r is about; if it cannot, it answers r and returns
// nil.
func (s *Server) node(r *fuse.Request) *ext2fs.Inode { return s.inode(r, r.NodeID()) }

func (s *Server) inode(r *fuse.Request, node uint64) *ext2fs.Inode {
	if node > 1<<32-1 {
		r.ReplyErr(syscall.ESTALE)
		return nil
	}
	ip, err := s.fs.Iget(s.toIno(node))
	if err != nil {
		s.fail(r, err)
		return nil
	}
	return ip
}

// fillAttr copies what the kernel caches of ip.
func (s *Server) fillAttr(out *fuse.Attr, ip *ext2fs.Inode) {
	var a ext2fs.Attr
	ip.Attr(&a)
	*out = fuse.Attr{
		Ino: uint64(a.Ino), Size: uint64(a.Size), Blocks: a.Blocks,
		Atime: uint64(a.Atime.Sec), Atimensec: a.Atime.Nsec,
		Mtime: uint64(a.Mtime.Sec), Mtimensec: a.Mtime.Nsec,
		Ctime: uint64(a.Ctime.Sec), Ctimensec: a.Ctime.Nsec,
		Mode: uint32(a.Mode), Nlink: a.Nlink, UID: a.UID, GID: a.GID,
		Rdev: a.Rdev, Blksize: s.bsize,
	}
	if s.iomap.on {
		out.Flags = s.iomapFlags(&a)
	}
	if s.cfg.UID != nil {
		out.UID = *s.cfg.UID
	}
	if s.cfg.GID != nil {
		out.GID = *s.cfg.GID
	}
}

// fillEntry tells the kernel of ip, which counts as a lookup of it.
func (s *Server) fillEntry(out *fuse.EntryOut, ip *ext2fs.Inode) {
	s.fs.Hold(ip.Ino())
	out.NodeID = s.toNode(ip.Ino())
	out.Generation = uint64(ip.Generation())
	out.EntryValid = cacheForever
	out.AttrValid = cacheForever
	s.fillAttr(&out.Attr, ip)
}

// entry answers r with the entry ip, which it unpins, or with err.
func (s *Server) entry(r *fuse.Request, ip *ext2fs.Inode, err error) {
	if err != nil {
		s.fail(r, err)
		return
	}
	s.fillEntry(fuse.Out[fuse.EntryOut](r), ip)
	s.replyEntry(r, ip)
}

// replyEntry sends an answer that counts as a lookup of ip, and unpins it. If
// nobody takes the answer, because the caller was killed, the lookup is undone.
func (s *Server) replyEntry(r *fuse.Request, ip *ext2fs.Inode) {
	ino := ip.Ino()
	ip.Put()
	if r.Reply(0) != nil {
		s.release(s.toNode(ino), 1)
	}
}

// cred returns on whose behalf r makes a file.
func (s *Server) cred(r *fuse.Request, umask uint32) ext2fs.Cred {
	c := ext2fs.Cred{UID: r.UID(), GID: r.GID(), Umask: uint16(umask & 0o777)}
	if s.cfg.Fakeroot {
		c.UID, c.GID = 0, 0
	}
	return c
}
