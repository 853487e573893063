package jbd2_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// TestRoundTrip: what is committed survives a crash, in each format, through
// many turns of the log, and what is not does not.
func TestRoundTrip(t *testing.T) {
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			dev := blockdev.Device(blockdev.NewMem(fsBlocks * bs))
			create(t, dev, f)
			rnd := rand.New(rand.NewPCG(1, 2))
			want := map[uint64]uint64{}
			v := uint64(100)
			rounds := 12
			if testing.Short() {
				rounds = 4
			}
			for round := range rounds {
				fs, _ := open(t, dev, f.async, nil)
				for blk, v := range want {
					if got := value(t, dev, blk); got != v {
						t.Fatalf("round %d: block %d has %d, want %d", round, blk, got, v)
					}
				}
				for range 20 {
					set := map[uint64]uint64{}
					for range 1 + rnd.IntN(120) {
						v++
						set[1+rnd.Uint64N(400)] = v
					}
					fs.set(set)
					for blk, v := range set {
						want[blk] = v
					}
					if rnd.IntN(4) > 0 {
						fs.commit()
					}
				}
				fs.commit()
				fs.set(map[uint64]uint64{7: 9999}) // lost
				if round%3 == 2 {
					want[7] = 9999
					if err := fs.j.Close(); err != nil {
						t.Fatal(err)
					}
					j, err := jbd2.Open(config(dev, f.async))
					if err != nil || j.Info().NeedsRecovery {
						t.Fatalf("after Close: %v, %+v", err, j.Info())
					}
					continue
				}
				dev = snapshot(t, dev)
				fs.crash()
			}
		})
	}
}

func TestRevoke(t *testing.T) {
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			dev := blockdev.NewMem(fsBlocks * bs)
			create(t, dev, f)
			fs, _ := open(t, dev, f.async, nil)
			all := map[uint64]uint64{}
			var blks []uint64
			for blk := uint64(10); blk < 300; blk++ {
				all[blk] = blk + 1000
				if len(all) == 200 {
					fs.set(all)
					clear(all)
					fs.commit()
				}
				blks = append(blks, blk)
			}
			fs.set(all)
			fs.commit()
			fs.forget(blks...)
			fs.commit()
			// Now they are data: written outside of the journal.
			data := make([]byte, bs)
			for _, blk := range blks {
				fill(data, blk+2000)
				kind{}.Seal(data, 0, buffer.Ctx{})
				if _, err := dev.WriteAt(data, int64(blk)*bs); err != nil {
					t.Fatal(err)
				}
			}
			fs.set(map[uint64]uint64{10: 3000, 2: 1}) // metadata again
			fs.commit()
			fs.set(map[uint64]uint64{11: 3001})
			fs.forget(12)
			fs.forget(11)
			fs.set(map[uint64]uint64{11: 3003}) // forgotten and taken back in one transaction
			fs.commit()
			fs.forget(2)
			crashed := snapshot(t, dev)
			fs.crash()
			_, st := open(t, crashed, f.async, nil)
			for _, blk := range blks {
				want := blk + 2000
				switch blk {
				case 10:
					want = 3000
				case 11:
					want = 3003
				}
				if got := value(t, crashed, blk); got != want {
					t.Fatalf("block %d has %d, want %d (%+v)", blk, got, want, st)
				}
			}
			if got := value(t, crashed, 2); got != 1 {
				t.Fatalf("block 2 has %d: revoked by a transaction that did not commit", got)
			}
		})
	}
}

