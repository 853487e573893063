package ext2fs

import (
	"bytes"
	"cmp"
	"hash/crc32"
	"math"
	"math/bits"
	"slices"
	"sync"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Positions in a directory. In a linear one a position is a byte offset: entries
// never move, and one that is removed joins the one before. With dir_index a
// directory is read in the order of the hash, also while it has one block or is
// inline, so that positions hold when the index grows under a reader:
//
//	0  "."    1  ".."    major>>1 << 32 | minor  a name
//
// Names of the same position follow one another on the next ones; so each entry
// has its own, and a reader always gets on.

// dirItem is an entry to be handed out.
type dirItem struct {
	pos   uint64
	ino   ondisk.Ino
	ftype uint8
	name  []byte // in a pinned block or in dirScratch.inline
}

// dirScratch is the memory for the entries of the leaves of one hash.
type dirScratch struct {
	items  []dirItem
	order  []uint64 // see sort
	bufs   []*buffer.Buf
	inline inlineDir
}

var dirScratchPool = sync.Pool{New: func() any { return new(dirScratch) }}

// reset lets go of the blocks that the items lie in.
func (sc *dirScratch) reset() {
	for i, b := range sc.bufs {
		b.Put()
		sc.bufs[i] = nil
	}
	sc.bufs = sc.bufs[:0]
	sc.items = sc.items[:0]
}

func (sc *dirScratch) free() {
	sc.reset()
	// A chain of colliding names can be long: its memory is not kept.
	if cap(sc.items) <= 1<<13 {
		clear(sc.items[:cap(sc.items)])
		dirScratchPool.Put(sc)
	}
}

// maxChain bounds the leaves that may hold names of one and the same hash.
const maxChain = 1 << 12

// Readdir calls fn with each entry of dp from position pos on, "." and ".."
// included: its name (valid during the call), inode, file type (FTUnknown
// without the filetype feature) and the position after it; until fn returns
// false. 0 is the start. An entry that is there all the time between a reader's
// first and last call is seen once, whatever else is added or removed. dp is
// locked, shared, meanwhile: fn may pin inodes, but not look up names in dp. It
// fails with a *CorruptError at what cannot be read.
func (fs *FS) Readdir(dp *Inode, pos uint64, fn func(name []byte, ino ondisk.Ino, ftype uint8, next uint64) bool) error {
	dp.mu.RLock()
	defer dp.mu.RUnlock()
	flags, blocks := dp.dirState()
	if !fs.hasFiletype {
		inner := fn
		fn = func(name []byte, ino ondisk.Ino, _ uint8, next uint64) bool {
			return inner(name, ino, ondisk.FTUnknown, next)
		}
	}
	inline := flags&ondisk.FlagInlineData != 0
	// Names of encrypted or other alphabets in casefolded directories have a
	// hash that cannot be computed here; but they are read-only, so offsets do.
	if fs.hasDirIndex && flags&ondisk.FlagCasefold == 0 &&
		(inline || blocks == 1 || flags&ondisk.FlagIndex != 0) {
		err := fs.readdirHash(dp, flags, pos, fn)
		if !isBadDx(err) {
			return fs.dirErr(dp, err)
		}
		// The root of the index is of no use at any position, so offsets hold.
	}
	sc := dirScratchPool.Get().(*dirScratch)
	defer sc.free()
	var err error
	if inline {
		err = fs.readdirInline(dp, pos, sc, fn)
	} else {
		err = fs.readdirLinear(dp, pos, blocks, fn)
	}
	return fs.dirErr(dp, err)
}

// readdirLinear hands out entries in the order of the blocks.
func (fs *FS) readdirLinear(dp *Inode, pos uint64, blocks ondisk.Lblk, fn func([]byte, ondisk.Ino, uint8, uint64) bool) error {
	if pos >= uint64(blocks)<<fs.blockBits {
		return nil
	}
	from := int(pos & uint64(fs.blockSize-1))
	first := ondisk.Lblk(pos >> fs.blockBits)
	return fs.dirScan(dp, first, blocks, func(b *buffer.Buf, lblk ondisk.Lblk) (bool, error) {
		if lblk != first {
			from = 0
		}
		return fs.readdirArea(fs.dirArea(b), fs.blockSize, from, uint64(lblk)<<fs.blockBits, fn)
	})
}

// readdirArea hands out the entries of area that start at from or later. base is
// the position of area's start.
func (fs *FS) readdirArea(area []byte, blockSize, from int, base uint64, fn func([]byte, ondisk.Ino, uint8, uint64) bool) (bool, error) {
	for off := 0; off < len(area); {
		e, err := ondisk.DirentAt(area, off, blockSize)
		if err != nil {
			return false, err
		}
		off += e.RecLen
		if e.Ino == 0 || len(e.Name) == 0 || e.Off < from {
			continue
		}
		if !fn(e.Name, e.Ino, e.FileType, base+uint64(off)) {
			return false, nil
		}
	}
	return true, nil
}

// readdirInline hands out the entries of an inline directory by offset.
func (fs *FS) readdirInline(dp *Inode, pos uint64, sc *dirScratch, fn func([]byte, ondisk.Ino, uint8, uint64) bool) error {
	d := &sc.inline
	if err := dp.inlineCopy(d); err != nil {
		return err
	}
	if pos == 0 && !fn([]byte("."), dp.ino, ondisk.FTDir, ondisk.DirentMin) {
		return nil
	}
	if pos <= ondisk.DirentMin && !fn([]byte(".."), d.parent(), ondisk.FTDir, dotsSize) {
		return nil
	}
	for _, a := range d.areas() {
		from := max(int64(pos)-int64(a.pos), 0)
		if from >= int64(len(a.b)) && from > 0 {
			continue
		}
		more, err := fs.readdirArea(a.b, len(a.b), int(from), a.pos, fn)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// hashPos returns the position that a name's hash gives it. The top of the
// minor hash is cut, so that there is room for names of the same position.
func hashPos(version uint8, major, minor uint32, name []byte) uint64 {
	if version == ondisk.HashLegacy || version == ondisk.HashLegacyUnsigned {
		minor = crc32.ChecksumIEEE(name) // these have no minor hash of their own
	}
	return max(uint64(major>>1)<<32|uint64(min(minor, 1<<32-1<<8)), 2)
}

// collect adds the entries of area with a hash of at least from.
func (sc *dirScratch) collect(fs *FS, version uint8, area []byte, blockSize int, from uint32) error {
	seed := fs.sb.DirHashSeed()
	for off := 0; off < len(area); {
		e, err := ondisk.DirentAt(area, off, blockSize)
		if err != nil {
			return err
		}
		off += e.RecLen
		if e.Ino == 0 || len(e.Name) == 0 || isDots(e.Name) {
			continue
		}
		major, minor, ok := ondisk.DirHash(version, &seed, e.Name)
		if !ok {
			return errNoHash
		}
		if major < from {
			continue
		}
		sc.items = append(sc.items, dirItem{hashPos(version, major, minor, e.Name), e.Ino, e.FileType, e.Name})
	}
	return nil
}

// sort puts the order of the items into sc.order: their indexes, in the low bits,
// below as much of the position as fits. Numbers are sorted several times as fast
// as items are compared.
func (sc *dirScratch) sort() (mask uint64) {
	least, most := uint64(math.MaxUint64), uint64(0)
	for i := range sc.items {
		least, most = min(least, sc.items[i].pos), max(most, sc.items[i].pos)
	}
	low := bits.Len(uint(len(sc.items)))
	cut := max(bits.Len64(most-least)+low-64, 0)
	sc.order = slices.Grow(sc.order[:0], len(sc.items))
	for i := range sc.items {
		sc.order = append(sc.order, (sc.items[i].pos-least)>>cut<<low|uint64(i))
	}
	slices.Sort(sc.order)
	mask = 1<<low - 1
	for i := 0; i < len(sc.order); { // those that the number does not tell apart
		end := i + 1
		for end < len(sc.order) && sc.order[end]>>low == sc.order[i]>>low {
			end++
		}
		if end > i+1 {
			slices.SortFunc(sc.order[i:end], func(a, b uint64) int {
				x, y := &sc.items[a&mask], &sc.items[b&mask]
				if c := cmp.Compare(x.pos, y.pos); c != 0 {
					return c
				}
				return bytes.Compare(x.name, y.name)
			})
		}
		i = end
	}
	return mask
}

// emit hands out the items from position pos on, in order, and returns the
// position after the last one; false if fn wants no more.
func (sc *dirScratch) emit(pos uint64, fn func([]byte, ondisk.Ino, uint8, uint64) bool) (uint64, bool) {
	if len(sc.items) == 0 {
		return pos, true
	}
	mask := sc.sort()
	last := uint64(0)
	for _, k := range sc.order {
		it := &sc.items[k&mask]
		last = max(it.pos, last+1)
		if last < pos {
			continue
		}
		pos = last + 1
		if !fn(it.name, it.ino, it.ftype, pos) {
			return pos, false
		}
	}
	return pos, true
}

// readdirHash hands out entries in the order of their hash.
func (fs *FS) readdirHash(dp *Inode, flags uint32, pos uint64, fn func([]byte, ondisk.Ino, uint8, uint64) bool) error {
	sc := dirScratchPool.Get().(*dirScratch)
	defer sc.free()
	if flags&ondisk.FlagIndex != 0 && flags&ondisk.FlagInlineData == 0 {
		return fs.readdirDx(dp, pos, sc, fn)
	}
	version := fs.sb.HashVersion(fs.newHashVersion())
	if flags&ondisk.FlagInlineData != 0 {
		d := &sc.inline
		if err := dp.inlineCopy(d); err != nil {
			return err
		}
		for _, a := range d.areas() {
			if err := sc.collect(fs, version, a.b, len(a.b), 0); err != nil {
				return err
			}
		}
		if !emitDots(dp.ino, d.parent(), &pos, fn) {
			return nil
		}
	} else {
		b, err := dp.dirRead(0)
		if b == nil || err != nil {
			return err
		}
		sc.bufs = append(sc.bufs, b)
		if err := sc.collect(fs, version, fs.dirArea(b), fs.blockSize, 0); err != nil {
			return ondisk.At(err, dp.ino, ondisk.Fsblk(b.Block()))
		}
		if pos < 2 {
			if more, err := fs.readdirDots(dp, b, &pos, fn); !more || err != nil {
				return err
			}
		}
	}
	sc.emit(pos, fn)
	return nil
}

// emitDots hands out "." and ".." where pos is before them, and moves pos.
func emitDots(ino, parent ondisk.Ino, pos *uint64, fn func([]byte, ondisk.Ino, uint8, uint64) bool) bool {
	if *pos == 0 {
		*pos = 1
		if !fn([]byte("."), ino, ondisk.FTDir, 1) {
			return false
		}
	}
	if *pos == 1 {
		*pos = 2
		if parent != 0 && !fn([]byte(".."), parent, ondisk.FTDir, 2) {
			return false
		}
	}
	return true
}

// readdirDots is emitDots for a directory that starts with the block b.
func (fs *FS) readdirDots(dp *Inode, b *buffer.Buf, pos *uint64, fn func([]byte, ondisk.Ino, uint8, uint64) bool) (bool, error) {
	e, _, _, err := ondisk.FindDirent(fs.dirArea(b), []byte(".."), fs.blockSize)
	if err != nil {
		return false, err
	}
	return emitDots(dp.ino, e.Ino, pos, fn), nil
}

// readdirDx hands out the entries of an indexed directory. It fails with a
// badDxError only where the root is bad: half way through there is no going on
// without the index.
func (fs *FS) readdirDx(dp *Inode, pos uint64, sc *dirScratch, fn func([]byte, ondisk.Ino, uint8, uint64) bool) error {
	var p dxPath
	defer p.release()
	if err := fs.dxOpen(dp, &p); err != nil {
		return err
	}
	if p.version == ondisk.HashSipHash {
		return errNoHash
	}
	err := fs.readdirTree(dp, &p, pos, sc, fn)
	if e, ok := err.(*badDxError); ok {
		err = e.err
	}
	return err
}

// dirReadAhead is dirRead for one who will read most of the directory: with the
// block come those around it, which the order of the hash scatters.
func (dp *Inode) dirReadAhead(lblk ondisk.Lblk) (*buffer.Buf, error) {
	first := lblk &^ (dirRA - 1)
	dp.mapMu.RLock()
	r, err := dp.mapRun(first, dirRA)
	dp.mapMu.RUnlock()
	if err == nil && r.state != runHole && first+ondisk.Lblk(r.n) > lblk {
		blk := r.pblk + ondisk.Fsblk(lblk-first)
		if b := dp.fs.cache.Peek(buffer.Block(blk)); b != nil {
			b.Put()
		} else {
			dp.fs.cache.Readahead(buffer.Block(r.pblk), int(r.n))
		}
		return dp.dirBuf(blk)
	}
	return dp.dirRead(lblk)
}

func (fs *FS) readdirTree(dp *Inode, p *dxPath, pos uint64, sc *dirScratch, fn func([]byte, ondisk.Ino, uint8, uint64) bool) error {
	from := uint32(0)
	if pos < 2 {
		if more, err := fs.readdirDots(dp, p.frames[0].buf, &pos, fn); !more || err != nil {
			return err
		}
	} else {
		from = uint32(pos>>32) << 1
	}
	if err := fs.dxDescend(dp, p, from); err != nil {
		return err
	}
	for {
		next, more := p.dxPeek()
		for chain := 0; ; chain++ {
			b, err := dp.dirReadAhead(p.leaf())
			if err != nil {
				return err
			}
			if b != nil {
				sc.bufs = append(sc.bufs, b)
				if err := sc.collect(fs, p.version, fs.dirArea(b), fs.blockSize, from); err != nil {
					return ondisk.At(err, dp.ino, ondisk.Fsblk(b.Block()))
				}
			}
			if !more || next&1 == 0 {
				break
			}
			if chain == maxChain {
				return ondisk.Corrupt("directory index", 0, "%d leaves of one hash", chain)
			}
			if err := fs.dxNext(dp, p); err != nil {
				return err
			}
			next, more = p.dxPeek()
		}
		var on bool
		if pos, on = sc.emit(pos, fn); !on || !more {
			return nil
		}
		sc.reset()
		from = next
		if err := fs.dxNext(dp, p); err != nil {
			return err
		}
	}
}
