package ext2fs

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// jnlRun is a run of blocks of the journal in this file system.
type jnlRun struct {
	log uint32 // block of the log
	blk ondisk.Fsblk
	n   uint32
}

// fcTag is a fast commit tag to apply.
type fcTag struct {
	tag   uint16
	value []byte
}

// maxFC bounds the memory for fast commits, bytes. The kernel's area has 256
// blocks.
const maxFC = 64 << 20

// openJournal opens the journal if the file system has one, and replays it if
// it is dirty: on the device, or, opened read-only, in memory over it. It
// returns the fast commits to apply. The log is emptied by startJournal.
func (fs *FS) openJournal(s *ondisk.Super) ([]fcTag, error) {
	dirty := s.HasIncompat(ondisk.IncompatRecover)
	if !fs.hasJournal {
		return nil, nil
	}
	if fs.opts.NoLoad {
		if dirty && !fs.readOnly.Load() {
			return nil, fmt.Errorf("the journal has to be replayed before the file system can be changed: %w", syscall.EROFS)
		}
		return nil, nil
	}
	if fs.readOnly.Load() && !dirty && fs.opts.Journal == nil && s.JournalInum.Get() == 0 {
		return nil, nil // clean, and nothing will be written: the external journal is not needed
	}
	cfg, err := fs.journalConfig(s)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j, err := jbd2.Open(cfg)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if fs.opts.Journal != nil && s.JournalInum.Get() == 0 {
		if !slices.Contains(j.Info().Users, s.UUID) {
			return nil, fmt.Errorf("journal: the device is the journal of another file system: %w", syscall.EINVAL)
		}
	}
	fs.jnlErrno = j.Info().Errno
	var fc []fcTag
	if dirty {
		if fc, err = fs.replay(s, j); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
	} else if j.Info().NeedsRecovery && !fs.readOnly.Load() {
		// The superblock says that the log does not count.
		if err := j.Clear(); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
	}
	return fc, nil
}

// journalConfig finds the journal and says where it lies.
func (fs *FS) journalConfig(s *ondisk.Super) (jbd2.Config, error) {
	cfg := jbd2.Config{BlockSize: fs.blockSize, UUID: s.UUID}
	if ino := ondisk.Ino(s.JournalInum.Get()); ino != 0 {
		runs, n, err := fs.journalInode(s, ino)
		if err != nil {
			return cfg, err
		}
		fs.jnlRuns = runs
		cfg.Dev = fs.dev
		cfg.Blocks = n
		cfg.MapRun = func(l uint32) (uint64, uint32, error) {
			i, ok := slices.BinarySearchFunc(runs, l, func(r jnlRun, l uint32) int {
				switch {
				case r.log+r.n <= l:
					return -1
				case r.log > l:
					return 1
				}
				return 0
			})
			if !ok {
				return 0, 0, ondisk.At(ondisk.Corrupt("journal inode", 0, "no block %d", l), ino, 0)
			}
			r := runs[i]
			return uint64(r.blk) + uint64(l-r.log), r.n - (l - r.log), nil
		}
		return cfg, nil
	}
	if fs.opts.Journal == nil {
		return cfg, &JournalDevError{UUID: s.JournalUUID, Dev: s.JournalDev.Get()}
	}
	d, err := jbd2.OpenDevice(fs.opts.Journal)
	if err != nil {
		return cfg, err
	}
	if d.UUID != s.JournalUUID {
		return cfg, fmt.Errorf("the device has UUID %s, not %s: %w", uuidString(d.UUID), uuidString(s.JournalUUID), syscall.EINVAL)
	}
	if d.BlockSize != fs.blockSize {
		return cfg, fmt.Errorf("the device has blocks of %d bytes, not %d: %w", d.BlockSize, fs.blockSize, syscall.EINVAL)
	}
	cfg.Dev, cfg.FSDev = fs.opts.Journal, fs.dev
	cfg.Blocks, cfg.SuperBlock = d.Blocks, d.SuperBlock
	return cfg, nil
}

