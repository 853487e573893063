package ext2fs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestFileStress has several writers on the same two files, each on pieces of
// its own that share blocks and clusters with the others', beside readers,
// syncs, and changes of the mapping where nobody writes.
func TestFileStress(t *testing.T) {
	for _, spec := range []testfs.Spec{
		{Name: "ext4"},
		{Name: "ext4-1k-small-journal", BlockSize: 1024, Journal: "size=1"},
		{Name: "bigalloc", Features: "bigalloc", Cluster: 16384, Size: 128 << 20, Inodes: 8192},
		{Name: "ext3", Type: "ext3", BlockSize: 1024},
	} {
		t.Run(spec.Name, func(t *testing.T) { stress(t, spec) })
	}
}

func stress(t *testing.T, spec testfs.Spec) {
	img := testfs.Mke2fs(t, spec)
	inos := makeFiles(t, img, 2)
	fs := openImage(t, img, Options{})
	const (
		workers = 4
		piece   = 1536 // bytes: not a block
		pieces  = 1200
		base    = 4 << 20 // below it, space for reshaping
	)
	last := make([][pieces]uint32, len(inos)) // what was written to a piece, 0 if nothing
	fill := func(p []byte, k int, v uint32) {
		for i := 0; i < len(p); i += 8 {
			binary.LittleEndian.PutUint32(p[i:], v)
			binary.LittleEndian.PutUint32(p[i+4:], uint32(k+i))
		}
	}
	var wg sync.WaitGroup
	var ips []*Inode
	for _, ino := range inos {
		ip, err := fs.Iget(ino)
		if err != nil {
			t.Fatal(err)
		}
		ips = append(ips, ip)
	}
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(uint64(w), 9))
			p, q := make([]byte, piece), make([]byte, piece)
			for i := range 400 {
				f := rnd.IntN(len(ips))
				k := rnd.IntN(pieces/workers)*workers + w
				off := int64(base + k*piece)
				if v := last[f][k]; v != 0 {
					n, err := ips[f].ReadAt(q, off)
					fill(p, k, v)
					if n != piece || err != nil && err != io.EOF || !bytes.Equal(p, q) {
						t.Errorf("piece %d of file %d differs: %d, %v", k, f, n, err)
						return
					}
				}
				v := uint32(i + 1)
				fill(p, k, v)
				if n, err := ips[f].WriteAt(p, off); n != piece || err != nil {
					t.Error(n, err)
					return
				}
				last[f][k] = v
				if rnd.IntN(40) == 0 {
					if err := ips[f].Fsync(w%2 == 0); err != nil {
						t.Error(err)
					}
				}
			}
		}()
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		rnd := rand.New(rand.NewPCG(77, 9))
		for range 150 {
			ip := ips[rnd.IntN(len(ips))]
			mode := [...]uint32{0, FallocKeepSize, FallocPunchHole | FallocKeepSize, FallocZeroRange | FallocKeepSize}[rnd.IntN(4)]
			off := rnd.Int64N(base)
			n := min(rnd.Int64N(base/8)+1, base-off)
			if err := ip.Fallocate(mode, off, n); err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
				t.Error(err)
			}
			if _, err := ip.SeekHole(0); err != nil && !errors.Is(err, syscall.ENXIO) {
				t.Error(err)
			}
			_ = ip.Fiemap(0, 1<<40, func(FiemapExtent) bool { return true })
		}
	}()
	wg.Wait()
	if t.Failed() {
		return
	}
	p, q := make([]byte, piece), make([]byte, piece)
	for f, ip := range ips {
		for k := range pieces {
			off := int64(base + k*piece)
			n, err := ip.ReadAt(q, off)
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			clear(p)
			if v := last[f][k]; v != 0 {
				fill(p, k, v)
			}
			if !bytes.Equal(q[:n], p[:n]) {
				t.Fatalf("at the end piece %d of file %d differs", k, f)
			}
		}
		ip.Put()
	}
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}
