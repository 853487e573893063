package ondisk_test

import (
	"errors"
	"testing"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// leaf returns a node of size bytes with the extents given as triples: logical
// block, physical block, length (negative if unwritten).
func leaf(size int, e ...[3]int) []byte {
	node := make([]byte, size)
	ondisk.InitExtentNode(node, 0)
	endian.View[ondisk.ExtentHeader](node).Entries.Set(uint16(len(e)))
	for i, x := range endian.Views[ondisk.Extent](node[12:], len(e)) {
		n := e[i][2]
		x.Set(ondisk.Lblk(e[i][0]), ondisk.Fsblk(e[i][1]), uint32(max(n, -n)), n < 0)
		copy(node[12*(i+1):], endian.Bytes(&x))
	}
	return node
}

func TestExtentNode(t *testing.T) {
	n := leaf(1024, [3]int{0, 1 << 40, 32768}, [3]int{40000, 7, -32767})
	if err := ondisk.CheckExtentNode(n, nil); err != nil {
		t.Fatal(err)
	}
	e, err := ondisk.ExtentLeaf(n)
	if err != nil || len(e) != 2 {
		t.Fatal(e, err)
	}
	if e[0].Len() != 32768 || e[0].Unwritten() || e[0].Start() != 1<<40 || e[1].Len() != 32767 || !e[1].Unwritten() {
		t.Fatal(e)
	}
	ondisk.SealExtentNode(n, 5)
	if err := ondisk.VerifyExtentNode(n, 5); err != nil {
		t.Fatal(err)
	}
	if err := ondisk.VerifyExtentNode(n, 6); !errors.Is(err, ondisk.EBADMSG) {
		t.Fatal(err)
	}
	if got := ondisk.ExtentMax(1024); got != 84 {
		t.Fatal(got)
	}
	if got := ondisk.ExtentMax(60); got != ondisk.RootExtents {
		t.Fatal(got)
	}
}

func TestExtentNodeRefused(t *testing.T) {
	set := func(off int, v uint16) func([]byte) {
		return func(b []byte) { endian.View[endian.LE16](b[off:]).Set(v) }
	}
	for name, f := range map[string]func([]byte){
		"magic":       set(0, 1),
		"entries":     set(2, 85),
		"max":         set(4, 85),
		"no max":      set(4, 0),
		"depth":       set(6, 6),
		"order":       set(12, 50000),
		"overlap":     set(24, 9),
		"empty":       set(16, 0),
		"empty too":   set(28, 0),
		"last blocks": func(b []byte) { set(24, 0xfff0)(b); set(26, 0xffff)(b) },
	} {
		n := leaf(1024, [3]int{0, 100, 10}, [3]int{10, 200, 20})
		f(n)
		if err := ondisk.CheckExtentNode(n, nil); !errors.Is(err, ondisk.EUCLEAN) {
			t.Errorf("%s: %v", name, err)
		}
	}
	n := leaf(1024, [3]int{0, 100, 10})
	if err := ondisk.CheckExtentNode(n, func(b ondisk.Fsblk, c uint32) bool { return b+ondisk.Fsblk(c) <= 109 }); err == nil {
		t.Error("blocks outside the file system taken")
	}
}

func FuzzExtentNode(f *testing.F) {
	f.Add(leaf(1024, [3]int{0, 100, 10}, [3]int{10, 200, -20}))
	f.Add(leaf(60))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 60 {
			return
		}
		if ondisk.CheckExtentNode(b, nil) != nil {
			return
		}
		end := uint64(0)
		if e, err := ondisk.ExtentLeaf(b); err == nil {
			for i := range e {
				if uint64(e[i].Block.Get()) < end {
					t.Fatal("overlap")
				}
				end = uint64(e[i].Block.Get()) + uint64(e[i].Len())
			}
		} else if _, err := ondisk.ExtentIndex(b); err != nil {
			t.Fatal(err)
		}
		ondisk.SealExtentNode(b, 1)
		_ = ondisk.VerifyExtentNode(b, 1)
	})
}