// journalInode returns where inode ino has its blocks, and how many. It reads
// the device itself: there is no cache before the journal has been replayed.
func (fs *FS) journalInode(s *ondisk.Super, ino ondisk.Ino) ([]jnlRun, uint32, error) {
	bad := func(format string, args ...any) error {
		return ondisk.At(ondisk.Corrupt("journal inode", 0, format, args...), ino, 0)
	}
	if ino != ondisk.JournalIno && ino < fs.firstIno || uint32(ino) > fs.inodes {
		return nil, 0, bad("number %d", ino)
	}
	fs.sb = s // for the placement of descriptors
	desc := make([]byte, fs.blockSize)
	g := ondisk.Group(uint32(ino-1) / fs.inodesPerGroup)
	if err := fs.readBlock(fs.descBlock(uint32(g)/fs.descPerBlock), desc); err != nil {
		return nil, 0, err
	}
	off := int(uint32(g)%fs.descPerBlock) * fs.descSize
	i := uint32(ino-1) % fs.inodesPerGroup
	blk := ondisk.Desc(desc[off:off+fs.descSize]).InodeTable() + ondisk.Fsblk(i/fs.inodesPerBlock)
	table := make([]byte, fs.blockSize)
	if err := fs.readBlock(blk, table); err != nil {
		return nil, 0, err
	}
	off = int(i%fs.inodesPerBlock) * fs.inodeSize
	raw := ondisk.RawInode(table[off : off+fs.inodeSize])
	if err := fs.checkInode(raw, ino); err != nil {
		return nil, 0, err
	}
	b := raw.Base()
	if b.LinksCount.Get() == 0 || b.Mode.Get()&ondisk.ModeFmt != ondisk.ModeReg {
		return nil, 0, bad("mode %#o, %d links", b.Mode.Get(), b.LinksCount.Get())
	}
	size := uint64(raw.Size(false)) >> fs.blockBits
	if size > uint64(fs.blocks) || size > 1<<31 {
		return nil, 0, bad("size %d", raw.Size(false))
	}
	w := journalWalk{fs: fs, end: uint32(size), seed: ondisk.InodeSeed(fs.csumSeed, ino, b.Generation.Get())}
	var err error
	if b.Flags.Get()&ondisk.FlagExtents != 0 {
		err = w.extents(b.Block[:], -1)
	} else {
		err = w.indirect(endian.Views[endian.LE32](b.Block[:], 15))
	}
	if err != nil {
		return nil, 0, ondisk.At(err, ino, 0)
	}
	if w.next < w.end {
		return nil, 0, bad("no block %d", w.next)
	}
	return w.runs, uint32(size), nil
}

// readBlock reads block b from the device.
func (fs *FS) readBlock(b ondisk.Fsblk, data []byte) error {
	if b >= fs.blocks {
		return ondisk.Corrupt("block number", 0, "%d of %d", b, fs.blocks)
	}
	_, err := fs.dev.ReadAt(data, int64(b)<<fs.blockBits)
	return err
}

// journalWalk collects the blocks of the journal inode, which has no holes.
type journalWalk struct {
	fs   *FS
	end  uint32 // blocks of the journal
	next uint32 // the one that comes next
	seed uint32
	runs []jnlRun
}

func (w *journalWalk) add(blk ondisk.Fsblk, n uint32) error {
	fs := w.fs
	n = min(n, w.end-w.next)
	if n == 0 {
		return nil
	}
	if blk <= fs.sbBlk || blk >= fs.blocks || uint64(fs.blocks-blk) < uint64(n) {
		return ondisk.Corrupt("journal inode", 0, "%d blocks at %d", n, blk)
	}
	if k := len(w.runs); k > 0 && w.runs[k-1].blk+ondisk.Fsblk(w.runs[k-1].n) == blk {
		w.runs[k-1].n += n
	} else {
		w.runs = append(w.runs, jnlRun{w.next, blk, n})
	}
	w.next += n
	return nil
}

// extents walks an extent node of the given depth, -1 for the root, which has
// any. Nodes that lead back to others end at their depth.
func (w *journalWalk) extents(node []byte, depth int) error {
	h, err := ondisk.ExtentNodeHeader(node)
	if err != nil {
		return err
	}
	d := int(h.Depth.Get())
	if depth >= 0 && d != depth || d > ondisk.MaxExtentDepth {
		return ondisk.Corrupt("extent header", 6, "depth %d", d)
	}
	if d == 0 {
		leaf, err := ondisk.ExtentLeaf(node)
		if err != nil {
			return err
		}
		for i := range leaf {
			e := &leaf[i]
			if w.next < w.end && (e.Block.Get() != w.next || e.Unwritten()) {
				return ondisk.Corrupt("extent", 12*i, "block %d where %d is wanted", e.Block.Get(), w.next)
			}
			if err := w.add(e.Start(), e.Len()); err != nil {
				return err
			}
		}
		return nil
	}
	index, err := ondisk.ExtentIndex(node)
	if err != nil {
		return err
	}
	child := make([]byte, w.fs.blockSize)
	for i := range index {
		if w.next >= w.end {
			return nil
		}
		before := w.next
		if err := w.fs.readBlock(index[i].Leaf(), child); err != nil {
			return err
		}
		if w.fs.hasCsum {
			if err := ondisk.VerifyExtentNode(child, w.seed); err != nil {
				return err
			}
		}
		if err := w.extents(child, d-1); err != nil {
			return err
		}
		if w.next == before {
			return ondisk.Corrupt("extent index", 12*i, "an empty node")
		}
	}
	return nil
}

