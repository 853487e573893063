package ext2fs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// newFiles makes n files, named prefix and a number, in the root directory.
func newFiles(t *testing.T, fs *FS, prefix string, n int) []*Inode {
	t.Helper()
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Put()
	ips := make([]*Inode, n)
	for i := range ips {
		if ips[i], err = fs.Create(root, fmt.Sprint(prefix, i), 0o644, 0, Cred{}); err != nil {
			t.Fatal(err)
		}
	}
	return ips
}

// TestXattrSharing counts blocks and inodes of attributes that are alike, and
// frees them with their last user.
func TestXattrSharing(t *testing.T) {
	for _, spec := range []testfs.Spec{
		{Name: "block", InodeSize: 128, Size: 64 << 20},
		{Name: "inode", BlockSize: 1024, Size: 64 << 20, Features: "ea_inode"},
		{Name: "both", BlockSize: 1024, InodeSize: 128, Size: 64 << 20, Features: "ea_inode,^metadata_csum"},
	} {
		t.Run(spec.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, spec)
			fs := openImage(t, img, Options{})
			const files = 1100
			ips := newFiles(t, fs, "f", files)
			settle := func() Statfs {
				t.Helper()
				if err := fs.Sync(); err != nil {
					t.Fatal(err)
				}
				return fs.Statfs()
			}
			was := settle()
			value := bytes.Repeat([]byte("v"), 300)
			if fs.hasEAInode {
				value = bytes.Repeat([]byte("v"), 20000)
			}
			for _, ip := range ips {
				if err := ip.Setxattr("user.big", value, 0, false); err != nil {
					t.Fatal(err)
				}
			}
			is := settle()
			blocks, inodes := was.Bfree-is.Bfree, was.Ffree-is.Ffree
			wantBlocks, wantInodes := uint64(0), uint64(0)
			if fs.hasEAInode {
				wantBlocks, wantInodes = 20, 1
			}
			if spec.InodeSize == 128 { // 1024 inodes share a block
				wantBlocks += 2
			}
			if blocks != wantBlocks || inodes != wantInodes {
				t.Errorf("%d blocks and %d inodes, want %d and %d", blocks, inodes, wantBlocks, wantInodes)
			}
			// One goes its own way and comes back.
			if err := ips[5].Setxattr("user.more", []byte("x"), 0, false); err != nil {
				t.Fatal(err)
			}
			if err := ips[5].Removexattr("user.more"); err != nil {
				t.Fatal(err)
			}
			if n := settle(); n != is {
				t.Errorf("%+v, before that %+v", n, is)
			}
			for i, ip := range ips {
				if v, err := ip.Getxattr("user.big"); err != nil || !bytes.Equal(v, value) {
					t.Fatalf("file %d: %d bytes, %v", i, len(v), err)
				}
			}
			root, err := fs.Iget(ondisk.RootIno)
			if err != nil {
				t.Fatal(err)
			}
			for i, ip := range ips {
				if i%2 == 0 {
					if err := ip.Removexattr("user.big"); err != nil {
						t.Fatal(err)
					}
				}
				ip.Put()
				if i%3 != 0 {
					if err := fs.Unlink(root, fmt.Sprint("f", i)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := fs.Sync(); err != nil {
				t.Fatal(err)
			}
			for i := range ips {
				if i%3 == 0 {
					if err := fs.Unlink(root, fmt.Sprint("f", i)); err != nil {
						t.Fatal(err)
					}
				}
			}
			root.Put()
			if n := settle(); n.Bfree != was.Bfree || n.Ffree != was.Ffree+files {
				t.Errorf("%+v at the end, %+v at the start", n, was)
			}
		})
	}
}

// TestExpandExtra lets inodes with fewer fields grow, around what attributes
// they have.
func TestExpandExtra(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Size: 16 << 20})
	fs := openImage(t, img, Options{})
	sizes := []int{0, 10, 40, 60, 64, 68}
	ips := newFiles(t, fs, "f", len(sizes)*3)
	for i, ip := range ips {
		extra := []int{4, 24, 28}[i%3]
		h, err := fs.start(creditsInode)
		if err != nil {
			t.Fatal(err)
		}
		ip.mapMu.Lock()
		clear(ip.raw[128:])
		endian.View[endian.LE16](ip.raw[128:]).Set(uint16(extra))
		if n := sizes[i/3]; n > 0 {
			err = ip.ibodySet(h, ondisk.XattrUserIndex, "a", ondisk.XattrValue{Data: bytes.Repeat([]byte("a"), n)})
		}
		if err == nil {
			err = ip.store(h)
		}
		ip.mapMu.Unlock()
		if err = stop(h, err); err != nil {
			t.Fatal(err)
		}
	}
	for i, ip := range ips {
		if err := ip.Setattr(&SetAttr{Valid: SetMode, Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := ip.Setxattr("user.b", []byte("bbbb"), 0, false); err != nil {
				t.Fatal(err)
			}
		}
		want := map[string]string{}
		if n := sizes[i/3]; n > 0 {
			want["user.a"] = string(bytes.Repeat([]byte("a"), n))
		}
		if i%2 == 0 {
			want["user.b"] = "bbbb"
		}
		sameXattrs(t, fmt.Sprint("file ", i), ourXattrs(t, ip), want)
		if n := ip.raw.ExtraIsize(); n != 32 && sizes[i/3] < 60 {
			t.Errorf("file %d: extra size %d", i, n)
		}
		ip.Put()
	}
}

