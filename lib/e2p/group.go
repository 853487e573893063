package e2p

import (
	"fmt"
	"io"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// GroupPlace says where a block group lies, and what its beginning holds. A
// block of 0 is one that the group does not have.
type GroupPlace struct {
	Group       ondisk.Group
	First, Last ondisk.Fsblk // its blocks
	HasSuper    bool
	Super       ondisk.Fsblk // copy of the superblock
	Descs       ondisk.Fsblk // first of DescBlocks blocks with all descriptors, and of those kept for more
	DescBlocks  uint64
	MetaBGDesc  ondisk.Fsblk // with meta_bg: the block with descriptors of the groups around
}

// Bitmap is the bitmap of a group, of Num bits. Bits past the bytes that there
// are count as set.
type Bitmap struct {
	Bits []byte
	Num  uint32
}

// Used says whether bit i is set.
func (b *Bitmap) Used(i uint32) bool {
	return i>>3 >= uint32(len(b.Bits)) || b.Bits[i>>3]>>(i&7)&1 != 0
}

// A GroupLister writes what descriptors say of block groups. It writes small
// pieces: Out should be buffered, and keeps the first error.
type GroupLister struct {
	Out    io.Writer
	Super  *ondisk.Super
	Hex    bool // block and inode numbers are in hexadecimal
	OneRow bool // the bitmaps of a group stand on one line, however long
}

func (g *GroupLister) num(n uint64) string {
	switch {
	case !g.Hex:
		return fmt.Sprint(n)
	case superBits{g.Super}.incompat(ondisk.Incompat64Bit):
		return fmt.Sprintf("0x%08x", n)
	}
	return fmt.Sprintf("0x%04x", n)
}

func (g *GroupLister) span(first, last uint64) string { return g.num(first) + "-" + g.num(last) }

// hasCsum says whether descriptors have checksums.
func (g *GroupLister) hasCsum() bool {
	return superBits{g.Super}.roCompat(ondisk.ROCompatGDTCsum | ondisk.ROCompatMetadataCsum)
}

// Heading is the first line of what Line writes.
const Heading = "group:block:super:gdt:bbitmap:ibitmap:itable"

// Line writes a group for programs to read, as dumpe2fs -g does.
func (g *GroupLister) Line(p *GroupPlace, d ondisk.Desc) {
	super, descs := "-1", "-1"
	if p.HasSuper {
		super = fmt.Sprint(uint64(p.Super))
	}
	if p.Descs != 0 {
		descs = g.span(uint64(p.Descs), uint64(p.Descs)+p.DescBlocks-1)
	} else if p.MetaBGDesc != 0 {
		descs = fmt.Sprint(uint64(p.MetaBGDesc))
	}
	fmt.Fprintf(g.Out, "%d:%d:%s:%s:%d:%d:%d\n", p.Group, p.First, super, descs,
		d.BlockBitmap(), d.InodeBitmap(), d.InodeTable())
}

// List writes a group at length, as dumpe2fs does, up to what its bitmaps have.
// csum is the checksum that its descriptor should have.
func (g *GroupLister) List(p *GroupPlace, d ondisk.Desc, csum uint16) {
	s := superBits{g.Super}
	meta := s.roCompat(ondisk.ROCompatMetadataCsum)
	fmt.Fprintf(g.Out, "Group %d: (Blocks %s)", p.Group, g.span(uint64(p.First), uint64(p.Last)))
	if g.hasCsum() {
		got := d.Lo().Checksum.Get()
		fmt.Fprintf(g.Out, " csum 0x%04x", got)
		if got != csum {
			fmt.Fprintf(g.Out, " (EXPECTED 0x%04x)", csum)
		}
		g.flags(d, " [", "INODE_UNINIT", "BLOCK_UNINIT", "ITABLE_ZEROED")
	}
	fmt.Fprintln(g.Out)
	g.place(p)
	fmt.Fprintf(g.Out, "  Block bitmap at %s%s", g.num(uint64(d.BlockBitmap())), g.relative(p, d.BlockBitmap(), false))
	if meta {
		fmt.Fprintf(g.Out, ", csum 0x%08x", d.BlockBitmapCsum())
	}
	if g.OneRow {
		fmt.Fprint(g.Out, ",")
	} else {
		fmt.Fprint(g.Out, "\n ")
	}
	fmt.Fprintf(g.Out, " Inode bitmap at %s%s", g.num(uint64(d.InodeBitmap())), g.relative(p, d.InodeBitmap(), false))
	if meta {
		fmt.Fprintf(g.Out, ", csum 0x%08x", d.InodeBitmapCsum())
	}
	table := uint64(d.InodeTable())
	last := table + uint64(s.itableBlocks()) - 1
	fmt.Fprintf(g.Out, "\n  Inode table at %s%s", g.span(table, last), g.relative(p, d.InodeTable(), true))
	units := "blocks"
	if s.roCompat(ondisk.ROCompatBigalloc) {
		units = "clusters"
	}
	fmt.Fprintf(g.Out, "\n  %d free %s, %d free inodes, %d directories", d.FreeBlocks(), units, d.FreeInodes(), d.UsedDirs())
	if n := d.ItableUnused(); n != 0 {
		fmt.Fprintf(g.Out, ", %d unused inodes", n)
	}
	fmt.Fprintln(g.Out)
}

// flags writes those flags of a descriptor that are set, after open, up to "]".
func (g *GroupLister) flags(d ondisk.Desc, open string, names ...string) (any bool) {
	for i, bit := range []uint16{ondisk.BGInodeUninit, ondisk.BGBlockUninit, ondisk.BGInodeZeroed} {
		if i < len(names) && d.HasFlag(bit) {
			fmt.Fprint(g.Out, open, names[i])
			open, any = ", ", true
		}
	}
	if any {
		fmt.Fprint(g.Out, "]")
	}
	return any
}

// place writes the line of superblock and descriptors, if the group has any.
func (g *GroupLister) place(p *GroupPlace) {
	line := false
	if p.HasSuper {
		kind := "Backup"
		if p.Group == 0 {
			kind = "Primary"
		}
		fmt.Fprintf(g.Out, "  %s superblock at %s", kind, g.num(uint64(p.Super)))
		line = true
	}
	if p.Descs != 0 {
		end := uint64(p.Descs) + p.DescBlocks
		fmt.Fprintf(g.Out, ", Group descriptors at %s", g.span(uint64(p.Descs), end-1))
		if n := uint64(g.Super.ReservedGDTBlocks.Get()); n != 0 {
			fmt.Fprintf(g.Out, "\n  Reserved GDT blocks at %s", g.span(end, end+n-1))
		}
	} else if p.MetaBGDesc != 0 {
		sep := " "
		if p.HasSuper {
			sep = ","
		}
		fmt.Fprintf(g.Out, "%s Group descriptor at %s", sep, g.num(uint64(p.MetaBGDesc)))
		line = true
	}
	if line {
		fmt.Fprintln(g.Out)
	}
}

// relative returns where blk lies in its group, or with flex_bg in another.
func (g *GroupLister) relative(p *GroupPlace, blk ondisk.Fsblk, table bool) string {
	if blk >= p.First && blk <= p.Last {
		if table && blk == p.First {
			return ""
		}
		return fmt.Sprintf(" (+%d)", uint32(blk-p.First))
	}
	s := superBits{g.Super}
	if !s.incompat(ondisk.IncompatFlexBG) {
		return ""
	}
	first, per := uint64(s.FirstDataBlock.Get()), uint64(max(s.BlocksPerGroup.Get(), 1))
	other := uint32((uint64(blk) - first) / per)
	return fmt.Sprintf(" (bg #%d + %d)", other, uint32(uint64(blk)-first-uint64(other)*per))
}

// Free writes the line of what is free in a group by one of its bitmaps.
// ratio is how many blocks a bit stands for, first the number that the first
// bit of group 0 stands for.
func (g *GroupLister) Free(what string, group ondisk.Group, b *Bitmap, first uint64, ratio uint32) {
	fmt.Fprintf(g.Out, "  Free %s: ", what)
	r := uint64(ratio)
	base := (first/r + uint64(group)*uint64(b.Num)) * r
	sep := ""
	for i := uint32(0); i < b.Num; i++ {
		if b.Used(i) {
			continue
		}
		j := i + 1
		for j < b.Num && !b.Used(j) {
			j++
		}
		start, end := base+uint64(i)*r, base+uint64(j)*r-1
		if start == end {
			fmt.Fprint(g.Out, sep, g.num(start))
		} else {
			fmt.Fprint(g.Out, sep, g.span(start, end))
		}
		sep, i = ", ", j
	}
	fmt.Fprintln(g.Out)
}

// Stats writes a group as the stats of debugfs do.
func (g *GroupLister) Stats(n ondisk.Group, d ondisk.Desc) {
	count := func(n uint32, one, many string) string {
		if n == 1 {
			return fmt.Sprintf("%d %s", n, one)
		}
		return fmt.Sprintf("%d %s", n, many)
	}
	unit := "block"
	if (superBits{g.Super}).roCompat(ondisk.ROCompatBigalloc) {
		unit = "cluster"
	}
	fmt.Fprintf(g.Out, " Group %2d: block bitmap at %d, inode bitmap at %d, inode table at %d\n           ",
		n, d.BlockBitmap(), d.InodeBitmap(), d.InodeTable())
	fmt.Fprintf(g.Out, "%s, %s, %s", count(d.FreeBlocks(), "free "+unit, "free "+unit+"s"),
		count(d.FreeInodes(), "free inode", "free inodes"), count(d.UsedDirs(), "used directory", "used directories"))
	open := "           ["
	sum := ""
	if g.hasCsum() {
		fmt.Fprintf(g.Out, ", %s", count(d.ItableUnused(), "unused inode", "unused inodes"))
		sum = fmt.Sprintf("Checksum 0x%04x", d.Lo().Checksum.Get())
	}
	fmt.Fprintln(g.Out)
	any := false
	for _, f := range []struct {
		on   bool
		name string
	}{
		{d.HasFlag(ondisk.BGInodeUninit), "Inode not init"}, {d.HasFlag(ondisk.BGBlockUninit), "Block not init"}, {sum != "", sum},
	} {
		if f.on {
			fmt.Fprint(g.Out, open, f.name)
			open, any = ", ", true
		}
	}
	if any {
		fmt.Fprintln(g.Out, "]")
	}
}
