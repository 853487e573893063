package iomappeer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A Config says what kernel the peer plays. The zero value of a field is the
// default.
type Config struct {
	Profile Profile

	// Stock plays a kernel without the series: IOMAP_SUPPORT is ENOTTY, bit 43
	// means something else, and files are read and written by READ and WRITE.
	Stock bool

	// MayGuess says that an UPSERT of a type that the profile does not know is no
	// violation: the server finds out which profile it is.
	MayGuess bool

	// NoIomap plays a kernel with the series whose mounter lacks the privilege.
	NoIomap bool

	// NoEnd behaves as if the server had answered ENOSYS to END.
	NoEnd bool

	// RootNodeID is the mount option of that name; 0 is 1.
	RootNodeID uint64

	Offer       uint64 // INIT flags; default all that the peer understands
	ConfigOffer uint64 // CONFIG flags; default all seven
	MaxBytes    int64  // the largest file that this kernel can do; default 2^63-1
	MaxPages    int    // pages in a READ or WRITE; default 256

	// CacheMaxbytes is the limit of a fork of the mapping cache; default 256 KiB.
	CacheMaxbytes uint32

	// ReadAhead is how many folios a read locks and maps ahead; default 8.
	ReadAhead int

	// DIOAlign is what direct I/O must be a multiple of; default 512.
	DIOAlign int

	Cred  Cred
	Umask uint32

	Seed   uint64  // of everything random
	Faults *Faults // nil is none

	// Trace is called with every message, in the order in which they pass.
	Trace func(Message)

	// Watchdog is how long an answer may take; default one minute.
	Watchdog time.Duration

	// Resolve finds the device that an fd number of BACKING_OPEN stands for.
	Resolve func(fd int32) (BlockDev, syscall.Errno)

	// Metadata reports whether the n bytes at addr hold metadata; nil is never.
	Metadata func(addr, n int64) bool

	// FreeBlocks tells how much is free, for A2; nil leaves that part out.
	FreeBlocks func() int64

	// Destroyed is called while the reply to DESTROY is being given, for A15:
	// an error says what was not closed or not clean.
	Destroyed func() error

	// CountOnly keeps neither content to compare with nor what is known of blocks,
	// for long runs that count requests.
	CountOnly bool

	// NoChecks leaves out the assertions that send requests of their own.
	NoChecks bool
}

// A Cred is whose requests they are.
type Cred struct{ UID, GID, PID uint32 }

// A Kernel is one connection, from the kernel's side.
type Kernel struct {
	cfg  Config
	prof Profile

	queue // requests

	mu      sync.Mutex // guards the rest of this block
	devs    map[uint32]*backing
	nextDev uint32
	inodes  map[uint64]*Inode
	evicted map[uint64]memory

	evictions atomic.Int64
	rng       *rand.Rand
	noOp      map[uint32]bool // opcodes answered by ENOSYS once
	clock     int64

	killsb sync.RWMutex // notifications hold it shared, unmount alone

	// Set by mount, constant from then on.
	mayIomap  bool
	iomap     bool
	initFlags uint64
	maxWrite  int
	timeGran  uint32
	bs        int64
	maxbytes  int64
	cacheMax  uint32
	root      *Inode
	minor     uint32

	syncInit   atomic.Bool
	addedIomap atomic.Bool
	mounted    atomic.Bool
	negotiated atomic.Bool // iomap, by INIT
	attached   atomic.Bool // mount began: the device belongs to a connection
	destroying atomic.Bool
	shut       atomic.Bool
	frozen     sync.RWMutex // writers hold it shared, freeze alone
	isFrozen   atomic.Bool
	releases   atomic.Int64 // sent and not answered
	removes    atomic.Int64 // unlinked inodes still open
	iomapInos  atomic.Int64

	dents  dcache
	checks checks
	count  counters
	claims claims
	disk   diskCache
}

// New makes a kernel that has not mounted anything yet.
func New(cfg Config) *Kernel {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&cfg.MaxPages, 256)
	def(&cfg.ReadAhead, 8)
	def(&cfg.DIOAlign, 512)
	if cfg.RootNodeID == 0 {
		cfg.RootNodeID = 1
	}
	if cfg.Offer == 0 {
		cfg.Offer = defaultOffer
	}
	if cfg.ConfigOffer == 0 {
		cfg.ConfigOffer = configAll
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = maxLFS
	}
	if cfg.CacheMaxbytes == 0 {
		cfg.CacheMaxbytes = 256 << 10
	}
	if cfg.Watchdog == 0 {
		cfg.Watchdog = time.Minute
	}
	if cfg.Faults == nil {
		cfg.Faults = &Faults{}
	}
	k := &Kernel{
		cfg:      cfg,
		prof:     cfg.Profile,
		devs:     make(map[uint32]*backing),
		nextDev:  1,
		inodes:   make(map[uint64]*Inode),
		evicted:  make(map[uint64]memory),
		rng:      rand.New(rand.NewPCG(cfg.Seed, 0x10adab1e)),
		noOp:     make(map[uint32]bool),
		bs:       pageSize,
		maxbytes: cfg.MaxBytes,
		cacheMax: cfg.CacheMaxbytes,
		mayIomap: !cfg.Stock && !cfg.NoIomap,
		clock:    1_700_000_000_000_000_000,
	}
	k.queue.init()
	k.checks.init()
	k.count.init()
	k.claims.init()
	k.dents.init()
	return k
}

