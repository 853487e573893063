//go:build linux

package testfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A Promise says what a path must be from now on, since a sync that covers it
// has returned.
type Promise struct {
	Path  string
	Gone  bool // there is no such name
	IsDir bool
	// Sums has the contents that a regular file may have: one, or the old and
	// the new where a rename was not synced.
	Sums   [][sha256.Size]byte
	Xattrs map[string]string
}

// A Touch withdraws the promise about a path: an operation on it begins.
type Touch struct{ Path string }

// CheckPromises wants of the tree what the marks promised, and returns how many
// promises were in force. After a repair a file may have any name.
func CheckPromises(tree Tree, marks []any, repaired bool) (int, error) {
	force := map[string]Promise{}
	for _, m := range marks {
		switch m := m.(type) {
		case Promise:
			force[m.Path] = m
		case Touch:
			delete(force, m.Path)
		}
	}
	var errs []error
	for _, p := range force {
		err := p.check(tree[p.Path])
		if err != nil && repaired && !p.Gone && !p.IsDir && slices.ContainsFunc(slices.Collect(maps.Values(tree)), p.is) {
			err = nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Path, err))
		}
	}
	return len(force), errors.Join(errs...)
}

// is tells whether n, a file of some name, is what was promised.
func (p *Promise) is(n *Node) bool {
	return n.Mode&unix.S_IFMT == unix.S_IFREG && p.check(n) == nil
}

func (p *Promise) check(n *Node) error {
	switch {
	case p.Gone && n != nil:
		return errors.New("is back after its removal was synced")
	case p.Gone:
		return nil
	case n == nil:
		return errors.New("is missing after it was synced")
	case p.IsDir != (n.Mode&unix.S_IFMT == unix.S_IFDIR):
		return fmt.Errorf("has mode %#o", n.Mode)
	case !p.IsDir && !slices.Contains(p.Sums, n.Sum):
		return fmt.Errorf("has other contents than those synced (%d bytes)", n.Size)
	}
	for name, v := range p.Xattrs {
		if n.Xattrs[name] != v {
			return fmt.Errorf("xattr %s is %s, synced was %s", name, brief(n.Xattrs[name]), brief(v))
		}
	}
	return nil
}

// unit is the grain of the contents that CrashLoad writes, in bytes: each unit
// of a file begins with the file's own tag, or is zeros.
const unit = 16

// foreignData returns a function for SnapshotFunc that finds units of another
// file, or of no file, in a file of CrashLoad: what was on the disk before.
func foreignData() func(string, int64, []byte) error {
	var at string
	var tag []byte
	zeros := make([]byte, unit)
	return func(p string, off int64, data []byte) error {
		if p != at {
			at, tag = p, nil
		}
		if b := filepath.Base(p); b[0] != 'f' && b[0] != '#' { // in lost+found
			return nil
		}
		for i := 0; i+unit <= len(data); i += unit {
			u := data[i : i+unit]
			switch {
			case bytes.Equal(u, zeros):
			case u[0] != 'F' || u[7] != ':':
				return fmt.Errorf("has data that was never written, at %d: %q", off+int64(i), u)
			case tag == nil:
				tag = bytes.Clone(u[:8])
			case !bytes.Equal(tag, u[:8]):
				return fmt.Errorf("has data of another file, at %d: %q among %q", off+int64(i), u, tag)
			}
		}
		return nil
	}
}

