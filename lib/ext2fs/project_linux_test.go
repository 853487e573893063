package ext2fs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestProject sets project ids, which new files inherit and which keep names
// out; the kernel and C debugfs read what is stored.
func TestProject(t *testing.T) {
	testfs.NeedRoot(t)
	const inherit = 0x200 // FS_XFLAG_PROJINHERIT
	img := testfs.Mke2fs(t, testfs.Spec{Name: "project", Size: 16 << 20, Features: "project"})
	fs := openImage(t, img, Options{})
	if ro, why := fs.ReadOnly(); ro {
		t.Fatal(why)
	}
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint32{}
	mk := func(ip *Inode, err error) *Inode {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return ip
	}
	expect := func(name string, ip *Inode, id uint32) {
		t.Helper()
		if _, got := ip.Fsxattr(); got != id {
			t.Errorf("%s has project %d, want %d", name, got, id)
		}
		want[name] = id
	}
	seven := mk(fs.Mkdir(root, "seven", 0o755, Cred{}))
	expect("seven", seven, 0)
	if err := seven.SetFsxattr(inherit, 7); err != nil {
		t.Fatal(err)
	}
	expect("seven", seven, 7)
	if x, _ := seven.Fsxattr(); x != inherit {
		t.Errorf("xflags %#x", x)
	}
	file := mk(fs.Create(seven, "file", ondisk.ModeReg|0o644, 0, Cred{}))
	expect("seven/file", file, 7)
	sub := mk(fs.Mkdir(seven, "sub", 0o755, Cred{}))
	expect("seven/sub", sub, 7)
	deep := mk(fs.Symlink(sub, "deep", "target", Cred{}))
	if _, id := deep.Fsxattr(); id != 7 {
		t.Errorf("the link has project %d", id)
	}
	other := mk(fs.Create(root, "other", ondisk.ModeReg|0o644, 0, Cred{}))
	expect("other", other, 0)
	plain := mk(fs.Mkdir(root, "plain", 0o755, Cred{}))
	if err := plain.SetFsxattr(0, 9); err != nil { // without inheritance
		t.Fatal(err)
	}
	expect("plain", plain, 9)
	in := mk(fs.Create(plain, "in", ondisk.ModeReg|0o644, 0, Cred{}))
	expect("plain/in", in, 0)

	exdev := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, syscall.EXDEV) {
			t.Errorf("%s: %v", what, err)
		}
	}
	exdev("link", fs.Link(other, seven, "other"))
	exdev("rename", fs.Rename(root, "other", seven, "other", 0, Cred{}))
	exdev("exchange", fs.Rename(root, "other", seven, "file", RenameExchange, Cred{}))
	exdev("exchange the other way", fs.Rename(seven, "file", root, "other", RenameExchange, Cred{}))
	if err := fs.Rename(seven, "file", sub, "moved", 0, Cred{}); err != nil {
		t.Error(err)
	}
	delete(want, "seven/file")
	expect("seven/sub/moved", file, 7)
	if err := fs.Link(file, root, "out"); err != nil { // out is allowed
		t.Error(err)
	}
	expect("out", file, 7)
	if err := other.SetFsxattr(0, 7); err != nil {
		t.Fatal(err)
	}
	if err := fs.Rename(root, "other", seven, "other", 0, Cred{}); err != nil {
		t.Error(err)
	}
	delete(want, "other")
	expect("seven/other", other, 7)
	if err := other.SetFsxattr(0x8, 7); err != nil {
		t.Fatal(err)
	}
	if err := other.SetFsxattr(0x8, 8); !errors.Is(err, syscall.EPERM) {
		t.Errorf("the project of an immutable file: %v", err)
	}
	expect("seven/other", other, 7)
	for _, ip := range []*Inode{seven, file, sub, deep, other, plain, in, root} {
		ip.Put()
	}
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}

	if out := testfs.Run(t, "debugfs", "-R", "stat seven/sub/deep", img.Path); !strings.Contains(out, "Project:     7") {
		t.Errorf("debugfs:\n%s", out)
	}
	m := testfs.KernelMount(t, img, "ro")
	for name, id := range want {
		f, err := os.Open(filepath.Join(m.Dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		var x struct{ xflags, extsize, nextents, projid, cowextsize, _, _ uint32 }
		_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0x801c581f, uintptr(unsafe.Pointer(&x)))
		f.Close()
		if e != 0 || x.projid != id {
			t.Errorf("%s: the kernel says project %d, want %d (%v)", name, x.projid, id, e)
		}
	}
}

// TestProjectRoom: inodes that are too small have no project id.
func TestProjectRoom(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "small inodes", Size: 16 << 20, InodeSize: 128, Features: "^extra_isize"})
	testfs.Run(t, "debugfs", "-w", "-R", "feature project", img.Path)
	fs := openImage(t, img, Options{})
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	if err := root.SetFsxattr(0, 7); !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Error(err)
	}
	root.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}
