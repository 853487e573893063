package ext2fs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// SetBmap makes pblk the block of inode ino at lblk, or none if it is 0.
// Nothing else changes: neither bitmaps nor, but for blocks of the mapping that
// come or go, i_blocks.
func (r *Raw) SetBmap(ino ondisk.Ino, lblk ondisk.Lblk, pblk ondisk.Fsblk) error {
	return r.setBmap(ino, RawRun{Lblk: lblk, Pblk: pblk, Len: 1})
}

// SetBmapUnwritten is SetBmap for a block that reads as zeros.
func (r *Raw) SetBmapUnwritten(ino ondisk.Ino, lblk ondisk.Lblk, pblk ondisk.Fsblk) error {
	return r.setBmap(ino, RawRun{Lblk: lblk, Pblk: pblk, Len: 1, Unwritten: true})
}

// AllocBmap returns the block of inode ino at lblk. If there is none it takes a
// free one, zeroed, and counts it.
func (r *Raw) AllocBmap(ino ondisk.Ino, lblk ondisk.Lblk) (RawRun, error) {
	raw, err := r.Inode(ino)
	if err != nil {
		return RawRun{}, err
	}
	run, err := r.Bmap(ino, raw, lblk)
	if err != nil || run.Pblk != 0 {
		return run, err
	}
	if b, err := r.inCluster(ino, raw, lblk); err != nil || b != 0 {
		if err == nil {
			err = r.WriteBlock(b, make([]byte, r.geo.blockSize))
		}
		if err == nil {
			err = r.SetBmap(ino, lblk, b)
		}
		return RawRun{Lblk: lblk, Pblk: b, Len: 1}, err
	}
	goal := r.geo.groupFirst(r.GroupOfInode(ino))
	if lblk > 0 {
		if before, err := r.Bmap(ino, raw, lblk-1); err == nil && before.Pblk != 0 {
			goal = before.Pblk + 1
		}
	}
	b, err := r.AllocBlock(goal)
	if err != nil {
		return run, err
	}
	b += ondisk.Fsblk(uint32(lblk) % r.geo.clusterRatio)
	if err := r.WriteBlock(b, make([]byte, r.geo.blockSize)); err != nil {
		return run, err
	}
	if err := r.SetBmap(ino, lblk, b); err != nil {
		return run, errors.Join(err, r.FreeBlock(b), r.WriteSuper())
	}
	if raw, err = r.Inode(ino); err != nil {
		return run, err
	}
	r.addBlocks(raw, 1)
	return RawRun{Lblk: lblk, Pblk: b, Len: 1}, errors.Join(r.WriteInode(ino, raw, true), r.WriteSuper())
}

// inCluster returns the block for lblk in the cluster that other blocks of the
// same cluster of the file are in, 0 if none has one.
func (r *Raw) inCluster(ino ondisk.Ino, raw ondisk.RawInode, lblk ondisk.Lblk) (ondisk.Fsblk, error) {
	ratio := ondisk.Lblk(r.geo.clusterRatio)
	for l := lblk - lblk%ratio; l-(lblk-lblk%ratio) < ratio; l++ {
		if l == lblk {
			continue
		}
		run, err := r.Bmap(ino, raw, l)
		if err != nil || run.Pblk == 0 {
			if err != nil {
				return 0, err
			}
			continue
		}
		if first := run.Pblk - r.geo.firstData; first%ondisk.Fsblk(ratio) != ondisk.Fsblk(l%ratio) {
			return 0, ondisk.At(ondisk.Corrupt("block mapping", 0, "block %d at %d: they differ in their place in the cluster", l, run.Pblk), ino, 0)
		}
		return run.Pblk - ondisk.Fsblk(l%ratio) + ondisk.Fsblk(lblk%ratio), nil
	}
	return 0, nil
}

func (r *Raw) setBmap(ino ondisk.Ino, run RawRun) error {
	if err := r.writable(); err != nil {
		return err
	}
	raw, err := r.Inode(ino)
	if err != nil {
		return err
	}
	if !r.HasBlocks(raw) {
		return fmt.Errorf("inode %d has no blocks: %w", ino, syscall.EINVAL)
	}
	if run.Pblk >= r.geo.blocks {
		return r.inRange(run.Pblk, 1)
	}
	if raw.Base().Flags.Get()&ondisk.FlagExtents == 0 {
		return r.setIndirect(ino, raw, run)
	}
	var list []RawRun
	var nodes []ondisk.Fsblk
	err = r.WalkBlocks(ino, raw, func(x RawRun) bool {
		if x.Level > 0 {
			nodes = append(nodes, x.Pblk)
		} else {
			list = append(list, x)
		}
		return true
	})
	if err != nil {
		return err
	}
	list = cutRun(list, run.Lblk)
	if run.Pblk != 0 {
		list = append(list, run)
	}
	slices.SortFunc(list, func(a, b RawRun) int { return cmp.Compare(a.Lblk, b.Lblk) })
	return r.writeTree(ino, raw, joinRuns(list), nodes)
}

// cutRun takes block lblk out of the runs.
func cutRun(list []RawRun, lblk ondisk.Lblk) (out []RawRun) {
	for _, x := range list {
		if lblk < x.Lblk || uint64(lblk) >= uint64(x.Lblk)+uint64(x.Len) {
			out = append(out, x)
			continue
		}
		k := uint32(lblk - x.Lblk)
		if k > 0 {
			out = append(out, RawRun{Lblk: x.Lblk, Pblk: x.Pblk, Len: k, Unwritten: x.Unwritten})
		}
		if k+1 < x.Len {
			out = append(out, RawRun{Lblk: lblk + 1, Pblk: x.Pblk + ondisk.Fsblk(k) + 1, Len: x.Len - k - 1, Unwritten: x.Unwritten})
		}
	}
	return out
}

