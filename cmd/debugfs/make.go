package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	const write = needFS | needWrite | needMaps
	register(groupFiles,
		request{names: []string{"mkdir"}, args: "directory", help: "make a directory", needs: write, min: 1, max: 1, run: mkdir},
		request{names: []string{"rmdir"}, args: "directory", help: "remove an empty directory", needs: write, min: 1, max: 1, run: rmdir},
		request{names: []string{"rm"}, args: "file", help: "remove a name, and the file with its last one", needs: write, min: 1, max: 1, run: rm},
		request{names: []string{"link", "ln"}, args: "file name", help: "add a name for an inode; no link is counted", needs: write, min: 2, max: 2, run: link},
		request{names: []string{"unlink"}, args: "name", help: "remove a name; no link is taken away", needs: write, min: 1, max: 1, run: unlink},
		request{names: []string{"symlink"}, args: "name target", help: "make a symbolic link", needs: write, min: 2, max: 2, run: symlink},
		request{names: []string{"mknod"}, args: "name p | name c|b major minor", help: "make a fifo or a device", needs: write, min: 2, max: 4, run: mknod},
		request{names: []string{"write"}, args: "source [name]", help: "copy a file in, with its holes and attributes", needs: write, min: 1, max: 2, run: writeFile},
		request{names: []string{"expand_dir", "expand"}, args: "directory", help: "add a block to a directory", needs: write, min: 1, max: 1, run: expandDir},
	)
	register(groupBlocks,
		request{names: []string{"fallocate"}, args: "file start [end]", help: "give unwritten blocks to a file, where it has none (zeros, if it has no extents)", needs: write, min: 2, max: 3, run: fallocate},
		request{names: []string{"punch", "truncate"}, args: "file start [end]", help: "take blocks from a file", needs: write, min: 2, max: 3, run: punch},
	)
	register(groupXattrs,
		request{names: []string{"ea_set"}, args: "[-f file] [-r] file name [value]", help: "set an attribute; -f: to what a file has; -r: as it is stored",
			needs: write, min: 2, max: 3, opts: options("f:r"), run: eaSet},
		request{names: []string{"ea_rm"}, args: "file name...", help: "remove attributes", needs: write, min: 2, max: -1, run: eaRm},
	)
}

// root is on whose behalf files are made.
var rootCred = ext2fs.Cred{Verbatim: true}

func mkdir(s *session, a *args) error {
	return s.inDir(a.word(0), func(fs *ext2fs.FS, dp *ext2fs.Inode, name string) error {
		ip, err := fs.Mkdir(dp, name, 0o755, rootCred)
		if err == nil {
			ip.Put()
		}
		return err
	})
}

func rmdir(s *session, a *args) error {
	return s.inDir(a.word(0), func(fs *ext2fs.FS, dp *ext2fs.Inode, name string) error { return fs.Rmdir(dp, name) })
}

func rm(s *session, a *args) error {
	return s.inDir(a.word(0), func(fs *ext2fs.FS, dp *ext2fs.Inode, name string) error { return fs.Unlink(dp, name) })
}

func link(s *session, a *args) error {
	ino, err := s.inode(a.word(0))
	if err != nil {
		return err
	}
	mode, err := s.names().Mode(ino)
	if err != nil {
		return err
	}
	to := a.word(1)
	if _, err := s.directory(to); err == nil {
		to = path.Join(to, path.Base(a.word(0)))
	}
	return s.inDir(to, func(fs *ext2fs.FS, dp *ext2fs.Inode, name string) error {
		return fs.AddEntry(dp, name, ino, ondisk.FileType(mode))
	})
}

func unlink(s *session, a *args) error {
	return s.inDir(a.word(0), func(fs *ext2fs.FS, dp *ext2fs.Inode, name string) error { return fs.RemoveEntry(dp, name) })
}

func symlink(s *session, a *args) error {
	return s.inDir(a.word(0), func(fs *ext2fs.FS, dp *ext2fs.Inode, name string) error {
		ip, err := fs.Symlink(dp, name, a.word(1), rootCred)
		if err == nil {
			ip.Put()
		}
		return err
	})
}

