package iomappeer

import "syscall"

// truncate sets the size. The caller holds rwsem alone.
func (in *Inode) truncate(t *task, size int64, h *File) syscall.Errno {
	k := in.k
	if !in.iomap {
		b := setattrIn{Valid: fattrSize, Size: uint64(size)}
		_, errno := in.setattr(t, b)
		if errno == 0 {
			in.model.truncate(size)
		}
		return errno
	}
	if size > k.maxbytes {
		return syscall.EFBIG
	}
	in.invalidate.Lock()
	defer in.invalidate.Unlock()
	old := in.Size()
	if size > old {
		if errno := in.zero(t, old, size); errno != 0 {
			return errno
		}
	} else if tail := roundUp(size, k.bs); tail > size && size < old {
		if errno := in.zero(t, size, min(tail, roundUp(old, k.bs))); errno != 0 {
			in.model.fail(size, min(tail, old))
			return errno
		}
	}
	in.touch(true, true, false)
	in.mu.Lock()
	in.isize = size
	in.mu.Unlock()
	in.model.truncate(size)
	in.pages.drop(size, maxLFS, k.folioSize())
	if errno := in.writeback(t, 0, maxLFS); errno != 0 {
		return errno
	}
	in.mu.Lock()
	b := in.timesLocked(fattrSize | fattrMtime | fattrCtime)
	in.mu.Unlock()
	b.Size = uint64(size)
	if h != nil && h.opened {
		b.Valid |= fattrFH | fattrLockOwner
		b.FH = h.fh
	}
	cut := roundUp(size, k.bs)
	var a Attr
	var errno syscall.Errno
	in.established(size)
	in.frees(cut, maxLFS, func() {
		if a, errno = in.setattr(t, b); errno == 0 {
			in.known.forget(cut/k.bs, maxLFS)
		}
	})
	if errno != 0 {
		return errno
	}
	in.mu.Lock()
	in.diskSize = int64(a.Size)
	in.sizeLimit = size
	in.mu.Unlock()
	in.cache.drop(cut, maxLFS, k.bs)
	return 0
}

// Modes of fallocate that the kernel lets pass.
const (
	FallocKeepSize  = 0x01
	FallocPunchHole = 0x02
	FallocZeroRange = 0x10

	fallocMask = FallocKeepSize | FallocPunchHole | FallocZeroRange
)

// edge is a block of which a punched range covers only a part.
type edge struct {
	block int64
	m     Mapping // where it lies
	data  []byte
}

// edges reads the blocks at both ends of a range that it covers only in part, as
// far as they are known to lie on the device.
func (in *Inode) edges(from, to int64) []edge {
	k := in.k
	var out []edge
	for _, b := range []int64{from / k.bs, to / k.bs} {
		if b*k.bs >= from && (b+1)*k.bs <= to || b == to/k.bs && to%k.bs == 0 || len(out) > 0 && out[0].block == b {
			continue
		}
		in.known.mu.Lock()
		v := in.known.blocks[b]
		ok := v != nil && (v.converted || v.state == blkMapped && v.submitted)
		var m Mapping
		if ok {
			m = Mapping{Offset: uint64(b * k.bs), Length: uint64(k.bs), Addr: uint64(v.addr), Dev: v.dev, Type: TypeMapped}
		}
		in.known.mu.Unlock()
		dev := k.backing(m.Dev)
		if !ok || dev == nil {
			continue
		}
		e := edge{block: b, m: m, data: make([]byte, k.bs)}
		if _, err := dev.dev.ReadAt(e.data, int64(m.Addr)); err == nil {
			out = append(out, e)
		}
	}
	return out
}

// checkEdges is A12: the server has not touched the partial blocks.
func (in *Inode) checkEdges(es []edge) {
	k := in.k
	for _, e := range es {
		got := make([]byte, len(e.data))
		if dev := k.backing(e.m.Dev); dev != nil {
			if _, err := dev.dev.ReadAt(got, int64(e.m.Addr)); err != nil {
				continue
			}
		}
		k.expect("A12", string(got) == string(e.data), in,
			"FALLOCATE changed bytes of block %d, of which the range covers only a part", e.block)
	}
	if len(es) == 0 || k.cfg.NoChecks {
		return
	}
	for _, e := range es {
		s, _, errno := in.ask(k.checkTask(), OpReport, e.block*k.bs, k.bs, in.cache.upserted())
		if errno != 0 {
			continue
		}
		s.done(in)
		k.expect("A12", s.dst.Type == TypeMapped, in,
			"after FALLOCATE block %d is %v, but it holds data and the range covers only a part of it", e.block, s.dst)
	}
}

