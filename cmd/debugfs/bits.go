package main

import (
	"errors"
	"fmt"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	const maps = needFS | needMaps
	register(groupBitmaps,
		request{names: []string{"testi"}, args: "inode", help: "tell whether an inode is marked in use", needs: maps, min: 1, max: 1, run: testi},
		request{names: []string{"testb"}, args: "block [count]", help: "tell whether blocks are marked in use", needs: maps, min: 1, max: 2, run: testb},
		request{names: []string{"find_free_block", "ffb"}, args: "[count [goal]]", help: "find free blocks", needs: maps, max: 2, run: ffb},
		request{names: []string{"find_free_inode", "ffi"}, args: "[directory [mode]]", help: "find a free inode near a directory", needs: maps, max: 2, run: ffi},
	)
}

func testi(s *session, a *args) error {
	r, ino, err := s.rawInode(a.word(0))
	if err != nil {
		return err
	}
	used, err := r.InodeUsed(ino)
	switch {
	case err != nil:
		return err
	case s.json:
		return s.emit(map[string]any{"ino": ino, "used": used})
	case used:
		fmt.Fprintf(s.out, "Inode %d is marked in use\n", ino)
	default:
		fmt.Fprintf(s.out, "Inode %d is not in use\n", ino)
	}
	return nil
}

// blockRange reads a block number and a count, 1 if it is not there.
func (s *session) blockRange(a *args) (b ondisk.Fsblk, n uint64, err error) {
	if b, err = s.parseBlock(a.word(0)); err != nil {
		return 0, 0, err
	}
	if n, err = a.count(1, 1); err != nil {
		return 0, 0, err
	}
	r, err := s.useRaw()
	if err != nil {
		return 0, 0, err
	}
	if b < r.FirstBlock() || b >= r.Blocks() || n > uint64(r.Blocks()-b) {
		return 0, 0, fmt.Errorf("blocks are numbered from %d to %d", r.FirstBlock(), r.Blocks()-1)
	}
	return b, n, nil
}

func testb(s *session, a *args) error {
	b, n, err := s.blockRange(a)
	if err != nil {
		return err
	}
	list := s.list()
	for ; n > 0 && !s.interrupted(); b, n = b+1, n-1 {
		used, err := s.raw.BlockUsed(b)
		switch {
		case err != nil:
			return err
		case s.json:
			if err := list.add(map[string]any{"block": b, "used": used}); err != nil {
				return err
			}
		case used:
			fmt.Fprintf(s.out, "Block %d marked in use\n", b)
		default:
			fmt.Fprintf(s.out, "Block %d not in use\n", b)
		}
	}
	if s.json {
		list.end()
	}
	return nil
}

// errNoBlock and errNoInode say that none is free.
var (
	errNoBlock = errors.New("no free block")
	errNoInode = errors.New("no free inode")
)

func ffb(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	count, err1 := a.count(0, 1)
	goal, err2 := a.number(1, uint64(r.FirstBlock()), 64)
	if err := firstError(err1, err2); err != nil {
		return err
	}
	if !s.json {
		s.out.WriteString("Free blocks found: ")
	}
	list := s.list()
	found := uint64(0)
	err = r.FreeBlocksFrom(ondisk.Fsblk(goal), func(b ondisk.Fsblk) bool {
		if s.json {
			_ = list.add(b) // a number
		} else {
			fmt.Fprintf(s.out, "%d ", b)
		}
		found++
		return found < count && !s.interrupted()
	})
	if s.json {
		list.end()
	} else {
		s.out.WriteByte('\n')
	}
	if err == nil && found == 0 {
		err = errNoBlock
	}
	return err
}

func ffi(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	dir := s.cwd
	if a.word(0) != "" {
		if dir, err = s.number(a.word(0)); err != nil {
			return err
		}
	}
	mode, err := a.number(1, ondisk.ModeReg, 16)
	if err != nil {
		return err
	}
	ino, err := r.FindFreeInode(dir, uint16(mode))
	switch {
	case err != nil:
		return err
	case ino == 0:
		return errNoInode
	case s.json:
		return s.emit(map[string]any{"ino": ino})
	}
	fmt.Fprintf(s.out, "Free inode found: %d\n", ino)
	return nil
}
