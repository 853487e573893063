package ext2fs

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// FormatOptions is what a new file system is to be. DefaultFormat returns them
// for ext4; a zero field has the meaning that its comment gives.
type FormatOptions struct {
	Blocks         uint64  // size in blocks; 0: all that the device has
	BlockSize      int     // bytes
	ClusterSize    int     // bytes, with bigalloc; 0: 16 blocks
	BlocksPerGroup uint32  // clusters with bigalloc; 0: what one block of bitmap covers
	GroupsPerFlex  uint32  // groups whose metadata lies together, with flex_bg; 0: 1
	Revision0      bool    // of the time before features
	InodeSize      int     // bytes
	Inodes         uint32  // at least; 0: one for each 4 KiB
	ReservedRatio  float64 // percent of the blocks, for the super-user
	DescSize       int     // bytes of a descriptor with 64bit; 0: 64
	ResizeLimit    uint64  // blocks up to which resize_inode lets it grow; 0: 1024 times its size
	FirstMetaBG    uint32  // with meta_bg: blocks of descriptors that stay together
	SparseBackups  int     // with sparse_super2: 0, 1 or 2 backups
	PackedMeta     bool    // bitmaps, inode tables and the journal at the start
	Stride         uint32  // blocks on one disk of an array before the next; 0: not known
	StripeWidth    uint32  // blocks in a stripe of an array; 0: not known

	Compat, Incompat, ROCompat uint32 // features

	UUID          [16]byte
	HashSeed      [16]byte // of directory hashes
	HashVersion   uint8    // ondisk.HashLegacy, HashHalfMD4, HashTEA
	Time          int64    // of all timestamps, seconds; 0: now
	Label         string
	LastMounted   string
	CreatorOS     uint32 // ondisk.OS…
	Errors        uint16 // ondisk.Errors…; 0: continue
	MountOptions  uint32 // ondisk.Defm…
	MaxMntCount   int16  // mounts after which to check; -1: never
	CheckInterval uint32 // seconds after which to check; 0: never
	TestFS        bool   // may be mounted by test code
	Encoding      uint16 // of names, with casefold; 0: UTF-8 12.1
	EncodingFlags uint16 // 1: strict

	RootUID, RootGID uint32
	RootMode         uint16 // permission bits; 0: 0755
	RootSELinux      string // label of the root directory; "": none

	JournalBlocks uint32    // 0: by size; a file system that is too small gets none
	FCBlocks      uint32    // fast commit area, with fast_commit; 0: by JournalBlocks
	JournalAt     uint64    // block to put the journal at; 0: in the middle
	JournalV1     bool      // version 1 superblock
	JournalUUID   *[16]byte // an external journal's, instead of one inside
	JournalDev    uint32    // its device number, as the kernel encodes it

	QuotaTypes   int    // with quota: Quota… bits; 0: users and groups, and projects with project
	MMPInterval  uint16 // seconds, with mmp; 0: the default
	NodeName     string // of this host, with mmp
	DeviceName   string // with mmp
	OrphanBlocks uint32 // size of the orphan file; 0: by the size of the file system
	BadBlocks    []uint64

	Discard       bool // tell the device that its content is not needed
	AssumeZeroed  bool // the device reads as zeros
	LazyItable    bool // leave inode tables to the kernel to zero, where descriptors have checksums
	LazyJournal   bool // do not zero the journal
	SyncEvery     int  // sync after the inode tables of so many groups; 0: at the end
	SuperOnly     bool // write superblocks and descriptors over a damaged file system, nothing else
	KeepBootBlock bool // leave the first 1024 bytes

	// Progress is told what is done of a stage, of how much; it may be nil.
	Progress func(stage Stage, done, total uint64)
}

// Kinds of quota, FormatOptions.QuotaTypes.
const (
	QuotaUser = 1 << iota
	QuotaGroup
	QuotaProject
)

// Stage is a part of formatting that may take time.
type Stage int

// The stages, in their order.
const (
	StageDiscard Stage = iota
	StageTables        // finding room for bitmaps and inode tables
	StageInodes        // zeroing inode tables
	StageJournal
	StageJournalDone
	StageWrite // superblocks, descriptors and bitmaps
)

// A FormatResult tells what Format made.
type FormatResult struct {
	Super         *ondisk.Super // a copy, as it is on the device
	Groups        uint32
	Backups       []uint64 // blocks with a copy of the superblock
	JournalBlocks uint32   // inside the file system, fast commit area included; 0: none
	NoJournal     bool     // it was asked for and there is no room
	Zeroed        bool     // the discarded device reads as zeros
	BadBackups    []uint64 // bad blocks under backups, which are damaged therefore
}

