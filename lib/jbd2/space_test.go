package jbd2_test

import (
	"sync/atomic"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// gate is a device that can hold up a write to the log.
type gate struct {
	blockdev.Device
	armed atomic.Bool
	at    chan struct{} // closed when it has come
	open  chan struct{} // closed to let it pass
}

func (d *gate) WriteAt(p []byte, off int64) (int, error) {
	if off >= 2000*bs && d.armed.CompareAndSwap(true, false) {
		close(d.at)
		<-d.open
	}
	return d.Device.WriteAt(p, off)
}

// TestSpaceOfUnchanged fills the log behind a block that the running transaction
// has joined, but has not changed: that keeps it from going home, until the
// transaction ends, so who waits for space has to end it.
func TestSpaceOfUnchanged(t *testing.T) {
	mem := blockdev.NewMem(fsBlocks * bs)
	create(t, mem, csum3)
	dev := &gate{Device: mem, at: make(chan struct{}), open: make(chan struct{})}
	fs, _ := open(t, dev, false, func(c *jbd2.Config) { c.Cache = buffer.New(dev, buffer.Options{BlockSize: bs, Limit: 4 << 20}) })
	defer fs.j.Close()
	change := func(lo, n uint64) { // more than its handle says
		h, err := fs.j.Start(1)
		if err != nil {
			t.Fatal(err)
		}
		for blk := lo; blk < lo+n; blk++ {
			b, err := fs.cache.New(buffer.Block(blk), kind{}, buffer.Ctx{})
			if err == nil {
				err = h.GetCreate(b)
			}
			if err != nil {
				t.Fatal(err)
			}
			h.Dirty(b)
			b.Put()
		}
		if err := h.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	change(1, 200)
	fs.commit()
	dev.armed.Store(true)
	change(201, 650) // asks for a commit
	done := make(chan error)
	go func() { done <- fs.j.CommitRunning() }()
	<-dev.at
	h, err := fs.j.Start(1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := fs.cache.Read(1, kind{}, buffer.Ctx{})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.GetWrite(b); err != nil {
		t.Fatal(err)
	}
	b.Put()
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	close(dev.open)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if h, err = fs.j.Start(200); err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
}
