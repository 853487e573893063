package ext2fs

import (
	"encoding/binary"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// An inline directory lies in its inode: the number of its parent in the first
// four bytes of i_block, entries in the other 56, and, when those are full,
// further entries in the value of the attribute system.data. Neither part has
// "." or "..", and no entry spans both.
// Kernel: filesystems/ext4/inlinedata.rst, "Inline Directories".

const (
	inlineParent = 4                              // bytes before the entries in i_block
	inlineBlock  = len(ondisk.Inode{}.Block)      // bytes of i_block
	inlineFirst  = inlineBlock - inlineParent     // bytes of entries in i_block
	inlineEAPos  = uint64(dotsSize + inlineFirst) // position of the attribute's entries
)

// inlineDir is a copy of an inline directory.
type inlineDir struct {
	buf  []byte // i_block, then the attribute's value
	list [2]inlineArea
}

// inlineArea is a part of an inline directory: a block of entries of its own.
type inlineArea struct {
	b   []byte
	pos uint64 // of b's start, as if the directory were a block
}

func (d *inlineDir) parent() ondisk.Ino { return ondisk.Ino(binary.LittleEndian.Uint32(d.buf)) }

// areas returns the parts that hold entries.
func (d *inlineDir) areas() []inlineArea {
	d.list[0] = inlineArea{d.buf[inlineParent:inlineBlock], dotsSize}
	d.list[1] = inlineArea{d.buf[inlineBlock:], inlineEAPos}
	if len(d.list[1].b) == 0 {
		return d.list[:1]
	}
	return d.list[:]
}

// inlineCopy copies the directory, so that it can be read without mapMu.
func (dp *Inode) inlineCopy(d *inlineDir) error {
	dp.mapMu.RLock()
	defer dp.mapMu.RUnlock()
	ea, err := dp.inlineEA()
	if err != nil {
		return err
	}
	d.buf = append(append(d.buf[:0], dp.raw.Base().Block[:]...), ea...)
	return nil
}

// inlineLocate finds name in the directory in place. mapMu is held.
func (dp *Inode) inlineLocate(name []byte) (area []byte, e ondisk.Direntry, prev int, err error) {
	ea, err := dp.inlineEA()
	if err != nil {
		return nil, e, 0, err
	}
	fold := dp.raw.Base().Flags.Get()&ondisk.FlagCasefold != 0 && ascii(name)
	for _, area := range [2][]byte{dp.raw.Base().Block[inlineParent:], ea} {
		var found bool
		if fold {
			e, prev, found, err = findFolded(area, name, len(area))
		} else {
			e, prev, found, err = ondisk.FindDirent(area, name, len(area))
		}
		if found || err != nil {
			return area, e, prev, ondisk.At(err, dp.ino, 0)
		}
	}
	return nil, e, 0, syscall.ENOENT
}

// inlineFind returns the entry name; its Name and place are not to be used.
func (dp *Inode) inlineFind(name []byte) (ondisk.Direntry, error) {
	dp.mapMu.RLock()
	defer dp.mapMu.RUnlock()
	if isDots(name) {
		ino := dp.ino
		if len(name) == 2 {
			ino = ondisk.Ino(binary.LittleEndian.Uint32(dp.raw.Base().Block[:]))
		}
		return ondisk.Direntry{Ino: ino, FileType: ondisk.FTDir}, nil
	}
	_, e, _, err := dp.inlineLocate(name)
	return e, err
}

// inlineChange finds the entry name and lets change have what it lies in.
func (dp *Inode) inlineChange(h *jbd2.Handle, name []byte, change func(b []byte, bs int, e ondisk.Direntry, prev int)) error {
	dp.mapMu.Lock()
	defer dp.mapMu.Unlock()
	area, e, prev, err := dp.inlineLocate(name)
	if err != nil {
		return err
	}
	change(area, len(area), e, prev)
	return dp.store(h)
}

// inlineAdd adds an entry. It fails with errNoRoom if the inode is full.
func (fs *FS) inlineAdd(h *jbd2.Handle, dp *Inode, name []byte, ino ondisk.Ino, ftype uint8) error {
	dp.mapMu.Lock()
	defer dp.mapMu.Unlock()
	ea, err := dp.inlineEA()
	if err != nil {
		return err
	}
	for i, area := range [2][]byte{dp.raw.Base().Block[inlineParent:], ea} {
		if i == 1 && len(area) == 0 {
			if area, err = dp.inlineGrow(); err != nil {
				return err
			}
		}
		off, room, dup, err := ondisk.FindRoom(area, name, len(area))
		switch {
		case err != nil:
			return ondisk.At(err, dp.ino, 0)
		case dup:
			return syscall.EEXIST
		case room:
			ondisk.InsertDirent(area, off, len(area), name, ino, ftype)
			return dp.store(h)
		}
	}
	return errNoRoom
}

// inlineGrow gives the attribute the rest of the inode and returns its value,
// one entry not in use. It fails with errNoRoom. mapMu is held.
func (dp *Inode) inlineGrow() ([]byte, error) {
	n := dp.inlineMax() &^ 3
	if n < ondisk.DirentMin {
		return nil, errNoRoom
	}
	ea, err := dp.inlineResize(n)
	if err != nil {
		return nil, err
	}
	clear(ea)
	ondisk.SetRecLen(ea, 0, len(ea), len(ea))
	dp.setDirSize(int64(inlineBlock + len(ea)))
	return ea, nil
}

// inlineDirInit makes the new directory dp inline; false if its inode has no
// room for that.
func (dp *Inode) inlineDirInit(h *jbd2.Handle, parent ondisk.Ino) (bool, error) {
	dp.mapMu.Lock()
	defer dp.mapMu.Unlock()
	if done, err := dp.inlineInit(); !done || err != nil {
		return false, err
	}
	blk := dp.raw.Base().Block[:]
	clear(blk)
	binary.LittleEndian.PutUint32(blk, uint32(parent))
	ondisk.SetRecLen(blk[inlineParent:], 0, inlineFirst, inlineFirst)
	dp.setDirSize(int64(inlineBlock))
	return true, dp.store(h)
}

// inlineToBlock moves the entries of an inline directory into a block of its
// own. They keep their positions. It fails with ENOSPC, and changes nothing then.
func (fs *FS) inlineToBlock(h *jbd2.Handle, dp *Inode) error {
	var d inlineDir
	if err := dp.inlineCopy(&d); err != nil {
		return err
	}
	last := 0 // start of the last entry, in the block
	for _, a := range d.areas() {
		for off := 0; off < len(a.b); {
			e, err := ondisk.DirentAt(a.b, off, len(a.b))
			if err != nil {
				return ondisk.At(err, dp.ino, 0)
			}
			last = int(a.pos) + off
			off += e.RecLen
		}
	}
	dp.mapMu.Lock()
	saved := append([]byte(nil), dp.raw...)
	err := dp.inlineDrop()
	if err == nil {
		dp.setDirSize(0)
	}
	dp.mapMu.Unlock()
	if err == nil {
		err = fs.fillFromInline(h, dp, &d, last)
	}
	if err != nil {
		// What came with the inline data lies in the inode's own bytes.
		dp.mapMu.Lock()
		copy(dp.raw, saved)
		dp.mappingChanged()
		if serr := dp.store(h); serr != nil {
			err = serr
		}
		dp.mapMu.Unlock()
	}
	return err
}

func (fs *FS) fillFromInline(h *jbd2.Handle, dp *Inode, d *inlineDir, last int) error {
	b, _, err := dp.dirAppend(h)
	if err != nil {
		return err
	}
	defer b.Put()
	ondisk.InitDirBlock(b.Data(), fs.hasCsum)
	area := fs.dirArea(b)
	fs.putDots(area[:dotsSize], dp.ino, d.parent())
	copy(area[dotsSize:], d.buf[inlineParent:])
	ondisk.SetRecLen(area, last, len(area)-last, fs.blockSize)
	h.Dirty(b)
	return nil
}
