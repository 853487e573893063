package populate

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// node is an inode of the tree, taken out of the store. What has several names
// is one node.
type node struct {
	mode         uint16 // type and permissions, as ondisk.Mode…
	implied      bool   // a directory that was made since something lies below it
	fixed        bool   // the device table says who owns it
	links        uint32 // names
	uid, gid     uint32
	rdev         uint32 // in Linux' 32-bit encoding
	blob         uint32 // that holds the contents, from 1 on; see Tree.blobs
	size         int64
	at           int64 // where the contents start in the blob; of a directory's, see stateOf
	atime, mtime ondisk.Time
	attrs        ref // of extended attributes, see Tree.attrsOf
	// aux is the target of a symbolic link, or what of a sparse regular file is
	// data; 0 for a file that is not sparse.
	aux ref
}

func (n *node) isDir() bool { return n.mode&ondisk.ModeFmt == ondisk.ModeDir }
func (n *node) isReg() bool { return n.mode&ondisk.ModeFmt == ondisk.ModeReg }
func (n *node) isLnk() bool { return n.mode&ondisk.ModeFmt == ondisk.ModeLnk }

// xattr is an extended attribute.
type xattr struct {
	name  string // full
	value string
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

// node returns a node.
func (t *Tree) node(id nodeID) (node, error) {
	if id == rootID {
		return t.root, nil
	}
	return t.getNode(id)
}

// change gives a node other contents.
func (t *Tree) change(id nodeID, n *node) error {
	if id == rootID {
		t.root = *n
		return nil
	}
	return t.setNode(id, n)
}

// walkTo returns the directory of path, following symbolic links inside the
// tree, as extracting below it would. With make, directories that are not there
// are made; else it fails with ENOENT.
func (t *Tree) walkTo(path []string, make bool, layer int32) (nodeID, error) {
	stack := []nodeID{rootID}
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
		d, ok, err := t.lookup(top, name)
		switch {
		case err != nil:
			return 0, err
		case !ok && !make:
			return 0, syscall.ENOENT
		case !ok:
			if len(stack) > maxDepth {
				return 0, badInput("more than %d directories deep", maxDepth)
			}
			id, err := t.imply(top, name, layer)
			if err != nil {
				return 0, err
			}
			stack = append(stack, id)
		case d.dir:
			stack = append(stack, d.id)
		case d.lnk:
			if follow++; follow > maxFollow {
				return 0, syscall.ELOOP
			}
			target, err := t.target(d.id)
			if err != nil {
				return 0, err
			}
			var rest []string
			for c := range strings.SplitSeq(target, "/") {
				if c != "" && c != "." {
					rest = append(rest, c)
				}
			}
			if strings.HasPrefix(target, "/") {
				stack = stack[:1]
			}
			path = append(rest, path[i+1:]...)
			if len(path) > 4*maxDepth {
				return 0, syscall.ELOOP
			}
			i = -1
		default:
			return 0, syscall.ENOTDIR
		}
	}
	return stack[len(stack)-1], nil
}

// notThere tells an error of walkTo that there is no such directory.
func notThere(err error) bool {
	var e *TempError
	return err != nil && !errors.As(err, &e)
}

// imply makes a directory that nothing was said of.
func (t *Tree) imply(dir nodeID, name string, layer int32) (nodeID, error) {
	above, err := t.node(dir)
	if err != nil {
		return 0, err
	}
	return t.putNew(dir, name, &node{mode: ondisk.ModeDir | 0o755, implied: true, mtime: above.mtime, atime: above.atime}, layer)
}

// target returns where a symbolic link leads to.
func (t *Tree) target(id nodeID) (string, error) {
	n, err := t.node(id)
	if err != nil {
		return "", err
	}
	return t.text(n.aux)
}

// putNew keeps n and gives it the name in dir.
func (t *Tree) putNew(dir nodeID, name string, n *node, layer int32) (nodeID, error) {
	n.links = 1
	id, err := t.addNode(n)
	if err != nil {
		return 0, err
	}
	return id, t.place(dir, name, dirent{id: id, dir: n.isDir(), lnk: n.isLnk(), layer: layer})
}

// putLink gives a node that has a name a further one.
func (t *Tree) putLink(dir nodeID, name string, d dirent) error {
	if old, ok, err := t.lookup(dir, name); err != nil {
		return err
	} else if ok && old.id == d.id {
		return t.setName(dir, name, d)
	}
	if err := t.place(dir, name, d); err != nil {
		return err
	}
	n, err := t.node(d.id) // after that: its other name may have been below this one
	if err != nil {
		return err
	}
	n.links++
	return t.change(d.id, &n)
}

