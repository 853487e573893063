package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// A Prompter asks yes-or-no questions.
type Prompter struct {
	In  io.Reader
	Out io.Writer
	// Fixed answers every question without asking: 'y', 'n', or 0.
	Fixed byte
	lines *bufio.Reader
}

// Terminal reports whether someone is there to answer.
func (p *Prompter) Terminal() bool {
	f, ok := p.In.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Ask prints the question and returns the answer, def if it is an empty line or
// the input ends. "a", if all is set, means yes from there on.
func (p *Prompter) Ask(question string, def, all bool) (bool, error) {
	keys := "y/n"
	if all {
		keys = "a/y/n"
	}
	mark := map[bool]string{true: "yes", false: "no"}
	fmt.Fprintf(p.Out, "%s", question)
	if p.Fixed != 0 {
		fmt.Fprintf(p.Out, "? %s\n", mark[p.Fixed == 'y'])
		return p.Fixed == 'y', nil
	}
	if p.lines == nil {
		p.lines = bufio.NewReader(p.In)
	}
	for {
		fmt.Fprintf(p.Out, " (%s, default %s)? ", keys, mark[def])
		line, err := p.lines.ReadString('\n')
		if err != nil && (err != io.EOF || line == "") {
			fmt.Fprintln(p.Out)
			if err == io.EOF {
				err = nil
			}
			return def, err
		}
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "":
			return def, nil
		case "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		case "a", "all":
			if all {
				p.Fixed = 'y'
				return true, nil
			}
		}
	}
}
