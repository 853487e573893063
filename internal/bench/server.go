//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A server mounts images: the kernel (no path), or a program.
type server struct {
	name      string
	path      string // of the program
	opts      string // for -o
	readAhead int    // KiB, set on the mount's bdi; 0 leaves it
}

// bestOptions lists what makes C fuse2fs fastest, of what this one knows:
// everything cached for ever, large requests, and its largest cache.
func bestOptions(path string) string {
	help, _ := exec.Command(path, "--helpfull").CombinedOutput()
	opts := []string{"no_default_opts", "use_ino", "subtype=ext4", "kernel_cache", "attr_timeout=86400", "entry_timeout=86400",
		"negative_timeout=86400", "noforget", "max_readahead=1048576"}
	for _, o := range []string{"big_writes", "async_read"} {
		if bytes.Contains(help, []byte("-o "+o)) {
			opts = append(opts, o)
		}
	}
	if bytes.Contains(help, []byte("max_write=")) {
		opts = append(opts, "max_write=1048576")
	}
	if bytes.Contains(help, []byte("cache_size=")) {
		opts = append(opts, "cache_size=1g")
	}
	return strings.Join(opts, ",")
}

// A mount is an image that a server has mounted.
type mount struct {
	dir   string
	image string
	loop  string // the kernel's loop device

	cmd   *exec.Cmd // the server, running in the foreground
	gone  chan struct{}
	out   *bytes.Buffer // read it when gone is closed
	state error         // how it ended, likewise

	peakRSS int64 // bytes
}

// mount mounts image on dir and returns when the mount answers.
func (s *server) mount(ctx context.Context, image, dir string) (*mount, error) {
	m := &mount{dir: dir, image: image}
	if s.path == "" {
		return m, m.kernel()
	}
	var before unix.Stat_t
	if err := unix.Stat(dir, &before); err != nil {
		return nil, err
	}
	args := []string{"-f", image, dir}
	if s.opts != "" {
		args = append(args, "-o", s.opts)
	}
	m.cmd, m.gone, m.out = exec.Command(s.path, args...), make(chan struct{}), &bytes.Buffer{}
	m.cmd.Stdout, m.cmd.Stderr = m.out, m.out
	// A signal to our group is ours to handle: the server ends by unmounting.
	m.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		m.state = m.cmd.Wait()
		close(m.gone)
	}()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	// stat waits for a server that has mounted and does not answer.
	hung := context.AfterFunc(ctx, m.kill)
	defer hung()
	for {
		var now unix.Stat_t
		if err := unix.Stat(dir, &now); err == nil && now.Dev != before.Dev {
			m.setReadAhead(now.Dev, s.readAhead)
			return m, nil
		}
		select {
		case <-m.gone:
			unix.Unmount(dir, unix.MNT_DETACH)
			return nil, fmt.Errorf("the server ended: %v: %s", m.state, m.tail())
		case <-deadline.C:
			m.kill()
		case <-time.After(100 * time.Microsecond):
		}
	}
}

func (m *mount) setReadAhead(dev uint64, kib int) {
	if kib == 0 {
		return
	}
	// What may not be raised stays as it is.
	os.WriteFile(fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(dev), unix.Minor(dev)),
		[]byte(strconv.Itoa(kib)), 0)
}

// kernel mounts the image by the kernel's ext4 on a loop device. On a disk the
// device uses direct I/O, so that the page cache holds nothing twice.
func (m *mount) kernel() error {
	var st unix.Statfs_t
	if err := unix.Statfs(m.image, &st); err != nil {
		return err
	}
	direct := st.Type != unix.TMPFS_MAGIC
	dev, err := attachLoop(m.image, direct)
	if err != nil && direct {
		dev, err = attachLoop(m.image, false)
	}
	if err != nil {
		return err
	}
	defer dev.Close()
	m.loop = dev.Name()
	if err := unix.Mount(m.loop, m.dir, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", m.loop, err)
	}
	return nil
}

