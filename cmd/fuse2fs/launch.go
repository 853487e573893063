//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/fuse"
	"github.com/e2kit/e2kit/lib/fuse2fs"
	"github.com/e2kit/e2kit/lib/sandbox"
)

// Exit codes, those of C fuse2fs.
const (
	exitOK    = 0
	exitUsage = 1 // bad invocation, or the mount failed
	exitOpen  = 2 // the file system cannot be opened
)

// What root has the kernel allow a mount, see [fuse.Mount.Tune].
const (
	readahead  = 8 << 20 // bytes
	dirtyRatio = 40      // percent
)

// exitError is an error with the exit code that it means.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func fails(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

// launcher opens the device, starts the confined server that parses it, mounts,
// and stays to unmount: when told by a signal, and when the server dies, since
// the server can do neither. It never looks at the file system's bytes.
type launcher struct {
	o      *options
	dev    *blockdev.File
	jnl    *blockdev.File
	claim  *blockdev.File // keeps others from a block device until it is mounted
	lock   *blockdev.File // the image behind loop
	loop   *fuse.Loop     // through which the kernel does the I/O of an image
	ch     channel
	server *exec.Cmd
	mount  *fuse.Mount
	block  bool           // the source is a block device, mounted as fuseblk
	ro     bool           // what the server made of it
	wanted *wantedJournal // what the server lacked
}

// launch mounts what o says. ready is called when requests are served; launch
// returns after the unmount, nil if the image is clean and flushed then.
func launch(o *options, ready func(warnings []string)) (err error) {
	l := &launcher{o: o}
	defer l.cleanup()
	if err := l.checkMountpoint(); err != nil {
		return err
	}
	if err := l.openDevices(); err != nil {
		return err
	}
	if o.Lockfile != "" {
		remove, err := takeLockfile(o.Lockfile)
		if err != nil {
			return fails(exitUsage, "%w", err)
		}
		defer remove()
	}
	warn, err := l.startWithJournal()
	if err != nil {
		return err
	}
	if err := l.doMount(); err != nil {
		return err
	}
	// The server has its own descriptors, and closes them before the unmount
	// returns: then the image is no longer in use.
	l.closeDevices()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	ready(warn)
	return l.wait(signals)
}

// checkMountpoint fails for what mount(2) would refuse less clearly.
func (l *launcher) checkMountpoint() error {
	st, err := os.Stat(l.o.Mountpoint)
	var pe *os.PathError
	switch {
	case errors.Is(err, syscall.ENOTCONN):
		return fails(exitUsage, "mount point %s: a dead mount is in the way; unmount it first (umount -l)", l.o.Mountpoint)
	case errors.As(err, &pe):
		return fails(exitUsage, "mount point %s: %w", l.o.Mountpoint, pe.Err)
	case err != nil:
		return fails(exitUsage, "mount point: %w", err)
	case !st.IsDir():
		return fails(exitUsage, "mount point %s: %w", l.o.Mountpoint, syscall.ENOTDIR)
	}
	if l.o.Mountpoint, err = filepath.Abs(l.o.Mountpoint); err != nil {
		return fails(exitUsage, "mount point: %w", err)
	}
	return nil
}

func (l *launcher) openDevices() (err error) {
	st, err := os.Stat(l.o.Source)
	if err != nil {
		return fails(exitOpen, "%s: %w", l.o.Source, errors.Unwrap(err))
	}
	if l.block = st.Mode()&os.ModeDevice != 0; l.block {
		// The claim is another open file than the one that the server gets:
		// it has to go when the mount makes its own.
		if l.claim, err = l.open(l.o.Source, true); err != nil {
			return err
		}
	}
	if l.block && l.o.InitItable == nil {
		// As the kernel does. What an image has not written is zeros anyway, and
		// costs nothing while nobody writes it.
		l.o.InitItable = new(defaultInitItable)
	}
	if l.dev, err = l.open(l.o.Source, !l.block && !l.o.ReadOnly); err != nil {
		return err
	}
	if err := l.iomapDevice(); err != nil {
		return err
	}
	if size := l.dev.Size(); l.o.Offset > size || l.o.Size > size-l.o.Offset {
		return fails(exitOpen, "%s: offset=%d and size=%d lead past the end of its %d bytes",
			l.o.Source, l.o.Offset, l.o.Size, size)
	}
	if l.o.JournalPath != "" {
		l.jnl, err = l.open(l.o.JournalPath, true)
	}
	return err
}

