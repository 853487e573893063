package iomappeer

import "syscall"

// A File is an open file.
type File struct {
	in     *Inode
	fh     uint64
	flags  uint32 // of open(2)
	opened bool   // the server gave a handle
	direct bool   // FOPEN_DIRECT_IO
	closed bool
	noFl   bool
}

// Inode returns the file's inode.
func (h *File) Inode() *Inode { return h.in }

func (h *File) handle() uint64 {
	if h == nil {
		return 0
	}
	return h.fh
}

// Open is open(2) of an inode that was looked up.
func (k *Kernel) Open(in *Inode, flags uint32) (*File, syscall.Errno) {
	if errno := in.usable(); errno != 0 {
		return nil, errno
	}
	t := k.task("open")
	if in.exclusive && flags&syscall.O_ACCMODE != 0 {
		in.mu.Lock()
		fl := in.flags
		in.mu.Unlock()
		if fl&attrImmutable != 0 || fl&attrAppend != 0 && flags&syscall.O_APPEND == 0 {
			return nil, syscall.EPERM
		}
	}
	trunc := flags&syscall.O_TRUNC != 0
	atomic := trunc && k.initFlags&flagAtomicOTrunc != 0
	h := &File{in: in, flags: flags}
	op := uint32(opOpen)
	if in.dir {
		op = opOpendir
	}
	in.mu.Lock()
	if in.dead {
		in.mu.Unlock()
		return nil, syscall.ESTALE
	}
	in.opens++
	in.leaving = false
	in.mu.Unlock()
	fail := func(errno syscall.Errno) (*File, syscall.Errno) {
		in.mu.Lock()
		in.opens--
		in.mu.Unlock()
		return nil, errno
	}
	sent := flags &^ (syscall.O_CREAT | syscall.O_EXCL | syscall.O_NOCTTY)
	if !atomic {
		sent &^= syscall.O_TRUNC
	}
	if !k.unsupported(op) {
		var out openOut
		var errno syscall.Errno
		call := func() { errno = k.callInto(t, op, in.nodeid, &out, openIn{Flags: sent}) }
		if atomic {
			in.rwsem.Lock()
			in.invalidate.Lock()
			in.pages.drop(0, maxLFS, k.folioSize())
			in.frees(0, maxLFS, func() {
				if call(); errno == 0 {
					in.known.forget(0, maxLFS)
				}
			})
			if errno == 0 {
				in.truncated()
			}
			in.invalidate.Unlock()
			in.rwsem.Unlock()
		} else {
			call()
		}
		noOpen := op == opOpen && k.initFlags&flagNoOpen != 0 || op == opOpendir && k.initFlags&flagNoOpendir != 0
		switch {
		case errno == syscall.ENOSYS && noOpen:
			k.setUnsupported(op)
			out.OpenFlags = fopenKeepCache
			atomic = false
		case errno != 0:
			return fail(errno)
		default:
			h.fh, h.opened = out.FH, true
		}
		if errno := h.took(out.OpenFlags); errno != 0 {
			h.release(t)
			return fail(errno)
		}
	} else {
		atomic = false
	}
	if trunc && !atomic && !in.dir {
		in.rwsem.Lock()
		errno := in.truncate(t, 0, h)
		in.rwsem.Unlock()
		if errno != 0 {
			h.Close()
			return nil, errno
		}
	}
	return h, 0
}

// truncated is what the kernel does after an OPEN that truncated.
func (in *Inode) truncated() {
	in.mu.Lock()
	in.isize, in.diskSize, in.sizeLimit = 0, 0, 0
	in.mu.Unlock()
	in.model.truncate(0)
	in.cache.drop(0, maxLFS, in.k.bs)
	in.touch(true, true, false)
}

// took looks at the flags of an OPEN reply.
func (h *File) took(flags uint32) syscall.Errno {
	k := h.in.k
	if h.in.iomap {
		bad := uint32(fopenPassthrough | fopenStream | fopenNonseekable)
		if !k.expect("A1", flags&bad == 0, h.in, "OPEN is answered with flags %#x, which iomap files cannot have", flags) {
			return syscall.EINVAL
		}
		if flags&fopenKeepCache == 0 {
			if errno := h.in.writeback(k.task("open"), 0, maxLFS); errno == 0 {
				h.in.pages.dropClean()
			}
		}
	}
	h.direct = flags&fopenDirectIO != 0
	h.noFl = flags&fopenNoFlush != 0
	return 0
}

// release sends RELEASE, whose reply nobody waits for.
func (h *File) release(t *task) {
	k := h.in.k
	if !h.opened {
		return
	}
	op := uint32(opRelease)
	if h.in.dir {
		op = opReleasedir
	}
	r := &request{op: op, node: h.in.nodeid, reply: true}
	k.releases.Add(1)
	if errno := k.post(t, r, releaseIn{FH: h.fh, Flags: h.flags}); errno != 0 {
		k.releases.Add(-1)
		return
	}
}

