package fuse2fs_test

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func ptr[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

func init() {
	probes["rename"] = probeRename
	probes["rename-odd"] = probeRenameOdd
	probes["names"] = probeNames
	probes["symlinks"] = probeSymlinks
	probes["tmpfile"] = probeTmpfile
	probes["unlinked"] = probeUnlinked
	probes["cwd"] = probeCwd
	probes["links"] = probeLinks
	probes["nodes"] = probeNodes
	probes["readdir"] = probeReaddir
}

// probeRename renames each kind of thing over each, with all flags, in one
// folder and between two.
func probeRename(p *probe) {
	kinds := []string{"none", "file", "empty", "full", "link", "fifo", "same"}
	flags := []uint{0, 1, 2, 4, 1 | 2, 1 | 4, 2 | 4, 8}
	n := 0
	for _, src := range kinds[:6] {
		for _, dst := range kinds {
			for _, fl := range flags {
				for _, to := range []string{"a", "b"} {
					n++
					base := fmt.Sprintf("r%d", n)
					p.mkdir(base)
					p.mkdir(base + "/a")
					p.mkdir(base + "/b")
					from, into := base+"/a/src", base+"/"+to+"/dst"
					p.make(from, src, "")
					p.make(into, dst, from)
					label := fmt.Sprintf("%s over %s in %s, flags %d", src, dst, to, fl)
					p.try(unix.Renameat2(unix.AT_FDCWD, p.at(from), unix.AT_FDCWD, p.at(into), fl), "%s", label)
					for _, name := range []string{"", "/a", "/b"} {
						st := p.lstat(base + name)
						p.logf("  %s: links %d", name, st.Nlink)
					}
					p.out = append(p.out, shorten(base, p.list(base+"/a"), p.list(base+"/b"))...)
				}
			}
		}
	}
}

// make makes a thing of a kind.
func (p *probe) make(name, kind, other string) {
	p.t.Helper()
	switch kind {
	case "none":
	case "file":
		p.file(name, len(name)%7+1)
	case "empty":
		p.mkdir(name)
	case "full":
		p.mkdir(name)
		p.mkdir(name + "/sub")
	case "link":
		p.must(os.Symlink("target", p.at(name)))
	case "fifo":
		p.must(unix.Mkfifo(p.at(name), 0o600))
	case "same":
		if st, err := os.Lstat(p.at(other)); err == nil && !st.IsDir() {
			p.must(os.Link(p.at(other), p.at(name)))
		}
	}
}

// list shows everything below a folder.
func (p *probe) list(name string) []string {
	sub := &probe{t: p.t, dir: p.dir}
	entries, err := os.ReadDir(p.at(name))
	p.must(err)
	for _, e := range entries {
		sub.show(name + "/" + e.Name())
		if e.IsDir() {
			sub.out = append(sub.out, sub.list(name+"/"+e.Name())...)
		}
	}
	return sub.out
}

func shorten(base string, lists ...[]string) []string {
	var out []string
	for _, l := range lists {
		for _, s := range l {
			out = append(out, strings.ReplaceAll(s, base+"/", ""))
		}
	}
	return out
}

func probeRenameOdd(p *probe) {
	p.mkdir("d")
	p.mkdir("d/e")
	p.mkdir("d/e/f")
	p.file("file", 3)
	ren := func(a, b string, flags uint) {
		p.try(unix.Renameat2(unix.AT_FDCWD, p.dir+"/"+a, unix.AT_FDCWD, p.dir+"/"+b, flags), "rename %s %s %d", a, b, flags)
	}
	for _, fl := range []uint{0, 1, 2, 4} {
		ren("d", "d/e/g", fl)
		ren("d", "d/e", fl)
		ren("d", "d", fl)
		ren("d/e/f", "d", fl)
		ren("d/e", "d", fl)
		ren("file", "file", fl)
		ren("d/.", "x", fl)
		ren("d/..", "x", fl)
		ren("d", "d/.", fl)
		ren("d", "d/e/..", fl)
		ren("file", "x/", fl)
		ren("file", "none/x", fl)
		ren("file", "file/x", fl)
		ren("file", strings.Repeat("n", 255), fl)
		ren(strings.Repeat("n", 255), "file", fl)
		ren("file", strings.Repeat("n", 256), fl)
		ren("d/", "dd/", fl)
		ren("dd", "d", fl)
	}
	p.try(unix.Rename(p.dir, p.dir+"/d/x"), "the folder into itself")
	p.try(unix.Rename(p.path, p.dir+"/x"), "the root")
	p.try(unix.Rename(p.dir+"/file", "/proc/x"), "to elsewhere")
	p.out = append(p.out, shorten(".", p.list("."))...)
}

func probeNames(p *probe) {
	open := func(name string, flags int) {
		fd, err := unix.Open(p.dir+"/"+name, flags|unix.O_CLOEXEC, 0o640)
		if err == nil {
			unix.Close(fd)
		}
		short := name
		if len(short) > 20 {
			short = fmt.Sprintf("%.5s… of %d", name, len(name))
		}
		p.try(err, "open %q %#x", short, flags)
	}
	p.file("file", 10)
	p.mkdir("dir")
	p.must(os.Symlink("file", p.at("link")))
	p.must(os.Symlink("none", p.at("dangling")))
	p.must(os.Symlink("loop", p.at("loop")))
	for _, name := range []string{"file", "file/", "dir", "dir/", "none", "none/", "link", "link/", "dangling", "loop", "file/x", ".", "..",
		strings.Repeat("a", 255), strings.Repeat("b", 256), strings.Repeat("é", 127), strings.Repeat("c", 4096), "ö\n\t\"\\", "\xff\xfe"} {
		for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR, unix.O_DIRECTORY, unix.O_NOFOLLOW, unix.O_PATH,
			unix.O_CREAT | unix.O_EXCL | unix.O_RDWR, unix.O_CREAT | unix.O_RDWR, unix.O_TRUNC | unix.O_WRONLY, unix.O_CREAT | unix.O_DIRECTORY} {
			open(name, flags)
		}
		q := p.dir + "/" + name
		p.try(unix.Mkdir(q, 0o755), " mkdir")
		p.try(unix.Rmdir(q), " rmdir")
		p.try(unix.Unlink(q), " unlink")
		p.try(unix.Link(p.dir+"/dir", q), " link of dir")
		p.try(unix.Symlink("x", q), " symlink")
		p.try(unix.Mknod(q, unix.S_IFIFO|0o600, 0), " mknod")
		p.try(unix.Unlink(q), " unlink")
	}
	p.out = append(p.out, shorten(".", p.list("."))...)
	p.mkdir("nonempty")
	p.file("nonempty/x", 1)
	p.try(unix.Rmdir(p.at("nonempty")), "rmdir of a full folder")
	p.try(unix.Unlink(p.at("nonempty")), "unlink of a folder")
	p.try(unix.Rmdir(p.dir+"/nonempty/."), "rmdir .")
	p.try(unix.Rmdir(p.dir+"/nonempty/.."), "rmdir ..")
	p.try(unix.Rmdir(p.path), "rmdir of the root")
	p.try(unix.Mkdir(p.path, 0o755), "mkdir of the root")
}

