package ext2fs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// treeDepth returns the depth of the file's extent tree.
func treeDepth(ip *Inode) int {
	return int(endian.View[ondisk.ExtentHeader](ip.raw.Base().Block[:]).Depth.Get())
}

// TestDeepTree grows a tree block by block in a random order, to four levels,
// and takes it apart again, in another order.
func TestDeepTree(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "deep", BlockSize: 1024, Size: 128 << 20})
	ino := makeFiles(t, img, 1)[0]
	fs := openImage(t, img, Options{})
	ip, err := fs.Iget(ino)
	if err != nil {
		t.Fatal(err)
	}
	const blocks = 40000 // every second one of twice as many
	rnd := rand.New(rand.NewPCG(3, 4))
	order := rnd.Perm(blocks)
	p := make([]byte, 1024)
	put := func(b int) []byte {
		for i := range p {
			p[i] = byte(b + i*(b>>8+1))
		}
		return p
	}
	for _, b := range order {
		if _, err := ip.WriteAt(put(b), int64(b)*2048); err != nil {
			t.Fatal(err)
		}
	}
	if d := treeDepth(ip); d < 3 {
		t.Errorf("depth %d", d)
	}
	check := func(there func(b int) bool) {
		t.Helper()
		got := make([]byte, 1024)
		for b := range blocks {
			if _, err := ip.ReadAt(got, int64(b)*2048); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if want := put(b); there(b) && !bytes.Equal(got, want) || !there(b) && len(bytes.Trim(got, "\x00")) > 0 {
				t.Fatalf("block %d differs", b)
			}
		}
	}
	check(func(int) bool { return true })
	gone := make([]bool, blocks)
	for _, b := range rnd.Perm(blocks)[:blocks-100] {
		if err := ip.Fallocate(FallocPunchHole|FallocKeepSize, int64(b)*2048, 1024); err != nil {
			t.Fatal(err)
		}
		gone[b] = true
	}
	check(func(b int) bool { return !gone[b] })
	ip.mu.Lock()
	err = ip.truncateTo(0)
	ip.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if d, n := treeDepth(ip), ip.blocksUsed(); d != 0 || n != 0 {
		t.Errorf("an empty file of depth %d, %d blocks", d, n)
	}
	ip.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestIndirectLevels writes at each level of indirect blocks, and frees in parts.
