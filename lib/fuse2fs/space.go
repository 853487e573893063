package fuse2fs

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/fuse"
)

// forgetTime is how long the FORGET of what was removed is waited for.
const forgetTime = time.Second / 2

// removals tells operations that lack space whether to wait for some.
type removals struct {
	n atomic.Uint64 // names removed

	mu     sync.Mutex
	waited uint64    // guarded by mu: n when an operation began to wait
	until  time.Time // guarded by mu: how long it may
}

// removed notes that a name was removed. If it was the last one, the blocks are
// freed when the kernel says that it has forgotten the inode, by a message that
// comes after the answer and that another worker may get.
func (s *Server) removed() { s.removals.n.Add(1) }

// deadline returns how long space may be waited for: forgetTime from when that
// was first wanted after the last removal.
func (m *removals) deadline() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.n.Load(); n != m.waited {
		m.waited, m.until = n, time.Now().Add(forgetTime)
	}
	return m.until
}

// again says whether an operation that ended with err, for want of space, is
// worth another try: something was removed, and has been freed since. What is
// held open without a name delays nobody for long.
func (s *Server) again(r *fuse.Request, err error) bool {
	if !errors.Is(err, syscall.ENOSPC) || s.cfg.Workers == 1 {
		return false
	}
	n := s.fs.Orphans()
	if n == 0 {
		return false
	}
	until := s.removals.deadline()
	if !time.Now().Before(until) {
		return false
	}
	r.Blocking() // the FORGET may be the next to be read
	for time.Now().Before(until) {
		time.Sleep(time.Millisecond)
		if s.fs.Orphans() < n {
			return true
		}
	}
	return false
}

// make returns the inode that f makes, once there is space for it.
func (s *Server) make(r *fuse.Request, f func() (*ext2fs.Inode, error)) (*ext2fs.Inode, error) {
	for {
		ip, err := f()
		if !s.again(r, err) {
			return ip, err
		}
	}
}
