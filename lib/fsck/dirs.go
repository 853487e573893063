package fsck

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"slices"
	"sort"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// dirState is what is known of directories.
type dirState struct {
	dirs    []dirInfo // sorted by inode
	dblist  []dirBlock
	dx      map[ondisk.Ino]*dxDir
	rehash  map[ondisk.Ino]bool // directories to be built anew
	toIndex []ondisk.Ino        // large ones without an index
	lpf     ondisk.Ino          // lost+found
	badLpf  bool                // it cannot be had
	lpfRoot bool                // the root directory stands in for it
	hashing hashInfo

	names      nameSet
	lastSeedOf ondisk.Ino
	lastSeed   uint32
}

// dirInfo is a directory: dotdot is what its ".." says, parent is the directory
// with an entry for it.
type dirInfo struct {
	ino, dotdot, parent ondisk.Ino
}

// dirBlock is a block of a directory; blk is 0 where there is none.
type dirBlock struct {
	ino  ondisk.Ino
	blk  ondisk.Fsblk
	lblk uint64
}

func (c *checker) initDirs() {
	c.dirState = dirState{dx: map[ondisk.Ino]*dxDir{}, rehash: map[ondisk.Ino]bool{}}
	c.hashing = hashInfo{seed: c.sb.DirHashSeed()}
}

func (c *checker) addDir(ino ondisk.Ino) {
	if n := len(c.dirs); n == 0 || c.dirs[n-1].ino < ino {
		c.dirs = append(grown(c, c.dirs, 1), dirInfo{ino: ino})
		return
	}
	i, ok := slices.BinarySearchFunc(c.dirs, ino, func(d dirInfo, i ondisk.Ino) int { return int(int64(d.ino) - int64(i)) })
	if !ok {
		c.dirs = slices.Insert(grown(c, c.dirs, 1), i, dirInfo{ino: ino})
	}
}

// dir returns what is known of a directory; nil if it is none.
func (c *checker) dir(ino ondisk.Ino) *dirInfo {
	i, ok := slices.BinarySearchFunc(c.dirs, ino, func(d dirInfo, i ondisk.Ino) int { return int(int64(d.ino) - int64(i)) })
	if !ok {
		return nil
	}
	return &c.dirs[i]
}

func (c *checker) dropDir(ino ondisk.Ino) {
	i, ok := slices.BinarySearchFunc(c.dirs, ino, func(d dirInfo, i ondisk.Ino) int { return int(int64(d.ino) - int64(i)) })
	if ok {
		c.dirs = slices.Delete(c.dirs, i, i+1)
	}
	n := len(c.dblist)
	for n > 0 && c.dblist[n-1].ino == ino {
		n--
	}
	c.dblist = c.dblist[:n]
}

func (c *checker) addDirBlock(ino ondisk.Ino, blk ondisk.Fsblk, lblk uint64) {
	if c.report != nil && len(c.dblist) == reportMost {
		c.leave()
	}
	c.dblist = append(grown(c, c.dblist, 1), dirBlock{ino, blk, lblk})
}

// moveDirBlocks notes where the blocks of a directory lie now.
func (c *checker) moveDirBlocks(ino ondisk.Ino, runs []extent) {
	for i := range c.dblist {
		if b := &c.dblist[i]; b.ino == ino && b.blk != 0 {
			b.blk = lookup(runs, b.lblk)
		}
	}
}

// nameSet finds names that are twice in a block. It is used again and again.
type nameSet struct {
	seed  maphash.Seed
	round uint32
	slots []nameSlot // a power of two, at least twice as many as there are names
}

type nameSlot struct {
	round  uint32 // of the set, when it was filled
	hash   uint32
	off, n int32 // of the name in the block
}

// reset empties the set, for a block with at most n names.
func (t *nameSet) reset(n int) {
	if t.slots == nil {
		t.seed = maphash.MakeSeed()
	}
	if k := 2 << bits.Len(uint(n)); len(t.slots) < k {
		t.slots, t.round = make([]nameSlot, k), 0
	}
	if t.round++; t.round == 0 {
		clear(t.slots)
		t.round = 1
	}
}

// add adds the name of n bytes at off in block b; true if it was there. With fold
// names are the same that differ in the case of ASCII letters alone.
func (t *nameSet) add(b []byte, off, n int, fold bool) (twice bool) {
	name, same := b[off:off+n], bytes.Equal
	if fold {
		name = asciiLower(name)
		same = func(a, b []byte) bool { return bytes.Equal(asciiLower(a), b) }
	}
	h := uint32(maphash.Bytes(t.seed, name))
	mask := uint32(len(t.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		s := &t.slots[i]
		if s.round != t.round {
			*s = nameSlot{t.round, h, int32(off), int32(n)}
			return false
		}
		if s.hash == h && same(b[s.off:s.off+s.n], name) {
			return true
		}
	}
}

// sortDirBlocks puts the blocks into the order in which pass 2 reads them: first
// blocks first, then as they lie on the device.
func (c *checker) sortDirBlocks() {
	sort.Slice(c.dblist, func(i, j int) bool {
		a, b := &c.dblist[i], &c.dblist[j]
		switch {
		case (a.lblk == 0) != (b.lblk == 0): // an index is known from its root
			return a.lblk == 0
		case a.blk != b.blk:
			return a.blk < b.blk
		case a.ino != b.ino:
			return a.ino < b.ino
		}
		return a.lblk < b.lblk
	})
}
