package ext2fs

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// SurveyOptions say how OpenSurvey reads a file system.
type SurveyOptions struct {
	// SbBlock is the block of the superblock, in blocks of BlockSize, which has
	// to be given then; 0 is the primary.
	SbBlock uint64
	// BlockSize is the block size that the file system must have; 0 is any.
	BlockSize int
	// Force reads file systems with features that are not known.
	Force bool
	// IgnoreCsum takes what has a wrong checksum; see Survey.IgnoreCsum.
	IgnoreCsum bool
	// SuperOnly does without the descriptors: the device may be too short for
	// them.
	SuperOnly bool
	// E2Image says that the device is not a file system but a file that e2image
	// wrote, in the format that has only metadata, one kind after the other.
	E2Image bool
}

// SurveyReason is why OpenSurvey, or a method of Survey, failed.
type SurveyReason int

// The reasons, after those that the libext2fs of e2fsprogs has.
const (
	ReasonIO              SurveyReason = iota // the device failed
	ReasonShort                               // the device ends before
	ReasonNoSuper                             // no superblock
	ReasonNoImage                             // no image of e2image
	ReasonRevision                            // a revision that is not known
	ReasonFeature                             // features that are not known
	ReasonSuperCsum                           // the superblock's checksum does not match
	ReasonCsumType                            // a kind of checksum that is not known
	ReasonSuper                               // a superblock that contradicts itself
	ReasonDescSize                            // a size that descriptors do not have
	ReasonBlockSize                           // another block size than was asked for
	ReasonBlockBitmap                         // a block bitmap cannot be read
	ReasonInodeBitmap                         // an inode bitmap cannot be read
	ReasonBlockBitmapCsum                     // a block bitmap's checksum does not match
	ReasonInodeBitmapCsum                     // an inode bitmap's checksum does not match
	ReasonInode                               // no such inode, or its table is nowhere
	ReasonInodeCsum                           // an inode's checksum does not match
	ReasonMap                                 // the map of a file contradicts itself
	ReasonMMPBlock                            // no place for a block of multiple mount protection
	ReasonMMPMagic                            // it is not such a block
	ReasonMMPCsum                             // its checksum does not match
)

// SurveyError is the error of reading a file system that is taken as it lies. It
// unwraps to what the device said, or to EUCLEAN, EBADMSG, EINVAL or
// EOPNOTSUPP.
type SurveyError struct {
	Reason SurveyReason
	What   string
	Err    error
}

func (e *SurveyError) Error() string {
	if e.Reason == ReasonIO {
		return e.What + ": " + e.Err.Error()
	}
	return e.What
}

func (e *SurveyError) Unwrap() error { return e.Err }

func surveyErr(why SurveyReason, format string, args ...any) *SurveyError {
	var err error
	switch why {
	case ReasonNoSuper, ReasonNoImage, ReasonBlockSize, ReasonInode:
		err = syscall.EINVAL
	case ReasonRevision, ReasonFeature, ReasonCsumType:
		err = syscall.EOPNOTSUPP
	case ReasonSuperCsum, ReasonBlockBitmapCsum, ReasonInodeBitmapCsum, ReasonInodeCsum, ReasonMMPCsum:
		err = ondisk.EBADMSG
	case ReasonShort:
		err = io.ErrUnexpectedEOF
	default:
		err = ondisk.EUCLEAN
	}
	return &SurveyError{why, fmt.Sprintf(format, args...), err}
}

// Survey is the layout of a file system, of an external journal, or of an image
// of e2image, as it lies on the device, for tools that list it: superblock,
// descriptors, bitmaps, and what reserved inodes hold. It opens all that
// e2fsprogs opens, such as devices that were cut off, where Raw, which changes
// things, wants numbers that it can work with. Nothing is replayed, and memory
// does not depend on what the device says. Its methods may be called
// concurrently.
type Survey struct {
	dev    blockdev.Device
	opts   SurveyOptions
	super  *ondisk.Super // immutable, as all but what mu guards
	csumSB *ondisk.Super // the same with a revision that has features, to compute checksums by
	image  *imageHeader

	blockSize   int
	clusterBits uint
	blocks      uint64
	first       uint64 // first data block
	descSize    int
	descPer     uint32 // descriptors in a block
	groups      uint64
	descBlocks  uint64
	itable      uint32 // blocks of a group's inode table
	groupBlock  uint64 // that descriptors are looked for behind
	seed        uint32
	ignoreCsum  atomic.Bool

	mu    sync.Mutex
	cache [8]surveyBlock // guarded by mu: metadata read last
	tick  uint64         // guarded by mu
}

// surveyBlock is a block that was read.
type surveyBlock struct {
	blk  uint64
	used uint64
	data []byte // not changed once it is here
}

