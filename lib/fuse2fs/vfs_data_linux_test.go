package fuse2fs_test

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	probes["fallocate"] = probeFallocate
	probes["seek"] = probeSeek
	probes["copy"] = probeCopy
	probes["io"] = probeIO
	probes["limits"] = probeLimits
	probes["mmap"] = probeMmap
	probes["locks"] = probeLocks
	probes["direct"] = probeDirect
}

// content says what a file holds.
func (p *probe) content(name string) {
	p.t.Helper()
	f, err := os.Open(p.at(name))
	p.must(err)
	defer f.Close()
	h := crc32.NewIEEE()
	n, err := io.Copy(h, f)
	p.logf("  %d bytes, crc %08x, %s", n, h.Sum32(), errName(err))
}

func (p *probe) blocks(name string) {
	fd, err := unix.Open(p.at(name), unix.O_RDONLY, 0)
	p.must(err)
	p.must(unix.Fsync(fd))
	unix.Close(fd)
	p.logf("  %d blocks", p.lstat(name).Blocks)
}

// segments says where a file has data and holes.
func (p *probe) segments(fd int) {
	const end = 1 << 40
	line := "  segments"
	for off := int64(0); off < end; {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if err != nil {
			line += " " + errName(err)
			break
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			line += " " + errName(err)
			break
		}
		line += fmt.Sprintf(" %d-%d", data, hole)
		off = hole
	}
	p.logf("%s", line)
}

func probeFallocate(p *probe) {
	const (
		keep, punch, collapse, zero, insert, unshare = 1, 2, 8, 16, 32, 64
	)
	n := 0
	for _, mode := range []uint32{0, keep, punch, punch | keep, zero, zero | keep, punch | zero | keep, 4, 128, unshare} {
		for _, r := range [][2]int64{{0, 4096}, {0, 1}, {100, 50}, {100, 5000}, {4096, 8192}, {9999, 1}, {10000, 5000}, {8000, 50000}, {50000, 10},
			{0, 0}, {-1, 5}, {5, -1}, {math.MaxInt64, 1}, {math.MaxInt64 - 5, 5}, {1 << 44, 4096}, {1<<44 - 4096, 4096}, {0, 1 << 44}} {
			if mode&^keep == 0 && r[1] == 1<<44 {
				continue // fills the file system
			}
			n++
			name := fmt.Sprint("f", n)
			p.file(name, 10000)
			fd := p.fd(name, 0)
			p.try(unix.Fallocate(fd, mode, r[0], r[1]), "mode %#x at %d, %d", mode, r[0], r[1])
			p.content(name)
			p.blocks(name)
			unix.Close(fd)
		}
	}
	fd := p.fd("f1", 0)
	p.try(unix.Fallocate(fd, collapse, 0, 4096), "collapse")
	p.try(unix.Fallocate(fd, insert, 0, 4096), "insert")
	ro, err := unix.Open(p.at("f1"), unix.O_RDONLY, 0)
	p.must(err)
	p.try(unix.Fallocate(ro, 0, 0, 1), "for reading only")
	unix.Close(ro)
	d, err := unix.Open(p.dir, unix.O_DIRECTORY, 0)
	p.must(err)
	p.try(unix.Fallocate(d, 0, 0, 1), "of a folder")
	unix.Close(d)
	ap := p.fd("f2", unix.O_APPEND)
	p.try(unix.Fallocate(ap, punch|keep, 0, 4096), "punch with O_APPEND")
}

// holesAreZeros reads what SEEK_DATA passes over.
func (p *probe) holesAreZeros(fd int) {
	p.t.Helper()
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if err != nil {
			data = off + int64(len(buf))
		}
		n, rerr := unix.Pread(fd, buf[:data-off], off)
		p.must(rerr)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			p.logf("there is data in the hole at %d", off)
		}
		if err != nil {
			return
		}
		if off, err = unix.Seek(fd, data, unix.SEEK_HOLE); err != nil {
			return
		}
	}
}

