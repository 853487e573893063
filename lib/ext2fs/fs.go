package ext2fs

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// DataMode is how the data of files and the journal are ordered.
type DataMode int

const (
	DataDefault   DataMode = iota // as the superblock says, else ordered
	DataOrdered                   // data is on the device before the metadata that points to it
	DataJournal                   // data goes through the journal
	DataWriteback                 // data in any order
)

// Options say how a file system is opened. The zero value opens it read-write,
// as its superblock says.
type Options struct {
	ReadOnly bool // the device is not written; a dirty journal is replayed in memory
	NoLoad   bool // the journal is neither replayed nor used

	CacheSize int64           // memory for metadata blocks, bytes; 0 is the default
	Journal   blockdev.Device // external journal, if the file system has one

	DataMode        DataMode
	CommitInterval  time.Duration // 0 is 5 seconds
	NoBarrier       bool          // trust the device's write cache
	JournalChecksum bool          // checksum v1 in the journal, where it has no better
	JournalAsync    bool          // commit blocks are written with what they commit; not with DataOrdered
	Errors          ErrorPolicy
	Discard         bool    // freed blocks are discarded
	Sync            bool    // every operation is durable when it returns
	DirSync         bool    // changes of directories are durable when they return
	MinixDF         bool    // statfs counts the file system's own blocks too
	BSDGroups       bool    // new files take the group of their directory
	Resuid          *uint32 // who may use the reserved blocks, instead of the superblock's
	Resgid          *uint32
	NoUserXattr     bool   // user.* attributes are refused
	NoACL           bool   // POSIX ACLs are not looked at
	InitItable      bool   // zero uninitialised inode tables in the background
	InitItableWait  int    // rest as many times as long as a table took; 0: do not rest
	Populating      bool   // a new file system is being filled: all blocks may be used, it is not recorded as a mount, and FillQuota ends it
	Offline         bool   // Populating, of any file system: nobody else has it, whatever its features, and FillQuota ends it
	SbBlock         uint64 // superblock to use, in blocks of 1 KiB; 0 is the primary
	MountPoint      string // recorded in the superblock
	MemoryLimit     int64  // for replaying a journal in memory, bytes; 0 is 64 MiB
	Now             func() time.Time
	Rand            func() uint32 // inode generations
	Log             *slog.Logger
	Panic           func(error) // what ErrorsPanic does at last
}

