package mkfsconf

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

const sample = `# comment
; another
[options]
	proceed_delay = 5

[defaults]
	base_features = sparse_super,filetype
	blocksize = 4096
	blocksize = 1024
	"a tag" = "with \"quotes\"\t and # no comment"
[fs_types]
	ext4 = {
		features = extents
		inner = {
			deep = yes
		}
	}
	small =
	{
		blocksize = 2048
		features = ^dir_index
	}
[defaults]
	inode_ratio = 8192
`

func TestParse(t *testing.T) {
	c, err := Parse(sample)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		want string
		path []string
	}{
		{"5", []string{"options", "proceed_delay"}},
		{"4096", []string{"defaults", "blocksize"}},
		{"8192", []string{"defaults", "inode_ratio"}},
		{"with \"quotes\"\t and # no comment", []string{"defaults", "a tag"}},
		{"yes", []string{"fs_types", "ext4", "inner", "deep"}},
		{"2048", []string{"fs_types", "small", "blocksize"}},
	} {
		if v, ok := c.Get(x.path...); v != x.want || !ok {
			t.Errorf("%q: %q, %v", x.path, v, ok)
		}
	}
	if v, ok := c.Get("fs_types", "ext4"); ok {
		t.Errorf("a section has the value %q", v)
	}
	ty, warn, err := c.Types("ext4", "small,odd", "default", false, false)
	if err != nil || len(warn) != 1 {
		t.Fatal(warn, err)
	}
	if n := ty.Int("blocksize", 1); n != 2048 {
		t.Errorf("block size %d", n)
	}
	if f := ty.Each("features"); len(f) != 2 || f[0] != "extents" || f[1] != "^dir_index" {
		t.Errorf("features %q", f)
	}
	if ty.Bool("nothing", true) != true || ty.Float("reserved_ratio", 5) != 5 {
		t.Error("defaults are lost")
	}
	if _, _, err := c.Types("ext9", "", "default", false, false); err == nil {
		t.Error("a file system type that is not configured is taken")
	}
	if _, warn, err := c.Types("ext9", "", "default", false, true); err != nil || len(warn) != 1 {
		t.Errorf("with force, a type that is not configured: %q, %v", warn, err)
	}
	if _, _, err := c.Types("ext3", "", "default", false, false); err == nil {
		t.Error("ext3 is not defined and no error")
	}
}

func TestParseErrors(t *testing.T) {
	for _, x := range []struct {
		text string
		line int
	}{
		{"a = b\n", 1},
		{"[a\n", 1},
		{"[a] b\n", 1},
		{"[a]\nb\n", 2},
		{"[a]\nb = \"c\n", 2},
		{"[a]\n}\n", 2},
		{"[a]\nb = {\nc = d\n", 4},
		{"[a]\nb =\nc = d\n", 3},
		{"[a]\nb = {\n[c]\n", 3},
		{"[a]\nb c = d\n", 2},
	} {
		_, err := Parse(x.text)
		var s *SyntaxError
		if !errors.As(err, &s) || s.Line != x.line {
			t.Errorf("%q: %v", x.text, err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("MKE2FS_CONFIG", filepath.Join(dir, "none"))
	c, err := Load()
	if err != nil || !c.HasSection("fs_types", "ext4") {
		t.Errorf("without a file: %v", err)
	}
	for name, text := range map[string]string{"b.conf": "[defaults]\nx = 2\ny = 3\n", "a.conf": "[defaults]\nx = 1\n", "c": "?"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("MKE2FS_CONFIG", dir)
	c, err = Load()
	if err != nil {
		t.Fatal(err)
	}
	x, _ := c.Get("defaults", "x")
	if y, _ := c.Get("defaults", "y"); x != "1" || y != "3" {
		t.Errorf("x %q, y %q", x, y)
	}
}

func TestSizeType(t *testing.T) {
	for size, want := range map[uint64]string{
		3<<20 - 1: "floppy", 3 << 20: "small", 512<<20 - 1: "small", 512 << 20: "default",
		4<<40 - 1: "default", 4 << 40: "big", 16<<40 - 1: "big", 16 << 40: "huge",
	} {
		if got := SizeType(size); got != want {
			t.Errorf("%d bytes are %s, not %s", size, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Add(builtin)
	f.Add("[a]*\nb* = {\n}*\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text)
		if err != nil {
			var s *SyntaxError
			if !errors.As(err, &s) || s.Line < 1 {
				t.Fatalf("error %v", err)
			}
			return
		}
		ty, _, err := c.Types("ext2", "small,big", "default", true, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"features", "blocksize"} {
			ty.Get(n)
			ty.Int(n, 0)
			ty.Bool(n, false)
			ty.Float(n, 0)
			ty.Each(n)
		}
	})
}
