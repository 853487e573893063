//go:build linux

package testfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
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
