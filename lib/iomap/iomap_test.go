package iomap_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/e2kit/e2kit/lib/iomap"
)

const bs = 1024

// mem is a device in memory.
type mem []byte

func (d mem) ReadAt(p []byte, off int64) (int, error)  { return copy(p, d[off:]), nil }
func (d mem) WriteAt(p []byte, off int64) (int, error) { return copy(d[off:], p), nil }
func (d mem) ZeroOut(off, n int64) error               { clear(d[off : off+n]); return nil }

// toy is a file whose block i, once it is written to, lies at block 3*i of the
// device, except that runs of two blocks are contiguous.
type toy struct {
	t      *testing.T
	state  []iomap.Type
	size   int64
	full   bool
	ioends int
}

func place(b int64) uint64 { return uint64((b/2)*3+b%2) * bs }

func (f *toy) Begin(op iomap.Op, pos, count int64) (p iomap.Pair, err error) {
	b := pos / bs
	n := int64(1)
	if b%2 == 0 && b+1 < int64(len(f.state)) && f.state[b] == f.state[b+1] {
		n = 2
	}
	p.Read = iomap.Mapping{Offset: b * bs, Length: n * bs, Addr: iomap.NullAddr, Type: f.state[b]}
	if op&iomap.Allocates != 0 && p.Read.Type == iomap.Hole {
		if f.full {
			return p, errors.New("full")
		}
		p.Read.Type, p.Read.Flags = iomap.Unwritten, iomap.New
	}
	if p.Read.Type.HasAddr() {
		p.Read.Addr, p.Read.Dev = place(b), iomap.MainDev
	}
	p.Overwrite()
	if err := p.Check(pos, bs, int64(len(f.state))*bs); err != nil {
		f.t.Error(err)
	}
	return p, nil
}

func (f *toy) End(iomap.Op, int64, int64, int64, iomap.Mapping) error { return nil }

func (f *toy) IOEnd(e iomap.IOEnd) (int64, error) {
	f.ioends++
	for b := e.Pos / bs; b*bs < e.Pos+e.Written; b++ {
		f.state[b] = iomap.Mapped
	}
	f.size = max(f.size, e.Pos+e.Written)
	return f.size, nil
}

func TestExecModel(t *testing.T) {
	const blocks = 64
	rnd := rand.New(rand.NewPCG(1, 2))
	dev := make(mem, 2*blocks*bs)
	for i := range dev {
		dev[i] = 0xee // what the blocks held before
	}
	f := &toy{t: t, state: make([]iomap.Type, blocks)}
	x := &iomap.Exec{Dev: dev, BlockSize: bs}
	model := make([]byte, blocks*bs)
	for range 2000 {
		off := rnd.Int64N(blocks * bs)
		n := min(rnd.Int64N(5*bs)+1, blocks*bs-off)
		switch rnd.IntN(3) {
		case 0:
			if off > f.size {
				if err := x.ZeroRange(f, f.size, off-f.size); err != nil {
					t.Fatal(err)
				}
			}
			p := make([]byte, n)
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			if got, err := x.Write(f, p, off, f.size); err != nil || got != int(n) {
				t.Fatal(got, err)
			}
			copy(model[off:], p)
		case 1:
			n = min(n, max(f.size-off, 0))
			if err := x.ZeroRange(f, off, n); err != nil {
				t.Fatal(err)
			}
			clear(model[off : off+n])
		case 2:
			p := make([]byte, n)
			got, err := x.Read(f, p, off, f.size)
			want := max(min(n, f.size-off), 0)
			if int64(got) != want || (want < n) != (err == io.EOF) {
				t.Fatal(got, want, err)
			}
			if !bytes.Equal(p[:got], model[off:off+want]) {
				t.Fatal("content differs")
			}
		}
	}
}

func TestExecShort(t *testing.T) {
	f := &toy{t: t, state: make([]iomap.Type, 8)}
	x := &iomap.Exec{Dev: make(mem, 16*bs), BlockSize: bs}
	if n, err := x.Write(f, make([]byte, bs), 0, 0); n != bs || err != nil {
		t.Fatal(n, err)
	}
	f.full = true
	if n, err := x.Write(f, make([]byte, 2*bs), 0, f.size); n != bs || err == nil {
		t.Fatal("a write into a full device:", n, err)
	}
	if f.size != bs || f.ioends != 1 {
		t.Fatal(f.size, f.ioends)
	}
}

func TestSeek(t *testing.T) {
	m, u, h := iomap.Mapped, iomap.Unwritten, iomap.Hole
	f := &toy{t: t, state: []iomap.Type{h, m, m, u, h, m, m, u}}
	const size = 7*bs + 10
	for _, c := range []struct{ off, data, hole int64 }{
		{0, bs, 0}, {bs + 5, bs + 5, 3 * bs}, {3 * bs, 5 * bs, 3 * bs}, {6 * bs, 6 * bs, 7 * bs}, {7*bs + 2, -1, 7*bs + 2},
	} {
		d, err := iomap.SeekData(f, c.off, size)
		e, err2 := iomap.SeekHole(f, c.off, size)
		if d != c.data || e != c.hole || err != nil || err2 != nil {
			t.Errorf("from %d: data %d, hole %d, want %d, %d", c.off, d, e, c.data, c.hole)
		}
	}
	n := 0
	if err := iomap.Walk(f, bs/2, 3*bs, func(m iomap.Mapping) bool { n += int(m.Length); return true }); err != nil || n != 3*bs {
		t.Fatal(n, err)
	}
}

func TestCheck(t *testing.T) {
	ok := iomap.Mapping{Offset: bs, Length: bs, Addr: 5 * bs, Type: iomap.Mapped, Dev: 1}
	if err := ok.Check(bs, bs, 1<<40, false); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(m *iomap.Mapping){
		"type":     func(m *iomap.Mapping) { m.Type = 9 },
		"flags":    func(m *iomap.Mapping) { m.Flags = iomap.Stale },
		"empty":    func(m *iomap.Mapping) { m.Length = 0 },
		"align":    func(m *iomap.Mapping) { m.Offset++ },
		"overflow": func(m *iomap.Mapping) { m.Length = 1<<63 - bs },
		"device":   func(m *iomap.Mapping) { m.Dev = 0 },
		"address":  func(m *iomap.Mapping) { m.Type = iomap.Hole },
		"slot": func(m *iomap.Mapping) {
			*m = iomap.Mapping{Offset: bs, Length: bs, Addr: iomap.NullAddr, Type: iomap.PureOverwrite}
		},
		"elsewhere": func(m *iomap.Mapping) {
			m.Offset += bs
		},
	} {
		m := ok
		f(&m)
		if m.Check(bs, bs, 1<<40, false) == nil {
			t.Error(name, "passed")
		}
	}
}

func BenchmarkRead(b *testing.B) {
	f := &toy{state: []iomap.Type{iomap.Mapped}}
	x := &iomap.Exec{Dev: make(mem, 4*bs), BlockSize: bs}
	p := make([]byte, bs)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.Read(f, p, 0, bs); err != nil {
			b.Fatal(err)
		}
	}
}
