//go:build linux

package testfs

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// A Mutator makes hostile images out of a good one: it knows where the
// structures lie, changes some of one or a few, and sets their checksums anew,
// so that the parsers behind the checksums are reached.
type Mutator struct {
	base    *blockdev.Mem
	structs []structure
	kinds   []string // names of the kinds that the image has
	byKind  map[string][]int
	values  []uint64 // numbers that mean something in this image
}

// A structure is a run of bytes with a meaning.
type structure struct {
	kind   string
	off    int64
	n      int // bytes of it
	lo, hi int // where it is changed, within it
	// seal sets the checksum after a change; nil if there is none. It may
	// change other structures through dev.
	seal func(b []byte, dev *blockdev.Overlay)
}

// NewMutator reads the image. It has to be a good one.
func NewMutator(path string) (*Mutator, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(data) < 4096 {
		return nil, fmt.Errorf("%s: not an image", path)
	}
	m := &Mutator{base: blockdev.NewMem(int64(len(data))), byKind: map[string][]int{}}
	for off := 0; off < len(data); off += 1 << 16 {
		if _, err := m.base.WriteAt(data[off:min(off+1<<16, len(data))], int64(off)); err != nil {
			return nil, err
		}
	}
	ix := newIndexer(data)
	ix.walk()
	m.structs, m.values = ix.structs, ix.values
	for i, s := range m.structs {
		if m.byKind[s.kind] == nil {
			m.kinds = append(m.kinds, s.kind)
		}
		m.byKind[s.kind] = append(m.byKind[s.kind], i)
	}
	return m, nil
}

// Kinds returns the kinds of structures that the image has.
func (m *Mutator) Kinds() []string { return m.kinds }

// Mutate returns the image that seed stands for, and what was changed. The
// device is the caller's own.
func (m *Mutator) Mutate(seed uint64) (blockdev.Device, string) {
	rng := rand.New(rand.NewPCG(seed, 0x6d757461))
	dev := blockdev.NewOverlay(m.base, 0)
	var what []string
	for range 1 + rng.IntN(3)*rng.IntN(2) {
		// Each kind as often as any other, however few there are of it.
		list := m.byKind[m.kinds[rng.IntN(len(m.kinds))]]
		s := &m.structs[list[rng.IntN(len(list))]]
		b := make([]byte, s.n)
		if _, err := dev.ReadAt(b, s.off); err != nil {
			panic(err) // memory
		}
		for range 1 + rng.IntN(4) {
			what = append(what, m.change(rng, s, b))
		}
		sealed := s.seal != nil && rng.IntN(20) != 0
		if sealed {
			s.seal(b, dev)
		}
		if _, err := dev.WriteAt(b, s.off); err != nil {
			panic(err)
		}
	}
	desc := fmt.Sprintf("seed %d: %s", seed, strings.Join(what, "; "))
	if rng.IntN(100) == 0 {
		n := rng.Int64N(dev.Size())
		short, err := blockdev.Window(dev, 0, n)
		if err == nil {
			return short, fmt.Sprintf("%s; cut to %d bytes", desc, n)
		}
	}
	return dev, desc
}

