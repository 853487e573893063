package blockdev_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// bases are the devices under a Record: one it can clone, one it cannot.
var bases = map[string]func(*testing.T) blockdev.Device{
	"Mem":  func(*testing.T) blockdev.Device { return blockdev.NewMem(mib) },
	"File": func(t *testing.T) blockdev.Device { return mustOpen(t, tempImage(t, "", mib), blockdev.Options{}) },
}

func contents(t *testing.T, l *blockdev.Log, o blockdev.StateOptions, offs ...int64) map[string]int {
	t.Helper()
	got := map[string]int{}
	for s := range l.States(o) {
		var b []byte
		for _, off := range offs {
			c := make([]byte, 1)
			if _, err := s.Dev.ReadAt(c, off); err != nil {
				t.Fatal(err)
			}
			b = append(b, c...)
		}
		got[fmt.Sprintf("%d:%s:%v", s.Sync, b, s.Marks)]++
	}
	return got
}

// TestStatesAll compares all states of a small log with those there are.
func TestStatesAll(t *testing.T) {
	for name, open := range bases {
		t.Run(name, func(t *testing.T) {
			dev := open(t)
			put(t, dev, "-", 0)
			put(t, dev, "-", 10000)
			put(t, dev, "-", 20000)
			r := blockdev.NewRecord(dev)
			defer r.Close()
			put(t, r, "a", 0)
			put(t, r, "a", 10000)
			if err := r.Sync(); err != nil {
				t.Fatal(err)
			}
			r.Mark("A")
			if err := r.Sync(); err != nil {
				t.Fatal(err)
			}
			put(t, r, "b", 0)
			put(t, r, "b", 0)
			put(t, r, "b", 20000)
			log := r.Log()
			early := log.Base()
			put(t, r, "late", 0)
			put(t, r, "late", 30000)
			see(t, early, "\x00\x00", 30000)

			got := contents(t, log, blockdev.StateOptions{}, 0, 10000, 20000)
			want := map[string]int{
				// "aa-" before the second sync is "aa-" after it.
				"0:---:[]": 1, "0:a--:[]": 1, "0:-a-:[]": 1,
				"2:aa-:[A]": 1, "2:ba-:[A]": 3, "2:aab:[A]": 1, "2:bab:[A]": 3,
			}
			if !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			see(t, log.Base(), "-", 0)
			if n := log.Syncs(); n != 2 {
				t.Errorf("%d syncs", n)
			}
		})
	}
}

// TestStatesParts: a sync of one part keeps what was written to it, and what was
// written to the other may still be lost.
func TestStatesParts(t *testing.T) {
	r := blockdev.NewRecord(blockdev.NewMem(mib))
	part := func(off int64) blockdev.Device {
		d, err := r.Part(off, mib/2)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	one, two := part(0), part(mib/2)
	put(t, r, "-", 0)
	put(t, r, "-", mib/2)
	if err := r.Sync(); err != nil {
		t.Fatal(err)
	}
	put(t, one, "a", 0)
	put(t, two, "b", 0)
	if err := two.Sync(); err != nil {
		t.Fatal(err)
	}
	r.Mark("B")
	if err := two.Sync(); err != nil { // of nothing
		t.Fatal(err)
	}
	put(t, two, "c", 0)
	if err := one.Sync(); err != nil {
		t.Fatal(err)
	}
	r.Mark("A")
	got := contents(t, r.Log(), blockdev.StateOptions{}, 0, mib/2)
	want := map[string]int{
		"0:\x00\x00:[]": 1, "0:-\x00:[]": 1, "0:\x00-:[]": 1,
		"1:--:[]": 1, "1:a-:[]": 1, "1:-b:[]": 1,
		"3:-b:[B]": 1, "3:ab:[B]": 1, "3:-c:[B]": 1,
		"4:ab:[B A]": 1, "4:ac:[B A]": 1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := r.Part(mib/2, mib); err == nil {
		t.Error("a part that reaches past the end")
	}
}

// TestStatesLegal checks sampled states of a random log against the rule: each
// sector has what it had at the sync, or something written to it since.
func TestStatesLegal(t *testing.T) {
	for name, open := range bases {
		for _, torn := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/torn=%v", name, torn), func(t *testing.T) {
				const sector, size = 512, 256 << 10
				rnd := rand.New(rand.NewPCG(3, 3))
				dev := open(t)
				r := blockdev.NewRecord(dev)
				defer r.Close()
				durable := make([]byte, mib)
				legal := []map[int][][]byte{{}} // by epoch and sector, what may be there
				base := [][]byte{bytes.Clone(durable)}
				for range 120 {
					now := len(legal) - 1
					off, n := rnd.IntN(size/sector)*sector, (1+rnd.IntN(40))*sector
					p := make([]byte, n)
					var err error
					switch rnd.IntN(10) {
					case 0:
						err = r.Sync()
						base, legal = append(base, bytes.Clone(durable)), append(legal, map[int][][]byte{})
						off, n = 0, 0
					case 1:
						err = r.ZeroOut(int64(off), int64(n))
					case 2:
						err = r.Discard(int64(off), int64(n))
						if _, e := dev.ReadAt(p, int64(off)); e != nil {
							t.Fatal(e)
						}
					case 3:
						fillRandom(p, rnd)
						_, err = blockdev.WritevAt(r, [][]byte{p[:n/2], p[n/2:]}, int64(off))
					default:
						fillRandom(p, rnd)
						_, err = r.WriteAt(p, int64(off))
					}
					if err != nil {
						t.Fatal(err)
					}
					copy(durable[off:], p[:n])
					for at := 0; at < n; at += sector {
						s := (off + at) / sector
						legal[now][s] = append(legal[now][s], p[at:at+sector])
					}
				}
				if !bytes.Equal(all(t, dev), durable) {
					t.Fatal("the record does not pass everything on")
				}
				count, partial := 0, 0
				for s := range r.Log().States(blockdev.StateOptions{Seed: 5, Torn: torn, PerSync: 20}) {
					if s.Seq != count {
						t.Fatalf("%v is the %dth", s, count)
					}
					count++
					if s.Kept > 0 && s.Kept < s.Of {
						partial++
					}
					got := all(t, s.Dev)
					for at := 0; at < mib; at += sector {
						have := got[at : at+sector]
						if !bytes.Equal(have, base[s.Sync][at:at+sector]) &&
							!slices.ContainsFunc(legal[s.Sync][at/sector], func(p []byte) bool { return bytes.Equal(p, have) }) {
							t.Fatalf("%v: sector %d has what was never to be there", s, at/sector)
						}
					}
				}
				if count < 100 || partial < count/2 {
					t.Errorf("%d states, %d partial", count, partial)
				}
			})
		}
	}
}

