package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// A session is what lasts from one command to the next.
//
// An open file system has two faces, of which one at a time is in use. Commands
// that look at structures or change one of them work on an ext2fs.Raw: nothing
// is verified on the way, and what is written goes straight to its place.
// Commands that do what a mounted file system does (mkdir, write, rm, ea_set)
// are operations of an ext2fs.FS, each a transaction of the journal. Going from
// one to the other closes the first, so that the device is the only state that
// they share.
type session struct {
	prog   string
	in     io.Reader
	reader *lineReader
	stdout io.Writer
	out    *bufio.Writer
	err    io.Writer

	json     bool
	readOnly bool // nothing may be opened for writing
	failed   bool // a command failed
	quit     bool

	name string // of the open file system, "" if none is
	opts openOpts
	dev  blockdev.Device
	undo *undo
	raw  *ext2fs.Raw
	fs   *ext2fs.FS
	// counted says that no operation has made quotas out of date.
	counted bool
	mmp     *mmpClaim // nil: without protection, or not for writing
	sleep   func(time.Duration)

	root, cwd ondisk.Ino
	clock     *time.Time // set by set_current_time

	extent  *extentSession  // of extent_open
	journal *journalSession // of journal_open
	flush   func()          // shows what a pager holds back; nil if there is none
	// interrupted is asked by commands that take long, some of them by several
	// goroutines.
	interrupted func() bool
}

// openOpts are the options of opening.
type openOpts struct {
	write        bool
	force        bool // in spite of unknown features
	noCsum       bool
	catastrophic bool
	exclusive    bool
	image        bool
	direct       bool
	data         string
	blockSize    int
	super        ondisk.Fsblk
	undo         string
}

func newSession(in io.Reader, out, errs io.Writer) *session {
	return &session{prog: "debugfs", in: in, stdout: out, out: bufio.NewWriterSize(out, 64<<10), err: errs, interrupted: func() bool { return false }, sleep: time.Sleep}
}

// now returns the time that changes are stamped with.
func (s *session) now() time.Time {
	if s.clock != nil {
		return *s.clock
	}
	return time.Now()
}

// open opens the file system on the device of that name.
func (s *session) open(name string, o openOpts) error {
	bo := blockdev.Options{ReadOnly: !o.write, Exclusive: o.exclusive, Lock: o.exclusive}
	if o.direct {
		bo.Direct = blockdev.DirectOn
	} else {
		bo.Direct = blockdev.DirectOff
	}
	f, err := blockdev.Open(name, bo)
	if err != nil {
		return err
	}
	if o.undo != "" {
		if s.undo, err = openUndo(f, o.undo, o.blockSize); err != nil {
			f.Close()
			return err
		}
		return s.attach(s.undo.dev, name, o)
	}
	if o.image {
		dev, err := openImage(f, o.data)
		if err != nil {
			f.Close()
			return err
		}
		return s.attach(dev, name, o)
	}
	return s.attach(f, name, o)
}

// openImage opens the file system in an image of e2image, whose other blocks are
// read from the device called data, if that is not "".
func openImage(img blockdev.Device, data string) (dev blockdev.Device, err error) {
	if data == "" {
		return ext2fs.OpenImage(img, nil)
	}
	f, err := blockdev.Open(data, blockdev.Options{ReadOnly: true, Direct: blockdev.DirectOff})
	if err != nil {
		return nil, fmt.Errorf("data source: %w", err)
	}
	if dev, err = ext2fs.OpenImage(img, f); err != nil {
		f.Close()
	}
	return dev, err
}

// check fails for options that do not go together.
func (o *openOpts) check() error {
	switch {
	case o.undo != "" && !o.write:
		return errors.New("-z saves what -w overwrites: give -w too")
	case o.write && o.catastrophic:
		return errors.New("-c opens read-only: leave -w away")
	case o.write && o.image:
		return errors.New("-i opens read-only: leave -w away")
	case o.data != "" && !o.image:
		return errors.New("-d names where the data of an image file is: give -i too")
	case o.super != 0 && o.blockSize == 0:
		return errors.New("-s counts in blocks: give their size by -b too")
	}
	return nil
}

// attach opens the file system on dev, which is the session's from then on.
func (s *session) attach(dev blockdev.Device, name string, o openOpts) error {
	s.dev, s.opts = dev, o
	if err := s.openRaw(); err != nil {
		err = firstError(err, s.undo.finish(), dev.Close())
		s.dev, s.undo = nil, nil
		return err
	}
	if o.write && s.raw.Super().HasIncompat(ondisk.IncompatMMP) {
		mmp, err := s.claimMMP(name)
		if err != nil {
			err = firstError(err, s.raw.Close(false), s.undo.finish(), dev.Close())
			s.dev, s.undo, s.raw = nil, nil, nil
			return err
		}
		s.mmp = mmp
	}
	s.name, s.root, s.cwd, s.counted = name, ondisk.RootIno, ondisk.RootIno, true
	return nil
}