// Close is close(2) of the last descriptor.
func (h *File) Close() syscall.Errno {
	if h.closed {
		return syscall.EBADF
	}
	h.closed = true
	k, in := h.in.k, h.in
	t := k.task("close")
	var errno syscall.Errno
	if !in.dir && h.flags&syscall.O_ACCMODE != 0 && in.usable() == 0 {
		in.mu.Lock()
		unlinked := in.nlink == 0
		in.mu.Unlock()
		if in.iomap && !unlinked {
			errno = in.writeInode(t)
		}
	}
	if !in.dir && h.opened && !h.noFl && !k.unsupported(opFlush) {
		_, e := k.call(t, opFlush, in.nodeid, 0, 0, flushIn{FH: h.fh})
		if e == syscall.ENOSYS {
			k.setUnsupported(opFlush)
		} else if errno == 0 {
			errno = e
		}
	}
	in.mu.Lock()
	in.opens--
	last := in.opens == 0 && in.nlink == 0
	in.mu.Unlock()
	if last {
		// From here on nobody can reach it: the server may free its blocks.
		in.pages.drop(0, maxLFS, k.folioSize())
		in.freeGen.Add(1)
		k.claims.release(in, 0, maxLFS)
		k.removes.Add(-1)
	}
	h.release(t)
	in.dropIfUnused(t)
	return errno
}

// enter begins a change of a file: it waits while the file system is frozen.
func (h *File) enter() syscall.Errno {
	h.in.k.frozen.RLock()
	errno := h.in.usable()
	if errno == 0 && h.in.dir {
		errno = syscall.EISDIR
	}
	if errno != 0 {
		h.in.k.frozen.RUnlock()
	}
	return errno
}

func (h *File) leave() { h.in.k.frozen.RUnlock() }

// Write is pwrite(2). It goes through the page cache, or directly where the server
// has said so in OPEN.
func (h *File) Write(p []byte, pos int64) (int, syscall.Errno) {
	if h.direct && h.in.iomap {
		return h.writeDirect(p, pos, 0, true)
	}
	return h.writeBuffered(p, pos, 0)
}

// WriteSync is pwrite(2) with RWF_SYNC.
func (h *File) WriteSync(p []byte, pos int64) (int, syscall.Errno) {
	n, errno := h.writeBuffered(p, pos, 0)
	if errno == 0 && h.in.iomap {
		mark := h.in.model.mark()
		if errno = h.in.syncRange(h.in.k.task("write sync"), 0, maxLFS); errno == 0 {
			h.in.model.durableTo(mark)
		}
	}
	return n, errno
}

func (h *File) writeBuffered(p []byte, pos int64, op Op) (int, syscall.Errno) {
	if errno := h.enter(); errno != 0 {
		return 0, errno
	}
	defer h.leave()
	in := h.in
	in.rwsem.Lock()
	defer in.rwsem.Unlock()
	if h.flags&syscall.O_APPEND != 0 {
		pos = in.Size()
	}
	if pos+int64(len(p)) > in.k.maxbytes || pos+int64(len(p)) < pos {
		return 0, syscall.EFBIG
	}
	t := in.k.task("write")
	if !in.iomap {
		return h.plainWrite(t, p, pos)
	}
	return in.bwrite(t, p, pos, op)
}

// DWrite is pwrite(2) with O_DIRECT.
func (h *File) DWrite(p []byte, pos int64) (int, syscall.Errno) {
	return h.writeDirect(p, pos, 0, h.direct)
}

// AtomicWrite is pwritev2(2) with O_DIRECT and RWF_ATOMIC: one aligned block.
func (h *File) AtomicWrite(p []byte, pos int64) (int, syscall.Errno) {
	return h.writeDirect(p, pos, OpAtomic, h.direct)
}

func (h *File) writeDirect(p []byte, pos int64, op Op, forced bool) (int, syscall.Errno) {
	if errno := h.enter(); errno != 0 {
		return 0, errno
	}
	defer h.leave()
	in := h.in
	in.rwsem.Lock()
	defer in.rwsem.Unlock()
	if pos+int64(len(p)) > in.k.maxbytes {
		return 0, syscall.EFBIG
	}
	t := in.k.task("direct write")
	if !in.iomap {
		return h.plainWrite(t, p, pos)
	}
	return in.dwrite(t, p, pos, op, forced)
}

// Read is pread(2).
func (h *File) Read(p []byte, pos int64) (int, syscall.Errno) {
	if errno := h.in.usable(); errno != 0 {
		return 0, errno
	}
	t := h.in.k.task("read")
	switch {
	case h.in.dir:
		return 0, syscall.EISDIR
	case !h.in.iomap:
		return h.plainRead(t, p, pos)
	case h.direct:
		return h.in.dread(t, p, pos, true)
	}
	return h.in.bread(t, p, pos)
}

// DRead is pread(2) with O_DIRECT.
func (h *File) DRead(p []byte, pos int64) (int, syscall.Errno) {
	if errno := h.in.usable(); errno != 0 {
		return 0, errno
	}
	t := h.in.k.task("direct read")
	if !h.in.iomap {
		return h.plainRead(t, p, pos)
	}
	return h.in.dread(t, p, pos, h.direct)
}

