package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
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
	if m.huge == nil { // else once those are made
		p.begin()
	}
	done, err := m.tree.Write(m.ctx, dev)
	if err != nil {
		var huge *hugeFilesError
		if errors.As(err, &huge) {
			return fail("%s: no file system made: %w", m.device, huge)
		}
		p.end("")
		var e *populate.IncompleteError
		if errors.As(err, &e) {
			err = e.Err
		}
		var dev *blockdev.Error
		if errors.Is(err, syscall.ENOSPC) && !errors.As(err, &dev) {
			err = fmt.Errorf("%w (--size auto looks for a size that it fits in)", err)
		}
		return fail("%s: no file system made: %s: %w", m.device, m.filling.name(), elsewhere(err))
	}
	p.end("done")
	if !m.quiet && (m.verbose || p.shows) {
		fmt.Fprintf(m.Stdout, "%d files, %d directories, %d symbolic links, %d further names, %d others, %s\n",
			done.Files, done.Dirs, done.Symlinks, done.Links, done.Special, humanize.IBytes(uint64(done.Bytes)))
	}
	return nil
}

// fillProgress shows how far filling is, on one line: on a terminal, or if
// asked to tell more.
type fillProgress struct {
	w       io.Writer
	quiet   bool
	shows   bool
	columns int       // of the terminal
	since   time.Time // when filling began; 0: it has not
	width   int       // of what stands at the end of the line
}

const fillTitle = "Copying files into the device: "

func (m *maker) newFillProgress() *fillProgress {
	p := &fillProgress{w: m.Stdout, quiet: m.quiet, columns: 80}
	terminal := false
	if f, ok := m.Stdout.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			terminal = true
			if w > 0 {
				p.columns = w
			}
		}
	}
	p.shows = !m.quiet && os.Getenv("E2FSPROGS_SKIP_PROGRESS") == "" && (m.verbose || terminal)
	return p
}

// line begins a line.
func (p *fillProgress) line(title string) {
	p.width = 0
	if !p.quiet {
		fmt.Fprint(p.w, title)
	}
}

// begin begins the line of what is filled.
func (p *fillProgress) begin() {
	p.line(fillTitle)
	p.since = time.Now()
}

// step is told a few times a second.
func (p *fillProgress) step(t populate.Totals) {
	if p.shows && !p.since.IsZero() {
		p.put(progressLine(t, time.Since(p.since), p.columns-len(fillTitle)-1))
	}
}

// put writes s over what stands at the end of the line.
func (p *fillProgress) put(s string) {
	over := max(p.width-len(s), 0)
	fmt.Fprint(p.w, strings.Repeat("\b", p.width), s, strings.Repeat(" ", over), strings.Repeat("\b", over))
	p.width = len(s)
}

// end ends the line, with a result unless that is "".
func (p *fillProgress) end(result string) {
	if p.quiet {
		return
	}
	if result != "" {
		p.put(result)
	}
	fmt.Fprintln(p.w)
}

// progressLine tells files, bytes, rate and the time that is left, as far as
// they are known and there is room.
func progressLine(t populate.Totals, took time.Duration, room int) string {
	files := fmt.Sprintf("%d/%d files", t.Entries, t.All)
	data := ", " + humanize.IBytes(uint64(t.Bytes))
	if t.AllBytes >= t.Bytes {
		data += " of " + humanize.IBytes(uint64(t.AllBytes))
	}
	rate, left := "", ""
	if took >= time.Second {
		rate = fmt.Sprintf(", %s/s", humanize.IBytes(uint64(float64(t.Bytes)/took.Seconds())))
		// A file costs about as much as some data.
		const perFile = 32 << 10
		done, all := float64(t.Bytes+perFile*t.Entries), float64(t.AllBytes+perFile*t.All)
		if done > 0 && done <= all {
			left = fmt.Sprintf(", %s left", time.Duration(float64(took)*(all-done)/done).Round(time.Second))
		}
	}
	for _, s := range []string{files + data + rate + left, files + data + left, files + left, files} {
		if len(s) <= room {
			return s
		}
	}
	return ""
}
