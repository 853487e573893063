package populate

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Owner is a user and a group.
type Owner struct{ UID, GID uint32 }

// ParseOwner reads "uid:gid".
func ParseOwner(s string) (o Owner, err error) {
	u, g, ok := strings.Cut(s, ":")
	uid, err1 := strconv.ParseUint(u, 10, 32)
	gid, err2 := strconv.ParseUint(g, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return o, badInput("owner %q is not uid:gid, two numbers", s)
	}
	return Owner{uint32(uid), uint32(gid)}, nil
}

// IDMap says that N ids from From on, in the input, are those from To on, in the
// file system.
type IDMap struct{ From, To, N uint32 }

// ParseIDMap reads "from:to:n".
func ParseIDMap(s string) (m IDMap, err error) {
	f := strings.Split(s, ":")
	if len(f) != 3 {
		return m, badInput("map %q is not from:to:n", s)
	}
	var v [3]uint32
	for i := range f {
		x, err := strconv.ParseUint(f[i], 10, 32)
		if err != nil {
			return m, badInput("map %q is not from:to:n, three numbers", s)
		}
		v[i] = uint32(x)
	}
	m = IDMap{v[0], v[1], v[2]}
	if uint64(m.From)+uint64(m.N) > 1<<32 || uint64(m.To)+uint64(m.N) > 1<<32 || m.N == 0 {
		return m, badInput("map %q reaches past the largest id, or is empty", s)
	}
	return m, nil
}

// mapID returns what id becomes; ok is false if maps do not have it.
func mapID(maps []IDMap, id uint32) (uint32, bool) {
	if len(maps) == 0 {
		return id, true
	}
	for _, m := range maps {
		if id >= m.From && id-m.From < m.N {
			return m.To + (id - m.From), true
		}
	}
	return 0, false
}

// Options say how a source becomes a tree, and how that is written. The zero
// value keeps everything as it is.
type Options struct {
	Owner          *Owner  // of everything
	MapUID, MapGID []IDMap // owners, those in ACLs and capabilities too; an id without a map is an error
	Root           *Owner  // of the root directory, whatever the source says
	RootMode       *uint16 // permissions of the root directory
	Devices        []DeviceEntry
	Exclude        []string // patterns of what is left out, see Excluded
	NoXattrs       bool     // no attributes, ACLs and labels of the source
	Contexts       *FileContexts

	// MaxTime, in seconds, takes the place of times after it: what
	// SOURCE_DATE_EPOCH asks for.
	MaxTime *int64

	// Reproducible leaves out what differs between copies of the same files:
	// times of access become those of modification, and blocks of zeros are
	// holes, wherever the source has holes.
	Reproducible bool
	// Seed is what inode generations are derived from. If it is zero, they are
	// derived from the file system's UUID and hash seed.
	Seed [16]byte
	// Time, in seconds, is when the file system is said to have been written; 0
	// for when it was made, by its superblock.
	Time int64

	// Prepare, if not nil, is called by Write with the file system before anything
	// is put into it, to make what does not come from the source. If it fails, so
	// does Write. Sizes that Fit finds do not count what it makes.
	Prepare func(*ext2fs.FS) error

	Workers    int    // that read; 0: by the machine
	TempDir    string // where compressed archives, those from a pipe and layers of an image are unpacked, and what of a tree is too much for Memory
	Memory     int64  // bytes of the tree that are in memory at most; 0: 48 MiB
	MaxEntries int    // of the tree; 0: 16 million
	Progress   func(Totals)
	Warn       func(path, what string) // what is left out, and why; may be nil
}

// Totals counts what was written.
type Totals struct {
	Entries  int64 // names
	Files    int64 // regular files
	Dirs     int64
	Symlinks int64
	Links    int64 // further names of what was counted
	Special  int64 // devices, fifos, sockets
	Bytes    int64 // of data of files, without holes
	All      int64 // entries of the tree
	AllBytes int64 // bytes of data of the tree, as far as known
}

// A Source is something to fill a file system from.
type Source interface {
	load(ctx context.Context, t *Tree) error
}

// blob is where contents of files come from.
type blob interface {
	// open returns the contents of a file that has the path in the tree, and size
	// bytes from at on.
	open(path string, size, at int64) (reader, error)
}

// reader reads the contents of a file at their places in the blob.
type reader interface {
	io.ReaderAt
	// Close fails if what was read is not of one state of the file.
	Close() error
}

