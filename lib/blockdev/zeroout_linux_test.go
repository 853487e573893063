package blockdev

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestZeroOutLargeBlocks zeroes less than a block of a file system that has large
// ones, as NFS does: nothing around the range may change.
func TestZeroOutLargeBlocks(t *testing.T) {
	const block, size = 1 << 20, 3 << 20
	for _, r := range [][2]int64{
		{100 << 10, 128 << 10},       // in one block
		{block - 512, zeroPiece * 3}, // in two
		{block / 2, block},
		{block / 2, block * 2},
	} {
		path := filepath.Join(t.TempDir(), "image")
		want := bytes.Repeat([]byte("x"), size)
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		f.hostBlk = block
		if err := f.ZeroOut(r[0], r[1]); err != nil {
			t.Fatal(err)
		}
		f.Close()
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		clear(want[r[0] : r[0]+r[1]])
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes at %d: not those became zero, or others too", r[1], r[0])
		}
	}
}
