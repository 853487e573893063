package sandbox

import (
	"encoding/binary"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// run executes a filter program on a system call, as the kernel does.
func run(t *testing.T, prog []unix.SockFilter, arch, nr uint32, args ...uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.LittleEndian.PutUint32(data[offNr:], nr)
	binary.LittleEndian.PutUint32(data[offArch:], arch)
	for i, a := range args {
		binary.LittleEndian.PutUint64(data[offArgs+8*i:], a)
	}
	var acc uint32
	for pc := 0; pc < len(prog); pc++ {
		ins := prog[pc]
		switch ins.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = binary.LittleEndian.Uint32(data[ins.K:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= ins.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			if acc == ins.K {
				pc += int(ins.Jt)
			} else {
				pc += int(ins.Jf)
			}
		case unix.BPF_RET | unix.BPF_K:
			return ins.K
		default:
			t.Fatalf("instruction %d has code %#x", pc, ins.Code)
		}
	}
	t.Fatal("ran over the end")
	return 0
}

// The filter has a form that the kernel takes: jumps within bounds.
func TestAssemble(t *testing.T) {
	if auditArch == 0 {
		t.Skip("no filter here")
	}
	ioctls := make([]uint32, maxArgValues)
	prog := assemble(auditArch, startRules(Options{Ioctls: ioctls, Tighten: true}), retKill)
	if len(prog) > 4096 {
		t.Errorf("%d instructions", len(prog))
	}
	for i, ins := range prog {
		if ins.Code&7 == unix.BPF_JMP && (i+1+int(ins.Jt) >= len(prog) || i+1+int(ins.Jf) >= len(prog)) {
			t.Errorf("instruction %d jumps out", i)
		}
	}
	if err := filterSyscalls(Options{Ioctls: make([]uint32, maxArgValues+1)}, nil); err == nil {
		t.Error("more ioctls than a jump can span are taken")
	}
}

// TestEveryCall runs the filters on every number: what is allowed whatever the
// arguments, and what is allowed with some of them, is as listed here, so that
// nobody adds to it unseen.
func TestEveryCall(t *testing.T) {
	if auditArch == 0 {
		t.Skip("no filter here")
	}
	steady := []uint32{
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64,
		unix.SYS_PREADV, unix.SYS_PWRITEV, unix.SYS_PREADV2, unix.SYS_PWRITEV2,
		unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_FALLOCATE, unix.SYS_CLOSE, unix.SYS_PPOLL, unix.SYS_EPOLL_PWAIT,
		unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_FUTEX, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_RESTART_SYSCALL,
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
		unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY,
		unix.SYS_CLOCK_GETTIME, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_GETRANDOM,
	}
	steady = append(steady, archSyscalls...)
	start := append(slices.Clone(steady), unix.SYS_FSTAT, unix.SYS_LSEEK, unix.SYS_EPOLL_CTL)
	const some = 0xe501
	self := uint64(os.Getpid())
	// Calls that the arguments decide: the kinds that pass, and that do not.
	cases := []struct {
		nr        uint32
		yes, no   [][]uint64
		startOnly bool
	}{
		{unix.SYS_IOCTL, [][]uint64{{3, some}, {9, some}}, [][]uint64{{3, unix.TIOCSTI}, {3, unix.BLKRRPART}, {3, 0}}, false},
		{unix.SYS_FCNTL, [][]uint64{{3, unix.F_GETFL}, {3, unix.F_SETFL}}, [][]uint64{{3, unix.F_DUPFD}, {3, unix.F_SETOWN}, {3, unix.F_OFD_SETLK}}, false},
		{unix.SYS_CLONE, [][]uint64{{unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD}},
			[][]uint64{{uint64(unix.SIGCHLD)}, {unix.CLONE_VM | unix.CLONE_VFORK}, {unix.CLONE_NEWUSER}, {unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_NEWNET}}, false},
		{unix.SYS_TGKILL, [][]uint64{{self, 77, 9}}, [][]uint64{{self + 1, self + 1, 9}, {1, 1, 9}}, false},
		{unix.SYS_SCHED_SETAFFINITY, [][]uint64{{0, 128}}, [][]uint64{{1, 128}, {self + 1, 128}}, false},
		{unix.SYS_MMAP, [][]uint64{{0, 4096, 3}}, [][]uint64{{0, 4096, 4}, {0, 4096, 7}}, false},
		{unix.SYS_MPROTECT, [][]uint64{{0, 4096, 3}}, [][]uint64{{0, 4096, 5}}, false},
		{unix.SYS_PRCTL, [][]uint64{{unix.PR_SET_VMA}, {unix.PR_SET_NAME}, {unix.PR_SET_IO_FLUSHER}},
			[][]uint64{{unix.PR_SET_DUMPABLE, 1}, {unix.PR_SET_SECCOMP}, {unix.PR_SET_PTRACER}, {unix.PR_SET_MM}, {unix.PR_SET_MDWE}}, false},
		{unix.SYS_SECCOMP, [][]uint64{{1, 1}}, [][]uint64{{1, 0}, {1, 8}, {0, 0}}, true},
		{unix.SYS_PRLIMIT64, [][]uint64{{0, 7}}, [][]uint64{{1, 7}, {self + 1, 7}}, true},
	}
	const enter = unix.SYS_IO_URING_ENTER
	for _, stage := range []struct {
		name  string
		rules []rule
		plain []uint32
		start bool
		uring []uint64 // registrations with an io_uring
	}{
		{"start", startRules(Options{Ioctls: []uint32{some}, Tighten: true}), start, true, nil},
		{"steady", steadyRules(Options{Ioctls: []uint32{some}}), steady, false, nil},
		{"start with io_uring", startRules(Options{Ioctls: []uint32{some}, Tighten: true, Uring: true}), append(start, enter), true,
			[]uint64{uringRegisterFiles, uringEnable}},
		{"steady with io_uring", steadyRules(Options{Ioctls: []uint32{some}, Uring: true}), append(steady, enter), false, nil},
	} {
		t.Run(stage.name, func(t *testing.T) {
			const no = retErrno | uint32(unix.EPERM)
			prog := assemble(auditArch, stage.rules, no)
			decided := map[uint32]bool{}
			if stage.uring != nil {
				decided[unix.SYS_IO_URING_REGISTER] = true
				for op := range uint64(64) {
					want := no
					if slices.Contains(stage.uring, op) {
						want = retAllow
					}
					if got := run(t, prog, auditArch, unix.SYS_IO_URING_REGISTER, 3, op); got != want {
						t.Errorf("io_uring_register of %d: %#x", op, got)
					}
				}
			}
			for _, c := range cases {
				if c.startOnly && !stage.start {
					continue
				}
				decided[c.nr] = true
				for _, args := range c.yes {
					if got := run(t, prog, auditArch, c.nr, args...); got != retAllow {
						t.Errorf("call %d of %#x: %#x", c.nr, args, got)
					}
				}
				for _, args := range c.no {
					if got := run(t, prog, auditArch, c.nr, args...); got != no {
						t.Errorf("call %d of %#x: %#x", c.nr, args, got)
					}
				}
			}
			for nr := uint32(0); nr < 1024; nr++ {
				want := no
				switch {
				case decided[nr]:
					continue
				case slices.Contains(stage.plain, nr):
					want = retAllow
				case nr == unix.SYS_CLONE3:
					want = retErrno | uint32(unix.ENOSYS)
				}
				if got := run(t, prog, auditArch, nr); got != want {
					t.Errorf("call %d: %#x, want %#x", nr, got, want)
				}
				// The numbers of x32, and the calls of another architecture.
				if got := run(t, prog, auditArch, nr|1<<30); got != no {
					t.Errorf("call %#x: %#x", nr|1<<30, got)
				}
				if got := run(t, prog, unix.AUDIT_ARCH_I386, nr); got != retKill {
					t.Errorf("call %d of i386: %#x", nr, got)
				}
			}
		})
	}
}

func TestLandlockAttr(t *testing.T) {
	for _, c := range []struct {
		abi       int
		want      llRulesetAttr
		size      uintptr
		warn, all string
	}{
		{1, llRulesetAttr{fs: 1<<13 - 1}, 8, "truncation (ABI 3), TCP (ABI 4), device ioctls (ABI 5), abstract sockets and signals (ABI 6)",
			"truncation (ABI 3), TCP (ABI 4), device ioctls (ABI 5), abstract sockets and signals (ABI 6), named sockets (ABI 9), UDP (ABI 10)"},
		{3, llRulesetAttr{fs: 1<<15 - 1}, 8, "TCP (ABI 4), device ioctls (ABI 5), abstract sockets and signals (ABI 6)",
			"TCP (ABI 4), device ioctls (ABI 5), abstract sockets and signals (ABI 6), named sockets (ABI 9), UDP (ABI 10)"},
		{4, llRulesetAttr{fs: 1<<15 - 1, net: 3}, 16, "device ioctls (ABI 5), abstract sockets and signals (ABI 6)",
			"device ioctls (ABI 5), abstract sockets and signals (ABI 6), named sockets (ABI 9), UDP (ABI 10)"},
		{7, llRulesetAttr{fs: 1<<16 - 1, net: 3, scoped: 3}, 24, "", "named sockets (ABI 9), UDP (ABI 10)"},
		{9, llRulesetAttr{fs: 1<<17 - 1, net: 3, scoped: 3}, 24, "", "UDP (ABI 10)"},
		{10, llRulesetAttr{fs: 1<<17 - 1, net: 15, scoped: 3}, 24, "", ""},
		{99, llRulesetAttr{fs: 1<<17 - 1, net: 15, scoped: 3}, 24, "", ""},
	} {
		attr, size := llAttr(c.abi)
		if attr != c.want || size != c.size {
			t.Errorf("ABI %d: %#x, size %d", c.abi, attr, size)
		}
		if warn, all := llLacks(c.abi, false), llLacks(c.abi, true); warn != c.warn || all != c.all {
			t.Errorf("ABI %d lacks %q, in all %q", c.abi, warn, all)
		}
	}
}
