package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupJournal, request{
		names: []string{"logdump"}, args: "[-acOsS] [-n transactions] [-b block] [-i file] [-f journal] [output]",
		help: "show what is in the journal", max: 1, opts: options("ab:ci:f:OsSn:"), run: logdump,
	})
}

// A logDumper is a run of logdump.
type logDumper struct {
	out  *bufio.Writer
	json bool
	list *jsonList   // of JSON
	raw  *ext2fs.Raw // the open file system; nil if none is

	all      bool // -a: every block of the log, not only what is asked for
	contents bool // -c: as hexadecimal numbers
	old      bool // -O: past the end of the log, what is left from before
	super    bool // -S: the superblock first
	headers  bool // each block of the log's own: not with -b and -i
	limit    int64

	// What -b and -i ask for, with what is looked at for it.
	block, bitmap *ondisk.Fsblk
	ino           ondisk.Ino
	inoBlock      *ondisk.Fsblk
	inoOffset     int

	source
	interrupted func() bool
}

// source is where the journal is read from.
type source struct {
	io.ReaderAt
	size int64
	what string
}

func logdump(s *session, a *args) error {
	d := &logDumper{
		out: s.out, json: s.json, all: a.has("a"), contents: a.has("c"), old: a.has("O"), super: a.has("S"),
		headers: !a.has("b") && !a.has("i"), limit: -1, interrupted: s.interrupted,
	}
	if s.name != "" {
		r, err := s.useRaw()
		if err != nil {
			return err
		}
		d.raw = r
	}
	if v, ok := a.value("n"); ok {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return usagef("-n %s: not a number", v)
		}
		d.limit = n
	}
	if err := d.target(s, a); err != nil {
		return err
	}
	if name := a.word(0); name != "" {
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		d.out = bufio.NewWriter(f)
		err = d.show(a)
		return errors.Join(err, d.out.Flush(), f.Close())
	}
	return d.show(a)
}

// show finds the journal and shows it, with what it is asked for.
func (d *logDumper) show(a *args) error {
	if d.json {
		d.list = &jsonList{out: d.out}
		defer d.list.end()
	}
	return d.run(a)
}

// logEvent is what a line of the listing is about, as JSON has it.
type logEvent map[string]any

// tell shows something: as JSON, or as text. What has no event is for people.
func (d *logDumper) tell(e logEvent, format string, v ...any) {
	switch {
	case !d.json:
		fmt.Fprintf(d.out, format, v...)
	case e != nil:
		_ = d.list.add(e) // numbers and strings
	}
}

// target finds what -b and -i ask for.
func (d *logDumper) target(s *session, a *args) error {
	_, block := a.value("b")
	spec, inode := a.value("i")
	if (block || inode) && d.raw == nil {
		return errors.New("no file system is open")
	}
	if inode {
		ino, err := s.inode(spec)
		if err != nil {
			return err
		}
		blk, off, err := d.raw.InodeAt(ino)
		if err != nil {
			return err
		}
		d.ino, d.inoBlock, d.inoOffset = ino, &blk, off
		if !d.json {
			fmt.Fprintf(s.out, "Inode %d is at group %d, block %d, offset %d\n", ino, d.raw.GroupOfInode(ino), blk, off)
		}
	}
	if block {
		v, _ := a.value("b")
		blk, err := s.parseBlock(v)
		if err != nil {
			return err
		}
		d.block = &blk
		sb := d.raw.Super()
		first := ondisk.Fsblk(sb.FirstDataBlock.Get())
		g := (blk - first) / ondisk.Fsblk(sb.BlocksPerGroup.Get())
		if blk < first || g >= ondisk.Fsblk(d.raw.Groups()) {
			return fmt.Errorf("block %d: there are %d", blk, d.raw.Blocks())
		}
		desc, err := d.raw.Desc(ondisk.Group(g))
		if err != nil {
			return err
		}
		m := desc.BlockBitmap()
		d.bitmap = &m
	}
	return nil
}

// run finds the journal and shows it.
func (d *logDumper) run(a *args) error {
	if name, ok := a.value("f"); ok {
		return d.file(name)
	}
	if d.raw == nil {
		return errors.New("no file system is open")
	}
	sb := d.raw.Super()
	ino := ondisk.Ino(sb.JournalInum.Get())
	if ino == 0 {
		return d.external()
	}
	raw, err := d.journalInode(ino, a.has("s"))
	if err != nil {
		return err
	}
	f, err := d.raw.FileOf(ino, raw)
	if err != nil {
		return err
	}
	d.source = source{f, f.Size(), fmt.Sprintf("inode %d", ino)}
	return d.journal()
}

// journalInode returns the inode of the journal, or what the superblock has of
// it.
func (d *logDumper) journalInode(ino ondisk.Ino, backup bool) (ondisk.RawInode, error) {
	if !backup {
		raw, err := d.raw.Inode(ino)
		if err == nil {
			err = d.raw.VerifyInode(ino, raw)
		}
		return raw, err
	}
	sb := d.raw.Super()
	if t := sb.JnlBackupType[0]; t != 1 {
		return nil, errors.New("the superblock has no copy of the journal's inode")
	}
	raw := make(ondisk.RawInode, ondisk.GoodOldInodeSz)
	b := raw.Base()
	for i := range 15 {
		copy(b.Block[4*i:], sb.JnlBlocks[i][:])
	}
	b.SizeHi, b.SizeLo = sb.JnlBlocks[15], sb.JnlBlocks[16]
	b.Mode.Set(ondisk.ModeReg | 0o600)
	b.LinksCount.Set(1)
	if endian.View[ondisk.ExtentHeader](b.Block[:]).Magic.Get() == ondisk.ExtentMagic {
		b.Flags.Set(ondisk.FlagExtents) // the copy has no flags
	}
	return raw, nil
}

// file shows the journal in a file or device.
func (d *logDumper) file(name string) error {
	dev, err := blockdev.Open(name, blockdev.Options{ReadOnly: true, Direct: blockdev.DirectOff})
	if err != nil {
		return err
	}
	defer dev.Close()
	d.source = source{dev, dev.Size(), name}
	return d.journal()
}

// external shows the journal that is on a device of its own.
func (d *logDumper) external() error {
	sb := d.raw.Super()
	if sb.JournalUUID == [16]byte{} {
		return errors.New("the file system has no journal")
	}
	uuid := e2p.UUIDString(sb.JournalUUID)
	path := findDevice("UUID", uuid)
	if path == "" {
		return fmt.Errorf("no block device has the journal, of UUID %s: name its file by -f", uuid)
	}
	d.tell(nil, "Using external journal found at %s\n", path)
	return d.file(path)
}
