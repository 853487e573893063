package fuse2fs_test

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/iomappeer"
	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/fuse"
	"github.com/e2kit/e2kit/lib/fuse2fs"
)

// peerFd is the number by which the server registers its device.
const peerFd = 1000

// A peered is a server on a device in memory, with the peer as its kernel.
type peered struct {
	*iomappeer.Kernel
	t     testing.TB
	dev   blockdev.Device
	fs    *ext2fs.FS
	ended chan error
	done  bool
}

// peerOptions say how a server and its peer are set up.
type peerOptions struct {
	iomappeer.Config
	fs      ext2fs.Options
	workers int
	pages   int             // largest request; default 32
	findABI bool            // the server is not told which form the peer speaks
	socket  bool            // over a socket pair, else in process
	dev     blockdev.Device // instead of a copy of the image in memory
	// data, if set, is where the peer's data goes, instead of to dev.
	data iomappeer.BlockDev
	// between, if set, is put between the server and the peer.
	between func(fuse.Device) fuse.Device
}

// A peerImage is an image in memory that peers start from. Its free blocks hold
// what no file may show.
type peerImage struct {
	spec testfs.Spec
	mem  *blockdev.Mem
	bs   int64
	used []bool // by block: mke2fs uses it
}

// newPeerImage makes an image by mke2fs.
func newPeerImage(t testing.TB, spec testfs.Spec) *peerImage {
	t.Helper()
	img := testfs.Mke2fs(t, spec)
	if spec.Size < 128<<20 { // larger ones are for counting
		testfs.Poison(t, img)
	}
	f, err := blockdev.Open(img.Path, blockdev.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	i := &peerImage{spec: spec, bs: int64(max(spec.BlockSize, 1024))}
	if spec.BlockSize == 0 {
		i.bs = 4096
	}
	if i.mem, err = blockdev.MemOf(f); err != nil {
		t.Fatal(err)
	}
	i.used = make([]bool, i.mem.Size()/i.bs)
	for n := range i.used {
		i.used[n] = true
	}
	for line := range strings.Lines(testfs.Run(t, "dumpe2fs", img.Path)) {
		list, ok := strings.CutPrefix(strings.TrimSpace(line), "Free blocks: ")
		if !ok || !strings.HasPrefix(line, " ") {
			continue // the superblock has a line of that name, a count
		}
		for r := range strings.SplitSeq(list, ", ") {
			var first, last int64
			switch n, _ := fmt.Sscanf(r, "%d-%d", &first, &last); n {
			case 0:
				continue
			case 1:
				last = first
			}
			for ; first <= last; first++ {
				i.used[first] = false
			}
		}
	}
	return i
}

// metadata reports whether bytes of the device lie in what mke2fs has put there.
func (i *peerImage) metadata(addr, n int64) bool {
	for b := addr / i.bs; b*i.bs < addr+n; b++ {
		if i.used[b] {
			return true
		}
	}
	return false
}

func profileABI(p iomappeer.Profile) *fuse.IomapABI {
	if p == iomappeer.V7 {
		return fuse.IomapV7
	}
	return fuse.IomapMay26
}

// startPeer serves an image to a peer, which has mounted it when startPeer returns.
func startPeer(t testing.TB, img *peerImage, o peerOptions) *peered {
	t.Helper()
	p := &peered{t: t, ended: make(chan error, 1), dev: o.dev}
	if p.dev == nil {
		p.dev = img.mem.Clone()
	}
	if o.fs.CommitInterval == 0 {
		o.fs.CommitInterval = time.Hour
	}
	var err error
	if p.fs, err = ext2fs.Open(p.dev, o.fs); err != nil {
		t.Fatal(err)
	}
	closed := new(atomic.Bool)
	cfg := o.Config
	cfg.Resolve = func(fd int32) (iomappeer.BlockDev, syscall.Errno) {
		if fd != peerFd {
			return nil, syscall.EBADF
		}
		if o.data != nil {
			return o.data, 0
		}
		return p.dev, 0
	}
	if cfg.Metadata == nil {
		cfg.Metadata = img.metadata
	}
	cfg.FreeBlocks = func() int64 { return int64(p.fs.FreeSpace().Free) }
	cfg.Destroyed = func() error {
		if !closed.Load() {
			return fmt.Errorf("the device is open")
		}
		return nil
	}
	p.Kernel = iomappeer.New(cfg)
	if o.data == nil {
		// What others than the server read of the device stays in its page cache.
		p.PageCached(p.dev)
	}
	dev := p.device(o.socket)
	if o.between != nil {
		dev = o.between(dev)
	}
	abi := profileABI(cfg.Profile)
	if o.findABI {
		abi = nil
	}
	srv, err := fuse2fs.NewOn(dev, fuse2fs.Config{FS: p.fs, Workers: o.workers, MaxPages: cmp.Or(o.pages, 32),
		RootNodeID: cfg.RootNodeID,
		Iomap:      &fuse2fs.IomapConfig{ABI: abi, Fd: peerFd, AtomicMax: 1 << 20},
		Closed:     func() { closed.Store(true) }})
	if err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- srv.Serve() }()
	if err := p.Mount(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !p.done {
			p.Crash()
			<-p.ended
		}
	})
	return p
}

// device returns what the server sees of the peer.
func (p *peered) device(socket bool) fuse.Device {
	p.t.Helper()
	if !socket {
		return p.Kernel.Device()
	}
	fd, err := p.Kernel.Listen()
	if err != nil {
		p.t.Fatal(err)
	}
	d, err := iomappeer.Dial(fd)
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

// unmount ends the server, and checks what it leaves, by itself and by C e2fsck.
func (p *peered) unmount() {
	p.t.Helper()
	if err := p.Unmount(); err != nil {
		p.t.Errorf("unmount: %v", err)
	}
	p.done = true
	select {
	case err := <-p.ended:
		if err != nil {
			p.t.Errorf("Serve: %v", err)
		}
	case <-time.After(time.Minute):
		p.t.Fatal("the server does not end")
	}
	if err := p.Err(); err != nil {
		p.t.Error(err)
	}
	testfs.Adopt(p.t, save(p.t, p.dev))
}

// save writes a device to a file.
func save(t testing.TB, dev blockdev.Device) string {
	t.Helper()
	path := filepath.Join(testfs.Scratch(t), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(dev.Size()); err != nil {
		t.Fatal(err)
	}
	b, zero := make([]byte, 1<<16), make([]byte, 1<<16)
	for off := int64(0); off < dev.Size(); off += int64(len(b)) {
		n, err := dev.ReadAt(b, off)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			t.Fatal(err)
		}
		if string(b[:n]) != string(zero[:n]) {
			if _, err := f.WriteAt(b[:n], off); err != nil {
				t.Fatal(err)
			}
		}
	}
	return path
}

// A server that is not told which form of the protocol the kernel speaks finds
// out before its first answer.
func TestPeerABI(t *testing.T) {
	img := newPeerImage(t, peerSpecs[0])
	for _, profile := range profiles {
		t.Run(fmt.Sprint(profile), func(t *testing.T) {
			p := startPeer(t, img, peerOptions{Config: iomappeer.Config{Profile: profile, MayGuess: true, RootNodeID: 2}, findABI: true})
			if _, err := iomappeer.Fuzz(p.Kernel, 1, 200, iomappeer.FuzzOptions{}); err != nil {
				t.Fatal(err)
			}
			if n := p.Count().Upcalls["IOMAP_BEGIN"]; n == 0 {
				t.Error("nothing was asked")
			}
			p.unmount()
		})
	}
}
