package fuse2fs

import (
	"syscall"

	"github.com/e2kit/e2kit/lib/fuse"
)

// ProbeName is a regular file that the root directory seems to have until a
// file is opened for the first time. Whoever mounts opens it: the kernel learns
// only from an OPEN that it can do without, and would send a RELEASE for every
// file that is created before.
const ProbeName = ".e2kit-first-open"

// probeNode is its node id, which no inode number can be.
const probeNode = 1 << 40

// probe answers r, a LOOKUP in the root, if it is for ProbeName and in time.
func (s *Server) probe(r *fuse.Request, name string) bool {
	if r.NodeID() != s.root || name != ProbeName || s.opened.Load() {
		return false
	}
	out := fuse.Out[fuse.EntryOut](r)
	out.NodeID = probeNode
	out.AttrValid = cacheForever
	out.Attr = fuse.Attr{Ino: probeNode, Mode: syscall.S_IFREG | 0o600, Nlink: 1, Blksize: s.bsize}
	if s.iomap.on { // one regular file that is not makes the kernel distrust all
		out.Attr.Flags = fuse.AttrExclusive | fuse.AttrIomap
	}
	r.Reply(0)
	return true
}

// open says that nobody needs to ask.
func (s *Server) open(r *fuse.Request) {
	s.opened.Store(true)
	r.ReplyErr(syscall.ENOSYS)
}
