package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// request is what the command line asks for; zero and "" leave a choice open.
type request struct {
	device, selector string // the partition, after #
	size             string
	fsType, usage    string
	blockSize        int64 // negative: at least that
	clusterSize      int64
	badBlocks        int // 1: read, 2: write
	badList          string
	filling
	direct            bool
	errors            uint16
	extended          []string
	force             int
	perGroup, flex    int64
	ratio             int64
	inodeSize, inodes int64
	journal           bool
	journalOpts       journalOptions
	noDiscard         bool
	label             *string
	lastMounted       string
	reserved          float64 // -1: not given
	noAction          bool
	creator           string
	features          *string
	quiet, verbose    bool
	showVersion       bool
	revision          int // -1: not given
	superOnly         bool
	uuid              string
	undo              *string
}

// parse reads the command line.
func parse(c *cli.Context, name string) (*request, error) {
	r := &request{fsType: nameType(name), reserved: -1, revision: -1}
	for i, f := range c.Found {
		// Which one is meant cannot be known.
		if n := f.Opt.Names[0]; (n == "t" || n == "T") && slices.ContainsFunc(c.Found[:i], func(g cli.Found) bool { return g.Opt.Names[0] == n }) {
			return nil, cli.Usagef("-%s may be given once only", n)
		}
		if err := r.set(c, f.Opt.Names[0], f.Value); err != nil {
			return nil, err
		}
	}
	args := c.Operands()
	switch {
	case r.showVersion:
		return r, nil
	case len(args) == 0:
		return nil, cli.Usagef("a device is needed (--help says more)")
	case len(args) > 2:
		return nil, cli.Usagef("%q is one argument too many", args[2])
	case len(args) == 2 && r.size != "":
		return nil, cli.Usagef("--size %s and the size %s: give one", r.size, args[1])
	case len(args) == 2:
		r.size = args[1]
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	r.device = args[0]
	// A file of that very name comes before a partition.
	if _, err := os.Stat(r.device); err != nil {
		if path, sel, ok := strings.Cut(r.device, "#"); ok && path != "" {
			r.device, r.selector = path, sel
		}
	}
	return r, nil
}

// check refuses what contradicts itself.
func (r *request) check() error {
	if err := r.filling.check(r.size, r.uuid); err != nil {
		return err
	}
	switch {
	case r.fills() && r.superOnly:
		return cli.Usagef("-S repairs what is there; it cannot be filled")
	case r.auto && (r.badBlocks > 0 || r.badList != ""):
		return cli.Usagef("bad blocks, -c and -l, are not taken into account by a size that is found: give the size")
	}
	return nil
}

func (r *request) set(c *cli.Context, name, v string) (err error) {
	switch name {
	case "b":
		digits, atLeast := strings.CutPrefix(v, "-")
		r.blockSize, err = inBytes("block size", digits, ondisk.MinBlockSize, ondisk.MaxBlockSize)
		if err == nil && r.blockSize&(r.blockSize-1) != 0 {
			err = cli.Usagef("block size %d is not a power of two", r.blockSize)
		}
		if atLeast {
			r.blockSize = -r.blockSize
		}
	case "c":
		r.badBlocks++
	case "C":
		r.clusterSize, err = inBytes("cluster size", v, 2048, 256<<20)
		if err == nil && r.clusterSize&(r.clusterSize-1) != 0 {
			err = cli.Usagef("cluster size %d is not a power of two", r.clusterSize)
		}
	case "D":
		r.direct = true
	case "e":
		r.errors, err = parseErrors(v)
	case "E", "R":
		if name == "R" {
			c.Warn(fmt.Errorf("-R is an old name: use -E"))
		}
		r.extended = append(r.extended, v)
	case "F":
		r.force++
	case "g":
		if r.perGroup, err = orNone("blocks per group", v, 256, 8*ondisk.MaxBlockSize); err == nil && r.perGroup&7 != 0 {
			err = cli.Usagef("%d blocks per group are not a multiple of 8", r.perGroup)
		}
	case "G":
		if r.flex, err = number("groups per flex group", v, 1, 1<<31); err == nil && r.flex&(r.flex-1) != 0 {
			err = cli.Usagef("%d groups per flex group are not a power of two", r.flex)
		}
	case "i":
		r.ratio, err = inBytes("bytes per inode", v, 1024, ondisk.MaxBlockSize*1024)
	case "I":
		r.inodeSize, err = orNone("inode size", v, ondisk.GoodOldInodeSz, ondisk.MaxBlockSize)
	case "j":
		r.journal = true
	case "J":
		r.journal = true
		err = r.journalOpts.parse(v)
	case "K":
		c.Warn(fmt.Errorf("-K is an old name: use -E nodiscard"))
		r.noDiscard = true
	case "l":
		r.badList = v
	case "L":
		if len(v) > 16 {
			c.Warn(fmt.Errorf("label %q is cut to its first 16 bytes", v))
			v = v[:16]
		}
		r.label = &v
	case "m":
		r.reserved, err = strconv.ParseFloat(v, 64)
		if err != nil || !(r.reserved >= 0 && r.reserved <= 50) {
			err = cli.Usagef("-m %s: reserved blocks are 0 to 50 percent", v)
		}
	case "M":
		r.lastMounted = v[:min(len(v), 64)]
	case "n":
		r.noAction = true
	case "N":
		r.inodes, err = orNone("number of inodes", v, 1, math.MaxUint32)
	case "o":
		r.creator = v
	case "O":
		if r.features != nil {
			v = *r.features + "," + v
		}
		r.features = &v
	case "q":
		r.quiet = true
	case "r":
		var n int64
		n, err = number("revision", v, 0, 1)
		r.revision = int(n)
	case "s":
		c.Warn(fmt.Errorf("-s is an old name: use -O"))
		list := "sparse_super"
		if n, err := strconv.Atoi(v); err != nil || n == 0 {
			list = "^sparse_super"
		}
		return r.set(c, "O", list)
	case "S":
		r.superOnly = true
	case "t":
		if v == "" {
			return cli.Usagef("-t needs a type")
		}
		r.fsType = v
	case "T":
		r.usage = v
	case "U":
		r.uuid = v
	case "v":
		r.verbose = true
	case "V":
		r.showVersion = true
	case "z":
		r.undo = &v
	case "size":
		if r.auto = v == "auto"; !r.auto {
			r.size = v
		}
	default:
		_, err = r.filling.set(name, v)
	}
	return err
}

func number(what, v string, least, most int64) (int64, error) {
	n, err := strconv.ParseInt(v, 0, 64)
	if err != nil || strings.Contains(v, "_") {
		if errors.Is(err, strconv.ErrRange) {
			return 0, cli.Usagef("%s %s is too large", what, v)
		}
		return 0, cli.Usagef("%s %q is not a number", what, v)
	}
	if n < least || n > most {
		return 0, cli.Usagef("%s %d is not from %d to %d", what, n, least, most)
	}
	return n, nil
}

// orNone is number, or 0, which is as if the option were not given.
func orNone(what, v string, least, most int64) (int64, error) {
	if n, err := strconv.ParseInt(v, 0, 64); err == nil && n == 0 {
		return 0, nil
	}
	return number(what, v, least, most)
}

// inBytes is number of what may have a unit behind it: 4k.
func inBytes(what, v string, least, most int64) (int64, error) {
	n, err := cli.ParseSize(v, 1)
	if err != nil {
		return number(what, v, least, most)
	}
	return number(what, strconv.FormatInt(n, 10), least, most)
}

func parseErrors(v string) (uint16, error) {
	switch v {
	case "continue":
		return ondisk.ErrorsContinue, nil
	case "remount-ro":
		return ondisk.ErrorsRO, nil
	case "panic":
		return ondisk.ErrorsPanic, nil
	}
	return 0, cli.Usagef("behaviour on errors is continue, remount-ro or panic, not %q", v)
}

// creatorOS reads the name or number of an operating system.
func creatorOS(v string) (uint32, error) {
	for i, n := range []string{"Linux", "GNU/Hurd", "Masix", "FreeBSD", "Lites"} {
		if strings.EqualFold(v, n) || n == "GNU/Hurd" && strings.EqualFold(v, "Hurd") {
			return uint32(i), nil
		}
	}
	if n, err := strconv.ParseUint(v, 0, 32); err == nil {
		return uint32(n), nil
	}
	return 0, cli.Usagef("unknown operating system %q: Linux, Hurd, Masix, FreeBSD, Lites or a number", v)
}

// journalOptions are those of -J.
type journalOptions struct {
	sizeMiB  int64
	fcKiB    int64
	location string
	device   string
	v1       bool
}

func (j *journalOptions) parse(list string) error {
	opts, err := cli.ParseOptions(list)
	if err != nil {
		return err
	}
	for _, o := range opts {
		switch o.Name {
		case "size":
			j.sizeMiB, err = orNone("journal size", o.Value, 1, 1<<40)
		case "fast_commit_size":
			j.fcKiB, err = number("fast commit size", o.Value, 1, 1<<40)
		case "location":
			j.location = o.Value
			_, err = cli.ParseSize(o.Value, 1)
		case "device":
			j.device = o.Value
			if j.device == "" {
				err = cli.Usagef("-J device= needs a device")
			}
		case "v1_superblock":
			j.v1 = true
		default:
			return cli.Usagef("unknown journal option %q (--help=journal lists them)", o.Name)
		}
		if err != nil {
			return err
		}
	}
	if j.device != "" && j.sizeMiB != 0 {
		return cli.Usagef("a journal has either a size or a device")
	}
	return nil
}

// parseBlocks reads a size in units of 1<<log bytes; a number alone counts them.
func parseBlocks(s string, log uint) (uint64, error) {
	n, err := cli.ParseSize(s, 1<<log)
	if err != nil {
		return 0, cli.Usagef("invalid size of the file system, %q (--help=size)", s)
	}
	return uint64(n) >> log, nil
}
