//go:build linux

package fuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
)

// mountUring is mountMem over io_uring.
func mountUring(t *testing.T, m *memFS, cfg Config) *mounted {
	t.Helper()
	overUring = true
	defer func() { overUring = false }()
	return mountMem(t, m, MountOptions{}, cfg)
}

// What is tested of mounts holds over io_uring too.
func TestUring(t *testing.T) {
	overUring = true
	defer func() { overUring = false }()
	for _, c := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Mount", TestMount}, {"Truncate", TestTruncate}, {"NoHandler", TestNoHandler}, {"Parallel", TestParallel},
		{"Deferred", TestDeferred}, {"Notify", TestNotify}, {"UnmountBlock", TestUnmountBlock}, {"UnmountPlain", TestUnmountPlain},
	} {
		t.Run(c.name, c.run)
	}
}

// Where the kernel does not offer it, what comes by /dev/fuse is served by as many
// threads as ever, and the rings are gone.
func TestUringOff(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	restore := testfs.Uring(t, false)
	defer restore()
	rings, err := NewRings(0)
	if err != nil {
		t.Fatal(err)
	}
	x := mountMem(t, newMemFS(), MountOptions{}, Config{Rings: rings})
	restore()
	if n := x.c.Negotiated(); n.Uring || !errors.Is(n.NoUring, errUringOff) {
		t.Errorf("uring %v: %v", n.Uring, n.NoUring)
	}
	if rings.Files() != 0 {
		t.Errorf("%d rings are left", rings.Files())
	}
	if err := os.WriteFile(filepath.Join(x.dir, "f"), nil, 0o644); err != nil {
		t.Error(err)
	}
}

// gathers is a handler of STATFS that answers when n requests have come, late or
// from within.
type gathers struct {
	n    int32
	late bool
	come atomic.Int32
	all  chan struct{}
	once sync.Once
}

func (g *gathers) statfs(r *Request) {
	if g.come.Add(1) == g.n {
		g.once.Do(func() { close(g.all) })
	}
	answer := func() {
		<-g.all
		Out[StatfsOut](r).St = Kstatfs{Bsize: 4096, Frsize: 4096, Namelen: uint32(g.n)}
		r.Reply(0)
	}
	if g.late {
		go answer()
	} else {
		answer()
	}
}

// ask sends n requests, from threads on one CPU, and returns what each gets.
func (g *gathers) ask(t *testing.T, dir string) (errs []error) {
	t.Helper()
	cpus, err := readCPUs(onlineCPUs)
	if err != nil {
		t.Fatal(err)
	}
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	cpu := slices.IndexFunc(cpus, all.IsSet)
	var one unix.CPUSet
	one.Set(cpus[cpu])
	errs = make([]error, g.n)
	// A process that ends while it waits for itself never does.
	stuck := time.AfterFunc(20*time.Second, func() {
		g.once.Do(func() {
			t.Errorf("%d requests of %d have come", g.come.Load(), g.n)
			close(g.all)
		})
	})
	defer stuck.Stop()
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			runtime.LockOSThread() // not unlocked: the thread ends
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				errs[i] = err
				return
			}
			var st syscall.Statfs_t
			if errs[i] = syscall.Statfs(dir, &st); errs[i] == nil && int32(st.Namelen) != g.n {
				errs[i] = fmt.Errorf("namelen %d", st.Namelen)
			}
		})
	}
	// Each request that comes has the kernel look for a place for the one that has
	// waited longest, as what a late answer waits for would.
	for i := 0; g.late; i++ {
		select {
		case <-g.all:
			wg.Wait()
			return errs
		case <-time.After(5 * time.Millisecond):
			wg.Go(func() {
				runtime.LockOSThread()
				if err := unix.SchedSetaffinity(0, &one); err != nil {
					t.Error(err)
				}
				var st unix.Stat_t
				unix.Stat(filepath.Join(dir, fmt.Sprint("none", i)), &st)
			})
		}
	}
	wg.Wait()
	return errs
}

