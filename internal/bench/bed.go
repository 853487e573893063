//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/e2kit/e2kit/internal/bench/report"
	"golang.org/x/sys/unix"
)

// A runner measures in one place.
type runner struct {
	ctx      context.Context
	o        *options
	place    place
	out      *report.Run
	work     string // our folder there
	failures []string
	broken   map[string]bool // stage/server that failed: not tried again
}

// all runs the stages: for each, rounds; in each, the servers in turn.
func (r *runner) all() {
	work, err := os.MkdirTemp(r.place.dir, "e2kit-bench-")
	if err != nil {
		r.fail("%s: %v", r.place.name, err)
		return
	}
	r.work, r.broken = work, map[string]bool{}
	defer r.clean()
	if err := os.Mkdir(filepath.Join(work, "mnt"), 0o755); err != nil {
		r.fail("%s: %v", r.place.name, err)
		return
	}
	cpus := allowed()
	for _, st := range stages {
		if st.long && !r.o.long || !r.wanted(&st) || r.ctx.Err() != nil {
			continue
		}
		if st.image == nil {
			r.makes(&st)
			continue
		}
		file, err := r.template(st.image)
		if err != nil {
			os.Remove(file)
			r.fail("%s/%s: image: %v", r.place.name, st.name, err)
			continue
		}
		for round := range r.o.repeat {
			for i := range r.o.servers {
				// Alternate who goes first, too.
				s := r.o.servers[(i+round)%len(r.o.servers)]
				key := st.name + "/" + s.name
				if r.broken[key] || r.ctx.Err() != nil {
					continue
				}
				b := &bed{ctx: r.ctx, r: r, s: s, st: &st, sc: &r.o.scale, round: round,
					cpus: cpus, cpu: cpus[round%len(cpus)], dir: filepath.Join(work, "mnt")}
				if err := b.run(file); err != nil {
					r.broken[key] = true
					r.fail("%s/%s: %s: %v", r.place.name, st.name, s.name, err)
				}
			}
		}
		if !r.o.keep {
			os.Remove(file)
		}
	}
}

func (r *runner) fail(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	fmt.Fprintln(r.o.stderr, "bench:", s)
	r.failures = append(r.failures, s)
}

// wanted reports whether a workload of the stage is asked for.
func (r *runner) wanted(st *stage) bool {
	for _, m := range st.metrics {
		if r.matches(st, m.Name) {
			return true
		}
	}
	return false
}

func (r *runner) matches(st *stage, metric string) bool {
	return r.o.only.MatchString(r.place.name + "/" + st.name + "/" + metric)
}

// template makes an image that the servers get copies of, unless there is one
// from an earlier stage. What it could not finish is the caller's to remove.
func (r *runner) template(t *template) (string, error) {
	file := filepath.Join(r.work, t.name+".img")
	if _, err := os.Stat(file); err == nil {
		return file, nil // kept
	}
	if err := r.room(t.size(&r.o.scale), t.raw); err != nil {
		return file, err
	}
	if err := t.make2fs(r.ctx, &r.o.scale, file); err != nil {
		return file, err
	}
	if t.fill == nil {
		return file, nil
	}
	dir := filepath.Join(r.work, "mnt")
	m, err := (&server{name: "kernel"}).mount(r.ctx, file, dir)
	if err != nil {
		return file, err
	}
	err = t.fill(&bed{ctx: r.ctx, r: r, sc: &r.o.scale}, dir)
	return file, errors.Join(err, m.unmount())
}

