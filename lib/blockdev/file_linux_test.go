package blockdev_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/blockdev/devtest"
)

// need skips a test for which this machine lacks something; in CI it fails.
func need(t testing.TB, ok bool, what string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}

// loop attaches image to a loop device until the test ends.
func loop(t testing.TB, image string, args ...string) string {
	t.Helper()
	_, err := exec.LookPath("losetup")
	need(t, os.Geteuid() == 0 && err == nil, "root and losetup")
	args = append([]string{"--find", "--show"}, append(args, image)...)
	out, err := exec.Command("losetup", args...).CombinedOutput()
	if err != nil {
		need(t, false, "a loop device: "+string(out))
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %s", dev, out)
		}
	})
	return dev
}

func TestLoop(t *testing.T) {
	for name, tt := range map[string]struct {
		sector string
		size   int64
		o      blockdev.Options
		align  int
	}{
		"512":      {"512", 2 * mib, blockdev.Options{}, 512},
		"4096":     {"4096", 2 * mib, blockdev.Options{}, 4096},
		"Buffered": {"512", 2 * mib, blockdev.Options{Direct: blockdev.DirectOff}, 1},
		"Range":    {"512", 2 * mib, blockdev.Options{Offset: 512, Length: mib}, 512},
		"OddRange": {"4096", 2 * mib, blockdev.Options{Offset: 512, Length: mib}, 1},
		"Locked":   {"512", 2 * mib, blockdev.Options{Exclusive: true, Lock: true}, 512},
		"Reader":   {"512", 2 * mib, blockdev.Options{ReadOnly: true}, 512},
	} {
		t.Run(name, func(t *testing.T) {
			dev := loop(t, tempImage(t, "/dev/shm", tt.size), "--sector-size", tt.sector)
			f := mustOpen(t, dev, tt.o)
			if f.Align() < tt.align || tt.align == 1 && f.Align() != 1 {
				t.Errorf("align is %d, want %d", f.Align(), tt.align)
			}
			if i := f.Info(); strconv.Itoa(i.LogicalBlock) != tt.sector || i.ReadOnly != tt.o.ReadOnly || i.DiscardGranularity == 0 {
				t.Errorf("info: %+v", i)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			devtest.Run(t, func(t *testing.T) blockdev.Device { return mustOpen(t, dev, tt.o) })
		})
	}
}

// What ZeroOut and Discard say to the device arrives in the file behind it.
func TestLoopZeroOut(t *testing.T) {
	image := tempImage(t, "/dev/shm", 4*mib)
	f := mustOpen(t, loop(t, image), blockdev.Options{})
	defer f.Close()
	used := func() int64 {
		var st unix.Stat_t
		if err := unix.Stat(image, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{1}, 4*mib), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Discard(mib+1, 2*mib); err != nil {
		t.Fatal(err)
	}
	if n := used(); n > 2*mib+8192 {
		t.Errorf("%d bytes are left after a discard of 2 MiB of 4", n)
	}
}

func TestLoopBusy(t *testing.T) {
	dev := loop(t, tempImage(t, "/dev/shm", mib))
	f := mustOpen(t, dev, blockdev.Options{Exclusive: true})
	for _, ro := range []bool{true, false} {
		_, err := blockdev.Open(dev, blockdev.Options{Exclusive: true, ReadOnly: ro})
		if !errors.Is(err, blockdev.ErrInUse) || !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), dev) {
			t.Errorf("second open: %v", err)
		}
	}
	f.Close()
	mustOpen(t, dev, blockdev.Options{Exclusive: true}).Close()
}

func TestLoopReadOnly(t *testing.T) {
	dev := loop(t, tempImage(t, "/dev/shm", mib), "--read-only")
	if _, err := blockdev.Open(dev, blockdev.Options{}); !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EACCES) {
		t.Errorf("open for writing: %v", err)
	}
	mustOpen(t, dev, blockdev.Options{ReadOnly: true}).Close()
}

