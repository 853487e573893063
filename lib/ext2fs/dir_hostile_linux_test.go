package ext2fs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// memImage copies an image into memory.
func memImage(t testing.TB, img *testfs.Image) *blockdev.Mem {
	t.Helper()
	b, err := os.ReadFile(img.Path)
	if err != nil {
		t.Fatal(err)
	}
	m := blockdev.NewMem(int64(len(b)))
	if _, err := m.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return m
}

// filledDir returns an image in memory whose folder "d" has n names, and where
// the blocks of d lie.
func filledDir(t testing.TB, s testfs.Spec, n int) (*blockdev.Mem, []ondisk.Fsblk) {
	t.Helper()
	mem := memImage(t, dirImage(t, s))
	fs, err := Open(mem, Options{})
	if err != nil {
		t.Fatal(err)
	}
	dp, files := openDir(t, fs)
	m := &dirModel{t: t, fs: fs, dp: dp, names: map[string]ondisk.Ino{}}
	for i := range n {
		if err := m.add(dirName(i, 30), files[0].ino); err != nil {
			t.Fatal(err)
		}
	}
	_, blocks := dp.dirState()
	var at []ondisk.Fsblk
	for l := range blocks {
		b, err := dp.dirRead(l)
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, ondisk.Fsblk(b.Block()))
		b.Put()
	}
	dp.Put()
	files[0].Put()
	files[1].Put()
	if err := fs.Close(); err != nil {
		t.Fatal(err)
	}
	return mem, at
}

