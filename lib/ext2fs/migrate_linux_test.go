package ext2fs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/iomap"
)

// indirectImage makes an image with extents whose files have none, as after
// tune2fs -O extent, and returns what they hold.
func indirectImage(t *testing.T, bs int) (*testfs.Image, map[string][]byte) {
	t.Helper()
	img := testfs.Mke2fs(t, testfs.Spec{Name: "indirect", Type: "ext3", BlockSize: bs, InodeSize: 256, Size: 48 << 20, Inodes: 512})
	fs := openImage(t, img, Options{})
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{}
	write := func(name string, offs ...int64) {
		ip, err := fs.Create(root, name, ondisk.ModeReg|0o644, 0, Cred{})
		if err != nil {
			t.Fatal(err)
		}
		defer ip.Put()
		var all []byte
		for _, off := range offs {
			p := bytes.Repeat([]byte(fmt.Sprintf("%s at %d ", name, off)), bs/8)
			if _, err := ip.WriteAt(p, off); err != nil {
				t.Fatal(err)
			}
			if n := int(off) + len(p); n > len(all) {
				all = append(all, make([]byte, n-len(all))...)
			}
			copy(all[off:], p)
		}
		want[name] = all
	}
	step := func(n int, first, by int64) (offs []int64) {
		for i := range int64(n) {
			offs = append(offs, first+i*by)
		}
		return offs
	}
	b := int64(bs)
	write("empty")
	write("direct", 0)
	write("hole", 5*b)
	write("single", step(40, 0, b)...)
	write("sparse", step(300, 3*b, 7*b)...)
	write("double", step(6, 0, 300*b)...)
	write("triple", 0, 66000*b, 67000*b) // 1 KiB: 12+256+65536 before it
	write("fragments", step(3000, 0, 5*b)...)
	for i := range 200 {
		ip, err := fs.Create(root, fmt.Sprintf("a name that is long enough to fill many blocks of the folder with %d of them", i), ondisk.ModeReg|0o644, 0, Cred{})
		if err != nil {
			t.Fatal(err)
		}
		ip.Put()
	}
	root.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
	testfs.Run(t, "tune2fs", "-O", "extent", img.Path)
	return img, want
}

// TestMigrate gives files extents: they hold what they did, for us and for the
// kernel, and have the blocks that the kernel's migration leaves them.
func TestMigrate(t *testing.T) {
	testfs.NeedRoot(t)
	for _, bs := range []int{1024, 4096} {
		t.Run(fmt.Sprint(bs), func(t *testing.T) {
			img, want := indirectImage(t, bs)
			fs := openImage(t, img, Options{})
			root, err := fs.Iget(ondisk.RootIno)
			if err != nil {
				t.Fatal(err)
			}
			migrate := func(ip *Inode) {
				t.Helper()
				flags := ip.Flags()
				if flags&ondisk.FlagExtents != 0 {
					t.Fatal("it has extents")
				}
				if err := ip.SetFlags(flags | ondisk.FlagExtents | ondisk.FlagNodump); err != nil {
					t.Fatal(err)
				}
				if f := ip.Flags(); f != flags|ondisk.FlagExtents|ondisk.FlagNodump {
					t.Errorf("flags %#x from %#x", f, flags)
				}
				if err := ip.Migrate(true); !errors.Is(err, syscall.EINVAL) {
					t.Errorf("again: %v", err)
				}
			}
			check := func(name string, ip *Inode) {
				t.Helper()
				got := make([]byte, ip.Size())
				if _, err := ip.ReadAt(got, 0); err != nil && err != io.EOF || !bytes.Equal(got, want[name]) {
					t.Errorf("%s: contents differ (%v)", name, err)
				}
			}
			for name := range want {
				ip, err := fs.Lookup(root, name)
				if err != nil {
					t.Fatal(err)
				}
				migrate(ip)
				check(name, ip)
				// It grows as a file with extents does.
				p := []byte("and more")
				if _, err := ip.WriteAt(p, int64(len(want[name]))); err != nil {
					t.Fatal(err)
				}
				want[name] = append(want[name], p...)
				check(name, ip)
				ip.Put()
			}
			migrate(root)
			if _, err := fs.Lookup(root, "direct"); err != nil {
				t.Error(err)
			}
			root.Put()
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			k := testfs.KernelMount(t, img, "ro")
			for name, data := range want {
				if got, err := os.ReadFile(filepath.Join(k.Dir, name)); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s: the kernel reads something else (%v)", name, err)
				}
			}
		})
	}
}

