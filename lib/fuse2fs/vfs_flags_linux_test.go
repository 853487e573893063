package fuse2fs_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	probes["statx"] = probeStatx
	probes["flags"] = probeFlags
	probes["migrate"] = probeMigrate
	probes["fsioctl"] = probeFsIoctl
}

func probeStatx(p *probe) {
	p.file("f", 5000)
	p.mkdir("d")
	p.must(os.Symlink("f", p.at("l")))
	p.must(unix.Mkfifo(p.at("p"), 0o600))
	fd := p.fd("f", 0)
	p.must(unix.Fsync(fd))
	btime := map[string]unix.StatxTimestamp{}
	for range 2 {
		for _, name := range []string{"f", "d", "l", "p", "."} {
			for _, flags := range []int{0, unix.AT_STATX_FORCE_SYNC, unix.AT_STATX_DONT_SYNC} {
				var st unix.Statx_t
				err := unix.Statx(unix.AT_FDCWD, p.at(name), unix.AT_SYMLINK_NOFOLLOW|flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
				p.try(err, "statx %s %#x", name, flags)
				p.logf("  mask %#x blksize %d links %d mode %o blocks %d", st.Mask&(unix.STATX_BASIC_STATS|unix.STATX_BTIME), st.Blksize, st.Nlink, st.Mode, st.Blocks)
				if old, ok := btime[name]; ok {
					p.logf("  the same time of birth: %v", old == st.Btime)
				} else if st.Mask&unix.STATX_BTIME != 0 {
					btime[name] = st.Btime
					p.logf("  born before: %v", st.Btime.Sec <= st.Ctime.Sec && st.Btime.Sec > 1e9)
				}
			}
		}
		p.must(unix.Setxattr(p.at("f"), "user.x", nil, 0))
		p.must(os.Rename(p.at("f"), p.at("g")))
		p.must(os.Rename(p.at("g"), p.at("f")))
	}
	var fs unix.Statfs_t
	p.try(unix.Statfs(p.dir, &fs), "statfs")
	p.logf("  bsize %d frsize %d namelen %d blocks %d files %d free blocks left for root %d", fs.Bsize, fs.Frsize, fs.Namelen, fs.Blocks, fs.Files, fs.Bfree-fs.Bavail)
}

func getFlags(name string) (uint32, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
}

// probeMigrate changes how files map their blocks.
func probeMigrate(p *probe) {
	const extents = 0x80000
	for _, size := range []int{0, 1, 10000, 48 << 10, 48<<10 + 1, 1 << 20} {
		name := fmt.Sprint("file", size)
		p.file(name, size)
		fd := p.fd(name, 0)
		p.must(unix.Fsync(fd))
		was, err := getFlags(p.at(name))
		p.must(err)
		for _, flags := range []int{int(was) &^ extents, int(was)&^extents | 0x40, int(was), int(was)} {
			p.try(setFlags(p.at(name), flags), "%d bytes: %#x", size, flags)
			now, err := getFlags(p.at(name))
			p.logf("  %#x, %s", now, errName(err))
			p.content(name)
			p.blocks(name)
		}
		p.try(ioctl(fd, 0x6609, nil), "  EXT4_IOC_MIGRATE")
	}
	// A hole, a second extent, a block that is not among the first, and blocks
	// that are not written.
	for i, r := range [][][2]int64{{{4096, 8192}}, {{0, 4096}, {8192, 4096}}, {{11 * 4096, 4096}}, {{12 * 4096, 4096}}} {
		name := fmt.Sprint("holes", i)
		p.file(name, 0)
		fd := p.fd(name, 0)
		for _, x := range r {
			_, err := unix.Pwrite(fd, bytes.Repeat([]byte("x"), int(x[1])), x[0])
			p.must(err)
		}
		p.must(unix.Fsync(fd))
		p.try(setFlags(p.at(name), 0), "%v", r)
		p.content(name)
		p.segments(fd)
		p.try(ioctl(fd, 0x6609, nil), "  EXT4_IOC_MIGRATE")
		p.content(name)
		p.segments(fd)
	}
	for _, kind := range []string{"empty", "fifo"} {
		p.make(kind, kind, "")
		was, err := getFlags(p.at(kind))
		if err != nil {
			p.try(err, "get flags of %s", kind)
			continue
		}
		p.try(setFlags(p.at(kind), int(was)^extents), "%s: %#x", kind, was^extents)
		now, err := getFlags(p.at(kind))
		p.logf("  %#x, %s", now, errName(err))
	}
	p.must(os.Chmod(p.at("file10000"), 0o666))
	p.as(1000, 1000, nil, func() {
		fd, err := unix.Open(p.at("file10000"), unix.O_RDWR, 0)
		if !p.try(err, "open by another") {
			return
		}
		defer unix.Close(fd)
		p.try(ioctl(fd, 0x6609, nil), "EXT4_IOC_MIGRATE by another")
		p.try(unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0), "flags by another")
	})
}

