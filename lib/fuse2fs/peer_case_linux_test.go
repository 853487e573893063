package fuse2fs_test

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/iomappeer"
	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// A mounted is a peer's mount, for tests that do one thing after the other.
type mounted struct {
	*peered
	data []byte // 64 KiB without a zero in it
}

func mountPeer(t *testing.T, img *peerImage, o peerOptions) mounted {
	m := mounted{startPeer(t, img, o), make([]byte, 64<<10)}
	for i := range m.data {
		m.data[i] = byte(i%251) + 1
	}
	return m
}

// ok fails the test unless errno is 0.
func (m mounted) ok(what string, errno syscall.Errno) {
	m.t.Helper()
	if errno != 0 {
		m.t.Fatalf("%s: %v", what, errno)
	}
}

// is fails the test unless errno is want.
func (m mounted) is(what string, errno, want syscall.Errno) {
	m.t.Helper()
	if errno != want {
		m.t.Errorf("%s: errno %d, want %d", what, errno, want)
	}
}

// file makes a file of n bytes that is synced.
func (m mounted) file(name string, n int) *iomappeer.File {
	m.t.Helper()
	h, errno := m.Create(m.Root(), name, 0o644)
	m.ok("create", errno)
	if n > 0 {
		_, errno = h.Write(m.data[:n], 0)
		m.ok("write", errno)
		m.ok("fsync", h.Fsync(false))
	}
	return h
}

// reread reads a file from the device, which the peer compares with what it wrote.
func (m mounted) reread(h *iomappeer.File) {
	m.t.Helper()
	m.DropCaches(h.Inode())
	_, errno := h.Read(make([]byte, h.Inode().Size()), 0)
	m.ok("read", errno)
}

// eachProfile runs f for the usual image in both profiles.
func eachProfile(t *testing.T, set func(o *peerOptions), f func(t *testing.T, m mounted)) {
	img := newPeerImage(t, testfs.Spec{Name: "ext4", Size: 24 << 20})
	for _, profile := range profiles {
		t.Run(profile.String(), func(t *testing.T) {
			o := peerOptions{Config: iomappeer.Config{Profile: profile}}
			if set != nil {
				set(&o)
			}
			f(t, mountPeer(t, img, o))
		})
	}
}

const writeback = iomappeer.IOEndWriteback | iomappeer.IOEndUnwritten

// What could not be written back fails the next fsync of the file, and only that,
// whether the kernel tells or not.
func TestPeerWritebackErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		cause func(m mounted, h *iomappeer.File) syscall.Errno
		want  syscall.Errno
	}{
		{"IOEND with an error", func(m mounted, h *iomappeer.File) syscall.Errno {
			_, errno := m.InjectIOEnd(h.Inode(), writeback, syscall.ENOMEM, 0, 4096)
			return errno
		}, syscall.ENOMEM},
		{"IOEND of what was not begun", func(m mounted, h *iomappeer.File) syscall.Errno {
			_, errno := m.InjectIOEnd(h.Inode(), writeback, 0, 1<<20, 4096)
			return errno
		}, syscall.EIO},
		{"BEGIN of write-back", func(m mounted, h *iomappeer.File) syscall.Errno {
			return m.Probe(h.Inode(), iomappeer.OpWriteback, 1<<44, 4096)
		}, syscall.EFBIG},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachProfile(t, nil, func(t *testing.T, m mounted) {
				h, other := m.file("a", 8192), m.file("b", 8192)
				m.is("the answer", c.cause(m, h), c.want)
				m.ok("fsync of another file", other.Fsync(false))
				m.is("fsync", h.Fsync(false), c.want)
				m.ok("fsync again", h.Fsync(false))
				m.reread(h)
				h.Close()
				other.Close()
				m.unmount()
			})
		})
	}
}

// What could not be written back of a file that is gone does not fail the fsync of the
// one that gets its number.
func TestPeerWritebackErrorGone(t *testing.T) {
	eachProfile(t, nil, func(t *testing.T, m mounted) {
		h := m.file("a", 8192)
		was := h.Inode().NodeID()
		if _, errno := m.InjectIOEnd(h.Inode(), writeback, syscall.EIO, 0, 4096); errno != syscall.EIO {
			t.Errorf("errno %d", errno)
		}
		m.ok("unlink", m.Unlink(m.Root(), "a"))
		h.Close()
		again := false
		for i := range 100 {
			h := m.file(fmt.Sprint(i), 8192)
			again = again || h.Inode().NodeID() == was
			h.Close()
		}
		if !again {
			t.Error("no file got the number")
		}
		m.unmount()
	})
}

