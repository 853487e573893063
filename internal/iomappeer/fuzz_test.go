package iomappeer

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"
)

func TestFuzzSequential(t *testing.T) {
	eachKernel(t, func(t *testing.T, c Config, r refConfig) {
		r.readers = 1
		k, _ := start(t, c, r)
		res, err := Fuzz(k, 1, 400, FuzzOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(res)
	})
}

func TestFuzzConcurrent(t *testing.T) {
	for _, prof := range []Profile{May26, V7} {
		for _, cache := range []bool{false, true} {
			for _, shared := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v/cache=%v/shared=%v", prof, cache, shared), func(t *testing.T) {
					k, _ := start(t, Config{Profile: prof}, refConfig{cache: cache, bs: 4096})
					res, err := Fuzz(k, 2, 800, FuzzOptions{Workers: 4, Shared: shared})
					if err != nil {
						t.Fatal(err)
					}
					t.Log(res)
				})
			}
		}
	}
}

// TestFuzzVariants runs the reference server as it may be besides: with inline
// data, without OPEN, without END, over a socket, with metadata in the page cache.
func TestFuzzVariants(t *testing.T) {
	for _, v := range []struct {
		name string
		c    Config
		r    refConfig
		o    FuzzOptions
	}{
		{"inline", Config{}, refConfig{inline: 160}, FuzzOptions{MaxSize: 9000}},
		{"inline cached", Config{}, refConfig{inline: 160, cache: true}, FuzzOptions{MaxSize: 9000}},
		{"no open", Config{}, refConfig{noOpen: true}, FuzzOptions{}},
		{"no end", Config{NoEnd: true}, refConfig{}, FuzzOptions{}},
		{"no end, by ENOSYS", Config{}, refConfig{enosys: map[uint32]bool{opIomapEnd: true}}, FuzzOptions{}},
		{"no copy", Config{}, refConfig{enosys: map[uint32]bool{opCopyRange64: true, opCopyFileRange: true}}, FuzzOptions{}},
		{"page cache of the device", Config{}, refConfig{meta: &PageCached{}}, FuzzOptions{}},
		{"stock", Config{Stock: true}, refConfig{}, FuzzOptions{Without: []string{"mmap"}}},
		{"without privilege", Config{NoIomap: true}, refConfig{}, FuzzOptions{Without: []string{"mmap"}}},
		{"socket", Config{}, refConfig{socket: true, cache: true}, FuzzOptions{Workers: 4, Shared: true}},
		{"socket, stock", Config{Stock: true}, refConfig{socket: true}, FuzzOptions{Workers: 2, Without: []string{"mmap"}}},
		{"truncation by SETATTR", Config{Offer: defaultOffer &^ flagAtomicOTrunc}, refConfig{}, FuzzOptions{}},
		{"a small cache", Config{CacheMaxbytes: 256}, refConfig{cache: true}, FuzzOptions{}},
		{"small device", Config{}, refConfig{blocks: 200}, FuzzOptions{Workers: 2}},
	} {
		t.Run(v.name, func(t *testing.T) {
			k, _ := start(t, v.c, v.r)
			res, err := Fuzz(k, 5, 400, v.o)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(res)
		})
	}
}

// TestFuzzFaults lets things go wrong.
func TestFuzzFaults(t *testing.T) {
	for _, v := range []struct {
		name string
		f    *Faults
		errs bool // operations may fail
	}{
		{"benign", &Faults{UpsertFails: 0.2, CacheMisses: 0.2, DropEnd: 0.1, ShortCopy: 0.2, Stale: 0.2, DupIOEnd: 0.1, WantEnd: 0.1,
			MergeIOEnd: 0.2, EndWriteback: true, PerFolio: 0.3, ConfigBits: 1 << 20}, false},
		{"device", &Faults{WriteFails: 0.05, ShortWrite: 0.05, ReadFails: 0.02, NegativeEnd: 0.5}, true},
		{"interrupts", &Faults{Interrupt: 0.05}, true},
	} {
		for _, prof := range []Profile{May26, V7} {
			t.Run(fmt.Sprintf("%s/%v", v.name, prof), func(t *testing.T) {
				k, _ := start(t, Config{Profile: prof, Faults: v.f}, refConfig{cache: true})
				res, err := Fuzz(k, 7, 500, FuzzOptions{Workers: 2, Faults: v.errs})
				v.f.Off.Store(true)
				if err != nil {
					t.Fatal(err)
				}
				t.Log(res)
				v.f.Off.Store(false)
			})
		}
	}
}

// TestReproducible wants the same messages of two runs with the same seed.
func TestReproducible(t *testing.T) {
	run := func(n int) []byte {
		var log bytes.Buffer
		k, _ := start(t, Config{Seed: 1, Trace: func(m Message) { // the number of a notification's place may vary
			if m.To && m.Op != opForget && m.Op != opRelease {
				fmt.Fprintln(&log, OpName(m.Op), m.Node, m.body())
			}
		}}, refConfig{readers: 1})
		if _, err := Fuzz(k, 9, n, FuzzOptions{}); err != nil {
			t.Fatal(err)
		}
		return log.Bytes()
	}
	if a, b := run(200), run(200); !bytes.Equal(a, b) {
		t.Error("two runs with one seed differ")
	}
	if n := Shrink(1000, func(n int) error {
		if n >= 137 {
			return syscall.EIO
		}
		return nil
	}); n != 137 {
		t.Errorf("Shrink finds %d, want 137", n)
	}
}
