package fuse2fs_test

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func init() {
	probes["suid"] = probeSuid
	probes["owner"] = probeOwner
	probes["sgid"] = probeSgid
}

// probeSuid looks at set-id bits, and file capabilities, of files that change.
func probeSuid(p *probe) {
	p.must(os.Chmod(p.dir, 0o777))
	n := 0
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	ops := []struct {
		name string
		run  func(fd int, name string) error
	}{
		{"write", func(fd int, _ string) error { _, err := unix.Write(fd, []byte("x")); return err }},
		{"truncate", func(fd int, _ string) error { return unix.Ftruncate(fd, 3) }},
		{"truncate by path", func(_ int, name string) error { return unix.Truncate(name, 3) }},
		{"open with O_TRUNC", func(_ int, name string) error {
			fd, err := unix.Open(name, unix.O_WRONLY|unix.O_TRUNC, 0)
			unix.Close(fd)
			return err
		}},
		{"fallocate", func(fd int, _ string) error { return unix.Fallocate(fd, 0, 0, 10000) }},
		{"punch", func(fd int, _ string) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
		}},
		{"chown to the same", func(_ int, name string) error { return os.Chown(name, 1000, 1000) }},
		{"chgrp", func(_ int, name string) error { return os.Chown(name, -1, 1001) }},
		{"chown of nothing", func(_ int, name string) error { return os.Chown(name, -1, -1) }},
		{"chmod", func(_ int, name string) error { return unix.Chmod(name, 0o6755) }},
		{"chmod g+s of a foreign group", func(_ int, name string) error { return unix.Chmod(name, 0o2755) }},
		{"setxattr", func(_ int, name string) error { return unix.Setxattr(name, "user.x", []byte("v"), 0) }},
		{"setfacl", func(_ int, name string) error {
			return unix.Setxattr(name, "system.posix_acl_access", acl(e(1, 7), e(2, 6, 77), e(4, 5), e(16, 7), e(32, 5)), 0)
		}},
		{"link", func(_ int, name string) error { return os.Link(name, name+"l") }},
		{"rename", func(_ int, name string) error { return os.Rename(name, name) }},
		{"utimes", func(_ int, name string) error { return os.Chtimes(name, statTime(1), statTime(2)) }},
	}
	for _, mode := range []uint32{0o4755, 0o2755, 0o2745, 0o6777, 0o6644, 0o755} {
		for _, uid := range []int{0, 1000, 1002} {
			for gid := 1000; gid <= 1003; gid += 3 {
				for _, o := range ops {
					if mode&0o010 == 0 && mode&unix.S_ISGID != 0 && uid != 0 && uid != gid {
						// What becomes of set-group-id without the right to
						// execute depends on all groups of the caller, and
						// FUSE tells a server of one.
						continue
					}
					n++
					name := p.file(fmt.Sprint("f", n), 5000)
					p.must(os.Chown(name, 1000, gid))
					p.must(unix.Chmod(name, mode|0o022))
					if o.name != "chown of nothing" {
						p.must(unix.Setxattr(name, "security.capability", capability, 0))
					}
					fd := p.fd(fmt.Sprint("f", n), 0)
					label := func(err error) {
						p.try(err, "%s of mode %o, group %d by %d", o.name, mode|0o022, gid, uid)
					}
					if uid == 0 {
						label(o.run(fd, name))
					} else {
						p.as(uid, uid, []int{1001}, func() { label(o.run(fd, name)) })
					}
					st := p.lstat(fmt.Sprint("f", n))
					size, err := unix.Getxattr(name, "security.capability", make([]byte, 100))
					p.logf("  mode %o capability %d %s", st.Mode&0o7777, size, errName(err))
				}
			}
		}
	}
}

