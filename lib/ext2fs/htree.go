package ext2fs

import (
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// The index of a directory is a tree of blocks by the hash of the name:
//
//	root (block 0)  ->  [node  ->  [node  -> ]]  leaf, a block of entries
//
// The names of one hash can be in several leaves in a row; all but the first of
// them have the lowest bit of the hash set in the index.

// dxMaxLblk is the last block of a directory that an index entry can name.
const dxMaxLblk = 1<<28 - 1

// dxFrame is a node on the way to a leaf.
type dxFrame struct {
	buf     *buffer.Buf // pinned
	lblk    ondisk.Lblk
	off     int              // where entries start in buf
	entries []ondisk.DxEntry // in use, with room for all that fit
	at      int              // the entry that leads on
}

func (f *dxFrame) full() bool { return len(f.entries) == cap(f.entries) }

// dxPath is the way from the root to a leaf.
type dxPath struct {
	frames  [ondisk.DxMaxLevels]dxFrame
	n       int         // frames in use: the root, and nodes
	version uint8       // of the hash
	blocks  ondisk.Lblk // size of the directory
	steps   ondisk.Lblk // leaves that next may still go to
}

func (p *dxPath) release() {
	for i := range p.n {
		p.frames[i].buf.Put()
	}
	p.n = 0
}

// leaf returns the block of the leaf that the path leads to.
func (p *dxPath) leaf() ondisk.Lblk {
	f := &p.frames[p.n-1]
	return f.entries[f.at].Lblk()
}

// badDxError says that an index cannot be used, for a reason that leaves the
// entries themselves readable.
type badDxError struct{ err error }

func (e *badDxError) Error() string { return e.err.Error() }
func (e *badDxError) Unwrap() error { return e.err }

func isBadDx(err error) bool {
	_, ok := err.(*badDxError) // it is never wrapped
	return ok
}

// dxLoad reads the node lblk as the frame f of p.
func (fs *FS) dxLoad(dp *Inode, p *dxPath, f *dxFrame, lblk ondisk.Lblk, off int) error {
	if err := p.check(lblk, f); err != nil {
		return err
	}
	b, err := dp.dirRead(lblk)
	if err != nil {
		return err
	}
	if b == nil {
		return &badDxError{ondisk.Corrupt("directory index", 0, "block %d is a hole", lblk)}
	}
	if off == ondisk.DxNodeOff {
		err = ondisk.DxNode(b.Data())
	}
	var es []ondisk.DxEntry
	var limit int
	if err == nil {
		es, limit, err = ondisk.DxEntries(b.Data(), off, fs.hasCsum)
	}
	if err != nil {
		err = &badDxError{ondisk.At(err, dp.ino, ondisk.Fsblk(b.Block()))}
		b.Put()
		return err
	}
	if f.buf != nil {
		f.buf.Put()
	}
	*f = dxFrame{buf: b, lblk: lblk, off: off, entries: es[:len(es):limit]}
	return nil
}

// check refuses a block that the index must not lead to from the frame above f:
// one outside of the directory, or a node that is already on the way.
func (p *dxPath) check(lblk ondisk.Lblk, f *dxFrame) error {
	if lblk >= p.blocks {
		return &badDxError{ondisk.Corrupt("directory index", 0, "leads to block %d of %d", lblk, p.blocks)}
	}
	for i := range p.frames[:p.n] {
		if g := &p.frames[i]; g != f && g.lblk == lblk {
			return &badDxError{ondisk.Corrupt("directory index", 0, "leads back to block %d", lblk)}
		}
	}
	return nil
}

// dxOpen reads the root of dp's index. p must be zero; release it, also after
// an error.
func (fs *FS) dxOpen(dp *Inode, p *dxPath) error {
	_, p.blocks = dp.dirState()
	p.steps = ondisk.Lblk(min(fs.blocks, ondisk.Fsblk(p.blocks)))
	if err := fs.dxLoad(dp, p, &p.frames[0], 0, ondisk.DxRootOff); err != nil {
		return err
	}
	p.n = 1
	info, err := ondisk.DxRoot(p.frames[0].buf.Data(), fs.hasLargeDir)
	if err != nil {
		return &badDxError{ondisk.At(err, dp.ino, ondisk.Fsblk(p.frames[0].buf.Block()))}
	}
	p.version = fs.sb.HashVersion(info.HashVersion[0])
	return nil
}

// dxDescend goes from the root to the first leaf for hash.
func (fs *FS) dxDescend(dp *Inode, p *dxPath, hash uint32) error {
	levels := int(p.frames[0].buf.Data()[ondisk.DxRootInfoOff+6])
	for i := 0; ; i++ {
		f := &p.frames[i]
		f.at = ondisk.DxFind(f.entries, hash)
		if i == levels {
			return p.check(f.entries[f.at].Lblk(), nil)
		}
		if err := fs.dxLoad(dp, p, &p.frames[i+1], f.entries[f.at].Lblk(), ondisk.DxNodeOff); err != nil {
			return err
		}
		p.n++
	}
}

// dxPeek returns the hash that the leaf after the present one starts at, with
// its lowest bit; false if there is none.
func (p *dxPath) dxPeek() (uint32, bool) {
	for i := p.n - 1; i >= 0; i-- {
		if f := &p.frames[i]; f.at+1 < len(f.entries) {
			return f.entries[f.at+1].Hash.Get(), true
		}
	}
	return 0, false
}

// dxNext goes to the leaf after the present one, which dxPeek told of.
func (fs *FS) dxNext(dp *Inode, p *dxPath) error {
	// A hostile index could lead through the same nodes again and again.
	if p.steps == 0 {
		return &badDxError{ondisk.Corrupt("directory index", 0, "more leaves than blocks")}
	}
	p.steps--
	i := p.n - 1
	for p.frames[i].at+1 >= len(p.frames[i].entries) {
		i--
	}
	p.frames[i].at++
	for ; i+1 < p.n; i++ {
		f := &p.frames[i]
		if err := fs.dxLoad(dp, p, &p.frames[i+1], f.entries[f.at].Lblk(), ondisk.DxNodeOff); err != nil {
			return err
		}
	}
	return p.check(p.leaf(), nil)
}

// nameHash returns the hash by which dp's index finds name.
func (fs *FS) nameHash(flags uint32, version uint8, name []byte) (major, minor uint32, ok bool) {
	seed := fs.sb.DirHashSeed()
	if flags&ondisk.FlagCasefold != 0 {
		var folded [ondisk.NameLen]byte
		if !ascii(name) || flags&ondisk.FlagEncrypt != 0 {
			return 0, 0, false
		}
		for i, c := range name {
			folded[i] = lower(c)
		}
		return ondisk.DirHash(version, &seed, folded[:len(name)])
	}
	return ondisk.DirHash(version, &seed, name)
}

var errNoHash = &badDxError{&ondisk.UnsupportedError{Feature: "hash of names in this directory"}}

// dxFind finds an entry through the index. It fails with ENOENT, or with an
// error of which isBadDx is true where the index cannot say.
func (fs *FS) dxFind(dp *Inode, name []byte, flags uint32, s *dirSlot) error {
	var p dxPath
	defer p.release()
	if err := fs.dxOpen(dp, &p); err != nil {
		return err
	}
	hash, _, ok := fs.nameHash(flags, p.version, name)
	if !ok {
		return errNoHash
	}
	if err := fs.dxDescend(dp, &p, hash); err != nil {
		return err
	}
	fold := flags&ondisk.FlagCasefold != 0
	for {
		found, err := fs.findIn(dp, p.leaf(), name, fold, s)
		if found || err != nil {
			return err
		}
		if next, more := p.dxPeek(); !more || next&^1 != hash {
			return syscall.ENOENT
		}
		if err := fs.dxNext(dp, &p); err != nil {
			return err
		}
	}
}

// dxAdd adds an entry through the index, which grows as needed.
func (fs *FS) dxAdd(h *jbd2.Handle, dp *Inode, name []byte, ino ondisk.Ino, ftype uint8) error {
	flags, _ := dp.dirState()
	// Each turn but the last one splits a node or adds a level.
	for range 2*ondisk.DxMaxLevels + 1 {
		done, err := fs.dxTryAdd(h, dp, flags, name, ino, ftype)
		if done || err != nil {
			return err
		}
	}
	return &badDxError{ondisk.Corrupt("directory index", 0, "no room after splits")}
}

// dxTryAdd adds an entry, or makes room in the index for a further leaf and
// returns false.
func (fs *FS) dxTryAdd(h *jbd2.Handle, dp *Inode, flags uint32, name []byte, ino ondisk.Ino, ftype uint8) (bool, error) {
	var p dxPath
	defer p.release()
	if err := fs.dxOpen(dp, &p); err != nil {
		return false, err
	}
	hash, _, ok := fs.nameHash(flags, p.version, name)
	if !ok {
		return false, errNoHash
	}
	if err := fs.dxDescend(dp, &p, hash); err != nil {
		return false, err
	}
	leaf, err := dp.dirRead(p.leaf())
	if err != nil {
		return false, err
	}
	if leaf == nil {
		return false, &badDxError{ondisk.Corrupt("directory index", 0, "leaf %d is a hole", p.leaf())}
	}
	if fs.hasCsum && len(fs.dirArea(leaf)) == fs.blockSize {
		leaf.Put()
		return false, &badDxError{ondisk.Corrupt("directory index", 0, "leaf %d is an index node", p.leaf())}
	}
	err = fs.addTo(h, leaf, name, ino, ftype)
	if err != errNoRoom {
		leaf.Put()
		return err == nil, err
	}
	if p.frames[p.n-1].full() {
		leaf.Put()
		return false, fs.dxGrow(h, dp, &p)
	}
	leaf, err = fs.dxSplit(h, dp, &p, leaf, hash)
	if err != nil {
		return false, err
	}
	err = fs.addTo(h, leaf, name, ino, ftype)
	leaf.Put()
	if err == errNoRoom {
		err = ondisk.Corrupt("directory block", 0, "no room in half of a block")
	}
	return err == nil, err
}