// TestLock opens one image several times, as several programs would.
func TestLock(t *testing.T) {
	path := tempImage(t, "", 4*mib)
	lo := blockdev.Options{Lock: true, Length: 2 * mib}
	hi := blockdev.Options{Exclusive: true, Offset: 2 * mib}
	ro := func(o blockdev.Options) blockdev.Options { o.ReadOnly = true; return o }
	whole := blockdev.Options{Lock: true}
	for _, tt := range []struct {
		a, b blockdev.Options
		ok   bool
	}{
		{lo, lo, false}, {lo, ro(lo), false}, {ro(lo), lo, false}, {ro(lo), ro(lo), true},
		{lo, hi, true}, {hi, hi, false}, {hi, whole, false}, {ro(whole), ro(hi), true},
		{lo, blockdev.Options{}, true}, // who does not ask for a lock gets no answer
	} {
		a := mustOpen(t, path, tt.a)
		b, err := blockdev.Open(path, tt.b)
		if tt.ok != (err == nil) || err != nil && !errors.Is(err, blockdev.ErrInUse) {
			t.Errorf("%+v, then %+v: %v", tt.a, tt.b, err)
		}
		if b != nil {
			b.Close()
		}
		a.Close()
		mustOpen(t, path, tt.b).Close() // the lock goes with the File
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0600); err != nil {
		t.Fatal(err)
	}
	image := tempImage(t, "", mib)
	for name, tt := range map[string]struct {
		path string
		o    blockdev.Options
		want error
	}{
		"missing":       {filepath.Join(dir, "none"), blockdev.Options{}, syscall.ENOENT},
		"directory":     {dir, blockdev.Options{ReadOnly: true}, syscall.EISDIR},
		"fifo":          {fifo, blockdev.Options{ReadOnly: true}, syscall.ENOTBLK},
		"null":          {"/dev/null", blockdev.Options{}, syscall.ENOTBLK},
		"offset":        {image, blockdev.Options{Offset: mib + 1}, syscall.EINVAL},
		"length":        {image, blockdev.Options{Offset: 1, Length: mib}, syscall.EINVAL},
		"negative":      {image, blockdev.Options{Offset: -1}, syscall.EINVAL},
		"direct on odd": {image, blockdev.Options{Offset: 1, Direct: blockdev.DirectOn}, syscall.EINVAL},
	} {
		f, err := blockdev.Open(tt.path, tt.o)
		var e *blockdev.Error
		if !errors.Is(err, tt.want) || !errors.As(err, &e) || e.Name != tt.path {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if f != nil {
			f.Close()
		}
	}
}

func TestOpenFd(t *testing.T) {
	path := tempImage(t, "", mib)
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blockdev.OpenFd(uintptr(fd), "passed", blockdev.Options{}); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a descriptor for reading, to write: %v", err)
	}
	f, err := blockdev.OpenFd(uintptr(fd), "passed", blockdev.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if got, base, ok := f.Fd(); got != uintptr(fd) || base != 0 || !ok || f.Name() != "passed" {
		t.Errorf("Fd: %d, %d, %v", got, base, ok)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(fd); err != unix.EBADF {
		t.Errorf("the File left its descriptor open: %v", err)
	}
}

// Direct I/O has to be on where it is known to work, and then everything goes
// past the page cache.
func TestDirect(t *testing.T) {
	f := mustOpen(t, loop(t, tempImage(t, "/dev/shm", mib)), blockdev.Options{Direct: blockdev.DirectOn})
	defer f.Close()
	if !f.Direct() {
		t.Fatal("off")
	}
	g := mustOpen(t, tempImage(t, "/dev/shm", mib), blockdev.Options{})
	defer g.Close()
	if g.Direct() {
		t.Error("on, in a file that is in memory")
	}
}

// A file that became shorter under us is an error, not zeros.
func TestFileShrunk(t *testing.T) {
	for _, dir := range []string{"", "/dev/shm"} {
		path := tempImage(t, dir, mib)
		f := mustOpen(t, path, blockdev.Options{})
		defer f.Close()
		if err := os.Truncate(path, 4096); err != nil {
			t.Fatal(err)
		}
		buf := blockdev.AlignedBuf(8192, 4096)
		var e *blockdev.Error
		if _, err := f.ReadAt(buf, 0); !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &e) {
			t.Errorf("over the end: %v", err)
		}
		if _, err := f.ReadAt(buf[1:], 16384); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("past the end: %v", err)
		}
	}
}

