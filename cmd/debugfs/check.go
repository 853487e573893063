package main

import (
	"fmt"
	"slices"

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
	type name struct {
		dir, ino ondisk.Ino
		ftype    uint8
		name     string
	}
	most := left // of a part of the inodes that are looked at
	visit := func(r *ext2fs.Raw, each ext2fs.EachInode) (found []name) {
		each(func(ino ondisk.Ino, raw ondisk.RawInode) bool {
			b := raw.Base()
			if b.Mode.Get()&ondisk.ModeFmt != ondisk.ModeDir || b.LinksCount.Get() == 0 || b.Dtime.Get() != 0 {
				return true
			}
			_ = r.DirentsOf(ino, raw, ext2fs.DirUnverified, func(e *ext2fs.RawDirent) bool { // damaged blocks have no names
				if wanted[e.Ino] && !isDots(e.Name) {
					found = append(found, name{ino, e.Ino, e.FileType, string(e.Name)})
				}
				return uint64(len(found)) < most
			})
			return uint64(len(found)) < most && !s.interrupted()
		})
		return found
	}
	paths := newPaths(r)
	err = ext2fs.ScanInodes(r, ext2fs.ScanUsed, visit, func(found []name) bool {
		for _, n := range found {
			bad := ""
			if a.has("c") {
				bad = checkType(r, n.ino, n.ftype)
			}
			dir := paths.of(n.dir)
			if s.json {
				_ = list.add(nameJSON{n.ino, joinPath(dir, n.name), bad}) // strings: it cannot fail
			} else {
				fmt.Fprintf(s.out, "%d\t%s/%s%s\n", n.ino, cli.Clean(dir), cli.Clean(n.name), bad)
			}
			if left--; left == 0 {
				return false
			}
		}
		return !s.interrupted()
	})
	if s.json {
		list.end()
	}
	return err
}

func isDots(name []byte) bool { return string(name) == "." || string(name) == ".." }

// checkType says what is wrong with the file type of an entry, "" if nothing.
func checkType(r *ext2fs.Raw, ino ondisk.Ino, ftype uint8) string {
	mode, err := r.Mode(ino)
	if err != nil || !r.Super().HasIncompat(ondisk.IncompatFiletype) {
		return ""
	}
	if t := ondisk.FileType(mode); t != ftype {
		return fmt.Sprintf("  <--- BUG: file type %d, should be %d", ftype, t)
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
	for _, w := range a.words {
		b, err := s.parseBlock(w)
		if err != nil {
			return err
		}
		order = append(order, b)
	}
	owner, err := s.findOwners(r, order)
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

// findOwners returns the first inode that uses each block, if one does.
func (s *session) findOwners(r *ext2fs.Raw, blocks []ondisk.Fsblk) (map[ondisk.Fsblk]ondisk.Ino, error) {
	blocks = slices.Clone(blocks)
	slices.Sort(blocks)
	blocks = slices.Compact(blocks)
	type owned struct {
		b   ondisk.Fsblk
		ino ondisk.Ino
	}
	steps := r.NewBudget()
	visit := func(r *ext2fs.Raw, each ext2fs.EachInode) (found []owned) {
		var ino ondisk.Ino
		seen := make(map[ondisk.Fsblk]bool)
		take := func(from, to ondisk.Fsblk) { // of ino, without the end
			i, _ := slices.BinarySearch(blocks, from)
			for ; i < len(blocks) && blocks[i] < to; i++ {
				if b := blocks[i]; !seen[b] {
					seen[b] = true
					found = append(found, owned{b, ino})
				}
			}
		}
		run := func(run ext2fs.RawRun) bool {
			take(run.Pblk, run.Pblk+ondisk.Fsblk(run.Len))
			return true
		}
		each(func(i ondisk.Ino, raw ondisk.RawInode) bool {
			ino = i
			b := raw.Base()
			if b.LinksCount.Get() == 0 {
				return true
			}
			if acl := raw.FileACL(); acl != 0 {
				take(acl, acl+1)
			}
			if b.Dtime.Get() == 0 {
				_ = r.WalkBlocksWithin(steps, ino, raw, run) // what is not a mapping has no blocks
			}
			return !s.interrupted()
		})
		return found
	}
	owner := map[ondisk.Fsblk]ondisk.Ino{}
	err := ext2fs.ScanInodes(r, ext2fs.ScanUsed, visit, func(found []owned) bool {
		for _, o := range found {
			if owner[o.b] == 0 {
				owner[o.b] = o.ino
			}
		}
		return len(owner) < len(blocks) && !s.interrupted()
	})
	return owner, err
}
