//go:build linux

package fuse

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Handler serves one request: it calls exactly one of the request's Reply
// methods, now or later. Handlers run in parallel.
type Handler func(*Request)

// Handlers says who serves what. An operation without a handler gets ENOSYS,
// which the kernel remembers: it then does without (OPEN, FLUSH, ACCESS, ...),
// or reports success for what was not done (FSYNC), or reports ENOSYS. INIT and
// DESTROY are served by Conn; FORGET, BATCH_FORGET and INTERRUPT without a
// handler are ignored, resp. declined.
type Handlers map[Op]Handler

// Config configures a Conn. The zero value of a field means its default.
type Config struct {
	Handlers Handlers

	// Flags are the capabilities wanted. Those that the kernel does not offer
	// are left out; BigWrites, MaxPages and InitExt need not be listed.
	Flags InitFlags

	MaxPages      int    // in a request; default: MaxPagesLimit, and no request has more
	MaxWrite      int    // bytes in a WRITE; default: all of MaxPages
	MaxReadahead  int    // bytes; default: what the kernel offers
	MaxBackground int    // asynchronous requests the kernel may have under way; default 64
	TimeGran      uint32 // granularity of time stamps, ns; default 1

	// Workers are the threads that read requests: default one per CPU, at
	// least 2. Up to MaxWorkers (default 16, at least Workers) are added while
	// requests queue up behind handlers that block.
	Workers, MaxWorkers int

	// Clones are descriptors made with Clone, one for each further worker to
	// read from. Without any, NewConn makes its own.
	Clones []int

	// Rings, if set, are for requests to come by io_uring where the kernel offers
	// it. NewConn takes them over.
	Rings *Rings

	// Iomap, if set, asks for fuse-iomap where the kernel has it, in this form.
	Iomap *IomapABI

	// Urgent names operations that the kernel's memory management may wait for.
	// While all workers but one are busy and no more may be added, the last one
	// runs only these itself; others go on without a locked thread.
	Urgent func(r *Request) bool

	// Init, if set, sees the answer to INIT before it is sent and may change
	// it. An error refuses the connection. Clones are read from after it only,
	// so that it may make them what they are to be ([CloneOnto]).
	Init func(in *InitIn, out *InitOut) error

	// Destroy, if set, is called exactly once, after the last handler has
	// returned and answered: before DESTROY is answered if the kernel sends
	// it, else before Serve returns. It is to make the file system clean.
	Destroy func()

	// Log, if set, gets messages about protocol errors.
	Log func(format string, args ...any)
}

// Conn is the connection of a mounted file system. Its methods are safe for
// concurrent use, except that Serve is called once.
type Conn struct {
	cfg      Config
	handlers [MaxOp]Handler
	tr       transport
	uring    *uring // nil: requests come by tr alone
	noUring  error  // why, if rings were given

	negotiated atomic.Pointer[Negotiated]
	ready      chan struct{} // closed when INIT has been answered

	// idle is the number of workers that wait for a request.
	idle    atomic.Int32
	active  atomic.Int32 // workers that are not parked
	lone    loner
	growing atomic.Bool // the grower is awake
	grow    chan struct{}
	wake    chan struct{} // to a parked worker
	ended   chan struct{} // closed when the kernel sends no more
	endOnce sync.Once
	stop    chan struct{} // closed when Serve ends
	failed  chan struct{} // closed when err is set

	destroyed atomic.Bool  // Destroy has run or is running: no handler may start
	deferred  atomic.Int32 // requests whose handler returned before the answer

	mu      sync.Mutex
	workers []*worker // guarded by mu
	live    int       // workers running; guarded by mu
	err     error     // first reason to end that is not an unmount; guarded by mu
	wg      sync.WaitGroup

	free []*Request // guarded by mu

	upserts sync.Pool // of *upsert
}

// hostPage is the unit of MaxPages.
var hostPage = os.Getpagesize()

