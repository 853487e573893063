package iomappeer

import (
	"fmt"
	"math/rand/v2"
	"syscall"
)

// fuzzOps are the operations that Fuzz chooses from.
var fuzzOps = []fuzzOp{
	{"write", 20, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		pos, n := z.where(s, r)
		_, errno := s.h.Write(randomBytes(r, n), pos)
		return span2(pos, n), errno
	}},
	{"osync", 1, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		pos, n := z.where(s, r)
		_, errno := s.h.WriteSync(randomBytes(r, n), pos)
		return span2(pos, n), errno
	}},
	{"dwrite", 10, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		pos, n := z.sectors(s, r)
		_, errno := s.h.DWrite(randomBytes(r, n), pos)
		return span2(pos, n), errno
	}},
	{"atomic", 1, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		pos, _ := z.where(s, r)
		pos = roundDown(pos, z.k.bs)
		_, errno := s.h.AtomicWrite(randomBytes(r, z.k.bs), pos)
		return span2(pos, z.k.bs), errno
	}},
	{"mmap", 5, true, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		pos, n := z.where(s, r)
		size := s.h.in.Size()
		if pos >= size {
			return "", 0
		}
		n = min(n, size-pos)
		return span2(pos, n), s.h.MmapWrite(randomBytes(r, n), pos)
	}},
	{"read", 15, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		pos, n := z.where(s, r)
		_, errno := s.h.Read(make([]byte, n), pos)
		return span2(pos, n), errno
	}},
	{"dread", 6, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		pos, n := z.sectors(s, r)
		_, errno := s.h.DRead(make([]byte, n), pos)
		return span2(pos, n), errno
	}},
	{"truncate", 6, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		size, _ := z.where(s, r)
		return fmt.Sprint(size), s.h.Truncate(size)
	}},
	{"punch", 5, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		pos, n := z.where(s, r)
		return span2(pos, n), s.h.Fallocate(FallocPunchHole|FallocKeepSize, pos, n)
	}},
	{"zero", 4, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		pos, n := z.where(s, r)
		mode := uint32(FallocZeroRange)
		if r.IntN(2) == 0 {
			mode |= FallocKeepSize
		}
		return fmt.Sprintf("mode %#x %s", mode, span2(pos, n)), s.h.Fallocate(mode, pos, n)
	}},
	{"falloc", 4, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		pos, n := z.where(s, r)
		mode := uint32(r.IntN(2))
		return fmt.Sprintf("mode %#x %s", mode, span2(pos, n)), s.h.Fallocate(mode, pos, n)
	}},
	{"fsync", 6, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		return "", s.h.Fsync(r.IntN(3) == 0)
	}},
	{"writeback", 6, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		return "", z.k.Writeback(s.h.in)
	}},
	{"drop", 4, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		z.k.DropCaches(s.h.in)
		return "", 0
	}},
	{"fiemap", 2, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		_, errno := z.k.Fiemap(s.h.in, 0, maxLFS)
		return "", errno
	}},
	{"seek", 2, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		pos, _ := z.where(s, r)
		whence := SeekData + r.IntN(2)
		_, errno := z.k.Seek(s.h.in, pos, whence)
		return fmt.Sprint(pos), errno
	}},
	{"probe", 3, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		pos, n := z.where(s, r)
		ops := []Op{0, OpReport, OpDirect, OpZero, OpWrite, OpWrite | OpFault, OpWrite | OpDontCache}
		op := ops[r.IntN(len(ops))]
		switch r.IntN(6) {
		case 0:
			pos, n = z.k.maxbytes-1, 1
		case 1:
			n = maxLFS - pos
		case 2:
			n = 1
		}
		if op&OpWrite != 0 && pos+n > z.opts.MaxSize {
			op = OpReport
		}
		return fmt.Sprintf("%v %s", op, span2(pos, n)), z.k.Probe(s.h.in, op, pos, n)
	}},
	{"copy", 3, true, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		pos, n := z.where(s, r)
		to, _ := z.where(s, r)
		_, errno := s.h.CopyTo(s.h, pos, to, min(n, z.opts.MaxSize-to))
		return fmt.Sprintf("%s to %d", span2(pos, n), to), errno
	}},
	{"reopen", 3, true, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		in := s.h.in
		s.h.Close()
		s.h = nil
		flags := uint32(syscall.O_RDWR)
		if r.IntN(4) == 0 {
			flags |= syscall.O_TRUNC
		}
		if r.IntN(2) == 0 {
			if errno := z.k.Forget(in); errno != 0 && errno != syscall.EBUSY {
				return "forget", errno
			}
			var errno syscall.Errno
			if in, errno = z.k.Lookup(s.dir, s.name); errno != 0 {
				return "lookup", errno
			}
		}
		h, errno := z.k.Open(in, flags)
		if errno == syscall.ESTALE { // evicted since it was closed: a path is then walked again
			if in, errno = z.k.Lookup(s.dir, s.name); errno == 0 {
				h, errno = z.k.Open(in, flags)
			}
		}
		if errno != 0 {
			return "open", errno
		}
		s.h = h
		return fmt.Sprintf("flags %#x", flags), 0
	}},
	{"replace", 2, true, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		if s.h != nil {
			if r.IntN(2) == 0 { // unlinked while open, and still used
				if errno := z.k.Unlink(s.dir, s.name); errno != 0 {
					return "unlink", errno
				}
				pos, n := z.where(s, r)
				s.h.Write(randomBytes(r, n), pos)
				z.readAll(s)
				s.h.Close()
			} else {
				s.h.Close()
				if errno := z.k.Unlink(s.dir, s.name); errno != 0 {
					return "unlink", errno
				}
			}
			s.h = nil
		}
		return "", z.create(s, z.dirs[r.IntN(len(z.dirs))])
	}},
	{"rename", 2, true, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		z.mu.Lock()
		z.names++
		name := fmt.Sprintf("r%d", z.names)
		z.mu.Unlock()
		dir := z.dirs[r.IntN(len(z.dirs))]
		errno := z.k.Rename(s.dir, s.name, dir, name, uint32(r.IntN(2)))
		if errno == 0 {
			s.dir, s.name = dir, name
		}
		return name, errno
	}},
	{"link", 1, true, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		name := s.name + "l"
		if errno := z.k.Link(s.h.in, s.dir, name); errno != 0 {
			return name, errno
		}
		return name, z.k.Unlink(s.dir, name)
	}},
	{"tmpfile", 1, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		h, errno := z.k.Tmpfile(z.dirs[0], 0o600)
		if errno != 0 {
			return "", errno
		}
		h.Write(randomBytes(r, 5000), 0)
		h.Fsync(false)
		return "", h.Close()
	}},
	{"attr", 2, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		switch r.IntN(4) {
		case 0:
			return "chmod", z.k.Chmod(s.h.in, uint32(r.IntN(0o1000)))
		case 1:
			return "utimes", z.k.Utimes(s.h.in, 1e18+r.Int64N(1e17), 1e18+r.Int64N(1e17))
		case 2:
			_, errno := z.k.Stat(s.h.in)
			return "stat", errno
		}
		_, errno := z.k.Statfs()
		return "statfs", errno
	}},
	{"xattr", 1, true, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		v := randomBytes(r, 1+r.Int64N(100))
		if errno := z.k.Setxattr(s.h.in, "user.a", v, 0); errno != 0 {
			return "", errno
		}
		got, errno := z.k.Getxattr(s.h.in, "user.a")
		z.k.expect("ATTR", errno != 0 || string(got) == string(v), s.h.in, "user.a is %x, want %x", got, v)
		return "", errno
	}},
	{"readdir", 1, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		_, errno := z.k.Readdir(z.dirs[r.IntN(len(z.dirs))])
		return "", errno
	}},
	{"sync", 1, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) { return "", z.k.Sync() }},
	{"swap", 1, true, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		if _, errno := z.k.Swapon(s.h.in); errno != 0 {
			return "", errno
		}
		return "", z.k.Swapoff(s.h.in)
	}},
	{"freeze", 1, false, func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno) {
		if z.opts.Workers > 1 && z.opts.Shared {
			return "", 0
		}
		if errno := z.k.Freeze(); errno != 0 {
			return "", errno
		}
		s.h.Read(make([]byte, 100), 0)
		return "", z.k.Thaw()
	}},
}
