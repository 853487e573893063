//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/sandbox"
)

// listenTypes are the types that are served, each by a socket of its name.
var listenTypes = []string{"ext2", "ext3", "ext4"}

// maxServers is how many file systems are served at a time; who connects then
// waits for an unmount.
const maxServers = 1024

// listener is a mount service without systemd: it accepts connections and has a
// process of its own serve each.
type listener struct {
	dir     string
	own     []string // options for the servers
	cred    *syscall.Credential
	sockets []int
	paths   []string
	room    chan struct{} // a token for each server that runs
	servers sync.WaitGroup
	warn    func(error)
}

// listen serves until SIGTERM or SIGINT. Then it makes no mounts any more, and
// returns when those that it made have been unmounted; at the second signal it
// returns at once, and the servers go on.
func listen(c *cli.Context) error {
	if len(c.Operands()) > 0 {
		return cli.Usagef("%q is one argument too many: who mounts names the source", c.Operands()[0])
	}
	l := &listener{dir: c.String("listen"), room: make(chan struct{}, maxServers), warn: c.Warn}
	for _, f := range c.Found {
		switch name := f.Opt.Names[0]; name {
		case "o":
			l.own = append(l.own, "-o", f.Value)
		case "s", "d":
			l.own = append(l.own, "-"+name)
		}
	}
	if o, err := parseArgs(append(l.own, "source", "mountpoint"), c.Stderr); err != nil {
		return &cli.Exit{Status: exitUsage}
	} else if o.Lockfile != "" || o.JournalPath != "" {
		return cli.Usagef("lockfile= and journal_path= are not for a service")
	}
	mode, err := strconv.ParseUint(def(c.String("listen-mode"), "0220"), 8, 9)
	if err != nil {
		return cli.Usagef("--listen-mode %s: not octal permissions", c.String("listen-mode"))
	}
	if err := l.setUser(c.String("listen-user")); err != nil {
		return err
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer l.close()
	if err := l.bind(os.FileMode(mode)); err != nil {
		return err
	}
	closeOnExec()
	for _, fd := range l.sockets {
		go l.accept(fd)
	}
	fmt.Fprintf(c.Stderr, "fuse2fs: serving %s in %s\n", strings.Join(listenTypes, ", "), l.dir)
	<-signals
	l.close()
	ended := make(chan struct{})
	go func() { l.servers.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-signals:
	}
	return nil
}

func def(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

// setUser sets whom servers run as: root does not stay root.
func (l *listener) setUser(s string) error {
	if os.Geteuid() != 0 {
		if s != "" {
			return cli.Usagef("--listen-user needs root")
		}
		return nil
	}
	u, g, has := strings.Cut(def(s, "65534"), ":")
	if !has {
		g = u
	}
	uid, err := strconv.ParseUint(u, 10, 32)
	gid, gerr := strconv.ParseUint(g, 10, 32)
	if err != nil || gerr != nil {
		return cli.Usagef("--listen-user %s: not a numeric user, or user:group", s)
	}
	l.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return nil
}

// bind makes the sockets. One that nobody listens to any more is replaced.
func (l *listener) bind(mode os.FileMode) error {
	for _, typ := range listenTypes {
		path := filepath.Join(l.dir, typ)
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		l.sockets = append(l.sockets, fd)
		if err := removeStale(path); err != nil {
			return err
		}
		// Nobody can connect before listen, by when the mode is right.
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			return fmt.Errorf("socket %s: %w", path, err)
		}
		l.paths = append(l.paths, path)
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
		if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
			return fmt.Errorf("socket %s: %w", path, err)
		}
	}
	return nil
}

// removeStale removes the socket of a service that has died, and fails with
// EADDRINUSE if one listens.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if err != nil || st.Mode()&os.ModeSocket == 0 {
		return nil // bind says what is wrong
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("socket %s: a service listens: %w", path, unix.EADDRINUSE)
	}
	return os.Remove(path)
}

// accept starts a server for each connection until the socket is shut down.
func (l *listener) accept(sock int) {
	for {
		fd, _, err := unix.Accept4(sock, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINVAL) {
			return // shut down
		}
		if err == nil {
			l.room <- struct{}{}
			err = l.serve(fd)
		}
		if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED) {
			l.warn(fmt.Errorf("accepting a connection: %w", err))
		}
	}
}

// serve has a process serve the connection, and waits for it aside.
func (l *listener) serve(fd int) error {
	conn := os.NewFile(uintptr(fd), "connection")
	defer conn.Close()
	command := func() *exec.Cmd {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = append([]string{"fuse2fs", serviceArg}, l.own...)
		cmd.ExtraFiles = []*os.File{conn}
		cmd.Stderr = os.Stderr
		cmd.Dir = "/"
		cmd.Env = []string{}
		// A session of its own has no terminal, and its own share of the CPUs.
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: l.cred, Setsid: true}
		return cmd
	}
	l.servers.Add(1)
	// In namespaces of its own where that is possible, which it need not know.
	cmd, _, err := sandbox.Start(command)
	if err != nil {
		l.servers.Done()
		<-l.room
		return err
	}
	go func() {
		defer l.servers.Done()
		_ = cmd.Wait() // it has said itself what went wrong
		<-l.room
	}()
	return nil
}

// close ends the sockets; connections live on.
func (l *listener) close() {
	for _, p := range l.paths {
		_ = os.Remove(p)
	}
	for _, fd := range l.sockets {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR) // whose number accept may still use
	}
	l.paths, l.sockets = nil, nil
}
