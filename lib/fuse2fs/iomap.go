package fuse2fs

import (
	"cmp"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fuse"
	"github.com/e2kit/e2kit/lib/iomap"
)

// IomapConfig says how the kernel is to reach the data of files by itself.
type IomapConfig struct {
	// ABI is the form that the kernel speaks; nil is to find out when the first
	// mapping is asked for.
	ABI *fuse.IomapABI

	// Fd is the block device, opened as the file system is, and Base the byte
	// in it where the file system starts. Metadata must not be cached by the
	// kernel, which the descriptor's O_DIRECT sees to: a block of it that is
	// written late would overwrite the data that has taken its place.
	Fd   int
	Base int64

	// AtomicMax is the largest atomic write of the device, in bytes, if a block
	// can be written so; else 0.
	AtomicMax uint32
}

// mapper is the part of a Server that answers where data lies.
type mapper struct {
	cfg IomapConfig
	on  bool   // the kernel has agreed; constant once INIT has been answered
	dev uint32 // number of the device, from IOMAP_CONFIG on

	configured chan struct{} // closed when IOMAP_CONFIG has been answered
	failed     error         // why that was by an error; set before

	abi   atomic.Pointer[fuse.IomapABI]
	tried atomic.Bool // abi is known
	tries sync.Mutex  // held to find it out

	seed maphash.Seed
	last [256]atomic.Uint64 // by node: the BEGIN that RetryCache answered last, and how often

	mu   sync.Mutex
	errs map[ondisk.Ino]syscall.Errno // guarded by mu: of write-back, for the next fsync
	some atomic.Bool                  // errs may not be empty
}

// iomapWanted returns the form of fuse-iomap to ask for, nil for none.
func (s *Server) iomapWanted() *fuse.IomapABI {
	if s.cfg.Iomap == nil || s.fs.JournalsAllData() {
		return nil
	}
	return cmp.Or(s.cfg.Iomap.ABI, fuse.IomapMay26)
}

// initIomap sees the answer to INIT, and does what has to be before requests
// come.
func (s *Server) initIomap(out *fuse.InitOut) {
	if (fuse.InitFlags(out.Flags)|fuse.InitFlags(out.Flags2)<<32)&fuse.Iomap == 0 {
		return
	}
	// Mapped files do not use the write-back cache of FUSE, and kernels have
	// crashed when both were on.
	out.Flags &^= uint32(fuse.WritebackCache)
	s.iomap.cfg = *s.cfg.Iomap
	s.iomap.on = true
	s.iomap.configured = make(chan struct{})
	s.iomap.abi.Store(s.iomapWanted())
	s.iomap.tried.Store(s.cfg.Iomap.ABI != nil)
	s.iomap.seed = maphash.MakeSeed()
	s.iomap.errs = make(map[ondisk.Ino]syscall.Errno)
	s.fs.SetKernelIO(ext2fs.KernelIO{On: true, Squeeze: s.squeeze})
}

// Iomap tells whether the kernel does the I/O of files itself; valid once Ready.
func (s *Server) Iomap() bool { return s.iomap.on }

// cacheMaxbytes is how much memory the kernel may take for the mappings of one
// file, in bytes: as much as it allows, since it throws all away beyond.
const cacheMaxbytes = 2 << 20