// created tells the number of an inode that was made.
func (s *session) created(ip *ext2fs.Inode) {
	if s.json {
		_ = s.emit(map[string]any{"ino": ip.Ino()}) // a number
	} else {
		fmt.Fprintf(s.out, "Allocated inode: %d\n", ip.Ino())
	}
}

func mknod(s *session, a *args) error {
	mode, rdev := uint16(0), uint32(0)
	switch kind := a.word(1); {
	case kind == "p" && len(a.words) == 2:
		mode = ondisk.ModeFIFO
	case (kind == "c" || kind == "b") && len(a.words) == 4:
		mode = map[string]uint16{"c": ondisk.ModeChr, "b": ondisk.ModeBlk}[kind]
		major, err := parseNumber(a.word(2), 12)
		if err != nil {
			return fmt.Errorf("major number: %w", err)
		}
		minor, err := parseNumber(a.word(3), 20)
		if err != nil {
			return fmt.Errorf("minor number: %w", err)
		}
		rdev = uint32(minor&0xff | major<<8 | minor&^0xff<<12)
	default:
		return usagef("p takes no numbers, c and b take two")
	}
	return s.inDir(a.word(0), func(fs *ext2fs.FS, dp *ext2fs.Inode, name string) error {
		ip, err := fs.Create(dp, name, mode, rdev, rootCred)
		if err != nil {
			return err
		}
		defer ip.Put()
		s.created(ip)
		return nil
	})
}

func expandDir(s *session, a *args) error {
	ino, err := s.directory(a.word(0))
	if err != nil {
		return err
	}
	return s.with(ino, func(fs *ext2fs.FS, ip *ext2fs.Inode) error {
		return fs.ExpandDir(ip)
	})
}

// writeFile copies a file in. If that fails half way nothing of it stays.
func writeFile(s *session, a *args) error {
	src, err := os.Open(a.word(0))
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	to := a.word(1)
	if to == "" {
		to = path.Base(a.word(0))
	}
	return s.inDir(to, func(fs *ext2fs.FS, dp *ext2fs.Inode, name string) error {
		ip, err := fs.Create(dp, name, ondisk.ModeReg|uint16(hostMode(st)), 0, rootCred)
		if err != nil {
			return err
		}
		defer ip.Put()
		if err = firstError(copyIn(ip, src, st, s.interrupted), copyXattrs(ip, src)); err != nil {
			return firstError(err, fs.Unlink(dp, name))
		}
		s.created(ip)
		return nil
	})
}

// copyIn writes the content of src, without its holes.
func copyIn(ip *ext2fs.Inode, src *os.File, st os.FileInfo, stop func() bool) error {
	if !st.Mode().IsRegular() {
		return copyStream(ip, src, stop)
	}
	size := st.Size()
	buf := make([]byte, min(copyChunk, size))
	for off := int64(0); off < size; {
		data, end, err := nextData(src, off, size)
		if err != nil {
			return err
		}
		if data >= size {
			break
		}
		for off = data; off < min(end, size); {
			if stop() {
				return errInterrupted
			}
			n, err := src.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
			if n > 0 {
				if _, err := ip.WriteAt(buf[:n], off); err != nil {
					return err
				}
			}
			off += int64(n)
			if err == io.EOF || n == 0 {
				size = off
			} else if err != nil {
				return err
			}
		}
	}
	if ip.Size() < size {
		return ip.Setattr(&ext2fs.SetAttr{Valid: ext2fs.SetSize, Size: size})
	}
	return nil
}

