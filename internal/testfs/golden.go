//go:build linux

package testfs

import (
	"compress/bzip2"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Golden returns the folder of the recorded cases of e2fsprogs. They are its
// data, under its licence, and no part of this tree: without them the test is
// skipped, in CI too, which has nothing to install them from. E2KIT_GOLDEN names
// the folder; else it is looked for beside the tree, or beside the folder of its
// work trees.
func Golden(t testing.TB) string {
	t.Helper()
	dir, named := os.LookupEnv("E2KIT_GOLDEN")
	if named {
		if _, err := os.Stat(filepath.Join(dir, "images.tsv")); err != nil {
			t.Fatalf("E2KIT_GOLDEN: %v", err)
		}
		return dir
	}
	root, err := os.Getwd()
	for err == nil && root != filepath.Dir(root) {
		if _, e := os.Stat(filepath.Join(root, "go.mod")); e == nil {
			break
		}
		root = filepath.Dir(root)
	}
	for _, up := range []string{"..", "../.."} {
		dir := filepath.Join(root, up, "shared/golden/e2fsprogs")
		if _, err := os.Stat(filepath.Join(dir, "images.tsv")); err == nil {
			return dir
		}
	}
	t.Skip("no recorded cases of e2fsprogs beside the tree (E2KIT_GOLDEN names another place)")
	return ""
}

// Unpack writes what the file from holds, which is compressed as its name ends,
// .gz or .bz2, to the file to.
func Unpack(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var r io.Reader = bzip2.NewReader(in)
	if strings.HasSuffix(from, ".gz") {
		if r, err = gzip.NewReader(in); err != nil {
			t.Fatal(err)
		}
	}
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, r)
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		t.Fatal(err)
	}
}
