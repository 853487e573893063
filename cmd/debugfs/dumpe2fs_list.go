package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// systemNames are the users, groups and time of this machine.
func systemNames() e2p.Names {
	return e2p.Names{
		User: func(id uint32) (string, bool) {
			u, err := user.LookupId(fmt.Sprint(id))
			if err != nil {
				return "", false
			}
			return u.Username, true
		},
		Group: func(id uint32) (string, bool) {
			g, err := user.LookupGroupId(fmt.Sprint(id))
			if err != nil {
				return "", false
			}
			return g.Name, true
		},
		Location: time.Local,
	}
}

// A dumper is a run of dumpe2fs.
type dumper struct {
	*cli.Context
	out       *bufio.Writer
	names     e2p.Names
	open      ext2fs.SurveyOptions
	blockSize uint64
	image     bool // it is an image of e2image
	mmp       bool

	device string
	v      *ext2fs.Survey
	list   e2p.GroupLister
	// damage is what is wrong with a checksum, found on the way and told at the
	// end.
	damage error
}

// warn tells of an error, after what was listed before.
func (d *dumper) warn(err error) {
	d.out.Flush() // its error stays, for the end
	d.Warn(err)
}

// run lists the device and returns the exit status.
func (d *dumper) run(device string) int {
	d.device = device
	dev, err := openDevice(device)
	if err == nil {
		defer dev.Close()
		if err = d.imageFormat(dev); err == nil {
			d.v, err = d.openSurvey(dev)
		}
	}
	if err != nil {
		d.warn(fmt.Errorf("%s: %w", device, err))
		fmt.Fprintln(d.out, "Couldn't find valid filesystem superblock.")
		status := exitStatus(err)
		if status == surveyStatus[ext2fs.ReasonNoSuper] {
			d.plausible(d.out, dev)
		}
		return status
	}
	d.list.Super = d.v.Super()
	_, d.list.OneRow = os.LookupEnv("DUMPE2FS_IGNORE_80COL")
	var status int
	switch {
	case d.mmp:
		status = d.mmpStatus()
	case d.Bool("b"):
		d.badBlocks(true)
	default:
		var stop bool
		if status, stop = d.listAll(); stop {
			return status
		}
	}
	if d.damage != nil {
		d.warn(fmt.Errorf("%s: %w", device, d.damage))
		fmt.Fprint(d.out, "*** Run e2fsck now!\n\n")
		if status == 0 {
			status = exitStatus(d.damage)
		}
	}
	return status
}

// imageFormat looks what kind of image -i is about. What e2image -r wrote is
// read as a file system, which it is but for its data.
func (d *dumper) imageFormat(dev blockdev.Device) error {
	if !d.image {
		return nil
	}
	b := make([]byte, ondisk.SuperOffset+ondisk.SuperSize)
	n, err := dev.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	raw := n == len(b) && endian.View[ondisk.Super](b[ondisk.SuperOffset:]).Magic.Get() == ondisk.SuperMagic
	if strings.HasPrefix(string(b), "QFI\xfb") {
		return &ext2fs.SurveyError{Reason: ext2fs.ReasonNoImage,
			What: "a QCOW2 image: make a raw one of it with e2image -r, and list that"}
	}
	d.open.E2Image = !raw || endian.View[endian.LE32](b).Get() == ext2fs.E2ImageMagic
	return nil
}

// listAll lists superblock, journal and groups. stop says that it ended at an
// error of the journal, which hides that of a checksum.
func (d *dumper) listAll() (status int, stop bool) {
	if d.Bool("g") {
		return d.groups(nil), false
	}
	s := d.v.Super()
	e2p.ListSuper(d.out, s, d.names) // its error stays in out
	switch {
	case s.FeatureIncompat.Get()&ondisk.IncompatJournalDev != 0:
		if err := d.journalDevice(); err != nil {
			d.warn(err)
			return statusJournal, true
		}
		return 0, false
	case s.FeatureCompat.Get()&ondisk.CompatHasJournal != 0 && s.JournalInum.Get() != 0 && !d.v.IsE2Image():
		if err := d.journalInode(); err != nil {
			d.warn(err)
			return statusJournal, true
		}
	}
	if s.FeatureIncompat.Get()&ondisk.IncompatMMP != 0 && s.MMPBlock.Get() != 0 {
		d.mmpBlock()
	}
	d.badBlocks(false)
	if headerOnly(d.Context) {
		return 0, false
	}
	d.v.IgnoreCsum(false)
	maps, err := d.readBitmaps()
	if err != nil && d.damage == nil {
		d.damage = err
		d.v.IgnoreCsum(true)
		maps, err = d.readBitmaps()
	}
	if status := d.groups(maps); status != 0 {
		return status, false
	}
	if err != nil {
		status = exitStatus(err)
		if d.damage == nil {
			d.warn(err)
		}
	}
	return status, false
}

