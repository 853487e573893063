package fuse2fs

import (
	"testing"
	"time"
)

// How long space is waited for does not depend on how often: what is held open
// without a name would delay each operation.
func TestRemovalsDeadline(t *testing.T) {
	var m removals
	if !m.deadline().IsZero() {
		t.Error("space is waited for before anything was removed")
	}
	m.n.Add(1)
	before := time.Now()
	first := m.deadline()
	if first.Before(before.Add(forgetTime)) || first.After(time.Now().Add(forgetTime)) {
		t.Errorf("space is waited for until %v, want half a second from %v", first, before)
	}
	if again := m.deadline(); again != first {
		t.Errorf("it is waited for until %v, by the next until %v", first, again)
	}
	m.n.Add(1)
	if next := m.deadline(); !next.After(first) {
		t.Errorf("after another removal it is waited for until %v, as before until %v", next, first)
	}
}
