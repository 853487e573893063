package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
)

// hostileRequests are what is asked of a damaged image; %i is an inode, %b a
// block, %d a directory.
var hostileRequests = []string{
	"params", "feature", "ls -l /", "ls -d -c %d", "ls -p %d", "stat %i", "ex %i", "blocks %i", "bmap %i 7", "filefrag -v %i", "filefrag -r /",
	"testi %i", "testb %b 5", "ffb 3 %b", "ffi %i", "lsdel", "imap %i", "ncheck 12 13 %b", "ncheck -c 12 13", "icheck %b 100 2000", "htree %d",
	"dirsearch %d nothing", "ea_list %i", "ea_get %i user.name0", "bd %b", "bd -x %b", "bd -f %i 3", "idump %i", "idump -x %i", "cat %i",
	"pwd", "cd %d", "pwd", "freefrag -c 64", "dump_mmp", "dump_mmp %b", "lq user", "lq project", "gq group 5",
	"eo %i", "root", "all", "last_leaf", "all --reverse", "goto 100", "info", "ec", "cd /big/../a/b", "stat /a/b/up/x",
	"rdump / -", "rdump %i -", "du /", "find -n *1 /", "grep x /", "recover",
	"stats", "stats -h", "supported_features", "orphan", "dump_unused", "dump %i /dev/null", "ls -r %d", "idump -b %i", "idump -e %i",
	"logdump", "logdump -a -O -c", "logdump -S -s", "logdump -O -n 2 -b %b", "logdump -O -i %i", "lq group", "gq user 0", "icheck %b", "ncheck %b",
}

// memoryLimit is what reading any image may take, in bytes.
const memoryLimit = 256 << 20

// TestHostile has commands that read look at mutated images: without a panic,
// without an end that does not come, without more than 256 MiB of memory.
func TestHostile(t *testing.T) {
	testfs.NeedRoot(t)
	images := 300
	if v := os.Getenv("E2KIT_MUTATED_IMAGES"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatal(err)
		}
		images = n
	}
	bases := testfs.MutationBases(t)
	for _, img := range bases {
		img := img
		t.Run(img.Spec.Name, func(t *testing.T) {
			m, err := testfs.NewMutator(img.Path)
			if err != nil {
				t.Fatal(err)
			}
			opened := 0
			for seed := range uint64((images + len(bases) - 1) / len(bases)) {
				dev, what := m.Mutate(seed)
				if lookAt(t, dev, what, seed) {
					opened++
				}
			}
			t.Logf("%d opened", opened)
		})
	}
}

// lookAt runs the requests on dev, and says whether it could be opened.
func lookAt(t *testing.T, dev blockdev.Device, what string, seed uint64) bool {
	defer func() {
		if e := recover(); e != nil {
			t.Fatalf("%s: panic: %v", what, e)
		}
	}()
	s := newSession(strings.NewReader(""), &limitWriter{}, io.Discard)
	s.json = seed%3 == 0
	if err := s.attach(keepOpen{dev}, "image", openOpts{noCsum: seed%2 == 0}); err != nil {
		return false
	}
	defer s.close(false)
	rng := rand.New(rand.NewPCG(seed, 1))
	inode := func() string {
		list := []string{"/", "/big", "/fragmented", "/attrs3", "/link300", "<8>", "<7>", "/device"}
		if rng.IntN(3) == 0 {
			return fmt.Sprintf("<%d>", 1+rng.IntN(int(min(s.raw.Inodes(), 500))))
		}
		return list[rng.IntN(len(list))]
	}
	var base runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&base)
	for _, r := range hostileRequests {
		r = strings.ReplaceAll(r, "%i", inode())
		r = strings.ReplaceAll(r, "%d", []string{"/", "/big", inode()}[rng.IntN(3)])
		r = strings.ReplaceAll(r, "%b", fmt.Sprint(rng.Int64N(int64(min(s.raw.Blocks(), 1<<40)))))
		var full, late atomic.Bool
		s.out.Reset(&limitWriter{left: 8 << 20, full: &full})
		stop := time.Now().Add(30 * time.Second)
		s.interrupted = func() bool {
			if time.Now().After(stop) {
				late.Store(true)
			}
			return late.Load() || full.Load()
		}
		s.execute(r)
		if late.Load() || time.Now().After(stop) {
			t.Fatalf("%s: %q has no end", what, r)
		}
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		if mem.HeapAlloc > base.HeapAlloc+memoryLimit {
			runtime.GC()
			runtime.ReadMemStats(&mem)
			if mem.HeapAlloc > base.HeapAlloc+memoryLimit {
				t.Fatalf("%s: %q takes %d MiB", what, r, (mem.HeapAlloc-base.HeapAlloc)>>20)
			}
		}
	}
	return true
}

// keepOpen is a device that others use after the session has closed it.
type keepOpen struct{ blockdev.Device }

func (keepOpen) Close() error { return nil }

// limitWriter takes so many bytes and then asks its session to stop: a listing
// of a file of many terabytes has no end that anybody waits for.
type limitWriter struct {
	left int
	full *atomic.Bool
}

func (w *limitWriter) Write(p []byte) (int, error) {
	w.left -= len(p)
	if w.left < 0 && w.full != nil {
		w.full.Store(true)
	}
	return len(p), nil
}
