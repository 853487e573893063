package fuse2fs

import (
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fuse"
)

// Config says how a file system is served.
type Config struct {
	FS       *ext2fs.FS
	Log      *slog.Logger // nil: no log
	Begin    func() error // called before the kernel is answered at all; an error refuses the mount; may be nil
	Closed   func()       // called after FS was closed and before the unmount returns; may be nil
	Fakeroot bool         // every caller makes files as root
	UID, GID *uint32      // shown as the owner of everything, if set
	NoACL    bool         // POSIX ACLs are stored but not enforced
	NoCache  bool         // no write-back cache, for debugging
	// When reading changes the time of access: of files, and of directories.
	Atime, DirAtime ext2fs.AtimeMode

	Workers  int   // 0: as many as pay
	Clones   []int // of fd, see fuse.Config; taken over
	MaxPages int   // largest request, in pages; 0: ask the kernel

	// Rings, if set, are for requests to come by io_uring where the kernel offers
	// it; taken over.
	Rings *fuse.Rings

	// RootNodeID is the node id of the root directory, 0 being 1: the mount option
	// root_nodeid of kernels that have it. With 2 all node ids are inode numbers.
	RootNodeID uint64

	// Iomap, if set, lets the kernel do the I/O of files by itself, if it can
	// and if not all data is journaled.
	Iomap *IomapConfig
}

// cacheForever is how long the kernel may trust names and attributes: nobody
// else changes them.
const cacheForever = 1 << 30 // seconds

// Server answers the requests of one connection.
type Server struct {
	fs     *ext2fs.FS
	cfg    Config
	log    *slog.Logger
	conn   *fuse.Conn
	root   uint64 // node id of the root directory
	bsize  uint32
	onDisk bool  // device I/O goes past the page cache, and so to a disk
	ended  error // of closing the file system; set by destroy

	opened   atomic.Bool // an OPEN has been answered, see ProbeName
	removals removals

	iomap  mapper
	frozen frozen
}

// New attaches a server to fd, an open /dev/fuse that is mounted or will be.
// It takes over fd, and the file system is closed when Serve returns.
func New(fd int, cfg Config) (*Server, error) {
	return serve(cfg, func(c fuse.Config) (*fuse.Conn, error) { return fuse.NewConn(fd, c) })
}

// NewOn is New for anything that behaves like /dev/fuse.
func NewOn(dev fuse.Device, cfg Config) (*Server, error) {
	return serve(cfg, func(c fuse.Config) (*fuse.Conn, error) { return fuse.NewConnOn(dev, c) })
}

