package iomappeer

import (
	"sync"
	"syscall"
)

// diskCache is which pages of devices their page cache holds dirty: the aliases
// that BACKING_INVAL is about.
type diskCache struct {
	mu    sync.Mutex
	cache []*PageCached
}

// A PageCached is a device seen through its page cache, as a server sees it that
// writes metadata without O_DIRECT: what is written stays in the cache until
// Sync, and the peer's data goes to the device below. A block that was metadata
// and becomes file data without BACKING_INVAL is overwritten by its old content
// at the next Sync, as it would be on a machine.
type PageCached struct {
	dev BlockDev

	mu    sync.Mutex
	pages map[int64][]byte // dirty
}

// PageCached returns the server's view of a device through the page cache.
func (k *Kernel) PageCached(dev BlockDev) *PageCached {
	c := &PageCached{dev: dev, pages: make(map[int64][]byte)}
	k.disk.mu.Lock()
	k.disk.cache = append(k.disk.cache, c)
	k.disk.mu.Unlock()
	return c
}

// Size returns the device's size.
func (c *PageCached) Size() int64 { return c.dev.Size() }

// ReadAt reads through the cache.
func (c *PageCached) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.dev.ReadAt(p, off)
	for i, page := range c.pages {
		at := i * pageSize
		if at < off+int64(len(p)) && at+pageSize > off {
			lo, hi := max(at, off), min(at+pageSize, off+int64(len(p)))
			copy(p[lo-off:hi-off], page[lo-at:hi-at])
		}
	}
	return n, err
}

// WriteAt writes into the cache.
func (c *PageCached) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > c.dev.Size() {
		return 0, syscall.EIO
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for done := 0; done < len(p); {
		at := off + int64(done)
		i := at / pageSize
		page := c.pages[i]
		if page == nil {
			page = make([]byte, pageSize)
			n := min(pageSize, c.dev.Size()-i*pageSize)
			if _, err := c.dev.ReadAt(page[:n], i*pageSize); err != nil {
				return done, err
			}
			c.pages[i] = page
		}
		done += copy(page[at-i*pageSize:], p[done:])
	}
	return len(p), nil
}

// Sync writes the cache to the device and syncs that.
func (c *PageCached) Sync() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, page := range c.pages {
		n := min(pageSize, c.dev.Size()-i*pageSize)
		if _, err := c.dev.WriteAt(page[:n], i*pageSize); err != nil {
			return err
		}
		delete(c.pages, i)
	}
	return c.dev.Sync()
}

// Close forgets the cache; it does not write it.
func (c *PageCached) Close() error { return nil }

func (c *PageCached) dirty(off, n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.pages {
		if i*pageSize < off+n && (i+1)*pageSize > off {
			return true
		}
	}
	return false
}

func (d *diskCache) drop(from, to int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.cache {
		c.mu.Lock()
		for i := range c.pages {
			if i*pageSize < to && (i+1)*pageSize > from {
				delete(c.pages, i)
			}
		}
		c.mu.Unlock()
	}
}

// checkAliased is A10: a range that becomes file data has no dirty copy in the
// page cache of its device.
func (k *Kernel) checkAliased(in *Inode, m *Mapping, addr, n int64) {
	b := k.backing(m.Dev)
	k.disk.mu.Lock()
	cache := append([]*PageCached(nil), k.disk.cache...)
	k.disk.mu.Unlock()
	for _, c := range cache {
		if b == nil || c.dev != b.dev && BlockDev(c) != b.dev {
			continue
		}
		k.expect("A10", !c.dirty(addr, n), in, "%v: [%d,+%d) is dirty in the page cache of the device: no BACKING_INVAL", *m, addr,
			n)
	}
}
