package jbd2_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// edit changes a block of the log.
func edit(t testing.TB, dev blockdev.Device, n uint32, change func(p []byte)) {
	t.Helper()
	at, _ := logMap(n)
	p := make([]byte, bs)
	if _, err := dev.ReadAt(p, int64(at)*bs); err != nil {
		t.Fatal(err)
	}
	change(p)
	if _, err := dev.WriteAt(p, int64(at)*bs); err != nil {
		t.Fatal(err)
	}
}

// logged makes a device with three transactions in its log: blocks 10 to 14 in
// the first, 20 to 24 in the second, 10 to 14 in the third.
func logged(t testing.TB, f formatCase) *blockdev.Mem {
	t.Helper()
	dev := blockdev.NewMem(fsBlocks * bs)
	create(t, dev, f)
	fs, _ := open(t, dev, f.async, nil)
	for k, first := range []uint64{10, 20, 10} {
		set := map[uint64]uint64{}
		for i := range uint64(5) {
			set[first+i] = uint64(k+1)*100 + i
		}
		fs.set(set)
		fs.commit()
	}
	crashed := snapshot(t, dev)
	fs.crash()
	return crashed
}

// Each transaction of logged is a descriptor, five blocks and a commit block,
// from block 1 on.
const txLen = 7

// target changes the home of the first block in the descriptor at log block n.
func target(blk uint32) func(p []byte) {
	return func(p []byte) { binary.BigEndian.PutUint32(p[12:], blk) }
}

var csum3 = formats[7]
var plain = formats[1]

func TestHostileTargets(t *testing.T) {
	own, _ := logMap(150)
	for name, blk := range map[string]uint32{
		"refused by the file system": 0,
		"past the end":               fsBlocks,
		"far past the end":           1<<32 - 1,
		"the log":                    uint32(own),
		"the journal superblock":     2000,
	} {
		t.Run(name, func(t *testing.T) {
			dev := logged(t, plain)
			edit(t, dev, 1+2*txLen, target(blk)) // in the last transaction
			before := snapshot(t, dev)
			j, err := jbd2.Open(config(dev, false))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := j.Recover(replayer{dev}); !errors.Is(err, buffer.EUCLEAN) {
				t.Errorf("got %v", err)
			}
			if err := j.Load(); !errors.Is(err, jbd2.ErrNeedsRecovery) {
				t.Errorf("Load: %v", err)
			}
			sameDevice(t, before, dev)
		})
	}
}

func sameDevice(t *testing.T, a, b blockdev.Device) {
	t.Helper()
	pa, pb := make([]byte, fsBlocks*bs), make([]byte, fsBlocks*bs)
	if _, err := a.ReadAt(pa, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReadAt(pb, 0); err != nil {
		t.Fatal(err)
	}
	if string(pa) != string(pb) {
		t.Error("the device was written")
	}
}

// TestChecksums breaks one block of the log at a time.
func TestChecksums(t *testing.T) {
	flip := func(p []byte) { p[700]++ }
	const second = 1 + txLen
	for _, c := range []struct {
		name   string
		format string
		block  uint32 // broken
		err    error
		failed bool
		end    jbd2.Tid // of the first transaction that is not replayed, from 0
		bad    int
	}{
		{"descriptor", "csum3", second, buffer.EBADMSG, false, 0, 0},
		{"descriptor v2", "csum2", second, buffer.EBADMSG, false, 0, 0},
		{"data", "csum3-64bit", second + 1, buffer.EBADMSG, false, 3, 1},
		{"data v2", "csum2-64bit", second + 3, buffer.EBADMSG, false, 3, 1},
		{"data, async", "csum3-async", second + 1, buffer.EUCLEAN, true, 1, 0},
		{"last data, async", "csum3-async", 1 + 2*txLen + 2, nil, false, 2, 0},
		{"commit, outside the header", "csum3", second + txLen - 1, nil, false, 3, 0},
		{"v1 descriptor", "csum1", second, buffer.EUCLEAN, true, 1, 0},
		{"v1 data", "csum1", second + 2, buffer.EUCLEAN, true, 1, 0},
		{"v1 last data", "csum1", 1 + 2*txLen + 2, buffer.EUCLEAN, true, 2, 0},
		{"v1 data, async", "csum1-async", second + 2, buffer.EUCLEAN, true, 1, 0},
		{"v1 last data, async", "csum1-async", 1 + 2*txLen + 2, nil, false, 2, 0},
		{"none", "v2", second + 1, nil, false, 3, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f formatCase
			for _, f = range formats {
				if f.name == c.format {
					break
				}
			}
			dev := logged(t, f)
			edit(t, dev, c.block, flip)
			j, err := jbd2.Open(config(dev, f.async))
			if err != nil {
				t.Fatal(err)
			}
			st, err := j.Recover(replayer{dev})
			if !errors.Is(err, c.err) {
				t.Errorf("got %v, want %v", err, c.err)
			}
			if c.end != 0 && st.End != st.Start+c.end || st.Failed != c.failed || st.BadBlocks != c.bad {
				t.Errorf("%+v", st)
			}
			// Whatever happened, the log can be thrown away and used again.
			if err := j.Clear(); err != nil {
				t.Fatal(err)
			}
			fs, st := open(t, dev, f.async, nil)
			if st != (jbd2.RecoverStats{}) {
				t.Errorf("recovered after Clear: %+v", st)
			}
			fs.set(map[uint64]uint64{30: 3})
			fs.commit()
			fs.set(map[uint64]uint64{31: 3})
			crashed := snapshot(t, dev)
			fs.crash()
			if _, st = open(t, crashed, f.async, nil); st.Replayed != 1 {
				t.Errorf("after Clear and a commit: %+v", st)
			}
		})
	}
}

