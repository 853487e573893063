package ext2fs

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestLazyInitCrash zeroes inode tables that hold garbage while a load allocates
// inodes: in every crash state that is recovered, a table that is said to be
// zeroed is, where it has no inodes.
func TestLazyInitCrash(t *testing.T) {
	testfs.NeedRoot(t)
	spec := testfs.Spec{Name: "lazy", BlockSize: 1024, Size: 48 << 20, Inodes: 8192, Extended: "lazy_itable_init=1", Journal: "size=2"}
	img := testfs.Mke2fs(t, spec)
	fillTables(t, img.Path)
	rec := testfs.Record(t, img)
	fs, err := Open(rec.Dev, Options{InitItable: true, CommitInterval: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := load(fs, 3, 300, true); err != nil {
		t.Error(err)
	}
	fs.lazy.done.Wait() // all tables
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
	groups := 0
	check := testfs.Recovery{Name: "us", Run: func(img *testfs.Image) error {
		d, err := blockdev.Open(img.Path, blockdev.Options{Direct: blockdev.DirectOff})
		if err != nil {
			return err
		}
		defer d.Close()
		fs, err := Open(d, Options{})
		if err != nil {
			return err
		}
		if err := fs.Close(); err != nil {
			return err
		}
		if fs, err = Open(d, Options{ReadOnly: true}); err != nil {
			return err
		}
		defer fs.Close()
		for no := range fs.groups {
			g, err := fs.groupOf(no)
			if err != nil {
				return err
			}
			if g.flags&ondisk.BGInodeZeroed == 0 {
				continue
			}
			groups++
			used := fs.inodesPerGroup - g.itableUnused
			if g.flags&ondisk.BGInodeUninit != 0 {
				used = 0
			}
			table := make([]byte, int(fs.inodesPerGroup)*fs.inodeSize)
			if _, err := d.ReadAt(table, int64(g.inodeTable)<<fs.blockBits); err != nil {
				return err
			}
			if rest := table[int(used)*fs.inodeSize:]; !bytes.Equal(rest, make([]byte, len(rest))) {
				return fmt.Errorf("the table of group %d is not zero behind %d inodes", no, used)
			}
		}
		return nil
	}}
	res := rec.Sweep(t, testfs.Sweep{States: testfs.CrashStates(100), Seed: 1, Workers: 1, Recover: []testfs.Recovery{check}})
	for _, f := range res.Failed {
		t.Error(f)
	}
	t.Logf("%d states, %d zeroed tables", res.States, groups)
	if groups == 0 {
		t.Error("no table was zeroed in any state")
	}
}