func (s *Server) iomapConfig(r *fuse.Request) {
	in, ok := fuse.In[fuse.IomapConfigIn](r)
	if !ok || !s.iomap.on || s.iomap.dev != 0 {
		r.ReplyErr(syscall.ENOSYS)
		return
	}
	defer close(s.iomap.configured)
	dev, err := s.conn.BackingOpen(s.iomap.cfg.Fd)
	if err != nil {
		s.iomap.failed = err
		s.fail(r, err)
		return
	}
	s.iomap.dev = dev
	if err := s.conn.SetNofs(); err != nil {
		s.log.Warn("under memory pressure the server may wait for itself", "err", err)
	}
	uuid := s.fs.UUID()
	lo, hi := ondisk.TimeRange(s.fs.InodeSize())
	*fuse.Out[fuse.IomapConfigOut](r) = fuse.IomapConfigOut{
		Flags: in.Flags & (fuse.ConfigUUID | fuse.ConfigBlocksize | fuse.ConfigTime | fuse.ConfigMaxbytes | fuse.ConfigCacheMaxbytes),
		UUID:  uuid, UUIDLen: uint8(len(uuid)),
		Blocksize: s.bsize,
		TimeGran:  s.timeGran(), TimeMin: lo, TimeMax: hi,
		Maxbytes:      min(s.fs.MaxFileBytes(), in.Maxbytes),
		CacheMaxbytes: cacheMaxbytes,
	}
	if s.iomap.failed = r.Reply(0); s.iomap.failed != nil {
		return
	}
	s.log.Info("the kernel does the I/O of files", slog.Uint64("device", uint64(dev)))
}

// iomapFlags returns the bits of Attr.Flags for an inode.
func (s *Server) iomapFlags(a *ext2fs.Attr) uint32 {
	f := uint32(fuse.AttrExclusive | fuse.AttrIomap)
	if a.Mode&ondisk.ModeFmt == ondisk.ModeReg {
		switch {
		case a.Flags&ondisk.FlagJournalData != 0:
			f = fuse.AttrExclusive
		case s.iomap.cfg.AtomicMax >= s.bsize && a.Flags&ondisk.FlagExtents != 0:
			f |= fuse.AttrAtomic
		}
	}
	for _, x := range [...]struct{ disk, wire uint32 }{{ondisk.FlagSync, fuse.AttrSync},
		{ondisk.FlagImmutable, fuse.AttrImmutable}, {ondisk.FlagAppend, fuse.AttrAppend}} {
		if a.Flags&x.disk != 0 {
			f |= x.wire
		}
	}
	return f
}

// statxIO adds what direct I/O and atomic writes have to keep to.
func (s *Server) statxIO(out *fuse.Statx, a *ext2fs.Attr) {
	const (
		dioalign    = 0x02000 // STATX_DIOALIGN
		writeAtomic = 0x10000 // STATX_WRITE_ATOMIC
		dioRead     = 0x20000 // STATX_DIO_READ_ALIGN
	)
	f := s.iomapFlags(a)
	if a.Mode&ondisk.ModeFmt != ondisk.ModeReg || f&fuse.AttrIomap == 0 {
		return
	}
	align := uint32(max(blockdev.InfoOf(s.fs.Device()).LogicalBlock, 512))
	out.Mask |= dioalign | dioRead
	out.DioMemAlign, out.DioOffsetAlign, out.DioReadOffsetAlign = align, align, align
	if f&fuse.AttrAtomic != 0 {
		out.Mask |= writeAtomic
		out.AtomicUnitMin, out.AtomicUnitMax, out.AtomicSegmentsMax = s.bsize, s.bsize, 1
	}
}

// urgent says whether memory may not come free before r is served.
func (s *Server) urgent(r *fuse.Request) bool {
	switch r.Op() {
	case fuse.OpIomapIoend, fuse.OpWrite:
		return true
	case fuse.OpIomapBegin:
		in, ok := fuse.In[fuse.IomapBeginIn](r)
		return ok && s.iomap.on && s.iomap.abi.Load().Op(in.Opflags)&iomap.Writeback != 0
	}
	return false
}

