package ext2fs

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// xattrSpecs are the images where attributes lie in different places.
func xattrSpecs() []testfs.Spec {
	return []testfs.Spec{
		{Name: "ext2-128", Type: "ext2", BlockSize: 1024, Size: 16 << 20},
		{Name: "ext3-128", Type: "ext3", Size: 32 << 20},
		{Name: "ext4-128-1k", BlockSize: 1024, InodeSize: 128, Size: 32 << 20},
		{Name: "ext4-256-1k", BlockSize: 1024, Size: 32 << 20},
		{Name: "ext4-256", Size: 32 << 20},
		{Name: "ext4-512-nocsum", InodeSize: 512, Size: 32 << 20, Features: "^metadata_csum"},
		{Name: "ext4-1024", InodeSize: 1024, Size: 32 << 20},
		{Name: "ext4-ea", Size: 32 << 20, Features: "ea_inode"},
		{Name: "ext4-ea-128-1k", BlockSize: 1024, InodeSize: 128, Size: 64 << 20, Features: "ea_inode,metadata_csum_seed"},
		{Name: "ext4-ea-1k-nocsum", BlockSize: 1024, Size: 64 << 20, Features: "ea_inode,^metadata_csum"},
		{Name: "ext4-ea-noextents", Size: 32 << 20, Features: "ea_inode,^extent,^64bit"},
		{Name: "ext4-ea-nojournal", Size: 32 << 20, Features: "ea_inode,^has_journal"},
		{Name: "ext4-bigalloc-ea", Size: 128 << 20, Features: "bigalloc,ea_inode", Cluster: 16384},
		{Name: "ext4-inline", Size: 32 << 20, Features: "inline_data"},
		{Name: "ext4-inline-512-1k", BlockSize: 1024, InodeSize: 512, Size: 32 << 20, Features: "inline_data,ea_inode"},
		{Name: "ext4-64k", BlockSize: 65536, Size: 256 << 20},
	}
}

// xattrOp is one call of setxattr or, if value is nil, removexattr.
type xattrOp struct {
	file  int
	name  string
	value []byte
	flags int
}

// randomXattrOps returns n calls at random, of which many fail; none is for the
// file skip.
func randomXattrOps(rnd *rand.Rand, files, skip, n int) []xattrOp {
	acl := func() []byte {
		a := ondisk.ACL{{Tag: ondisk.ACLUserObj, Perm: uint16(rnd.IntN(8)), ID: ondisk.ACLUndefined}}
		named := rnd.IntN(4)
		for i := range named {
			a = append(a, ondisk.ACLEntry{Tag: ondisk.ACLUser, Perm: uint16(rnd.IntN(8)), ID: uint32(1000 + i)})
		}
		a = append(a, ondisk.ACLEntry{Tag: ondisk.ACLGroupObj, Perm: uint16(rnd.IntN(8)), ID: ondisk.ACLUndefined})
		if named > 0 || rnd.IntN(4) == 0 {
			a = append(a, ondisk.ACLEntry{Tag: ondisk.ACLMask, Perm: uint16(rnd.IntN(8)), ID: ondisk.ACLUndefined})
		}
		a = append(a, ondisk.ACLEntry{Tag: ondisk.ACLOther, Perm: uint16(rnd.IntN(8)), ID: ondisk.ACLUndefined})
		if rnd.IntN(20) == 0 {
			a = a[1:]
		}
		return a.AppendXattr(nil)
	}
	names := []string{"user.a", "user.b", "user.longer_name_of_an_attribute", "trusted.t", "security.selinux",
		"user.n\xc3\xa4me", "user." + strings.Repeat("x", 200), "trusted.a", "security.b", "user.c", "user.d"}
	shared := [][]byte{bytes.Repeat([]byte("s"), 30), bytes.Repeat([]byte("t"), 500), bytes.Repeat([]byte("u"), 9000),
		bytes.Repeat([]byte("w"), 5000), bytes.Repeat([]byte("v"), 65536)}
	ops := make([]xattrOp, n)
	for i := range ops {
		o := xattrOp{file: rnd.IntN(files), name: names[rnd.IntN(len(names))]}
		if o.file == skip {
			o.file = 0
		}
		switch k := rnd.IntN(20); {
		case k < 4:
		case k < 6:
			o.value = shared[rnd.IntN(len(shared))]
		case k < 8:
			o.name, o.value = "system.posix_acl_access", acl()
		case k < 9:
			o.name, o.value = "system.posix_acl_default", acl()
		case k < 15:
			o.value = make([]byte, rnd.IntN(120))
		case k < 17:
			o.value = make([]byte, rnd.IntN(1100))
		case k < 19:
			o.value = make([]byte, rnd.IntN(4200))
		default:
			o.value = make([]byte, rnd.IntN(65536))
		}
		if len(o.value) > 0 && o.value[0] == 0 {
			b := byte(rnd.Uint32())
			for j := range o.value {
				o.value[j] = b + byte(j)
			}
		}
		o.flags = []int{0, 0, 0, 0, XattrCreate, XattrReplace}[rnd.IntN(6)]
		if strings.HasPrefix(o.name, "system.") {
			o.flags = 0
		}
		ops[i] = o
	}
	return ops
}