// place makes name in dir that of d, in place of what has it.
func (t *Tree) place(dir nodeID, name string, d dirent) error {
	if len(name) > ondisk.NameLen {
		return syscall.ENAMETOOLONG
	}
	old, ok, err := t.lookup(dir, name)
	switch {
	case err != nil:
		return err
	case ok:
		if err := t.drop(old); err != nil {
			return err
		}
	default:
		if t.entries == t.maxEntries {
			return fmt.Errorf("more than %d entries (Options.MaxEntries): %w", t.maxEntries, syscall.E2BIG)
		}
		t.entries++
	}
	return t.setName(dir, name, d)
}

// remove takes the name of d out of dir.
func (t *Tree) remove(dir nodeID, name string, d dirent) error {
	if err := t.drop(d); err != nil {
		return err
	}
	t.entries--
	return t.removeName(dir, name)
}

// drop takes a name from what d names, and all that is below it.
func (t *Tree) drop(d dirent) error {
	n, err := t.node(d.id)
	if err != nil {
		return err
	}
	n.links--
	if err := t.change(d.id, &n); err != nil || !d.dir {
		return err
	}
	return t.each(d.id, func(name string, k dirent) error { return t.remove(d.id, name, k) })
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
		n.links = 1
		t.root = *n
		return nil
	}
	dir, err := t.walkTo(path[:len(path)-1], true, layer)
	if err != nil {
		return err
	}
	base := path[len(path)-1]
	old, ok, err := t.lookup(dir, base)
	if err != nil {
		return err
	}
	if ok && old.dir && n.isDir() {
		n.links = 1
		if err := t.change(old.id, n); err != nil {
			return err
		}
		old.layer = layer
		return t.setName(dir, base, old)
	}
	_, err = t.putNew(dir, base, n, layer)
	return err
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
	if notThere(err) {
		return missing
	}
	if err != nil {
		return err
	}
	d, ok, err := t.lookup(at, to[len(to)-1])
	switch {
	case err != nil:
		return err
	case !ok:
		return missing
	case d.dir:
		return badInput("it is a hard link to %q, a directory", target)
	}
	dir, err := t.walkTo(path[:len(path)-1], true, layer)
	if err != nil {
		return err
	}
	d.layer = layer
	return t.putLink(dir, path[len(path)-1], d)
}

// find returns the node that a path leads to, itself not followed; 0 if there is
// none.
func (t *Tree) find(path string) (nodeID, error) {
	p, err := split(path)
	if err != nil {
		return 0, nil
	}
	if len(p) == 0 {
		return rootID, nil
	}
	dir, err := t.walkTo(p[:len(p)-1], false, 0)
	if err != nil {
		if notThere(err) {
			err = nil
		}
		return 0, err
	}
	d, _, err := t.lookup(dir, p[len(p)-1])
	return d.id, err
}

// trail is a path that is walked along; to make strings of it, which are as long
// as it is deep, is for those who need one.
type trail []byte

func (p trail) String() string { return string(p) }

// down returns the trail of a name below p, in the memory of p: it is good until
// the next name.
func (p trail) down(name string) trail {
	if len(p) > 0 {
		p = append(p, '/')
	}
	return append(p, name...)
}

// walk calls f with each name and its node, in the order in which they are
// written: a directory before what is in it, names in order. first is false at
// further names of a node. f may keep neither the path nor the node.
func (t *Tree) walk(f func(path trail, id nodeID, n *node, first bool) error) error {
	round := t.newRound()
	root := t.root
	if err := f(nil, rootID, &root, true); err != nil {
		return err
	}
	return t.walkDir(rootID, make(trail, 0, 256), round, f)
}

func (t *Tree) walkDir(dir nodeID, at trail, round uint32, f func(trail, nodeID, *node, bool) error) error {
	return t.each(dir, func(name string, d dirent) error {
		n, err := t.node(d.id)
		if err != nil {
			return err
		}
		first := true
		if n.links > 1 && !d.dir {
			if first, err = t.visit(d.id, round); err != nil {
				return err
			}
		}
		path := at.down(name)
		if err := f(path, d.id, &n, first); err != nil || !d.dir {
			return err
		}
		return t.walkDir(d.id, path, round, f)
	})
}