// FS is an open file system.
type FS struct {
	dev      blockdev.Device                        // immutable; in memory over the real one after a read-only replay
	writeNew func(p []byte, off int64) (int, error) // immutable: dev's WriteBehind, or nil
	cache    *buffer.Cache                          // immutable
	jnl      *jbd2.Journal                          // immutable after Open; nil if opened read-only
	jnlRuns  []jnlRun                               // immutable: where the journal lies in this file system
	jnlErrno int32                                  // immutable: of an abort, as the journal had it
	opts     Options                                // immutable
	log      *slog.Logger                           // immutable
	dataMode DataMode                               // immutable
	policy   ErrorPolicy                            // immutable

	// Geometry and features: immutable.
	blockSize        int
	blockBits        uint   // log2 of blockSize
	clusterRatio     uint32 // blocks of a cluster; 1 without bigalloc
	clusterBits      uint   // log2 of clusterRatio
	inodeSize        int
	inodesPerBlock   uint32
	inodesPerGroup   uint32
	itableBlocks     uint32 // blocks of a group's inode table
	blocksPerGroup   uint32
	clustersPerGroup uint32
	groups           ondisk.Group
	descSize         int
	descPerBlock     uint32
	descBlocks       uint32 // blocks of group descriptors
	firstMetaBG      uint32
	flexBits         uint // log2 of the groups of a flex group
	firstData        ondisk.Fsblk
	blocks           ondisk.Fsblk
	inodes           uint32
	firstIno         ondisk.Ino
	ownIno           [4]ondisk.Ino // those that hold quotas and orphans; 0: none
	sbBlk            ondisk.Fsblk  // block that the primary superblock lies in
	descBase         ondisk.Fsblk  // first block of descriptors that are not by meta_bg
	csumSeed         uint32
	wantExtraIsize   int

	hasCsum, hasGDTCsum, hasExtents, has64, hasFiletype, hasHugeFile, hasDirNlink bool
	hasLargeDir, hasInlineData, hasEAInode, hasDirIndex, hasExtAttr, hasBigalloc  bool
	hasMetaBG, hasFlexBG, hasOrphanFile, hasJournal, hasLargeFile, hasExtraIsize  bool
	hasCasefold, hasEncrypt, hasProject                                           bool

	sbuf *buffer.Buf   // pinned while open
	sb   *ondisk.Super // in sbuf; changed inside transactions only
	sbMu sync.RWMutex  // a leaf: guards fields of sb that change while it is mounted

	readOnly atomic.Bool // nothing may be changed: opened so, or after an error
	why      string      // immutable: why it is read-only though that was not asked for
	shut     atomic.Bool // Shutdown was called
	opening  atomic.Bool // nothing may be written for what is found wrong: Open fails
	freezeMu sync.RWMutex
	// dataMu is held shared while data of files is written by other ways than the
	// journal, exclusively while frozen. It comes between Inode.mu and the handle.
	dataMu   sync.RWMutex
	freezing bool      // guarded by freezeMu: a Freeze is at it
	frozen   bool      // guarded by freezeMu
	thaw     sync.Cond // on freezeMu: frozen became false

	renameMu sync.Mutex

	group  groupTable
	ic     icache
	slotMu [64]sync.Mutex // inode table slots: guard copying an inode into its block

	free     atomic.Int64 // free clusters, those of uncommitted frees and reservations included
	reserved atomic.Int64 // clusters in reservations
	pending  atomic.Int64 // clusters freed and not committed
	freeIno  atomic.Int64 // free inodes
	dirs     atomic.Int64 // directories, of the groups that were looked at
	pool     int64        // immutable: clusters kept for metadata
	rblocks  atomic.Int64 // clusters reserved for the super-user
	written  atomic.Int64 // bytes written, for s_kbytes_written

	dirtyMu sync.Mutex
	dirty   []*group // guarded by dirtyMu: changed in the running transaction
	// guarded by dirtyMu: memory of the list before
	dirtySpare []*group

	pendMu sync.Mutex
	pend   []*freeList // guarded by pendMu: frees by transaction, oldest first

	orphanMu sync.Mutex
	orphan   orphans // guarded by orphanMu

	errMu              sync.Mutex
	errFirst, errLast  errorRecord // guarded by errMu
	errCount, errSaved uint32      // guarded by errMu: seen, and of those in the superblock
	failed             atomic.Pointer[error]
	stopped            chan struct{} // closed when stopWriting is done

	rsvs      rsvList     // inodes that have reserved ahead
	largeFile atomic.Bool // the superblock says that there are large files

	xattr fsXattr // attributes that inodes share

	kernelIO KernelIO // set before the first request, see SetKernelIO

	lazy       lazyInit
	started    uint64 // immutable: s_kbytes_written at open
	mountState uint16 // s_state when it was mounted
	hasLog     bool   // immutable after Open: the journal has a log
	recovered  bool   // immutable after Open: the journal was replayed
	replaying  bool   // immutable after Open: fast commits are being replayed
	closed     atomic.Bool
}

// Open opens the file system on dev, which stays the caller's to close. A
// dirty journal is replayed first, and what a crash left of unlinked files is
// freed; with ReadOnly, the device is not written and both are seen as if done.
//
// Open fails with an UnsupportedError for features it cannot read, with a
// CorruptError for a superblock or journal that contradicts itself (in a
// SuperError, if a backup does not), and with EINVAL for what is not a file system. Features that can be read but not
// maintained make it read-only, which [FS.ReadOnly] tells.
func Open(dev blockdev.Device, o Options) (*FS, error) {
	s, err := readSuper(dev, o.SbBlock)
	if err != nil {
		return nil, withBackup(dev, err)
	}
	o.Populating = o.Populating || o.Offline
	why, err := checkFeatures(s, o.Offline || o.Populating && isNew(s))
	if err != nil {
		return nil, err
	}
	if o.ReadOnly {
		why = ""
	} else if o.SbBlock != 0 {
		why = "a backup superblock is used"
	} else if blockdev.InfoOf(dev).ReadOnly {
		why = "the device is read-only"
	}
	fs := &FS{dev: dev, opts: o, log: logger(o.Log), why: why, stopped: make(chan struct{})}
	fs.thaw.L = &fs.freezeMu
	fs.opening.Store(true)
	fs.readOnly.Store(o.ReadOnly || why != "")
	if why != "" {
		fs.log.Warn("opening read-only", "because of", why)
	}
	if err := fs.geometry(s); err != nil {
		return nil, withBackup(dev, err)
	}
	fs.ic.init()
	if err := fs.mount(s); err != nil {
		fs.abandon()
		return nil, err
	}
	return fs, nil
}

