//go:build linux

package testfs

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Tree is what a folder holds: every name below it, by its path from there.
// The folder itself is ".".
type Tree map[string]*Node

// A Node is what the system says about a name.
type Node struct {
	Ino          uint64
	Mode         uint32 // st_mode, with the type
	Nlink        uint32
	UID, GID     uint32
	Rdev         uint64 // of devices
	Size         int64  // bytes
	Blocks       int64  // of 512 bytes
	Atime, Mtime Stamp
	Ctime, Btime Stamp
	Target       string            // of symbolic links
	Xattrs       map[string]string // system.posix_acl_* included
	Sum          [sha256.Size]byte // of the contents of a regular file
	Data         []Range           // where SEEK_DATA finds data
	Link         string            // the first path of the same file, itself if it has but one
}

// A Stamp is a time in nanoseconds since 1970, or Unknown.
type Stamp int64

// Unknown is a time that the file system does not keep, or a model not predict.
const Unknown Stamp = -1 << 63

func (s Stamp) String() string {
	if s == Unknown {
		return "unknown"
	}
	return time.Unix(0, int64(s)).UTC().Format("2006-01-02T15:04:05.999999999")
}

// A Range is a run of bytes of a file.
type Range struct{ Off, End int64 }

// Snapshot reads the tree below dir, of one file system only. It changes no
// access times where it may (O_NOATIME); symbolic links are the exception.
func Snapshot(dir string) (Tree, error) { return SnapshotFunc(dir, nil) }

// SnapshotFunc is Snapshot that also hands the contents of regular files to
// inspect, in pieces of up to 1 MiB, in order. An error of it ends the reading.
func SnapshotFunc(dir string, inspect func(path string, off int64, data []byte) error) (Tree, error) {
	s := snapshot{tree: Tree{}, links: map[uint64]string{}, buf: make([]byte, 1<<20), inspect: inspect}
	fd, err := openAt(unix.AT_FDCWD, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	s.dev = st.Dev
	n, err := s.stat(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, &os.PathError{Op: "statx", Path: dir, Err: err}
	}
	s.tree["."] = n
	if n.Xattrs, err = xattrsOf(s.buf, fdAttrs(fd)); err != nil {
		return nil, &os.PathError{Op: "xattrs", Path: dir, Err: err}
	}
	if err := s.dir(fd, "."); err != nil {
		return nil, err
	}
	// Paths were met in the order of the directories; links are named after
	// the first in the order of names, so that it is the same everywhere.
	first := map[uint64]string{}
	for p, n := range s.tree {
		if l, ok := first[n.Ino]; !ok || p < l {
			first[n.Ino] = p
		}
	}
	for _, n := range s.tree {
		n.Link = first[n.Ino]
	}
	return s.tree, nil
}

// MustSnapshot is Snapshot in a test.
func MustSnapshot(t testing.TB, dir string) Tree {
	t.Helper()
	tree, err := Snapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

type snapshot struct {
	tree  Tree
	links map[uint64]string // inode number of a file with links: a path already read
	dev   uint64
	buf   []byte

	inspect func(path string, off int64, data []byte) error
}

func openAt(dirfd int, name string, flags int) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_NOATIME, 0)
		if err == unix.EPERM {
			fd, err = unix.Openat(dirfd, name, flags, 0)
		}
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func (s *snapshot) dir(fd int, at string) error {
	names, err := dirNames(fd)
	if err != nil {
		return &os.PathError{Op: "getdents", Path: at, Err: err}
	}
	for _, name := range names {
		if err := s.name(fd, path.Join(at, name), name); err != nil {
			return err
		}
	}
	return nil
}

func (s *snapshot) name(dirfd int, p, name string) error {
	wrap := func(op string, err error) error { return &os.PathError{Op: op, Path: p, Err: err} }
	n, err := s.stat(dirfd, name, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return wrap("statx", err)
	}
	if s.tree[p] != nil {
		return wrap("getdents", fmt.Errorf("the name comes twice"))
	}
	s.tree[p] = n
	if n.Mode&unix.S_IFMT != unix.S_IFDIR && n.Nlink > 1 {
		if l, ok := s.links[n.Ino]; ok {
			o := s.tree[l]
			n.Target, n.Xattrs, n.Sum, n.Data = o.Target, o.Xattrs, o.Sum, o.Data
			return nil
		}
		s.links[n.Ino] = p
	}
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFDIR, unix.S_IFREG:
		fd, err := openAt(dirfd, name, unix.O_RDONLY)
		if err != nil {
			return wrap("open", err)
		}
		defer unix.Close(fd)
		if n.Xattrs, err = xattrsOf(s.buf, fdAttrs(fd)); err != nil {
			return wrap("xattrs", err)
		}
		if n.Mode&unix.S_IFMT == unix.S_IFREG {
			return s.contents(fd, p, n)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return wrap("stat", err)
		}
		if st.Dev != s.dev {
			return nil // another file system is mounted here
		}
		return s.dir(fd, p)
	case unix.S_IFLNK:
		l, err := unix.Readlinkat(dirfd, name, s.buf)
		if err != nil {
			return wrap("readlink", err)
		}
		n.Target = string(s.buf[:l])
	}
	// What is not opened is reached by its path, below the folder's descriptor.
	n.Xattrs, err = xattrsOf(s.buf, pathAttrs(fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, name)))
	if err != nil {
		return wrap("xattrs", err)
	}
	return nil
}

