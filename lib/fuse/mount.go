//go:build linux

package fuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is a FUSE mount that this process makes. Where the kernel's mount API
// allows it, the mount exists before it can be seen: [NewMount] makes it,
// requests can be served, and [Mount.Attach] puts it into the tree; so nobody
// sees a file system that fails to start. Mounts by fusermount3 are in the tree
// from the beginning.
type Mount struct {
	Dir string // mount point

	fd       int // /dev/fuse
	mnt      int // the detached mount, or -1
	attached bool
	helper   bool // mounted by fusermount
	opts     MountOptions
	comm     int // socket to fusermount that AutoUnmount keeps open, or -1
}

// NewMount makes a mount for dir: directly if the process may, being root or
// root of a user namespace; else through fusermount3, or fusermount.
func NewMount(dir string, o MountOptions) (*Mount, error) {
	m := &Mount{Dir: dir, opts: o, fd: -1, mnt: -1, comm: -1}
	if o.RootMode == 0 {
		m.opts.RootMode = unix.S_IFDIR
	}
	err := m.direct()
	if errors.Is(err, unix.EPERM) && o.BlockDevice == "" {
		if herr := m.fusermount(); herr == nil || !errors.Is(herr, errNoFusermount) {
			err = herr
		}
	}
	if err != nil {
		return nil, fmt.Errorf("mount on %s: %w", dir, err)
	}
	return m, nil
}

// Fd returns the descriptor of /dev/fuse, for [NewConn]. The caller owns it.
func (m *Mount) Fd() int { return m.fd }

// ByHelper tells whether fusermount made the mount, so that only it can undo it.
func (m *Mount) ByHelper() bool { return m.helper }

// Attach puts the mount into the tree, where it already is if a helper or an
// old kernel made it. It needs the privilege that NewMount needed, but no
// serving.
func (m *Mount) Attach() error {
	if m.attached {
		return nil
	}
	if err := unix.MoveMount(m.mnt, "", unix.AT_FDCWD, m.Dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount on %s: %w", m.Dir, err)
	}
	m.attached = true
	m.release() // it would keep the mount busy
	return nil
}

// Open opens name, relative to the root of the mount, attached or not. Requests
// must be served.
func (m *Mount) Open(name string, flags int) (*os.File, error) {
	at, path := m.mnt, name
	if at < 0 {
		at, path = unix.AT_FDCWD, filepath.Join(m.Dir, name)
	}
	fd, err := unix.Openat(at, path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Join(m.Dir, name), Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Close ends a mount that has not been attached; an attached one lives on. The
// kernel may want DESTROY answered, so either requests are still served, or the
// descriptors of /dev/fuse, which Close leaves alone, have been closed before.
func (m *Mount) Close() { m.release() }

func (m *Mount) release() {
	if m.mnt >= 0 {
		unix.Close(m.mnt)
		m.mnt = -1
	}
}

// Unmount ends the mount, attached or not, and waits for what the kernel waits
// for: see [Unmount].
func (m *Mount) Unmount() error {
	if !m.attached {
		m.release()
		return nil
	}
	m.attached = false
	return Unmount(m.Dir, false)
}

// Tune raises the limits that the kernel sets FUSE mounts, which are made for
// slow and untrusted servers: read-ahead (bytes; 0 leaves it, 128 KiB by
// default), and the share of the machine's dirty pages (percent; 0 leaves it,
// 1 by default, with strict accounting). It needs root, works before requests
// are served, and fails without harm.
func (m *Mount) Tune(readahead, dirtyRatio int) error {
	at, path := m.mnt, ""
	if at < 0 {
		at, path = unix.AT_FDCWD, m.Dir
	}
	return tune(at, path, m.opts.BlockDevice != "", readahead, dirtyRatio)
}

// Tune is [Mount.Tune] for the mount that has the descriptor mnt; block says
// that it is one of a block device.
func Tune(mnt int, block bool, readahead, dirtyRatio int) error {
	return tune(mnt, "", block, readahead, dirtyRatio)
}

func tune(at int, path string, block bool, readahead, dirtyRatio int) error {
	var st unix.Statx_t
	// Without sync: asking the server would wait for one that does not serve yet.
	err := unix.Statx(at, path, unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &st)
	if err != nil {
		return fmt.Errorf("statx: %w", err)
	}
	bdi := fmt.Sprintf("/sys/class/bdi/%d:%d", st.Dev_major, st.Dev_minor)
	if block {
		bdi += "-fuseblk"
	}
	set := func(name string, n int) {
		if e := os.WriteFile(bdi+"/"+name, strconv.AppendInt(nil, int64(n), 10), 0); e != nil && err == nil {
			err = e
		}
	}
	if readahead > 0 {
		set("read_ahead_kb", readahead>>10)
	}
	if dirtyRatio > 0 {
		set("strict_limit", 0)
		set("max_ratio", dirtyRatio)
	}
	return err
}

// direct mounts by system call. It fails with EPERM if that needs privilege
// that the process does not have.
func (m *Mount) direct() (err error) {
	m.fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.EACCES) {
			err = unix.EPERM
		}
		return fmt.Errorf("open /dev/fuse: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(m.fd)
			m.fd = -1
		}
	}()
	source, dev := m.opts.Source, m.opts.BlockDevice
	switch {
	case dev == "" && source == "":
		return m.create("fuse", "fuse")
	case dev == "":
		return m.create("fuse", source)
	case source != "" && source != dev:
		return withSource(source, dev, func() error { return m.create("fuseblk", source) })
	}
	return m.create("fuseblk", dev)
}

