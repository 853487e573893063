package populate

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func (s *dirSource) load(ctx context.Context, t *Tree) error {
	fd, err := unix.Open(s.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &EntryError{"open", s.path, err}
	}
	root := os.NewFile(uintptr(fd), s.path)
	t.closers = append(t.closers, root)
	skip, err := compileExcludes(t.opt.Exclude)
	if err != nil {
		return err
	}
	w := &dirWalk{ctx: ctx, t: t, skip: skip}
	r := &dirReader{dirWalk: w, blob: t.addBlob(&dirBlob{root: root, fd: fd}), fd: fd, bufs: sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &EntryError{"stat", s.path, err}
	}
	if err := r.fill(&t.root, &st); err != nil {
		return &EntryError{"stat", s.path, err}
	}
	if err := r.attrs(&t.root, fd, ".", ""); err != nil {
		return &EntryError{"attributes of", s.path, err}
	}
	return w.run(r.read)
}

// dirBlob is a directory whose files have the paths of the tree.
type dirBlob struct {
	root *os.File
	fd   int
}

// dirFile is an open file of it.
type dirFile struct {
	fd    int
	size  int64
	state int64 // see stateOf
}

func openBeneath(dirfd int, path string, flags int) (int, error) {
	if path == "" {
		path = "."
	}
	for {
		fd, err := openat2(dirfd, path, &unix.OpenHow{
			Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NOATIME),
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err == unix.EPERM { // not the owner: then without O_NOATIME
			fd, err = openat2(dirfd, path, &unix.OpenHow{
				Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW),
				Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
			})
		}
		if err == unix.ENOSYS {
			fd, err = openSteps(dirfd, path, flags)
		}
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// openat2 came with Linux 5.6, and a filter of system calls may not know it.
var openat2 = unix.Openat2

// openSteps opens a path one name after the other, so that a directory on the
// way that has become a symbolic link leads nowhere.
func openSteps(dirfd int, path string, flags int) (int, error) {
	at := dirfd
	for {
		name, rest, more := strings.Cut(path, "/")
		how := flags
		if more {
			how = unix.O_PATH | unix.O_DIRECTORY
		}
		fd, err := unix.Openat(at, name, how|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if at != dirfd {
			unix.Close(at)
		}
		if err != nil || !more {
			return fd, err
		}
		at, path = fd, rest
	}
}

func (b *dirBlob) open(path string, size, at int64) (reader, error) {
	fd, err := openBeneath(b.fd, path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := &dirFile{fd: fd, size: size, state: at}
	if err := f.same(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return f, nil
}

// same fails if the file is not as it was when the tree was loaded: what was
// measured would not fit, and who may put another file in its place would choose
// what a file of another owner holds, one that is set-user-ID, say.
func (f *dirFile) same() error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != f.size || stateOf(&st) != f.state {
		return fmt.Errorf("it has changed since it was looked at: %w", syscall.EAGAIN)
	}
	return nil
}

// stateOf returns a number for which file it is and when it was last changed, in
// any way: what node.at is of a file in a directory.
func stateOf(st *unix.Stat_t) int64 {
	h := fnv.New64a()
	var b [32]byte
	for i, v := range [...]uint64{uint64(st.Dev), st.Ino, uint64(st.Ctim.Sec), uint64(st.Ctim.Nsec)} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	h.Write(b[:])
	return int64(h.Sum64() >> 16) // places in the file are added to it
}

func (f *dirFile) ReadAt(p []byte, off int64) (int, error) {
	off -= f.state
	n := 0
	for n < len(p) {
		k, err := unix.Pread(f.fd, p[n:], off+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		if k == 0 {
			return n, fmt.Errorf("it has become shorter: %w", syscall.EAGAIN)
		}
		n += k
	}
	return n, nil
}

func (f *dirFile) Close() error {
	err := f.same()
	if e := unix.Close(f.fd); err == nil {
		err = e
	}
	return err
}

type dirReader struct {
	*dirWalk
	blob uint32
	fd   int // of the source
	bufs sync.Pool
	tree sync.Mutex // for changing the tree
}

// namesAtOnce is how many names of a directory are read at a time.
const namesAtOnce = 1024

// read reads one directory: its names, and what they are. dirs tells whether
// directories are among them.
func (r *dirReader) read(path string, id nodeID) (dirs bool, err error) {
	fd, err := openBeneath(r.fd, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false, &EntryError{"open", "/" + path, err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	below := path
	if path != "" {
		below += "/"
	}
	for {
		names, err := f.Readdirnames(namesAtOnce)
		if err == io.EOF {
			return dirs, nil
		}
		if err != nil {
			return dirs, &EntryError{"read", "/" + path, errnoOf(err)}
		}
		if strings.Count(path, "/") >= maxDepth {
			return dirs, &EntryError{"read", "/" + path, badInput("more than %d directories deep", maxDepth)}
		}
		for _, name := range names {
			dir, err := r.entry(fd, id, name, below+name)
			if err != nil {
				return dirs, entryErr("read", "/"+below+name, err)
			}
			dirs = dirs || dir
		}
		if err := interrupted(r.ctx); err != nil {
			return dirs, err
		}
	}
}

func errnoOf(err error) error {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no
	}
	return err
}

// entry reads what a name is, and puts it into the tree.
func (r *dirReader) entry(dirfd int, parent nodeID, name, path string) (dir bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, &EntryError{"stat", "/" + path, err}
	}
	dir = st.Mode&unix.S_IFMT == unix.S_IFDIR
	if r.skip.match(path, dir) {
		return false, nil
	}
	several := !dir && st.Nlink > 1
	if several {
		if done, err := r.linked(parent, name, &st); done || err != nil {
			return false, err
		}
	}
	n, err := r.node(dirfd, name, path, &st)
	if err != nil {
		return false, err
	}
	r.tree.Lock()
	defer r.tree.Unlock()
	if several { // another worker may have met it meanwhile
		if done, err := r.linkedLocked(parent, name, &st); done || err != nil {
			return false, err
		}
	}
	id, err := r.t.putNew(parent, name, n, 0)
	if err == nil && several {
		err = r.t.setInode(uint64(st.Dev), st.Ino, id)
	}
	return dir, err
}

// linked gives a file that was met by another name this one too. done is false
// if it was not met.
func (r *dirReader) linked(parent nodeID, name string, st *unix.Stat_t) (done bool, err error) {
	r.tree.Lock()
	defer r.tree.Unlock()
	return r.linkedLocked(parent, name, st)
}

func (r *dirReader) linkedLocked(parent nodeID, name string, st *unix.Stat_t) (done bool, err error) {
	id, err := r.t.inode(uint64(st.Dev), st.Ino)
	if id == 0 || err != nil {
		return false, err
	}
	return true, r.t.putLink(parent, name, dirent{id: id, lnk: st.Mode&unix.S_IFMT == unix.S_IFLNK})
}

func (r *dirReader) node(dirfd int, name, path string, st *unix.Stat_t) (*node, error) {
	n := &node{}
	if err := r.fill(n, st); err != nil {
		return nil, err
	}
	switch {
	case n.isLnk():
		b := make([]byte, 4096)
		k, err := unix.Readlinkat(dirfd, name, b)
		if err != nil {
			return nil, &EntryError{"readlink", "/" + path, err}
		}
		n.size = int64(k)
		if n.aux, err = r.t.appendBytes(b[:k]); err != nil {
			return nil, err
		}
	case n.isReg():
		n.blob, n.at = r.blob, stateOf(st)
		if err := readable(n, dirfd, name); err != nil {
			return nil, &EntryError{"read", "/" + path, err}
		}
		// Fewer blocks than bytes: a file with holes, or compressed. Where blocks
		// that are zero become holes anyway, what the source has does not matter.
		if n.size > 0 && st.Blocks*512 < n.size {
			if err := r.holes(n, dirfd, name); err != nil {
				return nil, &EntryError{"look for holes in", "/" + path, err}
			}
		}
	}
	if err := r.attrs(n, dirfd, name, path); err != nil {
		return nil, &EntryError{"attributes of", "/" + path, err}
	}
	return n, nil
}

// readable fails if a file whose contents are wanted later cannot be opened: now
// nothing is written yet. What everybody may read is not asked about.
func readable(n *node, dirfd int, name string) error {
	if n.size == 0 || n.mode&0o444 == 0o444 {
		return nil
	}
	return unix.Faccessat(dirfd, name, unix.R_OK, unix.AT_EACCESS)
}

// fill takes what stat tells.
func (r *dirReader) fill(n *node, st *unix.Stat_t) error {
	n.mode = uint16(st.Mode)
	n.uid, n.gid = st.Uid, st.Gid
	n.atime = ondisk.Time{Sec: int64(st.Atim.Sec), Nsec: uint32(st.Atim.Nsec)}
	n.mtime = ondisk.Time{Sec: int64(st.Mtim.Sec), Nsec: uint32(st.Mtim.Nsec)}
	n.implied = false
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK:
		n.size = st.Size
	case unix.S_IFCHR, unix.S_IFBLK:
		n.rdev = encodeDev(unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	case unix.S_IFDIR, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return badInput("it is of a type that ext4 does not have (mode %#o)", st.Mode)
	}
	return nil
}

// holes finds where a file has data.
func (r *dirReader) holes(n *node, dirfd int, name string) error {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	segs := segWriter{s: r.t.store}
	for off := int64(0); off < n.size; {
		a, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		if err == unix.EINVAL { // the file system does not know
			return nil
		}
		if err != nil {
			return err
		}
		b, err := unix.Seek(fd, a, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if a = max(a, off); a >= n.size {
			break
		}
		if b = min(b, n.size); b <= a {
			break
		}
		if a == 0 && b == n.size { // no holes
			return nil
		}
		if err := segs.add(seg{a, b - a, a}); err != nil {
			return err
		}
		off = b
	}
	n.aux, err = segs.end()
	return err
}

// attrs reads the extended attributes of an entry.
func (r *dirReader) attrs(n *node, dirfd int, name, path string) error {
	if r.t.opt.NoXattrs {
		return nil
	}
	bp := r.bufs.Get().(*[]byte)
	defer r.bufs.Put(bp)
	k, err := listXattrs(dirfd, name, *bp)
	if err == unix.EOPNOTSUPP || err == nil && k == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	at := procPath(dirfd, name)
	var list []xattr
	for full := range strings.SplitSeq(strings.TrimSuffix(string((*bp)[:k]), "\x00"), "\x00") {
		if !knownXattr(full) {
			r.t.warn("/"+path, "attribute %s is left out: ext4 has no such namespace", full)
			continue
		}
		v, err := unix.Lgetxattr(at, full, *bp)
		if err == unix.ENODATA { // of a namespace that only the super-user reads
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", full, err)
		}
		list = append(list, xattr{full, string((*bp)[:v])})
	}
	r.tree.Lock()
	defer r.tree.Unlock()
	n.attrs, err = r.t.share(list)
	return err
}

// procPath is a path of an entry of an open directory.
func procPath(dirfd int, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, name) }

// noListxattrat is set where the kernel has no listxattrat(2), which came with
// Linux 6.13, or a filter of system calls does not know it.
var noListxattrat atomic.Bool

// listXattrs fills buf with the names of an entry's attributes. Most entries
// have none, and to find that out by a path below /proc takes as long as all
// else that is asked about them.
func listXattrs(dirfd int, name string, buf []byte) (int, error) {
	if !noListxattrat.Load() {
		p, err := unix.BytePtrFromString(name)
		if err != nil {
			return 0, err
		}
		n, _, e := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(dirfd), uintptr(unsafe.Pointer(p)), unix.AT_SYMLINK_NOFOLLOW,
			uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), 0)
		switch e {
		case 0:
			return int(n), nil
		case unix.ENOSYS, unix.EPERM:
			noListxattrat.Store(true)
		default:
			return 0, e
		}
	}
	return unix.Llistxattr(procPath(dirfd, name), buf)
}
