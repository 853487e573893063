package populate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// node is an inode of the tree. What has several names is one node.
type node struct {
	mode         uint16 // type and permissions, as ondisk.Mode…
	implied      bool   // a directory that was made since something lies below it
	fixed        bool   // the device table says who owns it
	links        uint32 // names
	uid, gid     uint32
	rdev         uint32 // in Linux' 32-bit encoding
	size         int64
	at           int64 // where the contents start in blob, if segs is nil
	atime, mtime ondisk.Time
	target       string
	attrs        *attrs // nil: none
	blob         blob   // that holds the contents
	segs         *[]seg // what of a sparse file is data, in order; nil: all
	kids         map[string]dirent
}

// seg is a range of a file that is data.
type seg struct{ off, n, at int64 } // at is its place in the blob

// dirent is a name. The layer is the one that it was in last.
type dirent struct {
	n     *node
	layer int32
}

// attrs is a set of extended attributes in the order of their names. Nodes
// share it, so it is never changed.
type attrs struct{ list []xattr }

type xattr struct {
	name  string // full
	value string
}

func (n *node) isDir() bool { return n.mode&ondisk.ModeFmt == ondisk.ModeDir }
func (n *node) isReg() bool { return n.mode&ondisk.ModeFmt == ondisk.ModeReg }
func (n *node) isLnk() bool { return n.mode&ondisk.ModeFmt == ondisk.ModeLnk }

// names returns the names in the directory, sorted.
func (n *node) names() []string {
	out := make([]string, 0, len(n.kids))
	for k := range n.kids {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// data calls f with each range of the file that is data.
func (n *node) data(f func(seg) error) error {
	if n.size == 0 || !n.isReg() {
		return nil
	}
	if n.segs == nil {
		return f(seg{0, n.size, n.at})
	}
	for _, s := range *n.segs {
		if s.n == 0 {
			continue
		}
		if err := f(s); err != nil {
			return err
		}
	}
	return nil
}

// An EntryError says which entry of the input something is wrong with. It
// unwraps to the reason.
type EntryError struct {
	Op   string // what was tried
	Path string // from the root of the tree, or as the input has it
	Err  error
}

// Error says what failed, on what, and why.
func (e *EntryError) Error() string { return fmt.Sprintf("%s %q: %v", e.Op, e.Path, e.Err) }

// Unwrap returns e.Err.
func (e *EntryError) Unwrap() error { return e.Err }

func entryErr(op, path string, err error) error {
	var e *EntryError
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &EntryError{op, path, err}
}

// badInput is an error about what an input says.
func badInput(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, syscall.EINVAL)...)
}

const (
	maxDepth   = 1024 // of directories
	maxFollow  = 40   // symbolic links on the way to one name
	maxEntries = 1 << 24
)

// split takes a name of an archive apart. Absolute names and ".." stay inside:
// ".." of the root is the root.
func split(name string) ([]string, error) {
	var out []string
	for c := range strings.SplitSeq(name, "/") {
		switch c {
		case "", ".":
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		default:
			if len(c) > ondisk.NameLen {
				return nil, syscall.ENAMETOOLONG
			}
			if strings.IndexByte(c, 0) >= 0 {
				return nil, badInput("a name has a NUL byte")
			}
			out = append(out, c)
		}
	}
	if len(out) > maxDepth {
		return nil, badInput("%d directories deep; at most %d are possible", len(out), maxDepth)
	}
	return out, nil
}

