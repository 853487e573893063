// Command e2fsck checks ext2, ext3 and ext4 file systems and repairs them.
package main

import (
	"io"
	"os"
)

func main() { os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr)) }

// run is main for the arguments, of which the first is the name that the
// command was called by.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return command(progName(args[0])).Main(args[1:], stdin, stdout, stderr)
}
