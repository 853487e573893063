package blockdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"syscall"
)

// Undo is a Device that saves what it overwrites in an undo file, from which
// e2undo restores it. The file is of use after a crash of the program only as
// far as it has been synced, and after one of the machine not at all.
//
// The format is that of e2fsprogs: a header; a copy of the superblock, to tell
// whether the device is still as it was left; then blocks of keys, each with the
// data it lists behind it.
type Undo struct {
	dev  Device
	file *os.File
	o    UndoOptions

	mu     sync.Mutex
	saved  map[int64]bool // undo blocks, by number
	keys   []undoKey      // of the block of keys being filled
	keyAt  int64          // its number in the file
	next   int64          // first free block of the file
	nKeys  uint64
	closed bool
}

// UndoOptions say how an undo file is laid out.
type UndoOptions struct {
	Block   int   // bytes that are saved at a time; a power of two, 0: 32 KiB
	FSBlock int   // bytes: the unit of addresses, at most Block
	Offset  int64 // bytes: where the device starts in what e2undo is given
}

type undoKey struct {
	fsblk uint64
	crc   uint32
	size  uint32
}

const (
	undoHeaderSize = 512
	undoKeySize    = 16
	undoKeyMagic   = 0xcadecade
	undoFinished   = 1       // state: all has been saved
	undoHasOffset  = 1       // compatible feature: there is an offset
	undoKeyMost    = 1 << 20 // bytes of a key
	undoSuperAt    = 1024    // of the device, bytes
)

// NewUndo makes file, which must be new and stays the caller's, the undo file of
// what is written to dev.
func NewUndo(dev Device, file *os.File, o UndoOptions) (*Undo, error) {
	if o.Block == 0 {
		o.Block = max(32<<10, o.FSBlock)
	}
	if o.Block < undoSuperAt || o.Block > undoKeyMost || o.Block&(o.Block-1) != 0 ||
		o.FSBlock < sector || o.FSBlock > o.Block || o.FSBlock&(o.FSBlock-1) != 0 {
		return nil, fmt.Errorf("undo file: blocks of %d bytes in units of %d: %w", o.Block, o.FSBlock, syscall.EINVAL)
	}
	u := &Undo{dev: dev, file: file, o: o, saved: map[int64]bool{}, keyAt: 2, next: 3}
	return u, u.header(0, 0)
}

// save keeps the undo blocks under n bytes at off before they change.
func (u *Undo) save(off, n int64) error {
	if u.closed {
		return &Error{Op: "write", Off: off, Len: n, Err: errClosed}
	}
	bs := int64(u.o.Block)
	if off < 0 || n <= 0 {
		return nil
	}
	for b := off / bs; b <= (off+n-1)/bs && b*bs < u.dev.Size(); b++ {
		if u.saved[b] {
			continue
		}
		if err := u.saveBlock(b); err != nil {
			return fmt.Errorf("undo file: %w", err)
		}
		u.saved[b] = true
	}
	return nil
}

func (u *Undo) saveBlock(b int64) error {
	bs := int64(u.o.Block)
	p := make([]byte, min(bs, u.dev.Size()-b*bs))
	if _, err := u.dev.ReadAt(p, b*bs); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if _, err := u.file.WriteAt(p, u.next*bs); err != nil {
		return err
	}
	fsblk := uint64(b * bs / int64(u.o.FSBlock))
	if k := len(u.keys) - 1; k >= 0 && int64(u.keys[k].size)+bs <= undoKeyMost && int64(u.keys[k].size)%bs == 0 &&
		u.keys[k].fsblk+uint64(u.keys[k].size)/uint64(u.o.FSBlock) == fsblk {
		u.keys[k].size += uint32(len(p))
		u.keys[k].crc = crc32cRaw(u.keys[k].crc, p)
		u.next++
		return nil
	}
	u.keys = append(u.keys, undoKey{fsblk, crc32cRaw(^uint32(0), p), uint32(len(p))})
	u.nKeys++
	u.next++
	if len(u.keys) == (u.o.Block-undoKeySize)/undoKeySize {
		return u.closeKeys()
	}
	return nil
}

// closeKeys writes the block of keys and begins another.
func (u *Undo) closeKeys() error {
	if err := u.writeKeys(); err != nil {
		return err
	}
	u.keys, u.keyAt = nil, u.next
	u.next++
	return nil
}