func TestCommitSumPartial(t *testing.T) {
	dev := logged(t, csum3)
	edit(t, dev, txLen, func(p []byte) { p[17]++ }) // the checksum itself
	j, err := jbd2.Open(config(dev, false))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := j.Recover(replayer{dev}); !errors.Is(err, buffer.EUCLEAN) || !st.Failed || st.Replayed != 0 {
		t.Errorf("%+v %v", st, err)
	}
}

func TestHostileSuperblock(t *testing.T) {
	set := func(off int, v uint32) func([]byte) {
		return func(p []byte) { binary.BigEndian.PutUint32(p[off:], v) }
	}
	for _, c := range []struct {
		name   string
		f      formatCase
		change func([]byte)
		err    error
	}{
		{"magic", plain, set(0, 1), buffer.EUCLEAN},
		{"type", plain, set(4, 2), buffer.EUCLEAN},
		{"block size", plain, set(12, 4096), buffer.EUCLEAN},
		{"longer than its file", plain, set(16, logBlocks+1), buffer.EUCLEAN},
		{"huge", plain, set(16, 1<<32-1), buffer.EUCLEAN},
		{"no length", plain, set(16, 0), buffer.EUCLEAN},
		{"first is 0", plain, set(20, 0), buffer.EUCLEAN},
		{"first past the end", plain, set(20, logBlocks), buffer.EUCLEAN},
		{"start past the end", plain, set(28, logBlocks), buffer.EUCLEAN},
		{"start huge", plain, set(28, 1<<32-1), buffer.EUCLEAN},
		{"unknown incompat", plain, set(0x28, 0x40), syscall.EOPNOTSUPP},
		{"unknown ro_compat", plain, set(0x2c, 1), syscall.EOPNOTSUPP},
		{"v2 and v3", plain, set(0x28, jbd2.IncompatCsumV2|jbd2.IncompatCsumV3), buffer.EUCLEAN},
		{"checksum type", csum3, func(p []byte) { p[0x50] = 1 }, buffer.EUCLEAN},
		{"checksum", csum3, set(0x48, 7), buffer.EBADMSG},
		{"fast commits fill it", plain, func(p []byte) {
			set(0x28, jbd2.IncompatFastCommit)(p)
			set(0x54, logBlocks-1)(p)
		}, buffer.EUCLEAN},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := logged(t, c.f)
			edit(t, dev, 0, c.change)
			if _, err := jbd2.Open(config(dev, false)); !errors.Is(err, c.err) {
				t.Errorf("got %v, want %v", err, c.err)
			}
		})
	}
}

// TestEndless has logs whose end cannot be found by its sequence numbers.
func TestEndless(t *testing.T) {
	for _, typ := range []uint32{jbd2.DescriptorBlock, jbd2.RevokeBlock, jbd2.CommitBlock, 9} {
		dev := logged(t, plain)
		for n := uint32(1); n < logBlocks; n++ {
			edit(t, dev, n, func(p []byte) {
				clear(p)
				h := endian.View[jbd2.Header](p)
				h.Magic.Set(jbd2.Magic)
				h.BlockType.Set(typ)
				h.Sequence.Set(2)
				if typ == jbd2.CommitBlock {
					h.Sequence.Set(1 + n)
				}
			})
		}
		j, err := jbd2.Open(config(dev, false))
		if err != nil {
			t.Fatal(err)
		}
		st, err := j.Recover(replayer{dev})
		t.Logf("type %d: %+v, %v", typ, st, err)
	}
}

