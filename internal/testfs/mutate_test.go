//go:build linux

package testfs

import (
	"bytes"
	"slices"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// TestSeal seals each structure of good images as it stands, and wants the same
// bytes: a checksum set wrongly would keep mutations from the parsers.
func TestSeal(t *testing.T) {
	NeedRoot(t)
	all := map[string]bool{}
	for _, img := range MutationBases(t) {
		m, err := NewMutator(img.Path)
		if err != nil {
			t.Fatal(err)
		}
		bad := map[string]int{}
		for _, s := range m.structs {
			dev := blockdev.NewOverlay(m.base, 0)
			b := make([]byte, s.n)
			if _, err := dev.ReadAt(b, s.off); err != nil {
				t.Fatal(err)
			}
			was := bytes.Clone(b)
			if s.seal != nil {
				s.seal(b, dev)
			}
			if s.kind == "fast commit" {
				changed := bytes.Clone(was)
				changed[6] ^= 1 // the features in the head
				sealed := bytes.Clone(changed)
				if s.seal(sealed, dev); bytes.Equal(changed, sealed) {
					t.Error("no checksum of a fast commit was set")
				}
			}
			if !bytes.Equal(b, was) || dev.Bytes() != 0 && !same(t, dev, m.base) {
				bad[s.kind]++
			}
		}
		for kind, n := range bad {
			t.Errorf("%s: %d of %d checksums of kind %q", img.Spec.Name, n, len(m.byKind[kind]), kind)
		}
		for _, k := range m.Kinds() {
			all[k] = true
		}
		t.Logf("%s: %d structures of %d kinds", img.Spec.Name, len(m.structs), len(m.kinds))
	}
	for _, k := range []string{
		"superblock", "descriptor", "block bitmap", "inode bitmap", "folder inode", "file inode", "link inode",
		"inode xattrs", "xattr block", "folder block", "index root", "index folder block", "extent leaf",
		"extent index", "indirect block 1", "indirect block 2", "journal superblock", "journal block", "orphan file", "link block", "fast commit",
	} {
		if !all[k] {
			t.Errorf("no image has a structure of kind %q", k)
		}
	}
}

func same(t *testing.T, a, b blockdev.Device) bool {
	t.Helper()
	read := func(d blockdev.Device) []byte {
		p := make([]byte, d.Size())
		if _, err := d.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		return p
	}
	return bytes.Equal(read(a), read(b))
}

// TestMutate wants the same image from the same seed, and another from others.
func TestMutate(t *testing.T) {
	img := Mke2fs(t, Spec{Size: 8 << 20})
	m, err := NewMutator(img.Path)
	if err != nil {
		t.Fatal(err)
	}
	var what []string
	for seed := range uint64(300) {
		a, s := m.Mutate(seed)
		b, s2 := m.Mutate(seed)
		if s != s2 || seed%50 == 0 && !same(t, a, b) {
			t.Errorf("seed %d is not one image: %s, %s", seed, s, s2)
		}
		what = append(what, s)
	}
	slices.Sort(what)
	if len(slices.Compact(what)) != 300 {
		t.Error("seeds repeat each other")
	}
}
