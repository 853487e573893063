package fuse2fs_test

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

func init() {
	probes["times"] = probeTimes
	probes["settimes"] = probeSetTimes
}

type stamps struct{ a, m, c unix.Timespec }

func (p *probe) stamps(name string) stamps {
	st := p.lstat(name)
	return stamps{st.Atim, st.Mtim, st.Ctim}
}

// probeTimes says which times of which files each operation changes.
func probeTimes(p *probe) {
	watch := []string{"d", "d/f", "d/g", "d/sub", "d/link", "e"}
	p.mkdir("d")
	p.mkdir("d/sub")
	p.mkdir("e")
	p.file("d/f", 9000)
	p.file("d/g", 100)
	p.must(os.Symlink("f", p.at("d/link")))
	fd := p.fd("d/f", 0)
	stat := func() map[string]stamps {
		seen := map[string]stamps{}
		for _, w := range watch {
			var st unix.Stat_t
			if unix.Lstat(p.at(w), &st) == nil {
				seen[w] = stamps{st.Atim, st.Mtim, st.Ctim}
			}
		}
		return seen
	}
	op := func(label string, f func() error) {
		for _, w := range watch { // old enough for any rule about atime, after mtime
			old := []unix.Timespec{{Sec: 1e9 + 5}, {Sec: 1e9}}
			_ = unix.UtimesNanoAt(unix.AT_FDCWD, p.at(w), old, unix.AT_SYMLINK_NOFOLLOW)
		}
		before := stat()
		tick()
		line := label + ": " + errName(f())
		after := stat()
		for _, w := range watch {
			a, b, s := after[w], before[w], ""
			for i, x := range [][2]unix.Timespec{{b.a, a.a}, {b.m, a.m}, {b.c, a.c}} {
				if x[0] != x[1] {
					s += string("amc"[i])
				}
			}
			if s != "" {
				line += fmt.Sprintf(", %s %s", w, s)
			}
		}
		p.logf("%s", line)
	}
	op("nothing", func() error { return nil })
	op("write", func() error { _, err := unix.Pwrite(fd, []byte("x"), 0); return err })
	op("write of nothing", func() error { _, err := unix.Pwrite(fd, nil, 0); return err })
	op("extending write", func() error { _, err := unix.Pwrite(fd, []byte("x"), 20000); return err })
	op("truncate", func() error { return unix.Ftruncate(fd, 5000) })
	op("truncate to the same size", func() error { return unix.Ftruncate(fd, 5000) })
	op("truncate by path to the same size", func() error { return unix.Truncate(p.at("d/f"), 5000) })
	op("extending truncate", func() error { return unix.Ftruncate(fd, 15000) })
	op("fallocate", func() error { return unix.Fallocate(fd, 0, 0, 40000) })
	op("fallocate beyond", func() error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 40000, 40000) })
	op("punch", func() error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 4096)
	})
	op("punch of a part", func() error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 100, 50)
	})
	op("zero range", func() error { return unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 0, 100) })
	op("open with O_TRUNC", func() error {
		f, err := unix.Open(p.at("d/g"), unix.O_TRUNC|unix.O_WRONLY, 0)
		unix.Close(f)
		return err
	})
	op("open with O_TRUNC of an empty file", func() error {
		f, err := unix.Open(p.at("d/g"), unix.O_TRUNC|unix.O_WRONLY, 0)
		unix.Close(f)
		return err
	})
	op("open with O_CREAT of a file that is there", func() error {
		f, err := unix.Open(p.at("d/g"), unix.O_CREAT|unix.O_WRONLY, 0)
		unix.Close(f)
		return err
	})
	op("chmod", func() error { return os.Chmod(p.at("d/f"), 0o600) })
	op("chmod to the same", func() error { return os.Chmod(p.at("d/f"), 0o600) })
	op("chown", func() error { return os.Chown(p.at("d/f"), 1, 1) })
	op("chown to the same", func() error { return os.Chown(p.at("d/f"), 1, 1) })
	op("chown of nothing", func() error { return os.Chown(p.at("d/f"), -1, -1) })
	op("setxattr", func() error { return unix.Setxattr(p.at("d/f"), "user.x", []byte("v"), 0) })
	op("setxattr to the same", func() error { return unix.Setxattr(p.at("d/f"), "user.x", []byte("v"), 0) })
	op("setxattr that fails", func() error { return unix.Setxattr(p.at("d/f"), "user.x", []byte("v"), unix.XATTR_CREATE) })
	op("removexattr", func() error { return unix.Removexattr(p.at("d/f"), "user.x") })
	op("removexattr of nothing", func() error { return unix.Removexattr(p.at("d/f"), "user.x") })
	op("setfacl", func() error {
		return unix.Setxattr(p.at("d/f"), "system.posix_acl_access", acl(e(1, 6), e(2, 6, 77), e(4, 4), e(16, 6), e(32, 0)), 0)
	})
	op("default ACL", func() error {
		return unix.Setxattr(p.at("d/sub"), "system.posix_acl_default", acl(e(1, 6), e(4, 4), e(32, 0)), 0)
	})
	op("create", func() error { f, err := os.Create(p.at("d/new")); f.Close(); return err })
	op("link", func() error { return os.Link(p.at("d/f"), p.at("e/h")) })
	op("rename in a folder", func() error { return os.Rename(p.at("d/new"), p.at("d/new2")) })
	op("rename to another folder", func() error { return os.Rename(p.at("d/f"), p.at("e/f")) })
	op("rename back", func() error { return os.Rename(p.at("e/f"), p.at("d/f")) })
	op("rename over", func() error { return os.Rename(p.at("d/new2"), p.at("d/g")) })
	op("rename of a folder", func() error { return os.Rename(p.at("d/sub"), p.at("e/sub")) })
	op("rename of a folder back", func() error { return os.Rename(p.at("e/sub"), p.at("d/sub")) })
	op("exchange", func() error {
		return unix.Renameat2(unix.AT_FDCWD, p.at("d/sub"), unix.AT_FDCWD, p.at("e/h"), unix.RENAME_EXCHANGE)
	})
	op("exchange back", func() error {
		return unix.Renameat2(unix.AT_FDCWD, p.at("d/sub"), unix.AT_FDCWD, p.at("e/h"), unix.RENAME_EXCHANGE)
	})
	op("unlink of a second name", func() error { return os.Remove(p.at("e/h")) })
	op("mkdir", func() error { return os.Mkdir(p.at("d/m"), 0o755) })
	op("rmdir", func() error { return os.Remove(p.at("d/m")) })
	op("symlink", func() error { return os.Symlink("x", p.at("d/s")) })
	op("unlink", func() error { return os.Remove(p.at("d/s")) })
	op("mknod", func() error { return unix.Mknod(p.at("d/s"), unix.S_IFIFO|0o600, 0) })
	op("flags", func() error {
		was, err := getFlags(p.at("d/f"))
		if err != nil {
			return err
		}
		return setFlags(p.at("d/f"), int(was)|0x40)
	})
	op("mapped write", func() error {
		m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		m[7]++
		if err := unix.Msync(m, unix.MS_SYNC); err != nil {
			return err
		}
		return unix.Munmap(m)
	})
	op("touch", func() error { return os.Chtimes(p.at("d/f"), statTime(5), statTime(6)) })
	op("copy_file_range", func() error {
		g, err := unix.Open(p.at("d/g"), unix.O_RDWR, 0)
		p.must(err)
		defer unix.Close(g)
		_, err = unix.CopyFileRange(fd, nil, g, nil, 1000, 0)
		return err
	})
	op("fsync", func() error { return unix.Fsync(fd) })
}