func probeSeek(p *probe) {
	seeks := func(fd int) {
		for _, off := range []int64{0, 1, 4095, 4096, 5000, 9999, 10000, 65536, 99999, 100000, 100001, -1, math.MaxInt64} {
			for _, w := range []int{unix.SEEK_DATA, unix.SEEK_HOLE, unix.SEEK_END, unix.SEEK_SET} {
				at, err := unix.Seek(fd, off, w)
				p.logf("  seek %d %d: %d %s", off, w, at, errName(err))
			}
		}
		p.segments(fd)
	}
	make := func(label string, f func(fd int)) {
		p.logf("%s", label)
		name := fmt.Sprint("f", len(p.out))
		p.file(name, 0)
		fd := p.fd(name, 0)
		f(fd)
		p.must(unix.Fsync(fd))
		seeks(fd)
	}
	write := func(fd int, off int64, n int) {
		_, err := unix.Pwrite(fd, bytes.Repeat([]byte{7}, n), off)
		p.must(err)
	}
	make("empty", func(fd int) {})
	make("data", func(fd int) { write(fd, 0, 10000) })
	make("a hole", func(fd int) { p.must(unix.Ftruncate(fd, 100000)) })
	make("data, hole", func(fd int) { write(fd, 0, 5000); p.must(unix.Ftruncate(fd, 100000)) })
	make("hole, data", func(fd int) { write(fd, 65536, 5000) })
	make("unwritten", func(fd int) { p.must(unix.Fallocate(fd, 0, 0, 100000)) })
	make("punched", func(fd int) { write(fd, 0, 100000); p.must(unix.Fallocate(fd, 3, 8192, 8192)) })
	make("many", func(fd int) {
		for i := range int64(50) {
			write(fd, i*12288, 4096)
		}
	})
	make("beyond the size", func(fd int) { write(fd, 0, 5000); p.must(unix.Fallocate(fd, 1, 0, 200000)) })
	// How much around a small unwritten run counts as data is for the file
	// system to choose.
	p.file("parts", 0)
	parts := p.fd("parts", 0)
	p.must(unix.Fallocate(parts, 0, 0, 1<<20))
	write(parts, 1<<19, 20000)
	p.holesAreZeros(parts)
	p.must(unix.Fallocate(parts, 16, 1<<19+8192, 8192))
	write(parts, 1<<18, 20000)
	p.must(unix.Fallocate(parts, 16, 1<<18+8192, 8192))
	p.holesAreZeros(parts)
	// What is not written back yet has to be seen too.
	p.logf("not synced")
	p.file("late", 0)
	fd := p.fd("late", 0)
	write(fd, 65536, 10000)
	seeks(fd)
	d, err := unix.Open(p.dir, unix.O_DIRECTORY, 0)
	p.must(err)
	defer unix.Close(d)
	_, err = unix.Seek(d, 0, unix.SEEK_DATA)
	p.try(err, "data of a folder")
}

func probeCopy(p *probe) {
	p.file("a", 100000)
	p.file("b", 50000)
	p.file("empty", 0)
	a, b, e := p.fd("a", 0), p.fd("b", 0), p.fd("empty", 0)
	cp := func(label string, in int, roff int64, out int, woff int64, n int, name string) {
		l, err := unix.CopyFileRange(in, &roff, out, &woff, n, 0)
		p.logf("%s: %d %s, to %d %d", label, l, errName(err), roff, woff)
		if name != "" {
			p.content(name)
		}
	}
	cp("all", a, 0, e, 0, 100000, "empty")
	cp("more than there is", a, 90000, b, 0, 100000, "b")
	cp("beyond the end", a, 100000, b, 0, 10, "b")
	cp("nothing", a, 0, b, 0, 0, "b")
	cp("to beyond the end", a, 100, b, 200000, 5000, "b")
	cp("in one file", a, 0, a, 50000, 20000, "a")
	cp("in one file, over itself", a, 0, a, 100, 20000, "a")
	cp("to its end", a, 0, a, 100000, 20000, "a")
	size := p.lstat("b").Size
	cp("far out", a, 0, b, math.MaxInt64-10, 20, "")
	p.must(unix.Ftruncate(b, size))
	ro, err := unix.Open(p.at("a"), unix.O_RDONLY, 0)
	p.must(err)
	defer unix.Close(ro)
	cp("to a file for reading", b, 0, ro, 0, 10, "a")
	ap := p.fd("b", unix.O_APPEND)
	cp("to a file for appending", a, 0, ap, 0, 10, "b")
	d, err := unix.Open(p.dir, unix.O_DIRECTORY, 0)
	p.must(err)
	defer unix.Close(d)
	cp("from a folder", d, 0, b, 0, 10, "b")
	clone := p.fd("b", 0)
	p.try(unix.IoctlFileClone(clone, a), "clone")
	n, err := unix.Sendfile(b, a, nil, 5000)
	p.logf("sendfile %d %s", n, errName(err))
	p.content("b")
}