// OpenSurvey reads the superblock of dev, which stays the caller's to close, and
// checks it as far as e2fsprogs does. The device may be an external journal,
// which has no groups. Its error is a *SurveyError.
func OpenSurvey(dev blockdev.Device, o SurveyOptions) (*Survey, error) {
	v := &Survey{dev: dev, opts: o}
	v.ignoreCsum.Store(o.IgnoreCsum)
	at, bs := uint64(1), 1024
	if o.E2Image {
		h, err := readImageHeader(dev)
		if err != nil {
			return nil, err
		}
		v.image = h
		v.opts.SbBlock, v.opts.BlockSize = 1, int(h.BlockSize.Get())
	}
	if v.opts.SbBlock != 0 {
		if v.opts.BlockSize <= 0 {
			return nil, surveyErr(ReasonBlockSize, "a superblock at a block needs the size of blocks")
		}
		at, bs = v.opts.SbBlock, v.opts.BlockSize
		v.groupBlock = at
	}
	b := make([]byte, ondisk.SuperSize)
	if at > 1<<46 {
		return nil, surveyErr(ReasonShort, "superblock at block %d: the device ends before", at)
	}
	if err := v.read("superblock", b, int64(at)*int64(bs)); err != nil {
		return nil, err
	}
	v.super = endian.View[ondisk.Super](b)
	c := *v.super
	c.RevLevel.Set(max(c.RevLevel.Get(), ondisk.DynamicRev))
	v.csumSB = &c
	if err := v.checkSuper(); err != nil {
		return nil, err
	}
	if err := v.geometry(); err != nil {
		return nil, err
	}
	if v.groups > 0 && !o.SuperOnly {
		if err := v.checkDescriptors(); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// read fills b from byte off on.
func (v *Survey) read(what string, b []byte, off int64) error {
	_, err := v.dev.ReadAt(b, off)
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return surveyErr(ReasonShort, "%s at byte %d: the device ends before", what, off)
	}
	return &SurveyError{ReasonIO, what, err}
}

// surveyIncompat are the features that Survey finds its way with, those of an
// external journal among them; the others need SurveyOptions.Force.
const surveyIncompat = ondisk.IncompatFiletype | ondisk.IncompatJournalDev | ondisk.IncompatMetaBG |
	ondisk.IncompatRecover | ondisk.IncompatExtents | ondisk.IncompatFlexBG | ondisk.IncompatEAInode |
	ondisk.IncompatMMP | ondisk.Incompat64Bit | ondisk.IncompatInlineData | ondisk.IncompatEncrypt |
	ondisk.IncompatCasefold | ondisk.IncompatCsumSeed | ondisk.IncompatLargeDir

// has, hasRO look at feature bits whatever the revision, as e2fsprogs does.
func (v *Survey) has(incompat uint32) bool   { return v.super.FeatureIncompat.Get()&incompat != 0 }
func (v *Survey) hasRO(roCompat uint32) bool { return v.super.FeatureROCompat.Get()&roCompat != 0 }

func (v *Survey) hasDescCsum() bool {
	return v.hasRO(ondisk.ROCompatGDTCsum | ondisk.ROCompatMetadataCsum)
}

// checkSuper checks that the superblock is one, and of a kind that is known.
func (v *Survey) checkSuper() error {
	s := v.super
	if m := s.Magic.Get(); m != ondisk.SuperMagic {
		return surveyErr(ReasonNoSuper, "no ext2, ext3 or ext4 superblock: its magic number is %#x", m)
	}
	if v.hasRO(ondisk.ROCompatMetadataCsum) && !v.ignoreCsum.Load() {
		if c := ondisk.SuperCsum(s); c != s.Checksum.Get() {
			return surveyErr(ReasonSuperCsum, "the superblock's checksum is %#08x, should be %#08x", s.Checksum.Get(), c)
		}
		if t := s.ChecksumType[0]; t != 1 {
			return surveyErr(ReasonCsumType, "checksums of type %d are not known", t)
		}
	}
	if n := s.RevLevel.Get(); n > ondisk.DynamicRev {
		return surveyErr(ReasonRevision, "revision %d is not known", n)
	}
	if x := s.FeatureIncompat.Get() &^ surveyIncompat; x != 0 && !v.opts.Force {
		return surveyErr(ReasonFeature, "unknown features: %s", names(x, incompatNames, "incompat"))
	}
	return nil
}

// geometry takes the sizes from the superblock.
func (v *Survey) geometry() error {
	bad := func(format string, args ...any) error {
		return surveyErr(ReasonSuper, "superblock: "+format, args...)
	}
	s := v.super
	lbs, lcs := s.LogBlockSize.Get(), s.LogClusterSize.Get()
	switch {
	case lbs > 6 || lcs > 19 || lbs > lcs || !v.hasRO(ondisk.ROCompatBigalloc) && lbs != lcs:
		return bad("blocks of 1024 << %d bytes, clusters of 1024 << %d", lbs, lcs)
	case s.LogGroupsPerFlex[0] > 31:
		return bad("flex groups of 1 << %d groups", s.LogGroupsPerFlex[0])
	}
	v.blockSize, v.clusterBits = 1024<<lbs, uint(lcs-lbs)
	isz := v.InodeSize()
	if isz < ondisk.GoodOldInodeSz || isz > v.blockSize || isz&(isz-1) != 0 {
		return bad("inodes of %d bytes", isz)
	}
	v.descSize = ondisk.GroupDescMin
	if v.has(ondisk.Incompat64Bit) {
		n := int(s.DescSize.Get())
		if n < ondisk.GroupDescMin64 || n > 1024 || n&(n-1) != 0 {
			return surveyErr(ReasonDescSize, "superblock: group descriptors of %d bytes", n)
		}
		v.descSize = n
	}
	bpg, ipg := s.BlocksPerGroup.Get(), s.InodesPerGroup.Get()
	if bpg != s.ClustersPerGroup.Get()<<v.clusterBits {
		return bad("%d blocks and %d clusters in a group", bpg, s.ClustersPerGroup.Get())
	}
	if n := v.opts.BlockSize; n != 0 && n != v.blockSize {
		return surveyErr(ReasonBlockSize, "blocks of %d bytes, not %d", v.blockSize, n)
	}
	v.first = uint64(s.FirstDataBlock.Get())
	v.blocks = uint64(s.BlocksCountLo.Get())
	if v.has(ondisk.Incompat64Bit) {
		v.blocks |= uint64(s.BlocksCountHi.Get()) << 32
	}
	if v.has(ondisk.IncompatJournalDev) {
		return nil
	}
	v.itable = (ipg*uint32(isz) + uint32(v.blockSize) - 1) / uint32(v.blockSize)
	v.descPer = uint32(v.blockSize / v.descSize)
	switch {
	case ipg == 0:
		return bad("no inodes in a group")
	case bpg < 8 || uint64(bpg) > (1<<16-8)<<v.clusterBits:
		return bad("%d blocks in a group", bpg)
	case v.itable > 1<<16-uint32(v.blockSize/isz):
		return bad("%d blocks in a table of inodes", v.itable)
	case v.first >= v.blocks:
		return bad("%d blocks, the first of them %d", v.blocks, v.first)
	}
	v.groups = (v.blocks - v.first + uint64(bpg) - 1) / uint64(bpg)
	v.descBlocks = (v.groups + uint64(v.descPer) - 1) / uint64(v.descPer)
	switch {
	case v.groups > 1<<32-1:
		return bad("%d groups", v.groups)
	case v.groups*uint64(ipg) != uint64(s.InodesCount.Get()):
		return bad("%d inodes, but %d groups of %d", s.InodesCount.Get(), v.groups, ipg)
	case v.has(ondisk.IncompatMetaBG) && uint64(s.FirstMetaBG.Get()) > v.descBlocks:
		return bad("first meta block group %d of %d descriptor blocks", s.FirstMetaBG.Get(), v.descBlocks)
	}
	v.seed = v.csumSB.CsumSeed()
	if v.groupBlock == 0 {
		v.groupBlock = v.first
	}
	return nil
}

// Super returns the superblock, which must not be changed.
func (v *Survey) Super() *ondisk.Super { return v.super }

// IgnoreCsum says whether what has a wrong checksum is taken from here on.
func (v *Survey) IgnoreCsum(on bool) { v.ignoreCsum.Store(on) }

// BlockSize returns the size of a block in bytes.
func (v *Survey) BlockSize() int { return v.blockSize }

// InodeSize returns the size of an inode in bytes.
func (v *Survey) InodeSize() int {
	if v.super.RevLevel.Get() == ondisk.GoodOldRev {
		return ondisk.GoodOldInodeSz
	}
	return int(v.super.InodeSize.Get())
}

// Groups returns the number of block groups; an external journal has none.
func (v *Survey) Groups() uint64 { return v.groups }

// ClusterRatio returns how many blocks a bit of the block bitmap stands for.
func (v *Survey) ClusterRatio() uint32 { return 1 << v.clusterBits }

// IsE2Image says whether what is read is an image of e2image, which has no
// contents of files.
func (v *Survey) IsE2Image() bool { return v.image != nil }

// block returns block b, which must not be changed. The blocks read last are
// kept.
func (v *Survey) block(what string, b uint64) ([]byte, error) {
	if b > uint64(1)<<62/uint64(v.blockSize) {
		return nil, surveyErr(ReasonShort, "%s at block %d: the device ends before", what, b)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tick++
	old := &v.cache[0]
	for i := range v.cache {
		c := &v.cache[i]
		if c.data != nil && c.blk == b {
			c.used = v.tick
			return c.data, nil
		}
		if c.used < old.used {
			old = c
		}
	}
	data := make([]byte, v.blockSize)
	if err := v.read(what, data, int64(b)*int64(v.blockSize)); err != nil {
		return nil, err
	}
	*old = surveyBlock{b, v.tick, data}
	return data, nil
}

// ReadBlock returns a copy of block b of the device.
func (v *Survey) ReadBlock(b ondisk.Fsblk) ([]byte, error) {
	data, err := v.block("block", uint64(b))
	return append([]byte(nil), data...), err
}