// change makes one change to b, a copy of s.
func (m *Mutator) change(rng *rand.Rand, s *structure, b []byte) string {
	lo, hi := s.lo, s.hi
	at := lo + rng.IntN(hi-lo)
	where := func(n int) string { return fmt.Sprintf("%s at %d+%d, %d bytes", s.kind, s.off, at, n) }
	switch rng.IntN(10) {
	case 0:
		b[at] ^= 1 << rng.IntN(8)
		return where(1) + ": a bit"
	case 1:
		b[at] = []byte{0, 1, 0x7f, 0x80, 0xff}[rng.IntN(5)]
		return where(1) + fmt.Sprintf(" = %#x", b[at])
	case 2:
		n := min(1+rng.IntN(64), hi-at)
		for i := range n {
			b[at+i] = byte(rng.Uint32())
		}
		return where(n) + ": random"
	case 3:
		n := min(1+rng.IntN(64), hi-at)
		clear(b[at : at+n])
		return where(n) + ": zeros"
	case 4: // a piece of itself, moved
		n := min(1+rng.IntN(32), hi-at)
		from := lo + rng.IntN(hi-lo-n+1)
		copy(b[at:at+n], b[from:from+n])
		return where(n) + fmt.Sprintf(": copied from %d", from)
	case 5: // a piece of another of its kind
		list := m.byKind[s.kind]
		o := m.structs[list[rng.IntN(len(list))]]
		n := min(1+rng.IntN(hi-at), o.n-at)
		if n <= 0 {
			return where(0)
		}
		if _, err := m.base.ReadAt(b[at:at+n], o.off+int64(at)); err != nil {
			panic(err)
		}
		return where(n) + fmt.Sprintf(": copied from one at %d", o.off)
	}
	// A field, set to something that means something.
	size := []int{2, 4, 4, 8}[rng.IntN(4)]
	if hi-lo < size {
		return where(0)
	}
	at = at / size * size
	if at < lo {
		at += size
	}
	if at+size > hi {
		at = hi - size
	}
	v := m.value(rng)
	order := binary.ByteOrder(binary.LittleEndian)
	if strings.HasPrefix(s.kind, "journal") {
		order = binary.BigEndian
	}
	switch f := b[at : at+size]; size {
	case 2:
		if rng.IntN(3) == 0 {
			v = uint64(order.Uint16(f)) + uint64(rng.IntN(9)) - 4
		}
		order.PutUint16(f, uint16(v))
	case 4:
		if rng.IntN(3) == 0 {
			v = uint64(order.Uint32(f)) + uint64(rng.IntN(9)) - 4
		}
		order.PutUint32(f, uint32(v))
	default:
		order.PutUint64(f, v)
	}
	return where(size) + fmt.Sprintf(" = %#x", v)
}

func (m *Mutator) value(rng *rand.Rand) uint64 {
	if rng.IntN(2) == 0 {
		return m.values[rng.IntN(len(m.values))]
	}
	return []uint64{
		0, 1, 2, 3, 7, 8, 12, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0x8001, 0xf30a, 0xffff, 0x10000,
		0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 1 << 32, 1<<48 - 1, 1<<63 - 1, 1<<64 - 1,
	}[rng.IntN(25)]
}

// An indexer finds the structures of an image.
type indexer struct {
	data    []byte
	sb      *ondisk.Super
	bs      int
	seed    uint32
	csum    bool
	structs []structure
	values  []uint64
	done    map[ondisk.Fsblk]bool

	fcStruct int // index of the structure "fast commit", 0 if none yet
}

func newIndexer(data []byte) *indexer {
	sb := endian.View[ondisk.Super](data[ondisk.SuperOffset:])
	return &indexer{
		data: data, sb: sb, bs: 1024 << sb.LogBlockSize.Get(), seed: sb.CsumSeed(),
		csum: sb.HasROCompat(ondisk.ROCompatMetadataCsum), done: map[ondisk.Fsblk]bool{},
		values: []uint64{sb.BlocksCount(), sb.BlocksCount() - 1, uint64(sb.InodesCount.Get()), uint64(sb.InodesCount.Get()) + 1},
	}
}

// add notes a structure of n bytes at off, changed within [lo, hi).
func (ix *indexer) add(kind string, off int64, n, lo, hi int, seal func([]byte, *blockdev.Overlay)) {
	if off < 0 || off+int64(n) > int64(len(ix.data)) || lo >= hi {
		return
	}
	ix.structs = append(ix.structs, structure{kind, off, n, lo, hi, seal})
}

// block returns the bytes of block b, nil outside of the image.
func (ix *indexer) block(b ondisk.Fsblk) []byte {
	if b == 0 || (uint64(b)+1)*uint64(ix.bs) > uint64(len(ix.data)) {
		return nil
	}
	return ix.data[int64(b)*int64(ix.bs):][:ix.bs]
}

// addBlock notes a block, once.
func (ix *indexer) addBlock(kind string, b ondisk.Fsblk, seal func([]byte, *blockdev.Overlay)) bool {
	if ix.block(b) == nil || ix.done[b] {
		return false
	}
	ix.done[b] = true
	ix.values = append(ix.values, uint64(b))
	ix.add(kind, int64(b)*int64(ix.bs), ix.bs, 0, ix.bs, seal)
	return true
}

