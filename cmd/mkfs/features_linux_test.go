package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// ownersTar makes an archive of files of many users, groups and sizes, some with
// attributes that are too large for an inode or a block.
func ownersTar(t *testing.T, path string, users int) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h tar.Header, data string) {
		h.Size, h.Format = int64(len(data)), tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	put(tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 70000, Gid: 3}, "")
	for i := range users {
		h := tar.Header{Name: fmt.Sprintf("d%d", i%7), Typeflag: tar.TypeDir, Mode: 0o755, Uid: i, Gid: i / 3}
		put(h, "")
		h = tar.Header{Name: fmt.Sprintf("d%d/f%d", i%7, i), Mode: 0o640, Uid: i * 70001, Gid: 100 + i%5}
		switch i % 5 {
		case 1: // the same value for several, which is kept once
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.big": strings.Repeat("v", 20000)}
		case 2:
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.own": strings.Repeat(fmt.Sprint(i), 3000), "SCHILY.xattr.user.small": "x"}
		}
		put(h, strings.Repeat("data", i*i%7000))
		put(tar.Header{Name: fmt.Sprintf("l%d", i), Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("t", i%200+1), Uid: i}, "")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What a mount of ours would not write can be filled when it is new, and quotas
// say what is used: e2fsck counts, and the kernel goes on with them.
func TestFillFeatures(t *testing.T) {
	dir := environment(t)
	src := filepath.Join(dir, "src.tar")
	ownersTar(t, src, 120)
	for _, c := range []string{
		"quota,ea_inode", "quota,project,ea_inode,inline_data", "quota,bigalloc,ea_inode", "quota,^extents,^64bit,ea_inode,^has_journal",
		"casefold,encrypt,verity,stable_inodes,ea_inode", "encrypt,verity,stable_inodes,ea_inode", "mmp,quota,project,casefold,encrypt,verity,orphan_file,stable_inodes,ea_inode",
	} {
		img := filepath.Join(dir, "image")
		os.Remove(img)
		status, out, errs := mke2fs("-q", "-t", "ext4", "-b", "4096", "-O", c, "-d", src, "--size=auto", "--free=4M", img)
		if status != 0 {
			t.Fatalf("%s: status %d\n%s%s", c, status, out, errs)
		}
		if err := testfs.E2fsck(t, img, ""); err != nil {
			t.Errorf("%s: %v", c, err)
			continue
		}
		s := superOf(t, img)
		if s.HasIncompat(ondisk.IncompatMMP) {
			mmp := make([]byte, 1024)
			dev, err := blockdev.Open(img, blockdev.Options{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			_, err = dev.ReadAt(mmp, int64(s.MMPBlock.Get())*4096)
			dev.Close()
			if seq := binary.LittleEndian.Uint32(mmp[4:]); err != nil || seq != ondisk.MMPSeqClean {
				t.Errorf("%s: MMP sequence %#x, %v", c, seq, err)
			}
			continue // mounting it takes the kernel as long as two intervals
		}
		kernelGoesOn(t, img, c)
		if !s.HasROCompat(ondisk.ROCompatQuota) {
			continue
		}
		// That the check above can fail.
		b, err := os.ReadFile(img)
		if err != nil {
			t.Fatal(err)
		}
		entry := append(binary.LittleEndian.AppendUint32(nil, 7*70001), make([]byte, 20)...)
		at := bytes.Index(b, append(entry, 1, 0, 0, 0, 0, 0, 0, 0))
		if at < 0 {
			at = bytes.Index(b, append(entry, 2, 0, 0, 0, 0, 0, 0, 0)) // with a value in an inode
		}
		if at < 0 {
			t.Fatalf("%s: no quota entry of user %d", c, 7*70001)
		}
		b[at+24] += 3
		if err := os.WriteFile(img, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := testfs.E2fsck(t, img, ""); err == nil || !strings.Contains(err.Error(), "QUOTA") {
			t.Errorf("%s: e2fsck does not notice a wrong quota: %v", c, err)
		}
	}
}

// kernelGoesOn changes the image through the kernel, where that can mount it.
func kernelGoesOn(t *testing.T, img, features string) {
	t.Helper()
	m, err := testfs.TryKernelMount(t, testfs.Adopt(t, img), "")
	if err != nil {
		t.Logf("%s: the kernel does not mount it: %v", features, err)
		return
	}
	if err := os.Chown(filepath.Join(m.Dir, "d1", "f1"), 123456, 7); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(m.Dir, "more"), make([]byte, 100<<10), 0o600); err != nil {
		t.Error(err)
	}
	if err := unix.Removexattr(filepath.Join(m.Dir, "d2", "f2"), "user.own"); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(m.Dir, "d3", "f3")); err != nil {
		t.Error(err)
	}
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	if err := testfs.E2fsck(t, img, ""); err != nil {
		t.Errorf("%s: after the kernel has changed it: %v", features, err)
	}
}

// Only what is new is filled with such features: else it is opened read-only.
func TestFillOnlyNew(t *testing.T) {
	dir := environment(t)
	img := filepath.Join(dir, "image")
	if status, _, errs := mke2fs("-q", "-t", "ext4", "-b", "4096", "-O", "quota,casefold", "-d", someFiles(t, dir, 3), img, "16M"); status != 0 {
		t.Fatal(errs)
	}
	dev, err := blockdev.Open(img, blockdev.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	fs, err := ext2fs.Open(dev, ext2fs.Options{Populating: true, NoLoad: true})
	if err != nil {
		t.Fatal(err)
	}
	if ro, why := fs.ReadOnly(); !ro || !strings.Contains(why, "quota") || !strings.Contains(why, "casefold") {
		t.Errorf("what has files can be filled: %v, %q", ro, why)
	}
	if err := fs.Close(); err != nil {
		t.Error(err)
	}
}
