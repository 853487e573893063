package fuse2fs

import (
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fuse"
)

// dtypes are the DT_ numbers of a directory entry's file types.
var dtypes = [...]uint32{syscall.DT_UNKNOWN, syscall.DT_REG, syscall.DT_DIR, syscall.DT_CHR,
	syscall.DT_BLK, syscall.DT_FIFO, syscall.DT_SOCK, syscall.DT_LNK}

func dtype(ft uint8) uint32 {
	if int(ft) >= len(dtypes) {
		return syscall.DT_UNKNOWN
	}
	return dtypes[ft]
}

func (s *Server) readdir(r *fuse.Request) {
	s.list(r, 0, func(buf, name []byte, ino ondisk.Ino, ft uint8, next uint64) ([]byte, bool) {
		return fuse.AppendDirent(buf, uint64(ino), next, dtype(ft), name)
	})
}

// A folder of more than largeDir bytes is listed with the attributes of no more
// than firstPlus bytes of entries at first. The kernel always asks for attributes
// at the start of a folder, and goes on to do so if they are used; to read the
// inodes takes much longer than the names.
const (
	largeDir  = 64 << 10
	firstPlus = 4 << 10
)

// readdirplus lists entries with their attributes, each a lookup.
func (s *Server) readdirplus(r *fuse.Request) {
	var held []ondisk.Ino
	err := s.list(r, firstPlus, func(buf, name []byte, ino ondisk.Ino, ft uint8, next uint64) ([]byte, bool) {
		buf, entry := fuse.AppendDirentplus(buf, uint64(ino), next, dtype(ft), name)
		if entry == nil {
			return buf, false
		}
		if len(name) <= 2 && name[0] == '.' && name[len(name)-1] == '.' {
			return buf, true // "." and ".." are listed without a lookup
		}
		// An inode that cannot be read is listed without attributes: looking
		// it up will tell why.
		if ip, err := s.fs.Iget(ino); err == nil {
			s.fillEntry(entry, ip)
			held = append(held, ino)
			ip.Put()
		}
		return buf, true
	})
	if err != nil { // nobody took the answer
		for _, ino := range held {
			s.release(s.toNode(ino), 1)
		}
	}
}

// list answers with the entries from the cookie in.Offset on that add finds
// room for; if first is not 0, in first bytes at the start of a large folder. It
// returns an error if the answer was not taken.
func (s *Server) list(r *fuse.Request, first int, add func(buf, name []byte, ino ondisk.Ino, ft uint8, next uint64) ([]byte, bool)) error {
	in, ok := fuse.In[fuse.ReadIn](r)
	if !ok {
		return r.ReplyErr(syscall.EINVAL)
	}
	dp := s.node(r)
	if dp == nil {
		return nil
	}
	defer dp.Put()
	buf := r.OutBuf(int(in.Size))[:0]
	if first != 0 && in.Offset == 0 && dp.Size() > largeDir {
		buf = buf[:0:min(first, cap(buf))]
	}
	err := s.fs.Readdir(dp, in.Offset, func(name []byte, ino ondisk.Ino, ft uint8, next uint64) bool {
		var ok bool
		buf, ok = add(buf, name, ino, ft, next)
		return ok
	})
	if err != nil && len(buf) == 0 {
		s.fail(r, err)
		return nil
	}
	s.accessed(dp, s.cfg.DirAtime, in.Flags)
	return r.Reply(len(buf))
}