// FuzzDir damages the blocks of an indexed directory, checksums made right
// again, and uses it: nothing may panic, hang or run on for ever.
func FuzzDir(f *testing.F) {
	type base struct {
		mem *blockdev.Mem
		at  []ondisk.Fsblk
		sum bool
	}
	var bases []base
	for _, features := range []string{"^has_journal,large_dir", "^has_journal,^metadata_csum"} {
		mem, at := filledDir(f, testfs.Spec{BlockSize: 1024, Size: 2 << 20, Features: features, Inodes: 64}, 300)
		bases = append(bases, base{mem, at, features == "^has_journal,large_dir"})
	}
	f.Add([]byte{0, 0, 30, 2, 1, 0, 36, 9, 0, 34, 200})
	f.Add([]byte{1, 3, 4, 0, 3, 6, 255, 5, 200, 1, 0, 40, 0})
	f.Add([]byte{0, 0, 32, 255, 0, 34, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) == 0 {
			return
		}
		ba := bases[int(in[0])%len(bases)]
		mem := ba.mem.Clone()
		seed := uint32(0)
		if ba.sum {
			fs, err := Open(mem, Options{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			dp, files := openDir(t, fs)
			seed = dp.seed
			dp.Put()
			files[0].Put()
			files[1].Put()
			fs.Close()
		}
		blk := make([]byte, 1024)
		// Three bytes a change: the block, where in it (in its first 256 or, for
		// odd blocks of the list, anywhere by words), what.
		for p := in[1:]; len(p) >= 3; p = p[3:] {
			off := int64(ba.at[int(p[0])%len(ba.at)]) << 10
			if _, err := mem.ReadAt(blk, off); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			i := int(p[1])
			if p[0]&0x80 != 0 {
				i *= 4
			}
			blk[i] = p[2]
			if ba.sum {
				ondisk.SealDirBlock(blk, seed)
			}
			if _, err := mem.WriteAt(blk, off); err != nil {
				t.Fatal(err)
			}
		}
		fs, err := Open(mem, Options{Errors: ErrorsContinue})
		if err != nil {
			t.Fatal(err)
		}
		defer fs.Close()
		dp, files := openDir(t, fs)
		defer files[0].Put()
		defer files[1].Put()
		defer dp.Put()
		ok := func(err error) {
			var e syscall.Errno
			if err != nil && !errors.As(err, &e) {
				t.Fatalf("an error that is no errno: %v", err)
			}
		}
		for round := range 2 {
			most := len(ba.at)*1024/ondisk.DirentMin + 3000
			pos, n := uint64(0), 0
			for {
				before := pos
				err := fs.Readdir(dp, pos, func(name []byte, ino ondisk.Ino, _ uint8, next uint64) bool {
					if next <= pos || len(name) == 0 {
						t.Fatalf("position %d after %d", next, pos)
					}
					pos = next
					n++
					return n%13 != 0
				})
				ok(err)
				if n > most {
					t.Fatalf("%d names", n)
				}
				if err != nil || pos == before {
					break
				}
			}
			_, err := fs.dirEmpty(dp)
			ok(err)
			for i := range 40 {
				name := []byte(dirName(i*7, 30))
				_, _, err := fs.dirLookup(dp, name)
				ok(err)
				h, err := fs.start(fs.dirAddCredits(dp) + 10)
				if err != nil {
					ok(err)
					return
				}
				if i&1 == round {
					ok(fs.dirRemove(h, dp, name))
				} else {
					ok(fs.dirAdd(h, dp, fmt.Appendf(nil, "%d-%d-%s", i, round, name), files[0].ino, ondisk.FTReg))
				}
				h.Stop()
			}
		}
	})
}

// TestDirNoSpace fills a small device with directory blocks: an insertion that
// fails leaves the directory as it was, and what is removed makes room again.
func TestDirNoSpace(t *testing.T) {
	for _, s := range []testfs.Spec{
		{Name: "index", BlockSize: 1024, Size: 1 << 20, Inodes: 16, Features: "^has_journal,^resize_inode"},
		{Name: "linear", BlockSize: 1024, Size: 1 << 20, Inodes: 16, Features: "^has_journal,^resize_inode,^dir_index"},
		{Name: "inline", BlockSize: 1024, Size: 1 << 20, Inodes: 16, Features: "^has_journal,^resize_inode,inline_data"},
		{Name: "indirect", Type: "ext2", BlockSize: 1024, Size: 1 << 20, Inodes: 16, Features: "^resize_inode"},
	} {
		t.Run(s.Name, func(t *testing.T) {
			img := dirImage(t, s)
			fs := openImage(t, img, Options{})
			dp, files := openDir(t, fs)
			m := &dirModel{t: t, fs: fs, dp: dp, names: map[string]ondisk.Ino{}}
			full := 0
			for i := 0; full < 20; i++ {
				switch err := m.add(dirName(i, 230), files[i&1].ino); {
				case errors.Is(err, syscall.ENOSPC):
					if full++; full%5 == 0 {
						m.check()
						for j := i - 300; j < i; j += 3 {
							if _, ok := m.names[dirName(j, 230)]; ok {
								m.remove(dirName(j, 230))
							}
						}
					}
				case err != nil:
					t.Fatal(err)
				case i > 100000:
					t.Fatal("never full")
				}
			}
			m.check()
			m.setLinks(files)
			files[0].Put()
			files[1].Put()
			dp.Put()
			if n := fs.errCount; n != 0 {
				t.Errorf("%d inconsistencies", n)
			}
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestDirModel changes directories at random from the first entry on, through
// all their forms, under a reader.
func TestDirModel(t *testing.T) {
	for _, c := range dirCases() {
		t.Run(c.Name, func(t *testing.T) {
			img := dirImage(t, c.Spec)
			fs := openImage(t, img, Options{})
			dp, files := openDir(t, fs)
			m := &dirModel{t: t, fs: fs, dp: dp, names: map[string]ondisk.Ino{}}
			for seed := range uint64(4) {
				m.run(seed, 1500, files[seed&1].ino, c.maxLen)
				m.check()
			}
			for name := range m.names {
				m.remove(name)
			}
			m.check()
			m.setLinks(files)
			files[0].Put()
			files[1].Put()
			dp.Put()
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestDirParallel has readers and finders at work while a directory changes:
// what stays there is always found, and read once.
func TestDirParallel(t *testing.T) {
	img := dirImage(t, testfs.Spec{BlockSize: 1024, Size: 32 << 20})
	fs := openImage(t, img, Options{})
	dp, files := openDir(t, fs)
	m := &dirModel{t: t, fs: fs, dp: dp, names: map[string]ondisk.Ino{}}
	const stay = 200
	keep := func(i int) string { return fmt.Sprintf("stays-%d", i) }
	for i := range stay {
		if err := m.add(keep(i), files[1].ino); err != nil {
			t.Fatal(err)
		}
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !done.Load(); i = (i + 1) % stay {
			dp.mu.RLock()
			ino, _, err := fs.dirLookup(dp, []byte(keep(i)))
			dp.mu.RUnlock()
			if err != nil || ino != files[1].ino {
				t.Errorf("lookup: %d, %v", ino, err)
				return
			}
		}
	})
	wg.Go(func() {
		for !done.Load() {
			seen, pos := map[string]bool{}, uint64(0)
			for {
				n := 0
				err := fs.Readdir(dp, pos, func(name []byte, _ ondisk.Ino, _ uint8, next uint64) bool {
					if seen[string(name)] && string(name[:min(5, len(name))]) == "stays" {
						t.Errorf("%q twice", name)
					}
					seen[string(name)] = true
					pos = next
					n++
					return n < 9
				})
				if err != nil {
					t.Error(err)
					return
				}
				if n == 0 {
					break
				}
			}
			for i := range stay {
				if !seen[keep(i)] {
					t.Errorf("%q missed", keep(i))
				}
			}
		}
	})
	for i := range 4000 {
		if err := m.add(dirName(i, 60), files[0].ino); err != nil {
			t.Fatal(err)
		}
		if i >= 2000 {
			m.remove(dirName(i-2000, 60))
		}
	}
	done.Store(true)
	wg.Wait()
	m.check()
	m.setLinks(files)
	files[0].Put()
	files[1].Put()
	dp.Put()
}

// TestDirBadIndex uses a directory whose index is of no use: its entries are
// found all the same. Without checksums it goes on as a linear one.
func TestDirBadIndex(t *testing.T) {
	for _, s := range []testfs.Spec{
		{Name: "nocsum", BlockSize: 1024, Features: "^metadata_csum"},
		{Name: "csum", BlockSize: 1024},
	} {
		t.Run(s.Name, func(t *testing.T) {
			mem, at := filledDir(t, s, 500)
			var v [1]byte
			off := int64(at[0])<<10 + ondisk.DxRootInfoOff + 4
			if _, err := mem.ReadAt(v[:], off); err != nil || v[0] != ondisk.HashHalfMD4 {
				t.Fatalf("hash version %d, %v", v[0], err)
			}
			root := make([]byte, 1024)
			if _, err := mem.ReadAt(root, int64(at[0])<<10); err != nil {
				t.Fatal(err)
			}
			root[ondisk.DxRootInfoOff+4] = 99
			fs, err := Open(mem, Options{Errors: ErrorsContinue})
			if err != nil {
				t.Fatal(err)
			}
			defer fs.Close()
			dp, files := openDir(t, fs)
			defer dp.Put()
			defer files[1].Put()
			defer files[0].Put()
			if s.Name == "csum" {
				ondisk.SealDirBlock(root, dp.seed)
			}
			if _, err := mem.WriteAt(root, int64(at[0])<<10); err != nil {
				t.Fatal(err)
			}
			m := &dirModel{t: t, fs: fs, dp: dp, names: map[string]ondisk.Ino{}}
			for i := range 500 {
				m.names[dirName(i, 30)] = files[0].ino
			}
			m.check()
			err = m.add("further", files[0].ino)
			if s.Name == "csum" {
				if !errors.Is(err, ondisk.EUCLEAN) {
					t.Fatalf("added to a bad index: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if flags, _ := dp.dirState(); fs.isDx(flags) {
				t.Error("the index is still in use")
			}
			m.check()
			m.run(1, 2000, files[0].ino, 40)
			m.check()
			m.setLinks(files)
			if err := fs.Sync(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestDirDotDot moves directories of all forms below another one.
func TestDirDotDot(t *testing.T) {
	for _, c := range dirCases() {
		t.Run(c.Name, func(t *testing.T) {
			fs := openImage(t, dirImage(t, c.Spec), Options{})
			dp, files := openDir(t, fs)
			defer dp.Put()
			defer files[0].Put()
			defer files[1].Put()
			m := &dirModel{t: t, fs: fs, dp: dp, names: map[string]ondisk.Ino{}}
			for i := 0; i <= 2000; i++ {
				if i == 0 || i == 5 || i == 2000 {
					for _, parent := range []ondisk.Ino{files[0].ino, ondisk.RootIno} {
						h, err := fs.start(creditsInode + 1)
						if err != nil {
							t.Fatal(err)
						}
						err = fs.dirSetDotDot(h, dp, parent)
						if e := h.Stop(); err != nil || e != nil {
							t.Fatal(err, e)
						}
						if got, _, err := fs.dirLookup(dp, []byte("..")); got != parent || err != nil {
							t.Fatalf("..: %d, %v; want %d", got, err, parent)
						}
						if got, _, err := fs.dirLookup(dp, []byte(".")); got != dp.ino || err != nil {
							t.Fatalf(".: %d, %v; want %d", got, err, dp.ino)
						}
					}
				}
				if err := m.add(dirName(i, 30), files[0].ino); err != nil {
					t.Fatal(err)
				}
			}
			m.check()
			m.setLinks(files)
		})
	}
}

// TestDirIndirectNoSpace lets a directory need three blocks at once, for itself and
// two of its mapping, where there are fewer: none is lost.
func TestDirIndirectNoSpace(t *testing.T) {
	for left := int64(0); left < 3; left++ {
		img := dirImage(t, testfs.Spec{Name: "indirect", Type: "ext2", BlockSize: 1024, Size: 1 << 20, Inodes: 16, Features: "^resize_inode,^dir_index"})
		fs := openImage(t, img, Options{})
		dp, files := openDir(t, fs)
		m := &dirModel{t: t, fs: fs, dp: dp, names: map[string]ondisk.Ino{}}
		i := 0
		for ; dp.size() < (indDirect+256)<<10; i++ {
			if err := m.add(dirName(i, 230), files[0].ino); err != nil {
				t.Fatal(err)
			}
		}
		fs.rblocks.Store(fs.free.Load() - fs.pool - left)
		err := error(nil)
		for ; err == nil; i++ {
			err = m.add(dirName(i, 230), files[0].ino)
		}
		if !errors.Is(err, syscall.ENOSPC) || dp.size() != (indDirect+256)<<10 {
			t.Fatalf("%d left: %v, size %d", left, err, dp.size())
		}
		m.check()
		m.setLinks(files)
		files[0].Put()
		files[1].Put()
		dp.Put()
		if n := fs.errCount; n != 0 {
			t.Errorf("%d inconsistencies", n)
		}
		if err := fs.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDirSameBlocks looks through a directory that consists of the same blocks over
// and over: that ends where it would have more of them than the file system.
func TestDirSameBlocks(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "same", BlockSize: 1024, Size: 2 << 20, Features: "^has_journal,large_dir,^metadata_csum"})
	img.ExpectDirty("a directory that has blocks several times")
	fs := openImage(t, img, Options{Errors: ErrorsContinue})
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Put()
	dp, err := fs.Mkdir(root, "d", 0o755, Cred{})
	if err != nil {
		t.Fatal(err)
	}
	defer dp.Put()
	const n = 32
	start, _, err := fs.reserve(dp, 0, n, n, true)
	if err != nil {
		t.Fatal(err)
	}
	defer fs.unreserve(start, n)
	empty := make([]byte, fs.blockSize)
	ondisk.InitDirBlock(empty, false)
	for i := range ondisk.Fsblk(n) {
		if _, err := fs.dev.WriteAt(empty, int64(start+i)<<fs.blockBits); err != nil {
			t.Fatal(err)
		}
	}
	h, err := fs.start(1000)
	if err != nil {
		t.Fatal(err)
	}
	dp.mapMu.Lock()
	most := 2 * ondisk.Lblk(fs.blocks)
	for lblk := ondisk.Lblk(1); lblk < most && err == nil; lblk += n {
		err = dp.insertRun(h, lblk, start, n, false)
	}
	dp.setDirSize(int64(most) << fs.blockBits)
	dp.mapMu.Unlock()
	if err = stop(h, err); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Lookup(dp, "a"); !errors.Is(err, ondisk.EUCLEAN) {
		t.Errorf("a name that is not there: %v", err)
	}
	if err := fs.Rmdir(root, "d"); !errors.Is(err, ondisk.EUCLEAN) {
		t.Errorf("is it empty: %v", err)
	}
}
