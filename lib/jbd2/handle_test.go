package jbd2_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// slow is a device whose syncs take a while, and are counted.
type slow struct {
	blockdev.Device
	syncs atomic.Int64
	wait  time.Duration
}

func (d *slow) Sync() error {
	d.syncs.Add(1)
	time.Sleep(d.wait)
	return d.Device.Sync()
}

func fresh(t testing.TB, adjust func(*jbd2.Config)) *toy {
	t.Helper()
	dev := blockdev.NewMem(fsBlocks * bs)
	create(t, dev, csum3)
	fs, _ := open(t, dev, false, adjust)
	t.Cleanup(func() { fs.j.Close() })
	return fs
}

func TestGroupCommit(t *testing.T) {
	mem := blockdev.NewMem(fsBlocks * bs)
	create(t, mem, csum3)
	dev := &slow{Device: mem, wait: 2 * time.Millisecond}
	fs, _ := open(t, dev, false, nil)
	dev.syncs.Store(0)
	const callers, rounds = 16, 5
	var wg sync.WaitGroup
	for w := range callers {
		wg.Go(func() {
			for range rounds {
				if err := fs.j.CommitSync(fs.set(map[uint64]uint64{uint64(10 + w): 4})); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := dev.syncs.Load(); n > callers*rounds {
		t.Errorf("%d syncs for %d calls", n, callers*rounds)
	}
	if err := fs.j.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCommitSync: what was written before the call is synced, whether or not
// there is something to commit.
func TestCommitSync(t *testing.T) {
	mem := blockdev.NewMem(fsBlocks * bs)
	create(t, mem, csum3)
	dev := &slow{Device: mem}
	fs, _ := open(t, dev, false, nil)
	tid := fs.set(map[uint64]uint64{5: 6})
	for i, want := range []int64{2, 1, 1} {
		dev.syncs.Store(0)
		if err := fs.j.CommitSync(tid); err != nil {
			t.Fatal(err)
		}
		if n := dev.syncs.Load(); n != want {
			t.Errorf("call %d: %d syncs, want %d", i, n, want)
		}
	}
	if err := fs.j.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCredits(t *testing.T) {
	fs := fresh(t, func(c *jbd2.Config) { c.MaxTxBlocks = 100; c.PrecommitCredits = 10 })
	if _, err := fs.j.Start(91); !errors.Is(err, jbd2.ErrTooLarge) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Start(91): %v", err)
	}
	h, err := fs.j.Start(50)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Extend(40); err != nil {
		t.Fatal(err)
	}
	if err := h.Extend(1); !errors.Is(err, jbd2.ErrNoCredits) {
		t.Fatalf("Extend: %v", err)
	}
	if n := h.Credits(); n != 90 {
		t.Errorf("%d credits", n)
	}
	first := h.Tid()
	b, err := fs.cache.New(9, kind{}, buffer.Ctx{})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.GetCreate(b); err != nil {
		t.Fatal(err)
	}
	h.Dirty(b)
	h.Dirty(b)
	b.Put()
	if n := h.Credits(); n != 89 {
		t.Errorf("%d credits after one block", n)
	}
	if err := h.Restart(90); err != nil { // 1 used and 10 set aside: does not fit
		t.Fatal(err)
	}
	if h.Tid() == first {
		t.Error("Restart did not start another transaction")
	}
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := fs.j.Commit(first); err != nil || !fs.j.Committed(first) {
		t.Fatal(err)
	}
}

func TestCallbacks(t *testing.T) {
	var log []string
	var fs *toy
	pre := 0
	fs = fresh(t, func(c *jbd2.Config) {
		c.Precommit = func(tx *jbd2.Tx) error {
			if pre++; pre == 2 {
				return nil
			}
			b, err := fs.cache.New(77, kind{}, buffer.Ctx{})
			if err != nil {
				return err
			}
			defer b.Put()
			if err := tx.Handle().GetWrite(b); err != nil {
				return err
			}
			fill(b.Data(), 770)
			tx.Handle().Dirty(b)
			log = append(log, "precommit")
			return nil
		}
		c.Committed = func(jbd2.Tid) { log = append(log, "committed") }
	})
	h, err := fs.j.Start(1)
	if err != nil {
		t.Fatal(err)
	}
	h.OnCommit(func() { log = append(log, "handle") })
	h.Sync = true
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := len(log); got != 3 || log[0] != "precommit" || log[1] != "committed" || log[2] != "handle" {
		t.Errorf("%q", log)
	}
	// A commit of nothing: callbacks of handles run, no transaction is written.
	log = nil
	h, err = fs.j.Start(1)
	if err != nil {
		t.Fatal(err)
	}
	h.OnCommit(func() { log = append(log, "handle") })
	tid := h.Tid()
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := fs.j.Commit(tid); err != nil {
		t.Fatal(err)
	}
	if len(log) != 1 || log[0] != "handle" || fs.j.Committed(tid) || fs.j.Running() != tid {
		t.Errorf("after a commit of nothing: %q", log)
	}
	if err := fs.j.Flush(); err != nil {
		t.Fatal(err)
	}
	if v := value(t, fs.dev, 77); v != 770 {
		t.Errorf("what Precommit wrote: %d", v)
	}
}

func TestPrecommitError(t *testing.T) {
	boom := errors.New("boom")
	fs := fresh(t, func(c *jbd2.Config) { c.Precommit = func(*jbd2.Tx) error { return boom } })
	tid := fs.set(map[uint64]uint64{5: 6})
	if err := fs.j.Commit(tid); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Commit: %v", err)
	}
	if err := fs.j.Err(); !errors.Is(err, boom) {
		t.Errorf("Err: %v", err)
	}
	if err := fs.j.Close(); !errors.Is(err, boom) {
		t.Errorf("Close: %v", err)
	}
}

func TestInterval(t *testing.T) {
	done := make(chan jbd2.Tid, 10)
	fs := fresh(t, func(c *jbd2.Config) {
		c.Interval = 20 * time.Millisecond
		c.Committed = func(tid jbd2.Tid) { done <- tid }
	})
	for range 3 {
		tid := fs.set(map[uint64]uint64{5: 6})
		select {
		case got := <-done:
			if got != tid {
				t.Errorf("committed %d, want %d", got, tid)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no commit")
		}
	}
}

// TestPressure: a cache much smaller than what changes gets its memory back.
func TestPressure(t *testing.T) {
	for _, none := range []bool{false, true} {
		dev := blockdev.NewMem(fsBlocks * bs)
		create(t, dev, csum3)
		var fs *toy
		cache := buffer.New(dev, buffer.Options{BlockSize: bs, Limit: 64 * bs})
		if none {
			j, err := jbd2.OpenNone(cache, jbd2.Config{Barrier: true, Interval: -1})
			if err != nil {
				t.Fatal(err)
			}
			fs = &toy{t, dev, cache, j}
		} else {
			fs, _ = open(t, dev, false, func(c *jbd2.Config) { c.Cache = cache; c.Interval = -1 })
		}
		for blk := uint64(1); blk < 1900; blk++ {
			fs.set(map[uint64]uint64{blk: blk + 5000})
			if n := cache.Stats().Blocks; n > 1000 {
				t.Fatalf("%d blocks in a cache of 64", n)
			}
			time.Sleep(10 * time.Microsecond)
		}
		if err := fs.j.Close(); err != nil {
			t.Fatal(err)
		}
		for blk := uint64(1); blk < 1900; blk++ {
			if v := value(t, dev, blk); v != blk+5000 {
				t.Fatalf("block %d has %d", blk, v)
			}
		}
	}
}

// TestFreeze: between Lock and Unlock nothing changes, and what is on the device
// needs no recovery.
func TestFreeze(t *testing.T) {
	fs := fresh(t, nil)
	fs.set(map[uint64]uint64{5: 6})
	fs.j.Lock()
	if err := fs.j.Flush(); err != nil {
		t.Fatal(err)
	}
	started := make(chan error)
	go func() {
		h, err := fs.j.Start(1)
		if err == nil {
			err = h.Stop()
		}
		started <- err
	}()
	select {
	case <-started:
		t.Fatal("a handle started")
	case <-time.After(20 * time.Millisecond):
	}
	j, err := jbd2.Open(config(fs.dev, false))
	if err != nil || j.Info().NeedsRecovery || value(t, fs.dev, 5) != 6 {
		t.Fatalf("not flushed: %v", err)
	}
	fs.j.Unlock()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
}

func TestDirtyWithoutGetWrite(t *testing.T) {
	fs := fresh(t, nil)
	h, err := fs.j.Start(1)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Stop()
	b, err := fs.cache.Raw(5)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Put()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	h.Dirty(b)
}

// TestOverfull: handles that change more than they said do not break the log.
func TestOverfull(t *testing.T) {
	fs := fresh(t, nil)
	for round := range 30 {
		h, err := fs.j.Start(1)
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(300) {
			b, err := fs.cache.New(buffer.Block(1+i), kind{}, buffer.Ctx{})
			if err != nil {
				t.Fatal(err)
			}
			if err := h.GetCreate(b); err != nil {
				t.Fatal(err)
			}
			fill(b.Data(), uint64(round)*2+2)
			h.Dirty(b)
			b.Put()
		}
		if err := h.Stop(); err != nil {
			t.Fatal(err)
		}
		if round%2 == 0 {
			fs.commit()
		}
	}
	if err := fs.j.Close(); err != nil {
		t.Fatal(err)
	}
	if v := value(t, fs.dev, 300); v != 60 {
		t.Errorf("%d", v)
	}
}
