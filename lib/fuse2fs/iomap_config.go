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

// iomapFlags returns the bits of Attr.Flags for an inode. Directories have none:
// the kernel forgets what it knows of one when a name in it changes, and of one
// that were its own it would ask for the default ACL, before each file it makes.
// New files inherit in the transaction that makes them instead.
func (s *Server) iomapFlags(a *ext2fs.Attr) uint32 {
	if a.Mode&ondisk.ModeFmt == ondisk.ModeDir {
		return 0
	}
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