// NewConn prepares to serve fd, a descriptor of /dev/fuse that has been
// mounted, and takes it over. All that Serve needs to open is opened here.
func NewConn(fd int, cfg Config) (*Conn, error) {
	if cfg.Workers <= 0 {
		cfg.Workers = max(2, runtime.GOMAXPROCS(0))
	}
	c, err := newConn(cfg)
	if err != nil {
		return nil, err
	}
	c.tr = newDevFuse(fd, c.cfg.Workers, cfg.Clones)
	if rings := cfg.Rings; rings != nil {
		if c.noUring = rings.attach(fd); c.noUring != nil {
			rings.Close()
		} else {
			c.uring = newURing(c, rings)
		}
	}
	return c, nil
}

func newConn(cfg Config) (*Conn, error) {
	if cfg.MaxPages <= 0 {
		cfg.MaxPages = MaxPagesLimit()
	}
	cfg.MaxPages = min(cfg.MaxPages, 65535)
	if cfg.Rings != nil {
		cfg.MaxPages = min(cfg.MaxPages, cfg.Rings.maxPages)
	}
	if cfg.MaxWrite <= 0 || cfg.MaxWrite > cfg.MaxPages*hostPage {
		cfg.MaxWrite = cfg.MaxPages * hostPage
	}
	cfg.MaxWrite = max(cfg.MaxWrite, pageSize)
	if cfg.MaxReadahead <= 0 {
		cfg.MaxReadahead = 1 << 30
	}
	if cfg.MaxBackground <= 0 {
		cfg.MaxBackground = 64
	}
	cfg.MaxBackground = min(cfg.MaxBackground, 65535)
	if cfg.TimeGran == 0 {
		cfg.TimeGran = 1
	}
	cfg.Workers = max(cfg.Workers, 1)
	if cfg.MaxWorkers <= 0 {
		cfg.MaxWorkers = 16
	}
	cfg.MaxWorkers = max(cfg.MaxWorkers, cfg.Workers)
	if cfg.Log == nil {
		cfg.Log = func(string, ...any) {}
	}
	c := &Conn{
		cfg:    cfg,
		ready:  make(chan struct{}),
		grow:   make(chan struct{}, 1),
		wake:   make(chan struct{}),
		ended:  make(chan struct{}),
		stop:   make(chan struct{}),
		failed: make(chan struct{}),
	}
	c.negotiated.Store(&Negotiated{})
	for op, h := range cfg.Handlers {
		if op >= MaxOp || op == OpInit || op == OpDestroy {
			return nil, fmt.Errorf("fuse: no handler can be set for %v", op)
		}
		c.handlers[op] = h
	}
	return c, nil
}

// Negotiated returns what INIT agreed on; all zero before Ready.
func (c *Conn) Negotiated() *Negotiated { return c.negotiated.Load() }

// Ready is closed once INIT has been answered.
func (c *Conn) Ready() <-chan struct{} { return c.ready }

// Serve serves until the file system is unmounted, all requests have been
// answered and Config.Destroy has run. Then it returns nil; else why the
// connection could not be used.
//
// A worker that waits in the kernel looks like a running one to Go's scheduler
// until a monitor has noticed, so it takes more than the usual GOMAXPROCS for
// its threads to go on at once when the wait is over: Serve raises it.
func (c *Conn) Serve() error {
	if n := 2*runtime.NumCPU() + 2; runtime.GOMAXPROCS(0) < n {
		runtime.GOMAXPROCS(n)
	}
	go c.grower()
	for range c.cfg.Workers {
		c.addWorker(false)
	}
	done := make(chan struct{})
	go func() {
		c.wg.Wait()
		for c.deferred.Load() != 0 { // their answers fail, but are to fail here
			time.Sleep(time.Millisecond)
		}
		// Not before, since the numbers might soon be other files'.
		c.tr.close()
		if c.uring != nil {
			c.uring.close()
		}
		close(done)
	}()
	select {
	case <-done:
	case <-c.failed:
	}
	close(c.stop)
	c.destroy(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail makes Serve return err, without waiting for workers: the kernel may
// never give them anything again.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.failed)
		c.end()
	}
}

// Stop makes Serve end, with err, though the file system is still mounted: what
// has been read is served, Destroy is called, and nothing is read any more. Who
// uses the mount gets ENOTCONN once the descriptors are closed, as by the end of
// the process.
func (c *Conn) Stop(err error) { c.fail(err) }

