package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/populate"
)

// hugeFiles is what make_hugefiles and the relations that go with it ask for.
// Sizes are in blocks.
type hugeFiles struct {
	dir, name string
	digits    int    // least width of the numbers
	count     uint64 // 0: as many as fit
	size      uint64 // of each; 0: all there is, in equal parts
	slack     uint64 // to leave free
	align     uint64 // of the first block and the size; 0: none
	partition uint64 // where the file system begins on its disk, as far as that counts
	uid, gid  uint32
	umask     uint16
	zero      bool // zeros are written to them
	told      bool // zero was
}

// discarded is called if the device reads as zeros where nothing was written.
func (h *hugeFiles) discarded() {
	if !h.told {
		h.zero = false
	}
}

// resolveHugeFiles reads the relations. It refuses what cannot be.
func (m *maker) resolveHugeFiles() error {
	m.huge = nil
	if !m.types.Bool("make_hugefiles", false) || m.superOnly {
		return nil
	}
	switch {
	case m.opts.Incompat&ondisk.IncompatExtents == 0:
		return fail("make_hugefiles needs the extent feature: add -O extent")
	case m.auto:
		return fail("make_hugefiles fills the file system, whose size is to be found: give a size, or take the relation out of the configuration")
	}
	h := &hugeFiles{
		dir:  m.types.String("hugefiles_dir", "/"),
		name: m.types.String("hugefiles_name", "hugefile"),
		zero: true,
	}
	for _, r := range []struct {
		name     string
		def, top int64
		set      func(int64)
	}{
		{"hugefiles_uid", 0, math.MaxUint32, func(n int64) { h.uid = uint32(n) }},
		{"hugefiles_gid", 0, math.MaxUint32, func(n int64) { h.gid = uint32(n) }},
		{"hugefiles_umask", 0o077, 0o777, func(n int64) { h.umask = uint16(n) }},
		{"hugefiles_digits", 5, ondisk.NameLen, func(n int64) { h.digits = int(n) }},
		{"num_hugefiles", 0, math.MaxUint32, func(n int64) { h.count = uint64(n) }},
	} {
		n := r.def
		if v, ok := m.types.Get(r.name); ok {
			var err error
			if n, err = strconv.ParseInt(v, 0, 64); err != nil || n < 0 || n > r.top {
				return fail("%s %q is not a number from 0 to %d", r.name, v, r.top)
			}
		}
		r.set(n)
	}
	for _, r := range []struct {
		name, def string
		to        *uint64
	}{{"hugefiles_slack", "1M", &h.slack}, {"hugefiles_size", "0", &h.size}, {"hugefiles_align", "0", &h.align}} {
		v := m.types.String(r.name, r.def)
		n, err := parseBlocks(v, m.log)
		if err != nil || n > math.MaxInt64>>m.log {
			return fail("%s %q is not a size (--help=size)", r.name, v)
		}
		*r.to = n
	}
	if strings.Contains(h.name, "/") || h.name == "" && h.digits == 0 {
		return fail("hugefiles_name %q is not the name of a file", h.name)
	}
	for dir := range strings.SplitSeq(h.dir, "/") {
		if dir == "." || dir == ".." || len(dir) > ondisk.NameLen {
			return fail("hugefiles_dir %q is not the path of a directory from the root on", h.dir)
		}
	}
	if m.types.Bool("hugefiles_align_disk", false) {
		at := m.target.diskOffset()
		h.partition = uint64(at) >> m.log
		if cluster := int64(m.opts.ClusterSize); m.opts.ROCompat&ondisk.ROCompatBigalloc != 0 && cluster != 0 &&
			int64(h.partition)<<m.log%cluster != 0 {
			return fail("Partition offset of %d (%dk) blocks not compatible with cluster size %d.", h.partition, m.blockSize, cluster)
		}
	}
	if _, h.told = m.types.Get("zero_hugefiles"); h.told {
		h.zero = m.types.Bool("zero_hugefiles", true)
	}
	h.size = roundUp(h.size, h.align, 0)
	m.huge = h
	return nil
}

// roundUp returns the first number from b on that, at added, is a multiple of
// align.
func roundUp(b, align, at uint64) uint64 {
	if align == 0 {
		return b
	}
	if r := (b + at%align) % align; r != 0 {
		b += align - r
	}
	return b
}