// iomapABI returns the form of fuse-iomap in which the kernel speaks of a node it
// has asked about. Both forms call themselves the same, but have other numbers: so
// the kernel is told something by those that stand for nothing to be done, and
// refuses the message if it knows them by other numbers.
func (s *Server) iomapABI(node, ino uint64) *fuse.IomapABI {
	if s.iomap.tried.Load() {
		return s.iomap.abi.Load()
	}
	s.iomap.tries.Lock()
	defer s.iomap.tries.Unlock()
	for _, abi := range []*fuse.IomapABI{fuse.IomapMay26, fuse.IomapV7} {
		if s.iomap.tried.Load() {
			break
		}
		nothing := iomap.Pair{Read: iomap.Mapping{Length: int64(s.bsize), Addr: iomap.NullAddr, Type: iomap.NoCache}}
		nothing.Overwrite()
		var out fuse.IomapBeginOut
		abi.Put(&out.Read, &nothing.Read, 0, 0)
		abi.Put(&out.Write, &nothing.Write, 0, 0)
		switch errno := s.conn.IomapUpsert(node, ino, &out); errno {
		case 0:
			s.iomap.abi.Store(abi)
			s.iomap.tried.Store(true)
			s.log.Info("the kernel's form of fuse-iomap", "is", abi.Name)
		case ondisk.EUCLEAN:
		default: // it says nothing about the numbers
			return s.iomap.abi.Load()
		}
	}
	return s.iomap.abi.Load()
}

// uncached are operations whose answers the kernel does not look for in its
// cache of mappings.
const uncached = iomap.Report | iomap.Atomic | iomap.Swapfile | iomap.DAX