// TestXattrStress sets and removes what inodes share, from several sides.
func TestXattrStress(t *testing.T) {
	for _, spec := range []testfs.Spec{
		{Name: "128", InodeSize: 128, Size: 64 << 20},
		{Name: "ea-1k", BlockSize: 1024, Size: 64 << 20, Features: "ea_inode"},
		{Name: "ea-128-nojournal", InodeSize: 128, Size: 64 << 20, Features: "ea_inode,^has_journal"},
		{Name: "inline", BlockSize: 1024, Size: 64 << 20, Features: "inline_data,ea_inode"},
	} {
		t.Run(spec.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, spec)
			fs := openImage(t, img, Options{CommitInterval: 20 * time.Millisecond})
			ips := newFiles(t, fs, "f", 12)
			root, err := fs.Iget(ondisk.RootIno)
			if err != nil {
				t.Fatal(err)
			}
			values := [][]byte{bytes.Repeat([]byte("a"), 200), bytes.Repeat([]byte("b"), 700), bytes.Repeat([]byte("c"), 5000),
				bytes.Repeat([]byte("d"), 30000), []byte("e")}
			var wg sync.WaitGroup
			for g := range 6 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					rnd := rand.New(rand.NewPCG(uint64(g), 1))
					for i := range 150 {
						ip := ips[rnd.IntN(len(ips))]
						name := fmt.Sprint("user.", rnd.IntN(3))
						var err error
						switch rnd.IntN(8) {
						case 0, 1, 2:
							err = ip.Setxattr(name, values[rnd.IntN(len(values))], 0, false)
						case 3, 4:
							err = ip.Removexattr(name)
						case 5:
							var v []byte
							if v, err = ip.Getxattr(name); err == nil && len(v) > 0 && !bytes.Equal(v, bytes.Repeat(v[:1], len(v))) {
								t.Errorf("torn value %.40q", v)
							}
						case 6:
							_, err = ip.WriteAt(bytes.Repeat([]byte("w"), rnd.IntN(100)+1), int64(rnd.IntN(60)))
						default:
							n := fmt.Sprintf("t%d.%d", g, i)
							var tmp *Inode
							if tmp, err = fs.Create(root, n, 0o600, 0, Cred{}); err != nil {
								break
							}
							err = tmp.Setxattr("user.big", values[3], 0, false)
							tmp.Put()
							err = errors.Join(fs.Unlink(root, n), err)
						}
						if err != nil && !errors.Is(err, ondisk.ENODATA) && !errors.Is(err, syscall.ENOSPC) {
							t.Error(err)
							return
						}
					}
				}()
			}
			wg.Wait()
			for _, ip := range ips {
				ourXattrs(t, ip)
				ip.Put()
			}
			root.Put()
		})
	}
}