func (r *runner) room(need int64, sparse bool) error {
	var st unix.Statfs_t
	if err := unix.Statfs(r.work, &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; !sparse && free < 2*need {
		return fmt.Errorf("%s has %d MiB free, needs %d", r.place.dir, free>>20, need>>19)
	}
	return nil
}

// clean removes our folder, if nothing is mounted in it any more.
func (r *runner) clean() {
	var up, mnt unix.Stat_t
	dir := filepath.Join(r.work, "mnt")
	if unix.Stat(r.work, &up) == nil && unix.Stat(dir, &mnt) == nil && up.Dev != mnt.Dev {
		r.fail("%s is still mounted", dir)
		return
	}
	if r.o.keep {
		fmt.Fprintln(r.o.stderr, "bench: kept", r.work)
		return
	}
	os.RemoveAll(r.work)
}

// A bed is one server's turn at one stage.
type bed struct {
	ctx   context.Context
	r     *runner
	s     *server
	st    *stage
	sc    *scale
	round int
	cpus  []int // that we may use
	cpu   int   // of the client
	image string
	dir   string // the mount point
	m     *mount // nil when not mounted
	peak  int64  // bytes, over the mounts
	said  []byte // by the tool that was run last
}

// run does the stage on a fresh image and leaves nothing behind.
func (b *bed) run(template string) error {
	b.image = template
	if !b.st.image.raw {
		b.image = filepath.Join(b.r.work, "image")
		if _, err := os.Stat(b.image); err != nil {
			if err := newImage(b.image, b.st.image.size(b.sc)); err != nil {
				return err
			}
		}
		if err := copyImage(template, b.image); err != nil {
			return err
		}
		if err := touch(b.sc.stream); err != nil {
			return err
		}
	}
	err := b.st.run(b)
	if b.m != nil {
		err = errors.Join(err, b.unmount())
	}
	if err != nil {
		return err
	}
	if b.s.path != "" {
		b.r.out.AddRSS(b.r.place.name, b.st.name, b.s.name, b.peak)
	}
	if err := checkImage(b.ctx, b.image); err != nil && b.ctx.Err() == nil {
		return fmt.Errorf("left a damaged image: %w", err)
	}
	return nil
}

func (b *bed) mount() error {
	ctx, cancel := context.WithTimeout(b.ctx, b.r.o.timeout)
	defer cancel()
	m, err := b.s.mount(ctx, b.image, b.dir)
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	b.m = m
	if b.r.o.pin == "same" {
		m.place(b.cpu)
	}
	return nil
}

func (b *bed) unmount() error {
	m := b.m
	b.m = nil
	err := m.unmount()
	b.peak = max(b.peak, m.peakRSS)
	return err
}

// cold mounts (again), with nothing cached.
func (b *bed) cold() error {
	if b.m != nil {
		if err := b.unmount(); err != nil {
			return err
		}
	}
	if err := dropImage(b.image); err != nil {
		return err
	}
	return b.mount()
}

// settle writes out what workloads have left, so that the next does not pay.
func (b *bed) settle() error {
	fd, err := unix.Open(b.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// FUSE does not tell the server of a syncfs, so its journal is asked for
	// by the fsync of a folder.
	if err := unix.Syncfs(fd); err != nil {
		return fmt.Errorf("syncfs: %w", err)
	}
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("fsync of a folder: %w", err)
	}
	return nil
}

func (b *bed) path(p string) string { return filepath.Join(b.dir, p) }

// work is what a workload did.
type work struct {
	units float64 // in the metric's unit, before "/s"
	bytes int64   // of data that went through the server
}

// measure times f, on a thread pinned to the client's CPU, as the metric of
// that name: units by second, or for a metric that is better when lower,
// milliseconds. A server that takes too long is killed.
func (b *bed) measure(name string, f func() (work, error)) error {
	m := b.st.metric(name)
	timeout := b.stopAfter()
	defer timeout()
	var w work
	var err error
	was := b.m
	cpu0 := was.cpu()
	begun := time.Now()
	b.onCPU(b.cpu, func() { w, err = f() })
	took := time.Since(begun)
	now := b.m
	if now == nil {
		now = was // f has unmounted it
	}
	cpu := now.cpu() - cpu0
	if err == nil {
		err = b.ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	v := w.units / took.Seconds()
	if m.Lower {
		v = took.Seconds() * 1000
	}
	b.add(m, report.Sample{Value: v, Seconds: took.Seconds(), ServerCPU: cpu.Seconds(), Bytes: w.bytes, Units: w.units})
	return nil
}

// value records a figure that the workload has measured itself.
func (b *bed) value(name string, v float64) { b.add(b.st.metric(name), report.Sample{Value: v}) }

func (b *bed) add(m *report.Metric, s report.Sample) {
	if !b.r.matches(b.st, m.Name) {
		return
	}
	s.Round = b.round
	b.r.out.Add(b.r.place.name, b.st.name, m, b.s.name, s)
	if b.r.o.verbose {
		fmt.Fprintf(b.r.o.stderr, "%-6s %d %-8s %-24s %12.1f %-8s %7.3fs server %.3fs\n", b.r.place.name, b.round, b.s.name,
			b.st.name+"/"+m.Name, s.Value, m.Unit, s.Seconds, s.ServerCPU)
	}
}

// stopAfter arms the watchdog, and returns what disarms it.
func (b *bed) stopAfter() func() {
	m := b.m
	if m == nil {
		return func() {}
	}
	t := time.AfterFunc(b.r.o.timeout, m.kill)
	stop := context.AfterFunc(b.ctx, m.kill)
	return func() {
		t.Stop()
		stop()
	}
}

// onCPU runs f on a thread of its own, which stays on cpu and then ends.
// Programs that f starts stay there too.
func (b *bed) onCPU(cpu int, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with its affinity
		if b.r.o.pin != "none" {
			var set unix.CPUSet
			set.Set(cpu)
			unix.SchedSetaffinity(0, &set)
		}
		f()
	}()
	<-done
}

// parallel runs f on n threads, spread over the CPUs, and returns the first
// error.
func (b *bed) parallel(n int, f func(i int) error) error {
	errs := make(chan error, n)
	for i := range n {
		go b.onCPU(b.cpus[i%len(b.cpus)], func() { errs <- f(i) })
	}
	var first error
	for range n {
		if err := <-errs; first == nil {
			first = err
		}
	}
	return first
}

// allowed returns the CPUs that we may use.
func allowed() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return []int{0}
	}
	var out []int
	for i := range 1024 {
		if set.IsSet(i) {
			out = append(out, i)
		}
	}
	return out
}
