package populate

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
)

// BenchmarkDir fills images from the same folders as C mke2fs -d does, one
// after the other. The image that ours fills is made by mke2fs too, which is
// counted.
func BenchmarkDir(b *testing.B) {
	mke2fs := testfs.Tool(b, "mke2fs")
	for _, bb := range []struct {
		name  string
		files int
		size  func(i int) int
		image string
	}{
		{"50000-small", 50000, func(i int) int { return 700 + i%500*10 }, "600M"},
		{"2GiB", 64, func(i int) int { return 32 << 20 }, "2400M"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			at := testfs.Scratch(b)
			src := filepath.Join(at, "src")
			for i := range bb.files {
				dir := filepath.Join(src, fmt.Sprintf("d%03d", i/500))
				if err := os.MkdirAll(dir, 0o755); err != nil {
					b.Fatal(err)
				}
				data := make([]byte, bb.size(i))
				rand.Read(data)
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%05d", i)), data, 0o644); err != nil {
					b.Fatal(err)
				}
			}
			var ours, theirs time.Duration
			for b.Loop() {
				os.Remove(filepath.Join(at, "img"))
				start := time.Now()
				c := exec.Command(mke2fs, "-q", "-F", "-t", "ext4", "-N", "60000", "-d", src, filepath.Join(at, "img"), bb.image)
				if out, err := c.CombinedOutput(); err != nil {
					b.Fatal(err, string(out))
				}
				theirs += time.Since(start)
				os.Remove(filepath.Join(at, "img"))
				start = time.Now()
				c = exec.Command(mke2fs, "-q", "-F", "-t", "ext4", "-N", "60000", filepath.Join(at, "img"), bb.image)
				if out, err := c.CombinedOutput(); err != nil {
					b.Fatal(err, string(out))
				}
				if _, err := tryFill(b.Context(), filepath.Join(at, "img"), Dir(src), Options{}); err != nil {
					b.Fatal(err)
				}
				ours += time.Since(start)
			}
			if err := testfs.E2fsck(b, filepath.Join(at, "img"), ""); err != nil {
				b.Error(err)
			}
			b.ReportMetric(ours.Seconds()/float64(b.N), "s/ours")
			b.ReportMetric(theirs.Seconds()/float64(b.N), "s/mke2fs")
			b.ReportMetric(theirs.Seconds()/ours.Seconds(), "×")
		})
	}
}