func (ix *indexer) walk() {
	sealSuper := func(b []byte, _ *blockdev.Overlay) {
		if s := endian.View[ondisk.Super](b); ix.csum {
			s.Checksum.Set(ondisk.SuperCsum(s))
		}
	}
	// The first bytes, where geometry and features are, and the rest of it.
	ix.add("superblock", ondisk.SuperOffset, ondisk.SuperSize, 0, 0x68, sealSuper)
	ix.add("superblock rest", ondisk.SuperOffset, ondisk.SuperSize, 0x68, ondisk.SuperSize-4, sealSuper)

	blocks := ix.sb.BlocksCount() - uint64(ix.sb.FirstDataBlock.Get())
	perGroup := uint64(ix.sb.BlocksPerGroup.Get())
	groups := int((blocks + perGroup - 1) / perGroup)
	for g := range groups {
		ix.group(ondisk.Group(g))
	}
}

// descAt returns where the descriptor of group g lies. Images for mutation have no
// meta_bg.
func (ix *indexer) descAt(g ondisk.Group) int64 {
	// After the superblock's block, which with bigalloc and blocks of 1 KiB is
	// not the first data block.
	first := int64(ondisk.SuperOffset/ix.bs) + 1
	return first*int64(ix.bs) + int64(g)*int64(ix.sb.DescSz())
}

func (ix *indexer) sealDesc(g ondisk.Group) func([]byte, *blockdev.Overlay) {
	return func(b []byte, _ *blockdev.Overlay) {
		ondisk.Desc(b).Lo().Checksum.Set(ondisk.DescCsum(ix.sb, ix.seed, g, ondisk.Desc(b)))
	}
}

func (ix *indexer) group(g ondisk.Group) {
	size := ix.sb.DescSz()
	at := ix.descAt(g)
	ix.add("descriptor", at, size, 0, size, ix.sealDesc(g))
	if at+int64(size) > int64(len(ix.data)) {
		return
	}
	d := ondisk.Desc(ix.data[at:][:size])
	// A bitmap's checksum is in the descriptor.
	bitmap := func(n int, set func(ondisk.Desc, uint32)) func([]byte, *blockdev.Overlay) {
		return func(b []byte, dev *blockdev.Overlay) {
			if !ix.csum || n > len(b) {
				return
			}
			desc := make([]byte, size)
			if _, err := dev.ReadAt(desc, at); err != nil {
				return
			}
			set(desc, ondisk.Crc32c(ix.seed, b[:n]))
			ix.sealDesc(g)(desc, dev)
			dev.WriteAt(desc, at)
		}
	}
	if !d.HasFlag(ondisk.BGBlockUninit) {
		ix.addBlock("block bitmap", d.BlockBitmap(), bitmap(int(ix.sb.ClustersPerGroup.Get()/8), ondisk.Desc.SetBlockBitmapCsum))
	}
	if d.HasFlag(ondisk.BGInodeUninit) {
		return
	}
	perGroup := int(ix.sb.InodesPerGroup.Get())
	ix.addBlock("inode bitmap", d.InodeBitmap(), bitmap(perGroup/8, ondisk.Desc.SetInodeBitmapCsum))
	isz := ix.sb.InodeSz()
	table := int64(d.InodeTable()) * int64(ix.bs)
	for i := range perGroup - int(d.ItableUnused()) {
		off := table + int64(i)*int64(isz)
		if off+int64(isz) > int64(len(ix.data)) {
			return
		}
		ix.inode(ondisk.Ino(int(g)*perGroup+i+1), off, ondisk.RawInode(ix.data[off:][:isz]))
	}
}

