package ext2fs

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// group is a block group in memory. Its counts are what counts: seal brings
// them to the descriptor once a transaction.
type group struct {
	no          ondisk.Group // immutable
	err         error        // immutable: what is wrong with the descriptor
	blockBitmap ondisk.Fsblk // immutable
	inodeBitmap ondisk.Fsblk // immutable
	inodeTable  ondisk.Fsblk // immutable

	mu           sync.Mutex
	flags        uint16     // guarded by mu, as all below: bg_flags
	bbStale      bool       // the block bitmap's checksum is not up to date
	ibStale      bool       // nor the inode bitmap's
	bbBad, ibBad bool       // a bitmap is corrupt: the group is left alone
	ibSeen       bool       // the inode bitmap was verified
	used         bool       // recently used: the clock passes it by once
	tid          uint32     // last transaction that changed it, plus one
	freeClusters uint32     // clear bits of the block bitmap
	freeInodes   uint32     //
	usedDirs     uint32     //
	itableUnused uint32     // inodes at the end that were never used
	bbCsum       uint32     //
	ibCsum       uint32     //
	inodeHint    uint32     // no inode below is free
	bits         *groupBits // nil if not loaded
}

// groupTable has the groups, a block of descriptors at a time, loaded when one
// of them is first asked for.
type groupTable struct {
	chunks []atomic.Pointer[[]group]
	mu     sync.Mutex // guards loading a chunk, and what follows
	clock  []*group   // groups whose bits are loaded
	hand   int
	limit  int

	zones  []atomic.Pointer[[]zone] // system zones by flex group
	strays atomic.Pointer[[]zone]   // those outside the blocks of their flex group
}

// zone is a run of blocks that no file may have.
type zone struct{ start, end ondisk.Fsblk } // end is the block after it

// initGroups prepares the group table; the counts of the whole file system are
// the superblock's if that can be trusted, else the sum over the descriptors.
func (fs *FS) initGroups() error {
	t := &fs.group
	t.chunks = make([]atomic.Pointer[[]group], fs.descBlocks)
	t.zones = make([]atomic.Pointer[[]zone], uint64(fs.groups-1)>>fs.flexBits+1)
	t.limit = max(64, (16<<20)/fs.blockSize)

	s := fs.sb
	total := int64(fs.blocks-fs.firstData) >> fs.clusterBits
	free, freeIno := int64(s.FreeBlocksCount()), int64(s.FreeInodes.Get())
	if fs.recovered || s.State.Get()&(ondisk.StateValid|ondisk.StateError) != ondisk.StateValid ||
		free < 0 || free > total || freeIno > int64(fs.inodes) {
		var err error
		if free, freeIno, err = fs.sumGroups(); err != nil {
			return err
		}
	}
	fs.free.Store(free)
	fs.freeIno.Store(freeIno)
	fs.rblocks.Store(int64(s.RBlocksCount()) >> fs.clusterBits)
	fs.pool = min(total/50, 4096)
	if fs.opts.Populating { // what does not fit is an error; nobody waits for room to finish something
		fs.rblocks.Store(0)
		fs.pool = 0
	}
	return nil
}

// sumGroups adds up the free clusters and inodes of all groups.
func (fs *FS) sumGroups() (clusters, inodes int64, err error) {
	for i := range fs.descBlocks {
		c, err := fs.chunk(i)
		if err != nil {
			return 0, 0, err
		}
		for k := range c {
			if g := &c[k]; g.err == nil {
				clusters += int64(g.freeClusters)
				inodes += int64(g.freeInodes)
			}
		}
	}
	return clusters, inodes, nil
}

// groupOf returns group n. It fails with a CorruptError if its descriptor is
// not one.
func (fs *FS) groupOf(n ondisk.Group) (*group, error) {
	if n >= fs.groups {
		return nil, ondisk.Corrupt("group number", 0, "%d of %d", n, fs.groups)
	}
	c, err := fs.chunk(uint32(n) / fs.descPerBlock)
	if err != nil {
		return nil, err
	}
	g := &c[uint32(n)%fs.descPerBlock]
	return g, g.err
}

func (fs *FS) chunk(i uint32) ([]group, error) {
	if p := fs.group.chunks[i].Load(); p != nil {
		return *p, nil
	}
	return fs.loadChunk(i)
}

