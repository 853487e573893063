//go:build linux

// Command bench compares servers of ext4 on identical images in one run: the
// kernel's own driver on a loop device, C fuse2fs as it comes and at its best,
// and this project's fuse2fs. It prints a table of figures and ratios, and says
// which targets are met.
//
// A stage is a short series of workloads on a fresh copy of one image. For
// each stage, and in each round, the servers take turns, so that what else the
// machine does meets them alike; a figure is the median of the rounds. The
// client is pinned, to another CPU in each round; servers place themselves.
// A cold workload starts with a new mount, of an image whose pages the page
// cache does not hold (on a disk).
//
// It needs root, for loop devices. It unmounts what it mounted, kills only what
// it started, and fails if a server fails.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/e2kit/e2kit/internal/bench/report"
	"golang.org/x/sys/unix"
)

// options are the command line.
type options struct {
	scale   scale
	repeat  int
	only    *regexp.Regexp
	servers []*server
	places  []place
	keep    bool
	long    bool
	verbose bool
	pin     string
	timeout time.Duration
	json    string
	spread  bool
	best    bool
	mke2fs  tool
	debugfs tool
	e2fsck  tool
	stderr  io.Writer
	stdout  io.Writer
}

// A place is a folder for images, and what it is called in the tables.
type place struct{ name, dir string }

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stdout, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	// Garbage of our own is no part of what is measured.
	debug.SetGCPercent(800)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	begun := time.Now()
	res, failures := measureAll(ctx, o)
	res.Seconds = time.Since(begun).Seconds()
	if err := write(o, res); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	for _, f := range failures {
		fmt.Fprintln(stderr, "bench: FAILED:", f)
	}
	if len(failures) > 0 {
		return 1
	}
	return 0
}

