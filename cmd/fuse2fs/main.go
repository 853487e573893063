// Command fuse2fs mounts an ext2, ext3 or ext4 file system in userspace.
package main

import (
	"io"
	"os"
)

func main() { os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if code, done := otherRole(args, stdin, stdout, stderr); done {
		return code
	}
	if len(args) == 2 && args[1] == offerArg {
		return printOffer(stdout)
	}
	return command().Main(args[1:], stdin, stdout, stderr)
}
