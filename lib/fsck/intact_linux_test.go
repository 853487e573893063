package fsck_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fsck"
)

// contents counts the files and symlinks of an image by what they hold, wherever
// they are.
type contents map[string]int

// contentsOf returns the contents of a sound image; nil if it cannot be read.
func contentsOf(path string) contents {
	tree, err := readTree(path)
	if err != nil {
		return nil
	}
	out := contents{}
	for _, key := range tree {
		if (key[0] == 'f' || key[0] == 'l') && !strings.HasSuffix(key, " *") {
			out[key]++
		}
	}
	return out
}

// intact counts how many of the files are among those of another image.
func (c contents) intact(other contents) (n int) {
	for key, k := range c {
		n += min(k, other[key])
	}
	return n
}

// repairedContents returns the contents of an image whose journal, if it holds
// something, has been replayed.
func repairedContents(t *testing.T, path string) contents {
	t.Helper()
	dev, err := blockdev.Open(path, blockdev.Options{ReadOnly: true, Direct: blockdev.DirectOff})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	over := blockdev.NewOverlay(dev, 0)
	if _, err := fsck.Check(context.Background(), over, fsck.Options{Mode: fsck.ModeYes, Force: true}); err != nil {
		t.Fatal(err)
	}
	img := filepath.Join(testfs.Scratch(t), "good")
	dump(t, over, img)
	c := contentsOf(img)
	if len(c) == 0 {
		t.Fatalf("%s: no files", path)
	}
	return c
}

// featureBases are good images with features that the kernel at hand need not have.
func featureBases(t *testing.T) (out []*testfs.Image) {
	t.Helper()
	add := func(name string, change func(o *ext2fs.FormatOptions), then func(e *edit)) {
		e := makeBase(t, change).edit(t)
		then(e)
		path := filepath.Join(testfs.Scratch(t), name)
		store(t, path, e.b)
		if code, out := cFsck(t, "-fn", path); code != 0 {
			t.Fatalf("%s: %s", name, out)
		}
		out = append(out, &testfs.Image{Path: path, Spec: testfs.Spec{Name: name}})
	}
	nothing := func(*edit) {}
	add("quota", recipeBases["quota"], nothing)
	add("orphans", recipeBases["orphans"], nothing)
	add("inline-256", recipeBases["inline"], nothing)
	add("casefold", recipeBases["casefold"], func(e *edit) {
		e.flags("/dir", ondisk.FlagCasefold, 0)
		e.flags("/big", ondisk.FlagCasefold, 0)
	})
	add("encrypt", recipeBases["encrypt"], func(e *edit) {
		e.encrypt("/big", 1)
		for p := range e.base.ino {
			if strings.HasPrefix(p, "/big/") {
				e.encrypt(p, 1)
			}
		}
	})
	add("verity", func(o *ext2fs.FormatOptions) { o.ROCompat |= ondisk.ROCompatVerity }, func(e *edit) {
		e.flags("/file", ondisk.FlagVerity, 0)
		e.flags("/frag", ondisk.FlagVerity, 0)
	})
	add("metabg", recipeBases["metabg"], nothing)
	return out
}
