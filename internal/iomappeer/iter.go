package iomappeer

import "syscall"

// step is one mapping that an operation works through, from pos for count bytes.
type step struct {
	pos, count int64
	dst        Mapping
	src        Mapping // of an out-of-place write
	hasSrc     bool
	cookie     uint64 // 0 for a direct answer
	gen        int64  // of the inode's freeings, when it was answered
	claimed    bool
}

// from returns the mapping to read from.
func (s *step) from() *Mapping {
	if s.hasSrc {
		return &s.src
	}
	return &s.dst
}

// retryLimit is how often the peer asks again for what it does not find in the
// cache. The kernel knows no limit but a signal.
const retryLimit = 64

// begin finds the mapping for a range, in the cache or by BEGIN.
func (in *Inode) begin(t *task, op Op, pos, count int64) (*step, syscall.Errno) {
	k := in.k
	for try := 0; ; try++ {
		upserts := in.cache.upserted()
		if !k.prof.uncached(op) && !k.fault(k.cfg.Faults.CacheMisses) {
			dst, src, hasSrc, ok, cookie := in.cache.lookup(k.prof, op, pos)
			if ok {
				s := &step{pos: pos, dst: dst, src: src, hasSrc: hasSrc, cookie: cookie, gen: in.freeGen.Load()}
				s.limit(count)
				k.semantics(in, op, pos, &s.dst)
				at := in.talk.enter()
				k.learn(in, op, &s.dst, pos, s.count, func() bool { return in.talk.alone(at) && in.cache.valid(cookie) })
				in.talk.leave()
				return s, 0
			}
		}
		if op&OpNowait != 0 && k.prof == May26 {
			return nil, syscall.EAGAIN
		}
		if try == retryLimit {
			k.expect("A9", false, in, "BEGIN(%v) at %d is answered by RETRY_CACHE for the %dth time", op, pos, try)
			return nil, syscall.EINTR
		}
		s, retry, errno := in.ask(t, op, pos, count, upserts)
		if errno != 0 {
			return nil, errno
		}
		if !retry {
			return s, 0
		}
	}
}

// limit sets the length of the step.
func (s *step) limit(count int64) {
	n := min(count, int64(min(s.dst.End(), maxLFS))-s.pos)
	if s.hasSrc && s.src.contains(s.pos) {
		n = min(n, int64(min(s.src.End(), maxLFS))-s.pos)
	}
	s.count = n
}

// ask sends BEGIN.
func (in *Inode) ask(t *task, op Op, pos, count, upserts int64) (*step, bool, syscall.Errno) {
	k := in.k
	body := beginIn{Opflags: k.prof.opToWire(op), AttrIno: in.attrInode(), Pos: uint64(pos), Count: uint64(count)}
	free, sent := k.freeBlocks(op)
	talk := in.talk.enter()
	defer in.talk.leave()
	alone := in.talk.alone(talk)
	gen := in.freeGen.Load()
	calm := in.freeing.Load() == 0
	cached, seq := in.cache.snapshot()
	n := size(beginOut{})
	r := &request{op: opIomapBegin, node: in.nodeid, reply: true, min: n, max: n}
	if errno := k.post(t, r, body); errno != 0 {
		return nil, false, errno
	}
	interrupted := !t.check && op&OpWriteback == 0 && k.fault(k.cfg.Faults.Interrupt)
	if interrupted {
		// The caller is gone; the server is told, and its answer discarded.
		k.post(t, &request{op: opInterrupt, unique: r.unique | 1}, r.unique)
	}
	b, errno := k.wait(r)
	if errno != 0 {
		return nil, false, errno
	}
	var out beginOut
	dec(b, &out)
	k.prof.decMapping(&out.Read)
	k.prof.decMapping(&out.Write)
	dst, src, hasSrc, retry, errno := k.validBegin(in, op, pos, upserts, &out)
	if interrupted && errno == 0 {
		return nil, false, syscall.EINTR
	}
	if errno != 0 || retry {
		return nil, retry, errno
	}
	k.sameFree(in, op, free, sent)
	s := &step{pos: pos, dst: dst, src: src, hasSrc: hasSrc, gen: gen}
	s.limit(count)
	if calm && in.freeGen.Load() == gen && in.freeing.Load() == 0 && dst.hasDev() {
		s.claimed = k.claims.take(in, &dst, pos, s.count, false)
	}
	if alone && in.talk.alone(talk) {
		k.learn(in, op, &dst, pos, s.count, func() bool { return in.talk.alone(talk) })
		if _, now := in.cache.snapshot(); now == seq {
			in.compareCached(op, cached, &dst)
		}
	}
	return s, false, 0
}

// done ends the use of the step's addresses.
func (s *step) done(in *Inode) {
	if s.claimed {
		s.claimed = false
		in.k.claims.done(in, &s.dst, s.pos, s.count)
	}
}

