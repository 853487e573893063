//go:build linux

package fuse

import (
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
)

// memFS is a directory of files in memory, as little of a file system as the
// kernel can work with. Node ids are 1 for the directory, 2 and up for files.
type memFS struct {
	mu    sync.RWMutex
	names map[string]uint64 // guarded by mu
	files []*memFile        // by node id - 2; nil once forgotten; guarded by mu
	calls [64]atomic.Int64  // by Op

	destroyed atomic.Int64 // calls of Destroy
	seen      []Op         // guarded by mu, if trace
	trace     bool
	valid     uint64 // seconds for which attributes are cached
	slow      time.Duration
}

type memFile struct {
	mu      sync.RWMutex
	data    []byte // guarded by mu
	nlookup uint64 // guarded by memFS.mu
}

func newMemFS() *memFS { return &memFS{names: map[string]uint64{}, valid: 3600} }

func (m *memFS) file(node uint64) *memFile {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if node < 2 || node-2 >= uint64(len(m.files)) {
		return nil
	}
	return m.files[node-2]
}

func (m *memFS) attr(node uint64, a *Attr) {
	*a = Attr{Ino: node, Nlink: 1, Blksize: 4096}
	if node == RootID {
		a.Mode, a.Nlink = syscall.S_IFDIR|0o755, 2
		return
	}
	a.Mode = syscall.S_IFREG | 0o644
	if f := m.file(node); f != nil {
		f.mu.RLock()
		a.Size = uint64(len(f.data))
		f.mu.RUnlock()
	}
}

func (m *memFS) entry(node uint64, e *EntryOut) {
	e.NodeID, e.Generation, e.EntryValid, e.AttrValid = node, 1, m.valid, m.valid
	m.attr(node, &e.Attr)
}

// create returns the node of name, and whether it is new.
func (m *memFS) create(name string) (uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n, ok := m.names[name]; ok {
		m.files[n-2].nlookup++
		return n, false
	}
	m.files = append(m.files, &memFile{nlookup: 1})
	n := uint64(len(m.files) + 1)
	m.names[name] = n
	return n, true
}

func (m *memFS) handlers() Handlers {
	h := Handlers{
		OpLookup: func(r *Request) {
			name, ok := r.Name()
			if !ok {
				r.ReplyErr(syscall.EINVAL)
				return
			}
			m.mu.Lock()
			node, ok := m.names[string(name)]
			if ok {
				m.files[node-2].nlookup++
			}
			m.mu.Unlock()
			if !ok {
				r.ReplyErr(syscall.ENOENT)
				return
			}
			m.entry(node, Out[EntryOut](r))
			r.Reply(0)
		},
		OpForget: func(r *Request) { r.ReplyNone() },
		OpGetattr: func(r *Request) {
			out := Out[AttrOut](r)
			out.AttrValid = m.valid
			m.attr(r.NodeID(), &out.Attr)
			r.Reply(0)
		},
		OpSetattr: func(r *Request) {
			in, ok := In[SetattrIn](r)
			f := m.file(r.NodeID())
			if !ok || f == nil {
				r.ReplyErr(syscall.EINVAL)
				return
			}
			if in.Valid&FattrSize != 0 {
				f.mu.Lock()
				f.data = append(f.data[:min(int(in.Size), len(f.data))], make([]byte, max(0, int(in.Size)-len(f.data)))...)
				f.mu.Unlock()
			}
			m.attr(r.NodeID(), &Out[AttrOut](r).Attr)
			r.Reply(0)
		},
		OpMknod: func(r *Request) {
			_, ok := In[MknodIn](r)
			name, ok2 := r.Name()
			if !ok || !ok2 {
				r.ReplyErr(syscall.EINVAL)
				return
			}
			node, _ := m.create(string(name))
			m.entry(node, Out[EntryOut](r))
			r.Reply(0)
		},
		OpUnlink: func(r *Request) {
			name, ok := r.Name()
			if !ok {
				r.ReplyErr(syscall.EINVAL)
				return
			}
			m.mu.Lock()
			_, ok = m.names[string(name)]
			delete(m.names, string(name))
			m.mu.Unlock()
			if !ok {
				r.ReplyErr(syscall.ENOENT)
				return
			}
			r.ReplyErr(0)
		},
		OpRead: func(r *Request) {
			in, ok := In[ReadIn](r)
			f := m.file(r.NodeID())
			if !ok || f == nil {
				r.ReplyErr(syscall.EIO)
				return
			}
			time.Sleep(m.slow)
			buf := r.OutBuf(int(in.Size))
			f.mu.RLock()
			n := 0
			if in.Offset < uint64(len(f.data)) {
				n = copy(buf, f.data[in.Offset:])
			}
			f.mu.RUnlock()
			r.Reply(n)
		},
		OpWrite: func(r *Request) {
			in, ok := In[WriteIn](r)
			f := m.file(r.NodeID())
			if !ok || f == nil || len(r.Payload()) != int(in.Size) {
				r.ReplyErr(syscall.EIO)
				return
			}
			f.mu.Lock()
			if end := int(in.Offset) + int(in.Size); end > len(f.data) {
				f.data = append(f.data, make([]byte, end-len(f.data))...)
			}
			copy(f.data[in.Offset:], r.Payload())
			f.mu.Unlock()
			Out[WriteOut](r).Size = in.Size
			r.Reply(0)
		},
		OpReaddir: func(r *Request) {
			in, ok := In[ReadIn](r)
			if !ok {
				r.ReplyErr(syscall.EIO)
				return
			}
			buf := r.OutBuf(int(in.Size))[:0]
			m.mu.RLock()
			defer m.mu.RUnlock()
			for n := in.Offset; n < uint64(len(m.files)); n++ {
				for name, node := range m.names {
					if node == n+2 {
						if buf, ok = AppendDirent(buf, node, n+1, syscall.DT_REG, []byte(name)); !ok {
							r.Reply(len(buf))
							return
						}
					}
				}
			}
			r.Reply(len(buf))
		},
		OpStatfs: func(r *Request) {
			Out[StatfsOut](r).St = Kstatfs{Bsize: 4096, Frsize: 4096, Namelen: 255}
			r.Reply(0)
		},
		OpSyncfs:  func(r *Request) { r.ReplyErr(0) },
		OpFsync:   func(r *Request) { r.ReplyErr(0) },
		OpRelease: func(r *Request) { r.ReplyErr(0) },
	}
	for op, f := range h {
		h[op] = func(r *Request) {
			m.calls[op].Add(1)
			if m.trace {
				m.mu.Lock()
				m.seen = append(m.seen, op)
				m.mu.Unlock()
			}
			f(r)
		}
	}
	return h
}

