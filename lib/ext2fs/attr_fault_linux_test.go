package ext2fs

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// attrsOf tells of what a Setattr changes, in one line.
func attrsOf(ip *Inode) string {
	var a Attr
	ip.Attr(&a)
	_, err := ip.Getxattr("security.capability")
	return fmt.Sprintf("size %d mode %o uid %d mtime %d capability %v", a.Size, a.Mode, a.UID, a.Mtime.Sec, err == nil)
}

// TestSetattrFaults fails each write and sync of a Setattr of size, mode, owner
// and times at once: afterwards all of them are old, or all are new.
func TestSetattrFaults(t *testing.T) {
	set := SetAttr{Valid: SetSize | SetMode | SetUID | SetMtime, Mode: 0o640, UID: 7, Mtime: ondisk.Time{Sec: 1111}}
	capability := append([]byte{1, 0, 0, 2}, make([]byte, 16)...) // vfs_cap_data, revision 2
	for _, c := range []struct {
		name     string
		spec     testfs.Spec
		mode     DataMode
		old, now int64
	}{
		{"shrink", testfs.Spec{}, 0, 300000, 1234},
		{"shrink, journaled data", testfs.Spec{}, DataJournal, 300000, 1234},
		{"empty, in many transactions", testfs.Spec{Type: "ext3", BlockSize: 1024}, 0, 6 << 20, 0},
		{"grow", testfs.Spec{}, 0, 5000, 1 << 30},
		{"shrink inline", testfs.Spec{InodeSize: 512, Features: "inline_data"}, 0, 100, 10},
		{"out of the inode", testfs.Spec{InodeSize: 512, Features: "inline_data"}, 0, 100, 100000},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.spec.Size, c.spec.Inodes = 16<<20, 256
			img := testfs.Mke2fs(t, c.spec)
			f, err := blockdev.Open(img.Path, blockdev.Options{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			base, err := blockdev.MemOf(f)
			if err != nil {
				t.Fatal(err)
			}
			// Each handle is a commit of its own, so that two would show.
			opts := Options{Sync: true, CommitInterval: -1, DataMode: c.mode}
			with := func(dev blockdev.Device, f func(fs *FS, root *Inode) error) (err error) {
				fs, err := Open(dev, opts)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, fs.Close()) }()
				root, err := fs.Iget(ondisk.RootIno)
				if err != nil {
					return err
				}
				defer root.Put()
				return f(fs, root)
			}
			var old, now string
			err = with(base, func(fs *FS, root *Inode) error {
				ip, err := fs.Create(root, "file", ondisk.ModeReg|0o4755, 0, Cred{})
				if err != nil {
					return err
				}
				defer ip.Put()
				_, err = ip.WriteAt(bytes.Repeat([]byte("data"), int(c.old/4)), 0)
				err = errors.Join(err, ip.Setxattr("security.capability", capability, 0, true))
				old = attrsOf(ip)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			set := set
			set.Size = c.now
			run := func(dev blockdev.Device) error {
				return with(dev, func(fs *FS, root *Inode) error {
					ip, err := fs.Lookup(root, "file")
					if err != nil {
						return err
					}
					defer ip.Put()
					return ip.Setattr(&set)
				})
			}
			look := func(dev blockdev.Device) (s string) {
				err := with(dev, func(fs *FS, root *Inode) error {
					ip, err := fs.Lookup(root, "file")
					if err != nil {
						return err
					}
					defer ip.Put()
					s = attrsOf(ip)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				return s
			}
			done := base.Clone()
			if err := run(done); err != nil {
				t.Fatal(err)
			}
			now = look(done)
			if want := fmt.Sprintf("size %d mode 100640 uid 7 mtime 1111 capability false", c.now); now != want {
				t.Fatalf("%s, want %s", now, want)
			}
			seen := map[string]int{}
			for _, ops := range []blockdev.Ops{blockdev.OpWrite, blockdev.OpSync} {
				testfs.FaultSweep{
					Plan: blockdev.Failure{Ops: ops, Sticky: true},
					Run:  func(dev *blockdev.Fault) error { return run(dev) },
					Check: func(n int64, dev blockdev.Device, err error) error {
						if err == nil {
							return errors.New("not reported")
						}
						s := look(dev)
						seen[s]++
						if s != old && s != now {
							return fmt.Errorf("half done: %s", s)
						}
						return nil
					},
				}.Sweep(t, base)
			}
			if seen[old] == 0 || seen[now] == 0 {
				t.Errorf("the faults came before or after it only: %v", seen)
			}
		})
	}
}
