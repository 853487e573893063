package fsck

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"unicode/utf8"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// dirEntry is an entry of a directory that is built anew.
type dirEntry struct {
	name        []byte
	ino         ondisk.Ino
	ft          uint8
	hash, minor uint32
}

// pass3a builds directories anew: those whose index was dropped or that hold a
// name twice, or all if that was asked for.
func (c *checker) pass3a() {
	if c.opts.CompressDirs && c.canWrite() {
		for _, d := range c.dirs {
			if c.inodeDir.test(uint64(d.ino)) {
				c.rehash[d.ino] = true
			}
		}
	}
	if !c.canWrite() {
		return
	}
	for _, ino := range c.toIndex {
		if ino != c.lpf {
			c.rehash[ino] = true
		}
	}
	if len(c.rehash) == 0 {
		return
	}
	var list []ondisk.Ino
	for ino := range c.rehash {
		list = append(list, ino)
	}
	slices.Sort(list)
	c.counted = true
	defer func() { c.counted = false }()
	begun := false
	for _, ino := range list {
		if !c.inodeDir.test(uint64(ino)) {
			continue
		}
		if !begun {
			c.begin(P3APass)
			begun = true
		}
		c.poll()
		if !c.rehashDir(ino) {
			c.tell(P3ARehashErr, at(ino))
		}
	}
	c.rehash = map[ondisk.Ino]bool{}
}

// rehashDir builds a directory anew, in new blocks if there are any.
func (c *checker) rehashDir(ino ondisk.Ino) bool {
	r, err := c.inode(ino)
	if err != nil {
		return false
	}
	b := r.Base()
	if b.Flags.Get()&ondisk.FlagInlineData != 0 {
		return true
	}
	runs, meta, err := c.runs(r)
	if err != nil {
		return false
	}
	casefold := b.Flags.Get()&ondisk.FlagCasefold != 0
	encrypted := b.Flags.Get()&ondisk.FlagEncrypt != 0
	version := c.sb.HashVersion(c.sb.DefHashVersion[0])
	if d := c.dx[ino]; d != nil && d.hash != ondisk.HashSipHash && !d.bad {
		version = d.hash
	}
	if version > ondisk.HashTEAUnsigned {
		version = c.sb.HashVersion(ondisk.HashHalfMD4)
	}
	index := c.sb.HasCompat(ondisk.CompatDirIndex) && !(casefold && encrypted)
	entries, parent, ok := c.readDir(runs)
	if !ok {
		return false
	}
	for i := range entries {
		e := &entries[i]
		name := e.name
		if casefold {
			if !ascii(name) {
				index = false // how it folds is beyond us: without an index no hash is needed
			}
			name = asciiLower(name)
		}
		e.hash, e.minor, _ = ondisk.DirHash(version, &c.hashing.seed, name)
	}
	sort.SliceStable(entries, func(i, j int) bool {
		x, y := &entries[i], &entries[j]
		switch {
		case x.hash != y.hash:
			return x.hash < y.hash
		case x.minor != y.minor:
			return x.minor < y.minor
		}
		return bytes.Compare(x.name, y.name) < 0
	})
	if c.duplicates(ino, entries, encrypted, casefold && !encrypted) {
		return c.rehashDirAgain(ino)
	}
	blocks, indexed := c.layDir(ino, parent, entries, index, version, casefold)
	if blocks == nil {
		return false
	}
	return c.putDir(ino, r, runs, meta, blocks, indexed)
}

// rehashDirAgain builds a directory after entries of it have been changed.
func (c *checker) rehashDirAgain(ino ondisk.Ino) bool { return c.rehashDir(ino) }

