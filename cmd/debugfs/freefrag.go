package main

import (
	"fmt"
	"math/bits"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupBitmaps, request{names: []string{"freefrag", "e2freefrag"}, args: "[-c kb]",
		help: "show how fragmented the free space is; -c: and how many chunks of that size are free", needs: needFS | needMaps, opts: options("c:"), run: freefrag})
}

// freeSpace is how the free space is fragmented.
type freeSpace struct {
	blocks, free         uint64
	extents              uint64
	largest, smallest    uint64
	histExtents, histLen [64]uint64 // by log2 of the length in blocks
	chunk                uint64     // blocks, 0 if none was asked for
	chunks, freeChunks   uint64
}

func freefrag(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	bs := uint64(r.BlockSize())
	f := freeSpace{blocks: uint64(r.Blocks()), smallest: ^uint64(0)}
	if v, ok := a.value("c"); ok {
		kb, err := parseCount(v)
		switch {
		case err != nil:
			return err
		case kb&(kb-1) != 0 || kb > 1<<40 || kb*1024 < bs:
			return fmt.Errorf("chunks of %d KiB: give a power of two, at least a block", kb)
		}
		f.chunk = kb * 1024 / bs
		f.chunks = (f.blocks + f.chunk) / f.chunk // one too many where all are whole, as ever
	}
	var start, n uint64
	flush := func() {
		if n == 0 {
			return
		}
		f.add(start, n)
		n = 0
	}
	err = r.FreeBlocksFrom(0, func(b ondisk.Fsblk) bool {
		// A run of free space ends with its group, as for e2freefrag.
		if n == 0 || uint64(b) != start+n {
			flush()
			start = uint64(b)
		}
		n++
		return !s.interrupted()
	})
	flush()
	if err != nil {
		return err
	}
	if f.extents == 0 {
		f.smallest = 0
	}
	if s.json {
		return s.emit(f.json(bs))
	}
	s.showFree(&f, bs)
	return nil
}

func (f *freeSpace) add(start, n uint64) {
	f.free += n
	f.extents++
	f.largest, f.smallest = max(f.largest, n), min(f.smallest, n)
	i := bits.Len64(n) - 1
	f.histExtents[i]++
	f.histLen[i] += n
	if f.chunk > 0 {
		first, end := (start+f.chunk-1)/f.chunk, (start+n)/f.chunk
		if end > first {
			f.freeChunks += end - first
		}
	}
}

func (f *freeSpace) json(bs uint64) any {
	type bucket struct {
		Least   uint64 `json:"least_blocks"`
		Extents uint64 `json:"extents"`
		Blocks  uint64 `json:"blocks"`
	}
	var hist []bucket
	for i := range f.histLen {
		if f.histExtents[i] > 0 {
			hist = append(hist, bucket{1 << i, f.histExtents[i], f.histLen[i]})
		}
	}
	return map[string]any{"block_size": bs, "blocks": f.blocks, "free_blocks": f.free, "extents": f.extents, "largest": f.largest,
		"smallest": f.smallest, "histogram": hist, "chunks": f.chunks, "free_chunks": f.freeChunks}
}

func (s *session) showFree(f *freeSpace, bs uint64) {
	w := s.out
	percent := func(n, of uint64) float64 {
		if of == 0 {
			return 0
		}
		return float64(n) * 100 / float64(of)
	}
	kb := func(n uint64) uint64 { return n * bs / 1024 }
	fmt.Fprintf(w, "Device: %s\nBlocksize: %d bytes\nTotal blocks: %d\nFree blocks: %d (%.1f%%)\n", cli.Clean(s.name), bs, f.blocks, f.free, percent(f.free, f.blocks))
	if f.chunk > 0 {
		fmt.Fprintf(w, "\nChunksize: %d bytes (%d blocks)\nTotal chunks: %d\nFree chunks: %d (%.1f%%)\n", f.chunk*bs, f.chunk, f.chunks, f.freeChunks, percent(f.freeChunks, f.chunks))
	}
	avg := uint64(0)
	if f.extents > 0 {
		avg = kb(f.free / f.extents)
	}
	fmt.Fprintf(w, "\nMin. free extent: %d KB \nMax. free extent: %d KB\nAvg. free extent: %d KB\n", kb(f.smallest), kb(f.largest), avg)
	fmt.Fprintf(w, "Num. free extent: %d\n", f.extents)
	fmt.Fprintf(w, "\nHISTOGRAM OF FREE EXTENT SIZES:\n%s :  %12s  %12s  %7s\n", "Extent Size Range", "Free extents", "Free Blocks", "Percent")
	for i := range f.histLen {
		if f.histExtents[i] == 0 {
			continue
		}
		lo := kb(1<<i) * 1024
		shift, unit := scale(lo)
		fmt.Fprintf(w, "%5d%c...%5d%c-  :  %12d  %12d  %6.2f%%\n", lo>>shift, unit, 2*lo>>shift, unit, f.histExtents[i], f.histLen[i], percent(f.histLen[i], f.free))
	}
}

// scale returns the largest unit of which n bytes are one or more.
func scale(n uint64) (shift uint, unit byte) {
	i := 0
	for n>>shift >= 1024 && i < len("BKMGTPE")-1 {
		shift += 10
		i++
	}
	return shift, "BKMGTPE"[i]
}
