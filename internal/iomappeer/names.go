package iomappeer

import (
	"strings"
	"sync"
	"syscall"
	"time"
)

type dname struct {
	parent uint64
	name   string
}

type dentry struct {
	in   *Inode // nil: there is no such name
	till time.Time
}

// dcache is the names that the kernel remembers.
type dcache struct {
	mu    sync.Mutex
	names map[dname]dentry
}

func (d *dcache) init() { d.names = make(map[dname]dentry) }

func (d *dcache) set(parent uint64, name string, in *Inode, till time.Time) {
	d.mu.Lock()
	d.names[dname{parent, name}] = dentry{in, till}
	d.mu.Unlock()
}

func (d *dcache) get(parent uint64, name string) (dentry, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.names[dname{parent, name}]
	return e, ok && time.Now().Before(e.till)
}

func (d *dcache) remove(parent uint64, name string) {
	d.mu.Lock()
	delete(d.names, dname{parent, name})
	d.mu.Unlock()
}

func (d *dcache) forget(in *Inode) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n, e := range d.names {
		if e.in == in || n.parent == in.nodeid {
			delete(d.names, n)
		}
	}
}

func (d *dcache) clear() {
	d.mu.Lock()
	clear(d.names)
	d.mu.Unlock()
}

// Lookup finds a name in a folder: in the cache while the server's validity
// lasts, or by LOOKUP.
func (k *Kernel) Lookup(dir *Inode, name string) (*Inode, syscall.Errno) {
	if e, ok := k.dents.get(dir.nodeid, name); ok {
		if e.in == nil {
			return nil, syscall.ENOENT
		}
		if e.in.stays() {
			return e.in, 0
		}
	}
	return k.lookup(k.task("lookup"), dir, name)
}

func (k *Kernel) lookup(t *task, dir *Inode, name string) (*Inode, syscall.Errno) {
	var e entryOut
	since := k.evictions.Load()
	errno := k.callInto(t, opLookup, dir.nodeid, &e, name)
	if errno == 0 && e.NodeID == 0 {
		k.dents.set(dir.nodeid, name, nil, validity(e.EntryValid, e.EntryValidNsec))
		return nil, syscall.ENOENT
	}
	if errno != 0 {
		k.dents.remove(dir.nodeid, name)
		return nil, errno
	}
	in, errno := k.instantiate(&e, false, since)
	if errno == 0 {
		in.named(dname{dir.nodeid, name}, true, false)
		k.dents.set(dir.nodeid, name, in, validity(e.EntryValid, e.EntryValidNsec))
	}
	return in, errno
}

// Walk looks up each part of a path from the root on.
func (k *Kernel) Walk(path string) (*Inode, syscall.Errno) {
	in := k.root
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		if name == "" {
			continue
		}
		var errno syscall.Errno
		if in, errno = k.Lookup(in, name); errno != 0 {
			return nil, errno
		}
	}
	return in, 0
}

// inherit returns the mode that a new inode is to have, and the ACLs that it gets
// afterwards. The kernel works them out where the folder is its own; a server must
// neither apply the umask nor inherit ACLs then.
func (k *Kernel) inherit(t *task, dir *Inode, mode uint32) (sent uint32, acl, def []byte) {
	own := k.initFlags&flagPosixACL != 0 && dir.exclusive
	if !own {
		if k.initFlags&flagDontMask == 0 {
			mode &^= k.cfg.Umask
		}
		return mode, nil, nil
	}
	if mode&syscall.S_IFMT != syscall.S_IFLNK {
		d, errno := dir.getxattr(t, "system.posix_acl_default")
		if errno == 0 && len(d) > 4 {
			acl, mode, ext := inheritACL(d, mode)
			if !ext {
				acl = nil
			}
			if mode&syscall.S_IFMT != syscall.S_IFDIR {
				d = nil
			}
			return mode, acl, d
		}
	}
	return mode &^ k.cfg.Umask, nil, nil
}

// served returns the mode that a server is to give a new inode in dir for which it
// was sent mode, if that can be known: the same in a folder that is the kernel's, else
// less what the umask takes or, in its place, the folder's default ACL.
func (k *Kernel) served(dir *Inode, mode uint32) (uint32, bool) {
	switch {
	case k.initFlags&flagPosixACL == 0:
		return 0, false
	case dir.exclusive:
		return mode, true
	case k.cfg.NoChecks:
		return 0, false
	}
	if d, errno := dir.getxattr(k.task("check"), "system.posix_acl_default"); errno == 0 && len(d) > 4 {
		_, mode, _ = inheritACL(d, mode)
		return mode, true
	}
	if k.initFlags&flagDontMask != 0 {
		mode &^= k.cfg.Umask
	}
	return mode, true
}

