package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
)

// maxRSS is what a server may use for a hostile image, in KiB.
const maxRSS = 256 << 10

// TestHostile mounts mutated images, whose checksums are right, and walks, reads
// and changes what they show. The server may refuse, and operations may fail;
// it may not die, hang, or take more than 256 MiB. E2KIT_HOSTILE sets the number
// of images.
func TestHostile(t *testing.T) {
	bin := server(t)
	images := 2000
	if n, err := strconv.Atoi(os.Getenv("E2KIT_HOSTILE")); err == nil {
		images = n
	}
	var mutators []*testfs.Mutator
	var names []string
	for _, img := range testfs.MutationBases(t) {
		m, err := testfs.NewMutator(img.Path)
		if err != nil {
			t.Fatal(err)
		}
		mutators, names = append(mutators, m), append(names, img.Spec.Name)
	}
	var next, mounted, bad atomic.Int64
	var worst atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		dir := testfs.Scratch(t)
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= images || bad.Load() >= 10 {
					return
				}
				dev, desc := mutators[i%len(mutators)].Mutate(uint64(i))
				ok, rss, err := hostile(bin, dir, dev, i%3 == 0)
				if ok {
					mounted.Add(1)
				}
				if rss > worst.Load() {
					worst.Store(rss)
				}
				if err != nil {
					bad.Add(1)
					t.Errorf("%s, %s: %v", names[i%len(names)], desc, err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d images, %d mounted, at most %d KiB", images, mounted.Load(), worst.Load())
	if bad.Load() == 0 && images >= 100 && mounted.Load() < int64(images/4) {
		t.Errorf("only %d of %d images mounted: the parsers are not reached", mounted.Load(), images)
	}
}

var crashed = regexp.MustCompile(`(?m)^(panic|fatal error|runtime error|SIG[A-Z]+|unexpected fault)|signal: `)

// hostile mounts one image. rss is in KiB.
func hostile(bin, dir string, dev blockdev.Device, readOnly bool) (mounted bool, rss int64, err error) {
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	f, err := os.Create(image)
	if err != nil {
		return false, 0, err
	}
	defer os.Remove(image)
	if err = f.Truncate(dev.Size()); err == nil {
		err = blockdev.Copy(f, dev)
	}
	f.Close()
	if err != nil {
		return false, 0, err
	}
	if err := os.Mkdir(mnt, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return false, 0, err
	}
	opts := "errors=continue"
	if readOnly {
		opts += ",ro"
	}
	cmd := exec.Command(bin, "-f", "-o", opts, image, mnt)
	m, err := testfs.StartFuse(mnt, cmd)
	if err != nil {
		if cmd.ProcessState == nil || !cmd.ProcessState.Exited() || crashed.MatchString(err.Error()) ||
			cmd.ProcessState.ExitCode() == 2 && strings.Contains(err.Error(), "goroutine ") {
			return false, 0, err
		}
		if u, ok := cmd.ProcessState.SysUsage().(*unix.Rusage); ok {
			rss = u.Maxrss
		}
		return false, rss, nil
	}
	done := make(chan struct{})
	var hung atomic.Bool
	go func() {
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			hung.Store(true)
			for _, p := range family(m.Server.Pid) {
				unix.Kill(p, unix.SIGKILL) // which ends the calls under way
			}
		}
	}()
	w := walker{left: 3000}
	w.walk(mnt, 0)
	if !readOnly {
		w.change(mnt)
	}
	rss = highWater(m.Server.Pid)
	uerr := m.Unmount()
	close(done)
	switch {
	case hung.Load():
		return true, rss, fmt.Errorf("hung, at %s\n%s", w.at, m.Output())
	case crashed.MatchString(m.Output()):
		return true, rss, fmt.Errorf("died\n%s", m.Output())
	case rss > maxRSS:
		return true, rss, fmt.Errorf("took %d KiB", rss)
	case uerr != nil && cmd.ProcessState != nil && !cmd.ProcessState.Exited():
		return true, rss, uerr
	}
	return true, rss, nil
}

// family returns a process and those that it started, which serve for it.
func family(pid int) []int {
	all := []int{pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		text, _ := os.ReadFile(l)
		for _, f := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(f); err == nil {
				all = append(all, family(child)...)
			}
		}
	}
	return all
}