func probeOwner(p *probe) {
	p.must(os.Chmod(p.dir, 0o1777))
	p.file("root", 1)
	p.mkdir("rootdir")
	p.as(1000, 1000, []int{1005}, func() {
		p.file("mine", 1)
		p.mkdir("minedir")
		p.try(os.Chown(p.at("mine"), 1001, -1), "give away")
		p.try(os.Chown(p.at("mine"), -1, 1005), "to a group of mine")
		p.try(os.Chown(p.at("mine"), -1, 1006), "to another group")
		p.try(os.Chown(p.at("root"), 1000, -1), "take")
		p.try(os.Chmod(p.at("root"), 0o777), "chmod")
		p.try(os.Remove(p.at("root")), "remove in a sticky folder")
		p.try(os.Rename(p.at("root"), p.at("x")), "rename in a sticky folder")
		p.try(os.Rename(p.at("mine"), p.at("root")), "rename over in a sticky folder")
		p.try(os.Mkdir(p.at("rootdir/x"), 0o755), "mkdir in root's")
		p.try(os.Rename(p.at("minedir"), p.at("rootdir/x")), "rename into root's")
		fd, err := unix.Open(p.at("rootdir"), unix.O_RDONLY, 0)
		p.try(err, "open root's folder")
		unix.Close(fd)
		_, err = os.ReadDir(p.at("rootdir"))
		p.try(err, "read root's folder")
		p.try(unix.Access(p.at("root"), unix.W_OK), "access for writing")
		p.try(unix.Setxattr(p.at("root"), "user.x", nil, 0), "setxattr")
		p.try(unix.Setxattr(p.at("mine"), "trusted.x", nil, 0), "trusted")
		p.try(unix.Setxattr(p.at("mine"), "security.x", nil, 0), "security")
		p.try(unix.Link(p.at("root"), p.at("rootlink")), "link")
	})
	p.must(os.Chmod(p.at("rootdir"), 0o700))
	p.as(1001, 1001, nil, func() {
		p.try(os.Remove(p.at("mine")), "remove another's in a sticky folder")
		_, err := os.ReadDir(p.at("rootdir"))
		p.try(err, "read root's folder")
		_, err = os.Stat(p.at("rootdir/x"))
		p.try(err, "look into root's folder")
	})
	p.show("mine")
	p.show("minedir")
}

func probeSgid(p *probe) {
	p.mkdir("d")
	p.must(os.Chown(p.at("d"), 0, 2000))
	p.must(unix.Chmod(p.at("d"), 0o2777))
	n := 0
	make := func(who string) {
		for _, mode := range []uint32{0o644, 0o2755, 0o2745, 0o6777} {
			n++
			name := fmt.Sprint("d/", who, n)
			fd, err := unix.Open(p.at(name), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, mode)
			p.try(err, "create %o by %s", mode, who)
			unix.Close(fd)
			p.show(name)
			p.try(unix.Mkdir(p.at(name+"d"), mode), "mkdir")
			p.show(name + "d")
			p.try(unix.Mknod(p.at(name+"n"), unix.S_IFREG|mode, 0), "mknod")
			p.show(name + "n")
			fd, err = unix.Open(p.at("d"), unix.O_TMPFILE|unix.O_RDWR, mode)
			p.try(err, "tmpfile")
			if err == nil {
				var st unix.Stat_t
				p.must(unix.Fstat(fd, &st))
				p.logf("  mode %o group %d", st.Mode, st.Gid)
				unix.Close(fd)
			}
			p.try(os.Symlink("x", p.at(name+"l")), "symlink")
			p.show(name + "l")
		}
	}
	make("root")
	p.as(1000, 1000, nil, func() { make("user") })
	p.as(1000, 1000, []int{2000}, func() { make("member") })
	p.mkdir("plain")
	p.must(os.Chown(p.at("plain"), 7, 8))
	p.must(unix.Chmod(p.at("plain"), 0o777))
	p.as(1000, 1000, nil, func() { p.file("plain/f", 1) })
	p.show("plain/f")
}