// create is what all operations that make an inode have in common. msg is built
// from the mode that the child gets; file is set for what CREATE opens.
func (k *Kernel) create(name string, dir *Inode, op uint32, mode uint32, file bool, msg func(mode uint32) []any) (*Inode, openOut,
	syscall.Errno) {
	t := k.task(strings.ToLower(OpName(op)))
	var open openOut
	if errno := dir.usable(); errno != 0 {
		return nil, open, errno
	}
	k.frozen.RLock()
	defer k.frozen.RUnlock()
	dir.rwsem.Lock()
	defer dir.rwsem.Unlock()
	if e, ok := k.dents.get(dir.nodeid, name); ok && e.in != nil && name != "" {
		return nil, open, syscall.EEXIST
	}
	sent, acl, def := k.inherit(t, dir, mode)
	var e entryOut
	n := size(e)
	if file {
		n += size(open)
	}
	since := k.evictions.Load()
	b, errno := k.call(t, op, dir.nodeid, n, n, msg(sent)...)
	if errno != 0 {
		return nil, open, errno
	}
	rest, _ := dec(b, &e)
	if file {
		dec(rest, &open)
	}
	if want, known := k.served(dir, sent); known && op != opSymlink {
		got := e.Attr.Mode
		ok := got&syscall.S_IFMT == want&syscall.S_IFMT && got&0o1777 == want&0o1777
		k.expect("A14", ok, nil, "%s of %q with mode %#o made mode %#o, want %#o", OpName(op), name, sent, got, want)
	}
	in, errno := k.instantiate(&e, true, since)
	if errno != 0 {
		return nil, open, errno
	}
	if name != "" {
		in.named(dname{dir.nodeid, name}, true, true)
		k.dents.set(dir.nodeid, name, in, validity(e.EntryValid, e.EntryValidNsec))
	}
	dir.expire()
	if def != nil {
		errno = in.setxattr(t, "system.posix_acl_default", def, 0)
	}
	if acl != nil && errno == 0 {
		errno = in.setxattr(t, "system.posix_acl_access", acl, 0)
	}
	return in, open, errno
}

// Create is open(2) with O_CREAT|O_EXCL|O_RDWR.
func (k *Kernel) Create(dir *Inode, name string, mode uint32) (*File, syscall.Errno) {
	const flags = syscall.O_RDWR | syscall.O_CREAT | syscall.O_EXCL
	if k.unsupported(opCreate) {
		return k.mknodOpen(dir, name, mode)
	}
	in, open, errno := k.create(name, dir, opCreate, syscall.S_IFREG|mode&0o7777, true, func(mode uint32) []any {
		return []any{createIn{Flags: flags, Mode: mode, Umask: k.cfg.Umask}, name}
	})
	if errno == syscall.ENOSYS {
		k.setUnsupported(opCreate)
		return k.mknodOpen(dir, name, mode)
	}
	if errno != 0 {
		return nil, errno
	}
	return in.opened(open, flags)
}

// opened makes a File of what CREATE or TMPFILE has opened.
func (in *Inode) opened(open openOut, flags uint32) (*File, syscall.Errno) {
	h := &File{in: in, fh: open.FH, flags: flags, opened: true}
	if in.k.unsupported(opOpen) {
		h.opened = false
	}
	in.mu.Lock()
	in.opens++
	in.mu.Unlock()
	if errno := h.took(open.OpenFlags); errno != 0 {
		h.Close()
		return nil, errno
	}
	return h, 0
}

func (k *Kernel) mknodOpen(dir *Inode, name string, mode uint32) (*File, syscall.Errno) {
	in, errno := k.Mknod(dir, name, syscall.S_IFREG|mode&0o7777, 0)
	if errno != 0 {
		return nil, errno
	}
	return k.Open(in, syscall.O_RDWR)
}

