package iomappeer

import "syscall"

// holesInRow is how many holes may follow each other in a report: more means that
// the server answers with tiny ones, as far as s_maxbytes.
const holesInRow = 64

// report walks the mappings of a range, as FIEMAP does.
func (in *Inode) report(t *task, from, to int64) ([]Mapping, syscall.Errno) {
	k := in.k
	to = min(to, k.maxbytes)
	in.rwsem.RLock()
	defer in.rwsem.RUnlock()
	var out []Mapping
	n := 0 // holes in a row
	_, errno := in.iterate(t, OpReport, from, to-from, func(s *step) (int64, bool, bool, syscall.Errno) {
		if n++; s.dst.Type != TypeHole {
			n = 0
		}
		if n > holesInRow {
			k.violate("A17", in, "%d holes in a row, the last being %v: each costs FIEMAP a request", n, s.dst)
			return 0, false, false, syscall.EIO
		}
		m := s.dst
		if skip := uint64(s.pos) - m.Offset; m.Addr != nullAddr {
			m.Addr += skip
		}
		m.Offset, m.Length = uint64(s.pos), uint64(s.count)
		out = append(out, m)
		return s.count, false, false, 0
	})
	if errno == 0 && to == k.maxbytes && (k.prof == May26 || !in.cache.exists()) {
		// Mappings from the cache may be cut where the kernel has cut them.
		k.expect("A17", n <= 1, in, "%d holes behind the last extent: each costs FIEMAP a request", n)
	}
	return out, errno
}

// Fiemap is FIEMAP: the extents of a range, without holes.
func (k *Kernel) Fiemap(in *Inode, from, n int64) ([]Mapping, syscall.Errno) {
	if errno := in.usable(); errno != 0 {
		return nil, errno
	}
	if !in.iomap {
		return nil, syscall.EOPNOTSUPP
	}
	all, errno := in.report(k.task("fiemap"), from, from+min(n, maxLFS-from))
	var out []Mapping
	for _, m := range all {
		if m.Type != TypeHole {
			out = append(out, m)
		}
	}
	return out, errno
}

// What to seek for.
const (
	SeekData = 3
	SeekHole = 4
)

// Seek is lseek(2) with SEEK_DATA or SEEK_HOLE. No lock of the inode is held.
func (k *Kernel) Seek(in *Inode, pos int64, whence int) (int64, syscall.Errno) {
	if errno := in.usable(); errno != 0 {
		return 0, errno
	}
	if !in.iomap {
		return 0, syscall.EOPNOTSUPP
	}
	t := k.task("seek")
	size := in.Size()
	if pos < 0 || pos >= size {
		return 0, syscall.ENXIO
	}
	found := int64(-1)
	_, errno := in.iterate(t, OpReport, pos, size-pos, func(s *step) (int64, bool, bool, syscall.Errno) {
		isData := s.dst.Type != TypeHole
		at := s.pos
		if s.dst.Type == TypeUnwritten || s.dst.Type == TypeHole {
			// What is in the page cache is data, whatever the disk says.
			data, ok := in.dirtyAfter(s.pos, s.pos+s.count)
			switch {
			case whence == SeekData && ok:
				found = data
				return 0, false, false, 0
			case whence == SeekHole && ok && data == s.pos:
				at = in.cleanAfter(s.pos, s.pos+s.count)
				if at == s.pos+s.count {
					return s.count, false, false, 0
				}
			}
			isData = false
		}
		if isData == (whence == SeekData) {
			found = at
			return 0, false, false, 0
		}
		return s.count, false, false, 0
	})
	switch {
	case errno != 0:
		return 0, errno
	case found >= 0:
		return min(found, size), 0
	case whence == SeekHole:
		return size, 0
	}
	return 0, syscall.ENXIO
}

// dirtyAfter returns the first byte of a range that waits for writeback.
func (in *Inode) dirtyAfter(from, to int64) (int64, bool) {
	k := in.k
	size := k.folioSize()
	for _, f := range in.pages.within(from, to, size) {
		f.mu.Lock()
		for i, d := range f.dirty {
			if at := f.idx*size + int64(i)*k.bs; d && at+k.bs > from && at < to {
				f.mu.Unlock()
				return max(at, from), true
			}
		}
		f.mu.Unlock()
	}
	return 0, false
}

// cleanAfter returns the first byte of a range that does not wait for writeback.
func (in *Inode) cleanAfter(from, to int64) int64 {
	for from < to {
		at, ok := in.dirtyAfter(from, min(to, roundDown(from, in.k.bs)+in.k.bs))
		if !ok || at != from {
			return from
		}
		from = roundDown(from, in.k.bs) + in.k.bs
	}
	return min(from, to)
}

// Swapon is swapon(2): all of the file must have a place, and stay there until
// Swapoff.
func (k *Kernel) Swapon(in *Inode) ([]Mapping, syscall.Errno) {
	if errno := in.usable(); errno != 0 {
		return nil, errno
	}
	if !in.iomap {
		return nil, syscall.EOPNOTSUPP
	}
	t := k.task("swapon")
	// So that no mapping is DIRTY.
	if errno := in.fsync(t, 0, true); errno != 0 {
		return nil, errno
	}
	in.rwsem.Lock()
	defer in.rwsem.Unlock()
	size := roundDown(in.Size(), k.bs)
	var out []Mapping
	done, errno := in.iterate(t, OpSwapfile|OpReport, 0, size, func(s *step) (int64, bool, bool, syscall.Errno) {
		m := s.dst
		if !m.hasDev() || m.Flags&(FlagShared|FlagDirty) != 0 {
			return 0, false, false, syscall.EINVAL
		}
		out = append(out, m)
		return s.count, false, false, 0
	})
	if errno == 0 && done < size {
		errno = syscall.EINVAL
	}
	if errno != 0 {
		in.swapoff(t)
		return nil, errno
	}
	in.mu.Lock()
	in.swapping = true
	in.mu.Unlock()
	return out, 0
}

// Swapoff is swapoff(2).
func (k *Kernel) Swapoff(in *Inode) syscall.Errno {
	in.mu.Lock()
	was := in.swapping
	in.swapping = false
	in.mu.Unlock()
	if !was {
		return syscall.EINVAL
	}
	return in.swapoff(k.task("swapoff"))
}

func (in *Inode) swapoff(t *task) syscall.Errno {
	k := in.k
	if k.unsupported(opIomapIOEnd) && k.prof == V7 {
		return 0
	}
	var out ioendOut
	body := ioendIn{Flags: IOEndSwapoff, AttrIno: in.attrInode(), NewAddr: nullAddr}
	errno := k.callInto(t, opIomapIOEnd, in.nodeid, &out, body)
	if errno == syscall.ENOSYS {
		k.setUnsupported(opIomapIOEnd)
	}
	return errno
}
