package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/e2kit/e2kit/internal/cli"
)

// A request is a command of debugfs.
type request struct {
	names []string // the full name, then shorter ones
	args  string   // as usage shows them
	help  string   // what it does, in a line
	needs needs
	min   int // least and most operands; max -1: any number
	max   int
	opts  []cli.Opt
	run   func(s *session, a *args) error
}

// needs say what must be so for a command to run.
type needs int

const (
	needFS     needs = 1 << iota // a file system is open
	needWrite                    // for writing
	needMaps                     // and not without bitmaps (-c)
	needExtent                   // an inode is open by extent_open
	noFS                         // none is open
)

// A group is what help shows together.
type group struct {
	title    string
	requests []request
}

// Titles of the groups.
const (
	groupFS      = "File system"
	groupMove    = "Moving around"
	groupFiles   = "Files and directories"
	groupInodes  = "Inodes"
	groupBlocks  = "Blocks"
	groupBitmaps = "Bitmaps"
	groupXattrs  = "Extended attributes and quota"
	groupJournal = "Journal"
	groupFields  = "Fields"
	groupExtents = "Extent tree, after extent_open"
	groupProgram = "This program"
)

// groups are all commands, in the order of help. Files of this package add
// theirs to them.
var groups = []group{
	{title: groupFS}, {title: groupMove}, {title: groupFiles}, {title: groupInodes}, {title: groupBlocks}, {title: groupBitmaps},
	{title: groupXattrs}, {title: groupJournal}, {title: groupFields}, {title: groupExtents}, {title: groupProgram},
}

// register adds commands to the group of that title.
func register(title string, rs ...request) {
	for i := range groups {
		if groups[i].title == title {
			groups[i].requests = append(groups[i].requests, rs...)
			return
		}
	}
	panic("no group " + title)
}

// find returns the command of that name.
func find(name string) *request {
	for i := range groups {
		for k := range groups[i].requests {
			r := &groups[i].requests[k]
			for _, n := range r.names {
				if n == name {
					return r
				}
			}
		}
	}
	return nil
}

// args are the arguments of a command.
type args struct {
	name  string // the command as it was called
	found []cli.Found
	words []string // operands
}

// has says whether the option was given.
func (a *args) has(name string) bool {
	_, ok := a.value(name)
	return ok
}

// value returns the value of the option, the last one's.
func (a *args) value(name string) (string, bool) {
	for i := len(a.found) - 1; i >= 0; i-- {
		if a.found[i].Opt.Names[0] == name {
			return a.found[i].Value, true
		}
	}
	return "", false
}

// word returns operand i, "" if there are fewer.
func (a *args) word(i int) string {
	if i < len(a.words) {
		return a.words[i]
	}
	return ""
}

// options makes options of a getopt string, in which a letter before ':' takes a
// value, and of long names, of which those that end in '=' do.
func options(letters string, long ...string) []cli.Opt {
	out := []cli.Opt{}
	for i := 0; i < len(letters); i++ {
		o := cli.Opt{Names: []string{letters[i : i+1]}}
		if i+1 < len(letters) && letters[i+1] == ':' {
			o.Arg = cli.RequiredArg
			i++
		}
		out = append(out, o)
	}
	for _, n := range long {
		name, value := strings.CutSuffix(n, "=")
		o := cli.Opt{Names: []string{name}}
		if value {
			o.Arg = cli.RequiredArg
		}
		out = append(out, o)
	}
	return out
}

// A usageError is a command line that is wrong; usage is shown with it.
type usageError struct{ why string }

func (e *usageError) Error() string { return e.why }

func usagef(format string, v ...any) error { return &usageError{fmt.Sprintf(format, v...)} }

// usage returns how the command is called.
func (r *request) usage(name string) string {
	if r.args == "" {
		return name
	}
	return name + " " + r.args
}

var errReadOnly = errors.New("the file system is open read-only: open it with -w")

// call checks the arguments and runs the command.
func (s *session) call(r *request, words []string) error {
	a := &args{name: words[0]}
	switch {
	case r.needs&needFS != 0 && s.raw == nil && s.fs == nil:
		return errors.New("no file system is open")
	case r.needs&noFS != 0 && s.name != "":
		return fmt.Errorf("%s is open: close it first", s.name)
	case r.needs&needWrite != 0 && !s.opts.write:
		return errReadOnly
	case r.needs&needMaps != 0 && s.opts.catastrophic:
		return errors.New("the bitmaps are not read (-c)")
	case r.needs&needExtent != 0 && s.extent == nil:
		return errors.New("no inode is open: use extent_open")
	}
	var err error
	if r.opts == nil {
		a.words = words[1:]
	} else if a.found, a.words, err = cli.Getopt(words[1:], r.opts, false); err != nil {
		return usagef("%v", err)
	}
	if n := len(a.words); n < r.min || r.max >= 0 && n > r.max {
		return usagef("%s", map[bool]string{true: "too few arguments", false: "too many arguments"}[n < r.min])
	}
	return r.run(s, a)
}

// execute carries out one command line, and tells what goes wrong.
func (s *session) execute(line string) {
	words, err := splitLine(line)
	if err != nil {
		s.fail(s.prog, err)
		return
	}
	if len(words) == 0 {
		return
	}
	r := find(words[0])
	if r == nil {
		s.fail(s.prog, fmt.Errorf("unknown command %q: \"help\" lists those there are", words[0]))
		return
	}
	if err := s.call(r, words); err != nil {
		s.fail(words[0], err)
		var u *usageError
		if errors.As(err, &u) {
			s.out.Flush()
			fmt.Fprintf(s.err, "usage: %s\n", r.usage(words[0]))
		}
	}
	s.out.Flush()
}

// fail tells that a command failed.
func (s *session) fail(name string, err error) {
	s.failed = true
	s.warn(name, err)
}

// warn tells of something that goes wrong in a command.
func (s *session) warn(name string, err error) {
	s.out.Flush()
	cli.Message(s.err, name, err)
}

// helpText lists the commands, or tells about one.
func helpText(name string) (string, error) {
	var b strings.Builder
	if name != "" {
		r := find(name)
		if r == nil {
			return "", fmt.Errorf("there is no command %q", name)
		}
		fmt.Fprintf(&b, "%s\n\nusage: %s\n", r.help, r.usage(r.names[0]))
		if len(r.names) > 1 {
			fmt.Fprintf(&b, "also:  %s\n", strings.Join(r.names[1:], ", "))
		}
		return b.String(), nil
	}
	for _, g := range groups {
		if len(g.requests) == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:\n", g.title)
		for _, r := range g.requests {
			names := strings.Join(r.names, ", ")
			if len(names) > 24 {
				fmt.Fprintf(&b, "  %s\n  %-24s %s\n", names, "", r.help)
			} else {
				fmt.Fprintf(&b, "  %-24s %s\n", names, r.help)
			}
		}
	}
	return b.String(), nil
}
