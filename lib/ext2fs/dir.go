package ext2fs

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// Directories. The functions here find and change entries; what an operation
// means (link counts, times, whether a name is there already) is namei.go's.
// The caller holds dp.mu: shared to look, exclusively to change. dp.mapMu is
// taken inside where the inode's bytes or its mapping are used.
//
// A directory has one of three forms: linear (blocks of entries), indexed
// (htree.go: an index by hash hides in such blocks), or inline (dir_inline.go).

// dirKind is the kind of a directory's blocks, index nodes included: which of
// the two a block is can be told from its form, and a linear directory's first
// block becomes the root of an index while it is dirty.
type dirKind struct{ csum bool }

func (k dirKind) Name() string { return "directory" }

func (k dirKind) Verify(data []byte, blk buffer.Block, ctx buffer.Ctx) error {
	return ondisk.At(ondisk.VerifyDirBlock(data, k.csum, ctx.Seed), ondisk.Ino(ctx.Ino), ondisk.Fsblk(blk))
}

func (k dirKind) Seal(data []byte, _ buffer.Block, ctx buffer.Ctx) {
	if k.csum {
		ondisk.SealDirBlock(data, ctx.Seed)
	}
}

var (
	opsDir     buffer.Ops = dirKind{}
	opsDirCsum buffer.Ops = dirKind{csum: true}
)

// dirOps returns the kind of directory blocks in this file system.
func (fs *FS) dirOps() buffer.Ops {
	if fs.hasCsum {
		return opsDirCsum
	}
	return opsDir
}

// inodeDir is the part of an Inode that directories use.
type inodeDir struct{ dir dirHints }

// dirHints is what an inode remembers of searches in a linear directory. Wrong
// hints cost time only.
type dirHints struct {
	found atomic.Uint32 // block of the last entry found
	add   ondisk.Lblk   // no room for addNeed bytes in blocks before; guarded by mu
	need  int           // guarded by mu
}

// dirSlot is an entry found in a block.
type dirSlot struct {
	buf  *buffer.Buf // pinned
	lblk ondisk.Lblk
	e    ondisk.Direntry // in buf
	prev int             // offset of the entry before, -1 if none
}

// errNoRoom says that a block is full; it does not leave this package.
var errNoRoom = errors.New("no room in the directory block")

// dirState returns the flags and the size in blocks of the directory.
func (dp *Inode) dirState() (flags uint32, blocks ondisk.Lblk) {
	dp.mapMu.RLock()
	flags = dp.raw.Base().Flags.Get()
	size := dp.size()
	dp.mapMu.RUnlock()
	return flags, ondisk.Lblk(min(uint64(size)>>dp.fs.blockBits, uint64(ondisk.MaxLblk)))
}

// dirRead returns block lblk of the directory, pinned; nil for a hole. It is
// dirBlock, but for the recording of errors, which is dirErr's here.
func (dp *Inode) dirRead(lblk ondisk.Lblk) (*buffer.Buf, error) {
	dp.mapMu.RLock()
	r, err := dp.mapRun(lblk, 1)
	dp.mapMu.RUnlock()
	if err != nil || r.state == runHole {
		return nil, err
	}
	return dp.dirBuf(r.pblk)
}

// dirBuf returns the block pblk of the directory, pinned.
func (dp *Inode) dirBuf(pblk ondisk.Fsblk) (*buffer.Buf, error) {
	return dp.fs.cache.Read(buffer.Block(pblk), dp.fs.dirOps(), buffer.Ctx{Seed: dp.seed, Ino: uint32(dp.ino)})
}

// dirArea returns the entries of a directory block.
func (fs *FS) dirArea(b *buffer.Buf) []byte { return ondisk.DirArea(b.Data(), fs.hasCsum) }

// dirErr records corruption that was found in dp. No mapMu is held.
func (fs *FS) dirErr(dp *Inode, err error) error {
	switch e := err.(type) {
	case nil, syscall.Errno:
		return err
	case *badDxError:
		err = e.err
	}
	return fs.corrupt(dp.ino, err)
}

// isDx says whether dp has an index that may be used.
func (fs *FS) isDx(flags uint32) bool { return flags&ondisk.FlagIndex != 0 && fs.hasDirIndex }

