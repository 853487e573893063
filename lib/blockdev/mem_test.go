package blockdev_test

import (
	"bytes"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/blockdev/devtest"
)

func TestMem(t *testing.T) {
	devtest.Run(t, func(*testing.T) blockdev.Device { return blockdev.NewMem(1 << 20) })
	t.Run("Odd", func(t *testing.T) {
		devtest.Run(t, func(*testing.T) blockdev.Device { return blockdev.NewMem(1<<20 + 777) })
	})
}

// A huge device costs what is written, also when all of it is zeroed.
func TestMemHuge(t *testing.T) {
	m := blockdev.NewMem(1 << 62)
	want := []byte("far out")
	for _, off := range []int64{0, 1 << 20, 1 << 45, 1<<62 - 7} {
		if _, err := m.WriteAt(want, off); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, 7)
	for _, off := range []int64{0, 1 << 20, 1 << 45, 1<<62 - 7} {
		if _, err := m.ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("at %d: %q, %v", off, got, err)
		}
	}
	if err := m.ZeroOut(3, 1<<62-6); err != nil {
		t.Fatal(err)
	}
	for off, want := range map[int64]string{0: "far\x00\x00\x00\x00", 1 << 45: "\x00\x00\x00\x00\x00\x00\x00", 1<<62 - 7: "\x00\x00\x00\x00out"} {
		if _, err := m.ReadAt(got, off); err != nil || string(got) != want {
			t.Fatalf("at %d: %q, %v, want %q", off, got, err, want)
		}
	}
}

func TestMemClone(t *testing.T) {
	a := blockdev.NewMem(1 << 20)
	put := func(m *blockdev.Mem, s string, off int64) {
		t.Helper()
		if _, err := m.WriteAt([]byte(s), off); err != nil {
			t.Fatal(err)
		}
	}
	see := func(m *blockdev.Mem, s string, off int64) {
		t.Helper()
		got := make([]byte, len(s))
		if _, err := m.ReadAt(got, off); err != nil || string(got) != s {
			t.Fatalf("%q, %v, want %q", got, err, s)
		}
	}
	put(a, "one", 5000)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b := a.Clone()
	c := b.Clone()
	put(b, "two", 5000)
	put(c, "sea", 9000)
	d := b.Clone()
	if err := b.ZeroOut(0, 1<<20); err != nil {
		t.Fatal(err)
	}
	see(b, "\x00\x00\x00", 5000)
	see(c, "one", 5000)
	see(c, "sea", 9000)
	see(d, "two", 5000)
	see(d, "\x00\x00\x00", 9000)
	see(a.Clone(), "one", 5000)
}
