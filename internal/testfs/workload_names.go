//go:build linux

package testfs

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

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

// newPath returns a path in some folder that is not taken.
func (w *load) newPath() string {
	return path.Join(w.dirs[w.rng.IntN(len(w.dirs))], w.name())
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
