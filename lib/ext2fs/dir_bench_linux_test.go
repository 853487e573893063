package ext2fs

import (
	"fmt"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// BenchmarkDir measures directories of 50,000 names: indexed ones, and for
// comparison one of 2,000 without an index.
func BenchmarkDir(b *testing.B) {
	for _, c := range []struct {
		name string
		s    testfs.Spec
		n    int
	}{
		{"4k", testfs.Spec{}, 50000},
		{"1k-nocsum", testfs.Spec{BlockSize: 1024, Features: "^metadata_csum"}, 50000},
		{"linear", testfs.Spec{Features: "^dir_index"}, 2000},
	} {
		b.Run(c.name, func(b *testing.B) { benchDir(b, c.s, c.n) })
	}
}

func benchDir(b *testing.B, s testfs.Spec, n int) {
	mem := memImage(b, dirImage(b, s))
	fs, err := Open(mem, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer fs.Close()
	dp, files := openDir(b, fs)
	defer dp.Put()
	defer files[1].Put()
	defer files[0].Put()
	names := make([][]byte, n)
	for i := range names {
		names[i] = fmt.Appendf(nil, "file-number-%08d", i)
	}
	change := func(b *testing.B, f func(i int)) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			f(i)
			i = (i + 1) % n
		}
	}
	b.Run("add", func(b *testing.B) {
		have := 0
		change(b, func(i int) {
			if i == 0 && have > 0 { // all are there
				b.StopTimer()
				for _, name := range names {
					h, err := fs.start(creditsInode + 1)
					if err != nil {
						b.Fatal(err)
					}
					if err := fs.dirRemove(h, dp, name); err != nil {
						b.Fatal(err)
					}
					h.Stop()
				}
				b.StartTimer()
			}
			h, err := fs.start(fs.dirAddCredits(dp))
			if err != nil {
				b.Fatal(err)
			}
			if err := fs.dirAdd(h, dp, names[i], files[0].ino, ondisk.FTReg); err != nil {
				b.Fatal(err)
			}
			h.Stop()
			have = i + 1
		})
	})
	for _, name := range names { // those that add has not, or has not run for
		if _, _, err := fs.dirLookup(dp, name); err == nil {
			continue
		}
		h, err := fs.start(fs.dirAddCredits(dp))
		if err != nil {
			b.Fatal(err)
		}
		if err := fs.dirAdd(h, dp, name, files[0].ino, ondisk.FTReg); err != nil {
			b.Fatal(err)
		}
		h.Stop()
	}
	b.Run("lookup", func(b *testing.B) {
		change(b, func(i int) {
			if _, _, err := fs.dirLookup(dp, names[i*7919%n]); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("replace", func(b *testing.B) {
		change(b, func(i int) {
			h, err := fs.start(creditsInode + 1)
			if err != nil {
				b.Fatal(err)
			}
			if err := fs.dirReplace(h, dp, names[i*7919%n], files[i&1].ino, ondisk.FTReg); err != nil {
				b.Fatal(err)
			}
			h.Stop()
		})
	})
	b.Run("readdir", func(b *testing.B) {
		b.ReportAllocs()
		read := 0
		for b.Loop() {
			read = 0
			if err := fs.Readdir(dp, 0, func([]byte, ondisk.Ino, uint8, uint64) bool {
				read++
				return true
			}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(read), "ns/entry")
	})
}