// Poison fills an image's free blocks with what no file may ever show. It is
// for an image that is not in use.
func Poison(t testing.TB, img *Image) {
	t.Helper()
	bs := 4096
	if img.Spec.BlockSize != 0 {
		bs = img.Spec.BlockSize
	}
	f, err := os.OpenFile(img.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	junk := bytes.Repeat([]byte("stale data here "), bs/unit)
	for l := range strings.Lines(Run(t, "dumpe2fs", img.Path)) {
		list, ok := strings.CutPrefix(strings.TrimSpace(l), "Free blocks: ")
		if !ok || !strings.HasPrefix(l, " ") {
			continue // the superblock has a line of that name, a count
		}
		for r := range strings.SplitSeq(list, ", ") {
			var first, last int64
			if n, _ := fmt.Sscanf(r, "%d-%d", &first, &last); n == 1 {
				last = first
			} else if n == 0 {
				continue
			}
			for ; first <= last; first++ {
				if _, err := f.WriteAt(junk, first*int64(bs)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// CrashLoad runs operations in dir from two goroutines, in a folder each, with
// fsyncs between, and marks what the syncs promise.
func CrashLoad(dir string, seed uint64, ops int, mark func(any)) error {
	var wg sync.WaitGroup
	var errs [2]error
	for i := range errs {
		wg.Go(func() {
			l := crashLoad{
				dir: dir, sub: fmt.Sprintf("d%d", i), mark: mark,
				rng: rand.New(rand.NewPCG(seed, uint64(i))), next: i * 10000,
			}
			errs[i] = l.run(ops / 2)
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

type crashLoad struct {
	dir, sub string
	mark     func(any)
	rng      *rand.Rand
	next     int
	files    []*crashFile
}

type crashFile struct {
	tag    string
	path   string
	data   []byte
	xattrs map[string]string
	synced bool // all of it
}

func (l *crashLoad) p(rel string) string { return filepath.Join(l.dir, rel) }

func (l *crashLoad) run(ops int) error {
	if err := unix.Mkdir(l.p(l.sub), 0o755); err != nil {
		return fmt.Errorf("mkdir %s: %w", l.sub, err)
	}
	if err := fsyncDir(l.p(l.sub)); err != nil {
		return err
	}
	l.mark(Promise{Path: l.sub, IsDir: true})
	for i := range ops {
		if err := l.step(); err != nil {
			return fmt.Errorf("operation %d: %w", i, err)
		}
	}
	return nil
}

func (l *crashLoad) step() error {
	if len(l.files) < 5 {
		return l.create(true)
	}
	f := l.files[l.rng.IntN(len(l.files))]
	switch r := l.rng.IntN(20); {
	case r < 3:
		return l.create(r < 2)
	case r < 6:
		return l.write(f)
	case r < 8:
		return l.sync(f)
	case r < 10:
		return l.truncate(f)
	case r < 12:
		return l.rename(f)
	case r < 14:
		return l.replace(f)
	case r < 16:
		return l.unlink(f)
	case r < 17:
		return l.xattr(f)
	case r < 18:
		return l.punch(f)
	}
	return l.mkdir()
}

// fill makes data of the file's own for n bytes at off, both in units.
func (f *crashFile) fill(rng *rand.Rand, n int) []byte {
	b := make([]byte, 0, n)
	for len(b) < n {
		b = append(b, f.tag...)
		b = fmt.Appendf(b, "%08x", rng.Uint32())
	}
	return b
}

func (l *crashLoad) newFile() *crashFile {
	l.next++
	return &crashFile{
		tag:  fmt.Sprintf("F%06d:", l.next),
		path: filepath.Join(l.sub, fmt.Sprintf("f%d", l.next)), xattrs: map[string]string{},
	}
}

func (l *crashLoad) units(most int) int { return unit * (1 + l.rng.IntN(most/unit)) }

func (l *crashLoad) touch(f *crashFile) {
	l.mark(Touch{f.path})
	f.synced = false
}

// on opens the file, applies op and closes it.
func (l *crashLoad) on(f *crashFile, flags int, op func(fd int) error) error {
	fd, err := unix.Open(l.p(f.path), flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("open %s: %w", f.path, err)
	}
	defer unix.Close(fd)
	if err := op(fd); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return nil
}

func (f *crashFile) promise() Promise {
	x := map[string]string{}
	for k, v := range f.xattrs {
		x[k] = v
	}
	return Promise{Path: f.path, Sums: [][sha256.Size]byte{sha256.Sum256(f.data)}, Xattrs: x}
}

func (l *crashLoad) create(fsync bool) error {
	f := l.newFile()
	f.data = f.fill(l.rng, l.units(40000))
	l.touch(f)
	err := l.on(f, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, func(fd int) error {
		_, err := unix.Pwrite(fd, f.data, 0)
		return err
	})
	if err != nil {
		return err
	}
	l.files = append(l.files, f)
	if fsync {
		return l.sync(f)
	}
	return nil
}

func (l *crashLoad) sync(f *crashFile) error {
	data := l.rng.IntN(3) == 0
	err := l.on(f, unix.O_RDWR, func(fd int) error {
		if data && f.synced {
			return unix.Fdatasync(fd)
		}
		return unix.Fsync(fd)
	})
	if err != nil {
		return err
	}
	f.synced = true
	l.mark(f.promise())
	return nil
}

func (l *crashLoad) write(f *crashFile) error {
	off := unit * l.rng.IntN(len(f.data)/unit+1)
	if l.rng.IntN(4) == 0 {
		off += l.units(60000)
	}
	p := f.fill(l.rng, l.units(20000))
	l.touch(f)
	err := l.on(f, unix.O_RDWR, func(fd int) error {
		_, err := unix.Pwrite(fd, p, int64(off))
		return err
	})
	if err != nil {
		return err
	}
	if end := off + len(p); end > len(f.data) {
		f.data = append(f.data, make([]byte, end-len(f.data))...)
	}
	copy(f.data[off:], p)
	if l.rng.IntN(2) == 0 {
		return l.sync(f)
	}
	return nil
}

func (l *crashLoad) truncate(f *crashFile) error {
	size := unit * l.rng.IntN(len(f.data)/unit+1)
	if l.rng.IntN(3) == 0 {
		size = len(f.data) + l.units(30000)
	}
	l.touch(f)
	err := l.on(f, unix.O_RDWR, func(fd int) error { return unix.Ftruncate(fd, int64(size)) })
	if err != nil {
		return err
	}
	if size > len(f.data) {
		f.data = append(f.data, make([]byte, size-len(f.data))...)
	}
	f.data = slices.Clone(f.data[:size])
	if l.rng.IntN(2) == 0 {
		return l.sync(f)
	}
	return nil
}

func (l *crashLoad) punch(f *crashFile) error {
	off := unit * l.rng.IntN(len(f.data)/unit+1)
	n := l.units(20000)
	l.touch(f)
	var refused bool
	err := l.on(f, unix.O_RDWR, func(fd int) error {
		err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n))
		refused = err == unix.EOPNOTSUPP
		if refused {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	if !refused && off < len(f.data) {
		clear(f.data[off:min(off+n, len(f.data))])
	}
	return l.sync(f)
}

// rename moves a file and syncs it under its new name.
func (l *crashLoad) rename(f *crashFile) error {
	l.next++
	old, to := f.path, filepath.Join(l.sub, fmt.Sprintf("f%d", l.next))
	l.touch(f)
	l.mark(Touch{to})
	if err := unix.Rename(l.p(old), l.p(to)); err != nil {
		return fmt.Errorf("rename %s: %w", old, err)
	}
	f.path = to
	if err := l.sync(f); err != nil {
		return err
	}
	if err := fsyncDir(l.p(l.sub)); err != nil {
		return err
	}
	l.mark(Promise{Path: old, Gone: true})
	return nil
}

// replace renames a synced file over another: a crash shows one or the other.
func (l *crashLoad) replace(f *crashFile) error {
	if err := l.sync(f); err != nil {
		return err
	}
	g := l.newFile()
	g.data = g.fill(l.rng, l.units(20000))
	l.touch(g)
	err := l.on(g, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, func(fd int) error {
		_, err := unix.Pwrite(fd, g.data, 0)
		return err
	})
	if err == nil {
		err = l.sync(g)
	}
	if err != nil {
		return err
	}
	l.mark(Touch{g.path})
	either := Promise{Path: f.path, Sums: [][sha256.Size]byte{sha256.Sum256(f.data), sha256.Sum256(g.data)}}
	l.mark(either)
	if err := unix.Rename(l.p(g.path), l.p(f.path)); err != nil {
		return fmt.Errorf("rename %s over %s: %w", g.path, f.path, err)
	}
	f.tag, f.data, f.xattrs, f.synced = g.tag, g.data, g.xattrs, false
	return nil
}

func (l *crashLoad) unlink(f *crashFile) error {
	l.touch(f)
	if err := unix.Unlink(l.p(f.path)); err != nil {
		return fmt.Errorf("unlink %s: %w", f.path, err)
	}
	l.files = slices.DeleteFunc(l.files, func(g *crashFile) bool { return g == f })
	if l.rng.IntN(2) == 0 {
		if err := fsyncDir(l.p(l.sub)); err != nil {
			return err
		}
		l.mark(Promise{Path: f.path, Gone: true})
	}
	return nil
}

func (l *crashLoad) xattr(f *crashFile) error {
	l.touch(f)
	name := fmt.Sprintf("user.x%d", l.rng.IntN(4))
	v := string(bytes.Repeat([]byte{'x'}, l.rng.IntN(600)))
	err := unix.Setxattr(l.p(f.path), name, []byte(v), 0)
	if err == unix.EOPNOTSUPP || err == unix.ENOSPC {
		return nil
	}
	if err != nil {
		return fmt.Errorf("setxattr %s: %w", f.path, err)
	}
	f.xattrs[name] = v
	return l.sync(f)
}

// mkdir makes and removes folders, which reuses metadata blocks for data.
func (l *crashLoad) mkdir() error {
	l.next++
	d := filepath.Join(l.sub, fmt.Sprintf("x%d", l.next))
	l.mark(Touch{d})
	if err := unix.Mkdir(l.p(d), 0o700); err != nil {
		return fmt.Errorf("mkdir %s: %w", d, err)
	}
	for i := range 20 {
		name := fmt.Sprintf("%s/name-%d-%0100d", d, i, i)
		if err := unix.Mknod(l.p(name), unix.S_IFREG|0o600, 0); err != nil {
			return fmt.Errorf("create %s: %w", name, err)
		}
	}
	if l.rng.IntN(2) == 0 {
		if err := fsyncDir(l.p(d)); err != nil {
			return err
		}
		l.mark(Promise{Path: d, IsDir: true})
		return nil
	}
	return os.RemoveAll(l.p(d))
}
