package ext2fs

import (
	"fmt"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
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
