//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/fuse"
	"github.com/e2kit/e2kit/lib/fuse/service"
	"github.com/e2kit/e2kit/lib/fuse2fs"
)

const helperDescription = `Mounts the ext2, ext3 or ext4 file system in SOURCE on MOUNTPOINT, as mount(8)
calls it. If a mount service listens in /run/filesystems, that serves the file
system, and this opens the device and mounts; else it does what fuse2fs does.

With --check it says by its exit status whether there is a service for the type.

Exit status: 0 mounted, or there is a service; 1 bad command line, or the mount
failed; 2 the file system cannot be opened.`

// helperEnv names the folder of the sockets, for tests; a set-uid program does
// not look at it.
const helperEnv = "FUSE2FS_SOCKET_DIR"

// mountHelper is the command mount.fuse2fs.
func mountHelper(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	cmd := &cli.Command{
		Name:        "mount.fuse2fs",
		Usage:       "mount an ext2, ext3 or ext4 file system served by a mount service",
		Args:        "SOURCE MOUNTPOINT",
		Description: helperDescription,
		UsageStatus: exitUsage,
		Flags: []ucli.Flag{
			&ucli.StringSliceFlag{Name: "o", Aliases: []string{"options"}, Usage: "mount `OPTIONS`, see fuse2fs(1)"},
			&ucli.StringFlag{Name: "t", Usage: "file system `TYPE`: ext4 (default), fuse.ext4, ..."},
			&ucli.BoolFlag{Name: "check", Usage: "is there a service for the type?"},
			&ucli.StringFlag{Name: "socket-dir", Usage: "`DIR` of the services' sockets"},
			&ucli.BoolFlag{Name: "f", Aliases: []string{"fake"}, Usage: "do all but mount"},
			&ucli.BoolFlag{Name: "s", Usage: "sloppy: leave out options that are not known"},
			&ucli.BoolFlag{Name: "n", Usage: "accepted for mount(8): there is no mtab to leave alone"},
			&ucli.BoolFlag{Name: "v", Aliases: []string{"verbose"}, Usage: "say what is done"},
			&ucli.StringFlag{Name: "N", Usage: "mount in the `NAMESPACE`: not possible, use nsenter(1)"},
			&ucli.BoolFlag{Name: "V", Aliases: []string{"version"}, Usage: "show the version"},
		},
		Action: helperAction,
	}
	return cmd.Main(args, stdin, stdout, stderr)
}

// helperCall is one call of the helper.
type helperCall struct {
	c          *cli.Context
	typ        string // name of the service
	subtype    string // what the mount table shows, without a service
	source     string
	mountpoint string
	opts       string
}

func helperAction(c *cli.Context) error {
	switch {
	case c.Bool("V"):
		fmt.Fprintln(c.Stdout, version)
		return nil
	case c.String("N") != "":
		return cli.Usagef("-N is not possible: run nsenter --mount=%s mount.fuse2fs", c.String("N"))
	}
	h, err := newHelperCall(c)
	if err != nil {
		return err
	}
	sh := h.helper()
	if c.Bool("check") {
		if len(c.Operands()) > 0 {
			return cli.Usagef("--check takes a type only: -t TYPE --check")
		}
		if err := sh.Check(); err != nil {
			h.verbose("%v", err)
			return &cli.Exit{Status: exitUsage}
		}
		return nil
	}
	if err := h.operands(); err != nil {
		return err
	}
	if c.Bool("f") {
		return nil
	}
	why := h.unsuitable()
	if why == nil {
		sh.Args = []string{h.source, h.mountpoint}
		if h.opts != "" {
			sh.Args = append(sh.Args, "-o", h.opts)
		}
		why = sh.Run()
		var ended *service.ExitError
		switch {
		case why == nil:
			h.verbose("%s is served by the mount service for %s", h.source, h.typ)
			return nil
		case errors.As(why, &ended):
			return &cli.Exit{Status: exitOpen, Cause: fmt.Errorf("%s: %w", h.source, why)}
		case !errors.Is(why, service.ErrNoService):
			return fmt.Errorf("%s: %w", h.source, why)
		}
	}
	h.verbose("%v: mounting without", why)
	return h.ordinary()
}

