//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/fuse"
	"github.com/e2kit/e2kit/lib/fuse/service"
	"github.com/e2kit/e2kit/lib/fuse2fs"
	"github.com/e2kit/e2kit/lib/sandbox"
)

// serviceArg is what --listen starts servers with, which have their connection
// as descriptor 3. systemd says the same in the environment.
const serviceArg = "--serve-on-socket-3"

// stopPatience is how long a server that is told to end waits for the unmount,
// which flushes what the kernel has cached: at shutdown both happen at a time.
const stopPatience = 60 * time.Second

// initPatience is how long it may take to note that INIT has been answered.
const initPatience = 5 * time.Second

// errStopped ends a server that is told to by a signal.
var errStopped = errors.New("stopped by a signal; the file system is clean, and its mount is dead: umount -l")

var errNoIomap = fmt.Errorf("iomap=1: this kernel does not offer fuse-iomap to this mount: %w", unix.EOPNOTSUPP)

// mountService is the server process of a mount service: it has no privilege
// from the beginning, gets its descriptors from the mount helper at the other
// end of a socket, confines itself, and only then parses the file system.
type mountService struct {
	srv    *service.Server
	o      *options
	dev    *blockdev.File
	jnl    *blockdev.File
	claim  int   // keeps others from a block device until it is mounted, or -1
	loop   int   // loop device for an image, or -1
	block  bool  // the source is a block device
	fuseFd int   // /dev/fuse
	clones []int // to become clones of it
	pages  int   // largest request
	source string

	confined *confinement
	fs       *opened
	ended    chan error // what Serve has returned
}

// serveService serves the connection fd. own is the command line of the service
// without the program's name; the helper's arguments follow it.
func serveService(own []string, fd int, stderr io.Writer) int {
	s := &mountService{claim: -1, loop: -1, fuseFd: -1, ended: make(chan error, 1)}
	complain := func(err error) {
		name := "mount service"
		if s.o != nil {
			name = s.o.Source
		}
		cli.Message(stderr, "fuse2fs", fmt.Errorf("%s: %w", name, err))
	}
	var err error
	if s.srv, err = service.Accept(fd, 0); err != nil {
		complain(err)
		return exitUsage
	}
	defer s.srv.Close()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	server, err := s.start(own, stderr)
	if err != nil {
		complain(err)
		_ = s.srv.Bye(byeCode(err))
		return exitOpen
	}
	go func() {
		sig := <-signals
		complain(fmt.Errorf("%v: ending when it is unmounted, or in %v; at once if told again", sig, stopPatience))
		select {
		case <-signals:
		case <-time.After(stopPatience):
		}
		server.Stop(errStopped)
	}()
	select {
	case <-server.Ready():
		err = server.Started()
		if err == nil && s.o.Iomap == "1" && !server.Iomap() {
			err = errNoIomap
		}
		if err == nil {
			err = s.o.mustUring(server.Negotiated(), &s.fs.uring)
		}
		if err != nil {
			_ = s.srv.Bye(byeCode(err)) // the helper takes the mount back
			server.Stop(err)
		} else {
			s.fs.serving(server, s.confined)
			_ = s.srv.Bye(0)
		}
		err = <-s.ended
	case err = <-s.ended:
		_ = s.srv.Bye(byeCode(err))
	}
	if err != nil {
		complain(err)
	}
	if err != nil && !errors.Is(err, errStopped) {
		return exitOpen
	}
	return exitOK
}

// byeCode is the errno that tells the helper of err.
func byeCode(err error) syscall.Errno {
	var e syscall.Errno
	switch {
	case errors.As(err, &e) && e != 0:
		return e
	case err == nil:
		return unix.ECONNABORTED // unmounted before it was served
	}
	return unix.EINVAL
}

