package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"

	ucli "github.com/urfave/cli/v2"
)

// A Command is a tool's command line.
type Command struct {
	Name  string // as people call it
	Usage string // what it does, in a line
	Args  string // its operands, for help: "device [mountpoint]"
	// Description is what --help says at length, in lines of text.
	Description string
	Flags       []ucli.Flag
	// Optional names flags whose value may be left out; it is "" then.
	Optional []string
	// NoHelp says that -h and --help are options of the tool itself.
	NoHelp bool
	// Posix ends the options at the first operand.
	Posix bool
	// UsageStatus is the exit status for a command line that is wrong.
	UsageStatus int
	// Action runs the tool. An error is printed as a message of the tool; its
	// exit status is 1, or that of an Exit.
	Action func(c *Context) error
}

// A Context is what an Action is given.
type Context struct {
	*ucli.Context
	Prog   string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Found  []Found // the options in the order given
}

// Operands returns the arguments that are no options.
func (c *Context) Operands() []string { return c.Args().Slice() }

// Warn prints a message of the tool to standard error.
func (c *Context) Warn(err error) { Message(c.Stderr, c.Prog, err) }

// An Exit is an error with an exit status. Without a cause nothing is printed.
type Exit struct {
	Status int
	Cause  error
}

func (e *Exit) Error() string {
	if e.Cause == nil {
		return fmt.Sprintf("exit status %d", e.Status)
	}
	return e.Cause.Error()
}

func (e *Exit) Unwrap() error { return e.Cause }

// Usagef returns the error of a command line that is wrong in what it asks.
func Usagef(format string, args ...any) error { return usage(format, args...) }

// Main runs the command and returns its exit status. args are without the name.
func (cmd *Command) Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var found []Found
	app := cmd.app(stdin, stdout, stderr, &found)
	status, err := 0, error(nil)
	plain := args
	if !completing(args) {
		plain, found, err = cmd.normalize(args)
	}
	if err == nil {
		err = app.Run(append([]string{cmd.Name}, plain...))
	}
	if err == nil {
		return 0
	}
	var u *UsageError
	var e *Exit
	switch {
	case errors.As(err, &e):
		status = e.Status
		if e.Cause == nil {
			return status
		}
	case errors.As(err, &u):
		status = max(cmd.UsageStatus, 1)
		Message(stderr, cmd.Name, err)
		hint := cmd.Name
		if cmd.Args != "" {
			hint += " [options] " + cmd.Args
		}
		fmt.Fprintf(stderr, "usage: %s\n", hint)
		return status
	default:
		status = 1
	}
	Message(stderr, cmd.Name, err)
	return status
}

// completionFlag is urfave/cli's, which the shell's function appends.
const completionFlag = "--generate-bash-completion"

func completing(args []string) bool {
	return len(args) > 0 && args[len(args)-1] == completionFlag
}

func (cmd *Command) app(stdin io.Reader, stdout, stderr io.Writer, found *[]Found) *ucli.App {
	return &ucli.App{
		Name: cmd.Name, HelpName: cmd.Name, Usage: cmd.Usage, ArgsUsage: cmd.Args, Flags: cmd.Flags,
		Description: cmd.Description,
		HideHelp:    cmd.NoHelp, HideHelpCommand: true, HideVersion: true,
		EnableBashCompletion: true, DisableSliceFlagSeparator: true,
		Reader: stdin, Writer: stdout, ErrWriter: stderr,
		ExitErrHandler: func(*ucli.Context, error) {}, // Main tells and exits
		OnUsageError: func(_ *ucli.Context, err error, _ bool) error {
			return usage("%v", err)
		},
		CommandNotFound: func(*ucli.Context, string) {},
		Action: func(c *ucli.Context) error {
			return cmd.Action(&Context{
				Context: c, Prog: cmd.Name, Stdin: stdin, Stdout: stdout, Stderr: stderr, Found: *found,
			})
		},
	}
}

// normalize puts args into the form that urfave/cli reads.
func (cmd *Command) normalize(args []string) (plain []string, found []Found, err error) {
	found, operands, err := Getopt(args, cmd.opts(), cmd.Posix)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range found {
		// By the first name: package flag wants one spelling for an option that
		// comes more than once.
		name := "--" + f.Opt.Names[0]
		if f.Opt.Arg != NoArg {
			name += "=" + f.Value
		}
		plain = append(plain, name)
	}
	return append(append(plain, "--"), operands...), found, nil
}

// opts returns the flags as getopt sees them.
func (cmd *Command) opts() []Opt {
	var opts []Opt
	for _, f := range cmd.Flags {
		o := Opt{Names: f.Names(), Arg: RequiredArg}
		if d, ok := f.(ucli.DocGenerationFlag); ok && !d.TakesValue() {
			o.Arg = NoArg
		}
		for _, n := range o.Names {
			if slices.Contains(cmd.Optional, n) {
				o.Arg = OptionalArg
			}
		}
		opts = append(opts, o)
	}
	if !cmd.NoHelp {
		opts = append(opts, Opt{Names: []string{"help", "h"}})
	}
	return opts
}