func (s *session) openRaw() error {
	o := ext2fs.RawOptions{
		Writable: s.opts.write, Super: s.opts.super, BlockSize: s.opts.blockSize, Force: s.opts.force,
		IgnoreCsum: s.opts.noCsum || s.opts.catastrophic, Now: s.now,
	}
	raw, err := ext2fs.OpenRaw(s.dev, o)
	if err != nil {
		return err
	}
	s.raw = raw
	if !s.opts.write && !o.IgnoreCsum && o.Super == 0 && raw.Super().HasIncompat(ondisk.IncompatRecover) {
		s.throughJournal(o)
	}
	return nil
}

// throughJournal has a file system that is read be seen as it will be when its
// journal is replayed, but that the superblock says that it is not. Where that
// is not possible, it is seen as it is.
func (s *session) throughJournal(o ext2fs.RawOptions) {
	fs, err := ext2fs.Open(s.dev, ext2fs.Options{ReadOnly: true, Now: s.now})
	if err == nil {
		dev := fs.Device()
		if err = fs.Close(); err == nil {
			var raw *ext2fs.Raw
			if raw, err = ext2fs.OpenRaw(dev, o); err == nil {
				*raw.Super() = *s.raw.Super()
				s.raw = raw
				return
			}
		}
	}
	s.warn(s.prog, fmt.Errorf("the journal is not looked through, what is shown may be old: %w", err))
}

// useRaw returns the file system for looking at structures and changing them.
func (s *session) useRaw() (*ext2fs.Raw, error) {
	if s.raw != nil {
		return s.raw, nil
	}
	if err := s.closeFS(); err != nil {
		return nil, err
	}
	if err := s.openRaw(); err != nil {
		return nil, fmt.Errorf("opening it again: %w", err)
	}
	return s.raw, nil
}

func (s *session) closeFS() error {
	if s.fs == nil {
		return nil
	}
	err := s.fs.Close()
	s.fs = nil
	return err
}

// useFS returns the file system for operations. It is for commands that need
// writing.
func (s *session) useFS() (*ext2fs.FS, error) {
	if s.fs != nil {
		return s.fs, nil
	}
	if s.opts.super != 0 {
		return nil, errors.New("a backup superblock is used: with it single structures can be changed, and no files")
	}
	if s.journal != nil {
		return nil, errors.New("the journal is open: close it by journal_close first")
	}
	if s.raw.Super().HasIncompat(ondisk.IncompatRecover) {
		return nil, errors.New("the journal has changes that are not made yet: run journal_run first, or e2fsck")
	}
	if err := s.raw.Close(false); err != nil {
		return nil, err
	}
	fs, err := s.openFS()
	if err != nil {
		return nil, errors.Join(err, s.openRaw()) // opening may have written
	}
	s.fs, s.raw, s.counted = fs, nil, false
	return fs, nil
}

// openFS opens the file system for operations.
func (s *session) openFS() (*ext2fs.FS, error) {
	fs, err := ext2fs.Open(s.dev, ext2fs.Options{Offline: true, Now: s.now})
	if err != nil {
		return nil, err
	}
	if ro, why := fs.ReadOnly(); ro {
		_ = fs.Close() // read-only: there is nothing to lose
		return nil, fmt.Errorf("files cannot be changed: %s: %w", why, syscall.EOPNOTSUPP)
	}
	return fs, nil
}

// countQuota counts quotas anew after operations, which do not.
func (s *session) countQuota() error {
	if s.counted {
		return nil
	}
	s.counted = true
	r, err := s.useRaw()
	if err != nil || !r.Super().HasROCompat(ondisk.ROCompatQuota) {
		return err
	}
	fs, err := s.useFS()
	if err == nil {
		err = fs.FillQuota()
	}
	if err != nil {
		return fmt.Errorf("quotas are not up to date, e2fsck counts them: %w", err)
	}
	s.counted = true
	return nil
}

// close closes the file system, if one is open; with backups, copies of the
// superblock are brought up to date.
func (s *session) close(backups bool) error {
	if s.name == "" {
		return nil
	}
	var errs []error
	if s.journal != nil {
		errs = append(errs, s.journal.close())
		s.journal = nil
	}
	s.extent = nil
	errs = append(errs, s.countQuota())
	if backups {
		if _, err := s.useRaw(); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, s.closeFS())
	if s.raw != nil {
		errs = append(errs, s.raw.Close(backups))
		s.raw = nil
	}
	errs = append(errs, s.mmp.release(), s.undo.finish(), s.dev.Close())
	s.name, s.dev, s.undo, s.mmp = "", nil, nil, nil
	return errors.Join(errs...)
}

// emit prints v as JSON.
func (s *session) emit(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = s.out.Write(append(b, '\n'))
	return err
}

// undo is an undo file that is being written.
type undo struct {
	dev  *blockdev.Undo
	file *os.File
}

func openUndo(dev blockdev.Device, path string, blockSize int) (*undo, error) {
	// An undo file that is there may be the only copy of something.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("undo file: %w", err)
	}
	if blockSize == 0 {
		blockSize = 1024
	}
	u, err := blockdev.NewUndo(dev, f, blockdev.UndoOptions{Block: 32 << 10, FSBlock: blockSize})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("undo file: %w", err)
	}
	return &undo{u, f}, nil
}

// finish completes the file. There may be none.
func (u *undo) finish() error {
	if u == nil {
		return nil
	}
	return errors.Join(u.dev.Finish(), u.file.Close())
}