// The value of an attribute may be larger than what else one answer has.
func TestPeerLargeXattr(t *testing.T) {
	img := newPeerImage(t, testfs.Spec{Name: "ea_inode", Size: 24 << 20, Features: "ea_inode"})
	m := mountPeer(t, img, peerOptions{pages: 1})
	h := m.file("a", 0)
	ip, err := m.fs.Iget(ondisk.Ino(h.Inode().NodeID()))
	if err != nil {
		t.Fatal(err)
	}
	if err := ip.Setxattr("user.large", m.data, 0, false); err != nil {
		t.Fatal(err)
	}
	ip.Put()
	v, errno := m.Getxattr(h.Inode(), "user.large")
	m.ok("getxattr", errno)
	if !bytes.Equal(v, m.data) {
		t.Errorf("%d bytes of %d", len(v), len(m.data))
	}
	h.Close()
	m.unmount()
}

// IOENDs that no kernel sends do no harm.
func TestPeerStrayIoends(t *testing.T) {
	eachProfile(t, nil, func(t *testing.T, m mounted) {
		h := m.file("a", 20000)
		// Twice, in part, and over blocks in all states.
		size, errno := m.InjectIOEnd(h.Inode(), writeback, 0, 0, 20000)
		m.ok("duplicate", errno)
		if size != 20000 {
			t.Errorf("the size is %d", size)
		}
		_, errno = m.InjectIOEnd(h.Inode(), writeback|iomappeer.IOEndAppend, 0, 4096, 100)
		m.ok("duplicate of a part", errno)
		m.ok("fallocate", h.Fallocate(0, 20480, 40960))
		_, errno = h.Write(m.data[:4096], 32768)
		m.ok("write", errno)
		_, errno = m.InjectIOEnd(h.Inode(), writeback, 0, 28672, 8192)
		m.ok("written, unwritten and reserved blocks", errno)
		if _, errno = m.InjectIOEnd(h.Inode(), iomappeer.IOEndShared|writeback, 0, 0, 4096); errno == 0 {
			t.Error("blocks that are shared are taken for granted")
		}
		m.is("fsync after it", h.Fsync(false), syscall.EUCLEAN)
		m.ok("truncate", h.Truncate(0))
		if _, errno = m.InjectIOEnd(h.Inode(), writeback, 0, 0, 20000); errno == 0 {
			t.Error("an IOEND of blocks that a truncate took succeeds")
		}
		m.is("fsync after truncate", h.Fsync(false), syscall.EIO)
		m.ok("fsync again", h.Fsync(false))
		if a, _ := m.ServerAttr(h.Inode()); a.Size != 0 {
			t.Errorf("the size is %d after truncate", a.Size)
		}
		for _, w := range []int64{0, 1 << 62, -1} {
			m.InjectIOEnd(h.Inode(), writeback, 0, 1<<62, w)
		}
		h.Fsync(false)
		// Other than the last, ends of files that have no name.
		_, errno = h.Write(m.data[:10000], 0)
		m.ok("write", errno)
		m.ok("unlink", m.Unlink(m.Root(), "a"))
		m.ok("fsync of a file without a name", h.Fsync(false))
		_, errno = m.InjectIOEnd(h.Inode(), writeback, 0, 0, 10000)
		m.ok("IOEND of a file without a name", errno)
		m.reread(h)
		h.Close()
		m.unmount()
	})
}

// IOENDs of two files come in another order than their BEGINs.
func TestPeerIoendOrder(t *testing.T) {
	eachProfile(t, nil, func(t *testing.T, m mounted) {
		var hs []*iomappeer.File
		for i := range 4 {
			h := m.file(fmt.Sprint(i), 0)
			_, errno := h.Write(m.data, int64(i)*1000)
			m.ok("write", errno)
			hs = append(hs, h)
		}
		for i := range hs {
			m.ok("fsync", hs[len(hs)-1-i].Fsync(false))
		}
		for _, h := range hs {
			m.reread(h)
			h.Close()
		}
		m.unmount()
	})
}