func parse(args []string, stdout, stderr io.Writer) (*options, error) {
	o := &options{stdout: stdout, stderr: stderr, scale: full}
	fl := flag.NewFlagSet("bench", flag.ContinueOnError)
	fl.SetOutput(stderr)
	quick := fl.Bool("quick", false, "small workloads, one round: a look in under two minutes")
	fl.IntVar(&o.repeat, "repeat", 0, "rounds; figures are medians (default 3, with -quick 1)")
	only := fl.String("only", "", "run the workloads whose place/stage/name matches this `regexp`")
	servers := fl.String("servers", "kernel,c,c-best,ours", "comma-separated servers")
	places := fl.String("places", "tmpfs=/dev/shm,disk=/var/tmp", "comma-separated name=folder for images")
	fl.BoolVar(&o.keep, "keep", false, "keep images and their folder")
	fl.BoolVar(&o.long, "long", false, "also the memory of a walk over a million files, and an 8 TiB image")
	fl.BoolVar(&o.verbose, "v", false, "tell each figure as it comes")
	fl.BoolVar(&o.spread, "spread", true, "show least and greatest figures too, where there are several rounds")
	fl.BoolVar(&o.best, "best", false, "take the best of the rounds, not the median: for a machine that does other work too")
	fl.StringVar(&o.pin, "pin", "client", "pin to one CPU: client, same (client and server), none")
	fl.DurationVar(&o.timeout, "timeout", 2*time.Minute, "a workload that takes longer has failed")
	fl.StringVar(&o.json, "json", "", "write all figures as JSON to this `file` (- for standard output, in place of tables)")
	ours := fl.String("ours", "bin/fuse2fs", "our server")
	oursOpts := fl.String("ours-opts", "", "mount options for our server")
	fl.StringVar(&o.mke2fs.ours, "mke2fs", "bin/mke2fs", "our mke2fs")
	fl.StringVar(&o.mke2fs.c, "c-mke2fs", "mke2fs", "C mke2fs")
	fl.StringVar(&o.debugfs.ours, "debugfs", "bin/debugfs", "our debugfs")
	fl.StringVar(&o.debugfs.c, "c-debugfs", "debugfs", "C debugfs")
	fl.StringVar(&o.e2fsck.ours, "e2fsck", "bin/e2fsck", "our e2fsck")
	fl.StringVar(&o.e2fsck.c, "c-e2fsck", "e2fsck", "C e2fsck")
	c := fl.String("c", "/usr/bin/fuse2fs", "C fuse2fs")
	bestOpts := fl.String("c-best-opts", "", "mount options for C fuse2fs at its best (default: what it knows of a list)")
	if err := fl.Parse(args); err != nil {
		return nil, err
	}
	if fl.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fl.Arg(0))
	}
	if *quick {
		o.scale = small
	}
	if o.repeat == 0 {
		o.repeat = o.scale.rounds
	}
	if o.repeat < 1 || !slices.Contains([]string{"client", "same", "none"}, o.pin) {
		return nil, errors.New("bad -repeat or -pin")
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return nil, err
	}
	for p := range strings.SplitSeq(*places, ",") {
		name, dir, ok := strings.Cut(p, "=")
		if !ok {
			return nil, fmt.Errorf("-places: %q is not name=folder", p)
		}
		o.places = append(o.places, place{name, dir})
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("needs root, for loop devices and mounts")
	}
	for _, tool := range []string{"mke2fs", "e2fsck", "tar", "cp", "rm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, err
		}
	}
	for name := range strings.SplitSeq(*servers, ",") {
		s := &server{name: name}
		switch name {
		case "kernel":
		case "c", "c-best":
			s.path, s.opts = *c, ""
			if name == "c-best" {
				s.opts, s.readAhead = *bestOpts, 1024
				if s.opts == "" {
					s.opts = bestOptions(s.path)
				}
			}
		case "ours":
			s.path, s.opts = *ours, *oursOpts
			if p, err := filepath.Abs(s.path); err == nil {
				s.path = p
			}
		default:
			return nil, fmt.Errorf("-servers: no server is called %q", name)
		}
		if s.path != "" {
			if _, err := os.Stat(s.path); err != nil {
				fmt.Fprintf(stderr, "bench: without %s: %v\n", name, err)
				continue
			}
		}
		o.servers = append(o.servers, s)
	}
	if len(o.servers) == 0 {
		return nil, errors.New("no server to measure")
	}
	o.findTools()
	return o, nil
}

// measureAll runs every stage that is asked for, in every place.
func measureAll(ctx context.Context, o *options) (*report.Run, []string) {
	res := &report.Run{Rounds: o.repeat, Quick: o.scale.rounds == 1, Best: o.best, Pin: o.pin, Machine: machine()}
	for _, s := range o.servers {
		res.Servers = append(res.Servers, report.Server{Name: s.name, Path: s.path, Options: s.opts})
	}
	var failures []string
	for _, p := range o.places {
		r := &runner{ctx: ctx, o: o, place: p, out: res}
		r.all()
		failures = append(failures, r.failures...)
		if ctx.Err() != nil {
			failures = append(failures, "interrupted")
			break
		}
	}
	return res, failures
}

func write(o *options, res *report.Run) error {
	if o.json == "-" {
		return res.JSON(o.stdout)
	}
	res.Tables(o.stdout, o.spread)
	if o.json == "" {
		return nil
	}
	f, err := os.Create(o.json)
	if err != nil {
		return err
	}
	if err := res.JSON(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// machine describes where the figures come from.
func machine() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	var set unix.CPUSet
	n := 0
	if unix.SchedGetaffinity(0, &set) == nil {
		n = set.Count()
	}
	load, _ := os.ReadFile("/proc/loadavg")
	avg, _, _ := strings.Cut(string(load), " ")
	return fmt.Sprintf("%s %s, %d CPUs, load %s at the start",
		unix.ByteSliceToString(u.Sysname[:]), unix.ByteSliceToString(u.Release[:]), n, avg)
}
