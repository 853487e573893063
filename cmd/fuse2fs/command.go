//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/e2kit/e2kit/internal/cli"
)

const description = `Serves the ext2, ext3 or ext4 file system in SOURCE, an image file or a block
device, under MOUNTPOINT, without privilege and without the kernel's driver.
Returns when it can be used; the server stays in the background. Unmount with
umount, as a user with fusermount3 -u.

Mount options (-o, comma-separated):
  ro rw                    read-only or not
  offset=N size=N          the part of SOURCE that holds the file system
  norecovery, noload       do not replay the journal; implies ro
  errors=continue|remount-ro|panic
  data=ordered|journal|writeback, commit=SECONDS, journal_path=PATH
  sync dirsync discard nodiscard init_itable[=N] noinit_itable
  atime noatime relatime strictatime lazytime nodiratime
  suid nosuid dev nodev exec noexec
  acl noacl user_xattr nouser_xattr bsddf minixdf
  fakeroot uid=N gid=N allow_other kernel
  cache_size=N direct nodirect lockfile=PATH
  sandbox=strict|off       confine the server (default), or not
  iomap=default|0|1        let the kernel do the I/O of files where it can; never;
                           or fail if it cannot
  iomap_abi=may26|v7       the form of fuse-iomap that it has, else found out
  uring nouring            have requests come by io_uring, or fail; or never.
                           By default they do where the kernel offers it
  subtype=NAME fsname=NAME what the mount table shows
  debug                    log more; with -f to the terminal

As a mount service (--listen DIR, or started by systemd for the sockets in
/run/filesystems) it serves file systems for who runs mount.fuse2fs, which
opens the device and mounts: then the server needs no privilege at all. See
the manual. An option for the service alone:
  iomap_helper=optional|mandatory
                           have the helper ask the kernel for fuse-iomap

Sizes take k, m, g, t. Exit status: 0 mounted; 1 bad command line, or the
mount failed; 2 SOURCE cannot be opened, or the server failed. With --probe:
0 if this user can mount, 1 if not.`

func command() *cli.Command {
	return &cli.Command{
		Name:        "fuse2fs",
		Usage:       "mount an ext2, ext3 or ext4 file system in userspace",
		Args:        "SOURCE MOUNTPOINT",
		Description: description,
		UsageStatus: exitUsage,
		Flags: []ucli.Flag{
			&ucli.StringSliceFlag{Name: "o", Aliases: []string{"options"}, Usage: "mount `OPTIONS`, see above"},
			&ucli.BoolFlag{Name: "f", Aliases: []string{"foreground"}, Usage: "stay in the foreground"},
			&ucli.BoolFlag{Name: "d", Aliases: []string{"debug"}, Usage: "as -o debug -f"},
			&ucli.BoolFlag{Name: "s", Usage: "serve with one thread, by /dev/fuse"},
			&ucli.BoolFlag{Name: "probe", Usage: "show what a mount by this user would be, and why not a better one; mounts nothing"},
			&ucli.BoolFlag{Name: "json", Usage: "with --probe: as JSON"},
			&ucli.BoolFlag{Name: "V", Aliases: []string{"version"}, Usage: "show the version"},
			&ucli.BoolFlag{Name: "n", Usage: "accepted for mount(8): there is no mtab to leave alone"},
			&ucli.BoolFlag{Name: "v", Usage: "accepted for mount(8)"},
			&ucli.StringFlag{Name: "listen", Usage: "be a mount service: make sockets in `DIR` and serve who connects"},
			&ucli.StringFlag{Name: "listen-mode", Usage: "with --listen: permissions of the sockets, octal `MODE` (default 0220)"},
			&ucli.StringFlag{Name: "listen-user", Usage: "with --listen, as root: `UID`[:GID] that servers run as (default 65534)"},
			&ucli.BoolFlag{Name: "mount-helper", Usage: "be the mount helper mount.fuse2fs, whose options follow"},
			&ucli.StringFlag{Name: "t", Usage: "accepted for mount(8): file system `TYPE`"},
		},
		Action: action,
	}
}

// version names the release of e2fsprogs whose fuse2fs this stands in for.
const version = "fuse2fs 1.47 (e2kit)"

func action(c *cli.Context) error {
	if c.Bool("V") {
		fmt.Fprintln(c.Stdout, version)
		return nil
	}
	switch {
	case c.Bool("probe"):
		if len(c.Operands()) > 0 {
			return cli.Usagef("--probe takes no operands")
		}
		return probe(c)
	case c.Bool("json"):
		return cli.Usagef("--json goes with --probe")
	case c.Bool("mount-helper"):
		return cli.Usagef("--mount-helper is the first argument or none")
	case c.String("listen") != "":
		return listen(c)
	case c.String("listen-mode") != "", c.String("listen-user") != "":
		return cli.Usagef("--listen-mode and --listen-user are for --listen DIR")
	}
	o, err := parse(c)
	if err != nil {
		return err
	}
	if strings.HasPrefix(o.Source, ".") {
		if o.Source, err = filepath.Abs(o.Source); err != nil {
			return fmt.Errorf("%s: %w", c.Operands()[0], err)
		}
	}
	if o.IomapHelper != "" {
		return cli.Usagef("option iomap_helper= is for a mount service")
	}
	if !o.Foreground && os.Getenv(statusEnv) == "" {
		return background(c.Stderr)
	}
	ready := func(warnings []string) {
		for _, w := range warnings {
			c.Warn(errors.New(w))
		}
	}
	if os.Getenv(statusEnv) != "" {
		ready = inBackground(ready)
	}
	err = launch(o, ready)
	var e *exitError
	if errors.As(err, &e) {
		return &cli.Exit{Status: e.code, Cause: e.err}
	}
	return err
}

// parse makes the options of the command line.
func parse(c *cli.Context) (*options, error) {
	o := &options{Sandbox: "strict", Subtype: "ext4"}
	for _, f := range c.Found {
		switch f.Opt.Names[0] {
		case "f":
			o.Foreground = true
		case "d":
			o.Foreground, o.Debug = true, true
		case "s":
			o.Single = true
		case "t":
			o.Subtype = strings.TrimPrefix(f.Value, "fuse.")
		case "o":
			list, err := cli.ParseOptions(f.Value)
			if err != nil {
				return nil, err
			}
			for _, opt := range list {
				if err := o.set(opt); err != nil {
					return nil, cli.Usagef("%v", err)
				}
			}
		}
	}
	args := c.Operands()
	switch {
	case len(args) < 2:
		return nil, cli.Usagef("a source and a mount point are needed: fuse2fs SOURCE MOUNTPOINT [-o OPTIONS]")
	case len(args) > 2:
		return nil, cli.Usagef("%q is one argument too many", args[2])
	}
	o.Source, o.Mountpoint = args[0], args[1]
	if o.NoRecovery {
		o.ReadOnly = true
	}
	return o, nil
}
