package ext2fs

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Entries come in the order of position and name, however near to each other or
// far apart the positions are.
func TestReaddirOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		n    int
		span uint64 // of positions
	}{{1, 1}, {2, 1}, {300, 1}, {300, 40}, {300, 1 << 32}, {300, 1 << 63}, {4096, 1 << 63}, {4096, 1 << 20}} {
		sc := &dirScratch{}
		for i := range c.n {
			pos := 2 + rng.Uint64N(c.span)
			if i%7 == 1 && c.n > 2 { // next to another, so that only low bits tell them apart
				pos = sc.items[i-1].pos ^ 1
			}
			sc.items = append(sc.items, dirItem{pos: pos, ino: ondisk.Ino(i + 1), name: fmt.Appendf(nil, "%d", rng.Uint32())})
		}
		want := slices.Clone(sc.items)
		slices.SortFunc(want, func(a, b dirItem) int {
			return cmp.Or(cmp.Compare(a.pos, b.pos), bytes.Compare(a.name, b.name))
		})
		i, last := 0, uint64(0)
		sc.emit(0, func(name []byte, ino ondisk.Ino, _ uint8, next uint64) bool {
			if ino != want[i].ino {
				t.Fatalf("%d of %d positions in %d: inode %d at %d, not %d", i, c.n, c.span, ino, want[i].pos, want[i].ino)
			}
			if next <= last {
				t.Fatalf("the position goes from %d to %d", last, next)
			}
			i, last = i+1, next
			return true
		})
		if i != c.n {
			t.Errorf("%d of %d entries", i, c.n)
		}
	}
}
