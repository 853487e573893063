package iomappeer

import (
	"bytes"
	"io"
	"io/fs"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestNames(t *testing.T) {
	k, _ := start(t, Config{Umask: 0o022}, refConfig{})
	root := k.Root()
	d, errno := k.Mkdir(root, "d", 0o777)
	ok(t, "mkdir", errno)
	if d.Mode()&0o7777 != 0o755 {
		t.Errorf("the folder's mode is %#o", d.Mode())
	}
	h, errno := k.Create(d, "a", 0o666)
	ok(t, "create", errno)
	ok(t, "link", k.Link(h.Inode(), root, "b"))
	ok(t, "rename", k.Rename(d, "a", root, "c", RenameNoreplace))
	if errno := k.Rename(root, "b", root, "d", RenameNoreplace); errno != syscall.EEXIST {
		t.Errorf("rename onto a name is %v", errno)
	}
	_, errno = k.Symlink(root, "s", "target")
	ok(t, "symlink", errno)
	s, errno := k.Walk("/s")
	ok(t, "walk", errno)
	target, errno := k.Readlink(s)
	ok(t, "readlink", errno)
	if target != "target" {
		t.Errorf("the link leads to %q", target)
	}
	_, errno = k.Mknod(root, "null", syscall.S_IFCHR|0o600, 0x103)
	ok(t, "mknod", errno)
	list, errno := k.Readdir(root)
	ok(t, "readdir", errno)
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	if want := []string{"d", "b", "c", "s", "null"}; !slices.Equal(names, want) {
		t.Errorf("the root has %q, want %q", names, want)
	}
	// Names and attributes are cached: nothing is asked twice.
	before := k.Count()
	for range 3 {
		_, errno = k.Walk("d")
		ok(t, "walk", errno)
		_, errno = k.Lookup(root, "nothing")
		if errno != syscall.ENOENT {
			t.Errorf("lookup of nothing is %v", errno)
		}
		_, errno = k.Stat(d)
		ok(t, "stat", errno)
	}
	if c := k.Count().Sub(before); c.Upcalls["LOOKUP"] != 1 || c.Upcalls["GETATTR"] > 1 {
		t.Errorf("cached names cost %v", c)
	}
	ok(t, "unlink", k.Unlink(root, "b"))
	ok(t, "unlink", k.Unlink(root, "c"))
	_, errno = h.Write([]byte("still there"), 0)
	ok(t, "write to an unlinked file", errno)
	h.mustRead(t, 100, 0, []byte("still there"))
	ok(t, "close", h.Close())
	ok(t, "rmdir", k.Rmdir(root, "d"))
	ok(t, "chmod", k.Chmod(s, 0o777))
	ok(t, "chown", k.Chown(s, 5, 6))
	_, errno = k.Statx(s)
	ok(t, "statx", errno)
}

// TestDefaultACL has the kernel inherit from a default ACL.
func TestDefaultACL(t *testing.T) {
	acl := enc([]byte{2, 0, 0, 0},
		[]byte{1, 0, 7, 0, 255, 255, 255, 255}, // user::rwx
		[]byte{2, 0, 7, 0, 10, 0, 0, 0},        // user:10:rwx
		[]byte{4, 0, 5, 0, 255, 255, 255, 255}, // group::r-x
		[]byte{16, 0, 7, 0, 255, 255, 255, 255},
		[]byte{32, 0, 4, 0, 255, 255, 255, 255}) // other::r--
	k, s := start(t, Config{Umask: 0o077}, refConfig{})
	ok(t, "setfacl", k.SetACL(k.Root(), "system.posix_acl_default", acl))
	h, errno := k.Create(k.Root(), "a", 0o666)
	ok(t, "create", errno)
	if m := h.Inode().Mode() & 0o7777; m != 0o664 {
		t.Errorf("the mode is %#o, want 0664: the umask does not count where there is a default ACL", m)
	}
	if s.inodes[h.Inode().NodeID()].xattrs["system.posix_acl_access"] == nil {
		t.Error("the file has no access ACL")
	}
	d, errno := k.Mkdir(k.Root(), "d", 0o777)
	ok(t, "mkdir", errno)
	got, errno := k.Getxattr(d, "system.posix_acl_default")
	ok(t, "getxattr", errno)
	if !bytes.Equal(got, acl) {
		t.Errorf("the folder inherits %x", got)
	}
	h.Close()
}

func TestFlagsAndSwap(t *testing.T) {
	k, _ := start(t, Config{}, refConfig{})
	h, errno := k.Create(k.Root(), "a", 0o644)
	ok(t, "create", errno)
	_, errno = h.Write(pattern(40960, 1), 0)
	ok(t, "write", errno)
	maps, errno := k.Swapon(h.Inode())
	ok(t, "swapon", errno)
	if len(maps) == 0 || k.Swapoff(h.Inode()) != 0 || k.Swapoff(h.Inode()) != syscall.EINVAL {
		t.Error("swap does not come and go")
	}
	_, errno = h.AtomicWrite(pattern(4096, 2), 8192)
	ok(t, "atomic write", errno)
	if _, errno = h.AtomicWrite(pattern(8192, 2), 8192); errno != syscall.EINVAL {
		t.Errorf("an atomic write of two blocks is %v", errno)
	}
	ok(t, "setflags", k.Setflags(h.Inode(), FlagImmutableFL))
	h.Close()
	if _, errno := k.Open(h.Inode(), syscall.O_RDWR); errno != syscall.EPERM {
		t.Errorf("an immutable file opens for writing: %v", errno)
	}
	fl, errno := k.Getflags(h.Inode())
	ok(t, "getflags", errno)
	if fl != FlagImmutableFL {
		t.Errorf("the flags are %#x", fl)
	}
}

// TestFreeze has a writer wait for the thaw.
func TestFreeze(t *testing.T) {
	k, _ := start(t, Config{}, refConfig{})
	h, errno := k.Create(k.Root(), "a", 0o644)
	ok(t, "create", errno)
	ok(t, "freeze", k.Freeze())
	wrote := make(chan syscall.Errno)
	go func() {
		_, errno := h.Write([]byte("x"), 0)
		wrote <- errno
	}()
	select {
	case <-wrote:
		t.Error("a write went through while frozen")
	case <-time.After(20 * time.Millisecond): // it cannot be seen to wait, only not to end
	}
	ok(t, "thaw", k.Thaw())
	ok(t, "write", <-wrote)
	ok(t, "close", h.Close())
	ok(t, "shutdown", k.Shutdown())
	if _, errno := k.Open(h.Inode(), syscall.O_RDONLY); errno != syscall.EIO {
		t.Errorf("open after shutdown is %v", errno)
	}
}

// TestInject sends what no kernel sends.
func TestInject(t *testing.T) {
	k, _ := start(t, Config{}, refConfig{})
	h, errno := k.Create(k.Root(), "a", 0o644)
	ok(t, "create", errno)
	_, errno = h.Write(pattern(20000, 1), 0)
	ok(t, "write", errno)
	ok(t, "fsync", h.Fsync(false))
	in := h.Inode()
	for range 2 {
		n, errno := k.InjectIOEnd(in, IOEndWriteback|IOEndUnwritten, 0, 0, 20000)
		ok(t, "ioend twice", errno)
		if n != 20000 {
			t.Errorf("newsize is %d", n)
		}
	}
	ok(t, "end", k.InjectEnd(in, OpWrite, 0, 4096, 0, Mapping{Length: 4096, Addr: nullAddr, Type: TypeHole}))
	ok(t, "unlink", k.Unlink(k.Root(), "a"))
	_, errno = k.InjectIOEnd(in, IOEndWriteback|IOEndUnwritten, 0, 0, 20000)
	ok(t, "ioend after unlink", errno)
	h.mustRead(t, 30000, 0, pattern(20000, 1))
	h.Close()
}

// refTree reads files as the server has them, with nothing of the page cache.
type refTree struct{ s *refServer }

type refFile struct {
	s *refServer
	n *rinode
}

func (f refFile) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, f.s.readData(f.n, off, int64(len(p))))
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (r refTree) Open(path string) (io.ReaderAt, int64, uint64, error) {
	n := r.s.inodes[r.s.root]
	for p := range bytes.SplitSeq([]byte(path), []byte("/")) {
		ino, ok := n.names[string(p)]
		if !ok {
			return nil, 0, 0, fs.ErrNotExist
		}
		n = r.s.inodes[ino]
	}
	return refFile{r.s, n}, n.size, n.ino, nil
}

