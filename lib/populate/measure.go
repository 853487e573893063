package populate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
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
	Free      int64 // bytes that are to be left free for everyone, as statfs counts them
	Min       int64 // bytes that it has at least
	Max       int64 // bytes that it may have; 0: any
	Smallest  bool  // look for the smallest one, which takes some tries more
}

// Fit returns the size of a file system, made by format, that the tree fits in:
// it has tried it, so that Write to one of that size does not fail for want of
// space. It fails with ENOSPC if that would be more than o.Max.
func (t *Tree) Fit(ctx context.Context, format Format, o SizeOptions) (Size, error) {
	s := Size{Inodes: t.inodes}
	n, err := t.Measure(ctx, format, o.BlockSize)
	if err != nil {
		return s, err
	}
	s.Blocks, s.Inodes = n.Blocks, n.Inodes
	f := &fitter{ctx: ctx, t: t, format: format, o: o, need: s}
	s.Bytes, err = f.search()
	return s, err
}

// fitter looks for a size.
type fitter struct {
	ctx    context.Context
	t      *Tree
	format Format
	o      SizeOptions
	need   Size
}

// misfit is how a size did not fit.
type misfit struct {
	missing int64 // bytes, as far as that is known
	guessed bool  // it is not, and missing is a try
	why     error
}

// search goes up from what the contents alone take.
func (f *fitter) search() (int64, error) {
	bs := int64(f.o.BlockSize)
	up := func(n int64) int64 { return (n + bs - 1) / bs * bs }
	size := max(int64(f.need.Blocks)*bs+up(f.o.Free), 64<<10, up(f.o.Min))
	below := size - bs // the largest size that is known to be too small
	most := f.o.Max / bs * bs
	guessed := false
	var m misfit
	for try := 0; ; try++ {
		if f.o.Max > 0 && size > most {
			if most <= below {
				return 0, fmt.Errorf("it needs more than the %d bytes that it may have: %w", f.o.Max, syscall.ENOSPC)
			}
			size, guessed = most, true
		}
		ok, err := f.fits(size, &m)
		if err != nil {
			return 0, err
		}
		if ok {
			break
		}
		if try == 64 {
			return 0, fmt.Errorf("no size was found that it fits in: %w", m.why)
		}
		below, guessed = size, m.guessed
		size += up(max(m.missing, bs))
	}
	near := bs
	if !f.o.Smallest {
		if !guessed {
			return size, nil // more was added than was missing only where that is little
		}
		near = max(size/256, 64<<10)
	}
	for size-below > near {
		mid := below + (size-below)/2/bs*bs
		ok, err := f.fits(mid, &m)
		if err != nil {
			return 0, err
		}
		if ok {
			size = mid
		} else {
			below = mid
		}
	}
	return size, nil
}

// fits tries a size. Where it is too small, m says how.
func (f *fitter) fits(size int64, m *misfit) (bool, error) {
	bs := int64(f.o.BlockSize)
	guess := func(missing int64, err error) (bool, error) {
		*m = misfit{missing, true, err}
		return false, nil
	}
	if err := interrupted(f.ctx); err != nil {
		return false, err
	}
	free, kept, err := room(f.format, size, f.need.Inodes)
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL):
		return guess(max(size/8, 16*bs), err)
	case err != nil:
		return false, err
	case free.FreeIno < f.need.Inodes:
		return guess(max(size/8, 16*bs),
			fmt.Errorf("the format has %d inodes to offer, %d are needed: %w", free.FreeIno, f.need.Inodes, syscall.ENOSPC))
	}
	leave := uint64(0)
	if f.o.Free > 0 {
		leave = uint64((f.o.Free+bs-1)/bs) + kept
	}
	full := syscall.ENOSPC
	if want := f.need.Blocks + leave; free.Free < want {
		*m = misfit{int64(want-free.Free) * bs, false, full}
		return false, nil
	}
	w, err := f.t.try(f.ctx, f.format, size, f.need.Inodes)
	switch {
	case errors.Is(err, syscall.ENOSPC):
		// What is scattered takes more blocks for its mapping.
		*m = misfit{max(size/512, 8*bs), false, err}
		return false, nil
	case err != nil:
		return false, err
	case w.after.Free < leave:
		*m = misfit{int64(leave-w.after.Free) * bs, false, full}
		return false, nil
	}
	return true, nil
}

// Measure returns what the tree takes in file systems made by format. Bytes is 0.
func (t *Tree) Measure(ctx context.Context, format Format, blockSize int) (Size, error) {
	bs := int64(blockSize)
	inodes := t.inodes
	// More than it can need: of each file the blocks and some for its mapping, of
	// each name a block.
	bound := t.size
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
		if w != nil && int64(w.after.Free) > bound/bs/2 && w.after.FreeIno > 0 {
			return Size{}, err // no size helps what does not fit where most is free
		}
		bound *= 2
		inodes += inodes / 2 // for values of attributes, which are inodes with ea_inode
	}
}

// room tells what is free in a file system that was just made, and how many
// blocks of that are kept from most users.
func room(format Format, size int64, inodes uint64) (_ ext2fs.FreeSpace, kept uint64, err error) {
	dev, err := format(size, inodes)
	if err != nil {
		return ext2fs.FreeSpace{}, 0, err
	}
	defer dev.Close()
	fs, err := ext2fs.Open(dev, ext2fs.Options{ReadOnly: true, NoLoad: true})
	if err != nil {
		return ext2fs.FreeSpace{}, 0, err
	}
	free, st := fs.FreeSpace(), fs.Statfs()
	return free, st.Bfree - st.Bavail, fs.Close()
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
	w := &writer{ctx: ctx, t: t, round: t.newRound(), zero: t.opt.Reproducible, told: time.Now(), dry: true}
	progress := t.opt.Progress
	t.opt.Progress = nil
	defer func() { t.opt.Progress = progress }()
	_, err = w.run(h)
	return w, err
}

// dryZeros returns what a dry run writes in place of data.
var dryZeros = sync.OnceValue(func() []byte { return blockdev.AlignedBuf(chunkSize, 4096) })

// dryData allocates what a file's data takes.
func (w *writer) dryData(ip *ext2fs.Inode, n *node) error {
	err := w.t.data(n, func(s seg) error {
		for s.n > 0 {
			if err := interrupted(w.ctx); err != nil {
				return err
			}
			k := min(s.n, chunkSize-s.off%chunkSize)
			if _, err := ip.WriteAtPrivileged(dryZeros()[:k], s.off); err != nil {
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
	a, z := uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(unsafe.Pointer(unsafe.SliceData(dryZeros())))
	return a >= z && a < z+chunkSize
}
