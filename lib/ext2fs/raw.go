package ext2fs

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Raw is a file system as its bytes lie on the device, for those who look at
// damage, repair it or do it: structures are read without being verified, as
// far as they can be told apart at all, and written one at a time, each with
// the checksum that fits it.
//
// What is written goes straight to the device, past the journal: a journal may
// be what is broken, and no transaction of FS could leave what it takes for
// damage. So a change is complete on the device when the method returns, and a
// sequence of changes that belong together can be cut short by a crash, as with
// any tool that edits; operations with POSIX meaning are FS's. The superblock
// alone is kept in memory, see WriteSuper. A file system that needs recovery
// has newer copies in its journal, which will overwrite what is changed here.
//
// Nobody else may write to the device meanwhile, an FS neither. A Raw is for
// one goroutine; several of them may read one device.
type Raw struct {
	dev  blockdev.Device
	o    RawOptions
	geo  *FS // what geometry computes; nothing else of it is in use
	sb   *ondisk.Super
	disk ondisk.Super // as the device has it

	cache    map[ondisk.Fsblk][]byte // blocks of metadata as the device has them
	cacheMax int
	bitmaps  map[ondisk.Fsblk][]byte // made for groups that have none on disk
	touched  bool                    // something was written
	keepCsum bool                    // the superblock's checksum is wrong on purpose
	ahead    *readAhead              // nil: blocks of directories are cached
}

// readAhead are the blocks that a scan over directories has read last, of which
// it needs none twice.
type readAhead struct {
	buf   []byte
	first ondisk.Fsblk
	n     uint64
}

// RawOptions say how OpenRaw opens.
type RawOptions struct {
	Writable bool
	// Super is the block of the superblock to use, in blocks of BlockSize; 0 is
	// the primary. What is written goes to the primary.
	Super     ondisk.Fsblk
	BlockSize int // that the file system must have; 0: any
	// Force opens in spite of features that are not known.
	Force bool
	// IgnoreCsum has Verify… methods take every checksum as good, and the
	// superblock's too.
	IgnoreCsum bool
	// CacheSize is the memory for blocks of metadata, bytes; 0 is 16 MiB.
	CacheSize int
	Now       func() time.Time
}

// OpenRaw opens the file system on dev, which stays the caller's to close. It
// fails with EINVAL for what is no file system, with an UnsupportedError, and
// with a CorruptError if the superblock's numbers cannot be worked with.
func OpenRaw(dev blockdev.Device, o RawOptions) (*Raw, error) {
	if o.Writable && blockdev.InfoOf(dev).ReadOnly {
		return nil, fmt.Errorf("the device is read-only: %w", syscall.EROFS)
	}
	off := int64(ondisk.SuperOffset)
	if o.Super != 0 {
		if o.BlockSize == 0 {
			return nil, fmt.Errorf("a superblock by its block number needs the block size: %w", syscall.EINVAL)
		}
		if uint64(o.Super) > uint64(dev.Size())/uint64(o.BlockSize) {
			return nil, fmt.Errorf("superblock at block %d, beyond the device: %w", o.Super, syscall.EINVAL)
		}
		off = int64(o.Super) * int64(o.BlockSize)
	}
	buf := make([]byte, ondisk.SuperSize)
	if _, err := dev.ReadAt(buf, off); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errNotFS
		}
		return nil, fmt.Errorf("superblock: %w", err)
	}
	r := &Raw{dev: dev, o: o, sb: endian.View[ondisk.Super](buf), disk: *endian.View[ondisk.Super](buf)}
	if err := r.check(); err != nil {
		return nil, err
	}
	r.cache = map[ondisk.Fsblk][]byte{}
	r.bitmaps = map[ondisk.Fsblk][]byte{}
	if o.CacheSize == 0 {
		o.CacheSize = 16 << 20
	}
	r.cacheMax = max(64, o.CacheSize/r.geo.blockSize)
	return r, nil
}

