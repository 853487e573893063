package e2p

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestDumpe2fs sets every bit there is and compares with what dumpe2fs prints.
func TestDumpe2fs(t *testing.T) {
	for _, tool := range []string{"mke2fs", "dumpe2fs"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	img := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(img, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext2", "-F", img).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	s := endian.View[ondisk.Super](b[1024:])
	s.ChecksumType[0] = 1 // what dumpe2fs wants to see with
	s.DescSize.Set(64)    // metadata_csum and 64bit
	all := Features{^uint32(0), ^uint32(0), ^uint32(0)}
	for _, c := range []struct {
		f     Features
		mount uint32
	}{{all, ^uint32(0)}, {FeaturesOf(s), 0}, {FeaturesOf(s), ondisk.DefmJmodeOrdered | ondisk.DefmACL}} {
		s.FeatureCompat.Set(c.f[Compat])
		s.FeatureIncompat.Set(c.f[Incompat])
		s.FeatureROCompat.Set(c.f[ROCompat])
		s.DefaultMountOpts.Set(c.mount)
		if err := os.WriteFile(img, b, 0o600); err != nil {
			t.Fatal(err)
		}
		out, _ := exec.Command("dumpe2fs", "-f", "-h", img).Output() // fails to read the journal
		for _, line := range strings.Split(string(out), "\n") {
			k, v, _ := strings.Cut(line, ":")
			v = strings.TrimSpace(v)
			switch {
			case k == "Filesystem features" && v != FeatureNames(c.f):
				t.Errorf("features %q\nwant %q", FeatureNames(c.f), v)
			case k == "Default mount options" && v != MountOptionNames(c.mount):
				t.Errorf("options %q\nwant %q", MountOptionNames(c.mount), v)
			}
		}
		if !strings.Contains(string(out), "Default mount options:") {
			t.Errorf("dumpe2fs says\n%s", out)
		}
		var g Features
		if err := EditFeatures(FeatureNames(c.f), &g, nil, nil); err != nil || g != c.f {
			t.Errorf("features %x, want %x: %v", g, c.f, err)
		}
	}
}

func TestEditFeatures(t *testing.T) {
	f := Features{ondisk.CompatDirIndex, ondisk.IncompatFiletype, 0}
	if err := EditFeatures("EXTENTS,^dir_index, -filetype feature_r30", &f, nil, nil); err != nil ||
		f != (Features{0, ondisk.IncompatExtents, 1 << 30}) {
		t.Errorf("%x, %v", f, err)
	}
	if err := EditFeatures("none,64bit", &f, nil, nil); err != nil || f != (Features{0, ondisk.Incompat64Bit, 0}) {
		t.Errorf("%x, %v", f, err)
	}
	for _, bad := range []string{"nonsense", "^", "FEATURE_C32", "mmp"} {
		if err := EditFeatures(bad, &f, &Features{}, nil); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if FeatureNames(Features{}) != "(none)" || MountOptionNames(0) != "(none)" {
		t.Error("none")
	}
}

func TestFlags(t *testing.T) {
	if s := FlagLetters(ondisk.FlagExtents); s != "--------------e-------" {
		t.Error(s)
	}
	s := FlagLetters(^uint32(0))
	if s != "suSDiadAcEjItTeCxFNPVm" {
		t.Error(s)
	}
	f, err := ParseFlagLetters(s)
	if err != nil || FlagLetters(f) != s {
		t.Errorf("%x, %v", f, err)
	}
	if _, err := ParseFlagLetters("eZ"); err == nil {
		t.Error("Z is accepted")
	}
	if s := FlagNames(ondisk.FlagImmutable | ondisk.FlagExtents); s != "Immutable, Extents" {
		t.Error(s)
	}
}

func TestMountOptions(t *testing.T) {
	for _, m := range mntopts {
		if v, mask, err := ParseMountOption(m.name); err != nil || v != m.bits || mask != m.mask {
			t.Errorf("%s: %x %x %v", m.name, v, mask, err)
		}
	}
	if v, _, err := ParseMountOption("mntopt_13"); err != nil || v != 1<<13 {
		t.Errorf("%x, %v", v, err)
	}
	if _, _, err := ParseMountOption("x"); err == nil {
		t.Error("x is accepted")
	}
}