func probeIO(p *probe) {
	p.file("f", 10000)
	fd := p.fd("f", 0)
	buf := make([]byte, 20000)
	for _, off := range []int64{0, 9999, 10000, 10001, 1 << 40, math.MaxInt64, -1} {
		n, err := unix.Pread(fd, buf, off)
		p.logf("read at %d: %d %s", off, n, errName(err))
	}
	ap := p.fd("f", unix.O_APPEND)
	n, err := unix.Pwrite(ap, []byte("appended"), 3)
	p.logf("pwrite to append: %d %s", n, errName(err))
	p.content("f")
	n, err = unix.Writev(ap, [][]byte{[]byte("one"), nil, []byte("two")})
	p.logf("writev: %d %s", n, errName(err))
	p.content("f")
	n, err = unix.Pwritev2(fd, [][]byte{[]byte("x")}, 5, unix.RWF_APPEND)
	p.logf("RWF_APPEND: %d %s", n, errName(err))
	n, err = unix.Pwritev2(fd, [][]byte{[]byte("x")}, 5, unix.RWF_SYNC)
	p.logf("RWF_SYNC: %d %s", n, errName(err))
	p.content("f")
	for _, fl := range []int{unix.O_SYNC, unix.O_DSYNC, unix.O_SYNC | unix.O_APPEND} {
		s := p.fd("f", fl)
		n, err = unix.Write(s, []byte("sync"))
		p.logf("write %#x: %d %s", fl, n, errName(err))
		p.content("f")
	}
	wo, err := unix.Open(p.at("f"), unix.O_WRONLY, 0)
	p.must(err)
	defer unix.Close(wo)
	n, err = unix.Pread(wo, buf, 0)
	p.logf("read of a file for writing: %d %s", n, errName(err))
	n, err = unix.Pwrite(wo, []byte("in the middle of a page"), 5000)
	p.logf("write in part: %d %s", n, errName(err))
	p.content("f")
	ro, err := unix.Open(p.at("f"), unix.O_RDONLY, 0)
	p.must(err)
	defer unix.Close(ro)
	_, err = unix.Write(ro, []byte("x"))
	p.try(err, "write of a file for reading")
	p.try(unix.Ftruncate(ro, 1), "truncate of a file for reading")
	p.try(unix.Fsync(ro), "fsync of it")
	p.try(unix.Fdatasync(fd), "fdatasync")
	p.try(unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER), "sync_file_range")
	p.try(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED), "fadvise")
	p.content("f")
	var blk int32
	err = ioctl(fd, 1, unsafe.Pointer(&blk))
	p.try(err, "FIBMAP")
	p.logf("  a block: %v", blk > 0)
	blk = 1000
	p.try(ioctl(fd, 1, unsafe.Pointer(&blk)), "FIBMAP beyond the end")
	p.logf("  %d", blk)
	// O_TRUNC, and holes that a write leaves.
	tr := p.fd("f", unix.O_TRUNC)
	n, err = unix.Pwrite(tr, []byte("late"), 30000)
	p.logf("write behind the end: %d %s", n, errName(err))
	p.content("f")
	p.blocks("f")
	p.try(unix.Ftruncate(fd, 30002), "shorten")
	p.try(unix.Ftruncate(fd, 60000), "lengthen")
	p.content("f")
	p.blocks("f")
	p.try(unix.Ftruncate(fd, 0), "empty")
	p.blocks("f")
}

