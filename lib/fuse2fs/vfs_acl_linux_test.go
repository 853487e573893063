package fuse2fs_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	probes["acl"] = probeACL
	probes["xattr"] = probeXattr
}

// An entry of an ACL: tag, permissions, id.
type entry struct {
	tag, perm uint16
	id        uint32
}

func e(tag, perm uint16, id ...uint32) entry {
	if len(id) == 0 {
		return entry{tag, perm, math.MaxUint32}
	}
	return entry{tag, perm, id[0]}
}

func acl(entries ...entry) []byte {
	b := []byte{2, 0, 0, 0}
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func probeACL(p *probe) {
	p.must(os.Chmod(p.dir, 0o777))
	const access, deflt = "system.posix_acl_access", "system.posix_acl_default"
	get := func(name string) {
		for _, a := range []string{access, deflt} {
			buf := make([]byte, 1000)
			n, err := unix.Getxattr(p.at(name), a, buf)
			if err == nil {
				p.logf("  %s %s %x", name, a, buf[:n])
			} else {
				p.logf("  %s %s %s", name, a, errName(err))
			}
		}
		p.show(name)
	}
	lists := [][]byte{
		nil, {}, {2, 0, 0, 0}, {1, 0, 0, 0}, {2, 0, 0, 0, 1},
		acl(e(1, 7), e(4, 5), e(32, 1)),
		acl(e(1, 7), e(4, 5)),
		acl(e(1, 7), e(2, 5, 9), e(4, 5), e(32, 1)),
		acl(e(1, 6), e(2, 5, 9), e(4, 5), e(16, 4), e(32, 1)),
		acl(e(1, 6), e(2, 5, 9), e(2, 6, 9), e(4, 5), e(16, 4), e(32, 1)),
		acl(e(1, 6), e(2, 5, 9), e(2, 6, 8), e(4, 5), e(16, 4), e(32, 1)),
		acl(e(4, 5), e(1, 6), e(32, 1)),
		acl(e(1, 8), e(4, 5), e(32, 1)),
		acl(e(1, 6), e(4, 5), e(8, 7, 5), e(8, 0, 6), e(16, 7), e(32, 1)),
		acl(e(1, 6), e(4, 5), e(16, 7), e(32, 1)),
		acl(e(1, 0), e(4, 0), e(32, 0)),
		acl(e(3, 6), e(4, 5), e(32, 1)),
	}
	for i, l := range lists {
		f, d := fmt.Sprint("f", i), fmt.Sprint("d", i)
		p.file(f, 1)
		p.mkdir(d)
		p.try(unix.Setxattr(p.at(f), access, l, 0), "access ACL %d of a file", i)
		get(f)
		p.try(unix.Setxattr(p.at(f), deflt, l, 0), "default ACL %d of a file", i)
		p.try(unix.Setxattr(p.at(d), access, l, 0), "access ACL %d of a folder", i)
		p.try(unix.Setxattr(p.at(d), deflt, l, 0), "default ACL %d of a folder", i)
		get(d)
		buf := make([]byte, 500)
		n, err := unix.Listxattr(p.at(d), buf)
		p.logf("  list %q %s", sortedNames(buf[:max(n, 0)]), errName(err))
		for _, umask := range []int{0, 0o022, 0o077, 0o777} {
			unix.Umask(umask)
			sub := fmt.Sprintf("%s/u%o", d, umask)
			fd, err := unix.Open(p.at(sub), unix.O_CREAT|unix.O_RDWR, 0o666)
			p.try(err, "create with umask %o", umask)
			unix.Close(fd)
			p.try(unix.Mkdir(p.at(sub+"d"), 0o777), "mkdir")
			p.try(unix.Mknod(p.at(sub+"n"), unix.S_IFIFO|0o666, 0), "mknod")
			p.try(unix.Symlink("x", p.at(sub+"l")), "symlink")
			fd, err = unix.Open(p.at(d), unix.O_TMPFILE|unix.O_RDWR, 0o666)
			p.try(err, "tmpfile")
			p.try(unix.Linkat(fd, "", unix.AT_FDCWD, p.at(sub+"t"), unix.AT_EMPTY_PATH), "link it")
			unix.Close(fd)
			unix.Umask(0o022)
			for _, s := range []string{"", "d", "n", "t"} {
				get(sub + s)
			}
			p.show(sub + "l")
		}
		for _, mode := range []uint32{0o640, 0o777, 0} {
			p.try(unix.Chmod(p.at(f), mode), "chmod %o", mode)
			get(f)
		}
		p.try(unix.Removexattr(p.at(f), access), "remove")
		p.try(unix.Removexattr(p.at(f), access), "remove again")
		get(f)
		p.try(unix.Removexattr(p.at(d), deflt), "remove the default")
		p.try(unix.Removexattr(p.at(d), deflt), "remove the default again")
		get(d)
	}
	// What they mean.
	f := p.file("meaning", 10)
	p.must(unix.Setxattr(f, access, acl(e(1, 6), e(2, 4, 1001), e(2, 6, 1002), e(2, 0, 1003), e(4, 4), e(8, 6, 2000), e(16, 6), e(32, 0)), 0))
	for _, w := range []struct{ uid, gid int }{{1000, 1000}, {1001, 1001}, {1002, 2}, {1003, 2000}, {1004, 2000}, {1004, 0}} {
		p.as(w.uid, w.gid, nil, func() {
			for _, fl := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR} {
				fd, err := unix.Open(f, fl, 0)
				p.try(err, "open %d by %d:%d", fl, w.uid, w.gid)
				unix.Close(fd)
			}
			p.try(unix.Setxattr(f, access, lists[5], 0), "set by %d", w.uid)
			p.try(unix.Removexattr(f, access), "remove by %d", w.uid)
		})
	}
}