// diskOffset returns where on its disk the file system begins, in bytes, as far
// as that is known.
func (t *target) diskOffset() int64 {
	if !t.block {
		return t.offset
	}
	const sector = 512                     // the unit of sysfs
	start, _ := sysNumber(t.rdev, "start") // a whole disk has none
	return start*sector + t.offset
}

// nodeBlocks returns how many blocks are left for the extent tree of a file of n
// blocks. Its blocks are taken to be half full, and a level needs no more than four
// above it.
func nodeBlocks(n uint64, blockSize int, ratio uint64) uint64 {
	extents := (n + ondisk.MaxExtentLen - 1) / ondisk.MaxExtentLen
	if extents <= ondisk.RootExtents {
		return 0
	}
	per := uint64(ondisk.ExtentMax(blockSize)/2 - 1)
	total := uint64(0)
	for range 4 {
		extents = (extents + per - 1) / per
		total += extents
	}
	return total * ratio
}

// entryBlocks returns how many blocks are left for the names of n files.
func entryBlocks(n uint64) uint64 { return n/16 + 1 }

// fit settles number and size of the files where so many blocks are free, and
// how many are left before the first.
func (h *hugeFiles) fit(free uint64, blockSize int, ratio uint64) (before uint64, err error) {
	if free < h.slack || free-h.slack < h.align {
		return 0, fmt.Errorf("%d blocks are free, fewer than hugefiles_slack and hugefiles_align leave, %d: %w",
			free, h.slack+h.align, syscall.ENOSPC)
	}
	free -= h.slack + h.align
	h.size = roundUp(h.size, ratio, 0) // no file ends within a cluster
	if h.size > free {
		return 0, fmt.Errorf("a file of %d blocks does not fit into %d: %w", h.size, free, syscall.ENOSPC)
	}
	less := func(n, files uint64) error { // what maps and names take
		all := entryBlocks(files) + nodeBlocks(n, blockSize, ratio)*files
		if all > free {
			return fmt.Errorf("%d blocks are too few for the maps and names of %d files, %d: %w", free, files, all, syscall.ENOSPC)
		}
		free -= all
		return nil
	}
	switch {
	case h.size == 0 && h.count == 0:
		h.count = 1
	case h.count == 0:
		if err := less(h.size, free/h.size); err != nil {
			return 0, err
		}
		h.count = free / h.size
	}
	if h.size == 0 && h.count > 1 {
		if err := less(free/h.count, h.count); err != nil {
			return 0, err
		}
		if h.size = free / h.count / ratio * ratio; h.size == 0 {
			return 0, fmt.Errorf("%d blocks are too few for %d files: %w", free, h.count, syscall.ENOSPC)
		}
	}
	each := h.size
	if each == 0 {
		each = free
	}
	return h.slack + nodeBlocks(each, blockSize, ratio)*h.count + entryBlocks(h.count), nil
}

// hugeFilesError is what making them fails with.
type hugeFilesError struct{ err error }

func (e *hugeFilesError) Error() string { return "make_hugefiles: " + e.err.Error() }

func (e *hugeFilesError) Unwrap() error { return e.err }

// fillHugeFiles makes them in the file system on dev, which populate.Hold has
// returned. Where there is a source too, filling it from that sees to them.
func (m *maker) fillHugeFiles(dev blockdev.Device) error {
	if m.huge == nil || m.tree != nil {
		return nil
	}
	fs, err := m.openNew(dev)
	if err == nil {
		err = m.makeHugeFiles(fs)
		if err == nil {
			err = fs.FillQuota()
		}
		if err != nil {
			_ = fs.Shutdown(ext2fs.ShutdownNoLogFlush)
		}
		if e := fs.Close(); err == nil {
			err = e
		}
	}
	if err == nil {
		err = populate.Commit(dev)
	}
	if err != nil {
		return fail("%s: no file system made: %w", m.device, err)
	}
	return nil
}