func (ix *indexer) inode(ino ondisk.Ino, off int64, raw ondisk.RawInode) {
	base := raw.Base()
	if base.Mode.Get() == 0 {
		return
	}
	ix.values = append(ix.values, uint64(ino))
	seal := func(b []byte, _ *blockdev.Overlay) {
		if ix.csum {
			ondisk.RawInode(b).Seal(ix.seed, ino)
		}
	}
	kind := map[uint16]string{ondisk.ModeDir: "folder", ondisk.ModeReg: "file", ondisk.ModeLnk: "link"}[base.Mode.Get()&ondisk.ModeFmt]
	if kind == "" {
		kind = "special"
	}
	if ino < ix.sb.FirstInode() && ino != ondisk.RootIno {
		kind = "reserved"
	}
	ix.add(kind+" inode", off, len(raw), 0, len(raw), seal)
	ix.add(kind+" inode map", off, len(raw), 40, 100, seal)
	if extra := ondisk.GoodOldInodeSz + raw.ExtraIsize(); extra < len(raw)-4 && binary.LittleEndian.Uint32(raw[extra:]) == ondisk.XattrMagic {
		ix.add("inode xattrs", off, len(raw), extra, len(raw), seal)
	}
	own := ondisk.InodeSeed(ix.seed, ino, base.Generation.Get())
	if acl := raw.FileACL(); acl != 0 {
		ix.addBlock("xattr block", acl, func(b []byte, _ *blockdev.Overlay) {
			if ix.csum {
				ondisk.SealXattrBlock(b, acl, ix.seed)
			}
		})
	}
	flags := base.Flags.Get()
	mode := base.Mode.Get() & ondisk.ModeFmt
	if flags&ondisk.FlagInlineData != 0 || mode != ondisk.ModeDir && mode != ondisk.ModeReg && mode != ondisk.ModeLnk {
		return
	}
	leaf := ix.content(ino, base, own)
	switch {
	case flags&ondisk.FlagExtents != 0:
		ix.extents(raw[40:100], own, 0, leaf)
	case mode != ondisk.ModeLnk || raw.Size(true) >= ondisk.MaxSymlinkFast:
		ix.indirect(raw[40:100], leaf)
	}
}

// content returns what is to be done with a data block of an inode.
func (ix *indexer) content(ino ondisk.Ino, base *ondisk.Inode, own uint32) func(l ondisk.Lblk, b ondisk.Fsblk) {
	nothing := func(ondisk.Lblk, ondisk.Fsblk) {}
	switch mode := base.Mode.Get() & ondisk.ModeFmt; {
	case ino == ondisk.JournalIno:
		return func(l ondisk.Lblk, b ondisk.Fsblk) {
			fc := ix.fastCommits()
			switch {
			case l == 0:
				ix.addBlock("journal superblock", b, sealJournal(ix.data[int64(b)*int64(ix.bs):]))
			case fc != 0 && l >= fc && l < fc+16:
				ix.addFastCommit(b)
			case l < 200:
				if blk := ix.block(b); blk != nil && binary.BigEndian.Uint32(blk) == jMagic {
					ix.addBlock("journal block", b, sealJournal(ix.journalSuper()))
				}
			}
		}
	case ino == ondisk.Ino(ix.sb.OrphanFileInum.Get()) && ix.sb.HasCompat(ondisk.CompatOrphanFile):
		return func(l ondisk.Lblk, b ondisk.Fsblk) {
			ix.addBlock("orphan file", b, func(blk []byte, _ *blockdev.Overlay) {
				var n endian.LE64
				n.Set(uint64(b))
				if end := len(blk) - 8; ix.csum {
					binary.LittleEndian.PutUint32(blk[end+4:], ondisk.Crc32c(ondisk.Crc32c(own, n[:]), blk[:end]))
				}
			})
		}
	case mode == ondisk.ModeDir:
		return func(l ondisk.Lblk, b ondisk.Fsblk) {
			kind := "folder block"
			if base.Flags.Get()&ondisk.FlagIndex != 0 {
				kind = "index folder block"
				if l == 0 {
					kind = "index root"
				}
			}
			ix.addBlock(kind, b, func(blk []byte, _ *blockdev.Overlay) {
				if ix.csum {
					ondisk.SealDirBlock(blk, own)
				}
			})
		}
	case mode == ondisk.ModeLnk:
		return func(_ ondisk.Lblk, b ondisk.Fsblk) { ix.addBlock("link block", b, nil) }
	}
	return nothing
}

func (ix *indexer) extents(node []byte, own uint32, level int, leaf func(ondisk.Lblk, ondisk.Fsblk)) {
	h := endian.View[ondisk.ExtentHeader](node)
	if level > 5 || h.Magic.Get() != ondisk.ExtentMagic {
		return
	}
	n := min(int(h.Entries.Get()), len(node)/ondisk.ExtentEntry-1)
	if h.Depth.Get() == 0 {
		for _, e := range endian.Views[ondisk.Extent](node[ondisk.ExtentEntry:], n) {
			for i := range min(e.Len(), 4096) {
				leaf(ondisk.Lblk(e.Block.Get()+i), e.Start()+ondisk.Fsblk(i))
			}
		}
		return
	}
	for _, e := range endian.Views[ondisk.ExtentIdx](node[ondisk.ExtentEntry:], n) {
		b := e.Leaf()
		kind := "extent leaf"
		if h.Depth.Get() > 1 {
			kind = "extent index"
		}
		if ix.addBlock(kind, b, func(blk []byte, _ *blockdev.Overlay) {
			if ix.csum {
				ondisk.SealExtentNode(blk, own)
			}
		}) {
			ix.extents(ix.block(b), own, level+1, leaf)
		}
	}
}

