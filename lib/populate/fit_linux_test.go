package populate

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// fitFormats are the geometries that sizes are looked for in.
var fitFormats = []struct {
	name string
	set  func(o *ext2fs.FormatOptions)
}{
	{"ext4", func(o *ext2fs.FormatOptions) {}},
	{"ext4 without a journal", func(o *ext2fs.FormatOptions) { o.Compat &^= ondisk.CompatHasJournal }},
	{"blocks of 1 KiB", func(o *ext2fs.FormatOptions) { o.BlockSize = 1024 }},
	{"blocks of 2 KiB, no 64bit", func(o *ext2fs.FormatOptions) { o.BlockSize, o.Incompat = 2048, o.Incompat&^ondisk.Incompat64Bit }},
	{"blocks of 64 KiB", func(o *ext2fs.FormatOptions) { o.BlockSize = 65536 }},
	{"ext2", func(o *ext2fs.FormatOptions) {
		o.BlockSize, o.InodeSize, o.GroupsPerFlex = 1024, 128, 0
		o.Compat &^= ondisk.CompatHasJournal
		o.Incompat, o.ROCompat = ondisk.IncompatFiletype, ondisk.ROCompatSparseSuper|ondisk.ROCompatLargeFile
	}},
	{"ext3", func(o *ext2fs.FormatOptions) {
		o.GroupsPerFlex = 0
		o.Incompat, o.ROCompat = ondisk.IncompatFiletype, ondisk.ROCompatSparseSuper|ondisk.ROCompatLargeFile
	}},
	{"inline_data", func(o *ext2fs.FormatOptions) { o.Incompat |= ondisk.IncompatInlineData }},
	{"inline_data in inodes of 1 KiB", func(o *ext2fs.FormatOptions) {
		o.Incompat, o.InodeSize = o.Incompat|ondisk.IncompatInlineData, 1024
	}},
	{"bigalloc", func(o *ext2fs.FormatOptions) {
		o.ROCompat, o.ClusterSize = o.ROCompat|ondisk.ROCompatBigalloc, 16384
		o.Compat &^= ondisk.CompatResizeInode
	}},
	{"meta_bg", func(o *ext2fs.FormatOptions) {
		o.BlockSize, o.Compat, o.Incompat = 1024, o.Compat&^ondisk.CompatResizeInode, o.Incompat|ondisk.IncompatMetaBG
	}},
	{"small groups, no flex_bg", func(o *ext2fs.FormatOptions) {
		o.BlocksPerGroup, o.Incompat, o.GroupsPerFlex = 1024, o.Incompat&^ondisk.IncompatFlexBG, 0
		o.Compat &^= ondisk.CompatResizeInode
	}},
	{"ea_inode, large_dir", func(o *ext2fs.FormatOptions) { o.Incompat |= ondisk.IncompatEAInode | ondisk.IncompatLargeDir }},
	{"orphan_file, packed", func(o *ext2fs.FormatOptions) { o.Compat, o.PackedMeta = o.Compat|ondisk.CompatOrphanFile, true }},
	{"uninit_bg, inodes of 128 bytes", func(o *ext2fs.FormatOptions) {
		o.InodeSize, o.ROCompat = 128, o.ROCompat&^(ondisk.ROCompatMetadataCsum|ondisk.ROCompatExtraIsize)|ondisk.ROCompatGDTCsum
	}},
	{"no dir_index", func(o *ext2fs.FormatOptions) { o.Compat &^= ondisk.CompatDirIndex }},
}