func setFlags(name string, flags int) error {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags)
}

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct{ xflags, extsize, nextents, projid, cowextsize, _, _ uint32 }

func ioctl(fd int, nr uint, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(nr), uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

// probeFlags sets each inode flag and tries what it forbids.
func probeFlags(p *probe) {
	const immutable, appendOnly = 0x10, 0x20
	for bit := range 32 {
		if 1<<bit == 0x4000 {
			continue // journaled data takes CAP_SYS_RESOURCE, which root may lack
		}
		for _, kind := range []string{"file", "empty", "fifo"} {
			name := fmt.Sprintf("%s%d", kind, bit)
			p.make(name, kind, "")
			was, err := getFlags(p.at(name))
			if err != nil {
				p.try(err, "get flags of %s", kind)
				continue
			}
			p.try(setFlags(p.at(name), int(was)|1<<bit), "set %#x of %s", 1<<bit, kind)
			now, err := getFlags(p.at(name))
			p.logf("  %#x, from %#x, %s", now, was, errName(err))
			fd, err := unix.Open(p.at(name), unix.O_RDONLY|unix.O_NONBLOCK, 0)
			p.must(err)
			var x fsxattr
			p.try(ioctl(fd, 0x801c581f, unsafe.Pointer(&x)), "  fsgetxattr")
			p.logf("  %#x project %d", x.xflags, x.projid)
			p.try(ioctl(fd, 0x401c5820, unsafe.Pointer(&x)), "  fssetxattr to the same")
			unix.Close(fd)
			p.try(setFlags(p.at(name), int(was)), "  set it back")
			now, err = getFlags(p.at(name))
			p.logf("  %#x, %s", now, errName(err))
		}
	}
	for _, fl := range []int{immutable, appendOnly} {
		for _, kind := range []string{"file", "empty"} {
			name := fmt.Sprintf("%s-%#x", kind, fl)
			p.make(name, kind, "")
			if kind == "empty" {
				p.file(name+"/in", 5)
				p.mkdir(name + "/sub")
			}
			was, err := getFlags(p.at(name))
			p.must(err)
			p.try(setFlags(p.at(name), int(was)|fl), "%#x on %s", fl, kind)
			p.try(unix.Chmod(p.at(name), 0o700), "  chmod")
			p.try(unix.Chown(p.at(name), 1, 1), "  chown")
			p.try(os.Chtimes(p.at(name), statTime(1), statTime(2)), "  times")
			p.try(unix.UtimesNanoAt(unix.AT_FDCWD, p.at(name), nil, 0), "  times to now")
			p.try(unix.Setxattr(p.at(name), "user.x", nil, 0), "  setxattr")
			p.try(unix.Setxattr(p.at(name), "system.posix_acl_access", acl(e(1, 7), e(4, 5), e(32, 1)), 0), "  setfacl")
			p.try(unix.Removexattr(p.at(name), "user.y"), "  removexattr")
			p.try(os.Link(p.at(name), p.at(name+"-link")), "  link")
			p.try(os.Rename(p.at(name), p.at(name+"-moved")), "  rename")
			p.try(unix.Unlink(p.at(name)), "  unlink")
			p.try(unix.Rmdir(p.at(name)), "  rmdir")
			p.try(unix.Truncate(p.at(name), 1), "  truncate")
			if kind == "file" {
				fd, err := unix.Open(p.at(name), unix.O_RDWR|unix.O_APPEND, 0)
				p.try(err, "  open to append")
				if err == nil {
					_, _ = unix.Write(fd, []byte("more"))
					_ = unix.Fsync(fd)
					unix.Close(fd)
				}
				fd, err = unix.Open(p.at(name), unix.O_RDWR, 0)
				p.try(err, "  open")
				if err == nil {
					_, _ = unix.Pwrite(fd, []byte("other"), 0)
					_ = unix.Fsync(fd)
					_ = unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) // the server does so, a moment later
					err = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
					unix.Close(fd)
				}
				p.try(err, "  punch")
				data, err := os.ReadFile(p.at(name))
				p.must(err)
				if fl == immutable {
					// The kernel takes a write to a FUSE file for granted, and
					// keeps the size that it would have given.
					data = bytes.TrimRight(data, "\x00")
				}
				p.logf("  content %x", data)
			}
			if kind == "empty" {
				in := p.dir + "/" + name
				p.try(unix.Mknod(in+"/new", unix.S_IFREG|0o600, 0), "  create in it")
				p.try(unix.Mkdir(in+"/newd", 0o755), "  mkdir in it")
				p.try(unix.Unlink(in+"/in"), "  unlink in it")
				p.try(unix.Rmdir(in+"/sub"), "  rmdir in it")
				p.try(os.Rename(in+"/in", in+"/in2"), "  rename in it")
				p.try(os.Rename(in+"/in", p.at("out")), "  rename out of it")
				fd, err := unix.Open(in, unix.O_TMPFILE|unix.O_RDWR, 0o600)
				p.try(err, "  tmpfile in it")
				unix.Close(fd)
			}
			p.must(setFlags(p.at(name), int(was)))
			if kind == "file" {
				p.must(os.Truncate(p.at(name), 3))
			}
			p.show(name)
		}
	}
	if fd, err := unix.Open(p.dir, unix.O_DIRECTORY, 0); err == nil {
		_ = unix.Syncfs(fd) // which tells of the writes that were refused
		unix.Close(fd)
	}
	p.as(1000, 1000, nil, func() {
		p.try(setFlags(p.at("file0"), 0x40), "flags by another")
	})
	p.must(os.Chown(p.at("file1"), 1000, 1000))
	// The number that FS_IOC_SETFLAGS has for 32 bits is not the kernel's own here,
	// so that the kernel does not check who calls.
	p.must(setFlags(p.at("file0"), 0x80010))
	p.as(1000, 1000, nil, func() {
		for _, name := range []string{"file0", "file1"} {
			fd, err := unix.Open(p.at(name), unix.O_RDONLY, 0)
			p.must(err)
			for _, flags := range []uint32{0x80000, 0x80050, 0x80060} {
				if name == "file1" && flags == 0x80000 {
					continue // the owner may, if he can
				}
				long := uint64(flags)
				p.logf("%#x of %s by the number for 32 bits: refused %v", flags, name, ioctl(fd, 0x40046602, unsafe.Pointer(&long)) != nil)
			}
			p.must(unix.Close(fd))
		}
	})
	p.must(setFlags(p.at("file0"), 0x80000))
	p.as(1000, 1000, nil, func() {
		p.try(setFlags(p.at("file1"), 0x80040), "flags by the owner")
		p.try(setFlags(p.at("file1"), 0x80050), "immutable by the owner")
		p.try(setFlags(p.at("file1"), 0x80060), "append-only by the owner")
		p.try(setFlags(p.at("file1"), 0x84040), "journaled data by the owner")
	})
	// Flags that new files inherit.
	d := p.mkdir("inherit")
	was, err := getFlags(d)
	p.must(err)
	for _, f := range []int{0x8, 0x40, 0x80, 0x10000, 0x20000} {
		was |= uint32(f)
		p.try(setFlags(d, int(was)), "%#x", f)
	}
	p.file("inherit/f", 1)
	p.mkdir("inherit/d")
	p.must(unix.Mkfifo(p.at("inherit/p"), 0o600))
	for _, n := range []string{"", "/f", "/d", "/p"} {
		f, err := getFlags(p.at("inherit" + n))
		p.logf("inherited by %q: %#x %s", n, f, errName(err))
	}
}

