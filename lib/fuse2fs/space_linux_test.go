package fuse2fs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
)

// ways are what a program may do to learn whether what it has written is there.
// Each writes n bytes to path, more than there is room for if the last one says
// so, and returns the first error it is told.
var ways = []struct {
	name  string
	write func(path string, data []byte) error
}{
	{"close", func(path string, data []byte) error {
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		_, err = writeAll(fd, data)
		return errors.Join(err, unix.Close(fd))
	}},
	{"fsync", func(path string, data []byte) error {
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = writeAll(fd, data)
		return errors.Join(err, unix.Fsync(fd))
	}},
	{"fsync of another", func(path string, data []byte) error {
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		other, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(other)
		_, err = writeAll(fd, data)
		return errors.Join(err, unix.Fdatasync(other))
	}},
	{"O_SYNC", func(path string, data []byte) error {
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY|unix.O_SYNC|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = writeAll(fd, data)
		return err
	}},
	{"O_DIRECT", func(path string, data []byte) error {
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		buf, err := unix.Mmap(-1, 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		defer unix.Munmap(buf)
		copy(buf, data)
		_, err = writeAll(fd, buf)
		return err
	}},
	{"msync", func(path string, data []byte) error {
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Ftruncate(fd, int64(len(data))); err != nil {
			return err
		}
		m, err := unix.Mmap(fd, 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		defer unix.Munmap(m)
		copy(m, data)
		return unix.Msync(m, unix.MS_SYNC)
	}},
}

func writeAll(fd int, data []byte) (n int, err error) {
	for n < len(data) && err == nil {
		var k int
		k, err = unix.Write(fd, data[n:min(n+100<<10, len(data))])
		n += max(k, 0)
	}
	return n, err
}

// TestNoSpace fills a file system file by file in each way that a program may be
// told of it: the error comes, and what was not said to be lost is there.
//
// The kernel's ext4 says it at write(2), having reserved the blocks. A FUSE
// server is not asked before the kernel writes back.
func TestNoSpace(t *testing.T) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			img := testfs.Mke2fs(t, testfs.Spec{Name: "full", Size: 16 << 20, Journal: "size=4"})
			m := mount(t, img, "")
			data := bytes.Repeat([]byte("contents of a file "), 40000)[:700<<10]
			good := 0
			for {
				copy(data, fmt.Sprintf("file %05d", good))
				err := w.write(filepath.Join(m.Dir, fmt.Sprint("f", good)), data)
				if errors.Is(err, unix.ENOSPC) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if good++; good*len(data) > 16<<20 {
					t.Fatal("more was accepted than there is room for")
				}
			}
			if good < 5 {
				t.Errorf("full after %d files", good)
			}
			if err := os.Remove(filepath.Join(m.Dir, fmt.Sprint("f", good))); err != nil {
				t.Fatal(err)
			}
			small := []byte("there is room again")
			if err := w.write(filepath.Join(m.Dir, "again"), append(small, make([]byte, 4096-len(small))...)); err != nil {
				t.Errorf("with the file removed: %v", err)
			}
			if err := m.Unmount(); err != nil {
				t.Fatal(err)
			}
			k := testfs.KernelMount(t, img, "ro")
			for i := range good {
				copy(data, fmt.Sprintf("file %05d", i))
				got, err := os.ReadFile(filepath.Join(k.Dir, fmt.Sprint("f", i)))
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("file %d was accepted and is not there (%v)", i, err)
				}
			}
			if got, err := os.ReadFile(filepath.Join(k.Dir, "again")); err != nil || !bytes.HasPrefix(got, small) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// TestNoSpaceAllocated: what fallocate has given can be written whatever else
// fills the file system, in any order.
func TestNoSpaceAllocated(t *testing.T) {
	for _, s := range []testfs.Spec{
		{Name: "extents", Size: 16 << 20, Journal: "size=4"},
		{Name: "extents-1k", BlockSize: 1024, Size: 16 << 20, Journal: "size=1"},
	} {
		t.Run(s.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, s)
			m := mount(t, img, "")
			fd, err := unix.Open(filepath.Join(m.Dir, "allocated"), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			const size = 4 << 20
			if err := unix.Fallocate(fd, 0, 0, size); err != nil {
				t.Fatal(err)
			}
			junk := make([]byte, 64<<10)
			for i := 0; ; i++ {
				err := ways[1].write(filepath.Join(m.Dir, fmt.Sprint("f", i)), junk)
				if errors.Is(err, unix.ENOSPC) {
					if len(junk) == 64<<10 {
						junk = junk[:1024]
						continue
					}
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			block := bytes.Repeat([]byte("written "), 512)
			const stride = 5 * 4096 // extents between unwritten ones
			for _, first := range []int64{0, 2 * 4096, 4096} {
				for off := first; off+4096 <= size; off += stride {
					if _, err := unix.Pwrite(fd, block, off); err != nil {
						t.Fatalf("write at %d: %v", off, err)
					}
				}
				if err := unix.Fsync(fd); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Close(fd); err != nil {
				t.Fatal(err)
			}
			if err := m.Unmount(); err != nil {
				t.Fatal(err)
			}
			k := testfs.KernelMount(t, img, "ro")
			got, err := os.ReadFile(filepath.Join(k.Dir, "allocated"))
			if err != nil || len(got) != size {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			for off := 0; off+4096 <= size; off += stride {
				if !bytes.Equal(got[off:off+4096], block) || !bytes.Equal(got[off+3*4096:off+4*4096], make([]byte, 4096)) {
					t.Fatalf("contents at %d", off)
				}
			}
		})
	}
}
