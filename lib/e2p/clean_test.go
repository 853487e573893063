package e2p

import (
	"bytes"
	"testing"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestListSuperHostile has texts in a superblock that act on a terminal and that
// look like lines of the listing.
func TestListSuperHostile(t *testing.T) {
	list := func(evil string) []byte {
		s := &ondisk.Super{}
		s.FirstErrorTime.Set(1)
		for _, f := range [][]byte{s.VolumeName[:], s.LastMounted[:], s.MountOpts[:], s.FirstErrorFunc[:]} {
			copy(f, evil)
		}
		var out bytes.Buffer
		if err := ListSuper(&out, s, Names{}); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	got := list("a\nState: ok\x1b[2J")
	if bytes.ContainsRune(got, 0x1b) || bytes.Count(got, []byte("\n")) != bytes.Count(list("label"), []byte("\n")) {
		t.Errorf("the listing is\n%q", got)
	}
}