// dirLookup returns the inode and the file type (FTUnknown without the filetype
// feature) of the entry name of dp. It fails with ENOENT, ENAMETOOLONG or a
// *CorruptError. In a casefolded directory case counts in names with characters
// outside of ASCII only.
func (fs *FS) dirLookup(dp *Inode, name []byte) (ondisk.Ino, uint8, error) {
	if len(name) > ondisk.NameLen {
		return 0, 0, syscall.ENAMETOOLONG
	}
	flags, _ := dp.dirState()
	var e ondisk.Direntry
	if flags&ondisk.FlagInlineData != 0 {
		var err error
		if e, err = dp.inlineFind(name); err != nil {
			return 0, 0, fs.dirErr(dp, err)
		}
	} else {
		var s dirSlot
		if err := fs.dirFind(dp, name, &s); err != nil {
			return 0, 0, fs.dirErr(dp, err)
		}
		e = s.e
		s.buf.Put()
	}
	if uint64(e.Ino) > uint64(fs.inodes) {
		return 0, 0, fs.dirErr(dp, ondisk.Corrupt("directory entry", e.Off, "inode %d of %d", e.Ino, fs.inodes))
	}
	if !fs.hasFiletype {
		e.FileType = ondisk.FTUnknown
	}
	return e.Ino, e.FileType, nil
}

// dirFind finds the entry name of dp, which is not inline. On success s.buf is
// pinned for the caller. It fails with ENOENT.
func (fs *FS) dirFind(dp *Inode, name []byte, s *dirSlot) error {
	flags, blocks := dp.dirState()
	dots := len(name) <= 2 && len(name) > 0 && name[0] == '.' && (len(name) == 1 || name[1] == '.')
	switch {
	case blocks == 0:
		return syscall.ENOENT
	case dots:
		found, err := fs.findIn(dp, 0, name, false, s)
		if err == nil && !found {
			err = syscall.ENOENT
		}
		return err
	case fs.isDx(flags):
		if err := fs.dxFind(dp, name, flags, s); !isBadDx(err) {
			return err
		}
		// The entries are there without the index, as old kernels see them.
	}
	fold := flags&ondisk.FlagCasefold != 0 && ascii(name)
	start := ondisk.Lblk(dp.dir.found.Load())
	if start >= blocks {
		start = 0
	}
	found := false
	look := func(b *buffer.Buf, lblk ondisk.Lblk) (bool, error) {
		var err error
		found, err = fs.findInBuf(dp, b, name, fold, s)
		if found {
			b.Pin()
			s.lblk = lblk
			if lblk != start {
				dp.dir.found.Store(uint32(lblk))
			}
		}
		return !found, err
	}
	err := fs.dirScan(dp, start, blocks, look)
	if err == nil && !found && start > 0 {
		err = fs.dirScan(dp, 0, start, look)
	}
	if err == nil && !found {
		err = syscall.ENOENT
	}
	return err
}

// dirRA is how many blocks of a directory are read at a time.
const dirRA = 32

// dirScan calls fn with the blocks of the directory from one to another, without
// the holes, until fn returns false. The block is pinned during the call. It ends
// where there are more than the file system has, for then some come again and again.
func (fs *FS) dirScan(dp *Inode, from, to ondisk.Lblk, fn func(b *buffer.Buf, lblk ondisk.Lblk) (bool, error)) error {
	left := fs.blocks
	for lblk := from; lblk < to; {
		dp.mapMu.RLock()
		r, err := dp.mapRun(lblk, 0)
		dp.mapMu.RUnlock()
		if err != nil {
			return err
		}
		r.n = max(min(r.n, uint32(to-lblk)), 1)
		if r.state == runHole { // perhaps of billions of blocks: it is passed at once
			lblk += ondisk.Lblk(r.n)
			continue
		}
		if r.n = min(r.n, dirRA); left < ondisk.Fsblk(r.n) {
			return ondisk.At(ondisk.Corrupt("directory", 0, "more than %d blocks", fs.blocks), dp.ino, 0)
		}
		left -= ondisk.Fsblk(r.n)
		if r.n > 1 {
			fs.readaheadCold(r.pblk, int(r.n))
		}
		end := lblk + ondisk.Lblk(r.n)
		for ; lblk < end; lblk, r.pblk = lblk+1, r.pblk+1 {
			b, err := dp.dirBuf(r.pblk)
			if err != nil {
				return err
			}
			more, err := fn(b, lblk)
			if err != nil {
				err = ondisk.At(err, dp.ino, ondisk.Fsblk(b.Block()))
			}
			b.Put()
			if !more || err != nil {
				return err
			}
		}
	}
	return nil
}

