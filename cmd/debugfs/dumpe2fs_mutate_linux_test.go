package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

const (
	mutatedHeap = 64 << 20         // bytes: what a listing may allocate at once
	mutatedTime = 20 * time.Second // that a listing may take
)

// cutBuilder takes no more than it has room for: hostile images can have
// millions of groups to list.
type cutBuilder struct {
	strings.Builder
	left int
}

func (w *cutBuilder) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, fmt.Errorf("enough")
	}
	return w.Builder.Write(p)
}

// heapOf runs f and returns by how much the heap was larger at its end than
// before, with what is garbage of f.
func heapOf(f func()) uint64 {
	var a, b runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&a)
	f()
	runtime.ReadMemStats(&b)
	return b.HeapSys - min(b.HeapSys, a.HeapSys)
}

// TestDumpMutated lists mutated images, whose checksums are right: it does not
// die, hang or take much memory. E2KIT_MUTATED sets the number of images for
// each base. Listings are compared with C's, as long as that does not die.
func TestDumpMutated(t *testing.T) {
	n := 30
	if s := os.Getenv("E2KIT_MUTATED"); s != "" {
		n, _ = strconv.Atoi(s)
	} else if testing.Short() {
		n = 6
	}
	testfs.NeedRoot(t)
	dir := testfs.Scratch(t)
	path := filepath.Join(dir, "image")
	total, same, died, random := 0, 0, 0, 0
	for _, img := range testfs.MutationBases(t) {
		m, err := testfs.NewMutator(img.Path)
		if err != nil {
			t.Fatal(err)
		}
		for seed := range uint64(n) {
			dev, what := m.Mutate(seed)
			writeImage(t, path, dev)
			for _, args := range [][]string{{"dumpe2fs"}, {"dumpe2fs", "-fg"}, {"dumpe2fs", "-b", "-o", "sb=8193"}, {"debugfs", "-c", "-R", "stats"},
				{"debugfs", "-c", "-R", "logdump -ac"}, {"debugfs", "-c", "-R", "logdump -O"}, {"debugfs", "-n", "-R", "logdump -S -b 260"}, {"debugfs", "-R", "logdump -i <12>"}} {
				total++
				out := &cutBuilder{left: 32 << 20}
				var msg strings.Builder
				status := 0
				start := time.Now()
				heap := heapOf(func() { status = run(append(args, path), strings.NewReader(""), out, &msg) })
				if heap > mutatedHeap || time.Since(start) > mutatedTime {
					t.Errorf("%s, %s: %v: %d MiB, %v", img.Spec.Name, what, args, heap>>20, time.Since(start))
				}
				if args[0] != "dumpe2fs" || slices.Contains(args, "-b") {
					continue
				}
				want, wantStatus := testfs.Listing(t, "dumpe2fs", append(args[1:], path)...)
				switch d := testfs.FirstDiff(testfs.SameListing(t, want, clusterOf(t, path)), out.String()); {
				case wantStatus < 0:
					died++
				case d == "" && status == wantStatus:
					same++
				case status == wantStatus && unreliable(t, path, args[1:], want):
					random++
				default:
					t.Errorf("%s, %s: %v: status %d, C has %d: %s%s", img.Spec.Name, what, args, status, wantStatus, msg.String(), d)
				}
			}
		}
	}
	t.Logf("%d listings, %d like C's, which died %d times and could not be compared with %d times", total, same, died, random)
}

// farTimes says that the superblock has times that take more than 32 bits.
func farTimes(t *testing.T, path string) bool {
	if st, err := os.Stat(path); err != nil || st.Size() < ondisk.SuperOffset+ondisk.SuperSize {
		return false // it was cut off
	}
	s := superOf(t, path)
	return s.WtimeHi[0]|s.MtimeHi[0]|s.MkfsTimeHi[0]|s.LastcheckHi[0]|s.FirstErrorTimeHi[0]|s.LastErrorTimeHi[0] != 0
}

// unreliable says that C cannot be compared with: it is too old for the
// superblock, or does not print the same each time, since it shows memory that
// it has not set where a bitmap is empty.
func unreliable(t *testing.T, path string, args []string, out string) bool {
	t.Helper()
	if testfs.OldListing(t) && farTimes(t, path) {
		return true
	}
	for range 4 {
		if again, _ := testfs.Listing(t, "dumpe2fs", append(args, path)...); again != out {
			return true
		}
	}
	return false
}

func writeImage(t *testing.T, path string, dev blockdev.Device) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err = f.Truncate(dev.Size()); err == nil {
		err = blockdev.Copy(f, dev)
	}
	if err != nil {
		t.Fatal(err)
	}
}
