package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/fsck"
)

// request is what the command line asks for.
type request struct {
	device, name  string
	offset        int64
	journal, undo string
	opts          fsck.Options
	modes         int // how many of -p, -n and -y were given
	progress      int
	hasProgress   bool
	verbose       bool
	timing        int // 1: at the end, 2: for each pass
	showVersion   bool
	json          bool
	fragcheck     bool
	flush         bool
	scan          int // 1: by reading, 2: by writing too
	keepBad       bool
	badList       string
	replaceBad    bool
	args          []string
	settings      settings
}

// now returns the time that it is taken to be.
func (r *request) now() time.Time {
	for _, name := range []string{"E2FSCK_TIME", "E2FSPROGS_FAKE_TIME", "SOURCE_DATE_EPOCH"} {
		if n, err := strconv.ParseInt(os.Getenv(name), 0, 64); err == nil {
			return time.Unix(n, 0)
		}
	}
	return time.Now()
}

func (r *request) preen() bool { return r.opts.Mode == fsck.ModePreen }

// parse reads the command line.
func parse(c *cli.Context) (*request, error) {
	r := &request{}
	for _, f := range c.Found {
		name := f.Opt.Names[0]
		r.args = append(r.args, map[bool]string{true: "-", false: "--"}[len(name) == 1]+name)
		if f.Value != "" {
			r.args = append(r.args, f.Value)
		}
	}
	r.args = append(r.args, c.Operands()...)
	if err := r.configure(); err != nil {
		return nil, &cli.Exit{Status: cli.FsckError, Cause: err}
	}
	r.opts.Now = r.now
	r.opts.OnBattery = r.settings.deferOnBattery && onBattery()
	if os.Getenv("E2FSCK_FIXES_ONLY") != "" {
		r.opts.FixesOnly = true
	}
	for _, f := range c.Found {
		if err := r.set(f.Opt.Names[0], f.Value); err != nil {
			return nil, err
		}
	}
	args := c.Operands()
	if r.showVersion {
		return r, nil
	}
	if len(args) != 1 {
		return nil, cli.Usagef("one device at a time")
	}
	if r.modes > 1 {
		return nil, cli.Usagef("only one of -p (-a), -n and -y may be given")
	}
	if r.opts.Mode == fsck.ModeNo && r.opts.CompressDirs {
		return nil, cli.Usagef("-D and -n cannot go together")
	}
	switch bad := r.badList != ""; {
	case r.scan > 0 && bad:
		return nil, cli.Usagef("-c and -l or -L cannot go together")
	case r.opts.Mode == fsck.ModeNo && (r.scan > 0 || bad):
		return nil, &cli.Exit{Status: cli.FsckError, Cause: errors.New("-n and -c, -l or -L cannot go together")}
	case r.scan > 0:
		r.opts.Force = true
		r.opts.BadBlocks = &fsck.BadBlocks{Replace: !r.keepBad, Scan: true, Write: r.scan > 1}
	case bad:
		f, err := os.Open(r.badList)
		if err != nil {
			return nil, &cli.Exit{Status: cli.FsckError, Cause: err}
		}
		defer f.Close()
		list, err := cli.ReadBlocks(f)
		if err != nil {
			return nil, &cli.Exit{Status: cli.FsckError, Cause: fmt.Errorf("%s: %w", r.badList, err)}
		}
		r.opts.Force = true
		r.opts.BadBlocks = &fsck.BadBlocks{Blocks: list, Replace: r.replaceBad}
	}
	dev, query, ok := strings.Cut(args[0], "?")
	if ok {
		if _, err := os.Stat(args[0]); err != nil { // not a file with that in its name
			v, found := strings.CutPrefix(query, "offset=")
			n, err := strconv.ParseInt(v, 0, 64)
			if !found || err != nil || n < 0 {
				return nil, cli.Usagef("options of the device: %q is not offset=BYTES", query)
			}
			args[0], r.offset = dev, n
		}
	}
	r.device = args[0]
	if r.name == "" {
		r.name = r.device
	}
	return r, nil
}

