package fuse2fs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/iomappeer"
	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fuse"
)

// A crashDev is a recorded device below both the server and the peer. Each sync
// puts into the log what a crash just before it has to leave.
type crashDev struct {
	*blockdev.Record
	k atomic.Pointer[iomappeer.Kernel]
	// late has data reach the device behind the sync that follows, as if that were
	// of metadata only.
	late bool

	mu    sync.RWMutex   // shared by writes of data, alone for a sync
	queue []func() error // guarded by mu: of data, if late
}

func newCrashDev(img *peerImage) *crashDev {
	return &crashDev{Record: blockdev.NewRecord(img.mem.Clone())}
}

func (d *crashDev) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.k.Load()
	if k == nil {
		return d.Record.Sync()
	}
	d.Mark(k.Expect())
	return errors.Join(d.Record.Sync(), d.flushLocked())
}

// flushLocked writes data that is late. mu is held alone.
func (d *crashDev) flushLocked() error {
	var errs []error
	for _, write := range d.queue {
		errs = append(errs, write())
	}
	d.queue = nil
	return errors.Join(errs...)
}

// crashData is the device as the peer writes to it: what is not in the
// expectation of a sync comes after it.
type crashData struct{ d *crashDev }

func (c crashData) Size() int64 { return c.d.Size() }
func (c crashData) Sync() error { return c.d.Sync() }

func (c crashData) ReadAt(p []byte, off int64) (int, error) {
	if c.d.late {
		c.d.mu.Lock()
		defer c.d.mu.Unlock()
		if err := c.d.flushLocked(); err != nil {
			return 0, err
		}
	}
	return c.d.ReadAt(p, off)
}

func (c crashData) WriteAt(p []byte, off int64) (int, error) {
	if c.d.late {
		p = bytes.Clone(p)
		c.d.mu.Lock()
		defer c.d.mu.Unlock()
		c.d.queue = append(c.d.queue, func() error {
			_, err := c.d.Record.WriteAt(p, off)
			return err
		})
		return len(p), nil
	}
	c.d.mu.RLock()
	defer c.d.mu.RUnlock()
	return c.d.Record.WriteAt(p, off)
}

// crashLog has the peer do something, and returns what was written meanwhile.
func crashLog(t *testing.T, img *peerImage, dev *crashDev, o peerOptions, do func(k *iomappeer.Kernel) error) *blockdev.Log {
	t.Helper()
	o.dev, o.data, o.workers = dev, crashData{dev}, 1
	p := startPeer(t, img, o)
	dev.k.Store(p.Kernel)
	if err := do(p.Kernel); err != nil {
		t.Fatal(err)
	}
	dev.mu.Lock()
	defer dev.mu.Unlock()
	dev.Mark(p.Expect())
	return dev.Log()
}

// A recovered file system is what is read after a crash.
type recovered struct{ fs *ext2fs.FS }

func (r recovered) Open(path string) (io.ReaderAt, int64, uint64, error) {
	ip, err := r.fs.Iget(ondisk.RootIno)
	if err != nil {
		return nil, 0, 0, err
	}
	for name := range strings.SplitSeq(path, "/") {
		next, err := r.fs.Lookup(ip, name)
		ip.Put()
		if err != nil {
			if errors.Is(err, syscall.ENOENT) {
				err = fs.ErrNotExist
			}
			return nil, 0, 0, err
		}
		ip = next
	}
	defer ip.Put()
	data := make([]byte, ip.Size())
	if _, err := ip.ReadAt(data, 0); err != nil && err != io.EOF {
		return nil, 0, 0, err
	}
	return bytes.NewReader(data), ip.Size(), uint64(ip.Ino()), nil
}

// open keeps a device open when its file system is closed.
type open struct{ *blockdev.Overlay }

func (open) Close() error { return nil }

