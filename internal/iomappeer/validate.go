package iomappeer

import "syscall"

const efsCorrupted = syscall.EUCLEAN

// validMapping applies the rules that every mapping from the server has to obey.
// what says where it came from; the errno is the kernel's.
func (k *Kernel) validMapping(in *Inode, what string, m *Mapping, writeSlot bool) syscall.Errno {
	bs := uint64(k.bs)
	bad := func(rule string) syscall.Errno {
		k.violate("A1", in, "%s: %v: %s", what, *m, rule)
		return efsCorrupted
	}
	k.eval("A1")
	switch {
	case m.Type == typeUnknown || m.Type >= TypeUnwrittenStripe && m.Type <= TypeMappedStripe:
		return bad("its type is unknown")
	case m.Flags&^flagsFromServer != 0:
		return bad("it has flags that are not the server's")
	case m.Length == 0:
		return bad("it is empty")
	case m.Offset%bs != 0 || m.Length%bs != 0:
		return bad("it is not aligned to blocks")
	case m.Offset+m.Length < m.Offset:
		return bad("its end overflows")
	case m.Offset >= uint64(k.maxbytes):
		return bad("it begins behind s_maxbytes")
	}
	switch m.Type {
	case TypeMapped, TypeUnwritten:
		if m.Dev == 0 || m.Addr == nullAddr {
			return bad("it has no address")
		}
		if m.Addr+m.Length < m.Addr {
			return bad("its address overflows")
		}
		b := k.backing(m.Dev)
		if b == nil {
			return bad("its device is not registered")
		}
		if m.Addr%bs != 0 || m.Addr+m.Length > uint64(b.size) {
			// The block layer finds these two.
			return bad("its address is not a range of blocks of the device")
		}
	case TypeHole, TypeDelalloc, TypeInline:
		if m.Dev != 0 || m.Addr != nullAddr {
			return bad("it has a device or an address")
		}
	case TypePureOverwrite:
		if !writeSlot {
			return bad("it is in the read slot")
		}
		if errno := k.nullFields(in, what, m, bad); errno != 0 {
			return errno
		}
	case TypeRetryCache, TypeNoCache:
		if errno := k.nullFields(in, what, m, bad); errno != 0 {
			return errno
		}
	}
	if m.Type == TypeInline && m.Length > bs {
		k.violate("A17", in, "%s: %v: inline data of more than a block", what, *m)
		if k.prof == May26 {
			return syscall.ENOMEM
		}
	}
	return 0
}

// nullFields wants the fields that a special type does not use to be null. The
// older profile's kernel does not look, the newer one's does: a server that lives
// with both fills them.
func (k *Kernel) nullFields(in *Inode, what string, m *Mapping, bad func(string) syscall.Errno) syscall.Errno {
	if m.Flags == 0 && m.Dev == 0 && m.Addr == nullAddr {
		k.eval("A17")
		return 0
	}
	if k.prof == V7 {
		k.expect("A17", false, in, "%s: %v: unused fields are set", what, *m)
		return 0
	}
	return bad("unused fields are set")
}

// validBegin applies the rules for the reply to a BEGIN. It returns the mapping
// that the operation works on, and the source of an out-of-place write. upserts
// is how many had succeeded when the kernel looked in the cache.
func (k *Kernel) validBegin(in *Inode, op Op, pos, upserts int64, out *beginOut) (dst, src Mapping, hasSrc, retry bool,
	errno syscall.Errno) {
	r, w := &out.Read, &out.Write
	bad := func(check, format string, args ...any) {
		k.violate(check, in, "BEGIN(%v) at %d: "+format, append([]any{op, pos}, args...)...)
		errno = efsCorrupted
	}
	if errno = k.validMapping(in, "read slot", r, false); errno != 0 {
		return
	}
	if errno = k.validMapping(in, "write slot", w, true); errno != 0 {
		return
	}
	k.eval("A1")
	if r.Type == TypeNoCache || w.Type == TypeNoCache {
		bad("A1", "NOCACHE in a reply")
		return
	}
	if !r.contains(pos) || !w.contains(pos) {
		bad("A1", "%v and %v do not both contain it", *r, *w)
		return
	}
	if r.Type == TypeRetryCache || w.Type == TypeRetryCache {
		k.eval("A9")
		k.expect("A17", w.Type != TypeRetryCache, in, "BEGIN(%v): RETRY_CACHE in the write slot", op)
		switch {
		case !in.cache.exists():
			bad("A9", "RETRY_CACHE, but no UPSERT has succeeded")
			return
		case in.cache.upserted() == upserts:
			// The kernel would look, miss and ask again: a server that does not
			// look at its errno goes round in circles.
			bad("A9", "RETRY_CACHE, but no UPSERT has succeeded since the kernel looked")
			return
		case op&(OpReport|OpAtomic|OpSwapfile) != 0:
			bad("A1", "RETRY_CACHE for an operation that does not use the cache")
			return
		}
		retry = true
		return
	}
	if k.prof.isWrite(op) && w.Type != TypePureOverwrite {
		dst, src, hasSrc = *w, *r, true
	} else {
		dst = *r
	}
	k.semantics(in, op, pos, &dst)
	if op&OpAtomic != 0 && (!dst.hasDev() || dst.Flags&FlagAtomicBio == 0) {
		k.violate("A1", in, "BEGIN(%v) at %d: %v is not for an atomic write", op, pos, dst)
		errno = syscall.EIO
		return
	}
	if dst.hasDev() && k.prof.isWrite(op) && k.backing(dst.Dev).ro {
		k.violate("A17", in, "BEGIN(%v): device %d is not open for writing", op, dst.Dev)
		errno = syscall.EACCES
	}
	return
}

// semantics checks what the operation may be answered with.
func (k *Kernel) semantics(in *Inode, op Op, pos int64, dst *Mapping) {
	switch {
	case op&OpWriteback != 0:
		k.expect("A2", dst.hasDev(), in, "BEGIN(%v) at %d is answered by %v: the data has no place", op, pos, *dst)
	case op&OpWrite != 0 && op&(OpZero|OpUnshare) == 0:
		ok := dst.Type != TypeHole && (op&OpDirect == 0 || dst.Type != TypeDelalloc)
		k.expect("A2", ok, in, "BEGIN(%v) at %d is answered by %v", op, pos, *dst)
	case op&OpDirect != 0:
		k.expect("A2", dst.Type != TypeDelalloc, in, "BEGIN(%v) at %d is answered by %v", op, pos, *dst)
	}
	if op&OpSwapfile != 0 {
		k.expect("A3", dst.Flags&(FlagDirty|FlagShared) == 0, in, "a mapping for a swap file is %v", *dst)
	}
	k.expect("A3", dst.Flags&FlagAtomicBio == 0 || op&OpAtomic != 0, in, "BEGIN(%v): %v has ATOMIC_BIO", op, *dst)
	k.expect("A17", dst.Flags&FlagWantIomapEnd == 0, in, "BEGIN(%v): %v has WANT_IOMAP_END, which v7 breaks", op, *dst)
	k.expect("A17", dst.Flags&FlagAnonWrite == 0, in, "BEGIN(%v): %v has ANON_WRITE", op, *dst)
}