// mount makes what Open has read and checked usable: journal, cache, groups.
func (fs *FS) mount(s *ondisk.Super) error {
	fc, err := fs.openJournal(s)
	if err != nil {
		return err
	}
	fs.cache = buffer.New(fs.dev, buffer.Options{BlockSize: fs.blockSize, Limit: fs.opts.CacheSize})
	if fs.opts.SbBlock != 0 {
		fs.sb = s
	} else if fs.sbuf, err = fs.cache.Read(buffer.Block(fs.sbBlk), opsSuper, buffer.Ctx{}); err != nil {
		return err
	} else {
		fs.sb = superIn(fs.sbuf.Data())
	}
	fs.started = fs.sb.KbytesWritten.Get()
	fs.policies()
	if d, ok := fs.dev.(interface {
		WriteBehind(p []byte, off int64) (int, error)
	}); ok && !fs.opts.NoBarrier { // a commit brings what is held by its flush
		fs.writeNew = d.WriteBehind
	}
	if err := fs.initGroups(); err != nil {
		return err
	}
	if len(fc) > 0 {
		if err := fs.replayFastCommits(fc); err != nil {
			return fmt.Errorf("fast commit replay: %w", err)
		}
	}
	if err := fs.checkRoot(); err != nil || fs.readOnly.Load() {
		fs.opening.Store(false)
		return err
	}
	if err := fs.startJournal(); err != nil {
		return err
	}
	fs.opening.Store(false)
	if err := fs.markMounted(); err != nil {
		return err
	}
	if err := fs.recoverOrphans(); err != nil {
		return err
	}
	fs.startLazyInit()
	return nil
}

// checkRoot fails if there is no root directory: then nothing can be done.
func (fs *FS) checkRoot() error {
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		return fmt.Errorf("root directory: %w", err)
	}
	defer root.Put()
	if !root.isDir() || root.raw.Base().LinksCount.Get() == 0 {
		return ondisk.At(ondisk.Corrupt("root inode", 0, "mode %#o, %d links",
			root.raw.Base().Mode.Get(), root.raw.Base().LinksCount.Get()), ondisk.RootIno, 0)
	}
	return nil
}

// abandon lets go of what a failed Open has acquired. The superblock keeps what
// was said of it: the file system is not clean.
func (fs *FS) abandon() {
	fs.readOnly.Store(true)
	if fs.jnl != nil {
		if fs.jnl.Err() == nil {
			fs.jnl.Abort(syscall.EIO)
		}
		_ = fs.jnl.Close() // returns the cause of the abort
	}
	if fs.sbuf != nil {
		fs.sbuf.Put()
	}
}

// Close ends the use of fs: what is pending is committed and written home, and
// the superblock marked clean. No inode may be in use. When it returns nil,
// everything is on stable storage. The device stays open.
func (fs *FS) Close() error {
	if fs.closed.Swap(true) {
		return nil
	}
	fs.stopLazyInit()
	fs.freezeMu.Lock()
	if fs.frozen {
		fs.frozen = false
		fs.thaw.Broadcast()
		fs.dataMu.Unlock()
	}
	fs.freezeMu.Unlock()
	fs.putDead()
	fs.ic.drop(fs)
	if fs.failed.Load() != nil {
		<-fs.stopped
	}
	var err error
	if fs.jnl != nil {
		err = fs.unmount()
	}
	if fs.sbuf != nil {
		fs.sbuf.Put()
	}
	return err
}

// start opens a handle of at most credits changed blocks. It waits while the
// file system is frozen. It fails with EROFS if the file system is read-only,
// and with EIO after Shutdown.
func (fs *FS) start(credits int) (*jbd2.Handle, error) {
	if err := fs.writable(); err != nil {
		return nil, err
	}
	fs.freezeMu.RLock()
	for fs.frozen {
		fs.freezeMu.RUnlock()
		fs.waitThaw()
		fs.freezeMu.RLock()
	}
	defer fs.freezeMu.RUnlock()
	return fs.startLocked(credits)
}