// xattrTree makes files in dir, on a kernel mount, and returns their paths.
func xattrTree(t *testing.T, dir string) (paths []string) {
	t.Helper()
	for i := range 10 {
		p := filepath.Join(dir, fmt.Sprint("f", i))
		var err error
		switch {
		case i < 6:
			err = os.WriteFile(p, bytes.Repeat([]byte("data"), i*i*20), 0o644)
		case i < 8:
			err = os.Mkdir(p, 0o755)
		case i == 8:
			err = os.Symlink("target", p)
		default:
			err = unix.Mknod(p, unix.S_IFIFO|0o600, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p)
	}
	return paths
}

func inoOf(t *testing.T, path string) ondisk.Ino {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return ondisk.Ino(st.Ino)
}

func kernelXattrOp(path string, o xattrOp) error {
	if o.value == nil {
		return unix.Lremovexattr(path, o.name)
	}
	return unix.Lsetxattr(path, o.name, o.value, o.flags)
}

func ourXattrOp(ip *Inode, o xattrOp) error {
	if o.value == nil {
		return ip.Removexattr(o.name)
	}
	return ip.Setxattr(o.name, o.value, o.flags, false)
}

// kernelXattrs reads all attributes through a mount.
func kernelXattrs(t *testing.T, path string) map[string]string {
	t.Helper()
	m := map[string]string{}
	buf := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatal(path, err)
	}
	for _, name := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		v := make([]byte, 1<<16)
		n, err := unix.Lgetxattr(path, name, v)
		if err != nil {
			t.Fatal(path, name, err)
		}
		m[name] = string(v[:n])
	}
	return m
}

// ourXattrs reads all attributes of an inode.
func ourXattrs(t *testing.T, ip *Inode) map[string]string {
	t.Helper()
	m := map[string]string{}
	names, err := ip.Listxattr()
	if err != nil {
		t.Fatal(ip.ino, err)
	}
	for _, name := range names {
		v, err := ip.Getxattr(name)
		if err != nil {
			t.Fatal(ip.ino, name, err)
		}
		m[name] = string(v)
	}
	return m
}

func sameXattrs(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if g, ok := got[k]; !ok || g != want[k] {
			t.Errorf("%s: %s is %.20q (%d bytes, %v), want %.20q (%d bytes)", what, k, g, len(g), ok, want[k], len(want[k]))
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			t.Errorf("%s: %s should not be", what, k)
		}
	}
}

func errnoOf(err error) syscall.Errno {
	var no syscall.Errno
	if err != nil && !errors.As(err, &no) {
		return 9999
	}
	return no
}

// TestXattrLikeKernel runs the same calls on the kernel and here: their results
// and what is there afterwards are the same, and each reads the other's image.
func TestXattrLikeKernel(t *testing.T) {
	testfs.NeedRoot(t)
	for i, spec := range xattrSpecs() {
		t.Run(spec.Name, func(t *testing.T) {
			if err := testfs.Supported(t, spec); err != nil {
				t.Skip(err)
			}
			img := testfs.Mke2fs(t, spec)
			m := testfs.KernelMount(t, img, "")
			names := xattrTree(t, m.Dir)
			inos := make([]ondisk.Ino, len(names))
			for j, p := range names {
				inos[j] = inoOf(t, p)
				names[j] = filepath.Base(p)
			}
			skip := -1
			if strings.Contains(spec.Features, "ea_inode") {
				// Of a symbolic link with a value in an inode, e2fsck 1.47.0 takes the
				// target for block numbers, whoever made it.
				skip = 8
			}
			ops := randomXattrOps(rand.New(rand.NewPCG(uint64(i), 3)), len(names), skip, 600)
			for _, o := range ops[:100] {
				_ = kernelXattrOp(filepath.Join(m.Dir, names[o.file]), o)
			}
			unmount(t, m)
			mine := img.Copy(t)

			m = testfs.KernelMount(t, img, "")
			want := make([]error, len(ops))
			for j, o := range ops[100:] {
				want[j] = kernelXattrOp(filepath.Join(m.Dir, names[o.file]), o)
			}
			trees := make([]map[string]string, len(names))
			modes := make([]uint32, len(names))
			for j, n := range names {
				p := filepath.Join(m.Dir, n)
				trees[j] = kernelXattrs(t, p)
				var st unix.Stat_t
				if err := unix.Lstat(p, &st); err != nil {
					t.Fatal(err)
				}
				modes[j] = st.Mode
			}
			unmount(t, m)

			fs := openImage(t, mine, Options{})
			ips := make([]*Inode, len(inos))
			for j, ino := range inos {
				ip, err := fs.Iget(ino)
				if err != nil {
					t.Fatal(err)
				}
				ips[j] = ip
			}
			for j, o := range ops[100:] {
				err := ourXattrOp(ips[o.file], o)
				if errnoOf(err) != errnoOf(want[j]) {
					t.Fatalf("op %d: %s of %s to %d bytes, flags %d: %v, the kernel says %v",
						j, o.name, names[o.file], len(o.value), o.flags, err, want[j])
				}
			}
			for j, ip := range ips {
				sameXattrs(t, names[j], ourXattrs(t, ip), trees[j])
				var a Attr
				if ip.Attr(&a); uint32(a.Mode) != modes[j] {
					t.Errorf("%s: mode %o, want %o", names[j], a.Mode, modes[j])
				}
				ip.Put()
			}
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			if err := mine.Check(t); err != nil {
				t.Error(err)
			}

			// The kernel reads ours, and we read the kernel's.
			m = testfs.KernelMount(t, mine, "")
			for j, n := range names {
				sameXattrs(t, "by the kernel: "+n, kernelXattrs(t, filepath.Join(m.Dir, n)), trees[j])
			}
			unmount(t, m)
			fs = openImage(t, img, Options{ReadOnly: true})
			for j, ino := range inos {
				ip, err := fs.Iget(ino)
				if err != nil {
					t.Fatal(err)
				}
				sameXattrs(t, "of the kernel: "+names[j], ourXattrs(t, ip), trees[j])
				ip.Put()
			}
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func unmount(t *testing.T, m *testfs.Mount) {
	t.Helper()
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
}