func TestForgetKeepsCheckpointAway(t *testing.T) {
	dev := blockdev.NewMem(fsBlocks * bs)
	create(t, dev, formats[8])
	fs, _ := open(t, dev, false, nil)
	fs.set(map[uint64]uint64{50: 500, 51: 501})
	fs.commit()
	fs.forget(50)
	fs.commit()
	if b := fs.cache.Peek(50); b != nil {
		t.Fatal("a forgotten block is cached")
	}
	if err := fs.j.Flush(); err != nil {
		t.Fatal(err)
	}
	if v := value(t, dev, 50); v != 0 {
		t.Fatalf("a forgotten block was written home: %d", v)
	}
	if v := value(t, dev, 51); v != 501 {
		t.Fatalf("51 has %d", v)
	}
	if err := fs.j.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNoJournal(t *testing.T) {
	dev := blockdev.NewMem(fsBlocks * bs)
	cache := buffer.New(dev, buffer.Options{BlockSize: bs})
	var committed atomic.Int32
	j, err := jbd2.OpenNone(cache, jbd2.Config{Barrier: true, Interval: -1, Committed: func(jbd2.Tid) { committed.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	fs := &toy{t, dev, cache, j}
	set := map[uint64]uint64{}
	for blk := uint64(1); blk < 2000; blk++ {
		set[blk] = blk
	}
	fs.set(set)
	if v := value(t, dev, 5); v != 0 {
		t.Fatal("written before the commit")
	}
	fs.forget(6)
	fs.commit()
	for blk := range set {
		want := blk
		if blk == 6 {
			want = 0
		}
		if v := value(t, dev, blk); v != want {
			t.Fatalf("block %d has %d", blk, v)
		}
	}
	if committed.Load() != 1 {
		t.Errorf("%d commits", committed.Load())
	}
	fs.set(map[uint64]uint64{9: 99})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if v := value(t, dev, 9); v != 99 {
		t.Fatal("Close lost a change")
	}
	if _, err := j.Start(1); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("Start after Close: %v", err)
	}
}

// TestConcurrent has handles change counters in shared blocks, while others
// commit and flush; in the end all increments are there.
func TestConcurrent(t *testing.T) {
	for _, none := range []bool{false, true} {
		dev := blockdev.NewMem(fsBlocks * bs)
		var fs *toy
		if none {
			cache := buffer.New(dev, buffer.Options{BlockSize: bs})
			j, err := jbd2.OpenNone(cache, jbd2.Config{MaxTxBlocks: 64, Barrier: true})
			if err != nil {
				t.Fatal(err)
			}
			fs = &toy{t, dev, cache, j}
		} else {
			create(t, dev, formats[8])
			fs, _ = open(t, dev, false, nil)
		}
		const workers, per, blocks = 4, 1500, 200
		var locks [blocks]sync.Mutex // what the file system has above
		for blk := range uint64(blocks) {
			fs.set(map[uint64]uint64{1 + blk: 2})
		}
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(3, uint64(w)))
				for i := range per {
					h, err := fs.j.Start(3)
					if err != nil {
						t.Error(err)
						return
					}
					if i%50 == 0 {
						if err := h.Extend(2); err != nil && !errors.Is(err, jbd2.ErrNoCredits) {
							t.Error(err)
						}
					}
					for range 3 {
						n := rnd.IntN(blocks)
						b, err := fs.cache.Read(buffer.Block(1+n), kind{}, buffer.Ctx{})
						if err != nil {
							t.Error(err)
							return
						}
						locks[n].Lock()
						if err := h.GetWrite(b); err != nil {
							t.Error(err)
						}
						b.Data()[16+8*w]++
						if b.Data()[16+8*w] == 0 {
							b.Data()[17+8*w]++
						}
						h.Dirty(b)
						locks[n].Unlock()
						b.Put()
					}
					if i%100 == 7 {
						if err := h.Restart(2); err != nil {
							t.Error(err)
						}
					}
					h.Sync = i%25 == 0
					if err := h.Stop(); err != nil {
						t.Error(err)
					}
					if i%400 == 399 {
						if err := fs.j.Flush(); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		if err := fs.j.Close(); err != nil {
			t.Fatal(err)
		}
		var sum [workers]int
		p := make([]byte, bs)
		for blk := range int64(blocks) {
			if _, err := dev.ReadAt(p, (1+blk)*bs); err != nil {
				t.Fatal(err)
			}
			if err := (kind{}).Verify(p, 0, buffer.Ctx{}); err != nil {
				t.Error(err)
			}
			for w := range workers {
				sum[w] += int(p[16+8*w]-2) + 256*int(p[17+8*w]-2)
			}
		}
		for w, n := range sum {
			if n != 3*per {
				t.Errorf("worker %d: %d increments of %d", w, n, 3*per)
			}
		}
	}
}

// TestClearSkips has a log emptied, by who has not replayed it, and then used
// again: a transaction that is written to it must not be followed by an old one
// that bears the next number.
func TestClearSkips(t *testing.T) {
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			dev := blockdev.Device(blockdev.NewMem(fsBlocks * bs))
			create(t, dev, f)
			fs, _ := open(t, dev, f.async, nil)
			for v := uint64(1); v <= 4; v++ { // of three blocks of the log each
				fs.set(map[uint64]uint64{7: v})
				fs.commit()
			}
			dev = snapshot(t, dev)
			fs.crash()

			j, err := jbd2.Open(config(dev, f.async))
			if err != nil {
				t.Fatal(err)
			}
			if err := j.Clear(); err != nil {
				t.Fatal(err)
			}
			fs, _ = open(t, dev, f.async, nil)
			set := map[uint64]uint64{}
			for blk := uint64(7); blk < 14; blk++ {
				set[blk] = 100
			}
			fs.set(set) // nine
			fs.commit()
			dev = snapshot(t, dev)
			fs.crash()

			fs, st := open(t, dev, f.async, nil)
			defer fs.crash()
			if got := value(t, dev, 7); got != 100 || st.End-st.Start != 1 {
				t.Errorf("%d transactions were replayed, and the block has %d, want 100", st.End-st.Start, got)
			}
		})
	}
}

// TestClearSkipsBad is TestClearSkips with a log in which a commit block is bad:
// the transactions behind it count too.
func TestClearSkipsBad(t *testing.T) {
	for _, f := range formats {
		if f.opts.Features.Incompat&(jbd2.IncompatCsumV2|jbd2.IncompatCsumV3) == 0 {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			dev := blockdev.Device(blockdev.NewMem(fsBlocks * bs))
			create(t, dev, f)
			fs, _ := open(t, dev, f.async, nil)
			for v := uint64(1); v <= 6; v++ { // of three blocks of the log each
				fs.set(map[uint64]uint64{7: v})
				fs.commit()
			}
			dev = snapshot(t, dev)
			fs.crash()
			edit(t, dev, 6, func(p []byte) { p[17]++ }) // the checksum of the second one's commit

			j, err := jbd2.Open(config(dev, f.async))
			if err != nil {
				t.Fatal(err)
			}
			if st, err := j.Recover(replayer{dev}); err == nil || !st.Failed {
				t.Fatalf("a bad commit block: %v, %+v", err, st)
			}
			if err := j.Clear(); err != nil {
				t.Fatal(err)
			}
			for blocks := uint64(7); blocks <= 13; blocks += 3 { // up to each of the old ones
				dev := snapshot(t, dev)
				fs, _ := open(t, dev, f.async, nil)
				set := map[uint64]uint64{}
				for blk := range blocks {
					set[7+blk] = 100
				}
				fs.set(set)
				fs.commit()
				dev = snapshot(t, dev)
				fs.crash()

				fs, st := open(t, dev, f.async, nil)
				if got := value(t, dev, 7); got != 100 || st.End-st.Start != 1 {
					t.Errorf("%d transactions were replayed, and the block has %d, want 100", st.End-st.Start, got)
				}
				fs.crash()
			}
		})
	}
}