// startNow is start, but returns no handle while the file system is frozen.
func (fs *FS) startNow(credits int) (*jbd2.Handle, error) {
	if err := fs.writable(); err != nil {
		return nil, err
	}
	fs.freezeMu.RLock()
	defer fs.freezeMu.RUnlock()
	if fs.frozen {
		return nil, nil
	}
	return fs.startLocked(credits)
}

// startLocked opens a handle; freezeMu is held.
func (fs *FS) startLocked(credits int) (*jbd2.Handle, error) {
	h, err := fs.jnl.Start(credits)
	if err != nil {
		return nil, err
	}
	h.Sync = fs.opts.Sync
	return h, nil
}

// writable returns nil if changes are allowed.
func (fs *FS) writable() error {
	switch {
	case fs.shut.Load():
		return syscall.EIO
	case fs.readOnly.Load():
		return syscall.EROFS
	}
	return nil
}

// Sync makes all that has been done durable. Data of files has been written by
// the operations themselves.
func (fs *FS) Sync() error {
	if fs.shut.Load() {
		return syscall.EIO
	}
	if fs.jnl == nil {
		return nil
	}
	tid := fs.jnl.Running()
	if err := fs.jnl.Commit(tid); err != nil {
		return err
	}
	return fs.dev.Sync() // data that needed no transaction
}

// ReadOnly tells whether nothing can be changed, and why if that was not asked
// for.
func (fs *FS) ReadOnly() (bool, string) {
	if e := fs.failed.Load(); e != nil {
		return true, (*e).Error()
	}
	return fs.readOnly.Load(), fs.why
}

// BlockSize returns the size of a block in bytes.
func (fs *FS) BlockSize() int { return fs.blockSize }

// InodeSize returns the size of an inode on disk in bytes.
func (fs *FS) InodeSize() int { return fs.inodeSize }

// Now returns the time, as new inodes get it.
func (fs *FS) Now() ondisk.Time { return fs.now() }

// Device returns the device that file data is read from and written to: the
// one given to Open, or what lies over it after a read-only replay.
func (fs *FS) Device() blockdev.Device { return fs.dev }

// Super calls f with the superblock, which f must neither change nor keep.
func (fs *FS) Super(f func(*ondisk.Super)) {
	fs.sbMu.RLock()
	defer fs.sbMu.RUnlock()
	f(fs.sb)
}

// now returns the time, as inodes have it.
func (fs *FS) now() ondisk.Time {
	t := time.Now
	if fs.opts.Now != nil {
		t = fs.opts.Now
	}
	return inodeTime(t())
}

// at returns the time of the operation that h is for, as inodes have it.
func at(h *jbd2.Handle) ondisk.Time { return inodeTime(h.Now()) }

func inodeTime(t time.Time) ondisk.Time {
	return ondisk.Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())}
}

func (fs *FS) random() uint32 {
	if fs.opts.Rand != nil {
		return fs.opts.Rand()
	}
	return rand.Uint32()
}