// DefaultFormat returns the options of an ext4 as mke2fs makes it: blocks of
// 4 KiB, inodes of 256 bytes, a random UUID and hash seed.
func DefaultFormat() FormatOptions {
	o := FormatOptions{
		BlockSize: 4096, InodeSize: 256, GroupsPerFlex: 16, ReservedRatio: 5, SparseBackups: 2,
		Compat: ondisk.CompatExtAttr | ondisk.CompatResizeInode | ondisk.CompatDirIndex | ondisk.CompatHasJournal,
		Incompat: ondisk.IncompatFiletype | ondisk.IncompatExtents | ondisk.IncompatFlexBG |
			ondisk.Incompat64Bit,
		ROCompat: ondisk.ROCompatSparseSuper | ondisk.ROCompatLargeFile | ondisk.ROCompatHugeFile |
			ondisk.ROCompatDirNlink | ondisk.ROCompatExtraIsize | ondisk.ROCompatMetadataCsum,
		UUID: RandomUUID(), HashSeed: RandomUUID(), HashVersion: ondisk.HashHalfMD4,
		MountOptions: ondisk.DefmXattrUser | ondisk.DefmACL, MaxMntCount: -1,
		Discard: true, LazyItable: true,
	}
	return o
}

// formatter is a file system that is being made. What is written of it in whole
// blocks is kept in memory until its layout is done: a few blocks, whatever its
// size, since inode tables start as zeros.
type formatter struct {
	*geometry
	tables
	opts    *FormatOptions
	dev     blockdev.Device
	space   *spaceMap
	pending map[uint64][]byte // blocks to be written
	memory  []byte            // for more of them
	inodes  map[ondisk.Ino]bool
	dirs    map[uint32]uint32 // directories in a group
	seed    uint32            // of checksums
	zeroed  bool              // the device reads as zeros
	written uint64            // bytes
	now     ondisk.Time
	result  *FormatResult
	zeros   []zeroRange
}

// zeroRange is a range of blocks that has to read as zeros.
type zeroRange struct{ b, n uint64 }

// Plan computes what Format would make of a device of size bytes. It needs no
// device and writes nothing. Its errors are those of Format.
func Plan(size int64, o FormatOptions) (*FormatResult, error) {
	f, err := newFormatter(size, &o)
	if err != nil {
		return nil, err
	}
	return f.result, nil
}

// Format makes a file system on dev. Its superblock is wiped first and written
// last, after a flush, so that an image is either complete or no file system; an
// error leaves the latter. dev stays the caller's, and can be given to Open. It
// fails with EINVAL where o contradicts itself or does not fit the device, with
// ENOSPC where metadata has no room, and as dev does.
func Format(dev blockdev.Device, o FormatOptions) (*FormatResult, error) {
	f, err := newFormatter(dev.Size(), &o)
	if err != nil {
		return nil, err
	}
	f.dev = dev
	if err := f.prepare(); err != nil {
		return nil, err
	}
	if f.sb.HasIncompat(ondisk.IncompatJournalDev) {
		err = f.makeJournalDevice()
	} else {
		err = f.make()
	}
	if err != nil {
		return nil, err
	}
	return f.result, nil
}

