package ext2fs

import (
	"math"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/iomap"
)

// SeekData returns the first offset at or after off that holds data. Blocks that
// are allocated and unwritten hold none. It fails with ENXIO if there is none,
// or off is not inside the file.
func (ip *Inode) SeekData(off int64) (int64, error) { return ip.seek(off, iomap.SeekData) }

// SeekHole returns the first offset at or after off that holds no data; the end
// of the file counts as a hole. It fails with ENXIO if off is not inside the
// file.
func (ip *Inode) SeekHole(off int64) (int64, error) { return ip.seek(off, iomap.SeekHole) }

func (ip *Inode) seek(off int64, f func(iomap.File, int64, int64) (int64, error)) (int64, error) {
	if err := ip.hasData(); err != nil {
		return 0, err
	}
	ip.mu.RLock()
	defer ip.mu.RUnlock()
	size := ip.Size()
	if off < 0 || off >= size {
		return 0, syscall.ENXIO
	}
	at, err := f(ip, off, size)
	if err != nil {
		return 0, err
	}
	if at < 0 {
		return 0, syscall.ENXIO
	}
	return min(at, size), nil
}

// Flags of FiemapExtent, by their Linux numbers.
const (
	FiemapLast       = 0x001 // the last extent of the range
	FiemapNotAligned = 0x100 // offsets are not in blocks
	FiemapInline     = 0x200 // data lies in metadata
	FiemapUnwritten  = 0x800
	FiemapMerged     = 0x1000 // made of several blocks, as there are no extents
)

// FiemapExtent is a mapped range of a file.
type FiemapExtent struct {
	Logical, Physical, Length int64 // bytes
	Flags                     uint32
}

// Fiemap calls fn for the mapped ranges that n bytes at off overlap, whole, in
// order, until it returns false.
func (ip *Inode) Fiemap(off, n int64, fn func(e FiemapExtent) bool) error {
	fs := ip.fs
	if off < 0 || n <= 0 {
		return syscall.EINVAL
	}
	ip.mu.RLock()
	defer ip.mu.RUnlock()
	ip.mapMu.RLock()
	inline, none, extents, size := ip.flag(ondisk.FlagInlineData), ip.noBlocks(), ip.isExtents(), ip.size()
	ip.mapMu.RUnlock()
	if inline {
		if off < size {
			fn(FiemapExtent{Physical: ip.inlinePlace(), Length: size, Flags: FiemapLast | FiemapNotAligned | FiemapInline})
		}
		return nil
	}
	if none {
		return nil
	}
	end := min(uint64(off)+uint64(n), (uint64(ondisk.MaxLblk)+1)<<fs.blockBits)
	if uint64(off) >= end || end > math.MaxInt64 {
		return nil
	}
	var last FiemapExtent
	more := true
	err := ip.eachRun(uint64(off)>>fs.blockBits, fs.blocksOf(int64(end)), func(r run) error {
		if r.state == runHole {
			return nil
		}
		e := FiemapExtent{Logical: int64(r.lblk) << fs.blockBits, Physical: int64(r.pblk) << fs.blockBits, Length: int64(r.n) << fs.blockBits}
		if r.state == runUnwritten {
			e.Flags = FiemapUnwritten
		}
		if !extents {
			e.Flags |= FiemapMerged
			if last.Length > 0 && last.Logical+last.Length == e.Logical && last.Physical+last.Length == e.Physical {
				last.Length += e.Length
				return nil
			}
		}
		if last.Length > 0 && !fn(last) {
			more = false
			return errStop
		}
		last = e
		return nil
	})
	if err != nil && err != errStop {
		return err
	}
	if more && last.Length > 0 {
		last.Flags |= FiemapLast
		fn(last)
	}
	return nil
}

var errStop = syscall.EINTR // never returned

// inlinePlace returns where on the device the inode's i_block lies.
func (ip *Inode) inlinePlace() int64 {
	blk, off, err := ip.fs.itable(ip.ino)
	if err != nil {
		return 0
	}
	return int64(blk)<<ip.fs.blockBits + int64(off) + 40
}