func (s *snapshot) contents(fd int, p string, n *Node) error {
	h := sha256.New()
	var off int64
	for {
		l, err := unix.Pread(fd, s.buf, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: fmt.Sprintf("read at %d of", off), Path: p, Err: err}
		}
		if l == 0 {
			break
		}
		h.Write(s.buf[:l])
		if s.inspect != nil {
			if err := s.inspect(p, off, s.buf[:l]); err != nil {
				return &os.PathError{Op: "read", Path: p, Err: err}
			}
		}
		off += int64(l)
	}
	if off != n.Size {
		return &os.PathError{Op: "read", Path: p, Err: fmt.Errorf("%d bytes where size is %d", off, n.Size)}
	}
	h.Sum(n.Sum[:0])
	for off = 0; off < n.Size; {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		if err != nil {
			return &os.PathError{Op: "SEEK_DATA in", Path: p, Err: err}
		}
		off, err = unix.Seek(fd, data, unix.SEEK_HOLE)
		if err == unix.ENOENT {
			// Linux 6.18 on inline data that ends before the size does.
			off, err = n.Size, nil
		}
		if err != nil {
			return &os.PathError{Op: "SEEK_HOLE in", Path: p, Err: err}
		}
		if off <= data {
			return &os.PathError{Op: "SEEK_HOLE in", Path: p, Err: fmt.Errorf("went from %d to %d", data, off)}
		}
		n.Data = append(n.Data, Range{data, off})
	}
	return nil
}

func (s *snapshot) stat(dirfd int, name string, flags int) (*Node, error) {
	var st unix.Statx_t
	err := unix.Statx(dirfd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	if err != nil {
		return nil, err
	}
	stamp := func(t unix.StatxTimestamp) Stamp { return Stamp(t.Sec*1e9 + int64(t.Nsec)) }
	n := &Node{
		Ino: st.Ino, Mode: uint32(st.Mode), Nlink: st.Nlink, UID: st.Uid, GID: st.Gid,
		Size: int64(st.Size), Blocks: int64(st.Blocks),
		Atime: stamp(st.Atime), Mtime: stamp(st.Mtime), Ctime: stamp(st.Ctime), Btime: Unknown,
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		n.Btime = stamp(st.Btime)
	}
	if f := n.Mode & unix.S_IFMT; f == unix.S_IFCHR || f == unix.S_IFBLK {
		n.Rdev = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	}
	return n, nil
}

// dirNames returns the names of an open folder in its own order.
func dirNames(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 256<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// attrs reads the extended attributes of one file.
type attrs struct {
	list func(buf []byte) (int, error)
	get  func(name string, buf []byte) (int, error)
}

func fdAttrs(fd int) attrs {
	return attrs{
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) },
	}
}

func pathAttrs(p string) attrs {
	return attrs{
		func(b []byte) (int, error) { return unix.Llistxattr(p, b) },
		func(name string, b []byte) (int, error) { return unix.Lgetxattr(p, name, b) },
	}
}

func xattrsOf(buf []byte, a attrs) (map[string]string, error) {
	n, err := a.list(buf[:64<<10])
	if err == unix.EOPNOTSUPP || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	m := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		v, err := a.get(name, buf)
		if err != nil {
			return nil, fmt.Errorf("get %s: %w", name, err)
		}
		if _, twice := m[name]; twice {
			return nil, fmt.Errorf("%s is listed twice", name)
		}
		m[name] = string(buf[:v])
	}
	return m, nil
}

// An Aspect is a part of a Node that a comparison may leave out.
type Aspect uint

const (
	Ino     Aspect = 1 << iota // inode numbers
	Nlink                      // link counts of folders
	DirSize                    // sizes of folders
	Blocks                     // space used
	Atime
	Mtime
	Ctime
	Btime
	Holes // where SEEK_DATA finds data
	Xattrs
	Sums // contents of files

	// Times are all four.
	Times = Atime | Mtime | Ctime | Btime
	// Content leaves what names, modes, owners, sizes, links, xattrs and bytes
	// are: equal on any correct file system after the same operations.
	Content = Ino | DirSize | Blocks | Times | Holes
	// Layout is what the kernel may report differently of one image, depending
	// on what it has cached.
	Layout = Holes
)

