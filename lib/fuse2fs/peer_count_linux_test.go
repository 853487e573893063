package fuse2fs_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/iomappeer"
	"github.com/e2kit/e2kit/internal/testfs"
)

// nowhere is a device for data of which nobody looks at the bytes.
type nowhere int64

func (n nowhere) ReadAt(p []byte, _ int64) (int, error)  { clear(p); return len(p), nil }
func (n nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (n nowhere) Sync() error                            { return nil }
func (n nowhere) Size() int64                            { return int64(n) }

// A counted is a mount whose requests are counted.
type counted struct {
	*peered
	t *testing.T
}

func newCounted(t *testing.T, img *peerImage, profile iomappeer.Profile) counted {
	dev := img.mem.Clone()
	p := startPeer(t, img, peerOptions{Config: iomappeer.Config{Profile: profile, CountOnly: true, NoChecks: true}, dev: dev,
		data: nowhere(dev.Size())})
	return counted{p, t}
}

func (c counted) create(name string) *iomappeer.File {
	c.t.Helper()
	h, errno := c.Create(c.Root(), name, 0o644)
	c.must(errno)
	return h
}

func (c counted) must(errno syscall.Errno) {
	c.t.Helper()
	if errno != 0 {
		c.t.Fatal(errno)
	}
}

// of returns what do costs.
func (c counted) of(do func()) iomappeer.Counts {
	before := c.Count()
	do()
	return c.Count().Sub(before)
}

const mib = 1 << 20

// stream writes n bytes in pieces of size, and has what is dirty written back each
// flush bytes.
func (c counted) stream(h *iomappeer.File, off, n, size, flush int64, direct bool) {
	c.t.Helper()
	buf := make([]byte, size)
	for at := off; at < off+n; at += size {
		if direct {
			_, errno := h.DWrite(buf, at)
			c.must(errno)
			continue
		}
		_, errno := h.Write(buf, at)
		c.must(errno)
		if (at+size)%flush == 0 {
			c.must(c.Writeback(h.Inode()))
			c.DropCaches(h.Inode())
		}
	}
}

// random writes, or reads, count pieces of size bytes in n bytes.
func (c counted) random(h *iomappeer.File, n, size int64, count int, io func([]byte, int64) (int, syscall.Errno)) {
	c.t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, size)
	for range count {
		_, errno := io(buf, r.Int64N(n/size)*size)
		c.must(errno)
	}
}

// A countCase is an operation, and what it may cost.
type countCase struct {
	name string
	do   func(c counted) iomappeer.Counts
	// Most that is allowed of each request; others are allowed none, but those
	// that have nothing to do with mappings.
	most map[string]int64
	// total, if set, is the most of all requests.
	total int64
}

// chatter is requests that the kernel sends for times and such, and an END of each
// connection.
var chatter = map[string]bool{"SETATTR": true, "FSYNC": true, "GETATTR": true, "IOMAP_END": true, "FLUSH": true}

