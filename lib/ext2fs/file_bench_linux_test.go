package ext2fs

import (
	"errors"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
)

// benchFile returns an empty file on a fresh ext4 image in memory.
func benchFile(b *testing.B, spec testfs.Spec) (*FS, *Inode) {
	b.Helper()
	spec.Name = "bench"
	img := testfs.Mke2fs(b, spec)
	inos := makeFiles(b, img, 1)
	d, err := blockdev.Open(img.Path, blockdev.Options{Direct: blockdev.DirectOff})
	if err != nil {
		b.Fatal(err)
	}
	fs, err := Open(d, Options{})
	if err != nil {
		b.Fatal(err)
	}
	ip, err := fs.Iget(inos[0])
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ip.Put()
		if err := errors.Join(fs.Close(), d.Close()); err != nil {
			b.Error(err)
		}
	})
	return fs, ip
}

const benchSize = 64 << 20

func filled(b *testing.B) (*FS, *Inode) {
	fs, ip := benchFile(b, testfs.Spec{Size: 256 << 20})
	p := blockdev.AlignedBuf(1<<20, 4096)
	for off := int64(0); off < benchSize; off += 1 << 20 {
		if _, err := ip.WriteAt(p, off); err != nil {
			b.Fatal(err)
		}
	}
	return fs, ip
}

func BenchmarkRead4K(b *testing.B) {
	_, ip := filled(b)
	p := blockdev.AlignedBuf(4096, 4096)
	b.SetBytes(4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := ip.ReadAt(p, int64(i*7919%(benchSize/4096))*4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOverwrite4K(b *testing.B) {
	_, ip := filled(b)
	p := blockdev.AlignedBuf(4096, 4096)
	b.SetBytes(4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := ip.WriteAt(p, int64(i*7919%(benchSize/4096))*4096); err != nil {
			b.Fatal(err)
		}
	}
}

func benchAppend(b *testing.B, n int) {
	_, ip := benchFile(b, testfs.Spec{Size: 512 << 20})
	p := blockdev.AlignedBuf(n, 4096)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	off := int64(0)
	for b.Loop() {
		_, err := ip.WriteAt(p, off)
		if off += int64(n); err != nil || off > 256<<20 {
			if err != nil && !errors.Is(err, syscall.ENOSPC) {
				b.Fatal(err)
			}
			ip.mu.Lock()
			err = ip.truncateTo(0)
			ip.mu.Unlock()
			if err != nil {
				b.Fatal(err)
			}
			off = 0
		}
	}
}

func BenchmarkAppend4K(b *testing.B) { benchAppend(b, 4096) }
func BenchmarkAppend1M(b *testing.B) { benchAppend(b, 1<<20) }

// BenchmarkSparse4K writes blocks of a large hole in a scattered order, so that
// the tree grows.
func BenchmarkSparse4K(b *testing.B) {
	_, ip := benchFile(b, testfs.Spec{Size: 1 << 30})
	p := blockdev.AlignedBuf(4096, 4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := ip.WriteAt(p, int64(i%100000*7919%200003)*8192); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFallocated4K writes in a scattered order to unwritten blocks.
func BenchmarkFallocated4K(b *testing.B) {
	_, ip := benchFile(b, testfs.Spec{Size: 1 << 30})
	const blocks = 100003
	if err := ip.Fallocate(0, 0, blocks*4096); err != nil {
		b.Fatal(err)
	}
	p := blockdev.AlignedBuf(4096, 4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := ip.WriteAt(p, int64(i*7919%blocks)*4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMapRun(b *testing.B) {
	_, ip := filled(b)
	b.ReportAllocs()
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	for b.Loop() {
		ip.fm.forgetRuns()
		if _, err := ip.mapRun(77, 0); err != nil {
			b.Fatal(err)
		}
	}
}
