package iomappeer

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// Checks are the rules that a server can break, by name.
var Checks = map[string]string{
	"A1":   "every reply is one that the kernel accepts",
	"A2":   "WRITE is never answered by HOLE, WRITEBACK only by what has an address; ZERO and REPORT allocate nothing",
	"A3":   "mappings for a swap file are neither DIRTY nor SHARED; ATOMIC_BIO comes with ATOMIC only",
	"A4":   "no two ranges of files lie at the same address, nor on metadata",
	"A5":   "what is not written yet is UNWRITTEN, or zeros; after IOEND it is MAPPED",
	"A6":   "newsize covers what was appended, and no size is larger than what was established",
	"A7":   "an IOEND that reports an error converts nothing",
	"A8":   "the mapping cache never says other than a fresh answer would",
	"A9":   "RETRY_CACHE follows a successful UPSERT, and not forever",
	"A10":  "metadata that was freed is invalidated before it becomes file data",
	"A11":  "the server does without END, and needs its IOENDs",
	"A12":  "a punched or zeroed range leaves the bytes around it",
	"A13":  "FALLOCATE sets the size, but not with KEEP_SIZE",
	"A14":  "a new inode has the mode that was sent, less what is left to the server to take",
	"A15":  "DESTROY is answered when all is released, closed and clean",
	"A16":  "unknown opcodes are ENOSYS, and what is reserved is zero",
	"A17":  "answers are such that both profiles take them",
	"A18":  "requests are answered while others wait",
	"DATA": "what is read is what was written",
	"ATTR": "attributes are what was set",
	"NAME": "names lead to what they were given to",
}

// A Violation is a rule that the server broke.
type Violation struct {
	Check string // the rule's name in Checks
	Node  uint64 // the inode, or 0
	Msg   string
	Trace []string // the messages before it
}

func (v Violation) String() string {
	node := ""
	if v.Node != 0 {
		node = fmt.Sprintf(" node %d", v.Node)
	}
	return fmt.Sprintf("%s%s: %s\n  (%s)\n    %s", v.Check, node, v.Msg, Checks[v.Check], strings.Join(v.Trace, "\n    "))
}

// maxViolations is how many are kept: the first ones tell, the rest follows.
const maxViolations = 20

type checks struct {
	tracer tracer

	mu    sync.Mutex
	evals map[string]int64
	found []Violation
	total int
}

func (c *checks) init() { c.evals = make(map[string]int64) }

// eval counts that a rule was looked at.
func (k *Kernel) eval(check string) {
	k.checks.mu.Lock()
	k.checks.evals[check]++
	k.checks.mu.Unlock()
}

func (k *Kernel) violate(check string, in *Inode, format string, args ...any) {
	v := Violation{Check: check, Msg: fmt.Sprintf(format, args...)}
	if in != nil {
		v.Node = in.nodeid
	}
	v.Trace = k.checks.tracer.history(v.Node)
	k.checks.mu.Lock()
	defer k.checks.mu.Unlock()
	k.checks.total++
	if len(k.checks.found) < maxViolations {
		k.checks.found = append(k.checks.found, v)
	}
}

// expect counts the evaluation of a rule and reports a violation unless ok.
func (k *Kernel) expect(check string, ok bool, in *Inode, format string, args ...any) bool {
	k.eval(check)
	if !ok {
		k.violate(check, in, format, args...)
	}
	return ok
}

// Violations returns what the assertions found, the first twenty of it.
func (k *Kernel) Violations() []Violation {
	k.checks.mu.Lock()
	defer k.checks.mu.Unlock()
	return append([]Violation(nil), k.checks.found...)
}

// Evals returns how often each rule was evaluated.
func (k *Kernel) Evals() map[string]int64 {
	k.checks.mu.Lock()
	defer k.checks.mu.Unlock()
	out := make(map[string]int64, len(Checks))
	for name := range Checks {
		out[name] = k.checks.evals[name]
	}
	return out
}

// evalLiveness counts for A18 the requests that must be answered while others
// are outstanding.
func (c *checks) evalLiveness(k *Kernel, r *request) {
	if (r.op == opIomapIOEnd || r.op == opIomapBegin) && k.inflight.Load() > 1 {
		k.eval("A18")
	}
}

// stuck reports a request that got no answer, and ends the connection, since
// everything that waits behind it would hang.
func (k *Kernel) stuck(r *request) {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	k.eval("A18")
	k.qmu.Lock()
	var waiting []string
	for _, p := range k.pending {
		waiting = append(waiting, fmt.Sprintf("%d %s (not read)", p.unique, OpName(p.op)))
	}
	for _, p := range k.processing {
		waiting = append(waiting, fmt.Sprintf("%d %s", p.unique, OpName(p.op)))
	}
	k.qmu.Unlock()
	k.violate("A18", nil, "request %d, %s of node %d, was not answered in %v; outstanding: %s; all goroutines:\n%s", r.unique,
		OpName(r.op), r.node, k.cfg.Watchdog, strings.Join(waiting, ", "), buf)
	k.abort(syscall.ETIMEDOUT)
}

// checkDestroyed looks at what must have happened before DESTROY is answered.
func (k *Kernel) checkDestroyed() {
	n := k.releases.Load()
	k.expect("A15", n == 0, nil, "DESTROY is answered with %d RELEASEs outstanding", n)
	if k.cfg.Destroyed != nil {
		err := k.cfg.Destroyed()
		k.expect("A15", err == nil, nil, "DESTROY is answered, but: %v", err)
	}
}
