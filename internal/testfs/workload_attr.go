//go:build linux

package testfs

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

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