func sortedNames(b []byte) []string {
	s := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	sort.Strings(s)
	return s
}

func probeXattr(p *probe) {
	p.file("f", 1)
	p.mkdir("d")
	p.must(os.Symlink("f", p.at("l")))
	p.must(unix.Mkfifo(p.at("p"), 0o666))
	long := func(n int) string { return "user." + strings.Repeat("n", n) }
	names := []string{"user.a", "user.", "user", "trusted.a", "trusted.", "security.a", "security.", "system.a", "system.data", "system.posix_acl_x",
		"other.a", "", ".", "user.a\nb", long(249), long(250), long(251), long(300), "user.é", "com.apple.x"}
	for _, f := range []string{"f", "d", "l", "p"} {
		for _, n := range names {
			for _, fl := range []int{0, unix.XATTR_REPLACE, unix.XATTR_CREATE, 3, 4} {
				p.try(unix.Lsetxattr(p.at(f), n, []byte("value"), fl), "set %.20q of %s, flags %d", n, f, fl)
			}
			for _, size := range []int{0, 1, 4, 5, 6, 100000} {
				buf := make([]byte, size)
				l, err := unix.Lgetxattr(p.at(f), n, buf)
				p.logf("  in %d bytes: %d %s", size, l, errName(err))
			}
			p.try(unix.Lremovexattr(p.at(f), n), "  remove")
			p.try(unix.Lremovexattr(p.at(f), n), "  remove again")
		}
	}
	for _, size := range []int{0, 1, 100, 3000, 3900, 4000, 4096, 5000, 65535, 65536, 65537} {
		p.try(unix.Setxattr(p.at("f"), "user.big", make([]byte, size), 0), "set %d bytes", size)
		n, err := unix.Getxattr(p.at("f"), "user.big", make([]byte, 70000))
		p.logf("  get %d %s", n, errName(err))
	}
	for i := range 300 {
		if err := unix.Setxattr(p.at("d"), fmt.Sprint("user.many", i), []byte("value of some length"), 0); err != nil {
			p.logf("after %d: %s", i, errName(err))
			break
		}
	}
	for _, size := range []int{0, 10, 65536} {
		n, err := unix.Listxattr(p.at("d"), make([]byte, size))
		p.logf("list in %d bytes: %d %s", size, n, errName(err))
	}
	p.must(unix.Setxattr(p.at("f"), "trusted.t", []byte("x"), 0))
	p.must(unix.Setxattr(p.at("f"), "security.s", []byte("x"), 0))
	p.as(1000, 1000, nil, func() {
		buf := make([]byte, 1000)
		n, err := unix.Listxattr(p.at("f"), buf)
		p.logf("list by a user: %q %s", sortedNames(buf[:max(n, 0)]), errName(err))
		_, err = unix.Getxattr(p.at("f"), "trusted.t", buf)
		p.try(err, "get trusted by a user")
		_, err = unix.Getxattr(p.at("f"), "security.s", buf)
		p.try(err, "get security by a user")
	})
}
