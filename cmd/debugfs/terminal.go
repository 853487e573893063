package main

import (
	"bufio"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/term"
)

// terminal is a session at a terminal: lines are edited, remembered and
// completed, long output goes through a pager, and an interrupt stops the
// command, not the program.
type terminal struct {
	s       *session
	in, out *os.File
	t       *term.Terminal
	pager   *pager
	stop    atomic.Bool
}

func newTerminal(s *session, in, out *os.File) (*terminal, error) {
	st, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, err
	}
	if err := term.Restore(int(in.Fd()), st); err != nil {
		return nil, err
	}
	t := &terminal{s: s, in: in, out: out}
	t.t = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{&clearOnInterrupt{r: in}, out}, s.prog+":  ")
	t.t.AutoCompleteCallback = t.complete
	t.pager = &pager{out: out, stop: &t.stop}
	s.out = bufio.NewWriterSize(t.pager, 64<<10)
	s.err = writerFunc(func(p []byte) (int, error) { // in order with what is printed
		s.out.Flush()
		return t.pager.Write(p)
	})
	s.interrupted = t.stop.Load
	s.flush = t.pager.finish
	return t, nil
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// clearOnInterrupt turns an interrupt into the keys that clear the line.
type clearOnInterrupt struct {
	r    io.Reader
	rest []byte
}

func (c *clearOnInterrupt) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		buf := make([]byte, min(len(p), 256))
		n, err := c.r.Read(buf)
		if err != nil {
			return 0, err
		}
		const ctrlC, ctrlE, ctrlU = 0x03, 0x05, 0x15
		for _, b := range buf[:n] {
			if b == ctrlC {
				c.rest = append(c.rest, ctrlE, ctrlU)
			} else {
				c.rest = append(c.rest, b)
			}
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// readLine reads a line in raw mode, which commands do not run in.
func (t *terminal) readLine() (string, error) {
	st, err := term.MakeRaw(int(t.in.Fd()))
	if err != nil {
		return "", err
	}
	if w, h, err := term.GetSize(int(t.out.Fd())); err == nil && w > 0 {
		_ = t.t.SetSize(w, h) // one that is refused leaves the old one
		t.pager.rows = h
	}
	line, err := t.t.ReadLine()
	if e := term.Restore(int(t.in.Fd()), st); err == nil {
		err = e
	}
	return line, err
}

func (t *terminal) run() {
	t.loadHistory()
	ints := make(chan os.Signal, 1)
	signal.Notify(ints, os.Interrupt)
	defer signal.Stop(ints)
	go func() {
		for range ints {
			t.stop.Store(true)
		}
	}()
	for !t.s.quit {
		line, err := t.readLine()
		if err != nil {
			io.WriteString(t.out, "\n")
			return
		}
		if strings.TrimSpace(line) != "" {
			t.saveHistory(line)
		}
		t.stop.Store(false)
		t.s.execute(line)
		t.pager.finish()
	}
}

// historyFile is where lines are remembered; "" if nowhere.
func historyFile() string {
	if p, ok := os.LookupEnv("DEBUGFS_HISTORY"); ok {
		return p
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".debugfs_history")
}

// historyLines is how many lines are remembered.
const historyLines = 1000

func (t *terminal) loadHistory() {
	b, err := os.ReadFile(historyFile())
	if err != nil {
		return // there is none yet
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if n := len(lines); n > historyLines {
		lines = lines[n-historyLines:]
		// It is cut where it is read, so that sessions side by side only append.
		_ = os.WriteFile(historyFile(), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
	}
	for _, l := range lines {
		t.t.History.Add(l)
	}
}

// saveHistory appends a line; where that is not possible nothing is remembered.
func (t *terminal) saveHistory(line string) {
	name := historyFile()
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	_, _ = f.WriteString(line + "\n")
	_ = f.Close()
}
