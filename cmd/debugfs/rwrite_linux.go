package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
			if err := im.add(dp, place{path: src, name: src}, filepath.Base(filepath.Clean(src))); err != nil {
				return err
			}
		}
		return nil
	})
}

// place is a file out there: a name in an open directory, which no link that
// somebody makes meanwhile leads out of, or a path.
type place struct {
	dir  *os.Root // nil: name is a path
	name string
	path string // for messages
}

func (p place) lstat() (os.FileInfo, error) {
	if p.dir == nil {
		return os.Lstat(p.name)
	}
	return p.dir.Lstat(p.name)
}

func (p place) readlink() (string, error) {
	if p.dir == nil {
		return os.Readlink(p.name)
	}
	return p.dir.Readlink(p.name)
}

// open opens the file that lstat has told st of.
func (p place) open(st os.FileInfo) (f *os.File, err error) {
	const flags = os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOFOLLOW
	if p.dir == nil {
		f, err = os.OpenFile(p.name, flags, 0)
	} else {
		f, err = p.dir.OpenFile(p.name, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	now, err := f.Stat()
	if err == nil && !os.SameFile(st, now) {
		err = fmt.Errorf("it has changed since it was looked at: %w", syscall.EAGAIN)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (p place) openRoot() (*os.Root, error) {
	if p.dir == nil {
		return os.OpenRoot(p.name)
	}
	return p.dir.OpenRoot(p.name)
}

// add copies the file src to name in dp.
func (im *importer) add(dp *ext2fs.Inode, src place, name string) error {
	if im.s.interrupted() {
		return errInterrupted
	}
	st, err := src.lstat()
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
		target, e := src.readlink()
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
		return fmt.Errorf("%s: %w", src.path, err)
	}
	defer ip.Put()
	if sys.Nlink > 1 && mode&ondisk.ModeFmt != ondisk.ModeDir {
		im.links[key] = ip.Ino()
	}
	if err := im.fill(ip, src, st); err != nil {
		return fmt.Errorf("%s: %w", src.path, err)
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
func (im *importer) fill(ip *ext2fs.Inode, src place, st os.FileInfo) error {
	if !st.Mode().IsRegular() && !st.IsDir() {
		return nil
	}
	f, err := src.open(st)
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

func (im *importer) children(ip *ext2fs.Inode, src place) error {
	dir, err := src.openRoot()
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if err = firstError(err, f.Close()); err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := im.add(ip, place{dir, name, filepath.Join(src.path, name)}, name); err != nil {
			return err
		}
	}
	return nil
}
