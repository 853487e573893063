package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
)

// userBed is a place in which a user mounts: a mount namespace with a /dev/fuse
// for all, a copy of the program within reach, set-uid root or not.
type userBed struct {
	t   *testing.T
	s   *mountService
	dir string
}

const userID = 65534

func newUserBed(t *testing.T) *userBed {
	t.Helper()
	s := startService(t, "--listen-mode", "0666")
	testfs.Tool(t, "unshare")
	testfs.Tool(t, "setpriv")
	// Not testfs.Scratch, whose /dev/shm may be mounted nosuid.
	dir, err := os.MkdirTemp("", "e2kit-user")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin, err := os.ReadFile(s.bin)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Chmod(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "plain"), bin, 0o755),
		os.WriteFile(filepath.Join(dir, "setuid"), bin, 0o755),
		os.Chmod(filepath.Join(dir, "setuid"), 0o755|os.ModeSetuid),
		os.Mkdir(filepath.Join(dir, "mnt"), 0o755),
		os.Chown(filepath.Join(dir, "mnt"), userID, userID),
		os.Mkdir(filepath.Join(dir, "rootmnt"), 0o755),
		unix.Mknod(filepath.Join(dir, "fuse"), unix.S_IFCHR|0o666, int(unix.Mkdev(10, 229))),
		os.Chmod(filepath.Join(dir, "fuse"), 0o666),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Flags&unix.ST_NOSUID != 0 {
		testfs.Missing(t, "%s is mounted nosuid", dir)
	}
	return &userBed{t, s, dir}
}

// image makes an image in the bed.
func (u *userBed) image(name string, uid int) *testfs.Image {
	u.t.Helper()
	spec := testfs.Spec{Name: name}
	if name == "own" { // its root folder, too
		spec.Args = []string{"-E", fmt.Sprintf("root_owner=%d:%d", userID, userID)}
	}
	img := testfs.Mke2fs(u.t, spec)
	if err := unix.Chown(img.Path, uid, uid); err != nil {
		u.t.Fatal(err)
	}
	for _, err := range []error{os.Chmod(img.Path, 0o600), os.Chmod(filepath.Dir(img.Path), 0o755)} {
		if err != nil {
			u.t.Fatal(err)
		}
	}
	return img
}

// run runs a script as root in the bed: there "user CMD" runs a command as the
// user, and $SETUID and $PLAIN are the helper's command line. There is no
// fusermount, by which a user could mount without the helper.
func (u *userBed) run(script string) (string, error) {
	u.t.Helper()
	helper := func(name string) string {
		return fmt.Sprintf("%s/%s --mount-helper --socket-dir %s -v", u.dir, name, u.s.dir)
	}
	script = fmt.Sprintf("SETUID='%s'\nPLAIN='%s'\nuser() { setpriv --reuid %d --regid %d --clear-groups -- \"$@\"; }\nmount --bind %s/fuse /dev/fuse && cd %s || exit 99\n"+
		"for f in fusermount3 fusermount; do if p=$(command -v $f); then mount --bind /dev/null \"$(readlink -f \"$p\")\" || exit 98; fi; done\n",
		helper("setuid"), helper("plain"), userID, userID, u.dir, u.dir) + script
	cmd := exec.Command("timeout", "-k", "5", "60", "unshare", "--mount", "--propagation", "private", "sh", "-uc", script)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// idle waits until no server runs, so that images are free and clean.
func (u *userBed) idle() {
	u.t.Helper()
	wait(u.t, "the servers have ended", func() bool { return len(u.s.servers()) == 0 })
}

// TestServiceSetuid mounts as a user through a set-uid helper.
func TestServiceSetuid(t *testing.T) {
	u := newUserBed(t)
	own, root := u.image("own", userID), u.image("root", 0)
	out, err := u.run(fmt.Sprintf(`
set -e
user $SETUID %[1]s mnt -o suid,dev,noatime
grep %[2]s/mnt /proc/self/mountinfo
user sh -c 'echo hello >mnt/file; cat mnt/file'
ls mnt >/dev/null 2>&1 && echo root looks in || echo root does not look in
umount mnt
`, own.Path, u.dir))
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, u.s.out)
	}
	for _, want := range []string{"served by the mount service", " rw,nosuid,nodev,noatime", "fuse.ext4 " + own.Path + " ",
		fmt.Sprintf("user_id=%d,group_id=%d,default_permissions", userID, userID), "hello\n", "root does not look in"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	u.idle()
	if err := own.Check(t); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct{ args, want string }{
		"a file of root":      {root.Path + " mnt", "permission denied"},
		"a folder of root":    {own.Path + " rootmnt", "permission denied"},
		"a folder in proc":    {own.Path + " /proc/self", "permi"}, // denied or not permitted
		"allow_other":         {own.Path + " mnt -o allow_other", "operation not permitted"},
		"memory":              {own.Path + " mnt -o cache_size=1g", "operation not permitted"},
		"without confinement": {own.Path + " mnt -o sandbox=off", "mount"}, // as fuse2fs, which may not mount
	} {
		out, err := u.run("user $SETUID " + c.args + "; s=$?; grep " + u.dir + "/.*fuse.ext4 /proc/self/mountinfo; exit $s")
		if err == nil || !strings.Contains(out, c.want) || strings.Contains(out, " fuse.ext4 ") {
			t.Errorf("%s: %v, want %q\n%s", name, err, c.want, out)
		}
		u.idle()
	}
	// The environment is nobody's to decide by, nor are other roles privileged.
	out, err = u.run("export FUSE2FS_SOCKET_DIR=" + u.s.dir + "; user ./setuid --mount-helper -t ext4 --check")
	if err == nil {
		t.Errorf("the environment names the folder of sockets\n%s", out)
	}
	out, err = u.run("user ./setuid -f " + own.Path + " mnt")
	if err == nil || strings.Contains(out, "fuse.ext4") {
		t.Errorf("fuse2fs mounts by the set-uid bit: %v\n%s", err, out)
	}
}

// TestServiceUser mounts as a user who has no set-uid helper: as the root of a
// user namespace, and else as fuse2fs does.
func TestServiceUser(t *testing.T) {
	u := newUserBed(t)
	img := u.image("userns", userID)
	out, err := u.run(fmt.Sprintf("user unshare --user --map-root-user --mount sh -ec \"$PLAIN %s mnt; grep %s/mnt /proc/self/mountinfo; echo hello >mnt/file; cat mnt/file; umount mnt\"",
		img.Path, u.dir))
	if strings.Contains(out, "unshare failed") {
		t.Skipf("users may make no namespaces: %s", out)
	}
	if err != nil || !strings.Contains(out, "served by the mount service") || !strings.Contains(out, "hello") ||
		!strings.Contains(out, " fuse.ext4 "+img.Path+" ") {
		t.Errorf("%v\n%s%s", err, out, u.s.out)
	}
	u.idle()
	if err := img.Check(t); err != nil {
		t.Error(err)
	}
	out, _ = u.run("user $PLAIN " + img.Path + " mnt")
	if !strings.Contains(out, "for a user: mount.fuse2fs would have to be set-uid root: mounting without") {
		t.Errorf("%s", out)
	}
}
