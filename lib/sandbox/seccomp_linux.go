package sandbox

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A rule allows a system call, where arg is not nil only with some arguments.
type rule struct {
	nr  uint32
	arg *argRule
}

// argRule looks at the low half of one argument, under a mask.
type argRule struct {
	index  uint32
	mask   uint32
	values []uint32
}

// Offsets in struct seccomp_data; numbers below are for little-endian machines.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

const (
	retKill  = unix.SECCOMP_RET_KILL_PROCESS
	retAllow = unix.SECCOMP_RET_ALLOW
	retErrno = unix.SECCOMP_RET_ERRNO
)

// assemble makes the filter program: foreign architectures die, rules allow,
// clone3, whose flags cannot be seen, does not exist, the rest is denied.
func assemble(arch uint32, rules []rule, denied uint32) []unix.SockFilter {
	stmt := func(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
	jump := func(code uint16, k uint32, jt, jf uint8) unix.SockFilter {
		return unix.SockFilter{Code: code, Jt: jt, Jf: jf, K: k}
	}
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		ret   = unix.BPF_RET | unix.BPF_K
		jeq   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		and   = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
		loadN = offArgs
	)
	p := []unix.SockFilter{
		stmt(load, offArch),
		jump(jeq, arch, 1, 0),
		stmt(ret, retKill),
		stmt(load, offNr),
	}
	for _, r := range rules {
		body := []unix.SockFilter{stmt(ret, retAllow)}
		if r.arg != nil {
			body = []unix.SockFilter{
				stmt(load, loadN+8*r.arg.index),
				stmt(and, r.arg.mask),
			}
			for _, v := range r.arg.values {
				body = append(body, jump(jeq, v, 0, 1), stmt(ret, retAllow))
			}
			body = append(body, stmt(ret, denied))
		}
		p = append(p, jump(jeq, r.nr, 0, uint8(len(body))))
		p = append(p, body...)
	}
	return append(p,
		jump(jeq, unix.SYS_CLONE3, 0, 1),
		stmt(ret, retErrno|uint32(unix.ENOSYS)),
		stmt(ret, denied))
}

// maxArgValues is what a jump over the body of a rule can span.
const maxArgValues = 120

// filterSyscalls installs the filter on all threads, on top of earlier ones.
func filterSyscalls(o Options, rules []rule) error {
	if auditArch == 0 {
		return fmt.Errorf("not known for this architecture: %w", unix.EOPNOTSUPP)
	}
	if len(o.Ioctls) > maxArgValues {
		return fmt.Errorf("%d ioctls: %w", len(o.Ioctls), unix.E2BIG)
	}
	denied := uint32(retErrno | uint32(unix.EPERM))
	if o.Kill {
		denied = retKill
	}
	prog := assemble(auditArch, rules, denied)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return errno
	}
	if thread != 0 {
		return fmt.Errorf("thread %d has a filter of its own: %w", thread, unix.ESRCH)
	}
	return nil
}

// with allows a system call where an argument has one of the values under mask.
func with(nr, index, mask uint32, values ...uint32) rule {
	return rule{nr, &argRule{index, mask, values}}
}

const allBits = ^uint32(0)

func plain(rules []rule, nrs ...uint32) []rule {
	for _, nr := range nrs {
		rules = append(rules, rule{nr: nr})
	}
	return rules
}

// steadyRules are the system calls of a server of open descriptors, and of the
// runtime of Go.
func steadyRules(o Options) []rule {
	rules := []rule{
		with(unix.SYS_IOCTL, 1, allBits, o.Ioctls...),
		// Direct I/O is given up where it comes to be refused.
		with(unix.SYS_FCNTL, 1, allBits, unix.F_GETFL, unix.F_SETFL),
		// Threads, not processes.
		with(unix.SYS_CLONE, 0, unix.CLONE_THREAD|unix.CLONE_VM|newNamespaces, unix.CLONE_THREAD|unix.CLONE_VM),
		// Signals to itself, by which Go preempts, and calls on all threads.
		with(unix.SYS_TGKILL, 0, allBits, uint32(os.Getpid())),
		// Only the calling thread is placed.
		with(unix.SYS_SCHED_SETAFFINITY, 0, allBits, 0),
		// No code but what is there.
		with(unix.SYS_MMAP, 2, unix.PROT_EXEC, 0),
		with(unix.SYS_MPROTECT, 2, unix.PROT_EXEC, 0),
		// Names of anonymous memory and of threads, and that writeback is not to
		// wait for itself; it is for the kernel to allow that.
		with(unix.SYS_PRCTL, 0, allBits, unix.PR_SET_VMA, unix.PR_SET_NAME, unix.PR_SET_IO_FLUSHER),
	}
	rules = plain(rules,
		unix.SYS_READ, unix.SYS_PREAD64, unix.SYS_READV, unix.SYS_PREADV, unix.SYS_PREADV2,
		unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV, unix.SYS_PWRITEV, unix.SYS_PWRITEV2,
		unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_FALLOCATE, unix.SYS_CLOSE, unix.SYS_PPOLL,

		unix.SYS_MUNMAP, unix.SYS_MADVISE,
		unix.SYS_FUTEX, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_RESTART_SYSCALL,
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
		unix.SYS_GETPID, unix.SYS_GETTID,
		unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY,
		unix.SYS_CLOCK_GETTIME, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP,
		unix.SYS_EPOLL_PWAIT, unix.SYS_GETRANDOM,
	)
	if o.Uring {
		rules = plain(rules, unix.SYS_IO_URING_ENTER)
	}
	return plain(plain(rules, archSyscalls...), o.Syscalls...)
}

// What io_uring_register may do at the start.
const (
	uringRegisterFiles = 2  // IORING_REGISTER_FILES
	uringEnable        = 12 // IORING_REGISTER_ENABLE_RINGS
)

// newNamespaces are the flags of clone that no thread of Go has.
const newNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// startRules are those of a server that is still being set up: it looks at what
// it was given, has Go wait for it, and may confine itself further.
func startRules(o Options) []rule {
	rules := plain(steadyRules(o), unix.SYS_FSTAT, unix.SYS_LSEEK, unix.SYS_EPOLL_CTL)
	if o.Uring {
		rules = append(rules, with(unix.SYS_IO_URING_REGISTER, 1, allBits, uringRegisterFiles, uringEnable))
	}
	if o.Tighten {
		rules = append(rules,
			// A filter is all that this flag goes with.
			with(unix.SYS_SECCOMP, 1, allBits, unix.SECCOMP_FILTER_FLAG_TSYNC),
			with(unix.SYS_PRLIMIT64, 0, allBits, 0)) // its own
	}
	return rules
}
