package ext2fs

import (
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/iomap"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// runState says what a run of a file's blocks is.
type runState uint8

const (
	runHole      runState = iota // nothing is allocated
	runWritten                   // holds data
	runUnwritten                 // allocated, reads as zeros
)

// run is a run of logical blocks of one state, mapped to contiguous blocks.
type run struct {
	lblk  ondisk.Lblk
	pblk  ondisk.Fsblk // 0 in a hole
	n     uint32
	state runState
	flags iomap.Flags // of an answer of Begin
}

// inodeMap is the mapping's part of an Inode.
type inodeMap struct{ fm fileMap }

// fileMap is what an inode remembers of its mapping.
type fileMap struct {
	rootOK atomic.Bool // the root of the extent tree was checked

	spare   []ondisk.Fsblk // guarded by Inode.mapMu: reserved for nodes of the extent tree
	nodesAt ondisk.Fsblk   // guarded by Inode.mapMu: where to look for nodes of the extent tree; 0: near what they map

	runMu sync.Mutex
	runs  [4]run // guarded by runMu: found last, holes too; n is 0 if unused
	hand  uint8  // guarded by runMu: replaced next

	// tellMu is held from finding out a mapping to having told the kernel of it.
	// It comes before mapMu in the lock order.
	tellMu sync.Mutex
	// The part of the file, in blocks, of which MappingAround has said that it is
	// not committed, or Forgets that the kernel has dropped it.
	dirtyLo, dirtyHi uint64 // guarded by tellMu
	forgets          span   // guarded by tellMu: by Forgets last

	durable atomic.Uint64 // dataSyncTid that is known to be committed, plus 1<<32

	reservations
}

// forgetRuns drops what is remembered of the mapping, which is about to change
// or has changed. mapMu is held exclusively.
func (m *fileMap) forgetRuns() {
	m.runMu.Lock()
	for i := range m.runs {
		m.runs[i].n = 0
	}
	m.runMu.Unlock()
}

// forget is forgetRuns for a root that was written by others.
func (m *fileMap) forget() {
	m.rootOK.Store(false)
	m.forgetRuns()
}

// find returns the part of a remembered run that starts at lblk.
func (m *fileMap) find(lblk ondisk.Lblk) (run, bool) {
	m.runMu.Lock()
	for i := range m.runs {
		r := m.runs[i]
		if in := uint32(lblk - r.lblk); in < r.n && lblk >= r.lblk {
			m.runMu.Unlock()
			r.lblk, r.n = lblk, r.n-in
			if r.state != runHole {
				r.pblk += ondisk.Fsblk(in)
			}
			return r, true
		}
	}
	m.runMu.Unlock()
	return run{}, false
}

func (m *fileMap) remember(r run) {
	m.runMu.Lock()
	m.runs[m.hand] = r
	m.hand = (m.hand + 1) % uint8(len(m.runs))
	m.runMu.Unlock()
}

// isExtents says whether blocks are mapped by extents; otherwise by indirect
// blocks. mapMu is held.
func (ip *Inode) isExtents() bool { return ip.raw.Base().Flags.Get()&ondisk.FlagExtents != 0 }

// noBlocks says whether i_block holds something else than a mapping: inline
// data, the target of a short symlink, a device number. mapMu is held.
func (ip *Inode) noBlocks() bool {
	b := ip.raw.Base()
	if b.Flags.Get()&ondisk.FlagInlineData != 0 {
		return true
	}
	switch b.Mode.Get() & ondisk.ModeFmt {
	case ondisk.ModeReg, ondisk.ModeDir, 0: // reserved inodes may have no mode
		return false
	case ondisk.ModeLnk:
		return ip.isFastLink()
	}
	return true
}

// mapRun returns what is mapped at lblk: a run of one state that starts there,
// of at most max blocks (all if max is 0). It need not be the longest such run,
// but it is never empty. It fails with a CorruptError. mapMu is held.
func (ip *Inode) mapRun(lblk ondisk.Lblk, max uint32) (run, error) {
	r, ok := ip.fm.find(lblk)
	if !ok {
		var err error
		switch {
		case ip.noBlocks():
			return run{lblk: lblk, n: 1}, nil
		case ip.isExtents():
			if lblk > ondisk.MaxLblk {
				return run{lblk: lblk, n: 1}, nil
			}
			r, err = ip.extRun(lblk)
		default:
			r, err = ip.indRun(lblk)
		}
		if err != nil {
			return run{}, err
		}
		ip.fm.remember(r)
	}
	if max != 0 && r.n > max {
		r.n = max
	}
	return r, nil
}

// insertRun maps n blocks from lblk on, a hole, to pblk on, which are marked
// used. mapMu is held exclusively; the caller has credits (creditsExtent, for a
// run of up to ondisk.MaxUnwrittenLen blocks) and stores the inode. i_blocks is
// raised for the metadata only.
func (ip *Inode) insertRun(h *jbd2.Handle, lblk ondisk.Lblk, pblk ondisk.Fsblk, n uint32, unwritten bool) error {
	_, err := ip.insertSome(h, lblk, pblk, n, unwritten)
	return err
}

// insertSome is insertRun; if it fails it tells how many blocks it has mapped.
func (ip *Inode) insertSome(h *jbd2.Handle, lblk ondisk.Lblk, pblk ondisk.Fsblk, n uint32, unwritten bool) (uint32, error) {
	ip.fm.forgetRuns()
	if ip.isExtents() {
		return ip.extInsert(h, lblk, pblk, n, unwritten)
	}
	if unwritten {
		return 0, syscall.EOPNOTSUPP
	}
	return ip.indInsert(h, lblk, pblk, n)
}

// removeRuns takes away the mappings of [lo, hi), the last first, and frees
// their blocks, as far as h has or gets credits. It returns the block below
// which some may be left, lo when it is done. If that is not lo, the inode is
// as after a removal of what is above; the caller stores it, restarts h and
// goes on. mapMu is held exclusively.
func (ip *Inode) removeRuns(h *jbd2.Handle, lo, hi uint64) (uint64, error) {
	ip.fm.forgetRuns()
	if ip.noBlocks() {
		return lo, nil
	}
	if !ip.isExtents() {
		return ip.indRemove(h, lo, hi)
	}
	hi = min(hi, uint64(ondisk.MaxLblk)+1)
	most := ip.freeMost(ondisk.MaxExtentLen)
	for hi > lo {
		if !ip.fs.have(h, creditsRemove+creditsOrphan) {
			return hi, nil
		}
		r, err := ip.extRemoveLast(h, lo, hi, most)
		if err != nil {
			return hi, err
		}
		if r.n == 0 {
			break
		}
		hi = uint64(r.lblk)
		if err := ip.freeRun(h, r); err != nil {
			return hi, err
		}
	}
	if !ip.fs.have(h, creditsFree+creditsInode) {
		return lo, nil // flat enough
	}
	return lo, ip.extShrink(h)
}

// creditsRemove is for the removal of one extent: it may have to be split, up to
// five nodes may become empty, and its blocks lie in up to six groups.
const creditsRemove = creditsExtent + 6*creditsGroup

// have says whether h may change n more blocks, if need be by an extension. It may
// have changed more than it had credits for: revoke records take some too.
func (fs *FS) have(h *jbd2.Handle, n int) bool {
	c := h.Credits()
	return c >= n || h.Extend(n-min(c, 0)) == nil
}

// maxMetaRun bounds how many blocks are freed at a step that need revoke records,
// so that those of a step fit in few blocks of the log.
const maxMetaRun = 1 << 11

// freeMost returns how many blocks of ip are freed at a step, at most n. mapMu
// is held.
func (ip *Inode) freeMost(n uint32) uint32 {
	if ip.dataIsMeta() {
		return min(n, maxMetaRun)
	}
	return n
}

// freeRun frees the blocks of r, which are mapped no longer. With clusters, the
// first and the last are freed only if the file has no other block in them.
func (ip *Inode) freeRun(h *jbd2.Handle, r run) error {
	fs := ip.fs
	meta := ip.dataIsMeta()
	if fs.clusterRatio == 1 {
		ip.addBlocks(-int64(r.n))
		return fs.freeBlocks(h, r.pblk, r.n, meta)
	}
	mask := uint64(fs.clusterRatio - 1)
	lo, hi := uint64(r.lblk), uint64(r.lblk)+uint64(r.n)
	base := uint64(r.pblk) - uint64(r.lblk) // wraps, which is as good
	a, b := lo&^mask, (hi+mask)&^mask
	if a < lo {
		used, err := ip.clusterUsed(a)
		if err != nil {
			return err
		}
		if used {
			a += mask + 1
		}
	}
	if b > hi && a < b {
		used, err := ip.clusterUsed(b - mask - 1)
		if err != nil {
			return err
		}
		if used {
			b -= mask + 1
		}
	}
	if a >= b {
		return nil
	}
	ip.addBlocks(-int64(b - a))
	return fs.freeBlocks(h, ondisk.Fsblk(a+base), uint32(b-a), meta)
}

// dataIsMeta says whether the content goes through the journal: that of a
// directory, a symbolic link, an attribute's value, and journaled data. Freed
// without a revoke, a block of it could be written home over what lies there by
// then. mapMu is held.
func (ip *Inode) dataIsMeta() bool {
	return !ip.isReg() || ip.isEA.Load() || ip.journalsData()
}

// clusterUsed says whether a block of the cluster that starts at logical block
// lblk is mapped. mapMu is held.
func (ip *Inode) clusterUsed(lblk uint64) (bool, error) {
	r, err := ip.clusterRun(lblk)
	return r.n != 0, err
}

// clusterRun returns a mapped run of the cluster that starts at logical block
// lblk, of length 0 if there is none. mapMu is held.
func (ip *Inode) clusterRun(lblk uint64) (run, error) {
	for end := lblk + uint64(ip.fs.clusterRatio); lblk < end && lblk <= uint64(ondisk.MaxLblk); {
		r, err := ip.mapRun(ondisk.Lblk(lblk), uint32(end-lblk))
		if err != nil || r.state != runHole {
			return r, err
		}
		lblk += uint64(r.n)
	}
	return run{}, nil
}

// dirBlock returns block lblk of an inode whose content is metadata (a
// directory, a symlink, an attribute's value), pinned and verified as ops; nil
// if it is a hole. mapMu is not held.
func (ip *Inode) dirBlock(lblk ondisk.Lblk, ops buffer.Ops) (*buffer.Buf, error) {
	ip.mapMu.RLock()
	r, err := ip.mapRun(lblk, 1)
	ip.mapMu.RUnlock()
	if err != nil || r.state == runHole {
		return nil, err
	}
	b, err := ip.fs.cache.Read(buffer.Block(r.pblk), ops, ip.ctx())
	if err != nil {
		return nil, ip.fs.corrupt(ip.ino, err)
	}
	return b, nil
}

// appendMetaBlock allocates a block, maps it at lblk, a hole, and returns it as
// a block of zeros of kind ops, pinned and part of h: the caller fills it and
// marks it dirty, sets the size, and stores the inode, whose i_blocks is raised.
// mapMu is held exclusively.
func (ip *Inode) appendMetaBlock(h *jbd2.Handle, lblk ondisk.Lblk, ops buffer.Ops) (*buffer.Buf, error) {
	fs := ip.fs
	pblk, implied, err := ip.allocOne(h, lblk)
	if err != nil {
		return nil, err
	}
	undo := func() {
		if !implied {
			ip.addBlocks(-int64(fs.clusterRatio))
			if e := fs.freeBlocks(h, pblk&^ondisk.Fsblk(fs.clusterRatio-1), fs.clusterRatio, false); e != nil {
				fs.log.Error("block not freed", "block", pblk, "err", e)
			}
		}
	}
	b, err := fs.cache.New(buffer.Block(pblk), ops, ip.ctx())
	if err == nil {
		if err = h.GetCreate(b); err != nil {
			b.Put()
		}
	}
	if err != nil {
		undo()
		return nil, err
	}
	if err := ip.insertRun(h, lblk, pblk, 1, false); err != nil {
		b.Put()
		undo()
		// Of the indirect blocks that lead there it may have taken some.
		if e := ip.store(h); e != nil {
			err = e
		}
		return nil, err
	}
	clear(b.Data())
	return b, nil
}

// allocOne allocates a block for lblk, a hole, and raises i_blocks. With
// clusters, a file that has another block in the cluster has this one already:
// then implied is true. mapMu is held exclusively.
func (ip *Inode) allocOne(h *jbd2.Handle, lblk ondisk.Lblk) (pblk ondisk.Fsblk, implied bool, err error) {
	fs := ip.fs
	in := uint64(lblk) & uint64(fs.clusterRatio-1)
	if fs.clusterRatio > 1 {
		r, err := ip.clusterRun(uint64(lblk) - in)
		if err != nil {
			return 0, false, err
		}
		if r.n > 0 {
			return ondisk.Fsblk(uint64(r.pblk) - uint64(r.lblk) + uint64(lblk)), true, nil
		}
	}
	goal, err := ip.goal(lblk)
	if err != nil {
		return 0, false, err
	}
	blk, err := fs.allocMeta(h, ip, goal)
	if err != nil {
		return 0, false, err
	}
	ip.addBlocks(int64(fs.clusterRatio))
	return blk + ondisk.Fsblk(in), false, nil
}

// goal returns where a block for lblk, a hole, would best be: after the block
// before it, as far as the hole goes. mapMu is held.
func (ip *Inode) goal(lblk ondisk.Lblk) (ondisk.Fsblk, error) {
	var r run
	var err error
	if lblk > 0 {
		if ip.isExtents() {
			r, err = ip.extBefore(lblk)
		} else {
			r, err = ip.mapRun(lblk-1, 1)
		}
	}
	if err != nil {
		return 0, err
	}
	if r.state != runHole {
		if g := r.pblk + ondisk.Fsblk(lblk-r.lblk); g < ip.fs.blocks {
			return g, nil
		}
		return r.pblk, nil
	}
	return ip.fs.goalFor(ip, lblk), nil
}

// extBefore returns the extent of the leaf of lblk that starts before it; a hole
// if there is none. mapMu is held.
func (ip *Inode) extBefore(lblk ondisk.Lblk) (run, error) {
	var p extPath
	if err := ip.extFind(&p, lblk-1); err != nil {
		return run{}, err
	}
	r := run{lblk: lblk}
	if n := p.leaf(); n.pos >= 0 {
		e := &n.leaf()[n.pos]
		r = run{lblk: ondisk.Lblk(e.Block.Get()), pblk: e.Start(), n: e.Len(), state: runWritten}
	}
	p.put()
	return r, nil
}
