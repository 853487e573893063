//go:build linux

package fuse

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loopDevice returns a loop device over an empty image.
func loopDevice(t *testing.T) (image, device string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	img := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(img, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := AttachLoop(img, false)
	if err != nil {
		t.Skipf("no loop device: %v", err)
	}
	t.Cleanup(func() { l.Close() })
	return img, l.Path
}

// On a block device, the kernel sends SYNCFS and DESTROY, and waits for both.
func TestUnmountBlock(t *testing.T) {
	m := newMemFS()
	var clean atomic.Bool
	var syncs atomic.Int64
	image, dev := loopDevice(t)
	x := mountAt(t, m, MountOptions{Source: image, Subtype: "ext4", BlockDevice: dev}, Config{
		Handlers: Handlers{
			OpSyncfs: func(r *Request) {
				syncs.Add(1)
				r.ReplyErr(0)
			},
			OpRelease: func(r *Request) {
				time.Sleep(100 * time.Millisecond)
				m.calls[OpRelease].Add(1)
				r.ReplyErr(0)
			},
			OpOpen: func(r *Request) {
				Out[OpenOut](r).Fh = 1
				r.Reply(0)
			},
		},
		Destroy: func() {
			time.Sleep(200 * time.Millisecond)
			if n := m.calls[OpRelease].Load(); n != 2 { // the probe's and ours
				t.Errorf("%d RELEASEs before DESTROY", n)
			}
			clean.Store(true)
		},
	}, t.TempDir())
	if line := mountLine(t, x.dir); !strings.Contains(line, " fuseblk.ext4 "+image+" ") {
		t.Errorf("mounted as %s", line)
	}
	if st, err := os.Stat(image); err != nil || !st.Mode().IsRegular() {
		t.Errorf("the image has become %v, %v", st.Mode(), err)
	}
	if err := x.m.Tune(8<<20, 50); err != nil {
		t.Errorf("Tune: %v", err)
	}
	f, err := os.Create(filepath.Join(x.dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("x"))
	if _, _, errno := syscall.Syscall(unix.SYS_SYNCFS, f.Fd(), 0, 0); errno != 0 {
		t.Errorf("syncfs: %v", errno)
	}
	if n := syncs.Load(); n != 1 {
		t.Errorf("syncfs sent %d SYNCFS", n)
	}
	f.Close()
	if err := unix.Unmount(x.dir, 0); err != nil {
		t.Fatal(err)
	}
	if !clean.Load() {
		t.Error("unmount returned before the file system was clean")
	}
	x.gone(t)
}

// Elsewhere it sends neither: unmounting does not wait, and Destroy runs when
// the connection has ended.
func TestUnmountPlain(t *testing.T) {
	m := newMemFS()
	m.trace = true
	x := mountMem(t, m, MountOptions{}, Config{})
	if err := x.m.Tune(8<<20, 50); err != nil {
		t.Errorf("Tune: %v", err)
	}
	f, err := os.Create(filepath.Join(x.dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	syscall.Syscall(unix.SYS_SYNCFS, f.Fd(), 0, 0)
	f.Close()
	x.unmount(t)
	if slices.Contains(m.seen, OpSyncfs) {
		t.Error("SYNCFS was sent: the documentation of BlockDevice says that it is not")
	}
}

// An image behind a loop device is shown by its own name.
func TestMountSourceShown(t *testing.T) {
	_, dev := loopDevice(t)
	image := filepath.Join(t.TempDir(), "shown image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	x := mountMem(t, newMemFS(), MountOptions{BlockDevice: dev, Source: image}, Config{})
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(image, " ", `\040`) + " " + x.dir + " fuseblk"
	if !strings.Contains(string(mounts), "\n"+want) {
		t.Errorf("no line %q in\n%s", want, mounts)
	}
	x.unmount(t)
}
