package fuse2fs

import (
	"hash/maphash"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fuse"
	"github.com/e2kit/e2kit/lib/iomap"
)

// publish puts the longest mapping around pos that the kernel may remember into
// its cache. buf is room for the message. It returns ENOENT if there is none, and
// what the kernel says.
func (s *Server) publish(buf *fuse.IomapBeginOut, ip *ext2fs.Inode, op iomap.Op, node, ino uint64, pos int64) syscall.Errno {
	ip.HoldMapping()
	defer ip.ReleaseMapping()
	m, ok := ip.MappingAround(op, pos)
	if !ok {
		return syscall.ENOENT
	}
	return s.upsert(buf, m, node, ino)
}

func (s *Server) upsert(buf *fuse.IomapBeginOut, m iomap.Mapping, node, ino uint64) syscall.Errno {
	p := iomap.Pair{Read: m}
	p.Overwrite()
	abi := s.iomap.abi.Load()
	abi.Put(&buf.Read, &p.Read, s.iomap.cfg.Base, s.iomap.dev)
	abi.Put(&buf.Write, &p.Write, s.iomap.cfg.Base, s.iomap.dev)
	return s.conn.IomapUpsert(node, ino, buf)
}

// repeats is how often the kernel is sent to its cache with one question.
const repeats = 3

// repeated says whether the kernel has been sent to its cache with the same
// question before, so that what it was told does not seem to stay there.
func (s *Server) repeated(node uint64, in *fuse.IomapBeginIn) bool {
	h := maphash.Comparable(s.iomap.seed, *in) ^ node<<8
	slot := &s.iomap.last[node%uint64(len(s.iomap.last))]
	const times = 1<<8 - 1
	old := slot.Load()
	n := old & times
	if old&^times != h&^times {
		n = 0
	}
	if n >= repeats {
		slot.Store(0)
		return true
	}
	slot.Store(h&^times | n + 1)
	return false
}

// renewMost is how many mappings are told anew after an fsync.
const renewMost = 16

// synced is called after an inode has been made durable. The kernel takes a
// mapping that is not committed for a reason to ask for an fsync, and not to swap
// to it, so what it was told is told anew. The error is of write-back before.
func (s *Server) synced(ip *ext2fs.Inode, node uint64) error {
	off, n := ip.TakeDirty()
	var buf fuse.IomapBeginOut
	for i, end := 0, off+n; off < end; i++ {
		next := int64(-1)
		if i < renewMost {
			next = s.renew(&buf, ip, node, off)
		}
		if next <= off {
			if err := s.conn.IomapInval(node, uint64(ip.Ino()), off, end-off); err != nil {
				s.log.Debug("forget mappings", "inode", ip.Ino(), "err", err)
			}
			break
		}
		off = next
	}
	return s.writebackError(ip.Ino())
}

// renew puts the mapping at off into the kernel's cache again, if it is of blocks
// with data, and returns where it ends; -1 if that could not be done.
func (s *Server) renew(buf *fuse.IomapBeginOut, ip *ext2fs.Inode, node uint64, off int64) int64 {
	ip.HoldMapping()
	defer ip.ReleaseMapping()
	m, ok := ip.MappingAround(0, off)
	if !ok {
		return -1
	}
	if m.Type == iomap.Mapped && s.upsert(buf, m, node, uint64(ip.Ino())) != 0 {
		return -1
	}
	return m.End()
}

// remapped drops cached mappings that an operation on n bytes at off has made
// wrong though they are not of these bytes. The kernel sees to the bytes.
func (s *Server) remapped(ip *ext2fs.Inode, node uint64, off, n int64) {
	if !s.iomap.on {
		return
	}
	if off, n = ip.Clusters(off, n); n == 0 {
		return
	}
	if err := s.conn.IomapInval(node, uint64(ip.Ino()), off, n); err != nil {
		s.log.Debug("forget mappings", "inode", ip.Ino(), "err", err)
	}
}

// squeezeNodes is how many inodes the kernel is asked to let go of at a time.
const squeezeNodes = 1024

// squeeze has the kernel drop inodes that it does not use, for what is reserved
// for writes that may not come.
func (s *Server) squeeze(inodes []ondisk.Ino) {
	nodes := make([]uint64, 0, min(len(inodes), squeezeNodes))
	for _, ino := range inodes[:min(len(inodes), squeezeNodes)] {
		nodes = append(nodes, s.toNode(ino))
	}
	if err := s.conn.Prune(nodes); err != nil {
		s.log.Debug("ask for inodes back", "err", err)
	}
}
