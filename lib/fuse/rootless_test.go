//go:build linux

package fuse

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// asUser runs a test of this package again as an ordinary user, under the
// command wrap if given, and returns whether it is that run. Where /dev/fuse is
// not for all, the user gets one that is.
func asUser(t *testing.T, wrap string) bool {
	t.Helper()
	if os.Getenv("FUSE_TEST_USER") == t.Name() {
		return true
	}
	if os.Getuid() != 0 {
		testfs.Missing(t, "needs root to become another user")
	}
	for _, tool := range []string{"unshare", "setpriv"} {
		testfs.Tool(t, tool)
	}
	// The binary and the working directory may be out of that user's reach.
	dir, err := os.MkdirTemp("", "fuse-user")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	bin, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	tmp := filepath.Join(dir, "tmp")
	node := filepath.Join(dir, "fuse")
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, "test"), bin, 0o755),
		os.Chmod(dir, 0o755),
		os.Mkdir(tmp, 0o700),
		os.Chown(tmp, nobody, nobody),
		syscall.Mknod(node, syscall.S_IFCHR|0o666, 10<<8|229),
		os.Chmod(node, 0o666),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf("mount --bind %s /dev/fuse && cd %s && exec setpriv --reuid %d --regid %d --clear-groups %s %s/test -test.run '^%s$' -test.v",
		node, tmp, nobody, nobody, wrap, dir, t.Name())
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script)
	cmd.Env = append(os.Environ(), "FUSE_TEST_USER="+t.Name(), "TMPDIR="+tmp, "HOME="+tmp)
	out, err := cmd.CombinedOutput()
	if bytes.Contains(out, []byte("--- SKIP")) {
		testfs.Missing(t, "%s", out)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// useMount mounts, writes and reads, and unmounts.
func useMount(t *testing.T, o MountOptions) *mounted {
	t.Helper()
	x := mountAt(t, newMemFS(), o, Config{}, t.TempDir())
	name := filepath.Join(x.dir, "f")
	if err := os.WriteFile(name, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "hello" {
		t.Fatalf("%q, %v", b, err)
	}
	return x
}

func mountLine(t *testing.T, dir string) string {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(info)) {
		if strings.Contains(line, " "+dir+" ") {
			return line
		}
	}
	return ""
}

func TestFusermount(t *testing.T) {
	if _, err := findFusermount(); err != nil {
		testfs.Missing(t, "%v", err)
	}
	if !asUser(t, "") {
		return
	}
	x := useMount(t, MountOptions{Source: "/a,b/image", Subtype: "ext4", Flags: syscall.MS_NOATIME})
	if !x.m.ByHelper() {
		t.Error("not mounted by fusermount")
	}
	line := mountLine(t, x.dir)
	if !strings.Contains(line, "noatime") || !strings.Contains(line, "nosuid") || !strings.Contains(line, "fuse.ext4 /a,b/image ") {
		t.Errorf("mounted as %s", line)
	}
	if err := Unmount(x.dir, false); err != nil {
		t.Fatal(err)
	}
	x.gone(t)

	// What the helper complains of is the error.
	_, err := NewMount(filepath.Join(x.dir, "absent"), MountOptions{})
	if err == nil || !strings.Contains(err.Error(), "fusermount") {
		t.Errorf("mount on no directory: %v", err)
	}
	if err := Unmount(x.dir, false); err == nil {
		t.Error("unmounting what is not mounted succeeds")
	}
}

func TestUserNamespace(t *testing.T) {
	if !asUser(t, "unshare --user --map-root-user --mount") {
		return
	}
	x := useMount(t, MountOptions{Source: "image", Subtype: "ext4", AllowOther: true, DefaultPermissions: true, MaxRead: 65536})
	if x.m.ByHelper() {
		t.Error("mounted by fusermount")
	}
	line := mountLine(t, x.dir)
	for _, want := range []string{"fuse.ext4 image", "allow_other", "default_permissions", "max_read=65536"} {
		if !strings.Contains(line, want) {
			t.Errorf("mounted as %s, without %s", line, want)
		}
	}
	if err := Unmount(x.dir, false); err != nil {
		t.Fatal(err)
	}
	x.gone(t)
}

// A mount that is never attached is never seen, and ends with Close.
func TestDetached(t *testing.T) {
	testfs.NeedRoot(t)
	dir := t.TempDir()
	m, err := NewMount(dir, MountOptions{Source: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Tune(2<<20, 50); err != nil { // nobody serves yet
		t.Errorf("Tune: %v", err)
	}
	c, err := NewConn(m.Fd(), Config{Handlers: newMemFS().handlers()})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Serve() }()
	<-c.Ready()
	if line := mountLine(t, dir); line != "" {
		t.Errorf("seen: %s", line)
	}
	m.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestMountErrors(t *testing.T) {
	testfs.NeedRoot(t)
	// A bad option says so in the kernel's words.
	_, err := NewMount(t.TempDir(), MountOptions{BlockDevice: "/dev/null"})
	if err == nil {
		t.Error("fuseblk on /dev/null works")
	}
	m, err := NewMount(filepath.Join(t.TempDir(), "absent"), MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(m.Fd())
	if err := m.Attach(); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("attached to no directory: %v", err)
	}
	m.Close()
}
