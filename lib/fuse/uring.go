//go:build linux

package fuse

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// uring is how requests come by io_uring: the queues of the kernel, one for each
// CPU, and who serves them.
type uring struct {
	c      *Conn
	rings  *Rings
	queues []*uringQueue
	open   chan struct{} // closed when places may be registered
	off    chan struct{} // closed if they never will be

	threads sync.WaitGroup // that wait for either
}

// uringQueue is the queue of a CPU, or those of the CPUs that are not online.
type uringQueue struct {
	cpus     []int
	channels []*ringChannel
	idle     atomic.Int32 // threads that wait
}

// ringEntry is a place for a request: in r.buf the kernel puts the header first,
// and the payload from the second page on.
type ringEntry struct {
	r        *Request
	index    int // among those of its ring
	qid      uint16
	commitID uint64
	iov      [2]syscall.Iovec // header and payload
}

func (e *ringEntry) header() *uringHeader { return (*uringHeader)(unsafe.Pointer(&e.r.buf[0])) }

// payload is where the kernel puts it, and takes that of the answer from.
func (e *ringEntry) payload() []byte { return e.r.buf[pageSize : pageSize+e.r.c.maxPayload()] }

// ringChannel is a ring, and the requests that come by it, one at a time. Only
// its thread uses it, but for send and late.
type ringChannel struct {
	c       *Conn
	q       *uringQueue
	g       *ring
	entries []*ringEntry
	commit  *Request      // answered, which the kernel is told with the next wait
	lates   chan *Request // answered late, and not committed
	given   int           // requests taken, and left to be answered late

	patience *time.Timer
}

// newURing plans the queues of rings, which have been given their file.
func newURing(c *Conn, rings *Rings) *uring {
	u := &uring{c: c, rings: rings, open: make(chan struct{}), off: make(chan struct{})}
	next := rings.rings
	add := func(cpus []int, n int) {
		q := &uringQueue{cpus: cpus}
		for _, g := range next[:n] {
			ch := &ringChannel{c: c, q: q, g: g, lates: make(chan *Request, len(g.cqes)), patience: time.NewTimer(time.Hour)}
			ch.patience.Stop()
			q.channels = append(q.channels, ch)
		}
		next = next[n:]
		u.queues = append(u.queues, q)
	}
	for _, cpu := range rings.online {
		add([]int{cpu}, rings.depth)
	}
	if len(rings.offline) > 0 {
		add(rings.offline, 1)
	}
	return u
}

// start makes the rings those of threads that will serve them, and finds out
// whether the kernel takes commands. It is called while INIT has not been
// answered: after that it is too late to do without.
//
// All threads there will be are started: a request that finds no place waits
// until one is answered, and a place that is new does not take it.
func (u *uring) start() error {
	up := make(chan error)
	n := 0
	for i, q := range u.queues {
		for j, ch := range q.channels {
			n++
			u.c.wg.Add(1)
			u.threads.Add(1)
			go ch.run(up, i == 0 && j == 0)
		}
	}
	var err error
	for range n {
		if e := <-up; err == nil {
			err = e
		}
	}
	return err
}

// begin lets requests come by the rings: the kernel knows of them.
func (u *uring) begin() { close(u.open) }

// closeUring gives the rings up, where requests do not come by them.
func (c *Conn) closeUring() {
	if c.uring != nil {
		close(c.uring.off)
		c.uring.threads.Wait()
		c.uring.close()
		c.uring = nil
	}
}

// close ends the rings, which no thread uses any more.
func (u *uring) close() {
	for _, q := range u.queues {
		for _, ch := range q.channels {
			for _, e := range ch.entries {
				unix.Munmap(e.r.buf)
				e.r.buf = nil
			}
			ch.entries = nil
		}
	}
	u.rings.Close()
}

// probe asks the kernel for something that it can only refuse before INIT has
// been answered, and returns nil if it does so for that reason.
func (ch *ringChannel) probe() error {
	e := ch.entry(uint16(ch.q.cpus[0]))
	ch.register(e)
	for {
		if errno := ch.g.wait(0); errno != 0 {
			return ringRefused(fmt.Errorf("io_uring_enter: %w", errno))
		}
		c, ok := ch.g.pop()
		if !ok {
			continue
		}
		switch errno := syscall.Errno(-c.res); errno {
		case syscall.EAGAIN:
			return nil
		case syscall.EOPNOTSUPP:
			return errUringOff
		default:
			return fmt.Errorf("a command to /dev/fuse: %w", errno)
		}
	}
}

// entry returns a new place, for a request of the queue qid.
func (ch *ringChannel) entry(qid uint16) *ringEntry {
	e := &ringEntry{r: ch.c.newRequest(), index: len(ch.entries), qid: qid}
	e.r.ch = ch
	e.r.ent = e
	e.iov[0].Base = &e.r.buf[0]
	e.iov[0].SetLen(int(unsafe.Sizeof(uringHeader{})))
	p := e.payload()
	e.iov[1].Base = &p[0]
	e.iov[1].SetLen(len(p))
	ch.entries = append(ch.entries, e)
	return e
}