// Diff says in what b differs from a, a line each, in the order of paths. It
// compares all but the aspects of skip.
func Diff(a, b Tree, skip Aspect) []string {
	var out []string
	all := make([]string, 0, len(a))
	for p := range a {
		all = append(all, p)
	}
	for p := range b {
		if a[p] == nil {
			all = append(all, p)
		}
	}
	slices.Sort(all)
	for _, p := range all {
		switch x, y := a[p], b[p]; {
		case x == nil:
			out = append(out, fmt.Sprintf("%s: not expected: %s", p, y.kind()))
		case y == nil:
			out = append(out, fmt.Sprintf("%s: missing: %s", p, x.kind()))
		default:
			out = x.diff(out, p, y, skip)
		}
	}
	return out
}

func (n *Node) kind() string {
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "folder"
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFREG:
		return fmt.Sprintf("file of %d bytes", n.Size)
	}
	return fmt.Sprintf("special file, mode %#o", n.Mode)
}

func (n *Node) diff(out []string, p string, o *Node, skip Aspect) []string {
	differ := func(what string, a, b any) {
		out = append(out, fmt.Sprintf("%s: %s is %v, expected %v", p, what, b, a))
	}
	num := func(what string, a, b uint64, aspect Aspect) {
		if a != b && skip&aspect == 0 {
			differ(what, a, b)
		}
	}
	stamp := func(what string, a, b Stamp, aspect Aspect) {
		if a != b && skip&aspect == 0 && a != Unknown && b != Unknown {
			differ(what, a, b)
		}
	}
	if n.Mode != o.Mode {
		differ("mode", fmt.Sprintf("%#o", n.Mode), fmt.Sprintf("%#o", o.Mode))
		if (n.Mode^o.Mode)&unix.S_IFMT != 0 {
			return out
		}
	}
	isDir := n.Mode&unix.S_IFMT == unix.S_IFDIR
	var dirNlink, dirSize Aspect
	if isDir {
		dirNlink, dirSize = Nlink, DirSize
	}
	num("inode number", n.Ino, o.Ino, Ino)
	num("link count", uint64(n.Nlink), uint64(o.Nlink), dirNlink)
	num("uid", uint64(n.UID), uint64(o.UID), 0)
	num("gid", uint64(n.GID), uint64(o.GID), 0)
	num("rdev", n.Rdev, o.Rdev, 0)
	num("size", uint64(n.Size), uint64(o.Size), dirSize)
	num("block count", uint64(n.Blocks), uint64(o.Blocks), Blocks)
	stamp("atime", n.Atime, o.Atime, Atime)
	stamp("mtime", n.Mtime, o.Mtime, Mtime)
	stamp("ctime", n.Ctime, o.Ctime, Ctime)
	stamp("btime", n.Btime, o.Btime, Btime)
	if n.Target != o.Target {
		differ("target", brief(n.Target), brief(o.Target))
	}
	if n.Link != o.Link && !isDir {
		differ("first link", n.Link, o.Link)
	}
	if n.Sum != o.Sum && skip&Sums == 0 {
		differ("content hash", fmt.Sprintf("%x", n.Sum[:6]), fmt.Sprintf("%x", o.Sum[:6]))
	}
	if skip&Holes == 0 && !slices.Equal(n.Data, o.Data) {
		differ("data layout", n.Data, o.Data)
	}
	if skip&Xattrs != 0 {
		return out
	}
	for _, name := range slices.Sorted(maps.Keys(n.Xattrs)) {
		if v, ok := o.Xattrs[name]; !ok {
			out = append(out, fmt.Sprintf("%s: xattr %s is missing", p, name))
		} else if v != n.Xattrs[name] {
			differ("xattr "+name, brief(n.Xattrs[name]), brief(v))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Xattrs)) {
		if _, ok := n.Xattrs[name]; !ok {
			out = append(out, fmt.Sprintf("%s: xattr %s is not expected", p, name))
		}
	}
	return out
}

// brief shows a value so that a line stays a line.
func brief(v string) string {
	if len(v) <= 40 {
		return fmt.Sprintf("%q", v)
	}
	sum := sha256.Sum256([]byte(v))
	return fmt.Sprintf("%q... (%d bytes, sha256 %x)", v[:24], len(v), sum[:4])
}

// Same fails the test if b differs from a in more than the aspects of skip,
// with the first differences.
func Same(t testing.TB, what string, a, b Tree, skip Aspect) {
	t.Helper()
	d := Diff(a, b, skip)
	if len(d) == 0 {
		return
	}
	var buf bytes.Buffer
	for _, l := range d[:min(len(d), 20)] {
		fmt.Fprintf(&buf, "\n\t%s", l)
	}
	t.Errorf("%s: %d differences%s", what, len(d), buf.String())
}
