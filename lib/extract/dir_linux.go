package extract

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Dir takes trees out to the directory dest, which must exist. Owners are kept
// if the process may give files away; devices are made if it may. What is there
// already is not overwritten, but that directories are entered. Options.Warn is
// called by one goroutine at a time.
func Dir(r *ext2fs.Raw, roots []Root, dest string, o Options) error {
	fd, err := unix.Open(dest, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", dest, err)
	}
	d := &dirSink{r: r, o: o, owner: unix.Geteuid() == 0, stack: []*openDir{newDir(fd, nil)}, root: fd, jobs: make(chan job, 2*runtime.GOMAXPROCS(0))}
	if o.Warn != nil {
		o.Warn = func(path string, err error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.o.Warn(path, err)
		}
	}
	for range runtime.GOMAXPROCS(0) {
		d.workers.Add(1)
		go d.work(r.Clone(), o)
	}
	err = walk(r, roots, d, o)
	if err == nil { // all directories but dest have been left
		d.flush(d.top())
	}
	close(d.jobs)
	d.workers.Wait()
	for _, dir := range d.stack {
		_ = unix.Close(dir.fd) // it was read
	}
	return errors.Join(err, d.failure())
}

// dirSink writes below a directory. It goes by open directories and names that
// are one component, and follows no link, so that nothing leads out of it. The
// walk makes directories; regular files are made by several workers, who get
// those of a directory together: it is locked by each that makes one in it. The
// last to be done with a directory gives it its attributes.
type dirSink struct {
	r       *ext2fs.Raw
	o       Options
	owner   bool // files may be given away
	root    int
	stack   []*openDir // that the walk is in
	jobs    chan job
	workers sync.WaitGroup

	mu  sync.Mutex // held to call Warn
	err error      // guarded by mu: of a worker, that ends the work
}

// openDir is a directory out there, and the files that are to be made in it.
type openDir struct {
	fd      int
	n       *node // nil: it is not ours
	plain   bool  // files in it get the group of the process, and the mode that is asked for
	checked bool
	files   []*node      // of the next job
	users   atomic.Int32 // jobs, and the walk while it is in it
}

func newDir(fd int, n *node) *openDir {
	dir := &openDir{fd: fd, n: n}
	dir.users.Store(1)
	return dir
}

// isPlain says whether files made in dir get the group of the process, and the
// mode that they are made with, less the umask.
func (dir *openDir) isPlain() bool {
	if !dir.checked {
		var st unix.Stat_t
		_, err := unix.Fgetxattr(dir.fd, "system.posix_acl_default", nil)
		none := errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP)
		dir.plain = none && unix.Fstat(dir.fd, &st) == nil && st.Mode&unix.S_ISGID == 0
		dir.checked = true
	}
	return dir.plain
}

// job is files to be made in a directory.
type job struct {
	files []*node
	dir   *openDir
	plain bool
}

// jobFiles is how many files a job has at most.
const jobFiles = 128

// flush has the files that are waiting made.
func (d *dirSink) flush(dir *openDir) {
	if len(dir.files) > 0 {
		dir.users.Add(1)
		d.jobs <- job{dir.files, dir, dir.isPlain()}
		dir.files = nil
	}
}

// release is called by who is done with a directory.
func (m *maker) release(dir *openDir) error {
	if dir.users.Add(-1) > 0 {
		return nil
	}
	return errors.Join(m.attrs(dir.n, dir.fd, 0), unix.Close(dir.fd))
}

func (d *dirSink) top() *openDir { return d.stack[len(d.stack)-1] }

func (d *dirSink) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// work makes the regular files of jobs.
func (d *dirSink) work(r *ext2fs.Raw, o Options) {
	defer d.workers.Done()
	m := &maker{r: r, o: o, owner: d.owner, uid: unix.Geteuid(), gid: unix.Getegid(), umask: umask()}
	for j := range d.jobs {
		for _, n := range j.files {
			if d.failure() == nil {
				d.fail(n.path, m.regular(n, j.dir.fd, j.plain))
			}
		}
		if err := m.release(j.dir); err != nil {
			d.fail(j.dir.n.path, err)
		}
	}
}

// fail tells what a worker could not do. Unless it is only told, the work ends.
func (d *dirSink) fail(path string, err error) {
	switch {
	case err == nil:
	case d.o.Warn != nil && !errors.Is(err, ErrStopped):
		d.mu.Lock()
		defer d.mu.Unlock()
		d.o.Warn(path, err)
	default:
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.err == nil {
			d.err = fmt.Errorf("%s: %w", path, err)
		}
	}
}