// While frozen the device is clean, has what was dirty, and does not change.
func TestPeerFreeze(t *testing.T) {
	eachProfile(t, nil, func(t *testing.T, m mounted) {
		h := m.file("a", 0)
		_, errno := h.Write(m.data[:30000], 0)
		m.ok("write", errno)
		var gone []*iomappeer.File
		for i := range 40 {
			h := m.file(fmt.Sprint(i), 5000)
			m.ok("unlink", m.Unlink(m.Root(), fmt.Sprint(i)))
			gone = append(gone, h)
		}
		m.ok("freeze", m.Freeze())
		frozen := m.dev.(*blockdev.Mem).Clone()
		m.reread(h)
		if _, errno := m.Stat(h.Inode()); errno != 0 {
			t.Errorf("stat: %v", errno)
		}
		if _, errno := m.Readdir(m.Root()); errno != 0 {
			t.Errorf("readdir: %v", errno)
		}
		a, b := save(t, frozen), save(t, m.dev)
		if !sameFile(t, a, b) {
			t.Error("the device has changed while frozen")
		}
		dev, err := blockdev.Open(a, blockdev.Options{Direct: blockdev.DirectOff})
		if err != nil {
			t.Fatal(err)
		}
		if got := contentOf(t, dev, "a"); !bytes.Equal(got, m.data[:30000]) {
			t.Errorf("%d bytes are on the frozen device", len(got))
		}
		if err := testfs.E2fsck(t, a, ""); err != nil { // the files without a name are freed now
			t.Error(err)
		}
		for _, h := range gone { // more than there are threads
			m.ok("close", h.Close())
		}
		m.ok("thaw", m.Thaw())
		_, errno = h.Write(m.data[:100], 30000)
		m.ok("write", errno)
		h.Close()
		m.unmount()
	})
}

// After a shutdown nothing is written any more, and what was synced is there.
func TestPeerShutdown(t *testing.T) {
	eachProfile(t, nil, func(t *testing.T, m mounted) {
		h := m.file("a", 30000)
		_, errno := h.Write(m.data[:4096], 60000)
		m.ok("write", errno)
		in := h.Inode()
		m.ok("shutdown", m.Shutdown())
		before := save(t, m.dev)
		if _, errno := m.InjectIOEnd(in, writeback, 0, 0, 4096); errno == 0 {
			t.Error("an IOEND succeeds after a shutdown")
		}
		if _, errno := h.Write(m.data, 0); errno == 0 {
			t.Error("a write succeeds after a shutdown")
		}
		m.Crash()
		<-m.ended
		m.done = true
		if !sameFile(t, before, save(t, m.dev)) {
			t.Error("the device has changed after the shutdown")
		}
		if got := contentOf(t, m.dev.(*blockdev.Mem).Clone(), "a"); !bytes.Equal(got[:min(len(got), 30000)], m.data[:30000]) {
			t.Errorf("of what was synced there are %d bytes", len(got))
		}
	})
}

