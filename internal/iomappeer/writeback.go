package iomappeer

import "syscall"

// ioend is I/O of one kind that has completed.
type ioend struct {
	pos, end int64
	addr     int64 // bytes
	dev      uint32
	flags    uint32
	errno    syscall.Errno
	maps     []Mapping // that it went by
}

// writeback writes the dirty folios that overlap [from, to), folio by folio, and
// waits for all of it.
func (in *Inode) writeback(t *task, from, to int64) syscall.Errno {
	k := in.k
	size := k.folioSize()
	var held []*folio
	var ends []*ioend
	var cur *step // the mapping in use
	var steps []*step
	var others []*folio // under writeback by somebody else, maybe
	for _, f := range in.pages.within(from, to, size) {
		f.mu.Lock()
		off := f.idx * size
		isize := in.Size()
		if f.gone || !f.isDirty() || off >= isize {
			f.mu.Unlock()
			others = append(others, f)
			continue
		}
		f.wb.Lock()
		held = append(held, f)
		if n := isize - off; n < size {
			clear(f.data[n:])
		}
		for i := int64(0); i < int64(len(f.dirty)); {
			if !f.dirty[i] || off+i*k.bs >= isize {
				i++
				continue
			}
			j := i
			for j < int64(len(f.dirty)) && f.dirty[j] && off+j*k.bs < isize {
				f.dirty[j] = false
				j++
			}
			cur = in.writeRun(t, f, off+i*k.bs, off+j*k.bs, isize, cur, &steps, &ends)
			i = j
		}
		f.mu.Unlock()
	}
	errno := in.sendIOEnds(ends)
	for _, s := range steps {
		s.done(in)
	}
	for _, f := range held {
		f.wb.Unlock()
	}
	for _, f := range others {
		f.waitWriteback()
	}
	in.mu.Lock()
	if errno != 0 && in.wberr == 0 {
		in.wberr = errno
	}
	in.mu.Unlock()
	return errno
}

// writeRun writes a dirty run of a locked folio, and returns the mapping to go on
// with.
func (in *Inode) writeRun(t *task, f *folio, pos, to, isize int64, cur *step, steps *[]*step, ends *[]*ioend) *step {
	k := in.k
	off := f.idx * k.folioSize()
	for pos < to {
		if cur == nil || !cur.dst.contains(pos) || !in.cache.valid(cur.cookie) || cur.gen != in.freeGen.Load() ||
			k.fault(k.cfg.Faults.PerFolio) {
			s, errno := in.begin(t, OpWriteback, pos, to-pos)
			if errno == 0 && !s.dst.hasDev() {
				errno = syscall.EIO // A2 has said so; the data has no place
			}
			if errno != 0 {
				// The folio is given up: what is in it is lost.
				*ends = append(*ends, &ioend{pos: pos, end: off + k.folioSize(), addr: -1, errno: errno})
				in.model.fail(pos, off+k.folioSize())
				return nil
			}
			cur = s
			*steps = append(*steps, s)
			claimed := s.claimed
			s.claimed = false // END, if any, does not end the use of the blocks
			in.finishStep(t, OpWriteback, s, s.count, false, false, 0)
			s.claimed = claimed
		}
		n := min(to, int64(cur.dst.End())) - pos
		e := &ioend{pos: pos, end: min(pos+n, isize), addr: cur.dst.at(pos), dev: cur.dst.Dev, flags: IOEndWriteback,
			maps: []Mapping{cur.dst}}
		if cur.dst.Type == TypeUnwritten {
			e.flags |= IOEndUnwritten
		}
		if cur.dst.Flags&FlagShared != 0 {
			e.flags |= IOEndShared
		}
		if cur.dst.Flags&FlagBoundary != 0 {
			e.flags |= IOEndBoundary
		}
		in.submitted(pos, pos+n)
		if e.errno = k.writeDev(&cur.dst, pos, f.data[pos-off:pos-off+n]); e.errno != 0 {
			in.model.fail(pos, pos+n)
		}
		*ends = append(*ends, e)
		pos += n
	}
	return cur
}

// sendIOEnds sorts and merges completed I/O of an inode and reports it.
func (in *Inode) sendIOEnds(ends []*ioend) syscall.Errno {
	k := in.k
	in.ioendMu.Lock()
	defer in.ioendMu.Unlock()
	sortBy(ends, func(e *ioend) int64 { return e.pos })
	var out []*ioend
	for _, e := range ends {
		if n := len(out); n > 0 && out[n-1].merges(e, k.fault(k.cfg.Faults.MergeIOEnd)) {
			out[n-1].end = e.end
			out[n-1].maps = append(out[n-1].maps, e.maps...)
			out[n-1].flags |= e.flags
			continue
		}
		c := *e
		out = append(out, &c)
	}
	var first syscall.Errno
	for _, e := range out {
		if errno := in.sendIOEnd(e); errno != 0 && first == 0 {
			first = errno
		}
	}
	return first
}