// readaheadCold asks for n blocks of which the first one is not cached.
func (fs *FS) readaheadCold(blk ondisk.Fsblk, n int) {
	if b := fs.cache.Peek(buffer.Block(blk)); b != nil {
		b.Put()
		return
	}
	fs.cache.Readahead(buffer.Block(blk), n)
}

// findIn looks for name in one block. A hole has no entries.
func (fs *FS) findIn(dp *Inode, lblk ondisk.Lblk, name []byte, fold bool, s *dirSlot) (bool, error) {
	b, err := dp.dirRead(lblk)
	if b == nil || err != nil {
		return false, err
	}
	found, err := fs.findInBuf(dp, b, name, fold, s)
	if !found {
		b.Put()
	}
	s.lblk = lblk
	return found, err
}

// findInBuf is findIn for a block that is there. The pin stays the caller's.
func (fs *FS) findInBuf(dp *Inode, b *buffer.Buf, name []byte, fold bool, s *dirSlot) (found bool, err error) {
	if fold {
		s.e, s.prev, found, err = findFolded(fs.dirArea(b), name, fs.blockSize)
	} else {
		s.e, s.prev, found, err = ondisk.FindDirent(fs.dirArea(b), name, fs.blockSize)
	}
	s.buf = b
	if err != nil {
		err = ondisk.At(err, dp.ino, ondisk.Fsblk(b.Block()))
	}
	return found, err
}

// dirAddCredits returns how many blocks dirAdd may change in dp.
func (fs *FS) dirAddCredits(dp *Inode) int {
	flags, blocks := dp.dirState()
	grow := 1 // blocks that may be added
	switch {
	case !fs.isDx(flags):
		if blocks <= 1 && fs.hasDirIndex {
			grow = 2 // its first leaf, and half of that
		}
	case fs.hasLargeDir:
		grow = 3 // a leaf, and two nodes split or one split and a level
	default:
		grow = 2 // a leaf, and a node split or a level
	}
	// Each block added, the node that leads to it, and the leaf.
	return grow*(creditsAlloc+creditsExtent+2) + 1 + creditsInode
}

// dirAdd adds the entry name for ino to dp. The caller has seen that it is not
// there yet and started h with dirAddCredits. It fails with ENOSPC, also if the
// index cannot grow, and with EEXIST where it comes across the name.
func (fs *FS) dirAdd(h *jbd2.Handle, dp *Inode, name []byte, ino ondisk.Ino, ftype uint8) error {
	if len(name) == 0 || len(name) > ondisk.NameLen {
		return syscall.ENAMETOOLONG
	}
	flags, _ := dp.dirState()
	if err := mayAdd(flags, name); err != nil {
		return err
	}
	if !fs.hasFiletype {
		ftype = 0
	}
	return fs.dirErr(dp, fs.dirAddLocked(h, dp, name, ino, ftype))
}

func (fs *FS) dirAddLocked(h *jbd2.Handle, dp *Inode, name []byte, ino ondisk.Ino, ftype uint8) error {
	flags, blocks := dp.dirState()
	if flags&ondisk.FlagInlineData != 0 {
		err := fs.inlineAdd(h, dp, name, ino, ftype)
		if err != errNoRoom {
			return err
		}
		if err = fs.inlineToBlock(h, dp); err != nil {
			return err
		}
		flags, blocks = dp.dirState()
	}
	mayIndex := fs.hasDirIndex
	if flags&ondisk.FlagIndex != 0 {
		if fs.hasDirIndex {
			err := fs.dxAdd(h, dp, name, ino, ftype)
			if !isBadDx(err) {
				return err
			}
			// With checksums a block has its form as a node or as entries for
			// good, and a bad index is real damage.
			if fs.hasCsum {
				return err
			}
		}
		// What is added without the index cannot be found through it.
		mayIndex = false
		dp.mapMu.Lock()
		dp.raw.Base().Flags.Set(flags &^ ondisk.FlagIndex)
		err := dp.store(h)
		dp.mapMu.Unlock()
		if err != nil {
			return err
		}
	}
	need := ondisk.DirentSize(len(name))
	start := ondisk.Lblk(0)
	if need >= dp.dir.need {
		start = min(dp.dir.add, blocks)
	}
	var full *buffer.Buf // the only block, to be indexed
	added := false
	err := fs.dirScan(dp, start, blocks, func(b *buffer.Buf, lblk ondisk.Lblk) (bool, error) {
		err := fs.addTo(h, b, name, ino, ftype)
		if err == errNoRoom {
			if blocks == 1 && mayIndex {
				b.Pin()
				full = b
			}
			return true, nil
		}
		added = err == nil
		dp.dir.add, dp.dir.need = lblk, need
		return false, err
	})
	switch {
	case err != nil || added:
		return err
	case full != nil:
		return fs.dxMake(h, dp, full, name, ino, ftype)
	}
	b, _, err := dp.dirAppend(h)
	if err != nil {
		return err
	}
	defer b.Put()
	dp.dir.add, dp.dir.need = blocks, need
	ondisk.InitDirBlock(b.Data(), fs.hasCsum)
	area := fs.dirArea(b)
	ondisk.InsertDirent(area, 0, fs.blockSize, name, ino, ftype)
	h.Dirty(b)
	return nil
}