// Tree is what a file system is filled with.
type Tree struct {
	*store
	root       node
	opt        Options
	entries    int
	maxEntries int
	recent     map[string]ref // attributes that were met, some of them
	blobs      []blob
	closers    []io.Closer

	// What counting has found once the tree was complete.
	inodes uint64
	size   int64 // bytes of data
	newest int64 // time of modification, in seconds
}

// treeMemory is what of a tree is in memory if Options do not say.
const treeMemory = 48 << 20

// Load reads src into a tree. Its errors name the entry that they are about.
func Load(ctx context.Context, src Source, o Options) (*Tree, error) {
	t := newTree(o)
	_, err := compileExcludes(o.Exclude)
	if err == nil {
		err = src.load(ctx, t)
	}
	if err == nil {
		err = t.finish()
	}
	if err != nil {
		_ = t.Close()
		return nil, err
	}
	t.recent = nil
	return t, nil
}

// newTree returns a tree of nothing but a root.
func newTree(o Options) *Tree {
	t := &Tree{opt: o, maxEntries: o.MaxEntries, recent: map[string]ref{}}
	if t.maxEntries <= 0 {
		t.maxEntries = maxEntries
	}
	memory := o.Memory
	if memory <= 0 {
		memory = treeMemory
	}
	t.store = newStore(memory, t.tempFile)
	t.root = node{mode: ondisk.ModeDir | 0o755, implied: true, links: 1}
	return t
}

// addBlob returns the number by which nodes know b.
func (t *Tree) addBlob(b blob) uint32 {
	t.blobs = append(t.blobs, b)
	return uint32(len(t.blobs))
}

// Close gives up what the tree keeps open. It cannot be written afterwards.
func (t *Tree) Close() error {
	var err error
	for _, c := range t.closers {
		if e := c.Close(); err == nil {
			err = e
		}
	}
	t.closers = nil
	return err
}

// Entries returns how many names the tree has, without the root.
func (t *Tree) Entries() int { return t.entries }

// Inodes returns how many inodes the tree has, the root among them.
func (t *Tree) Inodes() uint64 { return t.inodes }

// Bytes returns how many bytes of data the tree has, without holes.
func (t *Tree) Bytes() int64 { return t.size }

func (t *Tree) warn(path, format string, args ...any) {
	if t.opt.Warn != nil {
		t.opt.Warn(path, fmt.Sprintf(format, args...))
	}
}

// recentAttrs is how many sets of attributes are known by what is in them: files
// that have the same ones come together.
const recentAttrs = 4096