// open opens a device, claiming it if exclusive, or an image, which it locks.
func (l *launcher) open(path string, exclusive bool) (*blockdev.File, error) {
	o := l.o.deviceOptions()
	o.Exclusive, o.Lock = exclusive, !l.block
	dev, err := blockdev.Open(path, o)
	if err == nil {
		return dev, nil
	}
	hint := ""
	switch {
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EACCES) && !l.o.ReadOnly && unix.Access(path, unix.R_OK) == nil:
		hint = "; -o ro mounts it read-only"
	case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.EWOULDBLOCK):
		hint = "; is it mounted, or being checked?"
	}
	return nil, fails(exitOpen, "%w%s", err, hint)
}

// startServer starts the server process and waits until it has opened the
// file system.
func (l *launcher) startServer() ([]string, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fails(exitUsage, "socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "channel")
	defer theirs.Close()
	l.ch = channel{fds[0]}
	closeOnExec()
	command := func() *exec.Cmd {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{"fuse2fs", serveArg}
		// Through a pipe: what standard error is changes in the background.
		cmd.Stderr = struct{ io.Writer }{os.Stderr}
		cmd.ExtraFiles = []*os.File{theirs}
		cmd.Env = os.Environ()
		cmd.Dir = "/"
		// A signal from the terminal is for the launcher, which unmounts.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: 0}
		return cmd
	}
	first := message{Options: l.o}
	if l.o.Sandbox == "off" {
		l.server = command()
		err = l.server.Start()
	} else {
		l.server, first.Namespaces, err = sandbox.Start(command)
	}
	if err != nil {
		l.server = nil
		return nil, fails(exitUsage, "starting the server: %w", err)
	}
	send := []int{}
	for _, d := range []*blockdev.File{l.dev, l.jnl, l.lock} {
		if d != nil {
			fd, _, _ := d.Fd()
			send = append(send, int(fd))
		}
	}
	if err := l.ch.send(first, send...); err != nil {
		return nil, fails(exitUsage, "talking to the server: %w", err)
	}
	m, err := l.answer(exitOpen)
	if err != nil {
		return nil, err
	}
	l.ro = m.RO
	return m.Warn, nil
}

// answer waits for the server's next message.
func (l *launcher) answer(code int) (message, error) {
	m, _, err := l.ch.recv()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		err := l.server.Wait()
		l.server = nil
		return m, fails(code, "%s: the server process ended before it served (%v)", l.o.Source, err)
	case err != nil:
		return m, fails(code, "talking to the server: %w", err)
	case m.Err != "":
		l.wanted = m.Journal
		return m, fails(code, "%s: %s", l.o.Source, m.Err)
	}
	return m, nil
}

// doMount mounts and hands the descriptor of /dev/fuse to the server. What can
// be seen of the mount is served.
func (l *launcher) doMount() error {
	mo, err := l.o.mountOptions(l.ro, os.Geteuid() == 0)
	if err != nil {
		return err
	}
	done, err := l.asBlock(&mo)
	if err != nil {
		return err
	}
	defer done()
	if l.mount, err = fuse.NewMount(l.o.Mountpoint, mo); err != nil {
		return fails(exitUsage, "%w", err)
	}
	if os.Geteuid() == 0 {
		_ = l.mount.Tune(readahead, dirtyRatio) // slower without, and no less right
	}
	err = l.sendMount()
	if err == nil {
		_, err = l.answer(exitUsage)
	}
	if err == nil {
		if f, err := l.mount.Open(fuse2fs.ProbeName, os.O_RDONLY); err == nil {
			f.Close() // without, the kernel asks more often than it needs to
		}
		err = l.mount.Attach()
	}
	if err != nil {
		_ = l.mount.Unmount()
		var e *exitError
		if !errors.As(err, &e) {
			err = fails(exitUsage, "%w", err)
		}
		return err
	}
	return nil
}

