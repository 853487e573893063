package main

import (
	"fmt"
	"io"
	"runtime/metrics"
	"time"

	"github.com/e2kit/e2kit/lib/fsck"
)

// stopwatch prints what a check, and with -tt each of its passes, took.
type stopwatch struct {
	all, part lap
	name      string
}

// lap is when something began.
type lap struct {
	at        time.Time
	user, sys float64
}

func newStopwatch() *stopwatch {
	l := begin()
	return &stopwatch{all: l, part: l}
}

func begin() lap {
	u, s := cpuTimes()
	return lap{time.Now(), u, s}
}

// pass ends a pass, if one has begun, and begins the one of code.
func (t *stopwatch) pass(w io.Writer, code fsck.Code, each bool) {
	if t.name != "" && each {
		t.print(w, t.name+": ", t.part)
	}
	t.part, t.name = begin(), passName(code)
}

// end ends the check.
func (t *stopwatch) end(w io.Writer, each bool, res *fsck.Result) {
	if t.name != "" && each {
		t.print(w, t.name+": ", t.part)
	}
	t.print(w, "", t.all)
	took := max(time.Since(t.all.at).Seconds(), 1e-6)
	read, written := float64(res.BlocksRead)/1024, float64(res.BlocksWritten)/1024
	fmt.Fprintf(w, "I/O read: %.0fMB, write: %.0fMB, rate: %.2fMB/s\n", read, written, (read+written)/took)
}

func (t *stopwatch) print(w io.Writer, prefix string, since lap) {
	now := begin()
	m := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(m)
	fmt.Fprintf(w, "%sMemory used: %dk, time: %5.2f/%5.2f/%5.2f\n", prefix, (m[0].Value.Uint64()-m[1].Value.Uint64())>>10,
		now.at.Sub(since.at).Seconds(), now.user-since.user, now.sys-since.sys)
}

// passName is what a pass is called in figures.
func passName(c fsck.Code) string {
	switch c {
	case fsck.P1BPass:
		return "Pass 1B"
	case fsck.P1CPass:
		return "Pass 1C"
	case fsck.P1DPass:
		return "Pass 1D"
	case fsck.P1EPass:
		return "Pass 1E"
	case fsck.P3APass:
		return "Pass 3A"
	}
	return fmt.Sprintf("Pass %d", uint32(c)>>16)
}