func (d *dirSink) enter(n *node) error {
	name := path.Base(n.path)
	err := unix.Mkdirat(d.top().fd, name, 0o700)
	if err != nil && err != unix.EEXIST {
		return fmt.Errorf("mkdir: %w", err)
	}
	fd, err := unix.Openat(d.top().fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	d.stack = append(d.stack, newDir(fd, n))
	return nil
}

func (d *dirSink) leave(*node) error {
	dir := d.top()
	d.stack = d.stack[:len(d.stack)-1]
	d.flush(dir)
	m := maker{r: d.r, owner: d.owner}
	return m.release(dir)
}

func (d *dirSink) file(n *node) error {
	if err := d.failure(); err != nil {
		return ErrStopped // it is told at the end
	}
	dir := d.top()
	if n.link != "" {
		return d.hardlink(n)
	}
	m := maker{r: d.r, o: d.o, owner: d.owner}
	switch n.typ() {
	case ondisk.ModeReg:
		if n.raw.Base().LinksCount.Get() > 1 { // it is there before its other names
			return m.regular(n, dir.fd, false)
		}
		if dir.files = append(dir.files, n); len(dir.files) == jobFiles {
			d.flush(dir)
		}
		return nil
	case ondisk.ModeLnk:
		target, err := d.r.Readlink(n.ino)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(target, dir.fd, path.Base(n.path)); err != nil {
			return fmt.Errorf("symlink: %w", err)
		}
		return m.nameAttrs(n, dir.fd)
	case ondisk.ModeChr, ondisk.ModeBlk, ondisk.ModeFIFO, ondisk.ModeSock:
		major, minor := uint32(0), uint32(0)
		if t := n.typ(); t == ondisk.ModeChr || t == ondisk.ModeBlk {
			major, minor = device(n.raw)
		}
		mode := n.raw.Base().Mode.Get()
		if err := unix.Mknodat(dir.fd, path.Base(n.path), uint32(mode), int(unix.Mkdev(major, minor))); err != nil {
			return fmt.Errorf("mknod: %w", err)
		}
		return m.nameAttrs(n, dir.fd)
	}
	return fmt.Errorf("mode %#o: %w", n.raw.Base().Mode.Get(), ondisk.EUCLEAN)
}

// hardlink gives a file that is there another name. The way to it leads over
// directories only.
func (d *dirSink) hardlink(n *node) error {
	fd, err := unix.Openat2(d.root, path.Dir(n.link), &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return fmt.Errorf("link to %s: %w", n.link, err)
	}
	defer unix.Close(fd)
	if err := unix.Linkat(fd, path.Base(n.link), d.top().fd, path.Base(n.path), 0); err != nil {
		return fmt.Errorf("link to %s: %w", n.link, err)
	}
	return nil
}

// maker makes files, for one goroutine.
type maker struct {
	r     *ext2fs.Raw
	o     Options
	owner bool
	uid   int // of the process
	gid   int
	umask uint32
	buf   []byte

	window   []byte // of the device, from windowAt on
	windowAt int64
}

// umask returns the bits that files are made without, all if that is not known.
func umask() uint32 {
	b, _ := os.ReadFile("/proc/self/status") // not every process sees it
	_, rest, _ := strings.Cut(string(b), "\nUmask:")
	word, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseUint(strings.TrimSpace(word), 8, 32)
	if err != nil {
		return 0o777
	}
	return uint32(n)
}

// regular makes a file in dir, which may be plain.
func (m *maker) regular(n *node, dir int, plain bool) error {
	src, err := m.r.FileOf(n.ino, n.raw)
	if err != nil {
		return err
	}
	// A file belongs to who makes it.
	perm := uint32(0o600)
	mine := plain && int(n.raw.UID()) == m.uid && int(n.raw.GID()) == m.gid
	mode := uint32(n.raw.Base().Mode.Get() & 0o7777)
	asked := mine && mode&(m.umask|0o7000) == 0
	if asked {
		perm = mode
	}
	fd, err := unix.Openat(dir, path.Base(n.path), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	has := attrSet(0)
	if mine {
		has |= hasOwner
	}
	if asked {
		has |= hasMode
	}
	return errors.Join(m.content(fd, src), m.attrs(n, fd, has), unix.Close(fd))
}

// content copies what is not a hole. What cannot be read stays a hole.
func (m *maker) content(fd int, src *ext2fs.RawFile) (bad error) {
	if m.buf == nil {
		m.buf = make([]byte, tarChunk)
	}
	end := int64(0) // of what was written
	for off := int64(0); off < src.Size(); {
		if m.o.Stop != nil && m.o.Stop() {
			return ErrStopped
		}
		data, n, err := src.Segment(off)
		if err != nil {
			bad = fmt.Errorf("from byte %d on: %w", off, err)
			break
		}
		if !data {
			off += n
			continue
		}
		p := m.buf[:min(int64(len(m.buf)), n)]
		k, err := m.read(src, p, off)
		if err != nil && err != io.EOF && bad == nil {
			bad = fmt.Errorf("at byte %d: %w", off+int64(k), err)
		}
		for at := off; k > 0; {
			w, err := unix.Pwrite(fd, p[:k], at)
			if err != nil {
				return fmt.Errorf("write: %w", err)
			}
			p, k, at = p[w:], k-w, at+int64(w)
			end = at
		}
		off += min(int64(len(m.buf)), n)
	}
	if end != src.Size() {
		bad = errors.Join(bad, unix.Ftruncate(fd, src.Size()))
	}
	return bad
}

// windowSize is how much of the device is read for small files, which mostly lie
// one after the other.
const windowSize = 256 << 10

// read reads what is in one run of src, and of small files through the window.
func (m *maker) read(src *ext2fs.RawFile, p []byte, off int64) (int, error) {
	if src.Size() > windowSize/4 || src.Inline() {
		return src.ReadAt(p, off)
	}
	run, err := src.Map(off)
	if err != nil {
		return 0, err
	}
	bs := int64(m.r.BlockSize())
	at := int64(run.Pblk)*bs + off - int64(run.Lblk)*bs
	if i := at - m.windowAt; i < 0 || i+int64(len(p)) > int64(len(m.window)) {
		if m.window == nil {
			m.window = make([]byte, windowSize)
		}
		if int64(run.Pblk)+int64(run.Len) > int64(m.r.Blocks()) {
			return src.ReadAt(p, off) // which says what is wrong
		}
		n := min(windowSize, m.r.Device().Size()-at, int64(m.r.Blocks())*bs-at)
		m.window, m.windowAt = m.window[:0], at
		if n < int64(len(p)) {
			return src.ReadAt(p, off)
		}
		if _, err := m.r.Device().ReadAt(m.window[:n], at); err != nil {
			return src.ReadAt(p, off)
		}
		m.window = m.window[:n]
	}
	return copy(p, m.window[at-m.windowAt:]), nil
}

func stamps(n *node) [2]unix.Timespec {
	a, m := n.raw.Atime(), n.raw.Mtime()
	return [2]unix.Timespec{timespec(a), timespec(m)}
}

func timespec(t ondisk.Time) unix.Timespec {
	ts, err := unix.TimeToTimespec(goTime(t))
	if err != nil { // of a machine whose times have 32 bits
		return unix.Timespec{}
	}
	return ts
}

// attrSet are attributes that a file has from the start.
type attrSet int

const (
	hasOwner attrSet = 1 << iota
	hasMode
)

// attrs gives an open file the attributes of n that it does not have: the owner
// first, since that takes away what comes after.
func (m *maker) attrs(n *node, fd int, has attrSet) error {
	var errs []error
	if m.owner && has&hasOwner == 0 {
		errs = append(errs, unix.Fchown(fd, int(n.raw.UID()), int(n.raw.GID())))
	}
	if has&hasMode == 0 {
		errs = append(errs, unix.Fchmod(fd, uint32(n.raw.Base().Mode.Get()&0o7777)))
	}
	list, err := xattrs(m.r, n)
	errs = append(errs, err)
	for _, x := range list {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			errs = append(errs, fmt.Errorf("attribute %s: %w", x.Name, err))
		}
	}
	ts := stamps(n)
	// Without a path the call is about the descriptor, which no wrapper offers.
	if _, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0); e != 0 {
		errs = append(errs, fmt.Errorf("times: %w", e))
	}
	return errors.Join(errs...)
}

// nameAttrs gives a symbolic link, device, fifo or socket its attributes.
func (m *maker) nameAttrs(n *node, dir int) error {
	name := path.Base(n.path)
	var errs []error
	if m.owner {
		errs = append(errs, unix.Fchownat(dir, name, int(n.raw.UID()), int(n.raw.GID()), unix.AT_SYMLINK_NOFOLLOW))
	}
	if n.typ() != ondisk.ModeLnk {
		errs = append(errs, chmodNoFollow(dir, name, uint32(n.raw.Base().Mode.Get()&0o7777)))
	}
	ts := stamps(n)
	errs = append(errs, unix.UtimesNanoAt(dir, name, ts[:], unix.AT_SYMLINK_NOFOLLOW))
	return errors.Join(errs...)
}

// chmodNoFollow changes the mode of what has the name, unless that is a symbolic
// link by now: who may write to the directory can have put one there.
func chmodNoFollow(dir int, name string, mode uint32) error {
	err := unix.Fchmodat(dir, name, mode, unix.AT_SYMLINK_NOFOLLOW)
	if err != unix.EOPNOTSUPP {
		return err
	}
	// Linux before 6.6 has no such call.
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.ELOOP
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
}