// TestCrash cuts the connection in the middle of things: what was synced is there,
// and nothing is that was not written.
func TestCrash(t *testing.T) {
	for seed := range uint64(6) {
		k, s := tryStart(t, Config{Seed: seed}, refConfig{cache: seed%2 == 0})
		if _, err := Fuzz(k, seed, 300, FuzzOptions{Without: []string{"copy"}}); err != nil {
			t.Fatal(err)
		}
		h, errno := k.Create(k.Root(), "synced", 0o644)
		ok(t, "create", errno)
		p := pattern(30000, byte(seed))
		h.Write(p, 0)
		ok(t, "fsync", h.Fsync(false))
		h.Write(p[:5000], 10000)
		h.Write(p[:5000], 40000) // not synced
		if seed%3 == 0 {
			k.Writeback(h.Inode())
		}
		e := k.Expect()
		k.Crash()
		s.wg.Wait()
		if _, must := e.Files(); must == 0 {
			t.Fatal("no file has to be there")
		}
		if msgs := e.Check(refTree{s}); len(msgs) > 0 {
			t.Fatalf("seed %d: %q", seed, msgs)
		}
		// The check can fail: a lost byte, a stale one, a short file, a lost file.
		n := s.inodes[h.Inode().NodeID()]
		blk := n.ext[0].blk * s.bs
		for _, c := range []struct {
			what string
			do   func()
		}{
			{"lost", func() { s.dev.WriteAt([]byte{0}, blk+7) }},
			{"stale", func() { s.dev.WriteAt([]byte{0xa7 ^ s.dev.b[blk+8]}, blk+8) }},
			{"short", func() { n.size = 100 }},
			{"gone", func() { delete(s.inodes[s.root].names, "synced") }},
		} {
			saved, size := bytes.Clone(s.dev.b[blk:blk+s.bs]), n.size
			c.do()
			if len(e.Check(refTree{s})) == 0 {
				t.Errorf("%s is not seen", c.what)
			}
			s.dev.WriteAt(saved, blk)
			n.size = size
		}
		if err := k.Err(); err != nil {
			t.Error(err)
		}
	}
}
