package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupFiles, request{names: []string{"rwrite"}, args: "source... directory",
		help: "copy trees in, with all that files have", needs: needFS | needWrite | needMaps, min: 2, max: -1, run: rwrite})
}

// importer copies trees in.
type importer struct {
	s     *session
	fs    *ext2fs.FS
	links map[[2]uint64]ondisk.Ino // of files with several names, by device and inode out there
}

func rwrite(s *session, a *args) error {
	n := len(a.words) - 1
	dir, err := s.directory(a.words[n])
	if err != nil {
		return err
	}
	return s.with(dir, func(fs *ext2fs.FS, dp *ext2fs.Inode) error {
		im := &importer{s: s, fs: fs, links: map[[2]uint64]ondisk.Ino{}}
		for _, src := range a.words[:n] {
			if err := im.add(dp, src, filepath.Base(filepath.Clean(src))); err != nil {
				return err
			}
		}
		return nil
	})
}

// add copies the file src to name in dp.
func (im *importer) add(dp *ext2fs.Inode, src, name string) error {
	if im.s.interrupted() {
		return errInterrupted
	}
	st, err := os.Lstat(src)
	if err != nil {
		return err
	}
	sys := st.Sys().(*syscall.Stat_t)
	key := [2]uint64{uint64(sys.Dev), sys.Ino}
	if ino, ok := im.links[key]; ok {
		ip, err := im.fs.Iget(ino)
		if err != nil {
			return err
		}
		defer ip.Put()
		return im.fs.Link(ip, dp, name)
	}
	mode := uint16(sys.Mode)
	var ip *ext2fs.Inode
	switch mode & ondisk.ModeFmt {
	case ondisk.ModeDir:
		ip, err = im.fs.Mkdir(dp, name, mode&0o7777, rootCred)
		if errors.Is(err, syscall.EEXIST) { // what is there stays, and gets more
			if ip, err = im.fs.Lookup(dp, name); err == nil {
				defer ip.Put()
				return im.children(ip, src)
			}
		}
	case ondisk.ModeLnk:
		target, e := os.Readlink(src)
		if e != nil {
			return e
		}
		ip, err = im.fs.Symlink(dp, name, target, rootCred)
	default:
		major, minor := unix.Major(sys.Rdev), unix.Minor(sys.Rdev)
		rdev := minor&0xff | major<<8 | minor&^0xff<<12
		if t := mode & ondisk.ModeFmt; t == ondisk.ModeReg || t == ondisk.ModeFIFO || t == ondisk.ModeSock {
			rdev = 0
		}
		ip, err = im.fs.Create(dp, name, mode, rdev, rootCred)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", src, err)
	}
	defer ip.Put()
	if sys.Nlink > 1 && mode&ondisk.ModeFmt != ondisk.ModeDir {
		im.links[key] = ip.Ino()
	}
	if err := im.fill(ip, src, st); err != nil {
		return fmt.Errorf("%s: %w", src, err)
	}
	set := ext2fs.SetAttr{Valid: ext2fs.SetUID | ext2fs.SetGID | ext2fs.SetAtime | ext2fs.SetMtime, UID: sys.Uid, GID: sys.Gid,
		Atime: diskTime(sys.Atim), Mtime: diskTime(sys.Mtim)}
	if mode&ondisk.ModeFmt != ondisk.ModeLnk {
		set.Valid |= ext2fs.SetMode // a change of owner takes bits away
		set.Mode = mode & 0o7777
	}
	return ip.Setattr(&set)
}

func diskTime(t syscall.Timespec) ondisk.Time {
	return ondisk.Time{Sec: int64(t.Sec), Nsec: uint32(t.Nsec)}
}

// fill copies what is in a file or directory, and its attributes.
func (im *importer) fill(ip *ext2fs.Inode, src string, st os.FileInfo) error {
	if !st.Mode().IsRegular() && !st.IsDir() {
		return nil
	}
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	if st.IsDir() {
		if err := im.children(ip, src); err != nil {
			return err
		}
	} else if err := copyIn(ip, f, st, im.s.interrupted); err != nil {
		return err
	}
	return copyXattrs(ip, f)
}

func (im *importer) children(ip *ext2fs.Inode, src string) error {
	list, err := os.ReadDir(src) // in order of name
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := im.add(ip, filepath.Join(src, e.Name()), e.Name()); err != nil {
			return err
		}
	}
	return nil
}