// journalInode lists the journal that is a file.
func (d *dumper) journalInode() error {
	ino := ondisk.Ino(d.v.Super().JournalInum.Get())
	raw, err := d.v.Inode(ino)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	b := make([]byte, 1024)
	if _, err := d.v.File(ino, raw).ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("journal: %w", err)
	}
	sb := endian.View[jbd2.Superblock](b)
	if m := sb.Header.Magic.Get(); m != jbd2.Magic {
		return fmt.Errorf("journal: inode %d has none: its superblock has the magic number %#x", ino, m)
	}
	return d.journal(sb)
}

// journalDevice lists the journal that the device is.
func (d *dumper) journalDevice() error {
	b, err := d.v.ReadBlock(ondisk.Fsblk(d.v.Super().FirstDataBlock.Get()) + 1)
	if err != nil {
		return fmt.Errorf("journal superblock: %w", err)
	}
	sb := endian.View[jbd2.Superblock](b)
	if m, t := sb.Header.Magic.Get(), sb.Header.BlockType.Get(); m != jbd2.Magic || t != jbd2.SuperblockV2 {
		return fmt.Errorf("journal superblock: its magic number is %#x and its type %d: no journal of version 2", m, t)
	}
	return d.journal(sb)
}

func (d *dumper) journal(sb *jbd2.Superblock) error {
	return e2p.ListJournal(d.out, sb, d.v.BlockSize(), d.v.Super().FeatureCompat.Get()&ondisk.CompatFastCommit != 0)
}

// badBlocks lists the defective blocks: one a line, or in a line of their own.
func (d *dumper) badBlocks(lines bool) {
	list, err := d.v.BadBlocks()
	if err != nil {
		d.warn(fmt.Errorf("list of bad blocks: %w", err))
		return
	}
	sep := "Bad blocks: "
	for _, b := range list {
		if lines {
			fmt.Fprintln(d.out, b)
			continue
		}
		d.out.WriteString(sep)
		d.out.WriteString(strconv.FormatUint(uint64(b), 10))
		sep = ", "
	}
	if !lines {
		fmt.Fprintln(d.out)
	}
}

// bitmaps says that the bitmaps can be read.
type bitmaps struct{ uninit []ext2fs.ClusterRun }

// readBitmaps reads all bitmaps, which are not kept, to see whether they can be
// listed.
func (d *dumper) readBitmaps() (*bitmaps, error) {
	for g := range d.v.Groups() {
		for _, which := range []ext2fs.BitmapKind{ext2fs.BlockBitmap, ext2fs.InodeBitmap} {
			if _, err := d.v.Bitmap(ondisk.Group(g), which); err != nil {
				return nil, err
			}
		}
	}
	uninit, err := d.v.UninitRuns()
	if err != nil {
		return nil, err
	}
	return &bitmaps{uninit}, nil
}

// groups lists the groups, with what is free in them if maps is not nil.
func (d *dumper) groups(maps *bitmaps) int {
	fmt.Fprintln(d.out)
	lines := d.Bool("g")
	if lines {
		fmt.Fprintln(d.out, e2p.Heading)
	}
	s := d.v.Super()
	for n := range d.v.Groups() {
		g := ondisk.Group(n)
		desc, err := d.v.Desc(g)
		if err != nil {
			d.warn(err)
			return exitStatus(err)
		}
		at := d.v.Group(g)
		p := e2p.GroupPlace{Group: g, First: at.First, Last: at.Last, HasSuper: at.HasSuper, Super: at.Super,
			Descs: at.Descs, DescBlocks: at.DescBlocks, MetaBGDesc: at.MetaBGDesc}
		if lines {
			d.list.Line(&p, desc)
			continue
		}
		d.list.List(&p, desc, d.v.DescCsum(g, desc))
		if maps == nil {
			continue
		}
		b, err := d.v.Bitmap(g, ext2fs.BlockBitmap)
		if err == nil {
			d.v.MarkRuns(b, g, maps.uninit)
			d.list.Free("blocks", g, &e2p.Bitmap{Bits: b, Num: s.ClustersPerGroup.Get()}, uint64(s.FirstDataBlock.Get()), d.v.ClusterRatio())
			b, err = d.v.Bitmap(g, ext2fs.InodeBitmap)
		}
		if err != nil { // it could be read before
			d.warn(err)
			return exitStatus(err)
		}
		d.list.Free("inodes", g, &e2p.Bitmap{Bits: b, Num: s.InodesPerGroup.Get()}, 1, 1)
	}
	return 0
}
