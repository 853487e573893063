package iomappeer

import "syscall"

// notify takes a notification. What it returns is the errno of the server's
// write.
func (k *Kernel) notify(code int32, b []byte) syscall.Errno {
	k.count.note(notifyName(code))
	if k.destroying.Load() {
		// It would wait for the lock that the unmount holds, and the unmount for
		// the reply to DESTROY.
		k.expect("A15", false, nil, "%s during unmount, which deadlocks", notifyName(code))
		return syscall.ENOTCONN
	}
	k.killsb.RLock()
	defer k.killsb.RUnlock()
	switch code {
	case notifyUpsert:
		var m upsertOut
		if rest, ok := dec(b, &m); !ok || len(rest) != 0 {
			return k.malformed(code, len(b))
		}
		return k.upsert(&m)
	case notifyInval:
		var m invalOut
		if rest, ok := dec(b, &m); !ok || len(rest) != 0 {
			return k.malformed(code, len(b))
		}
		return k.invalMappings(&m)
	case notifyBackingInval:
		var m backingInvalOut
		if rest, ok := dec(b, &m); !ok || len(rest) != 0 {
			return k.malformed(code, len(b))
		}
		return k.backingInval(&m)
	}
	return k.notifyStock(code, b)
}

func (k *Kernel) malformed(code int32, n int) syscall.Errno {
	k.violate("A1", nil, "%s has a payload of %d bytes", notifyName(code), n)
	return syscall.EINVAL
}

// target finds the inode that a notification about mappings is for.
func (k *Kernel) target(node, attrIno uint64) (*Inode, syscall.Errno) {
	if !k.iomap {
		return nil, syscall.EINVAL
	}
	in := k.inode(node)
	if in == nil {
		return nil, syscall.ESTALE // legal: it was evicted while the server worked
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.attrIno != attrIno:
		k.violate("A1", in, "a notification has attr_ino %d, want %d", attrIno, in.attrIno)
		return nil, syscall.EINVAL
	case in.bad:
		return nil, syscall.EIO
	case !in.iomap:
		return nil, syscall.EINVAL
	}
	return in, 0
}

func (k *Kernel) upsert(m *upsertOut) syscall.Errno {
	k.prof.decMapping(&m.Read)
	k.prof.decMapping(&m.Write)
	in, errno := k.target(m.NodeID, m.AttrIno)
	if errno != 0 {
		return errno
	}
	for _, s := range []struct {
		m     *Mapping
		write bool
	}{{&m.Read, false}, {&m.Write, true}} {
		if s.m.Type == typeUnknown && k.cfg.MayGuess {
			return efsCorrupted
		}
		if errno := k.validMapping(in, "UPSERT", s.m, s.write); errno != 0 {
			return errno
		}
		if s.m.Type == TypeRetryCache {
			k.violate("A1", in, "UPSERT of RETRY_CACHE")
			return efsCorrupted
		}
		k.expect("A3", s.m.Flags&FlagAtomicBio == 0, in, "UPSERT of %v, with ATOMIC_BIO", *s.m)
	}
	if errno := k.upsertFault(); errno != 0 {
		return errno
	}
	// What is cached must not overlap another file, as long as it is cached.
	if m.Read.hasDev() {
		k.claims.take(in, &m.Read, int64(m.Read.Offset), int64(m.Read.Length), true)
	}
	c := &in.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.made {
		c.made, c.seq = true, 1
	}
	c.upserts++
	limit := int(k.cacheMax)
	if m.Read.Type != TypeNoCache {
		c.read.insert(m.Read, limit)
		c.seq++
	}
	switch m.Write.Type {
	case TypeNoCache:
	case TypePureOverwrite:
		if c.hasWrite {
			c.write.insert(m.Write, limit)
			c.seq++
		}
	default:
		c.hasWrite = true
		c.write.insert(m.Write, limit)
		c.seq++
	}
	return 0
}

