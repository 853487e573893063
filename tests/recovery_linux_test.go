package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestRecovery has each kind of dirty image recovered by the kernel and by us:
// read-only, with the image untouched, and read-write.
func TestRecovery(t *testing.T) {
	server(t)
	for _, d := range testfs.DirtyImages() {
		t.Run(d.Name, func(t *testing.T) {
			img := d.Make(t)
			want := testfs.Recovered(t, img)
			skip := testfs.Layout
			if strings.HasPrefix(d.Name, "orphan-truncate") || d.FastCommits {
				// The truncation is an operation of the moment, as the names are
				// that the kernel enters from fast commits.
				skip |= testfs.Times
			}
			before := sum(t, img)
			// Orphans need not be cut off where nothing is written.
			ro := snapshot(t, mount(t, img, "ro"))
			testfs.Same(t, "the kernel and our ro mount", want, ro, skip|testfs.Blocks)
			if sum(t, img) != before {
				t.Error("the ro mount changed the image")
			}
			rw := img.Copy(t)
			got := snapshot(t, mount(t, rw, "noatime"))
			testfs.Same(t, "the kernel and our rw mount", want, got, skip|testfs.Atime)
			if d.Spec.Type == "ext2" {
				return // nothing recovers an image without a journal but e2fsck
			}
			rw.ExpectClean()
			if err := rw.Check(t); err != nil {
				t.Errorf("after our recovery: %v", err)
			}
			theirs := snapshot(t, testfs.KernelMount(t, rw, "ro"))
			testfs.Same(t, "the kernel after our recovery", got, theirs, skip)
		})
	}
}

// TestHostileJournal has transactions in the log whose targets no transaction
// can have: the mount is refused, and nothing is written.
func TestHostileJournal(t *testing.T) {
	bin := server(t)
	const bs = 4096
	for _, c := range []struct {
		name   string
		target func(journal uint32, blocks uint32) uint32
	}{
		{"outside", func(_, blocks uint32) uint32 { return blocks + 5 }},
		{"far outside", func(uint32, uint32) uint32 { return 0xfffffff0 }},
		{"the journal itself", func(journal, _ uint32) uint32 { return journal + 3 }},
		{"the superblock, with junk", func(uint32, uint32) uint32 { return 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := testfs.Mke2fs(t, testfs.Spec{Name: "journal", Size: 16 << 20, Features: "^metadata_csum,^64bit"})
			dir := testfs.Scratch(t)
			junk := filepath.Join(dir, "junk")
			if err := os.WriteFile(junk, bytes.Repeat([]byte("junk"), bs/4), 0o600); err != nil {
				t.Fatal(err)
			}
			script := filepath.Join(dir, "script")
			if err := os.WriteFile(script, fmt.Appendf(nil, "jo\njw -b 3000 %s\njc\n", junk), 0o600); err != nil {
				t.Fatal(err)
			}
			testfs.Run(t, "debugfs", "-w", "-f", script, img.Path)
			img.ExpectDirty("its journal is hostile")
			data, err := os.ReadFile(img.Path)
			if err != nil {
				t.Fatal(err)
			}
			// The descriptor block: magic, type 1, and a first tag for block 3000.
			head := []byte{0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 1}
			found := false
			var journal uint32
			for off := 0; off < len(data); off += bs {
				if bytes.HasPrefix(data[off:], []byte{0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4}) {
					journal = uint32(off / bs)
				}
				if tag := data[off+12:]; bytes.HasPrefix(data[off:], head) && binary.BigEndian.Uint32(tag) == 3000 {
					blocks := binary.LittleEndian.Uint32(data[1024+4:])
					binary.BigEndian.PutUint32(tag, c.target(journal, blocks))
					found = true
				}
			}
			if !found {
				t.Fatal("debugfs left no transaction")
			}
			if err := os.WriteFile(img.Path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			before := sum(t, img)
			mnt := filepath.Join(dir, "mnt")
			if err := os.Mkdir(mnt, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, opts := range []string{"rw", "ro"} {
				m, err := testfs.StartFuse(mnt, exec.Command(bin, "-f", "-o", opts, img.Path, mnt))
				if err == nil {
					t.Errorf("-o %s: mounted", opts)
					if err := m.Unmount(); err != nil {
						t.Fatal(err)
					}
				} else if !errors.As(err, new(*exec.ExitError)) {
					t.Errorf("-o %s: %v", opts, err)
				}
			}
			if sum(t, img) != before {
				t.Error("the image changed")
			}
		})
	}
}
