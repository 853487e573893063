//go:build linux

package fuse

import (
	"runtime"
	"time"
)

// A pacer is the clock of a worker. To read it takes a system call where the
// kernel has no vDSO, so it is read once a request at most, on average.
type pacer struct {
	start  time.Time
	since  int           // waits that were not measured
	yields time.Duration // when the worker last let others run
}

const (
	// The wait for one request in so many is measured: of a lone client, and
	// where requests have been waited for of late.
	glanceLone = 16
	glanceCalm = 2

	// yieldAfter is well under the 10 ms after which Go's monitor takes a
	// goroutine for one that lets no other run.
	yieldAfter = 3 * time.Millisecond
)

func (p *pacer) init() { p.start = time.Now() }

// now returns the time since init.
func (p *pacer) now() time.Duration { return time.Since(p.start) }

// measures returns how many waits the next one stands for, 0 if it is not to be
// measured. It costs two readings.
func (p *pacer) measures(lone, calm bool) int {
	every := 1
	switch {
	case lone:
		every = glanceLone
	case calm:
		every = glanceCalm
	}
	if p.since++; p.since < every {
		return 0
	}
	n := p.since
	p.since = 0
	return n
}

// due tells whether yield would do so.
func (p *pacer) due(now time.Duration) bool { return now-p.yields >= yieldAfter }

// yield lets other goroutines run now and then. A worker does so at no
// other point, since a wait in a system call is none to Go's scheduler. Its
// monitor would conclude that it lets no other run, and from then on look every
// 20 µs, take the processor away in system calls, and send a signal between them:
// each of that wakes threads.
func (p *pacer) yield(now time.Duration) {
	if p.due(now) {
		p.yields = now
		runtime.Gosched()
	}
}
