package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// -d fills the file system from a directory or a tar of it alike, as the kernel
// sees it; what cannot be filled is no file system.
func TestFill(t *testing.T) {
	dir := testfs.Scratch(t)
	src := filepath.Join(dir, "src")
	for _, d := range []string{src, filepath.Join(src, "sub"), filepath.Join(src, "sub", "deep")} {
		if err := os.Mkdir(d, 0o751); err != nil {
			t.Fatal(err)
		}
	}
	big := strings.Repeat("0123456789abcdef", 20000)
	for name, data := range map[string]string{"a": "hello\n", "sub/big": big, "sub/deep/empty": ""} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(data), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("sub/big", filepath.Join(src, "l")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(src, "a"), filepath.Join(src, "sub", "a2")); err != nil {
		t.Fatal(err)
	}
	tar := filepath.Join(dir, "src.tar")
	testfs.Run(t, testfs.Tool(t, "tar"), "-C", src, "-cf", tar, ".")

	for name, source := range map[string]string{"dir": src, "tar": tar} {
		img := filepath.Join(dir, name)
		if status, out, errs := mke2fs("-t", "ext4", "-d", source, img, "32M"); status != 0 {
			t.Fatalf("%s: status %d\n%s%s", name, status, out, errs)
		}
		image := testfs.Adopt(t, img)
		if err := image.Check(t); err != nil {
			t.Fatal(err)
		}
		testfs.NeedRoot(t)
		mnt := filepath.Join(dir, name+".mnt")
		if err := os.Mkdir(mnt, 0o755); err != nil {
			t.Fatal(err)
		}
		testfs.Run(t, "mount", "-o", "loop,ro", img, mnt)
		out, err := exec.Command("diff", "-r", "--no-dereference", "-x", "lost+found", src, mnt).CombinedOutput()
		a, e1 := os.Stat(filepath.Join(mnt, "a"))
		b, e2 := os.Stat(filepath.Join(mnt, "sub", "a2"))
		same := e1 == nil && e2 == nil && os.SameFile(a, b) && a.Mode().Perm() == 0o640
		testfs.Run(t, "umount", mnt)
		if err != nil || !same {
			t.Errorf("%s differs: %v, links and modes %v\n%s", name, err, same, out)
		}
	}

	small := filepath.Join(dir, "small")
	status, out, errs := mke2fs("-t", "ext2", "-d", src, small, "330k")
	if status != 1 || !strings.Contains(errs, "no file system made") {
		t.Errorf("too small: status %d\n%s%s", status, out, errs)
	}
	if err := exec.Command(testfs.Tool(t, "dumpe2fs"), "-h", small).Run(); err == nil {
		t.Error("what was not filled looks like a file system")
	}
	for _, args := range [][]string{{"-S", "-d", src}, {"-O", "journal_dev", "-d", src}, {"-O", "journal_dev", "-d", src, "--size=auto"}} {
		status, _, errs := mke2fs(append(args, "-F", small)...)
		if status != 1 || !strings.Contains(errs, "cannot be filled") {
			t.Errorf("%q: status %d: %s", args, status, errs)
		}
	}
}
