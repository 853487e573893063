//go:build linux

package main

import (
	"archive/tar"
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// each calls f for i below n until time is up, and returns the number done.
func (b *bed) each(n int, f func(i int) error) (work, error) {
	end := time.Now().Add(2 * b.sc.limit)
	for i := range n {
		if err := f(i); err != nil {
			return work{}, err
		}
		if i%64 == 63 && (time.Now().After(end) || b.ctx.Err() != nil) {
			return work{units: float64(i + 1)}, b.ctx.Err()
		}
	}
	return work{units: float64(n)}, nil
}

func runCreate(b *bed) error {
	names := treeNames(b.sc.files)
	made := 0
	err := steps(
		b.cold,
		b.doing("create", func() (work, error) {
			w, err := b.each(len(names), func(i int) error {
				p := b.path(names[i])
				if i%perDir == 0 {
					if err := os.Mkdir(filepath.Dir(p), 0o755); err != nil {
						return err
					}
				}
				return writeSmall(p, int64(i))
			})
			made = int(w.units)
			return w, err
		}),
		b.doing("sync", func() (work, error) { return work{}, b.settle() }),
		b.cold,
	)
	if err != nil {
		return err
	}
	if err := checkSmall(b, names[:made]); err != nil {
		return err
	}
	return steps(
		b.doing("unlink", func() (work, error) {
			return b.each(made, func(i int) error { return unix.Unlink(b.path(names[i])) })
		}),
		func() error {
			for i := range 200 {
				if err := writeSmall(b.path(fmt.Sprintf("last-%d", i)), int64(i)); err != nil {
					return err
				}
			}
			return nil
		},
		b.doing("unmount dirty", func() (work, error) { return work{}, b.unmount() }),
	)
}

// checkSmall reads back some of the small files.
func checkSmall(b *bed, names []string) error {
	for i := 0; i < len(names); i += 97 {
		data, err := os.ReadFile(b.path(names[i]))
		if err != nil {
			return err
		}
		if len(data) != smallSize {
			return fmt.Errorf("%s has %d bytes, not %d", names[i], len(data), smallSize)
		}
		if err := verify(data, int64(i)<<12); err != nil {
			return fmt.Errorf("%s: %w", names[i], err)
		}
	}
	return nil
}

// list reads a folder and returns the number of its entries. With stat it asks
// for the attributes of each, as ls -l does.
func list(b *bed, path string, buf []byte, stat func(dirfd int, name string) error) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	n := 0
	var names []string
	for {
		size, err := unix.ReadDirent(fd, buf)
		if err != nil {
			return n, &os.PathError{Op: "readdir", Path: path, Err: err}
		}
		if size <= 0 {
			return n, b.ctx.Err()
		}
		var more int
		_, more, names = unix.ParseDirent(buf[:size], -1, names[:0])
		n += more
		if stat == nil {
			continue
		}
		for _, name := range names {
			if err := stat(fd, name); err != nil {
				return n, &os.PathError{Op: "stat", Path: filepath.Join(path, name), Err: err}
			}
		}
	}
}

