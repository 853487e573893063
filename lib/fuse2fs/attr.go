package fuse2fs

import (
	"math"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fuse"
)

func (s *Server) getattr(r *fuse.Request) {
	ip := s.node(r)
	if ip == nil {
		return
	}
	out := fuse.Out[fuse.AttrOut](r)
	out.AttrValid = cacheForever
	s.fillAttr(&out.Attr, ip)
	ip.Put()
	r.Reply(0)
}

// setattr changes what in.Valid names, in one transaction.
func (s *Server) setattr(r *fuse.Request) {
	in, ok := fuse.In[fuse.SetattrIn](r)
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	var a ext2fs.Attr
	ip.Attr(&a)
	own := s.iomap.on && s.iomapFlags(&a) != 0 // the kernel's
	var set ext2fs.SetAttr
	if !own && in.Valid&^(fuse.FattrFh|fuse.FattrLockowner) == fuse.FattrCtime {
		// What the kernel makes of a chown to no one, which is for the owner.
		set.Valid |= ext2fs.SetKillPriv
		if r.UID() != 0 && r.UID() != a.UID && a.Mode&(ondisk.ModeSUID|ondisk.ModeSGID) != 0 {
			r.ReplyErr(syscall.EPERM)
			return
		}
	}
	if in.Valid&fuse.FattrMode != 0 {
		set.Valid |= ext2fs.SetMode
		set.Mode = uint16(in.Mode)
	}
	if in.Valid&fuse.FattrUID != 0 {
		set.Valid |= ext2fs.SetUID
		set.UID = in.UID
	}
	if in.Valid&fuse.FattrGID != 0 {
		set.Valid |= ext2fs.SetGID
		set.GID = in.GID
	}
	if in.Valid&fuse.FattrSize != 0 {
		set.Valid |= ext2fs.SetSize
		set.Size = int64(in.Size)
	}
	if in.Valid&fuse.FattrKillSuidgid != 0 {
		set.Valid |= ext2fs.SetKillPriv
	}
	if own || in.Valid&^(fuse.FattrFh|fuse.FattrLockowner) == fuse.FattrMtime|fuse.FattrCtime {
		// The times that the kernel has kept of a file; or it knows the flags of
		// the inode and has seen to what they forbid.
		set.Valid |= ext2fs.SetFlush
	}
	var now ondisk.Time
	if in.Valid&(fuse.FattrAtimeNow|fuse.FattrMtimeNow) != 0 {
		set.Valid |= ext2fs.SetTouch
		now = s.fs.Now()
	}
	switch {
	case in.Valid&fuse.FattrAtimeNow != 0:
		set.Valid |= ext2fs.SetAtime
		set.Atime = now
	case in.Valid&fuse.FattrAtime != 0:
		set.Valid |= ext2fs.SetAtime
		set.Atime = ondisk.Time{Sec: int64(in.Atime), Nsec: in.Atimensec}
	}
	switch {
	case in.Valid&fuse.FattrMtimeNow != 0:
		set.Valid |= ext2fs.SetMtime
		set.Mtime = now
	case in.Valid&fuse.FattrMtime != 0:
		set.Valid |= ext2fs.SetMtime
		set.Mtime = ondisk.Time{Sec: int64(in.Mtime), Nsec: in.Mtimensec}
	}
	if in.Valid&fuse.FattrCtime != 0 {
		set.Valid |= ext2fs.SetCtime
		set.Ctime = ondisk.Time{Sec: int64(in.Ctime), Nsec: in.Ctimensec}
	}
	err := ip.Setattr(&set)
	if set.Valid&ext2fs.SetSize != 0 {
		s.remapped(ip, r.NodeID(), set.Size, math.MaxInt64-set.Size)
	}
	if err != nil {
		s.fail(r, err)
		return
	}
	out := fuse.Out[fuse.AttrOut](r)
	out.AttrValid = cacheForever
	s.fillAttr(&out.Attr, ip)
	r.Reply(0)
}

// statx serves what GETATTR cannot say: the time of birth.
func (s *Server) statx(r *fuse.Request) {
	const (
		basicStats = 0x07ff // STATX_BASIC_STATS
		btime      = 0x0800 // STATX_BTIME
	)
	ip := s.node(r)
	if ip == nil {
		return
	}
	var a ext2fs.Attr
	ip.Attr(&a)
	ip.Put()
	time := func(t ondisk.Time) fuse.SxTime { return fuse.SxTime{Sec: t.Sec, Nsec: t.Nsec} }
	out := fuse.Out[fuse.StatxOut](r)
	out.AttrValid = cacheForever
	out.Stat = fuse.Statx{
		Mask: basicStats, Blksize: s.bsize, Nlink: a.Nlink, UID: a.UID, GID: a.GID, Mode: a.Mode,
		Ino: uint64(a.Ino), Size: uint64(a.Size), Blocks: a.Blocks,
		Atime: time(a.Atime), Ctime: time(a.Ctime), Mtime: time(a.Mtime),
		RdevMajor: a.Rdev >> 8 & 0xfff, RdevMinor: a.Rdev&0xff | a.Rdev>>12&0xfff00,
	}
	if a.HasCrtime {
		out.Stat.Mask |= btime
		out.Stat.Btime = time(a.Crtime)
	}
	if s.iomap.on {
		s.statxIO(&out.Stat, &a)
	}
	if s.cfg.UID != nil {
		out.Stat.UID = *s.cfg.UID
	}
	if s.cfg.GID != nil {
		out.Stat.GID = *s.cfg.GID
	}
	r.Reply(0)
}

func (s *Server) statfs(r *fuse.Request) {
	st := s.fs.Statfs()
	out := fuse.Out[fuse.StatfsOut](r)
	out.St = fuse.Kstatfs{
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail,
		Files: st.Files, Ffree: st.Ffree,
		Bsize: s.bsize, Frsize: s.bsize, Namelen: ondisk.NameLen,
	}
	r.Reply(0)
}