// fitTrees are the kinds of trees, each made below dir.
var fitTrees = []struct {
	name string
	make func(g *grower)
}{
	{"many small", func(g *grower) {
		for range 200 + g.rnd.IntN(2500) {
			g.file(g.name(20), g.rnd.IntN(3000))
		}
	}},
	{"few large", func(g *grower) {
		for range 1 + g.rnd.IntN(4) {
			g.file(g.name(20), g.rnd.IntN(24<<20))
		}
	}},
	{"deep", func(g *grower) {
		for range 20 + g.rnd.IntN(150) {
			g.at = filepath.Join(g.at, g.name(3))
			if len(g.at) > 3800 {
				break
			}
			g.check(os.Mkdir(g.at, 0o755))
			g.file(g.name(10), g.rnd.IntN(100))
		}
	}},
	{"long names", func(g *grower) {
		for range 100 + g.rnd.IntN(1500) {
			g.file(g.name(150)+strings.Repeat("l", 100), 0)
		}
	}},
	{"attributes", func(g *grower) {
		for range 30 + g.rnd.IntN(200) {
			p := g.file(g.name(20), g.rnd.IntN(5000))
			for i := range g.rnd.IntN(4) { // as much as a block of 1 KiB holds
				g.attr(p, fmt.Sprintf("user.a%d", i), g.rnd.IntN(300), g.rnd.IntN(2) == 0)
			}
		}
	}},
	{"hard links", func(g *grower) {
		for range 5 + g.rnd.IntN(10) {
			p := g.file(g.name(20), g.rnd.IntN(20000))
			for range g.rnd.IntN(200) {
				g.check(os.Link(p, filepath.Join(g.dir(), g.name(20))))
			}
		}
	}},
	{"sparse", func(g *grower) {
		for range 1 + g.rnd.IntN(8) {
			g.sparse(g.name(20), 1+g.rnd.IntN(400), 1<<(14+g.rnd.IntN(22)))
		}
	}},
	{"fit in inodes", func(g *grower) {
		for range 100 + g.rnd.IntN(800) {
			if g.rnd.IntN(4) == 0 {
				g.check(os.Symlink(strings.Repeat("t", 1+g.rnd.IntN(180)), filepath.Join(g.dir(), g.name(20))))
			} else {
				g.file(g.name(20), g.rnd.IntN(200))
			}
		}
	}},
	{"directories", func(g *grower) {
		for range g.rnd.IntN(600) {
			g.check(os.Mkdir(filepath.Join(g.dir(), g.name(30)), 0o755))
		}
	}},
	{"some of each", func(g *grower) {
		for range 100 + g.rnd.IntN(400) {
			switch g.rnd.IntN(9) {
			case 0:
				g.sparse(g.name(40), g.rnd.IntN(30), 1<<22)
			case 1:
				g.file(g.name(40), g.rnd.IntN(1<<20))
			case 2:
				g.attr(g.file(g.name(40), 0), "user.x", g.rnd.IntN(600), false)
			case 3:
				g.check(os.Symlink(strings.Repeat("t", 1+g.rnd.IntN(120)), filepath.Join(g.dir(), g.name(40))))
			default:
				g.file(g.name(40), g.rnd.IntN(9000))
			}
		}
	}},
}

// grower makes a tree. Its names are all different.
type grower struct {
	t    testing.TB
	rnd  *rand.Rand
	at   string   // the directory that files go to
	dirs []string // others that they may go to
	n    int
	data []byte
}

func (g *grower) check(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *grower) name(most int) string {
	g.n++
	return strings.Repeat("n", g.rnd.IntN(most)) + strconv.Itoa(g.n)
}

// dir returns a directory to put something into, at times a further one.
func (g *grower) dir() string {
	if len(g.dirs) < 40 && g.rnd.IntN(25) == 0 {
		d := filepath.Join(g.at, g.name(20))
		g.check(os.Mkdir(d, 0o755))
		g.dirs = append(g.dirs, d)
	}
	if len(g.dirs) > 0 && g.rnd.IntN(2) == 0 {
		return g.dirs[g.rnd.IntN(len(g.dirs))]
	}
	return g.at
}

// file makes a file of size bytes, in a directory that is not too deep.
func (g *grower) file(name string, size int) string {
	for len(g.data) < size {
		g.data = append(g.data, byte(1+len(g.data)%251))
	}
	p := filepath.Join(g.dir(), name)
	g.check(os.WriteFile(p, g.data[:size], 0o644))
	return p
}

// sparse makes a file of size bytes with n pieces of data.
func (g *grower) sparse(name string, n, size int) {
	f, err := os.Create(filepath.Join(g.dir(), name))
	g.check(err)
	defer f.Close()
	for range n {
		_, err := f.WriteAt(bytes.Repeat([]byte{7}, 1+g.rnd.IntN(5000)), g.rnd.Int64N(int64(size)))
		g.check(err)
	}
	g.check(f.Truncate(int64(size)))
}

