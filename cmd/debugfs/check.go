package main

import (
	"fmt"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupInodes,
		request{names: []string{"ncheck"}, args: "[-c] inode...", help: "list the names of inodes; -c: check the file types in the entries",
			needs: needFS, min: 1, max: -1, opts: options("c"), run: ncheck},
		request{names: []string{"list_deleted_inodes", "lsdel"}, args: "[seconds]",
			help: "list deleted inodes whose blocks are known; those that were deleted within the last seconds", needs: needFS | needMaps, max: 1, run: lsdel},
	)
	register(groupBlocks,
		request{names: []string{"icheck"}, args: "block...", help: "list the inodes that use blocks", needs: needFS, min: 1, max: -1, run: icheck},
	)
}

// nameJSON is a name of an inode as JSON has it.
type nameJSON struct {
	Ino  ondisk.Ino `json:"ino"`
	Path string     `json:"path"`
	Bad  string     `json:"bad,omitempty"`
}

// ncheck finds the names of inodes in a pass over all directories.
func ncheck(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	wanted := map[ondisk.Ino]bool{}
	left := uint64(0) // names that the link counts promise
	for _, w := range a.words {
		ino, err := s.number(w)
		if err != nil {
			return err
		}
		raw, err := r.Inode(ino)
		if err != nil {
			return err
		}
		if !wanted[ino] {
			wanted[ino] = true
			if raw.Base().Mode.Get()&ondisk.ModeFmt == ondisk.ModeDir {
				left++
			} else {
				left += uint64(raw.Base().LinksCount.Get())
			}
		}
	}
	list := s.list()
	if !s.json {
		s.out.WriteString("Inode\tPathname\n")
	}
	paths := newPaths(r)
	err = r.ScanInodes(ext2fs.ScanUsed, func(ino ondisk.Ino, raw ondisk.RawInode) bool {
		b := raw.Base()
		if b.Mode.Get()&ondisk.ModeFmt != ondisk.ModeDir || b.LinksCount.Get() == 0 || b.Dtime.Get() != 0 {
			return !s.interrupted()
		}
		_ = r.DirentsOf(ino, raw, 0, func(e *ext2fs.RawDirent) bool { // damaged blocks have no names
			if !wanted[e.Ino] || isDots(e.Name) {
				return true
			}
			bad := ""
			if a.has("c") {
				bad = checkType(r, e)
			}
			dir := paths.of(ino)
			if s.json {
				_ = list.add(nameJSON{e.Ino, joinPath(dir, string(e.Name)), bad}) // strings: it cannot fail
			} else {
				fmt.Fprintf(s.out, "%d\t%s/%s%s\n", e.Ino, cli.Clean(dir), cli.Clean(string(e.Name)), bad)
			}
			left--
			return left > 0
		})
		return left > 0 && !s.interrupted()
	})
	if s.json {
		list.end()
	}
	return err
}

func isDots(name []byte) bool { return string(name) == "." || string(name) == ".." }

// checkType says what is wrong with the file type of an entry, "" if nothing.
func checkType(r *ext2fs.Raw, e *ext2fs.RawDirent) string {
	mode, err := r.Mode(e.Ino)
	if err != nil || !r.Super().HasIncompat(ondisk.IncompatFiletype) {
		return ""
	}
	if t := ondisk.FileType(mode); t != e.FileType {
		return fmt.Sprintf("  <--- BUG: file type %d, should be %d", e.FileType, t)
	}
	return ""
}

// icheck finds the inodes of blocks in a pass over all inodes.
func icheck(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	var order []ondisk.Fsblk
	owner := map[ondisk.Fsblk]ondisk.Ino{}
	for _, w := range a.words {
		b, err := s.parseBlock(w)
		if err != nil {
			return err
		}
		order = append(order, b)
		owner[b] = 0
	}
	left := len(owner)
	err = s.findOwners(r, owner, &left)
	list := s.list()
	if !s.json {
		s.out.WriteString("Block\tInode number\n")
	}
	for _, b := range order {
		switch ino := owner[b]; {
		case s.json:
			if err := list.add(map[string]any{"block": b, "ino": ino}); err != nil {
				return err
			}
		case ino != 0:
			fmt.Fprintf(s.out, "%d\t%d\n", b, ino)
		default:
			fmt.Fprintf(s.out, "%d\t<block not found>\n", b)
		}
	}
	if s.json {
		list.end()
	}
	return err
}

// findOwners stores the first inode that uses each block of owner, until none
// is left.
func (s *session) findOwners(r *ext2fs.Raw, owner map[ondisk.Fsblk]ondisk.Ino, left *int) error {
	lo, hi := ^ondisk.Fsblk(0), ondisk.Fsblk(0)
	for b := range owner {
		lo, hi = min(lo, b), max(hi, b)
	}
	take := func(ino ondisk.Ino, b ondisk.Fsblk) {
		if o, ok := owner[b]; ok && o == 0 {
			owner[b] = ino
			*left--
		}
	}
	steps := r.NewBudget()
	return r.ScanInodes(ext2fs.ScanUsed, func(ino ondisk.Ino, raw ondisk.RawInode) bool {
		b := raw.Base()
		if b.LinksCount.Get() == 0 {
			return !s.interrupted()
		}
		if acl := raw.FileACL(); acl != 0 {
			take(ino, acl)
		}
		if b.Dtime.Get() == 0 && *left > 0 {
			_ = r.WalkBlocksWithin(steps, ino, raw, func(run ext2fs.RawRun) bool { // what is not a mapping has no blocks
				end := run.Pblk + ondisk.Fsblk(run.Len)
				if end <= lo || run.Pblk > hi {
					return true
				}
				if uint64(run.Len) > uint64(len(owner)) {
					for b := range owner {
						if b >= run.Pblk && b < end {
							take(ino, b)
						}
					}
					return *left > 0
				}
				for b := run.Pblk; b < end; b++ {
					take(ino, b)
				}
				return *left > 0
			})
		}
		return *left > 0 && !s.interrupted()
	})
}