func (u *Undo) writeKeys() error {
	p := make([]byte, u.o.Block)
	le := binary.LittleEndian
	le.PutUint32(p, undoKeyMagic)
	for i, k := range u.keys {
		e := p[undoKeySize*(i+1):]
		le.PutUint64(e, k.fsblk)
		le.PutUint32(e[8:], k.crc)
		le.PutUint32(e[12:], k.size)
	}
	le.PutUint32(p[4:], crc32cRaw(^uint32(0), p))
	_, err := u.file.WriteAt(p, u.keyAt*int64(u.o.Block))
	return err
}

// header writes the header.
func (u *Undo) header(state, superCsum uint32) error {
	p := make([]byte, undoHeaderSize)
	le := binary.LittleEndian
	copy(p, "E2UNDO02")
	le.PutUint64(p[8:], u.nKeys)
	le.PutUint64(p[16:], 1)
	le.PutUint64(p[24:], 2)
	le.PutUint32(p[32:], uint32(u.o.Block))
	le.PutUint32(p[36:], uint32(u.o.FSBlock))
	le.PutUint32(p[40:], superCsum)
	le.PutUint32(p[44:], state)
	if u.o.Offset != 0 {
		le.PutUint32(p[48:], undoHasOffset)
		le.PutUint64(p[64:], uint64(u.o.Offset))
	}
	le.PutUint32(p[undoHeaderSize-4:], crc32cRaw(^uint32(0), p[:undoHeaderSize-4]))
	_, err := u.file.WriteAt(p, 0)
	return err
}

// Finish completes the undo file. After it the device cannot be written to.
func (u *Undo) Finish() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil
	}
	u.closed = true
	super := make([]byte, undoSuperAt)
	if _, err := u.dev.ReadAt(super, undoSuperAt); err != nil {
		return err
	}
	csum := crc32cRaw(^uint32(0), super)
	// Its magic is inverted, so that the undo file is not taken for a device.
	super[0x38], super[0x39] = ^super[0x38], ^super[0x39]
	if _, err := u.file.WriteAt(super, int64(u.o.Block)); err != nil {
		return err
	}
	if err := u.writeKeys(); err != nil {
		return err
	}
	// Whole blocks, up to the last.
	if err := u.file.Truncate(u.next * int64(u.o.Block)); err != nil {
		return err
	}
	if err := u.header(undoFinished, csum); err != nil {
		return err
	}
	return u.file.Sync()
}

// ReadAt implements Device.
func (u *Undo) ReadAt(p []byte, off int64) (int, error) { return u.dev.ReadAt(p, off) }

// WriteAt implements Device.
func (u *Undo) WriteAt(p []byte, off int64) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.save(off, int64(len(p))); err != nil {
		return 0, err
	}
	return u.dev.WriteAt(p, off)
}

// Size returns the length in bytes.
func (u *Undo) Size() int64 { return u.dev.Size() }

// Sync implements Device: what is saved goes first.
func (u *Undo) Sync() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.closed {
		if err := u.writeKeys(); err != nil {
			return err
		}
		if err := u.header(0, 0); err != nil {
			return err
		}
		if err := u.file.Sync(); err != nil {
			return err
		}
	}
	return u.dev.Sync()
}

// Discard is not supported: there would be nothing to save.
func (u *Undo) Discard(off, n int64) error {
	return &Error{Op: "discard", Off: off, Len: n, Err: errors.ErrUnsupported}
}

// ZeroOut implements Device.
func (u *Undo) ZeroOut(off, n int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.save(off, n); err != nil {
		return err
	}
	return u.dev.ZeroOut(off, n)
}

// Close closes the device, and leaves the undo file to the caller.
func (u *Undo) Close() error { return u.dev.Close() }

// Info describes the device.
func (u *Undo) Info() Info {
	i := InfoOf(u.dev)
	i.DiscardGranularity, i.ZeroAfterDiscard = 0, false
	return i
}

var undoTable = crc32.MakeTable(crc32.Castagnoli)

// crc32cRaw is the crc32c without the inversions at both ends.
func crc32cRaw(seed uint32, p []byte) uint32 { return ^crc32.Update(^seed, undoTable, p) }
