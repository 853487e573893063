package iomappeer

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"
)

// start mounts a reference server; what it is left with is checked at the end,
// unless the test is about a broken one.
func start(t testing.TB, c Config, r refConfig) (*Kernel, *refServer) {
	t.Helper()
	k, s := tryStart(t, c, r)
	if !k.mounted.Load() {
		t.Fatal("the mount failed")
	}
	if r.bug == "" {
		t.Cleanup(func() {
			if k.mounted.Load() {
				if err := k.Unmount(); err != nil {
					t.Error(err)
				}
			}
			s.wg.Wait()
			if err := k.Err(); err != nil {
				t.Error(err)
			}
		})
	}
	return k, s
}

func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7) ^ byte(i>>8) ^ seed | 1
	}
	return p
}

func ok(t testing.TB, what string, errno syscall.Errno) {
	t.Helper()
	if errno != 0 {
		t.Fatalf("%s: %v", what, errno)
	}
}

func (h *File) mustRead(t testing.TB, n int, pos int64, want []byte) {
	t.Helper()
	got := make([]byte, n)
	c, errno := h.Read(got, pos)
	ok(t, "read", errno)
	if !bytes.Equal(got[:c], want) {
		t.Fatalf("read %d bytes at %d: wrong bytes", n, pos)
	}
}

func eachKernel(t *testing.T, f func(t *testing.T, c Config, r refConfig)) {
	for _, prof := range []Profile{May26, V7} {
		for _, cache := range []bool{false, true} {
			for _, bs := range []int64{1024, 4096, 16384} {
				t.Run(fmt.Sprintf("%v/cache=%v/bs=%d", prof, cache, bs), func(t *testing.T) {
					f(t, Config{Profile: prof, RootNodeID: 2}, refConfig{bs: bs, cache: cache})
				})
			}
		}
	}
}

func TestFileIO(t *testing.T) {
	eachKernel(t, func(t *testing.T, c Config, r refConfig) {
		k, _ := start(t, c, r)
		h, errno := k.Create(k.Root(), "a", 0o644)
		ok(t, "create", errno)
		p := pattern(50000, 3)
		n, errno := h.Write(p, 0)
		ok(t, "write", errno)
		if n != len(p) {
			t.Fatalf("wrote %d bytes", n)
		}
		h.mustRead(t, 60000, 0, p)
		ok(t, "fsync", h.Fsync(false))
		k.DropCaches(h.Inode())
		h.mustRead(t, 60000, 0, p)
		// Behind the end, with a gap.
		_, errno = h.Write(p[:100], 90001)
		ok(t, "write behind the end", errno)
		ok(t, "fsync", h.Fsync(false))
		k.DropCaches(h.Inode())
		want := append(append(bytes.Clone(p), make([]byte, 40001)...), p[:100]...)
		h.mustRead(t, 100000, 0, want)
		// Directly.
		_, errno = h.DWrite(p[:4096*2], 4096)
		ok(t, "direct write", errno)
		copy(want[4096:], p[:4096*2])
		h.mustRead(t, 100000, 0, want)
		_, errno = h.DWrite(p[:512], 512)
		ok(t, "direct write of a sector", errno)
		_, errno = h.DWrite(p[:1024], 131072+512)
		ok(t, "direct write behind the end", errno)
		buf := make([]byte, 131072)
		_, errno = h.DRead(buf, 0)
		ok(t, "direct read", errno)
		ok(t, "mmap", h.MmapWrite(p[:10000], 100))
		ok(t, "truncate", h.Truncate(5000))
		ok(t, "truncate up", h.Truncate(20000))
		k.DropCaches(h.Inode())
		_, errno = h.Read(buf, 0)
		ok(t, "read", errno)
		ok(t, "punch", h.Fallocate(FallocPunchHole|FallocKeepSize, 1000, 9000))
		ok(t, "zero range", h.Fallocate(FallocZeroRange, 11000, 30000))
		ok(t, "allocate", h.Fallocate(0, 50000, 10000))
		ok(t, "allocate ahead", h.Fallocate(FallocKeepSize, 100000, 10000))
		_, errno = h.Read(buf, 0)
		ok(t, "read", errno)
		_, errno = k.Fiemap(h.Inode(), 0, maxLFS)
		ok(t, "fiemap", errno)
		at, errno := k.Seek(h.Inode(), 0, SeekHole)
		ok(t, "seek", errno)
		if at <= 0 || at > h.Inode().Size() {
			t.Errorf("the first hole is at %d", at)
		}
		ok(t, "close", h.Close())
	})
}

// TestCopy copies between files, and within one.
func TestCopy(t *testing.T) {
	k, _ := start(t, Config{}, refConfig{cache: true})
	a, errno := k.Create(k.Root(), "a", 0o644)
	ok(t, "create", errno)
	b, errno := k.Create(k.Root(), "b", 0o644)
	ok(t, "create", errno)
	p := pattern(30000, 1)
	_, errno = a.Write(p, 0)
	ok(t, "write", errno)
	n, errno := a.CopyTo(b, 100, 5000, 20000)
	ok(t, "copy", errno)
	if n != 20000 {
		t.Errorf("copied %d bytes", n)
	}
	b.mustRead(t, 30000, 0, append(make([]byte, 5000), p[100:20100]...))
	if _, errno := a.CopyTo(a, 0, 100, 200); errno != syscall.EINVAL {
		t.Errorf("a copy onto itself is %v", errno)
	}
	a.Close()
	b.Close()
}

// TestCount counts requests: what is cached costs none.
func TestCount(t *testing.T) {
	k, _ := start(t, Config{}, refConfig{cache: true})
	h, errno := k.Create(k.Root(), "a", 0o644)
	ok(t, "create", errno)
	p := pattern(256<<10, 1)
	before := k.Count()
	_, errno = h.Write(p, 0)
	ok(t, "write", errno)
	ok(t, "fsync", h.Fsync(false))
	c := k.Count().Sub(before)
	for op, want := range map[string]int64{"IOMAP_BEGIN": 1, "IOMAP_END": 1, "IOMAP_IOEND": 1, "SETATTR": 1, "FSYNC": 1} {
		if c.Upcalls[op] != want {
			t.Errorf("%d requests %s, want %d:\n%v", c.Upcalls[op], op, want, c)
		}
	}
	if c.Notify["UPSERT_MAPPINGS"] != 1 || c.ByTask["write"]["IOMAP_BEGIN"] != 1 {
		t.Errorf("counted %v", c)
	}
	before = k.Count()
	h.mustRead(t, len(p), 0, p)
	if n := k.Count().Sub(before).Total(); n != 0 {
		t.Errorf("reading what is in the page cache costs %d requests", n)
	}
	h.Close()
}
