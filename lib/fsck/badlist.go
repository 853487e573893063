package fsck

import (
	"fmt"
	"slices"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// BadBlocks says which blocks are to be listed as bad, in inode 1: files that use
// them get others, and the file system's own bitmaps and tables go elsewhere.
type BadBlocks struct {
	Blocks  []uint64 // known to be bad
	Replace bool     // what was listed before counts no longer

	Scan   bool            // find some
	Write  bool            // by writing too: what is there is put back
	Device blockdev.Device // to scan, without a cache; nil: the one that is checked
}

// findBad scans for bad blocks if that was asked for.
func (c *checker) findBad() {
	o := c.opts.BadBlocks
	if o == nil {
		return
	}
	if !c.canWrite() {
		c.failf("bad blocks cannot be listed where nothing may be written")
	}
	if !o.Scan || c.res.Scanned {
		return
	}
	dev := o.Device
	if dev == nil {
		dev = c.dev
	}
	c.sync()
	how := "by reading"
	if o.Write {
		how = "by reading and writing"
	}
	c.opts.Asker.Note("looking for bad blocks " + how)
	bad, err := blockdev.FindBad(c.ctx, dev, c.blockSize, uint64(c.blocks), o.Write, func(done uint64) {
		c.opts.Asker.Progress(0, done, uint64(c.blocks))
	})
	if err != nil {
		c.abort(fmt.Errorf("looking for bad blocks: %w", err))
	}
	c.opts.Asker.Note(fmt.Sprintf("%d bad blocks found", len(bad)))
	c.res.Scanned = true // not again if the check starts anew
	c.res.BadFound = bad
}

// mergeBad makes the list of bad blocks what was asked for.
func (c *checker) mergeBad() {
	o := c.opts.BadBlocks
	if o == nil {
		return
	}
	for b := range c.badList {
		c.badHad = append(c.badHad, b)
	}
	if o.Replace {
		clear(c.badList)
	}
	for _, n := range append(slices.Clone(o.Blocks), c.res.BadFound...) {
		b := ondisk.Fsblk(n)
		if !c.valid(b, 1) {
			c.opts.Asker.Note(fmt.Sprintf("bad block %d lies outside of the file system, and is not listed", n))
			continue
		}
		p := at(0)
		p.Blk = b
		if v := (ondisk.Extent{}); !c.badList[b] {
			c.badBlock(b, p, &v.StartLo)
		}
	}
	for b := range c.badList {
		c.badWant = append(c.badWant, b)
	}
	slices.Sort(c.badWant)
}

// storeBad writes the list of bad blocks to its inode.
func (c *checker) storeBad() {
	if c.opts.BadBlocks == nil {
		return
	}
	r, err := c.inode(ondisk.BadIno)
	if err != nil {
		c.failf("bad blocks inode: %v", err)
	}
	// Bitmaps and counts follow, as if the file system itself had done it.
	c.counted = true
	defer func() { c.counted = false }()
	old := slices.Clone(r)
	clear(r.Base().Block[:])
	var runs []extent
	for i, b := range c.badWant {
		runs = append(runs, extent{lblk: uint64(i), blk: b, n: 1})
		if k := c.cluster(b); !slices.Contains(c.badHad, b) && !c.dup.test(k) && !c.meta.test(uint64(b)) {
			c.take(k, true)
		}
	}
	var gone []ondisk.Fsblk
	for _, b := range c.badHad {
		if _, still := slices.BinarySearch(c.badWant, b); !still && !c.found.test(c.cluster(b)) {
			c.found.set(c.cluster(b)) // so that the new map does not go there
			gone = append(gone, b)
		}
	}
	meta, ok := c.storePointers(r, runs)
	if !ok {
		for _, b := range meta {
			c.release(b)
		}
		c.failf("there is no space for the list of %d bad blocks", len(runs))
	}
	r.SetSize(int64(len(runs)) << c.blockBits)
	r.SetBlocks(c.blocksUnit(r, uint64(len(runs)+len(meta))))
	if !slices.Equal(old, r) {
		r.SetMtime(ondisk.Time{Sec: int64(c.now)})
		r.SetAtime(ondisk.Time{Sec: int64(c.now)})
		c.sync()
		c.writeInode(ondisk.BadIno, r)
	}
	for _, b := range append(c.badMeta, gone...) {
		c.release(b)
	}
}
