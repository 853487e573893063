//go:build linux

package testfs

import (
	"errors"
	"os"
	"testing"
)

// TestWorkload runs the load on the kernel's ext4 over the matrix: the model is
// right if the kernel agrees with it, before and after a remount.
func TestWorkload(t *testing.T) {
	NeedRoot(t)
	specs := Matrix()
	if testing.Short() {
		specs = specs[:4]
	}
	for i, s := range specs {
		t.Run(s.Name, func(t *testing.T) {
			if err := Supported(t, s); err != nil {
				t.Skip(err)
			}
			img := Mke2fs(t, s)
			img.ExpectDirty(s.KernelBug)
			skip := Content &^ Mtime
			if s.KernelLoses != "" {
				skip |= Sums
			}
			m := KernelMount(t, img, "")
			want, err := Workload(m.Dir, uint64(i), 1)
			if s.KernelLoses != "" && errors.Is(err, ErrContents) {
				t.Skip(s.KernelLoses)
			}
			if err != nil {
				t.Fatal(err)
			}
			Same(t, "before the remount", want, MustSnapshot(t, m.Dir), skip)
			if err := m.Unmount(); err != nil {
				t.Fatal(err)
			}
			m = KernelMount(t, img, "ro")
			Same(t, "after the remount", want, MustSnapshot(t, m.Dir), skip)
		})
	}
}

// TestBigDir has the kernel make and Snapshot read 100,000 names.
func TestBigDir(t *testing.T) {
	NeedRoot(t)
	img := Mke2fs(t, Spec{Name: "big", Inodes: 120000, Size: 256 << 20})
	m := KernelMount(t, img, "")
	want, err := BigDir(m.Dir, 100000)
	if err != nil {
		t.Fatal(err)
	}
	Same(t, "big folder", want, MustSnapshot(t, m.Dir), Content)
}

// TestWorkloadOnTmpfs runs on the system's own file system too, if that is
// one that has all the calls: the model knows POSIX and not ext4.
func TestWorkloadOnTmpfs(t *testing.T) {
	NeedRoot(t)
	dir := Scratch(t) + "/w"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want, err := Workload(dir, 7, 1)
	if err != nil {
		t.Fatal(err)
	}
	Same(t, "tmpfs", want, MustSnapshot(t, dir), Content&^Mtime)
}
