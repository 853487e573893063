package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/populate"
)

// trap is an output that ends a context once something was written to it.
type trap struct {
	bytes.Buffer
	text string
	end  func()
}

func (w *trap) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if strings.Contains(w.String(), w.text) {
		w.end()
	}
	return n, err
}

// Wherever it is interrupted, it says so and fails, and what is left is no file
// system; not even over one that was there.
func TestInterrupted(t *testing.T) {
	dir := environment(t)
	src := someFiles(t, dir, 300)
	img := filepath.Join(dir, "image")
	for _, at := range []string{"Allocating group tables", "Writing inode tables", "Creating journal", "Writing superblocks", fillTitle, "files, "} {
		if status, _, errs := mke2fs("-q", "-F", "-t", "ext4", img, "40M"); status != 0 {
			t.Fatal(errs)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		out := &trap{text: at, end: func() { cancel(&interruptError{"SIGTERM"}) }}
		var errs bytes.Buffer
		status := runContext(ctx, []string{"mke2fs", "-v", "-F", "-t", "ext4", "-d", src, img}, strings.NewReader(""), out, &errs)
		if at == "files, " { // the totals: it was done
			if status != 0 {
				t.Errorf("at its end: status %d: %s", status, errs.String())
			}
			continue
		}
		if status != 1 || !strings.Contains(errs.String(), "no file system made") || !strings.Contains(errs.String(), "interrupted by SIGTERM") {
			t.Errorf("at %q: status %d: %s\n%s", at, status, errs.String(), out)
		}
		dev, err := blockdev.Open(img, blockdev.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if fs, err := ext2fs.Open(dev, ext2fs.Options{ReadOnly: true}); err == nil {
			fs.Close()
			t.Errorf("at %q: what is left is a file system", at)
		}
		dev.Close()
	}
}

// A test of all blocks ends too; when it only reads, with what was there.
func TestInterruptedBadBlocks(t *testing.T) {
	dir := environment(t)
	img := filepath.Join(dir, "image")
	if status, _, errs := mke2fs("-q", "-t", "ext4", img, "10M"); status != 0 {
		t.Fatal(errs)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	out := &trap{text: "Checking for bad blocks", end: func() { cancel(&interruptError{"SIGINT"}) }}
	var errs bytes.Buffer
	status := runContext(ctx, []string{"mke2fs", "-c", "-F", img}, strings.NewReader(""), out, &errs)
	if status != 1 || !strings.Contains(errs.String(), "interrupted by SIGINT") {
		t.Errorf("status %d: %s", status, errs.String())
	}
	if err := testfs.E2fsck(t, img, ""); err != nil {
		t.Errorf("the file system that was there: %v", err)
	}
}

// A reader that waits is given up.
func TestStopReader(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	m := &maker{ctx: ctx}
	s := m.stoppable(r)
	if _, err := w.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2)
	for _, want := range []string{"ab", "c"} {
		if n, err := s.Read(b); err != nil || string(b[:n]) != want {
			t.Errorf("read %q, %v", b[:n], err)
		}
	}
	cancel(&interruptError{"SIGINT"})
	for range 2 {
		if n, err := s.Read(b); n != 0 || !errors.Is(err, syscall.EINTR) {
			t.Errorf("read %d bytes, %v", n, err)
		}
	}
}

func TestProgressLine(t *testing.T) {
	half := populate.Totals{Entries: 50, All: 100, Bytes: 1 << 30, AllBytes: 2 << 30}
	for _, c := range []struct {
		t    populate.Totals
		took time.Duration
		room int
		want string
	}{
		{half, 0, 48, "50/100 files, 1.0 GiB of 2.0 GiB"},
		{half, 10 * time.Second, 60, "50/100 files, 1.0 GiB of 2.0 GiB, 102 MiB/s, 10s left"},
		{half, 10 * time.Second, 48, "50/100 files, 1.0 GiB of 2.0 GiB, 10s left"},
		{half, 10 * time.Second, 25, "50/100 files, 10s left"},
		{half, 10 * time.Second, 14, "50/100 files"},
		{half, 10 * time.Second, 3, ""},
		{populate.Totals{Entries: 3, Bytes: 4096}, 2 * time.Second, 60, "3/0 files, 4.0 KiB, 2.0 KiB/s"},
		{populate.Totals{}, 2 * time.Second, 60, "0/0 files, 0 B of 0 B, 0 B/s"},
	} {
		if got := progressLine(c.t, c.took, c.room); got != c.want {
			t.Errorf("%+v, %v, %d columns: %q, want %q", c.t, c.took, c.room, got, c.want)
		}
	}
	var b bytes.Buffer
	p := &fillProgress{w: &b, shows: true, columns: 80}
	p.step(half) // while the source is read
	p.line(fillTitle)
	p.since = time.Now()
	p.step(half)
	p.put("x")
	p.end("done")
	// What a terminal shows of it.
	line, col := []byte{}, 0
	for _, c := range b.Bytes() {
		switch c {
		case '\b':
			col--
			continue
		case '\n':
			continue
		}
		line = append(line[:col], append([]byte{c}, line[min(col+1, len(line)):]...)...)
		col++
	}
	if got := strings.TrimRight(string(line), " "); got != fillTitle+"done" {
		t.Errorf("the line at the end: %q", got)
	}
}
