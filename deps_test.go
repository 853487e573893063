package e2kit_test

import (
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/e2kit/e2kit/"

// External modules, by the short names that the table uses.
var external = map[string]string{
	"x/sys":       "golang.org/x/sys",
	"x/term":      "golang.org/x/term",
	"cli":         "github.com/urfave/cli/v2",
	"humanize":    "github.com/dustin/go-humanize",
	"tablewriter": "github.com/olekukonko/tablewriter",
	"uuid":        "github.com/google/uuid",
	"compress":    "github.com/klauspost/compress",
	"go-fuse":     "github.com/hanwen/go-fuse/v2",
}

// deps is the architecture: a package may import the standard library, what
// its row names, and nothing else. "+name" stands for the row of that name:
// the package itself and all that it may import. A row that ends in "/..."
// covers every package below it that has no row of its own.
var deps = map[string]string{
	".":                    "",
	"lib/endian":           "",
	"lib/blockdev":         "x/sys",
	"lib/blockdev/devtest": "lib/blockdev",
	"lib/buffer":           "lib/blockdev",
	"lib/jbd2":             "lib/endian lib/buffer lib/blockdev",
	"lib/iomap":            "",
	"lib/ext2fs/ondisk":    "lib/endian",
	"lib/ext2fs":           "+lib/jbd2 lib/iomap +lib/ext2fs/ondisk uuid",
	"lib/e2p":              "lib/endian lib/ext2fs/ondisk lib/jbd2 uuid humanize",
	"lib/populate":         "+lib/ext2fs compress x/sys",
	"lib/extract":          "+lib/ext2fs x/sys",
	"lib/fsck":             "+lib/ext2fs lib/e2p",
	"lib/mkfsconf":         "",
	"lib/fuse":             "lib/endian lib/iomap x/sys",
	"lib/fuse/service":     "lib/fuse x/sys",
	"lib/sandbox":          "x/sys",
	"lib/fuse2fs":          "+lib/ext2fs lib/iomap lib/fuse lib/sandbox x/sys",
	"internal/cli":         "lib/e2p cli x/term humanize",
	"internal/testfs":      "lib/... internal/testfs/... x/sys",
	"internal/testfs/...":  "lib/... internal/testfs/... x/sys go-fuse",
	"internal/testsum":     "",
	"internal/iomappeer":   "lib/blockdev x/sys",
	"tests":                "",
	"internal/bench/...":   "lib/... internal/testfs/... internal/bench/... x/sys tablewriter humanize",
	"cmd/...":              "lib/... internal/cli x/sys x/term cli humanize tablewriter uuid compress",
}

// inTests may be imported by tests besides what their package may import.
const inTests = "lib/... internal/... x/sys go-fuse"

// row returns the name of the row for the package in dir, or "".
func row(dir string) string {
	if _, ok := deps[dir]; ok {
		return dir
	}
	for d := dir; d != "."; d = path.Dir(d) {
		if _, ok := deps[d+"/..."]; ok {
			return d + "/..."
		}
	}
	return ""
}

// expand returns the import patterns that list stands for.
func expand(t *testing.T, list string) []string {
	var out []string
	for _, w := range strings.Fields(list) {
		if name, ok := strings.CutPrefix(w, "+"); ok {
			sub, ok := deps[name]
			if !ok {
				t.Fatalf("the table has no row %q", name)
			}
			out = append(append(out, name), expand(t, sub)...)
			continue
		}
		out = append(out, w)
	}
	return out
}

func covers(pattern, pkg string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	return pattern == pkg
}

// shortName turns an import path into a name as the table has it; ok is false
// for the standard library.
func shortName(imp string) (name string, ok bool) {
	if rest, ours := strings.CutPrefix(imp+"/", module); ours {
		return path.Clean(rest), true
	}
	for short, p := range external {
		if imp == p || strings.HasPrefix(imp, p+"/") {
			return short, true
		}
	}
	first, _, _ := strings.Cut(imp, "/")
	return imp, strings.Contains(first, ".")
}

// goFiles calls f with every Go file of the module that any build could use.
func goFiles(t *testing.T, f func(file string)) {
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n := d.Name()
		if d.IsDir() {
			if n == "testdata" || n == "bin" || n != "." && (n[0] == '.' || n[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(n, ".go") && !ignored(t, p) {
			f(filepath.ToSlash(p))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ignored reports whether file is marked as part of no build.
func ignored(t *testing.T, file string) bool {
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(src)) {
		line = strings.TrimSpace(line)
		if constraint.IsGoBuild(line) {
			return line == "//go:build ignore"
		}
		if line != "" && !strings.HasPrefix(line, "//") {
			break
		}
	}
	return false
}

// TestDeps fails on an import that the table does not allow. It reads the
// files and not the build list, so that files of other systems count too.
func TestDeps(t *testing.T) {
	fset := token.NewFileSet()
	goFiles(t, func(file string) {
		dir := path.Dir(file)
		r := row(dir)
		if r == "" {
			t.Errorf("%s: package %s has no row in the table of deps_test.go", file, dir)
			return
		}
		allowed := expand(t, deps[r])
		test := strings.HasSuffix(file, "_test.go")
		if test {
			allowed = append(allowed, dir)
			allowed = append(allowed, expand(t, inTests)...)
		}
		f, err := parser.ParseFile(fset, file, nil, parser.ImportsOnly)
		if err != nil {
			t.Error(err)
			return
		}
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Error(err)
				continue
			}
			if imp == "C" {
				t.Errorf("%s: imports C", file)
				continue
			}
			name, checked := shortName(imp)
			if checked && !slices.ContainsFunc(allowed, func(p string) bool { return covers(p, name) }) {
				t.Errorf("%s: %s may not import %s", fset.Position(spec.Pos()), dir, imp)
			}
		}
	})
}

// TestDepsTable fails if the table has a cycle or a row that allows what does
// not exist by name.
func TestDepsTable(t *testing.T) {
	for name, list := range deps {
		for _, p := range expand(t, list) {
			if covers(p, name) && !strings.HasSuffix(p, "/...") {
				t.Errorf("%s may import itself", name)
			}
			_, ext := external[p]
			if !ext && row(strings.TrimSuffix(p, "/...")) == "" && !strings.HasSuffix(p, "/...") {
				t.Errorf("row %s names %s, which has no row", name, p)
			}
		}
	}
}