// addTo adds an entry to the block b. It fails with errNoRoom or EEXIST.
func (fs *FS) addTo(h *jbd2.Handle, b *buffer.Buf, name []byte, ino ondisk.Ino, ftype uint8) error {
	area := fs.dirArea(b)
	if fs.hasCsum && len(area) == fs.blockSize {
		return errNoRoom // an index node, or a block without room for its checksum
	}
	off, room, dup, err := ondisk.FindRoom(area, name, fs.blockSize)
	switch {
	case err != nil:
		return ondisk.At(err, 0, ondisk.Fsblk(b.Block()))
	case dup:
		return syscall.EEXIST
	case !room:
		return errNoRoom
	}
	if err := h.GetWrite(b); err != nil {
		return err
	}
	ondisk.InsertDirent(area, off, fs.blockSize, name, ino, ftype)
	h.Dirty(b)
	return nil
}

// dirAppend adds a block to the directory. It is pinned, zero, part of h's
// transaction, and the caller's to fill and to mark dirty.
func (dp *Inode) dirAppend(h *jbd2.Handle) (*buffer.Buf, ondisk.Lblk, error) {
	fs := dp.fs
	dp.mapMu.Lock()
	defer dp.mapMu.Unlock()
	size := dp.raw.Size(fs.hasLargeDir)
	lblk := uint64(size) >> fs.blockBits
	if end := (lblk + 1) << fs.blockBits; lblk > dxMaxLblk || end > 1<<32-1 && !fs.hasLargeDir {
		return nil, 0, syscall.ENOSPC
	}
	b, err := dp.appendMetaBlock(h, ondisk.Lblk(lblk), fs.dirOps())
	if err != nil {
		return nil, 0, err
	}
	dp.setDirSize(int64(lblk+1) << fs.blockBits)
	if err := dp.store(h); err != nil {
		b.Put()
		return nil, 0, err
	}
	return b, ondisk.Lblk(lblk), nil
}

// setDirSize stores the size, of which the upper half belongs to directories
// with large_dir only. mapMu is held.
func (dp *Inode) setDirSize(n int64) {
	if dp.fs.hasLargeDir {
		dp.raw.SetSize(n)
	} else {
		dp.raw.Base().SizeLo.Set(uint32(n))
	}
}

// dirRemove removes the entry name of dp. It fails with ENOENT.
func (fs *FS) dirRemove(h *jbd2.Handle, dp *Inode, name []byte) error {
	return fs.dirErr(dp, fs.dirChange(h, dp, name, func(b []byte, bs int, e ondisk.Direntry, prev int) {
		ondisk.RemoveDirent(b, e, prev, bs)
	}))
}

// dirReplace makes the entry name of dp lead to ino. It fails with ENOENT.
func (fs *FS) dirReplace(h *jbd2.Handle, dp *Inode, name []byte, ino ondisk.Ino, ftype uint8) error {
	return fs.dirErr(dp, fs.dirChange(h, dp, name, func(b []byte, _ int, e ondisk.Direntry, _ int) {
		binary.LittleEndian.PutUint32(b[e.Off:], uint32(ino))
		if fs.hasFiletype {
			b[e.Off+7] = ftype
		}
	}))
}

// dirChange finds the entry name and lets change have its block.
func (fs *FS) dirChange(h *jbd2.Handle, dp *Inode, name []byte, change func(b []byte, bs int, e ondisk.Direntry, prev int)) error {
	flags, _ := dp.dirState()
	if flags&ondisk.FlagInlineData != 0 {
		return dp.inlineChange(h, name, change)
	}
	var s dirSlot
	if err := fs.dirFind(dp, name, &s); err != nil {
		return err
	}
	defer s.buf.Put()
	if err := h.GetWrite(s.buf); err != nil {
		return err
	}
	change(s.buf.Data(), fs.blockSize, s.e, s.prev)
	h.Dirty(s.buf)
	dp.dir.add = min(dp.dir.add, s.lblk)
	return nil
}