// TestXattrCrash recovers from crash states of random changes of attributes,
// shared ones among them: each is clean and holds what was synced.
func TestXattrCrash(t *testing.T) {
	testfs.NeedRoot(t)
	for _, spec := range []testfs.Spec{
		{Name: "ea-1k", BlockSize: 1024, Size: 24 << 20, Features: "ea_inode"},
		{Name: "128", InodeSize: 128, Size: 24 << 20},
		{Name: "inline", Size: 24 << 20, Features: "inline_data"},
	} {
		t.Run(spec.Name, func(t *testing.T) {
			if testing.Short() {
				t.Skip("short")
			}
			img := testfs.Mke2fs(t, spec)
			rec := testfs.Record(t, img)
			fs, err := Open(rec.Dev, Options{CommitInterval: -1})
			if err != nil {
				t.Fatal(err)
			}
			ips := newFiles(t, fs, "x", 6)
			root, err := fs.Iget(ondisk.RootIno)
			if err != nil {
				t.Fatal(err)
			}
			rnd := rand.New(rand.NewPCG(1, 2))
			touched := map[int]bool{}
			for i := range 300 {
				j := rnd.IntN(len(ips))
				if !touched[j] {
					rec.Mark(testfs.Touch{Path: fmt.Sprint("x", j)})
					touched[j] = true
				}
				name := fmt.Sprint("user.", rnd.IntN(3))
				value := bytes.Repeat([]byte{'a' + byte(rnd.IntN(3))}, []int{3, 80, 300, 900, 3000, 9000}[rnd.IntN(6)])
				switch rnd.IntN(6) {
				case 0:
					err = ips[j].Removexattr(name)
				case 1:
					n := fmt.Sprint("t", i)
					var ip *Inode
					if ip, err = fs.Create(root, n, 0o600, 0, Cred{}); err == nil {
						err = ip.Setxattr(name, value, 0, false)
						ip.Put()
						err = errors.Join(err, fs.Unlink(root, n))
					}
				case 2:
					_, err = ips[j].WriteAt([]byte("some data"), int64(rnd.IntN(100)))
				case 3:
					err = ips[j].Setattr(&SetAttr{Valid: SetSize, Size: int64(rnd.IntN(120))})
				default:
					err = ips[j].Setxattr(name, value, 0, false)
				}
				if err != nil && !errors.Is(err, ondisk.ENODATA) && !errors.Is(err, syscall.ENOSPC) {
					t.Fatal(err)
				}
				if i%20 == 19 {
					if err := fs.Sync(); err != nil {
						t.Fatal(err)
					}
					for j := range touched {
						rec.Mark(testfs.Promise{Path: fmt.Sprint("x", j), Xattrs: ourXattrs(t, ips[j]),
							Sums: [][sha256.Size]byte{sha256.Sum256(mustRead(t, ips[j]))}})
					}
					clear(touched)
				}
			}
			for _, ip := range ips {
				ip.Put()
			}
			root.Put()
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			res := rec.Sweep(t, testfs.Sweep{States: testfs.CrashStates(60), Seed: 1,
				Recover: []testfs.Recovery{ourRecovery(), testfs.KernelRecovery(t), testfs.E2fsckRecovery(t)}})
			t.Logf("%d states, %d promises", res.States, res.Promises)
			for _, f := range res.Failed {
				t.Error(f)
			}
		})
	}
}

