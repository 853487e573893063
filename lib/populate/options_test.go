package populate

import (
	"archive/tar"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// tarOf makes an archive of headers; data is their size in bytes.
func tarOf(t testing.TB, list ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := range list {
		h := &list[i]
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg || h.Typeflag == 0 {
			if _, err := w.Write(make([]byte, h.Size)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func loadTar(t testing.TB, b []byte, o Options) *Tree {
	t.Helper()
	tree, err := Load(t.Context(), TarReader(bytes.NewReader(b)), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func TestExclude(t *testing.T) {
	for _, tt := range []struct {
		pattern, path string
		dir, want     bool
	}{
		{"*.o", "a/b/c.o", false, true},
		{"*.o", "a/b/c.c", false, false},
		{"/a/*", "a/b", false, true},
		{"/a/*", "b/a/c", false, false},
		{"a/**/z", "a/z", false, true},
		{"a/**/z", "a/b/c/z", false, true},
		{"a/**/z", "a/b/c/y", false, false},
		{"**/z", "z", false, true},
		{"./.git", ".git", true, true},
		{".git/", ".git", false, false},
		{".git/", "x/.git", true, true},
		{"[ab]", "b", false, true},
	} {
		x, err := compileExcludes([]string{tt.pattern})
		if err != nil {
			t.Fatal(err)
		}
		if got := x.match(tt.path, tt.dir); got != tt.want {
			t.Errorf("%q matches %q: %v", tt.pattern, tt.path, got)
		}
	}
	if _, err := compileExcludes([]string{"a["}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a bad pattern: %v", err)
	}
	tree := loadTar(t, tarOf(t, tar.Header{Name: "keep/x"}, tar.Header{Name: "drop/deep/y"}, tar.Header{Name: "keep/z.o"}),
		Options{Exclude: []string{"drop", "*.o"}})
	if got := strings.Join(listing2(tree), " "); got != "keep keep/x" || tree.Entries() != 2 {
		t.Errorf("left are %s, %d", got, tree.Entries())
	}
}

func listing2(t *Tree) (out []string) {
	_ = t.walk(func(p trail, _ nodeID, _ *node, _ bool) error {
		if len(p) > 0 {
			out = append(out, p.String())
		}
		return nil
	})
	return out
}

// idAt returns what is at a path, 0 for nothing.
func idAt(t testing.TB, tree *Tree, path string) nodeID {
	t.Helper()
	id, err := tree.find(path)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// nodeAt returns what is at a path.
func nodeAt(t testing.TB, tree *Tree, path string) node {
	t.Helper()
	id, n, err := tree.findNode(path)
	if id == 0 || err != nil {
		t.Fatalf("%s is not there: %v", path, err)
	}
	return n
}

func attrsAt(t testing.TB, tree *Tree, path string) []xattr {
	t.Helper()
	n := nodeAt(t, tree, path)
	list, err := tree.attrsOf(&n)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestOwners(t *testing.T) {
	b := tarOf(t, tar.Header{Name: "a", Uid: 1000, Gid: 1001}, tar.Header{Name: "b", Uid: 0, Gid: 0},
		tar.Header{Name: "c", PAXRecords: map[string]string{
			"SCHILY.acl.access":                "user::rwx,user:1005:r-x,group::r-x,mask::r-x,other::---",
			"SCHILY.xattr.security.capability": "\x00\x00\x00\x03" + strings.Repeat("\x00", 16) + "\xe8\x03\x00\x00",
		}})
	tree := loadTar(t, b, Options{MapUID: []IDMap{{0, 100000, 1000}, {1000, 5, 10}}, MapGID: []IDMap{{0, 200000, 65536}}})
	for _, w := range []struct {
		name     string
		uid, gid uint32
	}{{"a", 5, 201001}, {"b", 100000, 200000}} {
		if n := nodeAt(t, tree, w.name); n.uid != w.uid || n.gid != w.gid {
			t.Errorf("%s is of %d:%d, not %d:%d", w.name, n.uid, n.gid, w.uid, w.gid)
		}
	}
	for _, x := range attrsAt(t, tree, "c") {
		switch x.name {
		case xattrAccess:
			if acl, err := ondisk.ParseXattrACL([]byte(x.value)); err != nil || acl[1].ID != 10 {
				t.Errorf("the ACL is %v, %v", acl, err)
			}
		case xattrCaps:
			if x.value[20] != 5 {
				t.Errorf("the root of the capabilities: %q", x.value)
			}
		}
	}
	if _, err := Load(t.Context(), TarReader(bytes.NewReader(b)), Options{MapUID: []IDMap{{0, 1, 1}}}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("an owner that no map has: %v", err)
	}
	tree = loadTar(t, b, Options{Owner: &Owner{7, 8}})
	if n := nodeAt(t, tree, "a"); n.uid != 7 || n.gid != 8 {
		t.Errorf("--owner gave %d:%d", n.uid, n.gid)
	}
	for _, s := range []string{"", "1", "1:", "x:1", "1:-1", "1:4294967296"} {
		if _, err := ParseOwner(s); err == nil {
			t.Errorf("owner %q was taken", s)
		}
	}
	for _, s := range []string{"", "1:2", "1:2:0", "4294967295:0:2", "1:2:3:4"} {
		if _, err := ParseIDMap(s); err == nil {
			t.Errorf("map %q was taken", s)
		}
	}
}

func TestDeviceTable(t *testing.T) {
	list, err := ParseDeviceTable(strings.NewReader(`
# name type mode uid gid major minor start inc count
/dev            d 755 0 0 - - - - -
/dev/console    c 622 0 5 5 1
/dev/tty        c 666 0 0 4 0 0 1 4	# numbered
/dev/md         b 640 0 6 9 0 2 3 2
/run/pipe       p 600 1 2
/bin/ping       f 4755 0 0 - - - - -
|xattr cap_net_raw+ep
/none           F 644 0 0
/srv            r -1 33 34
`))
	if err != nil {
		t.Fatal(err)
	}
	tree := loadTar(t, tarOf(t, tar.Header{Name: "bin/ping", Mode: 0o755}, tar.Header{Name: "srv/www/index", Mode: 0o640}),
		Options{Devices: list, Owner: &Owner{9, 9}})
	for path, want := range map[string]string{
		"dev": "40755 0:0 0", "dev/console": "20622 0:5 501", "dev/tty3": "20666 0:0 403",
		"dev/md2": "60640 0:6 900", "dev/md3": "60640 0:6 903", "run/pipe": "10600 1:2 0", "bin/ping": "104755 0:0 0",
		"srv/www/index": "100640 33:34 0", "bin": "40755 9:9 0",
	} {
		n := nodeAt(t, tree, path)
		if got := fmt.Sprintf("%o %d:%d %x", n.mode, n.uid, n.gid, n.rdev); got != want {
			t.Errorf("%s is %s, not %s", path, got, want)
		}
	}
	if idAt(t, tree, "dev/tty4") != 0 || idAt(t, tree, "dev/tty") != 0 {
		t.Error("there are more ttys than asked for")
	}
	if a := attrsAt(t, tree, "bin/ping"); len(a) == 0 || hex.EncodeToString([]byte(a[0].value)) != "0100000200200000000000000000000000000000" {
		t.Errorf("capabilities %+v", a)
	}
	for _, s := range []string{"x", "/a z 1 1 1", "/a c 8 1 1", "/a c 644 x 1", "|xattr cap_x+p", "/a c 644 0 0 5000 0", "/a c 644 0 0 1 1 1 1 99999999"} {
		if _, err := ParseDeviceTable(strings.NewReader(s)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: %v", s, err)
		}
	}
	gone, err := ParseDeviceTable(strings.NewReader("/none f 644 0 0"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(t.Context(), TarReader(bytes.NewReader(tarOf(t, tar.Header{Name: "a"}))), Options{Devices: gone}); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestFileContexts(t *testing.T) {
	c, err := ParseFileContexts(strings.NewReader(`
# comment
/.*                 system_u:object_r:default_t:s0
/etc(/.*)?          system_u:object_r:etc_t:s0
/etc/shadow.*  --   system_u:object_r:shadow_t:s0
/etc/passwd    --   system_u:object_r:passwd_t:s0
/etc/p.*            system_u:object_r:later_t:s0
/usr/lib(64)?/.*\.so(\.[^/]*)* -- system_u:object_r:lib_t:s0
/dev           -d   system_u:object_r:device_t:s0
/dev/null      -c   system_u:object_r:null_device_t:s0
/proc          -d   <<none>>
/a|/b               system_u:object_r:alt_t:s0
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		mode uint16
		want string
	}{
		{"/x", ondisk.ModeReg, "default_t"},
		{"/etc", ondisk.ModeDir, "etc_t"},
		{"/etc/shadow-", ondisk.ModeReg, "shadow_t"},
		{"/etc/shadow-", ondisk.ModeDir, "etc_t"},
		{"/etc/passwd", ondisk.ModeReg, "passwd_t"}, // without special characters it comes first
		{"/etc/passwd", ondisk.ModeDir, "later_t"},
		{"/usr/lib64/a/b.so.1", ondisk.ModeReg, "lib_t"},
		{"/usr/lib/b.so", ondisk.ModeReg, "lib_t"},
		{"/dev/null", ondisk.ModeChr, "null_device_t"},
		{"/proc", ondisk.ModeDir, ""},
		{"/b", ondisk.ModeReg, "alt_t"},
	} {
		label, ok := c.Lookup(tt.path, tt.mode)
		if ok != (tt.want != "") || ok && label != "system_u:object_r:"+tt.want+":s0" {
			t.Errorf("%s of mode %o has %q, want %s", tt.path, tt.mode, label, tt.want)
		}
	}
	for _, s := range []string{"/a", "/a -x l", "/a( l", "/a -- l m"} {
		if _, err := ParseFileContexts(strings.NewReader(s)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: %v", s, err)
		}
	}
	tree := loadTar(t, tarOf(t, tar.Header{Name: "etc/passwd"}), Options{Contexts: c})
	if a := attrsAt(t, tree, "etc/passwd"); len(a) == 0 || a[0] != (xattr{xattrSELinux, "system_u:object_r:passwd_t:s0\x00"}) {
		t.Errorf("the label is %+v", a)
	}
}

func TestTarNumbers(t *testing.T) {
	for _, tt := range []struct {
		hex  string
		want int64
		ok   bool
	}{
		{"3030303030303700", 7, true}, {"2020372000000000", 7, true}, {"0000000000000000", 0, true},
		{"8000000000000001", 1, true}, {"ffffffffffffffff", -1, true}, {"80ffffffffffffff", 1<<56 - 1, true},
		{"3938303030303000", 0, false}, {"c000000000000000", -1 << 62, true},
	} {
		b, _ := hex.DecodeString(tt.hex)
		if got, err := number(b); (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%s is %d, %v; want %d", tt.hex, got, err, tt.want)
		}
	}
	if _, err := number([]byte("\x80\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")); err == nil {
		t.Error("a number of 80 bits was taken")
	}
	for _, tt := range []struct {
		s    string
		want ondisk.Time
		ok   bool
	}{
		{"1.5", ondisk.Time{Sec: 1, Nsec: 500000000}, true}, {"-1.5", ondisk.Time{Sec: -2, Nsec: 500000000}, true},
		{"-0.25", ondisk.Time{Sec: -1, Nsec: 750000000}, true}, {"7", ondisk.Time{Sec: 7}, true},
		{"1.0000000019", ondisk.Time{Sec: 1, Nsec: 1}, true}, {"x", ondisk.Time{}, false}, {"1.x", ondisk.Time{}, false},
		{"99999999999999", ondisk.Time{}, false},
	} {
		if got, err := paxTime(tt.s); (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%s is %v, %v", tt.s, got, err)
		}
	}
}

// Names stay in the tree, and what comes later counts.
func TestTarNames(t *testing.T) {
	tree := loadTar(t, tarOf(t,
		tar.Header{Name: "/abs", Size: 1}, tar.Header{Name: "../../up"}, tar.Header{Name: "twice", Size: 1}, tar.Header{Name: "x/y/z"},
		tar.Header{Name: "twice", Size: 2}, tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "../../x"},
		tar.Header{Name: "link/through"}, tar.Header{Name: "x", Typeflag: tar.TypeDir, Mode: 0o700},
		tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "/twice"}), Options{})
	if got := strings.Join(listing2(tree), " "); got != "abs hard link twice up x x/through x/y x/y/z" {
		t.Errorf("the tree has %s", got)
	}
	if n := nodeAt(t, tree, "twice"); n.size != 2 || n.links != 2 || idAt(t, tree, "hard") != idAt(t, tree, "twice") {
		t.Errorf("twice is %+v", n)
	}
	if n := nodeAt(t, tree, "x"); n.mode != ondisk.ModeDir|0o700 {
		t.Errorf("x has mode %o", n.mode)
	}
	loop := tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "b"}, tar.Header{Name: "b", Typeflag: tar.TypeSymlink, Linkname: "a"}, tar.Header{Name: "a/x"})
	if _, err := Load(t.Context(), TarReader(bytes.NewReader(loop)), Options{}); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a loop of links: %v", err)
	}
	if _, err := Load(t.Context(), TarReader(bytes.NewReader(tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "b"}))), Options{}); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a hard link to nothing: %v", err)
	}
	if _, err := Load(t.Context(), TarReader(bytes.NewReader(loop)), Options{MaxEntries: 1}); !errors.Is(err, syscall.E2BIG) {
		t.Errorf("too many entries: %v", err)
	}
}

// TestTarLinkNUL has a symbolic link whose target no system call could give it.
func TestTarLinkNUL(t *testing.T) {
	long := strings.Repeat("t", 200) + "@"
	b := tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: long, Format: tar.FormatPAX})
	b = bytes.Replace(b, []byte(long), []byte(strings.Replace(long, "@", "\x00", 1)), 1)
	if _, err := Load(t.Context(), TarReader(bytes.NewReader(b)), Options{}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a target with a NUL byte: %v", err)
	}
}

// TestTarGlobal has so many records for all entries that going through them for
// each would never end.
func TestTarGlobal(t *testing.T) {
	records := map[string]string{}
	for i := range 2000 {
		records[fmt.Sprint("record.", i)] = "x"
	}
	b := tarOf(t, tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: records}, tar.Header{Name: "a"})
	if _, err := Load(t.Context(), TarReader(bytes.NewReader(b)), Options{}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("2000 global records: %v", err)
	}
}
