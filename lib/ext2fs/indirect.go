package ext2fs

import (
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// opsIndirect is a block of block numbers. It has no checksum; every number is
// checked when it is followed.
var opsIndirect buffer.Ops = plainOps{"indirect block"}

// i_block of an inode without extents: 12 blocks, and one block number each of
// an indirect, a double and a triple indirect block.
const (
	indDirect = 12
	indSlots  = 15
)

// indBits is log2 of how many numbers an indirect block holds.
func (fs *FS) indBits() uint { return fs.blockBits - 2 }

// indMax returns how many blocks a file without extents can have.
func (fs *FS) indMax() uint64 {
	n := uint64(1) << fs.indBits()
	return min(indDirect+n+n*n+n*n*n, 1<<32-1)
}

// indSlot returns which slot of i_block leads to lblk, how many levels of
// indirect blocks are below it, and lblk's number among the blocks there.
func (fs *FS) indSlot(lblk uint64) (slot, levels int, in uint64, ok bool) {
	if lblk < indDirect {
		return int(lblk), 0, 0, true
	}
	in = lblk - indDirect
	for levels = 1; levels <= 3; levels++ {
		if n := uint64(1) << (fs.indBits() * uint(levels)); in < n {
			return indDirect + levels - 1, levels, in, true
		} else {
			in -= n
		}
	}
	return 0, 0, 0, false
}

// indRoot returns i_block as block numbers, in place.
func (ip *Inode) indRoot() []endian.LE32 {
	return endian.Views[endian.LE32](ip.raw.Base().Block[:], indSlots)
}

// indRead returns an indirect block, pinned, and its numbers, in place.
func (ip *Inode) indRead(blk uint32) (*buffer.Buf, []endian.LE32, error) {
	if err := ip.indCheck(blk, 1); err != nil {
		return nil, nil, err
	}
	b, err := ip.fs.cache.Read(buffer.Block(blk), opsIndirect, ip.ctx())
	if err != nil {
		return nil, nil, ip.fs.corrupt(ip.ino, err)
	}
	return b, endian.Views[endian.LE32](b.Data(), ip.fs.blockSize/4), nil
}

// indCheck checks that n blocks from blk on may hold data.
func (ip *Inode) indCheck(blk, n uint32) error {
	if ip.fs.validBlock(ondisk.Fsblk(blk), n) {
		return nil
	}
	return ip.fs.corrupt(ip.ino, ondisk.At(ondisk.Corrupt("block map", 0, "%d blocks at block %d", n, blk), ip.ino, 0))
}

// indRun is mapRun for a file without extents. mapMu is held.
func (ip *Inode) indRun(lblk ondisk.Lblk) (run, error) {
	fs := ip.fs
	slot, levels, in, ok := fs.indSlot(uint64(lblk))
	if !ok { // beyond what can be mapped
		return run{lblk: lblk, n: uint32(1<<32 - uint64(lblk))}, nil
	}
	root := ip.indRoot()
	if levels == 0 {
		return ip.indScan(lblk, root[slot:indDirect])
	}
	ptr := root[slot].Get()
	for ; levels > 0; levels-- {
		shift := fs.indBits() * uint(levels-1)
		if ptr == 0 {
			span := uint64(1) << (shift + fs.indBits())
			return run{lblk: lblk, n: uint32(min(span-in, 1<<32-1))}, nil
		}
		b, ptrs, err := ip.indRead(ptr)
		if err != nil {
			return run{}, err
		}
		i := int(in >> shift)
		in &= 1<<shift - 1
		if levels == 1 {
			r, err := ip.indScan(lblk, ptrs[i:])
			b.Put()
			return r, err
		}
		ptr = ptrs[i].Get()
		b.Put()
	}
	panic("unreachable")
}

// indScan returns the run that ptrs, the numbers of the blocks from lblk on,
// begin with.
func (ip *Inode) indScan(lblk ondisk.Lblk, ptrs []endian.LE32) (run, error) {
	first, n := ptrs[0].Get(), uint32(1)
	if first == 0 {
		for int(n) < len(ptrs) && ptrs[n].Get() == 0 {
			n++
		}
		return run{lblk: lblk, n: n}, nil
	}
	for int(n) < len(ptrs) && ptrs[n].Get() == first+n && first+n != 0 {
		n++
	}
	if !ip.fs.validBlock(ondisk.Fsblk(first), n) {
		// Blame the block that is wrong, not its neighbours.
		n = 1
		if err := ip.indCheck(first, 1); err != nil {
			return run{}, err
		}
	}
	return run{lblk: lblk, pblk: ondisk.Fsblk(first), n: n, state: runWritten}, nil
}

// indInsert is insertRun for a file without extents. mapMu is held.
func (ip *Inode) indInsert(h *jbd2.Handle, lblk ondisk.Lblk, pblk ondisk.Fsblk, n uint32) (uint32, error) {
	if uint64(pblk)+uint64(n) > 1<<32 {
		return 0, syscall.ENOSPC // numbers have 32 bits
	}
	defer ip.fm.forgetRuns()
	for done := uint32(0); done < n; {
		k, err := ip.indInsertSome(h, uint64(lblk)+uint64(done), uint32(pblk)+done, n-done)
		if err != nil {
			return done, err
		}
		done += k
	}
	return n, nil
}

// indInsertSome fills one array of numbers, and returns how many it set.
func (ip *Inode) indInsertSome(h *jbd2.Handle, lblk uint64, pblk, n uint32) (uint32, error) {
	fs := ip.fs
	slot, levels, in, ok := fs.indSlot(lblk)
	if !ok {
		return 0, syscall.EFBIG
	}
	ptrs := ip.indRoot()
	if levels == 0 {
		return ip.indSet(ptrs[slot:indDirect], lblk, pblk, n)
	}
	i := slot
	var b *buffer.Buf // that ptrs lie in; nil for the inode
	for {
		child, next, err := ip.indChild(h, b, &ptrs[i], pblk)
		if b != nil {
			b.Put()
		}
		if err != nil {
			return 0, err
		}
		b, ptrs = child, next
		levels--
		shift := fs.indBits() * uint(levels)
		i = int(in >> shift)
		in &= 1<<shift - 1
		if levels == 0 {
			break
		}
	}
	defer b.Put()
	if err := h.GetWrite(b); err != nil {
		return 0, err
	}
	k, err := ip.indSet(ptrs[i:], lblk, pblk, n)
	h.Dirty(b)
	return k, err
}

// indChild returns the indirect block that p, which lies in b, names. If there
// is none it is allocated, near goal.
func (ip *Inode) indChild(h *jbd2.Handle, b *buffer.Buf, p *endian.LE32, goal uint32) (*buffer.Buf, []endian.LE32, error) {
	if blk := p.Get(); blk != 0 {
		return ip.indRead(blk)
	}
	fs := ip.fs
	if b != nil {
		if err := h.GetWrite(b); err != nil {
			return nil, nil, err
		}
	}
	blk, err := fs.allocMeta(h, ip, ondisk.Fsblk(goal))
	if err != nil {
		return nil, nil, err
	}
	if uint64(blk) >= 1<<32 {
		err = syscall.ENOSPC
	}
	var c *buffer.Buf
	if err == nil {
		if c, err = fs.cache.New(buffer.Block(blk), opsIndirect, ip.ctx()); err == nil {
			if err = h.GetCreate(c); err != nil {
				c.Put()
			}
		}
	}
	if err != nil {
		if e := fs.freeBlocks(h, blk, 1, false); e != nil {
			fs.log.Error("block not freed", "block", blk, "err", e)
		}
		return nil, nil, err
	}
	clear(c.Data())
	h.Dirty(c)
	ip.addBlocks(1)
	p.Set(uint32(blk))
	if b != nil {
		h.Dirty(b)
	}
	return c, endian.Views[endian.LE32](c.Data(), fs.blockSize/4), nil
}

// indSet stores the numbers of up to n blocks.
func (ip *Inode) indSet(ptrs []endian.LE32, lblk uint64, pblk, n uint32) (uint32, error) {
	n = min(n, uint32(len(ptrs)))
	for i := range n {
		if ptrs[i].Get() != 0 {
			return i, ip.errMapped(ondisk.Lblk(lblk + uint64(i)))
		}
		ptrs[i].Set(pblk + i)
	}
	return n, nil
}

// indRemover is a removal under way: from the end, so that it can stop anywhere.
type indRemover struct {
	ip     *Inode
	h      *jbd2.Handle
	lo, hi uint64 // to remove; hi moves down
	stop   bool   // credits ran out
}

// indRemove is removeRuns for a file without extents.
func (ip *Inode) indRemove(h *jbd2.Handle, lo, hi uint64) (uint64, error) {
	defer ip.fm.forgetRuns()
	fs := ip.fs
	root := ip.indRoot()
	r := indRemover{ip: ip, h: h, lo: lo, hi: min(hi, fs.indMax())}
	for levels := 3; levels >= 0 && r.hi > lo; levels-- {
		base := uint64(0)
		for l := 0; l < levels; l++ {
			if l == 0 {
				base = indDirect
			} else {
				base += 1 << (fs.indBits() * uint(l))
			}
		}
		if r.hi <= base {
			continue
		}
		var err error
		if levels == 0 {
			err = r.data(root[:indDirect], 0)
		} else {
			_, err = r.child(&root[indDirect+levels-1], levels, base)
		}
		if err != nil || r.stop {
			return r.hi, err
		}
		r.hi = max(base, lo)
	}
	return lo, nil
}

// child removes what is below p, a number that levels of indirect blocks follow
// and whose first block is base; if nothing is left there it frees the indirect
// block and clears p. It says whether it changed p.
func (r *indRemover) child(p *endian.LE32, levels int, base uint64) (bool, error) {
	blk := p.Get()
	if blk == 0 {
		return false, nil
	}
	b, ptrs, err := r.ip.indRead(blk)
	if err != nil {
		return false, err
	}
	defer b.Put()
	if !r.ip.fs.have(r.h, creditsIndRemove) {
		r.stop = true
		return false, nil
	}
	if err := r.h.GetWrite(b); err != nil {
		return false, err
	}
	if levels == 1 {
		err = r.data(ptrs, base)
	} else {
		err = r.index(ptrs, levels-1, base)
	}
	r.h.Dirty(b)
	if err != nil || r.stop {
		return false, err
	}
	for i := range ptrs {
		if ptrs[i].Get() != 0 {
			return false, nil
		}
	}
	if err := r.ip.freeMeta(r.h, ondisk.Fsblk(blk)); err != nil {
		return false, err
	}
	p.Set(0)
	return true, nil
}

// creditsIndRemove is for one step of a removal: a run of blocks freed, and
// three indirect blocks changed and freed.
const creditsIndRemove = creditsOrphan + 4*creditsGroup + creditsSuper + creditsInode + 3*(1+creditsGroup)

// index removes from an array of numbers of indirect blocks with levels below.
func (r *indRemover) index(ptrs []endian.LE32, levels int, base uint64) error {
	shift := r.ip.fs.indBits() * uint(levels)
	for i := len(ptrs) - 1; i >= 0; i-- {
		at := base + uint64(i)<<shift
		if r.hi <= at || ptrs[i].Get() == 0 {
			continue
		}
		if at+1<<shift <= r.lo {
			return nil
		}
		if _, err := r.child(&ptrs[i], levels, at); err != nil || r.stop {
			return err
		}
		r.hi = max(min(r.hi, at), r.lo)
	}
	return nil
}

// data removes from an array of numbers of data blocks, base first.
func (r *indRemover) data(ptrs []endian.LE32, base uint64) error {
	lo := max(r.lo, base)
	hi := min(r.hi, base+uint64(len(ptrs)))
	most := int(r.ip.freeMost(maxFreeRun))
	for hi > lo {
		i := int(hi - 1 - base)
		last := ptrs[i].Get()
		if last == 0 {
			hi--
			continue
		}
		n := 1
		for i-n >= int(lo-base) && uint32(n) < last && ptrs[i-n].Get() == last-uint32(n) && n < most {
			n++
		}
		if !r.ip.fs.have(r.h, creditsIndRemove) {
			r.stop = true
			r.hi = hi
			return nil
		}
		first := last - uint32(n-1)
		if err := r.ip.indCheck(first, uint32(n)); err != nil {
			return err
		}
		hi -= uint64(n)
		clear(ptrs[i-n+1 : i+1])
		if err := r.ip.freeRun(r.h, run{lblk: ondisk.Lblk(hi), pblk: ondisk.Fsblk(first), n: uint32(n), state: runWritten}); err != nil {
			return err
		}
	}
	return nil
}

// maxFreeRun bounds how many blocks a removal frees at a step, so that they lie
// in few groups.
const maxFreeRun = 1 << 13
