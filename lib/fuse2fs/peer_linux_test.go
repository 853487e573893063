package fuse2fs_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	findABI bool            // the server is not told which form the peer speaks
	socket  bool            // over a socket pair, else in process
	dev     blockdev.Device // instead of a copy of the image in memory
}

func profileABI(p iomappeer.Profile) *fuse.IomapABI {
	if p == iomappeer.V7 {
		return fuse.IomapV7
	}
	return fuse.IomapMay26
}

// startPeer serves an image to a peer, which has mounted it when startPeer returns.
func startPeer(t testing.TB, img *testfs.Image, o peerOptions) *peered {
	t.Helper()
	p := &peered{t: t, ended: make(chan error, 1), dev: o.dev}
	if p.dev == nil {
		f, err := blockdev.Open(img.Path, blockdev.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		p.dev, err = blockdev.MemOf(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
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
		return p.dev, 0
	}
	cfg.FreeBlocks = func() int64 { return int64(p.fs.FreeSpace().Free) }
	cfg.Destroyed = func() error {
		if !closed.Load() {
			return fmt.Errorf("the device is open")
		}
		return nil
	}
	p.Kernel = iomappeer.New(cfg)
	dev := p.device(o.socket)
	abi := profileABI(cfg.Profile)
	if o.findABI {
		abi = nil
	}
	srv, err := fuse2fs.NewOn(dev, fuse2fs.Config{FS: p.fs, Workers: o.workers, MaxPages: 32,
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
	return p.Kernel.Device()
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

// peerSpecs are the kinds of images that the peer writes to.
var peerSpecs = []testfs.Spec{
	{Name: "ext4", Size: 64 << 20},
	{Name: "ext4-1k", BlockSize: 1024, Size: 32 << 20},
	{Name: "ext2", Type: "ext2", BlockSize: 1024, Size: 32 << 20},
	{Name: "ext3-4k", Type: "ext3", Size: 64 << 20},
	{Name: "bigalloc", Features: "bigalloc", Cluster: 16384, Size: 128 << 20},
	{Name: "bigalloc-1k", Features: "bigalloc", BlockSize: 1024, Cluster: 8192, Size: 64 << 20},
	{Name: "inline", Features: "inline_data,ea_inode", InodeSize: 512, Size: 64 << 20},
	{Name: "nojournal", Features: "^has_journal", Size: 32 << 20},
}

var profiles = []iomappeer.Profile{iomappeer.May26, iomappeer.V7}

// Random operations of the peer find nothing to object to.
func TestPeerFuzz(t *testing.T) {
	seeds, ops := 10, 600
	for _, spec := range peerSpecs {
		t.Run(spec.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, spec)
			for _, profile := range profiles {
				for seed := range uint64(seeds) {
					t.Run(fmt.Sprintf("%v-%d", profile, seed), func(t *testing.T) {
						p := startPeer(t, img, peerOptions{Config: iomappeer.Config{Profile: profile, Seed: seed}, socket: seed == 2})
						res, err := iomappeer.Fuzz(p.Kernel, seed, ops, iomappeer.FuzzOptions{})
						if err != nil {
							t.Fatalf("%v\n%v", err, res)
						}
						p.unmount()
					})
				}
			}
		})
	}
}

// A server that is not told which form of the protocol the kernel speaks finds
// out before its first answer.
func TestPeerABI(t *testing.T) {
	img := testfs.Mke2fs(t, peerSpecs[0])
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
