package populate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
)

// What no size has room for is an error at once, which says of what.
func TestFitNever(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "file")
	if err := os.WriteFile(p, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := unix.Setxattr(p, fmt.Sprintf("user.a%d", i), make([]byte, 500), 0); err != nil {
			testfs.Missing(t, "no attributes here: %v", err)
		}
	}
	tree, err := Load(t.Context(), Dir(dir), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	format := func(size int64, inodes uint64) (blockdev.Device, error) {
		if size > 1<<30 {
			t.Fatalf("a size of %d bytes was tried", size)
		}
		o := ext2fs.DefaultFormat()
		o.BlockSize, o.Inodes = 1024, uint32(inodes)+16
		dev := blockdev.NewMem(size)
		_, err := ext2fs.Format(dev, o)
		return dev, err
	}
	_, err = tree.Fit(t.Context(), format, SizeOptions{BlockSize: 1024})
	var e *EntryError
	if !errors.Is(err, unix.ENOSPC) || !errors.As(err, &e) || e.Path != "/file" || !strings.Contains(err.Error(), "user.a1") {
		t.Errorf("attributes of 1500 bytes in blocks of 1024: %v", err)
	}
}

// Attributes are found alike by either way to ask for them.
func TestAttrsEitherWay(t *testing.T) {
	testfs.NeedRoot(t)
	src := kernelDir(t)
	everything(t, src)
	was := noListxattrat.Load()
	defer noListxattrat.Store(was)
	load := func(old bool) map[string][]xattr {
		noListxattrat.Store(old)
		tree, err := Load(t.Context(), Dir(src), Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		found := map[string][]xattr{}
		err = tree.walk(func(path trail, _ nodeID, n *node, _ bool) error {
			list, err := tree.attrsOf(n)
			if list != nil {
				found[path.String()] = list
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	older, newer := load(true), load(false)
	if len(older) < 8 || !reflect.DeepEqual(older, newer) {
		t.Errorf("by a path below /proc %d files have attributes, by listxattrat %d, or others", len(older), len(newer))
	}
}