// indirect walks the 15 pointers of an inode that is mapped by blocks.
func (w *journalWalk) indirect(block []endian.LE32) error {
	for i := range block {
		if w.next >= w.end {
			return nil
		}
		if err := w.pointer(ondisk.Fsblk(block[i].Get()), max(i-11, 0)); err != nil {
			return err
		}
	}
	return nil
}

func (w *journalWalk) pointer(blk ondisk.Fsblk, level int) error {
	if blk == 0 {
		return ondisk.Corrupt("journal inode", 0, "no block %d", w.next)
	}
	if level == 0 {
		return w.add(blk, 1)
	}
	data := make([]byte, w.fs.blockSize)
	if err := w.fs.readBlock(blk, data); err != nil {
		return err
	}
	ptr := endian.Views[endian.LE32](data, len(data)/4)
	for i := range ptr {
		if w.next >= w.end {
			return nil
		}
		if err := w.pointer(ondisk.Fsblk(ptr[i].Get()), level-1); err != nil {
			return err
		}
	}
	return nil
}

// inJournal tells whether a run touches the journal.
func (fs *FS) inJournal(b, end ondisk.Fsblk) bool {
	for i := range fs.jnlRuns {
		if r := &fs.jnlRuns[i]; r.blk < end && b < r.blk+ondisk.Fsblk(r.n) {
			return true
		}
	}
	return false
}

// replay recovers the journal j. Nothing is written if it holds a superblock
// that is not this file system's.
func (fs *FS) replay(s *ondisk.Super, j *jbd2.Journal) ([]fcTag, error) {
	fs.recovered = true
	dev := fs.dev
	if fs.readOnly.Load() {
		limit := fs.opts.MemoryLimit
		if limit == 0 {
			limit = 64 << 20
		}
		dev = blockdev.NewOverlay(fs.dev, limit)
	}
	r := replayer{fs: fs, s: s, dev: dev}
	stats, err := j.Recover(&r)
	if err != nil {
		return nil, err
	}
	fs.dev = dev
	fs.log.Info("journal replayed", "transactions", uint32(stats.End-stats.Start),
		"blocks", stats.Replayed, "revoked", stats.Revoked, "fast commit tags", stats.FastCommits)
	return r.fc, nil
}

// replayer is where a replay goes to.
type replayer struct {
	fs   *FS
	s    *ondisk.Super // before the replay
	dev  blockdev.Device
	fc   []fcTag
	size int // of fc, bytes
}

// Check implements jbd2.Replayer. Whether a block lies in the log itself is
// checked by the journal.
func (r *replayer) Check(blk uint64) error {
	fs := r.fs
	if blk >= uint64(fs.blocks) || ondisk.Fsblk(blk) < fs.firstData || fs.blockSize == 1024 && blk == 0 {
		return ondisk.Corrupt("log", 0, "block %d is not in the file system", blk)
	}
	return nil
}

// WantData implements jbd2.DataChecker.
func (r *replayer) WantData(blk uint64) bool { return blk == uint64(r.fs.sbBlk) }

// CheckData implements jbd2.DataChecker.
func (r *replayer) CheckData(_ uint64, data []byte) error { return r.checkSuper(superIn(data)) }

// Write implements jbd2.Replayer.
func (r *replayer) Write(blk uint64, data []byte) error {
	_, err := r.dev.WriteAt(data, int64(blk)<<r.fs.blockBits)
	return err
}

