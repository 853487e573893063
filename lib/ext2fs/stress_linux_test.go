package ext2fs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// load does n random operations of all kinds on few names, so that they meet.
func load(fs *FS, seed uint64, n int, sync bool) error {
	rnd := rand.New(rand.NewPCG(seed, 1))
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		return err
	}
	defer root.Put()
	name := func() string { return fmt.Sprintf("name%d", rnd.IntN(24)) }
	// dir returns the root or a directory in it, pinned.
	dir := func() *Inode {
		if ip, err := fs.Lookup(root, fmt.Sprintf("dir%d", rnd.IntN(4))); err == nil {
			return ip
		}
		root.Pin()
		return root
	}
	buf := make([]byte, 1<<17)
	for i := range buf {
		buf[i] = byte(i*7 + i>>9)
	}
	expected := []error{syscall.ENOENT, syscall.EEXIST, syscall.ENOTDIR, syscall.EISDIR, syscall.ENOTEMPTY,
		syscall.EPERM, syscall.EINVAL, syscall.EBUSY, syscall.ENOSPC, syscall.EOPNOTSUPP, syscall.ESTALE, syscall.EMLINK,
		syscall.ENAMETOOLONG}
	for i := range n {
		var err error
		dp := dir()
		op := rnd.IntN(16)
		switch op {
		case 0, 1, 2:
			var ip *Inode
			if ip, err = fs.Create(dp, name(), ondisk.ModeReg|0o644, 0, Cred{}); err == nil {
				_, err = ip.WriteAt(buf[:rnd.IntN(30000)], 0)
				ip.Put()
			}
		case 3:
			var ip *Inode
			if ip, err = fs.Mkdir(root, fmt.Sprintf("dir%d", rnd.IntN(4)), 0o755, Cred{}); err == nil {
				ip.Put()
			}
		case 4:
			err = fs.Rmdir(root, fmt.Sprintf("dir%d", rnd.IntN(4)))
		case 5, 6:
			err = fs.Unlink(dp, name())
		case 7:
			to := dir()
			err = fs.Rename(dp, name(), to, name(), uint32(rnd.IntN(4))&^2, Cred{})
			to.Put()
		case 8:
			var ip *Inode
			if ip, err = fs.Lookup(dp, name()); err == nil {
				err = fs.Link(ip, root, name())
				ip.Put()
			}
		case 9:
			var ip *Inode
			if ip, err = fs.Symlink(dp, name(), string(buf[:0])+fmt.Sprint("target/", buf[:rnd.IntN(300)]), Cred{}); err == nil {
				ip.Put()
			}
		default:
			var ip *Inode
			if ip, err = fs.Lookup(dp, name()); err != nil {
				break
			}
			if !ip.isReg() {
				ip.Put()
				break
			}
			off := rnd.Int64N(1 << 20)
			switch op {
			case 10, 11:
				_, err = ip.WriteAt(buf[:rnd.IntN(len(buf))], off)
			case 12:
				size := uint64(off)
				err = ip.Setattr(&SetAttr{Valid: SetSize, Size: int64(size)})
			case 13:
				err = ip.Fallocate([]uint32{0, 1, 3, 0x11}[rnd.IntN(4)], off, 1+rnd.Int64N(200000))
			case 14:
				err = ip.Setxattr("user.a", buf[:rnd.IntN(1500)], 0, false)
			case 15:
				if sync {
					err = ip.Fsync(rnd.IntN(2) == 0)
				}
				_, _ = ip.ReadAt(buf[:0:4096], off)
			}
			ip.Put()
		}
		dp.Put()
		ok := err == nil
		for _, e := range expected {
			ok = ok || errors.Is(err, e)
		}
		if !ok {
			return fmt.Errorf("operation %d, %d: %w", i, op, err)
		}
	}
	return nil
}

func stressSpecs() []testfs.Spec {
	return []testfs.Spec{
		{Name: "ext4", Size: 16 << 20, Journal: "size=4"},
		{Name: "ext4-1k", BlockSize: 1024, Size: 16 << 20, Journal: "size=2", Extended: "lazy_itable_init=1"},
		{Name: "ext3-1k", Type: "ext3", BlockSize: 1024, Size: 16 << 20, Journal: "size=2"},
		{Name: "ext4-bigalloc", Size: 32 << 20, Features: "bigalloc", Cluster: 16384, Journal: "size=4"},
		{Name: "ext4-orphan-file", Size: 16 << 20, Features: "orphan_file", Journal: "size=4"},
		{Name: "ext4-inline", Size: 16 << 20, Features: "inline_data,ea_inode", Journal: "size=4"},
	}
}

// TestStress has several goroutines work on the same names, with orphans,
// a small journal and little space, and e2fsck look at what is left.
func TestStress(t *testing.T) {
	n := 1500
	if testing.Short() {
		n = 300
	}
	specs := append(stressSpecs(), testfs.Spec{Name: "ext2", Type: "ext2", Size: 16 << 20},
		testfs.Spec{Name: "full", Size: 6 << 20, Journal: "size=4"})
	for _, spec := range specs {
		t.Run(spec.Name, func(t *testing.T) {
			fs := openImage(t, testfs.Mke2fs(t, spec), Options{CommitInterval: 30 * time.Millisecond, CacheSize: 1 << 20})
			var wg sync.WaitGroup
			for w := range 4 {
				wg.Go(func() {
					if err := load(fs, uint64(w), n, w == 0); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			fs.rsvReclaim() // what streams have ahead
			if fs.reserved.Load() != 0 {
				t.Errorf("%d clusters are reserved still", fs.reserved.Load())
			}
			if fs.errCount != 0 {
				t.Errorf("%d inconsistencies were found", fs.errCount)
			}
		})
	}
}

// TestCrash records the writes of the same load, and recovers crash states.
func TestCrash(t *testing.T) {
	states := testfs.CrashStates(120)
	ours := testfs.Recovery{Name: "ours", Run: func(img *testfs.Image) error {
		d, err := blockdev.Open(img.Path, blockdev.Options{Direct: blockdev.DirectOff})
		if err != nil {
			return err
		}
		defer d.Close()
		fs, err := Open(d, Options{})
		if err != nil {
			return err
		}
		return fs.Close()
	}}
	for _, spec := range stressSpecs() {
		t.Run(spec.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, spec)
			if s, err := os.Stat(img.Path); err != nil || s.Size() == 0 {
				t.Fatal(err)
			}
			rec := testfs.Record(t, img)
			fs, err := Open(rec.Dev, Options{CommitInterval: 20 * time.Millisecond, CacheSize: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for w := range 2 {
				wg.Go(func() {
					if err := load(fs, uint64(w), 400, true); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			ways := []testfs.Recovery{ours, testfs.KernelRecovery(t)}
			if spec.Features != "orphan_file" { // there e2fsck always has a flag to clear
				ways = append(ways, testfs.E2fsckRecovery(t))
			}
			// Blocks are written as a whole: a superblock whose checksum is torn is
			// lost, whoever wrote it.
			res := rec.Sweep(t, testfs.Sweep{States: states, Seed: 1, Recover: ways})
			for _, f := range res.Failed {
				t.Error(f)
			}
			t.Logf("%d states", res.States)
		})
	}
}