func probeLimits(p *probe) {
	const most = 1<<44 - 4096 // 2^32-1 blocks
	p.file("f", 10)
	fd := p.fd("f", 0)
	for _, size := range []int64{1 << 32, 1 << 43, most - 1, most, most + 1, 1 << 44, math.MaxInt64, -1} {
		p.try(unix.Ftruncate(fd, size), "truncate to %d", size)
		p.logf("  size %d", p.lstat("f").Size)
	}
	p.must(unix.Ftruncate(fd, 0))
	for _, off := range []int64{1 << 32, most - 5000, most - 10, most - 1, most, most + 1, 1 << 44, math.MaxInt64 - 5, math.MaxInt64, -1} {
		n, err := unix.Pwrite(fd, []byte("0123456789"), off)
		p.logf("write at %d: %d %s", off, n, errName(err))
		p.logf("  fsync: %s, size %d", errName(unix.Fsync(fd)), p.lstat("f").Size)
	}
	p.blocks("f")
	p.must(unix.Ftruncate(fd, 0))
	_ = unix.Syncfs(fd) // which tells of the writes that failed
}

func probeMmap(p *probe) {
	p.file("f", 10000)
	fd := p.fd("f", 0)
	m, err := unix.Mmap(fd, 0, 12288, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if !p.try(err, "map") {
		return
	}
	m2, err := unix.Mmap(fd, 0, 12288, unix.PROT_READ, unix.MAP_SHARED)
	p.try(err, "map again")
	priv, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	p.try(err, "map privately")
	copy(m[5:], "by the mapping")
	_, err = unix.Pwrite(fd, []byte("by a write"), 100)
	p.try(err, "write")
	copy(m[9990:], "at the end") // beyond, a FUSE page would keep it
	copy(priv[50:], "nobody sees this")
	p.logf("  %q %q", m2[5:19], m[100:110])
	p.try(unix.Msync(m, unix.MS_SYNC), "msync")
	p.content("f")
	p.try(unix.Ftruncate(fd, 5000), "truncate")
	p.logf("  behind the end: %d", m[5001])
	p.try(unix.Ftruncate(fd, 9000), "lengthen")
	p.content("f")
	copy(m[8000:], "after that")
	p.try(unix.Munmap(m2), "unmap")
	p.try(unix.Munmap(priv), "unmap")
	p.try(unix.Munmap(m), "unmap")
	p.content("f")
	// A sparse file is filled by mapping.
	p.file("s", 0)
	s := p.fd("s", 0)
	p.must(unix.Ftruncate(s, 1<<20))
	m, err = unix.Mmap(s, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	p.must(err)
	for i := 0; i < 1<<20; i += 12289 {
		m[i] = byte(i)
	}
	p.must(unix.Fallocate(s, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 100000, 500000))
	for i := 200000; i < 300000; i += 5000 {
		p.logf("  %d", m[i])
		m[i] = 1
	}
	p.must(unix.Close(s)) // the mapping outlives it
	p.must(unix.Munmap(m))
	p.content("s")
	s = p.fd("s", 0)
	p.must(unix.Fsync(s))
	p.segments(s) // how many blocks map them depends on where they are
	_, err = unix.Mmap(fd, 4096, 4096, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_SYNC|unix.MAP_SHARED_VALIDATE)
	p.try(err, "map synchronously")
	// One who removes the file meanwhile changes nothing for who maps it.
	p.file("gone", 5000)
	g := p.fd("gone", 0)
	m, err = unix.Mmap(g, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	p.must(err)
	p.must(os.Remove(p.at("gone")))
	unix.Close(g)
	m[1]++
	p.logf("  removed: %d %d", m[0], m[1])
	p.must(unix.Munmap(m))
}

func probeLocks(p *probe) {
	p.file("f", 100)
	a, b := p.fd("f", 0), p.fd("f", 0)
	p.try(unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB), "flock a")
	p.try(unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB), "flock b")
	p.try(unix.Flock(a, unix.LOCK_SH|unix.LOCK_NB), "share a")
	p.try(unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB), "flock b")
	p.try(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB), "exclusive b")
	p.try(unix.Flock(a, unix.LOCK_UN), "unlock a")
	p.try(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB), "exclusive b")
	p.try(unix.Flock(b, unix.LOCK_UN), "unlock b")
	lock := func(fd int, cmd int, typ int16, start, n int64) {
		l := unix.Flock_t{Type: typ, Start: start, Len: n}
		err := unix.FcntlFlock(uintptr(fd), cmd, &l)
		p.try(err, "lock %d %d of %d-%d", cmd, typ, start, n)
		if cmd == unix.F_OFD_GETLK && err == nil {
			p.logf("  %d %d-%d by %d", l.Type, l.Start, l.Len, l.Pid)
		}
	}
	lock(a, unix.F_OFD_SETLK, unix.F_WRLCK, 10, 20)
	lock(b, unix.F_OFD_SETLK, unix.F_WRLCK, 30, 20)
	lock(b, unix.F_OFD_SETLK, unix.F_RDLCK, 15, 1)
	lock(b, unix.F_OFD_GETLK, unix.F_RDLCK, 15, 1)
	lock(a, unix.F_OFD_SETLK, unix.F_RDLCK, 12, 5)
	lock(b, unix.F_OFD_SETLK, unix.F_RDLCK, 15, 1)
	lock(b, unix.F_OFD_GETLK, unix.F_WRLCK, 0, 0)
	lock(a, unix.F_OFD_SETLK, unix.F_UNLCK, 0, 0)
	lock(b, unix.F_OFD_SETLK, unix.F_WRLCK, 0, 0)
	lock(a, unix.F_SETLK, unix.F_WRLCK, 0, 10)
	p.must(unix.Close(b))
	lock(a, unix.F_SETLK, unix.F_WRLCK, 0, 10)
	// One who waits gets it.
	c := p.fd("f", 0)
	p.must(unix.Flock(a, unix.LOCK_EX))
	var wg sync.WaitGroup
	wg.Go(func() { p.must(unix.Flock(c, unix.LOCK_EX)) })
	tick()
	p.must(unix.Flock(a, unix.LOCK_UN))
	wg.Wait()
	p.try(unix.Flock(a, unix.LOCK_SH|unix.LOCK_NB), "flock a")
	n, err := unix.FcntlInt(uintptr(c), unix.F_SETLEASE, unix.F_RDLCK)
	p.logf("lease %d %s", n, errName(err))
	_, err = unix.FcntlInt(uintptr(a), unix.F_GETLEASE, 0)
	p.try(err, "get lease")
}