// fallocate is fallocate(2). The caller holds rwsem alone.
func (in *Inode) fallocate(t *task, mode uint32, off, n int64, h *File) syscall.Errno {
	k := in.k
	switch {
	case off < 0 || n <= 0:
		return syscall.EINVAL
	case mode&^fallocMask != 0 || mode&FallocPunchHole != 0 && mode&FallocKeepSize == 0 ||
		mode&FallocPunchHole != 0 && mode&FallocZeroRange != 0:
		return syscall.EOPNOTSUPP
	case off+n < off || off+n > k.maxbytes:
		return syscall.EFBIG
	}
	in.invalidate.Lock()
	defer in.invalidate.Unlock()
	end := off + n
	isize := in.Size()
	zeroes := mode&(FallocPunchHole|FallocZeroRange) != 0
	unit := max(k.bs, pageSize)
	if in.iomap {
		lo, hi := roundDown(off, unit), roundUp(end, unit)
		if errno := in.writeback(t, lo, hi); errno != 0 {
			return errno
		}
		in.pages.forget(lo, hi, k.folioSize())
	}
	body := fallocateIn{FH: h.handle(), Offset: uint64(off), Length: uint64(n), Mode: mode}
	grows := mode&FallocKeepSize == 0 && end > isize
	var before Attr
	checking := !k.cfg.NoChecks && in.iomap
	if checking {
		before, _ = in.fetchAttr(k.checkTask())
	}
	var es []edge
	first, last := roundUp(off, k.bs)/k.bs, end/k.bs
	if zeroes {
		es = in.edges(off, end)
	}
	var errno syscall.Errno
	if mode&FallocKeepSize == 0 { // the server may know of a smaller size than ours
		in.established(end)
	}
	call := func() {
		in.stamped.enter()
		defer in.stamped.leave()
		_, errno = k.call(t, opFallocate, in.nodeid, 0, 0, body)
	}
	if zeroes {
		in.frees(off, end, func() {
			if call(); errno == 0 {
				in.known.forget(first, last)
			}
		})
	} else {
		call()
	}
	if errno != 0 {
		if zeroes && errno != syscall.EOPNOTSUPP && errno != syscall.ENOSYS {
			in.model.fail(off, min(end, isize))
			in.submitted(off, end) // some of it may have been done
		}
		return errno
	}
	in.checkEdges(es)
	if zeroes {
		in.model.zero(off, min(end, max(isize, off)))
	}
	if !in.iomap {
		if grows {
			in.mu.Lock()
			in.isize = end
			in.mu.Unlock()
			in.model.truncate(end)
		}
		return 0
	}
	in.cache.drop(off, end, k.bs)
	if zeroes && off < isize {
		if errno := in.zero(t, off, min(end, isize)); errno != 0 {
			in.model.fail(off, min(end, isize))
			return errno
		}
		if end > isize && isize%pageSize != 0 {
			if errno := in.writeback(t, roundDown(isize, unit), isize); errno != 0 {
				return errno
			}
		}
	}
	if checking {
		after, errno := in.fetchAttr(k.checkTask())
		if errno == 0 {
			want := before.Size
			if grows { // on disk it may be longer than here, if growing it failed half-way before
				want = max(want, uint64(end))
			}
			// Data that is still in the page cache may reach the disk meanwhile.
			ok := after.Size == want || !grows && after.Size > want && int64(after.Size) <= isize
			k.expect("A13", ok, in, "after FALLOCATE mode %#x [%d,+%d) the size is %d, want %d", mode, off, n, after.Size, want)
		}
	}
	if grows {
		if errno := in.zero(t, isize, end); errno != 0 {
			return errno
		}
		in.mu.Lock()
		in.isize = end
		in.mu.Unlock()
		in.model.truncate(end)
		if errno := in.writeback(t, 0, maxLFS); errno != 0 {
			return errno
		}
		in.mu.Lock()
		in.diskSize = max(in.diskSize, end)
		in.mu.Unlock()
	}
	in.touch(true, true, false)
	return 0
}