func runWalk(b *bed) error {
	buf := make([]byte, 64<<10)
	dirs := (b.sc.files + perDir - 1) / perDir
	var st unix.Stat_t
	lstat := func(dirfd int, name string) error {
		return unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	walk := func(times int) func() (work, error) {
		return func() (work, error) {
			n := 0
			for range times {
				for d := range dirs {
					got, err := list(b, b.path(fmt.Sprintf("tree/dir-%03d", d)), buf, lstat)
					if err != nil {
						return work{}, err
					}
					n += got
				}
			}
			if n != times*b.sc.files {
				return work{}, fmt.Errorf("%d files, not %d", n, times*b.sc.files)
			}
			return work{units: float64(n)}, nil
		}
	}
	readdir := func(times int) func() (work, error) {
		return func() (work, error) {
			n := 0
			for range times {
				got, err := list(b, b.path("big"), buf, nil)
				if err != nil {
					return work{}, err
				}
				n += got
			}
			if n != times*b.sc.bigDir {
				return work{}, fmt.Errorf("%d entries, not %d", n, times*b.sc.bigDir)
			}
			return work{units: float64(n)}, nil
		}
	}
	return steps(
		b.cold,
		b.doing("stat cold", walk(1)),
		b.doing("stat warm", walk(5)),
		b.cold,
		b.doing("readdir cold", readdir(1)),
		b.doing("readdir warm", readdir(5)),
	)
}

func runRename(b *bed) error {
	names := treeNames(min(b.sc.files, 10000))
	last := (len(names) - 1) / perDir
	to := func(i int) string { return filepath.Join(filepath.Dir(names[i]), fmt.Sprintf("renamed-%06d", i)) }
	done := 0
	return steps(
		b.cold,
		b.doing("same folder", func() (work, error) {
			w, err := b.each(len(names), func(i int) error {
				return unix.Rename(b.path("tree/"+names[i]), b.path("tree/"+to(i)))
			})
			done = int(w.units)
			return w, err
		}),
		b.settle,
		b.doing("other folder", func() (work, error) {
			return b.each(done, func(i int) error {
				dir := (i/perDir + 1) % (last + 1)
				return unix.Rename(b.path("tree/"+to(i)), b.path(fmt.Sprintf("tree/dir-%03d/moved-%06d", dir, i)))
			})
		}),
	)
}

// tarball writes an archive of n files the shape of a source tree, the same
// in every run, unless it is there.
func tarball(path string, n int) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(out)
	when := time.Unix(1700000000, 0)
	data := make([]byte, 64<<10)
	for i := range data {
		data[i] = byte(i*7 + i>>8)
	}
	for i := range n {
		if i%40 == 0 {
			h := &tar.Header{Typeflag: tar.TypeDir, Name: tarDir(i), Mode: 0o755, ModTime: when}
			if i%400 == 0 {
				up := &tar.Header{Typeflag: tar.TypeDir, Name: filepath.Dir(filepath.Clean(tarDir(i))) + "/", Mode: 0o755, ModTime: when}
				if err := w.WriteHeader(up); err != nil {
					return err
				}
			}
			if err := w.WriteHeader(h); err != nil {
				return err
			}
		}
		// Mostly a few KiB, now and then much more.
		size := 512 + i*7919%8192
		if i%25 == 0 {
			size = 16384 + i*104729%49152
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%sfile-%05d.c", tarDir(i), i),
			Size: int64(size), Mode: 0o644, ModTime: when}
		if i%50 == 49 {
			h = &tar.Header{Typeflag: tar.TypeSymlink, Name: fmt.Sprintf("%slink-%05d", tarDir(i), i),
				Linkname: fmt.Sprintf("file-%05d.c", i-1), Mode: 0o777, ModTime: when}
			size = 0
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(data[:size]); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Flush()
}

func tarDir(i int) string { return fmt.Sprintf("src/part-%02d/sub-%03d/", i/400, i/40) }

func runTree(b *bed) error {
	n := b.sc.tarball
	archive := filepath.Join(b.r.work, "tree.tar")
	if err := tarball(archive, n); err != nil {
		return err
	}
	tool := func(name string, args ...string) func() (work, error) {
		return func() (work, error) { return work{units: float64(n)}, command(b.ctx, b.dir, name, args...) }
	}
	return steps(
		b.cold,
		b.doing("untar", tool("tar", "-xf", archive)),
		b.doing("sync", func() (work, error) { return work{}, b.settle() }),
		b.doing("cp -a", tool("cp", "-a", "src", "copy")),
		b.settle,
		func() error { return command(b.ctx, b.dir, "tar", "--compare", "-f", archive) },
		b.doing("rm -r", tool("rm", "-r", "src")),
		b.settle,
	)
}

func runMount(b *bed) error {
	for range b.sc.mounts {
		if err := dropImage(b.image); err != nil {
			return err
		}
		err := steps(
			b.doing("mount", func() (work, error) { return work{}, b.mount() }),
			b.doing("unmount", func() (work, error) { return work{}, b.unmount() }),
		)
		if err != nil {
			return err
		}
	}
	return nil
}
