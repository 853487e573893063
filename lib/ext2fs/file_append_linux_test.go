package ext2fs

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestParallelAppend has writers extend one file at the same time, in any order,
// by whole blocks and by parts of them, as the kernel writes a stream back, and
// allocate what lies behind the end.
func TestParallelAppend(t *testing.T) {
	for _, spec := range []testfs.Spec{
		{Name: "ext4"},
		{Name: "ext4-1k-small-journal", BlockSize: 1024, Journal: "size=1"},
		{Name: "bigalloc", Features: "bigalloc", Cluster: 16384, Size: 128 << 20, Inodes: 8192},
		{Name: "ext3", Type: "ext3", BlockSize: 1024},
		{Name: "ext2", Type: "ext2"},
		{Name: "inline", Features: "inline_data"},
	} {
		t.Run(spec.Name, func(t *testing.T) { parallelAppend(t, spec) })
	}
}

func parallelAppend(t *testing.T, spec testfs.Spec) {
	const (
		workers = 4
		piece   = 13 << 10 // so that pieces share blocks
		pieces  = 600
	)
	img := testfs.Mke2fs(t, spec)
	inos := makeFiles(t, img, 1)
	fs := openImage(t, img, Options{})
	ip, err := fs.Iget(inos[0])
	if err != nil {
		t.Fatal(err)
	}
	fill := func(p []byte, k int) {
		for i := 0; i < len(p); i += 4 {
			binary.LittleEndian.PutUint32(p[i:], uint32(k*piece+i))
		}
	}
	// A window of the order in which the pieces come: what lies behind one that
	// is written may come before or after it.
	order := make([]int, pieces)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range order {
		order[i] = i
	}
	for i := 0; i < pieces; i += 8 {
		part := order[i:min(i+8, pieces)]
		rnd.Shuffle(len(part), func(a, b int) { part[a], part[b] = part[b], part[a] })
	}
	next := make(chan int)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(uint64(w), 5))
			p := make([]byte, piece)
			for k := range next {
				fill(p, k)
				for at := 0; at < piece; {
					n := piece - at
					switch in := (k*piece + at) % fs.blockSize; {
					case in != 0: // to the end of the block
						n = min(n, fs.blockSize-in)
					case rnd.IntN(4) == 0:
						n = 1 + rnd.IntN(n)
					case n > fs.blockSize:
						n -= n % fs.blockSize
					}
					if got, err := ip.WriteAt(p[at:at+n], int64(k*piece+at)); got != n || err != nil {
						t.Errorf("piece %d: %d of %d bytes: %v", k, got, n, err)
						break
					}
					at += n
				}
				var err error
				switch rnd.IntN(30) {
				case 0:
					err = ip.Fsync(true)
				case 1:
					if ip.isExtents() {
						err = ip.Fallocate(FallocKeepSize, int64(k*piece), 10*piece)
					}
				}
				if err != nil {
					t.Errorf("piece %d: %v", k, err)
				}
				q := make([]byte, piece)
				if n, err := ip.ReadAt(q, int64(k*piece)); n != piece || err != nil && err != io.EOF || !bytes.Equal(p, q) {
					t.Errorf("piece %d differs at once: %d, %v", k, n, err)
				}
			}
		}()
	}
	for _, k := range order {
		next <- k
	}
	close(next)
	wg.Wait()
	if size := ip.Size(); size != pieces*piece {
		t.Errorf("size is %d, not %d", size, pieces*piece)
	}
	p, q := make([]byte, piece), make([]byte, piece)
	for k := range pieces {
		fill(p, k)
		if n, err := ip.ReadAt(q, int64(k*piece)); n != piece || err != nil && err != io.EOF || !bytes.Equal(p, q) {
			t.Errorf("piece %d differs at the end: %d, %v", k, n, err)
		}
	}
	ip.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}
