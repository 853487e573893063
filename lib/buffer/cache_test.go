package buffer_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
)

const bs = 1024

// summed is a kind whose last 4 bytes are a checksum of the rest and the seed.
type summed struct{ name string }

func (s summed) Name() string { return s.name }

func (s summed) sum(data []byte, ctx buffer.Ctx) uint32 {
	return crc32.Update(ctx.Seed, crc32.IEEETable, append([]byte(s.name), data[:len(data)-4]...))
}

func (s summed) Verify(data []byte, blk buffer.Block, ctx buffer.Ctx) error {
	if binary.LittleEndian.Uint32(data[len(data)-4:]) != s.sum(data, ctx) {
		return fmt.Errorf("%s: block %d: %w", s.name, blk, buffer.EBADMSG)
	}
	return nil
}

func (s summed) Seal(data []byte, blk buffer.Block, ctx buffer.Ctx) {
	binary.LittleEndian.PutUint32(data[len(data)-4:], s.sum(data, ctx))
}

// anything is a kind that is never wrong.
type anything struct{}

func (anything) Name() string                                  { return "anything" }
func (anything) Verify([]byte, buffer.Block, buffer.Ctx) error { return nil }
func (anything) Seal([]byte, buffer.Block, buffer.Ctx)         {}

// counting counts the reads below it.
type counting struct {
	blockdev.Device
	reads atomic.Int64
	fail  atomic.Bool
}

func (d *counting) ReadAt(p []byte, off int64) (int, error) {
	d.reads.Add(1)
	if d.fail.Load() {
		return 0, errors.New("broken")
	}
	return d.Device.ReadAt(p, off)
}

func device(t testing.TB, blocks int) *counting {
	t.Helper()
	dev := blockdev.NewMem(int64(blocks) * bs)
	p := make([]byte, bs)
	for i := range blocks {
		binary.LittleEndian.PutUint64(p, uint64(i))
		if _, err := dev.WriteAt(p, int64(i)*bs); err != nil {
			t.Fatal(err)
		}
	}
	return &counting{Device: dev}
}

func number(b *buffer.Buf) uint64 { return binary.LittleEndian.Uint64(b.Data()) }

func TestReadOnce(t *testing.T) {
	dev := device(t, 100)
	c := buffer.New(dev, buffer.Options{BlockSize: bs})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range buffer.Block(100) {
				b, err := c.Read(i, anything{}, buffer.Ctx{})
				if err != nil {
					t.Error(err)
					return
				}
				if number(b) != uint64(i) {
					t.Errorf("block %d has %d", i, number(b))
				}
				b.Put()
			}
		})
	}
	wg.Wait()
	if n := dev.reads.Load(); n != 100 {
		t.Errorf("%d device reads for 100 blocks", n)
	}
}

