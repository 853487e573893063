package ext2fs

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// superOf reads the superblock of an image.
func superOf(t *testing.T, path string) *ondisk.Super {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return endian.View[ondisk.Super](b[ondisk.SuperOffset:])
}

// TestSuperKept mounts and unmounts, and wants nothing of the superblock
// changed but what a mount changes.
func TestSuperKept(t *testing.T) {
	when := time.Unix(5<<30, 0) // needs the high bytes of times
	for _, spec := range []testfs.Spec{{Name: "ext4"}, {Name: "ext2", Type: "ext2"}, {Name: "orphan", Features: "orphan_file"}} {
		t.Run(spec.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, spec)
			was := superOf(t, img.Path)
			was.KbytesWritten.Set(1000)
			sealSuper(was)
			writeAt(t, img.Path, endian.Bytes(was), ondisk.SuperOffset)
			fs := openImage(t, img, Options{MountPoint: "/some/where", Now: func() time.Time { return when }})
			now := superOf(t, img.Path)
			if fs.hasLog != now.HasIncompat(ondisk.IncompatRecover) || fs.hasLog != (now.State.Get() == ondisk.StateValid) {
				t.Errorf("in use: state %#x, incompat %#x", now.State.Get(), now.FeatureIncompat.Get())
			}
			if fs.hasOrphanFile != now.HasROCompat(ondisk.ROCompatOrphanPresent) {
				t.Errorf("in use: ro_compat %#x", now.FeatureROCompat.Get())
			}
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			now = superOf(t, img.Path)
			if n := now.MntCount.Get(); n != was.MntCount.Get()+1 {
				t.Errorf("%d mounts", n)
			}
			if m := int64(now.Mtime.Get()) | int64(now.MtimeHi[0])<<32; m != when.Unix() {
				t.Errorf("mount time %d, not %d", m, when.Unix())
			}
			if p, _, _ := strings.Cut(string(now.LastMounted[:]), "\x00"); p != "/some/where" {
				t.Errorf("last mounted on %q", p)
			}
			if n := now.KbytesWritten.Get(); n < 1000 || n > 2000 {
				t.Errorf("%d KiB written", n)
			}
			was.MntCount, was.Mtime, was.MtimeHi, was.LastMounted = now.MntCount, now.Mtime, now.MtimeHi, now.LastMounted
			was.Wtime, was.WtimeHi, was.KbytesWritten, was.Checksum = now.Wtime, now.WtimeHi, now.KbytesWritten, now.Checksum
			if *was != *now {
				a, b := endian.Bytes(was), endian.Bytes(now)
				for i := range a {
					if a[i] != b[i] {
						t.Errorf("byte %#x was %#x, is %#x", i, a[i], b[i])
					}
				}
			}
		})
	}
}

func writeAt(t *testing.T, path string, p []byte, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

// TestFeatures sets feature bits that are not known, or not kept up to date.
func TestFeatures(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "features"})
	f, err := blockdev.Open(img.Path, blockdev.Options{ReadOnly: true, Direct: blockdev.DirectOff})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct {
		name    string
		set     func(s *ondisk.Super)
		why     string // it is read-only
		err     error  // or refused
		message string
	}{
		{"unknown incompat", func(s *ondisk.Super) { s.FeatureIncompat.Set(s.FeatureIncompat.Get() | 1<<27) }, "", syscall.EOPNOTSUPP, "0x8000000"},
		{"compression", func(s *ondisk.Super) { s.FeatureIncompat.Set(s.FeatureIncompat.Get() | 1) }, "", syscall.EOPNOTSUPP, "compression"},
		{"journal device", func(s *ondisk.Super) { s.FeatureIncompat.Set(ondisk.IncompatJournalDev) }, "", syscall.EOPNOTSUPP, "external journal"},
		{"revision 7", func(s *ondisk.Super) { s.RevLevel.Set(7) }, "", syscall.EOPNOTSUPP, "revision 7"},
		{"unknown ro_compat", func(s *ondisk.Super) { s.FeatureROCompat.Set(s.FeatureROCompat.Get() | 1<<28) }, "ro_compat bit 0x10000000", nil, ""},
		{"quota", func(s *ondisk.Super) { s.FeatureROCompat.Set(s.FeatureROCompat.Get() | ondisk.ROCompatQuota) }, "quota", nil, ""},
		{"verity and casefold", func(s *ondisk.Super) {
			s.FeatureROCompat.Set(s.FeatureROCompat.Get() | ondisk.ROCompatVerity)
			s.FeatureIncompat.Set(s.FeatureIncompat.Get() | ondisk.IncompatCasefold)
		}, "casefold, verity", nil, ""},
		{"unknown compat", func(s *ondisk.Super) { s.FeatureCompat.Set(s.FeatureCompat.Get() | 1<<30) }, "", nil, ""},
		{"magic", func(s *ondisk.Super) { s.Magic.Set(0) }, "", syscall.EINVAL, "no ext2"},
		{"checksum", func(s *ondisk.Super) { s.Checksum.Set(s.Checksum.Get() + 1) }, "", ondisk.EBADMSG, "checksum"},
		{"blocks", func(s *ondisk.Super) { s.SetBlocksCount(1 << 40) }, "", ondisk.EUCLEAN, "beyond a device of"},
		{"inodes", func(s *ondisk.Super) { s.InodesCount.Set(77) }, "", ondisk.EUCLEAN, "77 inodes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := blockdev.NewOverlay(f, 1<<24)
			b := make([]byte, ondisk.SuperSize)
			if _, err := dev.ReadAt(b, ondisk.SuperOffset); err != nil {
				t.Fatal(err)
			}
			s := endian.View[ondisk.Super](b)
			c.set(s)
			if c.name != "checksum" {
				s.Checksum.Set(ondisk.SuperCsum(s))
			}
			if _, err := dev.WriteAt(b, ondisk.SuperOffset); err != nil {
				t.Fatal(err)
			}
			fs, err := Open(dev, Options{})
			if c.err != nil {
				if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.message) {
					t.Fatalf("%v, not %q", err, c.message)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer fs.Close()
			ro, why := fs.ReadOnly()
			if ro != (c.why != "") || why != c.why {
				t.Fatalf("read-only is %v, because of %q, not %q", ro, why, c.why)
			}
		})
	}
}

// TestExternalJournal wants the right device, and no other.
func TestExternalJournal(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "external", External: true})
	other := testfs.Mke2fs(t, testfs.Spec{Name: "other"})
	open := func(path string) blockdev.Device {
		d, err := blockdev.Open(path, blockdev.Options{Direct: blockdev.DirectOff})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	if _, err := Open(open(img.Path), Options{}); !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "another device") {
		t.Fatalf("without its journal: %v", err)
	}
	if _, err := Open(open(img.Path), Options{Journal: open(other.Path)}); err == nil {
		t.Fatal("with a file system for a journal")
	} else {
		t.Log(err)
	}
	// Clean, it can be read without.
	fs, err := Open(open(img.Path), Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	fs.Close()
}

// TestNoLoad changes a clean file system without its journal.
func TestNoLoad(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "noload"})
	fs := openImage(t, img, Options{NoLoad: true})
	if s := superOf(t, img.Path); s.State.Get()&ondisk.StateValid != 0 {
		t.Error("marked clean while in use without a journal")
	}
	if err := load(fs, 3, 300, true); err != nil {
		t.Fatal(err)
	}
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}
