//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/bench/report"
)

// Stages of tools, such as mke2fs, compare two programs, each started as anyone
// would: nothing is mounted, and they place themselves. The image of mke2fs
// starts as a hole, so that what it takes in the end is what was written, or
// zeroed by the file system below.

// makeArgs are the same for both, who read the same mke2fs.conf.
var makeArgs = []string{"-q", "-F", "-t", "ext4"}

// formatSizes are the sizes that are made, and how often in a round.
var formatSizes = []struct {
	name  string
	size  int64
	times int
}{
	{"1 GiB", 1 << 30, 31},
	{"100 GiB", 100 << 30, 21},
	{"8 TiB", 8 << 40, 5},
}

// makes measures a stage of a tool, by the servers that have it.
func (r *runner) makes(st *stage) {
	for round := range r.o.repeat {
		tools := r.o.tools(st.tool)
		for i := range tools {
			t := tools[(i+round)%len(tools)]
			key := st.name + "/" + t.name
			if r.broken[key] || r.ctx.Err() != nil {
				continue
			}
			b := &bed{ctx: r.ctx, r: r, s: t, st: st, sc: &r.o.scale, round: round, image: filepath.Join(r.work, "made")}
			err := st.run(b)
			os.Remove(b.image)
			if err != nil {
				r.broken[key] = true
				r.fail("%s/%s: %s: %v", r.place.name, st.name, t.name, err)
				continue
			}
			if b.peak > 0 {
				r.out.AddRSS(r.place.name, st.name, t.name, b.peak)
			}
		}
	}
	os.RemoveAll(filepath.Join(r.work, "source"))
}

// A tool is a program of which there are two.
type tool struct{ ours, c string } // paths; "": there is none

// tools returns the servers that stand for a tool: C and ours, if asked for.
func (o *options) tools(name string) (out []*server) {
	t := o.mke2fs
	switch name {
	case "debugfs":
		t = o.debugfs
	case "e2fsck":
		t = o.e2fsck
	}
	for _, s := range o.servers {
		path := ""
		switch {
		case s.name == "ours":
			path = t.ours
		case s.name == "c" || s.name == "c-best" && !slices.ContainsFunc(o.servers, func(s *server) bool { return s.name == "c" }):
			path = t.c
		}
		if path != "" {
			out = append(out, &server{name: s.name, path: path})
		}
	}
	return out
}

// findTools finds out which tools there are, and says which are not.
func (o *options) findTools() {
	for _, p := range []*string{&o.mke2fs.ours, &o.mke2fs.c, &o.debugfs.ours, &o.debugfs.c, &o.e2fsck.ours, &o.e2fsck.c} {
		found, err := exec.LookPath(*p)
		if err == nil {
			found, err = filepath.Abs(found)
		}
		if err != nil {
			fmt.Fprintln(o.stderr, "bench: without a tool:", err)
			found = ""
		}
		*p = found
	}
}

// runTool runs the tool and returns how long it took. Its peak memory, as far as
// it lives long enough for one to look, becomes the bed's.
func (b *bed) runTool(args ...string) (time.Duration, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(b.ctx, b.s.path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	b.said = nil
	stop, looked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(looked)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				b.peak = max(b.peak, highWater(cmd.Process.Pid))
			}
		}
	}()
	kill := time.AfterFunc(b.r.o.timeout, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	took := time.Since(begun)
	kill.Stop()
	close(stop)
	<-looked
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w: %s", b.s.path, strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	b.said = out.Bytes()
	return took, nil
}