// descBlock returns the block of the i-th block of descriptors.
func (fs *FS) descBlock(i uint32) ondisk.Fsblk {
	if !fs.hasMetaBG || i < fs.firstMetaBG {
		return fs.descBase + ondisk.Fsblk(i)
	}
	g := ondisk.Group(i * fs.descPerBlock)
	b := fs.groupFirst(g)
	if fs.groupHasSuper(g) {
		b++
	}
	if fs.blockSize == 1024 && i == 0 && fs.firstData == 0 {
		b++ // the boot block
	}
	return b
}

// readDesc returns the pinned block that has g's descriptor, and it.
func (fs *FS) readDesc(g ondisk.Group) (*buffer.Buf, ondisk.Desc, error) {
	blk := fs.descBlock(uint32(g) / fs.descPerBlock)
	b, err := fs.cache.Read(buffer.Block(blk), opsDesc, buffer.Ctx{})
	if err != nil {
		return nil, nil, fmt.Errorf("descriptor of group %d: %w", g, err)
	}
	off := int(uint32(g)%fs.descPerBlock) * fs.descSize
	end := off + fs.descSize
	return b, ondisk.Desc(b.Data()[off:end:end]), nil
}

func (fs *FS) loadChunk(i uint32) ([]group, error) {
	t := &fs.group
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.chunks[i].Load(); p != nil {
		return *p, nil
	}
	first := ondisk.Group(i * fs.descPerBlock)
	b, _, err := fs.readDesc(first)
	if err != nil {
		return nil, err
	}
	defer b.Put()
	n := min(uint32(fs.groups-first), fs.descPerBlock)
	c := make([]group, n)
	var dirs int64
	var strays []zone
	for k := range c {
		off := k * fs.descSize
		end := off + fs.descSize
		g := &c[k]
		g.load(fs, first+ondisk.Group(k), ondisk.Desc(b.Data()[off:end:end]))
		if g.err != nil {
			g.err = ondisk.At(g.err, 0, ondisk.Fsblk(b.Block()))
			continue
		}
		dirs += int64(g.usedDirs)
		for _, z := range [...]zone{{g.blockBitmap, g.blockBitmap + 1}, {g.inodeBitmap, g.inodeBitmap + 1},
			{g.inodeTable, g.inodeTable + ondisk.Fsblk(fs.itableBlocks)}} {
			if fs.groupOfBlock(z.start)>>fs.flexBits != g.no>>fs.flexBits ||
				fs.groupOfBlock(z.end-1)>>fs.flexBits != g.no>>fs.flexBits {
				strays = append(strays, z)
			}
		}
	}
	if len(strays) > 0 {
		if p := t.strays.Load(); p != nil {
			strays = append(strays, *p...)
		}
		strays = mergeZones(strays)
		t.strays.Store(&strays)
	}
	fs.dirs.Add(dirs)
	t.chunks[i].Store(&c)
	return c, nil
}

// load takes what descriptor d says into g, and checks it.
func (g *group) load(fs *FS, no ondisk.Group, d ondisk.Desc) {
	g.no = no
	if fs.hasCsum || fs.hasGDTCsum {
		c, at := ondisk.DescCsum(fs.sb, fs.csumSeed, no, d), unsafe.Offsetof(ondisk.GroupDesc{}.Checksum)
		if got := d.Lo().Checksum.Get(); got != c {
			g.err = ondisk.BadCsum(fmt.Sprintf("descriptor of group %d", no), int(at), uint32(got), uint32(c))
			return
		}
	}
	g.blockBitmap, g.inodeBitmap, g.inodeTable = d.BlockBitmap(), d.InodeBitmap(), d.InodeTable()
	g.flags = d.Lo().Flags.Get()
	if !fs.hasCsum && !fs.hasGDTCsum {
		g.flags &^= ondisk.BGBlockUninit | ondisk.BGInodeUninit
	}
	g.freeClusters, g.freeInodes = d.FreeBlocks(), d.FreeInodes()
	g.usedDirs, g.itableUnused = d.UsedDirs(), d.ItableUnused()
	if !fs.hasCsum && !fs.hasGDTCsum {
		g.itableUnused = 0
	}
	g.bbCsum, g.ibCsum = d.BlockBitmapCsum(), d.InodeBitmapCsum()
	bad := func(format string, args ...any) {
		g.err = ondisk.Corrupt(fmt.Sprintf("descriptor of group %d", no), 0, format, args...)
	}
	lo, hi := fs.firstData, fs.blocks
	if !fs.hasFlexBG {
		lo = fs.groupFirst(no)
		hi = lo + ondisk.Fsblk(fs.groupBlocks(no))
	}
	in := func(b ondisk.Fsblk, n uint32) bool {
		return b >= lo && b < hi && uint64(hi-b) >= uint64(n) && b > fs.sbBlk && !fs.inDescriptors(b, n)
	}
	switch {
	case !in(g.blockBitmap, 1):
		bad("block bitmap at %d", g.blockBitmap)
	case !in(g.inodeBitmap, 1):
		bad("inode bitmap at %d", g.inodeBitmap)
	case !in(g.inodeTable, fs.itableBlocks):
		bad("inode table at %d", g.inodeTable)
	case g.freeClusters > fs.groupClusters(no):
		bad("%d free clusters", g.freeClusters)
	case g.freeInodes > fs.inodesPerGroup:
		bad("%d free inodes", g.freeInodes)
	case g.itableUnused > fs.inodesPerGroup:
		bad("%d unused inodes", g.itableUnused)
	case g.usedDirs > fs.inodesPerGroup:
		bad("%d directories", g.usedDirs)
	}
}

