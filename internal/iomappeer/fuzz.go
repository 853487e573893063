package iomappeer

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// FuzzOptions says what Fuzz does.
type FuzzOptions struct {
	Files   int   // that operations choose from; default 4
	MaxSize int64 // of a file; default 256 KiB
	Workers int   // goroutines; default 1, which alone is reproducible
	Shared  bool  // workers use the same files, else each has its own

	// Without leaves operations out, by name.
	Without []string
	// Faults says that errors are expected.
	Faults bool
}

// FuzzResult is what a run of Fuzz did.
type FuzzResult struct {
	Ops    map[string]int // that were done, by name
	Errors map[string]int // by operation and errno
	Log    []string       // the last operations, the latest last
}

func (r FuzzResult) String() string {
	var sb strings.Builder
	n := 0
	for _, name := range slices.Sorted(maps.Keys(r.Ops)) {
		fmt.Fprintf(&sb, "%s %d, ", name, r.Ops[name])
		n += r.Ops[name]
	}
	fmt.Fprintf(&sb, "%d operations", n)
	for _, name := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(&sb, "; %s %d", name, r.Errors[name])
	}
	return sb.String()
}

// fuzzSlot is a file that operations choose.
type fuzzSlot struct {
	mu   sync.RWMutex // alone for what changes the slot, or cannot go on beside others
	h    *File
	dir  *Inode
	name string
}

type fuzzer struct {
	k     *Kernel
	opts  FuzzOptions
	slots []*fuzzSlot
	dirs  []*Inode

	mu    sync.Mutex
	res   FuzzResult
	names int
	err   error
}

// fuzzOp is a kind of operation. Those that are alone change the slot, or write in
// a way that the kernel does not order with other writes.
type fuzzOp struct {
	name   string
	weight int
	alone  bool
	do     func(z *fuzzer, s *fuzzSlot, r *rand.Rand) (string, syscall.Errno)
}

// Fuzz does n random operations, which the seed chooses, on files in the root of
// k, and checks all that the peer checks. It stops at the first violation; the
// error has the violations and the operations before them.
//
// With one worker and one thread of the server a run is reproducible: Shrink
// finds the shortest prefix that fails.
func Fuzz(k *Kernel, seed uint64, n int, opts FuzzOptions) (FuzzResult, error) {
	if opts.Files == 0 {
		opts.Files = 4
	}
	if opts.MaxSize == 0 {
		opts.MaxSize = 256 << 10
	}
	if opts.Workers == 0 {
		opts.Workers = 1
	}
	z := &fuzzer{k: k, opts: opts, res: FuzzResult{Ops: map[string]int{}, Errors: map[string]int{}}}
	z.dirs = []*Inode{k.Root()}
	if d, errno := k.Mkdir(k.Root(), fmt.Sprintf("dir%d", seed), 0o755); errno == 0 {
		z.dirs = append(z.dirs, d)
	}
	for range opts.Files {
		s := &fuzzSlot{}
		if errno := z.create(s, z.dirs[0]); errno != 0 && !opts.Faults {
			return z.res, fmt.Errorf("create: %w", errno)
		}
		z.slots = append(z.slots, s)
	}
	found := len(k.Violations())
	var wg sync.WaitGroup
	for w := range opts.Workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(w)))
			for i := range n / opts.Workers {
				if z.failed() || len(k.Violations()) > found {
					return
				}
				z.one(r, w, i)
			}
		})
	}
	wg.Wait()
	for _, s := range z.slots {
		s.mu.Lock()
		if s.h != nil {
			z.readAll(s)
			s.h.Close()
		}
		s.mu.Unlock()
	}
	if len(k.Violations()) == found && z.err == nil {
		k.CheckOverlap()
	}
	err := z.err
	if err == nil && len(k.Violations()) > found {
		err = fmt.Errorf("%w\nafter:\n  %s", k.Err(), strings.Join(z.res.Log, "\n  "))
	}
	return z.res, err
}

// Shrink returns the smallest n for which run fails, given that it fails for most.
// Each run has to begin from the same state.
func Shrink(most int, run func(n int) error) int {
	lo, hi := 0, most
	for lo+1 < hi {
		mid := (lo + hi) / 2
		if run(mid) != nil {
			hi = mid
		} else {
			lo = mid
		}
	}
	return hi
}

func (z *fuzzer) failed() bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.err != nil
}

const fuzzLog = 40