func probeSymlinks(p *probe) {
	for _, n := range []int{0, 1, 58, 59, 60, 61, 255, 1023, 1024, 2047, 4094, 4095, 4096} {
		name := fmt.Sprint("l", n)
		target := strings.Repeat("t", n)
		p.try(unix.Symlink(target, p.at(name)), "symlink of %d", n)
		p.show(name)
		buf := make([]byte, 8192)
		l, err := unix.Readlink(p.at(name), buf)
		p.try(err, "readlink of %d", n)
		if err == nil {
			p.logf("  right: %v", string(buf[:l]) == target)
			st := p.lstat(name)
			p.logf("  blocks %d", st.Blocks)
			l, err = unix.Readlink(p.at(name), buf[:7])
			p.logf("  in 7 bytes: %d %s", l, errName(err))
		}
	}
	p.file("file", 1)
	_, err := unix.Readlink(p.at("file"), make([]byte, 10))
	p.try(err, "readlink of a file")
	p.try(unix.Fchmodat(unix.AT_FDCWD, p.at("l60"), 0o600, unix.AT_SYMLINK_NOFOLLOW), "chmod of a link")
	p.try(unix.Lchown(p.at("l60"), 12, 13), "lchown")
	p.show("l60")
	p.try(unix.Link(p.at("l60"), p.at("second")), "link to a link")
	p.show("second")
	p.try(unix.Lsetxattr(p.at("l60"), "user.x", []byte("v"), 0), "user xattr")
	p.try(unix.Lsetxattr(p.at("l60"), "trusted.x", []byte("v"), 0), "trusted xattr")
}

