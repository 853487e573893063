package ext2fs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestReuseOfMetadata removes directories, symbolic links and attribute values
// that are in the log and not at home yet, and fills the device with data: none
// of it may be overwritten when the log goes home.
func TestReuseOfMetadata(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Size: 16 << 20, Features: "ea_inode", Inodes: 2048, Journal: "size=4"})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dev, err := blockdev.Open(img.Path, blockdev.Options{})
	must(err)
	defer dev.Close()
	fs, err := Open(dev, Options{})
	must(err)
	root, err := fs.Iget(ondisk.RootIno)
	must(err)
	for i := range 60 {
		ip, err := fs.Mkdir(root, fmt.Sprintf("d%d", i), 0o755, Cred{})
		must(err)
		ip.Put()
		ip, err = fs.Symlink(root, fmt.Sprintf("l%d", i), strings.Repeat("t", 100), Cred{})
		must(err)
		ip.Put()
		ip, err = fs.Create(root, fmt.Sprintf("f%d", i), 0o644, 0, Cred{})
		must(err)
		must(ip.Setxattr("user.large", bytes.Repeat([]byte{'a', byte(i)}, 3000), 0, false))
		ip.Put()
	}
	must(fs.Sync())
	for i := range 60 {
		must(fs.Rmdir(root, fmt.Sprintf("d%d", i)))
		must(fs.Unlink(root, fmt.Sprintf("l%d", i)))
		must(fs.Unlink(root, fmt.Sprintf("f%d", i)))
	}
	must(fs.Sync())
	ip, err := fs.Create(root, "data", 0o644, 0, Cred{})
	must(err)
	fill := bytes.Repeat([]byte("data"), 1024)
	size := int64(0)
	for ; ; size += int64(len(fill)) {
		if _, err = ip.WriteAtPrivileged(fill, size); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	ino := ip.Ino()
	ip.Put()
	root.Put()
	must(fs.Close())

	fs, err = Open(dev, Options{})
	must(err)
	defer fs.Close()
	ip, err = fs.Iget(ino)
	must(err)
	defer ip.Put()
	got := make([]byte, len(fill))
	for off := int64(0); off < size; off += int64(len(got)) {
		_, err := ip.ReadAt(got, off)
		must(err)
		if !bytes.Equal(got, fill) {
			t.Fatalf("at %d: %.40q", off, got)
		}
	}
}
