package ext2fs

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sync"
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// Each step here leaves the directory whole: a block that was added is part of
// the tree before anything can fail. So an ENOSPC half way through an insertion
// costs nothing but room.

// dxInsert adds an entry for block after the one that the frame leads through.
// The frame has room, and its buffer is h's to write.
func (f *dxFrame) dxInsert(hash uint32, lblk ondisk.Lblk) {
	n := len(f.entries)
	f.entries = f.entries[:n+1]
	copy(f.entries[f.at+2:], f.entries[f.at+1:n])
	e := &f.entries[f.at+1]
	e.Hash.Set(hash)
	e.Block.Set(uint32(lblk))
	ondisk.SetDxCount(f.buf.Data(), f.off, n+1)
}

// dxGrow makes room where the lowest node of p is full: it splits the highest
// full node below one that is not, or if all are full, moves the root's entries
// into a node below it. p is stale afterwards.
func (fs *FS) dxGrow(h *jbd2.Handle, dp *Inode, p *dxPath) error {
	i := p.n - 1
	for i > 0 && p.frames[i-1].full() {
		i--
	}
	maxLevels := ondisk.DxMaxLevels - 1
	if fs.hasLargeDir {
		maxLevels++
	}
	if i == 0 && p.n == maxLevels {
		return syscall.ENOSPC
	}
	f := &p.frames[i]
	if err := h.GetWrite(f.buf); err != nil {
		return err
	}
	if i > 0 {
		if err := h.GetWrite(p.frames[i-1].buf); err != nil {
			return err
		}
	}
	b, lblk, err := dp.dirAppend(h)
	if err != nil {
		return err
	}
	defer b.Put()
	node := b.Data()
	ondisk.InitDxNode(node, ondisk.DxNodeOff, fs.hasCsum)
	keep := 0
	if i > 0 {
		keep = len(f.entries) / 2
	}
	moved := f.entries[keep:]
	hash := moved[0].Hash.Get()
	// The first entry's hash is the place of the count and the limit.
	at := ondisk.DxNodeOff
	copy(node[at+4:at+8], moved[0].Block[:])
	for j := range moved[1:] {
		at += ondisk.DxEntrySize
		copy(node[at:], moved[1+j].Hash[:])
		copy(node[at+4:], moved[1+j].Block[:])
	}
	ondisk.SetDxCount(node, ondisk.DxNodeOff, len(moved))
	if i > 0 {
		ondisk.SetDxCount(f.buf.Data(), f.off, keep)
		p.frames[i-1].dxInsert(hash, lblk)
		h.Dirty(p.frames[i-1].buf)
	} else {
		ondisk.SetDxCount(f.buf.Data(), f.off, 1)
		f.entries[0].Block.Set(uint32(lblk))
		f.buf.Data()[ondisk.DxRootInfoOff+6]++
	}
	h.Dirty(f.buf)
	h.Dirty(b)
	return nil
}

// dxMapEntry is an entry of a leaf that is to be split.
type dxMapEntry struct {
	hash uint32
	off  int32
	size int32 // that the entry needs
}

// splitScratch is the memory for the split of one leaf.
type splitScratch struct {
	m    []dxMapEntry
	area []byte
}

var splitPool = sync.Pool{New: func() any { return new(splitScratch) }}

// dxSplit moves the upper half, by hash, of the full leaf at p's end into a new
// leaf, and returns the one of the two that hash belongs to, pinned. The pin on
// leaf passes to it; after an error it is gone. The node above has room.
func (fs *FS) dxSplit(h *jbd2.Handle, dp *Inode, p *dxPath, leaf *buffer.Buf, hash uint32) (_ *buffer.Buf, err error) {
	defer func() {
		if err != nil {
			leaf.Put()
		}
	}()
	sc := splitPool.Get().(*splitScratch)
	defer splitPool.Put(sc)
	flags, _ := dp.dirState()
	area := fs.dirArea(leaf)
	sc.area = append(sc.area[:0], area...)
	sc.m = sc.m[:0]
	for off := 0; off < len(sc.area); {
		e, err := ondisk.DirentAt(sc.area, off, fs.blockSize)
		if err != nil {
			return nil, ondisk.At(err, dp.ino, ondisk.Fsblk(leaf.Block()))
		}
		if e.Ino != 0 && len(e.Name) != 0 {
			major, _, ok := fs.nameHash(flags, p.version, e.Name)
			if !ok {
				return nil, errNoHash
			}
			sc.m = append(sc.m, dxMapEntry{major, int32(off), int32(ondisk.DirentSize(len(e.Name)))})
		}
		off += e.RecLen
	}
	if len(sc.m) < 2 {
		return nil, &badDxError{ondisk.Corrupt("directory block", 0, "full with %d entries", len(sc.m))}
	}
	slices.SortFunc(sc.m, func(a, b dxMapEntry) int {
		if c := cmp.Compare(a.hash, b.hash); c != 0 {
			return c
		}
		return cmp.Compare(a.off, b.off)
	})
	split := splitAt(sc.m, fs.blockSize)

	f := &p.frames[p.n-1]
	if err := h.GetWrite(leaf); err != nil {
		return nil, err
	}
	if err := h.GetWrite(f.buf); err != nil {
		return nil, err
	}
	b, lblk, err := dp.dirAppend(h)
	if err != nil {
		return nil, err
	}
	ondisk.InitDirBlock(b.Data(), fs.hasCsum)
	fs.packDirents(fs.dirArea(b), sc.area, sc.m[split:])
	at := sc.m[split].hash
	if at == sc.m[split-1].hash {
		f.dxInsert(at|1, lblk)
	} else {
		f.dxInsert(at, lblk)
	}
	// What stays keeps its order, so that it moves as little as possible.
	slices.SortFunc(sc.m[:split], func(a, b dxMapEntry) int { return cmp.Compare(a.off, b.off) })
	fs.packDirents(area, sc.area, sc.m[:split])
	h.Dirty(leaf)
	h.Dirty(b)
	h.Dirty(f.buf)
	if hash >= at {
		leaf.Put()
		return b, nil
	}
	b.Put()
	return leaf, nil
}

