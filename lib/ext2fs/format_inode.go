package ext2fs

import (
	"encoding/binary"
	"fmt"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// block returns the content to be of block b, zeros at first.
func (f *formatter) block(b uint64) []byte {
	p := f.pending[b]
	if p == nil {
		// Few are needed, but each by itself would be a page of the heap.
		if len(f.memory) == 0 {
			f.memory = blockdev.AlignedBuf(max(f.blockSize, 64<<10), 4096)
		}
		p = f.memory[:f.blockSize:f.blockSize]
		f.memory = f.memory[f.blockSize:]
		f.pending[b] = p
	}
	return p
}

// inode returns the bytes of an inode, in its block of the inode table.
func (f *formatter) inode(ino ondisk.Ino) ondisk.RawInode {
	n, i := uint32(ino-1)/f.ipg, uint64(uint32(ino-1)%f.ipg)
	off := i * uint64(f.inodeSize)
	b := f.block(f.inodeTable.get(n) + off/uint64(f.blockSize))
	off %= uint64(f.blockSize)
	return ondisk.RawInode(b[off : off+uint64(f.inodeSize) : off+uint64(f.inodeSize)])
}

// newInode makes an inode in use, with its times.
func (f *formatter) newInode(ino ondisk.Ino, mode uint16, links int) ondisk.RawInode {
	f.inodes[ino] = true
	r := f.inode(ino)
	if f.inodeSize > ondisk.GoodOldInodeSz {
		endian.View[ondisk.InodeExtra](r[ondisk.GoodOldInodeSz:]).ExtraIsize.Set(ondisk.InodeExtraSize)
	}
	r.Base().Mode.Set(mode)
	r.Base().LinksCount.Set(uint16(links))
	r.SetAtime(f.now)
	r.SetMtime(f.now)
	r.SetCtime(f.now)
	r.SetCrtime(f.now)
	return r
}

// setSize sets the size of a file. One of 4 GiB or more takes a feature.
func (f *formatter) setSize(r ondisk.RawInode, n int64) {
	r.SetSize(n)
	if n >= 1<<32 {
		f.sb.FeatureROCompat.Set(f.sb.FeatureROCompat.Get() | ondisk.ROCompatLargeFile)
	}
}

// freeIno returns the first inode that is neither reserved nor in use.
func (f *formatter) freeIno() ondisk.Ino {
	ino := ondisk.Ino(ondisk.GoodOldFirst)
	for f.inodes[ino] {
		ino++
	}
	return ino
}

// goal is where to look for blocks of an inode: in its flex group.
func (f *formatter) goal(ino ondisk.Ino) uint64 {
	n := uint32(ino-1) / f.ipg
	if f.flex != 0 {
		n &^= f.flex - 1
	}
	return f.groupFirst(n)
}

// fileBlocks takes n blocks, one after the other from goal on, as for a file
// that grows by blocks.
func (f *formatter) fileBlocks(goal, n uint64) (out []mapped, err error) {
	for i := range n {
		k := len(out) - 1
		b := uint64(0)
		if i%f.ratio != 0 {
			b = out[k].pblk + out[k].n // in the cluster of the block before
		} else if b, err = f.newBlock(goal); err != nil {
			return nil, err
		}
		goal = b + 1
		if k >= 0 && out[k].pblk+out[k].n == b && out[k].n < ondisk.MaxExtentLen {
			out[k].n++
		} else {
			out = append(out, mapped{i, b, 1})
		}
	}
	return out, nil
}

// mapped is a run of blocks of a file.
type mapped struct{ lblk, pblk, n uint64 }

// setMap makes ms the mapping of an inode, by extents or block pointers, and
// counts its blocks. extra are blocks of the file's that map others already.
func (f *formatter) setMap(ino ondisk.Ino, r ondisk.RawInode, ms []mapped, extra uint64) error {
	if f.sb.HasIncompat(ondisk.IncompatExtents) {
		return f.setExtents(ino, r, ms)
	}
	blocks := extra
	for _, m := range ms {
		for i := range m.n {
			if m.lblk+i >= 12 {
				return f.errorf("inode %d: block %d has no room in the inode: %w", ino, m.lblk+i, errFull)
			}
			binary.LittleEndian.PutUint32(r.Base().Block[4*(m.lblk+i):], uint32(m.pblk+i))
		}
		blocks += m.n
	}
	r.SetBlocks(blocks * uint64(f.blockSize/512))
	return nil
}

func (f *formatter) setExtents(ino ondisk.Ino, r ondisk.RawInode, ms []mapped) error {
	base := r.Base()
	base.Flags.Set(base.Flags.Get() | ondisk.FlagExtents)
	clusters, last := uint64(0), ^uint64(0)
	for _, m := range ms {
		// Two runs may share a cluster.
		first, end := m.pblk/f.ratio, (m.pblk+m.n-1)/f.ratio
		clusters += end - first + 1
		if first == last {
			clusters--
		}
		last = end
	}
	root := base.Block[:]
	if len(ms) <= ondisk.RootExtents {
		ondisk.InitExtentNode(root, 0)
		putExtents(root, ms)
		r.SetBlocks(clusters * f.ratio * uint64(f.blockSize/512))
		return nil
	}
	seed := ondisk.InodeSeed(f.seed, ino, 0)
	room := ondisk.ExtentMax(f.blockSize)
	if len(ms) > room*ondisk.RootExtents {
		return f.errorf("inode %d: %d extents: %w", ino, len(ms), errFull)
	}
	// What the root held before it became an index stays behind its entries, as
	// where a file has grown.
	ondisk.InitExtentNode(root, 0)
	putExtents(root, ms[:ondisk.RootExtents])
	ondisk.InitExtentNode(root, 1)
	idx := endian.Views[ondisk.ExtentIdx](root[ondisk.ExtentEntry:], ondisk.RootExtents)
	for k := 0; len(ms) > 0; k++ {
		n := min(len(ms), room)
		// Right before what it maps, so that both are read at once.
		b, err := f.newBlock(ms[0].pblk - 1)
		if err != nil {
			return f.errorf("inode %d: extent tree: %w", ino, err)
		}
		node := f.block(b)
		ondisk.InitExtentNode(node, 0)
		putExtents(node, ms[:n])
		if f.csum {
			ondisk.SealExtentNode(node, seed)
		}
		idx[k].Set(ondisk.Lblk(ms[0].lblk), ondisk.Fsblk(b))
		endian.View[ondisk.ExtentHeader](root).Entries.Set(uint16(k + 1))
		ms = ms[n:]
		clusters++
	}
	r.SetBlocks(clusters * f.ratio * uint64(f.blockSize/512))
	return nil
}

func putExtents(node []byte, ms []mapped) {
	h := endian.View[ondisk.ExtentHeader](node)
	for i, m := range ms {
		endian.Views[ondisk.Extent](node[ondisk.ExtentEntry:], i+1)[i].
			Set(ondisk.Lblk(m.lblk), ondisk.Fsblk(m.pblk), uint32(m.n), false)
	}
	h.Entries.Set(uint16(len(ms)))
}

// makeDir makes a directory of n blocks, with . and .. in the first.
func (f *formatter) makeDir(ino, parent ondisk.Ino, mode uint16, links int, n uint64) (ondisk.RawInode, error) {
	ms, err := f.fileBlocks(f.goal(ino), n)
	if err != nil {
		return nil, f.errorf("directory inode %d: %w", ino, err)
	}
	r := f.newInode(ino, ondisk.ModeDir|mode, links)
	r.SetSize(int64(n) * int64(f.blockSize))
	for _, m := range ms {
		for i := range m.n {
			ondisk.InitDirBlock(f.block(m.pblk+i), f.csum)
		}
	}
	b := f.block(ms[0].pblk)
	end := f.blockSize
	if f.csum {
		end -= ondisk.DirTailSize
	}
	ondisk.PutDirent(b, 0, ondisk.DirentMin, f.blockSize, []byte("."), ino, f.ftype(ondisk.FTDir))
	ondisk.PutDirent(b, ondisk.DirentMin, end-ondisk.DirentMin, f.blockSize, []byte(".."), parent, f.ftype(ondisk.FTDir))
	g := uint32(ino-1) / f.ipg
	f.dirs[g]++
	return r, f.setMap(ino, r, ms, 0)
}

// ftype returns the type that an entry has, nothing without the filetype feature.
func (f *formatter) ftype(t uint8) uint8 {
	if f.sb.HasIncompat(ondisk.IncompatFiletype) {
		return t
	}
	return 0
}

func (f *formatter) sealDir(ino ondisk.Ino, ms []mapped) {
	if !f.csum {
		return
	}
	for _, m := range ms {
		for i := range m.n {
			ondisk.SealDirBlock(f.block(m.pblk+i), ondisk.InodeSeed(f.seed, ino, 0))
		}
	}
}

// mapOf returns the runs of an inode of few extents or direct blocks.
func (f *formatter) mapOf(r ondisk.RawInode) (ms []mapped) {
	if r.Base().Flags.Get()&ondisk.FlagExtents != 0 {
		es, err := ondisk.ExtentLeaf(r.Base().Block[:])
		if err != nil {
			panic(err) // we made it
		}
		for i := range es {
			ms = append(ms, mapped{uint64(es[i].Block.Get()), uint64(es[i].Start()), uint64(es[i].Len())})
		}
		return ms
	}
	for i := range 12 {
		if b := binary.LittleEndian.Uint32(r.Base().Block[4*i:]); b != 0 {
			ms = append(ms, mapped{uint64(i), uint64(b), 1})
		}
	}
	return ms
}

func (f *formatter) makeRoot() error {
	mode := f.opts.RootMode
	if mode == 0 {
		mode = 0o755
	}
	r, err := f.makeDir(ondisk.RootIno, ondisk.RootIno, mode, 3, 1)
	if err != nil {
		return err
	}
	r.SetUID(f.opts.RootUID)
	r.SetGID(f.opts.RootGID)
	if f.opts.RootSELinux != "" {
		return f.labelRoot(r)
	}
	return nil
}

// labelRoot gives the root directory its SELinux label: in the inode, or in a
// block of attributes where it has no room.
func (f *formatter) labelRoot(r ondisk.RawInode) error {
	const security = 6 // index of "security."
	v := ondisk.XattrValue{Data: append([]byte(f.opts.RootSELinux), 0)}
	if f.inodeSize > ondisk.GoodOldInodeSz {
		ondisk.InitInodeXattrs(r)
		if a, _, ok := ondisk.InodeXattrs(r); ok {
			if off, found := a.Find(security, "selinux", false); a.Fits(off, found, "selinux", v, 0) {
				if err := a.Set(off, found, security, "selinux", v, false); err != nil {
					return err
				}
				ondisk.SealInodeXattrs(r)
				return nil
			}
		}
	}
	b, err := f.newBlock(f.goal(ondisk.RootIno))
	if err != nil {
		return f.errorf("label of the root directory: %w", err)
	}
	p := f.block(b)
	ondisk.InitXattrBlock(p)
	a := ondisk.XattrBlock(p)
	off, found := a.Find(security, "selinux", true)
	if err := a.Set(off, found, security, "selinux", v, true); err != nil {
		return fmt.Errorf("label of the root directory: %w", err)
	}
	ondisk.RehashXattrBlock(p)
	if f.csum {
		ondisk.SealXattrBlock(p, ondisk.Fsblk(b), f.seed)
	}
	r.SetFileACL(ondisk.Fsblk(b))
	r.SetBlocks(r.Blocks(false) + f.ratio*uint64(f.blockSize/512))
	return nil
}

// makeLostFound makes lost+found, with room for names that e2fsck need not
// allocate: 16 KiB, but at least two blocks.
func (f *formatter) makeLostFound() error {
	n := min(max(16<<10/uint64(f.blockSize), 2), 12)
	if f.sb.HasIncompat(ondisk.IncompatInlineData) && n > 1 {
		n-- // mke2fs starts it inside the inode
	}
	const ino = ondisk.Ino(ondisk.GoodOldFirst)
	r, err := f.makeDir(ino, ondisk.RootIno, 0o700, 2, n)
	if err != nil {
		return err
	}
	if f.sb.HasIncompat(ondisk.IncompatInlineData) {
		ondisk.InitInodeXattrs(r) // and had its data there
		// Moved out, .. ends where it did, and the rest is free.
		b := f.block(f.mapOf(r)[0].pblk)
		free := len(ondisk.DirArea(b, f.csum)) - 2*ondisk.DirentMin
		ondisk.SetRecLen(b, ondisk.DirentMin, ondisk.DirentMin, f.blockSize)
		ondisk.SetRecLen(b, 2*ondisk.DirentMin, free, f.blockSize)
	}
	f.sealDir(ino, f.mapOf(r))
	root := f.inode(ondisk.RootIno)
	ms := f.mapOf(root)
	b := f.block(ms[0].pblk)
	area := ondisk.DirArea(b, f.csum)
	name := []byte("lost+found")
	off, ok, _, err := ondisk.FindRoom(area, name, f.blockSize)
	if err != nil || !ok {
		return f.errorf("lost+found: no room in the root directory: %w", err)
	}
	ondisk.InsertDirent(b, off, f.blockSize, name, ino, f.ftype(ondisk.FTDir))
	f.sealDir(ondisk.RootIno, ms)
	return nil
}

// makeReserved marks the reserved inodes used. Their bytes are zeros.
func (f *formatter) makeReserved() error {
	for ino := ondisk.BadIno; ino < ondisk.Ino(ondisk.GoodOldFirst); ino++ {
		if !f.inodes[ino] {
			f.inodes[ino] = true
			f.inode(ino)
		}
	}
	return nil
}

// makeResizeInode makes the inode that owns the reserved descriptor blocks: its
// double-indirect block names those of the first group, and each of them, as an
// indirect block, those of the backups.
func (f *formatter) makeResizeInode() error {
	if !f.sb.HasCompat(ondisk.CompatResizeInode) {
		return nil
	}
	perBlock := uint64(f.blockSize / 4)
	base := f.base(0)
	// Behind the metadata of a group without holes in it.
	dindBlock, err := f.newBlock(2 + f.descBlocks + f.reserved + uint64(f.itable))
	if err != nil {
		return f.errorf("resize inode: %w", err)
	}
	dind := f.block(dindBlock)
	r := f.newInode(ondisk.ResizeIno, ondisk.ModeReg|0o600, 1)
	f.setSize(r, int64(12+perBlock+perBlock*perBlock)*int64(f.blockSize))
	for k := range f.reserved {
		b := base.desc + f.descBlocks + k
		binary.LittleEndian.PutUint32(dind[4*((f.descBlocks+k)%perBlock):], uint32(b))
	}
	// Each with its copies, and the block that names them.
	copies := uint64(len(f.reservedCopies()))
	blocks := 1 + f.reserved*(1+copies)
	binary.LittleEndian.PutUint32(r.Base().Block[4*13:], uint32(dindBlock))
	r.SetBlocks(blocks * f.ratio * uint64(f.blockSize/512))
	return nil
}

// reservedCopies returns how far behind a reserved descriptor block its copies
// lie that it names as an indirect block.
func (f *formatter) reservedCopies() (out []uint64) {
	for n := range f.backupGroups {
		if len(out) == f.blockSize/4 {
			break
		}
		out = append(out, uint64(n)*f.bpg)
	}
	return out
}

// writeReserved writes the reserved descriptor blocks of the first group. They
// are many and alike, so they are made as they are written.
func (f *formatter) writeReserved() error {
	if !f.sb.HasCompat(ondisk.CompatResizeInode) || f.reserved == 0 {
		return nil
	}
	copies := f.reservedCopies()
	if len(copies) == 0 && f.zeroed {
		return nil
	}
	first := f.base(0).desc + f.descBlocks
	mem := f.batch()
	most := uint64(len(mem) / f.blockSize)
	for k := uint64(0); k < f.reserved; k += most {
		n := min(most, f.reserved-k)
		for i := range n {
			ind := mem[i*uint64(f.blockSize):]
			for at, c := range copies {
				binary.LittleEndian.PutUint32(ind[4*at:], uint32(first+k+i+c))
			}
		}
		if err := f.putRun(mem[:n*uint64(f.blockSize)], first+k); err != nil {
			return err
		}
	}
	return nil
}
