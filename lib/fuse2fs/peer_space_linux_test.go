package fuse2fs_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/iomappeer"
	"github.com/e2kit/e2kit/internal/testfs"
)

// spaceSpecs are small: they are filled.
var spaceSpecs = []testfs.Spec{
	{Name: "ext4", Size: 24 << 20, Inodes: 256},
	{Name: "ext4-1k", BlockSize: 1024, Size: 16 << 20, Inodes: 256},
	{Name: "bigalloc", Features: "bigalloc", Cluster: 16384, Size: 48 << 20, Inodes: 256},
	{Name: "ext3-1k", Type: "ext3", BlockSize: 1024, Size: 16 << 20, Inodes: 256},
}

// fill writes a file until there is no space for a block, in ever smaller pieces.
func (m mounted) fill(h *iomappeer.File, bs int64, write func([]byte, int64) (int, syscall.Errno)) {
	m.t.Helper()
	for size := int64(len(m.data)); size >= bs; size /= 2 {
		for {
			n, errno := write(m.data[:size], h.Inode().Size())
			if errno == syscall.ENOSPC {
				break
			}
			m.ok("write", errno)
			if n == 0 {
				m.t.Fatal("nothing was written, for no reason")
			}
		}
	}
}

// left is how many blocks may be left of those that are free when no more can be
// written: what is kept for metadata, as ext4 does, and less than a write.
func (m mounted) left(bs int64, ratio uint64) uint64 {
	return uint64(m.dev.Size()/bs)/50 + 2*ratio
}

// A file system is filled to the last block, through the page cache and past it. All
// that was accepted can be written back, the numbers of statfs stay sane, and all is
// given back.
func TestPeerFill(t *testing.T) {
	for _, spec := range spaceSpecs {
		t.Run(spec.Name, func(t *testing.T) {
			img := newPeerImage(t, spec)
			for _, direct := range []bool{false, true} {
				for _, profile := range profiles {
					t.Run(fmt.Sprintf("%v/direct=%v", profile, direct), func(t *testing.T) {
						m := mountPeer(t, img, peerOptions{Config: iomappeer.Config{Profile: profile, NoChecks: true}})
						ratio := uint64(max(int64(spec.Cluster)/img.bs, 1))
						before, errno := m.Statfs()
						m.ok("statfs", errno)
						h := m.file("a", 0)
						write := h.Write
						if direct {
							write = h.DWrite
						}
						m.fill(h, img.bs, write)
						full, errno := m.Statfs()
						m.ok("statfs", errno)
						if full.Bfree > m.left(img.bs, ratio) || full.Bavail > full.Bfree || full.Bfree > full.Blocks {
							t.Errorf("of %d blocks %d are free and %d available when full", full.Blocks, full.Bfree, full.Bavail)
						}
						m.ok("fsync", h.Fsync(false))
						m.reread(h)
						m.ok("close", h.Close())
						if used := uint64(h.Inode().Size() / img.bs); used+used/200+m.left(img.bs, ratio) < before.Bfree {
							t.Errorf("of %d free blocks the file got %d", before.Bfree, used)
						}
						m.ok("unlink", m.Unlink(m.Root(), "a"))
						m.ok("sync", m.Sync())
						var after iomappeer.Statfs
						for range 1000 { // nobody is told when a FORGET has been served
							if after, _ = m.Statfs(); after.Bfree == before.Bfree {
								break
							}
							time.Sleep(10 * time.Millisecond)
						}
						if after.Bfree != before.Bfree {
							t.Errorf("%d blocks are free after all, %d were before", after.Bfree, before.Bfree)
						}
						m.unmount()
					})
				}
			}
		})
	}
}

// What is reserved for files that nobody uses comes back when it is missed.
func TestPeerPrune(t *testing.T) {
	eachProfile(t, func(o *peerOptions) { o.NoChecks = true }, func(t *testing.T, m mounted) {
		before, errno := m.Statfs()
		m.ok("statfs", errno)
		// Streams, for which more is reserved than they write.
		for i := range 30 {
			h := m.file(fmt.Sprint(i), 0)
			for at := range int64(5) {
				_, errno := h.Write(m.data[:4096], at*4096)
				m.ok("write", errno)
			}
			m.ok("close", h.Close())
		}
		idle, errno := m.Statfs()
		m.ok("statfs", errno)
		held := int64(before.Bfree) - int64(idle.Bfree) - 30*5
		if held < 30 {
			t.Fatalf("%d blocks are reserved for idle files: the test shows nothing", held)
		}
		h := m.file("big", 0)
		m.fill(h, 4096, h.Write)
		m.ok("fsync", h.Fsync(false))
		if used := uint64(h.Inode().Size() / 4096); used+30*5+m.left(4096, 1) < before.Bfree {
			t.Errorf("of %d free blocks the file got %d", before.Bfree, used)
		}
		if n := m.Count().Notify["PRUNE"]; n == 0 {
			t.Error("the kernel was not asked for inodes")
		}
		h.Close()
		for i := range 30 {
			in, errno := m.Lookup(m.Root(), fmt.Sprint(i))
			m.ok("lookup", errno)
			h, errno := m.Open(in, syscall.O_RDONLY)
			m.ok("open", errno)
			m.reread(h)
			h.Close()
		}
		m.unmount()
	})
}

// What a direct write that failed has reserved comes back, and the kernel does not
// think that it can write there.
func TestPeerFailedDirectWrite(t *testing.T) {
	var faults *iomappeer.Faults
	eachProfile(t, func(o *peerOptions) {
		faults = &iomappeer.Faults{WriteFails: 1}
		faults.Off.Store(true)
		o.NoChecks, o.Faults = true, faults
	}, func(t *testing.T, m mounted) {
		h := m.file("a", 4096)
		before, errno := m.Statfs()
		m.ok("statfs", errno)
		faults.Off.Store(false)
		for i := range int64(5) {
			_, errno := h.DWrite(m.data[:512+i<<13], 1<<20+i<<21) // no stream: nothing is reserved ahead
			m.is("direct write", errno, syscall.EIO)
		}
		faults.Off.Store(true)
		if after, _ := m.Statfs(); after.Bfree != before.Bfree {
			t.Errorf("%d blocks are free, %d were before", after.Bfree, before.Bfree)
		}
		for i := range int64(5) {
			before := m.Count()
			_, errno := h.Write(m.data[:100], 1<<20+i<<21)
			m.ok("write", errno)
			if m.Count().Sub(before).Upcalls["IOMAP_BEGIN"] == 0 {
				t.Errorf("write %d goes to blocks that were given back", i)
			}
		}
		m.ok("fsync", h.Fsync(false))
		m.reread(h)
		h.Close()
		m.unmount()
	})
}
