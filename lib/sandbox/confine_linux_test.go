package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is to be confined cannot be the test process: TestMain turns the binary
// into the process of one test.
func TestMain(m *testing.M) {
	switch os.Getenv("SANDBOX_TEST") {
	case "":
		os.Exit(m.Run())
	case "confined":
		confined(false)
	case "tightened":
		confined(true)
	case "memory":
		memory()
	case "namespaces":
		namespaces()
	case "kill":
		if _, err := Confine(Options{Kill: true}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		fmt.Println("alive")
	}
	os.Exit(0)
}

// child runs this binary in a mode.
func child(t *testing.T, mode string) (string, error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "SANDBOX_TEST="+mode)
	out, err := cmd.CombinedOutput()
	if bytes.Contains(out, []byte("no_new_privs: operation not supported")) {
		t.Skip("linked with cgo, as for the race detector")
	}
	return string(out), err
}

func TestConfine(t *testing.T) {
	for _, mode := range []string{"confined", "tightened"} {
		t.Run(mode, func(t *testing.T) {
			out, err := child(t, mode)
			if err != nil || !strings.HasSuffix(out, "done\n") {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Log(out)
		})
	}
}

func TestKill(t *testing.T) {
	out, err := child(t, "kill")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
		t.Fatalf("%v\n%s", err, out)
	}
}

// failures collects what is wrong.
var failed bool

func check(ok bool, format string, args ...any) {
	if !ok {
		failed = true
		fmt.Printf(format+"\n", args...)
	}
}

