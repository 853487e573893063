package ext2fs

import (
	"math/rand/v2"
	"testing"
)

// TestProgression reads a list at random, and in order, where its steps change.
func TestProgression(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var p progression
	var want []uint64
	v := uint64(1000)
	for range 300 {
		step := uint64(rnd.IntN(9)) * 517
		for range 1 + rnd.IntN(20) {
			want = append(want, v)
			p.append(v)
			v += step
		}
		v = rnd.Uint64N(1 << 40)
	}
	check := func(i int) {
		if got := p.get(uint32(i)); got != want[i] {
			t.Fatalf("number %d is %d, want %d", i, got, want[i])
		}
	}
	for i := range want {
		check(i)
	}
	for range 10000 {
		check(rnd.IntN(len(want)))
	}
	check(0)
	check(len(want) - 1)
	if len(p.parts) > 2*300 {
		t.Errorf("%d parts for 300 stretches", len(p.parts))
	}
}

// TestSetRange holds ranges that are set by words against bit after bit.
func TestSetRange(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		const n = 512
		a, b := make([]byte, n/8), make([]byte, n/8)
		for range 4 {
			at := uint32(rnd.IntN(n))
			k := uint32(rnd.IntN(n - int(at) + 1))
			were := uint32(0)
			for i := at; i < at+k; i++ {
				if testBit(a, i) {
					were++
				}
				setBit(a, i)
			}
			if got := setRange(b, at, k); got != were || string(a) != string(b) {
				t.Fatalf("%d bits from %d on: %d were set, want %d; now %x, want %x", k, at, got, were, b, a)
			}
		}
	}
}
