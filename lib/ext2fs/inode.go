package ext2fs

import (
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// Inode is an in-core inode. It is valid from Iget to Put.
type Inode struct {
	fs  *FS
	ino ondisk.Ino
	gen uint32 // immutable: i_generation
	typ uint16 // immutable: the type in i_mode

	// mu is the kernel's i_rwsem: exclusive to change attributes, names or
	// content other than by writing data inside the file, shared otherwise.
	mu sync.RWMutex
	// mapMu guards raw, the blocks of the mapping tree, and reservations.
	mapMu sync.RWMutex
	// raw has all bytes of the inode, and is what counts; store brings it to the
	// inode table. i_dtime is the exception: see orphan.go.
	raw ondisk.RawInode // guarded by mapMu

	syncTid     atomic.Uint32 // last transaction that changed it
	dataSyncTid atomic.Uint32 // last one that fdatasync has to wait for

	// seed is ondisk.InodeSeed, where the checksums of its blocks start.
	seed uint32 // immutable

	// rsvOK says that the operation at work on a directory may take the blocks
	// reserved for the super-user, for the directory itself.
	rsvOK bool // guarded by mu

	lastGroup atomic.Uint32 // group of the last directory made in this one, plus one

	inodeMap   // of the mapping
	inodeDir   // of directories
	inodeXattr // of attributes

	cached // guarded by the icache's shard
}

// Ino returns the inode's number.
func (ip *Inode) Ino() ondisk.Ino { return ip.ino }

// Generation returns i_generation: with Ino it names the inode for as long as
// the file system lives.
func (ip *Inode) Generation() uint32 { return ip.gen }

// FS returns the file system.
func (ip *Inode) FS() *FS { return ip.fs }

// mode returns i_mode. mapMu is held.
func (ip *Inode) mode() uint16 { return ip.raw.Base().Mode.Get() }

// The type does not change while the inode lives.
func (ip *Inode) ftype() uint16 { return ip.typ }
func (ip *Inode) isReg() bool   { return ip.ftype() == ondisk.ModeReg }
func (ip *Inode) isDir() bool   { return ip.ftype() == ondisk.ModeDir }
func (ip *Inode) isLnk() bool   { return ip.ftype() == ondisk.ModeLnk }

// flag tells whether any of the Flag… bits is set. mapMu is held.
func (ip *Inode) flag(bits uint32) bool { return ip.raw.Base().Flags.Get()&bits != 0 }

// setFlags sets and clears Flag… bits. mapMu is held.
func (ip *Inode) setFlags(set, clear uint32) {
	f := &ip.raw.Base().Flags
	f.Set(f.Get()&^clear | set)
}

// size returns the size in bytes. mapMu is held.
func (ip *Inode) size() int64 { return ip.raw.Size(ip.fs.hasLargeDir) }

// nlink returns the link count as stored: 1 for a directory that has too many.
// mapMu is held.
func (ip *Inode) nlink() uint32 { return uint32(ip.raw.Base().LinksCount.Get()) }

// isFastLink tells whether the inode is a symbolic link whose target lies in
// i_block. mapMu is held.
func (ip *Inode) isFastLink() bool {
	if !ip.isLnk() || ip.flag(ondisk.FlagInlineData|ondisk.FlagEAInode) {
		return false
	}
	if ip.flag(ondisk.FlagExtents) {
		return false
	}
	n := ip.size()
	if n >= ondisk.MaxSymlinkFast {
		return false
	}
	if ip.fs.hasEAInode { // i_blocks counts values of attributes too
		return true
	}
	// Old kernels wrote short targets into a block too.
	var ea uint64
	if ip.raw.FileACL() != 0 {
		ea = uint64(ip.fs.clusterRatio)
	}
	return ip.blocksUsed() == ea
}

// blocksUsed returns i_blocks in file system blocks. mapMu is held.
func (ip *Inode) blocksUsed() uint64 {
	n := ip.raw.Blocks(ip.fs.hasHugeFile)
	if ip.fs.hasHugeFile && ip.flag(ondisk.FlagHugeFile) {
		return n
	}
	return n >> (ip.fs.blockBits - 9)
}

// sectors returns i_blocks in units of 512 bytes, as stat does. mapMu is held.
func (ip *Inode) sectors() uint64 {
	n := ip.raw.Blocks(ip.fs.hasHugeFile)
	if ip.fs.hasHugeFile && ip.flag(ondisk.FlagHugeFile) {
		return n << (ip.fs.blockBits - 9)
	}
	return n
}

// addBlocks adds delta file system blocks to i_blocks, in the unit that fits.
// mapMu is held.
func (ip *Inode) addBlocks(delta int64) {
	fs := ip.fs
	shift := fs.blockBits - 9
	n := int64(ip.sectors()) + delta<<shift
	if n < 0 {
		_ = fs.corrupt(ip.ino, ondisk.Corrupt("inode", int(unsafe.Offsetof(ondisk.Inode{}.BlocksLo)),
			"%d blocks freed of %d", -delta, ip.blocksUsed()))
		n = 0
	}
	switch {
	case n <= math.MaxUint32 || !fs.hasHugeFile:
		ip.setFlags(0, ondisk.FlagHugeFile)
	case n < 1<<48:
		ip.setFlags(0, ondisk.FlagHugeFile)
	default:
		ip.setFlags(ondisk.FlagHugeFile, 0)
		n >>= shift
	}
	ip.raw.SetBlocks(uint64(n))
}

// itable returns the block of the inode table that ino lies in, and where.
func (fs *FS) itable(ino ondisk.Ino) (blk ondisk.Fsblk, off int, err error) {
	if ino == 0 || uint32(ino) > fs.inodes {
		return 0, 0, syscall.ESTALE
	}
	g, err := fs.groupOf(ondisk.Group(uint32(ino-1) / fs.inodesPerGroup))
	if err != nil {
		return 0, 0, err
	}
	i := uint32(ino-1) % fs.inodesPerGroup
	return g.inodeTable + ondisk.Fsblk(i/fs.inodesPerBlock), int(i%fs.inodesPerBlock) * fs.inodeSize, nil
}

// readItable returns the pinned block of the inode table that ino lies in, and
// the inode's bytes in it.
func (fs *FS) readItable(ino ondisk.Ino) (*buffer.Buf, ondisk.RawInode, error) {
	blk, off, err := fs.itable(ino)
	if err != nil {
		return nil, nil, err
	}
	b, err := fs.cache.Read(buffer.Block(blk), opsInodeTable, buffer.Ctx{})
	if err != nil {
		return nil, nil, err
	}
	end := off + fs.inodeSize
	return b, ondisk.RawInode(b.Data()[off:end:end]), nil
}

func (fs *FS) slotLock(ino ondisk.Ino) *sync.Mutex {
	return &fs.slotMu[uint32(ino)%uint32(len(fs.slotMu))]
}

// store brings the inode's bytes to the inode table, in h's transaction. mapMu
// is held, exclusively.
func (ip *Inode) store(h *jbd2.Handle) error {
	fs := ip.fs
	b, slot, err := fs.readItable(ip.ino)
	if err != nil {
		return err
	}
	defer b.Put()
	if err := h.GetWrite(b); err != nil {
		return err
	}
	mu := fs.slotLock(ip.ino)
	mu.Lock()
	ip.raw.Base().Dtime = slot.Base().Dtime
	copy(slot, ip.raw)
	if fs.hasCsum {
		slot.Seal(fs.csumSeed, ip.ino)
	}
	mu.Unlock()
	h.Dirty(b)
	ip.syncTid.Store(uint32(h.Tid()))
	return nil
}

// setDtime stores i_dtime alone: the time of deletion, or the next inode of the
// orphan list.
func (fs *FS) setDtime(h *jbd2.Handle, ino ondisk.Ino, v uint32) error {
	b, slot, err := fs.readItable(ino)
	if err != nil {
		return err
	}
	defer b.Put()
	if err := h.GetWrite(b); err != nil {
		return err
	}
	mu := fs.slotLock(ino)
	mu.Lock()
	slot.Base().Dtime.Set(v)
	if fs.hasCsum {
		slot.Seal(fs.csumSeed, ino)
	}
	mu.Unlock()
	h.Dirty(b)
	return nil
}

// checkInode checks what is in no one else's care: checksum, sizes, type.
func (fs *FS) checkInode(raw ondisk.RawInode, ino ondisk.Ino) error {
	if fs.hasCsum {
		if err := raw.VerifyCsum(fs.csumSeed, ino); err != nil {
			return err
		}
	}
	b := raw.Base()
	bad := func(off uintptr, format string, args ...any) error {
		return ondisk.At(ondisk.Corrupt("inode", int(off), format, args...), ino, 0)
	}
	if len(raw) > ondisk.GoodOldInodeSz {
		n := int(raw[ondisk.GoodOldInodeSz]) | int(raw[ondisk.GoodOldInodeSz+1])<<8
		if n > len(raw)-ondisk.GoodOldInodeSz || n&3 != 0 {
			return bad(ondisk.GoodOldInodeSz, "extra size %d", n)
		}
	}
	switch b.Mode.Get() & ondisk.ModeFmt {
	case ondisk.ModeReg, ondisk.ModeDir, ondisk.ModeLnk, ondisk.ModeChr, ondisk.ModeBlk,
		ondisk.ModeFIFO, ondisk.ModeSock:
	case 0:
		if ino >= fs.firstIno || b.LinksCount.Get() == 0 {
			return syscall.ESTALE
		}
	default:
		return bad(unsafe.Offsetof(b.Mode), "mode %#o", b.Mode.Get())
	}
	if f := b.Flags.Get(); f&ondisk.FlagInlineData != 0 && !fs.hasInlineData || f&ondisk.FlagEAInode != 0 && !fs.hasEAInode {
		return bad(unsafe.Offsetof(b.Flags), "flags %#x without the feature", f)
	}
	if raw.Size(fs.hasLargeDir) < 0 {
		return bad(unsafe.Offsetof(b.SizeHi), "size %d", raw.Size(fs.hasLargeDir))
	}
	if a := raw.FileACL(); a != 0 && (uint64(a) >= uint64(fs.blocks) || a <= fs.firstData) {
		return bad(unsafe.Offsetof(b.FileACLLo), "attribute block %d", a)
	}
	return nil
}
