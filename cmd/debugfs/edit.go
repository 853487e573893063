package main

import (
	"errors"
	"fmt"
	"path"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	const write = needFS | needWrite
	register(groupInodes,
		request{names: []string{"clri"}, args: "file", help: "fill an inode with zeros", needs: write, min: 1, max: 1, run: clri},
		request{names: []string{"copy_inode"}, args: "source destination", help: "copy an inode over another", needs: write, min: 2, max: 2, run: copyInode},
		request{names: []string{"kill_file"}, args: "file", help: "free an inode and its blocks, whoever names it", needs: write | needMaps, min: 1, max: 1, run: killFile},
		request{names: []string{"undelete", "undel"}, args: "inode [name]", help: "bring a deleted inode back whose blocks are free, and name it",
			needs: write | needMaps, min: 1, max: 2, run: undel},
	)
	register(groupBlocks,
		request{names: []string{"zap_block", "zap"}, args: "[-f file] [-o offset] [-l length] [-p pattern] block | [-f file] -b bit block",
			help: "fill a block, or a part of it, or flip a bit", needs: write, min: 1, max: 1, opts: options("f:o:l:p:b:"), run: zapBlock},
	)
	register(groupFS,
		request{names: []string{"dirty_filesys", "dirty"}, args: "[-clean]", help: "mark the file system as not clean, or as clean", needs: write, max: 1, run: dirty},
		request{names: []string{"init_filesys"}, args: "device blocks", help: "make a bare ext2 on a device, and open it (destroys data)", needs: noFS, min: 2, max: 2, run: initFilesys},
	)
}

func clri(s *session, a *args) error {
	r, ino, raw, err := s.load(a.word(0))
	if err != nil {
		return err
	}
	clear(raw)
	// Zeros have no checksum: they are what a table starts as.
	return r.WriteInode(ino, raw, false)
}

func copyInode(s *session, a *args) error {
	r, _, raw, err := s.load(a.word(0))
	if err != nil {
		return err
	}
	to, err := s.inode(a.word(1))
	if err != nil {
		return err
	}
	return r.WriteInode(to, raw, true)
}

func killFile(s *session, a *args) error {
	r, ino, err := s.rawInode(a.word(0))
	if err != nil {
		return err
	}
	return r.ReleaseFile(ino)
}

func undel(s *session, a *args) error {
	r, ino, raw, err := s.load(a.word(0))
	if err != nil {
		return err
	}
	if err := r.UndeleteFile(ino); err != nil {
		return err
	}
	if a.word(1) == "" {
		return nil
	}
	return s.addEntry(a.word(1), ino, ondisk.FileType(raw.Base().Mode.Get()))
}

func dirty(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	st := &r.Super().State
	switch a.word(0) {
	case "-clean":
		st.Set(st.Get() | ondisk.StateValid)
	case "":
		st.Set(st.Get() &^ ondisk.StateValid)
	default:
		return usagef("-clean is all there is")
	}
	return r.WriteSuper()
}

func zapBlock(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	b, err := s.parseBlock(a.word(0))
	if err != nil {
		return err
	}
	number := func(opt string, def uint64, bits int) (n uint64) {
		n = def
		if v, ok := a.value(opt); ok && err == nil {
			n, err = parseNumber(v, bits)
		}
		return n
	}
	off := number("o", 0, 32)
	n := number("l", 0, 32)
	pattern := number("p", 0, 8)
	bit := number("b", 0, 32)
	bs := uint64(r.BlockSize())
	switch {
	case err != nil:
		return err
	case a.has("b") && (a.has("o") || a.has("l") || a.has("p")):
		return usagef("-b goes with none of -o, -l and -p")
	case !a.has("l"):
		n = bs - min(off, bs)
	}
	if off+n > bs || bit >= bs*8 {
		return fmt.Errorf("a block has %d bytes", bs)
	}
	if f, ok := a.value("f"); ok {
		if b, err = s.blockOf(f, uint64(b)); err != nil {
			return err
		}
	}
	data := make([]byte, bs)
	if err := r.ReadBlocks(data, b); err != nil {
		return err
	}
	if a.has("b") {
		data[bit/8] ^= 1 << (bit % 8)
	} else {
		for i := range data[off : off+n] {
			data[off+uint64(i)] = byte(pattern)
		}
	}
	return r.WriteBlock(b, data)
}

// initFilesys makes an ext2 that can be used, of blocks of 1 KiB.
func initFilesys(s *session, a *args) error {
	if s.readOnly {
		return fmt.Errorf("%s does not write", s.prog)
	}
	n, err := parseCount(a.word(1))
	if err != nil {
		return err
	}
	dev, err := blockdev.Open(a.word(0), blockdev.Options{Exclusive: true, Direct: blockdev.DirectOff})
	if err != nil {
		return err
	}
	o := ext2fs.FormatOptions{
		Blocks: n, BlockSize: 1024, InodeSize: 128, MaxMntCount: -1, Time: s.now().Unix(),
		UUID: ext2fs.RandomUUID(), HashSeed: ext2fs.RandomUUID(), HashVersion: ondisk.HashHalfMD4,
		Incompat: ondisk.IncompatFiletype, ROCompat: ondisk.ROCompatSparseSuper,
	}
	_, err = ext2fs.Format(dev, o)
	if err = firstError(err, dev.Close()); err != nil {
		return err
	}
	return s.open(a.word(0), openOpts{write: true})
}

// with calls f with inode ino, for operations.
func (s *session) with(ino ondisk.Ino, f func(fs *ext2fs.FS, ip *ext2fs.Inode) error) error {
	fs, err := s.useFS()
	if err != nil {
		return err
	}
	ip, err := fs.Iget(ino)
	if err != nil {
		return fmt.Errorf("inode %d: %w", ino, err)
	}
	defer ip.Put()
	return f(fs, ip)
}

// inDir calls f with the directory of a path, for operations, and its last
// component.
func (s *session) inDir(p string, f func(fs *ext2fs.FS, dp *ext2fs.Inode, name string) error) error {
	dir, name, err := s.parent(p)
	if err != nil {
		return err
	}
	return s.with(dir, func(fs *ext2fs.FS, dp *ext2fs.Inode) error { return f(fs, dp, name) })
}

// addEntry names ino by a path, or in a directory by its number.
func (s *session) addEntry(p string, ino ondisk.Ino, ftype uint8) error {
	if _, err := s.directory(p); err == nil { // it gets a name there
		p = path.Join(p, fmt.Sprintf("#%d", ino))
	}
	return s.inDir(p, func(fs *ext2fs.FS, dp *ext2fs.Inode, name string) error { return fs.AddEntry(dp, name, ino, ftype) })
}

// ask asks a question and returns the answer, a line.
func (s *session) ask(question string) (string, error) {
	fmt.Fprintf(s.out, "%s", question)
	s.out.Flush()
	if s.flush != nil {
		s.flush()
	}
	line, err := s.lines().readLine()
	if err != nil {
		return "", errors.New("no answer")
	}
	return line, nil
}