const memFlags = AsyncRead | ParallelDirops | AsyncDIO | NoOpenSupport | NoOpendirSupport |
	ExplicitInvalData | WritebackCache | MaxPages

// mounted is a memFS on a real mount.
type mounted struct {
	*memFS
	dir   string
	m     *Mount
	c     *Conn
	ended chan error
}

// mountMem mounts m, with handlers of cfg before its own; the test's end unmounts it.
func mountMem(t testing.TB, m *memFS, o MountOptions, cfg Config) *mounted {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	o.Subtype = "e2kit"
	if o.BlockDevice == "" {
		o.Source = "memfs-test"
	}
	return mountAt(t, m, o, cfg, t.TempDir())
}

// overUring has mountAt mount so that requests come by io_uring.
var overUring bool

// mountAt is mountMem without a choice of its own.
func mountAt(t testing.TB, m *memFS, o MountOptions, cfg Config, dir string) *mounted {
	t.Helper()
	restore := func() {}
	if overUring {
		restore = testfs.Uring(t, true)
		defer restore()
	}
	mnt, err := NewMount(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	h := m.handlers()
	maps.Copy(h, cfg.Handlers)
	cfg.Handlers = h
	if cfg.Flags == 0 {
		cfg.Flags = memFlags
	}
	destroy := cfg.Destroy
	cfg.Destroy = func() {
		if destroy != nil {
			destroy()
		}
		m.destroyed.Add(1)
	}
	cfg.Log = t.Logf
	if overUring {
		if cfg.Rings, err = NewRings(cfg.MaxPages); err != nil {
			t.Fatal(err)
		}
	}
	c, err := NewConn(mnt.Fd(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	x := &mounted{m, dir, mnt, c, make(chan error, 1)}
	go func() { x.ended <- c.Serve() }()
	if overUring {
		<-c.Ready()
		if n := c.Negotiated(); !n.Uring {
			t.Errorf("not served over io_uring: %v", n.NoUring)
		}
		restore()
	}
	if err := mnt.Attach(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.unmount(t) })

	// Package os polls each file that it opens, inside a system call during
	// which Go's scheduler cannot do anything else: where all of its threads
	// wait so for this very process, nobody answers. The first answer, ENOSYS,
	// makes the kernel ask no more.
	probe := dir + "/probe"
	if err := unix.Mknod(probe, unix.S_IFREG|0o644, 0); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(probe, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	unix.Close(fd)
	unix.Unlink(probe)
	return x
}

// unmount unmounts, waits for the server and checks that it ended well.
func (x *mounted) unmount(t testing.TB) {
	t.Helper()
	if x.m == nil {
		return
	}
	if err := unix.Unmount(x.dir, 0); err != nil {
		unix.Unmount(x.dir, unix.MNT_DETACH)
		t.Errorf("unmount: %v", err)
	}
	x.gone(t)
}

// gone is unmount for what has been unmounted.
func (x *mounted) gone(t testing.TB) {
	t.Helper()
	x.m.Close()
	x.m = nil
	select {
	case err := <-x.ended:
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the server did not end")
	}
	if n := x.destroyed.Load(); n != 1 {
		t.Errorf("Destroy was called %d times", n)
	}
}
