package extract

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Dir takes trees out to the directory dest, which must exist. Owners are kept
// if the process may give files away; devices are made if it may. What is there
// already is not overwritten, but that directories are entered.
func Dir(r *ext2fs.Raw, roots []Root, dest string, o Options) error {
	root, err := os.OpenRoot(dest)
	if err != nil {
		return err
	}
	defer root.Close()
	d := &dirSink{r: r, root: root, o: o, owner: os.Geteuid() == 0}
	return walk(r, roots, d, o)
}

// dirSink writes below root, out of which no path leads, whatever links there
// are.
type dirSink struct {
	r     *ext2fs.Raw
	root  *os.Root
	o     Options
	owner bool // files may be given away
	buf   []byte
}

func (d *dirSink) enter(n *node) error {
	err := d.root.Mkdir(n.path, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, e := d.root.Lstat(n.path)
	if e == nil && st.IsDir() {
		return nil
	}
	return err
}

func (d *dirSink) leave(n *node) error {
	f, err := d.root.Open(n.path)
	if err != nil {
		return err
	}
	defer f.Close()
	return d.attrs(n, f)
}

func (d *dirSink) file(n *node) error {
	if n.link != "" {
		return d.root.Link(n.link, n.path)
	}
	switch n.typ() {
	case ondisk.ModeReg:
		return d.regular(n)
	case ondisk.ModeLnk:
		target, err := d.r.Readlink(n.ino)
		if err != nil {
			return err
		}
		if err := d.root.Symlink(target, n.path); err != nil {
			return err
		}
		return errors.Join(d.chown(n), d.linkTimes(n))
	case ondisk.ModeChr, ondisk.ModeBlk, ondisk.ModeFIFO, ondisk.ModeSock:
		return d.special(n)
	}
	return fmt.Errorf("mode %#o: %w", n.raw.Base().Mode.Get(), ondisk.EUCLEAN)
}

func (d *dirSink) regular(n *node) error {
	src, err := d.r.FileOf(n.ino, n.raw)
	if err != nil {
		return err
	}
	f, err := d.root.OpenFile(n.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(d.content(f, src), f.Truncate(src.Size()), d.attrs(n, f))
	return errors.Join(err, f.Close())
}

// content copies what is not a hole. What cannot be read stays a hole.
func (d *dirSink) content(f *os.File, src *ext2fs.RawFile) (bad error) {
	if d.buf == nil {
		d.buf = make([]byte, tarChunk)
	}
	for off := int64(0); off < src.Size(); {
		if d.o.Stop != nil && d.o.Stop() {
			return ErrStopped
		}
		data, n, err := src.Segment(off)
		if err != nil {
			return fmt.Errorf("from byte %d on: %w", off, err)
		}
		if !data {
			off += n
			continue
		}
		p := d.buf[:min(int64(len(d.buf)), n)]
		k, err := src.ReadAt(p, off)
		if err != nil && err != io.EOF && bad == nil {
			bad = fmt.Errorf("at byte %d: %w", off+int64(k), err)
		}
		if _, err := f.WriteAt(p[:k], off); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return bad
}

func (d *dirSink) special(n *node) error {
	dir, err := d.root.Open(path.Dir(n.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	major, minor := uint32(0), uint32(0)
	if t := n.typ(); t == ondisk.ModeChr || t == ondisk.ModeBlk {
		major, minor = device(n.raw)
	}
	name := path.Base(n.path)
	mode := n.raw.Base().Mode.Get()
	if err := unix.Mknodat(int(dir.Fd()), name, uint32(mode), int(unix.Mkdev(major, minor))); err != nil {
		return fmt.Errorf("mknod: %w", err)
	}
	return errors.Join(d.chown(n), d.root.Chmod(n.path, modeOf(mode)), d.linkTimes(n))
}

func (d *dirSink) chown(n *node) error {
	if !d.owner {
		return nil
	}
	return d.root.Lchown(n.path, int(n.raw.UID()), int(n.raw.GID()))
}

func stamp(t ondisk.Time) unix.Timespec { return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)} }

// linkTimes sets the times of a symbolic link or device itself.
func (d *dirSink) linkTimes(n *node) error {
	dir, err := d.root.Open(path.Dir(n.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	ts := []unix.Timespec{stamp(n.raw.Atime()), stamp(n.raw.Mtime())}
	return unix.UtimesNanoAt(int(dir.Fd()), path.Base(n.path), ts, unix.AT_SYMLINK_NOFOLLOW)
}

func modeOf(mode uint16) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	if mode&ondisk.ModeSUID != 0 {
		m |= fs.ModeSetuid
	}
	if mode&ondisk.ModeSGID != 0 {
		m |= fs.ModeSetgid
	}
	if mode&ondisk.ModeSVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// attrs gives an open file the attributes of n: the owner first, since that
// takes away what comes after.
func (d *dirSink) attrs(n *node, f *os.File) error {
	var errs []error
	if d.owner {
		errs = append(errs, f.Chown(int(n.raw.UID()), int(n.raw.GID())))
	}
	errs = append(errs, f.Chmod(modeOf(n.raw.Base().Mode.Get())))
	list, err := xattrs(d.r, n)
	errs = append(errs, err)
	for _, x := range list {
		if err := unix.Fsetxattr(int(f.Fd()), x.Name, x.Value, 0); err != nil {
			errs = append(errs, fmt.Errorf("attribute %s: %w", x.Name, err))
		}
	}
	at, mt := n.raw.Atime(), n.raw.Mtime()
	ts := []unix.Timespec{stamp(at), stamp(mt)}
	errs = append(errs, unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), ts, 0))
	return errors.Join(errs...)
}