// inDescriptors tells whether a run touches the primary descriptors.
func (fs *FS) inDescriptors(b ondisk.Fsblk, n uint32) bool {
	count := fs.descBlocks
	if fs.hasMetaBG {
		count = fs.firstMetaBG
	}
	return b < fs.sbBlk+1+ondisk.Fsblk(count) && b+ondisk.Fsblk(n) > fs.sbBlk
}

// touch makes g's descriptor part of h's transaction. mu is held.
func (g *group) touch(fs *FS, h *jbd2.Handle) error {
	tid := uint32(h.Tid()) + 1
	if g.tid == tid {
		return nil
	}
	b, _, err := fs.readDesc(g.no)
	if err != nil {
		return err
	}
	defer b.Put()
	if err := h.GetWrite(b); err != nil {
		return err
	}
	h.Dirty(b)
	g.tid = tid
	fs.dirtyMu.Lock()
	fs.dirty = append(fs.dirty, g)
	fs.dirtyMu.Unlock()
	return nil
}

// seal brings g's counts and checksums to its descriptor, at commit.
func (g *group) seal(fs *FS, h *jbd2.Handle) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if fs.hasCsum && g.bbStale {
		c, err := fs.bitmapCsum(g.blockBitmap, opsBlockBitmap, fs.clustersPerGroup)
		if err != nil {
			return err
		}
		g.bbCsum = c
	}
	if fs.hasCsum && g.ibStale {
		c, err := fs.bitmapCsum(g.inodeBitmap, opsInodeBitmap, fs.inodesPerGroup)
		if err != nil {
			return err
		}
		g.ibCsum = c
	}
	g.bbStale, g.ibStale = false, false
	b, d, err := fs.readDesc(g.no)
	if err != nil {
		return err
	}
	defer b.Put()
	if err := h.GetWrite(b); err != nil {
		return err
	}
	d.SetFreeBlocks(g.freeClusters)
	d.SetFreeInodes(g.freeInodes)
	d.SetUsedDirs(g.usedDirs)
	if fs.hasCsum || fs.hasGDTCsum {
		d.SetItableUnused(g.itableUnused)
		d.Lo().Flags.Set(g.flags)
	}
	if fs.hasCsum {
		d.SetBlockBitmapCsum(g.bbCsum)
		d.SetInodeBitmapCsum(g.ibCsum)
	}
	if fs.hasCsum || fs.hasGDTCsum {
		d.Lo().Checksum.Set(ondisk.DescCsum(fs.sb, fs.csumSeed, g.no, d))
	}
	h.Dirty(b)
	return nil
}

// groupFirst returns the first block of group g.
func (fs *FS) groupFirst(g ondisk.Group) ondisk.Fsblk {
	return fs.firstData + ondisk.Fsblk(g)*ondisk.Fsblk(fs.blocksPerGroup)
}

// groupOfBlock returns the group that block b, which is one, lies in.
func (fs *FS) groupOfBlock(b ondisk.Fsblk) ondisk.Group {
	return ondisk.Group((b - fs.firstData) / ondisk.Fsblk(fs.blocksPerGroup))
}

// groupBlocks returns how many blocks group g has.
func (fs *FS) groupBlocks(g ondisk.Group) uint32 {
	if g == fs.groups-1 {
		return uint32(fs.blocks - fs.groupFirst(g))
	}
	return fs.blocksPerGroup
}

