package ext2fs

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// dirModel is a directory and what ought to be in it.
type dirModel struct {
	t     testing.TB
	fs    *FS
	dp    *Inode
	names map[string]ondisk.Ino
}

func (m *dirModel) add(name string, ino ondisk.Ino) error {
	m.t.Helper()
	m.dp.mu.Lock()
	defer m.dp.mu.Unlock()
	h, err := m.fs.start(m.fs.dirAddCredits(m.dp))
	if err != nil {
		m.t.Fatal(err)
	}
	err = m.fs.dirAdd(h, m.dp, []byte(name), ino, ondisk.FTReg)
	if e := h.Stop(); e != nil {
		m.t.Fatal(e)
	}
	if err == nil {
		m.names[name] = ino
	}
	return err
}

func (m *dirModel) remove(name string) {
	m.t.Helper()
	m.dp.mu.Lock()
	defer m.dp.mu.Unlock()
	h, err := m.fs.start(creditsInode + 1)
	if err != nil {
		m.t.Fatal(err)
	}
	err = m.fs.dirRemove(h, m.dp, []byte(name))
	if e := h.Stop(); e != nil || err != nil {
		m.t.Fatalf("remove %q: %v, %v", name, err, e)
	}
	delete(m.names, name)
}

// check compares lookups and a reading of the whole directory with the model.
func (m *dirModel) check() {
	m.t.Helper()
	for name, ino := range m.names {
		got, _, err := m.fs.dirLookup(m.dp, []byte(name))
		if err != nil || got != ino {
			m.t.Fatalf("lookup %q: %d, %v; want %d", name, got, err, ino)
		}
	}
	for i := range 50 {
		name := fmt.Sprintf("absent-%d", i)
		if _, _, err := m.fs.dirLookup(m.dp, []byte(name)); !errors.Is(err, syscall.ENOENT) {
			m.t.Fatalf("lookup %q: %v", name, err)
		}
	}
	// Small steps from position to position, as readers with small buffers go.
	got := map[string]ondisk.Ino{}
	pos := uint64(0)
	for n := 1; ; n = n%7 + 1 {
		seen := 0
		err := m.fs.Readdir(m.dp, pos, func(name []byte, ino ondisk.Ino, _ uint8, next uint64) bool {
			if next <= pos {
				m.t.Fatalf("%q: position %d after %d", name, next, pos)
			}
			if _, dup := got[string(name)]; dup {
				m.t.Fatalf("%q twice", name)
			}
			got[string(name)] = ino
			pos = next
			seen++
			return seen < n
		})
		if err != nil {
			m.t.Fatal(err)
		}
		if seen == 0 {
			break
		}
	}
	if got["."] != m.dp.ino || got[".."] == 0 {
		m.t.Fatalf(". is %d, .. is %d", got["."], got[".."])
	}
	delete(got, ".")
	delete(got, "..")
	if !maps.Equal(got, m.names) {
		m.t.Fatalf("%d names read, %d expected", len(got), len(m.names))
	}
	if empty, err := m.fs.dirEmpty(m.dp); err != nil || empty != (len(m.names) == 0) {
		m.t.Fatalf("empty: %v, %v with %d names", empty, err, len(m.names))
	}
}

// run adds and removes entries at random, mostly growing, then mostly shrinking.
// A reader walks along, and must see what was there all the time.
func (m *dirModel) run(seed uint64, ops int, ino ondisk.Ino, maxLen int) {
	m.t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	keys := slices.Sorted(maps.Keys(m.names))
	pos := uint64(0)
	must, seen := maps.Clone(m.names), map[string]bool{}
	for i := range ops {
		if up := i < ops/2; len(keys) == 0 || r.IntN(10) < 3 != up {
			pad := r.IntN(maxLen)
			if r.IntN(3) > 0 {
				pad = min(pad, 12)
			}
			name := fmt.Sprintf("%d%s", r.IntN(1<<30), strings.Repeat("é", pad/2))
			if _, dup := m.names[name]; dup {
				continue
			}
			if err := m.add(name, ino); err != nil {
				m.t.Fatalf("add %q as entry %d: %v", name, len(m.names), err)
			}
			keys = append(keys, name)
		} else {
			k := r.IntN(len(keys))
			m.remove(keys[k])
			delete(must, keys[k])
			keys[k] = keys[len(keys)-1]
			keys = keys[:len(keys)-1]
		}
		if r.IntN(4) > 0 {
			continue
		}
		n, want := 0, 1+r.IntN(12)
		err := m.fs.Readdir(m.dp, pos, func(name []byte, _ ondisk.Ino, _ uint8, next uint64) bool {
			if _, was := must[string(name)]; was && seen[string(name)] {
				m.t.Fatalf("reader saw %q twice", name)
			}
			seen[string(name)] = true
			pos = next
			n++
			return n < want
		})
		if err != nil {
			m.t.Fatal(err)
		}
		if n == 0 {
			for name := range must {
				if !seen[name] {
					m.t.Fatalf("reader missed %q", name)
				}
			}
			pos, must, seen = 0, maps.Clone(m.names), map[string]bool{}
		}
	}
}
