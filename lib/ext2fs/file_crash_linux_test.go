package ext2fs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
)

// ourRecovery opens and closes the image.
func ourRecovery() testfs.Recovery {
	return testfs.Recovery{Name: "us", Run: func(img *testfs.Image) error {
		d, err := blockdev.Open(img.Path, blockdev.Options{Direct: blockdev.DirectOff})
		if err != nil {
			return err
		}
		fs, err := Open(d, Options{})
		if err == nil {
			err = fs.Close()
		}
		return errors.Join(err, d.Close())
	}}
}

// TestFileCrash records random operations on files and recovers from crash
// states of them: each is clean, shows no stale block, and holds what was synced.
func TestFileCrash(t *testing.T) {
	testfs.NeedRoot(t)
	for _, c := range []struct {
		spec testfs.Spec
		mode DataMode
	}{
		{spec: testfs.Spec{Name: "ext4", Size: 24 << 20}},
		{spec: testfs.Spec{Name: "ext4-data=journal", Size: 24 << 20}, mode: DataJournal},
		{spec: testfs.Spec{Name: "ext3-1k", Type: "ext3", BlockSize: 1024, Size: 16 << 20}},
		{spec: testfs.Spec{Name: "bigalloc", Features: "bigalloc", Cluster: 16384, Size: 64 << 20, Inodes: 2048}},
		{spec: testfs.Spec{Name: "ext4-1k-orphan_file", BlockSize: 1024, Features: "orphan_file", Journal: "size=1", Size: 16 << 20}},
	} {
		t.Run(c.spec.Name, func(t *testing.T) {
			if testing.Short() {
				t.Skip("short")
			}
			img := testfs.Mke2fs(t, c.spec)
			inos := makeFiles(t, img, 3)
			testfs.Poison(t, img)
			rec := testfs.Record(t, img)
			fs, err := Open(rec.Dev, Options{DataMode: c.mode, CommitInterval: -1})
			if err != nil {
				t.Fatal(err)
			}
			rnd := rand.New(rand.NewPCG(5, 6))
			var ms []*fileModel
			for i, ino := range inos {
				ip, err := fs.Iget(ino)
				if err != nil {
					t.Fatal(err)
				}
				p := fmt.Sprintf("f%d", i)
				ms = append(ms, &fileModel{t: t, rnd: rnd, ip: ip, max: 200 * fs.blockSize, tag: fmt.Sprintf("Ffile%d.:", i)[:8], path: p, mark: rec.Mark})
			}
			for i := range 250 {
				ms[rnd.IntN(len(ms))].step()
				if i%25 == 24 {
					if err := fs.Sync(); err != nil {
						t.Fatal(err)
					}
					for _, m := range ms {
						m.promise()
					}
				}
			}
			for _, m := range ms {
				m.compare()
				m.ip.Put()
			}
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			// No torn sectors: the mark that the file system is in use is a plain
			// write of the superblock, as the kernel's is.
			recover := []testfs.Recovery{ourRecovery(), testfs.KernelRecovery(t)}
			if c.spec.Features != "orphan_file" { // which e2fsck says to clear
				recover = append(recover, testfs.E2fsckRecovery(t))
			}
			res := rec.Sweep(t, testfs.Sweep{States: testfs.CrashStates(60), Seed: 1, Recover: recover})
			t.Logf("%d states, %d promises", res.States, res.Promises)
			for _, f := range res.Failed {
				t.Error(f)
			}
		})
	}
}
