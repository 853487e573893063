package ext2fs

import (
	"fmt"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// ScanWhat says which inodes ScanInodes visits.
type ScanWhat int

const (
	ScanUsed ScanWhat = iota // those of the part of each table that was ever used
	ScanAll                  // all
)

// scanChunk is how many bytes of an inode table are read at a time.
const scanChunk = 1 << 20

// ScanInodes calls fn with the inodes in order of their number, whether or not
// they are in use, until it returns false. raw is valid, and may be changed,
// during the call. Where a table cannot be read the rest of its group is left
// out; the first such error is returned at the end.
func (r *Raw) ScanInodes(what ScanWhat, fn func(ino ondisk.Ino, raw ondisk.RawInode) bool) error {
	geo := r.geo
	per := max(scanChunk/geo.blockSize, 1) // blocks
	buf := make([]byte, per*geo.blockSize)
	var bad error
	for g := range geo.groups {
		n, table, err := r.tableOf(g, what)
		for done := uint32(0); done < n && err == nil; {
			blocks := min(per, int((n-done+geo.inodesPerBlock-1)/geo.inodesPerBlock))
			at := table + ondisk.Fsblk(done/geo.inodesPerBlock)
			if err = r.ReadBlocks(buf[:blocks*geo.blockSize], at); err != nil {
				break
			}
			for i := uint32(0); i < uint32(blocks)*geo.inodesPerBlock && done < n; i, done = i+1, done+1 {
				off := int(i) * geo.inodeSize
				ino := ondisk.Ino(uint32(g)*geo.inodesPerGroup + done + 1)
				if !fn(ino, ondisk.RawInode(buf[off:off+geo.inodeSize:off+geo.inodeSize])) {
					return bad
				}
			}
		}
		if err != nil && bad == nil {
			bad = fmt.Errorf("inode table of group %d: %w", g, err)
		}
	}
	return bad
}

// tableOf returns how many inodes of group g there are to visit, and where the
// table starts.
func (r *Raw) tableOf(g ondisk.Group, what ScanWhat) (n uint32, table ondisk.Fsblk, err error) {
	b, off, err := r.descIn(g)
	if err != nil {
		return 0, 0, err
	}
	d := ondisk.Desc(b[off : off+r.geo.descSize])
	n = r.geo.inodesPerGroup
	if what == ScanUsed && r.hasUninit() {
		if d.HasFlag(ondisk.BGInodeUninit) {
			n = 0
		} else {
			n -= min(d.ItableUnused(), n)
		}
	}
	return n, d.InodeTable(), nil
}
