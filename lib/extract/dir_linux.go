package extract

import (
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"sync"
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
	d := &dirSink{r: r, o: o, owner: unix.Geteuid() == 0, stack: []*openDir{{fd: fd}}, root: fd, jobs: make(chan job, 64)}
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
	close(d.jobs)
	d.workers.Wait()
	for _, dir := range d.stack {
		_ = unix.Close(dir.fd) // it was read
	}
	return errors.Join(err, d.failure())
}

// dirSink writes below a directory. It goes by open directories and names that
// are one component, and follows no link, so that nothing leads out of it. The
// walk makes directories; regular files are made by several workers.
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

// openDir is a directory out there, and the files that are being made in it.
type openDir struct {
	fd      int
	setgid  bool // files in it do not get the group of the process
	checked bool
	pending sync.WaitGroup
}

// inherits says whether files made in dir get its group.
func (dir *openDir) inherits() bool {
	if !dir.checked {
		var st unix.Stat_t
		dir.setgid = unix.Fstat(dir.fd, &st) != nil || st.Mode&unix.S_ISGID != 0
		dir.checked = true
	}
	return dir.setgid
}

type job struct {
	n      *node
	dir    *openDir
	setgid bool
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
	m := &maker{r: r, o: o, owner: d.owner, uid: unix.Geteuid(), gid: unix.Getegid()}
	for j := range d.jobs {
		if err := m.regular(j.n, j.dir.fd, j.setgid); err != nil {
			if o.Warn != nil && !errors.Is(err, ErrStopped) {
				o.Warn(j.n.path, err)
			} else {
				d.mu.Lock()
				d.err = fmt.Errorf("%s: %w", j.n.path, err)
				d.mu.Unlock()
			}
		}
		j.dir.pending.Done()
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
	d.stack = append(d.stack, &openDir{fd: fd})
	return nil
}

func (d *dirSink) leave(n *node) error {
	dir := d.top()
	d.stack = d.stack[:len(d.stack)-1]
	dir.pending.Wait()
	m := maker{r: d.r, owner: d.owner}
	err := m.attrs(n, dir.fd, false)
	return errors.Join(err, unix.Close(dir.fd))
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
			return m.regular(n, dir.fd, true)
		}
		dir.pending.Add(1)
		d.jobs <- job{n, dir, dir.inherits()}
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
	buf   []byte

	window   []byte // of the device, from windowAt on
	windowAt int64
}

func (m *maker) regular(n *node, dir int, setgid bool) error {
	src, err := m.r.FileOf(n.ino, n.raw)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(dir, path.Base(n.path), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	// A file belongs to who makes it.
	mine := !setgid && int(n.raw.UID()) == m.uid && int(n.raw.GID()) == m.gid
	return errors.Join(m.content(fd, src), m.attrs(n, fd, mine), unix.Close(fd))
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

// attrs gives an open file the attributes of n: the owner first, since that
// takes away what comes after. mine says that it has that already.
func (m *maker) attrs(n *node, fd int, mine bool) error {
	var errs []error
	if m.owner && !mine {
		errs = append(errs, unix.Fchown(fd, int(n.raw.UID()), int(n.raw.GID())))
	}
	errs = append(errs, unix.Fchmod(fd, uint32(n.raw.Base().Mode.Get()&0o7777)))
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
	if n.typ() != ondisk.ModeLnk { // it was just made, and is no link
		errs = append(errs, unix.Fchmodat(dir, name, uint32(n.raw.Base().Mode.Get()&0o7777), 0))
	}
	ts := stamps(n)
	errs = append(errs, unix.UtimesNanoAt(dir, name, ts[:], unix.AT_SYMLINK_NOFOLLOW))
	return errors.Join(errs...)
}
