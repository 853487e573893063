package ext2fs

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// groupBits says which clusters of a group cannot be allocated. It is a copy of
// the block bitmap to which are added the clusters that are reserved in memory
// and those whose freeing has not been committed; so the allocator looks at one
// thing only. Bit i of the group is bit i%64 of word i/64.
type groupBits struct {
	taken []uint64
	avail uint32 // clear bits
	busy  uint32 // set bits that the bitmap on disk does not have
	first uint32 // no clear bit is below
	run   uint32 // no run of clear bits is longer
}

// nextClear returns the first clear bit of w in [i, end), or end.
func nextClear(w []uint64, i, end uint32) uint32 {
	if i >= end {
		return end
	}
	k := i >> 6
	x := ^w[k] &^ (1<<(i&63) - 1)
	for x == 0 {
		if k++; k<<6 >= end {
			return end
		}
		x = ^w[k]
	}
	return min(k<<6+uint32(bits.TrailingZeros64(x)), end)
}

// nextSet returns the first set bit of w in [i, end), or end.
func nextSet(w []uint64, i, end uint32) uint32 {
	if i >= end {
		return end
	}
	k := i >> 6
	x := w[k] &^ (1<<(i&63) - 1)
	for x == 0 {
		if k++; k<<6 >= end {
			return end
		}
		x = w[k]
	}
	return min(k<<6+uint32(bits.TrailingZeros64(x)), end)
}

// setBits sets the n bits from i on. clearBits clears them.
func setBits(w []uint64, i, n uint32) {
	for n > 0 {
		k := min(n, 64-i&63)
		w[i>>6] |= (^uint64(0) >> (64 - k)) << (i & 63)
		i, n = i+k, n-k
	}
}

func clearBits(w []uint64, i, n uint32) {
	for n > 0 {
		k := min(n, 64-i&63)
		w[i>>6] &^= (^uint64(0) >> (64 - k)) << (i & 63)
		i, n = i+k, n-k
	}
}

// countSet returns how many of the n bits from i on are set.
func countSet(w []uint64, i, n uint32) uint32 {
	var c int
	for n > 0 {
		k := min(n, 64-i&63)
		c += bits.OnesCount64(w[i>>6] >> (i & 63) & (^uint64(0) >> (64 - k)))
		i, n = i+k, n-k
	}
	return uint32(c)
}

// The same for a bitmap on disk, whose bit i is bit i%8 of byte i/8.

func testBit(b []byte, i uint32) bool { return b[i>>3]>>(i&7)&1 != 0 }
func setBit(b []byte, i uint32)       { b[i>>3] |= 1 << (i & 7) }
func clearBit(b []byte, i uint32)     { b[i>>3] &^= 1 << (i & 7) }

// setRange sets the n bits from i on and returns how many were set before.
func setRange(b []byte, i, n uint32) (were uint32) {
	for n > 0 {
		if i&7 == 0 && n >= 64 {
			w := b[i>>3:]
			were += uint32(bits.OnesCount64(binary.LittleEndian.Uint64(w)))
			binary.LittleEndian.PutUint64(w, 1<<64-1)
			i, n = i+64, n-64
			continue
		}
		if i&7 == 0 && n >= 8 {
			were += uint32(bits.OnesCount8(b[i>>3]))
			b[i>>3] = 0xff
			i, n = i+8, n-8
			continue
		}
		if testBit(b, i) {
			were++
		}
		setBit(b, i)
		i, n = i+1, n-1
	}
	return were
}

// clearRange clears the n bits from i on and returns how many were clear.
func clearRange(b []byte, i, n uint32) (were uint32) {
	for n > 0 {
		if i&7 == 0 && n >= 8 {
			were += 8 - uint32(bits.OnesCount8(b[i>>3]))
			b[i>>3] = 0
			i, n = i+8, n-8
			continue
		}
		if !testBit(b, i) {
			were++
		}
		clearBit(b, i)
		i, n = i+1, n-1
	}
	return were
}