// MmapWrite stores through a shared mapping of memory. Storing behind the end of
// the file is EFAULT.
func (h *File) MmapWrite(p []byte, pos int64) syscall.Errno {
	if errno := h.enter(); errno != 0 {
		return errno
	}
	defer h.leave()
	if !h.in.iomap {
		return syscall.ENODEV
	}
	return h.in.mmapWrite(h.in.k.task("mmap write"), p, pos)
}

// Truncate is ftruncate(2).
func (h *File) Truncate(size int64) syscall.Errno {
	if errno := h.enter(); errno != 0 {
		return errno
	}
	defer h.leave()
	h.in.rwsem.Lock()
	defer h.in.rwsem.Unlock()
	return h.in.truncate(h.in.k.task("truncate"), size, h)
}

// Fallocate is fallocate(2).
func (h *File) Fallocate(mode uint32, off, n int64) syscall.Errno {
	if errno := h.enter(); errno != 0 {
		return errno
	}
	defer h.leave()
	h.in.rwsem.Lock()
	defer h.in.rwsem.Unlock()
	return h.in.fallocate(h.in.k.task("fallocate"), mode, off, n, h)
}

// CopyTo is copy_file_range(2) from h to dst.
func (h *File) CopyTo(dst *File, offIn, offOut, n int64) (int64, syscall.Errno) {
	if errno := dst.enter(); errno != 0 {
		return 0, errno
	}
	defer dst.leave()
	if h.in == dst.in && offIn < offOut+n && offOut < offIn+n {
		return 0, syscall.EINVAL
	}
	if h.in != dst.in {
		// The source must not change meanwhile, or the model would not know what
		// was copied.
		a, b := h.in, dst.in
		if a.nodeid < b.nodeid {
			a.rwsem.RLock()
			b.rwsem.Lock()
		} else {
			b.rwsem.Lock()
			a.rwsem.RLock()
		}
		defer a.rwsem.RUnlock()
		defer b.rwsem.Unlock()
	} else {
		dst.in.rwsem.Lock()
		defer dst.in.rwsem.Unlock()
	}
	n = min(n, h.in.Size()-offIn)
	if n <= 0 {
		return 0, 0
	}
	return dst.in.copyRange(dst.in.k.task("copy"), h.in, h, dst, offIn, offOut, n)
}

// Fsync is fsync(2) or fdatasync(2).
func (h *File) Fsync(dataOnly bool) syscall.Errno {
	if errno := h.in.usable(); errno != 0 {
		return errno
	}
	return h.in.fsync(h.in.k.task("fsync"), h.fh, dataOnly)
}

// Writeback writes dirty pages back, as the flusher does.
func (k *Kernel) Writeback(in *Inode) syscall.Errno {
	if errno := in.usable(); errno != 0 {
		return errno
	}
	return in.writeback(k.task("writeback"), 0, maxLFS)
}

// plainWrite writes by WRITE requests, as to files without iomap.
func (h *File) plainWrite(t *task, p []byte, pos int64) (int, syscall.Errno) {
	in, k := h.in, h.in.k
	for done := 0; done < len(p); {
		n := min(len(p)-done, k.maxWrite)
		at := pos + int64(done)
		var out writeOut
		errno := k.callInto(t, opWrite, in.nodeid, &out, writeIn{FH: h.fh, Offset: uint64(at), Size: uint32(n), Flags: h.flags},
			p[done:done+n])
		if errno != 0 {
			in.model.fail(at, at+int64(n))
			return done, errno
		}
		if int(out.Size) > n || out.Size == 0 {
			k.violate("A1", in, "WRITE of %d bytes is answered by %d", n, out.Size)
			return done, syscall.EIO
		}
		k.expect("A16", out.Padding == 0, in, "WRITE reply has padding %#x", out.Padding)
		in.model.write(p[done:done+int(out.Size)], at)
		done += int(out.Size)
		in.mu.Lock()
		in.isize = max(in.isize, at+int64(out.Size))
		in.mu.Unlock()
	}
	return len(p), 0
}

// plainRead reads by READ requests.
func (h *File) plainRead(t *task, p []byte, pos int64) (int, syscall.Errno) {
	in, k := h.in, h.in.k
	in.rwsem.RLock()
	defer in.rwsem.RUnlock()
	want := min(int64(len(p)), in.Size()-pos)
	if want <= 0 {
		return 0, 0
	}
	for done := int64(0); done < want; {
		n := min(want-done, int64(k.cfg.MaxPages)*pageSize)
		b, errno := k.call(t, opRead, in.nodeid, 0, int(n), readIn{FH: h.fh, Offset: uint64(pos + done), Size: uint32(n)})
		if errno != 0 {
			return int(done), errno
		}
		copy(p[done:], b)
		in.compare("read", p[done:done+int64(len(b))], pos+done)
		done += int64(len(b))
		if int64(len(b)) < n {
			k.expect("DATA", done == want, in, "READ at %d ends at %d, but the file has %d bytes", pos, pos+done, in.Size())
			return int(done), 0
		}
	}
	return int(want), 0
}