// dirSetDotDot makes parent the directory above dp.
func (fs *FS) dirSetDotDot(h *jbd2.Handle, dp *Inode, parent ondisk.Ino) error {
	flags, _ := dp.dirState()
	if flags&ondisk.FlagInlineData != 0 {
		dp.mapMu.Lock()
		defer dp.mapMu.Unlock()
		binary.LittleEndian.PutUint32(dp.raw.Base().Block[:], uint32(parent))
		return dp.store(h)
	}
	return fs.dirReplace(h, dp, []byte(".."), parent, ondisk.FTDir)
}

// dirInit gives the new directory dp its "." and "..", and two links. It is
// inline if the file system has that, else it gets a block.
func (fs *FS) dirInit(h *jbd2.Handle, dp *Inode, parent ondisk.Ino) error {
	dp.mapMu.Lock()
	dp.raw.Base().LinksCount.Set(2)
	dp.mapMu.Unlock()
	if fs.hasInlineData {
		done, err := dp.inlineDirInit(h, parent)
		if done || err != nil {
			return err
		}
	}
	b, _, err := dp.dirAppend(h)
	if err != nil {
		return err
	}
	defer b.Put()
	ondisk.InitDirBlock(b.Data(), fs.hasCsum)
	fs.putDots(fs.dirArea(b), dp.ino, parent)
	h.Dirty(b)
	return nil
}

// dotsSize is the room that "." and ".." take at the start of a directory.
const dotsSize = 2 * ondisk.DirentMin

// putDots writes "." and "..", the latter up to the end of area.
func (fs *FS) putDots(area []byte, ino, parent ondisk.Ino) {
	ft := uint8(0)
	if fs.hasFiletype {
		ft = ondisk.FTDir
	}
	ondisk.PutDirent(area, 0, ondisk.DirentMin, fs.blockSize, []byte("."), ino, ft)
	ondisk.PutDirent(area, ondisk.DirentMin, len(area)-ondisk.DirentMin, fs.blockSize, []byte(".."), parent, ft)
}

// isDots says whether name is "." or "..".
func isDots(name []byte) bool {
	return len(name) == 1 && name[0] == '.' || len(name) == 2 && name[0] == '.' && name[1] == '.'
}

// dirEmpty says whether dp has no entries but "." and "..".
func (fs *FS) dirEmpty(dp *Inode) (bool, error) {
	empty, err := fs.dirEmptyLocked(dp)
	return empty, fs.dirErr(dp, err)
}

func (fs *FS) dirEmptyLocked(dp *Inode) (bool, error) {
	flags, blocks := dp.dirState()
	if flags&ondisk.FlagInlineData != 0 {
		var d inlineDir
		if err := dp.inlineCopy(&d); err != nil {
			return false, err
		}
		for _, a := range d.areas() {
			if empty, err := areaEmpty(a.b, len(a.b)); !empty || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	empty := true
	err := fs.dirScan(dp, 0, blocks, func(b *buffer.Buf, _ ondisk.Lblk) (bool, error) {
		var err error
		empty, err = areaEmpty(fs.dirArea(b), fs.blockSize)
		return empty, err
	})
	return empty && err == nil, err
}

func areaEmpty(area []byte, blockSize int) (bool, error) {
	for off := 0; off < len(area); {
		e, err := ondisk.DirentAt(area, off, blockSize)
		if err != nil {
			return false, err
		}
		if e.Ino != 0 && !isDots(e.Name) {
			return false, nil
		}
		off += e.RecLen
	}
	return true, nil
}

// ascii says whether name has only ASCII characters.
func ascii(name []byte) bool {
	for _, c := range name {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// lower folds one ASCII character.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// findFolded is FindDirent for a name of ASCII characters, in any case.
func findFolded(b []byte, name []byte, blockSize int) (e ondisk.Direntry, prev int, found bool, err error) {
	prev = -1
next:
	for off := 0; off < len(b); off += e.RecLen {
		if e, err = ondisk.DirentAt(b, off, blockSize); err != nil {
			return e, prev, false, err
		}
		if e.Ino == 0 || len(e.Name) != len(name) {
			prev = off
			continue
		}
		for i, c := range e.Name {
			if lower(c) != lower(name[i]) {
				prev = off
				continue next
			}
		}
		return e, prev, true, nil
	}
	return e, prev, false, nil
}
