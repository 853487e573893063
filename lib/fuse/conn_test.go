//go:build linux

package fuse

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peer is the kernel's side of a connection over a socket that, as the device
// does, keeps messages apart.
type peer struct {
	t     testing.TB
	fd    int
	c     *Conn
	ended chan error
	next  uint64
}

func newPeer(t testing.TB, cfg Config) *peer {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	cfg.MaxPages = 8
	c, err := NewConn(pair[1], cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, fd: pair[0], c: c, ended: make(chan error, 1)}
	go func() { p.ended <- c.Serve() }()
	return p
}

// end closes the socket and returns what Serve returned.
func (p *peer) end() error {
	p.t.Helper()
	unix.Close(p.fd)
	select {
	case err := <-p.ended:
		return err
	case <-time.After(10 * time.Second):
		p.t.Fatal("Serve did not end")
		return nil
	}
}

// message returns a request with the header filled in.
func (p *peer) message(op Op, node uint64, body ...[]byte) []byte {
	p.next += 2
	b := bytes.Join(body, nil)
	h := InHeader{Len: uint32(inHeaderSize + len(b)), Opcode: op, Unique: p.next, NodeID: node}
	return append(bytes.Clone(bytesOf(&h)), b...)
}

func (p *peer) send(msg []byte) {
	p.t.Helper()
	if _, err := unix.Write(p.fd, msg); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) recv() (OutHeader, []byte) {
	p.t.Helper()
	buf := make([]byte, 1<<17)
	n, err := unix.Read(p.fd, buf)
	if err != nil || n < outHeaderSize {
		p.t.Fatalf("answer of %d bytes: %v", n, err)
	}
	h := *(*OutHeader)(unsafe.Pointer(&buf[0]))
	if int(h.Len) != n {
		p.t.Errorf("answer of %d bytes states %d", n, h.Len)
	}
	return h, buf[outHeaderSize:n]
}

// call sends one request and checks that the answer is its own.
func (p *peer) call(op Op, node uint64, body ...[]byte) (int32, []byte) {
	p.t.Helper()
	p.send(p.message(op, node, body...))
	h, b := p.recv()
	if h.Unique != p.next {
		p.t.Errorf("%v: answer to %d, want %d", op, h.Unique, p.next)
	}
	return h.Error, b
}

func (p *peer) init(flags InitFlags) InitOut {
	p.t.Helper()
	in := InitIn{Major: 7, Minor: 45, MaxReadahead: 131072, Flags: uint32(flags), Flags2: uint32(flags >> 32)}
	errno, b := p.call(OpInit, 0, bytesOf(&in))
	if errno != 0 || len(b) != 64 {
		p.t.Fatalf("INIT: %d, %d bytes", errno, len(b))
	}
	return *(*InitOut)(unsafe.Pointer(&b[0]))
}

func TestInit(t *testing.T) {
	p := newPeer(t, Config{Flags: WritebackCache | Passthrough | AsyncRead, MaxReadahead: 1 << 20, TimeGran: 1000,
		Init: func(in *InitIn, out *InitOut) error {
			out.MaxStackDepth = 1
			return nil
		}})
	out := p.init(InitExt | WritebackCache | Passthrough | MaxPages | BigWrites | PosixACL)
	if got, want := InitFlags(out.Flags)|InitFlags(out.Flags2)<<32, InitExt|WritebackCache|Passthrough|MaxPages|BigWrites; got != want {
		t.Errorf("flags %#x, want %#x", got, want)
	}
	if out.Major != 7 || out.Minor != 45 || out.MaxPages != 8 || out.MaxWrite != uint32(8*hostPage) ||
		out.MaxReadahead != 1<<20 || out.TimeGran != 1000 || out.MaxStackDepth != 1 {
		t.Errorf("answer %+v", out)
	}
	<-p.c.Ready()
	if err := p.end(); err != nil {
		t.Error(err)
	}
}

