package main

import (
	"bufio"
	"fmt"
)

// interact reads commands until the input ends.
func (s *session) interact() {
	lines := bufio.NewScanner(s.in)
	lines.Buffer(make([]byte, 4096), maxLine)
	for !s.quit {
		fmt.Fprintf(s.out, "%s:  ", s.prog)
		s.out.Flush()
		if !lines.Scan() {
			fmt.Fprintln(s.out)
			break
		}
		s.execute(lines.Text())
	}
}