// TestMigrateBack takes extents away, where block numbers can say the same.
func TestMigrateBack(t *testing.T) {
	fs := openImage(t, testfs.Mke2fs(t, testfs.Spec{Size: 16 << 20}), Options{})
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		name string
		make func(ip *Inode) error
		want error
	}{
		{"empty", func(ip *Inode) error { return nil }, nil},
		{"small", func(ip *Inode) error { _, err := ip.WriteAt(make([]byte, 30000), 0); return err }, nil},
		{"behind a hole", func(ip *Inode) error { _, err := ip.WriteAt([]byte("x"), 11*4096); return err }, nil},
		{"too far", func(ip *Inode) error { _, err := ip.WriteAt([]byte("x"), 12*4096); return err }, syscall.EOPNOTSUPP},
		{"too large", func(ip *Inode) error { _, err := ip.WriteAt(make([]byte, 13*4096), 0); return err }, syscall.EOPNOTSUPP},
		{"unwritten", func(ip *Inode) error { return ip.Fallocate(0, 0, 8192) }, syscall.EOPNOTSUPP},
		{"two extents", func(ip *Inode) error {
			_, err := ip.WriteAt([]byte("x"), 0)
			_, err2 := ip.WriteAt([]byte("y"), 8192)
			return errors.Join(err, err2)
		}, syscall.EOPNOTSUPP},
		{"too long", func(ip *Inode) error { return ip.Setattr(&SetAttr{Valid: SetSize, Size: 6 << 40}) }, syscall.EOPNOTSUPP},
	} {
		ip, err := fs.Create(root, fmt.Sprint("file", i), ondisk.ModeReg|0o644, 0, Cred{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.make(ip); err != nil {
			t.Fatal(err)
		}
		var before, after Attr
		ip.Attr(&before)
		read := func() []byte {
			p := make([]byte, min(ip.Size(), 1<<20))
			_, _ = ip.ReadAt(p, 0)
			return p
		}
		old := read()
		if err := ip.SetFlags(ip.Flags() &^ ondisk.FlagExtents); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		ip.Attr(&after)
		if (after.Flags&ondisk.FlagExtents == 0) != (c.want == nil) || after.Blocks != before.Blocks || after.Size != before.Size {
			t.Errorf("%s: %+v\nfrom %+v", c.name, after, before)
		}
		if !bytes.Equal(read(), old) {
			t.Errorf("%s: the contents changed", c.name)
		}
		if c.want == nil {
			p := bytes.Repeat([]byte("grown "), 20000)
			if _, err := ip.WriteAt(p, 20000); err != nil {
				t.Error(err)
			}
		}
		ip.Put()
	}
	root.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMigrateFaults fails each read, write and sync of a migration, and has it
// run out of space: the file is as before or as after, and nothing is lost.
func TestMigrateFaults(t *testing.T) {
	img, want := indirectImage(t, 1024)
	f, err := blockdev.Open(img.Path, blockdev.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	base, err := blockdev.MemOf(f)
	if err != nil {
		t.Fatal(err)
	}
	with := func(dev blockdev.Device, f func(fs *FS, root, ip *Inode) error) error {
		fs, err := Open(dev, Options{CommitInterval: -1, Errors: ErrorsRO})
		if err != nil {
			return err
		}
		root, err := fs.Iget(ondisk.RootIno)
		if err == nil {
			var ip *Inode
			if ip, err = fs.Lookup(root, "sparse"); err == nil {
				err = f(fs, root, ip)
				ip.Put()
			}
			root.Put()
		}
		return errors.Join(err, fs.Close())
	}
	migrate := func(dev *blockdev.Fault) error {
		return with(dev, func(_ *FS, _, ip *Inode) error { return ip.Migrate(true) })
	}
	was, is := 0, 0
	look := func(_ int64, dev blockdev.Device, _ error) error {
		err := with(dev, func(_ *FS, _, ip *Inode) error {
			if ip.Flags()&ondisk.FlagExtents != 0 {
				is++
			} else {
				was++
			}
			got := make([]byte, ip.Size())
			if _, err := ip.ReadAt(got, 0); err != nil && err != io.EOF {
				return err
			}
			if !bytes.Equal(got, want["sparse"]) {
				return errors.New("other contents")
			}
			return nil
		})
		return errors.Join(err, recoverAndCheck(t, testfs.Tool(t, "e2fsck"), dev))
	}
	for _, ops := range []blockdev.Ops{blockdev.OpRead, blockdev.OpWrite, blockdev.OpSync} {
		testfs.FaultSweep{Plan: blockdev.Failure{Ops: ops, Sticky: ops != blockdev.OpRead}, Run: migrate, Check: look}.Sweep(t, base)
	}
	if was == 0 || is == 0 {
		t.Errorf("%d times as before, %d times as after", was, is)
	}

	// The tree of "fragments" takes 36 blocks. All are taken, and some given back.
	for _, room := range []int{0, 1, 20} {
		dev := base.Clone()
		err := with(dev, func(fs *FS, root, _ *Inode) error {
			ip, err := fs.Lookup(root, "fragments")
			if err != nil {
				return err
			}
			defer ip.Put()
			var taken [][2]uint64
			for {
				start, n, err := fs.reserveNow(0, 4096, 1, 0)
				if err != nil {
					break
				}
				taken = append(taken, [2]uint64{uint64(start), uint64(n)})
			}
			last := taken[len(taken)-1]
			if room > 0 {
				fs.unreserve(ondisk.Fsblk(last[0]), uint32(min(uint64(room), last[1])))
			}
			var before, after Attr
			ip.Attr(&before)
			err = ip.Migrate(true)
			ip.Attr(&after)
			if !errors.Is(err, syscall.ENOSPC) || after.Flags != before.Flags || after.Blocks != before.Blocks {
				return fmt.Errorf("with %d blocks free: %w, flags %#x blocks %d, from %#x and %d", room, err, after.Flags, after.Blocks, before.Flags, before.Blocks)
			}
			got := make([]byte, ip.Size())
			if _, err := ip.ReadAt(got, 0); err != nil && err != io.EOF || !bytes.Equal(got, want["fragments"]) {
				return fmt.Errorf("other contents (%w)", err)
			}
			return nil
		})
		if err := errors.Join(err, recoverAndCheck(t, testfs.Tool(t, "e2fsck"), dev)); err != nil {
			t.Error(err)
		}
	}
}

// TestMigrateWriteback has the kernel report what it has written back to a file
// while the file is migrated: the kernel holds no lock of ours then. Nothing may be
// lost of the mapping.
func TestMigrateWriteback(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Size: 128 << 20, Inodes: 2000, Journal: "size=4"})
	fs := openImage(t, img, Options{})
	fs.SetKernelIO(KernelIO{On: true})
	bs := int64(fs.BlockSize())
	for i := range 1500 {
		ip := newFile(t, fs, fmt.Sprint(i))
		fs.Hold(ip.Ino())
		if err := ip.Migrate(false); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { // its start waits for what another one commits
			for range 3 {
				if err := fs.jnl.CommitRunning(); err != nil {
					t.Error(err)
				}
			}
		})
		first := make(chan struct{})
		wg.Go(func() {
			for lblk := range int64(6) {
				if lblk == 1 {
					close(first)
				}
				if _, err := ip.KernelBegin(iomap.Write, 2*lblk*bs, bs); err != nil {
					t.Error(err)
				}
				if _, err := ip.IOEnd(iomap.IOEnd{Flags: iomap.EndUnwritten | iomap.EndAppend, Pos: 2 * lblk * bs, Written: bs}); err != nil {
					t.Error(err)
				}
			}
		})
		<-first
		if err := ip.Migrate(true); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		for lblk := range int64(6) {
			if b, err := ip.Bmap(uint64(2 * lblk)); err != nil || b == 0 {
				t.Fatalf("file %d: block %d is at %d, %v", i, 2*lblk, b, err)
			}
		}
		ip.Put()
		fs.Release(ip.Ino(), 1)
	}
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}