// splitAt returns how many of the entries stay when a leaf is split so that
// both halves have about as many bytes.
func splitAt(m []dxMapEntry, blockSize int) int {
	size, move := 0, 0
	for i := len(m) - 1; i >= 0; i-- {
		s := int(m[i].size)
		if size+s/2 > blockSize/2 {
			break
		}
		size += s
		move++
	}
	if move == len(m) || move == 0 {
		return len(m) / 2
	}
	return len(m) - move
}

// packDirents writes the entries m of src to dst, one after the other; the last
// one covers what remains. It leaves nothing of dst's old bytes.
func (fs *FS) packDirents(dst, src []byte, m []dxMapEntry) {
	off := 0
	for i, x := range m {
		n := int(x.size)
		copy(dst[off:off+n], src[x.off:])
		if i == len(m)-1 {
			clear(dst[off+n:])
			n = len(dst) - off
		}
		ondisk.SetRecLen(dst, off, n, fs.blockSize)
		off += n
	}
}

// dxMake turns dp, of the one full block b, into an indexed directory, and adds
// an entry. The pin on b passes to it.
func (fs *FS) dxMake(h *jbd2.Handle, dp *Inode, b *buffer.Buf, name []byte, ino ondisk.Ino, ftype uint8) error {
	defer b.Put()
	root, area := b.Data(), fs.dirArea(b)
	dot, err := ondisk.DirentAt(area, 0, fs.blockSize)
	if err != nil {
		return err
	}
	dotdot, err := ondisk.DirentAt(area, min(dot.RecLen, len(area)), fs.blockSize)
	if err != nil {
		return err
	}
	if string(dot.Name) != "." || string(dotdot.Name) != ".." || dotdot.Off != ondisk.DirentMin {
		return ondisk.Corrupt("directory", 0, "does not start with \".\" and \"..\"")
	}
	from := dotdot.Off + dotdot.RecLen
	last := from // start of the last entry
	for off := from; off < len(area); {
		e, err := ondisk.DirentAt(area, off, fs.blockSize)
		if err != nil {
			return err
		}
		last = off
		off += e.RecLen
	}
	if err := h.GetWrite(b); err != nil {
		return err
	}
	leaf, lblk, err := dp.dirAppend(h)
	if err != nil {
		return err
	}
	defer leaf.Put()
	ondisk.InitDirBlock(leaf.Data(), fs.hasCsum)
	dst := fs.dirArea(leaf)
	if n := copy(dst, area[from:]); n > 0 {
		last -= from
		ondisk.SetRecLen(dst, last, len(dst)-last, fs.blockSize)
	}
	h.Dirty(leaf)

	// Each index starts with one entry, for all hashes.
	parent := dotdot.Ino
	fs.putDots(root, dp.ino, parent)
	ondisk.InitDxNode(root, ondisk.DxRootOff, fs.hasCsum)
	clear(root[ondisk.DxRootInfoOff:ondisk.DxRootOff])
	root[ondisk.DxRootInfoOff+4] = fs.newHashVersion()
	root[ondisk.DxRootInfoOff+5] = ondisk.DxRootInfoSize
	binary.LittleEndian.PutUint32(root[ondisk.DxRootOff+4:], uint32(lblk))
	ondisk.SetDxCount(root, ondisk.DxRootOff, 1)
	h.Dirty(b)

	dp.mapMu.Lock()
	f := &dp.raw.Base().Flags
	f.Set(f.Get() | ondisk.FlagIndex)
	err = dp.store(h)
	dp.mapMu.Unlock()
	if err != nil {
		return err
	}
	return fs.dxAdd(h, dp, name, ino, ftype)
}

// newHashVersion returns the version of the hash that a new index gets.
func (fs *FS) newHashVersion() uint8 {
	if v := fs.sb.DefHashVersion[0]; v <= ondisk.HashTEA {
		return v
	}
	return ondisk.HashHalfMD4
}