func newFormatter(size int64, o *FormatOptions) (*formatter, error) {
	if o.Revision0 && o.InodeSize == 0 {
		o.InodeSize = ondisk.GoodOldInodeSz
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Time == 0 {
		o.Time = time.Now().Unix()
	}
	blocks := uint64(size) / uint64(o.BlockSize)
	if o.Blocks != 0 {
		if o.Blocks > blocks {
			return nil, fmt.Errorf("%d blocks of %d bytes are more than the device has (%d): %w",
				o.Blocks, o.BlockSize, blocks, errSize)
		}
		blocks = o.Blocks
	}
	if blocks > 1<<32-1 && o.Incompat&ondisk.Incompat64Bit == 0 {
		return nil, fmt.Errorf("%d blocks of %d bytes need the 64bit feature: %w", blocks, o.BlockSize, errSize)
	}
	g, err := newGeometry(o, blocks)
	if err != nil {
		return nil, err
	}
	f := &formatter{
		geometry: g, opts: o,
		pending: map[uint64][]byte{}, inodes: map[ondisk.Ino]bool{}, dirs: map[uint32]uint32{},
		now: ondisk.Time{Sec: o.Time},
	}
	f.fillSuper()
	f.seed = f.sb.CsumSeed()
	f.result = &FormatResult{Super: f.sb, Groups: f.groups}
	for n := range f.backupGroups {
		f.result.Backups = append(f.result.Backups, f.base(n).super)
	}
	if o.Compat&ondisk.CompatHasJournal != 0 && o.JournalUUID == nil && f.groups > 0 {
		if err := f.sizeJournal(); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// backupGroups calls f with the groups, but the first, that have a superblock.
func (g *geometry) backupGroups(f func(n uint32) bool) {
	if !g.sb.HasROCompat(ondisk.ROCompatSparseSuper) && !g.sb.HasCompat(ondisk.CompatSparseSuper2) {
		for n := uint32(1); n < g.groups; n++ {
			if !f(n) {
				return
			}
		}
		return
	}
	if g.sb.HasCompat(ondisk.CompatSparseSuper2) {
		for _, n := range []uint32{g.sb.BackupBGs[0].Get(), g.sb.BackupBGs[1].Get()} {
			if n != 0 && n < g.groups && !f(n) {
				return
			}
		}
		return
	}
	// The powers of 3, 5 and 7, by size.
	p := [3]uint64{1, 5, 7}
	for {
		k := 0
		for i := range p {
			if p[i] < p[k] {
				k = i
			}
		}
		n := p[k]
		if n >= uint64(g.groups) || !f(uint32(n)) {
			return
		}
		p[k] *= [3]uint64{3, 5, 7}[k]
	}
}

// fillSuper sets the fields of the superblock that do not follow from a layout.
func (f *formatter) fillSuper() {
	s, o := f.sb, f.opts
	s.UUID = o.UUID
	copy(endian.Bytes(&s.HashSeed), o.HashSeed[:])
	s.DefHashVersion[0] = o.HashVersion
	copy(s.VolumeName[:], o.Label)
	copy(s.LastMounted[:], o.LastMounted)
	now := func(lo *endian.LE32, hi *[1]byte) {
		lo.Set(uint32(o.Time))
		hi[0] = byte(o.Time >> 32)
	}
	now(&s.MkfsTime, &s.MkfsTimeHi)
	now(&s.Lastcheck, &s.LastcheckHi)
	now(&s.Wtime, &s.WtimeHi)
	s.MaxMntCount.Set(uint16(o.MaxMntCount))
	s.Checkinterval.Set(o.CheckInterval)
	s.Errors.Set(max(o.Errors, ondisk.ErrorsContinue))
	s.CreatorOS.Set(o.CreatorOS)
	if !o.Revision0 {
		s.DefaultMountOpts.Set(o.MountOptions)
	}
	s.RAIDStride.Set(uint16(o.Stride))
	s.RAIDStripeWidth.Set(o.StripeWidth)
	s.Flags.Set(ondisk.SuperFlagSignedHash)
	if o.TestFS {
		s.Flags.Set(s.Flags.Get() | ondisk.SuperFlagTestFS)
	}
	if s.HasIncompat(ondisk.IncompatCasefold) {
		s.Encoding.Set(max(o.Encoding, 1))
		s.EncodingFlags.Set(o.EncodingFlags)
	}
	if s.HasIncompat(ondisk.IncompatEncrypt) {
		s.EncryptAlgos = [4]byte{1, 4} // AES-256-XTS for contents, AES-256-CTS for names
	}
	if f.csum {
		s.ChecksumType[0] = 1
	}
	if s.HasIncompat(ondisk.IncompatCsumSeed) {
		s.ChecksumSeed.Set(ondisk.Crc32c(^uint32(0), o.UUID[:]))
	}
}

// make lays the file system out, then writes it.
func (f *formatter) make() error {
	f.space = newSpaceMap(f.first, f.blocks)
	f.touched = newSpaceMap(0, uint64(f.groups))
	f.reserveBase()
	if err := f.markBadBlocks(); err != nil {
		return err
	}
	if err := f.placeTables(); err != nil {
		return err
	}
	f.space.toClusters(f.ratio)
	f.sb.OverheadClusters.Set(uint32(f.usedTotal() + f.first/f.ratio - uint64(len(f.opts.BadBlocks))/f.ratio))
	if f.opts.SuperOnly {
		return f.makeSuperOnly()
	}
	f.zeroLater(f.tail())
	if err := f.zeroTables(); err != nil {
		return err
	}
	if err := f.layInodes(); err != nil {
		return err
	}
	return f.write()
}

// layInodes makes the inodes that every file system has and those of its
// features, in the order in which mke2fs takes their blocks.
func (f *formatter) layInodes() error {
	for _, step := range []func() error{
		f.makeRoot, f.makeLostFound, f.makeReserved, f.makeBadInode, f.makeResizeInode,
		f.makeJournal, f.makeMMP, f.makeQuota, f.makeOrphanFile,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// makeSuperOnly is for a file system that lost its superblocks: e2fsck is to
// look at all of its inodes.
func (f *formatter) makeSuperOnly() error {
	f.sb.State.Set(f.sb.State.Get() | ondisk.StateError)
	f.sb.OverheadClusters.Set(0)
	if f.sb.HasCompat(ondisk.CompatHasJournal) {
		f.sb.JournalInum.Set(uint32(ondisk.JournalIno))
	}
	return f.write()
}

// tail is the end of the device, where what used it before may have left a
// signature.
func (f *formatter) tail() (b, n uint64) {
	unit := uint64(65536 / f.blockSize)
	start := f.blocks &^ (unit - 1)
	if start > unit {
		start -= unit
	}
	if start == 0 {
		return 0, 0
	}
	return start, f.blocks - start
}

func (f *formatter) zeroLater(b, n uint64) {
	if n > 0 {
		f.zeros = append(f.zeros, zeroRange{b, n})
	}
}

// usedTotal returns how many clusters are used.
func (f *formatter) usedTotal() uint64 { return f.space.usedClusters(f.first, f.blocks, f.ratio) }

func (f *formatter) step(s Stage, done, total uint64) {
	if f.opts.Progress != nil {
		f.opts.Progress(s, done, total)
	}
}

func (f *formatter) errorf(format string, args ...any) error {
	return fmt.Errorf(format, args...)
}

// RandomUUID returns a random UUID, of version 4.
func RandomUUID() (u [16]byte) {
	rand.Read(u[:])
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return u
}