// confined opens what a server has, confines itself, and tries.
func confined(tighten bool) {
	f, err := os.Create("image")
	check(err == nil, "create: %v", err)
	check(f.Truncate(1<<20) == nil, "truncate")
	tasks, err := filepath.Glob("/proc/self/task/*")
	check(err == nil && len(tasks) > 0, "threads: %v", err)
	dir, err := os.Open("/")
	check(err == nil, "open /: %v", err)

	// Threads of before are confined too: one waits in a system call.
	r, w, err := os.Pipe()
	check(err == nil, "pipe: %v", err)
	status := make(chan string)
	var locked sync.WaitGroup
	locked.Add(1)
	go func() {
		runtime.LockOSThread()
		self, _ := os.Open(fmt.Sprintf("/proc/self/task/%d/status", unix.Gettid()))
		locked.Done()
		syscall.Read(int(r.Fd()), make([]byte, 1))
		b := make([]byte, 4096)
		n, _ := self.Read(b)
		_, err := os.Open("/etc/passwd")
		check(err != nil, "another thread opens a file")
		status <- string(b[:n])
	}()
	locked.Wait()
	time.Sleep(10 * time.Millisecond)

	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	check(err == nil, "socketpair: %v", err)
	o := Options{Ioctls: []uint32{unix.TIOCINQ}, Tighten: tighten, Memory: 1 << 40}
	if tighten {
		o.Files, o.Syscalls = 64, []uint32{unix.SYS_RECVMSG}
	}
	missing, err := Confine(o)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if tighten {
		check(unix.Sendmsg(pair[0], []byte("x"), nil, nil, 0) != nil, "sendmsg is allowed at the start")
		_, err := unix.Write(pair[0], []byte("x"))
		check(err == nil, "write to the socket: %v", err)
		_, _, _, _, err = unix.Recvmsg(pair[1], make([]byte, 1), nil, 0)
		check(err == nil, "recvmsg at the start: %v", err)
		if err := Tighten(Options{Ioctls: o.Ioctls}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	for _, m := range missing {
		fmt.Println("missing:", m)
	}

	denied := func(what string, err error) {
		check(errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES), "%s: %v", what, err)
	}
	_, err = os.Open("/etc/passwd")
	denied("open", err)
	_, err = os.ReadDir(".")
	denied("read a directory", err)
	denied("mkdir", os.Mkdir("d", 0o755))
	denied("unlink", os.Remove("image"))
	denied("chmod", os.Chmod("image", 0o777))
	_, err = unix.Openat(int(dir.Fd()), "etc", unix.O_PATH, 0)
	denied("openat", err)
	_, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	denied("socket", err)
	_, err = net.Dial("tcp", "127.0.0.1:1")
	denied("dial", err)
	denied("execve", syscall.Exec("/bin/true", []string{"true"}, nil))
	denied("fork", exec.Command("/proc/self/exe").Start())
	_, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	denied("clone", errno)
	denied("ptrace", unix.PtraceAttach(os.Getppid()))
	denied("kill", unix.Kill(os.Getppid(), 0))
	_, _, errno = unix.Syscall(unix.SYS_TGKILL, uintptr(os.Getppid()), uintptr(os.Getppid()), 0)
	denied("tgkill", errno)
	var cpus unix.CPUSet
	check(unix.SchedGetaffinity(0, &cpus) == nil, "sched_getaffinity")
	check(unix.SchedSetaffinity(0, &cpus) == nil, "sched_setaffinity of itself")
	denied("sched_setaffinity", unix.SchedSetaffinity(os.Getppid(), &cpus))
	denied("mount", unix.Mount("none", "/tmp", "tmpfs", 0, ""))
	denied("umount", unix.Unmount("/proc", 0))
	denied("unshare", unix.Unshare(unix.CLONE_NEWUSER))
	denied("setuid", unix.Setuid(0))
	denied("bpf", syscallErr(unix.SYS_BPF))
	denied("io_uring_setup", syscallErr(unix.SYS_IO_URING_SETUP))
	denied("process_vm_readv", syscallErr(unix.SYS_PROCESS_VM_READV))
	denied("keyctl", syscallErr(unix.SYS_KEYCTL))
	_, err = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	denied("executable memory", err)
	denied("TIOCSTI", unix.IoctlSetInt(0, unix.TIOCSTI, 0))
	_, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	denied("dup", err)
	check(errors.Is(syscallErr(unix.SYS_CLONE3), unix.ENOSYS), "clone3 exists")
	denied("unlock secure bits", unix.Prctl(unix.PR_SET_SECUREBITS, 0, 0, 0, 0))
	denied("dumpable again", unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
	_, _, _, _, err = unix.Recvmsg(pair[1], make([]byte, 1), nil, unix.MSG_DONTWAIT)
	denied("recvmsg", err)
	denied("unknown ioctl", unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0))
	if tighten {
		var st unix.Stat_t
		denied("fstat", unix.Fstat(int(f.Fd()), &st))
		denied("another filter", filterSyscalls(Options{}, startRules(Options{})))
		denied("more descriptors", unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 9, Max: 9}))
	}
	// A call on all threads, as for memory flags of writeback.
	_, _, errno = syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0)
	check(errno == 0, "a call on all threads: %v", errno)
	_, _, errno = syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0)
	check(errno == unix.EPERM, "PR_SET_IO_FLUSHER without a capability: %v", errno)

	// What a server does still works.
	data := bytes.Repeat([]byte("x"), 4096)
	_, err = f.WriteAt(data, 8192)
	check(err == nil, "write: %v", err)
	_, err = f.ReadAt(data, 8192)
	check(err == nil && data[0] == 'x', "read: %v", err)
	_, err = unix.Preadv(int(f.Fd()), [][]byte{data, data[:1]}, 0)
	check(err == nil, "preadv: %v", err)
	check(f.Sync() == nil, "fsync")
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(r.Fd()), Events: unix.POLLIN}}, 0)
	check(err == nil, "poll: %v", err)
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
	check(err == nil || errors.Is(err, unix.EOPNOTSUPP), "fallocate: %v", err)
	_, err = unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
	check(err == nil, "an allowed ioctl: %v", err)

	// And so does Go: threads, timers, garbage collection, panics.
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if i%2 == 0 {
				runtime.LockOSThread() // a thread of its own
			}
			defer func() { recover() }()
			for range 20 {
				b := make([]byte, 1<<16)
				f.ReadAt(b, 0)
				time.Sleep(time.Millisecond)
			}
			var p *int
			*p = 1
		}()
	}
	done := make(chan struct{})
	go func() { // a loop that only a signal can preempt
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
		}
	}()
	for range 5 {
		runtime.GC()
	}
	wg.Wait()
	close(done)
	check(time.Now().Local().String() != "", "time")

	w.Write([]byte("x"))
	s := <-status
	for _, line := range []string{"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapInh:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if os.Getuid() != 0 && strings.HasPrefix(line, "CapBnd") {
			continue
		}
		check(strings.Contains(s, line), "a thread of before has not %s", line)
	}
	if failed {
		os.Exit(1)
	}
	fmt.Println("done")
}

func syscallErr(nr uintptr) error {
	_, _, errno := unix.Syscall(nr, 0, 0, 0)
	return errno
}

// memory takes more than the limit allows.
func memory() {
	if _, err := Confine(Options{Memory: 512 << 20}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("confined")
	kept := [][]byte{}
	for range 1024 {
		kept = append(kept, make([]byte, 1<<20))
	}
	fmt.Println("alive with", len(kept))
}

func TestMemory(t *testing.T) {
	out, err := child(t, "memory")
	if err == nil || !strings.Contains(out, "confined\n") || !strings.Contains(out, "out of memory") {
		t.Fatalf("%v\n%.1000s", err, out)
	}
}