// sendMount gives the server its end of the mount: a descriptor for each CPU,
// since it cannot open any itself.
func (l *launcher) sendMount() error {
	fds := []int{l.mount.Fd()}
	for len(fds) < min(runtime.NumCPU(), maxFds) {
		fd, err := fuse.Clone(fds[0])
		if err != nil {
			break // one is enough to serve
		}
		fds = append(fds, fd)
	}
	err := l.ch.send(message{Mount: true, Pages: fuse.MaxPagesLimit()}, fds...)
	for _, fd := range fds {
		unix.Close(fd)
	}
	return err
}

// asBlock makes it a mount of a block device where that is possible: only then
// umount(2) waits until the file system is clean, and syncfs(2) reaches us. An
// image gets a loop device, through which no data goes.
func (l *launcher) asBlock(mo *fuse.MountOptions) (done func(), err error) {
	done = func() {}
	switch {
	case os.Geteuid() != 0:
	case l.block:
		// The kernel claims the device now, for which our claim has to go.
		mo.BlockDevice = l.o.Source
		_ = l.claim.Close()
		l.claim = nil
	case l.loop != nil:
		mo.BlockDevice = l.loop.Path
	default:
		loop, err := fuse.AttachLoop(l.o.Source, l.o.ReadOnly)
		if err != nil {
			break // no loop devices here, as in containers
		}
		mo.BlockDevice = loop.Path
		done = func() { _ = loop.Close() }
	}
	return done, nil
}

// mountOptions returns how to mount it; root says that no user does, to whom
// what is mounted could be dangerous.
func (o *options) mountOptions(ro, root bool) (fuse.MountOptions, error) {
	mo := fuse.MountOptions{
		Source:             o.Source,
		Subtype:            o.Subtype,
		AllowOther:         o.AllowOther,
		DefaultPermissions: true,
	}
	if o.Fsname != "" {
		mo.Source = o.Fsname
	}
	opts := append([]string{}, o.FuseOpts...)
	opts = append(opts, o.MountFlags...)
	if ro {
		opts = append(opts, "ro")
	}
	if !root {
		opts = append([]string{"nosuid", "nodev"}, opts...)
	}
	for _, opt := range opts {
		if _, err := mo.Set(opt); err != nil {
			return mo, fails(exitUsage, "%w", err)
		}
	}
	return mo, nil
}

// wait waits for the end of the server, which is the unmount, and unmounts at
// a signal, and what a server that died has left.
func (l *launcher) wait(signals <-chan os.Signal) error {
	done := make(chan error, 1)
	go func() { done <- l.server.Wait() }()
	for {
		select {
		case err := <-done:
			l.server = nil
			if err != nil {
				_ = fuse.Unmount(l.o.Mountpoint, true)
				return fails(exitOpen, "%s: the server ended: %w", l.o.Source, err)
			}
			return nil
		case sig := <-signals:
			if err := fuse.Unmount(l.o.Mountpoint, false); err != nil {
				fmt.Fprintf(os.Stderr, "fuse2fs: %v: %v\n", sig, err)
			}
		}
	}
}

// cleanup ends what is left after a failure.
func (l *launcher) cleanup() {
	l.endServer()
	l.closeDevices()
}

// endServer ends a server that is not mounted.
func (l *launcher) endServer() {
	if l.ch.fd > 0 {
		unix.Close(l.ch.fd) // it ends when it sees that
		l.ch.fd = 0
	}
	if l.server != nil {
		ended := make(chan struct{})
		go func() { _ = l.server.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = l.server.Process.Kill()
			<-ended
		}
		l.server = nil
	}
}

func (l *launcher) closeDevices() {
	for _, d := range []**blockdev.File{&l.claim, &l.dev, &l.jnl, &l.lock} {
		if *d != nil {
			_ = (*d).Close()
			*d = nil
		}
	}
	if l.loop != nil {
		_ = l.loop.Close()
		l.loop = nil
	}
}

// takeLockfile makes the file that tells others that the image is in use.
func takeLockfile(path string) (remove func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o400)
	if err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("lock file %s exists: the image is in use, or a server died; remove it if not", path)
		}
		return nil, fmt.Errorf("lock file: %w", err)
	}
	f.Close()
	var once sync.Once
	return func() { once.Do(func() { os.Remove(path) }) }, nil
}
