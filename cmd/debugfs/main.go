// Command debugfs looks inside ext2, ext3 and ext4 file systems and edits them.
package main

import (
	"io"
	"os"
	"path/filepath"
)

func main() { os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr)) }

// A tool is the main function of a command: arguments without the name.
type tool func(args []string, stdin io.Reader, stdout, stderr io.Writer) int

// tools are what the program is besides debugfs, by the name it is called by.
var tools = map[string]tool{}

// run is main for the arguments, of which the first is the name that the
// command was called by.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	name := filepath.Base(args[0])
	if t := tools[name]; t != nil {
		return t(args[1:], stdin, stdout, stderr)
	}
	return command(name).Main(args[1:], stdin, stdout, stderr)
}
