package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// The names of this program that list a file system.
const (
	dumpName = "dumpe2fs"
	mmpName  = "e2mmpstatus" // as dumpe2fs -m
)

const dumpVersion = "dumpe2fs 1.47 (e2kit)"

func init() {
	tools[dumpName] = dumpe2fs
	tools[mmpName] = e2mmpstatus
}

func dumpe2fs(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return dumpCommand(dumpName).Main(args, stdin, stdout, stderr)
}

func e2mmpstatus(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return dumpCommand(mmpName).Main(args, stdin, stdout, stderr)
}

func dumpCommand(name string) *cli.Command {
	flag := func(name, usage string) ucli.Flag { return &ucli.BoolFlag{Name: name, Usage: usage} }
	return &cli.Command{
		Name: name, Usage: "list what superblock, groups and journal of a file system say", Args: "device",
		UsageStatus: statusUsage, NoHelp: true,
		Flags: []ucli.Flag{
			flag("b", "only the blocks that are known to be defective"),
			flag("f", "in spite of features that are not known"),
			flag("g", "only where the groups are, for programs to read"),
			newToggle("h", "only the superblock"),
			flag("i", "the device is an image that e2image wrote; with -m: the block that it looks at"),
			flag("m", "whether the file system is in use, by multiple mount protection"),
			&ucli.StringSliceFlag{Name: "o", Usage: "`superblock=NUMBER`, blocksize=BYTES: use that superblock"},
			flag("x", "numbers of blocks in hexadecimal"),
			flag("V", "show the version"),
			newToggle("help", "show this"),
		},
		Action: func(c *cli.Context) error { return dumpAction(c, name) },
	}
}

const dumpHelp = `Usage: %s [options] device

Lists what the superblock, the groups and the journal of an ext2, ext3 or ext4
file system say, as they lie on DEVICE: a block device, an image, LABEL=NAME or
UUID=UUID. IMAGE?offset=BYTES is a file system that starts there.

  -h             only the superblock, with journal and bad blocks
  -g             only where groups are, in lines for programs
  -b             only the bad blocks, a line each
  -x             numbers of blocks and inodes in hexadecimal
  -o superblock=NUMBER[,blocksize=BYTES]
                 by that copy of the superblock
  -f             in spite of features that are not known
  -i             DEVICE is an image by e2image, with metadata only, or raw
  -m             only whether it is in use, by multiple mount protection
  -m -i          only what the block of that protection says
  -V, --help     version, this

Exit status: 0 listed, or with -m not in use; 1 wrong command line, no journal
where one should be, or in use; 2 cannot be told (-m); else the number of the
error as libext2fs has it: 19 no superblock, 36 too short a device, 60 corrupt,
67 unknown features, 152 wrong checksum, and others, or an errno. What has a
wrong checksum is listed all the same.
`

// toggle is the value of -h and --help, which urfave/cli would act on by itself
// if they were bools.
type toggle bool

func (t *toggle) Set(string) error { *t = true; return nil }
func (t *toggle) String() string   { return "" }
func (t *toggle) IsBoolFlag() bool { return true }

// toggleFlag is a flag without a value.
type toggleFlag struct{ *ucli.GenericFlag }

func newToggle(name, usage string) ucli.Flag {
	return toggleFlag{&ucli.GenericFlag{Name: name, Usage: usage, Value: new(toggle)}}
}

func (toggleFlag) TakesValue() bool { return false }

func toggled(c *cli.Context, name string) bool { return bool(*c.Generic(name).(*toggle)) }

func headerOnly(c *cli.Context) bool { return toggled(c, "h") }

func dumpAction(c *cli.Context, name string) error {
	if toggled(c, "help") {
		fmt.Fprintf(c.Stdout, dumpHelp, name)
		return nil
	}
	if c.Bool("V") {
		fmt.Fprintln(c.Stderr, dumpVersion)
		return nil
	}
	d := &dumper{Context: c, out: bufio.NewWriterSize(c.Stdout, 64<<10), names: systemNames()}
	d.list.Out, d.list.Hex = d.out, c.Bool("x")
	d.mmp = c.Bool("m") || name == mmpName
	d.image = c.Bool("i") && !d.mmp
	d.open = ext2fs.SurveyOptions{Force: c.Bool("f"), SuperOnly: headerOnly(c) || d.mmp}
	for _, o := range c.StringSlice("o") {
		if err := d.extended(o); err != nil {
			return err
		}
	}
	args := c.Operands()
	if len(args) != 1 {
		return cli.Usagef("one device, please")
	}
	status := d.run(args[0])
	if err := d.out.Flush(); err != nil {
		return err
	}
	if status != 0 {
		return &cli.Exit{Status: status}
	}
	return nil
}

// extended reads the value of -o.
func (d *dumper) extended(list string) error {
	for _, o := range strings.Split(list, ",") {
		key, value, ok := strings.Cut(o, "=")
		var to *uint64
		switch key {
		case "":
			continue
		case "superblock", "sb":
			to = &d.open.SbBlock
		case "blocksize", "bs":
			to = &d.blockSize
		default:
			return cli.Usagef("-o %s: there are superblock=NUMBER and blocksize=BYTES", key)
		}
		n, err := parseNumber(value, 47)
		if !ok || err != nil {
			return cli.Usagef("-o %s takes a number", key)
		}
		*to = n
	}
	d.open.BlockSize = int(min(d.blockSize, 1<<30))
	return nil
}

// openSurvey opens the file system: with a backup superblock and no block size,
// by every size. Where a checksum stands in the way it is opened in spite of
// it, and the error kept for the end.
func (d *dumper) openSurvey(dev blockdev.Device) (*ext2fs.Survey, error) {
	v, err := d.tryOpen(dev, d.open)
	if err == nil {
		return v, nil
	}
	d.damage = err
	o := d.open
	o.IgnoreCsum = true
	return d.tryOpen(dev, o)
}

func (d *dumper) tryOpen(dev blockdev.Device, o ext2fs.SurveyOptions) (v *ext2fs.Survey, err error) {
	if o.SbBlock == 0 || o.BlockSize != 0 {
		return ext2fs.OpenSurvey(dev, o)
	}
	// The last size is none, but that by which C fails, and so exits, at last.
	for o.BlockSize = ondisk.MinBlockSize; o.BlockSize <= 2*ondisk.MaxBlockSize; o.BlockSize *= 2 {
		if v, err = ext2fs.OpenSurvey(dev, o); err == nil {
			break
		}
	}
	return v, err
}