// joinRuns joins runs that follow each other, as far as one extent can be long.
func joinRuns(list []RawRun) (out []RawRun) {
	for _, x := range list {
		if n := len(out); n > 0 {
			p := &out[n-1]
			most := uint32(ondisk.MaxExtentLen)
			if x.Unwritten {
				most = ondisk.MaxUnwrittenLen
			}
			if p.Unwritten == x.Unwritten && p.Lblk+ondisk.Lblk(p.Len) == x.Lblk && p.Pblk+ondisk.Fsblk(p.Len) == x.Pblk && p.Len+x.Len <= most {
				p.Len += x.Len
				continue
			}
		}
		out = append(out, x)
	}
	return out
}

// writeTree writes the tree of inode ino anew, for list, in the blocks nodes as
// far as they go. It allocates what it needs beyond before it writes anything.
func (r *Raw) writeTree(ino ondisk.Ino, raw ondisk.RawInode, list []RawRun, nodes []ondisk.Fsblk) error {
	per := ondisk.ExtentMax(r.geo.blockSize)
	if r.geo.hasCsum { // room for the tail
		per = (r.geo.blockSize - ondisk.ExtentEntry - 4) / ondisk.ExtentEntry
	}
	need := 0
	for n := len(list); n > ondisk.RootExtents; {
		n = (n + per - 1) / per
		need += n
	}
	had := len(nodes)
	for len(nodes) < need {
		b, err := r.AllocBlock(r.geo.groupFirst(r.GroupOfInode(ino)))
		if err != nil {
			for _, b := range nodes[had:] {
				err = errors.Join(err, r.FreeBlock(b))
			}
			return errors.Join(err, r.WriteSuper())
		}
		nodes = append(nodes, b)
	}
	free := nodes[need:]
	nodes = nodes[:need]

	seed := r.InodeSeed(ino, raw)
	depth := 0
	for ; len(list) > ondisk.RootExtents; depth++ {
		var up []RawRun
		for part := range slices.Chunk(list, per) {
			node := make([]byte, r.geo.blockSize)
			ondisk.InitExtentNode(node, depth)
			fillNode(node, part, depth)
			if r.geo.hasCsum {
				ondisk.SealExtentNode(node, seed)
			}
			if err := r.WriteBlock(nodes[0], node); err != nil {
				return err
			}
			up = append(up, RawRun{Lblk: part[0].Lblk, Pblk: nodes[0]})
			nodes = nodes[1:]
		}
		list = up
	}
	root := raw.Base().Block[:]
	clear(root)
	ondisk.InitExtentNode(root, depth)
	fillNode(root, list, depth)
	r.addBlocks(raw, int64(need-had))
	if err := r.WriteInode(ino, raw, true); err != nil {
		return err
	}
	for _, b := range free {
		if err := r.FreeBlock(b); err != nil {
			return err
		}
	}
	return r.WriteSuper()
}

func fillNode(node []byte, list []RawRun, depth int) {
	endian.View[ondisk.ExtentHeader](node).Entries.Set(uint16(len(list)))
	for i, x := range list {
		b := node[ondisk.ExtentEntry*(i+1):]
		if depth == 0 {
			endian.View[ondisk.Extent](b).Set(x.Lblk, x.Pblk, x.Len, x.Unwritten)
		} else {
			endian.View[ondisk.ExtentIdx](b).Set(x.Lblk, x.Pblk)
		}
	}
}

// setIndirect is setBmap for an inode that maps by block numbers. Indirect
// blocks that are missing are made; those that become empty stay.
func (r *Raw) setIndirect(ino ondisk.Ino, raw ondisk.RawInode, run RawRun) error {
	slot, levels, in, ok := r.geo.indSlot(uint64(run.Lblk))
	if !ok || run.Pblk > 1<<32-1 {
		return fmt.Errorf("block %d cannot be mapped by block numbers: %w", run.Lblk, syscall.EFBIG)
	}
	ptr := &endian.Views[endian.LE32](raw.Base().Block[:], indSlots)[slot]
	if levels == 0 {
		ptr.Set(uint32(run.Pblk))
		return r.WriteInode(ino, raw, true)
	}
	var node []byte
	var at ondisk.Fsblk // that node lies in; 0: ptr is in the inode
	for ; levels > 0; levels-- {
		b := ondisk.Fsblk(ptr.Get())
		if b == 0 {
			if run.Pblk == 0 {
				return nil
			}
			var err error
			if b, err = r.AllocBlock(r.geo.groupFirst(r.GroupOfInode(ino))); err != nil {
				return err
			}
			r.addBlocks(raw, 1)
			if err := r.WriteBlock(b, make([]byte, r.geo.blockSize)); err != nil {
				return err
			}
			ptr.Set(uint32(b))
			if at != 0 {
				err = r.WriteBlock(at, node)
			}
			if err = errors.Join(err, r.WriteInode(ino, raw, true), r.WriteSuper()); err != nil {
				return err
			}
		}
		d, err := r.Block(b)
		if err != nil {
			return err
		}
		node, at = slices.Clone(d), b
		shift := r.geo.indBits() * uint(levels-1)
		ptr = &endian.Views[endian.LE32](node, len(node)/4)[in>>shift]
		in &= 1<<shift - 1
	}
	ptr.Set(uint32(run.Pblk))
	return r.WriteBlock(at, node)
}