// walkTo returns the directory of path, following symbolic links inside the
// tree, as extracting below it would. With make, directories that are not there
// are made; else it fails with ENOENT.
func (t *Tree) walkTo(path []string, make bool, layer int32) (*node, error) {
	stack := []*node{t.root}
	follow := 0
	for i := 0; i < len(path); i++ {
		top := stack[len(stack)-1]
		name := path[i]
		if name == ".." {
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		d, ok := top.kids[name]
		switch {
		case !ok && !make:
			return nil, syscall.ENOENT
		case !ok:
			if len(stack) > maxDepth {
				return nil, badInput("more than %d directories deep", maxDepth)
			}
			n := &node{mode: ondisk.ModeDir | 0o755, implied: true, mtime: top.mtime, atime: top.atime}
			if err := t.put(top, name, n, layer); err != nil {
				return nil, err
			}
			stack = append(stack, n)
		case d.n.isDir():
			stack = append(stack, d.n)
		case d.n.isLnk():
			if follow++; follow > maxFollow {
				return nil, syscall.ELOOP
			}
			var rest []string
			for c := range strings.SplitSeq(d.n.target, "/") {
				if c != "" && c != "." {
					rest = append(rest, c)
				}
			}
			if strings.HasPrefix(d.n.target, "/") {
				stack = stack[:1]
			}
			path = append(rest, path[i+1:]...)
			if len(path) > 4*maxDepth {
				return nil, syscall.ELOOP
			}
			i = -1
		default:
			return nil, syscall.ENOTDIR
		}
	}
	return stack[len(stack)-1], nil
}

// put gives n the name in dir, in place of what has it.
func (t *Tree) put(dir *node, name string, n *node, layer int32) error {
	if old, ok := dir.kids[name]; ok {
		if old.n == n {
			dir.kids[name] = dirent{n, layer}
			return nil
		}
		t.drop(old.n)
	} else if t.entries++; t.entries > t.maxEntries {
		return fmt.Errorf("more than %d entries (Options.MaxEntries): %w", t.maxEntries, syscall.E2BIG)
	}
	if dir.kids == nil {
		dir.kids = map[string]dirent{}
	}
	n.links++
	dir.kids[name] = dirent{n, layer}
	return nil
}

// remove takes the name out of dir.
func (t *Tree) remove(dir *node, name string) {
	if d, ok := dir.kids[name]; ok {
		t.drop(d.n)
		delete(dir.kids, name)
		t.entries--
	}
}

// drop takes a name from n, and all that is below it.
func (t *Tree) drop(n *node) {
	n.links--
	if n.isDir() {
		for name := range n.kids {
			t.remove(n, name)
		}
	}
}

// add puts an entry of an archive where its name says. A directory that is
// there already stays, with the attributes of the entry.
func (t *Tree) add(name string, n *node, layer int32) error {
	path, err := split(name)
	if err != nil {
		return err
	}
	if len(path) == 0 {
		if !n.isDir() {
			return badInput("the root is not a directory")
		}
		n.kids, n.links = t.root.kids, 1
		*t.root = *n
		return nil
	}
	dir, err := t.walkTo(path[:len(path)-1], true, layer)
	if err != nil {
		return err
	}
	base := path[len(path)-1]
	if old, ok := dir.kids[base]; ok && old.n.isDir() && n.isDir() {
		kids, links := old.n.kids, old.n.links
		*old.n = *n
		old.n.kids, old.n.links = kids, links
		dir.kids[base] = dirent{old.n, layer}
		return nil
	}
	return t.put(dir, base, n, layer)
}

// link gives what the name target leads to a further name.
func (t *Tree) link(name, target string, layer int32) error {
	to, err := split(target)
	if err != nil {
		return err
	}
	path, err := split(name)
	if err != nil {
		return err
	}
	if len(to) == 0 || len(path) == 0 {
		return badInput("a hard link to or from the root")
	}
	missing := fmt.Errorf("it is a hard link to %q, which is not there: %w", target, syscall.ENOENT)
	at, err := t.walkTo(to[:len(to)-1], false, layer)
	if err != nil {
		return missing
	}
	d, ok := at.kids[to[len(to)-1]]
	switch {
	case !ok:
		return missing
	case d.n.isDir():
		return badInput("it is a hard link to %q, a directory", target)
	}
	dir, err := t.walkTo(path[:len(path)-1], true, layer)
	if err != nil {
		return err
	}
	return t.put(dir, path[len(path)-1], d.n, layer)
}

// find returns the node that a path leads to, itself not followed; nil if there
// is none.
func (t *Tree) find(path string) *node {
	p, err := split(path)
	if err != nil {
		return nil
	}
	if len(p) == 0 {
		return t.root
	}
	dir, err := t.walkTo(p[:len(p)-1], false, 0)
	if err != nil {
		return nil
	}
	return dir.kids[p[len(p)-1]].n
}

// walk calls f with each name and its node, in the order in which they are
// written: a directory before what is in it, names in order. first is false at
// further names of a node.
func (t *Tree) walk(f func(path string, n *node, first bool) error) error {
	seen := map[*node]bool{}
	if err := f("", t.root, true); err != nil {
		return err
	}
	return walkDir(t.root, "", seen, f)
}

func walkDir(dir *node, at string, seen map[*node]bool, f func(string, *node, bool) error) error {
	for _, name := range dir.names() {
		n, path := dir.kids[name].n, name
		if at != "" {
			path = at + "/" + name
		}
		first := true
		if n.links > 1 && !n.isDir() {
			first = !seen[n]
			seen[n] = true
		}
		if err := f(path, n, first); err != nil {
			return err
		}
		if n.isDir() {
			if err := walkDir(n, path, seen, f); err != nil {
				return err
			}
		}
	}
	return nil
}