// iomapBegin answers where data lies. What the kernel may remember it is told
// first. A buffered write, and write-back, are sent to look there: a mapping that
// they find in the cache they check again under each page's lock, so that one
// that has changed meanwhile is not followed. A mapping in an answer holds to the
// end of the operation, which is well for reads, and for direct I/O, which goes
// on nothing that may change.
func (s *Server) iomapBegin(r *fuse.Request) {
	in, ok := fuse.In[fuse.IomapBeginIn](r)
	if !ok || !s.iomap.on {
		r.ReplyErr(syscall.ENOSYS)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	node := r.NodeID()
	abi := s.iomapABI(node, in.AttrIno)
	op := abi.Op(in.Opflags)
	ask := op
	if op&iomap.Writeback != 0 || op&iomap.Allocates != 0 && r.UID() == 0 {
		ask |= ext2fs.Privileged // pages were accepted when they were written
	}
	pos := int64(in.Pos)
	pair, err := ip.KernelBegin(ask, pos, int64(min(in.Count, 1<<62)))
	if err != nil {
		if op&iomap.Writeback != 0 {
			s.writebackFailed(ip.Ino(), errno(err))
		}
		s.fail(r, err)
		return
	}
	if op&iomap.Atomic != 0 {
		pair.Read.Flags |= iomap.AtomicBio
	}
	if pair.Read.Type == iomap.Inline && op&iomap.Allocates != 0 && ip.Flags()&ondisk.FlagInlineData == 0 {
		// An empty file becomes one with its data inside: it is no hole any more.
		if err := s.conn.IomapInval(node, in.AttrIno, 0, int64(s.bsize)); err != nil {
			s.log.Debug("forget mappings", "inode", ip.Ino(), "err", err)
		}
	}
	out := fuse.Out[fuse.IomapBeginOut](r)
	if op&uncached == 0 && pair.Read.Type != iomap.Inline {
		lookup := op&iomap.Allocates != 0 && op&iomap.Direct == 0
		ahead := op&iomap.Direct != 0 && pair.Read.Type == iomap.Unwritten && pair.Read.End()-int64(s.bsize) >= pos+int64(in.Count)
		if lookup || ahead || pair.Read.Type == iomap.Mapped || pair.Read.Type == iomap.Hole {
			errno := s.publish(out, ip, op, node, in.AttrIno, pos)
			if errno == 0 && lookup && !s.repeated(node, in) {
				pair.Read.Type, pair.Read.Addr, pair.Read.Dev, pair.Read.Flags = iomap.RetryCache, iomap.NullAddr, 0, 0
			}
		}
	}
	pair.Overwrite()
	abi.Put(&out.Read, &pair.Read, s.iomap.cfg.Base, s.iomap.dev)
	abi.Put(&out.Write, &pair.Write, s.iomap.cfg.Base, s.iomap.dev)
	r.Reply(0)
}

// publish puts the longest mapping around pos that the kernel may remember into
// its cache. buf is room for the message. It returns ENOENT if there is none, and
// what the kernel says.
func (s *Server) publish(buf *fuse.IomapBeginOut, ip *ext2fs.Inode, op iomap.Op, node, ino uint64, pos int64) syscall.Errno {
	ip.HoldMapping()
	defer ip.ReleaseMapping()
	m, ok := ip.MappingAround(op, pos)
	if !ok {
		return syscall.ENOENT
	}
	return s.upsert(buf, m, node, ino)
}

func (s *Server) upsert(buf *fuse.IomapBeginOut, m iomap.Mapping, node, ino uint64) syscall.Errno {
	p := iomap.Pair{Read: m}
	p.Overwrite()
	abi := s.iomap.abi.Load()
	abi.Put(&buf.Read, &p.Read, s.iomap.cfg.Base, s.iomap.dev)
	abi.Put(&buf.Write, &p.Write, s.iomap.cfg.Base, s.iomap.dev)
	return s.conn.IomapUpsert(node, ino, buf)
}

// repeats is how often the kernel is sent to its cache with one question.
const repeats = 3

// repeated says whether the kernel has been sent to its cache with the same
// question before, so that what it was told does not seem to stay there.
func (s *Server) repeated(node uint64, in *fuse.IomapBeginIn) bool {
	h := maphash.Comparable(s.iomap.seed, *in) ^ node<<8
	slot := &s.iomap.last[node%uint64(len(s.iomap.last))]
	const times = 1<<8 - 1
	old := slot.Load()
	n := old & times
	if old&^times != h&^times {
		n = 0
	}
	if n >= repeats {
		slot.Store(0)
		return true
	}
	slot.Store(h&^times | n + 1)
	return false
}

// iomapEnd takes back what was reserved for direct I/O and not used, until the
// first message comes that says no more than that a buffered write has extended a
// file. There would be one for each: the kernel is then told to send none at all.
// Reservations come back when it lets go of the inode, as those of buffered writes
// do.
func (s *Server) iomapEnd(r *fuse.Request) {
	in, ok := fuse.In[fuse.IomapEndIn](r)
	if !ok || !s.iomap.on {
		r.ReplyErr(syscall.ENOSYS)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	abi := s.iomap.abi.Load()
	op := abi.Op(in.Opflags)
	if op&iomap.Direct == 0 && in.Written == int64(in.Count) {
		r.ReplyErr(syscall.ENOSYS)
		return
	}
	s.done(r, ip.End(op, int64(in.Pos), int64(min(in.Count, 1<<62)), in.Written,
		abi.Get(&in.Map, s.iomap.cfg.Base)))
}

// iomapIoend makes written data part of the file. Transactions are shared by all
// that end between two commits, and the device is flushed before the commit block,
// so data is there before what points to it.
func (s *Server) iomapIoend(r *fuse.Request) {
	in, ok := fuse.In[fuse.IomapIoendIn](r)
	if !ok || !s.iomap.on {
		r.ReplyErr(syscall.ENOSYS)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	e := iomap.IOEnd{Flags: iomap.EndFlags(in.Flags), Pos: int64(in.Pos), Written: int64(min(in.Written, 1<<62)), Addr: iomap.NullAddr}
	var failed syscall.Errno
	if in.Error < 0 {
		failed = syscall.Errno(-in.Error)
		e.Err = failed
	}
	if e.Flags&iomap.EndShared != 0 && failed == 0 {
		failed = ondisk.EUCLEAN // no blocks are shared
		e.Err = failed
	}
	size, err := ip.IOEnd(e)
	if err != nil {
		failed = errno(err)
		if e.Flags&(iomap.EndDirect|iomap.EndSwapoff) == 0 {
			s.writebackFailed(ip.Ino(), failed)
		}
		if e.Err == nil {
			s.log.Error("written data is lost", "inode", ip.Ino(), "offset", e.Pos, "length", e.Written, "err", err)
		}
		r.ReplyErr(failed)
		return
	}
	if e.Written > 0 && e.Flags&(iomap.EndUnwritten|iomap.EndAppend) != 0 {
		// The kernel forgets what it has cached of the range when it has the
		// answer. After that it cannot be told, since it may be unmounting, and
		// wait for us with locks held that a notification takes. So it is told
		// of the range before this one.
		if off, n := ip.Forgets(e.Pos, e.Written); n > 0 {
			var buf fuse.IomapBeginOut
			s.publish(&buf, ip, 0, r.NodeID(), in.AttrIno, off)
		}
	}
	fuse.Out[fuse.IomapIoendOut](r).Newsize = uint64(size)
	r.Reply(0)
}

// writebackFailed remembers that data could not be written back. The kernel
// may not tell whoever calls fsync.
func (s *Server) writebackFailed(ino ondisk.Ino, e syscall.Errno) {
	s.iomap.mu.Lock()
	s.iomap.errs[ino] = e
	s.iomap.some.Store(true)
	s.iomap.mu.Unlock()
}

// writebackError returns what writebackFailed remembers of an inode, once.
func (s *Server) writebackError(ino ondisk.Ino) error {
	if !s.iomap.some.Load() {
		return nil
	}
	s.iomap.mu.Lock()
	defer s.iomap.mu.Unlock()
	e := s.iomap.errs[ino]
	delete(s.iomap.errs, ino)
	if len(s.iomap.errs) == 0 {
		s.iomap.some.Store(false)
	}
	if e == 0 {
		return nil
	}
	return e
}

// renewMost is how many mappings are told anew after an fsync.
const renewMost = 16

// synced is called after an inode has been made durable. The kernel takes a
// mapping that is not committed for a reason to ask for an fsync, and not to swap
// to it, so what it was told is told anew. The error is of write-back before.
func (s *Server) synced(ip *ext2fs.Inode, node uint64) error {
	off, n := ip.TakeDirty()
	var buf fuse.IomapBeginOut
	for i, end := 0, off+n; off < end; i++ {
		next := int64(-1)
		if i < renewMost {
			next = s.renew(&buf, ip, node, off)
		}
		if next <= off {
			if err := s.conn.IomapInval(node, uint64(ip.Ino()), off, end-off); err != nil {
				s.log.Debug("forget mappings", "inode", ip.Ino(), "err", err)
			}
			break
		}
		off = next
	}
	return s.writebackError(ip.Ino())
}

// renew puts the mapping at off into the kernel's cache again, if it is of blocks
// with data, and returns where it ends; -1 if that could not be done.
func (s *Server) renew(buf *fuse.IomapBeginOut, ip *ext2fs.Inode, node uint64, off int64) int64 {
	ip.HoldMapping()
	defer ip.ReleaseMapping()
	m, ok := ip.MappingAround(0, off)
	if !ok {
		return -1
	}
	if m.Type == iomap.Mapped && s.upsert(buf, m, node, uint64(ip.Ino())) != 0 {
		return -1
	}
	return m.End()
}

// remapped drops cached mappings that an operation on n bytes at off has made
// wrong though they are not of these bytes. The kernel sees to the bytes.
func (s *Server) remapped(ip *ext2fs.Inode, node uint64, off, n int64) {
	if !s.iomap.on {
		return
	}
	if off, n = ip.Clusters(off, n); n == 0 {
		return
	}
	if err := s.conn.IomapInval(node, uint64(ip.Ino()), off, n); err != nil {
		s.log.Debug("forget mappings", "inode", ip.Ino(), "err", err)
	}
}

// squeezeNodes is how many inodes the kernel is asked to let go of at a time.
const squeezeNodes = 1024

// squeeze has the kernel drop inodes that it does not use, for what is reserved
// for writes that may not come.
func (s *Server) squeeze(inodes []ondisk.Ino) {
	nodes := make([]uint64, 0, min(len(inodes), squeezeNodes))
	for _, ino := range inodes[:min(len(inodes), squeezeNodes)] {
		nodes = append(nodes, s.toNode(ino))
	}
	if err := s.conn.Prune(nodes); err != nil {
		s.log.Debug("ask for inodes back", "err", err)
	}
}

// freeze brings everything to the device and leaves it alone until unfreeze.
func (s *Server) freeze(r *fuse.Request) {
	if ro, _ := s.fs.ReadOnly(); ro {
		r.ReplyErr(0)
		return
	}
	s.frozen.begin()
	err := s.fs.Freeze()
	if err != nil {
		s.frozen.end(s.release)
	}
	s.done(r, err)
}

func (s *Server) unfreeze(r *fuse.Request) {
	if ro, _ := s.fs.ReadOnly(); ro {
		r.ReplyErr(0)
		return
	}
	err := s.fs.Thaw()
	s.frozen.end(s.release)
	s.done(r, err)
}

// frozen keeps what the kernel lets go of while the file system is frozen. Files
// without a name cannot be freed then, and no thread may wait for it: it may be the
// one that is to read what ends the freeze.
type frozen struct {
	on   atomic.Bool // changed with mu held
	mu   sync.Mutex
	kept []fuse.ForgetOne // guarded by mu
}

func (f *frozen) begin() {
	f.mu.Lock()
	f.on.Store(true)
	f.mu.Unlock()
}

// keep reports whether the references are kept until the end.
func (f *frozen) keep(node, n uint64) bool {
	if !f.on.Load() {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.on.Load() {
		return false
	}
	f.kept = append(f.kept, fuse.ForgetOne{NodeID: node, Nlookup: n})
	return true
}

// end gives what was kept to release.
func (f *frozen) end(release func(node, n uint64)) {
	f.mu.Lock()
	f.on.Store(false)
	kept := f.kept
	f.kept = nil
	f.mu.Unlock()
	for _, k := range kept {
		release(k.NodeID, k.Nlookup)
	}
}

// shutdown is told when the device is gone, or is to be taken for gone.
func (s *Server) shutdown(r *fuse.Request) { s.done(r, s.fs.Shutdown(ext2fs.ShutdownNoLogFlush)) }

// copyRange copies between files, whose pages the kernel has written back.
func (s *Server) copyRange(r *fuse.Request) {
	in, ok := fuse.In[fuse.CopyFileRangeIn](r)
	if !ok || in.Flags != 0 {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	dst := s.inode(r, in.NodeIDOut)
	if dst == nil {
		return
	}
	defer dst.Put()
	if dst.Flags()&protected != 0 {
		r.ReplyErr(syscall.EPERM)
		return
	}
	if r.UID() != 0 {
		if err := dst.KillPriv(); err != nil {
			s.fail(r, err)
			return
		}
	}
	// Answers of the older operation have 32 bits.
	n, err := ip.CopyRange(int64(in.OffIn), dst, int64(in.OffOut), int64(min(in.Len, copyMost)), r.UID() == 0)
	if err != nil {
		s.fail(r, err)
		return
	}
	if r.Op() == fuse.OpCopyFileRange64 {
		fuse.Out[fuse.CopyFileRangeOut](r).BytesCopied = uint64(n)
	} else {
		fuse.Out[fuse.WriteOut](r).Size = uint32(n)
	}
	r.Reply(0)
}

// copyMost bounds what one request copies, and so for how long it can neither be
// interrupted nor show progress.
const copyMost = 64 << 20
