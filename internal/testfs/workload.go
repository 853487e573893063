//go:build linux

package testfs

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Workload runs a mixed load in dir, an empty folder of a mounted file system
// but for lost+found, and returns the tree that it expects there. The same seed
// and scale make the same calls. Scale 1 is about 600 operations and a folder
// of 1,000 names, in some 10 MiB.
//
// What the file system says it does not support (EOPNOTSUPP, and the like of it
// where the call has its own word) is left out and changes nothing; any other
// failure ends the load. Reads on the way are compared with the model. It takes
// root, for device nodes and owners.
func Workload(dir string, seed uint64, scale int) (Tree, error) {
	w, err := newLoad(dir, seed)
	if err != nil {
		return nil, err
	}
	if err := w.bigDir("big", 1000*scale); err != nil {
		return nil, err
	}
	if err := w.deepDir("deep", 40); err != nil {
		return nil, err
	}
	if err := w.mixed(600 * scale); err != nil {
		return nil, err
	}
	if err := w.stamp(); err != nil {
		return nil, err
	}
	return w.model.tree(), nil
}

// ErrContents is in the error of a load that read other bytes than it wrote.
var ErrContents = errors.New("wrong contents")

// BigDir makes a folder of n files, renames and removes some of them, and
// returns the tree expected in dir, which was empty but for lost+found.
func BigDir(dir string, n int) (Tree, error) {
	w, err := newLoad(dir, 1)
	if err != nil {
		return nil, err
	}
	if err := w.bigDir("big", n); err != nil {
		return nil, err
	}
	return w.model.tree(), nil
}

type load struct {
	dir   string
	rng   *rand.Rand
	model model
	dirs  []string // paths of folders, sorted as made
	files []string // paths of all else
	next  int      // number of the next name
	what  string   // the operation under way, for errors
	align int64    // of ranges that are collapsed and inserted
}

