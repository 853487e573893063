package ext2fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"golang.org/x/sys/unix"
)

// readNames returns the names of a directory as Readdir gives them.
func readNames(t *testing.T, fs *FS, dp *Inode) []string {
	t.Helper()
	var names []string
	err := fs.Readdir(dp, 0, func(name []byte, _ ondisk.Ino, _ uint8, _ uint64) bool {
		names = append(names, string(name))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestDirCasefold looks up names in any case, with and without an index, which
// e2fsck builds by the folded names.
func TestDirCasefold(t *testing.T) {
	for _, n := range []int{3, 400} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := testfs.Spec{Name: "casefold", BlockSize: 1024, Features: "casefold", Extended: "encoding=utf8", Dir: t.TempDir()}
			if err := os.Mkdir(filepath.Join(s.Dir, "d"), 0o755); err != nil {
				t.Fatal(err)
			}
			name := func(i int) string { return fmt.Sprintf("File-Name-%d", i) }
			for i := range n {
				if err := os.WriteFile(filepath.Join(s.Dir, "d", name(i)), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(s.Dir, "d", "Größe"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			img := testfs.Mke2fs(t, s)
			testfs.Run(t, "debugfs", "-w", "-R", "set_inode_field /d flags 0x40080000", img.Path)
			// Status 1: it has rebuilt the index.
			tool := testfs.Tool(t, "e2fsck")
			if p, err := os.StartProcess(tool, []string{"e2fsck", "-fyD", img.Path}, &os.ProcAttr{}); err != nil {
				t.Fatal(err)
			} else if st, err := p.Wait(); err != nil || st.ExitCode() > 1 {
				t.Fatal(st, err)
			}
			fs := openImage(t, img, Options{})
			if ro, _ := fs.ReadOnly(); !ro {
				t.Error("opened for writing")
			}
			root, err := fs.Iget(ondisk.RootIno)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Put()
			ino, _, err := fs.dirLookup(root, []byte("d"))
			if err != nil {
				t.Fatal(err)
			}
			dp, err := fs.Iget(ino)
			if err != nil {
				t.Fatal(err)
			}
			defer dp.Put()
			if flags, _ := dp.dirState(); fs.isDx(flags) != (n > 100) {
				t.Fatalf("flags %#x", flags)
			}
			for i := range n {
				want, _, err := fs.dirLookup(dp, []byte(name(i)))
				if err != nil {
					t.Fatalf("%s: %v", name(i), err)
				}
				got, _, err := fs.dirLookup(dp, fmt.Appendf(nil, "fILE-nAME-%d", i))
				if err != nil || got != want {
					t.Fatalf("other case of %s: %d, %v", name(i), got, err)
				}
			}
			if _, _, err := fs.dirLookup(dp, []byte("Größe")); err != nil {
				t.Error(err)
			}
			if _, _, err := fs.dirLookup(dp, []byte("none")); !errors.Is(err, syscall.ENOENT) {
				t.Error(err)
			}
			if _, _, err := fs.dirLookup(root, []byte("D")); !errors.Is(err, syscall.ENOENT) {
				t.Errorf("case does not count in the root: %v", err)
			}
			if got := readNames(t, fs, dp); len(got) != n+3 {
				t.Errorf("%d names read, %d expected", len(got), n+3)
			}
		})
	}
}

// TestDirEncrypted reads a folder that the kernel encrypted: the names are
// their ciphertext, by which the index finds them.
func TestDirEncrypted(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "encrypt", Features: "encrypt"})
	mnt := testfs.KernelMount(t, img, "")
	top, err := os.Open(mnt.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	var key struct {
		typ, _   uint32
		id       [32]byte
		size, _  uint32
		reserved [8]uint32
		raw      [64]byte
	}
	key.typ, key.size = 2, 64
	for i := range key.raw {
		key.raw[i] = byte(i * 7)
	}
	const addKey, setPolicy = 0xc0506617, 0x800c6613
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, top.Fd(), addKey, uintptr(unsafe.Pointer(&key))); e != 0 {
		t.Skipf("this kernel takes no key: %v", e)
	}
	d := filepath.Join(mnt.Dir, "d")
	if err := os.Mkdir(d, 0o755); err != nil {
		t.Fatal(err)
	}
	df, err := os.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	policy := [24]byte{0: 2, 1: 1, 2: 4, 3: 3}
	copy(policy[8:], key.id[:16])
	_, _, e := unix.Syscall(unix.SYS_IOCTL, df.Fd(), setPolicy, uintptr(unsafe.Pointer(&policy)))
	df.Close()
	if e != 0 {
		t.Skipf("this kernel does not encrypt: %v", e)
	}
	inos := map[ondisk.Ino]bool{}
	for i := range 500 {
		p := filepath.Join(d, fmt.Sprintf("file-%d", i))
		if err := os.WriteFile(p, nil, 0o644); err != nil {
			if i == 0 {
				t.Skipf("this kernel does not encrypt: %v", err)
			}
			t.Fatal(err)
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(p, &st); err != nil {
			t.Fatal(err)
		}
		inos[ondisk.Ino(st.Ino)] = true
	}
	var st syscall.Stat_t
	if err := syscall.Stat(d, &st); err != nil {
		t.Fatal(err)
	}
	top.Close()
	if err := mnt.Unmount(); err != nil {
		t.Fatal(err)
	}
	fs := openImage(t, img, Options{})
	dp, err := fs.Iget(ondisk.Ino(st.Ino))
	if err != nil {
		t.Fatal(err)
	}
	defer dp.Put()
	if flags, _ := dp.dirState(); !fs.isDx(flags) {
		t.Fatalf("no index: flags %#x", flags)
	}
	for _, n := range readNames(t, fs, dp) {
		ino, _, err := fs.dirLookup(dp, []byte(n))
		if err != nil {
			t.Fatalf("%q: %v", n, err)
		}
		if !isDots([]byte(n)) && !inos[ino] {
			t.Fatalf("%q is inode %d", n, ino)
		}
		delete(inos, ino)
	}
	if len(inos) != 0 {
		t.Fatalf("%d files not found", len(inos))
	}
}
