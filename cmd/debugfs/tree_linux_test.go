package main

import (
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestTree compares du and find with the tools of that name on a mount, and
// has rwrite and rdump, and diff, see the same tree.
func TestTree(t *testing.T) {
	testfs.NeedRoot(t)
	img := sample(t, testfs.Spec{Name: "ext4"})
	m := testfs.KernelMount(t, img, "ro")
	// One link of data is below /a: who counts it depends on who comes first.
	wantDu := testfs.Run(t, "sh", "-c", `cd "$1" && du -k . | grep -v '/a$' | sed 's|\t\./|\t/|; s|\t\.$|\t/|' | sort`, "sh", m.Dir)
	wantFind := testfs.Run(t, "sh", "-c", `cd "$1" && find . -type f -name '*1*' | sed 's|^\.||' | sort`, "sh", m.Dir)
	wantGrep := testfs.Run(t, "sh", "-c", `cd "$1" && grep -r '^3.$' big | sort`, "sh", m.Dir)
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	for req, want := range map[string]string{"du /": wantDu, "find -t f -n *1* /": wantFind, "grep ^3.$ big": wantGrep} {
		status, out, errs := debugfs("-R", req, img.Path)
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasSuffix(l, "\t/a") })
		sort.Strings(lines)
		if got := strings.Join(lines, "\n") + "\n"; status != 0 || got != want {
			t.Errorf("%s: %d: %s%s", req, status, firstDifference(got, want), errs)
		}
	}

	other := img.Copy(t)
	if status, out, errs := debugfs("-R", "diff "+other.Path, img.Path); status != 0 || out != "" {
		t.Errorf("diff of a copy: %d: %s%s", status, out, errs)
	}
	src := testfs.Scratch(t)
	testfs.Run(t, "sh", "-c", `mkdir "$1/tree"; `+strings.Replace(fill, `cd "$1"`, `cd "$1/tree"`, 1), "sh", src)
	if status, _, errs := debugfs("-w", "-R", "rwrite "+filepath.Join(src, "tree")+" /a", other.Path); status != 0 {
		t.Fatal(errs)
	}
	if status, out, _ := debugfs("-R", "diff "+other.Path, img.Path); status != 1 || out != "/a/tree: only there\n" {
		t.Errorf("diff: %d: %s", status, out)
	}
	dest := testfs.Scratch(t)
	if status, _, errs := debugfs("-R", "rdump /a/tree "+dest, other.Path); status != 0 {
		t.Fatal(errs)
	}
	const listing = `cd "$1/tree" && find . -printf '%p %y %m %U %G %T@ %l %n %s\n' | grep -v '^[^ ]* d ' | sort && getfattr -Rhd -m - -e hex . 2>/dev/null | sort &&
		find . -type f -exec md5sum {} + | sort && find . -type d -printf '%p %m %U %G %T@\n' | sort`
	want, got := testfs.Run(t, "sh", "-c", listing, "sh", src), testfs.Run(t, "sh", "-c", listing, "sh", dest)
	if got != want {
		t.Errorf("rwrite and rdump: %s", firstDifference(got, want))
	}
}
