package fsck

import (
	"math/rand/v2"
	"testing"
)

// TestBitmap compares a bitmap with a plain one over random operations, in a
// range of a few chunks and with runs that fill some of them.
func TestBitmap(t *testing.T) {
	const n = 3*chunkBits + 777
	rng := rand.New(rand.NewPCG(1, 2))
	m := newBitmap(n)
	plain := make([]bool, n)
	for step := range 3000 {
		i := rng.Uint64N(n)
		k := min(rng.Uint64N(1+rng.Uint64N(2*chunkBits)), n-i)
		switch rng.IntN(6) {
		case 0:
			m.set(i)
			plain[i] = true
		case 1:
			m.clear(i)
			plain[i] = false
		case 2:
			if rng.IntN(4) == 0 {
				m.setRange(i, k)
				for j := i; j < i+k; j++ {
					plain[j] = true
				}
			} else {
				for j := i; j < i+k; j++ {
					m.clear(j)
					plain[j] = false
				}
			}
		case 3:
			want := uint64(0)
			for _, b := range plain[i : i+k] {
				if b {
					want++
				}
			}
			if got := m.countRange(i, k); got != want || m.anyRange(i, k) != (want > 0) {
				t.Fatalf("step %d: countRange(%d, %d) is %d, not %d", step, i, k, got, want)
			}
		case 4:
			next, clear := i, i
			for next < i+k && !plain[next] {
				next++
			}
			for clear < i+k && plain[clear] {
				clear++
			}
			if a, b := m.next(i, i+k), m.nextClear(i, i+k); a != next || b != clear {
				t.Fatalf("step %d: next %d, not %d; nextClear %d, not %d", step, a, next, b, clear)
			}
		case 5:
			dst := make([]byte, k/8+1)
			m.fill(dst, i, k)
			for j := range k {
				if dst[j/8]>>(j%8)&1 != 0 != plain[i+j] {
					t.Fatalf("step %d: fill(%d, %d): bit %d", step, i, k, j)
				}
			}
		}
	}
}

// TestTable checks that the problem table is in order and complete.
func TestTable(t *testing.T) {
	if len(table) != 414 {
		t.Errorf("%d rows, not the 414 of e2fsck", len(table))
	}
	for i := range table {
		r := &table[i]
		if i > 0 && r.code <= table[i-1].code {
			t.Errorf("%#06x is out of order", r.code)
		}
		if r.meaning == "" || r.ask == askText && r.question == "" {
			t.Errorf("%#06x says nothing", r.code)
		}
		if r.ask == askNone && (r.preen == preenDoes || r.preen == preenStops || r.preen == preenLeaves) {
			t.Errorf("%#06x asks nothing, and preen is to answer it", r.code)
		}
	}
}