// hostileXattrs does to an image whatever reads or changes attributes. Errors
// are as they may be.
func hostileXattrs(fs *FS, inos []ondisk.Ino) {
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		return
	}
	defer root.Put()
	for i, ino := range inos {
		ip, err := fs.Iget(ino)
		if err != nil {
			continue
		}
		names, _ := ip.Listxattr()
		for _, n := range names {
			_, _ = ip.Getxattr(n)
		}
		_, _ = ip.ReadAt(make([]byte, 200), 0)
		_ = ip.Setxattr("user.new", bytes.Repeat([]byte("n"), 100*i), 0, false)
		_ = ip.Setattr(&SetAttr{Valid: SetMode | SetUID, Mode: 0o600})
		_, _ = ip.WriteAt([]byte("data"), 58)
		for j, n := range names {
			if j%2 == 0 {
				_ = ip.Removexattr(n)
			}
		}
		_ = ip.Setattr(&SetAttr{Valid: SetSize, Size: int64(i * 10)})
		ip.Put()
		_ = fs.Unlink(root, fmt.Sprint("f", i))
	}
}

// TestXattrHostile mutates attributes with their checksums set anew, and does
// everything with them: nothing panics or hangs.
func TestXattrHostile(t *testing.T) {
	for _, spec := range []testfs.Spec{
		{Name: "ea", BlockSize: 1024, Size: 16 << 20, Features: "ea_inode,inline_data"},
		{Name: "128", InodeSize: 128, Size: 16 << 20, Features: "ea_inode"},
	} {
		t.Run(spec.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, spec)
			fs := openImage(t, img, Options{})
			ips := newFiles(t, fs, "f", 8)
			var inos []ondisk.Ino
			for i, ip := range ips {
				inos = append(inos, ip.ino)
				for j, n := range []int{10, 200, 5000, 30} {
					if err := ip.Setxattr(fmt.Sprint("user.", j), bytes.Repeat([]byte{byte('a' + i%3)}, n), 0, false); err != nil {
						t.Fatal(err)
					}
				}
				if err := ip.Setxattr("system.posix_acl_access", aclCases()[1], 0, false); err != nil {
					t.Fatal(err)
				}
				ip.Put()
			}
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			m, err := testfs.NewMutator(img.Path)
			if err != nil {
				t.Fatal(err)
			}
			seeds := 400
			if testing.Short() {
				seeds = 100
			}
			for seed := range seeds {
				dev, what := m.Mutate(uint64(seed))
				timer := time.AfterFunc(30*time.Second, func() { panic("stuck: " + what) })
				if fs, err := Open(dev, Options{Errors: ErrorsContinue}); err == nil {
					hostileXattrs(fs, inos)
					_ = fs.Close()
				}
				timer.Stop()
			}
			// Entries that name each other's and their own inodes.
			for i := range 60 {
				dev, _ := m.Mutate(1 << 40)
				fs, err := Open(dev, Options{Errors: ErrorsContinue})
				if err != nil {
					continue
				}
				timer := time.AfterFunc(30*time.Second, func() { panic(fmt.Sprint("stuck in cycle ", i)) })
				for j, ino := range inos {
					ip, err := fs.Iget(ino)
					if err != nil {
						continue
					}
					ip.mapMu.Lock()
					set := func(a ondisk.XattrArea) {
						for off := a.First(); !a.Last(off); off = a.Next(off) {
							if e := a.Entry(off); e.ValueInum.Get() != 0 {
								e.ValueInum.Set(uint32(inos[(i+j)%len(inos)]))
							}
						}
					}
					if a, used, err := ip.ibody(); err == nil && used {
						set(a)
					}
					if b, a, err := ip.xattrBlock(); err == nil && b != nil {
						set(a)
						b.Put()
					}
					ip.mapMu.Unlock()
					ip.Put()
				}
				var wg sync.WaitGroup
				for range 2 {
					wg.Add(1)
					go func() {
						defer wg.Done()
						hostileXattrs(fs, inos)
					}()
				}
				wg.Wait()
				_ = fs.Close()
				timer.Stop()
			}
		})
	}
}

