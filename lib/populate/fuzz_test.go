package populate

import (
	"archive/tar"
	"bytes"
	"context"
	"strings"
	"testing"
)

// checkTree wants of a tree that was made of anything what writing relies on.
func checkTree(t *testing.T, tree *Tree) {
	t.Helper()
	names, links := map[nodeID]uint32{}, map[nodeID]uint32{}
	entries := 0
	err := tree.walk(func(path trail, id nodeID, n *node, first bool) error {
		p := path.String()
		names[id]++
		links[id] = n.links
		if p != "" {
			entries++
		}
		end := int64(0)
		err := tree.data(n, func(s seg) error {
			if s.off < end || s.n <= 0 || s.off+s.n > n.size || s.at < 0 {
				t.Errorf("%q has data at %+v of %d", p, s, n.size)
			}
			end = s.off + s.n
			return nil
		})
		if strings.Contains("/"+p+"/", "/../") || strings.Contains(p, "//") {
			t.Errorf("name %q", p)
		}
		if first != (names[id] == 1) {
			t.Errorf("%q is the %d. name: first is %v", p, names[id], first)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for id, k := range names {
		if links[id] != k {
			t.Errorf("a node with %d names counts %d", k, links[id])
		}
	}
	if entries != tree.entries {
		t.Errorf("%d entries, counted %d", entries, tree.entries)
	}
}

func FuzzTar(f *testing.F) {
	f.Add(tarOf(f, tar.Header{Name: "a/b", Size: 3}, tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "a/b"},
		tar.Header{Name: "x", PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b", "GNU.sparse.comment": "c"}}))
	f.Add(tarOf(f, tar.Header{Name: strings.Repeat("n", 120), Format: tar.FormatGNU}, tar.Header{Name: "b", Uid: 1 << 22, Format: tar.FormatGNU}))
	sparse := tarOf(f, tar.Header{Name: "s", Size: 2048})
	sparse[156] = 'S'
	f.Add(sparse)
	f.Add([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range []Source{TarReader(bytes.NewReader(b)), fuzzLayers{fixSums(b), fixSums(b)}} {
			tree, err := Load(context.Background(), s, Options{MaxEntries: 10000})
			if err != nil {
				continue
			}
			checkTree(t, tree)
			tree.Close()
		}
	})
}

// fixSums gives each block that could be a header the checksum it should have,
// so that the fuzzer gets past it.
func fixSums(b []byte) []byte {
	b = bytes.Clone(b)
	for i := 0; i+tarBlock <= len(b); i += tarBlock {
		h := b[i : i+tarBlock]
		if isZero(h) {
			continue
		}
		sum := 0
		copy(h[148:156], "        ")
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:156], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})
	}
	return b
}

// fuzzLayers is layers that lie in memory.
type fuzzLayers [][]byte

func (s fuzzLayers) load(ctx context.Context, t *Tree) error {
	for i, b := range s {
		if err := t.addLayer(ctx, section{bytes.NewReader(b), int64(len(b))}, int32(i+1)); err != nil {
			return err
		}
	}
	return nil
}

// fuzzLayout answers every name of a layout with the same bytes.
type fuzzLayout []byte

func (l fuzzLayout) file(name string) (section, error) {
	b := []byte(l)
	if name == "oci-layout" {
		b = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	}
	return section{bytes.NewReader(b), int64(len(b))}, nil
}

func FuzzOCI(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + strings.Repeat("0", 64) + `","size":2,"platform":{"os":"linux","architecture":"amd64"}}]}`))
	f.Add([]byte(`{"config":{"digest":"sha256:x"},"layers":[{}],"rootfs":{"diff_ids":["a"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		tree := newTree(Options{MaxEntries: 100})
		defer tree.Close()
		_ = tree.loadImage(context.Background(), fuzzLayout(b), OCIOptions{Platform: "linux/amd64"}) // it fails, or does not
		var m document
		if parseJSON("x", b, &m) == nil {
			_, _ = chooseManifest(fuzzLayout(b), &m, OCIOptions{}, 0)
			_, _ = diffIDs(fuzzLayout(b), &m)
		}
		checkTree(t, tree)
	})
}

func FuzzDeviceTable(f *testing.F) {
	f.Add("/dev/tty c 666 0 0 4 0 0 1 4\n|xattr cap_chown,cap_kill+eip\n")
	f.Add("/ r -1 1 1\n/a d 755 0 0\n/a/.. d 1 1 1\n")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParseDeviceTable(strings.NewReader(s))
		if err != nil {
			return
		}
		tree, err := Load(context.Background(), TarReader(bytes.NewReader(make([]byte, 1024))), Options{Devices: list, MaxEntries: 1000})
		if err != nil {
			return
		}
		checkTree(t, tree)
		tree.Close()
	})
}

func FuzzFileContexts(f *testing.F) {
	f.Add("/etc(/.*)? -- a:b:c\n/a|b <<none>>\n", "/etc/x")
	f.Add("/a[|(]b? x\n", "/a|")
	f.Fuzz(func(t *testing.T, s, path string) {
		c, err := ParseFileContexts(strings.NewReader(s))
		if err != nil {
			return
		}
		for i := range c.specs { // the prefix leaves out nothing that matches
			if e := &c.specs[i]; e.re.MatchString(path) && !strings.HasPrefix(path, e.prefix) {
				t.Errorf("%q matches %v, whose prefix is said to be %q", path, e.re, e.prefix)
			}
		}
		c.Lookup(path, 0)
	})
}

func FuzzACLText(f *testing.F) {
	f.Add("user::rwx,user:5:r-x,group::r-x,mask::r-x,other::---")
	f.Fuzz(func(t *testing.T, s string) {
		if acl, err := parseACL(s); err == nil && acl != nil && !acl.Valid() {
			t.Errorf("%q gives %v", s, acl)
		}
	})
}
