package ext2fs

import (
	"slices"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// ClusterRun is a run of bits of the block bitmaps, counted from the first bit of
// group 0.
type ClusterRun struct{ Start, End uint64 } // End is the bit after it

// maxUninitRuns bounds the memory for them: a file system of 1 PiB that no one
// tampered with has fewer.
const maxUninitRuns = 2 << 20

// UninitRuns returns what is in use, in any group, by the metadata of groups
// whose block bitmap is not initialised: those bitmaps are empty, and with
// flex_bg such metadata lies in other groups. The runs are sorted and do not
// touch. It fails if there are more than a sound file system has.
func (v *Survey) UninitRuns() ([]ClusterRun, error) {
	var out []ClusterRun
	add := func(blk, n uint64) {
		// What reaches beyond the file system is not marked at all.
		if n == 0 || blk < v.first || blk >= v.blocks || n > v.blocks-blk {
			return
		}
		base := v.first >> v.clusterBits
		run := ClusterRun{blk>>v.clusterBits - base, (blk+n-1)>>v.clusterBits - base + 1}
		if k := len(out) - 1; k >= 0 && out[k].Start <= run.Start && run.Start <= out[k].End {
			out[k].End = max(out[k].End, run.End)
			return
		}
		out = append(out, run)
	}
	sorted := 0 // runs that are
	for g := uint64(0); g < v.groups; g++ {
		d, err := v.Desc(ondisk.Group(g))
		if err != nil {
			return nil, err
		}
		if !d.HasFlag(ondisk.BGBlockUninit) {
			continue
		}
		p := v.Group(ondisk.Group(g))
		if p.HasSuper {
			add(uint64(p.Super), 1)
		}
		if g == 0 && v.blockSize == 1024 && v.clusterBits > 0 {
			add(0, 1)
		}
		if b := uint64(p.Descs); b != 0 {
			n := p.DescBlocks
			if !v.has(ondisk.IncompatMetaBG) {
				n += uint64(v.super.ReservedGDTBlocks.Get())
			}
			if b < v.blocks {
				add(b, min(n, v.blocks-b))
			}
		}
		if p.MetaBGDesc != 0 {
			add(uint64(p.MetaBGDesc), 1)
		}
		if t := uint64(d.InodeTable()); t != 0 {
			add(t, uint64(v.itable))
		}
		for _, b := range []ondisk.Fsblk{d.BlockBitmap(), d.InodeBitmap()} {
			if b != 0 {
				add(uint64(b), 1)
			}
		}
		// Neighbours come from different groups: join them before there are
		// twice as many.
		if len(out) >= max(2*sorted, 4096) {
			out = joinClusterRuns(out)
			sorted = len(out)
			if sorted > maxUninitRuns {
				return nil, surveyErr(ReasonSuper, "groups whose block bitmap is not initialised have metadata in over %d places", maxUninitRuns)
			}
		}
	}
	return joinClusterRuns(out), nil
}

// joinClusterRuns sorts runs and joins those that touch.
func joinClusterRuns(runs []ClusterRun) []ClusterRun {
	slices.SortFunc(runs, func(a, b ClusterRun) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		}
		return 0
	})
	out := runs[:0]
	for _, x := range runs {
		if k := len(out) - 1; k >= 0 && x.Start <= out[k].End {
			out[k].End = max(out[k].End, x.End)
			continue
		}
		out = append(out, x)
	}
	return out
}

// MarkRuns sets the bits of runs, as UninitRuns returns them, in bitmap, that
// of the blocks of group g.
func (v *Survey) MarkRuns(bitmap []byte, g ondisk.Group, runs []ClusterRun) {
	n := uint64(v.super.ClustersPerGroup.Get())
	lo := uint64(g) * n
	hi := lo + min(n, uint64(len(bitmap))*8)
	i, _ := slices.BinarySearchFunc(runs, lo, func(x ClusterRun, lo uint64) int {
		if x.End <= lo {
			return -1
		}
		return 1
	})
	for ; i < len(runs) && runs[i].Start < hi; i++ {
		a, b := max(runs[i].Start, lo), min(runs[i].End, hi)
		setRange(bitmap, uint32(a-lo), uint32(b-a))
	}
}