// create makes the mount with the open m.fd, not attached yet.
func (m *Mount) create(typ, source string) error {
	mnt, err := Fsmount(typ, m.params(source), m.opts.Flags)
	if errors.Is(err, unix.ENOSYS) {
		return m.oldMount(typ, source)
	}
	if err != nil {
		return err
	}
	m.mnt = mnt
	return nil
}

// Fsmount makes a mount that is in no tree, of the type "fuse" or "fuseblk", and
// returns its descriptor. params are those of the superblock, "key=value" or
// "key", "fd=" with an open /dev/fuse among them; those that flags, MS_*, stand
// for need not be. It fails with ENOSYS before Linux 5.2.
func Fsmount(typ string, params []string, flags uintptr) (int, error) {
	fsfd, err := unix.Fsopen(typ, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fsfd)
	for _, p := range slices.Concat(params, superFlags(flags)) {
		key, val, hasVal := strings.Cut(p, "=")
		if hasVal {
			err = unix.FsconfigSetString(fsfd, key, val)
		} else {
			err = unix.FsconfigSetFlag(fsfd, key)
		}
		if err != nil {
			return -1, fsError(fsfd, "option "+p, err)
		}
	}
	if err = unix.FsconfigCreate(fsfd); err != nil {
		return -1, fsError(fsfd, "create", err)
	}
	mnt, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, mountAttrs(flags))
	if err != nil {
		return -1, fsError(fsfd, "fsmount", err)
	}
	return mnt, nil
}

// superFlags returns the parameters of the superblock that flags stand for.
func superFlags(flags uintptr) []string {
	var p []string
	for _, f := range []struct {
		flag uintptr
		name string
	}{
		{unix.MS_RDONLY, "ro"}, {unix.MS_SYNCHRONOUS, "sync"},
		{unix.MS_DIRSYNC, "dirsync"}, {unix.MS_LAZYTIME, "lazytime"},
	} {
		if flags&f.flag != 0 {
			p = append(p, f.name)
		}
	}
	return p
}

// params returns the parameters of the superblock.
func (m *Mount) params(source string) []string {
	o := &m.opts
	p := []string{
		"source=" + source,
		"fd=" + strconv.Itoa(m.fd),
		"rootmode=" + strconv.FormatUint(uint64(o.RootMode), 8),
		"user_id=" + strconv.Itoa(os.Geteuid()),
		"group_id=" + strconv.Itoa(os.Getegid()),
	}
	if o.Subtype != "" {
		p = append(p, "subtype="+o.Subtype)
	}
	if o.BlockDevice == "" {
		return append(p, o.Kernel()...)
	}
	size := o.BlkSize
	if size == 0 {
		size = 4096
	}
	return append(append(p, o.Kernel()...), "blksize="+strconv.Itoa(size))
}

// mountAttrs returns the MOUNT_ATTR_ flags that MS_ flags stand for.
func mountAttrs(flags uintptr) int {
	a := 0
	for _, f := range []struct {
		ms   uintptr
		attr int
	}{
		{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY}, {unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID},
		{unix.MS_NODEV, unix.MOUNT_ATTR_NODEV}, {unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC},
		{unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME},
		{unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW},
	} {
		if flags&f.ms != 0 {
			a |= f.attr
		}
	}
	switch {
	case flags&unix.MS_STRICTATIME != 0:
		a |= unix.MOUNT_ATTR_STRICTATIME
	case flags&unix.MS_NOATIME != 0:
		a |= unix.MOUNT_ATTR_NOATIME
	}
	return a
}

// fsError adds what the kernel has to say in the context's log.
func fsError(fsfd int, what string, err error) error {
	buf := make([]byte, 1024)
	var said []string
	for {
		n, e := unix.Read(fsfd, buf)
		if e != nil || n <= 2 {
			break
		}
		said = append(said, strings.TrimSpace(string(buf[2:n])))
	}
	if len(said) == 0 {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w (%s)", what, err, strings.Join(said, "; "))
}

// oldMount is for kernels before 5.2.
func (m *Mount) oldMount(typ, source string) error {
	var data []string
	for _, p := range m.params(source) {
		if key, _, _ := strings.Cut(p, "="); key != "source" && key != "subtype" {
			data = append(data, p)
		}
	}
	if m.opts.Subtype != "" {
		typ += "." + m.opts.Subtype
	}
	if err := unix.Mount(source, m.Dir, typ, m.opts.Flags, strings.Join(data, ",")); err != nil {
		return err
	}
	m.attached = true
	return nil
}

// Unmount unmounts what is mounted on dir, through fusermount3 if the process
// may not itself. With lazy it takes it out of the tree now, and the mount ends
// when nobody uses it any more.
//
// For a fuseblk mount it returns when the server has answered DESTROY, so the
// file system is clean. For others the kernel ends the connection without a
// word, and Unmount returns while the server finishes: who wants to wait needs
// a sign of the server, such as a lock on its image.
func Unmount(dir string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(dir, flags)
	if errors.Is(err, unix.EPERM) {
		if herr := fusermountUnmount(dir, lazy); !errors.Is(herr, errNoFusermount) {
			err = herr
		}
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}