// crashSweep recovers states of a log, by us and by C e2fsck in turn, and returns
// what is wrong with them.
func crashSweep(t *testing.T, log *blockdev.Log, seed uint64, states int) (tried, must int, failed []string) {
	t.Helper()
	testfs.Tool(t, "e2fsck")
	ch := make(chan *blockdev.State)
	var mu sync.Mutex
	var wg sync.WaitGroup
	cRecovery := testfs.E2fsckRecovery(t)
	for range 2 {
		image := filepath.Join(testfs.Scratch(t), "state")
		wg.Go(func() {
			for st := range ch {
				n, err := crashState(t, st, image, cRecovery)
				mu.Lock()
				tried++
				must += n
				if err != nil {
					failed = append(failed, fmt.Sprintf("%v: %v", st, err))
				}
				mu.Unlock()
			}
		})
	}
	for st := range log.States(blockdev.StateOptions{Seed: seed, Limit: states, PerSync: max(4, 4*states/max(1, log.Syncs()))}) {
		ch <- st
		mu.Lock()
		enough := len(failed) >= 5
		mu.Unlock()
		if enough {
			break
		}
	}
	close(ch)
	wg.Wait()
	return tried, must, failed
}

// crashState recovers one state and looks at it. It returns how many files had to
// be there.
func crashState(t *testing.T, st *blockdev.State, image string, byC testfs.Recovery) (int, error) {
	defer os.Remove(image)
	write := func() error {
		f, err := os.Create(image)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Truncate(st.Dev.Size()); err != nil {
			return err
		}
		return blockdev.Copy(f, st.Dev)
	}
	if st.Seq%2 == 0 {
		fs, err := ext2fs.Open(open{st.Dev}, ext2fs.Options{})
		if err != nil {
			return 0, fmt.Errorf("open: %w", err)
		}
		if err := fs.Close(); err != nil {
			return 0, fmt.Errorf("close: %w", err)
		}
	}
	if err := write(); err != nil {
		return 0, err
	}
	if st.Seq%2 != 0 {
		if err := byC.Run(&testfs.Image{Path: image}); err != nil {
			return 0, err
		}
	}
	if err := testfs.E2fsck(t, image, ""); err != nil {
		return 0, err
	}
	if len(st.Marks) == 0 {
		return 0, nil
	}
	dev, err := blockdev.Open(image, blockdev.Options{ReadOnly: true, Direct: blockdev.DirectOff})
	if err != nil {
		return 0, err
	}
	defer dev.Close()
	fs, err := ext2fs.Open(dev, ext2fs.Options{ReadOnly: true})
	if err != nil {
		return 0, err
	}
	defer fs.Close()
	e := st.Marks[len(st.Marks)-1].(*iomappeer.Expectation)
	_, must := e.Files()
	if msgs := e.Check(recovered{fs}); len(msgs) > 0 {
		return must, errors.New(strings.Join(msgs, "\n\t"))
	}
	return must, nil
}

var crashSpecs = []testfs.Spec{
	{Name: "ext4", Size: 12 << 20, Inodes: 512},
	{Name: "ext4-1k", BlockSize: 1024, Size: 6 << 20, Inodes: 512},
	{Name: "bigalloc", Features: "bigalloc", Cluster: 16384, Size: 24 << 20, Inodes: 512},
	{Name: "ext3-1k", Type: "ext3", BlockSize: 1024, Size: 6 << 20, Inodes: 512},
	{Name: "inline", Features: "inline_data,ea_inode", InodeSize: 512, Size: 12 << 20, Inodes: 512},
}

// TestPeerCrash crashes while the peer writes, directly and from its page cache.
// Whatever is left is recovered by us and by C e2fsck in turn. It is clean then,
// has all data that was synced, and no byte in a file that was not written to it.
func TestPeerCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	states := testfs.CrashStates(testfs.MountStates)/(len(crashSpecs)*len(profiles)) + 1
	tried, must := 0, 0
	for i, spec := range crashSpecs {
		t.Run(spec.Name, func(t *testing.T) {
			img := newPeerImage(t, spec)
			for _, profile := range profiles {
				seed := uint64(2*i) + uint64(profile)
				log := crashLog(t, img, newCrashDev(img), peerOptions{Config: iomappeer.Config{Profile: profile, Seed: seed}},
					func(k *iomappeer.Kernel) error {
						_, err := iomappeer.Fuzz(k, seed, 250, iomappeer.FuzzOptions{MaxSize: 128 << 10})
						return err
					})
				n, m, failed := crashSweep(t, log, seed, states)
				tried, must = tried+n, must+m
				t.Logf("%v: %d syncs, %d states, %d files that had to be there", profile, log.Syncs(), n, m)
				if m == 0 {
					t.Errorf("%v: no state had to have a file", profile)
				}
				for _, f := range failed {
					t.Errorf("%v: %s", profile, f)
				}
			}
		})
	}
	t.Logf("%d states, %d files", tried, must)
}

