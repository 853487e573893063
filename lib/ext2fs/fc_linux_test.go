package ext2fs

import (
	"errors"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
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

// TestReplayAgain replays after a crash in the middle of a replay: an inode was
// written with its tree, and the bitmap was not. A node that is free there must not
// become another file's.
func TestReplayAgain(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "again", BlockSize: 1024, Size: 8 << 20})
	files := makeFiles(t, img, 2)
	mem := memImage(t, img)
	fs, err := Open(mem, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ip, err := fs.Iget(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(20) {
		if _, err := ip.WriteAt([]byte{1}, i*2048); err != nil {
			t.Fatal(err)
		}
	}
	var node ondisk.Fsblk
	if err := ip.eachBlock(func(start ondisk.Fsblk, _ uint32, meta bool) error {
		if meta {
			node = start
		}
		return nil
	}); err != nil || node == 0 {
		t.Fatalf("node %d: %v", node, err)
	}
	ip.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRaw(mem, RawOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.FreeBlock(node), r.Close(false)); err != nil {
		t.Fatal(err)
	}

	if fs, err = Open(mem, Options{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	var tags []fcTag
	touch := make([]byte, 16)
	a := endian.View[ondisk.FCAddRange](touch) // as the replay did that was cut short
	a.Ino.Set(uint32(files[0]))
	if ip, err = fs.Iget(files[0]); err != nil {
		t.Fatal(err)
	}
	first, err := ip.mapRun(0, 1)
	if err != nil {
		t.Fatal(err)
	}
	ip.Put()
	a.Extent.Set(0, first.pblk, 1, false)
	tags = append(tags, fcTag{jbd2.FCAddRange, touch})
	for i := range ondisk.Lblk(6) { // more than the root of a tree has room for
		v := make([]byte, 16)
		a := endian.View[ondisk.FCAddRange](v)
		a.Ino.Set(uint32(files[1]))
		at := node - 1
		if i > 0 {
			at = fs.blocks - 2*ondisk.Fsblk(i)
		}
		a.Extent.Set(2*i, at, 1, false)
		tags = append(tags, fcTag{jbd2.FCAddRange, v})
	}
	if err := fs.replayFastCommits(tags); err != nil {
		t.Fatal(err)
	}
	nodes := map[ondisk.Fsblk]ondisk.Ino{}
	for _, ino := range files {
		ip, err := fs.Iget(ino)
		if err != nil {
			t.Fatal(err)
		}
		if err := ip.eachBlock(func(start ondisk.Fsblk, _ uint32, meta bool) error {
			if o := nodes[start]; meta && o != 0 {
				t.Errorf("block %d is a node of inode %d and of %d", start, o, ino)
			} else if meta {
				nodes[start] = ino
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		ip.Put()
	}
	if len(nodes) != 2 {
		t.Errorf("%d nodes", len(nodes))
	}
}

// TestReplayedBlocks has a replay count the blocks of a file that has a value of an
// attribute in an inode, which its count has in it.
func TestReplayedBlocks(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "blocks", BlockSize: 1024, Size: 8 << 20, Features: "ea_inode"})
	mem := memImage(t, img)
	fs, err := Open(mem, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ip := newFile(t, fs, "a")
	ino := ip.ino
	if _, err := ip.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	if err := ip.Setxattr("user.a", make([]byte, 5000), 0, false); err != nil {
		t.Fatal(err)
	}
	used := ip.blocksUsed()
	at, err := ip.mapRun(0, 1)
	if err != nil {
		t.Fatal(err)
	}
	ip.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
	if fs, err = Open(mem, Options{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	v := make([]byte, 16)
	a := endian.View[ondisk.FCAddRange](v)
	a.Ino.Set(uint32(ino))
	a.Extent.Set(0, at.pblk, 1, false)
	if err := fs.replayFastCommits([]fcTag{{jbd2.FCAddRange, v}}); err != nil {
		t.Fatal(err)
	}
	if ip, err = fs.Iget(ino); err != nil {
		t.Fatal(err)
	}
	if n := ip.blocksUsed(); n != used {
		t.Errorf("%d blocks, %d before", n, used)
	}
	ip.Put()
}
