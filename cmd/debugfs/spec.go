package main

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// parseNumber reads a number as strtoul does with base 0: decimal, 0x for
// hexadecimal, 0 for octal. It must fit bits.
func parseNumber(w string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(w, 0, 64)
	if err != nil || strings.ContainsAny(w, "_bBoO") && !strings.HasPrefix(w, "0x") && !strings.HasPrefix(w, "0X") || strings.Contains(w, "_") {
		if errors.Is(err, strconv.ErrRange) {
			return 0, fmt.Errorf("number %s is too large", w)
		}
		return 0, fmt.Errorf("%q is not a number", w)
	}
	if bits < 64 && n>>bits != 0 {
		return 0, fmt.Errorf("number %s is too large", w)
	}
	return n, nil
}

// parseBlock reads a block number of the file system.
func (s *session) parseBlock(w string) (ondisk.Fsblk, error) {
	n, err := parseNumber(w, 64)
	if err != nil {
		return 0, fmt.Errorf("block number: %w", err)
	}
	return ondisk.Fsblk(n), nil
}

// parseCount reads a count, which is not 0.
func parseCount(w string) (uint64, error) {
	n, err := parseNumber(w, 64)
	if err == nil && n == 0 {
		err = errors.New("the count is 0")
	}
	return n, err
}

// count returns the count that operand i is, def if there is none.
func (a *args) count(i int, def uint64) (uint64, error) {
	if a.word(i) == "" {
		return def, nil
	}
	return parseCount(a.word(i))
}

// number returns the number that operand i is, def if there is none.
func (a *args) number(i int, def uint64, bits int) (uint64, error) {
	if a.word(i) == "" {
		return def, nil
	}
	return parseNumber(a.word(i), bits)
}

// names is what a path is looked up in.
type names interface {
	Lookup(dir ondisk.Ino, name string) (ondisk.Ino, error)
	Readlink(ino ondisk.Ino) (string, error)
	Mode(ino ondisk.Ino) (uint16, error)
}

// fsNames are the names of a file system that is open for operations.
type fsNames struct{ fs *ext2fs.FS }

func (n fsNames) with(ino ondisk.Ino, f func(ip *ext2fs.Inode) error) error {
	ip, err := n.fs.Iget(ino)
	if err != nil {
		return err
	}
	defer ip.Put()
	return f(ip)
}

func (n fsNames) Lookup(dir ondisk.Ino, name string) (ino ondisk.Ino, err error) {
	err = n.with(dir, func(dp *ext2fs.Inode) error {
		ip, err := n.fs.Lookup(dp, name)
		if err == nil {
			ino = ip.Ino()
			ip.Put()
		}
		return err
	})
	return ino, err
}

func (n fsNames) Readlink(ino ondisk.Ino) (target string, err error) {
	err = n.with(ino, func(ip *ext2fs.Inode) (err error) { target, err = ip.Readlink(); return err })
	return target, err
}

func (n fsNames) Mode(ino ondisk.Ino) (mode uint16, err error) {
	err = n.with(ino, func(ip *ext2fs.Inode) error {
		var a ext2fs.Attr
		ip.Attr(&a)
		mode = a.Mode
		return nil
	})
	return mode, err
}

// names returns the names of the face of the file system that is in use.
func (s *session) names() names {
	if s.fs != nil {
		return fsNames{s.fs}
	}
	return s.raw
}

// inodes returns how many inodes there are.
func (s *session) inodes() ondisk.Ino {
	if s.raw != nil {
		return s.raw.Inodes()
	}
	var n uint32
	s.fs.Super(func(sb *ondisk.Super) { n = sb.InodesCount.Get() })
	return ondisk.Ino(n)
}

// maxLinks is how many symbolic links a path may lead through.
const maxLinks = 40

// lookup returns the inode of a path. Symbolic links on the way are followed;
// the last component is, if follow says so.
func (s *session) lookup(p string, follow bool) (ondisk.Ino, error) {
	links := 0
	ino, err := s.walk(s.cwd, p, follow, &links)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", p, err)
	}
	return ino, nil
}

func (s *session) walk(dir ondisk.Ino, p string, follow bool, links *int) (ondisk.Ino, error) {
	if p == "" {
		return 0, syscall.ENOENT
	}
	n := s.names()
	if p[0] == '/' {
		dir = s.root
	}
	parts := strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
	for i, part := range parts {
		if part == ".." && dir == s.root {
			continue
		}
		ino, err := n.Lookup(dir, part)
		if err != nil {
			return 0, err
		}
		if i < len(parts)-1 || follow {
			mode, err := n.Mode(ino)
			if err != nil {
				return 0, err
			}
			if mode&ondisk.ModeFmt == ondisk.ModeLnk {
				if *links++; *links > maxLinks {
					return 0, syscall.ELOOP
				}
				target, err := n.Readlink(ino)
				if err != nil {
					return 0, err
				}
				if ino, err = s.walk(dir, target, true, links); err != nil {
					return 0, err
				}
			}
		}
		dir = ino
	}
	return dir, nil
}

// inode returns the inode that w stands for: <number>, or a path.
func (s *session) inode(w string) (ondisk.Ino, error) {
	if strings.HasPrefix(w, "<") && strings.HasSuffix(w, ">") {
		n, err := parseNumber(w[1:len(w)-1], 32)
		if err == nil {
			if n == 0 || n > uint64(s.inodes()) {
				return 0, fmt.Errorf("%s: inodes are numbered from 1 to %d", w, s.inodes())
			}
			return ondisk.Ino(n), nil
		}
	}
	return s.lookup(w, false)
}

// rawInode returns the inode that w stands for, and the file system for looking at
// it and changing it.
func (s *session) rawInode(w string) (*ext2fs.Raw, ondisk.Ino, error) {
	r, err := s.useRaw()
	if err != nil {
		return nil, 0, err
	}
	ino, err := s.inode(w)
	return r, ino, err
}

// load is rawInode that reads the inode too.
func (s *session) load(w string) (*ext2fs.Raw, ondisk.Ino, ondisk.RawInode, error) {
	r, ino, err := s.rawInode(w)
	if err != nil {
		return nil, 0, nil, err
	}
	raw, err := r.Inode(ino)
	return r, ino, raw, err
}

// number returns the inode that w stands for, where a plain number is one too.
func (s *session) number(w string) (ondisk.Ino, error) {
	if n, err := parseNumber(w, 32); err == nil && n > 0 && n <= uint64(s.inodes()) {
		return ondisk.Ino(n), nil
	}
	return s.inode(w)
}

// parent splits a path into the directory that its last component lies in, and
// that component.
func (s *session) parent(p string) (ondisk.Ino, string, error) {
	dir, name := path.Split(strings.TrimRight(p, "/"))
	if name == "" {
		return 0, "", fmt.Errorf("%s: no name in it", p)
	}
	if dir == "" {
		return s.cwd, name, nil
	}
	ino, err := s.lookup(dir, true)
	return ino, name, err
}