// Device returns the server's end, for a server in the same process.
func (k *Kernel) Device() Device { return &pipe{k: k} }

// Root returns the root folder. It is known once Mount has returned.
func (k *Kernel) Root() *Inode { return k.root }

// BlockSize returns the block size that CONFIG established.
func (k *Kernel) BlockSize() int64 { return k.bs }

// Iomap reports whether iomap was negotiated.
func (k *Kernel) Iomap() bool { return k.iomap }

// task is one operation of a user of the file system.
type task struct {
	name  string // what is counted under
	check bool   // the peer's own question, not a user's
	cred  Cred
}

func (k *Kernel) task(name string) *task { return &task{name: name, cred: k.cfg.Cred} }

func (k *Kernel) checkTask() *task { return &task{name: "check", check: true, cred: k.cfg.Cred} }

// chance reports whether an event of probability p happens.
func (k *Kernel) chance(p float64) bool {
	if p <= 0 {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rng.Float64() < p
}

func (k *Kernel) intn(n int) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rng.IntN(n)
}

// now is the clock that timestamps come from: it never stands still, so that
// every change of a timestamp can be seen.
func (k *Kernel) now() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.clock += 1_000_003
	return k.clock
}

// request is one message to the server and what came back.
type request struct {
	op     uint32
	unique uint64
	node   uint64
	msg    []byte
	reply  bool // one is expected
	min    int  // bytes of its payload, at least
	max    int  // and at most

	errno syscall.Errno
	out   []byte
	done  chan struct{}
}

// queue is the requests that wait for the server, and those that it has read.
type queue struct {
	qmu        sync.Mutex
	ready      *sync.Cond
	pending    []*request
	processing map[uint64]*request
	lastUnique uint64
	dead       syscall.Errno // why the connection takes no more; 0 while it does
	inflight   atomic.Int64
}

func (q *queue) init() {
	q.ready = sync.NewCond(&q.qmu)
	q.processing = make(map[uint64]*request)
}

// sent returns the number of the last request.
func (q *queue) sent() uint64 {
	q.qmu.Lock()
	defer q.qmu.Unlock()
	return q.lastUnique
}

// next waits for a request and marks it as read.
func (k *Kernel) next() (*request, syscall.Errno) {
	k.qmu.Lock()
	defer k.qmu.Unlock()
	for len(k.pending) == 0 {
		if k.dead != 0 {
			return nil, syscall.ENODEV
		}
		k.ready.Wait()
	}
	r := k.pending[0]
	k.pending = k.pending[1:]
	if r.reply {
		k.processing[r.unique] = r
	}
	return r, 0
}

// post hands a request to the server.
func (k *Kernel) post(t *task, r *request, parts ...any) syscall.Errno {
	body := enc(parts...)
	k.qmu.Lock()
	if k.dead != 0 {
		k.qmu.Unlock()
		return k.dead
	}
	if r.unique == 0 {
		k.lastUnique += 2
		r.unique = k.lastUnique
	}
	h := inHeader{Len: uint32(inHeaderSize + len(body)), Opcode: r.op, Unique: r.unique, NodeID: r.node,
		UID: t.cred.UID, GID: t.cred.GID, PID: t.cred.PID}
	r.msg = append(enc(h), body...)
	if r.reply {
		r.done = make(chan struct{})
		k.inflight.Add(1)
	}
	k.count.add(t.name, r.op)
	k.trace(Message{To: true, Op: r.op, Unique: r.unique, Node: r.node, Data: r.msg})
	k.pending = append(k.pending, r)
	k.qmu.Unlock()
	k.ready.Signal()
	return 0
}

// call sends a request and waits for the reply, whose payload it returns.
func (k *Kernel) call(t *task, op uint32, node uint64, min, max int, parts ...any) ([]byte, syscall.Errno) {
	r := &request{op: op, node: node, reply: true, min: min, max: max}
	if errno := k.post(t, r, parts...); errno != 0 {
		return nil, errno
	}
	return k.wait(r)
}

