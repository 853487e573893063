package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// progress tells how far the check is: a bar for people, lines for scripts, or
// objects among the findings.
type progress struct {
	r     *request
	w     io.Writer
	lines bool          // the form that scripts read
	enc   *json.Encoder // nil: no JSON
	on    atomic.Bool   // signals switch it
	shown bool          // a bar is on the line
	began time.Time
	last  time.Time

	pass        int
	done, total uint64
}

func newProgress(r *request, stdout io.Writer, enc *json.Encoder) *progress {
	p := &progress{r: r, w: stdout, enc: enc, began: time.Now()}
	switch fd := max(r.progress, -r.progress); fd {
	case 0:
	case 1:
		p.lines, p.enc = true, nil
	case 2:
		p.w, p.lines, p.enc = os.Stderr, true, nil
	default:
		p.w, p.lines, p.enc = os.NewFile(uintptr(fd), "progress"), true, nil
	}
	p.on.Store(r.hasProgress && r.progress >= 0)
	return p
}

// share is how many percent of a check a pass takes, as C e2fsck has it.
var share = [...]float64{0, 70, 20, 2, 3, 5}

// at notes that so much of a pass is done.
func (p *progress) at(pass int, done, total uint64) {
	p.pass, p.done, p.total = pass, min(done, total), total
	if p.on.Load() {
		p.show(false)
	} else if p.shown { // it was switched off
		p.clear()
	}
}

// end notes that the pass is through.
func (p *progress) end() {
	if p.pass > 0 && p.done < p.total {
		p.done = p.total
		if p.on.Load() {
			p.show(true)
		}
	}
	p.clear()
}

func (p *progress) close() {
	p.end()
	p.on.Store(false)
}

func (p *progress) show(whole bool) {
	if p.lines {
		fmt.Fprintf(p.w, "%d %d %d %s\n", p.pass, p.done, p.total, p.r.name)
		return
	}
	now := time.Now()
	if p.total == 0 || !whole && now.Sub(p.last) < 100*time.Millisecond {
		return
	}
	p.last = now
	percent := share[p.pass] * float64(p.done) / float64(p.total)
	for _, s := range share[:p.pass] {
		percent += s
	}
	left := ""
	took := now.Sub(p.began)
	rest := time.Duration(float64(took) * (100 - percent) / max(percent, 0.1))
	if p.enc != nil {
		_ = p.enc.Encode(struct {
			Pass    int     `json:"progress_pass"`
			Done    uint64  `json:"done"`
			Total   uint64  `json:"total"`
			Percent float64 `json:"percent"`
			Left    float64 `json:"seconds_left"`
		}{p.pass, p.done, p.total, percent, rest.Seconds()})
		return
	}
	if took > 2*time.Second {
		left = fmt.Sprintf(" %d:%02d left", int(rest.Minutes()), int(rest.Seconds())%60)
	}
	n := min(int(percent/2), 50)
	fmt.Fprintf(p.w, "\r%s: |%s%s| %4.1f%%%s  \r", p.r.name, strings.Repeat("=", n), strings.Repeat(" ", 50-n), percent, left)
	p.shown = true
}

// clear takes the bar off its line.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", len(p.r.name)+80))
		p.shown = false
	}
}