// copyRange is copy_file_range(2), which the server does. The caller holds rwsem
// of the destination alone.
func (in *Inode) copyRange(t *task, src *Inode, hin, hout *File, offIn, offOut, n int64) (int64, syscall.Errno) {
	k := in.k
	unit := max(k.bs, pageSize)
	if in.iomap {
		if errno := src.writeback(t, offIn, offIn+n); errno != 0 {
			return 0, errno
		}
		in.invalidate.Lock()
		defer in.invalidate.Unlock()
		if offOut > in.Size() {
			// The server writes behind the end as it sees it, which is that on disk.
			if errno := in.zero(t, in.Size(), offOut); errno != 0 {
				return 0, errno
			}
		}
		if errno := in.writeback(t, 0, maxLFS); errno != 0 {
			return 0, errno
		}
		in.pages.forget(roundDown(offOut, unit), roundUp(offOut+n, unit), k.folioSize())
	}
	data := src.modelBytes(offIn, min(n, max(src.Size()-offIn, 0)))
	in.established(offOut + int64(len(data)))
	body := copyRangeIn{FHIn: hin.handle(), OffIn: uint64(offIn), NodeOut: in.nodeid, FHOut: hout.handle(),
		OffOut: uint64(offOut), Len: uint64(n)}
	var done int64
	errno := syscall.ENOSYS
	in.stamped.enter()
	defer in.stamped.leave()
	in.frees(offOut, offOut+n, func() {
		if !k.unsupported(opCopyRange64) {
			var out uint64
			if errno = k.callInto(t, opCopyRange64, src.nodeid, &out, body); errno == syscall.ENOSYS {
				k.setUnsupported(opCopyRange64)
			}
			done = int64(out)
		}
		if errno == syscall.ENOSYS && !k.unsupported(opCopyFileRange) {
			var out writeOut
			if errno = k.callInto(t, opCopyFileRange, src.nodeid, &out, body); errno == syscall.ENOSYS {
				k.setUnsupported(opCopyFileRange)
			}
			done = int64(out.Size)
		}
		if errno != syscall.ENOSYS {
			in.known.forget(offOut/k.bs, roundUp(offOut+n, k.bs)/k.bs)
			in.submitted(offOut, offOut+n)
		}
	})
	in.cache.drop(offOut, offOut+n, k.bs)
	switch {
	case errno == syscall.ENOSYS:
		return 0, syscall.EOPNOTSUPP
	case errno != 0:
		in.model.fail(offOut, offOut+n)
		return 0, errno
	case done > int64(len(data)):
		k.violate("A1", in, "COPY_FILE_RANGE of %d bytes is answered by %d", len(data), done)
		return 0, syscall.EIO
	}
	in.model.write(data[:done], offOut)
	if src.model.anyUnknown(offIn, offIn+done) {
		in.model.fail(offOut, offOut+done)
	}
	end := offOut + done
	in.mu.Lock()
	in.isize, in.diskSize = max(in.isize, end), max(in.diskSize, end)
	in.mu.Unlock()
	in.touch(true, true, false)
	return done, 0
}

func (in *Inode) modelBytes(off, n int64) []byte {
	p := make([]byte, max(n, 0))
	in.model.mu.Lock()
	defer in.model.mu.Unlock()
	for i := range p {
		p[i] = in.model.img.at(off + int64(i))
	}
	return p
}

// syncRange writes a range back and makes it durable, as O_SYNC does.
func (in *Inode) syncRange(t *task, from, to int64) syscall.Errno {
	if errno := in.writeback(t, from, to); errno != 0 {
		return errno
	}
	if errno := in.writeTimes(t); errno != 0 {
		return errno
	}
	return in.sendFsync(t, 0, false)
}

func (in *Inode) sendFsync(t *task, fh uint64, dataOnly bool) syscall.Errno {
	op := uint32(opFsync)
	if in.dir {
		op = opFsyncdir
	}
	if in.k.unsupported(op) {
		return 0
	}
	b := fsyncIn{FH: fh}
	if dataOnly {
		b.Flags = 1
	}
	_, errno := in.k.call(t, op, in.nodeid, 0, 0, b)
	if errno == syscall.ENOSYS {
		in.k.setUnsupported(op)
		return 0
	}
	return errno
}

// fsync is fsync(2): data, then timestamps, then FSYNC.
func (in *Inode) fsync(t *task, fh uint64, dataOnly bool) syscall.Errno {
	mark := in.model.mark()
	errno := in.writeback(t, 0, maxLFS)
	in.rwsem.Lock()
	defer in.rwsem.Unlock()
	if e := in.writeTimes(t); errno == 0 {
		errno = e
	}
	if e := in.sendFsync(t, fh, dataOnly); errno == 0 {
		errno = e
	}
	in.mu.Lock()
	if errno == 0 {
		errno = in.wberr
	}
	in.wberr = 0
	in.mu.Unlock()
	if errno == 0 {
		in.model.durableTo(mark)
		if !dataOnly {
			in.namesSafe()
		}
	}
	return errno
}
