//go:build linux

package testfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// attachLoop puts file on a loop device. The kernel frees the device when the
// last user closes it; the caller's is the file returned.
func attachLoop(file string, readOnly bool) (*os.File, error) {
	mode := os.O_RDWR
	var flags uint32 = unix.LO_FLAGS_AUTOCLEAR
	if readOnly {
		mode = os.O_RDONLY
		flags |= unix.LO_FLAGS_READ_ONLY
	}
	back, err := os.OpenFile(file, mode, 0)
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
		dev, err := os.OpenFile(name, mode, 0)
		if err != nil {
			return nil, err
		}
		cfg := unix.LoopConfig{Fd: uint32(back.Fd())}
		cfg.Info.Flags = flags
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
	return nil, fmt.Errorf("loop devices stay busy")
}

// AttachLoop puts file on a loop device, which is freed when the returned file,
// of the device's name, is closed, at the end of the test if not before.
func AttachLoop(t testing.TB, file string) *os.File {
	t.Helper()
	NeedRoot(t)
	dev, err := attachLoop(file, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

// A Mount is an image that is mounted, by the kernel or a FUSE server.
type Mount struct {
	Dir     string
	Server  *os.Process // of a FUSE server that StartFuse began
	mounted bool
	out     *output
	ended   func() error // waits for the server, if there is one
}

// KernelMount mounts the image by the kernel's ext4 with the comma-separated
// options and returns the folder. It is unmounted when the test ends, before
// the image is checked; Unmount does it earlier.
func KernelMount(t testing.TB, img *Image, opts string) *Mount {
	t.Helper()
	NeedRoot(t)
	m, err := TryKernelMount(t, img, opts)
	if err != nil {
		t.Fatalf("kernel mount of %s: %v", img.Spec.Name, err)
	}
	return m
}

// TryKernelMount is KernelMount for a mount that may be refused.
func TryKernelMount(t testing.TB, img *Image, opts string) (*Mount, error) {
	t.Helper()
	if img.Spec.Mount != "" {
		opts = strings.Trim(img.Spec.Mount+","+opts, ",")
	}
	dir := filepath.Join(Scratch(t), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := kernelMount(img.Path, img.Journal, dir, opts); err != nil {
		return nil, err
	}
	m := &Mount{Dir: dir, mounted: true}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return m, nil
}

func kernelMount(image, journal, dir, opts string) error {
	flags, data := mountFlags(opts)
	loop, err := attachLoop(image, flags&unix.MS_RDONLY != 0)
	if err != nil {
		return err
	}
	defer loop.Close()
	if journal != "" {
		j, err := attachLoop(journal, false)
		if err != nil {
			return err
		}
		defer j.Close()
		data = strings.Trim(data+",journal_path="+j.Name(), ",")
	}
	if err := unix.Mount(loop.Name(), dir, "ext4", flags, data); err != nil {
		return fmt.Errorf("mount -o %q: %w", opts, err)
	}
	return nil
}

// Output returns what the FUSE server has printed so far.
func (m *Mount) Output() string {
	if m.out == nil {
		return ""
	}
	return m.out.String()
}

// Unmount unmounts, waiting for passing users; what it waited for in vain is
// detached, so that nothing is left behind. Unmounting twice is harmless.
func (m *Mount) Unmount() error {
	if !m.mounted {
		return nil
	}
	m.mounted = false
	err := unmount(m.Dir)
	if m.ended != nil {
		if e := m.ended(); err == nil {
			err = e
		}
	}
	return err
}

func unmount(dir string) error {
	whole := settle(dir)
	backing := loopBacking(dir)
	file, _ := os.ReadFile(backing)
	var err error
	for range 100 {
		if err = unix.Unmount(dir, 0); err != unix.EBUSY {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		unix.Unmount(dir, unix.MNT_DETACH)
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	// A process that got a mount namespace of its own meanwhile keeps the file
	// system alive until it ends.
	for range 1000 {
		if whole {
			return nil
		}
		now, err := os.ReadFile(backing)
		if err != nil || len(file) == 0 || string(now) != string(file) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("unmount %s: still mounted in another namespace", dir)
}

// loopBacking returns the path under /sys that tells the file behind the loop
// device mounted on dir; "" if there is none. Its absence says that the device
// has been freed.
func loopBacking(dir string) string {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	path := ""
	for _, l := range strings.Split(string(b), "\n") {
		if f := strings.Fields(l); len(f) > 4 && f[4] == dir {
			path = ""
			if n, ok := strings.CutPrefix(f[2], "7:"); ok {
				path = "/sys/block/loop" + n + "/loop/backing_file"
			}
		}
	}
	return path
}

// settle makes a mount by the kernel's ext4 read-only, so that its image is
// whole as soon as it is unmounted here, whoever else keeps the file system in
// use. It says whether it is.
func settle(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Type != unix.EXT4_SUPER_MAGIC {
		return false
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return true
	}
	for range 50 {
		err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		if err != unix.EBUSY {
			return err == nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

var mountFlag = map[string]uintptr{
	"ro": unix.MS_RDONLY, "rw": 0, "noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME,
	"relatime": unix.MS_RELATIME, "strictatime": unix.MS_STRICTATIME, "sync": unix.MS_SYNCHRONOUS,
	"dirsync": unix.MS_DIRSYNC, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV,
	"noexec": unix.MS_NOEXEC, "lazytime": unix.MS_LAZYTIME,
}

// mountFlags splits mount options into flags of mount(2) and the rest.
func mountFlags(opts string) (flags uintptr, data string) {
	var rest []string
	for _, o := range strings.Split(opts, ",") {
		if f, ok := mountFlag[o]; ok {
			flags |= f
		} else if o != "" {
			rest = append(rest, o)
		}
	}
	return flags, strings.Join(rest, ",")
}

var supported = map[string]error{}

// Supported reports whether this machine can make the image and its kernel can
// mount it, by doing so, once for each name. The error says what failed. Tests
// that use it do not run in parallel.
func Supported(t testing.TB, s Spec) error {
	t.Helper()
	err, known := supported[s.Name]
	if known {
		return err
	}
	var img *Image
	if img, err = make2fs(t, s); err == nil {
		var m *Mount
		if m, err = TryKernelMount(t, img, "ro"); err == nil {
			err = m.Unmount()
		}
	}
	supported[s.Name] = err
	return err
}