// TestPeerCount holds what operations cost in requests against limits.
//
// Inevitable is an IOEND of each direct write that makes a file longer or fills a
// hole, and of each piece of write-back of such data: the protocol has no other way
// to make it part of the file. How long the pieces are is the kernel's choice; here
// it writes back 32 MiB at a time, or what is dirty when a file is synced. Backups of
// the superblock cut five pieces of a gibibyte in two.
func TestPeerCount(t *testing.T) {
	const gib = 1 << 30
	big := testfs.Spec{Name: "big", Size: 3 << 30}
	perMiB16 := func(n int64) int64 { return n / (16 * mib) }
	var cases []countCase
	for _, size := range []int64{4 << 10, 64 << 10, mib} {
		cases = append(cases, countCase{name: fmt.Sprintf("stream of 1 GiB in %d KiB", size>>10),
			most: map[string]int64{"IOMAP_BEGIN": perMiB16(gib), "IOMAP_IOEND": perMiB16(gib)},
			do: func(c counted) iomappeer.Counts {
				h := c.create("a")
				return c.of(func() { c.stream(h, 0, gib, size, 32*mib, false) })
			}})
	}
	cases = append(cases,
		countCase{name: "direct stream of 1 GiB in 1 MiB",
			most: map[string]int64{"IOMAP_BEGIN": perMiB16(gib), "IOMAP_IOEND": gib / mib},
			do: func(c counted) iomappeer.Counts {
				h := c.create("a")
				return c.of(func() { c.stream(h, 0, gib, mib, 0, true) })
			}},
		countCase{name: "direct stream of 1 GiB in 16 MiB",
			most: map[string]int64{"IOMAP_BEGIN": perMiB16(gib), "IOMAP_IOEND": perMiB16(gib)},
			do: func(c counted) iomappeer.Counts {
				h := c.create("a")
				return c.of(func() { c.stream(h, 0, gib, 16*mib, 0, true) })
			}},
		countCase{name: "read and overwrite 256 MiB again",
			do: func(c counted) iomappeer.Counts {
				h := c.create("a")
				c.stream(h, 0, 256*mib, mib, 32*mib, false)
				c.must(h.Fsync(false))
				return c.of(func() {
					buf := make([]byte, mib)
					for at := int64(0); at < 256*mib; at += mib {
						_, errno := h.Read(buf, at)
						c.must(errno)
					}
					c.DropCaches(h.Inode())
					c.stream(h, 0, 256*mib, mib, 32*mib, false)
					c.stream(h, 0, 256*mib, mib, 0, true)
					_, errno := h.DRead(buf, 7*mib)
					c.must(errno)
				})
			}},
		countCase{name: "random 4 KiB overwrites, direct and not",
			do: func(c counted) iomappeer.Counts {
				h := c.create("a")
				c.stream(h, 0, 256*mib, mib, 32*mib, false)
				c.must(h.Fsync(false))
				return c.of(func() {
					c.random(h, 256*mib, 4096, 4000, h.DWrite)
					c.random(h, 256*mib, 4096, 4000, h.Write)
					c.must(c.Writeback(h.Inode()))
					c.random(h, 256*mib, 4096, 1000, h.DRead)
				})
			}},
		countCase{name: "open, read and close of a cached file", total: 1,
			do: func(c counted) iomappeer.Counts {
				h := c.create("a")
				c.stream(h, 0, mib, mib, mib, false)
				c.must(h.Fsync(false))
				buf := make([]byte, mib)
				h.Read(buf, 0)
				c.must(h.Close())
				once := func() {
					in, errno := c.Lookup(c.Root(), "a")
					c.must(errno)
					h, errno := c.Open(in, syscall.O_RDONLY)
					c.must(errno)
					_, errno = h.Read(buf, 0)
					c.must(errno)
					c.must(h.Close())
				}
				once() // the kernel finds out that it need not ask
				return c.of(once)
			}},
		countCase{name: "create, write and close 100 files of 4 KiB", total: 602,
			most: map[string]int64{"CREATE": 100, "IOMAP_BEGIN": 100, "IOMAP_IOEND": 100, "GETXATTR": 100, "RELEASE": 100},
			do: func(c counted) iomappeer.Counts {
				return c.of(func() {
					for i := range 100 {
						h := c.create(fmt.Sprint(i))
						c.stream(h, 0, 4096, 4096, mib, false)
						c.must(h.Close())
					}
				})
			}},
		countCase{name: "append 4 KiB and sync, 256 times", total: 3*256 + 16,
			most: map[string]int64{"IOMAP_BEGIN": 16, "IOMAP_IOEND": 256},
			do: func(c counted) iomappeer.Counts {
				h := c.create("a")
				return c.of(func() {
					for i := range int64(256) {
						c.stream(h, i*4096, 4096, 4096, mib, false)
						c.must(h.Fsync(false))
					}
				})
			}},
		countCase{name: "store to 1,000 pages of a mapped file",
			do: func(c counted) iomappeer.Counts {
				h := c.create("a")
				c.stream(h, 0, 16*mib, mib, 16*mib, false)
				c.must(h.Fsync(false))
				return c.of(func() {
					c.random(h, 16*mib, 4096, 1000, func(p []byte, at int64) (int, syscall.Errno) { return len(p), h.MmapWrite(p, at) })
					c.must(c.Writeback(h.Inode()))
				})
			}},
	)
	img := newPeerImage(t, big)
	for _, profile := range profiles {
		for _, k := range cases {
			t.Run(fmt.Sprintf("%v/%s", profile, k.name), func(t *testing.T) { k.run(t, newCounted(t, img, profile)) })
		}
	}
	for _, spec := range []testfs.Spec{{Name: "4k", Size: 256 << 20}, {Name: "1k", BlockSize: 1024, Size: 256 << 20}} {
		img := newPeerImage(t, spec)
		for _, profile := range profiles {
			// Each block of 128 MiB is written once, in random order.
			k := countCase{most: map[string]int64{"IOMAP_BEGIN": 128 * mib / 4096 / 4, "IOMAP_IOEND": 128 * mib / 4096 / 4},
				total: 128 * mib / 4096 / 4,
				do: func(c counted) iomappeer.Counts {
					h := c.create("a")
					c.must(h.Fallocate(0, 0, 128*mib))
					return c.of(func() {
						buf := make([]byte, 4096)
						for _, i := range rand.New(rand.NewPCG(3, 4)).Perm(128 * mib / 4096) {
							_, errno := h.DWrite(buf, int64(i)*4096)
							c.must(errno)
						}
					})
				}}
			t.Run(fmt.Sprintf("%v/random direct 4 KiB into fallocated space, %s", profile, spec.Name),
				func(t *testing.T) { k.run(t, newCounted(t, img, profile)) })
		}
	}
}

func (k *countCase) run(t *testing.T, c counted) {
	got := k.do(c)
	t.Logf("%v notifications %v", got.Upcalls, got.Notify)
	var all int64
	for name, n := range got.Upcalls {
		all += n
		if (name == "IOMAP_END" || name == "FLUSH") && n > 1 {
			t.Errorf("%d of %s, which need not come twice", n, name)
		}
		if most, ok := k.most[name]; n > most && (ok || !chatter[name]) {
			t.Errorf("%d of %s, want at most %d", n, name, most)
		}
	}
	if k.total > 0 && all > k.total {
		t.Errorf("%d requests, want at most %d", all, k.total)
	}
	if err := c.Err(); err != nil {
		t.Error(err)
	}
}
