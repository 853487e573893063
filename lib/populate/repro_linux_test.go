package populate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
)

// The same files give the same bytes: copies of them in other orders, read by
// other numbers of goroutines, with holes or without, and at another time.
func TestReproducible(t *testing.T) {
	testfs.NeedRoot(t)
	src := kernelDir(t)
	everything(t, src)
	epoch := int64(1500000000)
	blank := image(t, 128<<20)
	mode := uint16(0o750)
	want := ""
	for i := range 4 {
		dir := filepath.Join(kernelDir(t), "copy")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		var names []string
		ents, err := os.ReadDir(src)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range ents {
			if e.Name() != "lost+found" {
				names = append(names, filepath.Join(src, e.Name()))
			}
		}
		rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		args := append([]string{"-a", "--sparse=" + []string{"always", "never"}[i%2]}, names...)
		if out, err := exec.Command("cp", append(args, dir)...).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
		img := blank.Copy(t)
		fill(t, img, Dir(dir), Options{Reproducible: true, MaxTime: &epoch, Workers: 1 + 3*i, Root: &Owner{1, 2}, RootMode: &mode})
		got := sum(t, img.Path)
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("copy %d has sum %s, the first one %s", i, got, want)
		}
	}
}

// Whatever goes wrong, the entry is named and no file system is left.
func TestIncomplete(t *testing.T) {
	dir := t.TempDir()
	for i := range 40 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%02d", i)), make([]byte, 1<<20), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, img *testfs.Image, err error, no syscall.Errno) {
		t.Helper()
		var inc *IncompleteError
		if !errors.As(err, &inc) || !errors.Is(err, no) {
			t.Errorf("%s: %v", what, err)
		}
		var e *EntryError
		if !errors.As(err, &e) || len(e.Path) < 2 {
			t.Errorf("%s: the error names no entry: %v", what, err)
		}
		dev, err := blockdev.Open(img.Path, blockdev.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		if fs, err := ext2fs.Open(dev, ext2fs.Options{ReadOnly: true}); err == nil {
			fs.Close()
			t.Errorf("%s: what is left can be opened", what)
		}
		img.ExpectDirty("populating it failed")
	}
	small := image(t, 16<<20)
	_, err := tryFill(t.Context(), small.Path, Dir(dir), Options{})
	check("no space", small, err, syscall.ENOSPC)

	ctx, cancel := context.WithCancel(t.Context())
	img := image(t, 64<<20)
	tree, err := Load(ctx, Dir(dir), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	cancel()
	dev, err := blockdev.Open(img.Path, blockdev.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = tree.Write(ctx, dev)
	dev.Close()
	check("interrupted", img, err, syscall.EINTR)

	img = image(t, 64<<20)
	changed, err := Load(t.Context(), Dir(dir), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer changed.Close()
	if err := os.Truncate(filepath.Join(dir, "file07"), 5); err != nil {
		t.Fatal(err)
	}
	if dev, err = blockdev.Open(img.Path, blockdev.Options{}); err != nil {
		t.Fatal(err)
	}
	_, err = changed.Write(t.Context(), dev)
	dev.Close()
	check("a file that changed", img, err, syscall.EAGAIN)
	var e *EntryError
	if errors.As(err, &e) && e.Path != "/file07" {
		t.Errorf("the entry is %s", e.Path)
	}

	img = image(t, 64<<20)
	if err := os.Remove(filepath.Join(dir, "file09")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "file07")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "file07")); err != nil {
		t.Fatal(err)
	}
	if dev, err = blockdev.Open(img.Path, blockdev.Options{}); err != nil {
		t.Fatal(err)
	}
	_, err = changed.Write(t.Context(), dev)
	dev.Close()
	check("a file that became a link", img, err, syscall.ELOOP)
}

// A file that cannot be read is named, and nothing of the device is changed if
// that is seen while loading.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("x", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(t.Context(), Dir(filepath.Join(dir, "none")), Options{}); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a directory that is not there: %v", err)
	}
	if _, err := Load(t.Context(), Dir(filepath.Join(dir, "link")), Options{}); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a link to nothing: %v", err)
	}
	if _, err := Load(t.Context(), Tar(filepath.Join(dir, "none")), Options{}); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("an archive that is not there: %v", err)
	}
	img := image(t, 16<<20)
	before := sum(t, img.Path)
	// The journal wants to be replayed: the file system is not one that was just made.
	testfs.Run(t, testfs.Tool(t, "debugfs"), "-w", "-R", "feature needs_recovery", img.Path)
	dirty := sum(t, img.Path)
	if before == dirty {
		t.Fatal("the image did not change")
	}
	var inc *IncompleteError
	if _, err := tryFill(t.Context(), img.Path, Dir(dir), Options{}); err == nil || errors.As(err, &inc) {
		t.Errorf("a file system that needs recovery: %v", err)
	}
	if got := sum(t, img.Path); got != dirty {
		t.Error("it was refused, and changed")
	}
	img.ExpectDirty("it was marked so")
}
