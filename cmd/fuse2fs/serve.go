//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/fuse2fs"
	"github.com/e2kit/e2kit/lib/sandbox"
)

// serveArg makes the program the server process. It is for the launcher only,
// which passes a socket as descriptor 3.
const serveArg = "--serve-on-descriptor-3"

// serve is the server process: it gets the device, confines itself, opens the
// file system, gets /dev/fuse, and serves until the unmount.
func serve() int {
	ch := channel{3}
	fail := func(err error) int {
		_ = ch.send(message{Err: err.Error(), Journal: wanted(err)})
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
	u := o.uring()
	// By a launcher that holds no more it is still sent /dev/fuse and its clones.
	c, err := o.confine(m.Namespaces, sandbox.Options{
		Syscalls: []uint32{unix.SYS_RECVMSG, unix.SYS_SENDMSG},
		Files:    16 + maxFds + uint64(u.files()),
		Uring:    u.rings != nil,
	})
	if err != nil {
		return fail(err)
	}
	x, err := o.openFS(dev, jnl)
	if err != nil {
		return fail(err)
	}
	x.uring = u
	if err := ch.send(message{Opened: true, Warn: append(c.warnings(), x.warn...), RO: x.ro}); err != nil {
		return 1
	}
	m, fds, err = ch.recv()
	if err != nil || !m.Mount || len(fds) == 0 {
		// Not mounted after all. What was recovered stays recovered.
		if cerr := x.fs.Close(); cerr != nil {
			fmt.Fprintf(os.Stderr, "fuse2fs: %s: %v\n", o.Source, cerr)
		}
		if errors.Is(err, io.EOF) {
			return 0
		}
		return 1
	}
	srv, err := x.server(fds[0], fds[1:], m.Pages, c.tighten)
	if err != nil {
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
		if err := o.mustUring(srv.Negotiated(), &x.uring); err != nil {
			_ = ch.write(message{Err: err.Error()})
			return
		}
		x.serving(srv, c)
		_ = ch.write(message{Serving: true})
	}()
	if err := srv.Serve(); err != nil {
		fmt.Fprintf(os.Stderr, "fuse2fs: %s: %v\n", o.Source, err)
		return 1
	}
	return 0
}

// opened is a file system that is open and not yet served.
type opened struct {
	o        *options
	dev, jnl blockdev.Device
	fs       *ext2fs.FS
	log      *slog.Logger
	ro       bool
	warn     []string
	noIomap  string // why the kernel cannot do the I/O of files, or ""
	uring    uring
}

// openFS opens the file system. The process is confined by then.
func (o *options) openFS(dev, jnl blockdev.Device) (*opened, error) {
	// Why the file system cannot be opened, or written, is told once, by who
	// mounts it; the log is for what comes later.
	level := new(slog.LevelVar)
	level.Set(slog.LevelError + 1)
	if o.Debug {
		level.Set(slog.LevelDebug)
	}
	if blockdev.Align(dev) > 1 && !o.ReadOnly {
		dev = blockdev.NewBehind(dev) // without the page cache each write waits for a disk
	}
	x := &opened{o: o, dev: dev, jnl: jnl}
	x.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	var err error
	if x.fs, err = ext2fs.Open(dev, o.fsOptions(jnl, x.log)); err != nil {
		return nil, err
	}
	if !o.Debug {
		level.Set(slog.LevelWarn)
	}
	var why string
	if x.ro, why = x.fs.ReadOnly(); x.ro && !o.ReadOnly {
		x.warn = append(x.warn, "mounted read-only: "+why)
	}
	return x, nil
}

// server attaches a server to /dev/fuse and its clones. begin is called when the
// first request has come: from then on the sandbox leaves nothing but to serve. It
// closes the file system if it fails.
func (x *opened) server(fd int, clones []int, pages int, begin func() error) (*fuse2fs.Server, error) {
	cfg := fuse2fs.Config{FS: x.fs, Log: x.log, Fakeroot: x.o.Fakeroot, UID: x.o.UID, GID: x.o.GID, NoACL: x.o.NoACL,
		Clones: clones, MaxPages: pages, Rings: x.uring.rings, RootNodeID: x.o.RootNodeID}
	cfg.Atime, cfg.DirAtime = x.o.atime()
	cfg.Begin = begin
	cfg.Closed = func() {
		_ = x.dev.Close()
		if x.jnl != nil {
			_ = x.jnl.Close()
		}
	}
	if x.o.Single {
		cfg.Workers = 1
	}
	if cfg.Iomap, x.noIomap = x.o.iomapConfig(x.fs); x.noIomap != "" && x.o.Iomap == "1" {
		x.fs.Close()
		return nil, fmt.Errorf("iomap=1: %s", x.noIomap)
	}
	srv, err := fuse2fs.New(fd, cfg)
	if err != nil {
		x.fs.Close()
	}
	return srv, err
}

// serving logs what is in force once requests are served.
func (x *opened) serving(srv *fuse2fs.Server, c *confinement) {
	path, whyNot := inForce(srv.Negotiated(), x.noIomap, x.uring.whyNot)
	x.log.Info("serving", "data", path, "not", whyNot, "requests", requestPath(srv.Negotiated()), "sandbox", c)
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
	bo := o.deviceOptions()
	bo.Offset, bo.Length = o.Offset, o.Size
	if dev, err = blockdev.OpenFd(uintptr(fds[0]), o.Source, bo); err != nil {
		return nil, nil, err
	}
	if len(fds) > 1 {
		if jnl, err = blockdev.OpenFd(uintptr(fds[1]), o.JournalPath, o.deviceOptions()); err != nil {
			return nil, nil, err
		}
	}
	return dev, jnl, nil
}

// deviceOptions is how the device and the external journal are opened.
func (o *options) deviceOptions() blockdev.Options {
	bo := blockdev.Options{ReadOnly: o.ReadOnly}
	switch {
	case o.Direct:
		bo.Direct = blockdev.DirectOn
	case o.NoDirect:
		bo.Direct = blockdev.DirectOff
	}
	return bo
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
		InitItable:     o.InitItable != nil && *o.InitItable >= 0,
		InitItableWait: o.initItableWait(),
		MountPoint:     o.Mountpoint,
		Log:            log,
		Panic: func(err error) {
			fmt.Fprintf(os.Stderr, "fuse2fs: %s: errors=panic: %v\n", o.Source, err)
			os.Exit(1)
		},
	}
}