// Clone returns a Raw by which another goroutine can read the same file system
// while nobody writes to it. It is read-only.
func (r *Raw) Clone() *Raw {
	c := *r
	sb := *r.sb
	c.sb = &sb
	c.o.Writable = false
	c.cache = map[ondisk.Fsblk][]byte{}
	c.bitmaps = map[ondisk.Fsblk][]byte{}
	c.ahead = nil
	return &c
}

// check takes the superblock apart.
func (r *Raw) check() error {
	s := r.sb
	if s.Magic.Get() != ondisk.SuperMagic {
		return errNotFS
	}
	if rev := s.RevLevel.Get(); rev > ondisk.DynamicRev && !r.o.Force {
		return &ondisk.UnsupportedError{Feature: fmt.Sprintf("revision %d", rev)}
	}
	if s.HasIncompat(ondisk.IncompatJournalDev) {
		return &ondisk.UnsupportedError{Feature: "journal_dev: this is an external journal, not a file system"}
	}
	if err := r.VerifySuper(); err != nil {
		return err
	}
	if !r.o.Force && s.RevLevel.Get() >= ondisk.DynamicRev {
		if x := s.FeatureIncompat.Get() &^ incompatKnown; x != 0 {
			return &ondisk.UnsupportedError{Feature: names(x, incompatNames, "incompat")}
		}
		const known = roCompatKnown | roCompatReadOnly | ondisk.ROCompatSharedBlocks
		if x := s.FeatureROCompat.Get() &^ uint32(known); x != 0 && r.o.Writable {
			return &ondisk.UnsupportedError{Feature: names(x, roCompatNames, "ro_compat")}
		}
	}
	r.geo = &FS{sb: s}
	if err := r.geo.geometry(s); err != nil {
		return err
	}
	if bs := r.o.BlockSize; bs != 0 && bs != r.geo.blockSize {
		return fmt.Errorf("blocks have %d bytes, not %d: %w", r.geo.blockSize, bs, syscall.EINVAL)
	}
	if r.o.Super != 0 {
		r.geo.descBase = r.o.Super + 1
	}
	return nil
}

// Device returns the device.
func (r *Raw) Device() blockdev.Device { return r.dev }

// Writable says whether changes are allowed.
func (r *Raw) Writable() bool { return r.o.Writable }

// Super returns the superblock in memory. It may be changed; WriteSuper brings
// it to the device. The geometry stays that of OpenRaw.
func (r *Raw) Super() *ondisk.Super { return r.sb }

// BlockSize returns the size of a block in bytes.
func (r *Raw) BlockSize() int { return r.geo.blockSize }

// InodeSize returns the size of an inode on disk in bytes.
func (r *Raw) InodeSize() int { return r.geo.inodeSize }

// Blocks returns the number of blocks; the first one of use is FirstBlock.
func (r *Raw) Blocks() ondisk.Fsblk { return r.geo.blocks }

// FirstBlock returns the first block that belongs to a group.
func (r *Raw) FirstBlock() ondisk.Fsblk { return r.geo.firstData }

// Inodes returns the number of inodes, which is the highest of their numbers.
func (r *Raw) Inodes() ondisk.Ino { return ondisk.Ino(r.geo.inodes) }

// Groups returns the number of block groups.
func (r *Raw) Groups() ondisk.Group { return r.geo.groups }

// ClusterRatio returns the blocks of a cluster, 1 without bigalloc.
func (r *Raw) ClusterRatio() uint32 { return r.geo.clusterRatio }

// HasCsum says whether metadata has checksums.
func (r *Raw) HasCsum() bool { return r.geo.hasCsum }

// Now returns the time that changes are stamped with.
func (r *Raw) Now() time.Time {
	if r.o.Now != nil {
		return r.o.Now()
	}
	return time.Now()
}

// CsumSeed returns the value that checksums of metadata start from. It stays
// that of OpenRaw, which is what the file system's structures are sealed with.
func (r *Raw) CsumSeed() uint32 { return r.geo.csumSeed }

