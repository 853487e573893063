package ext2fs

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// dirCase is a kind of directory.
type dirCase struct {
	testfs.Spec
	names  int // to put into it
	maxLen int
	levels int // of index nodes that come of it
}

func dirCases() []dirCase {
	hash := func(alg string) [][]string { return [][]string{{"-E", "hash_alg=" + alg}} }
	return []dirCase{
		{testfs.Spec{Name: "4k", Size: 96 << 20}, 100000, 24, 2},
		{testfs.Spec{Name: "1k", BlockSize: 1024, Size: 96 << 20}, 100000, 24, 2},
		{testfs.Spec{Name: "1k-tea", BlockSize: 1024, Tune: hash("tea")}, 20000, 60, 2},
		{testfs.Spec{Name: "1k-legacy", BlockSize: 1024, Tune: hash("legacy")}, 20000, 60, 2},
		{testfs.Spec{Name: "2k-nocsum", BlockSize: 2048, Features: "^metadata_csum,^64bit"}, 20000, 200, 2},
		{testfs.Spec{Name: "1k-large_dir", BlockSize: 1024, Features: "large_dir", Size: 128 << 20}, 50000, 230, 3},
		{testfs.Spec{Name: "ext3", Type: "ext3"}, 10000, 100, 1},
		{testfs.Spec{Name: "ext2-1k-linear", Type: "ext2", BlockSize: 1024, Features: "^dir_index"}, 3000, 60, 0},
		{testfs.Spec{Name: "csum-linear", Features: "^dir_index"}, 3000, 60, 0},
		{testfs.Spec{Name: "ext2-nofiletype", Type: "ext2", Features: "^filetype"}, 3000, 60, 1},
		{testfs.Spec{Name: "inline", Features: "inline_data"}, 3000, 30, 1},
		{testfs.Spec{Name: "inline-1k-linear", BlockSize: 1024, InodeSize: 512, Features: "inline_data,^dir_index"}, 500, 30, 0},
		{testfs.Spec{Name: "bigalloc", Features: "bigalloc", Cluster: 16384, Size: 128 << 20, Inodes: 4096}, 20000, 30, 1},
		{testfs.Spec{Name: "64k", BlockSize: 65536, Size: 256 << 20}, 50000, 60, 1},
		{testfs.Spec{Name: "32k-nocsum", BlockSize: 32768, Size: 256 << 20, Features: "^metadata_csum"}, 20000, 60, 1},
	}
}