// blank makes the image a hole of size bytes.
func (b *bed) blank(size int64) error {
	os.Remove(b.image)
	f, err := os.Create(b.image)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// written returns how much of the image is no hole, bytes.
func (b *bed) written() (int64, error) {
	var st unix.Stat_t
	err := unix.Stat(b.image, &st)
	return st.Blocks * 512, err
}

// runFormat makes empty file systems. A time "less start" is without what the
// tool takes for nothing: to start, and to say its version.
func runFormat(b *bed) error {
	start, err := b.least(formatSizes[0].times, nil, "-V")
	if err != nil {
		return err
	}
	b.value("start", ms(start))
	for _, f := range formatSizes {
		if !b.r.matches(b.st, f.name) {
			continue
		}
		took, err := b.least(f.times, func() error { return b.blank(f.size) },
			append(slices.Clone(makeArgs), b.image)...)
		if err != nil {
			var pe *os.PathError
			if errors.As(err, &pe) && errors.Is(err, unix.EFBIG) {
				continue // the place has no such files
			}
			return err
		}
		n, err := b.written()
		if err != nil {
			return err
		}
		b.value(f.name, ms(took))
		b.value(f.name+" less start", ms(max(took-start, time.Microsecond)))
		b.value(f.name+" written", float64(n)/(1<<20))
		if f.size < 1<<40 { // what is larger takes e2fsck minutes
			if err := checkImage(b.ctx, b.image); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
		}
	}
	return nil
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// least returns the least time of n runs, each prepared by before: what else the
// machine does can only add to times as short as these.
func (b *bed) least(n int, before func() error, args ...string) (time.Duration, error) {
	n = min(n, b.sc.makes)
	var best time.Duration
	for range n {
		if before != nil {
			if err := before(); err != nil {
				return 0, err
			}
		}
		d, err := b.runTool(args...)
		if err != nil {
			return 0, err
		}
		if best == 0 || d < best {
			best = d
		}
	}
	return best, nil
}

// smallFile is how many bytes small files have.
func smallFile(i int) int { return 700 + i%500*10 }

// runPopulate fills file systems from folders.
func runPopulate(b *bed) error {
	for _, p := range []struct {
		name  string
		files int
		bytes func(i int) int
		per   float64 // of bytes; 0: a file is a unit
	}{
		{"small files", b.sc.populateFiles, smallFile, 0},
		{"large files", int(b.sc.populateBytes / (32 << 20)), func(int) int { return 32 << 20 }, 1 << 20},
	} {
		if !b.r.matches(b.st, p.name) {
			continue
		}
		src := filepath.Join(b.r.work, "source", strings.ReplaceAll(p.name, " ", "-"))
		total, err := fillSource(src, p.files, p.bytes)
		if err != nil {
			return err
		}
		// Room for blocks that are not full, inodes and the journal.
		if err := b.blank(total + total/4 + int64(p.files)*4096 + 256<<20); err != nil {
			return err
		}
		took, err := b.runTool(append(slices.Clone(makeArgs), "-N", fmt.Sprint(p.files+p.files/8+1000), "-d", src, b.image)...)
		if err != nil {
			return err
		}
		units := float64(p.files)
		if p.per != 0 {
			units = float64(total) / p.per
		}
		b.add(b.st.metric(p.name), report.Sample{Value: units / took.Seconds(), Seconds: took.Seconds(), Bytes: total})
		if err := checkImage(b.ctx, b.image); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// fillSource makes a folder of n files, unless it is there, and returns how many
// bytes they have.
func fillSource(dir string, n int, size func(i int) int) (total int64, err error) {
	for i := range n {
		total += int64(size(i))
	}
	if _, err := os.Stat(dir); err == nil {
		return total, nil
	}
	var buf []byte
	for i := range n {
		at := filepath.Join(dir, fmt.Sprintf("dir-%03d", i/500))
		if i%500 == 0 {
			if err := os.MkdirAll(at, 0o755); err != nil {
				return 0, err
			}
		}
		if buf = buf[:0]; cap(buf) < size(i) {
			buf = make([]byte, 0, size(i))
		}
		buf = buf[:size(i)]
		stamp(buf, int64(i)<<32)
		if err := os.WriteFile(filepath.Join(at, fmt.Sprintf("file-%06d", i)), buf, 0o644); err != nil {
			return 0, err
		}
	}
	return total, nil
}
