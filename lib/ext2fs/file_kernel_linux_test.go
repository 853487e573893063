package ext2fs

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// kernelFile is a file as the kernel left it.
type kernelFile struct {
	ino  ondisk.Ino
	data []byte
	segs []int64 // SEEK_DATA and SEEK_HOLE, in turns
}

// kernelFiles has the kernel write files of many shapes.
func kernelFiles(t *testing.T, img *testfs.Image, seed uint64) []kernelFile {
	t.Helper()
	m := testfs.KernelMount(t, img, "")
	rnd := rand.New(rand.NewPCG(seed, 8))
	var out []kernelFile
	for i := range 6 {
		path := filepath.Join(m.Dir, "k"+strconv.Itoa(i))
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		n := []int{3, 40, 400, 400, 900, 20}[i]
		for range n {
			off := rnd.Int64N(int64(n) * 6000)
			p := make([]byte, rnd.IntN(9000)+1)
			for k := range p {
				p[k] = byte(rnd.Uint32())
			}
			if _, err := f.WriteAt(p, off); err != nil {
				t.Fatal(err)
			}
			switch rnd.IntN(12) {
			case 0:
				_ = unix.Fallocate(int(f.Fd()), 0, rnd.Int64N(int64(n)*6000), 30000)
			case 1:
				_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, rnd.Int64N(int64(n)*6000), 20000)
			case 2:
				_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE, rnd.Int64N(int64(n)*6000), 20000)
			case 3:
				_ = f.Sync()
			}
		}
		f.Close()
	}
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	// Again, with nothing in the page cache: its pages count as data.
	m = testfs.KernelMount(t, img, "ro")
	for i := range 6 {
		path := filepath.Join(m.Dir, "k"+strconv.Itoa(i))
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		k := kernelFile{ino: ondisk.Ino(st.Sys().(*syscall.Stat_t).Ino)}
		for off := int64(0); ; {
			d, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
			if err != nil {
				break
			}
			if off, err = unix.Seek(int(f.Fd()), d, unix.SEEK_HOLE); err != nil {
				t.Fatal(err)
			}
			k.segs = append(k.segs, d, off)
			if off == st.Size() {
				break
			}
		}
		if k.data, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		f.Close()
		out = append(out, k)
	}
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestKernelFiles reads what the kernel wrote, and takes it apart.
func TestKernelFiles(t *testing.T) {
	testfs.NeedRoot(t)
	for _, spec := range modelSpecs() {
		t.Run(spec.Name, func(t *testing.T) {
			if err := testfs.Supported(t, spec); err != nil {
				t.Skip(err)
			}
			img := testfs.Mke2fs(t, spec)
			files := kernelFiles(t, img, 3)
			fs := openImage(t, img, Options{})
			for i, k := range files {
				ip, err := fs.Iget(k.ino)
				if err != nil {
					t.Fatal(err)
				}
				p := make([]byte, len(k.data)+1)
				n, err := ip.ReadAt(p, 0)
				if err != io.EOF || !bytes.Equal(p[:n], k.data) {
					t.Fatalf("file %d: %d bytes of %d, %v", i, n, len(k.data), err)
				}
				var segs []int64
				for off := int64(0); ; {
					d, err := ip.SeekData(off)
					if err != nil {
						break
					}
					if off, err = ip.SeekHole(d); err != nil {
						t.Fatal(err)
					}
					segs = append(segs, d, off)
					if off == ip.Size() {
						break
					}
				}
				if !slices.Equal(segs, k.segs) {
					t.Errorf("file %d has data at %v, the kernel says %v", i, segs, k.segs)
				}
				if err := ip.Fallocate(FallocPunchHole|FallocKeepSize, 10000, 50000); err != nil {
					t.Fatal(err)
				}
				ip.mu.Lock()
				err = ip.truncateTo(int64(len(k.data) / 2))
				ip.mu.Unlock()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := ip.WriteAt([]byte("appended"), int64(len(k.data)/2)); err != nil {
					t.Fatal(err)
				}
				ip.Put()
			}
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