func newHelperCall(c *cli.Context) (*helperCall, error) {
	h := &helperCall{c: c, opts: strings.Join(c.StringSlice("o"), ",")}
	sub, err := service.Subtype(def(c.String("t"), "ext4"))
	if err != nil {
		return nil, cli.Usagef("-t: %v", err)
	}
	// The type by which mount(8) finds this program is that of no service.
	h.typ, h.subtype = sub, sub
	if sub == "fuse2fs" {
		h.typ = "ext4"
	}
	return h, nil
}

// operands takes the source and the mount point, which the server and the mount
// table get as absolute paths, and checks the options.
func (h *helperCall) operands() (err error) {
	args := h.c.Operands()
	if len(args) != 2 {
		return cli.Usagef("a source and a mount point are needed")
	}
	if h.source, err = filepath.Abs(args[0]); err != nil {
		return err
	}
	if h.mountpoint, err = filepath.Abs(args[1]); err != nil {
		return err
	}
	list, err := cli.ParseOptions(h.opts)
	if err != nil {
		return err
	}
	for _, opt := range list {
		if opt.Name == "remount" {
			return cli.Usagef("nothing to do for a remount: mount -i -o remount,... leaves it to the kernel")
		}
	}
	if !h.c.Bool("s") {
		return nil // who serves it says what is wrong
	}
	var known []string
	for _, opt := range list {
		if err := new(options).set(opt); err != nil {
			h.verbose("%v: left out", err)
			continue
		}
		known = append(known, strings.NewReplacer(`\`, `\\`, ",", `\,`).Replace(opt.String()))
	}
	h.opts = strings.Join(known, ",")
	return nil
}

func (h *helperCall) verbose(format string, args ...any) {
	if h.c.Bool("v") {
		fmt.Fprintf(h.c.Stderr, "mount.fuse2fs: %s\n", fmt.Sprintf(format, args...))
	}
}

// setuid reports whether the program has rights that its caller has not.
func setuid() bool { return os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() }

func (h *helperCall) helper() *service.Helper {
	dir := h.c.String("socket-dir")
	if dir == "" && !setuid() {
		dir = os.Getenv(helperEnv)
	}
	return &service.Helper{
		Type: h.typ, Dir: dir,
		Log: func(format string, args ...any) { h.c.Warn(fmt.Errorf(format, args...)) },
		Mounted: func(mnt int, block bool) {
			if os.Getuid() != 0 || mnt < 0 {
				return
			}
			_ = fuse.Tune(mnt, block, readahead, dirtyRatio) // slower without, and no less right
			openOnce(mnt)
		},
	}
}

// openOnce has the kernel learn that it need not ask at every open. A server
// that does not answer is not waited for.
func openOnce(mnt int) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if fd, err := unix.Openat(mnt, fuse2fs.ProbeName, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err == nil {
			unix.Close(fd)
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
}

// unsuitable says why no service can make this mount; nil if one could.
func (h *helperCall) unsuitable() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w for a user: mount.fuse2fs would have to be set-uid root", service.ErrNoService)
	}
	list, err := cli.ParseOptions(h.opts)
	if err != nil {
		return err
	}
	for _, opt := range list {
		if opt.Name == "lockfile" || opt.Name == "sandbox" && opt.Value == "off" {
			return fmt.Errorf("%w has the option %s", service.ErrNoService, opt.Name)
		}
	}
	return nil
}

// ordinary mounts as fuse2fs does, with the rights of the caller.
func (h *helperCall) ordinary() error {
	if err := dropSetuid(); err != nil {
		return err
	}
	args := []string{"-t", h.subtype}
	if h.opts != "" {
		args = append(args, "-o", h.opts)
	}
	return runOrdinary(append(args, "--", h.source, h.mountpoint), h.c)
}

// runOrdinary runs the command fuse2fs.
func runOrdinary(args []string, c *cli.Context) error {
	os.Args = append([]string{"fuse2fs"}, args...) // which the background process gets
	if code := command().Main(args, c.Stdin, c.Stdout, c.Stderr); code != 0 {
		return &cli.Exit{Status: code}
	}
	return nil
}
