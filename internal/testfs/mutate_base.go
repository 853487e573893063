//go:build linux

package testfs

import (
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// MutationBases makes good images, of 8 to 16 MiB each, that have every kind of
// structure between them: for NewMutator. It takes root.
func MutationBases(t testing.TB) []*Image {
	t.Helper()
	const mb = 1 << 20
	recipes := []Dirty{
		{Name: "extents", Spec: Spec{BlockSize: 1024, Size: 12 * mb, InodeSize: 256, Inodes: 2000, Journal: "size=1", Features: "ea_inode"}},
		{Name: "inline", Spec: Spec{Size: 16 * mb, InodeSize: 512, Inodes: 1500, Journal: "size=4", Features: "inline_data,ea_inode,large_dir,orphan_file,metadata_csum_seed"}},
		{Name: "ext3", Spec: Spec{Type: "ext3", BlockSize: 1024, Size: 12 * mb, Inodes: 2000, Journal: "size=1"}},
		{Name: "uninit_bg", Spec: Spec{BlockSize: 2048, Size: 16 * mb, Inodes: 1500, Features: "^metadata_csum,^64bit,uninit_bg", Journal: "size=2"}},
		{Name: "bigalloc", Spec: Spec{BlockSize: 1024, Cluster: 4096, Size: 16 * mb, Inodes: 2000, Features: "bigalloc", Journal: "size=1"}},
		{Name: "nojournal", Spec: Spec{BlockSize: 1024, Size: 12 * mb, Inodes: 2000, Features: "^has_journal,large_dir"}},
	}
	var out []*Image
	for _, d := range recipes {
		d.Spec.Name = d.Name
		img := Mke2fs(t, d.Spec)
		m := KernelMount(t, img, "")
		if err := richLoad(m.Dir, nil); err != nil {
			t.Fatalf("%s: %v", d.Name, err)
		}
		if err := m.Unmount(); err != nil {
			t.Fatal(err)
		}
		out = append(out, img)
	}
	// And with journals to replay.
	for _, d := range []Dirty{
		{Name: "dirty", Spec: Spec{BlockSize: 1024, Size: 12 * mb, Inodes: 2000, Journal: "size=1"}, Load: richLoad},
		{Name: "dirty-nocsum", Spec: Spec{BlockSize: 1024, Size: 12 * mb, Inodes: 2000, Journal: "size=1", Features: "^metadata_csum,^64bit"}, Load: richLoad},
		{Name: "dirty-fast", Spec: Spec{Size: 16 * mb, Inodes: 2000, Journal: "size=4", Features: "fast_commit"}, Load: fastCommitLoad},
		{Name: "dirty-orphans", Spec: Spec{Size: 16 * mb, Inodes: 2000, Journal: "size=4", Features: "orphan_file"}, Load: orphanLoad},
	} {
		out = append(out, d.Make(t))
	}
	return out
}

// richLoad makes an index of a folder, a tree of extents or indirect blocks,
// attributes in and out of inodes, and links of both kinds, in some MiB.
func richLoad(dir string, _ func(int)) error {
	w, err := newLoad(dir, 11)
	if err != nil {
		return err
	}
	if err := w.bigDir("big", 500); err != nil {
		return err
	}
	fd, err := unix.Open(filepath.Join(dir, "fragmented"), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// Writes with holes between: an extent each.
	for i := range 400 {
		if _, err := unix.Pwrite(fd, []byte("fragment"), int64(i)*8192); err != nil {
			return err
		}
	}
	if err := unix.Fsync(fd); err != nil {
		return err
	}
	for _, n := range []int{20, 59, 60, 300, 1000} {
		target := string(make([]byte, 0, n))
		for len(target) < n {
			target += "t/"
		}
		if err := unix.Symlink(target[:n], filepath.Join(dir, fmt.Sprintf("link%d", n))); err != nil {
			return err
		}
	}
	for i, n := range []int{10, 60, 300, 700, 3000} {
		p := filepath.Join(dir, fmt.Sprintf("attrs%d", i))
		if err := createAll(dir, "attrs%d", i+1, 30, 100); err != nil {
			return err
		}
		for j := range 4 {
			err := unix.Setxattr(p, fmt.Sprintf("user.name%d", j), make([]byte, n), 0)
			if err != nil && err != unix.ENOSPC {
				return err
			}
		}
		a := newACL(6, 4, 0, 7, []aclEntry{{aclUser, 7, 1000}}, []aclEntry{{aclGroup, 5, 1000}})
		if err := unix.Setxattr(p, aclAccess, []byte(a.encode()), 0); err != nil && err != unix.ENOSPC {
			return err
		}
	}
	if err := unix.Mknod(filepath.Join(dir, "device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		return err
	}
	return fsyncDir(dir)
}
