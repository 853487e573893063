package fsck

import (
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
		c.dirs = append(c.dirs, dirInfo{ino: ino})
		return
	}
	i, ok := slices.BinarySearchFunc(c.dirs, ino, func(d dirInfo, i ondisk.Ino) int { return int(int64(d.ino) - int64(i)) })
	if !ok {
		c.dirs = slices.Insert(c.dirs, i, dirInfo{ino: ino})
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
	c.dblist = append(c.dblist, dirBlock{ino, blk, lblk})
}

// moveDirBlocks notes where the blocks of a directory lie now.
func (c *checker) moveDirBlocks(ino ondisk.Ino, runs []extent) {
	for i := range c.dblist {
		if b := &c.dblist[i]; b.ino == ino && b.blk != 0 {
			b.blk = lookup(runs, b.lblk)
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