func TestKinds(t *testing.T) {
	dev := device(t, 10)
	c := buffer.New(dev, buffer.Options{BlockSize: bs})
	x, y := summed{"x"}, summed{"y"}
	ctx := buffer.Ctx{Seed: 7, Ino: 12}

	if _, err := c.Read(3, x, ctx); !errors.Is(err, buffer.EBADMSG) {
		t.Fatalf("bad checksum: %v", err)
	}
	b, err := c.Raw(3) // a failed verification leaves the bytes readable
	if err != nil || number(b) != 3 {
		t.Fatal(err)
	}
	b.Put()

	b, err = c.New(3, x, ctx)
	if err != nil {
		t.Fatal(err)
	}
	if number(b) != 0 {
		t.Fatal("New did not zero")
	}
	img := make([]byte, bs)
	b.SealTo(img)
	if _, err := dev.WriteAt(img, 3*bs); err != nil {
		t.Fatal(err)
	}
	b.Put()
	c.Forget(3, 1)

	if b, err = c.Read(3, x, ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(3, y, ctx); !errors.Is(err, buffer.EBADMSG) {
		t.Fatalf("as another kind: %v", err)
	}
	if _, err := c.Read(3, x, buffer.Ctx{Seed: 8, Ino: 13}); !errors.Is(err, buffer.EBADMSG) {
		t.Fatalf("of another owner: %v", err)
	}
	b.Journal().Flags.Store(1)
	if _, err := c.Read(3, anything{}, ctx); !errors.Is(err, buffer.EUCLEAN) {
		t.Fatalf("as another kind while in a transaction: %v", err)
	}
	b.Journal().Flags.Store(0)
	b.Put()
}

func TestUnsealedChangeOfKind(t *testing.T) {
	// What was changed here has no checksum in memory; read as another kind it
	// is judged by the checksum it would have had.
	c := buffer.New(device(t, 10), buffer.Options{BlockSize: bs})
	b, err := c.New(1, summed{"x"}, buffer.Ctx{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Put()
	b2, err := c.Read(1, verifyX{}, buffer.Ctx{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	b2.Put()
}

// verifyX is another kind with the checksum of summed{"x"}.
type verifyX struct{ anything }

func (verifyX) Verify(data []byte, blk buffer.Block, ctx buffer.Ctx) error {
	return summed{"x"}.Verify(data, blk, ctx)
}

func TestReadErrorIsNotCached(t *testing.T) {
	dev := device(t, 10)
	c := buffer.New(dev, buffer.Options{BlockSize: bs})
	dev.fail.Store(true)
	if _, err := c.Read(1, anything{}, buffer.Ctx{}); err == nil {
		t.Fatal("no error")
	}
	if b := c.Peek(1); b != nil {
		t.Fatal("Peek found a block that was not read")
	}
	dev.fail.Store(false)
	b, err := c.Read(1, anything{}, buffer.Ctx{})
	if err != nil {
		t.Fatal(err)
	}
	b.Put()
	for _, blk := range []buffer.Block{10, 1 << 50, 1<<64 - 1} {
		if _, err := c.Read(blk, anything{}, buffer.Ctx{}); !errors.Is(err, buffer.EUCLEAN) {
			t.Errorf("block %d: %v", blk, err)
		}
	}
}

func TestLimit(t *testing.T) {
	dev := device(t, 4096)
	c := buffer.New(dev, buffer.Options{BlockSize: bs, Limit: 100 * bs})
	hot, err := c.Read(5, anything{}, buffer.Ctx{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range buffer.Block(4096) {
		b, err := c.Raw(i)
		if err != nil {
			t.Fatal(err)
		}
		b.Put()
	}
	if st := c.Stats(); st.Blocks > 100 {
		t.Fatalf("%d blocks, 100 allowed", st.Blocks)
	}
	if number(hot) != 5 {
		t.Fatal("a pinned block was evicted")
	}
	hot.Put()

	// Pins may exceed the limit; afterwards it holds again.
	var asked atomic.Int64
	c.OnPressure(func() { asked.Add(1) })
	var pinned []*buffer.Buf
	for i := range buffer.Block(300) {
		b, err := c.Raw(i)
		if err != nil {
			t.Fatal(err)
		}
		pinned = append(pinned, b)
	}
	for i, b := range pinned {
		if number(b) != uint64(i) {
			t.Fatalf("block %d has %d", i, number(b))
		}
		b.Put()
	}
	if asked.Load() == 0 {
		t.Error("nobody was asked to write back")
	}
	for i := range buffer.Block(4096) {
		b, err := c.Raw(i)
		if err != nil {
			t.Fatal(err)
		}
		b.Put()
	}
	if st := c.Stats(); st.Blocks > 100 {
		t.Fatalf("%d blocks after the pins went, 100 allowed", st.Blocks)
	}
	c.SetLimit(64 * bs)
	if st := c.Stats(); st.Blocks > 64 {
		t.Fatalf("%d blocks, 64 allowed", st.Blocks)
	}
}

func TestForgetPinned(t *testing.T) {
	dev := device(t, 100)
	c := buffer.New(dev, buffer.Options{BlockSize: bs})
	b, err := c.Raw(7)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{1, 1 << 40} {
		c.Forget(7, n)
		if o := c.Peek(7); o != nil {
			t.Fatal("still cached")
		}
		if number(b) != 7 {
			t.Fatal("contents lost under a pin")
		}
		b.Put()
		if b, err = c.Raw(7); err != nil {
			t.Fatal(err)
		}
	}
	b.Put()
	if st := c.Stats(); st.Blocks != 1 {
		t.Errorf("%d blocks in memory", st.Blocks)
	}
}

func TestReadahead(t *testing.T) {
	dev := device(t, 3000)
	c := buffer.New(dev, buffer.Options{BlockSize: bs, Limit: 16 << 20})
	b, err := c.Raw(1500)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Put()
	dev.reads.Store(0)
	c.Readahead(1000, 1<<30)
	if n := dev.reads.Load(); n > 4 {
		t.Errorf("%d device reads for 2 MB", n)
	}
	dev.reads.Store(0)
	for i := buffer.Block(1000); i < 3000; i++ {
		b, err := c.Raw(i)
		if err != nil {
			t.Fatal(err)
		}
		if number(b) != uint64(i) {
			t.Fatalf("block %d has %d", i, number(b))
		}
		b.Put()
	}
	if n := dev.reads.Load(); n != 0 {
		t.Errorf("%d reads after readahead", n)
	}
	c.Readahead(5000, 5)
}

func TestStress(t *testing.T) {
	dev := device(t, 2000)
	c := buffer.New(dev, buffer.Options{BlockSize: bs, Limit: 128 * bs})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(g)))
			for range 20000 {
				blk := buffer.Block(rnd.IntN(2000))
				switch rnd.IntN(20) {
				case 0:
					c.Forget(blk, uint64(rnd.IntN(300)))
				case 1:
					c.Readahead(blk, 50)
				case 2:
					if b := c.Peek(blk); b != nil {
						if number(b) != uint64(blk) {
							t.Errorf("block %d has %d", blk, number(b))
						}
						b.Put()
					}
				default:
					b, err := c.Read(blk, anything{}, buffer.Ctx{})
					if err != nil {
						t.Error(err)
						return
					}
					if number(b) != uint64(blk) || b.Block() != blk {
						t.Errorf("block %d has %d", blk, number(b))
					}
					b.Put()
				}
			}
		})
	}
	wg.Wait()
	if st := c.Stats(); st.Blocks > 128 {
		t.Errorf("%d blocks, 128 allowed", st.Blocks)
	}
}

func BenchmarkHit(b *testing.B) {
	c := buffer.New(device(b, 1000), buffer.Options{BlockSize: bs})
	for i := range buffer.Block(1000) {
		o, _ := c.Read(i, anything{}, buffer.Ctx{})
		o.Put()
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		o, _ := c.Read(buffer.Block(i%1000), anything{}, buffer.Ctx{Seed: 1})
		o.Put()
	}
}

func BenchmarkHitParallel(b *testing.B) {
	c := buffer.New(device(b, 1000), buffer.Options{BlockSize: bs})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			o, _ := c.Read(buffer.Block(i%1000), anything{}, buffer.Ctx{})
			o.Put()
		}
	})
}

func BenchmarkMiss(b *testing.B) {
	c := buffer.New(device(b, 4096), buffer.Options{BlockSize: bs, Limit: 64 * bs})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		o, _ := c.Read(buffer.Block(i%4096), anything{}, buffer.Ctx{})
		o.Put()
	}
}
