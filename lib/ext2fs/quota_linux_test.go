package ext2fs

import (
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestFillQuotaLimits has limits and grace times outlast counting anew.
func TestFillQuotaLimits(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "quota", Size: 32 << 20, Features: "quota,project"})
	dev, err := blockdev.Open(img.Path, blockdev.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	edit := func(f func(fs *FS) error) {
		t.Helper()
		fs, err := Open(dev, Options{Offline: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := f(fs); err != nil {
			t.Error(err)
		}
		if err := fs.Close(); err != nil {
			t.Fatal(err)
		}
	}
	limits := []dquot{{id: 0, limits: RawQuota{BlockHard: 5000}}, {id: 500, inodes: 77, space: 1 << 20, limits: RawQuota{InodeHard: 10, InodeSoft: 5, BlockSoft: 4, BlockGrace: 12345, InodeGrace: 678}},
		{id: 501, inodes: 3}}
	edit(func(fs *FS) error {
		return fs.writeQuotaFile(ondisk.UsrQuotaIno, quotaFile(quotaMagic[0], quotaGraces{100, 200, 0}, limits))
	})
	edit(func(fs *FS) error {
		root, err := fs.Iget(ondisk.RootIno)
		if err != nil {
			return err
		}
		defer root.Put()
		ip, err := fs.Create(root, "file", ondisk.ModeReg|0o600, 0, Cred{UID: 500, Verbatim: true})
		if err != nil {
			return err
		}
		defer ip.Put()
		if _, err := ip.WriteAt(make([]byte, 10000), 0); err != nil {
			return err
		}
		return fs.FillQuota()
	})
	r, err := OpenRaw(dev, RawOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint32]RawQuota{
		0:   {BlockHard: 5000, Inodes: 2, Space: 20480},
		500: {ID: 500, InodeHard: 10, InodeSoft: 5, BlockSoft: 4, BlockGrace: 12345, InodeGrace: 678, Inodes: 1, Space: 12288},
	}
	if err := r.Quotas(QuotaUser, func(q *RawQuota) bool {
		if *q != want[q.ID] {
			t.Errorf("id %d: %+v, want %+v", q.ID, *q, want[q.ID])
		}
		delete(want, q.ID)
		return true
	}); err != nil || len(want) != 0 {
		t.Errorf("%v; missing %v", err, want)
	}
	f, err := r.OpenFile(ondisk.UsrQuotaIno)
	if err != nil {
		t.Fatal(err)
	}
	if g, err := readQuotas(f, f.Size(), ondisk.UsrQuotaIno, quotaMagic[0], func(*RawQuota) bool { return true }); err != nil || g != (quotaGraces{100, 200, 0}) {
		t.Errorf("grace times %v, %v", g, err)
	}
}
