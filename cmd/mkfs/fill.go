//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/populate"
)

// fill copies the source into the file system that was made on dev. The
// superblock comes last: what is not filled to its end is no file system.
func (m *maker) fill(dev blockdev.Device) error {
	if m.tree == nil {
		return nil
	}
	p := m.fillProgress
	p.begin()
	done, err := m.tree.Write(m.ctx, dev)
	p.end(err == nil)
	if err != nil {
		var e *populate.IncompleteError
		if errors.As(err, &e) {
			err = e.Err
		}
		return fail("%s: no file system made: %s: %w", m.device, m.filling.name(), err)
	}
	if m.verbose || p.shows {
		m.tell(fmt.Sprintf("%d files, %d directories, %d symbolic links, %d further names, %d others, %s\n",
			done.Files, done.Dirs, done.Symlinks, done.Links, done.Special, humanize.IBytes(uint64(done.Bytes))))
	}
	return nil
}

// fillProgress shows how far filling is, on one line: on a terminal, or if
// asked to tell more.
type fillProgress struct {
	w     io.Writer
	quiet bool
	shows bool
	since time.Time
	width int // of what stands at the end of the line
}

func (m *maker) newFillProgress() *fillProgress {
	p := &fillProgress{w: m.Stdout, quiet: m.quiet}
	f, ok := m.Stdout.(*os.File)
	p.shows = !m.quiet && os.Getenv("E2FSPROGS_SKIP_PROGRESS") == "" &&
		(m.verbose || ok && term.IsTerminal(int(f.Fd())))
	return p
}

func (p *fillProgress) begin() {
	p.since = time.Now()
	if !p.quiet {
		fmt.Fprint(p.w, "Copying files into the device: ")
	}
}

// step is told a few times a second.
func (p *fillProgress) step(t populate.Totals) {
	if p.shows && !p.since.IsZero() {
		p.put(progressLine(t, time.Since(p.since)))
	}
}

// put writes s over what stands at the end of the line.
func (p *fillProgress) put(s string) {
	over := max(p.width-len(s), 0)
	fmt.Fprint(p.w, strings.Repeat("\b", p.width), s, strings.Repeat(" ", over), strings.Repeat("\b", over))
	p.width = len(s)
}

func (p *fillProgress) end(ok bool) {
	switch {
	case p.quiet:
	case ok:
		p.put("done")
		fallthrough
	default:
		fmt.Fprintln(p.w)
	}
}

// progressLine tells entries, bytes, rate and the time that is left, where that
// can be told.
func progressLine(t populate.Totals, took time.Duration) string {
	s := fmt.Sprintf("%d/%d entries, %s", t.Entries, t.All, humanize.IBytes(uint64(t.Bytes)))
	if t.AllBytes >= t.Bytes {
		s += " of " + humanize.IBytes(uint64(t.AllBytes))
	}
	if took < time.Second {
		return s
	}
	s += fmt.Sprintf(", %s/s", humanize.IBytes(uint64(float64(t.Bytes)/took.Seconds())))
	// An entry costs about as much as some data.
	const perEntry = 32 << 10
	done, all := float64(t.Bytes+perEntry*t.Entries), float64(t.AllBytes+perEntry*t.All)
	if done > 0 && done <= all {
		left := time.Duration(float64(took) * (all - done) / done).Round(time.Second)
		s += fmt.Sprintf(", %s left", left)
	}
	return s
}