func ascii(b []byte) bool {
	for _, x := range b {
		if x >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// readDir returns the entries of a directory, but for "." and "..", and where the
// latter leads to.
func (c *checker) readDir(runs []extent) (entries []dirEntry, parent ondisk.Ino, ok bool) {
	for _, x := range runs {
		for i := range x.n {
			data, err := c.block(x.blk + ondisk.Fsblk(i))
			if err != nil {
				return nil, 0, false
			}
			for off := 0; off < len(data); {
				e, err := ondisk.DirentAt(data, off, c.blockSize)
				if err != nil {
					break
				}
				switch {
				case x.lblk+i == 0 && string(e.Name) == "..":
					parent = e.Ino
				case e.Ino == 0 || len(e.Name) == 0 || x.lblk+i == 0 && string(e.Name) == ".":
				default:
					entries = append(entries, dirEntry{name: e.Name, ino: e.Ino, ft: e.FileType})
				}
				off += e.RecLen
			}
		}
	}
	return entries, parent, parent != 0
}

// duplicates deals with names that are there twice, in the directory as it is;
// true if something was changed.
func (c *checker) duplicates(dir ondisk.Ino, entries []dirEntry, encrypted, folded bool) (changed bool) {
	key := func(name []byte) string {
		if folded {
			return string(asciiLower(name))
		}
		return string(name)
	}
	names := map[string]*dirEntry{}
	for i := range entries {
		a, b := names[key(entries[i].name)], &entries[i]
		if a == nil {
			names[key(b.name)] = b
		}
	}
	for i := range entries {
		a, b := names[key(entries[i].name)], &entries[i]
		if a == b {
			continue
		}
		p := at(b.ino)
		p.Dir, p.Name = dir, string(b.name)
		switch {
		case a.ino == b.ino:
			if c.fix(P2DuplicateDirent, p) {
				c.changeEntry(dir, b.name, b.ino, nil)
				changed = true
			}
		case encrypted:
			// No other name can be made: the newer file keeps it.
			p.Ino = min(a.ino, b.ino)
			if c.fix(P2NonUniqueEncoded, p) {
				c.changeEntry(dir, b.name, p.Ino, nil)
				changed = true
			}
		default:
			name := otherName(b.name, func(n []byte) bool { return names[key(n)] != nil })
			p.Text = "to " + string(name)
			if c.fix(P2NonUniqueFile, p) {
				c.changeEntry(dir, b.name, b.ino, name)
				names[key(name)] = b
				changed = true
			}
		}
	}
	return changed
}

// otherName returns a name like name, and as long if need be, that is not taken.
func otherName(name []byte, taken func(n []byte) bool) []byte {
	for i := 0; ; i++ {
		s := fmt.Sprintf("~%d", i)
		base := name[:min(len(name), ondisk.NameLen-len(s))]
		if n := append(append([]byte(nil), base...), s...); !taken(n) {
			return n
		}
	}
}

// changeEntry renames the last entry of that name and inode in a directory; with
// a nil name it is removed, and no longer counted.
func (c *checker) changeEntry(dir ondisk.Ino, old []byte, ino ondisk.Ino, name []byte) {
	for i := len(c.dblist) - 1; i >= 0; i-- {
		b := c.dblist[i]
		if b.ino != dir || b.blk == 0 {
			continue
		}
		data, err := c.block(b.blk)
		if err != nil {
			continue
		}
		last := -1
		for off := 0; off < len(data); {
			e, err := ondisk.DirentAt(data, off, c.blockSize)
			if err != nil {
				break
			}
			if e.Ino == ino && bytes.Equal(e.Name, old) {
				last = off
			}
			off += e.RecLen
		}
		if last < 0 {
			continue
		}
		ft := data[last+7]
		binary.LittleEndian.PutUint32(data[last:], 0)
		if c.hasCsum {
			ondisk.SealDirBlock(data, c.dirSeed(dir))
		}
		if name == nil {
			c.write(b.blk, data)
			c.adjust(ino, -1)
			return
		}
		area := data
		if c.hasCsum && hasTail(data) {
			area = data[:len(data)-ondisk.DirTailSize]
		}
		if off, room, dup, err := ondisk.FindRoom(area, name, c.blockSize); err == nil && room && !dup {
			ondisk.InsertDirent(area, off, c.blockSize, name, ino, ft)
			if c.hasCsum {
				ondisk.SealDirBlock(data, c.dirSeed(dir))
			}
			c.write(b.blk, data)
			return
		}
		if c.link(dir, string(name), ino, ft) {
			c.write(b.blk, data)
		}
		return
	}
}

// layDir returns the blocks of a directory with the given entries, which are
// sorted by hash. indexed tells whether there is an index.
func (c *checker) layDir(ino, parent ondisk.Ino, entries []dirEntry, index bool, version uint8, fold bool) (blocks [][]byte, indexed bool) {
	room := c.blockSize
	if c.hasCsum {
		room -= ondisk.DirTailSize
	}
	need := 2 * ondisk.DirentMin
	for i := range entries {
		need += ondisk.DirentSize(len(entries[i].name))
	}
	if need <= room || !index {
		blocks = c.fillLeaves(entries, room, room, ino, parent)
		return blocks, false
	}
	slack := c.opts.DirSlack
	if slack == 0 {
		slack = 20
	}
	leaves := c.fillLeaves(entries, room, room-room*min(slack, 90)/100, 0, 0)
	return c.buildIndex(ino, parent, leaves, c.leafHashes(leaves, version, fold), version)
}

// fillLeaves puts entries into blocks of which fill bytes are used; with dir, the
// first one starts with "." and "..".
func (c *checker) fillLeaves(entries []dirEntry, room, fill int, dir, parent ondisk.Ino) (blocks [][]byte) {
	var b []byte
	used, last := 0, 0
	closeBlock := func() {
		if b == nil {
			return
		}
		ondisk.SetRecLen(b, last, room-last, c.blockSize)
	}
	open := func() {
		closeBlock()
		b = make([]byte, c.blockSize)
		ondisk.InitDirBlock(b, c.hasCsum)
		blocks = append(blocks, b)
		used, last = 0, 0
	}
	put := func(name []byte, ino ondisk.Ino, ft uint8) {
		n := ondisk.DirentSize(len(name))
		ondisk.PutDirent(b, used, n, c.blockSize, name, ino, ft)
		last = used
		used += n
	}
	open()
	if dir != 0 {
		ft := uint8(0)
		if c.hasFiletype {
			ft = ondisk.FTDir
		}
		put([]byte("."), dir, ft)
		put([]byte(".."), parent, ft)
	}
	for i := range entries {
		e := &entries[i]
		n := ondisk.DirentSize(len(e.name))
		if used > 0 && used+n > fill || used+n > room {
			open()
		}
		put(e.name, e.ino, e.ft)
	}
	closeBlock()
	return blocks
}

// leafHashes returns the hash that each leaf starts at, with the lowest bit set
// where names of that very hash are in the leaf before.
func (c *checker) leafHashes(leaves [][]byte, version uint8, fold bool) []uint32 {
	out := make([]uint32, len(leaves))
	prev := uint32(0)
	for i, b := range leaves {
		first := true
		for off := 0; off < len(b); {
			e, err := ondisk.DirentAt(b, off, c.blockSize)
			if err != nil {
				break
			}
			if e.Ino != 0 {
				name := e.Name
				if fold {
					name = asciiLower(name)
				}
				h, _, _ := ondisk.DirHash(version, &c.hashing.seed, name)
				if first {
					out[i] = h
					if i > 0 && h == prev {
						out[i] |= 1
					}
					first = false
				}
				prev = h
			}
			off += e.RecLen
		}
	}
	return out
}

// buildIndex puts an index above leaves.
func (c *checker) buildIndex(ino, parent ondisk.Ino, leaves [][]byte, hashes []uint32, version uint8) ([][]byte, bool) {
	root := make([]byte, c.blockSize)
	ft := uint8(0)
	if c.hasFiletype {
		ft = ondisk.FTDir
	}
	ondisk.PutDirent(root, 0, ondisk.DirentMin, c.blockSize, []byte("."), ino, ft)
	ondisk.PutDirent(root, ondisk.DirentMin, c.blockSize-ondisk.DirentMin, c.blockSize, []byte(".."), parent, ft)
	info := endian.View[ondisk.DxRootInfo](root[ondisk.DxRootInfoOff:])
	if version >= ondisk.HashLegacyUnsigned && version <= ondisk.HashTEAUnsigned {
		version -= ondisk.HashLegacyUnsigned
	}
	info.HashVersion[0], info.InfoLength[0] = version, ondisk.DxRootInfoSize
	ondisk.InitDxNode(root, ondisk.DxRootOff, c.hasCsum)
	fitRoot := ondisk.DxLimit(c.blockSize, ondisk.DxRootOff, c.hasCsum)
	fit := ondisk.DxLimit(c.blockSize, ondisk.DxNodeOff, c.hasCsum)
	blocks := append([][]byte{root}, leaves...)
	type ref struct {
		hash uint32
		lblk int
	}
	refs := make([]ref, len(leaves))
	for i := range leaves {
		refs[i] = ref{hashes[i], i + 1}
	}
	put := func(b []byte, off int, rs []ref) {
		es := endian.Views[ondisk.DxEntry](b[off:], len(rs))
		for i, r := range rs {
			if i > 0 {
				es[i].Hash.Set(r.hash)
			}
			es[i].Block.Set(uint32(r.lblk))
		}
		ondisk.SetDxCount(b, off, len(rs))
	}
	levels := 0
	most := 1
	if c.hasLargeDir {
		most = 2
	}
	for len(refs) > fitRoot {
		if levels++; levels > most {
			return nil, false
		}
		var up []ref
		for len(refs) > 0 {
			k := min(fit, len(refs))
			b := make([]byte, c.blockSize)
			ondisk.InitDxNode(b, ondisk.DxNodeOff, c.hasCsum)
			put(b, ondisk.DxNodeOff, refs[:k])
			up = append(up, ref{refs[0].hash, len(blocks)})
			blocks = append(blocks, b)
			refs = refs[k:]
		}
		refs = up
	}
	info.IndirectLevels[0] = byte(levels)
	put(root, ondisk.DxRootOff, refs)
	return blocks, true
}

// putDir writes the blocks of a directory, to new places if there is space, and
// makes the inode map them.
func (c *checker) putDir(ino ondisk.Ino, r ondisk.RawInode, runs []extent, meta []ondisk.Fsblk, blocks [][]byte, indexed bool) bool {
	b := r.Base()
	seed := ondisk.InodeSeed(c.seed, ino, b.Generation.Get())
	var old []ondisk.Fsblk
	for _, e := range runs {
		for i := range e.n {
			old = append(old, e.blk+ondisk.Fsblk(i))
		}
	}
	place := make([]ondisk.Fsblk, 0, len(blocks))
	var taken []ondisk.Fsblk
	for len(place) < len(blocks) {
		nb, ok := c.alloc(c.goalOf(ino), false)
		if !ok {
			break
		}
		taken = append(taken, nb)
		for j := uint64(0); j < c.clusterRatio && len(place) < len(blocks); j++ {
			place = append(place, nb+ondisk.Fsblk(j))
		}
	}
	inPlace := len(place) < len(blocks)
	if inPlace { // the old places, which hold at least as much
		for _, nb := range taken {
			c.release(nb)
		}
		taken = nil
		if len(old) < len(blocks) {
			return false
		}
		place = old[:len(blocks)]
	}
	var out []extent
	for i, data := range blocks {
		if c.hasCsum {
			ondisk.SealDirBlock(data, seed)
		}
		c.write(place[i], data)
		if k := len(out) - 1; k >= 0 && out[k].blk+ondisk.Fsblk(out[k].n) == place[i] {
			out[k].n++
		} else {
			out = append(out, extent{uint64(i), place[i], 1, false, false})
		}
	}
	added, ok := c.storeMap(ino, r, out)
	if !ok {
		for _, nb := range taken {
			c.release(nb)
		}
		return false
	}
	r.SetSize(int64(len(blocks)) << c.blockBits)
	if !c.hasLargeDir {
		b.SizeHi.Set(0)
	}
	b.Flags.Set(b.Flags.Get() &^ ondisk.FlagIndex)
	if indexed {
		b.Flags.Set(b.Flags.Get() | ondisk.FlagIndex)
	}
	r.SetBlocks(c.countBlocks(r, out, len(added)))
	c.sync()
	c.writeInode(ino, r)
	last := ^uint64(0)
	for i, ob := range old {
		if k := c.cluster(ob); k != last && !(inPlace && i < len(blocks)) {
			last = k
			if !inPlace || !clusterIn(c, place, k) {
				c.release(ob)
			}
		}
	}
	for _, ob := range meta {
		c.release(ob)
	}
	n := 0
	for i := range c.dblist {
		if c.dblist[i].ino != ino {
			c.dblist[n] = c.dblist[i]
			n++
		}
	}
	c.dblist = c.dblist[:n]
	for i, nb := range place {
		c.addDirBlock(ino, nb, uint64(i))
	}
	return true
}

func clusterIn(c *checker, place []ondisk.Fsblk, k uint64) bool {
	for _, b := range place {
		if c.cluster(b) == k {
			return true
		}
	}
	return false
}
