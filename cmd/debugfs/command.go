package main

import (
	"bufio"
	"fmt"
	"os"

	ucli "github.com/urfave/cli/v2"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// version names the release of e2fsprogs whose debugfs this stands in for.
const version = "debugfs 1.47 (e2kit)"

// Exit statuses of debugfs.
const (
	exitFailed = 1 // a command failed, or the file system could not be opened
	exitUsage  = 2
)

const readOnlyName = "rdebugfs" // by this name it changes nothing

func command(name string) *cli.Command {
	if name != readOnlyName {
		name = "debugfs"
	}
	str := func(name, usage string) ucli.Flag { return &ucli.StringFlag{Name: name, Usage: usage} }
	flag := func(name, usage string) ucli.Flag { return &ucli.BoolFlag{Name: name, Usage: usage} }
	return &cli.Command{
		Name: name, Usage: "look inside an ext2, ext3 or ext4 file system, and edit it", Args: "[device]",
		Description: "Without -R or -f, commands are read from the terminal or standard input; \"help\" lists them.\n" +
			"Exit status: 0; 1 if a command failed; 2 if the command line is wrong.",
		UsageStatus: exitUsage,
		Flags: []ucli.Flag{
			flag("w", "open for reading and writing"),
			flag("n", "do not verify checksums, nor look through the journal"),
			flag("c", "catastrophic: neither bitmaps nor journal are read"),
			flag("i", "the device is an image file made by e2image"),
			str("d", "`DEVICE` that data is read from, with -i"),
			flag("D", "direct I/O"),
			str("b", "block `SIZE` in bytes"),
			str("s", "`BLOCK` of the superblock to use, with -b"),
			str("R", "`REQUEST` to carry out"),
			str("f", "`FILE` to read commands from, - for standard input"),
			str("z", "undo `FILE` to write, with -w"),
			flag("V", "show the version"),
			flag("json", "lists are JSON, a value for each command"),
			flag("keep-going", "exit with 0 whatever commands fail"),
		},
		Action: func(c *cli.Context) error { return action(c, name) },
	}
}

func action(c *cli.Context, name string) error {
	if c.Bool("V") {
		fmt.Fprintln(c.Stderr, version)
		return nil
	}
	args := c.Operands()
	if len(args) > 1 {
		return cli.Usagef("one device at a time")
	}
	o, err := openOptions(c)
	if err != nil {
		return err
	}
	if name == readOnlyName && o.write {
		return cli.Usagef("%s does not write", name)
	}
	s := newSession(c.Stdin, c.Stdout, c.Stderr)
	s.prog, s.json, s.readOnly = name, c.Bool("json"), name == readOnlyName
	defer s.out.Flush()
	if len(args) == 1 {
		if err := s.open(args[0], o); err != nil {
			c.Warn(fmt.Errorf("%s: %w", args[0], err))
			s.failed = true
		}
	}
	switch {
	case c.IsSet("R"):
		s.execute(c.String("R"))
	case c.IsSet("f"):
		if err := s.runFile(c.String("f")); err != nil {
			return err
		}
	default:
		s.interact()
	}
	if err := s.close(false); err != nil {
		c.Warn(err)
		s.failed = true
	}
	if s.failed && !c.Bool("keep-going") {
		return &cli.Exit{Status: exitFailed}
	}
	return nil
}

// openOptions turns the options of the command line into those of open.
func openOptions(c *cli.Context) (openOpts, error) {
	o := openOpts{
		write: c.Bool("w"), noCsum: c.Bool("n"), catastrophic: c.Bool("c"), image: c.Bool("i"),
		direct: c.Bool("D"), data: c.String("d"), undo: c.String("z"),
	}
	if err := o.numbers(c.String("b"), c.String("s")); err != nil {
		return o, cli.Usagef("%v", err)
	}
	if err := o.check(); err != nil {
		return o, cli.Usagef("%v", err)
	}
	return o, nil
}

// numbers reads the values of -b and -s, "" if they were not given.
func (o *openOpts) numbers(blockSize, super string) error {
	if blockSize != "" {
		n, err := cli.ParseSize(blockSize, 1)
		if err != nil {
			return fmt.Errorf("-b: %w", err)
		}
		o.blockSize = int(n)
	}
	if super != "" {
		n, err := parseNumber(super, 64)
		if err != nil {
			return fmt.Errorf("-s: %w", err)
		}
		o.super = ondisk.Fsblk(n)
	}
	return nil
}

// runFile carries out the commands of a file, a line each.
func (s *session) runFile(path string) error {
	in := s.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 4096), maxLine)
	for !s.quit && lines.Scan() {
		line := lines.Text()
		if len(line) > 0 && line[0] == '#' {
			continue
		}
		if !s.json {
			fmt.Fprintf(s.out, "%s: %s\n", s.prog, line)
		}
		s.execute(line)
	}
	return lines.Err()
}