// groupClusters returns how many clusters group g has.
func (fs *FS) groupClusters(g ondisk.Group) uint32 {
	return (fs.groupBlocks(g) + fs.clusterRatio - 1) >> fs.clusterBits
}

// groupHasSuper tells whether group g begins with a copy of the superblock.
func (fs *FS) groupHasSuper(g ondisk.Group) bool {
	switch s := fs.sb; {
	case g == 0:
		return true
	case s.HasCompat(ondisk.CompatSparseSuper2):
		return uint32(g) == s.BackupBGs[0].Get() || uint32(g) == s.BackupBGs[1].Get()
	case g == 1 || !s.HasROCompat(ondisk.ROCompatSparseSuper):
		return true
	case g&1 == 0:
		return false
	}
	return powerOf(g, 3) || powerOf(g, 5) || powerOf(g, 7)
}

func powerOf(n ondisk.Group, base ondisk.Group) bool {
	for n%base == 0 {
		n /= base
	}
	return n == 1
}

// groupBase returns how many blocks at the start of g hold copies of the
// superblock and of descriptors, those reserved for growth among them.
func (fs *FS) groupBase(g ondisk.Group) uint32 {
	var n uint32
	if fs.groupHasSuper(g) {
		n = 1
	}
	if !fs.hasMetaBG || uint32(g)/fs.descPerBlock < fs.firstMetaBG {
		if n == 0 {
			return 0
		}
		if fs.hasMetaBG {
			n += fs.firstMetaBG
		} else {
			n += fs.descBlocks
		}
		return n + uint32(fs.sb.ReservedGDTBlocks.Get())
	}
	switch uint32(g) % fs.descPerBlock {
	case 0, 1, fs.descPerBlock - 1:
		n++
	}
	return n
}

// validBlock tells whether the n blocks from b on may belong to a file: they
// are blocks of the file system, and not its own metadata nor its journal.
func (fs *FS) validBlock(b ondisk.Fsblk, n uint32) bool {
	end := b + ondisk.Fsblk(n)
	if n == 0 || b <= fs.firstData && b <= fs.sbBlk || b < fs.firstData || end > fs.blocks || end < b {
		return false
	}
	for f := fs.groupOfBlock(b) >> fs.flexBits; ; f++ {
		if overlaps(fs.zonesOf(f), b, end) {
			return false
		}
		if f >= fs.groupOfBlock(end-1)>>fs.flexBits {
			break
		}
	}
	if p := fs.group.strays.Load(); p != nil && overlaps(*p, b, end) {
		return false
	}
	return !fs.inJournal(b, end)
}

func overlaps(zs []zone, b, end ondisk.Fsblk) bool {
	for i := range zs {
		if zs[i].start < end && b < zs[i].end {
			return true
		}
	}
	return false
}

// zonesOf returns the metadata of flex group f. Groups whose descriptors are
// corrupt have none.
func (fs *FS) zonesOf(f ondisk.Group) []zone {
	slot := &fs.group.zones[f]
	if p := slot.Load(); p != nil {
		return *p
	}
	var zs []zone
	failed := false
	first := uint64(f) << fs.flexBits
	last := min(first+1<<fs.flexBits, uint64(fs.groups))
	for n := first; n < last; n++ {
		no := ondisk.Group(n)
		if base := fs.groupBase(no); base > 0 {
			start := fs.groupFirst(no)
			if no == 0 {
				start = fs.sbBlk
			}
			zs = append(zs, zone{start, start + ondisk.Fsblk(base)})
		}
		g, err := fs.groupOf(no)
		if err != nil {
			failed = failed || g == nil
			continue
		}
		zs = append(zs, zone{g.blockBitmap, g.blockBitmap + 1}, zone{g.inodeBitmap, g.inodeBitmap + 1},
			zone{g.inodeTable, g.inodeTable + ondisk.Fsblk(fs.itableBlocks)})
	}
	zs = mergeZones(zs)
	if !failed {
		slot.Store(&zs)
	}
	return zs
}

// mergeZones sorts zs and joins what touches.
func mergeZones(zs []zone) []zone {
	slices.SortFunc(zs, func(a, b zone) int {
		switch {
		case a.start < b.start:
			return -1
		case a.start > b.start:
			return 1
		}
		return 0
	})
	out := zs[:0]
	for _, z := range zs {
		if n := len(out); n > 0 && z.start <= out[n-1].end {
			out[n-1].end = max(out[n-1].end, z.end)
			continue
		}
		out = append(out, z)
	}
	return slices.Clip(out)
}