// VerifySuper checks the checksum of the superblock as the device has it.
func (r *Raw) VerifySuper() error {
	s := &r.disk
	if r.o.IgnoreCsum || !s.HasROCompat(ondisk.ROCompatMetadataCsum) {
		return nil
	}
	if t := s.ChecksumType[0]; t != 1 {
		return &ondisk.UnsupportedError{Feature: fmt.Sprintf("checksum type %d", t)}
	}
	if c := ondisk.SuperCsum(s); c != s.Checksum.Get() {
		return ondisk.BadCsum("superblock", ondisk.SuperSize-4, s.Checksum.Get(), c)
	}
	return nil
}

// writable fails unless changes are allowed.
func (r *Raw) writable() error {
	if !r.o.Writable {
		return syscall.EROFS
	}
	r.touched = true
	return nil
}

// inRange fails if the n blocks from b on do not all belong to the file system.
func (r *Raw) inRange(b ondisk.Fsblk, n uint64) error {
	if b >= r.geo.blocks || n > uint64(r.geo.blocks-b) {
		return fmt.Errorf("block %d of %d: %w", b, r.geo.blocks, syscall.EINVAL)
	}
	return nil
}

// Block returns block b. The bytes are the cache's: they are not to be changed,
// and stay as they are until a method of r writes to the block.
func (r *Raw) Block(b ondisk.Fsblk) ([]byte, error) {
	if d := r.cache[b]; d != nil {
		return d, nil
	}
	d := make([]byte, r.geo.blockSize)
	if err := r.ReadBlocks(d, b); err != nil {
		return nil, err
	}
	if len(r.cache) >= r.cacheMax {
		clear(r.cache)
	}
	r.cache[b] = d
	return d, nil
}

// ReadBlocks fills p, of whole blocks, from block b on. It goes past the cache,
// as data of files does.
func (r *Raw) ReadBlocks(p []byte, b ondisk.Fsblk) error {
	if err := r.inRange(b, uint64(len(p)/r.geo.blockSize)); err != nil {
		return err
	}
	if _, err := r.dev.ReadAt(p, int64(b)<<r.geo.blockBits); err != nil {
		return fmt.Errorf("block %d: %w", b, ioErr(err))
	}
	return nil
}

// ioErr makes the end of the device, which is none of the caller's files, EIO.
func ioErr(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("past the end of the device: %w", syscall.EIO)
	}
	return err
}

// WriteBlock writes data, of a block's size, to block b, as it is.
func (r *Raw) WriteBlock(b ondisk.Fsblk, data []byte) error {
	if err := r.writable(); err != nil {
		return err
	}
	if err := r.inRange(b, uint64(len(data)/r.geo.blockSize)); err != nil {
		return err
	}
	if _, err := r.dev.WriteAt(data, int64(b)<<r.geo.blockBits); err != nil {
		delete(r.cache, b)
		return fmt.Errorf("block %d: %w", b, err)
	}
	for i := 0; i < len(data); i, b = i+r.geo.blockSize, b+1 {
		if d := r.cache[b]; d != nil {
			copy(d, data[i:])
		}
	}
	return nil
}

// Forget drops what is cached: the device was written by other means.
func (r *Raw) Forget() { clear(r.cache) }

// Close brings the superblock to the device if anything was written, with the
// time of that, and waits until all is on stable storage. With backups, copies
// of the superblock and the descriptors are written too.
func (r *Raw) Close(backups bool) error {
	if !r.o.Writable || !r.touched && *r.sb == r.disk && !backups {
		return nil
	}
	if r.sb.Wtime == r.disk.Wtime && !r.keepCsum {
		t := r.Now().Unix()
		r.sb.Wtime.Set(uint32(t))
		r.sb.WtimeHi[0] = byte(t >> 32)
	}
	err := r.WriteSuper()
	if err == nil && backups {
		err = r.WriteBackups()
	}
	if err == nil {
		err = r.dev.Sync()
	}
	return err
}