// contentOf recovers a device and reads a file of its root.
func contentOf(t *testing.T, dev blockdev.Device, name string) []byte {
	t.Helper()
	fs, err := ext2fs.Open(dev, ext2fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	r, n, _, err := recovered{fs}.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	r.ReadAt(b, 0)
	return b
}

func sameFile(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}

// DESTROY is answered last: when what was sent before is done, and the file system
// closed and clean, with any number of threads.
func TestPeerDestroy(t *testing.T) {
	for _, socket := range []bool{false, true} {
		eachProfile(t, func(o *peerOptions) { o.socket, o.workers = socket, 4 }, func(t *testing.T, m mounted) {
			for i := range 200 {
				h := m.file(fmt.Sprint(i), 0)
				_, errno := h.Write(m.data[:5000], 0)
				m.ok("write", errno)
				if i%2 == 0 {
					m.ok("unlink", m.Unlink(m.Root(), fmt.Sprint(i)))
				}
				m.ok("close", h.Close()) // RELEASE, and FORGET of what has no name
			}
			m.unmount()
			if m.Evals()["A15"] == 0 {
				t.Error("nobody looked at DESTROY")
			}
		})
	}
}

// What statx says beside the basic fields.
func TestPeerStatx(t *testing.T) {
	eachProfile(t, nil, func(t *testing.T, m mounted) {
		h := m.file("a", 5000)
		s, errno := m.Statx(h.Inode())
		m.ok("statx", errno)
		const want = 0x7ff | 0x800 | 0x2000 | 0x10000 | 0x20000
		if s.Mask&want != want {
			t.Errorf("the mask is %#x, want %#x", s.Mask, want)
		}
		if s.DIOMemAlign != 512 || s.DIOOffsetAlign != 512 || s.DIOReadOffsetAlign != 512 {
			t.Errorf("direct I/O is aligned to %d, %d, %d", s.DIOMemAlign, s.DIOOffsetAlign, s.DIOReadOffsetAlign)
		}
		if s.AtomicUnitMin != 4096 || s.AtomicUnitMax != 4096 || s.AtomicSegmentsMax != 1 {
			t.Errorf("atomic writes are %d to %d in %d", s.AtomicUnitMin, s.AtomicUnitMax, s.AtomicSegmentsMax)
		}
		if s.Size != 5000 || s.Nlink != 1 || s.Blksize != 4096 || s.Btime.Sec == 0 {
			t.Errorf("size %d, links %d, block %d, born %d", s.Size, s.Nlink, s.Blksize, s.Btime.Sec)
		}
		if s, errno = m.Statx(m.Root()); errno != 0 || s.Mask&0x32000 != 0 {
			t.Errorf("of a folder: errno %d, mask %#x", errno, s.Mask)
		}
		h.Close()
		m.unmount()
	})
}

// Directories are not the kernel's: what is made in them gets its mode and its ACLs
// in the transaction that makes it, and the kernel asks for none before.
func TestPeerModes(t *testing.T) {
	acl := []byte{2, 0, 0, 0,
		1, 0, 7, 0, 255, 255, 255, 255, // user::rwx
		2, 0, 6, 0, 10, 0, 0, 0, // user:10:rw-
		4, 0, 5, 0, 255, 255, 255, 255, // group::r-x
		16, 0, 7, 0, 255, 255, 255, 255, // mask::rwx
		32, 0, 4, 0, 255, 255, 255, 255} // other::r--
	eachProfile(t, func(o *peerOptions) { o.Umask = 0o027 }, func(t *testing.T, m mounted) {
		h, errno := m.Create(m.Root(), "plain", 0o666)
		m.ok("create", errno)
		if got := h.Inode().Mode() & 0o7777; got != 0o640 {
			t.Errorf("the mode is %#o, want 0640", got)
		}
		h.Close()
		dir, errno := m.Mkdir(m.Root(), "dir", 0o777)
		m.ok("mkdir", errno)
		m.ok("setfacl", m.SetACL(dir, "system.posix_acl_default", acl))
		before := m.Count()
		h, errno = m.Create(dir, "file", 0o666)
		m.ok("create", errno)
		if n := m.Count().Sub(before); n.Total() != 1 {
			t.Errorf("to make a file in a folder with a default ACL takes %v", n)
		}
		if got := h.Inode().Mode() & 0o7777; got != 0o664 {
			t.Errorf("the mode is %#o, want 0664", got)
		}
		if got, errno := m.Getxattr(h.Inode(), "system.posix_acl_access"); errno != 0 || len(got) != len(acl) {
			t.Errorf("the access ACL is %x, errno %d", got, errno)
		}
		sub, errno := m.Mkdir(dir, "sub", 0o777)
		m.ok("mkdir", errno)
		if got, errno := m.Getxattr(sub, "system.posix_acl_default"); errno != 0 || !bytes.Equal(got, acl) {
			t.Errorf("the folder's default ACL is %x, errno %d", got, errno)
		}
		h.Close()
		m.unmount()
	})
}

// Flags set by ioctl are in the attributes, and come back.
func TestPeerFlags(t *testing.T) {
	eachProfile(t, nil, func(t *testing.T, m mounted) {
		for _, fl := range []uint32{iomappeer.FlagSyncFL, iomappeer.FlagImmutableFL, iomappeer.FlagAppendFL} {
			h := m.file(fmt.Sprint(fl), 5000)
			old, errno := m.Getflags(h.Inode())
			m.ok("getflags", errno)
			m.ok("setflags", m.Setflags(h.Inode(), old|fl)) // looks at the attributes
			m.ok("forget", h.Close())
			want := syscall.EPERM
			if fl == iomappeer.FlagSyncFL {
				want = 0
			}
			g, errno := m.Open(h.Inode(), syscall.O_RDWR)
			m.is("open", errno, want)
			if errno == 0 {
				g.Close()
			}
			m.ok("setflags", m.Setflags(h.Inode(), old))
			g, errno = m.Open(h.Inode(), syscall.O_RDWR)
			m.ok("open", errno)
			g.Close()
		}
		m.unmount()
	})
}

// Data is copied by the server though the kernel has the pages.
func TestPeerCopy(t *testing.T) {
	eachProfile(t, nil, func(t *testing.T, m mounted) {
		a, b := m.file("a", 0), m.file("b", 50000)
		_, errno := a.Write(m.data[:40000], 12345) // dirty, behind a hole
		m.ok("write", errno)
		for _, c := range [][3]int64{{0, 0, 60000}, {13000, 100, 5000}, {40000, 200000, 12345}, {0, 70000, 12000}} {
			n, errno := a.CopyTo(b, c[0], c[1], c[2])
			m.ok("copy", errno)
			if want := min(c[2], a.Inode().Size()-c[0]); n != want {
				t.Errorf("copied %d bytes of %d", n, want)
			}
			m.reread(b)
		}
		a.Close()
		b.Close()
		m.unmount()
	})
}

// A file with its data in the inode becomes one with blocks by any write that does
// not fit, at any size.
func TestPeerInlineConversion(t *testing.T) {
	img := newPeerImage(t, testfs.Spec{Name: "inline", Features: "inline_data", InodeSize: 512, Size: 24 << 20})
	ways := []struct {
		name string
		do   func(m mounted, h *iomappeer.File, n int64) syscall.Errno
	}{
		{"append", func(m mounted, h *iomappeer.File, n int64) syscall.Errno {
			_, errno := h.Write(m.data[:600], n)
			return errno
		}},
		{"far", func(m mounted, h *iomappeer.File, _ int64) syscall.Errno {
			_, errno := h.Write(m.data[:10], 100000)
			return errno
		}},
		{"direct", func(m mounted, h *iomappeer.File, _ int64) syscall.Errno {
			_, errno := h.DWrite(m.data[:4096], 4096)
			return errno
		}},
		{"mmap", func(m mounted, h *iomappeer.File, n int64) syscall.Errno {
			if n == 0 {
				return 0
			}
			return h.MmapWrite(m.data[:1], n-1)
		}},
		{"grow", func(_ mounted, h *iomappeer.File, n int64) syscall.Errno { return h.Truncate(n + 5000) }},
		{"fallocate", func(_ mounted, h *iomappeer.File, n int64) syscall.Errno { return h.Fallocate(0, 0, n+5000) }},
		{"punch", func(_ mounted, h *iomappeer.File, n int64) syscall.Errno {
			return h.Fallocate(iomappeer.FallocPunchHole|iomappeer.FallocKeepSize, n/2, 300)
		}},
		{"stay", func(m mounted, h *iomappeer.File, n int64) syscall.Errno {
			_, errno := h.Write(m.data[:n/2], n/4)
			return errno
		}},
	}
	for _, profile := range profiles {
		t.Run(profile.String(), func(t *testing.T) {
			m := mountPeer(t, img, peerOptions{Config: iomappeer.Config{Profile: profile}})
			for n := 0; n <= 400; n += 1 + n/16 {
				for _, way := range ways {
					h := m.file("f", 0)
					if n > 0 {
						_, errno := h.Write(m.data[:n], 0)
						m.ok("write", errno)
					}
					if n%2 == 0 {
						m.ok("fsync", h.Fsync(false))
						m.DropCaches(h.Inode())
					}
					if errno := way.do(m, h, int64(n)); errno != 0 && errno != syscall.EOPNOTSUPP {
						t.Fatalf("%s of %d bytes: %v", way.name, n, errno)
					}
					m.reread(h)
					m.ok("fsync", h.Fsync(false))
					m.reread(h)
					m.ok("close", h.Close())
					m.ok("unlink", m.Unlink(m.Root(), "f"))
				}
			}
			m.unmount()
		})
	}
}

// RETRY_CACHE is answered only where the cache has the answer: whatever becomes of
// an UPSERT, and even if nothing stays in the cache, all goes on.
func TestPeerRetryCache(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults *iomappeer.Faults
	}{
		{"UPSERT fails", &iomappeer.Faults{UpsertFails: 1}},
		{"UPSERT fails at times", &iomappeer.Faults{UpsertFails: 0.5}},
		{"the cache always misses", &iomappeer.Faults{CacheMisses: 1}},
		{"the cache misses at times", &iomappeer.Faults{CacheMisses: 0.5, UpsertFails: 0.3}},
		{"mappings are stale", &iomappeer.Faults{Stale: 0.7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachProfile(t, func(o *peerOptions) { o.Faults = copyFaults(c.faults) }, func(t *testing.T, m mounted) {
				h := m.file("a", 60000)
				for i := range int64(20) {
					_, errno := h.Write(m.data[:3000], i*7000)
					m.ok("write", errno)
					_, errno = h.DWrite(m.data[:4096], i*8192)
					m.ok("direct write", errno)
					m.ok("mmap", h.MmapWrite(m.data[:500], i*500))
				}
				m.ok("fsync", h.Fsync(false))
				m.reread(h)
				h.Close()
				m.unmount()
				if c.faults.UpsertFails < 1 && m.Evals()["A9"] == 0 {
					t.Error("RETRY_CACHE was never answered")
				}
			})
		})
	}
}
