//go:build linux

package fuse

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// placed runs f on a thread of its own with a placer, if there is a choice of CPUs.
func placed(t *testing.T, f func(p *placer)) {
	t.Helper()
	done := make(chan bool)
	go func() {
		runtime.LockOSThread() // not unlocked: its affinity goes with it
		defer close(done)
		var p placer
		p.init()
		if p.cpus == nil {
			done <- false
			return
		}
		f(&p)
	}()
	if some, ok := <-done; ok && !some {
		t.Skip("needs two CPUs to choose from")
	}
}

// feed has p see n requests that take what cost says of a place.
func feed(p *placer, n int, cost func(at int) time.Duration) {
	for range n {
		p.step(cost(p.at))
	}
}

// trials is more requests than all trials take.
func trials(p *placer) int { return placeAlone + (2*pauseFirst+len(p.cpus)+placeSlow+2)*placeWindow }

func affinity(t *testing.T) unix.CPUSet {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Error(err)
	}
	return set
}

func TestPlace(t *testing.T) {
	client := func(cpu int) func(int) time.Duration { // runs there
		return func(at int) time.Duration {
			if at == cpu {
				return 10 * time.Microsecond
			}
			return 40 * time.Microsecond
		}
	}
	on := func(p *placer, at int) (set unix.CPUSet) {
		set.Set(p.cpus[at])
		return set
	}

	t.Run("follows", func(t *testing.T) {
		placed(t, func(p *placer) {
			feed(p, placeAlone-1, client(1))
			if p.set != p.all || affinity(t) != p.all {
				t.Error("placed before it was alone for long")
			}
			feed(p, trials(p), client(1))
			if p.at != 1 || affinity(t) != on(p, 1) {
				t.Errorf("is at %d, the client on CPU 1", p.at)
			}
			feed(p, trials(p), client(0))
			if p.at != 0 || affinity(t) != on(p, 0) {
				t.Errorf("is at %d, the client has moved to CPU 0", p.at)
			}
			p.leave()
			if affinity(t) != p.all {
				t.Error("is not free where it is not alone")
			}
			feed(p, placeAlone, client(0))
			if p.at != 0 {
				t.Error("has forgotten its place")
			}
		})
	})
	t.Run("busy CPU", func(t *testing.T) {
		placed(t, func(p *placer) {
			slow := 0
			feed(p, trials(p), func(at int) time.Duration {
				if at == 0 {
					slow++
					return 5 * time.Millisecond
				}
				return 40 * time.Microsecond
			})
			if slow == 0 || slow > 2*placeBad {
				t.Errorf("%d requests on a CPU where each takes long", slow)
			}
		})
	})
	t.Run("another client", func(t *testing.T) {
		placed(t, func(p *placer) {
			feed(p, trials(p), func(int) time.Duration { return 40 * time.Microsecond })
			p.rest = pauseMost // as it is after long
			p.doubt()
			feed(p, (placeSlow+len(p.cpus)+1)*placeWindow, client(1))
			if p.at != 1 {
				t.Errorf("is at %d, another client on CPU 1", p.at)
			}
		})
	})
	t.Run("no better place", func(t *testing.T) {
		placed(t, func(p *placer) {
			feed(p, trials(p), func(int) time.Duration { return 40 * time.Microsecond })
			feed(p, (pauseMost+len(p.cpus)+2)*placeWindow, func(at int) time.Duration {
				if p.trial == noTrial && at != free {
					t.Fatal("stays where it is no better")
				}
				return 40 * time.Microsecond
			})
			if p.pause < pauseFirst*4 {
				t.Errorf("still tries every %d windows", p.pause)
			}
		})
	})
	t.Run("placed by others", func(t *testing.T) {
		placed(t, func(p *placer) {
			feed(p, trials(p), client(1))
			theirs := on(p, 0)
			if err := unix.SchedSetaffinity(0, &theirs); err != nil {
				t.Fatal(err)
			}
			feed(p, 2*pauseMost*placeWindow, client(1))
			p.leave()
			if affinity(t) != theirs {
				t.Error("undid what others have decided")
			}
		})
	})
}

func TestLoner(t *testing.T) {
	var l loner
	many := func(n int, pid func(i int) uint32, bulk bool) bool {
		for i := range n {
			l.saw(pid(i), bulk)
		}
		return l.is()
	}
	one := func(int) uint32 { return 7 }
	if many(loneScore, one, false) || !many(loneScore, one, false) {
		t.Error("a thread is not alone after as many requests")
	}
	if !many(1000, func(i int) uint32 { return uint32(min(i%10, 1) * 7) }, false) {
		t.Error("a write of the kernel's among ten requests hides a lone client")
	}
	if many(2000, func(i int) uint32 { return uint32(7 + i%2) }, false) {
		t.Error("two clients are one")
	}
	many(2000, one, false)
	if many(loneMost, one, true) {
		t.Error("a stream is served alone")
	}
	many(2000, one, false)
	if many(loneMost, func(int) uint32 { return 0 }, false) {
		t.Error("requests of the kernel are a client")
	}
	many(2000, one, false)
	if l.not(); l.is() || many(loneScore, one, false) {
		t.Error("requests at a time are forgotten at once")
	}
}
