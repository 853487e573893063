package iomappeer

import "syscall"

// fill reads the blocks [a, b) of a locked folio that are not up to date from
// where m says they lie.
func (k *Kernel) fill(f *folio, m *Mapping, a, b int64) syscall.Errno {
	off := f.idx * k.folioSize()
	for i := a / k.bs; i*k.bs < b; i++ {
		if f.uptodate[i] {
			continue
		}
		p := f.data[i*k.bs : (i+1)*k.bs]
		if m.Flags&FlagNew != 0 {
			clear(p)
		} else if errno := k.readDev(m, off+i*k.bs, p); errno != 0 {
			return errno
		}
		f.uptodate[i] = true
	}
	return 0
}

func (f *folio) allUptodate() bool {
	for _, u := range f.uptodate {
		if !u {
			return false
		}
	}
	return true
}

// readFolios makes locked folios, which follow each other, up to date.
func (in *Inode) readFolios(t *task, fs []*folio, op Op) syscall.Errno {
	k := in.k
	n := k.folioSize()
	from, to := fs[0].idx*n, (fs[len(fs)-1].idx+1)*n
	if to > k.maxbytes {
		to = roundUp(k.maxbytes, k.bs)
	}
	isize := in.Size()
	_, errno := in.iterate(t, op, from, to-from, func(s *step) (int64, bool, bool, syscall.Errno) {
		m := s.from()
		var inline []byte
		if m.Type == TypeInline {
			var errno syscall.Errno
			if inline, errno = in.readInline(t, m); errno != 0 {
				return 0, false, false, errno
			}
		}
		for _, f := range fs {
			off := f.idx * n
			a, b := max(s.pos-off, 0), min(s.pos+s.count-off, n)
			if a >= b {
				continue
			}
			if inline != nil {
				if !f.uptodate[a/k.bs] {
					copy(f.data[a:b], inline[off+a-int64(m.Offset):])
					f.uptodate[a/k.bs] = true
				}
				continue
			}
			// What lies behind the end of the file is zeros, whatever is on disk.
			for i := a / k.bs; i*k.bs < b; i++ {
				if off+i*k.bs >= isize && !f.uptodate[i] {
					clear(f.data[i*k.bs : (i+1)*k.bs])
					f.uptodate[i] = true
				}
			}
			if errno := k.fill(f, m, a, b); errno != 0 {
				return 0, false, false, errno
			}
			if end := isize - off; end > 0 && end < n {
				for i := end / k.bs; i < int64(len(f.dirty)); i++ {
					if !f.dirty[i] {
						clear(f.data[max(end, i*k.bs) : (i+1)*k.bs])
					}
				}
			}
		}
		return s.count, false, false, 0
	})
	return errno
}

// bread is read(2) through the page cache.
func (in *Inode) bread(t *task, p []byte, pos int64) (int, syscall.Errno) {
	k := in.k
	in.rwsem.RLock()
	defer in.rwsem.RUnlock()
	n := min(int64(len(p)), in.Size()-pos)
	if n <= 0 {
		return 0, 0
	}
	in.touch(false, false, true)
	size := k.folioSize()
	for done := int64(0); done < n; {
		at := pos + done
		f := k.lockFolio(in, at/size)
		if !f.allUptodate() {
			fs := []*folio{f}
			for len(fs) < k.cfg.ReadAhead && (f.idx+int64(len(fs)))*size < in.Size() {
				idx := f.idx + int64(len(fs))
				if in.pages.lookup(idx) != nil {
					break
				}
				fs = append(fs, k.lockFolio(in, idx))
			}
			errno := in.readFolios(t, fs, 0)
			for _, g := range fs[1:] {
				g.mu.Unlock()
			}
			if errno != 0 {
				f.mu.Unlock()
				return int(done), errno
			}
		}
		c := int64(copy(p[done:n], f.data[at%size:]))
		in.compare("read", p[done:done+c], at)
		f.mu.Unlock()
		done += c
	}
	return int(n), 0
}

// compare checks bytes that were read against the model. The caller keeps both
// from changing.
func (in *Inode) compare(how string, p []byte, pos int64) {
	k := in.k
	k.eval("DATA")
	off, want := in.model.diff(p, pos)
	if off < 0 {
		return
	}
	check := "DATA"
	if k.cfg.NoEnd {
		check = "A11"
	}
	m, _, _, cached, _ := in.cache.lookup(k.prof, 0, off)
	k.violate(check, in, "%s of [%d,+%d): byte %d is %#02x, but %#02x was written; the mapping cache has %v (%v), the server says %s", how, pos,
		len(p), off, p[off-pos], want, m, cached, in.whereabouts(off))
}

