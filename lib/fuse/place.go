//go:build linux

package fuse

import (
	"math"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A placer keeps a worker that serves alone where its client runs. The kernel
// wakes the worker on another, idle CPU, and then the client on its own: to wake
// a CPU twice takes longer than most requests. Nobody tells on which CPU a client
// is, so the worker measures: it stays on each CPU for a few requests, and then
// where they followed each other fastest, if that is clearly better than to be
// placed by the scheduler. It looks again now and then, the more seldom the more
// often the answer was the same, and soon if requests come much slower.
//
// A client that may run on several CPUs is moved away from its server by the
// scheduler each time it is answered, so for it no place is better, and none
// is chosen. While one is, the goroutine keeps its thread, which ends with it.
type placer struct {
	cpus []int       // where the thread may run; nil if there is no choice
	all  unix.CPUSet // the same
	set  unix.CPUSet // where it may run in its place

	alone  int // calls of step since leave, up to placeAlone
	at     int // where the thread is: index in cpus, or free
	best   int // the choice
	bestQ  time.Duration
	trial  int // what is being tried: index in cpus, or free; noTrial
	rest   int // windows until the next trials
	pause  int // windows between trials, grows
	slower int // windows in a row that were much slower than bestQ

	bad    int // samples of a trial that speak against it
	n      int
	sample [placeWindow]time.Duration // between requests
}

const (
	free    = -1
	noTrial = -2

	placeAlone  = 32 // requests that a worker is alone before it is placed
	placeWindow = 32 // requests that a place is judged by
	placeMost   = 32 // CPUs that are tried, at most
	placeBad    = 3  // slow ones among them that end a trial, if they are most
	pauseFirst  = 16 // windows
	pauseMost   = 2048
	placeSlow   = 4 // windows in a row after which slower requests are believed
)

func (p *placer) init() {
	p.at, p.best, p.trial, p.pause = free, free, noTrial, pauseFirst
	if unix.SchedGetaffinity(0, &p.all) != nil {
		return
	}
	p.set = p.all
	for cpu := 0; cpu < len(p.all)*64 && len(p.cpus) < placeMost; cpu++ {
		if p.all.IsSet(cpu) {
			p.cpus = append(p.cpus, cpu)
		}
	}
	if len(p.cpus) < 2 {
		p.cpus = nil
	}
}

// leave is called when the worker is not alone, or what it serves is no matter
// of turnaround: the scheduler places it.
func (p *placer) leave() {
	if p.alone == placeAlone {
		p.n, p.bad, p.trial = 0, 0, noTrial
		p.move(free)
	}
	p.alone = 0
}

// doubt is called when the client is another one: it may run elsewhere.
func (p *placer) doubt() { p.rest = min(p.rest, placeSlow) }

// wants tells whether step makes use of what it is told.
func (p *placer) wants() bool { return p.cpus != nil }

// step is called with each request, and how long after the last one it came,
// while the worker is alone.
func (p *placer) step(after time.Duration) {
	if p.cpus == nil {
		return
	}
	if p.alone < placeAlone {
		if p.alone++; p.alone == placeAlone {
			p.move(p.best)
		}
		return
	}
	p.sample[p.n] = after
	if p.n++; p.n < placeWindow {
		if p.trial >= 0 && after > 2*p.bestQ {
			// On a CPU that others use each request may wait for long: a few show it.
			if p.bad++; p.bad >= placeBad && 2*p.bad > p.n {
				p.tried(math.MaxInt64)
			}
		}
		return
	}
	slices.Sort(p.sample[:])
	q := p.sample[placeWindow/4] // pauses of the client and long requests are above
	if p.trial != noTrial {
		p.tried(q)
		return
	}
	p.n = 0
	p.slower++
	if q < 2*p.bestQ {
		p.slower = 0
		p.bestQ = (7*p.bestQ + q) / 8
	}
	if p.slower == placeSlow {
		p.rest = 1
	}
	if p.rest--; p.rest <= 0 {
		p.trial = free
		p.move(free)
	}
}

// tried notes the outcome of a trial, and goes on to the next, or to the best.
func (p *placer) tried(q time.Duration) {
	p.n, p.bad = 0, 0
	was := p.best
	if p.trial == free {
		p.best, p.bestQ = free, q
	} else if q < p.bestQ-p.bestQ/8 {
		p.best, p.bestQ = p.trial, q
	}
	p.trial++
	if p.trial < len(p.cpus) {
		p.move(p.trial)
		return
	}
	p.trial, p.slower = noTrial, 0
	p.pause = min(2*p.pause, pauseMost)
	if was != p.best && was != free {
		p.pause = pauseFirst
	}
	p.rest = p.pause
	p.move(p.best)
}

// move moves the thread. It is not tried again where that is not allowed, and
// where somebody else has decided on which CPUs the thread runs.
func (p *placer) move(to int) {
	if p.at == to || p.cpus == nil {
		return
	}
	if p.at == free {
		// What other goroutines start on this thread would stay where it is.
		runtime.LockOSThread()
	}
	var now unix.CPUSet
	ok := unix.SchedGetaffinity(0, &now) == nil && now == p.set
	if ok {
		if p.set = p.all; to != free {
			p.set.Zero()
			p.set.Set(p.cpus[to])
		}
		ok = unix.SchedSetaffinity(0, &p.set) == nil
	}
	if ok {
		p.at = to
	} else {
		p.cpus = nil
	}
	if p.at == free {
		runtime.UnlockOSThread()
	}
}