// A liar is a server's device that changes what is said on the way.
type liar struct {
	fuse.Device
	recv func(msg []byte) (reply []byte) // answers a request in place of the server
	send func(msg []byte)                // changes an answer or notification
}

func (l *liar) Recv(p []byte) (int, error) {
	for {
		n, err := l.Device.Recv(p)
		if err != nil || l.recv == nil {
			return n, err
		}
		reply := l.recv(p[:n])
		if reply == nil {
			return n, nil
		}
		l.Device.Send(reply)
	}
}

func (l *liar) Send(parts ...[]byte) syscall.Errno {
	var msg []byte
	for _, p := range parts {
		msg = append(msg, p...)
	}
	if l.send != nil {
		l.send(msg)
	}
	return l.Device.Send(msg)
}

// Offsets in messages, as the protocol has them.
const (
	inOpcode, inUnique = 4, 8
	inBody, outBody    = 40, 16
	outError           = 4
	mapType            = 24 // of a mapping: type, u16
	mapSize            = 32
	opIoend            = 4093
	notifyUpsert       = 100
)

// mapped makes a mapping of an answer that it is unwritten one that is written.
func mapped(m []byte) {
	if binary.NativeEndian.Uint16(m[mapType:]) == 3 {
		binary.NativeEndian.PutUint16(m[mapType:], 2)
	}
}

// TestPeerCrashFinds runs servers that lose or show data in a crash. The sweep has
// to see each.
func TestPeerCrashFinds(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	img := newPeerImage(t, crashSpecs[0])
	for _, c := range []struct {
		name, want string
		late       bool
		between    func(fuse.Device) fuse.Device
	}{
		{name: "fresh blocks are answered as MAPPED", want: "is lost", between: func(d fuse.Device) fuse.Device {
			return &liar{Device: d, send: func(msg []byte) {
				unique, code := binary.NativeEndian.Uint64(msg[8:]), binary.NativeEndian.Uint32(msg[outError:])
				switch {
				case unique == 0 && code == notifyUpsert && len(msg) == outBody+16+2*mapSize:
					mapped(msg[outBody+16:])
				case unique != 0 && code == 0 && len(msg) == outBody+2*mapSize:
					mapped(msg[outBody:])
				}
			}}
		}},
		{name: "IOEND is answered and nothing done", want: "has 0 bytes", between: func(d fuse.Device) fuse.Device {
			return &liar{Device: d, recv: func(msg []byte) []byte {
				if binary.NativeEndian.Uint32(msg[inOpcode:]) != opIoend {
					return nil
				}
				b := msg[inBody:]
				out := make([]byte, outBody+8)
				binary.NativeEndian.PutUint32(out, uint32(len(out)))
				copy(out[8:], msg[inUnique:inUnique+8])
				pos, written := binary.NativeEndian.Uint64(b[16:]), binary.NativeEndian.Uint64(b[32:])
				binary.NativeEndian.PutUint64(out[outBody:], pos+written)
				return out
			}}
		}},
		{name: "the commit block does not wait for data", want: "is stale", late: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := newCrashDev(img)
			dev.late = c.late
			log := crashLog(t, img, dev, peerOptions{Config: iomappeer.Config{NoChecks: true}, between: c.between}, writeAndSync)
			n, _, failed := crashSweep(t, log, 1, 300)
			all := strings.Join(failed, "\n")
			t.Logf("%d failures in %d states: %.600s", len(failed), n, all)
			if !strings.Contains(all, c.want) {
				t.Errorf("the sweep does not find a file that %s", c.want)
			}
		})
	}
}

// writeAndSync writes files, in page cache and past it, and syncs each.
func writeAndSync(k *iomappeer.Kernel) error {
	data := make([]byte, 40000)
	for i := range data {
		data[i] = byte(i%250) + 1
	}
	for i := range 6 {
		h, errno := k.Create(k.Root(), fmt.Sprintf("f%d", i), 0o644)
		if errno != 0 {
			return errno
		}
		h.Write(data, 0)
		if errno := h.Fsync(false); errno != 0 {
			return errno
		}
		h.DWrite(data[:8192], 131072)
		if errno := h.Fsync(false); errno != 0 {
			return errno
		}
		h.Write(data[:8192], 65536) // inside the file
		if errno := h.Fsync(false); errno != 0 {
			return errno
		}
		h.Close()
	}
	return nil
}
