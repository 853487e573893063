package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// deletedInode is an inode that lsdel found.
type deletedInode struct {
	Ino    ondisk.Ino `json:"ino"`
	Mode   uint16     `json:"mode"`
	UID    uint32     `json:"uid"`
	Size   int64      `json:"size"`
	Free   uint64     `json:"free_blocks"`
	Blocks uint64     `json:"blocks"`
	Dtime  uint32     `json:"dtime"`
}

// lsdel lists deleted inodes that name blocks, all of them in the file system,
// and some of them free, or hold their data themselves. Of others the kernel's
// ext4 has taken the mapping apart.
func lsdel(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	since := int64(0)
	if a.word(0) != "" {
		n, err := parseNumber(a.word(0), 32)
		if err != nil {
			return err
		}
		since = s.now().Unix() - int64(n)
	}
	steps := r.NewBudget()
	visit := func(r *ext2fs.Raw, each ext2fs.EachInode) (list []deletedInode) {
		each(func(ino ondisk.Ino, raw ondisk.RawInode) bool {
			if t := raw.Base().Dtime.Get(); t != 0 && int64(t) >= since {
				if d, ok := deleted(r, steps, ino, raw); ok {
					list = append(list, d)
				}
			}
			return !s.interrupted()
		})
		return list
	}
	var list []deletedInode
	err = ext2fs.ScanInodes(r, ext2fs.ScanUsed, visit, func(part []deletedInode) bool {
		list = append(list, part...)
		return !s.interrupted()
	})
	slices.SortStableFunc(list, func(a, b deletedInode) int { return cmp.Compare(a.Dtime, b.Dtime) })
	if s.json {
		return firstError(s.emit(list), err)
	}
	s.out.WriteString(" Inode  Owner  Mode    Size      Blocks   Time deleted\n")
	for _, d := range list {
		fmt.Fprintf(s.out, "%6d %6d %6o %6d %6d/%6d %s\n", d.Ino, d.UID, d.Mode, d.Size, d.Free, d.Blocks,
			time.Unix(int64(d.Dtime), 0).Format(time.ANSIC))
	}
	fmt.Fprintf(s.out, "%d deleted inodes found.\n", len(list))
	return err
}

// deleted looks at an inode with a time of deletion, and says whether to list it.
func deleted(r *ext2fs.Raw, steps *ext2fs.Budget, ino ondisk.Ino, raw ondisk.RawInode) (d deletedInode, ok bool) {
	b := raw.Base()
	inline := b.Flags.Get()&ondisk.FlagInlineData != 0
	if !r.HasBlocks(raw) && !inline {
		return d, false
	}
	d = deletedInode{Ino: ino, Mode: b.Mode.Get(), UID: raw.UID(), Size: r.Size(raw), Dtime: b.Dtime.Get()}
	ok = true
	_ = r.WalkBlocksWithin(steps, ino, raw, func(run ext2fs.RawRun) bool { // what follows is not counted
		for b := run.Pblk; b < run.Pblk+ondisk.Fsblk(run.Len); b++ {
			used, err := r.BlockUsed(b)
			if b < r.FirstBlock() || err != nil {
				ok = false
				return false
			}
			if !used {
				d.Free++
			}
			d.Blocks++
		}
		return true
	})
	return d, ok && (d.Free > 0 || inline)
}