// start does all up to serving, and serves. In this order: descriptors; the
// confinement; what the mount is to be, so that the helper opens nothing any more;
// only then the first look at the file system; the mount. Where the kernel can
// exchange INIT inside of mount(2), it is served before, and what fails there fails
// the helper's mount.
func (s *mountService) start(own []string, stderr io.Writer) (*fuse2fs.Server, error) {
	if err := s.parse(own, stderr); err != nil {
		return nil, err
	}
	s.fuseFd = s.srv.FuseDev()
	if s.o.IomapHelper != "" {
		if err := s.srv.Iomap(s.o.IomapHelper == "mandatory"); err != nil {
			return nil, err
		}
	}
	if err := s.openDevices(); err != nil {
		return nil, err
	}
	if err := s.openFuse(); err != nil {
		return nil, err
	}
	if err := s.srv.Seal(); err != nil {
		return nil, err
	}
	_ = os.Chdir("/")
	sync := fuse.SyncInit(s.fuseFd) == nil
	var err error
	u := s.o.uring()
	if s.confined, err = s.o.confine(nil, sandbox.Options{Ioctls: []uint32{fuse.IocClone}, Uring: u.rings != nil}); err != nil {
		return nil, err
	}
	mo, err := s.describeMount()
	if err != nil {
		return nil, err
	}
	var jnl blockdev.Device
	if s.jnl != nil {
		jnl = s.jnl
	}
	x, err := s.o.openFS(s.dev, jnl)
	if err != nil {
		return nil, err
	}
	for _, w := range append(s.confined.warnings(), x.warn...) {
		cli.Message(stderr, "fuse2fs", fmt.Errorf("%s: %s", s.o.Source, w))
	}
	x.uring = u
	if x.ro {
		mo.Flags |= unix.MS_RDONLY
	}
	s.fs = x
	server, err := x.server(s.fuseFd, s.clones, s.pages, s.begin)
	if err != nil {
		return nil, err
	}
	s.drop(&s.claim) // the kernel makes its own
	if sync {
		go func() { s.ended <- server.Serve() }()
	}
	err = s.srv.Mount(uint32(mo.Flags))
	if err == nil && sync {
		// INIT has been answered by now, or nothing would ever end the wait for it.
		select {
		case <-server.Ready():
		case <-time.After(initPatience):
			err = fmt.Errorf("the helper has mounted something else: %w", unix.EPROTO)
		}
	}
	if err != nil && sync {
		server.Stop(err)
		<-s.ended
		return nil, err
	}
	if err != nil {
		_ = x.fs.Close()
		return nil, err
	}
	s.drop(&s.loop)
	if !sync {
		go func() { s.ended <- server.Serve() }()
	}
	return server, nil
}

// begin is called when INIT has come: /dev/fuse is mounted, and can be cloned.
func (s *mountService) begin() error {
	for _, fd := range s.clones {
		_ = fuse.CloneOnto(fd, s.fuseFd) // one descriptor is enough to serve
	}
	return s.confined.tighten()
}

func (s *mountService) drop(fd *int) {
	if *fd >= 0 && s.fuseblk() {
		unix.Close(*fd)
		*fd = -1
	}
}

// fuseblk reports whether it is to be a mount of a block device, which umount(2)
// waits for.
func (s *mountService) fuseblk() bool { return s.srv.Fuseblk() && (s.block || s.loop >= 0) }

// parse makes the options of the service's command line and the helper's. The
// user who mounts does not decide how the service is confined.
func (s *mountService) parse(own []string, stderr io.Writer) error {
	sent := s.srv.Args()
	user, err := parseArgs(service.MergeArgs(nil, sent), stderr)
	if err != nil {
		return err
	}
	o, err := parseArgs(service.MergeArgs(own, sent), stderr)
	if err != nil {
		return err
	}
	switch {
	case user.Sandbox == "off":
		return fmt.Errorf("sandbox=off is for the service's own command line: %w", unix.EPERM)
	case user.IomapHelper != "":
		return fmt.Errorf("iomap_helper= is for the service's own command line: %w", unix.EPERM)
	case user.CacheSize > 0 && !s.srv.Fuseblk():
		// It would be the memory of a process that the kernel does not kill.
		return fmt.Errorf("cache_size= is for root, and the service's own command line: %w", unix.EPERM)
	case o.Lockfile != "":
		return fmt.Errorf("lockfile= needs to make files, which a service cannot: %w", unix.EOPNOTSUPP)
	case o.AllowOther && !s.srv.AllowOther() && user.AllowOther:
		return fmt.Errorf("allow_other needs user_allow_other in /etc/fuse.conf: %w", unix.EPERM)
	}
	o.AllowOther = o.AllowOther && s.srv.AllowOther()
	o.Subtype = sent[0]
	s.o = o
	return nil
}

// parseArgs parses a command line, whose faults it prints.
func parseArgs(args []string, stderr io.Writer) (o *options, err error) {
	cmd := command()
	cmd.Action = func(c *cli.Context) (err error) {
		o, err = parse(c)
		return err
	}
	if cmd.Main(args, strings.NewReader(""), io.Discard, stderr) != 0 || o == nil {
		return nil, fmt.Errorf("the command line %q is wrong: %w", args, unix.EINVAL)
	}
	return o, nil
}

// describeMount tells the helper what to mount, but for whether it is read-only.
func (s *mountService) describeMount() (fuse.MountOptions, error) {
	mo, err := s.o.mountOptions(s.o.ReadOnly, s.srv.Fuseblk())
	if err != nil {
		return mo, err
	}
	opts, flags, source := mo.Kernel(), uint32(0), mo.Source
	if s.fuseblk() {
		flags, source = service.FsopenFuseblk, s.source
		opts = append(opts, "blksize=4096")
	}
	if err := s.srv.Fsopen(flags); err != nil {
		return mo, err
	}
	if err := s.srv.Source(source); err != nil {
		return mo, err
	}
	if err := s.srv.Mountpoint(s.o.Mountpoint, unix.S_IFDIR); err != nil {
		return mo, err
	}
	return mo, s.srv.Mntopts(strings.Join(opts, ","))
}

// linger returns code. journald finds out by the process what a message belongs
// to: one that fails stays until it has.
func linger(code int) int {
	if code != exitOK {
		time.Sleep(2 * time.Second)
	}
	return code
}