func probeTmpfile(p *probe) {
	p.file("file", 1)
	for _, fl := range []int{unix.O_RDWR, unix.O_WRONLY, unix.O_RDONLY, unix.O_RDWR | unix.O_EXCL} {
		fd, err := unix.Open(p.dir, unix.O_TMPFILE|fl, 0o4664)
		if !p.try(err, "tmpfile %#x", fl) {
			continue
		}
		var st unix.Stat_t
		p.must(unix.Fstat(fd, &st))
		p.logf("  mode %o links %d", st.Mode, st.Nlink)
		_, err = unix.Write(fd, []byte("hello"))
		p.try(err, "  write")
		name := fmt.Sprintf("named%d", fl)
		p.try(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, p.at(name), unix.AT_SYMLINK_FOLLOW), "  link")
		p.show(name)
		p.try(unix.Linkat(fd, "", unix.AT_FDCWD, p.at(name+"b"), unix.AT_EMPTY_PATH), "  second link")
		p.try(unix.Linkat(fd, "", unix.AT_FDCWD, p.at(name), unix.AT_EMPTY_PATH), "  link over one")
		p.show(name)
		unix.Unlink(p.at(name))
		unix.Unlink(p.at(name + "b"))
		p.must(unix.Fstat(fd, &st))
		p.logf("  links %d size %d", st.Nlink, st.Size)
		p.try(unix.Linkat(fd, "", unix.AT_FDCWD, p.at(name), unix.AT_EMPTY_PATH), "  link after the last has gone")
		p.try(unix.Fsetxattr(fd, "user.x", []byte("v"), 0), "  xattr")
		p.try(unix.Ftruncate(fd, 100000), "  truncate")
		unix.Close(fd)
	}
	_, err := unix.Open(p.at("file"), unix.O_TMPFILE|unix.O_RDWR, 0o600)
	p.try(err, "tmpfile in a file")
	_, err = unix.Open(p.at("none"), unix.O_TMPFILE|unix.O_RDWR, 0o600)
	p.try(err, "tmpfile in nothing")
	p.out = append(p.out, shorten(".", p.list("."))...)
}

func probeUnlinked(p *probe) {
	p.file("f", 5000)
	fd := p.fd("f", 0)
	p.try(unix.Unlink(p.at("f")), "unlink")
	var st unix.Stat_t
	fstat := func() {
		p.must(unix.Fstat(fd, &st))
		p.logf("  links %d size %d mode %o owner %d", st.Nlink, st.Size, st.Mode, st.Uid)
	}
	fstat()
	_, err := unix.Pwrite(fd, []byte("more"), 9000)
	p.try(err, "write")
	fstat()
	p.try(unix.Fchmod(fd, 0o600), "chmod")
	p.try(unix.Fchown(fd, 5, 6), "chown")
	p.try(unix.Fsetxattr(fd, "user.a", []byte("b"), 0), "setxattr")
	p.try(unix.Fallocate(fd, 0, 0, 100000), "fallocate")
	fstat()
	p.try(unix.Fsync(fd), "fsync")
	p.try(unix.Ftruncate(fd, 17), "truncate")
	fstat()
	p.try(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, p.at("again"), unix.AT_SYMLINK_FOLLOW), "link again")
	g, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR, 0)
	p.try(err, "open again")
	unix.Close(g)
	p.file("f", 3)
	fstat()

	// Replaced by a rename, and removed through another name.
	p.file("x", 10)
	p.file("y", 20)
	fd = p.fd("y", 0)
	p.try(unix.Rename(p.at("x"), p.at("y")), "rename over")
	fstat()
	p.must(os.Link(p.at("y"), p.at("z")))
	fd = p.fd("y", 0)
	p.try(unix.Unlink(p.at("z")), "unlink of another name")
	fstat()

	d := p.mkdir("dir")
	dfd, err := unix.Open(d, unix.O_DIRECTORY, 0)
	p.must(err)
	defer unix.Close(dfd)
	p.try(unix.Rmdir(d), "rmdir")
	p.must(unix.Fstat(dfd, &st))
	p.logf("  links %d size %d", st.Nlink, st.Size)
	_, err = unix.Openat(dfd, "f", unix.O_CREAT|unix.O_RDWR, 0o600)
	p.try(err, "create in it")
	p.try(unix.Mkdirat(dfd, "f", 0o600), "mkdir in it")
	p.try(unix.Symlinkat("x", dfd, "f"), "symlink in it")
	p.try(unix.Linkat(unix.AT_FDCWD, p.at("y"), dfd, "f", 0), "link in it")
	p.try(unix.Renameat(unix.AT_FDCWD, p.at("y"), dfd, "f"), "rename into it")
	_, err = unix.Openat(dfd, ".", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	p.try(err, "tmpfile in it")
	n, err := unix.Getdents(dfd, make([]byte, 4096))
	p.logf("readdir of it: %d %s", n, errName(err))
	p.try(unix.Fchmod(dfd, 0o700), "chmod of it")
	p.try(unix.Fsetxattr(dfd, "user.x", []byte("v"), 0), "setxattr of it")
	p.try(unix.Fsync(dfd), "fsync of it")
}

