package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// probeReport is what fuse2fs --probe --json prints, as far as it is tested here.
type probeReport struct {
	Kernel   string
	UID      int
	Protocol struct {
		Major, Minor int
		From         string
	}
	Fuseblk struct{ Have string }
	DevFuse struct{ Have string } `json:"dev_fuse"`
	Would   struct {
		Possible    bool
		Mount, Type string
		DataPath    string `json:"data_path"`
		Confined    string
	}
}

// runProbe returns the report, and the exit status.
func runProbe(t *testing.T, argv ...string) (probeReport, int) {
	t.Helper()
	cmd := exec.Command(argv[0], append(argv[1:], "--probe", "--json")...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var r probeReport
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return r, cmd.ProcessState.ExitCode()
}

// TestProbe: what --probe says comes true, for root and for another user, with
// and without access to the device.
func TestProbe(t *testing.T) {
	bin := server(t)
	testfs.Tool(t, "setpriv")
	testfs.Tool(t, "unshare")
	dir, err := os.MkdirTemp("", "e2kit-probe")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	copied, node, mnt := filepath.Join(dir, "fuse2fs"), filepath.Join(dir, "fuse"), filepath.Join(dir, "mnt")
	img := testfs.Mke2fs(t, testfs.Spec{Name: "probe"})
	image := filepath.Join(dir, "image")
	for _, err := range []error{
		os.Chmod(dir, 0o755),
		os.WriteFile(copied, program, 0o755),
		syscall.Mknod(node, syscall.S_IFCHR, 10<<8|229),
		exec.Command("cp", "--sparse=always", img.Path, image).Run(),
		os.Chown(image, nobody, nobody),
		os.Mkdir(mnt, 0o755),
		os.Chown(mnt, nobody, nobody),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	as := func(script string) []string {
		return []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", script + ` exec "$@"`, "sh"}
	}
	user := []string{"setpriv", "--reuid", fmt.Sprint(nobody), "--regid", fmt.Sprint(nobody), "--clear-groups"}
	for _, c := range []struct {
		name string
		mode os.FileMode // of the device node
		argv []string
		uid  int
		dev  string
	}{
		{"root", 0o600, nil, 0, "yes"},
		{"user", 0o600, user, nobody, "no"},
		{"user with the device", 0o666, user, nobody, "yes"},
		{"user in a namespace", 0o666, append(slices.Clone(user), "unshare", "--user", "--map-root-user", "--mount"), 0, "yes"},
		{"user without the device in a namespace", 0o600, append(slices.Clone(user), "unshare", "--user", "--map-root-user", "--mount"), 0, "no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.Chmod(node, c.mode); err != nil {
				t.Fatal(err)
			}
			argv := append(append(as("mount --bind "+node+" /dev/fuse;"), c.argv...), copied)
			r, status := runProbe(t, argv...)
			t.Logf("exit status %d, %+v", status, r)
			if r.UID != c.uid || r.DevFuse.Have != c.dev || (status == 0) != r.Would.Possible || r.Kernel == "" {
				t.Errorf("user %d, device %s, possible %v, exit status %d", r.UID, r.DevFuse.Have, r.Would.Possible, status)
			}
			if c.dev == "yes" && r.Protocol.From != "init" && r.Would.Possible && r.Would.Mount != "by fusermount3" {
				t.Errorf("protocol from %s", r.Protocol.From)
			}
			// Mount, in the same situation, and unmount.
			script := fmt.Sprintf(`mount --bind %s /dev/fuse; exec "$@" sh -c '%s %s %s || exit 9; grep "[^ ]* %s" /proc/self/mounts; umount %s 2>/dev/null || fusermount3 -u %s'`,
				node, copied, image, mnt, mnt, mnt, mnt)
			run := exec.Command("unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, "sh"}, append(slices.Clone(c.argv), "env")...)...)
			out, err := run.CombinedOutput()
			mounted := err == nil
			if want := r.Would.Mount == "by system call" || r.Would.Mount == "by fusermount3"; mounted != want {
				t.Errorf("says it would be mounted %q; mounted %v: %v\n%s", r.Would.Mount, mounted, err, out)
			}
			if mounted && !strings.Contains(string(out), " "+r.Would.Type+".ext4 ") {
				t.Errorf("says it would be %s, is %s", r.Would.Type, out)
			}
		})
	}
	if err := waitClean(t, image); err != nil {
		t.Error(err)
	}
}

// waitClean waits for the server that a user's unmount does not wait for: it
// has the image locked until it is clean.
func waitClean(t *testing.T, image string) error {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	return testfs.E2fsck(t, image, "")
}

// TestProbeText: the table names everything and ends with the verdict; a wrong
// command line is refused.
func TestProbeText(t *testing.T) {
	bin := server(t)
	out, err := exec.Command(bin, "--probe").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"FUSE protocol", "fuse-iomap", "FUSE over io_uring", "zero-copy", "passthrough", "synchronous INIT",
		"idmapped mounts", "loop devices", "mount by fusermount3", "sandbox: Landlock", "sandbox: seccomp", "sandbox: MDWE",
		"sandbox: no_new_privs", "A mount would be made by system call", "not by iomap: ", "The server would be confined"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("says nothing of %q", want)
		}
	}
	for _, args := range [][]string{{"--probe", "image"}, {"--json", "image", "mnt"}} {
		out, err := exec.Command(bin, args...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "--probe") {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}