// geometry checks s and takes the numbers that do not change from it. Limits
// are the kernel's. Without a device, the size of that is not looked at.
func (fs *FS) geometry(s *ondisk.Super) error {
	bad := func(format string, args ...any) error {
		return ondisk.At(ondisk.Corrupt("superblock", 0, format, args...), 0, 0)
	}
	lbs, lcs := s.LogBlockSize.Get(), s.LogClusterSize.Get()
	if lbs > 6 {
		return bad("block size 1024 << %d", lbs)
	}
	fs.blockBits = uint(lbs) + 10
	fs.blockSize = 1 << fs.blockBits
	fs.hasBigalloc = s.HasROCompat(ondisk.ROCompatBigalloc)
	if fs.hasBigalloc && (lcs < lbs || lcs > 30-10) {
		return bad("cluster size 1024 << %d", lcs)
	}
	if fs.hasBigalloc {
		fs.clusterBits = uint(lcs - lbs)
	}
	fs.clusterRatio = 1 << fs.clusterBits

	fs.inodeSize = s.InodeSz()
	if fs.inodeSize < ondisk.GoodOldInodeSz || fs.inodeSize&(fs.inodeSize-1) != 0 || fs.inodeSize > fs.blockSize {
		return bad("inode size %d", fs.inodeSize)
	}
	fs.firstIno = s.FirstInode()
	if fs.firstIno < ondisk.GoodOldFirst {
		return bad("first inode %d", fs.firstIno)
	}
	fs.ownIno = [...]ondisk.Ino{ondisk.Ino(s.UsrQuotaInum.Get()), ondisk.Ino(s.GrpQuotaInum.Get()),
		ondisk.Ino(s.PrjQuotaInum.Get()), ondisk.Ino(s.OrphanFileInum.Get())}
	fs.has64 = s.HasIncompat(ondisk.Incompat64Bit)
	fs.descSize = s.DescSz()
	if fs.has64 && (fs.descSize < ondisk.GroupDescMin64 || fs.descSize > 1024 || fs.descSize&(fs.descSize-1) != 0) {
		return bad("group descriptor size %d", fs.descSize)
	}
	fs.descPerBlock = uint32(fs.blockSize / fs.descSize)

	most := uint32(fs.blockSize) * 8 // bits of a bitmap
	fs.blocksPerGroup = s.BlocksPerGroup.Get()
	fs.clustersPerGroup = s.ClustersPerGroup.Get()
	if !fs.hasBigalloc {
		fs.clustersPerGroup = fs.blocksPerGroup
	}
	if n := fs.clustersPerGroup; n == 0 || n > most || n&7 != 0 {
		return bad("%d clusters per group", n)
	}
	if uint64(fs.blocksPerGroup) != uint64(fs.clustersPerGroup)<<fs.clusterBits {
		return bad("%d blocks per group, but %d clusters of %d", fs.blocksPerGroup, fs.clustersPerGroup, fs.clusterRatio)
	}
	fs.inodesPerBlock = uint32(fs.blockSize / fs.inodeSize)
	fs.inodesPerGroup = s.InodesPerGroup.Get()
	if n := fs.inodesPerGroup; n < fs.inodesPerBlock || n > most || n&7 != 0 {
		return bad("%d inodes per group", n)
	}
	fs.itableBlocks = (fs.inodesPerGroup + fs.inodesPerBlock - 1) / fs.inodesPerBlock

	fs.firstData = ondisk.Fsblk(s.FirstDataBlock.Get())
	fs.blocks = ondisk.Fsblk(s.BlocksCount())
	switch {
	case fs.firstData > 1 || fs.firstData == 1 && fs.blockSize != 1024:
		return bad("first data block %d", fs.firstData)
	case fs.firstData == 0 && fs.blockSize == 1024 && fs.clusterRatio == 1:
		return bad("first data block 0 with blocks of 1024 bytes")
	case fs.blocks <= fs.firstData+1 || uint64(fs.blocks) > 1<<48:
		return bad("%d blocks", fs.blocks)
	case fs.dev != nil && uint64(fs.blocks) > uint64(fs.dev.Size())>>fs.blockBits:
		return bad("%d blocks of %d bytes, which end beyond a device of %d bytes", fs.blocks, fs.blockSize, fs.dev.Size())
	}
	groups := (uint64(fs.blocks-fs.firstData) + uint64(fs.blocksPerGroup) - 1) / uint64(fs.blocksPerGroup)
	if groups > 1<<32-1 {
		return bad("%d groups", groups)
	}
	fs.groups = ondisk.Group(groups)
	fs.inodes = s.InodesCount.Get()
	if uint64(fs.inodes) != groups*uint64(fs.inodesPerGroup) {
		return bad("%d inodes, but %d groups of %d", fs.inodes, groups, fs.inodesPerGroup)
	}
	fs.descBlocks = uint32((groups + uint64(fs.descPerBlock) - 1) / uint64(fs.descPerBlock))
	fs.hasMetaBG = s.HasIncompat(ondisk.IncompatMetaBG)
	if fs.hasMetaBG {
		if fs.firstMetaBG = s.FirstMetaBG.Get(); fs.firstMetaBG > fs.descBlocks {
			return bad("first meta block group %d of %d descriptor blocks", fs.firstMetaBG, fs.descBlocks)
		}
	}
	if n := uint32(s.ReservedGDTBlocks.Get()); n > uint32(fs.blockSize)/4 {
		return bad("%d reserved descriptor blocks", n)
	}
	fs.hasFlexBG = s.HasIncompat(ondisk.IncompatFlexBG)
	if n := s.LogGroupsPerFlex[0]; fs.hasFlexBG && n < 32 {
		fs.flexBits = uint(n)
	}
	fs.sbBlk = ondisk.Fsblk(ondisk.SuperOffset >> fs.blockBits)
	fs.descBase = fs.sbBlk + 1
	if fs.opts.SbBlock != 0 {
		fs.descBase = ondisk.Fsblk(fs.opts.SbBlock<<10>>fs.blockBits) + 1
	}

	fs.csumSeed = s.CsumSeed()
	fs.hasCsum = s.HasROCompat(ondisk.ROCompatMetadataCsum)
	fs.hasGDTCsum = s.HasROCompat(ondisk.ROCompatGDTCsum)
	fs.hasExtents = s.HasIncompat(ondisk.IncompatExtents)
	fs.hasFiletype = s.HasIncompat(ondisk.IncompatFiletype)
	fs.hasLargeDir = s.HasIncompat(ondisk.IncompatLargeDir)
	fs.hasInlineData = s.HasIncompat(ondisk.IncompatInlineData)
	fs.hasEAInode = s.HasIncompat(ondisk.IncompatEAInode)
	fs.hasCasefold = s.HasIncompat(ondisk.IncompatCasefold)
	fs.hasProject = s.HasROCompat(ondisk.ROCompatProject)
	fs.hasEncrypt = s.HasIncompat(ondisk.IncompatEncrypt)
	fs.hasHugeFile = s.HasROCompat(ondisk.ROCompatHugeFile)
	fs.hasDirNlink = s.HasROCompat(ondisk.ROCompatDirNlink)
	fs.hasLargeFile = s.HasROCompat(ondisk.ROCompatLargeFile)
	fs.hasExtraIsize = s.HasROCompat(ondisk.ROCompatExtraIsize)
	fs.hasDirIndex = s.HasCompat(ondisk.CompatDirIndex)
	fs.hasExtAttr = s.HasCompat(ondisk.CompatExtAttr)
	fs.hasOrphanFile = s.HasCompat(ondisk.CompatOrphanFile)
	fs.hasJournal = s.HasCompat(ondisk.CompatHasJournal)
	if fs.inodeSize > ondisk.GoodOldInodeSz {
		fs.wantExtraIsize = ondisk.InodeExtraSize
		if n := int(s.WantExtraIsize.Get()); fs.hasExtraIsize {
			fs.wantExtraIsize = max(fs.wantExtraIsize, n, int(s.MinExtraIsize.Get()))
		}
		if fs.wantExtraIsize > fs.inodeSize-ondisk.GoodOldInodeSz || fs.wantExtraIsize&3 != 0 {
			fs.wantExtraIsize = ondisk.InodeExtraSize
		}
	}
	return nil
}