// set takes one option.
func (r *request) set(name, v string) error {
	mode := func(m fsck.Mode) error {
		if r.opts.Mode != m {
			r.modes++
		}
		r.opts.Mode = m
		return nil
	}
	num := func(to *uint64) error {
		n, err := strconv.ParseUint(v, 0, 63)
		if err != nil {
			return cli.Usagef("option -%s: %q is not a number", name, v)
		}
		*to = n
		return nil
	}
	switch name {
	case "p", "a":
		return mode(fsck.ModePreen)
	case "n":
		return mode(fsck.ModeNo)
	case "y":
		return mode(fsck.ModeYes)
	case "b":
		return num(&r.opts.SbBlock)
	case "B":
		var n uint64
		if err := num(&n); err != nil {
			return err
		}
		if n < 1024 || n > 65536 || n&(n-1) != 0 {
			return cli.Usagef("option -B: %d is no size of a block", n)
		}
		r.opts.SbSize = int(n)
	case "C":
		n, err := strconv.Atoi(v)
		if err != nil {
			return cli.Usagef("option -C: %q is not a file descriptor", v)
		}
		r.progress, r.hasProgress = n, true
	case "c":
		r.scan++
	case "k":
		r.keepBad = true
	case "l", "L":
		if r.badList != "" {
			return cli.Usagef("one list of bad blocks at a time")
		}
		r.badList, r.replaceBad = v, name == "L"
	case "D":
		r.opts.CompressDirs = true
	case "E":
		return r.extended(v)
	case "f":
		r.opts.Force = true
	case "F":
		r.flush = true
	case "j":
		r.journal = v
	case "m":
		var n uint64
		if err := num(&n); err != nil {
			return err
		}
		r.opts.Threads = int(min(n, 1024))
	case "N":
		r.name = v
	case "s", "S":
		return cli.Usagef("byte swapping is no longer supported")
	case "t":
		r.timing++
	case "v":
		r.verbose = true
	case "V":
		r.showVersion = true
	case "z":
		r.undo = v
	case "memory":
		n, err := cli.ParseSize(v, 1)
		if err != nil || n <= 0 {
			return cli.Usagef("option --memory: %q is no size in bytes", v)
		}
		r.opts.Memory, r.opts.ScratchFrom = n, 0
	case "json":
		r.json = true
	}
	return nil
}

// extended takes the options of -E.
func (r *request) extended(list string) error {
	for _, w := range strings.Split(list, ",") {
		key, v, has := strings.Cut(w, "=")
		need := func() error {
			if !has || v == "" {
				return cli.Usagef("extended option %s needs a value", key)
			}
			return nil
		}
		o := &r.opts
		switch key {
		case "":
		case "ea_ver":
			if v != "1" && v != "2" {
				return cli.Usagef("extended option ea_ver: %q is not 1 or 2", v)
			}
		case "journal_only":
			o.OnlyJournal = true
		case "discard":
			o.Discard = true
		case "nodiscard":
			o.Discard = false
		case "optimize_extents":
			o.NoOptimize = false
		case "no_optimize_extents":
			o.NoOptimize = true
		case "inode_count_fullmap", "no_inode_count_fullmap", "clear_all_uninit_bits":
		case "readahead_kb": // how much is found out; 0 is none
			n, err := strconv.ParseUint(v, 0, 63)
			if err != nil {
				return cli.Usagef("extended option readahead_kb: %q is not a number", v)
			}
			o.NoReadahead = n == 0
		case "bmap2extent":
			o.BmapToExtents = true
		case "fixes_only":
			o.FixesOnly = true
		case "check_encoding":
			o.CheckEncoding = true
		case "problem_log":
			if err := need(); err != nil {
				return err
			}
			r.settings.problemLogName = v
		case "log_filename":
			if err := need(); err != nil {
				return err
			}
			r.settings.logName = v
		case "unshare_blocks":
			o.Unshare = true
		case "fragcheck":
			r.fragcheck = true
		default:
			return cli.Usagef("unknown extended option %q: there are ea_ver, journal_only, discard, nodiscard, "+
				"optimize_extents, no_optimize_extents, inode_count_fullmap, readahead_kb, bmap2extent, fixes_only, "+
				"check_encoding, unshare_blocks, fragcheck, problem_log, log_filename", key)
		}
	}
	return nil
}
