package ext2fs

import (
	"sync"
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// lazyInit zeroes inode tables in the background, where mke2fs has left that to
// the mount. Without it tables are zeroed as inodes are allocated.
type lazyInit struct {
	stop chan struct{}
	done sync.WaitGroup
}

// startLazyInit starts it if it was asked for and can have something to do.
func (fs *FS) startLazyInit() {
	if !fs.opts.InitItable || !fs.hasCsum && !fs.hasGDTCsum {
		return
	}
	fs.lazy.stop = make(chan struct{})
	fs.lazy.done.Add(1)
	go func() {
		defer fs.lazy.done.Done()
		fs.lazyInit()
	}()
}

const (
	lazyStart = 5 * time.Second  // after the mount, if the work is spread out
	lazyPause = 10 * time.Second // between two groups, at most
)

// lazyInit zeroes one table after the other. After each it rests for
// InitItableWait times as long as that took.
func (fs *FS) lazyInit() {
	rest := func(d time.Duration) (stopped bool) {
		select {
		case <-fs.lazy.stop:
			return true
		case <-time.After(d):
			return false
		}
	}
	wait := time.Duration(fs.opts.InitItableWait)
	if wait > 0 && rest(lazyStart) {
		return
	}
	desc := blockdev.AlignedBuf(fs.blockSize, fs.blockSize)
	for no := range fs.groups {
		if fs.itableZeroed(no, desc) {
			continue
		}
		start := time.Now()
		if fs.writable() != nil || fs.initItable(no) != nil {
			return
		}
		if rest(min(wait*time.Since(start), lazyPause)) {
			return
		}
	}
}

// itableZeroed tells whether there is nothing to do in group no, as far as its
// descriptor on the device says: groups that nobody has used need not be loaded,
// of which there may be many. desc is where their descriptors are read to, block
// by block in the order of the groups.
func (fs *FS) itableZeroed(no ondisk.Group, desc []byte) bool {
	chunk, in := uint32(no)/fs.descPerBlock, int(uint32(no)%fs.descPerBlock)
	if fs.group.chunks[chunk].Load() != nil {
		return false // it may have changed: initItable looks
	}
	if in == 0 {
		if fs.readBlock(fs.descBlock(chunk), desc) != nil {
			clear(desc)
		}
	}
	d := ondisk.Desc(desc[in*fs.descSize:][:fs.descSize])
	return d.HasFlag(ondisk.BGInodeZeroed)
}

// stopLazyInit stops it and waits.
func (fs *FS) stopLazyInit() {
	if fs.lazy.stop != nil {
		close(fs.lazy.stop)
		fs.lazy.done.Wait()
		fs.lazy.stop = nil
	}
}

// initItable zeroes what was never used of the inode table of group no, and
// says so in the descriptor.
func (fs *FS) initItable(no ondisk.Group) error {
	g, err := fs.groupOf(no)
	if err != nil {
		return nil // its descriptor is corrupt: not ours to repair
	}
	g.mu.Lock()
	zeroed := g.flags&ondisk.BGInodeZeroed != 0
	g.mu.Unlock()
	if zeroed {
		return nil
	}
	h, err := fs.start(creditsGroup + creditsSuper)
	if err != nil {
		return err
	}
	defer h.Stop()
	g.mu.Lock() // nobody allocates an inode here meanwhile
	defer g.mu.Unlock()
	used := fs.inodesPerGroup - g.itableUnused
	if g.flags&ondisk.BGInodeUninit != 0 {
		used = 0
	}
	first := (used + fs.inodesPerBlock - 1) / fs.inodesPerBlock
	if n := fs.itableBlocks - first; n > 0 {
		b := g.inodeTable + ondisk.Fsblk(first)
		fs.cache.Forget(buffer.Block(b), uint64(n))
		if err := fs.zeroOut(b, n); err != nil {
			return err
		}
		// The flag must not be durable before the zeros are. Commits sync the
		// device before their commit block only if the log lies elsewhere.
		if err := fs.dev.Sync(); err != nil {
			return err
		}
	}
	if err := g.touch(fs, h); err != nil {
		return err
	}
	g.flags |= ondisk.BGInodeZeroed
	return nil
}