// share keeps a set of attributes, which other nodes may have too, in the order of
// their names.
func (t *Tree) share(list []xattr) (ref, error) {
	if len(list) == 0 {
		return 0, nil
	}
	slices.SortFunc(list, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	var key []byte
	for _, x := range list {
		key = binary.AppendUvarint(key, uint64(len(x.name)))
		key = append(key, x.name...)
		key = binary.AppendUvarint(key, uint64(len(x.value)))
		key = append(key, x.value...)
	}
	all := key
	if len(key) > sha256.Size {
		h := sha256.Sum256(key)
		key = h[:]
	}
	if r := t.recent[string(key)]; r != 0 {
		return r, nil
	}
	r, err := t.appendBytes(all)
	if len(t.recent) >= recentAttrs {
		clear(t.recent)
	}
	if err == nil {
		t.recent[string(key)] = r
	}
	return r, err
}

// attrsOf returns the attributes of a node.
func (t *Tree) attrsOf(n *node) ([]xattr, error) {
	if n.attrs == 0 {
		return nil, nil
	}
	text, err := t.text(n.attrs)
	if err != nil {
		return nil, err
	}
	var list []xattr
	next := func() (s string) {
		k, w := binary.Uvarint([]byte(text[:min(len(text), binary.MaxVarintLen64)]))
		s, text = text[w:w+int(k)], text[w+int(k):]
		return s
	}
	for text != "" {
		name := next()
		list = append(list, xattr{name, next()})
	}
	return list, nil
}

// Attributes that ids are found in.
const (
	xattrAccess  = "system.posix_acl_access"
	xattrDefault = "system.posix_acl_default"
	xattrCaps    = "security.capability"
	xattrSELinux = "security.selinux"
)

// finish applies the options to what was loaded.
func (t *Tree) finish() error {
	o := &t.opt
	if err := t.exclude(); err != nil {
		return err
	}
	if err := t.makeDevices(); err != nil {
		return err
	}
	err := t.walk(func(path trail, id nodeID, n *node, first bool) error {
		if !first {
			return nil
		}
		old := *n
		err := t.finishNode(path, id, n)
		if err == nil && *n != old {
			err = t.change(id, n)
		}
		if err == nil {
			err = t.count(n)
		}
		if err != nil {
			err = entryErr("attributes of", "/"+path.String(), err)
		}
		return err
	})
	if err != nil {
		return err
	}
	t.SetRoot(o.Root, o.RootMode)
	return nil
}

// count adds a node to what the tree has.
func (t *Tree) count(n *node) error {
	if t.inodes++; t.inodes == 1 { // the root
		t.newest = n.mtime.Sec
	}
	t.newest = max(t.newest, n.mtime.Sec)
	return t.data(n, func(s seg) error { t.size += s.n; return nil })
}

// SetRoot gives the root directory an owner and permissions, each unless it is
// nil, whatever the source says: what Options.Root and RootMode do, for those
// who know later.
func (t *Tree) SetRoot(owner *Owner, mode *uint16) {
	if owner != nil {
		t.opt.Root = owner
		t.root.uid, t.root.gid = owner.UID, owner.GID
	}
	if mode != nil {
		t.opt.RootMode = mode
		t.root.mode = ondisk.ModeDir | *mode&^ondisk.ModeFmt
	}
}

func (t *Tree) finishNode(path trail, id nodeID, n *node) error {
	o := &t.opt
	switch {
	case n.fixed:
	case o.Owner != nil:
		n.uid, n.gid = o.Owner.UID, o.Owner.GID
	case n.implied && id != rootID: // made here: of the super-user, whatever the maps
	default:
		uid, ok1 := mapID(o.MapUID, n.uid)
		gid, ok2 := mapID(o.MapGID, n.gid)
		if !ok1 || !ok2 {
			return badInput("no map has its owner, %d:%d", n.uid, n.gid)
		}
		n.uid, n.gid = uid, gid
	}
	if o.Reproducible {
		n.atime = n.mtime
	}
	if o.MaxTime != nil {
		for _, at := range []*ondisk.Time{&n.atime, &n.mtime} {
			if at.Sec >= *o.MaxTime {
				*at = ondisk.Time{Sec: *o.MaxTime}
			}
		}
	}
	maps := len(o.MapUID) > 0 || len(o.MapGID) > 0
	if o.Contexts == nil && (n.attrs == 0 || !maps) {
		return nil
	}
	list, err := t.attrsOf(n)
	if err != nil {
		return err
	}
	for i := range list {
		if err := t.mapAttr(&list[i]); err != nil {
			return err
		}
	}
	if o.Contexts != nil {
		if label, ok := o.Contexts.Lookup("/"+path.String(), n.mode); ok {
			list = slices.DeleteFunc(list, func(x xattr) bool { return x.name == xattrSELinux })
			list = append(list, xattr{xattrSELinux, label + "\x00"})
		}
	}
	n.attrs, err = t.share(list)
	return err
}

// mapAttr maps the ids in an attribute.
func (t *Tree) mapAttr(x *xattr) error {
	o := &t.opt
	switch x.name {
	case xattrAccess, xattrDefault:
		if len(o.MapUID) == 0 && len(o.MapGID) == 0 {
			return nil
		}
		acl, err := ondisk.ParseXattrACL([]byte(x.value))
		if err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
		for i := range acl {
			var ok = true
			switch acl[i].Tag {
			case ondisk.ACLUser:
				acl[i].ID, ok = mapID(o.MapUID, acl[i].ID)
			case ondisk.ACLGroup:
				acl[i].ID, ok = mapID(o.MapGID, acl[i].ID)
			}
			if !ok {
				return badInput("no map has an id of its ACL")
			}
		}
		sortACL(acl)
		x.value = string(acl.AppendXattr(nil))
	case xattrCaps:
		// Revision 3 has the id of a namespace's root after the sets.
		if b := []byte(x.value); len(b) == 24 && b[3] == 3 && len(o.MapUID) > 0 {
			id, ok := mapID(o.MapUID, binary.LittleEndian.Uint32(b[20:]))
			if !ok {
				return badInput("no map has the root id of its capabilities")
			}
			binary.LittleEndian.PutUint32(b[20:], id)
			x.value = string(b)
		}
	}
	return nil
}

// interrupted returns why ctx has ended, as an error that is EINTR too.
func interrupted(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, syscall.EINTR) {
		return cause
	}
	return fmt.Errorf("interrupted: %w (%w)", cause, syscall.EINTR)
}
