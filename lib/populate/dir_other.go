//go:build !linux

package populate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// load reads what this system tells of files in a portable way: names, modes,
// times and contents. Owners, attributes, devices and hard links are for Linux.
func (s *dirSource) load(ctx context.Context, t *Tree) error {
	root, err := os.OpenRoot(s.path)
	if err != nil {
		return &EntryError{"open", s.path, err}
	}
	t.closers = append(t.closers, root)
	blob := t.addBlob(&dirBlob{root})
	skip, err := compileExcludes(t.opt.Exclude)
	if err != nil {
		return err
	}
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = interrupted(ctx)
		}
		if err != nil {
			return entryErr("read", "/"+path, err)
		}
		if path != "." && skip.match(path, d.IsDir()) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return entryErr("stat", "/"+path, err)
		}
		n := &node{mode: uint16(fi.Mode().Perm()), mtime: ondisk.Time{Sec: fi.ModTime().Unix(), Nsec: uint32(fi.ModTime().Nanosecond())}}
		n.atime = n.mtime
		switch fi.Mode().Type() {
		case 0:
			n.mode |= ondisk.ModeReg
			n.size, n.blob = fi.Size(), blob
		case fs.ModeDir:
			n.mode |= ondisk.ModeDir
		case fs.ModeSymlink:
			n.mode |= ondisk.ModeLnk
			target, err := root.Readlink(path)
			if err != nil {
				return entryErr("readlink", "/"+path, err)
			}
			target = filepath.ToSlash(target)
			n.size = int64(len(target))
			if n.aux, err = t.appendBytes([]byte(target)); err != nil {
				return entryErr("readlink", "/"+path, err)
			}
		default:
			return entryErr("read", "/"+path, fmt.Errorf("files of mode %v are read on Linux only: %w", fi.Mode(), errors.ErrUnsupported))
		}
		return entryErr("read", "/"+path, t.add(path, n, 0))
	})
}

type dirBlob struct{ root *os.Root }

func (b *dirBlob) open(path string, size, _ int64) (reader, error) {
	f, err := b.root.Open(path)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && (!fi.Mode().IsRegular() || fi.Size() != size) {
		err = fmt.Errorf("it has changed since it was looked at: %w", syscall.EAGAIN)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
