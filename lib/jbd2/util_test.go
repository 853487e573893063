package jbd2_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"
	"testing"
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/jbd2"
)

const (
	bs        = 1024
	fsBlocks  = 4096 // of the toy device
	logBlocks = 1100
)

// logMap scatters the log over the device: runs of 100 blocks, each followed by
// 50 that are not the log's.
func logMap(n uint32) (uint64, error) {
	return 2000 + uint64(n/100)*150 + uint64(n%100), nil
}

// kind is a block whose last 4 bytes are a checksum.
type kind struct{}

func (kind) Name() string { return "toy" }

func (kind) Verify(data []byte, blk buffer.Block, _ buffer.Ctx) error {
	if sum := binary.LittleEndian.Uint32(data[len(data)-4:]); sum != crc32.ChecksumIEEE(data[:len(data)-4]) {
		return fmt.Errorf("block %d: %w", blk, buffer.EBADMSG)
	}
	return nil
}

func (kind) Seal(data []byte, _ buffer.Block, _ buffer.Ctx) {
	binary.LittleEndian.PutUint32(data[len(data)-4:], crc32.ChecksumIEEE(data[:len(data)-4]))
}

type formatCase struct {
	name  string
	opts  jbd2.CreateOptions
	async bool
}

var formats = []formatCase{
	{name: "v1", opts: jbd2.CreateOptions{Version: 1}},
	{name: "v2", opts: jbd2.CreateOptions{}},
	{name: "64bit", opts: jbd2.CreateOptions{Features: jbd2.Features{Incompat: jbd2.Incompat64Bit}}},
	{name: "csum1", opts: jbd2.CreateOptions{Features: jbd2.Features{Compat: jbd2.CompatChecksum}}},
	{name: "csum1-async", async: true, opts: jbd2.CreateOptions{Features: jbd2.Features{Compat: jbd2.CompatChecksum}}},
	{name: "csum2", opts: jbd2.CreateOptions{Features: jbd2.Features{Incompat: jbd2.IncompatCsumV2}}},
	{name: "csum2-64bit", opts: jbd2.CreateOptions{Features: jbd2.Features{Incompat: jbd2.IncompatCsumV2 | jbd2.Incompat64Bit}}},
	{name: "csum3", opts: jbd2.CreateOptions{Features: jbd2.Features{Incompat: jbd2.IncompatCsumV3}}},
	{name: "csum3-64bit", opts: jbd2.CreateOptions{Features: jbd2.Features{Incompat: jbd2.IncompatCsumV3 | jbd2.Incompat64Bit}}},
	{name: "csum3-async", async: true, opts: jbd2.CreateOptions{Features: jbd2.Features{Incompat: jbd2.IncompatCsumV3 | jbd2.Incompat64Bit}}},
	{name: "fast-commit", opts: jbd2.CreateOptions{FCBlocks: 64, Features: jbd2.Features{Incompat: jbd2.IncompatFastCommit | jbd2.IncompatCsumV3}}},
}

// clock is a time that always moves on.
type clock struct{ n atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(1e9+c.n.Add(1), 5) }

func config(dev blockdev.Device, async bool) jbd2.Config {
	c := &clock{}
	return jbd2.Config{
		Dev: dev, BlockSize: bs, Map: logMap, Blocks: logBlocks, Barrier: true,
		Async: async, Interval: -1, Now: c.now,
	}
}

// toy is a device with a journal, in use.
type toy struct {
	testing.TB
	dev   blockdev.Device
	cache *buffer.Cache
	j     *jbd2.Journal
}

func create(t testing.TB, dev blockdev.Device, f formatCase) {
	t.Helper()
	f.opts.UUID = [16]byte{1, 2, 3, 15: 9}
	if err := jbd2.Create(config(dev, f.async), f.opts); err != nil {
		t.Fatal(err)
	}
}

// open opens the journal on dev, recovers it and loads it.
func open(t testing.TB, dev blockdev.Device, async bool, adjust func(*jbd2.Config)) (*toy, jbd2.RecoverStats) {
	t.Helper()
	cfg := config(dev, async)
	cfg.Cache = buffer.New(dev, buffer.Options{BlockSize: bs, Limit: 512 << 10})
	if adjust != nil {
		adjust(&cfg)
	}
	j, err := jbd2.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	st, err := j.Recover(replayer{dev})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Load(); err != nil {
		t.Fatal(err)
	}
	return &toy{t, dev, cfg.Cache, j}, st
}

// set makes a transaction's part of giving blocks values.
func (f *toy) set(values map[uint64]uint64) jbd2.Tid {
	f.Helper()
	h, err := f.j.Start(len(values))
	if err != nil {
		f.Fatal(err)
	}
	for blk, v := range values {
		b, err := f.cache.New(buffer.Block(blk), kind{}, buffer.Ctx{})
		if err != nil {
			f.Fatal(err)
		}
		if err := h.GetCreate(b); err != nil {
			f.Fatal(err)
		}
		fill(b.Data(), v)
		h.Dirty(b)
		b.Put()
	}
	tid := h.Tid()
	if err := h.Stop(); err != nil {
		f.Fatal(err)
	}
	return tid
}

func (f *toy) forget(blks ...uint64) {
	f.Helper()
	h, err := f.j.Start(1)
	if err != nil {
		f.Fatal(err)
	}
	for _, blk := range blks {
		h.Revoke(blk)
	}
	if err := h.Stop(); err != nil {
		f.Fatal(err)
	}
}

func (f *toy) commit() {
	f.Helper()
	if err := f.j.CommitRunning(); err != nil {
		f.Fatal(err)
	}
}

// drop ends the use of the journal as a crash does.
func (f *toy) crash() {
	f.j.Abort(errCrash)
	_ = f.j.Close()
}

var errCrash = errors.New("crash")

// fill gives a block the value v. An odd value looks like a journal block.
func fill(p []byte, v uint64) {
	for i := range p {
		p[i] = byte(v)
	}
	if v%2 == 1 {
		binary.BigEndian.PutUint32(p, jbd2.Magic)
	}
	binary.LittleEndian.PutUint64(p[8:], v)
}

// value reads what the device has at blk, and checks that it is whole.
func value(t testing.TB, dev blockdev.Device, blk uint64) uint64 {
	t.Helper()
	p := make([]byte, bs)
	if _, err := dev.ReadAt(p, int64(blk)*bs); err != nil {
		t.Fatal(err)
	}
	v := binary.LittleEndian.Uint64(p[8:])
	if v == 0 {
		return 0
	}
	want := make([]byte, bs)
	fill(want, v)
	kind{}.Seal(want, 0, buffer.Ctx{})
	if string(p) != string(want) {
		t.Fatalf("block %d has parts of %d only: % x", blk, v, p[:16])
	}
	return v
}

// replayer replays to the device.
type replayer struct{ dev blockdev.Device }

func (r replayer) Check(blk uint64) error {
	if blk == 0 || blk >= fsBlocks {
		return fmt.Errorf("block %d is no home: %w", blk, buffer.EUCLEAN)
	}
	return nil
}

func (r replayer) Write(blk uint64, data []byte) error {
	_, err := r.dev.WriteAt(data, int64(blk)*bs)
	return err
}

func (r replayer) FastCommit(tag uint16, value []byte) error { return nil }
func (r replayer) Sync() error                               { return r.dev.Sync() }

// snapshot copies the device: what a crash of the program leaves.
func snapshot(t testing.TB, dev blockdev.Device) *blockdev.Mem {
	t.Helper()
	return dev.(*blockdev.Mem).Clone() // at one moment, while the journal's goroutines run
}