// TestXattrClaimedTwice reads and writes, side by side, the attributes of two inodes
// that have one block, which says that it is one's. The race detector sees at once
// what else takes luck: a value that is cut by its old end and its new start.
func TestXattrClaimedTwice(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "twice", InodeSize: 128, Size: 16 << 20, Features: "^metadata_csum"})
	img.ExpectDirty("two inodes claim a block")
	fs := openImage(t, img, Options{Errors: ErrorsContinue})
	ips := newFiles(t, fs, "f", 2)
	a, b := ips[0], ips[1]
	value := func(n int) []byte { return make([]byte, []int{4, 700}[n%2]) }
	if err := a.Setxattr("user.x", value(0), 0, false); err != nil {
		t.Fatal(err)
	}
	b.mapMu.Lock()
	b.raw.SetFileACL(a.fileACL())
	b.mapMu.Unlock()
	var wg sync.WaitGroup
	var done atomic.Bool
	wg.Go(func() {
		defer done.Store(true)
		for n := range 60_000 {
			if err := a.Setxattr("user.x", value(n), 0, false); err != nil {
				t.Error(err)
				return
			}
		}
	})
	wg.Go(func() {
		for !done.Load() {
			v, err := b.Getxattr("user.x")
			if err != nil || len(v) != len(value(0)) && len(v) != len(value(1)) {
				t.Errorf("%d bytes, %v", len(v), err)
				return
			}
			if names, err := b.Listxattr(); err != nil || len(names) != 1 {
				t.Errorf("%q, %v", names, err)
				return
			}
		}
	})
	wg.Wait()
	a.Put()
	b.Put()
}

// TestXattrFull sets attributes until there are no blocks, or no inodes, left;
// what failed leaves nothing behind.
func TestXattrFull(t *testing.T) {
	for _, spec := range []testfs.Spec{
		{Name: "blocks", BlockSize: 1024, Size: 4 << 20, Features: "ea_inode", Journal: "size=1"},
		{Name: "inodes", BlockSize: 1024, Size: 32 << 20, Inodes: 128, Features: "ea_inode,^metadata_csum"},
		{Name: "inline", BlockSize: 1024, Size: 4 << 20, Features: "inline_data", Journal: "size=1"},
		{Name: "128", BlockSize: 1024, InodeSize: 128, Size: 4 << 20, Features: "^has_journal"},
	} {
		t.Run(spec.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, spec)
			fs := openImage(t, img, Options{})
			ips := newFiles(t, fs, "f", 60)
			if err := fs.Sync(); err != nil {
				t.Fatal(err)
			}
			was := fs.Statfs()
			if !fs.hasEAInode { // blocks alone are too few to matter: leave none
				if err := ips[0].Fallocate(0, 0, int64(fs.blockSize)*int64(was.Bavail)); err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
					t.Fatal(err)
				}
			}
			full, big := 0, 900
			if fs.hasEAInode {
				big = 10000
			}
			model := make([]map[string]string, len(ips))
			for i, ip := range ips {
				model[i] = map[string]string{}
				for j := range 6 {
					name := fmt.Sprint("user.", j)
					v := bytes.Repeat([]byte(fmt.Sprintf("%d.%d ", i, j)), []int{3, 150, big, 9}[(i+j)%4])
					err := ip.Setxattr(name, v, 0, false)
					switch {
					case err == nil:
						model[i][name] = string(v)
					case errors.Is(err, syscall.ENOSPC):
						full++
					default:
						t.Fatal(err)
					}
				}
				if i > 0 {
					p := bytes.Repeat([]byte("w"), 40)
					if _, err := ip.WriteAt(p, 0); err != nil && !errors.Is(err, syscall.ENOSPC) {
						t.Fatal(err)
					}
				}
			}
			if full == 0 {
				t.Error("never full")
			}
			for i, ip := range ips {
				sameXattrs(t, fmt.Sprint("f", i), ourXattrs(t, ip), model[i])
				for name := range model[i] {
					if err := ip.Removexattr(name); err != nil {
						t.Fatal(err)
					}
				}
				if err := ip.Setattr(&SetAttr{Valid: SetSize}); err != nil {
					t.Fatal(err)
				}
				ip.Put()
			}
			if err := fs.Sync(); err != nil {
				t.Fatal(err)
			}
			if n := fs.Statfs(); n.Bfree != was.Bfree || n.Ffree != was.Ffree {
				t.Errorf("%+v at the end, %+v at the start", n, was)
			}
		})
	}
}
