package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// interact reads commands until the input ends.
func (s *session) interact() {
	in, ok := s.in.(*os.File)
	if out, ok2 := s.stdout.(*os.File); ok && ok2 && term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd())) {
		t, err := newTerminal(s, in, out)
		if err == nil {
			t.run()
			return
		}
		s.warn(s.prog, fmt.Errorf("no line editing: %w", err))
	}
	for !s.quit {
		fmt.Fprintf(s.out, "%s:  ", s.prog)
		s.out.Flush()
		line, err := s.lines().readLine()
		if err != nil {
			fmt.Fprintln(s.out)
			return
		}
		s.execute(line)
	}
}

// lineReader reads lines of input, one at a time.
type lineReader struct{ r *bufio.Reader }

func (s *session) lines() *lineReader {
	if s.reader == nil {
		s.reader = &lineReader{bufio.NewReader(s.in)}
	}
	return s.reader
}

// readLine returns the next line without its end; an error at the end of input.
func (l *lineReader) readLine() (string, error) {
	line, err := l.r.ReadString('\n')
	if line == "" && err != nil {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}
