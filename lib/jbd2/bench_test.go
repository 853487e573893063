package jbd2_test

import (
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
)

// BenchmarkHandle is one operation that changes three cached blocks.
func BenchmarkHandle(b *testing.B) {
	dev := blockdev.NewMem(fsBlocks * bs)
	create(b, dev, formats[8])
	fs, _ := open(b, dev, false, nil)
	var bufs []*buffer.Buf
	for blk := range buffer.Block(300) {
		o, err := fs.cache.New(1+blk, kind{}, buffer.Ctx{})
		if err != nil {
			b.Fatal(err)
		}
		bufs = append(bufs, o)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		h, err := fs.j.Start(3)
		if err != nil {
			b.Fatal(err)
		}
		for range 3 {
			o := bufs[i%100]
			if err := h.GetWrite(o); err != nil {
				b.Fatal(err)
			}
			o.Data()[20]++
			h.Dirty(o)
			i++
		}
		if err := h.Stop(); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	for _, o := range bufs {
		o.Put()
	}
	if err := fs.j.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCommit commits transactions of 200 blocks.
func BenchmarkCommit(b *testing.B) {
	dev := blockdev.NewMem(fsBlocks * bs)
	create(b, dev, formats[8])
	fs, _ := open(b, dev, false, nil)
	b.ReportAllocs()
	b.SetBytes(200 * bs)
	for b.Loop() {
		h, err := fs.j.Start(200)
		if err != nil {
			b.Fatal(err)
		}
		for blk := range buffer.Block(200) {
			o, err := fs.cache.New(1+blk, kind{}, buffer.Ctx{})
			if err != nil {
				b.Fatal(err)
			}
			if err := h.GetWrite(o); err != nil {
				b.Fatal(err)
			}
			h.Dirty(o)
			o.Put()
		}
		if err := h.Stop(); err != nil {
			b.Fatal(err)
		}
		fs.commit()
	}
	if err := fs.j.Close(); err != nil {
		b.Fatal(err)
	}
}
