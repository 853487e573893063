package iomappeer

import "syscall"

// readDev reads from where a mapping says that byte pos lies.
func (k *Kernel) readDev(m *Mapping, pos int64, p []byte) syscall.Errno {
	if m.Type != TypeMapped {
		clear(p)
		return 0
	}
	b := k.backing(m.Dev)
	if b == nil || k.fault(k.cfg.Faults.ReadFails) {
		return syscall.EIO
	}
	if _, err := b.dev.ReadAt(p, m.at(pos)); err != nil {
		return syscall.EIO
	}
	return 0
}

// writeDev writes p to where a mapping says that byte pos lies.
func (k *Kernel) writeDev(m *Mapping, pos int64, p []byte) syscall.Errno {
	b := k.backing(m.Dev)
	if b == nil || k.fault(k.cfg.Faults.WriteFails) {
		return syscall.EIO
	}
	if _, err := b.dev.WriteAt(p, m.at(pos)); err != nil {
		return syscall.EIO
	}
	return 0
}

// readInline gets the content of an INLINE mapping by READ, without a handle.
func (in *Inode) readInline(t *task, m *Mapping) ([]byte, syscall.Errno) {
	n := int(min(m.Length, uint64(in.k.bs)))
	b, errno := in.k.call(t, opRead, in.nodeid, 0, n, readIn{Offset: m.Offset, Size: uint32(n)})
	if errno == syscall.ENOSYS || errno == 0 && len(b) == 0 && in.Size() > 0 {
		in.k.violate("A1", in, "READ of inline data is answered by %v and %d bytes", errno, len(b))
		return nil, syscall.EIO
	}
	if errno != 0 {
		return nil, errno
	}
	return append(b, make([]byte, n-len(b))...), 0
}

// writeInline puts bytes into inline data by WRITE, without a handle.
func (in *Inode) writeInline(t *task, p []byte, pos int64) syscall.Errno {
	k := in.k
	end := pos + int64(len(p))
	in.established(end)
	for at := pos; len(p) > 0; {
		var out writeOut
		errno := k.callInto(t, opWrite, in.nodeid, &out, writeIn{Offset: uint64(at), Size: uint32(len(p))}, p)
		in.submitted(at, at+int64(len(p))) // it may be in a block by the next answer
		if errno != 0 {
			return errno
		}
		if out.Size == 0 || int(out.Size) > len(p) {
			k.violate("A1", in, "WRITE of %d bytes of inline data is answered by %d", len(p), out.Size)
			return syscall.EIO
		}
		p = p[out.Size:]
		at += int64(out.Size)
	}
	in.mu.Lock()
	in.diskSize = max(in.diskSize, end)
	in.mu.Unlock()
	in.cache.drop(pos, end, k.bs)
	return 0
}