// serve handles one message, and tells whether the worker is to go on.
func (c *Conn) serve(w *worker, r *Request, n int) bool {
	if !r.parse(n) {
		c.cfg.Log("fuse: message of %d bytes that states %d", n, r.hdr.Len)
		if n >= inHeaderSize && !r.Op().noReply() {
			r.ReplyErr(syscall.EIO)
		} else {
			r.ReplyNone()
		}
		return true
	}
	op := r.Op()
	switch {
	case op == OpInit:
		if err := c.serveInit(r); err != nil {
			c.fail(err)
			return false
		}
	case op == OpDestroy:
		c.serveDestroy(w, r)
	case c.destroyed.Load():
		// A reference given back too late: there is nothing left to free.
		r.ReplyErr(syscall.ENODEV)
	case op >= MaxOp || c.handlers[op] == nil:
		r.ReplyErr(syscall.ENOSYS)
	default:
		c.handlers[op](r)
		if op == OpIomapConfig && c.Negotiated().Uring {
			c.uring.begin() // no sooner does the kernel take places for requests
		}
	}
	return true
}

// serveDestroy runs Destroy when all that was read before has been served.
func (c *Conn) serveDestroy(w *worker, r *Request) {
	// A worker may have returned from its read without having said so. Nobody
	// can see that; a pause makes it unlikely, the longer the later this thread
	// itself gets to run, and destroyed makes it harmless, since only answers
	// that no caller waits for can be in question.
	const pause = 200 * time.Microsecond
	quiet, late := time.Duration(0), time.Duration(0)
	for quiet <= 3*pause+8*late {
		before := time.Now()
		time.Sleep(pause)
		took := time.Since(before)
		late = max(late, took-2*pause)
		// Over io_uring it does not come after what is read from /dev/fuse.
		behind := c.Negotiated().Uring && c.tr.pending()
		if quiet += took; behind || c.othersBusy(w) || c.deferred.Load() != 0 {
			quiet = 0
		}
	}
	c.destroy(w)
	r.ReplyErr(0)
}

// destroy calls Destroy, the first time, when no worker but w is in a handler.
func (c *Conn) destroy(w *worker) {
	if c.destroyed.Swap(true) {
		return
	}
	for c.othersBusy(w) {
		time.Sleep(200 * time.Microsecond)
	}
	if c.cfg.Destroy != nil {
		c.cfg.Destroy()
	}
}

func (c *Conn) othersBusy(w *worker) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.workers {
		if o != w && o.busy.Load() {
			return true
		}
	}
	return false
}

// minReadBuffer is the room for a message, in bytes, below which the kernel hands over
// none, FUSE_MIN_READ_BUFFER.
const minReadBuffer = 8192

func (c *Conn) newRequest() *Request {
	c.mu.Lock()
	if n := len(c.free); n > 0 {
		r := c.free[n-1]
		c.free = c.free[:n-1]
		c.mu.Unlock()
		return r
	}
	c.mu.Unlock()
	r := &Request{c: c, start: inOffset, buf: newBuf(pageSize + c.maxPayload())}
	r.hdr = (*InHeader)(unsafe.Pointer(&r.buf[inOffset]))
	return r
}

// maxPayload is the most that a message has beside its fixed part, in bytes.
func (c *Conn) maxPayload() int { return max(c.cfg.MaxPages*hostPage, c.cfg.MaxWrite, minReadBuffer) }

func (c *Conn) freeRequest(r *Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.free) < c.cfg.MaxWorkers {
		c.free = append(c.free, r)
		return
	}
	unix.Munmap(r.buf)
	r.buf = nil
}

// newBuf returns size bytes in whole pages, outside the heap of Go, so that
// only what is touched exists.
func newBuf(size int) []byte {
	size = (size + hostPage - 1) &^ (hostPage - 1)
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return alignedBuf(size)
	}
	return b
}

func (c *Conn) replyFailed(r *Request, errno syscall.Errno) {
	if errno != syscall.ENOENT && errno != syscall.ENODEV {
		c.cfg.Log("fuse: answer to %v of node %d refused: %v", r.Op(), r.NodeID(), errno)
	}
}
