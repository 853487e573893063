package ext2fs

import (
	"errors"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestReplayedTree has a replay settle a file of which every index entry leads to
// the same node: it must not go down each of the ways.
func TestReplayedTree(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "tree", BlockSize: 1024, Size: 4 << 20, Features: "^metadata_csum"})
	ino := makeFiles(t, img, 1)[0]
	img.ExpectDirty("a tree that leads to its nodes again and again")
	fs := openImage(t, img, Options{Errors: ErrorsContinue})
	ip, err := fs.Iget(ino)
	if err != nil {
		t.Fatal(err)
	}
	defer ip.Put()
	start, _, err := fs.reserve(ip, 0, 8, 8, true)
	if err != nil {
		t.Fatal(err)
	}
	defer fs.unreserve(start, 8)
	const depth = ondisk.MaxExtentDepth
	fill := func(node []byte, d int) {
		ondisk.InitExtentNode(node, d)
		p := extNode{node: node}
		p.header().Entries.Set(1)
		if d == 0 {
			p.leaf()[0].Set(0, start+7, 1, false)
			return
		}
		p.header().Entries.Set(p.header().Max.Get())
		e := p.index()
		for i := range e {
			e[i].Set(ondisk.Lblk(i), start+ondisk.Fsblk(d-1))
		}
	}
	for d := range depth {
		b := make([]byte, fs.blockSize)
		fill(b, d)
		if _, err := fs.dev.WriteAt(b, int64(start+ondisk.Fsblk(d))<<fs.blockBits); err != nil {
			t.Fatal(err)
		}
	}
	ip.mapMu.Lock()
	fill(ip.raw.Base().Block[:], depth)
	ip.setFlags(ondisk.FlagExtents, 0)
	ip.mappingChanged()
	ip.mapMu.Unlock()
	runs := 0
	enough := errors.New("it goes on and on")
	err = ip.eachBlock(func(ondisk.Fsblk, uint32, bool) error {
		if runs++; runs > 1000 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, ondisk.EUCLEAN) {
		t.Fatalf("%v after %d runs", err, runs)
	}
}