// merges reports whether o carries e on: in the file, on the device, and of the
// same kind; or in the file only, if the kinds may be mixed.
func (e *ioend) merges(o *ioend, mixed bool) bool {
	if e.end != o.pos || e.errno != 0 || o.errno != 0 {
		return false
	}
	if mixed && e.dev == o.dev {
		return true
	}
	return e.flags == o.flags && e.dev == o.dev && e.addr+e.end-e.pos == o.addr && e.flags&IOEndBoundary == 0
}

// sendIOEnd reports I/O that has completed, if the server has to know. It returns
// the error of the I/O, or of the report.
func (in *Inode) sendIOEnd(e *ioend) syscall.Errno {
	k := in.k
	written := max(e.end-e.pos, 0)
	body := ioendIn{Flags: e.flags &^ IOEndBoundary, Error: -int32(e.errno), AttrIno: in.attrInode(), Pos: uint64(e.pos),
		NewAddr: nullAddr, Written: uint64(written)}
	direct := e.flags&IOEndDirect != 0
	if !direct && e.addr >= 0 {
		body.NewAddr, body.Dev = uint64(e.addr/512), e.dev
	}
	in.mu.Lock()
	oldDisk := in.diskSize
	in.mu.Unlock()
	end := e.pos + written
	if end > oldDisk {
		body.Flags |= IOEndAppend
	}
	need := e.errno != 0 || written > 0 && body.Flags&(IOEndShared|IOEndUnwritten|IOEndAppend) != 0
	if !need {
		in.completed(e.pos, end, false)
		return e.errno
	}
	if k.unsupported(opIomapIOEnd) {
		k.expect("A11", false, in, "an IOEND that is needed is suppressed, since one was answered by ENOSYS")
		return e.errno
	}
	if e.errno == 0 {
		in.established(end)
	}
	var out ioendOut
	worker := &task{name: "ioend"} // a worker of the kernel: no user's
	in.talk.enter()
	defer in.talk.leave()
	send := func() syscall.Errno { return k.callInto(worker, opIomapIOEnd, in.nodeid, &out, body) }
	if e.errno != 0 {
		for i := range e.maps {
			if m := &e.maps[i]; m.Type != TypeMapped {
				in.ioFailed(max(e.pos, int64(m.Offset)), min(end, int64(m.End())))
			}
		}
		in.frees(e.pos, end, func() { send() })
		return e.errno
	}
	if k.fault(k.cfg.Faults.DupIOEnd) {
		send()
	}
	gen, calm := in.freeGen.Load(), in.freeing.Load() == 0
	errno := send()
	if errno == syscall.ENOSYS {
		k.setUnsupported(opIomapIOEnd)
		k.expect("A11", false, in, "IOEND with flags %#x is answered by ENOSYS: the conversion or size is lost", body.Flags)
		return 0
	}
	if errno != 0 {
		in.model.fail(e.pos, end)
		if k.prof == V7 && !direct {
			return 0 // that kernel forgets it: the server must fail the next FSYNC
		}
		return errno
	}
	// What is freed meanwhile may be freed after it was converted.
	calm = calm && gen == in.freeGen.Load() && in.freeing.Load() == 0
	in.completed(e.pos, end, calm)
	for i := range e.maps {
		m := &e.maps[i]
		if lo, hi := max(e.pos, int64(m.Offset)), min(end, int64(m.End())); lo < hi && calm {
			mapped := *m
			mapped.Type = TypeMapped
			hi = roundUp(hi, k.bs)
			mapped.Length = uint64(hi) - mapped.Offset
			k.claims.take(in, &mapped, lo, hi-lo, true)
		}
	}
	in.newSize(&body, int64(out.NewSize), end)
	in.cache.drop(e.pos, end, k.bs)
	return 0
}

// newSize takes the size on disk that an IOEND's reply tells.
func (in *Inode) newSize(body *ioendIn, size, end int64) {
	k := in.k
	in.mu.Lock()
	limit := in.sizeLimit
	if k.prof == V7 {
		in.diskSize = size
	} else {
		in.diskSize = max(in.diskSize, size)
	}
	in.mu.Unlock()
	k.expect("A6", size <= limit, in, "newsize %d, but no more than %d was established", size, limit)
	if body.Flags&IOEndAppend != 0 {
		k.expect("A6", size >= end, in, "newsize %d after an append up to %d", size, end)
	}
}