// attr sets an attribute, the same as others have or one of its own.
func (g *grower) attr(path, name string, size int, shared bool) {
	v := bytes.Repeat([]byte{'v'}, size)
	if !shared {
		copy(v, strconv.Itoa(g.n))
	}
	if err := unix.Setxattr(path, name, v, 0); !errors.Is(err, unix.EOPNOTSUPP) {
		g.check(err)
	}
}

// Sizes always fit, and are close to the smallest that do: at most 2 % or 1 MiB
// more. E2KIT_SIZE_TREES says over how many trees; they are the same each time.
func TestFit(t *testing.T) {
	trees := 150
	if testing.Short() {
		trees = 12
	}
	if s := os.Getenv("E2KIT_SIZE_TREES"); s != "" {
		var err error
		if trees, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	scratch := testfs.Scratch(t)
	worst, most, tries := 0.0, int64(0), 0
	for i := range trees {
		kind, format := fitTrees[i%len(fitTrees)], fitFormats[(i+i/len(fitTrees))%len(fitFormats)]
		what := fmt.Sprintf("tree %d, %s, %s", i, kind.name, format.name)
		src := filepath.Join(scratch, "src")
		if err := os.Mkdir(src, 0o755); err != nil {
			t.Fatal(err)
		}
		kind.make(&grower{t: t, rnd: rand.New(rand.NewPCG(uint64(i), 4)), at: src})

		o := ext2fs.DefaultFormat()
		o.UUID, o.HashSeed, o.Time, o.ReservedRatio = [16]byte{1}, [16]byte{byte(i), 2}, 1700000000, 0
		format.set(&o)
		made := func(dev blockdev.Device, inodes uint64) error {
			o := o
			// Inodes are rounded down to whole bytes in the bitmap of each group.
			o.Inodes = uint32(inodes) + 16
			if r, err := ext2fs.Plan(dev.Size(), o); err == nil && r.Super.InodesCount.Get() < o.Inodes {
				o.Inodes += 8 * r.Groups
			}
			_, err := ext2fs.Format(dev, o)
			return err
		}
		scratchMem := func(size int64, inodes uint64) (blockdev.Device, error) {
			tries++
			dev := blockdev.NewMem(size)
			return dev, made(dev, inodes)
		}
		tree, err := Load(t.Context(), Dir(src), Options{Reproducible: i%3 == 0})
		if err != nil {
			t.Fatal(err)
		}
		s, err := tree.Fit(t.Context(), scratchMem, SizeOptions{BlockSize: o.BlockSize})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		fits(t, what, tree, s, filepath.Join(scratch, "image"), made)

		// The smallest size that fits, from below: the one before does not.
		bs := int64(o.BlockSize)
		lo, hi := int64(s.Blocks)*bs-bs, s.Bytes
		for hi-lo > bs {
			mid := (lo + hi) / 2 / bs * bs
			if _, err := tree.try(t.Context(), scratchMem, mid, s.Inodes); err == nil {
				hi = mid
			} else {
				lo = mid
			}
		}
		over := s.Bytes - hi
		if over > max(hi/50, 1<<20) {
			t.Errorf("%s: %d bytes are %d more than the smallest size, %d", what, s.Bytes, over, hi)
		}
		worst, most = max(worst, float64(over)/float64(hi)), max(most, over)
		tree.Close()
		if err := os.RemoveAll(src); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d trees, %d tries; at worst %.2f %%, or %d KiB, more than the smallest size", trees, tries, 100*worst, most>>10)
}

// fits writes the tree to an image of the size that was found for it.
func fits(t *testing.T, what string, tree *Tree, s Size, path string, format func(blockdev.Device, uint64) error) {
	t.Helper()
	os.Remove(path)
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(s.Bytes), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	dev, err := blockdev.Open(path, blockdev.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if err := format(dev, s.Inodes); err != nil {
		t.Fatalf("%s: a file system of %d bytes: %v", what, s.Bytes, err)
	}
	if _, err := tree.Write(t.Context(), dev); err != nil {
		t.Fatalf("%s: it does not fit the size of %d bytes found for it: %v", what, s.Bytes, err)
	}
	if err := testfs.E2fsck(t, path, ""); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
