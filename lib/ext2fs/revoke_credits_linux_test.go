package ext2fs

import (
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestRevokeCredits frees many blocks of journaled data in large extents, with the
// smallest blocks and the smallest journal: each extent takes hundreds of blocks
// of revoke records, and they must not outgrow the log.
func TestRevokeCredits(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Size: 512 << 20, BlockSize: 1024, Inodes: 1024, Journal: "size=1"})
	fs := openImage(t, img, Options{DataMode: DataJournal, CommitInterval: -1})
	ip := newFile(t, fs, "file")
	if err := ip.Fallocate(0, 0, 400<<20); err != nil {
		t.Fatal(err)
	}
	if err := fs.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := ip.Setattr(&SetAttr{Valid: SetSize}); err != nil {
		t.Error(err)
	}
	ip.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}