func (k *Kernel) invalMappings(m *invalOut) syscall.Errno {
	in, errno := k.target(m.NodeID, m.AttrIno)
	if errno != 0 {
		return errno
	}
	bs := uint64(k.bs)
	for _, r := range []byteRange{m.Read, m.Write} {
		if r.Length == 0 {
			continue
		}
		toEnd := r.Length == nullAddr
		if r.Offset >= uint64(k.maxbytes) || r.Offset%bs != 0 || !toEnd && (r.Length%bs != 0 || r.Offset+r.Length < r.Offset) {
			k.violate("A1", in, "INVAL of [%d,+%d)", r.Offset, r.Length)
			return efsCorrupted
		}
	}
	k.eval("A1")
	end := func(r byteRange) uint64 {
		if r.Length == nullAddr {
			return nullAddr
		}
		return r.Offset + r.Length
	}
	// From here on the server may use the blocks for something else.
	if m.Read.Length != 0 {
		k.claims.release(in, int64(m.Read.Offset), int64(min(end(m.Read), maxLFS)))
	}
	in.freeGen.Add(1)
	c := &in.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.made {
		return 0
	}
	if m.Read.Length != 0 {
		c.read.remove(m.Read.Offset, end(m.Read))
	}
	if m.Write.Length != 0 {
		c.write.remove(m.Write.Offset, end(m.Write))
	}
	c.seq++
	return 0
}

func (k *Kernel) backingInval(m *backingInvalOut) syscall.Errno {
	if m.Dev == 0 || !k.iomap {
		return syscall.EINVAL
	}
	b := k.backing(m.Dev)
	if b == nil {
		k.violate("A1", nil, "BACKING_INVAL of device %d, which is not registered", m.Dev)
		return syscall.ENODEV
	}
	k.expect("A16", m.Reserved == 0, nil, "the reserved word of BACKING_INVAL is %#x", m.Reserved)
	r := m.Range
	switch {
	case r.Offset >= uint64(b.size):
		k.violate("A1", nil, "BACKING_INVAL at %d, behind the device's end", r.Offset)
		return syscall.EINVAL
	case r.Length == 0:
		return 0
	case r.Offset+r.Length < r.Offset:
		k.violate("A1", nil, "BACKING_INVAL [%d,+%d) overflows", r.Offset, r.Length)
		return syscall.EINVAL
	}
	k.disk.drop(int64(r.Offset), int64(min(r.Offset+r.Length, uint64(b.size))))
	return 0
}

// Stock notifications that matter here.
const (
	notifyInvalInode = 2
	notifyInvalEntry = 3
	notifyDelete     = 6
	notifyIncEpoch   = 8
	notifyPrune      = 9
)

func (k *Kernel) notifyStock(code int32, b []byte) syscall.Errno {
	switch code {
	case notifyInvalInode:
		var m struct {
			Ino      uint64
			Off, Len int64
		}
		if _, ok := dec(b, &m); !ok {
			return k.malformed(code, len(b))
		}
		in := k.inode(m.Ino)
		if in == nil {
			return syscall.ENOENT
		}
		in.expire()
		return 0
	case notifyInvalEntry, notifyDelete:
		var m struct {
			Parent, Child uint64
			Namelen, Pad  uint32
		}
		var rest []byte
		var ok bool
		if code == notifyDelete {
			rest, ok = dec(b, &m)
		} else {
			var e struct {
				Parent         uint64
				Namelen, Flags uint32
			}
			rest, ok = dec(b, &e)
			m.Parent, m.Namelen = e.Parent, e.Namelen
		}
		if !ok || len(rest) != int(m.Namelen)+1 {
			return k.malformed(code, len(b))
		}
		if in := k.inode(m.Parent); in == nil {
			return syscall.ENOENT
		}
		k.dents.remove(m.Parent, string(rest[:m.Namelen]))
		return 0
	case notifyIncEpoch:
		k.dents.clear()
		return 0
	case notifyPrune:
		return k.prune(b)
	}
	k.violate("A1", nil, "%s is none that the peer's kernel knows", notifyName(code))
	return syscall.EINVAL
}

// prune lets go of inodes that nobody uses, as the server asks. What is dirty
// stays: the kernel would have to write it back to a server that waits here.
func (k *Kernel) prune(b []byte) syscall.Errno {
	var m struct {
		Count, Padding uint32
		Spare          uint64
	}
	rest, ok := dec(b, &m)
	if !ok || len(rest) != 8*int(m.Count) {
		return k.malformed(notifyPrune, len(b))
	}
	k.expect("A16", m.Padding == 0 && m.Spare == 0, nil, "PRUNE has reserved words set")
	t := k.task("prune")
	for range m.Count {
		var node uint64
		rest, _ = dec(rest, &node)
		in := k.inode(node)
		if in == nil || in == k.root || in.dir {
			continue
		}
		in.mu.Lock()
		used := in.opens > 0 || in.timesDue
		in.mu.Unlock()
		if !used && !in.pages.dirtyWithin(0, maxLFS, k.folioSize()) {
			in.evict(t)
		}
	}
	return 0
}
