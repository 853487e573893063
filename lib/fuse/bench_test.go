//go:build linux

package fuse

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The clients of the benchmarks are processes of their own, so that Go's
// scheduler does not see both ends. TestMain turns the test binary into one.
func TestMain(m *testing.M) {
	if spec := os.Getenv("FUSE_TEST_CLIENT"); spec != "" {
		if err := client(strings.Fields(spec)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv("FUSE_TEST_SERVER"); dir != "" {
		if err := serveConfined(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	runtime.GOMAXPROCS(2*runtime.NumCPU() + 2) // as Serve does
	os.Exit(m.Run())
}

// client does "op count path cpu": cpu -1 leaves the placement to the kernel.
func client(args []string) error {
	op, path := args[0], args[2]
	n, _ := strconv.Atoi(args[1])
	if cpu, _ := strconv.Atoi(args[3]); cpu >= 0 {
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return err
		}
	}
	flags := unix.O_RDWR
	if op == "read" || op == "write" {
		flags |= unix.O_DIRECT
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	size := 4096
	if len(args) > 4 {
		size, _ = strconv.Atoi(args[4])
	}
	buf := alignedBuf(size)
	os.Stdout.WriteString("ready\n")
	os.Stdin.Read(make([]byte, 1))
	for i := range n {
		switch op {
		case "getattr":
			err = unix.Fstat(fd, &st)
		case "read":
			_, err = unix.Pread(fd, buf, int64(i%64*size))
		case "write":
			_, err = unix.Pwrite(fd, buf, int64(i%64*size))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// startClient returns a function that lets the client go and one that waits.
func startClient(b *testing.B, spec string) (start, wait func()) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "FUSE_TEST_CLIENT="+spec, "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		b.Fatal(err)
	}
	return func() { in.Write([]byte{'x'}) }, func() {
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	}
}

func cpuTime() time.Duration {
	var ru syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func benchClients(b *testing.B, clients int, op string, size int, cpu int, cfg Config) {
	m := newMemFS()
	m.valid = 0
	cfg.Flags = memFlags &^ WritebackCache
	x := mountMem(b, m, MountOptions{}, cfg)
	name := filepath.Join(x.dir, "f")
	if err := os.WriteFile(name, make([]byte, 64*size), 0o644); err != nil {
		b.Fatal(err)
	}
	var starts, waits []func()
	for range clients {
		s, w := startClient(b, fmt.Sprintf("%s %d %s %d %d", op, b.N/clients+1, name, cpu, size))
		starts, waits = append(starts, s), append(waits, w)
	}
	if size > 4096 {
		b.SetBytes(int64(size))
	}
	before := cpuTime()
	b.ResetTimer()
	for _, s := range starts {
		s()
	}
	var wg sync.WaitGroup
	for _, w := range waits {
		wg.Add(1)
		go func() { defer wg.Done(); w() }()
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "server-ns/op")
}

func BenchmarkGetattr(b *testing.B) {
	for _, c := range []struct {
		name         string
		clients, cpu int
		workers      int
	}{
		{"free", 1, -1, 0},
		{"free-1worker", 1, -1, 1},
		{"client0", 1, 0, 0},
		{"4clients", 4, -1, 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			benchClients(b, c.clients, "getattr", 4096, c.cpu, Config{Workers: c.workers})
		})
	}
}

// The same over io_uring.
func BenchmarkUring(b *testing.B) {
	overUring = true
	defer func() { overUring = false }()
	b.Run("getattr", BenchmarkGetattr)
	b.Run("direct", BenchmarkDirect)
}

func BenchmarkDirect(b *testing.B) {
	for _, op := range []string{"read", "write"} {
		for _, size := range []int{4096, 1 << 20} {
			b.Run(fmt.Sprintf("%s-%dk", op, size>>10), func(b *testing.B) {
				benchClients(b, 1, op, size, -1, Config{})
			})
		}
	}
}