// policies takes the default mount options of the superblock where Options has
// nothing to say.
func (fs *FS) policies() {
	s := fs.sb
	fs.policy = fs.opts.Errors
	if fs.policy == ErrorsDefault {
		fs.policy = ErrorPolicy(s.Errors.Get())
	}
	if fs.policy < ErrorsContinue || fs.policy > ErrorsPanic {
		fs.policy = ErrorsContinue
	}
	m := s.DefaultMountOpts.Get()
	fs.dataMode = fs.opts.DataMode
	if fs.dataMode == DataDefault {
		switch m & ondisk.DefmJmode {
		case ondisk.DefmJmodeData:
			fs.dataMode = DataJournal
		case ondisk.DefmJmodeWback:
			fs.dataMode = DataWriteback
		default:
			fs.dataMode = DataOrdered
		}
	}
	if !fs.hasJournal || fs.opts.NoLoad {
		fs.dataMode = DataWriteback
	}
	fs.opts.BSDGroups = fs.opts.BSDGroups || m&ondisk.DefmBSDGroups != 0
	fs.opts.Discard = fs.opts.Discard || m&ondisk.DefmDiscard != 0
	fs.opts.NoBarrier = fs.opts.NoBarrier || m&ondisk.DefmNoBarrier != 0
}

// blocksOf returns how many blocks n bytes take.
func (fs *FS) blocksOf(n int64) uint64 { return (uint64(n) + uint64(fs.blockSize) - 1) >> fs.blockBits }
