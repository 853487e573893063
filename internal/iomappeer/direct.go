package iomappeer

import "syscall"

// dwrite is a write(2) with O_DIRECT. The caller holds rwsem alone.
func (in *Inode) dwrite(t *task, p []byte, pos int64, op Op, forced bool) (int, syscall.Errno) {
	k := in.k
	n := int64(len(p))
	if a := int64(k.cfg.DIOAlign); pos%a != 0 || n%a != 0 {
		return 0, syscall.EINVAL
	}
	if op&OpAtomic != 0 && (n != k.bs || pos%k.bs != 0 || !in.atomicOK) {
		return 0, syscall.EINVAL
	}
	if errno := in.zeroToPos(t, pos); errno != 0 {
		return 0, errno
	}
	in.stripSuid(t)
	in.touch(true, true, false)
	if errno := in.writeback(t, pos, pos+n); errno != 0 {
		return 0, errno
	}
	if !in.pages.forget(pos, pos+n, k.folioSize()) {
		return in.bwrite(t, p, pos, 0)
	}
	e := &ioend{pos: pos, addr: -1, flags: IOEndDirect}
	var steps []*step
	var inline bool
	var failed syscall.Errno // of I/O that was submitted, which is known only when all is complete
	in.model.write(p, pos)   // from here on a crash may show it
	done, errno := in.iterate(t, OpWrite|OpDirect|op, pos, n, func(s *step) (int64, bool, bool, syscall.Errno) {
		if s.dst.Type == TypeInline {
			inline = true
			n, _, _, errno := in.copyInline(t, s, p[s.pos-pos:][:s.count])
			return n, false, false, errno
		}
		if !s.dst.hasDev() {
			return 0, false, false, syscall.EIO
		}
		held := *s
		steps = append(steps, &held)
		s.claimed = false
		if s.dst.Type == TypeUnwritten {
			e.flags |= IOEndUnwritten
		}
		if s.dst.Flags&FlagShared != 0 {
			e.flags |= IOEndShared
		}
		if op&OpAtomic == 0 && s.dst.Flags&FlagAtomicBio != 0 && s.count < n {
			return 0, false, false, syscall.EINVAL
		}
		e.maps = append(e.maps, s.dst)
		c, errno, ioErr := in.writeDirect(s, p[s.pos-pos:][:s.count])
		if failed == 0 {
			failed = ioErr
		}
		held.trim(in, c) // END may give back what follows
		return c, false, false, errno
	})
	if errno == 0 {
		errno = failed
	}
	if errno == syscall.ENOTBLK {
		errno = 0 // it ends as a write of nothing
	}
	if done < n {
		in.model.fail(pos+done, pos+n)
	}
	e.end, e.errno = pos+done, errno
	if !inline || e.errno != 0 {
		in.ioendMu.Lock()
		errno2 := in.sendIOEnd(e)
		in.ioendMu.Unlock()
		if errno == 0 {
			errno = errno2
		}
	}
	for _, s := range steps {
		s.done(in)
	}
	if errno == 0 {
		in.mu.Lock()
		in.isize = max(in.isize, pos+done)
		in.mu.Unlock()
	} else {
		in.model.undoSize(in.Size())
		in.model.fail(pos, pos+n)
	}
	in.pages.forget(pos, pos+n, k.folioSize())
	if errno == syscall.ENOSYS {
		if forced {
			return 0, syscall.EIO
		}
		// Again through the page cache, as if opened with O_SYNC.
		m, errno := in.bwrite(t, p, pos, 0)
		if errno == 0 {
			errno = in.syncRange(t, pos, pos+int64(m))
		}
		return m, errno
	}
	return int(done), errno
}

// writeDirect submits the bytes of one step to the device, and zeros around them
// where the block was not written before. It returns how many it submitted, why not
// all of them, and the error of the I/O.
func (in *Inode) writeDirect(s *step, p []byte) (n int64, errno, ioErr syscall.Errno) {
	k := in.k
	end := s.pos + s.count
	lo, hi := s.pos, end
	if s.dst.Type == TypeUnwritten || s.dst.Flags&FlagNew != 0 {
		lo, hi = roundDown(lo, k.bs), roundUp(hi, k.bs)
	} else if s.pos >= in.Size() {
		hi = roundUp(hi, k.bs)
	}
	buf := make([]byte, hi-lo)
	copy(buf[s.pos-lo:], p)
	n = s.count
	if len(buf) > k.cfg.DIOAlign && k.fault(k.cfg.Faults.ShortWrite) {
		// The caller's memory ends in the middle.
		buf = buf[:roundDown(int64(len(buf))/2, 512)]
		n = max(lo+int64(len(buf))-s.pos, 0)
		errno = syscall.EFAULT
	}
	in.submitted(lo, lo+int64(len(buf)))
	return n, errno, k.writeDev(&s.dst, lo, buf)
}

// trim ends the claim on the blocks behind the first n bytes of a step.
func (s *step) trim(in *Inode, n int64) {
	used := min(roundUp(s.pos+n, in.k.bs)-s.pos, s.count)
	if !s.claimed || used >= s.count {
		return
	}
	in.k.claims.done(in, &s.dst, s.pos+used, s.count-used)
	if s.count = used; used <= 0 {
		s.claimed = false
	}
}

// dread is a read(2) with O_DIRECT.
func (in *Inode) dread(t *task, p []byte, pos int64, forced bool) (int, syscall.Errno) {
	k := in.k
	if a := int64(k.cfg.DIOAlign); pos%a != 0 || int64(len(p))%a != 0 {
		return 0, syscall.EINVAL
	}
	in.rwsem.RLock()
	n := min(int64(len(p)), in.Size()-pos)
	if n <= 0 {
		in.rwsem.RUnlock()
		return 0, 0
	}
	in.touch(false, false, true)
	errno := in.writeback(t, pos, pos+n)
	var done int64
	if errno == 0 {
		done, errno = in.iterate(t, OpDirect, pos, n, func(s *step) (int64, bool, bool, syscall.Errno) {
			q := p[s.pos-pos:][:s.count]
			m := s.from()
			switch m.Type {
			case TypeInline:
				data, errno := in.readInline(t, m)
				if errno != 0 {
					return 0, false, false, errno
				}
				copy(q, data[s.pos-int64(m.Offset):])
			case TypeDelalloc:
				return 0, false, false, syscall.EIO
			default:
				if errno := k.readDev(m, s.pos, q); errno != 0 {
					return 0, false, false, errno
				}
			}
			in.compare("direct read", q, s.pos)
			return s.count, false, false, 0
		})
	}
	in.rwsem.RUnlock()
	if errno == syscall.ENOSYS {
		k.expect("A17", k.prof != V7, in, "a direct read is answered by ENOSYS, which crashes the kernel of v7")
		if forced || k.prof == V7 {
			return 0, syscall.EIO
		}
		return in.bread(t, p, pos)
	}
	return int(done), errno
}
