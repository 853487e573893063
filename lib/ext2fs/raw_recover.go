package ext2fs

import (
	"encoding/binary"
	"fmt"
	"slices"
	"syscall"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// OldInode is an inode as an old transaction of the journal has it.
type OldInode struct {
	Ino ondisk.Ino
	Raw ondisk.RawInode // valid during the call
	Tid jbd2.Tid
}

// maxTables bounds how many inode tables OldInodes knows.
const maxTables = 1 << 20

// OldInodes calls fn with the inodes that are in blocks of the log of j, which
// is r's journal: in the order of the log's blocks, whatever transactions they
// belong to, those included that were checkpointed long ago and not overwritten
// yet. Inodes that are all zero are left out. fn returning false ends it.
func (r *Raw) OldInodes(j *jbd2.Journal, fn func(o OldInode) bool) error {
	type table struct {
		first ondisk.Fsblk
		g     ondisk.Group
	}
	var tables []table
	for g := range min(r.geo.groups, maxTables) {
		d, err := r.Desc(g)
		if err != nil {
			return err
		}
		tables = append(tables, table{d.InodeTable(), g})
	}
	slices.SortFunc(tables, func(a, b table) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	info := j.Info()
	block, data := make([]byte, r.geo.blockSize), make([]byte, r.geo.blockSize)
	for at := info.First; at < info.Last; at++ {
		if err := j.ReadBlock(at, block); err != nil {
			return err
		}
		h := endian.View[jbd2.Header](block)
		if h.Magic.Get() != jbd2.Magic || h.BlockType.Get() != jbd2.DescriptorBlock {
			continue
		}
		tid := jbd2.Tid(h.Sequence.Get())
		next := at
		for tag := range j.Tags(block) {
			if next++; next >= info.Last {
				next = info.First
			}
			i, _ := slices.BinarySearchFunc(tables, ondisk.Fsblk(tag.Block)+1, func(t table, b ondisk.Fsblk) int {
				if t.first < b {
					return -1
				}
				return 1
			})
			if i == 0 || uint64(tag.Block)-uint64(tables[i-1].first) >= uint64(r.geo.itableBlocks) {
				continue
			}
			t := tables[i-1]
			if err := j.ReadBlock(next, data); err != nil {
				return err
			}
			if tag.Flags&jbd2.TagEscape != 0 {
				binary.BigEndian.PutUint32(data, jbd2.Magic)
			}
			first := uint32(t.g)*r.geo.inodesPerGroup + uint32(ondisk.Fsblk(tag.Block)-t.first)*r.geo.inodesPerBlock + 1
			for k := range r.geo.inodesPerBlock {
				off := int(k) * r.geo.inodeSize
				raw := ondisk.RawInode(data[off : off+r.geo.inodeSize : off+r.geo.inodeSize])
				if allZero(raw) || first+k > r.geo.inodes {
					continue
				}
				if !fn(OldInode{ondisk.Ino(first + k), raw, tid}) {
					return nil
				}
			}
		}
	}
	return nil
}

// Recoverable says whether the content that raw, an old copy of an inode, maps
// is likely still there: none of its blocks is in use. It fails with EBUSY,
// naming the first one that is, or with ENODATA if it maps nothing.
func (r *Raw) Recoverable(ino ondisk.Ino, raw ondisk.RawInode) error {
	if raw.Base().Flags.Get()&ondisk.FlagInlineData != 0 || r.IsFastLink(raw) {
		return nil
	}
	n := uint64(0)
	var bad error
	err := r.WalkBlocks(ino, raw, func(run RawRun) bool {
		for b := run.Pblk; b < run.Pblk+ondisk.Fsblk(run.Len) && bad == nil; b++ {
			used, err := r.BlockUsed(b)
			if err == nil && used {
				err = fmt.Errorf("block %d is in use again: %w", b, syscall.EBUSY)
			}
			bad = err
			n++
		}
		return bad == nil
	})
	if bad == nil && n == 0 && err == nil {
		err = fmt.Errorf("the copy maps no blocks: %w", ondisk.ENODATA)
	}
	return firstErr(bad, err)
}