// highWater returns the most memory that a server's processes had resident, in
// KiB, or 0 if it has gone.
func highWater(pid int) int64 {
	var sum int64
	for _, p := range family(pid) {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		var kb int64
		if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
			fmt.Sscan(rest, &kb)
		}
		sum += kb
	}
	return sum
}

// A walker calls all that reads, and some that writes, and does not mind errors.
type walker struct {
	left int // names to visit at most: a folder may contain itself
	at   string
	dirs []string
	buf  [64 << 10]byte
}

func (w *walker) walk(dir string, depth int) {
	if depth > 20 {
		return
	}
	w.dirs = append(w.dirs, dir)
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	names, _ := f.Readdirnames(2000)
	f.Close()
	for _, name := range names {
		if w.left--; w.left < 0 {
			return
		}
		p := filepath.Join(dir, name)
		w.at = p
		var st unix.Stat_t
		if unix.Lstat(p, &st) != nil {
			continue
		}
		n, _ := unix.Llistxattr(p, w.buf[:])
		for attr := range strings.SplitSeq(string(w.buf[:max(n, 0)]), "\x00") {
			if attr != "" {
				unix.Lgetxattr(p, attr, w.buf[:])
			}
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			w.walk(p, depth+1)
		case unix.S_IFLNK:
			unix.Readlink(p, w.buf[:])
		case unix.S_IFREG:
			w.read(p, st.Size)
		}
	}
}

func (w *walker) read(p string, size int64) {
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	for i := range int64(16) {
		unix.Pread(fd, w.buf[:], i*int64(len(w.buf)))
	}
	for _, off := range []int64{size / 2, size - 10, 1 << 40} {
		unix.Pread(fd, w.buf[:4096], max(0, off))
	}
	for off, i := int64(0), 0; i < 10; i++ {
		if off, err = unix.Seek(fd, off, unix.SEEK_DATA); err != nil {
			break
		}
		if off, err = unix.Seek(fd, off, unix.SEEK_HOLE); err != nil {
			break
		}
	}
}

func (w *walker) change(mnt string) {
	for i, dir := range append(w.dirs[:min(len(w.dirs), 6)], mnt) {
		w.at = "changes in " + dir
		p := func(name string) string { return filepath.Join(dir, fmt.Sprintf("%s%d", name, i)) }
		if os.WriteFile(p("new"), w.buf[:], 0o644) == nil {
			os.Rename(p("new"), p("renamed"))
			os.Link(p("renamed"), p("linked"))
			unix.Setxattr(p("renamed"), "user.name", w.buf[:500], 0)
			os.Remove(p("linked"))
		}
		os.Mkdir(p("folder"), 0o755)
		for j := range 30 {
			unix.Mknod(p(fmt.Sprintf("folder%d/n%d-", i, j)), unix.S_IFREG|0o644, 0)
		}
		os.Symlink(strings.Repeat("t", 100), p("link"))
		names, _ := filepath.Glob(filepath.Join(dir, "*"))
		for j, name := range names[:min(len(names), 40)] {
			switch j % 8 {
			case 0:
				os.Truncate(name, 5000)
			case 1:
				os.Truncate(name, 100)
			case 2:
				os.Chmod(name, 0o600)
			case 3:
				if fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
					unix.Pwrite(fd, w.buf[:30000], 3000)
					unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 9000)
					unix.Fsync(fd)
					unix.Close(fd)
				}
			case 4:
				unix.Removexattr(name, "user.name0")
			case 5, 6:
				os.Remove(name)
			}
		}
		os.RemoveAll(p("folder"))
	}
}
