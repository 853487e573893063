//go:build linux

package service

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/fuse"
)

// host is what a session does to the machine.
type host interface {
	canBlock() bool
	open(path string, flags int, mode uint32) (int, error)
	blockDevice(fd int, blockSize uint32) error
	target(path string) (*target, error)
	iomap(fusedev int) error
	mount(*mountSpec) (mnt int, err error)
	unmount(mnt int) error
}

// caller is the user for whom the helper works.
type caller struct {
	uid, gid int
	setuid   bool // the process has other rights than the caller
}

func callerNow() caller {
	u := caller{uid: os.Getuid(), gid: os.Getgid()}
	u.setuid = u.uid != os.Geteuid() || u.gid != os.Getegid()
	return u
}

// root reports whether the caller may do what the helper may: root does, of a
// user namespace too.
func (u caller) root() bool { return u.uid == 0 }

// do calls f with the caller's rights and no other. Those to files alone
// (setfsuid) would not do: sysctls look at the effective user.
func (u caller) do(f func() error) error {
	if !u.setuid {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// The system calls are those of one thread, which ends with this
		// goroutine and so takes nothing of it back.
		runtime.LockOSThread()
		done <- u.becomeThread(f)
	}()
	return <-done
}

func (u caller) becomeThread(f func() error) error {
	gid, uid := uintptr(u.gid), uintptr(u.uid)
	_, _, gerr := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid)
	_, _, uerr := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid)
	r, e, s := unix.Getresuid()
	rg, eg, sg := unix.Getresgid()
	if gerr != 0 || uerr != 0 || r != u.uid || e != u.uid || s != u.uid || rg != u.gid || eg != u.gid || sg != u.gid {
		return fmt.Errorf("taking the rights of user %d: %w", u.uid, unix.EPERM)
	}
	return f()
}

// kernelHost is the machine itself.
type kernelHost struct {
	user caller
	conf conf
}

// canBlock reports whether the process is in the user namespace of the machine:
// in others root mounts FUSE, but no block devices.
func (k *kernelHost) canBlock() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"})
}

func (k *kernelHost) open(path string, flags int, mode uint32) (fd int, err error) {
	fd = -1
	err = k.user.do(func() (err error) {
		for {
			fd, err = unix.Open(path, flags|unix.O_CLOEXEC, mode)
			if err != unix.EINTR {
				return err
			}
		}
	})
	return fd, err
}

func (k *kernelHost) blockDevice(fd int, blockSize uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return unix.ENOTBLK
	}
	switch {
	case blockSize == 0:
		return nil
	case !k.user.root():
		return fmt.Errorf("setting the block size of a device is for root: %w", unix.EPERM)
	}
	return unix.IoctlSetPointerInt(fd, unix.BLKBSZSET, int(int32(blockSize)))
}

// addIomap is FUSE_DEV_IOC_ADD_IOMAP.
const addIomap = 0xe565

func (k *kernelHost) iomap(fusedev int) error {
	if !k.user.root() {
		return unix.EPERM // a server with it can stall the machine
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fusedev), addIomap, 0); errno != 0 {
		return errno
	}
	return nil
}

// target looks a mount point up as the caller, and checks for users what
// fusermount does: that they may write to it, and own it if its folder's names
// are protected, and that it is in a file system for files.
func (k *kernelHost) target(path string) (*target, error) {
	t := &target{fd: -1, path: path}
	var err error
	t.fd, err = k.open(path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(t.fd, &st); err != nil {
		t.close()
		return nil, err
	}
	t.format = st.Mode & unix.S_IFMT
	if !k.user.root() {
		err = k.checkTarget(t, &st)
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (k *kernelHost) checkTarget(t *target, st *unix.Stat_t) error {
	if t.format == unix.S_IFDIR && st.Mode&unix.S_ISVTX != 0 && int(st.Uid) != k.user.uid {
		return fmt.Errorf("mount point %s: the folder is sticky and not the user's: %w", t.path, unix.EPERM)
	}
	// access(2) goes by the real ids, which are the caller's.
	if err := unix.Faccessat(unix.AT_FDCWD, procPath(t.fd), unix.W_OK, 0); err != nil {
		return fmt.Errorf("mount point %s: the user may not write to it: %w", t.path, err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(t.fd, &fs); err != nil {
		return err
	}
	if !slices.Contains(mountable, uint64(fs.Type)) {
		return fmt.Errorf("mount point %s: users may not mount in a file system of type %#x: %w", t.path, fs.Type, unix.EPERM)
	}
	return nil
}

// mount makes the mount and attaches it to the target that was looked up,
// wherever its name leads by then.
func (k *kernelHost) mount(s *mountSpec) (int, error) {
	if !k.user.root() {
		if err := k.conf.room(); err != nil {
			return -1, err
		}
	}
	params := append([]string{"source=" + s.source, "subtype=" + s.subtype}, s.options...)
	mnt, err := fuse.Fsmount(s.typ, params, s.flags)
	if errOldKernel(err) {
		return -1, k.oldMount(s)
	}
	if err != nil {
		return -1, err
	}
	err = unix.MoveMount(mnt, "", s.target.fd, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		unix.Close(mnt)
		return -1, fmt.Errorf("move_mount: %w", err)
	}
	return mnt, nil
}

// oldMount is for kernels before 5.2, and containers that hide the calls.
func (k *kernelHost) oldMount(s *mountSpec) error {
	return unix.Mount(s.source, procPath(s.target.fd), s.typ+"."+s.subtype, s.flags, strings.Join(s.options, ","))
}

func (k *kernelHost) unmount(mnt int) error {
	if mnt < 0 {
		return errors.New("this kernel has no handle of it; unmount it")
	}
	return unix.Unmount(procPath(mnt), unix.MNT_DETACH)
}

func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
