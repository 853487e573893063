package fsck

import "errors"

// discardFree tells the device that free blocks are not needed, if that was asked
// for and nothing is wrong with the file system: neither what was found nor what
// the bitmaps on the device say has a use for them.
func (c *checker) discardFree() {
	if !c.opts.Discard || !c.canWrite() || c.res.Left || c.invalid || c.restart {
		return
	}
	have, want := make([]byte, c.blockSize), make([]byte, c.blockSize)
	none := make([]byte, c.blockSize)
	for g := range c.groups {
		if g%1024 == 0 {
			c.poll()
		}
		d := c.blockDiff(g, have, want)
		for i := range d.want {
			d.want[i] = ^(d.want[i] | d.have[i])
		}
		var failed error
		eachRun(d.want, none, d.n, func(i, k uint64) {
			if failed == nil {
				failed = c.dev.Discard(int64(c.clusterBlock(d.first+i))<<c.blockBits, int64(k<<c.clusterBits)<<c.blockBits)
			}
		})
		switch {
		case errors.Is(failed, errors.ErrUnsupported):
			c.opts.Asker.Note("free blocks are not discarded: the device takes no such hint")
			return
		case failed != nil:
			c.abort(failed)
		}
	}
}
