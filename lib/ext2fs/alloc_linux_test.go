package ext2fs

import (
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// allocSpecs are the images where allocation differs.
func allocSpecs() []testfs.Spec {
	return []testfs.Spec{
		{Name: "ext2", Type: "ext2", BlockSize: 1024, Size: 40 << 20},
		{Name: "ext3", Type: "ext3", Size: 40 << 20},
		{Name: "ext4", Size: 300 << 20},
		{Name: "ext4-uninit", Size: 700 << 20, Extended: "lazy_itable_init=1"},
		{Name: "ext4-uninit-gdt", Size: 300 << 20, Features: "^metadata_csum,uninit_bg", Extended: "lazy_itable_init=1"},
		{Name: "ext4-1k-noflex", BlockSize: 1024, Size: 64 << 20, Features: "^flex_bg,^resize_inode,meta_bg", Extended: "lazy_itable_init=1"},
		{Name: "ext4-bigalloc", Size: 300 << 20, Inodes: 4096, Features: "bigalloc", Cluster: 65536},
		{Name: "ext4-nojournal", Size: 150 << 20, Features: "^has_journal", Extended: "lazy_itable_init=1"},
		{Name: "ext4-64k", BlockSize: 65536, Size: 256 << 20},
		{Name: "ext4-32bit", Size: 150 << 20, Features: "^64bit"},
		{Name: "ext4-sparse2", BlockSize: 1024, Size: 64 << 20, Features: "sparse_super2,^resize_inode"},
	}
}

// TestBlocksThereAndBack allocates all blocks of a file system, in pieces of
// all sizes, frees them again, and has e2fsck compare bitmaps and counts.
func TestBlocksThereAndBack(t *testing.T) {
	for _, spec := range allocSpecs() {
		t.Run(spec.Name, func(t *testing.T) {
			fs := openImage(t, testfs.Mke2fs(t, spec), Options{})
			root, err := fs.Iget(ondisk.RootIno)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Put()
			type piece struct {
				start ondisk.Fsblk
				n     uint32
			}
			var got []piece
			free := fs.free.Load()
			rnd := rand.New(rand.NewPCG(1, 2))
			owner := make(map[ondisk.Fsblk]bool)
			for i := 0; ; i++ {
				want := uint32(1) << rnd.IntN(14)
				start, n, err := fs.reserve(root, ondisk.Fsblk(rnd.Uint64N(uint64(fs.blocks))), want, 1, true)
				if errors.Is(err, syscall.ENOSPC) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if !fs.validBlock(start, n) {
					t.Fatalf("got blocks %d+%d, which are metadata", start, n)
				}
				for b := range n {
					if owner[start+ondisk.Fsblk(b)] {
						t.Fatalf("block %d twice", start+ondisk.Fsblk(b))
					}
					owner[start+ondisk.Fsblk(b)] = true
				}
				if i%5 == 0 {
					fs.unreserve(start, n)
					for b := range n {
						delete(owner, start+ondisk.Fsblk(b))
					}
					continue
				}
				h, err := fs.start(4 * creditsAlloc)
				if err != nil {
					t.Fatal(err)
				}
				if err := fs.commitReserved(h, start, n); err != nil {
					t.Fatal(err)
				}
				if err := h.Stop(); err != nil {
					t.Fatal(err)
				}
				got = append(got, piece{start, n})
			}
			if left := fs.free.Load(); left > fs.pool {
				t.Fatalf("no space with %d of %d clusters free", left, free)
			}
			if r := fs.reserved.Load(); r != 0 {
				t.Fatalf("%d clusters are reserved", r)
			}
			t.Logf("%d clusters in %d pieces", free, len(got))
			if err := fs.Sync(); err != nil {
				t.Fatal(err)
			}
			for i, p := range got {
				h, err := fs.start(4 * creditsFree)
				if err != nil {
					t.Fatal(err)
				}
				if err := fs.freeBlocks(h, p.start, p.n, false); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					if s, _, err := fs.reserveNow(p.start, 1, 1, 0); err == nil {
						if s == p.start {
							t.Fatal("a freed block was given out before its commit")
						}
						fs.unreserve(s, fs.clusterRatio)
					}
				}
				if err := h.Stop(); err != nil {
					t.Fatal(err)
				}
			}
			if err := fs.Sync(); err != nil {
				t.Fatal(err)
			}
			if fs.free.Load() != free || fs.pending.Load() != 0 {
				t.Fatalf("%d clusters free, %d pending; %d were free", fs.free.Load(), fs.pending.Load(), free)
			}
			// A block that is freed twice is an inconsistency.
			h, err := fs.start(creditsFree)
			if err != nil {
				t.Fatal(err)
			}
			if err := fs.freeBlocks(h, got[0].start, got[0].n, false); !errors.Is(err, ondisk.EUCLEAN) {
				t.Fatalf("a double free: %v", err)
			}
			h.Stop()
			fs.errMu.Lock()
			fs.errCount, fs.errSaved = 0, 0 // of our own making
			fs.errMu.Unlock()
		})
	}
}

// TestInodesThereAndBack allocates all inodes and frees them again.
func TestInodesThereAndBack(t *testing.T) {
	for _, spec := range allocSpecs() {
		t.Run(spec.Name, func(t *testing.T) {
			spec.Inodes = 4096
			fs := openImage(t, testfs.Mke2fs(t, spec), Options{})
			root, err := fs.Iget(ondisk.RootIno)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Put()
			free := fs.freeIno.Load()
			var mu sync.Mutex
			var wg sync.WaitGroup
			seen := make(map[ondisk.Ino]*Inode)
			for w := range 4 {
				wg.Go(func() {
					for i := 0; ; i++ {
						mode := uint16(ondisk.ModeReg)
						if (i+w)%3 == 0 {
							mode = ondisk.ModeDir
						}
						h, err := fs.start(creditsIalloc + creditsInode)
						if err != nil {
							t.Error(err)
							return
						}
						ip, err := fs.ialloc(h, root, mode|0o600)
						if err != nil {
							if !errors.Is(err, syscall.ENOSPC) {
								t.Error(err)
							}
							h.Stop()
							return
						}
						ip.mapMu.Lock()
						err = ip.store(h)
						ip.mapMu.Unlock()
						if err == nil {
							err = h.Stop()
						}
						mu.Lock()
						if err != nil || seen[ip.ino] != nil {
							t.Errorf("inode %d: %v", ip.ino, err)
						}
						seen[ip.ino] = ip
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			if int64(len(seen)) != free || fs.freeIno.Load() != 0 {
				t.Fatalf("got %d inodes of %d, %d are left", len(seen), free, fs.freeIno.Load())
			}
			for _, ip := range seen {
				h, err := fs.start(creditsIfree)
				if err != nil {
					t.Fatal(err)
				}
				if err := fs.ifree(h, ip); err != nil {
					t.Fatal(err)
				}
				if err := h.Stop(); err != nil {
					t.Fatal(err)
				}
				ip.Put()
			}
			if fs.freeIno.Load() != free {
				t.Fatalf("%d inodes are free, not %d", fs.freeIno.Load(), free)
			}
			if _, err := fs.Iget(ondisk.Ino(fs.inodes)); !errors.Is(err, syscall.ESTALE) {
				t.Fatalf("a freed inode: %v", err)
			}
		})
	}
}
