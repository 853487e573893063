package main

import (
	"bufio"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/populate"
)

// filling is what the file system is to be filled with, how, and what size it
// gets from that: -d, --layer and the long options that go with them.
type filling struct {
	source         string   // of -d, "" for none
	layers         []string // of --layer, the lowest first
	ref, platform  string   // which image of an OCI image layout
	owner          *populate.Owner
	mapUID, mapGID []populate.IDMap
	devices        []populate.DeviceEntry
	exclude        []string
	contexts       *populate.FileContexts
	reproducible   bool

	auto   bool   // the size is that of what it is filled with
	shrink bool   // and the smallest one
	free   string // to be left, in the form of a size
	most   string // that it may have, likewise

	needs []string // options that were given and mean nothing without a source
}

// fills tells whether there is something to fill it with.
func (f *filling) fills() bool { return f.source != "" || len(f.layers) > 0 }

// name returns what the source is called in messages.
func (f *filling) name() string {
	if len(f.layers) > 0 {
		return "--layer"
	}
	return "-d " + f.source
}

// set takes an option; ok is false if it is not one of these.
func (f *filling) set(name, v string) (ok bool, err error) {
	switch name {
	case "d":
		f.source = v
		return true, nil
	case "layer":
		f.layers = append(f.layers, v)
		return true, nil
	case "reproducible": // of use without a source too
		f.reproducible = true
		return true, nil
	case "ref":
		f.ref = v
	case "platform":
		if n := strings.Count(v, "/"); n < 1 || n > 2 {
			return true, cli.Usagef("--platform %s: it has the form os/architecture[/variant]", v)
		}
		f.platform = v
	case "owner":
		var o populate.Owner
		if o, err = populate.ParseOwner(v); err == nil {
			f.owner = &o
		}
	case "map-uid":
		err = addMap(&f.mapUID, v)
	case "map-gid":
		err = addMap(&f.mapGID, v)
	case "device-table":
		err = readOption(name, v, func(r io.Reader) error {
			table, err := populate.ParseDeviceTable(r)
			f.devices = append(f.devices, table...)
			return err
		})
	case "exclude":
		err = f.addExclude(v)
	case "exclude-from":
		err = readOption(name, v, f.readExcludes)
	case "file-contexts":
		err = readOption(name, v, func(r io.Reader) (err error) {
			f.contexts, err = populate.ParseFileContexts(r)
			return err
		})
	case "shrink":
		f.shrink = true
	case "free":
		f.free = v
	case "max":
		f.most = v
	default:
		return false, nil
	}
	f.needs = append(f.needs, "--"+name)
	if err != nil {
		if _, is := err.(*cli.Exit); !is {
			err = cli.Usagef("--%s: %s", name, strings.TrimSuffix(err.Error(), ": "+syscall.EINVAL.Error()))
		}
	}
	return true, err
}

func addMap(list *[]populate.IDMap, v string) error {
	m, err := populate.ParseIDMap(v)
	if err == nil {
		*list = append(*list, m)
	}
	return err
}

// addExclude takes a pattern once it is known to be one.
func (f *filling) addExclude(v string) error {
	if err := populate.CheckExclude(v); err != nil {
		return err
	}
	f.exclude = append(f.exclude, v)
	return nil
}

// readExcludes reads patterns, one a line; empty lines and those that begin with
// # are none.
func (f *filling) readExcludes(r io.Reader) error {
	sc := bufio.NewScanner(r)
	for no := 1; sc.Scan(); no++ {
		p := strings.TrimSuffix(sc.Text(), "\r")
		if p == "" || p[0] == '#' {
			continue
		}
		if err := f.addExclude(p); err != nil {
			return fail("line %d: %w", no, err)
		}
	}
	return sc.Err()
}

// readOption reads the file that an option names.
func readOption(name, path string, parse func(io.Reader) error) error {
	file, err := os.Open(path)
	if err != nil {
		return fail("--%s: %w", name, err)
	}
	defer file.Close()
	if err := parse(file); err != nil {
		return fail("--%s %s: %w", name, path, err)
	}
	return nil
}

// check refuses what contradicts itself. size and uuid are those that were given,
// if any.
func (f *filling) check(size, uuid string) error {
	switch {
	case f.reproducible && (uuid == "random" || uuid == "time"):
		return cli.Usagef("--reproducible and -U %s exclude each other", uuid)
	case f.source != "" && len(f.layers) > 0:
		return cli.Usagef("-d and --layer are two sources; give one")
	case !f.fills() && f.auto:
		return cli.Usagef("--size auto needs something to fill the file system with: -d or --layer")
	case !f.fills() && len(f.needs) > 0:
		return cli.Usagef("%s needs something to fill the file system with: -d or --layer", f.needs[0])
	case len(f.layers) > 0 && (f.ref != "" || f.platform != ""):
		return cli.Usagef("--ref and --platform choose from an OCI image layout, -d; --layer has no choice")
	case size != "" && f.auto:
		return cli.Usagef("--size auto and the size %s: give one", size)
	case size != "" && (f.free != "" || f.most != "") && !f.shrink:
		return cli.Usagef("--free and --max are for a size that is found, not for %s: leave it out, or add --shrink", size)
	}
	if f.shrink || f.free != "" || f.most != "" {
		f.auto = true
	}
	return nil
}