func newLoad(dir string, seed uint64) (*load, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	root := &file{mode: st.Mode, uid: st.Uid, gid: st.Gid, names: map[string]*file{}, nlink: 2, mtime: Unknown}
	w := &load{
		dir: dir, rng: rand.New(rand.NewPCG(seed, 0x65326b6974)),
		model: model{root: root, umask: currentUmask()}, dirs: []string{"."}, align: 64 << 10,
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range names {
		if e.Name() != "lost+found" {
			return nil, fmt.Errorf("%s is not empty: %s", dir, e.Name())
		}
		if err := unix.Stat(path.Join(dir, e.Name()), &st); err != nil {
			return nil, err
		}
		lf := w.model.create(root, e.Name(), st.Mode)
		lf.mode, lf.uid, lf.gid = st.Mode, st.Uid, st.Gid
	}
	return w, nil
}

func currentUmask() uint32 {
	status, err := os.ReadFile("/proc/self/status")
	if err == nil {
		if _, rest, ok := strings.Cut(string(status), "\nUmask:"); ok {
			var m uint32
			if _, err := fmt.Sscanf(rest, "%o", &m); err == nil {
				return m
			}
		}
	}
	return 0o022
}

// notSupported are the answers of file systems without the feature that an
// operation asks for.
var notSupported = []error{unix.EOPNOTSUPP, unix.ENOSYS}

func (w *load) p(rel string) string { return path.Join(w.dir, rel) }

// lookup returns the model's file at a path.
func (w *load) lookup(rel string) *file {
	f := w.model.root
	if rel == "." {
		return f
	}
	for name := range strings.SplitSeq(rel, "/") {
		f = f.names[name]
	}
	return f
}

func (w *load) parent(rel string) (*file, string) {
	return w.lookup(path.Dir(rel)), path.Base(rel)
}

// check returns done=true if err allows the operation to count. An error of
// tolerated leaves the tree as it was.
func (w *load) check(err error, tolerated ...error) (done bool, _ error) {
	if err == nil {
		return true, nil
	}
	for _, e := range tolerated {
		if errors.Is(err, e) {
			return false, nil
		}
	}
	return false, fmt.Errorf("%s: %w", w.what, err)
}

func (w *load) name() string {
	w.next++
	n := fmt.Sprintf("n%d", w.next)
	switch w.rng.IntN(8) {
	case 0:
		n += strings.Repeat("x", w.rng.IntN(200))
	case 1:
		n += "-\xc3\xa9\xe2\x82\xac" // bytes above 0x7f: signed and unsigned hashes differ
	case 2:
		n += " with\tblanks\n"
	}
	return n
}

// pick returns one of the paths, or "".
func (w *load) pick(paths []string, ok func(*file) bool) string {
	for range 8 {
		if len(paths) == 0 {
			return ""
		}
		p := paths[w.rng.IntN(len(paths))]
		if ok == nil || ok(w.lookup(p)) {
			return p
		}
	}
	return ""
}

// newPath returns a path in some folder that is not taken.
func (w *load) newPath() string {
	return path.Join(w.dirs[w.rng.IntN(len(w.dirs))], w.name())
}

func (w *load) bytes(n int) []byte {
	b := make([]byte, n)
	x := w.rng.Uint64()
	for i := range b {
		if i%8 == 0 {
			x = x*6364136223846793005 + 1442695040888963407
		}
		b[i] = byte(x >> (8 * (i % 8)))
	}
	return b
}

// length returns a length in bytes, of the sizes where forms change: inline,
// within a block, some blocks, many.
func (w *load) length() int {
	switch w.rng.IntN(10) {
	case 0:
		return 0
	case 1, 2:
		return 1 + w.rng.IntN(60)
	case 3:
		return 1 + w.rng.IntN(400)
	case 4, 5, 6:
		return 1 + w.rng.IntN(5000)
	case 7, 8:
		return 1 + w.rng.IntN(70000)
	}
	return 1 + w.rng.IntN(400000)
}

// bigDir fills a folder until its index has levels, takes a third of it away
// again and moves some.
func (w *load) bigDir(rel string, n int) error {
	w.what = "mkdir " + rel
	if err := unix.Mkdir(w.p(rel), 0o755); err != nil {
		return fmt.Errorf("%s: %w", w.what, err)
	}
	d := w.model.create(w.model.root, rel, unix.S_IFDIR|0o755)
	fd, err := unix.Open(w.p(rel), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	name := func(i int) string { return fmt.Sprintf("entry-%07d-%x", i, uint32(i)*2654435761) }
	for i := range n {
		w.what = "create " + name(i)
		f, err := unix.Openat(fd, name(i), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return fmt.Errorf("%s: %w", w.what, err)
		}
		unix.Close(f)
		w.model.create(d, name(i), unix.S_IFREG|0o644)
	}
	for i := 0; i < n; i += 3 {
		w.what = "unlink " + name(i)
		if err := unix.Unlinkat(fd, name(i), 0); err != nil {
			return fmt.Errorf("%s: %w", w.what, err)
		}
		w.model.unlink(d, name(i))
	}
	for i := 1; i < n; i += 31 {
		if i%3 == 0 {
			continue
		}
		to := "moved-" + name(i)
		w.what = "rename " + name(i)
		if err := unix.Renameat(fd, name(i), fd, to); err != nil {
			return fmt.Errorf("%s: %w", w.what, err)
		}
		d.names[to] = d.names[name(i)]
		delete(d.names, name(i))
	}
	return nil
}

// deepDir makes folders within folders, with a file in each fourth.
func (w *load) deepDir(rel string, depth int) error {
	at := rel
	for i := range depth {
		w.what = "mkdir " + at
		if err := unix.Mkdir(w.p(at), 0o750); err != nil {
			return fmt.Errorf("%s: %w", w.what, err)
		}
		dir, name := w.parent(at)
		w.model.create(dir, name, unix.S_IFDIR|0o750)
		if i%4 == 3 {
			w.dirs = append(w.dirs, at)
		}
		at = path.Join(at, fmt.Sprintf("level%d", i))
	}
	return nil
}

// mixed runs n operations.
func (w *load) mixed(n int) error {
	type op struct {
		weight int
		name   string
		run    func() error
	}
	ops := []op{
		{14, "create", w.opCreate}, {10, "write", w.opWrite}, {4, "sparse", w.opSparse},
		{6, "truncate", w.opTruncate}, {8, "mkdir", w.opMkdir}, {4, "rmdir", w.opRmdir},
		{8, "unlink", w.opUnlink}, {9, "rename", w.opRename}, {4, "exchange", w.opExchange},
		{5, "link", w.opLink}, {5, "symlink", w.opSymlink}, {10, "xattr", w.opXattr},
		{4, "acl", w.opACL}, {4, "chmod", w.opChmod}, {4, "chown", w.opChown}, {8, "fallocate", w.opFallocate},
		{3, "mknod", w.opMknod}, {2, "tmpfile", w.opTmpfile}, {3, "orphan", w.opOrphan},
		{2, "fsync", w.opFsync}, {6, "read", w.opRead}, {2, "copy", w.opCopyRange},
	}
	total := 0
	for _, o := range ops {
		total += o.weight
	}
	for i := range n {
		r := w.rng.IntN(total)
		for _, o := range ops {
			if r -= o.weight; r < 0 {
				w.what = o.name
				if err := o.run(); err != nil {
					return fmt.Errorf("operation %d, %w", i, err)
				}
				break
			}
		}
	}
	return nil
}

func (w *load) opCreate() error {
	p := w.newPath()
	data := w.bytes(w.length())
	w.what = fmt.Sprintf("create %q of %d bytes", p, len(data))
	mode := []uint32{0o644, 0o600, 0o755, 0o666, 0o440}[w.rng.IntN(5)]
	fd, err := unix.Open(w.p(p), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, mode)
	if ok, err := w.check(err); !ok {
		return err
	}
	defer unix.Close(fd)
	dir, name := w.parent(p)
	f := w.model.create(dir, name, unix.S_IFREG|mode)
	w.files = append(w.files, p)
	// In pieces, so that a file grows from form to form.
	for off := 0; off < len(data); {
		n := min(len(data)-off, 1+w.rng.IntN(100000))
		if err := w.pwrite(fd, f, data[off:off+n], int64(off)); err != nil {
			return err
		}
		off += n
	}
	return nil
}

func (w *load) pwrite(fd int, f *file, p []byte, off int64) error {
	n, err := unix.Pwrite(fd, p, off)
	if err == nil && n != len(p) {
		err = fmt.Errorf("wrote %d of %d bytes", n, len(p))
	}
	if err != nil {
		return fmt.Errorf("%s: write at %d: %w", w.what, off, err)
	}
	f.pwrite(p, off)
	return nil
}

// open opens some regular file for writing; p is "" if there is none.
func (w *load) open(flags int) (p string, f *file, fd int, err error) {
	p = w.pick(w.files, (*file).isReg)
	if p == "" {
		return "", nil, -1, nil
	}
	f = w.lookup(p)
	w.what += fmt.Sprintf(" %q", p)
	fd, err = unix.Open(w.p(p), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		err = fmt.Errorf("%s: open: %w", w.what, err)
	}
	return p, f, fd, err
}

func (w *load) opWrite() error {
	p, f, fd, err := w.open(unix.O_RDWR)
	if err != nil || p == "" {
		return err
	}
	defer unix.Close(fd)
	off := int64(w.rng.IntN(len(f.data) + 1))
	if w.rng.IntN(3) == 0 {
		off = int64(len(f.data))
	}
	return w.pwrite(fd, f, w.bytes(w.length()), off)
}

const maxSparse = 12 << 20 // bytes: some files reach indirect blocks of the second kind

func (w *load) opSparse() error {
	p, f, fd, err := w.open(unix.O_RDWR)
	if err != nil || p == "" {
		return err
	}
	defer unix.Close(fd)
	off := int64(len(f.data)) + int64(w.rng.IntN(1<<20))
	if w.rng.IntN(12) == 0 {
		off = int64(w.rng.IntN(maxSparse))
	}
	return w.pwrite(fd, f, w.bytes(1+w.rng.IntN(3000)), off)
}

func (w *load) opTruncate() error {
	p, f, fd, err := w.open(unix.O_RDWR)
	if err != nil || p == "" {
		return err
	}
	defer unix.Close(fd)
	size := int64(w.rng.IntN(len(f.data) + 1))
	switch w.rng.IntN(4) {
	case 0:
		size = 0
	case 1:
		size = int64(len(f.data) + w.rng.IntN(200000))
	}
	w.what += fmt.Sprintf(" from %d to %d", len(f.data), size)
	if ok, err := w.check(unix.Ftruncate(fd, size)); !ok {
		return err
	}
	f.truncate(size)
	return nil
}

func (w *load) opMkdir() error {
	p := w.newPath()
	mode := []uint32{0o755, 0o700, 0o1777, 0o775}[w.rng.IntN(4)]
	w.what += fmt.Sprintf(" %q", p)
	if ok, err := w.check(unix.Mkdir(w.p(p), mode)); !ok {
		return err
	}
	dir, name := w.parent(p)
	w.model.create(dir, name, unix.S_IFDIR|mode)
	w.dirs = append(w.dirs, p)
	return nil
}

func (w *load) opRmdir() error {
	p := w.pick(w.dirs[1:], nil)
	if p == "" {
		return nil
	}
	w.what += fmt.Sprintf(" %q", p)
	err := unix.Rmdir(w.p(p))
	if len(w.lookup(p).names) > 0 {
		if err != unix.ENOTEMPTY && err != unix.EEXIST {
			return fmt.Errorf("%s, not empty: got %v", w.what, err)
		}
		return nil
	}
	if ok, err := w.check(err); !ok {
		return err
	}
	w.forget(p)
	return nil
}

// forget takes a path out of the model and out of the lists.
func (w *load) forget(p string) {
	dir, name := w.parent(p)
	w.model.unlink(dir, name)
	drop := func(q string) bool { return q == p }
	w.dirs = slices.DeleteFunc(w.dirs, drop)
	w.files = slices.DeleteFunc(w.files, drop)
}

func (w *load) opUnlink() error {
	p := w.pick(w.files, nil)
	if p == "" || len(w.files) < 20 {
		return nil
	}
	w.what += fmt.Sprintf(" %q", p)
	if ok, err := w.check(unix.Unlink(w.p(p))); !ok {
		return err
	}
	w.forget(p)
	return nil
}

func (w *load) opRename() error {
	switch w.rng.IntN(5) {
	case 0: // a folder
		p := w.pick(w.dirs[1:], nil)
		to := w.newPath()
		if p == "" {
			return nil
		}
		w.what += fmt.Sprintf(" folder %q to %q", p, to)
		err := unix.Rename(w.p(p), w.p(to))
		if strings.HasPrefix(to+"/", p+"/") {
			if err != unix.EINVAL {
				return fmt.Errorf("%s, below itself: got %v", w.what, err)
			}
			return nil
		}
		if ok, err := w.check(err); !ok {
			return err
		}
		w.move(p, to)
	case 1: // over another file
		p, to := w.pick(w.files, nil), w.pick(w.files, nil)
		if p == "" || p == to {
			return nil
		}
		w.what += fmt.Sprintf(" %q over %q", p, to)
		if ok, err := w.check(unix.Rename(w.p(p), w.p(to))); !ok {
			return err
		}
		if w.lookup(p) == w.lookup(to) {
			return nil // POSIX: two links of one file both stay
		}
		w.forget(to)
		w.move(p, to)
	case 2: // not over another
		p, to := w.pick(w.files, nil), w.pick(w.files, nil)
		if p == "" {
			return nil
		}
		w.what += fmt.Sprintf(" %q, not over %q", p, to)
		err := unix.Renameat2(unix.AT_FDCWD, w.p(p), unix.AT_FDCWD, w.p(to), unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("%s: got %v", w.what, err)
		}
	default:
		p, to := w.pick(w.files, nil), w.newPath()
		if p == "" {
			return nil
		}
		w.what += fmt.Sprintf(" %q to %q", p, to)
		if ok, err := w.check(unix.Rename(w.p(p), w.p(to))); !ok {
			return err
		}
		w.move(p, to)
	}
	return nil
}

// move renames in the model and the lists; to is not taken.
func (w *load) move(p, to string) {
	from, fname := w.parent(p)
	dir, tname := w.parent(to)
	f := from.names[fname]
	delete(from.names, fname)
	dir.names[tname] = f
	if f.isDir() {
		from.nlink--
		dir.nlink++
	}
	w.rebase(p, to)
}

func (w *load) rebase(p, to string) {
	for _, list := range [][]string{w.dirs, w.files} {
		for i, q := range list {
			if q == p || strings.HasPrefix(q, p+"/") {
				list[i] = to + q[len(p):]
			}
		}
	}
}

func (w *load) opExchange() error {
	p, q := w.pick(w.files, nil), w.pick(w.files, nil)
	if w.rng.IntN(3) == 0 {
		q = w.pick(w.dirs[1:], nil)
	}
	if p == "" || q == "" || p == q || strings.HasPrefix(p, q+"/") {
		return nil
	}
	w.what += fmt.Sprintf(" %q and %q", p, q)
	err := unix.Renameat2(unix.AT_FDCWD, w.p(p), unix.AT_FDCWD, w.p(q), unix.RENAME_EXCHANGE)
	if ok, err := w.check(err, append(notSupported, unix.EINVAL)...); !ok {
		return err
	}
	pd, pn := w.parent(p)
	qd, qn := w.parent(q)
	if w.lookup(p) == w.lookup(q) {
		return nil
	}
	if w.lookup(q).isDir() {
		qd.nlink--
		pd.nlink++
	}
	pd.names[pn], qd.names[qn] = qd.names[qn], pd.names[pn]
	const aside = "\x00aside"
	w.rebase(q, aside)
	w.rebase(p, q)
	w.rebase(aside, p)
	// A folder and a file changed places: so do the lists.
	isDir := func(x string) bool { return w.lookup(x).isDir() }
	all := append(slices.Clone(w.dirs[1:]), w.files...)
	w.dirs, w.files = w.dirs[:1], nil
	for _, x := range all {
		if isDir(x) {
			w.dirs = append(w.dirs, x)
		} else {
			w.files = append(w.files, x)
		}
	}
	return nil
}

func (w *load) opLink() error {
	p, to := w.pick(w.files, nil), w.newPath()
	if p == "" {
		return nil
	}
	w.what += fmt.Sprintf(" %q to %q", p, to)
	if ok, err := w.check(unix.Link(w.p(p), w.p(to)), unix.EMLINK); !ok {
		return err
	}
	f := w.lookup(p)
	dir, name := w.parent(to)
	dir.names[name] = f
	f.nlink++
	w.files = append(w.files, to)
	return nil
}

func (w *load) opSymlink() error {
	p := w.newPath()
	n := []int{1, 30, 59, 60, 61, 200, 1000, 1023, 3000, 4095}[w.rng.IntN(10)]
	target := strings.Repeat("target/", n/7+1)[:n]
	w.what += fmt.Sprintf(" %q of %d bytes", p, n)
	if ok, err := w.check(unix.Symlink(target, w.p(p)), unix.ENAMETOOLONG); !ok {
		return err
	}
	dir, name := w.parent(p)
	f := w.model.create(dir, name, unix.S_IFLNK|0o777)
	f.target = target
	w.files = append(w.files, p)
	return nil
}

// xattrRefused are the answers of a file system that has no room for a value,
// or no attributes.
var xattrRefused = []error{unix.EOPNOTSUPP, unix.ENOSPC, unix.E2BIG, unix.ERANGE, unix.EDQUOT}

func (w *load) opXattr() error {
	p := w.pick(w.files, nil)
	if w.rng.IntN(4) == 0 {
		p = w.pick(w.dirs, nil)
	}
	if p == "" {
		return nil
	}
	f := w.lookup(p)
	if len(f.xattrs) > 0 && w.rng.IntN(4) == 0 {
		names := slices.Sorted(maps.Keys(f.xattrs))
		name := names[w.rng.IntN(len(names))]
		w.what += fmt.Sprintf(": remove %s of %q", name, p)
		if ok, err := w.check(unix.Lremovexattr(w.p(p), name)); !ok {
			return err
		}
		delete(f.xattrs, name)
		return nil
	}
	prefix := []string{"user.", "trusted.", "security."}[w.rng.IntN(3)]
	if !f.isReg() && !f.isDir() && prefix == "user." {
		prefix = "trusted."
	}
	count := 1
	if w.rng.IntN(10) == 0 {
		count = 20
	}
	for range count {
		name := prefix + fmt.Sprintf("name%d", w.rng.IntN(30))
		if w.rng.IntN(8) == 0 {
			name = prefix + strings.Repeat("l", 1+w.rng.IntN(200))
		}
		size := []int{0, 3, 20, 60, 100, 300, 900, 2000, 3900, 12000, 60000}[w.rng.IntN(11)]
		// The same value for many files: blocks and EA inodes are shared.
		value := bytes.Repeat([]byte{byte('a' + size%26)}, size)
		if w.rng.IntN(3) == 0 {
			value = w.bytes(size)
		}
		w.what = fmt.Sprintf("xattr %s of %q, %d bytes", name, p, size)
		flags, _ := 0, 0
		if _, has := f.xattrs[name]; has {
			flags = []int{0, unix.XATTR_REPLACE}[w.rng.IntN(2)]
		} else if w.rng.IntN(3) == 0 {
			flags = unix.XATTR_CREATE
		}
		if ok, err := w.check(unix.Lsetxattr(w.p(p), name, value, flags), xattrRefused...); !ok {
			if err != nil {
				return err
			}
			continue
		}
		if f.xattrs == nil {
			f.xattrs = map[string]string{}
		}
		f.xattrs[name] = string(value)
	}
	return nil
}

func (w *load) opACL() error {
	notLink := func(f *file) bool { return f.mode&unix.S_IFMT != unix.S_IFLNK }
	p := w.pick(w.files, notLink)
	if w.rng.IntN(2) == 0 {
		p = w.pick(w.dirs[1:], nil)
	}
	if p == "" {
		return nil
	}
	f := w.lookup(p)
	perm := func() uint16 { return uint16(w.rng.IntN(8)) }
	var users, groups []aclEntry
	for i := range 1 + w.rng.IntN(3) {
		users = append(users, aclEntry{aclUser, perm(), uint32(1000 + i)})
	}
	for i := range w.rng.IntN(12) {
		groups = append(groups, aclEntry{aclGroup, perm(), uint32(2000 + i)})
	}
	// The owner keeps access, so that nothing depends on privilege.
	a := newACL(perm()|6, perm(), perm(), perm(), users, groups)
	name := aclAccess
	if f.isDir() && w.rng.IntN(2) == 0 {
		name = aclDefault
	}
	w.what += fmt.Sprintf(": %s of %q", name, p)
	if ok, err := w.check(unix.Setxattr(w.p(p), name, []byte(a.encode()), 0), xattrRefused...); !ok {
		return err
	}
	if name == aclDefault {
		f.defACL = a
	} else {
		f.acl = a
		f.mode = f.mode&^0o777 | a.perm()
	}
	return nil
}

func (w *load) opChmod() error {
	notLink := func(f *file) bool { return f.mode&unix.S_IFMT != unix.S_IFLNK }
	p, perm := w.pick(w.files, notLink), []uint32{0o644, 0o600, 0o755, 0o444, 0}[w.rng.IntN(5)]
	if w.rng.IntN(3) == 0 {
		p, perm = w.pick(w.dirs[1:], nil), []uint32{0o755, 0o2775, 0o1777, 0o700}[w.rng.IntN(4)]
	}
	if p == "" {
		return nil
	}
	w.what += fmt.Sprintf(" %q %#o", p, perm)
	if ok, err := w.check(unix.Chmod(w.p(p), perm)); !ok {
		return err
	}
	w.lookup(p).chmod(perm)
	return nil
}

func (w *load) opChown() error {
	p := w.pick(w.files, nil)
	if w.rng.IntN(3) == 0 {
		p = w.pick(w.dirs[1:], nil)
	}
	if p == "" {
		return nil
	}
	ids := []uint32{0, 1, 1000, 65534, 65536, 4000000000}
	uid, gid := ids[w.rng.IntN(6)], ids[w.rng.IntN(6)]
	w.what += fmt.Sprintf(" %q %d:%d", p, uid, gid)
	if ok, err := w.check(unix.Lchown(w.p(p), int(uid), int(gid)), unix.EINVAL); !ok {
		return err
	}
	f := w.lookup(p)
	f.uid, f.gid = uid, gid
	return nil
}

func (w *load) opMknod() error {
	p := w.newPath()
	kind := []uint32{unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFSOCK}[w.rng.IntN(4)]
	var dev uint64
	if kind == unix.S_IFCHR || kind == unix.S_IFBLK {
		dev = []uint64{unix.Mkdev(1, 3), unix.Mkdev(8, 17), unix.Mkdev(259, 70000)}[w.rng.IntN(3)]
	}
	w.what += fmt.Sprintf(" %q %#o", p, kind)
	if ok, err := w.check(unix.Mknod(w.p(p), kind|0o640, int(dev))); !ok {
		return err
	}
	dir, name := w.parent(p)
	f := w.model.create(dir, name, kind|0o640)
	f.rdev = dev
	w.files = append(w.files, p)
	return nil
}

// opTmpfile writes a file that has no name and then gives it one.
func (w *load) opTmpfile() error {
	p := w.newPath()
	w.what += fmt.Sprintf(" %q", p)
	fd, err := unix.Open(w.p(path.Dir(p)), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if ok, err := w.check(err, append(notSupported, unix.EISDIR)...); !ok {
		return err
	}
	defer unix.Close(fd)
	data := w.bytes(w.length())
	if err := w.pwrite(fd, &file{}, data, 0); err != nil {
		return err
	}
	if w.rng.IntN(3) == 0 {
		return nil // and some never get one
	}
	err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, w.p(p), unix.AT_SYMLINK_FOLLOW)
	if ok, err := w.check(err); !ok {
		return err
	}
	dir, name := w.parent(p)
	f := w.model.create(dir, name, unix.S_IFREG|0o644)
	f.data = data
	w.files = append(w.files, p)
	return nil
}

// opOrphan goes on with a file after its name is gone.
func (w *load) opOrphan() error {
	once := func(f *file) bool { return f.isReg() && f.nlink == 1 }
	p := w.pick(w.files, once)
	if p == "" || len(w.files) < 20 {
		return nil
	}
	w.what += fmt.Sprintf(" %q", p)
	f := w.lookup(p)
	fd, err := unix.Open(w.p(p), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if ok, err := w.check(err); !ok {
		return err
	}
	defer unix.Close(fd)
	if ok, err := w.check(unix.Unlink(w.p(p))); !ok {
		return err
	}
	w.forget(p)
	if err := w.pwrite(fd, f, w.bytes(w.length()), int64(len(f.data))); err != nil {
		return err
	}
	if ok, err := w.check(unix.Ftruncate(fd, int64(len(f.data)/2))); !ok {
		return err
	}
	f.truncate(int64(len(f.data) / 2))
	return w.compare(fd, f)
}

func (w *load) opFsync() error {
	p, _, fd, err := w.open(unix.O_RDWR)
	if err != nil || p == "" {
		return err
	}
	defer unix.Close(fd)
	_, err = w.check(unix.Fsync(fd))
	return err
}

func (w *load) opRead() error {
	p, f, fd, err := w.open(unix.O_RDONLY)
	if err != nil || p == "" {
		return err
	}
	defer unix.Close(fd)
	return w.compare(fd, f)
}

// compare reads an open file and wants what the model has.
func (w *load) compare(fd int, f *file) error {
	got := make([]byte, len(f.data)+1)
	n := 0
	for n < len(got) {
		l, err := unix.Pread(fd, got[n:], int64(n))
		if err != nil {
			return fmt.Errorf("%s: read at %d: %w", w.what, n, err)
		}
		if l == 0 {
			break
		}
		n += l
	}
	if n != len(f.data) {
		return fmt.Errorf("%s: read %d bytes, expected %d", w.what, n, len(f.data))
	}
	for i, b := range f.data {
		if got[i] != b {
			return fmt.Errorf("%s: %w: byte %d of %d is %#x, expected %#x", w.what, ErrContents, i, n, got[i], b)
		}
	}
	return nil
}

func (w *load) opCopyRange() error {
	src, f, in, err := w.open(unix.O_RDONLY)
	if err != nil || src == "" || len(f.data) == 0 {
		if err == nil && in >= 0 {
			unix.Close(in)
		}
		return err
	}
	defer unix.Close(in)
	dst, g, out, err := w.open(unix.O_RDWR)
	if err != nil || dst == "" {
		return err
	}
	defer unix.Close(out)
	if f == g {
		return nil
	}
	from := int64(w.rng.IntN(len(f.data)))
	to := int64(w.rng.IntN(len(g.data) + 1))
	n := int64(len(f.data)) - from
	for n > 0 {
		roff, woff := from, to
		l, err := unix.CopyFileRange(in, &roff, out, &woff, int(n), 0)
		if err == nil && l == 0 {
			err = fmt.Errorf("copied nothing of %d bytes", n)
		}
		if ok, err := w.check(err, append(notSupported, unix.EXDEV)...); !ok {
			return err
		}
		g.pwrite(f.data[from:from+int64(l)], to)
		from, to, n = from+int64(l), to+int64(l), n-int64(l)
	}
	return nil
}

func (w *load) opFallocate() error {
	p, f, fd, err := w.open(unix.O_RDWR)
	if err != nil || p == "" {
		return err
	}
	defer unix.Close(fd)
	size := int64(len(f.data))
	off := int64(w.rng.IntN(int(size) + 20000))
	n := int64(1 + w.rng.IntN(150000))
	const keep = unix.FALLOC_FL_KEEP_SIZE
	var mode uint32
	switch k := w.rng.IntN(8); k {
	case 0:
	case 1:
		mode = keep
	case 2, 3:
		mode = unix.FALLOC_FL_PUNCH_HOLE | keep
	case 4:
		mode = unix.FALLOC_FL_ZERO_RANGE
	case 5:
		mode = unix.FALLOC_FL_ZERO_RANGE | keep
	default:
		mode = unix.FALLOC_FL_COLLAPSE_RANGE
		if k == 7 {
			mode = unix.FALLOC_FL_INSERT_RANGE
		}
		off = off / w.align * w.align
		n = (n/w.align + 1) * w.align
		if off+n >= size && k == 6 || off >= size {
			return nil
		}
	}
	w.what += fmt.Sprintf(" mode %#x at %d, %d bytes, size %d", mode, off, n, size)
	tolerated := slices.Clone(notSupported)
	if mode&(unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) != 0 {
		tolerated = append(tolerated, unix.EINVAL) // a cluster larger than our alignment
	}
	if ok, err := w.check(unix.Fallocate(fd, mode, off, n), tolerated...); !ok {
		return err
	}
	switch {
	case mode == unix.FALLOC_FL_COLLAPSE_RANGE:
		f.data = slices.Delete(f.data, int(off), int(off+n))
	case mode == unix.FALLOC_FL_INSERT_RANGE:
		f.data = slices.Insert(f.data, int(off), make([]byte, n)...)
	default:
		if mode&keep == 0 && off+n > size {
			f.truncate(off + n)
		}
		if mode&^keep != 0 {
			f.zero(off, n)
		}
	}
	return nil
}

// stamp sets the times of all that is left, so that they are known: with
// nanoseconds, before 1970 and after 2038, where the file system keeps such.
func (w *load) stamp() error {
	set := func(p string, s Stamp) error {
		w.what = fmt.Sprintf("set times of %q", p)
		ts := []unix.Timespec{unix.NsecToTimespec(int64(s)), unix.NsecToTimespec(int64(s))}
		_, err := w.check(unix.UtimesNanoAt(unix.AT_FDCWD, w.p(p), ts, unix.AT_SYMLINK_NOFOLLOW))
		return err
	}
	get := func(p string) (Stamp, error) {
		var st unix.Stat_t
		err := unix.Lstat(w.p(p), &st)
		return Stamp(st.Mtim.Nano()), err
	}
	// Inodes of 128 bytes keep 32 bits of seconds and no more.
	const probe = Stamp(2_600_000_000_123456789)
	if err := set(".", probe); err != nil {
		return err
	}
	got, err := get(".")
	if err != nil {
		return err
	}
	fine := got%1e9 != 0
	tree := w.model.tree()
	for _, p := range slices.Sorted(maps.Keys(tree)) {
		if tree[p].Link != p && !w.lookup(p).isDir() {
			continue
		}
		sec := int64(w.rng.IntN(1<<31)) - 1<<30
		if w.rng.IntN(4) == 0 && fine {
			sec += 3 << 31 / 2
		}
		s := Stamp(sec * 1e9)
		if fine {
			s += Stamp(w.rng.IntN(1e9))
		}
		if err := set(p, s); err != nil {
			return err
		}
		w.lookup(p).mtime = s
	}
	return nil
}
