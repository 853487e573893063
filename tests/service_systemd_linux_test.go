package tests

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
)

// units copies the units to a folder, with another program in them.
func units(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"fuse2fs.socket", "fuse2fs@.service"} {
		b, err := os.ReadFile("../packaging/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.ReplaceAll(b, []byte("/usr/sbin/fuse2fs"), []byte(program))
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestServiceUnits has systemd look at the units: nothing is wrong, and a server
// is exposed to next to nothing.
func TestServiceUnits(t *testing.T) {
	dir := units(t, server(t))
	analyze := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(testfs.Tool(t, "systemd-analyze"), args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("systemd-analyze %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	for _, u := range []string{"./fuse2fs.socket", "./fuse2fs@.service"} {
		if out := analyze("verify", "--man=no", u); out != "" {
			t.Errorf("%s: %s", u, out)
		}
	}
	out := analyze("security", "--offline=true", "--threshold=10", "--no-pager", "./fuse2fs@.service")
	if !regexp.MustCompile(`exposure level for \S+: 0\.\d SAFE`).MatchString(out) {
		t.Errorf("%s", out)
	}
}

// TestServiceActivated has the server started for a connection as systemd does.
func TestServiceActivated(t *testing.T) {
	tool := testfs.Tool(t, "systemd-socket-activate")
	s := &mountService{t: t, bin: server(t), dir: testfs.Scratch(t), out: &lockedBuffer{}}
	sock := filepath.Join(s.dir, "ext4")
	cmd := exec.Command(tool, "--accept", "--seqpacket", "-l", sock, s.bin, "-o", "allow_other,noatime")
	cmd.Stderr = s.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	s.cmd = cmd
	wait(t, "it listens", func() bool { return strings.Contains(s.out.String(), "Listening on") })
	img := testfs.Mke2fs(t, testfs.Spec{Name: "activated"})
	m := s.mount(img)
	if info := mountinfo(m.dir); !strings.Contains(info, "rw,noatime") || !strings.Contains(info, "allow_other") {
		t.Errorf("mounted as %s", info)
	}
	if err := os.WriteFile(filepath.Join(m.dir, "file"), []byte("x"), 0o644); err != nil {
		t.Error(err)
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", m.pid))
	if err != nil || !strings.HasPrefix(string(env), s.bin+"\x00-o\x00") {
		t.Errorf("%q, %v", env, err)
	}
	m.unmount()
}

// inSystemd is what runs in the container: it mounts through the units, and
// writes down what the server is.
const inSystemd = `exec >/e2kit/out 2>&1
set -x
mkdir /run/mnt
/e2kit/mount.fuse2fs -v /e2kit/image /run/mnt || exit
cp -r /usr/share/zoneinfo/Europe /run/mnt
cmp /usr/share/zoneinfo/Europe/Berlin /run/mnt/Europe/Berlin && echo SAME
grep run/mnt /proc/self/mountinfo
pid=$(systemctl show 'fuse2fs@*' -p MainPID --value)
cat /proc/$pid/status
for ns in user net mnt ipc uts; do
	[ "$(readlink /proc/$pid/ns/$ns)" = "$(readlink /proc/1/ns/$ns)" ] || echo OTHER $ns
done
ls -l /proc/$pid/root/home /proc/$pid/root/dev/fuse
umount /run/mnt && echo UNMOUNTED
for i in $(seq 100); do
	[ -z "$(systemctl list-units --no-legend 'fuse2fs@*')" ] && echo ENDED && break
	sleep 0.1
done
/e2kit/mount.fuse2fs -v /e2kit/junk /run/mnt; echo "STATUS $?"
ls /run/mnt && echo FREE
journalctl --no-pager -o cat -u 'fuse2fs@*'
echo DONE
`

// TestServiceSystemd boots this machine's systemd in a container, and mounts
// through the units: Go lives under all their restrictions.
func TestServiceSystemd(t *testing.T) {
	bin := server(t)
	nspawn := testfs.Tool(t, "systemd-nspawn")
	if _, err := os.Stat("/usr/lib/systemd/systemd"); err != nil {
		testfs.Missing(t, "no systemd on this machine")
	}
	img := testfs.Mke2fs(t, testfs.Spec{Name: "systemd"})
	box := filepath.Dir(img.Path)
	dir := units(t, "/e2kit/fuse2fs")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(box, "script"), inSystemd)
	write(filepath.Join(box, "junk"), strings.Repeat("junk", 1<<16))
	write(filepath.Join(dir, "e2kit.service"), "[Unit]\nRequires=fuse2fs.socket\nAfter=fuse2fs.socket\nSuccessAction=poweroff\nFailureAction=poweroff\n"+
		"[Service]\nType=oneshot\nTimeoutStartSec=60\nExecStart=/bin/sh /e2kit/script\n")
	write(filepath.Join(dir, "e2kit.target"), "[Unit]\nRequires=e2kit.service\n")
	for _, u := range []string{"systemd-firstboot", "systemd-networkd", "systemd-logind", "systemd-resolved"} {
		if err := os.Symlink("/dev/null", filepath.Join(dir, u+".service")); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(box, "fuse2fs"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("fuse2fs", filepath.Join(box, "mount.fuse2fs")); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{box, dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"-k", "10", "120", nspawn, "--quiet", "--register=no", "--keep-unit", "--private-network", "--volatile=yes", "--boot",
		"-D", "/", "-M", fmt.Sprintf("e2kit%d", os.Getpid()), "--bind=" + box + ":/e2kit", "--bind-ro=" + dir + ":/etc/systemd/system",
		// What nspawn of systemd 252 would forbid.
		"--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self"}
	devices, _ := filepath.Glob("/dev/loop[0-9]*")
	for _, d := range append(devices, "/dev/fuse", "/dev/loop-control") {
		var st unix.Stat_t
		if unix.Stat(d, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			args = append(args, "--bind="+d)
		}
	}
	cmd := exec.Command("timeout", append(args, "systemd.unit=e2kit.target", "systemd.firstboot=off")...)
	start := time.Now()
	console, err := cmd.CombinedOutput()
	out, rerr := os.ReadFile(filepath.Join(box, "out"))
	if rerr != nil {
		testfs.Missing(t, "systemd does not boot in a container here (%v after %v):\n%s", err, time.Since(start), console)
	}
	for _, want := range []string{
		"served by the mount service for ext4", "SAME\n", ".ext4 /", "UNMOUNTED\n", "ENDED\n", "STATUS 2\n", "FREE\n", "DONE\n",
		"CapInh:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n",
		"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "OTHER user\n", "OTHER net\n", "OTHER mnt\n", "OTHER ipc\n", "OTHER uts\n",
		"dev/fuse': No such file", "no ext2, ext3 or ext4 superblock",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("not there: %q", want)
		}
	}
	if bytes.Contains(out, []byte("lacks a part of the sandbox")) || regexp.MustCompile(`Uid:\t(0|65534)\t`).Match(out) {
		t.Error("not confined as it should be")
	}
	if t.Failed() {
		t.Logf("%s\n%s", out, console)
	}
}

// TestServiceLibfuse mounts by libfuse's helper where there is one (3.19).
func TestServiceLibfuse(t *testing.T) {
	bin := server(t)
	tool, err := exec.LookPath("fuservicemount3")
	if err != nil {
		t.Skip("no fuservicemount3: libfuse before 3.19")
	}
	img := testfs.Mke2fs(t, testfs.Spec{Name: "libfuse"})
	dir := mkdir(t)
	// Its folder of sockets cannot be chosen, so that it gets a /run of its own.
	script := `mount -t tmpfs none /run && mkdir /run/filesystems && { "$0" --listen /run/filesystems & }
for i in $(seq 100); do "$1" -t ext4 --check && break; sleep 0.1; done
"$1" "$2" "$3" -t ext4 -o noatime && grep "$3" /proc/self/mountinfo && echo hello >"$3/file" && umount "$3" && kill %1 && wait`
	out, err := exec.Command("timeout", "60", "unshare", "--mount", "--propagation", "private", "bash", "-c", script, bin, tool, img.Path, dir).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "rw,noatime") || !strings.Contains(string(out), ".ext4 ") {
		t.Errorf("%v\n%s", err, out)
	}
}
