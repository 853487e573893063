package iomappeer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Counts is how many requests and notifications have passed.
type Counts struct {
	Upcalls map[string]int64            // by opcode's name
	ByTask  map[string]map[string]int64 // by operation, then by opcode's name
	Notify  map[string]int64            // by notification's name
}

// Total returns the number of requests, without those that assertions sent.
func (c Counts) Total() int64 {
	var n int64
	for op, m := range c.ByTask {
		if op == "check" {
			continue
		}
		for _, v := range m {
			n += v
		}
	}
	return n
}

// Sub returns what passed between old and c.
func (c Counts) Sub(old Counts) Counts {
	d := Counts{Upcalls: sub(c.Upcalls, old.Upcalls), ByTask: map[string]map[string]int64{},
		Notify: sub(c.Notify, old.Notify)}
	for task, m := range c.ByTask {
		if s := sub(m, old.ByTask[task]); len(s) > 0 {
			d.ByTask[task] = s
		}
	}
	return d
}

func sub(a, b map[string]int64) map[string]int64 {
	d := map[string]int64{}
	for name, n := range a {
		if n != b[name] {
			d[name] = n - b[name]
		}
	}
	return d
}

func (c Counts) String() string {
	var sb strings.Builder
	for _, task := range slices.Sorted(maps.Keys(c.ByTask)) {
		fmt.Fprintf(&sb, "%s:", task)
		for _, op := range slices.Sorted(maps.Keys(c.ByTask[task])) {
			fmt.Fprintf(&sb, " %s %d", op, c.ByTask[task][op])
		}
		sb.WriteString("\n")
	}
	for _, n := range slices.Sorted(maps.Keys(c.Notify)) {
		fmt.Fprintf(&sb, "%s %d\n", n, c.Notify[n])
	}
	return sb.String()
}

type counters struct {
	mu     sync.Mutex
	byTask map[string]map[uint32]int64
	notes  map[string]int64
}

func (c *counters) init() {
	c.byTask = make(map[string]map[uint32]int64)
	c.notes = make(map[string]int64)
}

func (c *counters) add(task string, op uint32) {
	c.mu.Lock()
	m := c.byTask[task]
	if m == nil {
		m = make(map[uint32]int64)
		c.byTask[task] = m
	}
	m[op]++
	c.mu.Unlock()
}

func (c *counters) note(name string) {
	c.mu.Lock()
	c.notes[name]++
	c.mu.Unlock()
}

// Count returns what has passed so far. The requests that assertions sent are
// under the task "check" only.
func (k *Kernel) Count() Counts {
	c := &k.count
	c.mu.Lock()
	defer c.mu.Unlock()
	out := Counts{Upcalls: map[string]int64{}, ByTask: map[string]map[string]int64{}, Notify: maps.Clone(c.notes)}
	for task, m := range c.byTask {
		named := map[string]int64{}
		for op, n := range m {
			named[OpName(op)] = n
			if task != "check" {
				out.Upcalls[OpName(op)] += n
			}
		}
		out.ByTask[task] = named
	}
	return out
}
