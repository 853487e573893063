package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
)

// BenchmarkMake makes file systems on sparse files by C mke2fs and by our
// binary, each a process of its own, and tells what the files then take.
func BenchmarkMake(b *testing.B) {
	dir := testfs.Scratch(b)
	ours := filepath.Join(dir, "mke2fs")
	if out, err := exec.Command("go", "build", "-o", ours, ".").CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	for _, x := range []struct {
		name string
		size int64
	}{{"1GiB", 1 << 30}, {"100GiB", 100 << 30}, {"8TiB", 8 << 40}} {
		for _, who := range []struct{ name, tool string }{{"c", testfs.Tool(b, "mke2fs")}, {"ours", ours}} {
			b.Run(x.name+"/"+who.name, func(b *testing.B) {
				img := filepath.Join(dir, "image")
				for b.Loop() {
					b.StopTimer()
					os.Remove(img)
					if err := os.WriteFile(img, nil, 0o600); err != nil {
						b.Fatal(err)
					}
					if err := os.Truncate(img, x.size); err != nil {
						b.Skip(err)
					}
					b.StartTimer()
					if out, err := exec.Command(who.tool, "-q", "-F", "-t", "ext4", img).CombinedOutput(); err != nil {
						b.Fatalf("%v\n%s", err, out)
					}
				}
				var st unix.Stat_t
				if err := unix.Stat(img, &st); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(st.Blocks)/2, "KiB-written")
			})
		}
	}
}