// bwrite is write(2) through the page cache. The caller holds rwsem.
func (in *Inode) bwrite(t *task, p []byte, pos int64, op Op) (int, syscall.Errno) {
	if errno := in.zeroToPos(t, pos); errno != 0 {
		return 0, errno
	}
	in.stripSuid(t)
	in.touch(true, true, false)
	n, errno := in.iterate(t, OpWrite|op, pos, int64(len(p)), func(s *step) (int64, bool, bool, syscall.Errno) {
		return in.copyIn(t, s, p[s.pos-pos:][:s.count])
	})
	if errno == 0 && n < int64(len(p)) {
		errno = syscall.EIO
	}
	return int(n), errno
}

// zeroToPos zeroes what a write behind the end of the file leaves between.
func (in *Inode) zeroToPos(t *task, pos int64) syscall.Errno {
	isize := in.Size()
	if pos <= isize {
		return 0
	}
	in.invalidate.Lock()
	defer in.invalidate.Unlock()
	return in.zero(t, isize, pos)
}

// stripSuid takes the set-id bits away, as writing by anybody but root does.
func (in *Inode) stripSuid(t *task) {
	in.mu.Lock()
	mode := in.mode
	in.mu.Unlock()
	if t.cred.UID == 0 || mode&0o6000 == 0 {
		return
	}
	mode &^= syscall.S_ISUID
	if mode&0o010 != 0 {
		mode &^= syscall.S_ISGID
	}
	in.setattr(t, setattrIn{Valid: fattrMode, Mode: mode})
}

// copyIn puts the bytes of one step of a write into the page cache.
func (in *Inode) copyIn(t *task, s *step, p []byte) (n int64, grew, stale bool, errno syscall.Errno) {
	k := in.k
	size := k.folioSize()
	if s.dst.Type == TypeInline {
		return in.copyInline(t, s, p)
	}
	if k.fault(k.cfg.Faults.Stale) && s.cookie != 0 {
		return 0, false, true, 0
	}
	limit := s.count
	if limit > 1 && k.fault(k.cfg.Faults.ShortCopy) {
		limit = 1 + int64(k.intn(int(limit-1)))
	}
	for n < limit {
		at := s.pos + n
		f := k.lockFolio(in, at/size)
		if !in.cache.valid(s.cookie) {
			f.mu.Unlock()
			return n, grew, true, 0
		}
		a := at % size
		b := min(size, a+limit-n)
		if errno = in.prepare(f, s.from(), a, b); errno != 0 {
			f.mu.Unlock()
			return n, grew, false, errno
		}
		copy(f.data[a:b], p[n:])
		for i := a / k.bs; i*k.bs < b; i++ {
			f.uptodate[i], f.dirty[i] = true, true
		}
		in.model.write(p[n:n+b-a], at)
		in.mu.Lock()
		if end := at + b - a; end > in.isize {
			in.isize, grew = end, true
		}
		in.mu.Unlock()
		f.mu.Unlock()
		n += b - a
	}
	return n, grew, false, 0
}

// prepare reads the blocks of a locked folio of which [a, b) covers only a part.
func (in *Inode) prepare(f *folio, m *Mapping, a, b int64) syscall.Errno {
	k := in.k
	off := f.idx * k.folioSize()
	for i := a / k.bs; i*k.bs < b; i++ {
		if f.uptodate[i] || a <= i*k.bs && (i+1)*k.bs <= b {
			continue
		}
		if isize := in.Size(); off+i*k.bs >= isize || !m.contains(off+i*k.bs) {
			clear(f.data[i*k.bs : (i+1)*k.bs])
			f.uptodate[i] = true
			continue
		} else if errno := k.fill(f, m, i*k.bs, (i+1)*k.bs); errno != 0 {
			return errno
		} else if end := isize - off; end < (i+1)*k.bs {
			clear(f.data[end : (i+1)*k.bs])
		}
	}
	return 0
}

