package ext2fs

import (
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// creditsShift is for moving one extent within its tree.
const creditsShift = creditsRemove + creditsExtent

// aligned says whether a shift of n bytes at off moves whole clusters.
func (fs *FS) shiftAligned(off, n int64) bool {
	return (off|n)&(int64(fs.blockSize)<<fs.clusterBits-1) == 0
}

// collapse takes n bytes at off out of the file.
func (ip *Inode) collapse(off, n int64) error {
	fs := ip.fs
	if !fs.shiftAligned(off, n) || off+n >= ip.Size() {
		return syscall.EINVAL
	}
	lo, by := uint64(off)>>fs.blockBits, uint64(n)>>fs.blockBits
	if err := ip.beforeShift(lo); err != nil {
		return err
	}
	if err := ip.removeSteps(lo, lo+by); err != nil {
		return err
	}
	at := lo + by
	return ip.update(creditsShift, func(h *jbd2.Handle) (bool, error) {
		defer ip.dropSpare()
		end := uint64(ondisk.MaxLblk) + 1
		for at < end {
			if !fs.have(h, creditsShift+creditsSuper) {
				return false, nil
			}
			r, err := ip.mapRun(ondisk.Lblk(at), 0)
			if err != nil {
				return false, err
			}
			if r.state != runHole {
				if err := ip.move(h, r, r.lblk-ondisk.Lblk(by)); err != nil {
					return false, err
				}
			}
			at += uint64(r.n)
		}
		ip.raw.SetSize(ip.size() - n)
		return true, ip.extShrink(h)
	})
}

// insertRange pushes a hole of n bytes in at off.
func (ip *Inode) insertRange(off, n int64) error {
	fs := ip.fs
	size := ip.Size()
	switch {
	case !fs.shiftAligned(off, n) || off >= size:
		return syscall.EINVAL
	case n > ip.MaxBytes()-size:
		return syscall.EFBIG
	}
	lo, by := uint64(off)>>fs.blockBits, uint64(n)>>fs.blockBits
	if err := ip.beforeShift(lo); err != nil {
		return err
	}
	hi := uint64(ondisk.MaxLblk) + 1
	grown := false
	return ip.update(creditsShift+creditsSuper, func(h *jbd2.Handle) (bool, error) {
		defer ip.dropSpare()
		if !grown {
			last, err := ip.lastBlock()
			if err != nil {
				return false, err
			}
			if last+by > uint64(ondisk.MaxLblk)+1 {
				return false, syscall.EINVAL
			}
			if err := ip.grow(h, size+n); err != nil {
				return false, err
			}
			grown = true
		}
		for hi > lo {
			if !fs.have(h, creditsShift+creditsSuper) {
				return false, nil
			}
			if err := ip.spareNodes(); err != nil {
				return false, err
			}
			r, err := ip.extRemoveLast(h, lo, hi, ondisk.MaxExtentLen)
			if err != nil {
				return false, err
			}
			if r.n == 0 {
				break
			}
			if err := ip.insertRun(h, r.lblk+ondisk.Lblk(by), r.pblk, r.n, r.state == runUnwritten); err != nil {
				return false, err
			}
			hi = uint64(r.lblk)
		}
		return true, nil
	})
}

// beforeShift gets rid of what is remembered by logical block, from lo on. Before
// lo nothing moves, and the kernel may have pages that it has not written back.
func (ip *Inode) beforeShift(lo uint64) error {
	ip.mapMu.Lock()
	ip.rsvDrop(lo, 1<<32)
	ip.mapMu.Unlock()
	if ip.JournalsData() {
		return ip.fs.jnl.CommitRunning()
	}
	return nil
}

// move maps the blocks of r, a whole extent or the end of one, at to instead.
// mapMu is held exclusively.
func (ip *Inode) move(h *jbd2.Handle, r run, to ondisk.Lblk) error {
	if err := ip.spareNodes(); err != nil {
		return err
	}
	got, err := ip.extRemoveLast(h, uint64(r.lblk), uint64(r.lblk)+uint64(r.n), r.n)
	if err != nil {
		return err
	}
	if got.n != r.n {
		return ip.errMapped(r.lblk)
	}
	return ip.insertRun(h, to, r.pblk, r.n, r.state == runUnwritten)
}

// spareNodes reserves what an insertion into the extent tree may take for nodes,
// before an extent is taken out of it that could not be put back for want of space.
// mapMu is held exclusively.
func (ip *Inode) spareNodes() error {
	fs, m := ip.fs, &ip.fm
	root := extNode{node: ip.raw.Base().Block[:]}
	for len(m.spare) < int(root.header().Depth.Get())+2 {
		blk, _, err := fs.reserveNow(fs.goalFor(ip, 0), 1, 1, 0)
		if err != nil {
			return err
		}
		m.spare = append(m.spare, blk)
	}
	return nil
}

// dropSpare gives back what spareNodes reserved and nobody took. mapMu is held
// exclusively.
func (ip *Inode) dropSpare() {
	for _, blk := range ip.fm.spare {
		ip.fs.unreserve(blk, ip.fs.clusterRatio)
	}
	ip.fm.spare = nil
}

// lastBlock returns the block after the last one that is mapped. mapMu is held.
func (ip *Inode) lastBlock() (uint64, error) {
	var p extPath
	hi := uint64(ondisk.MaxLblk) + 1
	for hi > 0 {
		if err := ip.extFind(&p, ondisk.Lblk(hi-1)); err != nil {
			return 0, err
		}
		leaf := p.leaf()
		pos, lo := leaf.pos, leaf.lo
		if pos >= 0 {
			e := &leaf.leaf()[pos]
			end := uint64(e.Block.Get()) + uint64(e.Len())
			p.put()
			return end, nil
		}
		p.put()
		hi = lo
	}
	return 0, nil
}
