package ext2fs

import (
	"errors"
	"fmt"
	"io"
	"math"
	"syscall"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// errNotFS is the error of Open for what has no superblock.
var errNotFS = fmt.Errorf("no ext2, ext3 or ext4 superblock: %w", syscall.EINVAL)

// readSuper reads the superblock at sb blocks of 1 KiB, 0 for the primary, and
// checks its magic, revision and checksum.
func readSuper(dev blockdev.Device, sb uint64) (*ondisk.Super, error) {
	off := int64(ondisk.SuperOffset)
	if sb > 1<<52 {
		return nil, fmt.Errorf("superblock at block %d: %w", sb, syscall.EINVAL)
	}
	if sb != 0 {
		off = int64(sb) << 10
	}
	buf := make([]byte, ondisk.SuperSize)
	if _, err := dev.ReadAt(buf, off); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errNotFS
		}
		return nil, fmt.Errorf("superblock: %w", err)
	}
	s := endian.View[ondisk.Super](buf)
	if s.Magic.Get() != ondisk.SuperMagic {
		return nil, errNotFS
	}
	if r := s.RevLevel.Get(); r > ondisk.DynamicRev {
		return nil, &ondisk.UnsupportedError{Feature: fmt.Sprintf("revision %d", r)}
	}
	if s.HasROCompat(ondisk.ROCompatMetadataCsum) {
		if t := s.ChecksumType[0]; t != 1 {
			return nil, &ondisk.UnsupportedError{Feature: fmt.Sprintf("checksum type %d", t)}
		}
		if c := ondisk.SuperCsum(s); c != s.Checksum.Get() {
			return nil, ondisk.BadCsum("superblock", ondisk.SuperSize-4, s.Checksum.Get(), c)
		}
	}
	return s, nil
}

// writeSuper puts the superblock in memory on the device, out of any
// transaction. None may be open, or the journal must have aborted.
func (fs *FS) writeSuper() error {
	buf := blockdev.AlignedBuf(ondisk.SuperSize, ondisk.SuperSize)
	copy(buf, endian.Bytes(fs.sb))
	sealSuper(endian.View[ondisk.Super](buf))
	if _, err := fs.dev.WriteAt(buf, ondisk.SuperOffset); err != nil {
		return fmt.Errorf("superblock: %w", err)
	}
	return fs.dev.Sync()
}

// markMounted says on the device that the file system is in use, before the
// first change: with a journal, that it needs recovery; without, that it is not
// clean.
func (fs *FS) markMounted() error {
	s := fs.sb
	fs.mountState = s.State.Get()
	if fs.mountState&ondisk.StateValid == 0 {
		fs.log.Warn("the file system was not cleanly unmounted; a check is recommended")
	}
	if fs.mountState&ondisk.StateError != 0 {
		fs.log.Warn("the file system has errors; a check is recommended")
	}
	fs.markInUse()
	if fs.opts.Populating {
		return fs.writeSuper()
	}
	if s.MaxMntCount.Get() == 0 {
		s.MaxMntCount.Set(math.MaxUint16)
	}
	s.MntCount.Set(s.MntCount.Get() + 1)
	now := fs.now().Sec
	s.Mtime.Set(uint32(now))
	s.MtimeHi[0] = byte(now >> 32)
	if p := fs.opts.MountPoint; p != "" {
		clear(s.LastMounted[:])
		copy(s.LastMounted[:len(s.LastMounted)-1], p)
	}
	fs.updateSuper()
	return fs.writeSuper()
}

func (fs *FS) markInUse() {
	s := fs.sb
	if fs.hasLog {
		s.FeatureIncompat.Set(s.FeatureIncompat.Get() | ondisk.IncompatRecover)
	} else {
		s.State.Set(s.State.Get() &^ ondisk.StateValid)
	}
	if fs.hasOrphanFile {
		s.FeatureROCompat.Set(s.FeatureROCompat.Get() | ondisk.ROCompatOrphanPresent)
	}
}

// markClean is the opposite. Everything else is on the device.
func (fs *FS) markClean() {
	s := fs.sb
	if fs.hasLog {
		s.FeatureIncompat.Set(s.FeatureIncompat.Get() &^ ondisk.IncompatRecover)
	}
	s.State.Set(fs.mountState | s.State.Get()&ondisk.StateError)
	if fs.hasOrphanFile && fs.orphan.empty() {
		s.FeatureROCompat.Set(s.FeatureROCompat.Get() &^ ondisk.ROCompatOrphanPresent)
	}
}