func TestInitVersions(t *testing.T) {
	// A later minor gets ours.
	p := newPeer(t, Config{})
	in := InitIn{Major: 7, Minor: 99}
	_, b := p.call(OpInit, 0, bytesOf(&in))
	if out := (*InitOut)(unsafe.Pointer(&b[0])); out.Minor != Minor {
		t.Errorf("minor %d", out.Minor)
	}
	p.end()

	// A later major is told ours, and asks again.
	p = newPeer(t, Config{})
	in = InitIn{Major: 8}
	_, b = p.call(OpInit, 0, bytesOf(&in))
	if out := (*InitOut)(unsafe.Pointer(&b[0])); out.Major != 7 {
		t.Errorf("major %d", out.Major)
	}
	p.init(0)
	if err := p.end(); err != nil {
		t.Error(err)
	}

	// An old one is refused, and Serve says why.
	p = newPeer(t, Config{})
	in = InitIn{Major: 7, Minor: 30}
	if e, _ := p.call(OpInit, 0, bytesOf(&in)); e != -int32(syscall.EPROTO) {
		t.Errorf("7.30: %d", e)
	}
	if err := <-p.ended; !errors.Is(err, syscall.EPROTO) || !strings.Contains(err.Error(), "7.30") {
		t.Errorf("7.30: Serve returns %v", err)
	}
	unix.Close(p.fd)

	// So is an INIT that is none, and one that the hook refuses.
	p = newPeer(t, Config{})
	if e, _ := p.call(OpInit, 0, []byte("short")); e != -int32(syscall.EPROTO) {
		t.Errorf("short INIT: %d", e)
	}
	<-p.ended
	unix.Close(p.fd)
	p = newPeer(t, Config{Init: func(*InitIn, *InitOut) error { return errors.New("no") }})
	in = InitIn{Major: 7, Minor: 45}
	p.call(OpInit, 0, bytesOf(&in))
	if err := <-p.ended; err == nil || err.Error() != "no" {
		t.Errorf("Serve returns %v", err)
	}
	unix.Close(p.fd)
}

// Messages that lie about themselves are refused, and the connection goes on.
func TestMalformed(t *testing.T) {
	m := newMemFS()
	p := newPeer(t, Config{Handlers: m.handlers(), Workers: 1})
	p.init(InitExt)
	short := p.message(OpGetattr, 1)
	short[0]-- // Len
	long := p.message(OpGetattr, 1)
	binary.NativeEndian.PutUint32(long, 1<<31)
	ext := p.message(OpLookup, 1, []byte("x\x00"))
	binary.NativeEndian.PutUint16(ext[36:], 0xffff) // TotalExtlen
	for _, msg := range [][]byte{short, long, ext} {
		p.send(msg)
		if h, _ := p.recv(); h.Error != -int32(syscall.EIO) {
			t.Errorf("% x: %d", msg[:8], h.Error)
		}
	}
	p.send([]byte("tiny")) // nothing to answer
	for _, c := range []struct {
		op   Op
		body string
		want syscall.Errno
	}{
		{OpLookup, "", syscall.EINVAL},
		{OpLookup, "unterminated", syscall.EINVAL},
		{OpLookup, "\x00", syscall.EINVAL},
		{OpLookup, "a/b\x00", syscall.EINVAL},
		{OpLookup, "absent\x00", syscall.ENOENT},
		{OpMknod, "short", syscall.EINVAL},
		{OpRead, "", syscall.EIO},
		{OpWrite, strings.Repeat("\xff", 40), syscall.EIO},
		{OpSetattr, "x", syscall.EINVAL},
		{7, "", syscall.ENOSYS},
		{4095, "", syscall.ENOSYS},
		{4096, "", syscall.ENOSYS},
		{1 << 31, "", syscall.ENOSYS},
	} {
		if e, _ := p.call(c.op, 1, []byte(c.body)); e != -int32(c.want) {
			t.Errorf("%v %q: %d, want %v", c.op, c.body, e, c.want)
		}
	}
	// What wants no answer gets none: the next answer is to the next request.
	p.send(p.message(OpForget, 1))
	p.send(p.message(OpBatchForget, 1, make([]byte, 8)))
	p.send(p.message(OpNotifyReply, 1))
	if e, _ := p.call(OpStatfs, 1); e != 0 {
		t.Errorf("statfs: %d", e)
	}
	if err := p.end(); err != nil {
		t.Error(err)
	}
}