// attachLoop puts file on a loop device, which the kernel frees when its last
// user closes it.
func attachLoop(file string, direct bool) (*os.File, error) {
	back, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	for range 200 {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("no free loop device: %w", err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		if _, err := os.Stat(name); err != nil {
			// A container's /dev does not follow the kernel.
			if err := unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n)))); err != nil {
				return nil, err
			}
		}
		dev, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		cfg := unix.LoopConfig{Fd: uint32(back.Fd())}
		cfg.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		if direct {
			cfg.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
		}
		copy(cfg.Info.File_name[:], file)
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &cfg)
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if err != unix.EBUSY && err != unix.ENXIO {
			return nil, fmt.Errorf("%s: LOOP_CONFIGURE: %w", name, err)
		}
		time.Sleep(5 * time.Millisecond) // another process took it first
	}
	return nil, errors.New("loop devices stay busy")
}

// unmount unmounts and waits until the image is released: the server has ended,
// the loop device is free. A mount that stays busy is detached, and its server
// killed after a while, so that nothing is left; that is an error.
func (m *mount) unmount() error {
	m.sample()
	var err error
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if err = unix.Unmount(m.dir, 0); err != unix.EBUSY || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		unix.Unmount(m.dir, unix.MNT_DETACH)
		err = fmt.Errorf("unmount: %w", err)
	}
	if m.cmd == nil {
		return errors.Join(err, m.loopFreed())
	}
	end := time.Now().Add(2 * time.Minute)
	for {
		select {
		case <-m.gone:
			if m.state != nil && err == nil {
				err = fmt.Errorf("the server ended: %v: %s", m.state, m.tail())
			}
			return err
		case <-time.After(200 * time.Microsecond):
			m.sample()
		}
		if time.Now().After(end) {
			m.kill()
			<-m.gone
			return errors.Join(err, errors.New("the server did not end after its unmount"))
		}
	}
}

func (m *mount) loopFreed() error {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Microsecond) {
		// The kernel says what a device has behind it without opening it, which
		// would keep it.
		back, err := os.ReadFile("/sys/block/" + filepath.Base(m.loop) + "/loop/backing_file")
		if err != nil || strings.TrimSpace(string(back)) != m.image {
			return nil
		}
	}
	return fmt.Errorf("%s is still busy", m.loop)
}

// kill ends the server at once: requests under way then fail.
func (m *mount) kill() {
	if m.cmd != nil {
		m.cmd.Process.Kill()
	}
}

// tail returns the last words of a server that has ended.
func (m *mount) tail() string {
	s := strings.TrimSpace(m.out.String())
	return s[max(0, len(s)-400):]
}

// pids returns the server and its descendants.
func (m *mount) pids() []int {
	if m.cmd == nil {
		return nil
	}
	list := []int{m.cmd.Process.Pid}
	for i := 0; i < len(list) && i < 64; i++ {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", list[i]))
		for _, f := range files {
			b, _ := os.ReadFile(f)
			for w := range strings.FieldsSeq(string(b)) {
				if pid, err := strconv.Atoi(w); err == nil {
					list = append(list, pid)
				}
			}
		}
	}
	return list
}

// sample notes the server's peak memory so far.
func (m *mount) sample() {
	var sum int64
	for _, pid := range m.pids() {
		sum += highWater(pid)
	}
	m.peakRSS = max(m.peakRSS, sum)
}

// highWater returns a process's peak of resident memory, bytes; 0 if it has
// none any more. What rusage has counts what exec has replaced, too.
func highWater(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, ok := bytes.Cut(text, []byte("VmHWM:"))
	var kib int64
	if ok {
		fmt.Sscan(string(rest[:min(len(rest), 32)]), &kib)
	}
	return kib << 10
}

// cpu returns the CPU time the server has used, if there is a mount and a
// server.
func (m *mount) cpu() time.Duration {
	if m == nil || m.cmd == nil {
		return 0
	}
	select {
	case <-m.gone:
		return m.cmd.ProcessState.UserTime() + m.cmd.ProcessState.SystemTime()
	default:
	}
	var sum time.Duration
	for _, pid := range m.pids() {
		// The clock of a process, as clock_getcpuclockid(3) makes its number:
		// nanoseconds, where /proc counts ticks.
		var ts unix.Timespec
		if unix.ClockGettime(int32(^pid<<3|2), &ts) == nil {
			sum += time.Duration(ts.Nano())
		}
	}
	return sum
}

// place moves all threads the server has to one CPU.
func (m *mount) place(cpu int) {
	var set unix.CPUSet
	set.Set(cpu)
	for _, pid := range m.pids() {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		for _, t := range tasks {
			if tid, err := strconv.Atoi(t.Name()); err == nil {
				unix.SchedSetaffinity(tid, &set)
			}
		}
	}
}
