package populate

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/e2kit/e2kit/internal/testfs"
)

// gnuTar makes an archive of dir.
func gnuTar(t testing.TB, dir string, args ...string) string {
	t.Helper()
	tar := testfs.Tool(t, "tar")
	out := filepath.Join(testfs.Scratch(t), "archive.tar")
	argv := append([]string{"-C", dir, "--exclude=./lost+found", "--exclude=./sock", "--numeric-owner", "-cf", out}, args...)
	if b, err := exec.Command(tar, append(argv, ".")...).CombinedOutput(); err != nil {
		t.Fatal(err, string(b))
	}
	return out
}

// extracted returns what the kernel shows of what GNU tar makes of an archive.
func extracted(t testing.TB, archive string) testfs.Tree {
	t.Helper()
	dir := kernelDir(t)
	c := exec.Command(testfs.Tool(t, "tar"), "-C", dir, "--xattrs", "--xattrs-include=*", "--acls", "--selinux", "--numeric-owner", "-Spxf", archive)
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatal(err, string(b))
	}
	return testfs.MustSnapshot(t, dir)
}

func TestTarEverything(t *testing.T) {
	testfs.NeedRoot(t)
	src := kernelDir(t)
	everything(t, src)
	for _, f := range []struct {
		name string
		args []string
	}{
		{"pax", []string{"--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--selinux"}},
		{"pax-sparse-1.0", []string{"-S", "--format=posix", "--xattrs", "--xattrs-include=*", "--acls"}},
		{"pax-sparse-0.1", []string{"-S", "--format=posix", "--sparse-version=0.1"}},
		{"pax-sparse-0.0", []string{"-S", "--format=posix", "--sparse-version=0.0"}},
		{"gnu", []string{"--format=gnu"}},
		{"gnu-sparse", []string{"--format=gnu", "-S"}},
		{"ustar", []string{"--format=ustar", "--exclude=./suid", "--exclude=./none"}}, // their times do not fit
	} {
		t.Run(f.name, func(t *testing.T) {
			archive := gnuTar(t, src, f.args...)
			want := extracted(t, archive)
			img := image(t, 256<<20)
			fill(t, img, Tar(archive), Options{})
			skip := testfs.Atime
			if !bytes.Contains([]byte(f.name), []byte("sparse")) {
				skip |= testfs.Holes // GNU tar makes holes of zeros where it may
			}
			sameTree(t, "what GNU tar extracts and the image", want, shown(t, img), skip)
		})
	}
}

func compress(t testing.TB, path, how string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&out)
	if how == "zstd" {
		if w, err = zstd.NewWriter(&out); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// However an archive comes, the image is the same.
func TestTarCompressed(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b", "a", "c/d/e"} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, bytes.Repeat([]byte(name), 70000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	archive := gnuTar(t, dir)
	plain := image(t, 16<<20)
	gz, zs, piped := plain.Copy(t), plain.Copy(t), plain.Copy(t)
	fill(t, plain, Tar(archive), Options{})
	fill(t, gz, TarReader(bytes.NewReader(compress(t, archive, "gzip"))), Options{TempDir: t.TempDir()})
	fill(t, zs, TarReader(bytes.NewReader(compress(t, archive, "zstd"))), Options{})
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fill(t, piped, TarReader(io.MultiReader(f)), Options{})
	want := sum(t, plain.Path)
	for _, img := range []*testfs.Image{gz, zs, piped} {
		if got := sum(t, img.Path); got != want {
			t.Errorf("%s has sum %s, the image of the plain archive %s", img.Path, got, want)
		}
	}
	b := compress(t, archive, "gzip")
	if _, err := Load(context.Background(), TarReader(bytes.NewReader(b[:len(b)/2])), Options{}); err == nil {
		t.Error("half of a compressed archive was taken")
	}
}

// What extensions of headers add up to is bounded, whichever way they come; what
// takes the place of something else does not add up.
func TestTarExtensions(t *testing.T) {
	record := func(k string, n int) string {
		body := " " + k + "=" + strings.Repeat("v", n) + "\n"
		return fmt.Sprintf("%d%s", len(body)+7, body)
	}
	archive := func(typ byte, count int, same bool) []byte {
		var out bytes.Buffer
		plain := tarOf(t, tar.Header{Name: "file"})
		for i := range count {
			k := "comment0"
			if !same {
				k = fmt.Sprintf("comment%d", i)
			}
			body := record(k, 2<<20)
			h := bytes.Clone(plain[:tarBlock])
			h[156] = typ
			copy(h[124:136], fmt.Sprintf("%011o\x00", len(body)))
			out.Write(fixSums(h))
			out.WriteString(body)
			out.Write(make([]byte, (tarBlock-len(body)%tarBlock)%tarBlock))
		}
		out.Write(plain)
		return out.Bytes()
	}
	for _, x := range []struct {
		typ  byte
		n    int
		same bool
		ok   bool
	}{{'g', 3, false, true}, {'g', 5, false, false}, {'g', 9, true, true}, {'x', 3, false, true}, {'x', 5, false, false}} {
		tree, err := Load(t.Context(), TarReader(bytes.NewReader(archive(x.typ, x.n, x.same))), Options{})
		if (err == nil) != x.ok || err != nil && !strings.Contains(err.Error(), "extensions") {
			t.Errorf("%d of type %c, the same %v: %v", x.n, x.typ, x.same, err)
		}
		if err == nil {
			tree.Close()
		}
	}
}