// openNew opens the file system that was just made, for one who uses it alone.
// The same input makes the same bytes.
func (m *maker) openNew(dev blockdev.Device) (*ext2fs.FS, error) {
	u := m.opts.UUID
	rnd := rand.New(rand.NewPCG(binary.LittleEndian.Uint64(u[:8]), binary.LittleEndian.Uint64(u[8:])))
	var mu sync.Mutex
	return ext2fs.Open(dev, ext2fs.Options{
		NoLoad: true, NoBarrier: true, Populating: true,
		CommitInterval: 1 << 62, // only when a transaction is full
		Now:            func() time.Time { return time.Unix(m.opts.Time, 0) },
		Rand: func() uint32 {
			mu.Lock()
			defer mu.Unlock()
			return rnd.Uint32()
		},
	})
}

// makeHugeFiles makes the directory and the files.
func (m *maker) makeHugeFiles(fs *ext2fs.FS) error {
	if err := m.makeHuge(fs); err != nil {
		return &hugeFilesError{err}
	}
	return nil
}

func (m *maker) makeHuge(fs *ext2fs.FS) error {
	h := m.huge
	dir, err := m.hugeDir(fs)
	if err != nil {
		return err
	}
	defer dir.Put()
	ratio := uint64(1)
	if m.opts.ROCompat&ondisk.ROCompatBigalloc != 0 {
		ratio = uint64(m.opts.ClusterSize) >> m.log
	}
	before, err := h.fit(fs.FreeSpace().Free, fs.BlockSize(), ratio)
	if err != nil {
		return err
	}
	at, err := skipFree(fs, before)
	if err != nil {
		return err
	}
	at = ondisk.Fsblk(roundUp(uint64(at), h.align, h.partition))
	if !m.quiet {
		if h.zero && m.verbose {
			fmt.Fprintln(m.Stdout, "Huge files will be zeroed")
		}
		each := ""
		if h.size != 0 {
			each = fmt.Sprintf("with %d blocks each", h.size)
		}
		fmt.Fprintf(m.Stdout, "Creating %d huge file(s) %s: ", h.count, each)
	}
	stop := func() error {
		if m.ctx.Err() != nil {
			return context.Cause(m.ctx)
		}
		return nil
	}
	cred := ext2fs.Cred{UID: h.uid, GID: h.gid, Umask: h.umask, Verbatim: true, Near: true}
	for i := range h.count {
		name := h.fileName(i)
		ip, err := fs.Create(dir, name, ondisk.ModeReg|0o666&^h.umask, 0, cred)
		if err == nil {
			at, err = ip.PlaceBlocks(ext2fs.PlaceOptions{At: at, Blocks: h.size, Zero: h.zero, Stop: stop})
			ip.Put()
		}
		if err != nil {
			if !m.quiet {
				fmt.Fprintln(m.Stdout)
			}
			return fmt.Errorf("%s, number %d of %d: %w", name, i+1, h.count, err)
		}
	}
	if !m.quiet {
		fmt.Fprintln(m.Stdout, "done")
	}
	return nil
}

// fileName returns the name of the file number i.
func (h *hugeFiles) fileName(i uint64) string {
	switch {
	case h.digits > 0:
		return fmt.Sprintf("%s%0*d", h.name, h.digits, i)
	case h.count > 1:
		return fmt.Sprintf("%s%d", h.name, i)
	}
	return h.name
}

// hugeDir makes the directory that the files go to, and those above it, and
// returns it pinned.
func (m *maker) hugeDir(fs *ext2fs.FS) (*ext2fs.Inode, error) {
	h := m.huge
	dir, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		return nil, err
	}
	cred := ext2fs.Cred{UID: h.uid, GID: h.gid, Verbatim: true, Near: true}
	for name := range strings.SplitSeq(h.dir, "/") {
		if name == "" {
			continue
		}
		sub, err := fs.Mkdir(dir, name, 0o777&^h.umask, cred)
		dir.Put()
		if err != nil {
			return nil, fmt.Errorf("hugefiles_dir %s: %w", h.dir, err)
		}
		dir = sub
	}
	return dir, nil
}

// skipFree returns the block before which n blocks of the file system are free.
func skipFree(fs *ext2fs.FS, n uint64) (at ondisk.Fsblk, err error) {
	for n > 0 {
		b, free, err := fs.NextFree(at)
		if err != nil {
			return 0, err
		}
		if free == 0 {
			break
		}
		free = min(free, n)
		at = b + ondisk.Fsblk(free)
		n -= free
	}
	return at, nil
}