func probeFsIoctl(p *probe) {
	fd, err := unix.Open(p.dir, unix.O_DIRECTORY, 0)
	p.must(err)
	defer unix.Close(fd)
	var label [256]byte
	get := func() {
		p.try(ioctl(fd, 0x81009431, unsafe.Pointer(&label)), "get label")
		p.logf("  %q", strings.TrimRight(string(label[:]), "\x00"))
	}
	get()
	for _, s := range []string{"name", "sixteen-letters!", "seventeen-letters", ""} {
		label = [256]byte{}
		copy(label[:], s)
		p.try(ioctl(fd, 0x41009432, unsafe.Pointer(&label)), "set label %q", s)
		get()
	}
	for _, r := range [][3]uint64{{0, math.MaxUint64, 0}, {0, 1, 0}, {1 << 40, 1 << 20, 0}, {0, 1 << 30, 1 << 30}} {
		was := r
		p.try(ioctl(fd, 0xc0185879, unsafe.Pointer(&r)), "trim %d", was)
		p.logf("  some: %v", r[1] != was[1] && r[1] > 1<<20)
	}
	p.as(1000, 1000, nil, func() {
		r := [3]uint64{0, math.MaxUint64, 0}
		p.try(ioctl(fd, 0xc0185879, unsafe.Pointer(&r)), "trim by a user")
		p.try(ioctl(fd, 0x41009432, unsafe.Pointer(&label)), "set label by a user")
	})
	var size int32
	p.try(ioctl(fd, 2, unsafe.Pointer(&size)), "block size")
	p.logf("  %d", size)
	var gen int64
	p.try(ioctl(fd, 0x80087601, unsafe.Pointer(&gen)), "generation")
	p.try(ioctl(fd, 0x1234, nil), "an ioctl that nobody knows")
	p.try(unix.Syncfs(fd), "syncfs")
	p.file("f", 10)
	f := p.fd("f", 0)
	var avail int32
	p.try(ioctl(f, unix.TIOCINQ, unsafe.Pointer(&avail)), "FIONREAD")
	p.logf("  %d", avail)
}