// fcArea writes tags into the fast commit area, with the tail's checksum if
// sum is set.
func fcArea(t *testing.T, dev blockdev.Device, first uint32, tid uint32, sum bool, tags ...string) {
	t.Helper()
	edit(t, dev, first, func(p []byte) {
		clear(p)
		crc := uint32(0)
		off := 0
		put := func(tag uint16, value []byte) []byte {
			h := endian.View[jbd2.FCTagHeader](p[off:])
			h.Tag.Set(tag)
			h.Len.Set(uint16(len(value)))
			copy(p[off+4:], value)
			raw := p[off : off+4+len(value)]
			off += len(raw)
			return raw
		}
		add := func(b []byte) { crc = ^crc32.Update(^crc, crc32.MakeTable(crc32.Castagnoli), b) }
		head := make([]byte, 8)
		binary.LittleEndian.PutUint32(head[4:], tid)
		add(put(jbd2.FCHead, head))
		for _, v := range tags {
			add(put(jbd2.FCInode, []byte(v)))
		}
		tail := make([]byte, 8)
		binary.LittleEndian.PutUint32(tail, tid)
		raw := put(jbd2.FCTail, tail)
		add(raw[:8])
		if sum {
			binary.LittleEndian.PutUint32(raw[8:], crc)
		}
	})
}

// fcReplayer collects the fast commits.
type fcReplayer struct {
	replayer
	got *[]string
}

func (r fcReplayer) FastCommit(tag uint16, value []byte) error {
	*r.got = append(*r.got, string(value))
	return nil
}

func TestFastCommits(t *testing.T) {
	f := formats[10]
	const area = logBlocks - 64 + 1
	for _, c := range []struct {
		name string
		tid  uint32 // beside the right one
		sum  bool
		want string
		err  error
	}{
		{"valid", 0, true, "one two", nil},
		{"of an older transaction", 1<<32 - 1, true, "", nil},
		{"of a later transaction", 1, true, "", nil},
		{"bad checksum", 0, false, "", buffer.EBADMSG},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := logged(t, f)
			j, err := jbd2.Open(config(dev, false))
			if err != nil {
				t.Fatal(err)
			}
			next := uint32(j.Info().Sequence) + 3
			fcArea(t, dev, area, next+c.tid, c.sum, "one", "two")
			fcArea(t, dev, area+1, next+1, true, "three") // left over
			var got []string
			_, err = j.Recover(fcReplayer{replayer{dev}, &got})
			if !errors.Is(err, c.err) || strings.Join(got, " ") != c.want {
				t.Errorf("got %q, %v", got, err)
			}
			if v := value(t, dev, 10); v != 300 {
				t.Errorf("log not replayed: %d", v)
			}
		})
	}
}

// FuzzRecover: no log makes recovery panic, hang or write where it may not.
func FuzzRecover(f *testing.F) {
	for i, c := range formats {
		dev := logged(f, c)
		at, _ := logMap(0)
		p := make([]byte, 24*bs)
		if _, err := dev.ReadAt(p, int64(at)*bs); err != nil {
			f.Fatal(err)
		}
		f.Add(p, i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, log []byte, fixSum bool) {
		dev := blockdev.NewMem(fsBlocks * bs)
		at, _ := logMap(0)
		if len(log) > 90*bs {
			return
		}
		if fixSum && len(log) >= 1024 { // to get past the superblock's checksum
			clear(log[0xfc:0x100])
			binary.BigEndian.PutUint32(log[0xfc:], ^crc32.Checksum(log[:1024], crc32.MakeTable(crc32.Castagnoli)))
		}
		if _, err := dev.WriteAt(log, int64(at)*bs); err != nil {
			t.Fatal(err)
		}
		j, err := jbd2.Open(config(dev, false))
		if err != nil {
			return
		}
		_, _ = j.Recover(guard{replayer{dev}, t})
	})
}

// guard fails the test if something is written into the log.
type guard struct {
	replayer
	t *testing.T
}

func (g guard) Write(blk uint64, data []byte) error {
	for i := range uint64(len(data) / bs) {
		if b := blk + i; b == 0 || b >= fsBlocks || b >= 2000 && b < 2000+11*150 && (b-2000)%150 < 100 && (b-2000)/150*100+(b-2000)%150 < logBlocks {
			g.t.Fatalf("block %d written", b)
		}
	}
	return g.replayer.Write(blk, data)
}
