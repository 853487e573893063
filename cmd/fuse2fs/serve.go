//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/fuse2fs"
)

// serveArg makes the program the server process. It is for the launcher only,
// which passes a socket as descriptor 3.
const serveArg = "--serve-on-descriptor-3"

// serve is the server process: it gets the device, confines itself, opens the
// file system, gets /dev/fuse, and serves until the unmount.
func serve() int {
	ch := channel{3}
	fail := func(err error) int {
		_ = ch.send(message{Err: err.Error()})
		return 1
	}
	m, fds, err := ch.recv()
	if err != nil || m.Options == nil || len(fds) == 0 {
		return fail(fmt.Errorf("the launcher sent no device (%v)", err))
	}
	o := m.Options
	if o.LockFd { // stays open as long as this process
		fds = fds[:len(fds)-1]
	}
	dev, jnl, err := o.devices(fds)
	if err != nil {
		return fail(err)
	}
	c, err := o.confine(m.Namespaces)
	if err != nil {
		return fail(err)
	}
	var warn []string
	if w := c.warning(); w != "" {
		warn = append(warn, w)
	}
	// Why the file system cannot be opened, or written, is told once, by the
	// launcher; the log is for what comes later.
	level := new(slog.LevelVar)
	level.Set(slog.LevelError + 1)
	if o.Debug {
		level.Set(slog.LevelDebug)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	fs, err := ext2fs.Open(dev, o.fsOptions(jnl, log))
	if err != nil {
		return fail(err)
	}
	if !o.Debug {
		level.Set(slog.LevelWarn)
	}
	ro, roWhy := fs.ReadOnly()
	if ro && !o.ReadOnly {
		warn = append(warn, "mounted read-only: "+roWhy)
	}
	if err := ch.send(message{Opened: true, Warn: warn, RO: ro}); err != nil {
		return 1
	}
	m, fds, err = ch.recv()
	if err != nil || !m.Mount || len(fds) == 0 {
		// Not mounted after all. What was recovered stays recovered.
		if cerr := fs.Close(); cerr != nil {
			fmt.Fprintf(os.Stderr, "fuse2fs: %s: %v\n", o.Source, cerr)
		}
		if errors.Is(err, io.EOF) {
			return 0
		}
		return 1
	}
	cfg := fuse2fs.Config{FS: fs, Log: log, Fakeroot: o.Fakeroot, UID: o.UID, GID: o.GID, NoACL: o.NoACL,
		Clones: fds[1:], MaxPages: m.Pages, RootNodeID: o.RootNodeID}
	cfg.Atime, cfg.DirAtime = o.atime()
	cfg.Begin = c.tighten
	cfg.Closed = func() {
		_ = dev.Close()
		if jnl != nil {
			_ = jnl.Close()
		}
	}
	if o.Single {
		cfg.Workers = 1
	}
	why := ""
	if cfg.Iomap, why = o.iomapConfig(fs); why != "" && o.Iomap == "1" {
		fs.Close()
		return fail(fmt.Errorf("iomap=1: %s", why))
	}
	srv, err := fuse2fs.New(fds[0], cfg)
	if err != nil {
		fs.Close()
		return fail(err)
	}
	go func() {
		if err := srv.Started(); err != nil {
			_ = ch.write(message{Err: err.Error()})
			return
		}
		if o.Iomap == "1" && !srv.Iomap() {
			_ = ch.write(message{Err: "iomap=1: this kernel does not offer fuse-iomap to this mount"})
			return
		}
		path, whyNot := inForce(srv.Negotiated(), why)
		log.Info("serving", "data", path, "not", whyNot, "sandbox", c)
		_ = ch.write(message{Serving: true})
	}()
	if err := srv.Serve(); err != nil {
		fmt.Fprintf(os.Stderr, "fuse2fs: %s: %v\n", o.Source, err)
		return 1
	}
	return 0
}

// atime returns what the mount options say of the time of access, which the
// kernel leaves to the server; the last one counts.
func (o *options) atime() (file, dir ext2fs.AtimeMode) {
	for _, f := range o.MountFlags {
		switch f {
		case "noatime":
			file, dir = ext2fs.AtimeNever, ext2fs.AtimeNever
		case "strictatime":
			file, dir = ext2fs.AtimeStrict, ext2fs.AtimeStrict
		case "atime", "relatime":
			file, dir = ext2fs.AtimeRelative, ext2fs.AtimeRelative
		case "nodiratime":
			dir = ext2fs.AtimeNever
		}
	}
	return file, dir
}

// devices wraps the descriptors that the launcher sent.
func (o *options) devices(fds []int) (dev, jnl blockdev.Device, err error) {
	bo := blockdev.Options{ReadOnly: o.ReadOnly, Offset: o.Offset, Length: o.Size}
	switch {
	case o.Direct:
		bo.Direct = blockdev.DirectOn
	case o.NoDirect:
		bo.Direct = blockdev.DirectOff
	}
	if dev, err = blockdev.OpenFd(uintptr(fds[0]), o.Source, bo); err != nil {
		return nil, nil, err
	}
	if len(fds) > 1 {
		bo.Offset, bo.Length = 0, 0
		if jnl, err = blockdev.OpenFd(uintptr(fds[1]), o.JournalPath, bo); err != nil {
			return nil, nil, err
		}
	}
	return dev, jnl, nil
}

var dataModes = map[string]ext2fs.DataMode{
	"ordered": ext2fs.DataOrdered, "journal": ext2fs.DataJournal, "writeback": ext2fs.DataWriteback,
}

var errorPolicies = map[string]ext2fs.ErrorPolicy{
	"continue": ext2fs.ErrorsContinue, "remount-ro": ext2fs.ErrorsRO, "panic": ext2fs.ErrorsPanic,
}

func (o *options) fsOptions(jnl blockdev.Device, log *slog.Logger) ext2fs.Options {
	return ext2fs.Options{
		ReadOnly:       o.ReadOnly,
		NoLoad:         o.NoRecovery,
		CacheSize:      o.CacheSize,
		DataMode:       dataModes[o.Data],
		CommitInterval: time.Duration(o.Commit) * time.Second,
		Errors:         errorPolicies[o.Errors],
		Journal:        jnl,
		Discard:        o.Discard,
		Sync:           o.Sync,
		DirSync:        o.Dirsync,
		MinixDF:        o.MinixDF,
		NoUserXattr:    o.NoUserXattr,
		NoACL:          o.NoACL,
		InitItable:     o.InitItable,
		MountPoint:     o.Mountpoint,
		Log:            log,
		Panic: func(err error) {
			fmt.Fprintf(os.Stderr, "fuse2fs: %s: errors=panic: %v\n", o.Source, err)
			os.Exit(1)
		},
	}
}
