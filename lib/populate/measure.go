package populate

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// What a tree needs is found out by writing it, without the data of files, to a
// scratch file system of the same format: so it is right for every feature, and
// stays so. Which size then has that much room is a question to whoever formats.

// Format makes scratch file systems, of the format that is to be populated, in
// size bytes and with room for inodes inodes beside its own. They have the UUID
// and the hash seed that the file system will have: which blocks a directory
// takes depends on them. The device is closed when it is not needed any more. It
// fails with ENOSPC or EINVAL for sizes that are too small for the format.
type Format func(size int64, inodes uint64) (blockdev.Device, error)

// Size is how large a file system has to be for a tree.
type Size struct {
	Bytes  int64  // a multiple of the block size
	Blocks uint64 // that the tree takes
	Inodes uint64 // that the tree takes
}

// SizeOptions say what size is looked for.
type SizeOptions struct {
	BlockSize int
	Free      int64 // bytes that are to be left free
	Max       int64 // bytes that it may have; 0: any
}

// Fit returns the size of a file system, made by format, that the tree fits in:
// it has tried it, so that Write to one of that size does not fail for want of
// space. It fails with ENOSPC if that would be more than o.Max.
func (t *Tree) Fit(ctx context.Context, format Format, o SizeOptions) (Size, error) {
	bs := int64(o.BlockSize)
	s := Size{Inodes: t.inodes()}
	n, err := t.Measure(ctx, format, o.BlockSize)
	if err != nil {
		return s, err
	}
	s.Blocks, s.Inodes = n.Blocks, n.Inodes
	want := s.Blocks + uint64((o.Free+bs-1)/bs)
	size := max(int64(want)*bs, 64<<10)
	for try := 0; try < 64; try++ {
		if o.Max > 0 && size > o.Max {
			return s, fmt.Errorf("it needs more than the %d bytes that it may have: %w", o.Max, syscall.ENOSPC)
		}
		free, err := room(format, size, s.Inodes)
		switch {
		case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL):
			size += max(size/8, 16*bs) / bs * bs
			continue
		case err != nil:
			return s, err
		case free.Free < want:
			size += int64(want-free.Free) * bs
			continue
		case free.FreeIno < s.Inodes:
			return s, fmt.Errorf("the format has %d inodes to offer, %d are needed: %w", free.FreeIno, s.Inodes, syscall.ENOSPC)
		}
		_, err = t.try(ctx, format, size, s.Inodes)
		if err == nil {
			s.Bytes = size
			return s, nil
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return s, err
		}
		size += max(size/512, 8*bs) / bs * bs // what is scattered takes more blocks for its mapping
	}
	return s, fmt.Errorf("no size was found that it fits in: %w", syscall.ENOSPC)
}

// Measure returns what the tree takes in file systems made by format. Bytes is 0.
func (t *Tree) Measure(ctx context.Context, format Format, blockSize int) (Size, error) {
	bs := int64(blockSize)
	inodes := t.inodes()
	// More than it can need: of each file the blocks and some for its mapping, of
	// each name a block.
	bound := t.bytes()
	bound += bound/64 + int64(inodes)*(2*bs+1024) + 64<<20
	for {
		w, err := t.try(ctx, format, bound/bs*bs, inodes)
		if err == nil {
			s := Size{Blocks: w.before.Free - w.after.Free, Inodes: w.before.FreeIno - w.after.FreeIno}
			if w.after.Free > w.before.Free {
				s.Blocks = 0
			}
			return s, nil
		}
		if !errors.Is(err, syscall.ENOSPC) || bound > 1<<55 {
			return Size{}, err
		}
		bound *= 2
		inodes += inodes / 2 // for values of attributes, which are inodes with ea_inode
	}
}

// inodes returns how many inodes the tree has.
func (t *Tree) inodes() (n uint64) {
	_ = t.walk(func(_ string, _ *node, first bool) error {
		if first {
			n++
		}
		return nil
	})
	return n
}

// room tells what is free in a file system that was just made.
func room(format Format, size int64, inodes uint64) (ext2fs.FreeSpace, error) {
	dev, err := format(size, inodes)
	if err != nil {
		return ext2fs.FreeSpace{}, err
	}
	defer dev.Close()
	fs, err := ext2fs.Open(dev, ext2fs.Options{ReadOnly: true, NoLoad: true})
	if err != nil {
		return ext2fs.FreeSpace{}, err
	}
	free := fs.FreeSpace()
	return free, fs.Close()
}

// try writes the tree, without data, to a file system of that size.
func (t *Tree) try(ctx context.Context, format Format, size int64, inodes uint64) (*writer, error) {
	dev, err := format(size, inodes)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	h, err := hold(&dryDevice{Device: dev})
	if err != nil {
		return nil, err
	}
	w := &writer{ctx: ctx, t: t, links: map[*node]ondisk.Ino{}, zero: t.opt.Reproducible, told: time.Now(), dry: true}
	progress := t.opt.Progress
	t.opt.Progress = nil
	defer func() { t.opt.Progress = progress }()
	_, err = w.run(h)
	return w, err
}

// dryZeros is what a dry run writes in place of data.
var dryZeros = blockdev.AlignedBuf(chunkSize, 4096)

// dryData allocates what a file's data takes.
func (w *writer) dryData(ip *ext2fs.Inode, n *node) error {
	err := n.data(func(s seg) error {
		for s.n > 0 {
			if err := interrupted(w.ctx); err != nil {
				return err
			}
			k := min(s.n, chunkSize-s.off%chunkSize)
			if _, err := ip.WriteAtPrivileged(dryZeros[:k], s.off); err != nil {
				return err
			}
			s.off, s.n = s.off+k, s.n-k
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.extend(ip, n)
}

// dryDevice does not write what comes from dryZeros.
type dryDevice struct{ blockdev.Device }

func (d *dryDevice) WriteAt(p []byte, off int64) (int, error) {
	if d.drops(p) {
		return len(p), nil
	}
	return d.Device.WriteAt(p, off)
}

// drops says whether p is a part of dryZeros.
func (d *dryDevice) drops(p []byte) bool {
	if len(p) == 0 {
		return false
	}
	a, z := uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(unsafe.Pointer(unsafe.SliceData(dryZeros)))
	return a >= z && a < z+uintptr(len(dryZeros))
}