func serve(cfg Config, connect func(fuse.Config) (*fuse.Conn, error)) (*Server, error) {
	s := &Server{fs: cfg.FS, cfg: cfg, log: cfg.Log, bsize: uint32(cfg.FS.BlockSize()),
		onDisk: blockdev.Align(cfg.FS.Device()) > 1}
	if s.root = cfg.RootNodeID; s.root == 0 {
		s.root = fuse.RootID
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	conn, err := connect(fuse.Config{
		Iomap:    s.iomapWanted(),
		Urgent:   s.urgent,
		Handlers: s.handlers(),
		Flags:    s.initFlags(),
		TimeGran: s.timeGran(),
		Workers:  cfg.Workers,
		Clones:   cfg.Clones,
		MaxPages: cfg.MaxPages,
		Rings:    cfg.Rings,
		Init:     s.begin,
		Destroy:  s.destroy,
		Log:      func(format string, args ...any) { s.log.Warn(fmt.Sprintf(format, args...)) },
	})
	if err != nil {
		return nil, err
	}
	s.conn = conn
	return s, nil
}

// Ready is closed once the kernel has been answered: the mount works.
func (s *Server) Ready() <-chan struct{} { return s.conn.Ready() }

// Negotiated returns what was agreed on with the kernel; all zero before Ready.
func (s *Server) Negotiated() *fuse.Negotiated { return s.conn.Negotiated() }

// Started waits until the mount works, and returns nil, or why it will not.
func (s *Server) Started() error {
	<-s.conn.Ready()
	if !s.iomap.on {
		return nil
	}
	<-s.iomap.configured
	return s.iomap.failed
}

// Serve answers requests until the file system is unmounted, then closes it.
// It returns nil only if everything is on the device and marked clean.
func (s *Server) Serve() error {
	err := s.conn.Serve()
	if err == nil {
		err = s.ended
	}
	return err
}

// Stop makes Serve close the file system and return err, though it is still
// mounted: what has not reached the server by then is lost.
func (s *Server) Stop(err error) { s.conn.Stop(err) }

// initFlags returns what is asked of the kernel, which grants what it knows.
func (s *Server) initFlags() fuse.InitFlags {
	f := fuse.AsyncRead | fuse.ExportSupport | fuse.BigWrites | fuse.DontMask |
		fuse.HasIoctlDir | fuse.DoReaddirplus | fuse.ReaddirplusAuto | fuse.AsyncDIO |
		fuse.NoOpenSupport | fuse.NoOpendirSupport | fuse.ParallelDirops |
		fuse.MaxPages | fuse.CacheSymlinks | fuse.ExplicitInvalData |
		fuse.HandleKillprivV2 | fuse.SetxattrExt | fuse.DirectIOAllowMmap |
		fuse.InitExt
	if ro, _ := s.fs.ReadOnly(); !ro && !s.cfg.NoCache {
		f |= fuse.WritebackCache
	}
	if !s.cfg.NoACL {
		f |= fuse.PosixACL
	}
	return f
}

// timeGran returns the granularity of times in ns: inodes of 128 bytes hold
// whole seconds.
func (s *Server) timeGran() uint32 {
	if s.fs.InodeSize() <= ondisk.GoodOldInodeSz {
		return 1e9
	}
	return 1
}

func (s *Server) handlers() fuse.Handlers {
	return fuse.Handlers{
		fuse.OpLookup:      s.lookup,
		fuse.OpForget:      s.forget,
		fuse.OpBatchForget: s.batchForget,
		fuse.OpGetattr:     s.getattr,
		fuse.OpSetattr:     s.setattr,
		fuse.OpStatx:       s.statx,
		fuse.OpReadlink:    s.readlink,
		fuse.OpSymlink:     s.symlink,
		fuse.OpMknod:       s.mknod,
		fuse.OpMkdir:       s.mkdir,
		fuse.OpUnlink:      s.unlink,
		fuse.OpRmdir:       s.rmdir,
		fuse.OpRename:      s.rename,
		fuse.OpRename2:     s.rename2,
		fuse.OpLink:        s.link,
		fuse.OpCreate:      s.create,
		fuse.OpTmpfile:     s.tmpfile,
		fuse.OpOpen:        s.open,
		fuse.OpRead:        s.read,
		fuse.OpWrite:       s.write,
		fuse.OpFsync:       s.fsync,
		fuse.OpFsyncdir:    s.fsync,
		fuse.OpSyncfs:      s.syncfs,
		fuse.OpFallocate:   s.fallocate,
		fuse.OpLseek:       s.lseek,
		fuse.OpReaddir:     s.readdir,
		fuse.OpReaddirplus: s.readdirplus,
		fuse.OpGetxattr:    s.getxattr,
		fuse.OpListxattr:   s.listxattr,
		fuse.OpSetxattr:    s.setxattr,
		fuse.OpRemovexattr: s.removexattr,
		fuse.OpStatfs:      s.statfs,
		fuse.OpIoctl:       s.ioctl,
		fuse.OpBmap:        s.bmap,

		fuse.OpCopyFileRange:   s.copyRange,
		fuse.OpCopyFileRange64: s.copyRange,

		fuse.OpIomapConfig: s.iomapConfig,
		fuse.OpIomapBegin:  s.iomapBegin,
		fuse.OpIomapEnd:    s.iomapEnd,
		fuse.OpIomapIoend:  s.iomapIoend,
		fuse.OpFreezeFs:    s.freeze,
		fuse.OpUnfreezeFs:  s.unfreeze,
		fuse.OpShutdownFs:  s.shutdown,
	}
}

// begin is called when INIT has been read: nothing has been answered yet.
func (s *Server) begin(_ *fuse.InitIn, out *fuse.InitOut) error {
	s.initIomap(out)
	if s.cfg.Begin == nil {
		return nil
	}
	return s.cfg.Begin()
}

// destroy makes everything durable, before an unmount that waits for it
// returns.
func (s *Server) destroy() {
	if s.ended = s.fs.Close(); s.ended != nil {
		s.log.Error("unmount", "err", s.ended)
	}
	if s.cfg.Closed != nil {
		s.cfg.Closed()
	}
}
