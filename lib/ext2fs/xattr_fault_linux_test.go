package ext2fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// xattrWork does something of everything with attributes and inline data.
func xattrWork(dev blockdev.Device) (err error) {
	fs, err := Open(dev, Options{CommitInterval: -1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fs.Close()) }()
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		return err
	}
	defer root.Put()
	for i := range 6 {
		ip, err := fs.Create(root, fmt.Sprint("f", i), 0o644, 0, Cred{})
		if err != nil {
			return err
		}
		err = func() error {
			for j, n := range []int{20, 200, 3000, 700} {
				if err := ip.Setxattr(fmt.Sprint("user.", j), bytes.Repeat([]byte("v"), n), 0, false); err != nil {
					return err
				}
			}
			if i%2 == 0 {
				if _, err := ip.WriteAt(bytes.Repeat([]byte("d"), 40), 0); err != nil {
					return err
				}
				if _, err := ip.WriteAt(bytes.Repeat([]byte("e"), 300), 10); err != nil {
					return err
				}
			}
			if err := ip.Setxattr("user.1", bytes.Repeat([]byte{byte(i)}, 300), 0, false); err != nil {
				return err
			}
			if err := ip.Setattr(&SetAttr{Valid: SetMode | SetUID, Mode: 0o4755, UID: 7}); err != nil {
				return err
			}
			return ip.Removexattr("user.2")
		}()
		ip.Put()
		if err == nil && i%3 == 0 {
			err = fs.Unlink(root, fmt.Sprint("f", i))
		}
		if err == nil && i%2 == 1 {
			err = fs.Sync()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TestXattrFaults fails each read, write and sync in turn: what is left on the
// device is clean once it has been recovered.
func TestXattrFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	img := testfs.Mke2fs(t, testfs.Spec{BlockSize: 1024, Size: 8 << 20, Features: "ea_inode,inline_data", Journal: "size=1"})
	f, err := blockdev.Open(img.Path, blockdev.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	base, err := blockdev.MemOf(f)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(testfs.Scratch(t), "left")
	for _, plan := range []blockdev.Failure{{Ops: blockdev.OpRead}, {Ops: blockdev.OpWrite}, {Ops: blockdev.OpSync}} {
		fired := testfs.FaultSweep{
			Plan: plan,
			Run:  func(dev *blockdev.Fault) error { return xattrWork(dev) },
			Check: func(n int64, dev blockdev.Device, _ error) error {
				fs, err := Open(dev, Options{})
				if err != nil {
					return err
				}
				if err := fs.Close(); err != nil {
					return err
				}
				b := make([]byte, dev.Size())
				if _, err := dev.ReadAt(b, 0); err != nil {
					return err
				}
				if err := os.WriteFile(path, b, 0o600); err != nil {
					return err
				}
				return testfs.E2fsck(t, path, "")
			},
		}.Sweep(t, base)
		t.Logf("%v: %d faults", plan.Ops, fired)
	}
}
