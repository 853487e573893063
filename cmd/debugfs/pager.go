package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
)

// pager passes output on to a terminal, and from where that is more than the
// screen holds, to a program that shows it page by page.
type pager struct {
	out  *os.File
	rows int
	stop *atomic.Bool // set when the program does not want more

	buf  bytes.Buffer // what is not shown yet, for it may fit
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// pagerCommand returns the program, "" for none.
func pagerCommand() string {
	for _, v := range []string{"DEBUGFS_PAGER", "PAGER"} {
		if p := os.Getenv(v); p != "" {
			if p == "__none__" || p == "cat" {
				return ""
			}
			return p
		}
	}
	for _, p := range []string{"less", "more"} {
		if _, err := exec.LookPath(p); err == nil {
			return p
		}
	}
	return ""
}

func (p *pager) Write(b []byte) (int, error) {
	if p.pipe != nil {
		if _, err := p.pipe.Write(b); err != nil {
			p.stop.Store(true)
		}
		return len(b), nil
	}
	p.buf.Write(b)
	if p.rows > 1 && bytes.Count(p.buf.Bytes(), []byte("\n")) >= p.rows {
		p.start()
	}
	return len(b), nil
}

// start starts the program; without one all is shown at once.
func (p *pager) start() {
	if name := pagerCommand(); name != "" {
		cmd := exec.Command("sh", "-c", name)
		cmd.Stdout, cmd.Stderr = p.out, p.out
		pipe, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err == nil {
			p.cmd, p.pipe = cmd, pipe
			if _, err := pipe.Write(p.buf.Bytes()); err != nil {
				p.stop.Store(true)
			}
			p.buf.Reset()
			return
		}
	}
	p.show()
}

func (p *pager) show() {
	_, _ = p.out.Write(p.buf.Bytes()) // the terminal is gone: there is nobody to tell
	p.buf.Reset()
}

// finish shows what is left and waits until the program has ended.
func (p *pager) finish() {
	if p.pipe == nil {
		p.show()
		return
	}
	_ = p.pipe.Close()
	_ = p.cmd.Wait() // how a pager ends is the reader's matter
	p.pipe, p.cmd = nil, nil
}