// unmount is the second half of Close.
func (fs *FS) unmount() error {
	if !fs.readOnly.Load() {
		fs.evictOrphans()
	}
	err := fs.jnl.Close()
	if e := fs.failed.Load(); e != nil {
		return fmt.Errorf("changes were stopped by an error: %w", *e)
	}
	if err != nil || fs.shut.Load() {
		return err
	}
	fs.markClean()
	fs.updateSuper()
	return fs.writeSuper()
}

// updateSuper brings the superblock in memory up to date with the counts. No
// handle is open.
func (fs *FS) updateSuper() {
	fs.sbMu.Lock()
	defer fs.sbMu.Unlock()
	s := fs.sb
	s.SetFreeBlocksCount(uint64(max(fs.free.Load(), 0)) << fs.clusterBits)
	s.FreeInodes.Set(uint32(max(fs.freeIno.Load(), 0)))
	now := fs.now().Sec
	s.Wtime.Set(uint32(now))
	s.WtimeHi[0] = byte(now >> 32)
	if !fs.opts.Populating {
		s.KbytesWritten.Set(fs.started + uint64(fs.written.Load())>>10)
	}
	fs.errMu.Lock()
	fs.errSaved += fs.putErrors(s)
	fs.errMu.Unlock()
}

// putErrors stores what errors were recorded and not saved, and returns how
// many. errMu is held.
func (fs *FS) putErrors(s *ondisk.Super) uint32 {
	n := fs.errCount - fs.errSaved
	if n == 0 {
		return 0
	}
	s.State.Set(s.State.Get() | ondisk.StateError)
	if s.ErrorCount.Get() == 0 || s.FirstErrorTime.Get() == 0 && s.FirstErrorTimeHi[0] == 0 {
		r := &fs.errFirst
		s.FirstErrorTime.Set(uint32(r.sec))
		s.FirstErrorTimeHi[0] = byte(r.sec >> 32)
		s.FirstErrorIno.Set(r.ino)
		s.FirstErrorBlock.Set(r.block)
		s.FirstErrorLine.Set(r.line)
		s.FirstErrorErrcode[0] = r.code
		clear(s.FirstErrorFunc[:])
		copy(s.FirstErrorFunc[:], r.fn)
	}
	r := &fs.errLast
	s.LastErrorTime.Set(uint32(r.sec))
	s.LastErrorTimeHi[0] = byte(r.sec >> 32)
	s.LastErrorIno.Set(r.ino)
	s.LastErrorBlock.Set(r.block)
	s.LastErrorLine.Set(r.line)
	s.LastErrorErrcode[0] = r.code
	clear(s.LastErrorFunc[:])
	copy(s.LastErrorFunc[:], r.fn)
	s.ErrorCount.Set(s.ErrorCount.Get() + n)
	return n
}

// writeErrorRecord adds the recorded errors to the superblock on the device,
// and nothing else: what is in memory may not have been committed.
func (fs *FS) writeErrorRecord() error {
	buf := blockdev.AlignedBuf(ondisk.SuperSize, ondisk.SuperSize)
	if _, err := fs.dev.ReadAt(buf, ondisk.SuperOffset); err != nil {
		return err
	}
	s := endian.View[ondisk.Super](buf)
	fs.errMu.Lock()
	n := fs.putErrors(s)
	fs.errSaved += n
	fs.errMu.Unlock()
	if n == 0 {
		return nil
	}
	sealSuper(s)
	if _, err := fs.dev.WriteAt(buf, ondisk.SuperOffset); err != nil {
		return err
	}
	return fs.dev.Sync()
}

// touchSuper makes the superblock part of h's transaction, to be changed under
// sbMu.
func (fs *FS) touchSuper(h *jbd2.Handle) error {
	if err := h.GetWrite(fs.sbuf); err != nil {
		return err
	}
	h.Dirty(fs.sbuf)
	return nil
}

