package ext2fs

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestStatfsLikeKernel compares statfs of all kinds of images.
func TestStatfsLikeKernel(t *testing.T) {
	testfs.NeedRoot(t)
	for _, spec := range testfs.Matrix() {
		t.Run(spec.Name, func(t *testing.T) {
			if err := testfs.Supported(t, spec); err != nil {
				t.Skip(err)
			}
			img := testfs.Mke2fs(t, spec)
			for _, minix := range []bool{false, true} {
				opts := "ro,bsddf"
				if minix {
					opts = "ro,minixdf"
				}
				m := testfs.KernelMount(t, img, opts)
				var st unix.Statfs_t
				if err := unix.Statfs(m.Dir, &st); err != nil {
					t.Fatal(err)
				}
				unmount(t, m)
				fs := openImage(t, img, Options{ReadOnly: true, MinixDF: minix})
				got := fs.Statfs()
				want := Statfs{st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree}
				if got != want {
					t.Errorf("minixdf %v: %+v, the kernel says %+v", minix, got, want)
				}
				if err := fs.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// aclCases are default ACLs, as system calls pass them.
func aclCases() (all [][]byte) {
	rnd := rand.New(rand.NewPCG(4, 4))
	none := uint32(ondisk.ACLUndefined)
	for i := range 12 {
		a := ondisk.ACL{{Tag: ondisk.ACLUserObj, Perm: uint16(rnd.IntN(8)), ID: none}}
		if i%3 == 1 {
			a = append(a, ondisk.ACLEntry{Tag: ondisk.ACLUser, Perm: uint16(rnd.IntN(8)), ID: 1000})
		}
		a = append(a, ondisk.ACLEntry{Tag: ondisk.ACLGroupObj, Perm: uint16(rnd.IntN(8)), ID: none})
		if i%4 == 1 {
			a = append(a, ondisk.ACLEntry{Tag: ondisk.ACLGroup, Perm: uint16(rnd.IntN(8)), ID: 50})
		}
		if i%3 == 1 || i%4 == 1 || i%5 == 0 {
			a = append(a, ondisk.ACLEntry{Tag: ondisk.ACLMask, Perm: uint16(rnd.IntN(8)), ID: none})
		}
		a = append(a, ondisk.ACLEntry{Tag: ondisk.ACLOther, Perm: uint16(rnd.IntN(8)), ID: none})
		all = append(all, a.AppendXattr(nil))
	}
	return append(all, nil)
}

// seen is what a test compares of a file.
type seen struct {
	mode     uint32
	uid, gid uint32
	size     int64
	xattrs   map[string]string
}

func seenByKernel(t *testing.T, dir string) map[string]seen {
	t.Helper()
	all := map[string]seen{}
	err := filepath.Walk(dir, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		s := seen{st.Mode, st.Uid, st.Gid, st.Size, kernelXattrs(t, p)}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			s.size = 0
		}
		all[strings.TrimPrefix(p, dir)] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sameSeen(t *testing.T, got, want map[string]seen) {
	t.Helper()
	for p, w := range want {
		g, ok := got[p]
		if !ok {
			t.Errorf("%s is missing", p)
			continue
		}
		sameXattrs(t, p, g.xattrs, w.xattrs)
		g.xattrs, w.xattrs = nil, nil
		if fmt.Sprint(g) != fmt.Sprint(w) {
			t.Errorf("%s: mode %o of %d:%d, size %d, want mode %o of %d:%d, size %d",
				p, g.mode, g.uid, g.gid, g.size, w.mode, w.uid, w.gid, w.size)
		}
	}
	for p := range maps.Keys(got) {
		if _, ok := want[p]; !ok {
			t.Errorf("%s should not be", p)
		}
	}
}

// attrOp changes a file; it is run on the kernel and here.
type attrOp struct {
	name   string
	kernel func(path string) error
	set    SetAttr
}

func attrOps() []attrOp {
	chmod := func(m uint32) attrOp {
		return attrOp{fmt.Sprintf("chmod %o", m), func(p string) error { return unix.Chmod(p, m) },
			SetAttr{Valid: SetMode, Mode: uint16(m)}}
	}
	own := func(u, g int) attrOp {
		var s SetAttr
		if u >= 0 {
			s.Valid, s.UID = SetUID, uint32(u)
		}
		if g >= 0 {
			s.Valid, s.GID = s.Valid|SetGID, uint32(g)
		}
		return attrOp{fmt.Sprint("chown ", u, g), func(p string) error { return unix.Lchown(p, u, g) }, s}
	}
	return []attrOp{
		chmod(0o6755), own(1000, -1), chmod(0o4711), own(-1, 70000), chmod(0o2644), own(1<<31, 65536),
		chmod(0o1777), chmod(0), chmod(0o640),
		{"caps", func(p string) error {
			return unix.Setxattr(p, "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0)
		}, SetAttr{}},
		own(0, 0),
	}
}

// TestAttrsLikeKernel makes files in directories with default ACLs, and changes
// modes and owners, here and on the kernel.
func TestAttrsLikeKernel(t *testing.T) {
	testfs.NeedRoot(t)
	specs := []testfs.Spec{
		{Name: "256", Size: 32 << 20},
		{Name: "128-1k", BlockSize: 1024, InodeSize: 128, Size: 32 << 20},
		{Name: "512-ea", InodeSize: 512, Size: 32 << 20, Features: "ea_inode,^metadata_csum"},
	}
	defer unix.Umask(unix.Umask(0o022))
	for _, spec := range specs {
		t.Run(spec.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, spec)
			m := testfs.KernelMount(t, img, "")
			cases := aclCases()
			for i, acl := range cases {
				p := filepath.Join(m.Dir, fmt.Sprint("d", i))
				if err := os.Mkdir(p, 0o755); err != nil {
					t.Fatal(err)
				}
				if acl != nil {
					if err := unix.Setxattr(p, "system.posix_acl_default", acl, 0); err != nil {
						t.Fatal(err)
					}
				}
			}
			unmount(t, m)
			mine := img.Copy(t)

			modes := []uint32{0o644, 0o777, 0o600, 0o666, 0o4751}
			m = testfs.KernelMount(t, img, "")
			for i := range cases {
				for j, mode := range modes {
					d := filepath.Join(m.Dir, fmt.Sprint("d", i))
					f, sub := filepath.Join(d, fmt.Sprint("f", j)), filepath.Join(d, fmt.Sprint("s", j))
					if err := unix.Mknod(f, unix.S_IFREG|mode, 0); err != nil {
						t.Fatal(err)
					}
					if err := unix.Mkdir(sub, mode&0o777); err != nil {
						t.Fatal(err)
					}
					if err := os.Symlink("x", filepath.Join(d, fmt.Sprint("l", j))); err != nil {
						t.Fatal(err)
					}
					for k, o := range attrOps() {
						if (k+i+j)%3 == 0 {
							continue
						}
						for _, p := range []string{f, sub} {
							if err := o.kernel(p); err != nil {
								t.Fatal(o.name, err)
							}
						}
					}
				}
			}
			want := seenByKernel(t, m.Dir)
			unmount(t, m)

			fs := openImage(t, mine, Options{})
			root, err := fs.Iget(ondisk.RootIno)
			if err != nil {
				t.Fatal(err)
			}
			for i := range cases {
				d, err := fs.Lookup(root, fmt.Sprint("d", i))
				if err != nil {
					t.Fatal(err)
				}
				for j, mode := range modes {
					cred := Cred{Umask: 0o022}
					f, err := fs.Create(d, fmt.Sprint("f", j), uint16(mode), 0, cred)
					if err != nil {
						t.Fatal(err)
					}
					sub, err := fs.Mkdir(d, fmt.Sprint("s", j), uint16(mode&0o777), cred)
					if err != nil {
						t.Fatal(err)
					}
					l, err := fs.Symlink(d, fmt.Sprint("l", j), "x", cred)
					if err != nil {
						t.Fatal(err)
					}
					l.Put()
					for k, o := range attrOps() {
						if (k+i+j)%3 == 0 {
							continue
						}
						for _, ip := range []*Inode{f, sub} {
							if o.name == "caps" {
								err = ip.Setxattr("security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0, false)
							} else {
								err = ip.Setattr(&o.set)
							}
							if err != nil {
								t.Fatal(o.name, err)
							}
						}
					}
					f.Put()
					sub.Put()
				}
				d.Put()
			}
			root.Put()
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			m = testfs.KernelMount(t, mine, "ro")
			got := seenByKernel(t, m.Dir)
			unmount(t, m)
			sameSeen(t, got, want)
		})
	}
}

// TestSetattrTimes sets times that inodes can just hold, and the birth time.
func TestSetattrTimes(t *testing.T) {
	testfs.NeedRoot(t)
	img := testfs.Mke2fs(t, testfs.Spec{Size: 16 << 20})
	born := time.Unix(1e9, 123456789)
	fs := openImage(t, img, Options{Now: func() time.Time { return born }})
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	times := []ondisk.Time{{Sec: 0}, {Sec: -1, Nsec: 999999999}, {Sec: -1 << 31}, {Sec: 1<<31 - 1}, {Sec: 1 << 31, Nsec: 1},
		{Sec: 1<<34 - 1<<31 - 2, Nsec: 5}, {Sec: 1 << 40, Nsec: 6}, {Sec: -1 << 40}}
	for i, tm := range times {
		ip, err := fs.Create(root, fmt.Sprint("f", i), 0o644, 0, Cred{})
		if err != nil {
			t.Fatal(err)
		}
		if err := ip.Setattr(&SetAttr{Valid: SetAtime | SetMtime, Atime: tm, Mtime: tm}); err != nil {
			t.Fatal(err)
		}
		ip.Put()
	}
	root.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
	m := testfs.KernelMount(t, img, "ro")
	for i, tm := range times {
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, filepath.Join(m.Dir, fmt.Sprint("f", i)), 0, unix.STATX_ALL, &st); err != nil {
			t.Fatal(err)
		}
		want := tm
		if s := max(min(want.Sec, 1<<34-1<<31-1), -1<<31); s != want.Sec {
			want = ondisk.Time{Sec: s}
		}
		if st.Mtime.Sec != want.Sec || st.Mtime.Nsec != want.Nsec || st.Atime.Sec != want.Sec {
			t.Errorf("%v: the kernel reads %v", tm, st.Mtime)
		}
		if st.Btime.Sec != born.Unix() || st.Btime.Nsec != 123456789 || st.Ctime.Sec != born.Unix() {
			t.Errorf("born %v, changed %v", st.Btime, st.Ctime)
		}
	}
}

// TestFlagsLikeKernel sets inode flags by ioctl and compares what comes of it.
func TestFlagsLikeKernel(t *testing.T) {
	testfs.NeedRoot(t)
	img := testfs.Mke2fs(t, testfs.Spec{Size: 32 << 20})
	m := testfs.KernelMount(t, img, "")
	for _, n := range []string{"f", "d"} {
		p := filepath.Join(m.Dir, n)
		var err error
		if n == "f" {
			err = os.WriteFile(p, []byte("x"), 0o644)
		} else {
			err = os.Mkdir(p, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	unmount(t, m)
	mine := img.Copy(t)
	m = testfs.KernelMount(t, img, "")
	fs := openImage(t, mine, Options{})
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Put()
	try := []uint32{0, ondisk.FlagNodump | ondisk.FlagExtents, ondisk.FlagNoatime | ondisk.FlagSync | ondisk.FlagExtents,
		ondisk.FlagTopdir | ondisk.FlagDirsync | ondisk.FlagExtents, 0x00000004 | ondisk.FlagExtents,
		ondisk.FlagExtents | ondisk.FlagIndex | ondisk.FlagHugeFile,
		ondisk.FlagEAInode | ondisk.FlagExtents, 0x80000000 | ondisk.FlagExtents, ondisk.FlagProjinherit | ondisk.FlagExtents,
		ondisk.FlagCasefold | ondisk.FlagExtents, ondisk.FlagImmutable | ondisk.FlagNoatime | ondisk.FlagExtents,
		ondisk.FlagImmutable | ondisk.FlagExtents, ondisk.FlagExtents, ondisk.FlagAppend | ondisk.FlagExtents, ondisk.FlagExtents}
	for _, n := range []string{"f", "d"} {
		f, err := os.Open(filepath.Join(m.Dir, n))
		if err != nil {
			t.Fatal(err)
		}
		ip, err := fs.Lookup(root, n)
		if err != nil {
			t.Fatal(err)
		}
		for _, fl := range try {
			kerr := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(fl))
			oerr := ip.SetFlags(fl)
			k, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
			if err != nil {
				t.Fatal(err)
			}
			if errnoOf(oerr) != errnoOf(kerr) || uint32(k) != ip.Flags() {
				t.Errorf("%s: flags %#x: %v, now %#x; the kernel says %v, %#x", n, fl, oerr, ip.Flags(), kerr, uint32(k))
			}
		}
		if err := ip.SetFsxattr(0x80|0x40, 0); err != nil {
			t.Error(err)
		}
		if x, p := ip.Fsxattr(); x != 0x80|0x40 || p != 0 || ip.Flags()&ondisk.FlagNodump == 0 {
			t.Errorf("fsxattr %#x, %d", x, p)
		}
		if err := ip.SetFsxattr(0, 7); !errors.Is(err, syscall.EOPNOTSUPP) {
			t.Errorf("project: %v", err)
		}
		ip.Put()
		f.Close()
	}
}

// TestLabelTrim sets the label, and discards free space without harm.
func TestLabelTrim(t *testing.T) {
	testfs.NeedRoot(t)
	for _, spec := range []testfs.Spec{{Name: "4k", Size: 300 << 20}, {Name: "1k", BlockSize: 1024, Size: 64 << 20, Type: "ext2"}} {
		img := testfs.Mke2fs(t, spec)
		fs := openImage(t, img, Options{})
		if err := fs.SetLabel(strings.Repeat("x", 17)); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("17 bytes: %v", err)
		}
		if err := fs.SetLabel("sixteen bytes ok"); err != nil || fs.Label() != "sixteen bytes ok" {
			t.Errorf("label %q, %v", fs.Label(), err)
		}
		n, err := fs.Trim(0, ^uint64(0), 0)
		if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
			t.Errorf("trim: %v", err)
		}
		if st := fs.Statfs(); err == nil && (n == 0 || n > st.Bfree*uint64(fs.blockSize)) {
			t.Errorf("trimmed %d bytes of %d free blocks", n, st.Bfree)
		}
		if _, err := fs.Trim(1<<50, 1<<30, 0); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("trim past the end: %v", err)
		}
		if err := fs.Close(); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"-h", img.Path}, {"-h", "-o", fmt.Sprint("superblock=", uint64(fs.groupFirst(1))), "-o", fmt.Sprint("blocksize=", fs.blockSize), img.Path}} {
			if out := testfs.Run(t, "dumpe2fs", args...); !strings.Contains(out, "sixteen bytes ok") {
				t.Errorf("dumpe2fs %v: %s", args, out)
			}
		}
	}
}
