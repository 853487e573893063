package extract

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Root is a file or directory to take out. Without a name, what is in the
// directory is, but not it.
type Root struct {
	Ino  ondisk.Ino
	Name string
}

// Options say how trees are taken out.
type Options struct {
	// Warn is told what could not be taken out, or not in full. If it is nil,
	// the first such error ends the work.
	Warn func(path string, err error)
	// Stop is asked now and then; true ends the work with ErrStopped.
	Stop func() bool
}

// ErrStopped is the error of work that Options.Stop has ended.
var ErrStopped = errors.New("stopped")

// node is a file on its way out.
type node struct {
	path string // from the root of what is taken out, with slashes
	ino  ondisk.Ino
	raw  ondisk.RawInode
	link string // an earlier path of the same inode, "" if none
}

func (n *node) typ() uint16 { return n.raw.Base().Mode.Get() & ondisk.ModeFmt }

// sink is where files go.
type sink interface {
	// enter is called with a directory before what is in it, leave after.
	enter(n *node) error
	leave(n *node) error
	file(n *node) error
}

type walker struct {
	r     *ext2fs.Raw
	o     Options
	out   sink
	seen  map[ondisk.Ino]bool   // directories
	links map[ondisk.Ino]string // first names of what has more than one
}

// maxDepth bounds how deep directories are followed.
const maxDepth = 1024

func walk(r *ext2fs.Raw, roots []Root, out sink, o Options) error {
	w := &walker{r: r, o: o, out: out, seen: map[ondisk.Ino]bool{}, links: map[ondisk.Ino]string{}}
	for _, root := range roots {
		var err error
		if root.Name == "" {
			w.seen[root.Ino] = true
			err = w.entries("", root.Ino, 0)
		} else if e := checkName(root.Name); e != nil {
			err = w.warn(root.Name, e)
		} else {
			err = w.visit(root.Name, root.Ino, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// warn passes an error on, or returns it if it ends the work.
func (w *walker) warn(path string, err error) error {
	if err == nil || errors.Is(err, ErrStopped) {
		return err
	}
	if w.o.Warn == nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	w.o.Warn(path, err)
	return nil
}

func (w *walker) visit(path string, ino ondisk.Ino, depth int) error {
	if w.o.Stop != nil && w.o.Stop() {
		return ErrStopped
	}
	raw, err := w.r.Inode(ino)
	if err != nil {
		return w.warn(path, err)
	}
	if err := w.warnOnly(path, w.r.VerifyInode(ino, raw)); err != nil {
		return err
	}
	n := &node{path: path, ino: ino, raw: raw}
	if n.typ() != ondisk.ModeDir {
		if raw.Base().LinksCount.Get() > 1 {
			if n.link = w.links[ino]; n.link == "" {
				w.links[ino] = path
			}
		}
		return w.warn(path, w.out.file(n))
	}
	switch {
	case w.seen[ino]:
		return w.warn(path, fmt.Errorf("the directory %d has another name: %w", ino, ondisk.EUCLEAN))
	case depth >= maxDepth:
		return w.warn(path, errors.New("directories are nested too deep"))
	}
	w.seen[ino] = true
	if err := w.out.enter(n); err != nil {
		return w.warn(path, err)
	}
	err = w.entries(path, ino, depth+1)
	return errors.Join(err, w.warn(path, w.out.leave(n)))
}

// warnOnly is warn for what does not keep the file from being taken out.
func (w *walker) warnOnly(path string, err error) error {
	if err == nil || w.o.Warn == nil {
		return err
	}
	w.o.Warn(path, err)
	return nil
}

// batch is how many entries of a directory are sorted at a time.
const batch = 1 << 19

// entries visits what is in a directory, in order of name, so that equal trees
// come out equal whatever order their directories have.
func (w *walker) entries(path string, dir ondisk.Ino, depth int) error {
	type entry struct {
		name string
		ino  ondisk.Ino
	}
	var list []entry
	var stop error
	flush := func() {
		slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.name, b.name) })
		for _, e := range list {
			p := e.name
			if path != "" {
				p = path + "/" + e.name
			}
			if err := checkName(e.name); err != nil {
				stop = w.warn(p, err)
			} else {
				stop = w.visit(p, e.ino, depth)
			}
			if stop != nil {
				return
			}
		}
		list = list[:0]
	}
	err := w.r.Dirents(dir, 0, func(e *ext2fs.RawDirent) bool {
		if n := string(e.Name); n != "." && n != ".." {
			list = append(list, entry{n, e.Ino})
		}
		if len(list) >= batch {
			flush()
		}
		return stop == nil
	})
	if stop == nil {
		flush()
	}
	if stop != nil {
		return stop
	}
	return w.warn(path, err)
}

// checkName fails for names that mean something else out there.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("a file cannot be named %q: %w", name, ondisk.EUCLEAN)
	}
	return nil
}

// xattrs returns the attributes of a file as system calls have them, without
// those that are not a user's.
func xattrs(r *ext2fs.Raw, n *node) (out []ext2fs.RawXattr, bad error) {
	list, bad := r.Xattrs(n.ino, n.raw)
	for i := range list {
		x := &list[i]
		if x.Index == ondisk.XattrSystemIndex || x.Index == ondisk.XattrEncryptionIndex {
			continue
		}
		v, err := r.XattrValue(x)
		if err == nil {
			v, err = ext2fs.XattrToUser(x.Index, v)
		}
		if err != nil {
			bad = errors.Join(bad, fmt.Errorf("attribute %s: %w", x.Name, err))
			continue
		}
		x.Value = v
		out = append(out, *x)
	}
	slices.SortFunc(out, func(a, b ext2fs.RawXattr) int { return strings.Compare(a.Name, b.Name) })
	return out, bad
}

func goTime(t ondisk.Time) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// device returns the numbers of a device.
func device(raw ondisk.RawInode) (major, minor uint32) {
	b := raw.Base().Block[:]
	d := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
	if d != 0 {
		return d >> 8 & 0xff, d & 0xff
	}
	d = uint32(b[4]) | uint32(b[5])<<8 | uint32(b[6])<<16 | uint32(b[7])<<24
	return (d & 0xfff00) >> 8, d&0xff | d>>12&0xfff00
}