// Tmpfile is open(2) with O_TMPFILE.
func (k *Kernel) Tmpfile(dir *Inode, mode uint32) (*File, syscall.Errno) {
	const flags = syscall.O_RDWR
	in, open, errno := k.create("", dir, opTmpfile, syscall.S_IFREG|mode&0o7777, true, func(mode uint32) []any {
		return []any{createIn{Flags: flags, Mode: mode, Umask: k.cfg.Umask}, ""}
	})
	if errno != 0 {
		return nil, errno
	}
	k.expect("ATTR", in.Nlink() == 0, in, "a file without a name has %d links", in.Nlink())
	k.removes.Add(1)
	return in.opened(open, flags)
}

// Mknod is mknod(2).
func (k *Kernel) Mknod(dir *Inode, name string, mode, rdev uint32) (*Inode, syscall.Errno) {
	in, _, errno := k.create(name, dir, opMknod, mode, false, func(mode uint32) []any {
		return []any{mknodIn{Mode: mode, Rdev: rdev, Umask: k.cfg.Umask}, name}
	})
	return in, errno
}

// Mkdir is mkdir(2).
func (k *Kernel) Mkdir(dir *Inode, name string, mode uint32) (*Inode, syscall.Errno) {
	in, _, errno := k.create(name, dir, opMkdir, syscall.S_IFDIR|mode&0o7777, false, func(mode uint32) []any {
		return []any{mkdirIn{Mode: mode & 0o7777, Umask: k.cfg.Umask}, name}
	})
	return in, errno
}

// Symlink is symlink(2).
func (k *Kernel) Symlink(dir *Inode, name, target string) (*Inode, syscall.Errno) {
	in, _, errno := k.create(name, dir, opSymlink, syscall.S_IFLNK|0o777, false, func(uint32) []any { return []any{name, target} })
	return in, errno
}

// Readlink is readlink(2).
func (k *Kernel) Readlink(in *Inode) (string, syscall.Errno) {
	b, errno := k.call(k.task("readlink"), opReadlink, in.nodeid, 0, pageSize-1)
	return string(b), errno
}

// Link is link(2).
func (k *Kernel) Link(in, dir *Inode, name string) syscall.Errno {
	t := k.task("link")
	dir.rwsem.Lock()
	defer dir.rwsem.Unlock()
	in.rwsem.Lock()
	defer in.rwsem.Unlock()
	in.stamped.enter()
	defer in.stamped.leave()
	was := in.Nlink()
	since := k.evictions.Load()
	var e entryOut
	if errno := k.callInto(t, opLink, dir.nodeid, &e, in.nodeid, name); errno != 0 {
		return errno
	}
	if !k.expect("NAME", e.NodeID == in.nodeid, in, "LINK is answered by node %d", e.NodeID) {
		return syscall.EIO
	}
	if _, errno := k.instantiate(&e, false, since); errno != 0 {
		return errno
	}
	in.named(dname{dir.nodeid, name}, true, true)
	k.expect("ATTR", in.Nlink() == was+1, in, "LINK leaves %d links, of %d before", in.Nlink(), was)
	k.dents.set(dir.nodeid, name, in, validity(e.EntryValid, e.EntryValidNsec))
	in.touch(false, true, false)
	dir.expire()
	return 0
}

// Unlink is unlink(2).
func (k *Kernel) Unlink(dir *Inode, name string) syscall.Errno { return k.remove(dir, name, opUnlink) }

// Rmdir is rmdir(2).
func (k *Kernel) Rmdir(dir *Inode, name string) syscall.Errno { return k.remove(dir, name, opRmdir) }

func (k *Kernel) remove(dir *Inode, name string, op uint32) syscall.Errno {
	t := k.task(strings.ToLower(OpName(op)))
	in, errno := k.Lookup(dir, name)
	if errno != 0 {
		return errno
	}
	k.frozen.RLock()
	defer k.frozen.RUnlock()
	dir.rwsem.Lock()
	in.rwsem.Lock()
	in.stamped.enter()
	_, errno = k.call(t, op, dir.nodeid, 0, 0, name)
	in.stamped.leave()
	if errno == 0 {
		k.dents.remove(dir.nodeid, name)
		dir.expire()
		in.named(dname{dir.nodeid, name}, false, true)
		in.unlinked(op == opRmdir)
	}
	in.rwsem.Unlock()
	dir.rwsem.Unlock()
	if errno == 0 {
		in.dropIfUnused(t)
	}
	return errno
}

// unlinked is that an inode has lost a name.
func (in *Inode) unlinked(dir bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if dir {
		in.nlink = 0
	} else if in.nlink > 0 {
		in.nlink--
	}
	in.attrTill = time.Time{}
	if in.nlink == 0 && in.opens > 0 {
		in.k.removes.Add(1)
	}
}

