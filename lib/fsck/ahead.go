package fsck

import (
	"errors"
	"runtime"
	"sync"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// A scout is a checker that goes ahead of a pass, in a goroutine of its own. It
// runs the pass's code, and its report says what that would note where nothing
// is wrong. It stops at the first finding, and at anything that what comes before
// decides: that is left to the pass, which goes through it again, in its turn.
// So findings, questions and repairs are those of one goroutine, in its order.

// errLeave ends what a scout does with an inode or a block.
var errLeave = errors.New("left to the pass")

// report is what a scout notes instead of changing what all share.
type report struct {
	claims []clusterRun
	base   int // the first of claims that is of the inode at hand
	xattrs []xattrUse
	seen   []ondisk.Ino // what entries lead to
	kids   []ondisk.Ino // those of them that are directories
	dots   []dotDot
	refs   []uint32 // blocks of the directory that an index node leads to
}

// reportMost bounds a report's lists, so that what one inode has to say does not
// take memory without end.
const reportMost = 1 << 18

// clusterRun is n clusters from k on.
type clusterRun struct{ k, n uint64 }

// xattrUse is the use of an attribute block.
type xattrUse struct {
	blk ondisk.Fsblk
	ref *xattrRef
}

// dotDot is what ".." of a directory leads to.
type dotDot struct{ dir, parent ondisk.Ino }

// leave makes a scout leave what it looks at to the pass.
func (c *checker) leave() {
	if c.report != nil {
		panic(errLeave)
	}
}

// try runs f, and returns false if it was left to the pass.
func (c *checker) try(f func()) (ok bool) {
	defer func() {
		switch x := recover().(type) {
		case nil:
		case halt:
			ok = false
		case error:
			if x != errLeave {
				panic(x)
			}
			ok = false
		default:
			panic(x)
		}
	}()
	f()
	return true
}

// renew gives a scout the state that the pass has, which is then only read.
func (c *checker) renew(from *checker) {
	c.ctx, c.dev, c.opts, c.now = from.ctx, from.dev, from.opts, from.now
	c.opts.Mode = ModeNo
	names := c.names
	c.super, c.maps, c.dirState = from.super, from.maps, from.dirState
	c.names = names
	c.sb = endian.View[ondisk.Super](c.sbRaw[:])
	c.found, c.dup, c.links, c.seen = nil, nil, nil, nil // to be noted in the report
	c.lastSeedOf = 0
	if c.res == nil {
		c.res = &Result{}
	}
}

// line hands jobs to scouts, and takes them back in order.
type line[J any] struct {
	c      *checker
	scouts []*checker
	next   func(j *J) bool // fills in the next job, false if there is none
	work   chan *ticket[J]
	flying []*ticket[J] // in order
	spare  []*ticket[J]
	most   int
	last   bool // next has returned false
	wg     sync.WaitGroup
}

type ticket[J any] struct {
	job  J
	gen  uint64 // of the checker when it was handed out
	done chan struct{}
	back bool
}

// threads returns how many goroutines go ahead of a pass.
func (c *checker) threads() int {
	switch n := c.opts.Threads; {
	case n > 0:
		return min(n, 64)
	case n < 0:
		return 0
	}
	return min(runtime.GOMAXPROCS(0), 16)
}

// newLine starts the scouts. They call run with jobs, which next makes.
func newLine[J any](c *checker, next func(j *J) bool, run func(s *checker, j *J)) *line[J] {
	n := c.threads()
	l := &line[J]{c: c, next: next, most: 2*n + 2}
	l.work = make(chan *ticket[J], l.most)
	for range n {
		s := &checker{}
		s.renew(c)
		l.scouts = append(l.scouts, s)
		l.wg.Go(func() {
			for t := range l.work {
				run(s, &t.job)
				t.done <- struct{}{}
			}
		})
	}
	return l
}

// take returns the next job; fresh tells that nothing has changed since it was
// handed out. The job is the caller's until it is put back.
func (l *line[J]) take() (t *ticket[J], fresh bool) {
	if len(l.scouts) == 0 {
		if t := (&ticket[J]{}); l.next(&t.job) {
			return t, false
		}
		return nil, false
	}
	for len(l.flying) < l.most && !l.last && (len(l.flying) <= l.most/2 || !l.waiting()) {
		var t *ticket[J]
		if n := len(l.spare); n > 0 {
			t, l.spare = l.spare[n-1], l.spare[:n-1]
		} else {
			t = &ticket[J]{done: make(chan struct{}, 1)}
		}
		if !l.next(&t.job) {
			l.last = true
			break
		}
		t.gen, t.back = l.c.gen, false
		l.flying = append(l.flying, t)
		l.work <- t
	}
	if len(l.flying) == 0 {
		return nil, false
	}
	t = l.flying[0]
	l.flying = append(l.flying[:0], l.flying[1:]...)
	t.wait()
	return t, t.gen == l.c.gen
}

// waiting tells whether the oldest job is back already.
func (l *line[J]) waiting() bool {
	return len(l.flying) > 0 && l.flying[0].back
}

func (t *ticket[J]) wait() {
	if !t.back {
		<-t.done
		t.back = true
	}
}

func (l *line[J]) put(t *ticket[J]) { l.spare = append(l.spare, t) }

// alone runs f, which may change what scouts read, while none of them is at work.
func (l *line[J]) alone(f func()) {
	for _, t := range l.flying {
		t.wait()
	}
	f()
	for _, s := range l.scouts {
		s.renew(l.c)
	}
}

// close ends the scouts.
func (l *line[J]) close() {
	close(l.work)
	l.wg.Wait()
	for _, s := range l.scouts {
		l.c.res.BlocksRead += s.res.BlocksRead
	}
}