// checkSuper refuses a logged superblock that would change what file system
// this is.
func (r *replayer) checkSuper(s *ondisk.Super) error {
	o := r.s
	bad := func(what string) error {
		return ondisk.Corrupt("logged superblock", 0, "another %s than the file system's", what)
	}
	const inMask = ^uint32(ondisk.IncompatRecover | ondisk.IncompatEAInode | ondisk.IncompatLargeDir | ondisk.IncompatExtents)
	switch {
	case s.Magic.Get() != ondisk.SuperMagic:
		return bad("magic")
	case s.HasROCompat(ondisk.ROCompatMetadataCsum) && ondisk.SuperCsum(s) != s.Checksum.Get():
		return ondisk.BadCsum("logged superblock", ondisk.SuperSize-4, s.Checksum.Get(), ondisk.SuperCsum(s))
	case s.RevLevel != o.RevLevel:
		return bad("revision")
	case s.LogBlockSize != o.LogBlockSize || s.LogClusterSize != o.LogClusterSize:
		return bad("block size")
	case s.FirstDataBlock != o.FirstDataBlock || s.BlocksPerGroup != o.BlocksPerGroup ||
		s.ClustersPerGroup != o.ClustersPerGroup || s.InodesPerGroup != o.InodesPerGroup:
		return bad("group size")
	case s.InodeSize != o.InodeSize || s.DescSize != o.DescSize:
		return bad("inode or descriptor size")
	case s.FeatureIncompat.Get()&inMask != o.FeatureIncompat.Get()&inMask:
		return bad("set of features")
	case uint64(s.BlocksCount()) > uint64(r.fs.dev.Size())>>r.fs.blockBits:
		return bad("size")
	}
	return nil
}

// FastCommit implements jbd2.Replayer.
func (r *replayer) FastCommit(tag uint16, value []byte) error {
	if r.size += len(value) + 64; r.size > maxFC {
		return fmt.Errorf("fast commits of more than %d bytes: %w", maxFC, syscall.ENOMEM)
	}
	r.fc = append(r.fc, fcTag{tag, bytes.Clone(value)})
	return nil
}

// Sync implements jbd2.Replayer.
func (r *replayer) Sync() error { return r.dev.Sync() }

// startJournal makes fs.jnl: changes are possible from here on.
func (fs *FS) startJournal() error {
	cfg := jbd2.Config{BlockSize: fs.blockSize}
	fs.hasLog = fs.hasJournal && !fs.opts.NoLoad
	if fs.hasLog {
		if fs.opts.JournalAsync && fs.dataMode == DataOrdered {
			// A commit block that waits for nothing does not wait for data either.
			return fmt.Errorf("journal: asynchronous commits want another data mode than ordered: %w", syscall.EINVAL)
		}
		var err error
		if cfg, err = fs.journalConfig(fs.sb); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	cfg = fs.journalOptions(cfg)
	if !fs.hasLog {
		j, err := jbd2.OpenNone(fs.cache, cfg)
		fs.jnl = j
		return err
	}
	j, err := jbd2.Open(cfg)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if j.Info().NeedsRecovery {
		// What was in the log is home.
		if err := j.Clear(); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	if err := j.Load(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	fs.jnl = j
	if fs.jnlErrno != 0 {
		// An abort before this mount: the kernel marks the file system so.
		fs.log.Warn("the journal recorded an error", "errno", -fs.jnlErrno)
		fs.sb.State.Set(fs.sb.State.Get() | ondisk.StateError)
		if err := fs.writeSuper(); err != nil {
			return err
		}
		return j.ClearErrno()
	}
	return nil
}

// journalOptions adds to cfg how the journal is run.
func (fs *FS) journalOptions(cfg jbd2.Config) jbd2.Config {
	cfg.Cache = fs.cache
	cfg.Interval = fs.opts.CommitInterval
	cfg.Barrier = !fs.opts.NoBarrier
	cfg.Async = fs.opts.JournalAsync
	cfg.Now = fs.opts.Now
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Precommit = fs.precommit
	cfg.Committed = fs.committed
	cfg.Aborted = fs.aborted
	switch {
	case fs.hasCsum:
		cfg.Set.Incompat |= jbd2.IncompatCsumV3
		cfg.Clear.Compat |= jbd2.CompatChecksum
		cfg.Clear.Incompat |= jbd2.IncompatCsumV2
	case fs.opts.JournalChecksum || fs.opts.JournalAsync:
		cfg.Set.Compat |= jbd2.CompatChecksum
		cfg.Clear.Incompat |= jbd2.IncompatCsumV2 | jbd2.IncompatCsumV3
	default:
		cfg.Clear.Compat |= jbd2.CompatChecksum
		cfg.Clear.Incompat |= jbd2.IncompatCsumV2 | jbd2.IncompatCsumV3
	}
	if fs.has64 {
		cfg.Set.Incompat |= jbd2.Incompat64Bit
	}
	cfg.Set.Incompat |= jbd2.IncompatRevoke
	return cfg
}

// aborted is called when the journal has aborted: nothing can be written any
// more.
func (fs *FS) aborted(cause error) {
	fs.readOnly.Store(true)
	if fs.shut.Load() || errors.Is(cause, syscall.ESHUTDOWN) {
		return
	}
	if fs.failed.CompareAndSwap(nil, &cause) {
		fs.log.Error("the journal has aborted; nothing is written any more", "err", cause)
		close(fs.stopped)
	}
}