// countClear returns how many of the n bits from i on are clear.
func countClear(b []byte, i, n uint32) (clear uint32) {
	for n > 0 {
		if i&63 == 0 && n >= 64 {
			clear += 64 - uint32(bits.OnesCount64(binary.LittleEndian.Uint64(b[i>>3:])))
			i, n = i+64, n-64
			continue
		}
		if !testBit(b, i) {
			clear++
		}
		i, n = i+1, n-1
	}
	return clear
}

// nextClearBit returns the first clear bit of b in [i, end), or end.
func nextClearBit(b []byte, i, end uint32) uint32 {
	for i < end {
		if i&63 == 0 && end-i >= 64 {
			x := ^binary.LittleEndian.Uint64(b[i>>3:])
			if x == 0 {
				i += 64
				continue
			}
			return i + uint32(bits.TrailingZeros64(x))
		}
		if !testBit(b, i) {
			return i
		}
		i++
	}
	return end
}

// bitmapCsum returns the checksum of the bitmap in blk, of n bits.
func (fs *FS) bitmapCsum(blk ondisk.Fsblk, ops buffer.Ops, n uint32) (uint32, error) {
	b, err := fs.cache.Read(buffer.Block(blk), ops, buffer.Ctx{})
	if err != nil {
		return 0, err
	}
	defer b.Put()
	return ondisk.Crc32c(fs.csumSeed, b.Data()[:n/8]), nil
}

// verifyBitmap compares a bitmap's checksum with the descriptor's.
func (fs *FS) verifyBitmap(what string, data []byte, blk ondisk.Fsblk, n, stored uint32) error {
	if !fs.hasCsum {
		return nil
	}
	c := ondisk.Crc32c(fs.csumSeed, data[:n/8])
	if fs.descSize < ondisk.GroupDescMin64 {
		c &= 0xffff
		stored &= 0xffff
	}
	if c == stored {
		return nil
	}
	return ondisk.At(ondisk.BadCsum(what, 0, stored, c), 0, blk)
}

// loadBits fills g.bits if they are not there. mu is held. A corrupt bitmap is
// recorded, and the group left alone from then on.
func (g *group) loadBits(fs *FS) error {
	g.used = true
	if g.bits != nil {
		return nil
	}
	if g.bbBad {
		return fmt.Errorf("block bitmap of group %d: %w", g.no, ondisk.EUCLEAN)
	}
	data := make([]byte, fs.blockSize)
	if g.flags&ondisk.BGBlockUninit != 0 {
		fs.initBlockBitmap(g, data)
	} else {
		b, err := fs.cache.Read(buffer.Block(g.blockBitmap), opsBlockBitmap, buffer.Ctx{})
		if err != nil {
			return err
		}
		copy(data, b.Data())
		b.Put()
		if !g.bbStale {
			err = fs.verifyBitmap(fmt.Sprintf("block bitmap of group %d", g.no), data, g.blockBitmap, fs.clustersPerGroup, g.bbCsum)
		}
		if err == nil {
			err = fs.checkBlockBitmap(g, data)
		}
		if err != nil {
			g.bbBad = true
			return fs.corrupt(0, err)
		}
	}
	n := fs.groupClusters(g.no)
	gb := &groupBits{taken: make([]uint64, (fs.clustersPerGroup+63)/64)}
	for i := range gb.taken {
		if 8*i+8 <= len(data) {
			gb.taken[i] = binary.LittleEndian.Uint64(data[8*i:])
		}
	}
	if end := uint32(len(gb.taken)) * 64; n < end {
		setBits(gb.taken, n, end-n)
	}
	gb.avail = n - countSet(gb.taken, 0, n)
	gb.run = gb.avail
	g.bits = gb
	fs.keepBits(g)
	return nil
}

