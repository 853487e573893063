package ext2fs

import (
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestMutated opens mutated images with right checksums, reads all that they
// show, and changes some. Anything may fail; nothing may panic or hang.
// E2KIT_MUTATED sets the number of images, E2KIT_MUTATED_SEED the first.
func TestMutated(t *testing.T) {
	images, first := 1200, 0
	if testing.Short() {
		images = 200
	}
	if n, err := strconv.Atoi(os.Getenv("E2KIT_MUTATED")); err == nil {
		images = n
	}
	if n, err := strconv.Atoi(os.Getenv("E2KIT_MUTATED_SEED")); err == nil {
		first = n
	}
	var mutators []*testfs.Mutator
	for _, img := range testfs.MutationBases(t) {
		m, err := testfs.NewMutator(img.Path)
		if err != nil {
			t.Fatal(err)
		}
		mutators = append(mutators, m)
	}
	var next, opened atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= images {
					return
				}
				seed := uint64(first + i)
				k := int(seed) % len(mutators)
				dev, desc := mutators[k].Mutate(seed)
				hung := time.AfterFunc(40*time.Second, func() { panic("hung: seed " + strconv.FormatUint(seed, 10) + ": " + desc) })
				func() {
					defer func() {
						if p := recover(); p != nil {
							t.Logf("seed %d of image %d: %s", seed, k, desc)
							panic(p)
						}
					}()
					if exercise(dev, Options{ReadOnly: i%4 == 0}) {
						opened.Add(1)
					}
				}()
				hung.Stop()
			}
		})
	}
	wg.Wait()
	t.Logf("%d of %d opened", opened.Load(), images)
}

// exercise opens dev and does what it can; it says whether it opened.
func exercise(dev blockdev.Device, o Options) bool {
	fs, err := Open(dev, o)
	if err != nil {
		return false
	}
	defer fs.Close()
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		return true
	}
	w := visitor{fs: fs, left: 500, seen: make(map[ondisk.Ino]bool)}
	w.visit(root)
	root.Put()
	_ = fs.Statfs()
	if ro, _ := fs.ReadOnly(); !ro {
		_ = load(fs, 1, 120, true)
		w.left = 40
		clear(w.seen)
		w.destroy = true
		if root, err := fs.Iget(ondisk.RootIno); err == nil {
			w.visit(root)
			root.Put()
		}
		_ = fs.Sync()
	}
	return true
}

// visitor reads everything below a directory, and with destroy set tries to
// remove and reshape it.
type visitor struct {
	fs      *FS
	left    int
	seen    map[ondisk.Ino]bool
	destroy bool
	buf     [1 << 16]byte
}

func (v *visitor) visit(ip *Inode) {
	if v.seen[ip.ino] || v.left <= 0 {
		return
	}
	v.seen[ip.ino] = true
	v.left--
	var a Attr
	ip.Attr(&a)
	names, _ := ip.Listxattr()
	for _, n := range names {
		_, _ = ip.Getxattr(n)
	}
	switch {
	case ip.isLnk():
		_, _ = ip.Readlink()
	case ip.isReg():
		v.file(ip)
	case ip.isDir():
		v.dir(ip)
	}
}

func (v *visitor) file(ip *Inode) {
	size := ip.Size()
	for i, off := 0, int64(0); i < 20 && off < size; i++ {
		_, _ = ip.ReadAt(v.buf[:], off)
		d, err := ip.SeekData(off + int64(len(v.buf)))
		if err != nil {
			break
		}
		off = d
	}
	_, _ = ip.ReadAt(v.buf[:100], size-100)
	_, _ = ip.SeekHole(0)
	n := 0
	_ = ip.Fiemap(0, size, func(FiemapExtent) bool { n++; return n < 1000 })
	if v.destroy {
		_, _ = ip.WriteAt(v.buf[:5000], size/2)
		_ = ip.Fallocate(3, size/4, 20000)
		_ = ip.Fallocate(8, 0, 4096)
		_ = ip.Setxattr("user.x", v.buf[:300], 0, false)
		_ = ip.Setattr(&SetAttr{Valid: SetSize, Size: size / 3})
	}
}

func (v *visitor) dir(dp *Inode) {
	var names []string
	_ = v.fs.Readdir(dp, 0, func(name []byte, _ ondisk.Ino, _ uint8, _ uint64) bool {
		names = append(names, string(name))
		return len(names) < 1500
	})
	for i, n := range names {
		ip, err := v.fs.Lookup(dp, n)
		if err != nil {
			continue
		}
		if n != "." && n != ".." {
			v.visit(ip)
			if v.destroy && i < 30 {
				if ip.isDir() {
					_ = v.fs.Rmdir(dp, n)
				} else {
					_ = v.fs.Unlink(dp, n)
				}
			}
		}
		ip.Put()
	}
}