// probeCwd removes the working directory of a thread.
func probeCwd(p *probe) {
	d := p.mkdir("here")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		p.must(unix.Unshare(unix.CLONE_FS))
		p.must(unix.Chdir(d))
		p.try(unix.Rmdir(d), "rmdir of the working directory")
		_, err := unix.Getwd()
		p.try(err, "getcwd")
		open := func(name string, flags int) {
			fd, err := unix.Open(name, flags, 0o600)
			p.try(err, "open %s", name)
			unix.Close(fd)
		}
		open(".", unix.O_DIRECTORY)
		open("..", unix.O_DIRECTORY)
		open("x", unix.O_CREAT|unix.O_RDWR)
		var st unix.Stat_t
		p.try(unix.Stat(".", &st), "stat .")
		p.logf("links %d", st.Nlink)
		p.try(unix.Stat("x", &st), "stat x")
		p.try(unix.Mkdir(d, 0o755), "mkdir again")
		p.try(unix.Rmdir("."), "rmdir .")
		p.try(unix.Rename(".", "../y"), "rename .")
		p.try(unix.Chdir(".."), "chdir ..")
		p.must(unix.Chdir("/")) // the thread may live on
	}()
	<-done
}

func probeLinks(p *probe) {
	links := func(name string) {
		st := p.lstat(name)
		p.logf("  %s has %d links", name, st.Nlink)
	}
	p.mkdir("d")
	links("d")
	for i := range 5 {
		p.mkdir(fmt.Sprint("d/", i))
		links("d")
	}
	p.mkdir("e")
	p.try(os.Rename(p.at("d/0"), p.at("e/0")), "move")
	links("d")
	links("e")
	p.try(unix.Renameat2(unix.AT_FDCWD, p.at("d/1"), unix.AT_FDCWD, p.at("e/0"), unix.RENAME_EXCHANGE), "exchange")
	links("d")
	links("e")
	p.file("f", 1)
	p.try(unix.Renameat2(unix.AT_FDCWD, p.at("d/2"), unix.AT_FDCWD, p.at("f"), unix.RENAME_EXCHANGE), "exchange with a file")
	links("d")
	links(".")
	p.try(os.Rename(p.at("d/3"), p.at("e/0")), "over an empty folder")
	links("d")
	links("e")
	p.try(os.Remove(p.at("d/4")), "rmdir")
	links("d")
	for i := range 5 {
		p.try(os.Link(p.at("d/2"), p.at(fmt.Sprint("l", i))), "link")
		links("d/2")
	}
	p.try(os.Rename(p.at("l0"), p.at("l1")), "rename over the same file")
	links("l1")
	p.show("l0")
	p.file("g", 3)
	p.try(os.Rename(p.at("g"), p.at("l1")), "rename over one of its names")
	links("d/2")
	p.try(unix.Renameat2(unix.AT_FDCWD, p.at("l1"), unix.AT_FDCWD, p.at("l2"), unix.RENAME_EXCHANGE), "exchange")
	links("l1")
	links("l2")
	p.try(os.Remove(p.at("l2")), "unlink")
	p.try(os.Link(p.dir, p.at("x")), "link to a folder")
	p.try(os.Link(p.at("none"), p.at("x")), "link to nothing")
	p.try(os.Link(p.at("l3"), p.at("l4")), "link over a name")
}