// All threads of a CPU may block in handlers, and any number of requests may be
// answered late, after others of the same CPU have come.
func TestUringHeld(t *testing.T) {
	for _, late := range []bool{false, true} {
		rings, err := NewRings(0)
		if err != nil {
			t.Skip(err)
		}
		g := &gathers{n: int32(rings.depth), late: late, all: make(chan struct{})}
		rings.Close()
		if late {
			g.n += 20
		}
		t.Run(fmt.Sprintf("late=%v", late), func(t *testing.T) {
			x := mountUring(t, newMemFS(), Config{Handlers: Handlers{OpStatfs: g.statfs}})
			// A place that is registered later takes no request that waits already.
			for _, q := range x.c.uring.queues {
				for int(q.idle.Load()) < len(q.channels) {
					time.Sleep(time.Millisecond)
				}
			}
			if errs := g.ask(t, x.dir); slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
				t.Error(errs)
			}
			// The places that were taken are of use, and those that had none.
			for i := range 50 {
				if err := os.WriteFile(filepath.Join(x.dir, fmt.Sprint("f", i)), make([]byte, 10000), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A connection that is aborted ends, and who waits is told.
func TestUringAbort(t *testing.T) {
	g := &gathers{n: 4, all: make(chan struct{})}
	var come atomic.Int32
	x := mountUring(t, newMemFS(), Config{Handlers: Handlers{OpStatfs: func(r *Request) {
		come.Add(1)
		<-g.all
		r.ReplyErr(0)
	}}})
	go func() {
		for come.Load() < g.n {
			time.Sleep(time.Millisecond)
		}
		if err := unix.Unmount(x.dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		g.once.Do(func() { close(g.all) })
	}()
	for _, err := range g.ask(t, x.dir) {
		if !errors.Is(err, syscall.ECONNABORTED) && !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("aborted: %v", err)
		}
	}
	x.gone(t)
}

// A handler may go on when it has answered, and wait for what that brings about.
func TestUringAtOnce(t *testing.T) {
	returned, cont := make(chan struct{}), make(chan struct{})
	x := mountUring(t, newMemFS(), Config{Handlers: Handlers{OpStatfs: func(r *Request) {
		r.AtOnce()
		r.ReplyErr(syscall.EPERM)
		<-returned
		close(cont)
	}}})
	var st syscall.Statfs_t
	if err := syscall.Statfs(x.dir, &st); !errors.Is(err, syscall.EPERM) {
		t.Error(err)
	}
	close(returned)
	<-cont
	if err := os.WriteFile(filepath.Join(x.dir, "f"), nil, 0o644); err != nil {
		t.Error(err)
	}
}

// A ring does what it is for, and nothing else.
func TestRingRestricted(t *testing.T) {
	onThread(func() error {
		g, err := newRing(ringCq)
		if err != nil {
			t.Skip(ringRefused(err))
		}
		defer g.close()
		null, err := unix.Open("/dev/null", unix.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(null)
		if err := g.attach(null); err != nil {
			t.Fatal(err)
		}
		if errno := g.wait(0); errno != unix.EBADFD && errno != unix.EBADF {
			t.Errorf("a disabled ring: %v", errno)
		}
		if err := g.enable(); err != nil {
			t.Fatal(err)
		}
		if err := g.attach(null); !errors.Is(err, unix.EACCES) {
			t.Errorf("another file: %v", err)
		}
		for _, c := range []struct {
			name   string
			op     uint8
			flags  uint8
			errno  syscall.Errno
			fileNo int32
		}{
			{"openat", 18, 0, unix.EACCES, unix.AT_FDCWD},
			{"openat, fixed", 18, ringSqeFixedFile, unix.EACCES, 0},
			{"read", 22, ringSqeFixedFile, unix.EACCES, 0},
			{"socket", 45, 0, unix.EACCES, unix.AF_INET},
			{"nop", 0, 0, unix.EACCES, 0},
			{"a command to another file", ringOpURingCmd, 0, unix.EACCES, int32(null)},
			{"a command, linked", ringOpURingCmd, ringSqeFixedFile | 1<<2, unix.EACCES, 0},
			{"a command", ringOpURingCmd, ringSqeFixedFile, unix.EOPNOTSUPP, 0},
			{"a command to no file", ringOpURingCmd, ringSqeFixedFile, unix.EBADF, 1},
		} {
			e := g.push()
			e.opcode, e.flags, e.fd = c.op, c.flags, c.fileNo
			if errno := g.wait(0); errno != 0 {
				t.Fatalf("%s: %v", c.name, errno)
			}
			done, ok := g.pop()
			if errno := syscall.Errno(-done.res); c.name == "a command" && errno == 0 && ok {
				continue // /dev/null takes all since Linux 6.2
			} else if !ok || errno != c.errno {
				t.Errorf("%s: %v, %v", c.name, ok, errno)
			}
		}
		return nil
	})
}

func TestPlanRings(t *testing.T) {
	seq := func(n int) (cpus []int) {
		for i := range n {
			cpus = append(cpus, i)
		}
		return cpus
	}
	mib := 1 << 20 / hostPage // pages
	for _, c := range []struct {
		possible, online, pages   int
		depth, offline, fewerThan int
	}{
		{1, 1, mib, 16, 0, 0}, {2, 2, mib, 16, 0, 0}, {8, 8, mib, 8, 0, 0}, {64, 64, mib, 2, 0, 0}, {128, 2, mib, 16, 126, 0},
		{2, 2, 32 * mib, 2, 0, 17 * mib}, {64, 64, 32 * mib, 2, 0, 2 * mib},
	} {
		s, err := planRings(seq(c.possible), seq(c.online), c.pages)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if s.depth != c.depth || len(s.offline) != c.offline {
			t.Errorf("%+v: depth %d, %d offline", c, s.depth, len(s.offline))
		}
		if c.fewerThan == 0 && s.maxPages != c.pages || c.fewerThan > 0 && s.maxPages >= c.fewerThan {
			t.Errorf("%+v: %d pages", c, s.maxPages)
		}
	}
	for _, c := range [][2][]int{{{0, 2}, {0}}, {{0, 1}, nil}, {{0}, {0, 1}}, {{0, 1}, {2}}} {
		if s, err := planRings(c[0], c[1], mib); err == nil {
			t.Errorf("possible %v, online %v: %+v", c[0], c[1], s)
		}
	}
}

func TestParseCPUs(t *testing.T) {
	for _, c := range []struct {
		list string
		want []int
	}{
		{"0\n", []int{0}}, {"0-3", []int{0, 1, 2, 3}}, {"0,2-3,8", []int{0, 2, 3, 8}},
		{"", nil}, {"x", nil}, {"3-1", nil}, {"-1", nil}, {"1,0", nil}, {"0-99999999", nil}, {"0,,1", nil},
	} {
		got, err := parseCPUs(c.list)
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%q: %v, %v", c.list, got, err)
		}
	}
}

// What is put into the parts of a message is what a handler sees, and an answer
// comes in the same parts.
func TestUringParts(t *testing.T) {
	var seen struct {
		op   Op
		in   SetattrIn
		name string
		data []byte
	}
	c, err := newConn(Config{MaxPages: 8, Handlers: Handlers{
		OpSetattr: func(r *Request) {
			in, _ := In[SetattrIn](r)
			seen.in = *in
			Out[AttrOut](r).AttrValid = 77
			r.Reply(0)
		},
		OpCreate: func(r *Request) {
			In[CreateIn](r)
			n, _ := r.Name()
			seen.name = string(n)
			out := Out[CreateOut](r)
			out.Entry.NodeID, out.Open.OpenFlags = 5, FopenKeepCache
			r.Reply(0)
		},
		OpWrite: func(r *Request) {
			In[WriteIn](r)
			seen.data = slices.Clone(r.Payload())
			Out[WriteOut](r).Size = uint32(len(seen.data))
			r.Reply(0)
		},
		OpGetxattr: func(r *Request) { r.Reply(copy(r.OutBuf(5), "value")) },
		OpRead:     func(r *Request) { r.Reply(copy(r.OutBuf(4096), "data")) },
		OpIoctl: func(r *Request) { // both parts
			Out[IoctlOut](r).Result = 9
			r.Reply(copy(r.OutBuf(3), "abc"))
		},
		OpUnlink: func(r *Request) { r.ReplyBytes(make([]byte, 9*hostPage)) },
	}})
	if err != nil {
		t.Fatal(err)
	}
	ch := &ringChannel{c: c, q: &uringQueue{cpus: []int{0}}}
	e := ch.entry(0)
	serve := func(op Op, fixed, payload []byte, lie int) (*OutHeader, []byte) {
		h := e.header()
		*(*InHeader)(unsafe.Pointer(&h.inOut)) = InHeader{Len: uint32(inHeaderSize + len(fixed) + len(payload)), Opcode: op, Unique: 42, NodeID: 7}
		copy(h.opIn[:], fixed)
		copy(e.payload(), payload)
		h.ent = uringEntInOut{commitID: 42, payloadSz: uint32(len(payload) + lie)}
		c.serve(&worker{}, e.r, e.receive())
		if e.r.state.Load() != answered || e.commitID != 42 {
			t.Fatalf("%v: not answered, or as %d", op, e.commitID)
		}
		if lie != 0 {
			return nil, nil
		}
		return (*OutHeader)(unsafe.Pointer(&h.inOut)), e.payload()[:h.ent.payloadSz]
	}
	out, body := serve(OpSetattr, bytesOf(&SetattrIn{Valid: 3, Size: 99}), nil, 0)
	if seen.in.Size != 99 || out.Error != 0 || out.Unique != 42 || len(body) != int(unsafe.Sizeof(AttrOut{})) || (*AttrOut)(unsafe.Pointer(&body[0])).AttrValid != 77 {
		t.Errorf("SETATTR: %+v, %+v, %d bytes", seen.in, out, len(body))
	}
	if _, body = serve(OpCreate, bytesOf(&CreateIn{Mode: 1}), []byte("some name\x00"), 0); seen.name != "some name" || (*CreateOut)(unsafe.Pointer(&body[0])).Entry.NodeID != 5 {
		t.Errorf("CREATE: %q, %d bytes", seen.name, len(body))
	}
	data := slices.Repeat([]byte("0123456789abcdef"), 2048)
	if _, body = serve(OpWrite, bytesOf(&WriteIn{Size: uint32(len(data))}), data, 0); !slices.Equal(seen.data, data) || (*WriteOut)(unsafe.Pointer(&body[0])).Size != uint32(len(data)) {
		t.Errorf("WRITE: %d bytes arrive", len(seen.data))
	}
	if _, body = serve(OpGetxattr, bytesOf(&GetxattrIn{Size: 10}), []byte("user.name\x00"), 0); string(body) != "value" {
		t.Errorf("GETXATTR: %q", body)
	}
	if _, body = serve(OpRead, bytesOf(&ReadIn{Size: 4096}), nil, 0); string(body) != "data" {
		t.Errorf("READ: %q", body)
	}
	if _, body = serve(OpIoctl, bytesOf(&IoctlIn{}), nil, 0); len(body) != int(unsafe.Sizeof(IoctlOut{}))+3 || string(body[int(unsafe.Sizeof(IoctlOut{})):]) != "abc" {
		t.Errorf("IOCTL: %d bytes", len(body))
	}
	if out, body = serve(OpUnlink, nil, []byte("n\x00"), 0); out.Error != -int32(syscall.EIO) || len(body) != 0 {
		t.Errorf("an answer that is too large: %+v", out)
	}
	if out, _ = serve(OpMkdir, bytesOf(&MkdirIn{}), []byte("n\x00"), 0); out.Error != -int32(syscall.ENOSYS) {
		t.Errorf("no handler: %+v", out)
	}
	for _, lie := range []int{-1, 1, 100, 1 << 30} {
		serve(OpCreate, bytesOf(&CreateIn{}), []byte("1234567\x00"), lie)
	}
	r := e.r
	if n := testing.AllocsPerRun(100, func() { c.serve(&worker{}, r, e.receive()) }); n > 1 { // the worker
		t.Errorf("%v allocations for a request", n)
	}
}

// In the sandbox, in which no ring can be made, what was made before serves.
func TestUringConfined(t *testing.T) {
	restore := testfs.Uring(t, true)
	dir := startServer(t, "FUSE_TEST_URING=1")
	if _, err := os.Stat(dir); err != nil { // INIT has been answered
		t.Error(err)
	}
	restore()
	fill(t, dir)
}
