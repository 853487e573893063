package main

import (
	"fmt"
	"path/filepath"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/e2kit/e2kit/internal/cli"
)

// version names the release of e2fsprogs whose e2fsck this stands in for.
const version = "e2fsck 1.47 (e2kit)"

// progName returns the name by which the command shows itself.
func progName(arg0 string) string {
	if name := filepath.Base(arg0); strings.HasPrefix(name, "fsck.") {
		return name
	}
	return "e2fsck"
}

func command(name string) *cli.Command {
	strs := func(name, usage string) ucli.Flag { return &ucli.StringSliceFlag{Name: name, Usage: usage} }
	flag := func(name, usage string) ucli.Flag { return &ucli.BoolFlag{Name: name, Usage: usage} }
	return &cli.Command{
		Name: name, Usage: "check and repair an ext2, ext3 or ext4 file system", Args: "device",
		UsageStatus: cli.FsckUsage,
		Flags: []ucli.Flag{
			flag("p", "preen: repair what is safe, without questions"),
			flag("a", "as -p"),
			flag("n", "answer no to all; nothing is written"),
			flag("y", "answer yes to all"),
			strs("b", "`BLOCK` of the superblock to use"),
			strs("B", "`SIZE` of a block in bytes, with -b"),
			flag("c", "scan for bad blocks; twice: by writing too"),
			strs("C", "`FD` to tell the progress to; 0: a bar"),
			flag("d", "debugging output"),
			flag("D", "build all directories anew"),
			strs("E", "extended `OPTIONS`"),
			flag("f", "check even if it says it is clean"),
			flag("F", "flush the device's buffers first"),
			strs("I", "inode buffer `BLOCKS` (ignored)"),
			strs("j", "`DEVICE` of the external journal"),
			flag("k", "with -c: keep the known bad blocks"),
			strs("l", "`FILE` of bad blocks to add"),
			strs("L", "`FILE` of bad blocks to set"),
			strs("m", "`THREADS` that go ahead of the passes; one for each CPU if not given"),
			strs("M", "memory watch (ignored)"),
			strs("N", "device `NAME` in messages"),
			strs("P", "process inode `SIZE` (ignored)"),
			flag("r", "nothing (kept)"),
			flag("s", "byte swapping (obsolete)"),
			flag("S", "byte swapping (obsolete)"),
			flag("t", "timing"),
			flag("v", "statistics"),
			flag("V", "show the version"),
			flag("x", "nothing (kept)"),
			strs("z", "undo `FILE` to write"),
			strs("memory", "`SIZE` from which on what is known of directories goes to a file"),
			flag("json", "findings as JSON, one object a line"),
		},
		Description: strings.TrimSpace(exitCodes),
		Action:      func(c *cli.Context) error { return action(c, name) },
	}
}

const exitCodes = `
Exit status, added up: 0 no errors, 1 errors were corrected, 2 reboot, 4 errors
are left, 8 the check failed, 16 wrong command line, 32 cancelled.`

func action(c *cli.Context, name string) error {
	r, err := parse(c)
	if err != nil {
		return err
	}
	if r.showVersion {
		fmt.Fprintln(c.Stderr, version)
		return nil
	}
	if !r.json && !r.preen() {
		fmt.Fprintln(c.Stderr, version)
	}
	status, err := r.run(c)
	if status != 0 || err != nil {
		return &cli.Exit{Status: status, Cause: err}
	}
	return nil
}
