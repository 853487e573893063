//go:build linux

package fuse

import (
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

// worker is one serving thread.
type worker struct {
	busy  atomic.Bool // between a request's arrival and its end
	ch    channel
	extra bool // added under load; leaves when load is gone
	first bool // on the mounted descriptor: INIT comes to it
}

func (c *Conn) addWorker(extra bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if extra && (c.live == 0 || c.live >= c.cfg.MaxWorkers) {
		return
	}
	w := &worker{ch: c.tr.open(c.live), extra: extra, first: len(c.workers) == 0}
	c.workers = append(c.workers, w)
	c.live++
	c.wg.Add(1)
	go c.work(w)
}

// work is the life of a worker.
func (c *Conn) work(w *worker) {
	defer c.wg.Done()
	r := c.newRequest()
	defer func() {
		c.freeRequest(r)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.live--
		c.workers = slices.DeleteFunc(c.workers, func(o *worker) bool { return o == w })
	}()
	if !w.first && !c.awaitInit() {
		return
	}
	var place placer
	place.init()
	var clock pacer
	clock.init()
	c.active.Add(1)
	defer c.active.Add(-1)
	streak := 0 // receipts in a row without a wait, or if negative with one
	clean := 0  // requests since the last FORGET
	bulk := 0   // large requests in a row
	var got time.Duration
	for {
		if (streak <= -calm || c.lone.is()) && c.idle.Load() > 0 {
			place.leave()
			if w.extra || !c.park() {
				return
			}
			streak = 0
		}
		lone := c.lone.is() && c.active.Load() == 1
		measured := clock.measures(lone, streak < 0)
		var before, now time.Duration
		if measured > 0 {
			before = clock.now()
			clock.yield(before)
		}
		c.idle.Add(1)
		n, errno := w.ch.recv(r)
		if measured > 0 || place.wants() {
			now = clock.now()
		}
		idle := c.idle.Add(-1)
		if errno == syscall.EPERM && !w.first {
			return // a clone that has not become one
		}
		if errno != 0 {
			c.received(errno)
			return
		}
		w.busy.Store(true)
		if r.forgets(n) {
			clean = 0
		} else {
			clean++
			if bulk++; !r.bulk(n) {
				bulk = 0
			}
			if c.lone.saw(r.PID(), bulk >= stream) {
				place.doubt()
			}
			switch {
			case measured == 0:
			case now-before > atOnce:
				streak = min(streak, 0) - measured
			default:
				streak = max(streak, 0) + 1
			}
			if c.lone.is() && c.active.Load() == 1 {
				place.step(now - got)
			} else {
				place.leave()
			}
			got = now
		}
		if idle == 0 {
			if measured > 0 && streak >= press {
				// A client that runs on our CPU has its next request ready
				// whenever we look: what counts is whether there are more. What
				// it has to say of inodes it forgets is not worth a worker.
				streak = 0
				if (clean > tidy || !c.lone.is()) && c.tr.pending() {
					c.lone.not()
					c.unpark()
				}
			}
			if !c.growing.Load() && c.growing.CompareAndSwap(false, true) {
				select {
				case c.grow <- struct{}{}:
				default:
				}
			}
		}
		r.ch = w.ch
		if idle == 0 && c.handsOff(r, n) {
			r = c.newRequest()
			w.busy.Store(false)
			continue
		}
		if !c.serve(w, r, n) {
			return
		}
		if c.left(r) {
			r = c.newRequest()
		}
		w.busy.Store(false)
		if w.first && c.Negotiated().Uring {
			place.leave()
			c.tend(w, r)
			return
		}
	}
}

// received ends the connection for what recv returned instead of a request.
func (c *Conn) received(errno syscall.Errno) {
	c.end()
	if errno != syscall.ENODEV && errno != syscall.ECONNABORTED {
		c.fail(fmt.Errorf("fuse: read a request: %w", errno))
	}
}

// left tells whether r, whose handler has returned, is to be answered later, and
// belongs to who does that.
func (c *Conn) left(r *Request) bool {
	if r.state.Load() == answered {
		return false
	}
	c.deferred.Add(1) // before the other side can give it back
	if r.state.CompareAndSwap(serving, deferred) {
		return true
	}
	c.deferred.Add(-1)
	return false
}

// awaitInit waits until INIT has been answered: clones need not be clones before,
// and nothing else is sent. It reports false at the end of the connection.
func (c *Conn) awaitInit() bool {
	select {
	case <-c.ready:
		return !c.Negotiated().Uring // then one is enough
	case <-c.ended:
		return false
	}
}

// mostDeferred is how many requests may be handled by goroutines of their own. Those
// that wait for a disk take a thread each, of which Go has 10,000 before it ends the
// process: anybody who starts as many threads that read could have it do that.
const mostDeferred = 4096

// handsOff gives r, a message of n bytes, to a goroutine if the worker that has
// read it is the last that can read, and r is nothing that memory may wait for.
func (c *Conn) handsOff(r *Request, n int) bool {
	if c.cfg.Urgent == nil || n < inHeaderSize {
		return false
	}
	op := r.Op()
	if op == OpInit || op == OpDestroy || op.noReply() || c.cfg.Urgent(r) {
		return false
	}
	c.mu.Lock()
	last := c.live >= c.cfg.MaxWorkers
	c.mu.Unlock()
	if !last || c.deferred.Load() >= mostDeferred {
		return false
	}
	c.deferred.Add(1) // done takes it back
	go func() {
		c.serveDeferred(&worker{}, r, n)
	}()
	return true
}

// serveDeferred serves a request that was handed off.
func (c *Conn) serveDeferred(w *worker, r *Request, n int) {
	c.serve(w, r, n)
	if !r.state.CompareAndSwap(serving, deferred) { // answered
		c.freeRequest(r)
		c.deferred.Add(-1)
	}
}

// The kernel wakes waiting workers in turn, so with more of them than the load
// needs each request meets a cold thread, or wakes a sleeping CPU. So a worker
// parks that found others waiting, and had to wait itself, calm times in a row, or
// if there is one client only. One that found press requests in a row ready for
// it, and nobody else waiting, gets a parked one back if there are more.
const (
	calm   = 64
	press  = 4
	tidy   = 64
	stream = 4
	atOnce = 2 * time.Microsecond // a receipt without sleep takes less
)

// loner tells whether requests come from one thread, which waits for each, as
// far as can be seen. Requests of the kernel itself count against it, but a few
// among many do not matter: what a client has written comes so.
type loner struct {
	pid   atomic.Uint32 // of the last client
	score atomic.Int32  // up by each request of the same
}

const (
	loneScore = 64
	loneMost  = 2 * loneScore
	loneLeast = -loneScore
)

// saw counts a request of the thread pid, 0 if not known, and tells whether that
// is another one than before. Two workers that count at the same time may lose one.
func (l *loner) saw(pid uint32, bulk bool) (other bool) {
	s := l.score.Load()
	switch {
	case bulk:
		s -= 32
	case pid == 0:
		s -= 4
	case pid == l.pid.Load():
		s++
	default:
		l.pid.Store(pid)
		s -= 32
		other = true
	}
	l.score.Store(min(max(s, loneLeast), loneMost))
	return other
}

func (l *loner) is() bool { return l.score.Load() >= loneScore }

// not says that there were several requests at a time all the same.
func (l *loner) not() { l.score.Store(loneLeast) }

// park waits to be needed. It reports false at the end of the connection.
func (c *Conn) park() bool {
	c.active.Add(-1)
	defer c.active.Add(1)
	select {
	case <-c.wake:
		return true
	case <-c.ended:
		return false
	}
}

// unpark gets a parked worker back, if there is one.
func (c *Conn) unpark() bool {
	select {
	case c.wake <- struct{}{}:
		return true
	default:
		return false
	}
}

// end lets parked workers go.
func (c *Conn) end() { c.endOnce.Do(func() { close(c.ended) }) }

// grower adds workers while requests wait and no worker is idle. It sleeps
// until a worker finds that it was the last idle one. That is so of a worker
// that serves alone, at each request; so the longer nothing waits, the less
// often the grower looks.
func (c *Conn) grower() {
	const (
		tick     = 500 * time.Microsecond
		mostTick = 8 * tick
		grace    = 2 // ticks without pressure to go to sleep
	)
	wait := tick
	for {
		select {
		case <-c.stop:
			return
		case <-c.grow:
		}
		pressed, still := 0, true
		for quiet := 0; quiet < grace; {
			time.Sleep(wait)
			if c.idle.Load() > 0 || !c.tr.pending() {
				quiet++
				pressed = 0
				continue
			}
			quiet, still, wait = 0, false, tick
			if pressed++; pressed < 2 {
				continue // may have been taken at once
			}
			if !c.unpark() {
				c.addWorker(true)
			}
		}
		if still {
			wait = min(2*wait, mostTick)
		}
		c.growing.Store(false)
	}
}
