package ext2fs

import (
	"fmt"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestReserveAheadBusy writes streams to more files than may keep what they have
// reserved ahead, the mapping of the first of which is in use just when it should
// give that up: it can be had all the same when there is no other space.
func TestReserveAheadBusy(t *testing.T) {
	fs, err := Open(memImage(t, testfs.Mke2fs(t, testfs.Spec{Size: 64 << 20, Journal: "size=4"})), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	stream := func(i int) *Inode {
		ip := newFile(t, fs, fmt.Sprint(i))
		p := make([]byte, 16<<10)
		for off := 0; off < 4*len(p); off += len(p) {
			if _, err := ip.WriteAt(p, int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		return ip
	}
	first := stream(0)
	first.mapMu.RLock()
	for i := 1; i <= rsvInodes; i++ {
		stream(i).Put()
	}
	first.mapMu.RUnlock()
	first.Put()
	for fs.rsvReclaim() {
	}
	if n, ahead := fs.reserved.Load(), fs.rsvs.ahead.Load(); n != 0 || ahead != 0 {
		t.Errorf("%d clusters stay reserved, %d of them ahead of streams", n, ahead)
	}
}
