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
	"strings"

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
	emptyImage  = &template{name: "empty", size: func(sc *scale) int64 { return sc.image }}
	streamImage = &template{name: "stream", size: func(sc *scale) int64 { return 2*sc.stream + 256<<20 }}
	treeImage   = &template{name: "tree", size: func(sc *scale) int64 { return sc.image }, fill: fillTree}
)

// make2fs makes the template's image. All servers get copies of one file.
func (t *template) make2fs(ctx context.Context, sc *scale, file string) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(file, t.size(sc)); err != nil {
		return err
	}
	args := append([]string{"-q", "-F", "-t", "ext4", "-b", "4096", "-i", "8192", "-J", "size=64",
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

// copyImage copies the data of a template and allocates the rest of the image,
// so that no server pays for its file's pages. The image is a whole number of
// MiB.
func copyImage(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	if err := unix.Fallocate(int(dst.Fd()), 0, 0, st.Size()); err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	buf := make([]byte, 1<<20)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dst.Fd()), &fs); err != nil {
		return err
	}
	// tmpfs allocates memory without touching it.
	if fs.Type == unix.TMPFS_MAGIC {
		for off := int64(0); off < st.Size(); off += int64(len(buf)) {
			if _, err := dst.WriteAt(buf, off); err != nil {
				return err
			}
		}
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
		if _, err := io.CopyBuffer(io.NewOffsetWriter(dst, data), io.NewSectionReader(src, data, end-data), buf); err != nil {
			return err
		}
		off = end
	}
	return dropPages(dst)
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
