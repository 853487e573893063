package populate

import (
	"fmt"
	"sync"
	"syscall"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// heldDevice is a device that keeps the superblock in memory, and has zeros in
// its place, until commit: what is on the device before that is no file system.
// In between it does not sync, since nothing needs to be there after a crash.
//
// Writes that follow each other are joined: files that are small lie side by
// side, and come in that order.
type heldDevice struct {
	blockdev.Device
	align int64

	mu   sync.Mutex
	held [ondisk.SuperSize]byte // guarded by mu

	joinMu sync.RWMutex
	join   []byte // guarded by joinMu: bytes to be written at joinAt
	joinAt int64  // guarded by joinMu
}

const (
	heldFrom = ondisk.SuperOffset
	heldEnd  = ondisk.SuperOffset + ondisk.SuperSize

	joinMost  = 1 << 20   // bytes joined
	joinSmall = 128 << 10 // writes that are joined
)

// Hold returns a device for making a file system and then filling it by Write, in
// one go: dev has no superblock until the latter is done. The caller does not use
// dev meanwhile, and closes it.
func Hold(dev blockdev.Device) (blockdev.Device, error) { return hold(dev) }

// Commit ends what Hold has begun where there is nothing to Write: everything
// becomes durable, the superblock last. dev is what Hold has returned, else Commit
// fails with EINVAL.
func Commit(dev blockdev.Device) error {
	h, ok := dev.(*heldDevice)
	if !ok {
		return fmt.Errorf("commit of a device that is not held: %w", syscall.EINVAL)
	}
	return h.commit()
}

// hold takes the superblock off dev, for good: after a crash it must not come
// back over what is half written.
func hold(dev blockdev.Device) (*heldDevice, error) {
	h := &heldDevice{Device: dev, align: int64(max(blockdev.Align(dev), 1))}
	h.join = blockdev.AlignedBuf(joinMost, max(4096, int(h.align)))[:0]
	if _, err := dev.ReadAt(h.held[:], heldFrom); err != nil {
		return nil, err
	}
	if err := h.put(make([]byte, ondisk.SuperSize)); err != nil {
		return nil, err
	}
	return h, dev.Sync()
}

// put writes the bytes of the superblock's place.
func (h *heldDevice) put(sb []byte) error {
	buf := blockdev.AlignedBuf(4096, 4096)
	if _, err := h.Device.ReadAt(buf, 0); err != nil {
		return err
	}
	copy(buf[heldFrom:], sb)
	_, err := h.Device.WriteAt(buf, 0)
	return err
}

// commit makes everything durable, the superblock last.
func (h *heldDevice) commit() error {
	if err := h.flush(); err != nil {
		return err
	}
	if err := h.Device.Sync(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.put(h.held[:]); err != nil {
		return err
	}
	return h.Device.Sync()
}

// flush writes what was joined.
func (h *heldDevice) flush() error {
	h.joinMu.Lock()
	defer h.joinMu.Unlock()
	return h.flushLocked()
}

func (h *heldDevice) flushLocked() error {
	if len(h.join) == 0 {
		return nil
	}
	_, err := h.Device.WriteAt(h.join, h.joinAt)
	h.join = h.join[:0]
	return err
}

func (h *heldDevice) ReadAt(p []byte, off int64) (int, error) {
	h.joinMu.RLock()
	overlaps := off < h.joinAt+int64(len(h.join)) && h.joinAt < off+int64(len(p))
	h.joinMu.RUnlock()
	if overlaps {
		if err := h.flush(); err != nil {
			return 0, err
		}
	}
	n, err := h.Device.ReadAt(p, off)
	if off < heldEnd && off+int64(n) > heldFrom {
		h.mu.Lock()
		overlay(p[:n], off, h.held[:], heldFrom)
		h.mu.Unlock()
	}
	return n, err
}

// overlay copies what src, at srcOff, has of the range that dst is at off.
func overlay(dst []byte, off int64, src []byte, srcOff int64) {
	from, to := max(off, srcOff), min(off+int64(len(dst)), srcOff+int64(len(src)))
	if from < to {
		copy(dst[from-off:to-off], src[from-srcOff:])
	}
}

func (h *heldDevice) WriteAt(p []byte, off int64) (int, error) {
	if off < heldEnd && off+int64(len(p)) > heldFrom {
		return h.writeSuper(p, off)
	}
	if d, ok := h.Device.(*dryDevice); ok && d.drops(p) {
		return len(p), nil
	}
	h.joinMu.Lock()
	defer h.joinMu.Unlock()
	end := h.joinAt + int64(len(h.join))
	if len(h.join) > 0 && (off != end || len(h.join)+len(p) > joinMost || end%h.align != 0) {
		apart := off+int64(len(p)) <= h.joinAt || off >= end
		if off == end || len(p) <= joinSmall || !apart {
			if err := h.flushLocked(); err != nil {
				return 0, err
			}
		}
	}
	if len(p) > joinSmall {
		return h.Device.WriteAt(p, off)
	}
	if off < 0 || off+int64(len(p)) > h.Device.Size() {
		return h.Device.WriteAt(p, off) // which says what is wrong
	}
	if len(h.join) == 0 {
		h.joinAt = off
	}
	h.join = append(h.join, p...)
	return len(p), nil
}

// writeSuper is WriteAt of what has the superblock in it.
func (h *heldDevice) writeSuper(p []byte, off int64) (int, error) {
	h.mu.Lock()
	overlay(h.held[:], heldFrom, p, off)
	h.mu.Unlock()
	if off >= heldFrom && off+int64(len(p)) <= heldEnd {
		return len(p), nil
	}
	q := blockdev.AlignedBuf(len(p), 4096)
	copy(q, p)
	var zero [ondisk.SuperSize]byte
	overlay(q, off, zero[:], heldFrom)
	return h.Device.WriteAt(q, off)
}

func (h *heldDevice) ReadvAt(bufs [][]byte, off int64) (int, error) {
	return eachBuf(bufs, off, h.ReadAt)
}

func (h *heldDevice) WritevAt(bufs [][]byte, off int64) (int, error) {
	return eachBuf(bufs, off, h.WriteAt)
}

func eachBuf(bufs [][]byte, off int64, do func([]byte, int64) (int, error)) (int, error) {
	done := 0
	for _, b := range bufs {
		n, err := do(b, off+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// Sync does not: see commit.
func (h *heldDevice) Sync() error { return nil }

func (h *heldDevice) ZeroOut(off, n int64) error {
	if err := h.flush(); err != nil {
		return err
	}
	return h.Device.ZeroOut(off, n)
}

func (h *heldDevice) Discard(off, n int64) error {
	if err := h.flush(); err != nil {
		return err
	}
	return h.Device.Discard(off, n)
}

// Align implements blockdev.Aligner.
func (h *heldDevice) Align() int { return int(h.align) }

// Info implements blockdev.Informer.
func (h *heldDevice) Info() blockdev.Info { return blockdev.InfoOf(h.Device) }
