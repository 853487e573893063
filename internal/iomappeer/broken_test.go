package iomappeer

import (
	"errors"
	"syscall"
	"testing"
	"time"
)

// broken is a way to be wrong, and the check that has to say so.
type broken struct {
	bug   string
	check string
	c     Config
	r     refConfig
	n     int // operations; default 500
	do    func(k *Kernel, s *refServer)
}

// write makes a file of a few blocks and syncs it.
func (b *broken) file(k *Kernel) *File {
	h, errno := k.Create(k.Root(), "broken", 0o666)
	if errno != 0 {
		return nil
	}
	h.Write(pattern(20000, 1), 0)
	h.Fsync(false)
	return h
}

var all = []broken{
	{bug: "unaligned length", check: "A1"},
	{bug: "mapping before the position", check: "A1"},
	{bug: "unknown flag", check: "A1"},
	{bug: "NULL device", check: "A1"},
	{bug: "config flags of the future", check: "A17", c: Config{ConfigOffer: configAll, Faults: &Faults{ConfigBits: 1 << 20}}},
	{bug: "HOLE for WRITE", check: "A2"},
	{bug: "HOLE for WRITEBACK", check: "A2"},
	{bug: "ZERO allocates", check: "A2"},
	{bug: "REPORT allocates", check: "A2"},
	{bug: "DIRTY swap file", check: "A3"},
	{bug: "ATOMIC_BIO on all", check: "A3"},
	{bug: "double allocation", check: "A4"},
	{bug: "MAPPED before IOEND", check: "A5"},
	{bug: "conversion dropped", check: "A5"},
	{bug: "last partial block not converted", check: "A5"},
	{bug: "newsize too small", check: "A6"},
	{bug: "size rounded to blocks", check: "A6"},
	{bug: "truncate does not set the size", check: "A6"},
	{bug: "error IOEND converts", check: "A7", c: Config{Faults: &Faults{WriteFails: 0.3}}, do: func(k *Kernel, s *refServer) {
		h, _ := k.Create(k.Root(), "a", 0o644)
		k.cfg.Faults.Off.Store(true)
		h.Write(pattern(4096, 1), 0)
		k.cfg.Faults.Off.Store(false)
		for range 10 {
			h.DWrite(pattern(4096, 1), 4096)
			h.Write(pattern(4096, 1), 8192)
			h.Fsync(false)
			k.Fiemap(h.Inode(), 0, 1<<20)
			h.Truncate(0)
		}
	}},
	{bug: "inline conversion without INVAL", check: "A8", r: refConfig{cache: true, inline: 160}, do: inlineGrows},
	{bug: "moves blocks", check: "A8", r: refConfig{cache: true}, do: func(k *Kernel, s *refServer) {
		h := new(broken).file(k)
		k.DropCaches(h.Inode())
		h.Read(make([]byte, 20000), 0)             // caches the mappings
		k.Probe(h.Inode(), OpWrite|OpAtomic, 0, 1) // a BEGIN though they are cached
		k.Fiemap(h.Inode(), 0, 1<<20)
	}},
	{bug: "UPSERT of other than the answer", check: "A8", r: refConfig{cache: true}, do: func(k *Kernel, s *refServer) {
		h := new(broken).file(k)
		k.DropCaches(h.Inode())
		h.Read(make([]byte, 20000), 0)
		k.Fiemap(h.Inode(), 0, 1<<20)
	}},
	{bug: "RETRY_CACHE without UPSERT", check: "A9", r: refConfig{cache: true}},
	{bug: "RETRY_CACHE whatever UPSERT says", check: "A9", r: refConfig{cache: true}, c: Config{Faults: &Faults{UpsertFails: 0.5}}},
	{bug: "RETRY_CACHE for ever", check: "A9", r: refConfig{cache: true}, c: Config{Faults: &Faults{CacheMisses: 1}}},
	{bug: "no BACKING_INVAL", check: "A10", r: refConfig{meta: &PageCached{}}},
	{bug: "size by END only", check: "A11", c: Config{NoEnd: true}, do: func(k *Kernel, s *refServer) {
		h := new(broken).file(k)
		k.Forget(h.Inode())
		h.Close()
		k.Forget(h.Inode())
		in, _ := k.Lookup(k.Root(), "broken")
		k.expect("A11", in.Size() == 20000, in, "the size is %d", in.Size())
	}},
	{bug: "ENOSYS for IOEND", check: "A11"},
	{bug: "punch takes partial blocks", check: "A12"},
	{bug: "punch zeroes the wrong side", check: "A12"},
	{bug: "KEEP_SIZE sets the size", check: "A13"},
	{bug: "umask applied", check: "A14", c: Config{Umask: 0o022}, do: func(k *Kernel, s *refServer) {
		acl := enc([]byte{2, 0, 0, 0}, []byte{1, 0, 7, 0, 255, 255, 255, 255}, []byte{4, 0, 7, 0, 255, 255, 255, 255},
			[]byte{32, 0, 7, 0, 255, 255, 255, 255})
		k.Setxattr(k.Root(), "system.posix_acl_default", acl, 0)
		new(broken).file(k)
	}},
	{bug: "DESTROY with the device open", check: "A15", n: 10},
	{bug: "RELEASE after DESTROY", check: "A15", n: 10},
	{bug: "EIO for unknown opcodes", check: "A16", n: 1},
	{bug: "reserved word set", check: "A16"},
	{bug: "special fields not filled", check: "A1"},
	{bug: "special fields not filled", check: "A17", c: Config{Profile: V7}},
	{bug: "RETRY_CACHE in the write slot", check: "A17", r: refConfig{cache: true}},
	{bug: "WANT_IOMAP_END", check: "A17"},
	{bug: "iomap without exclusive", check: "A17"},
	{bug: "minor of the stock protocol", check: "A17"},
	{bug: "bit 43 for stock", check: "A17", c: Config{Stock: true}, n: 1},
	{bug: "short hole at the end", check: "A17"},
	{bug: "deadlock of IOEND", check: "A18", c: Config{Watchdog: time.Second}, do: func(k *Kernel, s *refServer) {
		h, _ := k.Create(k.Root(), "a", 0o644)
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.Fsync(false)
		}()
		time.Sleep(50 * time.Millisecond)
		h.DWrite(pattern(4096, 1), 0)
		<-done
	}},
	{bug: "address of the run, not of its part", check: "DATA"},
	{bug: "truncate frees the last block", check: "DATA"},
	{bug: "times of its own", check: "ATTR"},
	{bug: "SETFLAGS does nothing", check: "ATTR", do: func(k *Kernel, s *refServer) {
		k.Setflags(new(broken).file(k).Inode(), FlagAppendFL)
	}},
}

