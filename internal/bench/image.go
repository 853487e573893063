//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"golang.org/x/sys/unix"
)

// A template is a kind of image that stages start from.
type template struct {
	name string
	size func(sc *scale) int64          // bytes
	args []string                       // more, for mke2fs
	fill func(b *bed, dir string) error // by the kernel, once; may be nil
	raw  bool                           // used in place, not copied
}

var (
	emptyImage = &template{name: "empty", size: func(sc *scale) int64 { return sc.image }}
	treeImage  = &template{name: "tree", size: func(sc *scale) int64 { return sc.image }, fill: fillTree}
)

const blockSize = 4096

// make2fs makes the template's image. All servers get copies of one file.
func (t *template) make2fs(ctx context.Context, sc *scale, file string) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(file, t.size(sc)); err != nil {
		return err
	}
	args := append([]string{"-q", "-F", "-t", "ext4", "-b", strconv.Itoa(blockSize), "-i", "8192", "-J", "size=64",
		"-U", "6a1d8f4e-5b0c-4c3e-9d7a-2f1e0b8c9d10",
		"-E", "lazy_itable_init=0,lazy_journal_init=0,hash_seed=0b7e2c1d-93f4-4a56-8e21-7c5d4f3a2b19"}, t.args...)
	return command(ctx, "", "mke2fs", append(args, file)...)
}

// command runs a program, whose output becomes the error if it fails.
func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		s := strings.TrimSpace(string(out))
		return fmt.Errorf("%s: %w: %s", name, err, s[max(0, len(s)-400):])
	}
	return nil
}

// newImage makes the file that becomes one image after the other. All of it is
// written, so that no server pays for the first use of a block.
func newImage(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(buf)) {
		if _, err := f.WriteAt(buf[:min(int64(len(buf)), size-off)], off); err != nil {
			return err
		}
	}
	return dropPages(f)
}

// copyImage makes the image at to the same as the template, but for blocks
// that are free: those keep what they had.
func copyImage(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer dst.Close()
	buf := make([]byte, 1<<20)
	put := func(off, n int64) error {
		_, err := io.CopyBuffer(io.NewOffsetWriter(dst, off), io.NewSectionReader(src, off, n), buf)
		return err
	}
	// Metadata that is zero may be a hole of the template.
	if err := eachMetadata(src, put); err != nil {
		return err
	}
	for off := int64(0); ; {
		data, err := unix.Seek(int(src.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := put(data, end-data); err != nil {
			return err
		}
		off = end
	}
	return dropPages(dst)
}

// eachMetadata calls f for the bitmaps and the inode table of each group.
func eachMetadata(img io.ReaderAt, f func(off, n int64) error) error {
	raw := make([]byte, 1024)
	if _, err := img.ReadAt(raw, 1024); err != nil {
		return err
	}
	sb := endian.View[ondisk.Super](raw)
	groups := int((int64(sb.BlocksCount()) + int64(sb.BlocksPerGroup.Get()) - 1) / int64(sb.BlocksPerGroup.Get()))
	table := int64(sb.InodesPerGroup.Get()) * int64(sb.InodeSz())
	descs := make([]byte, groups*sb.DescSz())
	if _, err := img.ReadAt(descs, blockSize); err != nil {
		return err
	}
	for g := range groups {
		d := ondisk.Desc(descs[g*sb.DescSz() : (g+1)*sb.DescSz()])
		for _, at := range []struct {
			block ondisk.Fsblk
			n     int64
		}{{d.BlockBitmap(), blockSize}, {d.InodeBitmap(), blockSize}, {d.InodeTable(), table}} {
			if err := f(int64(at.block)*blockSize, at.n); err != nil {
				return err
			}
		}
	}
	return nil
}

// touch makes n bytes of free memory present. In a virtual machine the first
// use of a page costs much, and would meet the first server alone.
func touch(n int64) error {
	mem, err := pages(int(n))
	if err != nil {
		return err
	}
	return unix.Munmap(mem)
}

// dropPages takes the file's pages out of the page cache, where that is not
// the file itself.
func dropPages(f *os.File) error {
	if err := f.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func dropImage(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return dropPages(f)
}

// checkImage is C e2fsck's opinion of what a server left: a figure counts for
// nothing if the image is damaged.
func checkImage(ctx context.Context, image string) error {
	return command(ctx, "", "e2fsck", "-fn", image)
}

// fillTree makes the folders that stages of metadata start from: tree/, with
// files spread over folders, and big/, a single large one.
func fillTree(b *bed, dir string) error {
	names := treeNames(b.sc.files)
	for i, n := range names {
		p := filepath.Join(dir, "tree", n)
		if i%perDir == 0 {
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				return err
			}
		}
		if err := writeSmall(p, int64(i)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "big"), 0o755); err != nil {
		return err
	}
	for i := range b.sc.bigDir {
		if err := unix.Mknod(filepath.Join(dir, "big", fmt.Sprintf("entry-%06d", i)), unix.S_IFREG|0o644, 0); err != nil {
			return err
		}
		if i%1024 == 0 && b.ctx.Err() != nil {
			return b.ctx.Err()
		}
	}
	return nil
}

// perDir is the number of files in each folder of a tree.
const perDir = 1000

// treeNames returns the paths of n files, perDir to a folder, in order.
func treeNames(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("dir-%03d/file-%06d.txt", i/perDir, i)
	}
	return out
}

const smallSize = 1024 // bytes in a small file

func writeSmall(path string, seed int64) error {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	var buf [smallSize]byte
	stamp(buf[:], seed<<12)
	n, err := unix.Write(fd, buf[:])
	if e := unix.Close(fd); err == nil {
		err = e
	}
	if err == nil && n != len(buf) {
		err = io.ErrShortWrite
	}
	return err
}