// ZeroOut of an image leaves a hole, and its size alone.
func TestZeroOutSparse(t *testing.T) {
	for _, dir := range []string{"", "/dev/shm"} {
		path := tempImage(t, dir, 4*mib)
		f := mustOpen(t, path, blockdev.Options{})
		defer f.Close()
		if _, err := f.WriteAt(bytes.Repeat([]byte{1}, 4*mib), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.ZeroOut(5, 4*mib-5); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		if st.Size != 4*mib || st.Blocks*512 > 64<<10 {
			t.Errorf("%s: %d bytes, %d allocated", path, st.Size, st.Blocks*512)
		}
		want := make([]byte, 4*mib)
		copy(want, []byte{1, 1, 1, 1, 1})
		if !bytes.Equal(all(t, f), want) {
			t.Error("not zeros, or too many")
		}
	}
}

func TestFileNoAlloc(t *testing.T) {
	for name, dir := range map[string]string{"disk": "", "memory": "/dev/shm"} {
		f := mustOpen(t, tempImage(t, dir, mib), blockdev.Options{})
		defer f.Close()
		p := blockdev.AlignedBuf(8192, 4096)
		vec := [][]byte{p[:4096], p[4096:]}
		for op, do := range map[string]func() error{
			"read":       func() error { _, err := f.ReadAt(p, 4096); return err },
			"write":      func() error { _, err := f.WriteAt(p, 4096); return err },
			"odd read":   func() error { _, err := f.ReadAt(p[1:1000], 77); return err },
			"odd write":  func() error { _, err := f.WriteAt(p[1:1000], 77); return err },
			"readv":      func() error { _, err := f.ReadvAt(vec, 8192); return err },
			"writev":     func() error { _, err := f.WritevAt(vec, 8192); return err },
			"odd writev": func() error { _, err := f.WritevAt([][]byte{p[1:10], p[77:900]}, 3); return err },
		} {
			if n := testing.AllocsPerRun(50, func() {
				if err := do(); err != nil {
					t.Fatal(err)
				}
			}); n >= 1 && !raceEnabled {
				t.Errorf("%s on %s (direct %v): %v allocations", op, name, f.Direct(), n)
			}
		}
		runtime.KeepAlive(p)
	}
}

func BenchmarkFile(b *testing.B) {
	for name, dir := range map[string]string{"Disk": "", "Memory": "/dev/shm"} {
		f := mustOpen(b, tempImage(b, dir, 16*mib), blockdev.Options{})
		defer f.Close()
		if _, err := f.WriteAt(make([]byte, 16*mib), 0); err != nil {
			b.Fatal(err)
		}
		for what, p := range map[string][]byte{
			"4k":  blockdev.AlignedBuf(4096, 4096),
			"Odd": blockdev.AlignedBuf(8192, 4096)[1:4097],
			"1M":  blockdev.AlignedBuf(mib, 4096),
		} {
			run := func(op string, do func(off int64) (int, error)) {
				b.Run(name+op+what, func(b *testing.B) {
					b.ReportAllocs()
					b.SetBytes(int64(len(p)))
					for i := 0; b.Loop(); i++ {
						if _, err := do(int64(i) * 4096 % (8 * mib)); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
			run("Read", func(off int64) (int, error) { return f.ReadAt(p, off) })
			run("Write", func(off int64) (int, error) { return f.WriteAt(p, off) })
		}
	}
}

// A device that comes to refuse direct I/O, here since its sectors grow, is used
// without from then on.
func TestDirectRefused(t *testing.T) {
	const loopSetBlockSize = 0x4c09
	for name, do := range map[string]func(*blockdev.File, []byte) (int, error){
		"read":   func(f *blockdev.File, p []byte) (int, error) { return f.ReadAt(p, 512) },
		"write":  func(f *blockdev.File, p []byte) (int, error) { return f.WriteAt(p, 512) },
		"odd":    func(f *blockdev.File, p []byte) (int, error) { return f.WriteAt(p[1:], 5) },
		"readv":  func(f *blockdev.File, p []byte) (int, error) { return f.ReadvAt([][]byte{p[:512], p[512:]}, 512) },
		"writev": func(f *blockdev.File, p []byte) (int, error) { return f.WritevAt([][]byte{p[:512], p[512:]}, 512) },
	} {
		t.Run(name, func(t *testing.T) {
			f := mustOpen(t, loop(t, tempImage(t, "/dev/shm", mib), "--sector-size", "512"), blockdev.Options{})
			defer f.Close()
			if !f.Direct() {
				t.Fatal("off")
			}
			fd, _, _ := f.Fd()
			if err := unix.IoctlSetInt(int(fd), loopSetBlockSize, 4096); err != nil {
				t.Skipf("LOOP_SET_BLOCK_SIZE: %v", err)
			}
			p := blockdev.AlignedBuf(1024, 4096)
			copy(p, "content")
			if _, err := do(f, p); err != nil {
				t.Error(err)
			}
			if f.Direct() {
				t.Error("still on")
			}
			put(t, f, "more", 3)
			see(t, f, "more", 3)
		})
	}
}

// TestPrefetch: it changes nothing, whatever it is asked for, and on any device.
func TestPrefetch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	want := bytes.Repeat([]byte("prefetch"), 8192)
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := blockdev.Open(path, blockdev.Options{ReadOnly: true, Direct: blockdev.DirectOff})
	if err != nil {
		t.Fatal(err)
	}
	for _, dev := range []blockdev.Device{f, blockdev.NewOverlay(f, 0)} {
		blockdev.Prefetch(dev, 0, 4096)
		blockdev.Prefetch(dev, int64(len(want))-1, 1<<20)
		got := make([]byte, len(want))
		if _, err := dev.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%T: other bytes are read: %v", dev, err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	blockdev.Prefetch(f, 0, 4096)
}
