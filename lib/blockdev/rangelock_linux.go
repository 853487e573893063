package blockdev

import "sync"

// rangeLock is a lock on ranges of bytes, shared or exclusive. Few are held at
// a time: as many as there are writes in flight.
type rangeLock struct {
	mu      sync.Mutex
	free    sync.Cond   // a range was unlocked
	held    []heldRange // guarded by mu
	waiting int         // guarded by mu
}

type heldRange struct {
	off, end  int64
	exclusive bool
}

func (l *rangeLock) init() { l.free.L = &l.mu }

// lock waits until no range that overlaps is held, or all of them and this one
// are shared.
func (l *rangeLock) lock(off, n int64, exclusive bool) {
	l.mu.Lock()
	for l.conflictLocked(off, off+n, exclusive) {
		l.waiting++
		l.free.Wait()
		l.waiting--
	}
	l.held = append(l.held, heldRange{off, off + n, exclusive})
	l.mu.Unlock()
}

func (l *rangeLock) conflictLocked(off, end int64, exclusive bool) bool {
	for i := range l.held {
		h := &l.held[i]
		if off < h.end && h.off < end && (exclusive || h.exclusive) {
			return true
		}
	}
	return false
}

// unlock undoes a lock with the same arguments.
func (l *rangeLock) unlock(off, n int64, exclusive bool) {
	l.mu.Lock()
	for i, h := range l.held {
		if h == (heldRange{off, off + n, exclusive}) {
			last := len(l.held) - 1
			l.held[i] = l.held[last]
			l.held = l.held[:last]
			break
		}
	}
	if l.waiting > 0 {
		l.free.Broadcast()
	}
	l.mu.Unlock()
}
