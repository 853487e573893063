package blockdev_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
)

// sfdisk partitions a new image and opens it.
func sfdisk(t *testing.T, script string) *blockdev.File {
	t.Helper()
	path := filepath.Join(testfs.Scratch(t), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 64<<20); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testfs.Tool(t, "sfdisk"), path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	dev, err := blockdev.Open(path, blockdev.Options{Direct: blockdev.DirectOff})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

func TestPartitionsGPT(t *testing.T) {
	const uuid = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"
	dev := sfdisk(t, "label: gpt\nsize=8M, name=boot\nstart=40960, size=16M, name=\"röot\", uuid="+uuid+"\nsize=1M, name=boot\n")
	for _, damage := range []int64{-1, 512, 1024} {
		if damage >= 0 {
			if _, err := dev.WriteAt([]byte("x"), damage+20); err != nil {
				t.Fatal(err)
			}
		}
		for _, sel := range []string{"2", "label=röot", "uuid=" + strings.ToUpper(uuid), "PARTUUID=" + uuid} {
			p, err := blockdev.FindPartition(dev, sel)
			if err != nil || p.Number != 2 || p.Start != 40960*512 || p.Size != 16<<20 || p.UUID != uuid {
				t.Errorf("damage at %d: %s: %+v, %v", damage, sel, p, err)
			}
		}
	}
	for sel, want := range map[string]error{
		"7": syscall.ENXIO, "label=none": syscall.ENXIO, "label=boot": syscall.EINVAL, "foo": syscall.EINVAL, "foo=1": syscall.EINVAL,
	} {
		if _, err := blockdev.FindPartition(dev, sel); !errors.Is(err, want) {
			t.Errorf("%s: %v", sel, err)
		}
	}
}

func TestPartitionsMBR(t *testing.T) {
	dev := sfdisk(t, "label: dos\nlabel-id: 0x1234abcd\nsize=8M, type=83\nsize=30M, type=5\nsize=4M, type=83\nsize=5M, type=82\n")
	ps, err := blockdev.ReadPartitions(dev)
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int64
	for _, p := range ps {
		sizes = append(sizes, int64(p.Number), p.Size>>20)
	}
	want := []int64{1, 8, 3, 4, 4, 5}
	if len(sizes) != len(want) {
		t.Fatalf("partitions %+v", ps)
	}
	for i := range want {
		if sizes[i] != want[i] {
			t.Errorf("partitions %+v", ps)
			break
		}
	}
	if p, err := blockdev.FindPartition(dev, "uuid=1234abcd-03"); err != nil || p.Number != 3 {
		t.Errorf("by uuid: %+v, %v", p, err)
	}
}

func TestNoPartitions(t *testing.T) {
	for _, size := range []int64{0, 100, 1 << 20} {
		if _, err := blockdev.ReadPartitions(blockdev.NewMem(size)); !errors.Is(err, blockdev.ErrNoTable) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func FuzzPartitions(f *testing.F) {
	f.Add([]byte("EFI PART"), int64(512))
	f.Add([]byte{0x55, 0xaa}, int64(510))
	f.Fuzz(func(t *testing.T, b []byte, at int64) {
		dev := blockdev.NewMem(1 << 20)
		dev.WriteAt([]byte{0x55, 0xaa}, 510)
		if at < 0 || at > 1<<20 {
			return
		}
		dev.WriteAt(b[:min(len(b), int(1<<20-at))], at)
		ps, err := blockdev.ReadPartitions(dev)
		for _, p := range ps {
			if p.Start < 0 || p.Size <= 0 || p.Start+p.Size > dev.Size() {
				t.Errorf("%+v lies outside", p)
			}
		}
		if err == nil && len(ps) == 0 && string(b) == "" {
			t.Error("no partitions and no error")
		}
	})
}