// Flags of Rename.
const (
	RenameNoreplace = 1
	RenameExchange  = 2
	RenameWhiteout  = 4
)

// Rename is renameat2(2).
func (k *Kernel) Rename(from *Inode, name string, to *Inode, newName string, flags uint32) syscall.Errno {
	t := k.task("rename")
	in, errno := k.Lookup(from, name)
	if errno != 0 {
		return errno
	}
	old, errno := k.Lookup(to, newName)
	if errno != 0 && errno != syscall.ENOENT {
		return errno
	}
	if old == in {
		return 0
	}
	k.frozen.RLock()
	defer k.frozen.RUnlock()
	first, second := from, to
	if first.nodeid > second.nodeid {
		first, second = second, first
	}
	first.rwsem.Lock()
	if second != first {
		second.rwsem.Lock()
	}
	moved := []*Inode{in}
	if old != nil {
		moved = append(moved, old)
	}
	for _, m := range moved {
		m.stamped.enter()
	}
	_, errno = k.call(t, opRename2, from.nodeid, 0, 0, rename2In{NewDir: to.nodeid, Flags: flags}, name, newName)
	for _, m := range moved {
		m.stamped.leave()
	}
	if errno == 0 {
		k.dents.remove(from.nodeid, name)
		k.dents.remove(to.nodeid, newName)
		from.expire()
		to.expire()
		in.expire()
		in.named(dname{from.nodeid, name}, false, true)
		in.named(dname{to.nodeid, newName}, true, true)
		if old != nil {
			old.named(dname{to.nodeid, newName}, false, true)
			if flags&RenameExchange != 0 {
				old.named(dname{from.nodeid, name}, true, true)
			}
		}
		if old != nil && flags&RenameExchange == 0 {
			old.unlinked(old.dir)
		}
	}
	if second != first {
		second.rwsem.Unlock()
	}
	first.rwsem.Unlock()
	if errno == 0 && old != nil {
		old.dropIfUnused(t)
	}
	return errno
}

// A Dirent is an entry that READDIR told.
type Dirent struct {
	Name string
	Ino  uint64
	Type uint32
}

// Readdir reads a folder, with READDIRPLUS where that was negotiated.
func (k *Kernel) Readdir(dir *Inode) ([]Dirent, syscall.Errno) {
	t := k.task("readdir")
	h, errno := k.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY)
	if errno != 0 {
		return nil, errno
	}
	defer h.Close()
	dir.rwsem.RLock()
	defer dir.rwsem.RUnlock()
	plus := k.initFlags&flagReaddirplus != 0
	op := uint32(opReaddir)
	if plus {
		op = opReaddirplus
	}
	var out []Dirent
	const n = 32 << 10
	for off := uint64(0); ; {
		since := k.evictions.Load()
		b, errno := k.call(t, op, dir.nodeid, 0, n, readIn{FH: h.fh, Offset: off, Size: n})
		if errno != 0 {
			return out, errno
		}
		if len(b) == 0 {
			return out, 0
		}
		for len(b) > 0 {
			var e entryOut
			var d dirent
			ok := true
			if plus {
				b, ok = dec(b, &e)
			}
			if ok {
				b, ok = dec(b, &d)
			}
			pad := (int(d.Namelen) + 7) &^ 7
			if !ok || d.Namelen == 0 || len(b) < int(d.Namelen) {
				k.violate("A1", dir, "%s: an entry that ends nowhere", OpName(op))
				return out, syscall.EIO
			}
			name := string(b[:d.Namelen])
			b = b[min(pad, len(b)):]
			off = d.Off
			out = append(out, Dirent{name, d.Ino, d.Type})
			k.eval("NAME")
			if plus && e.NodeID != 0 && name != "." && name != ".." {
				in, errno := k.instantiate(&e, false, since)
				if errno != 0 {
					continue
				}
				k.expect("NAME", e.Attr.Ino == d.Ino, in, "READDIRPLUS: %q has ino %d in the entry, %d in the attributes", name, d.Ino,
					e.Attr.Ino)
				in.named(dname{dir.nodeid, name}, true, false)
				k.dents.set(dir.nodeid, name, in, validity(e.EntryValid, e.EntryValidNsec))
			}
		}
	}
}
