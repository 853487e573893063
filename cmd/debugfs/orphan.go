package main

import (
	"errors"
	"fmt"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupInodes, request{names: []string{"orphan_inodes", "orphan"}, help: "list the inodes that are to be freed or cut off when the file system is next used",
		needs: needFS, run: orphanInodes})
}

// orphanJSON is an orphan as JSON has it.
type orphanJSON struct {
	Ino   ondisk.Ino `json:"ino"`
	Links uint16     `json:"links_count"`
	Size  int64      `json:"size"`
	File  bool       `json:"orphan_file"` // it is in the orphan file, not in the list
}

// orphanInodes shows the list that starts in the superblock, and the orphan file.
func orphanInodes(s *session, _ *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	list := s.list()
	if s.json {
		defer list.end()
	}
	text := func(format string, v ...any) {
		if !s.json {
			fmt.Fprintf(s.out, format, v...)
		}
	}
	// show returns the inode after this one, in the list.
	show := func(ino ondisk.Ino, file bool) (ondisk.Ino, error) {
		raw, err := r.Inode(ino)
		if err != nil {
			return 0, err
		}
		b := raw.Base()
		text("ino %-6d  links_count %-3d  size %-11d\n", ino, b.LinksCount.Get(), uint64(raw.Size(true)))
		if s.json {
			err = list.add(orphanJSON{ino, b.LinksCount.Get(), r.Size(raw), file})
		}
		return ondisk.Ino(b.Dtime.Get()), err
	}
	sb := r.Super()
	ino := ondisk.Ino(sb.LastOrphan.Get())
	if ino == 0 {
		text("Orphan inode list empty\n")
	} else {
		text("Orphan inode list:\n")
	}
	for seen := map[ondisk.Ino]bool{}; ino != 0 && !s.interrupted(); {
		if seen[ino] {
			err = fmt.Errorf("the list leads back to inode %d", ino)
			break
		}
		seen[ino] = true
		if ino, err = show(ino, false); err != nil {
			break
		}
	}
	if !sb.HasCompat(ondisk.CompatOrphanFile) {
		return err
	}
	text("Dumping orphan file inode %d:\n", sb.OrphanFileInum.Get())
	return firstError(err, s.orphanFile(r, ondisk.Ino(sb.OrphanFileInum.Get()), show))
}

func (s *session) orphanFile(r *ext2fs.Raw, ino ondisk.Ino, show func(ino ondisk.Ino, file bool) (ondisk.Ino, error)) error {
	raw, err := r.Inode(ino)
	if err != nil {
		return err
	}
	var bad error
	budget := uint64(r.Blocks())
	err = r.WalkBlocks(ino, raw, func(run ext2fs.RawRun) bool {
		for i := range run.Len {
			if run.Level > 0 || s.interrupted() {
				break
			}
			if budget--; budget == 0 {
				bad = errors.New("the orphan file has more blocks than the file system")
				return false
			}
			b, err := r.Block(run.Pblk + ondisk.Fsblk(i))
			if err != nil {
				bad = firstError(bad, err)
				break
			}
			for _, x := range endian.Views[endian.LE32](b, (len(b)-ondisk.OrphanTailSize)/4) {
				if ino := ondisk.Ino(x.Get()); ino != 0 {
					if _, err := show(ino, true); err != nil {
						bad = firstError(bad, err)
						break
					}
				}
			}
		}
		return !s.interrupted()
	})
	return firstError(bad, err)
}
