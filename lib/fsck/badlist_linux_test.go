package fsck_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/fsck"
)

// wornOut is a device with blocks of 1024 bytes that cannot be read.
type wornOut struct {
	blockdev.Device
	bad map[int64]bool
}

func (w *wornOut) ReadAt(p []byte, off int64) (int, error) {
	for b := off / 1024; b <= (off+int64(len(p))-1)/1024; b++ {
		if w.bad[b] {
			return 0, syscall.EIO
		}
	}
	return w.Device.ReadAt(p, off)
}

// TestBadScan finds blocks that cannot be read, in use by a file and free: they are
// listed, and the file is readable again, with zeros where nothing could be read.
func TestBadScan(t *testing.T) {
	dir := testfs.Scratch(t)
	path, src := filepath.Join(dir, "image"), filepath.Join(dir, "file")
	data := bytes.Repeat([]byte("0123456789abcdef"), 1024)
	if err := os.WriteFile(src, data, 0o600); err != nil {
		t.Fatal(err)
	}
	testfs.Run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", path, "12M")
	testfs.Run(t, "debugfs", "-w", "-R", "write "+src+" file", path)
	lines := strings.Split(strings.TrimSpace(testfs.Run(t, "debugfs", "-R", "blocks file", path)), "\n")
	blocks := strings.Fields(lines[len(lines)-1])
	inFile, err := strconv.ParseInt(blocks[3], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	file, err := blockdev.Open(path, blockdev.Options{Direct: blockdev.DirectOff})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	dev := &wornOut{file, map[int64]bool{inFile: true, 9000: true}}
	res, err := fsck.Check(context.Background(), dev, fsck.Options{Mode: fsck.ModeYes, Force: true, BadBlocks: &fsck.BadBlocks{Scan: true}})
	if err != nil || res.Left || len(res.BadFound) != 2 {
		t.Fatalf("found %v: %v", res.BadFound, err)
	}
	if s := testfs.Run(t, "dumpe2fs", "-b", path); !strings.Contains(s, "\n9000\n") || !strings.Contains(s, "\n"+blocks[3]+"\n") {
		t.Errorf("listed: %s", s)
	}
	testfs.Run(t, "e2fsck", "-fn", path)
	testfs.Run(t, "debugfs", "-R", "dump file "+src+".got", path)
	got, err := os.ReadFile(src + ".got")
	want := append(append(append([]byte{}, data[:3*1024]...), make([]byte, 1024)...), data[4*1024:]...)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file has other content: %v", err)
	}
	if _, err := fsck.Check(context.Background(), blockdev.ReadOnly(dev), fsck.Options{Mode: fsck.ModeNo, BadBlocks: &fsck.BadBlocks{Scan: true}, Force: true}); err == nil {
		t.Error("bad blocks are listed with ModeNo")
	}
}