func copyStream(ip *ext2fs.Inode, src io.Reader, stop func() bool) error {
	buf := make([]byte, copyChunk)
	for off := int64(0); ; {
		if stop() {
			return errInterrupted
		}
		n, err := io.ReadFull(src, buf)
		if n > 0 {
			if _, err := ip.WriteAt(buf[:n], off); err != nil {
				return err
			}
		}
		off += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// blockSpan reads "start [end]", numbers of blocks of a file, as bytes; without
// an end n is -1.
func (s *session) blockSpan(a *args) (ino ondisk.Ino, off, n int64, err error) {
	ino, err = s.inode(a.word(0))
	if err != nil {
		return 0, 0, 0, err
	}
	start, err := parseNumber(a.word(1), 32)
	if err != nil {
		return 0, 0, 0, err
	}
	fs, err := s.useFS()
	if err != nil {
		return 0, 0, 0, err
	}
	bs := int64(fs.BlockSize())
	off, n = int64(start)*bs, -1
	if a.word(2) != "" {
		end, err := parseNumber(a.word(2), 32)
		if err != nil {
			return 0, 0, 0, err
		}
		if end < start {
			return 0, 0, 0, fmt.Errorf("block %d is before block %d", end, start)
		}
		n = int64(end-start+1) * bs
	}
	return ino, off, n, nil
}

// fallocate without an end goes on until there is no more space.
func fallocate(s *session, a *args) error {
	ino, off, n, err := s.blockSpan(a)
	if err != nil {
		return err
	}
	const mode = ext2fs.FallocKeepSize | ext2fs.FallocPrivileged
	return s.with(ino, func(fs *ext2fs.FS, ip *ext2fs.Inode) error {
		if err := ip.Fallocate(mode, off, max(n, 1)); n >= 0 || err != nil {
			var no *ondisk.UnsupportedError
			if errors.Is(err, syscall.EOPNOTSUPP) && !errors.As(err, &no) {
				err = fillHoles(ip, off, n)
			}
			return err
		}
		for step := int64(1) << 30; step >= int64(fs.BlockSize()) && !s.interrupted(); {
			err := ip.Fallocate(mode, off, min(step, ip.MaxBytes()-off))
			switch {
			case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EFBIG):
				step /= 2
			case err != nil:
				return err
			default:
				off += step
			}
			if off >= ip.MaxBytes() {
				break
			}
		}
		return nil
	})
}

// fillHoles is fallocate for files without extents, whose blocks cannot be
// unwritten, nor behind the end of the file.
func fillHoles(ip *ext2fs.Inode, off, n int64) error {
	bs := int64(ip.FS().BlockSize())
	if n < 0 {
		n = ip.MaxBytes() - off
	} else if off+n > (ip.Size()+bs-1)/bs*bs {
		return errors.New("a file without extents cannot have blocks behind its end: raise its size first, by sif")
	}
	return ip.FillHoles(off, n)
}

func punch(s *session, a *args) error {
	ino, off, n, err := s.blockSpan(a)
	if err != nil {
		return err
	}
	return s.with(ino, func(_ *ext2fs.FS, ip *ext2fs.Inode) error {
		if n < 0 {
			n = ip.MaxBytes() - off
		}
		if n <= 0 {
			return nil
		}
		return ip.Fallocate(ext2fs.FallocKeepSize|ext2fs.FallocPunchHole, off, min(n, ip.MaxBytes()-off))
	})
}

func eaSet(s *session, a *args) error {
	file, fromFile := a.value("f")
	var value []byte
	switch {
	case fromFile == (len(a.words) == 3):
		return usagef("give a value, or a file by -f")
	case fromFile:
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		value = b
	default:
		value = parseCString(a.word(2))
	}
	name := a.word(1)
	ino, err := s.inode(a.word(0))
	if err != nil {
		return err
	}
	if a.has("r") {
		if value, err = ext2fs.XattrFromDisk(name, value); err != nil {
			return err
		}
	}
	return s.with(ino, func(_ *ext2fs.FS, ip *ext2fs.Inode) error { return ip.Setxattr(name, value, 0, false) })
}

func eaRm(s *session, a *args) error {
	ino, err := s.inode(a.word(0))
	if err != nil {
		return err
	}
	return s.with(ino, func(_ *ext2fs.FS, ip *ext2fs.Inode) error {
		for _, name := range a.words[1:] {
			err := ip.Removexattr(name)
			if errors.Is(err, ondisk.ENODATA) {
				err = errNoXattr
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
}
