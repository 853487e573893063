//go:build linux && sandboxprobe

package main

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempt tries one way out. Where it gets through it does no harm: names do
// not exist, descriptors are bad, signals are 0. That the kernel complains of
// that, and does not deny the call, is an escape.
type attempt struct {
	name string
	try  func() error
}

const (
	nowhere = "/nonexistent/e2kit"
	bad     = ^uintptr(0) // a descriptor, or flags that nobody has
)

var (
	scratch    [4096]byte
	scratchPtr = unsafe.Pointer(&scratch)
	parent     = uintptr(os.Getppid())
)

func str(s string) uintptr {
	p, _ := syscall.BytePtrFromString(s)
	kept = append(kept, p)
	return uintptr(unsafe.Pointer(p))
}

// kept holds what system calls are told the address of.
var kept []*byte

// call makes a system call. A descriptor that it returns is closed.
func call(nr uintptr, args ...uintptr) func() error {
	var a [6]uintptr
	copy(a[:], args)
	return func() error {
		_, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 {
			return errno
		}
		return nil
	}
}

// makes is call for what returns a descriptor.
func makes(nr uintptr, args ...uintptr) func() error {
	var a [6]uintptr
	copy(a[:], args)
	return func() error {
		fd, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 {
			return errno
		}
		return unix.Close(int(fd))
	}
}

// onAll issues an ioctl on all descriptors that there may be: the image, a
// device, /dev/fuse. It is denied if it is on each.
func onAll(req uintptr) func() error {
	return func() error {
		for fd := range uintptr(256) {
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, req, 0)
			if errno != unix.EPERM && errno != unix.EBADF {
				return errno
			}
		}
		return unix.EPERM
	}
}

