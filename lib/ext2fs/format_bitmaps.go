package ext2fs

import "github.com/e2kit/e2kit/lib/ext2fs/ondisk"

// describe fills in the descriptor of group g and hands on its bitmaps.
func (f *formatter) describe(g uint32, d ondisk.Desc, w *bitmapWriter) error {
	lo, hi := f.groupFirst(g), f.groupEnd(g)
	d.SetBlockBitmap(ondisk.Fsblk(f.blockBitmap.get(g)))
	d.SetInodeBitmap(ondisk.Fsblk(f.inodeBitmap.get(g)))
	d.SetInodeTable(ondisk.Fsblk(f.inodeTable.get(g)))
	d.SetFreeBlocks(uint32(ceilDiv(hi-lo, f.ratio) - f.space.usedClusters(lo, hi, f.ratio)))
	free := f.ipg
	used := false
	if g <= uint32(ondisk.GoodOldFirst)+2 {
		for ino := range f.inodes {
			if uint32(ino-1)/f.ipg == g {
				free--
				used = true
			}
		}
	}
	d.SetFreeInodes(free)
	d.SetUsedDirs(f.dirs[g])
	flags := uint16(0)
	if f.gdtCsum {
		unused := f.ipg
		if used || f.opts.SuperOnly {
			unused = f.unused(g)
		}
		d.SetItableUnused(unused)
		if !used && g != f.groups-1 && f.touched.free(uint64(g), 1) {
			flags |= ondisk.BGBlockUninit
		}
		if !used {
			flags |= ondisk.BGInodeUninit
		}
	}
	if !f.opts.SuperOnly && (!f.opts.LazyItable || f.zeroed) {
		flags |= ondisk.BGInodeZeroed
	}
	d.SetFlags(flags, 0)
	if !f.opts.SuperOnly {
		if flags&ondisk.BGBlockUninit == 0 {
			b, err := w.block(f.blockBitmap.get(g))
			if err != nil {
				return err
			}
			f.blockBits(b, g)
			if f.csum {
				d.SetBlockBitmapCsum(ondisk.Crc32c(f.seed, b[:f.bpg/f.ratio/8]) & d.CsumMask())
			}
		}
		if flags&ondisk.BGInodeUninit == 0 {
			b, err := w.block(f.inodeBitmap.get(g))
			if err != nil {
				return err
			}
			f.inodeBits(b, g)
			if f.csum {
				d.SetInodeBitmapCsum(ondisk.Crc32c(f.seed, b[:f.ipg/8]) & d.CsumMask())
			}
		}
	}
	d.Lo().Checksum.Set(ondisk.DescCsum(f.sb, f.seed, ondisk.Group(g), d))
	return nil
}

// blockBits makes b, zeros, the block bitmap of group g; bits beyond its blocks
// are set.
func (f *formatter) blockBits(b []byte, g uint32) {
	lo, hi := f.groupFirst(g), f.groupEnd(g)
	f.space.each(lo, hi, func(p, n uint64) {
		first := (p - lo) / f.ratio
		setRange(b, uint32(first), uint32((p+n-1-lo)/f.ratio-first+1))
	})
	if n := uint32(ceilDiv(hi-lo, f.ratio)); n < uint32(8*len(b)) {
		setRange(b, n, uint32(8*len(b))-n)
	}
}

// inodeBits is blockBits for inodes.
func (f *formatter) inodeBits(b []byte, g uint32) {
	for ino := range f.inodes {
		if uint32(ino-1)/f.ipg == g {
			setRange(b, uint32(ino-1)%f.ipg, 1)
		}
	}
	if f.ipg < uint32(8*len(b)) {
		setRange(b, f.ipg, uint32(8*len(b))-f.ipg)
	}
}

// bitmapWriter joins bitmaps that lie side by side to larger writes. Its memory
// is used again and again.
type bitmapWriter struct {
	f    *formatter
	runs [2]bitmapRun // block bitmaps and inode bitmaps alternate
	turn int
}

type bitmapRun struct {
	at   uint64 // block of the first
	bufs []byte // those that wait
	mem  []byte
}

// block returns zeros that become the content of block b. They are the caller's
// to change until it asks for the next.
func (w *bitmapWriter) block(b uint64) ([]byte, error) {
	bs := w.f.blockSize
	for i := range w.runs {
		r := &w.runs[i]
		if n := len(r.bufs); n > 0 && r.at+uint64(n/bs) == b && n < len(r.mem) {
			return r.grow(bs), nil
		}
	}
	r := &w.runs[w.turn]
	w.turn = 1 - w.turn
	if err := w.out(r); err != nil {
		return nil, err
	}
	if r.mem == nil {
		r.mem = w.f.batch()
	}
	r.at = b
	return r.grow(bs), nil
}

func (r *bitmapRun) grow(n int) []byte {
	was := len(r.bufs)
	r.bufs = r.mem[:was+n]
	clear(r.bufs[was:])
	return r.bufs[was : was+n : was+n]
}

func (w *bitmapWriter) out(r *bitmapRun) error {
	err := w.f.putRun(r.bufs, r.at)
	r.bufs = nil
	return err
}

func (w *bitmapWriter) flush() error {
	for i := range w.runs {
		if err := w.out(&w.runs[i]); err != nil {
			return err
		}
	}
	return nil
}
