package jbd2_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// state is what the device has to hold: metadata values by block. Block 1 counts
// the transactions.
type state map[uint64]uint64

// promise is what was durable at some moment.
type promise struct {
	txs  int               // so many transactions
	data map[uint64]uint64 // and data in blocks that are not metadata
}

// workload runs transactions, until one fails, and returns the state after each.
// Blocks that it forgets hold data afterwards, until they become metadata again.
func workload(fs *toy, dev blockdev.Device, n int, promised func(promise)) ([]state, error) {
	rnd := rand.New(rand.NewPCG(5, 6))
	states := []state{{}}
	data := map[uint64]uint64{}
	v := uint64(1000)
	for k := 1; k <= n; k++ {
		s := maps.Clone(states[k-1])
		h, err := fs.j.Start(140)
		if err != nil {
			return states, err
		}
		set := func(blk, v uint64) error {
			s[blk] = v
			delete(data, blk)
			b, err := fs.cache.New(buffer.Block(blk), kind{}, buffer.Ctx{})
			if err != nil {
				return err
			}
			defer b.Put()
			if err := h.GetCreate(b); err != nil {
				return err
			}
			fill(b.Data(), v)
			h.Dirty(b)
			return nil
		}
		if err := set(1, uint64(k)*2); err != nil {
			return states, errors.Join(err, h.Stop())
		}
		for range 1 + rnd.IntN(100) {
			v++
			if err := set(2+rnd.Uint64N(150), v); err != nil {
				return states, errors.Join(err, h.Stop())
			}
		}
		var freed []uint64
		for blk := range s {
			if blk != 1 && (blk*7+uint64(k))%11 == 0 {
				h.Revoke(blk)
				freed = append(freed, blk)
			}
		}
		for _, blk := range freed {
			delete(s, blk)
		}
		states = append(states, s)
		tid := h.Tid()
		if err := h.Stop(); err != nil {
			return states, err
		}
		if err := fs.j.Commit(tid); err != nil {
			return states, err
		}
		promised(promise{k, maps.Clone(data)})
		p := make([]byte, bs)
		for _, blk := range freed {
			v++
			fill(p, v)
			kind{}.Seal(p, 0, buffer.Ctx{})
			if _, err := dev.WriteAt(p, int64(blk)*bs); err != nil {
				return states, err
			}
			data[blk] = v
		}
		if k%3 == 0 {
			if err := dev.Sync(); err != nil {
				return states, err
			}
			promised(promise{k, maps.Clone(data)})
		}
		if k%10 == 0 {
			if err := fs.j.Flush(); err != nil {
				return states, err
			}
		}
	}
	return states, nil
}

// verify recovers dev and compares it with what it may be.
func verify(t *testing.T, dev blockdev.Device, async bool, states []state, p promise) error {
	t.Helper()
	cfg := config(dev, async)
	j, err := jbd2.Open(cfg)
	if err != nil {
		return err
	}
	if _, err := j.Recover(replayer{dev}); err != nil {
		return err
	}
	k := int(value(t, dev, 1)) / 2
	if k < p.txs || k >= len(states) {
		return fmt.Errorf("%d transactions, promised %d", k, p.txs)
	}
	for blk, want := range states[k] {
		if got := value(t, dev, blk); got != want {
			return fmt.Errorf("after %d transactions block %d has %d, want %d", k, blk, got, want)
		}
	}
	for blk, want := range p.data {
		taken := false
		for _, s := range states[p.txs : k+1] {
			_, meta := s[blk]
			taken = taken || meta
		}
		if !taken {
			if got := value(t, dev, blk); got != want {
				return fmt.Errorf("after %d transactions data block %d has %d, want %d", k, blk, got, want)
			}
		}
	}
	return nil
}

// TestCrash: whatever a crash leaves of the writes since the last sync, recovery
// makes it the state between two transactions, and not an older one than was
// promised.
func TestCrash(t *testing.T) {
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			dev := blockdev.NewMem(fsBlocks * bs)
			create(t, dev, f)
			rec := blockdev.NewRecord(dev)
			fs, _ := open(t, rec, f.async, nil)
			states, err := workload(fs, rec, 36, func(p promise) { rec.Mark(p) })
			if err != nil {
				t.Fatal(err)
			}
			if err := fs.j.Close(); err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, torn := range []bool{false, true} {
				for s := range rec.Log().States(blockdev.StateOptions{Seed: 1, Limit: 400, PerSync: 16, Torn: torn}) {
					var p promise
					if len(s.Marks) > 0 {
						p = s.Marks[len(s.Marks)-1].(promise)
					}
					if err := verify(t, s.Dev, f.async, states, p); err != nil {
						t.Fatalf("%v: %v", s, err)
					}
					n++
				}
			}
			if n < 300 {
				t.Errorf("only %d states", n)
			}
		})
	}
}