// inlineGrows makes a file of inline data too large for that, with its mapping in
// the cache.
func inlineGrows(k *Kernel, s *refServer) {
	h, _ := k.Create(k.Root(), "small", 0o644)
	h.Write(pattern(100, 1), 0)
	k.DropCaches(h.Inode())
	// The rest of the file is a hole that is cached.
	h.Truncate(10000)
	k.Fiemap(h.Inode(), 0, 1<<20)
	h.Read(make([]byte, 10000), 0)
	k.Probe(h.Inode(), OpWrite|OpDirect|OpAtomic, 0, k.bs) // a BEGIN though the mapping is cached
	h.Write(pattern(100, 1), 100)
	h.Fsync(false)
	k.DropCaches(h.Inode())
	h.Read(make([]byte, 10000), 0)
}

// TestBroken runs servers that are wrong in one way each. The check that is meant
// to see it must see it, which shows that no check is empty.
func TestBroken(t *testing.T) {
	for _, b := range all {
		t.Run(b.bug+"/"+b.check, func(t *testing.T) {
			c, r := b.c, b.r
			r.bug = b.bug
			if c.Faults != nil {
				c.Faults = &Faults{UpsertFails: c.Faults.UpsertFails, CacheMisses: c.Faults.CacheMisses,
					WriteFails: c.Faults.WriteFails, ConfigBits: c.Faults.ConfigBits}
			}
			k, s := tryStart(t, c, r)
			defer func() {
				close(s.stuck)
				k.Crash()
				s.wg.Wait()
			}()
			if k.mounted.Load() {
				if b.do != nil {
					b.do(k, s)
				} else {
					n := b.n
					if n == 0 {
						n = 500
					}
					Fuzz(k, 3, n, FuzzOptions{Faults: true, MaxSize: 128 << 10})
				}
				k.Unmount()
			}
			found := map[string]bool{}
			for _, v := range k.Violations() {
				found[v.Check] = true
			}
			if !found[b.check] {
				t.Errorf("%q is not seen by %s, only by %v; evaluated: %v", b.bug, b.check, found, k.Evals())
			}
		})
	}
	declared := map[string]bool{}
	for _, b := range all {
		declared[b.check] = true
	}
	for name := range Checks {
		if !declared[name] && name != "NAME" {
			t.Errorf("no broken server is for %s", name)
		}
	}
}

var errOpen = errors.New("the device is open")

func tryStart(t testing.TB, c Config, r refConfig) (*Kernel, *refServer) {
	r.prof, r.root = c.Profile, c.RootNodeID
	s := newRef(t, r)
	c.Resolve = func(int32) (BlockDev, syscall.Errno) { return s.dev, 0 }
	if c.Watchdog == 0 {
		c.Watchdog = 10 * time.Second
	}
	c.FreeBlocks = s.freeBlocks
	c.Metadata = func(addr, n int64) bool { return addr < s.bs }
	c.Destroyed = func() error {
		if !s.closed.Load() {
			return errOpen
		}
		return nil
	}
	k := New(c)
	if r.meta != nil {
		s.meta = k.PageCached(s.dev)
	}
	if r.socket {
		fd, err := k.Listen()
		if err != nil {
			t.Fatal(err)
		}
		d, err := Dial(fd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		s.serve(d)
	} else {
		s.serve(k.Device())
	}
	if err := k.Mount(); err != nil {
		t.Log(err)
	}
	return k, s
}
