package main

import (
	"fmt"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	const maps = needFS | needWrite | needMaps
	register(groupBitmaps,
		request{names: []string{"seti"}, args: "inode [count]", help: "mark inodes in use", needs: maps, min: 1, max: 2,
			run: func(s *session, a *args) error { return markInodes(s, a, true) }},
		request{names: []string{"freei"}, args: "inode [count]", help: "mark inodes free", needs: maps, min: 1, max: 2,
			run: func(s *session, a *args) error { return markInodes(s, a, false) }},
		request{names: []string{"setb"}, args: "block [count]", help: "mark blocks in use", needs: maps, min: 1, max: 2,
			run: func(s *session, a *args) error { return markBlocks(s, a, true) }},
		request{names: []string{"freeb"}, args: "block [count]", help: "mark blocks free", needs: maps, min: 1, max: 2,
			run: func(s *session, a *args) error { return markBlocks(s, a, false) }},
	)
}

var useWord = map[bool]string{true: "in use", false: "free"}

// markInodes changes the bitmap and no count, as ever: what counts is for
// set_bg and ssv.
func markInodes(s *session, a *args, used bool) error {
	r, ino, err := s.rawInode(a.word(0))
	if err != nil {
		return err
	}
	n, err := a.count(1, 1)
	if err != nil {
		return err
	}
	if n > uint64(r.Inodes()-ino)+1 {
		return fmt.Errorf("inodes are numbered from 1 to %d", r.Inodes())
	}
	for i := range ondisk.Ino(n) {
		was, err := r.InodeUsed(ino + i)
		if err != nil {
			return err
		}
		if was == used {
			s.warn(a.name, fmt.Errorf("inode %d is %s already", ino+i, useWord[used]))
			continue
		}
		if err := r.MarkInode(ino+i, used); err != nil {
			return err
		}
	}
	return nil
}

func markBlocks(s *session, a *args, used bool) error {
	b, n, err := s.blockRange(a)
	if err != nil {
		return err
	}
	for i := ondisk.Fsblk(0); i < ondisk.Fsblk(n); i++ {
		was, err := s.raw.BlockUsed(b + i)
		if err != nil {
			return err
		}
		if was == used {
			s.warn(a.name, fmt.Errorf("block %d is %s already", b+i, useWord[used]))
		}
	}
	return s.raw.MarkBlocks(b, n, used)
}
