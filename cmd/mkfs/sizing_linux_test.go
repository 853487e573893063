package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// someFiles makes a folder with n files in it.
func someFiles(t *testing.T, dir string, n int) string {
	t.Helper()
	src := filepath.Join(dir, "src")
	if err := os.MkdirAll(filepath.Join(src, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		data := strings.Repeat(fmt.Sprintf("%d", i), 1+i*i%9973)
		if err := os.WriteFile(filepath.Join(src, "sub", fmt.Sprintf("file%d", i)), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return src
}

// superOf returns the superblock of an image.
func superOf(t *testing.T, path string) *ondisk.Super {
	t.Helper()
	dev, err := blockdev.Open(path, blockdev.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	fs, err := ext2fs.Open(dev, ext2fs.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	s := new(ondisk.Super)
	fs.Super(func(sb *ondisk.Super) { *s = *sb })
	return s
}

func sizeOf(s *ondisk.Super) int64 {
	return int64(s.BlocksCount()) << (10 + s.LogBlockSize.Get())
}

// A size that was found fits, whatever the format; the smallest is no larger,
// and has what was asked for.
func TestSizeAuto(t *testing.T) {
	dir := environment(t)
	src := someFiles(t, dir, 700)
	for _, c := range []string{
		"-t ext4 -b 4096", "-t ext4 -b 1024", "-t ext2 -b 1024 -I 128", "-t ext3 -b 2048 -m 20", "-t ext4 -b 4096 -O bigalloc -C 16384",
		"-t ext4 -b 4096 -O inline_data -I 512", "-t ext4 -b 1024 -O ^resize_inode,meta_bg", "-t ext4 -b 4096 -i 4096",
		"-t ext4 -b 4096 -N 5001", "-t ext4 -b 4096 -O ^has_journal,sparse_super2 -E packed_meta_blocks=1", "-t ext4 -b 65536 -F",
		"-t ext4 -b 4096 -O orphan_file -J size=5", "-t ext4 -T largefile -b 4096",
	} {
		size := map[string]int64{}
		for _, how := range []string{"--size=auto", "--shrink", "--free=3M"} {
			img := filepath.Join(dir, "image")
			os.Remove(img)
			args := append(strings.Fields(c), "-q", "-U", testUUID, "-E", "hash_seed="+testSeed, "-d", src, how, img)
			if status, out, errs := mke2fs(args...); status != 0 {
				t.Fatalf("%s %s: status %d\n%s%s", c, how, status, out, errs)
			}
			if err := testfs.E2fsck(t, img, ""); err != nil {
				t.Errorf("%s %s: %v", c, how, err)
			}
			s := superOf(t, img)
			st, err := os.Stat(img)
			if err != nil {
				t.Fatal(err)
			}
			if size[how] = sizeOf(s); size[how] != st.Size() {
				t.Errorf("%s %s: the file has %d bytes, the file system %d", c, how, st.Size(), size[how])
			}
			if strings.Contains(c, "-N") && s.InodesCount.Get() < 5001 {
				t.Errorf("%s %s: %d inodes", c, how, s.InodesCount.Get())
			}
			if (strings.Contains(c, "ext4") || strings.Contains(c, "ext3")) && !strings.Contains(c, "^has_journal") && !s.HasCompat(ondisk.CompatHasJournal) {
				t.Errorf("%s %s: it has no journal", c, how)
			}
		}
		auto, small, free := size["--size=auto"], size["--shrink"], size["--free=3M"]
		if small > auto || auto-small > max(small/50, 1<<20) {
			t.Errorf("%s: %d bytes found, the smallest is %d", c, auto, small)
		}
		if free < auto || free > auto+16<<20 {
			t.Errorf("%s: %d bytes, and %d with 3 MiB left", c, auto, free)
		}
	}
}

// On a device the size is that of the file system, and no more than it has.
func TestSizeAutoDevice(t *testing.T) {
	testfs.NeedRoot(t)
	dir := environment(t)
	src := someFiles(t, dir, 100)
	disk := sparse(t, filepath.Join(dir, "disk"), 40<<20)
	dev := testfs.AttachLoop(t, disk).Name()
	if status, out, errs := mke2fs("-q", "-t", "ext4", "-b", "4096", "-d", src, "--free", "1M", dev); status != 0 {
		t.Fatalf("status %d\n%s%s", status, out, errs)
	}
	if err := testfs.E2fsck(t, dev, ""); err != nil {
		t.Error(err)
	}
	if n := sizeOf(superOf(t, dev)); n < 2<<20 || n > 20<<20 {
		t.Errorf("a file system of %d bytes", n)
	}
	if err := os.WriteFile(filepath.Join(src, "large"), make([]byte, 40<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, errs := mke2fs("-q", "-t", "ext4", "-b", "4096", "-d", src, "--size=auto", dev)
	if status != 1 || !strings.Contains(errs, "takes more than what "+dev+" has") {
		t.Errorf("too much: status %d, %s", status, errs)
	}
	if err := testfs.E2fsck(t, dev, ""); err != nil {
		t.Errorf("the file system that was there: %v", err)
	}
}

// More files than the size has inodes for by its ratio are no reason to fail,
// but for a number that was asked for.
func TestManyFiles(t *testing.T) {
	dir := environment(t)
	src := filepath.Join(dir, "src")
	for i := range 20 {
		d := filepath.Join(src, fmt.Sprint(i))
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		for k := range 100 {
			if err := os.WriteFile(filepath.Join(d, fmt.Sprint(k)), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	img := filepath.Join(dir, "image")
	if status, out, errs := mke2fs("-q", "-t", "ext4", "-b", "4096", "-T", "largefile", "-d", src, img, "16M"); status != 0 {
		t.Fatalf("status %d\n%s%s", status, out, errs)
	}
	if err := testfs.E2fsck(t, img, ""); err != nil {
		t.Error(err)
	}
	status, _, errs := mke2fs("-q", "-F", "-t", "ext4", "-b", "4096", "-N", "100", "-d", src, img, "16M")
	if status != 1 || !strings.Contains(errs, "no file system made") {
		t.Errorf("-N: status %d\n%s", status, errs)
	}
}

// What no size has room for is not looked for in ever larger ones.
func TestSizeAutoImpossible(t *testing.T) {
	dir := environment(t)
	src := filepath.Join(dir, "src.tar")
	ownersTar(t, src, 5)
	img := filepath.Join(dir, "image")
	status, _, errs := mke2fs("-q", "-t", "ext4", "-b", "1024", "-d", src, "--size=auto", img)
	if status != 1 || !strings.Contains(errs, "the ea_inode feature") || !strings.Contains(errs, "/d1/f1") {
		t.Errorf("status %d: %s", status, errs)
	}
	if status, _, errs = mke2fs("-q", "-t", "ext4", "-b", "1024", "-O", "ea_inode", "-d", src, "--size=auto", img); status != 0 {
		t.Errorf("with ea_inode: %s", errs)
	} else if err := testfs.E2fsck(t, img, ""); err != nil {
		t.Error(err)
	}
}

// fullDevice has no room on whatever it lies on.
type fullDevice struct{ blockdev.Device }

func (fullDevice) WriteAt(p []byte, off int64) (int, error) { return 0, syscall.ENOSPC }

// That there is no room to try a size is not that the size is too small.
func TestScratchFull(t *testing.T) {
	dev := &scratchDevice{Device: fullDevice{blockdev.NewMem(16 << 20)}}
	for what, write := range map[string]func() error{
		"write":  func() error { _, err := dev.WriteAt(make([]byte, 4096), 0); return err },
		"writev": func() error { _, err := dev.WritevAt([][]byte{make([]byte, 4096)}, 0); return err },
		"format": func() error { _, err := ext2fs.Format(dev, ext2fs.DefaultFormat()); return err },
	} {
		if err := write(); errors.Is(err, syscall.ENOSPC) || !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "TMPDIR") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
