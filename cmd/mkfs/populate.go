//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/populate"
)

// loadSource reads what the file system is to be filled with (-d), before
// anything is written: a directory, an OCI image layout, or a tar archive, "-"
// being standard input.
func (m *maker) loadSource() error {
	if m.populate == "" {
		return nil
	}
	src := populate.Tar(m.populate)
	if m.populate == "-" {
		src = populate.TarReader(m.Stdin)
	} else if st, err := os.Stat(m.populate); err != nil {
		return fail("-d: %w", err)
	} else if st.IsDir() {
		src = populate.Dir(m.populate)
		if _, err := os.Stat(filepath.Join(m.populate, "oci-layout")); err == nil {
			src = populate.OCI(m.populate, populate.OCIOptions{})
		}
	}
	o := populate.Options{NoXattrs: m.noCopyXattrs, Time: m.opts.Time}
	o.Warn = func(path, what string) { m.Warn(fmt.Errorf("%s: %s", path, what)) }
	if os.Getenv("SOURCE_DATE_EPOCH") != "" {
		t := m.opts.Time
		o.MaxTime, o.Reproducible = &t, true
	}
	if m.opts.RootUID != 0 || m.opts.RootGID != 0 {
		o.Root = &populate.Owner{UID: m.opts.RootUID, GID: m.opts.RootGID}
	}
	if m.opts.RootMode != 0 {
		o.RootMode = &m.opts.RootMode
	}
	tree, err := populate.Load(context.Background(), src, o)
	if err != nil {
		return fail("-d %s: %w", m.populate, err)
	}
	m.tree = tree
	return nil
}

// fill copies the source into the file system that was made on dev. The
// superblock comes last: what is not filled to its end is no file system.
func (m *maker) fill(dev blockdev.Device) error {
	if m.tree == nil {
		return nil
	}
	if !m.quiet {
		fmt.Fprint(m.Stdout, "Copying files into the device: ")
	}
	done, err := m.tree.Write(context.Background(), dev)
	if err != nil {
		if !m.quiet {
			fmt.Fprintln(m.Stdout)
		}
		var e *populate.IncompleteError
		if errors.As(err, &e) {
			return fail("%s: no file system made: -d %s: %w", m.device, m.populate, e.Err)
		}
		return fail("%s: -d %s: %w", m.device, m.populate, err)
	}
	if !m.quiet {
		fmt.Fprintln(m.Stdout, "done")
	}
	if m.verbose {
		fmt.Fprintf(m.Stdout, "%d files, %d directories, %d symbolic links, %d further names, %d others, %s\n",
			done.Files, done.Dirs, done.Symlinks, done.Links, done.Special, humanize.IBytes(uint64(done.Bytes)))
	}
	return nil
}
