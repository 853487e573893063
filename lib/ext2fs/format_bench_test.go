package ext2fs

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// sink is a device that takes everything and keeps nothing.
type sink struct {
	size    int64
	written int64
}

func (s *sink) ReadAt(p []byte, off int64) (int, error) { clear(p); return len(p), nil }
func (s *sink) WriteAt(p []byte, off int64) (int, error) {
	s.written += int64(len(p))
	return len(p), nil
}
func (s *sink) Size() int64                { return s.size }
func (s *sink) Sync() error                { return nil }
func (s *sink) Discard(off, n int64) error { return nil }
func (s *sink) ZeroOut(off, n int64) error { return nil }
func (s *sink) Close() error               { return nil }
func (s *sink) Info() blockdev.Info {
	return blockdev.Info{LogicalBlock: 512, PhysicalBlock: 512, DiscardGranularity: 512, ZeroAfterDiscard: true}
}

// BenchmarkFormat measures the making of a file system without its device.
func BenchmarkFormat(b *testing.B) {
	for _, size := range []int64{1 << 30, 100 << 30, 8 << 40} {
		b.Run(fmt.Sprintf("%dGiB", size>>30), func(b *testing.B) {
			b.ReportAllocs()
			var written int64
			for b.Loop() {
				dev := &sink{size: size}
				o := DefaultFormat()
				o.Inodes = uint32(min(size/16384, 1<<32-1))
				if size >= 4<<40 {
					o.Inodes = uint32(size / 32768)
				}
				if _, err := Format(dev, o); err != nil {
					b.Fatal(err)
				}
				written = dev.written
			}
			b.ReportMetric(float64(written)/(1<<20), "MiB-written")
		})
	}
}

// TestFormatHuge makes the largest file systems: memory follows what is used.
func TestFormatHuge(t *testing.T) {
	for _, x := range []struct {
		size    int64
		block   int
		cluster int
		most    uint64 // bytes of heap
	}{
		{1 << 60, 65536, 256 << 20, 64 << 20},
		{1 << 60, 4096, 64 << 20, 128 << 20},
		{64 << 40, 4096, 0, 64 << 20},
	} {
		o := DefaultFormat()
		o.BlockSize, o.Inodes, o.Compat = x.block, 1<<24, o.Compat&^ondisk.CompatResizeInode
		if x.cluster != 0 {
			o.ROCompat |= ondisk.ROCompatBigalloc
			o.ClusterSize = x.cluster
		}
		var peak uint64
		o.Progress = func(s Stage, done, total uint64) {
			if done&0x3fff == 0 {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapAlloc)
			}
		}
		dev := &sink{size: x.size}
		r, err := Format(dev, o)
		if err != nil {
			t.Errorf("%d bytes, blocks of %d: %v", x.size, x.block, err)
			continue
		}
		if b := r.Super.BlocksCount(); b > uint64(x.size)/uint64(x.block) || b < uint64(x.size)/uint64(x.block)/10*9 {
			t.Errorf("%d bytes: %d blocks", x.size, b)
		}
		t.Logf("%d bytes, blocks of %d: %d groups, %d MiB written, %d MiB of heap", x.size, x.block, r.Groups, dev.written>>20, peak>>20)
		if peak > x.most {
			t.Errorf("%d bytes: %d bytes of heap", x.size, peak)
		}
	}
}
