package ext2fs

import (
	"sync"

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
		for no := range fs.groups {
			select {
			case <-fs.lazy.stop:
				return
			default:
			}
			if fs.writable() != nil || fs.initItable(no) != nil {
				return
			}
		}
	}()
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
