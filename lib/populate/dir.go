package populate

import (
	"context"
	"runtime"
	"sync"
)

// Dir is the directory at path, as a source: all that is below it, other file
// systems mounted there too.
func Dir(path string) Source { return &dirSource{path: path} }

type dirSource struct{ path string }

// dirJob is a directory that was read, whose directories are to be read from
// the name after on.
type dirJob struct {
	path  string // from the source, "" for itself
	id    nodeID
	after string
	next  []named // some of the directories
}

// dirWalk reads directories side by side. Each is read by one worker; what
// workers share is under mu.
type dirWalk struct {
	ctx  context.Context
	t    *Tree
	skip excludes

	mu      sync.Mutex
	cond    sync.Cond
	jobs    []dirJob // guarded by mu: one below the other mostly, so there are few
	busy    int      // guarded by mu: workers that read
	err     error    // guarded by mu: of the first path in order that failed
	errPath string   // guarded by mu
}

func workers(n int) int {
	if n > 0 {
		return n
	}
	return min(max(2*runtime.GOMAXPROCS(0), 2), 16)
}

// run reads everything, by read for each directory. That tells whether there are
// directories in it.
func (w *dirWalk) run(read func(path string, id nodeID) (bool, error)) error {
	w.cond.L = &w.mu
	w.worked("", rootID, read)
	var wg sync.WaitGroup
	for range workers(w.t.opt.Workers) {
		wg.Go(func() { w.worker(read) })
	}
	wg.Wait()
	return w.err
}

func (w *dirWalk) worker(read func(string, nodeID) (bool, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		path, id, ok := w.nextLocked()
		switch {
		case ok:
			w.busy++
			w.mu.Unlock()
			w.worked(path, id, read)
			w.mu.Lock()
			w.busy--
			w.cond.Broadcast()
		case w.busy == 0:
			return
		default:
			w.cond.Wait()
		}
	}
}

// worked reads a directory.
func (w *dirWalk) worked(path string, id nodeID, read func(string, nodeID) (bool, error)) {
	dirs := false
	err := interrupted(w.ctx)
	if err == nil {
		dirs, err = read(path, id)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if dirs {
		w.jobs = append(w.jobs, dirJob{path: path, id: id})
		w.cond.Broadcast()
	}
	if err != nil {
		w.failLocked(path, err)
	}
}

func (w *dirWalk) failLocked(path string, err error) {
	if w.err == nil || path < w.errPath {
		w.err, w.errPath = err, path
	}
}

// nextLocked returns the next directory to be read; ok is false if there is none.
func (w *dirWalk) nextLocked() (path string, id nodeID, ok bool) {
	for len(w.jobs) > 0 && w.err == nil {
		j := &w.jobs[len(w.jobs)-1]
		if len(j.next) == 0 {
			var err error
			if j.next, err = w.t.list(j.id, j.after, true, make([]named, 0, batch)); err != nil {
				w.failLocked(j.path, err)
				break
			}
			if len(j.next) == 0 {
				w.jobs = w.jobs[:len(w.jobs)-1]
				continue
			}
			j.after = j.next[len(j.next)-1].name
		}
		d := j.next[0]
		j.next = j.next[1:]
		if j.path == "" {
			return d.name, d.id, true
		}
		return j.path + "/" + d.name, d.id, true
	}
	return "", 0, false
}
