package populate

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
)

// layer makes a layer of entries: "name/" for a directory, "name=content" for a
// file, "name->target" and "name=>target" for soft and hard links, else an
// empty file.
func layer(t testing.TB, entries ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i, e := range entries {
		h := &tar.Header{Name: e, Mode: 0o644, Uid: i, Gid: 7, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		data := ""
		if name, to, ok := strings.Cut(e, "->"); ok {
			h.Name, h.Linkname, h.Typeflag = name, to, tar.TypeSymlink
		} else if name, to, ok := strings.Cut(e, "=>"); ok {
			h.Name, h.Linkname, h.Typeflag = name, to, tar.TypeLink
		} else if name, c, ok := strings.Cut(e, "="); ok {
			h.Name, data = name, c
		} else if strings.HasSuffix(e, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		h.Size = int64(len(data))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// ociLayout is an image layout being made.
type ociLayout struct {
	t   testing.TB
	dir string
}

func (l *ociLayout) blob(mediaType string, b []byte) descriptor {
	l.t.Helper()
	hex := fmt.Sprintf("%x", sha256.Sum256(b))
	l.write("blobs/sha256/"+hex, b)
	return descriptor{MediaType: mediaType, Digest: "sha256:" + hex, Size: int64(len(b))}
}

func (l *ociLayout) write(name string, b []byte) {
	l.t.Helper()
	p := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(p, b, 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l *ociLayout) json(v any) []byte {
	l.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

// image adds an image and returns its manifest's descriptor.
func (l *ociLayout) image(arch string, layers ...[]byte) map[string]any {
	l.t.Helper()
	var ids []string
	var ds []descriptor
	for i, b := range layers {
		ids = append(ids, fmt.Sprintf("sha256:%x", sha256.Sum256(b)))
		kind := "application/vnd.oci.image.layer.v1.tar"
		p := filepath.Join(l.t.TempDir(), "layer")
		if err := os.WriteFile(p, b, 0o600); err != nil {
			l.t.Fatal(err)
		}
		switch i % 3 {
		case 1:
			b, kind = compress(l.t, p, "gzip"), kind+"+gzip"
		case 2:
			b, kind = compress(l.t, p, "zstd"), kind+"+zstd"
		}
		ds = append(ds, l.blob(kind, b))
	}
	config := l.blob("application/vnd.oci.image.config.v1+json", l.json(map[string]any{
		"os": "linux", "architecture": arch, "rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	}))
	m := l.blob(ociManifest, l.json(map[string]any{"schemaVersion": 2, "config": config, "layers": ds}))
	return map[string]any{"mediaType": m.MediaType, "digest": m.Digest, "size": m.Size,
		"platform": map[string]string{"os": "linux", "architecture": arch}}
}

func (l *ociLayout) index(list ...any) {
	l.write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	l.write("index.json", l.json(map[string]any{"schemaVersion": 2, "manifests": list}))
}

// listing returns the names of a tree, files with their owner.
func listing(t *Tree) []string {
	var out []string
	_ = t.walk(func(p trail, _ nodeID, n *node, first bool) error {
		switch {
		case len(p) == 0:
		case n.isDir():
			out = append(out, p.String()+"/")
		case n.isLnk():
			target, err := t.text(n.aux)
			out = append(out, p.String()+"->"+target)
			return err
		default:
			out = append(out, p.String())
		}
		return nil
	})
	return out
}

// Layers, from the specification's rules: a whiteout hides what layers below
// have, wherever it stands; an opaque directory hides its siblings of below only.
var layerTests = []struct {
	name   string
	layers [][]string
	want   string
}{
	{"add and replace", [][]string{{"a/", "a/x=1", "b=1"}, {"a/", "a/y=2", "b=22"}}, "a/ a/x a/y b"},
	{"whiteout of a file", [][]string{{"a/", "a/x=1", "a/y=1"}, {"a/.wh.x"}}, "a/ a/y"},
	{"whiteout of a directory", [][]string{{"a/", "a/b/", "a/b/c=1", "d=1"}, {".wh.a"}}, "d"},
	{"whiteout of nothing", [][]string{{"d=1"}, {".wh.a", "x/y/.wh.z"}}, "d"},
	{"whiteout before what replaces it", [][]string{{"a/", "a/old=1"}, {".wh.a", "a/", "a/new=2"}}, "a/ a/new"},
	{"whiteout after what replaces it", [][]string{{"a/", "a/old=1"}, {"a/", "a/new=2", ".wh.a"}}, "a/ a/new"},
	{"whiteout of its own layer's file", [][]string{{"a=1"}, {"a=2", ".wh.a"}}, "a"},
	{"opaque first", [][]string{{"a/", "a/b/", "a/b/c=1", "a/x=1"}, {"a/", "a/.wh..wh..opq", "a/n=2"}}, "a/ a/n"},
	{"opaque last", [][]string{{"a/", "a/b/", "a/b/c=1", "a/x=1"}, {"a/", "a/b/", "a/b/n=2", "a/.wh..wh..opq"}}, "a/ a/b/ a/b/n"},
	{"opaque root", [][]string{{"a=1", "b/", "b/c=1"}, {".wh..wh..opq", "z=1"}}, "z"},
	{"file over directory", [][]string{{"a/", "a/x=1"}, {"a=file"}}, "a"},
	{"directory over file", [][]string{{"a=1"}, {"a/", "a/x=1"}}, "a/ a/x"},
	{"hard link into a layer below", [][]string{{"a=1"}, {"b=>a", ".wh.a"}}, "b"},
	{"names of a union file system", [][]string{{"a=1"}, {".wh..wh.plnk/", ".wh..wh.aufs"}}, "a"},
	{"back after a whiteout", [][]string{{"a=1"}, {".wh.a"}, {"a=3"}}, "a"},
	{"outside", [][]string{{"/abs=1", "../../up=1", "x/../y=1"}, {"../.wh.up"}}, "abs y"},
}

func TestLayers(t *testing.T) {
	for _, tt := range layerTests {
		t.Run(tt.name, func(t *testing.T) {
			var paths []string
			for i, l := range tt.layers {
				p := filepath.Join(t.TempDir(), fmt.Sprint(i))
				if err := os.WriteFile(p, layer(t, l...), 0o644); err != nil {
					t.Fatal(err)
				}
				paths = append(paths, p)
			}
			tree, err := Load(t.Context(), Layers(paths...), Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			if got := strings.Join(listing(tree), " "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestOCI(t *testing.T) {
	testfs.NeedRoot(t)
	l := &ociLayout{t, t.TempDir()}
	amd := l.image("amd64",
		layer(t, "./", "bin/", "bin/sh=shell", "etc/", "etc/old=1", "etc/keep=1", "data/", "data/a=1"),
		layer(t, "etc/.wh.old", "etc/new=2", "data/.wh..wh..opq", "data/b=2", "bin/ash=>bin/sh"),
		layer(t, "lib->usr/lib", "usr/", "usr/lib/", "lib/libc=follows"))
	arm := l.image("arm64", layer(t, "arm=1"))
	inner := l.blob(ociIndex, l.json(map[string]any{"schemaVersion": 2, "manifests": []any{arm, amd}}))
	l.index(inner)

	img := image(t, 16<<20)
	fill(t, img, OCI(l.dir, OCIOptions{Platform: "linux/amd64"}), Options{})
	got := shown(t, img)
	for _, p := range strings.Fields("bin bin/sh bin/ash etc etc/keep etc/new data data/b lib usr usr/lib usr/lib/libc") {
		if got[p] == nil {
			t.Errorf("%s is missing", p)
		}
		delete(got, p)
	}
	delete(got, ".")
	if len(got) != 0 {
		t.Errorf("there are %v too", got)
	}

	// As a tar, the image is the same.
	archive := filepath.Join(testfs.Scratch(t), "layout.tar")
	if out, err := exec.Command(testfs.Tool(t, "tar"), "-C", l.dir, "-cf", archive, ".").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	again := image(t, 16<<20)
	fill(t, again, OCI(archive, OCIOptions{Platform: "linux/amd64"}), Options{})
	if a, b := sum(t, img.Path), sum(t, again.Path); a != b {
		t.Errorf("from the directory %s, from its tar %s", a, b)
	}

	tree, err := Load(t.Context(), OCI(l.dir, OCIOptions{Platform: "linux/arm64"}), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(listing(tree), " "); got != "arm" {
		t.Errorf("the image for arm64 has %s", got)
	}
	tree.Close()
	if _, err := Load(t.Context(), OCI(l.dir, OCIOptions{Platform: "linux/riscv64"}), Options{}); err == nil || !strings.Contains(err.Error(), "linux/amd64") {
		t.Errorf("a platform that is not there: %v", err)
	}
}

// A fifo in the place of a file is refused, and not waited for.
func TestOCIFifo(t *testing.T) {
	l := &ociLayout{t, t.TempDir()}
	l.index(l.image("amd64", layer(t, "a=1")))
	path := filepath.Join(l.dir, "index.json")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(t.Context(), OCI(l.dir, OCIOptions{}), Options{}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a fifo: %v", err)
	}
}

// A layer that changes once its digest was found to be right is not read again.
func TestOCIChanging(t *testing.T) {
	testfs.NeedRoot(t)
	l := &ociLayout{t, t.TempDir()}
	good := layer(t, "a=good")
	l.index(l.image("amd64", good))
	tree, err := Load(t.Context(), OCI(l.dir, OCIOptions{Platform: "linux/amd64"}), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	path := filepath.Join(l.dir, "blobs/sha256", fmt.Sprintf("%x", sha256.Sum256(good)))
	if err := os.WriteFile(path, bytes.Replace(good, []byte("good"), []byte("evil"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	img := image(t, 16<<20)
	dev, err := blockdev.Open(img.Path, blockdev.Options{Direct: blockdev.DirectOff})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if _, err := tree.Write(t.Context(), dev); err != nil {
		t.Fatal(err)
	}
	if got := testfs.Run(t, "debugfs", "-R", "cat a", img.Path); !strings.HasSuffix(got, "good") {
		t.Errorf("the file has %q", got)
	}
}

// Nothing is taken whose digest is not the one that the image says.
func TestOCIDigests(t *testing.T) {
	for i := range 3 {
		l := &ociLayout{t, t.TempDir()}
		l.index(l.image("amd64", layer(t, "a=1"), layer(t, "b=1"), layer(t, "c=1")))
		load := func() error {
			tree, err := Load(context.Background(), OCI(l.dir, OCIOptions{Platform: "linux/amd64"}), Options{})
			if err == nil {
				tree.Close()
			}
			return err
		}
		if err := load(); err != nil {
			t.Fatal(err)
		}
		blobs, err := filepath.Glob(filepath.Join(l.dir, "blobs/sha256/*"))
		if err != nil || len(blobs) != 5 {
			t.Fatal(blobs, err)
		}
		for _, b := range blobs {
			old, err := os.ReadFile(b)
			if err != nil {
				t.Fatal(err)
			}
			bad := bytes.Clone(old)
			switch i {
			case 0:
				bad[len(bad)/2] ^= 1
			case 1:
				bad = append(bad, 0)
			case 2:
				bad = bad[:len(bad)-1]
			}
			if err := os.WriteFile(b, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := load(); err == nil {
				t.Errorf("change %d of %s was not seen", i, b)
			} else if i > 0 && !errors.Is(err, syscall.EBADMSG) {
				t.Errorf("change %d of %s: %v", i, b, err)
			}
			if err := os.WriteFile(b, old, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