var attempts = append([]attempt{
	// Files by name.
	{"openat", makes(unix.SYS_OPENAT, atCwd, str("/etc/passwd"), unix.O_RDONLY)},
	{"openat O_PATH", makes(unix.SYS_OPENAT, atCwd, str("/"), unix.O_PATH)},
	{"openat2", makes(unix.SYS_OPENAT2, atCwd, str("/etc/passwd"), uintptr(scratchPtr), unix.SizeofOpenHow)},
	{"open /proc/self/mem", makes(unix.SYS_OPENAT, atCwd, str("/proc/self/mem"), unix.O_RDWR)},
	{"open the parent's maps", openParent},
	{"open_by_handle_at", openHandle},
	{"name_to_handle_at", call(unix.SYS_NAME_TO_HANDLE_AT, atCwd, str(nowhere), uintptr(scratchPtr), uintptr(scratchPtr), 0)},
	{"mkdirat", call(unix.SYS_MKDIRAT, atCwd, str(nowhere), 0o700)},
	{"mknodat", call(unix.SYS_MKNODAT, atCwd, str(nowhere), unix.S_IFREG, 0)},
	{"unlinkat", call(unix.SYS_UNLINKAT, atCwd, str(nowhere), 0)},
	{"renameat2", call(unix.SYS_RENAMEAT2, atCwd, str(nowhere), atCwd, str(nowhere), 0)},
	{"linkat", call(unix.SYS_LINKAT, atCwd, str(nowhere), atCwd, str(nowhere), 0)},
	{"symlinkat", call(unix.SYS_SYMLINKAT, str("x"), atCwd, str(nowhere))},
	{"truncate", call(unix.SYS_TRUNCATE, str(nowhere), 0)},
	{"fchmodat", call(unix.SYS_FCHMODAT, atCwd, str(nowhere), 0)},
	{"fchownat", call(unix.SYS_FCHOWNAT, atCwd, str(nowhere), 0, 0, 0)},
	{"utimensat", call(unix.SYS_UTIMENSAT, atCwd, str(nowhere), 0, 0)},
	{"setxattr", call(unix.SYS_SETXATTR, str(nowhere), str("user.x"), uintptr(scratchPtr), 1, 0)},
	{"statx", call(unix.SYS_STATX, atCwd, str("/"), 0, 0, uintptr(scratchPtr))},
	{"statfs", call(unix.SYS_STATFS, str("/"), uintptr(scratchPtr))},
	{"faccessat", call(unix.SYS_FACCESSAT, atCwd, str("/"), 0)},
	{"readlinkat", call(unix.SYS_READLINKAT, atCwd, str("/proc/self/exe"), uintptr(scratchPtr), 100)},
	{"chdir", call(unix.SYS_CHDIR, str(nowhere))},
	{"chroot", call(unix.SYS_CHROOT, str(nowhere))},
	{"getdents64", call(unix.SYS_GETDENTS64, bad, uintptr(scratchPtr), 100)},

	// New descriptors.
	{"socket INET", makes(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)},
	{"socket UNIX", makes(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0)},
	{"socket NETLINK", makes(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, 0)},
	{"socketpair", call(unix.SYS_SOCKETPAIR, unix.AF_UNIX, bad, 0, uintptr(scratchPtr))},
	{"connect", call(unix.SYS_CONNECT, bad, uintptr(scratchPtr), 16)},
	{"bind", call(unix.SYS_BIND, bad, uintptr(scratchPtr), 16)},
	{"accept4", call(unix.SYS_ACCEPT4, bad, 0, 0, 0)},
	{"sendto", call(unix.SYS_SENDTO, bad, uintptr(scratchPtr), 1, 0, 0, 0)},
	{"sendmsg", call(unix.SYS_SENDMSG, bad, uintptr(scratchPtr), 0)},
	{"recvmsg", call(unix.SYS_RECVMSG, bad, uintptr(scratchPtr), 0)},
	{"dup", makes(unix.SYS_DUP, 0)},
	{"fcntl F_DUPFD", makes(unix.SYS_FCNTL, 0, unix.F_DUPFD_CLOEXEC, 0)},
	{"memfd_create", makes(unix.SYS_MEMFD_CREATE, str("x"), 0)},
	{"pipe2", call(unix.SYS_PIPE2, uintptr(scratchPtr), bad)},
	{"eventfd2", makes(unix.SYS_EVENTFD2, 0, 0)},
	{"epoll_create1", makes(unix.SYS_EPOLL_CREATE1, 0)},
	{"inotify_init1", makes(unix.SYS_INOTIFY_INIT1, 0)},
	{"fanotify_init", makes(unix.SYS_FANOTIFY_INIT, 0, 0)},
	{"timerfd_create", makes(unix.SYS_TIMERFD_CREATE, 0, 0)},
	{"signalfd4", makes(unix.SYS_SIGNALFD4, bad, uintptr(scratchPtr), 8, 0)},
	{"userfaultfd", makes(unix.SYS_USERFAULTFD, 1)},
	{"io_uring_setup", call(unix.SYS_IO_URING_SETUP, 1, 0)},
	{"io_uring_register buffers", call(unix.SYS_IO_URING_REGISTER, bad, 0, uintptr(scratchPtr), 1)},
	{"io_uring_register files", call(unix.SYS_IO_URING_REGISTER, bad, 2, uintptr(scratchPtr), 1)},
	{"io_uring_register probe", call(unix.SYS_IO_URING_REGISTER, bad, 8, uintptr(scratchPtr), 1)},
	{"io_uring_register restrictions", call(unix.SYS_IO_URING_REGISTER, bad, 11, uintptr(scratchPtr), 1)},
	{"io_uring_register ring fd", call(unix.SYS_IO_URING_REGISTER, bad, 20, uintptr(scratchPtr), 1)},
	{"io_setup", call(unix.SYS_IO_SETUP, 1, 0)},
	{"perf_event_open", call(unix.SYS_PERF_EVENT_OPEN, 0, 0, bad, bad, 0)},
	{"bpf", call(unix.SYS_BPF, 9999, 0, 0)},
	{"splice", call(unix.SYS_SPLICE, bad, 0, bad, 0, 1, 0)},
	{"copy_file_range", call(unix.SYS_COPY_FILE_RANGE, bad, 0, bad, 0, 1, 0)},

	// Programs and processes.
	{"execve", call(unix.SYS_EXECVE, str(nowhere), 0, 0)},
	{"execveat", call(unix.SYS_EXECVEAT, atCwd, str(nowhere), 0, 0, 0)},
	{"fork", forked},
	{"clone NEWUSER", call(unix.SYS_CLONE, unix.CLONE_NEWUSER|unix.CLONE_FS)}, // the two are refused together
	{"clone thread NEWNS", call(unix.SYS_CLONE, unix.CLONE_NEWNS|unix.CLONE_FS|unix.CLONE_VM|unix.CLONE_SIGHAND|unix.CLONE_THREAD)},
	{"clone3", call(unix.SYS_CLONE3, 0, 0)},
	{"ptrace", call(unix.SYS_PTRACE, unix.PTRACE_PEEKDATA, parent, 0, uintptr(scratchPtr))},
	{"process_vm_readv", readParent},
	{"process_vm_writev", call(unix.SYS_PROCESS_VM_WRITEV, parent, 0, 0, 0, 0, 0)},
	{"process_madvise", call(unix.SYS_PROCESS_MADVISE, bad, 0, 0, 0, 0)},
	{"kcmp", call(unix.SYS_KCMP, parent, parent, 0, 0, 0)},
	{"pidfd_open", makes(unix.SYS_PIDFD_OPEN, parent, 0)},
	{"pidfd_getfd", call(unix.SYS_PIDFD_GETFD, bad, 0, 0)},
	{"kill the parent", call(unix.SYS_KILL, parent, 0)},
	{"tgkill the parent", call(unix.SYS_TGKILL, parent, parent, 0)},
	{"tkill the parent", call(unix.SYS_TKILL, parent, 0)},
	{"rt_sigqueueinfo", call(unix.SYS_RT_SIGQUEUEINFO, parent, 0, uintptr(scratchPtr))},
	{"prlimit of the parent", call(unix.SYS_PRLIMIT64, parent, unix.RLIMIT_NOFILE, 0, uintptr(scratchPtr))},
	{"sched_setaffinity", call(unix.SYS_SCHED_SETAFFINITY, parent, 0, 0)},

	// Mounts and namespaces.
	{"mount", call(unix.SYS_MOUNT, str("none"), str(nowhere), str("tmpfs"), 0, 0)},
	{"umount2", call(unix.SYS_UMOUNT2, str(nowhere), 0)},
	{"pivot_root", call(unix.SYS_PIVOT_ROOT, str(nowhere), str(nowhere))},
	{"fsopen", makes(unix.SYS_FSOPEN, str("tmpfs"), 0)},
	{"open_tree", makes(unix.SYS_OPEN_TREE, atCwd, str("/"), 0)},
	{"move_mount", call(unix.SYS_MOVE_MOUNT, bad, str(""), bad, str(""), 0)},
	{"mount_setattr", call(unix.SYS_MOUNT_SETATTR, atCwd, str(nowhere), 0, uintptr(scratchPtr), 32)},
	{"unshare NEWUTS", call(unix.SYS_UNSHARE, unix.CLONE_NEWUTS)},
	{"unshare NEWNET", call(unix.SYS_UNSHARE, unix.CLONE_NEWNET)},
	{"setns", call(unix.SYS_SETNS, bad, 0)},

	// Privilege, and the sandbox itself.
	{"setuid", call(unix.SYS_SETUID, uintptr(os.Getuid()))},
	{"setresgid", call(unix.SYS_SETRESGID, bad, bad, bad)},
	{"setgroups", call(unix.SYS_SETGROUPS, 1<<20, 0)},
	{"capset", call(unix.SYS_CAPSET, 0, 0)},
	{"prctl dumpable", call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1)},
	{"prctl secure bits", call(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, 0)},
	{"prctl seccomp", call(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, 99)},
	{"prctl no_new_privs", call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 0)},
	{"prctl MDWE", call(unix.SYS_PRCTL, unix.PR_SET_MDWE, 0)},
	{"prctl ptracer", call(unix.SYS_PRCTL, unix.PR_SET_PTRACER, 0)},
	{"prctl MM", call(unix.SYS_PRCTL, unix.PR_SET_MM, 99, 0, 0, 0)},
	{"prctl ambient", call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)},
	{"seccomp", call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0)},
	{"seccomp on all threads", call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, 0)},
	{"landlock_restrict_self", call(unix.SYS_LANDLOCK_RESTRICT_SELF, bad, 0)},
	{"raise a limit", call(unix.SYS_SETRLIMIT, 99, uintptr(scratchPtr))},
	{"personality", call(unix.SYS_PERSONALITY, 0xffffffff)},

	// Memory.
	{"mmap executable", mapped},
	{"mprotect executable", protected},
	{"pkey_mprotect executable", call(unix.SYS_PKEY_MPROTECT, 1, 4096, unix.PROT_EXEC, bad)},
	{"shmget", call(unix.SYS_SHMGET, 77, 0, 0)},
	{"shmat", call(unix.SYS_SHMAT, bad, 0, 0)},
	{"mlock", call(unix.SYS_MLOCK, 0, 0)},
	{"memfd_secret", call(unix.SYS_MEMFD_SECRET, bad)},

	// Devices.
	{"ioctl TIOCSTI", onAll(unix.TIOCSTI)},
	{"ioctl BLKRRPART", onAll(unix.BLKRRPART)},
	{"ioctl SG_IO", onAll(0x2285)},
	{"ioctl FIBMAP", onAll(1)},
	{"ioctl FUSE clone", onAll(0x8004e500)},
	{"ioctl FUSE unknown", onAll(0xe5ff)},

	// The kernel and the machine.
	{"keyctl", call(unix.SYS_KEYCTL, 0, ^uintptr(1), 0)},
	{"add_key", call(unix.SYS_ADD_KEY, 0, 0, 0, 0, 0)},
	{"request_key", call(unix.SYS_REQUEST_KEY, 0, 0, 0, 0)},
	{"kexec_load", call(unix.SYS_KEXEC_LOAD, 0, 0, 0, bad)},
	{"init_module", call(unix.SYS_INIT_MODULE, 0, 0, 0)},
	{"finit_module", call(unix.SYS_FINIT_MODULE, bad, 0, 0)},
	{"delete_module", call(unix.SYS_DELETE_MODULE, str("e2kit_nonexistent"), 0)},
	{"reboot", call(unix.SYS_REBOOT, 0, 0, 0, 0)},
	{"swapon", call(unix.SYS_SWAPON, str(nowhere), 0)},
	{"acct", call(unix.SYS_ACCT, str(nowhere))},
	{"syslog", call(unix.SYS_SYSLOG, 10, 0, 0)},
	{"sethostname", call(unix.SYS_SETHOSTNAME, 0, 1<<20)},
	{"clock_settime", call(unix.SYS_CLOCK_SETTIME, 0, 0)},
	{"quotactl", call(unix.SYS_QUOTACTL, 0, 0, 0, 0)},
}, archAttempts...)

const atCwd = ^uintptr(99) // AT_FDCWD

func openParent() error {
	return makes(unix.SYS_OPENAT, atCwd, str("/proc/"+itoa(parent)+"/maps"), unix.O_RDONLY)()
}

func itoa(n uintptr) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

func openHandle() error {
	h := unix.NewFileHandle(1, make([]byte, 8))
	fd, err := unix.OpenByHandleAt(unix.AT_FDCWD, h, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// readParent reads what the parent, the same program, has where this process
// has its code.
func readParent() error {
	local := []unix.Iovec{{Base: &scratch[0]}}
	local[0].SetLen(16)
	remote := []unix.RemoteIovec{{Base: codeAddress(), Len: 16}}
	_, err := unix.ProcessVMReadv(int(parent), local, remote, 0)
	return err
}

func codeAddress() uintptr {
	f := codeAddress
	return **(**uintptr)(unsafe.Pointer(&f))
}

// forked makes a process that ends at once.
//
//go:nosplit
//go:norace
func forked() error {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		for {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	_, err := unix.Wait4(int(pid), nil, 0, nil)
	return err
}

func mapped() error {
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		unix.Munmap(b)
	}
	return err
}

func protected() error {
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	defer unix.Munmap(b)
	return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
}
