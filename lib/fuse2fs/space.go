package fuse2fs

import (
	"errors"
	"syscall"
	"time"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/fuse"
)

// forgetTime is how long after a removal its FORGET is waited for.
const forgetTime = time.Second / 2

// removed notes that a name was removed. If it was the last one, the blocks are
// freed when the kernel says that it has forgotten the inode, by a message that
// comes after the answer and that another worker may get.
func (s *Server) removed() { s.lastRemoval.Store(time.Now().UnixNano()) }

// again says whether an operation that ended with err, for want of space, is
// worth another try: something was removed just now, and has been freed since.
// What is held open without a name delays nobody for long.
func (s *Server) again(r *fuse.Request, err error) bool {
	if !errors.Is(err, syscall.ENOSPC) || s.cfg.Workers == 1 {
		return false
	}
	left := func() time.Duration { return time.Until(time.Unix(0, s.lastRemoval.Load()).Add(forgetTime)) }
	n := s.fs.Orphans()
	if n == 0 || left() <= 0 {
		return false
	}
	r.Blocking() // the FORGET may be the next to be read
	for left() > 0 {
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
