//go:build linux

package fuse

import (
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// run is the life of a thread that serves a ring. It says on up whether the ring
// can be used, asking the kernel if probe is set.
func (ch *ringChannel) run(up chan<- error, probe bool) {
	c, q, u := ch.c, ch.q, ch.c.uring
	runtime.LockOSThread() // not unlocked: the thread ends with the ring
	defer c.wg.Done()
	if !ch.start(u, up, probe) {
		return
	}
	w := &worker{}
	c.mu.Lock()
	c.workers = append(c.workers, w)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.workers = slices.DeleteFunc(c.workers, func(o *worker) bool { return o == w })
	}()
	if err := ch.registerAll(); err != 0 {
		c.fail(fmt.Errorf("fuse: io_uring: %w", err))
		return
	}
	var tie cpuTie
	if len(q.cpus) == 1 {
		tie.init(q.cpus[0])
	}
	var clock pacer
	clock.init()
	for {
		if clock.measures(true, true) > 0 {
			if errno := ch.yield(&clock); errno != 0 {
				c.fail(fmt.Errorf("fuse: io_uring: %w", errno))
				return
			}
		}
		q.idle.Add(1)
		r, n, errno := ch.next()
		idle := q.idle.Add(-1)
		if errno != 0 {
			c.end()
			if errno != syscall.ENODEV {
				c.fail(fmt.Errorf("fuse: io_uring: %w", errno))
			}
			return
		}
		w.busy.Store(true)
		tie.saw(int(idle)+1 == len(q.channels), r.bulk(n))
		c.serve(w, r, n)
		switch {
		case c.left(r):
			ch.leave(r)
		case !r.sent || !r.atOnce:
			ch.commit = r
		}
		w.busy.Store(false)
	}
}

// start makes the ring the thread's, and waits until the kernel knows of it. It
// reports false if that will not be.
func (ch *ringChannel) start(u *uring, up chan<- error, probe bool) bool {
	err := ch.g.enable()
	if err == nil && probe {
		err = ch.probe()
	}
	defer u.threads.Done()
	up <- err
	if err != nil {
		return false
	}
	select {
	case <-u.open:
		return true
	case <-u.off:
	case <-ch.c.ended:
	}
	return false
}

// registerAll hands the places of the ring to the kernel: one in each queue.
func (ch *ringChannel) registerAll() syscall.Errno {
	for i, cpu := range ch.q.cpus {
		if ch.g.full() {
			if errno := ch.g.submit(); errno != 0 {
				return errno
			}
		}
		if i == len(ch.entries) {
			ch.entry(uint16(cpu))
		}
		ch.register(ch.entries[i])
	}
	return ch.g.submit()
}

// yield lets other goroutines run now and then, when the kernel has been told what
// was answered: to come back takes this thread some time.
func (ch *ringChannel) yield(clock *pacer) syscall.Errno {
	now := clock.now()
	if !clock.due(now) {
		return 0
	}
	if ch.commit != nil {
		ch.pushCommit(ch.commit)
		ch.commit = nil
		if errno := ch.g.submit(); errno != 0 {
			return errno
		}
	}
	clock.yield(now)
	return 0
}

// leave sees to a request whose handler has returned without an answer. What will
// answer it may wait for other requests of the same CPU, so the thread does not
// wait long for it: it takes another place instead, and goes on. Places cannot be
// given back, and a request may come to one whose thread serves another, so that
// there is none too many.
func (ch *ringChannel) leave(r *Request) {
	ch.patience.Reset(latePatience)
	select {
	case ch.commit = <-ch.lates: // or another one that was left, in place of which r is
		ch.patience.Stop()
		return
	case <-ch.patience.C:
	}
	ch.given++
	switch {
	case ch.given < len(ch.entries):
	case ch.given < cap(ch.lates) && !ch.g.full():
		ch.register(ch.entry(r.ent.qid))
	default: // more are never left than have room there
		ch.commit = <-ch.lates
		ch.given--
	}
}

// latePatience is how long an answer is waited for that comes late, and cheaper
// than to look for it afterwards.
const latePatience = 200 * time.Microsecond

// A cpuTie keeps a thread on the CPU whose requests it serves, where its client is:
// to wake another CPU takes longer than most requests. While there are several at
// a time, or large ones, they are better served on several CPUs.
type cpuTie struct {
	free unix.CPUSet // where the thread may run
	own  unix.CPUSet
	tied bool
	ok   bool
	run  int // requests in a row that speak for the other state
}

const (
	tieAfter   = 32
	untieAfter = 4
)

func (t *cpuTie) init(cpu int) {
	t.own.Set(cpu)
	t.ok = unix.SchedGetaffinity(0, &t.free) == nil && t.free.IsSet(cpu) && t.free.Count() > 1
	t.set(true)
}

// saw counts a request, which came while no other was served or not.
func (t *cpuTie) saw(alone, bulk bool) {
	if !t.ok {
		return
	}
	if want := alone && !bulk; want == t.tied {
		t.run = 0
		return
	}
	t.run++
	if t.tied && t.run >= untieAfter || !t.tied && t.run >= tieAfter {
		t.set(!t.tied)
	}
}

// set moves the thread. It is not tried again where that is not allowed.
func (t *cpuTie) set(tied bool) {
	if !t.ok {
		return
	}
	to := &t.free
	if tied {
		to = &t.own
	}
	t.ok = unix.SchedSetaffinity(0, to) == nil
	t.tied, t.run = tied, 0
}

// forgetRest is how long nothing is read from /dev/fuse after a FORGET: others
// follow, and what is there by then is read at once.
const forgetRest = 2 * time.Millisecond

// tend serves what does not come by io_uring: FORGET, INTERRUPT, and what the
// kernel has sent before it was open.
func (c *Conn) tend(w *worker, r *Request) {
	for {
		n, errno := w.ch.recv(r)
		if errno != 0 {
			c.received(errno)
			return
		}
		w.busy.Store(true)
		r.ch = w.ch
		rest := r.forgets(n)
		if !c.serve(w, r, n) {
			return
		}
		if c.left(r) {
			r = c.newRequest()
		}
		w.busy.Store(false)
		if rest {
			time.Sleep(forgetRest)
		}
	}
}