func TestIndirectLevels(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "levels", Type: "ext2", BlockSize: 1024, Size: 64 << 20})
	ino := makeFiles(t, img, 1)[0]
	fs := openImage(t, img, Options{})
	ip, err := fs.Iget(ino)
	if err != nil {
		t.Fatal(err)
	}
	const n = 256
	at := []int64{0, 11, 12, 12 + n - 1, 12 + n, 12 + n + n*n - 1, 12 + n + n*n, 12 + n + n*n + n*n*n - 1}
	p := bytes.Repeat([]byte{7}, 1024)
	for _, b := range at {
		if _, err := ip.WriteAt(p, b*1024); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ip.WriteAt(p, (at[len(at)-1]+1)*1024); !errors.Is(err, syscall.EFBIG) {
		t.Fatalf("beyond the last block: %v", err)
	}
	used := ip.blocksUsed()
	for i := len(at) - 1; i >= 0; i-- {
		ip.mu.Lock()
		err := ip.truncateTo(at[i] * 1024)
		ip.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if u := ip.blocksUsed(); u >= used {
			t.Fatalf("truncated to block %d: %d blocks", at[i], u)
		} else {
			used = u
		}
	}
	if used != 0 {
		t.Fatalf("%d blocks left", used)
	}
	for _, b := range at {
		if _, err := ip.WriteAt(p, b*1024); err != nil {
			t.Fatal(err)
		}
	}
	if err := ip.Fallocate(FallocPunchHole|FallocKeepSize, 11*1024, 1<<35); err != nil {
		t.Fatal(err)
	}
	if u := ip.blocksUsed(); u != 1 {
		t.Fatalf("%d blocks left", u)
	}
	ip.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestLargeOffsets writes where the numbers are largest.
func TestLargeOffsets(t *testing.T) {
	for _, bs := range []int{1024, 4096, 65536} {
		t.Run(fmt.Sprint(bs), func(t *testing.T) {
			size := int64(64 << 20)
			if bs > 4096 {
				size = 256 << 20
			}
			img := testfs.Mke2fs(t, testfs.Spec{Name: "large", BlockSize: bs, Size: size, Features: "^large_file"})
			ino := makeFiles(t, img, 1)[0]
			fs := openImage(t, img, Options{})
			ip, err := fs.Iget(ino)
			if err != nil {
				t.Fatal(err)
			}
			most := ip.MaxBytes()
			if want := int64(1<<32-1) * int64(bs); most != want {
				t.Errorf("largest file %d, want %d", most, want)
			}
			if n, err := ip.WriteAt([]byte("end"), most-2); n != 2 || err != nil {
				t.Fatal(n, err)
			}
			if _, err := ip.WriteAt([]byte("x"), most); !errors.Is(err, syscall.EFBIG) {
				t.Fatal(err)
			}
			for _, off := range []int64{0, 1<<31 - 1, 1<<32 + 5} {
				if _, err := ip.WriteAt([]byte("here"), off); err != nil {
					t.Fatal(err)
				}
			}
			b := make([]byte, 2)
			if n, err := ip.ReadAt(b, most-2); n != 2 || string(b) != "en" {
				t.Fatal(n, err, b)
			}
			if d, err := ip.SeekData(1 << 33); err != nil || d != most-int64(bs) {
				t.Fatal(d, err)
			}
			if err := ip.Fallocate(FallocInsert, 0, int64(bs)); !errors.Is(err, syscall.EFBIG) {
				t.Fatal(err)
			}
			if err := ip.Fallocate(0, most, 1); !errors.Is(err, syscall.EFBIG) {
				t.Fatal(err)
			}
			ip.Put()
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestFull fills a file system by several writers: what was accepted is there,
// and all space comes back.
func TestFull(t *testing.T) {
	for _, spec := range []testfs.Spec{
		{Name: "ext4", Size: 32 << 20},
		{Name: "ext2-1k", Type: "ext2", BlockSize: 1024, Size: 16 << 20},
		{Name: "bigalloc", Features: "bigalloc", Cluster: 65536, Size: 128 << 20, Inodes: 8192},
	} {
		t.Run(spec.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, spec)
			inos := makeFiles(t, img, 3)
			fs := openImage(t, img, Options{})
			free := fs.FreeSpace().Avail
			var ips []*Inode
			for _, ino := range inos {
				ip, err := fs.Iget(ino)
				if err != nil {
					t.Fatal(err)
				}
				ips = append(ips, ip)
			}
			for round := range 3 {
				rnd := rand.New(rand.NewPCG(uint64(round), 1))
				ends := make([]int64, len(ips))
				p := make([]byte, 100000)
				full := 0
				for full < 20 {
					i := rnd.IntN(len(ips))
					for k := range p {
						p[k] = byte(int64(k)+ends[i]) ^ byte(i)
					}
					off := ends[i]
					if round == 1 { // holes
						off *= 3
					}
					n, err := ips[i].WriteAt(p[:rnd.IntN(len(p))+1], off)
					ends[i] += int64(n)
					if err != nil {
						if !errors.Is(err, syscall.ENOSPC) {
							t.Fatal(err)
						}
						full++
						if round == 1 {
							break
						}
					}
				}
				if a := fs.FreeSpace().Avail; a > free/20 {
					t.Errorf("full, with %d of %d blocks free", a, free)
				}
				if round != 1 {
					for i, ip := range ips {
						b := make([]byte, ends[i])
						if _, err := ip.ReadAt(b, 0); err != nil && err != io.EOF {
							t.Fatal(err)
						}
						if ip.Size() != ends[i] {
							t.Fatalf("size %d, %d bytes were accepted", ip.Size(), ends[i])
						}
					}
				}
				for _, ip := range ips {
					ip.mu.Lock()
					err := ip.truncateTo(0)
					ip.mu.Unlock()
					if err != nil {
						t.Fatal(err)
					}
				}
				if err := fs.Sync(); err != nil {
					t.Fatal(err)
				}
				if a := fs.FreeSpace().Avail; a != free {
					t.Errorf("round %d: %d blocks free, were %d", round, a, free)
				}
			}
			for _, ip := range ips {
				ip.Put()
			}
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// deepImage returns an image with a file whose tree has two levels, with and
// without checksums.
func deepImage(t testing.TB, features string) (path string, ino ondisk.Ino) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "hostile", BlockSize: 1024, Size: 8 << 20, Features: features, Inodes: 64})
	ino = makeFiles(t, img, 1)[0]
	d, err := blockdev.Open(img.Path, blockdev.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fs, err := Open(d, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ip, err := fs.Iget(ino)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 600 {
		if _, err := ip.WriteAt([]byte{1}, int64(i)*2048); err != nil {
			t.Fatal(err)
		}
	}
	if ip.isExtents() && treeDepth(ip) < 1 {
		t.Fatal("not deep")
	}
	ip.Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "img")
	b, err := os.ReadFile(img.Path)
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, ino
}

// FuzzMapping changes bytes of the root and of one node of a file's mapping, and
// then walks, writes, reshapes and frees the file.
func FuzzMapping(f *testing.F) {
	type base struct {
		data []byte
		ino  ondisk.Ino
	}
	var bases []base
	for _, feat := range []string{"^metadata_csum,^has_journal,^64bit", "^metadata_csum", "^metadata_csum,^extent,^64bit"} {
		path, ino := deepImage(f, feat)
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		bases = append(bases, base{b, ino})
	}
	for i := range bases {
		f.Add(uint8(i), uint8(0), []byte{2, 0xff, 3, 0xff})
		f.Add(uint8(i), uint8(1), []byte{12, 1, 16, 2})
		f.Add(uint8(i), uint8(2), []byte{7, 1, 20, 0x80})
	}
	f.Fuzz(func(t *testing.T, which, where uint8, edits []byte) {
		bs := bases[int(which)%len(bases)]
		dev := blockdev.NewMem(int64(len(bs.data)))
		if _, err := dev.WriteAt(bs.data, 0); err != nil {
			t.Fatal(err)
		}
		fs, err := Open(dev, Options{Errors: ErrorsContinue})
		if err != nil {
			t.Fatal(err)
		}
		defer fs.Close()
		ip, err := fs.Iget(bs.ino)
		if err != nil {
			t.Fatal(err)
		}
		// The place: i_block, or a block of the mapping.
		node := ip.raw.Base().Block[:]
		if where%4 != 0 {
			var blk ondisk.Fsblk
			if ip.isExtents() {
				e, err := ondisk.ExtentIndex(node)
				if err != nil {
					t.Fatal(err)
				}
				blk = e[int(where/4)%len(e)].Leaf()
			} else {
				blk = ondisk.Fsblk(ip.indRoot()[indDirect+int(where/4)%2].Get())
			}
			b, err := fs.cache.Raw(buffer.Block(blk))
			if err != nil {
				t.Fatal(err)
			}
			defer b.Put()
			node = b.Data()
		}
		for i := 0; i+1 < len(edits) && i < 64; i += 2 {
			node[(int(edits[i])|int(where)>>6<<8)%len(node)] = edits[i+1]
		}
		ip.mappingChanged()
		var buf [4096]byte
		lo := uint64(0)
		for range 5000 {
			ip.mapMu.RLock()
			r, err := ip.mapRun(ondisk.Lblk(lo), 0)
			ip.mapMu.RUnlock()
			if err != nil {
				lo++
				continue
			}
			if r.n == 0 || r.state != runHole && !fs.validBlock(r.pblk, r.n) {
				t.Fatalf("run %+v", r)
			}
			if lo += uint64(r.n); lo > uint64(ondisk.MaxLblk) {
				break
			}
		}
		_, _ = ip.ReadAt(buf[:], 100000)
		_, _ = ip.WriteAt(buf[:], 300001)
		_, _ = ip.WriteAt(buf[:], 3000001)
		_ = ip.Fallocate(FallocPunchHole|FallocKeepSize, 200000, 400000)
		_ = ip.Fallocate(FallocCollapse, 1024, 4096)
		_ = ip.Fallocate(FallocInsert, 8192, 4096)
		_ = ip.Fallocate(FallocZeroRange, 500000, 100000)
		_, _ = ip.SeekHole(3)
		ip.mu.Lock()
		_ = ip.truncateTo(5000)
		_ = ip.truncateTo(0)
		ip.mu.Unlock()
		ip.Put()
	})
}