// register pushes the command that hands e to the kernel.
func (ch *ringChannel) register(e *ringEntry) {
	s := ch.g.push()
	s.cmdOp, s.cmd.qid, s.userData = uringRegister, e.qid, uint64(e.index)
	s.addr, s.n = uint64(uintptr(unsafe.Pointer(&e.iov))), uint32(len(e.iov))
}

// pushCommit pushes the command that answers r, and hands its place to the kernel
// again.
func (ch *ringChannel) pushCommit(r *Request) {
	e := r.ent
	if !r.sent { // the kernel wants no answer, or has sent what has none; the place is to come free
		h := e.header()
		*(*OutHeader)(unsafe.Pointer(&h.inOut)) = OutHeader{Len: uint32(outHeaderSize), Error: -int32(syscall.EIO), Unique: r.hdr.Unique}
		h.ent.payloadSz = 0
	}
	s := ch.g.push()
	s.cmdOp, s.cmd.qid, s.cmd.commitID, s.userData = uringCommitAndFetch, e.qid, e.commitID, uint64(e.index)
}

// lookAfter is how often a thread that serves looks for late answers.
const lookAfter = 500 * time.Microsecond

// next tells the kernel what was answered, and waits for a request, of which it
// returns the length. ENODEV means that the file system has been unmounted.
func (ch *ringChannel) next() (*Request, int, syscall.Errno) {
	if ch.commit != nil {
		ch.pushCommit(ch.commit)
		ch.commit = nil
	}
	for {
		most := time.Duration(0)
		if ch.given > 0 {
			ch.takeLate()
			if ch.given > 0 {
				most = lookAfter
			}
		}
		if errno := ch.g.wait(most); errno != 0 {
			return nil, 0, errno
		}
		c, ok := ch.g.pop()
		if !ok {
			continue
		}
		e := ch.entries[c.userData]
		switch errno := syscall.Errno(-c.res); {
		case c.res >= 0:
			return e.r, e.receive(), 0
		case errno == syscall.EAGAIN:
			// What INIT has told it the kernel has not seen to. It has not got the
			// place either.
			time.Sleep(time.Millisecond)
			ch.register(e)
		case errno == syscall.ENOTCONN, errno == syscall.ECONNABORTED, errno == syscall.ECANCELED:
			return nil, 0, syscall.ENODEV
		default:
			return nil, 0, errno
		}
	}
}

// takeLate pushes the commits of what was answered late, as far as there is room.
func (ch *ringChannel) takeLate() {
	for ch.given > 0 && !ch.g.full() {
		select {
		case r := <-ch.lates:
			ch.given--
			ch.pushCommit(r)
		default:
			return
		}
	}
}

// receive puts the parts of a message together before the payload, and returns
// its length, or one that no message has.
func (e *ringEntry) receive() int {
	h, r := e.header(), e.r
	in := (*InHeader)(unsafe.Pointer(&h.inOut))
	e.commitID = h.ent.commitID
	n := int(in.Len)
	fixed := n - inHeaderSize - int(h.ent.payloadSz)
	if fixed < 0 || fixed > len(h.opIn) || fixed%8 != 0 || int(h.ent.payloadSz) > len(e.payload()) {
		n, fixed = inHeaderSize-1, 0
	}
	r.start = pageSize - fixed - inHeaderSize
	copy(r.buf[r.start:], h.inOut[:inHeaderSize])
	copy(r.buf[r.start+inHeaderSize:pageSize], h.opIn[:fixed])
	r.hdr = (*InHeader)(unsafe.Pointer(&r.buf[r.start]))
	return n
}

// send puts the answer where the kernel will look for it.
func (ch *ringChannel) send(r *Request, n int, payload []byte) syscall.Errno {
	h, room := r.ent.header(), r.ent.payload()
	out := (*OutHeader)(unsafe.Pointer(&r.out))
	fixed := unsafe.Slice((*byte)(unsafe.Pointer(&r.out)), n)[outHeaderSize:]
	size := len(fixed) + len(payload)
	var errno syscall.Errno
	if size > len(room) {
		errno, size = syscall.EINVAL, 0
		out.Len, out.Error = uint32(outHeaderSize), -int32(syscall.EIO)
	} else if len(fixed) > 0 || len(payload) > 0 && &payload[0] != &room[0] {
		copy(room[len(fixed):], payload)
		copy(room, fixed)
	}
	*(*OutHeader)(unsafe.Pointer(&h.inOut)) = *out
	h.ent.payloadSz = uint32(size)
	if r.atOnce {
		ch.pushCommit(r)
		if e := ch.g.submit(); e != 0 {
			return e
		}
	}
	return errno
}

// late gives r to the ring's thread.
func (ch *ringChannel) late(r *Request) { ch.lates <- r }