func (k *Kernel) wait(r *request) ([]byte, syscall.Errno) {
	timer := time.NewTimer(k.cfg.Watchdog)
	defer timer.Stop()
	k.checks.evalLiveness(k, r)
	select {
	case <-r.done:
	case <-timer.C:
		k.stuck(r)
		<-r.done
	}
	return r.out, r.errno
}

// callInto is call for a reply of fixed size, which is decoded into out.
func (k *Kernel) callInto(t *task, op uint32, node uint64, out any, parts ...any) syscall.Errno {
	n := size(out)
	b, errno := k.call(t, op, node, n, n, parts...)
	if errno != 0 {
		return errno
	}
	dec(b, out)
	return 0
}

// finish ends a request.
func (k *Kernel) finish(r *request, errno syscall.Errno, out []byte) {
	k.qmu.Lock()
	if k.processing[r.unique] == r {
		delete(k.processing, r.unique)
	}
	k.qmu.Unlock()
	k.end(r, errno, out)
}

func (k *Kernel) end(r *request, errno syscall.Errno, out []byte) {
	if !r.reply {
		return
	}
	r.errno, r.out = errno, out
	if r.op == opRelease || r.op == opReleasedir {
		k.releases.Add(-1)
	}
	k.inflight.Add(-1)
	close(r.done)
}

// send takes a reply or notification from the server.
func (k *Kernel) send(b []byte) syscall.Errno {
	var h outHeader
	rest, ok := dec(b, &h)
	if !ok || int(h.Len) != len(b) {
		k.trace(Message{Unique: h.Unique, Data: b, Errno: syscall.EINVAL})
		k.violate("A1", nil, "a message of %d bytes whose header says %d", len(b), h.Len)
		return syscall.EINVAL
	}
	if h.Unique == 0 {
		errno := k.notify(h.Error, rest)
		m := Message{Notify: h.Error, Data: b, Errno: errno}
		if h.Error == notifyUpsert || h.Error == notifyInval {
			dec(rest, &m.Node)
		}
		k.trace(m)
		return errno
	}
	if h.Error > 0 || h.Error <= -512 {
		k.trace(Message{Unique: h.Unique, Data: b, Errno: syscall.EINVAL})
		k.violate("A1", nil, "a reply with error %d", h.Error)
		return syscall.EINVAL
	}
	unique := h.Unique
	if unique&1 != 0 { // the reply to an INTERRUPT
		k.trace(Message{Unique: unique, Data: b})
		return 0
	}
	k.qmu.Lock()
	r := k.processing[unique]
	delete(k.processing, unique)
	dead := k.dead
	k.qmu.Unlock()
	if r == nil {
		k.trace(Message{Unique: unique, Data: b, Errno: syscall.ENOENT})
		if dead == 0 {
			k.violate("A1", nil, "a reply to request %d, which is not being served", unique)
		}
		return syscall.ENOENT
	}
	m := Message{Op: r.op, Unique: unique, Node: r.node, Data: b, Error: h.Error}
	wrong := h.Error != 0 && len(rest) != 0 || h.Error == 0 && (len(rest) < r.min || len(rest) > r.max)
	if wrong {
		m.Errno = syscall.EINVAL
		k.trace(m)
		k.violate("A1", nil, "the reply to %s has %d bytes behind its header, want %d to %d", OpName(r.op), len(rest), r.min,
			r.max)
		k.end(r, syscall.EIO, nil)
		return syscall.EINVAL
	}
	k.trace(m)
	if r.op == opDestroy {
		k.checkDestroyed()
	}
	k.end(r, syscall.Errno(-h.Error), rest)
	return 0
}

// abort ends the connection: what is outstanding fails, and nothing more is
// taken.
func (k *Kernel) abort(errno syscall.Errno) {
	k.qmu.Lock()
	if k.dead == 0 {
		k.dead = errno
	}
	var all []*request
	for _, r := range k.pending {
		if r.reply {
			all = append(all, r)
		}
	}
	k.pending = nil
	for _, r := range k.processing {
		all = append(all, r)
	}
	clear(k.processing)
	k.qmu.Unlock()
	k.ready.Broadcast()
	for _, r := range all {
		k.end(r, errno, nil)
	}
}

// deviceClosed is what the kernel does when the server's last descriptor goes.
func (k *Kernel) deviceClosed() { k.abort(syscall.ENOTCONN) }

// forgotten returns whether an opcode was answered by ENOSYS before, which the
// kernel remembers for some.
func (k *Kernel) unsupported(op uint32) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.noOp[op]
}

func (k *Kernel) setUnsupported(op uint32) {
	k.mu.Lock()
	k.noOp[op] = true
	k.mu.Unlock()
}

// Err returns all violations as one error, or nil.
func (k *Kernel) Err() error {
	var errs []error
	for _, v := range k.Violations() {
		errs = append(errs, errors.New(v.String()))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("iomappeer, %v:\n%w", k.prof, err)
	}
	return nil
}
