package iomappeer

import "syscall"

// Probe sends one BEGIN of the kind, checks the answer, and ends it as an operation
// that did nothing would. The errno is the server's, or the kernel's verdict.
func (k *Kernel) Probe(in *Inode, op Op, pos, count int64) syscall.Errno {
	if errno := in.usable(); errno != 0 {
		return errno
	}
	if !in.iomap {
		return syscall.EOPNOTSUPP
	}
	t := k.task("probe")
	if k.prof.isWrite(op) {
		k.frozen.RLock()
		defer k.frozen.RUnlock()
		in.rwsem.Lock()
		defer in.rwsem.Unlock()
	} else {
		in.rwsem.RLock()
		defer in.rwsem.RUnlock()
	}
	s, errno := in.begin(t, op, pos, count)
	if errno != 0 {
		return errno
	}
	return in.finishStep(t, op, s, 0, false, false, 0)
}

// InjectIOEnd sends an IOEND as it is given, with no I/O before it, and returns
// the reply. It is for what a kernel would not do but a server must survive:
// ranges of mixed states, ranges behind the end of the file, duplicates.
func (k *Kernel) InjectIOEnd(in *Inode, flags uint32, err syscall.Errno, pos, written int64) (newsize int64, errno syscall.Errno) {
	t := k.task("inject")
	var out ioendOut
	in.frees(pos, pos+written, func() {
		errno = k.callInto(t, opIomapIOEnd, in.nodeid, &out, ioendIn{Flags: flags, Error: -int32(err), AttrIno: in.attrInode(),
			Pos: uint64(pos), NewAddr: nullAddr, Written: uint64(written)})
	})
	in.known.forget(pos/k.bs, roundUp(pos+written, k.bs)/k.bs)
	if pos >= 0 && written > 0 && written <= 1<<30 {
		in.submitted(pos, pos+written) // there may be data
	}
	return int64(out.NewSize), errno
}

// InjectEnd sends an END as it is given.
func (k *Kernel) InjectEnd(in *Inode, op Op, pos, count, written int64, m Mapping) syscall.Errno {
	var errno syscall.Errno
	in.frees(pos, pos+count, func() {
		_, errno = k.call(k.task("inject"), opIomapEnd, in.nodeid, 0, 0, endIn{Opflags: k.prof.opToWire(op), AttrIno: in.attrInode(),
			Pos: uint64(pos), Count: uint64(count), Written: written, Map: k.prof.encMapping(m)})
	})
	return errno
}
