package fsck

import (
	"fmt"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// unsharing tells whether blocks that files share on purpose are to be copied.
func (c *checker) unsharing() bool { return c.hasShared && c.opts.Unshare }

// unshare gives each inode its own copy of what it shares, and takes the feature
// away that allows it. It fails, rather than delete a file, if there is no space;
// where nothing may be written it only finds out whether there is.
func (c *checker) unshare(d *dupState) {
	need := uint64(0)
	for _, x := range d.by {
		if n := x.claims; x.meta {
			need += uint64(n)
		} else if n > 1 {
			need += uint64(n - 1)
		}
	}
	if free := c.clusters - c.found.countRange(0, c.clusters); need > free {
		c.failf("there is no space to unshare: %d clusters are needed, %d are free", need, free)
	}
	if !c.canWrite() {
		c.opts.Asker.Note(fmt.Sprintf("%d clusters would be copied", need))
		return
	}
	for _, ino := range d.inodes {
		for _, k := range d.of[ino] {
			if x := d.by[k]; x.shared() {
				if !c.clone(d, ino) {
					c.failf("there is no space to unshare inode %d", ino)
				}
				break
			}
		}
	}
}

// dropShared takes the feature away, once nothing is shared.
func (c *checker) dropShared() {
	if !c.unsharing() || !c.canWrite() || c.dup.next(0, c.clusters) != c.clusters {
		return
	}
	c.sb.FeatureROCompat.Set(c.sb.FeatureROCompat.Get() &^ ondisk.ROCompatSharedBlocks)
	c.setSuper()
	c.features()
}