func probeNodes(p *probe) {
	for i, m := range []uint32{unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFDIR, unix.S_IFLNK, 0} {
		for j, dev := range []uint64{0, unix.Mkdev(1, 3), unix.Mkdev(255, 255), unix.Mkdev(256, 1), unix.Mkdev(1, 256), unix.Mkdev(4095, 1<<20-1)} {
			name := fmt.Sprintf("n%d-%d", i, j)
			p.try(unix.Mknod(p.at(name), m|0o6751, int(dev)), "mknod %o %d", m, dev)
			p.show(name)
		}
	}
	fd, err := unix.Open(p.at("n3-1"), unix.O_RDWR, 0)
	p.try(err, "open of /dev/null's like")
	if err == nil {
		unix.Close(fd)
	}
	p.as(1000, 1000, nil, func() {
		p.must(nil)
		p.try(unix.Mknod(p.at("user"), unix.S_IFCHR, 0), "mknod by a user in a folder of root")
	})
	p.must(os.Chmod(p.dir, 0o777))
	p.as(1000, 1000, nil, func() {
		p.try(unix.Mknod(p.at("char"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))), "character device by a user")
		p.try(unix.Mknod(p.at("white"), unix.S_IFCHR|0o600, 0), "whiteout by a user")
		p.try(unix.Mknod(p.at("fifo"), unix.S_IFIFO|0o600, 0), "fifo by a user")
	})
	p.show("fifo")
}

// probeReaddir reads a folder in pieces while it changes, and seeks in it.
func probeReaddir(p *probe) {
	for i := range 500 {
		p.file(fmt.Sprintf("file-with-a-name-of-some-length-%d", i), 0)
	}
	fd, err := unix.Open(p.dir, unix.O_DIRECTORY, 0)
	p.must(err)
	defer unix.Close(fd)
	buf := make([]byte, 700)
	seen := map[string]int{}
	read := func() int {
		n, err := unix.Getdents(fd, buf)
		p.must(err)
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		for _, s := range names {
			seen[s]++
		}
		return len(names)
	}
	for range 10 {
		read()
	}
	for i := range 500 {
		if i%3 == 0 {
			p.must(os.Remove(p.at(fmt.Sprintf("file-with-a-name-of-some-length-%d", i))))
		}
	}
	for i := range 100 {
		p.file(fmt.Sprintf("later-%d", i), 0)
	}
	for read() > 0 {
	}
	missed, twice := 0, 0
	for i := range 500 {
		n := seen[fmt.Sprintf("file-with-a-name-of-some-length-%d", i)]
		if i%3 != 0 && n == 0 {
			missed++
		}
		if n > 1 {
			twice++
		}
	}
	p.logf("missed %d, seen twice %d", missed, twice)
	clear(seen)
	_, err = unix.Seek(fd, 0, 0)
	p.try(err, "rewind")
	for read() > 0 {
	}
	p.logf("%d names after the rewind", len(seen))
	off, err := unix.Seek(fd, 0, 1)
	p.try(err, "tell")
	_, err = unix.Seek(fd, off, 0)
	p.try(err, "seek to the end")
	p.logf("%d names there", read())
	_, err = unix.Pread(fd, buf, 0)
	p.try(err, "read of a folder")
	_, err = unix.Write(fd, buf)
	p.try(err, "write of a folder")
	p.try(unix.Ftruncate(fd, 0), "ftruncate of a folder")
	p.try(unix.Truncate(p.dir, 0), "truncate of a folder")
	var types []string
	p.make("t-file", "file", "")
	p.make("t-dir", "empty", "")
	p.make("t-link", "link", "")
	p.make("t-fifo", "fifo", "")
	entries, err := os.ReadDir(p.dir)
	p.must(err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "t-") {
			types = append(types, e.Name()+" "+e.Type().String())
		}
	}
	sort.Strings(types)
	p.logf("types %q", types)
}