// dirImage makes an image that has an empty folder "d" and files "f0" and "f1",
// whose links the tests put into it.
func dirImage(t testing.TB, s testfs.Spec) *testfs.Image {
	s.Dir = t.TempDir()
	for _, f := range []string{"f0", "f1"} {
		if err := os.WriteFile(filepath.Join(s.Dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.Dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	return testfs.Mke2fs(t, s)
}

// openDir opens the folder "d" and the files of an image by dirImage.
func openDir(t testing.TB, fs *FS) (dp *Inode, files [2]*Inode) {
	t.Helper()
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Put()
	get := func(name string) *Inode {
		ino, _, err := fs.dirLookup(root, []byte(name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ip, err := fs.Iget(ino)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return ip
	}
	return get("d"), [2]*Inode{get("f0"), get("f1")}
}

// levels returns how many levels of index nodes the directory has.
func (m *dirModel) levels() int {
	flags, _ := m.dp.dirState()
	if flags&ondisk.FlagIndex == 0 {
		return 0
	}
	var p dxPath
	defer p.release()
	err := m.fs.dxOpen(m.dp, &p)
	if err == nil {
		err = m.fs.dxDescend(m.dp, &p, 0)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return p.n
}

// setLinks makes the files' link counts what the model says.
func (m *dirModel) setLinks(files [2]*Inode) {
	m.t.Helper()
	for _, ip := range files {
		n := uint16(1)
		for _, ino := range m.names {
			if ino == ip.ino {
				n++
			}
		}
		h, err := m.fs.start(creditsInode)
		if err != nil {
			m.t.Fatal(err)
		}
		ip.mapMu.Lock()
		ip.raw.Base().LinksCount.Set(n)
		err = ip.store(h)
		ip.mapMu.Unlock()
		if e := h.Stop(); err != nil || e != nil {
			m.t.Fatal(err, e)
		}
	}
}

// kernelNames lists the folder by the kernel, and has it look up each name.
func kernelNames(t *testing.T, dir string) map[string]ondisk.Ino {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]ondisk.Ino, len(names))
	for _, n := range names {
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(dir, n), &st); err != nil {
			t.Fatalf("the kernel lists %q but: %v", n, err)
		}
		if _, dup := got[n]; dup {
			t.Fatalf("the kernel lists %q twice", n)
		}
		got[n] = ondisk.Ino(st.Ino)
	}
	return got
}

func dirName(i, maxLen int) string {
	s := fmt.Sprintf("%d-é-%x", i, uint32(i)*2654435761)
	if i%7 == 0 || maxLen > 200 {
		s += strings.Repeat("x", max(0, maxLen-len(s)))
	}
	return s
}

// TestDirKernel fills directories of all forms, has the kernel read and change
// them, and goes on with what the kernel left. In between and at the end C
// e2fsck looks at the image.
func TestDirKernel(t *testing.T) {
	for _, c := range dirCases() {
		t.Run(c.Name, func(t *testing.T) {
			if testing.Short() && c.names > 20000 {
				c.names = 20000
			}
			img := dirImage(t, c.Spec)
			m := &dirModel{t: t, names: map[string]ondisk.Ino{}}
			var files [2]*Inode
			open := func() {
				m.fs = openImage(t, img, Options{Errors: ErrorsContinue})
				m.dp, files = openDir(t, m.fs)
			}
			closeFS := func() {
				t.Helper()
				m.setLinks(files)
				m.dp.Put()
				files[0].Put()
				files[1].Put()
				if n := m.fs.errCount; n != 0 {
					t.Fatalf("%d inconsistencies", n)
				}
				if err := m.fs.Close(); err != nil {
					t.Fatal(err)
				}
				if err := img.Check(t); err != nil {
					t.Fatal(err)
				}
			}
			open()
			for i := range c.names {
				if err := m.add(dirName(i, c.maxLen), files[i&1].ino); err != nil {
					t.Fatalf("entry %d: %v", i, err)
				}
				if i == 3 || i == 20 || i == 100 {
					m.check()
				}
			}
			if n := m.levels(); n != c.levels && !testing.Short() {
				t.Errorf("%d levels of index nodes, want %d", n, c.levels)
			}
			for i := 0; i < c.names; i += 5 {
				m.remove(dirName(i, c.maxLen))
			}
			m.check()
			closeFS()

			if err := testfs.Supported(t, c.Spec); err != nil {
				t.Logf("not mounted by the kernel: %v", err)
				return
			}
			mnt := testfs.KernelMount(t, img, "")
			d := filepath.Join(mnt.Dir, "d")
			if got := kernelNames(t, d); !maps.Equal(got, m.names) {
				t.Fatalf("the kernel sees %d names, not %d", len(got), len(m.names))
			}
			inos := [2]ondisk.Ino{files[0].ino, files[1].ino}
			for i := 0; i < c.names; i += 3 {
				n := dirName(i, c.maxLen)
				if _, ok := m.names[n]; ok {
					if err := os.Remove(filepath.Join(d, n)); err != nil {
						t.Fatal(err)
					}
					delete(m.names, n)
				} else if i%2 == 0 {
					n += "k"
					if err := os.Link(filepath.Join(mnt.Dir, "f1"), filepath.Join(d, n)); err != nil {
						t.Fatal(err)
					}
					m.names[n] = inos[1]
				}
			}
			if err := mnt.Unmount(); err != nil {
				t.Fatal(err)
			}
			open()
			m.check()
			m.run(3, 3000, inos[0], c.maxLen)
			m.check()
			closeFS()
			mnt = testfs.KernelMount(t, img, "ro")
			if got := kernelNames(t, filepath.Join(mnt.Dir, "d")); !maps.Equal(got, m.names) {
				t.Fatalf("the kernel sees %d names, not %d", len(got), len(m.names))
			}
		})
	}
}

// TestDirCollisions fills several blocks with names of one and the same hash.
func TestDirCollisions(t *testing.T) {
	b, err := os.ReadFile("testdata/legacy-collisions.txt")
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(b))
	for _, features := range []string{"metadata_csum", "^metadata_csum"} {
		t.Run(features, func(t *testing.T) {
			img := dirImage(t, testfs.Spec{BlockSize: 1024, Size: 32 << 20, Features: features,
				Tune: [][]string{{"-E", "hash_alg=legacy"}}})
			fs := openImage(t, img, Options{})
			dp, files := openDir(t, fs)
			m := &dirModel{t: t, fs: fs, dp: dp, names: map[string]ondisk.Ino{}}
			m.run(1, 2000, files[0].ino, 30)
			for i, n := range names {
				if err := m.add(n, files[1].ino); err != nil {
					t.Fatal(err)
				}
				if i%40 == 0 {
					m.check()
				}
			}
			m.run(2, 3000, files[0].ino, 30)
			for i, n := range names {
				if _, ok := m.names[n]; ok && i%4 == 0 {
					m.remove(n)
				}
			}
			m.check()
			if err := m.add(names[1], 12); !errors.Is(err, syscall.EEXIST) && m.names[names[1]] != 12 {
				t.Fatal(err)
			}
			m.names[names[1]] = files[1].ino
			h, err := fs.start(4)
			if err != nil {
				t.Fatal(err)
			}
			if err := fs.dirReplace(h, dp, []byte(names[1]), files[1].ino, ondisk.FTReg); err != nil {
				t.Fatal(err)
			}
			h.Stop()
			m.setLinks(files)
			dp.Put()
			files[0].Put()
			files[1].Put()
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			mnt := testfs.KernelMount(t, img, "")
			d := filepath.Join(mnt.Dir, "d")
			if got := kernelNames(t, d); !maps.Equal(got, m.names) {
				t.Fatalf("the kernel sees %d names, not %d", len(got), len(m.names))
			}
		})
	}
}
