// Command mke2fs makes ext2, ext3 and ext4 file systems.
package main

import (
	"context"
	"io"
	"os"
)

func main() { os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr)) }

// run is main for the arguments, of which the first is the name that the
// command was called by.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, done := catchSignals()
	defer done()
	return runContext(ctx, args, stdin, stdout, stderr)
}

// runContext is run that stops when ctx ends.
func runContext(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return command(ctx, progName(args[0])).Main(args[1:], stdin, stdout, stderr)
}