func (ix *indexer) indirect(iblock []byte, leaf func(ondisk.Lblk, ondisk.Fsblk)) {
	next := ondisk.Lblk(0)
	var walk func(b ondisk.Fsblk, depth int)
	walk = func(b ondisk.Fsblk, depth int) {
		if depth == 0 {
			if b != 0 {
				leaf(next, b)
			}
			next++
			return
		}
		if b == 0 || !ix.addBlock(fmt.Sprintf("indirect block %d", depth), b, nil) {
			return
		}
		for _, p := range endian.Views[endian.LE32](ix.block(b), ix.bs/4) {
			walk(ondisk.Fsblk(p.Get()), depth-1)
		}
	}
	for i, p := range endian.Views[endian.LE32](iblock, 15) {
		walk(ondisk.Fsblk(p.Get()), max(0, i-11))
	}
}

const jMagic = 0xc03b3998

// journalSuper returns the journal's superblock, which was met first.
func (ix *indexer) journalSuper() []byte {
	for _, s := range ix.structs {
		if s.kind == "journal superblock" {
			return ix.data[s.off:][:1024]
		}
	}
	return nil
}

// fastCommits returns the first block of the journal that fast commits use, 0
// if there is none.
func (ix *indexer) fastCommits() ondisk.Lblk {
	sb, be := ix.journalSuper(), binary.BigEndian
	if sb == nil || be.Uint32(sb[40:])&jIncompatFastCommit == 0 {
		return 0
	}
	n := be.Uint32(sb[84:])
	if n == 0 {
		n = 256
	}
	return ondisk.Lblk(be.Uint32(sb[16:]) - n + 1)
}

// addFastCommit notes a block of the area of fast commits; blocks that follow
// each other are one structure, since a checksum may cover several.
func (ix *indexer) addFastCommit(b ondisk.Fsblk) {
	if ix.fcStruct > 0 {
		s := &ix.structs[ix.fcStruct]
		if s.off+int64(s.n) == int64(b)*int64(ix.bs) && ix.block(b) != nil {
			s.n += ix.bs
			s.hi = s.n
		}
		return
	}
	if ix.addBlock("fast commit", b, func(area []byte, _ *blockdev.Overlay) { sealFastCommits(area, ix.bs) }) {
		ix.fcStruct = len(ix.structs) - 1
	}
}

// sealFastCommits sets the checksum of each tail: over what lies between it and
// the tail before.
func sealFastCommits(area []byte, bs int) {
	const pad, tail = 7, 8
	le := binary.LittleEndian
	crc := uint32(0)
	for off := 0; off+4 <= len(area); {
		tag, n := le.Uint16(area[off:]), int(le.Uint16(area[off+2:]))
		end := off + 4 + n
		if tag == 0 || tag > 10 || end > len(area) {
			return
		}
		if tag == tail {
			if n < 8 {
				return
			}
			le.PutUint32(area[off+8:], ondisk.Crc32c(crc, area[off:off+8]))
			crc = 0
		} else {
			crc = ondisk.Crc32c(crc, area[off:end])
		}
		off = end
		if tag == tail || tag == pad || bs-off%bs < 4 {
			off = (off + bs - 1) / bs * bs
		}
	}
}

// sealJournal returns what seals a block of the journal with superblock sb.
func sealJournal(sb []byte) func([]byte, *blockdev.Overlay) {
	be := binary.BigEndian
	if len(sb) < 1024 || be.Uint32(sb[40:])&(jIncompatCsumV2|jIncompatCsumV3) == 0 {
		return nil
	}
	seed := ondisk.Crc32c(^uint32(0), sb[48:64])
	const super, commit = 4, 2
	return func(b []byte, _ *blockdev.Overlay) {
		set := func(n, at int, seed uint32) {
			clear(b[at : at+4])
			be.PutUint32(b[at:], ondisk.Crc32c(seed, b[:n]))
		}
		switch be.Uint32(b[4:]) {
		case super:
			set(1024, 252, ^uint32(0))
		case commit:
			set(len(b), 16, seed)
		default:
			set(len(b), len(b)-4, seed)
		}
	}
}