// Strings, payload and extensions are found where the kernel puts them.
func TestParts(t *testing.T) {
	var got atomic.Pointer[string]
	keep := func(r *Request, parts ...[]byte) {
		s := string(bytes.Join(parts, []byte("|")))
		got.Store(&s)
		r.ReplyErr(0)
	}
	p := newPeer(t, Config{Workers: 1, Handlers: Handlers{
		OpRename2: func(r *Request) {
			In[Rename2In](r)
			a, b, _ := r.Names()
			keep(r, a, b)
		},
		OpSymlink: func(r *Request) {
			a, _ := r.Name()
			b, _ := r.Text()
			gid, ok := r.SuppGroup()
			if gid != 4711 || !ok {
				t.Errorf("supplementary group %d, %v", gid, ok)
			}
			keep(r, a, b)
		},
		OpSetxattr: func(r *Request) {
			in, _ := r.Setxattr()
			a, _ := r.Text()
			if in.Size != 3 || in.Flags != 2 {
				t.Errorf("setxattr %+v", in)
			}
			keep(r, a, r.Payload())
		},
		OpWrite: func(r *Request) {
			In[WriteIn](r)
			b := r.Payload()
			if uintptr(unsafe.Pointer(&b[0]))%pageSize != 0 {
				t.Error("the data of WRITE is not aligned")
			}
			keep(r, b)
		},
		OpRead: func(r *Request) {
			b := r.OutBuf(5)
			if uintptr(unsafe.Pointer(&b[0]))%pageSize != 0 {
				t.Error("the answer to READ is not aligned")
			}
			copy(b, "hello")
			Out[WriteOut](r).Size = 7
			r.Reply(4)
		},
		OpIoctl: func(r *Request) { // the message is larger than a page
			in := r.Payload()
			b := r.OutBuf(len(in))
			for i := range in {
				b[i] = in[len(in)-1-i]
			}
			if r.OutBuf(1<<30) != nil || r.OutBuf(-1) != nil {
				t.Error("a buffer of any size")
			}
			r.ReplyBytes(b)
		},
	}})
	p.init(0) // without SetxattrExt
	u32 := func(v ...uint32) []byte {
		return unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), 4*len(v))
	}
	check := func(want string) {
		t.Helper()
		if s := *got.Load(); s != want {
			t.Errorf("got %q, want %q", s, want)
		}
	}
	p.call(OpRename2, 1, make([]byte, 16), []byte("old\x00new\x00"))
	check("old|new")
	p.call(OpSetxattr, 1, u32(3, 2), []byte("user.a/b\x00xyz"))
	check("user.a/b|xyz")
	p.call(OpWrite, 2, make([]byte, 40), []byte("data"))
	check("data")

	msg := p.message(OpSymlink, 1, []byte("name\x00../to\x00"), u32(16, ExtGroups, 1, 4711))
	binary.NativeEndian.PutUint16(msg[36:], 2)
	p.send(msg)
	p.recv()
	check("name|../to")

	if _, b := p.call(OpRead, 2, make([]byte, 40)); string(b[8:]) != "hell" || b[0] != 7 {
		t.Errorf("READ answers %q", b)
	}
	big := bytes.Repeat([]byte("abcdefgh"), 2000)
	if _, b := p.call(OpIoctl, 2, big); len(b) != len(big) || b[0] != 'h' || b[len(b)-1] != 'a' {
		t.Errorf("IOCTL answers %d bytes", len(b))
	}
	if err := p.end(); err != nil {
		t.Error(err)
	}
}

// DESTROY is served when everything read before it has been, deferred answers
// included, and nothing is served after it.
func TestDestroyLast(t *testing.T) {
	var order atomic.Int32
	release := make(chan struct{})
	p := newPeer(t, Config{Workers: 4,
		Handlers: Handlers{
			OpRelease: func(r *Request) {
				time.Sleep(50 * time.Millisecond)
				order.Add(1)
				r.ReplyErr(0)
			},
			OpFlush: func(r *Request) {
				go func() {
					<-release
					order.Add(1)
					r.ReplyErr(0)
				}()
			},
			OpForget: func(r *Request) { order.Store(100); r.ReplyNone() },
		},
		Destroy: func() { order.CompareAndSwap(2, 3) },
	})
	p.init(0)
	p.send(p.message(OpRelease, 1))
	p.send(p.message(OpFlush, 1))
	p.send(p.message(OpDestroy, 0))
	time.AfterFunc(100*time.Millisecond, func() { close(release) })
	for i := range 3 {
		h, _ := p.recv()
		if last := h.Unique == p.next; last != (i == 2) || last && order.Load() != 3 {
			t.Errorf("answer %d of %d in state %d", h.Unique, p.next, order.Load())
		}
	}
	p.send(p.message(OpForget, 1))
	if e, _ := p.call(OpRelease, 1); e != -int32(syscall.ENODEV) {
		t.Errorf("request after DESTROY: %d", e)
	}
	if err := p.end(); err != nil {
		t.Error(err)
	}
	if order.Load() != 3 {
		t.Errorf("order %d", order.Load())
	}
}

// Where the kernel sends no DESTROY, Destroy runs before Serve returns.
func TestDestroyAtEnd(t *testing.T) {
	n := 0
	p := newPeer(t, Config{Destroy: func() { n++ }})
	p.init(0)
	if err := p.end(); err != nil || n != 1 {
		t.Errorf("%v, Destroy called %d times", err, n)
	}
}