func fillRandom(p []byte, r *rand.Rand) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
}

// States have to be the same for the same seed, within the limit, independent
// of each other, and quick.
func TestStatesMany(t *testing.T) {
	r := blockdev.NewRecord(blockdev.NewMem(16 * mib))
	rnd := rand.New(rand.NewPCG(9, 9))
	p := make([]byte, 4096)
	for i := range 3000 {
		fillRandom(p[:8], rnd)
		put(t, r, string(p), int64(rnd.IntN(4096))*4096)
		if i%30 == 29 {
			if err := r.Sync(); err != nil {
				t.Fatal(err)
			}
			r.Mark(i)
		}
	}
	log := r.Log()
	sum := func(o blockdev.StateOptions) []string {
		var names []string
		for s := range log.States(o) {
			names = append(names, s.String())
		}
		return names
	}
	o := blockdev.StateOptions{Seed: 1, PerSync: 50}
	a := sum(o)
	if len(a) < 4900 || !slices.Equal(a, sum(o)) {
		t.Errorf("%d states, or others the second time", len(a))
	}
	for _, limit := range []int{1, 7, 99, 100, 101, 1000} {
		o.Limit = limit
		if n := len(sum(o)); n > limit || n < limit*9/10 {
			t.Errorf("%d states at a limit of %d", n, limit)
		}
	}

	// In parallel, each changed by its owner.
	var wg sync.WaitGroup
	base := all(t, log.Base())
	for s := range log.States(blockdev.StateOptions{Limit: 20}) {
		wg.Go(func() {
			for i := range int64(8) {
				if _, err := s.Dev.WriteAt([]byte(s.String()), i*4096); err != nil {
					t.Error(err)
				}
			}
			see(t, s.Dev, s.String(), 4096)
			patched := bytes.Clone(base)
			for off, p := range s.Dev.Changed() {
				copy(patched[off:], p)
			}
			if !bytes.Equal(patched, all(t, s.Dev)) {
				t.Errorf("%v: Changed is not all", s)
			}
		})
	}
	wg.Wait()
}

// What a failed write left is what the log says.
func TestRecordFault(t *testing.T) {
	f := blockdev.NewFault(blockdev.NewMem(mib))
	r := blockdev.NewRecord(f)
	f.Arm(blockdev.Failure{Ops: blockdev.OpWrite, Nth: 1, Torn: true})
	if _, err := r.WriteAt(bytes.Repeat([]byte{1}, 1024), 0); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	f.Arm(blockdev.Failure{Ops: blockdev.OpSync, Nth: 1})
	if err := r.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if n := r.Log().Syncs(); n != 0 {
		t.Errorf("a sync that failed counts")
	}
	var last *blockdev.State
	for s := range r.Log().States(blockdev.StateOptions{}) {
		if s.Kept == s.Of {
			last = s
		}
	}
	see(t, last.Dev, string(bytes.Repeat([]byte{1}, 512))+string(make([]byte, 512)), 0)
}

func BenchmarkStates(b *testing.B) {
	r := blockdev.NewRecord(blockdev.NewMem(16 * mib))
	p := make([]byte, 4096)
	for i := range 1000 {
		if _, err := r.WriteAt(p, int64(i%500)*8192); err != nil {
			b.Fatal(err)
		}
		if i%50 == 49 {
			r.Sync()
		}
	}
	log := r.Log()
	b.ReportAllocs()
	for n := 0; n < b.N; {
		for range log.States(blockdev.StateOptions{PerSync: 100, Seed: uint64(n)}) {
			if n++; n >= b.N {
				break
			}
		}
	}
}