// checkBlockBitmap checks what a block bitmap says against the descriptor.
func (fs *FS) checkBlockBitmap(g *group, data []byte) error {
	what := fmt.Sprintf("block bitmap of group %d", g.no)
	n := fs.groupClusters(g.no)
	if c := countClear(data, 0, n); c != g.freeClusters && fs.opts.Offline {
		// The bitmap was edited, and nobody counted.
		fs.free.Add(int64(c) - int64(g.freeClusters))
		g.freeClusters = c
	} else if c != g.freeClusters {
		return ondisk.At(ondisk.Corrupt(what, 0, "%d free clusters, but %d in the descriptor", c, g.freeClusters), 0, g.blockBitmap)
	}
	first := fs.groupFirst(g.no)
	last := first + ondisk.Fsblk(fs.groupBlocks(g.no))
	missing := func(b ondisk.Fsblk) bool {
		return b >= first && b < last && !testBit(data, uint32(b-first)>>fs.clusterBits)
	}
	switch {
	case missing(g.blockBitmap):
		return ondisk.At(ondisk.Corrupt(what, 0, "it is free itself"), 0, g.blockBitmap)
	case missing(g.inodeBitmap):
		return ondisk.At(ondisk.Corrupt(what, 0, "the inode bitmap is free"), 0, g.blockBitmap)
	}
	for i := range fs.itableBlocks {
		if missing(g.inodeTable + ondisk.Fsblk(i)) {
			return ondisk.At(ondisk.Corrupt(what, 0, "block %d of the inode table is free", i), 0, g.blockBitmap)
		}
	}
	return nil
}

// initBlockBitmap makes the bitmap of a group of which no block was ever given
// to a file.
func (fs *FS) initBlockBitmap(g *group, data []byte) {
	clear(data)
	setRange(data, 0, (fs.groupBase(g.no)+fs.clusterRatio-1)>>fs.clusterBits)
	first := fs.groupFirst(g.no)
	last := first + ondisk.Fsblk(fs.groupBlocks(g.no))
	mark := func(b ondisk.Fsblk) {
		if b >= first && b < last {
			setBit(data, uint32(b-first)>>fs.clusterBits)
		}
	}
	mark(g.blockBitmap)
	mark(g.inodeBitmap)
	for i := range fs.itableBlocks {
		mark(g.inodeTable + ondisk.Fsblk(i))
	}
	n := fs.groupClusters(g.no)
	setRange(data, n, uint32(len(data))*8-n)
}

// writeBlockBitmap returns g's block bitmap, pinned and part of h's
// transaction. mu is held. A bitmap that was never written is made.
func (g *group) writeBlockBitmap(fs *FS, h *jbd2.Handle) (*buffer.Buf, error) {
	if g.flags&ondisk.BGBlockUninit != 0 {
		b, err := fs.cache.New(buffer.Block(g.blockBitmap), opsBlockBitmap, buffer.Ctx{})
		if err != nil {
			return nil, err
		}
		if err = h.GetCreate(b); err == nil {
			err = g.touch(fs, h)
		}
		if err != nil {
			b.Put()
			return nil, err
		}
		fs.initBlockBitmap(g, b.Data())
		h.Dirty(b)
		g.flags &^= ondisk.BGBlockUninit
		n := countClear(b.Data(), 0, fs.groupClusters(g.no))
		fs.free.Add(int64(n) - int64(g.freeClusters))
		g.freeClusters = n
		g.bbStale = true
		return b, nil
	}
	b, err := fs.cache.Read(buffer.Block(g.blockBitmap), opsBlockBitmap, buffer.Ctx{})
	if err != nil {
		return nil, err
	}
	if err = h.GetWrite(b); err == nil {
		err = g.touch(fs, h)
	}
	if err != nil {
		b.Put()
		return nil, err
	}
	h.Dirty(b)
	g.bbStale = true
	return b, nil
}

// keepBits adds g, whose bits were just loaded, to those in memory, and gives
// up others if they are too many. g.mu is held; other groups are only tried.
func (fs *FS) keepBits(g *group) {
	t := &fs.group
	t.mu.Lock()
	defer t.mu.Unlock()
	for tries := 2 * len(t.clock); len(t.clock) >= t.limit && tries > 0; tries-- {
		t.hand = (t.hand + 1) % len(t.clock)
		o := t.clock[t.hand]
		if !o.mu.TryLock() {
			continue
		}
		if o.used || o.bits.busy > 0 {
			o.used = false
			o.mu.Unlock()
			continue
		}
		o.bits = nil
		o.mu.Unlock()
		t.clock[t.hand] = t.clock[len(t.clock)-1]
		t.clock = t.clock[:len(t.clock)-1]
	}
	t.clock = append(t.clock, g)
}