func probeSetTimes(p *probe) {
	p.file("f", 1)
	for _, sec := range []int64{0, 1, -1, 1e9, math.MaxInt32, math.MaxInt32 + 1, math.MinInt32, math.MinInt32 - 1, 1 << 32, 3 << 32,
		1<<34 - 1<<31 - 1, 1<<34 - 1<<31, 1 << 34, -1 << 40, 1 << 40} {
		for _, nsec := range []int64{0, 1, 999999999} {
			ts := []unix.Timespec{{Sec: sec, Nsec: nsec}, {Sec: sec, Nsec: nsec}}
			p.try(unix.UtimesNanoAt(unix.AT_FDCWD, p.at("f"), ts, 0), "set %d.%d", sec, nsec)
			s := p.stamps("f")
			p.logf("  %d.%d", s.a.Sec, s.a.Nsec)
			label := "mtime"
			if sec <= math.MinInt32 || sec >= 1<<34-1<<31-1 {
				label = "mtime out of range"
			}
			p.logf("  %s %d.%d", label, s.m.Sec, s.m.Nsec)
		}
	}
	set := func(label string, a, m unix.Timespec) {
		base := []unix.Timespec{{Sec: 5}, {Sec: 5}}
		p.must(unix.UtimesNanoAt(unix.AT_FDCWD, p.at("f"), base, 0))
		p.try(unix.UtimesNanoAt(unix.AT_FDCWD, p.at("f"), []unix.Timespec{a, m}, 0), "%s", label)
		s := p.stamps("f")
		p.logf("  changed %v %v", s.a.Sec != 5, s.m.Sec != 5)
	}
	now, omit := unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_OMIT}
	set("now, omit", now, omit)
	set("omit, now", omit, now)
	set("omit, omit", omit, omit)
	set("bad", unix.Timespec{Nsec: 1e9}, now)
	p.as(1000, 1000, nil, func() {
		p.try(unix.UtimesNanoAt(unix.AT_FDCWD, p.at("f"), []unix.Timespec{now, now}, 0), "now by another")
	})
	p.must(os.Chmod(p.at("f"), 0o666))
	p.as(1000, 1000, nil, func() {
		p.try(unix.UtimesNanoAt(unix.AT_FDCWD, p.at("f"), []unix.Timespec{now, now}, 0), "now by another who may write")
		p.try(unix.UtimesNanoAt(unix.AT_FDCWD, p.at("f"), []unix.Timespec{{Sec: 5}, {Sec: 5}}, 0), "a time by another who may write")
	})
}
