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

// TestIcount compares counters with plain ones, in pages with few and with many
// that are larger than 1.
func TestIcount(t *testing.T) {
	const n = 3 * icountPage
	c, plain := newIcount(n), make([]uint16, n+1)
	rng := rand.New(rand.NewPCG(1, 2))
	for step := range 60000 {
		i := uint64(rng.IntN(n))
		if rng.IntN(3) > 0 {
			i %= icountPage // crowded
		} else if i >= icountPage {
			i -= i % 9
		}
		if v := uint16([]int{0, 1, 1, 2, 3, 65535}[rng.IntN(6)]); rng.IntN(2) == 0 {
			c.set(i, v)
			plain[i] = v
		} else {
			d := rng.IntN(5) - 2
			c.add(i, d)
			plain[i] = uint16(max(0, min(int(plain[i])+d, 65535)))
		}
		if j := uint64(rng.IntN(n)); c.get(j) != plain[j] || c.get(i) != plain[i] {
			t.Fatalf("step %d: %d is %d, not %d; %d is %d, not %d", step, i, c.get(i), plain[i], j, c.get(j), plain[j])
		}
	}
	if c.page[0].all == nil || c.page[1].all != nil {
		t.Error("both kinds of pages were to be tried")
	}
}