// one does one operation.
func (z *fuzzer) one(r *rand.Rand, worker, i int) {
	total := 0
	for _, op := range fuzzOps {
		if !slices.Contains(z.opts.Without, op.name) {
			total += op.weight
		}
	}
	at := r.IntN(total)
	var op fuzzOp
	for _, op = range fuzzOps {
		if slices.Contains(z.opts.Without, op.name) {
			continue
		}
		if at -= op.weight; at < 0 {
			break
		}
	}
	n := r.IntN(len(z.slots))
	if !z.opts.Shared && z.opts.Workers > 1 {
		n = n/z.opts.Workers*z.opts.Workers + worker
		if n >= len(z.slots) {
			n = worker % len(z.slots)
		}
	}
	s := z.slots[n]
	if op.alone {
		s.mu.Lock()
	} else {
		s.mu.RLock()
	}
	var what string
	var errno syscall.Errno
	if s.h != nil || op.name == "replace" {
		what, errno = op.do(z, s, r)
	}
	name := s.name
	if op.alone {
		s.mu.Unlock()
	} else {
		s.mu.RUnlock()
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.res.Ops[op.name]++
	if errno != 0 {
		z.res.Errors[fmt.Sprintf("%s: %v", op.name, errno)]++
	}
	z.res.Log = append(z.res.Log, fmt.Sprintf("%d.%d %s %s %s = %v", worker, i, op.name, name, what, errno))
	if len(z.res.Log) > fuzzLog {
		z.res.Log = z.res.Log[1:]
	}
	if errno != 0 && !z.opts.Faults && !mayFail(op.name, errno) && z.err == nil {
		z.err = fmt.Errorf("%s %s fails: %w\n%w\nafter:\n  %s", op.name, what, errno, z.k.Err(), strings.Join(z.res.Log, "\n  "))
	}
}

// mayFail reports whether an operation may end with an errno though nothing is
// wrong.
func mayFail(op string, errno syscall.Errno) bool {
	switch errno {
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.ENXIO:
		return true
	case syscall.EFAULT:
		return op == "mmap"
	case syscall.EINVAL:
		return op == "swap" || op == "atomic" || op == "copy"
	case syscall.EOPNOTSUPP, syscall.ENOSYS:
		return slices.Contains([]string{"copy", "falloc", "punch", "zero", "tmpfile", "freeze", "probe", "fiemap", "seek", "swap"}, op)
	case syscall.ENODATA:
		return op == "xattr"
	case syscall.EBUSY:
		return op == "forget"
	}
	return false
}

func (z *fuzzer) create(s *fuzzSlot, dir *Inode) syscall.Errno {
	z.mu.Lock()
	z.names++
	name := fmt.Sprintf("f%d", z.names)
	z.mu.Unlock()
	h, errno := z.k.Create(dir, name, 0o644)
	if errno != 0 {
		s.h = nil
		return errno
	}
	s.h, s.dir, s.name = h, dir, name
	return 0
}

// where chooses a position and a length, often at edges of blocks, of pages and of
// the file.
func (z *fuzzer) where(s *fuzzSlot, r *rand.Rand) (pos, n int64) {
	size := s.h.in.Size()
	switch r.IntN(5) {
	case 0:
		pos = size
	case 1:
		pos = max(size-int64(r.IntN(5000)), 0)
	case 2:
		pos = r.Int64N(z.opts.MaxSize) / z.k.bs * z.k.bs
	default:
		pos = r.Int64N(max(min(size+20000, z.opts.MaxSize), 1))
	}
	switch r.IntN(4) {
	case 0:
		n = 1 + r.Int64N(100)
	case 1:
		n = z.k.bs * (1 + r.Int64N(4))
	default:
		n = 1 + r.Int64N(30000)
	}
	pos = min(pos, z.opts.MaxSize-1)
	n = min(n, z.opts.MaxSize-pos)
	return pos, max(n, 1)
}

// sectors chooses a range for direct I/O.
func (z *fuzzer) sectors(s *fuzzSlot, r *rand.Rand) (pos, n int64) {
	pos, n = z.where(s, r)
	unit := int64(512)
	if r.IntN(2) == 0 {
		unit = z.k.bs
	}
	return roundDown(pos, unit), max(roundDown(n, unit), unit)
}

func randomBytes(r *rand.Rand, n int64) []byte {
	p := make([]byte, n)
	seed := byte(r.IntN(255)) + 1
	for i := range p {
		p[i] = seed + byte(i%251)
		if p[i] == 0 {
			p[i] = 1
		}
	}
	return p
}

func (z *fuzzer) readAll(s *fuzzSlot) {
	buf := make([]byte, s.h.in.Size())
	s.h.Read(buf, 0)
}

func span2(pos, n int64) string { return fmt.Sprintf("[%d,+%d)", pos, n) }
