package iomappeer

import (
	"bytes"
	"slices"
	"syscall"
)

func cstr(b []byte) (string, []byte) {
	s, rest, _ := bytes.Cut(b, []byte{0})
	return string(s), rest
}

// handle answers one request.
func (s *refServer) handle(msg []byte) {
	var h inHeader
	b, _ := dec(msg, &h)
	u := h.Unique
	if s.enosys[h.Opcode] {
		s.reply(u, syscall.ENOSYS)
		return
	}
	switch h.Opcode {
	case opInterrupt:
		return
	case opInit:
		s.init(u, b)
		return
	case opIomapConfig:
		s.config(u, b)
		return
	case opIomapBegin:
		var in beginIn
		dec(b, &in)
		s.begin(u, h.NodeID, in)
		return
	case opIomapIOEnd:
		var in ioendIn
		dec(b, &in)
		s.ioend(u, h.NodeID, in)
		return
	case opIomapEnd:
		var in endIn
		dec(b, &in)
		if s.bug == "size by END only" && in.Written > 0 {
			s.mu.Lock()
			n := s.inodes[h.NodeID]
			n.size = max(n.size, int64(in.Pos)+in.Written)
			s.mu.Unlock()
		}
		s.reply(u, 0)
		return
	case opDestroy:
		// All that was opened has to be released first.
		s.mu.Lock()
		for s.open > 0 {
			s.released.Wait()
		}
		s.mu.Unlock()
		if s.bug != "DESTROY with the device open" {
			s.closed.Store(true)
		}
		s.reply(u, 0)
		return
	case opRelease:
		if s.bug == "RELEASE after DESTROY" {
			s.mu.Lock()
			s.open--
			s.mu.Unlock()
			go func() { <-s.stuck; s.reply(u, 0) }()
			return
		}
	case opFsync:
		if s.bug == "deadlock of IOEND" {
			s.mu.Lock()
			n := s.inodes[h.NodeID]
			s.mu.Unlock()
			n.mu.Lock()
			defer n.mu.Unlock()
			<-s.stuck
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.Opcode == opForget || h.Opcode == opBatchForget {
		if n := s.inodes[h.NodeID]; n != nil {
			var v uint64
			dec(b, &v)
			n.lookups -= min(v, n.lookups)
			s.reap(n)
		}
		return
	}
	n := s.inodes[h.NodeID]
	if n == nil {
		s.reply(u, syscall.ESTALE)
		return
	}
	s.named(h, n, b)
}

func (s *refServer) init(u uint64, b []byte) {
	var in initIn
	dec(b, &in)
	offered := uint64(in.Flags) | uint64(in.Flags2)<<32
	want := uint64(flagInitExt | flagPosixACL | flagAtomicOTrunc | flagReaddirplus | flagMaxPages | flagNoOpen | flagBigWrites |
		flagSetxattrExt)
	var sup iomapSupport
	arg := enc(sup)
	_, errno := s.d.Ioctl(iocIomapSupport, arg)
	dec(arg, &sup)
	s.mu.Lock()
	s.iomap = errno == 0 && sup.Flags&supportFileIO != 0 && in.Minor == minorIomap && offered&flagIomap != 0
	if s.bug == "bit 43 for stock" {
		s.iomap = offered&flagIomap != 0
	}
	if s.iomap {
		want |= flagIomap
	}
	s.mu.Unlock()
	flags := offered & want
	out := initOut{Major: 7, Minor: in.Minor, MaxReadahead: in.MaxReadahead, Flags: uint32(flags), Flags2: uint32(flags >> 32),
		MaxWrite: 1 << 20, TimeGran: 1, MaxPages: 256}
	if s.bug == "minor of the stock protocol" {
		out.Minor = 46
	}
	s.reply(u, 0, out)
}

func (s *refServer) config(u uint64, b []byte) {
	var in configIn
	dec(b, &in)
	id, errno := s.d.Ioctl(iocBackingOpen, enc(backingMap{FD: 7, Flags: backingIomap}))
	if errno != 0 {
		s.reply(u, errno)
		return
	}
	s.mu.Lock()
	s.devID = uint32(id)
	s.mu.Unlock()
	s.d.Ioctl(iocSetBlocksize, enc(backingInfo{uint32(id), uint32(s.bs)}))
	if _, errno := s.d.Ioctl(iocSetNofs, enc(uint32(1))); errno == 0 {
		s.nofs.Add(1)
	}
	out := configOut{Flags: (configUUID | configBlocksize | configTime | configMaxbytes) & in.Flags, UUIDLen: 16,
		Blocksize: uint32(s.bs), TimeGran: 1, TimeMin: -1 << 31, TimeMax: 1<<34 - 1<<31 - 1, MaxBytes: 1<<44 - s.bs}
	if s.bug == "config flags of the future" {
		out.Flags |= in.Flags &^ configAll
	}
	s.reply(u, 0, out)
}

func (s *refServer) child(dir *rinode, name string, mode uint32, h inHeader) *rinode {
	n := &rinode{ino: s.nextIno, mode: mode, nlink: 1, uid: h.UID, gid: h.GID, ext: map[int64]rext{},
		xattrs: map[string][]byte{}, parent: dir.ino}
	s.nextIno++
	switch mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		n.nlink = 2
		n.names = map[string]uint64{}
		dir.nlink++
	case syscall.S_IFREG:
		if s.inline > 0 && s.iomap {
			n.inline = []byte{}
		}
	}
	s.inodes[n.ino] = n
	if name == "" {
		n.nlink = 0
		return n
	}
	dir.names[name] = n.ino
	dir.order = append(dir.order, name)
	return n
}

// named answers the requests that change names and attributes. It holds s.mu.
func (s *refServer) named(h inHeader, n *rinode, b []byte) {
	u := h.Unique
	find := func(name string) *rinode { return s.inodes[n.names[name]] }
	open := openOut{OpenFlags: fopenKeepCache}
	switch h.Opcode {
	case opLookup:
		name, _ := cstr(b)
		c := find(name)
		if c == nil {
			s.reply(u, 0, entryOut{EntryValid: 1000})
			return
		}
		s.reply(u, 0, s.entry(c))
	case opGetattr:
		s.reply(u, 0, attrOut{AttrValid: 1000, Attr: s.attr(n)})
	case opStatx:
		var o statxOut
		o.Stat.Mask, o.Stat.Size, o.Stat.Mode = 0x7ff, uint64(n.size), uint16(n.mode)
		s.reply(u, 0, o)
	case opSetattr:
		s.setattr(u, n, b)
	case opCreate, opTmpfile, opMknod, opMkdir:
		mode, dev := uint32(0), uint32(0)
		var umask uint32
		switch h.Opcode {
		case opMkdir:
			var in mkdirIn
			b, _ = dec(b, &in)
			mode, umask = in.Mode|syscall.S_IFDIR, in.Umask
		case opMknod:
			var in mknodIn
			b, _ = dec(b, &in)
			mode, dev, umask = in.Mode, in.Rdev, in.Umask
		default:
			var in createIn
			b, _ = dec(b, &in)
			mode, umask = in.Mode, in.Umask
		}
		name, _ := cstr(b)
		if h.Opcode != opTmpfile && find(name) != nil {
			s.reply(u, syscall.EEXIST)
			return
		}
		if h.Opcode == opTmpfile {
			name = ""
		}
		if s.bug == "umask applied" {
			mode &^= umask
		}
		c := s.child(n, name, mode, h)
		c.rdev = dev
		if h.Opcode == opCreate || h.Opcode == opTmpfile {
			s.fhs++
			open.FH = s.fhs
			if !s.noOpen {
				c.opens++
				s.open++
			}
			s.reply(u, 0, s.entry(c), open)
			return
		}
		s.reply(u, 0, s.entry(c))
	case opSymlink:
		name, rest := cstr(b)
		target, _ := cstr(rest)
		c := s.child(n, name, syscall.S_IFLNK|0o777, h)
		c.target, c.size = target, int64(len(target))
		s.reply(u, 0, s.entry(c))
	case opReadlink:
		s.reply(u, 0, []byte(n.target))
	case opLink:
		var old uint64
		b, _ = dec(b, &old)
		name, _ := cstr(b)
		c := s.inodes[old]
		if find(name) != nil {
			s.reply(u, syscall.EEXIST)
			return
		}
		c.nlink++
		n.names[name] = c.ino
		n.order = append(n.order, name)
		s.reply(u, 0, s.entry(c))
	case opUnlink, opRmdir:
		name, _ := cstr(b)
		s.reply(u, s.unlink(n, name, h.Opcode == opRmdir))
	case opRename2:
		s.reply(u, s.rename(n, b))
	case opOpen, opOpendir:
		if s.noOpen && h.Opcode == opOpen {
			s.reply(u, syscall.ENOSYS)
			return
		}
		var in openIn
		dec(b, &in)
		if in.Flags&syscall.O_TRUNC != 0 {
			s.truncate(n, 0)
			if s.inline > 0 {
				n.inline = []byte{}
			}
		}
		s.fhs++
		open.FH = s.fhs
		n.opens++
		s.open++
		s.reply(u, 0, open)
	case opRelease, opReleasedir:
		n.opens--
		s.reap(n)
		s.reply(u, 0)
		s.open--
		s.released.Broadcast()
	case opRead:
		var in readIn
		dec(b, &in)
		s.reply(u, 0, s.readData(n, int64(in.Offset), int64(in.Size)))
	case opWrite:
		var in writeIn
		b, _ = dec(b, &in)
		if errno := s.writeData(n, b[:in.Size], int64(in.Offset)); errno != 0 {
			s.reply(u, errno)
			return
		}
		s.reply(u, 0, writeOut{Size: in.Size})
	case opReaddir, opReaddirplus:
		s.readdir(u, n, b, h.Opcode == opReaddirplus)
	case opFallocate:
		var in fallocateIn
		dec(b, &in)
		s.reply(u, s.fallocate(n, in))
	case opCopyRange64:
		var in copyRangeIn
		dec(b, &in)
		data := s.readData(n, int64(in.OffIn), int64(in.Len))
		if errno := s.writeData(s.inodes[in.NodeOut], data, int64(in.OffOut)); errno != 0 {
			s.reply(u, errno)
			return
		}
		s.reply(u, 0, uint64(len(data)))
	case opIoctl:
		var in ioctlIn
		b, _ = dec(b, &in)
		switch in.Cmd {
		case iocGetflags:
			s.reply(u, 0, ioctlOut{}, n.flags)
		case iocSetflags:
			if s.bug != "SETFLAGS does nothing" {
				dec(b, &n.flags)
			}
			s.reply(u, 0, ioctlOut{})
		default:
			s.reply(u, syscall.ENOTTY)
		}
	case opSetxattr:
		var in setxattrExtIn
		b, _ = dec(b, &in)
		name, rest := cstr(b)
		n.xattrs[name] = slices.Clone(rest[:in.Size])
		s.reply(u, 0)
	case opGetxattr:
		var in getxattrIn
		b, _ = dec(b, &in)
		name, _ := cstr(b)
		v, ok := n.xattrs[name]
		if !ok {
			s.reply(u, syscall.ENODATA)
			return
		}
		s.reply(u, 0, v)
	case opRemovexattr:
		name, _ := cstr(b)
		delete(n.xattrs, name)
		s.reply(u, 0)
	case opListxattr:
		var out []byte
		for name := range n.xattrs {
			out = append(append(out, name...), 0)
		}
		s.reply(u, 0, out)
	case opStatfs:
		s.reply(u, 0, Statfs{Blocks: uint64(s.blocks), Bsize: uint32(s.bs)})
	case opFsync, opFsyncdir, opSyncfs:
		if s.meta != nil {
			s.meta.Sync()
		}
		s.dev.Sync()
		s.reply(u, 0)
	case opFlush, opFreezeFS, opUnfreezeFS, opShutdownFS:
		s.reply(u, 0)
	default:
		if s.bug == "EIO for unknown opcodes" {
			s.reply(u, syscall.EIO)
			return
		}
		s.reply(u, syscall.ENOSYS)
	}
}

func (s *refServer) setattr(u uint64, n *rinode, b []byte) {
	var in setattrIn
	dec(b, &in)
	if in.Valid&fattrSize != 0 {
		if errno := s.truncate(n, int64(in.Size)); errno != 0 {
			s.reply(u, errno)
			return
		}
	}
	if in.Valid&fattrMode != 0 {
		n.mode = n.mode&^0o7777 | in.Mode&0o7777
	}
	if in.Valid&fattrUID != 0 {
		n.uid = in.UID
	}
	if in.Valid&fattrGID != 0 {
		n.gid = in.GID
	}
	if s.bug != "times of its own" {
		if in.Valid&fattrAtime != 0 {
			n.times[0] = stamp(in.Atime, in.AtimeNsec)
		}
		if in.Valid&fattrMtime != 0 {
			n.times[1] = stamp(in.Mtime, in.MtimeNsec)
		}
		if in.Valid&fattrCtime != 0 {
			n.times[2] = stamp(in.Ctime, in.CtimeNsec)
		}
	}
	out := attrOut{AttrValid: 1000, Attr: s.attr(n)}
	if s.bug == "reserved word set" {
		out.Dummy = 1
	}
	s.reply(u, 0, out)
}

func (s *refServer) unlink(dir *rinode, name string, rmdir bool) syscall.Errno {
	c := s.inodes[dir.names[name]]
	switch {
	case c == nil:
		return syscall.ENOENT
	case rmdir && c.names == nil:
		return syscall.ENOTDIR
	case rmdir && len(c.names) > 0:
		return syscall.ENOTEMPTY
	}
	delete(dir.names, name)
	dir.order = slices.DeleteFunc(dir.order, func(x string) bool { return x == name })
	s.dropLink(dir, c)
	if s.meta != nil {
		// A folder's or inode's block of metadata is freed, dirty in the cache.
		if b := s.alloc(); b >= 0 {
			s.meta.WriteAt(bytes.Repeat([]byte{0x4d}, int(s.bs)), b*s.bs)
			s.used[b] = false
			s.hint = b - 1
		}
	}
	return 0
}

func (s *refServer) dropLink(dir, c *rinode) {
	if c.names != nil {
		c.nlink = 0
		dir.nlink--
	} else {
		c.nlink--
	}
	s.reap(c)
}

func (s *refServer) rename(from *rinode, b []byte) syscall.Errno {
	var in rename2In
	b, _ = dec(b, &in)
	name, b := cstr(b)
	newName, _ := cstr(b)
	to := s.inodes[in.NewDir]
	c := s.inodes[from.names[name]]
	old := s.inodes[to.names[newName]]
	switch {
	case c == nil:
		return syscall.ENOENT
	case in.Flags&RenameNoreplace != 0 && old != nil:
		return syscall.EEXIST
	case in.Flags&RenameExchange != 0:
		if old == nil {
			return syscall.ENOENT
		}
		from.names[name], to.names[newName] = old.ino, c.ino
		return 0
	case old != nil && old.names != nil && len(old.names) > 0:
		return syscall.ENOTEMPTY
	}
	delete(from.names, name)
	from.order = slices.DeleteFunc(from.order, func(x string) bool { return x == name })
	if old != nil {
		s.dropLink(to, old)
	} else {
		to.order = append(to.order, newName)
	}
	to.names[newName] = c.ino
	return 0
}

func (s *refServer) readdir(u uint64, n *rinode, b []byte, plus bool) {
	var in readIn
	dec(b, &in)
	var out []byte
	for i := int(in.Offset); i < len(n.order); i++ {
		name := n.order[i]
		c := s.inodes[n.names[name]]
		rec := enc(dirent{Ino: c.ino, Off: uint64(i + 1), Namelen: uint32(len(name)), Type: c.mode >> 12}, []byte(name),
			make([]byte, (8-len(name)%8)%8))
		if plus {
			if len(out)+128+len(rec) > int(in.Size) {
				break
			}
			rec = append(enc(s.entry(c)), rec...)
		}
		if len(out)+len(rec) > int(in.Size) {
			break
		}
		out = append(out, rec...)
	}
	s.reply(u, 0, out)
}