// precommit brings what sums up a transaction into it, once: checksums of
// bitmaps, and descriptors. The counts of the superblock are written by Close
// only, as the kernel does: whoever recovers a crash adds them up, and the
// superblock, the one block that must be readable before the log is, is not
// rewritten all the time.
func (fs *FS) precommit(tx *jbd2.Tx) error {
	h := tx.Handle()
	fs.dirtyMu.Lock()
	list := fs.dirty
	fs.dirty = fs.dirtySpare[:0]
	fs.dirtySpare = list
	fs.dirtyMu.Unlock()
	for _, g := range list {
		if err := g.seal(fs, h); err != nil {
			return err
		}
	}
	fs.errMu.Lock()
	news := fs.errCount != fs.errSaved
	fs.errMu.Unlock()
	if !news {
		return nil
	}
	if err := fs.touchSuper(h); err != nil {
		return err
	}
	fs.updateSuper()
	return nil
}

// Freeze brings everything to the device, marks the file system as needing no
// recovery, and makes further changes wait until Thaw. It fails with EBUSY if
// the file system is frozen already. No handle is open in the caller.
func (fs *FS) Freeze() error {
	if err := fs.writable(); err != nil {
		return err
	}
	if !fs.startFreeze() {
		return syscall.EBUSY
	}
	fs.dataMu.Lock() // waits for data under way, and keeps more away
	fs.freezeMu.Lock()
	fs.frozen = true
	fs.freezeMu.Unlock()
	err := fs.jnl.Flush()
	if err == nil {
		err = fs.dev.Sync()
	}
	fs.freezeMu.Lock()
	defer fs.freezeMu.Unlock()
	if err == nil && fs.hasLog {
		fs.sb.FeatureIncompat.Set(fs.sb.FeatureIncompat.Get() &^ ondisk.IncompatRecover)
		fs.updateSuper()
		err = fs.writeSuper()
	}
	fs.freezing = false
	if err != nil {
		_ = fs.thawLocked()
	}
	return err
}

// startFreeze says whether nobody else freezes, or has frozen, the file system.
func (fs *FS) startFreeze() bool {
	fs.freezeMu.Lock()
	defer fs.freezeMu.Unlock()
	if fs.frozen || fs.freezing {
		return false
	}
	fs.freezing = true
	return true
}

// Thaw lets changes go on after Freeze. It fails with EINVAL if the file system
// is not frozen, or not yet.
func (fs *FS) Thaw() error {
	fs.freezeMu.Lock()
	defer fs.freezeMu.Unlock()
	if !fs.frozen || fs.freezing {
		return syscall.EINVAL
	}
	return fs.thawLocked()
}

// thawLocked is Thaw; freezeMu is held.
func (fs *FS) thawLocked() error {
	var err error
	if fs.hasLog && fs.writable() == nil {
		fs.markInUse()
		err = fs.writeSuper()
	}
	if err != nil {
		fs.readOnly.Store(true)
	}
	fs.frozen = false
	fs.thaw.Broadcast()
	fs.dataMu.Unlock()
	return err
}

// waitThaw waits until the file system is not frozen.
func (fs *FS) waitThaw() {
	fs.freezeMu.Lock()
	for fs.frozen {
		fs.thaw.Wait()
	}
	fs.freezeMu.Unlock()
}

// ShutdownMode says what Shutdown does with what is not yet on the device.
type ShutdownMode uint32

const (
	ShutdownDefault    ShutdownMode = 0 // bring everything to the device first
	ShutdownLogFlush   ShutdownMode = 1 // commit first
	ShutdownNoLogFlush ShutdownMode = 2 // drop it
)

// Shutdown stops all changes, as after a crash: from then on operations fail
// with EIO.
func (fs *FS) Shutdown(mode ShutdownMode) error {
	if mode > ShutdownNoLogFlush {
		return syscall.EINVAL
	}
	if fs.jnl == nil || fs.shut.Load() {
		fs.shut.Store(true)
		return nil
	}
	switch mode {
	case ShutdownDefault:
		if err := fs.Freeze(); err != nil {
			return err
		}
		fs.shut.Store(true)
		defer func() { _ = fs.Thaw() }() // those who wait learn of the shutdown
	case ShutdownLogFlush:
		fs.shut.Store(true)
		if err := fs.jnl.Commit(fs.jnl.Running()); err != nil {
			return err
		}
	}
	fs.shut.Store(true)
	fs.jnl.Abort(syscall.ESHUTDOWN)
	return nil
}