// copyInline is a write into inline data: read, changed in memory, and the
// written bytes sent back.
func (in *Inode) copyInline(t *task, s *step, p []byte) (n int64, grew, stale bool, errno syscall.Errno) {
	k := in.k
	if _, errno = in.readInline(t, &s.dst); errno != 0 {
		return 0, false, false, errno
	}
	if errno = in.writeInline(t, p, s.pos); errno != 0 {
		in.model.fail(s.pos, s.pos+int64(len(p)))
		return 0, false, false, errno
	}
	f := k.lockFolio(in, s.pos/k.folioSize())
	a := s.pos % k.folioSize()
	if f.uptodate[a/k.bs] {
		copy(f.data[a:], p)
	}
	in.model.write(p, s.pos)
	end := s.pos + int64(len(p))
	in.mu.Lock()
	if end > in.isize {
		in.isize, grew = end, true
	}
	in.mu.Unlock()
	f.mu.Unlock()
	return int64(len(p)), grew, false, 0
}

// zero makes [from, to) zeros in the page cache, where it is not so on disk. The
// caller holds rwsem and invalidate.
func (in *Inode) zero(t *task, from, to int64) syscall.Errno {
	k := in.k
	size := k.folioSize()
	flushed := false
	_, errno := in.iterate(t, OpZero, from, to-from, func(s *step) (n int64, grew, stale bool, errno syscall.Errno) {
		m := s.from()
		if m.Type == TypeHole || m.Type == TypeUnwritten {
			if !flushed && in.pages.dirtyWithin(s.pos, s.pos+s.count, size) {
				// Data waits for that range: on disk it is zeros only until then.
				flushed = true
				s.done(in)
				return 0, false, true, in.writeback(t, s.pos, s.pos+s.count)
			}
			return s.count, false, false, 0
		}
		if m.Type == TypeInline {
			data, errno := in.readInline(t, m)
			if errno != 0 {
				return 0, false, false, errno
			}
			end := min(s.pos+s.count, in.Size())
			if end > s.pos {
				clear(data[s.pos:end])
				errno = in.writeInline(t, data[s.pos:end], s.pos)
			}
			in.pages.forget(0, 1, size)
			return s.count, false, false, errno
		}
		for n < s.count {
			at := s.pos + n
			f := k.lockFolio(in, at/size)
			if !in.cache.valid(s.cookie) {
				f.mu.Unlock()
				return n, false, true, 0
			}
			a := at % size
			b := min(size, a+s.count-n)
			if errno = in.prepare(f, m, a, b); errno != 0 {
				f.mu.Unlock()
				return n, false, false, errno
			}
			clear(f.data[a:b])
			for i := a / k.bs; i*k.bs < b; i++ {
				f.uptodate[i], f.dirty[i] = true, true
			}
			f.mu.Unlock()
			n += b - a
		}
		return n, false, false, 0
	})
	return errno
}

// mmapWrite is a write through a shared mapping of memory: the page is made writable,
// then stored to.
func (in *Inode) mmapWrite(t *task, p []byte, pos int64) syscall.Errno {
	k := in.k
	size := k.folioSize()
	for done := int64(0); done < int64(len(p)); {
		at := pos + done
		if at >= in.Size() {
			return syscall.EFAULT // SIGBUS
		}
		in.invalidate.RLock()
		f := k.lockFolio(in, at/size)
		errno := func() syscall.Errno {
			if !f.allUptodate() {
				if errno := in.readFolios(t, []*folio{f}, 0); errno != 0 {
					return errno
				}
			}
			off := f.idx * size
			n := min(size, roundUp(in.Size()-off, k.bs))
			if n <= 0 {
				return syscall.EFAULT
			}
			in.touch(true, true, false)
			_, errno := in.iterate(t, OpWrite|OpFault, off, n, func(s *step) (int64, bool, bool, syscall.Errno) {
				if s.dst.Type == TypeInline {
					return 0, false, false, syscall.EIO
				}
				for i := (s.pos - off) / k.bs; i*k.bs < s.pos-off+s.count; i++ {
					f.dirty[i] = true
				}
				return s.count, false, false, 0
			})
			if errno != 0 {
				return errno
			}
			a := at % size
			// A store goes as far as the file; what lies behind in the page is lost.
			b := min(size, a+int64(len(p))-done, in.Size()-off)
			copy(f.data[a:b], p[done:])
			in.model.write(p[done:done+b-a], at)
			done += b - a
			return 0
		}()
		f.mu.Unlock()
		in.invalidate.RUnlock()
		if errno != 0 {
			return errno
		}
	}
	return 0
}
