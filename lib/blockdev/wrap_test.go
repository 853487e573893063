package blockdev_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/blockdev/devtest"
)

const mib = 1 << 20

// TestWrappers runs the suite over each wrapper, on memory and on a file.
func TestWrappers(t *testing.T) {
	for base, open := range map[string]func(*testing.T) blockdev.Device{
		"Mem":  func(*testing.T) blockdev.Device { return blockdev.NewMem(2 * mib) },
		"File": func(t *testing.T) blockdev.Device { return mustOpen(t, tempImage(t, "", 2*mib), blockdev.Options{}) },
	} {
		for name, wrap := range map[string]func(blockdev.Device) blockdev.Device{
			"Window":    func(d blockdev.Device) blockdev.Device { return window(t, d, 8192, mib) },
			"OddWindow": func(d blockdev.Device) blockdev.Device { return window(t, d, 333, mib+1) },
			"ReadOnly":  blockdev.ReadOnly,
			"Overlay":   func(d blockdev.Device) blockdev.Device { return blockdev.NewOverlay(d, 0) },
			"RoOverlay": func(d blockdev.Device) blockdev.Device { return blockdev.NewOverlay(blockdev.ReadOnly(d), 0) },
			"RoWindow":  func(d blockdev.Device) blockdev.Device { return window(t, blockdev.ReadOnly(d), 4096, mib) },
			"Fault":     func(d blockdev.Device) blockdev.Device { return blockdev.NewFault(d) },
			"Record":    func(d blockdev.Device) blockdev.Device { return blockdev.NewRecord(d) },
			"Behind":    func(d blockdev.Device) blockdev.Device { return behindAll{blockdev.NewBehind(d)} },
		} {
			t.Run(base+name, func(t *testing.T) {
				devtest.Run(t, func(t *testing.T) blockdev.Device { return wrap(open(t)) })
			})
		}
	}
}

func window(t *testing.T, d blockdev.Device, off, n int64) blockdev.Device {
	w, err := blockdev.Window(d, off, n)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func put(t *testing.T, d blockdev.Device, s string, off int64) {
	t.Helper()
	if _, err := d.WriteAt([]byte(s), off); err != nil {
		t.Fatal(err)
	}
}

func see(t *testing.T, d blockdev.Device, want string, off int64) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := d.ReadAt(got, off); err != nil || string(got) != want {
		t.Fatalf("at %d: %q, %v; want %q", off, got, err, want)
	}
}

func TestWindowRange(t *testing.T) {
	m := blockdev.NewMem(mib)
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {mib, 1}, {mib + 1, 0}, {1, mib}, {1 << 62, 1 << 62}} {
		if _, err := blockdev.Window(m, r[0], r[1]); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("Window(%d, %d): %v", r[0], r[1], err)
		}
	}
	w := window(t, m, 1000, 100)
	put(t, w, "here", 96)
	see(t, m, "here\x00", 1096)
}

func TestOverlay(t *testing.T) {
	m := blockdev.NewMem(mib + 100)
	put(t, m, "below", 5000)
	before := m.Clone()
	o := blockdev.NewOverlay(m, 4*4096)
	put(t, o, "B", 5000)
	see(t, o, "Below", 5000)
	if err := o.ZeroOut(100, mib-100); err != nil { // whole pages of zeros are free
		t.Fatal(err)
	}
	see(t, o, "\x00\x00\x00\x00\x00", 5000)
	put(t, o, "end", mib+97)
	if n := o.Bytes(); n != 3*4096 {
		t.Errorf("takes %d bytes", n)
	}
	if _, err := o.WriteAt(make([]byte, 8192), 1<<19); !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("beyond the limit: %v", err)
	}
	clone := o.Clone()
	put(t, clone, "END", mib+97)
	see(t, o, "end", mib+97)

	// What the overlay changed, applied to a copy of what is below, is the overlay.
	patched := before.Clone()
	if err := o.Apply(patched); err != nil {
		t.Fatal(err)
	}
	same(t, patched, o)
	same(t, before, m)
	if err := clone.Close(); err != nil {
		t.Fatal(err)
	}
	see(t, m, "below", 5000)
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Sync(); err == nil {
		t.Error("the overlay left what it wraps open")
	}
}

func all(t *testing.T, d blockdev.Device) []byte {
	t.Helper()
	b := make([]byte, d.Size())
	if _, err := d.ReadAt(b, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return b
}

func same(t *testing.T, a, b blockdev.Device) {
	t.Helper()
	if !bytes.Equal(all(t, a), all(t, b)) {
		t.Fatal("content differs")
	}
}

func TestCopy(t *testing.T) {
	m := blockdev.NewMem(mib + 333)
	put(t, m, "x", 77777)
	put(t, m, "y", mib+332)
	c, err := blockdev.MemOf(m)
	if err != nil {
		t.Fatal(err)
	}
	same(t, m, c)
}

func TestFault(t *testing.T) {
	f := blockdev.NewFault(blockdev.NewMem(mib))
	buf := bytes.Repeat([]byte{7}, 4096)
	do := func() []error {
		_, w1 := f.WriteAt(buf, 0)
		_, w2 := blockdev.WritevAt(f, [][]byte{buf[:1000], buf[1000:]}, 8192)
		_, r := f.ReadAt(make([]byte, 10), 0)
		return []error{w1, w2, r, f.Sync(), f.Discard(1<<19, 4096), f.ZeroOut(1<<19, 4096)}
	}
	failed := func() []int {
		var which []int
		for i, err := range do() {
			if err != nil {
				if !errors.Is(err, syscall.EIO) {
					t.Errorf("%v", err)
				}
				which = append(which, i)
			}
		}
		return which
	}
	for _, tt := range []struct {
		name  string
		plan  blockdev.Failure
		want  []int
		count int64
	}{
		{"none", blockdev.Failure{}, nil, 6},
		{"third", blockdev.Failure{Nth: 3}, []int{2}, 6},
		{"too late", blockdev.Failure{Nth: 7}, nil, 6},
		{"sync", blockdev.Failure{Ops: blockdev.OpSync, Nth: 1}, []int{3}, 1},
		{"dead", blockdev.Failure{Ops: blockdev.OpWrite, Nth: 2, Sticky: true}, []int{1, 5}, 3},
		{"match", blockdev.Failure{Nth: 1, Match: func(_ blockdev.Ops, off, _ int64) bool { return off == 8192 }}, []int{1}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.Arm(tt.plan)
			if got := failed(); !slices.Equal(got, tt.want) || f.Fired() != (tt.want != nil) || f.Count() != tt.count {
				t.Errorf("failed %v, fired %v, count %d", got, f.Fired(), f.Count())
			}
			f.Disarm()
			if got := failed(); got != nil {
				t.Errorf("disarmed: %v", got)
			}
		})
	}

	f.Arm(blockdev.Failure{Nth: 1, Torn: true, Err: syscall.ENOSPC})
	if n, err := f.WriteAt(buf, 40960); n != 2048 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("torn: %d, %v", n, err)
	}
	want := make([]byte, 4096)
	copy(want, buf[:2048])
	see(t, f, string(want), 40960)
}
