package populate

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// Dir is the directory at path, as a source: all that is below it, other file
// systems mounted there too.
func Dir(path string) Source { return &dirSource{path: path} }

type dirSource struct{ path string }

// dirJob is a directory to be read.
type dirJob struct {
	path string // from the source, "" for itself
	n    *node
}

// dirWalk reads directories side by side. Each is read by one worker, which
// alone changes its node; what workers share is under mu.
type dirWalk struct {
	ctx  context.Context
	t    *Tree
	skip excludes

	mu      sync.Mutex
	cond    sync.Cond
	jobs    []dirJob            // guarded by mu
	busy    int                 // guarded by mu: workers with a job
	err     error               // guarded by mu: of the first path in order that failed
	errPath string              // guarded by mu
	links   map[[2]uint64]*node // guarded by mu: by device and inode
	entries atomic.Int64
}

func workers(n int) int {
	if n > 0 {
		return n
	}
	return min(max(2*runtime.GOMAXPROCS(0), 2), 16)
}

// run reads everything, by read for each directory.
func (w *dirWalk) run(root *node, read func(dirJob) error) error {
	w.cond.L = &w.mu
	w.links = map[[2]uint64]*node{}
	w.jobs = []dirJob{{"", root}}
	var wg sync.WaitGroup
	for range workers(w.t.opt.Workers) {
		wg.Go(func() { w.worker(read) })
	}
	wg.Wait()
	w.t.entries = int(w.entries.Load())
	return w.err
}

func (w *dirWalk) worker(read func(dirJob) error) {
	for {
		w.mu.Lock()
		for len(w.jobs) == 0 && w.busy > 0 {
			w.cond.Wait()
		}
		if len(w.jobs) == 0 {
			w.mu.Unlock()
			return
		}
		j := w.jobs[len(w.jobs)-1]
		w.jobs = w.jobs[:len(w.jobs)-1]
		w.busy++
		stop := w.err != nil
		w.mu.Unlock()
		var err error
		if !stop {
			if err = interrupted(w.ctx); err == nil {
				err = read(j)
			}
		}
		w.mu.Lock()
		w.busy--
		if err != nil && (w.err == nil || j.path < w.errPath) {
			w.err, w.errPath = err, j.path
		}
		if w.err != nil {
			w.jobs = nil
		}
		w.cond.Broadcast()
		w.mu.Unlock()
	}
}

// push queues directories.
func (w *dirWalk) push(jobs []dirJob) {
	if len(jobs) == 0 {
		return
	}
	w.mu.Lock()
	w.jobs = append(w.jobs, jobs...)
	w.cond.Broadcast()
	w.mu.Unlock()
}

// linked returns the node of a file that has several names, if it was met.
func (w *dirWalk) linked(dev, ino uint64, make func() (*node, error)) (*node, error) {
	key := [2]uint64{dev, ino}
	w.mu.Lock()
	n := w.links[key]
	w.mu.Unlock()
	if n != nil {
		return n, nil
	}
	n, err := make()
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if other := w.links[key]; other != nil {
		return other, nil
	}
	w.links[key] = n
	return n, nil
}
