package fsck_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// base is a good file system for recipes to damage.
type base struct {
	data []byte
	ino  map[string]ondisk.Ino // by path
}

const baseSize = 8 << 20

// makeBase makes a file system of four small groups, with a file of each kind
// that its features allow.
func makeBase(t testing.TB, change func(o *ext2fs.FormatOptions)) *base {
	t.Helper()
	o := ext2fs.DefaultFormat()
	o.BlockSize, o.Inodes, o.BlocksPerGroup, o.GroupsPerFlex = 1024, 512, 2048, 2
	o.LazyItable, o.Time = false, 1_600_000_000
	change(&o)
	size := int64(max(baseSize, o.Blocks<<10))
	dev := blockdev.NewMem(size)
	if _, err := ext2fs.Format(dev, o); err != nil {
		t.Fatal(err)
	}
	fs, err := ext2fs.Open(dev, ext2fs.Options{Populating: true})
	if err != nil {
		t.Fatal(err)
	}
	b := &base{ino: map[string]ondisk.Ino{"/": ondisk.RootIno}, data: make([]byte, size)}
	b.fill(t, fs)
	if err := fs.FillQuota(); err != nil {
		t.Fatal(err)
	}
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := dev.ReadAt(b.data, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// fill makes the files: their names say what they are.
func (b *base) fill(t testing.TB, fs *ext2fs.FS) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := fs.Iget(ondisk.RootIno)
	must(err)
	defer root.Put()
	keep := map[string]*ext2fs.Inode{"": root}
	defer func() {
		for name, ip := range keep {
			if name != "" {
				ip.Put()
			}
		}
	}()
	add := func(path string, mode uint16, rdev uint32) *ext2fs.Inode {
		i := strings.LastIndexByte(path, '/')
		var ip *ext2fs.Inode
		var err error
		if mode&ondisk.ModeFmt == ondisk.ModeDir {
			ip, err = fs.Mkdir(keep[path[:i]], path[i+1:], 0o755, ext2fs.Cred{})
		} else {
			ip, err = fs.Create(keep[path[:i]], path[i+1:], mode, rdev, ext2fs.Cred{})
		}
		must(err)
		keep[path] = ip
		b.ino[path] = ip.Ino()
		return ip
	}
	write := func(ip *ext2fs.Inode, off int64, n int) {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(i*7) | 1
		}
		_, err := ip.WriteAt(p, off)
		must(err)
	}
	lpf, err := fs.Lookup(root, "lost+found")
	must(err)
	b.ino["/lost+found"] = lpf.Ino()
	lpf.Put()
	write(add("/file", ondisk.ModeReg|0o644, 0), 0, 5000)
	write(add("/other", ondisk.ModeReg|0o644, 0), 0, 5000)
	frag := add("/frag", ondisk.ModeReg|0o644, 0) // a node of extents, or an indirect block
	for i := range 20 {
		write(frag, int64(i)*2048, 1024)
	}
	deep := add("/deep", ondisk.ModeReg|0o644, 0) // two nodes of extents, or blocks of pointers of two levels
	for i := range 100 {
		write(deep, int64(i)*4096, 1024)
	}
	add("/empty", ondisk.ModeReg|0o644, 0)
	must(fs.Link(add("/hard", ondisk.ModeReg|0o600, 0), root, "hard2"))
	for _, l := range []struct{ name, target string }{{"/short", "file"}, {"/long", strings.Repeat("long/", 30)}} {
		ip, err := fs.Symlink(root, l.name[1:], l.target, ext2fs.Cred{})
		must(err)
		b.ino[l.name] = ip.Ino()
		ip.Put()
	}
	add("/chr", ondisk.ModeChr|0o600, 0x103)
	add("/blk", ondisk.ModeBlk|0o600, 0x801)
	add("/fifo", ondisk.ModeFIFO|0o600, 0)
	add("/sock", ondisk.ModeSock|0o600, 0)
	add("/dir", ondisk.ModeDir, 0)
	add("/dir/sub", ondisk.ModeDir, 0)
	add("/dir/sub/subsub", ondisk.ModeDir, 0)
	write(add("/dir/file", ondisk.ModeReg|0o644, 0), 0, 100)
	add("/big", ondisk.ModeDir, 0) // with an index, where there are such
	for i := range 100 {
		add(fmt.Sprintf("/big/a name of some length %03d", i), ondisk.ModeReg|0o644, 0)
	}
	for _, n := range []string{"/attr", "/attr2"} {
		ip := add(n, ondisk.ModeReg|0o644, 0)
		must(ip.Setxattr("user.long", []byte(strings.Repeat("v", 300)), 0, false))
	}
	must(add("/inattr", ondisk.ModeReg|0o644, 0).Setxattr("user.a", []byte("value"), 0, false))
	if err := add("/value", ondisk.ModeReg|0o644, 0).Setxattr("user.large", []byte(strings.Repeat("w", 3000)), 0, false); err != nil {
		delete(b.ino, "/value") // not without the feature
	}
	write(add("/last", ondisk.ModeReg|0o644, 0), 0, 3000)
	if fs.Label() != fullLabel {
		return
	}
	filler := add("/filler", ondisk.ModeReg|0o644, 0)
	p := make([]byte, fs.BlockSize())
	for off := int64(0); ; off += int64(len(p)) {
		if _, err := filler.WriteAt(p, off); errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// fullLabel names file systems that have no block free.
const fullLabel = "full"

// edit changes an image by what its structures mean. Each change sets the
// checksums that it makes wrong, unless it is made through raw.
type edit struct {
	t    testing.TB
	b    []byte
	sb   *ondisk.Super
	bs   int
	seed uint32
	csum bool
	base *base
}

func (b *base) edit(t testing.TB) *edit {
	e := &edit{t: t, b: append([]byte(nil), b.data...), base: b}
	e.sb = endian.View[ondisk.Super](e.b[ondisk.SuperOffset:])
	e.bs = 1024 << e.sb.LogBlockSize.Get()
	e.seed = e.sb.CsumSeed()
	e.csum = e.sb.HasROCompat(ondisk.ROCompatMetadataCsum)
	return e
}

// ino returns the inode of a path.
func (e *edit) ino(path string) ondisk.Ino {
	i := e.base.ino[path]
	if i == 0 {
		e.t.Fatalf("no %s in the base", path)
	}
	return i
}

func (e *edit) sealSuper() {
	if e.sb.HasROCompat(ondisk.ROCompatMetadataCsum) {
		e.sb.Checksum.Set(ondisk.SuperCsum(e.sb))
	}
}

func (e *edit) super(f func(s *ondisk.Super)) {
	f(e.sb)
	e.sealSuper()
}

func (e *edit) desc(g ondisk.Group) ondisk.Desc {
	n := e.sb.DescSz()
	at := (ondisk.SuperOffset/e.bs+1)*e.bs + int(g)*n
	return ondisk.Desc(e.b[at : at+n])
}

func (e *edit) group(g ondisk.Group, f func(d ondisk.Desc)) {
	d := e.desc(g)
	f(d)
	if e.csum || e.sb.HasROCompat(ondisk.ROCompatGDTCsum) {
		d.Lo().Checksum.Set(ondisk.DescCsum(e.sb, e.seed, g, d))
	}
}

func (e *edit) block(b ondisk.Fsblk) []byte { return e.b[int(b)*e.bs:][:e.bs] }

// raw returns inode ino in place.
func (e *edit) raw(ino ondisk.Ino) ondisk.RawInode {
	per := e.sb.InodesPerGroup.Get()
	n := e.sb.InodeSz()
	at := int(e.desc(ondisk.Group(uint32(ino-1)/per)).InodeTable())*e.bs + int(uint32(ino-1)%per)*n
	return ondisk.RawInode(e.b[at : at+n])
}

func (e *edit) inode(ino ondisk.Ino, f func(r ondisk.RawInode)) {
	r := e.raw(ino)
	f(r)
	if e.csum {
		r.Seal(e.seed, ino)
	}
}

func (e *edit) file(path string, f func(r ondisk.RawInode)) { e.inode(e.ino(path), f) }

// flags sets and clears flags of an inode.
func (e *edit) flags(path string, set, clr uint32) {
	e.file(path, func(r ondisk.RawInode) { r.Base().Flags.Set(r.Base().Flags.Get()&^clr | set) })
}

func (e *edit) own(ino ondisk.Ino) uint32 {
	return ondisk.InodeSeed(e.seed, ino, e.raw(ino).Base().Generation.Get())
}

// bmap returns where block l of an inode lies.
func (e *edit) bmap(ino ondisk.Ino, l uint32) ondisk.Fsblk {
	b := e.raw(ino).Base()
	if b.Flags.Get()&ondisk.FlagExtents == 0 {
		ptr := endian.Views[endian.LE32](b.Block[:], 15)
		if l < 12 {
			return ondisk.Fsblk(ptr[l].Get())
		}
		return ondisk.Fsblk(binary.LittleEndian.Uint32(e.block(ondisk.Fsblk(ptr[12].Get()))[4*(l-12):]))
	}
	node := b.Block[:]
	for endian.View[ondisk.ExtentHeader](node).Depth.Get() > 0 {
		idx, err := ondisk.ExtentIndex(node)
		if err != nil {
			e.t.Fatal(err)
		}
		k := 0
		for k+1 < len(idx) && idx[k+1].Block.Get() <= l {
			k++
		}
		node = e.block(idx[k].Leaf())
	}
	leaf, err := ondisk.ExtentLeaf(node)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, x := range leaf {
		if at := x.Block.Get(); at <= l && l < at+x.Len() {
			return x.Start() + ondisk.Fsblk(l-at)
		}
	}
	e.t.Fatalf("inode %d has no block %d", ino, l)
	return 0
}

// dir changes block l of a directory.
func (e *edit) dir(path string, l uint32, f func(b []byte)) {
	ino := e.ino(path)
	b := e.block(e.bmap(ino, l))
	f(b)
	if e.csum {
		ondisk.SealDirBlock(b, e.own(ino))
	}
}

// entry returns where the entry of a name lies in a directory's block.
func (e *edit) entry(b []byte, name string) []byte {
	for off := 0; off < len(b); {
		d, err := ondisk.DirentAt(b, off, e.bs)
		if err != nil {
			break
		}
		if string(d.Name) == name {
			return b[off : off+d.RecLen]
		}
		off += d.RecLen
	}
	e.t.Fatalf("no entry %q", name)
	return nil
}

// name changes the entry of a path in the first block of its directory.
func (e *edit) name(path string, f func(d []byte)) {
	i := strings.LastIndexByte(path, '/')
	e.dir(path[:max(i, 1)], 0, func(b []byte) { f(e.entry(b, path[i+1:])) })
}

// extents changes the first extents of a file, in its inode.
func (e *edit) extents(path string, f func(h *ondisk.ExtentHeader, x []ondisk.Extent)) {
	e.file(path, func(r ondisk.RawInode) {
		b := r.Base().Block[:]
		f(endian.View[ondisk.ExtentHeader](b), endian.Views[ondisk.Extent](b[ondisk.ExtentEntry:], ondisk.RootExtents))
	})
}

// node changes the first block of a file's tree of extents.
func (e *edit) node(path string, f func(b []byte, x []ondisk.Extent)) {
	ino := e.ino(path)
	idx, err := ondisk.ExtentIndex(e.raw(ino).Base().Block[:])
	if err != nil {
		e.t.Fatal(err)
	}
	b := e.block(idx[0].Leaf())
	f(b, endian.Views[ondisk.Extent](b[ondisk.ExtentEntry:], ondisk.ExtentMax(e.bs)))
	if e.csum {
		ondisk.SealExtentNode(b, e.own(ino))
	}
}

// pointers changes the block map of a file.
func (e *edit) pointers(path string, f func(p []endian.LE32)) {
	e.file(path, func(r ondisk.RawInode) { f(endian.Views[endian.LE32](r.Base().Block[:], 15)) })
}

// attrs changes the attribute block of a file.
func (e *edit) attrs(path string, f func(b []byte)) {
	blk := e.raw(e.ino(path)).FileACL()
	b := e.block(blk)
	f(b)
	if e.csum {
		ondisk.SealXattrBlock(b, blk, e.seed)
	}
}

// inattrs changes the attributes in an inode, from the first entry on.
func (e *edit) inattrs(path string, f func(b []byte)) {
	e.file(path, func(r ondisk.RawInode) { f(r[ondisk.GoodOldInodeSz+r.ExtraIsize()+4:]) })
}

// bits changes the block bitmap of a group, and nodes its inode bitmap.
func (e *edit) bits(g ondisk.Group, f func(b []byte)) {
	b := e.block(e.desc(g).BlockBitmap())
	f(b)
	if e.csum {
		e.group(g, func(d ondisk.Desc) {
			d.SetBlockBitmapCsum(ondisk.Crc32c(e.seed, b[:e.sb.ClustersPerGroup.Get()/8]))
		})
	}
}

func (e *edit) nodes(g ondisk.Group, f func(b []byte)) {
	b := e.block(e.desc(g).InodeBitmap())
	f(b)
	if e.csum {
		e.group(g, func(d ondisk.Desc) {
			d.SetInodeBitmapCsum(ondisk.Crc32c(e.seed, b[:e.sb.InodesPerGroup.Get()/8]))
		})
	}
}
