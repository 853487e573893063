package fuse2fs

import (
	"sync"
	"sync/atomic"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/fuse"
)

// freeze brings everything to the device and leaves it alone until unfreeze.
func (s *Server) freeze(r *fuse.Request) {
	if ro, _ := s.fs.ReadOnly(); ro {
		r.ReplyErr(0)
		return
	}
	s.frozen.begin()
	err := s.fs.Freeze()
	if err != nil {
		s.frozen.end(s.release)
	}
	s.done(r, err)
}

func (s *Server) unfreeze(r *fuse.Request) {
	if ro, _ := s.fs.ReadOnly(); ro {
		r.ReplyErr(0)
		return
	}
	err := s.fs.Thaw()
	s.frozen.end(s.release)
	s.done(r, err)
}

// frozen keeps what the kernel lets go of while the file system is frozen. Files
// without a name cannot be freed then, and no thread may wait for it: it may be the
// one that is to read what ends the freeze.
type frozen struct {
	on   atomic.Bool // changed with mu held
	mu   sync.Mutex
	kept []fuse.ForgetOne // guarded by mu
}

func (f *frozen) begin() {
	f.mu.Lock()
	f.on.Store(true)
	f.mu.Unlock()
}

// keep reports whether the references are kept until the end.
func (f *frozen) keep(node, n uint64) bool {
	if !f.on.Load() {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.on.Load() {
		return false
	}
	f.kept = append(f.kept, fuse.ForgetOne{NodeID: node, Nlookup: n})
	return true
}

// end gives what was kept to release.
func (f *frozen) end(release func(node, n uint64)) {
	f.mu.Lock()
	f.on.Store(false)
	kept := f.kept
	f.kept = nil
	f.mu.Unlock()
	for _, k := range kept {
		release(k.NodeID, k.Nlookup)
	}
}

// shutdown is told when the device is gone, or is to be taken for gone.
func (s *Server) shutdown(r *fuse.Request) { s.done(r, s.fs.Shutdown(ext2fs.ShutdownNoLogFlush)) }