// TestFault fails each write and sync in turn. The journal aborts, takes no more
// handles, and leaves what recovery makes a state between two transactions.
func TestFault(t *testing.T) {
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			base := blockdev.NewMem(fsBlocks * bs)
			create(t, base, f)
			for nth := int64(1); ; nth++ {
				if nth > 2000 {
					t.Fatal("the sweep does not end")
				}
				dev := blockdev.NewFault(base.Clone())
				var cause error
				fs, _ := open(t, dev, f.async, func(c *jbd2.Config) {
					c.Aborted = func(err error) { cause = err }
				})
				dev.Arm(blockdev.Failure{Ops: blockdev.OpWrite | blockdev.OpSync, Nth: nth, Torn: nth%2 == 0, Sticky: nth%3 == 0})
				var p promise
				states, err := workload(fs, dev, 11, func(q promise) { p = q })
				cerr := fs.j.Close()
				fired := dev.Fired()
				dev.Disarm()
				if !fired {
					if err != nil || cerr != nil {
						t.Fatal(err, cerr)
					}
					if nth < 30 {
						t.Fatalf("a sweep of %d only", nth)
					}
					break
				}
				if err == nil && cerr == nil {
					t.Fatalf("fault %d was not reported", nth)
				}
				if fs.j.Err() != nil {
					if cause == nil || !errors.Is(cause, syscall.EIO) {
						t.Fatalf("fault %d: aborted because of %v", nth, cause)
					}
					if _, err := fs.j.Start(1); !errors.Is(err, syscall.EROFS) {
						t.Fatalf("fault %d: Start after the abort: %v", nth, err)
					}
					if nth%3 != 0 {
						j, err := jbd2.Open(config(dev, f.async))
						if err != nil || j.Info().Errno != -int32(syscall.EIO) {
							t.Fatalf("fault %d: errno not recorded: %v", nth, err)
						}
					}
				}
				if err := verify(t, dev, f.async, states, p); err != nil {
					t.Fatalf("fault %d: %v", nth, err)
				}
			}
		})
	}
}

// TestCrashConcurrent has several goroutines change two blocks each in every
// operation, and some wait for it to be durable: in each crash state the two are
// alike, and not older than promised.
func TestCrashConcurrent(t *testing.T) {
	dev := blockdev.NewMem(fsBlocks * bs)
	create(t, dev, csum3)
	rec := blockdev.NewRecord(dev)
	fs, _ := open(t, rec, false, func(c *jbd2.Config) { c.MaxTxBlocks = 40 })
	const workers, ops = 4, 200
	type durable struct{ worker, op int }
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for op := 1; op <= ops; op++ {
				h, err := fs.j.Start(2)
				if err != nil {
					t.Error(err)
					return
				}
				for i := range 2 {
					b, err := fs.cache.New(buffer.Block(10+20*w+200*i), kind{}, buffer.Ctx{})
					if err != nil {
						t.Error(err)
						return
					}
					if err := h.GetCreate(b); err != nil {
						t.Error(err)
					}
					fill(b.Data(), uint64(op))
					h.Dirty(b)
					b.Put()
					runtime.Gosched()
				}
				h.Sync = (op+w)%10 == 0
				sync := h.Sync
				if err := h.Stop(); err != nil {
					t.Error(err)
				}
				if sync {
					rec.Mark(durable{w, op})
				}
				if (op+50*w)%200 == 0 {
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
	for s := range rec.Log().States(blockdev.StateOptions{Seed: 2, Limit: 800, PerSync: 16, Torn: true}) {
		j, err := jbd2.Open(config(s.Dev, false))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Recover(replayer{s.Dev}); err != nil {
			t.Fatalf("%v: %v", s, err)
		}
		var promised [workers]int
		for _, m := range s.Marks {
			promised[m.(durable).worker] = m.(durable).op
		}
		for w := range workers {
			a, b := value(t, s.Dev, uint64(10+20*w)), value(t, s.Dev, uint64(210+20*w))
			if a != b || int(a) < promised[w] {
				t.Fatalf("%v: worker %d: %d and %d, promised %d", s, w, a, b, promised[w])
			}
		}
	}
}

// TestLeave: what was committed is found in the log.
func TestLeave(t *testing.T) {
	dev := blockdev.NewMem(fsBlocks * bs)
	create(t, dev, csum3)
	fs, _ := open(t, dev, false, nil)
	fs.set(map[uint64]uint64{9: 99})
	if err := fs.j.Leave(); err != nil {
		t.Fatal(err)
	}
	if v := value(t, dev, 9); v != 0 {
		t.Fatalf("written home: %d", v)
	}
	fs, st := open(t, dev, false, nil)
	if v := value(t, dev, 9); v != 99 || st.Replayed != 1 {
		t.Fatalf("%d, %+v", v, st)
	}
	if err := fs.j.Close(); err != nil {
		t.Fatal(err)
	}
}
