package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/e2kit/e2kit/internal/cli"
)

// version names the release of e2fsprogs whose mke2fs this stands in for.
const version = "mke2fs 1.47 (e2kit)"

const exitFailure = 1

// progName returns the name by which the command shows itself: that of a link,
// such as mkfs.ext4, or mke2fs.
func progName(arg0 string) string {
	name := filepath.Base(arg0)
	if nameType(name) != "" {
		return name
	}
	return "mke2fs"
}

// nameType returns the file system type that a name stands for.
func nameType(name string) string {
	switch name {
	case "mke3fs":
		return "ext3"
	case "mke4fs":
		return "ext4"
	}
	if t, ok := strings.CutPrefix(name, "mkfs."); ok {
		return t
	}
	return ""
}

func command(ctx context.Context, name string) *cli.Command {
	str := func(name, usage string) ucli.Flag { return &ucli.StringFlag{Name: name, Usage: usage} }
	strs := func(name, usage string) ucli.Flag { return &ucli.StringSliceFlag{Name: name, Usage: usage} }
	flag := func(name, usage string) ucli.Flag { return &ucli.BoolFlag{Name: name, Usage: usage} }
	return &cli.Command{
		Name: name, Usage: "make an ext2, ext3 or ext4 file system", Args: "device [size]",
		Description: strings.TrimSpace(topics["usage"]), UsageStatus: exitFailure,
		NoHelp: true, Optional: []string{"help"},
		Flags: []ucli.Flag{
			strs("b", "block `SIZE` in bytes"),
			flag("c", "look for bad blocks first; twice: by writing"),
			strs("C", "cluster `SIZE` in bytes, with bigalloc"),
			strs("d", "`SOURCE` to copy into the file system: a directory, a tar archive, - for one from standard input, an OCI image layout"),
			flag("D", "direct I/O"),
			strs("e", "on errors: `continue`, remount-ro or panic"),
			strs("E", "extended `OPTIONS`"),
			flag("F", "do it though it looks wrong; twice: even if it is mounted"),
			strs("g", "`BLOCKS` per group"),
			strs("G", "`GROUPS` whose metadata lies together, with flex_bg"),
			strs("i", "`BYTES` per inode"),
			strs("I", "inode `SIZE` in bytes"),
			flag("j", "with a journal"),
			strs("J", "journal `OPTIONS`"),
			flag("K", "do not discard (now -E nodiscard)"),
			strs("l", "`FILE` with a list of bad blocks"),
			strs("L", "`LABEL` of the volume"),
			strs("m", "`PERCENT` of the blocks reserved for the super-user"),
			strs("M", "`DIRECTORY` it was last mounted on"),
			flag("n", "only show what would be made"),
			strs("N", "`COUNT` of inodes"),
			strs("o", "creator `OS`"),
			strs("O", "`FEATURES` to set, or with ^ to clear"),
			flag("q", "quiet"),
			strs("r", "`REVISION` of the format, 0 or 1"),
			strs("R", "as -E"),
			strs("s", "as -O sparse_super (1) or ^sparse_super (0)"),
			flag("S", "write superblocks and group descriptors only"),
			strs("t", "file system `TYPE`: ext2, ext3, ext4"),
			strs("T", "usage `TYPES` of mke2fs.conf"),
			strs("U", "`UUID`, or clear, random, time"),
			flag("v", "verbose"),
			flag("V", "show the version"),
			strs("z", "undo `FILE` to write"),
			str("size", "`SIZE` of the file system, or auto for that of what it is filled with"),
			str("free", "`SIZE` to be left free, with a size that is found"),
			str("max", "`SIZE` that a size that is found may have"),
			flag("shrink", "the smallest size that holds what it is filled with"),
			strs("layer", "`TAR` to fill it with as a layer; repeated from the lowest up"),
			str("ref", "`NAME` of the image in an OCI image layout"),
			str("platform", "`OS/ARCHITECTURE` of the image in an OCI image layout"),
			str("owner", "`UID:GID` of all that is copied"),
			strs("map-uid", "`FROM:TO:COUNT`: users are shifted"),
			strs("map-gid", "`FROM:TO:COUNT`: groups are shifted"),
			strs("device-table", "`FILE` with devices and owners"),
			strs("exclude", "`PATTERN` of what is left out"),
			strs("exclude-from", "`FILE` with patterns of what is left out"),
			str("file-contexts", "`FILE` with SELinux labels by path"),
			flag("reproducible", "the same source gives the same image"),
			str("help", "show help, about a `TOPIC`: usage, features, extended, journal, fill, size"),
		},
		Action: func(c *cli.Context) error { return action(ctx, c, name) },
	}
}

func action(ctx context.Context, c *cli.Context, name string) error {
	for _, f := range c.Found {
		if f.Opt.Names[0] == "help" {
			return help(c, f.Value)
		}
	}
	r, err := parse(c, name)
	if err != nil {
		return err
	}
	if r.showVersion {
		fmt.Fprintln(c.Stderr, version)
		return nil
	}
	m := &maker{Context: c, request: r, prompt: &cli.Prompter{In: c.Stdin, Out: c.Stdout}, ctx: ctx}
	return m.run()
}

// help prints what there is on a topic.
func help(c *cli.Context, topic string) error {
	if topic == "" {
		topic = "usage"
	}
	text, ok := topics[topic]
	if !ok {
		return cli.Usagef("no help on %q: topics are usage, features, extended, journal, fill, size", topic)
	}
	fmt.Fprint(c.Stdout, text)
	return nil
}