func probeDirect(p *probe) {
	aligned := func(n int) []byte {
		b := make([]byte, n+4096)
		k := int(uintptr(unsafe.Pointer(&b[0])) & 4095)
		return b[4096-k:][:n:n]
	}
	p.file("f", 20000)
	fd := p.fd("f", unix.O_DIRECT)
	buf := aligned(16384)
	for _, r := range [][2]int{{0, 4096}, {4096, 8192}, {16384, 8192}, {0, 16384}, {20480, 4096}, {40960, 4096}} {
		n, err := unix.Pread(fd, buf[:r[1]], int64(r[0]))
		p.logf("read %d at %d: %d %s, crc %08x", r[1], r[0], n, errName(err), crc32.ChecksumIEEE(buf[:max(n, 0)]))
	}
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	for _, r := range [][2]int{{0, 4096}, {8192, 8192}, {16384, 4096}, {40960, 16384}} {
		n, err := unix.Pwrite(fd, buf[:r[1]], int64(r[0]))
		p.logf("write %d at %d: %d %s", r[1], r[0], n, errName(err))
		p.content("f")
	}
	p.blocks("f")
	// Beside the page cache.
	c := p.fd("f", 0)
	_, err := unix.Pwrite(c, []byte("through the cache"), 4100)
	p.must(err)
	n, err := unix.Pread(fd, buf[:4096], 4096)
	p.logf("direct read of it: %d %s %q", n, errName(err), buf[4:21])
	copy(buf, "directly")
	_, err = unix.Pwrite(fd, buf[:4096], 4096)
	p.must(err)
	got := make([]byte, 8)
	_, err = unix.Pread(c, got, 4096)
	p.logf("cached read of what was written directly: %q %s", got, errName(err))
	ap := p.fd("f", unix.O_DIRECT|unix.O_APPEND)
	p.must(unix.Ftruncate(ap, 8192))
	n, err = unix.Write(ap, buf[:4096])
	p.logf("append directly: %d %s", n, errName(err))
	p.content("f")
}
