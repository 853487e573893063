//go:build linux

package testfs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// prepareJournaled makes empty files whose data is journaled; the flag takes a
// capability that root in a container lacks.
func prepareJournaled(t testing.TB, img *Image) {
	t.Helper()
	empty := filepath.Join(Scratch(t), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var commands []string
	for i := range 20 {
		commands = append(commands, fmt.Sprintf("write %s journaled%d", empty, i),
			fmt.Sprintf("sif journaled%d flags 0x84000", i)) // extents, journaled data
	}
	debugfs(t, img, commands...)
}

// debugfs runs commands of C debugfs on the image.
func debugfs(t testing.TB, img *Image, commands ...string) string {
	t.Helper()
	f := filepath.Join(Scratch(t), "commands")
	if err := os.WriteFile(f, []byte(strings.Join(commands, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Run(t, "debugfs", "-w", "-f", f, img.Path)
}

// fsckQuietly has e2fsck recover the image, for a craft to start from.
func fsckQuietly(t testing.TB, img *Image) {
	t.Helper()
	if out, err := tryRun(t, "e2fsck", "-fy", img.Path); err != nil && !strings.Contains(out, "WERE MODIFIED") &&
		!strings.Contains(out, "MODIFIED") && !strings.Contains(out, "clean") && !strings.Contains(out, "files") {
		t.Fatalf("e2fsck -fy: %v\n%s", err, out)
	}
}

// craftJournal has debugfs write transactions with checksums of a version that
// the kernel no longer makes: new contents for blocks of a file, and revoke
// records for one of them.
func craftJournal(version string) func(testing.TB, *Image) {
	return func(t testing.TB, img *Image) {
		t.Helper()
		fsckQuietly(t, img)
		var blocks []string
		out := debugfs(t, img, "bmap large0 10", "bmap large0 11", "bmap large0 12", "bmap large1 5")
		for l := range strings.Lines(out) {
			var b uint64
			if n, _ := fmt.Sscan(strings.TrimSpace(l), &b); n == 1 && b > 0 {
				blocks = append(blocks, fmt.Sprint(b))
			}
		}
		if len(blocks) != 4 {
			t.Fatalf("debugfs bmap: %s", out)
		}
		dir := Scratch(t)
		file := func(name, text string, n int) string {
			p := filepath.Join(dir, name)
			if err := os.WriteFile(p, bytes.Repeat([]byte(text), n*4096/len(text)), 0o600); err != nil {
				t.Fatal(err)
			}
			return p
		}
		one := file("one", "first transaction!..............", 4)
		two := file("two", "second transaction..............", 1)
		lost := file("lost", "never committed.................", 1)
		debugfs(t, img,
			"jo -c -v "+version,
			"jw -b "+strings.Join(blocks, ",")+" "+one,
			"jw -r "+blocks[1],
			"jw -b "+blocks[2]+" "+two,
			"jw -c -b "+blocks[3]+" "+lost,
			"jc")
	}
}

// craftTruncate leaves files on the orphan list that have names: the kernel was
// about to cut them to their size.
func craftTruncate(t testing.TB, img *Image) {
	t.Helper()
	fsckQuietly(t, img)
	var inos [2]uint32
	for i := range inos {
		out := debugfs(t, img, fmt.Sprintf("stat large%d", i))
		_, rest, _ := strings.Cut(out, "Inode: ")
		if n, _ := fmt.Sscan(rest, &inos[i]); n != 1 {
			t.Fatalf("debugfs stat: %s", out)
		}
	}
	debugfs(t, img,
		"sif large0 size 5000", fmt.Sprintf("sif large0 dtime %d", inos[1]),
		"sif large1 size 1000001", "sif large1 dtime 0",
		fmt.Sprintf("ssv last_orphan %d", inos[0]))
}