// freeBlocks asks how much is free before an operation that must not allocate,
// if nothing else is going on; sent is how many requests there were.
func (k *Kernel) freeBlocks(op Op) (free int64, sent uint64) {
	if k.cfg.FreeBlocks == nil || op&(OpZero|OpReport) == 0 {
		return -1, 0
	}
	sent = k.sent()
	if k.inflight.Load() != 0 {
		return -1, 0
	}
	return k.cfg.FreeBlocks(), sent
}

// sameFree is that BEGIN allocated nothing. More may be free than before, since
// nobody waits for the end of a FORGET.
func (k *Kernel) sameFree(in *Inode, op Op, before int64, sent uint64) {
	if before < 0 || k.sent() != sent+2 {
		return
	}
	after := k.cfg.FreeBlocks()
	if k.sent() == sent+2 {
		k.expect("A2", after >= before, in, "BEGIN(%v) changed the number of free blocks from %d to %d", op, before, after)
	}
}

// compareCached is A8: what the cache says of the range is what the server says
// when it is asked. Kinds of zeros are alike.
func (in *Inode) compareCached(op Op, cached []Mapping, m *Mapping) {
	k := in.k
	for _, c := range cached {
		lo, hi := max(c.Offset, m.Offset), min(c.End(), m.End())
		if lo >= hi {
			continue
		}
		k.eval("A8")
		zeros := func(m *Mapping) bool { return m.Type != TypeMapped }
		var why string
		switch {
		case (c.Type == TypeInline) != (m.Type == TypeInline):
			why = "one is inline data, the other is not"
		case zeros(&c) != zeros(m):
			why = "one reads as zeros, the other as data"
		case c.hasDev() && m.hasDev() && (c.Dev != m.Dev || c.Addr+lo-c.Offset != m.Addr+lo-m.Offset):
			why = "they lie elsewhere"
		default:
			continue
		}
		k.violate("A8", in, "BEGIN(%v) says %v, the mapping cache %v: %s, and no INVAL came", op, *m, c, why)
		return
	}
}

// finish ends a step by END if one is due. written is the bytes done, of which
// none at all is what errno says.
func (in *Inode) finishStep(t *task, op Op, s *step, written int64, grew, stale bool, errno syscall.Errno) syscall.Errno {
	k := in.k
	s.done(in)
	if s.dst.Type == TypeInline || op&OpSwapfile != 0 {
		return 0
	}
	if op&OpWriteback != 0 && !k.cfg.Faults.EndWriteback {
		return 0
	}
	m := s.dst
	if grew {
		m.Flags |= FlagSizeChanged
	}
	if stale {
		m.Flags |= FlagStale
	}
	due := k.prof.isWrite(op) && (grew || written < s.count) ||
		k.prof == May26 && m.Flags&FlagWantIomapEnd != 0 || k.prof.isWrite(op) && k.fault(k.cfg.Faults.WantEnd)
	if !due {
		return 0
	}
	if k.cfg.NoEnd {
		k.eval("A11")
		return 0
	}
	if k.unsupported(opIomapEnd) || k.fault(k.cfg.Faults.DropEnd) {
		return 0
	}
	w := written
	if written == 0 && errno != 0 && k.fault(k.cfg.Faults.NegativeEnd) {
		w = -int64(errno)
	}
	body := endIn{Opflags: k.prof.opToWire(op), AttrIno: in.attrInode(), Pos: uint64(s.pos), Count: uint64(s.count),
		Written: w, Map: k.prof.encMapping(m)}
	if grew {
		// A server may raise the size on disk by this.
		in.established(s.pos + written)
	}
	var e syscall.Errno
	send := func() { _, e = k.call(t, opIomapEnd, in.nodeid, 0, 0, body) }
	if written < s.count {
		// It may give back what was reserved and is not used.
		in.talk.enter()
		defer in.talk.leave()
		in.freeing.Add(1)
		in.freeGen.Add(1)
		send()
		in.freeGen.Add(1)
		in.freeing.Add(-1)
	} else {
		send()
	}
	if e == syscall.ENOSYS {
		k.setUnsupported(opIomapEnd)
		return 0
	}
	return e
}

// established notes a size that the server may have on disk, for A6.
func (in *Inode) established(size int64) {
	in.mu.Lock()
	in.sizeLimit = max(in.sizeLimit, size)
	in.mu.Unlock()
}

// iterate works through [pos, pos+count). f does a step and returns how much of
// it, whether the size grew, and whether the mapping was found stale.
func (in *Inode) iterate(t *task, op Op, pos, count int64, f func(s *step) (n int64, grew, stale bool, errno syscall.Errno)) (
	int64, syscall.Errno) {
	var done int64
	for done < count {
		s, errno := in.begin(t, op, pos+done, count-done)
		if errno != 0 {
			return done, errno
		}
		n, grew, stale, errno := f(s)
		endErrno := in.finishStep(t, op, s, n, grew, stale, errno)
		done += n
		if errno == 0 {
			errno = endErrno
		}
		if errno != 0 {
			return done, errno
		}
		if n == 0 && !stale {
			return done, 0
		}
	}
	return done, 0
}
