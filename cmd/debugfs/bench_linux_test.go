package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// BenchmarkCommands runs commands beside C debugfs, both as programs, on an
// image of 50,000 files.
func BenchmarkCommands(b *testing.B) {
	dir := testfs.Scratch(b)
	src := filepath.Join(dir, "src")
	content := make([]byte, 12000)
	for d := range 500 {
		p := filepath.Join(src, fmt.Sprint("directory", d))
		if err := os.MkdirAll(p, 0o755); err != nil {
			b.Fatal(err)
		}
		for f := range 100 {
			if err := os.WriteFile(filepath.Join(p, fmt.Sprint("file", f)), content[:2000+(f*97)%9000], 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	img := filepath.Join(dir, "image")
	testfs.Run(b, "go", "run", "../mkfs", "-q", "-F", "-t", "ext4", "-d", src, img, "1500M")
	ours := filepath.Join(dir, "debugfs")
	testfs.Run(b, "go", "build", "-o", ours, ".")
	out := filepath.Join(dir, "out")
	for _, req := range []string{"rdump / " + out, "ncheck 50000 50300", "icheck 300000", "lsdel"} {
		for name, tool := range map[string]string{"C": testfs.Tool(b, "debugfs"), "ours": ours} {
			b.Run(req[:5]+"/"+name, func(b *testing.B) {
				for range b.N {
					b.StopTimer()
					testfs.Run(b, "sh", "-c", `rm -rf "$1" && mkdir "$1"`, "sh", out)
					b.StartTimer()
					if o, err := exec.Command(tool, "-R", req, img).CombinedOutput(); err != nil {
						b.Fatalf("%v: %s", err, o)
					}
				}
			})
		}
	}
}