func TestConfig(t *testing.T) {
	for _, op := range []Op{OpInit, OpDestroy, MaxOp} {
		if _, err := newConn(Config{Handlers: Handlers{op: func(*Request) {}}}); err == nil {
			t.Errorf("a handler for %v is taken", op)
		}
	}
}

// memChannel answers into nothing.
type memChannel struct{}

func (memChannel) recv(*Request) (int, syscall.Errno)               { return 0, syscall.ENODEV }
func (memChannel) send(*Request, int, []byte) (errno syscall.Errno) { return 0 }
func (memChannel) late(*Request)                                    {}

// Any bytes are served without panic, and each answerable message is answered.
func FuzzServe(f *testing.F) {
	p := &peer{}
	for op := range Op(54) {
		f.Add(p.message(op, 1, []byte("name\x00other\x00")))
		f.Add(p.message(op, 2, make([]byte, 88)))
	}
	f.Add([]byte{})
	m := newMemFS()
	h := m.handlers()
	for _, op := range []Op{OpSetxattr, OpSymlink, OpRename} { // all ways to parse
		h[op] = func(r *Request) {
			r.Setxattr()
			r.Names()
			r.Text()
			r.SuppGroup()
			r.ReplyBytes(r.Payload())
		}
	}
	h[OpWrite] = func(r *Request) { // the file system under test has no bounds
		In[WriteIn](r)
		r.ReplyBytes(r.Payload())
	}
	h[OpSetattr] = h[OpWrite]
	c, err := newConn(Config{Handlers: h, MaxPages: 8})
	if err != nil {
		f.Fatal(err)
	}
	m.create("name")
	r := c.newRequest()
	f.Fuzz(func(t *testing.T, msg []byte) {
		if len(msg) >= 8 && Op(binary.NativeEndian.Uint32(msg[4:])) == OpInit {
			return
		}
		if len(msg) >= 8 && Op(binary.NativeEndian.Uint32(msg[4:])) == OpDestroy {
			return
		}
		r.ch = memChannel{}
		n := copy(r.buf[inOffset:], msg)
		c.serve(&worker{}, r, n)
		if r.state.Load() != answered {
			t.Fatalf("no answer to % x", msg)
		}
	})
}

// Serving a request allocates nothing.
func BenchmarkDispatch(b *testing.B) {
	m := newMemFS()
	c, err := newConn(Config{Handlers: m.handlers(), MaxPages: 8})
	if err != nil {
		b.Fatal(err)
	}
	p := &peer{}
	node, _ := m.create("name")
	for _, msg := range [][]byte{
		p.message(OpGetattr, node, make([]byte, 16)),
		p.message(OpLookup, RootID, []byte("name\x00")),
		p.message(OpRead, node, bytesOf(&ReadIn{Size: 4096})),
		p.message(OpWrite, node, bytesOf(&WriteIn{Size: 4096}), make([]byte, 4096)),
	} {
		op := Op(binary.NativeEndian.Uint32(msg[4:]))
		b.Run(op.String(), func(b *testing.B) {
			r := c.newRequest()
			r.ch = memChannel{}
			w := &worker{}
			b.ReportAllocs()
			for b.Loop() {
				c.serve(w, r, copy(r.buf[inOffset:], msg))
			}
		})
	}
}

// Requests that wait for a disk take a thread each: no more of them are handed off
// than Go has threads for.
func TestHandsOffMost(t *testing.T) {
	c, err := newConn(Config{Workers: 1, MaxWorkers: 1, Urgent: func(*Request) bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	c.live = 1
	for _, before := range []int32{0, mostDeferred - 1, mostDeferred, mostDeferred + 1} {
		r := c.newRequest()
		*r.hdr = InHeader{Len: uint32(inHeaderSize), Opcode: OpGetattr, Unique: 1}
		answered := make(answers, 1)
		r.ch = answered
		c.deferred.Store(before)
		off := c.handsOff(r, inHeaderSize)
		if off != (before < mostDeferred) {
			t.Errorf("handed off with %d before: %v", before, off)
		}
		if off {
			<-answered
		}
	}
}

// answers is a channel that has no requests, and tells of answers.
type answers chan struct{}

func (a answers) recv(*Request) (int, syscall.Errno) { return 0, syscall.ENODEV }

func (a answers) send(*Request, int, []byte) syscall.Errno {
	a <- struct{}{}
	return 0
}

func (a answers) late(*Request) {}
